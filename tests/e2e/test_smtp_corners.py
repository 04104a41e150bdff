"""The SMTP server with settings that few have: what it offers, refuses and adds then."""
import base64
import re
import socket

import pytest
from kit import Client, Dns, FakeRelay, Posthouse, free_port, make_cert, wait_for
from test_auth import FakeDovecot, fake_main

FROM, TO = "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"
LIMITS = "smtpd_hard_error_limit = 1000\nsmtpd_soft_error_limit = 1000\n"
b64 = lambda text: base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def relay():
    with FakeRelay() as r:
        yield r


def server(dns, relay, main, **more):
    return Posthouse(LIMITS + f"relayhost = [127.0.0.1]:{relay.port}\n" + main, dns=dns, **more)


def come_together(port, n):
    """n clients that connect at the same moment."""
    clients = [socket.socket() for _ in range(n)]
    for s in clients:
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", port))
    for s in clients:
        s.settimeout(60)
    return clients


def test_the_process_limit_counts_all_loops(dns, relay):
    """A service has so many places, however the kernel spreads its clients over the threads, and also for those that come together."""
    main = ("relay_threads = 4\ndefault_process_limit = 1\nsmtpd_client_connection_count_limit = 0\n"
            "smtpd_peername_lookup = no\n")
    with server(dns, relay, main) as p:
        def all_have_left():
            log = p.log()
            return log.count(" connect from ") == log.count(" disconnect from ")
        for _ in range(5):
            wait_for(all_have_left)
            clients = come_together(p.port, 140)
            assert [s.recv(3) for s in clients].count(b"220") == 100
            for s in clients:
                s.close()


def test_less_is_offered(dns, relay):
    main = ("disable_vrfy_command = yes\nsmtputf8_enable = no\nsmtpd_discard_ehlo_keywords = chunking, 8BITMIME dsn\n"
            "smtpd_helo_required = yes\nstrict_rfc821_envelopes = yes\n")
    with server(dns, relay, main) as p, p.client(ehlo=None) as c:
        assert c.cmd(FROM) == "503 5.5.1 Error: send HELO/EHLO first"
        assert c.cmd("EHLO a") == "250 mta.example\nPIPELINING\nSIZE 10240000\nENHANCEDSTATUSCODES"
        assert c.cmd("VRFY <a@x.example>") == "502 5.5.1 VRFY command is disabled"
        assert c.cmd(FROM + " SMTPUTF8") == "555 5.5.4 Unsupported option: SMTPUTF8"
        assert c.cmd("MAIL FROM:a@x.example") == "501 5.1.7 Bad sender address syntax"
        assert c.cmd("MAIL FROM:<ä@x.example>") == "250 2.1.0 Ok"
        assert c.cmd("RCPT TO:b@y.example") == "501 5.1.3 Bad recipient address syntax"
        assert c.cmd("RCPT FROM:<b@y.example>") == "501 5.5.4 Syntax: RCPT TO:<address>"
    with server(dns, relay, "smtpd_discard_ehlo_keywords = PIPELINING SIZE VRFY ENHANCEDSTATUSCODES 8BITMIME DSN SMTPUTF8 CHUNKING\n") as p:
        with p.client() as c:
            assert c.ehlo == "250 mta.example"


def test_parameters(dns, relay):
    with server(dns, relay, "") as p, p.client() as c:
        for bad in ("SIZE=", "SIZE=99999999999999999999", "SMTPUTF8=1", "BODY=BINARYMIME", "RET=", "RET=ALL",
                    "ENVID=", "ENVID=" + "x" * 101, "AUTH=<>", "X"):
            assert c.cmd(f"{FROM} {bad}")[:3] in ("501", "552", "555"), bad
        assert c.cmd(f"{FROM} BODY=7BIT RET=FULL ENVID=e SIZE=0 SMTPUTF8") == "250 2.1.0 Ok"
        for bad in ("NOTIFY=", "NOTIFY=SOMETIMES", "NOTIFY=NEVER,DELAY", "ORCPT=x", "ORCPT=", "ORCPT=;", "FOO", "FOO=bar"):
            assert c.cmd(f"{TO} {bad}")[:3] in ("501", "555"), bad
        assert c.cmd(f"{TO} NOTIFY=DELAY,FAILURE") == c.cmd(f"{TO} NOTIFY=NEVER") == "250 2.1.5 Ok"
        assert c.cmd("DATA now") == "501 5.5.4 Syntax: DATA"
        assert c.cmd("VRFY") == "501 5.5.4 Syntax: VRFY address [SMTPUTF8]"
        assert c.cmd("VRFY a@x.example b") == "501 5.1.3 Bad recipient address syntax"
        c.cmd("RSET")
        assert c.cmd("HELO a") == "250 mta.example" and c.cmd("EHLO") == "501 Syntax: EHLO hostname"


def test_addresses_are_completed_or_not(dns, relay):
    with server(dns, relay, "myorigin = origin.example\nmydomain = home.example\n") as p:
        p.send(sender="ann", rcpts=["carl@office"], content="Subject: completed\r\n\r\nx\r\n")
        done = relay.wait_mail(b"Subject: completed")
    with server(dns, relay, "append_at_myorigin = no\nappend_dot_mydomain = no\nmyorigin = origin.example\n") as p:
        p.send(sender="ann", rcpts=["carl@office"], content="Subject: as they are\r\n\r\nx\r\n")
        as_is = relay.wait_mail(b"as they are")
    assert done["from"].startswith("MAIL FROM:<ann@origin.example>") and done["rcpts"][0].startswith("RCPT TO:<carl@office")
    assert as_is["from"].startswith("MAIL FROM:<ann>") and as_is["rcpts"][0].startswith("RCPT TO:<carl@office>")


def test_what_is_added_to_whose_mail(dns, relay):
    """Missing header fields are added for clients in local_header_rewrite_clients only."""
    def fields(main, mark, sender="a@x.example", text="Subject: "):
        with server(dns, relay, main) as p:
            p.send(sender=sender, content=f"{text}{mark}\r\n\r\nx\r\n")
            content = relay.wait_mail(mark.encode())["content"].decode().split("\r\n\r\n")[0]
            return [n for n in ("Message-Id", "Date", "From") if re.search(f"^{n}: ", content, re.M)]
    assert fields("", "own-interface") == ["Message-Id", "Date", "From"]
    assert fields("local_header_rewrite_clients =\n", "no-client") == []
    assert fields("local_header_rewrite_clients =\nalways_add_missing_headers = yes\n", "always") == ["Message-Id", "Date", "From"]
    assert fields("local_header_rewrite_clients = permit_mynetworks\n", "networks") == ["Message-Id", "Date", "From"]
    assert fields("local_header_rewrite_clients = permit_mynetworks\nmynetworks = 192.0.2.0/24\n"
                  "smtpd_relay_restrictions = permit_inet_interfaces, reject\n", "others") == []
    assert "From" in fields("", "no-sender", sender="")
    assert b"From: MAILER-DAEMON\r\n" in relay.wait_mail(b"no-sender")["content"]


def test_whose_headers_are_completed_when_a_table_fails(dns, relay):
    """Mail waits with its client; a word that there is none of is named, and passed over as by Postfix."""
    with server(dns, relay, "local_header_rewrite_clients = permit_sasl_authenticated, hash:{dir}/gone\n") as p, p.client() as c:
        for content in ("DATA\r\n", "BDAT 11 LAST\r\nS: x\r\n\r\nx\r\n"):
            assert c.cmd(FROM).startswith("250") and c.cmd(TO).startswith("250")
            c.raw(content)
            assert c.reply() == "451 4.3.0 Temporary lookup failure"
            assert c.cmd("RSET").startswith("250")
        p.write_main("local_header_rewrite_clients = permit_everybody\n")
        check = p.run("check")
        assert check.returncode == 1 and 'there is no "permit_everybody": it is passed over' in check.stdout, check.stdout


def test_transports_that_refuse(dns, relay):
    table = ("gone.example error:5.1.6 moved away\nplain.example error:no such place\n"
             "later.example retry:4.2.1 full\nsoon.example retry:soon\n"
             "four.example error:4.3.1 not now\n"
             "drop.example discard:\nlocal.example local:\n")
    main = "transport_maps = texthash:{dir}/transport\n"
    with server(dns, relay, main, files={"transport": table}) as p, p.client() as c:
        c.cmd(FROM)
        want = {"gone": "550 5.1.6 <x@gone.example>: Recipient address rejected: moved away",
                "plain": "550 5.1.1 <x@plain.example>: Recipient address rejected: no such place",
                "later": "450 4.2.1 <x@later.example>: Recipient address rejected: full",
                "soon": "450 4.1.1 <x@soon.example>: Recipient address rejected: soon",
                "four": "450 4.3.1 <x@four.example>: Recipient address rejected: not now",
                "drop": "250 2.1.5 Ok",
                "local": "451 4.3.5 <x@local.example>: mail transport unavailable: Posthouse relays only, see transport_maps"}
        assert {name: c.cmd(f"RCPT TO:<x@{name}.example>") for name in want} == want
    with server(dns, relay, main + "smtpd_reject_unlisted_recipient = no\n", files={"transport": table}) as p, p.client() as c:
        c.cmd(FROM)
        assert c.cmd("RCPT TO:<x@gone.example>") == "250 2.1.5 Ok"


def test_no_room(dns, relay):
    for most in ("queue_minfree = 8000000000000000", "message_size_limit = 8000000000000000", "message_size_limit = 6148914691236517206"):
        with server(dns, relay, most + "\n") as p, p.client() as c:
            assert c.cmd(FROM) == "452 4.3.1 Insufficient system storage"
            p.wait_log("warning: not enough free space in mail queue")
    limit = "smtpd_client_recipient_rate_limit = 2\nsmtpd_client_event_limit_exceptions =\n"
    with server(dns, relay, limit) as p, p.client() as c:
        c.cmd(FROM)
        assert [c.cmd(TO) for _ in range(3)] == ["250 2.1.5 Ok"] * 2 + ["450 4.7.1 Error: too many recipients from 127.0.0.1"]
        p.wait_log("Recipient address rate limit exceeded: 3 from")


def test_too_many_sessions_and_lines(dns, relay):
    with server(dns, relay, "default_process_limit = 1\nrelay_threads = 1\nsmtpd_client_connection_count_limit = 0\n") as p:
        kept = [socket.create_connection(("127.0.0.1", p.port)) for _ in range(101)]
        for s in kept:
            s.settimeout(20)
        said = [s.recv(100)[:9] for s in kept]
        assert b"421 4.3.2" in said and said.count(b"220 mta.e") >= 90
        for s in kept:
            s.close()
        wait_for(p._greets)
    with server(dns, relay, "") as p:
        with Client(p.port, ehlo=None) as c:
            c.raw(b"NOOP\nEHLO lf\nNOOP " + b"x" * 10000)  # a bare LF ends a line, none at all does not
            assert c.reply().startswith("250") and c.reply().startswith("250")
            assert c.reply() == "500 5.5.2 Error: line too long" and c.reply() is None
        p.wait_log("line too long after UNKNOWN from")


def test_starttls_where_it_does_not_fit(dns, relay):
    p = server(dns, relay, "smtpd_tls_security_level = may\n"
               "smtpd_tls_cert_file = {dir}/mta.example.pem\nsmtpd_tls_key_file = {dir}/mta.example.key\n")
    make_cert(p.dir, "mta.example")
    with p, p.client() as c:
        assert c.cmd("STARTTLS now") == "501 5.5.4 Syntax: STARTTLS"
        c.cmd(FROM)
        c.starttls()
        assert c.cmd("RCPT TO:<b@y.example>") == "503 5.5.1 Error: need MAIL command"
        assert c.cmd("STARTTLS") == "554 5.5.1 Error: TLS already active"
        assert c.mail(content="Subject: no helo\r\n\r\nx\r\n").startswith("250")
        assert b"Received: from localhost (localhost [127.0.0.1])" in relay.wait_mail(b"no helo")["content"]


def test_local_mail_and_stopping(dns, relay):
    """sendmail's socket: no greeting in the log, every limit off; a stop ends idle sessions with 421."""
    with server(dns, relay, "smtpd_client_connection_count_limit = 1\n") as p:
        r = p.run("-f", "me@x.example", "you@y.example", face="sendmail", stdin="Subject: by sendmail\n\nx\n")
        assert r.returncode == 0, r.stderr
        assert b"Received: by mta.example" in relay.wait_mail(b"by sendmail")["content"]
        p.wait_log(r"pickup\[\d+\]: \w+: uid=\d+ from=<me@x.example>")
        idle, busy = p.client(), p.client()
        busy.cmd(FROM)
        p.proc.terminate()
        assert idle.reply() == "421 4.3.2 mta.example Service shutting down"


ANSWERS = {"temp": (b"FAIL\t%s\ttemp\n", "454 4.7.0 Temporary authentication failure: internal error"),
           "temp with a reason": (b"FAIL\t%s\ttemp\treason=disk\n", "454 4.7.0 Temporary authentication failure: disk"),
           "no reason": (b"FAIL\t%s\tuser=u\n", "535 5.7.8 Error: authentication failed: (reason unavailable)"),
           "a reason with controls": (b"FAIL\t%s\treason=a\rb\x01c\n", "535 5.7.8 Error: authentication failed: a?b?c"),
           "no user": (b"OK\t%s\tresp=x\n", "454 4.7.0 Temporary authentication failure: no user name")}


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_dovecot_answers(dns, kind):
    answer, want = ANSWERS[kind]
    fake = FakeDovecot(lambda fields: answer % fields[1])
    with Posthouse(fake_main(fake).replace("inet:127.0.0.1", "inet:localhost"), dns=dns) as p, p.client() as c:
        assert c.cmd("AUTH PLAIN AGE=") == want
        assert c.cmd("NOOP") == "250 2.0.0 Ok"
    fake.down()


def test_properties_of_mechanisms(dns):
    fake = FakeDovecot(lambda fields: b"OK\t" + fields[1] + b"\tuser=u\n")
    with Posthouse(fake_main(fake) + "smtpd_sasl_security_options = noplaintext, noanonymous\n", dns=dns) as p, p.client() as c:
        assert "AUTH CRAM-MD5\n" in c.ehlo
        assert c.cmd("AUTH PLAIN AGE=").startswith("535 5.7.8 Error: authentication failed: Invalid authentication mechanism")
        assert c.cmd("AUTH cram-md5 =").startswith("235")
    with Posthouse(fake_main(fake) + "smtpd_sasl_security_options = mutual_auth\n", dns=dns) as p, p.client(ehlo=None) as c:
        assert c.cmd("AUTH PLAIN AGE=") == "503 5.5.1 Error: send HELO/EHLO first"
        assert "AUTH" not in c.cmd("EHLO x") and c.cmd("AUTH CRAM-MD5").startswith("535")
    fake.down()


def test_passwords_that_are_none(dns):
    import servers
    from test_auth import STORED
    db = servers.Sqlite()
    servers.add_user(db, "user@domain.com", STORED["ssha-8"][0])
    main = f"smtpd_sasl_auth_enable = yes\naccounts_store = sqlite:{db.dir}/vmail.db\n" + LIMITS
    with Posthouse(main, dns=dns) as p, p.client() as c:
        for bad in ("=", b64("\0user"), b64("no nul"), b64("\0u\0p\0x"), "AGE", "A==="):
            assert c.cmd(f"AUTH PLAIN {bad}").startswith("535 5.7.8 Error: authentication failed: "), bad
        assert c.cmd("AUTH LOGIN " + b64("user@domain.com")) == "334 UGFzc3dvcmQ6"
        assert c.cmd(b64("a\0b")) == "535 5.7.8 Error: authentication failed: malformed LOGIN response"
        assert c.cmd("AUTH PLAIN") == "334 " and c.cmd("*") == "501 5.7.0 Authentication aborted"
    with Posthouse(main + "smtpd_sasl_security_options = noplaintext\n", dns=dns) as p, p.client() as c:
        assert "AUTH" not in c.ehlo
    db.stop()


def test_a_submission_service_says_nothing_of_its_clients(dns):
    """The Received field of Postfix 3.10, for one recipient and for several; other services tell."""
    port = free_port()
    with FakeRelay() as relay, server(dns, relay, "mynetworks = 127.0.0.0/8\n", master=f"127.0.0.1:{port} inet n - n - - smtpd "
                                      "-o smtpd_hide_client_session=yes\n") as p:
        for n, (to, how) in enumerate(((port, ["b@y.example"]), (port, ["b@y.example", "c@y.example"]), (p.port, ["b@y.example"]))):
            with Client(to) as c:
                assert c.mail("a@x.example", how, content=f"X-Case: {n}-\r\n\r\n").startswith("250")
        date = rb"\w{3}, +\d+ \w{3} \d{4} [\d:]{8} [+-]\d{4} \(\w+\)\r\n"
        top = rb"Received: by mta\.example \(Post\w+\) id \w+"
        for n, rest in enumerate((rb"\r\n\tfor <b@y\.example>; ", rb";\r\n\t")):
            assert re.match(top + rest + date + b"X-Case", relay.wait_mail(b"%d-" % n)["content"])
        assert relay.wait_mail(b"2-")["content"].startswith(b"Received: from client.example (")


def test_a_clients_name_that_was_not_found_is_asked_for_again(tmp_path):
    """Name servers that fail are no reason to refuse for good.  A name that was found counts on, until a reload."""
    who, arpa = "127.0.62.90", "90.62.0.127.in-addr.arpa."
    names = Dns(tmp_path, [], refused=[arpa])
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    p = Posthouse("relayhost = [127.0.0.1]:9\nrelay_threads = 1\nmynetworks = 127.0.0.0/8\n"
                  f"resolver_hosts_file = {hosts}\nunknown_client_reject_code = 550\n"
                  "smtpd_client_restrictions = reject_unknown_client_hostname, "
                  "check_client_access inline:{{ {{old.example=521 old}} }}\n", dns=names)

    def reply():
        with Client(p.port, source=who) as c:
            c.cmd(FROM)
            return c.cmd(TO)
    with p:
        assert reply() == f"450 4.7.25 Client host rejected: cannot find your hostname, [{who}]"
        names.stop()
        names = Dns(tmp_path, [f"{arpa} 60 IN PTR here.example.", f"here.example. 60 IN A {who}"], port=names.port)
        wait_for(lambda: reply().startswith("250"))
        names.stop()
        assert reply().startswith("250")
        hosts.write_text(f"{who} old.example\n")
        p.reload()
        wait_for(lambda: reply().startswith("521"))


def test_states_can_be_followed(dns, relay):
    """POSTHOUSE_TRACE: each change of a session's state is a line of the log."""
    p = server(dns, relay, "smtpd_peername_lookup = no\n")
    p.extra_env["POSTHOUSE_TRACE"] = "1"
    with p:
        p.send()
        p.wait_log(r"trace: unknown\[127\.0\.0\.1\]: new -> command")
        p.wait_log(r"trace: unknown\[127\.0\.0\.1\]: command -> wait")
        p.wait_log(r"trace: unknown\[127\.0\.0\.1\]: command -> content")
