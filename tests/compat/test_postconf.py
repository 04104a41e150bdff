"""postconf -e, -X and -#: main.cf afterwards, exit status and standard output, beside Debian's."""
import os
import re
import shutil
import sys
import subprocess

import pytest

import pair
from kit import BUILD

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "e2e"))
import test_unread  # noqa: E402

MAIN = """# head comment
a_one = 1
relayhost = [x]:25
# in between
mynetworks = 127.0.0.0/8
# inside

   10.0.0.0/8
   # a comment that continues nothing
\t192.168.0.0/16
# after
relayhost = second
  continued
maillog_file=/x
$odd = 1
x_y = 1
 z
"""

CASES = [
    ["-e", "relayhost=[new]:587"],
    ["-e", "relayhost=[new]:587", "mynetworks = 1.2.3.4/32", "fresh_one=  spaced value  "],
    ["-e", "empty_one ="],
    ["-e", "a_one = one", "a_one = two"],
    ["-e", "x_y = a=b # no comment"],
    ["-e", "=5"], ["-e", "word"], ["-e", "two words=1"], ["-e"], ["-e", "x_a = 1\nx_b = 2"], ["-e", "#x = 1"],
    ["-X", "relayhost"], ["-X", "mynetworks", "x_y"], ["-X", "nothing_there"], ["-X", "a=b"], ["-X"],
    ["-#", "relayhost"], ["-#", "mynetworks", "x_y"], ["-#", "a=b"],
    ["relayhost=plain", "x_y=2"],
    ["-e", "-X", "relayhost"], ["-e", "-n", "relayhost=1"],
    ["-e", "maillog_file = $x_y/log", "a_one=\t1"],
    ["relayhost", "-X"], ["relayhost", "-#"],
]


def run(command, where, args):
    where.mkdir()
    (where / "main.cf").write_text(MAIN)
    (where / "main.cf").chmod(0o640)
    (where / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    r = subprocess.run([*command, "-c", where, *args], capture_output=True, text=True)
    return (where / "main.cf").read_text().replace("= \n", "=\n"), bool(r.returncode), r.stdout, sorted(os.listdir(where))


@pytest.mark.parametrize("args", CASES, ids=lambda a: " ".join(a)[:50].replace("\n", "|"))
def test_postconf_edits_like_postfix(tmp_path, args):
    face = tmp_path / "postconf"
    face.symlink_to(BUILD / "src" / "posthouse")
    ours = run([face], tmp_path / "ours", args)
    theirs = run([shutil.which("postconf", path="/usr/sbin:/usr/bin")], tmp_path / "theirs", args)
    assert ours == theirs
    # Postfix makes the file anew, readable by everybody.
    assert (tmp_path / "ours" / "main.cf").stat().st_mode & 0o777 == 0o640


def test_every_parameter_of_this_postfix_has_its_verdict():
    out = subprocess.run([*pair.INSIDE, "postconf", "-d"], capture_output=True, text=True, check=True).stdout
    rows = dict(re.findall(r"^([\w-]+) =[ ]*(.*)$", out, re.M))
    assert len(rows) > 900 and test_unread.without_verdict(rows) == []
    refused = {name: idle.split("|") for kind, name, idle, *_ in test_unread.table() if kind == "refused" and name in rows}
    assert {name: rows[name] for name, idle in refused.items() if rows[name] not in idle} == {}
    if pair.VERSION >= (3, 10):
        assert {name: rows[name] for name in test_unread.LATER} == test_unread.LATER


def test_two_edits_at_once_lose_none(tmp_path):
    face = tmp_path / "postconf"
    face.symlink_to(BUILD / "src" / "posthouse")
    (tmp_path / "main.cf").write_text("relayhost =\n")
    link = tmp_path / "link"
    link.mkdir()
    (link / "main.cf").symlink_to("../main.cf")
    runs = [subprocess.Popen([face, "-c", link if i % 2 else tmp_path, "-e", f"x_{i} = {i}"]) for i in range(20)]
    assert [r.wait(60) for r in runs] == [0] * 20
    assert sorted((tmp_path / "main.cf").read_text().split()) == sorted("relayhost =".split() + [
        word for i in range(20) for word in (f"x_{i}", "=", str(i))])
    assert (link / "main.cf").is_symlink()


def networks(command, folder):
    """What mynetworks is by default, but for what it has of 127.0.0.0/8; None: it refuses the configuration."""
    run = subprocess.run([*command, "-c", str(folder), "-hx", "mynetworks"], capture_output=True, text=True)
    return None if run.returncode else set(run.stdout.split()) - {"127.0.0.0/8", "127.0.0.1/32"}


def test_trusted_networks_are_those_of_the_interfaces_that_are_served(tmp_path):
    """A network of an interface that inet_interfaces leaves out, or of a family that inet_protocols leaves out, is not trusted."""
    face = tmp_path / "postconf"
    face.symlink_to(BUILD / "src" / "posthouse")
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")

    def both(interfaces, protocols, style):
        (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\ninet_interfaces = {interfaces}\ninet_protocols = {protocols}\n"
                                          f"style = {style}\nmynetworks_style = $style\n")
        return networks([*pair.INSIDE, "postconf"], tmp_path), networks([face], tmp_path)

    own = [word.rpartition("/")[0].strip("[]") for word in both("all", "all", "host")[0] if "fe80" not in word]
    served = ["all", "loopback-only", "$first, [::1]\nfirst = localhost", *own]
    cases = [(i, "all", "subnet") for i in served] + [("all", p, s) for p in ("all", "ipv4") for s in ("host", "subnet", "class")]
    said = {case: both(*case) for case in cases}
    assert {case: two for case, two in said.items() if two[0] != two[1]} == {}


EXPANDED = ["1${aa?{ 9 }}2", "1${aa? { 9 } : { 8 } }2", "1${zz:{ 9 }}2", "1${aa? 9 }2", "1${zz?{9}: 8 }2", "1${zz?{9} : { 8 }}2",
            "1${aa?{ }}2",
            "1${{a}=={a} ? { 9 } : { 8 }}2", "1${{ a}=={a }?{ 9 }:{ 8 }}2", "1${{ 1 }=={1}?{y}:{n}}2", "1${{10 }<{9}?{y}:{n}}2",
            "1${{a}\t==\t{a}}2", "${aa?{ 9 }}", "1${aa\t?{ y}}2", "a.example${aa?{ $aa}}, b.example"]


def test_blanks_between_braces_stay(tmp_path):
    """A list that goes on between braces ("${more?{ $more}}") is not grown together with the word before it."""
    face = tmp_path / "postconf"
    face.symlink_to(BUILD / "src" / "posthouse")
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    for text in EXPANDED:
        (tmp_path / "main.cf").write_text(f"myhostname = h.example\naa = x\nrelay_domains = {text}\n")
        ours, theirs = (subprocess.run([command, "-c", tmp_path, "-xh", "relay_domains"], capture_output=True, text=True, check=True).stdout
                        for command in (face, shutil.which("postconf", path="/usr/sbin:/usr/bin")))
        assert ours == theirs and ours.strip(), text
