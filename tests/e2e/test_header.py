"""The header section of mail that comes in: what must not leave is dropped, local mail's addresses are completed."""
import pytest

from kit import Client, FakeRelay, Posthouse

HIDDEN = ("Bcc: hid@far.example,\r\n other@far.example\r\nresent-bcc : hid2@far.example\r\nReturn-Path: <x@y.example>\r\n"
          "Content-Length: 9999\r\n")


@pytest.fixture(scope="module")
def pair(dns):
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nmyorigin = own.example\nmydomain = dom.example\nmydestination =\n"
    with Posthouse(main, dns=dns) as p:
        yield p, relay
    relay.stop()


n = iter(range(1000000))


def bdat(p, content, pieces):
    """The content in chunks of so many bytes."""
    with Client(p.port) as c:
        for line in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"):
            assert c.cmd(line).startswith("250")
        for at in range(0, len(content), pieces):
            chunk = content[at:at + pieces]
            c.raw(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if at + pieces >= len(content) else b"") + chunk)
            assert c.reply().startswith("250"), chunk


def through(pair, content, how):
    p, relay = pair
    mark = f"mark-{next(n)}-"
    content = content.replace("@MARK@", mark)
    if how == "DATA":
        assert p.send(content=content).startswith("250")
    elif how == "BDAT":
        bdat(p, content.encode(), 7)
    else:
        r = p.run("-f", "a@x.example", "b@y.example", face="sendmail", stdin=content.replace("\r\n", "\n"))
        assert r.returncode == 0, r.stderr
    got = relay.wait_mail(mark.encode())["content"].decode()
    return got[got.index("+0000 (UTC)\r\n") + 13:]


@pytest.mark.parametrize("how", ["DATA", "BDAT", "sendmail"])
def test_fields_that_must_not_leave(pair, how):
    got = through(pair, f"Message-Id: <1@x>\r\nDate: x\r\nFrom: a@x.example\r\n{HIDDEN}Subject: s\r\n\r\nBcc: @MARK@\r\n", how)
    left = [line for line in got.split("\r\n") if how != "sendmail" or not line.startswith("Resent-")]  # it completes those
    assert left[:5] == ["Message-Id: <1@x>", "Date: x", "From: a@x.example", "Subject: s", ""]
    assert "\r\n\r\nBcc: mark" in got


@pytest.mark.parametrize("how", ["DATA", "BDAT", "sendmail"])
def test_lines_of_mbox_files(pair, how):
    """The message below such a line keeps its header; a program's line goes, a client's gets a name."""
    got = through(pair, "From joe@x.example Mon Jan  1 00:00:00 2024\r\nMessage-Id: <1@x>\r\nDate: x\r\nFrom: a@x.example\r\n"
                  "Subject: @MARK@\r\n\r\nx\r\n", how)
    want = "Message-Id: <1@x>\r\nDate: x\r\nFrom: a@x.example\r\nSubject: mark"
    if how != "sendmail":
        want = "X-Mailbox-Line: From joe@x.example Mon Jan  1 00:00:00 2024\r\n" + want
    assert got.startswith(want)


@pytest.mark.parametrize("how", ["DATA", "BDAT", "sendmail"])
def test_addresses_of_local_mail_get_their_domain(pair, how):
    got = through(pair, "Message-Id: <1@x>\r\nDate: x\r\nFrom: root (Cron Daemon)\r\nTo: root,\r\n \"A, B\" <joe@far.example>\r\n"
                  "Subject: root\r\n\r\n@MARK@\r\n", how)
    assert got.startswith("Message-Id: <1@x>\r\nDate: x\r\nFrom: root@own.example (Cron Daemon)\r\nTo: root@own.example,\r\n"
                          " \"A, B\" <joe@far.example>\r\nSubject: root\r\n\r\n")


def test_addresses_of_strangers_are_left_alone(dns):
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nmyorigin = own.example\nlocal_header_rewrite_clients =\n"
    with Posthouse(main, dns=dns) as p:
        assert p.send(content="To: root\r\nBcc: hid\r\nSubject: left\r\n\r\nx\r\n").startswith("250")
        got = relay.wait_mail(b"Subject: left")["content"]
        assert b"\r\nTo: root\r\nSubject: left\r\n\r\nx\r\n" in got
        p.write_main(main + "message_drop_headers = subject\nlocal_header_rewrite_clients = permit_mynetworks\n"
                     "append_dot_mydomain = yes\nmydomain = dom.example\n")
        p.reload()
        assert p.send(content="To: root@host\r\nBcc: hid\r\nSubject: gone\r\n\r\ntext\r\n").startswith("250")
        got = relay.wait_mail(b"text")["content"]
        assert b"\r\nTo: root@host.dom.example\r\nBcc: hid@own.example\r\n" in got and b"gone" not in got
    relay.stop()


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
def test_lines_that_end_in_cr_cr_lf(pair, how):
    content = "Message-Id: <1@x>\r\r\nDate: x\r\r\nFrom: a@x.example\r\r\r\n\r\r\nline \r\r\n@MARK@\r\r\n\r\n"
    got = through(pair, content, how)
    assert got.startswith("Message-Id: <1@x>\r\nDate: x\r\nFrom: a@x.example\r\n\r\nline \r\nmark")


def test_what_is_put_into_the_header_section_makes_no_long_lines(pair):
    """A client's name, an mbox line, addresses: no line that goes on is longer than 998, and 8-bit bytes are declared."""
    p, relay = pair
    names = [f"n{i}{'.' + 'x' * 60}" + ".y" * 700 for i in range(2)] + ["\u00e4" * 600]
    heads = [first + f"Subject: received-{i}-\r\n" for i, first in enumerate(
        ("", "From " + "f" * 985 + "\r\n", "To: " + "t" * 990 + "\r\n"))]
    for i, (name, head) in enumerate(zip(names, heads)):
        with Client(p.port, ehlo=name) as c:
            assert c.mail(content=head + "\r\nshort\r\n").startswith("250")
        mail = relay.wait_mail(b"received-%d-" % i)
        lines = mail["content"].split(b"\r\n")
        assert max(map(len, lines)) <= 998, i
        whole = mail["content"].replace(b"\r\n ", b"")
        assert whole.startswith(b"Received: from " + name.encode() + b" (localhost [127.0.0.1])"), whole[:80]
        assert i != 1 or b"X-Mailbox-Line: From " + b"f" * 985 in whole
        assert i != 2 or (b"t" * 990 + b"@own.example" in whole and "8BITMIME" in str(mail["from"]).upper()), mail
