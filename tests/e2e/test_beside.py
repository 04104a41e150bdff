"""Beside Postfix, and in its place: its directories stay its own, and the log is one that its readers understand."""
import os
import re
import socket
import subprocess

import pytest

from kit import POSTHOUSED, FakeRelay, Posthouse, free_port, wait_for


def postfix_folders(folder, mails):
    """A queue directory and a data directory as Postfix leaves them."""
    for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "pid", "private", "public"):
        (folder / "queue" / name).mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "master.lock").write_text("")
    for name in mails:
        (folder / "queue" / name).parent.mkdir(exist_ok=True)
        (folder / "queue" / name).write_text("a message")


def state(folder):
    """Every name below it with owner, mode and content."""
    rows = []
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        rows.append((str(path), info.st_uid, info.st_gid, info.st_mode, path.read_bytes() if path.is_file() else b""))
    return rows


def test_postfixs_directories_are_left_alone(tmp_path, dns):
    """With a main.cf that names them Posthouse keeps its own, and says what Postfix's queue still holds."""
    tmp_path.chmod(0o755)
    postfix_folders(tmp_path, ["deferred/5/5A42CA867D2", "maildrop/8D7E5A867F3", "hold/A1"])
    before = state(tmp_path)
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nqueue_directory = {tmp_path}/queue\ndata_directory = {tmp_path}/data\n"
    with Posthouse(main, dns=dns) as p:
        r = p.run("check")
        assert r.returncode == 1, r.stdout
        for name, own in (("queue", "spool"), ("data", "data")):
            assert f"{name}_directory: {tmp_path}/{name} belongs to Postfix: " in r.stdout and f"has {p.dir}/{own} for its own" in r.stdout
        assert f"warning: {tmp_path}/queue: Postfix's queue holds 3 messages, which Posthouse does not deliver" in r.stdout
        p.wait_log(r"master\[\d+\]: warning: .*/queue: Postfix's queue holds 3 messages")
        assert "holds 3 messages" in (p.dir / "stderr").read_text()
        assert p.send().startswith("250")
        relay.wait_mails(1)
        assert p.run("domain", "add", "own.example").returncode == 0
        assert p.run("-h", "queue_directory", face="postconf").stdout.strip() == f"{p.dir}/spool"
        assert (p.dir / "data" / "accounts.db").exists() and (p.dir / "spool" / "log").exists()
    assert state(tmp_path) == before
    relay.stop()


def test_a_services_name_in_its_log(dns):
    relay, port = FakeRelay(), free_port()
    master = (f"127.0.0.1:{port} inet n - n - - smtpd\n  -o syslog_name=postfix/$service_name\n"
              "elsewhere unix - - n - - smtp\n  -o syslog_name=postfix/${{service_name}}\n"
              "  -o smtp_helo_name=$process_name.$service_name.example\n")
    main = f"transport_maps = static:elsewhere:[127.0.0.1]:{relay.port}\nsmtpd_banner = $myhostname $process_name/$process_id\n"
    with Posthouse(main, master=master, dns=dns) as p:
        assert p.send().startswith("250")
        p.wait_log(r"postfix/elsewhere/smtp\[\d+\]: \w+: to=<b@y.example>")
        with socket.create_connection(("127.0.0.1", port)) as s:
            assert re.fullmatch(rb"220 mta.example smtpd/\d+\r\n", s.recv(100))
        assert relay.sessions[0].commands[0] == "EHLO smtp.elsewhere.example"
        p.wait_log(rf"postfix/127.0.0.1:{port}/smtpd\[\d+\]: connect from")
    relay.stop()


@pytest.fixture
def syslog(tmp_path):
    """What arrives at /dev/log."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "log"))
    os.chmod(tmp_path / "log", 0o666)
    sock.settimeout(20)
    yield sock
    sock.close()


def test_syslog_lines_have_postfixs_tag(tmp_path, dns, syslog):
    """fail2ban, pflogsumm and journalctl -t look for "postfix/smtpd[pid]: " where syslog has the program's name."""
    tmp_path.chmod(0o755)
    p = Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns)
    text = (p.dir / "main.cf").read_text()
    (p.dir / "main.cf").write_text(re.sub("(?m)^maillog_file = .*\n", "", text))
    script = (f"mkdir {tmp_path}/dev && mount -t tmpfs none {tmp_path}/dev && cd {tmp_path}/dev && touch log && "
              "cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom . && ln -s /proc/self/fd fd && "
              f"mount --bind {tmp_path}/log log && cd / && mount --move {tmp_path}/dev /dev && exec {POSTHOUSED} -c {p.dir} -f")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    p.proc = proc = subprocess.Popen([*sudo, "unshare", "-m", "sh", "-c", script], stdin=subprocess.DEVNULL)
    try:
        wait_for(p._greets)
        p.client().__exit__()
        lines = []
        while not any("smtpd[" in line and "connect from" in line for line in lines):
            lines.append(syslog.recv(9000).decode())
        for line in lines:
            assert re.match(r"<\d+>\w{3} [ \d]\d \d\d:\d\d:\d\d postfix/\w+\[\d+\]: \S", line), line
    finally:
        subprocess.run([*sudo, "kill", str(proc.pid)], check=True)
        proc.wait()


@pytest.mark.parametrize("front,domains", [
    ("virtual_alias_maps = hash:/aliases\nvirtual_mailbox_maps = hash:/boxes\n", "hash:/aliases, hash:/boxes"),
    ("virtual_maps = hash:/aliases\n", "hash:/aliases"),
    ("virtual_alias_maps = hash:/aliases\nvirtual_alias_domains =\nvirtual_mailbox_maps = hash:/b\nvirtual_mailbox_domains = b.example\n",
     "b.example"),
    ("virtual_maps = hash:/old\nvirtual_alias_maps =\n", "")])
def test_domains_that_a_postfix_in_front_has_by_default(tmp_path, front, domains):
    """Without a list of its domains the keys of its tables are, as postconf says; reports for its users go back to it."""
    (tmp_path / "main.cf").write_text("myhostname = mx.example\nmydestination = mx.example\nrelayhost = [127.0.0.1]:9\n" + front)
    (tmp_path / "master.cf").write_text("smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\n")
    theirs = [subprocess.run(["postconf", "-c", tmp_path, "-hx", f"virtual_{kind}_domains"], capture_output=True, text=True).stdout.strip()
              for kind in ("alias", "mailbox")]
    assert ", ".join(filter(None, theirs)) == domains
    (tmp_path / "ours").mkdir()
    p = Posthouse(directory=tmp_path / "ours")
    for name in ("main.cf", "master.cf"):
        (p.dir / name).unlink()
    r = p.run("setup", "beside-postfix", "--postfix", tmp_path, "--port", free_port())
    assert r.returncode == 0, r.stdout + r.stderr
    assert f"\nrelay_domains = {', '.join(['mx.example', *filter(None, [domains])])}\n" in (p.dir / "main.cf").read_text()


def test_mail_of_programs_for_mailboxes_that_no_list_names(dns):
    """They are this system's own, and not the relay host's."""
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nvirtual_mailbox_maps = texthash:{{dir}}/boxes\n", dns=dns,
                   files={"boxes": "own.example x\njoe@own.example joe/\n@own.example all/\n"}) as p:
        assert p.run("joe@own.example", face="sendmail", stdin="Subject: x\n\nx\n").returncode == 0
        p.wait_log("to=<joe@own.example>, relay=none, .* status=deferred .mail transport unavailable: virtual")
        assert "address class: virtual mailbox" in p.run("explain", "a@x.example", "joe@own.example").stdout
        out = p.run("check").stdout
        assert "virtual_mailbox_domains" not in out, out
    assert relay.mails == []
    relay.stop()
