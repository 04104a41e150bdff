"""Lines that end in LF alone, with each value of smtpd_forbid_bare_newline: Debian's Postfix and Posthouse do the same."""
import re
import socket
import subprocess

import pair
from kit import Client, FakeRelay, Posthouse, free_ports, wait_for

# (value, an exclusion that does not match, or none: the default, reply code)
MODES = [("no", None, None), ("normalize", None, None), ("reject", None, None), ("yes", "192.0.2.9", None),
         ("Normalize", "192.0.2.9", None), ("reject", "192.0.2.9", None), ("REJECT", "!127.0.0.1,127.0.0.0/8", "521"),
         ("reject", "127.0.0.0/8", "521"), ("no", "192.0.2.9", None)]
TO = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n"
END = b"NOOP\r\n.\r\nQUIT\r\n"
DIALOGUES = [TO + b"DATA\r\nS: x\r\n\r\nfirst" + end + END for end in (b"\n.\r\n", b"\r\n.\n", b"\n.\n", b"\n\n.\r\n")]
DIALOGUES += [(b"HELO client.example\r\n" + TO + b"DATA\r\nS: x\r\n\r\nfirst\r\n.\r\n").replace(b"\r", b""),
              TO + b"DATA\r\nS: x\r\n\r\nfirst\nsecond\r\n.\r\nNOOP\r\nQUIT\r\n",
              TO + b"DATA\r\nS: x\nT: y\r\n\r\nfirst\r\n.\r\nNOOP\r\nQUIT\r\n",
              b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nNOOP\nQUIT\r\n",
              TO + b"BDAT 9 LAST\r\nS: x\n\nabcNOOP\r\nQUIT\r\n",
              TO + b"BDAT 5\r\nS: x\nBDAT 6 LAST\r\n\r\nab\r\nNOOP\r\nQUIT\r\n",
              TO + b"BDAT 5\r\nS: xyBDAT 5 LAST\r\n\n\nab\nNOOP\r\nQUIT\r\n",
              TO + b"BDAT 8 LAST\r\nS: x\r\n\r\nNOOP\r\nQUIT\r\n"]
# docs/differences.md: "a bare LF ends a command line"
OURS = {b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nNOOP\nQUIT\r\n"}


def services():
    ports = free_ports(len(MODES))
    lines = []
    for port, (value, excluded, code) in zip(ports, MODES):
        options = f" -o smtpd_forbid_bare_newline={value}"
        options += f" -o smtpd_forbid_bare_newline_exclusions={excluded}" if excluded else ""
        options += f" -o smtpd_forbid_bare_newline_reject_code={code}" if code else ""
        lines.append(f"127.0.0.1:{port} inet n - n - - smtpd{options}\n")
    return ports, "".join(lines)


def said(port, dialogue):
    with Client(port, ehlo=None if dialogue.startswith(b"HELO") else "client.example") as c:
        c.raw(dialogue)
        c.sock.shutdown(socket.SHUT_WR)
        replies = []
        while not replies or replies[-1] is not None:
            reply = c.reply()
            replies.append(reply and re.sub(r"queued as \w+", "queued", re.sub(r"Ok: \d+ bytes queued", "Ok: queued", reply)))
        return tuple(replies)


def refusals(log):
    log = log.replace("from localhost[", "from unknown[")
    return re.findall(r"(?:NOQUEUE|QUEUED): (reject: .*bare <LF>.*)", re.sub(r"\b[0-9A-F]{6,}: reject", "QUEUED: reject", log))


def test_bare_newlines_like_postfix(name_server):
    answers, logs = [], []
    postfix = pair.Postfix(name_server)
    for mta in (postfix, pair.Ours(name_server)):
        ports, master = services()
        mta.case("relayhost = [127.0.0.1]:9\nsmtpd_error_sleep_time = 0\n", {}, master)
        try:
            wait_for(lambda: pair.listens(ports[-1]))
            answers.append({(mode, d): said(port, d) for port, mode in zip(ports, MODES) for d in DIALOGUES})
            refused = sum("bare <LF>" in (r or "") for (mode, d), replies in answers[-1].items() for r in replies if d not in OURS)
            wait_for(lambda: len(refusals(mta.new_log())) >= refused)
            logs.append(refusals(mta.new_log()))
        finally:
            mta.over()
    postfix.stop()
    different = {k: (reply, answers[1][k]) for k, reply in answers[0].items() if answers[1][k] != reply and k[1] not in OURS}
    assert different == {}, "\n".join(map(str, different.items()))
    assert len(logs[0]) > 10 and sorted(logs[0]) == sorted(logs[1])
    for ((value, *_, code), d), reply in answers[1].items():
        if d in OURS:
            assert reply[:2] == ("250 2.1.0 Ok", "250 2.1.5 Ok")
            assert reply[2][:3] == "500" or (value.lower() == "reject" and reply[2][:3] == (code or "550") and reply[3] is None)


def test_a_bare_newline_that_is_noted(dns):
    """As from 3.9 on: the mail is taken, and the log says so.  A value that Postfix does not know stops the start."""
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_forbid_bare_newline = note\n"
                                         "smtpd_forbid_bare_newline_exclusions =\n", dns=dns) as p:
        assert p.send(content=b"Subject: lf\r\n\r\none\ntwo\r\n").startswith("250")
        p.wait_log(r"disconnect from localhost\[127\.0\.0\.1\] .* commands=\d+ notes=bare_lf$")
        assert relay.wait_mail(b"Subject: lf")["content"].endswith(b"one\r\ntwo\r\n")
        with Client(p.port, ehlo=None) as c:
            c.raw("NOOP\n")
            assert c.reply()[:3] == "250" and c.cmd("QUIT")[:3] == "221"
        p.wait_log(r"noop=1 quit=1 commands=2 notes=bare_lf$")
        with Client(p.port, ehlo=None) as c:
            assert c.cmd("RSET")[:3] == "250" and c.cmd("QUIT")[:3] == "221"
        p.wait_log(r"rset=1 quit=1 commands=2$")
        for bad in ("smtpd_forbid_bare_newline = maybe\n", "smtpd_forbid_bare_newline_reject_code = 450\n"):
            p.write_main(bad)
            assert p.run("check").returncode == 2
            assert subprocess.run([p.exe, "-c", str(p.dir), "-f"], capture_output=True).returncode != 0
