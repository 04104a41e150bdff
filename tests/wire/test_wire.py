"""The whole relay on a simulated wire, clock and disk, with a fault at every call (see main.c)."""
import os
import pathlib
import subprocess
import sys

from kit import BUILD, SLOW

# How many random scenarios follow the fixed scripts: some 60 s in all.  A number and not a time, so that each run is the same.
SCENARIOS = os.environ.get("WIRE_SCENARIOS", "10000" if SLOW == 1 else "300")
SIM = BUILD / "tests" / "sim_wire"


def run(*args):
    env = dict(os.environ, UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    return subprocess.run([SIM, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def test_fixed_scripts_with_every_fault_then_random_ones():
    r = run("-x", "-n", SCENARIOS, "-e", "1" if SLOW == 1 else "9")
    print(r.stdout[-20000:])
    assert r.returncode == 0, r.stdout[-20000:]
    assert "nothing found" in r.stdout


def test_a_scenario_is_the_same_each_time():
    """What a seed does depends on nothing but the seed: a failing one can be repeated."""
    first = run("-s", "1001", "-v").stdout
    assert len(first.splitlines()) > 10
    assert first == run("-s", "1001", "-v").stdout


def test_each_mutant_fits_the_tree():
    """Who changes what a patch of mutants/ changes fits the patch; `make mutants` then says whether it is still found."""
    script = pathlib.Path(__file__).with_name("mutants.py")
    r = subprocess.run([sys.executable, script, "-a"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert r.returncode == 0, "\n".join(line for line in r.stdout.splitlines() if not line.startswith("found"))


def test_libuv_is_not_there():
    """Every uv_ function that the product calls is the simulator's own."""
    out = subprocess.run(["nm", "-D", "--undefined-only", str(SIM)], capture_output=True, text=True, check=True).stdout
    assert " uv_" not in out
