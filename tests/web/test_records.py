"""Relay records of the page: what uses one, whose it is, and who may change it."""
import contextlib
import http.client
import json
import sqlite3
import threading
import time
import urllib.request

import pytest
from kit import SLOW, FakeRelay, at_once, wait_for
from webkit import GLOBAL, OF_DOMAIN, OPENAPI, SECRET, run, site, tls


# -- records that are in use --

HOP = "[mail.provider.example]:2525"
USERS = {
    "relayhost": (f"relayhost = {HOP.upper()}\n", {}),
    "by name": ("relayhost = provider\n", {}),
    "transport": (f"transport_maps = texthash:{{dir}}/t\n", {"t": f"far.example smtp:{HOP}\n"}),
    "sender": (f"sender_dependent_relayhost_maps = texthash:{{dir}}/t\n", {"t": f"@x.example {HOP}\n"}),
    "sender transport": ("sender_dependent_default_transport_maps = inline:{{ {{ @x.example = relay:" + HOP + " }} }}\n", {}),
    "default_transport": (f"default_transport = smtp:{HOP}\n", {}),
}


@pytest.mark.parametrize("by", USERS)
def test_a_record_in_use_stays(dns, by):
    """Whose mail would go on without its account?  main.cf and its tables count as accounts do; the page and the command say who."""
    main, files = USERS[by]
    with site(dns, main, files={name: text for name, text in files.items()}) as w:
        for name in files:
            (w.dir / name).chmod(0o600)  # what only root may read is looked at too
        boss = w.api(GLOBAL)
        for name, hop in (("provider", HOP), ("spare", "[spare.example]:25")):
            boss.ok("PUT", f"/api/relay/{name}", body={"hosts": "[127.0.0.1]:9", "nexthop": hop, "tls": "may"})
        where = {"by name": "relayhost", "transport": "transport_maps", "sender": "sender_dependent_relayhost_maps",
                 "sender transport": "sender_dependent_default_transport_maps"}.get(by, by)
        said = boss.fails(409, "DELETE", "/api/relay/provider")
        assert "in use" in said and where in said, said
        r = w.run("record", "delete", "provider")
        assert r.returncode == 1 and "in use" in r.stderr and where in r.stderr, r.stderr
        boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": "spare"})
        r = w.run("record", "delete", "spare")
        assert r.returncode == 1 and "@a.example" in r.stderr, r.stderr
        boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""})
        assert w.run("record", "delete", "spare").returncode == 0
        assert [rec["name"] for rec in boss.get("/api/relays")["records"]] == ["provider"]
        w.write_main("relayhost = [elsewhere.example]\n" + f"\nweb_listen = 127.0.0.1:{w.web_port}\nweb_owner = www-data\n")
        w.reload()
        boss.ok("DELETE", "/api/relay/provider")


def test_a_record_whose_domain_is_gone_is_named(dns):
    """The next domain of that name would have it: check and the page of those who administer the server say so."""
    with site(dns) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        for owner in ("a.example", "gone.example"):
            boss.ok("PUT", f"/api/relay/of-{owner}", body={"hosts": "[127.0.0.1]:9", "owner": owner, "user": "u", "password": "p"})
        said = w.run("check").stdout
        assert 'record "of-gone.example" belongs to the domain gone.example' in said and "posthouse record delete" in said, said
        assert "of-a.example" not in said
        assert {r["name"] for r in boss.get("/api/relays")["records"] if r.get("orphan")} == {"of-gone.example"}
        assert [r.get("orphan") for r in local.get("/api/relays")["records"]] == [None]
        assert "of-gone.example" in str(boss.get("/api/check"))
        assert w.run("record", "delete", "of-gone.example").returncode == 0
        assert "belongs to the domain" not in w.run("check").stdout


# -- what administrators of one domain see of others --

# With the local service, that alias_maps needs.
WITH_LOCAL = "local unix - n n - - local\n"


def test_an_account_is_not_shown_to_other_tenants(dns):
    """Who may name a shared record sees that mail goes with an account, and not whose."""
    login = "login-of-tenant-b@provider.example"
    relay = FakeRelay(auth=["PLAIN"], need_auth=True, users={}, tls=tls(), replies={"AUTH": f"535 5.7.8 {login} may not log in here"})
    hop = f"[127.0.0.1]:{relay.port}"
    with site(dns) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        boss.ok("PUT", "/api/relay/shared", body={"hosts": hop, "tls": "encrypt", "user": login, "password": "pw", "for": "@a.example"})
        local.ok("PUT", "/api/domain/a.example", form={"outboundRelay": hop})
        for kind in ("explain", "test"):
            mine, all_of_it = (run(who, kind=kind, sender="ann@a.example", recipient="b@c.example") for who in (local, boss))
            assert login in json.dumps(all_of_it) and login not in json.dumps(mine), json.dumps(mine)
            assert [s["step"] for s in mine["steps"]] == [s["step"] for s in all_of_it["steps"]]
            r = urllib.request.Request(w.url + f"api/run/{mine['id']}", headers={"Accept": "text/event-stream", "Cookie": local.cookie})
            with urllib.request.urlopen(r, timeout=20 * SLOW) as s:
                assert login not in s.read().decode()
        assert "535 5.7.8" in json.dumps(mine)
        assert login in json.dumps(boss.get("/api/effective?account=a.example"))
        told = local.get("/api/effective?account=a.example")
        assert login not in json.dumps(told) and told["credentials"], told
    relay.stop()


def test_no_account_of_a_second_road_is_shown_to_other_tenants(dns):
    """Each host that is asked has a login of its own, and so has each address that an alias stands for: no tenant sees any of them."""
    logins = "clerk", "bookkeeper"
    first, second = (FakeRelay(auth=["PLAIN"], users={login: "pw"}, tls=tls(), replies={"RCPT": f"450 4.2.0 {login} waits"})
                     for login in logins)
    hops = [f"[127.0.0.1]:{first.port}", f"[localhost]:{second.port}"]
    files = {"aliases": "team one@first.example, two@second.example\nowner-team chief@b.example\n",
             "hops": f"first.example smtp:{hops[0]}\nsecond.example smtp:{hops[1]}\nboth.example smtp:{', '.join(hops)}\n",
             "passwords": f"127.0.0.1 {logins[0]}:pw\nlocalhost {logins[1]}:pw\n"}
    main = ("mydestination = here.example\nalias_maps = texthash:{dir}/aliases\ntransport_maps = texthash:{dir}/hops\n"
            "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{dir}/passwords\nsmtp_tls_security_level = encrypt\n")
    with site(dns, main, files=files, master=WITH_LOCAL) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        for rcpt in "x@both.example", "team@here.example":
            for kind in "explain", "test":
                mine, all_of_it = (run(who, kind=kind, sender="ann@a.example", recipient=rcpt) for who in (local, boss))
                r = urllib.request.Request(w.url + f"api/run/{mine['id']}", headers={"Accept": "text/event-stream", "Cookie": local.cookie})
                with urllib.request.urlopen(r, timeout=20 * SLOW) as s:
                    told = json.dumps(mine) + s.read().decode()
                assert all(login in json.dumps(all_of_it) for login in logins), json.dumps(all_of_it)
                assert not [login for login in logins if login in told], told
                assert mine["passed"] == all_of_it["passed"] and "alias" in told or "both" in rcpt, told
                for text in "one@first.example", "two@second.example", "owner-team":
                    assert text not in told and (text in json.dumps(all_of_it) or "both" in rcpt), told
        assert "no alias" in json.dumps(run(local, kind="explain", sender="ann@a.example", recipient="nobody@here.example"))
    first.stop()
    second.stop()


@pytest.mark.parametrize("kind", ["explain", "test"])
def test_what_a_virtual_alias_stands_for_is_not_shown_to_other_tenants(dns, kind):
    """Nor what its addresses stand for in their turn; a name that is none, or stands for itself, hides nothing."""
    relay = FakeRelay()
    rows = ("team@b.example: chief@b.example, one@first.example", "chief@b.example: chief@b.example, private@second.example",
            "moved@b.example: @private.example", "ann@b.example: ann@b.example")
    hidden = "chief", "one@", "private", "first.example", "second.example"
    main = f"relayhost = [127.0.0.1]:{relay.port}\nvirtual_alias_maps = texthash:{{dir}}/virtual\n"
    with site(dns, main, files={"virtual": "".join(r.replace(":", "", 1) + "\n" for r in rows)}) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        for rcpt in "team", "moved", "ann", "nobody":
            mine, all_of_it = (run(who, kind=kind, sender="ann@a.example", recipient=f"{rcpt}@b.example") for who in (local, boss))
            r = urllib.request.Request(w.url + f"api/run/{mine['id']}", headers={"Accept": "text/event-stream", "Cookie": local.cookie})
            with urllib.request.urlopen(r, timeout=20 * SLOW) as s:
                told = json.dumps(mine) + s.read().decode()
            assert not [text for text in hidden if text in told], told
            assert mine["passed"] == all_of_it["passed"], told
            if rcpt in ("ann", "nobody"):
                assert [s["step"] for s in mine["steps"]] == [s["step"] for s in all_of_it["steps"]], told
            else:
                assert mine["steps"][-1]["step"] == "alias" and "private" in json.dumps(all_of_it), told
    relay.stop()


def test_no_alias_makes_an_explanation_long(dns):
    """A tenant's aliases may lead to each other as often as they like: what is told, and kept, is bounded."""
    n = 300
    names = [f"list{i}@a.example" for i in range(n)]
    rows = [f"all@a.example {', '.join(names)}"] + [f"{a} {b}" for a, b in zip(names, names[1:] + ["end@c.example"])]
    with site(dns, "virtual_alias_maps = texthash:{dir}/virtual\n", files={"virtual": "\n".join(rows) + "\n"}) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        told = [json.dumps(run(who, kind="explain", sender="ann@a.example", recipient="all@a.example")) for who in (boss, local)]
        assert len(told[0]) < 1_500_000 and "the rest is left out" in told[0], (len(told[0]), told[0][-500:])
        assert "list1@" not in told[1]
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            assert c.execute("SELECT MAX(LENGTH(steps)) FROM run").fetchone()[0] < 400_000


def test_no_tenant_sends_by_anothers_account(dns):
    """Whatever name in whatever case the administrator of a domain enters, for the domain or for a user, on the page or past it."""
    relay = FakeRelay(auth=["PLAIN"], users={"clerk": "pw", "ann": "own"}, tls=tls())
    hop = f"[127.0.0.1]:{relay.port}"
    upper = f"[LOCALHOST]:{relay.port}"
    with site(dns) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        for name, hosts, who in (("Shared", hop, "@b.example"), ("ours", f"[localhost]:{relay.port}", "")):
            boss.ok("PUT", f"/api/relay/{name}", body={"hosts": hosts, "tls": "encrypt", "user": "clerk", "password": "pw", "for": who})
        for value in ("Shared", "shared", "SHARED", "ours", "OURS", hop, upper, f"smtp:{hop}"):
            for path in ("/api/domain/a.example", "/api/user/ann@a.example"):
                assert "has an account, which is not for" in local.fails(403, "PUT", path, form={"outboundRelay": value}), value
        for body in ({"transport": "relay:shared"}, {"is_backupmx": "yes", "primarymx": "SHARED"}, {"transport": f"smtp:{hop}"}):
            local.fails(403, "PUT", "/api/domain/a.example", form=body)
        local.fails(403, "PUT", "/api/users/a.example", form={"transport": "smtp:ours"})
        local.ok("PUT", "/api/domain/a.example", form={"outboundRelay": "[free.example]:587"})
        # Past the page, as other programs write.
        sent = 0
        for value in ("shared", "SHARED", "OURS", upper, hop, f"smtp:{hop}"):
            for account, sender in (("@a.example", "any@a.example"), ("ann@a.example", "ann@a.example")):
                with sqlite3.connect(w.dir / "data" / "accounts.db", 10) as db:
                    db.execute("DELETE FROM sender_relayhost")
                    db.execute("INSERT INTO sender_relayhost (account, relayhost) VALUES (?, ?)", (account, value))
                w.reload()
                told = local.get(f"/api/effective?account={account.lstrip('@')}")
                assert "clerk" not in json.dumps(told) and "(account)" not in json.dumps(told), told
                answer = w.send(sender=sender, rcpts=["friend@far.example"])
                assert answer.startswith("250"), (value, answer)
                sent += value.endswith(hop)
                relay.wait_mails(sent)
                if not value.endswith(hop):
                    w.wait_log(rf"{answer.split()[-1]}: .*status=deferred .*is not for mail from <{sender}>")
        assert sent == 4
        assert [s.auth for s in relay.sessions if s.auth] == []
        # Who administers everything puts an account on the list by giving it the record.
        boss.ok("PUT", "/api/user/ann@a.example", form={"outboundRelay": "SHARED"})
        assert boss.get("/api/relay/Shared")["for"] == "@b.example,ann@a.example"
        assert "is not for mail from everybody" in boss.fails(403, "PUT", "/api/domain/a.example", form={"transport": "relay:shared"})
        w.send(sender="ann@a.example", rcpts=["other@far.example"])
        wait_for(lambda: any("other@far.example" in str(m) for m in relay.mails))
        assert [m["auth"][1] for m in relay.mails if m["auth"]] == ["clerk"]
        local.ok("PUT", "/api/user/ann@a.example", form={"outboundRelay": "shared"})
        with sqlite3.connect(w.dir / "data" / "accounts.db", 10) as db:
            db.execute("DELETE FROM sender_relayhost")
        boss.ok("PUT", "/api/relay/ours", body={"user": "b", "hosts": "[127.0.0.9]:9", "password": "x"})
        boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": "ours"})
        assert boss.get("/api/effective?account=a.example")["credentials"].startswith("account b,")
        assert "account b," not in json.dumps(local.get("/api/effective?account=a.example"))
        r = w.run("relay", "set", "cy@c.example", "Shared")
        assert r.returncode == 0 and 'the relay record "Shared" is for cy@c.example too' in r.stdout
    relay.stop()


def test_a_change_that_fails_half_way_changes_nothing(dns):
    """Of two values the store takes the first one only: that one is put back, and the record is for no account that did not get it."""
    with site(dns) as w:
        boss = w.api(GLOBAL)
        record = {"hosts": "[127.0.0.1]:9", "tls": "encrypt", "user": "clerk", "password": "pw", "for": "@b.example"}
        boss.ok("PUT", "/api/relay/leased", body=record)
        def all_of_it():
            return boss.get("/api/domain/a.example"), boss.get("/api/user/ann@a.example"), boss.get("/api/relay/leased")["for"]
        before = all_of_it()
        with sqlite3.connect(w.dir / "data" / "accounts.db", 10) as db:
            db.execute("CREATE TRIGGER stop BEFORE INSERT ON sender_relayhost BEGIN SELECT RAISE(ABORT, 'not now'); END")
        half = {"outboundRelay": "leased", "transport": "smtp:[new.example]:25"}
        backup = {"outboundRelay": "leased", "is_backupmx": "yes", "primarymx": "[new.example]"}
        boss.fails(503, "PUT", "/api/domain/a.example", form=backup)
        for path in ("/api/domain/a.example", "/api/user/ann@a.example"):
            boss.fails(503, "PUT", path, form=half)
        assert all_of_it() == before
        with sqlite3.connect(w.dir / "data" / "accounts.db", 10) as db:
            db.execute("DROP TRIGGER stop")
        boss.ok("PUT", "/api/domain/a.example", form=half)
        assert boss.get("/api/relay/leased")["for"] == "@b.example,@a.example"


def test_a_page_that_is_killed_half_way_changes_nothing(dns):
    """Killed between two values that were saved together, it has saved neither."""
    with site(dns) as w:
        before = w.api(GLOBAL).get("/api/domain/a.example")
        db = sqlite3.connect(w.dir / "data" / "accounts.db", 0, isolation_level=None)
        db.execute("CREATE TABLE n (x)")
        db.executemany("INSERT INTO n VALUES (?)", [(i,) for i in range(2000)])
        db.execute("CREATE TRIGGER slow BEFORE INSERT ON sender_relayhost BEGIN "
                   "SELECT count(*) FROM n a, n b, n c WHERE a.x + b.x + c.x < 0; END")
        boss = w.api(GLOBAL)

        def save():
            with contextlib.suppress(OSError, http.client.HTTPException):
                boss.request("PUT", "/api/domain/a.example", form={"outboundRelay": "[new.example]", "transport": "smtp:[new.example]"})

        def is_held():
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
                return False
            except sqlite3.OperationalError:
                return True

        saving = threading.Thread(target=save)
        saving.start()
        wait_for(lambda: all(time.sleep(0.05) or is_held() for _ in range(10)))
        w.web.kill()
        w.web.wait()
        saving.join()
        db.execute("DROP TRIGGER slow")
        db.close()
        w.start_web()
        assert w.api(GLOBAL).get("/api/domain/a.example") == before


def test_a_domain_has_records_of_its_own(dns):
    """Its administrators see, change, use and delete them; of all others they learn and reach nothing, nor do others of theirs."""
    relay = FakeRelay(auth=["PLAIN"], users={"own": "pw", "clerk": "pw"}, tls=tls())
    hop, other = f"[127.0.0.1]:{relay.port}", "other@admin.example"
    mine = {"hosts": hop, "tls": "encrypt", "user": "own", "password": "pw", "owner": "A.example"}
    with site(dns, f"relayhost = [localhost]:{relay.port}\n") as w:
        w.command("admin", "add", other, "b.example", input=SECRET + "\n")
        boss, ours, theirs = w.api(GLOBAL), w.api(OF_DOMAIN), w.api(other)
        boss.ok("PUT", "/api/relay/server", body={"hosts": hop, "tls": "encrypt", "user": "clerk", "password": "pw", "for": "@b.example"})
        assert ours.get("/api/relays") == {"records": [], "others": [], "everybody": ""}
        for body, code in (({**mine, "owner": "b.example"}, 403), ({**mine, "owner": ""}, 403), ({**mine, "for": "everybody"}, 400),
                           ({**mine, "for": "@a.example, ann@b.example"}, 400), ({**mine, "for": "<>"}, 400)):
            ours.fails(code, "PUT", "/api/relay/mail?new=yes", body=body)
        ours.ok("PUT", "/api/relay/mail?new=yes", body=mine)
        record = ours.get("/api/relay/mail")
        assert (record["owner"], record["for"], record["user"], record["password_set"]) == ("a.example", "@a.example", "own", True)
        assert [r["name"] for r in ours.get("/api/relays")["records"]] == ["mail"]
        # Neither has the other's, nor what is the server's, by whatever call; nothing has changed by the attempts.
        before = boss.get("/api/relay/mail"), boss.get("/api/relay/server")
        for api, names in ((theirs, ("mail", "MAIL", "server")), (ours, ("server",))):
            for name in names:
                api.fails(404, "GET", f"/api/relay/{name}")
                api.fails(404, "DELETE", f"/api/relay/{name}")
                own = "b.example" if api is theirs else "a.example"
                for query in ("", "?new=yes"):
                    said = api.fails(400, "PUT", f"/api/relay/{name}{query}", body={**mine, "owner": own, "for": f"@{own}"})
                    assert said == "another record has that name", said
                api.fails(403, "PUT", f"/api/relay/{name}", body={"hosts": "[evil.example]", "password": "x"})
        assert "clerk" not in str(theirs.get("/api/relays")) + str(ours.get("/api/relays")) and theirs.get("/api/relays")["records"] == []
        ours.fails(403, "PUT", "/api/relay/mail", body={"owner": ""})
        ours.fails(400, "PUT", "/api/relay/mail", body={"for": "everybody"})
        said = ours.fails(400, "PUT", "/api/relay/mail", body={"hosts": "[thief.example]"})
        assert "password is needed again" in said
        said = boss.fails(400, "PUT", "/api/relay/mail", body={"hosts": "[127.0.0.1]:9", "user": "clerk", "password": "pw"})
        assert "a record of the domain a.example" in said, said
        assert (boss.get("/api/relay/mail"), boss.get("/api/relay/server")) == before
        # It is for the domain's mail alone, whatever stands in the store or main.cf; for others its name is no record.
        ours.ok("PUT", "/api/domain/a.example", form={"outboundRelay": "mail"})
        assert w.send(sender="any@a.example", rcpts=["friend@far.example"]).startswith("250")
        relay.wait_mails(1)
        assert relay.mails[0]["auth"][1] == "own"
        theirs.ok("PUT", "/api/user/ann@b.example", form={"outboundRelay": "mail"})
        assert theirs.get("/api/effective?account=ann@b.example")["next_hop"] == "mail"
        with sqlite3.connect(w.dir / "data" / "relays.db", 10) as db:
            db.execute("UPDATE relay SET account = account || ',@b.example,ann@b.example' WHERE name = 'mail'")
        w.reload()
        assert theirs.get("/api/effective?account=ann@b.example")["next_hop"] == "mail"
        assert "own" not in str(theirs.get("/api/effective?account=ann@b.example"))
        # A token for one domain, changes that are late, and the end.
        ours.fails(409, "PUT", "/api/relay/mail", body={"tls": "verify", "version": record["version"]})
        assert "It is in use, by @a.example" in ours.fails(409, "DELETE", "/api/relay/mail")
        ours.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""})
        ours.ok("DELETE", "/api/relay/mail")
        assert boss.fails(404, "GET", "/api/relay/mail")
        assert "own" == [m["auth"][1] for m in relay.mails if m["auth"]][0]
    relay.stop()


def test_a_name_that_was_anothers_says_nothing_of_it(dns):
    """What became of a domain's mail is not shown with the next record of that name, which another domain has made."""
    refusal = "450 4.2.1 <boss@rival.example> has no room"
    with FakeRelay(replies={"RCPT": refusal}) as relay, site(dns, "relayhost = [127.0.0.1]:9\n") as w:
        w.command("admin", "add", "late@admin.example", "b.example", input=SECRET + "\n")
        early, late = w.api(OF_DOMAIN), w.api("late@admin.example")
        hop = f"[127.0.0.1]:{relay.port}"
        early.ok("PUT", "/api/relay/shared-name", body={"hosts": hop, "for": "@a.example", "owner": "a.example", "tls": "none"})
        early.ok("PUT", "/api/domain/a.example", body={"outboundRelay": hop})
        w.send(sender="ann@a.example", rcpts=["boss@rival.example"])
        health = lambda api: api.get("/api/relay/shared-name")["health"]
        wait_for(lambda: health(early).get("reply") == refusal)
        early.ok("PUT", "/api/domain/a.example", body={"outboundRelay": ""})
        early.ok("DELETE", "/api/relay/shared-name")
        failed = wait_for(lambda: [r for r in w.api(GLOBAL).get("/api/dashboard")["relays"] if r["nexthop"] == hop])[0]["last_failure"]
        wait_for(lambda: time.time() >= failed + 1)
        late.ok("PUT", "/api/relay/shared-name", body={"hosts": hop, "for": "@b.example", "owner": "b.example", "tls": "none"})
        assert health(late) == {} and late.get("/api/relays")["records"][0]["health"] == {}


def test_a_domains_record_takes_no_mail_from_a_transport(dns):
    """Its administrators choose its relay host; where transport_maps sends mail is the server's, and so is its record."""
    thief, bank = FakeRelay(auth=["PLAIN"], users={"own": "pw"}, tls=tls()), FakeRelay(auth=["PLAIN"], users={"clerk": "pw"}, tls=tls())
    hop = f"[127.0.0.1]:{bank.port}"
    with site(dns, f"relayhost = {hop}\ntransport_maps = inline:{{{{bank.example=smtp:{hop}}}}}\n") as w:
        ours = w.api(OF_DOMAIN)
        w.api(GLOBAL).ok("PUT", "/api/relay/server", body={"hosts": hop, "tls": "encrypt", "user": "clerk", "password": "pw"})
        ours.ok("PUT", "/api/relay/mail?new=yes", body={"hosts": f"[127.0.0.1]:{thief.port}", "nexthop": hop, "tls": "encrypt",
                                                        "user": "own", "password": "pw", "owner": "a.example"})
        assert w.send(sender="any@a.example", rcpts=["x@bank.example"]).startswith("250")
        assert w.send(sender="any@a.example", rcpts=["x@far.example"]).startswith("250")
        for host, rcpt, user in ((bank, "bank", "clerk"), (thief, "far", "own")):
            host.wait_mails(1)
            assert [(m["rcpts"][0].split()[1], m["auth"][1]) for m in host.mails] == [(f"TO:<x@{rcpt}.example>", user)]
    thief.stop()
    bank.stop()


def test_a_change_made_for_an_older_state_is_refused(dns):
    """Two tabs: what the older one saves does not undo what the newer one saved, in records, domains and users."""
    with site(dns) as w:
        one, two = w.api(GLOBAL), w.api(GLOBAL)
        one.ok("PUT", "/api/relay/r", body={"hosts": "[h.example]:587", "tls": "may", "user": "u", "password": "first"})
        places = {"/api/relay/r": [{"tls": "secure"}, {"mechanisms": "LOGIN"}, {"password": "second"}, {"for": "@a.example"}],
                  "/api/domain/a.example": [{"outboundRelay": "[x.example]"}, {"transport": "smtp:[y.example]"}, {"is_backupmx": "yes"}],
                  "/api/user/ann@a.example": [{"outboundRelay": "[x.example]:587"}, {"transport": "smtp:[y.example]"}]}
        for path, changes in places.items():
            for change in changes:
                read = one.get(path)["version"]
                two.ok("PUT", path, body={**change, "version": read})
                state = two.get(path)
                assert state["version"] != read
                for late in changes:
                    assert "Somebody else has changed it" in one.fails(409, "PUT", path, body={**late, "version": read}), (path, late)
                assert one.get(path) == state
                one.ok("PUT", path, body={**change, "version": state["version"]})  # nothing has come between
            one.ok("PUT", path, body=changes[0])  # a program that does not say what it has read
            assert one.fails(400, "PUT", path, body={"version": 7})


def test_of_two_who_make_the_same_record_one_is_told(dns):
    with site(dns) as w:
        two = w.api(GLOBAL), w.api(GLOBAL)
        for i in range(15):
            codes, gate = [], threading.Barrier(2)
            def make(api, user):
                gate.wait(60)
                body = {"hosts": f"[127.0.0.1]:{1000 + i}", "tls": "may", "user": user, "password": "p"}
                codes.append((api.request("PUT", f"/api/relay/r{i}?new=yes", body=body)[0], user))
            at_once(make, *zip(two, ("one", "other")))
            assert sorted(code for code, _ in codes) == [200, 409], codes
            assert (200, two[0].get(f"/api/relay/r{i}")["user"]) in codes


def test_what_a_record_is_used_for_follows_its_hosts(dns):
    """A host that is corrected takes its relayhost value with it, unless that was set on its own or is in use."""
    def nexthop(api, name):
        return api.get(f"/api/relay/{name}")["nexthop"]
    with site(dns, "relayhost = [used.example]:587\n") as w:
        boss, words = w.api(GLOBAL), {"tls": "encrypt", "user": "u", "password": "pw"}
        for name, host, fresh in (("typo", "[relay.exampel]:465", "[Relay.example]:465"), ("cli", "[a.example]", "[b.example]")):
            for put in (lambda h: boss.ok("PUT", f"/api/relay/{name}", body={"hosts": h, "nexthop": "", **words}),
                        lambda h: boss.ok("PUT", f"/api/relay/{name}", body={"hosts": h, **words}),
                        lambda h: w.command("record", "set", name, f"hosts={h}", "user=u", "password", input="pw\n")):
                put(host)
                assert nexthop(boss, name) == host
                put(fresh)
                assert nexthop(boss, name) == fresh.lower()
        boss.ok("PUT", "/api/relay/typo", body={"nexthop": "[own.example]"})
        boss.ok("PUT", "/api/relay/typo", body={"hosts": "[c.example]", **words})
        assert nexthop(boss, "typo") == "[own.example]"
        boss.ok("PUT", "/api/relay/typo", body={"nexthop": ""})
        assert nexthop(boss, "typo") == "[c.example]"
        # In use by that value: who names it would be without the account.
        boss.ok("PUT", "/api/relay/main", body={"hosts": "[used.example]:587", **words})
        said = boss.fails(409, "PUT", "/api/relay/main", body={"hosts": "[other.example]:587", **words})
        assert said.startswith("relayhost names it by") and "[other.example]:587" in said
        r = w.run("record", "set", "main", "hosts=[other.example]:587", "user=u", "password", stdin="pw\n")
        assert r.returncode == 1 and "relayhost names it by" in r.stderr, r.stderr
        boss.ok("PUT", "/api/relay/main", body={"hosts": "[other.example]:587", "nexthop": "[used.example]:587", **words})
        boss.ok("PUT", "/api/user/ann@a.example", form={"outboundRelay": "[c.example]"})
        assert boss.fails(409, "PUT", "/api/relay/typo", body={"nexthop": "[d.example]"}).startswith("ann@a.example names it")
        boss.ok("PUT", "/api/relay/typo", body={"tls": "secure"})


@contextlib.contextmanager
def hidden_tab(web, domain, setting):
    """The Relay tab of a domain, or of its users, is disabled for its administrators."""
    def put(value):
        with sqlite3.connect(web.dir / "data" / "accounts.db", 10) as db:
            db.execute("UPDATE domain SET settings = ? WHERE domain = ?", (value, domain))
    put(f"{setting}:relay;")
    try:
        yield
    finally:
        put("")


def test_every_path_with_an_account_is_of_its_administrators(web):
    """Checked where the path is, for each method: a handler cannot forget it."""
    local, paths = web.api(OF_DOMAIN), [p for p in OPENAPI["paths"] if "{domain}" in p or "{mail}" in p]
    assert len(paths) >= 3
    for path in paths:
        for method in (m.upper() for m in OPENAPI["paths"][path] if m != "parameters"):
            body = {} if method == "PUT" else None
            real = lambda domain: path.replace("{domain}", domain).replace("{mail}", f"ann@{domain}")
            for other in ("b.example", "B.Example", "nowhere.example"):
                assert local.fails(403, method, real(other), body=body) == "Permission denied.", path
            assert local.request(method, real("a.example"), body=body)[0] in (200, 400), path
            if method != "GET":  # and what changes relaying needs the Relay tab, of the domain or of its users
                kind = "domain" if path.startswith("/api/domain/") else "user"
                with hidden_tab(web, "a.example", f"disabled_{kind}_profiles"):
                    assert local.fails(403, method, real("a.example"), body={}) == "Permission denied.", path
                    assert web.api(GLOBAL).request(method, real("a.example"), body={})[0] in (200, 400), path
            for bad in ("no domain", "a..b", "x@"):
                assert local.fails(400, method, path.replace("{domain}", bad).replace("{mail}", bad), body=body), (path, bad)
