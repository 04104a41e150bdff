"""The processes are confined: tried from inside, by code that a shim runs in them."""
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from kit import SLOW, FakeRelay, Posthouse, wait_for

import shim

LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) > 0
needs_shim = pytest.mark.skipif(not shim.available, reason="a sanitizer build: its wrappers and the shim's exclude each other")
PASSWORD = "s3cr3t-Pass-word-9471"


def daemon(dns, tmp_path, relay, **kw):
    """Posthouse with its spool outside the configuration directory, and a password table."""
    spool = tmp_path / "spool"
    tmp_path.chmod(0o755)
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nqueue_directory = {spool}\nsmtp_sasl_auth_enable = yes\n"
                  "smtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = hash:{dir}/passwd\n", dns=dns,
                  files={"passwd": f"[127.0.0.1]:{relay.port} user:{PASSWORD}\n"}, **kw)
    p.postmap(f"hash:{p.dir}/passwd")
    (p.dir / "passwd").unlink()
    (p.dir / "passwd.db").chmod(0o600)
    return p


@needs_shim
def test_from_inside(dns, tmp_path):
    relay = FakeRelay(auth=["PLAIN"])
    p = daemon(dns, tmp_path, relay)
    s = shim.Shim(tmp_path)
    p.extra_env = s.env
    with p:
        p.send()
        assert relay.wait_mails(1)[0]["auth"] == ("PLAIN", "user", PASSWORD)
        segment = next((tmp_path / "spool" / "log").iterdir())
        files = lambda segment: [p.dir / "main.cf", p.dir / "passwd.db", segment, p.dir / "new-file"]
        poke = lambda: p.proc.send_signal(signal.SIGUSR1)
        inside = s.probe(1, files(f"log/{segment.name}"), poke)  # where it is, in the spool
        lookup = s.probe(2, files(segment), poke)
        print(inside, lookup, sep="\n")
        for what in ("fork", "setuid", *shim.NEVER):
            assert (inside[what], lookup[what]) == ("EPERM", "EPERM"), what
        assert (inside["inet"], lookup["inet"]) == ("ok", "EPERM")
        assert inside["spool_write"] == inside["spool"] == "ok"
        assert lookup["config"] == lookup["secret"] == "ok"
        if LANDLOCK:
            for what in ("passwd", "root", "proc", "config", "config_write", "secret", "create"):
                assert inside[what] == "EACCES", what
            assert lookup["passwd"] == "ok"  # names of users in authorized_*_users
            for what in ("root", "proc", "config_write", "spool", "spool_write", "create"):
                assert lookup[what] == "EACCES", what
        else:
            p.wait_log("no Landlock in this kernel", count=2)
        assert not (p.dir / "new-file").exists()
        p.send()
        relay.wait_mails(2)
    relay.stop()


def status(pid):
    return dict(re.findall(r"^(\w+):\s*(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M))


def test_users_and_flags(dns, tmp_path):
    relay = FakeRelay(auth=["PLAIN"])
    with daemon(dns, tmp_path, relay) as p:
        p.send()
        relay.wait_mails(1)
        for pid in p.children():
            st = status(pid)
            assert st["NoNewPrivs"] == "1" and st["Seccomp"] == "2", st
            assert re.search(r"^Max core file size\s+0\s+0\s", open(f"/proc/{pid}/limits").read(), re.M)
            assert os.stat(f"/proc/{pid}/mem").st_uid == 0, "another process of the same user could look into it"
            if os.geteuid() == 0:
                assert set(st["Uid"].split()) != {"0"}
                caps = {int(st[c], 16) for c in ("CapPrm", "CapEff")}
                assert caps <= ({0} if st["Name"] == "posthouse-relay" else {4}), st
    relay.stop()


SCAN = r"""
import re, sys
pid, needles = sys.argv[1], [n.encode() for n in sys.argv[2:]]
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
    for line in maps:
        lo, hi, flags = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
        if not flags.startswith("rw") or "[v" in line:
            continue
        try:
            mem.seek(int(lo, 16))
            data = mem.read(int(hi, 16) - int(lo, 16))
        except (OSError, ValueError, OverflowError):
            continue
        for n in needles:
            if n in data:
                print("found", n, line.strip())
"""


def scan(pid, *needles):
    """Which needles are in a process's memory."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    r = subprocess.run(sudo + [sys.executable, "-c", SCAN, str(pid), *needles], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer keeps what was freed, and libgsasl frees copies of its own unwiped")
@pytest.mark.parametrize("mech", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_password_leaves_no_trace_in_the_relay(dns, tmp_path, mech):
    import base64
    relay = FakeRelay(auth=[mech], users={"user": PASSWORD})
    with daemon(dns, tmp_path, relay) as p:
        p.send()
        assert relay.wait_mails(1)[0]["auth"] == (mech, "user", PASSWORD)
        wait_for(lambda: p.queue() == [])
        relay_pid = p.child("relay")
        plain = base64.b64encode(f"\0user\0{PASSWORD}".encode()).decode()
        found = scan(relay_pid, PASSWORD, plain, base64.b64encode(PASSWORD.encode()).decode())
        assert found == "", found
        assert scan(relay_pid, "mta.example") != ""  # it does look
        assert PASSWORD not in p.log()
    relay.stop()
