"""Real database servers for the tests: started in a directory of their own, on free loopback ports."""
import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

from kit import free_port, wait_for

SENDER_RELAYHOST = """
CREATE TABLE sender_relayhost (
    id {serial} PRIMARY KEY,
    account VARCHAR(255) NOT NULL DEFAULT '',
    relayhost VARCHAR(255) NOT NULL DEFAULT '');
CREATE UNIQUE INDEX idx_sender_relayhost_account ON sender_relayhost (account);
"""
PASSWORD = "pa$$word#1"
# iRedMail's accounts as far as sending goes, with its names, types and defaults.
ACCOUNTS = """
CREATE TABLE domain (domain VARCHAR(255) NOT NULL DEFAULT '' PRIMARY KEY, description TEXT,
    transport VARCHAR(255) NOT NULL DEFAULT 'dovecot', backupmx {flag} NOT NULL DEFAULT 0, settings TEXT,
    modified {time} NOT NULL DEFAULT '1970-01-01 01:01:01', active {flag} NOT NULL DEFAULT 1);
CREATE TABLE mailbox (username VARCHAR(255) NOT NULL PRIMARY KEY, password VARCHAR(255) NOT NULL DEFAULT '',
    name VARCHAR(255) NOT NULL DEFAULT '', domain VARCHAR(255) NOT NULL DEFAULT '',
    transport VARCHAR(255) NOT NULL DEFAULT '', isadmin {flag} NOT NULL DEFAULT 0, isglobaladmin {flag} NOT NULL DEFAULT 0,
    enablesmtp {flag} NOT NULL DEFAULT 1, enablesmtpsecured {flag} NOT NULL DEFAULT 1, allow_nets TEXT DEFAULT NULL,
    created {time} NOT NULL DEFAULT '1970-01-01 01:01:01', modified {time} NOT NULL DEFAULT '1970-01-01 01:01:01',
    active {flag} NOT NULL DEFAULT 1);
CREATE INDEX idx_mailbox_domain ON mailbox (domain);
CREATE TABLE admin (username VARCHAR(255) NOT NULL PRIMARY KEY, password VARCHAR(255) NOT NULL DEFAULT '',
    created {time} NOT NULL DEFAULT '1970-01-01 01:01:01', active {flag} NOT NULL DEFAULT 1);
CREATE TABLE domain_admins (username VARCHAR(255) NOT NULL DEFAULT '', domain VARCHAR(255) NOT NULL DEFAULT '', active {flag} NOT NULL DEFAULT 1,
    PRIMARY KEY (username, domain));
"""
ADMIN = "vmail-admin's"


def ids(user):
    """Arguments that make subprocess run as user, when we are root."""
    if os.geteuid() != 0:
        return {}
    p = pwd.getpwnam(user)
    return {"user": p.pw_uid, "group": p.pw_gid, "extra_groups": []}


class Server:
    """A server process with its files; down() and up() again keep its port and its data."""

    def __init__(self, user):
        self.port = free_port()
        self.as_user = ids(user)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-db-"))
        self.dir.chmod(0o755)
        if self.as_user:
            os.chown(self.dir, self.as_user["user"], self.as_user["group"])
        self.log = open(self.dir / "log", "ab")
        self.proc = self.cert = self.key = None

    def start(self, argv):
        self.proc = subprocess.Popen(argv, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd=self.dir,
                                     **self.as_user)
        wait_for(self.answers, 60, 0.05)

    def answers(self):
        """the database server's answer"""
        if self.proc.poll() is not None:
            raise AssertionError((self.dir / "log").read_text()[-2000:])
        return self.run("SELECT 1", check=False)

    def down(self):
        self.proc.send_signal(signal.SIGKILL)
        self.proc.wait()

    def certify(self):
        """A self-signed certificate for 127.0.0.1 in its directory; goes up again with it."""
        self.cert, self.key = self.dir / "cert.pem", self.dir / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.key, "-out", self.cert], check=True, capture_output=True)
        if self.as_user:
            os.chown(self.key, self.as_user["user"], self.as_user["group"])
        self.key.chmod(0o600)
        self.cert.chmod(0o644)
        self.down()
        self.up()

    def stop(self):
        if self.proc.poll() is None:
            self.down()
        self.log.close()
        shutil.rmtree(self.dir)


class MariaDb(Server):
    type = "mysql"

    def __init__(self):
        super().__init__("mysql")
        # A folder of its own for temporary files: each server that starts removes those of the others.
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={self.dir}/data", "--auth-root-authentication-method=normal",
                        "--skip-test-db"], check=True, stdout=self.log, stderr=self.log, cwd=self.dir,
                       env=dict(os.environ, TMPDIR=str(self.dir)), **self.as_user)
        self.up()
        self.run(f"CREATE DATABASE vmail CHARACTER SET utf8mb4; CREATE USER vmail@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';"
                 f"GRANT SELECT ON vmail.* TO vmail@'127.0.0.1'; CREATE USER vmailadmin@'127.0.0.1' IDENTIFIED BY '{ADMIN.replace(chr(39), chr(39) * 2)}';"
                 f"GRANT SELECT,INSERT,DELETE,UPDATE ON vmail.* TO vmailadmin@'127.0.0.1';")
        self.run(SENDER_RELAYHOST.format(serial="BIGINT AUTO_INCREMENT"))
        self.run(ACCOUNTS.format(flag="TINYINT(1)", time="DATETIME"))

    def up(self):
        tls = [f"--ssl-cert={self.cert}", f"--ssl-key={self.key}"] if self.cert else []
        self.start(["/usr/sbin/mariadbd", "--no-defaults", *tls, f"--datadir={self.dir}/data", f"--socket={self.dir}/sock",
                    f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={self.dir}/pid",
                    "--innodb-buffer-pool-size=16M", f"--tmpdir={self.dir}"])

    def run(self, sql, check=True):
        db = [] if "CREATE DATABASE" in sql or not check else ["vmail"]
        return subprocess.run(["mariadb", "--no-defaults", f"--socket={self.dir}/sock", "-u", "root", "-N", "-B", *db, "-e", sql],
                              check=check, stdout=subprocess.PIPE, stderr=None if check else subprocess.DEVNULL, text=True).stdout


class Postgres(Server):
    type = "pgsql"
    bin = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1:]

    def __init__(self):
        super().__init__("postgres")
        subprocess.run([self.bin[0] / "initdb", "-D", self.dir / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
                        "--no-sync"], check=True, stdout=self.log, stderr=self.log, cwd=self.dir, **self.as_user)
        self.up()
        self.run("CREATE DATABASE vmail", db="postgres")
        self.run(SENDER_RELAYHOST.format(serial="SERIAL"))
        self.run(ACCOUNTS.format(flag="INT2", time="TIMESTAMP"))
        admin = ADMIN.replace("'", "''")
        self.run(f"CREATE USER vmail PASSWORD '{PASSWORD}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO vmail;"
                 f"CREATE USER vmailadmin PASSWORD '{admin}'; GRANT SELECT,INSERT,DELETE,UPDATE ON ALL TABLES IN SCHEMA public TO vmailadmin;"
                 "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO vmailadmin")

    def up(self):
        host = "hostssl" if self.cert else "host"
        (self.dir / "data/pg_hba.conf").write_text(f"local all all trust\n{host} all all 127.0.0.1/32 scram-sha-256\n")
        tls = ["-c", "ssl=on", "-c", f"ssl_cert_file={self.cert}", "-c", f"ssl_key_file={self.key}"] if self.cert else []
        self.start([self.bin[0] / "postgres", "-D", self.dir / "data", "-p", str(self.port), "-k", str(self.dir),
                    "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", *tls])

    def run(self, sql, check=True, db="vmail"):
        return subprocess.run(["psql", "-h", self.dir, "-p", str(self.port), "-U", "postgres", "-d", db if check else "postgres", "-qAt",
                               "-v", "ON_ERROR_STOP=1", "-c", sql], check=check, stdout=subprocess.PIPE,
                              stderr=None if check else subprocess.DEVNULL, text=True).stdout

    @contextlib.contextmanager
    def locked(self, sql):
        """The rows that are asked for FOR UPDATE are changed by nobody meanwhile."""
        with subprocess.Popen(["psql", "-h", self.dir, "-p", str(self.port), "-U", "postgres", "-d", "vmail", "-qAt"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            other.stdin.write(f"BEGIN; {sql};\n")
            other.stdin.flush()
            other.stdout.readline()
            try:
                yield
            finally:
                other.stdin.close()


class Sqlite:
    """The same shape, for a file."""
    type = "sqlite"

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-db-"))
        self.dir.chmod(0o755)
        self.run(SENDER_RELAYHOST.format(serial="INTEGER"))
        self.run(ACCOUNTS.format(flag="TINYINT(1)", time="DATETIME"))

    def run(self, sql, check=True):
        with sqlite3.connect(self.dir / "vmail.db", 10) as db:
            if sql.startswith("SELECT"):
                return "".join("\t".join(map(str, row)) + "\n" for row in db.execute(sql))
            db.executescript(sql)

    def down(self):
        (self.dir / "vmail.db").rename(self.dir / "away")

    def up(self):
        (self.dir / "away").rename(self.dir / "vmail.db")

    def stop(self):
        shutil.rmtree(self.dir)


def table_file(server, query, **more):
    """A table file as iRedMail writes it."""
    if server.type == "sqlite":
        head = f"dbpath = {server.dir}/vmail.db\n"
    else:
        head = f"hosts       = 127.0.0.1:{server.port}\nuser        = vmail\npassword    = {PASSWORD}\ndbname      = vmail\n"
    return head + f"query       = {query}\n" + "".join(f"{k} = {v}\n" for k, v in more.items())


def store_file(server):
    """How the accounts store is reached: iRedMail's administrator of vmail, or of the tree."""
    if server.type == "ldap":
        return (f"server_host = 127.0.0.1:{server.port}\nversion = 3\nbind_dn = cn=vmailadmin,{SUFFIX}\nbind_pw = {ADMIN}\n"
                f"search_base = o=domains,{SUFFIX}\n")
    return f"hosts = 127.0.0.1:{server.port}\nuser = vmailadmin\npassword = {ADMIN}\ndbname = vmail\n"


def add_admin(server, mail, stored, *domains):
    """An administrator of his own: of these domains, or of everything."""
    if server.type == "ldap":
        glob = "" if domains else "domainGlobalAdmin: yes\n"
        server.run(f"dn: mail={mail},o=domainAdmins,{SUFFIX}\nobjectClass: mailAdmin\nmail: {mail}\naccountStatus: active\n{glob}userPassword: {stored}\n",
                   tool="ldapadd")
        for d in domains:
            server.run(f"dn: domainName={d},o=domains,{SUFFIX}\nchangetype: modify\nadd: domainAdmin\ndomainAdmin: {mail}\n")
        return
    q = lambda v: "'" + str(v).replace("'", "''") + "'"
    server.run(f"INSERT INTO admin (username, password) VALUES ({q(mail)}, {q(stored)})")
    for d in domains or ["ALL"]:
        server.run(f"INSERT INTO domain_admins (username, domain) VALUES ({q(mail)}, {q(d)})")


def add_user(server, mail, stored, **columns):
    """A domain if need be and a user, as iRedMail has them.  columns: mailbox's, or attributes."""
    domain = mail.split("@")[1]
    if server.type != "ldap":
        q = lambda v: "'" + str(v).replace("'", "''") + "'"
        if not server.run(f"SELECT 1 FROM domain WHERE domain = {q(domain)}"):
            server.run(f"INSERT INTO domain (domain) VALUES ({q(domain)})")
        names = ["username", "password", "domain", *columns]
        server.run(f"DELETE FROM mailbox WHERE username = {q(mail)}")
        server.run(f"INSERT INTO mailbox ({', '.join(names)}) VALUES ({', '.join(map(q, [mail, stored, domain, *columns.values()]))})")
        return
    base = f"domainName={domain},o=domains,{SUFFIX}"
    if not server.has(base):
        server.run(f"dn: {base}\nobjectClass: mailDomain\ndomainName: {domain}\naccountStatus: active\nenabledService: mail\n\n"
                   f"dn: ou=Users,{base}\nobjectClass: organizationalUnit\nou: Users\n", tool="ldapadd")
    dn = f"mail={mail},ou=Users,{base}"
    if server.has(dn):
        server.run(f"dn: {dn}\nchangetype: delete\n")
    attributes = {"accountStatus": "active", "enabledService": ["mail", "smtp", "smtpsecured"], "userPassword": stored} | columns
    lines = [f"{k}: {x}" for k, v in attributes.items() for x in (v if isinstance(v, list) else [v])]
    server.run(f"dn: {dn}\nobjectClass: inetOrgPerson\nobjectClass: mailUser\nmail: {mail}\nuid: u\ncn: u\nsn: u\n" + "\n".join(lines) + "\n",
               tool="ldapadd")


# iRedMail's schema: what relaying needs of it, under its own object identifiers.
SCHEMA = """
attributetype ( 1.3.6.1.4.1.32349.1.2.1.1 NAME 'domainName' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{320} )
attributetype ( 1.3.6.1.4.1.32349.1.2.1.2 NAME 'mtaTransport' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.32349.1.2.1.3 NAME 'domainStatus' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.3.6.1.4.1.32349.1.2.1.4 NAME 'domainAdmin' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.3.6.1.4.1.32349.1.2.1.5 NAME 'domainGlobalAdmin' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.32349.1.2.2.20 NAME 'accountSetting' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.3.6.1.4.1.32349.1.2.1.6 NAME 'domainBackupMX' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.32349.1.2.1.19 NAME 'domainAliasName' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.3.6.1.4.1.32349.1.2.2.9 NAME 'accountStatus' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.32349.1.2.2.13 NAME 'enabledService' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.3.6.1.4.1.32349.1.2.2.19 NAME 'shadowAddress' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
attributetype ( 1.3.6.1.4.1.32349.1.2.2.26 NAME 'senderRelayHost' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{255} SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.32349.1.2.2.25 NAME 'allowNets' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15{1024} SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.32349.1.2.4.1 NAME 'mailDomain' SUP top STRUCTURAL MUST ( domainName )
  MAY ( mtaTransport $ enabledService $ domainBackupMX $ accountStatus $ domainAliasName $ senderRelayHost $
    cn $ domainAdmin $ accountSetting ) )
objectclass ( 1.3.6.1.4.1.32349.1.2.4.2 NAME 'mailAdmin' SUP top STRUCTURAL MUST ( mail ) MAY ( userPassword $ accountStatus $ domainGlobalAdmin $ cn ) )
objectclass ( 1.3.6.1.4.1.32349.1.2.4.3 NAME 'mailUser' SUP top AUXILIARY MUST ( mail $ uid )
  MAY ( shadowAddress $ accountStatus $ enabledService $ mtaTransport $ senderRelayHost $ domainStatus $ allowNets $ userPassword $ domainGlobalAdmin ) )
"""
SUFFIX = "dc=example,dc=com"
TREE = """
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: example

dn: cn=vmail,dc=example,dc=com
objectClass: person
cn: vmail
sn: vmail
userPassword: {password}

dn: cn=vmailadmin,dc=example,dc=com
objectClass: person
cn: vmailadmin
sn: vmailadmin
userPassword: {admin}

dn: o=domains,dc=example,dc=com
objectClass: organization
o: domains

dn: o=domainAdmins,dc=example,dc=com
objectClass: organization
o: domainAdmins

dn: domainName=mydomain.com,o=domains,dc=example,dc=com
objectClass: mailDomain
domainName: mydomain.com
domainAliasName: alias.com
accountStatus: active
enabledService: mail

dn: ou=Users,domainName=mydomain.com,o=domains,dc=example,dc=com
objectClass: organizationalUnit
ou: Users

dn: mail=user@mydomain.com,ou=Users,domainName=mydomain.com,o=domains,dc=example,dc=com
objectClass: inetOrgPerson
objectClass: mailUser
mail: user@mydomain.com
uid: user
cn: user
sn: user
accountStatus: active
enabledService: mail
"""


class Slapd(Server):
    type = "ldap"
    more = ""  # of slapd.conf

    def __init__(self):
        super().__init__("openldap")
        (self.dir / "iredmail.schema").write_text(SCHEMA)
        (self.dir / "data").mkdir()
        if self.as_user:
            os.chown(self.dir / "data", self.as_user["user"], self.as_user["group"])
        include = "".join(f"include /etc/ldap/schema/{s}.schema\n" for s in ("core", "cosine", "inetorgperson"))
        (self.dir / "slapd.conf").write_text(
            f"{include}include {self.dir}/iredmail.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {self.dir}/pid\n"
            f"disallow bind_anon\nrequire LDAPv3\ndatabase mdb\nsuffix {SUFFIX}\nrootdn cn=Manager,{SUFFIX}\nrootpw secret\n"
            f"directory {self.dir}/data\naccess to attrs=userPassword by dn.exact=cn=vmailadmin,{SUFFIX} write by anonymous auth\n"
            f"access to * by dn.exact=cn=vmailadmin,{SUFFIX} write by users read\n{self.more}")
        self.up()
        self.run(TREE.format(password=PASSWORD, admin=ADMIN), tool="ldapadd")

    def up(self):
        urls = f"ldap://127.0.0.1:{self.port}"
        if self.cert:
            self.tls_port = free_port()
            urls += f" ldaps://127.0.0.1:{self.tls_port}"
            conf = self.dir / "slapd.conf"
            conf.write_text(f"TLSCertificateFile {self.cert}\nTLSCertificateKeyFile {self.key}\n" + conf.read_text())
        self.start(["/usr/sbin/slapd", "-d", "0", "-f", self.dir / "slapd.conf", "-h", urls])

    def run(self, ldif, check=True, tool="ldapmodify"):
        if not check:
            return subprocess.run(["ldapwhoami", "-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", f"cn=Manager,{SUFFIX}", "-w", "secret"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        return subprocess.run([tool, "-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", f"cn=Manager,{SUFFIX}", "-w", "secret"],
                              input=ldif, check=True, stdout=subprocess.PIPE, text=True).stdout

    def has(self, dn):
        return subprocess.run(["ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{self.port}", "-D", f"cn=Manager,{SUFFIX}", "-w", "secret",
                               "-b", dn, "-s", "base", "dn"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip() != ""

    def change(self, dn, attribute, value):
        """Sets an attribute; None takes it away."""
        what = f"replace: {attribute}\n" + (f"{attribute}: {value}\n" if value is not None else "")
        self.run(f"dn: {dn}\nchangetype: modify\n{what}")
