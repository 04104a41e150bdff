"""The scheduler's promises: what a destination is, orders of the administrator, reports that redeliver nothing."""
import contextlib
import email
import os
import re
import subprocess
import threading
import time

import pytest
from kit import FakeRelay, Listener, Posthouse, free_port, wait_ended, wait_for

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]
QUICK = "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"


class Gate:
    """A reply that waits until the test lets it go; shut for lines that have one of the words (none: for all)."""

    def __init__(self, *words, reply=None):
        self.words, self.reply = words, reply
        self.open, self.reached = threading.Event(), threading.Event()

    def __call__(self, line):
        if not self.words or any(w in line for w in self.words):
            self.reached.set()
            self.open.wait(60)
            return self.reply
        return None


def states(p):
    return {q["sender"]: q["queue_name"] for q in p.queue()}


def qid_of(p, sender):
    return next(q["queue_id"] for q in p.queue() if q["sender"] == sender)


@pytest.mark.parametrize("first", ["direct", "configured"])
def test_configured_relay_is_another_destination(dns, first):
    """Direct mail to a name and mail by a relay host of that name do not share what a failure means."""
    main = "sender_dependent_relayhost_maps = inline:{{{{shop@client.example=gone.example}}}}\n"
    mails = [("direct", "somebody@client.example", "box@gone.example"),
             ("configured", "shop@client.example", "friend@far.example")]
    with Posthouse(main, dns=dns) as p:
        for _, sender, rcpt in sorted(mails, key=lambda m: m[0] != first):
            p.send(sender=sender, rcpts=[rcpt])
            p.wait_log(rf"to=<{rcpt}>.*status=")
            p.run("-f", face="postqueue", check=True)  # a destination that rests would hide the difference
        p.wait_log(r"to=<box@gone\.example>.*status=bounced")
        p.wait_log(r"to=<friend@far\.example>.*status=deferred")


def test_transports_that_differ_in_case(dns):
    """master.cf's names are as they are written: two that differ in case only are two."""
    relay = FakeRelay()
    master = "Bulk unix - - n - - smtp\n  -o smtp_helo_name=upper.example\n" \
             "bulk unix - - n - - smtp\n  -o smtp_helo_name=lower.example\n"
    main = f"relayhost = [127.0.0.1]:{relay.port}\ntransport_maps = inline:{{{{" \
           f"one.example=Bulk:[127.0.0.1]:{relay.port}, two.example=bulk:[127.0.0.1]:{relay.port}}}}}\n"
    with Posthouse(main, master=master, dns=dns) as p:
        p.send(rcpts=["u@one.example"])
        relay.wait_mails(1)
        p.send(rcpts=["u@two.example"])
        relay.wait_mails(2)
        helo = {s.commands[0]: s.mails[0]["rcpts"][0].split("<")[1][:-1] for s in relay.sessions if s.mails}
        assert helo == {"EHLO upper.example": "u@one.example", "EHLO lower.example": "u@two.example"}
    relay.stop()


@pytest.fixture
def little_disk(tmp_path):
    d = tmp_path / "disk"
    d.mkdir()
    subprocess.run(SUDO + ["mount", "-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs", d], check=True)
    yield d
    subprocess.run(SUDO + ["umount", "-l", d], check=True)


# A report that quotes this header section does not fit into what is left of the message's own segment.
LONG_HEADER = "Subject: x\r\n" + ("X-Pad: " + "y" * 70 + "\r\n") * 2000 + "\r\ntext\r\n"
SMALL = "spool_segment_size = 262144\nmessage_size_limit = 300000\nheader_size_limit = 300000\n" \
        "bounce_size_limit = 300000\n"


@contextlib.contextmanager
def full(disk):
    with open(disk / "ballast", "wb", buffering=0) as f:
        with contextlib.suppress(OSError):
            while True:
                f.write(b"\0" * 4096)
    yield
    (disk / "ballast").unlink()


def test_success_report_without_room(dns, little_disk):
    """A report of success that cannot be queued is tried again; the mail is not sent again for it."""
    gate = Gate()
    relay = FakeRelay(dsn=False, replies={"DOT": lambda l: gate(l)})
    main = f"relayhost = [127.0.0.1]:{relay.port}\nqueue_directory = {little_disk}/spool\n" + SMALL + QUICK
    with Posthouse(main, dns=dns) as p:
        assert p.send(sender="once@client.example", content=LONG_HEADER, rparams=" NOTIFY=SUCCESS")[:3] == "250"
        assert gate.reached.wait(20)
        with full(little_disk):
            gate.open.set()
            p.wait_log("cannot queue a report", count=2)
        relay.wait_mail(b"Successful Mail Delivery Report")
        wait_for(lambda: p.queue() == [])
        assert len([m for m in relay.mails if "once@client" in m["from"]]) == 1
        assert len([m for m in relay.mails if b"Successful Mail" in m["content"]]) == 1
    relay.stop()


def test_success_is_noted_while_others_wait(dns):
    """Killed while another recipient's relay still thinks: what was delivered is not sent again, and is reported."""
    gate = Gate()
    quick, slow = FakeRelay(dsn=False), FakeRelay(dsn=False, replies={"DOT": lambda l: gate(l)})
    main = f"relayhost = [127.0.0.1]:{quick.port}\n" + QUICK + \
           f"transport_maps = inline:{{{{slow.example=smtp:[127.0.0.1]:{slow.port}}}}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send(rcpts=["q@quick.example", "s@slow.example"], rparams=" NOTIFY=SUCCESS")
        assert gate.reached.wait(20)
        p.wait_log(r"to=<q@quick\.example>.*status=sent")
        wait_for(lambda: p.control("stats")["spool_records"] >= 2)  # the message, and its progress
        p.kill()
        gate.open.set()
        p.start()
        slow.wait_mails(1)
        wait_for(lambda: p.queue() == [])
        assert len([m for m in quick.mails if "q@quick" in m["rcpts"][0]]) == 1
        reports = [m["content"] for m in quick.mails if b"Successful Mail Delivery Report" in m["content"]]
        assert any(b"q@quick.example" in r for r in reports) and any(b"s@slow.example" in r for r in reports)
    quick.stop()
    slow.stop()


@pytest.fixture
def busy(dns):
    """One message on the wire, five behind it; the last of them for two relays."""
    gate = Gate()
    relay, other = FakeRelay(replies={"DOT": lambda l: gate(l)}), FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 1\n" \
           "smtp_pipeline_transactions = no\n" + QUICK + f"transport_maps = inline:{{{{else.example=smtp:[127.0.0.1]:{other.port}}}}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send(sender="w0@client.example")
        assert gate.reached.wait(20)
        for i in range(1, 6):
            p.send(sender=f"w{i}@client.example")
        wait_for(lambda: len(p.queue()) == 6)
        yield p, relay, gate
        gate.open.set()
    relay.stop()
    other.stop()


def test_delete_what_waits(busy):
    p, relay, gate = busy
    one = qid_of(p, "w3@client.example")
    p.run("queue", "delete", one, check=True)
    wait_for(lambda: "w3@client.example" not in states(p))
    r = p.run("queue", "delete", "ALL", check=True)
    assert r.stdout == "posthouse: Deleted: 5 messages\n"
    wait_for(lambda: set(states(p)) <= {"w0@client.example"})
    gate.open.set()
    p.send(sender="end@client.example")
    wait_for(lambda: any("end@client" in m["from"] for m in relay.mails))
    wait_for(lambda: p.queue() == [])
    assert {m["from"].split("<")[1].split(">")[0] for m in relay.mails} <= {"w0@client.example", "end@client.example"}
    assert "removed" in p.log()


def test_hold_what_waits(busy):
    p, relay, gate = busy
    p.run("queue", "hold", "ALL", check=True)
    held = {f"w{i}@client.example" for i in range(1, 6)}
    wait_for(lambda: {s for s, q in states(p).items() if q == "hold"} == held)
    assert states(p)["w0@client.example"] == "active"  # its content is with the relay host
    gate.open.set()
    p.wait_log("status=sent")
    p.send(sender="end@client.example")
    wait_for(lambda: len(relay.mails) == 2)
    assert set(states(p)) == held
    p.run("queue", "release", "ALL", check=True)
    wait_for(lambda: p.queue() == [])
    assert sorted(m["from"].split("<")[1].split(">")[0] for m in relay.mails) == \
        sorted(held | {"w0@client.example", "end@client.example"})


def test_expire_what_waits(busy):
    p, relay, gate = busy
    p.run("queue", "expire", qid_of(p, "w2@client.example"), check=True)
    p.wait_log(r"from=<w2@client\.example>, status=force-expired, returned to sender")
    wait_for(lambda: "w2@client.example" not in states(p))
    gate.open.set()
    report = relay.wait_mail(b"Undelivered Mail Returned to Sender")
    assert "w2@client.example" in report["rcpts"][0]
    wait_for(lambda: p.queue() == [])
    assert not any("w2@client" in m["from"] for m in relay.mails)


@pytest.mark.parametrize("order", ["delete", "hold", "expire"])
def test_order_for_what_waits_for_a_connection(dns, order):
    """Attempts that a session has and has not begun: its relay host does not even greet."""
    gate = Gate()
    relay = FakeRelay(replies={"GREETING": lambda l: gate(l)})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + QUICK, dns=dns) as p:
        for i in range(3):
            p.send(sender=f"c{i}@client.example")
        assert gate.reached.wait(20)
        wait_for(lambda: len(p.queue()) == 3)
        p.run("queue", order, qid_of(p, "c0@client.example"), check=True)
        p.run("queue", order, qid_of(p, "c2@client.example"), check=True)
        gate.open.set()
        wait_for(lambda: any("c1@client" in m["from"] for m in relay.mails))
        if order == "hold":
            wait_for(lambda: states(p) == {"c0@client.example": "hold", "c2@client.example": "hold"})
        else:
            wait_for(lambda: p.queue() == [])
        senders = [m["from"] for m in relay.mails]
        assert not any("c0@client" in s or "c2@client" in s for s in senders), senders
        assert sum("FROM:<>" in s for s in senders) == (2 if order == "expire" else 0)
    relay.stop()


@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("order", ["hold", "expire", "release"])
def test_order_for_what_is_on_the_wire_outlives_the_daemon(dns, order, end):
    """One recipient's content is with the relay host, which does not answer, when the daemon ends."""
    gate = Gate()
    relay = FakeRelay(replies={"DOT": lambda l: gate(l)})
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_recipient_limit = 1\n" \
           "smtp_destination_concurrency_limit = 1\nsmtp_pipeline_transactions = no\n" + QUICK
    with Posthouse(main, dns=dns) as p:
        p.send(sender="kept@client.example", rcpts=["one@far.example", "two@far.example"])
        assert gate.reached.wait(20)
        if order == "release":
            p.run("queue", "hold", "ALL", check=True)
        p.run("queue", order, "ALL", check=True)
        p.send(sender="after@client.example")  # what comes later is durable later
        getattr(p, end)()
        gate.open.set()
        p.start()
        relay.wait_mail(b"From: after@client.example")
        if order == "hold":
            assert states(p)["kept@client.example"] == "hold"
        elif order == "expire":
            assert b"two@far.example" in relay.wait_mail(b"Undelivered Mail Returned to Sender")["content"]
        else:
            wait_for(lambda: any("two@far" in m["rcpts"][0] for m in relay.mails))
        if order != "release":
            assert not any("two@far" in m["rcpts"][0] for m in relay.mails)
    relay.stop()


def test_reload_without_the_transport(dns):
    """Mail that waits for a transport that master.cf has no more is deferred and says so."""
    gate = Gate()
    relay = FakeRelay(replies={"DOT": lambda l: gate(l)})
    table = f"transport_maps = inline:{{{{side.example=side:[127.0.0.1]:{relay.port}}}}}\n"
    main = f"relayhost = [127.0.0.1]:{relay.port}\nside_destination_concurrency_limit = 1\n" + QUICK
    with Posthouse(main + table, master="side unix - - n - - smtp\n", dns=dns) as p:
        pid = p.child("relay")
        for i in range(5):
            p.send(sender=f"s{i}@client.example", rcpts=["u@side.example"])
        assert gate.reached.wait(20)
        master = (p.dir / "master.cf").read_text()
        (p.dir / "master.cf").write_text(master.replace("side unix - - n - - smtp\n", ""))
        p.reload()
        gate.open.set()
        p.wait_log(r"to=<u@side\.example>.*dsn=4\.3\.5, status=deferred \(.*side", count=4)
        assert p.child("relay") == pid and "killed by signal" not in p.log()
        (p.dir / "master.cf").write_text(master)
        p.reload()
        wait_for(lambda: p.queue() == [])
        assert len(relay.mails) == 5
    relay.stop()


@pytest.mark.parametrize("stage, sent", [("GREETING", 0), ("DOT", 1)])
@pytest.mark.parametrize("kind, says", [("error", "dsn=5\\.0\\.0, status=bounced"), ("discard", "dsn=2\\.0\\.0, status=sent"),
                                        ("virtual", "dsn=4\\.3\\.5, status=deferred \\(.*side")])
def test_reload_with_another_kind_of_transport(dns, stage, sent, kind, says):
    """A reload makes another program of a transport: what waits for a session of the old one, queued or given, goes
    by the new one at once. What is on the wire ends."""
    gate = Gate()
    relay = FakeRelay(replies={stage: lambda l: gate(l)}, pipelining=False)
    table = f"transport_maps = inline:{{{{far.example=side:[127.0.0.1]:{relay.port}}}}}\n"
    main = "side_destination_concurrency_limit = 1\nnotify_classes =\nminimal_backoff_time = 300s\n"
    with Posthouse(main + table, master="side unix - - n - - smtp\n", dns=dns) as p:
        for i in range(5):
            p.send(sender=f"s{i}@client.example", rcpts=[f"u{i}@far.example"])
        assert gate.reached.wait(20)
        wait_for(lambda: sum(q["queue_name"] == "active" for q in p.queue()) == 5)
        master = (p.dir / "master.cf").read_text()
        (p.dir / "master.cf").write_text(master.replace("- - smtp\n", f"- - {kind}\n"))
        p.reload()
        gate.open.set()
        hits = p.wait_log(rf"to=<(u\d)@far\.example>, relay=none,.*{says}", count=5 - sent)
        assert len(set(hits)) == 5 - sent
        if kind != "virtual":
            wait_for(lambda: not any("far.example" in str(q) for q in p.queue()))
        assert len(relay.mails) == sent
    relay.stop()


def test_each_recipient_its_own_reason(dns):
    """Listing, warning and report have every recipient's own last error, status and host."""
    relay = FakeRelay(replies={"RCPT": lambda l: "451 4.3.2 busy with " + l.split("<")[1][:4] if "full" in l else
                               "452 4.2.2 no room" if "quota" in l else None})
    dead = free_port()
    main = f"relayhost = [127.0.0.1]:{relay.port}\ntransport_maps = inline:{{{{down.example=smtp:[127.0.0.1]:{dead}}}}}\n" \
           "delay_warning_time = 1s\nmaximal_queue_lifetime = 6s\n" + QUICK
    with Posthouse(main, dns=dns) as p:
        p.send(sender="me@client.example", rcpts=["full@far.example", "x@down.example", "quota@far.example"])
        raw = relay.wait_mail(b"Delayed Mail")["content"]
        wait_for(lambda: [q for q in p.queue() if q["sender"] == "me@client.example" and q["queue_name"] == "deferred"])
        listed = next(q for q in p.queue() if q["sender"] == "me@client.example")["recipients"]
        reasons = {r["address"]: r for r in listed}
        assert "451 4.3.2 busy with full" in reasons["full@far.example"]["delay_reason"]
        assert "452 4.2.2 no room" in reasons["quota@far.example"]["delay_reason"]
        assert "connect to 127.0.0.1" in reasons["x@down.example"]["delay_reason"]
        check_reports(raw, "delayed")
        check_reports(relay.wait_mail(b"Undelivered Mail")["content"], "failed")
    relay.stop()


def check_reports(raw, action):
    status = email.message_from_bytes(raw).get_payload()[1].get_payload()[1:]
    got = {s["Final-Recipient"].split("; ")[1]: s for s in status}
    assert set(got) == {"full@far.example", "x@down.example", "quota@far.example"}
    assert all(s["Action"] == action for s in status)
    assert {a: s["Status"] for a, s in got.items()} == \
        {"full@far.example": "4.3.2", "quota@far.example": "4.2.2", "x@down.example": "4.4.1"}
    assert got["full@far.example"]["Remote-MTA"] == "dns; 127.0.0.1" and got["x@down.example"]["Remote-MTA"] is None
    assert got["quota@far.example"]["Diagnostic-Code"] == "smtp; 452 4.2.2 no room"
    assert re.match(r"X-Postfix; connect to 127\.0\.0\.1", got["x@down.example"]["Diagnostic-Code"])


def test_reasons_survive_a_restart(dns):
    relay = FakeRelay(replies={"RCPT": lambda l: f"450 4.2.{len(l) % 7} later {l[9:11]}" if "@slow" in l else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="me@client.example", rcpts=["aa@slow.example", "bb@slow.example", "c@far.example"])
        p.wait_log("status=deferred", count=2)
        wait_for(lambda: states(p) == {"me@client.example": "deferred"})
        before = p.queue()
        p.kill()
        p.start()
        assert [q["recipients"] for q in p.queue()] == [q["recipients"] for q in before]
        assert {r["delay_reason"].split("later ")[1][:2] for r in p.queue()[0]["recipients"]} == {"aa", "bb"}
        assert p.run("queue", "expire", "ALL").returncode == 0  # nothing is tried for it
        raw = relay.wait_mail(b"Undelivered Mail")["content"]
        assert b"later aa" in raw and b"later bb" in raw
    relay.stop()


def test_sender_that_looks_like_another_question(dns):
    """A sender's name is never taken for another kind of question about relay records."""
    relay = FakeRelay(auth=("PLAIN",), users={"u": "p"})
    with Posthouse("relayhost = office\n", dns=dns) as p:
        p.run("record", "set", "office", f"hosts=[127.0.0.1]:{relay.port}", "tls=may", check=True)
        for sender in ("=1@client.example", "=office@client.example", '"=1\\\r"@client.example', "=@client.example"):
            if "\r" not in sender:
                assert p.send(sender=sender).startswith("250"), sender
        relay.wait_mails(3)
        wait_for(lambda: p.queue() == [])
    relay.stop()


def test_quoted_local_part_is_nobody_else(dns):
    """A quoted local part with an @ in it is not another sender's key."""
    boss, plain = FakeRelay(), FakeRelay()
    main = f"relayhost = [127.0.0.1]:{plain.port}\nmydestination = own.example\nmyorigin = own.example\n" \
           f"sender_dependent_relayhost_maps = inline:{{{{ceo@firm.example=[127.0.0.1]:{boss.port}, @firm.example=[127.0.0.1]:{boss.port}, joe=[127.0.0.1]:{boss.port}}}}}\n"
    with Posthouse(main, dns=dns) as p:
        p.send(sender='"ceo@firm.example"@own.example')
        plain.wait_mails(1)
        p.send(sender='"@firm.example"@own.example')
        plain.wait_mails(2)
        p.send(sender="joe@own.example")
        boss.wait_mails(1)
        wait_for(lambda: p.queue() == [])
    boss.stop()
    plain.stop()


def test_warning_that_could_not_be_queued_comes_later(dns, little_disk):
    """The delay warning counts as sent when it is durable, not before."""
    relay = FakeRelay(replies={"RCPT": lambda l: "450 4.2.0 later" if "slow" in l else None})
    main = f"relayhost = [127.0.0.1]:{relay.port}\nqueue_directory = {little_disk}/spool\n" + SMALL + QUICK
    with Posthouse(main, dns=dns) as p:
        assert p.send(rcpts=["slow@far.example"], content=LONG_HEADER)[:3] == "250"
        with full(little_disk):
            p.write_main(main + "delay_warning_time = 1s\n")
            p.reload()
            p.wait_log("cannot queue a report")
        relay.wait_mail(b"Delayed Mail")
        p.wait_log("status=deferred", count=len(re.findall("status=deferred", p.log())) + 2)
        assert len([m for m in relay.mails if b"Delayed Mail" in m["content"]]) == 1
    relay.stop()


def test_orderly_stop_waits_for_the_answer_to_the_content(dns):
    """SIGTERM while the relay host still thinks about the whole message: its answer counts."""
    gate = Gate()
    relay = FakeRelay(replies={"DOT": lambda l: gate(l)})
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + QUICK, dns=dns)
    with p:
        p.send(sender="last@client.example")
        assert gate.reached.wait(20)
        p.proc.terminate()
        threading.Timer(0.5, gate.open.set).start()
        p.proc.wait(30)
        p.start()
        wait_for(lambda: p.queue() == [])
        assert len(relay.mails) == 1
        p.wait_log("status=sent", count=1)
    relay.stop()


def test_orderly_stop_waits_for_no_filter(dns):
    """A table of smtp_delivery_status_filter that says nothing: what the relay host has taken is noted, and not sent again."""
    silent = threading.Event()
    relay = FakeRelay()
    with Listener(lambda conn: (conn.recv(100), silent.wait(60))) as table, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + QUICK +
                      f"smtp_delivery_status_filter = tcp:127.0.0.1:{table.port}\n", dns=dns) as p:
        p.send(sender="taken@client.example")
        relay.wait_mails(1)
        p.proc.terminate()
        p.proc.wait(30)
        p.start()
        wait_for(lambda: p.queue() == [])
        p.wait_log("status=sent", count=1)
        assert len(relay.mails) == 1
        silent.set()
    relay.stop()


def test_what_was_taken_is_noted_before_its_filter_answers(dns):
    """A table of smtp_delivery_status_filter changes the words of a success, also in the report.  When it says nothing and
    everything is killed, what was taken is not sent again."""
    hush, silent = threading.Event(), threading.Event()

    def serve(conn):
        for _ in conn.makefile("rb"):
            if hush.is_set():
                silent.wait(60)
            conn.sendall(b"200 2.7.7%20by%20another%20name\n")
    relay = FakeRelay(dsn=False, replies={"RCPT": lambda line: "450 4.2.1 come back" if "<later@" in line else None})
    with Listener(serve) as table, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n"
                                             f"smtp_delivery_status_filter = tcp:127.0.0.1:{table.port}\n", dns=dns) as p:
        p.send(sender="words@client.example", rparams=" NOTIFY=SUCCESS")
        relay.wait_mail(b"Status: 2.7.7")
        p.wait_log(r"to=<b@y\.example>.*dsn=2\.7\.7, status=sent \(by another name\)")
        hush.set()
        for content, rparams in (("first", ""), ("second", " NOTIFY=SUCCESS")):
            p.send(sender=f"{content}@client.example", rcpts=["fine@y.example", "later@y.example"], rparams=rparams,
                   content=f"Subject: {content}\r\n\r\nx\r\n")
            relay.wait_mail(f"Subject: {content}".encode())
            wait_for(lambda: [r["address"] for q in p.queue() if q["sender"].startswith(content) for r in q["recipients"]]
                     == ["later@y.example"])
        p.kill()
        silent.set()
        p.start()
        relay.wait_mail(b"Final-Recipient: rfc822; fine@y.example")
        p.wait_log(r"to=<later@y\.example>.*status=deferred")
        to_fine = [m for m in relay.mails if any("<fine@" in r for r in m["rcpts"])]
        assert [b"Subject: first" in m["content"] for m in to_fine] == [True, False]
    relay.stop()


def new_relay(dns, change, common=""):
    """Six mails wait behind one whose content a relay host has; a reload makes change(old, new) of the settings."""
    gate = Gate()
    old = FakeRelay(auth=["PLAIN"], users={"ua": "old-secret"}, replies={"DOT": lambda line: gate(line)}, pipelining=False)
    new = FakeRelay(auth=["PLAIN"], users={"ub": "new-secret"})
    main = ("smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options =\nsmtp_sasl_password_maps = texthash:{dir}/pw\n"
            "smtp_destination_concurrency_limit = 1\n" + common)
    first, second = change(old, new)
    with Posthouse(first[0] + main, dns=dns, files={"pw": f"[127.0.0.1]:{old.port} ua:old-secret\n", **first[1]}) as p:
        for i in range(6):
            assert p.send(sender=f"s{i}@client.example", rcpts=[f"u{i}@far.example"]).startswith("250")
        assert gate.reached.wait(20)
        for name, text in {"pw": f"[127.0.0.1]:{new.port} ub:new-secret\n", **second[1]}.items():
            (p.dir / name).write_text(text)
        p.write_main(second[0] + main)
        p.reload()
        gate.open.set()
        wait_for(lambda: p.queue() == [])
    mails = old.mails, new.mails
    old.stop()
    new.stop()
    return [[(re.search("s\\d", m["from"]).group(), m["auth"]) for m in there] for there in mails]


MOVES = {
    "relayhost": lambda old, new: ((f"relayhost = [127.0.0.1]:{old.port}\n", {}), (f"relayhost = [127.0.0.1]:{new.port}\n", {})),
    "transport table": lambda old, new: tuple(("transport_maps = texthash:{dir}/tr\n", {"tr": f"far.example smtp:[127.0.0.1]:{r.port}\n"})
                                              for r in (old, new)),
    "sender table": lambda old, new: tuple(("sender_dependent_relayhost_maps = texthash:{dir}/sr\n",
                                            {"sr": f"@client.example [127.0.0.1]:{r.port}\n"}) for r in (old, new)),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_reload_moves_what_waits(dns, move):
    """Mail that is not on the wire goes by the new relay host and with its login, never to the old one without any."""
    old, new = new_relay(dns, MOVES[move])
    assert old == [("s0", ("PLAIN", "ua", "old-secret"))]
    assert sorted(new) == [(f"s{i}", ("PLAIN", "ub", "new-secret")) for i in range(1, 6)]


@pytest.mark.parametrize("what", ["reload", "hold"])
def test_what_was_not_tried_does_not_expire(dns, what):
    """Mail may be tried once only, and all but the first wait for their turn. A reload or an order takes them back before
    they have had it: none is returned for its age."""
    gate = Gate()
    relay = FakeRelay(replies={"DOT": lambda l: gate(l)}, pipelining=False)
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 1\nmaximal_queue_lifetime = 0\n"
    with Posthouse(main, dns=dns) as p:
        for i in range(4):
            p.send(sender=f"o{i}@client.example", rcpts=[f"u{i}@far.example"])
        assert gate.reached.wait(20)
        if what == "reload":
            p.reload()
            p.wait_log(r"from=<o[123]@client\.example>, .*queue active", count=6)  # they are routed anew
        else:
            p.run("queue", "hold", "ALL", check=True)
            wait_for(lambda: sorted(states(p).values()) == ["active", "hold", "hold", "hold"])
        gate.open.set()
        p.wait_log("status=sent")
        p.run("queue", "release", "ALL", check=True)
        relay.wait_mails(4)
        wait_for(lambda: p.queue() == [])
        assert "expired" not in p.log() and len(relay.mails) == 4
    relay.stop()


@pytest.mark.parametrize("first, then", [("expire", "hold"), ("hold", "expire")])
def test_what_is_on_hold_is_not_returned(dns, first, then):
    """Both orders come while the message is on the wire: when that has ended it is on hold, as one that was there before."""
    gate = Gate(reply="450 4.2.0 not now")
    relay = FakeRelay(replies={"DOT": lambda l: gate(l)})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="both@client.example")
        assert gate.reached.wait(20)
        p.run("queue", first, "ALL", check=True)
        p.run("queue", then, "ALL", check=True)
        gate.open.set()
        p.wait_log("status=deferred")
        wait_for(lambda: states(p) == {"both@client.example": "hold"})
        gate.reply = None
        p.run("queue", "release", "ALL", check=True)
        relay.wait_mail(b"Undelivered Mail Returned to Sender")
        wait_for(lambda: p.queue() == [])
        assert not relay.mails[0]["from"].startswith("FROM:<both@")
    relay.stop()


@contextlib.contextmanager
def saving(p):
    """Somebody saves relay records again and again meanwhile."""
    over = threading.Event()

    def save():
        while not over.wait(0.2):
            p.control("forget")
    thread = threading.Thread(target=save, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        wait_ended(thread)


def test_tables_that_change_all_the_time_stop_no_mail(dns):
    """Saves come sooner than a host greets: mail goes all the same, each by one connection."""
    with FakeRelay(replies={"GREETING": lambda line: time.sleep(1) or "220 at last"}) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p, saving(p):
        for _ in range(3):
            p.send()
        relay.wait_mails(3)
        assert len(relay.sessions) <= 3


@pytest.mark.parametrize("greets", ["at once", "late"])
def test_slow_tables_that_change_all_the_time_stop_no_mail(dns, greets):
    """Saves come sooner than the routes of a mail's recipients are known, as it is routed first and while its session connects."""
    def answer(conn):
        for _ in conn.makefile("rb"):
            time.sleep(0.15)
            conn.sendall(b"500 no\n")
    late = {"GREETING": lambda line: time.sleep(1) or "220 at last"}
    with Listener(answer) as table, FakeRelay(replies=late if greets == "late" else {}) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\ntransport_maps = tcp:127.0.0.1:{table.port}\n", dns=dns) as p, saving(p):
        p.send(rcpts=[f"user{i}@client{i}.example" for i in range(4)])
        relay.wait_mails(1)


def test_slow_tables_that_change_all_the_time_stop_no_alias(dns):
    """What an alias stands for goes on, too, although saves come sooner than its route is known."""
    def answer(conn):
        for _ in conn.makefile("rb"):
            time.sleep(0.15)
            conn.sendall(b"500 no\n")
    with Listener(answer) as table, FakeRelay() as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmydestination = own.example\n"
                      f"alias_maps = inline:{{{{team=ann@far.example}}}}\ntransport_maps = tcp:127.0.0.1:{table.port}\n",
                      master="local unix - n n - - local\n", dns=dns) as p, saving(p):
        assert p.send(rcpts=["team@own.example"]).startswith("250")
        relay.wait_mails(1)


@pytest.mark.parametrize("stage", ["MAIL", "DOT"])
def test_tables_that_change_all_the_time_give_a_host_no_more_time(dns, stage):
    """A host that never answers is left for the next one, however often somebody saves meanwhile."""
    gone = threading.Event()
    limits = "smtp_mail_timeout = 2s\nsmtp_data_done_timeout = 2s\n"
    with FakeRelay(replies={stage: lambda line: gone.wait() and ""}) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n{limits}", dns=dns) as p, saving(p):
        p.send()
        try:
            p.wait_log("status=deferred.*timed out")
        finally:
            gone.set()


def test_a_changed_record_takes_mail_from_a_host_that_does_not_greet(dns):
    """Mail whose session is still waiting for the old host goes by the new one at once."""
    silent, good = FakeRelay(replies={"GREETING": lambda line: time.sleep(60) or "220 at last"}), FakeRelay()
    with Posthouse("relayhost = office\n", dns=dns) as p:
        p.run("record", "set", "office", f"hosts=[127.0.0.1]:{silent.port}", "tls=none", check=True)
        wait_for(lambda: "reload -- " in p.log())
        p.send()
        wait_for(lambda: silent.sessions)
        p.run("record", "set", "office", f"hosts=[127.0.0.1]:{good.port}", "tls=none", check=True)
        good.wait_mails(1)
    silent.stop()
    good.stop()
