"""posthouse-web is confined: tried from inside, by code that a shim runs in it."""
import os
import pathlib
import tempfile

import pytest
from kit import free_port
from webkit import Web

import shim
from test_confined import LANDLOCK, needs_shim, status


@pytest.fixture
def place():
    """A folder that other users may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        yield pathlib.Path(d)


@needs_shim
def test_from_inside_the_page(dns, place):
    spool = place / "spool"
    s = shim.Shim(place)
    w = Web(f"relayhost = [127.0.0.1]:{free_port()}\nqueue_directory = {spool}\n", dns=dns)
    w.extra_env = s.env
    with w:
        w.send()
        segment = next((spool / "log").iterdir())
        inside = s.probe(3, [w.dir / "main.cf", w.dir / "relays.key", segment, w.dir / "new-file"],
                         lambda: w.api().request("GET", "/healthz"))
        print(inside)
        for what in ("packet", "netlink", "exec", "fork", "ptrace", "kill", "setuid", "unshare", "mount", "bpf", "keyctl"):
            assert inside[what] == "EPERM", what
        assert inside["inet"] == inside["config"] == "ok"
        if LANDLOCK:
            for what in ("passwd", "root", "proc", "config_write", "spool", "spool_write", "create"):
                assert inside[what] == "EACCES", what
        if os.geteuid() == 0:
            assert inside["secret"] == "EACCES"
        assert w.api().request("GET", "/healthz")[0] == 200
        st = status(w.web.pid)
        assert st["NoNewPrivs"] == "1" and st["Seccomp"] == "2"
