"""What mailbox servers say by LMTP (RFC 2033) and what becomes of each recipient, in Debian's Postfix and in Posthouse."""
import pathlib
import shutil
import tempfile

import pytest

import pair
from kit import Client, FakeRelay, wait_for


def of(**said):
    """A reply for the recipients whose local part is named, the server's own for the others; "" ends the connection."""
    return lambda line: next((text for name, text in said.items() if f"<{name}@" in line), None)


CASES = {
    "all-saved": {},
    "no-pipelining": {"pipelining": False},
    "no-extensions": {"EHLO": "250 box"},
    "one-refused": {"RCPT": of(bob="550 5.1.1 no such mailbox")},
    "one-later": {"RCPT": of(ann="450 4.2.1 being moved")},
    "all-refused": {"RCPT": "550 5.1.1 no such mailbox"},
    "all-refused-354": {"RCPT": "550 5.1.1 no such mailbox", "DATA": "354 go"},
    "each-its-own": {"DOT": of(ann="552 5.2.2 full", bob="451 4.2.0 later", cat="250 2.1.5 saved in box cat")},
    "refused-then-each": {"RCPT": of(bob="551 5.1.6 moved away"), "DOT": of(ann="554 5.6.0 no", cat="250 saved")},
    "several-lines": {"DOT": of(bob="554-5.7.1 a rule\r\n554 5.7.1 of bob's")},
    "ends-in-the-middle": {"DOT": of(bob="")},
    "ends-at-the-first": {"DOT": of(ann="")},
    "ends-after-421": {"DOT": of(bob="421 4.3.2 going down")},
    "later-all": {"DOT": "452 4.3.1 disk full"},
    "no-mail": {"MAIL": "550 5.7.1 not you"},
    "mail-later": {"MAIL": "451 4.7.1 later"},
    "no-data": {"DATA": "554 5.3.0 no"},
    "data-later": {"DATA": "451 4.3.0 later"},
    "no-lhlo": {"EHLO": "500 5.5.1 what"},
    "lhlo-later": {"EHLO": "421 4.3.2 later"},
    "greets-with-no": {"GREETING": "554 5.7.1 no service"},
    "greets-later": {"GREETING": "421 4.3.2 not now"},
    "ends-at-once": {"GREETING": ""},
}
RCPTS = ("ann", "bob", "cat")
MAIN = """mydestination =
relayhost = [127.0.0.1]:9
notify_classes =
transport_maps = inline:{{ {rows} }}
"""


class Boxes:
    """A server for each case, on a socket and on a port."""

    def __init__(self):
        self.dir, self.servers = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-boxes-")), {}
        self.dir.chmod(0o755)
        for name, how in CASES.items():
            replies = {stage: text for stage, text in how.items() if stage.isupper()}
            for kind, path in (("u", self.dir / name), ("i", None)):
                self.servers[f"{kind}-{name}"] = FakeRelay(lmtp=True, path=path, replies=replies, name="box",
                                                           pipelining=how.get("pipelining", True))

    def rows(self):
        return ", ".join(f"{{{{{name}.test = lmtp:{self.hop(s)}}}}}" for name, s in self.servers.items())

    @staticmethod
    def hop(server):
        return f"unix:{server.sock.getsockname()}" if server.port is None else f"inet:[127.0.0.1]:{server.port}"

    def saved(self):
        """Of each case: who got mail, from whom, and what was said before it; then nothing of it."""
        seen = {}
        for name, s in self.servers.items():
            commands = {tuple(pair.plain(c) for c in x.commands if c not in ("QUIT", "RSET")) for x in s.sessions if x.commands}
            seen[name] = sorted(pair.plain(m["rcpts"][0]) for m in s.mails), commands
            s.sessions.clear()
        return seen

    def stop(self):
        for s in self.servers.values():
            s.stop()
        shutil.rmtree(self.dir)


@pytest.fixture(scope="module")
def both(name_server, postfix):
    boxes, said = Boxes(), []
    for mta in (postfix, pair.Ours(name_server)):
        mta.case(MAIN.replace("{rows}", boxes.rows()), {}, "lmtp unix - - n - - lmtp\n")
        try:
            for name in boxes.servers:
                with Client(mta.port) as c:
                    assert c.mail("x@from.test", [f"{r}@{name}.test" for r in RCPTS], "Subject: x\r\n\r\n.\r\n").startswith("250")
            found = lambda: [o for o in pair.outcomes(mta.new_log()) if not o[0].endswith("from.test")]
            wait_for(lambda: len(found()) == len(RCPTS) * len(boxes.servers))
            outcomes = {name: sorted(o for o in found() if o[0].endswith(f"@{name}.test")) for name in boxes.servers}
        finally:
            mta.over()
        said.append((outcomes, boxes.saved()))
    yield said
    boxes.stop()


@pytest.mark.parametrize("name", [f"{kind}-{name}" for kind in "ui" for name in CASES])
def test_replies_of_a_mailbox_server(both, name):
    (theirs, their_mail), (ours, our_mail) = both
    if name[2:] == "no-lhlo":  # docs/differences.md: "refuses HELO by 5xx (LHLO, too)"
        theirs[name] = [(*o[:2], "4.5.1", "deferred", o[4]) for o in theirs[name]]
    assert ours[name] == theirs[name]
    assert our_mail[name] == their_mail[name]
    assert name[2:] != "all-saved" or len(our_mail[name][0]) == len(RCPTS)
