"""Configurations as somebody tired leaves them: check names file, line and what is wrong, and the running daemon survives a reload
with each of them; those that it refuses do not start either, and say the same."""
import shutil
import subprocess

import pytest
from kit import POSTHOUSED, Posthouse

MAIN = "relayhost = [127.0.0.1]:9\nsmtpd_peername_lookup = no\n"
TLS = "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n"
SASL = "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{dir}/table\n"
ACCESS = "smtpd_client_restrictions = permit_mynetworks, check_client_access {table}\n"
LINE = "127.0.0.1:{port} inet n - n - - smtpd\n"
MORE = "127.0.0.1:{other} inet n - n - - smtpd{rest}\n"
# name: (lines at the end of main.cf, master.cf or None, a table, what check says, by which exit status, what a reload and a start do)
GOES, REFUSED = True, False
CASES = {
    "a typo": ("relay_hots = x\nrealyhost = [x]:25\n", None, "",
        ["line {n}: unused parameter: realyhost=[x]:25: there is none of that name; is relayhost meant?"], 1, GOES),
    "lines end in CR LF": ("mail_name = x\r\nappend_dot_mydomain = no\r\n", None, "", ["no mistakes found"], 0, GOES),
    "master.cf ends in CR LF": ("", LINE.replace("\n", "\r\n"), "", ["no mistakes found"], 0, GOES),
    "a mark in main.cf": ("\ufeffmyorigin = x.example\n", None, "",
        ["unused parameter: \ufeffmyorigin=x.example: its name has characters that no name has"], 1, GOES),
    "a mark in master.cf": ("", "\ufeff" + LINE, "", ["master.cf, line 1: it begins with a byte order mark"], 2, REFUSED),
    "a blank that does not break": ("mail_name\u00a0= x\n", None, "",
        ["unused parameter: mail_name\u00a0=x: its name has characters"], 1, GOES),
    "an indented parameter": ("append_dot_mydomain = yes\n\tmail_name = x\n", None, "",
                              ["bad boolean configuration: append_dot_mydomain = yes mail_name = x (must be yes or no)"], 2, REFUSED),
    "no equals sign": ("mail_name x\n", None, "", ["missing '=' after attribute name: \"mail_name x\""], 2, REFUSED),
    "half a line of master.cf": ("", LINE + "587 inet n - n\n", "",
        ["master.cf, line 2: bad field count: a service needs 8 fields"], 2, REFUSED),
    "blanks in an override": ("", LINE + "  -o mail_name = x\n", "",
        ["master.cf, line 1: -o needs name=value without blanks, or {{ name = value }}: \"mail_name\""], 2, REFUSED),
    "a name that nothing sets": ("", LINE + MORE.replace("{rest}", " -o smtpd_client_restrictions=$mua_restrictions"), "",
        ["master.cf, line 2: smtpd_client_restrictions: undefined parameter: mua_restrictions"], 1, GOES),
    "a user who is not there": ("lookup_owner = nosuchuser\n", None, "", ["lookup_owner = nosuchuser: no such user"], 2, REFUSED),
    "a table that is a folder": ("transport_maps = texthash:{dir}/folder\n", None, "",
        ["line {n}: transport_maps: open database {dir}/folder: Is a directory"], 2, GOES),
    "an access table that is not there": (ACCESS.replace("{table}", "hash:{dir}/none"), None, "",
        ["line {n}: smtpd_client_restrictions: open database {dir}/none.db: No such file or directory (run postmap on it)"], 2, GOES),
    "one of a service": ("", LINE + MORE.replace("{rest}", " -o smtpd_helo_restrictions=check_helo_access,texthash:{dir}/none"), "",
                         ["master.cf, line 2: smtpd_helo_restrictions: open database {dir}/none: No such file"], 2, GOES),
    "a network that is none": (ACCESS.replace("{table}", "cidr:{dir}/table"), None, "10.0.0.0/8 OK\n10.0.0.0/99 REJECT\n",
        ["smtpd_client_restrictions: {dir}/table, line 2: bad network length: this line counts for nothing"], 1, GOES),
    "a pattern that is none": ("transport_maps = regexp:{dir}/table\n", None, "/ok/ smtp:\n/(/ smtp:\n",
        ["{dir}/table, line 2: Unmatched ( or \\(: this line counts for nothing"], 1, GOES),
    "a type with a typo": ("transport_maps = hsah:{dir}/table\n", None, "", ["unsupported dictionary type: hsah:{dir}/table"], 2, GOES),
    "a table without a type": ("transport_maps = {dir}/table\n", None, "",
        ["is no table: a type belongs before it (hash:{dir}/table)"], 2, GOES),
    "a port inside the brackets": ("relayhost = [127.0.0.1:9]\n", None, "",
        ["relayhost: \"[127.0.0.1:9]\": valid hostname or network address required: mail for it waits"], 2, None),
    "quotes of a page": ("relayhost = \u201c[127.0.0.1]:9\u201d\n", None, "",
        ["relayhost: \"\u201c[127.0.0.1]:9\u201d\": bad port or unknown service"], 2, None),
    "certificate for key": (TLS.replace("{cert}", "{swapped}").replace("{key}", "{cert}").replace("{swapped}", "{key}"), None, "",
        ["cannot load the TLS certificate of {key}: cannot use the certificate: the file has a private key alone"], 2, REFUSED),
    "a certificate that is a folder": (TLS.replace("{cert}", "{dir}/folder"), None, "",
        ["certificate of {dir}/folder: Is a directory"], 2, REFUSED),
    "a unit": ("message_size_limit = 10MB\n", None, "",
        ["line {n}: bad numerical configuration: message_size_limit = 10MB (must be a number)"], 2, REFUSED),
    "a time in words": ("maximal_queue_lifetime = 5 days\n", None, "",
        ["maximal_queue_lifetime = 5 days (must be a number and s, m, h, d or w)"], 2, REFUSED),
    "values that name each other": ("mail_name = $mynetworks_style\nmynetworks_style = $mail_name\n", None, "",
        ["mynetworks_style: unreasonable macro call nesting in"], 2, REFUSED),
    "a restriction with a typo": ("smtpd_sender_restrictions = permit_mynetwork\n", None, "",
        ["smtpd_sender_restrictions: unknown restriction \"permit_mynetwork\": mail that comes to it is refused, 451 4.3.5"], 2, None),
    "a port twice": ("", LINE + LINE, "", ["master.cf, line 2: service 127.0.0.1:{port}: "], 2, None),
    "rows with CR LF and a mark": (SASL, None, "\ufeff[127.0.0.1]:9 u:p\r\n",
        ["begins with a byte order mark, which is part of the key"], 1, GOES),
}


@pytest.fixture(scope="module")
def daemon(server_cert):
    with Posthouse(MAIN) as p:
        (p.dir / "folder").mkdir()
        p.names = {"dir": p.dir, "port": p.port, "cert": server_cert[0], "key": server_cert[1], "other": p.port + 1}
        p.good = [(p.dir / name).read_text() for name in ("main.cf", "master.cf")]
        yield p
        for name, text in zip(("main.cf", "master.cf"), p.good):
            (p.dir / name).write_text(text)
        assert p.run("reload").returncode == 0 and p.send().startswith("250")


@pytest.mark.parametrize("case", CASES)
def test_what_a_tired_administrator_writes(daemon, case):
    main, master, table, said, status, goes = CASES[case]
    p, names = daemon, dict(daemon.names)
    names["n"] = len(p.good[0].splitlines()) + len(main.splitlines())
    (p.dir / "main.cf").write_bytes((p.good[0] + main.format(**names)).encode())
    (p.dir / "master.cf").write_bytes((p.good[1] if master is None else master.format(**names)).encode())
    (p.dir / "table").write_bytes(table.encode())
    (p.dir / "table").chmod(0o600)
    shutil.chown(p.dir / "table", (p.dir / "spool").stat().st_uid)
    child = p.child("relay")
    r = p.run("check")
    lines = r.stdout.splitlines()
    for text in said:
        assert sum(text.format(**names) in line for line in lines) == 1, r.stdout
    assert r.returncode == status, r.stdout
    reload = p.run("reload").returncode
    assert reload == (0 if goes else 1), p.log()[-800:]
    assert p.proc.poll() is None and p.child("relay") == child
    if goes is REFUSED:
        r = subprocess.run([POSTHOUSED, "-c", p.dir, "-f"], capture_output=True, text=True, env=p.env(), timeout=60)
        assert r.returncode != 0 and "posthoused: fatal: " in r.stderr
        assert any(text.format(**names).split(": ")[-1][:40] in r.stderr for text in said) or "another posthoused" in r.stderr
