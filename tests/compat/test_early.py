"""Commands that come before they may, in one packet with the one before them: Debian's Postfix and Posthouse answer the same and
log the same, by which fail2ban knows such clients."""
import re
import socket

import pytest

import pair
from kit import Client, Posthouse, wait_for

MAIN = "relayhost = [127.0.0.1]:9\nsmtpd_error_sleep_time = 0\nsmtpd_forbid_unauth_pipelining = no\n"
# A session's beginning, one command at a time, and what then comes in one packet.
EHLO, MAIL, RCPT = "EHLO c.test", "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>"
PACKETS = [([], [EHLO, MAIL]), ([], ["HELO c.test", MAIL]), ([EHLO], [MAIL, RCPT]), ([EHLO], [MAIL, RCPT, "RSET", MAIL]),
           ([EHLO], ["RSET", "NOOP"]),
           ([EHLO], ["NOOP", MAIL]), ([EHLO], ["VRFY a@x.test", MAIL]), ([EHLO, MAIL, RCPT], ["DATA", "x", "."]),
           ([EHLO], [MAIL, RCPT, "DATA", "x", "."]), ([EHLO], ["NONSENSE", MAIL]), ([EHLO], ["QUIT", MAIL]),
           (["HELO c.test"], [MAIL, RCPT]),
           ([EHLO], ["NOOP", "NOOP", "NOOP"]), ([EHLO], ["EHLO c.test", "EHLO c.test"]), ([EHLO], ["noop x\ty", MAIL]),
           ([EHLO], ["NOOP", "MAIL FROM:<" + "a" * 120 + "@x.test>"]), ([EHLO], [MAIL, RCPT, "BDAT 3", "x"]),
           ([EHLO], ["STARTTLS", "NOOP"]), ([EHLO], ["AUTH PLAIN AGEAYg==", "NOOP"]), ([EHLO], ["EXPN a", "NOOP"])]


def said(mta):
    """For each of PACKETS the codes of the answers, and what the log says of it."""
    mta.case(MAIN, {}, "")
    try:
        out = []
        for begin, packet in PACKETS:
            had = len(mta.new_log())
            with Client(mta.port, ehlo=None) as c:
                for line in begin:
                    c.cmd(line)
                c.raw("".join(f"{line}\r\n" for line in packet))
                c.sock.shutdown(socket.SHUT_WR)
                codes = [line[:3] for line in c.f.read().decode().splitlines() if line[3:4] == " "]
            wait_for(lambda: re.search(r"disconnect from \S+ (ehlo|helo)=", mta.new_log()[had:]))  # not that of the first greeting
            out.append((codes, re.findall(r"improper command pipelining after (.*) from \S+: (.*)$", mta.new_log()[had:], re.M)))
        return out
    finally:
        mta.over()


@pytest.fixture(scope="module")
def both(name_server, postfix):
    return said(postfix), said(pair.Ours(name_server))


@pytest.mark.parametrize("n", range(len(PACKETS)))
def test_commands_that_come_too_early(both, n):
    assert both[1][n] == both[0][n], PACKETS[n]


# docs/differences.md: "a login that came early"
LOGINS = [[EHLO, "AUTH PLAIN AHRvbQBXaDFza2V5"], ["NOOP", EHLO, " auth login", "dG9t", "V2gxc2tleQ=="],
          ["AUTH LOGIN", "dG9t", "V2gxc2tleQ=="]]


@pytest.mark.parametrize("packet", LOGINS)
def test_a_login_that_came_early_is_not_in_the_log(packet):
    with Posthouse(MAIN) as p:
        with Client(p.port, ehlo=None) as c:
            c.raw("".join(f"{line}\r\n" for line in packet))
            c.sock.shutdown(socket.SHUT_WR)
            c.f.read()
        p.wait_log("disconnect from localhost.*commands=", count=2)
        assert "improper command pipelining after" in p.log()
        assert "AHRvb" not in p.log() and "dG9t" not in p.log() and "V2gx" not in p.log()
