"""Reports to senders (RFC 3464, RFC 6533): what Debian's Postfix and Posthouse write for the same mail, but for times and numbers."""
import difflib
import re

from kit import Client, FakeRelay, wait_for

import pair

RECORDS = ["x.example. 60 IN A 127.0.0.1"]

# (name, sender, parameters of MAIL, [(recipient, parameters of RCPT)], content); the local part says what becomes of it.
PLAIN = "From: a@x.example\r\nTo: b@y.example\r\nSubject: plain\r\nMessage-Id: <1@x.example>\r\n" \
        "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n\r\nhello\r\n"
EIGHT = PLAIN.replace("hello", "körper")
HEADER = PLAIN.replace("plain", "grün")
LONG = PLAIN.replace("hello", "w" * 5000)
DOTS = PLAIN.replace("hello", ".\r\n..\r\n.dot")
CASES = [
    ("fail", "a@x.example", "", [("fail@y.example", "")], PLAIN),
    ("eight", "a@x.example", " BODY=8BITMIME", [("fail@y.example", "")], EIGHT),
    ("undeclared", "a@x.example", "", [("fail@y.example", "")], EIGHT), ("header", "a@x.example", "", [("fail@y.example", "")], HEADER),
    ("seven", "a@x.example", " BODY=7BIT", [("fail@y.example", "")], PLAIN), ("long", "a@x.example", "", [("fail@y.example", "")], LONG),
    ("dots", "a@x.example", "", [("fail@y.example", "")], DOTS), ("hdrs", "a@x.example", " RET=HDRS", [("fail@y.example", "")], PLAIN),
    ("full", "a@x.example", " RET=FULL ENVID=en+2Bv", [("fail@y.example", "")], PLAIN),
    ("orcpt", "a@x.example", " ENVID=1", [("fail@y.example", " ORCPT=rfc822;orig@z.example NOTIFY=FAILURE")], PLAIN),
    ("orcpt2", "a@x.example", "", [("fail@y.example", " ORCPT=rfc822;a+2Bb@z.example")], PLAIN),
    ("several", "a@x.example", "", [("fail@y.example", ""), ("multi@y.example", ""), ("good@y.example", "")], PLAIN),
    ("multi", "a@x.example", "", [("multi@y.example", "")], PLAIN), ("wide", "a@x.example", "", [("wide@y.example", "")], PLAIN),
    ("quoted", "\"a b\"@x.example", "", [("\"fail it\"@y.example", "")], PLAIN),
    ("never", "a@x.example", "", [("fail@y.example", " NOTIFY=NEVER"), ("fail2@y.example", "")], PLAIN),
    ("success", "a@x.example", "", [("good@y.example", " NOTIFY=SUCCESS,FAILURE")], PLAIN),
    ("success2", "a@x.example", " RET=FULL ENVID=e", [("good@y.example", " NOTIFY=SUCCESS ORCPT=rfc822;o@z.example"),
                                                         ("fail@y.example", "")], PLAIN),
    ("utf8", "a@x.example", " SMTPUTF8", [("fail@y.example", "")], HEADER),
    ("utf8rcpt", "a@x.example", " SMTPUTF8", [("fail-jörg@y.example", "")], PLAIN),
    ("utf8sender", "jürg@x.example", " SMTPUTF8", [("fail@y.example", "")], PLAIN),
    ("utf8all", "jürg@grün.example", " SMTPUTF8 RET=HDRS ENVID=u", [("fail-jörg@y.example", " ORCPT=utf-8;j\\x{F6}rg@y.example")], HEADER),
    ("utf8relayed", "jürg@x.example", " SMTPUTF8", [("good@y.example", " NOTIFY=SUCCESS")], HEADER),
    ("late", "a@x.example", " ENVID=late", [("late@y.example", "")], PLAIN),
    ("late8", "jürg@x.example", " SMTPUTF8", [("late2@y.example", "")], HEADER),
    ("lateset", "a@x.example", "", [("late3@y.example", " NOTIFY=DELAY")], PLAIN),
]
if pair.VERSION >= (3, 10):  # older ones do not know the field
    CASES += [(f"tls{kind}", "a@x.example", params, [(rcpt, more)], "TLS-Required: no\r\n" + PLAIN)
              for kind, params, rcpt, more in [("", "", "fail@y.example", ""), ("late", "", "late4@y.example", ""),
                                               ("relayed", "", "good@y.example", " NOTIFY=SUCCESS"),
                                               ("utf8", " SMTPUTF8", "fail-jörg@y.example", "")]]
MAIN = """relayhost = [127.0.0.1]:{port}
delay_warning_time = 1s
minimal_backoff_time = 2s
maximal_backoff_time = 2s
queue_run_delay = 2s
smtp_destination_recipient_limit = 1
notify_classes =
bounce_size_limit = 4000
"""


def says(line):
    who = line.split("<")[1]
    if who.startswith(("fail", "\"fail")):
        return "550 5.1.1 no such user here"
    if who.startswith("multi"):
        return "550-5.7.1 first line\r\n550-5.7.1 second\r\n550 5.7.1 the last"
    if who.startswith("wide"):
        return "550 5.7.1 " + "word " * 59 + "word"
    return "451 4.2.0 come again" if who.startswith("late") else None


def normal(text, qid):
    text = text.replace(qid, "ORIGINAL")
    boundary = re.search(r'boundary="([^"]*)"', text)[1]
    text = text.replace(boundary, "BOUNDARY")
    text = re.sub(r"\w{3}, +\d+ \w{3} \d{4} \d\d:\d\d:\d\d [-+]\d{4} \(\w+\)", "NOW", text)
    text = re.sub(r"\AReceived: [^\n]*\n(\t[^\n]*\n)*", "", text)
    text = re.sub(r"(?m)^Received: from [^\n]*\n(\t[^\n]*\n)*", "", text)
    text = re.sub(r"(?m)^Message-Id: <\d{14}\.[^>]*>", "Message-Id: NEW", text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)


def reports(mta, relay):
    """{case: its reports, each with what MAIL said}"""
    mta.case(MAIN.replace("{port}", str(relay.port)), {}, "")
    try:
        qids = {}
        for name, sender, params, rcpts, content in CASES:
            with Client(mta.port) as c:
                assert c.cmd(f"MAIL FROM:<{sender}>{params}").startswith("250"), name
                for rcpt, more in rcpts:
                    reply = c.cmd(f"RCPT TO:<{rcpt}>{more}")
                    assert reply.startswith("250"), (name, reply)
                c.cmd("DATA")
                c.raw(re.sub(r"(?m)^\.", "..", content.replace("<1@", f"<{name}@")) + ".\r\n")
                qids[name] = re.search(r"queued as (\w+)", c.reply())[1]

        def by_case():
            found = {name: [] for name in qids}
            for m in relay.mails:
                if m["from"].startswith("MAIL FROM:<> ") or m["from"] == "MAIL FROM:<>":
                    text = m["content"].decode(errors="backslashreplace")
                    name = next(n for n, q in qids.items() if f"X-Postfix-Queue-ID: {q}" in text)
                    rcpts = [r.split(" ORCPT")[0] for r in m["rcpts"]]
                    found[name].append((re.sub(r" SIZE=\d+", "", m["from"]), rcpts, normal(text, qids[name])))
            return {n: sorted(v, key=lambda v: v[2]) for n, v in found.items()}
        wait_for(lambda: all(len(v) >= (2 if n == "success2" else 1) for n, v in by_case().items()))
        return by_case()
    finally:
        mta.over()


def differences(theirs, ours):
    if len(theirs) != len(ours):
        return [len(theirs), len(ours)]
    return [line for t, o in zip(theirs, ours) for line in difflib.ndiff([*map(str, t[:2]), *known(t[2])], [*map(str, o[:2]), *known(o[2])])
            if line[0] in "+-"]


# docs/differences.md: "a report about mail with SMTPUTF8", "a report of success", "an ORCPT that is not ASCII"
HANDED_OVER = """Your message was handed over to the mail system named below, which
does not report on deliveries: no further notice will come from there.
"""
DELIVERED = """Your message was successfully delivered to the destination(s)
listed below. If the message was delivered to mailbox you will
receive no further notifications. Otherwise you may still receive
notifications of mail delivery errors from other systems.
"""


def known(text):
    """Its lines, of recipients in order, without what is known to be different."""
    text = text.replace("\r\n", "\n").replace(HANDED_OVER, DELIVERED).replace("report-type=global-", "report-type=")
    text = text.replace('"j\\\\xc3\\\\xbcrg"', "jürg").replace("X-Postfix-Sender: utf-8; jürg", "X-Postfix-Sender: rfc822; jürg")
    text = text.replace("Original-Recipient: utf-8;fail", "Original-Recipient: rfc822;fail").replace("j\\x{F6}rg", "jörg")
    text = re.sub(r"delivery via \S+: ([^\n]*)\n    ", r"\1 ", text)
    first, *parts = re.split(r"(?m)^(?=<|--BOUNDARY|Final-Recipient)", text)
    groups = []
    for part in parts:
        if not groups or part[:1] != groups[-1][-1][:1]:
            groups.append([])
        groups[-1].append(part.strip("\n"))
    return [line for part in [first, *(p for g in groups for p in sorted(g))] for line in part.split("\n")]


def test_reports_like_postfix(name_server, postfix):
    """The report's fields and words, the form of what is returned, and how the report itself goes out."""
    found = []
    for mta in (postfix, pair.Ours(name_server)):
        with FakeRelay(dsn=False, replies={"RCPT": says}) as relay:
            found.append(reports(mta, relay))
    assert {name: d for name, *_ in CASES if (d := differences(found[0][name], found[1][name]))} == {}
