"""Peers that make TLS costly, or send its own messages without end: the other connections of the same thread go on."""
import base64
import contextlib
import ctypes
import ctypes.util
import random
import socket
import ssl
import subprocess
import threading

import pytest
from kit import FakeRelay, Posthouse, free_port, make_cert, server_tls

TLS = ctypes.CDLL(ctypes.util.find_library("ssl"))
for name in ("TLS_client_method", "TLS_server_method", "SSL_CTX_new", "SSL_new", "BIO_new", "BIO_s_mem"):
    getattr(TLS, name).restype = ctypes.c_void_p
NOT_REQUESTED, PEM, UPDATES = 0, 1, 40_000


def key_updates(sock, last, cert=None):
    """Agrees on TLS over sock, as a server with cert; returns many key updates and then last, in TLS."""
    sock.settimeout(None)  # OpenSSL reads and writes it
    ctx = ctypes.c_void_p(TLS.SSL_CTX_new(ctypes.c_void_p(TLS.TLS_server_method() if cert else TLS.TLS_client_method())))
    if cert:
        assert TLS.SSL_CTX_use_certificate_file(ctx, str(cert[0]).encode(), PEM) == 1
        assert TLS.SSL_CTX_use_PrivateKey_file(ctx, str(cert[1]).encode(), PEM) == 1
    ssl = ctypes.c_void_p(TLS.SSL_new(ctx))
    TLS.SSL_set_fd(ssl, sock.fileno())
    assert (TLS.SSL_accept if cert else TLS.SSL_connect)(ssl) == 1
    out = ctypes.c_void_p(TLS.BIO_new(ctypes.c_void_p(TLS.BIO_s_mem())))
    TLS.SSL_set0_wbio(ssl, out)
    for _ in range(UPDATES):
        assert TLS.SSL_key_update(ssl, NOT_REQUESTED) == 1 and TLS.SSL_do_handshake(ssl) == 1
    assert TLS.SSL_write(ssl, last, len(last)) == len(last)
    text = ctypes.create_string_buffer(UPDATES * 64)
    n = TLS.BIO_read(out, text, len(text))
    return text.raw[:n]


def client(p):
    c = p.client()
    assert c.cmd("STARTTLS").startswith("220")
    return c.sock, key_updates(c.sock, b"QUIT\r\n"), "starttls=1 quit=1"


def relay_host(p, listener, cert):
    p.send(rcpts=["u@flood.example"])
    sock, _ = listener.accept()
    f = sock.makefile("rb")
    for says in (b"220 flood\r\n", b"250-flood\r\n250 STARTTLS\r\n"):
        sock.sendall(says)
        f.readline()
    sock.sendall(b"220 go\r\n")
    return sock, key_updates(sock, b"421 4.3.2 all was read\r\n", cert), "all was read"


@pytest.mark.parametrize("who", ["client", "relay host"])
def test_flood_of_key_updates(dns, tmp_path, who):
    """One thread serves a peer that floods it and all others: their mail does not wait until the flood is read."""
    cert = make_cert(tmp_path)
    relay = FakeRelay()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        main = f"relay_threads = 1\nsmtpd_tls_cert_file = {cert[0]}\nsmtpd_tls_key_file = {cert[1]}\nsmtpd_tls_security_level = may\n" \
               f"smtp_tls_security_level = may\ntransport_maps = inline:{{{{" \
               f"flood.example=smtp:[127.0.0.1]:{listener.getsockname()[1]}, y.example=smtp:[127.0.0.1]:{relay.port}}}}}\n"
        with Posthouse(main, dns=dns) as p:
            sock, flood, read = client(p) if who == "client" else relay_host(p, listener, cert)

            def send():
                with contextlib.suppress(OSError):
                    sock.sendall(flood)
            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            for i in range(3):
                assert p.send(sender=f"s{i}@x.example").startswith("250")
            relay.wait_mails(3)
            assert read not in p.log()
            p.wait_log(read)
            sender.join()
            sock.close()
    relay.stop()


@pytest.mark.parametrize("groups, works", [("ffdhe8192", False), ("ffdhe2048", False), ("P-256", True),
                                           ("ffdhe8192:X25519", True)])
def test_groups_that_clients_may_choose(dns, tmp_path, groups, works):
    """Forty ClientHellos for ffdhe8192, each the copy of one, left other clients without a greeting for twenty seconds."""
    cert = make_cert(tmp_path)
    main = f"smtpd_tls_cert_file = {cert[0]}\nsmtpd_tls_key_file = {cert[1]}\nsmtpd_tls_security_level = may\n"
    with Posthouse(main, dns=dns) as p:
        out = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-groups", groups, "-connect",
                              f"127.0.0.1:{p.port}"], input=b"QUIT\r\n", capture_output=True, timeout=60)
        assert (b"New, TLSv1.3" in out.stdout) == works, (out.stdout, out.stderr)


@pytest.mark.parametrize("groups, works", [("ffdhe8192", False), ("ffdhe4096", False), ("ffdhe3072", True)])
def test_groups_of_tls_1_3_that_relay_hosts_may_choose(dns, tmp_path, groups, works):
    cert, key = make_cert(tmp_path)
    port = free_port()
    host = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-tls1_3",
                             "-groups", groups], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert any(line.startswith(b"ACCEPT") for line in host.stdout)
        main = f"relayhost = [127.0.0.1]:{port}\nsmtp_tls_security_level = encrypt\nsmtp_tls_wrappermode = yes\n" \
               "smtp_tls_loglevel = 1\n"
        with Posthouse(main, dns=dns) as p:
            p.send()
            seen = p.wait_log("TLS connection established to|SSL_connect error to")[0]
            assert seen.startswith("TLS") == works, p.log()
    finally:
        host.kill()
        host.communicate()


def dh_file(path, bits):
    """Parameters of a group with that modulus, which need not be a prime for the peer to compute in it."""
    def der(tag, body):
        n = len(body)
        return bytes([tag]) + (bytes([n]) if n < 128 else b"\x82" + n.to_bytes(2, "big")) + body
    p = random.Random(bits).getrandbits(bits) | 1 | 1 << bits - 1
    text = base64.encodebytes(der(0x30, der(2, b"\0" + p.to_bytes((bits + 7) // 8, "big")) + der(2, b"\2"))).decode()
    path.write_text(f"-----BEGIN DH PARAMETERS-----\n{text}-----END DH PARAMETERS-----\n")
    return path


@pytest.mark.parametrize("bits, works", [(2048, True), (4096, True), (4160, False), (10000, False)])
def test_groups_that_relay_hosts_may_choose(dns, tmp_path, bits, works):
    """A group of 10,000 bits, the largest that OpenSSL takes, cost a second of the thread for each connection."""
    ctx = server_tls(*make_cert(tmp_path))
    ctx.maximum_version = ssl.TLSVersion.TLSv1_2
    ctx.set_ciphers("DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
    ctx.load_dh_params(dh_file(tmp_path / "dh.pem", bits))
    with FakeRelay(tls=ctx) as relay:
        main = f"relayhost = [127.0.0.1]:{relay.port}\nsmtp_tls_security_level = encrypt\n"
        with Posthouse(main, dns=dns) as p:
            p.send()
            line = p.wait_log("status=(sent|deferred)")[0]
            assert (line == "sent") == works, p.log()
            assert works or "dh key too small or too large" in p.log()


def chain_file(directory, names, constraints, exponent):
    """A key with its certificate of so many names, and that of an issuer with so many constraints."""
    def run(*args):
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)
    (directory / "conf").write_text(
        "[req]\nprompt = no\ndistinguished_name = dn\n[dn]\nCN = issuer\n[issuer]\nbasicConstraints = critical, CA:true\n" +
        ("nameConstraints = @constraints\n" if constraints else "") + "[own]\nsubjectAltName = @names\n[names]\n" +
        "".join(f"DNS.{i} = a\n" for i in range(names)) + "[constraints]\n" +
        "".join(f"excluded;DNS.{i} = b\n" for i in range(constraints)))
    for who in ("issuer", "own"):
        run("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_pubexp:{exponent}", "-out", f"{who}.key")
    run("req", "-x509", "-config", "conf", "-extensions", "issuer", "-key", "issuer.key", "-out", "issuer.pem")
    run("req", "-new", "-config", "conf", "-subj", "/CN=own", "-key", "own.key", "-out", "own.csr")
    run("x509", "-req", "-in", "own.csr", "-CA", "issuer.pem", "-CAkey", "issuer.key", "-extfile", "conf", "-extensions", "own",
        "-out", "own.pem")
    path = directory / "chain.pem"
    path.write_text("".join((directory / name).read_text() for name in ("own.key", "own.pem", "issuer.pem")))
    return path


@pytest.mark.parametrize("names, constraints, exponent, works", [
    (90, 100, 65537, True), (500, 0, 65537, True), (1, 1000, 65537, True), (110, 100, 65537, False), (950, 1000, 65537, False),
    (1, 0, 2 ** 32 + 1, True), (1, 0, 2 ** 64 + 13, False)])
def test_certificates_that_clients_may_show(dns, server_cert, tmp_path, names, constraints, exponent, works):
    """To verify what a stranger showed took 50 ms, before it was known that no anchor vouches for it: fifty connections of one client kept
    each session of another for ten seconds."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode, ctx.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    ctx.load_cert_chain(chain_file(tmp_path, names, constraints, exponent))
    main = f"smtpd_tls_cert_file = {server_cert[0]}\nsmtpd_tls_key_file = {server_cert[1]}\nsmtpd_tls_security_level = may\n" \
           "smtpd_tls_ask_ccert = yes\n"
    with Posthouse(main, dns=dns) as p, p.client() as c:
        if works:
            c.starttls(ctx)
            assert c.cmd("EHLO x").startswith("250")
        else:
            with pytest.raises(OSError):
                c.starttls(ctx)
            p.wait_log("SSL_accept error from .*certificate rejected")
