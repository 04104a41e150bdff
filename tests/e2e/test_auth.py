"""AUTH from clients: through a real Dovecot, and against the accounts store in every backend."""
import base64
import contextlib
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

import pytest
from kit import Client, FakeRelay, Listener, Posthouse, free_port, wait_for

import servers

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]
SECRET = "Relay-T3st!"
# From iRedMail's documentation, and made with doveadm and hashlib (facts, 4.2).
STORED = {
    "ssha512-8": ("{SSHA512}fzdZatCWWSmx0k1xHWSr4ZPQRSjm1ThPOh8yBwUDVdBgh4WhvgLZXPcZ3Mp+Toul14xK9bQyYJ5dUmifrttYMQARIjNEVWZ3", SECRET),
    "ssha512-4": ("{SSHA512}guGd8zvu+b0t7LGL2B5tzyYW5aJ7GnMfkCzVVAkqi5Z3w5qtH821QirxsrPaP7rd+SApPmdfUz8k5GOSq7t79gECAwQ=", SECRET),
    "ssha-8": ("{SSHA}nz2Sb507g7kjwba9OItC1l545M4AESIzRFVmdw==", SECRET), "ssha-4": ("{ssha}wbw5JOCRDzsF2IgQeULH5mvR7OkBAgME", SECRET),
    "sha512": ("{SHA512}uwrkRnBUXkX8PnGGMu0sXk3kM00NwdP4MGdMk2/LSmlC6MeflCHeRJ/0uIzZfvDCam7yS2OwffZxLDNO88KdRg==", SECRET),
    "sha": ("{SHA}BZLzFRpADNC272ZhyD3LY58kOM8=", SECRET), "plain-md5": ("{PLAIN-MD5}ac4308b5bf37c45ed3705fe20ce17b6a", SECRET),
    "hex-md5": ("ac4308b5bf37c45ed3705fe20ce17b6a", SECRET), "md5-crypt": ("{CRYPT}$1$GfHYI7OE$dNH59KETLAOphm/tlVRhZ0", SECRET),
    "md5-crypt-bare": ("$1$GfHYI7OE$dNH59KETLAOphm/tlVRhZ0", SECRET), "sha256-crypt": ("{CRYPT}$5$saltsalt$msi/BZ8U4js5E4.B1UoXDD357v71UMsTzV.B.vRABW5", SECRET),
    "sha512-crypt": ("{CRYPT}$6$saltsalt$SPhRf7Jt4NYmHx0jPCLIXY62CaLQpGHay/9trRh5j9seQdFBTBhkgfSEfFVKbDaj6kgZl35BBtzVe29lCpgO8.", SECRET),
    "bcrypt": ("{CRYPT}$2a$05$TKnXV39M3uJ4o.AbY1HbjeO1FDSRHa5ysMhENXxDqtM8/E2F0d0zW", SECRET),
    "blf-crypt": ("{BLF-CRYPT}$2y$05$TKnXV39M3uJ4o.AbY1HbjeO1FDSRHa5ysMhENXxDqtM8/E2F0d0zW", SECRET), "plain": ("{PLAIN}" + SECRET, SECRET),
    "documented-ssha512": ("{SSHA512}jOcGSlKEz95VeuLGecbL0MwJKy0yWY9foj6UlUVfZ2O2SNkEExU3n42YJLXDbLnu3ghnIRBkwDMsM31q7OI0jY5B/5E=", "123456"),
    "documented-ssha": ("{SSHA}OuCrqL2yWwQIu8a9uvyOQ5V/ZKfL7LJD", "123"), "documented-md5": ("$1$GfHYI7OE$vlXqMZSyJOSPXAmbXHq250", "123"),
    "documented-hex": ("900150983cd24fb0d6963f7d28e17f72", "abc")}
b64 = lambda text: base64.b64encode(text.encode()).decode()


def login(c, user, password, mech="PLAIN"):
    if mech == "PLAIN":
        return c.cmd("AUTH PLAIN " + b64(f"\0{user}\0{password}"))
    assert c.cmd("AUTH LOGIN").startswith("334 VXNlcm5hbWU6")
    r = c.cmd(b64(user))
    return c.cmd(b64(password)) if r.startswith("334 UGFzc3dvcmQ6") else r


@pytest.fixture(scope="module")
def cert(server_cert):
    return server_cert


BASE = ("smtpd_sasl_auth_enable = yes\nmynetworks = 127.0.0.9\nsmtpd_tls_cert_file = {c}\nsmtpd_tls_key_file = {k}\n"
        "smtpd_tls_security_level = may\nsmtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination\n")


def base(cert):
    return BASE.replace("{c}", str(cert[0])).replace("{k}", str(cert[1]))


class Dovecot:
    """A real Dovecot's auth service, on a unix socket and a port."""

    def __init__(self, users):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-dovecot-"))
        self.dir.chmod(0o755)
        self.port = free_port()
        (self.dir / "users").write_text("".join(f"{u}:{{PLAIN}}{p}\n" for u, p in users.items()))
        (self.dir / "conf").write_text(f"""
base_dir = {self.dir}/run
state_dir = {self.dir}/state
log_path = {self.dir}/log
protocols =
ssl = no
auth_mechanisms = plain login cram-md5
disable_plaintext_auth = no
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {self.dir}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {self.dir}/auth.sock {{
    mode = 0666
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
""")
        self.up()

    def up(self):
        self.proc = subprocess.Popen([*SUDO, "dovecot", "-F", "-c", str(self.dir / "conf")], stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda: (self.dir / "auth.sock").exists())

    def down(self):
        subprocess.run([*SUDO, "kill", "-9", "--", f"-{self.proc.pid}"])
        self.proc.wait()
        subprocess.run([*SUDO, "rm", "-rf", str(self.dir / "auth.sock"), str(self.dir / "run")])

    def stop(self):
        self.down()
        subprocess.run([*SUDO, "rm", "-rf", str(self.dir)])


@pytest.fixture(scope="module")
def dovecot():
    d = Dovecot({"user@domain.com": SECRET, "oneil@domain.com": "pass+word"})
    yield d
    d.stop()


@pytest.mark.parametrize("where", ["unix", "inet"])
def test_dovecot(dns, dovecot, cert, where):
    """PLAIN, LOGIN and a mechanism that Posthouse itself does not know."""
    relay = FakeRelay()
    path = str(dovecot.dir / "auth.sock") if where == "unix" else f"inet:127.0.0.1:{dovecot.port}"
    with Posthouse(base(cert) + f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {path}\nrelayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        with p.client() as c:
            c.starttls()
            offered = c.cmd("EHLO client.example").split("\n")
            assert sorted(offered[offered.index("ENHANCEDSTATUSCODES") - 1].split()) == ["AUTH", "CRAM-MD5", "LOGIN", "PLAIN"]
            assert c.mail("user@domain.com").startswith("554 5.7.1 <b@y.example>: Relay access denied")
            c.cmd("RSET")
            assert login(c, "user@domain.com", "wrong").startswith("535 5.7.8 Error: authentication failed:")
            assert c.cmd("AUTH PLAIN").startswith("334")
            assert c.cmd("*") == "501 5.7.0 Authentication aborted"
            assert c.cmd("AUTH NTLM").startswith("535 5.7.8 Error: authentication failed: Invalid authentication mechanism")
            assert login(c, "user@domain.com", SECRET) == "235 2.7.0 Authentication successful"
            assert login(c, "user@domain.com", SECRET) == "503 5.5.1 Error: already authenticated"
            assert c.mail("user@domain.com").startswith("250 2.0.0 Ok")
        mail = relay.wait_mail(b"hello")
        assert b"with ESMTPSA id" in mail["content"]
        with p.client() as c:
            assert login(c, "oneil@domain.com", "pass+word", "LOGIN").startswith("235")
        with p.client() as c:
            challenge = base64.b64decode(c.cmd("AUTH CRAM-MD5").split()[1])
            import hmac
            answer = "user@domain.com " + hmac.new(SECRET.encode(), challenge, "md5").hexdigest()
            assert c.cmd(b64(answer)).startswith("235")
            assert c.mail("user@domain.com").startswith("250")
        p.wait_log(r": client=localhost\[127\.0\.0\.1\], sasl_method=PLAIN, sasl_username=user@domain\.com$")
        p.wait_log(r": client=localhost\[127\.0\.0\.1\], sasl_method=CRAM-MD5, sasl_username=user@domain\.com$")
        p.wait_log(r"warning: localhost\[127\.0\.0\.1\]: SASL PLAIN authentication failed:")
        assert SECRET not in p.log() and b64(f"\0user@domain.com\0{SECRET}") not in p.log()
    relay.stop()


def test_each_service_asks_its_own_dovecot(dns, cert):
    """smtpd_sasl_path of a service is asked, also where it leads to the same Dovecot; a reload keeps and changes it."""
    first, second = Dovecot({"user@domain.com": SECRET}), Dovecot({"other@domain.com": SECRET})
    ports = [free_port(), free_port()]
    master = (f"127.0.0.1:{ports[0]} inet n - n - - smtpd -o smtpd_sasl_path={second.dir}/auth.sock\n"
              f"127.0.0.1:{ports[1]} inet n - n - - smtpd -o smtpd_sasl_path=inet:127.0.0.1:{second.port}\n")
    main = base(cert) + f"relay_threads = 1\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {first.dir}/auth.sock\n"

    def codes(port):
        said = []
        for user in ("user@domain.com", "other@domain.com"):
            with Client(port) as c:
                said.append(login(c, user, SECRET)[:3])
        return said
    with Posthouse(main, dns=dns, master=master) as p:
        for _ in range(2):
            assert [codes(port) for port in (p.port, *ports)] == [["235", "535"], ["535", "235"], ["535", "235"]]
        p.write_main(main.replace(str(first.dir), str(second.dir)))
        p.reload()
        assert [codes(port) for port in (p.port, *ports)] == [["535", "235"]] * 3
        assert "Connection lost" not in p.log()
    first.stop()
    second.stop()


def test_a_session_keeps_the_dovecot_that_it_began_with(dns):
    """A reload that takes a service's Dovecot away, or asks none any more, is for sessions that come after it."""
    fake, other = FakeDovecot(asks_and_believes), FakeDovecot(asks_and_believes)
    with Posthouse(fake_main(fake), dns=dns) as p:
        started, half, idle = p.client(), p.client(), p.client()
        assert half.cmd("AUTH PLAIN") == "334 cGxlYXNl"
        p.write_main(fake_main(other))
        p.reload()
        with p.client() as c:
            assert c.cmd("AUTH PLAIN AGFuZAAxMjM=") == "235 2.7.0 Authentication successful"
        asked = len(fake.lines)
        assert started.cmd("AUTH PLAIN AGFuZAAxMjM=") == "235 2.7.0 Authentication successful"
        assert half.cmd("AGFuZAAxMjM=") == "235 2.7.0 Authentication successful"
        assert len(fake.lines) > asked and len(fake.conns) == len(other.conns) == 1
        p.write_main("smtpd_sasl_auth_enable = no\nrelay_threads = 1\n")
        p.reload()
        with p.client() as c:
            assert c.cmd("AUTH PLAIN AGFuZAAxMjM=").startswith("503 5.5.1 Error: authentication not enabled")
        assert idle.cmd("AUTH PLAIN AGFuZAAxMjM=") == "235 2.7.0 Authentication successful"
        for c in (started, half, idle):
            assert c.cmd("QUIT").startswith("221")
        p.wait_log(f"SASL: inet:127.0.0.1:{fake.port}: not used any more")
        p.write_main(fake_main(fake))
        p.reload()
        with p.client() as c:
            assert c.cmd("AUTH PLAIN AGFuZAAxMjM=") == "235 2.7.0 Authentication successful"
    fake.down()
    other.down()


def test_dovecot_goes_and_comes_back(dns, cert):
    d = Dovecot({"user@domain.com": SECRET})
    with Posthouse(base(cert) + f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {d.dir}/auth.sock\n", dns=dns) as p:
        with p.client() as c:
            assert login(c, "user@domain.com", SECRET).startswith("235")
        d.down()
        with p.client() as c:
            r = login(c, "user@domain.com", SECRET)
            assert r[:3] in ("454", "535"), r  # a client that comes now is not offered AUTH at all
        d.up()

        def again():
            with p.client() as c:
                return login(c, "user@domain.com", SECRET).startswith("235")
        wait_for(again, 15, 0.3)
    d.stop()


def test_dialogue_like_postfix(dns, dovecot, cert, tmp_path):
    """The same lines to Debian's Postfix over the same Dovecot: the same replies."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "compat"))
    import pair
    conf = (f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{dovecot.port}\n"
            "smtpd_hard_error_limit = 100\nsmtpd_soft_error_limit = 100\nsmtpd_peername_lookup = no\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\n"
            "smtpd_sender_restrictions = reject_sender_login_mismatch\n"
            "smtpd_sender_login_maps = inline:{{{{ user@domain.com = user@domain.com }}, {{ other@domain.com = other@domain.com }}}}\n")
    good, bad = b64(f"\0user@domain.com\0{SECRET}"), b64("\0user@domain.com\0nope")
    lines = ["AUTH", "AUTH PLAIN x y z", f"AUTH PLAIN {bad}", "AUTH PLAIN =", "AUTH PLAIN", "*", "AUTH PLAIN", bad, "AUTH LOGIN", b64("user@domain.com"), "*",
             "AUTH LOGIN", b64("user@domain.com"), b64("nope"), "AUTH XYZ", "MAIL FROM:<user@domain.com>", "AUTH PLAIN " + good, "RCPT TO:<b@y.example>", "RSET",
             "auth plain " + good, f"AUTH PLAIN {good}", "MAIL FROM:<other@domain.com> AUTH=<>", "RCPT TO:<b@y.example>", "RSET",
             "MAIL FROM:<nobody@else.example>", "RCPT TO:<b@y.example>", "RSET", "MAIL FROM:<user@domain.com>", "RCPT TO:<b@y.example>", "QUIT"]

    def talk(port):
        with Client(port) as c:
            return [c.ehlo.split("\n")] + [(line, c.cmd(line)) for line in lines]
    d = tmp_path / "dns"
    d.mkdir()
    d.chmod(0o755)
    tmp_path.chmod(0o755)
    names = pair.NameServer(d, [])
    postfix = pair.Postfix(names)
    try:
        postfix.case(conf, {}, "")
        theirs = talk(postfix.port)
        log_theirs = re.findall(r"SASL \w+ authentication failed.*", postfix.new_log())
        postfix.over()
        with Posthouse(conf.replace("{{{{", "{{{{ ").replace("}}}}", " }}}}"), dns=dns) as p:
            p.write_main("mynetworks = 127.0.0.9\n" + conf)
            p.reload()
            ours = talk(p.port)
            log_ours = re.findall(r"SASL \w+ authentication failed.*", p.log())
    finally:
        postfix.stop()
        names.stop()
    assert sorted(ours[0])[1:] == sorted(w for w in theirs[0] if w not in ("ETRN",))[1:]
    assert ours[1:] == theirs[1:]
    print(log_theirs, log_ours)


# -- the accounts store --

BACKENDS = [servers.MariaDb, servers.Postgres, servers.Sqlite, servers.Slapd]


@pytest.fixture(scope="module", params=BACKENDS, ids=["mysql", "pgsql", "sqlite", "ldap"])
def db(request):
    server = request.param()
    yield server
    server.stop()


def store(server, cert, more=""):
    if server.type == "sqlite":
        return dict(main=base(cert) + f"accounts_store = sqlite:{server.dir}/vmail.db\n" + more)
    return dict(main=base(cert) + f"accounts_store = {server.type}:{{dir}}/accounts.cf\n" + more, files={"accounts.cf": servers.store_file(server)})


def test_store_verifies_iredmails_schemes(dns, db, cert):
    # slapd without pw-sha2 knows {SSHA}, {SHA}, {SMD5}, {CRYPT}: there it is the directory that verifies.
    known = {k: v for k, v in STORED.items() if db.type != "ldap" or (k.startswith(("ssha-", "sha", "documented-ssha", "md5-crypt", "bcrypt"))
                                                                     and "bare" not in k and "512" not in k.replace("sha512-crypt", ""))}
    for name, (stored, _) in known.items():
        servers.add_user(db, f"{name}@domain.com", stored)
    with Posthouse(dns=dns, **store(db, cert)) as p, p.client() as c:
        c.starttls()
        c.cmd("EHLO x")
        for name, (_, password) in known.items():
            with p.client() as c:
                assert login(c, f"{name}@domain.com", password + "x").startswith("535"), name
                assert login(c, f"{name.upper()}@Domain.com", password, "LOGIN") == "235 2.7.0 Authentication successful", name
        log = p.log()
        assert not any(pw in log for _, pw in known.values() if len(pw) > 6)
        assert not any(s in log for s, _ in known.values())


def test_store_says_no(dns, db, cert):
    """Who may not send, may not log in; TLS and clear text are different services; networks count."""
    good = STORED["ssha-8"][0]
    ldap = db.type == "ldap"
    servers.add_user(db, "off@domain.com", good, **({"accountStatus": "disabled"} if ldap else {"active": 0}))
    servers.add_user(db, "clear@domain.com", good, **({"enabledService": ["mail", "smtp"]} if ldap else {"enablesmtpsecured": 0}))
    servers.add_user(db, "here@domain.com", good, **({"allowNets": "127.0.0.0/8"} if ldap else {"allow_nets": "10.0.0.1,127.0.0.0/8"}))
    servers.add_user(db, "there@domain.com", good, **({"allowNets": "192.0.2.0/24"} if ldap else {"allow_nets": "192.0.2.0/24"}))
    servers.add_user(db, "odd@domain.com", "{NOSUCH}abc" if not ldap else good)
    with Posthouse(dns=dns, **store(db, cert, "recipient_delimiter = +\n")) as p:
        def attempt(user, tls, password=SECRET):
            with p.client() as c:
                if tls:
                    c.starttls()
                    c.cmd("EHLO x")
                return login(c, user, password)[:3]
        assert attempt("off@domain.com", True) == "535"
        assert (attempt("clear@domain.com", False), attempt("clear@domain.com", True)) == ("235", "535")
        assert (attempt("here@domain.com", True), attempt("there@domain.com", True)) == ("235", "535")
        assert attempt("nobody@domain.com", True) == attempt("x@nowhere.example", True) == attempt("*@domain.com", True) == "535"
        assert attempt("here@domain.com", True, "") == attempt("", True) == attempt("' OR 1=1 --", True, "' OR 1=1 --") == "535"
        if not ldap:
            assert attempt("odd@domain.com", True) == "535"
            p.wait_log("the stored password has a scheme that is not known, sasl_username=odd@domain.com")
        p.wait_log(r"SASL PLAIN authentication failed: client address is not in the user's allow_?[nN]ets, sasl_username=there@domain.com")
        if db.type != "sqlite":
            db.down()
            assert attempt("here@domain.com", True) == "454"
            db.up()
            wait_for(lambda: attempt("here@domain.com", True) == "235", 20, 0.3)


def test_alias_login_in_a_directory(dns, db, cert):
    if db.type != "ldap":
        return
    servers.add_user(db, "main@domain.com", STORED["ssha-8"][0], shadowAddress="alias@domain.com", enabledService=["mail", "smtp", "shadowaddress"])
    with Posthouse(dns=dns, **store(db, cert)) as p, p.client() as c:
        assert login(c, "alias@domain.com", SECRET).startswith("235")
        c.mail("main@domain.com")
        p.wait_log("sasl_username=main@domain.com$")


def test_nobody_without_a_store(dns, cert):
    with Posthouse(base(cert), dns=dns) as p, p.client() as c:
        assert login(c, "user@domain.com", SECRET).startswith("454 4.7.0 Temporary authentication failure")
        assert "nobody can log in" in p.run("check").stdout


# -- who may use which sender --

OWNERS = ("smtpd_sender_login_maps = inline:{{{{ user@domain.com = user@domain.com }}, {{ shared@domain.com = boss@domain.com, USER@domain.com }}, "
          "{{ boss@domain.com = boss@domain.com }}, {{ @whole.example = user@domain.com }}}}\n")
WORDS = {"reject_sender_login_mismatch": (1, 0, 0), "reject_authenticated_sender_login_mismatch": (1, 0, 1),
         "reject_known_sender_login_mismatch": (1, 1, 0), "reject_unauthenticated_sender_login_mismatch": (0, 1, 0)}


@pytest.mark.parametrize("word", WORDS)
def test_sender_login_mismatch(dns, cert, word, tmp_path):
    """(a foreign sender is refused, an unknown sender passes, a stranger with a known sender passes)"""
    refused, unknown, stranger = WORDS[word]
    db = servers.Sqlite()
    servers.add_user(db, "user@domain.com", STORED["ssha-8"][0])
    conf = store(db, cert, f"smtpd_sender_restrictions = {word}\nsmtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks, permit\n"
                 "recipient_delimiter = +\nmynetworks = 127.0.0.0/8\n" + OWNERS)
    with Posthouse(dns=dns, **conf) as p:
        def attempt(sender, logged_in=True):
            with p.client() as c:
                if logged_in:
                    assert login(c, "user@domain.com", SECRET).startswith("235")
                c.cmd(f"MAIL FROM:<{sender}>")
                return c.cmd("RCPT TO:<b@y.example>")
        for own in ("user@domain.com", "User+tag@Domain.com", "shared@domain.com", "any@whole.example", ""):
            assert attempt(own).startswith("250"), own
        assert attempt("boss@domain.com").startswith("553 5.7.1 <boss@domain.com>: Sender address rejected: not owned by user user@domain.com"
                                                     if refused else "250")
        assert attempt("x@unknown.example").startswith("250" if unknown or not refused else "553 5.7.1 <x@unknown.example>: Sender address rejected: not owned")
        assert attempt("boss@domain.com", False).startswith("250" if stranger else "553 5.7.1 <boss@domain.com>: Sender address rejected: not logged in")
        assert attempt("x@unknown.example", False).startswith("250")
        p.write_main(conf["main"].replace("inline:{{", "fail:x\nsmtpd_banner = {{").replace("{dir}", str(p.dir)))
        p.reload()
        if word != "reject_unauthenticated_sender_login_mismatch":
            assert attempt("user@domain.com").startswith("451 4.3.0 <user@domain.com>: Temporary lookup failure")
    db.stop()


def test_submission_and_submissions(dns, cert):
    """Listeners 587 and 465 as iRedMail's master.cf has them."""
    db = servers.Sqlite()
    servers.add_user(db, "user@domain.com", STORED["ssha512-8"][0])
    p587, p465, relay = free_port(), free_port(), FakeRelay()
    master = (f"127.0.0.1:{p587} inet n - n - - smtpd\n  -o syslog_name=postfix/submission\n  -o smtpd_tls_security_level=encrypt\n"
              "  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
              f"127.0.0.1:{p465} inet n - n - - smtpd\n  -o syslog_name=postfix/smtps\n  -o smtpd_tls_wrappermode=yes\n"
              "  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n")
    conf = store(db, cert, f"relayhost = [127.0.0.1]:{relay.port}\n")
    conf["main"] = conf["main"].replace("smtpd_sasl_auth_enable = yes\n", "")
    with Posthouse(dns=dns, master=master, **conf) as p:
        with p.client() as c:
            assert "AUTH" not in c.ehlo
            assert c.cmd("AUTH PLAIN x") == "503 5.5.1 Error: authentication not enabled"
        with Client(p587) as c:
            assert c.cmd("AUTH PLAIN x") == "530 5.7.0 Must issue a STARTTLS command first"
            c.starttls()
            c.cmd("EHLO x")
            assert c.mail("user@domain.com").startswith("554 5.7.1")
            c.cmd("RSET")
            assert login(c, "user@domain.com", SECRET).startswith("235")
            assert c.mail("user@domain.com").startswith("250")
        import ssl
        import socket
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        c = Client.__new__(Client)
        c.sock = ctx.wrap_socket(socket.create_connection(("127.0.0.1", p465), 10))
        c.f = c.sock.makefile("rb")
        assert c.reply().startswith("220") and "AUTH PLAIN LOGIN" in c.cmd("EHLO x")
        assert login(c, "user@domain.com", SECRET, "LOGIN").startswith("235")
        assert c.mail("user@domain.com").startswith("250")
        c.sock.close()
        relay.wait_mails(2)
        p.wait_log(r"postfix/submission/smtpd\[\d+\]: \w+: client=\S+, sasl_method=PLAIN, sasl_username=user@domain.com")
        p.wait_log(r"postfix/smtps/smtpd\[\d+\]: \w+: client=\S+, sasl_method=LOGIN, sasl_username=user@domain.com")
    db.stop()
    relay.stop()


def test_auth_only_in_tls_rate_and_networks(dns, cert):
    db = servers.Sqlite()
    servers.add_user(db, "user@domain.com", STORED["ssha-8"][0])
    more = ("smtpd_tls_auth_only = yes\nsmtpd_client_auth_rate_limit = 2\nsmtpd_client_event_limit_exceptions =\nbroken_sasl_auth_clients = yes\n"
            "smtpd_sasl_authenticated_header = yes\nsmtpd_sasl_local_domain = domain.com\n")
    relay = FakeRelay()
    with Posthouse(dns=dns, **store(db, cert, more + f"relayhost = [127.0.0.1]:{relay.port}\n")) as p:
        with p.client() as c:
            assert "AUTH" not in c.ehlo
            assert c.cmd("AUTH PLAIN x").startswith("538 5.7.11 Encryption required")
            c.starttls()
            assert "AUTH PLAIN LOGIN\nAUTH=PLAIN LOGIN" in c.cmd("EHLO x")
            assert login(c, "user", SECRET).startswith("235")
            assert c.mail("user@domain.com").startswith("250")
            assert b"(Authenticated sender: user@domain.com)" in relay.wait_mail(b"hello")["content"]
        with p.client() as c:
            c.starttls()
            c.cmd("EHLO x")
            assert login(c, "user", "wrong").startswith("535")
            assert c.cmd("AUTH PLAIN x").startswith("450 4.7.1 Error: too many AUTH commands from 127.0.0.1")
        p.write_main((store(db, cert, more + "smtpd_sasl_exceptions_networks = 127.0.0.0/8\nsmtpd_tls_auth_only = no\n")["main"]))
        p.reload()
        with p.client() as c:
            assert "AUTH" not in c.ehlo and c.cmd("AUTH PLAIN x").startswith("503")
    db.stop()
    relay.stop()


def test_fail2ban_sees_it(dns, cert, tmp_path):
    """Debian's own filter, in its modes, and iRedMail's expressions, over the log that Posthouse wrote."""
    db = servers.Sqlite()
    servers.add_user(db, "user@domain.com", STORED["ssha-8"][0])
    with Posthouse(dns=dns, **store(db, cert, "smtpd_hard_error_limit = 4\nsmtpd_error_sleep_time = 0\n")) as p:
        for mech in ("PLAIN", "LOGIN"):
            with p.client() as c:
                login(c, "user@domain.com", "guess", mech)
        with p.client() as c:
            c.cmd("MAIL FROM:<a@x.example>")
            assert c.cmd("RCPT TO:<b@y.example>").startswith("554 5.7.1")
        with p.client() as c:
            for _ in range(5):
                login(c, "user@domain.com", "guess")
        p.wait_log("too many errors after AUTH from")
        p.wait_log("lost connection after AUTH from")
        log = p.log()
        (tmp_path / "mail.log").write_text(log)
    iredmail = [r"\[<HOST>\]: SASL (PLAIN|LOGIN) authentication failed", r"lost connection after AUTH from (.*)\[<HOST>\]",
                r"reject: RCPT from .*\[<HOST>\]: .*: Relay access denied", r"too many errors after AUTH from .*\[<HOST>\]",
                r"reject: RCPT from .*\[<HOST>\]: 554 5.7.1"]
    for pattern in [*iredmail, "postfix[mode=auth]", "postfix[mode=aggressive]", "postfix"]:
        r = subprocess.run(["fail2ban-regex", str(tmp_path / "mail.log"), pattern], capture_output=True, text=True)
        matched = int(re.search(r"(\d+) matched", r.stdout)[1])
        assert matched > 0, (pattern, r.stdout[-1500:])
    db.stop()


# What an auth service may say to "AUTH\t1\t…"; None: it hangs up.
GREETING = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\tx\nDONE\n"
NONSENSE = {
    "another version": (b"VERSION\t2\t0\nMECH\tPLAIN\nDONE\n", b""), "endless greeting": (b"x" * 40000, b""), "hangs up": (GREETING, None),
    "endless answer": (GREETING, b"FAIL\t1\treason=" + b"x" * 40000), "no number": (GREETING, b"OK\tone\tuser=u\n"), "no fields": (GREETING, b"OK\n"),
    "no user": (GREETING, b"OK\t1\n"), "empty user": (GREETING, b"OK\t1\tuser=\n"), "another's number": (GREETING, b"OK\t77\tuser=u\n"
                                                                                                       b"FAIL\t1\n"),
    "bytes": (GREETING, b"\0\xff\t\t\n\n\t1\nFAIL\t1\treason=\xff\x01\x1b[2J%s%n\tuser=\x7f%s\n"), "twice": (GREETING, b"FAIL\t1\nOK\t1\tuser=u\n")}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_service_that_talks_nonsense(kind, dns):
    """Nobody is let in, the session and the daemon live on, and the next one is served."""
    greeting, answer = NONSENSE[kind]

    def serve(c):
        c.sendall(greeting)
        while data := c.recv(65536):
            asked = re.search(rb"^AUTH\t(\d+)", data, re.M)
            if asked and answer is None:
                break
            if asked:
                c.sendall(answer.replace(b"\t1", b"\t" + asked[1]))
    service = Listener(serve)
    main = f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{service.port}\nrelayhost = [127.0.0.1]:9\n"
    with Posthouse(main, dns=dns) as p:
        for _ in range(2):
            with p.client() as c:
                r = login(c, "u", "p")
                assert r[:3] in ("454", "535"), r
                assert c.cmd("NOOP").startswith("250")
        assert p.proc.poll() is None and "sasl_method" not in p.log()
        assert not re.search(r"[\x00-\x08\x0e-\x1f\x7f]", p.log())
    service.stop()


class FakeDovecot:
    """An auth service that records each line, and answers with what say() makes of AUTH and CONT."""

    def __init__(self, say):
        self.say, self.lines, self.conns, self.port = say, [], [], free_port()
        self.up()

    def up(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def down(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for c in self.conns:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)
        self.conns = []

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                c = listener.accept()[0]
                self.conns.append(c)
                threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        with c, contextlib.suppress(OSError):
            c.sendall(GREETING.replace(b"MECH\tPLAIN\tplaintext\n", b"MECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nMECH\tCRAM-MD5\n"))
            for line in c.makefile("rb"):
                self.lines.append(line)
                answer = self.say(line.rstrip(b"\n").split(b"\t")) if line.startswith((b"AUTH", b"CONT")) else None
                if answer:
                    c.sendall(answer)


def asks_and_believes(fields):
    """A challenge first if there was no initial response; then everybody is who he is."""
    if fields[0] == b"AUTH" and not any(f.startswith(b"resp=") for f in fields):
        return b"CONT\t" + fields[1] + b"\tcGxlYXNl\n"
    return b"OK\t" + fields[1] + b"\tuser=u@domain.com\n"


def fake_main(fake):
    return ("smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nrelay_threads = 1\nsmtpd_hard_error_limit = 100\nsmtpd_soft_error_limit = 100\n"
            f"smtpd_sasl_path = inet:127.0.0.1:{fake.port}\n")


def test_a_service_that_says_too_much(dns):
    """Two challenges for one answer: the dialogue is over, and what comes later is for no session."""
    asked = []

    def say(fields):
        asked.append(fields[1])
        return (b"CONT\t" + fields[1] + b"\tcGxlYXNl\n") * 2 if fields[0] == b"AUTH" else None

    fake = FakeDovecot(say)
    with Posthouse(fake_main(fake), dns=dns) as p, p.client() as c:
        relay = p.child("relay")
        assert c.cmd("AUTH LOGIN") == "334 cGxlYXNl"
        assert p.client().cmd("AUTH LOGIN") == "334 cGxlYXNl"  # by now both have come
        assert c.cmd("YWFh") == "454 4.7.0 Temporary authentication failure: Connection lost to authentication server"
        fake.conns[-1].sendall(b"OK\t" + asked[0] + b"\tuser=u@domain.com\n")
        wait_for(lambda: b"CANCEL\t" + asked[0] + b"\n" in fake.lines)
        assert p.client().cmd("AUTH LOGIN") == "334 cGxlYXNl" and c.cmd("NOOP") == "250 2.0.0 Ok"
        assert p.child("relay") == relay and "sasl_method" not in p.log()
    fake.down()


NO_BASE64 = ["AGFuZAAxMjM=\tmaster-user=boss", "\tresp=AGFuZAAxMjM=", "AGFu-ZAAx_MjM", "AGFuZA=A", "===", "AGFuZAA\u00e4", "a.b", "AGFu%0AAUTH", "*x"]


def test_only_base64_reaches_the_service(dns):
    """Nor does one client's answer ever end the connection that all clients share."""
    fake = FakeDovecot(asks_and_believes)
    with Posthouse(fake_main(fake), dns=dns) as p, p.client() as other:
        assert other.cmd("AUTH LOGIN") == "334 cGxlYXNl"
        for bad in NO_BASE64:
            with p.client() as c:
                said = c.cmd(f"AUTH PLAIN {bad}")
                assert said == "535 5.7.8 Error: authentication failed: Invalid base64 data in initial response" or ("\t" in bad and said[:3] == "501"), bad
                assert c.cmd("AUTH PLAIN") == "334 cGxlYXNl"
                assert c.cmd(bad) == "535 5.7.8 Error: authentication failed: Invalid base64 data in continued response", bad
                assert c.cmd("AUTH PLAIN") == "334 cGxlYXNl"
                c.raw(b"AGFu\rZA\0=\r\n")
                assert c.reply().startswith("535")
        for word in ("PLAIN\tservice=pop3", "PL\tAIN", "CRAM-MD5\tnologin"):
            with p.client() as c:
                assert c.cmd(f"AUTH {word} AGFuZAAxMjM=")[:3] in ("501", "535"), word
        assert other.cmd("AGFuZAAxMjM=") == "235 2.7.0 Authentication successful"
        assert len(fake.conns) == 1
        field = rb"(service=smtp|nologin|lip=127\.0\.0\.1|rip=127\.0\.0\.1)"
        for line in fake.lines:
            assert re.fullmatch(rb"VERSION\t1\t\d+\n|CPID\t\d+\n|AUTH\t\d+\t[A-Z0-9-]+(\t" + field + rb")+(\tresp=[A-Za-z0-9+/]*=*)?\n"
                                rb"|CONT\t\d+\t[A-Za-z0-9+/]*=*\n|CANCEL\t\d+\n", line), line
    fake.down()


def test_a_service_that_is_away_bans_nobody(dns, tmp_path):
    """454 whatever the mechanism and the moment; nothing in the log that fail2ban's filters look for."""
    fake = FakeDovecot(asks_and_believes)
    with Posthouse(fake_main(fake), dns=dns) as p:
        half, early = p.client(), [p.client() for _ in range(5)]
        assert "AUTH" in half.ehlo and half.cmd("AUTH LOGIN") == "334 cGxlYXNl"
        fake.down()
        p.wait_log("SASL: inet:127.0.0.1:.*: the connection was closed")
        for c, word in zip(early, ("PLAIN AGFuZAAxMjM=", "LOGIN", "CRAM-MD5", "NTLM", "plain")):
            assert c.cmd("AUTH " + word).startswith("454 4.7.0 Temporary authentication failure"), word
        assert half.cmd("AGFuZAAxMjM=").startswith("454 4.7.0 Temporary authentication failure")
        assert half.cmd("NOOP") == "250 2.0.0 Ok"
        for c in (half, *early):
            assert c.cmd("QUIT").startswith("221")
        p.wait_log("disconnect from .* auth=0/1", count=6)
        (tmp_path / "mail.log").write_text(p.log())
        fake.up()

        def again():
            "a login once the service is back"
            with p.client() as c:
                return c.cmd("AUTH PLAIN AGFuZAAxMjM=").startswith("235")
        wait_for(again, 15, 0.2)
    for pattern in [r"\[<HOST>\]: SASL (PLAIN|LOGIN) authentication failed", "postfix[mode=auth]", "postfix"]:
        r = subprocess.run(["fail2ban-regex", str(tmp_path / "mail.log"), pattern], capture_output=True, text=True)
        assert int(re.search(r"(\d+) matched", r.stdout)[1]) == 0, (pattern, r.stdout[-1500:])
    fake.down()


@pytest.mark.parametrize("path", ["inet:no.such.host:7", "unix:" + "d/" * 90 + "auth", "/nowhere/auth"], ids=["inet", "long", "nowhere"])
def test_a_service_that_cannot_be_addressed(dns, path):
    """AUTH is not offered, and a client that asks all the same is told that it is for now."""
    main = f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {path}\nrelayhost = [127.0.0.1]:9\n"
    with Posthouse(main, dns=dns) as p:
        for _ in range(2):
            with p.client() as c:
                assert "AUTH" not in c.ehlo
                assert c.cmd("AUTH PLAIN AGFuZAAxMjM=").startswith("454 4.7.0 Temporary authentication failure")
                assert c.cmd("NOOP") == "250 2.0.0 Ok"
        p.wait_log("warning: SASL: ")


@pytest.mark.parametrize("where", ["inet:[::1]:", "inet:localhost:", "unix:"])
def test_a_service_by_each_kind_of_address(dns, where):
    p = Posthouse("smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n", dns=dns)
    if where == "unix:":
        sock, name = socket.socket(socket.AF_UNIX), str(p.dir / "auth")
        sock.bind(name)
        (p.dir / "auth").chmod(0o777)
        sock.listen(5)
    else:
        host, family = ("::1", socket.AF_INET6) if "[" in where else ("127.0.0.1", socket.AF_INET)
        sock = socket.create_server((host, 0), family=family)
        name = sock.getsockname()[1]
    with Listener(lambda c: (c.sendall(GREETING), c.recv(1000), c.recv(1000)), sock):
        p.write_main((p.dir / "main.cf").read_text() + f"smtpd_sasl_path = {where}{name}\n")
        with p, p.client() as c:
            assert "AUTH PLAIN" in c.ehlo


def test_clients_who_leave_while_the_service_is_awaited(dns):
    """Its list of mechanisms comes when the client has gone: by a reset, with QUIT waiting behind EHLO, at a stop."""
    asked, go = threading.Event(), threading.Event()

    def serve(c):
        asked.set()
        go.wait(30)
        c.sendall(GREETING)
        while c.recv(1000):
            pass
    with Listener(serve) as service:
        main = "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nrelay_threads = 1\n"
        with Posthouse(main + f"smtpd_sasl_path = inet:127.0.0.1:{service.port}\n", dns=dns) as p:
            relay = p.child("relay")
            clients = [p.client(ehlo=None) for _ in range(3)]
            for c, line in zip(clients, (b"EHLO x\r\n", b"EHLO x\r\nQUIT\r\n", b"EHLO x\r\n")):
                c.raw(line)
            assert asked.wait(20)
            clients[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            clients[0].f.close()
            clients[0].sock.close()
            p.wait_log("lost connection after")
            go.set()
            assert all("AUTH PLAIN" in c.reply() for c in clients[1:])
            assert clients[1].reply().startswith("221")
            assert p.child("relay") == relay


def test_networks_without_auth(dns):
    fake = FakeDovecot(asks_and_believes)
    with Posthouse(fake_main(fake) + "smtpd_sasl_exceptions_networks = 127.0.0.0/8\n", dns=dns) as p, p.client() as c:
        assert "AUTH" not in c.ehlo
        assert c.cmd("AUTH PLAIN AGFuZAAxMjM=") == "503 5.5.1 Error: authentication not enabled"
    fake.down()
