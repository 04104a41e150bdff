"""check_policy_service (SMTPD_POLICY_README): what a service is asked and what its answer does, in Debian's Postfix and in Posthouse."""
import contextlib
import re
import socket
import threading

import pytest
from kit import Client, FakeRelay, free_port, wait_for

import pair

RELAY = "127.0.0.99"


class Service:
    """A policy service: answers by what stands in the local part of the recipient or, without one, of the sender."""

    def __init__(self, answers):
        self.answers, self.asked, self.lock = answers, [], threading.Lock()
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(50)
        self.port = self.sock.getsockname()[1]
        self.connections = 0
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        with conn, conn.makefile("rb") as f:
            asked = {}
            for line in f:
                if line != b"\n":
                    name, _, value = line.decode().rstrip("\n").partition("=")
                    asked[name] = value
                    continue
                with self.lock:
                    self.asked.append(asked)
                answer = self.answers(asked)
                if answer is None:
                    return  # it hangs up
                conn.sendall(answer.encode())
                asked = {}

    def stop(self):
        self.sock.shutdown(socket.SHUT_RDWR)  # else the thread that accepts keeps it open
        self.thread.join()  # the next service's socket may have the same number: it must not take the clients of that
        self.sock.close()


ACTIONS = {
    "dunno": "DUNNO", "ok": "OK", "permit": "permit", "number": "200", "reject": "REJECT", "text": "REJECT go away",
    "coded": "REJECT 5.1.1 no such",
    "sender-code": "REJECT 5.1.8 bad sender", "defer": "DEFER", "later": "DEFER come again", "code": "550 5.7.1 never",
    "code4": "451 4.7.1 greylisted",
    "bare": "450", "if-permit": "DEFER_IF_PERMIT greylisted", "if-permit-bare": "DEFER_IF_PERMIT",
    "if-permit-coded": "DEFER_IF_PERMIT 4.2.0 wait",
    "if-reject": "DEFER_IF_REJECT", "prepend": "PREPEND X-Policy: seen", "lower": "dunno", "spaces": "REJECT   spaced   out  ",
    "before": "  REJECT blanks", "behind": "DUNNO  ", "ok-behind": "OK ",
    "header": "PREPEND X-B: blank ", "number-behind": "200 ", "status": "REJECT 5.7.9   no ",
    "close": "521 5.7.1 bye",
    "utf8": "REJECT näh", "redirected": "550 see http://x.example/?a=b%20c",
}
LISTS = {"client": "smtpd_client_restrictions", "helo": "smtpd_helo_restrictions", "sender": "smtpd_sender_restrictions",
         "relay": "smtpd_relay_restrictions", "recipient": "smtpd_recipient_restrictions", "data": "smtpd_data_restrictions",
         "end": "smtpd_end_of_data_restrictions"}


def by_name(asked):
    """The action that the sender's local part names, for the list that the context names."""
    word = re.match(r"[\w-]*", asked["sender"])[0]
    return f"action={ACTIONS.get(word, 'DUNNO')}\n\n"


def overrides(server):
    rest = {"relay": ", reject_unauth_destination", "recipient": ", reject_unauth_destination"}
    one = {name: [f"{option} = check_policy_service {server}{rest.get(name, '')}"] for name, option in LISTS.items()}
    one["permit before"] = [f"smtpd_recipient_restrictions = permit_mynetworks, check_policy_service {server}"]
    one["rejects behind"] = [f"smtpd_recipient_restrictions = check_policy_service {server}, reject"]
    one["warns"] = [f"smtpd_recipient_restrictions = warn_if_reject check_policy_service {server}, permit"]
    one["settings"] = [f"smtpd_recipient_restrictions = check_policy_service {{ {server}, timeout=10s, default_action=DUNNO,"
                       " { policy_context = here it is } }, permit"]
    one["two"] = [f"smtpd_recipient_restrictions = check_policy_service {server}, check_policy_service {server}, permit"]
    one["code"] = [f"smtpd_recipient_restrictions = check_policy_service {server}, permit", "access_map_reject_code = 559",
                   "access_map_defer_code = 459"]
    return one


MAIN = (f"mydestination =\nrelay_domains = rel.test\nrelayhost = [{RELAY}]\nsmtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\n"
        "notify_classes =\n")


def dialogue(port, word):
    said = []
    with Client(port, ehlo="c.test") as c:
        for line in (f"MAIL FROM:<{word}@x.test> SIZE=300", "RCPT TO:<one@rel.test>", "RCPT TO:<two@rel.test>", "DATA"):
            said.append(c.cmd(line))
            if said[-1].startswith("521"):
                return said
        if said[-1].startswith("354"):
            said.append(c.cmd("Subject: x\r\n\r\nhello\r\n."))
    return [re.sub("queued as .*", "queued", s) for s in said]


def comparable(asked):
    """What is asked, without ports and names that are drawn."""
    drawn = {"client_port", "server_port", "instance", "queue_id", "size"}
    return {**{k: v for k, v in asked.items() if k not in drawn}, "has": sorted(k for k in drawn if asked[k] not in ("", "0"))}


@pytest.fixture(scope="module")
def relay():
    r = FakeRelay(RELAY, 25)
    yield r
    r.stop()


@pytest.fixture(scope="module")
def both(name_server, postfix, relay):
    seen = []
    for mta in (postfix, pair.Ours(name_server)):
        service = Service(by_name)
        cases = overrides(f"inet:127.0.0.1:{service.port}")
        relay.sessions.clear()
        with pair.services(mta, MAIN, list(cases.values())) as ports:
            said = {}
            for name, port in zip(cases, ports):
                for word in ACTIONS:
                    before = len(service.asked)
                    said[name, word] = dialogue(port, word), [comparable(a) for a in service.asked[before:]]
            wait_for(lambda: len(re.findall(": removed", mta.new_log())) >= sum("queued" in s[0][-1] for s in said.values()))
        mails = sorted((m["from"].split()[1], m["content"].split(b"Received:")[0]) for m in relay.mails)
        seen.append((said, mails, service.connections))
        service.stop()
    return seen


@pytest.mark.parametrize("name", overrides(""))
def test_answers_of_a_policy_service(both, name):
    (theirs, _, _), (ours, _, _) = both
    for word in ACTIONS:
        assert ours[name, word] == theirs[name, word], word


ADDRESSES = ["root", "a@host", "@r1:a@x.test", '"a b"@x.test', '"a=b"@x.test', '"request=x"@x.test', '"a\\"q"@x.test', "A@X.TEST",
             "a%b@x.test", "", "ü@x.test"]


def test_addresses_and_messages_as_they_are_told(name_server, postfix, relay):
    """Addresses as the client says them, whatever is in them, and a name for each message."""
    told = []
    for mta in (postfix, pair.Ours(name_server)):
        service, names = Service(lambda asked: "action=DUNNO\n\n"), []
        one = f"check_policy_service inet:127.0.0.1:{service.port}"
        lists = [f"smtpd_recipient_restrictions = {one}, permit", f"smtpd_data_restrictions = {one}",
                 f"smtpd_end_of_data_restrictions = {one}"]
        with pair.services(mta, MAIN, [lists]) as ports, Client(ports[0], ehlo="c.test") as c:
            for address in ADDRESSES:
                c.cmd(f"MAIL FROM:<{address}>")
                c.cmd(f"RCPT TO:<{address}>")
                c.cmd("RSET")
            for content in ("DATA", "BDAT 3 LAST", "BDAT 3"):
                before = len(service.asked)
                for line in ("MAIL FROM:<s@x.test> SIZE=77", "RCPT TO:<b@rel.test>", "RCPT TO:<b@rel.test>", "RCPT TO:<c@rel.test>"):
                    assert c.cmd(line).startswith("250")
                c.raw(content + "\r\n" + ("" if content == "DATA" else "x\r\n"))
                c.reply()
                said = {"DATA": "x\r\n.", "BDAT 3": "BDAT 0 LAST"}.get(content)
                assert said is None or c.cmd(said).startswith("250")
                names.append({a["instance"] for a in service.asked[before:]})
        assert [len(n) for n in names] == [1, 1, 1] and len(set.union(*names)) == 3
        told.append([comparable(a) | {"size": a["size"]} for a in service.asked])
        service.stop()
    assert told[1] == told[0]


def test_lines_that_are_put_before(both):
    assert both[1][1] == both[0][1] and any(b"X-Policy: seen" in head for _, head in both[1][1])


def test_connections_are_kept(both):
    """Postfix has one a process; Posthouse one a loop at a time."""
    assert both[1][2] <= 8


@pytest.mark.parametrize("service", ["away", "hangs up", "garbage", "silent"])
def test_a_service_that_does_not_answer(name_server, postfix, service):
    answers = {"hangs up": lambda asked: None, "garbage": lambda asked: "what=is this\n\n", "silent": lambda asked: ""}
    s = Service(answers[service]) if service in answers else None
    port, said = s.port if s else free_port(), []
    settings = "smtpd_policy_service_timeout = 1s\nsmtpd_policy_service_retry_delay = 1s\n"
    cases = [[f"smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:{port}, permit"],
             [f"smtpd_recipient_restrictions = check_policy_service {{ inet:127.0.0.1:{port}, default_action=DUNNO }}, permit"],
             [f"smtpd_recipient_restrictions = check_policy_service {{ inet:127.0.0.1:{port},"
              " { default_action = 550 5.5.0 closed }, try_limit=1 }"],
             [f"smtpd_recipient_restrictions = check_policy_service {{ inet:127.0.0.1:{port}, default_action=DUNO, try_limit=1 }}, permit"]]
    for mta in (postfix, pair.Ours(name_server)):
        with pair.services(mta, MAIN + settings, cases) as ports:
            said.append([dialogue(p, "dunno")[:2] for p in ports])
    assert said[1] == said[0]
    if s:
        s.stop()


BAD = ["inet:127.0.0.1:9, try_limit=0", "inet:127.0.0.1:9, timeout=0s", "inet:127.0.0.1:9, max_ttl=0", "inet:127.0.0.1:9, retry_delay=0s",
       "inet:127.0.0.1:9, max_idle=0", "inet:127.0.0.1:9, try_limit=x", "inet:127.0.0.1:9, no_such=1", "inet:127.0.0.1:9, try_limit"]


def test_settings_that_are_none(name_server, postfix):
    """With Postfix no client of such a service gets an answer; here it gets one that puts the mail off, and check says why."""
    cases = [[f"smtpd_recipient_restrictions = check_policy_service {{ {bad} }}, permit"] for bad in BAD]
    with pair.services(postfix, MAIN, cases) as ports:
        with contextlib.ExitStack() as clients:
            for port in ports:
                clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            wait_for(lambda: postfix.new_log().count(": fatal: ") >= len(BAD))
    ours = pair.Ours(name_server)
    with pair.services(ours, MAIN, cases) as ports:
        for port, bad in zip(ports, BAD):
            assert dialogue(port, "dunno")[1].startswith("451 4.3.5"), bad
        assert ours.p.run("check").stdout.count("mail that comes to it is refused") == len(BAD)
