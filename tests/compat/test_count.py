"""How many inputs are compared with Debian's Postfix, by what they are about: `pytest -s` prints it.

An input counts once, however many things of its outcome are compared.  The random dialogues are not in it."""
import corpus
import test_broken_files
import test_compat
import test_content
import test_envelope
import test_exchangers
import test_names
import test_patterns
import test_early
import test_programs
import test_tls
import test_tools

# kind: (inputs, how many there are at least)
KINDS = {
    "where mail goes, and with which credentials": (len(test_compat.CASES), 99),
    "addresses, as sender and as recipient": (2 * len(test_envelope.ADDRESSES), 90),
    "restrictions and access tables": (len(test_envelope.LISTS) + len(test_envelope.ACCESS), 40),
    "commands that come too early": (len(test_early.PACKETS), 20),
    "exchangers": (len(test_exchangers.DOMAINS), 12),
    "names of clients": (len(test_names.CLIENTS) * len(test_names.LISTS), 45),
    "content of whole mails": (len(corpus.mails()), 800),
    "addresses in header fields": (len(test_content.FIELDS), 64),
    "calls of sendmail": (len(test_programs.CALLS), 130),
    "tables of patterns": (sum(len(keys.split()) for _, _, keys in test_patterns.TABLES.values()) + len(test_patterns.INLINE), 89),
    "the queue's tools": (len(test_tools.SUPER + test_tools.IDS + test_tools.QUEUE + test_tools.SHAPES), 42),
    "TLS policies": (len(test_tls.CASES + test_tls.ROWS + test_tls.CHOICES) - 2, 86),  # two cases hold the rows
    "files that are no configuration": (len(test_broken_files.CASES), 6),
}


def test_there_are_as_many_as_there_were():
    print("".join(f"\n{n:5} {kind}" for kind, (n, _) in KINDS.items()), f"\n{sum(n for n, _ in KINDS.values()):5} in all")
    fewer = {kind: n for kind, n in KINDS.items() if n[0] < n[1]}
    assert not fewer
