"""The queue's tools: what Debian's print and end with, and what ours do, of the same mail."""
import os
import re
import subprocess

import pytest
from kit import Client, free_port, wait_for
from pair import AS_ROOT, Ours

MAIN = "relayhost = [127.0.0.1]:{port}\nminimal_backoff_time = 3000s\nmaximal_backoff_time = 4000s\n" \
    "virtual_alias_maps = inline:{{{{ {{{{list@far.example=six@far.example,seven@away.example}}}} }}}}\n"
MAILS = [("ann@a.example", ["one@far.example"]), ("ben@b.example", ["two@far.example", '"john doe"@away.example']),
         ("cat@c.example", ["three@away.example", "four@sub.far.example"]), ("", ["five@far.example"]),
         ("dan@d.example", ["list@far.example"])]


class Tools:
    """One side: runs a tool, with $0, $1 … for the IDs of MAILS, and puts them back in what it says."""

    def __init__(self, product, run):
        self.product, self.run_tool, self.ids = product, run, []
        for sender, rcpts in MAILS:
            with Client(product.port) as c:
                head = f"Subject: of {sender}\r\n folded\r\nDate: x\r\nMessage-Id: <x@x>\r\nFrom: x@x.example\r\n"
                reply = c.mail(sender, rcpts, content=head + "\r\nhello\r\n.dot\r\n\r\nend\r\n")
            self.ids.append(re.search(r"queued as (\w+)", reply)[1])
        wait_for(lambda: self("postqueue", "-j")[1].count('"deferred"') == len(MAILS))

    def __call__(self, tool, *args, stdin=None):
        args = [re.sub(r"\$(\d)", lambda m: self.ids[int(m[1])], a) for a in args]
        stdin = stdin and re.sub(r"\$(\d)", lambda m: self.ids[int(m[1])], stdin)
        r = self.run_tool(tool, args, stdin)
        texts = []
        for text in (r.stdout, r.stderr):
            for i, qid in enumerate(self.ids):
                text = text.replace(qid, f"${i}")
            texts.append(text)
        return r.returncode, *texts


@pytest.fixture
def sides(name_server, postfix):
    ours = Ours(name_server)
    main = MAIN.format(port=free_port())
    try:
        postfix.case(main, {}, "")
        ours.case(main, {}, "")

        def theirs(tool, args, stdin):
            return subprocess.run([*AS_ROOT, "env", f"MAIL_CONFIG={postfix.dir}/etc", "PATH=/usr/sbin:/usr/bin:/bin", tool, *args],
                                  capture_output=True, text=True, input=stdin)
        yield Tools(postfix, theirs), Tools(ours.p, lambda tool, args, stdin: ours.p.run(*args, face=tool, stdin=stdin))
    finally:
        postfix.over()
        ours.over()


def lines(text):
    return sorted(text.splitlines())


def by_name(text):
    """getopt's own line names the program by its path."""
    return re.sub(r"^/\S*/(post\w+:)", r"\1", text, flags=re.M)


SUPER = [["-h", "$0"], ["-h", "$0"], ["-h", "$0", "-h", "$1", "-H", "$2"], ["-H", "ALL"], ["-H", "ALL"], ["-h", "ALL", "deferred"],
         ["-h", "ALL", "hold"], ["-d", "NOSUCH", "-d", "../etc/passwd"], ["-d", "all"], ["-d", "ALL", "incoming"], ["-z"], ["-d"],
         ["-s"], ["-p"], ["-S"], [], ["-r", "X", "-d", "X", "-h", "X", "-H", "X", "-e", "X", "-f", "X"], ["-h", "ALL", "nosuchqueue"],
         ["-h", "ALL", "-d", "NONE"], ["-e", "$3"], ["-e", "$3"], ["-f", "$2"], ["-f", "ALL", "hold"]]


def test_postsuper(sides):
    for args in SUPER:
        theirs, ours = (side("postsuper", *args) for side in sides)
        assert (ours[0], lines(ours[1])) == (theirs[0], lines(theirs[1])), args
        assert lines(by_name(ours[2])) == lines(theirs[2]), args
        if "-f" in args:
            continue  # what is released and expired ends at any time
        held = [re.findall(r"^(\S+)!", side("mailq")[1], re.M) for side in sides]
        assert sorted(held[0]) == sorted(held[1]), args


def test_postsuper_expires_in_the_named_queue_alone(sides):
    """-f releases what is on hold, and only where it was asked to."""
    for args in (["-h", "ALL"], ["-H", "$2"], ["-f", "ALL", "deferred"]):
        if args[0] == "-f":  # what was released is tried at once
            for side in sides:
                wait_for(lambda: '"deferred"' in side("postqueue", "-j")[1])
        theirs, ours = (side("postsuper", *args) for side in sides)
        assert (ours[0], lines(ours[2])) == (theirs[0], lines(theirs[2])), args
    for side in sides:
        held = re.findall(r"^\$(\d)!", side("mailq")[1], re.M)
        assert sorted(held) == ["0", "1", "3", "4"]


IDS = [(["-h", "-"], "$1\n\n  $2\nNOSUCH\n$0\n"), (["-H", "-"], ""), (["-H", "-", "-d", "$3"], "$1\n$1\n"), (["-d", "-"], "$0\n$1")]


def test_postsuper_from_standard_input(sides):
    for args, stdin in IDS:
        theirs, ours = (side("postsuper", *args, stdin=stdin) for side in sides)
        assert (ours[0], lines(ours[2])) == (theirs[0], lines(theirs[2])), args


QUEUE = [["-i", "$0"], ["-i", "NOSUCH"], ["-i", "a/b"], ["-s", "a b"], ["-f", "-p"], [], ["-p", "x"], ["-z"], ["-i"]]


def test_postqueue(sides):
    for args in QUEUE:
        theirs, ours = (side("postqueue", *args) for side in sides)
        assert ours[:2] == theirs[:2], args
        assert lines(by_name(ours[2])) == lines(theirs[2]), args


def entries(listing):
    """{first line without time: its lines} of each message of a listing."""
    out = {}
    for entry in re.sub(r"\w{3} \w{3} [ \d]\d [\d:]{8}", "TIME", listing).split("\n\n"):
        first, *rest = [l for l in entry.splitlines() if not l.startswith("-Queue")] or ["--"]
        rest = [re.sub(r"127\.0\.0\.1\]?:\d+|delivery temporarily suspended: ", "", l).strip() for l in rest]
        out[re.sub(r"[ !*#]+", " ", first)] = sorted(rest)
    return {k: v for k, v in out.items() if not k.startswith("--")}


def test_mailq(sides):
    for args in [[], ["-v"], ["-Ac"]]:
        theirs, ours = (entries(side("mailq", *args)[1]) for side in sides)
        for side in (theirs, ours):  # sizes differ by the Received: field's length
            for first in list(side):
                side[re.sub(r" \d+ TIME", " TIME", first)] = side.pop(first)
        assert ours == theirs and len(ours) == len(MAILS)


SHAPES = [["deferred"], ["-s", "deferred"], ["-p", "-m", "1", "deferred"], ["-l", "-b", "4", "-t", "7", "deferred", "hold"],
          ["hold", "incoming"], ["-w", "120", "deferred"]]


def test_qshape(sides):
    for args in SHAPES:
        for side in sides:
            side("postsuper", "-H", "ALL")
        theirs, ours = (side("qshape", *args) for side in sides)
        assert ours[0] == theirs[0] and lines(ours[1]) == lines(theirs[1]), (args, ours, theirs)


def test_postcat(sides):
    """Header and body are the same but for our Received: field; of the envelope the addresses are."""
    def without(text):
        return [l for l in text.splitlines() if not re.match(r"Received:|\t(by|for|id)|\tTh|\t\w{3}, ", l)]

    def addresses(text):
        return [l for l in text.splitlines() if re.match(r"sender|recipient|original_recipient|\*\*\* (ENV|MESS)", l)]
    for args in (["-qh", "$1"], ["-qb", "$1"], ["-qbh", "$0", "$2"]):
        theirs, ours = (side("postcat", *args) for side in sides)
        assert ours[0] == theirs[0] == 0 and without(ours[1]) == without(theirs[1]), args
    theirs, ours = (side("postcat", "-q", "$1") for side in sides)
    assert addresses(ours[1]) == addresses(re.sub(r"(deferred|hold)/./", r"\1/", theirs[1])) and addresses(ours[1])
    theirs, ours = (side("postcat", "-q", "$4") for side in sides)
    assert addresses(ours[1]) == addresses(re.sub(r"(deferred|hold)/./", r"\1/", theirs[1]))
    assert "original_recipient: list@far.example" in addresses(ours[1])
    for args in (["-q", "NOSUCH"], ["-q"]):
        theirs, ours = (side("postcat", *args) for side in sides)
        assert ours == theirs, args
    theirs, ours = (side("postcat", "-qv", "$3") for side in sides)
    assert "regular_text: .dot\n" in ours[1] and "regular_text: .dot\n" in theirs[1]


RECIPE = """mailq | tail -n +2 | grep -v '^ *(' | awk 'BEGIN { RS = "" } { if ($7 == "ben@b.example") print $1 }' |
tr -d '*!' | postsuper -d -"""


def test_the_manuals_recipe(sides):
    """postsuper(1): delete by sender."""
    theirs, ours = sides
    directory = str(ours.product.dir)
    for face in ("mailq", "postsuper"):
        ours(face, "-c", directory)  # makes the command's folder
    env = dict(os.environ, MAIL_CONFIG=directory, PATH=f"{directory}/cmd-mailq:{directory}/cmd-postsuper:{os.environ['PATH']}")
    for side, run in ((theirs, [*AS_ROOT, "env", f"MAIL_CONFIG={theirs.product.dir}/etc", "PATH=/usr/sbin:/usr/bin:/bin"]), (ours, [])):
        r = subprocess.run([*run, "sh", "-c", RECIPE], capture_output=True, text=True, env=env)
        assert r.stderr == f"postsuper: {side.ids[1]}: removed\npostsuper: Deleted: 1 message\n"
        assert side.ids[1] not in side("postqueue", "-j")[1]
