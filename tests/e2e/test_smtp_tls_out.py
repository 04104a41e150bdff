"""TLS to relay hosts: each transport's own settings, the client's certificate, the name for SNI, and what becomes of mail when
TLS is refused or breaks."""
import hashlib
import re
import signal
import ssl
import subprocess
import threading

import pytest
from kit import FakeRelay, Posthouse, make_cert, server_tls, wait_for


class BrokenTls:
    """What answers a handshake with something else."""

    def wrap_socket(self, conn, server_side):
        conn.sendall(b"no, not today\r\n")
        raise ValueError("no TLS")


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    return make_cert(tmp_path_factory.mktemp("cert"), "relay.server")


@pytest.mark.parametrize("main,refuses,wrap,result", [
    ("smtp_tls_security_level = encrypt\n", True, False, r"4\.7\.4, status=deferred \(TLS is required, but host .* refused to start"),
    ("smtp_tls_security_level = encrypt\n", False, False, r"4\.7\.5, status=deferred \(Cannot start TLS: handshake failure\)"),
    ("smtp_tls_wrappermode = yes\n", False, True, r"4\.7\.5, status=deferred \(Cannot start TLS: handshake failure\)"),
    ("smtp_tls_wrappermode = yes\nsmtp_tls_security_level = none\n", False, True, r"4\.7\.5, status=deferred \(Cannot start TLS"),
    ("smtp_sasl_auth_enable = yes\n", False, False, r"4\.7\.5, status=deferred \(Cannot start TLS: handshake failure\)"),
    ("smtp_tls_policy_maps = static:verify\n", True, False, r"4\.7\.4, status=deferred \(TLS is required"),
    ("smtp_enforce_tls = yes\n", True, False, r"4\.7\.4, status=deferred \(TLS is required"),
    ("smtp_enforce_tls = yes\nsmtp_tls_security_level = may\n", True, False, r"2\.0\.0, status=sent"),
    ("", True, False, r"2\.0\.0, status=sent"), ("", False, False, r"2\.0\.0, status=sent"),
    ("smtp_tls_policy_maps = static:may\n", False, False, r"2\.0\.0, status=sent"),
], ids=["refused", "broken", "wrapped", "wrapped-none", "login", "policy", "enforced", "enforced-may", "may-refused", "may-broken",
        "policy-may"])
def test_tls_that_fails(dns, main, refuses, wrap, result):
    replies = {"STARTTLS": "454 4.7.0 no key is there"} if refuses else {}
    with FakeRelay(tls=BrokenTls(), wrap=wrap, replies=replies) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n{main}", dns=dns) as p:
        p.send()
        p.wait_log("dsn=" + result)
        assert len(relay.mails) == ("sent" in result) and not any(m["tls"] for m in relay.mails)


@pytest.mark.parametrize("main,hop,want", [
    ("smtp_tls_servername = nexthop\n", "[relay.server]", "relay.server"),
    ("smtp_tls_servername = nexthop\n", "relay.server", "relay.server"),
    ("smtp_tls_servername = hostname\n", "relay.server", "mx1.relay.server"), ("", "relay.server", "mx1.relay.server"),
    ("smtp_tls_servername = nexthop\n", "[127.0.0.1]", None), ("", "[127.0.0.1]", None),
    ("smtp_tls_servername = shop.example\n", "[127.0.0.1]", "shop.example"),
    ("smtp_tls_servername = shop.example.\n", "[127.0.0.1]", "waits"),
    ("smtp_tls_servername = nexthop\nsmtp_tls_policy_maps = static:{{may servername=own.example}}\n", "[relay.server]", "own.example"),
    ("smtp_tls_policy_maps = static:{{encrypt servername=nexthop}}\n", "relay.server", "relay.server")])
def test_name_for_sni(dns, cert, main, hop, want):
    names, tls = [], server_tls(*cert)
    tls.sni_callback = lambda sock, name, context: names.append(name)
    with FakeRelay(tls=tls) as relay, Posthouse(f"relayhost = {hop}:{relay.port}\n{main}", dns=dns) as p:
        p.send()
        if want == "waits":
            p.wait_log(r"dsn=4\.7\.5, status=deferred \(client TLS configuration problem: smtp_tls_servername = shop\.example\.\)")
        else:
            relay.wait_mails(1)
        assert names == ([] if want == "waits" else [want])


@pytest.mark.parametrize("policy,result", [
    ("fail:x", r"4\.3\.0, status=deferred \(TLS policy lookup error for aonly\.example\)"),
    (r"regexp:{dir}/re", r"4\.7\.4, status=deferred \(TLS is required, but was not offered"),
    ("static:{{secure match=a match=}}", r"4\.7\.5, status=deferred \(.*invalid TLS policy for aonly\.example: match is empty\)"),
    ("inline:{{.example=none}}", r"2\.0\.0, status=sent"), ("inline:{{example=encrypt,.xample=encrypt}}", r"2\.0\.0, status=sent")])
def test_policy_of_a_domain(dns, policy, result):
    with FakeRelay("127.0.0.2", 25) as relay:
        with Posthouse(f"smtp_tls_policy_maps = {policy}\n", dns=dns, files={"re": r"/^\.example$/ encrypt" + "\n"}) as p:
            p.send(rcpts=["b@aonly.example"])
            p.wait_log("dsn=" + result)
            assert len(relay.mails) == ("sent" in result)


# A row for the next hop, and what becomes of mail to a host whose certificate is for relay.server.
PROOFS = [("secure", "sent"), ("verify", "sent"), ("secure match=relay.server", "sent"), ("secure match=other.test", "does not match"),
          ("secure match=other.test:hostname", "sent"), ("secure match=.server", "sent"), ("secure match=.relay.server", "does not match"),
          ("secure match=dot-nexthop", "does not match"), ("verify match=nexthop", "sent"), ("fingerprint", "sent"),
          ("fingerprint match={print}", "sent"), ("fingerprint match=00:11|{lower}", "sent"), ("fingerprint match=00:11", "not verified"),
          ("fingerprint match={print}:00", "not verified"), ("encrypt ciphers=high exclude=aNULL", "sent"),
          ("encrypt protocols=TLSv1.2", "sent"), ("encrypt servername=-no-", "is no host name"), ("none", "sent"), ("may", "sent")]


def test_what_a_certificate_has_to_prove(dns, cert):
    """One daemon, a host and a row for each case; where nothing is proven nothing is said to the host, and no login."""
    der = ssl.PEM_cert_to_DER_cert(cert[0].read_text())
    mark = ":".join(re.findall("..", hashlib.sha256(der).hexdigest().upper()))
    relays = [FakeRelay(tls=server_tls(*cert), auth=["PLAIN"]) for _ in range(len(PROOFS) + 2)]
    policies = "".join(f"[relay.server]:{r.port} " + row.format(print=mark, lower=mark.lower()) + "\n"
                       for (row, _), r in zip(PROOFS, relays))
    services = "bare unix - - n - - smtp\n  -o smtp_tls_security_level=fingerprint\n  -o smtp_tls_fingerprint_cert_match=\n" \
               "odd unix - - n - - smtp\n  -o smtp_tls_security_level=fingerprint\n  -o smtp_tls_fingerprint_digest=none-such\n"
    ways = ["smtp"] * len(PROOFS) + ["bare", "odd"]
    hops = ",".join(f"d{i}.example={way}:[relay.server]:{r.port}" for i, (way, r) in enumerate(zip(ways, relays)))
    main = f"transport_maps = inline:{{{{{hops}}}}}\nsmtp_tls_policy_maps = texthash:{{dir}}/pol\nsmtp_tls_CAfile = {cert[0]}\n" \
           f"smtp_tls_fingerprint_digest = sha256\nsmtp_tls_fingerprint_cert_match = 00:11, {mark}\nsmtp_tls_loglevel = 1\n" \
           "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = static:u:p4ssw0rd\n"
    with Posthouse(main, dns=dns, master=services, files={"pol": policies}) as p:
        for i in range(len(relays)):
            p.send(rcpts=[f"b@d{i}.example"])
        p.wait_log("status=", count=len(relays))
        said = dict(re.findall(r"to=<b@d(\d+)\.example>.* status=(.*)", p.log()))
        wanted = [result for _, result in PROOFS] + ["there is none to match", "smtp_tls_fingerprint_digest = none-such"]
        for i, (result, relay) in enumerate(zip(wanted, relays)):
            assert result in said[str(i)], (i, result, said[str(i)])
            talked = {s.auth for s in relay.sessions if s.auth} | {c for s in relay.sessions for c in s.commands if c[:4] == "MAIL"}
            assert bool(talked) == (result == "sent"), (i, talked)
    for relay in relays:
        relay.stop()


def test_each_transport_has_its_own_settings(dns, cert):
    """More transports than contexts are kept, some for one version of TLS and some for another, each at two levels: none is
    spoken for with another one's context."""
    n, services, rows = 12, "", []
    files = {"pol": ""}
    with FakeRelay(tls=server_tls(*cert)) as relay:
        for i in range(n):
            version = "TLSv1.2" if i % 3 else "TLSv1.3"
            services += f"way{i} unix - - n - - smtp\n  -o smtp_tls_protocols={version}\n  -o smtp_tls_mandatory_protocols={version}\n" \
                        "  -o smtp_tls_loglevel=1\n"
            services += "  -o smtp_tls_security_level=encrypt\n" if i % 2 else ""
            rows.append(f"d{i}.example=way{i}:[127.0.0.1]:{relay.port}")
        main = f"transport_maps = inline:{{{{{','.join(rows)}}}}}\nsmtp_connection_cache_on_demand = no\nrelay_threads = 1\n"
        with Posthouse(main, dns=dns, master=services, files=files) as p:
            for _ in range(2):
                for i in range(n):
                    p.send(rcpts=[f"b@d{i}.example"])
            relay.wait_mails(2 * n)
            p.wait_log("status=sent", count=2 * n)
            assert len(re.findall(r"TLS connection established to .*: TLSv1\.3 ", p.log())) == 2 * 4
            assert len(re.findall(r"TLS connection established to .*: TLSv1\.2 ", p.log())) == 2 * 8


def test_required_tls_has_its_own_settings(dns, cert):
    """One transport, may to one host and encrypt to the other, in either order: smtp_tls_mandatory_protocols are the latter's."""
    for first in ("127.0.0.1", "relay.server"):
        with FakeRelay(tls=server_tls(*cert)) as relay:
            hops = {h: f"[{h}]:{relay.port}" for h in ("127.0.0.1", "relay.server")}
            rows = ",".join(f"{h}.example={'smtp:' + hops[h]}" for h in hops)
            main = f"transport_maps = inline:{{{{{rows}}}}}\nsmtp_tls_loglevel = 1\nrelay_threads = 1\n" \
                   "smtp_tls_protocols = TLSv1.2\nsmtp_tls_mandatory_protocols = TLSv1.3\n" \
                   f"smtp_tls_policy_maps = inline:{{{{{hops['relay.server']}=encrypt}}}}\n"
            with Posthouse(main, dns=dns) as p:
                for h in sorted(hops, key=lambda h: h != first):
                    p.send(rcpts=[f"b@{h}.example"])
                    p.wait_log(rf"to=<b@{re.escape(h)}\.example>.*status=sent")
                assert re.search(r"established to 127\.0\.0\.1\[.*: TLSv1\.2 ", p.log())
                assert re.search(r"established to relay\.server\[.*: TLSv1\.3 ", p.log())


def test_client_certificate(dns, cert, tmp_path):
    own = make_cert(tmp_path, "mta.example")
    tls = server_tls(*cert)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(own[0])
    keys = f"smtp_tls_cert_file = {own[0]}\nsmtp_tls_key_file = {own[1]}\n"
    for given in (True, False):
        tls.maximum_version = ssl.TLSVersion.TLSv1_2  # the refusal is a part of the handshake
        with FakeRelay(tls=tls) as relay:
            main = f"relayhost = [relay.server]:{relay.port}\nsmtp_tls_security_level = encrypt\n"
            with Posthouse(main + (keys if given else ""), dns=dns) as p:
                p.send()
                p.wait_log("status=sent" if given else r"dsn=4\.7\.5, status=deferred")
                assert len(relay.mails) == given


def test_settings_that_cannot_be_used(dns, cert):
    with FakeRelay(tls=server_tls(*cert)) as relay:
        with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_protocols = TLS9\n", dns=dns) as p:
            p.send()
            p.wait_log(r"dsn=4\.7\.5, status=deferred \(TLS client settings: ")
            assert not relay.mails


def test_mail_goes_by_the_tls_settings_of_a_reload(dns, cert):
    """What was not on the wire goes with the new settings, and a session of the old ones does not carry it."""
    gate = threading.Event()
    with FakeRelay(tls=server_tls(*cert), replies={"STARTTLS": lambda line: gate.wait(60) and None}) as relay:
        main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_loglevel = 1\nsmtp_tls_protocols = "
        with Posthouse(main + "TLSv1.2\n", dns=dns) as p:
            p.send()
            wait_for(lambda: relay.sessions and "STARTTLS" in relay.sessions[0].commands)
            p.write_main(main + "TLSv1.3\n")
            p.reload()
            gate.set()
            p.wait_log(r"TLS connection established to .*: TLSv1\.3 ")
            relay.wait_mails(1)


@pytest.mark.parametrize("main,sent", [
    ("", True), ("smtp_tls_security_level = encrypt\n", False), ("smtp_tls_ciphers = high\n", True),
    ("smtp_tls_security_level = encrypt\nsmtp_tls_mandatory_protocols = >=TLSv1\n", True),
    ("smtp_tls_policy_maps = static:{{encrypt protocols=TLSv1.1}}\n", True)],
    ids=["may", "encrypt", "may, high", "encrypt, permitted", "row"])
def test_a_host_of_the_past(dns, cert, main, sent):
    """A host with no more than TLS 1.1 is spoken to where the settings permit it, login and all, whatever OpenSSL's own are."""
    tls = server_tls(*cert)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version, tls.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    main += "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:u:pw\nsmtp_sasl_tls_security_options = noanonymous\n"
    with FakeRelay(tls=tls, auth=("PLAIN",), users={"u": "pw"}) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_loglevel = 1\n{main}", dns=dns) as p:
        p.send()
        p.wait_log("TLSv1.1 with cipher" if sent else r"dsn=4\.7\.5, status=deferred \(Cannot start TLS")
        p.wait_log("status=sent" if sent else "status=deferred")
        assert [m["tls"] for m in relay.mails] == [True] * sent


@pytest.mark.parametrize("reuse,sessions", [("yes", 1), ("no", 3)])
def test_connection_reuse_of_a_row(dns, cert, reuse, sessions):
    """connection_reuse=no: one message a connection, also where the next one might go ahead of a reply."""
    gate = threading.Event()
    with FakeRelay(tls=server_tls(*cert), replies={"DOT": lambda line: gate.wait(60) and None}) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 1\n"
                      f"smtp_tls_policy_maps = static:{{{{encrypt connection_reuse={reuse}}}}}\n", dns=dns) as p:
        for i in range(3):
            p.send(sender=f"s{i}@x.example")
        wait_for(lambda: relay.sessions and any(c == "DATA" for c in relay.sessions[0].commands))
        gate.set()
        relay.wait_mails(3)
        assert len([s for s in relay.sessions if s.mails]) == sessions


def test_a_certificate_among_several_files(dns, cert, tmp_path):
    """smtp_tls_chain_files: keys, each with its certificate behind it, from as many files as one likes; and a broken list says so."""
    own = make_cert(tmp_path, "client.example")
    tls = server_tls(*cert)
    tls.load_verify_locations(own[0])
    tls.verify_mode = ssl.CERT_REQUIRED
    both = tmp_path / "both.pem"
    both.write_text(own[1].read_text() + own[0].read_text())
    for value, good in ((f"{own[1]}, {own[0]}", True), (f"{both}", True), (f"{own[0]} {own[1]}", True), (f"{own[1]}", False),
                        ("/nowhere/chain.pem", False)):
        with FakeRelay(tls=tls) as relay, \
                Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_security_level = encrypt\nsmtp_tls_chain_files = {value}\n",
                          dns=dns) as p:
            p.send()
            p.wait_log("status=sent" if good else r"dsn=4\.7\.5, status=deferred \(TLS client settings: smtp_tls_chain_files: ")
            assert len(relay.mails) == good
            said = [line for line in p.run("check").stdout.splitlines() if "smtp_tls_chain_files: " in line]
            assert all("the certificate expires in" in line for line in said) == good, said


@pytest.mark.parametrize("folder,sent", [("hashed", True), ("plain", False), ("nowhere", False)])
@pytest.mark.parametrize("level", ["verify", "encrypt"])
def test_a_folder_of_anchors(dns, cert, tmp_path, folder, sent, level):
    """smtp_tls_CApath: certificates under the names of their hashes count, and no others; a folder without any says so."""
    for name in ("hashed", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "relay.pem").write_bytes(cert[0].read_bytes())
    subprocess.run(["openssl", "rehash", str(tmp_path / "hashed")], check=True)
    with FakeRelay(tls=server_tls(*cert)) as relay, \
            Posthouse(f"relayhost = [relay.server]:{relay.port}\nsmtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n"
                      f"smtp_tls_CApath = {tmp_path}/{folder}\n", dns=dns) as p:
        p.send()
        if sent or level == "encrypt":
            relay.wait_mails(1)
            p.wait_log(("Verified" if level == "verify" else "Trusted" if sent else "Untrusted") + " TLS connection established")
        else:
            p.wait_log(r"dsn=4\.7\.5, status=deferred \(TLS client settings: smtp_tls_CApath: ")
        r = p.run("check")
        assert ("smtp_tls_CApath: " in r.stdout) == (not sent), r.stdout


def test_trust_anchors_of_rows(dns, cert, tmp_path):
    """A file that a row names is read with the configuration, also when the row or the file is new; what it signs alone is trusted."""
    other = make_cert(tmp_path, "other.server")[0]
    with FakeRelay(tls=server_tls(*cert)) as relay, Posthouse(
            f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_CAfile = {cert[0]}\nsmtp_tls_policy_maps = texthash:{{dir}}/rows\n", dns=dns,
            files={"rows": "unused.example none\n", "roots": other.read_text()}) as p:
        hop, taken = f"[127.0.0.1]:{relay.port}", "certificate files have changed, and are in use now"

        def rows(text, n):
            (p.dir / "new").write_text(text)
            (p.dir / "new").rename(p.dir / "rows")
            wait_for(lambda: p.log().count(taken) >= n)

        def sent(n, why=None):
            p.send()
            p.run("-f", face="postqueue", check=True)
            if why:
                p.wait_log(rf"dsn=4\.7\.5, status=deferred \({why}")
            else:
                relay.wait_mails(n)
        rows(f"{hop} secure match=relay.server tafile=roots\n", 1)
        sent(0, "Server certificate not verified")
        (p.dir / "next").write_text(cert[0].read_text())
        (p.dir / "next").rename(p.dir / "roots")
        wait_for(lambda: p.log().count(taken) >= 2)
        sent(2)
        (p.dir / "roots").write_text("-----BEGIN CERTIFICATE-----\nhalf")  # what was loaded before stays in use
        p.wait_log("error: certificate files have changed and cannot be used: tafile: .*roots: it is damaged")
        sent(3)
        r = p.run("check")
        assert r.returncode == 2 and re.search(r'error: .*main\.cf, line \d+: smtp_tls_policy_maps: the row of "' + re.escape(hop) +
                                               '": tafile: roots: it is damaged', r.stdout), r.stdout
        (p.dir / "roots").write_text("no certificate\n")
        assert "tafile: roots: it has neither a certificate nor a public key" in p.run("check").stdout
        (p.dir / "roots").unlink()
        assert "tafile: roots: No such file or directory" in p.run("check").stdout


def test_an_author_who_takes_less_tls(dns, cert):
    """A field "TLS-Required: no" (RFC 8689) counts for the recipients' own exchangers, without a login there; nothing else does, and
    a next hop that is configured keeps its level.  The report goes by the same rule.  The log says what became of the level."""
    clear = FakeRelay("127.0.0.2", replies={"RCPT": lambda line: "550 5.1.1 no such user" if "nobody" in line else None})
    main = ("relayhost =\nsmtp_tls_security_level = secure\nsmtp_log_tls_feature_status = yes\nsmtp_sasl_auth_enable = yes\n"
            "smtp_sasl_password_maps = static:clerk:sesame\nsmtp_sasl_security_options = noanonymous\n"
            f"smtp_tcp_port = {clear.port}\ntransport_maps = inline:{{{{partner.example=smtp:[127.0.0.2]}}}}\n")
    no, missing = "TLS-Required: No\r\n", r"tls=!secure, dsn=4\.7\.4, status=deferred"
    cases = [(no, "a@mx-a.example", r"tls=\(disabled:may\), dsn=2\.0\.0, status=sent"),
             (no, "a@mx-b.example", r"tls=may, dsn=2\.0\.0, status=sent"),
             ("tls-required:\r\n\tNO\r\n", "folded@mx-a.example", "status=sent"),
             ("", "b@mx-a.example", missing), ("", "b@mx-b.example", r"tls=!secure, dsn=4\.7\.5, status=deferred"),
             (no, "c@partner.example", missing), ("TLS-Required: yes\r\n", "d@mx-a.example", missing),
             ("TLS-Required: no\r\n doubt\r\n", "e@mx-a.example", missing), ("X-TLS-Required: no\r\n", "f@mx-a.example", missing)]
    with clear, FakeRelay("127.0.0.3", clear.port, tls=server_tls(*cert), auth=("PLAIN",)) as hidden, Posthouse(main, dns=dns) as p:
        for fields, rcpt, result in cases:
            p.send(rcpts=[rcpt], content=fields + "Subject: x\r\n\r\nhello\r\n")
            p.wait_log(f"to=<{re.escape(rcpt)}>, .*{result}")
        p.send("a@mx-b.example", ["nobody@mx-a.example"], no + "Subject: x\r\n\r\nhello\r\n")
        report = hidden.wait_mail(b"MAILER-DAEMON")
        assert b"\r\nTLS-Required: no\r\n" in report["content"].split(b"\r\n\r\n")[0]
        assert not any(s.auth for r in (clear, hidden) for s in r.sessions)
        p.write_main(main + "tls_required_enable = no\n")
        p.reload()
        p.send(rcpts=["g@mx-a.example"], content=no + "Subject: x\r\n\r\nhello\r\n")
        p.wait_log(f"to=<g@mx-a.example>, .*{missing}")


def test_a_level_that_is_not_there_sends_nothing(dns, cert):
    """Neither in main.cf nor of a transport: mail waits, inside TLS and without, and check names both; a reload to it is refused."""
    master = "relay unix - - n - - smtp -o smtp_tls_security_level=half-dane\nother unix - - n - - smtp -o smtp_tls_security_level=may\n"
    with FakeRelay(tls=server_tls(*cert)) as relay:
        hop = f"[127.0.0.1]:{relay.port}"
        main = (f"relayhost = {hop}\ntransport_maps = inline:{{{{half.example=relay:{hop}, may.example=other:{hop}}}}}\n"
                "smtp_tls_security_level = ")
        with Posthouse(main + "dane-only\n", master=master, dns=dns) as p:
            said = p.run("check").stdout
            assert re.search(r'error: .*main.cf, line \d+: smtp_tls_security_level: .* level "dane-only": mail .* waits', said), said
            assert re.search(r'error: .*master.cf, line \d+: relay: smtp_tls_security_level: .* level "half-dane"', said), said
            for rcpt in ("a@far.example", "b@half.example"):
                p.send(rcpts=[rcpt])
                p.wait_log(f"to=<{rcpt}>, .*dsn=4.7.5, status=deferred .*smtp_tls_security_level = ")
            p.send(rcpts=["c@may.example"])
            relay.wait_mail(b"hello")
            assert len(relay.mails) == 1
            p.write_main(main + "encrypt\n")
            (p.dir / "master.cf").write_text((p.dir / "master.cf").read_text().replace("half-dane", "secure"))
            p.reload()
            p.write_main(main + "dane\n")
            p.proc.send_signal(signal.SIGHUP)
            p.wait_log("reload refused")


@pytest.mark.parametrize("main,own,tls", [
    ("", "-o smtp_enforce_tls=yes", None), ("smtp_enforce_tls = yes\n", "-o smtp_tls_enforce_peername=no", True),
    ("smtp_enforce_tls = yes\n", "-o smtp_enforce_tls=no", True), ("smtp_enforce_tls = yes\n", "-o smtp_tls_security_level=none", False)],
    ids=["verify", "encrypt", "may", "none"])
def test_the_old_name_of_a_level_counts_where_none_is_set(dns, cert, main, own, tls):
    """None: the host's certificate is nobody's, and the mail waits."""
    with FakeRelay(tls=server_tls(*cert)) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n{main}", master=f"smtp unix - - n - - smtp {own}\n", dns=dns) as p:
        p.send()
        p.wait_log(r"status=deferred \(Server certificate not verified" if tls is None else "status=sent")
        assert [bool(m["tls"]) for m in relay.mails] == ([] if tls is None else [tls])
