"""Names of clients, found and not: what Debian's Postfix and Posthouse answer, and what they call the client in the log.

Each client has an address of its own, and the name servers of that say what its name says."""
import re

import pytest

import pair
from kit import Client, wait_for

# client: (PTR or None, records of that name)
CLIENTS = {"found": ("found.test.", ["A {ip}"]), "none": (None, []), "no-address": ("gone.test.", []),
           "another": ("another.test.", ["A 192.0.2.77"]), "one-of-two": ("two.test.", ["A 192.0.2.77", "A {ip}"]),
           "fails": ("zone-fails", []), "name-fails": ("x.fails.test.", []), "no-host": ("a+b.test.", ["A {ip}"]),
           "digits": ("192.0.2.9.", ["A {ip}"])}
ADDRESS = {who: f"127.0.{60 + i}.9" for i, who in enumerate(CLIENTS)}
REVERSE = {who: ".".join(reversed(ip.split("."))) + ".in-addr.arpa." for who, ip in ADDRESS.items()}
RECORDS = [f"{REVERSE[who]} 60 IN PTR {name}" for who, (name, _) in CLIENTS.items() if name and name != "zone-fails"]
RECORDS += [f"{name} 60 IN {r.format(ip=ADDRESS[who])}" for who, (name, records) in CLIENTS.items() for r in records]
FAILS = ["fails.test.", REVERSE["fails"]]
# (list, code)
LISTS = [("reject_unknown_client_hostname", "550"), ("reject_unknown_client_hostname", "450"),
         ("reject_unknown_client", "550"),
         ("reject_unknown_reverse_client_hostname", "550"), ("reject_unknown_reverse_client_hostname", "521"),
         ("check_client_access inline:{ {found.test = REJECT by name}, {another.test = REJECT false}, "
          "{x.fails.test = REJECT false}, {unknown = REJECT without a name} }", "550")]
MAIN = "relayhost = [127.0.0.1]:9\nsmtpd_error_sleep_time = 0\n"


def said(mta):
    out = {}
    lists = [[f"smtpd_client_restrictions = {words}", f"unknown_client_reject_code = {code}"] for words, code in LISTS]
    with pair.services(mta, MAIN, lists) as ports:
        for who, ip in ADDRESS.items():
            for port, case in zip(ports, LISTS):
                with Client(port, source=ip) as c:
                    out[who, case] = c.cmd("MAIL FROM:<a@x.test>"), c.cmd("RCPT TO:<b@y.test>")
            wait_for(lambda: len(re.findall(rf" connect from \S+\[{ip}\]", mta.new_log())) == len(LISTS))
            out[who] = set(re.findall(rf" connect from (\S+)\[{ip}\]", mta.new_log()))
        return out


@pytest.fixture(scope="module")
def both(name_server, postfix):
    return said(postfix), said(pair.Ours(name_server))


@pytest.mark.parametrize("who", CLIENTS)
def test_names_of_clients_like_postfix(both, who):
    theirs, ours = both
    assert ours[who] == theirs[who]
    for case in LISTS:
        assert ours[who, case] == theirs[who, case], case
