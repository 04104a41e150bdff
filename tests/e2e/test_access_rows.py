"""Actions of access(5) about a whole message: what is on hold stays so, what is discarded is nowhere, what cannot be done is refused."""
import re

import pytest
from kit import FakeRelay, Posthouse, wait_for

ROWS = {
    "hold": "HOLD", "discard": "DISCARD", "other": "REDIRECT other@far.example", "copy": "BCC copy@far.example",
    "field": "PREPEND X-Row: seen", "filter": "FILTER smtp:[127.0.0.1]:10026", "nowhere": "REDIRECT far.example", "no-copy": "BCC copy",
    "no-field": "PREPEND nothing", "odd-field": "PREPEND X Row: seen", "bare": "PREPEND", "table": "check_client_access static:OK",
    "unknown": "permit_nobody", "behind": "permit_sasl_authenticated, permit_nobody", "unread": "reject_rbl_client dnsbl.example",
    "service": "check_policy_service inet:127.0.0.1:9", "passes": "permit_sasl_authenticated", "comma": "permit_mynetworks,"}
REFUSED = {"nowhere", "no-copy", "no-field", "odd-field", "bare", "table", "unknown", "behind", "unread", "service"}
INNER = {"table", "unknown", "behind", "unread", "service"}
MAIN = "relayhost = [127.0.0.1]:{port}\nsmtpd_sender_restrictions = check_sender_access texthash:{{dir}}/rows\n"
FILES = {"rows": "".join(f"{name}@x.example {row}\n" for name, row in ROWS.items())}


@pytest.fixture
def relay():
    with FakeRelay() as r:
        yield r


@pytest.fixture
def place(dns, relay):
    with Posthouse(MAIN.format(port=relay.port), files=FILES, dns=dns) as p:
        yield p


def test_what_cannot_be_done_is_refused_by_name(place):
    """The log names the row; a message is never taken without what its row asks for."""
    for name in ROWS:
        reply = place.send(sender=f"{name}@x.example")
        assert reply.startswith("451 4.3.5 Server configuration error" if name in REFUSED else "250 "), (name, reply)
        if name in REFUSED:
            word = re.escape(ROWS[name].split(", ")[-1].split(" ")[0])
            place.wait_log(rf'"{word}" cannot be asked for' if name in INNER else rf'rows: entry "{name}@x.example"')
    said = place.run("check").stdout
    for name in ROWS:
        assert (f'"{name}@x.example" -> ' in said) == (name in INNER), (name, said)


def test_what_is_on_hold_stays_so(place, relay):
    """The client has its 250: neither a kill nor a restart sends the mail, and a release does."""
    qid = place.send(sender="hold@x.example", content="Subject: held\r\n\r\n" + "line\r\n" * 100).split()[-1]
    assert [(m["queue_id"], m["queue_name"]) for m in place.queue()] == [(qid, "hold")]
    place.kill()
    place.start()
    place.send(sender="plain@x.example")
    relay.wait_mails(1)
    assert [(m["queue_id"], m["queue_name"]) for m in place.queue()] == [(qid, "hold")]
    place.run("queue", "release", qid, check=True)
    relay.wait_mails(2)
    wait_for(lambda: place.queue() == [])
    assert b"Subject: held" in relay.mails[1]["content"]
    place.kill()
    place.start()
    assert place.queue() == []


def test_a_release_outlives_a_restart(place, relay):
    qid = place.send(sender="hold@x.example").split()[-1]
    relay.replies = {"RCPT": "451 4.2.1 later"}
    place.run("queue", "release", qid, check=True)
    place.wait_log("status=deferred")
    place.kill()
    place.start()
    wait_for(lambda: [m["queue_name"] for m in place.queue()] == ["deferred"])


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_what_is_discarded_is_nowhere(place, relay, size):
    """It is taken like any mail, with DATA and with BDAT; the log says what became of it."""
    line = b"x" * 72 + b"\r\n"
    content = b"Subject: x\r\n\r\n" + line * (size // len(line) + 1)
    assert place.send(sender="discard@x.example", content=content.decode()).startswith("250 2.0.0 Ok: queued as ")
    with place.client() as c:
        c.cmd("MAIL FROM:<discard@x.example>")
        c.cmd("RCPT TO:<b@y.example>")
        c.raw(b"BDAT %d\r\n" % len(content) + content)
        assert c.reply().startswith("250 ")
        assert c.cmd("BDAT 0 LAST").startswith("250 2.0.0 Ok: queued as ")
        assert c.mail("plain@x.example").startswith("250 ")
    relay.wait_mails(1)
    wait_for(lambda: place.queue() == [])
    assert relay.mails[0]["from"] == "MAIL FROM:<plain@x.example>"
    assert len(re.findall("discard: RCPT from .*: <discard@x.example>: Sender address triggers DISCARD action; ", place.log())) == 2


def test_one_transaction_is_nothing_to_the_next(place, relay):
    with place.client() as c:
        for name in ("hold", "discard", "other", "copy", "field"):
            c.cmd(f"MAIL FROM:<{name}@x.example>")
            assert c.cmd("RCPT TO:<b@y.example>").startswith("250")
            c.cmd("RSET")
        assert c.mail("plain@x.example").startswith("250 ")
    relay.wait_mails(1)
    wait_for(lambda: place.queue() == [])
    assert relay.mails[0]["rcpts"] == ["RCPT TO:<b@y.example>"] and b"X-Row" not in relay.mails[0]["content"]
