"""always_bcc, sender_bcc_maps, recipient_bcc_maps: who gets a copy from Debian's Postfix and from Posthouse, and what its sender hears."""
import re

import pytest

import pair
from kit import Client, FakeRelay, wait_for

RELAY = "127.0.0.98"
MAIN = """mydestination = own.test
virtual_alias_domains = alias.test
local_transport = smtp:[{relay}]
relayhost = [{relay}]
recipient_delimiter = +
mydomain = dom.test
notify_classes =
virtual_alias_maps = inline:{{ {{copies@alias.test=one@far.test,two@far.test}},
  {{list@alias.test=a@far.test,b@far.test}}, {{alias.test=x}} }}
"""
SENDERS = ("inline:{{ {{ann@from.test=ann-copy@far.test}}, {{@bob.test=bob-copy}}, "
           "{{self@from.test=copies@alias.test}}, {{two@from.test=p@far.test, q@far.test}} }}")
RCPTS = ("inline:{{ {{r1@far.test=r1-copy@far.test}}, {{local=local-copy@far.test}}, "
         "{{list@alias.test=list-copy@far.test}}, {{a@far.test=not-asked@far.test}} }}")
SETTINGS = {
    "none": "", "always": "always_bcc = archive@far.test\n", "always, an alias": "always_bcc = copies@alias.test\n",
    "always, no domain": "always_bcc = archive\n",
    "senders": f"sender_bcc_maps = {SENDERS}\n", "recipients": f"recipient_bcc_maps = {RCPTS}\n",
    "all": f"always_bcc = archive@far.test\nsender_bcc_maps = {SENDERS}\nrecipient_bcc_maps = {RCPTS}\n",
    "originals": f"enable_original_recipient = yes\nalways_bcc = r1@far.test\nrecipient_bcc_maps = {RCPTS}\n",
    "no mappings": f"receive_override_options = no_address_mappings\nalways_bcc = archive@far.test\nsender_bcc_maps = {SENDERS}\n",
    "a table that fails": "sender_bcc_maps = fail:it\n", "another that fails": "recipient_bcc_maps = fail:it\n",
    "refused": "always_bcc = refused@far.test\n",
}
MAILS = [("ann@from.test", ["r1@far.test"]), ("ann+x@from.test", ["r1+y@far.test", "r2@far.test"]), ("any@bob.test", ["local@own.test"]),
         ("", ["r1@far.test"]), ("self@from.test", ["list@alias.test", "r1@far.test"]), ("two@from.test", ["a@far.test"]),
         ("plain@from.test", ["r1@far.test NOTIFY=SUCCESS", "archive@far.test", "R1@far.test"])]


@pytest.fixture(scope="module")
def relay():
    r = FakeRelay(RELAY, 25, replies={"RCPT": lambda line: "550 5.1.1 no" if "<refused@" in line else None})
    yield r
    r.stop()


def flows(mta, relay, settings):
    relay.sessions.clear()
    mta.case((MAIN + settings).replace("{relay}", RELAY), {}, "")
    said = []
    try:
        for sender, rcpts in MAILS:
            with Client(mta.port) as c:
                c.cmd(f"MAIL FROM:<{sender}>")
                replies = [c.cmd(f"RCPT TO:<{r.split()[0]}> {' '.join(r.split()[1:])}".strip()) for r in rcpts]
                c.cmd("DATA")
                replies.append(c.cmd("Subject: x\r\n\r\nhello\r\n."))
            said.append(replies)
            if replies[-1].startswith("250"):
                wait_for(lambda: f"{replies[-1].split()[-1]}: removed" in mta.new_log())
                named = lambda what: set(re.findall(what, mta.new_log()))
                wait_for(lambda: named(r": (\w+): from=<") | named(r"notification: (\w+)") ==
                         named(r": (\w+): removed"))
                replies[-1] = "250"
        outcomes = sorted(pair.outcomes(mta.new_log()))
    finally:
        mta.over()
    return said, outcomes, sorted((pair.plain(m["from"]), *sorted(map(pair.plain, m["rcpts"]))) for m in relay.mails)


@pytest.mark.parametrize("name", SETTINGS)
def test_copies(name_server, postfix, relay, name):
    theirs, ours = (flows(mta, relay, SETTINGS[name]) for mta in (postfix, pair.Ours(name_server)))
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]
