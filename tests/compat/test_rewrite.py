"""Whose header addresses get their domain: Debian's Postfix and Posthouse agree on local_header_rewrite_clients."""
import re

import pair
from kit import Client, FakeRelay, free_ports, wait_for

LISTS = ["", "permit_inet_interfaces", "permit_mynetworks", "permit_sasl_authenticated", "permit_tls_clientcerts",
         "permit_tls_all_clientcerts", "static:all", "hash:$tables/known", "check_address_map hash:$tables/known",
         "hash:$tables/others", "check_address_map,hash:$tables/others", "permit_sasl_authenticated static:x",
         "hash:$tables/others, permit_mynetworks", "regexp:$tables/patterns"]
FILES = {"known": "127.0.0.1 whatever\n", "others": "127.0.0.9 x\n127.0.0 x\n127 x\nlocalhost x\n",
         "patterns": "/^127\\.0\\.0\\.1$/ x\n"}


def fields(content):
    """The fields of addresses, and which fields there are."""
    header = re.sub(r"\r\n[ \t]+", " ", content.decode().split("\r\n\r\n")[0])
    names = {line.split(":")[0] for line in header.split("\r\n")} - {"Received"}
    return re.findall(r"^(?:From|To|Cc): .*$", header, re.M), sorted(names)


def test_rewrite_clients_like_postfix(name_server):
    said = []
    postfix = pair.Postfix(name_server)
    for mta in (postfix, pair.Ours(name_server)):
        ports = free_ports(len(LISTS))
        master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o {{ local_header_rewrite_clients = {words} }}\n"
                         for port, words in zip(ports, LISTS))
        with FakeRelay() as relay:
            mta.case(f"relayhost = [127.0.0.1]:{relay.port}\nappend_dot_mydomain = yes\nmydomain = dom.test\n"
                     "tables = {dir}\n", FILES, master)
            try:
                wait_for(lambda: pair.listens(ports[-1]))
                said.append({})
                for n, (port, words) in enumerate(zip(ports, LISTS)):
                    mark = f"mark-{n}-"
                    for how in ("DATA", "BDAT"):
                        text = f"From: joe\r\nTo: Ann <ann@short>\r\nSubject: {mark}{how}\r\n\r\nx\r\n"
                        with Client(port) as c:
                            if how == "DATA":
                                reply = c.mail(content=text)
                            else:
                                c.cmd("MAIL FROM:<a@x.example>")
                                c.cmd("RCPT TO:<b@y.example>")
                                c.raw(f"BDAT {len(text)} LAST\r\n{text}")
                                reply = c.reply()
                        assert reply.startswith("250"), (words, reply)
                        said[-1][words, how] = fields(relay.wait_mail((mark + how).encode())["content"])
            finally:
                mta.over()
    postfix.stop()
    different = [(case, got, said[1][case]) for case, got in said[0].items() if said[1][case] != got]
    assert different == [], "\n".join(map(str, different))
