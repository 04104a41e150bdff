"""The test kit: Posthouse, fake relays, DNS and Postfix on free loopback ports.

Everything lives in a temporary directory of its own and on ports that no other run has, so several
test runs can go on at once.  Nothing here asks the Internet: the only DNS server is an unbound of
ours that knows the names a test gives it and nothing else.
"""
import base64
import contextlib
import errno
import fcntl
import itertools
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("POSTHOUSE_BUILD", "build")
POSTHOUSED = BUILD / "src" / "posthoused"
POSTHOUSE = BUILD / "src" / "posthouse"
os.environ["PATH"] += ":/usr/sbin:/sbin"  # postmap and friends, for users too
SLOW = 4 if "asan" in BUILD.name or "tsan" in BUILD.name else 1
# Seconds that a test waits for what must come: a quiet machine needs one, a machine that is loaded tenfold may stand still for long.
PATIENCE = 60
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")  # programs that end soon give nothing back


PORTS_FOLDER = pathlib.Path(tempfile.gettempdir()) / "posthouse-test-ports"


def own_ports():
    """Ports for servers that no other process of tests gives to one of its own, now or before that server listens.

    They are below those that the kernel gives to clients.  A process has a block of them for as long as it lives."""
    with contextlib.suppress(FileExistsError):
        PORTS_FOLDER.mkdir(mode=0o1777)
        PORTS_FOLDER.chmod(0o1777)
    starts = itertools.cycle(range(10000, 32000, 500))
    for start in starts:
        lock = os.open(PORTS_FOLDER / f"{start}-{os.geteuid()}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            time.sleep(0.01)
            continue
        return itertools.cycle(range(start, start + 500))


PORTS = None  # those of this process, once it has asked for one


def free_port(host="127.0.0.1"):
    global PORTS
    PORTS = PORTS or own_ports()
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind((host, port))
            return port


def free_ports(n):
    """n of them, all different."""
    return [free_port() for _ in range(n)]


def privileged_socket(host, port):
    """A listening socket on a port below 1024; a user's comes by way of sudo.  Where another run of the tests has it, this one waits."""
    def bound():
        try:
            return try_privileged_socket(host, port)
        except OSError as e:
            if e.errno != errno.EADDRINUSE:
                raise
            return None
    return wait_for(bound, 600)


def try_privileged_socket(host, port):
    if os.geteuid() == 0:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        s.listen(128)
        return s
    mine, theirs = socket.socketpair()
    code = ("import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); "
            f"s.bind(({host!r}, {port})); s.listen(128); "
            "socket.send_fds(socket.socket(fileno=0), [b'x'], [s.fileno()])")
    r = subprocess.run(["sudo", "-n", "/usr/bin/python3", "-c", code], stdin=theirs, stderr=subprocess.PIPE, text=True)
    if "Address already in use" in r.stderr:
        raise OSError(errno.EADDRINUSE, r.stderr)
    assert r.returncode == 0, r.stderr
    _, fds, _, _ = socket.recv_fds(mine, 1, 1)
    return socket.socket(fileno=fds[0])


def wait_for(what, timeout=PATIENCE, step=0.02):
    """Waits until what() is true and returns its value."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out waiting for {getattr(what, '__doc__', None) or what}")
        time.sleep(step)


def wait_ended(*threads):
    """Waits until all of these threads have ended."""
    wait_for(lambda: not any(t.is_alive() for t in threads), 300)


def at_once(function, *arguments):
    """Calls the function in a thread for each of these tuples of arguments, and waits for all."""
    threads = [threading.Thread(target=function, args=args, daemon=True) for args in arguments]
    for t in threads:
        t.start()
    wait_ended(*threads)


def owner():
    """A user that the daemon may become when the tests run as root."""
    return "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


class Dns:
    """A real unbound that answers from local data only."""

    def __init__(self, directory, names, refused=(), port=None):
        """refused: domains for which the server fails."""
        self.port = port or free_port()
        conf = directory / "unbound.conf"
        data = "".join(f"  local-data: '{line}'\n" for line in names) + "".join(f"  local-zone: {zone} refuse\n" for zone in refused)
        conf.write_text(
            "server:\n  interface: 127.0.0.1\n  port: %d\n  do-daemonize: no\n  chroot: \"\"\n"
            "  username: \"\"\n  pidfile: \"%s/unbound.pid\"\n  use-syslog: no\n  logfile: \"\"\n"
            "  directory: \"%s\"\n  do-ip6: no\n  access-control: 127.0.0.0/8 allow\n"
            "  module-config: \"iterator\"\n  local-zone: \".\" static\n%s"
            "remote-control:\n  control-enable: no\n" % (self.port, directory, directory, data))
        self.log = open(directory / "unbound.log", "wb")
        self.proc = subprocess.Popen(["/usr/sbin/unbound", "-d", "-c", str(conf)],
                                     stdout=self.log, stderr=self.log)
        wait_for(self._answers)

    def _answers(self):
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            try:
                s.sendto(query, ("127.0.0.1", self.port))
                return s.recv(512)
            except OSError:
                return None

    def stop(self):
        self.proc.terminate()
        self.proc.wait()
        self.log.close()


class Session:
    """What one connection to a fake relay said and sent."""

    def __init__(self):
        self.commands = []
        self.auth = None
        self.mails = []
        self.tls = False
        self.raw = bytearray()  # bytes would be copied for each line


class FakeRelay:
    """A relay host on a loopback address that records everything and can misbehave.

    replies maps a stage (GREETING, EHLO, MAIL, RCPT, DATA, DOT, AUTH, STARTTLS, QUIT) to a reply
    line, or to a function of the command line that returns one.  A reply of "" hangs up without an
    answer.  auth is the list of mechanisms offered; need_auth refuses mail without them.
    """

    def __init__(self, host="127.0.0.1", port=0, auth=(), need_auth=False, users=None, replies=None,
                 pipelining=True, chunking=False, size=None, dsn=True, tls=None, wrap=False,
                 tls_first=False, name="fake.relay", utf8=True, delay=0.0, keep=True, lmtp=False, path=None,
                 xforward=None):
        self.auth, self.need_auth, self.users = list(auth), need_auth, users
        self.replies = replies or {}
        self.pipelining, self.chunking, self.size, self.dsn = pipelining, chunking, size, dsn
        self.tls, self.wrap, self.tls_first, self.name, self.utf8 = tls, wrap, tls_first, name, utf8
        self.delay, self.keep = delay, keep  # keep: the content of mails
        self.lmtp = lmtp  # a mailbox server (RFC 2033): DOT is asked for each recipient, and gets its RCPT
        self.xforward = xforward  # the attributes that a content filter asks for
        self.sessions = []
        self.lock = threading.Lock()
        if path is not None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(str(path))
            os.chmod(path, 0o666)
            self.sock.listen(128)
        elif 0 < port < 1024:
            self.sock = privileged_socket(host, port)
        else:
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.bind((host, port))
            self.sock.listen(128)
        self.host, self.port = self.sock.getsockname() if path is None else (None, None)
        self.conns = set()
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    @property
    def mails(self):
        with self.lock:
            return [m for s in self.sessions for m in s.mails]

    def wait_mail(self, text, timeout=PATIENCE):
        """The mail that has text in its content."""
        def there():
            return next((m for m in self.mails if text in m["content"]), None)
        there.__doc__ = f"a mail with {text!r}"
        return wait_for(there, timeout)

    def wait_mails(self, n, timeout=PATIENCE):
        def enough():
            return len(self.mails) >= n
        enough.__doc__ = f"{n} mails at the relay"
        wait_for(enough, timeout)
        return self.mails

    def _accept(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            if self.port is not None:
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.conns.add(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def stop(self):
        self.closed = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for c in list(self.conns):
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)

    def _serve(self, conn):
        s = Session()
        with self.lock:
            self.sessions.append(s)
        try:
            if self.wrap:
                conn = self.tls.wrap_socket(conn, server_side=True)
                s.tls = True
            _Dialogue(self, conn, s).run()
        except (OSError, ValueError, ssl.SSLError):
            pass
        finally:
            self.conns.discard(conn)
            with contextlib.suppress(OSError):
                conn.close()


class _Dialogue:
    def __init__(self, relay, conn, session):
        self.r, self.conn, self.s = relay, conn, session
        self.f = conn.makefile("rb")
        self.sender, self.rcpts, self.chunks, self.authed, self.forwarded = None, [], b"", False, []

    def say(self, line):
        if line == "":
            raise ValueError("hang up")
        self.conn.sendall(line.encode() + b"\r\n")

    def answer(self, stage, line, default):
        r = self.r.replies.get(stage, default)
        if callable(r):
            r = r(line)
        return default if r is None else r

    def reply(self, stage, line, default):
        r = self.answer(stage, line, default)
        self.say(r)
        return r[:1]

    def run(self):
        if self.reply("GREETING", "", f"220 {self.r.name} ESMTP") != "2":
            return
        while True:
            raw = self.f.readline()
            if not raw:
                return
            self.s.raw += raw
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            self.s.commands.append(line)
            verb = line.split(" ")[0].upper()
            if not getattr(self, "do_" + verb.lower(), self.unknown)(line):
                return

    def unknown(self, line):
        self.say("500 5.5.2 unknown command")
        return True

    def do_helo(self, line):
        self.reply("HELO", line, f"250 {self.r.name}")
        return True

    def do_ehlo(self, line):
        words = []
        if self.r.pipelining:
            words.append("PIPELINING")
        if self.r.size is not None:
            words.append(f"SIZE {self.r.size}")
        words.append("8BITMIME")
        if self.r.dsn:
            words.append("DSN")
        if self.r.utf8:
            words.append("SMTPUTF8")
        if self.r.chunking:
            words += ["CHUNKING", "ENHANCEDSTATUSCODES"]
        if self.r.xforward:
            words.append("XFORWARD " + self.r.xforward)
        if self.r.tls and not self.s.tls:
            words.append("STARTTLS")
        if self.r.auth and (self.s.tls or not self.r.tls_first):
            words.append("AUTH " + " ".join(self.r.auth))
        lines = [self.r.name] + words
        text = "\r\n".join(f"250{'-' if i + 1 < len(lines) else ' '}{w}" for i, w in enumerate(lines))
        self.reply("EHLO", line, text)
        return True

    def do_lhlo(self, line):
        return self.do_ehlo(line) if self.r.lmtp else self.unknown(line)

    def do_starttls(self, line):
        if self.reply("STARTTLS", line, "220 2.0.0 go ahead") == "2":
            self.conn = self.r.tls.wrap_socket(self.conn, server_side=True)
            self.f = self.conn.makefile("rb")
            self.s.tls = True
        return True

    def do_auth(self, line):
        words = line.split(" ")
        mech = words[1].upper()
        ask = lambda text: (self.say("334 " + base64.b64encode(text.encode()).decode()),
                            base64.b64decode(self.f.readline()).decode())[1]
        if mech == "LOGIN":
            user, password = ask("Username:"), ask("Password:")
        elif mech == "PLAIN":
            token = words[2] if len(words) > 2 else None
            text = base64.b64decode(token).decode() if token else ask("")
            _, user, password = text.split("\0")
        elif mech == "CRAM-MD5":
            import hmac
            challenge = "<1896.697170952@fake.relay>"
            user, digest = ask(challenge).rsplit(" ", 1)
            known = (self.r.users or {}).get(user, "")
            good = hmac.new(known.encode(), challenge.encode(), "md5").hexdigest() == digest
            password = known if good else None
        elif mech == "SCRAM-SHA-256":
            first = words[2] if len(words) > 2 else base64.b64encode(ask("").encode()).decode()
            user, password = self.scram(first)
        else:
            self.say("504 5.5.4 mechanism not supported")
            return True
        self.s.auth = (mech, user, password)
        good = password is not None and (self.r.users is None or self.r.users.get(user) == password)
        ok = self.reply("AUTH", line, "235 2.7.0 ok" if good else "535 5.7.8 Authentication credentials invalid")
        self.authed = ok == "2"
        return True

    def scram(self, first):
        import hashlib, hmac
        text = base64.b64decode(first).decode()
        bare = text.split(",", 2)[2]
        user, cnonce = re.match(r"n=([^,]*),r=(.*)", bare).groups()
        password = (self.r.users or {}).get(user, "")
        salt, rounds, nonce = b"0123456789abcdef", 4096, cnonce + "server"
        sfirst = f"r={nonce},s={base64.b64encode(salt).decode()},i={rounds}"
        self.say("334 " + base64.b64encode(sfirst.encode()).decode())
        final = base64.b64decode(self.f.readline()).decode()
        without, proof = final.rsplit(",p=", 1)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
        h = lambda k, m: hmac.new(k, m.encode(), "sha256").digest()
        ckey = h(salted, "Client Key")
        stored = hashlib.sha256(ckey).digest()
        message = f"{bare},{sfirst},{without}"
        want = bytes(a ^ b for a, b in zip(ckey, h(stored, message)))
        if base64.b64decode(proof) != want:
            return user, None
        v = base64.b64encode(h(h(salted, "Server Key"), message)).decode()
        self.say("334 " + base64.b64encode(f"v={v}".encode()).decode())
        self.f.readline()
        return user, password

    def do_xforward(self, line):
        self.forwarded.append(line)
        self.reply("XFORWARD", line, "250 2.5.0 Ok XFORWARD")
        return True

    def do_mail(self, line):
        default = "250 2.1.0 Ok"
        if self.r.need_auth and not self.authed:
            default = "530 5.7.0 Authentication required"
        if self.sender is not None:
            default = "503 5.5.1 nested MAIL"
        if self.reply("MAIL", line, default) == "2":
            self.sender, self.rcpts, self.chunks = line, [], b""
        return True

    def do_rcpt(self, line):
        default = "250 2.1.5 Ok" if self.sender is not None else "503 5.5.1 need MAIL"
        if self.reply("RCPT", line, default) == "2":
            self.rcpts.append(line)
        return True

    def finish(self, line, content):
        if self.r.delay:
            time.sleep(self.r.delay)
        mail = {"from": self.sender, "rcpts": self.rcpts, "content": content if self.r.keep else b"", "auth": self.s.auth,
                "tls": self.s.tls, "forwarded": self.forwarded}
        self.forwarded = []
        if self.r.lmtp:
            self.finish_each(mail)
            return
        said = self.answer("DOT", line, "250 2.0.0 Ok: queued as FAKE123")
        if said[:1] == "2":  # it has the mail before it says so
            with self.r.lock:
                self.s.mails.append(mail)
        self.say(said)
        self.sender, self.rcpts, self.chunks = None, [], b""

    def finish_each(self, mail):
        """A copy for each recipient, and a reply (RFC 2033 section 4.2)."""
        for rcpt in mail["rcpts"]:
            said = self.answer("DOT", rcpt, "250 2.0.0 saved")
            if said[:1] == "2":
                with self.r.lock:
                    self.s.mails.append(dict(mail, rcpts=[rcpt]))
            self.say(said)
        self.sender, self.rcpts, self.chunks = None, [], b""

    def do_data(self, line):
        if not self.rcpts:
            self.say("554 5.5.1 no valid recipients")
            return True
        if self.reply("DATA", line, "354 go ahead") != "3":
            return True
        chunks = []
        while True:
            raw = self.f.readline()
            if not raw:
                return False
            if self.r.keep:
                self.s.raw += raw
            if raw == b".\r\n":
                break
            if self.r.keep:
                chunks.append(raw[1:] if raw.startswith(b".") else raw)
        self.finish(line, b"".join(chunks))
        return True

    def do_bdat(self, line):
        words = line.split()
        data = self.f.read(int(words[1]))
        self.chunks += data
        if not self.rcpts:
            self.say("503 5.5.1 no valid recipients")
        elif len(words) > 2:
            self.finish(line, self.chunks)
        else:
            self.say("250 2.0.0 ok")
        return True

    def do_rset(self, line):
        self.sender, self.rcpts = None, []
        self.say("250 2.0.0 Ok")
        return True

    def do_noop(self, line):
        self.say("250 2.0.0 Ok")
        return True

    def do_quit(self, line):
        self.reply("QUIT", line, "221 2.0.0 Bye")
        return False


class Listener:
    """A server on a free port, or on the given socket: serve(conn) has each connection in a thread of its own."""

    def __init__(self, serve, sock=None):
        self.serve, self.closed = serve, False
        self.sock = sock or socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = None if self.sock.family == socket.AF_UNIX else self.sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._one, args=(self.sock.accept()[0],), daemon=True).start()

    def _one(self, conn):
        with conn, contextlib.suppress(OSError):
            self.serve(conn)

    def stop(self):
        self.closed = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def make_cert(directory, name="relay.server"):
    """A self-signed certificate; returns (certificate, key) paths."""
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
                    "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def server_tls(cert, key):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(cert, key)
    return ctx


class Posthouse:
    """One configuration directory and its daemon."""

    def __init__(self, main="", master=None, files=None, dns=None, directory=None):
        self.dir = pathlib.Path(directory or tempfile.mkdtemp(prefix="posthouse-test-"))
        self.dir.chmod(0o755)
        self.port = free_port()
        self.proc = None
        self.extra_env = {}
        self.exe, self.preexec = str(POSTHOUSED), None
        self.dns = dns
        for name, text in (files or {}).items():
            (self.dir / name).write_text(text)
        self.write_main(main)
        services = master if master is not None else ""
        (self.dir / "master.cf").write_text(
            f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
            "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n" + services.format(dir=self.dir))

    def write_main(self, main):
        base = (f"myhostname = mta.example\nmynetworks = 127.0.0.0/8\ninet_protocols = ipv4\n"
                f"maillog_file = {self.dir}/maillog\nmail_owner = {owner()}\nrelay_threads = 2\n"
                f"resolver_servers = 127.0.0.1@{self.dns.port if self.dns else 9}\n")
        names = {line.split("=")[0].strip() for line in main.splitlines() if "=" in line and line[:1] not in " \t#"}
        kept = [l for l in base.splitlines() if l.split("=")[0].strip() not in names]
        (self.dir / "main.cf").write_text("\n".join(kept) + "\n" + main.format(dir=self.dir) + "\n")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()
        if exc[0] is None:
            shutil.rmtree(self.dir, ignore_errors=True)
        else:
            print(f"--- kept {self.dir}\n{self.log()[-6000:]}")

    def env(self):
        return dict(os.environ, TSAN_OPTIONS="halt_on_error=0",
                    UBSAN_OPTIONS="print_stacktrace=1", **self.extra_env)

    def start(self):
        assert self.proc is None or self.proc.poll() is not None, "it runs already"
        self.out = open(self.dir / "stderr", "ab")
        self.proc = subprocess.Popen([self.exe, "-c", str(self.dir), "-f"], stdout=self.out,
                                     stderr=self.out, env=self.env(), preexec_fn=self.preexec)
        wait_for(self._greets)

    def _greets(self):
        "the daemon's greeting"
        if self.proc.poll() is not None:
            raise AssertionError("posthoused ended: " + (self.dir / "stderr").read_text())
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as s:
                s.settimeout(2 * SLOW)
                return s.recv(3) == b"220"
        except OSError:
            return False

    def stop(self):
        if self.proc is None:
            return
        if self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(30 * SLOW)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        self.out.close()
        self.proc = None
        err = (self.dir / "stderr").read_text()
        assert "Sanitizer" not in err and "runtime error" not in err, err[-8000:]

    def kill(self):
        """kill -9 of everything."""
        pids = self.children()
        for pid in pids + [self.proc.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.proc.wait()
        wait_for(lambda: not self.children_of(pids))
        wait_for(self._port_is_free)  # a process can be a zombie while its threads still hold the port
        self.out.close()
        self.proc = None

    def _port_is_free(self):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", self.port))
                s.listen(1)
            except OSError:
                return False
            return True

    def control(self, cmd, **members):
        """The first line of the daemon's answer to this request, by its control socket."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30 * SLOW)
            s.connect(str(self.dir / "spool/control.sock"))
            s.sendall(json.dumps({"cmd": cmd} | members).encode() + b"\n")
            return json.loads(s.makefile("rb").readline())

    def children(self):
        out = subprocess.run(["pgrep", "-P", str(self.proc.pid)], capture_output=True, text=True).stdout
        return [int(p) for p in out.split()]

    def child(self, name):
        """The process ID of "relay" or "lookup"."""
        def named():
            for pid in self.children():
                with contextlib.suppress(OSError):
                    if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith(f"posthouse-{name}"[:15]):
                        return pid
        return wait_for(named)

    def processor(self, name):
        """Seconds that this process has had the processor for."""
        words = pathlib.Path(f"/proc/{self.child(name)}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def children_of(pids):
        """Which of these processes are still there."""
        left = []
        for pid in pids:
            with contextlib.suppress(OSError):  # gone, perhaps while we look
                if pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
                    left.append(pid)
        return left

    def reload(self):
        n = self.log().count("reload -- ")
        self.proc.send_signal(signal.SIGHUP)

        def reloaded():
            "a reload"
            return self.log().count("reload -- ") > n
        wait_for(reloaded)

    def log(self):
        path = self.dir / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_log(self, pattern, timeout=PATIENCE, count=1):
        def found():
            hits = re.findall(pattern, self.log(), re.M)
            return hits if len(hits) >= count else None
        found.__doc__ = f"log line {pattern!r}"
        return wait_for(found, timeout)

    def run(self, *args, face="posthouse", check=False, stdin=None, encoding=None):
        """Runs the command-line tool by one of its names on this configuration."""
        link = self.dir / ("cmd-" + face)
        link.mkdir(exist_ok=True)
        exe = link / face
        if not exe.exists():
            exe.symlink_to(POSTHOUSE)
        r = subprocess.run([str(exe), *map(str, args)], capture_output=True, text=True,
                           env=dict(self.env(), MAIL_CONFIG=str(self.dir)), input=stdin, encoding=encoding)
        if check:
            assert r.returncode == 0, r.stderr + r.stdout
        return r

    def postmap(self, *args, check=True):
        return self.run(*args, face="postmap", check=check)

    def queue(self):
        r = self.run("-j", face="postqueue", check=True)
        return [json.loads(line) for line in r.stdout.splitlines()]

    def client(self, **kw):
        return Client(self.port, **kw)

    def send(self, sender="a@x.example", rcpts=("b@y.example",), content=None, params="", rparams=""):
        """One mail over SMTP; returns the final reply."""
        with self.client() as c:
            return c.mail(sender, rcpts, content, params, rparams)


class Client:
    """A plain SMTP client that shows every reply as (code, text)."""

    def __init__(self, port, host="127.0.0.1", ehlo="client.example", source=None):
        """source: the address that it comes from."""
        self.sock = socket.create_connection((host, port), PATIENCE * SLOW, source_address=source and (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.f = self.sock.makefile("rb")
        self.greeting = self.reply()
        if ehlo:
            self.ehlo = self.cmd(f"EHLO {ehlo}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(OSError):
            self.f.close()
            self.sock.close()

    def raw(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self):
        lines = []
        while True:
            line = self.f.readline()
            if not line:
                return None
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if lines[-1][3:4] != "-":
                return "\n".join(l[4:] if i < len(lines) - 1 else l for i, l in enumerate(lines)) \
                    if len(lines) == 1 else lines[-1][:4] + "\n".join(l[4:] for l in lines)

    def cmd(self, line):
        self.raw(line + "\r\n")
        return self.reply()

    def starttls(self, ctx=None):
        r = self.cmd("STARTTLS")
        assert r.startswith("220"), r
        if ctx is None:
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        self.sock = ctx.wrap_socket(self.sock)
        self.f = self.sock.makefile("rb")

    def mail(self, sender="a@x.example", rcpts=("b@y.example",), content=None, params="", rparams=""):
        r = self.cmd(f"MAIL FROM:<{sender}>{params}")
        if not r.startswith("250"):
            return r
        for rcpt in rcpts:
            r = self.cmd(f"RCPT TO:<{rcpt}>{rparams}")
            if not r.startswith("250"):
                return r
        r = self.cmd("DATA")
        if not r.startswith("354"):
            return r
        text = content if content is not None else f"From: {sender}\r\nSubject: test\r\n\r\nhello\r\n"
        data = text.encode() if isinstance(text, str) else text
        self.raw(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
        return self.reply()
