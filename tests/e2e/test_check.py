"""posthouse check: what stands in tables and files, and would make mail wait or send a password astray."""
import os
import re
import shutil
import socket
import subprocess

import pytest

from kit import BUILD, FakeRelay, Posthouse, free_port, make_cert, owner

LOGIN = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\nsmtp_tls_security_level = encrypt\n"


def check(tmp_path, main, files=None, raw=None):
    """(exit status, what it prints)"""
    p = Posthouse(main, directory=tmp_path, files=files)
    for name, data in (raw or {}).items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    r = p.run("check")
    return r.returncode, r.stdout


def rows(tmp_path, main, key, value="u:p\n"):
    return check(tmp_path, LOGIN + main + "smtp_sasl_password_maps = texthash:{dir}/sasl\n",
        raw={"sasl": key + b" " + value.encode() + b"\n"})


@pytest.mark.parametrize("relayhost,key,near", [
    ("[relay.example]:587", b"relay.example:587", "has no brackets, and the relay host has"),
    ("relay.example:587", b"[Relay.Example]:587", "has brackets, and the relay host has none"),
    ("[relay.example]:2525", b"[relay.example]:587", "has another port than the relay host"),
    ("[relay.example]:2525", b"[relay.example]", "has another port than the relay host"),
    ("[relay.example]:587", b"\xef\xbb\xbf[relay.example]:587", "begins with a byte order mark, which is part of the key"),
    ("[relay.example]:587", b"[relay.example.]:587", "is written in another way"),
    ("[relay.example]:587", b"[relay.example", "has no brackets, and the relay host has"),
    ("[relay.example]:587", b"smtp:[relay.example]:587", "begins with a transport, which is no part of the key"),
    ("relay.example:587", b"office:relay.example:587", "begins with a transport, which is no part of the key"),
    ("[relay.example]:587", b"[realy.example]:587", "looks like a slip of the pen"),
    ("[relay.example]:587", b"[relay.exmple]:25", "looks like a slip of the pen"),
    ("[relay.example]:587", b"ann@x.example", "is a sender's key: it is asked with smtp_sender_dependent_authentication = yes"),
    ("[relay.example]:587", b"@x.example", "is a sender's key"),
    ("[relay.example]:587", b"[other.example]:587", None)])
def test_the_credential_that_was_meant(tmp_path, relayhost, key, near):
    """Where no key fits a relay host, the row that was meant for it is named, and what is wrong with it."""
    rc, said = rows(tmp_path, f"relayhost = {relayhost}\n", key, "user:open-sesame")
    line = next(x for x in said.splitlines() if "no credential in" in x)
    assert relayhost in line and rc == 1 and "open-sesame" not in said
    assert (near in line and "the table has" in line) if near else "the table has" not in line


@pytest.mark.parametrize("relayhost, record, near", [
    ("[relay.example]:submission", "[relay.example]:587", True),
    ("[relay.example]", "[relay.example]:25", True),
    ("relay.example:587", "[relay.example]:587", True),
    ("[a.example]:587 [b.example]:587", "[a.example]:587, [b.example]:587", True),
    ("[Relay.Example]:587", "[relay.example]:587", False),  # found: one text
    ("[relay.example]:25", "[relay.example]:587", False),  # two doors of one host may both be meant
    ("[a.example]:587, [b.example]:587", "[a.example]:587", False),
    ("[other.example]:587", "[relay.example]:587", False)])
@pytest.mark.parametrize("table", [False, True])
def test_the_relay_record_that_was_meant(tmp_path, relayhost, record, near, table):
    """A next hop that is a record's but for its spelling is named: mail would go there without the record's login."""
    main = "sender_dependent_relayhost_maps = texthash:{dir}/hosts\n" if table else f"relayhost = {relayhost}\n"
    p = Posthouse(main + "relays_database = {dir}/relays.db\nrelays_key_file = {dir}/relays.key\n", directory=tmp_path,
                  files={"hosts": f"@x.example {relayhost}\n"})
    p.run("record", "set", "office", f"hosts={record}", "tls=encrypt", "user=u", "password", stdin="open-sesame\n", check=True)
    said = p.run("check").stdout
    lines = [x for x in said.splitlines() if 'the relay record "office" is for' in x]
    assert len(lines) == near and "open-sesame" not in said, said
    assert not near or (f"{'sender_dependent_relayhost_maps' if table else 'relayhost'}: the next hop {relayhost}: " in lines[0])


def test_a_key_of_an_exchanger_is_no_mistake(tmp_path):
    """Without brackets the exchangers' names are asked too: a note, and the exit status of a clean configuration."""
    rc, said = rows(tmp_path, "relayhost = relay.example:587\n", b"mx1.relay.example")
    assert rc == 0 and "and, at delivery, the names of its MX hosts" in said


@pytest.mark.parametrize("key,value,what", [
    (b"[relay.example]", "user sesame", "no user:password"), (b"[relay.example]", "user:", "the password is empty"),
    (b"[relay.example]", ":sesame",
    "the user's name is empty"), (b"\xef\xbb\xbf[second.example]", "u:sesame", "the key begins with a byte order mark"),
    (b"[relay.example]", "u:sesame:with:colons", None), (b"[relay.example]", "u: sesame", None)])
def test_rows_of_credentials(tmp_path, key, value, what):
    rc, said = rows(tmp_path, "relayhost = [relay.example]\n", key, value)
    assert "sesame" not in said
    assert (f"{what}" in said and rc == 1) if what else ("the row of" not in said and rc == 0), said


@pytest.mark.parametrize("table,text,said", [
    ("texthash:{dir}/own", "[relay.example] sesame\n", 'the row of "[relay.example]": no user:password'),
    ("texthash:{dir}/own", "[relay.example] u:sesame\n", None), ("static:sesame", "", 'the row of "": no user:password'),
    ("regexp:{dir}/own", "/relay/ u:sesame\n/./ sesame\n", 'the row of "line 2": no user:password'),
    ("pcre:{dir}/own", "/(relay)/ $1\n", None)])
@pytest.mark.parametrize("own", [True, False])
def test_credentials_of_other_tables(tmp_path, table, text, said, own):
    """Of a transport with a table of its own, and of tables without keys."""
    spec = table.replace("{dir}", str(tmp_path))
    main = f"{LOGIN}relayhost = [relay.example]\nsmtp_sasl_password_maps = {'static:u:p' if own else spec}\n"
    p = Posthouse(main, directory=tmp_path, files={"own": text},
                  master=f"other unix - - n - - smtp\n  -o smtp_sasl_password_maps={spec}\n" if own else None)
    (tmp_path / "own").chmod(0o600)
    out = p.run("check").stdout
    found = re.search(rf"^warning: \S*{'master' if own else 'main'}.cf, line \d+: {'other: ' if own else ''}smtp_sasl_password_maps: "
                      + re.escape(said or "the row of"), out, re.M)
    assert (found is not None) == (said is not None) and "sesame" not in out, out


@pytest.mark.parametrize("more,whose", [
    ("", "recipients' mail exchangers"), ("relayhost = [relay.example]\nsmtp_fallback_relay = [second.example]\n", "smtp_fallback_relay"),
    ("relayhost = [relay.example]\nsender_dependent_relayhost_maps = sqlite:{dir}/hops.cf\n", "tables of sender_dependent_relayhost_maps"),
    ("relayhost = [relay.example]\ntransport_maps = sqlite:{dir}/hops.cf\n", "tables of transport_maps"),
    ("relayhost = [relay.example]\nsender_dependent_relayhost_maps = texthash:{dir}/own\n", None)])
@pytest.mark.parametrize("on", ["yes", "no"])
def test_a_password_to_a_host_that_others_choose(tmp_path, more, whose, on):
    files = {"hops.cf": "dbpath = {dir}/x.db\nquery = SELECT '[x.example]'\n", "own": "@x.example [own.example]\n",
        "sasl": "@x.example u:p\n[relay.example] u:p\n"}
    _, said = check(tmp_path,
        LOGIN + f"smtp_sasl_password_maps = texthash:{{dir}}/sasl\nsmtp_sender_dependent_authentication = {on}\n" + more, files)
    offered = [x for x in said.splitlines() if "a password that is found under a sender is offered to" in x]
    assert len(offered) == (whose is not None and on == "yes") and all(whose in x for x in offered), said


@pytest.mark.parametrize("level,options,clear", [
    ("none", "noanonymous", True), ("may", "noanonymous", True), ("encrypt", "noanonymous", False), ("may",
    "noplaintext, noanonymous", False),
    ("none", "noplaintext", False), ("secure", "", False)])
def test_a_password_in_clear(tmp_path, level, options, clear):
    """Said where it would happen, and not where the options forbid it."""
    main = f"smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = {options}\nsmtp_tls_security_level = {level}\n" \
           "relayhost = [relay.example]\nsmtp_sasl_password_maps = static:u:p\n"
    _, said = check(tmp_path, main)
    assert ("passwords are sent in clear text" in said) == clear, said


@pytest.mark.parametrize("row,level,clear", [
    ("[relay.example]:2525 none", "encrypt", "the host gets the password in clear text"),
    ("[Two.example]:587 none", "may", "the host gets the password in clear text"),
    ("two.example may", "secure", "a host that does not offer TLS, or whoever hides that it does, gets the password in clear text"),
    ("two.example may", "may", None), ("[two.example]:587 encrypt", "may", None), ("third.example none", "encrypt", None)])
def test_a_policy_that_sends_a_password_in_clear(tmp_path, row, level, clear):
    """A row for a host that has a login; main.cf's own level is said of by itself."""
    main = f"smtp_sasl_auth_enable = yes\nsmtp_tls_security_level = {level}\nrelayhost = [relay.example]:2525\n" \
           "smtp_sasl_password_maps = texthash:{dir}/sasl\nsmtp_tls_policy_maps = texthash:{dir}/pol\n"
    files = {"sasl": "[relay.example]:2525 u:sesame\ntwo.example u:sesame\n[two.example]:587 u:sesame\n", "pol": row + "\n"}
    for options in ("noanonymous", "noanonymous, noplaintext"):
        _, said = check(tmp_path, main + f"smtp_sasl_security_options = {options}\n", files)
        line = [x for x in said.splitlines() if x.startswith("warning: ") and "smtp_tls_policy_maps: the row of" in x]
        wanted = clear is not None and "noplaintext" not in options
        assert len(line) == wanted and all(clear in x and row.split()[0].lower() in x for x in line) and "sesame" not in said, said


@pytest.mark.parametrize("more,whose", [
    ("", "recipients' mail exchangers"), ("relayhost = [relay.example]\n", None),
    ("relayhost = [relay.example]\nsmtp_fallback_relay = [second.example]\n", "smtp_fallback_relay"),
    ("relayhost = [relay.example]\ntransport_maps = inline:{{ {{ x.example = smtp:[mx.x.example] }} }}\n", "each host of transport_maps"),
    ("relayhost = [relay.example]\nsender_dependent_relayhost_maps = inline:{{ {{ @x.example = [x.example] }} }}\n",
     "each host of sender_dependent_relayhost_maps")])
@pytest.mark.parametrize("logins,any_host", [("static:u:sesame", True), ("regexp:{dir}/all", True), ("texthash:{dir}/one", False)])
def test_a_login_for_every_host(tmp_path, more, whose, logins, any_host):
    files = {"all": b"/./ u:sesame\n", "one": b"[relay.example] u:sesame\n"}
    rc, said = check(tmp_path, LOGIN + f"mydestination =\nsmtp_sasl_password_maps = {logins}\n" + more, raw=files)
    line = [x for x in said.splitlines() if "a login for every host" in x]
    wanted = any_host and whose is not None
    assert len(line) == wanted and all(whose in x and "sesame" not in x for x in line), said
    assert rc == (wanted and more == ""), said


@pytest.mark.parametrize("param,row,bad", [
    ("sender_dependent_relayhost_maps", "@bad.example [relay.example", "missing ']'"),
    ("sender_dependent_relayhost_maps", "@bad.example [relay.example]587", "garbage after ']'"),
    ("sender_dependent_relayhost_maps", "@ok.example smtp:[relay.example]:587", None),
    ("sender_dependent_relayhost_maps", "@ok.example DUNNO", None),
    ("transport_maps", "bad.example smtp:[relay.example", "missing ']'"), ("transport_maps", "bad.example smpt:[relay.example]",
    "not a transport"),
    ("transport_maps", "bad.example :[relay.example]x", "garbage after ']'"), ("transport_maps", "ok.example error:5.7.1 go [away", None),
    ("transport_maps", "ok.example :", None), ("sender_dependent_default_transport_maps", "@bad.example relay:[a]:notaport", "bad port"),
    ("sender_dependent_default_transport_maps", "@ok.example discard:silently", None)])
def test_rows_that_make_mail_wait(tmp_path, param, row, bad):
    """In every kind of table that is a file, as in databases of accounts."""
    for kind in ("texthash:{dir}/t", "inline:{{ {{ " + row.replace(" ", " = ", 1) + " }} }}"):
        rc, said = check(tmp_path, f"relayhost = [relay.example]\n{param} = {kind}\n", {"t": row + "\n"})
        line = [x for x in said.splitlines() if "mail of that row waits" in x]
        assert (len(line) == 1 and bad in line[0] and param in line[0] and rc == 2) if bad else (line == [] and rc == 0), said


def test_an_owner_that_does_not_exist(tmp_path):
    rc, said = check(tmp_path, "relayhost = [relay.example]\nmail_owner = no-such-owner\n", {})
    assert rc == 2 and "mail_owner = no-such-owner: no such user" in said


@pytest.mark.parametrize("row,bad", [
    ("must", 'there is no level "must"'), ("encrypt protocols=TLS1.2", 'there is no TLS protocol "TLS1.2"'),
    ("may ciphers=strong", 'there is no "strong"'), ("encrypt colour=red", "the attribute colour is not known"),
    ("secure match=", "match is empty"), ("may match=x.example", "match is not for level may"), ("", "it is empty"),
    ("encrypt protocols=!SSLv2:!SSLv3 ciphers=high exclude=RC4", None), ("fingerprint match=00:11", None), ("none anything", None)])
def test_rows_of_tls_policies(tmp_path, row, bad):
    rc, said = check(tmp_path, "relayhost = [relay.example]\nsmtp_tls_policy_maps = inline:{{ {{ [relay.example] = " + row + " }} }}\n")
    line = [x for x in said.splitlines() if "mail for it waits (4.7.5)" in x]
    assert (len(line) == 1 and bad in line[0] and rc == 2) if bad else (line == [] and rc == 0), said


@pytest.mark.parametrize("table,row,said", [
    ("static:{{must}}", "", 'the row of "": there is no level "must"'), ("static:encrypt", "", None),
    ("regexp:{dir}/t", "/x/ encrypt\n/y/ ecnrypt\n", 'the row of "line 2": there is no level "ecnrypt"'),
    ("pcre:{dir}/t", "/(x)/ $1\n", None), ("static:{{secure match=}}", "", "match is empty")])
def test_tls_policies_that_stand_in_no_row(tmp_path, table, row, said):
    rc, out = check(tmp_path, f"relayhost = [relay.example]\nsmtp_tls_policy_maps = {table}\n", {"t": row})
    lines = [x for x in out.splitlines() if "mail for it waits (4.7.5)" in x]
    assert (len(lines) == 1 and said in lines[0] and rc == 2) if said else (lines == [] and rc == 0), out


@pytest.mark.parametrize("main,bad", [
    ("smtp_tls_CAfile = /nowhere/ca.pem\n", "smtp_tls_CAfile: /nowhere/ca.pem: No such file"), ("smtp_tls_CAfile = {dir}/empty\n",
    "the file is empty"),
    ("smtp_tls_mandatory_protocols = TLS1.2\n", 'smtp_tls_mandatory_protocols: there is no TLS protocol "TLS1.2"'),
    ("smtp_tls_protocols = !SSLv2 !SSL3\n", 'smtp_tls_protocols: there is no TLS protocol "!SSL3"'),
    ("smtp_tls_ciphers = best\n", 'smtp_tls_ciphers: there is no "best"'),
    ("smtp_tls_mandatory_exclude_ciphers = !RC4\n", 'smtp_tls_mandatory_exclude_ciphers: there is no "!RC4"'),
    ("tls_medium_cipherlist = NOTHING\n", "no cipher is left"),
    ("smtp_tls_cert_file = {dir}/one.pem\nsmtp_tls_key_file = {dir}/two.key\n", "private key"),
    ("smtp_tls_cert_file = {dir}/none.pem\n", "smtp_tls_cert_file: "),
    ("smtp_tls_CAfile = {dir}/one.key\n", "one.key: no certificate stands in it"),
    ("smtp_tls_fingerprint_digest = sha257\n", 'smtp_tls_fingerprint_digest: there is no digest "sha257"'),
    ("smtp_tls_CAfile = {dir}/one.pem\nsmtp_tls_cert_file = {dir}/one.pem\n"
                                                                       "smtp_tls_key_file = {dir}/one.key\n", None)])
def test_files_and_words_of_tls(tmp_path, main, bad):
    """What delivery will open is opened, of main.cf and of a transport's overrides; each mistake once."""
    for name in ("one", "two"):
        cert, key = make_cert(tmp_path, f"{name}.example")
        cert.rename(tmp_path / f"{name}.pem"), key.rename(tmp_path / f"{name}.key")
    rc, said = check(tmp_path, "relayhost = [relay.example]\n" + main, {"empty": ""})
    assert (bad in said and rc == 2) if bad else (rc == 1 and "error:" not in said), said  # it expires in two days


@pytest.mark.parametrize("main,said", [
    ("transport_maps = /etc/transport\n", 'error: .*transport_maps: "/etc/transport" is no table: a type belongs before it'),
    ("smtpd_sender_login_maps = login\n", 'error: .*smtpd_sender_login_maps: "login" is no table'),
    ("relay_domains = own.example, other.example\n", None),
    ("virtual_transport = mailbox\n", 'warning: .*virtual_transport: "mailbox" is not a transport that Posthouse has, and master.cf has'),
    ("relay_transport = smtp:[x.example]\n", None),
    ("default_transport = smpt:[x.example]\n", 'warning: .*default_transport: "smpt" is not')])
def test_words_that_are_no_tables_and_no_transports(tmp_path, main, said):
    _, out = check(tmp_path, main)
    assert re.search(said, out) if said else "is no table" not in out and "not a transport" not in out, out


def test_owners_and_rights(tmp_path):
    """Whoever may read a password; a spool that is another user's."""
    cert, key = make_cert(tmp_path, "x.example")
    main = LOGIN + f"relayhost = [relay.example]\nsmtp_tls_cert_file = {cert}\nsmtp_tls_key_file = {key}\n" \
        "smtp_sasl_password_maps = texthash:{dir}/sasl\n"
    files = {"sasl": "[relay.example] u:p\n"}
    for mode in (0o600, 0o644):
        (tmp_path / "sasl").touch()
        (tmp_path / "sasl").chmod(mode), key.chmod(mode)
        _, out = check(tmp_path, main, files)
        for path in (tmp_path / "sasl", key):
            assert (f"warning: {path}: it has a password or a key, and every user may read it" in out) == (mode == 0o644), out
        assert f"warning: {cert}: it has" not in out
    if os.geteuid() == 0:
        (tmp_path / "spool/log").mkdir(parents=True)
        (tmp_path / "spool/log/0000000000000001-d29fa2cb5fdd7f9e").touch()
        for wrong, user in (("log", 12345), ("log", 0), ("log/0000000000000001-d29fa2cb5fdd7f9e", 0)):  # as cp makes it for root
            shutil.chown(tmp_path / "spool/log", owner())
            os.chown(tmp_path / "spool" / wrong, user, user)
            rc, out = check(tmp_path, main, files)
            assert rc == 2 and f"error: {tmp_path}/spool/{wrong}: it belongs to user {user}, and mail_owner is {owner()}: " in out
            assert f"chown -R {owner()}: {tmp_path}/spool\n" in out


FRONT = "myhostname = mx.example\nmyorigin = mx.example\nmessage_size_limit = {size}\nrecipient_delimiter = {tag}\n"


@pytest.mark.parametrize("front,size,tag,main,said", [
    ("default_transport = smtp:[127.0.0.1]:{port}", 9000000, "+", "", ["recipient_delimiter: Postfix in front"]),
    ("default_transport = smtp:[localhost]:{port}", 0, "", "",
     ["message_size_limit: Postfix in front (.*) takes larger mail than 10240000"]),
    ("relayhost = [127.0.0.1]:{port}\nsender_dependent_relayhost_maps = static:[x.example]", 10240000, "", "",
     ["sender_dependent_relayhost_maps of the same Postfix is stronger"]),
    ("default_transport = smtp:[127.0.0.1]:{port}", 1, "", "myhostname = MX.example\nrelay_transport = relay:[127.0.0.1]:25\n",
     ["error: .*myhostname: MX.example is the name of Postfix in front, too .*relay_transport sends mail back to it"]),
    ("default_transport = smtp:[127.0.0.1]:1", 0, "+", "myhostname = mx.example\nrelayhost = [127.0.0.1]:25\n", [])])
def test_beside_postfix(tmp_path, front, size, tag, main, said):
    """What Postfix in front has otherwise, and would bounce or loop."""
    p = Posthouse("relayhost = [relay.example]\nfront_config_directory = {dir}/front\n" + main, directory=tmp_path)
    (tmp_path / "front").mkdir()
    (tmp_path / "front/main.cf").write_text(FRONT.format(size=size, tag=tag) + front.format(port=p.port) + "\n")
    out = p.run("check").stdout
    for line in said:
        assert re.search(line.replace("(.*)", r"\(.*\)"), out), out
    assert out.count("Postfix in front") + out.count("the same Postfix") == len(said), out


def test_folders_of_a_postfix_that_was_never_used(tmp_path):
    (tmp_path / "var/postfix").mkdir(parents=True)
    rc, out = check(tmp_path, "data_directory = {dir}/var/postfix\nqueue_directory = {dir}/elsewhere/postfix\n")
    assert rc == 1 and "data_directory: " in out and out.count("belongs to Postfix: Posthouse does not touch it") == 2


def test_certificates_that_end_soon_are_named(tmp_path):
    """Those that clients are shown: of smtpd_tls_chain_files, where that is set, each file."""
    cert, key = make_cert(tmp_path, "mta.example")  # for two days
    other, other_key = make_cert(tmp_path, "another.example")
    chain, second = tmp_path / "chain.pem", tmp_path / "second.pem"
    chain.write_text(key.read_text() + cert.read_text()), second.write_text(other_key.read_text() + other.read_text())
    own = f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n"
    says = re.compile(r"warning: (\S+): .*the certificate expires in [12] days?")
    assert says.findall(check(tmp_path, own)[1]) == [str(cert)]
    chains = f"smtpd_tls_chain_files = {chain}, {second}\n"
    assert says.findall(check(tmp_path, own + chains)[1]) == [str(chain), str(second)]


def test_certificates_that_relay_hosts_are_shown(tmp_path):
    """Of main.cf and of a transport, each once; one that has expired is a warning: most relay hosts do not look at it."""
    cert, key = make_cert(tmp_path, "mta.example")  # for two days
    valid, old_key = make_cert(tmp_path, "old.example")
    old = tmp_path / "old.pem"
    subprocess.run(["openssl", "x509", "-in", valid, "-signkey", old_key, "-days", "-1", "-out", old], check=True, capture_output=True)
    key.chmod(0o600), old_key.chmod(0o600)
    p = Posthouse(f"smtp_tls_cert_file = {cert}\nsmtp_tls_key_file = {key}\n", directory=tmp_path,
                  master=f"other unix - - n - - smtp\n -o smtp_tls_chain_files={old_key},{old}\nthird unix - - n - - smtp\n")
    r = p.run("check")
    assert re.findall(r"warning: (\S+): (smtp_tls_\w+): the certificate (?:has expired|expires in [12] days?)", r.stdout) == [
        (str(cert), "smtp_tls_cert_file"), (str(old), "smtp_tls_chain_files")] and r.returncode == 1, r.stdout


@pytest.mark.parametrize("main,override,said", [
    ("smtpd_tls_security_level = may", "", "STARTTLS is not offered$"), ("smtpd_use_tls = yes", "", "STARTTLS is not offered$"),
    ("smtpd_tls_security_level = encrypt", "", "all mail is refused, 530$"), ("", "smtpd_enforce_tls=yes", "all mail is refused, 530$"),
    ("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = none", "", "STARTTLS is not offered$"),
    ("smtpd_tls_security_level = encrypt", "smtpd_tls_security_level=none", None),
    ("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = CERT\nsmtpd_tls_key_file = KEY", "", None)])
def test_tls_without_a_certificate(tmp_path, main, override, said):
    """Clients would go on in clear, or not at all, and nothing else says why; a start says it, too."""
    cert, key = make_cert(tmp_path, "mta.example")
    key.chmod(0o600)
    p = Posthouse(main.replace("CERT", str(cert)).replace("KEY", str(key)) + "\n", directory=tmp_path)
    if override:
        text = (tmp_path / "master.cf").read_text()
        (tmp_path / "master.cf").write_text(text.replace(" smtpd\n", f" smtpd -o {override}\n"))
    r = p.run("check")
    file = "master" if override else "main"
    found = re.search(rf"^warning: \S*{file}.cf, line \d+: 127.0.0.1:{p.port}: TLS without .*{said}", r.stdout, re.M)
    assert (found is not None) == (said is not None), r.stdout
    with p:
        assert ("STARTTLS" in p.client().ehlo) == ("CERT" in main)
        assert ("STARTTLS is not offered" in (p.dir / "stderr").read_text()) == (said is not None)


def test_authorities_of_clients_that_are_none(tmp_path):
    """Where clients are asked for a certificate; the start fails, as with a file that cannot be read."""
    cert, key = make_cert(tmp_path, "mta.example")
    main = f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\nsmtpd_tls_CAfile = {key}\n"
    for ask, rc in (("no", 1), ("yes", 2)):
        code, said = check(tmp_path, main + f"smtpd_tls_ask_ccert = {ask}\n")
        assert code == rc and ("smtpd_tls_CAfile: no certificate stands in it" in said) == (ask == "yes"), said


DOMAINS = "mydestination = own.example\nvirtual_mailbox_domains = texthash:{dir}/virtual, größe.example\nrelay_domains = other.example\n"
SENDERS = [  # (key, what is said of it)
    ("ann@customer.example", None), ("@customer.example", None), ("ann@cutsomer.example", "which has customer.example"),
    ("@custmer.example", "which has customer.example"), ("@customerr.example", "which has customer.example"),
    ("ann@ownn.example", "which has own.example"),
    ("@othre.example", "which has other.example"), ("ann@grösse.example", None),
    ("@xn--gre-6ka8i.example", None), ("@far.example", None), ("<ann@customer.example>", "angle brackets"),
    ("*@customer.example", "write @domain"),
    ("@.customer.example", "no key of their own kind"), ("ann@customer.example.", "a dot at the end"), ("<>", None)]


@pytest.mark.parametrize("param", ["sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps", "smtp_sasl_password_maps",
                                   "smtpd_sender_login_maps"])
def test_keys_that_no_sender_has(tmp_path, param):
    values = {"sender_dependent_default_transport_maps": "smtp:[127.0.0.1]", "smtp_sasl_password_maps": "u:open-sesame"}
    value = values.get(param, "[127.0.0.1]:9")
    main = f"{LOGIN}relayhost = [127.0.0.1]:9\nsmtp_sender_dependent_authentication = yes\n{DOMAINS}{param} = texthash:{{dir}}/keys\n"
    _, said = check(tmp_path, main, {"virtual": "customer.example x\n", "keys": "".join(f"{key} {value}\n" for key, _ in SENDERS)})
    assert "open-sesame" not in said
    for key, what in SENDERS:
        line = next((ln for ln in said.splitlines() if f"{param}: " in ln and f'"{key}": ' in ln), None)
        assert (line is None) if what is None else (line is not None and what in line), (key, line, said)


@pytest.mark.parametrize("main,said", [
    ("inet_interfaces = 198.51.100.77\n", "198.51.100.77"), ("inet_interfaces = no.such.invalid\n", "no.such.invalid"),
    ("maillog_file = {dir}/none/maillog\n", "its directory is not there"), ("maillog_file = {dir}\n", "it is a directory"),
    ("queue_directory = /dev/null/spool\n", "Not a directory"), ("queue_directory = {dir}/main.cf\n", "it is no directory")])
def test_what_cannot_be_opened(tmp_path, main, said):
    """Where the daemon would not start, check says why."""
    p = Posthouse(main, directory=tmp_path)
    (tmp_path / "master.cf").write_text(f"{free_port()} inet n - n - - smtpd\nsmtp unix - - n - - smtp\n")
    r = p.run("check")
    assert r.returncode == 2 and said in r.stdout, r.stdout
    started = subprocess.run([p.exe, "-c", str(tmp_path), "-f"], env=p.env(), capture_output=True, text=True, timeout=60)
    assert started.returncode != 0, started.stderr


@pytest.mark.parametrize("main,said", [
    ("proxy_interfaces = 192.0.2.1, front.example", '"front.example" is no address'), ("proxy_interfaces = 192.0.2.1 2001:db8::1", None),
    ("smtp_bind_address = 2001:db8::1", "is no IPv4 address"), ("smtp_bind_address6 = 127.0.0.1", "is no IPv6 address"),
    ("smtp_bind_address = 127.0.0.1", None), ("smtp_bind_address = 127.0.0", "is no IPv4 address")])
def test_addresses_of_our_own(tmp_path, main, said):
    """A name that is not looked up is said; mail never leaves from another address than the one that is set."""
    p = Posthouse(f"{main}\nrelayhost = [127.0.0.1]:9\n", directory=tmp_path)
    r = p.run("check")
    rc, out = r.returncode, r.stdout
    assert (rc == 2 and said in out) if said else rc == 0, out
    if said is None or "smtp_bind_address =" not in main:
        return
    with FakeRelay() as relay:
        p.write_main(f"{main}\nrelayhost = [127.0.0.1]:{relay.port}\n")
        with p:
            assert p.send().startswith("250")
            p.wait_log(r"dsn=4\.3\.5, status=deferred \(bad value of smtp_bind_address: ")
        assert relay.sessions == []


@pytest.mark.parametrize("networks,wide", [
    ("127.0.0.0/8 0.0.0.0/0", "0.0.0.0/0"), ("[::]/0", "[::]/0"), ("!192.0.2.1, [2000::]/3", "[2000::]/3"), ("128.0.0.0/1", "128.0.0.0/1"),
    ("!0.0.0.0/0", None), ("10.0.0.0/8 [fc00::]/7 [fe80::]/10 [2001:db8::]/32 [fd00::]/8", None)])
@pytest.mark.parametrize("own", [True, False])
def test_networks_of_half_the_world(tmp_path, networks, wide, own):
    """Whom permit_mynetworks would let relay is said, for main.cf and for a service."""
    master = f"127.0.0.1:{free_port()} inet n - n - - smtpd\n  -o {{{{mynetworks={networks}}}}}\nsmtp unix - - n - - smtp\n"
    p = Posthouse("relayhost = [127.0.0.1]:9\n" + ("" if own else f"mynetworks = {networks}\n"), directory=tmp_path,
                  master=master if own else None)
    r = p.run("check")
    said = f"mynetworks: {wide} is a large part of the Internet"
    assert (said in r.stdout and r.returncode == 1) if wide else "Internet" not in r.stdout, r.stdout


MIB = 1 << 20


@pytest.mark.parametrize("main,sizes,said", [
    ("mynetworks = 127.0.0.0/8 {dir}/few {dir}/most {dir}/others\n", {"few": 2, "most": 7.9, "others": 7.5},
    ["error: {dir}/most: this file, of 8283750 bytes, is the largest of those", "at most 16777216 are possible"]),
    ("smtp_tls_security_level = may\nsmtp_tls_CAfile = {dir}/ca\n", {"ca": 9},
    ["smtp_tls_CAfile: {dir}/ca: it is larger than 8 MiB"]),
    ("mynetworks = {dir}/long\n", {"long": 8.5}, ["line {line}: mynetworks: cannot read {dir}/long: it is larger than 8 MiB"]),
    ("transport_maps = regexp:{dir}/rules\n", {"rules": 16.5}, ["transport_maps: open {dir}/rules: it is larger than 16 MiB"]),
    ("transport_maps = ldap:{dir}/cf\n", {"cf": 1.5}, ["open {dir}/cf: it is larger than 1 MiB"]),
    ("", {"main.cf": 8.2}, ["error: {dir}/main.cf: cannot read: it is larger than 8 MiB"])])
def test_files_that_are_too_large(tmp_path, main, sizes, said):
    """The file and the limit are named, those of one file and that of all together."""
    p = Posthouse(f"relayhost = [127.0.0.1]:9\n{main}", directory=tmp_path)
    for name, size in sizes.items():
        with open(tmp_path / name, "a") as f:
            f.write(("#" * 1249 + "\n") * int(size * MIB / 1250))
    lines = (tmp_path / "main.cf").read_text().splitlines() if main else []
    line = next((i for i, x in enumerate(lines, 1) if x.startswith("mynetworks = ")), 0)
    r = p.run("check")
    assert r.returncode == 2, r.stdout
    for text in said:
        assert text.format(dir=tmp_path, line=line) in r.stdout, r.stdout


@pytest.mark.parametrize("services,main,own", [
    ("127.0.0.1:{port}", "relayhost = [127.0.0.1]:{port}", "relayhost: [127.0.0.1]:{port} is"), ("127.0.0.1:{port}",
    "relayhost = [127.0.0.2]:{port}", None),
    ("127.0.0.5:{port}", "relayhost = [127.0.0.1]:{port}", None),
    ("127.0.0.5:{port}", "relayhost = 127.0.0.5:{port}", "relayhost: 127.0.0.5:{port} is"),
    ("127.0.0.1:{port}", "relayhost = [127.0.0.1]:{other}", None),
    ("localhost:{port}", "relayhost = localhost:{port}", "localhost:{port} is"),
    ("{port}", "relayhost = [127.0.0.2]:{port}", "relayhost: [127.0.0.2]:{port} is"),
    ("{port}", "inet_interfaces = 127.0.0.1\nrelayhost = [127.0.0.2]:{port}", None),
    ("{port}", "inet_interfaces = loopback-only\nrelayhost = [127.0.0.1]:{port}", "relayhost: [127.0.0.1]:{port} is"),
    ("{port}", "inet_interfaces = loopback-only\nrelayhost = [own.example]:{port}\nmyhostname = own.example", None),
    ("{port}", "relayhost = [own.example]:{port}\nmyhostname = own.example", "relayhost: [own.example]:{port} is"),
    ("{port}", "relayhost = [192.0.2.77]:{port}\nproxy_interfaces = 192.0.2.76, 192.0.2.77", "relayhost: [192.0.2.77]:{port} is"),
    ("192.0.2.90:{port}", "relayhost = [192.0.2.77]:{port}\nproxy_interfaces = 192.0.2.77", "relayhost: [192.0.2.77]:{port} is"),
    ("127.0.0.1:{port}", "relayhost = [192.0.2.77]:{port}\nproxy_interfaces = 192.0.2.77", None),
    ("{port}", "relayhost = [192.0.2.78]:{port}\nproxy_interfaces = 192.0.2.77", None),
    ("127.0.0.1:{port}", "relayhost = [relay.example]\nsmtp_fallback_relay = [127.0.0.1]:{port}",
    "smtp_fallback_relay: [127.0.0.1]:{port} is"),
    ("127.0.0.1:{port}", "relayhost = [relay.example]\ntransport_maps = inline:{{{{ {{{{ a.example=smtp:[127.0.0.1]:{port} }}}} }}}}",
    "[127.0.0.1]:{port} is this system itself"),
    ("127.0.0.1:{port}", "relayhost = [relay.example]\ntransport_maps = inline:{{{{ {{{{ a.example=error:127.0.0.1:{port} }}}} }}}}", None),
    ("127.0.0.1:{port}", "sender_dependent_relayhost_maps = inline:{{{{ {{{{ a@a.example=[127.0.0.1]:{port} }}}} }}}}",
    "[127.0.0.1]:{port} is this system itself")])
def test_next_hops_that_are_this_system(tmp_path, services, main, own):
    """By address and port: by the addresses that a service has in master.cf, else by inet_interfaces; proxies lead to all of them."""
    port, other = free_port(), free_port()
    p = Posthouse(main.format(port=port, other=other) + "\n", directory=tmp_path)
    (tmp_path / "master.cf").write_text(f"{services.format(port=port)} inet n - n - - smtpd\nsmtp unix - - n - - smtp\n")
    r = p.run("check")
    said = [line for line in r.stdout.splitlines() if "is this system itself" in line]
    if own is None:
        assert said == [], r.stdout
    else:
        assert len(said) == 1 and own.format(port=port) in said[0] and r.returncode == 2, r.stdout


def test_mail_to_this_system_does_not_go_round():
    """What check says of a next hop is what delivery makes of it."""
    everywhere = free_port()
    p = Posthouse("", master=f"{everywhere} inet n - n - - smtpd\n")
    with FakeRelay(host="127.0.0.2", port=p.port) as relay:
        p.write_main(f"relayhost = [127.0.0.2]:{p.port}\n"
                     f"transport_maps = inline:{{{{ {{{{ round.example=smtp:[127.0.0.3]:{everywhere} }}}} }}}}\n")
        with p:
            assert p.send(rcpts=["u@round.example"]).startswith("250")
            p.wait_log(r"mail for \[127\.0\.0\.3\]:\d+ loops back to myself")
            assert p.send().startswith("250")
            relay.wait_mails(1)


@pytest.mark.parametrize("mode", ["no", "yes"])
@pytest.mark.parametrize("type_", ["hash", "cdb", "texthash"])
def test_keys_whose_domain_is_written_in_an_odd_form(tmp_path, type_, mode):
    """A table's key has one spelling, and a look-up asks for three: each other key is named, with what to write."""
    fine = ["fähre.example", "xn--fhre-loa.example", ".fähre.example", "user@fähre.example", "FÄHRE2.example", "plain.example",
            "müller@plain.example"]
    odd = {"ｗeit.example": '"weit.example"', "user@fa\u0308hre3.example": '"fähre3.example" or "xn--fhre3-gra.example"',
           ".ｆähre4.example": '"fähre4.example" or "xn--fhre4-gra.example"', "fähre5。example": '"fähre5.example"',
           "ö\u00a0x.example": "its domain is none"}
    odd |= {"groß.example": '"gross.example"'} if mode == "yes" else {}
    p = Posthouse(f"relayhost = [127.0.0.1]:9\nenable_idna2003_compatibility = {mode}\ntransport_maps = {type_}:{{dir}}/roads\n"
                  f"relay_domains = {type_}:{{dir}}/roads\n"
                  f"smtpd_recipient_restrictions = check_recipient_access {type_}:{{dir}}/roads, permit\n",
                  directory=tmp_path)
    keys = fine + list(odd) + ([] if "groß.example" in odd else ["groß.example"])
    (tmp_path / "roads").write_text("".join(f"{key} smtp:[127.0.0.1]:9\n" for key in keys))
    if type_ != "texthash":
        assert p.run(f"{type_}:{tmp_path}/roads", face="postmap").returncode == 0
    said = p.run("check").stdout.splitlines()
    for param in ("transport_maps", "relay_domains", "smtpd_recipient_restrictions"):
        lines = [line for line in said if f" {param}: {type_}:" in line and ("only mail that writes" in line or "is none" in line)]
        assert len(lines) == len(odd), said
        for key, instead in odd.items():
            assert [line for line in lines if f'"{key}": ' in line and instead in line], (key, lines)


SHUT = [  # (main.cf, of a service in master.cf; the parameter that is named, what is said of it)
    ("smtpd_sender_restrictions = check_sender_access randmap:{OK}", "", "smtpd_sender_restrictions", "type: randmap:"),
    ("smtpd_helo_restrictions = permit_mynetworks check_helo_access pcre:DIR/none", "", "smtpd_helo_restrictions", "/none: No such"),
    ("smtpd_client_event_limit_exceptions = 2001:db8::/32 !nosuch:x", "", "smtpd_client_event_limit_exceptions", "type: nosuch:"),
    ("smtpd_sasl_exceptions_networks = !hash:DIR/none", "", "smtpd_sasl_exceptions_networks", "/none.db: No such"),
    ("relay_domains = a.example !hash:DIR/none", "", "relay_domains", "/none.db: No such"),
    ("virtual_alias_domains = nosuch:x", "", "virtual_alias_domains", "type: nosuch:"),
    ("local_header_rewrite_clients = check_address_map randmap:{x}", "", "local_header_rewrite_clients", "type: randmap:"),
    ("authorized_submit_users = !root hash:DIR/none", "", "authorized_submit_users", "/none.db: No such"),
    ("authorized_mailq_users = nosuch:x", "", "authorized_mailq_users", "type: nosuch:"),
    ("smtp_reply_filter = pcre:DIR/none", "", "smtp_reply_filter", "/none: No such"),
    ("relay_clientcerts = hash:DIR/none", "", "relay_clientcerts", "/none.db: No such"),
    ("transport_maps = unionmap:{inline:{a=b}, hash:DIR/none}", "", "transport_maps", "/none.db: No such"),
    ("smtp_sasl_password_maps = pipemap:{inline:{a=b},nosuch:user:sesame}", "", "smtp_sasl_password_maps", "type: nosuch:"),
    ("", "smtpd_sender_login_maps=hash:DIR/none", "smtpd_sender_login_maps", "/none.db: No such"),
    ("", "mynetworks=127.0.0.0/8,cidr:DIR/none", "mynetworks", "/none: No such"),
    ("", "smtpd_recipient_restrictions=check_client_access,nosuch:x,reject", "smtpd_recipient_restrictions", "type: nosuch:"),
    ("", "smtp_tls_policy_maps=texthash:DIR/none", "smtp_tls_policy_maps", "/none: No such"),
    ("", "smtp_sasl_password_maps=nosuch:/x", "smtp_sasl_password_maps", "type: nosuch:/x"),
]


def test_tables_that_cannot_be_opened(tmp_path):
    """Wherever a table may stand: in every list, behind "!", among other tables, in an override of a service."""
    p = Posthouse(directory=tmp_path)
    for main, override, name, said in SHUT:
        p.write_main(main.replace("DIR", str(tmp_path)).replace("{", "{{").replace("}", "}}"))
        other = f"other unix - - n - - smtp\n  -o {override}\n" if "smtp_" in override else \
            f"{free_port()} inet n - n - - smtpd\n  -o {override}\n"
        (tmp_path / "master.cf").write_text(f"{free_port()} inet n - n - - smtpd\nsmtp unix - - n - - smtp\n"
                                            "relay unix - - n - - smtp\n" + (other.replace("DIR", str(tmp_path)) if override else ""))
        r = p.run("check")
        lines = [ln for ln in r.stdout.splitlines() if re.search(rf"^error: .*{name}: .*{re.escape(said)}", ln)]
        assert len(lines) == 1 and r.returncode == 2, (main, override, r.stdout)
        assert f"{tmp_path}/{'master.cf' if override else 'main.cf'}, line " in lines[0] and "sesame" not in r.stdout, r.stdout


LINES = {  # a table, and (its first bad line, what is said of it, how many more)
    "texthash": ("a@x.example [h]\nalone\nb@x.example\na@x.example [i]\n", "line 2: expected format: key whitespace value", 2),
    "pcre": ("/a/ [h]\n/b( [h]\n", "line 2: no closing pattern delimiter", 0), "cidr": ("10.1.2.3/8 [h]\nx [h]\n", "line 1: non-null", 1)}


@pytest.mark.parametrize("kind", LINES)
def test_lines_of_tables_that_are_no_rows(tmp_path, kind):
    """One remark for a table, wherever it stands, with the number of such lines; nothing on standard error beside it."""
    text, what, more = LINES[kind]
    lists = f"mynetworks = 127.0.0.0/8 {kind}:{{dir}}/t\n" if kind == "cidr" else \
        f"sender_dependent_relayhost_maps = {kind}:{{dir}}/t\nsmtpd_client_restrictions = check_client_access {kind}:{{dir}}/t\n"
    p = Posthouse(lists, directory=tmp_path, files={"t": text})
    r = p.run("check")
    said = [ln for ln in r.stdout.splitlines() if f"{tmp_path}/t, line " in ln]
    assert len(said) == 1 and said[0].startswith(f"warning: {tmp_path}/main.cf, line ") and what in said[0], r.stdout
    assert (f" (and {more} more lines with a mistake)" in said[0]) == (more > 0) and r.returncode > 0 and r.stderr == "", r.stderr


def test_a_key_that_everybody_may_read_is_named_once(tmp_path):
    cert, key = make_cert(tmp_path, "x.example")
    key.chmod(0o644)
    own = f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n"
    _, said = check(tmp_path, own)
    assert said.count(f"warning: {key}: it has a password or a key") == 1, said


def test_byte_order_marks_in_tables(tmp_path):
    """The first row of a table that another system's editor wrote is named, whatever the table is for."""
    bom = b"\xef\xbb\xbf"
    rows = {"access": b"x@a.example REJECT\n", "roads": b"a.example smtp:[relay.example]\n", "logins": b"x@a.example x\n",
            "aliases": b"root: x@a.example\n"}
    main = ("smtpd_sender_restrictions = check_sender_access hash:{dir}/access\ntransport_maps = hash:{dir}/roads\n"
            "smtpd_sender_login_maps = unionmap:{{hash:{dir}/logins}}\nalias_maps = hash:{dir}/aliases\n")
    p = Posthouse(main, directory=tmp_path)
    for name, row in rows.items():
        (tmp_path / name).write_bytes(bom + row)
        assert p.run(f"hash:{tmp_path}/{name}", face="postalias" if name == "aliases" else "postmap").returncode == 0
    said = p.run("check").stdout
    for name, row in rows.items():
        key = row.decode().split()[0].rstrip(":")
        assert len(re.findall(f'{name}: the key "{key}" begins with a byte order mark', said)) == 1, said


ACTIONS = {  # what a row of an access table says: the word that is not done
    "OK": None, "permit": None, "DUNNO": None, "dunno": None, "REJECT": None, "reject go away": None, "DEFER later": None,
    "550 5.7.1 no": None, "421": None, "1700000000": None, "FILTER smtp:[127.0.0.1]:10026": None, "HOLD": None,
    "REDIRECT a@b.example": None, "BCC a@b.example": None, "PREPEND X-A: b": None, "DISCARD": None, "rejekt": "rejekt",
    "my_class": "my_class", "WARN x": None, "permit_mynetworks, reject": None, "permit_mynetworks, my_class": "my_class",
    "check_client_access hash:x": "check_client_access", "defer_if_permit x": None, "20 mails": "20"}


def test_rows_of_access_tables(tmp_path):
    """An action that is not done is named with its row: what meets it is refused for the time being."""
    files = {"rows": "".join(f"h{i}.example {v}\n" for i, v in enumerate(ACTIONS)),
             "rules": "".join(f"/h{i}[.]example/ {v}\n" for i, v in enumerate(ACTIONS)),
             "nets": "".join(f"10.0.0.{i} {v}\n" for i, v in enumerate(ACTIONS))}
    for table, row in (("texthash:{dir}/rows", "h%d.example"), ("pcre:{dir}/rules", "line %d"), ("cidr:{dir}/nets", "line %d"),
                       ("unionmap:{{texthash:{dir}/rows}}", "h%d.example")):
        rc, said = check(tmp_path, f"smtpd_client_restrictions = check_client_access {table}, check_client_access static:OK\n", files)
        assert rc == 2
        for i, (value, word) in enumerate(ACTIONS.items()):
            key = row % (i + 1 if "line" in row else i)
            named = [ln for ln in said.splitlines() if f'"{key}" -> "{value}"' in ln]
            assert len(named) == (word is not None), (table, value, said)
            assert word is None or (f'no action "{word}"' in named[0] and "451" in named[0] and named[0].startswith("error:")), named
    rc, said = check(tmp_path, "smtpd_sender_restrictions = check_sender_access static:{{FILTER it}}\n")
    assert rc == 2 and 'no action "FILTER"' in said


HOPS = {  # lines of main.cf, or an override of a transport: what is wrong with the next hop
    "default_transport = smtp:[relay.example": "missing ']'",
    "default_transport = relay:relay.example:99999": "bad port or unknown service",
    "default_transport = smtp:relay.example": None, "default_transport = smtp": None, "default_transport = error:[no mail": None,
    "relay_transport = smtp:[relay.example]:587:x": "bad port", "relay_transport = relay:[relay.example": "missing ']'",
    "local_transport = smtp:[store.example": "missing ']'", "virtual_transport = smtp:[store.example": "missing ']'",
    "smtp_fallback_relay = [other.example": "missing ']'", "-o smtp_fallback_relay=[other.example": "missing ']'",
    "-o smtp_fallback_relay=[other.example]": None}


@pytest.mark.parametrize("line", HOPS)
def test_next_hops_of_transports(tmp_path, line):
    """A next hop that makes mail wait is named wherever it may stand, and at the start as well."""
    over, why = line.startswith("-o"), HOPS[line]
    p = Posthouse("" if over else line + "\n", directory=tmp_path, master=f"other unix - - n - - smtp\n  {line}\n" if over else None)
    r = p.run("check")
    said = r.stdout
    name = line.removeprefix("-o ").split("=")[0].strip()
    named = re.search(rf"^error: \S*{'master' if over else 'main'}\.cf, line \d+: {'other: ' if over else ''}{name}: .*"
                      rf"{re.escape(why or '')}.*mail for it waits", said, re.M)
    assert (named is not None) == (why is not None) and (r.returncode == 2) == (why is not None), said


@pytest.mark.parametrize("name", ["smtp_destination_rate_delay", "default_destination_concurrency_limit",
    "other_destination_recipient_limit", "minimal_backoff_time", "queue_run_delay", "smtp_connect_timeout"])
def test_an_override_that_the_schedule_does_not_hear(tmp_path, name):
    """Postfix's queue manager reads main.cf alone, and many write its settings at a client's line."""
    p = Posthouse("relayhost = [127.0.0.1]:9\n", directory=tmp_path, master=f"other unix - - n - - smtp\n  -o {name}=7\n")
    r = p.run("check")
    said = f"line 4: other: {name}: the -o changes nothing" in r.stdout
    assert said == (name != "smtp_connect_timeout") and (r.returncode == 1) == said, r.stdout


DOT, AT = "a dot at the end is never asked", "write the domain alone"
UNASKED = {  # lines of main.cf: what is said of keys; of others nothing is
    "smtpd_sender_restrictions = check_sender_access texthash:{dir}/t":
        {"@x.example": AT, "ann@x.example.": DOT, "x.example.": None, "x.example": None, "ann@": None, "ann@x.example": None,
         "10.1.2": None},
    "relay_domains = texthash:{dir}/t": {"@x.example": AT, "x.example.": DOT, ".x.example": None, "x.example": None},
    "virtual_alias_maps = regexp:{dir}/none texthash:{dir}/t\nvirtual_alias_domains = texthash:{dir}/t":
        {"@x.example": None, "x.example.": DOT, "x.example": None},
    "mydestination = other.example, unionmap:{{texthash:{dir}/t}}": {"@x.example": AT, "y.x.example.": DOT, "x.example": None},
    "transport_maps = texthash:{dir}/t": {"@x.example": AT, "x.example.": DOT, "ann@x.example.": DOT, ".x.example": None, "*": None}}


@pytest.mark.parametrize("line", UNASKED)
def test_keys_of_tables_of_domains_that_nothing_asks_for(tmp_path, line):
    value = "smtp:[relay.example]" if "transport" in line else "OK"
    _, said = check(tmp_path, line + "\n", {"t": "".join(f"{key} {value}\n" for key in UNASKED[line])})
    for key, why in UNASKED[line].items():
        named = [ln for ln in said.splitlines() if f'"{key}": ' in ln]
        assert len(named) == (why is not None) and all(ln.startswith("warning: ") and why in ln for ln in named), (key, said)


def test_rules_of_transports(tmp_path):
    """Values of rules are looked at as those of rows are, unless a part of the key stands in them."""
    files = {"rules": "/a[.]example/ smtp:[relay.example\n/b[.]example/ smpt:[relay.example]\n/(c)[.]example/ smtp:[$1]\n"
                      "/d[.]example/ smtp:[relay.example]\n"}
    rc, said = check(tmp_path, "transport_maps = regexp:{dir}/rules\n", files)
    named = [ln for ln in said.splitlines() if "mail of that row waits" in ln]
    assert rc == 2 and len(named) == 2 and '"line 1"' in named[0] and '"line 2"' in named[1], said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_sockets_that_the_relays_user_may_not_open():
    """As Dovecot makes them below the folder that is open to Postfix alone."""
    p = Posthouse("smtpd_sasl_type = dovecot\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_path = {dir}/its/s\n"
                  "virtual_transport = lmtp:unix:{dir}/its/s\n"
                  "smtpd_sender_restrictions = check_policy_service {{ unix:{dir}/its/s, timeout=10s }}\n")
    with open(p.dir / "master.cf", "a") as f:
        f.write("lmtp unix - - n - - lmtp\n")
    (p.dir / "its").mkdir()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(p.dir / "its/s"))
    (p.dir / "its/s").chmod(0o666)
    found = []
    for mode in (0o700, 0o755):
        (p.dir / "its").chmod(mode)
        said = p.run("check").stdout
        found.append(re.findall(rf"(\S+): nobody, whom mail_owner names, may not open {p.dir}/its/s: ([^;]*)", said))
    assert found == [[("virtual_transport", "mail for it waits"), ("smtpd_sasl_path", "nobody can log in"),
                      ("check_policy_service", "mail is put off, as smtpd_policy_service_default_action says")], []], said
    shutil.rmtree(p.dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_sockets_of_a_postfix_that_names_no_queue_directory(tmp_path):
    """Debian's main.cf leaves it to the default: Dovecot's sockets are there all the same, and not below Posthouse's own."""
    etc, queue = tmp_path / "etc", tmp_path / "queue"
    for folder in (etc, queue / "private"):
        folder.mkdir(parents=True)
    (etc / "main.cf").write_text("myhostname = mta.example\nmail_owner = nobody\nvirtual_transport = lmtp:unix:private/lmtp\n"
                                 "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n"
                                 "smtpd_data_restrictions = check_policy_service unix:private/policy\n")
    (etc / "master.cf").write_text("smtp inet n - n - - smtpd\nlmtp unix - - n - - lmtp\nsmtp unix - - n - - smtp\n")
    (queue / "private").chmod(0o700)
    command = f"mount --bind {etc} /etc/postfix && mount --bind {queue} /var/spool/postfix && {BUILD}/src/posthouse -c /etc/postfix check"
    said = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True).stdout
    assert set(re.findall(r"may not open (\S+):", said)) == {f"/var/spool/postfix/private/{n}" for n in ("lmtp", "auth", "policy")}, said
