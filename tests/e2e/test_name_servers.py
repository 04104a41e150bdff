"""Clients whose name servers leave questions open wait alone."""
import contextlib
import re
import socket
import struct
import threading

from kit import Client, FakeRelay, Posthouse


class HalfDns:
    """Answers MX with the host "mx", and A with the loopback address; has no answer for addresses but 127.60.9.9, which is
    good.example, nor for names of dead.example."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.sock.recvfrom(4096)
                at = 12
                while query[at]:
                    at += query[at] + 1
                kind = struct.unpack(">H", query[at + 1:at + 3])[0]
                if kind == 12 and b"\0019\0019\00260\003127" not in query or b"\4dead" in query:
                    continue
                own = b"\x7f\x3c\x09\x09" if b"\4good" in query else b"\x7f\0\0\x01"
                data = {1: own, 12: b"\4good\7example\0", 15: b"\0\x0a\x02mx" + query[12:at + 1]}.get(kind, b"")
                answer = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b""
                self.sock.sendto(query[:2] + b"\x85\x80\0\x01" + (b"\0\x01" if data else b"\0\0") + b"\0\0\0\0" +
                                 query[12:at + 5] + answer, peer)


def conf(relay):
    return f"mynetworks = 127.0.0.1\nsmtp_tcp_port = {relay.port}\nrelay_threads = 1\nsmtpd_client_event_limit_exceptions =\n"


def test_clients_without_names_hold_up_no_mail():
    """Neither those that wait for their greeting nor those that have gone: names of hosts are found meanwhile.  Each client is
    greeted, and more than there can be searches are so at once."""
    with HalfDns() as dns, FakeRelay() as relay, Posthouse(conf(relay), dns=dns) as p, contextlib.ExitStack() as open_:
        def come(net, i):
            s = socket.create_connection(("127.0.0.1", p.port), 10, source_address=(f"127.{net}.{i // 200}.{i % 200 + 1}", 0))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return s
        waits = [open_.enter_context(come(7, i)) for i in range(150)]
        for i in range(600):
            come(8, i).close()
        for i in range(3):
            assert p.send(rcpts=[f"b@direct{i}.example"], content=f"Subject: mail {i}-\r\n\r\n").startswith("250")
            relay.wait_mail(b"mail %d-" % i)
        for s in waits:
            s.settimeout(20)
            assert s.recv(100).startswith(b"220 ")
        p.wait_log(r"name servers do not answer for \d+ clients: others have no name for now")
        assert set(re.findall(r"\]: connect from (\w+)\[127\.[78]\.", p.log())) == {"unknown"}


def test_clients_of_one_network_take_no_name_from_others():
    """A stranger has as many addresses as one network has, none with a name server, and hangs up at once: who has a name, from
    another network, has it all the same."""
    with HalfDns() as dns, FakeRelay() as relay:
        main = conf(relay) + "relay_domains = in.example\nsmtpd_client_restrictions = reject_unknown_client_hostname\n"
        with Posthouse(main, dns=dns) as p:
            for i in range(200):
                socket.create_connection(("127.0.0.1", p.port), 10, source_address=(f"127.8.0.{i + 1}", 0)).close()
            with Client(p.port, source="127.60.9.9") as c:
                assert c.cmd("MAIL FROM:<a@x.example>") == "250 2.1.0 Ok"
                assert c.cmd("RCPT TO:<b@in.example>") == "250 2.1.5 Ok"


def test_domains_without_name_servers_hold_up_no_relay_host():
    """Questions about thousands of domains, which no name server answers, do not delay those about relay hosts."""
    with HalfDns() as dns, FakeRelay() as relay:
        main = conf(relay) + "smtpd_recipient_limit = 5000\ntransport_maps = inline:{{" + \
               ", ".join(f"r{i}.example=smtp:[host{i}.example]" for i in range(6)) + "}}\n"
        with Posthouse(main, dns=dns) as p:
            p.send(rcpts=[f"u@d{i}.dead.example" for i in range(4500)])
            for i in range(6):
                p.send(rcpts=[f"b@r{i}.example"], content=f"Subject: mail {i}-\r\n\r\n")
                relay.wait_mail(b"mail %d-" % i)
