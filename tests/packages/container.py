"""The container image without a container engine: its Containerfile carried out in a root, and run as an engine runs it.

    container.py [--root DIR] [--debs DIR]

As root.  The base is a minimal Debian 12 by debootstrap (kept in --root); a copy gets what the Containerfile says.  It is then
run with a read-only root, its volume as the only place that can be written to, the image's user, no capabilities and no new
privileges, in a network of its own where ports below 1024 need none, as container engines have it.  Mail goes through to a
relay host that demands TLS and AUTH.  Exit status 1 if anything is not as it should be.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from first_mail import TREE, copy_of, sh, wait

SECRET = "a secret of $the relay"
NETWORK = """
import pathlib, sys, tempfile
sys.path.insert(0, {tests!r})
from kit import Client, FakeRelay, make_cert, server_tls
folder = tempfile.TemporaryDirectory()
relay = FakeRelay(port=2525, auth=["PLAIN"], need_auth=True, users={{"us": {secret!r}}}, tls_first=True,
                  tls=server_tls(*make_cert(pathlib.Path(folder.name), "relay.example")))
print("ready", flush=True)
for line in sys.stdin:
    before = len(relay.mails)
    with Client(int(line)) as client:
        assert client.mail(sender="a@shop.example").startswith("250")
    mail = relay.wait_mails(before + 1)[-1]
    print(mail["auth"], mail["tls"], flush=True)
"""


def instructions(debs):
    """What the Containerfile says: (word, rest) in its order."""
    text = (TREE / "packaging/container/Containerfile").read_text().replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line and line[0] != "#"]


class Image:
    def __init__(self, root, debs):
        self.root, self.env, self.user, self.entry, self.health, self.volume = root, {}, "0:0", [], [], None
        for word, rest in instructions(debs):
            getattr(self, "do_" + word.lower(), lambda rest: None)(rest) if word != "COPY" else self.copy(rest, debs)

    def copy(self, rest, debs):
        pattern, to = rest.split()
        for deb in debs:
            if pathlib.PurePath(deb).match(pattern):
                shutil.copy(deb, f"{self.root}{to}")

    def do_run(self, rest):
        r = subprocess.run(["chroot", self.root, "sh", "-c", rest], capture_output=True, text=True,
                           env={"PATH": os.environ["PATH"], "DEBIAN_FRONTEND": "noninteractive"})
        assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-2000:]

    def do_env(self, rest):
        name, value = rest.split("=", 1)
        self.env[name] = value

    def do_user(self, rest):
        self.user = rest

    def do_volume(self, rest):
        self.volume = rest

    def do_entrypoint(self, rest):
        self.entry = json.loads(rest)

    def do_healthcheck(self, rest):
        self.health = json.loads(rest[rest.index("CMD") + 3:])


class Running:
    """As an engine runs it; caps: what setpriv leaves, ports: those that need no capability begin here."""

    def __init__(self, image, log, user=None, ports=0, caps="-all", ambient="-all", **environment):
        self.image, self.log = image, log
        uid, gid = (user or image.user).split(":")
        self.rights = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--bounding-set", caps, "--inh-caps", ambient,
                       "--ambient-caps", ambient, "--no-new-privs"]
        self.env = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *(f"{k}={v}" for k, v in {**image.env, **environment}.items())]
        inside = [*self.env, "chroot", image.root, *self.rights, *image.entry]
        set_up = (f"ip link set lo up; echo {ports} >/proc/sys/net/ipv4/ip_unprivileged_port_start; mount -t proc proc {image.root}/proc; "
                  f"mount --bind {image.root} {image.root}; mount --bind {image.root.parent}/volume {image.root}{image.volume}; "
                  f"mount -t proc proc {image.root}/proc; mount -o remount,bind,ro {image.root}; exec {shlex.join(map(str, inside))}")
        apart = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        self.outer = subprocess.Popen([*apart, "sh", "-ec", set_up], stdout=log, stderr=log)
        self.pid = wait(lambda: subprocess.run(["pgrep", "-P", str(self.outer.pid)], capture_output=True, text=True).stdout.strip()
                        or self.outer.poll())

    def inside(self, *words):
        return subprocess.run(["nsenter", "-t", self.pid, "-m", "-p", "-n", *self.env, "chroot", self.image.root, *self.rights, *words],
                              capture_output=True, text=True)

    def is_healthy(self):
        return self.outer.poll() is not None or self.inside(*self.image.health).returncode == 0

    def stop(self):
        """The exit status, and how long it took."""
        began = time.monotonic()
        os.kill(int(self.pid), signal.SIGTERM)
        return self.outer.wait(60), time.monotonic() - began


def prepare(root):
    """The package sources of this machine, and what an engine puts into every root."""
    for part in ("etc/apt", "etc/resolv.conf"):
        shutil.rmtree(root / part, ignore_errors=True) if (root / part).is_dir() else None
        shutil.copytree(f"/{part}", root / part, symlinks=True) if os.path.isdir(f"/{part}") else shutil.copy(f"/{part}", root / part)


def make_volume(image):
    """As a volume that is new: what the image has at its place."""
    volume = image.root.parent / "volume"
    shutil.rmtree(volume, ignore_errors=True)
    sh("cp", "-a", f"{image.root}{image.volume}", volume)


def told_by(pid):
    out = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True).stdout.split()
    return b"".join(pathlib.Path(f"/proc/{p}/{what}").read_bytes() for p in [pid, *out] for what in ("cmdline", "environ"))


def send(running):
    words = ["nsenter", "-t", running.pid, "-n", sys.executable, "-c", NETWORK.format(tests=str(TREE / "tests"), secret=SECRET)]
    network = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert network.stdout.readline() == "ready\n"
    for port in (25, 587):
        network.stdin.write(f"{port}\n")
        network.stdin.flush()
        got = network.stdout.readline()
        assert got == f"{('PLAIN', 'us', SECRET)} True\n", got
    network.stdin.close()
    network.wait(30)


RELAY = dict(RELAYHOST="[127.0.0.1]:2525", RELAYHOST_USERNAME="us", RELAYHOST_PASSWORD=SECRET, ALLOWED_SENDER_DOMAINS="shop.example",
             POSTFIX_smtpd_peername_lookup="no")


def run_image(image):
    log_path = image.root.parent / "log"
    for again in (False, True):  # the second time with what the first one left
        with open(log_path, "ab") as log:
            running = Running(image, log, **RELAY)
            wait(running.is_healthy)
            assert running.outer.poll() is None, log_path.read_text()
            send(running)
            told = told_by(running.pid)
            status = pathlib.Path(f"/proc/{running.pid}/status").read_text()
            assert re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^CapBnd:\s+0+$", status, re.M), status
            assert running.inside("sh", "-c", "echo x >/etc/x").returncode != 0
            rc, took = running.stop()
            print(f"mail through ports 25 and 587, healthy; stopped with {rc} in {took:.1f} s", flush=True)
            assert rc == 0 and took < 10 and b"RELAYHOST" not in told and SECRET.encode() not in told
    said = log_path.read_text()
    lines = [json.loads(line) for line in said.splitlines()]
    assert sum("status=sent" in line["message"] for line in lines) == 4 and SECRET not in said
    assert (image.root.parent / "volume/config").stat().st_mode & 0o77 == 0


def say_rights(image):
    """Which rights other ways of running it need."""
    bind = "-all,+net_bind_service"
    become = bind + ",+setuid,+setgid,+chown,+dac_override,+dac_read_search,+fowner"
    for name, rights in (("ports below 1024 are privileged, no capability", dict(ports=1024)),
                         ("ports below 1024 are privileged, the port's capability", dict(ports=1024, caps=bind, ambient=bind)),
                         ("root without capabilities", dict(user="0:0")),
                         ("root with the port's alone", dict(user="0:0", caps=bind, ports=1024)),
                         ("root with those of the unit and chown", dict(user="0:0", caps=become, ports=1024))):
        make_volume(image)
        path = image.root.parent / "rights"
        with open(path, "wb") as log:
            running = Running(image, log, **rights, **RELAY)
            wait(running.is_healthy)
            well = running.outer.poll() is None
            if well:
                send(running)
                running.stop()
        print(f"{name}: {'mail goes through' if well else 'does not start: ' + path.read_text().splitlines()[-1]}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("/var/tmp/posthouse-roots/bookworm-minimal"))
    parser.add_argument("--debs", type=pathlib.Path, default=TREE / "build" / "deb")
    args = parser.parse_args()
    debs = sorted(d for d in args.debs.glob("*.deb") if "dbgsym" not in d.name)
    assert debs, f"no packages in {args.debs}: make deb"
    sh("sh", TREE / "scripts/root.sh", args.root, "bookworm", "--variant=minbase", "--include=ca-certificates")
    with copy_of(args.root) as root:
        prepare(root)
        image = Image(root, debs)
        make_volume(image)
        run_image(image)
        say_rights(image)


if __name__ == "__main__":
    main()
