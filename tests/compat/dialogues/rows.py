"""Which row of docs/differences.md explains a difference between Postfix and Posthouse, if any.

A rule looks at the first command that was answered differently, or at the recipients that fared differently, and
returns the words with which the row in docs/differences.md begins.
"""
import re

STRICT = "an address that is none is taken apart and put together again"
DIALOGUE = "503 to MAIL, RCPT or DATA bounces"
PROTOCOL = "2xx to DATA, 3xx to any other command or as a greeting: bounced"
LOGIN = "so does 530, 534, 535 or 538 there"
CLOSING = "421 in answer to RCPT is about that recipient alone"
VRFY = "VRFY is judged by the restrictions on senders and recipients"
SIZE = "a MAIL that was refused for its SIZE has the next one refused"
NESTED = "a nested MAIL that is refused takes RET and ENVID from the one before"
BLANK = "a first line that begins with a blank continues its own Received: field when it came by BDAT"
EMPTY = "a host that refuses MAIL and takes what follows gets a lone dot"
ROWS = (EMPTY, BLANK, STRICT, VRFY, SIZE, NESTED, DIALOGUE, PROTOCOL, LOGIN, CLOSING)


def first_reply(theirs, ours):
    """(command, Postfix's code, ours) of the first command that was answered differently."""
    return next(((a[0], a[1], b[1]) for a, b in zip(theirs["replies"], ours["replies"]) if a != b), ("", "", ""))


def without_dsn(mail):
    return re.sub(r" (RET|ENVID)=\S+| SMTPUTF8", "", mail[0]), mail[1:]


def without_blank_line(content):
    """The content as it looks when its first line, which begins with a blank, stands in the field before it."""
    return re.sub(rb"\A\r\n[ \t][^\n]*\n(?=[^:\s]*:)", b"", re.sub(rb"\A\r\n[ \t][^\n]*\n(?![^:\s]*:)", b"\r\n", content))


def explains_in(what, theirs, ours):
    if what == "replies":
        command, code, other = first_reply(theirs, ours)
        if re.search(r"<<|@@|<@[^:>]*>|\\@|:[^<]*>", command) and other == "501":
            return STRICT
        if command.startswith("VRFY") and other == "252":
            return VRFY
        sizes = [c for c, r in theirs["replies"] if "SIZE=99999999999" in c and r == "552"]
        return SIZE if sizes and command.upper().startswith("MAIL") and code == "552" else None
    if what == "mails" and any(c.startswith("BDAT") for c, _ in theirs["replies"]):
        if [m[2] for m in theirs["mails"]] == [without_blank_line(m[2]) for m in ours["mails"]]:
            return BLANK
    nested = any(c.upper().startswith("MAIL") and r == "503" for c, r in theirs["replies"])
    if what == "mails" and nested and list(map(without_dsn, theirs["mails"])) == list(map(without_dsn, ours["mails"])):
        return NESTED
    return None


def changed(theirs, ours):
    """(Postfix's, ours) of each recipient that fared differently."""
    mine = {o[0]: o for o in ours["log"]}
    return [(t, mine[t[0]]) for t in theirs["log"] if t[0] in mine and mine[t[0]] != t]


def explains_out(what, theirs, ours):
    """Mail that Posthouse keeps where Postfix bounces it, or sends what is left of it, for a reason that has a row."""
    if what == "mails" and [m for m in theirs["mails"] if m[2] != b""] == ours["mails"]:
        return EMPTY
    pairs = changed(theirs, ours)
    if what == "replies" or len(theirs["log"]) != len(ours["log"]) or not pairs or any(o[2] != "deferred" for _, o in pairs):
        return None
    for words, pattern in ((DIALOGUE, r"said: 503"), (LOGIN, r"said: 530"), (PROTOCOL, r"^Protocol error|talk to me: [13]"), (CLOSING,
        r"said: 421 .*RCPT TO")):
        if all(re.search(pattern, o[3]) for _, o in pairs):
            return words
    return None
