"""kill -9 while aliases are expanded: what goes on replaces what came in, in one step."""
import random
import threading
import time

from kit import Client, Posthouse, free_port, wait_for

ROUNDS = 8


def test_an_alias_is_expanded_once(dns):
    """No relay host takes anything: whenever it is killed, each mail is in the queue once, as it came or as it goes on."""
    rnd = random.Random(7)
    p = Posthouse(f"relayhost = [127.0.0.1]:{free_port()}\nmyorigin = mta.example\nmydestination = mta.example\n"
                  "alias_maps = inline:{{ {{ crew = ann@far.example, bob@far.example }} }}\nspool_body_file_size = 20000\n",
                  master="local unix - n n - - local\n", dns=dns)
    taken, number = set(), iter(range(10**6))

    def send():
        try:
            with Client(p.port) as c:
                while True:
                    key = f"k{next(number)}@src.example"
                    size = rnd.choice([10, 10, 500])
                    content = "Subject: x\r\n\r\n" + ("x" * 70 + "\r\n") * size
                    if c.mail(sender=key, rcpts=["crew@mta.example"], content=content).startswith("250"):
                        taken.add(key)
        except (OSError, AttributeError, TypeError, IndexError):
            pass

    for n in range(ROUNDS):
        had = len(taken)
        p.start()
        threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
        for t in threads:
            t.start()
        wait_for(lambda had=had: len(taken) > had + 5, 30)
        time.sleep(rnd.random() / 20)
        p.kill()
        for t in threads:
            t.join()
    p.start()

    def settled():
        queue = p.queue()
        return queue if all(len(q["recipients"]) == 2 for q in queue) else None
    queue = wait_for(settled, 60)
    senders = [q["sender"] for q in queue]
    assert len(senders) == len(set(senders)) and taken <= set(senders)
    assert {r["address"] for q in queue for r in q["recipients"]} == {"ann@far.example", "bob@far.example"}
    p.stop()
    p.start()
    assert sorted(q["sender"] for q in p.queue()) == sorted(senders)
    p.__exit__(None, None, None)
