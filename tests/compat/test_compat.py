"""The same configuration, tables and mail for Debian's Postfix and for Posthouse: what reaches each relay
(commands, AUTH identity, envelope) and what the log says came of it must be the same.

A case names a deliberate difference by the words of docs/differences.md that explain it, and then says what
Posthouse does instead.
"""
import pathlib

import pytest
from kit import FakeRelay, free_port

import pair

DOCS = (pathlib.Path(__file__).resolve().parents[2] / "docs/differences.md").read_text()
PORT = free_port("127.0.0.2")
DEAD = free_port()
SASL = ("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:{dir}/pw\nsmtp_sasl_security_options = noanonymous\n")
LOGIN = SASL + "smtp_sasl_mechanism_filter = login\n"
A = ("a@x.test", "b@y.test")


def case(id, main, files=None, mails=(A,), master="", differs=None, ours=None):
    return pytest.param(dict(main=main, files=files or {}, mails=mails, master=master, differs=differs, ours=ours), id=id)


def hop(text="[relay.test]"):
    return f"{text}:{PORT}"


R = f"relayhost = {hop()}\n"
# 3.1: which keys match for which next hop
KEYS = [("host", "relay.test", hop(), True), ("brackets", "[relay.test]", hop(), False), ("brackets-port", f"[relay.test]:{PORT}", hop(), True),
        ("host-port", f"relay.test:{PORT}", hop(), False), ("ip-for-ip", "127.0.0.2", hop("[127.0.0.2]"), True),
        ("ip-in-brackets", "[127.0.0.2]", hop("[127.0.0.2]"), False), ("ip-brackets-port", f"[127.0.0.2]:{PORT}", hop("[127.0.0.2]"), True),
        ("ip-for-name", "127.0.0.2", hop(), False), ("case", "relay.test", hop("[RELAY.Test]"), True), ("mx-host", "mx1.test", hop("mx.test"), True),
        ("mx-domain", "mx.test", hop("mx.test"), False), ("mx-literal", f"mx.test:{PORT}", hop("mx.test"), True),
        ("host-beats-hop", f"relay.test u1:p1\n[relay.test]:{PORT}", hop(), True)]
SDR = R + "sender_dependent_relayhost_maps = hash:{dir}/sdr\n"
OTHER = f"[other.test]:{PORT}"
SDA = R + SASL + "smtp_sender_dependent_authentication = yes\n"
LOCAL = "mydestination = mta.example, !not.test, inline:{{{{ row.test=x, not.test=x }}}}\nproxy_interfaces = 192.0.2.9\n"
LOCALS = ["row.test", "not.test", "[127.0.0.1]", "[192.0.2.9]", "[192.0.2.10]"]
HELO = "a host that refuses HELO by 5xx"
NXDOMAIN = "a relay host of a list, a sender's table or a transport that does not resolve"
VALUES = {  # 1.3: results of transport(5)
    "nothing": ":", "smtp-colon": "smtp:", "smtp": "smtp", "hop": f"smtp:{OTHER}", "hop-only": f":{OTHER}", "error": "error:5.7.1 no such place",
    "error-bare": "error:", "retry": "retry:4.7.2 come back", "discard": "discard:gone", "relay": f"relay:{OTHER}", "named": f"extra:{OTHER}"}

CASES = [
    # vector 1 and the rest of 3.1
    case("seed", R + LOGIN, {"pw": "relay.test user:pass:word\n"}),
    *[case(f"key-{n}", f"relayhost = {h}\n" + LOGIN, {"pw": f"{k} user:pass\n"}) for n, k, h, _ in KEYS],
    case("no-colon-is-no-password", R + SASL, {"pw": "relay.test justuser\n"}),
    case("blanks-in-password", R + SASL, {"pw": "relay.test user:pa  ss#$\\\n"}),
    # 3.3, 3.4, 3.5
    case("auth-not-offered", f"relayhost = {hop('[noauth.test]')}\n" + SASL, {"pw": "noauth.test u:p\n"},
         differs="credentials are configured, the remote does not offer AUTH", ours=("4.7.0", "deferred")),
    case("filter-leaves-nothing", f"relayhost = {hop('[cram.test]')}\n" + LOGIN, {"pw": "cram.test u:p\n"}),
    case("noplaintext", R + "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:{dir}/pw\n", {"pw": "relay.test u:p\n"}),
    case("cram-md5", f"relayhost = {hop('[cram.test]')}\n" + SASL, {"pw": "cram.test user:pass\n"}),
    case("refused-535", f"relayhost = {hop('[reject.test]')}\n" + LOGIN, {"pw": "reject.test u:p\n"}),
    case("refused-454", f"relayhost = {hop('[later.test]')}\n" + LOGIN, {"pw": "later.test u:p\n"}),
    case("refused-hard", f"relayhost = {hop('[reject.test]')}\n" + LOGIN + "smtp_sasl_auth_soft_bounce = no\n", {"pw": "reject.test u:p\n"}),
    *[case(f"soft-bounce-{n}", m + "soft_bounce = yes\n", f) for n, m, f in [
        ("mail-550", f"relayhost = {hop('[mail550.test]')}\n", {}),
        ("login", f"relayhost = {hop('[reject.test]')}\n" + LOGIN + "smtp_sasl_auth_soft_bounce = no\n", {"pw": "reject.test u:p\n"}),
        ("refused", R + "transport_maps = hash:{dir}/tr\n", {"tr": "y.test error:5.7.1 no such place\n"})]],
    # an answer of nothing is an error, wherever a table is asked
    *[case(f"empty-answer-{n.split()[0]}", f"relayhost = {hop()}\n{more}{n} = regexp:{{dir}}/empty\n", {"empty": "/./\n"}) for n, more in [
        ("sender_dependent_relayhost_maps", ""), ("sender_dependent_default_transport_maps", ""), ("transport_maps", ""),
        ("smtp_sasl_password_maps", SASL.replace("smtp_sasl_password_maps = hash:{dir}/pw\n", ""))]],
    case("password-table-broken", R + SASL.replace("hash:{dir}/pw", "fail:x"), {}),
    # 2.1, 2.3, 2.4
    *[case(f"hop-{n}", f"relayhost = {h}\n") for n, h in [
        ("port", hop()), ("mx-port", hop("mx.test")), ("no-mx", hop("relay.test")), ("ip", hop("[127.0.0.2]")), ("ip-bare", hop("127.0.0.2")),
        ("case", hop("[RELAY.test]")), ("list-blank", f"[127.0.0.1]:{DEAD} {hop()}"), ("list-comma", f"[127.0.0.1]:{DEAD}, {hop()}")]],
    case("list-greeting-554", f"relayhost = {hop('[greet5.test]')}, {hop()}\n"),
    *[case(f"refuses-{n}", f"relayhost = {hop(f'[{n}.test]')}\n") for n in ("greet57", "greet45", "ehlo5", "helo4")],
    case("refuses-helo5", f"relayhost = {hop('[helo5.test]')}\n", differs=HELO, ours=("4.5.2", "deferred")),
    case("list-greeting-421", f"relayhost = {hop('[greet4.test]')}, {hop()}\n"),
    case("list-535", f"relayhost = {hop('[reject.test]')}, {hop()}\n" + LOGIN, {"pw": "reject.test u:p\nrelay.test u2:p2\n"}),
    case("list-mail-550", f"relayhost = {hop('[mail550.test]')}, {hop()}\n"),
    case("dead", f"relayhost = [127.0.0.1]:{DEAD}\n"),
    case("single-nxdomain", "relayhost = [nx.test]:25\n"),
    case("list-nxdomain", "relayhost = [nx.test], [nx2.test]\n", differs=NXDOMAIN, ours=("4.3.5", "deferred")),
    case("sender-nxdomain", SDR, {"sdr": "a@x.test [nx.test]\n"}, differs=NXDOMAIN, ours=("4.3.5", "deferred")),
    case("transport-nxdomain", R + "transport_maps = hash:{dir}/tr\n", {"tr": "y.test smtp:[nx.test]\n"}, differs=NXDOMAIN, ours=("4.3.5", "deferred")),
    case("fallback", f"relayhost = [127.0.0.1]:{DEAD}\nsmtp_fallback_relay = {hop()}\n"),
    # 1.4: sender keys
    case("sender-order", SDR + "recipient_delimiter = +\n", {"sdr": f"a@x.test {OTHER}\n@x.test [third.test]:{PORT}\n"},
         [A, ("a+ext@x.test", "b@y.test"), ("other@x.test", "b@y.test"), ("s@elsewhere.test", "b@y.test"), ("A+Tag@X.Test", "b@y.test")]),
    case("sender-no-delimiter", SDR, {"sdr": f"a@x.test {OTHER}\n@x.test [third.test]:{PORT}\n"}, [("a+foo@x.test", "b@y.test"), A]),
    case("sender-extension-first", SDR + "recipient_delimiter = +\n", {"sdr": f"a+ext@x.test [third.test]:{PORT}\na@x.test {OTHER}\n"},
         [("a+ext@x.test", "b@y.test"), ("a+no@x.test", "b@y.test")]),
    *[case(f"names-that-are-whole-{n}", SDA.replace(R, SDR) + f"transport_maps = hash:{{dir}}/tr\n{more}",
           {"sdr": f"owner@x.test {OTHER}\nlist@x.test {OTHER}\nmailer@x.test {OTHER}\n",
            "tr": "owner@y.test discard:o\nlist@y.test discard:l\n",
            "pw": "owner@x.test o:o\nlist@x.test l:l\nmailer@x.test m:m\n"},
           [("owner-list@x.test", "b@y.test"), ("list-request@x.test", "b@y.test"), ("mailer-daemon@x.test", "b@y.test"),
            ("list-more@x.test", "b@y.test"), ("q@x.test", "owner-list@y.test"), ("q@x.test", "LIST-Request@y.test"),
             ("q@x.test", "list-x@y.test")])
      for n, more in [("minus", "recipient_delimiter = -\n"), ("both", "recipient_delimiter = +-\n"), ("plus", "recipient_delimiter = +\n"),
                      ("off", "recipient_delimiter = -\nowner_request_special = no\n")]],
    case("sender-dunno", SDR, {"sdr": f"a@x.test DUNNO\nc@x.test dunno\n@x.test {OTHER}\n"}, [A, ("c@x.test", "b@y.test"), ("d@x.test", "b@y.test")]),
    case("sender-null", SDR, {"sdr": f"@x.test {OTHER}\n"}, [("", "b@y.test")]),
    case("sender-null-key", SDR, {"sdr": f"<> {OTHER}\n"}, [("", "b@y.test"), A]),
    case("sender-null-other-key", SDR + "empty_address_relayhost_maps_lookup_key = nobody\n", {"sdr": f"nobody {OTHER}\n"}, [("", "b@y.test")]),
    case("sender-subdomain-is-not-domain", SDR, {"sdr": f".x.test {OTHER}\nx.test {OTHER}\n"}, [A, ("a@sub.x.test", "b@y.test")]),
    case("sender-second-table-user-wins", R + "sender_dependent_relayhost_maps = hash:{dir}/one, hash:{dir}/sdr\n",
         {"one": f"@x.test {OTHER}\n", "sdr": f"a@x.test [third.test]:{PORT}\n"}, [A, ("c@x.test", "b@y.test")]),
    case("sender-bare-local-part", SDR, {"sdr": f"root {OTHER}\n"}, [("root@mta.example", "b@y.test"), ("root@x.test", "b@y.test")]),
    case("sender-bare-local-part-of-table", SDR + LOCAL, {"sdr": f"joe {OTHER}\n"}, [(f"joe@{d}", "b@y.test") for d in LOCALS]),
    case("sender-regexp-sees-whole-keys", R + "sender_dependent_relayhost_maps = regexp:{dir}/re, hash:{dir}/sdr\n",
         {"re": f"/^@/ {OTHER}\n/^A@/ [third.test]:{PORT}\n", "sdr": "none.test x\n"}, [A, ("z@x.test", "b@y.test")]),
    case("sender-quoted", SDR, {"sdr": f'"a b"@x.test {OTHER}\n'}, [('"a b"@x.test', "b@y.test")]),
    case("sender-list", SDR, {"sdr": f"a@x.test [127.0.0.1]:{DEAD}, {OTHER}\n"}),
    case("sender-static", R + f"sender_dependent_relayhost_maps = static:{OTHER}\n", {}, [A, ("", "b@y.test")]),
    case("sender-inline", R + "sender_dependent_relayhost_maps = inline:{{{{ a@x.test = %s }}}}\n" % OTHER, {}, [A]),
    case("sender-union", R + "sender_dependent_relayhost_maps = unionmap:{{hash:{dir}/one,hash:{dir}/sdr}}\n",
         {"one": f"a@x.test [127.0.0.1]:{DEAD}\n", "sdr": f"a@x.test {OTHER}\n"}),
    case("sender-pipe", R + "sender_dependent_relayhost_maps = pipemap:{{hash:{dir}/one,hash:{dir}/sdr}}\n",
         {"one": "a@x.test alias\n", "sdr": f"alias {OTHER}\n"}, [A, ("c@x.test", "b@y.test")]),
    # 1.6: what fails is deferred
    case("sender-table-fails", R + "sender_dependent_relayhost_maps = fail:x\n"),
    case("transport-table-fails", R + "transport_maps = fail:x\n"),
    case("second-table-fails", R + "sender_dependent_relayhost_maps = hash:{dir}/sdr, fail:x\n", {"sdr": f"a@x.test {OTHER}\n"}, [A, ("c@x.test", "b@y.test")]),
    case("sender-transport-table-fails", R + "sender_dependent_default_transport_maps = fail:x\n"),
    # 1.3: transport(5)
    *[case(f"transport-{n}", R + "transport_maps = hash:{dir}/tr\n", {"tr": f"y.test {v}\n"}, [("a@x.test", "b@y.test")],
           master="extra unix - - n - - smtp\n") for n, v in VALUES.items() if n not in ("smtp-colon", "smtp")],
    *[case(f"transport-{n}", R + f"transport_maps = hash:{{dir}}/tr\n", {"tr": f"y.test {VALUES[n]}\n"}) for n in ("smtp-colon", "smtp")],
    case("transport-keys", R + "transport_maps = hash:{dir}/tr\n", {"tr": f"u@y.test {OTHER}\nu@y.test :{OTHER}\ny.test discard:dom\n.y.test discard:sub\n* error:5.7.1 nope\n"},
         [("a@x.test", "b@y.test"), ("a@x.test", "b@sub.y.test"), ("a@x.test", "b@a.sub.y.test"), ("a@x.test", "b@z.test")]),
    case("transport-at-domain-is-no-key", R + "transport_maps = hash:{dir}/tr\n", {"tr": "@y.test discard:never\n"}),
    case("transport-extension", R + "transport_maps = hash:{dir}/tr\nrecipient_delimiter = +\n", {"tr": "u@y.test discard:user\n"},
         [("a@x.test", "u+tag@y.test"), ("a@x.test", "v@y.test")]),
    case("transport-parent-domains", R + "transport_maps = hash:{dir}/tr\nparent_domain_matches_subdomains = transport_maps\n", {"tr": "y.test discard:all\n"},
         [("a@x.test", "b@sub.y.test"), ("a@x.test", "b@y.test")]),
    case("transport-beats-sender", SDR + "transport_maps = hash:{dir}/tr\n", {"sdr": f"a@x.test {OTHER}\n", "tr": f"y.test smtp:[third.test]:{PORT}\n"},
         [A, ("a@x.test", "b@z.test")]),
    case("transport-empty-keeps-sender", SDR + "transport_maps = hash:{dir}/tr\n", {"sdr": f"a@x.test {OTHER}\n", "tr": "y.test :\n"}),
    # 1.2: precedence
    case("default-transport-hop", R + f"default_transport = smtp:{OTHER}\n"),
    case("default-transport-hop-beats-sender", SDR + f"default_transport = smtp:{OTHER}\n", {"sdr": f"a@x.test [third.test]:{PORT}\n"}),
    case("sender-transport", SDR + "sender_dependent_default_transport_maps = hash:{dir}/sdt\n",
         {"sdr": f"@x.test [third.test]:{PORT}\n", "sdt": f"a@x.test smtp:{OTHER}\nc@x.test extra:\nd@x.test DUNNO\n"},
         [A, ("c@x.test", "b@y.test"), ("d@x.test", "b@y.test")], master="extra unix - - n - - smtp\n"),
    case("relay-class", R + "relay_domains = y.test\nsender_dependent_default_transport_maps = static:smtp:[third.test]:%d\nrelay_transport = relay:%s\n" % (PORT, OTHER),
         {}, [A, ("a@x.test", "b@sub.y.test"), ("a@x.test", "b@z.test")]),
    case("relay-class-sender", SDR + "relay_domains = y.test\n", {"sdr": f"a@x.test {OTHER}\n"}),
    case("named-transport-overrides", R + "transport_maps = hash:{dir}/tr\n", {"tr": f"y.test named:{hop()}\n"},
         master="named unix - - n - - smtp\n  -o smtp_helo_name=other.example\n"),
    case("virtual-mailbox-has-no-relayhost", SDR + f"virtual_mailbox_domains = y.test\nvirtual_transport = smtp:{OTHER}\n", {"sdr": f"a@x.test [third.test]:{PORT}\n"}),
    # vector 13: credentials by sender
    case("by-sender", SDA + "recipient_delimiter = +\n", {"pw": "a@x.test s:s\n@z.test zz:zz\nrelay.test host:host\n"},
         [A, ("q@z.test", "b@y.test"), ("u@w.test", "b@y.test"), ("", "b@y.test"), ("a+foo@x.test", "b@y.test"), ("A@X.TEST", "b@y.test")]),
    case("by-sender-bare-local-part", SDA + LOCAL, {"pw": "joe j:j\nrelay.test host:host\n"}, [(f"joe@{d}", "b@y.test") for d in LOCALS]),
    case("by-sender-no-delimiter", SDA, {"pw": "a@x.test s:s\nrelay.test host:host\n"}, [("a+foo@x.test", "b@y.test")]),
    case("by-sender-off", R + SASL, {"pw": "a@x.test s:s\nrelay.test host:host\n"}),
    case("by-sender-and-host", SDA + "sender_dependent_relayhost_maps = hash:{dir}/sdr\n",
         {"sdr": f"@x.test {OTHER}\n", "pw": "a@x.test own:own\nother.test shared:shared\nrelay.test all:all\n"},
         [A, ("c@x.test", "b@y.test"), ("d@z.test", "b@y.test")]),
]
NAMES = {"relay": "127.0.0.2", "other": "127.0.0.3", "third": "127.0.0.4", "noauth": "127.0.0.5", "cram": "127.0.0.6", "reject": "127.0.0.8",
         "later": "127.0.0.9", "greet5": "127.0.0.10", "greet4": "127.0.0.11", "mail550": "127.0.0.12", "y": "127.0.0.13",
         "greet57": "127.0.0.14", "greet45": "127.0.0.15", "ehlo5": "127.0.0.16", "helo5": "127.0.0.17", "helo4": "127.0.0.18"}


@pytest.fixture(scope="module")
def relays():
    both, users = ("PLAIN", "LOGIN"), None
    denied = lambda line: "554 5.7.1 Relay access denied"
    make = {"noauth": dict(replies={"RCPT": denied}), "cram": dict(auth=("CRAM-MD5",), users={"user": "pass"}),
            "reject": dict(auth=both, replies={"AUTH": "535 5.7.8 Authentication credentials invalid"}),
            "later": dict(auth=both, replies={"AUTH": "454 4.7.0 not now"}), "greet5": dict(replies={"GREETING": "554 go away"}),
            "greet4": dict(replies={"GREETING": "421 busy"}), "mail550": dict(replies={"MAIL": "550 5.7.60 not you"}),
            "greet57": dict(replies={"GREETING": "554 5.7.1 not you"}), "greet45": dict(replies={"GREETING": "450 4.5.3 not now"}),
            "ehlo5": dict(replies={"EHLO": "502 5.5.1 unknown"}),
            "helo5": dict(replies={"EHLO": "501 5.5.2 no", "HELO": "501 5.5.2 bad name"}),
            "helo4": dict(replies={"EHLO": "450 4.3.2 later", "HELO": "450 4.3.2 later"})}
    all_ = {n: FakeRelay(host=a, port=PORT, **make.get(n, dict(auth=both) if n not in ("y",) else {})) for n, a in NAMES.items()}
    yield all_
    for r in all_.values():
        r.stop()


RECORDS = [f"{n}.test. 60 IN A {a}" for n, a in NAMES.items()]
RECORDS += ["mx.test. 60 IN MX 10 mx1.test.", "mx1.test. 60 IN A 127.0.0.2"]


@pytest.fixture(scope="module")
def postfixes(name_server):
    both = [pair.Postfix(name_server) for _ in range(2)]
    yield both
    for p in both:
        p.stop()


@pytest.fixture
def postfix(postfixes, request):
    """The one that was started while the case before ran; the other one is started for the next case."""
    cases = [i for i in request.session.items if i.originalname == "test_like_postfix"]
    n = cases.index(request.node)
    if n + 1 < len(cases):
        c = cases[n + 1].callspec.params["c"]
        postfixes[(n + 1) % 2].prepare(c["main"], c["files"], c["master"])
    return postfixes[n % 2]


@pytest.mark.parametrize("c", CASES)
def test_like_postfix(c, postfix, relays, name_server):
    args = (relays, c["main"], c["files"], c["master"], c["mails"])
    theirs = pair.run(postfix, *args)
    ours = pair.run(pair.Ours(name_server), *args)
    assert theirs[0] or theirs[1], "Postfix did nothing"
    if c["differs"] is None:
        assert ours == theirs, "\n" + "\n".join(f"{w}\n  Postfix   {t}\n  Posthouse {o}" for w, t, o in
                                                zip(("replies", "log", "wire"), theirs, ours) if t != o)
    else:
        assert c["differs"] in DOCS
        assert ours != theirs
        assert [(o[2], o[3]) for o in ours[1]] == [c["ours"]], ours
