"""aliases(5): what Debian's local(8) sends on, and what Posthouse does, by the same file of aliases."""
import re
import subprocess

import pytest

import pair
from kit import Client, FakeRelay, wait_for

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
# docs/differences.md: "a list in an alias"
DIFFERENT = {"a list in an alias"}


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
    wait_for(lambda: len(relay.mails) >= EXPECTED, 30)
    wait_for(lambda: mta.new_log().count(": removed") >= EXPECTED + len(MAILS), 30)
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
    assert (ours[what] == theirs[what]) == (what not in DIFFERENT)


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
    inner = re.compile("^(outer|team)@")  # which is named twice, as a list in an alias is
    assert [line for line in theirs if not inner.match(line)] == [line for line in ours if not inner.match(line)]
