import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import pytest  # noqa: E402
from kit import Dns, make_cert  # noqa: E402


@pytest.fixture(scope="session")
def dns(tmp_path_factory):
    """Names that the tests use; everything else does not exist."""
    d = tmp_path_factory.mktemp("dns")
    d.chmod(0o755)
    server = Dns(d, [
        "relay.server. 60 IN A 127.0.0.1",
        "relay.server. 60 IN MX 10 mx1.relay.server.",
        "mx1.relay.server. 60 IN A 127.0.0.1",
        "port25.server. 60 IN A 127.0.0.78",
        "plain.server. 60 IN A 127.0.0.1",
        "other.server. 60 IN A 127.0.0.1",
        "mxonly.example. 60 IN MX 10 mx-a.example.",
        "mxonly.example. 60 IN MX 20 mx-b.example.",
        "mx-a.example. 60 IN A 127.0.0.2",
        "mx-b.example. 60 IN A 127.0.0.3",
        "aonly.example. 60 IN A 127.0.0.2",
        "nullmx.example. 60 IN MX 0 .",
    ])
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server_cert(tmp_path_factory):
    """Certificate and key of mta.example, which every user may read."""
    d = tmp_path_factory.mktemp("cert")
    d.chmod(0o755)
    cert, key = make_cert(d, "mta.example")
    key.chmod(0o644)
    return cert, key
