"""Runs every test and ends in one line "N passed, N failed": unit tests (cmocka), then pytest.  Arguments are pytest's.

Without arguments three files of tests run at a time, each in a pytest of its own: most tests wait for something most of the
time, and two cores are not busy with two of them.  What takes longest begins first, so that none is left alone at the end.

--fast: what finds most in two minutes: unit tests, the fuzzers' corpora, style, and a part of each kind of the others.
"""
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("POSTHOUSE_BUILD", "build")


def unit():
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")  # what lives as long as the process is not freed
    passed = failed = 0
    for exe in sorted((BUILD / "tests").glob("unit_*")):
        if exe.is_dir():
            continue
        r = subprocess.run([str(exe)], capture_output=True, text=True, cwd=BUILD, env=env)
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


# A run of pytest that takes longer hangs, in seconds: what conftest.py does about a test that hangs did not end it.
LIMIT = 3000 if BUILD.name == "build" else 12000


def run_pytest(*args):
    """What pytest says of the tests: (passed, failed, its output).

    The output goes to a file: a server that outlives its test would keep the other end of a pipe open for ever.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        p = subprocess.Popen(["/usr/bin/python3", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *args], cwd=ROOT,
                             stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            p.wait(LIMIT)
        except subprocess.TimeoutExpired:
            print(f"not at its end after {LIMIT} s: {' '.join(args)}", file=out)
        finally:  # also after Ctrl-C
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
        out.seek(0)
        text = out.read()
    summary = [l for l in text.splitlines() if re.search(r"\b(passed|failed|error|skipped)\b.* in [\d.:]+", l)]
    count = lambda word: sum(int(n) for n in re.findall(rf"(\d+) {word}", summary[-1] if summary else ""))
    ok, bad = count("passed"), count("failed") + count("error")
    return ok, bad or int(p.returncode != 0 or not summary), text


# What takes longest, the longest first; all others follow by name.
LONGEST = ["fuzz/test_coverage.py", "e2e/test_queue.py", "fuzz/test_fuzz.py", "compat/test_compat.py", "wire/test_wire.py",
           "web/test_server.py", "e2e/test_smtp_out.py", "compat/test_explained.py", "crash/test_faults.py", "crash/test_sim.py",
           "e2e/test_auth.py", "e2e/test_limits.py", "web/test_page.py", "crash/test_kill.py", "e2e/test_seed.py",
           "e2e/test_accounts.py", "test_style.py"]


def files():
    names = sorted(p.relative_to(ROOT / "tests").as_posix() for p in (ROOT / "tests").rglob("test_*.py"))
    return ["tests/" + n for n in sorted(names, key=lambda n: LONGEST.index(n) if n in LONGEST else len(LONGEST))]


def one_file(name):
    began = time.monotonic()
    ok, bad, out = run_pytest("--durations=4", "--durations-min=5", name)
    print(out if bad else "".join(l + "\n" for l in out.splitlines() if re.match(r"[\d.]+s ", l)), end="")
    print(f"{name}: {ok} passed, {bad} failed, {time.monotonic() - began:.0f} s", flush=True)
    return ok, bad


def main():
    args = sys.argv[1:]
    passed, failed = unit()
    if args == ["--fast"]:
        args = FAST
        ok, bad = corpora()
        passed, failed = passed + ok, failed + bad
    if args:
        more_ok, more_bad, out = run_pytest("--durations=8", *args)
        print(out)
    else:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            more_ok, more_bad = map(sum, zip(*pool.map(one_file, files())))
    passed, failed = passed + more_ok, failed + more_bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
