"""The page within the rights and kinds of sockets that its systemd unit leaves it."""
import os
import platform
import shutil
import signal

import pytest
import walls
from kit import wait_for
from webkit import GLOBAL, SECRET, Web

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or platform.machine() != "x86_64", reason="root's rights are taken away")


def test_the_page_does_with_what_its_unit_leaves_it(dns):
    """Also at its first start, when its databases are made; a reload is a signal of systemd's."""
    w = Web(dns=dns)
    data = w.dir / "data"
    data.mkdir()
    shutil.chown(data, "www-data", "www-data")
    w.web_preexec = walls.within("posthouse-web")
    with w:
        w.command("admin", "add", GLOBAL, input=SECRET + "\n")
        assert w.api(GLOBAL).request("GET", "/api/session")[0] == 200
        assert {p.stat().st_uid for p in data.iterdir() if p.suffix == ".db"} == {data.stat().st_uid}
        w.web.send_signal(signal.SIGHUP)
        w.wait_log("configuration read again")
        (w.dir / "maillog").rename(w.dir / "maillog.1")
        w.web.send_signal(signal.SIGUSR1)
        wait_for((w.dir / "maillog").exists)


def test_a_directory_of_somebody_elses_is_named(dns):
    w = Web(dns=dns)
    (w.dir / "data").mkdir()
    w.web_preexec = walls.within("posthouse-web")
    w.start_daemon()
    with pytest.raises(AssertionError, match=f"{w.dir}/data: it has to belong to web_owner"):
        w.start_web()
    w.web = None
    for path in [w.dir / "data", *(w.dir / "data").iterdir()]:
        shutil.chown(path, "www-data")  # and not its group: chown -R www-data
    w.start_web()
    w.stop()
    shutil.rmtree(w.dir)
