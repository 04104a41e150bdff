"""Which domains are this system's own: a leading dot asks for subdomains in relay_domains alone, as with Debian's Postfix."""
import pytest

import pair
from kit import Client, Listener
from test_restrictions import AUTH, dovecot

MAIN = """relayhost = [127.0.0.1]:9
local_transport = smtp:[127.0.0.1]:9
virtual_transport = smtp:[127.0.0.1]:9
mynetworks = 10.0.0.1
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_junk_command_limit = 1000
smtpd_relay_restrictions = reject_unauth_destination
smtpd_sender_restrictions = reject_sender_login_mismatch
smtpd_sender_login_maps = inline:{{ carla=carla, @free.test=carla }}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
mydestination = mta.example, .my.test, whole.test, inline:{{ .table.test=x, key.test=x }}
virtual_mailbox_domains = .box.test, inline:{{ .boxes.test=x, one.boxes.test=x }}
virtual_alias_domains = alias.test, .alias.test
relay_domains = .rel.test, inline:{{ .rels.test=x }}
"""
DOMAINS = [f"{sub}{domain}.test" for domain in ("my", "whole", "table", "key", "box", "boxes", "alias", "rel", "rels") for sub in
           ("", "sub.", "a.sub.")] + ["one.boxes.test", "x.one.boxes.test", "mta.example", "x.mta.example"]


def said_to(port, domains=DOMAINS):
    with Client(port, ehlo="c.test") as c:
        assert c.cmd(AUTH)[:3] == "235"
        said = {}
        for domain in domains:
            c.cmd("MAIL FROM:<s@free.test>")
            said["to", domain] = c.cmd(f"RCPT TO:<u@{domain}>")
            c.cmd("RSET")
            c.cmd(f"MAIL FROM:<carla@{domain}>")
            said["from", domain] = c.cmd("RCPT TO:<u@mta.example>")
            c.cmd("RSET")
    return said


def said_by_both(name_server, postfix, main, *domains):
    service, said = Listener(dovecot), []
    for mta in (postfix, pair.Ours(name_server)):
        mta.case(main + f"smtpd_sasl_path = inet:127.0.0.1:{service.port}\n", {}, "")
        try:
            said.append(said_to(mta.port, *domains))
        finally:
            mta.over()
    service.stop()
    return said


@pytest.fixture(scope="module")
def both(name_server, postfix):
    return said_by_both(name_server, postfix, MAIN)


@pytest.mark.parametrize("way", ["to", "from"])
def test_own_domains_like_postfix(both, way):
    theirs, ours = ({key: said for key, said in side.items() if key[0] == way} for side in both)
    assert ours == theirs
    assert {said[:3] for said in theirs.values()} == ({"250", "554", "550"} if way == "to" else {"250", "553"})


def test_domains_of_mailboxes_that_no_list_names(name_server, postfix):
    """Without virtual_mailbox_domains the keys of virtual_mailbox_maps count."""
    main = "".join(line for line in MAIN.splitlines(True) if not line.startswith("virtual_mailbox_domains"))
    main += ("virtual_mailbox_maps = inline:{{ maps.test=x, u@maps.test=y, carla@maps.test=z, u@other.test=y }}\n"
             "accept_unimplemented = virtual_mailbox_maps\n")
    theirs, ours = said_by_both(name_server, postfix, main, ["maps.test", "sub.maps.test", "other.test"])
    assert ours == theirs
    assert [ours["to", f"{name}.test"][:3] for name in ("maps", "other")] == ["250", "554"]
