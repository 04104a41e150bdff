"""aliases(5): what Debian's local(8) sends on, and what Posthouse does, by the same file of aliases."""
import os
import random
import re
import subprocess

import pytest

import pair
from kit import Client, FakeRelay, wait_for

SEED = int(os.environ.get("ALIAS_SEED", "11"))
ALIASES = """hostmaster: Webmaster
WEBMASTER: wm@far.test
duo: a@far.test, b@far.test,A@FAR.test
  wm@far.test c@far.test
team: duo, "d d"@far.test, Eve (of sales) <eve@far.test>
owner-team: lead@far.test
outer: team, f@far.test
round: about, g@far.test, about
about: h@far.test
full+ext: i@far.test
full: j@far.test
"two words": k@far.test
mixed: Webmaster@MTA.example, l@far.test
spaces  :   m@far.test   ,   ,  n@far.test
dots: o.p@far.test, q@far.test.
literal: r@[127.0.0.9]
"""
# Name, parameters of MAIL and of RCPT, fields of the header section.
MAILS = {
    "a name in a name": ("hostmaster", "", "", ""),
    "other case": ("HostMaster", "", "", ""),
    "the same in other case": ("duo", "", "", ""),
    "an owner": ("team", "", "", ""),
    "an owner and a report": ("team", "RET=HDRS ENVID=e1", "NOTIFY=SUCCESS,DELAY", ""),
    "a null sender": ("team", "<>", "", ""),
    "a list in an alias": ("outer", "", "", ""),
    "named twice": ("round", "", "", ""),
    "an extension of its own": ("full+ext", "", "", ""),
    "an extension": ("full+other", "", "", ""),
    "a quoted name": ('"Two words"', "", "", ""),
    "an own address": ("mixed", "", "", ""),
    "blanks": ("spaces", "", "", ""),
    "dots": ("dots", "", "", ""),
    "a literal": ("literal", "", "", ""),
    "success": ("webmaster", "ENVID=e2", "NOTIFY=SUCCESS ORCPT=rfc822;first@x.test", ""),
    "success and failure": ("duo", "RET=FULL", "NOTIFY=FAILURE,SUCCESS", ""),
    "never": ("about", "", "NOTIFY=NEVER", ""),
    "failure": ("about", "", "NOTIFY=FAILURE", ""),
    "the owner": ("owner-team", "", "", ""),
    "delivered already": ("about", "", "", "Delivered-To: About@mta.example\r\n"),
    "delivered elsewhere": ("about", "", "", "Delivered-To: about@other.test\r\n"),
}


def words(line):
    """MAIL or RCPT with its parameters in one order; docs/differences.md: "an ORCPT that repeats the recipient"."""
    line = re.sub(r" (SIZE=\d+|BODY=\S+)", "", line)
    verb, path, params = re.fullmatch(r"(\w+ \w+:)<(.*?)>(.*)", line).groups()
    own = "ORCPT=rfc822;" + path.replace('"', "").replace(" ", "+20")
    return " ".join([verb, path, *sorted(w for w in params.split() if w.replace('"', "") != own)])


def fields(content):
    """What is before the fields that came in, and the report's fields where it is one."""
    text = content.decode()
    head = re.sub(r"id \w+; .*", "id X", text.split("Received: from")[0].replace("(Posthouse)", "(Postfix)"))
    report = re.findall(r"^(?:Action|Status|Final-Recipient|Original-Recipient|Diagnostic-Code): .*", text, re.M)
    return (tuple(report),) if report else (head, text.split("\r\n\r\n", 1)[1])


def run(mta, relay, directory, aliases, master):
    relay.sessions.clear()
    relay.mails.clear()
    (directory / "aliases").write_text(ALIASES)
    aliases(directory)
    mta.case(f"relayhost = [127.0.0.1]:{relay.port}\nalias_maps = hash:{directory}/aliases\nrecipient_delimiter = +\n"
             "notify_classes =\n", {}, master)
    for n, (name, params, rcpt, head) in enumerate(MAILS.values()):
        sender = "<>" if params == "<>" else f"<s{n}@src.test> {params}".strip()
        with Client(mta.port) as c:
            c.cmd("EHLO client.test")
            assert c.cmd(f"MAIL FROM:{sender}").startswith("250")
            assert c.cmd(f"RCPT TO:<{name}@mta.example> {rcpt}".strip()).startswith("250"), name
            c.cmd("DATA")
            head += f"X-Case: case-{n}-\r\nFrom: s@src.test\r\nDate: x\r\nMessage-Id: <m{n}@x>"
            assert c.cmd(f"{head}\r\n\r\nbody\r\n.").startswith("250")
    wait_for(lambda: len(relay.mails) >= EXPECTED)
    wait_for(lambda: mta.new_log().count(": removed") >= EXPECTED + len(MAILS))
    seen = {what: sorted((words(m["from"]), sorted(words(r) for r in m["rcpts"]), *fields(m["content"])) for m in relay.mails
                         if f"case-{n}-".encode() in m["content"]) for n, what in enumerate(MAILS)}
    log = sorted(re.sub(r"forwarded as \w+", "forwarded", " ".join(line)) for line in re.findall(
        r"to=<([^>]*@mta\.example)>.* relay=(local), .*(dsn=.*)", mta.new_log()))
    return seen, log


# One for each mail, and reports: of success three, of failure one instead of a mail; the list in an alias is two mails.
EXPECTED = len(MAILS) + 1 + 3


@pytest.fixture(scope="module")
def both(name_server, postfix, tmp_path_factory):
    d = tmp_path_factory.mktemp("ours")
    d.chmod(0o755)
    relay, ours = FakeRelay(), pair.Ours(name_server)
    seen = []
    for mta, master in ((postfix, ""), (ours, "local unix - n n - - local\n")):
        home = postfix.dir / "etc" if mta is postfix else d

        def aliases(directory, mta=mta):
            subprocess.run(["postalias", f"hash:{directory}/aliases"], check=True, capture_output=True)
        seen.append(run(mta, relay, home, aliases, master))
        mta.over()
    yield seen
    relay.stop()


@pytest.mark.parametrize("what", MAILS)
def test_aliases_like_postfix(both, what):
    (theirs, _), (ours, _) = both
    assert theirs[what]
    assert ours[what] == theirs[what]


EXTENSIONS = """full: j@far.test, inner, k+z@far.test
inner: i@far.test
full+own: o@far.test
dash-request: dr@far.test
dash: d@far.test
owner-dash: od@far.test
"""


def test_extensions_like_postfix(name_server, postfix, tmp_path):
    """What an alias leaves of a name is given to its addresses if that is asked for; names that only look so are whole."""
    tmp_path.chmod(0o755)
    (tmp_path / "aliases").write_text(EXTENSIONS)
    subprocess.run(["postalias", f"hash:{tmp_path}/aliases"], check=True)
    relay, said = FakeRelay(), []
    for mta, master in ((postfix, ""), (pair.Ours(name_server), "local unix - n n - - local\n")):
        mta.case(f"relayhost = [127.0.0.1]:{relay.port}\nalias_maps = hash:{tmp_path}/aliases\nrecipient_delimiter = +-\n"
                 "propagate_unmatched_extensions = alias\nprepend_delivered_header = command\n", {}, master)
        seen = {}
        for n, name in enumerate(("full+ext", "full-e-x", "full+own", "full", "dash-request", "dash-other", "owner-dash", "inner+a+b")):
            with Client(mta.port) as c:
                c.mail("s@src.test", [f"{name}@mta.example"], content=f"X-Case: {len(said)}-{n}-\r\n\r\nbody\r\n")
            m = relay.wait_mail(f"{len(said)}-{n}-".encode())
            seen[name] = words(m["from"]), sorted(r.split()[1] for r in m["rcpts"]), m["content"].count(b"Delivered-To")
        said.append(seen)
        mta.over()
    relay.stop()
    assert said[0] == said[1] and said[0]["full+ext"][1] == ["TO:<i+ext@far.test>", "TO:<j+ext@far.test>", "TO:<k+z+ext@far.test>"]


def test_log_like_postfix(both):
    (_, theirs), (_, ours) = both
    theirs.remove(next(line for line in theirs if line.startswith("outer@")))  # docs/differences.md: "a line for each message"
    assert theirs == ours


SHAPES = {
    "a member of two lists": "0: 1, 2\n1: x\n2: x, y\nowner-1: o\nowner-2: o\n",
    "a member and his list": "0: x, 1\n1: x, y\nowner-1: o\n",
    "a list and its member": "0: 1, x\n1: x, y\nowner-1: o\n",
    "both have owners": "0: x, 1, z\n1: x, y, z\nowner-0: o\nowner-1: o\n",
    "three deep, one without": "0: 1, x\n1: 2, y\n2: z\nowner-0: o\nowner-2: o\n",
    "lists that name each other": "0: 1, x\n1: 0, y\nowner-0: o\nowner-1: o\n",
    "an owner on one side of a ring": "0: 1, x\n1: 0, y\nowner-1: o\n",
    "an owner at the beginning of a ring": "0: 1, x\n1: 0, y\nowner-0: o\n",
    "an owner that is an alias": "0: x\nowner-0: 1\n1: o\n",
    "an owner that is a list": "0: owner-1, x\n1: y\nowner-1: 2\n2: z\nowner-2: o\n",
    "an owner's owner": "owner-0: o\n0: 1\n1: x, owner-1\nowner-1: o\nowner-owner-1: o\n",
    "the sender is a member": "0: 1, s\n1: s, x\nowner-1: o\n",
    "five lists that name each other": "".join(f"{n}: 0, 1, 2, 3, 4, m{n}\n".replace(f" {n},", "") + f"owner-{n}: o\n" for n in range(5)),
    "an extension": "0: 1+e, x\n1: y\nowner-1: o\n",
    "an extension in a ring": "0: 1+e, x\n1: 0+f, y\nowner-1: o\n",
    "an alias of its own with an extension": "0: 0+e, x\n0+e: y\nowner-0+e: o\n",
}


def random_shape(rnd):
    """Some names that stand for some of the others and for some addresses, some of them with an owner."""
    n, text = rnd.randint(2, 6), ""
    for i in range(n):
        others = [str(k) for k in range(n) if k != i and (k > i or rnd.random() < 0.3)]
        parts = rnd.sample(others, rnd.randint(0, min(3, len(others)))) + rnd.sample("tuvwxyz", rnd.randint(1, 3))
        rnd.shuffle(parts)
        text += f"{i}: {', '.join(parts)}\n"
        if rnd.random() < 0.5:
            text += f"owner-{i}: o\n"
    return text


def of_shape(n, text):
    """The lines of a table in which the names of each shape are its own."""
    text = re.sub(r"\b([s-z]|m\d|o)\b", rf"\g<1>{n}@far.test", text)
    return re.sub(r"(?m)(^|[ -])(\d)", rf"\g<1>n{n}x\2", text)


@pytest.mark.parametrize("more,count", [("", 60), ("owner_request_special = no\n", 10)])
def test_shapes_like_postfix(tmp_path, more, count):
    """Lists in lists, drawn and at random: what goes on, and who is its sender."""
    rnd = random.Random(SEED)
    shapes = {**SHAPES, **{f"{i} of {SEED}": random_shape(rnd) for i in range(count)}}
    tmp_path.chmod(0o755)
    (tmp_path / "aliases").write_text("".join(of_shape(n, text) for n, text in enumerate(shapes.values())))
    subprocess.run(["postalias", f"hash:{tmp_path}/aliases"], check=True)
    dns, relay, said = pair.NameServer(tmp_path, []), FakeRelay(), []
    postfix = pair.Postfix(dns)
    for mta, master in ((postfix, ""), (pair.Ours(dns), "local unix - n n - - local\n")):
        relay.sessions.clear()
        relay.mails.clear()
        mta.case(f"relayhost = [127.0.0.1]:{relay.port}\nalias_maps = hash:{tmp_path}/aliases\nrecipient_delimiter = +\n"
                 f"notify_classes =\nsmtp_destination_recipient_limit = 1000\n{more}", {}, master)
        for n in range(len(shapes)):
            with Client(mta.port) as c:
                assert c.mail(f"s{n}@far.test", [f"n{n}x0@mta.example"], content=f"X-Case: case-{n}-\r\n\r\nbody\r\n").startswith("250")

        def idle(mta=mta):
            log = mta.new_log()
            ids = set(re.findall(r"(?:qmgr|queue)\S*: (\w+): from=<", log))
            return len(re.findall("forwarded as", log)) >= len(shapes) and all(f"{i}: removed" in log for i in ids)
        wait_for(idle)
        said.append({what: sorted((m["from"].split()[1], r.split()[1]) for m in relay.mails for r in m["rcpts"]
                                  if f"case-{n}-".encode() in m["content"] and "<>" not in m["from"])
                     for n, what in enumerate(shapes.values())})
        mta.over()
    for x in (postfix, dns, relay):
        x.stop()
    for what in shapes.values():
        assert said[1][what] == said[0][what], what
