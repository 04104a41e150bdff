"""Tables in real MariaDB, PostgreSQL and SQLite: the keys of test_seed.py, asked of databases."""
import os
import re
import subprocess
import time

import pytest
from kit import POSTHOUSE, FakeRelay, Posthouse, wait_for

import servers

BY_SENDER = "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"


@pytest.fixture(scope="module", params=[servers.MariaDb, servers.Postgres, servers.Sqlite], ids=["mysql", "pgsql", "sqlite"])
def db(request):
    server = request.param()
    yield server
    server.stop()


@pytest.fixture
def clean(db):
    db.run("DELETE FROM sender_relayhost")
    return db


def daemon(dns, server, relay, query=BY_SENDER, more="", **conf):
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nrecipient_delimiter = +\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"
                  f"sender_dependent_relayhost_maps = proxy:{server.type}:{{dir}}/sender_relayhost.cf\n{more}", dns=dns,
                  files={"sender_relayhost.cf": servers.table_file(server, query, **conf)})
    (p.dir / "sender_relayhost.cf").chmod(0o640)
    return p


def senders(relay):
    return sorted(re.search(r"<(.*?)>", m["from"]).group(1) for m in relay.mails)


def test_the_seeds_statements(dns, clean):
    """User beats domain beats global, whatever the case and the extension; the next message sees a change."""
    everybody, domain, user = FakeRelay(), FakeRelay(), FakeRelay()
    with daemon(dns, clean, everybody) as p:
        p.send(sender="early@domain.com")
        wait_for(lambda: senders(everybody) == ["early@domain.com"])
        clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[127.0.0.1]:{domain.port}');")
        clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('user@domain.com', '[127.0.0.1]:{user.port}');")
        time.sleep(1)
        for s in ("user@domain.com", "other@domain.com", "someone@elsewhere.com", "USER+tag@Domain.COM", ""):
            assert p.send(sender=s).startswith("250")
        wait_for(lambda: len(everybody.mails) + len(domain.mails) + len(user.mails) == 6)
        assert senders(user) == ["USER+tag@Domain.COM", "user@domain.com"]
        assert senders(domain) == ["other@domain.com"]
        assert senders(everybody) == ["", "early@domain.com", "someone@elsewhere.com"]
        clean.run("DELETE FROM sender_relayhost WHERE account = 'user@domain.com'")
        time.sleep(1)
        p.send(sender="user@domain.com")
        wait_for(lambda: len(domain.mails) == 2)
        assert servers.PASSWORD not in p.log()
    for r in (everybody, domain, user):
        r.stop()


def test_letters_with_accents_are_other_letters(dns, clean):
    """Whatever is equal to the database: the mail of one domain goes by no other's relay host."""
    rows = {"@skard.example": "[s.example]:1", "@høyde.example": "[hø.example]:2", "o'dé@kort.example": "[q.example]:3",
            "plain@kort.example": "[p.example]:4", "@Håve.example": "[h.example]:5"}
    hops = {"a@skard.example": "[s.example]:1", "a@xn--skrd-moa.example": None, "a@skärd.example": None,
            "a@høyde.example": "[hø.example]:2", "a@xn--hyde-gra.example": "[hø.example]:2", "o'dé@kort.example": "[q.example]:3",
            "pläin@kort.example": None, "a@håve.example": None, "plain@kort.example": "[p.example]:4"}
    for account, host in rows.items():
        clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ({quoted(clean, account)}, '{host}')")
    with FakeRelay() as relay, daemon(dns, clean, relay, "SELECT relayhost FROM sender_relayhost WHERE account='%s'") as p:
        for sender, host in hops.items():
            said = p.run("explain", sender).stdout
            assert f"next hop {host or f'[127.0.0.1]:{relay.port}'}" in said, (sender, said)


@pytest.mark.parametrize("db", [servers.MariaDb], ids=["mysql"], indirect=True)
def test_a_backslash_that_is_a_letter(dns, clean):
    """Where the server takes a backslash for itself, a text ends where it says: accents and backslashes are still letters."""
    rows = {"@skard.example": "[s.example]:1", "@høyde.example": "[hø.example]:2"}
    hops = {"a@skärd.example": None, "a@høyde.example": "[hø.example]:2"}
    for account, host in rows.items():
        clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('{account}', '{host}')")
    clean.run("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'")
    try:
        query = "SELECT relayhost FROM sender_relayhost WHERE account <> '\\' AND account='%s'"
        with FakeRelay() as relay, daemon(dns, clean, relay, query) as p:
            for sender, host in hops.items():
                said = p.run("explain", sender).stdout
                assert f"next hop {host or f'[127.0.0.1]:{relay.port}'}" in said, (sender, said)
    finally:
        clean.run("SET GLOBAL sql_mode = DEFAULT")


@pytest.mark.parametrize("db", [servers.MariaDb, servers.Postgres], ids=["mysql", "pgsql"], indirect=True)
def test_a_server_that_refuses_is_not_the_only_one(dns, clean):
    """One of two servers is there and refuses each question, as one that its cluster has left behind: the other one is asked."""
    clean.run("INSERT INTO sender_relayhost (account, relayhost) VALUES ('user@mydomain.com', '[own.example]:1')")
    other = type(clean)()
    try:
        other.run("DROP TABLE sender_relayhost")
        text = servers.table_file(clean, BY_SENDER).replace(f":{clean.port}", f":{clean.port} 127.0.0.1:{other.port}")
        with Posthouse("relayhost = [127.0.0.1]:25\n", dns=dns, files={"t.cf": text}) as p:
            (p.dir / "t.cf").chmod(0o644)
            for command in ("/usr/sbin/postmap",), (POSTHOUSE, "postmap"):
                for _ in range(8):
                    got = subprocess.run([*command, "-q", "user@mydomain.com", f"{clean.type}:{p.dir}/t.cf"],
                                         capture_output=True, text=True)
                    assert got.stdout == "[own.example]:1\n", (command, got)
    finally:
        other.stop()


@pytest.mark.parametrize("db", [servers.MariaDb], ids=["mysql"], indirect=True)
def test_a_login_by_plugin(dns, clean):
    """MariaDB's ed25519, as MySQL 8's own default, is a plugin that the client library loads when the server asks for it."""
    everybody, relay = FakeRelay(), FakeRelay()
    clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('user@mydomain.com', '[127.0.0.1]:{relay.port}')")
    clean.run("INSTALL SONAME 'auth_ed25519'; CREATE USER signer@'127.0.0.1' IDENTIFIED VIA ed25519 USING PASSWORD('word');"
              "GRANT SELECT ON vmail.* TO signer@'127.0.0.1'")
    with daemon(dns, clean, everybody, user="signer", password="word") as p:
        assert p.send(sender="user@mydomain.com").startswith("250")
        relay.wait_mails(1)
        assert not everybody.mails
    everybody.stop()
    relay.stop()


def break_down(p, db):
    db.down()
    return db.up


def break_query(p, db):
    good = (p.dir / "sender_relayhost.cf").read_text()
    (p.dir / "sender_relayhost.cf").write_text(good.replace("FROM sender_relayhost", "FROM no_such_table"))
    return lambda: (p.dir / "sender_relayhost.cf").write_text(good)


def break_password(p, db):
    good = (p.dir / "sender_relayhost.cf").read_text()
    (p.dir / "sender_relayhost.cf").write_text(good.replace("= " + servers.PASSWORD, "= wrong-" + servers.PASSWORD))
    return lambda: (p.dir / "sender_relayhost.cf").write_text(good)


def break_file(p, db):
    good = (p.dir / "sender_relayhost.cf").read_text()
    (p.dir / "sender_relayhost.cf").unlink()
    return lambda: (p.dir / "sender_relayhost.cf").write_text(good)


@pytest.mark.parametrize("how", [break_down, break_query, break_password, break_file])
def test_fail_closed(dns, clean, how):
    """Whatever is wrong: 451 or deferred, never the relay host for everybody; and mail goes when it is mended."""
    if how is break_password and clean.type == "sqlite":
        return
    everybody, domain = FakeRelay(), FakeRelay()
    clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[127.0.0.1]:{domain.port}');")
    with daemon(dns, clean, everybody) as p:
        p.send(sender="before@domain.com")
        wait_for(lambda: senders(domain) == ["before@domain.com"])
        mend = how(p, clean)
        time.sleep(1)
        replies = [p.send(sender=f"during{i}@domain.com")[:9] for i in range(3)]
        assert set(replies) <= {"250 2.0.0", "451 4.3.0"}, replies
        mend()
        taken = sum(r.startswith("250") for r in replies)
        wait_for(lambda: len(domain.mails) == 1 + taken)
        wait_for(lambda: p.send(sender="after@domain.com").startswith("250"), 20, 0.3)
        wait_for(lambda: "after@domain.com" in senders(domain))
        assert everybody.sessions == []
        assert servers.PASSWORD not in p.log()
        print(re.findall(r".*warning.*", p.log())[:3])
    everybody.stop()
    domain.stop()


# Queries, result formats and further parameters, each asked with every key, of Debian's postmap too.
TEMPLATES = [
    ("SELECT v FROM t WHERE k = '%s'", {}),
    ("SELECT v FROM t WHERE k = '%u'", {}),
    ("SELECT v FROM t WHERE k = '%d'", {}),
    ("SELECT v FROM t WHERE k = '%u@%d'", {}),
    ("SELECT v FROM t WHERE k = '%U@%2.%1'", {}),
    ("SELECT v FROM t WHERE k = '%D' AND '%S' LIKE '%%@%%'", {}),
    ("SELECT v FROM t WHERE k = '%3'", {}),
    ("SELECT v, k FROM t WHERE k = '%s' ORDER BY v", {}),
    ("SELECT v FROM t WHERE k = '%s' ORDER BY v", {"result_format": "smtp:%s"}),
    ("SELECT v FROM t WHERE k = '%s' ORDER BY v", {"result_format": "%u at %d of %U and %D"}),
    ("SELECT v FROM t WHERE k = '%s' ORDER BY v", {"result_format": "%S %1 %%"}),
    ("SELECT v FROM t WHERE k = '%s' ORDER BY v", {"domain": "example.com, other.example"}),
    ("SELECT v FROM t WHERE k = '%s' ORDER BY v", {"expansion_limit": "1"}),
    ("SELECT v FROM t WHERE k = '%s' ORDER BY v", {"expansion_limit": "2"}),
    ("SELECT nothing FROM nowhere", {}),
]
KEYS = ["user@example.com", "USER@Example.COM", "many@example.com", "empty@example.com", "null@example.com", "user", "example.com",
        "@example.com", "user@", "a@b@example.com", "o'neil@example.com", "back\\slash@example.com", "user@other.example",
        "user@sub.example.com", "käse@example.com", "none@example.com", "com", "%s@example.com"]
ROWS = [("user@example.com", "[relay.example]:25"), ("many@example.com", "one@a.example"), ("many@example.com", "two@b.example"),
        ("empty@example.com", ""), ("null@example.com", None), ("user", "just user"), ("example.com", "a domain"), ("sub", "label"),
        ("o'neil@example.com", "quoted"), ("back\\slash@example.com", "escaped"), ("user@other.example", "x@y"), ("com", "tld"),
        ("käse@example.com", "utf8"), ("a@b@example.com", "two ats"), ("%s@example.com", "percent"), ("@example.com", "at")]


def quoted(db, text):
    text = "NULL" if text is None else "'" + text.replace("'", "''") + "'"
    return text.replace("\\", "\\\\") if db.type == "mysql" else text


@pytest.fixture(scope="module")
def filled(db):
    db.run("CREATE TABLE t (k VARCHAR(255), v VARCHAR(255))")
    for k, v in ROWS:
        db.run(f"INSERT INTO t VALUES ({quoted(db, k)}, {quoted(db, v)})")
    if db.type == "pgsql":
        db.run("GRANT SELECT ON t TO vmail")
    return db


@pytest.mark.parametrize("n", range(len(TEMPLATES)))
def test_templates_like_postfix(filled, tmp_path, n):
    query, more = TEMPLATES[n]
    p = Posthouse("", directory=tmp_path)
    (tmp_path / "t.cf").write_text(servers.table_file(filled, query, **more))
    os.utime(tmp_path / "t.cf", (0, 0))  # Postfix waits until a table is a second old
    # Postfix 3.7 asks PostgreSQL in Latin 1 ("encoding" came with 3.8).
    keys = [k for k in KEYS if filled.type != "pgsql" or k.isascii()]
    fails = "expansion_limit" in more or "nowhere" in query  # the first error ends a postmap
    for args in [["-q", k] for k in keys[:3]] if fails else [["-q", "-"]]:
        run = dict(capture_output=True, text=True, input="".join(k + "\n" for k in keys))
        theirs = subprocess.run(["postmap", *args, f"{filled.type}:{tmp_path}/t.cf"], **run)
        ours = p.run(*args, f"{filled.type}:{tmp_path}/t.cf", face="postmap", stdin=run["input"])
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (args, theirs, ours)
        assert fails or n == 6 or theirs.stdout.count("\n") > 0 or "%3" in query


def test_mistakes_in_table_files(db, tmp_path):
    """Each is named, with the file."""
    p = Posthouse("", directory=tmp_path)
    good = servers.table_file(db, "SELECT 'x'")
    for text, want in ((good.replace("query ", "qury "), 'no "query"'), (good + "query = %x\n", "must be followed by"),
                       (good + "expansion_limit = many\n", 'bad value of "expansion_limit"'), (good + "result_format = %9%\n", "must be followed"),
                       (good.replace("dbpath", "path").replace("hosts  ", "hosts = \nhots "), 'no "')):
        (tmp_path / "t.cf").write_text(text)
        r = p.run("-q", "key", f"{db.type}:{tmp_path}/t.cf", face="postmap")
        assert r.returncode == 1 and f"{tmp_path}/t.cf" in r.stderr and want in r.stderr, (text, r)
    (tmp_path / "t.cf").write_text(good)
    assert p.run("-q", "key", f"{db.type}:{tmp_path}/t.cf", face="postmap").stdout == "x\n"


def test_a_burst_is_one_query(dns, clean):
    """200 messages of one sender: a handful of queries; counted by the server itself."""
    if clean.type != "mysql":
        return
    relay = FakeRelay(keep=False)
    clean.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[127.0.0.1]:{relay.port}');")
    questions = lambda: int(clean.run("SHOW GLOBAL STATUS LIKE 'Com_select'").split()[1])
    with daemon(dns, clean, relay) as p:
        with p.client() as c:
            before = questions()
            for _ in range(400):
                assert c.mail(sender="user@domain.com").startswith("250")
        wait_for(lambda: len(relay.mails) == 400)
        asked = questions() - before
        print(f"{asked} queries for 400 messages")
        assert asked <= 80  # a slow machine takes seconds for them: each may ask again
    relay.stop()


# Statements that a table is not meant for: None: Postfix's answer; else what is to be said.
STATEMENTS = {"mysql": [("CALL two()", None), ("CALL one()", None), ("SELECT 'a'; SELECT 'b'", None), ("DO 1", None)],
              "pgsql": [("SELECT 'a'; SELECT 'b'", None), ("SELECT 'a'; SELECT 1/0", None), ("SELECT 'a'; SET x.y = '1'", None),
                        ("COPY (SELECT 'x') TO STDOUT", "it has to be a SELECT"), (";", None)],
              "sqlite": [("SELECT 'a'; SELECT 'b'", None)]}


def test_statements_like_postfix(db, tmp_path):
    """Several statements in one, and such as give no rows: the same answer, and never one that does not come."""
    if db.type == "mysql":
        db.run("DELIMITER //\nCREATE PROCEDURE two() BEGIN SELECT 'a'; SELECT 'b'; END//")
        db.run("CREATE PROCEDURE one() SELECT 'a'")
        db.run("GRANT EXECUTE ON vmail.* TO vmail@'127.0.0.1'")
    p = Posthouse("", directory=tmp_path)
    for i, (query, said) in enumerate(STATEMENTS[db.type]):
        table = f"{db.type}:{tmp_path}/{i}.cf"
        (tmp_path / f"{i}.cf").write_text(servers.table_file(db, query))
        os.utime(tmp_path / f"{i}.cf", (0, 0))
        theirs = subprocess.run(["postmap", "-q", "u@a.test", table], capture_output=True, text=True)
        ours = p.run("-q", "u@a.test", table, face="postmap")
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (query, theirs, ours)
        assert said is None or said in ours.stderr
