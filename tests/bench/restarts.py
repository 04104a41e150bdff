"""Clients that connect all the time while the daemon is restarted ten times: how many are refused, what is lost, what comes
twice, how long a client waits at most.  Restarts are by exec (posthouse restart), or as under systemd with its descriptor store.

  restarts.py [--rate CONNECTIONS_A_SECOND] [--restarts N] [--every SECONDS] [exec|store ...]

Each connection brings one mail with a number of its own.  A client that is told 421 comes again.  Needs a few cores: where the
clients do not reach the rate, that is said.
"""
import argparse
import asyncio
import collections
import multiprocessing
import pathlib
import re
import resource
import shutil
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "e2e")]
from kit import Posthouse, free_port, wait_for  # noqa: E402
from test_restart import Manager  # noqa: E402

PATIENCE_S = 120
IN_FLIGHT = 400  # what is begun beyond it only shows how slow the clients are


class Sink(asyncio.Protocol):
    """A relay host that notes the number of each mail; takes pipelined commands."""
    seen = None

    def connection_made(self, transport):
        self.to, self.rest, self.content = transport, b"", False
        transport.write(b"220 sink\r\n")

    def data_received(self, data):
        self.rest += data
        while self.step():
            pass

    def step(self):
        if self.content:
            body, dot, rest = self.rest.partition(b"\r\n.\r\n")
            if dot:
                Sink.seen.put(int(re.search(rb"^Subject: (\d+)", body, re.M)[1]))
                self.rest, self.content = rest, False
                self.to.write(b"250 taken\r\n")
            return bool(dot)
        line, end, rest = self.rest.partition(b"\r\n")
        if not end:
            return False
        self.rest = rest
        verb = line[:4].upper()
        self.content = verb == b"DATA"
        self.to.write(b"354 go on\r\n" if self.content else b"250-sink\r\n250 PIPELINING\r\n" if verb == b"EHLO" else
                      b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        if verb == b"QUIT":
            self.to.close()
        return True


def sink(port, seen):
    async def run():
        Sink.seen = seen
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()
    asyncio.run(run())


async def one_mail(port, number, counts, taken, waits):
    """Comes again until the mail is taken, as a client does that is told 421."""
    begun = time.monotonic()
    while True:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), PATIENCE_S)
        except (OSError, asyncio.TimeoutError) as error:
            counts[f"not connected: {error}"[:40]] += 1
            await asyncio.sleep(0.1)
            continue
        counts["connections"] += 1
        said, sent = [], False
        try:
            envelope = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
            for line, last in ((b"", b"220"), (b"EHLO c.example\r\n", b"250 "), (envelope, b"354"),
                               (b"Subject: %d\r\n\r\nx\r\n.\r\n" % number, b"250 2.0.0 Ok: queued")):
                writer.write(line)
                sent = line.startswith(b"Subject")
                while True:
                    reply = await asyncio.wait_for(reader.readline(), PATIENCE_S)
                    if not reply or reply.startswith(b"421"):
                        raise ConnectionError(reply.decode() or "end")
                    if reply.startswith(last):
                        break
            taken.add(number)
            waits.append(time.monotonic() - begun)
            writer.write(b"QUIT\r\n")
            writer.close()
            return
        except (OSError, asyncio.TimeoutError) as error:
            said = str(error)
            counts["told 421" if said.startswith("421") else "ended without 421"] += 1
            counts["content sent and not answered"] += sent and not said.startswith("421")
        finally:
            writer.close()
        await asyncio.sleep(0.1)


def clients(port, rate, over, answer):
    counts, taken, waits = collections.Counter(), set(), []

    async def run():
        tasks, begun, number, due, at = set(), time.monotonic(), 0, 0.0, time.monotonic()
        while not over.is_set():
            due += (time.monotonic() - at) * rate
            at = time.monotonic()
            for _ in range(int(due)):
                if len(tasks) >= IN_FLIGHT:  # this machine does not keep up: the rate that is printed is lower
                    break
                task = asyncio.ensure_future(one_mail(port, number, counts, taken, waits))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            due -= int(due)
            await asyncio.sleep(0.002)
        seconds = time.monotonic() - begun
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        answer.put((number, seconds, counts, taken, sorted(waits)))
    asyncio.run(run())


class Exec:
    """Restarts by posthouse restart."""

    def __init__(self, p):
        self.p = p
        self.start, self.close = p.start, p.stop

    def restart(self):
        self.p.run("restart", check=True)


class Store(Manager):
    """Restarts as systemd's."""

    def restart(self):
        self.p.proc.terminate()
        self.p.proc.wait()
        self.start()


def measure(how, o):
    port, seen, answer, over = free_port(), multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Event()
    host = multiprocessing.Process(target=sink, args=(port, seen), daemon=True)
    host.start()
    p = Posthouse(f"relayhost = [127.0.0.1]:{port}\nsmtpd_peername_lookup = no\nsmtpd_client_connection_count_limit = 0\n"
                  "default_destination_concurrency_limit = 50\nsmtpd_client_connection_rate_limit = 0\n")
    daemon = {"exec": Exec, "store": Store}[how](p)
    daemon.start()
    got = collections.Counter()
    threading.Thread(target=lambda: [got.update([seen.get()]) for _ in iter(int, 1)], daemon=True).start()
    load = multiprocessing.Process(target=clients, args=(p.port, o.rate, over, answer))
    load.start()
    took = []
    time.sleep(o.every)
    for _ in range(o.restarts):
        begun = time.monotonic()
        daemon.restart()
        took.append(time.monotonic() - begun)
        time.sleep(o.every)
    over.set()
    number, seconds, counts, taken, waits = answer.get()
    wait_for(lambda: not p.queue() and taken <= set(got), PATIENCE_S)
    print(f"{how}: {o.restarts} restarts, each {min(took):.2f} to {max(took):.2f} s, {number / seconds:.0f} clients a second ({number})")
    print(f"  refused or not connected: {sum(n for what, n in counts.items() if what.startswith('not connected'))}; {counts}")
    print(f"  taken: {len(taken)}, lost: {len(taken - set(got))}, came twice: {sum(n > 1 for n in got.values())}; "
          f"sent again by clients that had no answer: {counts['content sent and not answered']}")
    print(f"  from the first connection to 250: median {waits[len(waits) // 2] * 1000:.0f} ms, worst {waits[-1]:.2f} s; "
          f"processes killed: {p.log().count('it is killed')}", flush=True)
    daemon.close()
    host.kill()
    load.join()
    shutil.rmtree(p.dir, ignore_errors=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rate", type=int, default=1000)
    ap.add_argument("--restarts", type=int, default=10)
    ap.add_argument("--every", type=float, default=2.0)
    ap.add_argument("how", nargs="*", default=["exec", "store"])
    o = ap.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for how in o.how:
        measure(how, o)


if __name__ == "__main__":
    main()
