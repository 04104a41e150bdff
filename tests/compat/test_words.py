"""Words that are none, in parameters that take words: what Debian's Postfix does not start with is not put to use here, and is named."""
import re
import smtplib

import pytest
from kit import Posthouse, free_port, wait_for

# With each, some program of Postfix's ends as soon as it has begun, again and again, and mail waits.
FATAL = {
    "smtp_host_lookup": ["dns, nativ", "both", ""],
    "smtp_dns_support_level": ["disable"],
    "smtp_address_preference": ["ipv5", "ipv4, ipv6"],
    "receive_override_options": ["no_address_mapping", "no_milters, none"],
    "propagate_unmatched_extensions": ["canonical, virtuals"],
    "smtputf8_autodetect_classes": ["sendmail, all, every"],
}
FINE = {
    "smtp_host_lookup": ["dns, native", "NATIVE"], "smtp_dns_support_level": ["disabled", "", "dnssec"],
    "smtp_address_preference": ["IPv4"],
    "receive_override_options": ["", "no_milters,no_address_mappings"], "propagate_unmatched_extensions": ["", "alias generic"],
    "prepend_delivered_header": ["command", ""], "smtputf8_autodetect_classes": ["", "all"], "log_format": ["json"],
}


def checked(directory, text, master=None):
    p = Posthouse("relayhost = [127.0.0.2]:9\n" + text, master or "", directory=directory)
    return p.run("check")


def sends(port):
    """Gives Postfix a mail, so that each program is begun that mail passes."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=2) as s:
            s.sendmail("a@x.test", ["b@far.test"], "Subject: x\r\n\r\nx\r\n")
    except (OSError, smtplib.SMTPException):
        pass


@pytest.mark.parametrize("name", FATAL)
def test_a_word_that_is_none(postfix, tmp_path, name):
    postfix.prepare(f"relayhost = [127.0.0.1]:{free_port()}\n{name} = {FATAL[name][0]}\n", {}, "")
    wait_for(lambda: sends(postfix.port) or re.search(rf"fatal: .*{name}", postfix.new_log()))
    postfix.over()
    for value in FATAL[name]:
        r = checked(tmp_path, f"{name} = {value}\n")
        assert r.returncode == 2 and re.search(rf"^error: \S*main.cf, line \d+: {name}: ", r.stdout, re.M), r.stdout


@pytest.mark.parametrize("name", FINE)
def test_words_that_are_some(tmp_path, name):
    for value in FINE[name]:
        assert " is none of " not in checked(tmp_path, f"{name} = {value}\n").stdout, value


def test_words_in_lines_of_services(tmp_path):
    """Names of transports by LMTP are their own, and an -o is judged like main.cf."""
    r = checked(tmp_path, "lmtp_host_lookup = nativ\n", "127.0.0.1:9 inet n - n - - smtpd\n -o receive_override_options=no_milter\n"
                "smtp unix - - n - - smtp\n -o smtp_address_preference=v4\nlmtp unix - - n - - lmtp\n -o lmtp_address_preference=v6\n")
    assert re.findall(r"^error: (?:\S*/)?(\w+)\.cf, line \d+: (\w+): \"(\w+)\" is none of", r.stdout, re.M) == [
        ("main", "lmtp_host_lookup", "nativ"), ("master", "smtp_address_preference", "v4"), ("master", "lmtp_address_preference", "v6"),
        ("master", "receive_override_options", "no_milter")], r.stdout


def test_words_that_do_less(tmp_path):
    for text, then in (("prepend_delivered_header = forwards\n", "it counts for nothing"), ("log_format = xml\n", "taken for postfix"),
                       ("smtpd_discard_ehlo_keywords = startls, chunking\n", '"startls" is none of'),
                       ("smtpd_policy_service_default_action = DUNO\nsmtpd_sender_restrictions = check_policy_service inet:127.0.0.1:9\n",
                        'no action "DUNO"'),
                       ("mynetworks_style = hosts\n", "is none of host subnet class")):
        p = Posthouse("relayhost = [127.0.0.2]:9\n" + text, directory=tmp_path)
        main = (tmp_path / "main.cf").read_text()
        (tmp_path / "main.cf").write_text(re.sub("^mynetworks = .*\n", "", main, flags=re.M))
        assert then in p.run("check").stdout


@pytest.mark.parametrize("protocols, interfaces, host", [("ipv6", "127.0.0.1", ""), ("ipv4", "::1", ""), ("ipv6", "all", "127.0.0.1:"),
                                                         ("ipv4", "all", "[::1]:")])
def test_an_address_that_inet_protocols_leaves_out(postfix, tmp_path, protocols, interfaces, host):
    """Nothing was listened on, and nobody said so.  Debian's master ends."""
    text = f"inet_protocols = {protocols}\ninet_interfaces = {interfaces}\n"
    port = free_port()
    postfix.prepare(text, {}, f"{host}{port} inet n - n - - smtpd\n")
    wait_for(lambda: postfix.proc.poll() is not None)
    postfix.over()
    r = checked(tmp_path, text, f"{host}{port} inet n - n - - smtpd\n")
    assert r.returncode == 2 and f"inet_protocols = {protocols} leaves that out" in r.stdout, r.stdout
    r = checked(tmp_path, text.replace(protocols, "all"), f"{host}{port} inet n - n - - smtpd\n")
    assert "leaves that out" not in r.stdout


VERSIONS = ["!TLSv1 !TLSv1.1 !TLSv1.2 !TLSv1.3", ">=TLSv1.3, <=TLSv1.2", "TLSv1.2, !TLSv1.2", "SSLv3", "SSLv2:SSLv3"]


@pytest.mark.parametrize("name", ["smtp_tls_protocols", "smtp_tls_mandatory_protocols", "smtpd_tls_protocols",
                                  "smtpd_tls_mandatory_protocols", "lmtp_tls_protocols"])
def test_no_version_of_tls_is_left(tmp_path, name):
    lines = "127.0.0.1:9 inet n - n - - smtpd\nsmtp unix - - n - - smtp\nlmtp unix - - n - - lmtp\n"
    level = "smtpd_tls_security_level = %s\n" % ("encrypt" if "mandatory" in name else "may")
    for value in VERSIONS:
        assert f'{name}: "{value}" leaves no version of TLS: ' in checked(tmp_path, f"{level}{name} = {value}\n", lines).stdout, value
    for value in ("!SSLv2, !SSLv3", ">=TLSv1.3", "<=TLSv1", "TLSv1.2 TLSv1.3 !TLSv1.3", ""):
        assert "leaves no version" not in checked(tmp_path, f"{level}{name} = {value}\n", lines).stdout, value


SASL = ["smtp_sasl_security_options", "smtp_sasl_tls_security_options", "smtp_sasl_tls_verified_security_options"]


@pytest.mark.parametrize("name", SASL + [name.replace("smtp", "lmtp", 1) for name in SASL])
def test_a_word_of_a_login_in_a_line_of_its_own(tmp_path, name):
    """Only main.cf's first two were judged: with a slip of the pen in an -o the password went in clear."""
    lines = "127.0.0.1:9 inet n - n - - smtpd\nsmtp unix - - n - - smtp\nlmtp unix - - n - - lmtp\n"
    own = lines.replace(f"- {name[:4]}\n", f"- {name[:4]}\n -o {name}=noplaintex,noanonymous\n")
    r = checked(tmp_path, "", own)
    assert r.returncode == 2 and re.search(rf'^error: master.cf, line \d+: {name}: unknown word "noplaintex"$', r.stdout, re.M), r.stdout
    r = checked(tmp_path, f"{name} = noplaintext noanonymus\n", lines)
    assert r.returncode == 2 and re.search(rf'^error: \S+main.cf, line \d+: {name}: unknown word "noanonymus"$', r.stdout, re.M), r.stdout
