"""What Debian's Postfix and Posthouse make of the content of each mail of tests/corpus.py: the same, but for Received:."""
import re

import pytest
from corpus import MAIN, RECEIVED, difference
from kit import Client, FakeRelay

import corpus
import pair

MAILS = corpus.mails()
CONFIG = MAIN + "relayhost = [127.0.0.1]:{port}\nsmtp_destination_recipient_limit = 1\n"


@pytest.fixture(scope="module")
def name_server(tmp_path_factory):
    d = tmp_path_factory.mktemp("dns")
    d.chmod(0o755)
    server = pair.NameServer(d, [])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def outputs(name_server):
    """{name: content without Received:} of each product, and of each way in."""
    postfix, seen = pair.Postfix(name_server), []
    try:
        for mta in (postfix, pair.Ours(name_server)):
            with FakeRelay() as relay:
                mta.case(CONFIG.format(port=relay.port), {}, "")
                try:
                    seen.append(give(mta, relay))
                finally:
                    mta.over()
    finally:
        postfix.stop()
    return seen


def give(mta, relay):
    with Client(mta.port) as c:
        for n, (_, content) in enumerate(MAILS):
            c.raw(f"MAIL FROM:<a@x.test>\r\nRCPT TO:<n{n}@y.test>\r\n")
            assert c.reply().startswith("250") and c.reply().startswith("250")
            assert c.cmd("DATA").startswith("354")
            text = re.sub(rb"\r*\n\Z|(?<=[^\n])\Z", b"\r\n", content, count=1)
            c.raw(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
            reply = c.reply()
            assert reply.startswith("250"), (n, reply)
    mails = {m["rcpts"][0].split("<n")[1].split("@")[0]: m["content"] for m in relay.wait_mails(len(MAILS), 60)}
    return {name: RECEIVED.sub(b"", mails[str(n)], count=1) for n, (name, _) in enumerate(MAILS)}


def without_blanks(content):
    """docs/differences.md: "a blank between a field's name and its colon"."""
    header, end, body = content.partition(b"\r\n\r\n")
    return re.sub(rb"(?m)^([!-9;-~]+)[ \t]+:", rb"\1:", header) + end + body


def test_content_like_postfix(outputs):
    theirs, ours = outputs
    assert len(theirs) > 500
    different = {n: difference(theirs[n], ours[n]) for n in theirs if without_blanks(ours[n]) != theirs[n]}
    assert not different, (len(different), list(different.items())[:12])
