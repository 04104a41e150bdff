"""posthouse setup replace-postfix: a real Postfix that runs, with mail of all kinds, and the whole move there and back.

MAILS=10000 for a large queue; STEPS=1 kills at every step."""
import collections
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from kit import BUILD, SLOW, Client, free_port, owner, wait_for
from pair import INSIDE, Postfix, listens
from test_transfer import STOPAT, Place, can_stop, without_queue

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this"),
              pytest.mark.skipif(bool(INSIDE), reason="its commands see another /tmp")]

MAILS = int(os.environ.get("MAILS", "30"))
STEPS = int(os.environ.get("STEPS", "31"))
# Postfix's own command but for what a test says about a word: {words} is a case's lines.
COMMAND = '#!/bin/sh\ncase "$3" in\n{words}\nesac\nexec /usr/sbin/postfix "$@"\n'


class House(Place):
    """A Postfix that runs as it is started by hand, and the configuration of a Posthouse for the same port."""

    def __init__(self, postfix, mails, main="", front=""):
        super().__init__(postfix, f"command_directory = {postfix.dir}/bin\n" + front, mails)
        self.dir, self.front = self.p.dir, postfix.dir / "etc"
        (postfix.dir / "bin").mkdir(exist_ok=True)
        for command in pathlib.Path("/usr/sbin").glob("post*"):
            if command.name != "postfix" and not (postfix.dir / "bin" / command.name).exists():
                (postfix.dir / "bin" / command.name).symlink_to(command)
        self.words("")
        (self.dir / "main.cf").write_text((self.dir / "main.cf").read_text().replace(str(self.relay.port), str(self.port)) + main)
        master = self.dir / "master.cf"
        master.write_text(master.read_text().replace(str(self.p.port), str(postfix.port)))
        self.p.port = postfix.port
        self.note = self.dir / "replace-postfix.undo"
        self.started()

    def words(self, lines):
        path = self.postfix.dir / "bin/postfix"
        path.write_text(COMMAND.format(words=lines))
        path.chmod(0o755)

    def postfix_does(self, word):
        return subprocess.run(["/usr/sbin/postfix", "-c", self.front, word], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def runs(self):
        return self.postfix_does("status")

    def started(self):
        for path in self.files_of("incoming"):
            os.utime(path)  # it has been in deferred, where times lie ahead
        assert self.runs() or self.postfix_does("start")
        wait_for(lambda: not self.files_of("incoming", "active"), 60 + MAILS, 0.2)

    def setup(self, *words, env=None, program=None, here=False, said="said"):
        """here: the sendmail of the machine is that of this configuration."""
        env = dict(self.p.env(), PATH=f"{program or BUILD / 'src'}:{os.environ['PATH']}", **(env or {}))
        env.pop("MAIL_CONFIG", None)
        env |= {"MAIL_CONFIG": str(self.dir)} if here else {}
        where = [] if here else ["-c", self.dir]
        with open(self.dir / said, "w") as out:
            r = subprocess.run([BUILD / "src/posthouse", *where, "setup", "replace-postfix", "--postfix", self.front, *words],
                               stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        r.stdout = (self.dir / said).read_text()
        return r

    def daemon_of(self, script):
        """A folder of programs for setup, whose posthoused is this script."""
        programs = self.dir / "programs"
        programs.mkdir()
        (programs / "posthoused").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "posthoused").chmod(0o755)
        return programs

    def adds_record(self):
        assert self.p.run("record", "set", "r", "hosts=[127.0.0.1]:9", "user=u", "password", stdin="pw\n").returncode == 0

    def greeting(self):
        with Client(self.postfix.port) as c:
            return c.cmd("HELP") + c.cmd("EHLO x.example")

    def ours_serves(self):
        """Posthouse, and not Postfix, has the port."""
        path = self.dir / "spool/master.pid"
        pid = path.read_text().strip() if path.exists() else "none"
        return not self.runs() and listens(self.postfix.port) and os.path.exists(f"/proc/{pid}")

    def contents(self):
        """Of all mail that Postfix has: content and envelope; a queue ID can change when Postfix starts."""
        return collections.Counter((m.content, frozenset(m.envelope)) for _, m in self.each())

    def rows(self):
        return sorted(re.sub(r'"queue_id": "\w+"', "", without_queue(r)) for r in self.listed())

    def stop(self):
        subprocess.run([BUILD / "src/posthouse", "-c", self.dir, "postfix", "stop"], capture_output=True)
        self.postfix_does("abort")
        wait_for(lambda: not listens(self.postfix.port))
        for name in ("posthouse", "posthouse-taken", "posthouse-gone"):
            shutil.rmtree(self.spool / name, ignore_errors=True)
        super().stop()


@pytest.fixture
def house(postfix):
    houses = []

    def make(mails=7, **how):
        houses.append(House(postfix, mails, **how))
        return houses[-1]
    yield make
    for h in houses:
        h.stop()


def test_there_and_back(house, server_cert):
    h = house(MAILS)
    before, contents = h.rows(), h.contents()
    assert sum(contents.values()) == MAILS
    tls = free_port()  # the client speaks first there
    with open(h.dir / "master.cf", "a") as f:
        f.write(f"127.0.0.1:{tls} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n")
    with open(h.dir / "main.cf", "a") as f:
        f.write(f"smtpd_tls_cert_file = {server_cert[0]}\nsmtpd_tls_key_file = {server_cert[1]}\n")
    r = h.setup()
    assert r.returncode == 0 and "sendmail stays Postfix's" in r.stdout, r.stdout
    assert f"its queue of {MAILS} messages (0 in maildrop" in r.stdout
    assert f"127.0.0.1 port {h.postfix.port}, 127.0.0.1 port {tls}\n" in r.stdout
    assert h.runs() and not h.note.exists() and h.rows() == before
    assert "nothing was applied" in h.setup("--undo").stdout
    r = h.setup("--apply")
    assert r.returncode == 0 and f"{MAILS} messages taken over, 0 left" in r.stdout, r.stdout
    print(re.search(r"[0-9.]+ s after Postfix began to stop", r.stdout)[0])
    assert h.ours_serves() and not h.contents() and len(h.ours()) == MAILS
    assert not h.files_of("defer", "posthouse", "posthouse-gone")
    pid = (h.dir / "spool/master.pid").read_text()
    r = h.setup("--apply")
    assert r.returncode == 0 and "already" in r.stdout and (h.dir / "spool/master.pid").read_text() == pid
    r = h.setup()
    assert r.returncode == 0 and "already" in r.stdout and "would do" not in r.stdout, r.stdout
    assert h.p.send("new@from.example", ["b@far.example"]).startswith("250")
    r = h.setup("--undo")
    assert r.returncode == 0 and f"{MAILS + 1} messages given to Postfix, 0 left" in r.stdout, r.stdout
    assert h.runs() and listens(h.postfix.port) and not h.ours() and not h.note.exists()
    wait_for(lambda: not h.files_of("incoming", "active"))
    assert not contents - h.contents() and sum(h.contents().values()) == MAILS + 1
    after = [row for row in h.rows() if "new@from.example" not in row]
    assert [row for row in before if "hold" in row] == [row for row in after if "hold" in row]
    assert len(after) == MAILS


def test_what_is_refused_changes_nothing(house):
    h = house(2)
    before = h.rows()
    main = (h.dir / "main.cf").read_text()

    def refused(status, said, *words):
        r = h.setup(*words)
        assert r.returncode == status and said in r.stdout, r.stdout
        assert h.runs() and listens(h.postfix.port) and h.rows() == before and not h.note.exists() and not h.ours()
    (h.dir / "main.cf").write_text(main + "queue_run_delay = soon\n")
    for words in ([], ["--apply"]):
        refused(2, "queue_run_delay", *words)
    (h.dir / "main.cf").write_text("# Made by posthouse setup beside-postfix from x\n" + main)
    refused(1, "stands beside Postfix", "--apply")
    (h.dir / "main.cf").write_text(main)
    (h.front / "main.cf").write_text((front := (h.front / "main.cf").read_text()) + "multi_instance_directories = /etc/postfix-second\n")
    refused(1, "one of several instances of Postfix", "--apply")
    (h.front / "main.cf").write_text(front + "multi_instance_enable = yes\n")
    refused(1, "one of several instances of Postfix")
    (h.front / "main.cf").write_text(front)
    for answer in ("exit 1", "exit 70", "kill -9 $$"):
        h.words(f"status) {answer};;")
        refused(1, "whether that Postfix runs is not known", "--apply")
    h.words("stop) echo busy >&2; exit 1;;")
    refused(1, "Postfix runs on; no mail was moved", "--apply")
    h.words("stop) exit 0;;")
    refused(1, "Postfix does not stop", "--apply")
    h.words("")
    (h.postfix.dir / "bin/postfix").unlink()
    (h.postfix.dir / "bin/postfix").symlink_to(BUILD / "src/posthouse")
    refused(1, "it is Posthouse's", "--apply")
    (h.postfix.dir / "bin/postfix").unlink()
    h.words("")
    h.postfix_does("stop")
    wait_for(lambda: not listens(h.postfix.port))
    with socket.create_server(("127.0.0.1", h.postfix.port)):
        r = h.setup("--apply")
        assert r.returncode == 1 and f"127.0.0.1 port {h.postfix.port}: another program listens there" in r.stdout
    h.p.start()
    assert "a Posthouse runs with this configuration" in h.setup("--apply").stdout
    h.p.stop()
    assert not h.note.exists()


def test_the_road_back_is_taken_by_itself(house):
    """A port that another program has, a daemon that does not start or does not greet: Postfix runs again, with all its mail."""
    h = house()
    contents = h.contents()
    other = free_port()
    master = h.dir / "master.cf"
    lines = master.read_text()

    def goes_back(said, program=None):
        r = h.setup("--apply", program=program)
        assert r.returncode == 1 and said in r.stdout and "Postfix is in its place again, with its mail" in r.stdout, r.stdout
        assert h.runs() and listens(h.postfix.port) and not h.note.exists() and not h.ours()
        wait_for(lambda: not h.files_of("incoming", "active"))
        assert h.contents() == contents
    with socket.create_server(("127.0.0.1", other)):
        master.write_text(lines + f"127.0.0.1:{other} inet n - n - - smtpd\n")
        goes_back(f"127.0.0.1 port {other}: another program listens there")
    master.write_text(lines)
    goes_back("Posthouse does not start", h.daemon_of("exit 3"))


def test_an_undo_that_does_not_go(house):
    """… leaves Posthouse in Postfix's place, with the mail."""
    h = house()
    contents = h.contents()
    assert h.setup("--apply").returncode == 0
    h.words("status) exit 70;;")
    r = h.setup("--undo")
    assert r.returncode == 1 and "is not known" in r.stdout and h.ours_serves(), r.stdout
    h.words("check) exit 1;;")
    r = h.setup("--undo")
    assert r.returncode == 1 and "Postfix would not start" in r.stdout and h.ours_serves(), r.stdout
    h.words("start) exit 1;;")
    r = h.setup("--undo")
    assert r.returncode == 1 and "Posthouse stays in Postfix's place" in r.stdout and h.ours_serves(), r.stdout
    assert len(h.ours()) == 7 and not h.contents()
    r = h.setup("--undo", program=h.daemon_of("exit 3"))
    assert r.returncode == 1 and "neither goes now" in r.stdout and "replace-postfix --apply\n" in r.stdout, r.stdout
    r = h.setup("--apply")  # what it has said may be done
    assert r.returncode == 0 and h.ours_serves() and len(h.ours()) == 7, r.stdout
    h.words("")
    assert h.setup("--undo").returncode == 0 and h.runs()
    wait_for(lambda: not h.files_of("incoming", "active"))
    assert h.contents() == contents


@contextlib.contextmanager
def small_disk():
    """Its folder, and what fills it when it is called, and gives room again at the next call."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,nr_inodes=20000,mode=777", "tmpfs", path], check=True)

    def fill():
        if (path / "full").exists():
            subprocess.run(["rm", "-r", path / "full"], check=True)
            return
        (path / "full").mkdir()
        with contextlib.suppress(OSError), open(path / "full/file", "wb", buffering=0) as f:
            while True:
                f.write(bytes(65536))
        with contextlib.suppress(OSError):
            for i in range(20000):
                (path / f"full/{i}").touch()
    yield path, fill
    subprocess.run(["umount", "-l", path], check=True)
    path.rmdir()


@pytest.mark.parametrize("word", ["--apply", "--undo"])
def test_a_full_disk_leaves_who_had_the_mail(name_server, word):
    """One of both runs, with all mail, and the same command does it when there is room."""
    with small_disk() as (disk, fill):
        tempfile.tempdir = str(disk)
        postfix = Postfix(name_server)
        tempfile.tempdir = None
        h = House(postfix, 7)
        try:
            (disk / "ours").mkdir()
            subprocess.run(["chown", owner(), disk / "ours"], check=True)
            (h.dir / "spool").symlink_to(disk / "ours")
            contents = h.contents()
            if word == "--undo":
                assert h.setup("--apply").returncode == 0
            fill()
            r = h.setup(word)
            assert r.returncode == 1 and "neither" not in r.stdout, r.stdout
            assert h.ours_serves() and len(h.ours()) == 7 if word == "--undo" else h.runs() and listens(postfix.port), r.stdout
            fill()
            assert h.setup(word).returncode == 0
            assert h.contents() == contents if word == "--undo" else len(h.ours()) == 7
        finally:
            h.stop()
            postfix.stop()


def applied_with_accounts(house, mails=2):
    """In Postfix's place, with an accounts store of its own."""
    h = house(mails)
    with open(h.dir / "main.cf", "a") as f:
        f.write(f"data_directory = {h.dir}/data\n")
    assert h.setup("--apply").returncode == 0
    return h


def test_an_undo_with_records_that_postfix_does_not_know(house):
    """Their mail would go without a login, without the TLS that they demand, or to a host of the record's name."""
    h = applied_with_accounts(house)
    for n in range(7):
        words = ["user=u", "password"] if n < 4 else ["tls=secure"]
        r = h.p.run("record", "set", f"r{n}", f"hosts=[127.0.0.1]:{n + 9}", *words, stdin="pw\n")
        assert r.returncode == 0, r.stderr
    r = h.setup("--undo")
    assert r.returncode == 1 and h.ours_serves() and h.note.exists(), r.stdout
    assert '7 relay records are not known' in r.stdout and '"r4", ...)' in r.stdout and "r5" not in r.stdout, r.stdout
    for state in ("applying", "undoing"):  # power failed at that moment, and Posthouse is in place since
        text = h.note.read_text()
        h.note.write_text(text.replace("state applied", f"state {state}"))
        r = h.setup("--undo")
        assert r.returncode == 1 and "are not known" in r.stdout and h.ours_serves(), r.stdout
        h.note.write_text(text)
    (h.dir / "data/relays.db").rename(h.dir / "data/away")
    r = h.setup("--undo")
    assert r.returncode == 1 and "is not known" in r.stdout and h.ours_serves(), r.stdout
    r = h.setup("--undo", "--without-records")
    assert r.returncode == 0 and h.runs() and not h.note.exists(), r.stdout


def test_an_undo_with_relay_hosts_that_postfix_does_not_know(house):
    """The embedded accounts store has them, or another that no table of main.cf names: Postfix would send by its own."""
    h = applied_with_accounts(house, 1)
    for words in (("domain", "add", "shop.example"), ("relay", "set", "@shop.example", "[127.0.0.1]:9")):
        r = h.p.run(*words)
        assert r.returncode == 0, r.stderr
    for store in ("the embedded accounts store", f"sqlite:{h.dir}/data/accounts.db"):
        with open(h.dir / "main.cf", "a") as f:
            f.write(f"accounts_store = {store}\n" if ":" in store else "")
        r = h.setup("--undo")
        assert r.returncode == 1 and f"1 sender has a relay host in {store}" in r.stdout and h.ours_serves(), r.stdout
        assert "@shop.example" in r.stdout
    assert h.p.run("relay", "unset", "@shop.example").returncode == 0
    assert h.setup("--undo").returncode == 0 and h.runs()


def test_a_second_apply_that_does_not_go(house):
    """… leaves Posthouse in its place: Postfix would send mail of relay records without their accounts, and nobody has said that it may."""
    h = applied_with_accounts(house)
    h.adds_record()
    fails = h.dir / "fails"
    programs = h.daemon_of(f'n=$(cat {fails}); echo $((n - 1)) >{fails}\n[ $n -le 0 ] || exit 3\nexec {BUILD}/src/posthoused "$@"')

    def again(times, said):
        subprocess.run(["/usr/sbin/sendmail", "-i", "-f", "late@from.example", "friend@far.example"], input=b"Subject: late\n\nx\n",
                       env=dict(os.environ, MAIL_CONFIG=str(h.front)), check=True)
        assert h.files_of("maildrop")
        fails.write_text(f"{times}\n")
        r = h.setup("--apply", program=programs)
        assert r.returncode == 1 and said in r.stdout and not h.runs() and not h.contents() and h.note.exists(), r.stdout
    again(1, "Posthouse stays in Postfix's place")
    assert h.ours_serves() and len(h.ours()) == 3
    again(2, "neither goes now")
    r = h.setup("--undo")
    assert r.returncode == 1 and "is not known" in r.stdout and not h.runs(), r.stdout
    r = h.setup("--apply")
    assert r.returncode == 0 and h.ours_serves() and len(h.ours()) == 4, r.stdout
    for n, state in enumerate(("applying", "undoing")):  # power failed at that moment, and Posthouse is in place since
        h.note.write_text(h.note.read_text().replace("state applied", f"state {state}"))
        again(1, "Posthouse stays in Postfix's place")
        assert h.ours_serves() and len(h.ours()) == 5 + n
        h.note.write_text(h.note.read_text().replace("state applying", "state applied"))
    assert h.setup("--undo", "--without-records").returncode == 0 and h.runs()


def test_an_undo_without_a_postfix_to_go_back_to(house):
    """The package posthouse-mta, installed since, has Postfix's commands: mail that went into Postfix's queue would be sent by nobody."""
    h = house(2)
    assert h.setup("--apply").returncode == 0
    command = h.postfix.dir / "bin/postfix"
    command.unlink()
    command.symlink_to(BUILD / "src/posthouse")
    r = h.setup("--undo")
    assert r.returncode == 1 and "no Postfix is here" in r.stdout and h.note.exists(), r.stdout
    assert h.ours_serves() and len(h.ours()) == 2 and not h.contents()
    command.unlink()
    h.words("")
    assert h.setup("--undo").returncode == 0 and h.runs()


def test_a_first_apply_that_does_not_go_gives_postfix_no_mail_of_records(house):
    """What waits in Posthouse's queue before it may be of relay records, which Postfix does not know."""
    h = applied_with_accounts(house)
    h.adds_record()
    h.note.unlink()  # so it is a Posthouse that was beside, with two messages
    h.p.run("postfix", "stop")
    wait_for(lambda: not listens(h.postfix.port))
    assert h.postfix_does("start")
    r = h.setup("--apply", program=h.daemon_of("exit 3"))
    assert r.returncode == 1 and "neither goes now" in r.stdout and not h.runs() and not h.contents(), r.stdout
    r = h.setup("--apply")
    assert r.returncode == 0 and h.ours_serves() and len(h.ours()) == 2, r.stdout


def test_a_first_apply_that_moves_no_mail_says_where_it_waits(house):
    """Posthouse, which had mail of relay records before, goes on then, and sends nothing of what is in Postfix's queue."""
    h = applied_with_accounts(house)
    h.adds_record()
    h.note.unlink()
    h.p.run("postfix", "stop")
    wait_for(lambda: not listens(h.postfix.port))
    assert h.postfix_does("start")
    h.drop("-f", "late@from.example", "friend@far.example", text="Subject: late\n\nx\n")
    wait_for(lambda: h.files_of("deferred"))
    (h.spool / "posthouse").write_text("")  # a disk that fails looks like this
    r = h.setup("--apply")
    assert r.returncode == 1 and "stays in Postfix's place" in r.stdout and "1 message is in Postfix's queue" in r.stdout, r.stdout
    assert h.ours_serves() and len(h.ours()) == 2
    (h.spool / "posthouse").unlink()
    r = h.setup("--apply")
    assert r.returncode == 0 and h.ours_serves() and len(h.ours()) == 3, r.stdout


def test_an_undo_to_a_postfix_that_starts_at_the_second_attempt(house):
    """With maillog_file it renames queue files and fails, the first time; Debian's unit postfix.service has started all the same."""
    h = house(2)
    assert h.setup("--apply").returncode == 0
    began = h.dir / "began"
    h.words(f"start) [ -e {began} ] || {{ touch {began}; exit 0; }};;")
    before = time.monotonic()
    r = h.setup("--undo")
    assert r.returncode == 0 and h.runs() and not h.note.exists() and not h.ours(), r.stdout
    assert time.monotonic() - before < 30 * SLOW


def test_what_an_undo_cannot_give_back_is_said_at_its_end(house):
    h = house(2)
    assert h.setup("--apply").returncode == 0
    h.p.run("postfix", "stop")
    subprocess.run([BUILD / "tests" / "newer", h.dir / "spool"], check=True, stdout=subprocess.DEVNULL)
    h.p.run("postfix", "start")
    r = h.setup("--undo")
    assert r.returncode == 1 and h.runs() and not h.note.exists(), r.stdout
    assert f"stays in {h.dir}/spool" in r.stdout and "with the mail that waited" not in r.stdout, r.stdout


def test_what_an_apply_cannot_take_is_said_at_its_end(house):
    h = house(1)
    damaged = h.spool / "corrupt/E0000"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"x")
    damaged.chmod(0o700)
    r = h.setup("--apply")
    assert r.returncode == 0 and h.ours_serves() and len(h.ours()) == 1 and damaged.exists(), r.stdout
    damaged.unlink()
    assert "E0000 stays where it is" in r.stdout and "stays in Postfix's queue, where nothing sends it" in r.stdout, r.stdout


def test_one_at_a_time(house):
    """Another command is refused while one is under way, and takes nothing from it."""
    h = house(2)
    begun, go_on = h.dir / "begun", h.dir / "go_on"
    h.words(f"stop) touch {begun}; while [ ! -e {go_on} ]; do sleep 0.1; done;;")
    said = []
    first = threading.Thread(target=lambda: said.append(h.setup("--apply", said="said first")))
    first.start()
    wait_for(begun.exists)
    for word in ("--apply", "--undo"):
        r = h.setup(word)
        assert r.returncode == 1 and "has not ended yet" in r.stdout and h.runs(), r.stdout
    go_on.touch()
    first.join()
    assert said[0].returncode == 0 and h.ours_serves() and len(h.ours()) == 2, said[0].stdout
    h.words("")
    assert h.setup("--undo").returncode == 0 and h.runs()


def test_what_a_program_was_sending_meanwhile_is_named(house):
    """cron keeps sendmail open from the first line that a job prints on to the job's end."""
    h = house(1)
    with subprocess.Popen(["/usr/sbin/sendmail", "-i", "-f", "late@from.example", "friend@far.example"], stdin=subprocess.PIPE,
                          env=dict(os.environ, MAIL_CONFIG=str(h.front))) as program:
        program.stdin.write(b"Subject: late\n\n" + b"x\n" * 9999)
        program.stdin.flush()
        wait_for(lambda: h.files_of("maildrop"))
        r = h.setup("--apply")
        assert r.returncode == 0 and "a program is sending it" in r.stdout and "1 message is in Postfix's maildrop" in r.stdout, r.stdout
        assert [path.stat().st_mode & 0o100 for path in h.files_of("maildrop")] == [0]
    assert program.returncode == 0
    r = h.setup("--apply")
    assert r.returncode == 0 and "maildrop" not in r.stdout and not h.files_of("maildrop"), r.stdout
    assert len(h.ours()) == 2


def test_sendmail_of_the_machine(house, tmp_path):
    """It becomes Posthouse's, and Postfix's again; mail of a program that was sending with Postfix's comes along."""
    tmp_path.chmod(0o755)
    path = tmp_path / "sendmail"
    path.write_text("#!/bin/sh\nexec /usr/sbin/sendmail \"$@\"\n")
    path.chmod(0o755)
    theirs = path.read_text()
    h = house(1, front=f"sendmail_path = {path}\n")
    env = {"MAIL_CONFIG": str(h.dir)}

    def setup(word):
        program = ["env", f"MAIL_CONFIG={h.dir}", BUILD / "src/posthouse", "setup", "replace-postfix", "--postfix", h.front, word]
        with open(h.dir / "said", "w") as said:
            r = subprocess.run(program, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                               env=dict(h.p.env(), PATH=f"{BUILD / 'src'}:{os.environ['PATH']}"))
        assert r.returncode == 0, (h.dir / "said").read_text()
    setup("--apply")
    assert os.readlink(path) == str((BUILD / "src/posthouse").resolve()) and (tmp_path / "sendmail.postfix").read_text() == theirs
    subprocess.run([path, "-f", "joe@from.example", "friend@far.example"], input="Subject: ours\n\nx\n", text=True, check=True,
                   env=dict(os.environ, **env))
    assert [m["sender"] for m in h.ours() if "joe" in m["sender"]] == ["joe@from.example"]
    h.drop("-f", "late@from.example", "friend@far.example", text="Subject: late\n\nx\n")  # a program that had Postfix's open
    setup("--apply")
    assert len(h.ours()) == 3 and not h.files_of("maildrop")
    setup("--undo")
    assert not path.is_symlink() and path.read_text() == theirs and not (tmp_path / "sendmail.postfix").exists()
    assert len(h.listed()) == 3 and h.runs()


def packaged(folder, path):
    """Makes a database of dpkg in folder, in which path is a file of a package."""
    for name in ("info", "updates", "triggers"):
        (folder / name).mkdir(parents=True)
    (folder / "status").write_text("Package: postfix\nStatus: install ok installed\nMaintainer: x <x@x.example>\nArchitecture: all\n"
                                   "Version: 1\nDescription: x\n")
    (folder / "info/format").write_text("1\n")
    (folder / "info/postfix.list").write_text("".join(f"{p}\n" for p in ["/.", *list(path.parents)[-2::-1], path]))
    for name in ("diversions", "statoverride", "triggers/File"):
        (folder / name).touch()
    return {"DPKG_ADMINDIR": str(folder)}


@pytest.mark.skipif(shutil.which("dpkg-divert") is None, reason="no dpkg")
def test_a_sendmail_that_the_administrator_has_diverted(house, tmp_path):
    """It stays as it is: before anything is changed, and also where it is diverted after that."""
    tmp_path.chmod(0o755)
    path = tmp_path / "sendmail"
    path.write_text("#!/bin/sh\nexec /usr/sbin/sendmail \"$@\"\n")
    path.chmod(0o755)
    env = packaged(tmp_path / "dpkg", path)
    h = house(1, front=f"sendmail_path = {path}\n")

    def divert(word, to):
        subprocess.run(["dpkg-divert", "--local", "--no-rename", "--divert", f"{path}.{to}", word, path], check=True,
                       env=dict(os.environ, **env), stdout=subprocess.DEVNULL)

    def setup(word):
        return h.setup(word, env=env, here=True)
    divert("--add", "real")
    r = setup("--apply")
    assert r.returncode == 1 and "another diversion" in r.stdout and h.runs() and not h.note.exists(), r.stdout
    divert("--remove", "real")
    assert setup("--apply").returncode == 0 and h.ours_serves() and path.is_symlink()
    divert("--remove", "postfix")
    divert("--add", "real")
    r = setup("--undo")
    assert r.returncode == 0 and h.runs() and not path.is_symlink(), r.stdout
    assert "sendmail.real" in (tmp_path / "dpkg/diversions").read_text()


def test_the_machine_starts_the_one_that_has_the_mail(house, tmp_path):
    """Power may fail as soon as it is started: what starts with the machine is said to systemd before, not after."""
    h = house(1, front="sendmail_path = /nowhere/sendmail\n")
    told, place = tmp_path / "told", tmp_path / "etc"
    with open(h.dir / "main.cf", "a") as f:  # in /etc/posthouse others are the default
        f.write(f"queue_directory = {h.dir}/spool\ndata_directory = {h.dir}/spool\n")
    for folder in ("up", "work"):
        (place / folder).mkdir(parents=True)
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$1 $2" >>{told}\n[ "$1 $2" != "start posthouse.service" ] || '
                                        f'exec {BUILD}/src/posthoused -c {h.dir}\n')
    (tmp_path / "systemctl").chmod(0o755)
    h.words(f"start) echo start Postfix >>{told};;")
    script = (f"mount -t overlay overlay -o lowerdir=/etc,upperdir={place}/up,workdir={place}/work /etc && mkdir -p /etc/posthouse && "
              f"mount --bind {h.dir} /etc/posthouse && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && "
              f'exec {BUILD}/src/posthouse -c /etc/posthouse setup replace-postfix --postfix {h.front} "$0"')
    for word, says, starts in (("--apply", "enable", "start posthouse.service"), ("--undo", "disable", "start Postfix")):
        r = subprocess.run(["unshare", "-m", "sh", "-c", script, word], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           env=dict(h.p.env(), PATH=f"{tmp_path}:{BUILD}/src:{os.environ['PATH']}"))
        if "overlay" in r.stderr:
            pytest.skip("no file system can be put above another one here")
        assert r.returncode == 0, r.stdout + r.stderr
        assert re.search(rf"(?ms)^{says} posthouse.service$.*^{starts}$(?!.*able posthouse.service)", told.read_text()), told.read_text()


@can_stop
@pytest.mark.parametrize("word", ["--apply", "--undo"])
def test_killed(house, word):
    """Whatever the step: each message is there once, and the same command, or the other one, ends the move."""
    h = house(4)
    contents, steps, killed = h.contents(), 1, True
    while killed:
        if word == "--undo":
            assert h.setup("--apply").returncode == 0
        r = h.setup(word, env={"LD_PRELOAD": str(STOPAT), "STOP_AT": str(steps), "STOP_IN": "posthouse"})
        killed = r.returncode == -9
        assert killed or r.returncode == 0, r.stdout
        other = "--undo" if word == "--apply" else "--apply"
        again = word if steps // STEPS % 2 == 0 or not h.note.exists() else other
        if h.note.exists() or again == "--apply":
            r = h.setup(again)
            assert r.returncode == 0, (steps, again, r.stdout)
        if again == "--apply":
            assert h.ours_serves() and len(h.ours()) == 4 and not h.contents(), steps
            assert h.setup("--undo").returncode == 0
        assert h.runs() and listens(h.postfix.port) and not h.ours() and not h.note.exists(), (steps, again)
        wait_for(lambda: not h.files_of("incoming", "active"))
        assert h.contents() == contents and not h.files_of("posthouse", "posthouse-gone"), steps
        steps += STEPS
    print(f"{word}: {steps} steps")
    assert steps > 2 * STEPS or STEPS > 30


def test_that_postfix_did_not_run_before_is_said(house):
    """The way back leaves it as it was: then nothing serves, which nobody should have to find out."""
    h = house(1)
    assert h.postfix_does("stop")
    assert h.setup("--apply").returncode == 0
    r = h.setup("--undo")
    assert r.returncode == 0 and not h.runs() and sum(h.contents().values()) == 1
    assert "it did not run before the move and does not now: nothing sends that mail" in r.stdout, r.stdout
