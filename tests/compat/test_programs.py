"""sendmail(1), given the same arguments and the same input, from Debian's Postfix and from Posthouse: how it ends, who gets the
mail from whom, and what the header then looks like."""
import os
import re
import subprocess

import pytest
from kit import FakeRelay, wait_for

import pair

MAIN = """relayhost = [127.0.0.1]:PORT
myorigin = own.test
mydestination =
transport_maps = regexp:{dir}/gone
header_size_limit = 1000000
minimal_backoff_time = 3000s
alias_database =
"""
GONE = {"gone": "/@gone[0-9]+[.]test$/ error:5.1.1 no such place\n"}
PLAIN = "Subject: s\n\nx\n"
# (arguments, input); @far.test and @gone.test become domains of the case, by which its mails are known at the relay
CALLS = [
    *[([*args, "a@far.test"], PLAIN) for args in [
        [], ["-i"], ["-oi"], ["-f", "me@x.test"], ["-f", "<me@x.test>"], ["-f", "Me <me@x.test>"], ["-f", "me@x.test (Me)"], ["-f", ""],
        ["-f", "<>"], ["-f", "me"], ["-fme@x.test"], ["-r", "me@x.test"], ["-f", "\"a b\"@x.test"], ["-f", "@y.test:me@x.test"],
        ["-f", "me@x.test."], ["-F", "Joe User"], ["-FJoe"], ["-F", "Joe \"X\" O'Neil"], ["-F", "Dr. J., (MD)"], ["-F", ""],
         ["-F", "a\\b"],
        ["-B8BITMIME"], ["-B", "7BIT"], ["-oem"], ["-oee"], ["-odb"], ["-odi"], ["-om"], ["-em"], ["-m"], ["-U"], ["-L", "tag"],
        ["-h", "5"], ["-G"], ["-N", "never"], ["-N", "failure,delay"], ["-N", "success"], ["-R", "hdrs"], ["-R", "full"], ["-V",
         "env-id"],
        ["-Ac"], ["-Am"], ["-oMrSMTP"], ["-O", "DeliveryMode=b"], ["-v"], ["-bm"], ["-o7"], ["-A", "x"]]],
    *[(["-f", "me@x.test", *args], PLAIN) for args in [
        ["a@far.test", "b@far.test"], ["a@far.test,b@far.test"], ["a@far.test b@far.test"], ["Joe <a@far.test>"], ["<a@far.test>"],
        ["a@far.test (Joe (the) one)"], ["\"Joe, X\" <a@far.test>, b@far.test"], ["team: a@far.test, b@far.test;"], ["A@FAR.test",
         "a@far.test"],
        ["a@far.test", "a@far.test"], ["\"a b\"@far.test"], ["<@x.test,@y.test:a@far.test>"], ["a@far.test."], ["a%b@far.test"],
        ["a@far.test", "b@gone.test"], ["b@gone.test"], ["--", "a@far.test"], ["a+x@far.test"], ["a@[192.0.2.9]", "a@far.test"],
        ["\\a@far.test"], [" a@far.test "], ["a@far.test", ""], ["a@far.test,,b@far.test"], [".a@far.test"], ["a..b@far.test"]]],
    *[(["-t", "-f", "me@x.test", *args], head + "Subject: s\n\nTo: t@far.test\n") for args, head in [
        ([], "To: a@far.test\n"), ([], "to: a@far.test\ncc: b@far.test\nbcc: c@far.test\n"), ([], "To: a@far.test,\n b@far.test\n"),
        ([], "To : a@far.test\nBcc : b@far.test\n"), ([], "To: A <a@far.test>, \"B, C\" <b@far.test>\n"),
         ([], "To: a@far.test (no end\n"),
        ([], "To: undisclosed-recipients:;\nBcc: a@far.test\n"), ([], "To: a@far.test\nResent-To: b@far.test\nResent-Bcc: c@far.test\n"),
        ([], "To: a@far.test\nTo: b@far.test\n"), (["b@far.test"], "To: a@far.test\n"),
         ([], "To: a@far.test, A@far.TEST\nCc: a@far.test\n"),
        ([], "To:\nCc: a@far.test\n"), ([], "To: team: a@far.test, b@far.test;, c@far.test\n"), ([], "To: a@far.test b@far.test\n"),
        ([], "To: <a@far.test> <b@far.test>\n"), ([], "Bcc: a@far.test,\n\tb@far.test\nTo: c@far.test\n"),
         ([], "To: a@far.test, b@gone.test\n"),
        ([], "To: a@far.test\nno field\nCc: b@far.test\n"), ([], "From x Mon Jan  1 00:00:00 2024\nTo: a@far.test\n"),
        ([], "From: \"J. Doe\" <j@far.test>\nTo: a@far.test\n"), ([], "To: a@far.test\nReply-To: ann\nSender: joe\n"),
        ([], "To: =?utf-8?Q?J=C3=B6rg?= <a@far.test>\n"), ([], "To: \"a b\"@far.test, a@far.test\n"),
         ([], "To: a@[192.0.2.1], b@far.test\n"),
        ([], "To: a @ far.test\n"), ([], "To: a@far.test;b@far.test\n"),
         ([], "Cc: " + ",\n ".join(f"u{i}@far.test" for i in range(60)) + "\n"),
        ([], "Apparently-To: a@far.test\nTo: b@far.test\n"),
         ([], "To: a@far.test\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <x@x.test>\n"),
        ([], "To: a@far.test\nBcc: b@far.test\nBcc: \n"), ([], "X-To: no@far.test\nTo: a@far.test\n")]],
    *[(["-i", "-f", "me@x.test", "a@far.test"], text) for text in [
        "", "\n", "x", "Subject: only\n", "\n\nbody\n", ".\n", "Subject: s\n\n.\nmore\n..\n", "Subject: s\r\n\r\ncrlf\r\n",
         "Subject: s\n\nno end",
        " blank first\n\nx\n", ">From x\nSubject: s\n\nx\n", "From: root (Cron Daemon)\nTo: root\nSubject: s\n\nx\n",
         "Subject: s\n\nnul\0\n",
        "Return-Path: <r@x.test>\nContent-Length: 3\nSubject: s\n\nx\n", "Subject: s\n\n" + "w" * 3000 + "\n", "Sub ject: s\n\nx\n",
        "Resent-From: r@x.test\nSubject: s\n\nx\n", "From:\nSubject: s\n\nx\n", "Date:\nMessage-ID:\nSubject: s\n\nx\n",
         "To: joe@host\nCc: <ann>\n\nx\n"]],
    *[(["-f", "me@x.test", "a@far.test"], text) for text in ["Subject: s\n\n.\nmore\n", "Subject: s\n.\n\nx\n",
         "Subject: s\n\n. \n..\n"]],
    # behind a recipient there are no options: a recipient that comes from elsewhere does not choose what sendmail does
    (["-f", "me@x.test", "a@far.test", "-fyou@x.test"], PLAIN), (["-f", "me@x.test", "a@far.test", "-t"], "To: b@far.test\n" + PLAIN),
    (["-f", "me@x.test", "a@far.test", "-bs"], PLAIN), (["-f", "me@x.test", "a@far.test", "--", "b@far.test"], PLAIN),
    ([], PLAIN), (["-t"], "Subject: nobody\n\nx\n"), (["-t"], "To: \nSubject: s\n\nx\n"), (["-f"], PLAIN), (["-bx"], PLAIN),
    (["-y"], PLAIN), (["-I"], ""), (["-q"], ""), (["-q30m"], ""), (["-bi"], ""), (["-bp"], ""),
]


def of_case(text, n):
    return re.sub(r"(?i)(far|gone)(?=\.test)", lambda m: f"{m[1]}{n}", text)


def spoken(text, n):
    """The text without what differs by time, place and queue ID; the case's domains are their old names."""
    text = re.sub(rf"(?i)(far|gone){n}(?=\.test)", r"\1", text)
    text = re.sub(r"(?m)^(Resent-)?Date: \w{3}, .* (\(UTC\)|[-+]\d{4}.*)\r$", r"\1Date: now\r", text)
    text = re.sub(r"(?mi)^(Resent-)?Message-Id: <[^>]*@mta\.example>\r$", r"\1Message-Id: <new>\r", text)
    head, end, body = text.partition("\r\n\r\n")
    head = re.sub(r"(?m)^([!-9;-~]+)[ \t]+:", r"\1:", head)  # "a blank between a field's name and its colon"
    return sorted(re.split(r"\r\n(?![ \t])", head)), end, body


def seen(relay, n):
    """What of the case is at the relay: who, to whom (each one's mails together), header and body."""
    out = {}
    for m in relay.mails:
        rcpts = [r for r in m["rcpts"] if re.search(rf"(?i)(far|gone){n}\.test", r)]
        if not rcpts:
            continue
        text = re.sub(rb"\AReceived: [^\n]*\r\n(?:\t[^\n]*\r\n)*", b"", m["content"]).decode("latin-1")
        sender = re.sub(r" SIZE=\d+| BODY=\w+", "", m["from"])
        for r in rcpts:
            r = spoken(re.sub(r" ORCPT=\S+", "", r), n)[0][0]  # docs/differences.md: "an ORCPT that repeats the recipient"
            out.setdefault((sender, str(spoken(text, n))), []).append(r)
    return sorted((k[0], sorted(v), k[1]) for k, v in out.items())


def results(calls, run, relay, queue):
    ends = [run([of_case(a, n) for a in args], of_case(text, n)) for n, (args, text) in enumerate(calls)]
    wait_for(lambda: queue() == 0)
    return [(end, seen(relay, n)) for n, end in enumerate(ends)]


@pytest.fixture(scope="module")
def both(name_server, postfix):
    ours, out = pair.Ours(name_server), []
    with FakeRelay() as relay:
        postfix.case(MAIN.replace("PORT", str(relay.port)), GONE, "")
        env = dict(os.environ, MAIL_CONFIG=f"{postfix.dir}/etc")

        def theirs(tool, args, text):
            r = subprocess.run([*pair.AS_ROOT, "env", f"MAIL_CONFIG={postfix.dir}/etc", tool, *args], input=text.encode("utf-8"),
                               capture_output=True, env=env)
            return r.returncode, r.stdout
        out.append(results(CALLS, lambda args, text: theirs("/usr/sbin/sendmail", args, text)[0], relay,
                           lambda: len(theirs("/usr/sbin/postqueue", ["-j"], "")[1])))
        postfix.over()
    with FakeRelay() as relay:
        ours.case(MAIN.replace("PORT", str(relay.port)), GONE, "")
        out.append(results(CALLS, lambda args, text: ours.p.run(*args, face="sendmail", stdin=text).returncode, relay,
                           lambda: len(ours.p.queue())))
        ours.over()
    return out


@pytest.mark.parametrize("n", range(len(CALLS)))
def test_sendmail_like_postfix(both, n):
    theirs, ours = both[0][n], both[1][n]
    usage = (64, ours[1]) if ours[0] == 64 and theirs[0] in (69, 75) else None  # "arguments of sendmail that are none"
    assert ours == (usage or theirs), f"{CALLS[n]}\n  Postfix   {theirs}\n  Posthouse {ours}"
