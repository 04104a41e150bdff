"""smtp_reply_filter, smtp_delivery_status_filter and smtp_dns_reply_filter for Debian's Postfix and for Posthouse: what reaches
the relay, and what becomes of the mail."""
import re

import pytest
from kit import Client, FakeRelay, wait_for

import pair

RELAY = "127.0.0.93"
# What the relay says to RCPT, or to the final dot, for a recipient.
RCPT = {"hard": "550 5.1.1 no such user", "soft": "450 4.2.0 busy", "many": "550-5.7.1 first line\r\n550 5.7.1 second line",
        "mixed": "550-5.7.1 first\r\n550-5.2.2 second\r\n550 last", "later": "550-5.7.1 first\r\n450 4.7.1 second",
        "nocode": "550 plain refusal", "wrong": "550 4.1.1 of another class", "garbage": "250-2.1.5 a\r\nnonsense\r\n250 2.1.5 b",
        "refuse": "250 2.1.5 turn into a refusal", "accept": "550 5.1.1 turn into a yes", "empty": "550 5.1.1 turn into nothing",
        "broken": "550 5.1.1 turn into garbage", "filler": "550 5.1.1 turn the first line\r\n", "cr": "550-5.7.1 a\tb\r\n550 5.7.1 c"}
RCPT["filler"] = "550-5.1.1 turn the first line\r\n550 5.1.1 and this one stays"
DOT = {"dot": "554 5.6.0 content refused", "dotsoft": "451 4.3.0 content later", "dots": "250-2.0.0 Ok:\r\n250 2.0.0 queued as 12",
       "dotmany": "554-5.7.1 spam\r\n554 5.7.1 really"}
REPLIES = r"""/^550 5\.1\.1 no such user$/ 450 4.1.1 later perhaps
/^450 4\.2\.0 busy/ 550 5.2.0 never
/^550-5\.7\.1 first line/ 550-5.7.1 another first line
/^(550) 5\.7\.1 second line/ 450 4.7.1 $1 was changed
/turn into a refusal/ 554 5.7.1 refused by the filter
/turn into a yes/ 250 2.1.5 accepted by the filter
/turn into garbage/ garbage
/turn the first line/ 550-5.9.9 filtered
/^nonsense/ 250-filler
/^554 5\.6\.0/ 454 4.6.0 content later
/^250-(CHUNKING|DSN)/ 250-X$1
"""
RESULTS = r"""/^5(\.1\.1 .*no such user.*)/ 4$1
/^4(\.2\.0 .*)/ 5$1
/^2\.0\.0 .*queued as 12/ 2.6.0 taken by another name
/^5\.7\.1 .*second line.*/ 5.7.9 short
/^2\.0\.0 .*FAKE123/ 5.0.0 no success is turned into a failure
/^5\.0\.0 .*plain refusal/ 2.0.0 nor a failure into success
/^5\.1\.1 .*another class/ nonsense
/^5\.6\.0/ 4.6.0
/^5\.1\.1 .*turn into nothing.*/ 4.4.4 host x[1.2.3.4] said: 450 4.4.4 other (in reply to RCPT TO command)
"""


RECORD_FILTER = r"""/^two\.test\. \S+ IN MX 5 near\.test\.$/ IGNORE
/^both\.test\. \S+ IN A 127\.0\.0\.94$/ ignore
/^none\.test\. \S+ IN MX / IGNORE
/^(gone|hidden)\.test\. \S+ IN A / IGNORE
/^real\.test\. \S+ IN A 127\.0\.0\.94/ IGNORE
/^alias\.test\. \S+ IN A / IGNORE
/^odd\.test\. \S+ IN A / STRANGE
"""
NEAR, FAR = "127.0.0.94", "127.0.0.95"
RECORDS = f"""two.test. 60 IN MX 5 near.test.|two.test. 60 IN MX 10 far.test.|near.test. 60 IN A {NEAR}|far.test. 60 IN A {FAR}
both.test. 60 IN A {NEAR}|both.test. 60 IN A {FAR}|none.test. 60 IN MX 5 near.test.|none.test. 60 IN A {FAR}|gone.test. 60 IN A {FAR}
alias.test. 60 IN CNAME real.test.|real.test. 60 IN A {NEAR}|real.test. 60 IN A {FAR}|odd.test. 60 IN A {FAR}
mail.test. 60 IN MX 5 hidden.test.|mail.test. 60 IN MX 9 far.test.|hidden.test. 60 IN A {NEAR}""".replace("\n", "|").split("|")
DOMAINS = "two both none gone alias odd mail".split()
# A transport for each filter; its domain sends mail by it.
TRANSPORTS = {"plain": "", "replies": "smtp_reply_filter=$replies", "noreplies": "smtp_reply_filter=fail:x",
              "results": "smtp_delivery_status_filter=$results", "noresults": "smtp_delivery_status_filter=fail:x",
              "records": "smtp_dns_reply_filter=$records", "norecords": "smtp_dns_reply_filter=fail:x"}
MASTER = "".join(f"{name} unix - - n - - smtp\n" + (f"  -o {o}\n" if o else "") for name, o in TRANSPORTS.items())
MAIN = """relayhost =
transport_maps = hash:{dir}/tr
replies = regexp:{dir}/replies
results = regexp:{dir}/results
records = regexp:{dir}/records
smtp_tls_security_level = none
notify_classes =
smtp_connection_cache_on_demand = no
smtp_randomize_addresses = no
"""
FILES = {"replies": REPLIES, "results": RESULTS, "records": RECORD_FILTER,
         "tr": "".join(f"{t}.test {t}:[{RELAY}]\n" for t in TRANSPORTS if "records" not in t) +
               "".join(f"{d}.test records:\n" for d in DOMAINS) + "far.test norecords:\n"}
WORDS = [*RCPT, *DOT, "fine"]
RCPTS = [f"{w}@{t}.test" for t in ("plain", "replies", "results") for w in WORDS]
RCPTS += [f"{w}@{t}.test" for t in ("noreplies", "noresults") for w in ("hard", "soft", "fine", "many")]
RCPTS += [f"b@{d}.test" for d in (*DOMAINS, "far")]
SOFT = [f"{w}@results.test" for w in WORDS]
# docs/differences.md: "a line that is no reply", "a result while its filter cannot be asked", "a status alone" (3.10)
DIFFERENT = {"garbage@plain.test": "deferred", "garbage@results.test": "deferred", "broken@replies.test": "deferred",
             "hard@noresults.test": "deferred", "many@noresults.test": "deferred"}
DIFFERENT.update({"dot@results.test": "deferred"} if pair.VERSION >= (3, 10) else {})


@pytest.fixture(scope="module")
def relay():
    state = {}

    def rcpt(line):
        state["to"] = re.search(r"<([^@]*)@", line)[1]
        return RCPT.get(state["to"])

    replies = {"RCPT": rcpt, "DOT": lambda line: DOT.get(state["to"])}
    all_ = [FakeRelay(RELAY, 25, replies=replies), FakeRelay(NEAR, 25), FakeRelay(FAR, 25)]
    yield all_
    for r in all_:
        r.stop()


def results(mta, main, rcpts):
    """{recipient: what became of the mail}, and what the log says of the filters."""
    mta.case(main, FILES, MASTER)
    try:
        seen = {}
        for rcpt in rcpts:
            with Client(mta.port) as c:
                assert c.mail("", [rcpt]).startswith("250")
            wait_for(lambda: len(pair.outcomes(mta.new_log())) > len(seen))
            seen[rcpt] = pair.outcomes(mta.new_log())[-1][1:]
        said = re.findall(r"(?:replacing server reply|bad status code|unknown DNS filter action).*", mta.new_log())
        return seen, {line for line in said if "DSN" not in line}
    finally:
        mta.over()


@pytest.mark.parametrize("main, rcpts", [(MAIN, RCPTS), (MAIN + "soft_bounce = yes\n", SOFT),
                                         (MAIN + "ignore_mx_lookup_error = yes\n", ["b@none.test", "b@two.test"])],
                         ids=["", "soft_bounce", "ignore_mx"])
def test_filters_like_postfix(main, rcpts, name_server, postfix, relay):
    theirs, their_words = results(postfix, main, rcpts)
    ours, our_words = results(pair.Ours(name_server), main, rcpts)
    assert {r: (ours[r], theirs[r]) for r in rcpts if ours[r] != theirs[r] and r not in DIFFERENT} == {}
    assert {r: ours[r][2] for r in rcpts if r in DIFFERENT} == {r: s for r, s in DIFFERENT.items() if r in rcpts}
    assert our_words == their_words
