"""ldap: tables against a real slapd with iRedMail's schema and iRedMail's own table files."""
import os
import re
import subprocess
import time

import pytest
from kit import FakeRelay, Posthouse, wait_for

import servers
from servers import SUFFIX

HEAD = """server_host     = 127.0.0.1:{port}
version         = 3
bind            = yes
start_tls       = no
bind_dn         = cn=vmail,dc=example,dc=com
bind_pw         = {password}
"""
USER = """search_base     = ou=Users,domainName=%d,o=domains,dc=example,dc=com
scope           = one
query_filter    = (&(objectClass=mailUser)(mail=%s)(accountStatus=active)(!(domainStatus=disabled))(enabledService=mail))
result_attribute= senderRelayHost
debuglevel      = 0
"""
DOMAIN = """search_base     = o=domains,dc=example,dc=com
scope           = one
query_filter    = (&(objectClass=mailDomain)(accountStatus=active)(enabledService=mail)(|(domainName=%d)(domainAliasName=%d)))
result_attribute= senderRelayHost
debuglevel      = 0
"""
DOMAIN_DN = f"domainName=mydomain.com,o=domains,{SUFFIX}"
USER_DN = f"mail=user@mydomain.com,ou=Users,{DOMAIN_DN}"


@pytest.fixture(scope="module")
def directory():
    server = servers.Slapd()
    yield server
    server.stop()


@pytest.fixture
def clean(directory):
    directory.change(DOMAIN_DN, "senderRelayHost", None)
    directory.change(USER_DN, "senderRelayHost", None)
    return directory


def daemon(dns, server, relay, **files):
    head = HEAD.format(port=server.port, password=servers.PASSWORD)
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nrecipient_delimiter = +\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"
                  "sender_dependent_relayhost_maps = proxy:ldap:{dir}/user.cf, proxy:ldap:{dir}/domain.cf\n", dns=dns,
                  files={"user.cf": head + USER, "domain.cf": head + DOMAIN} | files)
    return p


def senders(relay):
    return sorted(re.search(r"<(.*?)>", m["from"]).group(1) for m in relay.mails)


def test_the_seeds_ldif(dns, clean):
    everybody, domain, user = FakeRelay(), FakeRelay(), FakeRelay()
    with daemon(dns, clean, everybody) as p:
        p.send(sender="user@mydomain.com")
        wait_for(lambda: len(everybody.mails) == 1)
        clean.change(DOMAIN_DN, "senderRelayHost", f"[127.0.0.1]:{domain.port}")
        clean.change(USER_DN, "senderRelayHost", f"[127.0.0.1]:{user.port}")
        time.sleep(1)
        # The search base of elsewhere.com does not exist: not found, for it is made from the key.
        for s in ("user@mydomain.com", "other@mydomain.com", "x@alias.com", "someone@elsewhere.com", "USER+tag@MyDomain.COM", "",
                  "odd*(name)\\@mydomain.com"):
            assert p.send(sender=s if "*" not in s else '"odd*(name)\\\\"@mydomain.com').startswith("250")
        wait_for(lambda: len(everybody.mails) + len(domain.mails) + len(user.mails) == 8)
        assert senders(user) == ["user@mydomain.com"]
        # As with Postfix: each key is asked of all tables, and domain.cf answers for user+tag before user is asked.
        assert len(domain.mails) == 4 and {"x@alias.com", "USER+tag@MyDomain.COM"} < set(senders(domain))
        assert senders(everybody) == ["", "someone@elsewhere.com", "user@mydomain.com"]
        clean.change(USER_DN, "senderRelayHost", None)
        time.sleep(1)
        p.send(sender="user@mydomain.com")
        wait_for(lambda: len(domain.mails) == 5)
        assert servers.PASSWORD not in p.log()
    for r in (everybody, domain, user):
        r.stop()


@pytest.mark.parametrize("how", ["down", "password", "base"])
def test_fail_closed(dns, clean, how):
    everybody, user = FakeRelay(), FakeRelay()
    clean.change(USER_DN, "senderRelayHost", f"[127.0.0.1]:{user.port}")
    with daemon(dns, clean, everybody) as p:
        p.send(sender="user@mydomain.com")
        wait_for(lambda: len(user.mails) == 1)
        good = (p.dir / "user.cf").read_text()
        if how == "down":
            clean.down()
        elif how == "password":
            (p.dir / "user.cf").write_text(good.replace(servers.PASSWORD, "wrong"))
        else:  # a fixed base that does not exist is a mistake, not an answer
            (p.dir / "user.cf").write_text(good.replace("ou=Users,domainName=%d,o=domains", "ou=nowhere"))
        time.sleep(1)
        assert p.send(sender="user@mydomain.com").startswith("451 4.3.0")
        assert p.send(sender="other@mydomain.com").startswith("451 4.3.0")
        if how == "down":
            clean.up()
        (p.dir / "user.cf").write_text(good)
        wait_for(lambda: p.send(sender="user@mydomain.com").startswith("250"), 20, 0.3)
        wait_for(lambda: len(user.mails) == 2)
        assert everybody.sessions == []
    everybody.stop()
    user.stop()


GROUP = f"""dn: cn=group,{SUFFIX}
objectClass: inetOrgPerson
cn: group
sn: group
mail: group@a.test
mail: also@a.test
title: Chief
labeledURI: ldap:///{SUFFIX}??sub?(cn=member)
seeAlso: cn=member,{SUFFIX}

dn: cn=member,{SUFFIX}
objectClass: inetOrgPerson
cn: member
sn: member
mail: member@b.test
title: Clerk
seeAlso: cn=gone,{SUFFIX}
"""
# What a table file says besides query_filter = (mail=%s).
FOLLOWED = ["result_attribute = title", "result_attribute = title, mail",
            "result_attribute = mail\nspecial_result_attribute = labeledURI",
            "result_attribute = title\nspecial_result_attribute = seeAlso",
            "result_attribute = title\nspecial_result_attribute = seeAlso, labeledURI",
            "result_attribute = title\nleaf_result_attribute = mail\nspecial_result_attribute = seeAlso",
            "result_attribute = title\nterminal_result_attribute = mail\nspecial_result_attribute = seeAlso",
            "result_attribute = title\nspecial_result_attribute = cn",
            "result_attribute = title\nspecial_result_attribute = seeAlso\nrecursion_limit = 1"]


def test_what_entries_lead_to_like_postfix(directory, tmp_path):
    """Further entries and URLs are followed, and values come in the directory's order; what cannot be followed is an error."""
    directory.run(GROUP, tool="ldapadd")
    p = Posthouse("", directory=tmp_path)
    head = f"{HEAD.format(port=directory.port, password=servers.PASSWORD)}search_base = {SUFFIX}\nquery_filter = (mail=%s)\n"
    for i, more in enumerate(FOLLOWED):
        file = tmp_path / f"{i}.cf"
        file.write_text(f"{head}{more}\n")
        os.utime(file, (0, 0))
        theirs = subprocess.run(["postmap", "-q", "group@a.test", f"ldap:{file}"], capture_output=True, text=True)
        ours = p.run("-q", "group@a.test", f"ldap:{file}", face="postmap")
        said = [(r.returncode, r.stdout, "fatal:" in r.stderr) for r in (ours, theirs)]
        assert said[0] == said[1], (more, theirs, ours)
