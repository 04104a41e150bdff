"""An orderly stop and the clients that are connected: what was taken is answered, everybody else is told to come
again, and nobody makes the stop wait for longer than is promised."""
import contextlib
import re
import signal
import threading

import pytest
from kit import SLOW, Posthouse, wait_ended, wait_for

SHUT = "421 4.3.2 mta.example Service shutting down"
FROM, TO = "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"
MAIN = "relayhost = [127.0.0.1]:9\nsmtpd_hard_error_limit = 100000\nsmtpd_soft_error_limit = 100000\nmaximal_queue_lifetime = 5d\n"
# What a stop may take (docs/guarantees.md), and what a loaded machine makes of it.
STOP_S = 90 * SLOW


@pytest.fixture
def mta():
    with Posthouse(MAIN) as p:
        yield p


def terminate(p):
    p.proc.send_signal(signal.SIGTERM)
    p.wait_log("terminating on signal 15")


def wait_stopped(p):
    p.proc.wait(STOP_S)
    log = p.log()
    assert "killed by signal" not in log and "exit status" not in log, log[-2000:]


def rest(c, replies=None):
    """Every reply that is still to come, to the end of the connection."""
    replies = [] if replies is None else replies
    with contextlib.suppress(ConnectionError):
        while (r := c.reply()) is not None:
            replies.append(r)
    return replies


def test_a_transaction_without_content_is_no_reason_to_wait(mta):
    """Also one whose commands have been answered only now."""
    begun = [mta.client() for _ in range(3)]
    for c, said in zip(begun, ([FROM], [FROM, TO], [FROM, TO, TO])):
        assert all(c.cmd(line).startswith("250") for line in said)
    terminate(mta)
    for c in begun:
        assert rest(c) == [SHUT]
    wait_stopped(mta)


def test_content_that_has_begun_is_taken_and_then_no_more(mta):
    """The next message follows at once: it is not taken, by DATA and by BDAT."""
    by_data, by_bdat = mta.client(), mta.client()
    for c in (by_data, by_bdat):
        assert c.cmd(FROM).startswith("250") and c.cmd(TO).startswith("250")
    assert by_data.cmd("DATA").startswith("354")
    by_data.raw("Subject: by data\r\n\r\nfirst ")
    by_bdat.raw("BDAT 20\r\nSubject: by bdat\r\n\r\n")
    assert by_bdat.reply() == "250 2.0.0 Ok: 20 bytes"
    terminate(mta)
    again = f"{FROM}\r\n{TO}\r\nDATA\r\n"
    by_data.raw("second\r\n.\r\n" + again)
    by_bdat.raw("BDAT 3\r\nab\n")
    assert by_bdat.reply() == "250 2.0.0 Ok: 3 bytes"
    by_bdat.raw("BDAT 3 LAST\r\nab\n" + again)
    for c in (by_data, by_bdat):
        taken, shut = rest(c)
        assert taken.startswith("250 2.0.0 Ok: queued as ") and shut == SHUT
    wait_stopped(mta)
    mta.start()
    wait_for(lambda: len(mta.queue()) == 2)


def flood(c, said, replies):
    """Pipelines for ever and reads what it is told."""
    def say():
        with contextlib.suppress(OSError):
            while True:
                c.raw(said * 20)

    threading.Thread(target=say, daemon=True).start()
    rest(c, replies)


FLOODS = {"noop": "NOOP\r\n", "mail": f"{FROM}\r\nRSET\r\n", "rcpt": f"{FROM}\r\n{TO}\r\nRSET\r\n",
          "errors": "FROBNICATE\r\n", "chunks": "BDAT 3\r\nab\n", "bdat": f"{FROM}\r\n{TO}\r\nBDAT 9 LAST\r\nS: x\r\n\r\nx",
          "data": f"{FROM}\r\n{TO}\r\nDATA\r\nS: x\r\n\r\nx\r\n.\r\n", "ehlo": "EHLO a.example\r\n"}


def test_clients_that_pipeline_for_ever(mta):
    """Each gets an answer to all that was taken, then the notice; what it had sent beyond that was not taken."""
    heard = {kind: [] for kind in FLOODS}
    threads = [threading.Thread(target=flood, args=(mta.client(), FLOODS[kind], heard[kind])) for kind in FLOODS]
    for t in threads:
        t.start()
    wait_for(lambda: all(len(replies) > 20 for replies in heard.values()) or None)
    terminate(mta)
    wait_stopped(mta)
    wait_ended(*threads)
    mta.start()
    wait_for(lambda: mta.run("-j", face="postqueue").returncode == 0)
    said = [re.search("queued as (.*)", r)[1] for replies in heard.values() for r in replies if "queued as" in r]
    queued = [m["queue_id"] for m in mta.queue()]
    assert sorted(said) == sorted(queued) and said


def test_clients_that_dribble_are_told_at_the_end_of_the_time(mta):
    """Content that never ends, a chunk that does not come, a client that sends a byte now and then."""
    stuck = {kind: mta.client() for kind in ("data", "bdat", "dribble")}
    for c in stuck.values():
        assert c.cmd(FROM).startswith("250") and c.cmd(TO).startswith("250")
    stuck["bdat"].raw("BDAT 100 LAST\r\nSubject: x\r\n")
    for kind in ("data", "dribble"):
        assert stuck[kind].cmd("DATA").startswith("354")
    over = threading.Event()

    def dribble():
        with contextlib.suppress(OSError):
            while not over.wait(0.01):
                stuck["dribble"].raw("x")

    t = threading.Thread(target=dribble)
    t.start()
    terminate(mta)
    for c in stuck.values():
        assert rest(c)[-1:] in ([SHUT], []), "a reset may take the notice away, nothing else may come"
    assert rest(stuck["data"]) == []
    wait_stopped(mta)
    over.set()
    wait_ended(t)
    assert len(re.findall("disconnect from", mta.log())) >= 3
    mta.start()
    assert mta.queue() == []
