"""What looking senders up costs: 1,000 senders over 50 relays in a real MariaDB against the relay host for everybody,
in one run; queries of a burst; and mail beside a database that answers in 100 ms.  Part of make bench.
"""
import argparse
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True
import servers  # noqa: E402
from kit import BUILD, Posthouse, free_port  # noqa: E402

RELAYS, SENDERS = 50, 1000
BY_SENDER = "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"


class Sink:
    """A relay host on every loopback address (127.1.0.1 … are 50 of them) that drops what it takes."""

    def __init__(self, *words):
        self.port = free_port()
        self.counter = tempfile.NamedTemporaryFile()
        self.proc = subprocess.Popen([str(BUILD / "tests/sink"), str(self.port), self.counter.name, *words])
        time.sleep(0.3)

    def count(self):
        return struct.unpack("Q", pathlib.Path(self.counter.name).read_bytes())[0]

    def stop(self):
        self.proc.kill()
        self.proc.wait()


class Delay:
    """Answers of the database, each a little later."""

    def __init__(self, port, seconds):
        self.seconds = seconds
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(port,), daemon=True).start()

    def _accept(self, port):
        while True:
            c, _ = self.listener.accept()
            s = socket.create_connection(("127.0.0.1", port))
            for a, b, wait in ((c, s, 0), (s, c, self.seconds)):
                threading.Thread(target=self._pump, args=(a, b, wait), daemon=True).start()

    def _pump(self, a, b, wait):
        try:
            while data := a.recv(65536):
                time.sleep(wait)
                b.sendall(data)
        except OSError:
            pass
        a.close()
        b.close()


def one_run(p, sink, count, sessions, senders, domains=RELAYS):
    """Messages a second, end to end, with the sessions to the relays open."""
    if count > 5000:
        one_run(p, sink, 5000, sessions, senders, domains)
    before, begun = sink.count(), time.monotonic()
    subprocess.run([str(BUILD / "tests/senders"), str(p.port), str(sessions), str(count), str(senders), str(domains), "4096"], check=True)
    while sink.count() - before < count:
        time.sleep(0.005)
        if time.monotonic() - begun > 120:
            raise SystemExit(f"lookups: {sink.count() - before} of {count} delivered in 120 s")
    return count / (time.monotonic() - begun)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--count", type=int, default=20000)
    ap.add_argument("--no-chunking", action="store_true", help="relay hosts without CHUNKING: DATA, one more round trip a message")
    o = ap.parse_args()
    db, sink = servers.MariaDb(), Sink(*(["nochunking"] if o.no_chunking else []))
    db.run("INSERT INTO sender_relayhost (account, relayhost) VALUES " +
           ",".join(f"('s{i}@d{i % RELAYS}.example', '[127.1.0.{i % RELAYS + 1}]:{sink.port}')" for i in range(SENDERS)))
    table = servers.table_file(db, BY_SENDER)
    slow = Delay(db.port, 0.1)
    base = f"relayhost = [127.0.0.1]:{sink.port}\nmydestination =\nmaximal_backoff_time = 2s\nminimal_backoff_time = 2s\n"
    maps = "sender_dependent_relayhost_maps = proxy:mysql:{dir}/t.cf\n"
    slow_table = table.replace(f":{db.port}", f":{slow.port}")
    with Posthouse(base) as everybody, Posthouse(base + maps, files={"t.cf": table}) as own, \
            Posthouse(base + maps, files={"t.cf": slow_table + "domain = asked.example\n"}) as beside, \
            Posthouse(base + maps, files={"t.cf": slow_table}) as late:
        rows = []
        for _ in range(o.runs):
            a = one_run(everybody, sink, o.count, 20, SENDERS)
            b = one_run(own, sink, o.count, 20, SENDERS)
            c = one_run(beside, sink, o.count, 20, SENDERS)
            rows.append((a, b, b / a, c, c / a))
        print("each run:", " ".join(f"{r[1]:.0f}/{r[0]:.0f}" for r in rows))
        m = [statistics.median(r[i] for r in rows) for i in range(5)]
        print(f"relay host for everybody                         {m[0]:6.0f}/s")
        print(f"{SENDERS} senders over {RELAYS} relays, rows in MariaDB    {m[1]:6.0f}/s   {100 * m[2]:.0f} % (medians of {o.runs} ratios in the same run)")
        print(f"beside a database that answers in 100 ms         {m[3]:6.0f}/s   {100 * m[4]:.0f} %: mail that it need not be asked about")
        questions = lambda: int(db.run("SHOW GLOBAL STATUS LIKE 'Com_select'").split()[1])
        before = questions()
        rate = one_run(own, sink, o.count, 20, 1, 1)
        asked = questions() - before
        print(f"a burst from one sender                          {rate:6.0f}/s   {asked} queries for {o.count} messages: one per {o.count // max(asked, 1)}")
        rate = one_run(late, sink, 2000, 100, SENDERS)
        print(f"{SENDERS} senders looked up there, 100 ms an answer    {rate:6.0f}/s   (2 keys a sender at most, 32 questions at a time)")
    db.stop()
    sink.stop()


if __name__ == "__main__":
    main()
