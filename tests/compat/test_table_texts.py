"""Tables with random texts, asked for random keys: what Debian's postmap -q finds, and what ours does.

SEED=4711 TEXTS=1000 pytest tests/compat/test_table_texts.py draws others, and more of them; what differs is printed with its seed.
"""
import os
import random
import re
import subprocess

import pytest
from kit import POSTHOUSE

import pair

SEED, TEXTS = int(os.environ.get("SEED", "1")), int(os.environ.get("TEXTS", "12"))
SUFFIXES = {"texthash": "", "hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}
WORDS = ["a", "b", "A", "user", "User@Example.COM", "user+tag@example.com", "@example.com", ".example.com", '"', "\\", '\\"', " ", "\t",
         "#", " #", ",", ":", "=", "{", "}", "(", "$", "$1", "%", "!", "/", "é", "É", "日本", "[1.2.3.4]", "\x01", "\x7f", "*", "'", "<", "+"]
ATOMS = ["a", "b", "ab", "[ab]", "[^a]", "(a)", "(b|c)", "(a(b))", "(x)?", ".*", ".", "^", "$", "b+", "c?", "\\.", "\\/", "@", "\\d", "\\w",
         "é", "[[:alpha:]]", "{2}", "a{1,2}", "(?i)a", "\\\\", "\\b", "(.+)@", "\\1", "[a-", "(", "]", "\\<", " ", "+", "=", "#"]
VALUES = ["OK", "$1", "${1}", "$(1)", "$2", "$0", "$$", "$", "x$1y", "${", "$10", "two  words ", "", "é$1", "{a}", "\\1", "$1a", "${ 1}"]
NETS = ["10.0.0.0/8", "10.0.0.1", "10.0.0.1/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "[::1]", "::1", "[::1]/128", "::ffff:10.0.0.1",
        "10/8", "10.0.0.0/33", "10.0.0.0/", "010.0.0.1", "10.0.0.0/08", "fe80::1%lo", "fe80::/10", "1.2.3.4/0",
        "[10.0.0.0/8]", "[10.0.0.0/8", "x", "[::1/128]", "[10.0.0.0]x", "10.0.0.0/8x", "2001:db8::/129", "256.1.1.1"]
ADDRESSES = ["10.0.0.1", "10.1.2.3", "::1", "[::1]", "::ffff:10.0.0.1", "fe80::1", "fe80::1%lo", "2001:DB8:0:0::1", "1.2.3.4", "010.0.0.1",
             "10.1", "x", "0.0.0.0", "::", "256.1.1.1", "10.0.0.1/32"]


def words(r, n):
    return "".join(r.choice(WORDS) for _ in range(r.randint(1, n)))


def rows(r):
    lines = [r.choice([f"# {words(r, 4)}", "", "   ", f" {words(r, 5)}", words(r, 3), *[words(r, 3) + r.choice(" \t") + words(r, 5)] * 6])
             for _ in range(r.randint(1, 8))]
    keys = [re.split(r"[ \t]", r.choice(lines).strip())[0] for _ in range(9)]
    keys = [k for k in [k.upper() for k in keys[:3]] + keys[3:] + [words(r, 2)] if k]  # an lmdb cannot be asked for nothing
    return r.choice(["\n", "\n", "\r\n"]).join(lines) + r.choice(["\n", ""]), keys


def pattern(r):
    mark = r.choice(["/"] * 8 + ["|", "!", ",", "=", "1"])
    return r.choice([""] * 6 + ["!", "! ", "!!"]) + mark + "".join(r.choice(ATOMS) for _ in range(r.randint(0, 4))) + mark


def rules(r, one, values):
    lines = []
    for _ in range(r.randint(1, 7)):
        lines.append(r.choice(["#" + one(), f" {one()} x", r.choice(["if ", "IF", "if\t"]) + one() + r.choice(["", "", " x"]),
                               r.choice(["endif", "ENDIF", " endif", "endif x"]), r.choice(["word", "/", "!", "if"]),
                               *[one() + r.choice([" ", "\t", ""]) + r.choice(values)] * 8]))
    return "\n".join(lines) + "\n"


def patterns(r):
    keys = ["".join(r.choice(["a", "b", "c", "B", "é", "É", "@", ".", "/", "\\", "1", " ", "x", "$"]) for _ in range(r.randint(1, 5)))
            for _ in range(12)]
    return rules(r, lambda: pattern(r) + r.choice([""] * 5 + ["i", "m", "x", "s", "A", "U", "X", "z"]), VALUES), keys


def networks(r):
    return rules(r, lambda: r.choice([""] * 5 + ["!", "! ", "!!"]) + r.choice(NETS), VALUES), ADDRESSES


DRAWN = {**dict.fromkeys(SUFFIXES, rows), "regexp": patterns, "pcre": patterns, "cidr": networks}


def postmap(command, *args, stdin=""):
    r = subprocess.run([*command, *args], input=stdin.encode(), capture_output=True)
    return r.returncode, r.stdout, r.stderr


@pytest.mark.parametrize("kind", DRAWN)
def test_texts_by_chance_like_postfix(tmp_path, kind):
    tmp_path.chmod(0o755)
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mta.example\n")
    (tmp_path / "postmap").symlink_to(POSTHOUSE)
    commands = [*pair.INSIDE, "postmap", "-c", tmp_path], [tmp_path / "postmap", "-c", tmp_path]
    different = {}
    for seed in range(SEED, SEED + TEXTS):
        text, keys = DRAWN[kind](random.Random(f"{kind} {seed}"))
        (tmp_path / "text").write_text(text, newline="")
        os.utime(tmp_path / "text", (1000000000, 1000000000))  # Postfix waits for what has just been written
        found = []
        for command in commands:
            if SUFFIXES.get(kind):
                postmap(command, f"{kind}:{tmp_path}/text")
            found.append(postmap(command, "-q", "-", f"{kind}:{tmp_path}/text", stdin="\n".join(keys) + "\n"))
        if b"duplicate" not in found[0][2] and found[0][:2] != found[1][:2]:  # docs/differences.md: "a `texthash` that has a key twice"
            different[seed] = (text, *found)
    assert different == {}, "\n".join(map(str, different.items()))
