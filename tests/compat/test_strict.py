"""strict_rfc821_envelopes, which iRedMail sets: Debian's Postfix and Posthouse take and refuse the same addresses by it."""
import pytest

import pair
from kit import Client

STRICT = ["no", "yes"]
PATHS = ["<a@rel.test>", " <a@rel.test>", "  <a@rel.test>", "\t<a@rel.test>", " \t <a@rel.test>", "<a@rel.test>\t", "<a@rel.test> ",
         " <a@rel.test> FOO=1", "\t<a@rel.test>\tFOO=1", "<a@rel.test>FOO=1", " <>", "\t<>", "<>", "a@rel.test",
         " a@rel.test", "<a@rel.test",
         "Name <a@rel.test>", "<a..b@rel.test>", "<.a@rel.test>", "<a.@rel.test>", '<"a b"@rel.test>', "<@x.test:a@rel.test>", "<a>",
         "<a@rel.test> (c)", "<-a@rel.test>"]


def said_to(port):
    said = {}
    with Client(port) as c:
        for path in PATHS:
            said["MAIL", path] = c.cmd(f"MAIL FROM:{path}")[:9]
            c.cmd("RSET")
            c.cmd("MAIL FROM:<s@x.test>")
            said["RCPT", path] = c.cmd(f"RCPT TO:{path}")[:9]
            c.cmd("RSET")
    return said


@pytest.fixture(scope="module")
def both(name_server, postfix):
    said = []
    for mta in (postfix, pair.Ours(name_server)):
        main = ("relay_domains = rel.test\nrelayhost = [127.0.0.1]:9\nsmtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\n"
                "smtpd_junk_command_limit = 1000\nlocal_transport = smtp:[127.0.0.1]:9\n")
        with pair.services(mta, main, [[f"strict_rfc821_envelopes = {word}"] for word in STRICT]) as ports:
            said.append({word: said_to(port) for port, word in zip(ports, STRICT)})
    return said


@pytest.mark.parametrize("word", STRICT)
def test_addresses_like_postfix(both, word):
    theirs, ours = (side[word] for side in both)
    assert ours == theirs
