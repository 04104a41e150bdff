"""Random tables of virtual(5), of copies and of aliases(5): what Debian's Postfix makes of recipients, and what Posthouse does.

More of them by hand: VIRTUAL_SEED=1000 VIRTUAL=200 python3 -m pytest tests/compat/test_random_virtual.py
"""
import os
import random
import re

import pytest

import pair
from kit import Client, FakeRelay, wait_for
from test_virtual import ORIGINALS, report_of

FIRST, MANY = int(os.environ.get("VIRTUAL_SEED", "1")), int(os.environ.get("VIRTUAL", "10"))
DOMAINS = ["alias.test", "box.test", "rel.test", "far.test", "own.test", "mta.example"]
LOCALS = ["ann", "bob", "cat", "dan", "eve", "list", "ann+x", "bob+y", "list-request", "owner-list", "postmaster", "Ann", "BOB", "dan-z"]
MAIN = """mydestination = own.test, mta.example
virtual_alias_domains = alias.test
virtual_mailbox_domains = box.test
virtual_transport = smtp:[127.0.0.1]:{port}
local_transport = smtp:[127.0.0.1]:{port}
relay_transport = smtp:[127.0.0.1]:{port}
relayhost = [127.0.0.1]:{port}
relay_domains = rel.test
mydomain = dom.test
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
notify_classes =
virtual_alias_maps = hash:{{dir}}/virtual
"""
NOTIFY = [""] * 6 + ["NOTIFY=SUCCESS", "NOTIFY=SUCCESS,FAILURE", "NOTIFY=DELAY", "ORCPT=rfc822;first@x.test",
                     "NOTIFY=SUCCESS ORCPT=rfc822;other@x.test"]


def address(r):
    return f"{r.choice(LOCALS)}@{r.choice(DOMAINS)}"


def key(r):
    return r.choice([address(r)] * 8 + [r.choice(LOCALS), r.choice(LOCALS), f"@{r.choice(DOMAINS)}"])


def one(r, name):
    """An address in the value of a row; often the row's own."""
    own = name if "@" in name[1:] else address(r)
    local, _, domain = own.partition("@")
    return r.choice([address(r)] * 8 + [own] * 3 + [
        own.upper(), own.title(), f"{local}+new@{domain}", f"x{local}@{domain}", r.choice(LOCALS), f"{r.choice(LOCALS)}@host",
        f'"{local}"@{domain}', f'"{local} b"@{domain}', f"Name <{own}>", f"(said) {own}",
        "y" * r.choice([20, 51, 52, 53, 60]) + "@far.test",
        f"end{r.randrange(9)}@far.test", f"end{r.randrange(9)}@far.test", f"{local}@{domain}.",
        f"<{own}>", f"friends: {own};"])


def value(r, name):
    if r.random() < 0.1:
        return f"@{r.choice(DOMAINS)}"
    if r.random() < 0.2:
        return " ".join(address(r) for _ in range(r.randrange(1, 5)))
    return r.choice([", ", ","]).join(one(r, name) for _ in range(r.choice([1, 1, 1, 2, 2, 3, 4, 7])))


def chain(r):
    """Aliases of aliases."""
    names = [f"chain{i}@{r.choice(DOMAINS)}" for i in range(r.randrange(2, 12))] + [one(r, "ann@box.test")]
    return {a: ", ".join([b, *[address(r)] * r.randrange(2)]) for a, b in zip(names, names[1:])}


def make(seed):
    """Settings, files, and mails: sender and recipients, each with its parameters."""
    r = random.Random(seed)
    rows = {k: value(r, k) for k in (key(r) for _ in range(r.randrange(2, 30)))}
    if r.random() < 0.5:
        rows |= chain(r)
    some = lambda p, line: line + "\n" if r.random() < p else ""
    main = some(0.8, f"recipient_delimiter = {r.choice(['+', '+', '+-', '-'])}")
    main += some(0.3, f"virtual_alias_recursion_limit = {r.choice([1, 2, 5, 10])}")
    main += some(0.3, f"virtual_alias_expansion_limit = {r.choice([1, 2, 5, 10, 20])}")
    main += some(0.6, "virtual_alias_address_length_limit = 60")
    main += some(0.5, "enable_original_recipient = yes")
    main += some(0.3, f"propagate_unmatched_extensions = {r.choice(['', 'canonical', 'virtual, alias'])}")
    main += some(0.3, "append_dot_mydomain = no")
    main += some(0.2, f"myorigin = {r.choice(['own.test', 'far.test'])}")
    main += some(0.2, "owner_request_special = no")
    main += some(0.2, f"always_bcc = {one(r, address(r))}")
    if r.random() < 0.3:
        main += "sender_bcc_maps = hash:{{dir}}/senders\n"
    if r.random() < 0.3:
        main += "recipient_bcc_maps = hash:{{dir}}/rcpts\n"
    text = lambda rows: "".join(f"{k} {v}\n" for k, v in rows.items())
    senders = ["s1@from.test", "@from.test", "ann@box.test", "s2"]
    files = {"virtual": text(rows | {"alias.test": "x"}),
             "senders": text({r.choice(senders): address(r) for _ in range(3)}),
             "rcpts": text({key(r): address(r) for _ in range(8)})}
    known = [k for k in rows if "@" in k[1:]] or ["ann@alias.test"]
    named = lambda: r.choice(known) if r.random() < 0.7 else address(r)
    several = lambda: {a.lower(): a for a in (named() for _ in range(r.choice([1, 1, 2, 3])))}.values()
    mails = [(f"s{n}@from.test", [f"{a} {r.choice(NOTIFY)}".strip() for a in several()]) for n in range(12)]
    return MAIN + main, files, mails


def flows(mta, relay, main, files, mails):
    relay.sessions.clear()
    mta.case(main.format(port=relay.port, dir="{dir}").replace("{{dir}}", "{dir}"), files, "")
    said, qids = [], []
    try:
        for n, (sender, rcpts) in enumerate(mails):
            with Client(mta.port) as c:
                c.cmd(f"MAIL FROM:<{sender}> ENVID={n}")
                replies = [c.cmd(f"RCPT TO:<{rcpt.split()[0]}> {' '.join(rcpt.split()[1:])}".strip()) for rcpt in rcpts]
                if any(reply.startswith("250") for reply in replies):
                    c.cmd("DATA")
                    replies.append(c.cmd("Subject: x\r\n\r\nhello\r\n."))
            if len(replies) > len(rcpts) and replies[-1].startswith("250"):
                qids.append(replies[-1].split()[-1])
                replies[-1] = "250"
            said.append(replies)
        wait_for(lambda: all(f"{qid}: removed" in mta.new_log() for qid in qids))
        active = lambda what: set(re.findall(rf": (\w+): {what}", mta.new_log()))
        wait_for(lambda: active("from=<") <= active("removed"))
        log = mta.new_log()
    finally:
        mta.over()
    sent = sorted((pair.plain(m["from"]), sorted(map(pair.plain, m["rcpts"])), report_of(m)) for m in relay.mails)
    return said, sorted(ORIGINALS.findall(log)), sorted(pair.outcomes(log)), sent


@pytest.fixture(scope="module")
def relay():
    with FakeRelay() as r:
        yield r


@pytest.mark.parametrize("seed", range(FIRST, FIRST + MANY))
def test_random_aliases(name_server, postfix, relay, seed):
    main, files, mails = make(seed)
    theirs, ours = (flows(mta, relay, main, files, mails) for mta in (postfix, pair.Ours(name_server)))
    what = "\n".join([main, files["virtual"], *map(repr, mails)])
    for their, our, mail in zip(theirs[0], ours[0], mails):
        assert our == their, f"{mail}\n{what}"
    assert ours[1] == theirs[1], what
    assert ours[2] == theirs[2], what
    assert ours[3] == theirs[3], what
