"""What a less privileged process may write is never believed by a more privileged one."""
import contextlib
import os
import pathlib
import pwd
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile

import pytest
from kit import BUILD, POSTHOUSE, Posthouse, free_port, owner, wait_for
from webkit import Web

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs users")


@pytest.fixture
def place():
    """A folder that other users may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        yield pathlib.Path(d)


@contextlib.contextmanager
def bystander():
    """A process that a SIGHUP would end."""
    proc = subprocess.Popen(["sleep", "600"])
    try:
        yield proc
    finally:
        proc.kill()
        proc.wait()


def reloads(p):
    return p.log().count("reload -- ")


RECORD = ("record", "set", "provider", "hosts=[127.0.0.1]:9", "tls=may")


@root_only
@pytest.mark.parametrize("by", ["page", "command"])
def test_a_forged_pid_file_signals_nobody(dns, place, by):
    spool = place / "spool"
    w = Web(f"relayhost = [127.0.0.1]:{free_port()}\nqueue_directory = {spool}\n", dns=dns)
    with bystander() as victim:
        w.start_daemon()
        try:
            (spool / "master.pid").unlink()  # as a relay that was broken into can
            (spool / "master.pid").write_text(f"{victim.pid}\n")
            if by == "page":
                w.start_web()  # makes the database of records, and asks for a reload
            else:
                w.command(*RECORD)

            def taken_up():
                "a reload"
                assert victim.poll() is None, "the process that master.pid names was signalled"
                return reloads(w) >= 1
            wait_for(taken_up)
            assert victim.poll() is None
        finally:
            w.stop()


ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
try:
    s.connect(sys.argv[1])
    print(s.recv(64))
except OSError as e:
    print(type(e).__name__)
"""


@root_only
def test_the_relays_user_cannot_ask_for_a_reload(dns, place):
    spool = place / "spool"
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {spool}\n", dns=dns)
    with p:
        pw = pwd.getpwnam(owner())
        r = subprocess.run([sys.executable, "-c", ASK, spool / "reload.sock"], capture_output=True, text=True, user=pw.pw_uid,
                           group=pw.pw_gid, extra_groups=[])
        assert r.stdout.strip() in ("PermissionError", "b''"), r.stdout + r.stderr
        r = subprocess.run([sys.executable, "-c", ASK, spool / "reload.sock"], capture_output=True, text=True)
        assert r.stdout.strip() == r"b'reloaded\n'", r.stdout + r.stderr
        p.wait_log("reload -- ")
        assert reloads(p) == 1


def test_many_who_ask_are_given_one_reload(dns, place):
    spool = place / "spool"
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {spool}\n", dns=dns)
    with p:
        os.kill(p.proc.pid, signal.SIGSTOP)
        asking = []
        for _ in range(40):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(60)
            s.connect(str(spool / "reload.sock"))
            asking.append(s)
        os.kill(p.proc.pid, signal.SIGCONT)
        for s in asking:
            assert s.recv(64) == b"reloaded\n"
            s.close()
        p.wait_log("reload -- ")
        assert reloads(p) == 1


def test_a_refused_reload_is_said(dns, place):
    """Whoever wrote is told that it is not in use, at once."""
    spool = place / "spool"
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {spool}\n", dns=dns)
    with p:
        with open(p.dir / "main.cf", "a") as f:
            f.write("smtp_sasl_security_options = noplaintxt\n")
        r = p.run(*RECORD)
        assert "was not told" in r.stderr or r.returncode != 0, r.stdout + r.stderr
        p.wait_log("reload refused")
        assert reloads(p) == 0


@root_only
@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_the_pid_file_is_no_way_to_another_file(dns, place, kind):
    """The spool is mail_owner's: what it puts at master.pid is not written to by root."""
    spool, victim = place / "spool", place / "victim"
    victim.write_text("not to be touched\n")
    victim.chmod(0o600)
    spool.mkdir()
    pw = pwd.getpwnam(owner())
    os.chown(spool, pw.pw_uid, pw.pw_gid)
    (os.symlink if kind == "symlink" else os.link)(victim, spool / "master.pid")
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {spool}\n", dns=dns)
    with pytest.raises(AssertionError, match="posthoused ended"):
        p.start()
    assert "master.pid" in (p.dir / "stderr").read_text()
    assert victim.read_text() == "not to be touched\n"


@root_only
@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_the_log_file_is_no_way_to_another_file(dns, place, kind):
    """What the owner of the log's folder puts there is not written to by root: neither at a start nor after a rotation."""
    logs, victim = place / "logs", place / "victim"
    victim.write_text("not to be touched\n")
    logs.mkdir()
    pw = pwd.getpwnam(owner())
    os.chown(logs, pw.pw_uid, pw.pw_gid)
    main = f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\nmaillog_file = {logs}/mail.log\n"
    with Posthouse(main, dns=dns) as p:
        kept = logs / "mail.log.1"
        (logs / "mail.log").rename(kept)
        (os.symlink if kind == "symlink" else os.link)(victim, logs / "mail.log")
        p.proc.send_signal(signal.SIGUSR1)
        wait_for(lambda: f"cannot reopen log file {logs}/mail.log" in kept.read_text())
        p.send()
        wait_for(lambda: "queue active" in kept.read_text())
    p = Posthouse(main, dns=dns)
    with pytest.raises(AssertionError, match="posthoused ended"):
        p.start()
    assert f"maillog_file {logs}/mail.log" in (p.dir / "stderr").read_text()
    assert victim.read_text() == "not to be touched\n"


@root_only
def test_a_link_of_roots_own_leads_to_the_log(dns, place):
    (place / "far").mkdir()
    (place / "mail.log").symlink_to(place / "far" / "mail.log")
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\nmaillog_file = {place}/mail.log\n", dns=dns)
    with p:
        wait_for(lambda: "daemon started" in (place / "far" / "mail.log").read_text())
        assert (place / "far" / "mail.log").stat().st_mode & 0o007 == 0, "addresses are nobody else's business"


@root_only
def test_sockets_are_made_with_their_rights(dns, place):
    """Who owns the spool cannot change what a path means between two calls: there is one."""
    spool = place / "spool"
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {spool}\nweb_owner = www-data\n", dns=dns)
    with p:
        pw, web = pwd.getpwnam(owner()), pwd.getpwnam("www-data")
        for name, mode, group in (("control.sock", 0o660, pw.pw_gid), ("reload.sock", 0o660, web.pw_gid), ("public/submit.sock", 0o666, None),
                                  ("restart.sock", 0o600, 0)):
            st = (spool / name).lstat()
            assert stat.S_ISSOCK(st.st_mode) and stat.S_IMODE(st.st_mode) == mode, name
            assert group is None or st.st_gid == group, name


@root_only
@pytest.mark.parametrize("name", ["web.db", "web.db-shm", "accounts.db"])
def test_the_pages_folder_gives_no_file_away(dns, place, name):
    """What web_owner has linked into its folder does not become its own."""
    data, victim = place / "data", place / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    data.mkdir()
    pw = pwd.getpwnam("www-data")
    os.chown(data, pw.pw_uid, pw.pw_gid)
    os.link(victim, data / name)
    w = Web(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\ndata_directory = {data}\n", dns=dns)
    w.start_daemon()
    try:
        with contextlib.suppress(AssertionError):
            w.start_web()
    finally:
        with contextlib.suppress(AssertionError):
            w.stop()
    assert victim.stat().st_uid == 0 and victim.read_text() == ""


def journal_naming(database, victim):
    """A journal of that database with nothing in it to take back, and with a file that is removed when that is done."""
    raw = database.read_bytes()
    size, magic = struct.unpack(">H", raw[16:18])[0], bytes.fromhex("d9d505f920a163d7")
    head = magic + struct.pack(">IIIII", 0, 1, len(raw) // size, 512, size)
    name = str(victim).encode()
    end = struct.pack(">II", len(name), sum(name)) + magic
    return head.ljust(512, b"\0") + struct.pack(">I", 0x40000000 // size + 1) + name + end


@root_only
@pytest.mark.parametrize("by", ["page", "command"])
@pytest.mark.parametrize("name", ["accounts.db", "relays.db"])
def test_no_journal_of_the_pages_user_has_a_file_removed(dns, place, name, by):
    """SQLite removes what a journal names.  Neither a start of the page nor a command does that as root."""
    data, victim = place / "data", place / "victim"
    victim.write_text("not to be touched\n")
    victim.chmod(0o600)
    w = Web(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\ndata_directory = {data}\n", dns=dns)
    w.command("domain", "add", "a.example")
    w.command(*RECORD)
    pw = pwd.getpwnam("www-data")
    (data / f"{name}-journal").write_bytes(journal_naming(data / name, victim))
    for path in data, *data.iterdir():
        os.chown(path, pw.pw_uid, pw.pw_gid)
    if by == "page":
        with contextlib.suppress(AssertionError):
            w.start_web()
        w.stop_web()
    else:
        w.run("domain", "add", "b.example")
        w.run(*RECORD)
    assert victim.read_text() == "not to be touched\n"


@root_only
@pytest.mark.parametrize("end", ["journal", "wal", "shm"])
def test_no_journal_of_the_pages_user_is_another_file(dns, place, end):
    data, victim = place / "data", place / "victim"
    w = Web(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\ndata_directory = {data}\n", dns=dns)
    w.command("domain", "add", "a.example")
    pw = pwd.getpwnam("www-data")
    if end != "journal":
        with sqlite3.connect(data / "accounts.db") as db:
            db.execute("PRAGMA journal_mode = WAL")
        db.close()
    for path in data, *data.iterdir():
        os.chown(path, pw.pw_uid, pw.pw_gid)
    victim.write_text("")
    os.link(victim, data / f"accounts.db-{end}")
    w.run("domain", "add", "b.example")
    assert victim.stat().st_uid == 0 and victim.read_bytes() == b""


@root_only
def test_the_command_follows_no_link_of_the_pages_user(dns, place):
    data, victim = place / "data", place / "victim"
    data.mkdir()
    pw = pwd.getpwnam("www-data")
    os.chown(data, pw.pw_uid, pw.pw_gid)
    os.symlink(victim, data / "relays.db")
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {place}/spool\ndata_directory = {data}\n", dns=dns)
    r = p.run(*RECORD)
    assert r.returncode != 0 and not victim.exists(), r.stdout
