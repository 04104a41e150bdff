import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import pytest  # noqa: E402
from kit import SLOW, Dns, make_cert  # noqa: E402

# A phase of a test that takes longer hangs, in seconds.  The longest takes a minute or two on a quiet machine.
HANGS = 1800 * SLOW


def pytest_configure(config):
    def it_hangs(number, frame):
        pytest.fail(f"not at its end after {HANGS} s")  # which no "except Exception" of a test takes for something else
    signal.signal(signal.SIGALRM, it_hangs)


@pytest.hookimpl(hookwrapper=True)
def ended_when_it_hangs(item):
    signal.setitimer(signal.ITIMER_REAL, HANGS, 60)  # again and again: what a test does at its end may hang too
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = ended_when_it_hangs


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
