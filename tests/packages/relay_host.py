"""The relay host of first_mail.py, in the network of the root that is tried: Debian's own Postfix, which takes mail of logged-in
clients alone (Dovecot knows the account), behind it a server that notes what arrives; beside them a name server that knows
nothing else.  Prints the port; a line on standard input asks for what arrived, as a line of JSON; at its end everything is stopped.
"""
import json
import pathlib
import re
import sys
import tempfile
import types

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "e2e"), str(TESTS / "compat")]
from kit import Dns, FakeRelay  # noqa: E402
from pair import Postfix  # noqa: E402
from test_auth import Dovecot  # noqa: E402

MAIN = """
mynetworks = 127.0.0.9
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {path}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_count_limit = 0
relayhost = [127.0.0.1]:{port}
"""


def arrived(behind, postfix):
    mails = [m["content"].decode(errors="replace") for m in behind.mails]
    return {"contents": mails[-1:], "subjects": [found[1] for m in mails if (found := re.search(r"^Subject: ([^\r\n]*)", m, re.M))],
            "accounts": sorted(set(re.findall(r"sasl_method=\S+ sasl_username=\S+", postfix.new_log())))}


def main():
    with tempfile.TemporaryDirectory() as folder, FakeRelay() as behind:
        names = Dns(pathlib.Path(folder), ["relay.server. 60 IN A 127.0.0.1"], port=53)
        dovecot = Dovecot({"user": "password"})
        postfix = Postfix(types.SimpleNamespace(address="127.0.0.1"))
        try:
            postfix.case(MAIN.replace("{path}", f"{dovecot.dir}/auth.sock").replace("{port}", str(behind.port)), {}, "")
            print(postfix.port, flush=True)
            for _ in sys.stdin:
                print(json.dumps(arrived(behind, postfix)), flush=True)
        finally:
            postfix.stop()
            dovecot.stop()
            names.stop()


if __name__ == "__main__":
    main()
