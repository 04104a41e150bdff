"""Retry, concurrency, dead destinations, reports, queue commands, sendmail, pflogsumm."""
import contextlib
import email
import itertools
import json
import os
import pty
import re
import socket
import subprocess
import threading
import time

import pytest
from kit import BUILD, FakeRelay, Posthouse, free_port, wait_ended, wait_for

DEAD = "relayhost = [127.0.0.1]:{port}\nminimal_backoff_time = {backoff}\n"


def test_mail_that_only_a_newer_version_can_read_is_listed(dns):
    """It is neither sent nor dropped, whether the daemon runs or not, and its listing says so; other mail goes on."""
    with FakeRelay(replies={"RCPT": "450 4.2.0 later"}) as relay, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nminimal_backoff_time = 1000s\n", dns=dns) as p:
        for sender in ("ann@x.example", "ben@x.example"):
            p.send(sender=sender, rcpts=['"a b"@y.example', "c@y.example"])
        p.wait_log("status=deferred", count=4)
        wait_for(lambda: [q["queue_name"] for q in p.queue()] == ["deferred"] * 2)
        qids = [q["queue_id"] for q in p.queue()]
        p.stop()
        other = subprocess.run([BUILD / "tests" / "newer", p.dir / "spool"], capture_output=True, text=True, check=True).stdout.strip()
        for segment in (p.dir / "spool/log").iterdir():
            os.chown(segment, (p.dir / "spool").stat().st_uid, -1)
        for runs in (False, True):
            if runs:
                p.start()
                p.wait_log("2 of them cannot be read and wait for a version that can")
            seen = {q["queue_id"]: q for q in p.queue()}
            assert {i: q["queue_name"] for i, q in seen.items()} == {qids[0]: "unreadable", qids[1]: "deferred", other: "unreadable"}
            assert [r["address"] for r in seen[qids[0]]["recipients"]] == ['"a b"@y.example', "c@y.example"]
            assert seen[qids[0]]["sender"] == "ann@x.example" and seen[other]["sender"] == "unknown"
            assert all("this version cannot read" in r["delay_reason"] for i in (qids[0], other) for r in seen[i]["recipients"])
            listing = p.run(face="mailq").stdout
            assert f"{qids[0]}?" in listing and f"{other}?" in listing and "in 3 Requests." in listing
            assert [json.loads(line)["queue_id"] for line in p.run("queue", "list", "--json", other).stdout.splitlines()] == [other]
            assert [q["queue_id"] for q in map(json.loads, p.run("queue", "list", "--json", "deferred").stdout.splitlines())] == [qids[1]]
        tried = len(relay.sessions)
        p.run("-d", "ALL", face="postsuper", check=True)
        p.run("queue", "flush", check=True)
        assert [q["queue_name"] for q in p.queue()] == ["unreadable"] * 2 and len(relay.sessions) == tried


def test_retry_and_expiry(dns):
    """Tried again by minimal_backoff_time; returned when too old, with the last reason."""
    relay = FakeRelay(replies={"RCPT": lambda l: "450 4.2.0 try later" if "b@y" in l else None})
    main = f"relayhost = [127.0.0.1]:{relay.port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n" \
           "maximal_queue_lifetime = 3s\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log("status=deferred", count=3)
        p.wait_log(r"from=<a@x\.example>, status=expired, returned to sender")
        report = relay.wait_mail(b"Undelivered Mail")
        assert report["from"].startswith("MAIL FROM:<>")
        assert b"450 4.2.0 try later" in report["content"].replace(b"\r\n    ", b" ")
        p.wait_log("removed", count=2)
    relay.stop()


def test_single_attempt(dns):
    main = f"relayhost = [127.0.0.1]:{free_port()}\nmaximal_queue_lifetime = 0\nbounce_queue_lifetime = 0\n"
    with Posthouse(main, dns=dns) as p:
        p.send()
        p.wait_log(r"from=<a@x\.example>, status=expired, returned to sender")
        p.wait_log(r"from=<>, status=expired, returned to sender")  # the report could not be sent either
        wait_for(lambda: p.queue() == [])


def test_bounce_report(dns):
    """RFC 3464, in Postfix's words."""
    relay = FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no such user" if "b@y" in l else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(params=" ENVID=env1", rparams=" ORCPT=rfc822;orig@y.example",
               content="Subject: original\r\nMessage-ID: <o@x.example>\r\n\r\nthe text\r\n")
        raw = relay.wait_mail(b"Undelivered Mail Returned to Sender")["content"]
        p.wait_log(r"bounce\[\d+\]: \w+: sender non-delivery notification: \w+")
    m = email.message_from_bytes(raw)
    assert m["From"] == "Mail Delivery System <MAILER-DAEMON@mta.example>" and m["To"] == "a@x.example"
    assert m["Auto-Submitted"] == "auto-replied"
    assert m.get_content_type() == "multipart/report" and m.get_param("report-type") == "delivery-status"
    assert re.fullmatch(r"\w+\.\d+/mta\.example", m.get_boundary())
    text, status, original = m.get_payload()
    assert [part["Content-Description"] for part in m.get_payload()] == \
        ["Notification", "Delivery report", "Undelivered Message"]
    assert "This is the mail system at host mta.example." in text.get_payload()
    assert "<b@y.example>: host 127.0.0.1[127.0.0.1] said: 550 5.1.1 no such user (in" in text.get_payload()
    per_message, per_rcpt = status.get_payload()
    assert per_message["Reporting-MTA"] == "dns; mta.example"
    assert per_message["Original-Envelope-Id"] == "env1"
    assert per_message["X-Postfix-Sender"] == "rfc822; a@x.example"
    assert per_rcpt["Final-Recipient"] == "rfc822; b@y.example"
    assert per_rcpt["Original-Recipient"] == "rfc822;orig@y.example"
    assert (per_rcpt["Action"], per_rcpt["Status"]) == ("failed", "5.1.1")
    assert per_rcpt["Remote-MTA"] == "dns; 127.0.0.1"
    assert per_rcpt["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert original.get_content_type() == "message/rfc822"
    inner = original.get_payload()[0]
    assert inner["Return-Path"] == "<a@x.example>" and inner.get_payload() == "the text\r\n"
    relay.stop()


def test_no_report_on_null_sender_or_never(dns):
    relay = FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no" if "bad" in l else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="", rcpts=["bad@y.example"])
        p.send(rcpts=["bad@y.example"], rparams=" NOTIFY=NEVER")
        p.wait_log("removed", count=2)
        assert "notification" not in p.log() and relay.mails == []
    relay.stop()


def test_header_only_report(dns):
    relay = FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no" if "bad" in l else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nbounce_size_limit = 1000\n", dns=dns) as p:
        p.send(rcpts=["bad@y.example"], content="Subject: big\r\n\r\n" + "secret text\r\n" * 500)
        raw = relay.wait_mail(b"Undelivered Mail")["content"]
        assert b"text/rfc822-headers" in raw and b"Subject: big" in raw and b"secret text" not in raw
    relay.stop()


def test_delay_and_success_reports(dns):
    relay = FakeRelay(dsn=False, replies={"RCPT": lambda l: "450 4.2.0 later" if "slow" in l else None})
    main = f"relayhost = [127.0.0.1]:{relay.port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n" \
           "delay_warning_time = 1s\n"
    with Posthouse(main, dns=dns) as p:
        p.send(rcpts=["slow@y.example"])
        raw = relay.wait_mail(b"Delayed Mail (still being retried)")["content"]
        assert b"Action: delayed" in raw and b"Will-Retry-Until:" in raw
        p.wait_log("sender delay notification")
        p.send(rcpts=["fast@y.example"], rparams=" NOTIFY=SUCCESS")
        raw = relay.wait_mail(b"Successful Mail Delivery Report")["content"]
        assert b"Action: relayed" in raw
        p.wait_log("sender delivery status notification")
        assert p.log().count("sender delay notification") == 1
    relay.stop()


def test_dead_destination_rests_alone(dns):
    """One dead relay: a few real attempts, then suspended; other destinations do not notice."""
    good, port = FakeRelay(), free_port()
    main = f"relayhost = [127.0.0.1]:{good.port}\ndefault_destination_concurrency_limit = 2\n" \
           f"transport_maps = inline:{{{{dead.example=smtp:[127.0.0.1]:{port}}}}}\n"
    with Posthouse(main, dns=dns) as p:
        for i in range(6):
            p.send(rcpts=[f"d{i}@dead.example"])
            p.send(rcpts=[f"g{i}@y.example"])
        good.wait_mails(6)
        p.wait_log(r"relay=none, .*dsn=4\.4\.1, status=deferred \(connect to 127\.0\.0\.1\[127\.0\.0\.1\]:\d+: "
                   r"Connection refused\)")
        p.wait_log(r"error\[\d+\]: \w+: to=<d\d@dead\.example>, relay=none, .*dsn=4\.4\.1, status=deferred "
                   r"\(delivery temporarily suspended: connect to 127\.0\.0\.1\[127\.0\.0\.1\]:\d+: Connection refused\)")
        p.wait_log("status=deferred", count=6)
        # postqueue -f clears the rest at once
        late = FakeRelay(port=port)
        assert p.run("-f", face="postqueue").returncode == 0
        late.wait_mails(6)
        wait_for(lambda: p.queue() == [])
        late.stop()
    good.stop()


def test_concurrency_limit_and_fairness(dns):
    """Never more sessions than allowed; a flood from one sender does not hold up another."""
    relay = FakeRelay(delay=0.2)
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 2\n" \
           "smtp_pipeline_transactions = no\n"
    with Posthouse(main, dns=dns) as p:
        with p.client() as c:
            for i in range(30):
                c.mail(sender="flood@x.example")
            c.mail(sender="quiet@x.example")
        wait_for(lambda: any("quiet@" in m["from"] for m in relay.mails))
        assert len(relay.mails) < 20
        assert len(relay.conns) <= 2
        relay.wait_mails(31)
        assert len(relay.sessions) <= 3
    relay.stop()


def test_rate_delay(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\ndefault_destination_rate_delay = 1s\n", dns=dns) as p:
        with p.client() as c:
            for _ in range(3):
                c.mail()
        relay.wait_mails(1)
        time.sleep(0.3)
        assert len(relay.mails) == 1
        relay.wait_mails(3)
    relay.stop()


def test_recipient_limit_splits(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_recipient_limit = 3\n", dns=dns) as p:
        p.send(rcpts=[f"r{i}@y.example" for i in range(7)])
        mails = relay.wait_mails(3)
        assert sorted(len(m["rcpts"]) for m in mails) == [1, 3, 3]
    relay.stop()


@pytest.fixture
def deferred(dns):
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n", dns=dns) as p:
        p.send(sender="aa1@x.example", rcpts=["b@y.example", "c@y.example"])
        p.send(sender="", rcpts=["d@y.example"])
        p.wait_log("status=deferred", count=3)
        wait_for(lambda: all(q["queue_name"] == "deferred" for q in p.queue()) and p.queue())
        yield p


def test_listings(deferred):
    p = deferred
    r = p.run("-p", face="postqueue")
    head, *_ = r.stdout.splitlines()
    assert head == "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
    assert re.search(r"^[0-9A-F]{8,11} +\d+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d  aa1@x\.example$", r.stdout, re.M)
    assert re.search(r"^ *\(.*connect to 127\.0\.0\.1\[127\.0\.0\.1\]:\d+: Connection refused\)\n {41}b@y\.example\n {41}c@y\.example$",
                     r.stdout, re.M)
    assert "MAILER-DAEMON" in r.stdout and re.search(r"^-- \d+ Kbytes in 2 Requests\.$", r.stdout, re.M)
    assert p.run(face="mailq").stdout == r.stdout == p.run("-bp", face="sendmail").stdout
    assert p.run("queue", "list").stdout == r.stdout
    one = next(q for q in p.queue() if q["sender"] == "aa1@x.example")
    assert set(one) >= {"queue_name", "queue_id", "arrival_time", "message_size", "forced_expire", "sender", "recipients"}
    assert one["queue_name"] == "deferred" and one["forced_expire"] is False
    assert [x["address"] for x in one["recipients"]] == ["b@y.example", "c@y.example"]
    shown = json.loads(p.run("queue", "show", "--json", one["queue_id"]).stdout)
    assert shown["queue_id"] == one["queue_id"]


def test_long_listing_in_pieces(dns):
    """A listing longer than the socket holds: whole, oldest first, and the daemon goes on while it is not read."""
    n = 1500
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\ndefer_transports = smtp\n", dns=dns) as p:
        with p.client() as c:
            for i in range(n):
                assert c.mail(sender=f"s{i:04}-{'x' * 40}@{'y' * 60}.example").startswith("250")
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(str(p.dir / "spool/control.sock"))
            s.sendall(b'{"cmd": "queue-list"}\n{"cmd": "stats"}\n')
            assert p.send(sender="later@x.example").startswith("250")
            lines = s.makefile("rb")
            listed = []
            while "ok" not in (line := json.loads(lines.readline())):
                listed.append(line["sender"][:5])
            assert listed[:n] == [f"s{i:04}" for i in range(n)]
            assert json.loads(lines.readline())["deferred"] >= n
        with socket.socket(socket.AF_UNIX) as s:  # somebody who goes away in the middle
            s.connect(str(p.dir / "spool/control.sock"))
            s.sendall(b'{"cmd": "queue-list"}\n')
            s.recv(100)
        assert len(p.queue()) == n + 1


def test_hold_release_expire_delete(deferred):
    p = deferred
    qid = next(q["queue_id"] for q in p.queue() if q["sender"] == "aa1@x.example")
    assert p.run("queue", "hold", qid).stdout == "posthouse: Placed on hold: 1 message\n"
    assert [q["queue_name"] for q in p.queue() if q["queue_id"] == qid] == ["hold"]
    assert f"{qid}!" in p.run("-p", face="postqueue").stdout
    p.run("-f", face="postqueue")
    time.sleep(0.3)
    assert [q["queue_name"] for q in p.queue() if q["queue_id"] == qid] == ["hold"]
    p.stop()
    p.start()  # still on hold after a restart
    assert [q["queue_name"] for q in p.queue() if q["queue_id"] == qid] == ["hold"]
    assert p.run("queue", "release", qid).returncode == 0
    wait_for(lambda: [q["queue_name"] for q in p.queue() if q["queue_id"] == qid] == ["deferred"])
    assert p.run("queue", "expire", qid).stdout == "posthouse: Force-expired: 1 message\n"
    p.wait_log(r"from=<aa1@x\.example>, status=force-expired, returned to sender")
    assert p.run("queue", "delete", "NOSUCHID").returncode == 1
    assert p.run("queue", "delete", "ALL").returncode == 0
    wait_for(lambda: p.queue() == [])
    assert p.run("-p", face="postqueue").stdout == "Mail queue is empty\n"


def test_counts_are_of_what_changed(deferred):
    p = deferred
    first, second = (q["queue_id"] for q in p.queue())
    assert p.run("queue", "hold", first, check=True).stdout == "posthouse: Placed on hold: 1 message\n"
    r = p.run("queue", "hold", "ALL", check=True)
    assert r.stdout == "posthouse: Placed on hold: 1 message (1 of 2 was not on hold)\n"
    p.run("queue", "release", second, check=True)
    assert p.run("queue", "release", "ALL").stdout == "posthouse: Released from hold: 1 message (1 of 2 was on hold)\n"
    assert p.run("queue", "release", "ALL").stdout == "posthouse: Released from hold: 0 messages (0 of 2 were on hold)\n"


@pytest.mark.parametrize("args", [
    ["list", "defered"], ["list", "--sendr", "x"], ["list", "--sender"], ["list", "NOSUCH"], ["list", "--json", "NOSUCH"],
    ["show"], ["show", "NOSUCH"], ["show", "--content", "a/b"], ["delete"], ["delete", "held"], ["delete", "ALL", "NOSUCH"],
    ["delete", "NOSUCH"], ["retry", "--json"], ["hold", "--sender"], ["flush", "ALL"], ["flush", "deferred"],
    ["delete", "--sender", ""], ["hold", "deferred", "--recipient", ""], ["expire", "--site", ""], ["list", "--reason", ""],
    ["delete", "--sender", "aa1", "--sender", "nobody"], ["hold", "deferred", "active"]])
def test_what_is_not_understood_is_refused(deferred, args):
    """Neither all of the queue is listed nor anything done where the arguments name something else."""
    p = deferred
    before = p.queue()
    r = p.run("queue", *args)
    assert r.returncode != 0 and r.stderr and "@y.example" not in r.stdout, (r.stdout, r.stderr)
    assert [(q["queue_id"], q["queue_name"]) for q in p.queue()] == [(q["queue_id"], q["queue_name"]) for q in before]


NAMES_NOTHING = [
    (["delete", "deferred", "-"], "", 0), (["delete", "--sender", "aa1", "-"], "", 0), (["delete", "deferred", "-"], "no/id\n", 1),
    (["expire", "--recipient", "@", "-"], "AB\0CD\n", 1), (["delete", "ALL", "-"], "", 64),
    (["hold", "-"], "", 0), (["flush", "-"], "", 64),
    (["delete", "deferred", "--sender", os.fsdecode(b"m\xfcller")], "", 64), (["list", "--reason", os.fsdecode(b"\xfc")], "", 64),
    (["list", "-"], "", 0), (["list", "--json", "-"], "a b\n", 1), (["list", "hold", "--sender", "aa1"], "", 0)]


def test_a_list_that_names_nothing_is_not_all(deferred):
    """Standard input without an ID, as of a grep that found none, and a filter that is no text, ask for no mail."""
    p = deferred
    before = p.queue()
    for args, stdin, code in NAMES_NOTHING:
        r = p.run("queue", *args, stdin=stdin)
        assert (r.returncode, "@y.example" in r.stdout, "is empty" in r.stdout) == (code, False, False), (args, r.stdout, r.stderr)
        assert [(q["queue_id"], q["queue_name"]) for q in p.queue()] == [(q["queue_id"], q["queue_name"]) for q in before], args


def test_all_is_no_queue_id(deferred):
    p = deferred
    for face, *args in (["postqueue", "-i", "ALL"], ["sendmail", "-qIALL"]):
        r = p.run(*args, face=face)
        assert r.returncode == 69 and 'Cannot flush queue ID - invalid name: "ALL"' in r.stderr
    assert [q["attempts"] for q in p.queue()] == [1, 1]


def test_thousands_of_ids(deferred):
    """More than one request holds; the number is that of a grep through a day's log."""
    p = deferred
    ids = [q["queue_id"] for q in p.queue()]
    many = "".join(f"7FFFFF8C{i:05d}\n" for i in range(20000))
    r = p.run("queue", "list", "--json", "-", stdin=ids[0] + "\n" + many + ids[1] + "\n")
    assert r.returncode == 1 and {json.loads(line)["queue_id"] for line in r.stdout.splitlines()} == set(ids)
    assert r.stderr.count("there is no such message") == 20000
    r = p.run("queue", "hold", "-", stdin=ids[0] + "\n" + many + ids[1] + "\n")
    assert (r.returncode, r.stdout) == (1, "posthouse: Placed on hold: 2 messages\n")
    assert r.stderr.count("there is no such message") == 20000
    assert p.log().count("Placed on hold: ") < 100  # a line for each request


def test_what_cannot_be_written_is_no_success(deferred):
    """Who copies a message into a file on a full disk, to delete it then, learns that the copy is not whole."""
    p = deferred
    qid = p.queue()[0]["queue_id"]
    for face, *args in (["mailq"], ["postqueue", "-j"], ["posthouse", "queue", "list"], ["qshape", "deferred"], ["postcat", "-q", qid],
                        ["postconf"], ["posthouse", "check"], ["posthouse", "--help"]):
        p.run(face=face)  # makes the link
        with open("/dev/full", "w") as full:
            r = subprocess.run([p.dir / f"cmd-{face}" / face, *args], stdout=full, stderr=subprocess.PIPE, text=True,
                               env=dict(p.env(), MAIL_CONFIG=str(p.dir)))
        assert r.returncode != 0 and f"{face}: fatal: output write error: No space left on device" in r.stderr, (face, r.stderr)


def test_nothing_of_a_mail_moves_a_terminal(dns):
    """What a relay host, a client and the mail itself say reaches a terminal, and the log, without control characters."""
    raw, shown = "\x1b[31m\x9b2J\x07", "?[31m??2J?"
    relay = FakeRelay(replies={"RCPT": f"450 4.2.0 slow {raw}"})
    with relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        content = f"Subject: s\t{raw}\r\n\r\nbody {raw}\r\n".encode()
        assert p.send("a\x9b2J@x.example", ["b\x9b2J@y.example"], content, " SMTPUTF8").startswith("250")
        p.wait_log("status=deferred")
        qid = p.queue()[0]["queue_id"]
        env = dict(p.env(), MAIL_CONFIG=str(p.dir))
        for face, *args in (["mailq"], ["posthouse", "queue", "list"], ["posthouse", "queue", "show", "--content", qid],
                            ["postcat", "-q", qid]):
            p.run(face=face)  # makes the link
            ours, terminal = pty.openpty()
            with subprocess.Popen([p.dir / f"cmd-{face}" / face, *args], stdout=terminal, env=env) as proc:
                os.close(terminal)
                said = b""
                with contextlib.suppress(OSError):  # the terminal is gone
                    while piece := os.read(ours, 65536):
                        said += piece
                os.close(ours)
            text = said.decode().replace("\r\n", "\n")
            assert proc.returncode == 0 and "a??2J@x.example" in text and "b??2J@y.example" in text
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), args
            assert face == "postcat" or f"slow {shown}" in text
            assert "show" not in args or f"Subject: s\t{shown}\n" in text and f"body {shown}\n" in text
        for args in (["queue", "list", "--json"], ["queue", "show", "--json", qid], ["explain", "--json", "a\x9b2J@x.example"]):
            said = p.run(*args).stdout
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)
            assert json.loads(said.splitlines()[0])["sender"] == "a\x9b2J@x.example"
        assert f"body {raw}\n" in p.run("-q", qid, face="postcat").stdout  # a file gets each byte
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", p.log())


def test_filters_of_the_listing(deferred):
    p = deferred
    by_sender = {q["sender"]: q["queue_id"] for q in p.queue()}
    one, other = by_sender["aa1@x.example"], by_sender["MAILER-DAEMON"]

    def listed(*args):
        return [json.loads(l)["queue_id"] for l in p.run("queue", "list", "--json", *args, check=True).stdout.splitlines()]
    assert listed("--sender", "AA1") == [one] and listed("--recipient", "D@Y.example") == [other]
    assert listed("--sender", "@x.Example") == [one] == listed("--sender", "1@") and listed("--recipient", "y.ex") == [one, other]
    assert listed("deferred", "--site", "Y.example") == [one, other] and listed("hold") == [] == listed("--site", "example")
    assert listed(other) == [other] and listed("--reason", "refused", one) == [one]
    r = p.run("queue", "list", one)
    assert "aa1@x.example" in r.stdout and "MAILER-DAEMON" not in r.stdout and r.returncode == 0
    r = p.run("queue", "list", one, "NOSUCH")
    assert (r.returncode, r.stderr) == (1, "posthouse: NOSUCH: there is no such message\n") and one in r.stdout
    p.run("queue", "hold", "--sender", "aa1", check=True)
    assert listed("hold") == [one]
    r = p.run("queue", "delete", "-", stdin=f"{one}\nNOSUCH\n")
    assert (r.returncode, r.stdout) == (1, "posthouse: Deleted: 1 message\n") and "NOSUCH" in r.stderr
    assert listed() == [other]


def test_an_order_for_an_address_is_for_no_longer_one(dns):
    """An account that is stopped takes no mail of others with it whose addresses end, or begin, as its own."""
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n", dns=dns) as p:
        addresses = ["a@shop.example", "A@Shop.Example", "maria@shop.example", "a@shop.example.org", "a@myshop.example"]
        for address in addresses:
            p.send(sender=address)
            p.send(sender="s@x.example", rcpts=[address])
        p.wait_log("status=deferred", count=len(addresses) * 2)

        def left():
            return [(q["sender"], q["recipients"][0]["address"]) for q in p.queue()]
        both = [pair for a in addresses for pair in ((a, "b@y.example"), ("s@x.example", a))]
        assert "Placed on hold: 2 messages" in p.run("queue", "hold", "--recipient", "a@shop.example", check=True).stdout
        assert "Deleted: 2 messages" in p.run("queue", "delete", "--sender", "a@shop.example", check=True).stdout
        assert sorted(left()) == sorted(pair for pair in both if pair[0].lower() != "a@shop.example")
        assert "Deleted: 1 message\n" in p.run("queue", "delete", "--sender", "@shop.example", check=True).stdout
        assert "Deleted: 2 messages" in p.run("queue", "delete", "hold", "--recipient", "shop.ex", check=True).stdout


def test_show_prints_envelope_header_and_content(dns):
    """Also where lines and pieces of the content's journey do not end together."""
    body = "".join(f"line {i} {'x' * (i % 90)}\r\n" for i in range(9000)) + "no end"
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n", dns=dns) as p:
        p.send(sender="joe@x.example", rcpts=['"a b"@y.example'], params=" ENVID=e1",
               content="Subject: shown\r\n\tfolded\r\n\r\n" + body + "\r\n")
        qid = p.queue()[0]["queue_id"]
        assert p.queue()[0]["recipients"][0]["address"] == '"a b"@y.example'
        text = p.run("queue", "show", qid, check=True).stdout
        for line in ("sender: joe@x.example", "recipient: a b@y.example", "named_attribute: envelope_id=e1", "Subject: shown", "\tfolded"):
            assert line in text.splitlines()
        assert "line 1" not in text
        text = p.run("queue", "show", "--content", qid, check=True).stdout
        assert "\n\n" + body.replace("\r\n", "\n") + "\n*** HEADER EXTRACTED" in text
        assert p.run("-qb", qid, face="postcat", check=True).stdout == "\n" + body.replace("\r\n", "\n") + "\n"


def test_show_says_why_mail_waits_and_what_that_means(dns):
    """The reason of each recipient, and the sentence that the page has; postcat prints Postfix's form and nothing more."""
    replies = {"RCPT": lambda line: "450 4.2.2 mailbox for user is full" if "full" in line else None, "DOT": "451 4.7.1 Greylisted"}
    with FakeRelay(replies=replies) as relay, \
            Posthouse("relayhost = [127.0.0.1]:%d\ntransport_maps = inline:{{ {{ away.example = smtp:[127.0.0.1]:%d }} }}\n"
                      % (relay.port, free_port()), dns=dns) as p:
        p.send(sender="joe@x.example", rcpts=["a@away.example", "full@y.example", "ok@y.example", '"b c"@away.example'])
        wait_for(lambda: all("delay_reason" in r for r in p.queue()[0]["recipients"]))
        qid = p.queue()[0]["queue_id"]
        envelope = p.run("queue", "show", qid, check=True).stdout.split("*** MESSAGE CONTENTS")[0].splitlines()
        said = [line for line in envelope if line.split(":")[0] in ("delay_reason", "advice", "delayed_recipient")]
        for rcpt, reason, advice in (("a@away.example", "Connection refused", "Nothing"), ("full@y.example", "is full", "mailbox is full"),
                                     ("ok@y.example", "Greylisted", "strangers wait"),
                                     ('"b c"@away.example', "Connection refused", "Nothing")):
            at = said.index(f"delayed_recipient: {rcpt}")
            assert reason in [line for line in said[:at] if line.startswith("delay_reason: ")][-1], said
            assert advice.lower() in [line for line in said[:at] if line.startswith("advice: ")][-1].lower(), said
        shown = json.loads(p.run("queue", "show", "--json", qid, check=True).stdout)
        assert f"advice: {shown['advice']}" in said
        assert "advice" not in p.run("-q", qid, face="postcat", check=True).stdout
        r = p.run("queue", "show", "--json", "NOSUCH")
        assert r.returncode == 1 and r.stdout == "" and "there is no such message" in r.stderr


def test_what_a_host_says_moves_no_cursor(dns):
    """In no listing, nor where a message is shown: not the control characters behind ASCII either."""
    said = "450 4.7.1 \x1b]0;mine\x07 gr\u00fcn \u009b2J \u0085 \x01 end"
    with FakeRelay(replies={"MAIL": said}) as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(sender="joe@x.example")
        qid = p.wait_log(r"(\w+): to=.*status=deferred")[0]
        wait_for(lambda: "delay_reason" in p.run("-j", face="postqueue").stdout)
        for face, args in (("mailq", []), ("postqueue", ["-p"]), ("postcat", ["-q", qid]), ("posthouse", ["queue", "list"]),
                           ("posthouse", ["queue", "show", qid]), ("posthouse", ["test", "joe@x.example", "b@y.example"])):
            shown = p.run(*args, face=face).stdout
            assert face == "postcat" or "?]0;mine? gr\u00fcn ??2J ?? ? end" in shown, shown
            assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown) is None, (face, args, shown)


def test_what_a_spool_does_not_say_is_not_found_to_be_nothing(deferred):
    """The routes are the running daemon's to find."""
    p = deferred
    hop = p.queue()[0]["relay"]
    assert "aa1@x.example" in p.run("queue", "list", "--relay", hop).stdout
    p.stop()
    if os.geteuid() == 0:
        assert "aa1@x.example" in p.run("queue", "list").stdout
    r = p.run("queue", "list", "--relay", hop)
    assert r.returncode == 69 and "is posthoused running?" in r.stderr and r.stdout == ""


@pytest.mark.parametrize("wrong", ["queue", "queues", "sender", "recipient", "ids", "id", "relay", "site", "recpient"])
@pytest.mark.parametrize("order", ["queue-delete", "queue-hold", "queue-expire", "queue-find", "queue-requeue", "queue-list"])
def test_an_order_with_a_mistake_is_for_no_mail(deferred, order, wrong):
    """A condition that is not understood is not left out: that would make the order one for more mail."""
    p = deferred
    before = [(q["queue_id"], q["queue_name"]) for q in p.queue()]
    members = {"reason": "", "recipient": "@"} | {wrong: {"queue": "defered", "ids": {"id": "x"}}.get(wrong, 7)}
    answer = p.control(order, **members)
    name = "a member of the request" if wrong == "recpient" else wrong
    assert answer == {"ok": False, "error": f"{name} is not valid"}
    assert [(q["queue_id"], q["queue_name"]) for q in p.queue()] == before and before


def test_a_queue_that_is_not_there(dns, tmp_path):
    """With no daemon and no spool the reason is said, to every user."""
    p = Posthouse(f"queue_directory = {tmp_path}/none\n", dns=dns)
    for face, args in (("mailq", []), ("postqueue", ["-j"]), ("posthouse", ["queue", "list"]), ("qshape", []), ("postcat", ["-q", "X"])):
        r = p.run(*args, face=face)
        assert r.returncode != 0 and f"queue_directory {tmp_path}/none: No such file or directory" in r.stderr, r.stderr


def test_no_daemon(dns):
    p = Posthouse("", dns=dns)
    for face, *args in (["postqueue", "-f"], ["postqueue", "-p"], ["postsuper", "-d", "ALL"]):  # there is no queue either
        r = p.run(*args, face=face)
        assert r.returncode in (1, 69) and "fatal: " in r.stderr
    r = p.run("b@y.example", face="sendmail", stdin="x\n")
    assert r.returncode == 75


def state_of(directory):
    return {str(f): (f.stat().st_mtime_ns, f.stat().st_size) for f in directory.rglob("*")}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_root_sees_the_queue_of_a_daemon_that_is_down(dns, end):
    """As the spool has it, with its reasons, and nothing in it is changed: also after a kill, with a write that was not finished."""
    big = "".join(f"row {i:06} {'y' * 60}\r\n" for i in range(20000))
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n", dns=dns) as p:
        p.send(sender="ann@x.example", rcpts=['"a b"@y.example'], content="Subject: small\r\n\r\nhello\r\n")
        p.send(sender="ben@x.example", content="Subject: large\r\n\r\n" + big)
        p.wait_log("status=deferred", count=2)
        wait_for(lambda: [q["queue_name"] for q in p.queue()] == ["deferred"] * 2)
        qids = [q["queue_id"] for q in p.queue()]
        p.run("queue", "hold", qids[0], check=True)
        listing, shown = p.run(face="mailq").stdout, p.run("-qbh", qids[1], face="postcat").stdout
        assert big.replace("\r\n", "\n") in shown
        getattr(p, end)()
        if end == "kill":  # what a batch left that no client was told of
            segment = max((p.dir / "spool/log").iterdir())
            with open(segment, "r+b") as f:
                f.seek(len(segment.read_bytes().rstrip(b"\0")) // 8 * 8 + 64)
                f.write(b"unfinished")
        before = state_of(p.dir / "spool")
        down = "warning: Mail system is down -- accessing queue directly\n"
        for face, *args in (["mailq"], ["postqueue", "-p"], ["posthouse", "queue", "list"]):
            r = p.run(*args, face=face)
            assert (r.returncode, r.stdout, r.stderr) == (0, listing, f"{face}: {down}")
        assert [q["queue_id"] for q in p.queue()] == qids
        assert [json.loads(l)["queue_id"] for l in p.run("queue", "list", "--json", "hold").stdout.splitlines()] == qids[:1]
        r = p.run("-qbh", qids[1], face="postcat")
        assert (r.returncode, r.stdout, r.stderr) == (0, shown, f"postcat: {down}")
        assert p.run("-q", "NOSUCH", face="postcat").returncode == 1
        for face, *args in (["postsuper", "-d", "ALL"], ["postqueue", "-f"], ["posthouse", "queue", "hold", "ALL"]):
            r = p.run(*args, face=face)
            assert r.returncode != 0 and "is posthoused running?" in r.stderr
        assert state_of(p.dir / "spool") == before
        p.start()
        assert [q["queue_id"] for q in p.queue()] == qids


def test_message_ids_never_repeat(dns):
    """Date and time stand before the queue ID, which comes again after some days, also in reports and in the log."""
    relay = FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no" if "bad@" in l else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(content="Subject: plain\r\n\r\nx\r\n")
        p.send(rcpts=["bad@y.example"], content="Subject: no\r\n\r\nx\r\n")
        for text in (b"Subject: plain", b"Undelivered Mail"):
            message_id = re.search(rb"^Message-Id: (<(\d{14})\.(\w+)@mta\.example>)\r$", relay.wait_mail(text)["content"], re.M)
            when = time.mktime(time.strptime(message_id[2].decode(), "%Y%m%d%H%M%S")) - time.timezone
            assert 0 <= time.time() - when < 3600
            p.wait_log(rf"cleanup\[\d+\]: {message_id[3].decode()}: message-id={re.escape(message_id[1].decode())}$")
    relay.stop()


def test_replies_of_several_lines_keep_their_codes(dns):
    """In log, listing and report, as Postfix writes them."""
    said = {"wait@": "450-4.7.1 rate\r\n450-4.7.1  of you\r\n450 4.7.1 too high", "bad@": "554-5.7.1 first\r\n554-5.7.1\r\n554 5.7.1 third"}
    relay = FakeRelay(replies={"RCPT": lambda l: next((v for k, v in said.items() if k in l), None)})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send(rcpts=["wait@y.example"])
        p.wait_log(r"to=<wait@y\.example>, .*said: 450-4\.7\.1 rate 450-4\.7\.1  of you 450 4\.7\.1 too high \(in reply to RCPT")
        wait_for(lambda: p.queue()[0]["queue_name"] == "deferred")
        assert "450-4.7.1 rate 450-4.7.1  of you 450 4.7.1 too high" in p.run(face="mailq").stdout
        p.send(rcpts=["bad@y.example"])
        p.wait_log(r"to=<bad@y\.example>, .*said: 554-5\.7\.1 first 554-5\.7\.1 554 5\.7\.1 third \(in reply to RCPT")
        report = b" ".join(relay.wait_mail(b"Undelivered Mail")["content"].split())
        assert b"Diagnostic-Code: smtp; 554-5.7.1 first 554-5.7.1 554 5.7.1 third" in report
        assert b"said: 554-5.7.1 first 554-5.7.1 554 5.7.1 third" in report
    relay.stop()


def test_sendmail(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nenable_long_queue_ids = yes\n", dns=dns) as p:
        text = "To: \"Last, First\" <t1@y.example>, t2@y.example (comment)\nCc: group: c1@y.example;\n" \
               "Bcc: hidden@y.example\nSubject: from sendmail\n\nline\n.\nafter the dot\n"
        r = p.run("-t", "-i", "-f", "me@x.example", face="sendmail", stdin=text)
        assert (r.returncode, r.stderr) == (0, "")
        m = relay.wait_mail(b"Subject: from sendmail")
        assert m["from"].startswith("MAIL FROM:<me@x.example>")
        assert [x.split("<")[1][:-1] for x in m["rcpts"]] == \
            ["t1@y.example", "t2@y.example", "c1@y.example", "hidden@y.example"]
        assert b"hidden" not in m["content"] and m["content"].endswith(b"line\r\n.\r\nafter the dot\r\n")
        assert b"from userid" in m["content"] and re.search(rb"\r\nFrom: (.+ )?<me@x.example>\r\n", m["content"])
        p.wait_log(r"pickup\[\d+\]: [0-9B-Zb-z]{10,}z\w+: uid=\d+ from=<me@x\.example>")
        p.run("-f", "me@x.example", "-F", "Me Myself", "r@y.example", face="sendmail",
              stdin="Subject: dot ends\n\none\n.\ntwo\n")
        m = relay.wait_mail(b"Subject: dot ends")
        assert b"two" not in m["content"] and b"From: Me Myself <me@x.example>" in m["content"]
        r = p.run("-t", face="sendmail", stdin="Subject: nobody\n\nx\n")
        assert r.returncode != 0 and "No recipient addresses found in message header" in r.stderr
    relay.stop()


def test_pflogsumm_counts(dns):
    relay = FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no" if "bad" in l else
                               "450 4.2.0 later" if "later" in l else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmynetworks_style = host\n", dns=dns) as p:
        for i in range(5):
            p.send(rcpts=[f"good{i}@y.example"])
        p.send(sender="", rcpts=["bad@y.example"])
        p.send(rcpts=["later@y.example"])
        with p.client() as c:
            c.cmd("MAIL FROM:<a@x.example> SIZE=99999999")
        p.wait_log("status=sent", count=5)
        p.wait_log("status=deferred")
        p.wait_log("status=bounced")
        p.wait_log("disconnect", count=9)
        out = subprocess.run(["/usr/sbin/pflogsumm", str(p.dir / "maillog")], capture_output=True, text=True).stdout
        grand = {k: int(v) for v, k in re.findall(r"^ +(\d+)k? +(received|delivered|deferred|bounced|rejected)\b", out, re.M)}
        assert grand == {"received": 7, "delivered": 5, "deferred": 1, "bounced": 1, "rejected": 1}, out
    relay.stop()


def test_reload_changes_route_of_queued_mail(dns):
    """Routes are decided at every attempt, never stored."""
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n", dns=dns) as p:
        p.send()
        p.wait_log("status=deferred")
        p.write_main(f"relayhost = [127.0.0.1]:{relay.port}\n")
        p.reload()
        p.run("-f", face="postqueue")
        relay.wait_mails(1)
        p.write_main("relayhost = [broken\n")
        p.proc.send_signal(1)
        p.wait_log("reload refused")
        p.send()
        relay.wait_mails(2)
    relay.stop()


def test_json_log(dns):
    with Posthouse("log_format = json\nrelayhost = [127.0.0.1]:9\n", dns=dns) as p:
        p.send()
        p.wait_log("queue active")
        rows = [json.loads(line) for line in p.log().splitlines()]
        assert {"time", "host", "program", "pid", "message"} <= set(rows[0])


USERS = {"daemon": 1, "bin": 2, "sys": 3}


def as_user(p, uid, face, *args, stdin=None):
    p.run(face=face)  # makes the command's folder
    return subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", str(p.dir / f"cmd-{face}" / face), *args],
                          capture_output=True, text=True, env=dict(p.env(), MAIL_CONFIG=str(p.dir)), input=stdin)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users' programs are run")


def test_the_queue_of_another_configuration(dns):
    """mailq -C DIRECTORY, as sendmail has it."""
    main = f"relayhost = [127.0.0.1]:{free_port()}\n"
    with Posthouse(main, dns=dns) as p, Posthouse(main, dns=dns) as other:
        assert other.send(sender="there@x.example").startswith("250")
        for face in ("mailq", "sendmail", "postqueue"):
            more = {"mailq": [], "sendmail": ["-bp"], "postqueue": ["-p"]}[face]
            option = "-c" if face == "postqueue" else "-C"
            assert "there@x.example" in p.run(option, other.dir, *more, face=face, check=True).stdout, face
            assert "there@x.example" not in p.run(*more, face=face, check=True).stdout, face


@needs_root
def test_a_users_listings_hold_up_no_mail(dns):
    """Thousands that were sent at once are answered in turns: mail is delivered before the last answer."""
    with FakeRelay() as relay:
        main = f"relayhost = [127.0.0.1]:{relay.port}\ndefer_transports = hold\ntransport_maps = inline:{{{{y.example=hold:}}}}\n"
        with Posthouse(main, dns=dns, master="hold unix - - n - - smtp\n") as p, socket.socket(socket.AF_UNIX) as s:
            with p.client() as c:
                for i in range(600):
                    assert c.mail(rcpts=[f"b{i}@y.example"]).startswith("250")
            s.connect(str(p.dir / "spool/public/queue.sock"))
            n, answers = 12000, []
            t = threading.Thread(target=lambda: answers.extend(itertools.islice(s.makefile("rb"), n)))
            t.start()
            s.sendall(b'{"cmd": "queue-list", "sender": "nobody"}\n' * n)
            assert p.send(rcpts=["b@fast.example"], content="Subject: meanwhile\r\n\r\n").startswith("250")
            relay.wait_mail(b"meanwhile")
            early = len(answers)
            wait_ended(t)
            assert len(answers) == n and all(b'"ok": true' in a for a in answers) and early < n


def test_every_user_lists_and_flushes(dns):
    """Whatever umask the queue's folder was made with."""
    p = Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n", dns=dns)
    p.preexec = lambda: os.umask(0o077)
    (p.dir / "spool").mkdir(0o700)
    p.dir.chmod(0o755)
    for f in p.dir.glob("*.cf"):
        f.chmod(0o644)
    with p:
        assert as_user(p, 4242, "sendmail", "b@y.example", stdin="Subject: x\n\nx\n").returncode == 0
        p.wait_log("status=deferred")
        for face, *args in (["mailq"], ["postqueue", "-p"], ["sendmail", "-bp"], ["posthouse", "queue", "list"]):
            r = as_user(p, 1, face, *args)
            assert r.returncode == 0 and "b@y.example" in r.stdout, r.stderr
        assert json.loads(as_user(p, 1, "postqueue", "-j").stdout)["recipients"][0]["address"] == "b@y.example"
        qid = p.queue()[0]["queue_id"]
        for n, args in enumerate((["-f"], ["-i", qid], ["-s", "y.example"])):
            wait_for(lambda: p.queue()[0]["queue_name"] == "deferred")
            assert as_user(p, 1, "postqueue", *args).returncode == 0
            p.wait_log("status=deferred", count=n + 2)
        for face, *args in (["postsuper", "-d", "ALL"], ["postcat", "-q", qid], ["posthouse", "queue", "delete", qid],
                            ["posthouse", "queue", "hold", "ALL"], ["posthouse", "queue", "show", qid]):
            r = as_user(p, 1, face, *args)
            assert r.returncode != 0 and "Subject" not in r.stdout, args
        assert [q["queue_id"] for q in p.queue()] == [qid]


def asks(p, uid, request):
    code = (f"import os, socket, sys; os.setgid({uid}); os.setuid({uid}); s = socket.socket(socket.AF_UNIX); "
            f"s.connect('{p.dir}/spool/public/queue.sock'); s.sendall({json.dumps(request)!r}.encode() + b'\\n'); "
            "f = s.makefile('rb'); print(next(l for l in iter(f.readline, b'') if b'ok' in l).decode())")
    return json.loads(subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, check=True).stdout)


@needs_root
def test_users_may_do_nothing_more(deferred):
    """What the socket for all users takes is a list of its own: nothing that shows content or changes a message."""
    p = deferred
    qid = p.queue()[0]["queue_id"]
    before = [(q["queue_id"], q["queue_name"]) for q in p.queue()]
    for cmd in ("queue-delete", "queue-hold", "queue-release", "queue-expire", "queue-requeue", "queue-read", "queue-show", "queue-find",
                "stats", "relays", "senders", "counts", "forget", "explain", "test"):
        answer = asks(p, 4242, {"cmd": cmd, "id": qid, "sender": "x@y.example", "recipient": ""})
        assert answer["ok"] is False, cmd
    for more in ({"sender": "a"}, {"ids": [qid]}, {"id": qid, "queue": "hold"}, {}, {"recipient": "@"}):
        assert asks(p, 4242, {"cmd": "queue-retry", **more})["ok"] is False
    assert [(q["queue_id"], q["queue_name"]) for q in p.queue()] == before


# Opens argv[2] connections as user argv[1], says how they are greeted, and waits.
CROWD = """import os, socket, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
crowd = []
for i in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[3])
    crowd.append(s)
    print(s.recv(200).decode()[:3], flush=True)
sys.stdin.read()
"""


@needs_root
def test_no_user_takes_all_places_of_sendmail(deferred):
    p = deferred
    crowd = subprocess.Popen(["/usr/bin/python3", "-c", CROWD, "4242", "510", f"{p.dir}/spool/public/submit.sock"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    greeted = [crowd.stdout.readline().strip() for _ in range(510)]
    assert greeted == ["220"] * 500 + ["421"] * 10
    assert as_user(p, 1, "sendmail", "b@y.example", stdin="Subject: other\n\nx\n").returncode == 0
    crowd.communicate("")
    wait_for(lambda: as_user(p, 4242, "sendmail", "b@y.example", stdin="Subject: again\n\nx\n").returncode == 0)


@needs_root
@pytest.mark.parametrize("form", ["names", "file", "table"])
def test_authorized_users(dns, form):
    """authorized_*_users: names, !names, files of names, tables; as the kernel says who asks."""
    values = {"names": "!sys, daemon", "file": "!sys, {dir}/names", "table": "!sys, texthash:{dir}/table"}
    main = f"relayhost = [127.0.0.1]:{free_port()}\n"
    main += "".join(f"authorized_{what}_users = {values[form]}\n" for what in ("mailq", "flush", "submit"))
    p = Posthouse(main, dns=dns, files={"names": "# who may\ndaemon\n", "table": "daemon yes\nsys yes\n"})
    p.dir.chmod(0o755)
    with p:
        for name, uid in USERS.items():
            def refused(status, tool, what):
                return (0, "") if name == "daemon" else (status, f"{tool}: fatal: User {name}({uid}) is not allowed to {what}\n")
            r = as_user(p, uid, "sendmail", "b@y.example", stdin="Subject: x\n\nx\n")
            assert (r.returncode, r.stderr) == refused(75, "sendmail", "submit mail")
            wait_for(lambda: len(p.queue()) == 1)
            r = as_user(p, uid, "mailq")
            assert (r.returncode, r.stderr) == refused(69, "mailq", "view the mail queue")
            assert ("b@y.example" in r.stdout) == (name == "daemon")
            for args in (["-f"], ["-i", "AB1"], ["-s", "y.example"]):
                r = as_user(p, uid, "postqueue", *args)
                assert (r.returncode, r.stderr) == refused(69, "postqueue", "flush the mail queue")
        assert as_user(p, 4242, "mailq").stderr == "mailq: fatal: User unknown(4242) is not allowed to view the mail queue\n"
        assert p.run(face="mailq").returncode == p.run("-f", face="postqueue").returncode == 0
        assert p.run("b@y.example", face="sendmail", stdin="x\n").returncode == 75  # root, as with Postfix


def test_requeued_mail_is_tried_at_once(dns):
    """postsuper -r: also what is on hold, or expired while it was."""
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\n"
    with Posthouse(main + "defer_transports = smtp\n", dns=dns) as p:
        for _ in range(2):
            p.send()
        wait_for(lambda: [q["queue_name"] for q in p.queue()] == ["deferred"] * 2)
        held = p.queue()[0]["queue_id"]
        p.run("-h", held, "-e", held, face="postsuper", check=True)
        p.write_main(main)
        p.reload()
        assert p.run("-r", "ALL", face="postsuper").stderr == "postsuper: Requeued: 2 messages\n"
        relay.wait_mails(2)
        p.wait_log(rf"postsuper\[\d+\]: {held}: expired")
        p.wait_log(r"postsuper\[\d+\]: Requeued: 2 messages")
    relay.stop()


def test_flush_of_a_site(dns):
    """postqueue -s: what waits for that domain, and nothing else."""
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\n"
    with Posthouse(main + "defer_transports = smtp\n", dns=dns) as p:
        for rcpt in ("a@near.example", "a@far.example", "a@sub.near.example"):
            p.send(rcpts=[rcpt])
        wait_for(lambda: [q["queue_name"] for q in p.queue()] == ["deferred"] * 3)
        p.write_main(main)
        p.reload()
        p.run("-s", "Near.example", face="postqueue", check=True)
        assert "a@near.example" in relay.wait_mails(1)[0]["rcpts"][0]
        wait_for(lambda: len(p.queue()) == 2)
        assert [q["queue_name"] for q in p.queue()] == ["deferred"] * 2 and len(relay.mails) == 1
    relay.stop()


def test_retry_keeps_the_order_of_arrival(dns):
    """After `queue retry ALL`, `release ALL` or a flush the oldest mail goes first."""
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 1\n"
    with Posthouse(main + "defer_transports = smtp\n", dns=dns) as p:
        for order in (["retry", "ALL"], ["release", "ALL"], ["flush"]):
            sent = [f"{order[0]}{i}" for i in range(40)]
            with p.client() as c:
                for one in sent:
                    assert c.mail(content=f"Subject: {one}.\r\n\r\nx\r\n").startswith("250")
            wait_for(lambda: [q["queue_name"] for q in p.queue()] == ["deferred"] * 40)
            if order[0] == "release":
                p.run("queue", "hold", "ALL", check=True)
            p.write_main(main)
            p.reload()
            p.run("queue", *order, check=True)
            wait_for(lambda: p.queue() == [])
            came = [re.search(rb"Subject: (\w+)\.", m["content"])[1].decode() for m in relay.mails]
            assert came[-40:] == sent
            p.write_main(main + "defer_transports = smtp\n")
            p.reload()
    relay.stop()
