"""kill -9 of everything at random under load: nothing that was acknowledged is lost.

The sender keeps a ledger of what got 250; the sink keeps what it took.  Each round starts the daemon
on the spool that the last one left behind.
"""
import contextlib
import os
import random
import re
import signal
import socket
import sqlite3
import threading
import time

import pytest
import shim
from kit import Client, FakeRelay, Posthouse, wait_for

ROUNDS = 50


class Sender(threading.Thread):
    """Sends numbered messages until told to stop; notes which got 250."""

    def __init__(self, port, name, ledger):
        super().__init__(daemon=True)
        self.port, self.name, self.ledger, self.over = port, name, ledger, False

    def run(self):
        n = 0
        while not self.over:
            try:
                with Client(self.port) as c:
                    for _ in range(20):
                        n += 1
                        key = f"{self.name}-{n}@x.example"
                        size = random.choice([100, 4000, 60000, 400000 if n % 50 == 0 else 4000])
                        body = f"Subject: {key}\r\n\r\n" + "x" * 70 + "\r\n" * 1 + ("y" * 70 + "\r\n") * (size // 72)
                        if c.mail(sender=key, content=body).startswith("250"):
                            self.ledger.add(key)
                        if self.over:
                            return
            except (OSError, AttributeError, TypeError):
                time.sleep(0.02)


def delivered(relay):
    keys = {}
    for m in relay.mails:
        key = m["from"].split("<")[1].split(">")[0]
        keys[key] = keys.get(key, 0) + 1
    return keys


def test_kill_everything(dns):
    seed = int(os.environ.get("SEED", time.time()))
    print("seed", seed)
    rnd = random.Random(seed)
    relay = FakeRelay(keep=False)
    ledger = set()
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"
                  "spool_segment_size = 4194304\n", dns=dns)
    for r in range(ROUNDS):
        p.start()
        senders = [Sender(p.port, f"r{r}s{i}", ledger) for i in range(4)]
        for s in senders:
            s.start()
        time.sleep(rnd.uniform(0.1, 0.8))
        how = rnd.choice(["all", "all", "relay", "lookup", "supervisor", "children"])
        pids = p.children()
        if how in ("relay", "lookup"):
            os.kill(p.child(how), signal.SIGKILL)
            time.sleep(0.3)
        elif how == "supervisor":
            os.kill(p.proc.pid, signal.SIGKILL)
        elif how == "children":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.7)
        p.kill()
        for s in senders:
            s.over = True
        for s in senders:
            s.join(20)
        wait_for(lambda: not p.children_of(pids))
    p.start()
    missing = lambda: ledger - set(delivered(relay))

    def all_there():
        "everything that was acknowledged at the relay"
        return not missing()
    wait_for(all_there, 60, 0.5)
    wait_for(lambda: p.queue() == [], 60, 0.5)
    got = delivered(relay)
    twice = sum(1 for k in ledger if got[k] > 1)
    print(f"{ROUNDS} rounds, {len(ledger)} acknowledged, 0 lost, {twice} sent twice")
    assert len(ledger) > ROUNDS * 10
    # In flight at a kill: at most what the sessions had on the wire, not the backlog.
    assert twice < ROUNDS * 80
    p.stop()
    relay.stop()


def test_orderly_stop_loses_nothing_and_repeats_nothing(dns):
    relay = FakeRelay(keep=False)
    ledger = set()
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns)
    for r in range(3):
        p.start()
        s = Sender(p.port, f"o{r}", ledger)
        s.start()
        time.sleep(0.4)
        p.stop()
        s.over = True
        s.join(20)
    p.start()
    wait_for(lambda: not (ledger - set(delivered(relay))), 30, 0.5)
    p.stop()
    relay.stop()


def test_lookup_process_killed_or_replaced_is_not_noticed(dns):
    """Questions that it takes to the grave are asked again: no client sees a 451, no mail waits."""
    relay = FakeRelay(auth=["LOGIN"], keep=False)
    main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = inline:{{[127.0.0.1]:%d=u:p}}\n" \
           "sender_dependent_relayhost_maps = inline:{{nobody@x.example=[127.0.0.1]:1}}\n" \
           "smtpd_sender_restrictions = check_sender_access inline:{{bad@x.example=REJECT}}\n" % relay.port
    with Posthouse(main, dns=dns) as p:
        ledger = set()
        senders = [Sender(p.port, f"q{i}", ledger) for i in range(3)]
        for s in senders:
            s.start()
        for i in range(8):
            n = len(ledger)
            if i % 2 == 0:
                os.kill(p.child("lookup"), signal.SIGKILL)
            else:
                p.reload()
            wait_for(lambda: len(ledger) > n + 20)
        for s in senders:
            s.over = True
        for s in senders:
            s.join(20)
        wait_for(lambda: p.queue() == [])
        assert ledger <= set(delivered(relay))
        assert not re.findall(r".*(?:status=deferred|reject: |lookup error).*", p.log())
    relay.stop()


@pytest.mark.skipif(not shim.available, reason="a sanitizer build: its wrappers and the shim's exclude each other")
def test_no_room_for_a_process(dns, tmp_path):
    """A process that cannot be made now is made later: what runs goes on, and nothing is started anew for it."""
    relay = FakeRelay()
    s = shim.Shim(tmp_path)
    p = Posthouse("transport_maps = lmdb:{dir}/transports\n", dns=dns, files={"transports": f"* smtp:[127.0.0.1]:{relay.port}\n"})
    p.postmap("lmdb:" + str(p.dir / "transports"))
    p.extra_env = s.env
    with p:
        mail_process, asked = p.child("relay"), p.child("lookup")
        s.set(no_fork=1)
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("reload refused: no process can be started: Resource temporarily unavailable")
        assert p.send()[:3] == "250"
        relay.wait_mails(1)
        assert p.child("lookup") == asked
        os.kill(asked, signal.SIGKILL)
        p.wait_log("cannot start the lookup process: Resource temporarily unavailable", count=2)
        s.set(no_fork=0)
        p.child("lookup")
        p.send(sender="back@client.example")
        relay.wait_mails(2)
        assert p.child("relay") == mail_process
        s.set(no_fork=1)
        os.kill(mail_process, signal.SIGKILL)
        p.wait_log("cannot start the relay process", count=2)
        s.set(no_fork=0)
        wait_for(p._greets)
        p.send(sender="later@client.example")
        relay.wait_mails(3)
    relay.stop()


@pytest.mark.skipif(not shim.available, reason="a sanitizer build: its wrappers and the shim's exclude each other")
@pytest.mark.parametrize("process, number, room", [("relay", 1, n) for n in range(1, 6)] + [("lookup", 2, 1)])
def test_no_room_for_a_thread(dns, tmp_path, process, number, room):
    """A relay process that cannot have all of its threads lets no client in, and is started again until it can; a lookup process
    needs one that looks up."""
    relay = FakeRelay()
    s = shim.Shim(tmp_path)
    p = Posthouse("transport_maps = lmdb:{dir}/transports\n", dns=dns, files={"transports": f"* smtp:[127.0.0.1]:{relay.port}\n"})
    p.postmap("lmdb:" + str(p.dir / "transports"))
    p.extra_env = s.env
    with p:
        s.set(threads=room, threads_of=number)
        os.kill(p.child(process), signal.SIGKILL)
        p.wait_log("cannot start its threads")
        s.set(threads=0)
        wait_for(p._greets)
        assert all(p.send(sender=f"{i}@client.example").startswith("250") for i in range(4))
        assert len(relay.wait_mails(4)) == 4
    relay.stop()


@pytest.mark.skipif(not shim.available, reason="a sanitizer build: its wrappers and the shim's exclude each other")
@pytest.mark.parametrize("process, number, room, auth, main", [
    ("relay", 1, 5, (), "relayhost = [relay.server]:{port}"),
    ("relay", 1, 5, ("SCRAM-SHA-256",), "relayhost = [127.0.0.1]:{port}\nsmtp_sasl_auth_enable = yes\n"
     "smtp_sasl_password_maps = inline:{{{{[127.0.0.1]:{port}=u:p}}}}\nsmtp_sasl_security_options = noanonymous"),
    ("lookup", 2, 9, (), "transport_maps = sqlite:{{dir}}/roads.cf")], ids=["dns", "login", "database"])
def test_no_room_for_a_librarys_thread(dns, tmp_path, process, number, room, auth, main):
    """Threads that are started when they are first needed: without them mail waits, no process ends, and mail goes when there
    is room."""
    relay, s = FakeRelay(auth=auth, users={"u": "p"}), shim.Shim(tmp_path)
    files = {"roads.cf": f"dbpath = {tmp_path}/roads\nquery = SELECT 'smtp:[127.0.0.1]:{relay.port}' WHERE '%s' = '*'\n"}
    sqlite3.connect(tmp_path / "roads").close()
    p = Posthouse(main.format(port=relay.port) + "\nrelay_threads = 1\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n",
                  dns=dns, files=files)
    p.extra_env = s.env
    with p:
        old = p.child(process)
        s.set(threads=room, threads_of=number)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: len(p.children()) == 2 and old not in p.children())
        wait_for(p._greets)
        now = p.children()
        assert p.send(sender="1@client.example").startswith("250")
        if process == "relay":
            p.wait_log("status=deferred")
            assert not relay.mails
        else:
            relay.wait_mails(1)  # it is asked by those who ask files
        assert p.children() == now
        s.set(threads=0)
        assert p.send(sender="2@client.example").startswith("250")
        relay.wait_mails(2)
        assert p.children() == now
    relay.stop()


def test_a_child_that_hangs_holds_up_no_stop(dns):
    """What does not stop is killed after a stated time, and nothing that was accepted is lost."""
    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p:
        assert p.send().startswith("250")
        old = p.child("lookup")
        os.kill(old, signal.SIGSTOP)
        p.reload()
        wait_for(lambda: len(p.children()) == 3)
        hangs = p.children()
        for pid in hangs:
            os.kill(pid, signal.SIGSTOP)
        p.proc.terminate()
        assert p.proc.wait(120) == 0
        assert not p.children_of(hangs)
        for name, seconds in (("relay", 15), ("lookup", 5)):
            p.wait_log(rf"warning: process {name} pid \d+ has not stopped in {seconds} s: it is killed")
        p.out.close()
        p.start()
        assert len(p.queue()) == 1


def channel_holds():
    """How many small messages with a descriptor a channel takes that is not read from."""
    a, b = socket.socketpair(socket.AF_UNIX)
    n = 0
    with a, b, contextlib.suppress(BlockingIOError):
        a.setblocking(False)
        while True:
            socket.send_fds(a, [b"x" * 12], [b.fileno()])
            n += 1
    return n


def test_children_that_cannot_be_told_hold_up_no_stop(dns):
    """Their channels are full when they are to be told to stop: that too takes no more than half a minute together."""
    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p:
        for name in ("relay", "lookup"):
            os.kill(p.child(name), signal.SIGSTOP)
        for _ in range(channel_holds()):
            (p.dir / "maillog").unlink()
            p.proc.send_signal(signal.SIGUSR1)
            wait_for((p.dir / "maillog").exists)
        began = time.monotonic()
        p.proc.terminate()
        assert p.proc.wait(120) == 0
        assert time.monotonic() - began < 30 + 5  # as promised; a few seconds for a machine that has more to do
        for name in ("relay", "lookup"):
            p.wait_log(f"warning: cannot reach the {name} process: Connection timed out; it is killed")


def test_an_old_lookup_process_that_hangs_goes(dns):
    with Posthouse(dns=dns) as p:
        old = p.child("lookup")
        os.kill(old, signal.SIGSTOP)
        p.reload()
        wait_for(lambda: old not in p.children(), 120)
        p.wait_log(rf"warning: process lookup pid {old} has not gone in 15 s: it is killed")
        assert p.send().startswith("250")


def test_children_come_back(dns):
    """Either process killed is back, and mail flows again without a restart of the daemon."""
    relay = FakeRelay(auth=["LOGIN"])
    main = f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = inline:{{relay.server=u:p}}\n"
    with Posthouse(main, dns=dns) as p:
        for n in (1, 2):
            for name in ("lookup", "relay"):
                pid = p.child(name)
                killed = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: pid not in p.children() and len(p.children()) == 2)
                wait_for(p._greets)
                print(f"{name}: back after {time.monotonic() - killed:.2f} s")
                p.send()
            mails = relay.wait_mails(2 * n)
            assert all(m["auth"] == ("LOGIN", "u", "p") for m in mails)
    relay.stop()
