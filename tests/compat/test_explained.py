"""posthouse explain and what then really happens, over every case of test_compat.py: they cannot differ."""
import json

import pytest
from kit import wait_for

import pair
from test_compat import CASES, RECORDS, relays  # noqa: F401 (the name server's, and a fixture)


def explain(p, sender, rcpt):
    r = p.run("explain", sender or "<>", rcpt, "--json")
    assert r.returncode in (0, 1), r
    return [json.loads(line) for line in r.stdout.splitlines()]


def roads(steps):
    """[(host, account or None)] in the order in which they would be tried."""
    found = []
    for s in steps:
        if s["step"] == "dns" and s["pass"] and "[" in s["result"] and "exchanger" not in s["result"]:
            found.append([s["result"].split(" (")[0], None])
        elif s["step"] == "credentials" and s["pass"]:
            found[-1][1] = s.get("user")
        elif s["step"] == "credentials":
            found[-1][1] = "error"
    return [tuple(f) for f in found]


def deliver(mta, relays, sender, rcpt):
    p, seen = mta.p, len(pair.outcomes(mta.p.log()))
    reply = pair.send(mta, sender, rcpt)
    if not reply.startswith("250"):
        return reply, None, None
    wait_for(lambda: len(pair.outcomes(p.log())) > seen)
    outcome = pair.outcomes(p.log())[seen]
    users = {n: [s.auth and s.auth[1] for s in r.sessions for m in s.commands if m.startswith(f"MAIL FROM:<{sender}>")] for n, r in relays.items()}
    return reply, outcome, users


def agree(steps, reply, outcome, users, relays):
    said = next((s for s in steps if s["step"] == "outcome"), None)
    if said is not None:
        if outcome is None:
            assert reply[0] == ("4" if "deferred" in said["result"] else "5"), (said, reply)
        else:
            assert outcome[3] == ("deferred" if "deferred" in said["result"] else "bounced" if "bounced" in said["result"] else "sent"), (said, outcome)
            assert outcome[1] == "none"
        return
    assert outcome is not None, (steps, reply)
    hosts = roads(steps)
    if outcome[1] == "none":  # no host was reached: what the log says is about one of them, or about a name
        assert not hosts or any(h.rsplit(":", 1)[0] in outcome[4] for h, _ in hosts), (hosts, outcome)
        return
    assert outcome[1] in [h for h, _ in hosts], (hosts, outcome)
    if outcome[3] == "sent":
        name = next(n for n, r in relays.items() if f"[{r.host}]:{r.port}" in outcome[1])
        assert dict(hosts)[outcome[1]] == (users[name][-1] if users[name] else None), (hosts, users)


def follow(mta, relays, sender, rcpt):
    """Explains a mail, which connects to no relay, and sends it: what was said is what happens.  Returns the steps and the reply."""
    connected = sum(len(r.sessions) for r in relays.values())
    steps = explain(mta.p, sender, rcpt)
    assert sum(len(r.sessions) for r in relays.values()) == connected, "explain connected"
    reply, outcome, users = deliver(mta, relays, sender, rcpt)
    agree(steps, reply, outcome, users, relays)
    return steps, reply


@pytest.mark.parametrize("c", CASES)
def test_explain_says_what_happens(c, relays, name_server):  # noqa: F811
    mta = pair.Ours(name_server)
    mta.case(c["main"], c["files"], c["master"])
    try:
        for sender, rcpt in c["mails"]:
            for r in relays.values():
                r.sessions.clear()
            steps, _ = follow(mta, relays, sender, rcpt)
            shown = json.dumps(steps).replace(str(mta.p.dir), "")  # a directory's random name may have any letters
            for secret in ("pass:word", "p2", "pa  ss", "host:host"):
                assert secret not in shown
    finally:
        mta.over()
