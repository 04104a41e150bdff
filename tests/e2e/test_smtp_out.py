"""The SMTP client: where mail goes, failover, TLS, extensions, replies, timeouts."""
import contextlib
import re
import socket
import threading
import time

import pytest
from kit import Dns, FakeRelay, Posthouse, free_port, make_cert, server_tls, wait_for


def sent(p, n=1):
    return p.wait_log("status=sent", count=n)


@pytest.mark.parametrize("bad,line", [
    ({"GREETING": "554 go away"}, r"host other\.server\[127\.0\.0\.1\] refused to talk to me: 554 go away"),
    ({"GREETING": "421 4.3.2 busy"}, r"host other\.server\[127\.0\.0\.1\] refused to talk to me: 421 4\.3\.2 busy"),
    ({"EHLO": "421 4.3.2 busy"}, r"host other\.server\[127\.0\.0\.1\] refused to talk to me: 421 4\.3\.2 busy"),
    ({"MAIL": "450 4.7.1 not now"}, r"said: 450 4\.7\.1 not now \(in reply to MAIL FROM command\)"),
    ({"RCPT": "450 4.2.1 not now"}, r"said: 450 4\.2\.1 not now \(in reply to RCPT TO command\)"),
    ({"DATA": "451 4.3.0 not now"}, r"said: 451 4\.3\.0 not now \(in reply to DATA command\)"),
    ({"MAIL": ""}, r"lost connection with other\.server\[127\.0\.0\.1\] while sending MAIL FROM"),
    ({"AUTH": "535 5.7.8 no"}, r"SASL authentication failed; server other\.server\[127\.0\.0\.1\] said: 535 5\.7\.8 no"),
    (None, r"connect to other\.server\[127\.0\.0\.1\]:\d+: Connection refused"),
])
def test_failover(dns, bad, line):
    """What is wrong with one host leads to the next of the list, within one attempt."""
    first = FakeRelay(replies=bad, auth=["LOGIN"]) if bad else None
    port = first.port if first else free_port()
    good = FakeRelay(auth=["LOGIN"])
    main = f"relayhost = [other.server]:{port}, [relay.server]:{good.port}\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = static:u:p\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        good.wait_mails(1)
        p.wait_log(line)
        assert len(p.wait_log(r" to=<b@y\.example>, relay=relay\.server\[127\.0\.0\.1\]:\d+, .*status=sent")) == 1
    good.stop()
    if first:
        first.stop()


@pytest.mark.parametrize("limit", [1, 2])
def test_fallback_comes_after_the_session_limit(dns, limit):
    """smtp_mx_session_limit is of the hosts of one destination, as with Postfix: the fallback is still tried."""
    later = {"RCPT": "451 4.3.2 not today"}
    with FakeRelay(replies=later) as first, FakeRelay(replies=later) as second, FakeRelay() as last:
        main = f"relayhost = [relay.server]:{first.port}, [other.server]:{second.port}\n" \
               f"smtp_fallback_relay = [127.0.0.1]:{last.port}\nsmtp_mx_session_limit = {limit}\n"
        with Posthouse(main, dns=dns) as p:
            p.send()
            last.wait_mails(1)
            sent(p)
        assert len(first.sessions) == len(second.sessions) == 1


@pytest.mark.parametrize("second", ["[127.0.0.1]:{free}", "[no.such.server]:{free}"])
def test_mail_that_was_refused_nowhere_goes_to_the_first_host(dns, second):
    """One mail is put off and goes on to a host that is down: what waits behind it does not share its fate."""
    released = threading.Event()

    def rcpt(line):
        if "grey@" in line:
            released.wait(20)
            return "450 4.7.1 <grey@y.example> come back"
        return None

    with FakeRelay(replies={"RCPT": rcpt}, pipelining=False) as first:
        main = f"relayhost = [relay.server]:{first.port}, {second.format(free=free_port())}\n" \
               "default_destination_concurrency_limit = 1\ninitial_destination_concurrency = 1\n"
        with Posthouse(main, dns=dns) as p:
            p.send(rcpts=["grey@y.example"])
            wait_for(lambda: first.sessions and any(c.startswith("RCPT") for c in first.sessions[0].commands))
            for name in ("next", "last"):
                p.send(rcpts=[f"{name}@y.example"])
            p.wait_log(r"from=<a@x\.example>.*queue active", count=3)
            released.set()
            p.wait_log("to=<grey@y.example>.*status=deferred")
            for name in ("next", "last"):
                p.wait_log(rf"to=<{name}@y\.example>, relay=relay\.server.*status=sent")


def test_an_old_configurations_failure_is_not_the_new_ones(dns):
    """A session logs in with a password that a reload corrects: no mail that is not on the wire is refused with it."""
    over, logins = threading.Event(), []

    def auth(_):
        logins.append(1)
        if len(logins) > 1:
            return None
        over.wait(20)
        return "535 5.7.8 wrong password"

    with FakeRelay(auth=["PLAIN"], replies={"AUTH": auth}) as relay:
        main = f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_auth_soft_bounce = no\n" \
               "smtp_sasl_security_options = noanonymous\ndefault_destination_concurrency_limit = 1\n" \
               "initial_destination_concurrency = 1\nsmtp_sasl_password_maps = static:u:"
        with Posthouse(main + "old\n", dns=dns) as p:
            p.send(rcpts=["before@y.example"])
            wait_for(lambda: logins)
            p.write_main(main + "new\n")
            p.reload()
            p.send(rcpts=["after@y.example"])
            p.wait_log(r"from=<a@x\.example>.*queue active", count=2)
            over.set()
            p.wait_log("to=<before@y.example>.*status=sent")
            p.wait_log("to=<after@y.example>.*status=sent")


def test_a_refusal_is_logged_when_the_rest_is_held(dns):
    """One recipient is refused, the other goes on to a host that keeps silent; then the mail is held."""
    over = threading.Event()
    replies = {"RCPT": lambda line: "550 5.1.1 unknown" if "gone@" in line else "452 4.2.2 full"}
    with FakeRelay(replies=replies) as first, FakeRelay(replies={"GREETING": lambda _: over.wait(30) and ""}) as silent:
        with Posthouse(f"relayhost = [relay.server]:{first.port}, [other.server]:{silent.port}\n", dns=dns) as p:
            p.send(rcpts=["gone@y.example", "full@y.example"])
            wait_for(lambda: silent.sessions)
            p.run("queue", "hold", "ALL", check=True)
            p.wait_log(r"to=<gone@y\.example>, relay=relay\.server.*status=bounced \(host relay\.server.* said: 550 5\.1\.1 unknown")
            wait_for(lambda: [m for m in p.queue() if m["queue_name"] == "hold"])
            over.set()
            assert "to=<full@" not in p.log()


def test_5xx_bounces_at_once(dns):
    first = FakeRelay(replies={"MAIL": "550 5.7.60 Client does not have permissions to send as this sender"})
    second = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{first.port}, [127.0.0.1]:{second.port}\n", dns=dns) as p:
        p.send()
        p.wait_log(r"relay=127\.0\.0\.1\[127\.0\.0\.1\]:\d+, .*dsn=5\.7\.60, status=bounced \(host 127\.0\.0\.1"
                   r"\[127\.0\.0\.1\] said: 550 5\.7\.60 Client does not have permissions to send as this sender "
                   r"\(in reply to MAIL FROM command\)\)")
        assert not any("a@x.example" in m["from"] for m in second.mails)
    first.stop()
    second.stop()


@pytest.mark.parametrize("relayhost", ["[nx.server]:25", "[nx.server], [nx2.server]", "nx.server",
                                       "[nx.server]:587, nx2.server:25"])
def test_relay_that_does_not_resolve_defers(dns, relayhost):
    """Postfix bounces three of these."""
    with Posthouse(f"relayhost = {relayhost}\n", dns=dns) as p:
        p.send()
        p.wait_log(r"relay=none, .*dsn=4\.3\.5, status=deferred \(Host or domain name not found\."
                   r" Name service error for name=nx\d?\.server type=A: Host not found\)")


def test_dns_server_down_defers():
    with Posthouse("relayhost = [relay.server]:25\n") as p:
        p.send()
        p.wait_log(r"dsn=4\.4\.3, status=deferred \(Host or domain name not found\.")


def test_direct_to_mx(dns):
    """Without a relay host, mail goes to the recipient's exchangers in order of preference."""
    # MX is always asked on port 25 for a recipient's domain; [domain]:port in a transport shows the
    # same look-up on a port that a test may use.
    a = FakeRelay("127.0.0.2")
    b = FakeRelay("127.0.0.3", a.port)
    main = f"relayhost =\ntransport_maps = inline:{{{{mxonly.example=smtp:mxonly.example:{a.port}, " \
           f"aonly.example=smtp:aonly.example:{a.port}, nullmx.example=smtp:nullmx.example:{a.port}}}}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send(rcpts=["u@mxonly.example"])
        p.wait_log(r"to=<u@mxonly\.example>, relay=mx-a\.example\[127\.0\.0\.2\]:\d+, .*status=sent")
        p.send(rcpts=["u@aonly.example"])
        p.wait_log(r"to=<u@aonly\.example>, relay=aonly\.example\[127\.0\.0\.2\]:\d+, .*status=sent")
        a.stop()
        wait_for(lambda: a.conns == set())
        time.sleep(0.2)
        p.send(rcpts=["u2@mxonly.example"])
        p.wait_log(r"to=<u2@mxonly\.example>, relay=mx-b\.example\[127\.0\.0\.3\]:\d+, .*status=sent")
        p.send(rcpts=["u@nullmx.example"])
        p.wait_log(r"to=<u@nullmx\.example>, .*status=deferred \(Domain nullmx\.example does not accept mail "
                   r"\(nullMX\)\)")
    b.stop()


def test_recipient_domain_that_does_not_exist_bounces(dns):
    with Posthouse("relayhost =\n", dns=dns) as p:
        p.send(rcpts=["u@nowhere.example"])
        p.wait_log(r"to=<u@nowhere\.example>, relay=none, .*dsn=5\.4\.4, status=bounced \(Host or domain name not "
                   r"found\. Name service error for name=nowhere\.example type=A: Host not found\)")
        p.send(rcpts=["u@nullmx.example"])
        p.wait_log(r"dsn=5\.1\.0, status=bounced \(Domain nullmx\.example does not accept mail \(nullMX\)\)")


def test_loop_to_myself_defers(dns):
    p = Posthouse("", dns=dns)
    p.write_main(f"relayhost = [127.0.0.1]:{p.port}\n")
    r = p.run("check")
    assert r.returncode == 2 and "is this system itself" in r.stdout
    with p:
        p.send()
        p.wait_log(r"dsn=4\.3\.5, status=deferred \(mail for \[127\.0\.0\.1\]:\d+ loops back to myself\)")


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
def test_replies_per_recipient(dns, pipelining, chunking):
    def rcpt(line):
        if "bad" in line:
            return "550 5.1.1 no such user"
        if "later" in line:
            return "450 4.2.0 mailbox busy"
    relay = FakeRelay(replies={"RCPT": rcpt}, pipelining=pipelining, chunking=chunking)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(rcpts=["good@y.example", "bad@y.example", "later@y.example", "good2@y.example"])
        p.wait_log(r"to=<good@y\.example>, .*status=sent")
        p.wait_log(r"to=<good2@y\.example>, .*status=sent")
        p.wait_log(r"to=<bad@y\.example>, .*dsn=5\.1\.1, status=bounced \(host 127\.0\.0\.1\[127\.0\.0\.1\] said: "
                   r"550 5\.1\.1 no such user \(in reply to RCPT TO command\)\)")
        p.wait_log(r"to=<later@y\.example>, .*dsn=4\.2\.0, status=deferred")
        relay.wait_mails(2)  # the mail and the report on bad@
        p.wait_log("removed")
        assert [r["address"] for q in p.queue() for r in q["recipients"]] == ["later@y.example"]
    relay.stop()


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
def test_all_recipients_refused_then_next_message(dns, pipelining, chunking):
    """A transaction without recipients leaves the session in order for the next one."""
    relay = FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no" if "bad" in l else None},
                      pipelining=pipelining, chunking=chunking)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\ndefault_destination_concurrency_limit = 1\n",
                   dns=dns) as p:
        for i in range(6):
            p.send(sender="", rcpts=[f"{'bad' if i % 2 else 'good'}{i}@y.example"])
        relay.wait_mails(3)
        p.wait_log("status=bounced", count=3)
        p.wait_log("removed", count=6)
        assert " 503 " not in p.log()
    relay.stop()


@pytest.mark.parametrize("chunking,stage,reply,dsn,status", [
    (False, "DOT", "554 5.7.1 spam", "5.7.1", "bounced"),
    (False, "DOT", "451 4.3.0 later", "4.3.0", "deferred"),
    (False, "DOT", "", "4.4.2", "deferred"),
    (False, "DATA", "554 5.5.0 no", "5.5.0", "bounced"),
    (True, "DOT", "554 5.7.1 spam", "5.7.1", "bounced"),
    (True, "DOT", "451 4.3.0 later", "4.3.0", "deferred"),
    (True, "DOT", "", "4.4.2", "deferred"),
])
def test_end_of_data(dns, chunking, stage, reply, dsn, status):
    relay = FakeRelay(replies={stage: reply}, chunking=chunking)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="")
        p.wait_log(rf"dsn={dsn}, status={status}")
        if reply == "":
            p.wait_log("message may be sent more than once")
    relay.stop()


def test_dot_stuffing_and_long_lines(dns):
    relay = FakeRelay()
    body = ".\r\n..\r\n.x\r\n" + "l" * 3000 + "\r\nend\r\n"
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(content="Subject: dots\r\n\r\n" + body)
        got = relay.wait_mail(b"Subject: dots")["content"].decode().split("\r\n\r\n", 1)[1]
        lines = got.split("\r\n")
        assert lines[:3] == [".", "..", ".x"] and max(map(len, lines)) <= 998
        assert got.replace("\r\n ", "") == body
    relay.stop()


@pytest.mark.parametrize("chunking", [True, False])
def test_lines_are_broken_at_a_lower_limit(dns, chunking):
    """A limit below 998 holds for content whose longest line is between both, with no dot in it and for a relay with CHUNKING too."""
    relay = FakeRelay(chunking=chunking)
    body = "m" * 137 + "\r\n" + "n" * 600 + "\r\nend\r\n"
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_line_length_limit = 140\n", dns=dns) as p:
        p.send(content="Subject: lower\r\n\r\n" + body)
        got = relay.wait_mail(b"Subject: lower")["content"].decode().split("\r\n\r\n", 1)[1]
        assert max(map(len, got.split("\r\n"))) <= 140
        assert got.replace("\r\n ", "") == body
    relay.stop()


def test_bdat_out(dns):
    relay = FakeRelay(chunking=True)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(content="Subject: bdat out\r\n\r\n.\r\n.x\r\n")
        assert relay.wait_mail(b"Subject: bdat out")["content"].endswith(b"\r\n\r\n.\r\n.x\r\n")
        assert any(c.startswith("BDAT ") for c in relay.sessions[0].commands)
        assert "DATA" not in relay.sessions[0].commands
    relay.stop()


def test_extensions_used(dns):
    relay = FakeRelay(size=1000000)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(params=" RET=HDRS ENVID=id+2B1", rparams=" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+2Bx@y.example",
               content="Subject: ext\r\n\r\nh\xe4llo\r\n".encode("latin-1"))
        m = relay.wait_mail(b"Subject: ext")
        assert " SIZE=" in m["from"] and m["from"].endswith("BODY=8BITMIME RET=HDRS ENVID=id+2B1")
        assert m["rcpts"] == ["RCPT TO:<b@y.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+2Bx@y.example"]
    relay.stop()


def test_too_big_for_the_remote(dns):
    relay = FakeRelay(size=100)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="")
        p.wait_log(r"dsn=5\.3\.4, status=bounced \(message size \d+ exceeds size limit 100 of server")
    relay.stop()


def test_smtputf8_not_offered(dns):
    relay = FakeRelay(utf8=False)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="", rcpts=["grüße@y.example"], params=" SMTPUTF8")
        p.wait_log(r"dsn=5\.6\.7, status=bounced \(SMTPUTF8 is required, but was not offered by host")
    relay.stop()


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    return make_cert(tmp_path_factory.mktemp("cert"), "relay.server")


@pytest.mark.parametrize("level,trust,word,ok", [
    ("may", False, "Untrusted", True), ("may", True, "Trusted", True), ("encrypt", False, "Untrusted", True),
    ("verify", True, "Verified", True), ("secure", True, "Verified", True),
    ("verify", False, "Untrusted", False), ("secure", False, "Untrusted", False),
])
def test_tls_levels(dns, cert, level, trust, word, ok):
    relay = FakeRelay(tls=server_tls(*cert))
    ca = f"smtp_tls_CAfile = {cert[0]}\n" if trust else ""
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n{ca}"
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log(rf"{word} TLS connection established to relay\.server\[127\.0\.0\.1\]:\d+: TLSv1\.3 with cipher "
                   r"\S+ \(\d+/\d+ bits\) key-exchange \S+ server-signature RSA\S* \(2048 bits\) server-digest SHA256")
        if ok:
            assert relay.wait_mails(1)[0]["tls"]
            assert [c.split()[0] for c in relay.sessions[0].commands][:3] == ["EHLO", "STARTTLS", "EHLO"]
        else:
            p.wait_log(r"certificate verification failed for relay\.server\[127\.0\.0\.1\]:\d+: self-signed certificate")
            p.wait_log(r"dsn=4\.7\.5, status=deferred \(Server certificate not verified\)")
    relay.stop()


def test_tls_name_mismatch(dns, cert):
    relay = FakeRelay(tls=server_tls(*cert))
    main = f"relayhost = [other.server]:{relay.port}\nsmtp_tls_security_level = verify\nsmtp_tls_CAfile = {cert[0]}\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log(r"dsn=4\.7\.5, status=deferred \(Server certificate does not match the name other\.server\)")
    relay.stop()


def test_tls_required_but_not_offered(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [relay.server]:{relay.port}\nsmtp_tls_security_level = encrypt\n", dns=dns) as p:
        p.send()
        p.wait_log(r"dsn=4\.7\.4, status=deferred \(TLS is required, but was not offered by host relay\.server"
                   r"\[127\.0\.0\.1\]\)")
        assert relay.mails == []
    relay.stop()


def test_auth_only_inside_tls(dns, cert):
    """The usual submission host: AUTH is offered after STARTTLS only."""
    relay = FakeRelay(tls=server_tls(*cert), auth=["PLAIN"], tls_first=True, need_auth=True)
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_sasl_tls_security_options = noanonymous\nsmtp_sasl_password_maps = static:u:p\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        m = relay.wait_mails(1)[0]
        assert m["tls"] and m["auth"] == ("PLAIN", "u", "p")
    relay.stop()


def test_wrappermode(dns, cert):
    relay = FakeRelay(tls=server_tls(*cert), wrap=True)
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_tls_wrappermode = yes\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        assert relay.wait_mails(1)[0]["tls"]
    relay.stop()


def test_implicit_tls_on_465_by_itself(dns, cert):
    relay = FakeRelay("127.0.0.77", 465, tls=server_tls(*cert), wrap=True)
    with Posthouse("relayhost = [127.0.0.77]:465\n", dns=dns) as p:
        p.send()
        assert relay.wait_mails(1)[0]["tls"]
    relay.stop()


def test_tls_policy_table(dns, cert):
    relay = FakeRelay()
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_tls_policy_maps = inline:{{{{[relay.server]:{relay.port}=encrypt}}}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log(r"dsn=4\.7\.4, status=deferred \(TLS is required, but was not offered")
    relay.stop()


@pytest.mark.parametrize("stage,param,text", [
    ("GREETING", "smtp_helo_timeout", "receiving the initial server greeting"),
    ("EHLO", "smtp_helo_timeout", "performing the EHLO handshake"),
    ("MAIL", "smtp_mail_timeout", "sending MAIL FROM"),
    ("RCPT", "smtp_rcpt_timeout", "sending RCPT TO"),
    ("DATA", "smtp_data_init_timeout", "sending DATA command"),
    ("DOT", "smtp_data_done_timeout", "sending end of data -- message may be sent more than once"),
])
def test_timeouts(dns, stage, param, text):
    def stall(line):
        time.sleep(4)
        return ""
    relay = FakeRelay(replies={stage: stall}, pipelining=False)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n{param} = 1s\n", dns=dns) as p:
        p.send()
        p.wait_log(rf"dsn=4\.4\.2, status=deferred \(conversation with 127\.0\.0\.1\[127\.0\.0\.1\] timed out while {text}\)")
    relay.stop()


def test_stale_connection_is_not_an_error(dns):
    """A host that closed a kept connection is simply connected to again."""
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_connection_cache_time_limit = 30s\n", dns=dns) as p:
        p.send()
        relay.wait_mails(1)
        p.wait_log("removed")
        for c in list(relay.conns):
            c.shutdown(2)
        p.send()
        relay.wait_mails(2)
        p.wait_log("removed", count=2)
        assert "deferred" not in p.log()
    relay.stop()


def test_refused_reuse_is_not_an_error(dns):
    """421 to the second MAIL of a connection: the message goes over a new one at once."""
    state = {"n": 0}

    def mail(line):
        state["n"] += 1
        return "421 4.7.0 too many messages in this connection" if state["n"] % 2 == 0 else None
    relay = FakeRelay(replies={"MAIL": mail})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send()
        relay.wait_mails(1)
        p.wait_log("removed")
        p.send()
        relay.wait_mails(2)
        assert "deferred" not in p.log()
    relay.stop()


def test_error_and_discard_transports(dns):
    main = "relayhost =\nsmtpd_reject_unlisted_recipient = no\ntransport_maps = inline:{{ {{y.example = error:5.7.1 nope}}, d.example=discard:silently, " \
           "{{r.example = retry:4.0.1 later}} }}\n"
    with Posthouse(main, dns=dns) as p:
        p.send(sender="", rcpts=["b@y.example", "b@d.example", "b@r.example"])
        p.wait_log(r"error\[\d+\]: \w+: to=<b@y\.example>, relay=none, .*dsn=5\.7\.1, status=bounced \(nope\)")
        p.wait_log(r"discard\[\d+\]: \w+: to=<b@d\.example>, relay=none, .*dsn=2\.0\.0, status=sent \(silently\)")
        p.wait_log(r"to=<b@r\.example>, relay=none, .*dsn=4\.0\.1, status=deferred \(later\)")


def test_pipelined_transactions(dns):
    """Under load the end of one message travels with the next MAIL (RFC 2920)."""
    relay = FakeRelay(delay=0.02)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\ninitial_destination_concurrency = 1\n"
                   "default_destination_concurrency_limit = 1\n", dns=dns) as p:
        with p.client() as c:
            for i in range(30):
                assert c.mail(rcpts=[f"r{i}@y.example"]).startswith("250")
        relay.wait_mails(30)
        assert sorted(m["rcpts"][0] for m in relay.mails) == sorted(f"RCPT TO:<r{i}@y.example>" for i in range(30))
        busy = max(relay.sessions, key=lambda s: len(s.mails))
        assert len(busy.mails) > 5
    relay.stop()


@pytest.fixture
def moving(tmp_path):
    """move.example is at 127.0.0.71 for one name server, and at 127.0.0.72 for the other; a relay host at each."""
    tmp_path.chmod(0o755)
    port = free_port("127.0.0.71")
    relays = [FakeRelay(f"127.0.0.{n}", port) for n in (71, 72)]
    servers = []
    for n in (71, 72):
        (tmp_path / str(n)).mkdir()
        servers.append(Dns(tmp_path / str(n), [f"move.example. 60 IN A 127.0.0.{n}"]))
    yield port, relays, servers
    for s in relays + servers:
        s.stop()


NATIVE = "smtp_host_lookup = native\nresolver_hosts_file = {{dir}}/hosts\n"
FIRST, SECOND = "resolver_servers = 127.0.0.1@{0}\n", "resolver_servers = 127.0.0.1@{1}\n"
RESOLVERS = {"another name server": (FIRST, SECOND),
             "the resolver's file": ("resolver_servers =\nresolver_file = {{dir}}/none.conf\n", SECOND),
             "from DNS to the hosts file": (FIRST, NATIVE),
             "no DNS any more": (FIRST, NATIVE.replace(" = native", " = dns") + "smtp_dns_support_level = disabled\n"),
             "the hosts file itself": (NATIVE, NATIVE)}


@pytest.mark.parametrize("how", RESOLVERS)
def test_a_reload_looks_names_up_anew(moving, how):
    port, relays, servers = moving
    before, after = [f"relayhost = [move.example]:{port}\n" + t.format(*(s.port for s in servers)) for t in RESOLVERS[how]]
    known = how != "the resolver's file"
    with Posthouse(before, files={"hosts": "127.0.0.71 move.example\n", "none.conf": "search example\n"}) as p:
        pid = p.child("relay")
        for i in range(3):  # each thread of the relay has looked it up
            p.send(sender=f"a{i}@x.example")
        p.wait_log(rf"relay=move.example\[127\.0\.0\.71\].*status=sent" if known else "status=deferred.*type=A", count=3)
        (p.dir / "hosts").write_text("127.0.0.72 move.example # moved\n")
        p.write_main(after)
        p.reload()
        for i in range(4):
            p.send(sender=f"b{i}@x.example")
        relays[1].wait_mails(4)
        assert len(relays[0].mails) == (3 if known else 0) and p.child("relay") == pid
        assert ("no DNS server is configured" in p.log()) != known


@pytest.mark.parametrize("own,main", [("smtp_dns_support_level=disabled", ""), ("disable_dns_lookups=yes", ""),
                                      ("smtp_dns_support_level=enabled", "disable_dns_lookups = yes\n")])
def test_a_transport_of_its_own_asks_the_dns_or_does_not(moving, own, main):
    """The name servers say that the host is 127.0.0.71, the hosts file that it is 127.0.0.72."""
    port, relays, servers = moving
    settings = (f"relayhost = [move.example]:{port}\ntransport_maps = inline:{{{{ y.example=own:[move.example]:{port} }}}}\n{main}"
                f"resolver_hosts_file = {{dir}}/hosts\n{FIRST.format(servers[0].port)}")
    with Posthouse(settings, files={"hosts": "127.0.0.72 move.example\n"}, master=f"own unix - - n - - smtp -o {own}\n") as p:
        p.send(rcpts=["b@z.example"])
        p.send(rcpts=["b@y.example"])
        wait_for(lambda: relays[0].mails and relays[1].mails)
        to = [relay.mails[0]["rcpts"][0] for relay in relays]
        assert to == [f"RCPT TO:<b@{domain}.example>" for domain in ("yz" if main else "zy")]


def test_a_reload_while_names_are_looked_up(moving):
    """Questions that are open are answered by the server that they were asked of, or not at all; new ones do not wait."""
    port, relays, servers = moving
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        main = f"relayhost = [move.example]:{port}\nresolver_servers = 127.0.0.1@"
        with Posthouse(main + f"{deaf.getsockname()[1]}\n") as p:
            pid = p.child("relay")
            for i in range(3):
                p.send(sender=f"a{i}@x.example")
            assert deaf.recv(512)
            for i in range(6):  # as often as settings are replaced, nothing is used after it is gone
                p.write_main(main + f"{servers[i % 2].port}\n")
                p.reload()
                p.send(sender=f"b{i}@x.example")
                relays[i % 2].wait_mails(i // 2 + 1)
            assert p.child("relay") == pid and "killed by signal" not in p.log()


def test_a_next_hop_without_a_port_has_that_of_smtp_tcp_port(dns):
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]\nsmtp_tcp_port = {relay.port}\n", dns=dns) as p:
        p.send()
        relay.wait_mail(b"hello")


# What the host says to EHLO, what main.cf has, the line of the log, and the login that the host gets.
LOGIN = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = static:user:pass\n"
NONE = r"status=deferred \(SASL authentication failed: server .* offered no compatible authentication mechanisms"
NOTED = "smtp_tls_security_level = none\nsmtp_tls_note_starttls_offer = yes\n"
HELLOS = [
    ("250-fake.relay\r\n250-AUTH PLAIN\r\n250 AUTH=LOGIN", LOGIN + "smtp_sasl_mechanism_filter = login\n",
     "status=sent", ("LOGIN", "user", "pass")),
    ("250-fake.relay\r\n250 AUTH", LOGIN, NONE, None),
    ("250-fake.relay\r\n250 AUTH=", LOGIN, NONE, None),
    ("250-fake.relay\r\n250 STARTTLS", NOTED,
     r"Host offered STARTTLS: \[127\.0\.0\.1\][\s\S]*status=sent", None),
    ("250-fake.relay\r\n250 STARTTLS", NOTED + "smtp_discard_ehlo_keywords = starttls\n",
     "status=sent", None),
    # What stands around an offer hides it not: with STARTTLS a login would go in clear.
    *[(f"250-fake.relay{end}250-{before}STARTTLS{end}250 AUTH PLAIN", LOGIN + "smtp_tls_security_level = encrypt\n",
       r"refused to start TLS: 454 4\.7\.0 not today", None) for end, before in
      [("\r\r\n", ""), ("\0\r\n", ""), ("\t\r\n", ""), ("\r\n", "  "), ("\r\n", "\t"), ("\n", "")]],
    ("250-fake.relay\r\n250-SIZE 10 bytes\r\n250 AUTH PLAIN", LOGIN,
     r"dsn=5\.3\.4, status=bounced \(message size \d+ exceeds size limit 10 of", ("PLAIN", "user", "pass")),
    ("250-fake.relay\r\n250 AUTH XYZ,PLAIN", LOGIN, "status=sent", ("PLAIN", "user", "pass")),
    ("250-fake.relay\r\n250\tAUTH PLAIN", LOGIN, "status=sent", ("PLAIN", "user", "pass")),
    ("250 fake.relay", "smtp_helo_name = k\u00f6ln..example\n", r"dsn=4\.3\.5, status=deferred \(smtp_helo_name = ", None),
    ("250 MTA.example", "", "status=sent", None),  # by our own name, on a port that is not 25
]


def test_what_hosts_say_to_ehlo(dns):
    """What is made of lists that come twice or are empty, of offers that are noted only, and of a host that is ourselves by its name."""
    relay = FakeRelay(replies={"STARTTLS": "454 4.7.0 not today"})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        for n, (hello, main, line, login) in enumerate(HELLOS):
            relay.replies["EHLO"] = hello
            p.write_main(f"relayhost = [127.0.0.1]:{relay.port}\n{main}")
            p.reload()
            before, logged = len(relay.sessions), len(p.log())
            p.send(rcpts=[f"n{n}@y.example"])
            wait_for(lambda: re.search(rf"to=<n{n}@y\.example>", p.log()))
            assert re.search(line, p.log()[logged:]), (hello, p.log()[logged:])
            assert ("Host offered STARTTLS" in p.log()[logged:]) == ("offered STARTTLS" in line), hello
            assert [s.auth for s in relay.sessions[before:] if s.auth] == ([login] if login else []), hello
        with FakeRelay("127.0.0.78", 25, replies={"EHLO": "250-MTA.example hello\r\n250 DSN"}) as own:
            p.write_main("relayhost = [port25.server]\n")
            p.reload()
            p.send(rcpts=["own@y.example"])
            p.wait_log(r"warning: host port25\.server\[127\.0\.0\.78\]:25 replied to HELO/EHLO with my own hostname mta\.example")
            p.wait_log(r"to=<own@y\.example>.*dsn=4\.3\.5, status=deferred \(mail for \[port25\.server\] loops back to myself\)")
            assert own.mails == []
    relay.stop()


@pytest.mark.parametrize("reply", ["452 4.3.1 no room today", "421 4.3.2 no room today"])
def test_mails_that_share_a_connection_do_not_send_each_other_back(dns, reply):
    """A host refuses each content and hangs up at the mail behind it: both go to the next host, one after the other."""
    gate, refused = threading.Event(), []
    first = FakeRelay(replies={"GREETING": lambda line: refused.clear() or gate.wait(60) and None,
                               "DOT": lambda line: refused.append(line) or reply, "MAIL": lambda line: "" if refused else None})
    last = FakeRelay("127.0.0.2")
    main = f"relayhost = [127.0.0.1]:{first.port}, [127.0.0.2]:{last.port}\nsmtp_destination_concurrency_limit = 1\nrelay_threads = 1\n"
    with Posthouse(main, dns=dns) as p:
        for number in range(6):
            p.send(rcpts=[f"u{number}@y.example"])
        gate.set()
        p.wait_log("status=sent", count=6)
        assert p.queue() == [] and len(last.mails) == 6 and len(first.sessions) <= 6
    first.stop()
    last.stop()


class Flushing(FakeRelay):
    """A relay host that offers PIPELINING and drops what has come behind a command, or behind the final dot, when it answers."""

    def __init__(self, where, **kw):
        self.where, self.dropped, self.taken = where, 0, []
        super().__init__(**kw)

    def _serve(self, conn):
        says = {b"EHLO": b"250-flushing\r\n250 PIPELINING", b"MAIL": b"250 2.1.0 ok", b"RCPT": b"250 2.1.5 ok", b"DATA": b"354 go",
                b"QUIT": b"221 bye", b"RSET": b"250 ok"}
        data = b""
        with contextlib.suppress(OSError):
            conn.sendall(b"220 flushing\r\n")
            while True:
                while b"\r\n" not in data:
                    more = conn.recv(65536)
                    if not more:
                        return
                    data += more
                line, data = data.split(b"\r\n", 1)
                verb = line[:4].upper()
                if self.where == "group":
                    data = self.drop(data)
                conn.sendall(says[verb] + b"\r\n")
                if verb != b"DATA":
                    continue
                while not data.endswith(b"\r\n.\r\n") and b"\r\n.\r\n" not in data:
                    data += conn.recv(65536)
                content, data = data.split(b"\r\n.\r\n", 1)
                self.taken.append(content)
                time.sleep(0.2)  # the next message is here by then
                conn.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    data += conn.recv(65536)
                conn.setblocking(True)
                data = self.drop(data)
                conn.sendall(b"250 2.0.0 taken\r\n")

    def drop(self, data):
        self.dropped += bool(data)
        return b""


@pytest.mark.parametrize("where", ["group", "dot"])
def test_a_relay_that_drops_what_is_pipelined_costs_one_timeout(dns, where):
    relay = Flushing(where)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 1\nsmtp_mail_timeout = 2s\n"
                   "smtp_rcpt_timeout = 2s\nminimal_backoff_time = 1s\nqueue_run_delay = 1s\ninitial_destination_concurrency = 1\n",
                   dns=dns) as p:
        for _ in range(6):
            p.send()
        wait_for(lambda: len(relay.taken) >= 6)
        wait_for(lambda: p.log().count("status=sent") == 6)
        log = p.log()
        assert relay.dropped == 1 and len(relay.taken) == 6, relay.dropped
        assert log.count("from now on they go one by one") == 1
        assert "status=bounced" not in log
    relay.stop()
