"""What a configuration asks for and Posthouse does not do is refused, unless the administrator accepts that."""
import pathlib
import re
import subprocess

import pytest

from kit import POSTHOUSE, Client, FakeRelay, Posthouse, free_port

REFUSED = "451 4.3.5 Server configuration error"


# What Postfix 3.10 has and 3.7 has not; `make compat-13` asks for all (compat/test_postconf.py).
LATER = """allow_srv_lookup_fallback = no|force_mime_input_conversion = no|full_name_encoding_charset = utf-8|ignore_srv_lookup_error = no
lmtp_sasl_password_result_delimiter = :|lmtp_tls_enable_rpk = no|lmtp_tls_enforce_sts_mx_patterns = yes|lmtp_tlsrpt_enable = no
lmtp_tlsrpt_skip_reused_handshakes = yes|lmtp_tlsrpt_socket_name =|maillog_file_permissions = 0600
smtp_sasl_password_result_delimiter = :|smtp_tls_enable_rpk = no|smtp_tls_enforce_sts_mx_patterns = yes|smtp_tlsrpt_enable = no
smtp_tlsrpt_skip_reused_handshakes = yes|smtp_tlsrpt_socket_name =|smtpd_client_ipv4_prefix_length = 32
smtpd_client_ipv6_prefix_length = 84|smtpd_hide_client_session = no|smtpd_tls_enable_rpk = no|socketmap_max_reply_size = 100000
tls_ffdhe_auto_groups = ffdhe2048 ffdhe3072|tls_required_enable = yes|tlsproxy_tls_enable_rpk = $smtpd_tls_enable_rpk
use_srv_lookup ="""
LATER = {row.split(" =")[0]: row.split(" =")[1].strip() for line in LATER.splitlines() for row in line.split("|")}


def postfix_parameters():
    """Every parameter of Debian's Postfix, and of a later one, with its default, as it is written."""
    out = subprocess.run(["postconf", "-d", "-c", "/etc/postfix"], capture_output=True, text=True).stdout
    out = out or subprocess.run(["postconf", "-d"], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^([\w-]+) =(.*)$", out, re.M)
    assert len(rows) > 900
    return LATER | {name: value.strip() for name, value in rows}


def table():
    """The rows of unread.def and params.def, as `posthouse config` prints them."""
    out = subprocess.run([POSTHOUSE, "config", "-U"], capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def without_verdict(params):
    rows = table()
    exact = {r[1] for r in rows if r[0] in ("read", "refused", "harmless")}
    ends = tuple(r[1] for r in rows if r[0].endswith("suffix"))
    begins = tuple(r[1] for r in rows if r[0].endswith("prefix"))
    return [n for n in params if n not in exact and not n.endswith(ends) and not n.startswith(begins)]


def test_every_parameter_of_postfix_has_its_verdict():
    assert without_verdict(postfix_parameters()) == []


def test_a_refused_parameter_is_idle_at_postfixs_default():
    """A main.cf that says what Postfix does anyway asks for nothing; one that says something else does."""
    params = postfix_parameters()
    for kind, name, idle, *_ in table():
        if kind == "refused" and name in params:
            assert params[name] == idle.split("|")[0], name


def test_no_name_has_two_verdicts():
    names = [r[1] for r in table()]
    assert sorted(names) == sorted(set(names))


def test_every_restriction_of_postfix_has_its_verdict(tmp_path):
    """Every restriction that postconf(5) names is known: none is said to be unknown."""
    env = {"MANWIDTH": "300", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    manual = subprocess.run(["man", "-P", "cat", "5", "postconf"], capture_output=True, text=True, env=env).stdout
    words = set(re.findall(r"^ {7}((?:reject|permit|check|defer|warn)_\w+)", manual, re.M)) | {"permit", "reject", "defer", "sleep"}
    words -= {"check_address_map", "defer_transports"}  # no restrictions
    if len(words) < 50:
        pytest.fail(f"postconf(5) cannot be read: {len(words)} words")
    rows = {r[1] for r in table() if r[0].endswith("word")}
    p = Posthouse("relayhost = [127.0.0.1]:9\n", directory=tmp_path)
    for word in sorted(words):
        p.write_main(f"relayhost = [127.0.0.1]:9\nsmtpd_recipient_restrictions = {word} static:x, reject_unauth_destination\n")
        out = p.run("check").stdout
        assert f'unknown restriction "{word}"' not in out, out
        if word in rows and f": {word}: " not in out:
            raise AssertionError(f"{word} is passed over, and check does not say so: {out}")


def lists_of_restrictions():
    return [row[1] for row in table() if row[0] == "read" and re.fullmatch(r"smtpd_\w+_restrictions", row[1])]


def test_a_restriction_that_is_not_done_is_named_in_every_list(tmp_path):
    """The list of the end of the content, the youngest one, was read and not looked through."""
    refused = [row[1] for row in table() if row[0] == "refused word"]
    assert len(refused) > 20 and len(lists_of_restrictions()) == 7
    for name in lists_of_restrictions():
        words = "".join(f", {word} static:x" for word in refused)
        p = Posthouse(f"relayhost = [127.0.0.1]:9\n{name} = permit_mynetworks, reject_unauth_destination{words}\n", directory=tmp_path)
        out = p.run("check").stdout
        assert [word for word in refused if f"not implemented: {name}: {word}: " not in out] == [], out


def settings(rows, form):
    """Each of these refused parameters, with a value that asks for something."""
    other = {"no": "yes", "yes": "no", "ignore": "enforce"} | {"postscreen_denylist_action": "drop"}
    asks = {name: other.get(name) or other.get(idle.split("|")[-1], "7" if idle[:1].isdigit() else f"texthash:/etc/{name}")
            for kind, name, idle, *_ in rows if kind == "refused"}
    return [(name, form.format(name, value)) for name, value in asks.items()]


@pytest.mark.parametrize("form", ["{} = {}\n", "other_{0} = {1}\n{0} =\n  $other_{0}\n", "  -o {}={}\n", "  -o {{ {} = {} }}\n"])
def test_every_refused_parameter_is_named_wherever_it_is_set(tmp_path, form):
    """By itself, through another parameter, and in both spellings of an override, in the line of each service that it concerns."""
    lines = {"smtpd": f"127.0.0.1:{free_port()} inet n - n - - smtpd\n",
             "postscreen": f"127.0.0.1:{free_port()} inet n - n - 1 postscreen\n",
             "cleanup": "cleanup unix n - n - 0 cleanup\n", "smtp": "smtp unix - - n - - smtp\n", "lmtp": "lmtp unix - - n - - lmtp\n"}
    sets = settings(table(), form)
    over = form.startswith("  -o")
    p = Posthouse("relayhost = [127.0.0.1]:9\n" + ("" if over else "".join(text for _, text in sets)), directory=tmp_path)
    (tmp_path / "master.cf").write_text("".join(line + ("".join(text for _, text in sets) if over else "") for line in lines.values()) +
                                        "relay unix - - n - - smtp\n")
    said = p.run("check")
    unnamed = [name for name, _ in sets
               if not re.search(rf"^error: [^\n]*{'master' if over else 'main'}\.cf, line \d+: [^\n]*\b{name}: ", said.stdout, re.M)]
    assert said.returncode == 2 and len(sets) > 70 and unnamed == []


def test_every_service_of_postfix_has_its_verdict(tmp_path):
    """All lines of Debian's master.cf, and every program that one may name: served, done without, not used, or not opened."""
    text = pathlib.Path("/usr/share/postfix/master.cf.dist").read_text()
    lines = [line.split() for line in re.findall(r"(?m)^#?\w[\w.:-]*\s+(?:inet|unix|pass|fifo)\s+(?:[yn-]\s+){3}\S+\s+\S+\s+\w.*$", text)]
    programs = {f[7] for f in lines} | {p.name for p in pathlib.Path("/usr/lib/postfix/sbin").iterdir() if "." not in p.name}
    programs -= {"master", "postfix-script", "postfix-wrapper", "post-install", "postfix-tls-script", "postmulti-script"}
    served = {"inet": {"smtpd", "postscreen"}, "unix": {"smtp", "lmtp", "error", "discard", "local"}, "pass": set()}
    p = Posthouse("relayhost = [127.0.0.1]:9\n", directory=tmp_path)
    rows = [(kind, program) for program in sorted(programs) for kind in ("inet", "unix", "pass")]
    assert len(lines) > 30 and len(programs) > 24
    names = [f"127.0.0.1:{free_port()}" if kind == "inet" else f"{program}-{kind}" for kind, program in rows]
    (tmp_path / "master.cf").write_text("".join(f"{name} {kind} - - n - - {program}\n" for name, (kind, program) in zip(names, rows)))
    said = p.run("check")
    for name, (kind, program) in zip(names, rows):
        unopened = re.search(rf'^error: \S+master.cf, line \d+: {name}: Posthouse has no server "{program}": the port is not opened$',
                             said.stdout, re.M)
        unused = re.search(rf"^note: [^\n]*(?:not used|harmless)[^\n]* {name} \({program}\)(?:,|$)", said.stdout, re.M)
        want = "served" if program in served[kind] else "unopened" if kind == "inet" else "unused"
        assert ("unopened" if unopened else "unused" if unused else "served") == want, (kind, program, said.stdout)


def test_a_type_of_service_that_is_none(tmp_path):
    p = Posthouse("relayhost = [127.0.0.1]:9\n", master="9925 innet n - n - - smtpd\n", directory=tmp_path)
    r = p.run("check")
    assert r.returncode == 2 and '"innet" is no type of service' in r.stdout


CASES = {
    "a milter": ("smtpd_milters = inet:127.0.0.1:9\n", "smtpd_milters"),
    "header checks": ("header_checks = regexp:{{ {{/^X/ REJECT}} }}\n", "header_checks"),
    "rewriting": ("sender_canonical_maps = static:a@b.example\n", "sender_canonical_maps"),
    "rewriting on the way out": ("smtp_generic_maps = static:a@b.example\n", "smtp_generic_maps"),
    "curves": ("tls_eecdh_auto_curves = X25519\n", "tls_eecdh_auto_curves"),
    "a proxy in front": ("smtpd_upstream_proxy_protocol = haproxy\n", "smtpd_upstream_proxy_protocol"),
    "a word": ("smtpd_client_restrictions = reject_rbl_client dnsbl.example\n", "reject_rbl_client"),
    "a word behind the content": ("smtpd_end_of_data_restrictions = reject_unverified_sender\n", "reject_unverified_sender"),
    "networks of clients": ("smtpd_client_ipv6_prefix_length = 64\n", "smtpd_client_ipv6_prefix_length"),
    "SRV records": ("use_srv_lookup = submission\n", "use_srv_lookup"),
    "another certificate": ("smtpd_tls_eccert_file = /x.pem\n", "smtpd_tls_eccert_file"),
    "a pause": ("smtp_transport_rate_delay = 9s\n", "smtp_transport_rate_delay"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_done_takes_no_mail(dns, case):
    text, name = CASES[case]
    relay = FakeRelay()
    main = f"relayhost = [127.0.0.1]:{relay.port}\n"
    with Posthouse(main + text, dns=dns) as p:
        r = p.run("check")
        assert r.returncode == 2 and re.search(rf"^error: \S+main.cf, line \d+: not implemented: .*{name}: ", r.stdout, re.M), r.stdout
        p.wait_log(rf"master\[\d+\]: warning: .*not implemented: .*{name}")
        with p.client() as c:
            assert c.cmd("MAIL FROM:<a@x.example>") == REFUSED
        p.wait_log(rf"no mail is taken from .*: {name} is not implemented")
        p.write_main(main + text + f"accept_unimplemented = {name}\n")
        p.reload()
        assert p.send().startswith("250 2.0.0")
        p.wait_log(rf"master\[\d+\]: warning: .*not implemented, and accepted by accept_unimplemented: .*{name}")
        assert p.run("check").returncode == 1
        relay.wait_mails(1)
    relay.stop()


IDLE = ["smtpd_milters = ", "mime_header_checks = $header_checks", "smtp_tls_CApath = /etc/ssl/certs",
        "reject_code = 554", "smtp_tls_session_cache_database = btree:$data_directory/smtp_scache", "biff = no",
        "alias_maps = hash:/etc/aliases"]


def test_what_asks_for_nothing_is_served(dns):
    relay = FakeRelay()
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n" + "\n".join(IDLE) + "\n", dns=dns) as p:
        assert "not implemented" not in p.run("check").stdout
        assert p.send().startswith("250 2.0.0")
        relay.wait_mails(1)
    relay.stop()


def test_an_override_concerns_its_service_alone(dns):
    relay, port = FakeRelay(), free_port()
    master = f"127.0.0.1:{port} inet n - n - - smtpd\n -o smtpd_proxy_filter=127.0.0.1:9\n -o no_such_name=1\n"
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", master=master, dns=dns) as p:
        r = p.run("check")
        assert re.search(r"error: master.cf, line \d+: not implemented: smtpd_proxy_filter: .* by 127.0.0.1:%d;" % port, r.stdout), r.stdout
        assert "unused parameter: no_such_name=1" in r.stdout
        assert p.send().startswith("250 2.0.0")
        with Client(port) as c:
            assert c.cmd("MAIL FROM:<a@x.example>") == REFUSED
        relay.wait_mails(1)
    relay.stop()


def test_a_transport_that_would_send_otherwise_sends_nothing(dns):
    """Mail for it is refused at RCPT; what is queued for it when a reload makes it so waits, with the reason."""
    relay = FakeRelay(replies={"MAIL": "451 4.3.0 later"})
    good = "elsewhere unix - - n - - smtp\n"
    main = f"transport_maps = static:elsewhere:[127.0.0.1]:{relay.port}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"
    with Posthouse(main, master=good, dns=dns) as p:
        assert p.send().startswith("250 2.0.0")
        p.wait_log("451 4.3.0 later")
        master = (p.dir / "master.cf").read_text()
        (p.dir / "master.cf").write_text(master.replace(good, good + " -o smtp_header_checks=regexp:{{/^X/ IGNORE}}\n"))
        p.reload()
        relay.replies.pop("MAIL")
        p.wait_log(r"status=deferred \(transport elsewhere: smtp_header_checks is not implemented")
        with p.client() as c:
            assert c.cmd("MAIL FROM:<a@x.example>").startswith("250")
            assert c.cmd("RCPT TO:<b@y.example>").startswith("451 4.3.5")
        assert relay.mails == []
        (p.dir / "master.cf").write_text(master)
        p.reload()
        p.run("queue", "flush")
        relay.wait_mails(1)
    relay.stop()


def test_a_word_that_belongs_to_no_option_stops_its_service(dns):
    """A blank has cut off a part of a value: what is left may permit what the whole forbids.  Postfix's service does not start."""
    screen, own, braced, ended = (free_port() for _ in range(4))
    cut = " -o smtpd_client_restrictions=permit_sasl_authenticated, reject\n"
    master = (f"127.0.0.1:{own} inet n - n - - smtpd\n{cut}127.0.0.1:{screen} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n{cut}"
              f"127.0.0.1:{braced} inet n - n - - smtpd -v\n -o {{{{ smtpd_client_restrictions = permit_mynetworks, reject }}}}\n"
              f"127.0.0.1:{ended} inet n - n - - smtpd -o\nthird unix - - n - - smtp\n -o smtp_fallback_relay=[a.example], [b.example]\n"
              "filter unix - n n - - pipe\n flags=R user=nobody argv=/bin/true ${{recipient}}\n")
    main = "relayhost = [127.0.0.1]:9\ntransport_maps = inline:{{{{z.example=third:[127.0.0.1]:9}}}}\n"
    with Posthouse(main, master=master, dns=dns) as p:
        for port, taken in ((own, False), (screen, False), (braced, True), (ended, False), (p.port, True)):
            with Client(port) as c:
                assert c.cmd("MAIL FROM:<a@x.example>") == ("250 2.1.0 Ok" if taken else REFUSED), port
        with p.client() as c:
            assert c.cmd("MAIL FROM:<a@x.example>").startswith("250")
            assert c.cmd("RCPT TO:<b@z.example>").startswith("451 4.3.5")
            assert c.cmd("RCPT TO:<b@y.example>").startswith("250")
        r = p.run("check")
        found = re.findall(r"^error: (?:\S*/)?master.cf, line \d+: a word that belongs to no option: .* by (\S+)$", r.stdout, re.M)
        assert sorted(found) == sorted([f"127.0.0.1:{port}" for port in (own, screen, ended)] + ["third"]), r.stdout


def test_sendmail_says_what_is_not_done(dns):
    with Posthouse("relayhost = [127.0.0.1]:9\nlocal_login_sender_maps = inline:{{{{root=root}}}}\n", dns=dns) as p:
        r = p.run("b@y.example", face="sendmail", stdin="Subject: x\n\nx\n")
        assert r.returncode == 75 and "local_login_sender_maps is not implemented" in r.stderr
        assert p.send().startswith("250 ")  # what is about sendmail does not concern others


def test_postscreens_pass_line_keeps_its_overrides(dns):
    relay, port = FakeRelay(), free_port()
    master = (f"127.0.0.1:{port} inet n - n - 1 postscreen\n"
              "smtpd pass - - n - - smtpd\n -o smtpd_client_restrictions=reject\n -o smtpd_helo_required=yes\n")
    with Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\n", master=master, dns=dns) as p:
        with Client(port) as c:
            c.cmd("MAIL FROM:<a@x.example>")
            assert c.cmd("RCPT TO:<b@y.example>").startswith("554 5.7.1")
        assert p.send().startswith("250 2.0.0")  # the other listener is not concerned
        (p.dir / "master.cf").write_text((p.dir / "master.cf").read_text().replace(" postscreen\n",
                                           " postscreen -o smtpd_service_name=x\n"))
        p.reload()
        with Client(port) as c:
            c.cmd("MAIL FROM:<a@x.example>")
            assert c.cmd("RCPT TO:<b@y.example>").startswith("250")  # another line's overrides are not meant
        p.write_main(f"relayhost = [127.0.0.1]:{relay.port}\npostscreen_greet_action = enforce\n")
        p.reload()
        with Client(port) as c:
            assert c.cmd("MAIL FROM:<a@x.example>") == REFUSED
        assert p.send().startswith("250 2.0.0")
    relay.stop()


def test_a_proxy_before_postscreen_is_no_client(dns):
    """Its service takes no mail, and another port does: the proxy's address would stand for all who come by it."""
    port = free_port()
    master = f"127.0.0.1:{port} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n"
    main = "relayhost = [127.0.0.1]:9\n"
    for text, overrides in (("postscreen_upstream_proxy_protocol = haproxy\n", ""),
                            ("", " -o postscreen_upstream_proxy_protocol=haproxy")):
        with Posthouse(main + text, master=master.replace("postscreen\n", f"postscreen{overrides}\n"), dns=dns) as p:
            with Client(port) as c:
                assert c.cmd("MAIL FROM:<a@x.example>") == REFUSED
            r = p.run("check")
            assert r.returncode == 2 and "not implemented: postscreen_upstream_proxy_protocol: " in r.stdout
            assert p.send().startswith("250")


def test_warn_if_reject_only_warns(dns):
    relay = FakeRelay()
    main = (f"relayhost = [127.0.0.1]:{relay.port}\nsmtpd_sender_restrictions = warn_if_reject reject_non_fqdn_sender,\n"
            " warn_if_reject check_sender_access static:REJECT\n")
    with Posthouse(main, dns=dns) as p:
        assert p.send(sender="a@short").startswith("250 2.0.0")
        warns = r"NOQUEUE: reject_warning: RCPT from \S+: "
        p.wait_log(warns + "504 5.5.2 <a@short>: Sender address rejected: need fully-qualified address; from=<a@short> to=<b@y.exa")
        p.wait_log(warns + "554 5.7.1 <a@short>: Sender address rejected: Access denied")
        relay.wait_mails(1)
    relay.stop()


def test_a_name_that_is_no_name_is_not_accepted(dns):
    r = Posthouse("relayhost = [127.0.0.1]:9\naccept_unimplemented = content_filtr\n", dns=dns).run("check")
    assert r.returncode == 2 and "accept_unimplemented: content_filtr is no parameter or restriction that Posthouse leaves out" in r.stdout


def test_a_name_that_an_older_posthouse_left_out_stops_nothing(dns):
    """After an upgrade what it names is done, and that is said."""
    names = "check_policy_service virtual_mailbox_maps smtpd_end_of_data_restrictions virtual_alias_maps".split()
    with Posthouse(f"relayhost = [127.0.0.1]:9\naccept_unimplemented = {', '.join(names)}, smtpd_milters\n", dns=dns) as p:
        assert p.send().startswith("250 2.0.0")
        for name in names:
            p.wait_log(rf"warning: .*accept_unimplemented: {name} is not left out any more: Posthouse does what it says")
        r = p.run("check")
    assert r.returncode == 1 and r.stdout.count("is not left out any more") == len(names), r.stdout


def test_iredmails_files_say_everything_on_one_screen(tmp_path):
    """Each thing that is refused stands there once, before what is harmless, and the harmless is grouped."""
    p = Posthouse("", directory=tmp_path)
    p.write_main("biff = no\nmailbox_size_limit = 0\nmailbox_command = x\nvirtual_mailbox_base = /var/vmail\n"
                 "smtpd_milters = x\nnon_smtpd_milters = $smtpd_milters\nmilter_protocol = 6\n")
    lines = p.run("check").stdout.splitlines()
    kinds = [l.split(":")[0] for l in lines]
    assert kinds == sorted(kinds, key=["error", "warning", "note"].index)
    assert sum("harmless (4): delivery to files and commands" in l for l in lines) == 1
    assert sum("smtpd_milters: " in l and "not implemented: smtpd" in l for l in lines) == 1


LINES = {
    "another cleanup": ("sub unix n - n - 0 cleanup -o always_bcc=x@y.example\n", "always_bcc"),
    "cleanup": ("cleanup unix n - n - 0 cleanup\n  -o header_checks=regexp:/x\n", "header_checks"),
    "rewrite": ("rewrite unix - - n - - trivial-rewrite\n  -o transport_maps=static:discard:\n", "transport_maps"),
    "options together": ("cleanup unix n - n - 0 cleanup -vo header_checks=regexp:/x\n", "header_checks"),
    "qmgr": ("qmgr unix n - n 300 1 qmgr -o default_transport=discard\n", "default_transport"),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_that_every_mail_passes(dns, case):
    line, name = LINES[case]
    with Posthouse("relayhost = [127.0.0.1]:9\n", master=line, dns=dns) as p:
        r = p.run("check")
        assert r.returncode == 2 and re.search(rf"error: master.cf, line \d+: not implemented: {name}: ", r.stdout), r.stdout
        with p.client() as c:
            assert c.cmd("MAIL FROM:<a@x.example>") == REFUSED


def test_pickups_line_is_about_sendmail(dns):
    with Posthouse("relayhost = [127.0.0.1]:9\n", master="pickup unix n - n 60 1 pickup -o header_checks=regexp:x\n", dns=dns) as p:
        r = p.run("b@y.example", face="sendmail", stdin="x\n")
        assert r.returncode == 75 and "header_checks is not implemented" in r.stderr
        assert p.send().startswith("250")
        with open(p.dir / "master.cf", "a") as f:
            f.write("cleanup unix n - n - 0 cleanup -o non_smtpd_milters=inet:x:1\n")
        p.reload()
        r = p.run("b@y.example", face="sendmail", stdin="x\n")
        assert r.returncode == 75 and "not implemented" in r.stderr
        r = p.run("check")
        assert r.returncode == 2 and re.search(r"master.cf, line \d+: not implemented: non_smtpd_milters: ", r.stdout), r.stdout
        assert p.send().startswith("250")


def test_an_override_that_is_read_from_main_cf_alone(dns):
    """It is refused where it says something else than main.cf."""
    ports = [free_port() for _ in range(3)]
    overs = ["hopcount_limit=7", "soft_bounce=yes", "myhostname=mta.example"]
    master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o {o}\n" for port, o in zip(ports, overs))
    with Posthouse("relayhost = [127.0.0.1]:9\n", master=master, dns=dns) as p:
        for port, taken in zip(ports, (False, False, True)):
            with Client(port) as c:
                assert c.cmd("MAIL FROM:<a@x.example>") == ("250 2.1.0 Ok" if taken else REFUSED), port


def test_a_line_that_every_mail_passes_has_no_settings_of_its_own(dns):
    """What cleanup, qmgr and the others get by -o in Postfix is read from main.cf here, so another value is refused."""
    lines = {"qmgr unix n - n 300 1 qmgr -o minimal_backoff_time=9s": "minimal_backoff_time",
             "bounce unix - - n - 0 bounce -o bounce_size_limit=1": "bounce_size_limit",
             "cleanup unix n - n - 0 cleanup -o message_size_limit=5": "message_size_limit",
             "rewrite unix - - n - - trivial-rewrite -o append_dot_mydomain=yes": "append_dot_mydomain"}
    good = "qmgr unix n - n 300 1 qmgr -o minimal_backoff_time=300s -o syslog_name=postfix/q -o smtpd_timeout=1s\n"
    with Posthouse("relayhost = [127.0.0.1]:9\n", master=good, dns=dns) as p:
        assert "not implemented" not in p.run("check").stdout
        assert p.send().startswith("250")
        text = (p.dir / "master.cf").read_text()
        for line, name in lines.items():
            (p.dir / "master.cf").write_text(text.replace(good, line + "\n"))
            r = p.run("check")
            assert r.returncode == 2 and re.search(rf"not implemented: {name}: it is read from main.cf alone", r.stdout), r.stdout


def test_a_filter_of_mechanisms_that_is_a_table_is_refused(dns, tmp_path):
    """Names, and names from a file, are filtered by; a table would be passed over."""
    (tmp_path / "mechanisms").write_text("# what we use\nplain, login\n")
    main = "relayhost = [127.0.0.1]:9\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_mechanism_filter = {value}\n" \
           "smtp_sasl_password_maps = static:u:w\n"
    p = Posthouse(directory=tmp_path)
    for value, refused in {f"!{tmp_path}/mechanisms, static:rest": False, "plain, hash:/etc/none": True, "static:all": False}.items():
        p.write_main(main.replace("{value}", value))
        r = p.run("check")
        assert ("smtp_sasl_mechanism_filter" in r.stdout) == refused and (r.returncode == 2) == refused, r.stdout
    p.write_main(main.replace("{value}", f"{tmp_path}/mechanisms, cram-md5"))
    with FakeRelay(auth=["PLAIN"]) as relay:
        text = (tmp_path / "main.cf").read_text().replace("]:9", f"]:{relay.port}")
        (tmp_path / "main.cf").write_text(text + "smtp_sasl_security_options =\nsmtp_sasl_password_maps = static:u:w\n")
        with p:
            assert p.send().startswith("250")
            assert relay.wait_mail(b"hello")["auth"] == ("PLAIN", "u", "w")


@pytest.mark.parametrize("over", ["alias_maps=static:b@far.example", "recipient_delimiter=+", "propagate_unmatched_extensions=alias",
                                  "owner_request_special=no", "prepend_delivered_header=file", "expand_owner_alias=yes",
                                  "reset_owner_alias=yes", "alias_maps=static:a@far.example x"])
def test_aliases_of_a_line_of_its_own_are_refused(dns, over):
    """Those of main.cf would have the mail go to other people."""
    main = "relayhost = [127.0.0.1]:9\nalias_maps = static:a@far.example\nmydestination = mta.example\n"
    with Posthouse(main, master=f"local unix - n n - - local -o {over}\n", dns=dns) as p:
        assert p.send(rcpts=["joe@mta.example"]).startswith("451 4.3.5 ")
        r = p.run("check")
        assert r.returncode == 2 and re.search("error: .*master.cf, line 4: .*, and none is taken, by local", r.stdout), r.stdout
        assert p.run("joe@mta.example", face="sendmail", stdin="Subject: x\n\nx\n").returncode == 0
        p.wait_log("to=<joe@mta.example>, relay=none, .*status=deferred")
        same = "alias_maps=static:a@far.example -o owner_request_special=yes -o biff=no -o recipient_delimiter= -o syslog_name=x"
        (p.dir / "master.cf").write_text((p.dir / "master.cf").read_text().replace(over, same))
        assert p.run("reload").returncode == 0 and p.run("check").returncode == 0
        assert p.send(rcpts=["joe@mta.example"]).startswith("250 ")


@pytest.mark.parametrize("line", [
    "other unix - - n - - smtp -o myorigin=other.example", "qmgr unix n - n 300 1 qmgr -o minimal_backoff_time=9s",
    "cleanup unix n - n - 0 cleanup -o message_size_limit=5", "local unix - n n - - local -o alias_maps=static:x@y.example",
    "other unix - - n - - smtp -o smtp_sasl_auth_enable=yes -o smtp_sasl_mechanism_filter=hash:/etc/none"])
def test_what_is_said_to_let_it_pass_does(dns, tmp_path, line):
    """A daemon whose administrator does what check says starts, and a reload goes through, also when the line has gone."""
    p = Posthouse("relayhost = [127.0.0.1]:9\nalias_maps =\n", master=line + "\n", dns=dns, directory=tmp_path)
    said = re.findall(r'"(accept_unimplemented = \w+)" lets it pass', p.run("check").stdout)
    assert len(said) == 1
    with open(tmp_path / "main.cf", "a") as f:
        f.write(said[0] + "\n")
    with p:
        assert "is no parameter or restriction" not in p.run("check").stdout
        assert p.send().startswith("250")
        (tmp_path / "master.cf").write_text((tmp_path / "master.cf").read_text().replace(line, ""))
        assert p.run("reload").returncode == 0
