"""The scheduler's promises: what a destination is, orders of the administrator, reports that redeliver nothing."""
from kit import FakeRelay, Posthouse, wait_for


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
