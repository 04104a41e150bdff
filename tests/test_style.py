"""The house style that a machine can check."""
import json
import pathlib
import re
import statistics
import subprocess

import pytest
from kit import BUILD, ROOT, SLOW

SRC = ROOT / "src"

# What may include what: a folder uses only folders above or beside it on the road.
MAY = {
    "util": set(),
    "config": {"util"},
    "maps": {"util"},
    "mail": {"util"},
    "accounts": {"util", "config", "maps", "mail", "route"},
    "smtp": {"util"},
    "spool": {"util"},
    "route": {"util", "config", "maps", "mail", "spool"},
    "report": {"util", "config", "mail", "smtp"},
    "clean": {"util", "config", "maps", "mail", "route"},
    "receive": {"util", "config", "maps", "mail", "smtp", "spool", "route", "clean"},
    "deliver": {"util", "config", "maps", "mail", "smtp", "spool", "route", "report"},
    "schedule": {"util", "config", "maps", "mail", "spool", "route", "report", "clean"},
    "daemon": {"util", "config", "maps", "mail", "smtp", "spool", "route", "report", "receive", "deliver", "schedule", "accounts", "clean"},
    "transfer": {"util", "config", "mail", "smtp", "spool"},
    "web": {"util", "config", "mail", "route", "deliver", "daemon", "accounts"},
    "cli": {"util", "config", "maps", "mail", "smtp", "route", "daemon", "accounts", "web", "transfer", "clean"},
}


def files(suffixes=(".c", ".h")):
    return sorted(p for p in SRC.rglob("*") if p.suffix in suffixes)


def test_layers():
    bad = []
    for path in files():
        folder = path.parent.name
        for inc in re.findall(r'^#include "([a-z]+)/', path.read_text(), re.M):
            if inc != folder and inc not in MAY[folder]:
                bad.append(f"{path.relative_to(ROOT)} includes {inc}/")
    assert not bad, "\n".join(bad)


def test_every_file_says_what_it_is():
    bad = [str(p) for p in files() if not re.match(r"/\*\n \* [a-z]+/[a-z_]+\.(c|h|def) - ", p.read_text())]
    assert not bad, bad


def functions():
    out = subprocess.run(["ctags", "--languages=C", "--c-kinds=f", "--fields=+ne", "-o", "-",
                          *map(str, files((".c",)))], capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        m = re.search(r"^(\S+)\t(\S+)\t.*line:(\d+).*end:(\d+)", line)
        if m:
            yield m[1], pathlib.Path(m[2]).relative_to(ROOT), int(m[4]) - int(m[3]) + 1


def test_functions_are_short():
    sizes = list(functions())
    assert len(sizes) > 500
    long = [f"{path}: {name} has {n} lines" for name, path, n in sizes if n > 100]
    assert not long, long
    assert statistics.median(n for _, _, n in sizes) <= 15


def test_files_are_short():
    tests = [p for p in (ROOT / "tests").rglob("*") if p.suffix in (".c", ".h", ".py")]
    long = [f"{p}: {n}" for p in files() + tests if (n := len(p.read_text().splitlines())) > 1000]
    assert not long, long


def test_no_unbounded_text_functions():
    bad = []
    for p in files():
        for i, line in enumerate(p.read_text().splitlines(), 1):
            if re.search(r"\b(sprintf|strcat|gets|alloca|strncat)\(", line) and "vsnprintf" not in line:
                bad.append(f"{p}:{i}: {line.strip()}")
    assert not bad, bad


def test_one_label_a_function():
    bad = []
    for p in files((".c",)):
        for m in re.finditer(r"^(?:static )?[^\n;{}]+\([^;{}]*\) \{\n(.*?)^\}", p.read_text(), re.S | re.M):
            if len(re.findall(r"^[a-z_]+:$", m[1], re.M)) > 1:
                bad.append(f"{p}: {m[0][:60]}")
    assert not bad, bad


def test_formatted():
    ours = files((".c", ".h")) + sorted(p for p in (ROOT / "tests").rglob("*.[ch]"))
    out = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, ours)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-3000:]


def test_builds_clean_with_clang(tmp_path):
    """gcc built what runs; clang must have no remark either."""
    env = {"CC": "clang", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    r = subprocess.run(["meson", "setup", str(tmp_path / "b"), str(ROOT)], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-2000:]
    r = subprocess.run(["ninja", "-C", str(tmp_path / "b")], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-4000:]


def test_help_names_only_what_exists():
    """Every command that the help names is one that runs."""
    exe = BUILD / "src" / "posthouse"
    text = subprocess.run([str(exe), "--help"], capture_output=True, text=True).stdout
    names = re.findall(r"^  (\w+)", text, re.M)
    assert names
    for name in names:
        r = subprocess.run([str(exe), name, "--no-such-option"], capture_output=True, text=True,
                           env={"MAIL_CONFIG": "/nonexistent"})
        assert "no such command" not in r.stderr, name


def test_guarantees_name_tests_that_exist():
    text = (ROOT / "docs" / "guarantees.md").read_text()
    file = None
    for name in re.findall(r"`([^`]+)`", text):
        if name.startswith(("crash/", "e2e/", "unit/", "fuzz/", "web/", "compat/", "wire/")):
            file, _, test = name.partition("::")
            assert (ROOT / "tests" / file).exists(), name
        elif name.startswith("…::") or name.startswith("test_"):
            test = name.removeprefix("…::")
        else:
            continue
        if test:
            assert re.search(rf"\b{test}\(", (ROOT / "tests" / file).read_text()), f"{file} has no {test}"


def test_make_targets_exist():
    """Each `make NAME` of the documents, and each name that is said to be no file, has a rule."""
    makefile = (ROOT / "Makefile").read_text()
    rules = {name for line in re.findall(r"^([a-z][a-z0-9 -]*):(?!=)", makefile, re.M) for name in line.split()}
    phony = set(re.search(r"^\.PHONY: (.*)", makefile, re.M)[1].split())
    docs = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    named = {name for doc in docs for name in re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z0-9-]+)", doc.read_text())}
    assert len(named) > 8
    assert phony | named <= rules, (phony | named) - rules


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer's functions are in the programs")
def test_no_name_of_ours_takes_a_librarys_place():
    """A function named as one of a shared library would be called by that library instead of its own."""
    for exe in ("posthouse", "posthoused", "posthouse-web"):
        out = subprocess.run(["nm", "-D", "--defined-only", str(BUILD / "src" / exe)], capture_output=True, text=True, check=True).stdout
        assert " T " not in out, out


# -- names, comments and circles; what is excepted only gets less --

# Static functions with a name that another file has too: a backtrace and a breakpoint could mean either.
SHARED_NAMES = {"main"}

# Comments that speak of persons where they mean parts.
PERSONS = re.compile(r"\b(he|his|him|she|her|whoever|nobody|somebody)\b", re.I)

# Lines of more than 140 columns, by file of the tests.
LONG_LINES = {
    "tests/e2e/test_smtp_tls.py": 3,
    "tests/bench/lookups.py": 2, "tests/bench/web.py": 5, "tests/compat/pair.py": 2, "tests/compat/test_compat.py": 16,
    "tests/compat/test_explained.py": 2, "tests/e2e/test_accounts.py": 6, "tests/e2e/test_auth.py": 24,
    "tests/e2e/test_explain.py": 8, "tests/e2e/test_fail_closed.py": 1, "tests/e2e/test_iredmail.py": 44,
    "tests/e2e/test_schedule.py": 1, "tests/e2e/test_smtp_out.py": 1,
    "tests/e2e/test_smtp_sizes.py": 3, "tests/e2e/test_smtp_strangers.py": 6, "tests/e2e/test_sql.py": 1,
    "tests/e2e/test_tables.py": 3, "tests/servers.py": 23, "tests/test_style.py": 2, "tests/web/pictures.py": 4,
    "tests/web/test_api.py": 16, "tests/web/test_page.py": 9, "tests/web/test_server.py": 18,
    "tests/web/test_walls.py": 1, "tests/web/webkit.py": 3,
}


def comments(path):
    """(line number, text) of each line of a comment."""
    text = path.read_text()
    for m in re.finditer(r"/\*.*?\*/|//[^\n]*", re.sub(r'"(\\.|[^"\\\n])*"', lambda s: "x" * len(s[0]), text), re.S):
        first = text.count("\n", 0, m.start()) + 1
        for i, line in enumerate(m[0].split("\n")):
            yield first + i, line


def test_names_are_unique():
    """Of whatever can stand in a backtrace: one name, one function."""
    where = {}
    for name, path, _ in functions():
        if re.match(r"os_(?!linux)", path.name):  # another system's: never in one program with Linux's
            continue
        where.setdefault(name, set()).add(str(path))
    shared = {name: sorted(paths) for name, paths in where.items() if len(paths) > 1}
    assert not set(shared) - SHARED_NAMES, {n: p for n, p in shared.items() if n not in SHARED_NAMES}


def test_comments_name_parts_not_persons():
    bad = [f"{path.relative_to(ROOT)}:{line}: {text.strip()}" for path in files() for line, text in comments(path) if PERSONS.search(text)]
    assert not bad, "\n".join(bad)


def calls():
    """{(folder, file): {(folder, file) that it calls}}, from the objects that were built; tables of functions are no calls."""
    defined, wanted = {}, {}
    built = json.loads((BUILD / "compile_commands.json").read_text())  # others are left from before
    objects = [c["output"] for c in built if pathlib.Path(c["output"]).parts[0] == "src"]
    for line in subprocess.run(["nm", "-A", *objects], cwd=BUILD, capture_output=True, text=True).stdout.splitlines():
        obj, kind, symbol = line.split(":")[0], *line.split()[-2:]
        folder, _, name = pathlib.Path(obj).name.removesuffix(".c.o").partition("_")
        if kind == "T":
            defined[symbol] = (folder, name)
        elif kind == "U":
            wanted.setdefault((folder, name), set()).add(symbol)
    return {user: {defined[s] for s in symbols if s in defined} - {user} for user, symbols in wanted.items()}


def test_no_circles():
    """No file is called by one that it calls, however far round, in its folder or out of it."""
    graph = calls()
    assert len(graph) > 100

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen
    circles = sorted("/".join(f) for f in graph if f in reach(f))
    assert not circles, circles


def test_lines_of_tests_and_page_fit():
    """120 columns in the page; 140 in the tests, where no file gets more long lines than it has."""
    have = {}
    for folder, kind, most in (("tests", "*.py", 140), ("web/src", "*.ts*", 120)):
        for path in (ROOT / folder).rglob(kind):
            n = sum(len(line) > most for line in path.read_text().splitlines())
            if n:
                have[str(path.relative_to(ROOT))] = n
    more = {p: n for p, n in have.items() if n > LONG_LINES.get(p, 0)}
    assert not more, more
