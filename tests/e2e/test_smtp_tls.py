"""The SMTP server's certificate: what is half written never takes the good one away, and no wrapped port speaks in clear."""
import contextlib
import hashlib
import os
import pty
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess

import pytest
from kit import POSTHOUSE, POSTHOUSED, SLOW, Client, FakeRelay, Posthouse, free_port, make_cert, server_tls, wait_for


def wrapped(port):
    """The certificate of a port with implicit TLS, and its greeting."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.settimeout(20 * SLOW)
        with ctx.wrap_socket(s) as t:
            return t.getpeercert(True), t.recv(100)


def in_clear(port):
    """All that such a port says to a client that waits; None: it lets no client in."""
    with socket.socket() as s:
        s.settimeout(20 * SLOW)
        if s.connect_ex(("127.0.0.1", port)) != 0:
            return None
        s.sendall(b"EHLO x\r\nMAIL FROM:<a@x.example>\r\n")
        try:
            return b"".join(iter(lambda: s.recv(1000), b""))
        except ConnectionResetError:
            return b""


class Server:
    def __init__(self, dns, level="may", chain=False, more="", master="", directory=None):
        self.port = free_port()
        files = "smtpd_tls_chain_files = {dir}/cert\n" if chain else "smtpd_tls_cert_file = {dir}/cert\nsmtpd_tls_key_file = {dir}/key\n"
        self.main = f"smtpd_tls_security_level = {level}\nsmtpd_peername_lookup = no\n" + files + more
        self.p = Posthouse(self.main, dns=dns, directory=directory,
                           master=f"127.0.0.1:{self.port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n" + master)
        self.chain = chain

    def write(self, name):
        cert, key = make_cert(self.p.dir, name)
        self.cert, self.key = cert.read_bytes(), key.read_bytes()
        self.put(self.cert, self.key)
        return ssl.PEM_cert_to_DER_cert(cert.read_text())

    def put(self, cert, key):
        for name, data in [("cert", cert + b"\n" + key)] if self.chain else [("cert", cert), ("key", key)]:
            (self.p.dir / name).unlink(missing_ok=True)
            if data is not None:
                (self.p.dir / name).write_bytes(data)


BROKEN = {"half a certificate": lambda s: (s.cert[:len(s.cert) // 2], s.key), "no bytes": lambda s: (b"", s.key), "half a key": lambda s: (s.cert, s.key[:300]),
          "no certificate file": lambda s: (None, s.key), "no key file": lambda s: (s.cert, None), "the other one's key": lambda s: (s.cert, s.other)}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_reload_keeps_the_good_certificate(dns, kind):
    server = Server(dns)
    other = make_cert(server.p.dir, "other.example")[1].read_bytes()
    good = server.write("mta.example")
    server.other = other
    with server.p as p:
        assert wrapped(server.port)[0] == good
        server.put(*BROKEN[kind](server))
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("error: .*cannot load the TLS certificate of .*")
        p.wait_log("reload refused: .*the old configuration stays in use")
        assert wrapped(server.port) == (good, b"220 mta.example ESMTP Posthouse\r\n")
        assert b"220" not in in_clear(server.port) and b"250" not in in_clear(server.port)
        with p.client() as c:
            c.starttls()
            assert c.sock.getpeercert(True) == good and c.cmd("EHLO x").startswith("250")
        r = p.run("check")
        assert r.returncode == 2 and "cannot load the TLS certificate" in r.stdout
        renewed = server.write("renewed.example")
        p.reload()
        assert wrapped(server.port)[0] == renewed
        assert "TLS certificate" not in p.run("check").stdout


@pytest.mark.parametrize("kind", BROKEN)
def test_a_start_with_a_broken_certificate_fails(dns, tmp_path, kind):
    """Of main.cf, and of a service alone, whatever its level."""
    server = Server(dns, "may" if "key" in kind else "none", directory=tmp_path)
    server.other = make_cert(tmp_path, "other.example")[1].read_bytes()
    server.write("mta.example")
    server.put(*BROKEN[kind](server))
    r = subprocess.run([str(POSTHOUSED), "-c", str(tmp_path)], capture_output=True, text=True, timeout=60 * SLOW)
    assert r.returncode == 1 and re.search("fatal: .*cannot load the TLS certificate of .*: ", r.stderr), r.stderr
    assert in_clear(server.port) is None and in_clear(server.p.port) is None


def at_a_terminal(args, env):
    """What a program says at a terminal of its own, where nobody types, and its status."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(args[0], args, env)
    said = b""
    with contextlib.suppress(OSError):  # the terminal has no other end any more
        while select.select([fd], [], [], 60 * SLOW)[0]:
            part = os.read(fd, 4096)
            said += part
            if not part:
                break
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.close(fd)
    return said.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("form", ["traditional", "PKCS #8", "chain"])
def test_nobody_is_asked_for_the_password_of_a_key(dns, tmp_path, form):
    """Neither by check nor by a start: both say what is the matter, as they would where there is no terminal."""
    server = Server(dns, chain=form == "chain", directory=tmp_path)
    server.write("mta.example")
    kind = ["pkcs8", "-topk8", "-v2", "aes128"] if form == "PKCS #8" else ["rsa", "-traditional", "-aes128"]
    key = subprocess.run(["openssl", *kind, "-passout", "pass:something", "-in", tmp_path / "mta.example.key"], check=True, capture_output=True).stdout
    server.put(server.cert, key)
    for args, want in (([str(POSTHOUSE), "check"], 2), ([str(POSTHOUSED), "-c", str(tmp_path)], 1)):
        said, status = at_a_terminal(args, dict(server.p.env(), MAIL_CONFIG=str(tmp_path)))
        assert status == want and re.search("cannot use the .*key.*: a password is needed to read", said), said
        assert "pass phrase" not in said


def test_a_certificate_that_nobody_is_shown_may_be_broken(dns):
    """As in a main.cf that was copied from elsewhere: a warning, and mail is taken."""
    with Posthouse("smtpd_tls_security_level = none\nsmtpd_tls_cert_file = {dir}/none.pem\n", dns=dns) as p:
        r = p.run("check")
        assert r.returncode == 1 and "warning: " in r.stdout and "cannot load the TLS certificate" in r.stdout
        with p.client() as c:
            assert "STARTTLS" not in c.ehlo


def shown(server, own):
    """The certificates that main.cf's service and one of its own show."""
    return [wrapped(port)[0] for port in (server.port, own)]


def test_renewed_files_are_in_use_without_a_reload(dns):
    """Of main.cf, of a service and of the client; what is broken stays what it was, also after a crash, and is said once."""
    own = free_port()
    server = Server(dns, more="smtp_tls_cert_file = {dir}/client.pem\nsmtp_tls_key_file = {dir}/client.key\n",
        master=f"127.0.0.1:{own} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_tls_chain_files=own.both\n")
    d, ders = server.p.dir, {}
    ours = make_cert(d, "relay.server")
    for name in ("client", "own", "renewed.client", "renewed.own"):
        cert, key = make_cert(d, name)
        ders[name] = ssl.PEM_cert_to_DER_cert(cert.read_text())
        (d / f"{name}.both").write_bytes(key.read_bytes() + cert.read_bytes())
    ctx = server_tls(*ours)
    ctx.verify_mode = ssl.CERT_REQUIRED
    ctx.load_verify_locations(d / "renewed.client.pem")
    good = server.write("mta.example")
    with FakeRelay(tls=ctx) as relay, server.p as p:
        p.write_main(server.main + f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_security_level = encrypt\n")
        p.reload()
        reloads = p.log().count("reload -- ")
        assert shown(server, own) == [good, ders["own"]]
        p.send()
        p.wait_log("status=deferred")
        renewed = server.write("renewed.example")
        shutil.move(d / "renewed.own.both", d / "own.both")
        shutil.copy(d / "renewed.client.key", d / "client.key"), shutil.copy(d / "renewed.client.pem", d / "client.pem")
        wait_for(lambda: shown(server, own) == [renewed, ders["renewed.own"]])
        p.run("-f", face="postqueue", check=True)
        assert relay.wait_mails(1)[0]["tls"]
        server.put(server.cert, b"")
        (d / "own.both").write_text("")
        p.wait_log("error: certificate files have changed and cannot be used: cannot load the TLS certificate of .*/key: ")
        p.wait_log(rf"error: 127\.0\.0\.1:{own}: certificate files have changed and cannot be used: .*own.both")
        os.kill(p.child("relay"), signal.SIGKILL)
        wait_for(p._greets)
        assert shown(server, own) == [renewed, ders["renewed.own"]]
        assert b"220" not in in_clear(own)
        last = server.write("last.example")
        wait_for(lambda: shown(server, own) == [last, ders["renewed.own"]])
        assert len(re.findall("cannot be used: .*own.both", p.log())) == 1 and p.log().count("reload -- ") == reloads


def test_a_chain_file_and_a_configuration_that_gives_tls_up(dns):
    server = Server(dns, chain=True)
    good = server.write("mta.example")
    with server.p as p:
        assert wrapped(server.port)[0] == good
        server.put(server.cert[:500], server.key)
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("reload refused")
        assert wrapped(server.port)[0] == good
        p.write_main("smtpd_peername_lookup = no\n")
        p.reload()
        assert in_clear(server.port) == b""
        with p.client() as c:
            assert "STARTTLS" not in c.ehlo


def agreed(port, ctx):
    """What STARTTLS comes to: (version, cipher, certificate), or None."""
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.settimeout(20 * SLOW)
        for line in (b"", b"EHLO x\r\n", b"STARTTLS\r\n"):
            s.sendall(line)
            while not re.search(rb"(?m)^\d{3} .*\r\n", s.recv(2000)):
                pass
        try:
            with ctx.wrap_socket(s) as t:
                return t.version(), t.cipher()[0], t.getpeercert(True)
        except (ssl.SSLError, ConnectionError):
            return None


def test_each_service_has_its_own_tls(dns):
    """Certificate, protocols and ciphers of main.cf, of a service that requires TLS, and of one with overrides; and after a reload."""
    must, own = free_port(), free_port()
    main = "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {dir}/one.example.pem\nsmtpd_tls_key_file = {dir}/one.example.key\n" \
           "smtpd_tls_protocols = <=TLSv1.2\nsmtpd_tls_mandatory_protocols = TLSv1.2\nsmtpd_tls_exclude_ciphers = AESGCM\n" \
           "smtpd_tls_mandatory_exclude_ciphers = CHACHA20, AESCCM\nsmtpd_peername_lookup = no\n"
    p = Posthouse(main, dns=dns, master=f"127.0.0.1:{must} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt\n"
                  f"127.0.0.1:{own} inet n - n - - smtpd -o smtpd_tls_chain_files=two.example.key,two.example.pem\n"
                  "  -o smtpd_tls_protocols=>=TLSv1 -o smtpd_tls_ciphers=high -o smtpd_tls_exclude_ciphers=\n")
    ders = [ssl.PEM_cert_to_DER_cert(make_cert(p.dir, f"{n}.example")[0].read_text()) for n in ("one", "two")]
    with p:
        for again in (False, True):
            here, strict, other = (agreed(port, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) for port in (p.port, must, own))
            assert here[0] == strict[0] == "TLSv1.2" and other[0] == "TLSv1.3"
            assert "GCM" not in here[1] + strict[1] and "CHACHA20" not in strict[1] and "CHACHA20" in here[1]
            assert [x[2] for x in (here, strict, other)] == [ders[0], ders[0], ders[1]]
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            assert [(agreed(port, old) or [None])[0] for port in (p.port, must, own)] == ["TLSv1.1", None, "TLSv1.1"]
            p.reload()


def asked(port, name):
    """The certificate that a client is shown that asks for name; None: the handshake fails."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.settimeout(20 * SLOW)
        try:
            with ctx.wrap_socket(s, server_hostname=name) as t:
                return t.getpeercert(True)
        except (ssl.SSLError, ConnectionError):
            return None


def replace(path, text):
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def test_certificates_of_names(dns):
    """Rows and files that change are in use without a reload; what breaks stays what it was; the handshake for a row that was never good
    is refused, check and the log name the row, and no other certificate stands in for it; no key is in a log."""
    server = Server(dns, more="tls_server_sni_maps = texthash:{dir}/rows hash:{dir}/made\n")
    p, d, ders, both = server.p, server.p.dir, {}, {}
    for name in ("a.example", "b.example", "b.renewed", "c.example"):
        cert, key = make_cert(d, name)
        ders[name], both[name] = ssl.PEM_cert_to_DER_cert(cert.read_text()), key.read_text() + cert.read_text()
        (d / f"{name}.both").write_text(both[name])

    def make(rows):
        (d / "made").write_text(rows)
        p.run("-F", f"hash:{d}/made", face="postmap", check=True)
    (d / "rows").write_text("B.example b.example.both\nbroken.example c.example.pem\n")
    make(f"a.example {d}/a.example.both\n")
    good = server.write("mta.example")
    with p:
        row = r'tls_server_sni_maps: texthash:.*/rows: the row of "broken\.example": it is not a private key'
        assert re.search(r"warning: .*main.cf, line \d+: " + row, (d / "stderr").read_text())
        look = lambda *names: [asked(server.port, n) for n in names]
        assert look("a.example", "b.EXAMPLE") == [ders["a.example"], ders["b.example"]]
        assert look("none.example", None, "broken.example") == [good, good, None]
        p.wait_log('warning: TLS SNI broken.example from unknown.*: the row of "broken.example": it is not a private key '
                   "with its certificate and chain behind it: the handshake is refused")
        p.wait_log("TLS SNI none.example from unknown.*not matched, using default chain")
        r = p.run("check")
        assert r.returncode == 2 and re.search(r"error: .*main.cf, line \d+: " + row, r.stdout), r.stdout
        p.reload()
        assert len(re.findall("warning: .*main.cf, line [0-9]+: " + row, p.log())) == 2 and look("broken.example") == [None]
        replace(d / "rows", "b.example b.example.both\nc.example c.example.both\n")
        replace(d / "b.example.both", both["b.renewed"])
        make(f"made.example {d}/a.example.both\n")
        want = [ders["c.example"], ders["b.renewed"], ders["a.example"], good]
        wait_for(lambda: look("c.example", "b.example", "made.example", "a.example") == want)
        replace(d / "b.example.both", both["b.example"][:1500])
        p.wait_log('error: certificate files have changed and cannot be used: tls_server_sni_maps: .*: the row of "b.example": ')
        assert look("b.example", "c.example", None) == [ders["b.renewed"], ders["c.example"], good]
        os.kill(p.child("relay"), signal.SIGKILL)
        wait_for(p._greets)
        assert look("b.example", "made.example") == [ders["b.renewed"], ders["a.example"]]
        replace(d / "b.example.both", both["b.example"])
        p.reload()
        assert look("b.example") == [ders["b.example"]]
        said = p.run("check").stdout
        assert 'tls_server_sni_maps: hash:' in said and 'the row of "made.example": the certificate is for another name' in said
        assert re.search(r"b.example.both: it has a password or a key, and every user may read it", said), said
        assert re.search(r"made.db: it has a password or a key, and every user may read it", said), said
        assert "PRIVATE KEY" not in p.log() and both["a.example"][60:90] not in p.log() + (d / "stderr").read_text()


def test_names_whose_table_cannot_be_asked(dns):
    """A client that asks for a name is shown no certificate; one that asks for none is served."""
    server = Server(dns, more="tls_server_sni_maps = regexp:{dir}/rows\n")
    (server.p.dir / "rows").write_text("/x/ y\n")
    good = server.write("mta.example")
    with server.p as p:
        assert [asked(server.port, n) for n in ("a.example", None)] == [None, good]
        p.wait_log("warning: TLS SNI a.example from .*: tls_server_sni_maps: its rows cannot be listed: .*: the handshake is refused")
        assert "tls_server_sni_maps: regexp:" in p.run("check").stdout


def certified(port, cert, lines):
    """The replies, inside TLS, to a client with that certificate; None: without."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    if cert:
        ctx.load_cert_chain(*cert)
    with Client(port, ehlo="x") as c:
        c.starttls(ctx)
        return [c.cmd(line) for line in lines]


def test_what_a_certificate_permits(dns, tmp_path):
    """A fingerprint permits that certificate alone, and a trusted issuer those that it has signed; a digest that is none, or a table that
    fails, permits nothing; headers of such clients are completed; anchors that are renewed count at once."""
    one, two = make_cert(tmp_path, "one.example"), make_cert(tmp_path, "two.example")
    der = ssl.PEM_cert_to_DER_cert(one[0].read_text())
    mark = ":".join(f"{b:02x}" for b in hashlib.sha256(der).digest())
    words = {"prints": ("permit_tls_clientcerts", ""), "all": ("permit_tls_all_clientcerts", "-o relay_clientcerts="),
             "digest": ("permit_tls_clientcerts", "-o smtpd_tls_fingerprint_digest=nonesuch"),
             "access": ("check_ccert_access static:OK", "-o smtpd_tls_fingerprint_digest=nonesuch"),
             "gone": ("permit_tls_clientcerts", "-o relay_clientcerts=hash:{dir}/gone"),
             "unasked": ("permit_tls_all_clientcerts", "-o smtpd_tls_ask_ccert=no")}
    ports = {name: free_port() for name in words}
    lines = "".join(f"127.0.0.1:{ports[name]} inet n - n - - smtpd {more}\n  -o {{{{ smtpd_relay_restrictions = {word}, reject }}}}\n"
                    for name, (word, more) in words.items())
    server = Server(dns, more="smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {dir}/anchors\nsmtpd_tls_fingerprint_digest = sha256\n"
                    f"relay_clientcerts = inline:{{{{ {mark}=x }}}}\nmynetworks = 192.0.2.1\n", master=lines)
    server.write("mta.example")
    (server.p.dir / "anchors").write_text(two[0].read_text())
    mail = ["EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<b@far.example>"]
    rcpt = lambda name, cert: certified(ports[name], cert, mail)[2][:9]
    no = "554 5.7.1"
    with server.p as p:
        assert [rcpt("prints", c) for c in (None, one, two)] == [no, "250 2.1.5", no]
        assert [rcpt("all", c) for c in (None, one, two)] == [no, no, "250 2.1.5"]
        assert [rcpt("digest", c) for c in (None, one)] == [no, "451 4.3.5"] and rcpt("access", one) == "451 4.3.5"
        assert [rcpt("gone", c) for c in (None, one)] == [no, "451 4.3.0"] and rcpt("unasked", two) == no
        said = p.run("check").stdout
        assert f"127.0.0.1:{ports['digest']}: smtpd_tls_fingerprint_digest: there is no such digest" in said
        assert f"127.0.0.1:{ports['unasked']}: smtpd_tls_ask_ccert: no client is asked for the certificate" in said
        (p.dir / "next").write_text(one[0].read_text())
        (p.dir / "next").rename(p.dir / "anchors")
        wait_for(lambda: [rcpt("all", c) for c in (one, two)] == ["250 2.1.5", no])
        (p.dir / "anchors").write_text("")
        r = p.run("check")
        assert r.returncode == 2 and re.search("cannot load smtpd_tls_CAfile = .*anchors: it has no certificate", r.stdout), r.stdout
        p.proc.send_signal(signal.SIGHUP)
        p.wait_log("reload refused")
        assert rcpt("all", one) == "250 2.1.5"


def test_a_session_keeps_the_anchors_that_it_began_with(dns, tmp_path):
    """A client that waits with STARTTLS until a reload has widened the anchors, and narrowed what they permit, is still judged by both of
    the time when it came."""
    one, two = make_cert(tmp_path, "first.example"), make_cert(tmp_path, "second.example")
    server = Server(dns, more="smtpd_tls_ask_ccert = yes\nmynetworks = 192.0.2.1\n")
    server.write("mta.example")
    settings = lambda cert, word: server.main + f"smtpd_tls_CAfile = {cert[0]}\nsmtpd_relay_restrictions = {word}, reject\n"
    server.p.write_main(settings(one, "permit_tls_all_clientcerts"))
    lines = ["EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<b@far.example>"]
    with server.p as p, Client(p.port) as shows_one, Client(p.port) as shows_two:
        p.write_main(settings(two, "permit_tls_clientcerts"))
        p.reload()
        for client, cert, want in ((shows_one, one, "250 2.1.5"), (shows_two, two, "554 5.7.1")):
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
            ctx.load_cert_chain(*cert)
            client.starttls(ctx)
            assert [client.cmd(line) for line in lines][2][:9] == want
        assert certified(p.port, one, lines)[2][:9] == certified(p.port, two, lines)[2][:9] == "554 5.7.1"


def test_a_certificate_that_is_required(dns, tmp_path):
    """Nobody is served without a trusted one, on a wrapped port too; where TLS is not required the setting counts for nothing, and check
    says so; the header of a client that is known by its certificate is completed."""
    cert, must, may = make_cert(tmp_path, "one.example"), free_port(), free_port()
    with FakeRelay() as relay:
        server = Server(dns, more="smtpd_tls_req_ccert = yes\nsmtpd_tls_CAfile = {dir}/anchors\n"
                        f"relayhost = [127.0.0.1]:{relay.port}\nlocal_header_rewrite_clients = permit_tls_all_clientcerts\n",
                        master=f"127.0.0.1:{must} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt\n"
                        f"127.0.0.1:{may} inet n - n - - smtpd -o smtpd_tls_ask_ccert=yes\n")
        server.write("mta.example")
        (server.p.dir / "anchors").write_text(cert[0].read_text())
        with server.p as p:
            assert certified(must, cert, ["EHLO x"])[0].startswith("250") and certified(may, None, ["EHLO x"])[0].startswith("250")
            assert wrapped(server.port)[1] == b"421 4.7.1 mta.example Error: No client certificate presented\r\n"
            p.wait_log(r"NOQUEUE: abort: TLS from unknown\[127\.0\.0\.1\]: No client certificate presented")
            assert f"127.0.0.1:{may}: smtpd_tls_req_ccert: it counts for nothing unless TLS is required" in p.run("check").stdout
            for name, shows in (("with", cert), ("without", None)):
                assert certified(may, shows, ["EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA",
                                              f"Subject: {name}-certificate\r\n\r\nx\r\n."])[-1].startswith("250")
                assert (b"\r\nMessage-Id:" in relay.wait_mail(f"{name}-certificate".encode())["content"]) == (shows is not None)
