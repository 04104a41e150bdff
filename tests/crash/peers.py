"""What peers that mean harm do to a connection, for the tests and for hostile.py: SMTP clients without a login who reset,
hang up, come late or never read, and a table that answers late."""
import contextlib
import os
import pathlib
import random
import re
import socket
import ssl
import struct
import time

from kit import SLOW, Listener

MIB = 1 << 20
EHLO = b"EHLO bad.example\r\n"
NONSENSE = b"FROBNICATE now\r\n"
MAIL = b"MAIL FROM:<eve@bad.example>\r\n"
RCPT = b"RCPT TO:<joe@there.example>\r\n"
SLOW_RCPT = b"RCPT TO:<slow@there.example>\r\n"
PLAIN = b"AUTH PLAIN AGV2ZQBndWVzcw==\r\n"


def slow_table():
    """tcp_table(5): a key with "slow" in it takes a while, nothing is found."""
    def serve(conn):
        with conn.makefile("rb") as f:
            for line in f:
                if b"slow" in line:
                    time.sleep(0.5)
                conn.sendall(b"500 no\n")
    return Listener(serve)


def connect(p):
    s = socket.create_connection(("127.0.0.1", p.port), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.settimeout(20 * SLOW)
    return s


def soon(rnd, most=2e-3):
    """Waits for a random moment, without sleeping: sleep is too coarse."""
    end = time.perf_counter() + min(most, rnd.choice((0, 20e-6, 60e-6, 150e-6, 400e-6, 2e-3))) * rnd.random()
    while time.perf_counter() < end:
        pass


def set_reset(s):
    """close() will be a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(s):
    set_reset(s)
    s.close()


def half_close(s):
    s.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while s.recv(65536):
            pass
    s.close()


def hang_up(s):
    s.close()


ENDS = {"reset": reset, "close": hang_up, "half-close": half_close}

# What is said at once, and when the client is gone: the reply may be about to be written.
SAID = {
    "nothing": b"",
    "errors": NONSENSE * 13,
    "errors-in-mail": EHLO + MAIL + b"RCPT TO:nobody\r\n" * 14,
    "starttls": EHLO + b"STARTTLS\r\n",
    "starttls-twice": EHLO + b"STARTTLS\r\nSTARTTLS\r\n" + EHLO,
    "starttls-hello": EHLO + b"STARTTLS\r\n" + b"\x16\x03\x01\x00\x05hello",
    "auth": EHLO + PLAIN * 3,
    "ehlo": EHLO * 40,
    "mail": EHLO + MAIL + RCPT,
    "data": EHLO + MAIL + RCPT + b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n",
    "content": EHLO + MAIL + RCPT + b"DATA\r\nSubject: x\r\n\r\n" + b"half a line" * 2000,
    "bdat": EHLO + MAIL + RCPT + b"BDAT 4\r\nabc\n" + b"BDAT 0\r\n" * 9 + b"BDAT 3 LAST\r\nabc",
    "quit": EHLO + b"QUIT\r\n" + NONSENSE * 3,
}

# The client is gone while its session sleeps or waits for an answer: what is written then fails.
GONE_MEANWHILE = {
    "error-sleep": NONSENSE * 12,
    "starttls-after-lookup": EHLO + MAIL + SLOW_RCPT + b"STARTTLS\r\n",
    "auth-after-lookup": EHLO + MAIL + SLOW_RCPT + PLAIN + b"STARTTLS\r\n" + PLAIN,
    "ehlo-after-lookup": EHLO + MAIL + SLOW_RCPT + EHLO * 5,
    "quit-after-lookup": EHLO + MAIL + SLOW_RCPT + b"QUIT\r\n",
    "errors-after-lookup": EHLO + MAIL + SLOW_RCPT + NONSENSE * 21,
    "data-after-lookup": EHLO + MAIL + SLOW_RCPT + b"DATA\r\nSubject: x\r\n\r\nhi\r\n.\r\n" + NONSENSE * 12,
}

# An opening, then for ever.
FLOODS = {
    "ehlo": (b"", b"EHLO a\r\n"),
    "mail-rset": (EHLO, MAIL + b"RSET\r\n"),
    "bdat": (EHLO + MAIL + RCPT, b"BDAT 0\r\n"),
    "helo": (b"", b"HELO a\r\n"),
    "noop": (b"", b"NOOP\r\n"),
    "rcpt": (EHLO + MAIL, b"RCPT TO:<a@b>\r\n"),
}


def any_server():
    """TLS with whoever is there."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    return ctx


def shake_hands(s):
    """A handshake as far as the peer lets it come."""
    try:
        return any_server().wrap_socket(s)
    except OSError:
        return None


def client_hello():
    inside, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        any_server().wrap_bio(inside, out).do_handshake()
    return out.read()


def begin_tls(p):
    """Up to the moment where the handshake would begin."""
    s = connect(p)
    for said, until in ((b"", b"220 "), (EHLO, b"250 "), (b"STARTTLS\r\n", b"220 ")):
        s.sendall(said)
        heard = b""
        while until not in heard:
            more = s.recv(4096)
            if not more:
                raise ConnectionResetError
            heard += more
    return s


def flood(p, tls, opening, said, stop):
    """Talks until the relay takes no more, reads nothing; how much it took."""
    sent = 0
    s = shake_hands(begin_tls(p)) if tls else connect(p)
    with contextlib.suppress(TimeoutError, ssl.SSLError, ConnectionError):
        s.sendall(opening)
        s.settimeout(0.5 * SLOW)
        while not stop.is_set() and sent < 4 * MIB:
            sent += s.send(said * (8192 // len(said)))
    stop.wait(20 * SLOW)
    s.close()
    return sent


def rss(pid, what="VmRSS"):
    """Bytes of memory of a process."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", text)[1]) * 1024


def outlived(p, relay):
    """The relay process is the one that it was, and greets."""
    assert p._greets() and p.child("relay") == relay, p.log()[-2000:]
    assert "killed by signal" not in p.log() and "exit status" not in p.log()


def seeded(name):
    """SEED in the environment repeats a run."""
    return random.Random(os.environ.get("SEED", name))
