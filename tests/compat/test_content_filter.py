"""content_filter, FILTER, XFORWARD: what a content filter gets from Debian's Postfix and from Posthouse, and what becomes of it."""
import re

import pytest

import pair
from kit import Client, FakeRelay, free_ports, wait_for

RELAY, SCAN, OTHER, NAMED = "127.0.2.2", "127.0.2.3", "127.0.2.4", "127.0.2.5"
ASKS = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
MAIN = """mydestination = own.test
relayhost = [{relay}]
mydomain = dom.test
notify_classes =
local_transport = smtp:[{relay}]
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{{ {{list@alias.test=a@far.test,b@far.test}}, {{alias.test=x}} }}
smtpd_sender_restrictions = check_sender_access hash:$config_directory/rows
smtpd_recipient_restrictions = check_recipient_access hash:$config_directory/rows, permit_mynetworks, reject
"""
ROWS = """one@rows.test FILTER other:[{other}]
bare@rows.test FILTER other:
last@rows.test FILTER scan:[{scan}]
over@rows.test REDIRECT elsewhere@far.test
nowhere@rows.test FILTER nothing:[{other}]
""".format(other=OTHER, scan=SCAN)
MASTER = """scan unix - - n - 10 smtp -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes
other unix - - n - 10 smtp -o disable_dns_lookups=yes
"""
SETTINGS = {
    "none": "",
    "scan": f"content_filter = scan:[{SCAN}]\n",
    "no mappings": f"content_filter = scan:[{SCAN}]\nreceive_override_options = no_address_mappings\n",
    "the default destination": f"content_filter = scan:\ndefault_filter_nexthop = [{SCAN}]\n",
    "the recipient's domain": "content_filter = other:\n",
    "copies": f"content_filter = scan:[{SCAN}]\nalways_bcc = copy@far.test\n",
    "transport_maps": f"content_filter = scan:[{SCAN}]\ntransport_maps = inline:{{{{ {{{{far.test=error:5.1.1 no}}}} }}}}\n",
    "another hello": f"content_filter = scan:[{SCAN}]\nlocal_header_rewrite_clients =\n",
}
MAILS = [("ann@from.test", ["r1@far.test"], "EHLO client.test"), ("ann@from.test", ["r1@far.test"], "HELO client.test"),
         ("", ["r1@far.test NOTIFY=NEVER", "r2@other.test"], "EHLO [127.0.0.1]"), ("ann@from.test", ["list@alias.test"], "EHLO x"),
         ("one@rows.test", ["r1@far.test"], "EHLO x"), ("one@rows.test", ["last@rows.test", "one@rows.test"], "EHLO x"),
         ("one@rows.test", ["last@rows.test", "r1@far.test"], "EHLO x"), ("one@rows.test", ["over@rows.test"], "EHLO x"),
         ("ann@from.test", ["over@rows.test"], "EHLO x"), ("bare@rows.test", ["r1@lit.test"], "EHLO x"),
         ("ann@from.test", ["no@far.test"], "EHLO x"), ("ann@from.test", ["later@far.test"], "EHLO x"),
         ("nowhere@rows.test", ["r1@far.test"], "EHLO x")]
RECORDS = ["lit.test. IN A 127.0.2.5", "far.test. IN A 127.0.2.5", "other.test. IN A 127.0.2.5", "rows.test. IN A 127.0.2.5",
           "alias.test. IN A 127.0.2.5"]
REFUSES = {"RCPT": lambda line: "550 5.1.1 no" if "<no@" in line else "451 4.2.0 later" if "<later@" in line else None}


@pytest.fixture(scope="module")
def relays():
    r = {"relay": FakeRelay(RELAY, 25), "scan": FakeRelay(SCAN, 25, xforward=ASKS, replies=REFUSES), "other": FakeRelay(OTHER, 25),
         "named": FakeRelay(NAMED, 25)}
    yield r
    for relay in r.values():
        relay.stop()


def masked(line, qid):
    return re.sub(r"PORT=\d+", "PORT=n", line.replace(qid, "QID"))


def with_mark(relay, mark):
    return [m for m in relay.mails if mark.encode() in m["content"]]


def has_settled(log, qid):
    """The message is gone, or each of its recipients has been tried: one is logged while the others' content still goes out."""
    tried = len(re.findall(rf"{qid}: to=", log))
    return f"{qid}: removed" in log or any(tried >= int(n) for n in re.findall(rf"{qid}: from=.* nrcpt=(\d+) ", log))


def flows(mta, relays, settings):
    for r in relays.values():
        r.sessions.clear()
    mta.case((MAIN + settings).replace("{relay}", RELAY), {"rows": ROWS}, MASTER)
    said, senders = [], {sender for sender, _, _ in MAILS}  # whether a report has gone by then is chance
    try:
        for sender, rcpts, hello in MAILS:
            mark = f"mark-{len(said)}-"
            with Client(mta.port, ehlo=None) as c:
                c.cmd(hello)
                c.cmd(f"MAIL FROM:<{sender}>")
                replies = [c.cmd(f"RCPT TO:<{r.split()[0]}> {' '.join(r.split()[1:])}".strip() if hello.startswith("E")
                                 else f"RCPT TO:<{r.split()[0]}>") for r in rcpts]
                c.cmd("DATA")
                replies.append(c.cmd(f"Subject: {mark}\r\n\r\nhello\r\n."))
            got = {}
            qid = replies[-1].split()[-1]
            if replies[-1].startswith("250"):
                settled = lambda: has_settled(mta.new_log(), qid)
                wait_for(settled)
                replies[-1] = "250"
                got = {name: sorted((pair.plain(m["from"]), sorted(map(pair.plain, m["rcpts"])),
                                     [masked(f, qid) for f in m["forwarded"]])
                                    for m in with_mark(r, mark) if m["from"].startswith(f"MAIL FROM:<{sender}>"))
                       for name, r in relays.items()}
            said.append(((sender, rcpts, hello), replies, {name: mails for name, mails in got.items() if mails}))
        return said, sorted(o[:4] if o[3] == "sent" else o[:1] for o in pair.outcomes(mta.new_log())
                            if o[0] not in senders)
    finally:
        mta.over()


@pytest.mark.parametrize("name", SETTINGS)
def test_filters_get_what_postfix_gives_them(name_server, postfix, relays, name):
    theirs, ours = (flows(mta, relays, SETTINGS[name]) for mta in (postfix, pair.Ours(name_server)))
    different = [(one, other) for one, other in zip(ours[0] + ours[1], theirs[0] + theirs[1]) if one != other]
    assert different == [], "\n".join(f"ours   {a}\ntheirs {b}" for a, b in different)
    assert len(ours[1]) == len(theirs[1])


FORWARDED = ["XFORWARD", "XFORWARD NAME=a.test", "XFORWARD NAME=a.test ADDR=192.0.2.1", "XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]",
             "XFORWARD ADDR=2001:db8::1", "XFORWARD ADDR=x", "XFORWARD ADDR=IPV6:192.0.2.1",
             "XFORWARD NAME", "XFORWARD NAME=", "XFORWARD NAME=a..b ADDR=192.0.2.1", "XFORWARD PORT=25",
             "XFORWARD PORT=65536", "XFORWARD PORT=x",
             "XFORWARD PORT=0", "XFORWARD PROTO=ESMTP", "XFORWARD PROTO=x", "XFORWARD HELO=a+2Bb", "XFORWARD HELO=a+0Ab ADDR=192.0.2.1",
             "XFORWARD HELO=a+", "XFORWARD IDENT=4abc", "XFORWARD IDENT=a+20b", "XFORWARD SOURCE=LOCAL", "XFORWARD SOURCE=x",
             "XFORWARD source=remote", "XFORWARD OTHER=1", "XFORWARD IDENT=1 OTHER=1", "XFORWARD NAME=" + "a" * 256,
             "XFORWARD HELO=" + "a" * 255, "xforward name=a.test addr=192.0.2.1 port=7 proto=SMTP helo=h.test ident=ID source=REMOTE"]


def dialogues(mta, relays, more):
    """What is said to XFORWARD, what the log has of the mail behind it, and what the next filter is told."""
    given, other = free_ports(2)
    given_to = (f"127.0.0.1:{given} inet n - n - - smtpd -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n"
                f"127.0.0.1:{other} inet n - n - - smtpd\n")
    for r in relays.values():
        r.sessions.clear()
    mta.case((MAIN + SETTINGS["scan"] + more).replace("{relay}", RELAY), {"rows": ROWS}, MASTER + given_to)
    said = []
    try:
        wait_for(lambda: pair.listens(other))
        for port in (given, other):
            for line in FORWARDED if port == given else FORWARDED[:2]:
                with Client(port, ehlo=None) as c:
                    offer = re.findall("XFORWARD.*", c.cmd("EHLO x.test"))
                    reply = c.cmd(line)
                    again = c.cmd("XFORWARD IDENT=again") if line == FORWARDED[1] else None
                    qid = c.mail("a@x.test", ["b@far.test"], content=f"From: joe\r\nSubject: mark-{len(said)}-1\r\n\r\nx\r\n").split()[-1]
                    c.cmd("MAIL FROM:<>")
                    inside = c.cmd(line)
                    c.cmd("RSET")
                    second = c.mail("a@x.test", ["b@far.test"], content=f"Subject: mark-{len(said)}-2\r\n\r\nx\r\n").split()[-1]
                wait_for(lambda: all(f"{q}: removed" in mta.new_log() for q in (qid, second)))
                logged = [re.findall(rf"{q}: client=(.*)", mta.new_log()) for q in (qid, second)]
                told = [[masked(f, q) for f in m["forwarded"]] + re.findall(b"From: .*", m["content"]) for n, q in ((1, qid), (2, second))
                        for m in with_mark(relays["scan"], f"mark-{len(said)}-{n}")]
                said.append((port == given, line, offer, re.sub(r"^(...) .*", r"\1", reply) if reply.startswith("501") else reply, again,
                             re.sub(r"^(...) .*", r"\1", inside) if inside.startswith("501") else inside, logged, told))
        return said
    finally:
        mta.over()


@pytest.mark.parametrize("more", ["", "local_header_rewrite_clients =\n"])
def test_what_filters_say_of_the_client(name_server, postfix, relays, more):
    theirs, ours = (dialogues(mta, relays, more) for mta in (postfix, pair.Ours(name_server)))
    different = [(one, other) for one, other in zip(ours, theirs) if one != other]
    assert different == [], "\n\n".join(f"ours   {a}\ntheirs {b}" for a, b in different)
