"""The start: its errors are printed before the terminal is given back; what cannot start lets nobody in; listeners follow master.cf."""
import contextlib
import os
import re
import signal
import socket
import subprocess

import pytest
from kit import POSTHOUSE, POSTHOUSED, SLOW, Client, FakeRelay, Posthouse, free_port, wait_for

MAIN = "relayhost = [127.0.0.1]:9\nsmtpd_peername_lookup = no\n"


def background(p):
    """posthoused as a script of the system starts it: returns when the terminal is free again."""
    return subprocess.run([str(POSTHOUSED), "-c", str(p.dir)], capture_output=True, text=True, env=p.env(), timeout=60 * SLOW)


def stop(p):
    """Ends a daemon in the background."""
    pid = int((p.dir / "spool/master.pid").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not p.children_of([pid]))


def answers(port, host="127.0.0.1"):
    """Whether somebody lets clients in there."""
    with socket.socket() as s:
        s.settimeout(10 * SLOW)
        return s.connect_ex((host, port)) == 0


def take_log_away(p):
    """The spool's log belongs to a user who is not ours, as in a restored backup; returns what undoes it."""
    log = p.dir / "spool/log"
    if os.geteuid() == 0:
        st = log.stat()
        os.chown(log, 12345, 12345), log.chmod(0o700)
        return lambda: (os.chown(log, st.st_uid, st.st_gid), log.chmod(st.st_mode & 0o777))
    log.chmod(0)
    return lambda: log.chmod(0o755)


def test_a_start_in_the_background_serves_when_it_returns():
    p = Posthouse(MAIN)
    r = background(p)
    try:
        assert (r.returncode, r.stdout, r.stderr) == (0, "", "")
        assert p.send().startswith("250 2.0.0")
        second = background(p)
        assert second.returncode == 1 and "another posthoused is running" in second.stderr
        assert p.send().startswith("250 2.0.0")
    finally:
        stop(p)
    undo = take_log_away(p)
    r = background(p)
    undo()
    assert r.returncode == 1 and re.search(r"fatal: .*cannot list log/: Permission denied", r.stderr), r.stderr
    assert "the relay process could not be started" in r.stderr
    assert not answers(p.port) and not list((p.dir / "spool").rglob("*.sock"))
    assert "cannot list log/: Permission denied" in p.log()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_start_without_standard_descriptors_keeps_its_log(tmp_path, closed):
    """No file of the daemon's takes the number of standard input, output or error: the log's would be put over it."""
    p = Posthouse(MAIN, directory=tmp_path)
    try:
        r = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', str(POSTHOUSED), str(p.dir)], env=p.env(), timeout=60 * SLOW)
        assert r.returncode == 0
        assert p.send().startswith("250 2.0.0")
        p.wait_log("client=")
        pid = int((p.dir / "spool/master.pid").read_text())
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    finally:
        stop(p)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_no_other_user_keeps_it_from_starting():
    """Who may read a file may hold a lock on it that keeps its owner's away."""
    hold = "import fcntl, os, sys\nfor f in sys.argv[1:]:\n    try: fcntl.lockf(os.open(f, os.O_RDONLY), fcntl.LOCK_SH)\n" \
        "    except PermissionError: pass\nprint('held', flush=True)\nsys.stdin.read()"
    with Posthouse(MAIN) as p:
        p.stop()
        files = [str(f) for f in (p.dir / "spool").rglob("*") if f.is_file()]
        assert any(f.endswith("/master.pid") for f in files)
        with subprocess.Popen(["/usr/bin/python3", "-c", hold, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=12345) as other:
            assert other.stdout.readline() == b"held\n"
            p.start()
            other.stdin.close()
        assert p.send().startswith("250")


FAULTS = {
    "a port that is taken": ("", "127.0.0.1:{taken} inet n - n - - smtpd\n",
                             r"service 127.0.0.1:\d+: bind 127.0.0.1 port \d+: Address already in use"),
    "a port twice": ("", "127.0.0.1:{free} inet n - n - - smtpd\nlocalhost:{free} inet n - n - - smtpd\n",
                     r"service localhost:\d+: bind 127.0.0.1 port \d+: service 127.0.0.1:\d+ of master.cf listens there"),
    "no address": ("", "mx.nowhere:{free} inet n - n - - smtpd\n", r'service mx.nowhere:\d+: "mx.nowhere" is not an address'),
    "no such service name": ("", "127.0.0.1:smtpx inet n - n - - smtpd\n", r"service 127.0.0.1:smtpx: "),
    "no queue": ("queue_directory = /proc/nowhere/spool\n", "", r"queue_directory /proc/nowhere/spool: "),
    "no log": ("maillog_file = /proc/nowhere/log\n", "", r"maillog_file /proc/nowhere/log: "),
    "a mistake": ("message_size_limit = many\n", "", r"main.cf, line \d+: .*message_size_limit"),
}
CHECKED = {"a port twice", "no address", "no such service name", "a mistake", "no mail_owner", "no lookup_owner"}  # by posthouse check, too
if os.geteuid() == 0:
    FAULTS["no mail_owner"] = ("mail_owner = nosuchuser\n", "", "mail_owner = nosuchuser: no such user")
    FAULTS["no lookup_owner"] = ("lookup_owner = nosuchuser\n", "", "lookup_owner = nosuchuser: no such user")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_that_fails_says_why_and_fails(tmp_path, fault):
    main, master, said = FAULTS[fault]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        master = master.replace("{taken}", str(taken.getsockname()[1])).replace("{free}", str(free_port()))
        p = Posthouse(MAIN + main, master=master, directory=tmp_path)
        r = background(p)
        code = 69 if fault == "a port that is taken" else 1
        assert r.returncode == code and re.search("posthoused: fatal: .*" + said, r.stderr), r.stderr
        checked = p.run("check")
        if fault in CHECKED:
            assert checked.returncode == 2 and re.search("(?m)^error: .*" + said, checked.stdout), checked.stdout
        assert not answers(p.port)
        if "owner" in fault:
            assert not (p.dir / "spool").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a program of the same user may share the port")
@pytest.mark.parametrize("restart", [False, True])
def test_no_other_program_gets_a_part_of_the_clients(restart):
    """A Postfix that is started, perhaps by habit, has SO_REUSEPORT and is root's, too."""
    with Posthouse("data_directory = {dir}/data\nqueue_directory = {dir}/spool\n") as p:
        if restart:
            assert p.run("restart").returncode == 0
        for address in ("127.0.0.1", "0.0.0.0"):
            with socket.socket() as s, pytest.raises(OSError, match="in use"):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                s.bind((address, p.port))
                s.listen()


def test_a_process_that_cannot_start_lets_nobody_in():
    """Said once, tried less and less often, and at once at a reload; programs are told at once that there is no daemon."""
    with Posthouse(MAIN) as p:
        assert p.send().startswith("250 2.0.0")
        undo = take_log_away(p)
        os.kill(p.child("relay"), signal.SIGKILL)
        p.wait_log("the relay process cannot start: no client is let in until it can")
        wait_for(lambda: not answers(p.port))
        assert p.run(face="mailq").returncode in (0, 69)
        assert not (p.dir / "spool/public/submit.sock").exists()
        tried = len(re.findall("killed by signal 9|exit status 1", p.log()))
        assert tried <= 4 and p.log().count("cannot list log/") == 1
        undo()
        p.proc.send_signal(signal.SIGHUP)
        wait_for(p._greets)
        p.wait_log("the relay process could be started")
        assert p.send().startswith("250 2.0.0") and len(p.queue()) == 2
        assert p.log().count("cannot start: no client") == 1


def begin_and_hold(p):
    """Starts the daemon, and holds its relay process before it is ready, as one that reads a large queue; returns its ID."""
    for _ in range(20):
        p.out = open(p.dir / "stderr", "ab")
        p.proc = subprocess.Popen([str(POSTHOUSED), "-c", str(p.dir), "-f"], stdout=p.out, stderr=p.out, env=p.env())
        children = []
        while len(children) < 2:
            children = [int(n) for n in open(f"/proc/{p.proc.pid}/task/{p.proc.pid}/children").read().split()]
        os.kill(max(children), signal.SIGSTOP)
        with contextlib.suppress(AssertionError):
            p.wait_log("daemon started", 0.5)
            os.kill(max(children), signal.SIGCONT)  # it was ready before
            p.stop()
            (p.dir / "maillog").unlink()
            continue
        return max(children)
    raise AssertionError("the relay process is always faster")


def test_a_reload_does_not_hold_up_a_start():
    """A configuration is more than a socket holds: who waited until a process that reads the queue took it had to kill that."""
    p = Posthouse(MAIN)
    try:
        relay = begin_and_hold(p)
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("the reload waits until the relay process has begun")
        (p.dir / "maillog").rename(p.dir / "maillog.1")
        p.proc.send_signal(signal.SIGUSR1)  # the supervisor does its other work
        wait_for((p.dir / "maillog").exists)
        r = p.run("reload", "--wait", "1")
        assert r.returncode == 1 and r.stderr == ("posthouse: cannot reload: the daemon is busy and has not answered yet; it was asked, "
                                                  "and its log will say whether it has reloaded or refused to\n")
        asked = subprocess.Popen([str(POSTHOUSE), "-c", str(p.dir), "reload"], env=p.env())
        os.kill(relay, signal.SIGCONT)
        p.wait_log("reload -- configuration", count=2)
        for wrong in (["--wait"], ["--wait", "0"], ["--wait", "x"], ["now"], ["--wait", "1", "2"]):
            assert p.run("reload", *wrong).returncode == 64
        assert asked.wait(30) == 0 and p.log().index("daemon started") < p.log().index("reload -- ")
        assert p.send().startswith("250 2.0.0") and p.child("relay") == relay
    finally:
        p.stop()


def test_systemd_is_told_how_the_service_is():
    """A start may take longer than systemd waits for one that says nothing; nobody is let in where the status says so."""
    p = Posthouse(MAIN)
    p.extra_env["NOTIFY_SOCKET"] = str(p.dir / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(p.extra_env["NOTIFY_SOCKET"])
        s.settimeout(20 * SLOW)

        def told(what):
            while what not in (said := s.recv(4096).decode()):
                pass
            return said
        with p:
            assert re.fullmatch("EXTEND_TIMEOUT_USEC=[0-9]+\nSTATUS=starting: .*", s.recv(4096).decode())
            assert told("READY=1") == "READY=1\nSTATUS=serving"
            undo = take_log_away(p)
            os.kill(p.child("relay"), signal.SIGKILL)
            assert told("STATUS") == "STATUS=no client is let in: the log says why"
            p.proc.send_signal(signal.SIGHUP)
            assert told("READY=1") == "READY=1\nSTATUS=no client is let in: the log says why"
            undo()
            p.proc.send_signal(signal.SIGHUP)
            assert told("STATUS=serving") == "STATUS=serving"


def test_clients_who_could_not_be_let_in_are_later():
    """The ports are shut, no client is left to wait at them, and they are opened when what was in the way has gone."""
    with Posthouse(MAIN) as p:
        undo, public = take_log_away(p), p.dir / "spool/public"
        os.kill(p.child("relay"), signal.SIGKILL)
        wait_for(lambda: not answers(p.port))
        public.rmdir(), public.write_text("")  # no socket can be made there, as on a disk without inodes
        undo()
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("unix sockets in .*: Not a directory")
        assert not answers(p.port)
        public.unlink()
        wait_for(p._greets)
        assert p.send().startswith("250 2.0.0") and (p.dir / "spool/public/submit.sock").exists() and len(p.queue()) == 1


def serves(p, port):
    """The greeting of a port, or None where nobody is."""
    try:
        with Client(port) as c:
            return c.greeting
    except OSError:
        return None


def test_a_reload_that_is_over_is_in_use_everywhere():
    """Whichever thread is asked when `posthouse reload` has ended answers by the new configuration."""
    with Posthouse("relayhost = [127.0.0.1]:9\nqueue_directory = {dir}/spool\nsmtpd_peername_lookup = no\n") as p:
        long = "".join(f"own_{i} = $own_{i + 1} {'x' * 900}\n" for i in range(2000))  # reading it takes a while
        for port in range(1, 6):
            p.write_main(f"relayhost = [127.0.0.1]:{port}\nqueue_directory = {p.dir}/spool\nsmtpd_peername_lookup = no\n{long}")
            assert p.run("reload").returncode == 0
            with socket.socket(socket.AF_UNIX) as s:  # at once
                s.connect(str(p.dir / "spool/control.sock"))
                s.sendall(b'{"cmd": "explain", "sender": "a@x.example", "recipient": ""}\n')
                steps = ""
                while '"ok"' not in steps:
                    steps += s.recv(65536).decode()
            assert f"[127.0.0.1]:{port}\"" in steps, steps


def test_a_reload_opens_and_closes_listeners(dns):
    a, b, c = free_port(), free_port(), free_port()
    line = "127.0.0.1:%d inet n - n - - smtpd -o smtpd_banner=%s\n"
    relay = FakeRelay()
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_peername_lookup = no\n", master=line % (a, "first"), dns=dns)
    file = p.dir / "master.cf"
    base = file.read_text().replace(line % (a, "first"), "")
    with p, relay:
        stays, goes = p.client(), Client(a)
        stays.cmd("MAIL FROM:<stays@x.example>"), goes.cmd("MAIL FROM:<goes@x.example>")
        file.write_text(base + line % (b, "second") + line % (c, "third"))
        p.reload()
        assert [wait_for(lambda: serves(p, port)) for port in (p.port, b, c)] == [
            "220 mta.example ESMTP Posthouse", "220 second", "220 third"]
        wait_for(lambda: not answers(a))
        for client in (stays, goes):  # both were begun before
            assert client.cmd("RCPT TO:<r@y.example>").startswith("250") and client.cmd("DATA").startswith("354")
            client.raw("Subject: x\r\n\r\nx\r\n.\r\n")
            assert client.reply().startswith("250")
        # another name of the same address, a wider address of the same port, and a new one
        file.write_text(base.replace("127.0.0.1:", "localhost:") + f"{b} inet n - n - - smtpd -o smtpd_banner=wide\n" + line % (a, "again"))
        p.reload()
        assert [wait_for(lambda: serves(p, port)) for port in (p.port, b, a)][1:] == ["220 wide", "220 again"]
        wait_for(lambda: not answers(c))
        os.kill(p.child("relay"), signal.SIGKILL)
        assert [wait_for(lambda: serves(p, port)) for port in (p.port, b, a)][1:] == ["220 wide", "220 again"]
        relay.wait_mails(2)


def test_a_listener_that_cannot_be_had_changes_nothing(dns):
    ours, new = free_port(), free_port()
    line = "127.0.0.1:%d inet n - n - - smtpd -o smtpd_banner=%s\n"
    p = Posthouse(MAIN, master=line % (ours, "old"), dns=dns)
    file = p.dir / "master.cf"
    text = file.read_text()
    with p, socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        file.write_text(text.replace(line % (ours, "old"), line % (new, "new") + line % (busy, "busy")))
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log(rf"error: service 127\.0\.0\.1:{busy}: bind 127\.0\.0\.1 port {busy}: Address already in use")
        p.wait_log("reload refused: .*; the old configuration stays in use")
        assert serves(p, ours) == "220 old" and not answers(new)
        file.write_text(text.replace("banner=old", "banner=mended"))
        p.reload()
        wait_for(lambda: serves(p, ours) == "220 mended")


def test_addresses_of_a_start_stay_until_the_next_one(dns):
    """The log says that another inet_interfaces is ignored until a restart: no listener follows it before."""
    port, main = free_port(), MAIN + "inet_interfaces = 127.0.0.%d\n"
    p = Posthouse(main % 1, master=f"{port} inet n - n - - smtpd\n", dns=dns)
    with p:
        p.write_main(main % 2)
        p.reload()
        p.wait_log(r'ignoring inet_interfaces parameter value change: old value "127\.0\.0\.1", new value "127\.0\.0\.2"')
        assert answers(port) and not answers(port, "127.0.0.2")
        p.stop(), p.start()
        assert answers(port, "127.0.0.2") and not answers(port)


def test_no_client_is_lost_while_listeners_are_changed(dns):
    """Clients that come while a reload is going on are all served."""
    other = free_port()
    p = Posthouse(MAIN, dns=dns)
    file = p.dir / "master.cf"
    text = file.read_text()
    with p:
        for i in range(10):
            (p.dir / "next").write_text(text + (f"127.0.0.1:{other} inet n - n - - smtpd\n" if i % 2 == 0 else ""))
            (p.dir / "next").rename(file)  # a reload that is still going on reads it whole
            p.proc.send_signal(signal.SIGHUP)
            for _ in range(20):
                with p.client() as c:
                    assert c.greeting.startswith("220") and c.cmd("NOOP").startswith("250")
        assert "reload refused" not in p.log()
