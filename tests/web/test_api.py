"""The API over each kind of accounts store: who may see and change what, and what is written."""
import sqlite3

import pytest
import servers
from kit import FakeRelay, wait_for
from webkit import GLOBAL, OF_DOMAIN, SECRET, Web

KINDS = ["sqlite", "mysql", "pgsql", "ldap"]


class Embedded(servers.Sqlite):
    """The store that Posthouse makes itself."""

    def __init__(self, web):
        self.path = web.dir / "data" / "accounts.db"
        web.command("domain", "add", "a.example")

    def run(self, sql, check=True):
        with sqlite3.connect(self.path, 10) as db:
            if sql.startswith("SELECT"):
                return "".join("\t".join(map(str, row)) + "\n" for row in db.execute(sql))
            db.executescript(sql)

    def stop(self):
        pass


class Site:
    """A daemon, its page, a store with some accounts, and three relay hosts."""

    def __init__(self, kind, dns):
        self.relays = {name: FakeRelay() for name in ("everybody", "one", "two")}
        main = f"relayhost = [127.0.0.1]:{self.relays['everybody'].port}\n"
        if kind == "sqlite":
            self.web = Web(main, dns=dns)
            self.store = Embedded(self.web)
        else:
            self.store = {"mysql": servers.MariaDb, "pgsql": servers.Postgres, "ldap": servers.Slapd}[kind]()
            self.web = Web(main + f"accounts_store = {kind}:{{dir}}/store.cf\n", dns=dns,
                           files={"store.cf": servers.store_file(self.store)})
        self.kind = kind
        self.hash = SECRET if kind == "ldap" else "{PLAIN}" + SECRET
        for user in ("ann@a.example", "bob@a.example", "cid@a.example", "ann@b.example", "x@hidden.example", "y@backup.example", "z@paged.example"):
            servers.add_user(self.store, user, self.hash)
        servers.add_admin(self.store, GLOBAL, self.hash)
        servers.add_admin(self.store, OF_DOMAIN, self.hash, "a.example", "hidden.example")
        self.hide("hidden.example")
        self.web.start()

    def hide(self, domain):
        if self.kind == "ldap":
            for kind in ("Domain", "User"):
                self.store.run(f"dn: {self.dn(domain)}\nchangetype: modify\nadd: accountSetting\naccountSetting: disabled{kind}Profile:relay\n")
        else:
            self.store.run(f"UPDATE domain SET settings = 'default_user_quota:1024;disabled_domain_profiles:bcc,relay;disabled_user_profiles:relay;' WHERE domain = '{domain}'")

    @staticmethod
    def dn(account):
        domain = account.split("@")[-1]
        user = f"mail={account},ou=Users," if "@" in account else ""
        return f"{user}domainName={domain},o=domains,{servers.SUFFIX}"

    def stored(self, account):
        """(transport, backup MX, relay host) as they stand in the store."""
        if self.kind == "ldap":
            import subprocess
            out = subprocess.run(["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", f"ldap://127.0.0.1:{self.store.port}", "-D", f"cn=Manager,{servers.SUFFIX}",
                                  "-w", "secret", "-b", self.dn(account), "-s", "base"], capture_output=True, text=True, check=True).stdout
            at = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
            return at.get("mtaTransport", ""), at.get("domainBackupMX") == "yes", at.get("senderRelayHost")
        user = "@" in account
        row = self.store.run(f"SELECT transport, {0 if user else 'backupmx'} FROM {'mailbox' if user else 'domain'} "
                             f"WHERE {'username' if user else 'domain'} = '{account}'").rstrip("\n").replace("|", "\t").split("\t")
        key = account if user else "@" + account
        relay = self.store.run(f"SELECT relayhost FROM sender_relayhost WHERE account = '{key}'").strip()
        return row[0], row[1] == "1", relay or None

    def value(self, name):
        return f"[127.0.0.1]:{self.relays[name].port}"

    def stop(self):
        self.web.__exit__(None, None, None)
        self.store.stop()
        for r in self.relays.values():
            r.stop()


@pytest.fixture(scope="module", params=KINDS)
def site(request, dns):
    s = Site(request.param, dns)
    yield s
    s.stop()


def test_sign_in(site):
    api = site.web.api()
    assert api.fails(401, "GET", "/api/domains") == "Login required."
    wrong = api.fails(401, "POST", "/api/login", form={"username": GLOBAL, "password": "no"})
    assert wrong == api.fails(401, "POST", "/api/login", form={"username": "nobody@x.example", "password": "no"}) == "Username or password is incorrect."
    assert api.fails(401, "POST", "/api/login", form={"username": "ann@a.example", "password": SECRET}) == wrong  # no administrator
    assert api.fails(400, "POST", "/api/login", form={"username": GLOBAL})
    assert api.fails(401, "POST", "/api/login", form={"username": GLOBAL, "password": ""})
    boss = site.web.api(GLOBAL.upper())
    assert boss.get("/api/session") | {"csrf": ""} == {"admin": GLOBAL, "global": True, "csrf": "", "version": "0.1.0"}
    assert site.web.api(OF_DOMAIN).get("/api/session")["global"] is False
    boss.ok("POST", "/api/logout")
    assert boss.fails(401, "GET", "/api/session")


def test_mail_users_as_administrators(site):
    if site.kind == "ldap":
        servers.add_user(site.store, "head@b.example", site.hash, domainGlobalAdmin="yes")
        servers.add_user(site.store, "part@b.example", site.hash, enabledService=["mail", "domainadmin"])
        site.store.run(f"dn: {site.dn('b.example')}\nchangetype: modify\nadd: domainAdmin\ndomainAdmin: part@b.example\n")
    else:
        servers.add_user(site.store, "head@b.example", site.hash, isglobaladmin=1)
        servers.add_user(site.store, "part@b.example", site.hash, isadmin=1)
        site.store.run("INSERT INTO domain_admins (username, domain) VALUES ('head@b.example', 'ALL')")
        site.store.run("INSERT INTO domain_admins (username, domain) VALUES ('part@b.example', 'b.example')")
    assert site.web.api("head@b.example").get("/api/session")["global"] is True
    part = site.web.api("part@b.example")
    assert [d["name"] for d in part.get("/api/domains")["domains"]] == ["b.example"]
    if site.kind == "ldap":
        site.store.change(site.dn("part@b.example"), "accountStatus", "disabled")
    else:
        site.store.run("UPDATE mailbox SET active = 0 WHERE username = 'part@b.example'")
    wait_for(lambda: part.request("GET", "/api/domains")[0] == 401)  # his session ends with his role
    assert site.web.api().fails(401, "POST", "/api/login", form={"username": "part@b.example", "password": SECRET})


def test_lists(site):
    boss = site.web.api(GLOBAL)
    names = lambda path, what: [x["name"] for x in boss.get(path)[what]]
    every = names("/api/domains?limit=200", "domains")
    assert every == sorted(every) and {"a.example", "b.example", "hidden.example"} <= set(every)
    first = boss.get("/api/domains?limit=2")
    assert [d["name"] for d in first["domains"]] == every[:2] and first["more"] is True
    assert names(f"/api/domains?limit=2&after={every[1]}", "domains") == every[2:4]
    assert boss.get(f"/api/domains?after={every[-1]}") == {"domains": [], "more": False}
    assert names("/api/domains?search=IDDE", "domains") == ["hidden.example"]
    assert names("/api/domains?search=%25", "domains") == []  # no pattern of the user's own
    assert boss.get("/api/domains?name_only=yes&limit=200")["domains"] == every
    assert names("/api/users/a.example", "users") == ["ann@a.example", "bob@a.example", "cid@a.example"]
    assert names("/api/users/a.example?after=ann@a.example&limit=1", "users") == ["bob@a.example"]
    assert names("/api/users/a.example?search=c", "users") == ["cid@a.example"]
    found = boss.get("/api/search?q=ANN@")
    assert [u["name"] for u in found["users"]] == ["ann@a.example", "ann@b.example"]
    assert boss.fails(404, "GET", "/api/users/none.example") == "Account does not exist."
    assert boss.fails(400, "GET", "/api/users/no_domain!") == "Invalid domain name."
    if site.kind != "ldap":
        assert next(d for d in boss.get("/api/domains?search=a.ex")["domains"] if d["name"] == "a.example")["users"] == 3


def test_who_relays_where(site):
    boss = site.web.api(GLOBAL)
    site.web.command("relay", "set", "@a.example", site.value("one"))
    site.web.command("relay", "set", "bob@a.example", site.value("two"))
    relay = {u["name"]: u["relay"] for u in boss.get("/api/users/a.example")["users"]}
    assert relay == {"ann@a.example": {"value": site.value("one"), "from": "domain"}, "bob@a.example": {"value": site.value("two"), "from": "own"},
                     "cid@a.example": {"value": site.value("one"), "from": "domain"}}
    domains = {d["name"]: d["relay"] for d in boss.get("/api/domains?limit=200")["domains"]}
    assert domains["a.example"] == {"value": site.value("one"), "from": "own"}
    assert domains["b.example"] == {"value": site.value("everybody"), "from": "everybody"}
    e = boss.get("/api/effective?account=ann@a.example")
    assert (e["key"], e["next_hop"], e["rule"]) == ("@a.example", site.value("one"), "sender_dependent_relayhost_maps")
    assert boss.get("/api/effective?account=a.example")["key"] == "@a.example"
    e = boss.get("/api/effective?account=b.example")
    assert (e["key"], e["next_hop"], e["rule"]) == ("", site.value("everybody"), "relayhost")
    found = {u["name"]: u.get("relay") for u in boss.get("/api/search?q=bob@")["users"]}
    assert found == {"bob@a.example": {"value": site.value("two"), "from": "own"}} and "relay" not in boss.get("/api/search?q=ann@a")["users"][0]
    # How many accounts name a record, by its next hop or its name; of a domain's own record, accounts of the domain.
    site.web.command("relay", "set", "ann@b.example", site.value("two"))
    boss.ok("PUT", "/api/relay/own", body={"hosts": "[127.0.0.1]:9", "nexthop": site.value("two"), "tls": "may", "owner": "a.example"})
    boss.ok("PUT", "/api/relay/all", body={"hosts": "[127.0.0.1]:9", "nexthop": site.value("two"), "tls": "may"})
    assert {r["name"]: r["used_by"] for r in boss.get("/api/relays")["records"]} == {"own": 1, "all": 2}
    for account in ("@a.example", "bob@a.example", "ann@b.example"):
        site.web.command("relay", "unset", account)
    assert {r["name"]: r["used_by"] for r in boss.get("/api/relays")["records"]} == {"own": 0, "all": 0}
    for name in ("own", "all"):
        boss.ok("DELETE", f"/api/relay/{name}")


def test_saving_writes_what_iredadmin_writes(site):
    boss = site.web.api(GLOBAL)
    put = lambda name, **form: boss.ok("PUT", f"/api/domain/{name}", form=form)
    put("b.example", outboundRelay="smtp:[192.168.1.2]:25")  # the manual's sample
    assert site.stored("b.example") == ("dovecot" if site.kind != "ldap" else "", False, "smtp:[192.168.1.2]:25")
    put("b.example", outboundRelay="[192.168.1.3]:587")
    put("b.example", transport="smtp:[10.0.0.1]:25", is_backupmx="yes")
    assert site.stored("b.example") == ("smtp:[10.0.0.1]:25", True, "[192.168.1.3]:587")
    put("b.example", is_backupmx="no", transport="")
    assert site.stored("b.example") == ("dovecot", False, "[192.168.1.3]:587")
    put("b.example", outboundRelay="")
    put("b.example", outboundRelay="")  # nothing there to take away: no error
    assert site.stored("b.example") == ("dovecot", False, None)
    user = lambda **form: boss.ok("PUT", "/api/user/ann@b.example", form=form)
    user(outboundRelay="[x.example]:465", transport="lmtp:inet:127.0.0.1:24")
    assert site.stored("ann@b.example") == ("lmtp:inet:127.0.0.1:24", False, "[x.example]:465")
    user(outboundRelay="", transport="")
    assert site.stored("ann@b.example") == ("", False, None)
    boss.ok("PUT", "/api/users/a.example", form={"transport": "smtp:[10.0.0.9]"})
    assert [site.stored(u)[0] for u in ("ann@a.example", "cid@a.example", "ann@b.example")] == ["smtp:[10.0.0.9]", "smtp:[10.0.0.9]", ""]
    boss.ok("PUT", "/api/users/a.example", body={"transport": ""})
    assert site.stored("ann@a.example")[0] == ""


def test_backup_mx(site):
    boss = site.web.api(GLOBAL)
    put = lambda **form: boss.ok("PUT", "/api/domain/backup.example", form=form)
    fails = lambda **form: boss.fails(400, "PUT", "/api/domain/backup.example", form=form)
    put(is_backupmx="yes", primarymx="202.96.134.133")
    assert site.stored("backup.example")[:2] == ("relay:202.96.134.133", True)
    put(primarymx="[mail.iredmail.org]:25")
    assert site.stored("backup.example")[:2] == ("relay:[mail.iredmail.org]:25", True)
    assert fails(transport="smtp:[x.example]") == "This domain is a backup MX, can not set custom relay."
    put(outboundRelay="[192.168.1.3]:587")  # where its senders' mail goes is another matter
    shown = boss.get("/api/domain/backup.example")
    assert (shown["is_backupmx"], shown["primarymx"], shown["outboundRelay"]) == ("yes", "[mail.iredmail.org]:25", "[192.168.1.3]:587")
    assert fails(primarymx="1.2.3.4", transport="dovecot") and fails(primarymx="1.2.3.4", is_backupmx="no") and fails(primarymx="[x", is_backupmx="yes")
    put(is_backupmx="no", outboundRelay="")
    assert site.stored("backup.example") == ("dovecot", False, None)


def test_who_is_no_administrator_is_refused_as_one_with_a_wrong_password_is(site):
    def refused(who):
        said = []

        def in_turn():
            "an answer but that failed logins are counted"
            said.append(site.web.api().request("POST", "/api/login", form={"username": who, "password": "no such one"}))
            return said[-1][0] != 429
        wait_for(in_turn, 60, 0.2)
        return said[-1]
    answers = [refused(who) for who in ("nobody@admin.example", "ann@a.example", OF_DOMAIN)]
    assert len({str(a) for a in answers}) == 1 and answers[0][0] == 401, answers


def test_a_token_ends_with_the_account_that_made_it(site):
    """Another administrator of the same address, made later, is somebody else."""
    name = "again@admin.example"
    servers.add_admin(site.store, name, site.hash, "a.example")
    make = lambda: site.web.api(token=site.web.api(name).ok("POST", "/api/tokens", body={"name": "t", "scopes": "read"})["token"])
    old = make()
    assert old.get("/api/domain/a.example")
    if site.kind == "ldap":
        site.store.run(f"dn: mail={name},o=domainAdmins,{servers.SUFFIX}\nchangetype: delete\n")
        servers.add_admin(site.store, name, site.hash)
    else:
        site.store.run(f"DELETE FROM domain_admins WHERE username = '{name}'; DELETE FROM admin WHERE username = '{name}';")
        servers.add_admin(site.store, name, site.hash)
        site.store.run(f"UPDATE admin SET created = '2026-11-27 01:02:03' WHERE username = '{name}'")
    wait_for(lambda: old.request("GET", "/api/domain/a.example")[0] == 401)
    assert "earlier account" in old.fails(401, "GET", "/api/domain/a.example")
    assert make().get("/api/domain/b.example")


def test_bad_values_change_nothing(site):
    boss = site.web.api(GLOBAL)
    before = site.stored("a.example"), site.stored("ann@a.example")
    for bad in ({"outboundRelay": "[x"}, {"outboundRelay": "[x]:99999"}, {"outboundRelay": "h" * 256}, {"outboundRelay": "[a]:25\tb"}, {"outboundRelay": " "},
                {"transport": "a b"}, {"transport": "smtp:[x"}, {"transport": "sm tp:x"}, {"is_backupmx": "maybe"}, {"quota": "5"}, {"name": "x"}):
        for path in ("/api/domain/a.example", "/api/user/ann@a.example"):
            assert boss.fails(400, "PUT", path, form=bad)
    assert boss.fails(400, "PUT", "/api/domain/a.example", body={"outboundRelay": 5})
    assert boss.fails(404, "PUT", "/api/domain/none.example", form={"outboundRelay": "[x]:25"})
    assert boss.fails(404, "PUT", "/api/user/none@a.example", form={"transport": "x"})
    assert (site.stored("a.example"), site.stored("ann@a.example")) == before
    v = boss.get("/api/validate?kind=outboundRelay&value=%5Bx")
    assert v == {"valid": False, "problem": "missing ']'", "part": "[x"}
    assert boss.get("/api/validate?kind=outboundRelay&value=%5Bx%5D:587")["valid"] and boss.get("/api/validate?kind=transport&value=dovecot")["valid"]


def test_domain_administrators(site):
    local = site.web.api(OF_DOMAIN)
    assert [d["name"] for d in local.get("/api/domains")["domains"]] == ["a.example", "hidden.example"]
    assert local.get("/api/search?q=ann")["users"][0]["name"] == "ann@a.example" and len(local.get("/api/search?q=ann")["users"]) == 1
    for method, path in (("GET", "/api/domain/b.example"), ("PUT", "/api/domain/b.example"), ("GET", "/api/users/b.example"), ("PUT", "/api/users/b.example"),
                         ("GET", "/api/user/ann@b.example"), ("PUT", "/api/user/ann@b.example"), ("GET", "/api/effective?account=b.example"),
                         ("GET", "/api/queue"),
                         ("GET", "/api/queue/counts"), ("POST", "/api/queue/delete"), ("GET", "/api/message/x"), ("GET", "/api/dashboard"), ("GET", "/api/check"),
                         ("GET", "/api/log")):
        assert local.fails(403, method, path, form={"outboundRelay": "[x]:25"} if method == "PUT" else None) == "Permission denied.", path
    for owner in ("", "b.example", "hidden.example", "none.example"):
        local.fails(403, "PUT", "/api/relay/x", body={"hosts": "[x]:25", "owner": owner})
    local.fails(404, "GET", "/api/relay/x")
    local.fails(404, "DELETE", "/api/relay/x")
    assert local.get("/api/relays")["records"] == [] and local.get("/api/presets")
    local.ok("PUT", "/api/domain/a.example", form={"outboundRelay": "[mine.example]:587"})
    assert site.stored("a.example")[2] == "[mine.example]:587"
    local.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""})
    # The Relay tab is disabled for hidden.example: neither seen nor changed, but the domain is.
    shown = local.get("/api/domain/hidden.example")
    assert shown["relay_tab"] is False and "outboundRelay" not in shown and "transport" not in shown
    rows = {d["name"]: d for d in local.get("/api/domains")["domains"]}
    tab = {"relay", "transport", "is_backupmx"}
    assert tab <= set(rows["a.example"]) and not tab & set(rows["hidden.example"])
    assert not {"relay", "transport"} & set(local.get("/api/users/hidden.example")["users"][0])
    assert {"relay", "transport"} <= set(local.get("/api/users/a.example")["users"][0])
    found = local.get("/api/search?q=x")
    hidden = [row for row in found["users"] + found["domains"] if "hidden" in row["name"]]
    assert len(hidden) == 2 and not any({"relay", "transport"} & set(row) for row in hidden)
    assert local.get("/api/user/x@hidden.example")["relay_tab"] is False
    for path in ("/api/domain/hidden.example", "/api/user/x@hidden.example"):
        assert local.fails(403, "PUT", path, form={"outboundRelay": "[x]:25"}) == "Permission denied."
    assert local.fails(403, "GET", "/api/effective?account=x@hidden.example")
    assert site.web.api(GLOBAL).get("/api/domain/hidden.example")["relay_tab"] is True


def test_a_record_whose_domain_is_gone_is_marked(site):
    boss = site.web.api(GLOBAL)
    owners = {"r1": "gone.example", "r2": "a.example", "r3": "gone.example", "r4": "b.example", "r5": ""}
    for name, owner in owners.items():
        boss.ok("PUT", f"/api/relay/{name}", body={"hosts": f"[{name}.example]:25", "owner": owner})
    assert [r["name"] for r in boss.get("/api/relays")["records"] if r.get("orphan")] == ["r1", "r3"]
    said = site.web.run("check").stdout
    assert [name for name in owners if f'record "{name}" belongs to the domain gone.example' in said] == ["r1", "r3"], said
    assert said.count("belongs to the domain") == 2, said
    for name in owners:
        boss.ok("DELETE", f"/api/relay/{name}")


def test_a_record_names_accounts_that_are_gone(site):
    """Of those on its list, for global administrators: users and domains that the store has in no spelling."""
    boss = site.web.api(GLOBAL)
    boss.ok("PUT", "/api/relay/r1", body={"hosts": "[r1.example]:25", "owner": "",
                                          "for": "main.cf, <>, CID@a.example, nobody@a.example, x@gone.example, @A.example, @gone.example"})
    assert boss.get("/api/relay/r1")["unknown"] == ["nobody@a.example", "x@gone.example", "@gone.example"]
    boss.ok("PUT", "/api/relay/r1", body={"for": "everybody"})
    assert boss.get("/api/relay/r1")["unknown"] == []
    boss.ok("DELETE", "/api/relay/r1")


def test_effective_for_the_next_message(site):
    """A relay that was saved is the one that the very next message takes: no second's delay."""
    boss = site.web.api(GLOBAL)
    turn = 0
    for name in ("one", "two", "everybody") * 4:
        boss.ok("PUT", "/api/user/cid@a.example", form={"outboundRelay": "" if name == "everybody" else site.value(name)})
        turn += 1
        assert site.web.send(sender="cid@a.example", content=f"Subject: turn-{site.kind}-{turn}\r\n\r\nx\r\n").startswith("250")
        site.relays[name].wait_mail(f"turn-{site.kind}-{turn}\r".encode())
    assert all(m["content"].count(b"turn-") == 1 for r in site.relays.values() for m in r.mails)


def test_what_another_spelling_administers_is_not_listed(site):
    """Rows of administrators, and of domains, that a database takes for equal."""
    if site.kind == "ldap":
        return
    rows = (OF_DOMAIN.replace("o", "\u00f3", 1), "b.example"), (OF_DOMAIN + " ", "paged.example"), (OF_DOMAIN, "b\u00e1ckup.example")
    for user, domain in rows:
        site.store.run(f"INSERT INTO domain_admins (username, domain) VALUES ('{user}', '{domain}')")
    local = site.web.api(OF_DOMAIN)
    assert [d["name"] for d in local.get("/api/domains")["domains"]] == ["a.example", "hidden.example"]
    for what in "ann@b", "y@", "z@", "backup":
        assert local.get(f"/api/search?q={what}") == {"domains": [], "users": [], "more": False}, what
    site.store.run("DELETE FROM domain_admins WHERE domain IN ('b.example', 'paged.example', 'b\u00e1ckup.example')")


def test_another_spelling_is_another_name(site):
    """Whatever is equal to a database or a directory: blanks, accents."""
    for i, name in enumerate([GLOBAL + " ", GLOBAL + "  ", " " + GLOBAL, GLOBAL.replace("s@", "\u015b@")]):
        status, answer = site.web.api().request("POST", "/api/login", body={"username": name, "password": SECRET},
                                                headers={"X-Forwarded-For": f"192.0.2.{i}"})
        assert status in (401, 503) and not answer["_success"], (name, answer)  # 503: a directory knows no such letter
    for user in ("kim@xn--mller-kva.example", "eve@muller.example"):
        servers.add_user(site.store, user, site.hash)
        servers.add_admin(site.store, user.split("@")[0] + "@admin.example", site.hash, user.split("@")[1])
    kim, eve = site.web.api("kim@admin.example"), site.web.api("eve@admin.example")
    kim.ok("PUT", "/api/relay/of-kim", body={"hosts": site.value("two"), "for": "@xn--mller-kva.example", "owner": "xn--mller-kva.example",
                                             "user": "kim", "password": "sesame-77"})
    assert [r["name"] for r in kim.get("/api/relays")["records"]] == ["of-kim"]
    assert eve.get("/api/relays")["records"] == []
    for method, path in (("GET", "/api/relay/of-kim"), ("PUT", "/api/relay/of-kim"), ("DELETE", "/api/relay/of-kim"),
                         ("GET", "/api/domain/m\u00fcller.example"), ("GET", "/api/users/m\u00fcller.example"), ("GET", "/api/user/eve@m\u00fcller.example")):
        assert eve.request(method, path, body={"user": "eve", "password": "x"} if method == "PUT" else None)[0] in (400, 403, 404, 503), (method, path)
    kim.ok("DELETE", "/api/relay/of-kim")
    site.web.command("relay", "set", "@muller.example", "[s.example]:1")
    site.web.run("relay", "set", "@m\u00fcller.example", "[s.example]:2")
    site.web.run("relay", "unset", "@m\u00fcller.example")
    assert site.stored("muller.example")[2] == "[s.example]:1"
