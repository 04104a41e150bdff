"""Content of every size around the server's thresholds: what was sent is what the next hop has, but for the fields that are documented."""
import itertools
import re

import pytest
from corpus import difference
from kit import FakeRelay, Posthouse, wait_for

KIB = 1024
BODY = b"\r\nSubject: of the body\r\n.\r\n..\r\nno header: at all\r\n"
RECEIVED = rb"Received: from [^\n]*\r\n(?:\t[^\n]*\r\n)*"
ADDED = rb"Message-Id: <\d{14}\.\w+@mta\.example>\r\nDate: [^\n]*\r\nFrom: a@x\.example\r\n"


def fields(size, each, name=b"X-Long"):
    """A header section of exactly size bytes in lines of up to `each`; each=0: one line."""
    each = each or size
    rest, lines = size, []
    while rest > 0:
        n = rest if rest < each + 40 else each
        head = b"%s-%d: " % (name, len(lines))
        lines.append(head + b"v" * (n - len(head) - 2) + b"\r\n")
        rest -= n
    return b"".join(lines)


def folded(size):
    first, line = b"To: many@far-away.example\r\n", b"\tsomebody@far-away.example,\r\n"
    n = (size - len(first)) // len(line)
    rest = size - len(first) - n * len(line)
    return first + line * (n - 2) + b"\tx@" + b"x" * (2 * len(line) + rest - 13) + b".example\r\n"


SECTIONS = {"lines": lambda n: fields(n, 78), "long lines": lambda n: fields(n, 7001), "one line": lambda n: fields(n, 0), "folded": folded,
            "two long": lambda n: fields(n, (n + 1) // 2)}
ROUNDS = itertools.count()
CONFIGS = {"defaults": "", "small files": "spool_body_file_size = 3000\n", "no memory": "spool_body_file_size = 3000\nmessage_memory_limit = 1\n"}
SIZES = sorted({base + d for base in (64 * KIB, 256 * KIB) for d in (-300, -131, -1, 0, 1, 130, 300)} | {3000, 9000, 128 * KIB, 320 * KIB + 1, 600 * KIB})


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, dns):
    with FakeRelay(chunking=True) as relay, Posthouse(CONFIGS[request.param] + f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_line_length_limit = 0\nsmtpd_peername_lookup = no\n",
                                         dns=dns) as p:
        yield p, relay


def deliver(pair, contents, chunks=0):
    """Sends each content (as DATA, or BDAT in chunks of that size), and returns what reached the relay, in order."""
    p, relay = pair
    first = next(ROUNDS)
    keys = [f"TO:<{first}-n{i}@y.example>" for i in range(len(contents))]
    with p.client() as c:
        for i, content in enumerate(contents):
            c.raw(f"MAIL FROM:<a@x.example>\r\nRCPT TO:<{first}-n{i}@y.example>\r\n")
            assert c.reply().startswith("250") and c.reply().startswith("250")
            if chunks:
                for at in range(0, len(content), chunks):
                    piece = content[at:at + chunks]
                    c.raw(b"BDAT %d%s\r\n" % (len(piece), b" LAST" if at + chunks >= len(content) else b"") + piece)
                    assert c.reply().startswith("250")
                continue
            assert c.cmd("DATA").startswith("354")
            c.raw(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
            assert c.reply().startswith("250 2.0.0 Ok: queued as")

    def delivered():
        "all of them at the relay"
        got = {m["rcpts"][0].split(" ")[1]: m["content"] for m in relay.mails}
        return [got[key] for key in keys] if all(key in got for key in keys) else None
    return wait_for(delivered)


@pytest.mark.parametrize("kind", SECTIONS)
@pytest.mark.parametrize("how", ["data", "bdat"])
def test_a_header_section_of_any_size_is_completed_at_its_end(pair, kind, how):
    sections = [SECTIONS[kind](n) for n in SIZES]
    assert [len(s) for s in sections] == SIZES
    for sent, got in zip(sections, deliver(pair, [s + BODY for s in sections], 30011 if how == "bdat" else 0)):
        own = re.match(RECEIVED, got)
        rest = got[own.end():]
        assert rest[:len(sent)] == sent, difference(sent, rest)
        assert re.fullmatch(ADDED, rest[len(sent):-len(BODY)]) and rest.endswith(BODY), (len(sent), rest[len(sent):][:300])


@pytest.mark.parametrize("end", [b"", b"no field\r\n", b"no field\r\n\r\nbody: x\r\n", b"\r\n", b" folded\r\n"], ids=repr)
def test_however_the_section_ends(pair, end):
    sections = [fields(n, 900) + b"Message-ID: <mine@x.example>\r\n" for n in SIZES]
    for sent, got in zip(sections, deliver(pair, [s + end for s in sections])):
        rest = got[re.match(RECEIVED, got).end():]
        folded = end if end == b" folded\r\n" else b""
        added = rb"Date: [^\n]*\r\nFrom: a@x\.example\r\n" + (b"\r\n" if end.startswith(b"no") else b"")
        left = b"" if folded else end
        assert rest.startswith(sent + folded) and rest.endswith(left), difference(sent, rest)
        middle = rest[len(sent + folded):len(rest) - len(left)]
        assert re.fullmatch(added, middle), (len(sent), middle[:300])


def test_the_log_has_a_message_id_of_bounded_length(pair):
    p, _ = pair
    deliver(pair, [b"Message-ID: <" + b"m" * 90000 + b">\r\n\r\nx\r\n", b"Message-ID:\r\n <" + b"f" * 70000 + b">\r\n\r\nx\r\n"])
    lines = p.wait_log(r"postfix/cleanup\[\d+\]: \w+: message-id=(.*)$", count=2)
    assert all(len(line) <= 1000 for line in lines), [len(line) for line in lines]
