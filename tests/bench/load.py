"""What Posthouse costs when much is open or waiting: idle sessions, a long queue, restarts, bytes written,
time from the final dot to 250.  Prints one line a figure; the table is in docs/performance.md.

  load.py [--messages N] [--sessions N] [CASE ...]     cases: idle queue dead bytes latency large
"""
import argparse
import os
import pathlib
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from bench import Sink, source  # noqa: E402
from kit import BUILD, FakeRelay, Posthouse, free_port, make_cert, wait_for  # noqa: E402


def status(pid, name):
    return int(re.search(rf"{name}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def rss(p):
    return status(p.child("relay"), "VmRSS")


def mb(n):
    return f"{n / 1e6:.1f} MB"


def say(what, value):
    print(f"{what}: {value}", flush=True)


def daemon(main="", **kw):
    d = tempfile.mkdtemp(prefix="load-", dir=os.environ.get("BENCH_DIR"))
    p = Posthouse("smtpd_client_connection_count_limit = 0\nsmtpd_timeout = 3600s\ndefault_process_limit = 200\n" + main, directory=d, **kw)
    p.start()
    return p


def greeting_ms(p, n=50):
    """Median and worst time until a new client is greeted, milliseconds."""
    took = []
    for _ in range(n):
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", p.port), 10) as s:
            assert s.recv(3) == b"220"
        took.append((time.monotonic() - begun) * 1000)
    return f"{statistics.median(took):.2f} ms, worst {max(took):.2f} ms"


def open_sessions(p, n, tls):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    out = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", p.port), 30)
        s.settimeout(30)
        s.recv(200)
        s.sendall(b"EHLO idle.example\r\n")
        s.recv(1000)
        if tls:
            s.sendall(b"STARTTLS\r\n")
            s.recv(100)
            s = ctx.wrap_socket(s)
            s.sendall(b"EHLO idle.example\r\n")
            s.recv(1000)
        out.append(s)
    return out


def case_idle(o):
    for tls in (False, True):
        d = pathlib.Path(tempfile.mkdtemp())
        cert, key = make_cert(d)
        p = daemon(f"smtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\nsmtpd_tls_security_level = may\n")
        for s in open_sessions(p, 20, tls):
            s.close()
        time.sleep(0.5)
        before = rss(p)
        begun = time.monotonic()
        conns = open_sessions(p, o.sessions, tls)
        took = time.monotonic() - begun
        time.sleep(1)
        after = rss(p)
        kind = "TLS" if tls else "plain"
        say(f"{o.sessions} idle sessions, {kind}", f"{mb(after)} in all, {mb(after - before)} for them, "
            f"{(after - before) / o.sessions:.0f} B each, opened in {took:.1f} s")
        say(f"  a new client meanwhile is greeted after", greeting_ms(p))
        for s in conns:
            s.close()
        time.sleep(1)
        say("  when they have gone", mb(rss(p)))
        p.stop()
        shutil.rmtree(p.dir)


def fill(p, n, size, sender="a@x.example"):
    args = ["smtp-source", "-s", "20", "-m", str(n), "-l", str(size), "-f", sender, "-t", "b@y.example", "-d"]
    begun = time.monotonic()
    subprocess.run([*args, f"127.0.0.1:{p.port}"], check=True)
    return time.monotonic() - begun


def stats(p):
    """The control socket's counters."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(300)
        s.connect(str(p.dir / "spool/control.sock"))
        s.sendall(b'{"cmd": "stats"}\n')
        import json
        return json.loads(s.makefile().readline())


def case_queue(o):
    for n in o.messages:
        port = free_port()
        p = daemon(f"relayhost = [127.0.0.1]:{port}\nminimal_backoff_time = 600s\nmaximal_backoff_time = 600s\n"
                   "maillog_file = /dev/null\n")
        fill(p, 100, 4000)
        before = rss(p)
        took = fill(p, n, 4000)
        wait_for(lambda: stats(p)["deferred"] >= n, 600, 0.5)
        time.sleep(2)
        after = rss(p)
        say(f"{n} queued messages of 4 KB", f"taken at {n / took:.0f}/s, {mb(after)} in all, "
            f"{(after - before) / n:.0f} B a message")
        say("  a new client meanwhile is greeted after", greeting_ms(p))
        p.stop()
        for what, main in (("none due", ""), ("all due", "x")):
            relay = FakeRelay(port=port, keep=False)
            conf = p.dir / "main.cf"
            if main:
                conf.write_text(conf.read_text().replace("_backoff_time = 600s", "_backoff_time = 0s"))
            subprocess.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True) if os.geteuid() == 0 else None
            begun = time.monotonic()
            p.start()
            up = time.monotonic() - begun
            if main:
                wait_for(lambda: relay.mails, 300, 0.005)
                first = time.monotonic() - begun
                say(f"  restart with nothing cached, {what}", f"first delivery after {first:.2f} s, greets after {up:.2f} s")
            else:
                assert p.send(sender="new@x.example").startswith("250")
                wait_for(lambda: relay.mails, 300, 0.005)
                first = time.monotonic() - begun
                wait_for(lambda: stats(p)["deferred"] >= n, 60, 0.5)
                say(f"  restart with nothing cached, {what}", f"new mail delivered after {first:.2f} s, greets after {up:.2f} s; "
                    f"{mb(rss(p))}, {(rss(p) - before) / n:.0f} B a message")
            p.kill()
            relay.stop()
        shutil.rmtree(p.dir)


def case_dead(o):
    dead, live = free_port(), Sink()
    n = min(200000, max(o.messages))
    p = daemon(f"relayhost = [127.0.0.1]:{live.port}\nsender_dependent_relayhost_maps = "
               f"inline:{{{{dead@x.example=[127.0.0.1]:{dead}}}}}\nmaillog_file = /dev/null\n")
    base = min(one_live(p, live) for _ in range(3))
    fill(p, n, 4000, "dead@x.example")
    wait_for(lambda: stats(p)["deferred"] + stats(p)["active"] >= n, 300, 0.5)
    rates = [one_live(p, live) for _ in range(3)]
    say(f"a dead relay with {n} waiting", f"others flow at {5000 / statistics.median(rates):.0f}/s; "
        f"without it at {5000 / base:.0f}/s")
    p.stop()
    live.stop()
    shutil.rmtree(p.dir)


def one_live(p, sink, n=5000):
    before = sink.count()
    begun = time.monotonic()
    source(p.port, 4000, 20, True, n)
    wait_for(lambda: sink.count() - before >= n, 60, 0.005)
    return time.monotonic() - begun


def written(p):
    text = pathlib.Path(f"/proc/{p.child('relay')}/io").read_text()
    return int(re.search(r"^write_bytes: (\d+)", text, re.M).group(1))


def case_bytes(o):
    sink = Sink()
    p = daemon(f"relayhost = [127.0.0.1]:{sink.port}\nmaillog_file = /dev/null\n")
    for sessions in (20, 100):
        for _ in range(2):
            before, mails = written(p), sink.count()
            n = 20000
            source(p.port, 4096, sessions, True, n)
            wait_for(lambda: sink.count() - mails >= n, 60, 0.01)
            time.sleep(1)
            amount = written(p) - before
        say(f"bytes written per byte of mail, 4 KB, {sessions} sessions", f"{amount / n / 4096:.2f}")
    p.stop()
    sink.stop()
    shutil.rmtree(p.dir)


def disk_alone(n=3000):
    """What fdatasync alone takes here, p50, p99 and worst, ms: no mail is acknowledged sooner than that."""
    took = []
    with tempfile.TemporaryFile(dir=os.environ.get("BENCH_DIR")) as f:
        os.posix_fallocate(f.fileno(), 0, n * 16384)
        for i in range(n):
            os.pwrite(f.fileno(), b"x" * 16384, i * 16384)
            begun = time.monotonic()
            os.fdatasync(f.fileno())
            took.append((time.monotonic() - begun) * 1000)
    took.sort()
    return f"p50 {took[n // 2]:.2f} ms, p99 {took[n * 99 // 100]:.2f} ms, worst {took[-1]:.1f} ms"


def case_latency(o):
    sink = Sink()
    p = daemon(f"relayhost = [127.0.0.1]:{sink.port}\nmaillog_file = /dev/null\n")
    full = 5000 / min(one_live(p, sink) for _ in range(3))
    time.sleep(1)
    say("fdatasync of 16 KB alone, 3000 times", disk_alone())
    for share in (0.25, 0.5):
        runs = []
        for _ in range(5):
            out = subprocess.run([BUILD / "tests/dotlat", str(p.port), "100", str(int(full * share)), "6", "4000"],
                                 capture_output=True, text=True, check=True).stdout
            runs.append([float(x) for x in out.split()])
            time.sleep(1)
        med = [statistics.median(r[i] for r in runs) for i in range(5)]
        say(f"final dot to 250 at {share:.0%} of {full:.0f}/s (really {med[4]:.0f}/s)",
            f"p50 {med[1] / 1000:.2f} ms, p99 {med[2] / 1000:.2f} ms, worst {med[3] / 1000:.1f} ms; medians of 5")
    say("fdatasync of 16 KB alone, again", disk_alone())
    p.stop()
    sink.stop()
    shutil.rmtree(p.dir)


def case_large(o):
    """Many senders of 50 MB at once: each says so and sends a part; memory stays in its budget."""
    p = daemon("message_size_limit = 60000000\nmaillog_file = /dev/null\n")
    n, part = o.sessions, 200_000
    before = rss(p)
    conns = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", p.port), 30)
        s.settimeout(120)
        s.recv(200)
        s.sendall(b"EHLO x\r\nMAIL FROM:<a@x.example> SIZE=50000000\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
        conns.append(s)
    for s in conns:
        got = b""
        while b"\n354" not in got:
            got += s.recv(1000)
    begun = rss(p)
    peak, over = [0], threading.Event()

    def watch():
        while not over.wait(0.2):
            peak[0] = max(peak[0], rss(p))
    threading.Thread(target=watch, daemon=True).start()
    line = (b"z" * 70 + b"\r\n") * 500
    for at in range(0, part, len(line)):
        for s in conns:
            s.sendall(line if at else b"Subject: x\r\n\r\n" + line)
    for s in conns:
        s.sendall(b".\r\n")
    good = sum(s.recv(100).startswith(b"250") for s in conns)
    over.set()
    say(f"{n} senders at once, {part // 1000} KB each, message_memory_limit 128 MiB",
        f"{good} taken, memory {mb(before)} before, {mb(begun)} when all had begun, "
        f"{mb(peak[0])} at its peak")
    p.stop()
    shutil.rmtree(p.dir)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--messages", type=int, nargs="*", default=[100_000, 1_000_000])
    ap.add_argument("--sessions", type=int, default=10_000)
    ap.add_argument("cases", nargs="*", default=["idle", "queue", "dead", "bytes", "latency", "large"])
    o = ap.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors shared by all programs")
    for c in o.cases:
        globals()["case_" + c](o)


if __name__ == "__main__":
    main()
