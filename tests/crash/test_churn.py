"""Disk and memory follow what is queued and what is budgeted, whatever comes and goes."""
import pathlib
import random
import re
import socket

import pytest

from kit import SLOW, FakeRelay, Posthouse, at_once, free_port, wait_for


def used(directory):
    """Bytes that the files below take on disk; they come and go meanwhile."""
    total = 0
    for f in directory.rglob("*"):
        try:
            st = f.stat()
        except FileNotFoundError:
            continue
        if f.is_file():
            total += st.st_blocks * 512
    return total


def test_churn_of_mixed_sizes_with_stuck_mail(dns):
    """200 MB go through, a few messages stay from the first moment: the spool stays near what is queued."""
    relay, dead = FakeRelay(keep=False), free_port()
    rnd = random.Random(4711)
    main = f"relayhost = [127.0.0.1]:{relay.port}\nspool_segment_size = 1048576\nmessage_size_limit = 2000000\n" \
           f"sender_dependent_relayhost_maps = inline:{{{{stuck@x.example=[127.0.0.1]:{dead}}}}}\n" \
           "minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\n"
    total, stuck, most = 0, 0, 0
    with Posthouse(main, dns=dns) as p:
        with p.client() as c:
            for i in range(2400 // SLOW):
                is_stuck = i % 300 == 7
                size = rnd.choice([500, 4000, 4000, 60_000, 250_000]) if not is_stuck else rnd.choice([4000, 400_000])
                if i % 60 == 59:
                    size = 1_500_000
                body = "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72)
                assert c.mail(sender="stuck@x.example" if is_stuck else "goes@x.example", content=body).startswith("250")
                total, stuck = total + size, stuck + is_stuck
                if i % 20 == 0:
                    wait_for(lambda: len(p.queue()) <= stuck + 3)
                    most = max(most, used(p.dir / "spool"))
        wait_for(lambda: len(p.queue()) == stuck)
        p.send(sender="goes@x.example")
        wait_for(lambda: len(p.queue()) == stuck)
        wait_for(lambda: used(p.dir / "spool") < 6_000_000)
        print(f"{total / 1e6:.0f} MB through, {stuck} stuck, at most {most / 1e6:.1f} MB on disk, "
              f"{used(p.dir / 'spool') / 1e6:.1f} MB in the end")
        assert most < total / 8
        p.kill()
        p.start()
        assert len(p.queue()) == stuck
    relay.stop()


def peak(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def test_many_large_senders_stay_in_the_budget(dns):
    """600 senders of 50 MB each, who have sent 200 KB so far: 120 MB, of which 16 MB may be in memory."""
    n, part = 600 // SLOW, b"z" * 70 + b"\r\n"
    with Posthouse("relayhost =\nmessage_size_limit = 60000000\nmessage_memory_limit = 16777216\n"
                   "smtpd_client_connection_count_limit = 0\n", dns=dns) as p:
        p.send()
        before = peak(p.child("relay"))
        conns = []
        for _ in range(n):
            s = socket.create_connection(("127.0.0.1", p.port), 10)
            s.settimeout(60)
            s.sendall(b"EHLO x\r\nMAIL FROM:<a@x.example> SIZE=50000000\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
            conns.append(s)
        for s in conns:
            got = b""
            while b"\n354" not in got:
                got += s.recv(4096)
        send = lambda mine: [s.sendall(part * 140) for _ in range(20) for s in mine]
        at_once(send, *((conns[i::4],) for i in range(4)))
        for s in conns:
            s.sendall(b"\r\n.\r\n")
        assert all(s.recv(200).startswith(b"250") for s in conns)
        grown = peak(p.child("relay")) - before
        print(f"{n} senders: {grown / 1e6:.1f} MB")
        if SLOW == 1:  # sanitizers have memory of their own
            assert grown < 16_777_216
        for s in conns:
            s.close()


@pytest.mark.parametrize("kb", [100, 300])
def test_content_of_what_waits_does_not_fill_memory(dns, kb):
    """900 mails, in the log or in files, of which one host has the copy and another gets one in 100 seconds; then all are returned."""
    n = 900 // SLOW
    relay = FakeRelay(keep=False)
    main = f"relayhost = [127.0.0.1]:{relay.port}\nmessage_memory_limit = 4194304\nmessage_size_limit = 1000000\n" \
           f"transport_maps = inline:{{{{slow.example=slow:[127.0.0.1]:{relay.port}}}}}\nslow_destination_rate_delay = 100s\n"
    body = "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (kb * 1024 // 72)
    with Posthouse(main, master="slow unix - - n - - smtp\n", dns=dns) as p:
        def send(count):
            with p.client() as c:
                for _ in range(count):
                    assert c.mail(rcpts=("a@fast.example", "b@slow.example"), content=body).startswith("250")
        send(1)
        relay_process = p.child("relay")
        before = peak(relay_process)
        at_once(send, *(((n - 1) // 4,) for _ in range(4)))
        wait_for(lambda: p.log().count("to=<a@fast.example>, relay=") >= (n - 1) // 4 * 4)
        files = len(list(pathlib.Path(f"/proc/{relay_process}/fd").iterdir()))
        waiting = peak(relay_process) - before
        p.run("-f", "ALL", face="postsuper", check=True)
        wait_for(lambda: p.log().count("sender non-delivery notification") >= (n - 1) // 4 * 4)
        returned = peak(relay_process) - before
        print(f"{n} mails of {kb} kB: {waiting / 1e6:.1f} MB, {files} files; when they are returned {returned / 1e6:.1f} MB")
        assert files < 700
        if SLOW == 1:
            assert waiting < 16_000_000 and returned < 24_000_000
    relay.stop()
