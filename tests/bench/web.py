"""What the page costs: lists and profiles with 500,000 users in MariaDB, and mail that flows while the API is asked.

Part of make bench.  Times are the server's, taken over a connection that stays open, client's own time included.
"""
import argparse
import http.client
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "web"), str(ROOT / "tests" / "bench")]
sys.dont_write_bytecode = True
import servers  # noqa: E402
from lookups import Sink, one_run  # noqa: E402
from webkit import GLOBAL, SECRET, Web  # noqa: E402

LUA = 'function delay() return %d end\nwrk.headers["Authorization"] = "Bearer %s"\n' \
      'local n, paths = 0, {"/api/domains", "/api/domain/d0042.example", "/api/users/d0042.example", "/api/queue/counts"}\n' \
      'request = function() n = n + 1; return wrk.format("GET", paths[n %% #paths + 1]) end\n'


def fill(db, domains, users):
    """iRedMail's rows; every tenth domain and every hundredth user relays elsewhere."""
    db.run("SET GLOBAL innodb_buffer_pool_size = 402653184")
    db.run(f"INSERT INTO domain (domain, description) SELECT CONCAT('d', LPAD(seq, 4, '0'), '.example'), CONCAT('Customer ', seq) FROM seq_0_to_{domains - 1}")
    db.run("INSERT INTO mailbox (username, name, domain) SELECT CONCAT('user', LPAD(u.seq, 4, '0'), '@', d.domain), CONCAT('User ', u.seq), d.domain "
           f"FROM domain d, seq_0_to_{users - 1} u")
    db.run("INSERT INTO sender_relayhost (account, relayhost) SELECT CONCAT('@', domain), '[relay.example]:587' FROM domain WHERE domain LIKE '%0.example'")
    db.run("INSERT INTO sender_relayhost (account, relayhost) SELECT username, '[other.example]:587' FROM mailbox WHERE username LIKE 'user0042%'")
    db.run("ANALYZE TABLE domain, mailbox, sender_relayhost")
    servers.add_admin(db, GLOBAL, "{PLAIN}" + SECRET)


def times(port, cookie, path, n):
    """Milliseconds of n requests."""
    c = http.client.HTTPConnection("127.0.0.1", port)
    out = []
    for i in range(n):
        begun = time.perf_counter()
        c.request("GET", path(i) if callable(path) else path, headers={"Cookie": cookie})
        r = c.getresponse()
        r.read()
        assert r.status == 200, (path, r.status)
        out.append((time.perf_counter() - begun) * 1000)
    c.close()
    return sorted(out)


def lists(w, domains, n):
    cookie = w.api(GLOBAL).cookie
    d = lambda i: f"d{i * 7919 % domains:04d}.example"
    asked = {
        "domains, first page": "/api/domains", "domains, a page in the middle": lambda i: f"/api/domains?after={d(i)}",
        "domains with a word in them": lambda i: f"/api/domains?search={i * 7919 % domains:04d}",
        "users of a domain": lambda i: f"/api/users/{d(i)}", "users, second page": lambda i: f"/api/users/{d(i)}?after=user0049@{d(i)}",
        "profile of a domain": lambda i: f"/api/domain/{d(i)}", "profile of a user": lambda i: f"/api/user/user0042@{d(i)}",
        "search for an address": lambda i: f"/api/search?q=user00{i % 100:02d}@d0",
        "relay records": "/api/relays",
    }
    print(f"  {'':34} median      95 %       most   (ms, {n} requests each)")
    worst = 0
    for what, path in asked.items():
        t = times(w.web_port, cookie, path, n)
        worst = max(worst, t[int(n * 0.95)])
        print(f"  {what:34} {statistics.median(t):6.1f}    {t[int(n * 0.95)]:6.1f}    {t[-1]:7.1f}")
    print(f"  slowest 95 %: {worst:.1f} ms (target: under 50 ms)")


def beside_mail(w, sink, count, pairs, rate):
    """Messages a second alone and beside rate requests a second, in turn."""
    token = w.api(GLOBAL).ok("POST", "/api/tokens", body={"name": "bench", "scopes": "read queue"})["token"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(LUA % (4000 // rate - 2, token))  # 4 connections, an answer in some 2 ms
        lua.flush()
        one_run(w, sink, count, 20, 50, 50)
        alone, beside = [], []
        for _ in range(pairs):
            alone.append(one_run(w, sink, count, 20, 50, 50))
            wrk = subprocess.Popen(["taskset", "-c", "0", "wrk", "-t", "1", "-c", "4", "-d", "600", "-s", lua.name, w.url], stdout=subprocess.PIPE, text=True)
            time.sleep(0.5)
            beside.append(one_run(w, sink, count, 20, 50, 50))
            wrk.send_signal(2)
            said = wrk.communicate()[0]
            if "Non-2xx" in said:
                raise SystemExit(said)
    done = [line for line in said.splitlines() if "Requests/sec" in line][0].split()[1]
    ratios = [b / a for a, b in zip(alone, beside)]
    print(f"  alone {statistics.median(alone):,.0f}/s, beside {done} requests/s {statistics.median(beside):,.0f}/s: "
          f"{statistics.median(ratios):.1%} (each pair: {', '.join(f'{r:.0%}' for r in ratios)}; target: at least 95 %)")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--domains", type=int, default=5000)
    a.add_argument("--users", type=int, default=100, help="of each domain")
    a.add_argument("--requests", type=int, default=200)
    a.add_argument("--count", type=int, default=60000, help="messages of a run")
    a.add_argument("--pairs", type=int, default=15)
    a = a.parse_args()
    db, sink = servers.MariaDb(), Sink()
    try:
        print(f"The page over MariaDB with {a.domains:,} domains and {a.domains * a.users:,} users")
        fill(db, a.domains, a.users)
        main_cf = (f"relayhost = [127.0.0.1]:{sink.port}\naccounts_store = mysql:{{dir}}/store.cf\nsender_dependent_relayhost_maps =\n")
        with Web(main_cf, files={"store.cf": servers.store_file(db)}) as w:
            lists(w, a.domains, a.requests)
            print("Mail (4 KB, many a connection) while the API is asked 200 times a second")
            beside_mail(w, sink, a.count, a.pairs, 200)
    finally:
        sink.stop()
        db.stop()


if __name__ == "__main__":
    main()
