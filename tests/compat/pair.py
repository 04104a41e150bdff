"""Debian's Postfix and Posthouse on the same configuration, tables and relays; what each does, made comparable."""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from kit import Client, Posthouse, free_port, free_ports, wait_for

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]
# The folder of another Debian, into which /tmp, /dev and /proc are bound (scripts/compat13.sh): its Postfix is asked.
ROOT = os.environ.get("POSTFIX_ROOT", "/")
INSIDE = [*SUDO, "chroot", ROOT] if ROOT != "/" else []
AS_ROOT = INSIDE or SUDO  # before a command of Postfix's that root alone may give
KEPT = ["--propagation", "unchanged"] if INSIDE else []  # its root is no mount point
# (3, 7) or (3, 10); docs/differences.md names the version where the two differ.
VERSION = tuple(map(int, subprocess.run([*INSIDE, "postconf", "-hd", "mail_version"], capture_output=True, text=True,
                                        check=True).stdout.split(".")[:2]))


class NameServer:
    """An unbound of ours on port 53 of a loopback address: Postfix asks no other port.

    zones are domains below which all names have the records of the domain itself; fails are domains that it answers REFUSED."""

    def __init__(self, directory, names, zones=(), fails=()):
        self.address = "127.77.%d.%d" % (os.getpid() // 250 % 250 + 1, os.getpid() % 250 + 1)
        conf = directory / "unbound.conf"
        data = "".join(f"  local-zone: '{zone}' redirect\n" for zone in zones)
        data += "".join(f"  local-zone: '{zone}' refuse\n" for zone in fails)
        data += "".join(f"  local-data: '{line}'\n" for line in names)
        conf.write_text(
            f'server:\n  interface: {self.address}\n  port: 53\n  do-daemonize: no\n  chroot: ""\n  username: ""\n'
            f'  pidfile: "{directory}/unbound.pid"\n  use-syslog: no\n  directory: "{directory}"\n  do-ip6: no\n'
            f'  access-control: 127.0.0.0/8 allow\n  module-config: "iterator"\n  local-zone: "." static\n{data}'
            "remote-control:\n  control-enable: no\n")
        self.proc = subprocess.Popen([*SUDO, "/usr/sbin/unbound", "-d", "-c", str(conf)], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
        wait_for(self._answers)

    def _answers(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            try:
                s.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01", (self.address, 53))
                return s.recv(512)
            except OSError:
                return None

    def stop(self):
        subprocess.run([*SUDO, "kill", str(self.proc.pid)], check=False)
        self.proc.wait()


BASE = """compatibility_level = 3.6
myhostname = mta.example
myorigin = mta.example
mydestination = mta.example
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
enable_original_recipient = no
smtp_tls_security_level =
smtpd_forbid_unauth_pipelining = no
smtp_sasl_tls_security_options = noanonymous
"""


# What writes Postfix's log in postlogd's place.  On a busy machine Debian's postlogd now and then logs a line itself before it
# reads the first ones: into its own socket, which is full by then, and all of Postfix waits for it for ever.
LOGGER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
while True:
    line = s.recv(65536)
    with open(sys.argv[2], "ab") as f:
        f.write(line + b"\\n")
"""


class Postfix:
    """Debian's Postfix from a directory of its own, with its own resolv.conf: its master is started for each case."""

    def __init__(self, dns):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="compat-postfix-"))
        self.dir.chmod(0o755)
        self.port = free_port()
        self.proc = None
        for d in ("etc", "spool", "data"):
            (self.dir / d).mkdir()
        subprocess.run([*AS_ROOT, "chown", "postfix", self.dir / "data"], check=True)
        (self.dir / "resolv.conf").write_text(f"nameserver {dns.address}\noptions timeout:1 attempts:1\n")
        self.log_path = self.dir / "maillog"
        self.master("")
        self.configure("")
        subprocess.run([*AS_ROOT, "postfix", "-c", str(self.dir / "etc"), "check"], check=True, capture_output=True)
        at = self.dir / "spool/public/postlog"
        self.logger = subprocess.Popen([*SUDO, "/usr/bin/python3", "-c", LOGGER, at, self.log_path], start_new_session=True)
        wait_for(lambda: subprocess.run([*SUDO, "test", "-S", at]).returncode == 0)

    def master(self, more):
        text = pathlib.Path(ROOT, "usr/share/postfix/master.cf.dist").read_text()
        text = text.replace("\nsmtp      inet", f"\n127.0.0.1:{self.port} inet")
        lines = [" ".join([*l.split()[:4], "n", *l.split()[5:]]) if l[:1] not in " #\t" and len(l.split()) > 7 else l
                 for l in text.splitlines()]
        (self.dir / "etc/master.cf").write_text("\n".join(lines) + "\n" + more)

    def configure(self, main):
        (self.dir / "etc/main.cf").write_text(
            BASE + "master_service_disable = postlog/unix-dgram\n"
            f"queue_directory = {self.dir}/spool\ndata_directory = {self.dir}/data\nmaillog_file = {self.log_path}\n"
            f"maillog_file_prefixes = {self.dir}\nmulti_instance_name = postfix-compat\n"
            f"import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C\n" + main.format(dir=self.dir / "etc"))

    def prepare(self, main, files, master):
        """Starts it for a case; it takes a second and a half, in which the case before may run."""
        for name, text in files.items():
            (self.dir / "etc" / name).write_text(text)
            if text.startswith("/"):
                continue  # patterns
            subprocess.run([*INSIDE, "postmap", f"hash:{self.dir}/etc/{name}"], check=True, stderr=subprocess.DEVNULL)
        self.master(master)
        self.configure(main)
        subprocess.run([*SUDO, "rm", "-f", self.log_path])
        script = f"mount --bind {self.dir}/resolv.conf /etc/resolv.conf && exec /usr/lib/postfix/sbin/master -d -c {self.dir}/etc"
        with open(self.dir / "stderr", "w") as errors:
            self.proc = subprocess.Popen([*AS_ROOT, "unshare", "-m", *KEPT, "sh", "-c", script], stdout=subprocess.DEVNULL,
                                         stderr=errors, start_new_session=True)

    def case(self, main, files, master):
        if self.proc is None:
            self.prepare(main, files, master)
        wait_for(lambda: self._greets() or self.proc.poll() is not None)
        assert self.proc.poll() is None, ("Postfix has ended at its start.  It says nothing where a port is taken: "
                                          f"{(self.dir / 'stderr').read_text()}{self.new_log()}")

    def _greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as s:
                s.settimeout(2)
                return s.recv(3) == b"220"
        except OSError:
            return False

    @staticmethod
    def read(path):
        return subprocess.run([*SUDO, "cat", str(path)], capture_output=True, text=True, errors="replace").stdout

    def ls(self, queue):
        return subprocess.run([*SUDO, "ls", str(self.dir / "spool" / queue)], capture_output=True, text=True).stdout.split()

    def new_log(self):
        return self.read(self.log_path)

    def over(self):
        subprocess.run([*AS_ROOT, "postsuper", "-c", str(self.dir / "etc"), "-d", "ALL"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        self.kill()

    def kill(self):
        """Ends the master and all that it has begun: a showq that is about to die still has the socket that postqueue asks."""
        if self.proc is None:
            return
        subprocess.run([*SUDO, "kill", "--", f"-{self.proc.pid}"], stderr=subprocess.DEVNULL)
        self.proc.wait()
        wait_for(lambda: subprocess.run(["pgrep", "-g", str(self.proc.pid), "-r", "R,S,D,T"], stdout=subprocess.DEVNULL).returncode)
        self.proc = None

    def stop(self):
        self.kill()
        subprocess.run([*SUDO, "kill", "--", f"-{self.logger.pid}"])
        self.logger.wait()
        subprocess.run([*SUDO, "rm", "-rf", str(self.dir)])


class Ours:
    """The same shape for Posthouse: a daemon a case."""

    def __init__(self, dns):
        self.dns = dns

    def case(self, main, files, master):
        self.p = Posthouse(BASE + main + f"\nresolver_servers = {self.dns.address}@53\n", master=master.replace("{", "{{").replace("}", "}}"),
                           files=files)
        for name, text in files.items():
            if not text.startswith("/"):
                self.p.postmap(f"hash:{self.p.dir}/{name}")
        self.p.start()
        self.port = self.p.port

    def new_log(self):
        return self.p.log()

    def over(self):
        self.p.stop()
        shutil.rmtree(self.p.dir, ignore_errors=True)


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


@contextlib.contextmanager
def services(mta, main, overrides, files=None):
    """A service with each of these lists of overrides ("name = value"); gives their ports, in their order."""
    ports = free_ports(len(overrides))
    mta.case(main, files or {}, "".join(f"127.0.0.1:{port} inet n - n - - smtpd\n" + "".join(f"  -o {{ {o} }}\n" for o in some)
                                        for port, some in zip(ports, overrides)))
    try:
        wait_for(lambda: listens(ports[-1]))
        yield ports
    finally:
        mta.over()


def whole_log(mta, port):
    """The log with all that was written before now: it has a line about what a client says now."""
    with Client(port) as c:
        c.cmd("GET /whole")
    return wait_for(lambda: "/whole" in (log := mta.new_log()) and log)


OUTCOME = re.compile(r"to=<([^>]*)>, (?:orig_to=<[^>]*>, )?relay=(\S+), (?:conn_use=\d+, )?delay=\S+ delays=\S+ dsn=(\S+), status=(\w+) \((.*)\)$", re.M)


def outcomes(log, dsn_text=True):
    """(recipient, relay, dsn, status, text) of each delivery line.  docs/differences.md: "SOFTBOUNCE"."""
    return [(m[1], m[2], m[3], m[4].replace("SOFTBOUNCE", "deferred"), re.sub(r"queued as \w+", "queued", m[5]))
            for m in OUTCOME.finditer(log)]


def plain(command):
    """A command without what differs.  docs/differences.md: "an ORCPT that repeats the recipient"."""
    m = re.match(r"(.*?>)((?: [A-Z0-9]+(?:=\S+)?)*)$", command)
    if m is None:
        return command
    first = lambda orcpt: re.sub(r"\+([0-9A-F]{2})", lambda h: chr(int(h[1], 16)), orcpt)
    repeats = lambda p: p.startswith("ORCPT=rfc822;") and m[1].endswith(f"<{first(p[13:])}>")
    return " ".join([m[1], *sorted(p for p in m[2].split() if not p.startswith("SIZE=") and not repeats(p))])


def wire(relays):
    """What reached each relay: the beginning of each session with who logged in, and each mail.

    How many mails share a session is not compared (docs/differences.md: "an idle session is used")."""
    seen = {}
    for name, r in relays.items():
        begun, mails = set(), []
        for s in r.sessions:
            commands = [plain(c) for c in s.commands if c not in ("QUIT", "RSET")]
            starts = [i for i, c in enumerate(commands) if c.startswith("MAIL ")] + [len(commands)]
            begun.add((tuple(commands[:starts[0]]), s.auth))
            mails += [(s.auth, tuple(commands[i:k])) for i, k in zip(starts, starts[1:])]
        if begun:
            seen[name] = sorted(begun, key=repr), sorted(mails, key=repr)
    return seen


def send(mta, sender, rcpt):
    with Client(mta.port) as c:
        return c.mail(sender, [rcpt])


def run(mta, relays, main, files, master, mails, send=send):
    """Gives mta the case and, by send, the mails; returns (replies of refused mails, outcomes, wire).

    A report to one of the senders may be on its way already or not: it is left out."""
    to_senders = {sender for sender, _ in mails} - {rcpt for _, rcpt in mails}
    for r in relays.values():
        r.sessions.clear()
    mta.case(main, files, master)
    replies, taken = [], 0
    try:
        for sender, rcpt in mails:
            reply = send(mta, sender, rcpt)
            if reply.startswith("250"):
                taken += 1
                wait_for(lambda: len([o for o in outcomes(mta.new_log()) if o[0] not in to_senders]) >= taken)
            else:
                replies.append(reply)
        time.sleep(0.05)
        return replies, [o for o in outcomes(mta.new_log()) if o[0] not in to_senders], wire(relays)
    finally:
        mta.over()
