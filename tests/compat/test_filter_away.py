"""A content filter that does not answer: Postfix sends the mail to smtp_fallback_relay, unfiltered, and Posthouse keeps it."""
import re

import pytest

import pair
from kit import Client, FakeRelay, free_port, wait_for

RECORDS = []
FALLBACK = "127.0.2.9"


@pytest.mark.parametrize("program", ["smtp", "lmtp"])
def test_mail_for_a_filter_has_no_fallback_relay(name_server, postfix, program):
    closed = free_port()
    with FakeRelay(FALLBACK, 25) as fallback:
        main = (f"content_filter = scan:[127.0.0.1]:{closed}\nsmtp_fallback_relay = [{FALLBACK}]\n"
                f"relayhost = [127.0.0.1]:{closed}\nsmtp_connect_timeout = 5s\n")
        took = []
        for mta in (postfix, pair.Ours(name_server)):
            mta.case(main, {}, f"scan unix - - n - 10 {program} -o disable_dns_lookups=yes\n"
                               f"127.0.0.1:{(plain := free_port())} inet n - n - - smtpd -o content_filter=\n")
            try:
                wait_for(lambda: pair.listens(plain))
                for port in (mta.port, plain):
                    with Client(port) as c:
                        qid = c.mail("ann@from.test", ["bob@far.test"]).split()[-1]
                    wait_for(lambda: re.search(rf"{qid}: removed|{qid}: to=.*status=deferred", mta.new_log()))
                    took.append(len(fallback.mails))
            finally:
                mta.over()
    unfiltered = program == "smtp"
    assert took == [unfiltered, unfiltered + 1, unfiltered + 1, unfiltered + 2]  # what is not for a filter has the fallback relay
