"""Recipients that stand for others (virtual(5)): what is kept over a restart, tables that are away, clients that go."""
import collections
import re
import threading

import pytest
from kit import Client, FakeRelay, Listener, Posthouse, wait_for

MAIN = """mydestination =
relayhost = [127.0.0.1]:{port}
virtual_alias_domains = alias.example
virtual_alias_maps = {maps}
minimal_backoff_time = 1s
queue_run_delay = 1s
"""
ROWS = "texthash:{dir}/virtual"
TABLE = {"virtual": "two@alias.example ann@far.example, bob@far.example\nsame@far.example same@far.example, copy@far.example\n"}
LINE = r"(\S+): to=<([^>]+)>,(?: orig_to=<([^>]+)>,)? relay=.*status=(\w+)"


@pytest.fixture
def relay():
    with FakeRelay() as r:
        yield r


def main_of(relay, maps=ROWS):
    return MAIN.replace("{port}", str(relay.port)).replace("{maps}", maps)


def test_what_it_stood_for_is_kept_over_a_restart(relay):
    """So are the address that was named and the report of success that is owed; nothing is said or sent twice."""
    later = {"RCPT": lambda line: "450 4.2.1 later" if "<bob@" in line else None}
    relay.replies = later
    with Posthouse(main_of(relay), files=TABLE) as p:
        with Client(p.port) as c:
            c.cmd("MAIL FROM:<sender@from.example>")
            assert c.cmd("RCPT TO:<two@alias.example> NOTIFY=SUCCESS,FAILURE").startswith("250")
            c.cmd("DATA")
            assert c.cmd("Subject: x\r\n\r\nhello\r\n.").startswith("250")
        wait_for(lambda: "status=deferred" in p.log())
        p.stop()
        relay.replies = {}
        p.start()
        wait_for(lambda: len(re.findall(": removed", p.log())) == 2)
        lines = re.findall(LINE, p.log())
    assert {(to, orig) for _, to, orig, status in lines if status == "sent"} >= {("ann@far.example", "two@alias.example"),
                                                                                ("bob@far.example", "two@alias.example")}
    mails = [m for m in relay.mails if "from.example" in m["from"]]
    reports = [m["content"].decode() for m in relay.mails if m["from"].startswith("MAIL FROM:<>")]
    assert sorted(r for m in mails for r in m["rcpts"]) == [
        f"RCPT TO:<{who}@far.example> NOTIFY=FAILURE ORCPT=rfc822;two@alias.example" for who in ("ann", "bob")]
    assert len(reports) == 1 and "Action: expanded" in reports[0] and "Final-Recipient: rfc822; two@alias.example" in reports[0]


def test_a_table_that_is_away_costs_no_mail(relay):
    """Nothing is accepted for somebody whose aliases are not known; when the table is there again the mail is taken."""
    with Posthouse(main_of(relay), files=TABLE) as p:
        with Client(p.port) as c:
            c.cmd("MAIL FROM:<sender@from.example>")
            assert c.cmd("RCPT TO:<two@alias.example>").startswith("250")
            p.write_main(main_of(relay, "fail:away"))
            p.reload()
            assert c.cmd("RCPT TO:<same@far.example>").startswith(("250", "451"))
        with Client(p.port) as c:
            assert c.mail("sender@from.example", ["x@far.example"]) .startswith("451")
            p.write_main(main_of(relay))
            p.reload()
        with Client(p.port) as c:
            assert c.mail("sender@from.example", ["same@far.example"]).startswith("250")
        relay.wait_mails(1)
    assert relay.mails[0]["rcpts"] == ["RCPT TO:<same@far.example>", "RCPT TO:<copy@far.example> ORCPT=rfc822;same@far.example"]


def test_sendmail_and_its_aliases(relay):
    with Posthouse(main_of(relay), files=TABLE) as p:
        assert p.run("-f", "me@from.example", "two@alias.example", face="sendmail", stdin="Subject: x\n\nhello\n").returncode == 0
        relay.wait_mails(1)
    assert sorted(r.split()[1] for r in relay.mails[0]["rcpts"]) == ["TO:<ann@far.example>", "TO:<bob@far.example>"]


def test_what_an_alias_leads_to_waits_for_its_table(relay):
    """aliases(5), and virtual(5) behind it: while that table is away the mail waits, and then it goes out, once."""
    own = "mydestination = own.example\nalias_maps = inline:{{root=two@alias.example}}"
    main = main_of(relay, "fail:away").replace("mydestination =", own)
    with Posthouse(main + "receive_override_options = no_address_mappings\nsmtpd_reject_unlisted_recipient = no\n", files=TABLE,
                   master="local unix - n n - - local\n") as p:
        assert p.run("-f", "me@from.example", "root@own.example", face="sendmail", stdin="Subject: x\n\nhello\n").returncode == 0
        wait_for(lambda: "cannot queue what the alias stands for: its virtual aliases are not known" in p.log())
        p.write_main(main.replace("fail:away", ROWS))
        p.reload()
        relay.wait_mails(1)
        wait_for(lambda: len(re.findall(": removed", p.log())) == 2)
        lines = re.findall(LINE, p.log())
    assert [sorted(m["rcpts"]) for m in relay.mails] == [
        [f"RCPT TO:<{who}@far.example> ORCPT=rfc822;root@own.example" for who in ("ann", "bob")]]
    assert sorted((to, orig) for _, to, orig, status in lines if status == "sent") == [
        ("ann@far.example", "root@own.example"), ("bob@far.example", "root@own.example"), ("root@own.example", "")]


OWN = ("mydestination = own.example\nalias_maps = inline:{{ root=two@alias.example }}\n"
       "smtpd_recipient_restrictions = check_recipient_access inline:{{ root@own.example=HOLD }}\n")


def test_what_an_alias_of_aliases_stands_for_waits_for_its_table(relay):
    """Its addresses have aliases by virtual(5), which explain shows, too; while they are not known it waits, and goes once."""
    with Posthouse(main_of(relay) + OWN, files=TABLE, master="local unix - n n - - local\n") as p:
        assert p.send(rcpts=["root@own.example"]).startswith("250")
        said = p.run("explain", "s@from.example", "root@own.example", check=True).stdout
        assert "ann@far.example" in said and "bob@far.example" in said
        p.write_main(main_of(relay) + OWN + "receive_override_options = no_address_mappings\n")
        p.reload()
        said = p.run("explain", "s@from.example", "root@own.example", check=True).stdout
        assert "ann@far.example" in said and "bob@far.example" in said
        said = p.run("explain", "s@from.example", "same@far.example", check=True).stdout
        assert "copy@far.example" not in said
        p.write_main(main_of(relay, "fail:away") + OWN)
        p.reload()
        p.run("queue", "release", "ALL", check=True)
        p.wait_log(r"to=<root@own.example>, relay=local, .* status=deferred")
        p.write_main(main_of(relay) + OWN)
        p.reload()
        p.run("queue", "flush", check=True)
        relay.wait_mails(1)
        wait_for(lambda: p.queue() == [])
    assert [sorted(r.split()[1] for r in m["rcpts"]) for m in relay.mails] == [["TO:<ann@far.example>", "TO:<bob@far.example>"]]


def test_what_is_requeued_goes_to_whom_it_came_for(relay):
    """Neither an alias that was changed meanwhile nor a copy counts once more: nobody has the mail twice."""
    relay.replies = {"RCPT": lambda line: "450 4.2.1 later" if "<bob@" in line else None}
    copies = "always_bcc = archive@far.example\n"
    with Posthouse(main_of(relay) + copies, files=TABLE) as p:
        qid = p.send(rcpts=["two@alias.example"]).split()[-1]
        p.wait_log("status=deferred")
        p.write_main(main_of(relay, "inline:{{ two@alias.example=eve@far.example }}") + copies)
        p.reload()
        relay.replies = {}
        assert p.run("-r", qid, face="postsuper").stderr.endswith("postsuper: Requeued: 1 message\n")
        wait_for(lambda: p.queue() == [])
    assert sorted(r.split()[1] for m in relay.mails for r in m["rcpts"]) == [f"TO:<{who}@far.example>" for who in ("ann", "archive", "bob")]


@pytest.fixture
def slow(relay):
    """A mail that one recipient has had, and another refused: what its sender stands for is asked until over is set."""
    asked, over = threading.Event(), threading.Event()
    relay.replies = {"RCPT": lambda line: "550 5.1.1 no" if "<bob@" in line else None}

    def answers(conn):
        for line in conn.makefile("rb"):
            if b"sender@" in line:
                asked.set()
                over.wait(60)
            conn.sendall(b"500 not found\n")
    with Listener(answers) as table, Posthouse(main_of(relay, f"tcp:127.0.0.1:{table.port}")) as p:
        assert p.send("sender@from.example", ["ann@far.example", "bob@far.example"]).startswith("250")
        wait_for(asked.is_set)
        yield p, over
        over.set()


def test_what_is_deleted_is_reported_to_nobody(slow, relay):
    """Also while the report waits for the aliases of its sender."""
    p, over = slow
    p.run("queue", "delete", "ALL", check=True)
    over.set()
    assert p.wait_log("bounce.*: (sender non-delivery notification|a report is given up)")[0] == "a report is given up"
    wait_for(lambda: p.queue() == [])


def test_what_was_taken_is_noted_before_the_senders_aliases_are_known(slow, relay):
    """A bounce waits for what its sender stands for; who has had the mail has it once, also when the daemon stops meanwhile."""
    p, over = slow
    p.stop()
    over.set()
    p.start()
    wait_for(lambda: p.queue() == [])
    mails = collections.Counter(r.split()[1] for m in relay.mails for r in m["rcpts"])
    assert mails == {"TO:<ann@far.example>": 1, "TO:<sender@from.example>": 1}
