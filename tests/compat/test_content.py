"""What Debian's Postfix and Posthouse make of the content of each mail of tests/corpus.py: the same, but for Received:."""
import re

from corpus import MAIN, RECEIVED, difference
from kit import Client, FakeRelay

import corpus
import pair

MAILS = corpus.mails()
CONFIG = MAIN + "relayhost = [127.0.0.1]:{port}\nsmtp_destination_recipient_limit = 1\n"


def outputs(postfix, name_server, main, mails):
    """{name: content without Received:} of each product."""
    for mta in (postfix, pair.Ours(name_server)):
        with FakeRelay() as relay:
            mta.case(main.format(port=relay.port), {}, "")
            try:
                yield give(mta, relay, mails)
            finally:
                mta.over()


def give(mta, relay, mails):
    with Client(mta.port) as c:
        for n, (_, content) in enumerate(mails):
            c.raw(f"MAIL FROM:<a@x.test>\r\nRCPT TO:<n{n}@y.test>\r\n")
            assert c.reply().startswith("250") and c.reply().startswith("250")
            assert c.cmd("DATA").startswith("354")
            text = re.sub(rb"\r*\n\Z|(?<=[^\n])\Z", b"\r\n", content, count=1)
            c.raw(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
            reply = c.reply()
            assert reply.startswith("250"), (n, reply)
    got = {m["rcpts"][0].split("<n")[1].split("@")[0]: m["content"] for m in relay.wait_mails(len(mails), 60)}
    return {name: RECEIVED.sub(b"", got[str(n)], count=1) for n, (name, _) in enumerate(mails)}


def without_blanks(content):
    """docs/differences.md: "a blank between a field's name and its colon"."""
    header, end, body = content.partition(b"\r\n\r\n")
    return re.sub(rb"(?m)^([!-9;-~]+)[ \t]+:", rb"\1:", header) + end + body


def test_content_like_postfix(postfix, name_server):
    theirs, ours = outputs(postfix, name_server, CONFIG, MAILS)
    assert len(theirs) > 800
    different = {n: difference(theirs[n], ours[n]) for n in theirs if without_blanks(ours[n]) != theirs[n]}
    assert not different, (len(different), list(different.items())[:12])


# Fields of mail from a local client; each is a mail.
FIELDS = ["From: root", "From: root (Cron Daemon)", "From: Joe <joe>", "From: \"Joe, X\" <joe>", "From: <joe>", "From: joe@host",
          "From: joe@",
          "From: joe@far.test.", "From: \"a b\"@host", "From: a b", "From: Joe User <joe@far.test>", "From:", "From: ", "From: <>",
          "From: @far.test",
          "To: ann, ben", "To: ann,ben", "To: ann, Ben <ben>, \"C\" <c@host>", "To: team: ann, ben;", "To: team: ann@host, ben;, c",
          "To: undisclosed-recipients:;", "To: ann\r\n ,\r\n\tben", "To: ann (one), ben (two (and more))", "To: <@a.test,@b.test:ann@c>",
          "To: ann@[192.0.2.1]", "To: ann%host", "To: host!ann", "To: ann@host, ann@host.test", "To: ann (no end", "To: \"no end",
          "To: <ann", "To: ann>",
          "To: ann;ben", "To: ann ben", "To: ,,ann,,", "To: ann@host@far.test", "To: =?utf-8?q?Ann?= <ann>", "To: ANN@HOST",
          "To: a.b.c", "To: .ann", "To: ann.",
          "Cc: ann", "Bcc: ann", "Reply-To: ann", "Sender: ann", "Errors-To: ann", "Return-Receipt-To: ann", "Resent-From: ann",
          "Resent-To: ann",
          "Resent-Cc: ann", "Resent-Sender: ann", "Resent-Reply-To: ann", "Disposition-Notification-To: ann",
          "Mail-Followup-To: ann", "Apparently-To: ann",
          "X-To: ann", "Delivered-To: ann", "Subject: ann", "to: ann", "TO : ann", "To:ann", "To:\tann", "Mail-Reply-To: ann",
          "Return-Path: ann"]
LOCAL = ("relayhost = [127.0.0.1]:{port}\nmyorigin = own.test\nmydomain = dom.test\nappend_dot_mydomain = yes\nmydestination =\n"
         "message_drop_headers =\nsmtp_destination_recipient_limit = 1\n")


# docs/differences.md: "is taken apart and quoted"
KEPT = ["From: @far.test", "To: ann%host", "To: host!ann", "To: <ann", "To: ann;ben", "To: ann@host@far.test", "To: .ann", "To: ann."]


def written(content):
    """docs/differences.md: "blanks and line breaks of the field"."""
    text = re.sub(rb"(?m)^(Resent-)?Date: \w{3},.*$|<\w+[.]\w+@mta[.]example>", b"", without_blanks(content))
    return re.sub(rb"\s+", b" ", re.sub(rb"\s*,\s*", b", ", re.sub(rb"(?m)^([\w-]+):\s*", rb"\1: ", text)))


def test_addresses_of_local_mail_like_postfix(postfix, name_server):
    """Each field as it goes out: which are completed, with what, and how the rest of the field is written."""
    mails = [(f, f"{f}\r\nSubject: s\r\nDate: x\r\nMessage-Id: <x@x.test>\r\n\r\nx\r\n".encode()) for f in FIELDS]
    theirs, ours = outputs(postfix, name_server, LOCAL, mails)
    different = {f: (theirs[f], ours[f]) for f in FIELDS if f not in KEPT and written(ours[f]) != written(theirs[f])}
    assert not different, "\n" + "\n".join(f"{f}\n  Postfix   {t}\n  Posthouse {o}" for f, (t, o) in different.items())
