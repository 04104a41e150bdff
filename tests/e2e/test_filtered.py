"""Mail goes to its content filter before its relay host: restarts, filters that are away, logins, what explain and check say of it."""
import re

import pytest
from kit import Client, FakeRelay, Posthouse, free_port, wait_for

ASKS = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
SCAN = "scan unix - - n - 10 smtp -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes\n"
MAIN = """relayhost = [127.0.0.1]:{relay}
content_filter = scan:[127.0.0.1]:{scan}
minimal_backoff_time = 1s
queue_run_delay = 1s
"""


class Place:
    """A filter, the service that takes back what it has signed, and a relay host behind it."""

    def __init__(self, dns, more="", master="", scan=None, relay=None):
        self.scan, self.relay, self.back = scan or FakeRelay(xforward=ASKS), relay or FakeRelay(), free_port()
        taken_back = (f"127.0.0.1:{self.back} inet n - n - - smtpd -o content_filter= -o mynetworks=127.0.0.0/8\n"
                      "  -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o receive_override_options=no_address_mappings\n")
        self.p = Posthouse(MAIN.format(relay=self.relay.port, scan=self.scan.port) + more, master=SCAN + taken_back + master, dns=dns)

    def __enter__(self):
        self.p.start()
        return self

    def __exit__(self, *exc):
        self.p.stop()
        self.scan.stop()
        self.relay.stop()

    def give_back(self, n=1):
        """The filter signs what it has, and gives it back as Amavis does."""
        for m in self.scan.wait_mails(n)[-n:]:
            with Client(self.back) as c:
                for line in m["forwarded"]:
                    assert c.cmd(line).startswith("250")
                c.cmd(m["from"])
                for rcpt in m["rcpts"]:
                    assert c.cmd(rcpt).startswith("250")
                c.cmd("DATA")
                assert c.cmd(b"X-Signed: yes\r\n".decode() + m["content"].decode() + ".").startswith("250")


def test_a_mail_is_filtered_once_and_then_goes_to_its_relay_host(dns):
    with Place(dns) as at:
        qid = at.p.send("a@x.example", ["b@y.example", "c@z.example"]).split()[-1]
        at.give_back()
        mail = at.relay.wait_mails(1)[0]
        assert len(at.scan.mails) == 1 and mail["content"].startswith(b"Received") and b"X-Signed: yes" in mail["content"]
        assert sorted(mail["rcpts"]) == ["RCPT TO:<b@y.example>", "RCPT TO:<c@z.example>"]
        at.p.wait_log(rf": client=localhost\[127\.0\.0\.1\], orig_queue_id={qid}, orig_client=localhost\[127\.0\.0\.1\]$")
        assert at.scan.mails[0]["forwarded"][1] == f"XFORWARD PROTO=ESMTP HELO=client.example IDENT={qid} SOURCE=LOCAL"


def test_mail_waits_for_its_filter_over_a_restart_and_a_reload(dns):
    """It never takes the way that it would have without one, though main.cf has none any more when it is tried again."""
    scan = FakeRelay(xforward=ASKS, replies={"GREETING": lambda line: "421 4.3.2 not now"})
    with Place(dns, scan=scan) as at:
        qid = at.p.send().split()[-1]
        at.p.wait_log(f"{qid}: to=.*status=deferred")
        at.p.write_main(f"relayhost = [127.0.0.1]:{at.relay.port}\nminimal_backoff_time = 1s\nqueue_run_delay = 1s\n")
        at.p.reload()
        assert at.p.send().startswith("250")
        at.relay.wait_mails(1)
        at.p.kill()
        at.p.start()
        shown = at.p.run("queue", "show", qid).stdout
        assert f"content_filter: scan:[127.0.0.1]:{at.scan.port}\n" in shown
        scan.replies = {}
        at.give_back()
        wait_for(lambda: len(at.relay.mails) == 2)
        assert len(scan.mails) == 1


def test_a_filter_that_refuses_returns_the_mail_and_one_that_is_not_there_keeps_it(dns):
    refuses = {"DOT": lambda line: "554 5.7.0 Reject, id=1 - INFECTED"}
    with Place(dns, scan=FakeRelay(xforward=ASKS, replies=refuses)) as at:
        assert at.p.send("a@x.example").startswith("250")
        report = at.relay.wait_mail(b"INFECTED")
        assert report["from"].startswith("MAIL FROM:<>") and report["rcpts"] == ["RCPT TO:<a@x.example>"]  # reports are not filtered
    with Place(dns, more="content_filter = nowhere:[127.0.0.1]:9\n") as at:
        qid = at.p.send().split()[-1]
        at.p.wait_log(rf"{qid}: to=.*dsn=4\.3\.5, status=deferred \(mail transport unavailable: nowhere is not a transport")
        r = at.p.run("check")
        assert '"nowhere" is not a transport that Posthouse has, and master.cf has none of that name: mail for it waits' in r.stdout
        assert at.relay.mails == []


@pytest.mark.parametrize("refusal", ["550 5.7.0 no", "421 4.3.0 later"])
def test_a_filter_that_refuses_to_know_the_client(dns, refusal):
    """As with Postfix it gets the mail all the same; 421 ends the session, and the mail waits."""
    with Place(dns, scan=FakeRelay(xforward=ASKS, replies={"XFORWARD": lambda line: refusal})) as at:
        qid = at.p.send().split()[-1]
        if refusal[0] == "5":
            at.scan.wait_mails(1)
            at.p.wait_log(r"said: 550 5\.7\.0 no \(in reply to XFORWARD command\)")
        else:
            at.p.wait_log(rf"{qid}: to=.*status=deferred \(host .* said: 421 4\.3\.0 later \(in reply to XFORWARD command\)")
            assert at.scan.mails == []


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_senders_login_is_for_its_relay_host_alone(dns, pipelining):
    """Filter and relay host are one program here: what is filtered does not log in, what goes out does, on no common connection."""
    host = FakeRelay(xforward=ASKS, auth=["PLAIN"], users={"ann": "secret"}, pipelining=pipelining)
    with Place(dns, scan=host, relay=host,
               more="smtp_sasl_auth_enable = yes\nsmtp_sender_dependent_authentication = yes\nsmtp_sasl_security_options = noanonymous\n"
                    "smtp_sasl_password_maps = inline:{{ a@x.example=ann:secret }}\nsmtp_connection_cache_on_demand = yes\n"
                    f"content_filter = smtp:[127.0.0.1]:{host.port}\n") as at:
        for _ in range(3):
            assert at.p.send("a@x.example").startswith("250")
        wait_for(lambda: len(host.mails) == 3)
        for n in range(3):
            with Client(at.back) as c:
                assert c.mail("a@x.example", ["b@y.example"]).startswith("250")
        wait_for(lambda: len(host.mails) == 6)
        by_login = [[m["auth"] for m in s.mails] for s in host.sessions if s.mails]
        assert all(len(set(logins)) == 1 for logins in by_login)
        assert sorted(str(login) for logins in by_login for login in logins) == sorted(3 * ["('PLAIN', 'ann', 'secret')"] + 3 * ["None"])


def test_programs_have_the_filter_of_pickups_line(dns):
    other = FakeRelay(xforward=ASKS)
    with Place(dns, master=f"pickup unix n - n 60 1 pickup -o content_filter=scan:[127.0.0.1]:{other.port}\n") as at:
        r = at.p.run("-f", "me@from.example", "b@y.example", face="sendmail", stdin="Subject: x\n\nhello\n")
        assert r.returncode == 0, r.stderr
        mail = other.wait_mails(1)[0]
        assert re.fullmatch(r"XFORWARD IDENT=\w+ SOURCE=LOCAL", mail["forwarded"][0]) and len(mail["forwarded"]) == 1
        said = at.p.run("explain", "a@x.example", "b@y.example").stdout
        assert f"goes to scan:[127.0.0.1]:{at.scan.port} first; what follows is the road of what that gives back" in said
        assert f"mail of sendmail(1) goes to scan:[127.0.0.1]:{other.port} first" in said
        assert at.scan.mails == [] and at.relay.mails == []
    other.stop()


def test_a_filter_without_a_way_back_is_named(dns):
    with FakeRelay() as scan:
        p = Posthouse(f"relayhost = [127.0.0.1]:9\ncontent_filter = scan:[127.0.0.1]:{scan.port}\n", master=SCAN, dns=dns)
        assert "every service of master.cf has one: what the filter gives back to them goes to it again" in p.run("check").stdout
