"""Random dialogues and random relay hosts: Posthouse does what Debian's Postfix does, or docs/differences.md says why not.

More of them by hand: python3 tests/compat/dialogues/both.py --in 10000 --out 10000
"""
import os
import pathlib
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1])]

import both  # noqa: E402
import pair  # noqa: E402
import rows  # noqa: E402

DOCS = (pathlib.Path(__file__).resolve().parents[3] / "docs/differences.md").read_text()
FIRST = int(os.environ.get("DIALOGUES_SEED", "1"))


RECORDS = ["y.test. 60 IN A 127.0.0.1"]


def text_of(differences):
    return "\n".join(f"seed {seed}: {what}\n  Postfix   {theirs}\n  Posthouse {ours}" for seed, what, theirs, ours in differences)


@pytest.mark.parametrize("first", range(FIRST, FIRST + 200, both.BATCH))
def test_dialogues_in(name_server, first):
    found, _ = both.compare(lambda seeds: both.both_talk(name_server, seeds), first, both.BATCH, rows.explains_in)
    assert not found, text_of(found)


@pytest.mark.parametrize("first", range(FIRST, FIRST + 200, both.BATCH))
def test_relay_hosts_out(name_server, first):
    found, _ = both.compare(lambda seeds: both.both_send(name_server, seeds), first, both.BATCH, rows.explains_out)
    assert not found, text_of(found)


def test_each_explanation_is_a_row():
    """What rows.py explains stands in docs/differences.md, word for word."""
    assert rows.ROWS
    for words in rows.ROWS:
        assert words in DOCS, words


def test_a_difference_is_found(name_server):
    """The comparison sees what it is for: a server that bounces where the other one delivers."""
    theirs, ours = both.both_send(name_server, range(1, 4))
    ours[2]["log"] = [(to, "5.0.0", "bounced", text) for to, _, _, text in ours[2]["log"]]
    found, _ = both.compare(lambda seeds: (theirs, ours), 1, 3, rows.explains_out)
    assert [seed for seed, *_ in found] == [2]
