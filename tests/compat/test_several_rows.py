"""A table that answers with several rows, beside Debian's Postfix, which joins them with a comma: for each parameter that takes the
value of a table, what comes of it.  Where a list is meant it is the same; else mail waits by name, and nothing goes that would not
go with Postfix."""
import os
import re
import sqlite3

import pytest
from kit import Client, FakeRelay, wait_for

import pair

RECORDS = ["x.example. 60 IN A 127.0.0.1"]
LOGIN = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
LIST, ONE = "list", "one"
# (parameter, key, rows, is a list meant?, what Postfix does: "A" or "B": mail to that host; else a code).
CASES = [
    ("sender_dependent_relayhost_maps", "s@x.example", ["A", "B"], LIST, "A"),
    ("sender_dependent_relayhost_maps", "s@x.example", ["[127.0.0.1]:1", "B"], LIST, "B"),
    ("transport_maps", "r@y.example", ["smtp:A", "smtp:B"], ONE, "A"),
    ("transport_maps", "r@y.example", ["discard:", "smtp:A"], ONE, "2.0.0"),
    ("transport_maps", "r@y.example", ["smtp:A", "error:no"], ONE, "A"),
    ("transport_maps", "r@y.example", ["error:no", "smtp:A"], ONE, "550"),
    ("sender_dependent_default_transport_maps", "s@x.example", ["smtp:A", "smtp:B"], ONE, "A"),
    ("smtp_tls_policy_maps", "A", ["none", "encrypt"], ONE, "A"),
    ("smtp_tls_policy_maps", "A", ["may", "encrypt"], ONE, "4.7.5"),
    ("smtp_sasl_password_maps", "A", ["user1:secret1", "user2:secret2"], ONE, "A"),
    ("check_recipient_access", "r@y.example", ["OK", "REJECT"], LIST, None),
    ("check_recipient_access", "r@y.example", ["REJECT", "OK"], LIST, None),
    ("check_recipient_access", "r@y.example", ["OK a", "REJECT b"], LIST, None),
    ("check_recipient_access", "r@y.example", ["DUNNO", "REJECT"], LIST, None),
    ("check_recipient_access", "r@y.example", ["REJECT a", "OK"], LIST, None),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("tables")
    for at in (d, *d.parents):
        if at.stat().st_uid == os.getuid() and str(at) != "/":
            at.chmod(at.stat().st_mode | 0o055)
    return d


def table(folder, key, rows):
    (folder / "db").unlink(missing_ok=True)
    with sqlite3.connect(folder / "db") as db:
        db.execute("CREATE TABLE t (k TEXT, v TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [(key, v) for v in rows])
    (folder / "t.cf").write_text(f"dbpath = {folder}/db\nquery = SELECT v FROM t WHERE k = '%s' ORDER BY rowid\n")
    os.utime(folder / "t.cf", (0, 0))  # Postfix waits until a table is a second old
    for f in ("db", "t.cf"):
        (folder / f).chmod(0o644)
    return f"sqlite:{folder}/t.cf"


def settings(param, spec, hop):
    if param.startswith("check_"):
        lists = f"smtpd_recipient_restrictions = {param} {spec}, permit_mynetworks, reject"
        return f"smtpd_relay_restrictions = permit\n{lists}\nrelayhost = {hop}\n"
    relayhost = f"relayhost = {hop}\n" if param.startswith("smtp_") else ""
    return f"{param} = {spec}\n{relayhost}{LOGIN if 'sasl' in param else ''}"


def fate(mta, main, relays, cause="reject: "):
    """Where the mail went, or the code that it was refused or put off with; and the log, which names the cause of a refusal for now.
    The process that asks the table names the cause, and another one answers the client: either may be first in the log."""
    for r in relays.values():
        r.sessions.clear()
    mta.case(main + "notify_classes =\n", {}, "")
    try:
        with Client(mta.port) as c:
            reply = c.mail("s@x.example", ["r@y.example"])
        if not reply.startswith("250"):
            wait_for(lambda: reply.startswith("5") or cause in mta.new_log())
            return reply[:3], reply, mta.new_log()
        _, _, dsn, _, text = wait_for(lambda: pair.outcomes(mta.new_log()))[0]
        return next((name for name, r in relays.items() if r.mails), dsn), text, mta.new_log()
    finally:
        mta.over()


@pytest.mark.parametrize("n", range(len(CASES)))
def test_several_rows_like_postfix_or_by_name(name_server, postfix, folder, n):
    param, key, rows, meant, known = CASES[n]
    with FakeRelay(auth=["PLAIN"] if "sasl" in param else ()) as a, FakeRelay() as b:
        hops = {"A": f"[127.0.0.1]:{a.port}", "B": f"[127.0.0.1]:{b.port}"}
        named = lambda text: re.sub(r"\b[AB]\b", lambda m: hops[m[0]], text) if meant is ONE or "relayhost" in param else text
        main = settings(param, table(folder, named(key), [named(r) for r in rows]), hops["A"])
        theirs, words, _ = fate(postfix, main, {"A": a, "B": b})
        if "sasl" in param:
            assert [s.auth for s in a.sessions if s.mails] == [("PLAIN", "user1", "secret1,user2:secret2")]
        cause = "t.cf: 2 values for one key, and only one is allowed" if meant is ONE else "reject: "
        ours, said, log = fate(pair.Ours(name_server), main, {"A": a, "B": b}, cause)
        print(param, rows, "theirs", theirs, words, "ours", ours, said)
        assert known in (None, theirs), (theirs, words)
        if meant is LIST:
            assert ours == theirs or ours == "451", (theirs, words, ours, said)
            return
        assert ours in ("451", "4.3.0"), (ours, said)
        assert cause in (said if ours == "4.3.0" else log), log
        assert not a.mails and not b.mails and not any(s.auth for s in a.sessions) and "secret" not in log
