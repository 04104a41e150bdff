"""Runs every test and ends in one line "N passed, N failed": unit tests (cmocka), then pytest.  Arguments are pytest's.

--fast: what finds most in two minutes: unit tests, the fuzzers' corpora, style, and a part of each kind of the others.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("POSTHOUSE_BUILD", "build")


def unit():
    passed = failed = 0
    for exe in sorted((BUILD / "tests").glob("unit_*")):
        if exe.is_dir():
            continue
        r = subprocess.run([str(exe)], capture_output=True, text=True, cwd=BUILD)
        out = r.stdout + r.stderr
        ok = len(re.findall(r"^\[\s+OK \]", out, re.M))
        bad = len(set(re.findall(r"^\[  FAILED  \] (\w+)$", out, re.M)))
        if r.returncode != 0 and bad == 0:
            bad = 1
        if bad:
            print(out)
        print(f"{exe.name}: {ok} passed, {bad} failed")
        passed, failed = passed + ok, failed + bad
    if passed + failed == 0:
        print("no unit tests were built: is libcmocka-dev installed?")
        failed = 1
    return passed, failed


FAST = ["tests/test_style.py", "tests/e2e/test_seed.py", "tests/e2e/test_smtp_in.py", "tests/e2e/test_config.py",
        "tests/crash/test_confined.py", "tests/web/test_walls.py", "--deselect", "tests/test_style.py::test_builds_clean_with_clang"]


def corpora():
    """Each target of tests/fuzz with every file of its corpus."""
    r = subprocess.run(["meson", "test", "-C", str(BUILD), "--suite", "corpus"], capture_output=True, text=True)
    count = lambda word: sum(int(n) for n in re.findall(rf"^{word}:\s+(\d+)", r.stdout, re.M))
    ok, bad = count("Ok"), count("Fail") + count("Timeout") + count("Unexpected Pass")
    if bad or ok == 0:
        print(r.stdout, r.stderr)
    print(f"corpora: {ok} passed, {bad} failed")
    return ok, bad or int(ok == 0)


def main():
    args = sys.argv[1:] or ["tests"]
    passed, failed = unit()
    if args == ["--fast"]:
        args = FAST
        ok, bad = corpora()
        passed, failed = passed + ok, failed + bad
    r = subprocess.run(["/usr/bin/python3", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
                        "--durations=8", *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(r.stdout)
    summary = [l for l in r.stdout.splitlines() if re.search(r"\b(passed|failed|error)\b.* in [\d.:]+", l)]
    count = lambda word: sum(int(n) for n in re.findall(rf"(\d+) {word}", summary[-1] if summary else ""))
    more_ok, more_bad = count("passed"), count("failed") + count("error")
    if (r.returncode != 0 or not summary) and more_bad == 0:
        more_bad = 1
    passed, failed = passed + more_ok, failed + more_bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
