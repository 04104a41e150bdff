"""Internationalised domain names: what Debian's Postfix (which asks ICU) and Posthouse (libidn2) look up, connect to, log in to
and verify, and which names they refuse."""
import pytest
from kit import Client, FakeRelay, make_cert, server_tls, wait_for

import pair

RIGHT, SECURE = "127.0.0.83", "127.0.0.84"
# Sharp s and final sigma tell that both are not transitional; symbols, bidirectional text and the like are no IDNA2008.
DOMAINS = ["grün.test", "GRÜN.test", "gru\u0308n.test", "xn--grn-ioa.test", "straße.test", "λόγος.test", "東京。test", "ｗｉｄｅ.test", "☂.test",
           "i❤.test", "א1a.test", "٣٤.test", "ö\u00ads.test", "_ö.test", "ö_x.test", "sub.grün.test", "xn--grn-ioa.grün.test", "a--ö.test",
           "i\u0307.test", "≠.test", "ö.test.", "ẞ.test", "ñ" * 40 + ".test",
           # no domain names
           "\u0308a.test", "xn--ö.test", "-ö.test", "ö-.test", "ö" * 60 + ".test", "ö..test", "ö。。test", "de--ö.test", "ö\u00a0x.test",
           "1\u2488.test", "ö／x.test", "１２７.0.0.1", "ö\u2028x.test", "x.test\u3002", "x.test\uff0e", "ö.test\uff61", "x.test.\u00ad",
           "ö.test\u3002."]
MAIN = "relayhost =\nsmtp_tls_security_level = none\nnotify_classes =\n"
# One configuration; what each recipient's mail meets is in the first word of its domain.
MAIN_TABLES = """relayhost = [grün.test]
sender_dependent_relayhost_maps = hash:{dir}/sdr
smtp_fallback_relay = [grün.test]
transport_maps = hash:{dir}/tr
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:{dir}/sasl
smtp_sasl_security_options = noanonymous
smtp_tls_policy_maps = hash:{dir}/pol
notify_classes =
smtp_connection_cache_on_demand = no
"""
TABLES = {
    "sdr": "@grün.test [münze.test]\nFRÜH@x.test [münze.test]\nspäter@x.test [münze.test]\n",
    "tr": """hop.test smtp:[GRÜN.test]:25
exchanger.test smtp:mx-grün.test
closed.test smtp:[closed.test]
encrypt.test smtp:[münze.test]
parent.test smtp:sub.münze.test
nexthop.test smtp:[münze.test]:25
host.test smtp:[münze.test]:smtp
dot.test smtp:[sub.münze.test]
name.test smtp:münze.test:25
other.test smtp:münze.test:smtp
.grün.test smtp:[a.münze.test]
MÄNNER.test smtp:[münze.test]
""",
    "sasl": "[grün.test] hop:pw\nxn--grn-ioa.test host:pw\n",
    "pol": """[münze.test] encrypt
.münze.test encrypt
[münze.test]:25 secure match=nexthop
[münze.test]:smtp secure match=hostname
[sub.münze.test] secure match=.münze.test
münze.test:25 secure match=grün.test:münze.test
münze.test:smtp secure match=grün.test
[a.münze.test] encrypt servername=hostname
"""}
MAILS = [("a@x.test", f"b@{w}.test") for w in "y hop exchanger closed encrypt parent nexthop host dot name other".split()]
MAILS += [("a@grün.test", "b@y.test"), ("a@x.test", "b@sub.grün.test")]
MAILS += [("a@GRÜN.test", "b@y.test"), ("früh@x.test", "b@y.test"), ("SPÄTER@X.test", "b@y.test"), ("a@x.test", "b@männer.test")]


SPECIAL = {"münze.test": f"A {SECURE}", "closed.test": "A 127.0.0.85", "mx-grün.test": "MX 5 xn--grn-ioa.test."}
SPECIAL = {name.encode("idna").decode(): record for name, record in SPECIAL.items()}
RECORDS = ["test. 60 IN A " + RIGHT, *(f"{name}. 60 IN {record}" for name, record in SPECIAL.items())]
ZONES = ["test.", *SPECIAL]


@pytest.fixture(scope="module")
def relays(tmp_path_factory):
    cert, key = make_cert(tmp_path_factory.mktemp("cert"), "xn--mnze-0ra.test")
    cert.parent.chmod(0o755)
    tls, names = server_tls(cert, key), []
    tls.sni_callback = lambda sock, name, context: names.append(name)
    all_ = {"right": FakeRelay(RIGHT, 25, auth=["PLAIN"]), "secure": FakeRelay(SECURE, 25, tls=tls, auth=["PLAIN"])}
    yield all_, names, cert
    for r in all_.values():
        r.stop()


def where_it_goes(mta):
    """{domain: what is said at RCPT, or where its mail went}, and what became of recipients that were taken."""
    mta.case(MAIN, {}, "")
    try:
        said, taken = {}, 0
        for domain in DOMAINS:
            with Client(mta.port) as c:
                reply = c.mail("", ["b@" + domain], params=" SMTPUTF8")
                sender = c.cmd(f"MAIL FROM:<a@{domain}> SMTPUTF8") if not reply.startswith("250") else ""
            said[domain] = reply[:9], sender[:9]
            if reply.startswith("250"):
                taken += 1
                wait_for(lambda: len(pair.outcomes(mta.new_log())) >= taken)
                said[domain] = pair.outcomes(mta.new_log())[-1][1:4]
        return said
    finally:
        mta.over()


def test_domains_like_postfix(name_server, postfix, relays):
    theirs = where_it_goes(postfix)
    assert {d for d in DOMAINS if theirs[d][0].startswith("501")} == set(DOMAINS[DOMAINS.index("\u0308a.test"):])
    ours = where_it_goes(pair.Ours(name_server))
    if pair.VERSION >= (3, 10):  # docs/differences.md: "ICU decides which domain names are valid"
        assert theirs.pop("\u1e9e.test")[0].startswith("xn--zca.test[") and ours.pop("\u1e9e.test")[0].startswith("ss.test[")
    assert ours == theirs


def roads(mta, relays, main, files, mails):
    """{(sender, recipient): what became of the mail, and the sessions that had it: in TLS? who had logged in?}"""
    all_, names, cert = relays
    names.clear()
    for r in all_.values():
        r.sessions.clear()
    mta.case(f"smtp_tls_CAfile = {cert}\n" + main, files, "")
    try:
        results = {}
        for sender, rcpt in mails:
            with Client(mta.port) as c:
                reply = c.mail(sender, [rcpt], "Subject: a name\r\n\r\nhello\r\n", params="" if (sender + rcpt).isascii() else " SMTPUTF8")
                assert reply.startswith("250"), reply
            wait_for(lambda: len(pair.outcomes(mta.new_log())) > len(results))
            results[sender, rcpt] = pair.outcomes(mta.new_log())[-1][1:4]
        spoken = {(n, s.tls, s.auth, m["from"].split(" SIZE")[0], m["rcpts"][0].split(" ORCPT")[0])
                  for n, r in all_.items() for s in r.sessions for m in s.mails}
        return results, spoken
    finally:
        mta.over()


def test_names_like_postfix(name_server, postfix, relays):
    theirs = roads(postfix, relays, MAIN_TABLES, TABLES, MAILS)
    assert theirs[0]["a@x.test", "b@name.test"][0].startswith("xn--mnze-0ra.test[")
    assert theirs[0]["a@x.test", "b@other.test"][0].startswith("xn--grn-ioa.test[")  # the fallback
    ours = roads(pair.Ours(name_server), relays, MAIN_TABLES, TABLES, MAILS)
    assert ours[0] == theirs[0]
    assert ours[1] ^ theirs[1] == set()


# docs/differences.md: "both spellings of a domain", "an internationalised smtp_helo_name", "… servername"
BOTH = {"sdr": "@xn--grn-ioa.test [xn--mnze-0ra.test]\n", "sasl": "[xn--grn-ioa.test]:25 a-label:pw\nmünze.test u-label:pw\n",
        "tr": "way.test smtp:[grün.test]:25\nxn--grn-ioa.test smtp:[xn--mnze-0ra.test]\n.grün.test smtp:[xn--mnze-0ra.test]\n",
        "pol": "[münze.test] secure match=xn--mnze-0ra.test servername=münze.test\n"}


def test_both_spellings(name_server, relays):
    main = MAIN_TABLES.replace("_on_demand = no", "_on_demand = yes") + "smtp_helo_name = grün.test\n"
    mails = [("a@x.test", "b@way.test"), ("a@x.test", "b@grün.test"), ("a@x.test", "b@xn--grn-ioa.test"),
             ("a@x.test", "b@sub.xn--grn-ioa.test"), ("a@grün.test", "b@y.test")]
    results, spoken = roads(pair.Ours(name_server), relays, main, BOTH, mails)
    assert {r[2] for r in results.values()} == {"sent"}, results
    assert {s[:3] for s in spoken} == {("right", False, ("PLAIN", "a-label", "pw")), ("secure", True, ("PLAIN", "u-label", "pw"))}
    all_, names, _ = relays
    assert set(names) == {"xn--mnze-0ra.test"}
    assert {s.commands[0] for r in all_.values() for s in r.sessions} == {"EHLO xn--grn-ioa.test"}
    # One destination: the host's one session carried all that came before the next sender's login.
    assert len(all_["secure"].sessions) == 1
