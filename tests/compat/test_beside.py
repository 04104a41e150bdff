"""posthouse setup beside-postfix: a real Postfix with iRedMail's tables in MariaDB in front, Posthouse behind it, and back."""
import re
import shutil
import subprocess

import pytest
from kit import Client, FakeRelay, Posthouse, free_port, owner, wait_for
from pair import INSIDE, NameServer, Postfix

import servers

pytestmark = pytest.mark.skipif(bool(INSIDE), reason="the Postfix of another Debian has no tables in MariaDB")

RELAYHOSTS = "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"
DOMAINS = "SELECT domain FROM domain WHERE domain='%s' AND backupmx=0 AND active=1 LIMIT 1"
TRANSPORTS = "SELECT mailbox.transport FROM mailbox WHERE mailbox.username='%s' AND mailbox.transport<>'' AND mailbox.active=1"
ACCOUNTS = {"everybody": "pw-1", "office": "pw-2", "boss": "pw-3"}
FRONT = """mydestination = $myhostname
recipient_delimiter = +
message_size_limit = 15728640
virtual_mailbox_domains = proxy:mysql:{dir}/domains.cf
virtual_transport = smtp:[127.0.0.1]:%(mailbox)d
transport_maps = proxy:mysql:{dir}/transports.cf
relayhost = [127.0.0.1]:%(relay)d
sender_dependent_relayhost_maps = proxy:mysql:{dir}/relayhosts.cf
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:{dir}/sasl
smtp_sasl_security_options = noanonymous
smtp_sender_dependent_authentication = yes
smtp_tls_security_level = may
maximal_queue_lifetime = 3d
proxy_read_maps = $virtual_mailbox_domains $transport_maps $sender_dependent_relayhost_maps
"""
# What the tests need besides, as no administrator would write it.
OURS = """
queue_directory = {d}/spool
data_directory = {d}/data
maillog_file = {d}/maillog
mail_owner = {owner}
resolver_servers = {dns}@53
accounts_store = mysql:{d}/accounts.cf
"""


class House:
    """MariaDB, a relay host with three accounts, the users' mailboxes, Postfix in front, Posthouse behind."""

    def __init__(self, directory):
        self.db = servers.MariaDb()
        self.db.run("INSERT INTO domain (domain) VALUES ('domain.com')")
        for mail, more in (("user@domain.com", {}), ("boss@domain.com", {}), ("far@domain.com", {})):
            servers.add_user(self.db, mail, "x", **more)
        self.relay = FakeRelay(auth=("PLAIN",), need_auth=True, users=ACCOUNTS, dsn=True,
                               replies={"RCPT": lambda line: "550 5.1.1 no such user here" if "<no@" in line else None})
        self.mailbox = FakeRelay()
        hop = f"[127.0.0.1]:{self.relay.port}"
        self.hop = hop
        self.db.run("INSERT INTO sender_relayhost (account, relayhost) "
                    f"VALUES ('@domain.com', '{hop}'), ('boss@domain.com', '{hop}')")
        self.names = NameServer(directory, ["mta.example. 60 IN A 127.0.0.1"])
        self.postfix = Postfix(self.names)
        self.front = self.postfix.dir / "etc"
        files = {"sasl": f"{hop} everybody:pw-1\n@domain.com office:pw-2\nuser@domain.com office:pw-2\nboss@domain.com boss:pw-3\n"}
        for name, query in (("domains", DOMAINS), ("transports", TRANSPORTS), ("relayhosts", RELAYHOSTS)):
            (self.front / f"{name}.cf").write_text(servers.table_file(self.db, query))
        self.ports = {"mailbox": self.mailbox.port, "relay": self.relay.port}
        self.postfix.case(FRONT % self.ports, files, "")
        self.p = Posthouse("", dns=None)
        self.port = free_port()
        self.old = []
        for name in ("main.cf", "master.cf"):
            (self.p.dir / name).unlink()

    def setup(self, *words):
        return self.p.run("setup", "beside-postfix", "--postfix", self.front, "--port", self.port, *words)

    def complete(self):
        """What the command has written gets the places of a test."""
        (self.p.dir / "accounts.cf").write_text(servers.store_file(self.db))
        with open(self.p.dir / "main.cf", "a") as f:
            f.write(OURS.format(d=self.p.dir, owner=owner(), dns=self.names.address))
        self.p.port = self.port

    def postfix_is(self):
        command = ["postconf", "-c", self.front, "-h", "default_transport"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def send(self, sender, rcpt="friend@far.example", params="", rparams="", content=None):
        with Client(self.postfix.port) as c:
            reply = c.mail(sender, [rcpt], content, params, rparams)
        assert reply.startswith("250"), reply

    def new(self, relay):
        """What has come since clear(); sessions stay open from one test to the next."""
        return [m for m in relay.mails if not any(m is old for old in self.old)]

    def arrived(self, count):
        return wait_for(lambda: len(mails := self.new(self.relay)) >= count and mails, 30)

    def clear(self):
        self.old = self.relay.mails + self.mailbox.mails

    def stop(self):
        self.postfix.over()
        self.postfix.stop()
        if self.p.proc is not None:
            self.p.stop()
        shutil.rmtree(self.p.dir, ignore_errors=True)
        self.names.stop()
        self.relay.stop()
        self.mailbox.stop()
        self.db.stop()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    d = tmp_path_factory.mktemp("names")
    d.chmod(0o755)
    h = House(d)
    yield h
    h.stop()


def accounts(mails):
    return sorted((re.search(r"<(.*?)>", m["from"]).group(1), m["auth"][1]) for m in mails)


def test_written_applied_and_used(house):
    """The whole way: nothing is changed before it is asked for, nor while no Posthouse answers."""
    h = house
    before = (h.front / "main.cf").read_text()
    r = h.setup()
    assert r.returncode == 0, r.stderr
    assert f"default_transport = smtp:[127.0.0.1]:{h.port}" in r.stdout and "transport_maps of" in r.stdout
    written = (h.p.dir / "main.cf").read_text()
    for line in ("myhostname = relay.mta.example", "smtp_helo_name = mta.example", "message_size_limit = 0", "recipient_delimiter = +",
                 f"relay_transport = relay:[127.0.0.1]:{h.postfix.port}", f"relayhost = {h.hop}", "maximal_queue_lifetime = 3d",
                 f"relay_domains = mta.example, proxy:mysql:{h.front}/domains.cf", "smtp_sender_dependent_authentication = yes",
                 f"sender_dependent_relayhost_maps = proxy:mysql:{h.front}/relayhosts.cf",
                 f"smtp_sasl_password_maps = hash:{h.front}/sasl"):
        assert f"\n{line}\n" in written, line
    h.complete()
    r = h.setup("--apply")
    assert r.returncode == 1 and "start it first" in r.stderr and "stays as it is" in r.stdout, r.stdout + r.stderr
    assert (h.front / "main.cf").read_text() == before and (h.p.dir / "main.cf").read_text().startswith(written)
    h.p.start()
    r = h.setup("--apply")
    assert r.returncode == 0, r.stdout + r.stderr
    assert h.postfix_is() == f"smtp:[127.0.0.1]:{h.port}"
    assert "already" in h.setup("--apply").stdout
    # Each sender by its own account; the null sender and a forwarder's by everybody's.
    senders = ["user@domain.com", "boss@domain.com", "boss+tag@domain.com", "other@domain.com", "", "SRS0=xx=yy=far.example=a@srs.example"]
    for sender in senders:
        h.send(sender)
    mails = h.arrived(len(senders))
    assert accounts(mails) == sorted(zip(senders, ["office", "boss", "boss", "office", "everybody", "everybody"]))
    log = wait_for(lambda: (t := h.p.log()).count("status=sent") == len(senders) and t)
    queued = re.findall(r"queued as (\w+)\)", h.postfix.new_log())
    assert len(set(queued) & set(re.findall(r"postfix/qmgr\[\d+\]: (\w+): from=", log))) == len(senders)
    assert all(m["content"].count(b"\r\nReceived: ") + m["content"].startswith(b"Received: ") == 2 for m in mails)


def test_the_envelope_goes_through(house):
    h = house
    h.clear()
    h.send("user@domain.com", params=" BODY=8BITMIME RET=HDRS ENVID=env+2B1",
           rparams=" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;orig@far.example")
    mail = h.arrived(1)[0]
    assert "RET=HDRS" in mail["from"] and "ENVID=env+2B1" in mail["from"] and "BODY=8BITMIME" in mail["from"]
    assert "NOTIFY=SUCCESS,FAILURE" in mail["rcpts"][0] and "ORCPT=rfc822;orig@far.example" in mail["rcpts"][0]
    h.clear()
    h.send("user@domain.com", rparams=" NOTIFY=NEVER")
    assert "NOTIFY=NEVER" in h.arrived(1)[0]["rcpts"][0]


def test_large_mail_that_postfix_takes(house):
    h = house
    h.clear()
    h.send("boss@domain.com", content="Subject: large\r\n\r\n" + ("x" * 78 + "\r\n") * 150000)
    assert len(h.arrived(1)[0]["content"]) > 12_000_000


def test_what_postfix_delivers_itself_goes_past(house):
    h = house
    h.clear()
    h.send("boss@domain.com", rcpt="user@domain.com")
    wait_for(lambda: h.new(h.mailbox))
    other = FakeRelay()
    h.db.run(f"UPDATE mailbox SET transport = 'smtp:[127.0.0.1]:{other.port}' WHERE username = 'far@domain.com'")
    h.send("boss@domain.com", rcpt="far@domain.com")
    assert other.wait_mails(1)
    other.stop()
    assert not h.new(h.relay)


def test_a_refused_recipient_is_reported_to_the_mailbox(house):
    h = house
    h.clear()
    h.send("user@domain.com", rcpt="no@far.example")
    report = wait_for(lambda: h.new(h.mailbox), 30)[0]
    assert "<user@domain.com>" in report["rcpts"][0] and b"550 5.1.1 no such user here" in report["content"]
    assert not h.new(h.relay)


def test_a_change_in_the_database_counts_for_the_next_message(house):
    h = house
    h.clear()
    own = FakeRelay(auth=("PLAIN",), need_auth=True, users=ACCOUNTS)
    assert h.p.run("relay", "set", "user@domain.com", f"[127.0.0.1]:{own.port}").returncode == 0
    said = h.p.run("explain", "user@domain.com", "friend@far.example").stdout
    assert f"next hop [127.0.0.1]:{own.port}" in said
    h.send("user@domain.com")
    assert own.wait_mails(1)
    assert h.p.run("relay", "unset", "user@domain.com").returncode == 0
    own.stop()
    assert not h.new(h.relay)


def test_posthouse_or_the_database_is_away(house):
    """Postfix keeps what it cannot hand over, and it goes when they are back."""
    h = house
    h.clear()
    h.p.stop()
    h.send("user@domain.com", rcpt="one@far.example")
    wait_for(lambda: "to=<one@far.example>" in h.postfix.new_log() and
             re.search(r"to=<one@far.example>.*dsn=4\.4\.1, status=deferred", h.postfix.new_log()))
    h.p.start()
    h.db.down()
    with Client(h.port) as c:
        assert c.cmd("MAIL FROM:<user@domain.com>").startswith("250") and c.cmd("RCPT TO:<two@far.example>").startswith("451 4.3.0")
    h.db.up()

    def flushed():
        "mail that Postfix has kept"
        subprocess.run(["postqueue", "-c", h.front, "-f"], check=True, stderr=subprocess.DEVNULL)
        return h.new(h.relay)
    assert "one@far.example" in wait_for(flushed, 60, 1)[0]["rcpts"][0]


def test_the_way_back(house):
    h = house
    h.clear()
    (h.p.dir / "beside-postfix.undo").rename(h.p.dir / "kept")
    r = h.setup("--undo")
    assert r.returncode == 1 and "nothing was applied" in r.stderr
    (h.p.dir / "kept").rename(h.p.dir / "beside-postfix.undo")
    r = h.setup("--undo")
    assert r.returncode == 0, r.stderr
    assert h.postfix_is() == "smtp" and "default_transport" not in (h.front / "main.cf").read_text()
    h.p.stop()
    h.send("user@domain.com")
    assert accounts(h.arrived(1)) == [("user@domain.com", "office")]  # by Postfix itself


def test_a_client_that_wants_tls_gets_a_transport_of_its_own(house):
    """And what default_transport was comes back word for word."""
    h = house
    h.clear()
    h.p.start()
    for name, value in (("smtp_tls_security_level", "encrypt"), ("default_transport", "smtp:$relayhost")):
        subprocess.run(["postconf", "-c", h.front, "-e", f"{name}={value}"], check=True)
    master = (h.front / "master.cf").read_text()
    r = h.setup("--apply")
    assert r.returncode == 0, r.stdout + r.stderr
    assert h.postfix_is() == f"posthouse:[127.0.0.1]:{h.port}"
    subprocess.run(["postfix", "-c", h.front, "reload"], check=True, capture_output=True)
    h.send("boss@domain.com")
    assert accounts(h.arrived(1)) == [("boss@domain.com", "boss")]
    assert h.setup("--undo").returncode == 0
    assert (h.front / "master.cf").read_text() == master and h.postfix_is() == "smtp:$relayhost"


def test_what_is_refused(tmp_path):
    p = Posthouse("", directory=tmp_path)
    for words, said in (([], "usage"), (["beside"], "usage"), (["beside-postfix", "--apply", "--undo"], "usage"),
                        (["beside-postfix", "--port", "0"], "from 1 to 65535"), (["beside-postfix", "--port", "70000"], "from 1 to 65535"),
                        (["beside-postfix", "--postfix", tmp_path / "no"], "No such file"),
                        (["beside-postfix", "--postfix", tmp_path], "in Postfix's place")):
        r = p.run("setup", *words)
        assert r.returncode != 0 and said in r.stderr, (words, r.stderr)
