"""Branch coverage of the spool and of every parser: what the unit tests, the power-loss simulator and the fuzz
targets' committed corpora reach, one line a file, then the two sums.  Exits 1 if one is below 95 %.

  coverage.py [-v]     -v: the lines with a branch that is never taken
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
SPOOL = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "src/spool").glob("*.c"))
PARSERS = [f"src/{f}.c" for f in (
    "smtp/command", "smtp/reply", "smtp/content", "config/main_cf", "config/master_cf", "util/lines", "util/codec", "util/ipc",
    "mail/address", "mail/envelope", "mail/header", "route/nexthop", "report/dsn", "maps/hash_check", "maps/lmdb_check",
    "maps/map_mem", "maps/map_pattern", "maps/template", "maps/tabconf")]


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


def collect(work):
    exes = []
    for n, argv in enumerate(programs()):
        exes.append(argv[0])
        r = subprocess.run(argv, cwd=DIR, env=dict(os.environ, LLVM_PROFILE_FILE=f"{work}/{n}.profraw"),
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode != 0:
            sys.exit(f"{argv[0].name}: {r.stdout[-2000:]}")
    subprocess.run(["llvm-profdata-14", "merge", "-o", f"{work}/all", *pathlib.Path(work).glob("*.profraw")], check=True)
    objects = [a for e in exes[1:] for a in ("-object", e)]
    return json.loads(subprocess.run(["llvm-cov-14", "export", "-instr-profile", f"{work}/all", exes[0], *objects],
                                     check=True, capture_output=True, text=True).stdout)["data"][0]["files"]


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


def main():
    build()
    with tempfile.TemporaryDirectory(prefix="coverage-") as work:
        files = {os.path.relpath(f["filename"], ROOT): f for f in collect(work)}
    verbose = "-v" in sys.argv
    shares = [report("spool", SPOOL, files, verbose), report("parsers", PARSERS, files, verbose)]
    return 0 if min(shares) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
