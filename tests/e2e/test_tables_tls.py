"""Tables in databases and directories over TLS: the right authority is let in, another one is not, and no password goes in the clear."""
import subprocess
import time
import urllib.parse

import pytest
from kit import POSTHOUSE, FakeRelay, Posthouse, make_cert, wait_for

import servers
from servers import PASSWORD, SUFFIX

BY_SENDER = "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"
USER_DN = f"mail=user@mydomain.com,ou=Users,domainName=mydomain.com,o=domains,{SUFFIX}"


def mysql_file(server, ca):
    return servers.table_file(server, BY_SENDER, tls_CAfile=ca, tls_verify_cert="yes")


def pgsql_file(server, ca):
    q = urllib.parse.quote
    return (f"hosts = postgresql://vmail:{q(PASSWORD)}@127.0.0.1:{server.port}/vmail?sslmode=verify-full&sslrootcert={q(str(ca), '')}\n"
            f"query = {BY_SENDER}\n")


def ldap_file(server, ca, where, start_tls):
    return (f"server_host = {where}\nversion = 3\nstart_tls = {start_tls}\ntls_ca_cert_file = {ca}\ntls_require_cert = yes\n"
            f"bind = yes\nbind_dn = cn=vmail,{SUFFIX}\nbind_pw = {PASSWORD}\nsearch_base = o=domains,{SUFFIX}\n"
            "query_filter = (mail=%s)\nresult_attribute = senderRelayHost\n")


def ldaps_file(server, ca):
    return ldap_file(server, ca, f"ldaps://127.0.0.1:{server.tls_port}", "no")


def starttls_file(server, ca):
    return ldap_file(server, ca, f"ldap://127.0.0.1:{server.port}", "yes")


KINDS = {"mysql": (servers.MariaDb, "mysql", mysql_file), "pgsql": (servers.Postgres, "pgsql", pgsql_file),
         "ldaps": (servers.Slapd, "ldap", ldaps_file), "start_tls": (servers.Slapd, "ldap", starttls_file)}


def no_password_in(text):
    assert PASSWORD not in text and urllib.parse.quote(PASSWORD) not in text


@pytest.fixture(params=KINDS)
def kind(request):
    server_class, table, text = KINDS[request.param]
    server = server_class()
    yield server, table, text
    server.stop()


def set_relay(server, relay):
    if server.type == "ldap":
        server.change(USER_DN, "senderRelayHost", f"[127.0.0.1]:{relay.port}")
    else:
        server.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('user@mydomain.com', '[127.0.0.1]:{relay.port}')")


def test_over_tls(dns, kind, tmp_path):
    server, table, text = kind
    everybody, own = FakeRelay(), FakeRelay()
    set_relay(server, own)
    main = (f"relayhost = [127.0.0.1]:{everybody.port}\n"
            f"sender_dependent_relayhost_maps = proxy:{table}:{{dir}}/t.cf\n")
    other, _ = make_cert(tmp_path, "127.0.0.1")
    server.certify()
    if table == "mysql":
        server.run("ALTER USER vmail@'127.0.0.1' REQUIRE SSL", True)
    with Posthouse(main, dns=dns) as p:
        (p.dir / "other.pem").write_bytes(other.read_bytes())
        ca = tmp_path / "authorities with a space" / "ca.pem"  # not beside the table: its folder has to be let in
        ca.parent.mkdir()
        ca.write_bytes(server.cert.read_bytes())
        (p.dir / "t.cf").write_text(text(server, p.dir / "other.pem"))
        p.reload()
        assert p.send(sender="user@mydomain.com").startswith("451 4.3.0")
        p.wait_log("lookup.*warning: .*127.0.0.1.*: .*")
        (p.dir / "t.cf").write_text(text(server, ca))
        p.reload()
        time.sleep(1)  # a host that failed rests for a second
        assert p.send(sender="user@mydomain.com").startswith("250")
        wait_for(lambda: own.mails)
        assert not everybody.mails
        no_password_in(p.log())
    for r in (everybody, own):
        r.stop()


def test_a_server_without_tls_gets_no_password(dns, kind, tmp_path):
    server, table, text = kind
    if server.type == "ldap":
        server.tls_port = server.port
    everybody, own = FakeRelay(), FakeRelay()
    set_relay(server, own)
    ca, _ = make_cert(tmp_path, "127.0.0.1")
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\nsender_dependent_relayhost_maps = {table}:{{dir}}/t.cf\n", dns=dns,
                   files={"t.cf": "", "ca.pem": ca.read_text()}) as p:
        (p.dir / "t.cf").write_text(text(server, p.dir / "ca.pem"))
        p.reload()
        assert p.send(sender="user@mydomain.com").startswith("451 4.3.0")
        p.wait_log("lookup.*warning: .*127.0.0.1.*: .*")
        assert not everybody.mails and not own.mails
        no_password_in(p.log())
    for r in (everybody, own):
        r.stop()


def test_a_check_alone_is_a_check(dns, tmp_path):
    """tls_verify_cert without any other tls_ parameter asks for TLS, as in Postfix: a certificate of an unknown authority is not taken."""
    server = servers.MariaDb()
    server.certify()
    try:
        text = servers.table_file(server, "SELECT 'x' FROM DUAL WHERE '%s' <> ''", tls_verify_cert="yes")
        with Posthouse("relayhost = [127.0.0.1]:25\n", dns=dns, files={"t.cf": text}) as p:
            (p.dir / "t.cf").chmod(0o644)
            for command in ("/usr/sbin/postmap",), (POSTHOUSE, "postmap"):
                got = subprocess.run([*command, "-q", "a", f"mysql:{p.dir}/t.cf"], capture_output=True, text=True)
                assert got.returncode == 1 and got.stdout == "" and "certificate" in got.stderr, (command, got)
    finally:
        server.stop()


def test_a_bad_address_does_not_show_its_password(dns):
    with Posthouse("relayhost = [127.0.0.1]:25\nsender_dependent_relayhost_maps = pgsql:{dir}/t.cf\n", dns=dns,
                   files={"t.cf": f"hosts = postgresql://vmail:se%cret@127.0.0.1:1/vmail\nquery = {BY_SENDER}\n"}) as p:
        assert p.send(sender="user@mydomain.com").startswith("451 4.3.0")
        p.wait_log("malformed postgresql:// address in hosts")
        assert "cret" not in p.log() + p.run("explain", "user@mydomain.com").stdout
