"""aliases(5): what a name of mydestination stands for goes on as a message of its own, or waits and says why."""
import re
import time
from urllib.parse import quote, unquote

import pytest

from kit import Client, FakeRelay, Listener, Posthouse, wait_for

MASTER = "local unix - n n - - local\n"
ALIASES = """
postmaster: root
Root: admin@far.example
crew: ann@far.example, "Bob B." <bob@far.example> (the other), ANN@far.example,
  root, cy@far.example
owner-crew: lead@far.example
all: crew, dee@far.example
ping: pong
pong: ping, eve@far.example
tick: tock
tock: tick
keep: keep, gus@far.example
mixed+tag: hal@far.example
mixed: ida@far.example
odd: "two words"@far.example
pipe: jo@far.example, "|/usr/bin/vacation jo"
box: /var/mail/archive
many: :include:/etc/lists/many
mailbox: \\\\kim
stray: nosuchuser
home: ~/mail
nothing: far.example:
here: root@mta.example
"""


class Site:
    def __init__(self, dns, more="", aliases=ALIASES, **kw):
        self.relay = FakeRelay()
        self.p = Posthouse(f"relayhost = [127.0.0.1]:{self.relay.port}\nmyorigin = mta.example\nmydestination = mta.example\n"
                           f"alias_maps = hash:{{dir}}/aliases, pcre:{{dir}}/grow\nrecipient_delimiter = +\n{more}",
                           master=MASTER, files={"aliases": aliases, "grow": "/^(grow.*)$/ ${1}x\n"}, dns=dns, **kw)
        self.alias()
        self.p.start()

    def alias(self):
        r = self.p.run(f"hash:{self.p.dir}/aliases", face="postalias")
        assert r.returncode == 0 and not r.stderr, r.stderr

    def stop(self):
        self.p.__exit__(None, None, None)
        self.relay.stop()

    def mail(self, rcpts, sender="s@src.example", params="", head="", body="hello", mail=""):
        """Sends one mail by SMTP; its mark and the answer to its content."""
        mark = f"mark-{time.monotonic_ns()}-"
        with Client(self.p.port) as c:
            c.cmd("EHLO client.example")
            assert c.cmd(f"MAIL FROM:<{sender}>{mail}").startswith("250")
            for r in rcpts:
                reply = c.cmd(f"RCPT TO:<{r}@mta.example>{params}")
                if not reply.startswith("250"):
                    return None, reply
            c.cmd("DATA")
            return mark.encode(), c.cmd(f"{head}Subject: x\r\nX-Mark: {mark}\r\n\r\n{body}\r\n.")

    def arrives(self, rcpts, **kw):
        """What of it reaches the relay: who sent it, who gets it, with what; and how to wait for the report about it."""
        mark, reply = self.mail(rcpts, **kw)
        assert reply.startswith("250"), reply

        def seen(is_report):
            return wait_for(lambda: next((m for m in self.relay.mails if mark in m["content"] and
                                          m["from"].startswith("MAIL FROM:<>") == is_report), None))
        return seen(False), lambda: seen(True)


@pytest.fixture(scope="module")
def site(dns):
    s = Site(dns)
    yield s
    s.stop()


def path_of(line):
    return re.search("<(.*?)>", line).group(1)


def paths(mail):
    return sorted(path_of(line) for line in mail["rcpts"])


FORWARDS = {
    "root": (["admin@far.example"], "s@src.example"),
    "ROOT": (["admin@far.example"], "s@src.example"),
    "root+cron": (["admin@far.example"], "s@src.example"),
    "postmaster": (["admin@far.example"], "s@src.example"),
    "crew": (["admin@far.example", "ann@far.example", "bob@far.example", "cy@far.example"], "owner-crew@mta.example"),
    "ping": (["eve@far.example"], "s@src.example"),
    "mixed+tag": (["hal@far.example"], "s@src.example"),
    "mixed+other": (["ida@far.example"], "s@src.example"),
    "odd": (['"two words"@far.example'], "s@src.example"),
    "here": (["admin@far.example"], "s@src.example"),
    "owner-crew": (["lead@far.example"], "s@src.example"),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_forwards(site, name):
    m, _ = site.arrives([name])
    assert (paths(m), re.search("<(.*?)>", m["from"]).group(1)) == FORWARDS[name]
    lines = m["content"].decode().split("\r\n")
    assert re.fullmatch(r"Received: by mta\.example \(Posthouse\)", lines[0]) and lines[2] == f"Delivered-To: {name.lower()}@mta.example"
    assert lines[3].startswith("Received: from client.example")


NOT_DONE = {
    "pipe": 'alias "pipe": ""|/usr/bin/vacation jo"": delivery to a command is not implemented',
    "box": 'alias "box": "/var/mail/archive": delivery to a file is not implemented',
    "many": 'alias "many": ":include:/etc/lists/many": :include: is not implemented',
    "mailbox": "it asks for a mailbox",
    "keep": "it asks for a mailbox",
    "stray": 'alias "stray": there is no alias "nosuchuser"',
    "home": "delivery to a file is not implemented",
    "nothing": "it is no address",
    "tick": "name each other, and no address",
    "grow": "more than 25 aliases in each other",
    "nobody": 'there is no alias "nobody"',
}


def test_what_is_not_done_waits_and_is_named(site):
    """A client is refused; what sendmail hands over waits with the reason; nothing of it goes out."""
    before = len(site.relay.mails)
    for name in NOT_DONE:
        _, reply = site.mail([name])
        assert reply.startswith(f"451 4.3.5 <{name}@mta.example>: mail transport unavailable"), reply
        r = site.p.run(name, face="sendmail", stdin="Subject: x\n\nx\n")
        assert r.returncode == 0, r.stderr
    for name, text in NOT_DONE.items():
        wait_for(lambda: any(text in q["recipients"][0].get("delay_reason", "") for q in site.p.queue()))
        site.p.wait_log(rf"to=<{name}@mta.example>, relay=local, .*dsn=4.3.5, status=deferred")
    assert len(site.relay.mails) == before
    assert site.p.run("queue", "delete", "ALL").returncode == 0


def all_of(site, mark, n):
    """Who sent which mails of that mark to whom, when there are n of them and the queue is empty."""
    wait_for(lambda: len([m for m in site.relay.mails if mark in m["content"]]) >= n)
    wait_for(lambda: site.p.queue() == [])
    return sorted((path_of(m["from"]), *paths(m)) for m in site.relay.mails if mark in m["content"])


def test_a_list_in_a_list_has_its_own_owner(site):
    """The inner list is expanded in its place: its members' mail has its owner for a sender, and a Received: of its own."""
    mark, _ = site.mail(["all"])
    assert all_of(site, mark, 2) == [("owner-crew@mta.example", *FORWARDS["crew"][0]), ("s@src.example", "dee@far.example")]
    heads = [m["content"].split(b"Received: from")[0].decode() for m in site.relay.mails if mark in m["content"]]
    ids = [re.fullmatch(r"Received: by mta\.example \(Posthouse\)\r\n\tid (\w+); .*\r\nDelivered-To: all@mta.example\r\n", h)[1]
           for h in heads]
    site.p.wait_log(f"({ids[0]}: for a list that is named: {ids[1]}|{ids[1]}: for a list that is named: {ids[0]})")


@pytest.mark.parametrize("size", [250000, 700000])
def test_large_content_of_a_list_in_a_list(site, size):
    body = "".join(f"{i:07d} {'y' * 60}\r\n" for i in range(size // 70))
    mark, _ = site.mail(["all"], body=body)
    assert len(all_of(site, mark, 2)) == 2
    for m in (m for m in site.relay.mails if mark in m["content"]):
        head, rest = m["content"].decode().split("\r\n\r\n", 1)
        assert rest == body + "\r\n" and head.count("Received: ") == 2


def test_a_list_that_had_the_mail_returns_its_part(site):
    """Where the mail was delivered to the inner list already, its owner is told; the others get their mail."""
    mark, _ = site.mail(["all"], head="Delivered-To: Crew@mta.example\r\n")
    site.p.wait_log(r"to=<crew@mta.example>, relay=local, .*dsn=5.4.6, status=bounced \(mail forwarding loop for crew@mta.example\)")
    assert all_of(site, mark, 2) == [("", "lead@far.example"), ("s@src.example", "dee@far.example")]


def test_one_mail_for_each_name(site):
    """Two names of one mail, and one that goes on elsewhere; each has its Delivered-To, none its neighbour's fate."""
    mark, reply = site.mail(["root", "ping", "odd"])
    assert reply.startswith("250")
    mails = wait_for(lambda: (got := [m for m in site.relay.mails if mark in m["content"]]) and len(got) == 3 and got)
    assert sorted(paths(m)[0] for m in mails) == ['"two words"@far.example', "admin@far.example", "eve@far.example"]
    names = sorted(m["content"].split(b"Delivered-To: ")[1].split(b"@")[0] for m in mails)
    assert names == [b"odd", b"ping", b"root"]
    qid = reply.split()[-1]
    site.p.wait_log(rf"{qid}: to=<\w+@mta.example>, relay=local, .*dsn=2.0.0, status=sent \(forwarded as \w+\)", count=3)
    site.p.wait_log(f"{qid}: removed")


@pytest.mark.parametrize("size", [1000, 250000, 700000])
def test_content_goes_on_byte_for_byte(site, size):
    body = "".join(f"{i:07d} {'x' * 60}\r\n" for i in range(size // 70))
    m, _ = site.arrives(["root"], body=body)
    content = m["content"].decode()
    assert content.split("\r\n\r\n", 1)[1] == body + "\r\n"
    assert content.split("Received: ")[1].startswith("by mta.example") and content.count("Received: ") == 2


REPORTS = {
    ("root", " NOTIFY=SUCCESS ORCPT=rfc822;old@x.example"): ("expanded", "ORCPT=rfc822;old@x.example NOTIFY=NEVER"),
    ("ping", " NOTIFY=SUCCESS,FAILURE"): ("expanded", "ORCPT=rfc822;ping@mta.example NOTIFY=FAILURE"),
    ("crew", " NOTIFY=SUCCESS,DELAY"): ("delivered", "NOTIFY=DELAY"),
    ("root", " NOTIFY=NEVER"): (None, "ORCPT=rfc822;root@mta.example NOTIFY=NEVER"),
    ("root+a", ""): (None, "ORCPT=rfc822;root+2Ba@mta.example"),
}


@pytest.mark.parametrize("name,params", REPORTS)
def test_reports_of_success(site, name, params):
    """As local(8): the report is made where the alias is, and what goes on asks for none."""
    action, wanted = REPORTS[name, params]
    m, report = site.arrives([name], params=params, mail=" RET=HDRS ENVID=one")
    for r in m["rcpts"]:
        said = sorted(w for w in r.split()[2:] if w != f"ORCPT=rfc822;{path_of(r)}")
        assert said == sorted(wanted.split()), r
    assert "ENVID=one RET=HDRS" in m["from"] or "RET=HDRS ENVID=one" in m["from"]
    if action is not None:
        text = report()["content"].decode()
        assert f"Final-Recipient: rfc822; {name}@mta.example\r\n" in text
        assert f"Action: {action}\r\nStatus: 2.0.0\r\n" in text and "delivery via local: alias expanded" in text


def test_a_loop_through_another_host_ends(site):
    """What was delivered to the name once is returned, whatever the case."""
    mark, reply = site.mail(["root"], head="Delivered-To: ROOT@mta.example\r\n")
    qid = reply.split()[-1]
    site.p.wait_log(rf"{qid}: to=<root@mta.example>, relay=local, .*dsn=5.4.6, status=bounced "
                    r"\(mail forwarding loop for root@mta.example\)")
    report = site.relay.wait_mail(mark)
    assert report["from"].startswith("MAIL FROM:<>") and b"mail forwarding loop" in report["content"]


LISTS = "".join(f"l{n}: {', '.join(f'l{k}+x' for k in range(6) if k != n)}, m{n}@far.example\nowner-l{n}: root\n" for n in range(6))
RING = "".join(f"{kind}{n}: {kind}{(n + 1) % size}, m{n}@far.example\n" for kind, size in (("r", 25), ("q", 1000)) for n in range(size))


def test_lists_that_name_each_other(dns):
    """Each member has one copy, from the owner of his list; a ring is gone round once; what is too deep waits whole."""
    s = Site(dns, "smtp_destination_recipient_limit = 1000\n", aliases=f"{LISTS}{RING}root: admin@far.example\n")
    mark, _ = s.mail(["l3"])
    assert all_of(s, mark, 6) == [(f"owner-l{n}@mta.example", f"m{n}@far.example") for n in range(6)]
    mark, _ = s.mail(["r7"])
    assert all_of(s, mark, 1) == [("s@src.example", *sorted(f"m{n}@far.example" for n in range(25)))]
    assert s.mail(["q5"])[1].startswith("451 4.3.5")
    s.p.wait_log(r'alias "q29": more than 25 aliases in each other')
    s.stop()


def test_too_many_hops_end_a_loop_without_delivered_to(dns):
    """As a client's mail would be refused that has as many fields."""
    s = Site(dns, "prepend_delivered_header = command, file\nhopcount_limit = 20\n", aliases="root: admin@far.example\n")
    trail = "".join(f"Received: from h{n}.example by h{n + 1}.example; x\r\n" for n in range(18))
    assert s.mail(["root"], head=trail)[1].startswith("250")
    s.p.wait_log(r"to=<root@mta\.example>, relay=local, .*dsn=5.4.0, status=bounced \(too many hops\)")
    assert s.mail(["root"], head=trail[trail.index("\n") + 1:])[1].startswith("250")
    s.p.wait_log("forwarded as")
    s.stop()


def test_explain_shows_what_a_name_stands_for(site):
    out = site.p.run("explain", "s@src.example", "crew@mta.example").stdout
    for text in ("transport local", '"crew" stands for ann@far.example', "owner-crew@mta.example", "admin@far.example",
                 f"[127.0.0.1]:{site.relay.port}"):
        assert text in out, (text, out)
    r = site.p.run("test", "s@src.example", "root@mta.example")
    assert r.returncode == 0 and "admin@far.example" in r.stdout, r.stdout
    r = site.p.run("explain", "s@src.example", "many@mta.example")
    assert r.returncode == 1 and ":include: is not implemented" in r.stdout


def test_a_list_of_ten_thousand_goes_on_and_no_longer_one(dns):
    """Addresses of aliases within it count; each is sent to once."""
    many = [f"u{i}@far.example" for i in range(10000)]
    text = f"near: {', '.join(many[:9998])}, root\nfull: near, {many[0]}, {many[9998]}\nover: full, {many[9999]}\nroot: admin@far.example\n"
    s = Site(dns, "smtp_destination_recipient_limit = 10000\n", aliases=text)
    assert s.mail(["over"])[1].startswith("451 4.3.5 <over@mta.example>: mail transport unavailable")
    s.p.wait_log(r'mail is not taken: alias "\w+": more than 10000 addresses')
    m, _ = s.arrives(["near"])
    assert len(paths(m)) == 9999 and len(set(paths(m))) == 9999
    s.stop()


def test_crons_mail_waits_until_there_is_an_alias(dns):
    """No alias, then a table that is gone, then an alias: nothing is bounced, and in the end it arrives."""
    s = Site(dns, "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n", aliases="postmaster: root\n")
    r = s.p.run("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", face="sendmail", stdin="Subject: cron\n\nit failed\n")
    assert r.returncode == 0
    s.p.wait_log(r'to=<root@mta.example>.*dsn=4.3.5, status=deferred \(there is no alias "root", and Posthouse has no mailboxes\)')
    table = s.p.dir / "aliases.db"
    table.rename(s.p.dir / "away")
    assert s.p.run("postmaster", face="sendmail", stdin="Subject: other\n\n").returncode == 0
    s.p.wait_log(r"to=<postmaster@mta.example>.*dsn=4.3.0, status=deferred \(alias database unavailable\)")
    assert s.mail(["crew"])[1] == "451 4.3.0 <crew@mta.example>: Temporary lookup failure"
    (s.p.dir / "aliases").write_text("postmaster: root\nroot: admin@far.example\n")
    s.alias()
    mails = s.relay.wait_mails(2)
    assert {tuple(paths(m)) for m in mails} == {("admin@far.example",)}
    assert any(b"it failed" in m["content"] for m in mails) and s.p.queue() == []
    s.stop()


def test_a_table_that_fails_in_the_middle_of_a_list(dns):
    """Whichever name it fails at: nothing goes on, and when it answers again everything does, once, by the names of then."""
    rows = {"all": "crew, dee@far.example", "crew": "ann@far.example, deck", "deck": "bob@far.example", "owner-crew": "root"}
    down, said = set(), set()

    def table(conn):
        for line in conn.makefile("rb"):
            key = unquote(line.split()[1].decode())
            said.add(rows.get(key))
            conn.sendall(b"400 down\n" if key in down else f"200 {quote(rows[key])}\n".encode() if key in rows else b"500 no\n")
    with Listener(table) as server:
        s = Site(dns, f"minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nalias_maps = tcp:127.0.0.1:{server.port}\n")
        names = ["all", "owner-all", "crew", "owner-crew", "deck", "owner-deck"]
        for key in names:
            down = {key}
            assert s.mail(["all"])[1] == "451 4.3.0 <all@mta.example>: Temporary lookup failure", key
            r = s.p.run("-f", f"{key}@src.example", "all", face="sendmail", stdin=f"Subject: x\n\nwhile {key} fails\n")
            assert r.returncode == 0, r.stderr
            s.p.wait_log(r"dsn=4.3.0, status=deferred \(alias database unavailable\)", count=names.index(key) + 1)
        assert s.relay.mails == []
        rows["deck"] = "cy@far.example"
        wait_for(lambda: rows["deck"] in said)  # the old answer may be remembered for a second
        down = set()
        wait_for(lambda: len(s.relay.mails) >= 2 * len(names) and s.p.queue() == [])
        for key in names:
            mails = [m for m in s.relay.mails if f"while {key} fails".encode() in m["content"]]
            assert {(path_of(m["from"]), *paths(m)) for m in mails} == {
                ("owner-crew@mta.example", "ann@far.example", "cy@far.example"), (f"{key}@src.example", "dee@far.example")}
            assert len(mails) == 2
        s.stop()


def test_content_that_could_not_be_read_once_is_read_again(dns):
    """A disk that is away for a while costs a round, and not the mail."""
    s = Site(dns, "spool_body_file_size = 20000\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n", aliases="postmaster: root\n")
    assert s.p.run("root", face="sendmail", stdin="Subject: x\n\n" + "x\n" * 20000).returncode == 0
    s.p.wait_log("there is no alias .root.")
    content, = s.p.dir.glob("spool/body/*")
    content.rename(s.p.dir / "away")
    (s.p.dir / "aliases").write_text("root: admin@far.example\n")
    s.alias()
    s.p.wait_log(r"to=<root@mta.example>.*dsn=4.3.0, status=deferred \(cannot read the message content\)")
    (s.p.dir / "away").rename(content)
    assert paths(s.relay.wait_mails(1)[0]) == ["admin@far.example"]
    s.stop()


def test_check_names_what_is_not_done(site):
    r = site.p.run("check")
    lines = ALIASES.splitlines()
    assert r.returncode == 2
    for name, text in NOT_DONE.items():
        said = [line for line in r.stdout.splitlines() if f'alias "{name}": ' in line]
        if name in ("tick", "nobody", "grow"):  # which aliases only name each other is found by walking them all
            continue
        at = next(i for i, line in enumerate(lines, 1) if line.startswith(f"{name}:"))
        assert len(said) == 1 and said[0].startswith(f"error: {site.p.dir}/aliases, line {at}: alias \"{name}\""), (name, said)
        assert "mail for it waits" in said[0]
    assert not [line for line in r.stdout.splitlines() if "alias" in line and any(f'"{n}"' in line for n in FORWARDS)]
    assert "root@" not in r.stdout


def test_check_says_where_roots_mail_waits(tmp_path):
    main = "mydestination = mta.example\nrelayhost = [127.0.0.1]:9\n"
    p = Posthouse(main + "alias_maps = inline:{{postmaster=root}}\n", master=MASTER, directory=tmp_path)
    out = p.run("check").stdout
    assert "is for root@mta.example" in out and "alias_maps has no root" in out
    p.write_main(main + "alias_maps = inline:{{root=me@far.example}}\n")
    assert "root@" not in p.run("check").stdout
    for row, said in ("root@mta.example=me@far.example", False), ("root=me@far.example", False), ("other@mta.example=me@far.example", True):
        p.write_main(main + "alias_maps = inline:{{postmaster=root}}\nvirtual_alias_maps = inline:{{%s}}\n" % row)
        assert ("alias_maps has no root" in p.run("check").stdout) == said, row
    (tmp_path / "master.cf").write_text("smtp unix - - n - - smtp\n")
    assert "local_transport = local:mta.example is no transport of Posthouse" in p.run("check").stdout
