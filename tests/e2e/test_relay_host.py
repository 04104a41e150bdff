"""Relay hosts that are out of step, ask for too much or say too much; and what content and passwords make of it."""
import base64
import contextlib
import fcntl
import re
import socket
import struct
import termios
import threading
import time
from unittest import mock

import kit
import pytest
from kit import Dns, FakeRelay, Posthouse, free_port, make_cert, server_tls, wait_for

# Around each threshold of the client: a read of the spool, an eager BDAT, what may wait in the output buffer.
SIZES = [1, 4095, 65_535, 65_536, 65_537, 131_072, 262_143, 262_144, 262_145, 327_681, 524_288, 1_300_001]


def sized(n, i):
    """Content of exactly n bytes that names its number; the last lines are empty."""
    head = f"From: a@x.example\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-Id: <{i}@x.example>\r\n\r\n"
    line = (f".{i} " + "z" * 66)[:68] + "\r\n"
    body = (line * (n // len(line) + 1))[:max(0, n - len(head) - 8)]
    return head + body.rstrip("\r\n") + "\r\n" * (1 + i % 3)


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("chunking", [False, True])
def test_large_content_arrives_byte_for_byte(dns, pipelining, chunking):
    """Nothing is written into a message, and the replies after it belong to the messages after it."""
    port = free_port()
    main = f"relayhost = [127.0.0.1]:{port}\nsmtp_destination_concurrency_limit = 1\nrelay_threads = 1\n" \
           "message_size_limit = 5000000\n"
    with Posthouse(main, dns=dns) as p:
        wanted = {}
        for i, size in enumerate(SIZES):
            wanted[f"m{i}@x.example"] = sized(size, i)
            assert p.send(sender=f"m{i}@x.example", content=sized(size, i)).startswith("250")
            assert p.send(sender=f"refuse{i}@x.example").startswith("250")
        p.wait_log("status=deferred")
        refused = lambda line: "550 5.7.1 not this one" if "refuse" in line else None
        relay = FakeRelay(port=port, pipelining=pipelining, chunking=chunking, replies={"MAIL": refused})
        p.run("queue", "flush", check=True)
        wait_for(lambda: len([m for m in relay.mails if "<m" in m["from"]]) == len(SIZES))
        p.wait_log(r"status=bounced \(.* said: 550 5\.7\.1 not this one \(in reply to MAIL FROM command\)\)",
                   count=len(SIZES))
        for m in relay.mails:
            sender = m["from"].split("<")[1].split(">")[0]
            if sender in wanted:
                assert m["content"].split(b"From: ", 1)[1] == wanted[sender].encode().split(b"From: ", 1)[1], sender
        known = re.compile(r"(EHLO|MAIL|RCPT|DATA|BDAT|RSET|QUIT|NOOP)\b")
        assert [c for s in relay.sessions for c in s.commands if not known.match(c)] == []
        relay.stop()


SECRET = "Zq7-provider's own word"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return server_tls(*make_cert(tmp_path_factory.mktemp("cert"), "fallback.server"))


@pytest.mark.parametrize("level", ["may", "encrypt", "verify"])
@pytest.mark.parametrize("found", ["relayhost", "sender"])
@pytest.mark.parametrize("first", ["down", "421", "no AUTH"])
def test_fallback_relay_never_has_a_records_password(dns, tls, found, first, level):
    """The record's account is for the record's hosts; the fallback has what smtp_sasl_password_maps has for it."""
    fallback = FakeRelay("127.0.0.2", auth=("PLAIN", "LOGIN"), tls=tls)
    own = None
    if first != "down":
        own = FakeRelay(auth=("PLAIN",) if first == "421" else (), tls=tls, replies={"MAIL": "421 4.3.2 not today"})
    port = free_port() if own is None else own.port
    main = f"smtp_fallback_relay = [127.0.0.2]:{fallback.port}\nsmtp_tls_security_level = may\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_sasl_tls_security_options = noanonymous\nsmtp_sasl_security_options = noanonymous\n"
    main += "relayhost = Provider\n" if found == "relayhost" else "sender_dependent_relayhost_maps = inline:{{{{@x.example=Provider}}}}\n"
    row = f"[127.0.0.2]:{fallback.port}=fb:fb-word" if first == "down" else "elsewhere=fb:fb-word"
    main += f"smtp_sasl_password_maps = inline:{{{{{row}}}}}\n"
    with Posthouse(main, dns=dns) as p:
        words = ["Provider", f"hosts=[127.0.0.1]:{port}", f"tls={level}", "user=shop", "password"]
        p.run("record", "set", *words, stdin=SECRET + "\n", check=True)
        wait_for(lambda: "reload -- " in p.log())
        p.send()
        mail = fallback.wait_mail(b"hello")
        assert mail["auth"] == (("PLAIN", "fb", "fb-word") if first == "down" else None)
        said = p.run("explain", "a@x.example").stdout
        assert "shop" in said.split(f"[127.0.0.1]:{port}", 1)[1].split("127.0.0.2[127.0.0.2]")[0]
        assert "shop" not in said.split("127.0.0.2[127.0.0.2]", 1)[1]
    fallback.stop()
    if own:
        own.stop()


@pytest.mark.parametrize("sender_dependent", ["no", "yes"])
def test_a_records_account_that_is_refused_is_the_relays_trouble(dns, tls, sender_dependent):
    """A record has one account for all senders: what is refused is not tried again for each mail."""
    relay = FakeRelay(auth=("PLAIN",), users={}, tls=tls)
    main = "relayhost = Provider\nsmtp_destination_concurrency_limit = 1\nsmtp_destination_concurrency_failed_cohort_limit = 1\n" \
           f"smtp_sender_dependent_authentication = {sender_dependent}\n"
    with Posthouse(main, dns=dns) as p:
        p.run("record", "set", "Provider", f"hosts=[127.0.0.1]:{relay.port}", "tls=encrypt", "user=shop", "password", stdin=SECRET + "\n",
              check=True)
        p.send(sender="first@x.example")
        p.wait_log("status=deferred .SASL authentication failed")
        p.send(sender="second@x.example")
        p.wait_log("status=deferred .delivery temporarily suspended: SASL authentication failed")
        assert len(relay.sessions) == 1
    relay.stop()


def test_one_senders_login_at_the_fallback_relay_is_not_the_others(dns, tls):
    """The record's account is for all senders, those of the fallback relay each for one: its refusal says nothing of the others."""
    gate = threading.Event()
    down = FakeRelay(replies={"GREETING": lambda line: gate.wait(60) and "421 4.3.2 not now"})
    fallback = FakeRelay("127.0.0.2", auth=("PLAIN",), users={"cleo": "c-word"}, tls=tls)
    main = f"relayhost = Provider\nsmtp_fallback_relay = [127.0.0.2]:{fallback.port}\nsmtp_sasl_auth_enable = yes\n" \
           "smtp_tls_security_level = may\nsmtp_sasl_tls_security_options = noanonymous\nsmtp_sender_dependent_authentication = yes\n" \
           "smtp_sasl_password_maps = inline:{{ abel@x.example=abel:a-word, cleo@x.example=cleo:c-word }}\n" \
           "smtp_destination_concurrency_limit = 1\nrelay_threads = 1\n"
    with Posthouse(main, dns=dns) as p:
        p.run("record", "set", "Provider", f"hosts=[127.0.0.1]:{down.port}", "tls=may", check=True)
        for sender in ("abel@x.example", "cleo@x.example"):
            assert p.send(sender=sender).startswith("250")
            p.wait_log(f"from=<{sender}>.*queue active")
        wait_for(lambda: down.sessions)
        gate.set()
        p.wait_log("status=deferred .*535")
        assert fallback.wait_mail(b"hello")["auth"] == ("PLAIN", "cleo", "c-word")
        assert p.log().count(" 535 ") == 1
    down.stop()
    fallback.stop()


def test_sender_that_looks_like_a_question_about_a_secret(dns):
    """Addresses are never taken for the relay records' other kind of question."""
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.run("record", "set", "other", "hosts=[127.0.0.1]:9", "user=u", "password", stdin=SECRET + "\n", check=True)
        wait_for(lambda: "reload -- " in p.log())
        for sender in ("=9@x.example", "=", "1", "=1@x.example"):
            assert p.send(sender=sender).startswith("250"), sender
        relay.wait_mails(4)
    relay.stop()


LOGIN = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\nsmtp_sasl_password_maps = static:{user}:{password}\n"


@pytest.mark.parametrize("mech,extra", [("PLAIN", 366), ("PLAIN", 367), ("PLAIN", 368), ("PLAIN", 369), ("PLAIN", 370), ("PLAIN", 2600),
                                        ("LOGIN", 900), ("CRAM-MD5", 700), ("SCRAM-SHA-256", 500)])
def test_long_credentials(dns, mech, extra):
    """What is too long for the AUTH command goes after the first 334, and no line of AUTH is a command of its own."""
    user, password = ("u" * extra, "w0rd") if mech == "SCRAM-SHA-256" else ("u", "w" * extra)
    relay = FakeRelay(auth=[mech], users={user: password})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + LOGIN.format(user=user, password=password), dns=dns) as p:
        p.send()
        assert relay.wait_mail(b"hello")["auth"] == (mech, user, password)
        known = re.compile(r"(EHLO|AUTH|MAIL|RCPT|DATA|RSET|QUIT)\b")
        assert [c for s in relay.sessions for c in s.commands if not known.match(c) or len(c) > 510] == []
    relay.stop()


def repetitions(user, password):
    """Ways in which a peer may repeat a login, each a list of lines."""
    code = lambda text: base64.b64encode(text.encode()).decode()
    blob = code(f"\0{user}\0{password}")
    ways = [password, password.upper(), password[3:13], code(password), code(password)[4:16], blob, blob[8:30], blob[-12:],
            code("xy" + password)[3:], " ".join(blob)]
    return [[w] for w in ways] + [[password[:7], password[7:]], [code(password)[:6], code(password)[6:]]]


@pytest.mark.parametrize("mech", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("stage", ["AUTH", "MAIL", "RCPT", "DATA", "DOT"])
def test_what_repeats_the_login_is_not_shown(dns, stage, mech):
    """In the log, the queue listing, the report and `posthouse test`."""
    password = "Gr33n-Umbrella+77/x"
    ways = repetitions("shop", password)
    code, dsn = ("535", "5.7.8") if stage == "AUTH" else ("450", "4.7.1")
    left = list(ways)

    def say(line):
        lines = ["you said"] + (left.pop(0) if left else ways[0]) + ["and that is wrong"]
        return "\r\n".join(f"{code}{'-' if i + 1 < len(lines) else ' '}{dsn} {text}" for i, text in enumerate(lines))
    relay = FakeRelay(auth=[mech], replies={stage: say})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + LOGIN.format(user="shop", password=password), dns=dns) as p:
        for i in range(len(ways)):
            p.send(sender=f"s{i}@x.example")
        withheld = rf"status=deferred \(.*said: {code} {dsn} \(text withheld: it repeats what was sent at login\)"
        p.wait_log(withheld, count=len(ways) if stage != "AUTH" else 1)
        said = ""
        while stage == "AUTH" and left:  # the destination rests after the first one
            said += p.run("test", "a@x.example", "b@y.example").stdout
        said += p.run("test", "a@x.example", "b@y.example").stdout + p.run("-p", face="postqueue").stdout + str(p.queue()) + p.log()
        flat = re.sub(r"\s", "", said).lower()
        for piece in [re.sub(r"\s", "", text).lower() for way in ways for text in way]:
            assert piece[:8] not in flat and piece[-8:] not in flat, piece
    relay.stop()


@pytest.mark.parametrize("mech", ["LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_a_challenge_that_was_not_asked_for_is_not_shown(dns, mech):
    """A relay host knows the password from an earlier login, and says it where a challenge can stand."""
    password = "Vi0let-Lantern*45"

    def auth(dialogue, line):
        dialogue.conn.sendall(f"334 cj14LHM9eA==\r\n334 {password}\r\n".encode())
        return dialogue.f.readline() != b""
    relay = FakeRelay(auth=[mech])
    with mock.patch.object(kit._Dialogue, "do_auth", auth), \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + LOGIN.format(user="shop", password=password), dns=dns) as p:
        p.send()
        p.wait_log("status=deferred")
        said = p.log() + p.run("test", "a@x.example", "b@y.example").stdout + str(p.queue())
        assert "Vi0let" not in said, said
    relay.stop()


@pytest.mark.parametrize("rule", ["/^(535) (.*)/ $1 replaced $2", "!/^([2-5][0-9][0-9]($|[- ]))/ 250 filler for garbage"])
def test_a_line_that_repeats_the_login_goes_through_no_filter(dns, rule):
    """Its replacement, and a table that cannot be asked, would put it into the log.  Nor does a pattern that fits nothing at all
    (the second one, almost as in postconf(5)) make of the refusal a login that was taken."""
    password = "Cr1mson-Anchor?88"
    relay = FakeRelay(auth=["PLAIN"], replies={"AUTH": f"535 5.7.8 who is {password}"})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_reply_filter = regexp:{{dir}}/filter\n" +
                   LOGIN.format(user="shop", password=password), files={"filter": rule + "\n/^250-DSN/ 250-X\n"},
                   dns=dns) as p:
        p.send()
        p.wait_log("status=deferred")
        assert 'replacing server reply "250-DSN" with "250-X"' in p.log()
        said = p.log() + str(p.queue())
        assert "Cr1mson" not in said and "withheld" in said, said
    relay.stop()


def test_a_filter_that_fails_is_asked_once_for_a_mail(dns):
    """What the relay host has taken is noted soon, however many recipients there are, and what it refused waits."""
    asked = []

    def fails(conn):
        for line in conn.makefile():
            asked.append(line)
            conn.sendall(b"400 out of order\n")
    relay = FakeRelay(replies={"RCPT": lambda line: "550 5.1.1 no such user" if "b3" in line else None})
    with kit.Listener(fails) as table, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_delivery_status_filter = tcp:127.0.0.1:{table.port}\n", dns=dns) as p:
        p.send(rcpts=[f"b{i}@y.example" for i in range(6)])
        p.wait_log(r"status=\w+", count=6)
        assert sorted(re.findall(r"to=<(b\d).*status=(\w+)", p.log())) == [(f"b{i}", "deferred" if i == 3 else "sent") for i in range(6)]
        assert len(asked) == 1, asked
    relay.stop()


def test_a_filter_that_fails_repeats_no_mail(dns):
    """smtp_reply_filter has no answer about what the relay host says to the content: that it has the mail counts, a refusal waits."""
    def fails(conn):
        for line in conn.makefile():
            conn.sendall(b"400 out of order\n" if "dot" in line else b"500 none\n")
    said = iter(["554 5.7.1 dot refused", "250 2.0.0 dot taken"])
    relay = FakeRelay(replies={"DOT": lambda line: next(said)})
    with kit.Listener(fails) as table, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_reply_filter = tcp:127.0.0.1:{table.port}\n"
                      "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n", dns=dns) as p:
        p.send()
        p.wait_log("status=deferred .*local data error")
        p.wait_log(r"status=sent \(250 2.0.0 dot taken\)")
        wait_for(lambda: p.queue() == [])
    relay.stop()


def test_only_334_asks_for_the_password(dns):
    """Any other 3xx is no challenge: nothing of the login follows it."""
    said = []

    def auth(dialogue, line):
        dialogue.conn.sendall(b"334 VXNlcm5hbWU6\r\n")
        said.append(dialogue.f.readline())
        dialogue.conn.sendall(b"354 go on\r\n")
        said.append(dialogue.f.readline())
        return False
    relay = FakeRelay(auth=["LOGIN"])
    with mock.patch.object(kit._Dialogue, "do_auth", auth), \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + LOGIN.format(user="shop", password="Ind1go-Kettle"), dns=dns) as p:
        p.send()
        p.wait_log("status=deferred .*Protocol error: host .* said 354")
        assert said[0].strip() == base64.b64encode(b"shop") and said[1] in (b"", b"QUIT\r\n", b"*\r\n"), said
    relay.stop()


@pytest.mark.parametrize("text", ["login=shop:{}", "{}@shop is wrong", "no:{}.", "shop{}", "2.{}.1"])
def test_a_short_password_inside_a_word_is_not_shown(dns, text):
    relay = FakeRelay(auth=["LOGIN"], replies={"AUTH": "535 5.7.8 " + text.format("k1tten")})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + LOGIN.format(user="shop", password="k1tten"), dns=dns) as p:
        p.send()
        p.wait_log("status=deferred .*text withheld")
        assert "k1tten" not in p.log() + p.run("test", "a@x.example", "b@y.example").stdout + str(p.queue())
    relay.stop()


def test_what_comes_while_a_filter_is_asked_came_before_what_follows(dns):
    """354 is being looked up when a surplus 250 comes: that is no answer to the content, which goes out afterwards."""
    early, contents = threading.Event(), []

    def host(conn):
        f = conn.makefile("rb")
        conn.sendall(b"220 early\r\n")
        for line in f:
            verb = line.split()[0].upper()
            conn.sendall({b"EHLO": b"250 early\r\n", b"DATA": b"354 go\r\n"}.get(verb, b"250 2.0.0 fine\r\n"))
            if verb == b"DATA":
                assert early.wait(20)
                conn.sendall(b"250 2.0.0 taken before it came\r\n")
                wait_for(lambda: fcntl.ioctl(conn, termios.TIOCOUTQ, b"1234") == bytes(4))  # it is there
                came.set()
                contents.append(b"".join(iter(f.readline, b".\r\n")))
                conn.sendall(b"554 5.7.1 spam\r\n")

    def table(conn):
        for line in conn.makefile("rb"):
            if b"354" in line:
                early.set()
                assert came.wait(20)
            conn.sendall(b"500 not%20found\n")
    came = threading.Event()
    with kit.Listener(host) as relay, kit.Listener(table) as server, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_reply_filter = tcp:127.0.0.1:{server.port}\n", dns=dns) as p:
        p.send()
        p.wait_log(r"status=\w+")
        assert "status=deferred" in p.log() and "out of step" in p.log()


def test_a_receipt_that_a_filter_is_asked_about_counts(dns):
    """The host has the mail and says so, and resets the connection while smtp_reply_filter is being asked about that."""
    asked = threading.Event()

    def host(conn):
        f = conn.makefile("rb")
        conn.sendall(b"220 hasty\r\n")
        for line in f:
            verb = line.split()[0].upper()
            conn.sendall({b"EHLO": b"250 hasty\r\n", b"DATA": b"354 go\r\n"}.get(verb, b"250 2.0.0 fine\r\n"))
            if verb == b"DATA":
                contents.append(b"".join(iter(f.readline, b".\r\n")))
                conn.sendall(b"250 2.0.0 taken whole\r\n")
                asked.wait(20)
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                f.close()
                conn.close()
                return

    def table(conn):
        for line in conn.makefile("rb"):
            if b"taken" in line:
                asked.set()
                wait_for(lambda: "status=" in p.log())  # the daemon has heard of the reset
            conn.sendall(b"500 not%20found\n")
    contents = []
    with kit.Listener(host) as relay, kit.Listener(table) as server, \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_reply_filter = tcp:127.0.0.1:{server.port}\n", dns=dns) as p:
        p.send()
        p.wait_log(r"status=sent \(250 2.0.0 taken whole\)")
        assert len(contents) == 1 and "status=deferred" not in p.log()


class Script(FakeRelay):
    """A relay host that answers some commands in its own way: verb to a list of whole replies, and "." to those for the
    end of content, or to a function of the content; "" hangs up.  A verb that is not there gets its usual reply.  With
    CHUNKING enhanced status codes are announced, whatever is said then, unless announces is False."""

    def __init__(self, says, caps="PIPELINING 8BITMIME", times=1000, pause=0, announces=True, **kw):
        self.says, self.caps, self.times, self.pause = says, caps.split(), times, pause
        self.caps += ["ENHANCEDSTATUSCODES"] if "CHUNKING" in caps and announces else []
        self.taken, self.ways, self.quits, self.dialogues = [], [], 0, 0
        self.heard = []  # (number of the dialogue, verb), for what a failure prints
        super().__init__(**kw)

    def _serve(self, conn):
        self.dialogues += 1
        number, f = self.dialogues, conn.makefile("rb")
        usual = {"MAIL": ["250 2.1.0 ok"], "RCPT": ["250 2.1.5 ok"], "DATA": ["354 go"], ".": ["250 2.0.0 taken"],
                 "RSET": ["250 2.0.0 ok"], "QUIT": ["221 bye"],
                 "EHLO": ["\r\n".join(["250-script"] + [f"250-{c}" for c in self.caps] + ["250 HELP"])]}
        says = dict(usual, **(self.says if self.dialogues <= self.times else {}))
        with contextlib.suppress(OSError, ValueError):
            conn.sendall(b"220 script\r\n")
            while line := f.readline():
                verb = line.split()[0].decode().upper()
                self.heard.append((number, verb))
                if verb == "BDAT":
                    content, verb = f.read(int(line.split()[1])), "."
                replies = says.get(verb, ["500 5.5.2 what?"])
                replies = replies(content) if callable(replies) else replies
                time.sleep(self.pause)
                self._say(conn, replies, content if verb == "." else None, b"BDAT")
                if verb == "DATA" and any(r.startswith("354") for r in replies):
                    content = b"".join(iter(f.readline, b".\r\n"))
                    replies = says["."](content) if callable(says["."]) else says["."]
                    self._say(conn, replies, content, b".")
                if "" in replies:
                    break
        with contextlib.suppress(OSError):
            conn.close()

    def _say(self, conn, replies, content, way):
        """Content is noted before the reply goes out: the mail may be gone from the queue as soon as that is there."""
        if content is not None and replies and replies[0].startswith("250"):
            self.taken.append(content)
            self.ways.append(way)
        conn.sendall("".join(r + "\r\n" for r in replies if r).encode())


# What a relay host says.
OUT_OF_STEP = {
    "2xx to DATA": {"DATA": ["250 2.0.0 fine"]},
    "251 to DATA": {"DATA": ["251 2.1.5 will forward"]},
    "3xx to DATA": {"DATA": ["334 VXNlcg=="]},
    "MAIL answered twice": {"MAIL": ["250 2.1.0 ok"] * 2},
    "RCPT answered twice": {"RCPT": ["250 2.1.5 ok"] * 2},
    "MAIL answered twice, content refused": {"MAIL": ["250 2.1.0 ok"] * 2, ".": ["554 5.7.1 spam"]},
    "RCPT answered twice, content refused": {"RCPT": ["250 2.1.5 ok"] * 2, ".": ["554 5.7.1 spam"]},
    "354 to MAIL": {"MAIL": ["354 go"]},
    "3xx to RCPT": {"RCPT": ["334 what"]},
    "354 twice": {"DATA": ["354 go", "354 go"]},
    "354 and 250 at once, content refused": {"DATA": ["354 go", "250 2.0.0 ok"], ".": ["554 5.7.1 spam"]},
    "a reply that begins before the content": {"DATA": ["354 go", "250-2.0.0 begun"], ".": ["250 2.0.0 ended", "554 5.7.1 spam"]},
    "354 to the end of content": {".": ["354 go on"]},
    "334 to the end of content": {".": ["334 go on"]},
    "no reply to MAIL": {"MAIL": [], ".": ["554 5.7.1 spam"]},
    "refused MAIL and taken RCPT": {"MAIL": ["554 5.0.0 once more", "250 2.1.0 ok"], "RCPT": []},
    "530 to MAIL": {"MAIL": ["530 5.7.0 Authentication required"]},
    "530 to RCPT": {"RCPT": ["530 5.7.0 Authentication required"]},
    "535 to MAIL": {"MAIL": ["535 5.7.8 bad credentials"]},
    "503 to DATA": {"DATA": ["503 5.5.1 out of order"]},
    "530 to the end of content": {".": ["530 5.7.0 Must issue a STARTTLS command first"]},
}


# DATA is not used where BDAT can be.
STEP_CASES = [(name, caps) for name, says in OUT_OF_STEP.items() for caps in ("PIPELINING", "", "PIPELINING CHUNKING", "CHUNKING")
              if not ("DATA" in says and "CHUNKING" in caps)
              and ("PIPELINING" in caps or name != "refused MAIL and taken RCPT")]


@pytest.fixture(scope="module")
def steps_day(dns):
    """One daemon, a relay host for each case and capability set, a sender for each relay host."""
    relays, rows, files = {}, {}, []
    for name, caps in STEP_CASES:
        relays[caps, name] = Script(OUT_OF_STEP[name], caps)
        rows[caps, name] = f"s{len(rows)}@x.example"
        files.append(f"{rows[caps, name]} [127.0.0.1]:{relays[caps, name].port}\n")
    main = "sender_dependent_relayhost_maps = texthash:{dir}/hops\n" + "".join(
        f"smtp_{t}_timeout = 3s\n" for t in ("mail", "rcpt", "data_init", "data_xfer", "data_done", "rset"))
    with Posthouse(main, dns=dns, files={"hops": "".join(files)}) as p:
        for sender in rows.values():
            assert p.send(sender=sender).startswith("250")
        qids = {re.search(rf"(\w+): from=<{re.escape(sender)}>", p.log()).group(1) for sender in rows.values()}
        wait_for(lambda: qids <= set(re.findall(r"(\w+): to=<", p.log())))
        yield p.log(), rows, relays
        for r in relays.values():
            r.stop()


@pytest.mark.parametrize("case,caps", STEP_CASES)
def test_relay_host_out_of_step(steps_day, case, caps):
    """Never sent unless it took the content, and never bounced: nothing that it said was about the message."""
    log, rows, relays = steps_day
    relay = relays[caps, case]
    qid = re.search(rf"(\w+): from=<{re.escape(rows[caps, case])}>", log).group(1)
    status = re.search(rf"{qid}: to=.*dsn=(\S+), status=(\w+)", log)
    if status.group(2) == "sent":
        assert relay.taken
    elif status.group(2) == "bounced":  # of a reply too few BDAT cannot tell, but what refused it was about it
        assert case == "no reply to MAIL" and "CHUNKING" in caps and " said: 554 5.7.1 spam" in log
    else:
        assert status.group(2) == "deferred" and status.group(1).startswith("4."), status.group(0)


REFUSED = {"421": "421 4.3.2 not this sender", "450": "450 4.7.1 not this sender", "550": "550 5.7.1 not this sender"}
NOT_YOU = "550 5.1.1 not you"
# What the host says, by verb; what becomes of the mail; how often the host takes it, and by what.
CONTRADICTIONS = {
    **{f"{code} to MAIL, the chunk is taken": ({"MAIL": [says]}, "sent", [b"BDAT"]) for code, says in REFUSED.items()},
    "550 to MAIL, the chunk is refused": ({"MAIL": [REFUSED["550"]], ".": ["554 5.5.1 no sender"]}, "bounced", []),
    "450 to MAIL, the chunk is refused": ({"MAIL": [REFUSED["450"]], ".": ["554 5.5.1 no sender"]}, "deferred", []),
    "550 to MAIL, the chunk is put off": ({"MAIL": [REFUSED["550"]], ".": ["451 4.3.0 later"]}, "bounced", []),
    "550 to MAIL, an end at the chunk": ({"MAIL": [REFUSED["550"]], ".": [""]}, "deferred", []),
    "550 to RCPT, the chunk is taken": ({"RCPT": [NOT_YOU]}, "bounced", [b"BDAT"]),
    "550 to MAIL and RCPT, the chunk is taken": ({"MAIL": [REFUSED["550"]], "RCPT": [NOT_YOU]}, "bounced", [b"BDAT"]),
    "550 to MAIL, and DATA": ({"MAIL": [REFUSED["550"]]}, "bounced", []),
    "550 to RCPT, and an empty message is taken": ({"RCPT": [NOT_YOU]}, "bounced", [b"."]),
    "a reply too many, one too few, the chunk is taken": ({"MAIL": ["250 2.1.0 ok", "550 5.1.0 no"], "RCPT": []}, "deferred", [b"BDAT"]),
    "a reply too many, one too few, and DATA": ({"MAIL": ["250 2.1.0 ok", "550 5.1.0 no"], "RCPT": []}, "deferred", [b"."]),
}


@pytest.fixture(scope="module")
def contradictions(dns):
    """One daemon, and for each case a relay host that gets one message."""
    relays, hops = [], ""
    for i, (name, (says, _, _)) in enumerate(CONTRADICTIONS.items()):
        relays.append(Script(says, "PIPELINING" if "DATA" in name or "empty" in name else "PIPELINING CHUNKING"))
        hops += f"c{i}@x.example [127.0.0.1]:{relays[i].port}\n"
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\nminimal_backoff_time = 300s\n", dns=dns,
                   files={"hops": hops}) as p:
        for i in range(len(relays)):
            assert p.send(sender=f"c{i}@x.example", rcpts=[f"u{i}@y.example"]).startswith("250")
        p.wait_log(r"to=<u\d+@y\.example>.*status=", count=len(relays))
        results = {int(i): (status, words) for i, status, words in re.findall(r"to=<u(\d+)@y.*status=(\w+) (.*)", p.log())}
        yield {name: (*results[i], relays[i].ways) for i, name in enumerate(CONTRADICTIONS)}
        for r in relays:
            r.stop()


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_host_that_contradicts_itself(contradictions, case):
    """What it took whole, for a recipient that it took, is sent and not given to it again; what it took for no recipient is asked
    for once more, one command at a time."""
    status, words, ways = contradictions[case]
    assert (status, ways) == CONTRADICTIONS[case][1:], words
    if status == "bounced":
        assert ("not you" if "550 to RCPT" in case else "not this sender") in words


@pytest.mark.parametrize("caps", ["PIPELINING", "", "PIPELINING CHUNKING"])
def test_what_was_taken_before_stays_sent(dns, caps):
    """A reply that nothing waits for ends the session; mail before it stays sent, mail after it goes by another one."""
    relay = Script({".": ["250 2.0.0 taken", "250 2.0.0 taken again"]}, caps, times=2)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_destination_concurrency_limit = 1\nminimal_backoff_time = 1s\n"
                   "maximal_backoff_time = 1s\nqueue_run_delay = 1s\n", dns=dns) as p:
        for i in range(5):
            assert p.send(sender=f"t{i}@x.example", content=f"Subject: t{i}\r\n\r\nhello\r\n").startswith("250")
        wait_for(lambda: p.queue() == [])
        assert {re.search(rb"Subject: (t\d)", c).group(1) for c in relay.taken} == {b"t%d" % i for i in range(5)}
        assert "bounced" not in p.log()
    relay.stop()


def twice(content):
    """Two replies to each last chunk, each about its own message; m2 is refused."""
    subject = re.search(rb"Subject: (\w+)", content).group(1).decode()
    return [f"554 5.7.1 no {subject}" if subject == "m2" else f"250 2.0.0 taken {subject}"] * 2


@pytest.mark.parametrize("pause", [0, 0.03])
@pytest.mark.parametrize("codes", [True, False])
def test_content_that_is_always_answered_twice(dns, codes, pause):
    """What was said of one message is no other's result: none is lost and none is bounced for another."""
    bare = lambda content: [re.sub(r" \d\.\d\.\d", "", r) for r in twice(content)]
    says = {".": twice} if codes else {"MAIL": ["250 ok"], "RCPT": ["250 ok"], "RSET": ["250 ok"], ".": bare}
    port = free_port()
    main = f"relayhost = [127.0.0.1]:{port}\nsmtp_destination_concurrency_limit = 1\nrelay_threads = 1\nminimal_backoff_time = 300s\n"
    with Posthouse(main, dns=dns) as p:
        for i in range(7):
            p.send(sender=f"m{i}@x.example", content=f"Subject: m{i}\r\n\r\nhello\r\n")
        p.wait_log("status=deferred", count=7)
        relay = Script(says, "PIPELINING CHUNKING", port=port, pause=pause)
        p.run("queue", "flush", check=True)
        wait_for(lambda: p.log().count("status=") >= 14)
        qids = dict(re.findall(r"(\w+): from=<(m\d)@x", p.log()))
        for qid, status, words in re.findall(r" (\w+): to=<b@y.example>.*status=(\w+) \((.*)\)", p.log()):
            if status == "sent":
                assert any(b"Subject: %s\r" % qids[qid].encode() in c for c in relay.taken), (qids[qid], words)
            assert status != "bounced" or f"no {qids[qid]} " in words, (qids[qid], words)
        relay.stop()


def test_what_was_said_of_one_recipient_is_no_others_result(dns):
    """Each was refused for now by a host in its own words, and the next host of the list does not exist."""
    relay = FakeRelay(replies={"RCPT": lambda l: f"45{l.split('<u')[1][0]} 4.2.{l.split('<u')[1][0]} wait {l.split('<')[1][:2]}"})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}, [gone.example]\n", dns=dns) as p:
        p.send(rcpts=[f"u{i}@x.example" for i in (2, 0, 1)])
        p.wait_log("status=deferred", count=3)
        for i in range(3):
            assert re.search(rf"to=<u{i}@x\.example>.*dsn=4\.2\.{i}, status=deferred \(.* said: 45{i} 4\.2\.{i} wait u{i}", p.log())
    relay.stop()


class Wearing(Script):
    """Takes one message of its first connection and leaves it at the second MAIL; later it puts off every recipient."""

    def _serve(self, conn):
        first, self.dialogues = self.dialogues == 0, self.dialogues + 1
        f, mails = conn.makefile("rb"), 0
        with contextlib.suppress(OSError, ValueError):
            conn.sendall(b"220 wearing\r\n")
            while line := f.readline():
                verb = line.split()[0].upper()
                mails += verb == b"MAIL"
                if verb == b"QUIT" or (first and mails == 2):
                    time.sleep(0.2)  # for what else may be on its way
                    break
                if verb == b"BDAT":
                    f.read(int(line.split()[1]))
                user = line.split(b"<")[1].split(b"@")[0].decode() if verb == b"RCPT" else ""
                offers = "250-wearing\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING" if first else "250 wearing"
                put_off = f"450 4.2.2 the box of {user} is full"
                says = {b"EHLO": offers, b"MAIL": "250 2.1.0 ok", b"RCPT": "250 2.1.5 ok" if first else put_off}
                conn.sendall((says.get(verb, "250 2.0.0 ok") + "\r\n").encode())
        conn.close()


def test_what_was_said_of_a_recipient_is_no_other_mails_result(dns):
    """Mail that was on a lost connection goes with the one that is put off to the next host, and that does not exist."""
    port = free_port()
    main = f"relayhost = [127.0.0.1]:{port}, [gone.example]\nsmtp_destination_concurrency_limit = 1\nrelay_threads = 1\n" \
           "minimal_backoff_time = 300s\n"
    with Posthouse(main, dns=dns) as p:
        for i in range(5):
            p.send(sender=f"m{i}@x.example", rcpts=[f"u{i}@y.example"])
        p.wait_log("status=deferred", count=5)
        relay = Wearing({}, port=port)
        p.run("queue", "flush", check=True)
        p.wait_log(r"status=\w+", count=10)
        said = re.findall(r"to=<(u\d)@y\.example>.* status=(\w+) \((.*)\)", p.log())[5:]
        assert [w for _, w, _ in said].count("sent") == 1 and "bounced" not in p.log()
        for user, _, words in said:
            assert "the box of" not in words or f"the box of {user} is" in words, said
        relay.stop()


BARE = {"MAIL": ["250 ok"], "RCPT": ["250 ok"], ".": ["250 ok"]}


@pytest.mark.parametrize("extra", [1, 2, 3])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
def test_surplus_replies_without_codes_hide_no_refusal(dns, verb, extra):
    """The host says no to the content, and yes more often than it was asked before that."""
    says = dict(BARE, RSET=["250 ok"], **{".": ["554 not this"]})
    says[verb] = says[verb] * (1 + extra)
    relay = Script(says, "PIPELINING CHUNKING", announces=False)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send()
        p.wait_log("status=deferred")
        assert not re.search("status=(sent|bounced)", p.log())
    relay.stop()


PUT_OFF = [(caps, stage, rcpts) for caps in ("PIPELINING CHUNKING", "PIPELINING", "") for stage in ("MAIL", "RCPT", ".")
           for rcpts in (["late@y.example"], ["early@y.example", "late@y.example", "later@y.example"])]


def test_what_one_host_puts_off_the_next_one_is_given(dns):
    """Whatever has gone out of the content by then, and at once; what the first host took is not sent to the next one."""
    rows, pairs = "", []
    for i, (caps, stage, _) in enumerate(PUT_OFF):
        late = "450 4.2.1 not now"
        first = FakeRelay(pipelining="PIPE" in caps, chunking="CHUNK" in caps, replies={
            {".": "DOT"}.get(stage, stage): lambda l, stage=stage: late if stage != "RCPT" or "<late" in l else None})
        pairs.append((first, FakeRelay()))
        rows += f"s{i}@x.example [127.0.0.1]:{first.port}, [127.0.0.1]:{pairs[i][1].port}\n"
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n", dns=dns, files={"hops": rows}) as p:
        for i, (_, _, rcpts) in enumerate(PUT_OFF):
            p.send(sender=f"s{i}@x.example", rcpts=rcpts)
        wait_for(lambda: p.log().count("status=") >= sum(len(c[2]) for c in PUT_OFF))
        for i, (caps, stage, rcpts) in enumerate(PUT_OFF):
            first, second = ([c.split("<")[1].split(">")[0] for m in relay.mails for c in m["rcpts"]] for relay in pairs[i])
            there = [r for r in rcpts if stage == "RCPT" and not r.startswith("late")]
            assert (first, second) == (there, [r for r in rcpts if r not in there]), PUT_OFF[i]
        assert set(re.findall(r"status=(\w+)", p.log())) == {"sent"}
    for relay in (r for pair in pairs for r in pair):
        relay.stop()


def test_what_the_first_host_took_is_noted_while_the_second_is_silent(dns):
    """A daemon that is killed then sends to the other recipient only."""
    late = {"RCPT": lambda line: "450 4.2.1 not now" if "<late" in line else None}
    with FakeRelay(replies=late) as first, kit.Listener(lambda conn: conn.recv(1)) as silent, \
            Posthouse(f"relayhost = [127.0.0.1]:{first.port}, [127.0.0.1]:{silent.port}\n", dns=dns) as p:
        p.send(rcpts=["early@y.example", "late@y.example"])
        p.wait_log("to=<early@y.example>.*status=sent")
        wait_for(lambda: [r["address"] for q in p.queue() for r in q["recipients"]] == ["late@y.example"])
        p.kill()
        late.clear()
        p.start()
        wait_for(lambda: p.queue() == [])
        assert [m["rcpts"][0][:14] for m in first.mails] == ["RCPT TO:<early", "RCPT TO:<late@"]


@pytest.mark.parametrize("grey", ["450 4.2.0 greylisted", "421 4.3.2 not you", ""])
def test_a_dead_second_host_stops_nothing(dns, grey):
    """What the first one puts off meets the second, which is dead: the first one works, and other mail goes on to it."""
    relay = FakeRelay(replies={"RCPT": lambda line: grey if "<grey" in line else None})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}, [127.0.0.1]:{free_port()}\ninitial_destination_concurrency = 1\n", dns=dns) as p:
        p.send(rcpts=["grey@y.example"])
        p.wait_log("to=<grey@y.example>.*status=deferred .*Connection refused")
        p.send(rcpts=["fine@y.example"])
        p.wait_log("to=<fine@y.example>.*status=")
        assert re.search("to=<fine@y.example>.*status=sent", p.log())
    relay.stop()


@pytest.mark.parametrize("grey", ["450 4.2.0 greylisted", "421 4.3.2 not you", ""])
@pytest.mark.parametrize("second", ["relayhost = [127.0.0.1]:{first}, [127.0.0.2]:{last}",
                                    "relayhost = [127.0.0.1]:{first}\nsmtp_fallback_relay = [127.0.0.2]:{last}"])
def test_mail_that_the_first_host_takes_never_goes_to_the_second(dns, second, grey):
    """A session that one mail has taken to the next host carries no other there: neither what waits behind it nor what comes later."""
    gate = threading.Event()
    first = FakeRelay(replies={"RCPT": lambda line: grey if "<grey" in line else None, "GREETING": lambda line: gate.wait(60) and None})
    last = FakeRelay("127.0.0.2", replies={"RCPT": lambda line: None if "<grey" in line else "550 5.7.1 not a customer"})
    with Posthouse(second.format(first=first.port, last=last.port) + "\nsmtp_destination_concurrency_limit = 1\n", dns=dns) as p:
        for rcpt in ("grey1", "behind", "grey2"):
            p.send(rcpts=[f"{rcpt}@y.example"])
        gate.set()
        p.wait_log("to=<grey2@y.example>.*status=sent")
        p.send(rcpts=["later@y.example"])
        p.wait_log("to=<later@y.example>.*status=")
        took = lambda: [{m["rcpts"][0].split("<")[1].split("@")[0] for m in relay.mails} for relay in (first, last)]
        wait_for(lambda: took() == [{"behind", "later"}, {"grey1", "grey2"}])
    first.stop()
    last.stop()


@pytest.mark.parametrize("chunking", [True, False])
def test_a_sender_that_is_refused_out_of_step_stops_no_other(dns, chunking):
    """A host that refuses MAIL and takes the recipient all the same: what it refuses when it is asked alone is returned."""
    replies = {"MAIL": lambda line: "550 5.7.1 not this sender" if "refused@" in line else None, "RCPT": "250 2.1.5 Ok",
               "DOT": "554 5.5.1 no sender"}
    relay = FakeRelay(chunking=chunking, replies=replies)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        for _ in range(8):
            p.send(sender="refused@x.example")
        p.wait_log("status=bounced .*550 5.7.1 not this sender .in reply to MAIL FROM command", count=8)
        del replies["DOT"]
        p.send(sender="other@x.example")
        p.wait_log("status=sent.*")
        assert "suspended" not in p.log() and all("refused@" not in (m["from"] or "") for m in relay.mails)
    relay.stop()


@pytest.mark.parametrize("reply", ["", "421 4.3.2 not this"])
@pytest.mark.parametrize("chunking", [True, False])
def test_mail_beside_one_that_ends_the_connection_goes_on(dns, chunking, reply):
    """Behind the first host is a dead one: mail that shared the connection begins with the first one again."""
    port = free_port()
    main = f"relayhost = [127.0.0.1]:{port}, [127.0.0.1]:{free_port()}\nsmtp_destination_concurrency_limit = 1\nrelay_threads = 1\n" \
           "minimal_backoff_time = 300s\n"
    with Posthouse(main, dns=dns) as p:
        for i in range(9):
            p.send(rcpts=[f"{'bad' if i % 3 == 1 else 'u'}{i}@y.example"])
        p.wait_log("status=deferred", count=9)
        relay = FakeRelay(port=port, chunking=chunking, replies={"RCPT": lambda line: reply if "<bad" in line else None})
        p.run("queue", "flush", check=True)
        p.wait_log(r"status=\w+", count=18)
        after = dict(re.findall(r"to=<(\w+)@y\.example>.* status=(\w+)", p.log())[9:])
        assert after == {f"bad{i}": "deferred" for i in (1, 4, 7)} | {f"u{i}": "sent" for i in (0, 2, 3, 5, 6, 8)}
        assert len(relay.mails) == 6 or (chunking and reply == "")  # what a host that has hung up took is not known
        relay.stop()


AFTER_BDAT = {
    "RSET refused for now": {"RSET": ["450 4.3.0 cannot"]},
    "RSET refused": {"RSET": ["502 5.5.1 what is that"]},
    "421 to RSET": {"RSET": ["421 4.3.2 bye"]},
    "421 to RSET, then an end": {"RSET": ["421 4.3.2 bye", ""]},
    "354 to RSET": {"RSET": ["354 go"]},
    "no reply to RSET": {"RSET": []},
    "an end at RSET": {"RSET": [""]},
    "an end behind the content": {".": ["250 2.0.0 taken", ""]},
    "no word at QUIT": {"QUIT": [""]},
    "QUIT refused": {"QUIT": ["502 5.5.1 stay"]},
}




@pytest.fixture(scope="module")
def after_bdat(dns):
    """One daemon, and for each case a relay host with and one without enhanced status codes, which each get two messages."""
    relays = {(name, codes): Script({**({} if codes else BARE), **says}, "PIPELINING CHUNKING")
              for name, says in AFTER_BDAT.items() for codes in (True, False)}
    main = "sender_dependent_relayhost_maps = texthash:{dir}/hops\nsmtp_rset_timeout = 1s\n" \
           "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n"
    senders = {name: f"w{i}@x.example" for i, name in enumerate(relays)}
    with Posthouse(main, dns=dns, files={"hops": "".join(f"{senders[n]} [127.0.0.1]:{r.port}\n" for n, r in relays.items())}) as p:
        for text in ("one", "two"):
            for sender in senders.values():
                assert p.send(sender=sender, content=f"Subject: {text}\r\n\r\nhello\r\n").startswith("250")
            wait_for(lambda: p.queue() == [])
        p.wait_log("status=sent", count=2 * len(relays))
        yield p.log(), senders, relays
        for r in relays.values():
            r.stop()


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("case", AFTER_BDAT)
def test_what_comes_behind_bdat_repeats_no_mail(after_bdat, case, codes):
    """250 to the last chunk counts where the replies say what they answer. Else one message comes twice at most, and
    DATA is used from then on."""
    log, senders, relays = after_bdat
    relay = relays[case, codes]
    subjects = [re.search(rb"Subject: (\w+)", c).group(1) for c in relay.taken]
    again = [b"one", b"one", b"two"]
    assert subjects == [b"one", b"two"] or (not codes and subjects == again), (subjects, relay.ways)
    assert relay.ways == [b"BDAT"] + [b"BDAT" if codes and "QUIT" in AFTER_BDAT[case] else b"."] * (len(subjects) - 1)
    qids = set(re.findall(rf"(\w+): from=<{re.escape(senders[case, codes])}>", log))
    assert len(qids) == 2 and "status=bounced" not in log
    for qid in qids:
        assert len(re.findall(rf"{qid}: to=.*status=sent", log)) == 1


def test_a_pool_of_hosts_repeats_a_mail_once(tmp_path_factory):
    """What one address has shown holds for all of the next hop: the second time the content goes by DATA."""
    d = tmp_path_factory.mktemp("pool")
    d.chmod(0o755)
    server = Dns(d, [f"pool.example. 60 IN A 127.0.0.{i}" for i in range(61, 66)])
    port = free_port()
    relays = [Script(dict(BARE, RSET=[""]), "PIPELINING CHUNKING", host=f"127.0.0.{i}", port=port) for i in range(61, 66)]
    main = f"relayhost = [pool.example]:{port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n"
    with Posthouse(main, dns=server) as p:
        p.send()
        wait_for(lambda: p.queue() == [])
        assert sorted(way for r in relays for way in r.ways) in ([b"."], [b".", b"BDAT"]), ([r.heard for r in relays], p.log())
    server.stop()
    for r in relays:
        r.stop()


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    """Domains whose exchangers are partly stale: .85 refuses connections, .86 to .88 are out of order in other ways."""
    d = tmp_path_factory.mktemp("zones")
    d.chmod(0o755)
    hosts = {"dead": "127.0.0.85", "busy": "127.0.0.86", "grey": "127.0.0.87", "gone": "127.0.0.88", "fine": "127.0.0.89"}
    lists = {"dead-nx": "dead nx", "busy-nx": "busy nx", "grey-nx": "grey nx", "gone-nx": "gone nx", "sf-nx": "sf.fails nx",
             "nx-sf": "nx sf.fails", "dead-nx-nx": "dead nx nx2", "nx-nx": "nx nx2", "fine-nx": "fine nx", "dead-sf": "dead sf.fails"}
    names = [f"{h}.stale.example. 60 IN A {a}" for h, a in hosts.items()]
    names += [f"{z}.example. 60 IN MX {5 * (i + 1)} {h}.stale.example." for z, hs in lists.items() for i, h in enumerate(hs.split())]
    server = Dns(d, names, refused=["fails.stale.example."])
    yield server
    server.stop()


@pytest.mark.parametrize("zone,dsn,words", [
    ("dead-nx", "4.4.1", r"connect to dead\.stale\.example\[127\.0\.0\.85\]:25: Connection refused"),
    ("dead-nx-nx", "4.4.1", r"connect to dead\.stale\.example\[127\.0\.0\.85\]:25: Connection refused"),
    ("dead-sf", "4.4.1", r"connect to dead\.stale\.example\[127\.0\.0\.85\]:25: Connection refused"),
    ("busy-nx", "4.3.2", r"refused to talk to me: 421 4\.3\.2 busy"),
    ("grey-nx", "4.7.1", r"said: 450 4\.7\.1 not now \(in reply to MAIL FROM command\)"),
    ("gone-nx", "4.4.2", r"lost connection with gone\.stale\.example\[127\.0\.0\.88\] while receiving the initial server greeting"),
    ("sf-nx", "4.4.3", r"Host or domain name not found.*name=sf\.fails\.stale\.example"),
    ("nx-sf", "4.4.3", r"Host or domain name not found.*name=sf\.fails\.stale\.example"),
])
def test_a_stale_exchanger_never_makes_a_bounce_of_a_deferral(zones, zone, dsn, words):
    """Mail is given up only when each exchanger of the domain gave it up."""
    bad = [FakeRelay("127.0.0.86", 25, replies={"GREETING": "421 4.3.2 busy"}),
           FakeRelay("127.0.0.87", 25, replies={"MAIL": "450 4.7.1 not now"}), FakeRelay("127.0.0.88", 25, replies={"GREETING": ""})]
    with Posthouse("smtp_tls_security_level = none\n", dns=zones) as p:
        p.send(sender="", rcpts=[f"u@{zone}.example"])
        p.wait_log(rf"dsn={re.escape(dsn)}, status=deferred \(.*{words}")
    for b in bad:
        b.stop()


@pytest.mark.parametrize("zone,what", [("dead-nx", "connect to dead.stale.example"), ("nx-nx", "Host not found")])
def test_a_configured_host_list_says_what_is_wrong(zones, zone, what):
    with Posthouse(f"relayhost = {zone}.example\nsmtp_tls_security_level = none\n", dns=zones) as p:
        p.send(sender="")
        assert what in p.wait_log(r"status=deferred \((.*)\)$")[0]


def test_when_all_exchangers_are_stale_the_mail_is_given_up(zones):
    with Posthouse("smtp_tls_security_level = none\n", dns=zones) as p:
        p.send(sender="", rcpts=["u@nx-nx.example"])
        p.wait_log(r"dsn=5\.4\.4, status=bounced \(Host or domain name not found")
        said = p.run("explain", "a@x.example", "u@fine-nx.example")
        assert "127.0.0.89" in said.stdout and "mail would be: bounced" not in said.stdout
        assert "mail would be: bounced" in p.run("explain", "a@x.example", "u@nx-nx.example").stdout


@pytest.mark.parametrize("after", ["first", "second"])
def test_scram_needs_the_servers_proof(dns, after):
    """235 before the server has proven that it knows the password is a failed login, also for `posthouse test`."""
    class Thief(FakeRelay):
        pass
    relay = Thief(auth=["SCRAM-SHA-256"])
    scram = lambda dialogue, first: (dialogue.say("334 cj14eHg=") or dialogue.f.readline() if after == "second" else None, ("u", "p"))[1]
    with mock.patch.object(kit._Dialogue, "scram", scram), \
            Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + LOGIN.format(user="u", password="p4ssw0rd"), dns=dns) as p:
        p.send()
        p.wait_log(r"dsn=4\.7\.0, status=deferred \(SASL authentication failed; ")
        assert relay.mails == [] and p.run("test", "a@x.example").returncode == 1
    relay.stop()


@pytest.mark.parametrize("rounds", ["600001", "4000000000", "99999999999999999999999"])
def test_scram_that_costs_too_much(dns, rounds):
    """A relay host cannot have the relay count for hours, nor so keep others' logins waiting."""
    def scram(dialogue, first):
        if dialogue.r is good:
            return honest(dialogue, first)
        nonce = base64.b64decode(first).decode().split("r=")[1]
        dialogue.say("334 " + base64.b64encode(f"r={nonce}x,s=c2FsdA==,i={rounds}".encode()).decode())
        return "u", None if dialogue.f.readline() else "p"
    honest = kit._Dialogue.scram
    relay, good = FakeRelay(auth=["SCRAM-SHA-256"]), FakeRelay(auth=["SCRAM-SHA-256"], users={"u": "p4ssw0rd"})
    main = f"transport_maps = inline:{{{{bad.example=smtp:[127.0.0.1]:{relay.port}}}}}\nrelayhost = [127.0.0.1]:{good.port}\n" \
           "default_destination_concurrency_failed_cohort_limit = 100\n" + LOGIN.format(user="u", password="p4ssw0rd")
    with mock.patch.object(kit._Dialogue, "scram", scram), Posthouse(main, dns=dns) as p:
        for i in range(6):  # more than the threads that count
            p.send(sender=f"s{i}@x.example", rcpts=["u@bad.example"])
        p.wait_log(r"u@bad\.example>.*dsn=4\.7\.0, status=deferred \(SASL authentication failed; .*too many iterations", count=6)
        p.send()
        good.wait_mail(b"hello")
        assert relay.mails == []
    relay.stop()
    good.stop()


EARLY = {"greeting": "220 a\r\n220 b", "EHLO": "250-a\r\n250 8BITMIME\r\n250 again", "STARTTLS": "454 4.7.0 no\r\n250 and more"}


@pytest.mark.parametrize("stage", EARLY)
def test_reply_that_was_not_asked_for_before_mail(dns, stage, tls):
    """In the handshake too a reply cannot come before its command."""
    relay = FakeRelay(replies={stage.upper(): EARLY[stage]}, tls=tls)
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        p.send()
        p.wait_log(r"dsn=4\.5\.0, status=deferred \(Protocol error: host .* said 2\d0 in reply to \w+")
        assert relay.mails == []
    relay.stop()


def test_probe_of_a_relay_host_out_of_step(dns):
    relay = Script({"MAIL": ["250 2.1.0 ok"] * 2})
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        r = p.run("test", "a@x.example", "b@y.example")
        assert r.returncode == 1 and "Protocol error" in r.stdout, r.stdout
    relay.stop()


@pytest.mark.parametrize("more,said", [
    ("relayhost =\n", "recipients' mail exchangers"),
    ("relayhost = [r.example]\nsmtp_fallback_relay = [f.example]\n", "is offered to smtp_fallback_relay"),
    ("relayhost = [r.example]\n", None)])
def test_check_says_where_senders_passwords_go(dns, more, said):
    p = Posthouse(more + LOGIN.format(user="u", password="p") + "smtp_sender_dependent_authentication = yes\n", dns=dns)
    r = p.run("check")
    assert (said in r.stdout) if said else ("is offered to" not in r.stdout), r.stdout
