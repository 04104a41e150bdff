"""Next hops of several hosts: what one of them says, what becomes of it, and which host is said to have said it."""
import re

from kit import FakeRelay, Posthouse, free_port, wait_for


def lines_of(p, sender):
    """{recipient: (relay, status, text)} of the mail from that sender."""
    qid = re.search(rf" (\w+): from=<{sender}>", p.log())[1]
    found = re.findall(rf" {qid}: to=<(\w+)@y\.example>, relay=(\S+?),.* status=(\w+) \((.*)\)$", p.log(), re.M)
    return {rcpt: rest for rcpt, *rest in found}


# What the first host says to r1, r2 and r3, to all of the mail, and what becomes of each of them: which host gives the result.
FIRST, SECOND, RETURNED = ("first", "sent"), ("second", "sent"), ("first", "bounced")
SAYS = [
    ({"r1": "550 5.1.1 nobody", "r2": "450 4.2.0 later"}, {}, {"r1": RETURNED, "r2": SECOND, "r3": FIRST}),
    ({"r1": "550 5.1.1 nobody"}, {"DATA": "451 4.3.0 later"}, {"r1": RETURNED, "r2": SECOND, "r3": SECOND}),
    ({"r1": "450 4.2.0 later"}, {"DATA": ""}, {"r1": SECOND, "r2": SECOND, "r3": SECOND}),
    ({"r1": "550 5.1.1 nobody", "r2": "450 4.2.0 later"}, {"DATA": ""}, {"r1": RETURNED, "r2": SECOND, "r3": SECOND}),
    ({"r1": "450 4.2.0 later", "r2": ""}, {}, {"r1": SECOND, "r2": SECOND, "r3": SECOND}),
]


def test_each_result_is_of_the_host_that_gave_it(dns):
    """Also where the host hangs up behind it; what it has put off by then goes to the next host at once."""
    relays = []
    for to, rest, _ in SAYS:
        says = {"RCPT": lambda line, to=to: to.get(line.split("<")[1].split("@")[0]), **rest}
        relays.append((FakeRelay(pipelining=False, replies=says), FakeRelay()))
    rows = "".join(f"s{i}@x.example [127.0.0.1]:{a.port}, [127.0.0.1]:{b.port}\n" for i, (a, b) in enumerate(relays))
    main = "sender_dependent_relayhost_maps = texthash:{dir}/hops\nsmtp_log_tls_feature_status = yes\n"
    with Posthouse(main, dns=dns, files={"hops": rows}) as p:
        for i, (to, rest, wanted) in enumerate(SAYS):
            p.send(sender=f"s{i}@x.example", rcpts=[f"{r}@y.example" for r in wanted])
            wait_for(lambda: re.search(rf"from=<s{i}@x\.example>", p.log()) and len(lines_of(p, f"s{i}@x.example")) == len(wanted))
            port = {"first": relays[i][0].port, "second": relays[i][1].port}
            found = lines_of(p, f"s{i}@x.example")
            assert {r: tuple(f[:2]) for r, f in found.items()} == \
                {r: (f"127.0.0.1[127.0.0.1]:{port[host]}", status) for r, (host, status) in wanted.items()}, (to, rest)
        assert all(", tls=" in line for line in p.log().splitlines() if "relay=127" in line)
    for relay in (r for pair in relays for r in pair):
        relay.stop()


def test_what_an_earlier_host_put_off_waits(dns):
    """With what that host said, and by its name, whatever is wrong with the last one."""
    first = FakeRelay(replies={"RCPT": "450 4.2.0 later"})
    last = [FakeRelay(replies={"MAIL": ""}), FakeRelay(utf8=False), FakeRelay(size=10)]
    hops = [f"[127.0.0.1]:{r.port}" for r in last] + ["[nx.server]:25", "nullmx.example"]
    rows = "".join(f"s{i}@x.example [127.0.0.1]:{first.port}, {hop}\n" for i, hop in enumerate(hops))
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n", dns=dns, files={"hops": rows}) as p:
        for i, hop in enumerate(hops):
            with p.client() as c:
                c.mail(f"s{i}@x.example", ["r1@y.example"], "Subject: grün\r\n\r\nhello\r\n", " SMTPUTF8")
            wait_for(lambda: p.log().count("status=") > i)
            relay, status, text = lines_of(p, f"s{i}@x.example")["r1"]
            assert status == "deferred" and "450 4.2.0 later" in text and relay.endswith(f":{first.port}"), (hop, relay, text)
    for relay in (first, *last):
        relay.stop()


def test_what_a_host_says_of_itself_is_not_about_the_mail(dns):
    """Refused at HELO, or a relay host whose domain takes no mail: the next one is asked, and without one the mail waits."""
    rude, good = FakeRelay(replies={"EHLO": "550 5.7.1 no", "HELO": "550 5.7.1 nor this"}), FakeRelay()
    hops = [f"[127.0.0.1]:{rude.port}", "nullmx.example"]
    rows = "".join(f"s{i}@x.example {hop}\nn{i}@x.example {hop}, [127.0.0.1]:{good.port}\n" for i, hop in enumerate(hops))
    with Posthouse("sender_dependent_relayhost_maps = texthash:{dir}/hops\n", dns=dns, files={"hops": rows}) as p:
        for sender, wanted in (("s0", "deferred"), ("n0", "sent"), ("s1", "deferred"), ("n1", "sent")):
            p.send(sender=f"{sender}@x.example", rcpts=["r1@y.example"])
            wait_for(lambda: re.search(rf"from=<{sender}@", p.log()) and lines_of(p, f"{sender}@x.example"))
            assert lines_of(p, f"{sender}@x.example")["r1"][1] == wanted, sender
    for relay in (rude, good):
        relay.stop()


def test_a_session_with_the_next_host_ends_with_the_mail(dns):
    """It is used for further mail while the first host is down, and once there is none the first one is asked again."""
    port = free_port()
    with FakeRelay() as second, Posthouse(
            f"relayhost = [127.0.0.1]:{port}, [127.0.0.1]:{second.port}\nsmtp_connection_cache_time_limit = 4s\n", dns=dns) as p:
        for i in range(3):
            p.send()
            p.wait_log("status=sent", count=i + 1)
        assert len(second.sessions) == 1 and p.log().count("Connection refused") == 1
        with FakeRelay(port=port) as first:
            wait_for(lambda: "QUIT" in second.sessions[0].commands)
            p.send()
            first.wait_mails(1)


# What stands behind the address in main.cf, and whether it is the only one.
INTERFACES = [("", True), (", 198.51.100.78", False), (", ::1", True), (", localhost", False),
              ("\nsmtp_bind_address = 0.0.0.0", False), ("\nsmtp_bind_address = 127.0.0.9", False)]


def test_connections_come_from_the_only_address_that_is_listened_on(dns):
    """One that this system has not is said, and mail goes from another one, as with Postfix."""
    with FakeRelay() as relay, Posthouse("relayhost = [127.0.0.1]:1\n", dns=dns) as p:
        for n, (more, bound) in enumerate(INTERFACES):
            p.write_main(f"relayhost = [127.0.0.1]:{relay.port}\ninet_interfaces = 198.51.100.77{more}\n")
            p.stop()
            p.start()
            seen = len(p.log())
            p.send(rcpts=[f"n{n}@y.example"])
            p.wait_log(rf"to=<n{n}@y\.example>.*status=sent")
            assert ("warning: bind 198.51.100.77: Cannot assign requested address" in p.log()[seen:]) == bound, more


def test_a_transports_own_address_is_kept_by_a_reload(dns):
    """An -o inet_interfaces is about its client's connections, as with Postfix; it is not what only a restart takes up."""
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\ndefault_transport = other\n", dns=dns,
                                         master="other unix - - n - - smtp -o inet_interfaces=198.51.100.77\n") as p:
        for n in range(3):
            p.send(rcpts=[f"n{n}@y.example"])
            p.wait_log(rf"to=<n{n}@y\.example>.*status=sent")
            assert p.log().count("warning: bind 198.51.100.77: Cannot assign requested address") == n + 1
            p.reload()


def test_what_this_system_lacks_suspends_no_host(dns):
    """Its own address is not there: the mail waits, and the relay host is not said to have failed."""
    with FakeRelay() as relay, Posthouse(f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_bind_address = 192.0.2.77\n", dns=dns) as p:
        for i in range(12):
            p.send()
            p.wait_log("status=deferred .connect to .*Cannot assign requested address", count=i + 1)
        assert "suspended" not in p.log() and not relay.sessions
