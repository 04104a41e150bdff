"""The scheduler's promises: what a destination is, orders of the administrator, reports that redeliver nothing."""
import pytest
from kit import FakeRelay, Posthouse, wait_for


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
