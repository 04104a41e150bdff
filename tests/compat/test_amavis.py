"""Debian's Amavis as iRedMail sets it up (one port for what comes in, one that signs what users send), fed by Debian's Postfix and
by Posthouse in turn: what it signs, what it refuses, and what arrives at the relay host."""
import getpass
import os
import re
import subprocess
import tempfile

import pytest
from kit import Client, FakeRelay, free_ports, wait_for

import pair

RELAY = "127.0.2.1"
MAIN = """relayhost = [{relay}]
mydestination =
notify_classes =
minimal_backoff_time = 1s
queue_run_delay = 1s
recipient_delimiter = +
content_filter = smtp-amavis:[127.0.0.1]:{inbound}
receive_override_options = no_address_mappings
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{{ {{list@alias.test=ann@far.test, bob@far.test}}, {{alias.test=x}} }}
smtpd_relay_restrictions = permit_mynetworks, reject
"""
MASTER = """smtp-amavis unix - - n - 4 smtp
  -o smtp_data_done_timeout=1200
  -o smtp_send_xforward_command=yes
  -o disable_dns_lookups=yes
  -o max_use=20
127.0.0.1:{submission} inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o content_filter=smtp-amavis:[127.0.0.1]:{originating}
pickup unix n - n 60 1 pickup
  -o content_filter=smtp-amavis:[127.0.0.1]:{originating}
127.0.0.1:{back} inet n - n - - smtpd
  -o content_filter=
  -o mynetworks_style=host
  -o mynetworks=127.0.0.0/8
  -o local_recipient_maps=
  -o relay_recipient_maps=
  -o strict_rfc821_envelopes=yes
  -o smtp_tls_security_level=none
  -o smtpd_tls_security_level=none
  -o smtpd_client_restrictions=permit_mynetworks,reject
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o smtpd_end_of_data_restrictions=
  -o smtpd_error_sleep_time=0
  -o smtpd_soft_error_limit=1001
  -o smtpd_hard_error_limit=1000
  -o smtpd_client_connection_count_limit=0
  -o smtpd_client_connection_rate_limit=0
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks
"""
AMAVIS = """use strict;
$max_servers = 3; $daemon_user = '{user}'; $daemon_group = '{group}';
$MYHOME = '{dir}'; $TEMPBASE = "$MYHOME/tmp"; $db_home = "$MYHOME/db"; $helpers_home = "$MYHOME"; $pid_file = "$MYHOME/pid";
$lock_file = "$MYHOME/lock"; $QUARANTINEDIR = undef;
$enable_db = 0; $enable_zmq = 0; $do_syslog = 0; $log_level = 0; $LOGFILE = "$MYHOME/log";
$mydomain = 'from.test'; $myhostname = 'filter.test'; @local_domains_maps = ( ['.from.test'] ); @mynetworks = qw( 127.0.0.0/8 );
$inet_socket_bind = '127.0.0.1'; $inet_socket_port = [{inbound}, {originating}];
$forward_method = $notify_method = 'smtp:[127.0.0.1]:{back}';
@bypass_virus_checks_maps = (1); @bypass_spam_checks_maps = (1);
$banned_filename_re = new_RE(qr'^\\.(exe)$'i, qr'\\.(exe|vbs)$'i);
$final_banned_destiny = D_REJECT; $final_virus_destiny = D_REJECT;
$warnbannedsender = 0; $virus_quarantine_to = $banned_quarantine_to = undef;
$enable_dkim_signing = 1; dkim_key('from.test', 'sel', '{dir}/dkim.pem');
@dkim_signature_options_bysender_maps = ({{ '.' => {{ ttl => 21*24*3600, c => 'relaxed/simple' }} }});
$interface_policy{{'{originating}'}} = 'ORIGINATING';
$policy_bank{{'ORIGINATING'}} = {{ originating => 1, smtpd_discard_ehlo_keywords => ['8BITMIME'] }};
$sa_tag_level_deflt = undef; $allowed_header_tests{{'missing'}} = 0;
1;
"""
BANNED = ('MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
          'Content-Type: application/octet-stream; name="a.vbs"\r\n'
          'Content-Disposition: attachment; filename="a.vbs"\r\n\r\nx\r\n--b--\r\n')
PLAIN = "\r\nhello\r\n.a dot\r\n"
# (by which port, sender, recipients, what follows the header)
MAILS = [("smtp", "joe@away.test", ["ann@far.test"], PLAIN), ("submission", "me@from.test", ["ann@far.test", "bob@else.test"], PLAIN),
         ("submission", "me@from.test", ["list@alias.test"], PLAIN), ("submission", "me@other.test", ["ann@far.test"], PLAIN),
         ("submission", "", ["ann@far.test"], PLAIN), ("smtp", "joe@away.test", ["ann@far.test"], BANNED),
         ("submission", "me@from.test", ["ann+x@far.test"], "\r\n" + "long " * 20000 + "\r\n"),
         ("smtp", "joe@away.test", ["list@alias.test"], PLAIN)]


@pytest.fixture(scope="module")
def ports():
    return dict(zip(("inbound", "originating", "back", "submission"), free_ports(4)))


class Amavis:
    def __init__(self, folder, ports):
        self.folder, self.ports, self.proc = folder, ports, None
        user = getpass.getuser() if os.geteuid() else "amavis"
        for name in ("tmp", "db", "etc"):
            os.mkdir(f"{folder}/{name}")
        subprocess.run(["openssl", "genrsa", "-out", f"{folder}/dkim.pem", "2048"], check=True, capture_output=True)
        group = subprocess.run(["id", "-gn", user], capture_output=True, text=True, check=True).stdout.strip()
        with open(f"{folder}/etc/conf", "w") as f:
            f.write(AMAVIS.format(user=user, group=group, dir=folder, **ports))
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{user}:{group}", folder], check=True)
            subprocess.run(["chown", "-R", "root", f"{folder}/etc"], check=True)
        os.chmod(f"{folder}/etc", 0o555)  # it reads nothing that it could write

    def start(self):
        with open(f"{self.folder}/out", "w") as out:
            self.proc = subprocess.Popen(["/usr/sbin/amavisd", "-c", f"{self.folder}/etc/conf", "foreground"], stdout=out, stderr=out)
        wait_for(lambda: all(pair.listens(self.ports[name]) for name in ("inbound", "originating")) or self.proc.poll() is not None)
        assert self.proc.poll() is None, open(f"{self.folder}/out").read()

    def stop(self):
        self.proc.terminate()
        self.proc.wait()
        wait_for(lambda: not any(pair.listens(self.ports[name]) for name in ("inbound", "originating")))


@pytest.fixture(scope="module")
def amavis(ports):
    with tempfile.TemporaryDirectory(prefix="posthouse-test-amavis-") as folder:
        a = Amavis(folder, ports)
        a.start()
        yield a
        a.stop()
        os.chmod(f"{folder}/etc", 0o755)


@pytest.fixture(scope="module")
def relay():
    r = FakeRelay(RELAY, 25)
    yield r
    r.stop()


def settled(mta):
    """Each message that came, one that the filter gave back and each report among them, has gone."""
    log = mta.new_log()
    came = set(re.findall(r": (\w+): (?:client=|message-id=|from=<)", log)) | set(re.findall(r"notification: (\w+)$", log, re.M))
    return came and came == set(re.findall(r": (\w+): removed", log))


def main_of(ports):
    return MAIN.replace("{relay}", RELAY).replace("{inbound}", str(ports["inbound"]))


def flows(mta, relay, ports):
    relay.sessions.clear()
    mta.case(main_of(ports), {}, MASTER.format(**ports))
    said = []
    try:
        wait_for(lambda: pair.listens(ports["back"]))
        for n, (by, sender, rcpts, text) in enumerate(MAILS):
            with Client(mta.port if by == "smtp" else ports["submission"]) as c:
                said.append(c.mail(sender, rcpts, content=f"From: <{sender or 'x@from.test'}>\r\nSubject: mark-{n}-\r\n"
                                                          f"Message-ID: <{n}@x>\r\nDate: Fri, 27 Nov 2026 10:00:00 +0000\r\n{text}")[:3])
        wait_for(lambda: settled(mta))
        log = mta.new_log()
    finally:
        mta.over()
    arrived = []
    for n in range(len(MAILS)):
        for m in relay.mails:
            content = m["content"].decode()
            if f"Subject: mark-{n}-" not in content.split("\r\n\r\n")[0]:
                continue
            head, body = content.split("\r\n\r\n", 1)
            fields = re.findall(r"^DKIM-Signature: .*", re.sub(r"\r\n[ \t]+", " ", head), re.M)
            signed = [tuple(re.search(rf"\b{tag}= ?([\w.]+)", field)[1] for tag in "ds") for field in fields]
            sender = pair.plain(m["from"]).replace(" BODY=7BIT", "")
            arrived.append((n, sender, sorted(map(pair.plain, m["rcpts"])), signed, body))
    reports = sorted((pair.plain(m["rcpts"][0]), *re.findall("BANNED", m["content"].decode())[:1]) for m in relay.mails
                     if "<>" in m["from"] and b"mark" not in m["content"].split(b"\r\n\r\n")[0])
    # What Amavis has a dead connection for waits a moment.
    passed = sorted(re.findall(r"to=<([^>]*)>.*relay=127\.0\.0\.1\[127\.0\.0\.1\]:\d+,.*status=(sent|bounced) "
                               r"\((.*?\d\d\d \d\.\d\.\d)", log))
    return said, arrived, reports, passed


def test_amavis_signs_and_refuses_as_behind_postfix(name_server, postfix, amavis, relay, ports):
    theirs, ours = (flows(mta, relay, ports) for mta in (postfix, pair.Ours(name_server)))
    assert ours[0] == theirs[0] == ["250"] * len(MAILS)
    assert [a[:4] for a in ours[1]] == [a[:4] for a in theirs[1]]
    assert [a[4] for a in ours[1]] == [a[4] for a in theirs[1]]
    assert ours[2] == theirs[2] and ours[3] == theirs[3]
    by_mail = {n: signed for n, _, _, signed, _ in ours[1]}
    signed = [("from.test", "sel")]
    assert by_mail == {0: [], 1: signed, 2: signed, 3: [], 4: signed, 6: signed, 7: []}


def test_no_mail_goes_unsigned_while_amavis_is_away(name_server, amavis, relay, ports):
    """What users have sent waits over a kill -9, is signed when the filter is there again, and arrives once."""
    relay.sessions.clear()
    ours = pair.Ours(name_server)
    ours.case(main_of(ports), {}, MASTER.format(**ports))
    amavis.stop()
    try:
        for n in range(20):
            with Client(ports["submission"]) as c:
                text = f"From: <me@from.test>\r\nSubject: away-{n}-\r\n\r\nx\r\n"
                assert c.mail("me@from.test", ["ann@far.test"], content=text).startswith("250")
        wait_for(lambda: "Connection refused" in ours.new_log())
        ours.p.kill()
        ours.p.start()
        assert len(ours.p.queue()) == 20 and relay.mails == []
        amavis.start()
        wait_for(lambda: ours.p.queue() == [])
        arrived = sorted(re.search(rb"Subject: (away-\d+)-", m["content"])[1] for m in relay.mails)
        assert arrived == sorted(b"away-%d" % n for n in range(20))
        assert all(m["content"].count(b"DKIM-Signature:") == 1 for m in relay.mails)
    finally:
        ours.over()
