"""posthouse-web is confined: tried from inside, by code that a shim runs in it."""
import os
import pathlib
import signal
import subprocess
import tempfile
import threading

import pytest
from kit import SLOW, Listener, free_port, wait_for
from webkit import GLOBAL, SECRET, Web

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
        for what in ("fork", "setuid", *shim.NEVER):
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


@needs_shim
def test_from_inside_the_helper(dns, place):
    """The process that stays root, and the audit that it starts: neither can do more than its task."""
    spool, logs = place / "spool", place / "logs"
    logs.mkdir()
    secret = place / "secret"
    secret.mkdir()
    (secret / "table").write_text("x y\n")
    (secret / "table").chmod(0o600)
    s = shim.Shim(place)
    w = Web(f"relayhost = [127.0.0.1]:{free_port()}\nqueue_directory = {spool}\nmaillog_file = {logs}/mail.log\n"
            f"transport_maps = texthash:{secret}/table\n", dns=dns)
    w.log = lambda: (logs / "mail.log").read_text()
    w.extra_env = s.env
    with w:
        w.command("admin", "add", GLOBAL, input=SECRET + "\n")
        w.send()
        segment = next((spool / "log").iterdir())
        files = [w.dir / "main.cf", secret / "table", segment, w.dir / "new-file"]
        helper = s.probe(4, files, lambda: w.web.send_signal(signal.SIGUSR1))
        audit = s.probe(5, files, lambda: w.api(GLOBAL).get("/api/check"))
        print(helper, audit, sep="\n")
        for what in shim.NEVER:
            assert (helper[what], audit[what]) == ("EPERM", "EPERM"), what
        for what in ("fork", "setuid"):
            assert audit[what] == "EPERM", what
        assert helper["config"] == audit["config"] == audit["secret"] == helper["own_limit"] == "ok"
        if LANDLOCK:
            for what in ("proc", "config_write", "spool_write", "create"):
                assert (helper[what], audit[what]) == ("EACCES", "EACCES"), what
            assert audit["passwd"] == "ok"  # as for the lookup process
            for what in ("root", "spool"):
                assert audit[what] == "EACCES", what
        assert not (w.dir / "new-file").exists()


def children(name, parent):
    """The processes of that name that parent has."""
    out = subprocess.run(["pgrep", "-x", "-P", str(parent), name], capture_output=True, text=True).stdout
    return [int(p) for p in out.split()]


def helper_of(web_pid):
    """The one child of the page's process."""
    return next(iter(children("posthouse-help", web_pid)), None)


def test_the_page_does_not_outlive_its_helper(dns, place):
    """Killed, it would leave a page that audits nothing and writes on to a log file that was rotated away."""
    with Web(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\n", dns=dns) as w:
        helper = wait_for(lambda: helper_of(w.web.pid))
        os.kill(helper, signal.SIGSTOP)
        os.kill(helper, signal.SIGCONT)
        w.command("admin", "add", GLOBAL, input=SECRET + "\n")
        assert w.api(GLOBAL).get("/api/session")["admin"] == GLOBAL
        os.kill(helper, signal.SIGKILL)
        assert w.web.wait(30 * SLOW) == 1  # for systemd a reason to start it again
        w.wait_log("error: the helper process has ended")


def test_an_audit_that_hangs_can_be_told_to_end(dns, place):
    """A database that accepts and is silent holds it up, and not the rotation; SIGTERM ends it at once, and the page goes on."""
    asked = threading.Event()

    def listens(conn):
        while conn.recv(4096):
            asked.set()

    with Listener(listens) as silent:
        w = Web(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\nsmtp_sasl_auth_enable = yes\n"
                f"smtp_sasl_password_maps = pgsql:{place}/table.cf\n", dns=dns)
        (place / "table.cf").write_text(f"hosts = 127.0.0.1:{silent.port}\nuser = u\npassword = p\ndbname = d\nquery = SELECT 1\n")
        with w:
            w.command("admin", "add", GLOBAL, input=SECRET + "\n")
            boss = w.api(GLOBAL)
            asking = threading.Thread(target=boss.request, args=("GET", "/api/check"))
            asking.start()
            helper = wait_for(lambda: helper_of(w.web.pid))
            wait_for(asked.is_set)  # another kind of audit may go before
            hangs = wait_for(lambda: children("posthouse-audit", helper))
            (w.dir / "maillog").rename(w.dir / "maillog.1")
            w.web.send_signal(signal.SIGUSR1)  # the log file does not wait for it
            wait_for((w.dir / "maillog").exists)
            os.kill(hangs[0], signal.SIGTERM)
            w.wait_log(r"warning: an audit of the configuration failed \(status 15\)")
            asking.join()
            assert w.api(GLOBAL).get("/api/session")["admin"] == GLOBAL


def test_the_helper_goes_on_working(dns, place):
    """It finds what is wrong in tables that only root may read, and opens a new log file after rotation."""
    logs = place / "logs"
    logs.mkdir()
    secret = place / "secret"
    secret.mkdir()
    (secret / "table").write_text("x.example smtp:[127.0.0.1]:9\n")
    secret.chmod(0o700)
    w = Web(f"relayhost = [127.0.0.1]:{free_port()}\nqueue_directory = {place}/spool\nmaillog_file = {logs}/mail.log\n"
            f"transport_maps = texthash:{secret}/table, hash:{secret}/none\n", dns=dns)
    w.log = lambda: (logs / "mail.log").read_text()
    with w:
        w.command("admin", "add", GLOBAL, input=SECRET + "\n")
        found = [f["text"] for f in w.api(GLOBAL).get("/api/check")["findings"]]
        assert any("none" in t and "postmap" in t for t in found), found
        assert not any("texthash" in t for t in found), found
        pid = wait_for(lambda: helper_of(w.web.pid))
        st = status(pid)
        assert st["NoNewPrivs"] == "1" and st["Seccomp"] == "2", st
        if os.geteuid() == 0:
            assert int(st["CapEff"], 16) & ~0xC6 == 0, st  # to read, to write, to become others: no more
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, w.web.pid) > 0  # mail comes before an audit
        (logs / "mail.log").rename(logs / "mail.log.1")
        w.web.send_signal(signal.SIGUSR1)

        def again():
            "a new log file"
            w.api().request("POST", "/api/login", form={"username": "nobody@x.example", "password": "wrong"})
            return (logs / "mail.log").exists() and "login failed" in w.log()
        wait_for(again)
