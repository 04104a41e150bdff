"""The rules for Prometheus and the board for Grafana: they are right, and ask for what /metrics has."""
import json
import re
import shutil
import subprocess

from kit import ROOT, FakeRelay
from webkit import Web

FOLDER = ROOT / "packaging/prometheus"


def promtool(*args, cwd):
    r = subprocess.run(["promtool", *args], cwd=cwd, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


def test_each_alert_fires_when_it_must(tmp_path):
    shutil.copy(FOLDER / "posthouse.rules.yml", tmp_path)
    shutil.copy(ROOT / "tests/web/alerts.yml", tmp_path)
    promtool("check", "rules", "posthouse.rules.yml", cwd=tmp_path)
    promtool("test", "rules", "alerts.yml", cwd=tmp_path)
    rules, cases = (p.read_text() for p in (FOLDER / "posthouse.rules.yml", ROOT / "tests/web/alerts.yml"))
    names = re.findall(r"- alert: (\w+)", rules)
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts", cases)
    assert len(names) == 8 and set(names) == set(fired)
    told = (ROOT / "docs/operate.md").read_text()
    assert all(f"| {name} |" in told for name in names)


def test_rules_and_board_ask_for_what_there_is(dns):
    board = json.loads((FOLDER / "posthouse.json").read_text())
    asked = [t["expr"] for panel in board["panels"] for t in panel["targets"]] + [(FOLDER / "posthouse.rules.yml").read_text()]
    want = set(re.findall(r"posthouse_[a-z_]+", " ".join(asked)))
    relay = FakeRelay()
    with Web(f"relayhost = [127.0.0.1]:{relay.port}\n", dns=dns) as w:
        w.send(sender="ann@a.example")
        w.wait_log("status=sent")
        status, text = w.api().request("GET", "/metrics")
    assert status == 200
    have = {line.split("{")[0].split(" ")[0]: line for line in text.splitlines() if not line.startswith("#")}
    assert want and want <= have.keys(), want - have.keys()
    # Labels, too.
    for metric, labels in re.findall(r"(posthouse_[a-z_]+)\{([^}]*)\}", " ".join(asked)):
        for label in re.findall(r"(\w+)[!=~]+\"", labels):
            assert f'{label}="' in have[metric], (metric, label)
    relay.stop()
