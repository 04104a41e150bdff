"""Times with more behind their first unit: Debian's Postfix and Posthouse wait for clients equally long."""
import time

from kit import Client, free_ports, wait_for

import pair

TIMES = {"1s1h": 1, "2seconds": 2, "1s9": 1, "3": 3}


def waited(mta):
    """{time: seconds until a client that says nothing is told to go}"""
    ports = free_ports(len(TIMES))
    mta.case("relayhost = [127.0.0.1]:9\n", {}, "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_timeout={text}\n"
                                                       for text, port in zip(TIMES, ports)))
    out = {}
    try:
        for text, port in zip(TIMES, ports):
            wait_for(lambda: pair.listens(port))
            with Client(port) as c:
                begun = time.monotonic()
                assert c.reply().startswith("421 4.4.2"), text
                out[text] = round(time.monotonic() - begun)
        return out
    finally:
        mta.over()


def test_times_like_postfix(name_server, postfix):
    theirs, ours = waited(postfix), waited(pair.Ours(name_server))
    assert theirs == TIMES
    assert ours == theirs
