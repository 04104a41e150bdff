"""The answer to a change that is done is lost: what is saved is not said to have failed, and the record stays for the account."""
import socket
import subprocess
import threading

import pytest
import servers
from webkit import GLOBAL, SECRET, Web


class Cutter:
    """Passes everything on; once armed, cuts the connection in place of the first answer after which done() is true."""
    def __init__(self, port):
        self.to, self.armed, self.cuts, self.done = port, False, 0, None
        self.s = socket.create_server(("127.0.0.1", 0))
        self.port = self.s.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            c, _ = self.s.accept()
            d = socket.create_connection(("127.0.0.1", self.to))
            state = {"cut": False}
            threading.Thread(target=self.up, args=(c, d, state), daemon=True).start()
            threading.Thread(target=self.down, args=(d, c, state), daemon=True).start()

    def up(self, c, d, state):
        while data := c.recv(65536):
            d.sendall(data)
        d.close()

    def down(self, d, c, state):
        try:
            while data := d.recv(65536):
                if self.armed and self.done():
                    self.armed, self.cuts = False, self.cuts + 1
                    c.shutdown(socket.SHUT_RDWR)
                    return
                c.sendall(data)
        except OSError:
            pass


def stored(store):
    """Ann's relay host, as the store has it."""
    if store.type != "ldap":
        return store.run("SELECT relayhost FROM sender_relayhost WHERE account = 'ann@a.example'").strip()
    out = subprocess.run(["ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{store.port}",
                          "-D", f"cn=Manager,{servers.SUFFIX}", "-w", "secret",
                          "-b", f"o=domains,{servers.SUFFIX}", "(mail=ann@a.example)", "senderRelayHost"],
                         capture_output=True, text=True, check=True)
    return "".join(line.split(": ")[1] for line in out.stdout.splitlines() if line.startswith("senderRelayHost"))


@pytest.mark.parametrize("kind", [servers.MariaDb, servers.Postgres, servers.Slapd])
def test_an_answer_that_is_lost_when_the_change_is_done(kind):
    store = kind()
    cut = Cutter(store.port)
    cut.done = lambda: stored(store) != ""
    text = servers.store_file(store).replace(f":{store.port}", f":{cut.port}")
    w = Web(f"accounts_store = {store.type}:{{dir}}/store.cf\nsender_dependent_relayhost_maps = accounts:$accounts_store\n",
            files={"store.cf": text})
    password = SECRET if store.type == "ldap" else "{PLAIN}" + SECRET
    servers.add_user(store, "ann@a.example", password)
    servers.add_admin(store, GLOBAL, password)
    with w:
        boss = w.api(GLOBAL)
        boss.ok("PUT", "/api/relay/prov", body={"hosts": "[127.0.0.1]:9", "user": "u", "password": "p", "tls": "may"})
        cut.armed = True
        code = boss.request("PUT", "/api/user/ann@a.example", body={"outboundRelay": "[127.0.0.1]:9"})[0]
        record = boss.get("/api/relays")["records"][0]
        assert cut.cuts == 1 and stored(store) == "[127.0.0.1]:9"
        assert code == 200 and "ann@a.example" in record["for"]
    store.stop()
