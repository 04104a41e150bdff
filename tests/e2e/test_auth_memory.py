"""What a client logs in with is nowhere in the memory of the relay process or the lookup process once it has been used,
however the dialogue ends.  The memory is read from outside (/proc/PID/mem), after each case."""
import contextlib
import json
import subprocess
import sys

import pytest
import servers
from kit import SLOW, Client, Posthouse, free_port, wait_for
from test_auth import SUDO, FakeDovecot, b64, store

pytestmark = pytest.mark.skipif(SLOW > 1, reason="a sanitizer keeps what was freed, and its memory is too much to be read")
# A password is made of it twice, the case's name and twice again: whatever part of it is copied, in clear or in
# base64 of any alignment, one of four patterns is in it.
TAG = "Hq7vXm2LpT9w"
PATTERNS = [TAG, *(b64("x" * lead + TAG * 3)[4:20] for lead in range(3))]

SCAN = """
import json, sys
pids, patterns = json.loads(sys.argv[1]), [p.encode() for p in json.loads(sys.argv[2])]

def scan(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            where, rights, *_ = line.split()
            if not rights.startswith("rw") or "[v" in line:
                continue
            at, end = (int(x, 16) for x in where.split("-"))
            try:
                mem.seek(at)
                data = mem.read(end - at)
            except OSError:
                continue
            for p in patterns:
                i = data.find(p)
                if i >= 0:
                    yield f"{pid} {at + i:x}: {data[max(0, i - 40):i + 100]}"

for line in sys.stdin:
    print(json.dumps([x for pid in pids for x in scan(pid)]), flush=True)
"""


def secret(name):
    return TAG * 2 + name + TAG * 2


class Watched(Posthouse):
    """A daemon whose processes are looked into."""

    def start(self):
        super().start()
        pids = [self.child("relay"), self.child("lookup")]
        self.scanner = subprocess.Popen([*SUDO, sys.executable, "-c", SCAN, json.dumps(pids), json.dumps(PATTERNS)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def stop(self):
        self.scanner.stdin.close()
        self.scanner.wait()
        super().stop()

    def scan(self):
        self.scanner.stdin.write("\n")
        self.scanner.stdin.flush()
        return json.loads(self.scanner.stdout.readline())

    def assert_forgotten(self, case):
        """Nothing is found; what is on its way may take a while, what is kept stays: nothing else comes meanwhile."""
        found = []

        def nothing():
            found[:] = self.scan()
            return not found
        try:
            wait_for(nothing)
        except AssertionError:
            pytest.fail(f"{case}: the password is still there:\n" + "\n".join(found))


USER = "user@domain.com"
# Each case: name, what is said at the start of the session, then pieces that are sent one after the other, each when
# the reply to the one before has come.  {plain}, {password}: base64.  A piece that ends in a hyphen has no reply.
CASES = {
    "good plain": ["AUTH PLAIN {plain}\r\n"],
    "bad plain": ["AUTH PLAIN {wrong}\r\n"],
    "plain in two": ["AUTH PLAIN\r\n", "{plain}\r\n"],
    "good login": ["AUTH LOGIN\r\n", "{user}\r\n", "{password}\r\n"],
    "login with user": ["AUTH LOGIN {user}\r\n", "{password}\r\n"],
    "bad login": ["AUTH LOGIN\r\n", "{user}\r\n", "{password}{password}\r\n"],
    "cancelled": ["AUTH LOGIN\r\n", "{password}\r\n", "*\r\n"],
    "pipelined login": ["AUTH LOGIN\r\n{user}\r\n{password}\r\nNOOP\r\n"],
    "pipelined plain": ["AUTH PLAIN\r\n{plain}\r\nNOOP\r\nAUTH PLAIN {plain}\r\n"],
    "refused login": ["AUTH FOO\r\n{user}\r\n{password}\r\n"],
    "no base64": ["AUTH PLAIN {plain}*\r\n"],
    "no plain": ["AUTH PLAIN {password}\r\n"],
    "many words": ["AUTH PLAIN {plain} {plain}\r\n"],
    "control": ["AUTH PLAIN \x01{plain}\r\n"],
    "in mail": ["MAIL FROM:<a@x.example>\r\n", "AUTH PLAIN {plain}\r\n"],
    "twice": ["AUTH PLAIN {plain}\r\n", "AUTH PLAIN {plain}\r\n"],
    "not a command": ["{password}\r\n"],
    "bare words": ["PLAIN {plain}\r\n", "PASS {raw}\r\n", "NOOP {raw}\r\n"],
    "too long": ["AUTH PLAIN {long}\r\n"],
    "too long an answer": ["AUTH LOGIN\r\n", "{user}\r\n", "{long}\r\n"],
    "too long without end": ["AUTH PLAIN {long}{long}{long}{long}"],
    "half a line": ["AUTH PLAIN {plain}-"],
    "half an answer": ["AUTH LOGIN\r\n", "{user}\r\n", "{password}-"],
    "half a line and a kept one": ["AUTH PLAIN {wrong}\r\nAUTH PLAIN {plain}\r\n{password}-"],
    "behind quit": ["QUIT\r\nAUTH PLAIN {plain}\r\n"],
    "behind starttls": ["STARTTLS\r\nAUTH PLAIN {plain}\r\n"],
    "gone meanwhile": ["AUTH PLAIN {plain}\r\n-"],
}


def fill(piece, name):
    password = secret(name)
    plain = b64(f"\0{USER}\0{password}")
    return piece.format(plain=plain, wrong=b64(f"\0{USER}\0{password}x"), password=b64(password), user=b64(USER), raw=password,
                        long=b64(TAG * 1300)).encode()


def say(p, name, pieces, tls):
    with Client(p.port) as c:
        if tls:
            c.starttls()
            c.cmd("EHLO client.example")
        for piece in pieces:
            data = fill(piece.removesuffix("-"), name)
            half = len(data) // 2
            with contextlib.suppress(OSError):
                c.raw(data[:half])  # the rest has to be put to what is kept
                c.raw(data[half:])
                if not piece.endswith("-"):
                    c.reply()
        if not pieces[-1].endswith("-"):
            p.assert_forgotten(name)
            return
    p.assert_forgotten(f"{name}, gone")


LIMITS = "smtpd_hard_error_limit = 1000\nsmtpd_soft_error_limit = 1000\nsmtpd_tls_auth_only = no\n"


def test_the_store_forgets(server_cert):
    db = servers.Sqlite()
    try:
        servers.add_user(db, USER, "{PLAIN}" + "nothing")
        with Watched(**store(db, server_cert, LIMITS)) as p:
            for name, pieces in CASES.items():
                say(p, name, pieces, False)
            for name in ("good plain", "pipelined login", "pipelined plain", "bad login", "half a line", "too long", "behind quit"):
                say(p, name, CASES[name], True)
            p.assert_forgotten("all are gone")
            assert TAG not in p.log()
    finally:
        db.stop()


def test_dovecot_is_told_and_forgotten(server_cert):
    """Also when it refuses, asks again, hangs up and is away."""
    answers = {"ok": b"OK\t%s\tuser=u@domain.com\n", "fail": b"FAIL\t%s\tuser=u@domain.com\n", "temp": b"FAIL\t%s\ttemp\n",
               "more": b"CONT\t%s\tcGxlYXNl\n", "nothing": b""}
    now = ["ok"]

    def answer(fields):
        first = fields[0] == b"AUTH" and not any(f.startswith(b"resp=") for f in fields)
        kind = "more" if first else now[0]
        return answers[kind].replace(b"%s", fields[1])
    fake = FakeDovecot(answer)
    main = (f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{fake.port}\n" + LIMITS +
            f"smtpd_tls_cert_file = {server_cert[0]}\nsmtpd_tls_key_file = {server_cert[1]}\nsmtpd_tls_security_level = may\n")
    with Watched(main) as p:
        for kind in ("ok", "fail", "temp"):
            now[0] = kind
            for name in ("good plain", "plain in two", "good login", "pipelined login", "half a line", "twice"):
                say(p, f"{name} {kind}", CASES[name], kind != "fail")
        now[0] = "nothing"
        say(p, "gone while it thinks", CASES["gone meanwhile"], True)
        fake.down()
        p.wait_log("SASL: .*: the connection was closed")
        for name in ("good plain", "pipelined login", "refused login"):
            say(p, f"{name} without Dovecot", CASES[name], False)


def test_where_no_one_may_log_in():
    with Watched(f"{LIMITS}relayhost = [127.0.0.1]:{free_port()}\n") as p:
        for name in ("good plain", "pipelined login", "half a line", "too long", "bare words"):
            say(p, name, CASES[name], False)
        wait_for(lambda: p.log().count("disconnect from") >= 5)
