"""Mails of all kinds for the tests of content: those that Debian's packages of mail parsers bring, and what is put together
here of the shapes that clients, programs and lists give to a mail.

mails() is [(name, content)], always in the same order and of the same bytes.
"""
import base64
import hashlib
import pathlib
import quopri
import re

FOLDERS = {"parser": "/usr/share/gocode/src/github.com/jhillyerd/enmime/testdata",
           "bounce": "/usr/lib/python3/dist-packages/flufl/bounce/tests/data",
           "list": "/usr/share/gocode/src/github.com/gatherstars-com/jwz/test/testdata/ham"}  # people's mail of 2002
EVERY = {"list": 8}  # of 2,403 mails


def collected():
    """What lies in the folders; a file as it was written there: many end their lines in LF, some are mbox entries."""
    for kind, folder in FOLDERS.items():
        files = [f for f in sorted(pathlib.Path(folder).rglob("*")) if f.suffix in (".raw", ".golden", ".txt", ".eml")]
        for file in files[::EVERY.get(kind, 1)]:
            yield f"{kind}/{file.parent.name}/{file.name}", file.read_bytes()


TEXTS = {  # name: (charset, encoding, bytes)
    "ascii": ("us-ascii", "7bit", b"Dear all,\r\n\r\nthe meeting is at ten.\r\n-- \r\nAnn\r\n"),
    "utf8": ("utf-8", "8bit", "Grüße aus Köln,\r\n日本語 и русский\r\n".encode()),
    "latin1": ("iso-8859-1", "8bit", "Grüße, señor\r\n".encode("latin-1")),
    "koi8": ("koi8-r", "8bit", "Добрый день\r\n".encode("koi8-r")),
    "sjis": ("shift_jis", "8bit", "こんにちは表示ソ\r\n".encode("shift_jis")),
    "iso2022": ("iso-2022-jp", "7bit", "こんにちは\r\n".encode("iso-2022-jp")),
    "big5": ("big5", "8bit", "您好,許功蓋\r\n".encode("big5")),
    "gb18030": ("gb18030", "8bit", "你好,世界\r\n".encode("gb18030")),
    "cp1252": ("windows-1252", "8bit", "“quoted” – €5\r\n".encode("cp1252")),
    "quoted": ("utf-8", "quoted-printable",
               quopri.encodestring("Prüfung = bestanden, 100 %, schöne Grüße\n".encode() * 4).replace(b"\n", b"\r\n")),
    "base64": ("utf-8", "base64", base64.encodebytes("Angebot über 5 €\r\n".encode() * 40).replace(b"\n", b"\r\n")),
    "flowed": ("utf-8; format=flowed; delsp=yes", "7bit", b"A line that goes on \r\nhere, and \r\n > a quote \r\n From here on\r\n"),
    "dots": ("us-ascii", "7bit", b".\r\n..\r\n...\r\n.hidden\r\n\r\n. \r\n.\r\n"),
    "mbox": ("us-ascii", "7bit", b"From here on it is text.\r\n\r\nFrom me to you\r\n>From quoted\r\nReceived: no field\r\n"
    b"Bcc: no@field.example\r\n"),
    "wide": ("us-ascii", "7bit", b"w" * 998 + b"\r\n" + b"v" * 997 + b".\r\n"),
    "blank": ("us-ascii", "7bit", b"\r\n\r\n \r\n\t\r\nend\t \r\n\r\n\r\n"),
}
DATE = b"Date: Wed, 25 Nov 2026 10:00:00 +0100\r\n"
ANN, BEN = b"From: Ann <ann@one.example>\r\n", b"To: Ben <ben@two.example>\r\n"


def part(text, extra=b"", kind=b"text/plain"):
    charset, encoding, data = TEXTS[text]
    return b"Content-Type: %s; charset=%s\r\nContent-Transfer-Encoding: %s\r\n%s\r\n%s" % (kind, charset.encode(),
        encoding.encode(), extra, data)


def multi(kind, boundary, *parts, before=b"", after=b""):
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, p) for p in parts)
    return b"Content-Type: multipart/%s;\r\n\tboundary=\"%s\"\r\n\r\n%s%s--%s--\r\n%s" % (kind, boundary, before, body, boundary, after)


PIXEL = (b"Content-Type: image/png; name=\"=?utf-8?Q?Bild=5F1.png?=\"\r\nContent-Disposition: inline;\r\n"
         b" filename*0*=utf-8''Bild%201;\r\n filename*1=\".png\"\r\nContent-ID: <pixel@one.example>\r\n"
         b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(bytes(range(256)) * 3).replace(b"\n", b"\r\n"))
SIGNED = (b"Content-Type: application/pgp-signature; name=\"signature.asc\"\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\n"
          b"iQEzBAEBCAAd=\r\n=AbCd\r\n-----END PGP SIGNATURE-----\r\n")
SMIME = (b"Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\nContent-Transfer-Encoding: base64\r\n"
         b"Content-Disposition: attachment; filename=\"smime.p7s\"\r\n\r\n"
         + base64.encodebytes(b"\x30\x82" + bytes(range(255, 0, -1)) * 4).replace(b"\n", b"\r\n"))
HTML = b"text/html"


def outlook(t):
    return (ANN + BEN + b"Subject: RE: Angebot\r\nThread-Topic: Angebot\r\nThread-Index: AQHXabcdefghij==\r\n" + DATE
            + b"Message-ID:\r\n\t<AM0PR01MB1234@AM0PR01MB1234.eurprd01.prod.example>\r\n"
            b"Accept-Language: de-DE, en-US\r\nX-MS-Has-Attach: yes\r\n"
            b"X-MS-TNEF-Correlator:\r\n"
            b"x-ms-exchange-antispam-messagedata-chunkcount: 1\r\n"
            b"x-microsoft-antispam-message-info:\r\n " + b"\r\n ".join([b"Zm9v" * 18] * 8)
            + b"\r\nMIME-Version: 1.0\r\n"
            + multi(b"mixed", b"_004_AM0PR01MB_", multi(b"related", b"_003_", part(t, kind=HTML), PIXEL),
                    part("base64", kind=b"application/ms-tnef")))


def gmail(t):
    return (b"MIME-Version: 1.0\r\n" + DATE + b"Message-ID: <CAAA=bb+ccDD@mail.one.example>\r\n"
            b"Subject: =?UTF-8?B?R3LDvMOfZQ==?= =?UTF-8?Q?_aus_K=C3=B6ln?=\r\n"
            + ANN + BEN + multi(b"alternative", b"0000000000001234", part(t), part("quoted", kind=HTML)))


def apple(t):
    return (ANN + multi(b"alternative", b"Apple-Mail=_6F", part(t), multi(b"related", b"Apple-Mail=_7A",
            part("flowed", kind=HTML), PIXEL))
            .replace(b"\r\n\r\n", b"\r\nMime-Version: 1.0 (Mac OS X Mail 16.0 \\(3774.600.62\\))\r\nSubject: Bilder\r\n" + DATE + BEN
            + b"X-Mailer: Apple Mail (2.3774.600.62)\r\nMessage-Id: <6F@one.example>\r\n\r\n", 1))


def thunderbird(t):
    return (b"Message-ID: <1b2c@one.example>\r\n" + DATE + b"MIME-Version: 1.0\r\nUser-Agent: Mozilla Thunderbird\r\n"
            b"Content-Language: de-DE\r\n" + BEN + ANN
            + b"Autocrypt: addr=ann@one.example; keydata=\r\n" + b"\r\n".join([b" xsBNBF" + b"q" * 70] * 20)
            + b"\r\nSubject: =?UTF-8?Q?H=C3=A4?=\r\n" + part(t))


def mutt(t):
    return (DATE + ANN + BEN + b"Subject: Re: [list] patch\r\nMessage-ID: <Z1@one.example>\r\nReferences: "
            + b"\r\n ".join(b"<%d@two.example>" % i for i in range(60))
            + b"\r\nMIME-Version: 1.0\r\nContent-Disposition: inline\r\nIn-Reply-To: <59@two.example>\r\n"
            b"User-Agent: Mutt/2.2.9\r\n" + part(t))


def cron(t):
    return (b"From: root@one.example (Cron Daemon)\r\nTo: root@one.example\r\n"
            b"Subject: Cron <root@host> test -x /usr/sbin/anacron || ( cd / && run-parts )\r\n"
            b"MIME-Version: 1.0\r\n" + part(t, b"X-Cron-Env: <SHELL=/bin/sh>\r\nX-Cron-Env: <HOME=/root>\r\n"))


def list_mail(t):
    received = b"".join(b"Received: from h%d.example (h%d.example [192.0.2.%d])\r\n"
            b"\tby h%d.example (Postfix) with ESMTPS id 4X%d\r\n\tfor <l@two.example>; Wed, 25 Nov "
            b"2026 09:5%d:00 +0000 (UTC)\r\n" % (i, i, i, i + 1, i, i) for i in range(9))
    return (received + ANN + b"To: l@two.example\r\nSubject: [l] news\r\nPrecedence: list\r\nList-Id: News <l.two.example>\r\n"
            b"List-Unsubscribe: <https://two.example/u>,\r\n"
            b" <mailto:l-leave@two.example>\r\nErrors-To: l-bounces@two.example\r\n" + DATE + b"Message-Id: <l1@two.example>\r\n"
            + part(t))


def dkim(t):
    body = part(t).split(b"\r\n\r\n", 1)
    return (b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=one.example; s=k1;\r\n"
            b"\tt=1764000000; h=from:to:subject:date; bh=" + body_hash(body[1])
            + b";\r\n\tb=" + b"\r\n\t ".join([b"A" * 64] * 5)
            + b"\r\nAuthentication-Results: two.example; dkim=pass header.d=one.example\r\n" + ANN + BEN
            + b"Subject: signed\r\n" + DATE + b"Message-ID: <k@one.example>\r\n" + body[0] + b"\r\n\r\n" + body[1])


def arc(t):
    seals = b"".join(b"ARC-Seal: i=%d; a=rsa-sha256; t=1; cv=none;\r\n        d=one.example; s=arc;\r\n        b=%s\r\n"
            b"ARC-Authentication-Results: i=%d; mx.two.example;\r\n"
            b"       spf=pass (sender IP is 192.0.2.1)\r\n" % (i, b"Q" * 900, i) for i in range(3, 0, -1))
    return seals + dkim(t)


def pgp(t):
    return ANN + BEN + DATE + b"Subject: signed by hand\r\nMIME-Version: 1.0\r\n" + multi(
            b"signed; micalg=pgp-sha256; protocol=\"application/pgp-signature\"", b"pgp", part(t), SIGNED,
        before=b"This is an OpenPGP/MIME signed message (RFC 4880 and 3156)\r\n")


def smime(t):
    return ANN + BEN + DATE + b"Subject: S/MIME\r\nMIME-Version: 1.0\r\n" + multi(
            b"signed; protocol=\"application/pkcs7-signature\"; micalg=\"sha-256\"", b"----ABCDEF", part(t), SMIME,
        before=b"This is an S/MIME signed message\r\n\r\n")


def report(t):
    status = (b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.two.example\r\n\r\n"
              b"Final-Recipient: rfc822; ben@two.example\r\nAction: failed\r\nStatus: 5.1.1\r\n")
    return (b"From: MAILER-DAEMON@two.example (Mail Delivery System)\r\nTo: ann@one.example\r\nSubject: Undelivered Mail\r\n"
            b"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
            + multi(b"report; report-type=delivery-status", b"4X9.17/mx", part(t), status, b"Content-Type: message/rfc822\r\n\r\n"
            + mutt(t), before=b"This is a MIME-encapsulated message.\r\n\r\n"))


def nested(t):
    inner = part(t)
    for depth in range(14):
        inner = multi(b"mixed", b"level%d" % depth, inner, before=b"preamble\r\n",
            after=b"epilogue without an end" if depth == 13 else b"epilogue\r\n")
    return ANN + BEN + DATE + b"Subject: nested\r\nMIME-Version: 1.0\r\n" + inner


def calendar(t):
    event = (b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Besprechung\\, wichtig\r\nDESCRIPTION:"
             + b"x" * 60 + b"\r\n  fortgesetzt\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n")
    return (ANN + BEN + DATE + b"Subject: Einladung\r\nMIME-Version: 1.0\r\n" + multi(b"alternative", b"cal", part(t),
            b"Content-Type: text/calendar; charset=utf-8; method=REQUEST\r\n\r\n" + event))


def program(t):
    """PHP, shop systems and scanners: no date, no ID, fields in small letters."""
    return (b"to: ben@two.example\r\nsubject: Bestellung\r\nx-php-originating-script: 33:mail.php\r\n"
            b"from: Shop<shop@one.example>\r\n" + part(t).replace(b"Content-Type", b"content-type"))


def bulk(t):
    return (b"To: %s\r\n" % b",\r\n\t".join(b"\"Nachname, V. %d\" <kunde%d@two.example>" % (i, i) for i in range(400))
            + ANN + b"Subject: " + b"sehr " * 150 + b"langer Betreff\r\nX-Report: " + b"r" * 6000 + b"\r\n" + part(t))


SHAPES = [outlook, gmail, apple, thunderbird, mutt, cron, list_mail, dkim, arc, pgp, smime, report, nested, calendar, program, bulk]


def body_hash(body):
    """bh= of a DKIM signature with the simple canonicalization (RFC 6376, section 3.4.3)."""
    return base64.b64encode(hashlib.sha256(body.rstrip(b"\r\n") + b"\r\n").digest())


H = ANN + BEN + b"Subject: edge\r\n"
EDGES = [b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n", b"x", b"x\r\n", b".\r\n", b"..\r\n", H, H.rstrip(), H + b"\r\n", H + b"\r\nx",
         H + b"\r\n.", H + b"\r\n\r\n.\r\n\r\n", b"\r\nbody only\r\n", b"no field at all\r\nsecond line\r\n",
         b" a blank first\r\n" + H + b"\r\nx\r\n", b"\ttab first\r\n\r\nx\r\n",
         H + b"no field in between\r\nCc: text@x.example\r\n\r\nx\r\n",
         H + b"Empty:\r\nSpace : value\r\nX-A:no blank\r\nX-Tab:\ttab\r\n\r\nx\r\n", H + b": no name\r\n\r\nx\r\n",
         H + b"X-Folded:\r\n a\r\n\tb\r\n \r\n c\r\n\r\nx\r\n", H + b" \r\n\r\nx\r\n", H + b"X-8bit: Gr\xfc\xdfe\r\n\r\nx\r\n",
         "Subject: Grüße\r\nFrom: Jörg <j@x.example>\r\n\r\nü\r\n".encode(), H + b"X-L: " + b"l" * 990 + b"\r\n\r\nx\r\n",
         H + b"X-L: " + b"l" * 4000 + b"\r\n\r\nx\r\n", H + b"X-L: " + b"l" * 60000 + b"\r\n\r\nx\r\n",
         H + b"".join(b"X-%d: v\r\n" % i for i in range(2500)) + b"\r\nx\r\n", H + b"\r\n" + b"a" * 50000 + b"\r\n",
         H + b"\r\n" + b"\r\n" * 3000, H + b"\r\n" + b".\r\n" * 2000, H + b"\r\n" + b"y" * 76 + b"\r\n" * 2 + b"z" * 300000,
         H + b"\r\n" + bytes(range(1, 9)) + b"\x0b\x0c\x0e\x7f\r\n", H + b"\r\nnul \x00 here\r\n\x00\r\n\x00\x00",
         H + b"\r\nbare \r here\r\n\r at the start\r\nat the end\r\r\n\r\n", H + b"\r\nthree\r\r\r\nlines\r\r\n",
         H.replace(b"\r\n", b"\r\r\n") + b"\r\r\nbody\r\r\n", H + b"\r\nbare\nline\nfeeds\n\nx\n",
         H.replace(b"\r\n", b"\n") + b"\nall of it\n.\n..\n\n", H.replace(b"\r\n", b"\n") + b"\r\nmixed\n",
         H + b"X-Bare: a\rb\r\n\r\nx\r\n", H + b"Bcc: hid@x.example\r\n\r\nx\r\n",
         H + b"BCC : a@x.example,\r\n b@x.example\r\nResent-Bcc: c@x.example\r\nX-After: stays\r\n\r\nBcc: text\r\n",
         b"Return-Path: <r@x.example>\r\n" + H + b"Content-Length: 5\r\n\r\nx\r\n", H + b"Bcc:\r\n\r\nx\r\n",
         H + b"Bcc\r\n\r\nx\r\n", b"Bcc: only@x.example\r\n", H + b"Content-Length: 5\r\n only\r\n",
         b"From a@x.example Wed Nov 25 10:00:00 2026\r\n" + H + b"\r\nx\r\n",
         b">From a@x.example Wed Nov 25 10:00:00 2026\r\n" + H + b"\r\nx\r\n", H + b"From in the middle\r\n\r\nx\r\n",
         b"From a@x.example\r\n\r\nx\r\n",
         b"From: a@x.example\r\nFrom: b@x.example\r\nTo: c\r\nTo: d\r\nDate: x\r\nDate: y\r\n\r\nx\r\n",
         H + b"\r\n\xff\xfe\x00\x00\xf0\x9f\x98\x80\r\n",
         H + b"\r\nRSET\r\nQUIT\r\nMAIL FROM:<a@x.example>\r\n.QUIT\r\nBDAT 5 LAST\r\n250 ok\r\n",
         H + b"Received: by x\r\nReceived: by y\r\n\r\nx\r\n", H + b"X-End: without a line's end",
         b"X" * 70 + b": long name\r\n\r\nx\r\n", H + b"X-Q: \"unfinished\r\nX-C: (comment\r\nX-A: <addr\r\n\r\nx\r\n",
         H + b"\r\nx" + b"." * 150000 + b"\r\n", H + b"\r\n" + b"".join(b"%06d " % i + b"=" * (i % 90) + b"\r\n" for i in range(4000))]


def mails():
    made = [(f"{shape.__name__}/{text}", shape(text)) for shape in SHAPES for text in TEXTS]
    return [*collected(), *made, *[(f"edge/{i}", content) for i, content in enumerate(EDGES)]]


# A relay that adds nothing and breaks no line.
MAIN = """smtp_line_length_limit = 0
local_header_rewrite_clients =
append_at_myorigin = no
append_dot_mydomain = no
hopcount_limit = 100
message_size_limit = 3000000
"""
RECEIVED = re.compile(rb"Received: (?:from|by) [^\n]*\r\n(?:\t[^\n]*\r\n)*")


def difference(sent, got):
    """Where they part, for a failure that can be read."""
    i = next((i for i, (a, b) in enumerate(zip(sent, got)) if a != b), min(len(sent), len(got)))
    return len(sent), len(got), i, sent[max(0, i - 60):i + 60], got[max(0, i - 60):i + 60]
