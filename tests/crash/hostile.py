"""Clients without a login who mean harm, for as long as one wants: no connection may end the relay process, and memory
stays within a bound.  By hand; `make hostile MINUTES=60` does the same, POSTHOUSE_BUILD names another build.

    hostile.py [--minutes N] [--seed S] [--clients N]

Each client draws what it does from a generator of its own: dialogues made from a grammar, cut and split anywhere, bytes
that mean nothing, handshakes that break off, floods that read nothing, mail that is taken, AUTH of every kind.  The
configuration is reloaded meanwhile.  At the end come the counts; the program exits with 1 if a process was restarted, if a
sanitizer spoke, if the daemon does not serve or stop as it should, or if memory grew.
"""
import argparse
import collections
import contextlib
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
sys.dont_write_bytecode = True

from kit import SLOW, Posthouse, make_cert  # noqa: E402
from peers import (EHLO, ENDS, FLOODS, GONE_MEANWHILE, MAIL, MIB, NONSENSE, PLAIN, RCPT, SAID, SLOW_RCPT,  # noqa: E402
                   begin_tls, client_hello, connect, rss, shake_hands, slow_table, soon)

# What the relay may hold when it is left alone again, above what it held after the first minute; a sanitizer keeps what
# is freed.
GROWTH = 32 * MIB if SLOW == 1 else 1 << 40
CONF = """relayhost =
default_transport = discard:
relay_transport = discard:
smtpd_tls_security_level = may
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_starttls_timeout = 3s
smtpd_timeout = 5s
smtpd_error_sleep_time = 1s
smtpd_sasl_auth_enable = yes
smtpd_client_event_limit_exceptions =
smtpd_client_connection_count_limit = 500
message_size_limit = 3000000
smtpd_recipient_restrictions = check_recipient_access tcp:127.0.0.1:{table}
smtpd_relay_restrictions = permit_mynetworks, reject
"""
CONTENT = b"DATA\r\nSubject: x\r\n\r\n"
COMMANDS = [
    EHLO, b"HELO a\r\n", b"EHLO " + b"a." * 300 + b"\r\n", b"RSET\r\n", b"NOOP\r\n", b"VRFY <a@b>\r\n", b"ETRN x\r\n",
    b"QUIT\r\n", NONSENSE,
    MAIL, b"MAIL FROM:<>\r\n", b"MAIL FROM:<a@b> SIZE=9999999\r\n", b"MAIL FROM:<%s@x>\r\n" % (b"a" * 900),
    b"MAIL FROM:<a@b> ENVID=+0A BODY=8BITMIME\r\n", b"mail from:<\xc3\xb6@x> SMTPUTF8\r\n",
    RCPT, SLOW_RCPT, b"RCPT TO:nobody\r\n",
    b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY ORCPT=utf-8;\\x{110000}\r\n", b"RCPT TO:<\"a b\"@[127.0.0.1]>\r\n",
    CONTENT, CONTENT + b"hello\r\n.\r\n", CONTENT + b"x" * 70000 + b"\r\n.\r\n", CONTENT + b"." * 3000 + b"\n.\n\r.\r\n.\r\n",
    b"BDAT 4\r\nabc\n", b"BDAT 0\r\n", b"BDAT 5 LAST\r\nS: x\n", b"BDAT 300000 LAST\r\n" + b"S: x\r\n" * 50000,
    b"BDAT 99999999999999999999\r\n", b"BDAT 9999999\r\nshort",
    PLAIN, b"AUTH LOGIN\r\n", b"AUTH LOGIN dXNlcg==\r\n", b"dXNlcg==\r\n", b"*\r\n", b"=\r\n", b"AUTH CRAM-MD5\r\n",
    b"AUTH PLAIN " + b"A" * 13000 + b"\r\n", b"STARTTLS\r\n",
    b"GET / HTTP/1.1\r\n", b"X-Y: z\r\n", b"\r\n", b"\n", b"\0\r\n", b"A" * 3000, b"\xff\xfe\r\n"]


class Run:
    def __init__(self, p, seed):
        self.p, self.seed, self.over = p, seed, threading.Event()
        self.counts, self.lock = collections.Counter(), threading.Lock()

    def count(self, *what):
        with self.lock:
            self.counts.update(what)

    def open(self, rnd):
        """A connection, sometimes inside TLS, with the greeting read or not."""
        s = connect(self.p)
        self.count("connections")
        if rnd.random() < 0.2:
            s.close()
            s = begin_tls(self.p)
            s = shake_hands(s) or s
            self.count("connections", "handshakes")
        elif rnd.random() < 0.7:
            s.recv(200)
        s.settimeout(3 * SLOW)
        return s


def speak(s, rnd, data, reads):
    """In pieces that end anywhere, reading in between or not."""
    while data:
        n = rnd.choice((1, 2, 7, 60, 1000, 1 << 20))
        s.sendall(data[:n])
        data = data[n:]
        soon(rnd, 4e-4)
        if reads and rnd.random() < 0.2:
            s.settimeout(0.01)
            with contextlib.suppress(TimeoutError, OSError):
                s.recv(rnd.choice((1, 4096)))
            s.settimeout(3 * SLOW)


def listed(run, rnd):
    s = run.open(rnd)
    for _ in range(rnd.randrange(1, 4)):
        speak(s, rnd, rnd.choice([*SAID.values(), *GONE_MEANWHILE.values()]), False)
    return s


def dialogue(run, rnd):
    """Commands of the grammar, some of them with a byte changed, lost or put in."""
    data = bytearray(EHLO if rnd.random() < 0.7 else b"")
    for _ in range(rnd.choice((1, 3, 10, 40))):
        piece = bytearray(rnd.choice(COMMANDS))
        while rnd.random() < 0.15:
            i = rnd.randrange(len(piece) + 1)
            piece[i:i + rnd.randrange(3)] = rnd.randbytes(rnd.randrange(3))
        data += piece
    s = run.open(rnd)
    speak(s, rnd, bytes(data), rnd.random() < 0.7)
    return s


def mail(run, rnd):
    """A message that is taken, so that what comes after one is tried, too."""
    s = run.open(rnd)
    size = rnd.choice((0, 100, 5000, 70000, 300000))
    speak(s, rnd, EHLO + (MAIL + RCPT + CONTENT + b"line\r\n" * (size // 6) + b".\r\n") * rnd.randrange(1, 4) + b"QUIT\r\n", True)
    s.settimeout(3 * SLOW)
    heard = b""
    with contextlib.suppress(OSError):
        while more := s.recv(65536):
            heard += more
    run.count(*["taken"] * heard.count(b"queued as"))
    return s


def noise(run, rnd):
    s = run.open(rnd)
    speak(s, rnd, rnd.randbytes(rnd.choice((1, 50, 3000, 100000))), True)
    return s


def half_a_handshake(run, rnd):
    run.count("connections")
    s = begin_tls(run.p)
    hello = bytearray(client_hello())
    if rnd.random() < 0.5:
        hello[rnd.randrange(len(hello))] ^= 1 << rnd.randrange(8)
    s.sendall(hello[:rnd.randrange(len(hello) + 1)] + (rnd.randbytes(500) if rnd.random() < 0.3 else b""))
    if rnd.random() < 0.3:
        s.settimeout(1)
        s.recv(5000)
    return s


def never_reads(run, rnd):
    opening, said = FLOODS[rnd.choice(list(FLOODS))]
    s = run.open(rnd)
    s.sendall(opening)
    s.settimeout(0.3 * SLOW)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < MIB:
            sent += s.send(said * (8192 // len(said)))
    run.over.wait(rnd.random())
    return s


def dribble(run, rnd):
    s = run.open(rnd)
    for c in rnd.choice((EHLO, PLAIN, EHLO + MAIL + RCPT + CONTENT)):
        s.sendall(bytes((c,)))
        if run.over.wait(rnd.random() * 0.02):
            break
    return s


def crowd(run, rnd):
    """Many at once, who go at once."""
    held = []
    try:
        for _ in range(60):
            held.append(connect(run.p))
            if rnd.random() < 0.5:
                held[-1].sendall(EHLO + MAIL)
    finally:
        run.count(*["connections"] * len(held))
        for s in held[1:]:
            rnd.choice((ENDS["reset"], ENDS["close"]))(s)
    return held[0]


ACTS = {listed: 5, dialogue: 12, mail: 3, noise: 3, half_a_handshake: 3, never_reads: 1, dribble: 1, crowd: 1}


def client(run, number):
    rnd = random.Random(f"{run.seed} {number}")
    while not run.over.is_set():
        act = rnd.choices(list(ACTS), ACTS.values())[0]
        try:
            s = act(run, rnd)
            s.settimeout(2)
            soon(rnd)
            rnd.choices(list(ENDS.values()), (4, 4, 1))[0](s)
        except (OSError, ValueError):
            run.count("cut short")  # the relay, or TLS, had enough
        run.count(act.__name__.replace("_", " "), "dialogues")


def deaths(p):
    with open(p.dir / "maillog", errors="replace") as log:  # an hour's has hundreds of megabytes
        return sum("killed by signal" in line or "exit status" in line for line in log)


def watch(run, minutes):
    """Until the time is over: the process is the same, it serves, and how much memory it holds."""
    p, relay = run.p, run.p.child("relay")
    end, after_a_minute = time.monotonic() + minutes * 60, None
    begun, peak, n = time.monotonic(), 0, 0
    while time.monotonic() < end:
        time.sleep(min(5, max(0.1, end - time.monotonic())))
        now, n = rss(relay), n + 1
        peak = max(peak, now)
        if after_a_minute is None and time.monotonic() - begun >= min(60, minutes * 30):
            after_a_minute = now
        if n % 6 == 0:
            p.proc.send_signal(signal.SIGHUP)
        if p.child("relay") != relay:
            break
    return relay, after_a_minute or peak, peak


def verdict(run, relay, first, peak):
    """What is wrong at the end."""
    p, wrong = run.p, []
    time.sleep(8)  # sessions that were left alone time out
    last = rss(p.child("relay"))
    run.counts["restarts"] = deaths(p)
    if p.child("relay") != relay or run.counts["restarts"]:
        wrong.append("a process was restarted")
    if last - first > GROWTH:
        wrong.append("memory grew")
    if not p._greets():
        wrong.append("it does not greet")
    print(", ".join(f"{n} {what}" for what, n in sorted(run.counts.items())))
    print(f"memory: {first // 1024} KiB after the first minute, at most {peak // 1024}, {last // 1024} at the end")
    return wrong


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--minutes", type=float, default=10)
    args.add_argument("--seed", default=None)
    args.add_argument("--clients", type=int, default=12)
    args = args.parse_args()
    seed = args.seed or str(random.SystemRandom().randrange(1 << 30))
    print(f"seed {seed}, {args.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as d, slow_table() as table:
        pathlib.Path(d).chmod(0o755)
        cert, key = make_cert(pathlib.Path(d), "mta.example")
        key.chmod(0o644)
        with Posthouse(CONF.format(cert=cert, key=key, table=table.port)) as p:
            run = Run(p, seed)
            threads = [threading.Thread(target=client, args=(run, i), daemon=True) for i in range(args.clients)]
            for t in threads:
                t.start()
            seen = watch(run, args.minutes)
            run.over.set()
            for t in threads:
                t.join(60)
            wrong = verdict(run, *seen)
            if wrong:
                raise SystemExit(f"FAILED: {'; '.join(wrong)} (seed {seed})")
    print("all is well")


if __name__ == "__main__":
    main()
