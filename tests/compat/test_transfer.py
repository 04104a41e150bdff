"""posthouse import and export: the queue of a real Postfix goes into the spool and back.  MAILS=10000 for a large one."""
import collections
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest
from kit import BUILD, Client, FakeRelay, Posthouse, free_port, wait_for
from pair import INSIDE

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="Postfix's queue is root's to read"),
              pytest.mark.skipif(bool(INSIDE), reason="its commands see another /tmp")]

MAILS = int(os.environ.get("MAILS", "120"))
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
STOPAT = BUILD / "tests" / "libstopat.so"


can_stop = pytest.mark.skipif(not STOPAT.exists(), reason="a sanitizer's own wrappers would come after it")


KEPT = (b"envelope_id=", b"ret_flags=", b"notify_flags=", b"dsn_orig_rcpt=", b"log_client_name=", b"log_client_address=",
        b"sasl_username=", b"encoding=")


class Message:
    """A queue file as it is on the disk: its content, and of its envelope what must come back as it was."""

    def __init__(self, path):
        self.data, self.path, self.mtime = path.read_bytes(), path, int(path.stat().st_mtime)
        self.envelope, content, group = set(), [], ""
        for kind, text in self.records():
            group = kind if kind in "MX" else group
            if group == "M" and kind in "NL":
                content += [text, b"\r\n" if kind == "N" else b""]
            elif kind in "TSRD" or (kind == "A" and text.startswith(KEPT)):
                self.envelope.add((kind, text))
        self.content = b"".join(content)

    def records(self):
        at = 0
        while at < len(self.data):
            kind, n, shift, at = chr(self.data[at]), 0, 0, at + 1
            while True:
                n, shift, at = n | (self.data[at] & 127) << shift, shift + 7, at + 1
                if self.data[at - 1] < 128:
                    break
            yield kind, self.data[at:at + n]
            at += n

    def digest(self):
        """The same in little memory."""
        self.data, self.content = b"", hashlib.sha256(self.content).digest()
        return self


class Place:
    """A Postfix that is stopped, with mail of all kinds, and a Posthouse that is stopped, without any."""

    def __init__(self, postfix, main="", mails=6):
        self.postfix, self.spool = postfix, postfix.dir / "spool"
        self.files = {"hc": "/^X-Hold:/ HOLD\n/^X-Filter:/ FILTER smtp:[127.0.0.1]:1\n/^X-Redirect:/ REDIRECT other@far.example\n"
                            "/^X-Prepend:/ PREPEND X-Added: yes\n"}
        self.port = free_port()  # no server answers there
        self.relay = FakeRelay(replies={"RCPT": lambda line: "450 4.2.1 not now" if "<later" in line else None})
        self.main = (f"relayhost = [127.0.0.1]:{self.port}\nheader_checks = regexp:{{dir}}/hc\nminimal_backoff_time = 3600\n"
                     f"transport_maps = inline:{{{{ half.example=smtp:[127.0.0.1]:{self.relay.port} }}}}\n" + main)
        self.p = Posthouse(f"relayhost = [127.0.0.1]:{self.relay.port}\nspool_segment_size = 1048576\n")
        self.fill(mails)

    def fill(self, mails):
        self.postfix.case(self.main, self.files, "")
        with Client(self.postfix.port) as c:
            for i in range(mails):
                sender, rcpts, content, params, rparams = KINDS[i % len(KINDS)](i)
                assert c.mail(sender, rcpts, content, params, rparams).startswith("250")
        wait_for(lambda: not list((self.spool / "incoming").iterdir()) and not list((self.spool / "active").iterdir()), 120 + mails, 0.2)
        held = [f["queue_id"] for f in self.listed() if f["queue_name"] == "hold"]
        self.tool("postsuper", "-e", "-", stdin="\n".join(held[:1]))
        self.postfix.kill()
        deferred = sorted(self.files_of("deferred"))
        for queue, path in zip(("active", "incoming"), deferred[1::5]):  # as they are when the machine stops
            path.rename(self.spool / queue / path.name)

    def drop(self, *words, text):
        env = dict(os.environ, MAIL_CONFIG=str(self.postfix.dir / "etc"))
        subprocess.run(["sendmail", *words], input=text, text=True, check=True, env=env, capture_output=True)

    def tool(self, name, *args, stdin=None, check=True):
        r = subprocess.run([name, "-c", str(self.postfix.dir / "etc"), *args], capture_output=True, text=True, input=stdin)
        assert not check or r.returncode == 0, r.stderr
        return r.stdout

    def listed(self):
        return [json.loads(line) for line in self.tool("postqueue", "-j").splitlines()]

    def files_of(self, *queues):
        return [p for q in queues for p in (self.spool / q).rglob("*") if p.is_file()]

    def each(self):
        return ((p.name, Message(p)) for p in self.files_of(*QUEUES))

    def messages(self):
        return dict(self.each())

    def run(self, *words, env=None):
        return subprocess.run([BUILD / "src/posthouse", "-c", self.p.dir, *words, self.spool], capture_output=True, text=True,
                              env=dict(self.p.env(), **(env or {})))

    def ours(self):
        return self.p.queue() if (self.p.dir / "spool/log").exists() else []

    @staticmethod
    def on_hold(rows):
        return {m["queue_id"] for m in rows if m["queue_name"] == "hold"}

    def everything(self):
        """How often each message is there: in Postfix's queues, or on its way, and in the spool."""
        there = collections.Counter(m["queue_id"] for m in self.ours())
        there.update(p.name for p in self.files_of(*QUEUES))
        return there

    def stop(self):
        self.p.stop()
        shutil.rmtree(self.p.dir, ignore_errors=True)
        self.relay.stop()
        self.postfix.over()
        for path in self.files_of(*QUEUES, "defer", "bounce", "maildrop"):
            path.unlink()


def plain(i):
    return f"a{i}@from.example", [f"b{i}@far.example"], None, "", ""


def asking(i):
    return (f"a{i}@from.example", [f"b{i}@far.example", f"c{i}@far.example"], None, f" RET=HDRS ENVID=id+2B{i}",
            f" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+2B{i}@first.example")


def held(i):
    return f"a{i}@from.example", [f"b{i}@far.example"], f"X-Hold: 1\r\nSubject: {i}\r\n\r\nheld\r\n", "", ""


def half_done(i):
    return f"a{i}@from.example", [f"now{i}@half.example", f"later{i}@half.example"], None, "", " NOTIFY=NEVER"


def foreign(i):
    return f"ä{i}@from.example", [f"ö{i}@far.example"], f"Subject: grüße\r\n\r\n{i} ü\r\n", " BODY=8BITMIME SMTPUTF8", ""


def long_lines(i):
    text = f"Subject: {i}\r\n\r\n.\r\n..\r\n" + "x" * 998 + "\r\n" + "".join(f"line {k}\r\n" for k in range(i % 49 * 500)) + "\r\n"
    return "", ['"odd @ name"@far.example'], text, "", ""


def prepended(i):
    return f"a{i}@from.example", [f"b{i}@far.example"], f"X-Prepend: 1\r\nSubject: {i}\r\n\r\nx\r\n", "", ""


KINDS = (plain, asking, held, half_done, foreign, long_lines, prepended)


@pytest.fixture
def place(postfix):
    places = []

    def make(**how):
        places.append(Place(postfix, **how))
        return places[-1]
    yield make
    for p in places:
        p.stop()


def without_queue(row):
    """Mail that was being delivered comes back as mail that has just come."""
    name = "incoming" if row["queue_name"] == "active" else row["queue_name"]
    return json.dumps({**row, "queue_name": name, "recipients": sorted(row["recipients"], key=str)}, sort_keys=True)


def test_there_and_back(place):
    at = place(mails=MAILS)
    before, files = at.listed(), {name: m.digest() for name, m in at.each()}
    assert len(before) == MAILS
    r = at.run("import")
    assert r.returncode == 0 and f"{MAILS} messages taken over, 0 left" in r.stdout, r.stderr + r.stdout
    assert not at.messages() and len(at.ours()) == MAILS
    assert not at.files_of("defer", "posthouse", "posthouse-gone")
    assert at.on_hold(at.ours()) == at.on_hold(before)
    r = at.run("export")
    assert r.returncode == 0 and f"{MAILS} messages given to Postfix, 0 left" in r.stdout, r.stderr + r.stdout
    assert not at.ours()
    after, back = at.listed(), {name: m.digest() for name, m in at.each()}
    assert sorted(map(without_queue, before)) == sorted(map(without_queue, after))
    for name, m in files.items():
        assert back[name].content == m.content and back[name].envelope == m.envelope, name
        if "deferred" in str(m.path):
            assert back[name].mtime == m.mtime
    at.postfix.case(at.main.replace(str(at.port), str(at.relay.port)), at.files, "")
    at.tool("postqueue", "-f")
    wait_for(lambda: all(m["queue_name"] == "hold" or "later" in str(m) for m in at.listed()), 120, 0.3)
    assert not re.search(r"warning: .*(corrupt|malformed|invalid|rejected)", at.postfix.new_log())


def test_mail_of_relay_records_is_given_to_postfix_only_where_that_is_said(place):
    """Postfix would send it without their login and TLS."""
    at = place()
    with open(at.p.dir / "main.cf", "a") as f:
        f.write(f"data_directory = {at.p.dir}/data\n")
    assert at.run("import").returncode == 0
    assert at.p.run("record", "set", "r", "hosts=[127.0.0.1]:9", "user=u", "password", stdin="pw\n").returncode == 0
    before = at.everything()
    r = at.run("export")
    assert r.returncode == 69 and "1 relay record is not known to Postfix" in r.stderr and "export --without-records" in r.stderr, r.stderr
    assert at.everything() == before and not at.messages()
    assert at.run("import", "--without-records").returncode == 64
    assert at.run("export", "--without-records").returncode == 0 and len(at.messages()) == 6 and not at.ours()


def test_the_daemon_delivers_what_was_taken_over(place):
    at = place(mails=len(KINDS))
    files = at.messages()
    at.run("import")
    at.p.start()
    at.p.run("queue", "flush")
    wait_for(lambda: all(m["queue_name"] == "hold" or "later" in str(m) for m in at.ours()))
    mails = at.relay.mails
    asked = next(m for m in mails if "ENVID" in m["from"])
    assert " RET=HDRS ENVID=id+2B1" in asked["from"]
    assert asked["rcpts"][0] == "RCPT TO:<b1@far.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+2B1@first.example"
    sent = [m["content"] for m in mails]
    for m in files.values():
        if ("S", b"") not in m.envelope and "hold" not in str(m.path):
            assert m.content in sent
    assert not any("now3@" in str(m["rcpts"]) for m in mails[1:])  # Postfix had delivered that


def test_what_a_row_has_put_on_hold_is_given_to_postfix_on_hold(place):
    """No record of progress says so: the envelope does."""
    at = place(mails=1)
    with open(at.p.dir / "main.cf", "a") as f:
        f.write("smtpd_sender_restrictions = check_sender_access static:HOLD\n")
    at.p.start()
    qid = at.p.send().split()[-1]
    at.p.stop()
    assert at.run("export").returncode == 0
    assert qid in at.on_hold(at.listed())


def test_an_alias_whose_report_is_owed_is_given_to_nobody(place):
    """It stands for others of the message and gets none itself, also before the first attempt has made a record of progress."""
    at = place(mails=1)
    with open(at.p.dir / "main.cf", "a") as f:
        f.write("smtpd_sender_restrictions = check_sender_access static:HOLD\nvirtual_alias_domains = own.example\n"
                "virtual_alias_maps = inline:{{info@own.example = a@far.example, b@far.example}}\n")
    at.p.start()
    with Client(at.p.port) as c:
        assert c.mail("me@from.example", ["info@own.example"], None, "", " NOTIFY=SUCCESS").startswith("250")
    before, (held,) = at.messages(), at.ours()
    at.p.stop()
    r = at.run("export")
    assert r.returncode == 1 and f"{held['queue_id']} stays where it is: a report" in r.stderr, r.stderr
    assert at.messages().keys() == before.keys() and held["queue_id"] in str(at.ours())


def test_a_folder_that_root_has_made_for_the_spool(place):
    """It becomes the daemon's, as at a start, and so does what import makes in it."""
    p = place(mails=1)
    (p.p.dir / "spool").mkdir()
    assert p.run("import").returncode == 0
    p.p.start()
    assert len(p.ours()) == 1


def test_what_programs_have_sent(place):
    """maildrop: as if it had been sent with Posthouse's sendmail."""
    at = place(mails=1)
    with open(at.p.dir / "main.cf", "a") as f:
        f.write("myhostname = our.example\nmydomain = local.example\nmyorigin = origin.example\nappend_dot_mydomain = yes\n")
    at.drop("-F", "Doe, J.", "-f", "joe", "-N", "success,delay", "-V", "e+1", "friend@far", "neighbour",
            text="Subject: drop\n\nhello")
    at.drop("-i", "-t", "-f", "joe@from.example",
            text="To: one@far.example,\n two@far.example\nBcc: three@far.example\nFrom: j@from\n\n.\n")
    at.drop("-bv", "-f", "joe", "friend@far.example", text="")
    r = at.run("import")
    assert "3 messages taken over, 1 left" in r.stdout and "(sendmail -bv)" in r.stderr and len(at.files_of("maildrop")) == 1
    at.p.start()
    first, second = at.relay.wait_mail(b"Subject: drop"), at.relay.wait_mail(b"two@far.example")
    assert first["from"] == "MAIL FROM:<joe@origin.example> ENVID=e+2B1"
    assert [r.split(" ORCPT")[0] for r in first["rcpts"]] == ["RCPT TO:<friend@far.local.example> NOTIFY=SUCCESS,DELAY",
                                                              "RCPT TO:<neighbour@origin.example> NOTIFY=SUCCESS,DELAY"]
    assert re.fullmatch(rb"Received: by our.example \(Posthouse, from userid 0\)\r\n\tid \w+; [^\r]*\r\nSubject: drop\r\n"
                        rb"Message-Id: <\S+@our.example>\r\nDate: [^\r]*\r\nFrom: \"Doe, J.\" <joe@origin.example>\r\n\r\nhello\r\n",
                        first["content"]), first["content"]
    assert [r.split(" ")[1] for r in second["rcpts"]] == [f"TO:<{n}@far.example>" for n in ("one", "two", "three")]
    assert b"From: j@from.local.example\r\n" in second["content"] and b"Bcc" not in second["content"]
    assert second["content"].endswith(b"\r\n\r\n.\r\n")


def test_addresses_of_what_programs_have_sent_stay_whole(place):
    """Some need a domain, and others are complete."""
    at = place(mails=1)
    with open(at.p.dir / "main.cf", "a") as f:
        f.write("myorigin = origin.example\n")
    drops = [["root"], ["friend@far.example", "root"], [f"user{i}" + "@far.example" * (i % 3 > 0) for i in range(40)]]
    for rcpts in drops:
        at.drop("-f", "joe@from.example", *rcpts, text="Subject: drop\n\nhello")
    assert at.run("import").returncode == 0
    ours = [m for m in at.ours() if m["attempts"] == 0]
    whole = [[r if "@" in r else f"{r}@origin.example" for r in rcpts] for rcpts in drops]
    assert sorted([r["address"] for r in m["recipients"]] for m in ours) == sorted(whole)
    assert {m["sender"] for m in ours} == {"joe@from.example"}


ALIASES = ("myhostname = our.example\nmyorigin = own.example\nvirtual_alias_domains = own.example\nalways_bcc = all@far.example\n"
           "virtual_alias_maps = inline:{ {info@own.example = a@far.example, b@far.example} {all@far.example = copy@far.example} }\n")


def test_what_programs_have_sent_to_aliases(place):
    """Postfix had not yet found out whom it is for: copies and aliases are found here, once."""
    at = place(mails=1)
    with open(at.p.dir / "main.cf", "a") as f:
        f.write(ALIASES)
    at.drop("-f", "joe@from.example", "info", text="Subject: drop\n\nhello")
    at.drop("-f", "joe@from.example", "-N", "success", "info@own.example", text="Subject: asked\n\nhello")
    r = at.run("import")
    assert r.returncode == 0 and "3 messages taken over, 0 left" in r.stdout, r.stderr
    at.p.start()
    first, second = at.relay.wait_mail(b"Subject: drop"), at.relay.wait_mail(b"Subject: asked")
    assert [r.split()[1] for r in first["rcpts"]] == [f"TO:<{n}@far.example>" for n in ("a", "b", "copy")]
    assert [r.split()[1:3] for r in second["rcpts"]] == [[f"TO:<{n}@far.example>", "NOTIFY=NEVER"] for n in ("a", "b", "copy")]
    told = at.relay.wait_mail(b"report-type=delivery-status")
    assert b"Action: expanded" in told["content"] and b"info@own.example" in told["content"], told["content"]


def test_what_programs_have_sent_waits_while_aliases_cannot_be_asked(place):
    """Without them it would be returned, or go to others."""
    at = place(mails=1)
    main = at.p.dir / "main.cf"
    text = main.read_text()
    main.write_text(text + ALIASES + f"recipient_bcc_maps = hash:{at.p.dir}/away\n")
    at.drop("-f", "joe@from.example", "info", text="Subject: drop\n\nhello")
    (drop,) = at.files_of("maildrop")
    r = at.run("import")
    assert r.returncode == 1 and "1 message taken over, 1 left" in r.stdout, r.stderr
    assert re.search(rf"{drop} stays where it is: its aliases or copies cannot be looked up", r.stderr) and drop.exists()
    main.write_text(text + ALIASES)
    assert at.run("import").returncode == 0 and not drop.exists() and "a@far.example" in str(at.ours())


@pytest.mark.parametrize("line", ["", "pickup unix n - n 60 1 pickup -o content_filter=scan:[127.0.0.1]:{scan}\n"])
def test_what_programs_have_sent_goes_to_their_filter(place, line):
    """pickup(8) had not read the mail yet, and it is what adds the filter: to mail of postsuper -r, too, in place of the old one."""
    at = place(mails=1)
    with FakeRelay() as scan:
        with open(at.p.dir / "main.cf", "a") as f:
            f.write(f"content_filter = {'nowhere:' if line else f'scan:[127.0.0.1]:{scan.port}'}\n")
        with open(at.p.dir / "master.cf", "a") as f:
            f.write("scan unix - - n - 10 smtp -o disable_dns_lookups=yes\n" + line.format(scan=scan.port))
        at.postfix.case(at.main + f"content_filter = smtp:[127.0.0.1]:{at.port}\n", at.files, "")
        with Client(at.postfix.port) as c:
            qid = c.mail("a@from.example", ["b@far.example"], "Subject: again\r\n\r\nx\r\n").split()[-1]
        wait_for(lambda: any(f["queue_id"] == qid and f["queue_name"] == "deferred" for f in at.listed()))
        at.postfix.kill()
        at.tool("postsuper", "-r", qid)
        at.drop("-f", "joe@from.example", "friend@far.example", text="Subject: drop\n\nhello")
        assert len(at.files_of("maildrop")) == 2 and at.run("import").returncode == 0
        at.p.start()
        scan.wait_mail(b"Subject: drop")
        scan.wait_mail(b"Subject: again")
        assert not [m for m in at.relay.mails if b"Subject: drop" in m["content"] or b"Subject: again" in m["content"]]


def test_smtputf8_is_needed_by_the_same_mail(place):
    """What Postfix notes of it comes back, and a relay without it gets the mail that has not asked for it."""
    at = place(mails=0)
    at.postfix.case(at.main, at.files, "")
    with Client(at.postfix.port) as c:
        for sender, rcpt, subject, params in (("raw", "r", "grün", " BODY=8BITMIME"), ("häs", "r", "x", " BODY=8BITMIME SMTPUTF8"),
                                              ("asks", "r", "grün", " BODY=8BITMIME SMTPUTF8"), ("only", "r", "x", " SMTPUTF8")):
            text = f"Subject: {subject}\r\n\r\nx\r\n"
            assert c.mail(f"{sender}@from.example", [f"{rcpt}@far.example"], text, params, "").startswith("250")
    wait_for(lambda: len(at.files_of("deferred")) == 4 and not at.files_of("active", "incoming"), 120, 0.2)
    at.postfix.kill()

    def noted():
        return {text: int(next(m.records())[1].split()[5]) for _, m in at.each() for kind, text in m.records() if kind == "S"}
    before = noted()
    assert at.run("import").returncode == 0 and at.run("export").returncode == 0
    assert noted() == before and before[b"raw@from.example"] == 2
    assert at.run("import").returncode == 0
    at.relay.utf8 = False
    at.p.start()
    at.p.run("queue", "flush")
    assert "SMTPUTF8" not in at.relay.wait_mail("grün".encode())["from"]
    wait_for(lambda: not at.ours())
    sent = {m["from"].split(">")[0] for m in at.relay.mails if "<>" not in m["from"]}
    assert sent == {"MAIL FROM:<raw@from.example", "MAIL FROM:<only@from.example"}


def record(kind, text=b""):
    n, length = len(text), b""
    while n > 127:
        length, n = length + bytes([n & 127 | 128]), n >> 7
    return kind.encode() + length + bytes([n]) + text


SIZE = record("C", b"%15d %15d %15d %15d %15d %15d" % (3, 160, 1, 0, 3, 0))
HEAD = SIZE + record("T", b"1600000000 7") + record("S", b"a@from.example")
TAIL = record("M") + record("N", b"x") + record("X") + record("E")
RCPT = record("R", b"b@far.example")
HOSTILE = {  # what is wrong, and what is said of it
    "cut off in a record": (HEAD + RCPT + b"N\x50short", "within a record"),
    "without its end": (HEAD + RCPT + record("M") + record("N", b"x"), "before its last record"),
    "empty": (b"", "before its last record"),
    "no lengths": (HEAD + b"R" + b"\xff" * 40, "no length"),
    "a length beyond the file": (HEAD + b"R\xff\xff\xff\x07", "within a record"),
    "unknown": (HEAD + RCPT + record("~", b"x") + TAIL, "type that is not known"),
    "unknown in its content": (HEAD + RCPT + record("M") + record("R", b"c@d") + record("X") + record("E"), "type that is not known"),
    "no sender": (SIZE + record("T", b"1600000000 7") + RCPT + TAIL, "no sender"),
    "no time": (SIZE + record("S", b"a@b") + RCPT + TAIL, "when it came"),
    "no recipient": (HEAD + TAIL, "no recipient"),
    "all done": (HEAD + record("D", b"b@far.example") + TAIL, "no recipient is left"),
    "a circle": (HEAD + RCPT + record("p", b"%15d" % len(HEAD)) + TAIL, "circle"),
    "a pointer far away": (HEAD + RCPT + record("p", b"%15d" % 10**9) + TAIL, "out of the file"),
    "a second command in an address": (HEAD + record("R", b"b@far.example>\r\nRCPT TO:<c@far.example") + TAIL, "control character"),
    "a line feed in a login": (HEAD + record("A", b"sasl_username=a\nb") + RCPT + TAIL, "control character"),
    "an inspection": (HEAD + record("I", b"smtp:[127.0.0.1]:10025") + RCPT + TAIL, "an inspection"),
    "VERP": (HEAD + record("V", b"+=") + RCPT + TAIL, "VERP"),
    "not Postfix's": (b"From: a mail\n\nof another program\n", "within a record"),
    "too large an envelope": (HEAD + record("R", b"x" * (70 << 20) + b"@far.example") + TAIL, "too many bytes"),
    "without its size": (HEAD[len(SIZE):] + RCPT + TAIL, "record of its size"),
}


def test_what_cannot_be_taken_over_is_named_and_stays(place):
    at = place(mails=1)
    files = {}

    def put(queue, name, data, mode=0o700):
        path = at.spool / queue / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        shutil.chown(path, "postfix", "postfix")
        files[path] = data
        return path
    for i, (data, _) in enumerate(HOSTILE.values()):
        put("hold", f"B{i:04}", data)
    put("deferred/C", "CC.lock", HEAD + RCPT + TAIL)
    put("incoming", "D0000", HEAD + RCPT + TAIL, 0o600)
    put("corrupt", "E0000", HEAD + RCPT + TAIL)
    secret = at.p.dir / "secret"
    secret.write_bytes(HEAD + RCPT + TAIL)
    secret.chmod(0o700)
    (at.spool / "hold/F0000").symlink_to(secret)
    os.link(secret, at.spool / "hold/F0001")
    os.mkfifo(at.spool / "hold/F0002")
    put("hold", "A0000", HEAD + RCPT + TAIL)
    r = at.run("import")
    assert r.returncode == 1 and f"2 messages taken over, {len(HOSTILE) + 6} left" in r.stdout, r.stdout + r.stderr
    said = dict(re.findall(r"/(\w+(?:\.lock)?) stays where it is: (.*)", r.stderr))
    for i, (what, (_, why)) in enumerate(HOSTILE.items()):
        assert why in said[f"B{i:04}"], what
    assert "no queue ID" in said["CC.lock"] and "not complete" in said["D0000"] and "damaged" in said["E0000"]
    assert "F0000" in said and "F0001" in said and "F0002" in said
    assert not (at.spool / "hold/A0000").exists()
    for path, data in files.items():
        assert path.name == "A0000" or path.read_bytes() == data
    assert {m["queue_id"] for m in at.ours()} >= {"A0000"} and not (at.p.dir / "spool/moving").exists()
    for name in ("hold", "deferred", "incoming", "corrupt"):
        shutil.rmtree(at.spool / name)
        (at.spool / name).mkdir(0o700)
        shutil.chown(at.spool / name, "postfix", "root")


def test_folders_of_postfix_lead_nowhere_else(place):
    """Whoever has Postfix's account makes the folders below its queues: root follows no link that stands there."""
    at = place(mails=1)
    (name, message), = at.each()
    outside = at.p.dir / "outside"
    outside.mkdir()
    deferred, defer = (at.spool / queue / name[0] for queue in ("deferred", "defer"))

    def planted(word, *folders):
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.symlink_to(outside)
        r = at.run(word)
        for folder in folders:
            folder.unlink()
        return r
    assert at.run("import").returncode == 0
    r = planted("export", deferred, defer)
    assert not list(outside.iterdir())
    assert r.returncode == 75 and "0 messages given" in r.stdout, r.stderr
    assert at.run("export").returncode == 0 and at.messages()[name].content == message.content
    (outside / name).write_text("recipient=b0@far.example\nreason=a secret of root's\n\n")
    assert planted("import", defer).returncode == 0
    assert "secret" not in str(at.ours()) and [p.name for p in outside.iterdir()] == [name]


def test_what_memory_has_no_room_for_is_left(place):
    """queue_memory_limit counts for import as for a client: the rest stays in Postfix's queue, and goes when there is room."""
    at = place(mails=0)
    for name in ("A0001", "A0002", "A0003"):
        path = at.spool / "hold" / name
        path.write_bytes(HEAD + RCPT + TAIL)
        path.chmod(0o700)
    main = f"relayhost = [127.0.0.1]:{at.relay.port}\nspool_segment_size = 1048576\n"
    at.p.write_main(main + "queue_memory_limit = 1\n")
    r = at.run("import")
    assert r.returncode == 1 and "1 message taken over, 2 left" in r.stdout
    assert r.stderr.count("stays where it is: the envelopes of queued mail take queue_memory_limit or more") == 2
    at.p.write_main(main)
    r = at.run("import")
    assert r.returncode == 0 and "2 messages taken over, 0 left" in r.stdout
    assert sorted(m["queue_id"] for m in at.ours()) == ["A0001", "A0002", "A0003"]


def test_what_the_sender_is_still_to_be_told_of_is_left(place):
    """Postfix notes in trace and bounce what it tells the sender of when an attempt is over."""
    at = place(mails=0)
    some = RCPT + record("D", b"c@far.example")
    for name in ("A0001", "A0002", "A0003"):
        path = at.spool / "hold" / name
        path.write_bytes(HEAD + some + TAIL)
        path.chmod(0o700)
    (at.spool / "trace/A0001").write_text("recipient=c@far.example\nnotify_flags=2\nstatus=2.0.0\naction=relayed\n\n")
    (at.spool / "bounce/A0002").mkdir()
    (at.spool / "bounce/A0003").write_text("recipient=c@far.example\nstatus=5.0.0\nreason=no\n\n")
    (at.spool / "trace/A0003").touch()
    r = at.run("import")
    (at.spool / "bounce/A0002").rmdir()
    (at.spool / "trace/A0001").unlink()
    assert r.returncode == 1 and "1 message taken over, 2 left" in r.stdout
    assert re.search(r"hold/A0001 stays where it is: its sender is still to be told what was delivered", r.stderr)
    assert re.search(r"hold/A0002 stays where it is: its file in bounce, .* cannot be read", r.stderr)
    (one,) = at.ours()
    assert one["queue_id"] == "A0003" and {r["address"] for r in one["recipients"]} == {"b@far.example", "c@far.example"}


@can_stop
def test_what_cannot_be_read_again_is_not_given_back_while_the_spool_has_it(place):
    at = place(mails=1)
    (name, message), = at.each()
    for step in range(1, 1000):
        at.run("import", env={"LD_PRELOAD": str(STOPAT), "STOP_AT": str(step)})
        if at.ours():
            break
    (left,) = at.files_of("posthouse")
    os.truncate(left, len(message.data) - 3)
    r = at.run("import")
    assert r.returncode == 75 and "it ends" in r.stderr, r.stderr
    assert not at.files_of(*QUEUES) and at.everything() == {name: 1} and (at.p.dir / "spool/moving").exists()
    r = at.run("export")
    assert r.returncode == 0 and "1 message given" in r.stdout, r.stderr
    assert at.messages()[name].content == message.content and at.everything() == {name: 1}


def test_what_a_run_that_was_killed_has_left_is_removed(place):
    """With what Postfix has noted about it, unless a message of that name has come since."""
    at = place(mails=0)
    gone = at.spool / "posthouse-gone"
    gone.mkdir(0o700)
    for name in ("deferred.A0001", "hold.B0002"):
        (gone / name).write_bytes(HEAD + RCPT + TAIL)
    (at.spool / "hold/B0002").write_bytes(HEAD + RCPT + TAIL)
    for folder in ("bounce", "defer/A", "defer/B"):
        (at.spool / folder).mkdir(exist_ok=True)
    for name in ("bounce/A0001", "defer/A/A0001", "defer/B/B0002"):
        (at.spool / name).write_text("recipient=b@far.example\nreason=no\n\n")
    r = at.run("export")
    assert r.returncode == 0 and "0 messages given" in r.stdout, r.stderr
    assert not gone.exists() and [p.name for p in at.files_of("bounce", "defer")] == ["B0002"]
    (at.spool / "hold/B0002").unlink()


def test_kept_files_are_not_taken_twice(place):
    at = place(mails=3)
    before = at.messages()
    r = at.run("import", "--keep")
    assert r.returncode == 0 and "3 messages taken over" in r.stdout
    kept = {p.name.split(".")[1]: p.read_bytes() for p in at.files_of("posthouse-taken")}
    assert kept == {name: m.data for name, m in before.items()}
    r = at.run("import")
    assert "0 messages taken over" in r.stdout and len(at.ours()) == 3
    shutil.rmtree(at.spool / "posthouse-taken")


def test_nothing_moves_while_one_of_both_runs(place):
    at = place(mails=2)
    before = at.everything()
    at.p.start()
    r = at.run("import")
    assert r.returncode == 69 and "Posthouse is running" in r.stderr
    at.p.stop()
    with open(at.spool / "pid/master.pid", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for word in ("import", "export"):
            r = at.run(word)
            assert r.returncode == 69 and "Postfix is running" in r.stderr
    assert at.everything() == before


def test_what_a_process_of_postfixs_still_delivers_is_left(place):
    """Its master is gone, and a client of its waits for the last reply: after a start Postfix would not send that mail again."""
    at = place(mails=0)
    asked, answer = threading.Event(), threading.Event()
    at.relay.replies["DOT"] = lambda line: (asked.set(), answer.wait(120))[2:] or None
    at.postfix.case(at.main.replace(str(at.port), str(at.relay.port)), at.files, "")
    with Client(at.postfix.port) as c:
        assert c.mail("a@from.example", ["b@far.example"]).startswith("250")
    assert asked.wait(60)
    os.kill(int((at.spool / "pid/master.pid").read_text()), signal.SIGKILL)
    at.postfix.proc.wait()
    (name, _), = at.each()
    r = at.run("import")
    answer.set()
    assert r.returncode == 1 and re.search(f"active/{name} stays where it is: .*still delivers", r.stderr), r.stdout + r.stderr
    at.relay.wait_mails(1)

    def ended():
        return "no recipient is left" in at.run("import").stderr
    wait_for(ended)
    assert not at.ours() and len(at.relay.mails) == 1


@can_stop
def test_the_daemon_waits_for_the_end_of_a_move(place):
    at = place(mails=3)
    mark = at.p.dir / "spool/moving"
    for step in range(1, 1000):
        at.run("import", env={"LD_PRELOAD": str(STOPAT), "STOP_AT": str(step)})
        if mark.exists():
            break
    assert mark.read_text() == f"{at.spool}\n"
    with pytest.raises(AssertionError, match="mail was on its way to or from Postfix's queue"):
        at.p.start()
    at.p.stop()
    at.run("import")
    at.p.start()


@can_stop
@pytest.mark.parametrize("word", ["import", "export"])
def test_killed_before_each_step(place, word):
    """Whatever the step, and whichever way the mail goes then: each message is there once."""
    at = place(mails=3)
    whole = at.everything()
    assert set(whole.values()) == {1}
    steps, killed = 0, True
    while killed:
        if word == "export":
            assert at.run("import").returncode == 0
        steps += 1
        r = at.run(word, env={"LD_PRELOAD": str(STOPAT), "STOP_AT": str(steps)})
        killed = r.returncode == -9
        assert killed or r.returncode == 0, r.stderr
        r = at.run("import" if steps % 2 else "export")
        assert r.returncode == 0, r.stderr
        assert at.everything() == whole, f"{word}, step {steps}"
        assert not (at.p.dir / "spool/moving").exists() and not at.files_of("posthouse", "posthouse-gone")
        if steps % 2:
            assert at.run("export").returncode == 0
        assert at.everything() == whole and not at.ours(), f"{word}, step {steps}, and back"
    print(f"{word}: {steps} steps")
    assert steps > 20


def test_a_postfix_that_names_no_queue_has_the_usual_one():
    """As Debian's main.cf: its queue is where Postfix has it by default, and not where Posthouse has its own."""
    with contextlib.ExitStack() as stack:
        p = Posthouse("")
        stack.callback(shutil.rmtree, p.dir)
        front = p.dir / "etc"
        front.mkdir()
        (front / "main.cf").write_text("myhostname = mta.example\n")
        (p.dir / "main.cf").write_text((p.dir / "main.cf").read_text() + f"front_config_directory = {front}\n")
        (p.dir / "mail").write_bytes(HEAD + RCPT + TAIL)
        script = ("mount -t tmpfs none /var/spool && mkdir /var/spool/postfix && cd /var/spool/postfix && "
                  "mkdir incoming active deferred hold maildrop && chown postfix * && "
                  f"install -m 700 -o postfix {p.dir}/mail hold/A7001 && exec {BUILD}/src/posthouse -c {p.dir} import")
        r = subprocess.run(["unshare", "-m", "sh", "-ec", script], capture_output=True, text=True, env=p.env())
        assert r.returncode == 0 and "1 message taken over, 0 left" in r.stdout, r.stdout + r.stderr
        assert [m["queue_id"] for m in p.queue()] == ["A7001"]
