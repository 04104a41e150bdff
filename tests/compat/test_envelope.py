"""Addresses of all shapes, as sender and as recipient: Debian's Postfix and Posthouse say the same of them."""
import re

import pytest

import pair
from kit import Client, FakeRelay, free_ports, wait_for

ADDRESSES = r"""<b@far.test> <b@far.test.> <b@far.test..> <b@.far.test> <b@[127.0.0.1]> <b@[127.0.0.3]> <b@[192.0.2.1]>
<b@192.0.2.1> <b@1.2.3> <b@-a.test> <b@a-.test> <b@a_b.test> <"b"@far.test> <"a@b"@far.test> <'b@far.test'>
<postmaster> <Postmaster> <a%b@far.test> <h!u@far.test> <b@[IPv6:::1]> <b@[IPv6:2001:db8::1]> <b@[::1]>
<b@[far.test]> <b@FAR.test> b@far.test <b@far.test <B@far.test> <"\b"@far.test> <b.@far.test> <.b@far.test>
<b..c@far.test> <b@far> <b@localhost> <"b@far.test"> <b@123> <b@0x7f.1> <b@far.test:25> <b@xn--mller-kva.test>
<> <@a,@c:b@far.test> <b@1.2.3.4.test> <b@[1.2.3]> <b@[]> <b@far.test>x <b@f!r.test> <b@far.test,c@far.test>""".split()
ADDRESSES += ["<b c@far.test>", "<\"b c\"@far.test>"]
# docs/differences.md: "an address that is none is taken apart", "local and virtual delivery"
DIFFERENT = {"<b@[127.0.0.1]>": "451 4.3.5", "<b@localhost>": None}
MAIN = "relayhost = [127.0.0.1]:{port}\nsmtpd_error_sleep_time = 0\n"


def replies(mta, port):
    """What is said of each address, as MAIL and as RCPT, up to the enhanced status code."""
    mta.case(MAIN.format(port=port), {}, "")
    try:
        said = {}
        for address in ADDRESSES:
            with Client(mta.port) as c:
                mail = c.cmd("MAIL FROM:" + address)
                c.cmd("RSET")
                c.cmd("MAIL FROM:<s@ok.test>")
                said[address] = mail[:9], c.cmd("RCPT TO:" + address)[:9]
        return said
    finally:
        mta.over()


def test_addresses_like_postfix(name_server, postfix):
    with FakeRelay() as relay:
        theirs = replies(postfix, relay.port)
        ours = replies(pair.Ours(name_server), relay.port)
    different = {a: (theirs[a], ours[a]) for a in ADDRESSES if theirs[a] != ours[a] and a not in DIFFERENT}
    assert different == {}
    for address, rcpt in DIFFERENT.items():
        assert rcpt is None or ours[address][1] == rcpt, (address, ours[address])


LISTS = [f"smtpd_{name}_restrictions = {word}\n" for word in ("reject", "defer")
         for name in ("client", "helo", "sender", "recipient", "relay", "data")]


@pytest.mark.parametrize("which", range(len(LISTS)))
def test_a_list_refuses_in_its_own_words(name_server, postfix, which):
    """A plain reject or defer says of client, name, sender or recipient what the list that it stands in is about."""
    said = []
    for mta in (postfix, pair.Ours(name_server)):
        mta.case(MAIN.format(port=9) + LISTS[which], {}, "")
        try:
            with Client(mta.port) as c:
                said.append([re.sub(r"localhost|unknown", "name", c.cmd(line)) for line in
                             ("MAIL FROM:<a@x.test>", "RCPT TO:<b@far.test>", "DATA")])
        finally:
            mta.over()
    assert said[0] == said[1]


WHO = "127.0.0.1 REJECT the client\nhelo.test REJECT the name\na@x.test REJECT the sender\n" \
      "joe+x@far.test REJECT the recipient\n"
EXTENSIONS = ["joe@far.test REJECT plain\n", "joe+x@far.test DUNNO\njoe@far.test REJECT plain\n",
              "joe@far.test DUNNO\nfar.test REJECT domain\n",
              "test REJECT top\njoe+x@ DUNNO\n", "joe+x@ REJECT extended\njoe@ DUNNO\n", "joe@ REJECT user\n"]
# (the table, its list, what stands there)
ACCESS = [(WHO, name, "texthash:$tables/{}, reject_unauth_destination")
          for name in ("client", "helo", "sender", "relay", "recipient", "data")]
ACCESS += [(WHO, name, f"check_{name}_access{rest}")
           for name in ("client", "helo", "sender", "recipient") for rest in ("", " permit")]
ACCESS += [(WHO, "data", "check_sasl_access")]
ACCESS += [(table, name, f"check_{name}_access texthash:$tables/{{}}")
           for name in ("sender", "recipient") for table in EXTENSIONS]
ACCESS += [("/^joe@far/ REJECT pattern\n", "recipient", "check_recipient_access regexp:$tables/{}")]


def test_access_tables_like_postfix(name_server, postfix):
    """A bare table is asked as its list has it, check_*_access needs one, and an address counts without its extension.

    Each case is a service of its own."""
    said = []
    for mta in (postfix, pair.Ours(name_server)):
        ports = free_ports(len(ACCESS))
        master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o {{ "
                         f"smtpd_{name}_restrictions = {words.format(f'acl{i}')} }}\n"
                         for i, (port, (_, name, words)) in enumerate(zip(ports, ACCESS)))
        mta.case(MAIN.format(port=9) + "recipient_delimiter = +\ntables = {dir}\n",
                 {f"acl{i}": case[0] for i, case in enumerate(ACCESS)}, master)
        try:
            wait_for(lambda: pair.listens(ports[-1]))
            said.append({})
            for port, case in zip(ports, ACCESS):
                sender = "joe+x@far.test" if "check_sender_access texthash" in case[2] else "a@x.test"
                with Client(port) as c:
                    said[-1][case] = [re.sub(r"localhost|unknown", "name", c.cmd(line)) for line in
                                      ("EHLO helo.test", f"MAIL FROM:<{sender}>", "RCPT TO:<joe+x@far.test>", "DATA")][2:]
        finally:
            mta.over()
    assert {case: (reply, said[1][case]) for case, reply in said[0].items() if said[1][case] != reply} == {}


# (parameter, the list, what stands there)
CODES = [("reject_code", name, "reject") for name in ("client", "helo", "sender", "relay", "recipient", "data")]
CODES += [("defer_code", name, "defer") for name in ("client", "recipient", "data")]
CODES += [("access_map_reject_code", "sender", "check_sender_access inline:{a@x.test=REJECT}"),
          ("access_map_reject_code", "sender", "check_sender_access inline:{a@x.test={REJECT 5.7.9 go away}}"),
          ("access_map_reject_code", "sender", "check_sender_access inline:{a@x.test={553 5.7.9 go away}}"),
          ("access_map_defer_code", "recipient", "check_recipient_access inline:{joe@far.test={DEFER later}}"),
          ("access_map_defer_code", "recipient", "check_recipient_access inline:{joe@far.test=DEFER}"),
          ("relay_domains_reject_code", "relay", "reject_unauth_destination"),
          ("relay_domains_reject_code", "relay", "defer_unauth_destination"),
          ("invalid_hostname_reject_code", "helo", "reject_invalid_helo_hostname"),
          ("non_fqdn_reject_code", "helo", "reject_non_fqdn_helo_hostname"),
          ("non_fqdn_reject_code", "sender", "reject_non_fqdn_sender"),
          ("non_fqdn_reject_code", "recipient", "reject_non_fqdn_recipient"),
          ("plaintext_reject_code", "client", "reject_plaintext_session"),
          ("multi_recipient_bounce_reject_code", "data", "reject_multi_recipient_bounce"),
          ("unknown_virtual_alias_reject_code", "recipient", "permit_mynetworks"),
          ("unknown_client_reject_code", "client", "reject_unknown_reverse_client_hostname")]
NAMES = ["[127.0.0.1]", "[1.2.3]", "[IPv6:::1]", "[x", "1.2.3.4", "1.2.3", "1234", "a_b.test", "a-.test", "a..b", "a.",
         "x", "m\u00fc.test",
         "a." + "x" * 64, "::1", "a b"]
CODES = [(*case, code) for case in CODES for code in ("421", "455", "521", "559", "250")]
NAMES_AT = CODES.index(("invalid_hostname_reject_code", "helo", "reject_invalid_helo_hostname", "559"))
SAYS = {"unknown_virtual_alias_reject_code": ("HELO c", "MAIL FROM:<a@x.test>", "RCPT TO:<joe@alias.test>", "RCPT TO:<joe@far.test>"),
        "non_fqdn_reject_code": ("HELO name", "MAIL FROM:<a@x>", "RCPT TO:<b@far>"),
        "invalid_hostname_reject_code": ("HELO -name", "MAIL FROM:<a@x.test>", "RCPT TO:<b@far.test>"),
        "multi_recipient_bounce_reject_code": ("HELO c", "MAIL FROM:<>", "RCPT TO:<joe@far.test>", "RCPT TO:<jim@far.test>")}


def said_to(c, line):
    try:
        return c.cmd(line) or "closed"
    except OSError:
        return "closed"


def test_codes_of_replies_like_postfix(name_server, postfix):
    """Each parameter with the code of a reply, for a restriction that refuses; what is no code of a refusal, too."""
    said = []
    for mta in (postfix, pair.Ours(name_server)):
        ports = free_ports(len(CODES))
        master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd "
                         f"-o {{ smtpd_{name}_restrictions = {words} }} -o {param}={code}\n"
                         for port, (param, name, words, code) in zip(ports, CODES))
        mta.case(MAIN.format(port=9) + "append_dot_mydomain = no\nvirtual_alias_domains = alias.test\n", {}, master)
        try:
            wait_for(lambda: pair.listens(ports[-1]))
            said.append({})
            for port, case in zip(ports, CODES):
                lines = SAYS.get(case[0], ("HELO c.test", "MAIL FROM:<a@x.test>", "RCPT TO:<joe@far.test>"))
                with Client(port, ehlo=None) as c:
                    said[-1][case] = [re.sub(r"localhost|unknown", "name", said_to(c, line)) for line in (*lines, "DATA")]
            for name in NAMES:
                with Client(ports[NAMES_AT], ehlo=None) as c:
                    said[-1][name] = [said_to(c, line) for line in
                                      ("HELO " + name, "MAIL FROM:<a@x.test>", "RCPT TO:<b@far.test>")]
        finally:
            mta.over()
    different = [(case, reply, said[1][case]) for case, reply in said[0].items() if said[1][case] != reply]
    assert different == [], "\n".join(map(str, different))


# (message_size_limit of the service, what is sent)
SIZES = [(own, size) for own in ("1500", "6000", "0") for size in (1000, 2500, 5000, 9000)]


def test_size_limits_of_a_service_like_postfix(name_server, postfix):
    """A service announces and checks its own limit; what main.cf allows is the most."""
    said = []
    with FakeRelay() as relay:
        for mta in (postfix, pair.Ours(name_server)):
            ports = free_ports(len(SIZES))
            master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o message_size_limit={own}\n" for port, (own, _) in zip(ports, SIZES))
            mta.case(MAIN.format(port=relay.port) + "message_size_limit = 4000\n", {}, master)
            try:
                wait_for(lambda: pair.listens(ports[-1]))
                said.append({})
                for port, (own, size) in zip(ports, SIZES):
                    with Client(port) as c:
                        announced = re.search("SIZE.*", c.ehlo)[0]
                        declared = c.cmd(f"MAIL FROM:<a@x.test> SIZE={size}")[:9]
                        c.cmd("RSET")
                        sent = c.mail(content="Subject: x\r\n\r\n" + "x" * 98 * (size // 98) + "\r\n")
                        said[-1][own, size] = announced, declared, re.sub(r"queued as \w+", "queued", sent)
            finally:
                mta.over()
    different = [(case, reply, said[1][case]) for case, reply in said[0].items() if said[1][case] != reply]
    assert different == [], "\n".join(map(str, different))
