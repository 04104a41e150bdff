#!/usr/bin/python3
"""The checker is checked: each patch in mutants/ puts one defect back; the simulator must find it.

  mutants.py [-n SCENARIOS] [-s SEED] [-a] [NAME ...]

A NAME may have * and ?; without any, every patch is taken, and the tree without a patch, of which nothing may
be found.  Every patch is applied to a copy of the tree, only sim_wire is built there (one build folder for all, ccache
if it is there).  Then it is looked for in the fixed scripts without a fault, in random scenarios and fixed scripts
with faults by chance, SCENARIOS (20,000) from SEED (1,000) on, and in the fixed scripts with every fault at every
fourth call.  How much is run is counted, not timed, so that a loaded machine finds the same: on two cores that are
free this takes less than a minute.  What was found is printed with the command that repeats it, in the mutant's tree.
A patch with a defect that shows at one call only names the fixed script of that call in a line of its text, "Script: NAME":
that one is run with every fault at every call.

A patch that does not apply, a mutant that does not build and one that is not found are errors; all are named
at the end.  -a only looks whether the patches apply.
"""
import argparse
import fnmatch
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "tests" / "wire" / "mutants").glob("*.patch"))
# What a finding looks like: its text, and what repeats it with its script and step.
FOUND = re.compile(r"^FAILED: (.*?): (sim_wire -s [^\n]*)$", re.M | re.S)
# A run that has not ended by then hangs.
HANG_S = 1800
FIRST_RANDOM = 2000


def call(args, cwd, **more):
    return subprocess.run(args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", **more)


class Tree:
    """A copy of the tree with a build folder of its own."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder) / "tree"
        self.build = self.root / "build"
        self.before = {}  # what was in the files of the patch
        self.root.mkdir()
        names = call(["git", "ls-files", "-z"], ROOT).stdout.split("\0")
        for name in names:
            if name and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)

    def set_up(self):
        env = dict(os.environ)
        if shutil.which("ccache"):
            env["CC"] = "ccache " + env.get("CC", "cc")
        setup = call(["meson", "setup", "-Dwerror=false", "build"], self.root, env=env)
        if setup.returncode != 0:
            sys.exit(setup.stdout)
        bad = self.make()
        if bad:
            sys.exit(bad)

    def make(self):
        """None, or what the compiler says."""
        r = call(["ninja", "-C", str(self.build), "tests/sim_wire"], self.root)
        if r.returncode == 0:
            return None
        return "\n".join(x for x in r.stdout.splitlines() if re.search(r"error|undefined", x))[:3000] or r.stdout[-3000:]

    def apply(self, patch):
        """None, or what is wrong with the patch."""
        names = re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(), re.M)
        files = [self.root / name for name in names]
        self.before = {file: file.read_bytes() for file in files if file.exists()}
        r = call(["patch", "-p1", "-s", "-F", "2", "--no-backup-if-mismatch", "-i", patch], self.root)
        if r.returncode == 0:
            return None
        self.restore()
        return r.stdout

    def restore(self):
        """The files of the patch are as they were, also if it went in by half."""
        for file, text in self.before.items():
            file.write_bytes(text)
            file.with_name(file.name + ".rej").unlink(missing_ok=True)


def simulate(sim, *args):
    """The first finding of one run of the simulator, and what repeats it; or None."""
    try:
        out = call([sim, *args], sim.parent, timeout=HANG_S).stdout
    except subprocess.TimeoutExpired:
        return f"the simulator hangs ({' '.join(args)})"
    m = FOUND.search(out)
    return f"{' '.join(m[1].split())[:160]}: {m[2]}" if m else None


def children_cpu_s():
    """Processor time of all children that have ended, in seconds: the same on a loaded machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fixed_scripts(tree):
    """Their names, in the order of their seeds."""
    wire = tree.root / "tests" / "wire"
    groups = re.findall(r"&scripts_(\w+)", (wire / "scripts.c").read_text())
    return [n for g in groups for n in re.findall(r'\.name = "([^"]+)"', (wire / f"scripts_{g}.c").read_text())]


def find(tree, seed, scenarios, text=""):
    """What the simulator finds, and after how much processor time."""
    begun = children_cpu_s()
    sim = tree.build / "tests" / "sim_wire"
    scripts = fixed_scripts(tree)
    first = min(scenarios, FIRST_RANDOM)
    rest = scenarios - first
    found = simulate(sim, "-s", "0", "-n", str(len(scripts)))
    for name in re.findall(r"^Script: (.+)$", text, re.M):
        found = found or simulate(sim, "-x", "-s", str(scripts.index(name)))
    found = found or simulate(sim, "-s", str(seed), "-n", str(first))
    found = found or simulate(sim, "-x", "-e", "4")
    found = found or (rest and simulate(sim, "-s", str(seed + first), "-n", str(rest)))
    return found, children_cpu_s() - begun


def check(tree, patch, o):
    """One line about one mutant, and whether all is well."""
    bad = tree.apply(patch)
    if bad:
        return f"does not apply: {bad.strip()}", False
    try:
        if o.applies:
            return "applies", True
        bad = tree.make()
        if bad:
            return f"does not build: {bad}", False
        found, took = find(tree, o.seed, o.scenarios, patch.read_text())
        return (f"{took:5.1f} s  {found}", True) if found else (f"NOT FOUND in {took:.0f} s", False)
    finally:
        tree.restore()


def chosen_by(names):
    chosen = [x for x in PATCHES if not names or any(fnmatch.fnmatch(x.stem, n.removesuffix(".patch")) for n in names)]
    if not chosen:
        sys.exit("mutants: no such patch")
    return chosen


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-n", dest="scenarios", type=int, default=20000)
    p.add_argument("-s", dest="seed", type=int, default=1000)
    p.add_argument("-a", dest="applies", action="store_true")
    p.add_argument("names", nargs="*")
    o = p.parse_args()
    chosen, failed = chosen_by(o.names), []
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        tree = Tree(folder)
        if not o.applies:
            tree.set_up()
        if not o.applies and not o.names:
            found, _ = find(tree, o.seed, o.scenarios)
            if found:
                failed.append("(none)")
                print(f"FAILED (none): without any patch the simulator finds: {found}", flush=True)
        for patch in chosen:
            text, good = check(tree, patch, o)
            print(f"{'found ' if good else 'FAILED'} {patch.stem}: {text}", flush=True)
            if not good:
                failed.append(patch.stem)
    print(f"{len(chosen)} mutants, failed: {', '.join(failed) if failed else 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
