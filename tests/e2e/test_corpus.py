"""Mails of all kinds (tests/corpus.py), in by DATA, by BDAT and by sendmail, out by DATA, by BDAT and to a host of the least
extensions: they arrive byte for byte, but for what docs/differences.md has under "What is changed in a mail"."""
import concurrent.futures
import re

import pytest

import corpus
from corpus import RECEIVED, difference
from kit import FakeRelay, Posthouse, wait_for

MAILS = corpus.mails()
ADDED = re.compile(rb"(?m)^(?:Resent-)?(?:Message-Id|Date|From): [^\n]*\n")
DROPPED = (b"bcc", b"resent-bcc", b"return-path", b"content-length")
FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
MAIN = corpus.MAIN + "relayhost = [127.0.0.1]:9\ntransport_maps = texthash:{dir}/transport\nsmtpd_peername_lookup = no\n"
FOLD = "fold unix - - n - - smtp\n  -o smtp_line_length_limit=998\n"
OLD = {"EHLO": "250-old.relay\r\n250 SIZE"}


def lines_of(raw):
    """The content's lines as every host takes them: a CR that ends no line is a blank, and the last line has its end."""
    lines = [line.rstrip(b"\r").replace(b"\r", b" ") for line in raw.split(b"\n")]
    return lines[:-1] if raw.endswith(b"\n") or not raw else lines


def changed(raw, sendmail=False):
    """(header section, rest) as they go out."""
    lines, header = lines_of(raw), []
    if lines and re.match(rb">*From ", lines[0]):
        lines = lines[1:] if sendmail else [b"X-Mailbox-Line: " + lines[0], *lines[1:]]
    dropping, i = False, 0
    while i < len(lines):
        line, field = lines[i], FIELD.match(lines[i])
        if not field and not (i > 0 and line[:1] in (b" ", b"\t")):
            break
        dropping = field[1].lower() in DROPPED if field else dropping
        if not dropping:
            header.append(line)
        i += 1
    if i < len(lines) and lines[i]:
        lines[i:i] = [b""]
    return [b"".join(line + b"\r\n" for line in part) for part in (header, lines[i:])]


def folded(content, most=998):
    """Lines that are too long go on in the next one, behind a blank."""
    out = []
    for line in content.split(b"\r\n"):
        while len(line) > most:
            out.append(line[:most])
            line = b" " + line[most:]
        out.append(line)
    return b"\r\n".join(out)


@pytest.fixture(scope="module")
def relays():
    all_ = {"data": FakeRelay(), "bdat": FakeRelay(chunking=True), "old": FakeRelay(replies=OLD, pipelining=False)}
    yield all_
    for r in all_.values():
        r.stop()


@pytest.fixture(scope="module")
def daemon(relays, dns):
    rows = "".join(f"{n}.example {'fold' if n == 'old' else 'smtp'}:[127.0.0.1]:{r.port}\n" for n, r in relays.items())
    with Posthouse(MAIN, master=FOLD, files={"transport": rows}, dns=dns) as p:
        yield p


def by_smtp(p, how):
    """Each mail in one session to a recipient at each relay."""
    with p.client() as c:
        for n, (_, content) in enumerate(MAILS):
            c.raw("MAIL FROM:<a@x.example>\r\n" + "".join(f"RCPT TO:<{how}{n}@{r}.example>\r\n" for r in ("data", "bdat", "old")))
            assert all(c.reply().startswith("250") for _ in range(4))
            if how == "data":
                assert c.cmd("DATA").startswith("354")
                text = re.sub(rb"\r?\n\Z|(?<=[^\n])\Z", b"\r\n", content, count=1)
                c.raw(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
            else:
                third = len(content) // 3
                for piece, last in ((content[:third], b""), (content[third:2 * third], b""), (content[2 * third:], b" LAST")):
                    if piece or last:
                        c.raw(b"BDAT %d%s\r\n" % (len(piece), last) + piece)
                        assert c.reply().startswith("250")
                continue
            assert c.reply().startswith("250 2.0.0 Ok: queued"), n


def by_sendmail(p, chosen):
    p.run("-bp", face="sendmail")  # makes the command's folder

    def one(n):
        text = MAILS[n][1].decode("latin-1")
        r = p.run("-i", "-f", "a@x.example", f"prog{n}@data.example", face="sendmail", stdin=text, encoding="latin-1")
        assert r.returncode == 0, (MAILS[n][0], r.stderr)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(one, chosen))


def arrived(relay, how, count):
    def all_there():
        "every mail at the relay"
        got = {int(m["rcpts"][0].split("<" + how)[1].split("@")[0]): m["content"] for m in relay.mails if f"<{how}" in m["rcpts"][0]}
        return got if len(got) == count else None
    return wait_for(all_there)


def without_received(content):
    head = RECEIVED.match(content)
    assert head, content[:400]
    return content[head.end():]


def test_there_are_enough():
    assert len({content for _, content in MAILS}) > 500 and sum(name.startswith(("bounce", "parser")) for name, _ in MAILS) > 200


@pytest.mark.parametrize("how", ["data", "bdat"])
def test_byte_for_byte(daemon, relays, how):
    by_smtp(daemon, how)
    wrong = {}
    for out, relay in relays.items():
        for n, got in arrived(relay, how, len(MAILS)).items():
            name, sent = MAILS[n]
            want = b"".join(changed(sent))
            want = folded(want) if out == "old" else want
            if without_received(got) != want:
                wrong[name, out] = difference(want, without_received(got))
    assert not wrong, (len(wrong), list(wrong.items())[:12])
    ways = {out: [c.split(" ")[0] for s in r.sessions for c in s.commands] for out, r in relays.items()}
    assert ways["bdat"].count("BDAT") > 500 and "DATA" in ways["bdat"] and "BDAT" not in ways["data"] + ways["old"]


def test_signatures_hold(daemon, relays):
    """The body hash of a DKIM signature is that of the body, at each relay, by whatever way the mail came."""
    signed = [n for n, (name, _) in enumerate(MAILS) if name.startswith(("dkim/", "arc/"))]
    for relay in relays.values():
        for how in ("data", "bdat"):
            got = arrived(relay, how, len(MAILS))
            for n in signed:
                header, body = got[n].split(b"\r\n\r\n", 1)
                assert re.search(rb"bh=([^;]+);", header)[1] == corpus.body_hash(body), MAILS[n][0]
    assert len(signed) == 32


def test_from_programs(daemon, relays):
    """By sendmail, which adds the fields that are missing: at the beginning, and at the header section's end."""
    chosen = [n for n, (name, _) in enumerate(MAILS) if name.split("/")[0] in ("edge", "bounce", "cron", "program", "mutt", "dkim")]
    by_sendmail(daemon, chosen)
    wrong = {}
    for n, got in arrived(relays["data"], "prog", len(chosen)).items():
        name, sent = MAILS[n]
        header, rest = changed(sent, sendmail=True)
        got = without_received(got)
        at = got.find(header) if header else len(got) - len(rest)
        left = got[:at], got[at + len(header):len(got) - len(rest)]
        if at < 0 or not got.endswith(rest) or ADDED.sub(b"", left[0]) or ADDED.sub(b"", left[1]):
            wrong[name] = difference(header + rest, got)
    assert not wrong, (len(wrong), list(wrong.items())[:12])
