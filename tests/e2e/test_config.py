"""main.cf and master.cf in Postfix's syntax; posthouse config and check."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest
from kit import POSTHOUSE, FakeRelay, Posthouse, free_port, wait_for

HERE = pathlib.Path(__file__).resolve().parent

# Values go into parameters that both know, so that postconf shows them.
SYNTAX = r"""
# comment
mail_name = one # not a comment
relayhost = two
  three
# a comment inside a continuation

   four
recipient_delimiter =
proxy_interfaces = "x"
smtp_helo_name = a$$b
lmtp_lhlo_name = $mail_name/${relayhost}/$(recipient_delimiter)
default_transport = ${recipient_delimiter?{yes}:{no}} ${mail_name?yes} ${recipient_delimiter:none} ${mail_name:none}
relay_transport = ${{$recipient_delimiter} == {} ? {equal} : {different}} ${{10} > {9} ? {more} : {less}}
local_transport = ${{$compatibility_level} >=level {3.6} ? {new} : {old}}
myhostname = host.example.com
mynetworks = 127.0.0.0/8
mail_name = last wins
"""
NAMES = ["mail_name", "relayhost", "recipient_delimiter", "proxy_interfaces", "smtp_helo_name", "lmtp_lhlo_name",
         "default_transport", "relay_transport", "local_transport", "mydomain", "myorigin", "mydestination"]


def test_syntax_like_postconf(tmp_path):
    """The same file by Debian's postconf: the same values."""
    p = Posthouse("", directory=tmp_path)
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n" + SYNTAX)
    (tmp_path / "master.cf").unlink()
    for name in NAMES:
        theirs = subprocess.run(["postconf", "-c", str(tmp_path), "-h", "-x", name], capture_output=True, text=True)
        assert p.run("config", "-h", "-x", name).stdout.strip() == theirs.stdout.strip(), name
    assert p.run("config", "-h", "-x", "mail_name").stdout == "last wins\n"
    assert "overriding earlier entry: mail_name=last wins" in p.run("check").stdout


# Before a command: this system's name has no dot there.
IN_A_SHORT_NAME = ["unshare", "-u", "sh", "-c", 'echo short > /proc/sys/kernel/hostname && exec "$@"', "sh"] if os.geteuid() == 0 else []


@pytest.mark.parametrize("text", ["mydomain = domain.example", "part = domain.example\nmydomain = in.$part", "",
                                  "mydomain = domain.example\nmyhostname = host"])
def test_the_name_of_a_system_without_a_domain(tmp_path, text):
    """It is in mydomain, as in Postfix."""
    p = Posthouse("", directory=tmp_path)
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{text}\n")
    (tmp_path / "master.cf").unlink()
    for name in ("myhostname", "mydomain", "myorigin", "mydestination", "smtp_helo_name"):
        theirs, ours = (subprocess.run([*IN_A_SHORT_NAME, *command, "-h", "-x", name], capture_output=True, text=True).stdout
                        for command in (["postconf", "-c", tmp_path], [POSTHOUSE, "postconf", "-c", tmp_path]))
        assert ours == theirs != "", (name, ours, theirs)


@pytest.mark.parametrize("text,error", [
    ("nonsense line", r"line 1: missing '=' after attribute name: \"nonsense line\""),
    ("  x = y", r"line 1: logical line must not start with whitespace"),
    ("smtp_sasl_auth_enable = maybe", r"line 1: bad boolean configuration: smtp_sasl_auth_enable = maybe"),
    ("relay_destination_concurrency_limit = many", r"line 1: bad numerical configuration: relay_destination_concurrency_limit = many"),
    ("smtp_destination_rate_delay = 1x", r"line 1: bad time configuration: smtp_destination_rate_delay = 1x"),
    ("smtp_destination_recipient_limit = 2h", r"line 1: bad numerical configuration: smtp_destination_recipient_limit = 2h"),
    ("smtpd_recipient_limit = many", r"line 1: bad numerical configuration: smtpd_recipient_limit = many"),
    ("inet_protocols = ipv4, ip6", r"line 1: inet_protocols: there is no protocol \"ip6\": ipv4, ipv6 or all"),
    ("inet_protocols =", r"line 1: inet_protocols: it names no protocol"),
    ("hopcount_limit = 0", r"line 1: hopcount_limit = 0 is too small: at least 1"),
    ("maximal_backoff_time = 0h", r"line 1: maximal_backoff_time = 0h is too small: at least 1 s"),
    ("smtpd_junk_command_limit = 4294967296", r"line 1: bad numerical configuration: smtpd_junk_command_limit = 4294967296"),
    ("maximal_queue_lifetime = 5x", r"line 1: bad time configuration: maximal_queue_lifetime = 5x"),
    ("relayhost = ${myhostname", r"line 1: relayhost: truncated parameter"),
    ("relayhost = $relayhost", r"line 1: relayhost: unreasonable macro call nesting"),
    ("myhostname = two words", r'line 1: myhostname: "two words" is no host name'),
    ("mail_name = x\nmydomain = .example", r'line 2: mydomain: ".example" is no host name'),
    ("smtp_sasl_security_options = noplaintxt", r"unknown word \"noplaintxt\""),
])
def test_mistakes_are_named(tmp_path, text, error):
    p = Posthouse("", directory=tmp_path)
    (tmp_path / "main.cf").write_text(text + "\n")
    r = p.run("check")
    assert r.returncode == 2 and re.search(error, r.stdout + r.stderr), r.stdout + r.stderr
    with pytest.raises(AssertionError, match="posthoused ended"):
        p.start()


TOLERATED = [
    ("inet_interfaces =", r"warning: .*line 8: inet_interfaces: it names no address: only services of master.cf that have an address"),
    ("relayhost = [relay.server", r"error: .*line 8: relayhost: \"\[relay.server\": missing ']': mail for it waits"),
    ("relayhost = smtp:[relay.server]:25", r"error: .*a transport name does not belong in a next hop"),
    ("relayhost = [relay.server]:smptp", r"error: .*bad port or unknown service"),
    ("relayhost = [127.0.0.1]:9 # the office", r'warning: .*line 8: relayhost: "# the office" is part of the value and no comment'),
    ("relay_domains = own.example #,other.example", r'warning: .*relay_domains: "#,other.example" is part of the value'),
    ("mynetworks = 127.0.0.0/8, 10.0.0.1/8", r'error: .*mynetworks: non-null host address bits: "10.0.0.1/8": clients .* get 451'),
    ("relayhost = [relay.server.]:25",
     r'error: .*line 8: relayhost: "\[relay.server.\]:25": a host name has no dot at its end: mail for it'),
    ("smtp_tls_security_level = dane", r'error: .*line 8: smtp_tls_security_level: .* level "dane": mail that goes by it waits'),
    ("local_header_rewrite_clients = permit_mynetwork", r'warning: .*local_header_rewrite_clients: there is no "permit_mynetwork"'),
    ("smtpd_timeout = 7min", r'warning: .*line 8: smtpd_timeout: "7min" is 420 seconds: what stands behind the first unit'),
    ("maximal_queue_lifetime = 1h30m", r'warning: .*line 8: maximal_queue_lifetime: "1h30m" is 3600 seconds'),
    ("smtp_destination_rate_delay = 1s5", r'warning: .*line 8: smtp_destination_rate_delay: "1s5" is 1 seconds'),
    ("mynetworks = 127.0.0.0/8, 10.0.0.0/33", r'error: .*mynetworks: bad network length: "10.0.0.0/33"'),
]


def test_what_postfix_tolerates_stops_no_daemon(dns):
    """A start says it and goes on, and so does a reload that brings nothing worse; check names it; mail that it is about waits, or its
    client is told to come again."""
    with Posthouse("relayhost = [127.0.0.1]:9\n", dns=dns) as p:
        for text, said in TOLERATED:
            p.stop()
            p.write_main(text + "\n")
            p.start()
            assert re.search(said.replace("line 8", r"line \d"), p.run("check").stdout), text
            assert p.send().startswith("250"), text
            p.write_main(f"{text}\nmail_name = Another\n")
            p.reload()
            with p.client() as c:
                assert "Another" in c.greeting
            if said.startswith("error"):
                logged = said.replace("error: ", r"master\[\d+\]: warning: ").replace("line 8", r"line \d+")
                p.wait_log(logged if "line" in logged else logged.replace("warning: ", "warning: .*"), count=2)
        p.stop()
        p.write_main("mynetworks = 192.168.7.9/24, 127.0.0.0/8\n")
        p.start()
        assert re.fullmatch("451 4.3.0 .*Temporary lookup failure", p.send())
        p.wait_log('non-null host address bits in "192.168.7.9/24"')
        assert "fatal" not in p.log()


GONE = "cannot read /no/such/file: No such file or directory: what it is asked about waits"
UNREAD = {
    "mynetworks = /no/such/file": (f"mynetworks: {GONE}", "451 4.3.0"),
    "mynetworks = 127.0.0.0/8, !/no/such/file": (f"mynetworks: {GONE}", "250"),
    "relay_domains = own.example /no/such/file": (f"relay_domains: {GONE}", "451 4.3.0"),
    "mydestination = /no/such/file": (f"mydestination: {GONE}", "451 4.3.0"),
    "virtual_mailbox_domains = /no/such/file": (f"virtual_mailbox_domains: {GONE}", "451 4.3.0"),
    "smtpd_client_event_limit_exceptions = /no/such/file": (f"smtpd_client_event_limit_exceptions: {GONE}", "250"),
    "smtpd_sasl_exceptions_networks = /no/such/file": (f"smtpd_sasl_exceptions_networks: {GONE}", "250"),
    "smtpd_forbid_bare_newline_exclusions = /no/such/file": (f"smtpd_forbid_bare_newline_exclusions: {GONE}", "250"),
    "authorized_submit_users = /no/such/file": (f"authorized_submit_users: {GONE}", "250"),
    "smtp_sasl_mechanism_filter = /no/such/file": (f"smtp_sasl_mechanism_filter: {GONE}", "250"),
    "smtpd_helo_restrictions = permit_mynetwork": ('smtpd_helo_restrictions: unknown restriction "permit_mynetwork"', "451 4.3.5"),
    "smtpd_relay_restrictions = defer_unauth, reject_unauth_destination":
        ('smtpd_relay_restrictions: unknown restriction "defer_unauth"', "451 4.3.5"),
}


@pytest.mark.parametrize("text", UNREAD)
def test_a_list_that_cannot_be_read_stops_no_daemon(dns, text):
    """What is asked about it waits, all else goes on; a reload has something better to go on with, and is refused."""
    said, reply = UNREAD[text]
    with Posthouse(f"relayhost = [127.0.0.1]:9\n{text}\n", dns=dns) as p:
        assert p.send().startswith(reply)
        r = p.run("check")
        assert r.returncode == 2 and sum(line.startswith("error: ") and said in line for line in r.stdout.splitlines()) == 1, r.stdout
        assert "non-existent" not in r.stdout
        p.wait_log(r"master\[\d+\]: warning: .*" + re.escape(said))
        assert p.run("reload").returncode == 0 and p.send().startswith(reply)
        p.write_main("relayhost = [127.0.0.1]:9\n")
        assert p.run("reload").returncode == 0 and p.send().startswith("250")
        p.write_main(f"relayhost = [127.0.0.1]:9\n{text}\n")
        assert p.run("reload").returncode == 1 and p.send().startswith("250")


def test_check_is_clean_and_exit_codes(tmp_path):
    p = Posthouse("", directory=tmp_path)
    r = p.run("check")
    assert (r.returncode, "no mistakes found" in r.stdout) == (0, True), r.stdout
    p.write_main("relayhost = [relay.server]:2525\nsmtp_sasl_auth_enable = yes\nwhat_is_this = x\n"
                 "smtp_sasl_password_maps = hash:{dir}/missing\n")
    r = p.run("check")
    assert r.returncode == 2
    assert "open database" in r.stdout and "run postmap on it" in r.stdout
    assert "unused parameter: what_is_this=x" in r.stdout


def test_check_stale_table(tmp_path):
    p = Posthouse("smtp_sasl_password_maps = hash:{dir}/pw\n", directory=tmp_path)
    (tmp_path / "pw").write_text("relay.server u:p\n")
    p.postmap(f"hash:{tmp_path}/pw")
    os.utime(tmp_path / "pw.db", (1e9, 1e9))
    os.utime(tmp_path / "pw", (1e9 + 5000, 1e9 + 5000))
    r = p.run("check")
    assert r.returncode == 1 and "is older than source file" in r.stdout


@pytest.mark.parametrize("name,value,bad", [("mynetworks", "!127.0.0.1:25, 127.0.0.0/8", "127.0.0.1:"),
                                            ("relay_domains", "Hash:/etc/postfix/x, a.example", "Hash:"),
                                            ("mynetworks", "127.0.0.0/8 [::1]/128 fe80::/10 [2001:db8::]/32", None)])
def test_check_of_a_pattern_with_a_colon(tmp_path, name, value, bad):
    """Postfix takes it for a table; that there is no such type is told before clients hear 451."""
    r = Posthouse(f"relayhost = [127.0.0.1]:9\n{name} = {value}\n", directory=tmp_path).run("check")
    assert (f"{name}: unsupported dictionary type: {bad}" in r.stdout) == (bad is not None), r.stdout


@pytest.mark.parametrize("name,good", [("nexthop", True), ("hostname", True), ("mx.example", True), ("", True), ("mx.example.", False),
                                       ("10.1.2.3", False), ("two names", False)])
def test_check_of_the_name_for_sni(tmp_path, name, good):
    own = "relay unix - - n - - smtp -o smtp_tls_servername=-own-\n"
    p = Posthouse(f"smtp_tls_servername = {name}\n", master="" if good else own, directory=tmp_path)
    r = p.run("check")
    bad = [l for l in r.stdout.splitlines() if "smtp_tls_servername" in l and "waits" in l]
    assert len(bad) == (0 if good else 2) and (good or r.returncode == 1), r.stdout


def adapt(text, tmp_path, port):
    return text.replace("@DIR@", str(tmp_path)).replace("@PORT@", str(port))


@pytest.mark.parametrize("name", ["debian", "iredmail"])
def test_real_files_load(tmp_path, dns, name):
    """A Debian and an iRedMail main.cf with master.cf: they load, mail flows, check tells what is not used."""
    relay = FakeRelay()
    p = Posthouse("", directory=tmp_path, dns=dns)
    extra = (tmp_path / "main.cf").read_text().splitlines()
    keep = [l for l in extra if l.split(" =")[0] in ("maillog_file", "mail_owner", "resolver_servers", "relay_threads")]
    main = adapt((HERE / "data" / f"{name}-main.cf").read_text(), tmp_path, p.port)
    (tmp_path / "main.cf").write_text(main + "\n".join(keep) + f"\nrelayhost = [127.0.0.1]:{relay.port}\n"
                                      f"queue_directory = {tmp_path}/spool\n")
    (tmp_path / "master.cf").write_text(adapt((HERE / "data" / f"{name}-master.cf").read_text(), tmp_path, p.port))
    r = p.run("check")
    for want in {"debian": ["harmless: Posthouse does without these processes (", ": pickup (pickup), ", ", maildrop (pipe)"],
                 "iredmail": ["dovecot (pipe)", "postscreen is not part of Posthouse",
                              "content_filter: every service of master.cf has one",
                              "not implemented: smtpd_sender_restrictions: reject_unknown_sender_domain"]}[name]:
        assert want in r.stdout, r.stdout
    if name == "iredmail":  # its table files are not there: mail that needs them waits
        assert "mysql/transport_maps_domain.cf: No such file" in r.stdout
        relay.stop()
        return
    with p:
        assert p.send().startswith("250 2.0.0")
        relay.wait_mails(1)
    relay.stop()


def large_lists(folder):
    files = [folder / f"list{i}" for i in range(3)]
    for file in files:
        file.write_text("a.example" + "\n" * 7000000)
    with (folder / "main.cf").open("a") as main:
        main.write(f"relay_domains = {' '.join(map(str, files))}\n")


WRONG = {
    "main.cf is gone": lambda d: (d / "main.cf").unlink(),
    "main.cf is empty": lambda d: (d / "main.cf").write_text("# new\n"),
    "main.cf is a folder": lambda d: ((d / "main.cf").unlink(), (d / "main.cf").mkdir()),
    "main.cf is a pipe": lambda d: ((d / "main.cf").unlink(), os.mkfifo(d / "main.cf")),
    "main.cf is cut": lambda d: (d / "main.cf").write_text((d / "main.cf").read_text().split("]:")[0]),
    "master.cf is gone": lambda d: (d / "master.cf").unlink(),
    "master.cf is empty": lambda d: (d / "master.cf").write_text(""),
    "master.cf is a folder": lambda d: ((d / "master.cf").unlink(), (d / "master.cf").mkdir()),
    "master.cf is a pipe": lambda d: ((d / "master.cf").unlink(), os.mkfifo(d / "master.cf")),
    "master.cf is rubbish": lambda d: (d / "master.cf").write_bytes(b"\0\xff\x80 rubbish\n" * 9),
    "files are too large": large_lists,
}


@pytest.mark.parametrize("case", WRONG)
def test_a_reload_with_a_broken_file_changes_nothing(dns, case):
    """What stays in use is the whole of it: with the transport's own parameters."""
    relay = FakeRelay()
    master = "smtp unix - - n - - smtp\n  -o smtp_helo_name=kept.example\n"
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nmaximal_backoff_time = 1000s\n", dns=dns) as p:
        file = p.dir / "master.cf"
        file.write_text(file.read_text().replace("smtp unix - - n - - smtp\n", master))
        count = len(p.children())
        p.reload()
        pids = wait_for(lambda: len(now := p.children()) == count and now)  # the lookup process of before ends by itself
        log = len(p.log())
        WRONG[case](p.dir)
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("reload refused")
        said = p.log()[log:].split("reload refused")[0]
        assert "is the largest of those" in said if "large" in case else case.split()[0] in said, said
        assert p.send()[:3] == "250"
        relay.wait_mails(1)
        assert relay.sessions[0].commands[0] == "EHLO kept.example"
        assert p.children() == pids
        p.proc.terminate()
        assert p.proc.wait(60) == 0
    relay.stop()


def test_a_pipe_in_place_of_a_file_holds_up_nothing(dns, tmp_path):
    """Nothing waits for somebody to write into it: no reload, no check, no look-up, no stop."""
    tmp_path.chmod(0o755)
    os.mkfifo(tmp_path / "pipe", 0o666)
    os.mkfifo(tmp_path / "pipe.cdb", 0o666)
    os.mkfifo(tmp_path / "pipe.db", 0o666)
    os.mkfifo(tmp_path / "pipe.lmdb", 0o666)
    with Posthouse(dns=dns) as p:
        p.write_main(f"smtpd_tls_cert_file = {tmp_path}/pipe\n")
        p.reload()
        p.wait_log("cannot load the TLS certificate of .*pipe")
        r = p.run("check")
        assert r.returncode == 1 and re.search("warning: .*cannot load the TLS certificate of .*pipe", r.stdout), r.stdout
        p.write_main(f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {tmp_path}/pipe\n")
        r = p.run("check")
        assert r.returncode == 2 and re.search("error: .*cannot load the TLS certificate of .*pipe", r.stdout), r.stdout
        for kind in ("texthash", "pcre", "cidr", "cdb", "hash", "btree", "lmdb", "pgsql"):
            p.write_main(f"smtpd_sender_restrictions = check_sender_access {kind}:{tmp_path}/pipe\n")
            p.reload()
            with p.client() as c:
                assert c.mail(sender="who@client.example")[:3] == "451", kind
        for kind in ("hash", "btree", "lmdb", "cdb", "texthash"):
            p.write_main(f"tls_server_sni_maps = {kind}:{tmp_path}/pipe\nsmtp_tls_policy_maps = {kind}:{tmp_path}/pipe\n")
            p.proc.send_signal(signal.SIGHUP)
            p.wait_log(f"tls_server_sni_maps: {kind}:.*/pipe")
        p.proc.terminate()
        assert p.proc.wait(60) == 0


def test_a_reload_says_what_needs_a_restart(dns):
    with Posthouse(dns=dns) as p:
        p.write_main("queue_directory = {dir}/elsewhere\nrelay_threads = 1\n")
        p.reload()
        p.wait_log(r'warning: ignoring queue_directory parameter value change: old value ".*/spool", new value ".*/elsewhere"')
        p.wait_log("warning: ignoring relay_threads parameter value change")
        p.write_main("")
        p.reload()
        assert p.log().count("ignoring") == 2


def test_what_needs_a_restart_is_not_taken_up_by_a_child_that_is_started_again(dns):
    """A reload ignores some parameters; a relay process that crashes later begins with their old values, too."""
    def sizes():  # of the segments; one that holds nothing more is removed at any time
        found = set()
        for file in (p.dir / "spool/log").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(file.stat().st_size)
        return found

    def again():
        pid = p.child("relay")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid not in p.children() and len(p.children()) == 2)
        wait_for(p._greets)
        assert p.send().startswith("250")
    before = "spool_segment_size = 1048576\nrelayhost = [127.0.0.1]:9\n"
    with Posthouse(before, dns=dns) as p:
        assert p.send().startswith("250")
        for n, user in enumerate(("daemon", "no-such-user"), 1):
            p.write_main(before.replace("1048576", "3145728") + f"mail_owner = {user}\nqueue_directory = {p.dir}/elsewhere\n")
            p.reload()
            p.wait_log(r"warning: ignoring mail_owner parameter value change", count=n)
            again()
            assert sizes() == {1048576}
        p.write_main(before)
        assert len(p.queue()) == 3


def test_master_overrides(tmp_path, dns):
    """-o on a listener and on a named transport."""
    relay = FakeRelay(name="first")
    port = free_port()
    master = f"127.0.0.1:{port} inet n - n - - smtpd -o syslog_name=postfix/second\n" \
             "  -o {{ smtpd_client_restrictions = reject }}\n" \
             "slow unix - - n - - smtp -o smtp_helo_name=other.name.example -o syslog_name=postfix/slow\n"
    main = f"relayhost = [127.0.0.1]:{relay.port}\ntransport_maps = inline:{{{{slow.example=slow:[127.0.0.1]:{relay.port}}}}}\n"
    with Posthouse(main, directory=tmp_path, dns=dns, master=master) as p:
        p.send(rcpts=["u@slow.example"])
        relay.wait_mails(1)
        assert relay.sessions[0].commands[0] == "EHLO other.name.example"
        p.wait_log(r"postfix/slow/smtp\[\d+\]: \w+: to=<u@slow\.example>")
        from kit import Client
        with Client(port) as c:
            assert c.mail() == "554 5.7.1 <localhost[127.0.0.1]>: Client host rejected: Access denied"
        p.wait_log(r"postfix/second/smtpd\[\d+\]: NOQUEUE: reject")
    relay.stop()


def test_file_in_a_list(tmp_path, dns):
    (tmp_path / "nets").write_text("# ours\n10.0.0.0/8\n127.0.0.0/8\n")
    relay = FakeRelay()
    with Posthouse(f"mynetworks = {tmp_path}/nets\nrelayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as p:
        assert p.send().startswith("250")
        relay.wait_mails(1)
    (tmp_path / "bad").mkdir()
    p = Posthouse("relay_domains = /no/such/file\n", directory=tmp_path / "bad")
    assert "relay_domains: cannot read /no/such/file" in p.run("check").stdout
    relay.stop()


def test_addresses_are_completed(tmp_path, dns):
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\nmyorigin = origin.example\nmydomain = domain.example\n" \
           "append_dot_mydomain = yes\n"
    with Posthouse(main, directory=tmp_path, dns=dns) as p:
        p.send(sender="me", rcpts=["you", "you@host", "you@[192.0.2.9]", "you@full.example"])
        m = relay.wait_mails(1)[0]
        assert m["from"].startswith("MAIL FROM:<me@origin.example>")
        assert [r.split("<")[1][:-1] for r in m["rcpts"]] == \
            ["you@origin.example", "you@host.domain.example", "you@[192.0.2.9]", "you@full.example"]
    relay.stop()


def test_a_domain_may_end_in_a_dot(tmp_path, dns):
    """The mailbox user@host. is user@host: the same rule decides where its mail goes, and no dot goes on."""
    relay, other = FakeRelay(), FakeRelay()
    main = f"relayhost = [127.0.0.1]:{other.port}\n" + "transport_maps = texthash:{dir}/transport\n" \
           "append_dot_mydomain = yes\n"
    with Posthouse(main, directory=tmp_path, dns=dns, files={"transport": f"left.example smtp:[127.0.0.1]:{relay.port}\n"}) as p:
        p.send(sender="me@left.example.", rcpts=["a@left.example.", "b@left.example"])
        m = relay.wait_mails(1)[0]
        assert m["from"].startswith("MAIL FROM:<me@left.example>")
        assert [r.split("<")[1][:-1] for r in m["rcpts"]] == ["a@left.example", "b@left.example"]
        assert not other.mails
    relay.stop()
    other.stop()


def test_unsupported_transport_is_temporary(tmp_path, dns):
    """Mail for a class that needs local delivery is refused for the moment, while the sender has it."""
    with Posthouse("mydestination = mta.example\nrelayhost = [127.0.0.1]:9\n", directory=tmp_path, dns=dns) as p:
        assert p.send(rcpts=["root@mta.example"]).startswith("451 4.3.5 <root@mta.example>: mail transport unavailable")


@pytest.mark.parametrize("kind,path", [("md", "docs/parameters.md"), ("man", "docs/man/posthouse-main.cf.5")])
def test_parameter_documents_are_current(kind, path):
    root = HERE.parent.parent
    made = subprocess.run(["sh", "scripts/parameters.sh", kind], cwd=root, capture_output=True, text=True,
                          env=dict(os.environ, POSTHOUSE=str(POSTHOUSE))).stdout
    assert made == (root / path).read_text(), "run make docs"


def test_a_listing_hides_passwords(tmp_path):
    """What ends up in a forum; asked for by name, a value is shown as it is, for scripts."""
    with Posthouse("relayhost =\nacc_password = s3cret1\nacc_bind_pw = s3cret2\nacc_dbname = vmail\n"
                   "smtp_sasl_password_maps = inline:{{x=u:s3cret3}}, hash:{dir}/sasl\n", files={"sasl": "relay u:s3cret4\n"}) as p:
        for face in ("posthouse", "postconf"):
            for flags in (["-n"], []):
                out = p.run(*(["config"] if face == "posthouse" else []), *flags, face=face, check=True).stdout
                assert "s3cret" not in out and "acc_dbname = vmail" in out and "acc_password = (hidden)" in out
                assert re.search("^smtp_sasl_password_maps = inline:\\(hidden\\), hash:/", out, re.M)
        assert p.run("-h", "acc_password", face="postconf").stdout == "s3cret1\n"
        objects = [json.loads(line) for line in p.run("-jn", face="postconf").stdout.splitlines()]
        assert {name: value for o in objects for name, value in o.items()}["acc_password"] == "(hidden)"
        assert p.run("-j", "acc_password", face="postconf").stdout == '{"acc_password": "s3cret1"}\n'
        assert p.run("-jh", face="postconf").returncode == p.run("-j", "-e", "x=1", face="postconf").returncode == 64
        unknown = p.run("-q", "no_such_name", face="postconf")
        assert (unknown.returncode, unknown.stdout + unknown.stderr) == (0, "")
        some = p.run("nome_missing", "acc_dbname", face="postconf")
        assert (some.returncode, some.stdout) == (0, "acc_dbname = vmail\n") and "warning: nome_missing: unknown parameter" in some.stderr


SLIPS = [  # ways to have a password in main.cf, some of them by mistake
    "my_login = inline:{{ {{[a.example]=u:s3cret}} }}\nsmtp_sasl_password_maps = $my_login\n",
    "my_login = static:u:s3cret\nsmtp_sasl_password_maps = ${{my_login}}\n",
    "smtp_sasl_password_maps = pcre:{{ {{/x/ u:s3cret}} }}\n",
    "smtp_sasl_password_maps = randmap:{{u:s3cret}}\n",
    "smtp_sasl_password_maps = pipemap:{{inline:{{a=b}}, static:s3cret}}\n",
    "smtp_sasl_password_maps = inline:{{ {{a.example=u:s3cret }}\n",
    "smtp_sasl_password_maps = [a.example]:587 u:s3cret\n",
    "smtp_sasl_password_maps = u:s3cret\n",
    "smtp_sasl_pasword_maps = static:u:s3cret\n",
    "smtp_sasl_passwords_maps = [a.example]:587 u:s3cret\n",
    "sasl_logins = inline:{{ {{[a.example]=u:s3cret}} }}\n",
    "smtp_sasl_password_maps static:u:s3cret\n",
    "smtp_sasl_password_maps inline:{{ {{[a.example]=u:s3cret}} }}\n",
    "smtp_sasl_password_maps = static:\nu:s3cret\n",
    "acc_password =\ns3cret\n",
    "acc_password s3cret\n",
    "smtp_sasl_password_maps = static:u:s3cret${{\n",
    "smtp_sasl_password_maps = static:u:$s3cret\n",
    "smtp_sasl_password_maps = static:u:s3cret\nsmtp_sasl_password_maps = static:u:s3cret\n",
    "acc_bind_pw = s3cret\nacc_bind_pw = s3cret\n",
    "smtp_sasl_password_maps = inline:{{ {{\ufeff[a.example]=u:s3cret}} }}\n",
    "smtp_sasl_password_maps = inline:{{ {{B\u00fccher.example=u:s3cret}} }}\n",
]
MASTER_SLIPS = [  # the same in master.cf, below a service that has nothing else
    "  -o smtp_sasl_password_maps:static:u:s3cret\n",
    "  -o { smtp_sasl_password_maps static:u:s3cret }\n",
    "  -o { smtp_sasl_password_maps inline:{{a.example=u:s3cret}} }\n",
    "  -o { acc_password s3cret }\n",
    "  -o smtp_sasl_password_maps = static:u:s3cret\n",
    "  -o { smtp_sasl_password_maps=static:u:s3cret }x\n",
    "  -o { smtp_sasl_password_maps=static:u:s3cret\n",
    "  smtp_sasl_password_maps=static:u:s3cret\n",
    "-o smtp_sasl_password_maps=static:u:s3cret\n",
    "-o smtp_sasl_password_maps=static:u:s3cret -o a=b -o c=d -o e=f\n",
    "smtp_sasl_password_maps=static:u:s3cret x - - n - - smtp\n",
    "more unix - - n - -o smtp_sasl_password_maps=static:u:s3cret\n",
]
LISTINGS = (["config", "-n"], ["config", "-nx"], ["config"], ["check"], ["config", "-M"], ["config", "-P"], ["config", "-F"])


def test_no_slip_shows_a_password():
    for main in SLIPS:
        line = main.splitlines()[0].replace(" = ", "=", 1)
        service = f"login unix - - n - - smtp -o {{{{ {line} }}}}\n" if "static:u" in line or "sasl_logins" in line else ""
        p = Posthouse("relayhost = [a.example]:587\nsmtp_sasl_auth_enable = yes\n" + main, master=service)
        for words in LISTINGS:
            r = p.run(*words)
            assert "s3cret" not in r.stdout + r.stderr, (main, words, r.stdout + r.stderr)
        shutil.rmtree(p.dir)


def test_no_line_that_cannot_be_read_shows_a_password(tmp_path):
    """Of master.cf, by whatever reads it: what is wrong is said with the line, not with what stands there."""
    p = Posthouse("relayhost = [a.example]:587\n", directory=tmp_path)
    good = (tmp_path / "master.cf").read_text()
    (tmp_path / "rows").write_bytes(b"[a.example]:587 u:s3cret\xe9\n")
    for rest in MASTER_SLIPS:
        for text in (good + "login unix - - n - - smtp\n" + rest, "  " + rest + good):
            (tmp_path / "master.cf").write_text(text)
            for words in LISTINGS:
                r = p.run(*words)
                assert "s3cret" not in r.stdout + r.stderr, (text, words, r.stdout + r.stderr)
            assert " line " in p.run("check").stdout
            start = subprocess.run([POSTHOUSE.with_name("posthoused"), "-tvc", tmp_path], capture_output=True, text=True)
            assert "s3cret" not in start.stdout + start.stderr, (text, start)
    for words in (["-e", "smtp_sasl_password_maps static:u:s3cret"], ["-X", "acc_password=s3cret"], ["-#", "acc_bind_pw=s3cret"],
                  ["-e", "=static:u:s3cret"]):
        r = p.run(*words, face="postconf")
        assert r.returncode == 1 and "fatal: " in r.stderr and "s3cret" not in r.stderr, r
    r = p.run(f"hash:{tmp_path}/rows", face="postmap")
    assert f"{tmp_path}/rows, line 1: non-UTF-8 input" in r.stderr and "[a.example]:587" in r.stderr and "s3cret" not in r.stderr, r
    r = p.run("-q", "a", "inline:{ a=u:s3cret1, a=u:s3cret2 }", face="postmap")
    assert (r.stdout, r.stderr) == ("u:s3cret2\n", "")


POLICIES = {
    "check_policy_service": "check_policy_service needs ", "check_policy_service inet:policy.example:7777": "its host is no address",
    "check_policy_service inet:127.0.0.1": "it has no port", "check_policy_service unix:": "no path after",
    "check_policy_service {{ inet:127.0.0.1:7777, patience=3s }}": "it has a setting that there is not",
    "check_policy_service {{ inet:127.0.0.1:7777, timeout=soon }}": "a time is none",
    "check_policy_service {{ inet:127.0.0.1:7777, timeout=0 }}": "a time is none",
    "check_policy_service {{ inet:127.0.0.1:7777, try_limit=0 }}": "a number is none",
}


@pytest.mark.parametrize("words", POLICIES)
def test_a_policy_service_that_cannot_be_asked(dns, words):
    """check says why, and no mail is taken without what the service would have said."""
    with Posthouse(f"relayhost = [127.0.0.1]:9\nsmtpd_sender_restrictions = {words}\n", dns=dns) as p:
        assert POLICIES[words] in p.run("check").stdout
        assert p.send().startswith("451 4.3.5 Server configuration error")


def test_a_policy_service_that_master_would_start(dns):
    """Posthouse has no spawn: check names the line, and nothing is taken unasked."""
    line = "policyd-spf unix - n n - 0 spawn\n  user=policyd-spf argv=/usr/bin/policyd-spf\n"
    main = "smtpd_policy_service_retry_delay = 1s\nsmtpd_sender_restrictions = check_policy_service { unix:private/%s, timeout=10s }\n"
    for name, said in (("policyd-spf", True), ("other", False)):
        with Posthouse(main.replace("{", "{{").replace("}", "}}") % name, master=line, dns=dns) as p:
            assert ('has no "spawn" and does not start that program' in p.run("check").stdout) == said
            assert p.send().startswith("451 4.3.5 ")


def test_of_two_lines_of_a_transport_the_last_counts(dns):
    relay = FakeRelay()
    lines = "twice unix - - n - - smtp -o smtp_helo_name=first.example\ntwice unix - - n - - smtp -o smtp_helo_name=second.example\n"
    with Posthouse(f"transport_maps = static:twice:[127.0.0.1]:{relay.port}\n", master=lines, dns=dns) as p:
        p.send()
        relay.wait_mails(1)
        assert relay.sessions[0].commands[0] == "EHLO second.example"
    relay.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_no_other_user_holds_up_an_edit():
    """Whoever may read a directory can hold a lock on it: that is said, and main.cf is as it was."""
    hold = ("import fcntl, os, sys\nfcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
            "print('held', flush=True)\nsys.stdin.read()")
    p = Posthouse("relayhost = [a.example]\n")
    before = (p.dir / "main.cf").read_text()
    with subprocess.Popen(["/usr/bin/python3", "-c", hold, p.dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=12345) as other:
        assert other.stdout.readline() == b"held\n"
        try:
            r = subprocess.run([POSTHOUSE, "-c", p.dir, "postconf", "-e", "relayhost = [b.example]"],
                               capture_output=True, text=True, timeout=60)
        finally:
            other.stdin.close()
    assert r.returncode == 1 and "another program holds a lock" in r.stderr and (p.dir / "main.cf").read_text() == before
    assert p.run("-e", "relayhost = [b.example]", face="postconf").returncode == 0
    assert (p.dir / "main.cf").read_text() == before.replace("[a.example]", "[b.example]")
    shutil.rmtree(p.dir)


def test_options_of_postconf_that_are_not_there(tmp_path):
    """Whatever else stands beside them: nothing is shown and nothing changed."""
    p = Posthouse(directory=tmp_path)
    (p.dir / "master.cf").write_text("a inet n - n - - smtpd -o b=d\n")
    before = (p.dir / "main.cf").read_bytes(), (p.dir / "master.cf").read_bytes()
    for words in (["-M", "-F"], ["-jM"], ["-F", "-n"], ["-Po", "x=y"], ["-M", "-e", "a/inet=b"], ["-P", "a/inet/b=c"],
                  ["-M#", "a/inet"], ["-PX", "a/inet/b"], ["-f"], ["-m"], ["-b"], ["-n", "-H"], ["-Me", "x=y"]):
        r = p.run(*words, face="postconf")
        assert (r.returncode, r.stdout) == (64, "") and "usage" in r.stderr, words
    assert ((p.dir / "main.cf").read_bytes(), (p.dir / "master.cf").read_bytes()) == before
