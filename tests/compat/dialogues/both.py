"""Random dialogues given to Debian's Postfix and to Posthouse alike.

    both.py [--in N] [--out N] [--seed FIRST] [-v]

in:  a client's dialogue; reply codes, what reaches the next hop and the status in the log are compared.
out: a relay host that answers at random; what it was told and the status in the log are compared.
A difference that docs/differences.md explains is counted under its row (rows.py); any other is printed with the
seed that repeats it, and the program exits with 1.
"""
import argparse
import collections
import pathlib
import re
import shutil
import socket
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]
sys.dont_write_bytecode = True

import pair  # noqa: E402
import rows  # noqa: E402
from hosts import Host  # noqa: E402
from kit import Client, FakeRelay, wait_for  # noqa: E402
from talk import Maker  # noqa: E402

MAIN = """smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_junk_command_limit = 1000
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_recipient_limit = 20
message_size_limit = 30000
smtpd_peername_lookup = no
local_header_rewrite_clients =
smtp_connection_cache_on_demand = no
smtp_destination_concurrency_limit = 20
default_destination_concurrency_failed_cohort_limit = 100000
notify_classes =
relayhost = [127.0.0.1]:{port}
smtpd_recipient_restrictions = check_recipient_access inline:{{{{ denied.test = 554 5.7.1 denied by table }},
    {{ later.test = 450 4.7.1 later by table }}}}
smtpd_sender_restrictions = check_sender_access inline:{{{{ spam.test = REJECT }}}}
"""
BATCH = 100


class Talk:
    """One client's side of a dialogue; replies gathers codes in the order in which they came."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(20)
        self.file = self.sock.makefile("rb")
        self.replies, self.taken, self.over = [], 0, False

    def reply(self, of):
        while not self.over:
            try:
                line = self.file.readline()
            except OSError:
                line = b""
            if not line:
                self.over = True
                self.replies.append((of, "closed"))
            elif line[3:4] != b"-":
                self.replies.append((of, line[:3].decode("latin-1")))
                return line[:3]
        return b""

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def step(self, commands):
        out = b""
        for command, content in commands:
            out += command.encode() + b"\r\n"
            if command.startswith("BDAT") and content is not None:
                out += content
        self.send(out)
        for command, content in commands:
            code = self.reply(command[:60])
            if content is not None and command == "DATA" and code == b"354":
                self.send(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
                self.taken += self.reply("end of data") == b"250"
            elif command.endswith("LAST") and code == b"250":
                self.taken += 1

    def run(self, steps):
        self.reply("greeting")
        for commands in steps:
            if self.over:
                break
            self.step(commands)
        if not self.over:
            self.send(b"QUIT\r\n")
            self.reply("QUIT")
        self.file.close()
        self.sock.close()
        return self.replies


ADDED = re.compile(rb"\AReceived: from [^\n]*\n(?:[ \t][^\n]*\n)*")


def without_received(content):
    """The content as it was before the server put its own field in front."""
    return ADDED.sub(b"", content, count=1)


def unxtext(text):
    return re.sub(r"\+([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), text)


def normal(command):
    """A command to the next hop, but for what docs/differences.md says: its parameters in order, no SIZE and BODY,
    and no ORCPT that repeats the recipient."""
    path, _, rest = command.rpartition(">")
    parameters = sorted(p for p in rest.split() if not re.match(r"SIZE=|BODY=", p))
    address = path.partition("<")[2].replace('"', "")
    if address:
        parameters = [p for p in parameters if not (p.startswith("ORCPT=rfc822;") and unxtext(p).replace('"', "").endswith(address))]
    return " ".join([path + ">", *parameters])


def word_of(text, seeds):
    """The seed with the word that stands in a command or log line."""
    found = re.search(r"u(\d+)n\d+", text, re.I)
    return int(found[1]) if found and int(found[1]) in seeds else None


class Side:
    """One of the two servers with next hops of its own, for one batch."""

    def __init__(self, mta, relays):
        self.mta, self.relays = mta, relays

    def mails(self, seeds):
        """For each seed: what its mails were at the next hop, once the relays have noted what the log calls sent."""
        sent = len(set(re.findall(r"smtp\S*: (\w+): to=<.* status=sent", self.mta.new_log())))

        def noted():
            "every mail that was sent, at a relay"
            return sum(len(relay.mails) for relay in self.relays) >= sent
        wait_for(noted)
        out = collections.defaultdict(list)
        for m in (m for relay in self.relays for m in relay.mails):
            if re.search(rb"\(Mail Delivery System\)|Mail Delivery System <", m["content"]):
                continue  # a report: each server writes its own
            text = " ".join([m["from"] or "", *m["rcpts"]])
            out[word_of(text, seeds)].append((normal(m["from"] or ""), tuple(sorted(set(map(normal, m["rcpts"])))),
                without_received(m["content"])))
        return {k: sorted(v) for k, v in out.items()}

    def outcomes(self, seeds):
        out = collections.defaultdict(list)
        for to, _, dsn, status, text in pair.outcomes(self.mta.new_log()):
            text = re.sub(r"message size \d+", "message size N", text)  # the Received: field differs in length
            out[word_of(to, seeds)].append((to, dsn, status, text))
        return {k: sorted(v) for k, v in out.items()}


def settled(mta, taken):
    """True once every message that was taken has left the active queue for the first time."""
    log = mta.new_log()
    received = set(re.findall(r": (\w+): client=", log))
    lines = collections.Counter(re.findall(r": (\w+): to=<", log))
    wanted = {m[1]: int(m[2]) for m in re.finditer(r": (\w+): from=<[^>]*>, size=\d+, nrcpt=(\d+)", log) if m[1] in received}
    return len(wanted) >= taken and all(lines[q] >= n for q, n in wanted.items())


def with_side(mta, main, files, work):
    """work(mta) while mta serves that configuration."""
    mta.case(main, files, "")
    try:
        return work(mta)
    finally:
        mta.over()
        if hasattr(mta, "stop"):
            mta.stop()


def wait_settled(mta, taken):
    def done():
        "every accepted mail delivered, bounced or deferred"
        return settled(mta, taken)
    wait_for(done)


def talk_to(mta, relay, seeds):
    """Runs the dialogues of seeds; replies, mails and log of each."""
    talks, taken = {}, 0
    for seed in seeds:
        talk = Talk(mta.port)
        talks[seed] = talk.run(Maker(seed).dialogue())
        taken += talk.taken
    wait_settled(mta, taken)
    side = Side(mta, [relay])
    mails, log = side.mails(set(seeds)), side.outcomes(set(seeds))
    return {seed: dict(replies=talks[seed], mails=mails.get(seed, []), log=log.get(seed, [])) for seed in seeds}


def both_talk(dns, seeds):
    out = []
    for mta in (pair.Postfix(dns), pair.Ours(dns)):
        with FakeRelay() as relay:
            out.append(with_side(mta, MAIN.replace("{port}", str(relay.port)), {}, lambda m: talk_to(m, relay, seeds)))
    return out


def send_to(mta, relays, seeds):
    """Sends each seed's mails, which go to that seed's relay host; mails and log of each."""
    replies = {seed: [] for seed in seeds}
    for seed in seeds:
        for sender, rcpts, content in Host(seed).mails():
            with Client(mta.port) as client:
                replies[seed].append(("end of data", client.mail(sender, rcpts, content)[:3]))
    wait_settled(mta, sum(len(r) for r in replies.values()))
    side = Side(mta, relays)
    mails, log = side.mails(set(seeds)), side.outcomes(set(seeds))
    return {seed: dict(replies=replies[seed], mails=mails.get(seed, []), log=log.get(seed, [])) for seed in seeds}


def both_send(dns, seeds):
    out = []
    for mta in (pair.Postfix(dns), pair.Ours(dns)):
        relays = {seed: Host(seed).relay() for seed in seeds}
        table = "".join(f"h{seed}.test smtp:[127.0.0.1]:{r.port}\n" for seed, r in relays.items())
        main = MAIN.replace("{port}", "9") + "transport_maps = hash:{dir}/hosts\n"
        try:
            out.append(with_side(mta, main, {"hosts": table}, lambda m: send_to(m, relays.values(), seeds)))
        finally:
            for r in relays.values():
                r.stop()
    return out


def compare(run, first, count, explains, verbose=False):
    """Differences as (seed, what, Postfix's, ours), and how many each row of docs/differences.md explains."""
    found, explained = [], collections.Counter()
    for begin in range(first, first + count, BATCH):
        seeds = range(begin, min(begin + BATCH, first + count))
        theirs, ours = run(seeds)
        for seed in seeds:
            what = next((w for w in theirs[seed] if theirs[seed][w] != ours[seed][w]), None)
            row = what and explains(what, theirs[seed], ours[seed])
            if row:
                explained[row] += 1
            elif what:
                found.append((seed, what, theirs[seed][what], ours[seed][what]))
                if verbose:
                    show(found[-1])
    return found, explained


def show(difference):
    seed, what, theirs, ours = difference
    print(f"--- seed {seed}: {what}")
    if what == "replies":
        at = next((i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
        theirs, ours = theirs[max(0, at - 2):at + 2], ours[max(0, at - 2):at + 2]
    if what in ("mails", "log"):
        theirs, ours = [x for x in theirs if x not in ours], [x for x in ours if x not in theirs]
    print(f"    host {Host(seed).describe()}\n    Postfix   {theirs}\n    Posthouse {ours}", flush=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--in", dest="talks", type=int, default=0)
    args.add_argument("--out", type=int, default=0)
    args.add_argument("--seed", type=int, default=1)
    o = args.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="dialogues-dns-"))
    directory.chmod(0o755)
    dns = pair.NameServer(directory, ["y.test. 60 IN A 127.0.0.1"])
    found, explained = [], collections.Counter()
    try:
        for run, count, explains in ((both_talk, o.talks, rows.explains_in), (both_send, o.out, rows.explains_out)):
            more, why = compare(lambda seeds: run(dns, seeds), o.seed, count, explains, verbose=True)
            found += more
            explained += why
    finally:
        dns.stop()
        shutil.rmtree(directory)
    for row, n in explained.most_common():
        print(f"{n:6} explained: {row}")
    print(f"{o.talks} dialogues in, {o.out} relay hosts out: {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
