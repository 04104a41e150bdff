"""posthouse setup beside-postfix: a real Postfix with iRedMail's tables in MariaDB in front, Posthouse behind it, and back."""
import os
import re
import shutil
import subprocess

import pytest
from kit import BUILD, Client, FakeRelay, Posthouse, free_port, owner, wait_for
from pair import INSIDE, NameServer, Postfix

import servers

pytestmark = pytest.mark.skipif(bool(INSIDE), reason="the Postfix of another Debian has no tables in MariaDB")

RELAYHOSTS = "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"
DOMAINS = "SELECT domain FROM domain WHERE domain='%s' AND backupmx=0 AND active=1 LIMIT 1"
TRANSPORTS = "SELECT mailbox.transport FROM mailbox WHERE mailbox.username='%s' AND mailbox.transport<>'' AND mailbox.active=1"
ACCOUNTS = {"everybody": "pw-1", "office": "pw-2", "boss": "pw-3"}
# No name of pair.BASE again: each program of Postfix's would warn of that, and postlogd, which hears its own warnings,
# can wait for itself then.
FRONT = """recipient_delimiter = +
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
        return wait_for(lambda: len(mails := self.new(self.relay)) >= count and mails)

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
    report = wait_for(lambda: h.new(h.mailbox))[0]
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


def test_postfix_does_not_know_records(house):
    """So it would send their mail without a login: the way back is for those who know that."""
    h = house
    r = h.p.run("record", "set", "Shop's", "hosts=[127.0.0.2]:9", "for=@domain.com", "user=shop", "password", stdin="pw-4\n")
    assert r.returncode == 0, r.stderr
    r = h.setup("--undo")
    assert r.returncode == 1 and '1 relay record is not known to Postfix ("Shop\'s")' in r.stderr, r.stderr
    assert h.postfix_is() == f"smtp:[127.0.0.1]:{h.port}" and (h.p.dir / "beside-postfix.undo").exists()
    assert h.setup("--apply", "--without-records").returncode == 64
    assert h.p.run("record", "delete", "Shop's").returncode == 0


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


def test_what_postfixs_client_is_told_about_others(house):
    """TLS within TLS, other senders, another host while Posthouse is down: not on the way to Posthouse.  And what
    default_transport was comes back word for word."""
    h = house
    h.clear()
    h.p.start()
    other = FakeRelay()
    for name, value in (("smtp_tls_security_level", "encrypt"), ("smtp_tls_wrappermode", "yes"), ("default_transport", "smtp:$relayhost"),
                        ("smtp_generic_maps", "inline:{boss@domain.com=shown@public.example}"),
                        ("smtp_fallback_relay", f"[127.0.0.1]:{other.port}")):
        subprocess.run(["postconf", "-c", h.front, "-e", f"{name}={value}"], check=True)
    master = (h.front / "master.cf").read_text()
    r = h.setup("--apply")
    assert r.returncode == 0, r.stdout + r.stderr
    assert h.postfix_is() == f"posthouse:[127.0.0.1]:{h.port}"
    subprocess.run(["postfix", "-c", h.front, "reload"], check=True, capture_output=True)
    h.send("boss@domain.com")
    assert accounts(h.arrived(1)) == [("boss@domain.com", "boss")]
    h.p.stop()
    h.send("boss@domain.com", rcpt="kept@far.example")
    wait_for(lambda: re.search(r"to=<kept@far.example>.*status=deferred", h.postfix.new_log()))
    assert not other.mails
    other.stop()
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


class Desk:
    """A directory as Postfix's, with a postfix(1) of ours that notes what it is told, and a Posthouse that greets."""

    def __init__(self, folder, main="", master="smtp unix - - n - - smtp\n", mode=0o644):
        folder.chmod(0o755)
        self.front, self.calls = folder / "front", folder / "calls"
        self.front.mkdir()
        (folder / "postfix").write_text(f"#!/bin/sh\necho $3 >> {self.calls}\n")
        (folder / "postfix").chmod(0o755)
        self.main, self.master = self.front / "main.cf", self.front / "master.cf"
        self.main.write_text(f"myhostname = mta.example\ncommand_directory = {folder}\n{main}")
        self.main.chmod(mode)
        self.master.write_text(master)
        self.greeter = FakeRelay()
        self.p = Posthouse("", dns=None)
        for name in ("main.cf", "master.cf"):
            (self.p.dir / name).unlink()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.greeter.stop()
        shutil.rmtree(self.p.dir, ignore_errors=True)

    def setup(self, *words, front=None):
        command = ["setup", "beside-postfix", "--postfix", front or self.front, "--port", self.greeter.port, *words]
        umask = os.umask(0o077)
        try:
            return self.p.run(*command)
        finally:
            os.umask(umask)

    def applied(self):
        assert self.setup().returncode == 0
        with open(self.p.dir / "main.cf", "a") as f:
            f.write(f"queue_directory = {self.p.dir}/spool\ndata_directory = {self.p.dir}/data\nmail_owner = {owner()}\n")
        r = self.setup("--apply")
        assert r.returncode == 0, r.stdout + r.stderr
        self.ours = re.search(r"^default_transport = (.*)$", self.main.read_text(), re.M).group(1)
        return r


def test_what_was_changed_since_is_the_administrators(tmp_path):
    with Desk(tmp_path, "smtp_tls_security_level = secure\n") as desk:
        desk.applied()
        desk.main.write_text(desk.main.read_text().replace(desk.ours, "smtp:[new.example]"))
        with open(desk.master, "a") as f:
            f.write("  -o smtp_helo_timeout=7\nlast unix - - n - - smtp\n")
        r = desk.setup("--undo")
        assert r.returncode == 0 and "stays as it is: smtp:[new.example]" in r.stdout, r.stdout + r.stderr
        assert "default_transport = smtp:[new.example]\n" in desk.main.read_text()
        # What was put below our line goes with it: the line above would have it.
        assert desk.master.read_text() == "smtp unix - - n - - smtp\nlast unix - - n - - smtp\n"


def test_undo_of_another_postfix_is_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "main.cf").write_text("myhostname = b.example\ndefault_transport = smtp:[b.example]\n")
    before = (other / "main.cf").read_text()
    with Desk(tmp_path) as desk:
        desk.applied()
        r = desk.setup("--undo", front=other)
        assert r.returncode == 1 and f"is Postfix's in {desk.front}" in r.stderr, r.stdout + r.stderr
        assert (other / "main.cf").read_text() == before
        assert desk.setup("--undo").returncode == 0 and "default_transport" not in desk.main.read_text()


def test_undo_where_postfix_has_gone_says_so(tmp_path):
    """With the package posthouse-mta postfix(1) is Posthouse's: what is said is not that Postfix sends again."""
    with Desk(tmp_path) as desk:
        desk.applied()
        (tmp_path / "postfix").unlink()
        (tmp_path / "postfix").symlink_to(BUILD / "src/posthouse")
        r = desk.setup("--undo")
        assert r.returncode == 0 and "no Postfix is here" in r.stdout and "sends its mail" not in r.stdout, r.stdout + r.stderr
        assert "default_transport" not in desk.main.read_text()


def test_killed_between_two_steps(tmp_path):
    """Each state that a killed setup leaves is one from which the command goes on."""
    with Desk(tmp_path, "smtp_tls_security_level = encrypt\n") as desk:
        assert desk.setup().returncode == 0
        (desk.p.dir / "main.cf").unlink()  # master.cf was written, main.cf was not
        desk.applied()
        undo = desk.p.dir / "beside-postfix.undo"
        note = undo.read_text()
        desk.calls.unlink()  # the line is set, Postfix was not told
        r = desk.setup("--apply")
        assert r.returncode == 0 and desk.calls.read_text().split() == ["status", "reload"], r.stdout + r.stderr
        desk.master.write_text("smtp unix - - n - - smtp\n")  # the line is set by hand, its transport was forgotten
        assert desk.setup("--apply").returncode == 0 and "\nposthouse unix " in desk.master.read_text()
        assert desk.setup("--undo").returncode == 0
        undo.write_text(note)  # noted, nothing set
        assert desk.setup("--apply").returncode == 1
        assert desk.setup("--undo").returncode == 0 and not undo.exists() and "default_transport" not in desk.main.read_text()
        assert desk.setup("--apply").returncode == 0


def test_files_keep_their_readers(tmp_path):
    """The umask is 077 here; Postfix's main.cf, with a password in it, is not for everybody."""
    with Desk(tmp_path, "smtp_tls_security_level = encrypt\nsmtp_sasl_password_maps = static:u:sesame\n", mode=0o640) as desk:
        desk.applied()
        modes = [path.stat().st_mode & 0o777 for path in (desk.p.dir / "main.cf", desk.p.dir / "master.cf", desk.main, desk.master)]
        assert modes == [0o640, 0o644, 0o640, 0o644]


def test_a_transport_of_that_name_is_anothers(tmp_path):
    master = "smtp unix - - n - - smtp\nposthouse unix - n n - - pipe\n  user=x argv=/y\n"
    with Desk(tmp_path, "smtp_generic_maps = inline:{a=b}\n", master) as desk:
        before = desk.master.read_text()
        with pytest.raises(AssertionError, match="another transport by the name of posthouse"):
            desk.applied()
        assert desk.master.read_text() == before and "default_transport" not in desk.main.read_text()


WRITTEN = [  # Postfix's main.cf, its master.cf, and lines that Posthouse's main.cf has
    ("smtp_reply_filter = pcre:{{/^5(.*)/ 4$$1}}\nsmtp_helo_name = a$$b\n", "",
     ["smtp_reply_filter = pcre:{{/^5(.*)/ 4$$1}}", "smtp_helo_name = a$$b"]),
    ("default_transport =\n  smtp:[gate.example]:2525\n", "", ["default_transport = smtp:[gate.example]:2525"]),
    ("default_transport = out:[gate.example]\n", "out unix - - n - - smtp -o smtp_sasl_auth_enable=yes -o smtp_helo_name=o.example\n",
     ["default_transport = smtp:[gate.example]", "smtp_sasl_auth_enable = yes", "smtp_helo_name = o.example"]),
    ("relayhost = [a.example]\nsmtp_sasl_auth_enable = no\n",
     "smtp unix - - n - - smtp\n  -o smtp_sasl_auth_enable=yes -o smtp_sasl_password_maps=hash:/x\n",
     ["smtp_sasl_auth_enable = yes", "smtp_sasl_password_maps = hash:/x", "relayhost = [a.example]"]),
]


def test_what_postfix_is_told_is_what_posthouse_is_told(tmp_path):
    for i, (main, master, lines) in enumerate(WRITTEN):
        (tmp_path / str(i)).mkdir()
        with Desk(tmp_path / str(i), main, master or "smtp unix - - n - - smtp\n") as desk:
            assert desk.setup().returncode == 0
            written = (desk.p.dir / "main.cf").read_text()
            for line in lines:
                assert written.count(f"\n{line.split(' = ')[0]} = ") == 1 and f"\n{line}\n" in written, (line, written)


LISTENERS = [  # Postfix's main.cf, the first line of its master.cf, where its own mail goes, does it need a transport of its own?
    ("", "smtp", "[127.0.0.1]:25", False), ("inet_interfaces = loopback-only\n", "2525", "[127.0.0.1]:2525", False),
    ("inet_interfaces = 192.0.2.3, 127.0.0.1\n", "smtp", "[127.0.0.1]:25", False),
    ("inet_interfaces = 192.0.2.3\n", "smtp", "[192.0.2.3]:25", True),
    ("inet_interfaces = [2001:db8::3] 192.0.2.4\n", "2525", "[2001:db8::3]:2525", True),
    ("inet_interfaces = $myhostname, localhost\n", "smtp", "[127.0.0.1]:25", False),
    ("inet_interfaces = $myhostname\n", "smtp", "[mta.example]:25", True), ("", "192.0.2.5:26", "[192.0.2.5]:26", False),
    ("inet_interfaces = 192.0.2.3\n", "localhost:27", "[127.0.0.1]:27", True)]


def test_where_postfix_listens(tmp_path):
    """Mail for its own users goes to an address that it has; what it sends comes from one that Posthouse knows."""
    for i, (main, service, hop, own) in enumerate(LISTENERS):
        (tmp_path / str(i)).mkdir()
        with Desk(tmp_path / str(i), main, f"{service} inet n - n - - smtpd\nsmtp unix - - n - - smtp\n") as desk:
            r = desk.setup()
            assert f"\nrelay_transport = relay:{hop}\n" in (desk.p.dir / "main.cf").read_text(), main
            assert ("-o smtp_bind_address=127.0.0.1" in r.stdout) == own, (main, r.stdout)
            only = re.fullmatch(r"inet_interfaces = (?:\[\S*\] )?(192\.0\.2\.\d)\n", main)  # what its client connects from
            assert re.findall("^smtp_bind_address = (.*)$", (desk.p.dir / "main.cf").read_text(), re.M) == ([only[1]] if only else [])


@pytest.mark.parametrize("main,note", [
    ("default_destination_rate_delay = 2s\n", "smtp_destination_rate_delay = 0s in {front}/main.cf"),
    ("default_destination_rate_delay = 1m\nsmtp_destination_rate_delay = 0\n", None),
    ("smtp_destination_rate_delay = 3s\nsmtp_tls_security_level = encrypt\n", None),
    ("default_destination_rate_delay = 3s\nsmtp_tls_security_level = encrypt\n",
     "posthouse_destination_rate_delay = 0s in {front}/main.cf"),
    ("default_transport_rate_delay = 4s\n", "smtp_transport_rate_delay = 0s in {front}/main.cf"), ("", None)])
def test_a_pause_between_mails_is_named(tmp_path, main, note):
    """To Postfix, Posthouse is one destination; said before and with the change."""
    with Desk(tmp_path, main) as desk:
        said = desk.setup().stdout, desk.applied().stdout
        for text in said:
            assert (note.format(front=desk.front) in text) if note else "rate_delay" not in text, text


def test_a_postfix_that_does_not_answer(tmp_path):
    """… is not waited for without end, and is what it was before."""
    with Desk(tmp_path) as desk:
        before = desk.main.read_text()
        (tmp_path / "postfix").write_text("#!/bin/sh\nsleep 600\n")
        with pytest.raises(AssertionError, match="status did not end within 10 s"):
            desk.applied()
        assert desk.main.read_text() == before
