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
