"""iRedMail's own table files (its queries and filters as they are) against real servers with its schema: what Posthouse
makes of them is what Debian's Postfix makes of them, and mail follows."""
import os
import re
import subprocess
import time

import pytest
from kit import FakeRelay, Posthouse, make_cert, server_tls, wait_for

import servers
from servers import SUFFIX
from test_auth import SECRET, STORED, base, login

MORE = """
CREATE TABLE alias_domain (alias_domain VARCHAR(255) NOT NULL PRIMARY KEY, target_domain VARCHAR(255) NOT NULL, active {flag} NOT NULL DEFAULT 1);
CREATE TABLE forwardings (address VARCHAR(255) NOT NULL DEFAULT '', forwarding VARCHAR(255) NOT NULL DEFAULT '', domain VARCHAR(255) NOT NULL DEFAULT '',
    active {flag} NOT NULL DEFAULT 1);
CREATE TABLE maillists (address VARCHAR(255) NOT NULL DEFAULT '', domain VARCHAR(255) NOT NULL DEFAULT '', transport VARCHAR(255) NOT NULL DEFAULT '',
    active {flag} NOT NULL DEFAULT 1);
ALTER TABLE mailbox ADD enabledeliver {flag} NOT NULL DEFAULT 1;
ALTER TABLE mailbox ADD storagenode VARCHAR(255) NOT NULL DEFAULT 'vmail1';
ALTER TABLE mailbox ADD maildir VARCHAR(255) NOT NULL DEFAULT '';
"""
QUERIES = {
    "sender_dependent_relayhost_maps": "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1",
    "sender_login_maps": "SELECT mailbox.username FROM mailbox,domain WHERE mailbox.username='%s' AND mailbox.domain='%d' AND mailbox.domain=domain.domain "
                         "AND mailbox.enablesmtp=1 AND mailbox.active=1 AND domain.backupmx=0 AND domain.active=1",
    "transport_maps_user": "SELECT mailbox.transport FROM mailbox,domain WHERE mailbox.username='%s' AND mailbox.domain='%d' AND "
                           "mailbox.domain=domain.domain AND mailbox.transport<>'' AND mailbox.active=1 AND mailbox.enabledeliver=1 AND domain.backupmx=0 AND domain.active=1",
    "transport_maps_maillist": "SELECT maillists.transport FROM maillists,domain WHERE maillists.address='%s' AND maillists.active=1 AND "
                               "maillists.domain = domain.domain AND domain.active=1",
    "transport_maps_domain": "SELECT transport FROM domain WHERE domain='%s' AND active=1 LIMIT 1",
    "relay_domains": "SELECT domain FROM domain WHERE domain='%s' AND backupmx=1 AND active=1 LIMIT 1",
    "virtual_mailbox_domains": "(SELECT domain FROM domain WHERE domain='%s' AND backupmx=0 AND active=1 LIMIT 1) UNION (SELECT alias_domain.alias_domain FROM "
                               "alias_domain,domain WHERE alias_domain.alias_domain='%s' AND alias_domain.active=1 AND "
                               "alias_domain.target_domain=domain.domain AND domain.active=1 AND domain.backupmx=0 LIMIT 1)",
    "virtual_mailbox_maps": {"mysql": "SELECT CONCAT(mailbox.storagenode, '/', mailbox.maildir, '/Maildir/') FROM mailbox,domain WHERE mailbox.username='%s' AND "
                             "mailbox.active=1 AND mailbox.enabledeliver=1 AND domain.domain = mailbox.domain AND domain.active=1",
                             "pgsql": "SELECT (mailbox.storagenode || '/' || mailbox.maildir || '/Maildir/') FROM mailbox,domain WHERE mailbox.username='%s' AND "
                             "mailbox.active=1 AND mailbox.enabledeliver=1 AND domain.domain = mailbox.domain AND domain.active=1"},
    "virtual_alias_maps": "SELECT forwardings.forwarding FROM forwardings,domain WHERE forwardings.address='%s' AND forwardings.domain=domain.domain AND "
                          "forwardings.active=1 AND domain.backupmx=0 AND domain.active=1",
    "domain_alias_maps": {"mysql": "SELECT forwardings.forwarding FROM forwardings,alias_domain,domain WHERE alias_domain.alias_domain='%d' AND "
                          "forwardings.address=CONCAT('%u', '@', alias_domain.target_domain) AND alias_domain.target_domain=domain.domain AND "
                          "forwardings.active=1 AND alias_domain.active=1 AND domain.backupmx=0",
                          "pgsql": "SELECT forwardings.forwarding FROM forwardings,alias_domain,domain WHERE alias_domain.alias_domain='%d' AND "
                          "forwardings.address=('%u' || '@' || alias_domain.target_domain) AND alias_domain.target_domain=domain.domain AND "
                          "forwardings.active=1 AND alias_domain.active=1 AND domain.backupmx=0"},
    "catchall_maps": "SELECT forwardings.forwarding FROM forwardings,domain WHERE forwardings.address='%d' AND '%u' NOT LIKE '%%+%%' AND "
                     "forwardings.address=domain.domain AND forwardings.active=1 AND domain.active=1 AND domain.backupmx=0",
    "domain_alias_catchall_maps": "SELECT forwardings.forwarding FROM forwardings,alias_domain,domain WHERE alias_domain.alias_domain='%d' AND "
                                  "forwardings.address=alias_domain.target_domain AND alias_domain.target_domain=domain.domain AND forwardings.active=1 AND "
                                  "alias_domain.active=1",
}
KEYS = ["user@domain.com", "USER@Domain.com", "o'neil@domain.com", "list@domain.com", "nobody@domain.com", "x+tag@domain.com", "user@alias.com",
        "any@alias.com", "domain.com", "alias.com", "backup.com", "off.com", "@domain.com", "@backup.com", "<>", "user", "off@domain.com"]


@pytest.fixture(scope="module", params=[servers.MariaDb, servers.Postgres], ids=["mysql", "pgsql"])
def db(request):
    server = request.param()
    server.run(MORE.format(flag="TINYINT(1)" if server.type == "mysql" else "INT2"))
    if server.type == "pgsql":
        server.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO vmail")
    for mail, more in (("user@domain.com", {"transport": "smtp:[user.hop]:25"}), ("o'neil@domain.com", {}), ("off@domain.com", {"active": 0})):
        servers.add_user(server, mail, STORED["ssha512-8"][0], **more)
    server.run("INSERT INTO domain (domain, transport, backupmx) VALUES ('backup.com', 'relay:[45.56.127.226]:25', 1);"
               "INSERT INTO domain (domain, active) VALUES ('off.com', 0);"
               "INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('alias.com', 'domain.com');"
               "INSERT INTO maillists (address, domain, transport) VALUES ('list@domain.com', 'domain.com', 'mlmmj:domain.com/list');"
               "INSERT INTO forwardings (address, forwarding, domain) VALUES ('user@domain.com', 'user@domain.com', 'domain.com'), "
               "('user@domain.com', 'copy@elsewhere.example', 'domain.com'), ('domain.com', 'catchall@domain.com', 'domain.com');"
               "INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[domain.hop]:25'), ('user@domain.com', '[user.hop]:25'), ('<>', '[null.hop]:25')")
    yield server
    server.stop()


def query_of(db, name):
    q = QUERIES[name]
    return q if isinstance(q, str) else q[db.type]


def compare(p, spec, keys):
    stdin = "".join(k + "\n" for k in keys)
    theirs = subprocess.run(["postmap", "-q", "-", spec], capture_output=True, text=True, input=stdin)
    ours = p.run("-q", "-", spec, face="postmap", stdin=stdin)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (spec, theirs, ours)
    return theirs.stdout


@pytest.mark.parametrize("name", QUERIES)
def test_sql_files_like_postfix(db, tmp_path, name):
    p = Posthouse("", directory=tmp_path)
    (tmp_path / f"{name}.cf").write_text(servers.table_file(db, query_of(db, name)))
    os.utime(tmp_path / f"{name}.cf", (0, 0))
    assert compare(p, f"{db.type}:{tmp_path}/{name}.cf", KEYS) != ""


FILTERS = {  # search_base below the suffix, scope, filter, attribute, more
    "sender_dependent_relayhost_maps_user": ("ou=Users,domainName=%d,o=domains,", "one", "(&(objectClass=mailUser)(mail=%s)(accountStatus=active)"
                                             "(!(domainStatus=disabled))(enabledService=mail))", "senderRelayHost", ""),
    "sender_dependent_relayhost_maps_domain": ("o=domains,", "one", "(&(objectClass=mailDomain)(accountStatus=active)(enabledService=mail)"
                                               "(|(domainName=%d)(domainAliasName=%d)))", "senderRelayHost", ""),
    "transport_maps_user": ("domainName=%d,o=domains,", "sub", "(&(|(objectClass=mailUser)(&(objectClass=mailList)(enabledService=mlmmj)))"
                            "(|(mail=%s)(shadowAddress=%s))(accountStatus=active)(!(domainStatus=disabled))(enabledService=mail))", "mtaTransport", ""),
    "transport_maps_domain": ("o=domains,", "one", "(&(objectClass=mailDomain)(accountStatus=active)(enabledService=mail)(|(domainName=%s)(domainAliasName=%s)))",
                              "mtaTransport", ""),
    "sender_login_maps": ("o=domains,", "sub", "(&(objectClass=mailUser)(accountStatus=active)(!(domainStatus=disabled))(enabledService=mail)"
                          "(enabledService=smtp)(|(mail=%s)(shadowAddress=%s)))", "mail", ""),
    "relay_domains": ("o=domains,", "one", "(&(objectClass=mailDomain)(|(domainName=%s)(&(enabledService=domainalias)(domainAliasName=%s)))"
                      "(domainBackupMX=yes)(accountStatus=active)(enabledService=mail))", "domainName", ""),
    "virtual_mailbox_domains": ("o=domains,", "one", "(&(objectClass=mailDomain)(|(domainName=%s)(&(enabledService=domainalias)(domainAliasName=%s)))"
                                "(!(domainBackupMX=yes))(accountStatus=active)(enabledService=mail))", "domainName", ""),
    "virtual_mailbox_maps": ("o=domains,", "sub", "(&(objectClass=mailUser)(|(mail=%s)(shadowAddress=%s))(accountStatus=active)(!(domainStatus=disabled))"
                             "(enabledService=mail)(enabledService=deliver))", "cn", "result_format   = %s/Maildir/\n"),
}


@pytest.fixture(scope="module")
def directory():
    server = servers.Slapd()
    both = ["mail", "smtp", "smtpsecured", "deliver"]
    servers.add_user(server, "user@domain.com", "{SSHA}wbw5JOCRDzsF2IgQeULH5mvR7OkBAgME", enabledService=both, senderRelayHost="[user.hop]:25",
                     mtaTransport="smtp:[user.hop]:25", shadowAddress=["alias@domain.com", "user@alias.com"])
    servers.add_user(server, "off@domain.com", "x", enabledService=both, accountStatus="disabled", senderRelayHost="[off.hop]:25")
    servers.add_user(server, "x@backup.com", "x")
    dn = f"domainName=%s,o=domains,{SUFFIX}"
    server.run(f"dn: {dn % 'domain.com'}\nchangetype: modify\nreplace: senderRelayHost\nsenderRelayHost: [domain.hop]:25\n-\nreplace: domainAliasName\n"
               f"domainAliasName: alias.com\n-\nadd: enabledService\nenabledService: domainalias\n-\nreplace: mtaTransport\nmtaTransport: dovecot\n\n"
               f"dn: {dn % 'backup.com'}\nchangetype: modify\nreplace: domainBackupMX\ndomainBackupMX: yes\n-\nreplace: mtaTransport\nmtaTransport: relay:[45.56.127.226]:25\n")
    yield server
    server.stop()


@pytest.mark.parametrize("name", FILTERS)
def test_ldap_files_like_postfix(directory, tmp_path, name):
    import test_ldap
    below, scope, query, attribute, more = FILTERS[name]
    text = (test_ldap.HEAD.format(port=directory.port, password=servers.PASSWORD) + f"search_base     = {below}{SUFFIX}\nscope           = {scope}\n"
            f"query_filter    = {query}\nresult_attribute= {attribute}\n{more}debuglevel      = 0\n")
    p = Posthouse("", directory=tmp_path)
    (tmp_path / f"{name}.cf").write_text(text)
    os.utime(tmp_path / f"{name}.cf", (0, 0))
    if not os.path.exists("/usr/lib/postfix/postfix-ldap.so"):
        raise AssertionError("Debian's postfix-ldap is missing: run scripts/setup.sh test")
    assert compare(p, f"ldap:{tmp_path}/{name}.cf", KEYS + ["alias@domain.com", "nowhere.example", "x@nowhere.example", "odd*(name)\\@domain.com"]) != ""


def test_all_of_it_together(dns, db, tmp_path_factory):
    """iRedMail's main.cf lines with its own files: login, sender check, user's and domain's relay, backup MX."""
    cert = make_cert(tmp_path_factory.mktemp("cert"), "mta.example")
    cert[1].chmod(0o644)
    user, domain, direct = FakeRelay(), FakeRelay(), FakeRelay()
    db.run("DELETE FROM sender_relayhost")
    db.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[127.0.0.1]:{domain.port}'), ('user@domain.com', '[127.0.0.1]:{user.port}');"
           f"UPDATE domain SET transport = 'relay:[127.0.0.1]:{direct.port}' WHERE domain = 'backup.com'")
    maps = lambda *names: "".join(f"    proxy:{db.type}:{{dir}}/{n}.cf\n" for n in names)
    main = (base(cert) + f"recipient_delimiter = +\nmydestination = $myhostname\naccounts_store = {db.type}:{{dir}}/accounts.cf\n"
            "transport_maps =\n" + maps("transport_maps_user", "transport_maps_maillist", "transport_maps_domain") +
            "sender_dependent_relayhost_maps =\n" + maps("sender_dependent_relayhost_maps") + "smtpd_sender_login_maps =\n" + maps("sender_login_maps") +
            "relay_domains =\n    $mydestination\n" + maps("relay_domains") +
            "smtpd_sender_restrictions = reject_sender_login_mismatch, permit_mynetworks, permit_sasl_authenticated\n")
    files = {f"{n}.cf": servers.table_file(db, query_of(db, n)) for n in QUERIES} | {"accounts.cf": servers.store_file(db)}
    with Posthouse(main, dns=dns, files=files) as p:
        with p.client() as c:
            c.starttls()
            c.cmd("EHLO x")
            assert login(c, "user@domain.com", SECRET).startswith("235")
            assert c.mail("user@domain.com", ["b@elsewhere.example"]).startswith("250")
            assert c.mail("o'neil@domain.com", ["b@elsewhere.example"]).startswith("553 5.7.1 <o'neil@domain.com>: Sender address rejected: not owned by user")
        with p.client() as c:
            assert login(c, "o'neil@domain.com", SECRET, "LOGIN").startswith("235")
            assert c.mail("o'neil@domain.com", ["b@elsewhere.example"]).startswith("250")
        with p.client() as c:
            assert c.mail("stranger@x.example", ["b@backup.com"]).startswith("250"), "backup MX"
            assert c.mail("stranger@x.example", ["b@elsewhere.example"]).startswith("554 5.7.1")
            c.cmd("RSET")
            assert c.mail("user@domain.com", ["b@backup.com"]).startswith("553 5.7.1 <user@domain.com>: Sender address rejected: not logged in")
        wait_for(lambda: len(user.mails) == len(domain.mails) == len(direct.mails) == 1)
        out = p.run("explain", "o'neil@domain.com").stdout
        assert "account='o''neil@domain.com'" in out and f"[127.0.0.1]:{domain.port}" in out
    for r in (user, domain, direct):
        r.stop()


# -- TLS to the servers, and several of them --


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1 and localhost that the servers use and the tables trust."""
    import pathlib
    import tempfile
    d = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-ca-"))  # the servers' users must get there
    d.chmod(0o755)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", d / "key.pem", "-out", d / "cert.pem"], check=True, capture_output=True)
    (d / "key.pem").chmod(0o644)
    yield d
    import shutil
    shutil.rmtree(d)


def test_mysql_over_tls(authority, tmp_path):
    class Tls(servers.MariaDb):
        def start(self, argv):
            super().start([*argv, f"--ssl-cert={authority}/cert.pem", f"--ssl-key={authority}/key.pem"])
    db = Tls()
    db.run("ALTER USER vmail@'127.0.0.1' REQUIRE SSL; INSERT INTO sender_relayhost (account, relayhost) VALUES ('@d.com', 'x')")
    other = make_cert(tmp_path)[0]
    p = Posthouse("", directory=tmp_path)
    ask = lambda **more: (tmp_path / "t.cf").write_text(servers.table_file(db, QUERIES["sender_dependent_relayhost_maps"], **more)) and p.run(
        "-q", "@d.com", f"mysql:{tmp_path}/t.cf", face="postmap")
    assert ask().returncode == 1  # in clear: the server refuses
    assert ask(tls_CAfile=f"{authority}/cert.pem", tls_verify_cert="yes").stdout == "x\n"
    assert ask(tls_CAfile=other, tls_verify_cert="yes").returncode == 1
    assert ask(tls_CAfile=f"{authority}/cert.pem").stdout == "x\n"
    db.stop()


def test_pgsql_over_tls(authority, tmp_path):
    db = servers.Postgres()
    key = db.dir / "data/server.key"
    key.write_text((authority / "key.pem").read_text())
    key.chmod(0o600)
    (db.dir / "data/server.crt").write_text((authority / "cert.pem").read_text())
    for f in ("server.key", "server.crt"):
        if db.as_user:
            os.chown(db.dir / "data" / f, db.as_user["user"], db.as_user["group"])
    (db.dir / "data/pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    db.run("ALTER SYSTEM SET ssl = on")
    db.run("SELECT pg_reload_conf()")
    db.run("INSERT INTO sender_relayhost (account, relayhost) VALUES ('@d.com', 'x')")
    p = Posthouse("", directory=tmp_path)
    from urllib.parse import quote
    uri = f"postgresql://vmail:{quote(servers.PASSWORD)}@127.0.0.1:{db.port}/vmail?sslmode=MODE&sslrootcert=CA"

    def ask(mode, ca):
        (tmp_path / "t.cf").write_text(f"hosts = {uri.replace('MODE', mode).replace('CA', ca)}\nquery = {QUERIES['sender_dependent_relayhost_maps']}\n")
        return p.run("-q", "@d.com", f"pgsql:{tmp_path}/t.cf", face="postmap")
    wait_for(lambda: ask("verify-full", f"{authority}/cert.pem").stdout == "x\n")
    assert ask("disable", "").returncode == 1
    bad = ask("verify-full", str(make_cert(tmp_path)[0]))
    assert bad.returncode == 1 and servers.PASSWORD not in bad.stderr
    db.stop()


def test_ldap_over_tls_and_sasl(authority, tmp_path):
    import test_ldap

    class Tls(servers.Slapd):
        def __init__(self):
            super().__init__()
            conf = self.dir / "slapd.conf"
            conf.write_text(conf.read_text().replace("database mdb", f"TLSCertificateFile {authority}/cert.pem\nTLSCertificateKeyFile {authority}/key.pem\n"
                                                     "security simple_bind=1\ndatabase mdb"))
            self.down()
            self.up()

        def up(self):
            self.start(["/usr/sbin/slapd", "-d", "0", "-f", self.dir / "slapd.conf", "-h", f"ldap://127.0.0.1:{self.port}"])

        def run(self, ldif, check=True, tool="ldapmodify"):
            os.environ["LDAPTLS_REQCERT"] = "never"
            try:
                extra = [] if not (self.dir / "slapd.conf").read_text().count("simple_bind=1") else ["-ZZ"]
                args = [tool if check else "ldapwhoami", *extra, "-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", f"cn=Manager,{SUFFIX}", "-w", "secret"]
                return subprocess.run(args, input=ldif if check else None, check=check, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            finally:
                del os.environ["LDAPTLS_REQCERT"]
    db = Tls()
    db.change(test_ldap.DOMAIN_DN, "senderRelayHost", "[x]:25")
    p = Posthouse("", directory=tmp_path)
    text = test_ldap.HEAD.format(port=db.port, password=servers.PASSWORD) + test_ldap.DOMAIN

    def ask(**more):
        t = "".join(line + "\n" for line in text.splitlines() if line.split("=")[0].strip() not in more)
        (tmp_path / "t.cf").write_text(t + "".join(f"{k} = {v}\n" for k, v in more.items()))
        return p.run("-q", "@mydomain.com", f"ldap:{tmp_path}/t.cf", face="postmap")
    assert ask().returncode == 1  # the server wants TLS for passwords
    trust = dict(start_tls="yes", tls_ca_cert_file=f"{authority}/cert.pem", tls_require_cert="yes")
    assert ask(**trust).stdout == "[x]:25\n"
    assert ask(**(trust | dict(tls_ca_cert_file=make_cert(tmp_path)[0]))).returncode == 1
    bad = ask(bind="sasl", sasl_mechs="NOSUCH", **trust)
    assert bad.returncode == 1 and servers.PASSWORD not in bad.stderr
    assert ask(bind="what").returncode == 1
    db.stop()


def test_hosts_are_tried_in_turn(db, tmp_path):
    """A dead host among several: the others answer, and soon it is not asked any more."""
    from kit import free_port
    p = Posthouse("", directory=tmp_path)
    text = servers.table_file(db, "SELECT 'x'").replace(f"127.0.0.1:{db.port}", f"127.0.0.1:{free_port()}, inet:127.0.0.1:{db.port} 127.0.0.1:{free_port()}")
    (tmp_path / "t.cf").write_text(text)
    for _ in range(3):
        assert p.run("-q", "k", f"{db.type}:{tmp_path}/t.cf", face="postmap").stdout == "x\n"
    if db.type == "mysql":
        (tmp_path / "t.cf").write_text(servers.table_file(db, "SELECT 'x'").replace(f"127.0.0.1:{db.port}", f"unix:{db.dir}/sock").replace("user        = vmail", "user = root")
                                       .replace(f"password    = {servers.PASSWORD}", "password ="))
        assert p.run("-q", "k", f"{db.type}:{tmp_path}/t.cf", face="postmap").stdout == "x\n"


# -- credentials in SQL --


def test_password_table_in_sql_and_accounts_at_one_relay(dns, db):
    """Each sender by his own account at the same relay host at the same time; nobody by another's."""
    users = {f"u{i}": f"p:{i}" for i in range(8)}
    relay = FakeRelay(auth=("PLAIN", "LOGIN"), need_auth=True, users=users, delay=0.01)
    db.run("CREATE TABLE relay_passwords (k VARCHAR(255), v VARCHAR(255))")
    db.run("INSERT INTO relay_passwords VALUES " + ",".join(f"('s{i}@own.example', 'u{i}:p:{i}')" for i in range(4)) +
           ", ('@dom.example', 'u4:p:4'), ('relay.server', 'u5:p:5')")
    if db.type == "pgsql":
        db.run("GRANT SELECT ON relay_passwords TO vmail")
    main = (f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
            f"smtp_sasl_password_maps = proxy:{db.type}:{{dir}}/pw.cf\nsmtp_sender_dependent_authentication = yes\nrecipient_delimiter = +\n"
            "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n")
    with Posthouse(main, dns=dns, files={"pw.cf": servers.table_file(db, "SELECT v FROM relay_passwords WHERE k = '%s'")}) as p:
        senders = [f"s{i % 4}@own.example" for i in range(40)] + [f"x{i}@dom.example" for i in range(10)] + ["other@else.example"] * 5 + [""] * 5 + ["s1+tag@own.example"] * 3
        with p.client() as c:
            for s in senders:
                assert c.mail(s).startswith("250")
        relay.wait_mails(len(senders))
        want = lambda s: re.sub(r"s(\d).*", r"u\1", s) if "own" in s else "u4" if "dom" in s else "u5"
        for session in relay.sessions:
            for m in session.mails:
                sender = re.search(r"<(.*?)>", m["from"])[1]
                assert m["auth"][1] == want(sender), (sender, m["auth"])
        assert not any(v.split(":", 1)[1] in p.log() for v in ("u0:p:0-secret",))
        db.down()
        assert p.send("late@dom.example").startswith("250")
        p.wait_log(r"dsn=4\.3\.0, status=deferred \(local data error while talking to relay\.server")
        db.up()
        wait_for(lambda: len(relay.mails) == len(senders) + 1)
        assert all(m["auth"] for m in relay.mails)
    relay.stop()
