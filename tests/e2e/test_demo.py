"""`make demo` as who has just cloned sees it: real daemon, real page, two relay hosts that demand AUTH."""
import os
import re
import subprocess
import sys
import tempfile

from kit import BUILD, ROOT


def test_the_demo_shows_who_went_where_and_why():
    """Each sender by its own relay host, as its own account; the road of a test; the address of the page."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="posthouse-test-") as d:
        os.chmod(d, 0o755)
        env = {**os.environ, "TMPDIR": d, "POSTHOUSE_BUILD": str(BUILD)}
        r = subprocess.run([sys.executable, ROOT / "scripts/demo.py"], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    took = re.findall(r"^  (\S+) +from (\S+) +AUTH (\S+) as (\S+) +\((.*)\)$", r.stdout, re.M)
    assert {(relay, sender, account) for relay, sender, _, account, _ in took} == {
        ("relay.server", "alice@example.com", "user"), ("relay.server", "dave@elsewhere.example", "user"),
        ("mail.provider.example", "bob@shop.example", "shop"), ("mail.provider.example", "carol@example.com", "shop")}
    assert len(took) == 4 and all(why for *_, why in took)
    assert "all stages passed" in r.stdout and re.search(r"http://127\.0\.0\.1:\d+/#/welcome/\S+", r.stdout)
    assert "s3cret" not in r.stdout + r.stderr
