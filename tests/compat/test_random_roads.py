"""Random configurations of routes, logins and TLS: what Posthouse does, what its explain said before, and what Debian's
Postfix does.

More of them by hand: ROADS_SEED=1000 ROADS=200 python3 -m pytest tests/compat/test_random_roads.py
"""
import os
import random

import pytest
from kit import FakeRelay, free_port, make_cert, server_tls

import pair
from test_explained import follow

PORT = free_port("127.0.0.22")
FIRST, MANY = int(os.environ.get("ROADS_SEED", "1")), int(os.environ.get("ROADS", "12"))
NAMES = {n: f"127.0.0.{20 + i}" for i, n in enumerate(("y", "z", "relay", "other", "third", "fourth"), 1)}
RECORDS = [f"{n}.test. 60 IN A {a}" for n, a in NAMES.items()]
RECORDS += ["mx.test. 60 IN MX 10 relay.test.", "mx.test. 60 IN MX 20 other.test.", f"sub.y.test. 60 IN A {NAMES['y']}"]
SENDERS = ["a@x.test", "c@x.test", "a+tag@x.test", "q@w.test", "joe@mta.example", ""]
RCPTS = ["b@y.test", "b+e@y.test", "b@sub.y.test", "q@z.test"]
DEAD = free_port()
SERVICES = ["extra", "named", "bare"]


@pytest.fixture(scope="module")
def relays(tmp_path_factory):
    """Two of them have TLS; what is listed in docs/differences.md of ORCPT does not show."""
    tls = server_tls(*make_cert(tmp_path_factory.mktemp("cert"), "other.test"))
    made = {n: FakeRelay(host=a, port=PORT, auth=("PLAIN", "LOGIN"), dsn=False, tls=tls if n in ("other", "fourth") else None)
            for n, a in NAMES.items()}
    yield made
    for r in made.values():
        r.stop()


def hop(r):
    return r.choice([f"[{r.choice(['relay', 'other', 'third', 'fourth', 'RELAY'])}.test]:{PORT}"] * 6 +
                    [f"relay.test:{PORT}", f"mx.test:{PORT}", f"[127.0.0.23]:{PORT}", f"127.0.0.24:{PORT}",
                     f"[127.0.0.1]:{DEAD}, [other.test]:{PORT}",
                     f"[127.0.0.1]:{DEAD} [third.test]:{PORT}"])


def macro(r, value, extra):
    """The value, or a way round to it: parameters of the administrator's own, and conditions."""
    name = f"own_{len(extra)}"
    way = r.randrange(8)
    if way == 0:
        extra[name] = value
        return f"${name}"
    if way == 1:
        extra[name] = "on"
        return "${%s?{%s}:{[wrong.test]}}" % (name, value)
    if way == 2:
        return "${nothing_of_that_name?{[wrong.test]}:{%s}}" % value
    if way == 3:
        extra[name] = ""
        return "${%s:%s}" % (name, value)
    if way == 4:
        return "${{$myhostname} == {mta.example} ? {%s} : {[wrong.test]}}" % value
    return value


def rows(r, keys, values, most=4):
    return "".join(f"{k} {values(r)}\n" for k in r.sample(keys, r.randint(1, min(most, len(keys)))))


def transport(r, nameless=("", "")):
    name = r.choice(["smtp", "relay", *SERVICES, *nameless])
    if not nameless:
        return f"{name}:{hop(r)}" if r.random() < 0.7 else name
    return r.choice([f"{name}:{hop(r)}"] * 6 + ["error:5.7.1 no", "retry:4.7.2 later", "discard:gone", ":", f"{name or 'extra'}:"])


def login(r):
    return f"u{r.randrange(100)}:p{r.randrange(100)}"


def service(r, name, files):
    """A line of master.cf with settings of its own.  Without any table of logins Postfix's client would not start."""
    own = []
    if r.random() < 0.4:
        own.append(f"smtp_helo_name={name}.example")
    if r.random() < 0.3:
        own.append(f"smtp_sasl_auth_enable={r.choice(['yes', 'no'] if 'pw' in files else ['no'])}")
    if r.random() < 0.3:
        own.append("{ smtp_sasl_password_maps = hash:$config_directory/pw2 }")
        own.append("smtp_sasl_security_options=noanonymous")
        files["pw2"] = rows(r, keys_of_logins(), login)
    if r.random() < 0.25:
        own.append(f"smtp_fallback_relay=[fourth.test]:{PORT}")
    if r.random() < 0.25:
        own.append(f"smtp_sender_dependent_authentication={r.choice(['yes', 'no'])}")
    if r.random() < 0.2:
        own.append(f"smtp_sasl_mechanism_filter={r.choice(['login', 'plain'])}")
    return f"{name} unix - - n - - smtp\n" + "".join(f"  -o {o}\n" for o in own)


def keys_of_logins():
    return ["relay.test", f"[relay.test]:{PORT}", f"relay.test:{PORT}", "other.test", f"[other.test]:{PORT}", "third.test",
            f"mx.test:{PORT}", "mx.test", "fourth.test", "127.0.0.23", f"[127.0.0.23]:{PORT}",
            "a@x.test", "@x.test", "@w.test", "joe", "[third.test]"]


def make(seed):
    r = random.Random(seed)
    extra, files, main = {}, {}, []
    if r.random() < 0.8:
        main.append(f"relayhost = {macro(r, hop(r), extra)}")
    if r.random() < 0.6:
        files["sdr"] = rows(r, ["a@x.test", "@x.test", "a+tag@x.test", "@w.test", "q@w.test", "joe", "<>", "x.test"],
                            lambda r: r.choice(["DUNNO", *[hop(r)] * 5]))
        main.append("sender_dependent_relayhost_maps = hash:$config_directory/sdr")
    if r.random() < 0.5:
        files["tr"] = rows(r, ["y.test", ".y.test", "sub.y.test", "b@y.test", "b+e@y.test", "*", "z.test", "q@z.test"], transport)
        main.append("transport_maps = hash:$config_directory/tr")
    if r.random() < 0.35:
        files["sdt"] = rows(r, ["a@x.test", "@x.test", "@w.test", "joe", "<>"], lambda r: r.choice(["DUNNO", *[transport(r, ())] * 4]))
        main.append("sender_dependent_default_transport_maps = hash:$config_directory/sdt")
    if r.random() < 0.3:
        main.append("default_transport = " + macro(r, r.choice(["smtp", "relay", "extra", f"smtp:{hop(r)}", f"named:{hop(r)}"]), extra))
    if r.random() < 0.3:
        main += ["relay_domains = y.test", "relay_transport = " + r.choice(["relay", "extra", f"relay:{hop(r)}"])]
    if r.random() < 0.3:
        main.append("parent_domain_matches_subdomains = " + r.choice(["", "transport_maps", "relay_domains"]))
    if r.random() < 0.5:
        main.append("recipient_delimiter = +")
    if r.random() < 0.3:
        main.append(f"smtp_fallback_relay = {macro(r, f'[fourth.test]:{PORT}', extra)}")
    if r.random() < 0.7:
        files["pw"] = rows(r, keys_of_logins(), login, 8)
        main += ["smtp_sasl_auth_enable = yes", "smtp_sasl_password_maps = " + macro(r, "hash:$config_directory/pw", extra),
                 "smtp_sasl_mechanism_filter = " + r.choice(["login", "plain", "plain, login"])]
    if r.random() < 0.5:
        main.append("smtp_sender_dependent_authentication = yes")
    if r.random() < 0.3:
        files["pol"] = rows(r, ["relay.test", f"[relay.test]:{PORT}", "other.test", "y.test", f"[other.test]:{PORT}", ".test", "z.test",
                                f"mx.test:{PORT}"], lambda r: r.choice(["none", "may", "encrypt"]))
        main.append("smtp_tls_policy_maps = hash:$config_directory/pol")
    main += [f"{n} = {v}" for n, v in extra.items()]
    master = "".join(service(r, name, files) for name in SERVICES)
    r.shuffle(main)
    text = "\n".join(main).replace("{", "{{").replace("}", "}}") + "\n"
    return text, files, master, [(r.choice(SENDERS), r.choice(RCPTS)) for _ in range(3)]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + MANY))
def test_random_roads(seed, postfix, relays, name_server):
    theirs = pair.run(postfix, relays, *make(seed))
    ours = pair.run(pair.Ours(name_server), relays, *make(seed), send=lambda mta, *mail: follow(mta, relays, *mail)[1])
    assert ours == theirs, "\n".join(f"{w}\n  Postfix   {t}\n  Posthouse {o}" for w, t, o in
                                     zip(("replies", "log", "wire"), theirs, ours) if t != o)
