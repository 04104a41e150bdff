"""A real Dovecot that takes mail by LMTP, on a port and on a socket, and what it has saved."""
import os
import pathlib
import re
import subprocess
import tempfile

from kit import free_port, wait_for
from pair import SUDO


class Mailboxes:
    """users: name to the bytes that its mailbox may have, None for any number."""

    def __init__(self, users, more=""):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="posthouse-dovecot-"))
        self.dir.chmod(0o755)
        self.port, self.socket = free_port(), self.dir / "lmtp.sock"
        (self.dir / "home").mkdir()
        subprocess.run([*SUDO, "chown", "mail", self.dir / "home"], check=True)
        (self.dir / "users").write_text("".join(
            f"{u}:{{PLAIN}}x:mail:mail::{self.dir}/home/{u}::" + (f"userdb_quota_rule=*:bytes={most}" if most is not None else "") + "\n"
            for u, most in users.items()))
        (self.dir / "conf").write_text(f"""
base_dir = {self.dir}/run
state_dir = {self.dir}/state
log_path = {self.dir}/log
protocols = lmtp
ssl = no
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_plugins = quota
recipient_delimiter = +
plugin {{
  quota = maildir:User quota
}}
passdb {{
  driver = passwd-file
  args = {self.dir}/users
}}
userdb {{
  driver = passwd-file
  args = {self.dir}/users
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service lmtp {{
  unix_listener {self.socket} {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.port}
  }}
}}
{more}""")
        self.proc = None
        self.up()

    def up(self):
        self.proc = subprocess.Popen([*SUDO, "dovecot", "-F", "-c", str(self.dir / "conf")], stderr=subprocess.DEVNULL,
                                     start_new_session=True)
        wait_for(self.socket.exists)

    def down(self):
        subprocess.run([*SUDO, "kill", "-9", "--", f"-{self.proc.pid}"])
        self.proc.wait()
        subprocess.run([*SUDO, "rm", "-rf", str(self.socket), str(self.dir / "run")])

    def stop(self):
        self.down()
        subprocess.run([*SUDO, "rm", "-rf", str(self.dir)])

    def saved(self):
        """User to the mails in its mailbox, sorted, without the trace, date and identifier that a server adds."""
        read = "for f in */Maildir/new/*; do [ -f \"$f\" ] && printf '%s\\0' \"${f%%/*}\" && cat \"$f\" && printf '\\0'; done; true"
        out = subprocess.run([*SUDO, "sh", "-c", read], cwd=self.dir / "home", capture_output=True, check=True).stdout
        parts, boxes = out.split(b"\0")[:-1], {}
        for user, content in zip(parts[::2], parts[1::2]):
            content = re.sub(rb"^Received: .*\n(?:[ \t].*\n)*|^Message-Id: <\d{14}\..*\n|^Date: .* \(UTC\)\n", b"", content, flags=re.M)
            boxes.setdefault(user.decode(), []).append(content.decode(errors="surrogateescape"))
        return {user: sorted(mails) for user, mails in boxes.items()}

    def empty(self):
        subprocess.run([*SUDO, "sh", "-c", "rm -rf ./*"], cwd=self.dir / "home", check=True)
