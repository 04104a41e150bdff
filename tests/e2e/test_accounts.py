"""The accounts store and relay records: commands, every backend, bad rows, secrets that stay secret."""
import base64
import json
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from kit import SLOW, FakeRelay, Posthouse, make_cert, server_tls, wait_for

import servers

BACKENDS = [servers.MariaDb, servers.Postgres, servers.Sqlite, servers.Slapd]
PASSWORD = "S3cret:of the-relay"


@pytest.fixture(scope="module", params=BACKENDS, ids=["mysql", "pgsql", "sqlite", "ldap"])
def db(request):
    server = request.param()
    servers.add_user(server, "user@mydomain.com", "{SSHA}wbw5JOCRDzsF2IgQeULH5mvR7OkBAgME")
    servers.add_user(server, "other@mydomain.com", "{SSHA}wbw5JOCRDzsF2IgQeULH5mvR7OkBAgME")
    yield server
    server.stop()


def store(server):
    if server.type == "sqlite":
        return dict(main=f"accounts_store = sqlite:{server.dir}/vmail.db\n", files={})
    return dict(main=f"accounts_store = {server.type}:{{dir}}/accounts.cf\n", files={"accounts.cf": servers.store_file(server)})


def senders(relay):
    return sorted(re.search(r"<(.*?)>", m["from"]).group(1) for m in relay.mails)


def waiting(p, n):
    """The queue, once it holds n deferred messages."""
    q = p.queue()
    return q if len(q) == n and all("delay_reason" in m["recipients"][0] for m in q) else None


def test_relay_commands(dns, db):
    """set, list and unset; the daemon follows within a second; a user's own is the stronger one."""
    everybody, domain, user = FakeRelay(), FakeRelay(), FakeRelay()
    conf = store(db)
    conf["main"] += f"relayhost = [127.0.0.1]:{everybody.port}\nrecipient_delimiter = +\n"
    with Posthouse(dns=dns, **conf) as p:
        assert p.run("relay", "list").stdout == ""
        assert p.run("relay", "set", "@MyDomain.com", f"[127.0.0.1]:{domain.port}", check=True).stdout.startswith("posthouse: @mydomain.com is relayed by")
        p.run("relay", "set", "user@mydomain.com", "[127.0.0.1]:9", check=True)
        p.run("relay", "set", "user@mydomain.com", f"[127.0.0.1]:{user.port}", check=True)
        listed = [json.loads(line) for line in p.run("relay", "list", "--json", check=True).stdout.splitlines()]
        assert sorted((x["account"], x["relayhost"]) for x in listed) == [("@mydomain.com", f"[127.0.0.1]:{domain.port}"),
                                                                         ("user@mydomain.com", f"[127.0.0.1]:{user.port}")]
        time.sleep(1)
        for s in ("user@mydomain.com", "USER+tag@MyDomain.com", "other@mydomain.com", "x@elsewhere.example", ""):
            assert p.send(sender=s).startswith("250")
        wait_for(lambda: len(everybody.mails) + len(domain.mails) + len(user.mails) == 5)
        assert (senders(user), senders(domain)) == (["USER+tag@MyDomain.com", "user@mydomain.com"], ["other@mydomain.com"])
        assert p.run("relay", "unset", "user@mydomain.com").returncode == 0
        assert p.run("relay", "unset", "user@mydomain.com").returncode == 1
        time.sleep(1)
        p.send(sender="user@mydomain.com")
        wait_for(lambda: len(domain.mails) == 2)
        for bad in (("mydomain.com", "[x]:25"), ("@", "[x]:25"), ("a b@c.d", "[x]:25"), ("@mydomain.com", "[x"), ("@mydomain.com", ""),
                    ("@mydomain.com", "smtp:[x"), ("@mydomain.com", "[x]:99999"), ("@mydomain.com", "h" * 256)):
            r = p.run("relay", "set", *bad)
            assert r.returncode == 65 and r.stderr.startswith("posthouse: "), (bad, r)
        p.run("relay", "unset", "@mydomain.com", check=True)
        assert servers.ADMIN not in p.log()
    for r in (everybody, domain, user):
        r.stop()


def test_store_that_is_down(dns, db):
    everybody = FakeRelay()
    conf = store(db)
    conf["main"] += f"relayhost = [127.0.0.1]:{everybody.port}\n"
    with Posthouse(dns=dns, **conf) as p:
        for row in p.run("relay", "list").stdout.splitlines():
            p.run("relay", "unset", row.split()[0], check=True)
        db.down()
        assert p.send(sender="user@mydomain.com").startswith("451 4.3.0")
        r = p.run("relay", "list")
        assert r.returncode == 1 and "posthouse: fatal: " in r.stderr and servers.ADMIN not in r.stderr
        assert p.run("explain", "user@mydomain.com").returncode == 1
        db.up()
        wait_for(lambda: p.send(sender="user@mydomain.com").startswith("250"), 20, 0.3)
        assert len(everybody.mails) == 1 or wait_for(lambda: everybody.mails)
    everybody.stop()


def test_embedded_store(dns):
    """Nothing is configured: commands make the store, the daemon takes it up; iRedMail's documented INSERT works in it."""
    everybody, domain, user = FakeRelay(), FakeRelay(), FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\n", dns=dns) as p:
        assert "there is no accounts store yet" in p.run("relay", "list").stderr
        assert "the running daemon was reloaded" in p.run("domain", "add", "domain.com", check=True).stdout
        assert p.run("domain", "add", "domain.com").returncode == 1
        assert p.run("user", "add", "user@domain.com", stdin="short\n").returncode == 65
        p.run("user", "add", "user@domain.com", stdin=PASSWORD + "\n", check=True)
        assert "there is no domain other.com" in p.run("user", "add", "x@other.com", stdin=PASSWORD + "\n").stderr
        p.run("admin", "add", "root@admins.example", stdin=PASSWORD + "\n", check=True)
        p.run("admin", "add", "local@admins.example", "domain.com", stdin=PASSWORD + "\n", check=True)
        path = p.dir / "data/accounts.db"
        with sqlite3.connect(path, 10) as c:  # what a command that was broken off before its last row leaves
            c.execute("DELETE FROM admin WHERE username = 'local@admins.example'")
            c.execute("UPDATE domain_admins SET domain = 'ALL' WHERE username = 'local@admins.example'")
            c.execute("DELETE FROM mailbox")
        p.run("user", "add", "user@domain.com", stdin=PASSWORD + "\n", check=True)
        p.run("admin", "add", "local@admins.example", "domain.com", stdin=PASSWORD + "\n", check=True)
        assert oct(path.stat().st_mode & 0o777) == "0o600"
        with sqlite3.connect(path, 10) as c:
            c.execute(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[127.0.0.1]:{domain.port}');")
            c.execute(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('user@domain.com', '[127.0.0.1]:{user.port}');")
            assert c.execute("SELECT username, domain FROM domain_admins ORDER BY 1").fetchall() == [
                ("local@admins.example", "domain.com"), ("root@admins.example", "ALL")]
            assert c.execute("SELECT password LIKE '{CRYPT}$y$%' FROM mailbox").fetchall() == [(1,)]
        wait_for(lambda: "reload -- " in p.log())
        time.sleep(1)
        for s in ("user@domain.com", "other@domain.com", "a@elsewhere.example"):
            assert p.send(sender=s).startswith("250")
        wait_for(lambda: len(everybody.mails) + len(domain.mails) + len(user.mails) == 3)
        assert (senders(user), senders(domain), senders(everybody)) == (["user@domain.com"], ["other@domain.com"], ["a@elsewhere.example"])
    for r in (everybody, domain, user):
        r.stop()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    d = tmp_path_factory.mktemp("cert")
    return server_tls(*make_cert(d))


def test_records_of_an_older_version_get_an_owner(dns, tls):
    """A database without owners is read as it is, gets the column when it is written, and loses nothing."""
    relay = FakeRelay(auth=("PLAIN",), need_auth=True, users={"old": "pw-1", "own": "pw-2"}, tls=tls, tls_first=True)
    hop = f"[127.0.0.1]:{relay.port}"
    with Posthouse(f"relayhost = {hop}\n", dns=dns) as p:
        def record(name, *words, secret):
            return p.run("record", "set", name, *words, "password", stdin=secret + "\n")
        assert record("one", f"hosts={hop}", "user=old", "for=@x.example", "tls=encrypt", secret="pw-1").returncode == 0
        database = p.dir / "data/relays.db"
        with sqlite3.connect(database, 10) as db:
            db.execute("DROP INDEX relay_owner")
            db.execute("ALTER TABLE relay DROP COLUMN owner")
            had = db.execute("SELECT * FROM relay").fetchall()
        assert p.send(sender="a@x.example").startswith("250")
        assert relay.wait_mails(1)[0]["auth"][1] == "old"
        listed, = [json.loads(line) for line in p.run("record", "list", "--json", check=True).stdout.splitlines()]
        assert (listed["name"], listed["for"], listed["owner"], listed["password_set"]) == ("one", "@x.example", "", True)
        with sqlite3.connect(database, 10) as db:
            assert [(*row, "") for row in had] == db.execute("SELECT * FROM relay").fetchall()
        # A domain's own is for mail of that domain, whatever stands in it.
        r = record("two", f"hosts={hop}", "user=own", "owner=Y.example", "for=@y.example,@z.example", secret="pw-2")
        assert r.returncode == 1 and "a domain's own record is for that domain or its users" in r.stderr
        assert record("two", f"hosts={hop}", "user=own", "owner=Y.example", secret="pw-2").returncode == 0
        assert "  for         @y.example\n" in (shown := p.run("record", "list").stdout) and "  owner       y.example\n" in shown
        with sqlite3.connect(database, 10) as db:
            db.execute("UPDATE relay SET account = account || ',@z.example' WHERE name = 'two'")
        for sender in ("b@y.example", "c@x.example", "d@z.example"):
            assert p.send(sender=sender).startswith("250")
        p.wait_log("from=<d@z.example>")
        mails = wait_for(lambda: (got := {m["from"].split("<")[1].split(">")[0]: m["auth"][1] for m in relay.mails if m["auth"]}) and
                         len(got) == 3 and got)
        assert mails == {"a@x.example": "old", "b@y.example": "own", "c@x.example": "old"}
        p.wait_log(r"to=<b@y.example>.*status=(bounced|deferred) .*530")
        assert "d@z.example" not in str(relay.mails)
    relay.stop()


def test_mail_that_may_not_use_its_record_waits(dns, tls):
    """As for any other mistake of a configuration: taken, kept, named in the log, and sent when the record is for it."""
    relay = FakeRelay(auth=("PLAIN",), need_auth=True, users={"own": "pw"}, tls=tls, tls_first=True)
    hop = f"[relay.server]:{relay.port}"
    with Posthouse("relayhost = [relay.server]:9\n", dns=dns) as p:
        assert p.run("relay", "set", "@y.example", hop).returncode == 0
        words = ["record", "set", "own", f"hosts={hop}", "tls=encrypt", "user=own", "password"]
        assert p.run(*words, stdin="pw\n").returncode == 0
        assert p.send(sender="a@y.example").startswith("250")
        p.wait_log(r'status=deferred \(relay record "own" is not for mail from <a@y.example>')
        assert p.run(*words, "for=@y.example", stdin="pw\n").returncode == 0
        p.run("queue", "retry", "ALL", check=True)
        assert relay.wait_mails(1)[0]["auth"][1] == "own"
    relay.stop()


def test_relay_records(dns, tls):
    """Hosts, TLS mode and account in one record, found from the value as it is; different logins at one host, one in capitals."""
    users = {"shared": PASSWORD, "of-domain": "domain's", "AKIAone": "user's"}
    relay = FakeRelay(auth=("PLAIN", "LOGIN"), need_auth=True, users=users, tls=tls, tls_first=True)
    with Posthouse(f"relayhost = [relay.server]:{relay.port}\n", dns=dns) as p:
        hop = f"[relay.server]:{relay.port}"
        p.send(sender="before@x.example")
        p.wait_log(r"status=deferred .*530|status=bounced .*530")

        def record(name, *words, secret=None):
            return p.run("record", "set", name, *words, *(["password"] if secret else []), stdin=(secret or "") + "\n")
        assert record("everybody", f"hosts={hop}", "user=shared", secret=PASSWORD).returncode == 0
        assert record("domain", f"hosts={hop}", "for=@Domain.com", "user=of-domain", "mechanisms=login", secret="domain's").returncode == 0
        assert record("user", f"hosts=[127.0.0.1]:9,{hop}", f"nexthop={hop}", "for=user@domain.com", "user=AKIAone", secret="user's").returncode == 0
        with p.client() as c:  # at once: a command ends when the daemon has taken up what it wrote
            for s in ("user@domain.com", "x@domain.com", "y@domain.com", "a@else.example", "", "user@domain.com", "x@domain.com"):
                assert c.mail(sender=s).startswith("250")
        relay.wait_mails(7)
        assert sorted((re.search(r"<(.*?)>", m["from"]).group(1), m["auth"][1], m["tls"]) for m in relay.mails) == sorted(
            [("user@domain.com", "AKIAone", True)] * 2 + [("x@domain.com", "of-domain", True)] * 2 + [("y@domain.com", "of-domain", True)] +
            [("a@else.example", "shared", True), ("", "shared", True)])
        for s in relay.sessions:  # nobody's session carries another account's mail
            assert len({m["auth"] for m in s.mails}) <= 1
        assert {m["auth"][0] for m in relay.mails if m["auth"][1] == "of-domain"} == {"LOGIN"}
        # It comes out nowhere.
        shown = p.run("record", "list").stdout + p.run("record", "list", "--json").stdout
        assert "password_set\": true" in shown and "account     shared (password set)" in shown
        said = p.run("explain", "user@domain.com").stdout + p.run("test", "user@domain.com", "b@y.example").stdout
        assert "as account AKIAone" in said and "all stages passed" in said
        files = (p.dir / "data/relays.db").read_bytes() + p.log().encode() + (shown + said).encode()
        for secret in users.values():
            assert secret.encode() not in files
        assert oct((p.dir / "relays.key").stat().st_mode & 0o777) == "0o600" and oct((p.dir / "data/relays.db").stat().st_mode & 0o777) == "0o600"
        # Whoever can write the file cannot have the password sent elsewhere.
        thief = FakeRelay(auth=("PLAIN",), tls=tls)
        with sqlite3.connect(p.dir / "data/relays.db") as c:
            c.execute("UPDATE relay SET hosts = ? WHERE name = 'everybody'", (f"[relay.server]:{thief.port}",))
        time.sleep(1)
        p.send(sender="z@else.example")
        p.wait_log(r"dsn=4\.3\.0, status=deferred \(local data error while talking to relay\.server")
        p.wait_log("the record's password cannot be opened: it was set for other hosts")
        assert all(s.auth is None for s in thief.sessions) and not thief.mails
        thief.stop()
        r = record("everybody", f"hosts={hop}", "user=other")
        assert r.returncode == 1 and "the password is needed again" in r.stderr
        assert record("everybody", f"hosts={hop}", "user=shared", secret=PASSWORD).returncode == 0
        for bad in (["hosts=[x"], ["tls=maybe"], ["for=nobody"], ["what=this"], [f"nexthop={hop}", "for=@domain.com"]):
            assert record("everybody", *bad).returncode != 0, bad
        assert p.run("record", "delete", "user", check=True) and p.run("record", "delete", "user").returncode == 1
        time.sleep(1)
        p.run("queue", "flush")
        wait_for(lambda: any("z@else" in m["from"] for m in relay.mails))
        # The password changes at the relay and in the record: the next session uses the new one.
        users["shared"] = "changed"
        assert record("everybody", secret="changed").returncode == 0
        time.sleep(1.2)
        p.send(sender="later@else.example")
        wait_for(lambda: any("later@else" in m["from"] for m in relay.mails))
    relay.stop()


def test_a_record_that_is_given_to_others_stays_for_what_main_cf_names(dns, tls):
    """Else the mail of everybody who is not on its list would go on without its account."""
    relay = FakeRelay(auth=("PLAIN",), need_auth=True, users={"office": "pw"}, tls=tls, tls_first=True)
    hop = f"[relay.server]:{relay.port}"
    with Posthouse(f"relayhost = {hop}\n", dns=dns) as p:
        def users():
            return json.loads(p.run("record", "list", "--json", check=True).stdout.splitlines()[-1])["for"]

        words = ["record", "set", "office", f"hosts={hop}", "tls=encrypt", "user=office", "password"]
        assert p.run(*words, stdin="pw\n").returncode == 0 and users() == ""
        p.run("record", "set", "boss", f"hosts={hop}", "user=boss", "for=boss@x.example", "password", stdin="pw\n", check=True)
        assert 'the relay record "office" is for @y.example too' in p.run("relay", "set", "@y.example", hop, check=True).stdout
        p.run("relay", "set", "z@z.example", "office", check=True)
        for sender in ("a@x.example", "a@y.example", "z@z.example", ""):
            assert p.send(sender=sender).startswith("250")
        assert [m["auth"][1] for m in relay.wait_mails(4)] == ["office"] * 4
        assert users() == "main.cf,@y.example,z@z.example"
        unset = p.run("relay", "unset", "z@z.example", check=True).stdout
        assert 'the relay record "office" is for z@z.example all the same' in unset and '"boss"' not in unset, unset
        again = p.run("setup", "--host", hop, "--user", "office", "--for", "y.example", "--no-test")
        assert again.returncode == 0 and sorted(users().split(",")) == ["@y.example", "main.cf", "z@z.example"], again.stderr
        assert "main.cf" not in p.run("relay", "list", check=True).stdout
        refused = p.run("record", "set", "other", f"hosts={hop}", "tls=encrypt", "user=office", "password", stdin="pw\n")
        assert refused.returncode == 1 and "is already for the next hop" in refused.stderr, refused.stderr
        theirs = "other mail goes there without a login"
        assert theirs not in p.run("check").stdout
        p.run("record", "set", "office", "for=@y.example", check=True)
        p.run("record", "set", "of-y", f"hosts={hop}", "owner=q.example", check=True)
        assert re.search(r'main.cf, line \d+: relayhost: .*"boss" is for some accounts.*' + theirs, p.run("check").stdout)
        assert p.run("record", "set", "office", "for=main.cf").returncode == 0 and users() == ""
    relay.stop()


def test_a_name_that_a_domain_has_taken_gives_it_no_login(dns):
    """Who administers a domain chooses its records' names: the server's administrator, who means another one, is told."""
    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p:
        def listed():
            return json.loads(p.run("record", "list", "--json", check=True).stdout)
        p.run("record", "set", "provider", "hosts=[127.0.0.1]:99", "owner=a.example", check=True)
        before = listed()
        words = ["record", "set", "provider", "hosts=[127.0.0.1]:9", "user=me", "password"]
        for more in ([], ["for=@a.example"]):
            r = p.run(*words, *more, stdin="pw\n")
            assert r.returncode == 1 and "a record of the domain a.example" in r.stderr and listed() == before, r.stderr
        p.run(*words, "owner=a.example", stdin="pw\n", check=True)
        assert (listed()["user"], listed()["for"]) == ("me", "@a.example")
        p.run("record", "set", "provider", "owner=", "for=everybody", check=True)
        assert (listed()["owner"], listed()["for"]) == ("", "everybody")


def test_a_store_that_does_not_take_a_relay_host_gives_nobody_its_record(dns):
    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p:
        p.run("domain", "add", "y.example", check=True)
        for users in ("@a.example", "main.cf"):
            p.run("record", "set", "office", "hosts=[127.0.0.1]:9", f"for={users}", "user=u", "password", stdin="pw\n", check=True)
            before = p.run("record", "list", check=True).stdout
            with sqlite3.connect(p.dir / "data/accounts.db") as c:
                c.execute("BEGIN IMMEDIATE")
                r = p.run("relay", "set", "@y.example", "office")
                c.rollback()
            assert r.returncode == 1 and 'the relay record "office" is not for @y.example' in r.stderr, r.stderr
            assert p.run("record", "list", check=True).stdout == before


def test_long_lists_of_a_domains_records_hold_up_no_mail(dns):
    """Each question passes as many records as a domain may have, each with as many users as it may name."""
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.run("record", "set", "one", f"hosts=[127.0.0.1]:{relay.port}", "owner=bücher.example", "for=last@bücher.example", check=True)
        with sqlite3.connect(p.dir / "data/relays.db") as c:
            c.executemany("INSERT INTO relay (name, nexthop, account, hosts, owner) "
                          "SELECT ?, nexthop, ?, hosts, owner FROM relay WHERE name = 'one'",
                          [(f"r{i}", ",".join(f"u{i}.{k}@bücher.example" for k in range(3000))) for i in range(99)])
        wait_for(lambda: 'relay record: "one"' in p.run("explain", "Last@xn--bcher-kva.example").stdout)
        asked = p.processor("lookup")
        for i in range(5):
            assert p.send(sender=f"q{i}@xn--bcher-kva.example").startswith("250")
        relay.wait_mails(5)
        assert p.processor("lookup") - asked < 6  # seconds; 30 where each list is brought into one form
        # Others who write wait meanwhile; the order's own process does it all.
        words = "for=last@bücher.example," + ",".join(f"v{k}@bücher.example" for k in range(3000))
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        p.run("record", "set", "one", "owner=bücher.example", words, check=True)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime < 5


def test_record_by_name_and_tls_modes(dns, tls):
    """A relayhost value may be a record's name; TLS modes are the record's, whatever main.cf says."""
    relay = FakeRelay(auth=("PLAIN",), tls=tls)
    plain = FakeRelay(auth=("PLAIN",))
    with Posthouse("relayhost = office\nsmtp_tls_security_level = none\n", dns=dns) as p:
        p.run("record", "set", "Office", f"hosts=[relay.server]:{relay.port}", "tls=encrypt", check=True)
        wait_for(lambda: "reload -- " in p.log())
        time.sleep(1)
        p.send(sender="a@x.example")
        assert relay.wait_mail(b"hello")["tls"]
        p.run("record", "set", "Office", "tls=secure", check=True)
        time.sleep(1)
        p.send(sender="b@x.example")
        p.wait_log("Server certificate not verified")
        p.run("record", "set", "Office", f"hosts=[relay.server]:{plain.port}", "tls=encrypt", check=True)
        time.sleep(1)
        p.send(sender="c@x.example")
        p.wait_log("TLS is required, but was not offered by host relay.server")
        p.run("record", "set", "Office", "tls=none", check=True)
        time.sleep(1)
        p.send(sender="d@x.example")
        assert not plain.wait_mail(b"d@x")["tls"]
    relay.stop()
    plain.stop()


def test_record_without_tls_never_sends_a_password(dns):
    relay = FakeRelay(auth=("PLAIN", "LOGIN"))
    with Posthouse("relayhost = office\n", dns=dns) as p:
        p.run("record", "set", "office", f"hosts=[relay.server]:{relay.port}", "tls=may", "user=u", "password", stdin=PASSWORD + "\n", check=True)
        wait_for(lambda: "reload -- " in p.log())
        p.send()
        p.wait_log(r"dsn=4\.7\.0, status=deferred \(SASL authentication failed; cannot authenticate to server")
        assert not any(c.startswith("AUTH") for s in relay.sessions for c in s.commands)
    relay.stop()


class BrokenTls:
    """What answers a handshake with something else."""

    def wrap_socket(self, conn, server_side):
        conn.sendall(b"I cannot do that right now\r\n")
        raise ValueError("no TLS")


@pytest.mark.parametrize("offer", ["handshake that breaks", "STARTTLS refused"])
@pytest.mark.parametrize("user", ["user=clerk", ""], ids=["account", "none"])
def test_no_login_in_clear_where_tls_was_offered_and_failed(dns, offer, user):
    """An account of a record is not used in clear after that, not even by a mechanism that hides its password; main.cf has
    no say in it. Mail that needs no login goes on, as tls=may has it."""
    refuses = {"STARTTLS": "454 4.7.0 the certificate has expired"} if offer == "STARTTLS refused" else {}
    relay = FakeRelay(auth=("CRAM-MD5", "PLAIN"), users={"clerk": PASSWORD}, tls=BrokenTls(), replies=refuses)
    with Posthouse("relayhost = office\nsmtp_sasl_security_options = noanonymous\n", dns=dns) as p:
        account = [user, "password"] if user else []
        p.run("record", "set", "office", f"hosts=[127.0.0.1]:{relay.port}", "tls=may", *account, stdin=PASSWORD + "\n", check=True)
        wait_for(lambda: "reload -- " in p.log())
        p.send()
        if user:
            p.wait_log(r"dsn=4\.7\.[45], status=deferred")
        else:
            p.wait_log("status=sent")
            relay.wait_mails(1)
        assert not any(c.startswith("AUTH") for s in relay.sessions for c in s.commands)
        assert len(relay.mails) == (0 if user else 1)
    relay.stop()


def test_a_record_that_gets_stricter_is_so_for_mail_that_waits(dns, tls):
    """A password that was set for verified TLS is not sent in less, whatever the record said when mail was routed."""
    gate, secrets = threading.Event(), ["before-the-change", "after-the-change"]
    relay = FakeRelay(auth=("PLAIN",), tls=tls, replies={"DOT": lambda line: gate.wait(60) and None})
    main = "relayhost = office\nsmtp_destination_concurrency_limit = 1\nsmtp_connection_cache_on_demand = no\n" \
           "smtp_tls_CAfile = /dev/null\nsmtp_pipeline_transactions = no\n"
    with Posthouse(main, dns=dns) as p:
        def record(level, password):
            n = p.log().count("reload -- ")
            words = ["office", f"hosts=[127.0.0.1]:{relay.port}", f"tls={level}", "user=u", "password"]
            p.run("record", "set", *words, stdin=password + "\n", check=True)
            wait_for(lambda: p.log().count("reload -- ") > n or level != "encrypt")
        record("encrypt", secrets[0])
        for i in range(3):
            p.send(sender=f"s{i}@x.example")
        wait_for(lambda: relay.sessions and any(c == "DATA" for c in relay.sessions[0].commands))
        record("secure", secrets[1])
        gate.set()
        p.wait_log("status=sent")
        p.wait_log("status=deferred", count=2)
        assert {s.auth[2] for s in relay.sessions if s.auth} == {secrets[0]}
    relay.stop()


def test_a_record_that_is_taken_away_takes_waiting_mail_from_its_session(dns, tls):
    """Mail that was routed, and waits behind others for a session that has logged in, goes by what the record says now."""
    gate = threading.Event()
    relay = FakeRelay(auth=("PLAIN",), tls=tls, replies={"DOT": lambda line: gate.wait(60) and None})
    main = "relayhost = office\nsmtp_destination_concurrency_limit = 1\nsmtp_tls_CAfile = /dev/null\nsmtp_pipeline_transactions = no\n"
    with Posthouse(main, dns=dns) as p:
        def record(sender):
            words = ["office", f"hosts=[127.0.0.1]:{relay.port}", "tls=encrypt", f"for={sender}", "user=ann", "password"]
            p.run("record", "set", *words, stdin="sesame\n", check=True)
        record("ann@x.example")
        wait_for(lambda: "reload -- " in p.log())
        for i in range(7):
            p.send(sender="ann@x.example")
        wait_for(lambda: relay.sessions and any(c == "DATA" for c in relay.sessions[0].commands))
        record("ben@x.example")
        gate.set()
        p.wait_log("status=", count=7)
        assert p.log().count("status=sent") == 1 and len(relay.mails) == 1
    relay.stop()


def test_a_record_for_another_account_is_not_used_by_mail_that_waits(dns, tls):
    """Mail that was routed by a record for its sender does not log in as the user that the record has got since."""
    gate = threading.Event()
    relay = FakeRelay(auth=("PLAIN",), tls=tls, replies={"DOT": lambda line: gate.wait(60) and None})
    main = "relayhost = office\nsmtp_destination_concurrency_limit = 1\nsmtp_connection_cache_on_demand = no\n" \
           "smtp_tls_CAfile = /dev/null\nsmtp_pipeline_transactions = no\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"
    with Posthouse(main, dns=dns) as p:
        def record(sender, user):
            words = ["office", f"hosts=[127.0.0.1]:{relay.port}", "tls=encrypt", f"for={sender}", f"user={user}", "password"]
            p.run("record", "set", *words, stdin=f"secret-of-{user}\n", check=True)
        record("ann@x.example", "ann")
        wait_for(lambda: "reload -- " in p.log())
        for i in range(3):
            p.send(sender="ann@x.example")
        wait_for(lambda: relay.sessions and any(c == "DATA" for c in relay.sessions[0].commands))
        record("ben@x.example", "ben")
        gate.set()
        p.wait_log("status=sent")
        p.wait_log("status=deferred", count=2)
        assert {s.auth[1] for s in relay.sessions if s.auth} == {"ann"}
    relay.stop()


# A writer that is killed when a part of what it changes is in the file.
KILLED = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA cache_size = 1")
c.execute("BEGIN IMMEDIATE")
c.execute("DELETE FROM " + sys.argv[2])
c.execute("CREATE TABLE filler (x)")
c.executemany("INSERT INTO filler VALUES (?)", [("x" * 200,)] * 4000)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_taken_back(dns):
    """Readers of such a file get an error, for ever, if nothing is written there again."""
    everybody, own = FakeRelay(), FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\n", dns=dns) as p:
        def reloads():
            return p.log().count("reload -- ")
        p.run("domain", "add", "x.example", check=True)
        wait_for(lambda: reloads() == 1)
        p.run("record", "set", "mine", f"hosts=[127.0.0.1]:{own.port}", "tls=none", check=True)
        wait_for(lambda: reloads() == 2)
        p.run("relay", "set", "@x.example", "mine", check=True)
        for i, take_up in enumerate((p.reload, lambda: (p.stop(), p.start()))):
            for name, table in (("accounts", "sender_relayhost"), ("relays", "relay")):
                path = p.dir / f"data/{name}.db"
                subprocess.run([sys.executable, "-c", KILLED, path, table])
                assert path.with_name(path.name + "-journal").stat().st_size > 512
            n = reloads()
            take_up()
            wait_for(lambda: i == 1 or reloads() > n)
            assert p.send(sender="a@x.example").startswith("250")
            wait_for(lambda: len(own.mails) == i + 1)
        assert not everybody.mails
    everybody.stop()
    own.stop()


@pytest.mark.parametrize("when", ["reload", "stop", "crash"])
@pytest.mark.parametrize("which", ["records", "accounts", "parent folder", "dangling link"])
def test_a_store_that_is_gone_is_not_an_empty_store(dns, tls, which, when):
    """Relay records, or the embedded accounts store, that were there and are gone: mail waits and says why, after a reload, an
    orderly stop or a crash. It never takes the road of a relay without records. When the file is back, mail goes."""
    everybody, own = FakeRelay(), FakeRelay(auth=("PLAIN",), tls=tls, need_auth=True)
    busy = FakeRelay(replies={"GREETING": "421 not yet"})
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\n", dns=dns) as p:
        def count():
            return p.log().count("reload -- ")
        def record(hosts):
            n = count()
            words = [f"[127.0.0.1]:{everybody.port}", f"hosts={hosts}", "user=clerk", "password"]
            p.run("record", "set", *words, stdin=PASSWORD + "\n", check=True)
            wait_for(lambda: count() > n or hosts != f"[127.0.0.1]:{busy.port}")
        if which == "accounts":
            p.run("domain", "add", "x.example", check=True)
            wait_for(lambda: count() == 1)
            p.run("relay", "set", "@x.example", f"[127.0.0.1]:{busy.port}", check=True)
        else:
            record(f"[127.0.0.1]:{busy.port}")
        p.send(sender="early@x.example")
        p.wait_log("421 not yet")
        if which == "accounts":
            p.run("relay", "set", "@x.example", f"[127.0.0.1]:{own.port}", check=True)
        else:
            record(f"[127.0.0.1]:{own.port}")
        path = p.dir / "data" if which == "parent folder" else p.dir / ("data/accounts.db" if which == "accounts" else "data/relays.db")
        away = p.dir / "away"
        if when == "stop":
            p.stop()
        if when == "crash":
            p.kill()
        path.rename(away)
        if which == "dangling link":
            path.symlink_to(p.dir / "not-mounted/relays.db")
        n = count()
        if when == "reload":
            p.reload()
        else:
            p.start()
        assert p.send(sender="late@x.example").startswith("451 4.3.0")
        deferred = len(re.findall(r"status=deferred", p.log()))
        p.run("queue", "flush")
        wait_for(lambda: len(re.findall(r"status=deferred", p.log())) > deferred)
        assert re.search(r"dsn=4\.3\.0, status=deferred", p.log())
        if which != "dangling link":
            p.wait_log(r"master\[\d+\]: warning: .*\.db is gone.*: mail waits")
            again = ["domain", "add", "y.example"] if which == "accounts" else ["record", "set", "other", "hosts=[127.0.0.1]:9"]
            r = p.run(*again)
            assert r.returncode != 0 and not path.exists(), r.stdout + r.stderr  # no new one in its place
        assert not everybody.mails and not own.mails
        if path.is_symlink():
            path.unlink()
        away.rename(path)
        p.reload()
        if which == "accounts":
            own.need_auth = False
        wait_for(lambda: p.send(sender="late@x.example").startswith("250"), 20, 0.3)
        p.run("queue", "flush")
        own.wait_mails(2)
        assert not everybody.mails and (which == "accounts" or own.mails[0]["auth"][1] == "clerk")
    for r in (everybody, own, busy):
        r.stop()


def test_records_and_key_that_are_gone_at_a_reload(dns):
    """Then nothing but the daemon knows that there were records: the reload is refused. A daemon that starts has none."""
    everybody = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\n", dns=dns) as p:
        p.run("record", "set", f"[127.0.0.1]:{everybody.port}", "hosts=[127.0.0.1]:9", check=True)
        wait_for(lambda: "reload -- " in p.log())
        (p.dir / "data/relays.db").unlink()
        (p.dir / "relays.key").unlink()
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log(r"relays_database .*relays\.db is gone")
        p.wait_log("reload refused")
        assert p.send().startswith("451 4.3.0") and not everybody.mails
        p.stop()
        p.start()
        assert p.send().startswith("250")
        everybody.wait_mails(1)
    everybody.stop()


def test_lost_key_defers(dns, tls):
    relay = FakeRelay(auth=("PLAIN",), tls=tls)
    with Posthouse("relayhost = office\n", dns=dns) as p:
        p.run("record", "set", "office", f"hosts=[relay.server]:{relay.port}", "user=u", "password", stdin=PASSWORD + "\n", check=True)
        (p.dir / "relays.key").rename(p.dir / "away")
        wait_for(lambda: "reload -- " in p.log())
        p.send()
        p.wait_log(r"dsn=4\.3\.0, status=deferred")
        p.wait_log(r"relays_key_file .*relays\.key: No such file")
        for wrong in ("there is no such key", "it is another key"):
            r = p.run("check")
            assert r.returncode == 2 and f"error: {p.dir}/relays.key: {wrong}, and the passwords of the relay records" in r.stdout
            (p.dir / "relays.key").write_text(base64.b64encode(bytes(range(32))).decode() + "\n")
        (p.dir / "away").rename(p.dir / "relays.key")
        time.sleep(1)
        p.run("queue", "flush")
        relay.wait_mails(1)
    relay.stop()


# -- bad rows met in the field (iredmail facts, section 0) --

ROWS = [("@prefix.example", "smtp:[127.0.0.1]:{good}", "passed over"), ("bare.example", "[127.0.0.1]:{good}", "never matches"),
        ("User@Upper.example", "[127.0.0.1]:{good}", "upper case"), ("@transport.example", "sample-smtp:", "no port after"),
        ("@tab.example", "[127.0.0.1]:{good}\t", None), ("@inner.example", "[127.0.0.1]:9\n[127.0.0.1]:{good}", "several relay hosts"),
        ("@long.example", "[" + "h" * 253 + "]", "valid hostname"), ("@control.example", "[a\x01b]:25", "valid hostname"),
        (" blank@x.example", "[127.0.0.1]:{good}", "blanks or control"), ("@empty.example", "", "counts as none"), ("@dunno.example", "dunno", None),
        ("@port.example", "[127.0.0.1]:notaport", "bad port"), ("@bracket.example", "[127.0.0.1:25", "missing ']'"),
        ("@inet.example", "inet:127.0.0.1:25", "transport name")]


def test_bad_rows(dns, db):
    """Each is handled, or defers with a plain reason; and check lists it."""
    if db.type == "ldap":
        return  # a directory's schema and tree keep most of this out: test_bad_values_in_a_directory
    good, everybody = FakeRelay(), FakeRelay()
    db.run("DELETE FROM sender_relayhost")
    if db.type == "pgsql":
        db.run("DROP INDEX idx_sender_relayhost_account")  # as before iRedMail 1.1
    quote = lambda s: "'" + s.replace("'", "''").replace("\x01", "\x01") + "'"
    for account, value, _ in ROWS:
        db.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ({quote(account)}, {quote(value.format(good=good.port))})")
    if db.type == "pgsql":
        db.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@empty.example', '[127.0.0.1]:{good.port}')")
    conf = store(db)
    conf["main"] += f"relayhost = [127.0.0.1]:{everybody.port}\n"
    with Posthouse(dns=dns, **conf) as p:
        for s in ("a@prefix.example", "a@bare.example", "a@transport.example", "a@tab.example", "a@inner.example", "a@long.example",
                  "a@control.example", "a@dunno.example", "a@port.example", "a@bracket.example", "a@inet.example", "user@upper.example"):
            assert p.send(sender=s)[:3] == "250", s
        folds = db.type == "mysql"  # MariaDB compares accounts without case
        wait_for(lambda: len(good.mails) == 3 + folds and len(everybody.mails) == 3 - folds)
        assert senders(good) == sorted(["a@inner.example", "a@prefix.example", "a@tab.example"] + ["user@upper.example"] * folds)
        assert {"a@bare.example", "a@dunno.example"} <= set(senders(everybody))
        queue = wait_for(lambda: waiting(p, 6))
        waits = {m["sender"]: m["recipients"][0]["delay_reason"] for m in queue}
        assert all(r.startswith('bad next hop "') for r in waits.values()), waits
        assert set(waits) == {f"a@{d}.example" for d in ("transport", "long", "control", "port", "bracket", "inet")}
        assert "\x01" not in p.log()
        r = p.run("check")
        assert r.returncode == 2
        for account, _, word in ROWS:
            said = [line for line in r.stdout.splitlines() if f'"{account.strip()}"' in line or f'"{account}"' in line]
            if word == "upper case" and folds:
                continue
            assert word is None or any(word in line for line in said), (account, word, said)
        assert "no such user or domain any more" in r.stdout
        assert db.type != "pgsql" or "a further row of the same account" in r.stdout
        assert "\x01" not in r.stdout + r.stderr
        assert servers.ADMIN not in r.stdout + r.stderr
    good.stop()
    everybody.stop()


def test_bad_values_in_a_directory(dns, db):
    if db.type != "ldap":
        return
    everybody = FakeRelay()
    conf = store(db)
    conf["main"] += f"relayhost = [127.0.0.1]:{everybody.port}\n"
    dn = f"domainName=mydomain.com,o=domains,{servers.SUFFIX}"
    with Posthouse(dns=dns, **conf) as p:
        for value, word in (("[127.0.0.1", "missing ']'"), ("[127.0.0.1]:notaport", "bad port"), ("h" * 255, "valid hostname")):
            db.change(dn, "senderRelayHost", value)
            time.sleep(1)
            assert p.send(sender="a@mydomain.com").startswith("250")
            assert word in p.run("check").stdout
        wait_for(lambda: waiting(p, 3))
        assert not everybody.mails
        db.change(dn, "senderRelayHost", None)
    everybody.stop()


def test_check_names_keys_that_are_never_asked(dns, tmp_path):
    p = Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/sdr\ntransport_maps = texthash:{dir}/tr\n", directory=tmp_path,
                  files={"sdr": "domain.com [x]:25\n@good.com [x]:25\nuser@good.com [x]:25\n", "tr": "@domain.com smtp:[x]\ngood.com smtp:[x]\n"})
    out = p.run("check").stdout
    assert '"domain.com": a domain alone is no key for senders: write @domain' in out
    assert '"@domain.com": @domain is no key of transport_maps' in out
    assert out.count("no key") == 2


def test_check_uses_the_tables_of_iredmail(dns, db):
    """Without accounts_store the rows are found by way of sender_dependent_relayhost_maps."""
    if db.type in ("sqlite", "ldap"):
        return
    db.run("DELETE FROM sender_relayhost")
    db.run("INSERT INTO sender_relayhost (account, relayhost) VALUES ('domain.com', 'sample-smtp')")
    p = Posthouse(f"sender_dependent_relayhost_maps = proxy:{db.type}:{{dir}}/t.cf\n", dns=dns,
                  files={"t.cf": servers.table_file(db, "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1")})
    out = p.run("check").stdout
    assert 'sender_relayhost "domain.com" -> "sample-smtp": the account has no \'@\' and never matches' in out
    db.run("DELETE FROM sender_relayhost")
