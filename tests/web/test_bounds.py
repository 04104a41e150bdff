"""What strangers, and administrators of some domains, cannot take from all others: places, time, disk."""
import contextlib
import http.client
import pathlib
import re
import socket
import sqlite3
import threading
import time

import pytest
import servers
from kit import SLOW, FakeRelay, at_once, wait_ended, wait_for
from webkit import GLOBAL, OF_DOMAIN, SECRET, Web, hanging, log_in, run, site


# -- places --

HALVES = {"head": b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", "body": b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"}


@pytest.mark.parametrize("half_of", HALVES)
def test_requests_that_never_end_shut_nobody_out(web, half_of):
    """As many as there are connections, each with half a request: they are given up soon, and others are served."""
    half = [socket.create_connection(("127.0.0.1", web.web_port)) for _ in range(256)]
    for s in half:
        s.sendall(HALVES[half_of])

    def served():
        "an answer to others"
        with contextlib.suppress(OSError):
            return web.api().request("GET", "/healthz")[0] == 200
    wait_for(served)
    for s in half:
        s.close()


def test_requests_that_come_slowly_shut_nobody_out(web):
    """Four strangers hold more connections than there are, each with a request that comes on all the time and never ends."""
    def stranger(i):
        s = socket.create_connection(("127.0.0.1", web.web_port), source_address=(f"127.0.0.{2 + i % 4}", 0))
        s.sendall(HALVES["head"])
        return s
    boss = web.api(GLOBAL)
    slow, over = [stranger(i) for i in range(320)], threading.Event()
    def come_on():
        while not over.wait(1):
            for i, s in enumerate(slow):
                with contextlib.suppress(OSError):
                    s.sendall(b"x")
                    continue
                with contextlib.suppress(OSError):
                    slow[i] = stranger(i)
    thread = threading.Thread(target=come_on)
    thread.start()

    def served():
        "an answer to others"
        with contextlib.suppress(OSError):
            return boss.request("GET", "/api/session")[0] == 200
    try:
        for _ in range(3):
            wait_for(served)
    finally:
        over.set()
        wait_ended(thread)
        for s in slow:
            s.close()


def test_a_tenants_requests_shut_nobody_out(dns):
    """Those that wait for something are bounded: others have places left."""
    with site(dns) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        codes = []
        def ask():
            codes.append(local.request("GET", "/api/effective?account=a.example")[0])
        threads = [threading.Thread(target=ask) for _ in range(40)]
        with hanging(w):
            for t in threads:
                t.start()
            wait_for(lambda: codes.count(503) >= 8)
            assert boss.get("/api/session") and local.request("GET", "/api/session")[0] == 503
        wait_ended(*threads)
        assert len(codes) == 40 and local.get("/api/session")


def test_nobodys_guesses_keep_an_owner_out(dns):
    """Strangers of any number of addresses make an account wait, but not where its owner has signed in before."""
    with site(dns) as w:
        assert log_in(w, GLOBAL, SECRET, "2001:db8:7:8::1") == 200
        def strangers_wait():
            "strangers who have to wait for the account"
            return 429 in [log_in(w, GLOBAL, "wrong", f"192.0.2.{n}") for n in range(1, 12)]
        for _ in range(2):
            wait_for(strangers_wait)
            assert log_in(w, GLOBAL, SECRET, "2001:db8:7:8::2") == 200


def test_strangers_of_many_addresses_who_guess_take_few_places(dns):
    """Each may guess, and a guess takes as long as the store does, or its hash: 32 are looked at at a time, in little memory."""
    with site(dns) as w:
        boss = w.api(GLOBAL)
        codes = []
        def guess(i):
            with contextlib.suppress(OSError, http.client.HTTPException):  # one of those that have made room
                codes.append(log_in(w, f"nobody{i}@a.example", "wrong", f"2001:db8:{i:x}::1"))
        threads = [threading.Thread(target=guess, args=(i,)) for i in range(150)]
        for t in threads:
            t.start()
        wait_for(lambda: 503 in codes)
        assert boss.get("/api/session") and log_in(w, GLOBAL, SECRET, "127.0.0.1") == 200
        wait_ended(*threads)
        assert set(codes) == {401, 503}, codes
        status = pathlib.Path(f"/proc/{w.web.pid}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 300000 * SLOW, status


def test_a_tenant_who_signs_in_all_the_time_keeps_nobody_from_signing_in(dns):
    """From an address that is known, with the right password, which forgives what came before: some of the places are others'."""
    with site(dns) as w:
        assert log_in(w, GLOBAL, SECRET, "192.0.2.1") == log_in(w, OF_DOMAIN, SECRET, "198.51.100.1") == 200
        codes, over = [], threading.Event()
        def tenant():
            while not over.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    codes.append(log_in(w, OF_DOMAIN, SECRET, "198.51.100.1"))
        threads = [threading.Thread(target=tenant) for _ in range(60)]
        for t in threads:
            t.start()
        try:
            wait_for(lambda: codes.count(200) > 5 and 503 in codes)
            assert [log_in(w, GLOBAL, SECRET, "192.0.2.1") for _ in range(20)] == [200] * 20
        finally:
            over.set()
            wait_ended(*threads)


def test_a_tenants_long_lists_keep_nobody_from_writing_records(dns):
    """As many records as a domain may have, each for as many users as fit: one more is compared with all of them, while others wait."""
    def users(i):
        return ",".join(f"ü{i:02d}{k:04d}@a.example" for k in range(3200))
    with site(dns) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        record = {"hosts": "[127.0.0.1]:9", "nexthop": "hub.example", "tls": "may", "owner": "a.example"}
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "relays.db", 20)) as c:
            c.executemany("INSERT INTO relay (name, nexthop, account, hosts, owner) VALUES (?, 'hub.example', ?, 'x.example', 'a.example')",
                          [(f"r{i}", users(i)) for i in range(98)])
            c.commit()
        thread = threading.Thread(target=lambda: boss.ok("PUT", "/api/relay/more", body=dict(record, **{"for": users(98)})))
        thread.start()
        time.sleep(0.5)
        w.api(GLOBAL).ok("PUT", "/api/relay/boss", body={"hosts": "[127.0.0.1]:10", "tls": "may"})
        wait_ended(thread)
        assert "already for the next hop" in local.fails(400, "PUT", "/api/relay/last", body=dict(record, **{"for": "Ü970003@a.example"}))
        local.ok("DELETE", "/api/relay/more")


def test_a_tenant_who_changes_all_users_keeps_nobody_from_saving():
    """As long as a store needs for all users of a domain, other domains are changed, and nothing else waits for that domain's turn."""
    store = servers.Postgres()
    w = Web("accounts_store = pgsql:{dir}/store.cf\nsender_dependent_relayhost_maps = accounts:$accounts_store\n",
            files={"store.cf": servers.store_file(store)})
    for d in "a", "b":
        servers.add_user(store, f"ann@{d}.example", "{PLAIN}" + SECRET)
    servers.add_admin(store, GLOBAL, "{PLAIN}" + SECRET)
    servers.add_admin(store, OF_DOMAIN, "{PLAIN}" + SECRET, "a.example")
    with w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        codes, saved = [], []
        def all_users():
            codes.append(local.request("PUT", "/api/users/a.example", body={"transport": "smtp:[127.0.0.1]:9"})[0])
        def one_user():
            saved.append(local.request("PUT", "/api/user/ann@a.example", body={"outboundRelay": "[127.0.0.1]:9"})[0])
        with store.locked("SELECT 1 FROM mailbox WHERE domain = 'a.example' FOR UPDATE"):
            threads = [threading.Thread(target=all_users) for _ in range(8)]
            for t in threads:
                t.start()
            wait_for(lambda: len(codes) == 7)
            threads.append(threading.Thread(target=one_user))
            threads[-1].start()
            boss.ok("PUT", "/api/domain/b.example", body={"outboundRelay": "[127.0.0.1]:9"})
            assert codes == [503] * 7 and saved == []
        wait_ended(*threads)
        assert codes[7:] == [200] and saved == [200]
    store.stop()


def test_domains_that_are_changed_at_once_share_a_record(dns):
    """Each is let use the record, whose users are read and written back: none is told that another came between."""
    domains = [f"d{i}.example" for i in range(12)]
    with site(dns) as w:
        for d in domains:
            w.command("domain", "add", d)
        boss = w.api(GLOBAL)
        boss.ok("PUT", "/api/relay/hub", body={"hosts": "[127.0.0.1]:9", "user": "u", "password": "p", "tls": "may"})
        codes = []
        at_once(lambda d: codes.append(boss.request("PUT", f"/api/domain/{d}", body={"outboundRelay": "hub"})), *[(d,) for d in domains])
        assert [c for c in codes if c[0] != 200] == []
        assert {f"@{d}" for d in domains} <= set(boss.get("/api/relay/hub")["for"].replace(" ", "").split(","))


class WithoutLimit(servers.Slapd):
    """As iRedMail has it: a search gives all entries that fit."""
    more = "sizelimit unlimited\n"


def test_a_tenants_search_looks_through_no_domain_of_others():
    """In a directory a search gives all users of the server that fit: others' domains are not asked for, and hide nothing."""
    store = WithoutLimit()
    for user in *[f"ann{i:02d}@b.example" for i in range(30)], "ann90@a.example", "ann95@c.example", "bob@c.example":
        servers.add_user(store, user, SECRET)
    servers.add_admin(store, GLOBAL, SECRET)
    servers.add_admin(store, OF_DOMAIN, SECRET, "a.example", "c.example")
    w = Web("accounts_store = ldap:{dir}/store.cf\n", files={"store.cf": servers.store_file(store)})
    with w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        def found(api, q):
            return [u["name"] for u in api.get(f"/api/search?q={q}")["users"]]
        assert found(local, "ann") == ["ann90@a.example", "ann95@c.example"]
        assert found(local, "b") == ["bob@c.example"] and found(local, "ann0") == []
        assert found(boss, "ann") == [f"ann{i:02d}@b.example" for i in range(20)] and boss.get("/api/search?q=ann")["more"]
    store.stop()


def assert_one_waits(store):
    """Of all connections to the database one waits for a lock, also after a while."""
    def waiting():
        return int(store.run("SELECT COUNT(*) FROM pg_locks WHERE NOT granted"))
    wait_for(waiting)
    time.sleep(0.5)
    assert waiting() == 1


def test_a_tenants_requests_ask_once_who_the_tenant_is():
    """However many come at a time: a database has 100 connections, and mail needs some."""
    store = servers.Postgres()
    w = Web("accounts_store = pgsql:{dir}/store.cf\n", files={"store.cf": servers.store_file(store)})
    servers.add_user(store, "ann@a.example", "{PLAIN}" + SECRET)
    servers.add_admin(store, OF_DOMAIN, "{PLAIN}" + SECRET, "a.example")
    with w:
        local, codes = w.api(OF_DOMAIN), []
        with store.locked("LOCK TABLE admin IN ACCESS EXCLUSIVE MODE; SELECT 1"):
            time.sleep(2.1)  # until the page asks again
            threads = [threading.Thread(target=lambda: codes.append(local.request("GET", "/api/session")[0])) for _ in range(30)]
            for t in threads:
                t.start()
            assert_one_waits(store)
        wait_ended(*threads)
        assert codes == [200] * 30
    store.stop()


def test_a_tenants_lists_are_made_one_at_a_time():
    """A program that asks for many at once keeps a database, which mail asks too, busy with one of them."""
    store = servers.Postgres()
    w = Web("accounts_store = pgsql:{dir}/store.cf\n", files={"store.cf": servers.store_file(store)})
    for d in "a", "b":
        servers.add_user(store, f"ann@{d}.example", "{PLAIN}" + SECRET)
    servers.add_admin(store, OF_DOMAIN, "{PLAIN}" + SECRET, "a.example")
    with w:
        local, codes = w.api(OF_DOMAIN), []
        def ask(path):
            codes.append(local.request("GET", path)[0])
        with store.locked("LOCK TABLE mailbox IN ACCESS EXCLUSIVE MODE; SELECT 1"):
            paths = ["/api/users/a.example", "/api/search?q=a", "/api/domains"] * 3
            threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
            for t in threads:
                t.start()
            assert_one_waits(store)
            assert local.request("GET", "/api/session")[0] == 200
        wait_ended(*threads)
        assert codes == [200] * 9
    store.stop()


@pytest.mark.parametrize("mails, rcpts", [(2000, 1), (20, 100)])
def test_who_saves_all_the_time_holds_up_no_mail(dns, mails, rcpts):
    """Mail that waits is routed anew for what is saved, all of it: the more waits, the longer until that is done once more."""
    over = threading.Event()
    with FakeRelay(replies={"EHLO": lambda line: over.wait(60) and "250 fake.relay"}) as relay, \
            site(dns, f"relayhost = [127.0.0.1]:{relay.port}\n") as w, w.client() as c:
        for _ in range(mails):
            c.mail("ann@b.example", [f"x{i}@far.example" for i in range(rcpts)])
        assert w.api(GLOBAL).get("/api/queue/counts")["active"] == mails
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        ended = []
        def save(api, domain, port):
            api.ok("PUT", f"/api/domain/{domain}", body={"outboundRelay": f"[127.0.0.1]:{port}"})
            ended.append(time.monotonic())
        save(local, "a.example", 1)
        at_once(save, *[(local, "a.example", port) for port in range(2, 6)], (boss, "b.example", 1))
        assert ended[1] - ended[0] > 0.3, ended
        assert ended[5] - ended[0] < 10, ended  # those that wait are served together
        over.set()


def test_strangers_who_ask_for_its_health_leave_the_daemon_alone(dns):
    """It looks through its queue for an answer: however many ask, it is asked once a second."""
    with site(dns) as w, stats_asked(w) as asked:
        over = time.monotonic() + 2
        def ask():
            while time.monotonic() < over:
                assert w.api().request("GET", "/healthz")[0] == 200
        at_once(ask, *[()] * 4)
        assert 1 <= len(asked) <= 4, len(asked)


def test_who_asks_for_the_health_of_a_daemon_that_hangs_keeps_no_place(dns):
    """One waits for it: the others have what it said last."""
    with site(dns) as w:
        codes = []
        def ask():
            codes.append(w.api().request("GET", "/healthz")[0])
        ask()
        with hanging(w):
            time.sleep(1.5)  # longer than that answer is good for
            threads = [threading.Thread(target=ask) for _ in range(20)]
            for t in threads:
                t.start()
            wait_ended(*threads)
        assert codes[0] == 200 and 503 in codes and 200 in codes[1:], codes


@contextlib.contextmanager
def stats_asked(w):
    """What the page asks the daemon for meanwhile: a list that grows, of sockets between the two."""
    place, behind = w.dir / "spool/control.sock", w.dir / "spool/behind.sock"
    asked = []
    place.rename(behind)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))
        place.chmod(0o666)
        door.listen(64)
        def pass_on(client):
            with client, socket.socket(socket.AF_UNIX) as daemon:
                request = client.makefile("rb").readline()
                if b'"stats"' in request:
                    asked.append(request)
                daemon.connect(str(behind))
                daemon.sendall(request)
                daemon.shutdown(socket.SHUT_WR)
                while data := daemon.recv(65536):
                    client.sendall(data)
        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=pass_on, args=(door.accept()[0],)).start()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield asked
        finally:
            door.shutdown(socket.SHUT_RDWR)
            wait_ended(thread)
            behind.rename(place)


def test_a_list_of_many_records_looks_through_the_store_once(dns):
    """A domain's records have the next hop that most accounts of the server have: how many use each is counted for all of them."""
    with site(dns) as w:
        hop = "[smtp.provider.example]:587"
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db", 20)) as c:
            c.executemany("INSERT INTO sender_relayhost (account, relayhost) VALUES (?, ?)",
                          [(f"u{i}@{'A' if i < 50 else 'b'}.example", "R7" if i == 7 else hop.upper()) for i in range(30000)])
            c.commit()
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "relays.db", 20)) as c:
            c.executemany("INSERT INTO relay (name, nexthop, account, hosts, owner) VALUES (?, ?, ?, ?, 'a.example')",
                          [(f"r{i}", hop, f"u{i}@a.example", hop) for i in range(100)])
            c.execute("INSERT INTO relay (name, nexthop, account, hosts) VALUES ('all', ?, '', ?)", (hop, hop))
            c.commit()
        for who in OF_DOMAIN, GLOBAL:
            api, begun = w.api(who), time.monotonic()
            used = {r["name"]: r["used_by"] for r in api.get("/api/relays")["records"]}
            assert time.monotonic() - begun < 3 * SLOW, who
            assert used.pop("all", 29999) == 29999
            assert used == {f"r{i}": 50 if i == 7 else 49 for i in range(100)}


def test_answers_that_a_tenant_does_not_take_are_few(dns):
    """The longest list of records that a domain may have, asked for where nobody reads: memory has few of these answers."""
    users = ",".join(f"{'u' * 60}{k:04d}@a.example" for k in range(860))
    with site(dns) as w, contextlib.ExitStack() as stack:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "relays.db", 20)) as c:
            c.executemany("INSERT INTO relay (name, nexthop, account, hosts, owner) VALUES (?, ?, ?, ?, 'a.example')",
                          [(f"r{i}", f"[127.0.0.1]:{i + 1}", users, f"[127.0.0.1]:{i + 1}") for i in range(100)])
            c.commit()
        assert len(local.get("/api/relays")["records"]) == 100
        answers = []
        for _ in range(60):
            s = stack.enter_context(socket.socket())
            s.settimeout(60 * SLOW)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", w.web_port))
            s.sendall(f"GET /api/relays HTTP/1.1\r\nHost: x\r\nCookie: {local.cookie}\r\n\r\n".encode())
            answers.append(s)
        codes = [s.recv(12).decode() for s in answers]
        assert 0 < codes.count("HTTP/1.1 200") < 6 and codes.count("HTTP/1.1 503") > 54, codes
        assert local.get("/api/session") and boss.get("/api/relays")
        stack.close()
        wait_for(lambda: local.request("GET", "/api/relays")[0] == 200)


# -- disk --

def test_the_log_of_a_token_for_one_domain_is_bounded(dns):
    """It is the log of the administrator that made the token: one of some domains keeps 10,000 entries, one of everything all."""
    with site(dns) as w:
        for who in OF_DOMAIN, GLOBAL:
            token = w.api(who).ok("POST", "/api/tokens", body={"name": "t", "scopes": "accounts", "domain": "a.example"})["token"]
            with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
                c.executemany("INSERT INTO log (admin, ip, msg) VALUES (?, '', ?)", [(who, str(i)) for i in range(10200)])
                c.commit()
            w.api(token=token).ok("PUT", "/api/user/ann@a.example", form={"transport": "smtp:[127.0.0.1]:9"})
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            kept = dict(c.execute("SELECT admin, COUNT(*) FROM log GROUP BY admin").fetchall())
        assert kept[OF_DOMAIN] == 10000 and kept[GLOBAL] > 10200, kept


def test_sessions_of_a_tenant_are_bounded(dns):
    """A program that signs in again and again ends its older sessions; administrators of everything keep theirs."""
    with site(dns) as w:
        first = {who: w.api(who) for who in (GLOBAL, OF_DOMAIN)}
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            c.executemany("INSERT INTO session (hash, admin, csrf, page, ip, created, used) VALUES (?, ?, '', 0, '', ?, ?)",
                          [(f"{who}{i}", who, int(time.time()), int(time.time())) for who in first for i in range(1010)])
            c.commit()
        last = {who: w.api(who) for who in first}
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            kept = dict(c.execute("SELECT admin, COUNT(*) FROM session GROUP BY admin").fetchall())
        assert kept == {GLOBAL: 1012, OF_DOMAIN: 1000}, kept
        assert first[GLOBAL].get("/api/session") and first[OF_DOMAIN].fails(401, "GET", "/api/session")
        assert all(api.get("/api/session")["admin"] == who for who, api in last.items())


def test_what_a_tenant_may_keep_is_bounded(dns):
    """Results, log, tokens and records: a program of a domain's administrator can neither fill the disk nor slow down look-ups."""
    with site(dns) as w:
        boss, local = w.api(GLOBAL), w.api(OF_DOMAIN)
        record = {"hosts": "[127.0.0.1]:9", "tls": "may", "owner": "a.example"}
        def insert(db, sql, rows):
            with contextlib.closing(sqlite3.connect(w.dir / "data" / db, 20)) as c:
                c.executemany(sql, rows)
                c.commit()
        insert("web.db", "INSERT INTO run VALUES (?, 'explain', 'ann@a.example', '', ?, ?, 1, '[]')",
               [(f"{who}{i}", who, int(time.time())) for who in (OF_DOMAIN, GLOBAL) for i in range(510)])
        ident = run(local, kind="explain", sender="ann@a.example", recipient="b@c.example")["id"]
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            kept = dict(c.execute("SELECT admin, COUNT(*) FROM run GROUP BY admin").fetchall())
        assert kept == {OF_DOMAIN: 500, GLOBAL: 510}
        assert local.get(f"/api/run/{ident}") and local.get(f"/api/run/{OF_DOMAIN}11")
        assert "the last 500" in local.fails(404, "GET", f"/api/run/{OF_DOMAIN}10")
        insert("web.db", "INSERT INTO log (admin, ip, msg) VALUES (?, '', ?)",
               [(who, str(i)) for who in (GLOBAL, OF_DOMAIN) for i in range(10200)])
        local.ok("PUT", "/api/user/ann@a.example", form={"transport": "smtp:[127.0.0.1]:9"})
        boss.ok("PUT", "/api/user/ann@a.example", form={"transport": ""})
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "web.db", 20)) as c:
            kept = dict(c.execute("SELECT admin, COUNT(*) FROM log GROUP BY admin").fetchall())
        assert kept[OF_DOMAIN] == 10000 and kept[GLOBAL] > 10200, kept
        assert "Update user" in boss.get(f"/api/log?admin={OF_DOMAIN}&limit=1")["entries"][0]["msg"]
        insert("web.db", "INSERT INTO token (name, hash, scopes, domain, admin, created, expires) VALUES ('x', ?, 'read', '', ?, 1, 0)",
               [(f"{who}{i}", who) for who in (OF_DOMAIN, GLOBAL) for i in range(1000)])
        one = {"name": "one more", "scopes": "read"}
        assert "1000 tokens" in local.fails(409, "POST", "/api/tokens", body=one) and boss.ok("POST", "/api/tokens", body=one)
        local.ok("DELETE", f"/api/token/{local.get('/api/tokens')[0]['id']}")
        local.ok("POST", "/api/tokens", body=one)
        insert("relays.db", "INSERT INTO relay (name, nexthop, account, hosts, owner) VALUES (?, ?, '@a.example', ?, 'a.example')",
               [(f"r{i}", f"[127.0.0.1]:{i + 1}", f"[127.0.0.1]:{i + 1}") for i in range(100)])
        other = dict(record, hosts="[127.0.0.1]:999")
        assert "at most 100 records" in local.fails(400, "PUT", "/api/relay/more", body=other)
        local.ok("PUT", "/api/relay/r7", body={"tls": "encrypt"})
        local.ok("DELETE", "/api/relay/r8")
        local.ok("PUT", "/api/relay/more", body=other)
        long = {"for": ",".join(f"u{k:04d}@a.example" for k in range(3800))}  # 64 KB
        for i in range(1, 5):
            local.ok("PUT", f"/api/relay/r{i}", body=long)
        assert "at most 256 KiB in all" in local.fails(400, "PUT", "/api/relay/r5", body=long)
        local.ok("PUT", "/api/relay/r1", body={"for": "ann@a.example"})
        local.ok("PUT", "/api/relay/r5", body=long)
        boss.ok("PUT", "/api/relay/still", body=dict(record, hosts="[127.0.0.1]:998"))
