"""The package's scripts: what they do to mail and to what is the administrator's."""
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
import tarfile

import pytest
import walls
from kit import POSTHOUSE, ROOT, SLOW, FakeRelay, Posthouse, owner, wait_for

MAIN = "relayhost = [127.0.0.1]:9\nsmtpd_peername_lookup = no\nplace = {dir}\nqueue_directory = $place/spool\n"


def moved(name, places, debhelper=""):
    """The text of a script with other folders in the place of the system's; debhelper: what debhelper has it do."""
    text = (ROOT / "packaging/debian" / name).read_text().replace("#DEBHELPER#", debhelper)
    return re.sub("|".join(map(re.escape, places)), lambda place: str(places[place[0]]), text)


def script(p, name, *args, debhelper=""):
    """One of them, with the daemon's folders in the place of the system's."""
    places = {"/var/spool/posthouse": p.dir / "spool", "/var/lib/posthouse": p.dir / "data", "/etc/posthouse": p.dir,
              "/etc/postfix": p.dir / "of-postfix"}
    text = moved(name, places, debhelper)
    env = dict(p.env(), PATH=f"{POSTHOUSE.parent}:/usr/sbin:/usr/bin:/bin", MAIL_CONFIG=str(p.dir))
    return subprocess.run(["sh", "-c", text, name, *args], capture_output=True, text=True, env=env, check=True)


def staged(tmp_path, name, *args, check=True):
    """A script on folders of the test's own; what it would tell systemd is in the answer's stdout."""
    text = moved(name, {place: f"{tmp_path}{place}" for place in ("/etc/", "/usr/lib/postfix", "/usr/sbin/sendmail",
                                                                         "/run/systemd/system", "/var/")})
    text = text.replace(". /usr/share/debconf/confmodule", f"db_get() {{ RET=; }}\ndb_stop() {{ :; }}\n"
                                                           f"newaliases() {{ echo >'{tmp_path}/newaliases'; }}")
    (tmp_path / "bin").mkdir(parents=True, exist_ok=True)
    for program in ("deb-systemd-invoke", "deb-systemd-helper", "systemctl"):
        (tmp_path / "bin" / program).write_text('#!/bin/sh\necho "$@" >&3\n')
        (tmp_path / "bin" / program).chmod(0o755)
    for folder in ("etc", "run/systemd/system", "var/spool"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    return subprocess.run(["sh", "-c", "exec 3>&1\n" + text, name, *args], capture_output=True, text=True, check=check,
                          env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})


def stopping(p):
    """As the script that debhelper writes stops the service."""
    return f"kill {p.proc.pid}; while posthouse postfix status 2>/dev/null; do sleep 0.05; done"


def removed(p):
    """Removes and purges the package; whether the spool is left."""
    script(p, "posthouse.prerm", "remove", debhelper=stopping(p))
    p.proc.wait(60 * SLOW)
    script(p, "posthouse.postrm", "purge")
    return (p.dir / "spool").exists()


@pytest.mark.parametrize("what", ["nothing", "mail that came last", "damaged", "a daemon that runs on", "a spool of old"])
def test_a_purge_removes_no_mail(what):
    with Posthouse(MAIN) as p:
        if what == "mail that came last":  # the service is stopped after it
            late = p.dir / "late.py"
            late.write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nimport kit\nc = kit.Client({p.port})\n"
                            "c.cmd('MAIL FROM:<a@b.example>'), c.cmd('RCPT TO:<x@y.example>'), c.cmd('DATA')\n"
                            "c.raw('Subject: x\\r\\n\\r\\nx\\r\\n.\\r\\n')\nassert c.reply().startswith('250')\n")
            script(p, "posthouse.prerm", "remove", debhelper=f"/usr/bin/python3 {late}\n" + stopping(p))
            p.proc.wait(60 * SLOW)
            script(p, "posthouse.postrm", "purge")
            assert (p.dir / "spool").exists()
        elif what == "a daemon that runs on":
            script(p, "posthouse.prerm", "remove")
            assert p.send().startswith("250")
            script(p, "posthouse.postrm", "purge")
            assert (p.dir / "spool/log").exists()
        elif what == "a spool of old":
            p.write_main(MAIN.replace("/spool", "/another"))
            assert removed(p)
        else:
            if what == "damaged":
                (p.dir / "spool/damaged/body").write_text("what was set aside\n")
            assert removed(p) == (what == "damaged")


@pytest.mark.parametrize("file", ["debian/posthouse.logrotate", "logrotate/posthouse"])
def test_a_rotated_log_is_opened_again_and_no_other_program_hears_of_it(file):
    text = (ROOT / "packaging" / file).read_text()
    after = text[text.index("postrotate\n") + 11:text.index("endscript")]
    with Posthouse(MAIN) as p, subprocess.Popen(["sleep", "600"]) as other:
        def rotate():
            (p.dir / "maillog").rename(p.dir / "maillog.1")
            subprocess.run(["sh", "-ec", after.replace("/var/spool/posthouse", str(p.dir / "spool"))], check=True)
        rotate()
        wait_for((p.dir / "maillog").exists)
        number = p.dir / "spool/master.pid"
        for said in (f"{other.pid}\n", f"-{other.pid}\n", f"{other.pid} {other.pid}\n", ""):  # as one that was left behind
            number.write_text(said)
            rotate()
            p.proc.send_signal(signal.SIGUSR1)
            wait_for((p.dir / "maillog").exists)
        assert other.poll() is None
        other.kill()


def test_what_the_administrator_has_in_aliases_stays_whole(tmp_path):
    """The last line of a file that somebody wrote may have no end."""
    text = (ROOT / "packaging/debian/posthouse-mta.postinst").read_text().replace("/etc/", f"{tmp_path}/etc/")
    text = text.replace("/run/systemd/system", f"{tmp_path}/none").replace(
        ". /usr/share/debconf/confmodule", "db_get() { RET=root@far.example; }\ndb_stop() { :; }\nnewaliases() { :; }")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/aliases").write_text("postmaster: root\nann: ann@far.example")
    for _ in range(2):
        subprocess.run(["sh", "-c", text, "postinst", "configure"], check=True)
        assert (tmp_path / "etc/aliases").read_text() == "postmaster: root\nann: ann@far.example\nroot: root@far.example\n"


def test_a_purge_keeps_what_came_after_the_removal():
    """Another installation may have the same spool."""
    with Posthouse(MAIN) as p:
        script(p, "posthouse.prerm", "remove", debhelper=stopping(p))
        p.proc.wait(60 * SLOW)
        p.start()
        assert p.send().startswith("250")
        p.stop()
        script(p, "posthouse.postrm", "purge")
        assert (p.dir / "spool/log").exists()


def test_a_purge_leaves_no_link_to_postfixs_configuration(tmp_path):
    """A package that comes later would start with it, beside Postfix."""
    (tmp_path / "etc/postfix").mkdir(parents=True)
    for name in ("main.cf", "relays.key"):
        (tmp_path / "etc/postfix" / name).write_text("x\n")
    (tmp_path / "etc/posthouse").symlink_to("postfix")
    staged(tmp_path, "posthouse.postrm", "remove")
    assert (tmp_path / "etc/posthouse").is_symlink()
    staged(tmp_path, "posthouse.postrm", "purge")
    assert not os.path.lexists(tmp_path / "etc/posthouse") and (tmp_path / "etc/postfix/relays.key").exists()


def test_a_purge_of_both_packages_leaves_no_key(tmp_path):
    """posthouse-mta goes first, and takes main.cf along."""
    for folder in ("posthouse", "postfix"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
        (tmp_path / "etc" / folder / "relays.key").write_text("x\n")
    (tmp_path / "etc/postfix/main.cf").write_text("relayhost =\n")
    staged(tmp_path, "posthouse.postrm", "purge")
    assert not (tmp_path / "etc/posthouse").exists() and (tmp_path / "etc/postfix/relays.key").exists()
    (tmp_path / "etc/postfix/main.cf").unlink()
    staged(tmp_path, "posthouse.postrm", "purge")
    assert not (tmp_path / "etc/postfix").exists()


def test_a_relay_that_was_there_keeps_its_configuration_in_postfixs_place(tmp_path):
    """The words for /etc/postfix are about the file that is read, and the relay stays when posthouse-mta goes."""
    own = tmp_path / "etc/posthouse"
    own.mkdir(parents=True)
    (own / "main.cf").write_text("relayhost = [mine.example]\n")
    for _ in range(2):
        staged(tmp_path, "posthouse-mta.postinst", "configure")
        assert (tmp_path / "etc/postfix/main.cf").samefile(own / "main.cf")
        assert (own / "main.cf").read_text() == "relayhost = [mine.example]\n"
    staged(tmp_path, "posthouse-mta.prerm", "upgrade")
    assert os.path.lexists(tmp_path / "etc/postfix")
    # A Postfix that comes in its place would run with this configuration, and its package would write into it.
    assert "stop" not in staged(tmp_path, "posthouse-mta.prerm", "remove").stdout and not os.path.lexists(tmp_path / "etc/postfix")
    (tmp_path / "etc/postfix").symlink_to("posthouse")  # of a package before
    staged(tmp_path, "posthouse-mta.postrm", "purge")
    assert (own / "main.cf").exists() and not os.path.lexists(tmp_path / "etc/postfix")
    (tmp_path / "etc/postfix").mkdir()
    (tmp_path / "etc/postfix/main.cf").write_text("relayhost = [theirs.example]\n")
    assert "/etc/postfix is not read" in staged(tmp_path, "posthouse-mta.postinst", "configure").stderr


def test_in_postfixs_place_its_directory_is_read_as_long_as_the_package_is_there(tmp_path):
    (tmp_path / "etc/posthouse").mkdir(parents=True)  # left empty by a purge
    staged(tmp_path, "posthouse-mta.postinst", "configure")
    assert os.readlink(tmp_path / "etc/posthouse") == "postfix" and (tmp_path / "etc/posthouse/main.cf").exists()
    assert "stop posthouse.service" in staged(tmp_path, "posthouse-mta.prerm", "remove").stdout
    staged(tmp_path, "posthouse-mta.postrm", "remove")
    assert not os.path.lexists(tmp_path / "etc/posthouse") and (tmp_path / "etc/postfix/main.cf").exists()


@pytest.mark.parametrize("program", ["cat", "sync", "mv", "ln"])
def test_what_a_full_disk_has_left_half_made_is_made_again(tmp_path, program):
    """A main.cf that is cut off before its relay host, or is empty, would send all mail by another road."""
    files = ("aliases", "mailname", "postfix/main.cf")

    def made(root):
        return {f: (root / "etc" / f).read_text().replace(str(root), "") for f in files if (root / "etc" / f).exists()}
    staged(tmp_path, "posthouse-mta.postinst", "configure")
    whole, n, code = made(tmp_path), 0, 1
    assert len(whole) == len(files)
    while code != 0:  # it fails at its first call, at its second one ...
        n += 1
        root, half = tmp_path / str(n), "/usr/bin/head -c 9; " if program == "cat" else ""
        (root / "bin").mkdir(parents=True)
        (root / "bin" / program).write_text(f'#!/bin/sh\necho >>{root}/calls\n[ "$(/usr/bin/wc -l <{root}/calls)" != {n} ] || '
                                            f'{{ {half}exit 1; }}\nexec /usr/bin/{program} "$@"\n')
        (root / "bin" / program).chmod(0o755)
        code = staged(root, "posthouse-mta.postinst", "configure", check=False).returncode
        assert made(root).items() <= whole.items()
        (root / "bin" / program).unlink()
        staged(root, "posthouse-mta.postinst", "configure")
        assert made(root) == whole and (root / "newaliases").exists()
    assert n > 1


def test_a_relay_beside_a_postfix_that_goes_is_no_mail_server(tmp_path):
    """It has no port for other hosts, and gives mail of the machine's own domains to that Postfix."""
    own = tmp_path / "etc/posthouse"
    own.mkdir(parents=True)
    (own / "main.cf").write_text("relayhost = [mine.example]\n")
    (tmp_path / "etc/postfix").mkdir()
    (tmp_path / "etc/postfix/main.cf").write_text("relayhost =\n")
    assert "no mail is taken from other hosts" not in staged(tmp_path, "posthouse-mta.postinst", "configure").stderr
    (own / "main.cf").write_text("# Made by posthouse setup beside-postfix from /etc/postfix: yours to change.\n")
    assert "no mail is taken from other hosts" in staged(tmp_path, "posthouse-mta.postinst", "configure").stderr


def test_what_keeps_a_relay_from_taking_mail_is_said_when_it_takes_postfixs_place(tmp_path):
    """Postfix is gone then, and the daemon runs: without a word nobody would look."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/posthouse").write_text("#!/bin/sh\necho 'error: main.cf, line 9: smtpd_milters'\necho 'note: x'\nexit 2\n")
    (tmp_path / "bin/posthouse").chmod(0o755)
    said = staged(tmp_path, "posthouse-mta.postinst", "configure").stderr
    assert "mail is not taken, or waits" in said and "smtpd_milters" in said and "note: x" not in said


def test_mail_that_exim_leaves_is_named(tmp_path):
    """Debian's own mail server goes without a word of it when this one comes."""
    queue = tmp_path / "var/spool/exim4/input"
    queue.mkdir(parents=True)
    assert "Exim" not in staged(tmp_path, "posthouse-mta.postinst", "configure").stderr
    (queue / "1rABCD-000001-2x-H").write_text("")
    assert "mail waits in Exim's queue" in staged(tmp_path, "posthouse-mta.postinst", "configure").stderr


@pytest.mark.parametrize("queue, says", [("Mail queue is empty", False), ("-Queue ID-", True), ("", True)])
def test_mail_that_is_left_when_another_mail_server_comes_is_named(tmp_path, queue, says):
    """Nothing sends it, and the other mail server does not look there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/posthouse").write_text(f"#!/bin/sh\necho '{queue}'\n")
    (tmp_path / "bin/posthouse").chmod(0o755)
    staged(tmp_path, "posthouse-mta.postinst", "configure")
    assert ("export" in staged(tmp_path, "posthouse-mta.prerm", "remove").stderr) == says
    assert staged(tmp_path, "posthouse-mta.prerm", "upgrade").stderr == ""
    (tmp_path / "etc/posthouse").unlink()  # a configuration of its own, with which the daemon goes on
    (tmp_path / "etc/posthouse").mkdir()
    assert staged(tmp_path, "posthouse-mta.prerm", "remove").stderr == ""


def test_what_a_postfix_that_was_removed_has_left_is_named(tmp_path):
    """Its queue, which nothing sends, and that a purge of its package would take the configuration away."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dpkg-query").write_text("#!/bin/sh\nprintf config-files\n")
    (tmp_path / "bin/dpkg-query").chmod(0o755)
    for folder in ("etc/postfix", "var/spool/postfix/deferred/A", "var/spool/postfix/pid"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/postfix/main.cf").write_text("relayhost =\n")
    (tmp_path / "var/spool/postfix/pid/master.pid").touch()
    said = staged(tmp_path, "posthouse-mta.postinst", "configure").stderr
    assert "do not purge" in said and "mail waits" not in said
    (tmp_path / "var/spool/postfix/deferred/A/A0001").touch()
    said = staged(tmp_path, "posthouse-mta.postinst", "configure").stderr
    assert f'run "posthouse import {tmp_path}/var/spool/postfix"' in said


@pytest.mark.parametrize("place", ["posthouse", "postfix"])
def test_a_move_that_has_no_way_back_any_more_leaves_sendmail_to_the_package(tmp_path, place):
    """After setup replace-postfix dpkg puts the package's sendmail aside: without Posthouse, later, no program could send."""
    link, kept, note = tmp_path / "sendmail", tmp_path / "sendmail.postfix", tmp_path / f"etc/{place}/replace-postfix.undo"
    for folder in ("bin", "etc/postfix", f"etc/{place}"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "bin/dpkg-divert").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/diverted\n')
    (tmp_path / "bin/dpkg-divert").chmod(0o755)
    (tmp_path / "etc/postfix/main.cf").write_text("relayhost =\n")
    note.write_text(f"state applied\npostfix {tmp_path}/etc/postfix\nran yes\nboot yes\nsendmail {link}\n")
    link.symlink_to("/usr/bin/posthouse")
    kept.symlink_to("../bin/posthouse")
    told = staged(tmp_path, "posthouse-mta.postinst", "configure").stdout
    assert "purge postfix.service\n" in told  # it was disabled by the move, and would be when it comes back
    assert os.readlink(link) == "../bin/posthouse" and not os.path.lexists(kept) and not note.exists()
    assert (tmp_path / "diverted").read_text().split()[-5:] == ["--no-rename", "--divert", str(kept), "--remove", str(link)]
    kept.write_text("")
    for state, front, stays in ("applied", "etc/postfix", False), ("applied", "opt/postfix", True), ("undoing", "etc/postfix", True):
        note.write_text(f"state {state}\npostfix {tmp_path}/{front}\nsendmail {link}\n")
        told = staged(tmp_path, "posthouse-mta.postinst", "configure").stdout
        assert os.readlink(link) == "../bin/posthouse" and kept.exists() and note.exists() == stays and "purge" not in told


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("moved_here", [True, False])
def test_a_package_that_goes_leaves_no_sendmail_that_leads_nowhere(tmp_path, other, moved_here):
    """Whatever became of the note of setup replace-postfix; dpkg would put the sendmail of each other mail server beside the link."""
    link, kept = tmp_path / "usr/sbin/sendmail", tmp_path / "usr/sbin/sendmail.postfix"
    link.parent.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dpkg-divert").write_text(f'#!/bin/sh\n[ "$1" = --truename ] || exec echo "$@" >>{tmp_path}/diverted\n'
                                              f'echo {kept if moved_here else link}\n')
    (tmp_path / "bin/dpkg-divert").chmod(0o755)
    link.symlink_to("/usr/bin/posthouse")
    if other:
        kept.write_text("theirs")
    for word in ("upgrade", "remove", "purge"):
        said = staged(tmp_path, "posthouse.postrm", word).stderr
        assert ("enable --now postfix" in said) == (word == "remove" and moved_here and other)
        if word == "upgrade" or not moved_here:  # one that the administrator has made stays
            assert link.is_symlink() and kept.exists() == other and not (tmp_path / "diverted").exists()
            continue
        assert not link.is_symlink() and not kept.exists() and link.exists() == other
        assert (tmp_path / "diverted").read_text().split()[-5:] == ["--no-rename", "--divert", str(kept), "--remove", str(link)]


@pytest.mark.parametrize("place, setup", [("posthouse", "beside-postfix"), ("posthouse", "replace-postfix"),
                                         ("postfix", "replace-postfix")])
def test_a_postfix_that_counts_on_it_is_put_right_first(tmp_path, place, setup):
    """Its note is in Postfix's own directory, too, where /etc/posthouse, a link to that, has gone with posthouse-mta."""
    master, note = tmp_path / "usr/lib/postfix/sbin/master", tmp_path / f"etc/{place}/{setup}.undo"
    for path in (master, note):
        path.parent.mkdir(parents=True)
        path.write_text("")
    master.chmod(0o755)
    r = staged(tmp_path, "posthouse.prerm", "remove", check=False)
    assert r.returncode == 1 and f"posthouse setup {setup} --undo" in r.stderr
    assert staged(tmp_path, "posthouse.prerm", "upgrade").returncode == 0
    master.unlink()
    assert staged(tmp_path, "posthouse.prerm", "remove").returncode == 0


@pytest.mark.parametrize("first, left", [("# Made by posthouse setup.  All parameters", {"sasl_password"}),
                                         ("# mine", {"main.cf", "relays.key", "sasl_password"})])
def test_a_purge_leaves_no_relay_without_its_records(tmp_path, first, left):
    """What setup has made goes with them; where the administrator's main.cf stays, the key does, too, and mail waits."""
    (tmp_path / "etc/posthouse").mkdir(parents=True)
    for name, text in (("main.cf", first), ("relays.key", "x"), ("sasl_password", "mine")):
        (tmp_path / "etc/posthouse" / name).write_text(text + "\n")
    staged(tmp_path, "posthouse.postrm", "purge")
    assert {f.name for f in (tmp_path / "etc/posthouse").iterdir()} == left


@pytest.mark.parametrize("unit, most", [("posthouse", 2.3), ("posthouse-web", 2.3)])
def test_what_a_unit_permits(unit, most, tmp_path):
    """What systemd does not know it passes over with a warning: a daemon that was to confine itself by that call could not."""
    text = (ROOT / f"packaging/systemd/{unit}.service").read_text().replace("@sbindir@", "/usr/sbin").replace("@bindir@", "/usr/bin")
    (tmp_path / f"{unit}.service").write_text(text)
    r = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / f"{unit}.service")],
                       capture_output=True, text=True)
    assert "gnoring" not in r.stderr and "nknown" not in r.stderr, r.stderr
    assert float(re.search(r"exposure level for \S+: ([0-9.]+)", r.stdout)[1]) <= most
    # systemd would give all below it to root whenever a service starts, also what the page that runs has open.
    assert "StateDirectory" not in text
    calls = re.search("^SystemCallFilter=(@system-service .*)", text, re.M)[1].split()
    assert {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= set(calls)


def test_the_source_archive_has_the_version_and_the_built_page(tmp_path):
    for part in ("scripts", "web/built", "src/meson.build", "meson.build"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, tmp_path / part)
    (tmp_path / "web/node_modules/x").mkdir(parents=True)
    said = subprocess.run(["sh", "scripts/dist.sh"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    version = subprocess.run([POSTHOUSE, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    assert said == f"build/posthouse-{version}.tar.gz"
    with tarfile.open(tmp_path / said) as archive:
        names = archive.getnames()
    assert {f"posthouse-{version}/web/built/index.html", f"posthouse-{version}/meson.build"} <= set(names)
    assert not [n for n in names if "node_modules" in n or n.startswith(f"posthouse-{version}/build")]


as_root = pytest.mark.skipif(os.geteuid() != 0 or platform.machine() != "x86_64", reason="root's rights are taken away")


@as_root
def test_the_daemon_does_with_what_its_unit_leaves_it(dns):
    """Its rights and kinds of sockets: root's tables are read, addresses of the machine are known, children that hang are killed."""
    relay = FakeRelay(auth=["LOGIN"])
    main = (f"relayhost = [relay.server]:{relay.port}\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
            "smtp_sasl_password_maps = hash:{dir}/sasl\nmynetworks_style = host\nqueue_directory = {dir}/spool\n")
    p = Posthouse(main, files={"sasl": "relay.server user:password\n"}, dns=dns)
    text = (p.dir / "main.cf").read_text().replace("mynetworks = 127.0.0.0/8\n", "")
    (p.dir / "main.cf").write_text(text)
    p.postmap(f"hash:{p.dir}/sasl")
    for name in ("sasl", "sasl.db"):
        (p.dir / name).chmod(0o600)
    (p.dir / "spool").mkdir()
    shutil.chown(p.dir / "spool", owner(), pwd.getpwnam(owner()).pw_gid)  # as tmpfiles.d makes it
    p.preexec = walls.within("posthouse")
    with p:
        assert p.send().startswith("250")
        assert relay.wait_mails(1)[0]["auth"] == ("LOGIN", "user", "password")
        p.reload()
        old = p.child("lookup")
        os.kill(old, signal.SIGSTOP)
        p.reload()
        hangs = wait_for(lambda: len(p.children()) == 3 and p.children())
        for pid in hangs:
            os.kill(pid, signal.SIGSTOP)
        p.proc.terminate()
        assert p.proc.wait(120) == 0 and not p.children_of(hangs)
        p.out.close()
        p.start()
        children = p.children()
        os.kill(p.proc.pid, signal.SIGKILL)
        p.proc.wait(60 * SLOW)
        wait_for(lambda: not p.children_of(children))
        p.out.close()
        p.start()
        assert p.send().startswith("250")
    relay.stop()
