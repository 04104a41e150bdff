"""kill -9 while aliases are expanded: what goes on replaces what came in, in one step."""
import random
import threading
import time

from kit import Client, Posthouse, free_port, wait_ended, wait_for

ROUNDS = 8


def test_an_alias_is_expanded_once(dns):
    """No relay host takes anything: whenever it is killed, each mail is in the queue once, as it came or as it goes on.

    The mail of a list within an alias is in the queue once, too, from the list's owner."""
    rnd = random.Random(7)
    p = Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\nmyorigin = mta.example\nmydestination = mta.example\n"
                  "alias_maps = inline:{{ {{ crew = ann@far.example, bob@far.example }} {{ club = cy@far.example, team }} "
                  "{{ team = dee@far.example }} {{ owner-team = eve@far.example }} }}\nspool_body_file_size = 20000\n",
                  master="local unix - n n - - local\n", dns=dns)
    taken, number = set(), iter(range(10**6))

    def send():
        try:
            with Client(p.port) as c:
                while True:
                    key = f"k{next(number)}@src.example"
                    size = rnd.choice([10, 10, 500])
                    content = "Subject: x\r\n\r\n" + ("x" * 70 + "\r\n") * size
                    name = rnd.choice(["crew", "club"])
                    if c.mail(sender=key, rcpts=[f"{name}@mta.example"], content=content).startswith("250"):
                        taken.add(key)
        except (OSError, AttributeError, TypeError, IndexError):
            pass

    for n in range(ROUNDS):
        had = len(taken)
        p.start()
        threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
        for t in threads:
            t.start()
        wait_for(lambda had=had: len(taken) > had + 5)
        time.sleep(rnd.random() / 20)
        p.kill()
        wait_ended(*threads)
    p.start()

    def settled():
        queue = p.queue()  # a page after the other: what is made of a message that was not listed yet may be in none
        queue = queue if queue == p.queue() else [{"recipients": [{"address": "it changes"}]}]
        ends = ({"ann@far.example", "bob@far.example"}, {"cy@far.example"}, {"dee@far.example"})
        return queue if all({r["address"] for r in q["recipients"]} in ends for q in queue) else None
    queue = wait_for(settled)
    senders = [q["sender"] for q in queue]
    keys = [s for s in senders if s != "owner-team@mta.example"]
    assert len(keys) == len(set(keys)) and taken <= set(keys)

    def of(address):
        return [q["sender"] for q in queue if q["recipients"][0]["address"] == address]
    assert 0 < len(of("cy@far.example")) == len(of("dee@far.example")) and set(of("dee@far.example")) == {"owner-team@mta.example"}
    p.stop()
    p.start()
    assert sorted(q["sender"] for q in p.queue()) == sorted(senders)
    p.__exit__(None, None, None)
