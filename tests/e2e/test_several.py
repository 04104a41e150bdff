"""Tables that answer with several values: joined where a list is meant, and an error by name where one value is.

Each kind of table that can do so, and each parameter that takes one value of a table."""
import re
import shutil
import time

import pytest
from kit import FakeRelay, Posthouse, wait_for

import servers

SECRETS = ["secret1", "secret2"]
QUERY = "SELECT v FROM pairs WHERE k = '%s' ORDER BY v"


class Sql:
    def __init__(self, make):
        self.server = make()
        self.type = self.server.type
        self.server.run("CREATE TABLE pairs (k VARCHAR(255), v VARCHAR(255))")
        if self.type == "pgsql":
            self.server.run("GRANT SELECT ON pairs TO vmail")

    def files(self):
        return {"pairs.cf": servers.table_file(self.server, QUERY)}

    def fill(self, p, key, values):
        self.server.run("DELETE FROM pairs")
        for v in values:
            self.server.run(f"INSERT INTO pairs VALUES ('{key}', '{v}')")

    def spec(self, p):
        return f"proxy:{self.type}:{p}/pairs.cf"

    names = property(lambda self: f"{self.type}:.*/pairs.cf")

    def stop(self):
        self.server.stop()


class Ldap(Sql):
    """Two entries, each with one value."""

    def __init__(self):
        self.server = servers.Slapd()
        self.type = "ldap"

    def files(self):
        return {"pairs.cf": f"server_host = 127.0.0.1:{self.server.port}\nversion = 3\nbind_dn = cn=vmail,{servers.SUFFIX}\n"
                            f"bind_pw = {servers.PASSWORD}\nsearch_base = o=domains,{servers.SUFFIX}\nquery_filter = (sn=%s)\n"
                            "result_attribute = title\n"}

    def fill(self, p, key, values):
        for n in range(2):
            if self.server.has(f"cn=row{n},o=domains,{servers.SUFFIX}"):
                self.server.run(f"dn: cn=row{n},o=domains,{servers.SUFFIX}\nchangetype: delete\n")
        for n, v in enumerate(values):
            self.server.run(f"dn: cn=row{n},o=domains,{servers.SUFFIX}\nobjectClass: inetOrgPerson\ncn: row{n}\nsn: {key}\ntitle: {v}\n",
                            tool="ldapadd")


class Union:
    """Two tables in files, each with one row."""
    names = r"unionmap:\{texthash:.*/one, texthash:.*/two\}"

    def files(self):
        return {"one": "", "two": ""}

    def fill(self, p, key, values):
        for name, rows in (("one", values[:1]), ("two", values[1:])):
            (p / (name + ".new")).write_text("".join(f"{key} {v}\n" for v in rows) or "# none\n")
            (p / (name + ".new")).rename(p / name)

    def spec(self, p):
        return f"unionmap:{{texthash:{p}/one, texthash:{p}/two}}"

    def stop(self):
        pass


class Pipe(Sql):
    """A table that gives a key its name, and a database that has rows for the name."""

    def __init__(self):
        super().__init__(servers.Sqlite)

    names = "sqlite:.*/pairs.cf"

    def fill(self, p, key, values):
        if not (p / "names").exists():
            (p / "names").write_text(f"{key} account\n")
        super().fill(p, "account", values)

    def spec(self, p):
        return f"pipemap:{{texthash:{p}/names, sqlite:{p}/pairs.cf}}"


KINDS = {"mysql": lambda: Sql(servers.MariaDb), "pgsql": lambda: Sql(servers.Postgres), "sqlite": lambda: Sql(servers.Sqlite),
         "ldap": Ldap, "unionmap": Union, "pipemap": Pipe}


@pytest.fixture(scope="module", params=KINDS)
def rows(request):
    made = KINDS[request.param]()
    yield made
    made.stop()


def daemon(rows, dns, main, key, values, master=""):
    p = Posthouse("", dns=dns, files=rows.files(), master=master)
    spec = rows.spec(p.dir).replace("{", "{{").replace("}", "}}")
    p.write_main(f"minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n{main}".replace("TABLE", spec))
    (p.dir / "master.cf").write_text((p.dir / "master.cf").read_text().replace("TABLE", rows.spec(p.dir)))
    rows.fill(p.dir, key, values)
    return p


def waits_by_name(p, rows, rcpt, key):
    """The mail's reason, the log and the explanation name the table and say how many values; nothing says which."""
    why = f"{rows.names}: 2 values for one key, and only one is allowed"
    line = wait_for(lambda: re.search(rf"to=<{re.escape(rcpt)}>.*dsn=(4\.3\.0), status=deferred \((.*)\)\n", p.log()))
    assert re.search(why, line[2]), line[0]
    wait_for(lambda: re.search(rf'lookup error for "{re.escape(key)}"', p.log()) and len(re.findall(why, p.log())) >= 2)
    said = p.run("explain", "s@a.example", rcpt).stdout
    assert re.search(why, said), said
    tried = p.run("test", "s@a.example", rcpt).stdout
    assert re.search(why, tried), tried
    for text in (p.log(), said, tried, p.run(face="mailq").stdout):
        assert not any(s in text for s in SECRETS)


LOGIN = ("smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\nsmtp_tls_security_level = none\n"
         "relayhost = [127.0.0.1]:PORT\n")


@pytest.mark.parametrize("where", ["main.cf", "master.cf", "sender"])
def test_two_logins_are_none(dns, rows, where):
    """No password goes to the host, least of all the second one's; one row counts again, with any comma that its password has."""
    with FakeRelay(auth=["PLAIN"]) as relay:
        key, main, master = f"[127.0.0.1]:{relay.port}", LOGIN.replace("PORT", str(relay.port)), ""
        if where == "master.cf":
            master = "to unix - - n - - smtp\n  -o {{ smtp_sasl_password_maps = TABLE }}\n"
            main += "default_transport = to\n"
        else:
            main += "smtp_sasl_password_maps = TABLE\n"
        if where == "sender":
            key, main = "s@a.example", main + "smtp_sender_dependent_authentication = yes\n"
        p = daemon(rows, dns, main, key, [f"user{n + 1}:{s}" for n, s in enumerate(SECRETS)], master)
        with p:
            assert p.send("s@a.example", ["r@b.example"]).startswith("250")
            waits_by_name(p, rows, "r@b.example", key)
            assert not relay.mails and not any(s.auth for s in relay.sessions)
            assert not any(c.startswith("AUTH") for s in relay.sessions for c in s.commands)
            rows.fill(p.dir, key, ["user1:com,ma:and,two"])
            relay.wait_mails(1)
            assert [s.auth[1:] for s in relay.sessions if s.mails] == [("user1", "com,ma:and,two")]


@pytest.mark.parametrize("service", ["", "to"])
def test_check_names_the_logins(rows, service):
    main, master = LOGIN.replace("PORT", "25"), "to unix - - n - - smtp\n  -o {{ smtp_sasl_password_maps = TABLE }}\n"
    if not service:
        main, master = main + "smtp_sasl_password_maps = TABLE\n", ""
    p = daemon(rows, None, main, "127.0.0.1", ["user1:secret1", "user2:secret2"], master)
    r = p.run("check")
    said = r.stdout + r.stderr
    several = f"{rows.names}: 2 values for one key, and only one is allowed"
    assert re.search(rf"error: .*{service}.*smtp_sasl_password_maps: .*{several}", said), said
    assert not any(s in said for s in SECRETS)
    shutil.rmtree(p.dir)


@pytest.mark.parametrize("param", ["transport_maps", "sender_dependent_default_transport_maps", "smtp_tls_policy_maps"])
def test_two_rows_are_no_rule(dns, rows, param):
    """Of two transports, of which one may be discard:, or of two TLS policies none is the one that is meant."""
    with FakeRelay() as relay:
        hop = f"[127.0.0.1]:{relay.port}"
        key = {"transport_maps": "r@b.example", "smtp_tls_policy_maps": hop}.get(param, "s@a.example")
        values = ["none", "none ciphers=high"] if param == "smtp_tls_policy_maps" else ["discard:", f"smtp:{hop}"]
        with daemon(rows, dns, f"relayhost = {hop}\n{param} = TABLE\n", key, []) as p:
            relay.replies["MAIL"] = "450 4.2.0 later"
            assert p.send("s@a.example", ["r@b.example"]).startswith("250")
            wait_for(lambda: "4.2.0" in p.log())
            rows.fill(p.dir, key, values)
            time.sleep(1.2)
            relay.replies.clear()
            why = f"{rows.names}: 2 values for one key, and only one is allowed"
            wait_for(lambda: re.search(rf"dsn=4\.3\.0, status=deferred \(.*{why}\)\n", p.log()))
            again = p.send("s@a.example", ["r@b.example"])
            assert again.startswith("250" if param == "smtp_tls_policy_maps" else "451 4.3.0"), again
            for said in (p.run("explain", "s@a.example", "r@b.example").stdout, p.run("test", "s@a.example", "r@b.example").stdout):
                assert re.search(why, said), said
            assert not relay.mails
            rows.fill(p.dir, key, values[1:])
            relay.wait_mails(1)


def test_two_relay_hosts_are_a_list(dns, rows):
    """As with Postfix: they are tried one after the other; and the same table in two roles is a list in one of them alone."""
    with FakeRelay() as first, FakeRelay() as second:
        hops = sorted(f"[127.0.0.1]:{r.port}" for r in (first, second))
        with daemon(rows, dns, "relayhost = [127.0.0.1]:9\nsender_dependent_relayhost_maps = TABLE\n", "s@a.example", hops) as p:
            assert p.send("s@a.example", ["r@b.example"]).startswith("250")
            wait_for(lambda: len(first.mails) + len(second.mails) == 1)
            p.write_main((p.dir / "main.cf").read_text().replace("{", "{{").replace("}", "}}") + LOGIN.split("relayhost")[0] +
                         f"smtp_sender_dependent_authentication = yes\nsmtp_sasl_password_maps = {rows.spec(p.dir)}\n"
                         .replace("{", "{{").replace("}", "}}"))
            p.run("reload", check=True)
            assert p.send("s@a.example", ["r2@b.example"]).startswith("250")
            line = wait_for(lambda: re.search(r"to=<r2@b.example>.*status=deferred \((.*)\)\n", p.log()))
            assert re.search(f"{rows.names}: 2 values for one key", line[1]), line
            said = p.run("explain", "s@a.example", "r2@b.example").stdout
            assert re.search(f"next hop .*{re.escape(hops[0])},.*{re.escape(hops[1])}", said), said
            assert len(first.mails) + len(second.mails) == 1
