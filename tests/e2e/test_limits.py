"""What strangers can make the server hold, one kind of resource after the other: each with its bound as a number."""
import contextlib
import json
import os
import re
import resource
import socket
import ssl
import struct
import subprocess
import threading

import pytest
from kit import SLOW, Client, FakeRelay, Listener, Posthouse, free_port, server_tls, wait_ended, wait_for

FROM, TO = "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"
STRANGERS = "mynetworks = 127.0.0.9\nsmtpd_client_event_limit_exceptions =\nrelayhost = [127.0.0.1]:9\nrelay_threads = 1\n"
KIB = 1024


def held(p):
    """Kilobytes that the relay process has in memory."""
    status = open(f"/proc/{p.child('relay')}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def descriptors(p):
    return len(os.listdir(f"/proc/{p.child('relay')}/fd"))


def warm(p):
    """Memory that is there whatever clients do."""
    for _ in range(3):
        with p.client() as c:
            c.cmd(FROM)
    return held(p)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_memory_of_sessions_that_wait(dns, server_cert, tls):
    """400 of them, after EHLO and a refused recipient: 8 KiB each, 40 with TLS; all of it and the descriptors come back."""
    each, n = (40 if tls else 8), 400 // SLOW
    conf = (STRANGERS + "smtpd_client_connection_count_limit = 0\nsmtpd_tls_security_level = may\n"
            f"smtpd_tls_cert_file = {server_cert[0]}\nsmtpd_tls_key_file = {server_cert[1]}\n")
    with Posthouse(conf, dns=dns) as p:
        before, fds, clients = warm(p), descriptors(p), []
        for _ in range(n):
            c = p.client()
            if tls:
                c.starttls()
                c.cmd("EHLO client.example")
            assert c.cmd(FROM).startswith("250") and c.cmd(TO)[:3] in ("454", "554")
            clients.append(c)
        used = held(p) - before
        print(f"{used / n:.1f} KiB a session")
        assert descriptors(p) - fds <= n + 1
        if SLOW == 1:
            assert used / n < each
        for c in clients:
            c.sock.close()
            c.f.close()
        wait_for(lambda: descriptors(p) <= fds + 2)


@pytest.mark.parametrize("wrong", ["fd00:5::7/16", "2001:db8::/130"])
def test_too_many_connections_where_a_network_is_wrong(dns, wrong):
    """What looks like a table, and is a network with a mistake, exempts nobody, and stops nothing."""
    conf = f"smtpd_client_connection_count_limit = 1\nsmtpd_client_event_limit_exceptions = {wrong}, 192.0.2.0/24\n"
    with Posthouse(conf, dns=dns) as p:
        relay = p.child("relay")
        with p.client():
            for _ in range(3):
                with Client(p.port, ehlo=None) as c:
                    assert c.greeting and c.greeting.startswith("421"), c.greeting
            assert p.child("relay") == relay
        assert f'"{wrong}"' in p.log()


LONG = "x" * 60 + "." + "y" * 60 + ".example"


def test_memory_of_what_strangers_say(dns):
    """Commands, recipients and answers of the greatest length, as far as each is taken: less than 80 KiB a session."""
    said = {"refused recipients": [FROM] + [f"RCPT TO:<{i}{'a' * 200}@{LONG}> ORCPT=rfc822;{'b' * 900}" for i in range(18)],
            "longest name": ["EHLO " + "e" * 2000] * 90, "envelopes": [f"MAIL FROM:<{'a' * 200}@{LONG}> ENVID={'b' * 90}", "RSET"] * 40,
            "answers": ["AUTH PLAIN " + "QUFB" * 480] * 18, "unread": ["EHLO x"] * 100 + ["NOOP"] * 10}
    conf = STRANGERS + "smtpd_error_sleep_time = 0\nsmtpd_sasl_auth_enable = yes\nsmtpd_client_connection_count_limit = 0\n"
    with Posthouse(conf, dns=dns) as p:
        before, clients = warm(p), []
        for lines in said.values():
            for _ in range(10):
                c = Client(p.port, ehlo="x")
                c.raw("".join(line + "\r\n" for line in lines))
                clients.append(c)
        for c in clients[:40]:
            c.cmd("VRFY <last@y.example>")
        print(f"{(held(p) - before) / len(clients):.1f} KiB a session")
        assert SLOW > 1 or (held(p) - before) / len(clients) < 80


def test_memory_of_certificates_that_clients_show(dns, server_cert, tmp_path):
    """A chain of 32 KiB, to a server that asks: less than 80 KiB a session, and nothing stays of those that have ended, of TLS 1.2
    without tickets neither; a longer one ends the handshake."""
    pem, key = (path.read_text() for path in server_cert)
    each = len(ssl.PEM_cert_to_DER_cert(pem)) + 8
    conf = (STRANGERS + "smtpd_client_connection_count_limit = 0\nsmtpd_tls_security_level = may\nsmtpd_tls_ask_ccert = yes\n"
            f"smtpd_tls_cert_file = {server_cert[0]}\nsmtpd_tls_key_file = {server_cert[1]}\n")

    def context(n):
        (tmp_path / "chain").write_text(key + pem * n)
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.check_hostname, c.verify_mode, c.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
        c.options |= ssl.OP_NO_TICKET
        c.load_cert_chain(tmp_path / "chain")
        return c

    with Posthouse(conf, dns=dns) as p:
        most, longer, clients, used = context(32 * KIB // each), context(32 * KIB // each + 1), [], []
        for ends in (True, False):
            for i in range(70):
                c = p.client()
                c.starttls(most)
                assert c.cmd("EHLO x").startswith("250")
                clients.append(c)
                if ends:
                    assert c.cmd("QUIT").startswith("221")
                    c.f.close(), c.sock.close()
                if i == 9:
                    before = held(p)
            used.append((held(p) - before) / 60)
        print(f"{used[0]:.1f} KiB of one that has ended, {used[1]:.1f} KiB a session")
        assert SLOW > 1 or (used[0] < 8 and used[1] < 80)
        with p.client() as c, pytest.raises(OSError):
            c.starttls(longer)


@pytest.mark.parametrize("field", [b"X: " + b"a" * 50_000, b"To: a" + b",\r\n b" * 8000], ids=["line", "addresses"])
def test_header_section_in_many_small_chunks(dns, field):
    """What has come of a field, or what waits behind a chunk, was looked at with each byte: one client kept the thread from all others."""
    with Posthouse("relayhost = [127.0.0.1]:9\nrelay_threads = 1\n", dns=dns) as p, p.client() as c:
        for line in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"):
            assert c.cmd(line).startswith("250")
        c.raw(b"BDAT %d\r\n" % len(field) + field)
        assert c.reply().startswith("250")
        before = p.processor("relay")
        sender = threading.Thread(target=c.raw, args=(b"BDAT 1\r\nb" * 15_000 + b"BDAT 4 LAST\r\n\r\n\r\n",), daemon=True)
        sender.start()
        assert all(c.reply().startswith("250") for _ in range(15_001))
        wait_ended(sender)
        used = p.processor("relay") - before
        print(f"{used:.2f} s")
        assert used < 0.15 * SLOW


def wide_cert(directory, names=1, subject=1, extensions=0):
    """Certificate and key with so many names, parts of its subject and extensions of no meaning."""
    path = directory / f"{names}-{subject}-{extensions}.pem"
    (directory / "conf").write_text(
        "[req]\nprompt = no\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\nCN = mx\n" +
        "".join(f"{i}.O = a\n" for i in range(1, subject)) + "[ext]\n" +
        "".join(f"1.2.3.{i} = DER:05:00\n" for i in range(extensions)) + "subjectAltName = @names\n[names]\n" +
        "".join(f"DNS.{i} = a\n" for i in range(names)))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-config", directory / "conf", "-keyout", path,
                    "-out", directory / "cert"], check=True, capture_output=True)
    path.write_text(path.read_text() + (directory / "cert").read_text())
    return path


@pytest.mark.parametrize("shown, held_up", [({"names": 20_000}, True), ({"names": 25_000}, False), ({"subject": 1500}, False),
                                            ({"extensions": 100}, False)], ids=str)
def test_memory_of_certificates_that_hosts_show(dns, tmp_path, shown, held_up):
    """One mail to many hosts of a stranger that say nothing behind the handshake: a certificate of 60 KiB took 2.3 MiB for each.  Less
    than 280 KiB with the largest that is taken; one that is larger, or would grow most in memory, ends the handshake."""
    over = threading.Event()
    tls = server_tls(*[wide_cert(tmp_path, **shown)] * 2)
    with FakeRelay("0.0.0.0", tls=tls, replies={"MAIL": lambda line: (over.wait(120), "421 4.3.2 over")[1]}) as relay:
        main = f"smtp_tcp_port = {relay.port}\nsmtp_tls_security_level = encrypt\nrelay_threads = 1\nsmtp_connect_timeout = 120s\n"
        with Posthouse(main, dns=dns) as p:
            def send(first, n):
                assert p.send(rcpts=[f"u@[127.1.0.{first + i}]" for i in range(n)]).startswith("250")

            def wait_greeted(n):
                wait_for(lambda: sum(s.tls and any(c.startswith("MAIL") for c in s.commands) for s in relay.sessions) == n)
            send(1, 10)
            if held_up:
                wait_greeted(10)
                before = held(p)
                send(11, 60)
                wait_greeted(70)
                each = (held(p) - before) / 60
                print(f"{each:.1f} KiB a session")
                assert SLOW > 1 or each < 280
            else:
                p.wait_log("dsn=4.7.5, status=deferred .Cannot start TLS: handshake failure", 60, count=10)
                assert not any(s.tls for s in relay.sessions)
            over.set()


def test_memory_of_the_greatest_envelope(dns):
    """smtpd_recipient_limit recipients of the greatest length from a client that may send: 4 MiB, which come back."""
    conf = "relayhost = [127.0.0.1]:9\nrelay_threads = 1\nline_length_limit = 2048\n"
    with Posthouse(conf, dns=dns) as p:
        before = warm(p)
        with p.client() as c:
            c.cmd(FROM)
            for i in range(1000):
                assert c.cmd(f"RCPT TO:<{i}@{LONG}> ORCPT=rfc822;{'b' * 1700}") == "250 2.1.5 Ok"
            assert c.cmd(TO) == "452 4.5.3 Error: too many recipients"
            used = held(p) - before
            print(f"{used} KiB")
            assert SLOW > 1 or used < 4 * KIB
            for i in range(50):  # and they do not add up
                c.cmd("RSET"), c.cmd(FROM)
                assert c.cmd(f"RCPT TO:<{i}@{LONG}> ORCPT=rfc822;{'b' * 1700}") == "250 2.1.5 Ok"
        assert SLOW > 1 or held(p) - before < 4 * KIB


@pytest.mark.parametrize("local", [False, True], ids=["clients", "programs"])
def test_memory_of_many_great_envelopes(dns, local):
    """All that are being made at a time stay within message_memory_limit: beyond that each may have some recipients, and is told at
    the next one that there are too many.  Small ones go on, and large ones when there is room again."""
    conf = f"relay_threads = 1\nmessage_memory_limit = {16 * KIB * KIB}\n"
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + conf, dns=dns) as p:
        def great():
            s = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
            s.connect(str(p.dir / "spool/public/submit.sock") if local else ("127.0.0.1", p.port))
            s.sendall(b"EHLO x\r\nMAIL FROM:<a@x.example>\r\n")
            s.sendall(b"".join(b"RCPT TO:<%d@y.example> ORCPT=rfc822;%s\r\n" % (i, b"b" * 1900) for i in range(900)) + b"NOOP\r\n")
            replies = s.makefile("rb")
            said = [line for line in iter(replies.readline, b"250 2.0.0 Ok\r\n") if line[3:4] == b" "][3:]
            assert len(said) == 900 and set(said) <= {b"250 2.1.5 Ok\r\n", b"452 4.5.3 Error: too many recipients\r\n"}
            return said.count(b"250 2.1.5 Ok\r\n"), s, replies

        before = warm(p)
        taken = [great() for _ in range(24)]
        print(f"{held(p) - before} KiB, {[n for n, *_ in taken]}")
        assert taken[0][0] == 900 and taken[-1][0] < 20
        p.wait_log(r"warning: the recipients that clients have named take more than message_memory_limit \(16777216 bytes\)")
        assert SLOW > 1 or held(p) - before < 24 * KIB
        p.send(rcpts=[f"c{i}@y.example" for i in range(20)], content="Subject: small\r\n\r\nx\r\n")
        relay.wait_mail(b"Subject: small")
        for _, s, replies in taken[1:]:
            replies.close(), s.close()
        wait_for(lambda: great()[0] == 900)


def test_too_many_recipients_end_no_session(dns):
    """A client that has more recipients than one message may have sends the message to those that were taken, and is only
    sent away when it goes on for long."""
    conf = "smtpd_recipient_limit = 4\nsmtpd_recipient_overshoot_limit = 60\nsmtpd_hard_error_limit = 5\nsmtpd_error_sleep_time = 0\n"
    with FakeRelay() as relay, Posthouse(conf + f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p, p.client() as c:
        many = lambda n: "".join(f"RCPT TO:<b{i}@y.example>\r\n" for i in range(n))
        c.raw(f"{FROM}\r\n{many(50)}DATA\r\n")
        replies = [c.reply() for _ in range(52)]
        assert replies.count("250 2.1.5 Ok") == 4 and replies.count("452 4.5.3 Error: too many recipients") == 46
        c.raw("Subject: to four\r\n\r\nx\r\n.\r\n")
        assert c.reply().startswith("250 2.0.0 Ok: queued as")
        c.raw(f"{FROM}\r\n{many(200)}")
        replies = []
        while (r := c.reply()) is not None:
            replies.append(r)
        assert len(replies) == 1 + 4 + 60 + 5 + 1 and replies[-1] == "421 4.7.0 mta.example Error: too many errors"
        assert len(relay.wait_mail(b"to four")["rcpts"]) == 4


def test_connections_of_one_client(dns):
    """Counted while they are open, whatever becomes of them; and how many come in anvil_rate_time_unit."""
    with Posthouse(STRANGERS + "smtpd_client_connection_count_limit = 5\n", dns=dns) as p:
        for i in range(60):
            s = socket.create_connection(("127.0.0.1", p.port), 10)
            if i % 3 == 0:
                s.recv(10)
            s.close()

        opened = [61]  # and the kit has looked once whether it greets

        def greeted():
            "as many as may be"
            opened[0] += 5
            with contextlib.ExitStack() as open_:
                clients = [open_.enter_context(Client(p.port, ehlo=None)) for _ in range(5)]
                return all(c.greeting.startswith("220") for c in clients)

        def all_gone():
            "every client seen, and its end"
            log = p.log()
            return log.count("]: connect from") == log.count("disconnect from") >= opened[0]
        wait_for(greeted)
        wait_for(all_gone)
        kept = [Client(p.port, ehlo=None) for _ in range(9)]
        assert [c.greeting[:3] for c in kept] == ["220"] * 5 + ["421"] * 4
    with Posthouse(STRANGERS + "smtpd_client_connection_rate_limit = 30\nanvil_rate_time_unit = 3600s\n", dns=dns) as p:
        said = [Client(p.port, ehlo=None).greeting[:3] for _ in range(40)]
        assert said == sorted(said) and said.count("220") in range(20, 31)  # the kit has looked whether it greets


@pytest.mark.parametrize("kind", ["DATA", "BDAT 99999 LAST", "BDAT 99999", "refused"])
def test_content_that_dribbles_ends(dns, kind):
    """smtpd_per_request_deadline: bytes that come more slowly than smtpd_min_data_rate earn no time."""
    conf = "relayhost = [127.0.0.1]:9\nsmtpd_timeout = 2s\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = 100000\n"
    with Posthouse(conf, dns=dns) as p, p.client() as c:
        if kind != "refused":
            assert c.cmd(FROM).startswith("250") and c.cmd(TO).startswith("250")
        c.raw(("BDAT 99999 LAST" if kind == "refused" else kind) + "\r\n")
        if kind in ("DATA", "refused"):
            assert c.reply()[:3] in ("354", "503")
        over = threading.Event()

        def dribble():
            with contextlib.suppress(OSError):
                while not over.wait(0.1):
                    c.raw("x")
        t = threading.Thread(target=dribble)
        t.start()
        with contextlib.suppress(ConnectionError):  # a reset may overtake the reply
            assert c.reply() in ("421 4.4.2 mta.example Error: timeout exceeded", None)
        p.wait_log("timeout after (DATA|BDAT)")
        over.set()
        wait_ended(t)


def test_fast_content_earns_its_time(dns):
    """With the same setting a client that sends in time gets its message through, however large."""
    conf = "smtpd_timeout = 20s\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = 500\n"
    with FakeRelay(keep=False) as relay, Posthouse(conf + f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        assert p.send(content="Subject: x\r\n\r\n" + "line\r\n" * 300_000).startswith("250")
        assert p.send().startswith("250")
        relay.wait_mails(2)


def test_a_command_that_dribbles_ends(dns):
    """A line has smtpd_timeout in all, and so has the answer to a challenge."""
    conf = (STRANGERS + "smtpd_timeout = 2s\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = accounts\n"
            "accounts_store = sqlite:/nowhere/x.db\n")
    with Posthouse(conf, dns=dns) as p:
        clients = [p.client() for _ in range(3)]
        assert clients[1].cmd("AUTH LOGIN").startswith("334")
        over = threading.Event()

        def dribble():
            while not over.wait(0.1):
                for c in clients:
                    with contextlib.suppress(OSError):
                        c.raw("x")
        t = threading.Thread(target=dribble)
        t.start()
        p.wait_log(r"timeout after \w+ from", count=3)
        over.set()
        wait_ended(t)


def test_a_wrapped_port_refuses_without_a_word(server_cert, dns):
    """What would be said in clear to a client that waits for TLS is not said."""
    port = free_port()
    conf = (STRANGERS + "smtpd_client_connection_count_limit = 2\nsmtpd_tls_security_level = may\n"
            f"smtpd_tls_cert_file = {server_cert[0]}\nsmtpd_tls_key_file = {server_cert[1]}\n")
    master = f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n"
    with Posthouse(conf, dns=dns, master=master) as p, contextlib.ExitStack() as held_open:
        connect = lambda: held_open.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        p.wait_log("disconnect from")  # the kit's look is over
        served = [ctx.wrap_socket(connect()) for _ in range(2)]
        assert all(s.recv(100).startswith(b"220 ") for s in served)
        for _ in range(3):
            s = connect()
            s.settimeout(20 * SLOW)
            assert s.recv(100) == b""
        p.wait_log("Connection concurrency or rate limit exceeded", count=3)
        waits = connect()
        p.proc.terminate()
        assert waits.recv(100) == b""


def test_an_envelope_is_as_large_as_is_read_back(dns):
    """What sendmail hands over has no smtpd_recipient_limit; a recipient beyond what a start believes is refused."""
    with Posthouse("relayhost = [127.0.0.1]:9\nmessage_memory_limit = 1000000000\n", dns=dns) as p, socket.socket(socket.AF_UNIX) as s:
        s.connect(str(p.dir / "spool/public/submit.sock"))
        replies = s.makefile("rb")
        s.sendall(b"HELO x\r\n" + FROM.encode() + b"\r\n")
        assert [replies.readline()[:3] for _ in range(3)] == [b"220", b"250", b"250"]
        for first in range(0, 10**6, 500):
            s.sendall(b"".join(b"RCPT TO:<%d@y.example>\r\n" % i for i in range(first, first + 500)))
            assert {replies.readline() for _ in range(500)} == {b"250 2.1.5 Ok\r\n"}
        s.sendall(TO.encode() + b"\r\n")
        assert replies.readline() == b"452 4.5.3 Error: too many recipients\r\n"


def test_one_address_named_again_and_again_costs_no_more_than_others(dns):
    """With other ORCPT= values each is a recipient: a program of this machine may name as many as there is memory for."""
    n = 20000

    def cost(p, address):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(p.dir / "spool/public/submit.sock"))
            replies = s.makefile("rb")
            s.sendall(b"HELO x\r\n" + FROM.encode() + b"\r\n")
            assert [replies.readline()[:3] for _ in range(3)] == [b"220", b"250", b"250"]
            before = p.processor("relay")
            for first in range(0, n, 500):
                s.sendall(b"".join(b"RCPT TO:<%s> ORCPT=rfc822;x%d\r\n" % (address(i), i) for i in range(first, first + 500)))
                assert {replies.readline() for _ in range(500)} == {b"250 2.1.5 Ok\r\n"}
            return p.processor("relay") - before

    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p:
        others = cost(p, lambda i: b"%d@y.example" % i)
        assert cost(p, lambda i: b"one@y.example") < 10 * (others + 0.1)


def test_names_that_stand_for_many_cost_strangers_no_more(dns):
    """RCPT asks for the name alone; names that lead to each other, which one who makes aliases may have made, end soon after the limit.
    Of 4,000 members each, one RCPT took two seconds and 150 MB of all."""
    rows = {"one": 1, "list": 990, "a": 4000, "b": 4000}
    first = {"a": "b@alias.example, ", "b": "a@alias.example, "}
    table = "".join(f"{name}@alias.example {first.get(name, '')}{', '.join(f'm{i}@far.example' for i in range(n))}\n"
                    for name, n in rows.items())
    conf = ("relayhost = [127.0.0.1]:9\nmydestination =\nvirtual_alias_domains = alias.example\nrelay_threads = 1\n"
            "virtual_alias_maps = texthash:{dir}/virtual\n")

    def cost(c, p, name):
        before = p.processor("relay")
        c.raw(f"RCPT TO:<{name}@alias.example>\r\n" * 300)
        assert {c.reply() for _ in range(300)} == {"250 2.1.5 Ok"}
        return p.processor("relay") - before

    with Posthouse(conf, files={"virtual": table}, dns=dns) as p, p.client() as c:
        before = warm(p)
        c.cmd(FROM)
        few = cost(c, p, "one")
        assert cost(c, p, "list") < 10 * (few + 0.02) * SLOW
        assert cost(c, p, "a") < 10 * (few + 0.02) * SLOW
        assert c.cmd("DATA").startswith("354") and c.cmd("Subject: x\r\n\r\n.") == "451 4.6.0 Alias expansion error"
        status = open(f"/proc/{p.child('relay')}/status").read()
        assert SLOW > 1 or int(re.search(r"VmHWM:\s+(\d+)", status)[1]) - before < 30_000


def test_mail_to_as_many_domains_holds_up_no_other_mail(dns):
    """The jobs of a message were looked through for each of its recipients: of 80,000, no mail was sent for minutes."""

    def cost(n):
        master = "smtp unix - - n - 1 smtp\nother unix - - n - - smtp\n"
        with FakeRelay() as relay, Posthouse(f"transport_maps = inline:{{{{other.example=other:[127.0.0.1]:{relay.port}}}}}\n",
                                             master=master, dns=dns) as p, socket.socket(socket.AF_UNIX) as s:
            s.connect(str(p.dir / "spool/public/submit.sock"))
            replies = s.makefile("rb")
            s.sendall(b"HELO x\r\n" + FROM.encode() + b"\r\n")
            assert [replies.readline()[:3] for _ in range(3)] == [b"220", b"250", b"250"]
            for first in range(0, n, 500):
                s.sendall(b"".join(b"RCPT TO:<a@%d.example>\r\n" % i for i in range(first, first + 500)))
                assert {replies.readline() for _ in range(500)} == {b"250 2.1.5 Ok\r\n"}
            s.sendall(b"DATA\r\n")
            assert replies.readline().startswith(b"354")
            before = p.processor("relay")
            s.sendall(b"Subject: many\r\n\r\n.\r\n")
            assert replies.readline().startswith(b"250")
            p.wait_log(r"to=<a@\d")  # it has gone to its queues
            p.send(rcpts=["b@other.example"])
            relay.wait_mails(1)
            return p.processor("relay") - before

    few = cost(7_500)
    many = cost(30_000)
    print(f"{few:.2f} s, {many:.2f} s")
    assert many < 10 * few + 0.3 * SLOW


@pytest.mark.parametrize("what", ["table", "login"])
def test_a_client_that_has_gone_keeps_its_place(what, dns):
    """As long as what was asked for it is not answered: clients that reset do not have more questions open than connections."""
    asked, answer = [], threading.Event()

    def table(conn):
        for line in conn.makefile("rb"):
            asked.append(line)
            answer.wait(60)
            conn.sendall(b"500 no\n")

    def logins(conn):
        conn.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nDONE\n")
        for line in conn.makefile("rb"):
            if line.startswith(b"AUTH"):
                asked.append(line)
                answer.wait(60)
                conn.sendall(b"FAIL\t%b\n" % line.split(b"\t")[1])
    with Listener(table) as a, Listener(logins) as b:
        conf = (STRANGERS + "smtpd_client_connection_count_limit = 6\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"
                f"smtpd_sasl_path = inet:127.0.0.1:{b.port}\nsmtpd_client_restrictions = check_recipient_access tcp:127.0.0.1:{a.port}\n")
        with Posthouse(conf, dns=dns) as p:
            clients = [p.client() for _ in range(6)]
            for i, c in enumerate(clients):
                c.raw("AUTH PLAIN AGV2ZQBndWVzcw==\r\n" if what == "login" else f"{FROM}\r\nRCPT TO:<b{i}@y.example>\r\n")
            if what == "login":
                wait_for(lambda: asked)
            else:
                wait_for(lambda: len({line for line in asked if b"@y.example" in line}) >= 6)
            for c in clients:
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                c.f.close(), c.sock.close()
            for _ in range(20):
                with Client(p.port, ehlo=None) as c:
                    assert c.greeting.startswith("421 4.7.0"), c.greeting
            answer.set()

            def greeted():
                with Client(p.port, ehlo=None) as c:
                    return c.greeting.startswith("220")
            wait_for(greeted)
            p.wait_log(f"lost connection after {'AUTH' if what == 'login' else 'RCPT'} from", count=6)
            assert what != "login" or len(re.findall("SASL PLAIN authentication failed", p.log())) == 6


def test_a_client_that_has_gone_holds_up_no_stop(dns):
    """What was asked for it is not waited for, and the log has its end; one that is there is told."""
    def silent(conn):
        conn.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nDONE\n")
        for line in conn.makefile("rb"):
            asked.append(line[:4])
    asked = []
    with Listener(silent) as b:
        conf = STRANGERS + f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{b.port}\n"
        with Posthouse(conf, dns=dns) as p, p.client() as stays:
            gone = p.client()
            for c in (gone, stays):
                c.raw("AUTH PLAIN AGV2ZQBndWVzcw==\r\n")
            wait_for(lambda: asked.count(b"AUTH") == 2)
            gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.f.close(), gone.sock.close()
            with p.client() as other:  # so much time has passed
                assert other.cmd("NOOP").startswith("250")
            p.stop()
            assert stays.reply().startswith("421 4.3.2 ")
            assert p.log().count("lost connection after AUTH from") == 1


def test_memory_of_what_waits(dns):
    """Every recipient that waits has some 100 bytes of memory besides its address and ORCPT, and a start reads all of them again:
    from queue_memory_limit on new mail is put off, until there is room.  What is in the queue is loaded whatever the limit says."""
    conf = f"relayhost = [127.0.0.1]:9\nrelay_threads = 1\nqueue_memory_limit = {16 * KIB * KIB}\n"
    full = "452 4.3.1 Insufficient system storage"
    with Posthouse(conf, dns=dns) as p, p.client() as begun:
        assert begun.cmd(FROM).startswith("250") and begun.cmd(TO).startswith("250")
        before, taken = warm(p), 0
        while taken < 20:
            with p.client() as c:
                c.raw(FROM + "\r\n" + "".join(f"RCPT TO:<{i}@y.example> ORCPT=rfc822;{'b' * 1900}\r\n" for i in range(1000)))
                replies = [c.reply() for _ in range(1001)]
                if not replies[0].startswith("250"):
                    break
                assert c.cmd("DATA").startswith("354")
                c.raw("Subject: x\r\n\r\nx\r\n.\r\n")
                assert c.reply().startswith("250")
                taken += 1
        print(f"{taken} messages, {held(p) - before} KiB")
        assert replies[0] == full and 5 < taken < 10
        assert SLOW > 1 or held(p) - before < 32 * KIB
        assert begun.cmd("DATA").startswith("354")  # of mail that was begun before, the end is told
        begun.raw("Subject: y\r\n\r\ny\r\n.\r\n")
        assert begun.reply() == full
        p.wait_log(r"warning: the envelopes of queued mail take \d+ bytes of memory, and queue_memory_limit is 16777216")
        assert len(re.findall("the envelopes of queued mail take", p.log())) == 1
        stats = p.control("stats")
        assert stats["crowded"] and stats["queue_memory"] >= stats["queue_memory_limit"] == 16 * KIB * KIB
        assert "new mail is put off" in p.run("queue", "list").stderr
        assert p.run("-f", "a@x.example", "b@y.example", face="sendmail", stdin="Subject: z\n\nz\n").returncode == 75
        p.write_main(conf.replace("16777216", "1"))
        p.stop()
        p.start()
        assert len(p.queue()) == taken
        with p.client() as c:
            assert c.cmd(FROM) == full
        p.write_main(conf)
        p.reload()
        ids = [m["queue_id"] for m in p.queue()]
        assert p.run("queue", "delete", ids[0], ids[1]).returncode == 0
        wait_for(lambda: not p.control("stats")["crowded"])
        with p.client() as c:
            assert c.mail().startswith("250")
        assert p.run("queue", "delete", "ALL").returncode == 0
        wait_for(lambda: p.control("stats")["queue_memory"] == 0)


def test_listings_of_a_message_to_very_many_take_little(dns):
    """Any user may list the queue and leave the answer unread: each had the whole message in memory, 18 MB of 100,000 recipients."""
    n = 60_000
    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p, contextlib.ExitStack() as stack:
        s = stack.enter_context(socket.socket(socket.AF_UNIX))
        s.connect(str(p.dir / "spool/public/submit.sock"))
        replies = s.makefile("rb")
        s.sendall(b"HELO x\r\n" + FROM.encode() + b"\r\n")
        assert [replies.readline()[:3] for _ in range(3)] == [b"220", b"250", b"250"]
        for first in range(0, n, 500):
            s.sendall(b"".join(b"RCPT TO:<%d@y.example>\r\n" % i for i in range(first, first + 500)))
            assert {replies.readline() for _ in range(500)} == {b"250 2.1.5 Ok\r\n"}
        s.sendall(b"DATA\r\n")
        assert replies.readline().startswith(b"354")
        s.sendall(b"Subject: many\r\n\r\n.\r\n")
        assert replies.readline().startswith(b"250")
        wait_for(lambda: p.queue()[0]["queue_name"] == "deferred")
        before = held(p)

        def ask():
            k = stack.enter_context(socket.socket(socket.AF_UNIX))
            k.connect(str(p.dir / "spool/public/queue.sock"))
            k.sendall(b'{"cmd": "queue-list"}\n')
            assert k.recv(1, socket.MSG_PEEK) == b"{"
            return k
        unread = [ask() for _ in range(8)]
        used = held(p) - before
        print(f"{used} KiB")
        assert used < 20_000 * SLOW
        lines = unread[0].makefile("rb")
        assert len({r["address"] for r in json.loads(lines.readline())["recipients"]}) == n
        assert json.loads(lines.readline())["ok"]
        assert p.run("-d", "ALL", face="postsuper").returncode == 0  # the others are in the middle of it
        lines = unread[1].makefile("rb")
        shown = json.loads(lines.readline())
        assert 0 < len(shown["recipients"]) < n and shown["cursor"] and json.loads(lines.readline())["ok"]


def test_hosts_that_never_answer_take_no_clients_place():
    """One mail to 300 hosts that take connections and say nothing: clients are let in, mail for hosts that the administrator chose goes at
    once, and the rest of that mail has its turn when those are gone."""
    limit, sessions = 400, 75
    silent = socket.create_server(("0.0.0.0", 0), backlog=1000)
    port = silent.getsockname()[1]
    with FakeRelay() as good:
        hop = f"[127.0.0.1]:{good.port}"
        p = Posthouse(f"smtp_tcp_port = {port}\ninitial_destination_concurrency = 1\n"
                      f"transport_maps = inline:{{{{ good.example=relay:{hop}, same.example=smtp:{hop} }}}}\n")
        p.preexec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        with p:
            before = descriptors(p)
            rcpts = [f"u@[127.1.{i // 200}.{i % 200 + 1}]" for i in range(300)]
            assert p.send(sender="many@x.example", rcpts=rcpts).startswith("250")
            wait_for(lambda: descriptors(p) >= before + sessions)
            assert p.send(sender="nice@x.example", rcpts=["b@good.example"], content="Subject: other\r\n\r\n").startswith("250")
            assert p.send(sender="nice@x.example", rcpts=["b@same.example"], content="Subject: same\r\n\r\n").startswith("250")
            good.wait_mail(b"Subject: other")
            good.wait_mail(b"Subject: same")
            assert "status=deferred" not in p.log() and descriptors(p) <= before + sessions + 8
            silent.close()
            wait_for(lambda: p.log().count("status=deferred") == 300)
            assert "Too many open files" not in p.log()


def test_content_for_hosts_that_never_answer(dns):
    """Large mails of one sender to 150 hosts that are silent take a bounded amount of memory while that lasts, and arrive as they were
    sent when it is over."""
    answer = threading.Event()
    main = "smtp_tcp_port = {port}\nmessage_memory_limit = 4194304\nrelay_threads = 1\n"
    texts = [f"Subject: {i}\r\n\r\n" + f"{i:05} line\r\n" * 15000 for i in range(150)]
    with FakeRelay("0.0.0.0", replies={"GREETING": lambda line: answer.wait(60) and "220 at last"}) as relay, \
            Posthouse(main.replace("{port}", str(relay.port)), dns=dns) as p:
        before = warm(p)
        for i, text in enumerate(texts):
            assert p.send(rcpts=[f"u@[127.1.0.{i + 1}]"], content=text).startswith("250")
        wait_for(lambda: len(relay.conns) == 150)
        assert SLOW > 1 or held(p) - before < 12 * KIB
        answer.set()
        relay.wait_mails(150)
        got = {m["content"].split(b"\r\n\r\n", 1)[1] for m in relay.mails}
        assert got == {text.encode().split(b"\r\n\r\n", 1)[1] for text in texts}


class SlowPolicy:
    """A policy service that answers nobody until it is let go."""

    def __init__(self):
        self.connections, self.asked, self.lock, self.go = 0, 0, threading.Lock(), threading.Event()
        self.listener = Listener(self.serve)

    def serve(self, conn):
        with self.lock:
            self.connections += 1
        for line in conn.makefile("rb"):
            if line == b"\n":
                with self.lock:
                    self.asked += 1
                self.go.wait()
                conn.sendall(b"action=DUNNO\n\n")


def test_policy_services_and_many_strangers(dns):
    """What strangers have asked of a slow service holds as many connections as default_process_limit says; all wait in a line."""
    policy, n = SlowPolicy(), 60
    conf = (STRANGERS + "smtpd_client_connection_count_limit = 0\ndefault_process_limit = 4\nrelay_domains = y.example\n"
            f"smtpd_recipient_restrictions = check_policy_service {{{{ inet:127.0.0.1:{policy.listener.port}, timeout=1000s }}}}, permit\n")
    with Posthouse(conf, dns=dns) as p:
        warm(p)
        fds, clients = descriptors(p), [Client(p.port, source=f"127.0.2.{i // 6 + 1}") for i in range(n)]
        for c in clients:
            assert c.cmd(FROM).startswith("250")
            c.raw(TO + "\r\n")
        wait_for(lambda: policy.asked == 4)
        with p.client() as other:
            assert other.cmd("NOOP").startswith("250")
        assert policy.connections == 4
        assert descriptors(p) - fds <= n + 4 + 8  # and a few for questions about names
        policy.go.set()
        for c in clients:
            assert c.reply().startswith("250"), "each has its answer"
            c.sock.close()
            c.f.close()
        assert (policy.connections, policy.asked) == (4, n)
    policy.listener.stop()
