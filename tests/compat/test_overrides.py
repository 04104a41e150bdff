"""-o in lines of master.cf: what Debian's program of that name reads is carried out for that line, refused by name, or harmless."""
import pathlib
import re
import subprocess

import pair
import pytest
from kit import POSTHOUSE
from test_defaults import TYPES, Program, face_, said_of  # noqa: F401

SRC = pathlib.Path(__file__).resolve().parents[2] / "src"
LINES = {"smtpd": "127.0.0.1:9 inet n - n - - smtpd", "smtp": "smtp unix - - n - - smtp", "lmtp": "lmtp unix - - n - - lmtp",
         "local": "local unix - n n - - local"}

# lmtp_lhlo_name is in the place of smtp_helo_name, and so on.
MEMBERS = dict(re.findall(r"^LMTP_PARAM\(\w+, (\w+), (\w+),", (SRC / "config/lmtp.def").read_text(), re.M))

# Read from main.cf somewhere, and yet no -o of that program is dropped.
ELSEWHERE = {
    "inet_interfaces": "a client's own line says where it connects from; which address is this machine's is no setting",
    "lmtp_dns_support_level": "MX records are not asked for by LMTP; addresses are asked for as its line says",
    "lmtp_host_lookup": "main.cf's is for what is of no line",
    "mail_name": "the greeting and Received: are of the line; reports and what goes on by an alias are of no line",
    "message_size_limit": "with Postfix, too, main.cf's is the most: it is cleanup's",
    "mydestination": "class and aliases are trivial-rewrite's",
    "parent_domain_matches_subdomains": "class and transport_maps are trivial-rewrite's; access tables and lists are of the line",
    "recipient_delimiter": "aliases are cleanup's and local's; access tables are of the line",
    "relay_domains": "the class is trivial-rewrite's",
    "show_user_unknown_table_name": "it is about recipients of the line; those of sender's transports are trivial-rewrite's",
    "smtpd_tls_ccert_verifydepth": "compared with it",
    "smtpd_tls_chain_files": "compared with it",
    "smtp_host_lookup": "main.cf's is for what is of no line",
    "smtputf8_enable": "what goes on by an alias is local's",
    "tls_server_sni_maps": "each line's are loaded",
    "virtual_alias_domains": "the class is trivial-rewrite's",
    "virtual_mailbox_domains": "the class is trivial-rewrite's",
}
# The manual names them, and mail is not changed by them there.
DEAF = {"delay_warning_time": "qmgr says it", "minimal_backoff_time": "qmgr says it",
        "enable_original_recipient": "local's is about X-Original-To: in mailboxes"}


def functions():
    """(name, text) of each function that works on mail; they are written one way, as clang-format leaves them."""
    for folder in ("receive", "clean", "route", "deliver", "schedule", "report", "maps", "mail"):
        for path in sorted((SRC / folder).glob("*.c")):
            for text in re.split(r"^}\n", path.read_text(), flags=re.M):
                m = re.search(r"^(?:[a-z][\w *]*?[ *])(\w+)\([^;{]*?\)\s*{\n", text, re.M | re.S)
                if m:
                    yield m[1], text[m.start():]


def read_from_main():
    """Parameters that some function takes from main.cf's own, whatever a service's line says."""
    names, given = set(), {"keys_sender", "keys_local_sender", "keys_recipient"}
    for _, text in functions():
        names |= set(re.findall(r"(?:cfg|\bc)->p\.(\w+)", text))
        for var in re.findall(r"\*(\w+) = &[\w>-]*cfg->p;", text):
            names |= set(re.findall(rf"\b{var}->(\w+)", text))
        given |= set(re.findall(r"(\w+)\)?\((?:[^()]|\([^()]*\))*?&[\w>-]*cfg->p\b", text))
    for name, text in functions():
        if name in given:
            names |= set(re.findall(r"\bp->(\w+)", text))
    assert len(names & set(TYPES)) > 30
    return names & set(TYPES)


def manual(program):
    env = {"MANWIDTH": "300", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    text = subprocess.run(["man", "-P", "cat", "8postfix", program], capture_output=True, text=True, env=env).stdout
    return set(re.findall(r"^ {7}([a-z0-9]\w*_\w+|relayhost|mydomain|myhostname|myorigin) \(", text, re.M))


def verdicts():
    table = subprocess.run([POSTHOUSE, "config", "-U"], capture_output=True, text=True, check=True).stdout
    return {row[1]: row[0] for row in (line.split("\t") for line in table.splitlines())}


def is_harmless(name, rows):
    return rows.get(name) == "harmless" or any(kind == "harmless suffix" and name.endswith(end) or kind == "harmless prefix"
                                               and name.startswith(end) for end, kind in rows.items())


def other(name, now):
    number = {"yes": "no", "no": "yes"}.get(now) or ("7" if re.fullmatch(r"\d+", now) else "7s" if re.fullmatch(r"\d+[smhdw]", now) else "")
    return number or f"static:{name}"


@pytest.mark.parametrize("program", LINES)
def test_an_override_is_carried_out_or_refused_or_harmless(face, program):
    defaults = subprocess.run([*pair.INSIDE, "postconf", "-d"], capture_output=True, text=True, check=True).stdout
    now = dict(re.findall(r"^(\w+) =[ ]*(.*)$", defaults, re.M))
    own = "smtp" if program == "lmtp" else program
    names = manual(program) | {name for name, _ in Program(pathlib.Path(pair.ROOT) / "usr/lib/postfix/sbin" / own).names()}
    names = {name for name in names if name in now}  # the manual has old ones, too
    names -= {name for name in names if program in ("smtp", "lmtp") and name.startswith({"smtp": "lmtp_", "lmtp": "smtp_"}[program])}
    assert len(names) > 30
    sets = "".join(f"\n  -o {n}={other(n, now[n])}" for n in sorted(names))
    (face.parent / "master.cf").write_text("".join(line + (sets if p == program else "") + "\n" for p, line in LINES.items()))
    said = said_of(face, "relayhost = [127.0.0.1]:9\n")
    rows, elsewhere, silent = verdicts(), read_from_main(), []
    for name in sorted(names):
        refused = f"not implemented: {name}: " in said
        carried_out = name in TYPES and (MEMBERS.get(name, name) not in elsewhere or name in ELSEWHERE)
        if not refused and not carried_out and not is_harmless(name, rows) and name not in DEAF:
            silent.append(name)
    assert silent == []
