"""Which recipients there are: local_recipient_maps, relay_recipient_maps, virtual_mailbox_maps, in Debian's Postfix and in Posthouse."""
import pytest

import pair
from kit import Client

MAIN = """mydestination = own.test
relay_domains = rel.test
virtual_mailbox_domains = box.test
virtual_alias_domains = alias.test
virtual_alias_maps =
virtual_transport = smtp:[127.0.0.1]:9
local_transport = smtp:[127.0.0.1]:9
relayhost = [127.0.0.1]:9
recipient_delimiter = +-
alias_maps =
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 10000
local_recipient_maps = inline:{{ann=x}, {joe@own.test=x}, {Cat=x}}
relay_recipient_maps = inline:{{ann@rel.test=x}, {joe+list@rel.test=x}}
virtual_mailbox_maps = inline:{{ann@box.test=box.test/ann/}, {owner-x@box.test=x}}
"""
BROKEN = "fail:it"
OVERRIDES = {
    "as main.cf": [],
    "every one": ["relay_recipient_maps = inline:{@rel.test=x}", "virtual_mailbox_maps = static:x", "local_recipient_maps ="],
    "none is refused": ["smtpd_reject_unlisted_recipient = no"],
    "no checks": ["receive_override_options = no_header_body_checks, no_unknown_recipient_checks"],
    "in its place": ["smtpd_recipient_restrictions = reject_unlisted_recipient, reject_unauth_destination, reject"],
    "warned of": ["smtpd_recipient_restrictions = warn_if_reject reject_unlisted_recipient, permit"],
    "not said which": ["show_user_unknown_table_name = no"],
    "other codes": ["unknown_relay_recipient_reject_code = 450", "unknown_local_recipient_reject_code = 551",
                    "unknown_virtual_mailbox_reject_code = 553"],
    "no code": ["unknown_relay_recipient_reject_code = 250"],
    "out of order": [f"relay_recipient_maps = {BROKEN}", f"local_recipient_maps = {BROKEN}"],
    "at DATA": ["smtpd_reject_unlisted_recipient = no", "smtpd_data_restrictions = reject_unlisted_recipient"],
    "users": ["local_recipient_maps = unix:passwd.byname", "relay_recipient_maps = unix:group.byname"],
    "refused before": ["smtpd_recipient_restrictions = reject_unlisted_recipient", "smtpd_sender_restrictions = reject"]}
LOCALS = ["ann", "ANN", "ann+x", "ann-x", "nobody", "root", "cat", "joe", "joe+list", "joe+other", "owner-x", "postmaster", "Postmaster+x",
          "mailer-daemon", "bin", '"ann"', "none"]
DOMAINS = ["own.test", "rel.test", "Rel.Test", "box.test", "alias.test", "far.test"]


def replies(port):
    """Of one session: each recipient alone; of some also whether their mail may come."""
    said = {}
    with Client(port, ehlo="c.test") as c:
        for address in [f"{local}@{domain}" for domain in DOMAINS for local in LOCALS]:
            c.cmd("MAIL FROM:<s@x.test>")
            said[address] = c.cmd(f"RCPT TO:<{address}>")
            if address.startswith(("ann@", "none@")) and said[address][:3] == "250":
                said["DATA for " + address] = data = c.cmd("DATA")
                if data[:3] == "354":
                    c.cmd(".")
            c.cmd("RSET")
    return said


@pytest.fixture(scope="module")
def both(name_server, postfix):
    said = []
    for mta in (postfix, pair.Ours(name_server)):
        with pair.services(mta, MAIN.replace("{", "{{").replace("}", "}}"), list(OVERRIDES.values())) as ports:
            said.append({name: replies(port) for port, name in zip(ports, OVERRIDES)})
    return said


@pytest.mark.parametrize("name", OVERRIDES)
def test_recipients_that_tables_do_not_name(both, name):
    theirs, ours = (side[name] for side in both)
    assert ours == theirs
    assert len(set(theirs.values())) > {"none is refused": 1, "no checks": 1, "refused before": 0}.get(name, 2)
