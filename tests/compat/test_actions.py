"""Actions of access(5) beyond yes and no, said by rows of access tables and by policy services: Debian's Postfix and Posthouse."""
import collections
import re

import pytest
from kit import Client, FakeRelay, wait_for

import pair
from test_policy import Service

RELAY = "127.0.0.97"
ACTIONS = {
    "dunno": "DUNNO", "hold": "HOLD", "hold-text": "HOLD look at it", "discard": "DISCARD", "discard-text": "discard not wanted",
    "redirect": "REDIRECT other@far.test", "redirect-list": "REDIRECT list@alias.test", "bcc": "BCC copy@far.test",
    "bcc-list": "BCC list@alias.test", "bcc-gone": "BCC gone@far.test", "prepend": "PREPEND X-Row: seen",
    "prepend-odd": "PREPEND X-Row:no blank", "prepend-tab": "PREPEND X-Row:\tone\ttwo", "prepend-dot": "PREPEND .Row: stuffed",
    "prepend-dropped": "PREPEND Bcc: secret@far.test", "redirect-blank": "REDIRECT other@far.test \t", "info": "INFO read this",
    "info-bare": "INFO", "warn": "WARN be careful", "warn-bare": "warn",
    "permit-later": "DEFER_IF_PERMIT come again", "permit-bare": "DEFER_IF_PERMIT", "permit-coded": "DEFER_IF_PERMIT 4.2.0 wait",
    "reject-later": "DEFER_IF_REJECT come again", "reject-coded": "DEFER_IF_REJECT 4.2.0 wait",
    "relay": "RELAY", "restriction": "reject", "words": "permit_sasl_authenticated, reject", "opens": "permit_mynetworks, reject",
    "passes": "permit_sasl_authenticated", "warned": "warn_if_reject reject", "unknown": "no_such_thing", "unknown-behind":
    "permit_sasl_authenticated no_such_thing", "closed": "reject_unauth_destination", "table": "check_sender_access static:REJECT",
    "reject": "REJECT", "code": "550 5.7.1 never"}
# Of the sender, and of a recipient.
PAIRS = [("bcc", "prepend"), ("bcc", "bcc-list"), ("bcc-gone", "dunno"), ("redirect", "redirect-list"), ("redirect", "bcc"),
         ("hold", "redirect"), ("discard", "hold"),
         ("hold", "reject"), ("bcc", "discard"), ("permit-later", "reject"), ("reject-later", "reject"), ("permit-later", "reject-later"),
         ("reject-later", "closed"), ("discard", "reject"), ("redirect", "code"), ("bcc", "unknown"), ("info", "hold")]
MAIN = f"""mydestination =
relay_domains = far.test, rel.test
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{{{{ {{{{list@alias.test=one@far.test,two@far.test}}}}, {{{{alias.test=x}}}} }}}}
relayhost = [{RELAY}]
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
notify_classes =
senders = hash:{{dir}}/senders
names = hash:{{dir}}/names
rcpts = hash:{{dir}}/rcpts
"""


def rows(key):
    return "".join(f"{key.format(word)} {action}\n" for word, action in ACTIONS.items())


FILES = {"senders": rows("{}@x.test"), "names": rows("{}.test"), "rcpts": rows("{}@rel.test")}


def overrides(server):
    sender, name, rcpt = "check_sender_access $senders", "check_helo_access $names", "check_recipient_access $rcpts"
    policy = f"check_policy_service {server}"
    return {
        "sender": [f"smtpd_sender_restrictions = {sender}"], "helo": [f"smtpd_helo_restrictions = {name}"],
        "both": [f"smtpd_sender_restrictions = {sender}", f"smtpd_recipient_restrictions = {rcpt}, reject_unauth_destination"],
        "recipient": [f"smtpd_recipient_restrictions = {sender}, {rcpt}, permit"],
        "rejects behind": [f"smtpd_recipient_restrictions = {sender}, reject"],
        "warns": [f"smtpd_recipient_restrictions = warn_if_reject {sender}, warn_if_reject {rcpt}, permit"],
        "data": [f"smtpd_data_restrictions = {sender}"], "end": [f"smtpd_end_of_data_restrictions = {sender}"],
        "policy, sender": [f"smtpd_sender_restrictions = {policy}"],
        "policy, recipient": [f"smtpd_recipient_restrictions = {policy}, permit"],
        "policy, warns": [f"smtpd_recipient_restrictions = warn_if_reject {policy}, permit"],
        "policy, data": [f"smtpd_data_restrictions = {policy}"], "policy, end": [f"smtpd_end_of_data_restrictions = {policy}"]}


def by_sender(asked):
    return f"action={ACTIONS.get(asked['sender'].split('@')[0], 'DUNNO')}\n\n"


def dialogue(port, sender, rcpts):
    with Client(port, ehlo=f"{sender}.test") as c:
        said = [c.cmd(line) for line in (f"MAIL FROM:<{sender}@x.test>", *(f"RCPT TO:<{r}>" for r in rcpts), "DATA")]
        if said[-1].startswith("354"):
            said.append(c.cmd("Subject: x\r\n\r\nhello\r\n."))
    qid = said[-1].split()[-1] if "queued as" in said[-1] else None
    return [re.sub("queued as .*", "queued", s) for s in said], qid


NOTED = re.compile(r": (?:NOQUEUE|\w+): ((?:hold|discard|redirect|bcc|prepend|info|warn|reject|reject_warning): .*)")
TALKS = ([(word, [f"{word}@rel.test"]) for word in ACTIONS] + [("dunno", ["end@far.test", f"{word}@rel.test"]) for word in ACTIONS] +
         [(a, rcpts) for a, b in PAIRS for rcpts in ([f"{b}@rel.test", "end@far.test"], ["end@far.test", f"{b}@rel.test"])] +
         [(word, ["a@far.test", "z@rel.test", "m@far.test"]) for word in ("redirect", "bcc", "hold")] +
         [("discard", ["none@alias.test"]), ("hold", ["list@alias.test"]), ("redirect", ["list@alias.test"]), ("discard", ["x@else.test"])])


def what_became(log, qid):
    """Deliveries of a message, and who they were for."""
    lines = re.findall(rf": {qid}: (to=.*)", log)
    return sorted(re.sub(r"conn_use=\d+, |delay=.*?dsn=", "", re.sub(r"queued as \w+", "queued", line)) for line in lines)


def noted(log):
    return sorted(re.sub(r"from \S+\[127.0.0.1\]:", "from client:", line) for line in NOTED.findall(log))


def on_hold(mta):
    if isinstance(mta, pair.Ours):
        return {m["queue_id"] for m in mta.p.queue() if m["queue_name"] == "hold"}
    return set(mta.ls("hold"))


def discards(talk):
    return "discard" in talk[0] or any("discard" in r for r in talk[1])


@pytest.fixture(scope="module")
def both(name_server, postfix):
    relay, seen = FakeRelay(RELAY, 25, replies={"RCPT": lambda line: "550 5.1.1 no" if "<gone@" in line else None}), []
    for mta in (postfix, pair.Ours(name_server)):
        service = Service(by_sender)
        cases = overrides(f"inet:127.0.0.1:{service.port}")
        relay.sessions.clear()
        became = {}
        with pair.services(mta, MAIN, list(cases.values()), FILES) as ports:
            for name, port in zip(cases, ports):
                said = [(talk, *dialogue(port, *talk)) for talk in TALKS]
                over = lambda: set(re.findall(r": (\w+): removed", mta.new_log())) | on_hold(mta)
                wait_for(lambda: {q for talk, _, q in said if q and not discards(talk)} <= over())
                held = on_hold(mta)
                became[name] = [(talk, replies, q in held, what_became(mta.new_log(), q)) for talk, replies, q in said]
            log = pair.whole_log(mta, ports[0])
        mails = sorted((pair.plain(m["from"]), tuple(sorted(map(pair.plain, m["rcpts"]))), m["content"].split(b"Received:")[0])
                       for m in relay.mails if m["from"] != "MAIL FROM:<> BODY=8BITMIME")
        seen.append((became, noted(log), mails))
        service.stop()
    yield seen
    relay.stop()


@pytest.mark.parametrize("name", overrides(""))
def test_actions(both, name):
    (theirs, _, _), (ours, _, _) = both
    different = [(a, b) for a, b in zip(theirs[name], ours[name]) if a != b]
    assert different == [], "\n".join(map(str, different))


def test_what_the_log_says_of_them(both):
    theirs, ours = (collections.Counter(side[1]) for side in both)
    assert (theirs - ours, ours - theirs) == ({}, {})


def test_what_goes_out(both):
    theirs, ours = (collections.Counter(side[2]) for side in both)
    assert (theirs - ours, ours - theirs) == ({}, {})
