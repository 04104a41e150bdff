"""Certificates of clients, for Debian's Postfix and for Posthouse: who is asked, what is trusted, what a fingerprint permits, and
what Received: says of it."""
import contextlib
import hashlib
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tempfile

import pytest
from kit import SLOW, FakeRelay, free_port, make_cert

import pair

RECORDS = ["relay.test. 60 IN A 127.0.0.1"]

RELAY = "127.0.0.78"
NAMES = {"paren": "a (b) c)d(e", "slash": 'back\\\\slash "quoted"', "utf8": "Zoë Größe", "lines": "first\nsecond", "tab": "x\ty",
         "252 bytes": "\U0001d11e" * 63, "256 bytes": "\U0001d11e" * 64}


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Clients:
    """A folder with an authority, certificates of clients, and tables of their fingerprints."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="compat-clients-"))
        self.dir.chmod(0o755)
        self.server, self.ca, foreign = (make_cert(self.dir, n) for n in ("mta.example", "ca.test", "foreign.test"))
        self.certs = {"none": None, "self": make_cert(self.dir, "self.test"), "good": self.signed("good", self.ca),
                      "foreign": self.signed("foreign", foreign), "past": self.signed("past", self.ca, days=-1)}
        middle = self.signed("middle", self.ca, ca=True)
        long = self.signed("long", middle)
        (self.dir / "chain").write_text(long[0].read_text() + middle[0].read_text())
        self.certs["long"] = (self.dir / "chain", long[1])
        lower = self.signed("lower", middle, ca=True)
        longer = self.signed("longer", lower)
        (self.dir / "longchain").write_text(longer[0].read_text() + lower[0].read_text() + middle[0].read_text())
        self.certs["longer"] = (self.dir / "longchain", longer[1])
        self.certs |= {n: self.signed(n, self.ca, subject=f"/CN={text}") for n, text in NAMES.items()}
        self.certs["nameless"] = self.signed("nameless", self.ca, subject="/O=Somebody")
        self.table("prints", {self.print("self"): "x"})
        self.table("keys", {self.key_print("good").lower(): "x"})
        self.table("sha1", {self.print("foreign", "sha1"): "x"})
        self.table("access", {self.print("self"): "REJECT go away", self.key_print("good"): "OK", self.print("good"): "DUNNO",
                              self.key_print("long"): "550 5.7.9 not you"})
        for path in self.dir.iterdir():
            path.chmod(0o644)

    def signed(self, name, by, ca=False, days=2, subject=None):
        cert, key, request, text = (self.dir / f"{name}.{end}" for end in ("pem", "key", "csr", "cnf"))
        openssl("req", "-new", "-utf8", "-newkey", "rsa:2048", "-nodes", "-subj", subject or f"/CN={name}.test",
                "-keyout", key, "-out", request)
        text.write_text(f"basicConstraints=CA:{'TRUE' if ca else 'FALSE'}\n")
        openssl("x509", "-req", "-in", request, "-CA", by[0], "-CAkey", by[1], "-CAcreateserial", "-days", days,
                "-extfile", text, "-out", cert)
        return cert, key

    def print(self, name, digest="sha256"):
        pem = re.search(r"-----BEGIN CERT.*?-----END CERTIFICATE-----\n", self.certs[name][0].read_text(), re.S)[0]
        return ":".join(f"{b:02X}" for b in hashlib.new(digest, ssl.PEM_cert_to_DER_cert(pem)).digest())

    def key_print(self, name):
        der = subprocess.run(["openssl", "pkey", "-in", self.certs[name][1], "-pubout", "-outform", "DER"], capture_output=True, check=True)
        return ":".join(f"{b:02X}" for b in hashlib.sha256(der.stdout).digest())

    def table(self, name, rows):
        (self.dir / name).write_text("".join(f"{key} {value}\n" for key, value in rows.items()))
        subprocess.run([*pair.INSIDE, "postmap", f"hash:{self.dir}/{name}"], check=True)

    def says(self, port, name, lines, wrapped=False):
        """The replies to lines, inside TLS, to the client that has that certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certs[name]:
            context.load_cert_chain(*self.certs[name])
        with contextlib.ExitStack() as stack:
            s = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            s.settimeout(20 * SLOW)
            for line in (() if wrapped else (b"", b"EHLO x\r\n", b"STARTTLS\r\n")):
                s.sendall(line)
                while not re.search(rb"(?m)^\d{3} .*\r\n", s.recv(5000)):
                    pass
            replies = []
            try:
                t = stack.enter_context(context.wrap_socket(s))
                f = t.makefile("rb")
                for line in ((None, *lines) if wrapped else lines):
                    if line is not None:
                        t.sendall(line.encode() + b"\r\n")
                    replies.append(f.readline().decode().strip())
                    while replies[-1][3:4] == "-":
                        replies[-1] = f.readline().decode().strip()
            except OSError as e:
                replies.append(getattr(e, "reason", type(e).__name__))
            # on a wrapped port Postfix greets a client that it has refused
            replies = replies[:1] if replies[0].startswith("421") else replies
            return [re.sub("Postfix|Posthouse|queued as .*", "", r) for r in replies if r]


@pytest.fixture(scope="module")
def clients():
    c = Clients()
    yield c
    shutil.rmtree(c.dir)


def base(c, more=""):
    return (f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {c.server[0]}\nsmtpd_tls_key_file = {c.server[1]}\n"
            f"smtpd_tls_loglevel = 1\nsmtpd_tls_CAfile = {c.ca[0]}\nsmtpd_tls_fingerprint_digest = sha256\n"
            f"relay_clientcerts = hash:{c.dir}/prints, hash:{c.dir}/keys\n"
            f"smtpd_relay_restrictions = permit_mynetworks, reject\nrelayhost = [{RELAY}]\n" + more)


ASK, PRINTS, ALL = "smtpd_tls_ask_ccert=yes", "permit_tls_clientcerts, reject", "permit_tls_all_clientcerts, reject"
# what each service has: settings, and its smtpd_recipient_restrictions
SERVICES = [
    ([ASK], PRINTS), ([ASK], ALL), ([], PRINTS), ([], ALL), ([ASK, "smtpd_tls_CAfile="], ALL), ([ASK, "smtpd_tls_CAfile="], PRINTS),
    ([ASK, "relay_clientcerts="], PRINTS), ([ASK, "relay_clientcerts="], ALL), ([ASK, "relay_clientcerts=hash:{dir}/gone"], PRINTS),
    ([ASK, "relay_clientcerts=hash:{dir}/gone"], ALL),
    ([ASK, "relay_clientcerts=hash:{dir}/sha1", "smtpd_tls_fingerprint_digest=sha1"], PRINTS),
    ([ASK], "check_ccert_access hash:{dir}/access, reject"), ([ASK], "check_ccert_access hash:{dir}/access, permit"),
    ([], "check_ccert_access hash:{dir}/access, permit"), ([ASK], "warn_if_reject check_ccert_access hash:{dir}/access, permit"),
    ([ASK, "smtpd_tls_ccert_verifydepth=1"], ALL), ([ASK, "smtpd_tls_ccert_verifydepth=0"], ALL),
    ([ASK, "smtpd_tls_ccert_verifydepth=2"], ALL),
    (["smtpd_tls_security_level=encrypt", "smtpd_tls_req_ccert=yes"], "permit"), (["smtpd_tls_req_ccert=yes"], ALL),
    (["smtpd_tls_wrappermode=yes", "smtpd_tls_req_ccert=yes"], "permit"), (["smtpd_tls_wrappermode=yes", ASK], ALL),
    ([ASK, "smtpd_client_restrictions=check_ccert_access,hash:{dir}/access"], "permit"),
]
DIALOGUE = ["EHLO client.test", "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "QUIT"]


@contextlib.contextmanager
def serving(mta, main, master):
    mta.case(main, {}, master)
    try:
        yield mta
    finally:
        mta.over()


def one_spelling(text):
    """The name of a key exchange is OpenSSL's, which has written it in other case since 3.2."""
    return re.sub(r"key-exchange \S+", lambda m: m[0].lower(), text)


def how(log):
    """How connections are logged, and refusals; why a certificate is not trusted is said in OpenSSL's words."""
    return set(one_spelling(re.sub(r"(unknown|localhost)\[", "[", m)) for m in
                  re.findall(r": ((?:\w+ TLS connection|NOQUEUE: abort).*)", log))


def test_certificates_like_postfix(postfix, clients, name_server):
    results = []
    for mta in (postfix, pair.Ours(name_server)):
        ports = [free_port() for _ in SERVICES]
        lines = "".join(f"127.0.0.1:{port} inet n - n - - smtpd " + " ".join(f"-o {s}" for s in settings) +
                        f" -o {{ smtpd_recipient_restrictions = {words} }}\n" for port, (settings, words) in zip(ports, SERVICES))
        with serving(mta, base(clients), lines.replace("{dir}", str(clients.dir))):
            said = {(i, name): clients.says(port, name, DIALOGUE, "smtpd_tls_wrappermode=yes" in SERVICES[i][0])
                    for i, port in enumerate(ports) for name in ("none", "self", "good", "foreign", "past", "long", "longer")}
            results.append((said, how(mta.new_log())))
    (theirs, their_log), (ours, our_log) = results
    assert {k: v for k, v in ours.items() if theirs[k] != v} == {}, {k: v for k, v in theirs.items() if ours[k] != v}
    assert our_log == their_log, (our_log - their_log, their_log - our_log)
    permitted = [{name for (i, name), replies in ours.items() if i == at and len(replies) > 2 and replies[2][:3] == "250"}
                 for at in range(len(SERVICES))]
    assert permitted[0] == {"self", "good"} and permitted[1] == {"self", "good", "long", "longer"} and not permitted[2] | permitted[3]


def test_received_like_postfix(postfix, clients, name_server):
    results = []
    with FakeRelay(RELAY, 25) as relay:
        for mta in (postfix, pair.Ours(name_server)):
            plain = free_port()
            relay.sessions.clear()
            with serving(mta, base(clients, "smtpd_tls_received_header = yes\nsmtpd_tls_ask_ccert = yes\n"),
                         f"127.0.0.1:{plain} inet n - n - - smtpd -o smtpd_tls_ask_ccert=no\n"):
                seen = {}
                for port, name in [(plain, "good"), *((mta.port, name) for name in clients.certs)]:
                    mark = f"mark-{name}-{port == plain}"
                    clients.says(port, name, [*DIALOGUE[:3], "DATA", f"Subject: {mark}\r\n\r\nx\r\n.", "QUIT"])
                    mail = relay.wait_mail(mark.encode())
                    field = mail["content"].split(b"\tby mta.example")[0].decode()
                    seen[mark] = one_spelling(re.sub(r"(unknown|localhost) \[", "[", field))
                results.append(seen)
    theirs, ours = results
    assert ours == theirs
    assert '(Client CN "good.test", Issuer "ca.test" (verified OK))' in ours["mark-good-False"]
