"""Random commands, bytes and cuts at the server, random replies at the client: nothing crashes, and
what was taken is settled in the end.  SEED repeats a run."""
import os
import random
import socket
import time

from kit import FakeRelay, Posthouse, at_once, wait_for

SECONDS = 8
WORDS = [b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@x.example>\r\n", b"MAIL FROM:<> BODY=8BITMIME SIZE=5\r\n",
         b"RCPT TO:<b@y.example>\r\n", b'RCPT TO:<"a b"@y> NOTIFY=SUCCESS\r\n', b"DATA\r\n", b"BDAT 5\r\nhello",
         b"BDAT 3 LAST\r\nabc", b"BDAT 0 LAST\r\n", b"BDAT 99999999999999999999 LAST\r\n", b".\r\n", b"\n.\r\n",
         b"RSET\r\n", b"NOOP\r\n", b"VRFY <x>\r\n", b"QUIT\r\n", b"STARTTLS\r\n", b"Subject: x\r\n\r\nbody\r\n",
         b"\0\0\r\n", b"A" * 3000 + b"\r\n", b"AUTH PLAIN x\r\n", b"\r\n", b"\xff\xfe"]


def rubbish(rnd):
    data = b"".join(rnd.choice(WORDS) for _ in range(rnd.randrange(1, 6)))
    if rnd.random() < 0.1:
        data = bytes(rnd.randrange(256) for _ in range(rnd.randrange(1, 2000)))
    return data[:rnd.randrange(len(data) + 1)] if rnd.random() < 0.3 else data


def client(port, rnd, end):
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as s:
                s.settimeout(0.05)
                for _ in range(rnd.randrange(1, 30)):
                    s.sendall(rubbish(rnd))
                    if rnd.random() < 0.3:
                        s.recv(65536)
        except OSError:
            pass


def test_garbage(dns):
    seed = int(os.environ.get("SEED", time.time()))
    print("seed", seed)
    rnd = random.Random(seed)
    pick = lambda *replies: lambda line: rnd.choice(replies)
    relay = FakeRelay(chunking=True, keep=False, replies={
        "GREETING": pick(*[None] * 6, "421 x", "junk", ""),
        "MAIL": pick(*[None] * 6, "421 x", "503 x", "2"),
        "RCPT": pick(None, None, "550 no", "450 x", ""),
        "DOT": pick(None, None, None, "554 x", "451 x", "")})
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\n" \
           "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nmaximal_queue_lifetime = 8s\n" \
           "bounce_queue_lifetime = 3s\n"
    with Posthouse(main, dns=dns) as p:
        pids = p.children()
        end = time.monotonic() + SECONDS
        at_once(client, *((p.port, random.Random(rnd.random()), end) for _ in range(6)))
        assert p._greets() and sorted(p.children()) == sorted(pids)
        assert " (queue active)" in p.log() and relay.sessions
        relay.replies = {}  # whether rubbish ever let one through is luck: what follows is not
        p.send(rcpts=["after@y.example"])
        wait_for(lambda: p.queue() == [], 40, 0.5)
        assert any("<after@y.example>" in rcpt for mail in relay.mails for rcpt in mail["rcpts"])
    relay.stop()
