"""The spool on a simulated disk: a fault or a power cut at every call (see sim_spool.c)."""
import subprocess

from kit import BUILD, SLOW

SCRIPTS = 45 // SLOW


def test_power_loss_and_faults_at_every_call():
    r = subprocess.run([BUILD / "tests" / "sim_spool", "-s", "1", "-n", str(SCRIPTS)], stdout=subprocess.PIPE, text=True)
    print(r.stdout)
    assert r.returncode == 0, r.stdout
    cases = int(r.stdout.split(" ")[0])
    assert cases > 1000 * SCRIPTS
