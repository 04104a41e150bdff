"""Relay hosts that are out of step, ask for too much or say too much; and what content and passwords make of it."""
import re

import pytest
from kit import FakeRelay, Posthouse, free_port, wait_for

# Around each threshold of the client: a read of the spool, an eager BDAT, what may wait in the output buffer.
SIZES = [1, 4095, 65_535, 65_536, 65_537, 131_072, 262_143, 262_144, 262_145, 327_681, 524_288, 1_300_001]


def sized(n, i):
    """Content of exactly n bytes that names its number; the last lines are empty."""
    head = f"From: a@x.example\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-Id: <{i}@x.example>\r\n\r\n"
    line = (f".{i} " + "z" * 66)[:68] + "\r\n"
    body = (line * (n // len(line) + 1))[:max(0, n - len(head) - 8)]
    return head + body.rstrip("\r\n") + "\r\n" * (1 + i % 3)


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("chunking", [False, True])
def test_large_content_arrives_byte_for_byte(dns, pipelining, chunking):
    """Nothing is written into a message, and the replies after it belong to the messages after it."""
    port = free_port()
    main = f"relayhost = [127.0.0.1]:{port}\nsmtp_destination_concurrency_limit = 1\nrelay_threads = 1\n" \
           "message_size_limit = 5000000\n"
    with Posthouse(main, dns=dns) as p:
        wanted = {}
        for i, size in enumerate(SIZES):
            wanted[f"m{i}@x.example"] = sized(size, i)
            assert p.send(sender=f"m{i}@x.example", content=sized(size, i)).startswith("250")
            assert p.send(sender=f"refuse{i}@x.example").startswith("250")
        p.wait_log("status=deferred")
        refused = lambda line: "550 5.7.1 not this one" if "refuse" in line else None
        relay = FakeRelay(port=port, pipelining=pipelining, chunking=chunking, replies={"MAIL": refused})
        p.run("queue", "flush", check=True)
        wait_for(lambda: len([m for m in relay.mails if "<m" in m["from"]]) == len(SIZES), 40)
        p.wait_log(r"status=bounced \(.* said: 550 5\.7\.1 not this one \(in reply to MAIL FROM command\)\)",
                   count=len(SIZES))
        for m in relay.mails:
            sender = m["from"].split("<")[1].split(">")[0]
            if sender in wanted:
                assert m["content"].split(b"From: ", 1)[1] == wanted[sender].encode().split(b"From: ", 1)[1], sender
        known = re.compile(r"(EHLO|MAIL|RCPT|DATA|BDAT|RSET|QUIT|NOOP)\b")
        assert [c for s in relay.sessions for c in s.commands if not known.match(c)] == []
        relay.stop()
