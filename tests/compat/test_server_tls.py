"""TLS for clients of Debian's Postfix and of Posthouse: which certificate is shown to a client that asks for a name."""
import contextlib
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile

import pytest
from kit import POSTHOUSED, SLOW, free_port, make_cert

import pair

RECORDS = ["relay.test. 60 IN A 127.0.0.1"]


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Chains:
    """A folder that all may read, with certificates, and files with keys and chains for rows."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="compat-chains-"))
        self.dir.chmod(0o755)
        self.names = {}
        for name in ("default.test", "own.test", "above.test", "xn--bcher-kva.test", "other.test", "second.test"):
            cert, key = make_cert(self.dir, name)
            self.add(name, cert, key.read_text() + cert.read_text())
        cert, key = self.dir / "elliptic.pem", self.dir / "elliptic.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2,
                "-subj", "/CN=elliptic.test",
                "-keyout", key, "-out", cert)
        self.add("elliptic.test", cert, key.read_text() + cert.read_text())
        own, other = self.text("own.test.pem"), self.text("other.test.key")
        for name, text in {"mismatch": other + own, "certfirst": own + self.text("own.test.key"), "nokey": own, "keyonly": other,
                           "empty": "",
                           "half": self.text("own.test.both")[:2200], "two": self.text("own.test.both") + self.text("elliptic.test.both"),
                           "keytwice": other + self.text("own.test.both"), "remark": "words\n" + self.text("own.test.both")}.items():
            (self.dir / name).write_text(text)
        for path in self.dir.iterdir():
            path.chmod(0o644)

    def text(self, name):
        return (self.dir / name).read_text()

    def add(self, name, cert, both):
        self.names[ssl.PEM_cert_to_DER_cert(cert.read_text())] = name
        (self.dir / f"{name}.both").write_text(both)

    def table(self, name, rows, files=True, make=(*pair.INSIDE, "postmap")):
        """Made from rows that name files of the folder; make ends in Debian's postmap or in ours."""
        paths = {key: " ".join(str(self.dir / one) for one in value.split()) for key, value in rows.items()}
        (self.dir / name).write_text("".join(f"{key} {value}\n" for key, value in paths.items()))
        subprocess.run([*make, *(["-F"] if files else []), f"hash:{self.dir}/{name}"], check=True)

    def shown(self, port, name, versions=(None, None), ciphers=None):
        """The name that stands for the certificate that is shown to a client that asks for name, or why the handshake fails."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if ciphers:
            context.set_ciphers(ciphers)
        if versions[0]:
            context.minimum_version, context.maximum_version = versions
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.settimeout(20 * SLOW)
            s.recv(1000)
            s.sendall(b"EHLO x\r\n")
            s.recv(10000)
            s.sendall(b"STARTTLS\r\n")
            assert s.recv(1000).startswith(b"220")
            try:
                with context.wrap_socket(s, server_hostname=name) as t:
                    t.sendall(b"QUIT\r\n")
                    return self.names[t.getpeercert(True)] if t.recv(100)[:3] == b"221" else "no reply"
            except OSError as e:
                return getattr(e, "reason", None) or type(e).__name__


@pytest.fixture(scope="module")
def chains():
    c = Chains()
    c.table("first", {"own.test": "own.test.both", ".above.test": "above.test.both", "xn--bcher-kva.test": "xn--bcher-kva.test.both",
                      "elliptic.test": "elliptic.test.both", "two.test": "two", "remark.test": "remark",
                      "pair.test": "own.test.key own.test.pem",
                      **{f"{n}.test": n for n in ("mismatch", "certfirst", "nokey", "keyonly", "empty", "half", "keytwice")}})
    c.table("second", {"own.test": "second.test.both", "sub.above.test": "second.test.both", ".sub.above.test": "second.test.both"})
    c.table("plain", {"plain.test": "own.test.both"}, files=False)
    yield c
    shutil.rmtree(c.dir)


@contextlib.contextmanager
def serving(mta, main, master=""):
    mta.case(main, {}, master)
    try:
        yield mta.port
    finally:
        mta.over()


NAMES = ["own.test", "OWN.Test", "sub.own.test", "a.above.test", "b.a.above.test", "above.test", "sub.above.test", "x.sub.above.test",
         "xn--bcher-kva.test", "XN--BCHER-KVA.test", "unknown.test", None, "pair.test", "two.test", "remark.test", "elliptic.test",
         "mismatch.test", "certfirst.test", "nokey.test", "keyonly.test", "empty.test", "half.test", "keytwice.test", "plain.test",
         "-bad.test",
         "under_score.test", "own.test."]
V12 = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)


def base(chains):
    return f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {chains.dir}/default.test.both\nsmtpd_tls_loglevel = 1\n"


def sni(mta, chains, port, own):
    """What each client is shown."""
    seen = {name: chains.shown(port, name) for name in NAMES}
    seen |= {(name, 12): chains.shown(port, name, V12) for name in ("own.test", "a.above.test", "mismatch.test", "unknown.test")}
    seen |= {(name, kind): chains.shown(port, name, V12, f"ECDHE-{kind}-AES128-GCM-SHA256")
             for name in ("two.test", "elliptic.test", "own.test") for kind in ("RSA", "ECDSA")}
    seen |= {(name, "own"): chains.shown(own, name) for name in ("own.test", "a.above.test", "a.sub.above.test")}
    return seen


def test_names_like_postfix(postfix, chains, name_server):
    """Of each name; in each of two tables, the first of which answers; by an -o of a service."""
    results = []
    for mta in (postfix, pair.Ours(name_server)):
        own = free_port()
        main = base(chains) + f"tls_server_sni_maps = hash:{chains.dir}/first, hash:{chains.dir}/second hash:{chains.dir}/plain\n"
        with serving(mta, main, f"127.0.0.1:{own} inet n - n - - smtpd -o tls_server_sni_maps=hash:{chains.dir}/second\n") as port:
            results.append(sni(mta, chains, port, own))
    theirs, ours = results
    assert {k: v for k, v in ours.items() if theirs[k] != v} == {}, {k: v for k, v in theirs.items() if ours[k] != v}
    assert ours["own.test"] == "own.test" and ours["mismatch.test"] == "TLSV1_ALERT_INTERNAL_ERROR"


@pytest.fixture(scope="module")
def specs(chains):
    """Lists of tables, each of which a service of its own has."""
    (chains.dir / "text").write_text(f"own.test {chains.dir}/own.test.both\n"
                                     f".above.test {chains.dir}/above.test.key, {chains.dir}/above.test.pem\n"
                                     f"mismatch.test {chains.dir}/mismatch\n")
    (chains.dir / "folded").write_text(f"OWN.test {chains.dir}/own.test.both\n")
    subprocess.run([*pair.INSIDE, "postmap", "-fF", f"hash:{chains.dir}/folded"], check=True)
    d = chains.dir
    return [f"texthash:{d}/text", f"inline:{{own.test={d}/own.test.both}}",
            f"inline:{{{{ own.test = {d}/own.test.key {d}/own.test.pem }}}}",
            f"hash:{d}/none", f"hash:{d}/second,hash:{d}/none", f"hash:{d}/folded", f"texthash:{d}/none"]


def test_tables_like_postfix(postfix, chains, specs, name_server):
    """Kinds of tables, and what becomes of names that come to one that cannot be asked."""
    results = []
    for mta in (postfix, pair.Ours(name_server)):
        ports = [free_port() for _ in specs]
        lines = "".join(f"127.0.0.1:{port} inet n - n - - smtpd -o {{ tls_server_sni_maps = {spec} }}\n"
                        for port, spec in zip(ports, specs))
        with serving(mta, base(chains), lines):
            results.append({(spec, name): chains.shown(port, name) for port, spec in zip(ports, specs)
                            for name in ("own.test", "a.above.test", "mismatch.test", "unknown.test", None)})
    theirs, ours = results
    assert {k: v for k, v in ours.items() if theirs[k] != v} == {}, {k: v for k, v in theirs.items() if ours[k] != v}
    assert ours[specs[3], "own.test"] == "TLSV1_ALERT_INTERNAL_ERROR" and ours[specs[3], None] == "default.test"


def test_postmap_files_like_postfix(chains):
    """A table made by either's postmap -F is the same, and either's postmap -F reads the other's."""
    posthouse = [str(POSTHOUSED.parent / "posthouse"), "postmap"]
    theirs = [*pair.INSIDE, "postmap"]
    for name, make in (("theirs", theirs), ("ours", posthouse)):
        chains.table(name, {"own.test": "own.test.both", ".above.test": "above.test.key above.test.pem"}, make=make)
    run = lambda *command: subprocess.run(command, capture_output=True, text=True, check=False)
    said = [[run(*ask, *args, f"hash:{chains.dir}/{table}") for ask in (theirs, posthouse) for table in ("theirs", "ours")]
            for args in (["-F", "-q", "own.test"], ["-q", ".ABOVE.test"], ["-Fq", "none.test"], ["-s"], ["-F", "-s"])]
    for four in said:
        assert len({(r.returncode, "".join(sorted(r.stdout.splitlines(True)))) for r in four}) == 1, four
    assert said[0][0].stdout.startswith("-----BEGIN PRIVATE KEY-----")
