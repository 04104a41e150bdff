"""One form of each address at the door: what is the same recipient, what is this system, who is always there."""
import re

from kit import Client, FakeRelay, Posthouse, wait_for


def rcpts(relay, text):
    return [re.search("<(.*)>", line).group(1) for line in relay.wait_mail(text)["rcpts"]]


def test_a_recipient_that_is_named_twice_gets_one_copy(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        names = ["Ann@y.example", "bob@y.example", "ann@Y.EXAMPLE", "\"ann\"@y.example", "ann@y.example.", "bob+x@y.example"]
        assert p.send(rcpts=names, content="Subject: twice\r\n\r\nx\r\n").startswith("250")
        assert rcpts(relay, b"Subject: twice") == ["Ann@y.example", "bob@y.example", "bob+x@y.example"]
        with p.client() as c:  # what is asked for each of them is not the same
            c.cmd("MAIL FROM:<a@x.example>")
            for line in ("<b@y.example> NOTIFY=NEVER", "<b@y.example> NOTIFY=NEVER", "<b@y.example> NOTIFY=FAILURE"):
                assert c.cmd("RCPT TO:" + line).startswith("250")
            c.cmd("DATA")
            c.raw(b"Subject: asked\r\n\r\nx\r\n.\r\n")
            assert c.reply().startswith("250")
        assert rcpts(relay, b"Subject: asked") == ["b@y.example", "b@y.example"]
        r = p.run("-t", "-f", "a@x.example", face="sendmail", stdin="To: a@y.example\nCc: A@Y.example, a@y.example\nSubject: cc\n\nx\n")
        assert r.returncode == 0 and rcpts(relay, b"Subject: cc") == ["a@y.example"]
    relay.stop()


def test_own_addresses_are_not_relayed(dns):
    """Mail to user@[own address] is this system's own, whatever the relay host is."""
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nproxy_interfaces = 192.0.2.77\n"
    with Posthouse(main, dns=dns) as p, p.client() as c:
        c.cmd("MAIL FROM:<a@x.example>")
        for literal in ("[127.0.0.1]", "[192.0.2.77]"):
            assert c.cmd(f"RCPT TO:<b@{literal}>").startswith("550 5.1.1"), literal
        assert c.cmd("RCPT TO:<b@[192.0.2.78]>").startswith("250")
        assert c.cmd("RCPT TO:<b@192.0.2.78>").startswith("501 5.1.3")
    relay.stop()


def test_addresses_that_ask_for_another_host(dns):
    """user%domain and domain!user are addresses of that domain for Postfix: without a domain of their own they are none here."""
    main = "relayhost = [127.0.0.1]:9\nsmtpd_sender_restrictions = check_sender_access inline:{{far.example=REJECT}}\n"
    with Posthouse(main, dns=dns) as p, p.client() as c:
        for address in ("a%far.example", "far.example!a", "a%", "!a", '"a%far.example"'):
            assert c.cmd(f"MAIL FROM:<{address}>").startswith("501 5.1.7"), address
        assert c.cmd("MAIL FROM:<a%far.example@x.example>").startswith("250")
        for address in ("a%far.example", "far.example!a", "a%b@"):
            assert c.cmd(f"RCPT TO:<{address}>").startswith("501 5.1.3"), address
        # At a domain of this system it is a name of this system, and goes nowhere else.
        c.cmd("RSET")
        assert c.cmd("MAIL FROM:<a%far.example@mta.example>").startswith("250")
        assert c.cmd("RCPT TO:<b@y.example>").startswith("250")
        for address in ("a%far.example@mta.example", "far.example!a@mta.example", '"a@far.example"@mta.example',
                        "a%far.example@[127.0.0.1]"):
            assert c.cmd(f"RCPT TO:<{address}>").startswith("550 5.1.1"), address
        assert p.run("-f", "a@x.example", "a%far.example", face="sendmail", stdin="\n").returncode == 0


def test_postmaster_is_there_for_everybody(dns):
    relay = FakeRelay()
    main = (f"relayhost = [127.0.0.1]:{relay.port}\nmyorigin = own.example\nmynetworks = 192.0.2.0/24\n"
            "smtpd_client_restrictions = reject\nsmtpd_relay_restrictions = reject\n")
    with Posthouse(main, dns=dns) as p, p.client() as c:
        c.cmd("MAIL FROM:<>")
        assert c.cmd("RCPT TO:<PostMaster>").startswith("250")
        for other in ("postmaster@far.example", "abuse", "\"postmaster \""):
            assert c.cmd(f"RCPT TO:<{other}>").startswith("554"), other
        c.cmd("DATA")
        c.raw(b"Subject: to postmaster\r\n\r\nx\r\n.\r\n")
        assert c.reply().startswith("250")
        assert rcpts(relay, b"to postmaster") == ["PostMaster@own.example"]
    relay.stop()


def test_postmaster_waits_where_nothing_delivers(dns):
    """It is taken (RFC 5321 section 4.5.1), kept with its reason, and check says why beforehand."""
    with Posthouse("relayhost = [127.0.0.1]:9\nmyorigin = own.example\nmydestination = own.example\n", dns=dns) as p:
        assert "any client's for <Postmaster>" in p.run("check").stdout
        with p.client() as c:
            c.cmd("MAIL FROM:<a@x.example>")
            assert c.cmd("RCPT TO:<pOSTMASTER>") == "250 2.1.5 Ok"
            assert c.cmd("RCPT TO:<other@own.example>").startswith("550 5.1.1")
            c.cmd("DATA")
            c.raw(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert c.reply().startswith("250")
        mail = wait_for(lambda: next((m for m in p.queue() if m["recipients"][0].get("delay_reason")), None))
        assert mail["recipients"][0]["address"] == "pOSTMASTER@own.example"
        assert "local" in mail["recipients"][0]["delay_reason"], mail


def test_a_bare_newline_makes_no_command(dns):
    """Text with a line feed that a program put into an address is one line, and is refused; who uses LF throughout is served."""
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        with p.client() as c:
            c.raw(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\nRCPT TO:<victim@y.example>\r\nNOOP\r\n")
            assert [c.reply()[:3] for _ in range(3)] == ["250", "500", "250"]
        p.wait_log(r"bare <LF> inside a command line from localhost\[127.0.0.1\]: refused")
        with Client(p.port, ehlo=None) as c:
            c.raw(b"EHLO c\nMAIL FROM:<a@x.example>\nRCPT TO:<b@y.example>\nDATA\n")
            assert [c.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
            c.raw(b"Subject: lf\n\nx\r\n.\r\n")
            assert c.reply().startswith("250")
        relay.wait_mail(b"Subject: lf")
        assert not any("victim" in line for s in relay.sessions for line in s.commands)
    relay.stop()
