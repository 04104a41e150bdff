"""Delivery into Dovecot's mailboxes by LMTP, by Debian's Postfix and by Posthouse: the same mail, log lines and reports."""
import re

import pytest

import pair
from kit import Client, wait_for
from mailboxes import Mailboxes

MAIN = """mydestination =
virtual_mailbox_domains = box.test
virtual_transport = {hop}
relayhost = [127.0.0.1]:9
recipient_delimiter = +
lmtp_tcp_port = 24
"""
LMTP = "lmtp unix - - n - - lmtp\ndovecot unix - - n - - lmtp\n"
USERS = {"ann@box.test": None, "joe.x@box.test": None, "small@box.test": 3000}
LONG = "Subject: long\r\n\r\n.\r\n..x\r\n" + "y" * 998 + "\r\n" + "".join(f"line {k}\r\n" for k in range(20000))
MAILS = {
    "one": (["ann@box.test"], "Subject: one\r\n\r\nhello\r\n"),
    "another box": (["ann+lists@box.test"], "Subject: two\r\n\r\nhello\r\n"),
    "several": (["ann@box.test", "Joe.X@box.test", "ANN@box.test", "ann+x@box.test"], "Subject: three\r\n\r\n.\r\n"),
    "nobody": (["nobody@box.test"], "Subject: four\r\n\r\nx\r\n"),
    "one of them is nobody": (["ann@box.test", "nobody@box.test", "Joe.X@box.test"], "Subject: five\r\n\r\nx\r\n"),
    "one of them is full": (["ann@box.test", "small@box.test", "Joe.X@box.test"], "Subject: six\r\n\r\n" + "full\r\n" * 1000),
    "long": (["ann@box.test", "Joe.X@box.test"], LONG),
    "odd": (['"a b"@box.test', "ann@box.test"], "no header\r\n"),
    "nothing": (["ann@box.test"], ""),
}


@pytest.fixture(scope="module")
def boxes():
    server = Mailboxes(USERS)
    yield server
    server.stop()


def flows(mta, boxes, hop):
    """What the log says of each mail, and what the mailboxes have then: Dovecot's session identifiers and the mails' own are left out."""
    boxes.empty()
    mta.case(MAIN.replace("{hop}", hop), {}, LMTP)
    said = {}
    try:
        for name, (rcpts, content) in MAILS.items():
            before = len(pair.outcomes(mta.new_log()))
            with Client(mta.port) as c:
                queued = c.mail("", rcpts, content)
            wait_for(lambda: f"{queued.split()[-1]}: removed" in mta.new_log())
            said[name] = sorted((*o[:4], re.sub(r"> \S+ Saved", "> Saved", o[4])) for o in pair.outcomes(mta.new_log())[before:])
        return said, boxes.saved()
    finally:
        mta.over()


@pytest.mark.parametrize("kind", ["a port", "a socket", "a transport of its own"])
def test_dovecots_mailboxes(name_server, postfix, boxes, kind):
    hop = {"a port": f"lmtp:inet:127.0.0.1:{boxes.port}", "a socket": f"lmtp:unix:{boxes.socket}",
           "a transport of its own": f"dovecot:unix:{boxes.socket}"}[kind]
    theirs, ours = (flows(mta, boxes, hop) for mta in (postfix, pair.Ours(name_server)))
    for name in MAILS:
        assert ours[0][name] == theirs[0][name], name
    assert ours[1].keys() == theirs[1].keys()
    for box in theirs[1]:
        assert ours[1][box] == theirs[1][box], box


@pytest.mark.parametrize("hop", ["lmtp:inet:127.0.0.1:{port}", "lmtp:unix:{path}"])
def test_dovecot_is_away_for_a_moment(name_server, postfix, boxes, hop):
    """What waits is said alike, and then it is delivered once."""
    hop, said = hop.format(port=boxes.port, path=boxes.socket), []
    for mta in (postfix, pair.Ours(name_server)):
        boxes.empty()
        boxes.down()
        mta.case(MAIN.replace("{hop}", hop) + "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n", {}, LMTP)
        try:
            with Client(mta.port) as c:
                queued = c.mail("", ["ann@box.test", "Joe.X@box.test"], "Subject: x\r\n\r\nhello\r\n").split()[-1]
            wait_for(lambda: len(pair.outcomes(mta.new_log())) >= 2)
            said.append(sorted(pair.outcomes(mta.new_log())[:2]))
            boxes.up()
            wait_for(lambda: f"{queued}: removed" in mta.new_log())
        finally:
            mta.over()
        assert {name: len(mails) for name, mails in boxes.saved().items()} == {"ann@box.test": 1, "joe.x@box.test": 1}
    assert said[1] == said[0]
