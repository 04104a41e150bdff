"""A database that goes away in every way while mail flows: mail waits, and takes no other road."""
import re
import select
import socket
import threading
import time

import pytest
from kit import Client, FakeRelay, Listener, Posthouse, free_port, wait_ended, wait_for

import servers
import test_ldap

BY_SENDER = "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"


class Proxy:
    """Between Posthouse and a server: can refuse, fall silent (half-open), hang up, or answer late."""

    def __init__(self, port):
        self.to, self.mode, self.delay = port, "pass", 0.0
        self.socks = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                c.close()
                continue
            if self.mode == "silent":
                self.socks.add(c)
                continue
            try:
                s = socket.create_connection(("127.0.0.1", self.to), 5)
            except OSError:
                c.close()
                continue
            self.socks |= {c, s}
            threading.Thread(target=self._pump, args=(c, s, 0), daemon=True).start()
            threading.Thread(target=self._pump, args=(s, c, 1), daemon=True).start()

    def _pump(self, a, b, back):
        try:
            while data := a.recv(65536):
                if back and self.delay:
                    time.sleep(self.delay)
                while self.mode == "silent":
                    time.sleep(0.05)
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            s.close()
            self.socks.discard(s)

    def set(self, mode):
        self.mode = mode
        if mode in ("refuse", "hangup"):
            for s in list(self.socks):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def stop(self):
        self.set("refuse")
        self.listener.close()


@pytest.fixture(scope="module", params=[servers.MariaDb, servers.Postgres, servers.Slapd], ids=["mysql", "pgsql", "ldap"])
def db(request):
    server = request.param()
    yield server
    server.stop()


def table(server, port):
    if server.type == "ldap":
        return test_ldap.HEAD.format(port=port, password=servers.PASSWORD) + test_ldap.DOMAIN + "timeout = 4\n"
    return servers.table_file(server, BY_SENDER).replace(f":{server.port}", f":{port}")


def set_relay(server, value):
    if server.type == "ldap":
        server.change(test_ldap.DOMAIN_DN, "senderRelayHost", value)
        return
    server.run("DELETE FROM sender_relayhost")
    server.run(f"INSERT INTO sender_relayhost (account, relayhost) VALUES ('@mydomain.com', '{value}')")


class Flow(threading.Thread):
    """Sends one mail after the other, each from a sender of its own; counts what was taken."""

    def __init__(self, p):
        super().__init__(daemon=True)
        self.p, self.over, self.taken, self.refused, self.n = p, False, [], [], 0
        self.start()

    def run(self):
        while not self.over:
            self.n += 1
            sender = f"s{self.n}@mydomain.com"
            try:
                reply = self.p.send(sender=sender)
            except OSError as e:
                reply = str(e)
            (self.taken if reply.startswith("250") else self.refused).append((sender, reply))
            time.sleep(0.02)

    def stop(self):
        self.over = True
        self.join(60)


@pytest.mark.parametrize("how", ["refuse", "hangup", "silent"])
def test_while_mail_flows(dns, db, how):
    everybody, domain = FakeRelay(keep=False), FakeRelay(keep=False)
    proxy = Proxy(db.port)
    set_relay(db, f"[127.0.0.1]:{domain.port}")
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"
                   f"sender_dependent_relayhost_maps = proxy:{db.type}:{{dir}}/t.cf\n", dns=dns, files={"t.cf": table(db, proxy.port)}) as p:
        flow = Flow(p)
        wait_for(lambda: len(domain.mails) > 5)
        proxy.set(how)
        if how == "hangup":  # the connections of before are gone, new ones are welcome: nobody notices
            proxy.set("pass")
        else:
            wait_for(lambda: flow.refused)
            time.sleep(1)
        proxy.set("pass")
        seen = len(flow.taken)
        wait_for(lambda: len(flow.taken) > seen + 5)
        flow.stop()
        wait_for(lambda: len(domain.mails) == len(flow.taken))
        assert everybody.sessions == []
        assert all(r.startswith("451 4.3.0 ") for _, r in flow.refused), flow.refused
        assert (how == "hangup") or flow.refused
        sent = sorted(re.search(r"<(.*?)>", m["from"])[1] for m in domain.mails)
        assert sent == sorted(s for s, _ in flow.taken)
    proxy.stop()
    everybody.stop()
    domain.stop()


def test_a_silent_table_is_slow_only_for_who_asks_it(dns):
    """More clients than there are workers wait for one server; who asks another one is answered."""
    def says_no(conn):
        for _ in conn.makefile("rb"):
            conn.sendall(b"500 no\n")
    over = threading.Event()
    port = free_port()
    with Listener(lambda conn: over.wait(60)) as silent, Listener(says_no) as good:
        asks = lambda server: f"smtpd_sender_restrictions=check_sender_access,tcp:127.0.0.1:{server.port}"
        master = f"127.0.0.1:{port} inet n - n - - smtpd -o {asks(good)}\n"
        with Posthouse(f"relayhost = [127.0.0.1]:9\n{asks(silent)}\n", dns=dns, master=master) as p:
            waiting = [p.client() for _ in range(60)]
            for i, c in enumerate(waiting):
                assert c.cmd(f"MAIL FROM:<s{i}@x.example>").startswith("250")
                c.raw("RCPT TO:<b@y.example>\r\n")
            with Client(port) as c:
                assert c.cmd("MAIL FROM:<other@x.example>").startswith("250")
                assert c.cmd("RCPT TO:<b@y.example>") == "250 2.1.5 Ok"
            answered = [c for c in waiting if select.select([c.sock], [], [], 0)[0]]
            assert len(answered) < 32, "the silent server had been given up before: nothing was shown"
            over.set()
            for c in waiting:
                assert c.reply().startswith("451 4.3.0")
                c.sock.close()


def test_slow_database_slows_only_who_asks(dns, db):
    """It answers after 0.5 s: mail of other domains ("domain =" in the table file) does not wait for it."""
    if db.type == "ldap":
        return
    everybody, domain = FakeRelay(keep=False), FakeRelay(keep=False)
    proxy = Proxy(db.port)
    proxy.delay = 0.5
    set_relay(db, f"[127.0.0.1]:{domain.port}")
    with Posthouse(f"relayhost = [127.0.0.1]:{everybody.port}\nsender_dependent_relayhost_maps = {db.type}:{{dir}}/t.cf\n", dns=dns,
                   files={"t.cf": table(db, proxy.port).replace("'%s'", "'@%d'") + "domain = mydomain.com\n"}) as p:
        askers = []
        for i in range(40):  # more than there are workers
            t = threading.Thread(target=lambda i=i: p.send(sender=f"s{i}@mydomain.com"), daemon=True)
            t.start()
            askers.append(t)
        order = []
        with p.client() as c:
            for i in range(40):
                assert c.mail(sender=f"o{i}@other.example").startswith("250")
        order = [a.is_alive() for a in askers]
        assert any(order), "the askers were done before: nothing was shown"
        wait_ended(*askers)
        wait_for(lambda: len(everybody.mails) == 40 and len(domain.mails) == 40)
    proxy.stop()
    everybody.stop()
    domain.stop()


def test_a_table_file_that_is_changed_while_its_server_is_silent_holds_up_nobody(dns):
    """Those whom the table file answers itself (domain) do not wait until the server's questions are over, which is a time-out."""
    server = socket.create_server(("127.0.0.1", 0))
    conf = f"hosts = 127.0.0.1:{server.getsockname()[1]}\nuser = u\npassword = p\ndbname = d\nquery = SELECT r FROM t WHERE a = '%s'\n"
    seconds = {}

    def rcpt(sender):
        begun = time.monotonic()
        with Client(p.port) as c:
            c.cmd(f"MAIL FROM:<{sender}>")
            reply = c.cmd("RCPT TO:<b@y.example>")
        seconds[sender] = reply[:3], time.monotonic() - begun

    with Posthouse("relayhost = [127.0.0.1]:9\nsender_dependent_relayhost_maps = mysql:{dir}/s.cf\n", dns=dns,
                   files={"s.cf": conf + "domain = asked.example\n"}) as p:
        waiting = [threading.Thread(target=rcpt, args=(f"{i}@asked.example",)) for i in range(4)]
        for t in waiting:
            t.start()
        time.sleep(0.5)
        (p.dir / "s.cf").write_text(conf + "domain = asked.example more.example\n")
        time.sleep(0.8)
        rcpt("a@alone.example")
        wait_ended(*waiting)
    server.close()
    assert seconds.pop("a@alone.example")[1] < min(s for _, s in seconds.values()) - 2, seconds
    assert {code for code, _ in seconds.values()} == {"451"}
