"""Clients without a login who reset, hang up, come late or never read: the relay process outlives each of
them, serves the others meanwhile, and a client costs it a bounded amount of memory.  SEED repeats a run."""
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from kit import SLOW, Posthouse, at_once, wait_ended, wait_for
from peers import (EHLO, ENDS, FLOODS, GONE_MEANWHILE, MAIL, MIB, NONSENSE, RCPT, SAID, begin_tls, client_hello, connect, flood,
                   half_close, hang_up, outlived, reset, rss, seeded, shake_hands, slow_table, soon)


@pytest.fixture(scope="module")
def table():
    with slow_table() as t:
        yield t


@pytest.fixture
def target(server_cert, table):
    main = (f"relayhost = [127.0.0.1]:9\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {server_cert[0]}\n"
            f"smtpd_tls_key_file = {server_cert[1]}\nsmtpd_starttls_timeout = 2s\nsmtpd_sasl_auth_enable = yes\n"
            f"smtpd_recipient_restrictions = check_recipient_access tcp:127.0.0.1:{table.port}\n"
            "smtpd_relay_restrictions = permit_mynetworks, reject\nmaximal_queue_lifetime = 1d\n")
    with Posthouse(main) as p:
        relay = p.child("relay")
        yield p
        outlived(p, relay)


@pytest.mark.parametrize("what", SAID)
def test_resets_at_once(target, what):
    rnd = seeded(what)
    for _ in range(40):
        try:
            s = connect(target)
            if rnd.random() < 0.7:
                s.recv(100)
            s.sendall(SAID[what])
            soon(rnd)
            reset(s)
        except ConnectionError:
            pass
    outlived(target, target.child("relay"))


def test_gone_while_the_session_waits(target):
    """Each of them with each way to go, side by side."""
    clients = []
    for said in GONE_MEANWHILE.values():
        for end in ENDS.values():
            for more in (b"", NONSENSE):
                s = connect(target)
                s.recv(100)
                s.sendall(said)
                clients.append((s, end, more))
    time.sleep(0.2)
    for s, end, more in clients:  # input for a session that takes none: no reset is noticed any more
        s.sendall(more)
    time.sleep(0.1)
    for s, end, more in clients:
        if end is half_close:
            threading.Thread(target=half_close, args=(s,), daemon=True).start()
        else:
            end(s)
    n = len(clients)
    wait_for(lambda: len(re.findall("disconnect from", target.log())) >= n)


def test_handshakes_after_the_time_for_them(target):
    for i in range(3):
        late = [begin_tls(target) for _ in range(4)]
        late[0].sendall(b"\x16\x03\x01")  # the beginning of a handshake, too
        want = 4 * (i + 1)
        wait_for(lambda: len(re.findall("timeout after STARTTLS", target.log())) >= want)
        for s in late:
            tls = shake_hands(s)
            if tls is not None:
                with pytest.raises(OSError):
                    while True:
                        tls.sendall(EHLO)
                        if not tls.recv(1000):
                            raise ConnectionResetError
            s.close()


def test_resets_inside_the_handshake(target):
    hello = client_hello()
    for cut in (1, 5, 6, 100, len(hello) - 1, len(hello)):
        for end in ENDS.values():
            s = begin_tls(target)
            s.sendall(hello[:cut])
            end(s)
    wait_for(lambda: len(re.findall("disconnect from", target.log())) >= 18)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_clients_that_never_read(target, tls):
    relay = target.child("relay")
    target.send()
    before = rss(relay)
    stop = threading.Event()
    threads = [threading.Thread(target=flood, args=(target, tls, *FLOODS[what], stop), daemon=True)
               for what in FLOODS for _ in range(2)]
    peak = 0
    for t in threads:
        t.start()
    for _ in range(60):
        time.sleep(0.1)
        peak = max(peak, rss(relay))
    assert target._greets()
    stop.set()
    wait_ended(*threads)
    # 12 sessions of 64 KiB of replies and of input, and the allocator's share
    bound = 24 * MIB if SLOW == 1 else 1 << 40  # a sanitizer keeps what is freed
    assert peak - before < bound, f"{(peak - before) // 1024} KiB for {len(threads)} clients"


def test_many_of_them_at_once(target):
    rnd = seeded("many")
    end = time.monotonic() + 4
    said = list(SAID.values()) + list(GONE_MEANWHILE.values())

    def client(rnd):
        while time.monotonic() < end:
            try:
                s = connect(target)
                for _ in range(rnd.randrange(1, 4)):
                    s.sendall(rnd.choice(said))
                    if rnd.random() < 0.3:
                        time.sleep(rnd.random() * 0.1)
                rnd.choice((reset, hang_up))(s)
            except OSError:
                pass

    at_once(client, *((random.Random(rnd.random()),) for _ in range(8)))


def test_the_kit_that_runs_for_hours(tmp_path):
    """hostile.py, for a moment: by hand it runs for as long as one wants (make hostile)."""
    kit = pathlib.Path(__file__).with_name("hostile.py")
    r = subprocess.run([sys.executable, kit, "--minutes", "0.1", "--clients", "4"], capture_output=True, text=True, timeout=300)
    assert r.returncode == 0 and r.stdout.endswith("all is well\n"), r.stdout[-3000:] + r.stderr[-3000:]
    assert re.search(r"\b0 restarts", r.stdout) and re.search(r"[1-9]\d* connections", r.stdout)


def test_sigterm_while_clients_shake_hands(server_cert):
    main = (f"relayhost = [127.0.0.1]:9\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {server_cert[0]}\n"
            f"smtpd_tls_key_file = {server_cert[1]}\n")
    with Posthouse(main) as p:
        writer = connect(p)  # keeps the shutdown waiting
        writer.sendall(EHLO + MAIL + RCPT + b"DATA\r\nSubject: x\r\n")
        wait_for(lambda: b"354" in writer.recv(4096))
        late = [begin_tls(p) for _ in range(6)]
        p.proc.send_signal(signal.SIGTERM)
        p.wait_log("terminating on signal 15")
        time.sleep(0.2)
        for s in late:
            shake_hands(s)
        time.sleep(0.2)
        writer.sendall(b"\r\nhello\r\n.\r\n")
        assert writer.recv(100).startswith(b"250"), p.log()
        p.proc.wait(30 * SLOW)
        assert "killed by signal" not in p.log() and "exit status" not in p.log()
        p.start()
        wait_for(lambda: len(p.queue()) == 1)
