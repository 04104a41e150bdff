"""A plain relay host with a password table, as most have it, and the rules by which credentials are found.

Facts: Postfix 3.7's behaviour.
"""
import re

import pytest
from kit import FakeRelay, Posthouse, wait_for

SEED = """relayhost = [relay.server]:{port}
smtp_sasl_password_maps = hash:{{dir}}/sasl_password
smtp_sasl_auth_enable = yes
smtp_sasl_mechanism_filter = login
smtp_sasl_security_options = noanonymous
"""


def seed(port, extra=""):
    return SEED.format(port=port) + extra


def posthouse(dns, relayhost, keys, extra="", **kw):
    main = seed(0).replace("[relay.server]:0", relayhost) + extra
    p = Posthouse(main, files={"sasl_password": keys}, dns=dns, **kw)
    p.postmap(f"hash:{p.dir}/sasl_password")
    return p


def test_seed_verbatim(dns):
    relay = FakeRelay(auth=["PLAIN", "LOGIN"], need_auth=True, users={"user": "password"})
    p = Posthouse(seed(relay.port), files={"sasl_password": "relay.server user:password\n"}, dns=dns)
    r = p.postmap(f"hash:{p.dir}/sasl_password")
    assert r.stdout == "" and r.stderr == ""
    with p:
        reply = p.send()
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        mail = relay.wait_mails(1)[0]
        assert mail["auth"] == ("LOGIN", "user", "password")
        assert mail["from"].startswith("MAIL FROM:<a@x.example>")
        assert mail["rcpts"] == ["RCPT TO:<b@y.example>"]
        qid = reply.split()[-1].encode()
        assert re.search(rb"Subject: test\r\nMessage-Id: <\d{14}\." + qid + rb"@mta\.example>\r\nDate: ", mail["content"])
        words = [c.split()[0] for c in relay.sessions[0].commands]
        assert words[:3] == ["EHLO", "AUTH", "MAIL"] and relay.sessions[0].commands[1] == "AUTH LOGIN"
        p.wait_log(r"to=<b@y\.example>, relay=relay\.server\[127\.0\.0\.1\]:\d+, delay=[\d.]+, "
                   r"delays=[\d./]+, dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: queued as FAKE123\)")
        p.wait_log("removed")
        assert p.queue() == []
        assert "password" not in p.log().replace("sasl_password", "")
    relay.stop()


# reference 3.1: nexthop, key in the file, does it authenticate?  {p} is the relay's port.
KEYS = [
    ("[relay.server]:{p}", "relay.server", True),
    ("[relay.server]:{p}", "[relay.server]", False),
    ("[relay.server]:{p}", "[relay.server]:{p}", True),
    ("[relay.server]:{p}", "relay.server:{p}", False),
    ("[relay.server]:{p}", "127.0.0.1", False),
    ("relay.server:{p}", "mx1.relay.server", True),
    ("relay.server:{p}", "[relay.server]", False),
    ("relay.server:{p}", "relay.server", False),
    ("relay.server:{p}", "relay.server:{p}", True),
    ("plain.server:{p}", "plain.server", True),
    ("[127.0.0.1]:{p}", "[127.0.0.1]", False),
    ("[127.0.0.1]:{p}", "[127.0.0.1]:{p}", True),
    ("[127.0.0.1]:{p}", "127.0.0.1", True),
    ("[RELAY.Server]:{p}", "relay.server", True),
    ("[relay.server]:{p}", "RELAY.Server", True),
    ("[RELAY.Server]:{p}", "[relay.server]:{p}", True),
]


@pytest.mark.parametrize("hop,key,auth", KEYS)
def test_credential_keys(dns, hop, key, auth):
    relay = FakeRelay(auth=["LOGIN"])
    with posthouse(dns, hop.format(p=relay.port), f"{key.format(p=relay.port)} user:pass:word\n") as p:
        p.send()
        mail = relay.wait_mails(1)[0]
        assert mail["auth"] == (("LOGIN", "user", "pass:word") if auth else None)
        if not auth:
            p.wait_log("warning: relay .* offers AUTH, but no credential matched")
    relay.stop()


# The rows of the same table that are about port 25 itself.
PORT25 = [
    ("[port25.server]:25", "port25.server", True),
    ("[port25.server]:25", "[port25.server]", False),
    ("[port25.server]:25", "[port25.server]:25", True),
    ("[port25.server]:25", "port25.server:25", False),
    ("[port25.server]", "port25.server", True),
    ("[port25.server]", "[port25.server]", True),
    ("[port25.server]", "[port25.server]:25", False),
    ("[port25.server]", "port25.server:25", False),
]


@pytest.mark.parametrize("hop,key,auth", PORT25)
def test_credential_keys_on_port_25(dns, hop, key, auth):
    relay = FakeRelay("127.0.0.78", 25, auth=["LOGIN"])
    with posthouse(dns, hop, f"{key} user:password\n") as p:
        p.send()
        assert relay.wait_mails(1)[0]["auth"] == (("LOGIN", "user", "password") if auth else None)
    relay.stop()


def test_credential_key_on_port_25_form(dns):
    """[relay.server] without a port is asked as [relay.server] and as relay.server."""
    with posthouse(dns, "[relay.server]", "[relay.server] user:password\n") as p:
        r = p.run("check")
        assert "no credential" not in r.stdout
    with posthouse(dns, "[relay.server]", "[relay.server]:25 user:password\n") as p:
        r = p.run("check")
        assert "no credential" in r.stdout and '"relay.server", "[relay.server]"' in r.stdout
        assert r.returncode == 1


def test_host_key_beats_nexthop_key(dns):
    relay = FakeRelay(auth=["LOGIN"])
    keys = f"[relay.server]:{relay.port} d:d\nrelay.server h:h\n"
    with posthouse(dns, f"[relay.server]:{relay.port}", keys) as p:
        p.send()
        assert relay.wait_mails(1)[0]["auth"] == ("LOGIN", "h", "h")
    relay.stop()


@pytest.mark.parametrize("value,user,password", [
    ("user:pass:word", "user", "pass:word"),
    ("user", "user", ""),
    ("user:pa ss", "user", "pa ss"),
    ('u"s\\er:#$%', 'u"s\\er', "#$%"),
])
def test_value_format(dns, value, user, password):
    relay = FakeRelay(auth=["LOGIN"])
    with posthouse(dns, f"[relay.server]:{relay.port}", f"relay.server   {value}  \n") as p:
        p.send()
        assert relay.wait_mails(1)[0]["auth"] == ("LOGIN", user, password)
    relay.stop()


def test_auth_not_offered_defers(dns):
    """Postfix bounces here; Posthouse keeps the mail and says why."""
    relay = FakeRelay(replies={"RCPT": "554 5.7.1 Relay access denied"})
    with posthouse(dns, f"[relay.server]:{relay.port}", "relay.server user:password\n") as p:
        p.send()
        p.wait_log(r"dsn=4\.7\.0, status=deferred \(credentials are configured for relay\.server"
                   r"\[127\.0\.0\.1\], but it did not offer AUTH")
        assert not any(c.startswith("MAIL") for c in relay.sessions[0].commands)
        assert p.queue()[0]["recipients"][0]["address"] == "b@y.example"
    relay.stop()


def test_filter_leaves_no_mechanism(dns):
    relay = FakeRelay(auth=["PLAIN", "CRAM-MD5"])
    with posthouse(dns, f"[relay.server]:{relay.port}", "relay.server user:password\n") as p:
        p.send()
        p.wait_log(rf"warning: relay\.server\[127\.0\.0\.1\]:{relay.port} offered no supported AUTH "
                   r"mechanisms: 'PLAIN CRAM-MD5'")
        p.wait_log(r"dsn=4\.7\.0, status=deferred \(SASL authentication failed: server relay\.server"
                   r"\[127\.0\.0\.1\] offered no compatible authentication mechanisms for this type of "
                   r"connection security\)")
        wait_for(lambda: [c.split()[0] for c in relay.sessions[0].commands] == ["EHLO", "QUIT"])
    relay.stop()


def test_default_options_forbid_plaintext(dns):
    relay = FakeRelay(auth=["PLAIN", "LOGIN"])
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_sasl_password_maps = inline:{{relay.server=user:password}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log(r"4\.7\.0, status=deferred \(SASL authentication failed; cannot authenticate to "
                   r"server relay\.server\[127\.0\.0\.1\]: no mechanism available\)")
    relay.stop()


@pytest.mark.parametrize("mechs,filter_,want", [
    (["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"], "", "SCRAM-SHA-256"),
    (["PLAIN", "LOGIN", "CRAM-MD5"], "", "CRAM-MD5"),
    (["PLAIN", "LOGIN"], "", "PLAIN"),
    (["PLAIN", "LOGIN", "CRAM-MD5"], "!cram-md5, static:rest", "PLAIN"),
    (["PLAIN", "LOGIN", "CRAM-MD5"], "login, plain", "PLAIN"),
])
def test_mechanisms(dns, mechs, filter_, want):
    relay = FakeRelay(auth=mechs, need_auth=True, users={"user": "pencil"})
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\n" \
           f"smtp_sasl_mechanism_filter = {filter_}\nsmtp_sasl_security_options = noanonymous\n" \
           "smtp_sasl_password_maps = inline:{{relay.server=user:pencil}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        assert relay.wait_mails(1)[0]["auth"] == (want, "user", "pencil")
    relay.stop()


@pytest.mark.parametrize("reply,extra,dsn,status", [
    ("535 5.7.8 Authentication credentials invalid", "", "4.7.8", "deferred"),
    ("454 4.7.0 Temporary authentication failure", "", "4.7.0", "deferred"),
    ("535 5.7.8 Authentication credentials invalid", "smtp_sasl_auth_soft_bounce = no\n", "5.7.8", "bounced"),
    ("503 5.5.1 Bad sequence of commands", "smtp_sasl_auth_soft_bounce = no\n", "4.5.1", "deferred"),
])
def test_auth_refused(dns, reply, extra, dsn, status):
    relay = FakeRelay(auth=["LOGIN"], replies={"AUTH": reply})
    with posthouse(dns, f"[relay.server]:{relay.port}", "relay.server user:password\n", extra) as p:
        p.send()
        p.wait_log(rf"dsn={dsn}, status={status} \(SASL authentication failed; server relay\.server"
                   rf"\[127\.0\.0\.1\] said: {reply}\)")
        assert not any(c.startswith("MAIL") for c in relay.sessions[0].commands)
    relay.stop()


def test_connection_lost_in_auth(dns):
    relay = FakeRelay(auth=["LOGIN"], replies={"AUTH": ""})
    with posthouse(dns, f"[relay.server]:{relay.port}", "relay.server user:password\n") as p:
        p.send()
        p.wait_log(r"dsn=4\.4\.2, status=deferred \(lost connection with relay\.server\[127\.0\.0\.1\] "
                   "while performing the SASL handshake")
    relay.stop()


def test_password_map_error(dns):
    relay = FakeRelay(auth=["LOGIN"])
    main = seed(relay.port).replace("hash:{dir}/sasl_password", "fail:x")
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log(r"warning: \w+: smtp_sasl_password_maps lookup error")
        p.wait_log(r"dsn=4\.3\.0, status=deferred \(local data error while talking to relay\.server"
                   r"\[127\.0\.0\.1\]\)")
        wait_for(lambda: [c.split()[0] for c in relay.sessions[0].commands] == ["EHLO", "QUIT"])
    relay.stop()


def test_missing_table_waits_and_needs_no_reload(dns):
    """A table that is not there defers; postmap alone mends it."""
    relay = FakeRelay(auth=["LOGIN"], need_auth=True, users={"user": "password"})
    p = Posthouse(seed(relay.port), files={"sasl_password": "relay.server user:password\n"}, dns=dns)
    with p:
        p.send()
        p.wait_log(r"error: open database .*sasl_password\.db: No such file or directory")
        p.wait_log("status=deferred")
        p.postmap(f"hash:{p.dir}/sasl_password")
        assert p.run("-f", face="postqueue").returncode == 0
        assert relay.wait_mails(1)[0]["auth"] == ("LOGIN", "user", "password")
        # and a changed password is seen the same way
        (p.dir / "sasl_password").write_text("relay.server user2:other\n")
        relay.users["user2"] = "other"
        p.postmap(f"hash:{p.dir}/sasl_password")
        wait_for(lambda: "QUIT" in relay.sessions[-1].commands)  # the kept connection has gone
        p.send()
        assert relay.wait_mails(2)[1]["auth"] == ("LOGIN", "user2", "other")
    relay.stop()


def test_connection_reuse(dns):
    relay = FakeRelay(auth=["LOGIN"])
    with posthouse(dns, f"[relay.server]:{relay.port}", "relay.server user:password\n") as p:
        for i in range(3):
            p.send()
            relay.wait_mails(i + 1)
            p.wait_log("removed", count=i + 1)
        assert len([s for s in relay.sessions if s.mails]) == 1
        p.wait_log("conn_use=2")
        p.wait_log("conn_use=3")
    relay.stop()


def test_sender_dependent_authentication(dns):
    """A session that logged in for one sender is never used for another."""
    relay = FakeRelay(auth=["LOGIN"])
    keys = "relay.server d:d\na@x.example s:s\n@z.example zz:zz\n"
    extra = "smtp_sender_dependent_authentication = yes\n"
    with posthouse(dns, f"[relay.server]:{relay.port}", keys, extra) as p:
        want = [("a@x.example", "s"), ("q@z.example", "zz"), ("q@zzz.example", "d"), ("", "d"),
                ("a+foo@x.example", "d"), ("A@X.example", "s")]
        for sender, _ in want * 2:
            p.send(sender=sender)
        mails = relay.wait_mails(2 * len(want))
        for m in mails:
            sender = m["from"].split("<")[1].split(">")[0]
            assert m["auth"][1] == dict(want)[sender], m
        for s in relay.sessions:
            assert len({m["from"].split("<")[1].split(">")[0] for m in s.mails}) <= 1
    relay.stop()


@pytest.mark.parametrize("main, master", [
    ("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_map = static:u:p\n", None),
    ("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = $no_such_parameter\n", None),
    ("smtp_sasl_password_maps = static:u:p\ndefault_transport = own\n",
     "own unix - - n - - smtp\n  -o smtp_sasl_auth_enable=yes -o smtp_sasl_password_maps=\n")])
def test_a_login_that_stands_nowhere_waits(dns, main, master):
    """A relay host that refuses for good what has no login gets nothing: the mail waits, as with Postfix, and check says why."""
    relay = FakeRelay(auth=["PLAIN"], replies={"RCPT": lambda line: "550 5.7.1 relaying denied"})
    with Posthouse(f"relayhost = [relay.server]:{relay.port}\n{main}", master=master, dns=dns) as p:
        r = p.run("check")
        assert r.returncode == 2 and "smtp_sasl_password_maps is empty" in r.stdout, r.stdout
        r = p.run("explain", "a@x.example", "b@y.example")
        assert r.returncode == 1 and "mail waits (4.3.5)" in r.stdout, r.stdout
        p.send()
        p.wait_log(r"dsn=4\.3\.5, status=deferred \(smtp_sasl_auth_enable = yes, but smtp_sasl_password_maps is empty\)")
        assert not [c for s in relay.sessions for c in s.commands if c.startswith("MAIL")]
    relay.stop()
