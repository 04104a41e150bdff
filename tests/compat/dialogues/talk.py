"""Random SMTP dialogues: what a client says, made from a seed.

A dialogue is a list of steps.  A step is a list of commands that go out in one packet (one command, or several
when the client pipelines), each with the content that follows it: DATA's text is sent only after a 354, a chunk
always.  The same seed makes the same dialogue, whatever the server answers.
"""
import random

HELLO = ["EHLO client.test", "EHLO client.test", "EHLO client.test", "EHLO client.test", "HELO client.test", "EHLO [127.0.0.1]",
    "HELO under_score.test",
         "EHLO", "HELO", "EHLO two words", "EHLO -dash.test", "ehlo lower.test", "EHLO client.test.", "HELO 127.0.0.1"]
STRAY = ["NOOP", "NOOP with words", "RSET", "RSET now", "VRFY b@y.test", "VRFY", "HELP", "FOO", "", "EXPN list", "TURN", "DATA now", "DATA",
         "RCPT TO:<early@y.test>", "MAIL", "RCPT", "QUIT now", "AUTH PLAIN", "STARTTLS", "BDAT", "BDAT x", "EHLO again.test",
         "HELO again.test", "MAIL FROM:<nested@x.test>",
         "X" * 300, "NOOP " + "x" * 1500, "mail from:<lower@x.test>", "SIZE 100", "SEND FROM:<a@x.test>", "VRFY <b@y.test>", "ETRNX"]
MAIL_PARAMETERS = ["", "", "", "", " SIZE=1000", " BODY=8BITMIME", " BODY=7BIT", " SMTPUTF8", " RET=HDRS", " RET=FULL ENVID=id7",
    " ENVID=a+2Bb", " SIZE=99999999999", " SIZE=x",
                   " BODY=BINARYMIME", " BODY=", " FOO=bar", " FOO", " RET=NONE", " RET=HDRS RET=FULL", " ENVID=",
                   " size=10 body=8bitmime", " ENVID=" + "e" * 90, " SIZE=-1",
                   " ENVID=a+0Db", " ENVID=a b", " SIZE=", "  SIZE=10", " ENVID=a+zz"]
RCPT_PARAMETERS = ["", "", "", "", "", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY", " NOTIFY=NEVER,FAILURE", " NOTIFY=", " NOTIFY=SOMETIMES",
    " ORCPT=rfc822;o@y.test",
                   " ORCPT=rfc822;o+2Bx@y.test", " ORCPT=o@y.test", " ORCPT=rfc822;", " FOO=bar", " notify=never",
                   " NOTIFY=FAILURE ORCPT=rfc822;p@y.test",
                   " NOTIFY=FAILURE NOTIFY=DELAY", " ORCPT=x-odd;thing"]
# {u}: a word that belongs to this recipient alone.
RECIPIENTS = ["<{u}@y.test>"] * 10 + [
    "<{u}@sub.y.test>", "<{u}.dotted@y.test>", "<{u}+ext@y.test>", '<"{u} blank"@y.test>', "<@relay.test:{u}@y.test>", " <{u}@y.test>",
    "{u}@y.test", "<{u}@y.test", "{u}@y.test>",
    "<>", "<{u}@>", "<@y.test>", "<{u}@y..test>", "<{u}@-y.test>", "<{u} {u}@y.test>", "<{u}@@y.test>", "<<{u}@y.test>>",
    "Name <{u}@y.test>", "<{u}@[192.0.2.1]>", "<{u}@[1.2.3]>",
    "<{u}@[IPv6:::1]>", "<{u}@a_b.test>", "<{u}!x@y.test>", "<{u}%y.test@y.test>", "<" + "l" * 70 + "{u}@y.test>",
    "<{u}@" + "d" * 64 + ".test>", '<"{u}@y.test>', "<{u}\\@y.test>", "<{u},x@y.test>",
    "<{u}..x@y.test>", "<.{u}@y.test>", "<{u}.@y.test>", "<{u}@denied.test>", "<{u}@later.test>"]
SENDERS = ["<{u}@x.test>"] * 12 + [
    "<>", "<{u}@x.test", "{u}@x.test", " <{u}@x.test>", "<{u}>", "<{u}@x..test>", "<@r.test:{u}@x.test>", '<"{u} q"@x.test>',
    "<{u}@x.test> ", "<{u} x@x.test>", "<{u}@[127.0.0.1]>", "<=x{u}@x.test>",
    "<-{u}@x.test>", "<{u}@spam.test>"]
LINES = ["plain text", ".", "..", ".dot", "a" * 998, "b" * 999, "c" * 2049, "trailing blank ", "\ttab", "", "8-bit \u00e4\u00f6",
    "From here on", "Subject: in the body", "x" * 70, "."]
FIELDS = ["Subject: words", "X-Folded: one\r\n two", "X-Empty:", "X-Long: " + "y " * 700,
    "Received: from a by b; Thu, 26 Nov 2026 00:00:00 +0000", "MIME-Version: 1.0", "X-Tab:\tvalue",
          "X-8bit: \u00fc", "References: <1@x.test>", "Keywords: a, b", "X-Dots: ...", "Content-Type: text/plain; charset=utf-8"]
WHOLE = ["From: <f@x.test>", "To: <t@y.test>", "Date: Thu, 26 Nov 2026 00:00:00 +0000", "Message-ID: <m@x.test>"]


class Maker:
    def __init__(self, seed):
        self.seed = seed
        self.chance = random.Random(f"talk {seed}")
        self.count = 0

    def word(self):
        self.count += 1
        return f"u{self.seed}n{self.count}"

    def content(self):
        c = self.chance
        fields = WHOLE + c.sample(FIELDS, c.randrange(4))
        c.shuffle(fields)
        kind = c.randrange(12)
        body = [c.choice(LINES) for _ in range(c.randrange(6))]
        if kind == 0:  # no header section
            lines = [line for line in body if not line.startswith("From ")]
        elif kind == 1:  # no blank line
            lines = fields
        elif kind == 2:
            lines = fields + [""]
        elif kind == 3:  # a line that is no field ends the section
            lines = fields + ["no field at all"] + body
        else:
            lines = fields + [""] + body
        return "".join(line + "\r\n" for line in lines).encode()

    def mail(self):
        return "MAIL FROM:" + self.chance.choice(SENDERS).format(u=self.word()) + self.chance.choice(MAIL_PARAMETERS)

    def rcpt(self):
        return "RCPT TO:" + self.chance.choice(RECIPIENTS).format(u=self.word()) + self.chance.choice(RCPT_PARAMETERS)

    def chunks(self, content):
        c, out = self.chance, []
        while content and c.random() < 0.4:
            n = c.randrange(len(content) + 1)
            out.append((f"BDAT {n}", content[:n]))
            content = content[n:]
        out.append((f"BDAT {len(content)} LAST", content))
        return out

    def transaction(self):
        c = self.chance
        commands = [(self.mail(), None)] + [(self.rcpt(), None) for _ in range(c.choice([1, 1, 1, 2, 2, 3, 5]))]
        while c.random() < 0.25:
            commands.insert(c.randrange(len(commands) + 1), (c.choice(STRAY), None))
        content = self.content()
        if c.random() < 0.65:
            return commands + [("DATA", content)]
        if c.random() < 0.1:
            return commands + self.chunks(content)[:1] + [("RSET", None)]
        return commands + self.chunks(content)

    def dialogue(self):
        """Steps of (command, content or None) pairs."""
        c, commands = self.chance, []
        if c.random() < 0.97:
            commands.append((c.choice(HELLO), None))
            if commands[0][0].upper() in ("EHLO", "HELO") or c.random() < 0.1:
                commands.append(("EHLO client.test", None))
        for _ in range(c.choice([1, 1, 2, 3])):
            commands += self.transaction()
        steps, pipelined = [], c.random() < 0.5
        for command, content in commands:
            alone = command[:4].upper() in ("EHLO", "HELO", "DATA", "AUTH", "STAR", "QUIT", "VRFY", "NOOP",
                "")  # RFC 2920: these end a group
            if pipelined and steps and not steps[-1][1] and not command.startswith("BDAT"):
                steps[-1][0].append((command, content))
                steps[-1][1] = alone
            else:
                steps.append([[(command, content)], not pipelined or alone])
        return [step for step, _ in steps]
