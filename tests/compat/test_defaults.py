"""Defaults, the least numbers, and who reads what: params.def beside Debian's postconf -d and the tables in its programs."""
import pathlib
import re
import struct
import subprocess

import pair
import pytest
from kit import BUILD

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "src" / "config"
TYPES = {name: kind for file in ("params.def", "lmtp.def")
         for kind, name in re.findall(r"^(?:LMTP_)?PARAM\((\w+), (\w+),", (CONFIG / file).read_text(), re.M)}

# Each difference between defaults: ours, Debian's, and why mail is none the worse for it.
OWN = "it is Posthouse's own name, user or folder"
LEVEL = "docs/differences.md: but for fingerprints, defaults are those of compatibility_level 3.6 whatever it is set to"
STRESS = "no process is started with stress"
DIFFERENT = {
    "alias_maps": ("hash:/etc/aliases", "hash:/etc/aliases, nis:mail.aliases", "there is no NIS"),
    "append_dot_mydomain": ("no", "${{$compatibility_level} <level {1} ? {yes} : {no}}", LEVEL),
    "compatibility_level": ("3.6", "0", LEVEL),
    "config_directory": ("$system_config_directory", "/etc/postfix", OWN),
    "data_directory": ("$system_data_directory", "/var/lib/postfix", OWN),
    "lmtp_tls_mandatory_protocols": (">=TLSv1.2", ">=TLSv1", "docs/differences.md: TLS 1.0 and 1.1 are retired"),
    "mail_name": ("Posthouse", "Postfix", OWN),
    "mail_owner": ("posthouse", "postfix", OWN),
    "mydomain": ("$system_domain", None, "a fact about the machine, compared by test_expanded_defaults"),
    "myhostname": ("$system_hostname", None, "a fact about the machine, compared by test_expanded_defaults"),
    "mynetworks": ("$system_networks", None, "a fact about the machine, compared by test_expanded_defaults"),
    "mynetworks_style": ("host", "${{$compatibility_level} <level {2} ? {subnet} : {host}}", LEVEL),
    "queue_directory": ("$system_queue_directory", "/var/spool/postfix", OWN),
    "relay_domains": ("", "${{$compatibility_level} <level {2} ? {$mydestination} : {}}", LEVEL),
    "smtp_tls_mandatory_protocols": (">=TLSv1.2", ">=TLSv1", "docs/differences.md: TLS 1.0 and 1.1 are retired"),
    "smtp_tls_security_level": ("may", "", "docs/differences.md; smtp_enforce_tls counts where nothing sets the level"),
    "smtpd_client_event_limit_exceptions": ("$mynetworks", "${smtpd_client_connection_limit_exceptions:$mynetworks}",
                                            "the old name: check calls it unused, and its clients have limits"),
    "smtpd_forbid_bare_newline": ("normalize", "no", "docs/differences.md: SMTP smuggling"),
    "smtpd_hard_error_limit": ("20", "${stress?{1}:{20}}", STRESS),
    "smtpd_junk_command_limit": ("100", "${stress?{1}:{100}}", STRESS),
    "smtpd_per_request_deadline": ("no", "${smtpd_per_record_deadline?{$smtpd_per_record_deadline}:{${stress?{yes}:{no}}}}",
                                   STRESS + "; the old name is one that check calls unused, and a time limit is longer without it"),
    "smtpd_relay_restrictions": ("permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
                                 "${{$compatibility_level} <level {1} ? {} : {permit_mynetworks, permit_sasl_authenticated, "
                                 "defer_unauth_destination}}", LEVEL),
    "smtpd_sasl_type": ("accounts", "cyrus", "docs/differences.md: there is no Cyrus SASL, and AUTH is off by default"),
    "smtpd_starttls_timeout": ("300s", "${stress?{10}:{300}}s", STRESS),
    "smtpd_timeout": ("300s", "${stress?{10}:{300}}s", STRESS),
    "smtpd_tls_mandatory_protocols": (">=TLSv1.2", ">=TLSv1", "docs/differences.md: TLS 1.0 and 1.1 are retired"),
    "smtputf8_enable": ("yes", "${{$compatibility_level} <level {1} ? {no} : {yes}}", LEVEL),
    "syslog_name": ("postfix", "${multi_instance_name?{$multi_instance_name}:{postfix}}", "there is one instance"),
    "virtual_mailbox_domains": ("${virtual_mailbox_maps?{$virtual_mailbox_maps}}", "$virtual_mailbox_maps",
                                "the same, but for a warning about a name that nothing sets"),
}
# The same at the level that Posthouse has by default, where no word of the two says so.
SAME_EXPANDED = {"append_dot_mydomain", "compatibility_level", "mydomain", "myhostname", "mynetworks", "mynetworks_style", "relay_domains",
                 "smtpd_client_event_limit_exceptions", "smtpd_hard_error_limit", "smtpd_junk_command_limit", "smtpd_per_request_deadline",
                 "smtpd_relay_restrictions", "smtpd_starttls_timeout", "smtpd_timeout", "smtputf8_enable", "syslog_name",
                 "virtual_mailbox_domains"}
# With 3.10: of these both have the same by now.
LATER_SAME = {"lmtp_tls_mandatory_protocols", "smtp_tls_mandatory_protocols", "smtpd_tls_mandatory_protocols", "smtpd_forbid_bare_newline"}


@pytest.fixture(name="face")
def face_(tmp_path):
    (tmp_path / "postconf").symlink_to(BUILD / "src" / "posthouse")
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\nlmtp unix - - n - - lmtp\n")
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    return tmp_path / "postconf"


def listed(command, *args):
    out = subprocess.run([*command, *args], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^(\w+) =[ ]*(.*)$", out, re.M))


def test_every_default_is_postfixs_or_has_a_reason(face):
    ours, theirs = listed([face], "-c", face.parent, "-d"), listed([*pair.INSIDE, "postconf"], "-d")
    assert len(ours) > 200 and set(ours) == set(TYPES)
    both = {name: (ours[name], theirs[name]) for name in ours if name in theirs and ours[name] != theirs[name]}
    known = {name: (own, both.get(name, (0, other))[1] if other is None else other) for name, (own, other, _) in DIFFERENT.items()}
    later = LATER_SAME if pair.VERSION >= (3, 9) else set()
    assert {name: two for name, two in both.items() if known.get(name) != two and name not in later} == {}
    assert set(known) - set(both) - later == set()


def test_expanded_defaults(face):
    """With main.cf silent but for the level: what a value becomes is the same, too, where the table above gives no other one."""
    ours = listed([face], "-c", face.parent, "-x")
    theirs = listed([*pair.INSIDE, "postconf"], "-c", face.parent, "-x")
    # All of 127.0.0.0/8 is this machine.
    theirs = {name: text.replace("127.0.0.1/32", "127.0.0.0/8") for name, text in theirs.items()}
    both = {name: (ours[name], theirs[name]) for name in ours if name in theirs and ours[name] != theirs[name]}
    # What stands for itself in the table, and what is made of such a one.
    own = {name for name in DIFFERENT if name not in SAME_EXPANDED} | {"smtpd_banner", "local_recipient_maps"}
    assert {name: two for name, two in both.items() if name not in own} == {}


class Program:
    """The tables of parameters in a program of Postfix's: name, default, place, least, most."""

    def __init__(self, path):
        self.data = path.read_bytes()
        sections = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout
        self.sections = [(int(a, 16), int(at, 16), int(n, 16)) for kind, a, at, n in re.findall(
            r"\]\s+\S+\s+(\S+)\s+([0-9a-f]{16})\s+([0-9a-f]+)\s+([0-9a-f]+)", sections) if kind != "NOBITS"]
        moved = subprocess.run(["readelf", "-rW", path], capture_output=True, text=True, check=True).stdout
        self.moved = {int(at, 16): to for at, to in re.findall(r"^([0-9a-f]{16})\s+[0-9a-f]{16}\s+R_\w+\s+(.*)$", moved, re.M)}

    def place(self, address):
        return next((at + address - start for start, at, n in self.sections if start <= address < start + n and start), None)

    def names(self):
        for at, to in self.moved.items():
            start = self.place(int(to, 16)) if re.fullmatch("[0-9a-f]+", to) else None
            if start is None or at + 16 not in self.moved:
                continue
            name = self.data[start:self.data.index(b"\0", start)].decode("latin1")
            # A time and a text have their default as text: a place more to be moved, that a number and a yes or no have not.
            if name in TYPES and (at + 8 in self.moved) == (TYPES[name] not in ("INT", "BOOL")):
                yield name, struct.unpack_from("<i", self.data, self.place(at) + 24)[0]


def least_numbers():
    folder = pathlib.Path(pair.ROOT) / "usr/lib/postfix"
    least = {}
    for path in [*sorted(folder.glob("sbin/*")), *sorted(folder.glob("libpostfix-*.so"))]:
        if path.read_bytes()[:4] != b"\x7fELF":
            continue
        for name, n in Program(path).names():
            if TYPES[name] == "INT" or TYPES[name].startswith("TIME"):
                least[name] = max(n, least.get(name, 0)) if n < 1 << 16 else least.get(name, 0)
    return {name: n for name, n in least.items() if name not in ("smtp_tls_loglevel", "smtpd_tls_loglevel")}


def said_of(face, text):
    (face.parent / "main.cf").write_text("compatibility_level = 3.6\n" + text)
    run = subprocess.run([BUILD / "src" / "posthouse", "-c", face.parent, "check"], capture_output=True, text=True)
    return run.stdout + run.stderr


def test_what_is_too_small_for_postfix_is_refused(face):
    """A program of Postfix's does not start with such a value, and mail waits.  Here 0 was every mail refused, or a host stormed."""
    least = least_numbers()
    assert least["hopcount_limit"] == 1 and least["line_length_limit"] == 512 and len(least) > 50
    small = {name: n - 1 for name, n in least.items() if n > 0 and name != "smtpd_forbid_bare_newline_reject_code"}
    said = said_of(face, "".join(f"{name} = {n}\n" for name, n in small.items()))
    assert [name for name, n in small.items() if f"{name} = {n} is too small: at least {n + 1}" not in said] == []
    said = said_of(face, "".join(f"{name} = {n}\n" for name, n in least.items() if n < 500 or name == "line_length_limit"))
    assert "too small" not in said


def test_numbers_that_postfix_does_not_read_are_refused(face):
    """4294967296 was 0 for what counts in fewer bits."""
    said = said_of(face, "hopcount_limit = 4294967296\nmessage_size_limit = 4294967296\nqueue_minfree = 4294967296\n")
    assert "bad numerical configuration: hopcount_limit" in said and said.count("bad numerical") == 1


# Programs whose line in master.cf all mail passes in Postfix, and that Posthouse does without.
ALONE = ["qmgr", "cleanup", "bounce", "trivial-rewrite", "anvil"]
OF_TRANSPORTS = ["smtp_destination_rate_delay = 7s", "relay_destination_concurrency_limit = 7", "smtp_destination_recipient_limit = 7",
                 "smtp_destination_concurrency_failed_cohort_limit = 7", "smtp_transport_rate_delay = 7s",
                 "default_transport_rate_delay = 7s"]


def other_value(name, now):
    if name == "queue_run_delay":
        return now  # it is accepted, and nothing hangs on it
    return {"yes": "no", "no": "yes"}.get(now) or {"INT": "7", "TIME_S": "7s", "TIME_D": "7d", "TIME_H": "7h"}.get(TYPES[name], "x.example")


@pytest.mark.parametrize("program", ALONE)
def test_what_a_program_reads_from_its_own_line_is_carried_out_or_refused(face, program):
    """With Postfix an -o counts in the program that reads the parameter, which Posthouse may have no line for."""
    now = listed([face], "-c", face.parent, "-x")
    read = Program(pathlib.Path(pair.ROOT) / "usr/lib/postfix/sbin" / program).names()
    sets = {name: other_value(name, now[name]) for name, _ in read}
    sets |= dict(row.split(" = ") for row in OF_TRANSPORTS if program == "qmgr")
    assert sets
    (face.parent / "master.cf").write_text("127.0.0.1:9 inet n - n - - smtpd\nsmtp unix - - n - - smtp\n"
                                           f"one unix n - n - - {program}\n" + "".join(f"  -o {n}={v}\n" for n, v in sets.items()))
    said = said_of(face, "relayhost = [127.0.0.1]:9\n")
    passed = [name for name, v in sets.items() if f"not implemented: {name}: " not in said and v != now.get(name)]
    assert passed == [], said
