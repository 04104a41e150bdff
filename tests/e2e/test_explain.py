"""posthouse explain and posthouse test, as an administrator uses them."""
import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading

import pytest
from kit import FakeRelay, Posthouse, free_port, make_cert, server_tls, wait_ended, wait_for

import servers
from test_relay_host import Script

SECRET = "pass:word-of-the-relay"


def steps(p, *args):
    r = p.run(*args, "--json")
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    assert r.returncode in (0, 1), r
    return lines


def named(lines, step):
    return [s for s in lines if s["step"] == step]


SASL = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"


def test_every_step_has_its_place(dns, tmp_path):
    """Table, key, answer, file and line; what was not asked and why; TLS policy; the account but no secret."""
    relay = FakeRelay(auth=("PLAIN",))
    files = {"sdr": f"# comment\nnobody@x.example [x]:1\n@dom.example\n   [relay.server]:{relay.port}\n", "re": "/^never$/ [x]:1\n/^re@/ [other.server]:2525\n",
             "pw": f"# passwords\nrelay.server user:{SECRET}\n", "pol": f"[relay.server]:{relay.port} encrypt\n"}
    with Posthouse("relayhost = [plain.server]:25\nsender_dependent_relayhost_maps = pcre:{dir}/re, hash:{dir}/sdr\n" + SASL +
                   "smtp_sasl_password_maps = hash:{dir}/pw\nsmtp_tls_policy_maps = texthash:{dir}/pol\n", dns=dns, files=files) as p:
        for t in ("sdr", "pw"):
            p.postmap(f"hash:{p.dir}/{t}")
        lines = steps(p, "explain", "User@Dom.example", "b@y.example")
        sdr, = named(lines, "sender_dependent_relayhost_maps")
        asked = [(a["table"].split(":")[0], a["key"], a["answer"]) for a in sdr["asked"]]
        assert asked == [("pcre", "User@Dom.example", "not found"), ("hash", "User@Dom.example", "not found"),
                         ("pcre", "@Dom.example", "not asked"), ("hash", "@Dom.example", "found")]
        assert sdr["asked"][3]["source"] == f"{p.dir}/sdr, line 3" and sdr["asked"][3]["value"] == f"[relay.server]:{relay.port}"
        assert sdr["asked"][2]["why"] and re.search(r"main\.cf, line \d+$", sdr["set_at"])
        assert named(lines, "route")[0]["next_hop"] == f"[relay.server]:{relay.port}"
        policy, = named(lines, "tls policy")
        assert policy["result"].startswith("encrypt, from smtp_tls_policy_maps") and policy["asked"][0]["source"] == f"{p.dir}/pol, line 1"
        cred, = named(lines, "credentials")
        assert cred["user"] == "user" and cred["asked"][0]["source"] == f"{p.dir}/pw, line 2" and "value" not in cred["asked"][0]
        text = p.run("explain", "User@Dom.example").stdout
        assert "account user, under the key relay.server" in text and "not asked" in text
        re_, = named(steps(p, "explain", "re@x.example"), "sender_dependent_relayhost_maps")
        assert re_["asked"][0]["source"] == f"{p.dir}/re, line 2"
        unused = [s for s in lines if s["step"] == "relayhost"]
        assert unused and "not used" in unused[0]["result"] and "[plain.server]:25" in unused[0]["result"]
        assert SECRET not in text + json.dumps(lines) + p.log() and relay.sessions == []
        assert p.run("explain").returncode == 64 and p.run("explain", "a", "b", "c").returncode == 64
    relay.stop()


@pytest.mark.parametrize("server", [servers.MariaDb, servers.Postgres, servers.Sqlite, servers.Slapd], ids=["mysql", "pgsql", "sqlite", "ldap"])
def test_statements_and_searches_are_shown(dns, server):
    import test_ldap
    db = server()
    hop = f"[127.0.0.1]:{free_port()}"
    if db.type == "ldap":
        db.change(test_ldap.DOMAIN_DN, "senderRelayHost", hop)
        text = test_ldap.HEAD.format(port=db.port, password=servers.PASSWORD) + test_ldap.DOMAIN
    else:
        db.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@mydomain.com', '{hop}')")
        text = servers.table_file(db, "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1")
    with Posthouse(f"sender_dependent_relayhost_maps = proxy:{db.type}:{{dir}}/t.cf\n", dns=dns, files={"t.cf": text}) as p:
        sdr, = named(steps(p, "explain", "o'neil@mydomain.com"), "sender_dependent_relayhost_maps")
        source = sdr["asked"][-1]["source"]
        if db.type == "ldap":
            assert "(|(domainName=mydomain.com)(domainAliasName=mydomain.com))" in source and "o=domains,dc=example,dc=com" in source
        else:
            assert "SELECT relayhost FROM sender_relayhost WHERE account='@mydomain.com' LIMIT 1" in source
            assert "account='o''neil@mydomain.com'" in sdr["asked"][0]["source"]
        db.down()
        out = steps(p, "explain", "x@mydomain.com")
        failed, = named(out, "sender_dependent_relayhost_maps")
        assert failed["asked"][-1]["answer"] == "error" and "mail waits" in failed["result"]
        assert named(out, "outcome")[0]["dsn"] == "4.3.0" and not named(out, "route")
        assert servers.PASSWORD not in json.dumps(out) + p.log() + p.run("explain", "x@mydomain.com").stdout
        db.up()
    db.stop()


def test_an_address_is_what_the_door_makes_of_it(dns):
    """Quotes are taken off as they are in MAIL and RCPT, so tables are asked what they are asked for mail."""
    relay = FakeRelay(keep=False)
    rows = f'"two words"@dom.example [127.0.0.1]:{relay.port}\n"plain"@dom.example [127.0.0.1]:1\n'
    main = "sender_dependent_relayhost_maps = texthash:{dir}/sdr, fail:unasked\n"
    with Posthouse(main, dns=dns, files={"sdr": rows}) as p:
        for address, first in (('"two words"@dom.example', '"two words"@dom.example'), ('two words@dom.example', '"two words"@dom.example'),
                               ('"plain"@dom.example', "plain@dom.example"), ("<plain@dom.example>", "plain@dom.example")):
            lines = steps(p, "explain", address, "<b@x.example>")
            asked = named(lines, "sender_dependent_relayhost_maps")[0]["asked"]
            question, = named(lines, "question")
            assert (asked[0]["key"], question["sender"], question["recipient"]) == (first, first, "b@x.example"), (address, lines)
            assert bool(named(lines, "route")) == ("two" in address), (address, lines)
        p.send(sender='"two words"@dom.example', rcpts=["b@x.example"])
        wait_for(lambda: len(relay.mails) == 1)
    relay.stop()


def test_a_transports_own_passwords_are_not_shown(dns):
    """Also where smtp_sasl_password_maps is of a transport alone, and written into master.cf."""
    relay = FakeRelay(auth=("PLAIN",))
    master = f"other unix - - n - - smtp\n -o smtp_sasl_password_maps=inline:{{{{relay.server=user:{SECRET}}}}}\n"
    main = f"sender_dependent_default_transport_maps = inline:{{{{@dom.example=other:[relay.server]:{relay.port}}}}}\n" + SASL
    with Posthouse(main, master=master, dns=dns) as p:
        lines = steps(p, "explain", "me@dom.example")
        cred, = named(lines, "credentials")
        assert cred["user"] == "user" and cred["asked"][0]["table"] == "inline:(hidden)"
        text = p.run("explain", "me@dom.example").stdout + p.run("test", "me@dom.example").stdout + p.run("check").stdout
        assert "user" in text and SECRET not in text + json.dumps(lines) + p.log()
    relay.stop()


def test_null_sender_direct_and_bad_hops(dns):
    with Posthouse("sender_dependent_relayhost_maps = inline:{{{{ <> = [plain.server]:9 }}, {{ bad@x.example = [oops }}}}\n"
                   "transport_maps = inline:{{{{ d.example = discard:quietly }}, {{ r.example = retry:4.0.1 later }}, {{ l.example = local: }}}}\n", dns=dns) as p:
        assert named(steps(p, "explain", "<>"), "route")[0]["next_hop"] == "[plain.server]:9"
        assert "own mail exchanger" in named(steps(p, "explain", "a@x.example"), "direct")[0]["result"]
        direct = steps(p, "explain", "a@x.example", "b@mxonly.example")
        assert [d["result"].split("[")[0] for d in named(direct, "dns")][-2:] == ["mx-a.example", "mx-b.example"]
        assert named(steps(p, "explain", "bad@x.example"), "outcome")[0]["dsn"] == "4.3.5"
        for rcpt, word in (("b@d.example", "dropped"), ("b@r.example", "deferred"), ("b@l.example", "deferred")):
            assert word in named(steps(p, "explain", "a@x.example", rcpt), "outcome")[0]["result"], rcpt
        r = p.run("test", "a@x.example", "b@nullmx.example")
        assert r.returncode == 1 and "does not accept mail (nullMX)" in r.stdout


def test_an_address_without_a_domain_goes_as_mail_with_it_does(dns):
    with Posthouse("mydomain = mta.example\nappend_dot_mydomain = yes\nmydestination =\n"
                   "sender_dependent_relayhost_maps = "
                   "inline:{{{{ backup@mta.example = [plain.server]:9 }}, {{ @shop.mta.example = [plain.server]:7 }}}}\n"
                   "transport_maps = inline:{{{{ mta.example = discard:quietly }}}}\n", dns=dns) as p:
        for sender, hop in (("backup", 9), ("x@shop", 7)):
            said = steps(p, "explain", sender, "b@y.example")
            assert named(said, "route")[0]["next_hop"] == f"[plain.server]:{hop}", said
            p.send(sender, ["b@y.example"])
            p.wait_log(rf"to=<b@y\.example>, relay=none.*connect to plain\.server\[127\.0\.0\.1\]:{hop}: ")
        assert named(steps(p, "explain", "a@x.example", "postmaster"), "route")[0]["transport"] == "discard"
        assert named(steps(p, "test", "<>", "postmaster"), "question")[0]["recipient"] == "postmaster@mta.example"


# main.cf, the recipient, what explain says of the mail and its status code.
OUTCOMES = [
    ("defer_transports = smtp", "b@y.example", "deferred", "4.3.2"),
    ("transport_maps = inline:{{{{ e.example = error:4 all of it }}}}", "b@e.example", "bounced", "5.0.0"),
    ("transport_maps = inline:{{{{ e.example = error:4.2.9 for now }}}}", "b@e.example", "deferred", "4.2.9"),
    ("transport_maps = inline:{{{{ e.example = error:5.2.9 for ever }}}}", "b@e.example", "bounced", "5.2.9"),
    ("soft_bounce = yes\ntransport_maps = inline:{{{{ e.example = error:5.2.9 for ever }}}}", "b@e.example", "deferred", "4.2.9"),
    ("transport_maps = inline:{{{{ e.example = discard:quietly }}}}", "b@e.example", "dropped", "2.0.0"),
    ("relayhost =", "b@nx.example", "bounced", "5.4.4"),
    ("soft_bounce = yes\nrelayhost =", "b@nx.example", "deferred", "4.4.4"),
    ("relayhost = [nx.server]", "b@y.example", "deferred", "4.3.5"),
    (SASL + "smtp_sasl_password_maps = fail:broken", "b@y.example", "deferred", "4.3.0"),
]


def test_mail_that_does_not_go_is_not_called_good(dns):
    """By explain and test alike, with the status that the mail itself has then, where it is taken at all."""
    relay = FakeRelay()
    # A client hears of error: at RCPT; sendmail's mail is in the queue then.
    with Posthouse("", dns=dns) as p:
        for main, rcpt, word, code in OUTCOMES:
            p.write_main(f"relayhost = [127.0.0.1]:{relay.port}\n{main}")
            p.reload()
            for command in ("explain", "test"):
                last = [s for s in steps(p, command, "a@x.example", rcpt) if s.get("dsn")][-1]
                assert word in last.get("mail_would_be", last["result"]) and last["dsn"] == code, (main, last)
                assert p.run(command, "a@x.example", rcpt).returncode == 1, (main, command)
            seen = p.log().count("status=")
            p.run("-f", "a@x.example", rcpt, face="sendmail", stdin="Subject: hello\n\nhello\n", check=True)

            def ends():  # a report about a mail before may end meanwhile
                return [l for l in p.log().splitlines() if "status=" in l][seen:]
            line = wait_for(lambda: [l for l in ends() if f"to=<{rcpt}>" in l])[0]
            assert f"dsn={code}, status={'sent' if word == 'dropped' else word}" in line, (main, line)
    relay.stop()


# How the first host of two answers, and whether the second one gets the mail.
ANSWERS = [({"RCPT": "450 4.2.0 later"}, True), ({"MAIL": "451 4.3.0 later"}, True), ({"MAIL": ""}, True), ({"RCPT": ""}, True),
           ({"RCPT": "421 4.3.2 bye"}, True), ({"MAIL": "354 what"}, True), ({"MAIL": "nonsense"}, True),
           ({"RCPT": "550 5.1.1 nobody"}, False), ({"MAIL": "553 5.7.1 not you"}, False), ({}, False)]


def test_the_next_host_is_asked_as_it_is_for_mail(dns):
    relays = [(FakeRelay(replies=says), FakeRelay()) for says, _ in ANSWERS]
    rows = "".join(f"s{i}@x.example [127.0.0.1]:{a.port}, [127.0.0.1]:{b.port}\n" for i, (a, b) in enumerate(relays))
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n", dns=dns, files={"hops": rows}) as p:
        for i, (says, goes_on) in enumerate(ANSWERS):
            first, second = relays[i]
            r = p.run("test", f"s{i}@x.example", "b@y.example")
            assert bool(second.sessions) == goes_on, (says, r.stdout)
            p.send(sender=f"s{i}@x.example")
            p.wait_log(rf"(?s)from=<s{i}@x.example>.*to=<b@y.example>.*status=\w+")
            assert len(second.mails) == goes_on, says
            assert (r.returncode == 0) == bool(first.mails + second.mails), (says, r.stdout)
    for relay in (r for pair in relays for r in pair):
        relay.stop()


# What two hosts do, and what becomes of the mail: what the last step says.
LOGIN = {"AUTH": "535 5.7.8 no"}
ROUNDS = [(LOGIN, "nowhere", "deferred"), (LOGIN, LOGIN, "bounced"), ({"GREETING": "421 later"}, LOGIN, "deferred"),
          ({"RCPT": "450 4.2.0 later"}, LOGIN, "deferred"), (LOGIN, {"RCPT": "450 4.2.0 later"}, "deferred"),
          ({"RCPT": "450 4.2.0 later"}, {"RCPT": "550 5.1.1 no"}, "bounced"), (LOGIN, {"MAIL": ""}, "deferred")]


def test_the_last_verdict_is_that_of_all_hosts(dns):
    """Of some hosts that fail each in its own way: what test says last is what mail meets."""
    relays, rows = [], ""
    for i, (first, second, _) in enumerate(ROUNDS):
        pair = [FakeRelay(auth=["PLAIN"], replies=says) for says in (first, second) if says != "nowhere"]
        hops = [f"[127.0.0.1]:{r.port}" for r in pair] + ["[nx.server]:25"] * (2 - len(pair))
        rows += f"s{i}@x.example {hops[0]}, {hops[1]}\n"
        relays += pair
    main = "sender_dependent_relayhost_maps = texthash:{dir}/hops\nsmtp_sasl_password_maps = static:me:word\n"
    with Posthouse(SASL + main + "smtp_sasl_auth_soft_bounce = no\n", dns=dns, files={"hops": rows}) as p:
        for i, round_ in enumerate(ROUNDS):
            said = [s["mail_would_be"] for s in steps(p, "test", f"s{i}@x.example", "b@y.example") if "mail_would_be" in s]
            p.send(sender=f"s{i}@x.example")
            became = p.wait_log(rf"(?s)from=<s{i}@x\.example>.*to=<b@y\.example>.*status=(\w+)")[-1]
            assert (said[-1], became) == (round_[2], round_[2]), (round_, said)
    for relay in relays:
        relay.stop()


def test_an_international_address_is_tested_as_mail_with_it_goes(dns):
    def strict(line):
        return "553 5.6.7 SMTPUTF8 was not asked for" if not line.isascii() and not line.endswith(" SMTPUTF8") else None
    relays = [FakeRelay(utf8=utf8, replies={"MAIL": strict}) for utf8 in (True, False)]
    rows = "".join(f"@{name}.example [127.0.0.1]:{r.port}\n" for name, r in zip(("knows", "not"), relays))
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n", dns=dns, files={"hops": rows}) as p:
        assert p.run("test", "grün@knows.example", "b@y.example").returncode == 0
        r = p.run("test", "grün@not.example", "b@y.example")
        assert r.returncode == 1 and "SMTPUTF8 is required, but was not offered" in r.stdout
        assert "mail would be: bounced" in r.stdout
        assert all(s.raw.isascii() for s in relays[1].sessions)
        assert p.run("test", "a@not.example", "b@y.example").returncode == 0
    for r in relays:
        r.stop()


@pytest.fixture(scope="module")
def cert(tmp_path_factory):
    return make_cert(tmp_path_factory.mktemp("cert"))


def test_test_walks_every_stage(dns, cert):
    relay = FakeRelay(auth=("PLAIN", "LOGIN"), need_auth=True, users={"user": SECRET}, tls=server_tls(*cert), tls_first=True)
    with Posthouse(f"relayhost = [relay.server]:{relay.port}\nsmtp_bind_address = 127.0.0.1\n" + SASL + "smtp_tls_CAfile = {dir}/ca.pem\n"
                   "smtp_sasl_password_maps = inline:{{{{ relay.server = user:" + SECRET + " }}}}\nsmtp_helo_name = me.example\n",
                   dns=dns, files={"ca.pem": cert[0].read_text()}) as p:
        lines = steps(p, "test", "a@x.example", "b@y.example")
        assert [s["step"] for s in lines if "ms" in s] == ["dns", "tls policy", "connect", "greeting", "ehlo", "tls", "ehlo", "credentials",
                                                          "mechanism", "auth", "mail", "rcpt", "rset"]
        assert all(s["pass"] and s["ms"] >= 0 for s in lines if "ms" in s) and lines[-1]["step"] == "rset"
        tls, = named(lines, "tls")
        assert tls["subject"] == tls["issuer"] == "CN=relay.server" and tls["days_left"] in (1, 2) and tls["verifies"] == "yes"
        assert named(lines, "mechanism")[0]["result"] == "PLAIN, of PLAIN LOGIN"
        s, = relay.sessions
        words = ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "RSET", "QUIT"]
        wait_for(lambda: [c.split()[0] for c in s.commands] == words)  # QUIT comes behind the answer of the test
        assert s.commands[0] == "EHLO me.example" and s.mails == []
        r = p.run("test", "a@x.example")
        assert r.returncode == 0 and "not tried: no recipient was given" in r.stdout and r.stdout.endswith("all stages passed\n")
        everything = json.dumps(lines) + r.stdout + r.stderr + p.log()
        import base64
        for text in (SECRET, base64.b64encode(f"\0user\0{SECRET}".encode()).decode(), base64.b64encode(SECRET.encode()).decode()):
            assert text not in everything
        assert p.queue() == []
    relay.stop()


REFUSALS = [  # stage and reply of the relay host; the words that say what to do
    ("AUTH", "534-5.7.9 Application-specific password required. For more information, go to\r\n534 5.7.9 https://support.google.com", "application password"),
    ("AUTH", "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect or basic authentication is disabled", "basic authentication is switched off"),
    ("AUTH", "550 5.7.30 Basic authentication is not supported for Client Submission.", "retired basic authentication"),
    ("AUTH", "535 5.7.8 Error: authentication failed", "User name or password is wrong"),
    ("MAIL", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "may not send as this sender"),
    ("MAIL", "554 Message rejected: Email address is not verified. The following identities failed the check in region EU", "verify the sender's domain"),
    ("MAIL", "530 5.7.0 Must issue a STARTTLS command first", "TLS first"),
    ("RCPT", "554 5.7.1 <b@y.example>: Relay access denied", "does not relay for us"),
    ("RCPT", "550 5.4.5 Daily user sending limit exceeded.", "daily sending limit"),
]


@pytest.mark.parametrize("stage,reply,words", REFUSALS, ids=[w.replace(" ", "-") for *_, w in REFUSALS])
def test_refusals_are_explained(dns, stage, reply, words):
    relay = FakeRelay(auth=("PLAIN",), replies={stage: reply})
    with Posthouse(f"relayhost = [relay.server]:{relay.port}\n" + SASL + "smtp_sasl_password_maps = static:{{u:" + SECRET + "}}\n", dns=dns) as p:
        r = p.run("test", "a@x.example", "b@y.example")
        assert r.returncode == 1 and re.search(rf"FAIL  {stage.lower()} ", r.stdout), r.stdout
        assert words in re.search(r"advice: (.*)", r.stdout)[1]
        assert f"mail would be: {'deferred' if stage == 'AUTH' or reply[:3] == '530' else 'bounced'}" in r.stdout
        assert SECRET not in r.stdout and "it would not go through" in r.stdout
        assert relay.sessions[0].mails == []
    relay.stop()


def test_test_of_dead_and_broken_hosts(dns, cert):
    """The next host is tried as in a delivery; what cannot be reached is said, in bounded time."""
    silent = FakeRelay(replies={"GREETING": lambda line: __import__("time").sleep(60)})
    good = FakeRelay()
    hung = FakeRelay(replies={"MAIL": ""})
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}, [nx.server]:25, [relay.server]:{good.port}\n", dns=dns) as p:
        r = p.run("test", "a@x.example", "b@y.example")
        assert r.returncode == 0 and "Connection refused" in r.stdout and "Host or domain name not found" in r.stdout, r.stdout
        p.write_main(f"relayhost = [relay.server]:{hung.port}\n")
        p.reload()
        r = p.run("test", "a@x.example")
        assert r.returncode == 1 and "lost connection with relay.server" in r.stdout
        p.write_main(f"relayhost = [relay.server]:{silent.port}\nsmtp_helo_timeout = 2s\n")
        p.reload()
        r = p.run("test", "a@x.example")
        assert r.returncode == 1 and "timed out while receiving the initial server greeting" in r.stdout
        p.write_main(f"relayhost = [relay.server]:{good.port}\nsmtp_tls_security_level = encrypt\n")
        p.reload()
        r = p.run("test", "a@x.example")
        assert r.returncode == 1 and "TLS is required, but was not offered" in r.stdout
        gone = subprocess.Popen([str(p.dir / "cmd-posthouse/posthouse"), "test", "a@x.example"], env=dict(p.env(), MAIL_CONFIG=str(p.dir)), stdout=subprocess.PIPE)
        gone.kill()  # a client that leaves in the middle harms nobody
        gone.wait()
        assert p.send().startswith("250")
    for s in (silent, good, hung):
        s.stop()


def test_without_a_daemon(tmp_path):
    p = Posthouse("", directory=tmp_path)
    r = p.run("explain", "a@x.example")
    assert r.returncode == 69 and "is posthoused running?" in r.stderr


def test_what_is_refused_is_explained(dns):
    """A service that takes no mail is named with what it asks for, whatever the road; an accepted name is not."""
    port = free_port()
    main = "relayhost = [127.0.0.1]:9\ntransport_maps = static:error:5.7.1\n"
    own = f"127.0.0.1:{port} inet n - n - - smtpd -o always_bcc=archive@x.example\n"
    with Posthouse(main + "header_checks = regexp:/x\n", master=own, dns=dns) as p:
        r = p.run("explain", "a@x.example", "b@y.example")
        said = [line for line in r.stdout.splitlines() if line.startswith("FAIL  refused: ")]
        assert r.returncode == 1 and len(said) == 2
        for line, services, name in zip(said, (f"127.0.0.1:{p.port}, 127.0.0.1:{port} and sendmail", f"127.0.0.1:{port}"),
                                        ("header_checks", "always_bcc")):
            assert line.startswith(f"FAIL  refused: {name} is not implemented: ") and f"(451 4.3.5) by {services};" in line, line
        assert "accept_unimplemented = header_checks lets it pass" in r.stdout and re.search(r"set at: \S+main.cf, line \d+", r.stdout)
        p.write_main(main + "header_checks = regexp:/x\naccept_unimplemented = header_checks\n")
        p.reload()
        said = [line for line in p.run("explain", "a@x.example", "b@y.example").stdout.splitlines() if "refused: " in line]
        assert len(said) == 1 and "always_bcc is not implemented" in said[0], said


# How a relay host ends the dialogue of `posthouse test`, and what is said of it.
ENDS = [({"MAIL": [""]}, "lost connection with .* while sending MAIL FROM"),
        ({"RCPT": [""]}, "lost connection with .* while sending RCPT TO"),
        ({"RSET": [""]}, "lost connection with .* while sending RSET"), ({"RSET": ["502 5.5.1 what"]}, "Protocol error: .* said 502"),
        ({"MAIL": ["250 2.1.0 ok", "250 2.1.0 ok"], "RCPT": ["550 5.1.1 nobody"]}, "Protocol error|550 5.1.1 nobody"),
        ({"MAIL": ["25 what"]}, "malformed or endless reply while sending MAIL FROM"), ({"RCPT": ["421 4.3.2 bye", ""]}, "421 4.3.2 bye"),
        ({"MAIL": ["354 go"]}, "said: 354 go"), ({"RCPT": ["550 5.1.1 nobody"]}, "mail would be: bounced"), ({}, "250 2.1.5 ok")]


def test_a_dialogue_that_ends_otherwise(dns):
    """What is found is said, and only a dialogue that went through is called good."""
    relays = [Script(says) for says, _ in ENDS]
    rows = "".join(f"s{i}@x.example [127.0.0.1]:{r.port}\n" for i, r in enumerate(relays))
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n", dns=dns, files={"hops": rows}) as p:
        for i, (says, words) in enumerate(ENDS):
            r = p.run("test", f"s{i}@x.example", "b@y.example")
            assert re.search(words, r.stdout), (says, r.stdout)
            assert (r.returncode == 0) == (says == {}), (says, r.stdout)
    for r in relays:
        assert not r.taken
        r.stop()


# What main.cf says of credentials, whether `posthouse test` goes through, what it says, and the login that the host gets.
LOGINS = [
    ("smtp_sasl_password_maps = fail:broken", False, "never sent without", None),
    ("smtp_sasl_password_maps = inline:{{ {{ [elsewhere] = user:pass }} }}", True, "no entry: mail goes without AUTH", None),
    ("smtp_sasl_password_maps =", False, "smtp_sasl_password_maps is empty: mail waits (4.3.5)", None),
    ("smtp_sasl_password_maps = static:user:pa:ss", True, "account user", ("user", "pa:ss")),
    ("smtp_sasl_password_maps = static:user", True, "account user", ("user", "")),
    ("smtp_sasl_password_maps = static:us:er/pass\nsmtp_sasl_password_result_delimiter = /", True, "account us:er", ("us:er", "pass")),
    ("smtp_sasl_password_maps = static:user:pass\nsmtp_sasl_password_result_delimiter =", True, "account user:pass", ("user:pass", "")),
    ("smtp_sasl_password_maps = static:user:pass\nsmtp_sasl_mechanism_filter = !plain", False, "no compatible authentication", None),
    ("smtp_sasl_password_maps = static:user:pass\nsmtp_sasl_security_options = noplaintext", False, "no mechanism available", None),
]


def test_logins_as_they_are_configured(dns):
    """The test logs in as mail would, or says why mail does not; what it does not find is not logged as a delivery's."""
    relay = FakeRelay(auth=["PLAIN"])
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_sasl_auth_enable = yes\n"
    with Posthouse(main, dns=dns) as p:
        for row, passes, words, login in LOGINS:
            p.write_main(f"smtp_sasl_security_options = noanonymous\n{main}{row}\n")
            p.reload()
            before = len(relay.sessions)
            r = p.run("test", "a@x.example", "b@y.example")
            assert words in r.stdout and (r.returncode == 0) == passes, (row, r.stdout)
            said = [s.auth for s in relay.sessions[before:]]
            assert said == [login and ("PLAIN", *login)], (row, said)
        assert "no credential matched" not in p.log() and "smtp_sasl_password_maps lookup error" not in p.log()
        # A host that hears MAIL and says nothing.
        relay.replies["MAIL"] = lambda line: wait_for(lambda: relay.closed) and None
        p.write_main(main.replace("= yes", "= no") + "smtp_mail_timeout = 1s\n")
        p.reload()
        r = p.run("test", "a@x.example", "b@y.example")
        assert r.returncode == 1 and re.search(r"conversation with .* timed out while sending MAIL FROM", r.stdout), r.stdout
        relay.stop()


OWN_ERRORS = [  # what is wrong with the host; the cause; words of the advice
    ("refused", "connection refused", "Nothing listens there"),
    ("nowhere", "name unknown", "does not exist"),
    ("login-missing", "login missing", "no login on this port"),
    ("unusable", "login unusable", "no login that may be used"),
    ("filtered", "login filtered", "mechanism filter"),
    ("tls-missing", "tls missing", "offers no TLS"),
    ("handshake", "tls handshake", "handshake failed"),
    ("untrusted", "certificate untrusted", "authority"),
    ("print", "certificate fingerprint", "fingerprints"),
    ("hangs-up", "connection lost", None),
]


def faulty_hosts(cert):
    old = server_tls(*cert)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    return {"login-missing": FakeRelay(), "unusable": FakeRelay(auth=("XOAUTH2",)), "filtered": FakeRelay(auth=("PLAIN",)),
            "tls-missing": FakeRelay(), "handshake": FakeRelay(tls=old), "untrusted": FakeRelay(tls=server_tls(*cert)),
            "print": FakeRelay(tls=server_tls(*cert)), "hangs-up": FakeRelay(replies={"EHLO": ""})}


def test_own_errors_are_explained(dns, cert):
    """By what was found, which is data: `test` says what to do, and the queue keeps the cause over a restart."""
    relays = faulty_hosts(cert)
    hops = {name: f"[127.0.0.1]:{r.port}" for name, r in relays.items()}
    hops |= {"refused": f"[127.0.0.1]:{free_port()}", "nowhere": "[no.such.name.example]"}
    services = {"login-missing": "login", "unusable": "login", "filtered": "scram"}
    levels = {"tls-missing": "encrypt", "handshake": "encrypt protocols=TLSv1.3", "untrusted": "verify",
              "print": "fingerprint match=" + ":".join(["0A"] * 32)}
    files = {"transport": "".join(f"{name}.example {services.get(name, 'smtp')}:{hop}\n" for name, hop in hops.items()),
             "policy": "".join(f"{hops[name]} {level}\n" for name, level in levels.items())}
    login = ("unix - - n - - smtp -o smtp_sasl_auth_enable=yes -o smtp_sasl_security_options=noanonymous"
             f" -o smtp_sasl_password_maps=static:u:{SECRET}")
    with Posthouse("transport_maps = texthash:{dir}/transport\nsmtp_tls_policy_maps = texthash:{dir}/policy\n"
                   "smtp_tls_fingerprint_digest = sha256\nminimal_backoff_time = 1000s\n",
                   dns=dns, files=files, master=f"login {login}\nscram {login} -o smtp_sasl_mechanism_filter=scram-sha-256\n") as p:
        for name, _, words in OWN_ERRORS:
            shown = p.run("test", "a@x.example", f"b@{name}.example").stdout
            advice = re.findall(r"advice: (.*)", shown)
            assert (advice == []) if words is None else (len(advice) == 1 and words in advice[0]), shown
            p.send(rcpts=[f"b@{name}.example"])
        expected = {f"b@{name}.example": cause for name, cause, _ in OWN_ERRORS}
        causes = lambda: {r["address"]: r.get("cause") for q in p.queue() for r in q["recipients"]}
        wait_for(lambda: causes() == expected)
        p.stop()
        p.start()
        wait_for(lambda: causes() == expected)
    for r in relays.values():
        r.stop()


def test_a_test_that_nobody_waits_for_ends(dns):
    """Who asked has gone: a host that hangs is not asked for each address of an alias, for hours."""
    with socket.create_server(("127.0.0.1", 0)) as host:
        later = []
        def hang_up():
            with contextlib.suppress(OSError):
                while True:
                    later.append(host.accept()[0].close())
        thread = threading.Thread(target=hang_up)
        main = f"relayhost = [127.0.0.1]:{host.getsockname()[1]}\nvirtual_alias_maps = texthash:{{dir}}/all\n"
        with Posthouse(main, dns=dns, files={"all": "all@x.example a@y.example, b@y.example, c@y.example\n"}) as p:
            def ask(rcpt):
                s = socket.socket(socket.AF_UNIX)
                s.connect(str(p.dir / "spool/control.sock"))
                s.sendall(json.dumps({"cmd": "test", "sender": "s@x.example", "recipient": rcpt}).encode() + b"\n")
                return s
            asked = ask("all@x.example")
            first = host.accept()[0]
            asked.close()
            for _ in range(2):
                assert p.control("reloads")["ok"]  # that it has gone was seen before
            first.close()
            thread.start()
            with ask("z@z.example") as other:
                told = next(line for line in other.makefile() if '"ok"' in line)
        host.shutdown(socket.SHUT_RDWR)
        wait_ended(thread)
        assert json.loads(told)["passed"] is False and len(later) == 1, (told, later)
