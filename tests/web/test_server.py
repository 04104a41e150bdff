"""posthouse-web: sessions and what protects them, tokens, relays, tests, queue, metrics, OpenAPI, nginx."""
import contextlib
import errno
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.request

import jsonschema
import pytest
from kit import BUILD, ROOT, SLOW, FakeRelay, Listener, at_once, free_port, make_cert, wait_for
from webkit import GLOBAL, OF_DOMAIN, OPENAPI, SECRET, Web, hanging, log_in, run, site, tls

import shim

BROWSER = {"Sec-Fetch-Site": "same-origin"}


# -- sessions --

def test_cookie_and_headers(web):
    api = web.api(GLOBAL)
    cookie = api.last.getheader("Set-Cookie")
    assert "; HttpOnly" in cookie and "; SameSite=Strict" in cookie and "Secure" not in cookie and "Path" not in cookie
    api.request("POST", "/api/login", form={"username": GLOBAL, "password": SECRET}, headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"})
    assert "; Secure" in api.last.getheader("Set-Cookie")
    for path in ("/", "/api/session", "/nothing"):
        api.request("GET", path)
        policy = api.last.getheader("Content-Security-Policy")
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert api.last.getheader("X-Content-Type-Options") == "nosniff" and api.last.getheader("Referrer-Policy") == "no-referrer"
    assert api.request("GET", "/api/session") and api.last.getheader("Cache-Control") == "no-store"


def test_csrf(web):
    page = web.api()
    page.headers = dict(BROWSER)
    word = page.ok("POST", "/api/login", body={"username": GLOBAL, "password": SECRET})["csrf"]
    put = lambda **headers: page.request("PUT", "/api/domain/b.example", body={"outboundRelay": "[x.example]:25"}, headers=headers)
    assert put()[0] == 403 and "Security token did not match" in put()[1]["_msg"]
    assert put(**{"X-CSRF-Token": "x" + word[1:]})[0] == 403
    assert put(**{"X-CSRF-Token": word})[0] == 200
    assert put(**{"X-CSRF-Token": word, "Sec-Fetch-Site": "cross-site"})[0] == 403
    assert put(**{"X-CSRF-Token": word, "Origin": "http://evil.example"})[0] == 403
    assert put(**{"X-CSRF-Token": word, "Origin": f"http://127.0.0.1:{web.web_port}"})[0] == 200
    # A program's session needs no word, but a foreign page cannot use it, nor sign anybody in.
    program = web.api(GLOBAL)
    assert program.request("PUT", "/api/domain/b.example", form={"outboundRelay": ""})[0] == 200
    assert program.request("PUT", "/api/domain/b.example", form={"outboundRelay": ""}, headers={"Origin": "http://evil.example"})[0] == 403
    assert web.api().request("POST", "/api/login", form={"username": GLOBAL, "password": SECRET}, headers={"Origin": "http://evil.example"})[0] == 403


def test_sessions_expire(dns):
    with site(dns, "web_session_time = 2s\n") as w:
        boss = w.api(GLOBAL)
        assert boss.get("/api/session")["admin"] == GLOBAL
        wait_for(lambda: boss.request("GET", "/api/session")[0] == 401, 10, 0.5)
        assert boss.fails(401, "GET", "/api/session") == "Session expired, please re-login."
        # A stop of the page ends no session; a cookie that was made up is none.
        again = w.api(GLOBAL)
        w.stop_web()
        w.start_web()
        assert again.get("/api/session")["admin"] == GLOBAL
        again.cookie = "posthouse=" + "A" * 43
        assert again.fails(401, "GET", "/api/session")


def test_guessing_is_throttled(dns):
    with site(dns) as w:
        api = w.api()
        codes = [api.request("POST", "/api/login", form={"username": GLOBAL, "password": f"wrong {i}"})[0] for i in range(8)]
        assert codes[:5] == [401] * 5 and 429 in codes[5:], codes
        status, answer = api.request("POST", "/api/login", form={"username": GLOBAL, "password": SECRET})
        assert status == 429 and "try again in" in answer["_msg"] and int(api.last.getheader("Retry-After")) > 0  # the right one waits too
        wait_for(lambda: api.request("POST", "/api/login", form={"username": GLOBAL, "password": SECRET})[0] == 200, 30, 0.3)
        assert w.log().count(f"web[{w.web.pid}]: warning: 127.0.0.1: login failed for {GLOBAL}") >= 5


def guess(w, n, *forwarded):
    """A guess for an account of its own, by way of a proxy that sends these fields."""
    return log_in(w, f"nobody{n}@a.example", "wrong", *forwarded)


def test_no_choice_of_address_makes_guessing_fast(dns):
    """Who has one address of IPv6 has 2^64 of them; and what a client says of itself is not what its proxy says of it."""
    with site(dns) as w:
        codes = [guess(w, n, f"2001:db8:7:8:{n:x}::{n:x}") for n in range(1, 9)]
        assert codes[:5] == [401] * 5 and 429 in codes[5:], codes
        assert guess(w, 9, "2001:db8:7:9::1") == 401
        assert [guess(w, 40 + n, f"::ffff:203.0.113.{n}") for n in range(1, 9)] == [401] * 8  # these are eight
        codes = [guess(w, 20 + n, f"192.0.2.{n}", "198.51.100.77") for n in range(1, 9)]
        assert codes[:5] == [401] * 5 and 429 in codes[5:], codes
        assert "warning: 198.51.100.77: login failed for nobody21@a.example" in w.log() and ": 192.0.2." not in w.log()


def test_one_time_link(dns):
    w = Web("", dns=dns)
    said = w.command("admin", "link", "First@Admin.example")
    url, word = re.search(r"  (http://\S+)#/welcome/(\S+)", said).groups()
    assert url == w.url
    with w:
        api = w.api()
        assert api.fails(400, "POST", "/api/welcome", body={"token": word, "password": "short"})
        assert api.fails(403, "POST", "/api/welcome", body={"token": word[:-1] + "x", "password": SECRET})
        assert api.ok("POST", "/api/welcome", body={"token": word, "password": SECRET})["admin"] == "first@admin.example"
        assert api.get("/api/session")["global"] is True
        assert "not valid any more" in api.fails(403, "POST", "/api/welcome", body={"token": word, "password": "another one"})
        assert w.api("first@admin.example").get("/api/session")["global"] is True
        old = re.search(r"welcome/(\S+)", w.command("admin", "link", "first@admin.example"))[1]
        with sqlite3.connect(w.dir / "data" / "web.db") as db:
            assert old not in str(db.execute("SELECT * FROM link").fetchall())  # its hash only
            db.execute("UPDATE link SET expires = 1")
        assert api.fails(403, "POST", "/api/welcome", body={"token": old, "password": SECRET})
        assert word not in w.log() and old not in w.log()
        r = subprocess.run([BUILD / "src" / "posthouse", "-c", w.dir, "admin", "link", "nobody"], capture_output=True, text=True)
        assert r.returncode == 65 and "no mail address" in r.stderr


def test_a_link_of_a_store_that_is_used_no_more_sets_no_password():
    w = Web("", files={"store.cf": "server_host = 127.0.0.1:1\nversion = 3\nsearch_base = o=domains,dc=example,dc=com\n"})
    word = re.search(r"welcome/(\S+)", w.command("admin", "link", GLOBAL))[1]
    with open(w.dir / "main.cf", "a") as f:
        f.write("accounts_store = ldap:{}/store.cf\n".format(w.dir))
    with w:
        assert "does not answer" in w.api().fails(503, "POST", "/api/welcome", body={"token": word, "password": SECRET})
        w.wait_log("sign in with the password that they have there")
        assert w.web.poll() is None


def test_nothing_secret_is_kept_or_logged(dns):
    with FakeRelay(auth=["PLAIN"], need_auth=True, users={"u": "relay-pass-1"}, tls=tls()) as relay, site(dns) as w:
        boss = w.api(GLOBAL)
        token = boss.ok("POST", "/api/tokens", body={"name": "t", "scopes": "read test"})["token"]
        boss.ok("PUT", "/api/relay/r", body={"hosts": f"[127.0.0.1]:{relay.port}", "tls": "encrypt", "user": "u", "password": "relay-pass-1"})
        boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": "r"})
        w.api(token=token).get("/api/domains")
        run(boss, kind="test", sender="ann@a.example", recipient="b@c.example")
        boss.fails(401, "POST", "/api/login", form={"username": "x@y.z", "password": "guess-me-not"})
        secrets = [SECRET, token, token[3:], "relay-pass-1", "guess-me-not", boss.cookie.split("=")[1]]
        answers = [json.dumps(boss.request("GET", p)[1]) for p in ("/api/relays", "/api/relay/r", "/api/tokens", "/api/log", "/api/check", "/api/session")]
        kept = [p.read_bytes() for p in (w.dir / "data").iterdir()]
        for s in secrets:
            assert s not in w.log() and all(s not in a for a in answers), s
            assert all(s.encode() not in k for k in kept), s
        status = pathlib.Path(f"/proc/{w.web.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        if os.geteuid() == 0:
            uid = re.search(r"Uid:\t(\d+)", status)[1]
            assert uid != "0" and os.stat(w.dir / "relays.key").st_uid == 0 and os.stat(w.dir / "relays.key").st_mode & 0o77 == 0


# -- tokens --

def test_tokens(web):
    boss = web.api(GLOBAL)
    make = lambda **kw: web.api(token=boss.ok("POST", "/api/tokens", body={"name": "t", "scopes": "read"} | kw)["token"])
    reader, writer = make(), make(scopes="accounts,relays", name="w")
    assert reader.get("/api/domain/a.example")["name"] == "a.example" and reader.get("/api/dashboard")
    for method, path in (("PUT", "/api/domain/a.example"), ("PUT", "/api/relay/x"), ("GET", "/api/queue"), ("POST", "/api/runs"), ("GET", "/api/tokens"),
                         ("POST", "/api/tokens"), ("GET", "/api/log"), ("POST", "/api/logout")):
        assert reader.fails(403, method, path, body={} if method != "GET" else None) == "Permission denied."
    writer.ok("PUT", "/api/domain/b.example", body={"outboundRelay": "[t.example]:25"})
    writer.ok("PUT", "/api/domain/b.example", body={"outboundRelay": ""})
    assert writer.fails(403, "GET", "/api/domains")
    bound = make(scopes="read accounts test", domain="b.example")
    assert [d["name"] for d in bound.get("/api/domains")["domains"]] == ["b.example"]
    assert bound.get("/api/user/ann@b.example") and bound.fails(403, "GET", "/api/domain/a.example")
    assert bound.get("/api/relays")["records"] == []
    local = web.api(OF_DOMAIN)
    mine = web.api(token=local.ok("POST", "/api/tokens", body={"name": "l", "scopes": "read queue"})["token"])
    assert [d["name"] for d in mine.get("/api/domains")["domains"]] == ["a.example"] and mine.fails(403, "GET", "/api/queue")
    for bad in ({"name": ""}, {"scopes": ""}, {"scopes": "read all"}, {"days": -1}, {"domain": "no domain"}):
        assert boss.fails(400, "POST", "/api/tokens", body={"name": "t", "scopes": "read"} | bad)
    assert local.fails(403, "POST", "/api/tokens", body={"name": "t", "scopes": "read", "domain": "b.example"})
    capital = make(scopes="read", domain="B.Example")
    assert capital.get("/api/domain/b.example") and capital.fails(403, "GET", "/api/domain/a.example")
    listed = boss.get("/api/tokens")
    assert {t["name"] for t in listed} == {"t", "w"} and all("hash" not in t and "token" not in t for t in listed)
    assert local.fails(404, "DELETE", f"/api/token/{listed[0]['id']}")  # somebody else's
    boss.ok("DELETE", f"/api/token/{listed[0]['id']}")
    assert reader.fails(401, "GET", "/api/domains")
    assert web.api(token="ph_" + "x" * 43).fails(401, "GET", "/api/domains") == "Login required."
    with sqlite3.connect(web.dir / "data" / "web.db") as db:
        db.execute("UPDATE token SET expires = 1")
    assert writer.fails(401, "PUT", "/api/domain/b.example", body={})


def test_a_token_shows_nothing_of_a_domain_that_its_maker_lost(web):
    web.command("admin", "add", "two@admin.example", "b.example", input=SECRET + "\n")
    change = lambda sql: sqlite3.connect(web.dir / "data" / "accounts.db").executescript(sql).close()
    change("INSERT INTO domain_admins (username, domain) VALUES ('two@admin.example', 'a.example')")
    maker = web.api("two@admin.example")
    token = web.api(token=maker.ok("POST", "/api/tokens", body={"name": "t", "scopes": "read", "domain": "a.example"})["token"])
    assert [d["name"] for d in token.get("/api/domains")["domains"]] == ["a.example"]
    change("DELETE FROM domain_admins WHERE username = 'two@admin.example' AND domain = 'a.example'")
    wait_for(lambda: token.request("GET", "/api/domain/a.example")[0] == 403)
    assert token.get("/api/domains")["domains"] == []


# -- relays --

def test_the_page_starts_without_the_records_that_are_gone(dns):
    """It says so, makes no empty store in their place, and has them again when they are back."""
    with site(dns) as w:
        w.command("record", "set", "[relay.example]:25", "hosts=[relay.example]:25", "tls=may")
        assert len(w.api(GLOBAL).get("/api/relays")["records"]) == 1
        w.stop_web()
        path, away = w.dir / "data" / "relays.db", w.dir / "away"
        path.rename(away)
        w.start_web()
        assert "relays.db is gone" in (w.dir / "web-stderr").read_text()
        w.wait_log(r"web\[\d+\]: error: relay records: .*relays.db is gone")
        boss = w.api(GLOBAL)
        assert "The relay records cannot be opened" in boss.fails(503, "GET", "/api/relays")
        assert boss.fails(503, "PUT", "/api/relay/other", body={"hosts": "[127.0.0.1]:9", "tls": "may"})
        assert boss.get("/api/domains") and not path.exists()
        w.stop_web()
        away.rename(path)
        w.start_web()
        assert len(w.api(GLOBAL).get("/api/relays")["records"]) == 1


def test_relay_records(dns):
    relay = FakeRelay(auth=["PLAIN", "LOGIN"], need_auth=True, users={"u": "pw"}, tls=tls())
    hop = f"[127.0.0.1]:{relay.port}"
    with site(dns, "minimal_backoff_time = 30s\ninitial_destination_concurrency = 1\n") as w:
        boss = w.api(GLOBAL)
        put = lambda **body: boss.ok("PUT", "/api/relay/my relay", body=body)
        fails = lambda **body: boss.fails(400, "PUT", "/api/relay/my relay", body=body)
        assert fails(hosts="[x", tls="may") and fails(hosts=hop, tls="always") and fails(hosts=hop, user="u") and fails(hosts=hop, colour="red") and fails()
        put(hosts=hop, tls="encrypt", user="u", password="wrong")
        assert "already" in boss.fails(409, "PUT", "/api/relay/my relay?new=yes", body={"hosts": hop})
        shown = boss.get("/api/relay/my relay")
        assert (shown["password_set"], shown["user"], shown["hosts"], shown["users"], shown["health"]) == (True, "u", hop, [], {})
        boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": hop})
        w.send(sender="ann@a.example")
        failing = wait_for(lambda: boss.get("/api/relay/my relay")["health"].get("resting_until") and boss.get("/api/relay/my relay"))
        health = failing["health"]
        assert failing["users"] == ["@a.example"] and health["deferred"] == 1 and health["waiting"] == 1 and "last_success" not in health
        assert "535" in health["error"] and health["advice"] == "User name or password is wrong, or the account may not log in this way."
        assert health["resting_until"] > time.time() and health["certificate_until"] > time.time() + 86400
        # Other hosts, or another user, need the password again: it is not sent where it was not meant to go.
        assert "password is needed again" in fails(hosts="[evil.example]:25", nexthop=hop) and "password is needed again" in fails(user="v")
        put(mechanisms="plain")
        put(password="pw")
        boss.ok("POST", "/api/queue/retry", body={"all": True})
        relay.wait_mails(1)
        good = wait_for(lambda: boss.get("/api/relay/my relay")["health"].get("last_success") and boss.get("/api/relay/my relay"))["health"]
        assert (good["sent"], good["waiting"]) == (1, 0) and "resting_until" not in good
        assert boss.get("/api/relays")["records"][0]["used_by"] == 1
        assert "in use, by @a.example" in boss.fails(409, "DELETE", "/api/relay/my relay")
        boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""})
        boss.ok("DELETE", "/api/relay/my relay")
        assert boss.fails(404, "GET", "/api/relay/my relay") and boss.fails(404, "DELETE", "/api/relay/my relay")
        assert {"gmail", "m365", "ses", "sendgrid", "mailgun", "postmark", "brevo", "smtp2go", "plain"} == {p["id"] for p in boss.get("/api/presets")}
        assert [c["relay"] for c in boss.get("/api/dashboard")["certificates"]] == [hop]  # the kit's certificates last two days
        for preset in boss.get("/api/presets"):
            assert boss.get("/api/validate?kind=hosts&value=" + urllib.request.quote(preset["hosts"]))["valid"]
    relay.stop()


def test_health_is_of_one_error(dns):
    """A record that was used under several next hops: what to do is said of the error that is shown."""
    relay = FakeRelay(replies={"RCPT": "550 5.1.1 who is that"})
    with site(dns) as w:
        boss = w.api(GLOBAL)
        for i in range(4):
            for hosts in (f"[127.0.0.1]:{free_port()}", f"[127.0.0.1]:{relay.port}")[::-1 if i % 2 else 1]:
                boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""})
                boss.ok("PUT", f"/api/relay/r{i}", body={"hosts": hosts, "tls": "none"})
                boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": hosts})
                tried = lambda: sum(boss.get(f"/api/relay/r{i}")["health"].get(k, 0) for k in ("deferred", "bounced"))
                had = tried()
                w.send(sender="ann@a.example", rcpts=[f"b{i}@far.example"])
                wait_for(lambda: tried() > had)
            health = boss.get(f"/api/relay/r{i}")["health"]
            assert ("refused" in health["error"]) == ("cause" in health) == ("advice" in health) == ("reply" not in health), health
            boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""})
            boss.ok("DELETE", f"/api/relay/r{i}")
    relay.stop()


# -- tests and explanations --

def test_stages_appear_as_they_happen(dns):
    go = threading.Event()
    relay = FakeRelay(replies={"RCPT": lambda line: (go.wait(20), None)[1]})
    with site(dns, f"relayhost = [127.0.0.1]:{relay.port}\n") as w:
        boss = w.api(GLOBAL)
        ident = boss.ok("POST", "/api/runs", body={"kind": "test", "sender": "ann@a.example", "recipient": "b@c.example"})["id"]
        r = urllib.request.Request(w.url + f"api/run/{ident}", headers={"Accept": "text/event-stream", "Cookie": boss.cookie})
        with urllib.request.urlopen(r, timeout=20) as s:
            assert s.headers["Content-Type"] == "text/event-stream"
            seen = []
            while "mail" not in seen:  # everything up to MAIL is there while RCPT waits
                line = s.readline().decode()
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:]).get("step"))
            assert not boss.get(f"/api/run/{ident}")["over"] and "rcpt" not in seen
            go.set()
            rest = s.read().decode()
        assert '"step":"rcpt"' in rest and "event: end\ndata: {\"passed\":true}" in rest
        kept = boss.get(f"/api/run/{ident}")
        assert kept["passed"] and [x["step"] for x in kept["steps"]][-1] in ("rset", "quit", "rcpt")
        w.stop_web()
        w.start_web()
        assert w.api(GLOBAL).get(f"/api/run/{ident}") == kept  # the address stays good
        r = urllib.request.Request(w.url + f"api/run/{ident}", headers={"Accept": "text/event-stream", "Cookie": w.api(GLOBAL).cookie})
        with urllib.request.urlopen(r, timeout=20) as s:  # whoever comes late sees the same stream
            events = s.read().decode()
        assert events.count("event: step") == len(kept["steps"]) and events.endswith('event: end\ndata: {"passed":true}\n\n')
    relay.stop()


def test_runs(web):
    boss, local = web.api(GLOBAL), web.api(OF_DOMAIN)
    r = run(boss, kind="explain", sender="Ann@a.example", recipient="b@aonly.example")
    assert r["passed"] and any("asked" in s for s in r["steps"]) and r["sender"] == "ann@a.example"
    mine = run(local, kind="explain", sender="ann@a.example")
    assert not any("asked" in s or "set_at" in s for s in mine["steps"])  # nobody's files
    assert local.fails(403, "POST", "/api/runs", body={"kind": "test", "sender": "ann@b.example"})
    assert local.fails(403, "POST", "/api/runs", body={"kind": "test", "sender": "<>"})
    assert local.fails(403, "POST", "/api/runs", body={"kind": "test", "sender": "ann@a.example", "relay": "[127.0.0.1]:25"})
    other = run(boss, kind="explain", sender="ann@b.example")["id"]
    assert local.fails(403, "GET", f"/api/run/{other}") and local.get(f"/api/run/{r['id']}")
    for bad in ({"kind": "send"}, {"sender": ""}, {"sender": "nobody"}, {"sender": "a@b\n.c"}, {"recipient": "x"}):
        assert boss.fails(400, "POST", "/api/runs", body={"kind": "test", "sender": "ann@a.example"} | bad)
    assert boss.fails(404, "GET", "/api/run/none")


def test_a_relay_by_itself(dns):
    """A relay record is tested past all rules, with its own account."""
    relay, used = FakeRelay(auth=["PLAIN"], need_auth=True, users={"u": "pw"}, tls=tls()), FakeRelay()
    with site(dns, f"relayhost = [127.0.0.1]:{used.port}\n") as w:
        boss = w.api(GLOBAL)
        boss.ok("PUT", "/api/relay/spare", body={"hosts": f"[127.0.0.1]:{relay.port}", "tls": "encrypt", "user": "u", "password": "pw"})
        r = run(boss, kind="test", sender="ann@a.example", recipient="b@c.example", relay=f"[127.0.0.1]:{relay.port}")
        assert r["passed"], json.dumps(r)
        assert relay.sessions[-1].auth == ("PLAIN", "u", "pw") and not used.sessions and not relay.mails
    relay.stop()
    used.stop()


# -- queue, dashboard, metrics --

def test_queue(dns):
    down, full = free_port(), FakeRelay(replies={"RCPT": "450 4.2.1 mailbox is full"})
    with site(dns, f"relayhost = [127.0.0.1]:{down}\n") as w:
        boss = w.api(GLOBAL)
        boss.ok("PUT", "/api/domain/b.example", form={"outboundRelay": f"[127.0.0.1]:{full.port}"})
        for i in range(3):
            w.send(sender="ann@a.example", rcpts=[f"r{i}@far.example"])
        w.send(sender="ann@b.example", rcpts=["full@far.example"])
        counts = wait_for(lambda: (c := boss.get("/api/queue/counts"))["deferred"] == 4 and c)
        assert {r["relay"]: r["messages"] for r in counts["relays"]} == {f"[127.0.0.1]:{down}": 3, f"[127.0.0.1]:{full.port}": 1}
        assert sum(r["messages"] for r in counts["reasons"]) == 4
        find = lambda q="": [m["recipients"][0]["address"].split("@")[0] for m in boss.get("/api/queue?" + q)["messages"]]
        assert find() == ["r0", "r1", "r2", "full"]
        assert find(f"relay=[127.0.0.1]:{full.port}") == ["full"] == find("sender=B.EXAMPLE") == find("reason=mailbox%20is") == find("recipient=full@")
        assert find("queue=hold") == [] and find("relay=") == [] and find("recipient=r1") == ["r1"]
        first = boss.get("/api/queue?limit=3")
        assert first["more"] and find(f"after={first['messages'][2]['cursor']}") == ["full"]
        one = first["messages"][0]
        assert one["attempts"] == 1 and one["next_attempt"] > one["arrival_time"] and "Connection refused" in one["recipients"][0]["delay_reason"]
        assert one["recipients"][0]["cause"] == "connection refused" and one["advice"].startswith("Nothing listens there")
        assert boss.get(f"/api/message/{one['queue_id']}")["queue_id"] == one["queue_id"]
        act = lambda action, **body: boss.ok("POST", f"/api/queue/{action}", body=body)["count"]
        assert act("hold", ids=[m["queue_id"] for m in first["messages"][:2]]) == 2 and find("queue=hold") == ["r0", "r1"]
        assert act("release", ids=[one["queue_id"]]) == 1
        wait_for(lambda: find("queue=hold") == ["r1"])
        assert act("delete", all=True, queue="hold") == 1 and sorted(find()) == ["full", "r0", "r2"]
        assert act("delete", ids=["NOSUCH"]) == 0 and act("delete", ids=[one["queue_id"], "ALL"]) == 1  # ALL is no queue ID here
        full.replies.clear()
        assert act("retry", all=True, relay=f"[127.0.0.1]:{full.port}", record="") == 1
        full.wait_mails(1)
        wait_for(lambda: find() == ["r2"])
        for bad in ({}, {"ids": []}, {"ids": "ALL"}, {"ids": [1]}, {"all": False, "queue": "hold"}, {"all": True, "sendr": "x"}, {"all": True, "queue": "held"},
                    {"all": True, "sender": None}, {"all": "yes"}):
            assert boss.fails(400, "POST", "/api/queue/delete", body=bad)
        assert boss.fails(400, "GET", "/api/queue?queue=held")
        assert boss.fails(400, "POST", "/api/queue/flush", body={"all": True}) and boss.fails(404, "GET", f"/api/message/{one['queue_id']}")
        assert find() == ["r2"] and act("delete", all=True) == 1 and find() == []
        assert [e["msg"] for e in boss.get("/api/log?event=delete")["entries"]][0] == "[API] Queue: delete 1 message."
    full.stop()


def test_queue_is_live(dns):
    with site(dns, f"relayhost = [127.0.0.1]:{free_port()}\n") as w:
        boss = w.api(GLOBAL)
        r = urllib.request.Request(w.url + "api/queue/counts", headers={"Accept": "text/event-stream", "Cookie": boss.cookie})
        with urllib.request.urlopen(r, timeout=20 * SLOW) as s:
            counts = []
            while not counts or counts[-1]["deferred"] == 0:
                line = s.readline().decode()
                if line.startswith("data: "):
                    counts.append(json.loads(line[6:]))
                    if len(counts) == 1:
                        w.send(sender="ann@a.example")
            assert counts[0]["deferred"] == 0 and counts[-1]["deferred"] == 1


def test_saved_but_not_in_use(dns):
    """The daemon refuses the reload that the first records need: whoever saves one is told so, and not that all is well."""
    relay = FakeRelay(auth=["PLAIN"], need_auth=True, users={"u": "pw"}, tls=tls())
    w = Web(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns)
    try:
        w.start_daemon()
        w.command("admin", "add", GLOBAL, input=SECRET + "\n")
        main = (w.dir / "main.cf").read_text()
        (w.dir / "main.cf").write_text(main + "relayhost = [broken\n")
        w.start_web()
        boss, record = w.api(GLOBAL), {"hosts": f"[127.0.0.1]:{relay.port}", "tls": "encrypt", "user": "u", "password": "pw"}
        assert "It is saved, but not in use" in boss.fails(503, "PUT", "/api/relay/office", body=record)
        (w.dir / "main.cf").write_text(main)
        boss.ok("PUT", "/api/relay/office", body=record)
        w.send()
        assert relay.wait_mails(1)[0]["auth"] == ("PLAIN", "u", "pw")
    finally:
        w.stop()
        relay.stop()


def test_saved_in_a_store_that_is_used_no_more(dns):
    """main.cf names another store, and the daemon was reloaded; the page, which has the old one open, calls nothing done."""
    with site(dns) as w:
        boss, other = w.api(GLOBAL), w.dir / "moved/accounts.db"
        other.parent.mkdir()
        shutil.copy(w.dir / "data" / "accounts.db", other)
        (w.dir / "main.cf").write_text((w.dir / "main.cf").read_text() + f"accounts_store = sqlite:{other}\n")
        assert boss.ok("PUT", "/api/domain/a.example", body={"outboundRelay": "[old.example]:25"}) is None
        w.command("reload")
        for _ in range(2):
            why = boss.fails(503, "PUT", "/api/domain/a.example", body={"outboundRelay": "[new.example]:25"})
            assert "It is saved, but not in use: the running daemon has another accounts_store" in why
            w.web.send_signal(signal.SIGHUP)  # which opens no other store
        assert boss.get("/api/effective?account=a.example")["next_hop"] != "[new.example]:25"
        w.stop_web()
        for path in (other.parent, other):
            shutil.chown(path, "www-data")
        w.start_web()
        w.api(GLOBAL).ok("PUT", "/api/domain/a.example", body={"outboundRelay": "[new.example]:25"})
        assert w.api(GLOBAL).get("/api/effective?account=a.example")["next_hop"] == "[new.example]:25"


def test_log_file_is_opened_again(dns):
    """After rotation, though posthouse-web could not open the new file itself."""
    with site(dns, f"relayhost = [127.0.0.1]:{free_port()}\n") as w:
        log, old = w.dir / "maillog", w.dir / "maillog.1"
        log.rename(old)
        w.web.send_signal(signal.SIGUSR1)
        wait_for(log.exists)
        log.chmod(0o600)
        for _ in range(20):  # none of many ends it, however busy it is with the one before
            w.web.send_signal(signal.SIGHUP)
            w.web.send_signal(signal.SIGUSR1)
        w.api().fails(401, "POST", "/api/login", form={"username": GLOBAL, "password": "wrong"})
        wait_for(lambda: "login failed for " + GLOBAL in log.read_text())
        assert "login failed" not in old.read_text()


def test_a_stream_ends_with_its_session(dns):
    """Signed out, the token deleted, no administrator any more: what is open already ends as well."""
    with site(dns, f"relayhost = [127.0.0.1]:{free_port()}\n") as w:
        boss = w.api(GLOBAL)
        made = boss.ok("POST", "/api/tokens", body={"name": "monitor", "scopes": "queue"})
        token = next(t for t in boss.get("/api/tokens") if t["name"] == "monitor")
        other = w.api(GLOBAL)

        def stream(**headers):
            return urllib.request.urlopen(urllib.request.Request(w.url + "api/queue/counts", headers={
                "Accept": "text/event-stream", **headers}), timeout=20 * SLOW)

        def ends(s):
            end = time.monotonic() + 20 * SLOW
            while s.readline():
                assert time.monotonic() < end

        with stream(Cookie=other.cookie) as gone, stream(Authorization="Bearer " + made["token"]) as deleted, \
                stream(Cookie=boss.cookie) as demoted:
            assert all(s.readline() == b"event: counts\n" for s in (gone, deleted, demoted))
            other.ok("POST", "/api/logout")
            ends(gone)
            boss.ok("DELETE", f"/api/token/{token['id']}")
            ends(deleted)
            with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db")) as db:
                db.execute("UPDATE domain_admins SET domain = 'a.example' WHERE username = ?", (GLOBAL,))
                db.commit()
            ends(demoted)


def test_a_tenants_tests_are_bounded_and_end_with_the_session(dns):
    """Tests of a relay host that is silent: they take no place of the others', and are not seen after signing out."""
    over = threading.Event()
    with Listener(lambda conn: over.wait(120)) as silent, site(dns, f"relayhost = [127.0.0.1]:{silent.port}\n") as w:
        local, boss = w.api(OF_DOMAIN), w.api(GLOBAL)
        body = {"kind": "test", "sender": "ann@a.example"}
        for _ in range(4):
            ident = local.ok("POST", "/api/runs", body=body)["id"]
        assert "Too many tests" in local.fails(503, "POST", "/api/runs", body=body)
        for _ in range(5):
            boss.ok("POST", "/api/runs", body=body)
        request = urllib.request.Request(w.url + f"api/run/{ident}", headers={"Accept": "text/event-stream", "Cookie": local.cookie})
        with urllib.request.urlopen(request, timeout=40 * SLOW) as stream:
            assert stream.readline() == b"event: step\n"
            with contextlib.ExitStack() as more:
                for _ in range(7):
                    assert more.enter_context(urllib.request.urlopen(request, timeout=40 * SLOW)).readline() == b"event: step\n"
                assert "Too many look on" in local.fails(503, "GET", f"/api/run/{ident}", headers={"Accept": "text/event-stream"})
                assert local.get(f"/api/run/{ident}")["over"] is False
            local.ok("POST", "/api/logout")
            assert b"event: end\n" not in list(stream)  # it ends, and the test has not
        over.set()


@pytest.mark.skipif(not shim.available, reason="a sanitizer build: its wrappers and the shim's exclude each other")
def test_a_disk_that_takes_no_notes_is_named(dns, tmp_path):
    """Nothing is sent then: the status, listings, the metrics and the health say so, and that it is over."""
    s, port = shim.Shim(tmp_path), free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30 * SLOW)
        w = Web(f"relayhost = [127.0.0.1]:{port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n", dns=dns)
        w.extra_env = {**s.env, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        w.start_daemon()
        w.extra_env = {}
        w.start_web()
        halted = lambda: ("warning: nothing is sent" in w.run("queue", "list").stderr,
                          "posthouse_halted 1\n" in w.api().request("GET", "/metrics")[1],
                          w.api().request("GET", "/healthz")[0] == 503)
        try:
            assert halted() == (False, False, False)
            w.send(sender="ann@a.example")
            w.wait_log("status=deferred")
            s.set(write_errno=errno.EROFS, write_count=1 << 30)
            wait_for(lambda: all(halted()))
            while b"; nothing is sent: " not in manager.recv(4096):
                pass
            s.set(write_count=0)
            wait_for(lambda: not any(halted()))
            while b"; nothing is sent: " in manager.recv(4096):
                pass
        finally:
            w.stop()


def test_dashboard_and_metrics(dns):
    relay = FakeRelay(replies={"RCPT": lambda line: "550 5.1.1 no such user" if "<no@" in line else None})
    with site(dns, f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_security_level = bogus-not-used\n".replace("smtp_tls_security_level = bogus-not-used\n", "")) as w:
        boss = w.api(GLOBAL)
        for i in range(3):
            w.send(sender="ann@a.example")
        w.send(sender="ann@b.example", rcpts=["no@y.example"])
        d = wait_for(lambda: (d := boss.get("/api/dashboard?range=hour"))["now"]["results"]["sent"] >= 3 and d["now"]["results"]["bounced"] == 1 and d)
        assert d["senders"][0] == {"sender": "ann@a.example", "sent": 3, "deferred": 0, "bounced": 0} and d["relays"][0]["sent"] >= 3
        assert len(d["history"]["at"]) >= 1
        status, text = w.api().request("GET", "/metrics")
        assert status == 200 and w.api().request("GET", "/healthz") == (200, "ok\n")
        values = {}
        for line in text.splitlines():
            m = re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+|([a-z_]+)(\{(?:[a-z_]+=\"(?:[^\"\\]|\\.)*\",?)*\})? (-?[0-9.]+)", line)
            assert m, line
            if m[2]:
                values[m[2] + (m[3] or "")] = float(m[4])
        assert values['posthouse_up'] == 1 and values['posthouse_deliveries_total{status="sent"}'] >= 3
        assert values[f'posthouse_relay_deliveries_total{{relay="[127.0.0.1]:{relay.port}",record="",status="bounced"}}'] == 1
        # By way of a proxy it wants a token with that scope.
        far = {"X-Forwarded-For": "192.0.2.1"}
        assert w.api().request("GET", "/metrics", headers=far)[0] == 401
        # A stranger's page whose name leads a browser on this machine to it is not taken for a scraper.
        hosts = {"evil.example:7795": 401, "evil.example": 401, "127.0.0.1": 200, "localhost:7795": 200, "[::1]:7795": 200}
        assert {h: w.api().request("GET", "/metrics", headers={"Host": h})[0] for h in hosts} == hosts
        for scopes, want in (("read", 403), ("metrics", 200)):
            token = boss.ok("POST", "/api/tokens", body={"name": scopes, "scopes": scopes})["token"]
            assert w.api(token=token).request("GET", "/metrics", headers=far)[0] == want
        with hanging(w):  # a daemon that hangs is one that does not answer
            wait_for(lambda: w.api().request("GET", "/healthz")[0] == 503)  # an older answer counts for a second
        wait_for(lambda: w.api().request("GET", "/healthz")[0] == 200)
        w.kill()
        wait_for(lambda: w.api().request("GET", "/healthz")[0] == 503)
        assert "posthouse_up 0" in w.api().request("GET", "/metrics")[1]
        assert boss.fails(503, "GET", "/api/dashboard") == "posthoused does not answer: is it running?"
        assert boss.get("/api/domain/a.example") and boss.ok("PUT", "/api/domain/a.example", form={"outboundRelay": ""}) is None
        w.start_daemon()
        wait_for(lambda: w.api().request("GET", "/healthz")[0] == 200)
    relay.stop()


def test_warnings_of_check(dns):
    with site(dns, "smtp_sasl_auth_enable = yes\nrelayhost = [relay.server]:587\nno_such_parameter = 1\n") as w:
        cert, key = make_cert(w.dir)
        with (w.dir / "main.cf").open("a") as f:
            f.write(f"smtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n")
        findings = w.api(GLOBAL).get("/api/check")["findings"]
        assert any(f["level"] == "warning" and "smtp_sasl_password_maps is empty" in f["text"] and f["line"] > 0 for f in findings)
        assert any(f["level"] == "note" and "no_such_parameter" in f["text"] for f in findings)
        assert any(f["level"] == "warning" and re.search(r"certificate expires in [12] days?", f["text"]) for f in findings), findings


def test_admin_log(dns):
    with site(dns) as w:
        boss = w.api(GLOBAL)
        boss.ok("PUT", "/api/user/ann@a.example", form={"outboundRelay": "[x.example]:25"})
        entry = boss.get("/api/log?event=update")["entries"][0]
        assert {k: entry[k] for k in ("admin", "ip", "domain", "username", "event", "loglevel", "msg")} == {
            "admin": GLOBAL, "ip": "127.0.0.1", "domain": "a.example", "username": "ann@a.example", "event": "update", "loglevel": "info",
            "msg": "[API] Update user profile: ann@a.example (relay)."}
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", entry["timestamp"])
        assert [e["event"] for e in boss.get("/api/log?limit=1")["entries"]] == ["update"] and boss.get("/api/log?limit=1")["more"]
        assert boss.get("/api/log?domain=b.example")["entries"] == []
        page = w.api()
        page.headers = dict(BROWSER)
        word = page.ok("POST", "/api/login", body={"username": GLOBAL, "password": SECRET})["csrf"]
        page.ok("PUT", "/api/domain/a.example", body={"outboundRelay": ""}, headers={"X-CSRF-Token": word})
        assert boss.get("/api/log?limit=1")["entries"][0]["msg"] == "Update domain profile: a.example (relay)."
        with sqlite3.connect(w.dir / "data" / "web.db") as db:  # iRedAdmin's columns
            assert [c[1] for c in db.execute("PRAGMA table_info(log)")] == ["id", "timestamp", "admin", "ip", "domain", "username", "event", "loglevel", "msg"]


# -- the description --

def routes():
    text = (ROOT / "src" / "web" / "routes.c").read_text()
    return set(re.findall(r'\{"(GET|PUT|POST|DELETE)", "(/api/[^"]+)"', text))


def test_openapi_has_every_route():
    described = {(m.upper(), path) for path, item in OPENAPI["paths"].items() for m in item if m != "parameters"}
    assert described == routes()


def resolve(o):
    """The description with its references in place."""
    if isinstance(o, dict):
        if "$ref" in o:
            at = OPENAPI
            for part in o["$ref"].split("/")[1:]:
                at = at[part]
            return resolve(at)
        return {k: resolve(v) for k, v in o.items()}
    return [resolve(x) for x in o] if isinstance(o, list) else o


def test_openapi_describes_what_comes(dns):
    relay = FakeRelay()
    with site(dns, f"relayhost = [127.0.0.1]:{free_port()}\n") as w:
        boss = w.api(GLOBAL)
        w.send(sender="ann@a.example")
        message = wait_for(lambda: boss.get("/api/queue")["messages"])[0]
        ident = run(boss, kind="explain", sender="ann@a.example")["id"]
        boss.ok("PUT", "/api/relay/r", body={"hosts": f"[127.0.0.1]:{relay.port}", "tls": "may"})
        values = {"domain": "a.example", "mail": "ann@a.example", "name": "r", "id": None, "action": "hold"}
        queries = {"/api/search": "?q=ann", "/api/validate": "?kind=transport&value=x", "/api/effective": "?account=a.example"}
        bodies = {"/api/queue/{action}": {"ids": [message["queue_id"]]}, "/api/runs": {"kind": "explain", "sender": "ann@a.example"},
                  "/api/tokens": {"name": "n", "scopes": "read"}, "/api/users/{domain}": {"transport": ""}, "/api/login": {"username": GLOBAL, "password": SECRET}}
        last = [("DELETE", "/api/token/{id}"), ("DELETE", "/api/relay/{name}"), ("POST", "/api/logout")]
        done = set()
        for method, path in sorted(routes() - set(last)) + last:
            spec = resolve(OPENAPI["paths"][path][method.lower()])
            ids = {"/api/run/{id}": ident, "/api/message/{id}": message["queue_id"], "/api/token/{id}": "1"}
            url = re.sub(r"\{(\w+)\}", lambda m: ids.get(path) or values[m[1]], path) + (queries.get(path, "") if method == "GET" else "")
            body = bodies.get(path, {}) if method in ("PUT", "POST") else None
            status, answer = boss.request(method, url, body=body)
            want = spec["responses"].get(str(status))
            assert want is not None, (method, url, status, answer)
            assert status == 200 or path == "/api/welcome", (method, url, status, answer)
            if path != "/api/openapi.json":
                schema = want["content"]["application/json"]["schema"]
                jsonschema.validate(answer, schema, jsonschema.Draft4Validator)
            done.add((method, path))
        assert done == routes()
        assert boss.request("GET", "/api/openapi.json")[1] == OPENAPI
    relay.stop()


def test_a_session_that_cannot_be_kept_or_ended_is_none_or_stays(dns):
    """While the page's own database takes nothing down, nobody is told to be signed in or out."""
    with site(dns) as w:
        boss = w.api(GLOBAL)
        def state(*sql):
            with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as db:
                for one in sql:
                    db.execute(one)
                db.commit()
        refuse = "CREATE TRIGGER on_{0} BEFORE {0} ON session BEGIN SELECT RAISE(ABORT, 'not now'); END"
        state(refuse.format("INSERT"), refuse.format("DELETE"))
        api = w.api()
        assert "cannot be kept" in api.fails(503, "POST", "/api/login", form={"username": GLOBAL, "password": SECRET})
        cookie = boss.cookie
        assert "goes on" in boss.fails(503, "POST", "/api/logout")
        assert api.cookie is None and boss.cookie == cookie and boss.get("/api/session")["admin"] == GLOBAL
        state("DROP TRIGGER on_INSERT", "DROP TRIGGER on_DELETE")
        w.api(GLOBAL)
        boss.ok("POST", "/api/logout")
        boss.cookie = cookie
        boss.fails(401, "GET", "/api/session")


def test_a_link_of_somebody_who_is_no_administrator_any_more(dns):
    with site(dns) as w:
        word = re.search(r"welcome/(\S+)", w.command("admin", "link", OF_DOMAIN))[1]
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db", 20)) as db:
            db.execute("DELETE FROM domain_admins WHERE username = ?", (OF_DOMAIN,))
            db.commit()
        api = w.api()
        said = api.fails(403, "POST", "/api/welcome", body={"token": word, "password": "another one 2"})
        assert "no administrator any more" in said and api.cookie is None


# -- whatever comes --

def test_bad_requests(web):
    boss = web.api(GLOBAL)
    assert boss.fails(404, "GET", "/api/nothing") and boss.fails(404, "GET", "/../etc/passwd") and boss.fails(404, "GET", "/api/domain/")
    assert boss.fails(405, "DELETE", "/api/domains") and boss.fails(405, "POST", "/api/session")
    for nul in ("/api/domain/a.example%00x", "/api/user/ann@a.example%00@b.example", "/api/relay/a%00b"):  # of another name
        assert boss.request("GET", nul)[0] in (400, 404)
    for text in ("{", "[1]", "null", '{"a": 1, "a": 2}', '{"outboundRelay": "\ud800"}'.encode("utf-8", "surrogatepass")):
        status, answer = raw_put(web, boss, text)
        assert status == 400 and answer["_success"] is False, (text, answer)
    status, answer = raw_put(web, boss, '{"outboundRelay": "' + "x" * (1 << 20) + '"}')
    assert status == 413 and "larger" in answer["_msg"]
    # Of a stranger: what is kept of a part takes a hundred times as much memory.
    ids = json.dumps({"ids": list(map(str, range(9000)))})
    for kind, text in (("json", '{"a": [' + "{}," * 9000 + "0]}"), ("json", "[" * 9000), ("json", ids), ("form", "a=b&" * 9000)):
        status, answer = raw_login(web, kind, text)
        assert status == 413 and "parts" in answer["_msg"]
    long = json.dumps({"username": '[{,\\"' * 5000, "password": "x"})  # one text is one part
    assert raw_login(web, "json", long)[0] == 400
    for noise in (b"\x00\xff\x16\x03\x01" * 50, b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"GET /api/domains?" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
                  b"PUT /api/domain/a.example HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
        with socket.create_connection(("127.0.0.1", web.web_port), 5) as s:
            s.sendall(noise)
            s.shutdown(socket.SHUT_WR)
            s.settimeout(5)
            try:
                while s.recv(65536):
                    pass
            except OSError:
                pass
    assert boss.get("/api/session")["admin"] == GLOBAL


def raw_login(web, kind, text):
    types = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
    c = http.client.HTTPConnection("127.0.0.1", web.web_port, timeout=60)
    c.request("POST", "/api/login", text, {"Content-Type": types[kind]})
    r = c.getresponse()
    return r.status, json.loads(r.read())


def raw_put(web, boss, text):
    r = urllib.request.Request(web.url + "api/domain/a.example", data=text if isinstance(text, bytes) else text.encode(), method="PUT",
                               headers={"Content-Type": "application/json", "Cookie": boss.cookie})
    try:
        with urllib.request.urlopen(r) as s:
            return s.status, json.loads(s.read())
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())


def test_start_says_what_is_wrong(dns, tmp_path):
    w = Web("", dns=dns, directory=tmp_path)
    def fails(change, want):
        main = (w.dir / "main.cf").read_text()
        (w.dir / "main.cf").write_text(main + change)
        r = subprocess.run([BUILD / "src" / "posthouse-web", "-c", w.dir, "-f"], capture_output=True, text=True, timeout=20)
        (w.dir / "main.cf").write_text(main)
        assert r.returncode != 0 and want in r.stderr, r
    fails("web_listen = here\n", "web_listen is an address and a port")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        fails(f"web_listen = 127.0.0.1:{s.getsockname()[1]}\n", "Address already in use")
    fails("accounts_store = oracle:x\n", "need sqlite:FILE, mysql:FILE, pgsql:FILE or ldap:FILE")
    if os.geteuid() == 0:
        fails("web_owner = no-such-user\n", "web_owner is no user of this system")
    r = subprocess.run([BUILD / "src" / "posthouse-web", "-c", "/nonexistent", "-f"], capture_output=True, text=True)
    assert r.returncode == 1 and "No such file" in r.stderr
    r = subprocess.run([BUILD / "src" / "posthouse-web", "-f"], capture_output=True, text=True, env={"MAIL_CONFIG": "/not-there"})
    assert r.returncode == 1 and "/not-there: No such file" in r.stderr


# -- behind nginx --

@pytest.fixture
def nginx(dns, tmp_path):
    """A real nginx with the snippet that ships, over TLS."""
    with site(dns) as w:
        port, (cert, key) = free_port(), make_cert(tmp_path, "mail.example")
        snippet = (ROOT / "packaging" / "nginx" / "posthouse.tmpl").read_text().replace("127.0.0.1:7795", f"127.0.0.1:{w.web_port}")
        (tmp_path / "posthouse.tmpl").write_text(snippet)
        user = "user www-data;" if os.geteuid() == 0 else ""
        (tmp_path / "nginx.conf").write_text(f"""{user} worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/error.log; daemon off; events {{}}
http {{ access_log {tmp_path}/access.log; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p; fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
 server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key}; include {tmp_path}/posthouse.tmpl; }} }}""")
        tmp_path.chmod(0o755)
        proc = subprocess.Popen(["/usr/sbin/nginx", "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.PIPE)
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)) or proc.poll() is not None)
        assert proc.poll() is None, proc.stderr.read()
        w.nginx = f"https://127.0.0.1:{port}/posthouse/"
        w.access = tmp_path / "access.log"
        yield w
        proc.terminate()
        proc.wait()


def test_behind_nginx(nginx):
    from webkit import Browser
    b = Browser(nginx.nginx, ignoreHTTPSErrors=True)
    try:
        b.open("")
        b.heading("Sign in")
        b.sign_in()
        cookie = b.js("return (await context.cookies())[0]")
        assert cookie["secure"] and cookie["httpOnly"] and cookie["path"] == "/posthouse/api" and cookie["sameSite"] == "Strict"
        b.open("#/domain/a.example/relay", "Profile of domain: a.example")
        b.fill("Relay outgoing email to", "[nginx.example]:587")
        b.click("button", "Save changes")
        b.sees("Profile has been updated.")
        b.open("#/test?kind=explain&sender=ann@a.example", "Test and explain")
        b.click("button", "Start")
        b.sees("[nginx.example]:587")  # the stream goes through
        assert b.js("return seen") | {"bytes": 0} == {"foreign": [], "errors": [], "bytes": 0}
    finally:
        b.close()
    insecure = ssl._create_unverified_context()
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(nginx.nginx + "metrics", context=insecure)
    assert e.value.code == 401
    assert urllib.request.urlopen(nginx.nginx.rstrip("/"), context=insecure).url == nginx.nginx
    log = nginx.access.read_text()
    assert SECRET not in log and "welcome" not in log
    assert '"ip": "127.0.0.1"' in json.dumps(nginx.api(GLOBAL).get("/api/log")["entries"])


# -- guessing, passwords, numbers --

SLOW_HASH = "{CRYPT}$6$rounds=200000$abcdefghijklmnop$" + "x" * 86

def test_guesses_at_once_are_counted_when_they_begin(dns):
    """A slow check cannot be passed by many guesses together: no more are evaluated than one after the other."""
    with site(dns) as w:
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db")) as db:  # a check that takes its time
            db.execute("UPDATE admin SET password = ? WHERE username = ?", (SLOW_HASH, OF_DOMAIN))
            db.commit()
        codes, gate = [], threading.Barrier(60)

        def guess(i):
            api = w.api()
            gate.wait(60 * SLOW)
            codes.append(api.request("POST", "/api/login", form={"username": OF_DOMAIN, "password": f"guess {i}"})[0])
        at_once(guess, *((i,) for i in range(60)))
        assert sorted(set(codes)) == [401, 429] and codes.count(401) <= 10, codes


def test_an_own_account_does_not_wash_an_address(dns):
    """Who can log in himself cannot guess for others without waiting: his success forgives what was guessed for him only."""
    with site(dns) as w:
        api = w.api()
        guess = lambda i: api.request("POST", "/api/login", form={"username": f"target{i}@a.example", "password": "x" * 9})[0]
        codes = []
        for i in range(9):
            codes.append(guess(i))
            api.request("POST", "/api/login", form={"username": OF_DOMAIN, "password": SECRET})
        assert 429 in codes, codes


def test_a_new_password_ends_the_sessions_of_the_old_one(dns):
    with site(dns) as w:
        old, other = w.api(OF_DOMAIN), w.api(GLOBAL)
        token = w.api(token=old.ok("POST", "/api/tokens", body={"name": "t", "scopes": "read"})["token"])
        links = [re.search(r"welcome/(\S+)", w.command("admin", "link", OF_DOMAIN))[1] for _ in range(2)]
        fresh = w.api()
        fresh.ok("POST", "/api/welcome", body={"token": links[0], "password": "a new password"})
        assert old.fails(401, "GET", "/api/session")
        assert fresh.get("/api/session")["admin"] == OF_DOMAIN and other.get("/api/session") and token.get("/api/domains")
        assert fresh.fails(403, "POST", "/api/welcome", body={"token": links[1], "password": "another password"})  # made before
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db")) as db:  # as iRedAdmin changes it
            db.execute("UPDATE admin SET password = '{PLAIN}third password' WHERE username = ?", (OF_DOMAIN,))
            db.commit()
        wait_for(lambda: fresh.request("GET", "/api/session")[0] == 401)
        assert w.api(OF_DOMAIN, "third password").get("/api/session")["admin"] == OF_DOMAIN


def numbers():
    """Each number that a request of the API can have: method, path, where, name, minimum, maximum."""
    def deref(o):
        while "$ref" in o:
            found = OPENAPI
            for part in o["$ref"].split("/")[1:]:
                found = found[part]
            o = found
        return o
    for path, methods in OPENAPI["paths"].items():
        shared = [deref(p) for p in methods.get("parameters", [])]
        for method, op in methods.items():
            if method == "parameters":
                continue
            for p in shared + [deref(p) for p in op.get("parameters", [])]:
                s = deref(p["schema"])
                if s.get("type") in ("integer", "number"):
                    yield method.upper(), path, p["in"], p["name"], s["minimum"], s["maximum"]
            for kind in deref(op.get("requestBody", {})).get("content", {}).values():
                for name, s in deref(kind["schema"]).get("properties", {}).items():
                    s = deref(s)
                    if s.get("type") in ("integer", "number"):
                        yield method.upper(), path, "body", name, s["minimum"], s["maximum"]


def test_every_number_is_a_number_within_its_bounds(web):
    """What is none is refused, and changes nothing: no fraction, truth or text counts as 0 (which means "for ever")."""
    boss, seen = web.api(GLOBAL), set()
    good = {"/api/tokens": {"name": "n", "scopes": "read"}}
    for method, path, where, name, least, most in numbers():
        real = path.replace("{domain}", "a.example")
        seen.add((path, name))
        odd = ["2.5", "1e3", "true", "x", "", "-7", "0x10", " 5", "5 ", str(least - 1), str(most + 1), str(2 ** 31), str(2 ** 32 + 1), str(2 ** 63), str(2 ** 64 + 1), "9" * 40]
        odd = [v for v in odd if not (v.isdigit() and least <= int(v) <= most)]
        if where == "query":
            for v in odd:
                assert boss.fails(400, method, f"{real}?{name}={urllib.request.quote(v)}"), (path, name, v)
            for v in (least, most):
                boss.ok(method, f"{real}?{name}={v}")
        else:
            count = lambda: len(boss.get("/api/tokens"))
            before = count()
            for v in (2.5, 7.0, 1e300, True, False, [], [30], {}, {"days": 30}, "30", "", least - 1, most + 1, 2 ** 31, 2 ** 62):
                assert boss.fails(400, method, real, body=good[path] | {name: v}), (path, name, v)
            for v in odd:
                assert boss.fails(400, method, real, form=good[path] | {name: v}), (path, name, v)
            assert count() == before
            for v in (least, most):
                boss.ok(method, real, body=good[path] | {name: v})
                boss.ok(method, real, form=good[path] | {name: str(v)})
            assert count() == before + 4
    assert {("/api/tokens", "days"), ("/api/log", "before"), ("/api/log", "limit"), ("/api/queue", "limit"), ("/api/domains", "limit"),
            ("/api/users/{domain}", "limit")} <= seen, seen
    for v in ("x", "-1", "1.5", "1x", "9" * 40):
        assert boss.fails(400, "GET", f"/api/queue?after={v}"), v
        assert boss.fails(404, "DELETE", f"/api/token/{v}"), v


def test_the_largest_page_says_that_there_is_more(dns):
    """A list of as many names as may be asked for at once is not taken for all there are."""
    with site(dns) as w:
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db", 20)) as c:
            c.executemany("INSERT INTO domain (domain) VALUES (?)", [(f"d{i}.example",) for i in range(499)])
            c.executemany("INSERT INTO mailbox (username, domain) VALUES (?, 'b.example')", [(f"u{i}@b.example",) for i in range(499)])
            c.commit()
        boss = w.api(GLOBAL)
        for path, what, n in (("domains", "domains", 501), ("users/b.example", "users", 500)):
            got = boss.get(f"/api/{path}?limit=500")
            assert len(got[what]) == 500 and got["more"] is (n > 500), what
        rest = boss.get(f"/api/domains?limit=500&after={boss.get('/api/domains?limit=500')['domains'][-1]['name']}")
        assert len(rest["domains"]) == 1 and not rest["more"]


def test_a_month_of_history_is_shown(dns):
    """A sample a minute: they are grouped without a file, which the page's process may not make."""
    with site(dns) as w:
        at = int(time.time()) // 60 * 60
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            c.executemany("INSERT OR REPLACE INTO sample VALUES (?, 1234567, 70000, 70000, 123456)",
                          [(at - 60 * i,) for i in range(31 * 1440)])
            c.commit()
        boss = w.api(GLOBAL)
        assert {span: len(boss.get(f"/api/dashboard?range={span}")["history"]["at"]) >= 60 for span in ("hour", "day", "week", "month")} \
            == dict.fromkeys(("hour", "day", "week", "month"), True)
