"""Random relay hosts: what a server offers and answers, made from a seed, the same for every client."""
import random
import re

from kit import FakeRelay

GOOD = {"GREETING": "220 host.test ESMTP", "MAIL": "250 2.1.0 Ok", "RCPT": "250 2.1.5 Ok", "DATA": "354 go ahead",
    "DOT": "250 2.0.0 Ok: queued", "QUIT": "221 2.0.0 Bye"}
CODES = ["250 2.0.0 fine", "251 2.1.5 forwarded", "354 go on", "421 4.3.2 closing", "450 4.2.0 busy", "451 4.3.0 later", "452 4.3.1 full",
    "550 5.1.1 no such user", "550 5.7.1 denied",
         "552 5.2.2 full", "554 5.7.1 refused", "500 5.5.2 what", "501 5.5.4 bad", "503 5.5.1 order", "530 5.7.0 login first",
         "550 no enhanced code", "450 no enhanced code", "299 odd", "550-5.1.1 two\r\n550 5.1.1 lines",
         "450-4.1.1 two\r\n450 4.1.1 lines", "550 4.1.1 mixed", "450 5.1.1 mixed", ""]


class Host:
    """How a relay host behaves: capabilities, and at most two stages that do not answer as they should."""

    def __init__(self, seed):
        self.seed = seed
        c = random.Random(f"host {seed}")
        self.options = dict(pipelining=c.random() < 0.7, chunking=c.random() < 0.3, dsn=c.random() < 0.6, size=c.choice([None, 0, 900,
            10000000]), utf8=c.random() < 0.7)
        self.odd = {}
        for stage in c.sample(["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT", "DOT", "RCPT", "QUIT"], c.choice([0, 1, 1, 1, 2])):
            self.odd[stage] = c.choice(CODES)
        if self.options["chunking"]:  # docs/differences.md: "BDAT": only Postfix says DATA to such a host
            self.odd.pop("DATA", None)
        self.only_even = c.random() < 0.3  # recipients with an even number alone are answered so

    def relay(self):
        """A server that behaves like that."""
        replies = dict(self.odd)
        if self.only_even and "RCPT" in replies:
            answer = replies["RCPT"]

            def even(line):
                return answer if re.search(r"u\d+n\d*[02468]@", line) else None
            replies["RCPT"] = even
        return FakeRelay(replies=replies, name="host.test", **self.options)

    def mails(self):
        """(sender, recipients, content) of what is sent to it."""
        c, out, n = random.Random(f"mails {self.seed}"), [], 0
        for _ in range(c.choice([1, 1, 2])):
            rcpts = [f"u{self.seed}n{n + i}@h{self.seed}.test" for i in range(c.choice([1, 1, 2, 3]))]
            n += len(rcpts)
            body = c.choice(["short\r\n", ".dots\r\n..\r\n", "y" * 60 + "\r\n", ("z" * 70 + "\r\n") * 20, ("long" * 300 + "\r\n"),
                "8-bit \u00e4\r\n"])
            out.append((f"s{self.seed}@x.test", rcpts,
                f"From: <s@x.test>\r\nTo: <r@y.test>\r\nDate: Thu, 26 Nov 2026 00:00:00 +0000\r\nMessage-ID: <m{n}@x.test>\r\n\r\n{body}"))
        return out

    def describe(self):
        return f"{self.options} {self.odd}{' even recipients only' if self.only_even else ''}"
