"""Policy services that people have: Debian's postgrey and policyd-spf, asked by Debian's Postfix and by Posthouse, in turn."""
import getpass
import grp
import os
import re
import socket
import subprocess
import threading
import time

import pytest
from kit import Client, FakeRelay, free_port, wait_for

import pair

RELAY = "127.0.2.8"
MAIN = (f"mydestination =\nrelay_domains = rel.test\nrelayhost = [{RELAY}]\nsmtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\n"
        "notify_classes =\nsmtpd_client_restrictions =\n")
# Who may send for a domain, as its DNS has it.
RECORDS = ["pass.test. TXT \"v=spf1 ip4:127.0.0.11 -all\"", "soft.test. TXT \"v=spf1 ip4:127.0.0.12 ~all\"",
           "neutral.test. TXT \"v=spf1 ?all\"", "none.test. TXT \"hello\"", "broken.test. TXT \"v=spf1 ip4:127.0.0 nonsense -all\"",
           "to.test. TXT \"v=spf1 include:pass.test -all\"", "into.test. TXT \"v=spf1 include:away.test -all\"",
           "gone.test. TXT \"v=spf1 redirect=pass.test\"", "twice.test. TXT \"v=spf1 -all\"", "twice.test. TXT \"v=spf1 +all\""]
FAILS = ["away.test"]
DOMAINS = ["pass", "soft", "neutral", "none", "broken", "to", "into", "gone", "twice", "away", "unknown"]
# (settings of policyd-spf, on top of what it must have here)
SPF = {"as installed": "TestOnly = 1\n", "refuses": "TestOnly = 0\n", "refuses all": "TestOnly = 0\nMail_From_reject = Softfail\n"
       "HELO_reject = Softfail\nPermError_reject = True\nTempError_Defer = True\n",
       "results": "TestOnly = 0\nHeader_Type = AR\nAuthserv_Id = mx.test\n"}


class Spawn:
    """What spawn(8) does: a program for each connection, which is its standard input and output."""

    def __init__(self, command):
        self.command, self.programs = command, []
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.sock.settimeout(0.2)
        self.port, self.stopped = self.sock.getsockname()[1], False
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while not self.stopped:
            try:
                conn, _ = self.sock.accept()
            except TimeoutError:
                continue
            conn.setblocking(True)
            with conn:
                self.programs.append(subprocess.Popen(self.command, stdin=conn, stdout=conn))

    def stop(self):
        self.stopped = True
        self.thread.join()
        self.sock.close()
        for p in self.programs:
            p.wait(20)  # its connection ends with who has asked it


@pytest.fixture(scope="module")
def relay():
    with FakeRelay(RELAY, 25) as r:
        yield r


def mail(port, source, helo, sender, rcpts):
    """What is said to a client at that address."""
    said = []
    with Client(port, source=source, ehlo=helo) as c:
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{r}>" for r in rcpts), "DATA"):
            said.append(c.cmd(line))
        if said[-1].startswith("354"):
            said.append(c.cmd("Subject: x\r\n\r\nhello\r\n."))
    return [re.sub("queued as .*", "queued", s) for s in said]


def arrived(mta, relay, said):
    """The beginnings of what went out, each up to Postfix's own field."""
    wait_for(lambda: len(re.findall(": removed", mta.new_log())) >= sum(s[-1].startswith("250") for s in said))
    return sorted((m["from"].split()[1], m["content"].split(b"Received: ")[0].decode()) for m in relay.mails)


@pytest.mark.parametrize("name", SPF)
def test_spf(name_server, postfix, relay, tmp_path, name):
    """Each result of SPF, for the sender and for the name of the client; one header for a message, whatever its recipients."""
    conf = tmp_path / "policyd-spf.conf"
    conf.write_text("debugLevel = 1\nHELO_reject = Fail\nMail_From_reject = Fail\nPermError_reject = False\nTempError_Defer = False\n"
                    "skip_addresses = 10.0.0.0/8\n" + SPF[name])
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {name_server.address}\noptions timeout:1 attempts:1\n")
    script = f"mount --bind {resolv} /etc/resolv.conf && exec /usr/bin/policyd-spf {conf}"
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        program = Spawn([*pair.SUDO, "unshare", "-m", "sh", "-c", script])
        words = f"check_policy_service {{ inet:127.0.0.1:{program.port}, timeout=60s }}, permit"
        relay.sessions.clear()
        with pair.services(mta, MAIN, [[f"smtpd_recipient_restrictions = {words}"]]) as ports:
            said = [mail(ports[0], source, f"{helo}.test", sender and f"a@{sender}.test", ["b@rel.test", "c@rel.test"])
                    for source in ("127.0.0.11", "127.0.0.12") for sender, helo in [*((d, "none") for d in DOMAINS), ("", "pass"),
                                                                                    ("", "twice"), ("none", "soft"), ("soft", "pass")]]
            heads = [(sender, re.sub(r"receiver=\S+", "receiver=", head)) for sender, head in arrived(mta, relay, said)]
        program.stop()
        seen.append((said, heads))
    assert seen[1] == seen[0]
    assert any("SPF" in head or "spf=" in head for _, head in seen[1][1]) and not any(head.count("client-ip") > 1 for _, head in seen[1][1])


class Postgrey:
    def __init__(self, directory, *options):
        self.port = free_port()
        self.proc = subprocess.Popen(["/usr/sbin/postgrey", f"--inet=127.0.0.1:{self.port}", f"--dbdir={directory}", "--delay=2",
                                      f"--user={getpass.getuser()}", f"--group={grp.getgrgid(os.getgid()).gr_name}", "--hostname=mx.test",
                                      "--whitelist-clients=/dev/null", "--whitelist-recipients=/dev/null", *options],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: pair.listens(self.port))

    def stop(self):
        self.proc.terminate()
        self.proc.wait()


def greyed(head):
    return re.sub(r"delayed \d+ seconds|; \w{3}, .*", "…", head)


@pytest.mark.parametrize("options", [(), ("--greylist-action=451 4.7.1",), ("--auto-whitelist-clients=1", "--privacy")])
def test_greylisting(name_server, postfix, relay, tmp_path, options):
    """Who is new is put off, and taken when it comes again; a client that has waited often enough is known."""
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        directory = tmp_path / type(mta).__name__
        directory.mkdir()
        grey = Postgrey(directory, *options)
        words = f"check_policy_service inet:127.0.0.1:{grey.port}"
        relay.sessions.clear()
        with pair.services(mta, MAIN, [[f"smtpd_recipient_restrictions = {words}, permit"],
                                       [f"smtpd_recipient_restrictions = {words}, reject"]]) as ports:
            talk = lambda source, sender, *rcpts, port=ports[0]: mail(port, source, "c.test", sender, rcpts)
            said = [talk("127.0.3.1", "a@x.test", "b@rel.test"), talk("127.0.3.1", "a@x.test", "b@rel.test"),
                    talk("127.0.4.1", "a@x.test", "b@rel.test"), talk("127.0.3.1", "", "b@rel.test", "c@rel.test"),
                    talk("127.0.3.1", "r@x.test", "b@rel.test", port=ports[1])]
            time.sleep(3)
            said += [talk("127.0.3.2", "a@x.test", "b@rel.test"), talk("127.0.3.1", "a@x.test", "b@rel.test"),
                     talk("127.0.4.1", "a@x.test", "b@rel.test"), talk("127.0.3.1", "", "b@rel.test", "c@rel.test"),
                     talk("127.0.3.1", "new@x.test", "b@rel.test"), talk("127.0.3.1", "r@x.test", "b@rel.test", port=ports[1])]
            heads = [(sender, greyed(head)) for sender, head in arrived(mta, relay, said)]
        grey.stop()
        seen.append((said, heads))
    assert seen[1] == seen[0]
    assert "450" in str(seen[1][0]) or "451" in str(seen[1][0])
    assert any("X-Greylist: " in head for _, head in seen[1][1])


def test_greylisting_by_a_socket_that_goes_away(name_server, relay, tmp_path):
    """Mail is put off while the program is away, and goes on when it is there again: nothing is taken unasked."""
    ours = pair.Ours(name_server)
    grey = Postgrey(tmp_path, "--auto-whitelist-clients=0")
    words = f"check_policy_service {{ inet:127.0.0.1:{grey.port}, try_limit=1 }}"
    with pair.services(ours, MAIN, [[f"smtpd_recipient_restrictions = {words}, permit"]]) as ports:
        assert mail(ports[0], "127.0.3.1", "c.test", "a@x.test", ["b@rel.test"])[1].startswith("450 4.2.0 ")
        grey.stop()
        assert mail(ports[0], "127.0.3.1", "c.test", "a@x.test", ["b@rel.test"])[1].startswith("451 4.3.5 ")
        time.sleep(2)
        assert not re.search("status=sent", ours.new_log())
