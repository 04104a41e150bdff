"""The SMTP server and clients that mean harm, or that are broken: what they say goes no further than it must."""
import re

import pytest
from kit import Client, FakeRelay, Posthouse, wait_for

LIMITS = "smtpd_hard_error_limit = 1000\nsmtpd_soft_error_limit = 1000\n"
FROM, TO = "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"


@pytest.fixture(scope="module")
def relay():
    with FakeRelay() as r:
        yield r


@pytest.fixture(scope="module")
def mta(dns, relay):
    with Posthouse(LIMITS + f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        yield p


# Each control character but TAB, and where in a line it stands.
CONTROLS = [c for c in range(32) if c not in (9, 10)] + [127]
PLACES = [b"%c", b"NOOP %c", b"%cNOOP", b"HELO a%cb", b"VRFY b%c@y.example", b"MAIL FROM:<a%c@x.example>", b"MAIL FROM:<a@x.example> ENVID=q%cq",
          b"RCPT TO:<b@y.example> ORCPT=rf%cc;x", b"RCPT TO:<b@y.example> ORCPT=rfc822;x%cy", b"FOO%c", b"GET %c", b"X-Y: %c", b"AUTH PLAIN x%cy",
          b"MAIL FROM:<a@x.example> AUTH=x%cy", b'RCPT TO:<"b%c"@y.example>']


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.decode())
def test_a_command_line_has_no_control_characters(mta, place):
    """One rule for every command, and none is run."""
    with mta.client() as c:
        assert c.cmd(FROM).startswith("250") and c.cmd(TO).startswith("250")
        for code in CONTROLS:
            if place.endswith(b"%c") and code == 13:
                continue  # CR CR LF: the first one is content of the line
            c.raw(place.replace(b"%c", bytes([code])) + b"\r\n")
            assert c.reply() == "500 5.5.2 Error: bad syntax", (place, code)
        c.raw(b"NOOP x\r\r\n")
        assert c.reply() == "500 5.5.2 Error: bad syntax"
        assert c.cmd("DATA").startswith("354")
        c.raw("Subject: still the same transaction\r\n\r\n.\r\n")
        assert c.reply().startswith("250 2.0.0 Ok: queued as")
        assert c.cmd("") == c.cmd("  ") == "500 5.5.2 Error: bad syntax"
        assert c.cmd("NOOP\twith a tab") == "250 2.0.0 Ok"


@pytest.mark.parametrize("code", [0, 1, 11, 127])
def test_after_a_chunk_of_no_length_nothing_is_a_command(mta, code):
    with mta.client() as c:
        c.cmd(FROM), c.cmd(TO)
        c.raw(b"BDAT 2%c7 LAST\r\nRCPT TO:<chunk@y.example>\r\n" % code)
        assert c.reply() == "500 5.5.2 Error: bad syntax" and c.reply() is None


XTEXT = ["+0A", "a+0Db", "+00", "x+09", "+1B[2J", "+7F", "+0D+0A+2E+0D+0A"]


@pytest.mark.parametrize("bad", XTEXT)
def test_xtext_hides_no_control_characters(mta, bad):
    with mta.client() as c:
        assert c.cmd(f"{FROM} ENVID={bad}") == "501 5.5.4 Bad ENVID parameter syntax"
        assert c.cmd(FROM) == "250 2.1.0 Ok"
        assert c.cmd(f"{TO} ORCPT=rfc822;{bad}") == "501 5.5.4 Error: Bad ORCPT parameter syntax"
        assert c.cmd(f"{TO} ORCPT=rfc822;b+2Bc+20d@y.example ORCPT=rfc822;{bad}") == "501 5.5.4 Error: Bad ORCPT parameter syntax"
        assert c.cmd("DATA") == "554 5.5.1 Error: no valid recipients"


@pytest.mark.parametrize("kind", ["", "a b", "rfc(822", "rf,c", '"rfc822"', "a@b", "a.b", "a[b]", "a:b", "a\\b", "ä"])
def test_the_type_of_an_original_recipient_is_an_atom(mta, kind):
    """RFC 3461, 4.2: it is sent on as it is."""
    with mta.client() as c:
        assert c.cmd(FROM) == "250 2.1.0 Ok"
        assert c.cmd(f"{TO} ORCPT={kind};x@y.example")[:3] in ("501", "555")
        assert c.cmd(f"{TO} ORCPT=x-some_{{type}}!;x@y.example") == "250 2.1.5 Ok"


def test_an_authorization_that_is_no_xtext(dns, relay):
    with Posthouse(LIMITS + f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_sasl_auth_enable = yes\n", dns=dns) as p, p.client() as c:
        for value in ("a+0Ab", "a+0", "+zz", "x+00y", "=", ""):
            assert c.cmd(f"{FROM} AUTH={value}")[:3] in ("501", "555"), value
        for value in ("<>", "a+2Bb@x.example"):
            assert c.cmd(f"{FROM} AUTH={value}") == "250 2.1.0 Ok", value
            c.cmd("RSET")
