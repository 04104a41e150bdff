"""virtual_alias_maps: what Debian's Postfix and Posthouse make of recipients, at RCPT, in the log, at the next hop and in reports."""
import re
import subprocess

import pytest

import pair
from kit import Client, FakeRelay, wait_for

RELAY = "127.0.2.7"
MAIN = """mydestination = own.test, localhost
virtual_alias_domains = alias.test
virtual_mailbox_domains = box.test
virtual_transport = smtp:[{relay}]
local_transport = smtp:[{relay}]
relayhost = [{relay}]
relay_domains = rel.test
recipient_delimiter = +
append_dot_mydomain = yes
mydomain = dom.test
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
notify_classes =
virtual_alias_maps = hash:{{dir}}/virtual
virtual_alias_expansion_limit = 20
virtual_alias_recursion_limit = 12
virtual_alias_address_length_limit = 100
"""
ROWS = {
    "one@alias.test": "ann@far.test",
    "two@alias.test": "ann@far.test, bob@far.test",
    "same@box.test": "same@box.test",
    "forward@box.test": "forward@box.test, copy@far.test",
    "Case@box.test": "upper@far.test",
    "ext+x@box.test": "whole@far.test",
    "ext@box.test": "bare@far.test",
    "catch@catch.alias.test": "a@b.test",
    "@rel.test": "@other.test",
    "@whole.test": "all@far.test",
    "plain": "user@far.test",
    "nodomain@alias.test": "someone",
    "nodot@alias.test": "someone@host",
    "chain1@alias.test": "chain2@alias.test",
    "chain2@alias.test": "chain3@alias.test, side@far.test",
    "chain3@alias.test": "end@far.test",
    "loop1@alias.test": "loop2@alias.test",
    "loop2@alias.test": "loop1@alias.test",
    "grow@alias.test": "x.grow@grow.test",
    "@grow.test": "more@more.test",
    "many@alias.test": ", ".join(f"m{i}@far.test" for i in range(20)),
    "toomany@alias.test": ", ".join(f"m{i}@far.test" for i in range(22)),
    "long@alias.test": "x" * 100 + "@far.test",
    "quoted@alias.test": '"a b"@far.test',
    "names@alias.test": "Ann Name <ann@far.test>, (comment) bob@far.test",
    "group@alias.test": "friends: ann@far.test, bob@far.test;",
    "nothing@alias.test": ",",
    "dup@alias.test": "ann@far.test, ANN@far.test, ann@far.test",
    "self@alias.test": "SELF@alias.test, other@far.test",
    "local@own.test": "ann@far.test",
    "root": "admin@far.test",
    "list@alias.test": "one@alias.test, two@alias.test, forward@box.test",
    "unknownend@alias.test": "nobody@alias.test",
    "twin@box.test": "twin@box.test, TWIN@box.test, other@far.test",
}
# Name: recipients, each with what follows RCPT TO:<…>.
CASES = {
    **{local: [f"{local}@alias.test"] for local in ("one", "two", "nodomain", "nodot", "chain1", "loop1", "grow", "many", "toomany", "long",
                                                    "quoted", "names", "group", "nothing", "dup", "self", "list", "unknownend", "nobody")},
    "same": ["same@box.test"], "forward": ["forward@box.test"], "case": ["cASE@BOX.test"], "other box": ["else@box.test"],
    "extension": ["ext+x@box.test"], "other extension": ["ext+y@box.test"], "extension of a copy": ["forward+z@box.test"],
    "a whole domain": ["user@rel.test"], "with an extension": ["user+e@rel.test"], "all of a domain": ["any@whole.test"],
    "a local name": ["plain@own.test"], "with extension, local": ["plain+f@own.test"], "a local name elsewhere": ["plain@box.test"],
    "local": ["local@own.test"], "root": ["root@own.test"], "no alias": ["nosuch@far.test"], "at myorigin": ["plain@mta.example"],
    "several": ["one@alias.test", "two@alias.test", "ann@far.test", "else@box.test"],
    "success": ["two@alias.test NOTIFY=SUCCESS"], "both": ["two@alias.test NOTIFY=SUCCESS,FAILURE", "else@box.test NOTIFY=SUCCESS"],
    "never": ["two@alias.test NOTIFY=NEVER"], "delay": ["one@alias.test NOTIFY=DELAY ORCPT=rfc822;first+40x.test"],
    "orcpt": ["two@alias.test ORCPT=rfc822;first+40x.test", "one@alias.test"],
    "an own address, by two roads": ["forward@box.test NOTIFY=DELAY", "to-forward@box.test NOTIFY=FAILURE"],
    "an own address, with other wishes": ["forward@box.test NOTIFY=NEVER ORCPT=rfc822;a@x.test", "forward@box.test"],
    "an own address in two cases": ["twin@box.test"],
    "a bounce of two": ["one@alias.test NOTIFY=FAILURE", "refused@alias.test"],
}
ROWS["to-forward@box.test"] = "forward@box.test"
ROWS["refused@alias.test"] = "refused@far.test, ann@far.test"
TABLE = {"virtual": "".join(f"{k} {v}\n" for k, v in ROWS.items()) + "alias.test x\n"}
SETTINGS = {
    "as it is": "", "with originals": "enable_original_recipient = yes\n", "no extensions": "propagate_unmatched_extensions =\n",
    "no mappings": "receive_override_options = no_address_mappings\n", "no dot": "append_dot_mydomain = no\n",
    "a table that fails": "virtual_alias_maps = hash:{dir}/virtual, fail:it\n",
    "classes by the table": "virtual_alias_domains = $virtual_alias_maps\n",
}


ORIGINALS = re.compile(r"to=<([^>]*)>, orig_to=<([^>]*)>")


class Reports(FakeRelay):
    """Refuses one recipient, and keeps what comes for senders."""

    def __init__(self):
        super().__init__(RELAY, 25, replies={"RCPT": lambda line: "550 5.1.1 no" if "<refused@" in line else None})


def report_of(mail):
    """The recipients' part of a report, without names that differ."""
    text = mail["content"].decode()
    part = text.partition("Content-Type: message/")[2].partition("\r\n\r\n")[2].partition("\r\n--")[0]
    groups = [[line for line in group.split("\r\n") if line.startswith(("Original-", "Final-R", "Action", "Status"))]
              for group in part.split("\r\n\r\n")]
    return sorted(group for group in groups if group)


def flows(mta, relay, settings):
    relay.sessions.clear()
    mta.case(MAIN.replace("{relay}", RELAY).format(dir="{dir}") + settings,
             TABLE, "")
    said = {}
    try:
        for name, rcpts in CASES.items():
            before = len(pair.outcomes(mta.new_log()))
            with Client(mta.port) as c:
                c.cmd(f"MAIL FROM:<sender-{len(said)}@from.test> ENVID={len(said)}")
                replies = [c.cmd(f"RCPT TO:<{r.split()[0]}> {' '.join(r.split()[1:])}".strip()) for r in rcpts]
                if any(r.startswith("250") for r in replies):
                    c.cmd("DATA")
                    replies.append(c.cmd("Subject: x\r\n\r\nhello\r\n."))
            qid = replies[-1].split()[-1]
            if replies[-1].startswith("250"):
                wait_for(lambda: f"{qid}: removed" in mta.new_log())
                replies[-1] = "250"
            log = mta.new_log()
            said[name] = (replies, sorted(o for o in pair.outcomes(log)[before:] if "sender-" not in o[0]),
                          sorted(set(ORIGINALS.findall(log))))
        active = lambda what: set(re.findall(rf": (\w+): {what}", mta.new_log()))
        reports = lambda: set(re.findall(r"notification: (\w+)", mta.new_log()))
        wait_for(lambda: active("from=<") | reports() == active("removed"))
    finally:
        mta.over()
    sent = sorted((pair.plain(m["from"]), sorted(map(pair.plain, m["rcpts"])), report_of(m)) for m in relay.mails)
    return said, sent


@pytest.fixture(scope="module")
def relay():
    r = Reports()
    yield r
    r.stop()


@pytest.mark.parametrize("name", SETTINGS)
def test_virtual_aliases(name_server, postfix, relay, name):
    theirs, ours = (flows(mta, relay, SETTINGS[name]) for mta in (postfix, pair.Ours(name_server)))
    for case in CASES:
        assert ours[0][case] == theirs[0][case], case
    assert ours[1] == theirs[1]


@pytest.mark.parametrize("sender", ["two@alias.test", "forward@box.test", "chain1@alias.test"])
def test_reports_go_to_what_the_sender_stands_for(name_server, postfix, relay, sender):
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        relay.sessions.clear()
        mta.case(MAIN.replace("{relay}", RELAY).format(dir="{dir}"), TABLE, "")
        try:
            with Client(mta.port) as c:
                assert c.mail(sender, ["refused@far.test", "fine@far.test"]).startswith("250")
            wait_for(lambda: mta.new_log().count(": removed") == 2)
            seen.append((sorted((m["from"].split()[1], *sorted(map(pair.plain, m["rcpts"]))) for m in relay.mails),
                         sorted(set(ORIGINALS.findall(mta.new_log())))))
        finally:
            mta.over()
    assert seen[1] == seen[0]


LOCAL = """mydestination = own.test, mta.example
virtual_alias_domains = alias.test
virtual_mailbox_domains = box.test
virtual_transport = smtp:[{relay}]
relayhost = [{relay}]
notify_classes =
alias_maps = {maps}
enable_original_recipient = yes
virtual_alias_maps = inline:{{{{ {{{{admin@alias.test=bob@far.test,cat@far.test}}}}, {{{{boss@box.test=boss2@far.test}}}},
  {{{{twice@box.test=end@far.test}}}}, {{{{again@box.test=end@far.test}}}}, {{{{alias.test=x}}}} }}}}
"""
ALIASES = """root: admin@alias.test
mix: boss@box.test, plain@far.test, boss2@far.test
twice: twice@box.test, again@box.test
team: admin@alias.test
owner-team: boss@box.test
outer: team, boss@box.test, bob@far.test
gone: nosuch@alias.test
"""


def test_what_aliases_lead_to_stands_for_others(name_server, postfix, relay, tmp_path_factory):
    """local(8) gives what it forwards to cleanup(8): the addresses of aliases(5) may be aliases of virtual(5)."""
    d, seen = tmp_path_factory.mktemp("aliases"), []
    d.chmod(0o755)
    (d / "aliases").write_text(ALIASES)
    subprocess.run([*pair.INSIDE, "postalias", f"hash:{d}/aliases"], check=True)
    for mta, master in ((postfix, ""), (pair.Ours(name_server), "local unix - n n - - local\n")):
        relay.sessions.clear()
        mta.case(LOCAL.format(relay=RELAY, maps=f"hash:{d}/aliases"), {}, master)
        try:
            for i, name in enumerate(["root", "mix", "twice", "team", "outer", "gone"]):
                with Client(mta.port) as c:
                    assert c.mail(f"s{i}@from.test", [f"{name}@own.test"]).startswith("250")
            wait_for(lambda: len(relay.mails) == 7)  # the list in a list has its own; one is a report
            active = lambda what: set(re.findall(rf": (\w+): {what}", mta.new_log()))
            wait_for(lambda: active("from=<") == active("removed"))
            seen.append(sorted((pair.plain(m["from"]), sorted(map(pair.plain, m["rcpts"])), report_of(m)) for m in relay.mails))
            seen[-1].append(sorted(set(ORIGINALS.findall(mta.new_log()))))
        finally:
            mta.over()
    assert seen[1] == seen[0]
