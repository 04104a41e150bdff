"""What aliases(5) stands for becomes what that stands for by virtual(5): Debian's Postfix and Posthouse."""
import re
import subprocess

import pytest

import pair
from kit import Client, FakeRelay, wait_for

RELAY = "127.0.2.6"
ALIASES = """root: ann@alias.test
staff: ann@alias.test, two@alias.test, direct@far.test
owner-staff: boss@alias.test
outer: staff, forward@box.test
back: again@alias.test
last: end@far.test
plain: user@far.test
gone: nosuch@alias.test, direct@far.test
kept: forward+x@box.test
"""
ROWS = """ann@alias.test ann@far.test
two@alias.test ann@far.test, bob@far.test
boss@alias.test boss@far.test
forward@box.test forward@box.test, copy@far.test
again@alias.test last@mta.example
alias.test x
"""
MAIN = f"""virtual_alias_domains = alias.test
virtual_mailbox_domains = box.test
virtual_transport = smtp:[{RELAY}]
relayhost = [{RELAY}]
recipient_delimiter = +
notify_classes =
virtual_alias_maps = hash:{{dir}}/virtual
"""
MAILS = {name: (name, "") for name in ("root", "staff", "outer", "back", "plain", "gone", "kept", "owner-staff")}
MAILS |= {"success": ("root", " NOTIFY=SUCCESS,FAILURE"), "never": ("gone", " NOTIFY=NEVER"),
          "orcpt": ("root", " ORCPT=rfc822;first@x.test"), "success of a list": ("staff", " NOTIFY=SUCCESS")}
SETTINGS = {"as it is": "", "originals": "enable_original_recipient = yes\n",
            "no mappings": "receive_override_options = no_address_mappings\n"}
LINE = re.compile(r"to=<([^>]+)>,(?: orig_to=<[^>]+>,)? relay=(?!local).*? status=(\w+)")


@pytest.fixture
def relay():
    with FakeRelay(RELAY, 25) as r:
        yield r


def flows(mta, relay, settings, master, home):
    """For each mail who had it from whom, and what the log says of each address."""
    relay.sessions.clear()
    (home / "aliases").write_text(ALIASES)
    subprocess.run(["postalias", f"hash:{home}/aliases"], check=True, capture_output=True)
    mta.case(MAIN + f"alias_maps = hash:{home}/aliases\n" + settings, {"virtual": ROWS}, master)
    try:
        for n, (name, params) in enumerate(MAILS.values()):
            with Client(mta.port) as c:
                c.cmd(f"MAIL FROM:<s{n}@src.test>")
                assert c.cmd(f"RCPT TO:<{name}@mta.example>{params}").startswith("250"), name
                c.cmd("DATA")
                assert c.cmd("Subject: x\r\n\r\nhello\r\n.").startswith("250")
            active = lambda what: set(re.findall(rf": (\w+): {what}", mta.new_log()))
            wait_for(lambda n=n: f"from=<s{n}@" in mta.new_log() and active("from=<") == active("removed"))
        log = mta.new_log()
    finally:
        mta.over()
    # A mailing list is one message for each sender here: docs/differences.md, "a line for each message".
    seen = sorted((pair.plain(m["from"]).split(" ORCPT")[0], pair.plain(r)) for m in relay.mails for r in m["rcpts"])
    return seen, sorted(set(LINE.findall(log)))


@pytest.mark.parametrize("name", SETTINGS)
def test_virtual_aliases_of_aliases(name_server, postfix, relay, tmp_path, name):
    tmp_path.chmod(0o755)
    theirs = flows(postfix, relay, SETTINGS[name], "", postfix.dir / "etc")
    ours = flows(pair.Ours(name_server), relay, SETTINGS[name], "local unix - n n - - local\n", tmp_path)
    assert ours == theirs
    assert ("ann@far.test", "sent") in theirs[1] and ("ann@alias.test", "bounced") not in ours[1]
