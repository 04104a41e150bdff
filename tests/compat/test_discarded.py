"""smtpd_discard_ehlo_keywords: what a service does not offer it does not do either, in Debian's Postfix and in Posthouse."""
import pytest

import pair
from kit import Client, Listener
from test_restrictions import AUTH, dovecot

WORDS = ["", "starttls", "auth", "dsn", "silent-discard, DSN", "smtputf8", "chunking", "8bitmime size vrfy enhancedstatuscodes pipelining"]
MAIL = "MAIL FROM:<a@x.test>"
RCPT = "RCPT TO:<b@rel.test>"
TALKS = [["EHLO c.test", "STARTTLS"], ["HELO c.test", AUTH], ["EHLO c.test", "AUTH FOO", AUTH],
         *([hello, MAIL + parameter] for parameter in (" RET=HDRS", " ENVID=x", " RET=", " SMTPUTF8", " BODY=8BITMIME SIZE=10")
           for hello in ("EHLO c.test", "HELO c.test")),
         *(["EHLO c.test", MAIL, RCPT + parameter, RCPT] for parameter in (" NOTIFY=SUCCESS", " NOTIFY=x", " ORCPT=rfc822;b@x.test")),
         ["EHLO c.test", "VRFY"], ["EHLO c.test", MAIL, RCPT, "BDAT 0", "NOOP"], ["EHLO c.test", "BDAT x"]]


def said_to(port, lines):
    with Client(port, ehlo=None) as c:
        said = [c.cmd(lines[0]).replace("\nETRN", "")]
        for line in lines[1:]:
            # Postfix 3.10 names the mechanism once more (docs/differences.md).
            said.append("" if said[-1][:3] == "521" else c.cmd(line).removesuffix(": 'FOO'"))
        return said


@pytest.fixture(scope="module")
def both(name_server, postfix, server_cert):
    cert, key = server_cert
    service, said = Listener(dovecot), []
    for mta in (postfix, pair.Ours(name_server)):
        main = (f"relay_domains = rel.test\nrelayhost = [127.0.0.1]:9\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"
                f"smtpd_sasl_path = inet:127.0.0.1:{service.port}\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\n"
                f"smtpd_tls_key_file = {key}\n")
        with pair.services(mta, main, [[f"smtpd_discard_ehlo_keywords = {words}"] for words in WORDS]) as ports:
            said.append({words: [said_to(port, talk) for talk in TALKS] for port, words in zip(ports, WORDS)})
    service.stop()
    return said


@pytest.mark.parametrize("words", WORDS)
def test_what_is_not_offered_is_not_done(both, words):
    theirs, ours = (side[words] for side in both)
    assert ours == theirs
