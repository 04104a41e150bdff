"""Relay hosts that reset the connection behind what they say, at each stage: no message is bounced or lost for
it, and no delivery of another message is harmed."""
import contextlib
import random
import re
import socket
import time

import pytest
from kit import FakeRelay, Listener, Posthouse, wait_for
from peers import set_reset, soon

FAST = "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n" \
       "default_destination_concurrency_failed_cohort_limit = 100000\n"


class Resetter(Listener):
    """Plays its replies one by one and resets the connection a moment after the last."""

    def __init__(self, replies):
        self.replies, self.served = replies, 0
        self.rnd = random.Random(len(replies))
        super().__init__(self.play)

    def play(self, conn):
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_reset(conn)
        with contextlib.suppress(OSError):
            for i, reply in enumerate(self.replies):
                if i > 0 and not conn.recv(65536):
                    break
                conn.sendall(reply)
            soon(self.rnd, 1e-3)
        self.served += 1


HELLO = b"220 there.example\r\n"
EHLO = b"250-there.example\r\n250 8BITMIME\r\n"
PIPES = b"250-there.example\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n"
OK = b"250 2.0.0 ok\r\n"
GO = b"354 go\r\n"

# What is said, one reply a read; the reset comes behind it.
STAGES = {
    "at-once": [],
    "greeting": [HELLO],
    "greeting-refused": [b"554 5.7.1 no service\r\n"],
    "ehlo": [HELLO, EHLO],
    "ehlo-pipelining": [HELLO, PIPES],
    "ehlo-refused": [HELLO, b"550 5.7.1 go away\r\n", b"550 5.7.1 go away\r\n"],
    "starttls": [HELLO, b"250-there.example\r\n250 STARTTLS\r\n", b"220 go\r\n"],
    "starttls-refused": [HELLO, b"250-there.example\r\n250 STARTTLS\r\n", b"454 no\r\n"],
    "mail": [HELLO, EHLO, OK],
    "mail-later": [HELLO, EHLO, b"451 4.3.0 later\r\n"],
    "rcpt": [HELLO, EHLO, OK, OK],
    "rcpt-later": [HELLO, EHLO, OK, b"450 4.2.0 later\r\n"],
    "data": [HELLO, EHLO, OK, OK, GO],
    "data-later": [HELLO, EHLO, OK, OK, b"451 4.3.0 later\r\n"],
    "dot-later": [HELLO, EHLO, OK, OK, GO, b"451 4.3.0 later\r\n"],
    "too-busy": [HELLO, EHLO, b"421 4.3.2 busy\r\n"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_resets_behind_a_reply(dns, stage):
    bad = [Resetter(STAGES[stage]) for _ in range(4)]
    good = FakeRelay(pipelining=False)
    relayhost = lambda ports: "relayhost = " + ", ".join(f"[127.0.0.1]:{port}" for port in ports) + "\n"
    with Posthouse(relayhost(b.port for b in bad) + FAST, dns=dns) as p:
        relay = p.child("relay")
        with p.client() as c:
            for i in range(12):
                assert c.mail(sender=f"m{i}@x.example").startswith("250")
        for _ in range(6):
            p.run("queue", "flush")
            time.sleep(0.15)
        p.wait_log(r"status=deferred", count=12)
        assert any(b.served for b in bad)
        assert "status=bounced" not in p.log() and "status=sent" not in p.log(), p.log()
        assert "killed by signal" not in p.log() and p.child("relay") == relay
        assert len(p.queue()) == 12
        p.write_main(relayhost([good.port]) + FAST)
        p.reload()
        p.run("queue", "flush")
        wait_for(lambda: p.queue() == [])
        senders = [m["from"] for m in good.mails]
        assert len(senders) == 12 and len(set(senders)) == 12, senders
    good.stop()
    for b in bad:
        b.stop()


def test_resets_behind_the_last_reply(dns):
    """The message is taken, and then QUIT, or the next message on the connection, cannot be written."""
    bad = [Resetter([HELLO, EHLO, OK, OK, GO, OK]) for _ in range(3)]
    main = "relayhost = " + ", ".join(f"[127.0.0.1]:{b.port}" for b in bad) + "\n" + FAST
    for more in ("smtp_connection_reuse_count_limit = 1\n", ""):
        with Posthouse(main + more, dns=dns) as p:
            relay = p.child("relay")
            with p.client() as c:
                for i in range(40):
                    assert c.mail(sender=f"m{i}@x.example", content="Subject: x\r\n\r\nhi\r\n").startswith("250")

            def settled():
                "every message sent"
                p.run("queue", "flush")
                return p.queue() == []
            wait_for(settled, 60, 0.2)
            assert "status=bounced" not in p.log() and "killed by signal" not in p.log()
            assert p.child("relay") == relay
            sent = re.findall(r"(\w+): to=<b@y.example>.*status=sent", p.log())
            assert len(set(sent)) == 40
    for b in bad:
        b.stop()
