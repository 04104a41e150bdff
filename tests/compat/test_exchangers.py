"""MX records of every kind, usable and not: where Debian's Postfix and Posthouse send mail for the domain, and what they
say where there is nothing to send it to."""
import re
from unittest import mock

import pytest
from kit import FakeRelay

import pair

# The domain itself has an address, at which nothing may arrive but where the domain has no MX record.
DOMAINS = {"blank": ["10 sp\\032ace.test."], "dash": ["10 -lead.test.", "20 tail-.test."], "digits": ["10 127.0.0.43."],
           "numbers": ["10 12.34."], "under": ["10 under_score.test."], "mixed": ["10 sp\\032ace.test.", "20 good.test."],
           "none": ["0 ."], "none-and-good": ["0 .", "20 good.test."], "none-at-ten": ["10 ."],
           "digits-behind": ["5 b@d.test.", "10 127.0.0.43."],
           "stale": ["10 gone.test."], "plain": []}
MAIN = "relayhost =\nsmtp_tls_security_level = none\nnotify_classes =\nsmtp_randomize_addresses = no\n"
RECORDS = [f"{z}.test. 60 IN MX {m}" for z, ms in DOMAINS.items() for m in ms]
RECORDS += [f"{z}.test. 60 IN A 127.0.0.44" for z in DOMAINS]
# What exchangers of a domain say, one preference after the other: to the greeting, and to RCPT.
TALKS = {"45": ("554 no", "220 in"), "46": ("220 in", "451 4.3.0 first"), "47": ("421 4.3.2 no", "220 in"),
         "48": ("220 in", "452 4.3.1 second"), "49": ("220 in", "250 2.1.5 third")}
RECORDS += [f"talks.test. 60 IN MX {n} h{n}.test." for n in TALKS] + [f"h{n}.test. 60 IN A 127.0.0.{n}" for n in TALKS]
RECORDS += [f"many.test. 60 IN MX 10 m{n}.test." for n in (1, 2)]
RECORDS += [f"m{n}.test. 60 IN A 127.0.0.{n}{k}" for n in (1, 2) for k in range(4)]
RECORDS += ["good.test. 60 IN A 127.0.0.43", "under_score.test. 60 IN A 127.0.0.43"]


@pytest.fixture(scope="module")
def both(name_server, postfix):
    """{domain: outcome} of Postfix and of Posthouse, and what reached the domain's own address."""
    relays = {"right": FakeRelay("127.0.0.43", 25), "own": FakeRelay("127.0.0.44", 25)}
    mails = [("", f"b@{z}.test") for z in DOMAINS]
    postfix.prepare(MAIN, {}, "")
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        logs = []
        with mock.patch.object(pair, "outcomes", lambda log, f=pair.outcomes: logs.append(log) or f(log)):
            _, outcomes, _ = pair.run(mta, relays, MAIN, {}, "", mails)
        numeric = set(re.findall(r"warning: numeric domain name in resource data of MX record for .*", logs[-1]))
        seen.append(({o[0]: o[1:] for o in outcomes}, {r for m in relays["own"].mails for r in m["rcpts"]}, numeric))
    yield seen
    for r in relays.values():
        r.stop()


@pytest.mark.parametrize("domain", DOMAINS)
def test_exchangers_like_postfix(both, domain):
    rcpt = f"b@{domain}.test"
    (theirs, _, their_words), (ours, own, our_words) = both
    assert ours[rcpt] == theirs[rcpt]
    assert {w for w in our_words if f" {domain}.test: " in w} == {w for w in their_words if f" {domain}.test: " in w}
    assert (f"RCPT TO:<{rcpt}>" in own) == (domain == "plain")


@pytest.mark.parametrize("limit", [2, 3])
def test_sessions_and_addresses_like_postfix(name_server, postfix, limit):
    """smtp_mx_session_limit counts hosts that came as far as mail; smtp_mx_address_limit all addresses of one preference."""
    relays = [FakeRelay(f"127.0.0.{n}", 25, replies={"GREETING": greeting, "RCPT": rcpt}) for n, (greeting, rcpt) in TALKS.items()]
    main = f"relayhost =\nsmtp_tls_security_level = none\nnotify_classes =\nsmtp_mx_session_limit = {limit}\n"
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        for r in relays:
            r.sessions.clear()
        logs = []
        with mock.patch.object(pair, "outcomes", lambda log, f=pair.outcomes: logs.append(log) or f(log)):
            _, outcomes, _ = pair.run(mta, {}, main, {}, "", [("", "b@talks.test"), ("", "b@many.test")])
        tried = set(re.findall(r"connect to m\d\.test\[([\d.]*)\]:25: Connection refused", logs[-1]))
        seen.append(([len(r.sessions) for r in relays], next(o[1:] for o in outcomes if o[0] == "b@talks.test"), len(tried)))
    for r in relays:
        r.stop()
    assert seen[0] == seen[1] and seen[0][0] == [1, 1, 1, 1, int(limit == 3)] and seen[0][2] == 5
