"""Branch coverage of the spool and of every parser: what the unit tests, the power-loss simulator and the fuzz
targets' committed corpora reach, one line a file, then the two sums.  Exits 1 if one is below 95 %.

  coverage.py [-v]     -v: the lines with a branch that is never taken

With -d, of the folders that daemons and the wire simulator run: receive, schedule, route and deliver, by their unit tests,
the simulator and the tests in DAEMON_TESTS (ten minutes), or those that are named behind -d.  Exits 1 if one is below 90 %,
or if a test fails.

  coverage.py [-v] -d [tests/e2e/test_smtp_in.py …]
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIR = ROOT / "build-cov"
LEAST = 95.0
DAEMON_DIR = ROOT / "build-cov-daemon"
DAEMON_LEAST = 90.0
DAEMON_FOLDERS = ("receive", "schedule", "route", "deliver")
# Where those folders' branches are taken; the other tests are about the rest of the program.
DAEMON_TESTS = [f"tests/e2e/test_{name}.py" for name in (
    "smtp_in", "smtp_corners", "smtp_strangers", "smtp_sizes", "smtp_tls", "smtp_tls_out", "smtp_out", "relay_host", "auth", "limits",
    "sendmail", "header", "addresses", "aliases", "check", "explain", "schedule", "queue", "stop", "spellings")]
SPOOL = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "src/spool").glob("*.c"))
PARSERS = [f"src/{f}.c" for f in (
    "smtp/command", "smtp/reply", "smtp/content", "config/main_cf", "config/master_cf", "util/lines", "util/codec", "util/ipc",
    "mail/address", "mail/envelope", "mail/header", "route/nexthop", "report/dsn", "maps/db_pages", "maps/db_hash", "maps/db_btree",
    "maps/lmdb_check",
    "maps/map_mem", "maps/map_pattern", "maps/template", "maps/tabconf", "transfer/queuefile", "transfer/reasons")]


def build():
    if not (DIR / "build.ninja").exists():
        subprocess.run(["meson", "setup", DIR, "-Dfuzz=true", "-Dcoverage=true", "-Db_lundef=false", "--buildtype=debug"],
                       cwd=ROOT, env=dict(os.environ, CC="clang"), check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", DIR], check=True, stdout=subprocess.DEVNULL)


def programs():
    tests = DIR / "tests"
    yield [tests / "sim_spool", "-s", "100", "-n", "30"]
    for exe in sorted(tests.glob("unit_*")):
        if not exe.is_dir():
            yield [exe]
    for corpus in sorted((ROOT / "tests/fuzz/corpus").iterdir()):
        yield [tests / f"fuzz_{corpus.name}", "-runs=0", corpus]


def build_daemon():
    """Counters are in the profile itself, which stays mapped: a confined process could not write it at its end."""
    if not (DAEMON_DIR / "build.ninja").exists():
        subprocess.run(["meson", "setup", DAEMON_DIR, "-Dcoverage=true", "-Db_lundef=false", "--buildtype=debug"], cwd=ROOT,
                       env=dict(os.environ, CC="clang", CFLAGS="-mllvm -runtime-counter-relocation"), check=True,
                       stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", DAEMON_DIR], check=True, stdout=subprocess.DEVNULL)


def run_daemon(work, tests):
    def env(name):
        return dict(os.environ, POSTHOUSE_BUILD=DAEMON_DIR.name, LLVM_PROFILE_FILE=f"{work}/{name}%c.profraw")
    os.chmod(work, 0o777)  # each daemon's owner writes its own
    exes = [DAEMON_DIR / "tests/sim_wire", DAEMON_DIR / "src/posthoused"]
    subprocess.run([exes[0], "-n", "3000", "-s", "7000", "-j", "1"], env=env("wire"), check=True)
    for unit in sorted((DAEMON_DIR / "tests").glob("unit_*")):
        if not unit.is_dir() and unit.name.split("_")[1] in (*DAEMON_FOLDERS, "resolver"):
            subprocess.run([unit], env=env(unit.name), cwd=DAEMON_DIR, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            exes.append(unit)
    rc = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], env=env("%p"), cwd=ROOT).returncode
    return exes, rc


def export(work, exes):
    subprocess.run(["llvm-profdata-14", "merge", "-o", f"{work}/all", *pathlib.Path(work).glob("*.profraw")], check=True)
    objects = [a for e in exes[1:] for a in ("-object", e)]
    text = subprocess.run(["llvm-cov-14", "export", "-instr-profile", f"{work}/all", exes[0], *objects],
                          check=True, capture_output=True, text=True).stdout
    return {os.path.relpath(f["filename"], ROOT): f for f in json.loads(text)["data"][0]["files"]}


def collect(work):
    exes = []
    for n, argv in enumerate(programs()):
        exes.append(argv[0])
        r = subprocess.run(argv, cwd=DIR, env=dict(os.environ, LLVM_PROFILE_FILE=f"{work}/{n}.profraw"),
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode != 0:
            sys.exit(f"{argv[0].name}: {r.stdout[-2000:]}")
    return export(work, exes)


def branches(file):
    """One entry a condition: (line, column, times true, times false), summed over macro expansions and programs."""
    found = {}
    for b in file["branches"]:
        t, f = found.get((b[0], b[1]), (0, 0))
        found[b[0], b[1]] = (t + b[4], f + b[5])
    return sorted((at[0], at[1], t, f) for at, (t, f) in found.items())


def report(title, names, files, verbose):
    total = taken = 0
    for name in names:
        if name not in files:
            sys.exit(f"{name}: no program that was run has it")
        seen = branches(files[name])
        n, hit = 2 * len(seen), sum((t > 0) + (f > 0) for _, _, t, f in seen)
        total, taken = total + n, taken + hit
        print(f"  {name}: {hit} of {n}, {100 * hit / n if n else 100:.1f} %")
        text = (ROOT / name).read_text().splitlines()
        for line, col, t, f in seen if verbose else []:
            if t == 0 or f == 0:
                never = "never evaluated" if t + f == 0 else "never true" if t == 0 else "never false"
                print(f"    {line}:{col} {never}: {text[line - 1].strip()}")
    share = 100 * taken / total
    print(f"{title}: {taken} of {total} branches taken, {share:.1f} %")
    return share


def daemon(tests, verbose):
    build_daemon()
    with tempfile.TemporaryDirectory(prefix="coverage-") as work:
        exes, rc = run_daemon(work, tests or DAEMON_TESTS)
        files = export(work, exes)
    names = {f: sorted(n for n in files if n.startswith(f"src/{f}/") and n.endswith(".c")) for f in DAEMON_FOLDERS}
    shares = [report(f, names[f], files, verbose) for f in DAEMON_FOLDERS]
    return 0 if rc == 0 and min(shares) >= DAEMON_LEAST else 1


def main():
    if "-d" in sys.argv:
        at = sys.argv.index("-d")
        return daemon(sys.argv[at + 1:], "-v" in sys.argv[:at])
    build()
    with tempfile.TemporaryDirectory(prefix="coverage-") as work:
        files = collect(work)
    verbose = "-v" in sys.argv
    shares = [report("spool", SPOOL, files, verbose), report("parsers", PARSERS, files, verbose)]
    return 0 if min(shares) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
