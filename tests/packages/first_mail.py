"""A fresh Debian, the packages, and what the page on relay hosts of iRedMail's documentation says, word for word.

    first_mail.py [--release bookworm|trixie] [--root DIR] [--debs DIR]

As root, where `make test` has installed what the tests need.  A debootstrap root (kept in --root for the next time; a copy of
it is written to) gets the packages by apt with bsd-mailx and mdadm, which want a mail server.  The copy is then booted with
systemd as its first process, in a network of its own that holds nothing but a name server and a relay host that demands AUTH
(relay_host.py), and the page's commands are typed.  The mail that arrives there, its account, the number of commands and the time
are printed.  Then the packages, with a higher version, are installed over themselves while clients send mail: none is refused,
nothing is lost and nothing comes twice.  Exit status 1 if anything is not as it should be.
"""
import argparse
import collections
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent.parent

MAIN_CF = """
relayhost = [relay.server]:{port}
smtp_sasl_password_maps = hash:/etc/postfix/sasl_password
smtp_sasl_auth_enable = yes
smtp_sasl_mechanism_filter = login
smtp_sasl_security_options = noanonymous
"""
# Each is one line that an administrator types.
WORDS = ["cat >>/etc/postfix/main.cf <<'X'\n{main}\nX",
         "echo 'relay.server user:password' >/etc/postfix/sasl_password",
         "postmap hash:/etc/postfix/sasl_password",
         "service postfix restart"]
# Clients that come all the time, until standard input ends.
LOAD = """
import json, queue, sys, threading
sys.path.insert(0, {bench!r})
import restarts
over, answer = threading.Event(), queue.Queue()
threading.Thread(target=lambda: (sys.stdin.read(), over.set())).start()
restarts.clients(25, {rate}, over, answer)
number, seconds, counts, taken, waits = answer.get()
print(json.dumps(dict(number=number, seconds=seconds, counts=counts, taken=sorted(taken), worst=waits[-1])))
"""


def sh(*args, **more):
    return subprocess.run(args, check=True, text=True, **more)


@contextlib.contextmanager
def copy_of(root):
    """A root that may be written to, above the other one."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-root-", dir=root.parent))
    for name in ("up", "work", "root"):
        (work / name).mkdir()
    sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={root},upperdir={work}/up,workdir={work}/work", work / "root")
    try:
        yield work / "root"
    finally:
        subprocess.run(["umount", "-l", work / "root"], check=False)
        shutil.rmtree(work, ignore_errors=True)


def install(root, debs):
    """By apt, with nothing else; services are not started here."""
    (root / "debs").mkdir()
    for deb in debs:
        shutil.copy(deb, root / "debs")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    names = " ".join(f"/debs/{d.name}" for d in debs)
    r = subprocess.run(["chroot", root, "sh", "-c", "apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "
                        f"--no-install-recommends {names} bsd-mailx mdadm"], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-2000:]
    for other in ("exim4", "postfix", "opensmtpd"):
        assert f"Setting up {other}" not in r.stdout, f"apt brought {other}"
    policy.unlink()
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")


@contextlib.contextmanager
def booted(root):
    """Yields the process number of its systemd; nothing outside is reached from there."""
    with open(root.parent / "console", "wb") as console:
        nspawn = subprocess.Popen(["systemd-nspawn", "-D", root, "--register=no", "--keep-unit", "-b", "--private-network",
                                   "--resolv-conf=off", "--hostname=relaybox"], stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    try:
        yield wait(lambda: child_of(nspawn.pid))
    finally:
        nspawn.terminate()
        nspawn.wait(60)


def child_of(pid):
    r = subprocess.run(["pgrep", "-P", str(pid), "-x", "systemd"], capture_output=True, text=True)
    return r.stdout.split()[0] if r.stdout else None


def wait(what, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError("timed out")


def inside(pid, line):
    return subprocess.run(["nsenter", "-t", pid, "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LOGNAME=root",
                           "sh", "-c", line], capture_output=True, text=True)


class RelayHost:
    """relay_host.py, in the network of the root whose systemd is pid."""

    def __init__(self, pid):
        self.proc = subprocess.Popen(["nsenter", "-t", pid, "-n", sys.executable, HERE / "relay_host.py"],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self.proc.stdout.readline().strip()

    def arrived(self):
        self.proc.stdin.write("\n")
        self.proc.stdin.flush()
        return json.loads(self.proc.stdout.readline())

    def stop(self):
        self.proc.stdin.close()
        self.proc.wait(60)


def type_page(pid, relay, commands, started):
    for line in [w.format(main=MAIN_CF.format(port=relay.port)) for w in WORDS] + ["echo hello | mail -s first bob@far.example"]:
        r = inside(pid, line)
        print(f"# {line.splitlines()[0]}", r.stdout, r.stderr, sep="\n" if r.stdout or r.stderr else "", flush=True)
        assert r.returncode == 0, r.returncode
        commands += 1
    mail = wait(lambda: (got := relay.arrived())["subjects"] and got)
    seconds = time.monotonic() - started
    print(*mail["accounts"], *mail["contents"], sep="\n")
    assert mail["accounts"] == ["sasl_method=LOGIN, sasl_username=user"] and mail["subjects"] == ["first"]
    print(f"{commands} commands, {seconds:.0f} s from the fresh root to the mail")


def next_version(root, debs):
    """The same packages, one version later."""
    (root / "debs/next").mkdir()
    for deb in debs:
        files = root / "debs/files"
        sh("dpkg-deb", "-R", deb, files)
        control = files / "DEBIAN/control"
        version = re.search("^Version: (.*)", control.read_text(), re.M)[1]
        control.write_text(control.read_text().replace(version, f"{version}.0.1"))
        sh("dpkg-deb", "--root-owner-group", "-b", files, root / "debs/next" / deb.name, stdout=subprocess.DEVNULL)
        shutil.rmtree(files)


def main_pid(pid):
    return inside(pid, "systemctl show -P MainPID posthouse").stdout


def upgrade(pid, relay, rate=50):
    script = LOAD.format(bench=str(TREE / "tests/bench"), rate=rate)
    load = subprocess.Popen(["nsenter", "-t", pid, "-n", sys.executable, "-c", script],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait(lambda: len(relay.arrived()["subjects"]) > 2 * rate)
    before = main_pid(pid)
    r = inside(pid, "export DEBIAN_FRONTEND=noninteractive; dpkg -i /debs/next/*.deb")
    assert r.returncode == 0 and main_pid(pid) != before, r.stdout + r.stderr
    now = len(relay.arrived()["subjects"])
    wait(lambda: len(relay.arrived()["subjects"]) > now + 2 * rate)
    told = json.loads(load.communicate("")[0])
    empty = wait(lambda: inside(pid, "mailq").stdout.startswith("Mail queue is empty"))
    got = collections.Counter(relay.arrived()["subjects"])
    lost, twice = set(map(str, told["taken"])) - set(got), [s for s, n in got.items() if n > 1]
    refused = sum(n for what, n in told["counts"].items() if what.startswith("not connected"))
    print(f"upgrade: {told['number'] / told['seconds']:.0f} clients a second, {len(told['taken'])} mails taken; {refused} refused, "
          f"{len(lost)} lost, {len(twice)} came twice; slowest {told['worst']:.1f} s; {told['counts']}")
    assert empty and not refused and not lost and not twice


def run_page(root, debs, commands, started):
    next_version(root, debs)
    with booted(root) as pid:
        wait(lambda: inside(pid, "systemctl is-system-running").stdout.strip() in ("running", "degraded"))
        relay = RelayHost(pid)
        try:
            type_page(pid, relay, commands, started)
            upgrade(pid, relay)
            print("\n".join(inside(pid, f"systemd-analyze security --no-pager {unit}.service | tail -1").stdout.strip()
                            for unit in ("posthouse", "posthouse-web")))
        finally:
            relay.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", help="of Debian, as for `make deb`; without: this system's packages, on bookworm")
    parser.add_argument("--root", type=pathlib.Path)
    parser.add_argument("--debs", type=pathlib.Path)
    args = parser.parse_args()
    release = args.release or "bookworm"
    args.root = args.root or pathlib.Path("/var/tmp/posthouse-roots", release)
    args.debs = args.debs or TREE / "build" / (f"deb-{args.release}" if args.release else "deb")
    debs = sorted(d for d in args.debs.glob("*.deb") if "dbgsym" not in d.name)
    assert len(debs) == 2, f"no packages in {args.debs}: make deb"
    sh("sh", TREE / "scripts/root.sh", args.root, release)
    with copy_of(args.root) as root:
        started = time.monotonic()
        install(root, debs)
        run_page(root, debs, 1, started)  # apt-get install


if __name__ == "__main__":
    main()
