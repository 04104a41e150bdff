"""Delivery by LMTP (RFC 2033): a reply for each recipient, sockets of both kinds, what becomes of those that are not answered."""
import re
import threading

import pytest
from kit import FakeRelay, Listener, Posthouse, wait_for

MAIN = """mydestination =
virtual_mailbox_domains = box.example
virtual_transport = lmtp:{hop}
relayhost = [127.0.0.1]:9
maximal_queue_lifetime = 1h
"""


LMTP = "lmtp unix - - n - - lmtp\n"


def send(ph, *rcpts, body="hello"):
    ph.send("a@far.example", rcpts, f"Subject: x\r\n\r\n{body}\r\n")


def results(ph, n):
    """(recipient, relay, dsn, status) of n results, as the log has them."""
    found = lambda: re.findall(r"lmtp\[\d+\]: \S+: to=<([^>]+)>, relay=(\S+), .* dsn=(\S+), status=(\w+)", ph.log())
    wait_for(lambda: len(found()) >= n)
    return found()


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_each_recipient_has_a_reply_of_its_own(kind):
    said = {"full": "552 5.2.2 over quota", "busy": "451 4.2.0 later"}
    ph = Posthouse("", LMTP)
    path = ph.dir / "lmtp" if kind == "unix" else None
    with FakeRelay(lmtp=True, path=path, replies={"DOT": lambda rcpt: next((s for w, s in said.items() if w in rcpt), None)}) as server:
        ph.write_main(MAIN.format(hop=f"unix:{path}" if path else f"inet:[127.0.0.1]:{server.port}"))
        with ph:
            send(ph, "one@box.example", "full@box.example", "busy@box.example", "two@box.example")
            got = {r[0]: r[1:] for r in results(ph, 4)}
    where = f"mta.example[{path}]" if path else f"127.0.0.1[127.0.0.1]:{server.port}"
    assert {m["rcpts"][0][9:12] for m in server.mails} == {"one", "two"}
    assert got["one@box.example"] == got["two@box.example"] == (where, "2.0.0", "sent")
    assert got["full@box.example"][1:] == ("5.2.2", "bounced") and got["busy@box.example"][1:] == ("4.2.0", "deferred")
    assert [c.split()[0] for c in server.sessions[0].commands[:3]] == ["LHLO", "MAIL", "RCPT"]


def test_who_was_answered_for_gets_no_second_copy():
    """The server goes away in the middle of its replies: the first recipient has the mail, the others are tried again."""
    calls = []
    def dot(rcpt):
        calls.append(rcpt)
        return None if len(calls) != 2 else ""
    with FakeRelay(lmtp=True, replies={"DOT": dot}) as server:
        main = MAIN.format(hop=f"inet:[127.0.0.1]:{server.port}") + "minimal_backoff_time = 1s\nqueue_run_delay = 1s\n"
        with Posthouse(main, LMTP) as ph:
            send(ph, "one@box.example", "two@box.example", "three@box.example")
            server.wait_mails(3)
            wait_for(lambda: len([r for r in results(ph, 3) if r[3] == "sent"]) == 3)
            got = results(ph, 5)
    assert sorted(m["rcpts"][0] for m in server.mails) == [f"RCPT TO:<{n}@box.example>" for n in ("one", "three", "two")]
    assert [r[3] for r in got if r[0] == "one@box.example"] == ["sent"]
    assert [r[2:] for r in got if r[0] == "two@box.example"] == [("4.4.2", "deferred"), ("2.0.0", "sent")]


@pytest.mark.parametrize("set_by", ["main.cf", "master.cf"])
def test_each_transport_has_its_own_way_to_look_names_up(set_by, dns):
    """lmtp_host_lookup was read, shown, and passed over: names of /etc/hosts were asked for in the DNS, as smtp_host_lookup says."""
    own = "lmtp_host_lookup = native\n" if set_by == "main.cf" else ""
    lines = "lmtp unix - - n - - lmtp\nnear unix - - n - - smtp\n"
    if set_by == "master.cf":
        lines = "lmtp unix - - n - - lmtp\n -o lmtp_host_lookup=native\nnear unix - - n - - smtp\n -o smtp_host_lookup=native\n"
    with FakeRelay(lmtp=True) as server, FakeRelay() as relay:
        main = MAIN.format(hop=f"inet:[store.internal]:{server.port}") + own
        main += f"transport_maps = inline:{{{{ near.example=near:[store.internal]:{relay.port} }}}}\n"
        main += "resolver_hosts_file = {dir}/hosts\n"
        with Posthouse(main, lines, files={"hosts": "127.0.0.1 store.internal\n"}, dns=dns) as ph:
            send(ph, "one@box.example")
            server.wait_mails(1)
            ph.send("a@far.example", ["two@near.example"])
            if set_by == "master.cf":
                relay.wait_mails(1)
            else:  # the other transport goes by smtp_host_lookup, which says dns
                ph.wait_log("to=<two@near.example>, .*status=deferred .*store.internal")


def forgetful(saved, may_go_on):
    """A mailbox server that has each mail for its first recipient, answers for that one, and forgets the others."""
    def serve(conn):
        f, rcpts = conn.makefile("rwb"), []
        def say(text):
            f.write(text + b"\r\n")
            f.flush()
        may_go_on()
        say(b"220 box")
        for line in f:
            verb = line[:4].upper()
            if verb == b"MAIL":
                rcpts = []
            elif verb == b"RCPT":
                rcpts.append(line[9:].split(b">")[0].decode())
            elif verb == b"DATA":
                say(b"354 go on")
                while f.readline() not in (b".\r\n", b""):
                    pass
                saved.append(rcpts[0])
            say(b"250-box\r\n250 PIPELINING" if verb == b"LHLO" else b"250 2.1.0 Ok")
    return serve


def test_nobody_has_the_reply_of_the_next_mail():
    """A server that owes a reply does not pay it with what it says of the mail that follows."""
    saved, queued = [], threading.Event()
    with Listener(forgetful(saved, queued.wait)) as server:
        main = MAIN.format(hop=f"inet:[127.0.0.1]:{server.port}") + "lmtp_destination_concurrency_limit = 1\nlmtp_data_done_timeout = 1s\n"
        with Posthouse(main, LMTP) as ph:
            for i in range(4):
                send(ph, f"first{i}@box.example", f"second{i}@box.example")
            queued.set()
            got = results(ph, 8)
    assert {r[0] for r in got if r[3] == "sent"} <= set(saved) == {f"first{i}@box.example" for i in range(4)}
    assert {r[0]: r[3] for r in got if r[0].startswith("second")} == {f"second{i}@box.example": "deferred" for i in range(4)}
