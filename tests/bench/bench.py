"""Posthouse and Debian's Postfix side by side: the same generator, sink and disk, fsync on in both.

Runs alternate, so that whatever else the machine does falls on both.  Prints medians and ratios; the
table goes into docs/performance.md.  Needs Debian's postfix package (its smtp-source and smtp-sink
too); Postfix runs from a directory of its own, never the system's instance.

  bench.py [--runs N] [--quick] [--base POSTHOUSED]

With --base an older build of Posthouse takes turns with the other two, and a second table compares this
tree with that build.
"""
import argparse
import os
import pathlib
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import Posthouse, free_port, owner, wait_for  # noqa: E402

CASES = [  # name, bytes, sessions, one connection for many messages, messages
    ("4 KB, 20 sessions, a connection each", 4000, 20, False, 6000),
    ("4 KB, 20 sessions, many a connection", 4000, 20, True, 8000),
    ("4 KB, 100 sessions, a connection each", 4000, 100, False, 6000),
    ("4 KB, 100 sessions, many a connection", 4000, 100, True, 8000),
    ("100 KB, 20 sessions, a connection each", 100000, 20, False, 1500),
    ("100 KB, 20 sessions, many a connection", 100000, 20, True, 1500),
]
POSTFIX_LIMIT = 2  # Postfix gets this fraction of the messages: 1/2, it is slower


def process_tree(root):
    """Pids of root and all its descendants."""
    out = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    kids = {}
    for line in out.splitlines():
        pid, ppid = map(int, line.split())
        kids.setdefault(ppid, []).append(pid)
    todo, found = [root], []
    while todo:
        p = todo.pop()
        found.append(p)
        todo += kids.get(p, [])
    return found


def cpu_of(root):
    """CPU seconds of a process tree, children that have ended and were waited for included."""
    total = 0
    for pid in process_tree(root):
        try:
            f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            total += sum(int(x) for x in f[11:15])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def memory_of(root):
    """Proportional set size of a process tree, bytes."""
    total = 0
    for pid in process_tree(root):
        try:
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


class Peak(threading.Thread):
    """The largest memory of a process tree while it is under load; looks twice a second."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.peak, self.over = root, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.5):
            self.peak = max(self.peak, memory_of(self.root))

    def stop(self):
        self.over.set()
        self.join()
        return max(self.peak, memory_of(self.root))


class Sink:
    """smtp-sink, which counts what it took."""

    def __init__(self):
        self.port = free_port()
        args = ["smtp-sink"] + (["-u", "nobody"] if os.geteuid() == 0 else [])
        self.out = tempfile.TemporaryFile()
        self.proc = subprocess.Popen([*args, "-c", f"127.0.0.1:{self.port}", "1024"], stdout=self.out,
                                     stderr=subprocess.DEVNULL)
        time.sleep(0.3)

    def count(self):
        size = self.out.seek(0, 2)
        self.out.seek(max(0, size - 200))
        text = self.out.read().decode(errors="replace")
        at = text.rfind("mesg=")
        return int(text[at + 5:].split("\r")[0].split()[0]) if at >= 0 else 0

    def stop(self):
        self.proc.kill()
        self.proc.wait()


class PostfixMta:
    name = "Postfix"

    def __init__(self, sink):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bench-postfix-", dir=os.environ.get("BENCH_DIR")))
        self.dir.chmod(0o755)
        self.port = free_port()
        for d in ("etc", "spool", "data"):
            (self.dir / d).mkdir()
        pf = pwd.getpwnam("postfix")
        os.chown(self.dir / "data", pf.pw_uid, pf.pw_gid)
        shutil.copy("/usr/share/postfix/master.cf.dist", self.dir / "etc/master.cf")
        text = (self.dir / "etc/master.cf").read_text()
        text = text.replace("\nsmtp      inet", f"\n127.0.0.1:{self.port} inet")
        lines = [" ".join([*l.split()[:4], "n", *l.split()[5:]]) if l[:1] not in " #\t" and len(l.split()) > 7 else l
                 for l in text.splitlines()]
        (self.dir / "etc/master.cf").write_text("\n".join(lines) + "\n")
        (self.dir / "etc/main.cf").write_text(
            f"compatibility_level = 3.6\nqueue_directory = {self.dir}/spool\ndata_directory = {self.dir}/data\n"
            f"maillog_file = {self.dir}/maillog\nmaillog_file_prefixes = {self.dir}\nmyhostname = mta.example\n"
            f"mydestination =\nmynetworks = 127.0.0.0/8\ninet_protocols = ipv4\nalias_maps =\n"
            f"relayhost = [127.0.0.1]:{sink.port}\nsmtpd_peername_lookup = yes\nmulti_instance_name = postfix-bench\n"
            f"import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C\n")
        subprocess.run(["postfix", "-c", str(self.dir / "etc"), "start"], check=True, capture_output=True)
        self.pid = int(wait_for(lambda: (self.dir / "spool/pid/master.pid").read_text().strip()))

    def stop(self):
        subprocess.run(["postfix", "-c", str(self.dir / "etc"), "stop"], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


class PosthouseMta:
    def __init__(self, sink, name="Posthouse", exe=None):
        self.name = name
        d = tempfile.mkdtemp(prefix="bench-posthouse-", dir=os.environ.get("BENCH_DIR"))
        self.p = Posthouse(f"relayhost = [127.0.0.1]:{sink.port}\nmydestination =\n", directory=d)
        self.p.exe = exe or self.p.exe
        self.p.start()
        self.port, self.pid = self.p.port, self.p.proc.pid

    def stop(self):
        self.p.stop()
        shutil.rmtree(self.p.dir, ignore_errors=True)


def source(port, size, sessions, many, count):
    args = ["smtp-source", "-s", str(sessions), "-m", str(count), "-l", str(size), "-f", "a@x.example", "-t",
            "b@y.example"] + (["-d"] if many else [])
    subprocess.run([*args, f"127.0.0.1:{port}"], check=True)


def one_run(mta, sink, size, sessions, many, count):
    """Messages a second end to end, CPU microseconds a message, peak memory."""
    before, cpu = sink.count(), cpu_of(mta.pid)
    watch = Peak(mta.pid)
    begun = time.monotonic()
    source(mta.port, size, sessions, many, count)
    while sink.count() - before < count:
        time.sleep(0.005)
        if time.monotonic() - begun > 120:
            raise SystemExit(f"bench: {mta.name} delivered {sink.count() - before} of {count} in 120 s")
    took = time.monotonic() - begun
    time.sleep(0.3)  # what is settled after the last delivery belongs to the cost
    return count / took, (cpu_of(mta.pid) - cpu) / count * 1e6, watch.stop()


def ceiling(sink, size, sessions, many, count):
    begun = time.monotonic()
    source(sink.port, size, sessions, many, count)
    return count / (time.monotonic() - begun)


def median(rows, i):
    return statistics.median(r[i] for r in rows)


def pairs(new, old, i):
    """The median of each run's ratio to the run beside it: both had the same minute of the machine."""
    return statistics.median(a[i] / b[i] for a, b in zip(new, old))


def show_base(cases):
    if not cases:
        return
    print("\n| load | base /s | now /s | now in % | base µs CPU | now µs CPU | now in % |\n|---|---|---|---|---|---|---|")
    for name, new, old in cases:
        print(f"| {name} | {median(old, 0):.0f} | {median(new, 0):.0f} | {pairs(new, old, 0) * 100:.0f} | "
              f"{median(old, 1):.0f} | {median(new, 1):.0f} | {pairs(new, old, 1) * 100:.0f} |", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--quick", action="store_true", help="a third of the messages")
    ap.add_argument("--base", help="posthoused of an older build, which takes turns with this one")
    o = ap.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root: Debian's Postfix does not start otherwise")
    sink = Sink()
    mtas = [PostfixMta(sink), PosthouseMta(sink)] + ([PosthouseMta(sink, "base", o.base)] if o.base else [])
    against_base = []
    cpus = os.cpu_count()
    print(f"{time.strftime('%Y-%m-%d')}, {cpus} processors shared by generator, relay and sink; "
          f"medians of {o.runs}; fsync on in both\n")
    print("| load | tools alone /s | Postfix /s | Posthouse /s | ratio | Postfix µs CPU | Posthouse µs CPU | ratio "
          "| Postfix MB | Posthouse MB |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    try:
        for name, size, sessions, many, count in CASES:
            count = count // 3 if o.quick else count
            rows = {m.name: [] for m in mtas}
            alone = [ceiling(sink, size, sessions, many, count) for _ in range(min(3, o.runs))]
            for _ in range(o.runs):
                for m in mtas:
                    n = count // POSTFIX_LIMIT if m.name == "Postfix" else count
                    rows[m.name].append(one_run(m, sink, size, sessions, many, n))
            pf, ph = rows["Postfix"], rows["Posthouse"]
            if o.base:
                against_base.append((name, ph, rows["base"]))
            print(f"| {name} | {statistics.median(alone):.0f} | {median(pf, 0):.0f} | {median(ph, 0):.0f} | "
                  f"{median(ph, 0) / median(pf, 0):.1f}x | {median(pf, 1):.0f} | {median(ph, 1):.0f} | "
                  f"1/{median(pf, 1) / median(ph, 1):.1f} | {median(pf, 2) / 1e6:.0f} | {median(ph, 2) / 1e6:.0f} |",
                  flush=True)
        show_base(against_base)
    finally:
        for m in mtas:
            m.stop()
        sink.stop()


if __name__ == "__main__":
    main()
