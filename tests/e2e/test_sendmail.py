"""sendmail(1): what programs hand to it arrives, as Postfix would have sent it, or they are told."""
import email.header
import os
import re
import socket
import subprocess
import threading
import time

import pytest

from kit import FakeRelay, Posthouse, wait_ended, wait_for


@pytest.fixture(scope="module")
def pair(dns):
    relay = FakeRelay()
    main = (f"relayhost = [127.0.0.1]:{relay.port}\nmyorigin = own.example\nalias_database =\nmydestination =\nsmtpd_recipient_limit = 3\n"
            "transport_maps = inline:{{ {{ gone.example = error:5.1.1 no such place }} }}\n")
    with Posthouse(main, dns=dns) as p:
        yield p, relay
    relay.stop()


def got(relay, text):
    mail = relay.wait_mail(text)
    return rcpts_of(mail), mail["content"].decode("utf-8", "replace")


def path(line):
    """The address in a MAIL or RCPT command."""
    return re.search("<(.*)>", line).group(1)


def rcpts_of(mail):
    return sorted(path(line) for line in mail["rcpts"])


n = iter(range(1000000))


def send(p, relay, *args, header="", body="x\n", code=0, **kw):
    """Sends a mail and returns who got it and what; the body has a mark of its own."""
    mark = f"mark-{next(n)}-"
    r = p.run(*args, face="sendmail", stdin=f"{header}X-Mark: {mark}\n\n{body}", **kw)
    assert r.returncode == code, r.stderr
    return (*got(relay, mark.encode()), r)


ARGUMENTS = {
    "a list": (["a@far.example,b@far.example"], ["a@far.example", "b@far.example"]),
    "cron's call": (["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "a@far.example,b@far.example"], ["a@far.example", "b@far.example"]),
    "a name": (["\"Joe, the\" <joe@far.example>, Ann (the other) <ann@far.example>"], ["ann@far.example", "joe@far.example"]),
    "a comment": (["joe@far.example (Joe (the) one)"], ["joe@far.example"]),
    "no domain": (["joe"], ["joe@own.example"]),
    "quoted": (["\"a b\"@far.example"], ["\"a b\"@far.example"]),
    "blanks for commas": (["a@far.example b@far.example"], ["a@far.example", "b@far.example"]),
    "a route": (["<@a.example,@b.example:joe@far.example>"], ["joe@far.example"]),
    "a group": (["team: a@far.example, b@far.example;"], ["a@far.example", "b@far.example"]),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_are_address_lists(pair, case):
    args, want = ARGUMENTS[case]
    assert send(*pair, "-f", "me@x.example", *args)[0] == want


@pytest.mark.parametrize("given,want", [("joe@x.example", "joe@x.example"), ("<joe@x.example>", "joe@x.example"),
                                        ("Joe <joe@x.example>", "joe@x.example"), ("<>", ""), ("", ""), ("joe", "joe@own.example"),
                                        ("one@x.example, two@y.example", "one@x.example"), ("joe two@y.example", "joe@own.example"),
                                        ("(c)", ""), ("team: joe@x.example;", "joe@x.example")])
def test_sender_in_all_its_forms(pair, given, want):
    p, relay = pair
    _, content, r = send(p, relay, "-f", given, "a@far.example")
    assert ("malformed sender" in r.stderr) == (given.count("@") + given.count(" two") > 1), r.stderr
    mark = re.search("mark-\\d+-", content).group()
    assert path(relay.wait_mail(mark.encode())["from"]) == want


def test_a_sender_that_is_none(pair):
    for given in ("@x.example", "u@192.0.2.1", "-x@y.example", "u@[192.0.2]", "u@-x.example"):
        r = pair[0].run("-f", given, "a@far.example", face="sendmail", stdin="x\n")
        assert r.returncode == 69 and "Bad sender address syntax" in r.stderr, given


INJECTED = "a@far.example>\r\nRCPT TO:<victim@far.example>\r\nDATA\r\nFrom: ceo@bank.example\r\n\r\nspam\r\n.\r\nNOOP <"


@pytest.mark.parametrize("args", [[INJECTED], ["-f", INJECTED, "a@far.example"], ["-R", "hdrs>\r\nRSET", "a@far.example"],
                                  ["-N", "never\nRSET", "a@far.example"], ["-V", "id\r\nRSET", "a@far.example"],
                                  ["-F", "Joe\nBcc: victim@far.example", "a@far.example"], ["-t", "--", "a@far.example\x0b"]])
def test_a_line_break_in_an_argument_sends_nothing(pair, args):
    p, relay = pair
    before = len(relay.mails)
    r = p.run(*args, face="sendmail", stdin="To: b@far.example\n\nx\n")
    assert r.returncode == 65 and "control character" in r.stderr
    send(p, relay, "last@far.example")
    assert len(relay.mails) == before + 1


@pytest.mark.parametrize("name", ["Ann\nX-Chosen: 1", "Ann\r\n\r\nbody", "Ann\rX-Chosen: 1", "Ann\tTwo"])
def test_a_name_in_the_environment_is_one_line(pair, name):
    """NAME is the full name where none is given; whoever sets it writes no field and no content."""
    p, relay = pair
    p.extra_env = {"NAME": name}
    try:
        _, content, _ = send(p, relay, "-f", "me@x.example", "a@far.example")
    finally:
        p.extra_env = {}
    head = content.split("\r\n\r\n")[0]
    assert re.search(r"(?m)^From: \"?Ann [^\r]*<me@x.example>\r$", head) and not re.search("(?m)^(X-Chosen|body)", content)


BAD_VALUES = [["-N", "sometimes"], ["-N", ""], ["-N", "never,delay"], ["-N", "success;failure"], ["-R", "half"], ["-R", ""], ["-V", ""],
              ["-V", "e" * 101], ["-V", "\u00e9nv"], ["-V", "a\tb"]]


def test_values_that_are_none_are_ignored(pair):
    """What cannot be reported keeps no mail."""
    p, relay = pair
    for args in BAD_VALUES:
        rcpts, content, r = send(p, relay, "-f", "me@x.example", *args, "a@far.example")
        mail = relay.wait_mail(re.search("mark-\\d+-", content).group().encode())
        assert rcpts == ["a@far.example"] and f"bad {args[0]} option value" in r.stderr, args
        assert not re.search("NOTIFY|RET=|ENVID", mail["from"] + "".join(mail["rcpts"])), args
    _, content, r = send(p, relay, "-f", "me@x.example", "-N", " success, FAILURE ,", "-V", "e" * 100, "-R", "Full", "a@far.example")
    mail = relay.wait_mail(re.search("mark-\\d+-", content).group().encode())
    assert r.stderr == "" and "NOTIFY=SUCCESS,FAILURE" in mail["rcpts"][0] and f"RET=FULL ENVID={'e' * 100}" in mail["from"]


def test_calls_that_send_nothing_take_no_mail(pair):
    """A message that is given to one is not lost without a word."""
    p, _ = pair
    for args in (["-bd"], ["-bx"], ["-ba"], ["-bt"], ["-qRx"], ["-bs"], ["-bp"], ["-bi"], ["-I"], ["-q"], ["-q", "30m"], ["-qIABC"]):
        for more in (["a@far.example"], ["-t"]):
            r = p.run(*args, *more, face="sendmail", stdin="To: a@far.example\n\nx\n")
            assert r.returncode == 64 and r.stderr, (args, more)


HEADERS = {
    "to, cc and bcc": ("To: a@far.example\nCc: b@far.example (B), \"C, D\" <c@far.example>\nBcc: d@far.example\n",
                       ["a@far.example", "b@far.example", "c@far.example", "d@far.example"], ["Bcc"]),
    "blank before the colon": ("To : a@far.example\nBcc :b@far.example\n", ["a@far.example", "b@far.example"], ["Bcc"]),
    "folded": ("To: a@far.example,\n\tb@far.example\n", ["a@far.example", "b@far.example"], []),
    "resent": ("To: orig@far.example\nCc: copy@far.example\nResent-To: new@far.example\nResent-Bcc: hid@far.example\n",
               ["hid@far.example", "new@far.example"], ["Resent-Bcc"]),
    "literals": ("To: a@[192.0.2.9], b@[IPv6:2001:db8::1]\n", ["a@[192.0.2.9]", "b@[IPv6:2001:db8::1]"], []),
    "a comment that is not closed": ("To: a@far.example (comment\n", ["a@far.example"], []),
    "undisclosed": ("To: undisclosed-recipients:;\nBcc: a@far.example\n", ["a@far.example"], ["Bcc"]),
}


@pytest.mark.parametrize("case", HEADERS)
def test_recipients_from_the_header(pair, case):
    header, want, absent = HEADERS[case]
    _, content, _ = send(*pair, "-t", "-f", "me@x.example", header=header)
    mark = re.search("mark-\\d+-", content).group().encode()
    wait_for(lambda: sorted(r for m in pair[1].mails if mark in m["content"] for r in rcpts_of(m)) == want)
    for name in absent:
        assert not re.search(f"^{name}[ :]", content.split("\r\n\r\n")[0], re.M | re.I)
    if case == "resent":
        for name in ("Resent-From", "Resent-Date", "Resent-Message-Id"):
            assert re.search(f"^{name}: ", content, re.M)


def test_the_header_ends_where_it_ends(pair):
    rcpts, content, _ = send(*pair, "-t", "-f", "me@x.example", header="To: a@far.example\n",
                             body="this is no header\nCc: b@far.example\nBcc: c@far.example\n")
    assert rcpts == ["a@far.example"]
    mark = f"mark-{next(n)}-"
    p, relay = pair
    r = p.run("-t", "-f", "me@x.example", face="sendmail", stdin=f"To: a@far.example\nthis is no header {mark}\nCc: b@far.example\n")
    assert r.returncode == 0 and got(relay, mark.encode())[0] == ["a@far.example"]


def test_mbox_line(pair):
    for line in ("From root@host Mon Jan  1 00:00:00 2024\n", ">From root@host Mon Jan  1 00:00:00 2024\n"):
        _, content, _ = send(*pair, "-f", "me@x.example", "a@far.example", header=line + "Subject: kept\n")
        head = content.split("\r\n\r\n")[0]
        assert "Subject: kept" in head and "root@host" not in content


def test_one_bad_recipient_keeps_no_other(pair):
    """The others get the mail, and the sender a report on it."""
    p, relay = pair
    rcpts, _, r = send(p, relay, "-t", "-f", "me@x.example", header="To: a@far.example, b@gone.example\n")
    assert rcpts == ["a@far.example"] and r.returncode == 0
    report = relay.wait_mail(b"no such place")
    assert path(report["from"]) == "" and rcpts_of(report) == ["me@x.example"]
    rcpts, _, r = send(p, relay, "-t", "-f", "you@x.example", header="To: a@far.example, b@-bad..example\n")
    assert rcpts == ["a@far.example"] and "b@-bad..example" in r.stderr
    report = relay.wait_mail(b"was not taken for these recipients")
    assert path(report["from"]) == "" and rcpts_of(report) == ["you@x.example"]
    r = p.run("-f", "me@x.example", "b@-bad..example", face="sendmail", stdin="x\n")
    assert r.returncode == 69 and "no recipient was taken" in r.stderr


def test_any_number_of_recipients(pair):
    """More than smtpd_recipient_limit allows a client are one message: it is taken for all of them, or for none."""
    p, relay = pair
    many = [f"u{i}@far.example" for i in range(2011)]
    mark = f"mark-{next(n)}-"
    message = f"Bcc: {', '.join(many)}, {many[5]}, U7@far.example\nSubject: {mark}\n\nx\n"
    r = p.run("-t", "-f", "me@x.example", face="sendmail", stdin=message)
    assert r.returncode == 0, r.stderr

    def all_there():
        return sorted(a for m in relay.mails if mark.encode() in m["content"] for a in rcpts_of(m)) == sorted(many)
    wait_for(all_there)
    taken = p.log().count("cleanup[")
    p.run("-t", "-f", "me@x.example", face="sendmail", stdin=message)
    wait_for(lambda: p.log().count("cleanup[") == taken + 1)


def test_recipients_that_are_too_many_at_a_time_follow(dns):
    """Where others have named too many, sendmail comes again for the rest, as clients do: each recipient gets the mail, once."""
    everybody = [f"u{i}@y.example" for i in range(600)]
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmessage_memory_limit = 0\n", dns=dns) as p:
        r = p.run("-f", "a@x.example", *everybody, face="sendmail", stdin="Subject: list\n\nhello\n")
        assert (r.returncode, r.stderr) == (0, "")
        def named():
            return sorted(a for m in relay.mails for a in m["rcpts"])
        wait_for(lambda: len(named()) >= 600)
        assert len(set(named())) == len(named()) == 600 and len(re.findall("nrcpt=", p.log())) > 3


@pytest.mark.parametrize("end, last", [("", 2), ("451 4.3.0 later", 2), ("452 4.3.1 Insufficient system storage", 3)],
                         ids=["gone", "refused", "full"])
def test_a_daemon_that_takes_a_part_of_the_recipients(dns, end, last):
    """Those that are left are named; where the sender cannot be told, the caller is, for whom a second copy is better than none."""
    notes = []

    def serve(conn):
        lines, rcpts, rounds = conn.makefile("rb"), 0, 0
        conn.sendall(b"220 x\r\n")
        for line in lines:
            reply, word = b"250 2.0.0 Ok", line[:4].upper()
            if word == b"MAIL":
                rcpts, rounds = 0, rounds + 1
                if rounds == 2 and not end:
                    return conn.shutdown(socket.SHUT_RDWR)
                reply = end.encode() if 2 <= rounds <= last else reply
            elif word == b"RCPT":
                rcpts += 1
                reply = b"452 4.5.3 Error: too many recipients" if rcpts > 2 else reply
            elif word == b"DATA":
                conn.sendall(b"354 go\r\n")
                notes.append(b"".join(iter(lines.readline, b".\r\n")))
            conn.sendall(reply + b"\r\n")

    p = Posthouse("", dns=dns)
    (p.dir / "spool/public").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(p.dir / "spool/public/submit.sock"))
        s.listen()
        threading.Thread(target=lambda: serve(s.accept()[0]), daemon=True).start()
        r = p.run("-f", "a@x.example", *"abcde", face="sendmail", stdin="Subject: list\n\nhello\n")
    told = end != "" and last == 2
    assert r.returncode == (0 if told else 75) and len(notes) == (2 if told else 1), r
    left = re.findall(r"<(\w)\S*>: (.*)", r.stderr)
    assert [who for who, _ in left] == ["c", "d", "e"] and {why for _, why in left} == {end or "the daemon did not answer"}
    assert not told or [who in notes[1] for who in (b"\n<b", b"\n<c", b"\n<e")] == [False, True, True]


def test_options_take_the_arguments_that_postfix_gives_them(pair):
    """-c and -v have none, so the recipient behind them is one; an option that Postfix does not have sends nothing."""
    p, relay = pair
    for option in ("-c", "-v", "-x", "-n", "-U"):
        assert send(p, relay, "-f", "me@x.example", option, "a@far.example", "b@far.example")[0] == ["a@far.example", "b@far.example"]
    mark = f"mark-{next(n)}-"
    r = p.run("-f", "me@x.example", "-d", "a@far.example", "b@far.example", face="sendmail", stdin=f"Subject: {mark}\n\nx\n")
    assert r.returncode != 0
    send(p, relay, "-f", "me@x.example", "c@far.example")
    assert not any(mark.encode() in m["content"] for m in relay.mails)


def test_full_names_are_quoted_where_they_must_be(pair):
    for name, want in (("Joe User", "Joe User"), ("Joe \"X\" O'Neil", "\"Joe \\\"X\\\" O'Neil\""), ("Dr. J.", "\"Dr. J.\"")):
        _, content, _ = send(*pair, "-f", "joe", "-F", name, "a@far.example")
        assert f"\r\nFrom: {want} <joe@own.example>\r\n" in content


def test_international_addresses_are_detected(pair):
    p, relay = pair
    r = p.run("-t", "-f", "me@x.example", face="sendmail", stdin="To: j\u00f6rg@far.example\n\nx\n")
    assert r.returncode == 0, r.stderr
    p.wait_log("to=<j\u00f6rg@far.example>")


def test_dialogue(pair):
    """-bs: what Symfony, Laravel and Nextcloud start."""
    p, relay = pair
    mark = f"mark-{next(n)}-"
    r = p.run("-bs", face="sendmail", stdin="EHLO [127.0.0.1]\r\nMAIL FROM:<me@x.example>\r\nRCPT TO:<a@far.example>\r\nDATA\r\n"
              f"Subject: {mark}\r\n\r\nx\r\n.\r\nQUIT\r\n")
    assert [line[:3] for line in r.stdout.splitlines() if line[3] == " "] == ["220", "250", "250", "250", "354", "250", "221"]
    assert got(relay, mark.encode())[0] == ["a@far.example"]


def test_other_modes(pair):
    p, _ = pair
    r = p.run("-bv", "a@far.example", "b@-bad..example", face="sendmail")
    assert r.returncode == 0
    assert "a@far.example... deliverable" in r.stdout and "b@-bad..example... undeliverable" in r.stdout
    assert p.run("-bp", face="sendmail").returncode == 0
    for args in (["-bi"], ["-I"], ["-q"], ["-q30m"], ["-qRfar.example"], ["-qINOSUCH"]):
        assert p.run(*args, face="sendmail").returncode == 0, args
    waiting = p.run(face="mailq").stdout
    for face, *args in (["sendmail", "-C", p.dir / "main.cf", "-bp"], ["mailq", "-C", p.dir / "main.cf"], ["sendmail", "-C", p.dir, "-bp"]):
        r = p.run(*args, face=face)
        assert (r.returncode, r.stdout, r.stderr) == (0, waiting, ""), args
    (p.dir / "other").write_text("ann: ann@far.example\n")
    for i, (face, *args) in enumerate((["sendmail", "-bi"], ["newaliases"])):
        assert p.run(*args, f"-oAhash:{p.dir}/other", face=face).returncode == 0
        (p.dir / "other.db").unlink()
    for face, *args in (["sendmail", "-qI"], ["sendmail", "-qR"], ["sendmail", "-qSfar.example"], ["mailq", "x"], ["newaliases", "x"]):
        r = p.run(*args, face=face)
        assert (r.returncode, r.stdout) == (64, "") and f"{face}: fatal: " in r.stderr, args
    assert p.run("-qRfar example", face="sendmail").returncode == 69


@pytest.mark.parametrize("more,said", [("", True),
                                       ("virtual_alias_maps = inline:{{{{other@mta.example=x@far.example}}}}\n", True),
                                       ("mydestination =\n", False), ("myorigin = own.example\n", False),
                                       ("local_transport = smtp:[127.0.0.1]:9\n", False),
                                       ("transport_maps = inline:{{{{mta.example=smtp:[127.0.0.1]:9}}}}\n", False)])
def test_check_says_where_crons_mail_goes(dns, more, said):
    """Mail for root@myorigin, where that is a name of mydestination and nothing says where it goes: it waits, and check says why."""
    with Posthouse("relayhost = [127.0.0.1]:9\nalias_maps = hash:/etc/aliases\n" + more, dns=dns) as p:
        assert ("such as cron's for root" in (r := p.run("check")).stdout + r.stderr) == said
        r = p.run("-i", "-FCronDaemon", "-oem", "root", face="sendmail", stdin="From: root (Cron Daemon)\nTo: root\n\nx\n")
        assert r.returncode == 0, r.stderr
        reason = "local is not a transport of Posthouse" if said else "Connection refused"
        p.wait_log(rf"to=<root@\w+\.example>, .*status=deferred \(.*{reason}")


def test_a_daemon_that_restarts_is_waited_for(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.stop()
        done = []
        t = threading.Thread(target=lambda: done.append(p.run("b@y.example", face="sendmail", stdin="Subject: waited\n\nx\n")))
        t.start()
        time.sleep(0.3)  # it is waiting by now, or finds the daemon at once
        p.start()
        wait_ended(t)
        assert done[0].returncode == 0, done[0].stderr
        relay.wait_mail(b"Subject: waited")
        p.stop()
        assert p.run("b@y.example", face="sendmail", stdin="x\n").returncode == 75
        p.start()
    relay.stop()


def test_a_mistake_in_the_configuration_keeps_no_mail(dns):
    """While the daemon goes on with what it has, programs can hand over their mail and see the queue; 75 where main.cf is gone."""
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        main, master = (p.dir / "main.cf").read_text(), (p.dir / "master.cf").read_text()
        mistakes = ("message_size_limit = many\n", ""), ("", "smtp innet n - n - - smtpd\n"), ("", "four fields of it\n")
        for n, (more, lines) in enumerate(mistakes):
            (p.dir / "main.cf").write_text(main + more)
            (p.dir / "master.cf").write_text(master + lines)
            r = p.run("b@y.example", face="sendmail", stdin=f"Subject: given-{n}-\n\nx\n")
            assert r.returncode == 0 and "sendmail: warning: " in r.stderr, r.stderr
            relay.wait_mail(f"given-{n}-".encode())
            assert p.run(face="mailq").returncode == p.run("-f", face="postqueue").returncode == 0
        (p.dir / "main.cf").unlink()
        assert p.run("b@y.example", face="sendmail", stdin="x\n").returncode == 75
        assert p.run("-C", f"{p.dir}/none", "b@y.example", face="sendmail", stdin="x\n").returncode == 75
        (p.dir / "main.cf").write_text(main)


def test_a_closed_pipe_does_no_harm(pair):
    """A program that does not read what sendmail says, and a daemon that hangs up, end it with a status, not a signal."""
    p, _ = pair
    env = dict(os.environ, MAIL_CONFIG=str(p.dir))
    read, write = os.pipe()
    os.close(read)
    r = subprocess.run(["sh", "-c", f"exec {p.dir}/cmd-sendmail/sendmail -bs"], env=env, stdin=subprocess.DEVNULL, stdout=write,
                       stderr=subprocess.DEVNULL)
    os.close(write)
    assert r.returncode >= 0


def test_a_line_that_only_looks_like_the_end(pair):
    """A dot alone ends the message; a dot and a blank do not."""
    _, content, _ = send(*pair, "-f", "me@x.example", "a@far.example", body="one\n. \n.\t\ntwo\n.\nthree\n")
    assert content.endswith("one\r\n. \r\n.\t\r\ntwo\r\n")


def test_addresses_behind_an_address(pair):
    assert send(*pair, "-t", "-f", "me@x.example", header="To: <a@far.example> <b@far.example>, C <c@far.example> (x)\n")[0] == \
        [f"{x}@far.example" for x in "abc"]
    assert send(*pair, "-t", "-f", "me@x.example", header="To: A <a@far.example> b@far.example\n")[0] == ["a@far.example", "b@far.example"]


def test_many_bad_recipients_keep_no_good_one(pair):
    p, relay = pair
    bad = [f"b{i}@-bad..example" for i in range(40)]
    mark = f"mark-{next(n)}-"
    r = p.run("-f", "", *bad[:20], "good@far.example", *bad[20:], face="sendmail", stdin=f"X: {mark}\n\nx\n")
    assert r.returncode == 0 and got(relay, mark.encode())[0] == ["good@far.example"]


def test_a_first_line_with_a_blank_continues_no_field_of_ours(pair):
    _, content, _ = send(*pair, "-f", "me@x.example", "a@far.example", header=" <evil@evil.example>\n")
    assert "\r\n\r\n <evil@evil.example>\r\n" in content


FULL_NAMES = {  # as Debian 13's sendmail writes them
    "Jörg Müller": "=?utf-8?Q?J=C3=B6rg_M=C3=BCller?=", "J. Müller, X": "=?utf-8?Q?J=2E_M=C3=BCller=2C_X?=",
    " (é)\t": "=?utf-8?Q?=28=C3=A9=29?=",
    "日本語 太郎": "=?utf-8?Q?=E6=97=A5=E6=9C=AC=E8=AA=9E_=E5=A4=AA=E9=83=8E?=", "a_b é=?": "=?utf-8?Q?a=5Fb_=C3=A9=3D=3F?=", "O'Neil": "O'Neil"}


def test_a_full_name_that_is_not_ascii(pair):
    """It is encoded, so that a relay host without SMTPUTF8 takes the mail; the words of a long one are whole characters each."""
    p, relay = pair
    before = len(relay.mails)
    for name, written in FULL_NAMES.items():
        _, content, _ = send(p, relay, "-f", "me@x.example", "-F", name, "a@far.example")
        assert re.search(r"(?m)^From: (.*)\r$", content)[1] == f"{written} <me@x.example>"
    for name in ("é" * 70, "abcdefgh ijklmnop é " * 7 + "z", "字" * 41):
        _, content, _ = send(p, relay, "-f", "me@x.example", "-F", name, "a@far.example")
        words = re.search(r"(?ms)^From: (.*?) <me@x.example>\r\n", content)[1].split("\r\n\t")
        assert len(words) > 1 and all(len(w) <= 75 and w.isascii() for w in words)
        assert "".join(b.decode(c) for w in words for b, c in email.header.decode_header(w)) == name
    assert not any("SMTPUTF8" in m["from"] for m in relay.mails[before:])


RATES = "smtpd_client_message_rate_limit = 1\nsmtpd_client_recipient_rate_limit = 1\nsmtpd_client_event_limit_exceptions =\n"
OVERRIDES = ("-o message_size_limit=600 -o line_length_limit=512 -o smtpd_client_message_rate_limit=1 "
             "-o smtpd_timeout=1s -o smtputf8_enable=no -o smtpd_discard_ehlo_keywords=dsn,smtputf8,pipelining")


@pytest.mark.parametrize("main, line", [(RATES, "smtpd"), ("", "smtpd " + OVERRIDES), ("", "postscreen " + OVERRIDES)],
                         ids=["rates", "overrides", "postscreen"])
def test_what_is_for_clients_is_not_for_programs(dns, main, line):
    """Limits for clients, and what a port's service is told, refuse no mail of sendmail's: cron would not try again."""
    with FakeRelay() as relay:
        p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n{main}", dns=dns)
        (p.dir / "master.cf").write_text(f"127.0.0.1:{p.port} inet n - y - 1 {line}\nsmtp unix - - n - - smtp\n")
        with p:
            for i in range(3):
                r = p.run("-N", "failure", "b@y.example", f"c{'c' * 60}@y.example", face="sendmail",
                          stdin=f"Subject: n{i}\n\n{'x' * 700}\n")
                assert (r.returncode, r.stdout, r.stderr) == (0, "", "")
                assert len(relay.wait_mail(f"Subject: n{i}".encode())["rcpts"]) == 2


def test_programs_send_where_no_port_is_served(dns):
    """A machine that takes no mail from others: master.cf has no smtpd."""
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        (p.dir / "master.cf").write_text("smtp unix - - n - - smtp\n")
        p.reload()
        r = p.run("b@y.example", face="sendmail", stdin="Subject: null client\n\nx\n")
        assert (r.returncode, r.stdout, r.stderr) == (0, "", "")
        relay.wait_mail(b"Subject: null client")
