"""A domain has one normal form, however it is written: in relay records, lists of domains, access tables and what is local."""
import pytest
from kit import FakeRelay, Posthouse, make_cert, server_tls

SPELLINGS = ["fjörd.example", "xn--fjrd-6qa.example", "FJÖRD.example", "XN--FJRD-6qa.Example", "fjo\u0308rd.example", "ｆｊörd.example"]


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    with FakeRelay(auth=["PLAIN"], tls=server_tls(*make_cert(tmp_path_factory.mktemp("cert")))) as r:
        yield r


def said(p, sender, rcpt):
    params = "" if (sender + rcpt).isascii() else " SMTPUTF8"
    with p.client() as c:
        assert c.cmd(f"MAIL FROM:<{sender}>{params}").startswith("250"), sender
        return c.cmd(f"RCPT TO:<{rcpt}>")


@pytest.mark.parametrize("written", SPELLINGS)
def test_lists_of_domains_and_access_tables(dns, written):
    main = f"""relayhost = [127.0.0.1]:9
mynetworks = 192.0.2.0/24
mydestination =
relay_domains = !no.{written}, {written}, straße.example
parent_domain_matches_subdomains = relay_domains
smtpd_recipient_restrictions = check_sender_access texthash:{{dir}}/senders check_recipient_access texthash:{{dir}}/rcpts
"""
    key = written if written in SPELLINGS[:4] else SPELLINGS[0]  # a table's key is found by its plain form
    files = {"senders": f"x@{key} 450 that sender\nshut.{key} 451 that domain\n.shut.{key} 452 below it\n",
             "rcpts": f"bad@{key} 553 that recipient\n"}
    with Posthouse(main, dns=dns, files=files) as p:
        for domain in SPELLINGS:
            expected = {("a@x.example", f"b@{domain}"): "250", ("a@x.example", f"b@sub.{domain}"): "250",
                        ("a@x.example", f"b@no.{domain}"): "454", ("a@x.example", f"b@not{domain}"): "454",
                        (f"x@{domain}", f"b@{domain}"): "450 4.7.1", (f"y@shut.{domain}", f"b@{domain}"): "451 4.7.1",
                        (f"y@of.shut.{domain}", f"b@{domain}"): "452 4.7.1", ("a@x.example", f"bad@{domain}"): "553 5.7.1"}
            for (sender, rcpt), reply in expected.items():
                assert said(p, sender, rcpt).startswith(reply), (written, sender, rcpt)
        for domain, reply in {"xn--strae-oqa.example": "250", "STRAßE.example": "250", "strasse.example": "454"}.items():
            assert said(p, "a@x.example", "b@" + domain).startswith(reply), domain


@pytest.mark.parametrize("dot", ["\u3002", "\uff0e", "\uff61"], ids=["ideographic", "wide", "half"])
def test_domains_that_are_written_with_other_dots(dns, dot):
    """The rules of a domain's parents, in access tables and in transport_maps, are for it, too: the nearest one."""
    main = """mynetworks = 192.0.2.0/24
relay_domains = fjörd.example
smtpd_recipient_restrictions = check_sender_access texthash:{dir}/senders, permit
transport_maps = texthash:{dir}/roads
"""
    with FakeRelay() as near, FakeRelay() as far:
        files = {"senders": "shut.example 450 that domain\nexample OK\nfjörd.example 451 below it\n",
                 "roads": f".fjörd.example smtp:[127.0.0.1]:{near.port}\n* smtp:[127.0.0.1]:{far.port}\n"}
        with Posthouse(main, dns=dns, files=files) as p:
            for domain, reply in {"a.shut.example": "450", "a.b.shut.example": "450", "x.fjörd.example": "451"}.items():
                for written in (domain.replace(".", dot), domain.replace(".", dot, 1), dot.join(domain.rsplit(".", 1))):
                    assert said(p, "a@" + written, "b@fjörd.example").startswith(reply), written
            rcpt = "b@of.fjörd.example".replace(".", dot)
            assert p.send("a@x.test", [rcpt], params=" SMTPUTF8").startswith("250")
            near.wait_mails(1)
            assert not far.mails


@pytest.mark.parametrize("end", ["\u3002", "\uff0e", "\uff61", ".\u00ad"], ids=["ideographic", "wide", "half", "hidden"])
def test_no_domain_ends_with_another_dot(dns, end):
    """Owners, access tables and tables of relays would not know it, and yet its mail would go: it is no domain, as with Postfix."""
    with Posthouse("smtpd_recipient_restrictions = check_recipient_access inline:{{ x.example=REJECT }}, permit", dns=dns) as p:
        assert said(p, "a@y.example", "b@x.example").startswith("554")
        assert said(p, "a@y.example", "b@fjörd.example.").startswith("250")
        for domain in ("x.example", "fjörd.example"):
            assert said(p, "a@y.example", "b@" + domain + end).startswith("501 5.1.3")
            with p.client() as c:
                assert c.cmd(f"MAIL FROM:<a@{domain}{end}> SMTPUTF8").startswith("501 5.1.7")


@pytest.mark.parametrize("written", SPELLINGS[:4])
def test_relay_records(dns, relay, written):
    """By next hop, by name, by user and by domain; a record is its domain's in every spelling and no other domain's."""
    main = f"""relayhost = [127.0.0.1]:{relay.port}
sender_dependent_relayhost_maps = texthash:{{dir}}/sdr
"""
    names = [s for s in SPELLINGS if s != written]
    rows = [f"@by{i}.example [{s}]:25\n" for i, s in enumerate(names)] + [f"@named{i}.example {s}\n" for i, s in enumerate(names)]
    rows += ["@shut.example [straße.example]:25\n", "@open.example [strasse.example]:25\n"]
    with Posthouse(main, dns=dns, files={"sdr": "".join(rows)}) as p:
        def record(name, *words):
            p.run("record", "set", name, f"hosts=[127.0.0.1]:{relay.port}", "tls=encrypt", "password", *words, stdin="word\n", check=True)
        record("hop", f"nexthop=[{written}]:25", "user=hop", "for=everybody")
        record(written, "nexthop=none.example", "user=named", "for=everybody")
        record("domain", f"nexthop=[127.0.0.1]:{relay.port}", "user=domain", f"for=@{written}", f"owner={written}")
        record("one", f"nexthop=[127.0.0.1]:{relay.port}", "user=one", f"for=ann@{written}")
        record("sharp", "nexthop=[straße.example]:25", "user=sharp", "for=everybody")
        for again in names:
            words = [f"hosts=[127.0.0.1]:{relay.port}", f"nexthop=[{again}]:25", "tls=encrypt", "user=x", "for=everybody", "password"]
            r = p.run("record", "set", "again", *words, stdin="word\n")
            assert r.returncode == 1 and 'another record, "hop"' in r.stderr, again
            assert p.run("record", "delete", again).returncode == 1
        assert p.run("record", "delete", "hop").returncode == 1  # it is in use, by other spellings
        p.reload()
        wanted = {f"a@by{i}.example": "hop" for i, _ in enumerate(names)}
        wanted |= {f"a@named{i}.example": "named" for i, _ in enumerate(names)}
        wanted |= {f"a@{s}": "domain" for s in SPELLINGS} | {f"ann@{s}": "one" for s in SPELLINGS}
        wanted |= {"a@sub.fjörd.example": None, "a@fjord.example": None, "a@xn--strae-oqa.example": None}
        relay.sessions.clear()
        for sender in wanted:
            assert p.send(sender, params="" if sender.isascii() else " SMTPUTF8").startswith("250"), sender
        mails = {m["from"].split("<")[1].split(">")[0]: m["auth"] for m in relay.wait_mails(len(wanted))}
        assert {s: a and a[1] for s, a in mails.items()} == wanted
        assert "sharp" not in p.run("explain", "a@open.example").stdout
        assert "sharp" in p.run("explain", "a@shut.example").stdout


def test_what_is_local_by_every_spelling(dns):
    """A local part alone is a key of the tables of senders where the domain is myorigin's or mydestination's."""
    main = """relayhost = [127.0.0.1]:9
myorigin = xn--fjrd-6qa.example
mydestination = größe.example
sender_dependent_relayhost_maps = inline:{{{{bob=[127.0.0.1]:77}}}}
"""
    with Posthouse(main, dns=dns) as p:
        for domain, found in {"FJÖRD.example": True, "xn--gre-6ka8i.example": True, "fjord.example": False}.items():
            assert ("next hop [127.0.0.1]:77" in p.run("explain", f"bob@{domain}").stdout) == found, domain


@pytest.mark.parametrize("mode", ["no", "yes"])
def test_which_spellings_are_one_domain(dns, mode):
    """enable_idna2003_compatibility says it, to look-ups and lists alike: no list takes mail for a domain that is another one's."""
    main = f"""relayhost = [127.0.0.1]:9
enable_idna2003_compatibility = {mode}
mynetworks = 192.0.2.0/24
mydestination =
relay_domains = straße.example, faß.example, texthash:{{dir}}/domains
smtpd_recipient_restrictions = check_recipient_access texthash:{{dir}}/rcpts
"""
    files = {"domains": "groß.example x\nweiss.example x\n", "rcpts": "strasse.example 450 that one\nxn--strae-oqa.example 451 this one\n"}
    same = {"straße.example": "450" if mode == "yes" else "451", "STRASSE.example": "450" if mode == "yes" else "454",
            "xn--strae-oqa.example": "454" if mode == "yes" else "451",
            "fass.example": "250" if mode == "yes" else "454", "xn--fa-hia.example": "454" if mode == "yes" else "250",
            "groß.example": "250", "gross.example": "454", "weiss.example": "250",  # a key of a table has one spelling
            "weiß.example": "250" if mode == "yes" else "454"}
    with Posthouse(main, dns=dns, files=files) as p:
        replies = {domain: said(p, "a@x.example", "b@" + domain)[:3] for domain in same}
        assert replies == same
