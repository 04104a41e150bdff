"""Who has logged in stands in the lines of a session, those of refusals too: Debian's Postfix and Posthouse log the same."""
import base64
import collections
import re

import pair
from kit import Client, Listener, wait_for

MAIN = ("relayhost = [127.0.0.1]:9\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_error_sleep_time = 0\n"
        "smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ bad@y.test = REJECT }} {{ free@y.test = OK }} }},\n"
        " warn_if_reject check_recipient_access inline:{{ {{ odd@y.test = 451 4.7.1 wait }} }}, permit_sasl_authenticated, reject\n"
        "smtpd_data_restrictions = warn_if_reject check_sender_access inline:{{ {{ s@x.test = REJECT }} }}\n")
AUTH = "AUTH PLAIN " + base64.b64encode(b"\0carla\0pw").decode()
FIRST, THEN, END = "MAIL FROM:<s@x.test>", ["RCPT TO:<bad@y.test>", "RCPT TO:<odd@y.test>", "RCPT TO:<bad@y.test>"], ["DATA", "."]
SESSIONS = [["EHLO c.test", FIRST, *THEN], ["HELO c.test", FIRST, "RCPT TO:<bad@y.test>"], ["EHLO c.test", AUTH, FIRST, *THEN, *END],
            ["EHLO c.test", AUTH, FIRST, *THEN, "RCPT TO:<two@y.test>", *END],
            ["EHLO c.test", AUTH, FIRST + " AUTH=<>", *THEN], ["EHLO c.test", AUTH, FIRST + " AUTH=o+2Bp@x.test", *THEN, *END],
            ["EHLO c.test", AUTH, FIRST + " AUTH=one", "RSET", FIRST, *THEN], ["EHLO c.test", AUTH, FIRST + " AUTH=one AUTH=two"],
            ["EHLO c.test", AUTH, FIRST + " AUTH=<> AUTH=<>"],
            ["EHLO c.test", FIRST + " AUTH=one", THEN[0], "RCPT TO:<free@y.test>", THEN[0], *END],
            ["EHLO c.test", "AUTH PLAIN AGNhcmxhAG5v", "NOOP", "STARTTLS", "HELO c.test", "MAIL", "DATA", "RSET"]]


def dovecot(c):
    c.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\tx\nDONE\n")
    while data := c.recv(65536):
        for number, resp in re.findall(rb"^AUTH\t(\d+)\t.*resp=(\S+)$", data, re.M):
            c.sendall((b"OK" if base64.b64decode(resp).endswith(b"\0pw") else b"FAIL") + b"\t" + number + b"\tuser=carla\n")


def said(mta, main):
    mta.case(main, {}, "")
    had, out = len(mta.new_log()), []
    try:
        for session in SESSIONS:
            with Client(mta.port, ehlo=None) as c:
                replies = [c.cmd(line) for line in session]
                out.append([r[:3] if "EHLO" in line else re.sub(r"queued as \w+", "queued", r) for line, r in zip(session, replies)])
                c.cmd("QUIT")
        wait_for(lambda: len(re.findall("quit=1 ", mta.new_log()[had:])) == len(SESSIONS))
        log = mta.new_log()[had:].replace("from unknown[", "from localhost[").replace("=unknown[", "=localhost[")
        lines = re.findall(r"smtpd\[\d+\]: (.*(?:reject|client=|quit=1|authentication failed).*)", log)
        return out, [re.sub(r"^[0-9A-F]{6,}", "QUEUED", line) for line in lines]
    finally:
        mta.over()


def test_logins_like_postfix(name_server):
    service = Listener(dovecot)
    main = MAIN + f"smtpd_sasl_path = inet:127.0.0.1:{service.port}\n"
    postfix = pair.Postfix(name_server)
    (theirs, their_log), (ours, our_log) = (said(mta, main) for mta in (postfix, pair.Ours(name_server)))
    postfix.stop()
    service.stop()
    assert theirs == ours
    if pair.VERSION < (3, 10):  # docs/differences.md: "who has logged in"
        assert sum(" sasl_method=PLAIN sasl_username=carla" in line for line in our_log) > 10
        our_log = [re.sub(r" sasl_(?:method|sender)=.*", "", line) if "reject" in line else line for line in our_log]
    a, b = collections.Counter(their_log), collections.Counter(our_log)
    assert a == b, "\n".join(["only Postfix:", *(a - b).elements(), "only Posthouse:", *(b - a).elements()])
