"""The scheduler's promises: what a destination is, orders of the administrator, reports that redeliver nothing."""
import threading

import pytest
from kit import FakeRelay, Posthouse, wait_for

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
