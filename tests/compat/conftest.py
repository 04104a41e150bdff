"""What the files here share: a name server and Debian's Postfix, one of each for a file."""
import pytest

import pair


@pytest.fixture(scope="module")
def name_server(request, tmp_path_factory):
    """Knows the file's RECORDS; all names below a domain of its ZONES have those of the domain itself; it FAILS for others."""
    d = tmp_path_factory.mktemp("dns")
    d.chmod(0o755)
    server = pair.NameServer(d, *(getattr(request.module, what, ()) for what in ("RECORDS", "ZONES", "FAILS")))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def postfix(name_server):
    p = pair.Postfix(name_server)
    yield p
    p.stop()
