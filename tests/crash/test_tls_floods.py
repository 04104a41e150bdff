"""Peers that send TLS's own messages without end: the other connections of the same thread go on."""
import contextlib
import ctypes
import ctypes.util
import socket
import threading

import pytest
from kit import FakeRelay, Posthouse, make_cert

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
            p.wait_log(read, 60)
            sender.join()
            sock.close()
    relay.stop()
