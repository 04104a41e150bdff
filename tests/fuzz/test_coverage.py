"""Branches of the spool and of every parser that tests take: at least 95 % (see tests/coverage.py)."""
import subprocess
import sys

import pytest
from kit import BUILD, ROOT

pytestmark = pytest.mark.skipif("asan" in BUILD.name or "tsan" in BUILD.name, reason="a build of its own: once, with make test")


def test_branches():
    r = subprocess.run([sys.executable, ROOT / "tests/coverage.py"], capture_output=True, text=True)
    print(r.stdout, r.stderr)
    assert r.returncode == 0, r.stdout + r.stderr
