"""Restarts, under systemd's file descriptor store, which is kept by the test, and by exec: no client is refused meanwhile,
and a broken configuration leaves the one that was in use."""
import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from kit import ROOT, SLOW, Client, FakeRelay, Posthouse, free_port, free_ports, wait_for

LINE = "127.0.0.1:%d inet n - n - - smtpd -o smtpd_banner=%s\n"
# Gives descriptors the numbers that systemd gives them, and becomes the daemon.
PASS = ("import os, sys; fds = [int(n) for n in sys.argv[1].split()]; [(os.dup2(fd, 3 + i), os.close(fd)) for i, fd in enumerate(fds)]; "
        "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[2], sys.argv[2:])")


class Manager:
    """What systemd does for a service that says how it is: it hears that, and keeps descriptors for the next process."""

    def __init__(self, p):
        self.p, self.store, self.said = p, [], []
        self.path = str(p.dir / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                text, fds, _, _ = socket.recv_fds(self.sock, 4096, 253)
                lines = dict(line.split("=", 1) for line in text.decode().split("\n"))
                if "FDSTOREREMOVE" in lines:
                    for name, fd in self.store:
                        os.close(fd) if name == lines["FDNAME"] else None
                    self.store = [kept for kept in self.store if kept[0] != lines["FDNAME"]]
                self.store = self.store + [(lines["FDNAME"], fcntl.fcntl(fd, fcntl.F_DUPFD, 200)) for fd in fds]
                for fd in fds:
                    os.close(fd)
                self.said.append(lines)

    def names(self):
        return sorted(name for name, _ in self.store)

    def launch(self):
        """Starts the daemon with what is in the store; does not wait until it serves."""
        p, store = self.p, self.store
        self.said = []
        env = dict(p.env(), NOTIFY_SOCKET=self.path, LISTEN_FDS=str(len(store)), LISTEN_FDNAMES=":".join(name for name, _ in store))
        p.out = open(p.dir / "stderr", "ab")
        p.proc = subprocess.Popen([sys.executable, "-c", PASS, " ".join(str(fd) for _, fd in store), p.exe, "-c", str(p.dir), "-f"],
                                  stdout=p.out, stderr=p.out, env=env, pass_fds=[fd for _, fd in store])

    def serves(self):
        wait_for(lambda: any("READY" in lines for lines in self.said))
        wait_for(lambda: any(lines.get("FDNAME") == "configuration" and "FDSTORE" in lines for lines in self.said))

    def start(self):
        self.launch()
        self.serves()

    def status(self):
        return [lines["STATUS"] for lines in self.said if "STATUS" in lines][-1]

    def close(self):
        self.p.stop()
        self.sock.close()
        for _, fd in self.store:
            os.close(fd)


@pytest.fixture
def relay():
    with FakeRelay() as r:
        yield r


@contextlib.contextmanager
def managed(main, **more):
    p = Posthouse(main, **more)
    m = Manager(p)
    try:
        yield p, m
    finally:
        m.close()
        p.__exit__(*sys.exc_info())


def banner(port):
    with Client(port) as c:
        return c.greeting


def refused(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def test_no_client_is_refused_while_the_daemon_is_restarted(relay):
    """Neither while none runs, nor when the next one has other threads and another set of ports."""
    goes, comes = free_ports(2)
    main = f"relayhost = [127.0.0.1]:{relay.port}\n"
    with managed(main, master=LINE % (goes, "goes")) as (p, m):
        m.start()
        assert m.names() == ["configuration"] + 4 * ["smtpd"]
        sent = 0
        for threads in (1, 3):  # fewer than before, and more
            idle = p.client()
            assert p.send(content=f"Subject: before {threads}\r\n\r\nx\r\n").startswith("250")
            p.proc.terminate()
            assert idle.reply() == "421 4.3.2 mta.example Service shutting down"
            p.proc.wait(60 * SLOW)
            waiting = []
            for _ in range(12):  # at each of the sockets
                s = socket.create_connection(("127.0.0.1", p.port), 5)
                s.settimeout(30 * SLOW)
                waiting.append(s)
            p.write_main(main + f"relay_threads = {threads}\n")
            m.start()
            for i, s in enumerate(waiting):
                f = s.makefile("rb")
                assert f.readline().startswith(b"220 ")
                for line in ("HELO c.example", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"):
                    s.sendall(line.encode() + b"\r\n")
                    assert f.readline().startswith(b"250"), line
                s.sendall(b"DATA\r\nSubject: waited %d %d\r\n\r\nx\r\n.\r\nQUIT\r\n" % (threads, i))
                assert [f.readline()[:3] for _ in range(3)] == [b"354", b"250", b"221"]
                s.close()
            sent += 13
        assert m.names().count("smtpd") == 6
        master = p.dir / "master.cf"
        master.write_text(master.read_text().replace(LINE % (goes, "goes"), LINE % (comes, "comes")))
        p.proc.terminate(), p.proc.wait(60 * SLOW)
        assert not refused(goes) and refused(comes)
        m.start()
        assert refused(goes) and banner(comes) == "220 comes"
        mails = relay.wait_mails(sent)
        assert len({x["content"] for x in mails}) == len(mails) == sent


BROKEN = {"a parameter that cannot be": lambda p, taken: p.write_main("relayhost = [127.0.0.1]:9\nrelay_threads = many\n"),
          "a port that is taken": lambda p, taken: (p.dir / "master.cf").write_text(
              (p.dir / "master.cf").read_text() + LINE % (taken, "taken"))}


@pytest.mark.parametrize("how", BROKEN)
def test_after_a_start_that_is_refused_the_old_configuration_goes_on(how):
    """The start fails, so systemctl says so; the next one serves, and those who connected meanwhile are served."""
    with managed("relayhost = [127.0.0.1]:9\n", master=LINE % (free_port(), "other")) as (p, m), socket.socket() as other:
        other.bind(("127.0.0.1", 0)), other.listen(1)
        good = {name: (p.dir / name).read_text() for name in ("main.cf", "master.cf")}
        m.start()
        p.proc.terminate(), p.proc.wait(60 * SLOW)
        BROKEN[how](p, other.getsockname()[1])
        with socket.create_connection(("127.0.0.1", p.port), 5) as waits:
            waits.settimeout(60 * SLOW)
            m.launch()
            assert p.proc.wait(60 * SLOW) == 1 and "READY" not in str(m.said)
            wait_for(lambda: "refused" in m.names())
            m.start()
            assert waits.recv(4) == b"220 "
        assert "; the new configuration was refused: see posthouse check" in m.status() and "refused" not in m.names()
        assert "the configuration that was in use before it is in use again" in p.log()
        assert p.send().startswith("250 2.0.0")
        p.proc.terminate(), p.proc.wait(60 * SLOW)
        m.launch()  # said once more, and not passed over
        assert p.proc.wait(60 * SLOW) == 1
        wait_for(lambda: "refused" in m.names())
        for name, text in good.items():
            (p.dir / name).write_text(text.replace("-o smtpd_banner=other", "-o smtpd_banner=corrected"))
        m.start()  # other files than those that were refused
        assert m.status().startswith("serving") and "refused" not in m.status() and "refused" not in m.names()
        corrected = int(good["master.cf"].split("-o smtpd_banner=other")[0].split("\n")[-1].split(" ")[0].split(":")[1])
        assert banner(corrected) == "220 corrected"


def test_a_port_is_waited_for_but_not_taken_from_another_program_at_its_restart():
    """Tried again and again, a daemon would be quicker than a mail server that is started again, and keep its port."""
    unit = (ROOT / "packaging/systemd/posthouse.service").read_text()
    assert "\nRestartPreventExitStatus=69\n" in unit and re.search("(?m)^After=.* postfix.service", unit)
    with managed("") as (p, m):
        def waits():
            m.launch()
            wait_for(lambda: any("another program has the port" in lines.get("STATUS", "") for lines in m.said))
        with socket.create_server(("127.0.0.1", p.port)):
            waits()
            assert p.proc.wait(60 * SLOW) == 69
            waits()
            p.proc.terminate()
            assert p.proc.wait(60 * SLOW) == 0
            waits()
        m.serves()
        assert banner(p.port).startswith("220")
        with socket.create_server(("127.0.0.1", 0)) as other:  # what runs in its place must not stay away
            (p.dir / "master.cf").write_text((p.dir / "master.cf").read_text() + LINE % (other.getsockname()[1], "more"))
            p.proc.terminate()
            p.proc.wait(60 * SLOW)
            m.launch()
            assert p.proc.wait(60 * SLOW) == 1
            m.start()
            assert banner(p.port).startswith("220")


def test_the_status_says_what_waits():
    with managed("relayhost = [127.0.0.1]:9\ninitial_destination_concurrency = 1\n") as (p, m):
        m.start()
        assert m.status() == "serving"
        for _ in range(3):
            assert p.send().startswith("250")
        wait_for(lambda: m.status() == "serving: 3 waiting, 1 relay resting")
        p.run("queue", "delete", "ALL", check=True)
        wait_for(lambda: m.status() == "serving: 0 waiting, 1 relay resting")
        p.write_main("relay_threads = some\n")
        p.proc.send_signal(signal.SIGHUP)
        wait_for(lambda: m.status() == "serving: 0 waiting, 1 relay resting; the new configuration was refused: see posthouse check")


def test_systemd_hears_of_a_restart_that_takes_its_time(monkeypatch):
    """Before the configuration is tried and before the old processes are stopped: each may last as long as it waits for a sign."""
    monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
    with managed("relayhost = [127.0.0.1]:9\n") as (p, m):
        m.start()
        m.said.clear()
        assert p.run("restart").returncode == 0
        wait_for(lambda: any("READY" in lines for lines in m.said))
        said = [next(iter(lines)) for lines in m.said]
        assert said[:said.index("RELOADING")] == ["WATCHDOG", "WATCHDOG"], said


def test_descriptors_that_are_not_ours_are_not_used():
    """Another process's are not taken; what is no listening socket, or has another name, is closed and changes nothing."""
    with managed("relayhost = [127.0.0.1]:9\n") as (p, m), socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        foreign = [("smtpd", os.open("/dev/null", os.O_RDONLY)), ("smtpd", os.dup(bound.fileno())),
                   ("configuration", os.open("/dev/null", os.O_RDONLY)), ("refused", os.open(p.dir / "main.cf", os.O_RDONLY)),
                   ("stored", os.open("/etc/passwd", os.O_RDONLY))]
        m.store = [(name, fcntl.fcntl(fd, fcntl.F_DUPFD, 200)) for name, fd in foreign]
        for _, fd in foreign:
            os.close(fd)
        m.start()
        assert "passwd" not in " ".join(os.readlink(f"/proc/{p.proc.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{p.proc.pid}/fd"))
        assert p.send().startswith("250 2.0.0") and m.names() == ["configuration", "smtpd", "smtpd", "stored"]


def connect_all_the_time(port, seen, over):
    while not over.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), 60 * SLOW) as s:
                s.settimeout(60 * SLOW)
                seen.append(s.recv(3))
        except OSError as error:
            seen.append(error)


def test_a_restart_without_systemd_is_by_exec(relay):
    """The process and its lock stay; who connects meanwhile waits; a broken configuration, whoever finds it, changes nothing."""
    other = free_port()
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", master=LINE % (other, "other"))
    with p:
        good, pid, seen, over = (p.dir / "main.cf").read_text(), p.proc.pid, [], threading.Event()
        held = len(os.listdir(f"/proc/{pid}/fd"))
        asking = threading.Thread(target=connect_all_the_time, args=(other, seen, over), daemon=True)
        asking.start()
        for i, command in enumerate((("posthouse", "restart"), ("postfix", "restart"))):
            idle, child = p.client(), p.child("relay")
            assert p.send(content=f"Subject: before {i}\r\n\r\nx\r\n").startswith("250")
            p.write_main(f"relayhost = [127.0.0.1]:{relay.port}\nrelay_threads = {3 - 2 * i}\nsmtpd_banner = {i}\n")
            r = p.run(*command[1:], face=command[0])
            assert r.returncode == 0, r.stderr
            assert idle.reply() == "421 4.3.2 mta.example Service shutting down"
            assert banner(p.port) == f"220 {i}" and p.child("relay") != child
            assert p.proc.poll() is None and (p.dir / "spool/master.pid").read_text() == f"{pid}\n"
            assert f"PID: {pid}" in p.run("status", face="postfix").stderr
        for wrong, said in (("relay_threads = many\n", "bad numerical configuration"),  # the command finds it
                            ("mail_owner = nobody-of-that-name\n", "cannot restart: it was refused")):
            p.write_main(wrong)
            r = p.run("restart")
            assert r.returncode == 1 and (said in r.stderr or os.geteuid() != 0), r.stderr
        assert banner(p.port) == "220 1" and p.log().count("daemon started") == 3
        assert os.geteuid() != 0 or "restart refused: posthoused: fatal: mail_owner" in p.log()
        with socket.socket() as taken:  # what only the next supervisor finds
            taken.bind(("127.0.0.1", 0)), taken.listen(1)
            (p.dir / "main.cf").write_text(good)
            master = (p.dir / "master.cf").read_text()
            (p.dir / "master.cf").write_text(master + LINE % (taken.getsockname()[1], "taken"))
            r = p.run("restart")
        assert r.returncode == 1 and "it was refused" in r.stderr
        assert banner(p.port) == "220 1" and banner(other) == "220 other" and p.proc.poll() is None
        (p.dir / "master.cf").write_text(master)
        assert p.run("restart").returncode == 0 and banner(p.port).endswith("Posthouse") and p.proc.pid == pid
        over.set(), asking.join()
        assert set(seen) == {b"220"}, set(seen)
        assert len(relay.wait_mails(2)) == 2
        wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) == held + 2)  # a third socket of each port
        assert p.run("restart", "now").returncode == 64
        p.stop()
        assert p.run("restart").returncode == 1


LOOKS = ("import fcntl, struct, sys\n"
         "f, none = open(sys.argv[1], 'rb+'), struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
         "print(flush=True)\n"
         "while struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, none))[0] == fcntl.F_WRLCK:\n    pass\n")


def test_the_lock_is_held_all_the_time_and_is_no_childs():
    """Another daemon never finds the queue free during a restart; no child has the lock, the configuration or who has asked."""
    with Posthouse("relayhost = [127.0.0.1]:9\n") as p:
        def has(child):
            there = f"/proc/{p.child(child)}/fd"
            return sorted(os.readlink(f"{there}/{fd}").split(":")[0] for fd in os.listdir(there))
        held = has("lookup")
        for _ in range(2):
            looks = subprocess.Popen([sys.executable, "-c", LOOKS, p.dir / "spool/master.pid"], stdout=subprocess.PIPE)
            looks.stdout.readline()
            assert p.run("restart").returncode == 0
            assert looks.poll() is None
            looks.kill(), looks.communicate()
            wait_for(lambda: len(has("lookup")) <= len(held))
            assert has("lookup") == held
            for child in ("relay", "lookup"):
                assert not [name for name in has(child) if "master.pid" in name or "memfd" in name]


def test_a_process_that_is_ending_and_still_has_the_spool_is_waited_for():
    """A kill may find it in the middle of a write."""
    p = Posthouse("relayhost = [127.0.0.1]:9\n")
    with p:
        assert p.send().startswith("250")
        p.kill()
        log = os.open(p.dir / "spool" / "log", os.O_RDONLY)
        fcntl.flock(log, fcntl.LOCK_EX)
        threading.Timer(1, os.close, (log,)).start()
        p.start()
        assert len(p.queue()) == 1


def test_without_its_lock_files_the_queue_is_still_locked():
    """Somebody takes them for old ones: no second daemon sends what is queued, nor takes the first one's sockets away."""
    with Posthouse("relayhost = [127.0.0.1]:9\n") as p:
        assert p.send().startswith("250")
        second = Posthouse(f"relayhost = [127.0.0.1]:9\nqueue_directory = {p.dir}/spool\n")
        for name in ("master.pid", "lock"):
            (p.dir / "spool" / name).unlink()
        r = subprocess.run([second.exe, "-c", str(second.dir), "-f"], capture_output=True, text=True, check=False, timeout=60)
        assert r.returncode == 1 and "another process has the spool" in r.stderr
        assert len(p.queue()) == 1
        for there in (True, False):  # the second one has left a file that it has no lock of
            for word in ("status", "stop"):
                r = p.run(word, face="postfix")
                assert r.returncode == 1 and "is running, but its master.pid was removed" in r.stderr
            assert p.run("start", face="postfix").returncode == 1 and p.run("reload", face="postfix").returncode == 0
            if there:
                (p.dir / "spool" / "master.pid").unlink()
        assert p.run("restart").returncode == 0 and p.send().startswith("250")
        assert "running: PID: " in p.run("status", face="postfix").stderr
        second.__exit__(None)


def test_a_start_waits_for_a_relay_process_that_is_being_killed(relay):
    """The end of a large process takes a while, in which the queue is still its own."""
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n") as p:
        p.stop()
        spool = p.dir / "spool"
        (spool / "master.pid").unlink()
        log = os.open(spool / "log", os.O_RDONLY)
        fcntl.flock(log, fcntl.LOCK_EX)
        start = threading.Thread(target=p.start)
        start.start()
        wait_for((spool / "master.pid").exists)
        os.close(log)
        start.join(60 * SLOW)
        assert p.send().startswith("250")


def test_a_configuration_is_tried_without_a_start():
    p = Posthouse("relayhost = [127.0.0.1]:9\n")
    assert subprocess.run([p.exe, "-c", str(p.dir), "-t"], capture_output=True, text=True, check=False).returncode == 0
    p.write_main("relay_threads = some\n")
    r = subprocess.run([p.exe, "-c", str(p.dir), "-t"], capture_output=True, text=True, check=False)
    assert r.returncode == 1 and "relay_threads = some (must be a number)" in r.stderr
    assert not (p.dir / "spool").exists()
    p.__exit__(None)
