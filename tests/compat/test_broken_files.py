"""What docs/differences.md says of Debian's Postfix and a reload with files that are empty or gone."""
import pathlib
import socket
import subprocess

import pytest
from kit import wait_for

import pair


def master_of(postfix):
    """The master's own process; others of the same command line start it."""
    out = subprocess.run(["pgrep", "-f", f"^/usr/lib/postfix/sbin/master -d -c {postfix.dir}/etc"], capture_output=True, text=True).stdout
    return out.split()[0]


def reload_by(postfix, how):
    if how == "SIGHUP":
        subprocess.run([*pair.SUDO, "kill", "-HUP", master_of(postfix)], check=True)
        return 0
    return subprocess.run([*pair.AS_ROOT, "postfix", "-c", str(postfix.dir / "etc"), "reload"], capture_output=True).returncode


def refuses_clients(postfix):
    "nobody listens"
    try:
        socket.create_connection(("127.0.0.1", postfix.port), 5).close()
        return False
    except ConnectionResetError:  # it has ended in this moment
        return False
    except ConnectionRefusedError:
        return True


CASES = [("main.cf", "empty", "postfix reload", "refused"), ("main.cf", "empty", "SIGHUP", "taken"),
         ("main.cf", "gone", "postfix reload", "refused"), ("main.cf", "gone", "SIGHUP", "ends"),
         ("master.cf", "empty", "postfix reload", "closes"), ("master.cf", "gone", "postfix reload", "ends")]


@pytest.mark.parametrize("name, state, how, what", CASES, ids=lambda v: v.replace(" ", "-"))
def test_postfix_and_files_that_are_no_configuration(postfix, name, state, how, what):
    postfix.case("relayhost = [127.0.0.1]:9\n", {}, "")
    file = pathlib.Path(postfix.dir / "etc" / name)
    text = file.read_text()
    try:
        file.write_text("") if state == "empty" else file.unlink()
        rc = reload_by(postfix, how)
        assert (rc != 0) == (what == "refused")
        if what == "taken":  # without services there may be none left that writes the log
            wait_for(lambda: ": reload -- version" in postfix.new_log())
        if what in ("ends", "closes"):
            wait_for(lambda: refuses_clients(postfix))
        else:
            assert "fatal:" not in postfix.new_log() and not refuses_clients(postfix)
    finally:
        file.write_text(text)
        postfix.over()
