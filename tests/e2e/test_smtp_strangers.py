"""The SMTP server and clients that mean harm, or that are broken: what they say goes no further than it must."""
import contextlib
import re

import pytest
from kit import SLOW, Client, FakeRelay, Posthouse, free_port, wait_for

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
PLACES = [b"%c", b"NOOP %c", b"%cNOOP", b"HELO a%cb", b"VRFY b%c@y.example", b"MAIL FROM:<a%c@x.example>",
    b"MAIL FROM:<a@x.example> ENVID=q%cq",
          b"RCPT TO:<b@y.example> ORCPT=rf%cc;x", b"RCPT TO:<b@y.example> ORCPT=rfc822;x%cy", b"FOO%c", b"GET %c", b"X-Y: %c",
          b"AUTH PLAIN x%cy",
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
        assert c.reply() == "521 5.5.2 Error: bad syntax" and c.reply() is None


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
        for value in ("a+0Ab", "a+0", "+zz", "x+00y", ""):
            assert c.cmd(f"{FROM} AUTH={value}")[:3] in ("501", "555"), value
        for value in ("<>", "a+2Bb@x.example"):
            assert c.cmd(f"{FROM} AUTH={value}") == "250 2.1.0 Ok", value
            c.cmd("RSET")


def talk(c, lines):
    """Replies, line by line; what follows a CR LF inside of a line is content."""
    said = []
    for line in lines:
        try:
            c.raw(line + (b"" if b"\r\n" in line else b"\r\n"))
            said.append((c.reply() or "EOF").split("\n")[0])
        except OSError:
            said.append("EOF")
        if said[-1] == "EOF" or said[-1].startswith("421"):  # a reset may overtake the 421
            said[-1] = "over"
            break
    return said


F, T, F2 = FROM.encode(), TO.encode(), b"MAIL FROM:<c@x.example>"
BDAT = {
    "a recipient after a chunk": [F, T, b"BDAT 4\r\nabcd", T, F2, b"DATA", b"RSET", b"DATA", b"RCPT TO:<>", F, T, b"RSET"],
    "no recipients": [F, b"RCPT TO:<", b"BDAT 5\r\nabcde", b"BDAT 2\r\nab", b"NOOP", b"BDAT 6 LAST\r\nabcdef", T, F, T],
    "no transaction": [b"BDAT 6\r\nabcdef", b"BDAT 7 LAST\r\nabcdefg", b"BDAT 1 LAST\r\nx", F, b"BDAT 0 LAST", T, b"BDAT 0 LAST"],
    "an empty chunk": [F, T, b"BDAT 0", b"BDAT 3 LAST\r\nabc", T, F, T, b"BDAT 3\r\nx\r\n", b"BDAT 0", b"BDAT 0 LAST", b"NOOP"],
    "refused, then RSET": [F, b"BDAT 5\r\nabcde", b"RSET", F, T, b"NOOP"],
    "refused, then EHLO": [F, b"BDAT 5\r\nabcde", b"EHLO again", F, T, b"NOOP"],
    "nothing": [b"BDAT"], "no number": [F, T, b"BDAT x"], "a word too many": [F, T, b"BDAT 5 LAST x"], "another word": [F, T,
    b"BDAT 5 FIRST"],
    "a sign": [b"BDAT -1"], "too long a number": [b"BDAT 18446744073709551616 LAST"]}


@pytest.fixture(scope="module")
def postfix(tmp_path_factory):
    import pathlib, sys
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "compat"))
    import pair
    d = tmp_path_factory.mktemp("postfix-dns")
    d.chmod(0o755)
    d.parent.chmod(0o755)
    names = pair.NameServer(d, [])
    p = pair.Postfix(names)
    yield p
    p.stop()
    names.stop()


def both(postfix, dns, conf, dialogues):
    """The replies of Debian's Postfix and of Posthouse, and what each logged of those sessions."""
    conf = "smtpd_peername_lookup = no\nrelayhost = [127.0.0.1]:9\n" + conf
    said = []

    def sessions(port):
        replies = []
        for lines in dialogues:
            with Client(port) as c:
                replies.append(talk(c, lines))
        return replies

    def lines(log):
        keep = [re.sub(r"^.*?: ", "", l) for l in log().splitlines() if "smtpd[" in l and re.search(r"reject:|disconnect| after ", l)]
        own = [l for l in keep if "after CONNECT" not in l and "commands=0" not in l and "pipelining" not in l]
        keep = [re.sub(r"^[0-9A-F]{6,}|^\w{11,}:", "QID", l) for l in own]
        return sorted(keep) if sum("disconnect" in l for l in keep) >= len(dialogues) else None
    postfix.case(conf, {}, "")
    try:
        said.append((sessions(postfix.port), wait_for(lambda: lines(postfix.new_log), 15, 0.3)))
    finally:
        postfix.over()
    with Posthouse(conf, dns=dns) as p:
        said.append((sessions(p.port), wait_for(lambda: lines(p.log))))
    return said


GIVEN = ["+FF", "a+C3+A4b", "+80", "a+20b", "a+2Bb", "a", "", "+", "a+2", "a+2b", "+C3", "<>", "a=b", "a+3Db", "+zz"]
ESCAPED = ["\\x{E4}", "a\\x{e4}b", "\\x{41}", "\\x{110000}", "\\x{}", "\\x{4G}", "\\x{41", "a\\b", "a b", "ä@x", "€"]


@pytest.mark.parametrize("utf8", ["", " SMTPUTF8"], ids=["ascii", "utf8"])
def test_parameters_of_reports_like_postfix(postfix, dns, utf8):
    """What may be hidden in ENVID and ORCPT, but for control characters, which Postfix takes in ORCPT."""
    envid = [line for v in GIVEN for line in (f"{FROM}{utf8} ENVID={v}".encode(), b"RSET")]
    kinds = [[f"{TO} ORCPT={kind};{v}".encode() for v in GIVEN + ESCAPED if not (kind == "utf-8" and v in ("\\x{}", "\\x{41"))]
             for kind in ("rfc822", "utf-8", "x400")]
    conf = LIMITS + "smtpd_junk_command_limit = 1000\n"
    (theirs, _), (ours, _) = both(postfix, dns, conf, [envid, *([FROM.encode() + utf8.encode(), *lines] for lines in kinds)])
    for lines, a, b in zip([envid, *([b"", *lines] for lines in kinds)], theirs, ours):
        assert list(zip(lines, b)) == list(zip(lines, a))


def test_what_is_hidden_is_never_written_raw(dns):
    """Neither in a report nor at the next hop nor in the log."""
    with FakeRelay(replies={"RCPT": lambda l: "550 5.1.1 no" if "gone" in l else None}) as relay, \
            Posthouse(LIMITS + f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        with p.client() as c:
            assert c.cmd(f"{FROM} ENVID=a+2Bb+20c").startswith("250")
            for to, orcpt in (("gone1", "rfc822;j+c3+B6+FF+2B=@y.example"), ("gone2", "utf-8;j\\x{F6}+x@y.example"), ("here", "x-a;b+FF")):
                assert c.cmd(f"RCPT TO:<{to}@y.example> ORCPT={orcpt}") == "250 2.1.5 Ok"
            assert c.cmd("DATA").startswith("354")
            c.raw("Subject: hidden\r\n\r\nx\r\n.\r\n")
            assert c.reply().startswith("250")
        report = relay.wait_mail(b"Delivery report")["content"]
        assert b"\r\nOriginal-Envelope-Id: a+b c\r\n" in report
        assert b"\r\nOriginal-Recipient: rfc822;j+C3+B6+FF+2B+3D@y.example\r\n" in report
        assert b"\r\nOriginal-Recipient: utf-8;j\\x{F6}\\x{2B}x@y.example\r\n" in report
        said = [line for s in relay.sessions for line in s.commands if "ORCPT" in line or "ENVID" in line]
        assert any(line.endswith("ENVID=a+2Bb+20c") for line in said)
        assert any(line.endswith("ORCPT=x-a;b+FF") for line in said)
        assert any(line.endswith("ORCPT=utf-8;j\\x{F6}\\x{2B}x@y.example") for line in said)
        assert all(line.isascii() for line in said) and p.log().isascii()


def queue_ids(replies):
    return [[re.sub(r"(\d+ bytes )?queued as \w+", "queued", r) for r in dialogue] for dialogue in replies]


def test_chunks_like_postfix(postfix, dns):
    (theirs, their_log), (ours, our_log) = both(postfix, dns, LIMITS, BDAT.values())
    for name, a, b in zip(BDAT, queue_ids(theirs), queue_ids(ours)):
        assert b == a, name
    assert [l for l in our_log if "disconnect" in l] == [l for l in their_log if "disconnect" in l]


DATA = [[F, T, b"BDAT 4\r\nabcd", T, b"NOOP", b"BDAT 3\r\nabc", b"BDAT 3 LAST\r\nabc", b"RSET", F, T, b"BDAT 9 LAST\r\nabcdefghi", T,
         b"NOOP"],
        [F, T, b"DATA", b"RSET"]]  # where DATA is refused


@pytest.mark.parametrize("restrictions", ["reject", "check_sender_access inline:{{ a@x.example = REJECT no chunks }}", "permit",
                                          "check_sender_access inline:{{ c@x.example = REJECT no chunks }}"], ids=["reject", "table",
                                          "permit", "table-permits"])
def test_data_restrictions_hold_for_chunks(postfix, dns, restrictions):
    """smtpd_data_restrictions are asked before the first chunk, and a chunk that is refused is read all the same."""
    conf = LIMITS + f"smtpd_data_restrictions = {restrictions}\n".replace("{{", "{{{{").replace("}}", "}}}}")
    (theirs, their_log), (ours, our_log) = both(postfix, dns, conf, DATA[:1] if "permit" in restrictions or "c@x" in restrictions else DATA)
    assert queue_ids(ours) == queue_ids(theirs)
    assert our_log == their_log


def test_what_the_log_says_of_an_unfinished_chunk(dns, relay):
    with Posthouse(LIMITS + f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_timeout = 1s\n", dns=dns) as p:
        with p.client() as c:
            c.cmd(FROM), c.cmd(TO)
            assert c.cmd("BDAT 2000\r\nsome bytes of it") == "421 4.4.2 mta.example Error: timeout exceeded"
        p.wait_log(r"timeout after BDAT \(\d+ bytes\) from localhost")
        p.wait_log(r"disconnect from localhost\[127\.0\.0\.1\] ehlo=1 mail=1 rcpt=1 bdat=0/1 commands=3/4")
        with p.client() as c:
            c.cmd(FROM), c.cmd(TO), c.raw("BDAT 70000 LAST\r\nbytes")
        p.wait_log(r"lost connection after BDAT \(\d+ bytes\) from localhost")
        p.wait_log(r"disconnect from localhost\[127\.0\.0\.1\] ehlo=1 mail=1 rcpt=1 bdat=0/1 commands=3/4", count=2)
        Client(p.port, ehlo=None).sock.close()
        p.wait_log(r"disconnect from localhost\[127\.0\.0\.1\] commands=0/0")


JUNK = {"ehlo": [b"EHLO again"] * 9, "helo": [b"HELO again"] * 9, "noop": [b"NOOP"] * 9, "rset": [b"RSET"] * 9,
    "vrfy": [b"VRFY <a@x.example>"] * 9,
        "mail and rset": [F, b"RSET"] * 9, "all": [b"NOOP", b"EHLO x", F, b"RSET", b"HELO x", b"VRFY <a@x.example>", F, T, b"RSET",
        b"NOOP", b"EHLO x", b"NOOP"],
        "errors": [b"junk"] * 5, "auth": [b"AUTH PLAIN x"] * 5,
        "a message": [b"NOOP"] * 4 + [F, T, b"BDAT 9 LAST\r\nx: yyyyy\n"] + [b"NOOP"] * 5 + [b"RSET"] * 4}


@pytest.mark.parametrize("hard", [4, 20])
def test_commands_that_lead_nowhere_end_the_session_as_in_postfix(postfix, dns, hard):
    conf = f"smtpd_junk_command_limit = 2\nsmtpd_hard_error_limit = {hard}\nsmtpd_soft_error_limit = 1000\n"

    (theirs, their_log), (ours, our_log) = both(postfix, dns, conf, JUNK.values())
    for name, a, b in zip(JUNK, queue_ids(theirs), queue_ids(ours)):
        assert b == a, name
    assert [l for l in our_log if "many errors" in l] == [l for l in their_log if "many errors" in l]


CODES = (421, 521, 450, 499, 550, 599)


def test_a_table_ends_the_session_as_in_postfix(postfix, dns):
    """421 and 521 of an access table: at RCPT, of a sender, at DATA and at BDAT."""
    inline = lambda domain: ", ".join(f"{{{{ {k}@{domain} = {k} go away }}}}" for k in CODES)
    for stage in ("recipient", "sender", "data"):
        domain = "y.example" if stage == "recipient" else "x.example"
        table = "check_recipient_access" if stage == "recipient" else "check_sender_access"
        conf = LIMITS + f"smtpd_{stage}_restrictions = {table} inline:{{{{ {inline(domain)} }}}}\n"
        ends = [[b"DATA", b"NOOP"], [b"BDAT 9 LAST\r\nx: yyyyy\n", b"NOOP"]] if stage == "data" else [[b"NOOP", T, b"NOOP"]]
        dialogues = [[F if domain[0] == "y" else b"MAIL FROM:<%d@x.example>" % k,
                      b"RCPT TO:<%d@y.example>" % k if domain[0] == "y" else T, *end] for k in CODES for end in ends]
        (theirs, their_log), (ours, our_log) = both(postfix, dns, conf, dialogues)
        for lines, a, b in zip(dialogues, theirs, ours):
            assert b == a, lines
        assert [l for l in our_log if "after" not in l] == [l for l in their_log if "after" not in l]


def test_transports_that_refuse_like_postfix(postfix, dns):
    """The enhanced status code of an error: or retry: is the rule's own, also if it is x.0.0."""
    rules = {"five": "error:5.0.0 no", "own": "error:5.7.2 no", "plain": "error:no", "retry": "retry:4.0.0 x",
             "soon": "retry:soon", "odd": "retry:5.7.2 x"}
    conf = LIMITS + "transport_maps = inline:{{ " + ", ".join(f"{{{{ {k}.test = {v} }}}}" for k, v in rules.items()) + " }}\n"
    lines = [F, *(f"RCPT TO:<a@{k}.test>".encode() for k in rules)]
    (theirs, _), (ours, _) = both(postfix, dns, conf, [lines])
    assert list(zip(lines, ours[0])) == list(zip(lines, theirs[0]))


def told(port, lines):
    """The first line of each reply to lines that are sent at once, to the end."""
    with Client(port) as c:
        said = []
        with contextlib.suppress(OSError):
            c.raw(b"".join(line + (b"" if b"\r\n" in line else b"\r\n") for line in lines))
            while (r := c.reply()) is not None:
                said.append(r.split("\n")[0])
        return said


def test_mistakes_in_pipelines_end_the_session_as_in_postfix(postfix, dns):
    """After a message the counts begin anew; which limit is reached first, the last reply says alike."""
    dialogues = list(JUNK.values()) + [
        [b"junk"] * 3 + [F, T, b"BDAT 9 LAST\r\nx: yyyyy\n"] + [b"junk"] * 9, [F] + [b"RCPT TO:bad bad"] * 9,
        [b"VRFY"] * 2 + [b"NOOP"] * 3 + [b"junk"] * 9, [F, T, b"BDAT 9 LAST\r\nx: yyyyy\n"] * 3 + [b"RSET"] * 20, [b"DATA", b"BDAT 0 LAST"] * 9]
    conf = ("smtpd_peername_lookup = no\nrelayhost = [127.0.0.1]:9\nsmtpd_junk_command_limit = 2\nsmtpd_hard_error_limit = 5\n"
            "smtpd_soft_error_limit = 3\nsmtpd_error_sleep_time = 0\n")
    postfix.case(conf, {}, "")
    try:
        theirs = [told(postfix.port, lines + [b"QUIT"]) for lines in dialogues]
    finally:
        postfix.over()
    with Posthouse(conf, dns=dns) as p:
        ours = [told(p.port, lines + [b"QUIT"]) for lines in dialogues]
    for lines, a, b in zip(dialogues, queue_ids(theirs), queue_ids(ours)):
        assert b == a, lines


def test_too_many_recipients_like_postfix(postfix, dns):
    conf = LIMITS + "smtpd_hard_error_limit = 3\nsmtpd_recipient_limit = 2\nsmtpd_recipient_overshoot_limit = 4\n"
    conf = conf.replace("smtpd_hard_error_limit = 1000\n", "")
    dialogues = [[F] + [T] * 6 + [b"BDAT 9 LAST\r\nx: yyyyy\n"], [F] + [T] * 12, [F] + [T] * 6 + [b"RSET", F] + [T] * 12,
                 [F] + [T] * 3 + [b"RCPT TO:<bad bad>", T + b" NOTIFY=x", T, b"RCPT TO:<bad bad>", T]]
    (theirs, their_log), (ours, our_log) = both(postfix, dns, conf, dialogues)
    assert queue_ids(ours) == queue_ids(theirs)
    assert [l for l in our_log if "disconnect" in l] == [l for l in their_log if "disconnect" in l]


def test_after_too_many_mistakes_each_command_is_slow(dns, relay):
    """Not only each further mistake; a message that is taken ends it.  The log of states says when the session slept."""
    p = Posthouse("smtpd_soft_error_limit = 2\nsmtpd_hard_error_limit = 20\nsmtpd_error_sleep_time = 1s\nrelay_threads = 1\n"
                  f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns)
    p.extra_env["POSTHOUSE_TRACE"] = "1"
    slept = lambda: p.log().count("command -> sleep") + p.log().count("wait -> sleep")
    with p, p.client() as c:
        for line in ("junk", "junk", "NOOP", "EHLO x"):
            c.cmd(line)
        assert slept() == 0
        for line, n in (("junk", 1), ("NOOP", 2), ("EHLO x", 3), (FROM, 4), (TO, 5)):
            c.cmd(line)
            wait_for(lambda: slept() == n)
        assert c.cmd("DATA").startswith("354")
        c.raw("Subject: x\r\n\r\n")
        c.raw("slow\r\n.\r\n")
        assert c.reply().startswith("250 2.0.0 Ok: queued as")
        assert c.cmd("junk").startswith("500") and c.cmd("NOOP").startswith("250")
        assert slept() == 5


def test_a_client_that_reads_nothing_is_bounded(dns):
    """EHLO for ever, and no reply is read: the server stops reading too, and hangs up after smtpd_junk_command_limit."""
    import socket
    with Posthouse(LIMITS + "relayhost = [127.0.0.1]:9\nsmtpd_junk_command_limit = 100000000\n", dns=dns) as p:
        status = lambda: int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{p.child('relay')}/status").read())[1])
        before = status()
        with socket.create_connection(("127.0.0.1", p.port)) as s:
            s.settimeout(1)
            sent = 0
            try:
                while sent < 40_000_000:
                    sent += s.send(b"EHLO abc\r\n" * 1000)
            except TimeoutError:
                pass
        assert sent < 40_000_000 and status() - before < (20_000 if SLOW == 1 else 300_000)
    with Posthouse("relayhost = [127.0.0.1]:9\nsmtpd_error_sleep_time = 0\n", dns=dns) as p, p.client() as c:
        c.raw(b"EHLO abc\r\n" * 200)
        while (r := c.reply()) and not r.startswith("421"):
            pass
        assert r == "421 4.7.0 mta.example Error: too many errors"
        p.wait_log("too many errors after EHLO from")


def test_a_domain_of_many_labels_escapes_no_rule(dns):
    """A domain may have 128 labels, and each of its parents is asked for, as in Postfix; so it is with longer names in HELO."""
    deep = "b." * 114
    with FakeRelay() as inner, FakeRelay() as outer:
        conf = (LIMITS + f"relayhost = [127.0.0.1]:{outer.port}\ntransport_maps = texthash:{{dir}}/transport\n"
                "smtpd_client_restrictions = check_helo_access texthash:{dir}/helo\n"
                "smtpd_sender_restrictions = check_sender_access texthash:{dir}/sender\n"
                "smtpd_recipient_restrictions = check_recipient_access texthash:{dir}/recipient\n")
        files = {"transport": f".inner.example smtp:[127.0.0.1]:{inner.port}\n", "helo": "liar.example REJECT\n",
                 "sender": "spam.example REJECT\nlast@ REJECT\n", "recipient": "closed.example REJECT\n"}
        with Posthouse(conf, files=files, dns=dns) as p:
            assert p.send(rcpts=(f"b@{deep}inner.example",)).startswith("250")
            wait_for(lambda: inner.mails)
            assert outer.mails == []
            assert "Sender address rejected" in p.send(sender=f"a@{deep}spam.example")
            assert "Sender address rejected" in p.send(sender=f"last@{deep}good.example")
            assert "Recipient address rejected" in p.send(rcpts=(f"b@{deep}closed.example",))
            for before in ("", "b.", deep, deep * 4, "b" * 300 + "."):
                with p.client(ehlo=f"{before}liar.example") as c:
                    assert "Helo command rejected" in c.mail(), before


NAMES = [b"a.bank.example([192.0.2.77])by;(\"<q>@r\\", b"two words", b"x\xc3\xa4y", b"[IPv6:2001:db8::1]", b"a,b:c'd=e%f"]
NO_UTF8 = [b"MAIL FROM:<\xff@x.example> SMTPUTF8", b"RCPT TO:<\xc3(@y.example>", b"VRFY \xe4", b"NOOP \xc0\xaf", b"EHLO \xed\xa0\x80z", b"\x80"]


@pytest.mark.parametrize("utf8", ["yes", "no"])
def test_what_a_client_calls_itself_like_postfix(postfix, dns, utf8):
    """It forges no comment of the Received: field, and what is no UTF-8 goes nowhere."""
    lines = [[b"EHLO " + n, F, T, b"BDAT 9 LAST\r\nx: yyyyy\n"] for n in NAMES] + [[l] for l in NO_UTF8 if utf8 == "yes"]
    conf = f"smtputf8_enable = {utf8}\nsmtpd_recipient_restrictions = reject_invalid_helo_hostname, reject\n"
    (theirs, their_log), (ours, our_log) = both(postfix, dns, LIMITS + conf, lines)
    for line, a, b in zip(lines, queue_ids(theirs), queue_ids(ours)):
        assert b == a, line
    helos = lambda log: re.findall(r"RCPT from .*(helo=<.*>)", "\n".join(log))
    assert helos(our_log) == helos(their_log) and len(helos(our_log)) == len(NAMES)


def test_a_received_field_has_no_comment_of_the_clients(mta, relay):
    with mta.client(ehlo=NAMES[0].decode()) as c:
        assert c.mail(sender="received@x.example").startswith("250")
    mail = relay.wait_mail(b"From: received@x.example")
    assert mail["content"].startswith(b"Received: from a.bank.example?[192.0.2.77]?by????q??r? (localhost [127.0.0.1])\r\n\tby ")


def test_strangers_at_one_service_take_no_place_at_another(dns):
    """master.cf's process limit is each service's own."""
    import contextlib, socket
    conf = "relayhost = [127.0.0.1]:9\nrelay_threads = 1\nsmtpd_client_connection_count_limit = 0\n"
    with contextlib.ExitStack() as idle:
        port = free_port()
        p = idle.enter_context(Posthouse(conf, master=f"127.0.0.1:{port} inet n - n - 1 smtpd\n", dns=dns))
        for _ in range(103):
            idle.enter_context(socket.create_connection(("127.0.0.1", p.port))).recv(1)
        assert Client(port, ehlo=None).greeting.startswith("220")
        for _ in range(100):
            idle.enter_context(socket.create_connection(("127.0.0.1", port))).recv(1)
        wait_for(lambda: Client(port, ehlo=None).greeting.startswith("421 4.3.2"))
        assert p.client(ehlo=None).greeting.startswith("220")
