"""Lookup tables and postmap, beside Debian's Postfix: each reads what the other writes."""
import os
import re
import socket
import sqlite3
import subprocess
import threading
import time

import pytest
from kit import FakeRelay, Listener, Posthouse, at_once, wait_for

SOURCE = """# a comment
alpha   one
Beta    two words  and  more
gamma   first
        continued

# in between
        and on
novalue
dup     first
dup     second
alias:  x
"quoted key" v
back\\ slash v
\\"mark v
in\\\\ two v
end\\ v
"""


@pytest.fixture
def box(tmp_path):
    p = Posthouse("", directory=tmp_path)
    (tmp_path / "src").write_text(SOURCE)
    (tmp_path / "src").chmod(0o600)
    return p


def both(box, *args, stdin=None):
    """The same command by Debian's postmap and by ours."""
    theirs = subprocess.run(["postmap", *args], capture_output=True, text=True, input=stdin,
                            env=dict(os.environ, MAIL_CONFIG=str(postfix_conf(box.dir))))
    ours = box.run(*args, face="postmap", stdin=stdin)
    return theirs, ours


def postfix_conf(d):
    c = d / "postfix-conf"
    if not c.exists():
        c.mkdir()
        (c / "main.cf").write_text("compatibility_level = 3.6\ndefault_database_type = hash\n")
    return c


SUFFIXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}
TYPES = list(SUFFIXES)


def sorted_out(r):
    return sorted(r.stdout.splitlines())


@pytest.mark.parametrize("type_", TYPES)
def test_build_like_postfix(box, type_):
    theirs, ours = both(box, f"{type_}:{box.dir}/src")
    assert theirs.returncode == ours.returncode == 0
    clean = lambda t: sorted(re.sub(r"^postmap: warning: ", "", l) for l in t.splitlines() if "chroot" not in l)
    assert clean(ours.stderr) == clean(theirs.stderr)
    assert ours.stdout == theirs.stdout == ""


@pytest.mark.parametrize("type_", TYPES)
def test_each_reads_the_other(box, type_):
    table = f"{type_}:{box.dir}/src"
    suffix = SUFFIXES[type_]
    env = dict(os.environ, MAIL_CONFIG=str(postfix_conf(box.dir)))
    subprocess.run(["postmap", table], env=env, check=True, capture_output=True)
    theirs = {k: box.postmap("-q", k, table).stdout for k in ("alpha", "beta", "gamma", "dup", "alias:")}
    dump_theirs = sorted_out(box.postmap("-s", table))
    (box.dir / ("src" + suffix)).unlink()
    box.postmap(table)
    assert oct((box.dir / ("src" + suffix)).stat().st_mode & 0o777) == "0o600"
    ours = {k: subprocess.run(["postmap", "-q", k, table], env=env, capture_output=True, text=True).stdout
            for k in theirs}
    assert ours == theirs == {"alpha": "one\n", "beta": "two words  and  more\n",
                              "gamma": theirs["gamma"], "dup": "first\n", "alias:": "x\n"}
    assert "continued" in ours["gamma"] and "and on" in ours["gamma"]
    dump = subprocess.run(["postmap", "-s", table], env=env, capture_output=True, text=True)
    if type_ != "cdb":  # Debian's postmap cannot list cdb
        assert sorted_out(dump) == dump_theirs


def test_query_status_and_case(box):
    box.postmap(f"hash:{box.dir}/src", check=False)
    for key in ("ALPHA", "alpha", "nothing", "BETA"):
        theirs, ours = both(box, "-q", key, f"hash:{box.dir}/src")
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), key
    theirs, ours = both(box, "-q", "-", f"hash:{box.dir}/src", stdin="alpha\nnothing\ndup\n")
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout) == (0, "alpha\tone\ndup\tfirst\n")
    theirs, ours = both(box, "-q", "x", f"hash:{box.dir}/missing")
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr.splitlines()[-1] == theirs.stderr.splitlines()[-1]
    theirs, ours = both(box, f"wat:{box.dir}/src")
    assert ours.returncode == theirs.returncode == 1 and "unsupported dictionary type: wat" in ours.stderr


@pytest.mark.parametrize("type_", TYPES)
def test_rows_that_postfix_has_folded_further(box, type_):
    """Its postmap puts straße.test under strasse.test; the source says which domain has the row, and nothing else does."""
    table = f"{type_}:{box.dir}/src"

    def ask(key):
        r = box.run("-q", key, table, face="postmap")
        return "error" if "under one key" in r.stderr else r.stdout.strip()

    source = box.dir / "src"
    source.write_text("κόσμος.test one\nstraße.test two\nplain.test three\n")
    subprocess.run(["postmap", table], check=True)
    assert [ask(k) for k in ("κόσμος.test", "STRAßE.test", "plain.test", "größe.test")] == ["one", "two", "three", ""]
    source.write_text("strasse.test two\n")
    assert (ask("straße.test"), ask("strasse.test")) == ("", "two")
    source.write_text("straße.test one\nstrasse.test two\n")
    assert (ask("straße.test"), ask("κόσμος.test")) == ("error", "error")
    source.unlink()
    assert (ask("straße.test"), ask("plain.test")) == ("error", "three")
    source.write_text("strasse.test two\n")
    assert box.run(table, face="postmap").returncode == 0
    assert (ask("straße.test"), ask("strasse.test")) == ("", "two")


@pytest.mark.parametrize("type_", TYPES)
def test_incremental_and_delete(box, type_):
    table = f"{type_}:{box.dir}/src"
    box.postmap(table, check=False)
    box.run("-i", table, face="postmap", stdin="extra value\nalpha new\n", check=True)
    assert box.postmap("-q", "extra", table).stdout == "value\n"
    assert box.postmap("-q", "alpha", table).stdout == "one\n"  # -r replaces, -i alone does not
    box.run("-i", "-r", table, face="postmap", stdin="alpha new\n", check=True)
    assert box.postmap("-q", "alpha", table).stdout == "new\n"
    assert box.postmap("-d", "alpha", table).returncode == 0
    assert box.postmap("-d", "alpha", table, check=False).returncode == 1
    assert box.postmap("-q", "alpha", table, check=False).returncode == 1


@pytest.mark.parametrize("type_", TYPES)
def test_a_damaged_table_loses_no_rows_to_a_change(box, type_):
    """What cannot be read is not written anew, with the new rows alone."""
    table, file = f"{type_}:{box.dir}/src", box.dir / f"src{SUFFIXES[type_]}"
    box.postmap(table, check=False)
    broken = file.read_bytes()[:file.stat().st_size // 2]
    file.write_bytes(broken)
    for args, stdin in ((["-i"], "extra value\n"), (["-d", "alpha"], "")):
        r = box.run(*args, table, face="postmap", stdin=stdin)
        assert r.returncode == 1 and "postmap: fatal: open database" in r.stderr, r.stderr
        assert file.read_bytes() == broken


def test_changes_of_a_table_by_its_name_alone(box):
    """A name is below the working directory, wherever -c points."""
    (box.dir / "src").write_text("a one\nb two\n")
    box.run(face="postmap")  # makes the link

    def postmap(*args, stdin=""):
        exe = [box.dir / "cmd-postmap/postmap", "-c", postfix_conf(box.dir)]
        return subprocess.run([*exe, *args, "hash:src"], cwd=box.dir, input=stdin, capture_output=True, text=True)
    assert postmap().returncode == 0 and postmap("-i", stdin="c three\n").returncode == 0
    assert postmap("-d", "a").returncode == 0 and sorted_out(postmap("-s")) == ["b\ttwo", "c\tthree"]


@pytest.mark.parametrize("spec", ["texthash:{dir}/src", "inline:{{a=b}}", "static:x", "fail:x"])
def test_tables_that_are_not_written_are_not_changed(box, spec):
    for args in (["-d", "alpha"], ["-i"]):
        r = box.run(*args, spec.format(dir=box.dir), face="postmap", stdin="alpha new\n")
        assert r.returncode == 1 and "does not support bulk-mode creation" in r.stderr, (r.returncode, r.stderr)
    assert (box.dir / "src").read_text() == SOURCE


def test_two_changes_at_once_lose_no_row(box):
    (box.dir / "src").write_text("a one\n")
    table = f"hash:{box.dir}/src"
    box.postmap(table)

    def add(name):
        for i in range(10):
            assert box.run("-i", table, face="postmap", stdin=f"{name}{i} x\n").returncode == 0
    at_once(add, ("b",), ("c",))
    assert len(sorted_out(box.postmap("-s", table))) == 21


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_tables_of_several_owners(box):
    """Each is made as its source's owner, the next one too; one that is changed stays its owner's."""
    box.dir.chmod(0o755)
    theirs, ours = box.dir / "theirs", box.dir / "ours"
    for folder, uid in ((theirs, 12345), (ours, 0)):
        folder.mkdir()
        (folder / "t").write_text("a one\n")
        (folder / "t").chmod(0o600)
        for f in (folder, folder / "t"):
            os.chown(f, uid, uid)
    subprocess.run(["chmod", "a+x", *map(str, list(box.dir.parents)[:3])], check=True)
    r = box.run(f"hash:{theirs}/t", f"hash:{ours}/t", face="postmap")
    assert r.returncode == 0, r.stderr
    assert [((f / "t.db").stat().st_uid, (f / "t.db").stat().st_mode & 0o777) for f in (theirs, ours)] == [(12345, 0o600), (0, 0o600)]
    for args, stdin in ((["-i"], "b two\n"), (["-d", "a"], "")):
        assert box.run(*args, f"hash:{theirs}/t", face="postmap", stdin=stdin).returncode == 0
        assert ((theirs / "t.db").stat().st_uid, (theirs / "t.db").stat().st_mode & 0o777) == (12345, 0o600)
    assert box.postmap("-s", f"hash:{theirs}/t").stdout == "b\ttwo\n"


def test_stale_is_a_warning(box):
    table = f"hash:{box.dir}/src"
    box.postmap(table, check=False)
    past = time.time() - 1000
    os.utime(box.dir / "src.db", (past - 1000, past - 1000))
    os.utime(box.dir / "src", (past, past))
    theirs, ours = both(box, "-q", "alpha", table)
    assert ours.stdout == theirs.stdout == "one\n"
    assert ours.stderr == theirs.stderr
    assert "is older than source file" in ours.stderr


def test_replaced_atomically(box):
    """The old file stays whole until the new one is there: never the same inode, never a partial file."""
    table = f"hash:{box.dir}/src"
    box.postmap(table, check=False)
    before = (box.dir / "src.db").stat().st_ino
    held = open(box.dir / "src.db", "rb")
    old = held.read()
    box.postmap(table, check=False)
    assert (box.dir / "src.db").stat().st_ino != before
    held.seek(0)
    assert held.read() == old
    assert not [f for f in os.listdir(box.dir) if ".tmp." in f]


@pytest.mark.parametrize("type_", TYPES)
def test_a_link_stays_a_link_and_a_dead_ones_file_goes(box, type_):
    """The file that the link names is replaced, also one that is not there yet; what is left by a process that was killed
    is removed, and nothing else is."""
    table, kept = f"{type_}:{box.dir}/src", box.dir / "kept"
    link = box.dir / f"src{SUFFIXES[type_]}"
    kept.mkdir()
    (box.dir / "step").symlink_to("kept/table")
    link.symlink_to("step")
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [f"table.tmp.{dead.pid}", f"table.tmp.{os.getpid()}", "table.tmp.x", f"other.tmp.{dead.pid}"]
    for name in names:
        (kept / name).write_text("half")
    for args, stdin, rows in ((["-w"], None, 5), (["-i"], "more rows\n", 6), (["-d", "more"], None, 5)):
        r = box.run(*args, table, face="postmap", stdin=stdin)
        assert r.returncode == 0, (args, r)
        assert link.is_symlink() and os.readlink(link) == "step" and os.readlink(box.dir / "step") == "kept/table"
        assert sorted(os.listdir(kept)) == sorted(["table", *names[1:]]) and not (kept / "table").is_symlink()
        found = box.run("-q", "more", table, face="postmap").stdout
        assert (found == "rows\n") == (rows == 6) and box.postmap("-q", "alpha", table).stdout == "one\n"
    link.unlink()
    link.symlink_to(link.name)
    r = box.run("-w", table, face="postmap")
    assert r.returncode == 1 and "Too many levels of symbolic links" in r.stderr, r


def test_another_users_link_is_not_followed_by_root(box):
    if os.getuid() != 0:
        pytest.skip("needs root")
    link = box.dir / "src.db"
    link.symlink_to("there")
    os.lchown(link, 65534, 65534)
    r = box.run("-w", f"hash:{box.dir}/src", face="postmap")
    assert r.returncode == 1 and "src.db: it is a symbolic link that another user has made" in r.stderr, r
    assert not (box.dir / "there").exists()


PATTERNS = r"""# rules in order
/^secret@/i     REJECT
!/@/            no at sign
/^(.*)\+(.*)@(.*)$/   $1 at ${3} ext $(2)
if /@inner\.example$/
/^a@/           inside a
/^b@/           inside b
endif
/\.(com|org)$/  tld $1
"""

NETWORKS = """127.0.0.0/8 loop
!10.0.0.0/8 notten
if 10.0.0.0/8
10.1.0.0/16 ten one
endif
10.0.0.0/8 ten
"""


@pytest.mark.parametrize("type_", ["regexp", "pcre"])
def test_patterns_like_postfix(box, type_):
    (box.dir / "pat").write_text(PATTERNS)
    for key in ("Secret@x", "plain", "u+e@d.example", "a@inner.example", "b@inner.example", "c@inner.example",
                "x@y.com", "x@y.ORG", "x@y.net", "a@other.example"):
        theirs, ours = both(box, "-q", key, f"{type_}:{box.dir}/pat")
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (key, theirs, ours)


def test_cidr_like_postfix(box):
    (box.dir / "net").write_text(NETWORKS)
    for key in ("127.0.0.1", "10.1.2.3", "10.2.2.3", "192.168.1.1", "::1", "nonsense"):
        theirs, ours = both(box, "-q", key, f"cidr:{box.dir}/net")
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (key, theirs, ours)


@pytest.mark.parametrize("table,key", [
    ("static:hello", "anything"), ("inline:{a=b, {c = d e}}", "a"), ("inline:{a=b, {c = d e}}", "c"),
    ("inline:{a=b}", "x"), ("static:{x y}", "z"), ("texthash:{dir}/src", "alpha"), ("texthash:{dir}/src", "nope"),
])
def test_memory_tables_like_postfix(box, table, key):
    theirs, ours = both(box, "-q", key, table.replace("{dir}", str(box.dir)))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


def test_fail_and_proxy(box):
    r = box.postmap("-q", "x", "fail:whatever", check=False)
    assert r.returncode == 1 and "fatal" in r.stderr
    box.postmap(f"hash:{box.dir}/src", check=False)
    assert box.postmap("-q", "alpha", f"proxy:hash:{box.dir}/src").stdout == "one\n"


def test_default_type_and_faces(box):
    box.postmap(f"{box.dir}/src", check=False)
    assert (box.dir / "src.db").exists()
    assert box.run("map", "query", "alpha", f"hash:{box.dir}/src").stdout == "one\n"
    assert "alpha\tone" in box.run("map", "dump", f"hash:{box.dir}/src").stdout
    assert box.run("map", "build", f"cdb:{box.dir}/src").returncode == 0


def test_message_and_file_values(box):
    """-q - with -h and -b takes a message; -F stores what files hold; -j prints JSON."""
    (box.dir / "pat").write_text("/^Subject: .*offer/ spam\n/^buy now/ body\n/one\\s+two/ folded\n")
    message = "From: a\nSubject: an offer\nX-Long: one\n two\n\nSubject: offer in the body\nbuy now\n"
    for flags in (["-h"], ["-b"], ["-h", "-b"]):
        theirs, ours = both(box, *flags, "-q", "-", f"pcre:{box.dir}/pat", stdin=message)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), flags
    (box.dir / "content").write_text("the secret\n")
    (box.dir / "files").write_text(f"key {box.dir}/content\n")
    theirs, _ = both(box, "-F", f"cdb:{box.dir}/files")
    stored = box.postmap("-q", "key", f"cdb:{box.dir}/files").stdout
    box.postmap("-F", f"cdb:{box.dir}/files")
    assert box.postmap("-q", "key", f"cdb:{box.dir}/files").stdout == stored == "dGhlIHNlY3JldAo=\n"
    theirs, ours = both(box, "-F", "-q", "key", f"cdb:{box.dir}/files")
    assert ours.stdout == theirs.stdout
    box.postmap(f"hash:{box.dir}/src", check=False)
    assert '{"alpha": "one"}' in box.postmap("-j", "-s", f"hash:{box.dir}/src").stdout
    assert box.postmap("-j", "-q", "alpha", f"hash:{box.dir}/src").stdout == '{"alpha": "one"}\n'


# -- tables made of tables, tables behind sockets, names in main.cf --


@pytest.mark.parametrize("spec,keys", [
    ("unionmap:{static:one,inline:{{a@x=two three}},inline:{b=four}}", ["a@x", "b", "z"]),
    ("unionmap:{inline:{a=1},inline:{b=2}}", ["a", "b", "z"]),
    ("unionmap:{inline:{a=1},fail:x}", ["a"]),
    ("pipemap:{inline:{a=b,c=d},inline:{b=found}}", ["a", "c", "b", "z"]),
    ("pipemap:{static:b,inline:{b=found}}", ["anything"]),
    ("pipemap:{inline:{a=b},fail:x}", ["a", "z"]),
    ("unionmap:nothing", ["a"]), ("pipemap:{}", ["a"]),
])
def test_composed_like_postfix(box, spec, keys):
    for key in keys:
        theirs, ours = both(box, "-q", key, spec)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (key, theirs, ours)


class LineServer:
    """A table server: answers each request of a connection by a function."""

    def __init__(self, read, answer, unix=None):
        self.read, self.answer, self.seen = read, answer, []
        self.sock = socket.socket(socket.AF_UNIX) if unix else socket.socket()
        self.sock.bind(str(unix) if unix else ("127.0.0.1", 0))
        if unix:
            os.chmod(unix, 0o777)
        self.sock.listen(16)
        self.port = None if unix else self.sock.getsockname()[1]
        self.start = lambda f, *a: threading.Thread(target=f, args=a, daemon=True).start()
        self.start(self.accept)

    def accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            self.start(self.serve, c)

    def serve(self, c):
        f = c.makefile("rb")
        while (q := self.read(f)) is not None:
            self.seen.append(q)
            reply = self.answer(q)
            if reply is None:
                c.close()
                return
            c.sendall(reply)


def read_netstring(f):
    n = b""
    while (ch := f.read(1)) not in (b":", b""):
        n += ch
    return f.read(int(n) + 1)[:-1] if n else None


def netstring(data):
    return b"%d:%s," % (len(data), data)


@pytest.mark.parametrize("unix", [False, True])
def test_socketmap_like_postfix(box, unix):
    box.dir.chmod(0o755)
    answers = {b"table a@x": b"OK first value", b"table odd,key": b"OK [x]:25, [y]:25", b"table none": b"NOTFOUND ", b"table later": b"TEMP come back",
               b"table slow": b"TIMEOUT slow", b"table never": b"PERM wrong", b"table rubbish": b"WHAT", b"table empty": b"OK "}
    server = LineServer(read_netstring, lambda q: netstring(answers.get(q, b"NOTFOUND ")), box.dir / "sock" if unix else None)
    where = f"unix:{box.dir}/sock" if unix else f"inet:127.0.0.1:{server.port}"
    for key in ("a@x", "A@X", "odd,key", "none", "later", "slow", "never", "rubbish", "missing"):
        theirs, ours = both(box, "-q", key, f"socketmap:{where}:table")
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (key, theirs, ours)
    assert server.seen.count(b"table a@x") == 2
    r = box.run("-q", "x", "socketmap:inet:127.0.0.1:1:table", face="postmap")
    assert r.returncode == 1 and "Connection refused" in r.stderr
    r = box.run("-q", "x", "socketmap:nonsense", face="postmap")
    assert r.returncode == 1 and "need socketmap:inet:host:port:name" in r.stderr


def test_tcp_table(box):
    """Postfix's tcp_table(5); Debian's postmap cannot ask it without a build option, so its manual decides."""
    answers = {b"get a@x\n": b"200 first%20value\n", b"get with%20blank\n": b"200 50%25\n", b"get none\n": b"500 not here\n", b"get later\n": b"400 come back\n",
               b"get rubbish\n": b"what\n", b"get hangup\n": None,
               b"get login\n": b"200 me:50%more\n"}
    server = LineServer(lambda f: f.readline() or None, lambda q: answers.get(q, b"500 no\n"))
    ask = lambda key: box.run("-q", key, f"tcp:127.0.0.1:{server.port}", face="postmap")
    assert (ask("a@x").stdout, ask("with blank").stdout) == ("first value\n", "50%\n")
    for key, why in (("none", ""), ("missing", ""), ("later", "come back"), ("rubbish", "what"), ("hangup", "connection was lost")):
        r = ask(key)
        assert r.returncode == 1 and r.stdout == "" and why in r.stderr, r
    undecoded = ask("login")  # goes into the log
    assert undecoded.returncode == 1 and "no value that can be decoded" in undecoded.stderr
    assert "more" not in undecoded.stdout + undecoded.stderr


@pytest.mark.parametrize("value,login", [(b"clerk:open sesame ", ("clerk", "open sesame ")), (b" clerk : \tx", ("clerk", " \tx")),
                                         (b"clerk ", ("clerk", ""))])
def test_blanks_of_a_password_are_its_own(dns, value, login):
    """Files have none at a line's end, but servers and databases may; Debian's Postfix sends the same."""
    server = LineServer(read_netstring, lambda q: netstring(b"OK " + value))
    main = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n" \
           f"smtp_sasl_password_maps = socketmap:inet:127.0.0.1:{server.port}:logins\n"
    with FakeRelay(auth=["PLAIN"]) as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + main, dns=dns) as p:
        p.send()
        assert relay.wait_mail(b"hello")["auth"] == ("PLAIN", *login)


def test_socket_tables_route_mail_and_fail_closed(dns):
    everybody, own = FakeRelay(), FakeRelay()
    state = {}
    server = LineServer(read_netstring, lambda q: state.get("reply", lambda q: netstring(b"NOTFOUND "))(q))
    state["reply"] = lambda q: netstring(b"OK [127.0.0.1]:%d" % own.port if q == b"relays a@x.example" else b"NOTFOUND ")
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\nsender_dependent_relayhost_maps = socketmap:inet:127.0.0.1:{server.port}:relays\n", dns=dns) as p:
        p.send(sender="a@x.example")
        p.send(sender="b@x.example")
        wait_for(lambda: len(own.mails) == len(everybody.mails) == 1)
        assert b"relays @x.example" not in server.seen  # such tables see whole addresses only
        for broken in (lambda q: netstring(b"TEMP no"), lambda q: None, lambda q: b"99999999999:x"):
            state["reply"] = broken
            time.sleep(1)
            assert p.send(sender="a@x.example").startswith("451 4.3.0"), broken
        assert len(own.mails) == len(everybody.mails) == 1
    own.stop()
    everybody.stop()


@pytest.mark.parametrize("kind", ["socketmap", "tcp"])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_one_questions_answer_is_not_the_next_ones(dns, kind, when):
    """A table's server that says an answer twice: no other sender's mail goes by it."""
    everybody, own = FakeRelay(), FakeRelay()
    asked = []

    def serve(conn):
        f = conn.makefile("rb")
        while q := read_netstring(f) if kind == "socketmap" else f.readline():
            asked.append(q)
            mine = b"a@x.example" in q
            said = f"[127.0.0.1]:{own.port}".encode()
            if kind == "socketmap":
                reply = netstring(b"OK " + said if mine else b"NOTFOUND ")
            else:
                reply = b"200 " + said + b"\n" if mine else b"500 no\n"
            conn.sendall(reply * 2 if mine and when == "at once" else reply)
            if mine and when == "later":
                time.sleep(0.05)
                conn.sendall(reply)
                asked.append(b"said twice")

    with Listener(serve) as server:
        table = f"inet:127.0.0.1:{server.port}:relays" if kind == "socketmap" else f"127.0.0.1:{server.port}"
        with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\nsender_dependent_relayhost_maps = {kind}:{table}\n", dns=dns) as p:
            first = p.send(sender="a@x.example")
            if when == "at once":
                assert first.startswith("451 4.3.0")
                p.wait_log("it says more than it was asked")
            else:
                assert first.startswith("250")
                wait_for(lambda: b"said twice" in asked)
                assert p.send(sender="b@x.example").startswith("250")
                wait_for(lambda: len(everybody.mails) == 1)
            assert not [m for m in own.mails if "a@x.example" not in m["from"]]
    own.stop()
    everybody.stop()


def test_table_parameters_in_main_cf(dns, tmp_path):
    """sqlite:name with name_query and so on in main.cf, as Postfix still takes it."""
    relay = FakeRelay()
    tmp_path.chmod(0o755)
    with sqlite3.connect(tmp_path / "x.db") as c:
        c.execute("CREATE TABLE t (a, r)")
        c.execute("INSERT INTO t VALUES ('a@x.example', ?)", (f"[127.0.0.1]:{relay.port}",))
    main = (f"sender_dependent_relayhost_maps = sqlite:mine\nmine_dbpath = {tmp_path}/x.db\nfield = r\n"
            "mine_query = SELECT ${{field}} FROM t WHERE a = '%s'\n")
    with Posthouse(main, dns=dns) as p:
        p.send(sender="a@x.example")
        relay.wait_mails(1)
        assert "unused parameter: mine" not in p.run("check").stdout
        assert p.postmap("-q", "a@x.example", "sqlite:mine").stdout == f"[127.0.0.1]:{relay.port}\n"
    relay.stop()


def test_a_reload_with_other_tables_disturbs_no_session(dns, tmp_path):
    """What is asked of tables that are named nowhere any more is answered; mail that is not on the wire goes by the new ones."""
    gate = threading.Event()
    relay = FakeRelay(auth=["PLAIN"], need_auth=True, replies={"GREETING": lambda l: gate.wait(60) and None})
    hop = f"[127.0.0.1]:{relay.port}"
    tmp_path.chmod(0o755)

    def config(name):
        folder = tmp_path / name
        folder.mkdir(mode=0o755)
        (folder / "passwords").write_text(f"{hop} account-{name}:word-{name}\n")
        (folder / "access").write_text("old@client.example OK\n")
        for file in folder.iterdir():
            file.chmod(0o644)
        return f"relayhost = {hop}\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_security_options =\n" \
               "smtp_tls_security_level = none\nsmtp_pipeline_transactions = no\n" \
               f"smtp_sasl_password_maps = texthash:{folder}/passwords\n" \
               f"smtpd_sender_restrictions = check_sender_access texthash:{folder}/access\n"
    with Posthouse(config("spring"), dns=dns) as p, p.client() as c:
        assert c.mail(sender="old@client.example")[:3] == "250"
        wait_for(lambda: relay.sessions)
        for name in ("summer", "autumn"):
            p.write_main(config(name))
            p.reload()
            p.reload()
        assert c.mail(sender="old@client.example")[:3] == "250"
        gate.set()
        relay.wait_mails(2)
        assert {m["auth"][1] for m in relay.mails} == {"account-autumn"}
        assert "lookup error" not in p.log() and "status=deferred" not in p.log()
    relay.stop()


MESSAGE = """From: a@b.example
Subject: top
	folded
MIME-Version: 1.0
Content-Type: multipart/mixed;
 boundary="B B"

preamble
--B B
Content-Type: text/plain
X-Part: one

first
From: no header

--B B
content-type: message/rfc822

Subject: within
From: within@x.example

--BX no border

text
--B B
Content-Type: multipart/alternative; boundary=CC

--CC
X-Deep: 1

deep
--CC--
behind
--B B--
X-End: epilogue
"""


def said(r):
    """getopt's own line names the program by its path; Debian's tools warn of no chroot."""
    return sorted(re.sub(r"^/\S*/(post\w+:)", r"\1", l) for l in r.stderr.splitlines() if "chroot" not in l)


@pytest.mark.parametrize("options", ["h", "b", "hb", "hm", "bm", "hbm", "m"])
def test_keys_of_a_message(box, options):
    """What header_checks and body_checks see, in parts and messages within, too."""
    (box.dir / "re").write_text("/^$/ blank\n/^(.*)$/ <$1>\n")
    theirs, ours = both(box, *(f"-{o}" for o in options), "-q", "-", f"regexp:{box.dir}/re", stdin=MESSAGE)
    assert ours.stdout == theirs.stdout and ours.returncode == theirs.returncode and said(ours) == said(theirs)


@pytest.mark.parametrize("args", [["-h", "-q", "x", "T"], ["-m", "T"], ["-h", "T"], ["-z", "T"], [], ["-q", "a", "-d", "b", "T"],
                                  ["-s", "-q", "a", "T"], ["R"], ["-s", "R"], ["-n", "-N", "T"], ["-u", "T"], ["-o", "T"],
                                  ["-v", "-q", "alpha", "static:x"]])
def test_options_of_postmap(box, args):
    (box.dir / "re").write_text("/x/ y\n")
    args = [{"T": f"hash:{box.dir}/src", "R": f"regexp:{box.dir}/re"}.get(a, a) for a in args]
    theirs, ours = both(box, *args)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    if "-v" not in args:
        assert said(ours) == said(theirs)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("nul", [[], ["-n"], ["-N"]])
def test_nul_bytes(box, type_, nul):
    """Keys and values with and without a NUL at the end: the same bytes in the file, and both sides find them."""
    suffix = SUFFIXES[type_]
    (box.dir / "one").write_text("thekey thevalue\n")
    env = dict(os.environ, MAIL_CONFIG=str(postfix_conf(box.dir)))
    files = []
    for run in (lambda *a: subprocess.run(["postmap", *a], env=env, check=True, capture_output=True), box.postmap):
        (box.dir / ("one" + suffix)).unlink(missing_ok=True)
        run(*nul, f"{type_}:{box.dir}/one")
        data = (box.dir / ("one" + suffix)).read_bytes() + b"."
        files.append([data[data.index(word) + len(word)] == 0 for word in (b"thekey", b"thevalue")])
        assert box.postmap("-q", "thekey", f"{type_}:{box.dir}/one").stdout == "thevalue\n"
    if type_ in ("lmdb", "cdb") or nul != ["-n"]:  # what follows in a page of Berkeley DB may be a NUL
        assert files[0] == files[1]
    theirs = subprocess.run(["postmap", "-q", "thekey", f"{type_}:{box.dir}/one"], env=env, capture_output=True, text=True)
    assert theirs.stdout == "thevalue\n"


def test_bytes_that_are_no_utf8(box):
    (box.dir / "bytes").write_bytes(b"k\xff v\ngood x\xff\nfine ok\nb\xc3\xbccher \xc3\xa4\n")
    table = f"hash:{box.dir}/bytes"
    for args in ([table], ["-s", table], ["-u", table], ["-q", "fine", table]):
        theirs, ours = both(box, *args) if "-s" not in args else both(box, "-q", "good", table)
        theirs.stderr = re.sub(r'(non-UTF-8 input "\S+) [^"]*"', r'\1 (hidden)"', theirs.stderr)  # it may be a password
        assert (ours.returncode, ours.stdout, said(ours)) == (theirs.returncode, theirs.stdout, said(theirs)), args


ALIASES = """# comment
postmaster: root
Root:	admin@x.example, ops@x.example
"quoted name": a
list: :include:/etc/x/list
prog: "|/usr/bin/prog a  b, c"
file: /var/mail/x
cont: a,
   b,
	c   ,d
dup: one
dup: two
nocolon
empty:
:novalue
"a:b": x
sp   ace: y   z
esc\\@x: z
UPPER@Dom.example: v
ümläut: w
"""


def alias_both(box, face, *args, stdin=None):
    theirs = subprocess.run([face, *args], capture_output=True, text=True, input=stdin,
                            env=dict(os.environ, MAIL_CONFIG=str(postfix_conf(box.dir))))
    return theirs, box.run(*args, face=face, stdin=stdin)


def alias_dump(r):
    return sorted(l for l in r.stdout.splitlines() if not l.startswith(("YP_LAST_MODIFIED", "YP_MASTER_NAME")))


@pytest.mark.parametrize("type_", ["hash", "lmdb"])
def test_postalias_like_postfix(box, type_):
    (box.dir / "aliases").write_text(ALIASES)
    table = f"{type_}:{box.dir}/aliases"
    dumps = []
    for i in range(2):
        r = alias_both(box, "postalias", table)[0] if i == 0 else box.run(table, face="postalias")
        assert r.returncode == 0
        dumps.append((said(r), alias_dump(box.run("-s", table, face="postalias"))))
        assert alias_dump(alias_both(box, "postalias", "-s", table)[0]) == dumps[-1][1]
    assert dumps[0] == dumps[1] and "root:\tadmin@x.example, ops@x.example" in dumps[0][1]
    for args in (["-q", "ROOT"], ["-q", "a:b"], ["-q", "none"], ["-q", "-"], ["-d", "none"], ["-fq", "Root"], ["-z"], ["-b"],
                 ["-q", "x", "-s"]):
        theirs, ours = alias_both(box, "postalias", *args, table, stdin="root\nnone\n\nLIST\n")
        assert (ours.returncode, ours.stdout, said(ours)) == (theirs.returncode, theirs.stdout, said(theirs)), args
    r = box.run("-i", table, face="postalias", stdin="new: n1,n2\ndup: three\n")
    assert r.returncode == 0 and 'duplicate entry: "dup"' in r.stderr
    assert box.run("-q", "new", table, face="postalias").stdout == "n1, n2\n"
    assert box.run("-j", "-q", "new", table, face="postalias").stdout == '{"new": "n1, n2"}\n'
    theirs, ours = alias_both(box, "postalias", "regexp:/x")
    assert (ours.returncode, said(ours)) == (theirs.returncode, said(theirs))


def test_a_configuration_that_is_not_there(box):
    for face, key in (("postmap", "k"), ("postalias", "k")):
        r = box.run("-c", f"{box.dir}/none", "-q", key, "static:v", face=face)
        assert (r.returncode, r.stdout, r.stderr) == (1, "", f"{face}: fatal: open {box.dir}/none/main.cf: No such file or directory\n")


def test_newaliases(box):
    (box.dir / "one").write_text("root: a@x.example\n")
    (box.dir / "two").write_text("joe: b@x.example\n")
    box.write_main(f"relayhost = [127.0.0.1]:9\nalias_database = hash:{box.dir}/one, lmdb:{box.dir}/two\n")
    for face, *args in (["newaliases"], ["sendmail", "-bi"], ["sendmail", "-I"]):
        for f in ("one.db", "two.lmdb"):
            (box.dir / f).unlink(missing_ok=True)
        assert box.run(*args, face=face).returncode == 0
        assert box.run("-q", "joe", f"lmdb:{box.dir}/two", face="postalias").stdout == "b@x.example\n"
        assert box.run("-q", "root", f"hash:{box.dir}/one", face="postalias").stdout == "a@x.example\n"
    box.write_main(f"relayhost = [127.0.0.1]:9\nalias_database = hash:{box.dir}/none\n")
    r = box.run(face="newaliases")
    assert r.returncode == 1 and r.stderr.endswith(f"fatal: open {box.dir}/none: No such file or directory\n")
    box.write_main("relayhost = [127.0.0.1]:9\nalias_database =\n")
    assert box.run(face="newaliases").returncode == 0


def no_longer_tables(made):
    """What a table's file may have become, and what is said of it; None: whatever it is, it is refused."""
    middle = len(made) // 2
    return {"empty": (b"", "it is empty"), "its own source": (b"host.example smtp:[relay.example]\n" * 200, "it is no "),
            "a few bytes of it": (made[:9], "it is no "), "half of it": (made[:middle], "cut off|shorter"),
            "without its end": (made[:-1], "cut off|shorter"), "blank": (bytes(len(made)), "it is no "),
            "blank from the middle": (made[:middle] + bytes(len(made) - middle), None),
            "other from the middle": (made[:middle] + b"\xa5" * (len(made) - middle), None)}


@pytest.mark.parametrize("type_", TYPES)
def test_files_that_are_no_tables(box, type_):
    """Named with what is wrong and what to do, by check and postmap alike: no key is just not found."""
    suffix = SUFFIXES[type_]
    (box.dir / "hops").write_text("".join(f"host{i}.example smtp:[relay{i}.example]\n" for i in range(80)))
    assert box.run(f"{type_}:{box.dir}/hops", face="postmap").returncode == 0
    file = box.dir / f"hops{suffix}"
    box.write_main(f"relayhost = [127.0.0.1]:9\ntransport_maps = {type_}:{{dir}}/hops\n")
    for name, (data, why) in no_longer_tables(file.read_bytes()).items():
        file.write_bytes(data)
        asked = [box.run("-q", key, f"{type_}:{box.dir}/hops", face="postmap") for key in ("host7.example", "none.example")]
        checked = box.run("check")
        what = rf"[^\n]*({why or 'it'})[^\n]*; it has to be made again \(postmap, or for aliases newaliases\)"
        line = f"open database {re.escape(str(file))}: {what}"
        assert checked.returncode == 2 and re.search(f"transport_maps: {line}$", checked.stdout, re.M), (name, checked.stdout)
        for r in asked:
            assert (r.returncode, r.stdout) == (1, "") and re.search(line, r.stderr), (name, r.stderr)
    (box.dir / "other").write_text("a.example smtp:[b.example]\n")
    other = {"hash": "btree", "btree": "hash", "cdb": "lmdb", "lmdb": "cdb"}[type_]
    assert box.run(f"{other}:{box.dir}/other", face="postmap").returncode == 0
    file.write_bytes((box.dir / f"other{SUFFIXES[other]}").read_bytes())
    assert re.search("it is (a|no) .*made again", box.run("-q", "a.example", f"{type_}:{box.dir}/hops", face="postmap").stderr)


def test_no_key_of_a_damaged_cdb_is_passed_by(box):
    """One bit of it is another: the file is refused, or all keys are found, in any order of damage."""
    keys = [f"host{i}.example" for i in range(40)]
    (box.dir / "hops").write_text("".join(f"{key} smtp:[relay.example]\n" for key in keys))
    assert box.run(f"cdb:{box.dir}/hops", face="postmap").returncode == 0
    file = box.dir / "hops.cdb"
    made = file.read_bytes()
    refused = 0
    for bit in range(5, len(made) * 8, len(made) * 8 // 47):
        bad = bytearray(made)
        bad[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bad)
        r = box.run("-q", "-", f"cdb:{box.dir}/hops", face="postmap", stdin="\n".join(keys) + "\n", encoding="latin-1")
        assert "it has to be made again" in r.stderr or len(r.stdout.splitlines()) == len(keys), (bit, r.stderr)
        refused += r.returncode != 0
    assert refused > 15


def test_a_damaged_table_keeps_mail_out(dns):
    """… for a while, with its name in the log; once it is made again, mail goes."""
    with FakeRelay() as relay, Posthouse("relayhost = [127.0.0.1]:9\ntransport_maps = cdb:{dir}/first, btree:{dir}/second\n", dns=dns) as p:
        (p.dir / "first").write_text("other.example discard:\n")
        (p.dir / "second").write_text(f"y.example smtp:[127.0.0.1]:{relay.port}\n")
        for table, file in ((f"cdb:{p.dir}/first", p.dir / "first.cdb"), (f"btree:{p.dir}/second", p.dir / "second.db")):
            assert p.run(table, face="postmap").returncode == 0
        for file in (p.dir / "first.cdb", p.dir / "second.db"):
            whole = file.read_bytes()
            wait_for(lambda: p.send().startswith("250"))
            file.write_bytes(whole[:-3])
            wait_for(lambda: p.send().startswith("451 4.3.0"))
            p.wait_log(rf"open database {re.escape(str(file))}: it is [^\n]*cut off[^\n]*it has to be made again")
            file.write_bytes(whole)
        wait_for(lambda: p.send().startswith("250"))
        relay.wait_mails(3)


def test_domains_of_a_table_like_postfix(box):
    """domain = …: names, files and tables; a list that cannot be asked is an error, and not "not found"."""
    with sqlite3.connect(box.dir / "rows.db") as db:
        db.executescript("CREATE TABLE t (k, v); INSERT INTO t VALUES ('u@a.test', 'A'), ('u@b.test', 'B')")
    (box.dir / "list").write_text("# b.test\na.test\n  c.test\n")
    (box.dir / "rows").write_text("a.test x\n")
    head = f"dbpath = {box.dir}/rows.db\nquery = SELECT v FROM t WHERE k = '%s'\n"
    for i, domain in enumerate(["a.test", f"{box.dir}/list", f"!{box.dir}/list, static:all", f"texthash:{box.dir}/rows", "fail:x",
                                "a.test, fail:x", f"{box.dir}/nothing", f"hash:{box.dir}/nothing"]):
        (box.dir / f"{i}.cf").write_text(f"{head}domain = {domain}\n")
        os.utime(box.dir / f"{i}.cf", (0, 0))
        for key in ("u@a.test", "u@b.test"):
            theirs, ours = both(box, "-q", key, f"sqlite:{box.dir}/{i}.cf")
            said = [(r.returncode, r.stdout, "fatal:" in r.stderr) for r in (ours, theirs)]
            assert said[0] == said[1], (domain, theirs, ours)


def test_a_row_that_is_too_long_stops_no_other(dns):
    """One answer that no message between the processes can hold: its mail waits, and that of others goes."""
    everybody, relay = FakeRelay(), FakeRelay()
    p = Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\nsender_dependent_relayhost_maps = sqlite:{{dir}}/t.cf\n", dns=dns)
    with sqlite3.connect(p.dir / "rows.db") as db:
        db.execute("CREATE TABLE t (k, v)")
        rows = [("long@a.example", "x" * 17000000), ("short@a.example", f"[127.0.0.1]:{relay.port}")]
        db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    (p.dir / "t.cf").write_text(f"dbpath = {p.dir}/rows.db\nquery = SELECT v FROM t WHERE k = '%s'\n")
    with p:
        assert p.send(sender="long@a.example").startswith("451 4.3.0")
        assert p.send(sender="short@a.example").startswith("250")
        relay.wait_mails(1)
        assert "the answer is too long" in p.log() and everybody.mails == []
    everybody.stop()
    relay.stop()
