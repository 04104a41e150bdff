#!/usr/bin/python3
"""The checker is checked: each patch in mutants/ puts one defect back; the simulator must find it.

  mutants.py [-t SECONDS] [NAME ...]

Every patch is applied to a copy of the tree, only sim_wire is built there (one build folder for all,
ccache if it is there), and the simulator has SECONDS (60) to find something: the fixed scripts without a
fault, then random scenarios and fixed scripts with faults by chance, then the fixed scripts with every fault at
every fourth call.  A patch that does not apply, a mutant
that does not build and one that is not found are errors, named.  Without any patch nothing may be found.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "tests" / "wire" / "mutants").glob("*.patch"))
# What a finding looks like.
FOUND = re.compile(r"^FAILED: (.*?)(?:: sim_wire .*)?$", re.M | re.S)


def call(args, cwd, **more):
    return subprocess.run(args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", **more)


class Tree:
    """A copy of the tree with a build folder of its own."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder) / "tree"
        self.build = self.root / "build"
        self.root.mkdir()
        names = call(["git", "ls-files", "-z"], ROOT).stdout.split("\0")
        for name in names:
            if name and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        env = dict(os.environ)
        if shutil.which("ccache"):
            env["CC"] = "ccache " + env.get("CC", "cc")
        setup = call(["meson", "setup", "-Dwerror=false", "build"], self.root, env=env)
        if setup.returncode != 0:
            sys.exit(setup.stdout)

    def make(self):
        """None, or what the compiler says."""
        r = call(["ninja", "-C", str(self.build), "tests/sim_wire"], self.root)
        return None if r.returncode == 0 else r.stdout[-3000:]

    def apply(self, patch, back=False):
        r = call(["patch", "-p1", "-s", "-F", "2", "--no-backup-if-mismatch", *(["-R"] if back else []), "-i", patch],
                 self.root)
        if r.returncode != 0:
            self.restore(patch)
            return r.stdout
        return None

    def restore(self, patch):
        """A patch that went in by half leaves nothing behind."""
        for name in re.findall(r"^\+\+\+ b/(\S+)", pathlib.Path(patch).read_text(), re.M):
            shutil.copy2(ROOT / name, self.root / name)
            os.utime(self.root / name)
            for left in self.root.glob(name + ".rej"):
                left.unlink()


def simulate(sim, left, *args):
    """The first finding of one run of the simulator, or None."""
    if left <= 0:
        return None
    try:
        out = call([sim, *args], sim.parent, timeout=left).stdout
    except subprocess.TimeoutExpired as e:
        out = (e.stdout or b"").decode(errors="replace") if isinstance(e.stdout, bytes) else e.stdout or ""
    m = FOUND.search(out)
    return " ".join(m[1].split())[:160] if m else None


def find(sim, seconds, scripts):
    """What the simulator finds within the time, and after how long."""
    begun = time.monotonic()

    def left():
        return seconds - (time.monotonic() - begun)
    found = simulate(sim, left(), "-s", "0", "-n", str(scripts))
    random = min(left(), seconds / 2)
    if not found and random >= 1:
        found = simulate(sim, random + 5, "-t", str(int(random)), "-s", "1000")
    found = found or simulate(sim, left(), "-x", "-e", "4")
    return found, time.monotonic() - begun


def count_scripts():
    return len(re.findall(r"\.name =", (ROOT / "tests" / "wire" / "scripts.c").read_text()))


def check(tree, patch, seconds):
    """One line about one mutant, and whether all is well."""
    bad = tree.apply(patch)
    if bad:
        return f"does not apply: {bad.strip()}", False
    try:
        bad = tree.make()
        if bad:
            return f"does not build: {bad}", False
        found, took = find(tree.build / "tests" / "sim_wire", seconds, count_scripts())
        return (f"{took:5.1f} s  {found}", True) if found else (f"NOT FOUND in {took:.0f} s", False)
    finally:
        tree.apply(patch, back=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-t", type=int, default=60, metavar="SECONDS")
    p.add_argument("names", nargs="*")
    o = p.parse_args()
    chosen = [x for x in PATCHES if not o.names or x.stem in o.names or x.name in o.names]
    if not chosen:
        sys.exit("mutants: no such patch")
    failed = []
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        tree = Tree(folder)
        bad = tree.make()
        if bad:
            sys.exit(bad)
        if not o.names:
            found, _ = find(tree.build / "tests" / "sim_wire", o.t, count_scripts())
            if found:
                sys.exit(f"mutants: without any patch the simulator finds: {found}")
        for patch in chosen:
            text, good = check(tree, patch, o.t)
            print(f"{'found ' if good else 'FAILED'} {patch.stem}: {text}", flush=True)
            if not good:
                failed.append(patch.stem)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} mutants found" + (f"; not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
