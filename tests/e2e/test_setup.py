"""posthouse setup: asked at a terminal or told by options, written, tested, and changed by the same command."""
import json
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import threading
import time

import pytest

from kit import BUILD, POSTHOUSE, SLOW, FakeRelay, Posthouse, free_port, make_cert, server_tls

STOPAT = BUILD / "tests" / "libstopat.so"
LOGIN = {"clerk@shop.example": "open sesame"}
MAIN = "data_directory = {dir}/data\nqueue_directory = {dir}/spool\nmydestination =\n"


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, p, *args):
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave, self.text, self.seen = slave, "", 0
        path = f"{POSTHOUSE.parent}:{os.environ['PATH']}"
        self.proc = subprocess.Popen([str(POSTHOUSE), *args], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                     env=dict(p.env(), MAIL_CONFIG=str(p.dir), PATH=path), preexec_fn=self.own)
        threading.Thread(target=self.read, daemon=True).start()

    @staticmethod
    def own():
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's job in the background has it ignored

    def read(self):
        while data := os.read(self.master, 4096):
            self.text += data.decode()

    def until(self, words):
        end = time.monotonic() + 20 * SLOW
        while words not in self.text[self.seen:]:
            assert time.monotonic() < end, f"no {words!r} in {self.text!r}"
            time.sleep(0.01)
        self.seen = self.text.index(words, self.seen) + len(words)

    def answer(self, words, line):
        self.until(words)
        if words == "Password: ":  # what was typed before the echo went off is not read
            while termios.tcgetattr(self.slave)[3] & termios.ECHO:
                time.sleep(0.01)
        os.write(self.master, line.encode())

    def end(self):
        rc = self.proc.wait(60 * SLOW)
        mark = "\n-- the end --\n"
        os.write(self.slave, mark.encode())
        self.until("-- the end --")
        assert termios.tcgetattr(self.slave)[3] & termios.ECHO
        return rc


def files(p):
    """What setup could have written."""
    return {str(f.relative_to(p.dir)): f.read_bytes() for f in sorted(p.dir.rglob("*"))
            if f.is_file() and f.name not in ("maillog", "stderr") and "spool" not in f.parts and not f.name.endswith(("-wal", "-shm"))}


def test_a_machine_without_a_configuration_is_told_how_to_get_one(tmp_path):
    for words in (["check"], ["queue", "list"]):
        r = subprocess.run([POSTHOUSE, "-c", tmp_path / "none", *words], capture_output=True, text=True)
        assert r.stderr == f"posthouse: fatal: {tmp_path}/none: No such file or directory (posthouse setup makes a configuration)\n"


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    tls = server_tls(*make_cert(tmp_path_factory.mktemp("cert"), "relay.example"))
    with FakeRelay(auth=["PLAIN"], need_auth=True, users=LOGIN, tls=tls, tls_first=True) as r:
        yield r


def told(p, host, *more, user="clerk@shop.example", password="open sesame"):
    return p.run("setup", "--host", host, "--user", user, "--password-file", "-", *more, stdin=password + "\n")


def test_a_person_at_the_terminal(relay):
    """What is no answer is asked for again; who does not agree has changed nothing; the password is never shown."""
    p = Posthouse()
    try:
        (p.dir / "main.cf").unlink()
        port = relay.port
        t = Terminal(p, "setup")
        t.answer("Number or name [plain]: ", "no such provider\n")
        t.answer("Number or name [plain]: ", "1\n")
        t.answer("Relay host: ", "[127.0.0.1\n")
        t.answer("Relay host: ", f"127.0.0.1:{port}\n")
        t.answer("[everybody]: ", "\n")
        t.answer("TLS [encrypt]: ", "\n")
        t.answer("an empty line): ", "clerk@shop.example\n")
        t.answer("Password: ", "open sesame\n")
        t.answer("[clerk@shop.example]: ", "\n")
        t.until(f"relayhost = [127.0.0.1]:{port}")
        before = files(p)
        t.answer("Write it? [Y/n]: ", "n\n")
        assert t.end() == 1 and files(p) == before and "main.cf" not in before
        assert "open sesame" not in t.text
    finally:
        p.stop()


@pytest.mark.parametrize("fresh", [True, False])
def test_a_port_that_another_mail_server_has_is_not_taken_from_it(relay, fresh):
    """Each time that Postfix is started again a daemon that systemd tries to start all the time would take its port."""
    p = Posthouse(MAIN)
    try:
        if fresh:
            (p.dir / "main.cf").unlink()
        p.run("--version")  # makes a link there
        before = files(p)
        with socket.create_server(("127.0.0.1", p.port)):
            for more in (["--no-test"], []) if fresh else ([],):
                r = told(p, f"127.0.0.1:{relay.port}", *more)
                assert r.returncode == 1 and f"127.0.0.1 port {p.port}: another program listens there" in r.stderr, r.stderr
                assert "beside-postfix" in r.stderr and files(p) == before
            assert fresh or told(p, f"127.0.0.1:{relay.port}", "--no-test").returncode == 0
    finally:
        p.stop()


def test_a_daemon_that_does_not_run_is_started(relay):
    """Asked, written, started, tested; then each answer that was given is offered, and the password need not be typed again."""
    p = Posthouse(MAIN)
    try:
        for again in (False, True):
            t = Terminal(p, "setup", "--for", "everybody")
            t.answer("Number or name [plain]: ", "plain\n")
            if again:
                t.answer(f"Relay host [[127.0.0.1]:{relay.port}]: ", "\n")
            else:
                t.answer("Relay host: ", f"127.0.0.1:{relay.port}\n")
            t.answer("TLS [encrypt]: ", "\n")
            t.answer("an empty line) [clerk@shop.example]: " if again else "an empty line): ", "\n" if again else "clerk@shop.example\n")
            t.answer("Password: ", "\n" if again else "open sesame\n")
            t.answer("[clerk@shop.example]: ", "\n")
            t.answer("Write it? [Y/n]: ", "\n")
            assert t.end() == 0 and "It works: mail of everybody here" in t.text and ("starting it" in t.text) != again
            assert "open sesame" not in t.text
        assert p.send(sender="a@x.example").startswith("250")
        assert relay.wait_mails(1)[-1]["auth"][1] == "clerk@shop.example"
    finally:
        p.run("stop", face="postfix")


def test_everything_at_once_and_again(relay):
    """One daemon: the first time, another password, another host, a domain's own, each by the same command."""
    with Posthouse(MAIN) as p:
        here, sent = f"127.0.0.1:{relay.port}", len(relay.mails)
        r = told(p, here)
        assert r.returncode == 0 and "It works" in r.stdout, r.stdout + r.stderr
        assert p.send(sender="a@x.example").startswith("250")
        assert relay.wait_mails(sent + 1)[-1]["auth"] == ("PLAIN", "clerk@shop.example", "open sesame")
        assert f"relayhost = [127.0.0.1]:{relay.port}\n" in (p.dir / "main.cf").read_text()
        for words in (["record", "list"], ["config", "-n"]):
            assert "sesame" not in p.run(*words, check=True).stdout

        wrong = told(p, here, password="open barley")
        assert wrong.returncode == 1 and "does not accept this account and password" in wrong.stdout, wrong.stdout
        assert "barley" not in wrong.stdout + wrong.stderr + p.log()
        assert len(json.loads("[" + ",".join(p.run("record", "list", "--json", check=True).stdout.splitlines()) + "]")) == 1
        right = told(p, here, "--for", "everybody")
        assert right.returncode == 0

        silent = free_port()
        r = told(p, f"127.0.0.1:{silent}")
        assert r.returncode == 1 and "cannot be reached" in r.stdout, r.stdout
        assert f"relayhost = [127.0.0.1]:{silent}\n" in (p.dir / "main.cf").read_text()
        with FakeRelay(auth=["PLAIN"], need_auth=True, users=LOGIN) as clear:
            r = told(p, f"127.0.0.1:{clear.port}")
            assert r.returncode == 1 and "offers no TLS" in r.stdout and not any(s.auth for s in clear.sessions), r.stdout

        r = told(p, here, "--for", "Shop.example,boss@other.example")
        assert r.returncode == 0 and "mail of @shop.example,boss@other.example" in r.stdout, r.stdout + r.stderr
        r = told(p, here, "--for", "shop.example")
        assert r.returncode == 0 and "mail of @shop.example,boss@other.example" in r.stdout, r.stdout + r.stderr
        for sender in ("x@shop.example", "boss@other.example"):
            assert p.send(sender=sender).startswith("250")
        assert all(m["auth"][1] == "clerk@shop.example" for m in relay.wait_mails(sent + 3))
        # A test of a sender that has a road of its own tells nothing of the others'.
        r = told(p, f"127.0.0.1:{silent}", "--sender", "x@shop.example")
        assert r.returncode == 1 and f"was not tested: mail of x@shop.example goes by [127.0.0.1]:{relay.port}." in r.stdout, r.stdout
        # What is not given stays: the password, the TLS mode, mechanisms.
        p.run("record", "set", f"{here} @shop.example", "tls=may", "mechanisms=plain", check=True)
        assert p.run("setup", "--host", here, "--user", "clerk@shop.example", "--for", "shop.example").returncode == 0
        records = map(json.loads, p.run("record", "list", "--json", check=True).stdout.splitlines())
        record = next(r for r in records if r["name"] == f"{here} @shop.example")
        assert (record["tls"], record["mechanisms"], record["password_set"]) == ("may", "plain", True), record


@pytest.mark.parametrize("kind", ["hash", "texthash"])
def test_a_directory_with_tables_keeps_them(relay, kind):
    main = MAIN + f"smtp_sasl_password_maps = {kind}:{{dir}}/sasl_password\nsender_dependent_relayhost_maps = {kind}:{{dir}}/senders\n"
    rows = "# mine\n[other.example]:25 me:mine\n\tmore\n[127.0.0.1]:{port} old:older\n\tstill older\nlast us:ours"
    with Posthouse(main, files={"sasl_password": rows.replace("{port}", str(relay.port)), "senders": ""}) as p:
        if kind == "hash":
            p.postmap(f"hash:{p.dir}/sasl_password"), p.postmap(f"hash:{p.dir}/senders")
        for _ in range(2):
            r = told(p, f"[127.0.0.1]:{relay.port}")
            assert r.returncode == 0 and "It works" in r.stdout, r.stdout + r.stderr
            text = (p.dir / "sasl_password").read_text()
            assert text == ("# mine\n[other.example]:25 me:mine\n\tmore\n"
                            f"[127.0.0.1]:{relay.port} clerk@shop.example:open sesame\nlast us:ours")
        assert re.findall("^smtp_.*", (p.dir / "main.cf").read_text(), re.M)[1:] == [
            "smtp_sasl_auth_enable = yes", "smtp_sasl_security_options = noanonymous", "smtp_tls_security_level = encrypt"]
        assert told(p, f"[127.0.0.1]:{relay.port}", password=" blank").returncode == 1
        assert told(p, f"[127.0.0.1]:{relay.port}", user="a:b").returncode == 1
        assert (p.dir / "sasl_password").read_text() == text and not (p.dir / "data/relays.db").exists()
        r = told(p, f"[127.0.0.1]:{relay.port}", "--for", "own.example")  # a sender's own account is a record, its row in the table
        assert r.returncode == 0, r.stdout + r.stderr
        assert (p.dir / "senders").read_text() == f"@own.example [127.0.0.1]:{relay.port}\n"


@pytest.mark.parametrize("kind", ["hash", "texthash"])
def test_a_table_gets_whole_passwords_that_others_cannot_read(kind):
    """Also one that everybody could read, for each host of a list, and a password of any length; or none."""
    hosts, long = "[a.example]:26, [b.example]:26", "p" * 3000
    with Posthouse(MAIN + f"smtp_sasl_password_maps = {kind}:{{dir}}/logins\n", files={"logins": "# mine\n"}) as p:
        if kind == "hash":
            p.postmap(f"hash:{p.dir}/logins")
        for f in p.dir.glob("logins*"):
            f.chmod(0o644)
        assert told(p, hosts, "--no-test", "--yes", user=" us").returncode == 1
        assert told(p, hosts, "--no-test", password="a\0b").returncode == 1
        (p.dir / "nul").write_bytes(b"a\0b\n")
        assert "NUL byte" in p.run("setup", "--host", hosts, "--user", "us", "--password-file", str(p.dir / "nul"), "--no-test").stderr
        assert (p.dir / "logins").read_text() == "# mine\n"
        r = told(p, hosts, "--no-test", "--yes", user="us", password=long)
        assert r.returncode == 0 and "(other users cannot read it any more)" in r.stdout, r.stdout + r.stderr
        assert (p.dir / "logins").read_text() == f"# mine\n[a.example]:26 us:{long}\n[b.example]:26 us:{long}\n"
        assert all(f.stat().st_mode & 0o7 == 0 for f in p.dir.glob("logins*")), list(p.dir.glob("logins*"))
        assert f"relayhost = {hosts}\n" in (p.dir / "main.cf").read_text()


def test_a_level_of_tls_by_its_old_name_is_not_made_lower():
    with Posthouse(MAIN + "smtp_enforce_tls = yes\nsmtp_sasl_password_maps = texthash:{dir}/logins\n", files={"logins": ""}) as p:
        r = told(p, "[a.example]:26", "--no-test", "--yes")
        assert r.returncode == 0, r.stdout + r.stderr
        main = (p.dir / "main.cf").read_text()
        assert "smtp_sasl_auth_enable = yes\n" in main and "smtp_tls_security_level" not in main


@pytest.mark.parametrize("kind", ["hash", "texthash", "btree"])
def test_a_table_is_where_the_daemon_reads_it(kind, tmp_path):
    """Not in the folder that the command was given in."""
    with Posthouse(MAIN + f"smtp_sasl_password_maps = {kind}:logins\nsender_dependent_relayhost_maps = {kind}:senders\n",
                   files={"logins": "", "senders": ""}) as p:
        for table in ("logins", "senders"):
            p.run("map", "build", f"{kind}:{p.dir}/{table}")
        words = f"printf 'pw\\n' | {POSTHOUSE} -c {p.dir} setup --host h.example --user us --password-file - --no-test"
        for more in ("", " --for own.example"):
            r = subprocess.run(["sh", "-c", words + more], cwd=tmp_path, env=p.env(), capture_output=True, text=True)
            assert r.returncode == 0, r.stdout + r.stderr
        assert not list(tmp_path.iterdir())
        assert (p.dir / "logins").read_text() == "[h.example]:587 us:pw\n"
        assert (p.dir / "senders").read_text() == "@own.example [h.example]:587\n"
        assert p.run("map", "query", "[h.example]:587", f"{kind}:{p.dir}/logins").stdout == "us:pw\n"


@pytest.mark.parametrize("at", ["Number or name", "Relay host", "[everybody]", "TLS [", "an empty line)", "Password: ", "for the test",
                                "Write it?"])
def test_ctrl_c_leaves_nothing(relay, at):
    """Also at the password: the terminal shows again what is typed."""
    p = Posthouse(MAIN)
    lines = {"Number or name": "plain", "Relay host": f"127.0.0.1:{relay.port}", "[everybody]": "", "TLS [": "", "an empty line)": "me",
             "Password: ": "secret", "for the test": "", "Write it?": "y"}
    before = files(p)
    t = Terminal(p, "setup")
    for words, line in lines.items():
        if words == at:
            t.answer(words, "\x03")
            break
        t.answer(words, line + "\n")
    assert t.end() == -2 and files(p) == before
    p.__exit__(None, None, None)


WRONG = [
    ([], "usage:"),
    (["--provider", "nobody"], "none of that name"),
    (["--provider", "gmail"], "without one (--user)"),
    (["--provider", "gmail", "--user", "a@b.example"], "--password-file"),
    (["--host", "a b c:x"], "relay host"),
    (["--host", "h.example", "--tls", "perhaps"], "TLS is"),
    (["--host", "h.example", "--for", "bad..example"], "need everybody"),
    (["--host", "h.example", "--for", "<>"], "need everybody"),
    (["--host", "h.example", "--password-file", "-"], "needs --user"),
    (["--host", "h.example", "--user", "u", "--password-file", "/nonexistent"], "No such file"),
    (["--host", "h.example", "--user", "u", "--password-file", "-"], "it is empty"),
    (["--host", "h.example", "--user", "u\nv", "--password-file", "-"], "control characters"),
    (["--host", "h.example", "--sender", "nobody"], "no mail address"),
    (["--password", "secret"], "usage:"),
]


def test_what_is_wrong_is_said_and_nothing_written():
    p = Posthouse(MAIN)
    before = files(p)
    for args, said in WRONG:
        r = p.run("setup", *args, "--no-test", stdin="\n")
        assert r.returncode != 0 and said in r.stderr, (args, r.stdout, r.stderr)
        left = {name: text for name, text in files(p).items() if not name.startswith("cmd-")}
        assert left == before, args
    p.__exit__(None, None, None)


def test_a_new_machine():
    """Neither directory nor main.cf nor store: made at the system's places, which are the test's own here; then given again.
    Users' programs read main.cf, whatever root's umask is."""
    user = ["--provider", "sendgrid", "--user", "apikey", "--no-test", "--password-file", "-"]
    command = f"printf 'a key\\n' | {POSTHOUSE} -c /var/lib/etc setup {' '.join(user)}"
    words = [f"umask 077; mount -t tmpfs -o mode=755 none /var/lib; {command}; {command} --for shop.example && cat /var/lib/etc/main.cf",
             f"{POSTHOUSE} -c /var/lib/etc record list; {POSTHOUSE} -c /var/lib/etc relay list",
             "stat -c '%a %n' /var/lib/etc /var/lib/etc/main.cf"]
    r = subprocess.run(["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-ec", "; ".join(words)], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    assert "\nrelayhost = [smtp.sendgrid.net]:587\n" in r.stdout and "\ninet_interfaces = loopback-only\nmydestination =\n" in r.stdout
    assert r.stdout.count("account     apikey (password set)") == 2 and "a key" not in r.stdout + r.stderr
    assert re.search(r"^@shop.example +\[smtp.sendgrid.net\]:587$", r.stdout, re.M)
    assert "755 /var/lib/etc\n644 /var/lib/etc/main.cf\n" in r.stdout, r.stdout


def test_records_that_cannot_have_a_key_are_not_begun():
    """Else there would be a store without its key, and each later command would ask for that."""
    p = Posthouse(MAIN + "relays_key_file = {dir}/keys/relays.key\n")
    words = ["record", "set", "r", "hosts=[h.example]:587", "user=u", "password"]
    assert p.run(*words, stdin="x\n").returncode == 1 and not list((p.dir / "data").glob("relays.db*"))
    (p.dir / "keys").mkdir()
    assert p.run(*words, stdin="x\n").returncode == 0 and (p.dir / "keys/relays.key").exists()
    p.__exit__(None, None, None)


@pytest.mark.skipif(not STOPAT.exists(), reason="a sanitizer's own wrappers would come after it")
@pytest.mark.parametrize("who", ["everybody", "shop.example"])
def test_killed_at_a_step(who):
    """The same command ends what was begun, whatever is left of the key, of the records and of the accounts store."""
    words = ["setup", "--host", "[new.example]:587", "--user", "us", "--password-file", "-", "--no-test", "--yes", "--for", who]
    step, killed = 4, True
    while killed:
        p = Posthouse(MAIN + "relayhost = [old.example]:587\n")
        env = dict(p.env(), MAIL_CONFIG=str(p.dir), LD_PRELOAD=str(STOPAT), STOP_AT=str(step), STOP_IN="posthouse")
        killed = subprocess.run([POSTHOUSE, *words], input="pw\n", text=True, capture_output=True, env=env).returncode == -9
        r = p.run(*words, stdin="pw\n")
        assert r.returncode == 0, (step, r.stdout, r.stderr)
        assert p.run("record", "list", check=True).stdout.count("account     us (password set)") == 1, step
        assert who == "everybody" or "@shop.example" in p.run("relay", "list", check=True).stdout, step
        assert not [f.name for f in p.dir.rglob("*") if f.suffix in (".new", ".tmp")], step
        p.__exit__(None, None, None)
        step += 4
    assert step > 20
