"""A connection that is kept for further mail: what it was made with is still what the tables say."""
import pytest
from kit import FakeRelay, Posthouse, make_cert, server_tls, wait_for


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return server_tls(*make_cert(tmp_path_factory.mktemp("cert")))


# A table, its rows from then on, and whether TLS is used, with which account.  None: the mail waits.
OF_HOST = [("policies", "{hop} encrypt\n", (True, "shop")), ("logins", "{hop} other:word\n", (True, "other")),
           ("policies", "{hop} unheard-of\n", None)]
OF_SENDER = [("logins", "a@x.example other:word\n", (False, "other")), ("logins", "b@x.example other:word\n", (False, None))]


@pytest.mark.parametrize("by_sender", [False, True])
def test_rows_that_change_count_for_the_next_mail(dns, tls, by_sender):
    """Without a reload, and without a pause in which the connection would end by itself."""
    relay = FakeRelay(tls=tls, auth=["PLAIN"], chunking=by_sender)
    hop = f"[127.0.0.1]:{relay.port}"
    key = "a@x.example" if by_sender else hop
    main = f"relayhost = {hop}\nsmtp_tls_security_level = none\nsmtp_tls_policy_maps = texthash:{{dir}}/policies\n" \
           "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{dir}/logins\n" \
           "smtp_sasl_security_options = noanonymous\nsmtp_sasl_tls_security_options = noanonymous\n" \
           f"smtp_sender_dependent_authentication = {'yes' if by_sender else 'no'}\n"
    with Posthouse(main, dns=dns, files={"policies": "", "logins": f"{key} shop:word\n"}) as p:
        def sent():
            seen = p.log().count("status=")
            p.send()
            wait_for(lambda: p.log().count("status=") > seen)
            return len(relay.mails)

        for _ in range(3):
            sent()
        assert [(m["tls"], m["auth"][1]) for m in relay.mails] == [(False, "shop")] * 3 and len(relay.sessions) == 1
        for table, rows, wanted in OF_SENDER if by_sender else OF_HOST:
            (p.dir / "next").write_text(rows.format(hop=hop))
            (p.dir / "next").rename(p.dir / table)

            def counts():
                "the rows"
                before, now = len(relay.mails), sent()
                if now == before:
                    return wanted is None
                return (relay.mails[-1]["tls"], relay.mails[-1]["auth"] and relay.mails[-1]["auth"][1]) == wanted
            wait_for(counts)
        assert by_sender or "invalid TLS policy" in p.log()
    relay.stop()
