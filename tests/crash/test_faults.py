"""Real faults: full disks, failing syncs, unreadable segments, no descriptors, a clock that jumps, relays
that misbehave at every stage.  Each in bounded time, and nothing lost."""
import contextlib
import email.utils
import errno
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import time

import pytest
from kit import SLOW, FakeRelay, Listener, Posthouse, at_once, free_port, wait_for

import shim

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]
needs_shim = pytest.mark.skipif(not shim.available, reason="a sanitizer build: its wrappers and the shim's exclude each other")
FAST = "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"


def keys(relay):
    return {m["from"].split("<")[1].split(">")[0] for m in relay.mails}


def send_many(p, n, size, name="m"):
    """Sends until n are taken or one is refused; returns (acknowledged senders, last reply)."""
    taken, reply = set(), ""
    with p.client() as c:
        for i in range(n):
            key = f"{name}{i}@x.example"
            reply = c.mail(sender=key, content="Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72))
            if not reply.startswith("250"):
                break
            taken.add(key)
    return taken, reply


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB for the spool."""
    d = tmp_path / "disk"
    d.mkdir()
    subprocess.run(SUDO + ["mount", "-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs", d], check=True)
    yield d
    subprocess.run(SUDO + ["umount", "-l", d], check=True)


def test_a_file_that_may_not_be_larger_is_no_end(dns):
    """Where the system limits the size of files, a mail that is larger is put off, and ends no process."""
    limit = 1_000_000
    p = Posthouse("relayhost = [127.0.0.1]:9\nspool_segment_size = 300000\nspool_body_file_size = 20000\n", dns=dns)
    p.preexec = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with p:
        relay = p.child("relay")
        assert p.send().startswith("250")
        assert p.send(content="Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * 20000).startswith("452")
        assert p.send().startswith("250") and p.child("relay") == relay and len(p.queue()) == 2


@needs_shim
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("how", ["DATA", "DATA in a file", "BDAT in a file"])
def test_no_room_is_452(tmp_path, dns, number, how):
    """Whatever the disk calls it, and wherever in the content it shows: 452, and the client may go on."""
    s = shim.Shim(tmp_path)
    p = Posthouse("relayhost = [127.0.0.1]:9\nspool_body_file_size = 100000\n", dns=dns)
    p.extra_env = s.env
    content = "Subject: x\r\n\r\n" + "z" * 70 + "\r\n"
    if how != "DATA":
        content += ("y" * 70 + "\r\n") * 5000
    with p, p.client() as c:
        s.set(write_errno=number, write_count=1)
        if how.startswith("BDAT"):
            assert c.cmd("MAIL FROM:<a@x.example>")[:3] == c.cmd("RCPT TO:<b@y.example>")[:3] == "250"
            c.raw(f"BDAT {len(content)} LAST\r\n" + content)
            reply = c.reply()
        else:
            reply = c.mail(content=content)
        assert reply == "452 4.3.1 Insufficient system storage"
        p.wait_log(f"warning: [0-9A-F]+: queue write error: {os.strerror(number)}")
        s.set(write_count=0)
        assert c.mail(content=content).startswith("250")
        assert len(p.queue()) == 1


@needs_shim
def test_free_space_that_is_not_known_is_not_little(tmp_path, dns):
    """A disk that does not say how much is free is asked to write: what is wrong is what that says."""
    s = shim.Shim(tmp_path)
    p = Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns)
    p.extra_env = s.env
    s.set(space_errno=errno.EACCES)
    with p:
        assert p.send().startswith("250")
        s.set(write_errno=errno.EROFS, write_count=1)
        assert p.send().startswith("451")
        p.wait_log(f"queue write error: {os.strerror(errno.EROFS)}")
        assert "free space" not in p.log()


@needs_shim
def test_a_disk_that_takes_no_mail_is_named(tmp_path, dns):
    """Also where nothing is queued, of which it could not be noted what becomes of it."""
    s = shim.Shim(tmp_path)
    p = Posthouse("relayhost = [127.0.0.1]:9\nqueue_directory = {dir}/spool\n", dns=dns)
    p.extra_env = s.env

    def halted():
        return p.control("stats")["halted"]
    with p:
        assert p.send().startswith("250")  # the log has a file
        p.run("-d", "ALL", face="postsuper")
        wait_for(lambda: p.queue() == [])
        assert not halted()
        s.set(write_errno=errno.EROFS, write_count=1_000_000)
        assert p.send().startswith("451")
        wait_for(halted)
        s.set(write_count=0)
        wait_for(lambda: not halted())
        assert p.send().startswith("250")


@needs_shim
def test_a_restart_needs_a_disk_that_can_be_written(tmp_path, dns):
    """The daemon that runs is better than the next one, which cannot begin."""
    s = shim.Shim(tmp_path)
    p = Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns)
    p.extra_env = s.env
    with p:
        s.set(write_errno=errno.EROFS, write_count=1000)
        assert "refused" in p.run("restart").stderr
        p.wait_log(f"restart refused: .*/master.pid: {os.strerror(errno.EROFS)}")
        s.set(write_count=0)
        assert p.send().startswith("250")
        p.run("restart", check=True)
        assert p.send().startswith("250")
        assert (p.dir / "spool" / "master.pid").read_text() == f"{p.proc.pid}\n"


def test_full_disk_and_back(dns, small_disk):
    port = free_port()
    main = f"relayhost = [127.0.0.1]:{port}\nqueue_directory = {small_disk}/spool\n" + FAST + \
           "message_size_limit = 1000000\nspool_segment_size = 2097152\n"
    with Posthouse(main, dns=dns) as p:
        taken, reply = send_many(p, 500, 100_000)
        assert reply.startswith("452 4.3.1"), reply
        assert 50 < len(taken) < 400
        big, reply = send_many(p, 30, 600_000, "big")
        assert reply.startswith("452"), reply
        taken |= big
        # Really nothing is left: what is delivered must be noted all the same.
        with open(small_disk / "ballast", "wb") as f:
            try:
                while True:
                    f.write(b"\0" * 65536)
            except OSError:
                pass
        p.kill()
        p.start()
        relay = FakeRelay(port=port, keep=False)
        wait_for(lambda: keys(relay) >= taken)
        (small_disk / "ballast").unlink()
        wait_for(lambda: p.queue() == [])
        wait_for(lambda: p.send().startswith("250"))  # the free space is looked at once a second
        more, reply = send_many(p, 20, 100_000, "after")
        assert len(more) == 20, reply
        wait_for(lambda: keys(relay) >= more)
    relay.stop()


@needs_shim
def test_failing_fsync(dns, tmp_path):
    """Who was told 250 is safe; the others are told to come again; the segment is left."""
    relay = FakeRelay(keep=False)
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + FAST, dns=dns)
    p.extra_env = s.env
    with p:
        taken, refused = set(), 0
        for i in range(60):
            if i % 10 == 5:
                s.set(sync_errno=5, sync_count=1)
            key = f"f{i}@x.example"
            reply = p.send(sender=key)
            assert reply[:3] in ("250", "451"), reply
            refused += reply.startswith("451")
            if reply.startswith("250"):
                taken.add(key)
        assert refused >= 1
        wait_for(lambda: keys(relay) >= taken)
        wait_for(lambda: p.queue() == [])
        assert "Input/output error; using a new one" in p.log()
        p.kill()
        p.start()
        assert p.queue() == []
        assert len(relay.mails) <= len(taken) + refused
    relay.stop()


@needs_shim
def test_an_order_is_in_the_log_when_it_is_durable(dns, tmp_path):
    """Not while a power cut could undo it, and also when the command that gave it is gone by then."""
    s = shim.Shim(tmp_path)
    p = Posthouse("relayhost = [127.0.0.1]:9\nqueue_directory = {dir}/spool\n", dns=dns)
    p.extra_env = s.env
    with p:
        for _ in range(2):
            assert p.send().startswith("250")
        wait_for(lambda: [m["queue_name"] for m in p.queue()] == ["deferred"] * 2)
        first, second = [m["queue_id"] for m in p.queue()]
        s.set(sync_errno=errno.EIO, sync_count=1000)
        r = p.run("-h", first, face="postsuper")
        assert r.returncode != 0 and "not noted on disk yet" in r.stderr, r.stderr
        p.wait_log(rf"postsuper\[\d+\]: warning: {first}: placed on hold, but that is not noted on disk yet: Input/output error")
        p.wait_log(r"postsuper\[\d+\]: Placed on hold: 1 message, not noted on disk yet")
        assert not re.search(rf"{first}: placed on hold$|Placed on hold: 1 message$", p.log(), re.M)
        s.set(sync_count=0)
        p.control("queue-hold", ids=[second])
        p.wait_log(rf"postsuper\[\d+\]: {second}: placed on hold$")
        p.wait_log(r"postsuper\[\d+\]: Placed on hold: 1 message$")


def send_as(p, name, n, size, taken):
    """Sends n messages, whatever the answers; adds the senders of those that were taken."""
    with p.client() as c:
        for i in range(n):
            key = f"{name}-{i}@x.example"
            if c.mail(sender=key, content="Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72)).startswith("250"):
                taken.add(key)


@needs_shim
def test_failing_fsync_in_long_batches(dns, tmp_path):
    """The disk hangs, so that many wait, and then a sync of a segment that a batch leaves fails: what was in it is
    gone with the power, and nobody was told that it is safe."""
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\nspool_segment_size = 196608\n" + FAST +
                  "smtpd_client_connection_count_limit = 0\n", dns=dns)
    p.extra_env = s.env
    p.start()
    taken = set()
    for turn in range(20):
        if len(taken) > 200 and s.unsynced():
            break
        s.set(sync_errno=5, sync_delay_ms=700, sync_count=1)
        at_once(send_as, *((p, f"t{turn}-{k}", 4, 30_000 + 1000 * k, taken) for k in range(24)))
    p.kill()
    lost = s.unsynced()
    assert lost
    for path, start, end in lost:
        for segment in p.dir.glob("*/log/" + pathlib.Path(path).name):
            with open(segment, "r+b") as f:
                f.seek(start)
                f.write(bytes(end - start))
    p.start()
    queued = {m["sender"] for m in p.queue()}
    assert taken - queued == set()
    p.stop()


def test_unreadable_segment(dns):
    """The daemon says which file and does not start; once it can be read, nothing is skipped, nothing sent twice."""
    port = free_port()
    p = Posthouse(f"relayhost = [127.0.0.1]:{port}\n" + FAST, dns=dns)
    p.start()
    taken, _ = send_many(p, 20, 4000)
    p.stop()
    segment = next(p.dir.glob("*/log/*"))
    mode = segment.stat().st_mode
    segment.chmod(0)
    if os.geteuid() == 0:
        os.chown(segment, 0, 0)  # the relay runs as another user
    p.out = open(p.dir / "stderr", "ab")
    p.proc = subprocess.Popen([p.exe, "-c", p.dir, "-f"], stdout=p.out, stderr=p.out, env=p.env())
    p.wait_log(rf"fatal: .*cannot open .*{segment.name}; make it readable.*Permission denied")
    assert p.proc.wait(30) != 0
    segment.chmod(mode)
    if os.geteuid() == 0:
        st = segment.parent.stat()
        os.chown(segment, st.st_uid, st.st_gid)
    relay = FakeRelay(port=port, keep=False)
    p.start()
    wait_for(lambda: keys(relay) >= taken)
    wait_for(lambda: p.queue() == [])
    assert len(relay.mails) == len(taken)
    p.stop()
    relay.stop()


def test_damaged_record_of_large_content(dns):
    """A bit of the record is wrong: said, and the content, which is whole, is kept where an administrator finds it."""
    p = Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\n" + FAST, dns=dns)
    p.start()
    send_many(p, 1, 400_000, "large")
    send_many(p, 2, 2000, "small")
    p.kill()
    segment, = p.dir.glob("*/log/*")
    body, = p.dir.glob("*/body/*")
    content = body.read_bytes()
    at = segment.read_bytes().index(b"large0@x.example")
    with open(segment, "r+b") as f:
        f.seek(at)
        f.write(b"L")
    p.start()
    p.wait_log(r"error: damage in segment .*")
    p.wait_log(rf"body/{body.name} is kept as .*damaged/body-{body.name}")
    assert not body.exists()
    assert (body.parent.parent / "damaged" / f"body-{body.name}").read_bytes() == content
    assert len(p.queue()) == 2
    p.stop()


@needs_shim
def test_bad_blocks(dns, tmp_path):
    """The disk refuses to read some blocks at start: said, and the rest goes on."""
    port = free_port()
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{port}\n" + FAST, dns=dns)
    p.extra_env = s.env
    p.start()
    taken, _ = send_many(p, 50, 4000)
    p.kill()
    s.set(read_errno=5, read_count=6)
    p.start()
    p.wait_log(r"error: damage in segment .* which the disk does not give back")
    relay = FakeRelay(port=port, keep=False)
    wait_for(lambda: len(keys(relay)) >= 40)
    assert keys(relay) <= taken
    # The blocks can be read again: what is in them is there again.
    wait_for(lambda: p.queue() == [])
    p.stop()
    relay.stop()


def test_no_descriptors(dns):
    relay = FakeRelay(keep=False)
    p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + FAST + "smtpd_client_connection_count_limit = 0\n", dns=dns)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 256
    p.preexec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with p:
        conns, replies = [], []
        for _ in range(400):
            c = socket.create_connection(("127.0.0.1", p.port), 5)
            c.settimeout(10)
            conns.append(c)
        for c in conns:
            replies.append(c.recv(100)[:3])
        assert replies.count(b"220") > 100 and replies.count(b"421") > 100, replies
        assert set(replies) <= {b"220", b"421"}
        p.wait_log("too many open files")
        # Those who are in can still send, and it goes out.
        c = conns[replies.index(b"220")]
        c.sendall(b"EHLO x\r\nMAIL FROM:<in@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
        time.sleep(0.3)
        c.sendall(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        wait_for(lambda: "in@x.example" in keys(relay))
        for c in conns:
            c.close()
        wait_for(lambda: p.send(sender="later@x.example").startswith("250"))
        wait_for(lambda: "later@x.example" in keys(relay))
    relay.stop()


def test_large_mails_that_end_together_without_descriptors(dns):
    """Each mail that is in a file of its own has a descriptor: those that got none are put off, and all others are taken."""
    p = Posthouse("relayhost = [127.0.0.1]:9\nqueue_directory = {dir}/queue\nspool_body_file_size = 20000\n"
                  "smtpd_client_connection_count_limit = 0\n", dns=dns)
    p.preexec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with p:
        conns = [p.client() for _ in range(110)]
        for i, c in enumerate(conns):
            c.cmd(f"MAIL FROM:<large{i}@x.example>")
            c.cmd("RCPT TO:<b@y.example>")
            assert c.cmd("DATA").startswith("354")
            c.raw("Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * 1000)
        wait_for(lambda: len(os.listdir(p.dir / "queue/body")) >= 40)
        for c in conns:
            c.raw(".\r\n")
        replies = [c.reply() for c in conns]
        assert {r[:9] for r in replies} <= {"250 2.0.0", "451 4.3.0"}, replies
        taken = {f"large{i}@x.example" for i, r in enumerate(replies) if r.startswith("250")}
        assert 40 <= len(taken) < 110, replies
        for c in conns:
            c.cmd("QUIT")
        assert p.send(sender="later@x.example").startswith("250")
        wait_for(lambda: {m["sender"] for m in p.queue()} == taken | {"later@x.example"})


@needs_shim
def test_descriptors_that_cannot_be_taken_come_again(dns, tmp_path):
    """A reload hands the relay process sockets while it has no descriptor free: they are not lost for ever."""
    relay, s = FakeRelay(), shim.Shim(tmp_path)
    p = Posthouse("transport_maps = lmdb:{dir}/roads\n" + FAST, dns=dns, files={"roads": f"* smtp:[127.0.0.1]:{relay.port}\n"})
    p.postmap("lmdb:" + str(p.dir / "roads"))
    p.extra_env = s.env
    with p:
        old = p.child("relay")
        s.set(no_fds=1)
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("reload -- ")
        time.sleep(1)
        s.set(no_fds=0)
        wait_for(p._greets)
        assert p.send().startswith("250")
        relay.wait_mails(1)
        assert p.queue() == []
        assert p.child("relay") != old
    relay.stop()


def test_too_few_descriptors_for_a_start(dns):
    p = Posthouse("relayhost = [127.0.0.1]:9\nrelay_threads = 4\n", dns=dns)
    p.preexec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (36, 36))
    with pytest.raises(AssertionError, match="cannot make its event loops: too many open files"):
        p.start()


def test_no_descriptors_for_the_control_socket(dns):
    """Whoever asks then is told so, instead of waiting while a thread turns in a circle."""
    p = Posthouse("relayhost = [127.0.0.1]:9\nqueue_directory = {dir}/queue\n", dns=dns)
    limit = 200
    p.preexec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with p:
        asking = []
        for _ in range(limit + 60):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(10 * SLOW)

            def connected():
                "a place in the listener's queue"
                return s.connect_ex(str(p.dir / "queue" / "control.sock")) == 0
            wait_for(connected)
            asking.append(s)
        answers = []
        for s in asking:
            with contextlib.suppress(BrokenPipeError):
                s.sendall(b'{"cmd": "stats"}\n')
            answers.append(json.loads(s.makefile("rb").readline()))
        refused = [a for a in answers if a == {"ok": False, "error": "too many open files"}]
        assert 60 <= len(refused) < limit, answers[-1]
        for s in asking:
            s.close()
        wait_for(lambda: p.queue() == [])



@needs_shim
@pytest.mark.parametrize("jump", [86400, -86400])
def test_clock_jumps_a_day(dns, tmp_path, jump):
    port = free_port()
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{port}\nmaximal_queue_lifetime = 6h\n" + FAST, dns=dns)
    p.extra_env = s.env
    with p:
        taken, _ = send_many(p, 20, 4000)
        p.wait_log("status=deferred", count=20)
        s.set(clock_s=jump)
        p.wait_log("the clock was set " + ("forward" if jump > 0 else "back") + " by 86")
        more, _ = send_many(p, 20, 4000, "after")
        assert len(more) == 20
        relay = FakeRelay(port=port, keep=False)
        wait_for(lambda: keys(relay) >= taken | more)
        wait_for(lambda: p.queue() == [])
        assert "status=expired" not in p.log() and len(relay.mails) == 40
    relay.stop()


@needs_shim
def test_clock_jumps_while_mail_is_received(dns, tmp_path):
    """A message that was begun before the clock was set is no day old when it is there."""
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\nmaximal_queue_lifetime = 5h\n" + FAST, dns=dns)
    p.extra_env = s.env
    with p, p.client() as c:
        assert c.cmd("MAIL FROM:<slow@x.example>").startswith("250")
        assert c.cmd("RCPT TO:<b@y.example>").startswith("250")
        assert c.cmd("DATA").startswith("354")
        s.set(clock_s=90000)
        p.wait_log("the clock was set forward by ")
        assert c.cmd("Subject: x\r\n\r\nhello\r\n.").startswith("250")
        assert p.send(sender="quick@x.example").startswith("250")
        p.wait_log("to=<.*status=deferred", count=4)
        assert "status=expired" not in p.log() and len(p.queue()) == 2


@needs_shim
def test_clock_jumps_while_a_relay_answers(dns, tmp_path):
    """The first thing after the clock was set is a temporary refusal: it does not bounce."""
    s = shim.Shim(tmp_path)

    def refuse(line):
        s.set(clock_s=90000)
        return "451 4.0.0 later"
    with FakeRelay(replies={"RCPT": refuse}) as relay:
        p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmaximal_queue_lifetime = 5h\n" + FAST, dns=dns)
        p.extra_env = s.env
        with p:
            assert p.send(sender="early@x.example").startswith("250")
            p.wait_log("to=<.*status=deferred", count=2)
            assert "status=expired" not in p.log() and len(p.queue()) == 1


@needs_shim
def test_a_warning_after_the_clock_was_set_says_until_when(dns, tmp_path):
    """Mail that came before is tried as long as it would have been, and its sender is told that."""
    s = shim.Shim(tmp_path)
    with FakeRelay(replies={"RCPT": lambda line: "451 4.0.0 later" if "b@y.example" in line else None}) as relay:
        p = Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmaximal_queue_lifetime = 6h\ndelay_warning_time = 4s\n" + FAST, dns=dns)
        p.extra_env = s.env
        with p:
            assert p.send(sender="warned@x.example").startswith("250")
            p.wait_log("status=deferred")
            s.set(clock_s=90000)
            p.wait_log("the clock was set forward by ")
            report = relay.wait_mail(b"Will-Retry-Until:")["content"].decode()
        when = [email.utils.parsedate_to_datetime(re.search(rf"^{field}: (.*)", report, re.M)[1].strip()).timestamp()
                for field in ("Date", "Will-Retry-Until")]
        assert 5 * 3600 < when[1] - when[0] <= 6 * 3600


@needs_shim
def test_clock_was_set_back_while_down(dns, tmp_path):
    """Waiting mail is not left for a day, and new IDs are not those of waiting mail."""
    port = free_port()
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{port}\n" + FAST, dns=dns)
    p.extra_env = s.env
    p.start()
    taken, _ = send_many(p, 10, 1000)
    p.wait_log("status=deferred", count=10)
    old = {m["queue_id"] for m in p.queue()}
    p.stop()
    s.set(clock_s=-86400)
    p.start()
    more, _ = send_many(p, 10, 1000, "after")
    assert len({m["queue_id"] for m in p.queue()} | old) == 20
    relay = FakeRelay(port=port, keep=False)
    wait_for(lambda: keys(relay) >= taken | more)
    p.stop()
    relay.stop()


@needs_shim
def test_mail_from_the_future_expires(dns, tmp_path):
    """The clock was years ahead when the mail came, and is right after a restart: it is tried, and returned after its lifetime."""
    port = free_port()
    s = shim.Shim(tmp_path)
    p = Posthouse(f"relayhost = [127.0.0.1]:{port}\n" + FAST, dns=dns)
    p.extra_env = s.env
    s.set(clock_s=3 * 365 * 86400)
    p.start()
    p.send(sender="early@x.example")
    p.wait_log("status=deferred")
    p.stop()
    s.set(clock_s=0)
    p.write_main(f"relayhost = [127.0.0.1]:{port}\nmaximal_queue_lifetime = 2s\n" + FAST)
    p.start()
    tried = lambda: p.log().count("status=deferred")
    before = tried()
    p.wait_log("from=<early@x.example>, status=expired")
    assert tried() > before
    p.stop()


class BadRelay(Listener):
    """Does to each connection what act(relay, conn) does."""

    def __init__(self, act):
        super().__init__(lambda conn: act(self, conn))

    def _one(self, conn):
        conn.settimeout(20)
        super()._one(conn)


def slowly(text):
    def serve(relay, conn):
        for ch in text:
            if relay.closed:
                return
            conn.sendall(bytes([ch]))
            time.sleep(1)
    return serve


def after(stage, act):
    """Good until the client's command stage, then act."""
    def serve(relay, conn):
        f = conn.makefile("rb")
        conn.sendall(b"220 bad.relay ESMTP\r\n")
        while True:
            line = f.readline()
            if not line:
                return
            verb = line.split(b" ")[0].strip().upper()
            if stage == verb:
                return act(relay, conn)
            if verb == b"EHLO":
                conn.sendall(b"250-bad.relay\r\n250 8BITMIME\r\n")
            elif verb == b"DATA":
                conn.sendall(b"354 go\r\n")
                while f.readline() not in (b".\r\n", b""):
                    pass
                if stage == b".":
                    return act(relay, conn)
                conn.sendall(b"250 ok\r\n")
            else:
                conn.sendall(b"250 ok\r\n")
    return serve


def hang(relay, conn):
    while not relay.closed:
        time.sleep(0.1)


def close(relay, conn):
    pass


def endless(relay, conn):
    while not relay.closed:
        conn.sendall(b"250-and so on and on and on\r\n" * 1000)


def long_line(relay, conn):
    conn.sendall(b"250 " + b"x" * 1_000_000 + b"\r\n")
    hang(relay, conn)


STAGES = [b"EHLO", b"MAIL", b"RCPT", b"DATA", b"."]
CASES = {"byte-a-second": slowly(b"220 bad.relay ESMTP\r\n" * 3), "never-greets": hang, "closes-at-once": close}
for _name, _act in (("hangs", hang), ("closes", close), ("endless", endless), ("long-line", long_line)):
    for _stage in STAGES:
        CASES[f"{_name}-at-{_stage.decode()}"] = after(_stage, _act)


@pytest.fixture(scope="module")
def bad_relays_day(dns):
    """One daemon, every bad relay at once, each for a sender of its own; later all are good."""
    bad = {name: BadRelay(serve) for name, serve in CASES.items()}
    rows = {name: f"s-{name.lower().replace('.', 'dot')}@x.example" for name in CASES}
    files = {"hops": "".join(f"{rows[n]} [127.0.0.1]:{bad[n].port}\n" for n in CASES)}
    timeouts = "".join(f"smtp_{t}_timeout = 2s\n" for t in
                       ("connect", "helo", "mail", "rcpt", "data_init", "data_xfer", "data_done", "rset", "quit"))
    p = Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n" + timeouts + FAST, dns=dns, files=files)
    p.start()
    for sender in rows.values():
        assert p.send(sender=sender).startswith("250")
    begun = time.monotonic()
    wait_for(lambda: all(m["queue_name"] == "deferred" or "delay_reason" in str(m) for m in p.queue()) and
             len(set(re.findall(r"(\w+): to=<.*status=deferred", p.log()))) == len(rows), 40)
    elapsed = time.monotonic() - begun
    relay = pathlib.Path(f"/proc/{p.child('relay')}/status").read_text()
    rss = int(re.search(r"VmHWM:\s+(\d+)", relay).group(1))
    log = p.log()
    good = FakeRelay(keep=False)
    (p.dir / "hops").write_text("".join(f"{s} [127.0.0.1]:{good.port}\n" for s in rows.values()))
    wait_for(lambda: keys(good) >= set(rows.values()))
    wait_for(lambda: p.queue() == [])
    delivered = [m["from"] for m in good.mails]
    p.stop()
    for b in bad.values():
        b.stop()
    good.stop()
    yield {"rows": rows, "log": log, "elapsed": elapsed, "rss": rss, "delivered": delivered}


@pytest.mark.parametrize("case", CASES)
def test_bad_relay(bad_relays_day, case):
    sender = bad_relays_day["rows"][case]
    log = bad_relays_day["log"]
    qid = re.search(rf"(\w+): from=<{re.escape(sender)}>", log).group(1)
    assert re.search(rf"{qid}: to=.*dsn=4\.\d+\.\d+, status=deferred \(.+\)", log)
    assert sum(sender in d for d in bad_relays_day["delivered"]) == 1
    assert bad_relays_day["rss"] < 60_000 * SLOW ** 2  # kilobytes: no endless reply is kept
