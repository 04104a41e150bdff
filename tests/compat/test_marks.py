"""How many hops a mail may have, and which mail is said to be in UTF-8 (smtputf8_autodetect_classes): as Debian's Postfix has it."""
import os
import subprocess

import pytest
from kit import Client, FakeRelay, wait_for

import pair

RECORDS = ["x.example. 60 IN A 127.0.0.1"]


def hops(mta):
    mta.case("relayhost = [127.0.0.1]:9\nhopcount_limit = 5\nnotify_classes =\n", {}, "")
    try:
        said = {}
        for n in range(2, 8):
            with Client(mta.port) as c:
                fields = "Received: by x.example; Thu, 1 Jan 2026 00:00:00 +0000\r\n" * n
                said[n] = c.mail(content=fields + "Subject: hops\r\n\r\nx\r\n")[:9]
        return said
    finally:
        mta.over()


def test_hops_like_postfix(name_server, postfix):
    theirs = hops(postfix)
    assert {said[:3] for said in theirs.values()} == {"250", "554"}
    assert hops(pair.Ours(name_server)) == theirs


MAILS = [(who, sender, rcpt, subject) for who in ("sendmail", "declared", "undeclared")
         for sender, rcpt, subject in (("a@x.example", "b@{n}.example", "plain"), ("a@x.example", "b@{n}.example", "grün"),
                                       ("jürg@x.example", "b@{n}.example", "plain"), ("a@x.example", "jörg@{n}.example", "plain"))]
CLASSES = ["sendmail, verify", "all", "bounce"]


def submit(mta, who, sender, rcpt, subject):
    text = f"From: {sender}\nTo: {rcpt}\nSubject: {subject}\n\nkörper\n".encode()
    if who == "sendmail":
        env = dict(os.environ, MAIL_CONFIG=f"{mta.dir}/etc") if isinstance(mta, pair.Postfix) else None
        args = ["-i", "-f", sender, rcpt]
        if env is None:
            mta.p.run(face="sendmail", *args, stdin=text.decode(), check=True, encoding="utf-8")
        else:
            subprocess.run([*pair.AS_ROOT, "env", f"MAIL_CONFIG={mta.dir}/etc", "/usr/sbin/sendmail", *args], input=text, check=True)
        return
    with Client(mta.port) as c:
        reply = c.mail(sender, [rcpt], text.replace(b"\n", b"\r\n"), params=" SMTPUTF8" if who == "declared" else "")
        assert reply.startswith("250"), reply


def marks(mta, classes, relay):
    """What becomes of each mail at a relay host without SMTPUTF8, and what one with it is told."""
    relay.sessions.clear()
    mta.case(f"relayhost = [127.0.0.1]:{relay.port}\nsmtputf8_autodetect_classes = {classes}\nnotify_classes =\n", {}, "")
    try:
        found = {}
        for n, (who, sender, rcpt, subject) in enumerate(MAILS):
            to = rcpt.replace("{n}", f"n{n}")
            submit(mta, who, sender, to, subject)
            outcome = wait_for(lambda: next((o for o in pair.outcomes(mta.new_log()) if o[0] == to), None))
            told = [line for s in relay.sessions for line, after in zip(s.commands, s.commands[1:]) if f"<{to}>" in after]
            found[MAILS[n]] = outcome[2:4], [line.endswith(" SMTPUTF8") for line in told if line.startswith("MAIL")]
        return found
    finally:
        mta.over()


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("classes", CLASSES)
def test_detection_like_postfix(name_server, postfix, classes, able):
    with FakeRelay(utf8=able) as relay:
        theirs = marks(postfix, classes, relay)
        ours = marks(pair.Ours(name_server), classes, relay)
    different = {m: (theirs[m], ours[m]) for m in MAILS if theirs[m] != ours[m]}
    assert different == {}, different
