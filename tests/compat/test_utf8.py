"""Addresses that are not ASCII, declared or not: Debian's Postfix and Posthouse take them and hand them on alike."""
import re

import pair
from kit import Client, FakeRelay, free_ports, wait_for

# (strict_smtputf8, the relay host has SMTPUTF8, declared, sender, recipient)
CASES = [(strict, able, declared, sender, rcpt) for strict in ("no", "yes") for able in (True, False) for declared in (False, True)
         for sender, rcpt in (("jürg@x.example", "b@y.example"), ("a@x.example", "jörg@y.example"), ("a@x.example", "b@y.example"))]


def said_of(mta, port, case, relays):
    """The reply, and what the relay host was told or what the log says of the recipient, which no other case has."""
    _, able, declared, sender, rcpt = case
    rcpt = f"{CASES.index(case)}{rcpt}"
    with Client(port) as c:
        reply = c.mail(sender, [rcpt], params=" SMTPUTF8" if declared else "")
    if not reply.startswith("250"):
        return reply
    outcome = wait_for(lambda: next((o for o in pair.outcomes(mta.new_log()) if o[0] == rcpt), None))
    told = [re.sub(" (SIZE=\\d+|BODY=8BITMIME|ORCPT=\\S+)", "", line) for s in relays[able].sessions for line in s.commands
            if line.startswith(("MAIL", "RCPT"))]
    at = next((i for i, line in enumerate(told) if f"<{rcpt}>" in line), 0)
    return outcome[2:4], told[at - 1:at + 1] if at > 0 else []


def test_undeclared_addresses_like_postfix(name_server):
    said = []
    relays = {able: FakeRelay(utf8=able) for able in (True, False)}
    postfix = pair.Postfix(name_server)
    for mta in (postfix, pair.Ours(name_server)):
        ports = free_ports(2)
        master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o strict_smtputf8={strict}\n"
                         for port, strict in zip(ports, ("no", "yes")))
        said.append({})
        for able in (True, False):
            mta.case(f"relayhost = [127.0.0.1]:{relays[able].port}\nsmtp_connection_cache_on_demand = no\n", {}, master)
            try:
                wait_for(lambda: pair.listens(ports[-1]))
                relays[able].sessions.clear()
                for case in CASES:
                    if case[1] == able:
                        said[-1][case] = said_of(mta, ports[case[0] == "yes"], case, relays)
            finally:
                mta.over()
    postfix.stop()
    for relay in relays.values():
        relay.stop()
    different = [(case, got, said[1][case]) for case, got in said[0].items() if said[1][case] != got]
    assert different == [], "\n".join(map(str, different))
