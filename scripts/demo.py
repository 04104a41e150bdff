"""make demo: Posthouse between a few senders and two relay hosts that demand AUTH.

Everything is on loopback and in a directory of its own (below TMPDIR, where that is set); on a terminal it stays up until Ctrl-C, without one it
ends by itself.  Nothing asks the Internet: host names come from a hosts file of the demo's own.
"""
import email.message
import json
import logging
import os
import pathlib
import pwd
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
import warnings

warnings.simplefilter("ignore")
logging.getLogger("mail.log").setLevel(logging.CRITICAL)

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("POSTHOUSE_BUILD", "build") / "src"
DIR = pathlib.Path(os.environ.get("TMPDIR") or ("/tmp" if os.geteuid() == 0 else ROOT / "build")) / f"posthouse-demo-{os.getuid()}"
ETC = DIR / "etc"

MAIN_CF = """\
myhostname = posthouse.demo
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
queue_directory = {dir}/spool
maillog_file = {dir}/maillog
mail_owner = {owner}

# The first section of the set-up page, word for word but for directory, name and port:
relayhost = [relay.server]:{port_a}
smtp_sasl_password_maps = hash:{dir}/etc/sasl_password
smtp_sasl_auth_enable = yes
smtp_sasl_mechanism_filter = login
smtp_sasl_security_options = noanonymous

# One domain and one user go out through another provider: that is in the embedded accounts store.

# The page: (posthouse-web becomes that user when it is started as root)
web_listen = 127.0.0.1:{web_port}
web_owner = www-data

# Names from a file, so that the demo needs no DNS:
smtp_host_lookup = native
smtp_dns_support_level = disabled
resolver_hosts_file = {dir}/etc/hosts
"""

SENDERS = ["alice@example.com", "bob@shop.example", "carol@example.com", "dave@elsewhere.example"]


class DemoRelay:
    """A relay host that takes mail from its own customers only."""

    def __init__(self, name, host, user, password, tls=None):
        self.name, self.host, self.user, self.password = name, host, user, password
        self.got = []
        with socket.socket() as s:
            s.bind((host, 0))
            self.port = s.getsockname()[1]
        self.controller = Controller(self, hostname=host, port=self.port, authenticator=self.login,
                                     auth_required=True, auth_require_tls=tls is not None, tls_context=tls)
        self.controller.start()

    def login(self, server, session, envelope, mechanism, data):
        ok = isinstance(data, LoginPassword) and \
            (data.login.decode(), data.password.decode()) == (self.user, self.password)
        return AuthResult(success=ok, auth_data=(mechanism, self.user) if ok else None)

    async def handle_DATA(self, server, session, envelope):
        mech, user = session.auth_data
        self.got.append((envelope.mail_from, envelope.rcpt_tos[0], mech, user))
        return "250 2.0.0 Ok: taken by " + self.name


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def title(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def configure(a, b, port, web_port):
    DIR.chmod(0o755)
    owner = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    (ETC / "main.cf").write_text(MAIN_CF.format(dir=DIR, owner=owner, port_a=a.port, web_port=web_port))
    (ETC / "master.cf").write_text(f"127.0.0.1:{port} inet n - n - - smtpd\nsmtp unix - - n - - smtp\n"
                                   "relay unix - - n - - smtp\n")
    (ETC / "hosts").write_text(f"{a.host} relay.server\n{b.host} mail.provider.example\n")
    (ETC / "sasl_password").write_text(f"relay.server {a.user}:{a.password}\n")
    (ETC / "sasl_password").chmod(0o600)


def posthouse(*args, stdin=None):
    return subprocess.run([BUILD / "posthouse", "-c", ETC, *map(str, args)], capture_output=True, text=True, input=stdin)


def show(*args, stdin=None, quiet=False):
    """Runs a command of the administrator's and shows it with what it says."""
    print("  $ posthouse " + " ".join(map(str, args)) + ("   (the password on standard input)" if stdin else ""))
    r = posthouse(*args, stdin=stdin)
    assert r.returncode == 0, r.stderr + r.stdout
    if not quiet:
        print("".join("    " + line + "\n" for line in r.stdout.splitlines()), end="")


def certificate():
    """For the relay host that takes passwords inside TLS only."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mail.provider.example",
                    "-keyout", ETC / "provider.key", "-out", ETC / "provider.pem"], check=True, capture_output=True)
    ctx = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ctx.load_cert_chain(ETC / "provider.pem", ETC / "provider.key")
    return ctx


def why(sender):
    """What posthouse explain, that is the daemon itself, says of the sender's road."""
    steps = {s["step"]: s for s in map(json.loads, posthouse("explain", sender, "--json").stdout.splitlines()) if "step" in s}
    maps = steps["sender_dependent_relayhost_maps"]
    found = [a["key"] for a in maps["asked"] if a["answer"] == "found"]
    rule = f"the accounts store has {found[0]}" if found else "relayhost, the relay host for everybody"
    return f"{rule}; {steps['credentials']['result']}"


def send(port, sender):
    m = email.message.EmailMessage()
    m["From"], m["To"], m["Subject"] = sender, "friend@far.example", f"hello from {sender}"
    m.set_content("Sent by make demo.\n")
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.demo") as s:
        s.send_message(m)


def wait_for(what, seconds=15):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise SystemExit(f"demo: timed out; see {DIR}/maillog")
        time.sleep(0.05)


def listening(port, proc):
    if proc.poll() is not None:
        raise SystemExit("demo: it ended: " + "".join(p.read_text() for p in DIR.glob("stderr*")))
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
        return True
    except OSError:
        return False


def start_page(port):
    with open(DIR / "stderr-web", "wb") as err:
        web = subprocess.Popen([BUILD / "posthouse-web", "-c", ETC, "-f"], stdout=err, stderr=err)
    wait_for(lambda: listening(port, web))
    return web


def show_log():
    for line in (DIR / "maillog").read_text().splitlines():
        if re.search(r"status=|client=|queue active", line):
            print("  " + line)


def main():
    shutil.rmtree(DIR, ignore_errors=True)
    ETC.mkdir(parents=True)
    a = DemoRelay("relay.server", "127.0.0.1", "user", "password")
    b = DemoRelay("mail.provider.example", "127.0.0.2", "shop", "s3cret", certificate())
    port, web_port = free_port(), free_port()
    configure(a, b, port, web_port)
    title("Configuration (main.cf)")
    print("".join("  " + l + "\n" for l in (ETC / "main.cf").read_text().splitlines()), end="")
    print(f"  $ postmap hash:{ETC}/sasl_password")
    r = posthouse("postmap", f"hash:{ETC}/sasl_password")
    assert r.returncode == 0, r.stderr
    title("A domain and a user with another relay host, in the embedded accounts store; its account in a relay record")
    hop = f"[mail.provider.example]:{b.port}"
    show("relay", "set", "@shop.example", hop)
    show("relay", "set", "carol@example.com", hop)
    show("relay", "list")
    show("record", "set", "provider", f"hosts={hop}", "tls=encrypt", "for=@shop.example,carol@example.com", f"user={b.user}", "password", stdin=b.password + "\n")
    show("record", "list")
    title("posthouse check")
    print("  " + posthouse("check").stdout.strip())
    web = None
    with open(DIR / "stderr", "wb") as err:
        proc = subprocess.Popen([BUILD / "posthoused", "-c", ETC, "-f"], stdout=err, stderr=err)
    try:
        wait_for(lambda: listening(port, proc))
        title(f"Posthouse listens on 127.0.0.1:{port}; {len(SENDERS)} senders send one mail each")
        for s in SENDERS:
            send(port, s)
        wait_for(lambda: len(a.got) + len(b.got) == len(SENDERS))
        wait_for(lambda: (DIR / "maillog").read_text().count("removed") == len(SENDERS))
        title("The log")
        show_log()
        title("What each relay host received, as whom, and why it went there")
        for r in (a, b):
            for sender, rcpt, mech, user in r.got:
                print(f"  {r.name:22} from {sender:24} AUTH {mech} as {user:5}  ({why(sender)})")
        assert sorted(g[0] for g in b.got) == ["bob@shop.example", "carol@example.com"]
        title("Would it work?  The road walked by the daemon itself, up to RCPT")
        show("test", "carol@example.com", "friend@far.example")
        title("The page, where a domain's and a user's relay host is set under the tab Relay")
        web = start_page(web_port)
        show("admin", "link", "admin@posthouse.demo")
        with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/") as r:
            assert r.status == 200 and b"<title>Posthouse" in r.read()
        if sys.stdin.isatty() and sys.stdout.isatty():
            title(f"Still up: open the link above, send your own mail to 127.0.0.1:{port}; Ctrl-C ends it.")
            print(f"  {BUILD}/posthouse -c {ETC} queue list")
            try:
                proc.wait()
            except KeyboardInterrupt:
                print()
    finally:
        for p in [proc] + ([web] if web else []):
            p.terminate()
            p.wait()
        for r in (a, b):
            r.controller.stop()
    title("Done.")


if __name__ == "__main__":
    main()
