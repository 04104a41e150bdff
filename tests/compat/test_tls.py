"""TLS policies for Debian's Postfix and for Posthouse: which keys are asked of which kind of table, what the attributes of a
row mean, which name is sent for SNI, and when mail goes on in clear."""
import pytest
from kit import FakeRelay, make_cert, server_tls

import pair

PLAIN, SECURE, REFUSING = "127.0.0.73", "127.0.0.72", "127.0.0.74"
MAY = "smtp_tls_security_level = may\n"
HOP = "relayhost = [relay.test]\n"
LOGIN = "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:clerk:sesame\nsmtp_sasl_security_options = "


ROWS = ["secure match=relay.test match=other.test", "secure match=other.test match=relay.test", "secure match=other.test match=third.test",
        "secure match=", "may match=relay.test", "none match=x strange", "may connection_reuse=maybe", "encrypt strange=bar",
        "secure match = relay.test", "encrypt servername=sni.test", "encrypt servername=nexthop",
        "encrypt servername=a.test servername=a.test", "encrypt servername=-bad-", "encrypt servername=127.0.0.1",
        "secure Match=RELAY.test", "verify match=other.test:relay.test", "must", "encrypt servername=",
        "secure match=relay.test connection_reuse=no"]


def case(id, main, pol=None, kind="hash", rcpts=("b@y.test",), sni=None, more=None):
    """sni: the names that are compared (all, if None); without smtp_tls_servername Posthouse sends the host's name
    (docs/differences.md)."""
    main += f"smtp_tls_policy_maps = {kind}:{{dir}}/pol\n" if pol is not None else ""
    files = {} if pol is None else {"pol": pol + "\n"}
    return pytest.param(dict(main=main, files=dict(files, **more or {}), rcpts=rcpts, sni=sni), id=id)


CASES = [
    # keys: a plain domain's parents are asked of every kind of table
    case("parent in hash", MAY, ".plain.test encrypt", rcpts=["b@sub.plain.test"]),
    case("parent in regexp", MAY, r"/^\.plain\.test$/ encrypt", "regexp", rcpts=["b@sub.plain.test"]),
    case("parent's parent in regexp", MAY, r"/^\.test$/ encrypt", "regexp", rcpts=["b@deep.sub.plain.test"]),
    case("parent in pcre-like text without dot", MAY, "/^plain[.]test$/ encrypt", "regexp", rcpts=["b@sub.plain.test"]),
    case("domain before parent", MAY, "/^sub.plain.test$/ none\n/^[.]plain[.]test$/ encrypt", "regexp", rcpts=["b@sub.plain.test"]),
    case("brackets have no parents", MAY + "relayhost = [sub.plain.test]\n", "/^.plain.test/ encrypt", "regexp"),
    case("a port has no parents", MAY + "relayhost = sub.plain.test:25\n", "/^.plain.test/ encrypt", "regexp"),
    case("an address has no parents", MAY + f"relayhost = {PLAIN}\n", "/^[.]0[.]0[.]73$/ encrypt", "regexp"),
    # attributes
    case("rows", MAY + "transport_maps = hash:{dir}/tr\n", "\n".join(f"[h{i}.test] {r}" for i, r in enumerate(ROWS)),
         rcpts=[f"b@r{i}.test" for i in range(len(ROWS))], sni=["sni.test", "a.test", f"h{ROWS.index('encrypt servername=nexthop')}.test"],
         more={"tr": "".join(f"r{i}.test smtp:[h{i}.test]\n" for i in range(len(ROWS)))}),
    # the name for SNI
    case("servername nexthop", "relayhost = dom.test\nsmtp_tls_security_level = encrypt\nsmtp_tls_servername = nexthop\n"),
    case("servername hostname", "relayhost = dom.test\nsmtp_tls_security_level = encrypt\nsmtp_tls_servername = hostname\n"),
    case("servername is a name", HOP + "smtp_tls_security_level = encrypt\nsmtp_tls_servername = lit.test\n"),
    case("servername is none", HOP + MAY + "smtp_tls_servername = lit.test.\n"),
    case("servername of the row", HOP + "smtp_tls_servername = -bad-\n", "[relay.test] encrypt servername=p.test"),
    # in clear
    case("refused, login may be in clear", f"relayhost = [{REFUSING}]\n" + MAY + LOGIN + "noanonymous\n"),
    case("refused, login may not be in clear", f"relayhost = [{REFUSING}]\n" + MAY + LOGIN + "noplaintext, noanonymous\n"),
]


@pytest.fixture(scope="module")
def name_server(tmp_path_factory):
    d = tmp_path_factory.mktemp("dns")
    d.chmod(0o755)
    names = [f"relay.test. 60 IN A {SECURE}", "dom.test. 60 IN MX 10 relay.test."]
    names += [f"h{i}.test. 60 IN A {SECURE}" for i in range(len(ROWS))]
    server = pair.NameServer(d, names + [f"{n}plain.test. 60 IN A {PLAIN}" for n in ("", "sub.", "deep.sub.")])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def postfix(name_server):
    p = pair.Postfix(name_server)
    yield p
    p.stop()


@pytest.fixture(scope="module")
def relays(tmp_path_factory):
    cert, key = make_cert(tmp_path_factory.mktemp("cert"), "relay.test")
    cert.parent.chmod(0o755)
    names = []
    tls = server_tls(cert, key)
    tls.sni_callback = lambda sock, name, context: names.append(name)
    all_ = {"plain": FakeRelay(PLAIN, 25), "secure": FakeRelay(SECURE, 25, tls=tls),
            "refusing": FakeRelay(REFUSING, 25, tls=tls, auth=("PLAIN",), replies={"STARTTLS": "454 4.7.0 not now"})}
    yield all_, names, cert
    for r in all_.values():
        r.stop()


def what_happens(mta, relays, c):
    """(status and detail code, how each relay was spoken to, names of SNI); texts differ on purpose: Posthouse's says what is wrong."""
    all_, names, cert = relays
    names.clear()
    main = f"smtp_tls_CAfile = {cert}\n" + c["main"]
    replies, results, _ = pair.run(mta, all_, main, c["files"], "", [("a@x.test", r) for r in c["rcpts"]])
    assert not replies
    spoken = {n: sorted((bool(s.tls), s.auth or (), m["rcpts"][0].split(" ORCPT")[0]) for s in r.sessions for m in s.mails)
              for n, r in all_.items()}
    first = {}
    for o in results:
        first.setdefault(o[0], (o[2], o[3]))
    return first, spoken, [n for n in names if c["sni"] is None or n in c["sni"]]


@pytest.mark.parametrize("c", CASES)
def test_tls_like_postfix(c, postfix, relays, name_server):
    theirs = what_happens(postfix, relays, c)
    assert theirs[0], "Postfix did nothing"
    assert what_happens(pair.Ours(name_server), relays, c) == theirs
