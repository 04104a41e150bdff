"""The SMTP server: commands, extensions, limits, who may relay, smuggling."""
import re
import socket
import subprocess
import time

import pytest
from kit import Client, FakeRelay, Posthouse, make_cert, wait_for


@pytest.fixture(scope="module")
def relay():
    r = FakeRelay()
    yield r
    r.stop()


@pytest.fixture(scope="module")
def mta(dns, relay):
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_hard_error_limit = 100\n"
                   "smtpd_soft_error_limit = 100\nmessage_size_limit = 100000\n"
                   "smtpd_recipient_limit = 5\nsmtpd_forbid_bare_newline_exclusions =\nstrict_smtputf8 = yes\n", dns=dns) as p:
        yield p


def test_greeting_and_ehlo_order(mta):
    with mta.client() as c:
        assert c.greeting == "220 mta.example ESMTP Posthouse"
        assert c.ehlo == ("250 mta.example\nPIPELINING\nSIZE 100000\nVRFY\nENHANCEDSTATUSCODES\n"
                          "8BITMIME\nDSN\nSMTPUTF8\nCHUNKING")


# command, reply: one session, in this order, as Debian's Postfix answers
DIALOGUE = [
    ("HELO", "501 Syntax: HELO hostname"),
    ("HELO c.example", "250 mta.example"),
    ("DATA", "503 5.5.1 Error: need RCPT command"),
    ("RCPT TO:<b@y.example>", "503 5.5.1 Error: need MAIL command"),
    ("MAIL FROM:<a@x.example> SIZE=99999999", "552 5.3.4 Message size exceeds fixed limit"),
    ("MAIL FROM:<bad", "501 5.1.7 Bad sender address syntax"),
    ("MAIL FROM:<a@x.example> SIZE=abc", "501 5.5.4 Bad message size syntax"),
    ("MAIL FROM:<a@x.example> FOO=bar", "555 5.5.4 Unsupported option: FOO=bar"),
    ("MAIL TO:<a@x.example>", "501 5.5.4 Syntax: MAIL FROM:<address>"),
    ("MAIL FROM:<ä@x.example>", "553 5.6.7 Must declare SMTPUTF8 to send unicode address"),
    ("FOO", "500 5.5.2 Error: command not recognized"),
    ("HELP", "500 5.5.2 Error: command not recognized"),
    ("VRFY b@y.example", "252 2.0.0 b@y.example"),
    ("RSET", "250 2.0.0 Ok"),
    ("NOOP", "250 2.0.0 Ok"),
    ("STARTTLS", "502 5.5.1 Error: command not implemented"),
    ("AUTH PLAIN", "503 5.5.1 Error: authentication not enabled"),
    ("MAIL FROM:<a@x.example>", "250 2.1.0 Ok"),
    ("MAIL FROM:<a@x.example>", "503 5.5.1 Error: nested MAIL command"),
    ("DATA", "554 5.5.1 Error: no valid recipients"),
    ("RCPT TO:<>", "501 5.1.3 Bad recipient address syntax"),
    ("RCPT TO:<a@b@c>", "501 5.1.3 Bad recipient address syntax"),
    ("RCPT TO:<b@y.example> NOTIFY=NEVER,SUCCESS", "501 5.5.4 Error: Bad NOTIFY parameter syntax"),
    ('RCPT TO:<"a b"@y.example>', "250 2.1.5 Ok"),
    ("RCPT TO:<b@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@y.example", "250 2.1.5 Ok"),
    ("RSET", "250 2.0.0 Ok"),
    ("MAIL FROM:<> BODY=8BITMIME RET=HDRS ENVID=abc", "250 2.1.0 Ok"),
    ("RCPT TO:<@relay.example,@other.example:b@y.example>", "250 2.1.5 Ok"),
    ("QUIT", "221 2.0.0 Bye"),
]


def test_dialogue(mta):
    with mta.client(ehlo=None) as c:
        for line, want in DIALOGUE:
            assert c.cmd(line) == want, line
    mta.wait_log(r"disconnect from localhost\[127\.0\.0\.1\] helo=1/2 starttls=0/1 auth=0/1 mail=2/9 rcpt=3/7 "
                 r"data=0/2 rset=2 noop=1 vrfy=1 quit=1 unknown=0/2 commands=11/29")
    mta.wait_log(r"NOQUEUE: reject: MAIL from localhost\[127\.0\.0\.1\]: 552 5\.3\.4 Message size exceeds "
                 r"fixed limit; from=<a@x\.example> proto=SMTP helo=<c\.example>")


@pytest.mark.parametrize("first", ["\ttext that is no field", " X-Field: indented", "\t", " "])
@pytest.mark.parametrize("bdat", [False, True])
def test_first_line_continues_no_field_of_ours(relay, mta, first, bdat):
    """A header section that begins with a blank is none: the blank line before it is added, as Postfix does."""
    mark = f"mark-{first.encode().hex()}-{bdat}"
    content = f"{first}\r\n{mark}\r\n"
    with mta.client() as c:
        c.cmd("MAIL FROM:<a@x.example>")
        c.cmd("RCPT TO:<b@y.example>")
        if bdat:
            assert c.cmd(f"BDAT {len(content)} LAST\r\n{content}"[:-2]).startswith("250")
        else:
            assert c.cmd("DATA").startswith("354")
            assert c.cmd(content + ".").startswith("250")
    got = relay.wait_mail(mark.encode())["content"].decode()
    trace, body = got.split("\r\n\r\n", 1)
    assert body == content
    assert first not in trace.splitlines()


# Each after RSET: what is said twice, values and addresses that are none.
MALFORMED = [
    ("RSET please", "501 5.5.4 Syntax: RSET"),
    ("MAIL FROM:<-oQ@x.example>", "501 5.1.7 Bad sender address syntax"),
    ("MAIL FROM:<a@-x.example>", "501 5.1.7 Bad sender address syntax"),
    ("MAIL FROM:<a@[10.1.2]>", "501 5.1.7 Bad sender address syntax"),
    ("MAIL FROM:<a@[IPv6:10.1.2.3]>", "501 5.1.7 Bad sender address syntax"),
    ("MAIL FROM:<a@x.example> RET=FULL RET=FULL", "501 5.5.4 Bad RET parameter syntax"),
    ("MAIL FROM:<a@x.example> BODY=BINARYMIME", "555 5.5.4 Unsupported option: BODY=BINARYMIME"),
    ("RCPT TO:<-v@y.example>", "501 5.1.3 Bad recipient address syntax"),
    ("RCPT TO:<b@y-.example>", "501 5.1.3 Bad recipient address syntax"),
    ("RCPT TO:<b@y.example> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4 Error: Bad NOTIFY parameter syntax"),
    ("RCPT TO:<b@y.example> ORCPT=rfc822;b@y.example ORCPT=rfc822;b@y.example", "501 5.5.4 Error: Bad ORCPT parameter syntax"),
    ("RCPT TO:<b@[IPv6:2001:db8::7]>", "250 2.1.5 Ok"),
    ("RCPT TO:<b@[192.0.2.9]>", "250 2.1.5 Ok"),
]


@pytest.mark.parametrize("line,want", MALFORMED)
def test_malformed_commands(mta, line, want):
    with mta.client() as c:
        if line.startswith("RCPT"):
            c.cmd("MAIL FROM:<a@x.example>")
        assert c.cmd(line) == want


def test_a_line_that_is_too_long_is_no_command(mta):
    """No part of it is; what is long, but not too long, is."""
    with mta.client() as c:
        assert c.cmd("NOOP " + "x" * 2000) == "250 2.0.0 Ok"
        c.raw("MAIL FROM:<a@x.example>" + " " * 3000 + "\r\n")
        assert c.reply() == "500 5.5.2 Error: line too long" and c.reply() is None
    mta.wait_log("line too long")


def test_recipient_limit_and_size(mta):
    with mta.client() as c:
        c.cmd("MAIL FROM:<a@x.example>")
        for i in range(5):
            assert c.cmd(f"RCPT TO:<b{i}@y.example>") == "250 2.1.5 Ok"
        assert c.cmd("RCPT TO:<b6@y.example>") == "452 4.5.3 Error: too many recipients"
        c.cmd("DATA")
        c.raw(b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" * 1)
        c.raw((b"y" * 98 + b"\r\n") * 1100 + b".\r\n")
        assert c.reply() == "552 5.3.4 Error: message file too big"
        assert c.mail(content="Subject: small\r\n\r\nok\r\n").startswith("250 2.0.0 Ok: queued as")


def test_relay_access_denied(dns, relay):
    main = f"relayhost = [127.0.0.1]:{relay.port}\nmynetworks = 10.0.0.0/8\nrelay_domains = mine.example\n" \
           "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n"
    with Posthouse(main, dns=dns) as p:
        with p.client() as c:
            c.cmd("MAIL FROM:<a@x.example>")
            assert c.cmd("RCPT TO:<b@y.example>") == "554 5.7.1 <b@y.example>: Relay access denied"
            assert c.cmd("RCPT TO:<b%y.example@mine.example>") == \
                "554 5.7.1 <b%y.example@mine.example>: Relay access denied"
            assert c.cmd("RCPT TO:<b@mine.example>") == "250 2.1.5 Ok"
            assert c.cmd("RCPT TO:<b@sub.mine.example>") == "250 2.1.5 Ok"
            assert c.cmd("RCPT TO:<b@notmine.example>").startswith("554 5.7.1")
        p.wait_log(r"NOQUEUE: reject: RCPT from localhost\[127\.0\.0\.1\]: 554 5\.7\.1 <b@y\.example>: Relay "
                   r"access denied; from=<a@x\.example> to=<b@y\.example> proto=ESMTP helo=<client\.example>")


def test_default_defers_strangers(dns, relay):
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmynetworks =\n", dns=dns) as p:
        assert p.send() == "454 4.7.1 <b@y.example>: Relay access denied"


def test_open_relay_is_refused_at_start(dns, tmp_path):
    p = Posthouse("smtpd_relay_restrictions =\n", dns=dns)
    with pytest.raises(AssertionError, match="open relay"):
        p.start()
    r = p.run("check")
    assert r.returncode == 2 and "open relay" in r.stdout


def test_restrictions_with_tables(dns, relay):
    files = {"senders": "bad@x.example REJECT not you\nx.example DUNNO\nhold.example 450 4.7.1 later\n",
             "clients": "127.0.0.0/8 OK\n0.0.0.0/0 REJECT\n",
             "helos": "/^evil/ 550 5.7.1 go away\n"}
    main = (f"relayhost = [127.0.0.1]:{relay.port}\n"
            "smtpd_client_restrictions = check_client_access cidr:{dir}/clients\n"
            "smtpd_helo_restrictions = reject_non_fqdn_helo_hostname, check_helo_access pcre:{dir}/helos\n"
            "smtpd_sender_restrictions = reject_non_fqdn_sender, check_sender_access texthash:{dir}/senders\n"
            "append_at_myorigin = no\n")
    with Posthouse(main, dns=dns, files=files) as p:
        assert p.send(sender="bad@x.example") == "554 5.7.1 <bad@x.example>: Sender address rejected: not you"
        assert p.send(sender="a@sub.hold.example") == "450 4.7.1 <a@sub.hold.example>: Sender address rejected: later"
        assert p.send(sender="plain") == "504 5.5.2 <plain>: Sender address rejected: need fully-qualified address"
        assert p.send(sender="good@x.example").startswith("250")
        with p.client(ehlo="evil.example") as c:
            assert c.mail() == "550 5.7.1 <evil.example>: Helo command rejected: go away"
        with p.client(ehlo="short") as c:
            assert c.mail() == "504 5.5.2 <short>: Helo command rejected: need fully-qualified hostname"


def test_lookup_failure_is_451(dns, relay):
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsender_dependent_relayhost_maps = fail:x\n"
    with Posthouse(main, dns=dns) as p:
        assert p.send() == "451 4.3.0 <b@y.example>: Temporary lookup failure"
        p.wait_log(r"sender_dependent_relayhost_maps lookup failure")
        p.wait_log(r"NOQUEUE: reject: RCPT from localhost\[127\.0\.0\.1\]: 451 4\.3\.0 <b@y\.example>: "
                   "Temporary lookup failure")


def test_error_limits(dns, relay):
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_soft_error_limit = 3\nsmtpd_hard_error_limit = 5\n" \
           "smtpd_error_sleep_time = 1s\nline_length_limit = 600\n"
    with Posthouse(main, dns=dns) as p:
        with p.client() as c:
            for i in range(4):
                assert c.cmd(f"JUNK{i}").startswith("500 5.5.2")
            t = time.monotonic()
            assert c.cmd("JUNK4").startswith("500 5.5.2")
            assert time.monotonic() - t > 0.5  # slowed down after the soft limit
            assert c.reply() == "421 4.7.0 mta.example Error: too many errors"
        p.wait_log(r"too many errors after UNKNOWN from localhost\[127\.0\.0\.1\]")
        with p.client() as c:
            assert c.cmd("NOOP " + "x" * 700) == "500 5.5.2 Error: line too long"


def test_connection_limit(dns, relay):
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_client_connection_count_limit = 3\n" \
           "smtpd_client_event_limit_exceptions =\nsmtpd_client_message_rate_limit = 2\n"
    with Posthouse(main, dns=dns) as p:
        wait_for(lambda: "disconnect" in p.log())
        kept = [p.client() for _ in range(3)]
        over = Client(p.port, ehlo=None)
        assert over.greeting == "421 4.7.0 mta.example Error: too many connections from 127.0.0.1"
        p.wait_log(r"warning: Connection concurrency or rate limit exceeded from unknown\[127\.0\.0\.1\] for service")
        assert kept[0].mail().startswith("250") and kept[0].mail().startswith("250")
        assert kept[0].mail() == "450 4.7.1 Error: too much mail from 127.0.0.1"
        for c in kept:
            c.cmd("QUIT")


def test_timeout(dns, relay):
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_timeout = 1s\n"
    with Posthouse(main, dns=dns) as p:
        with p.client() as c:
            assert c.reply() == "421 4.4.2 mta.example Error: timeout exceeded"
        p.wait_log(r"timeout after EHLO from localhost\[127\.0\.0\.1\]")
        with p.client() as c:
            c.cmd("MAIL FROM:<a@x.example>")
            c.cmd("RCPT TO:<b@y.example>")
            c.cmd("DATA")
            c.raw(b"Subject: half\r\n")
            assert c.reply() == "421 4.4.2 mta.example Error: timeout exceeded"
        p.wait_log(r"timeout after DATA \(\d+ bytes\) from localhost\[127\.0\.0\.1\]")


def test_lost_connection_and_non_smtp(mta):
    with mta.client() as c:
        c.cmd("MAIL FROM:<a@x.example>")
        c.cmd("RCPT TO:<b@y.example>")
        c.cmd("DATA")
        c.raw(b"Subject: half\r\n")
    mta.wait_log(r"lost connection after DATA \(\d+ bytes\) from localhost\[127\.0\.0\.1\]")
    with mta.client(ehlo=None) as c:
        assert c.cmd("GET / HTTP/1.1") == "221 2.7.0 Error: I can break rules, too. Goodbye."
    mta.wait_log(r"warning: non-SMTP command from localhost\[127\.0\.0\.1\]: GET / HTTP/1\.1")


def test_pipelining_in_one_packet(mta, relay):
    with mta.client() as c:
        c.raw("MAIL FROM:<a@x.example>\r\nRCPT TO:<p1@y.example>\r\nRCPT TO:<p2@y.example>\r\nDATA\r\n")
        assert [c.reply() for _ in range(4)] == ["250 2.1.0 Ok", "250 2.1.5 Ok", "250 2.1.5 Ok",
                                                 "354 End data with <CR><LF>.<CR><LF>"]
        c.raw("Subject: piped\r\n\r\nx\r\n.\r\nMAIL FROM:<a2@x.example>\r\nRCPT TO:<p3@y.example>\r\nRSET\r\nQUIT\r\n")
        assert c.reply().startswith("250 2.0.0 Ok: queued as")
        assert [c.reply() for _ in range(4)] == ["250 2.1.0 Ok", "250 2.1.5 Ok", "250 2.0.0 Ok", "221 2.0.0 Bye"]
    assert relay.wait_mail(b"Subject: piped")["rcpts"] == ["RCPT TO:<p1@y.example>", "RCPT TO:<p2@y.example>"]


def test_bdat(mta, relay):
    with mta.client() as c:
        assert c.cmd("BDAT 3 LAST\r\nabc"[:11]) == "503 5.5.1 Error: need RCPT command"
        c.raw("abc")
        c.cmd("MAIL FROM:<a@x.example>")
        c.cmd("RCPT TO:<b@y.example>")
        c.raw(b"BDAT 14\r\nSubject: bdat\r")
        assert c.reply() == "250 2.0.0 Ok: 14 bytes"
        c.raw(b"BDAT 9 LAST\r\n\n\r\n.\r\nx\n.")
        assert c.reply().startswith("250 2.0.0 Ok: queued as")
        assert c.cmd("BDAT x") == "521 5.5.4 Syntax: BDAT count [LAST]"
    content = relay.wait_mail(b"Subject: bdat")["content"]
    assert content.endswith(b"\r\n\r\n.\r\nx\r\n.\r\n"), content[-60:]


SMUGGLE = [
    b"\n.\r\n", b"\r\n.\n", b"\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r", b"\n\n.\r\n", b"\r\n\x00.\r\n",
]


@pytest.mark.parametrize("end", SMUGGLE)
def test_smuggling_is_impossible(mta, relay, end):
    """What is not CR LF . CR LF never ends a message, and no bare CR or LF is ever sent on."""
    mark = b"outer-%d" % SMUGGLE.index(end)
    evil = b"Subject: " + mark + b"\r\n\r\nfirst" + end + b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<v@y.example>\r\nDATA\r\ninner\r\n"
    with mta.client() as c:
        c.cmd("MAIL FROM:<a@x.example>")
        c.cmd("RCPT TO:<b@y.example>")
        c.cmd("DATA")
        c.raw(evil + b"\r\n.\r\n")
        assert c.reply().startswith("250 2.0.0 Ok: queued as")
        assert c.cmd("NOOP") == "250 2.0.0 Ok"
    raw = relay.wait_mail(mark)["content"]
    mta.send(content=b"Subject: after " + mark + b"\r\n\r\nx\r\n")
    relay.wait_mail(b"after " + mark)
    assert not any("evil@x.example" in m["from"] for m in relay.mails)
    assert b"MAIL FROM:<evil@x.example>" in raw
    assert b"\r" not in raw.replace(b"\r\n", b"") and b"\n" not in raw.replace(b"\r\n", b"")


def test_smtplib_bare_newlines(mta, relay):
    """Python's smtplib sends what it is given; a client with bare LF is served, not refused."""
    import smtplib
    with smtplib.SMTP("127.0.0.1", mta.port, local_hostname="c.example") as s:
        s.sendmail("a@x.example", ["b@y.example"], "Subject: lf\n\nline one\n.\nline two\n")
    assert relay.wait_mail(b"Subject: lf")["content"].endswith(b"line one\r\n.\r\nline two\r\n")


def test_starttls_and_injection(dns, relay, tmp_path):
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_tls_security_level = may\n"
                  "smtpd_tls_cert_file = {dir}/mta.example.pem\nsmtpd_tls_key_file = {dir}/mta.example.key\n"
                  "smtpd_tls_loglevel = 1\nsmtpd_tls_received_header = yes\n", dns=dns)
    make_cert(p.dir, "mta.example")
    with p:
        with p.client() as c:
            assert "\nSTARTTLS\n" in c.ehlo
            c.starttls()
            assert "STARTTLS" not in c.cmd("EHLO c.example")
            assert c.mail(content="Subject: inside tls\r\n\r\nx\r\n").startswith("250 2.0.0 Ok")
        got = relay.wait_mail(b"inside tls")["content"]
        assert b"with ESMTPS id" in got and b"(using TLSv1.3 with cipher" in got
        p.wait_log(r"Anonymous TLS connection established from localhost\[127\.0\.0\.1\]: TLSv1\.3 with cipher "
                   r"\S+ \(\d+/\d+ bits\) key-exchange \S+ server-signature \S+ \(\d+ bits\) server-digest \S+")
        with p.client() as c:  # CVE-2011-0411: the RSET came in clear, it must not run inside TLS
            import ssl
            c.raw("STARTTLS\r\nRSET\r\nMAIL FROM:<evil@x.example>\r\n")
            assert c.reply() == "220 2.0.0 Ready to start TLS"
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
            try:
                c.sock = ctx.wrap_socket(c.sock)
                c.f = c.sock.makefile("rb")
                assert c.cmd("RCPT TO:<b@y.example>") == "503 5.5.1 Error: need MAIL command"
            except ssl.SSLError:
                pass  # the plaintext broke the handshake: as good
        assert "evil@x.example" not in p.log()


@pytest.mark.parametrize("level", ["encrypt", "Encrypt", "verify", "secure"])
def test_tls_required(dns, relay, level):
    """A level that an SMTP server does not have counts as encrypt, as in Postfix; check says so."""
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_tls_security_level = {level}\n"
                  "smtpd_tls_chain_files = {dir}/both.pem\n", dns=dns)
    cert, key = make_cert(p.dir, "mta.example")
    (p.dir / "both.pem").write_text(key.read_text() + cert.read_text())
    with p:
        warned = f'unsupported TLS level "{level}", using "encrypt"' in p.run("check").stdout
        assert warned == (level in ("verify", "secure"))
        assert p.send() == "530 5.7.0 Must issue a STARTTLS command first"
        with p.client() as c:
            c.starttls()
            c.cmd("EHLO c.example")
            assert c.mail().startswith("250 2.0.0")


def test_hop_count(mta):
    with mta.client() as c:
        r = c.mail(content="Received: x\r\n" * 51 + "Subject: loop\r\n\r\nx\r\n")
        assert r == "554 5.4.0 Error: too many hops"


def test_missing_header_fields(mta, relay):
    mta.send(content="just text, no header\r\n")
    content = relay.wait_mail(b"just text, no header")["content"].decode()
    head, body = content.split("\r\n\r\n", 1)
    assert body == "just text, no header\r\n"
    assert re.search(r"^Message-Id: <\d{14}\.\w+@mta\.example>\r$", head, re.M)
    assert re.search(r"^From: a@x\.example\r?$", head, re.M) and re.search(r"^Date: ", head, re.M)
    mta.send(content="Message-ID: <orig@x.example>\r\nFrom: me <a@x.example>\r\nDate: now\r\n\r\nhi\r\n")
    content = relay.wait_mail(b"<orig@x.example>")["content"].decode()
    assert content.count("Date:") == 1 and content.count("From:") == 1
    mta.wait_log("message-id=<orig@x.example>")


def test_large_message_goes_to_a_file(dns, relay):
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmessage_size_limit = 20000000\n", dns=dns) as p:
        line = b"0123456789" * 7 + b"\r\n"
        body = b"Subject: large\r\n\r\n" + line * 50000 + b".dot\r\n"
        with p.client() as c:
            assert c.mail(content=body).startswith("250 2.0.0")
        got = relay.wait_mail(b"Subject: large")["content"]
        assert got.endswith(line * 50000 + b".dot\r\n")
        p.wait_log("removed")
        wait_for(lambda: list((p.dir / "spool/body").iterdir()) == [])


def test_size_of_held_memory_is_bounded(dns, relay):
    """With the memory budget spent, content goes to disk early and mail still flows."""
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmessage_memory_limit = 0\n", dns=dns) as p:
        n = len(relay.mails)
        assert p.send(content=b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 2000).startswith("250")
        assert p.send().startswith("250")
        relay.wait_mails(n + 2)


def test_smtputf8(mta, relay):
    r = mta.send(sender="jörg@x.example", rcpts=["grüße@y.example"], params=" SMTPUTF8 BODY=8BITMIME",
                 content="Subject: grüße\r\n\r\nhallo\r\n")
    assert r.startswith("250 2.0.0")
    mail = relay.wait_mail("grüße".encode())
    assert mail["from"].startswith("MAIL FROM:<jörg@x.example>") and "SMTPUTF8" in mail["from"]
    assert "BODY=8BITMIME" in mail["from"]


def test_real_clients(mta, relay):
    n = len(relay.mails)
    subprocess.run(["smtp-source", "-m", "20", "-s", "4", "-l", "5000", "-f", "a@x.example", "-t",
                    "b@y.example", f"127.0.0.1:{mta.port}"], check=True)
    relay.wait_mails(n + 20)
