"""Relay hosts that refuse sender or recipient and go on as if they had not: what Debian's Postfix and Posthouse make of the mail."""
import re

import pytest
from kit import Client, FakeRelay, wait_for

import pair

NO_SENDER, NO_RCPT, LATER = "550 5.7.1 not this sender", "550 5.1.1 not you", "451 4.7.1 sender greylisted"
# What the host says to MAIL, RCPT and DATA, and to the empty content behind 354.
HOSTS = {"goes-on": (NO_SENDER, "250 2.1.5 fine", "354 go", "554 5.5.1 no recipients"),
         "no-data": ("553 5.1.8 sender unknown", "250 2.1.5 fine", "503 5.5.1 bad sequence", None),
         "no-mail": ("552 5.2.2 too much of this sender", "251 2.1.5 will forward", "554 5.5.1 no valid sender", None),
         "later": (LATER, "250 2.1.5 fine", "354 go", "554 5.5.1 no recipients"),
         "takes-it": (NO_SENDER, "250 2.1.5 fine", "354 go", "250 2.0.0 taken"),
         "later-takes-it": (LATER, "250 2.1.5 fine", "354 go", "250 2.0.0 taken"),
         "takes-it-for-nobody": ("250 2.1.0 fine", NO_RCPT, "354 go", "250 2.0.0 taken"),
         "takes-it-from-nobody": (NO_SENDER, NO_RCPT, "354 go", "250 2.0.0 taken"),
         "correct": (NO_SENDER, "503 5.5.1 need MAIL", "503 5.5.1 need MAIL", None)}
RELAY = "127.0.0.96"
MAIN = "relayhost =\ntransport_maps = hash:{dir}/tr\nsmtp_tls_security_level = none\nnotify_classes =\n"


class GoesOn(FakeRelay):
    """Answers by the recipient's domain, which the sender's local part names."""

    def _serve(self, conn):
        case = None
        with conn, conn.makefile("rb") as f:
            conn.sendall(b"220 host ESMTP\r\n")
            for line in f:
                verb = line.split()[0].decode().upper()
                if verb == "MAIL":
                    case = HOSTS[re.search(rb"<([^@]*)@", line)[1].decode()]
                says = {"EHLO": "250-host\r\n250 PIPELINING", "MAIL": case and case[0], "RCPT": case and case[1],
                        "DATA": case and case[2], "RSET": "250 2.0.0 ok", "QUIT": "221 bye"}.get(verb, "500 what")
                conn.sendall(says.encode() + b"\r\n")
                if says.startswith("354"):
                    content = b"".join(iter(f.readline, b".\r\n"))
                    self.sessions.append(content)
                    conn.sendall(case[3].encode() + b"\r\n")


@pytest.fixture(scope="module")
def refusals(name_server, postfix):
    """[outcomes by host] of Postfix and of Posthouse, and the content that the hosts got."""
    relay = GoesOn(RELAY, 25)
    files = {"tr": "y.test smtp:[%s]\n" % RELAY}
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        mta.case(MAIN, files, "")
        try:
            for case in HOSTS:
                with Client(mta.port) as c:
                    assert c.mail(f"{case}@mta.test", [f"{case}@y.test"]).startswith("250")
            wait_for(lambda: {o[0] for o in pair.outcomes(mta.new_log())} >= {f"{c}@y.test" for c in HOSTS})
            seen.append({o[0]: o[1:] for o in pair.outcomes(mta.new_log())})
        finally:
            mta.over()
    relay.stop()
    return seen, list(relay.sessions)


@pytest.mark.parametrize("case", HOSTS)
def test_what_was_refused_is_refused(refusals, case):
    (theirs, ours), contents = refusals
    assert ours[f"{case}@y.test"] == theirs[f"{case}@y.test"]
    assert all(c == b"" for c in contents)
