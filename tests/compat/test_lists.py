"""Lists of clients and of domains, in every form that Postfix takes: what Debian's Postfix and Posthouse find in them."""
import subprocess

import pytest
from kit import Client, Posthouse, free_port, wait_for

import pair

RECORDS = ["x.example. 60 IN A 127.0.0.1"]

# The client is localhost[127.0.0.1].
CLIENTS = ["127.0.0.1", "127.0.0.0/8", "[127.0.0.1]", "[127.0.0.0]/8", "[127.0.0.0/8]", "![127.0.0.0/16],127.0.0.0/8", "[127.0.0.0/8",
           "![127.0.0.0/8,127.0.0.0/8",
           "[127.0.0.0]x/8,127.0.0.0/8", "[name],127.0.0.0/8", "cidr:{dir}/bare", "!127.0.0.1,127.0.0.0/8", "!!127.0.0.1",
           "localhost", "LocalHost",
           ".localhost", "!localhost,127.0.0.0/8", "unknown", "host", "hash:{dir}/addresses",
           "!hash:{dir}/addresses,127.0.0.0/8",
           "hash:{dir}/names", "cidr:{dir}/nets", "regexp:{dir}/patterns", "{dir}/list", "!{dir}/list,127.0.0.0/8", "{dir}/outer",
           "!{dir}/outer,127.0.0.0/8",
           "inline:{127.0.0.1=x}", "static:x", "127.0.0", "127.0.0.1/24", "127.0.0.1/24,127.0.0.1", "127.0.0.1,127.0.0.1/24", "[::1]",
           "!127.0/16,127.0.0.0/8", "127.0.0.0/8,!127.0/16", "!127.0.0.0/,127.0.0.0/8", "0/0", "!127.0.0/24,127.0.0.0/8",
           "!bad/8,127.0.0.0/8",
           "!127.0.0.1:25,127.0.0.0/8", "!Hash:{dir}/missing,127.0.0.0/8",
           "!host/8,127.0.0.0/8", "!127.0,127.0.0.0/8", "!0127.0.0.0/16,127.0.0.0/8",
           "10.0.0.0/8", "hash:{dir}/missing", "hash:{dir}/missing,127.0.0.1", "127.0.0.1,hash:{dir}/missing", "0.0.0.0/0"]
DOMAINS = "!no.own.example,!{dir}/shut,own.example,.dot.example,!!twice.example,hash:{dir}/domains,regexp:{dir}/patterns,{dir}/list," \
          "LOUD.example"
ASKED = [sub + name for name in """own.example no.own.example shut.own.example in.shut.own.example dot.example twice.example t.example
         d.example re.example f.example g.example h.example loud.example example other.example""".split() for sub in ("", "sub.", "not")]
FILES = {"addresses": "127.0.0.1 x\n", "names": "localhost x\n", "nets": "127.0.0.0/8 x\n", "bare": "127.0.0.0/8\n",
         "patterns": "/^(127|re)\\./ x\n",
         "list": "# comment\n10.0.0.0/8, f.example\n  127.0.0.1 g.example\n#h.example\n", "outer": "\n{dir}/list\n",
         "shut": "shut.own.example\n", "domains": "t.example x\n.d.example x\n"}
CLIENT_LISTS = ["mynetworks", "smtpd_client_event_limit_exceptions", "smtpd_forbid_bare_newline_exclusions"]
MAIN = """relayhost = [127.0.0.1]:9
mydestination =
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 1
smtpd_forbid_bare_newline = reject
smtpd_error_sleep_time = 0
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    d = tmp_path_factory.mktemp("lists")
    for name, text in FILES.items():
        (d / name).write_text(text.replace("{dir}", str(d)))
        if name in ("addresses", "names", "domains"):
            subprocess.run(["postmap", f"hash:{d}/{name}"], check=True)
    return d


def ask(mta, services, talk):
    """What talk(port) finds out of each service, which is given as its overrides."""
    ports = [free_port() for _ in services]
    master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd\n" + "".join(f"  -o {{ {o} }}\n" for o in overrides)
                     for port, overrides in zip(ports, services))
    mta.case(MAIN, {}, master)
    try:
        return [talk(port) for port in ports]
    finally:
        mta.over()


def connected(port):
    """A client; the one before it may not have gone yet."""
    c = Client(port, ehlo=None)
    return c if c.greeting.startswith("220") else c.sock.close()


def of_client(port):
    """Is it in mynetworks, without limits, and excused for bare newlines?"""
    with wait_for(lambda: connected(port)) as c:
        with Client(port, ehlo=None) as second:
            limited = second.greeting[:3]
        c.raw("MAIL FROM:<>\r\nRCPT TO:<b@far.example>\r\n")
        c.reply()
        relays = c.reply()[:3]
    with wait_for(lambda: connected(port)) as c:
        c.raw("NOOP\n")
        return relays, limited, c.reply()[:3]


def test_clients_like_postfix(name_server, postfix, tables):
    values = [v.replace("{dir}", str(tables)) for v in CLIENTS]
    services = [[f"{name} = {value}" for name in CLIENT_LISTS] for value in values]
    theirs = ask(postfix, services, of_client)
    ours = ask(pair.Ours(name_server), services, of_client)
    different = {v: (t, o) for v, t, o in zip(CLIENTS, theirs, ours) if t != o}
    assert different == {}
    assert {t[0] for t in theirs} == {"250", "451", "554"}


def test_domains_like_postfix(name_server, postfix, tables):
    def listed(mta, parents):
        domains = DOMAINS.replace("{dir}", str(tables))
        mta.case(MAIN.replace("permit_mynetworks, ", "") + f"relay_domains = {domains}\n{parents}", {}, "")
        try:
            found = {}
            for domain in ASKED:
                with Client(mta.port) as c:
                    c.cmd("MAIL FROM:<>")
                    found[domain] = c.cmd(f"RCPT TO:<b@{domain}>")[:3]
            return found
        finally:
            mta.over()
    for parents in ("", "parent_domain_matches_subdomains =\n"):
        theirs = listed(postfix, parents)
        assert listed(pair.Ours(name_server), parents) == theirs
        assert set(theirs.values()) == {"250", "554"}


def test_a_list_of_clients_that_are_not_offered_auth(dns, tables):
    """Tables, names and files count here as in the other lists of clients."""
    values = {f"hash:{tables}/addresses": True, f"hash:{tables}/names": True, "localhost": True, f"{tables}/outer": True,
              "10.0.0.0/8": False, f"!{tables}/list, 127.0.0.0/8": False, f"hash:{tables}/missing": False,
              f"cidr:{tables}/nets": True, "": False}
    ports = [free_port() for _ in values]
    master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd\n  -o {{{{ smtpd_sasl_exceptions_networks = {value} }}}}\n"
                     for port, value in zip(ports, values))
    main = "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = accounts\naccounts_store = sqlite:{dir}/none\n" \
           "smtpd_tls_auth_only = no\nsmtpd_sasl_security_options =\n"
    with Posthouse(main, master, dns=dns):
        found = []
        for port in ports:
            with Client(port) as c:
                found.append("AUTH" not in c.ehlo)
        assert dict(zip(values, found)) == values
