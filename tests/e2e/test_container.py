"""posthouse container: a configuration made of the environment, by the names that users of other images know."""
import base64
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import servers
from kit import POSTHOUSE, ROOT, SLOW, Client, FakeRelay, free_port, free_ports, make_cert, server_tls, wait_for
from test_auth import SECRET, STORED, login
from test_iredmail import QUERIES

PASSWORD = "p4ss wörd$with\"everything'"


def become():
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


class Container:
    """Its first process, as the user that an image names, with one folder to write to."""

    def __init__(self, **environment):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-container-"))
        self.volume = self.dir / "volume"
        self.volume.mkdir()
        if os.geteuid() == 0:
            os.chown(self.volume, pwd.getpwnam("nobody").pw_uid, -1)
        self.dir.chmod(0o755)
        self.environment, self.proc = environment, None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def env(self, path):
        base = {"PATH": path, "MAIL_CONFIG": f"{self.volume}/config", "ASAN_OPTIONS": "detect_leaks=0"}
        return {**base, **{name: str(value) for name, value in self.environment.items()}}

    def make(self):
        """The configuration alone: there is no daemon to become."""
        r = subprocess.run([str(POSTHOUSE), "container"], env=self.env("/nonexistent"), capture_output=True, text=True, preexec_fn=become)
        made = re.sub(r"posthouse: fatal: \S+/posthoused: No such file or directory\n", "", r.stderr)
        return (self.volume / "config/main.cf").read_text() if not made else made

    def start(self):
        self.port, self.other = free_ports(2)
        self.environment.update(POSTHOUSE_PORTS=f"{self.port} {self.other}", POSTFIX_inet_interfaces="127.0.0.1",
                                POSTFIX_smtpd_peername_lookup="no", POSTFIX_inet_protocols="ipv4")
        self.out = open(self.dir / "out", "ab")
        self.proc = subprocess.Popen([str(POSTHOUSE), "container"], env=self.env(f"{POSTHOUSE.parent}:/usr/sbin:/usr/bin:/bin"),
                                     stdout=self.out, stderr=self.out, stdin=subprocess.DEVNULL, preexec_fn=become)
        wait_for(lambda: self.command("container", "health").returncode == 0 or self.proc.poll() is not None)
        assert self.proc.poll() is None, self.log()

    def stop(self):
        if self.proc is None:
            return None
        self.proc.send_signal(signal.SIGTERM)
        rc = self.proc.wait(60 * SLOW)
        self.out.close()
        self.proc = None
        return rc

    def command(self, *args):
        return subprocess.run([str(POSTHOUSE), *args], env=self.env(os.environ["PATH"]), capture_output=True, text=True, preexec_fn=become)

    def log(self):
        return (self.dir / "out").read_text()

    def processes(self):
        out = subprocess.run(["pgrep", "-P", str(self.proc.pid)], capture_output=True, text=True).stdout
        return [self.proc.pid, *map(int, out.split())]


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    tls = server_tls(*make_cert(tmp_path_factory.mktemp("cert"), "relay.example"))
    with FakeRelay(auth=["PLAIN"], need_auth=True, users={"us": PASSWORD}, tls=tls, tls_first=True) as r:
        yield r


def test_mail_goes_through_and_no_secret_is_seen(relay):
    with Container(RELAYHOST=f"[127.0.0.1]:{relay.port}", RELAYHOST_USERNAME="us",
                   ALLOWED_SENDER_DOMAINS="shop.example office.example", SMTPD_SASL_USERS="ann@far.example:one secret,bob:two:secret",
                   POSTFIX_myhostname="mail.shop.example", RELAY_PORT_25_TCP_ADDR="10.0.0.1", SMTP_PORT="tcp://10.0.0.2:25") as c:
        c.environment["RELAYHOST_PASSWORD_FILE"] = c.dir / "login"
        (c.dir / "login").write_text(PASSWORD + "\n")
        c.start()
        for port in (c.port, c.other):
            with Client(port) as client:
                assert client.mail(sender="a@shop.example").startswith("250")
                assert client.cmd("MAIL FROM:<b@elsewhere.example>").startswith("250")
                assert client.cmd("RCPT TO:<x@y.example>").startswith("554")
        for user, password, right in (("ann@far.example", "one secret", True), ("bob", "two:secret", True),
                                      ("bob@shop.example", "two:secret", True), ("bob", "two", False), ("ann", "one secret", False)):
            with Client(c.port) as client:
                word = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
                assert client.cmd(f"AUTH PLAIN {word}").startswith("235" if right else "535"), (user, password)
                if right:
                    assert client.mail(sender="b@elsewhere.example").startswith("250")
        assert all(m["auth"] == ("PLAIN", "us", PASSWORD) and m["tls"] for m in relay.wait_mails(5))
        for pid in c.processes():
            told = b"".join(pathlib.Path(f"/proc/{pid}/{what}").read_bytes() for what in ("cmdline", "environ"))
            assert b"RELAYHOST" not in told and b"SASL_USERS" not in told and b"secret" not in told
        assert c.stop() == 0
        lines = [json.loads(line) for line in c.log().splitlines()]
        assert all({"time", "host", "program", "pid", "message"} == set(line) for line in lines)
        assert any("status=sent" in line["message"] for line in lines) and "secret" not in c.log() and "p4ss" not in c.log()
        assert c.command("container", "health").returncode == 1


def test_the_volume_keeps_what_waits_and_the_environment_what_counts(relay):
    """A container that is made anew with other variables has the mail of the old one."""
    with Container(RELAYHOST=f"[127.0.0.1]:{free_port()}", smtp_user="old@shop.example:secret") as c:
        c.start()
        with Client(c.port) as client:
            assert client.mail(sender="a@shop.example", content="Subject: kept\r\n\r\nx\r\n").startswith("250")
        assert c.stop() == 0
        del c.environment["RELAYHOST"], c.environment["smtp_user"]
        c.environment.update(RELAY_HOST="127.0.0.1", RELAY_PORT=relay.port, RELAY_USER="us", RELAY_PASSWORD=PASSWORD,
                             SMTPD_SASL_USERS="new@shop.example:secret")
        c.start()
        assert c.command("queue", "flush").returncode == 0
        relay.wait_mail(b"kept")
        with Client(c.port) as client:
            old, new = [base64.b64encode(f"\0{who}@shop.example\0secret".encode()).decode() for who in ("old", "new")]
            assert client.cmd(f"AUTH PLAIN {old}").startswith("535") and client.cmd(f"AUTH PLAIN {new}").startswith("235")
        os.kill(c.processes()[1], signal.SIGSTOP)  # one of the parts
        os.kill(c.processes()[2], signal.SIGSTOP)
        assert c.command("container", "health").returncode == 1
        os.kill(c.processes()[1], signal.SIGCONT)
        os.kill(c.processes()[2], signal.SIGCONT)


MADE = [
    (dict(RELAYHOST="smtp.example.net:2525"), ["relayhost = smtp.example.net:2525", "smtp_tls_security_level = may"]),
    (dict(RELAYHOST="[2001:db8::7]:587", RELAYHOST_USERNAME="u", RELAYHOST_PASSWORD="x"),
     ["relayhost = [2001:db8::7]:587", "smtp_tls_security_level = encrypt", "smtp_sasl_auth_enable = yes"]),
    (dict(RELAYHOST="h.example", POSTFIX_smtp_tls_security_level="verify"), ["smtp_tls_security_level = verify"]),
    (dict(RELAYHOST="h.example", RELAYHOST_TLS_LEVEL="secure"), ["smtp_tls_security_level = secure"]),
    (dict(RELAY_HOST="h.example"), ["relayhost = [h.example]:25"]),
    (dict(RELAY_HOST="h.example", RELAY_PORT="465"), ["relayhost = [h.example]:465", "smtp_tls_wrappermode = yes"]),
    (dict(DEFAULT_RELAY_HOST="[h.example]:26"), ["relayhost = [h.example]:26"]),
    (dict(SMTP_SERVER="h.example", SERVER_HOSTNAME="desk.example", SMTP_NETWORKS="192.0.2.0/24"),
     ["relayhost = [h.example]:587", "myhostname = desk.example", "mynetworks = 127.0.0.0/8, [::1]/128, 10.0.0.0/8, 172.16.0.0/12, "
      "192.168.0.0/16, 192.0.2.0/24"]),
    (dict(MYNETWORKS="10.0.0.0/8 a$b.example"), ["mynetworks = 10.0.0.0/8 a$$b.example"]),
    (dict(maildomain="mail.example", smtp_user="a:b"), ["myhostname = mail.example", "smtpd_sasl_auth_enable = yes"]),
    (dict(POSTFIX_message_size_limit="5000"), ["message_size_limit = 5000"]),
    (dict(POSTFIX_RECIPIENT_DELIMITER="+"), ["recipient_delimiter = +"]),
    (dict(POSTFIX_own_thing="x", POSTFIX_myhostname="$own_thing.example"), ["own_thing = x", "myhostname = $own_thing.example"]),
    (dict(POSTFIX_mynetworks="10.1.0.0/16\n  10.2.0.0/16"), ["mynetworks = 10.1.0.0/16   10.2.0.0/16"]),
    (dict(LOG_FORMAT="plain"), ["log_format = postfix", "maillog_file = /dev/stdout"]),
    (dict(RELAYHOST=" [h.example]:26  "), ["relayhost = [h.example]:26"]),
    (dict(POSTFIX_PORT="tcp://10.0.0.9:25", POSTFIX_relayhost="[h.example]:26"), ["relayhost = [h.example]:26"]),
    (dict(RELAYHOST="", RELAY_USER="", TZ="UTC", HOME="/", POSTHOUSE_SERVICE_HOST="10.0.0.9"), ["log_format = json"]),
]
REFUSED = [
    (dict(RELAYHOSTS="h.example"), "RELAYHOSTS: no variable"),
    (dict(ALOWED_SENDER_DOMAINS="x.example"), "ALOWED_SENDER_DOMAINS: no variable"),
    (dict(RELAY_HOST="h.example", RELAY_USERNAME="u"), "RELAY_USERNAME: no variable"),
    (dict(RELAYHOST="a.example", RELAY_HOST="b.example"), "RELAY_HOST: RELAYHOST says already what relayhost is"),
    (dict(SMTP_SERVER="a.example", DEFAULT_RELAY_HOST="b.example"), "DEFAULT_RELAY_HOST: SMTP_SERVER says already"),
    (dict(RELAYHOST="a.example", POSTFIX_relayhost="b.example"), "RELAYHOST: POSTFIX_relayhost says already"),
    (dict(SERVER_HOSTNAME="a.example", maildomain="b.example"), "maildomain: SERVER_HOSTNAME says already"),
    (dict(SMTP_NETWORKS="10.9.0.0/16", MYNETWORKS="10.8.0.0/16"), "SMTP_NETWORKS: MYNETWORKS says already"),
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME="u"), "RELAYHOST_USERNAME: an account needs a password"),
    (dict(RELAYHOST="a.example", RELAYHOST_PASSWORD="p-secret"), "RELAYHOST_PASSWORD: a password needs an account"),
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME="u", RELAYHOST_PASSWORD="p-secret", RELAYHOST_PASSWORD_FILE="/dev/null"),
     "RELAYHOST_PASSWORD: it is set, and so is"),
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME="u", RELAYHOST_PASSWORD_FILE="/nonexistent"), "RELAYHOST_PASSWORD_FILE: No such file"),
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME="u:v", RELAYHOST_PASSWORD="p-secret"), "RELAYHOST_USERNAME: ':'"),
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME="u", RELAYHOST_PASSWORD="p-secret "), "RELAYHOST_PASSWORD: more than"),
    (dict(RELAY_PASSWORD="p-secret"), "RELAY_PASSWORD: it needs RELAY_HOST"),
    (dict(SASL_RELAYHOST="b.example", RELAYHOST="a.example"), "SASL_RELAYHOST: there is no account"),
    (dict(RELAYHOST="[a.example"), "RELAYHOST: "),
    (dict(RELAY_HOST="a.example", RELAY_PORT="many"), "RELAY_HOST: "),
    (dict(POSTFIX_relayhots="a.example"), "POSTFIX_relayhots: there is no parameter"),
    (dict(POSTFIX_smtpd_milters="inet:x:1"), "smtpd_milters"),
    (dict(POSTFIX_message_size_limit="much"), "message_size_limit"),
    (dict(ALLOWED_SENDER_DOMAINS="a.example,b..example"), "ALLOWED_SENDER_DOMAINS: domains"),
    (dict(SMTPD_SASL_USERS="ann"), "SMTPD_SASL_USERS: name:password"),
    (dict(SMTPD_SASL_USERS="ann:p-secret,ann:q"), "SMTPD_SASL_USERS: "),
    (dict(SMTPD_SASL_USERS="a:b", smtp_user="c:d"), "smtp_user: SMTPD_SASL_USERS says already"),
    (dict(POSTHOUSE_PORTS="25 99999"), "POSTHOUSE_PORTS: numbers"),
    (dict(LOG_FORMAT="xml"), "LOG_FORMAT: json or plain"),
    # What would leave the container without its relay host, its account, its senders or its users.
    (dict(RELAYHOST=" \t"), "RELAYHOST: it has nothing but blanks"),
    (dict(ALLOWED_SENDER_DOMAINS=" "), "ALLOWED_SENDER_DOMAINS: it has nothing but blanks"),
    (dict(ALLOWED_SENDER_DOMAINS=" , ,"), "ALLOWED_SENDER_DOMAINS: there is no domain"),
    (dict(SMTPD_SASL_USERS=",\r\n,"), "SMTPD_SASL_USERS: there is no name:password"),
    (dict(POSTHOUSE_PORTS=", ,"), "POSTHOUSE_PORTS: there is no number"),
    (dict(RELAYHOST_TLS_LEVEL="encypt"), "RELAYHOST_TLS_LEVEL: none, may"),
    (dict(relayhost="h.example"), "relayhost: no variable"),
    (dict(Mynetworks="10.0.0.0/8"), "Mynetworks: no variable"),
    (dict(postfix_mynetworks="10.0.0.0/8"), "postfix_mynetworks: no variable"),
    (dict(POSTFIXMASTER_smtp__inet="x"), "POSTFIXMASTER_smtp__inet: master.cf is made"),
    (dict(POSTFIX_mynetworks="tcp://x", MYNETWORKS="10.0.0.0/8"), "MYNETWORKS: POSTFIX_mynetworks says already"),
    *[(dict(RELAYHOST="h.example", RELAYHOST_USERNAME="u", RELAYHOST_PASSWORD="p-secret", SASL_RELAYHOST=key), "SASL_RELAYHOST: one host")
      for key in ("a.example b", "#a.example", " a.example", "a.example\nb.example", "a.example,b.example", '"a.example')],
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME=" u", RELAYHOST_PASSWORD="p-secret"), "RELAYHOST_USERNAME: ':'"),
    (dict(RELAYHOST="a.example", RELAYHOST_USERNAME="u", RELAYHOST_PASSWORD="p-secret", POSTFIX_smtp_sasl_password_maps="texthash:/x"),
     "POSTFIX_smtp_sasl_password_maps: RELAYHOST_USERNAME needs"),
    (dict(SMTP_SERVER="a.example", SMTP_USERNAME="u", SMTP_PASSWORD="p-secret", POSTFIX_smtp_sasl_auth_enable="no"),
     "POSTFIX_smtp_sasl_auth_enable: SMTP_USERNAME needs"),
    (dict(ALLOWED_SENDER_DOMAINS="a.example", POSTFIX_smtpd_recipient_restrictions=""),
     "POSTFIX_smtpd_recipient_restrictions: ALLOWED_SENDER_DOMAINS needs"),
    (dict(smtp_user="u:p-secret", POSTFIX_smtpd_sasl_auth_enable="no"), "POSTFIX_smtpd_sasl_auth_enable: smtp_user needs"),
    (dict(SMTPD_SASL_USERS="u:p-secret", POSTFIX_accounts_store="sqlite:/x"), "POSTFIX_accounts_store: SMTPD_SASL_USERS needs"),
    (dict(MASQUERADED_DOMAINS="a.example"), "MASQUERADED_DOMAINS: addresses are not rewritten"),
    (dict(DKIM_AUTOGENERATE="1"), "DKIM_AUTOGENERATE: mail is not signed"),
    (dict(XOAUTH2_CLIENT_ID="x"), "XOAUTH2_CLIENT_ID: OAuth"),
    # What no host is called, and what all mail or all clients would wait for.
    *[(dict(SERVER_HOSTNAME=name), "SERVER_HOSTNAME: it is no host name")
      for name in ("relay host", "10.7.0.2", "grün.example", "a..b", "a;b")],
    (dict(maildomain="-relay.example"), "maildomain: it is no host name"),
    (dict(POSTFIX_myhostname="relay/host"), 'myhostname: "relay/host" is no host name'),
    (dict(POSTFIX_mydomain="one two"), 'mydomain: "one two" is no host name'),
    (dict(POSTFIX_relayhost="[a.example"), "relayhost: "),
    (dict(MYNETWORKS="10.7.0.1/8"), "MYNETWORKS"), (dict(SMTP_NETWORKS="10.7.0.0/33"), "SMTP_NETWORKS"),
    (dict(POSTFIX_smtp_tls_security_level="some"), "smtp_tls_security_level"),
]


@pytest.mark.parametrize("environment, lines", MADE, ids=lambda x: " ".join(x) if isinstance(x, dict) else "")
def test_what_a_variable_means(environment, lines):
    with Container(**environment) as c:
        made = c.make()
        for line in lines:
            assert f"\n{line}\n" in made, made


@pytest.mark.parametrize("environment, said", REFUSED, ids=lambda x: " ".join(x) if isinstance(x, dict) else "")
def test_what_is_refused_is_named(environment, said):
    with Container(**environment) as c:
        made = c.make()
        assert f"posthouse: fatal: {said}" in made or ("POSTFIX_" in str(environment) and said in made), made
        assert not (c.volume / "config/sasl_password").exists() or "POSTFIX_" in str(environment) or "SMTPD_SASL" in str(environment) \
            or "NETWORKS" in str(environment)
        assert "secret" not in made and "log_format" not in made


def test_an_account_is_for_each_host_of_a_list():
    with Container(RELAYHOST="[a.example]:587, b.example", RELAYHOST_USERNAME="us", RELAYHOST_PASSWORD=PASSWORD) as c:
        assert "\nrelayhost = [a.example]:587, b.example\n" in c.make()
        assert (c.volume / "config/sasl_password").read_text() == f"[a.example]:587 us:{PASSWORD}\nb.example us:{PASSWORD}\n"


def test_a_password_with_a_nul_is_not_cut():
    """As an editor saves it that writes UTF-16."""
    with Container(RELAYHOST="a.example", RELAYHOST_USERNAME="us") as c:
        (c.dir / "login").write_bytes("geheim".encode("utf-16-le"))
        c.environment["RELAYHOST_PASSWORD_FILE"] = c.dir / "login"
        assert "RELAYHOST_PASSWORD_FILE: the file has a NUL byte" in c.make()


def test_no_other_configuration_is_written_over():
    """The command may be given on a machine that is no container."""
    with Container(RELAYHOST="a.example") as c:
        (c.volume / "config").mkdir()
        c.volume.chmod(0o777), (c.volume / "config").chmod(0o777)
        for name in ("main.cf", "master.cf"):
            (c.volume / "config" / name).write_text("relayhost = [mine.example]\n")
        assert "it was not made by posthouse container" in c.make()
        assert sorted(f.name for f in (c.volume / "config").iterdir()) == ["main.cf", "master.cf"]
        assert {f.read_text() for f in (c.volume / "config").iterdir()} == {"relayhost = [mine.example]\n"}
        (c.volume / "config/main.cf").chmod(0)
        assert "config/main.cf: Permission denied" in c.make()
        (c.volume / "config/main.cf").unlink()
        c.make(), c.make()
        assert "\nrelayhost = a.example\n" in (c.volume / "config/main.cf").read_text()


def compose(name):
    """The environment that a compose file gives."""
    text = (ROOT / "packaging/container" / name).read_text()
    assert "read_only: true" in text and "cap_drop: [ALL]" in text and "queue:/var/lib/posthouse" in text
    block = text[text.index("environment:"):text.index("secrets:")]
    return dict(re.findall(r'^      (\w+): "?(.*?)"?$', block, re.M))


def test_beside_postfix(relay):
    environment = compose("compose.beside-postfix.yml")
    with Container(**environment) as c:
        (c.dir / "login").write_text(PASSWORD)
        c.environment.update(RELAYHOST=f"[127.0.0.1]:{relay.port}", RELAYHOST_USERNAME="us", RELAYHOST_PASSWORD_FILE=c.dir / "login")
        c.start()
        with Client(c.port) as client:
            assert client.mail(sender="beside@shop.example", content="Subject: beside\r\n\r\nx\r\n").startswith("250")
        assert relay.wait_mail(b"Subject: beside")["auth"][1] == "us"


def test_with_the_databases_of_iredmail(relay):
    """A user of the database logs in with the password that is there, and sends by the relay host that is there."""
    environment, db = compose("compose.iredmail.yml"), servers.MariaDb()
    try:
        servers.add_user(db, "user@domain.com", STORED["ssha512-8"][0])
        db.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@domain.com', '[127.0.0.1]:{relay.port}')")
        with Container(**environment) as c:
            tables = {name: servers.table_file(db, QUERIES[name]) for name in ("sender_dependent_relayhost_maps", "sender_login_maps")}
            tables["accounts"] = re.sub("query .*", "", tables["sender_login_maps"])
            for name, text in tables.items():
                (c.dir / f"{name}.cf").write_text(text)
            (c.dir / "login").write_text(PASSWORD)
            cert, key = make_cert(c.dir, "relay.mail.example.com")
            key.chmod(0o644)
            for name, value in environment.items():
                c.environment[name] = value.replace("/etc/posthouse/mysql", str(c.dir))
            c.environment.update(RELAYHOST=f"[127.0.0.1]:{relay.port}", RELAYHOST_USERNAME="us", RELAYHOST_PASSWORD_FILE=c.dir / "login",
                                 POSTFIX_smtpd_tls_cert_file=cert, POSTFIX_smtpd_tls_key_file=key)
            c.start()
            with Client(c.port) as client:
                assert "AUTH" not in client.ehlo
                client.starttls()
                client.cmd("EHLO client.example")
                assert login(client, "user@domain.com", SECRET).startswith("235")
                assert client.mail(sender="boss@domain.com").startswith("553")
            with Client(c.port) as client:
                client.starttls()
                client.cmd("EHLO client.example")
                login(client, "user@domain.com", SECRET)
                assert client.mail(sender="user@domain.com", content="Subject: database\r\n\r\nx\r\n").startswith("250")
            assert relay.wait_mail(b"Subject: database")["auth"][1] == "us"
            assert "sender_dependent_relayhost_maps" in c.command("explain", "user@domain.com").stdout
    finally:
        db.stop()


def test_each_variable_is_in_the_document():
    told = (ROOT / "docs/container.md").read_text()
    plan = (ROOT / "src/cli/container_plan.c").read_text()
    names = re.findall(r'^    \{"(\w+)", (?:NULL|"\w+")', plan, re.M)
    assert len(names) > 30
    for name in names:
        assert f"`{name}" in told, name


def test_a_volume_of_another_user_is_said():
    with Container() as c:
        c.volume.chmod(0o555)
        said = c.make()
        assert "Permission denied" in said and "has to belong to its user" in said
