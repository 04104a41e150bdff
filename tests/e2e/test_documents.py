"""What the documents for administrators tell them to type is typed, on a daemon with mail that waits."""
import re
import shlex

import pytest

from kit import ROOT, Posthouse

PAGES = ["operate.md", "providers.md", "security.md"]
# Commands of the system, which the tests do not give: only that nothing else is told.
OTHERS = {"systemctl", "systemd-analyze", "journalctl", "grep", "df", "du", "sqlite3", "ss"}
FACES = {"postfix", "postqueue", "postsuper", "postcat", "mailq", "qshape", "postconf"}


def commands(page):
    text = (ROOT / "docs" / page).read_text()
    return [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def daemon(dns):
    with Posthouse("relayhost = [127.0.0.1]:9\nsmtp_sasl_security_options = noanonymous\nmydestination =\n"
                   "data_directory = {dir}/data\nqueue_directory = {dir}/spool\n",
                   files={"sasl_password": "host user:password\n"}, dns=dns) as p:
        for sender in ("user@shop.example", "bulk@shop.example"):
            assert p.send(sender=sender).startswith("250")
        p.wait_log("status=deferred", count=2)
        yield p


@pytest.mark.parametrize("page", PAGES)
def test_what_a_document_says_is_typed(daemon, page):
    p = daemon
    lines = commands(page)
    assert lines
    for line in lines:
        words = shlex.split(line.replace("/etc/posthouse", str(p.dir)))
        if words[0] in OTHERS:
            continue
        assert words[0] in FACES | {"posthouse"}, line
        if "ID" in words:
            if not p.queue():  # an order above has ended it
                assert p.send(sender="user@shop.example").startswith("250")
            words[words.index("ID")] = p.queue()[0]["queue_id"]
        if words[1:3] == ["queue", "release"]:
            p.run("queue", "hold", *words[3:])
        r = p.run(*words[1:], face=words[0], stdin="secret\n")
        said = r.stdout + r.stderr
        fine = (0, 1) if words[1] in ("check", "test", "explain") else (0,)
        assert r.returncode in fine and "usage:" not in said, (line, r.returncode, said)
        assert said.strip() or words[1:2] in (["postmap"], ["reload"], ["record"]), line


def test_every_preset_is_in_the_document_on_providers():
    presets = (ROOT / "src/accounts/presets.c").read_text()
    rows = re.findall(r'\{"\w+", "([^"]+)", "(\[[^"]+)", "(\w+)"', presets)
    told = (ROOT / "docs/providers.md").read_text()
    assert len(rows) >= 9
    for name, host, _ in rows:
        assert f"| {name} | `{host}` |" in told, (name, host)
