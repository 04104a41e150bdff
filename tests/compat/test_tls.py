"""TLS policies for Debian's Postfix and for Posthouse: which keys are asked of which kind of table, what the attributes of a
row mean, which name is sent for SNI, and when mail goes on in clear."""
import hashlib
import pathlib
import shutil
import ssl
import subprocess
import tempfile

import pytest
from kit import FakeRelay, make_cert, server_tls

import pair

PLAIN, SECURE, REFUSING, OLD, CHAIN, PAST = "127.0.0.73", "127.0.0.72", "127.0.0.74", "127.0.0.75", "127.0.0.76", "127.0.0.77"
DEEP = "127.0.0.79"
MAY = "smtp_tls_security_level = may\n"
HOP = "relayhost = [relay.test]\n"
LOGIN = "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = static:clerk:sesame\nsmtp_sasl_security_options = "


ROWS = ["secure match=relay.test match=other.test", "secure match=other.test match=relay.test", "secure match=other.test match=third.test",
        "secure match=", "may match=relay.test", "none match=x strange", "may connection_reuse=maybe", "encrypt strange=bar",
        "secure match = relay.test", "encrypt servername=sni.test", "encrypt servername=nexthop",
        "encrypt servername=a.test servername=a.test", "encrypt servername=-bad-", "encrypt servername=127.0.0.1",
        "secure Match=RELAY.test", "verify match=other.test:relay.test", "must", "encrypt servername=",
        "secure match=relay.test connection_reuse=no"]


# {print} and {key}: the SHA-256 fingerprints of the relay's certificate and of its key
CHOICES = ["encrypt protocols=TLSv1.2", "encrypt protocols=!SSLv2:!SSLv3:!TLSv1.3", "encrypt protocols=<=TLSv1.2",
    "may protocols=>=TLSv1.3",
           "encrypt protocols=TLSV1.2:tlsv1.3", "encrypt protocols=TLS1.2", "encrypt protocols=",
           "encrypt protocols=TLSv1.2 protocols=TLSv1.3",
           "encrypt protocols=TLSv1.2 ciphers=high", "encrypt protocols=TLSv1.2 ciphers=HIGH", "encrypt ciphers=strong", "encrypt ciphers=",
           "encrypt ciphers=high ciphers=high", "encrypt protocols=TLSv1.2 exclude=AESGCM:CHACHA20",
           "encrypt protocols=TLSv1.2 exclude=aRSA",
           "encrypt protocols=TLSv1.2 exclude=ECDHE-RSA-AES256-GCM-SHA384", "encrypt exclude=!aRSA", "encrypt exclude=",
           "encrypt exclude=a exclude=b",
           "secure match=relay.test protocols=TLSv1.2 exclude=CHACHA20", "none protocols=TLS1.2", "may ciphers=low protocols=TLSv1.2",
           "fingerprint", "fingerprint match={print}", "fingerprint match={key}", "fingerprint match={lower}",
           "fingerprint match=00:11|{print}",
           "fingerprint match=00:11 match={print}", "fingerprint match=00:11", "fingerprint match=", "fingerprint match={print}:00",
           "encrypt match={print}", "fingerprint match={print} protocols=TLSv1.2"]
# {ca}: the authority that signed the certificate of the host at chain.test by way of {middle}; {capub} is the public key of {ca}
ANCHORS = ["secure match=chain.test tafile={ca}", "secure match=chain.test tafile={capub}", "secure match=chain.test tafile={middle}",
           "secure match=chain.test tafile={other}", "verify match=chain.test tafile={other} tafile={capub}",
           "verify match=chain.test tafile={capub} tafile={other}", "secure match=other.test tafile={ca}",
           "secure match=chain.test tafile={leaf}", "encrypt tafile={ca}", "fingerprint match=00:11 tafile={ca}",
           "secure match=chain.test tafile=", "secure match=chain.test tafile=/nonexistent.pem", "secure match=chain.test tafile={empty}",
           "secure match=chain.test tafile={half}", "secure match=chain.test tafile={ca} tafile={half}",
           "secure match=chain.test tafile={withkey}", "secure match=chain.test tafile={both}", "secure match=chain.test TAFILE={ca}",
           "secure match=chain.test tafile={expired}", "secure match=chain.test", "none tafile={half}",
           "secure match=chain.test tafile={leafpub}", "secure match=other.test tafile={leaf}", "secure match=other.test tafile={leafpub}",
           "secure match=chain.test tafile={middlepub}"]
TRUST = (f"relayhost = [{CHAIN}]\nsmtp_tls_security_level = {{}}\nsmtp_tls_secure_cert_match = chain.test\n"
         "smtp_tls_verify_cert_match = chain.test\n")
V12 = "smtp_tls_mandatory_protocols = TLSv1.2\nsmtp_tls_protocols = TLSv1.2\n"
ENCRYPT = HOP + "smtp_tls_security_level = encrypt\n"
PRINT = HOP + "smtp_tls_security_level = fingerprint\n"


def case(id, main, pol=None, kind="hash", rcpts=("b@y.test",), sni=None, more=None):
    """sni: the names that are compared (all, if None); without smtp_tls_servername Posthouse sends the host's name
    (docs/differences.md)."""
    main += f"smtp_tls_policy_maps = {kind}:{{dir}}/pol\n" if pol is not None else ""
    files = {} if pol is None else {"pol": pol + "\n"}
    return pytest.param(dict(main=main, files=dict(files, **more or {}), rcpts=rcpts, sni=sni), id=id)


CASES = [
    # keys: a plain domain's parents are asked of every kind of table
    case("parent in hash", MAY, ".plain.test encrypt", rcpts=["b@sub.plain.test"]),
    case("parent in regexp", MAY, r"/^\.plain\.test$/ encrypt", "regexp", rcpts=["b@sub.plain.test"]),
    case("parent's parent in regexp", MAY, r"/^\.test$/ encrypt", "regexp", rcpts=["b@deep.sub.plain.test"]),
    case("parent in pcre-like text without dot", MAY, "/^plain[.]test$/ encrypt", "regexp", rcpts=["b@sub.plain.test"]),
    case("domain before parent", MAY, "/^sub.plain.test$/ none\n/^[.]plain[.]test$/ encrypt", "regexp", rcpts=["b@sub.plain.test"]),
    case("brackets have no parents", MAY + "relayhost = [sub.plain.test]\n", "/^.plain.test/ encrypt", "regexp"),
    case("a port has no parents", MAY + "relayhost = sub.plain.test:25\n", "/^.plain.test/ encrypt", "regexp"),
    case("an address has no parents", MAY + f"relayhost = {PLAIN}\n", "/^[.]0[.]0[.]73$/ encrypt", "regexp"),
    # attributes
    case("rows", MAY + "transport_maps = hash:{dir}/tr\n", "\n".join(f"[h{i}.test] {r}" for i, r in enumerate(ROWS)),
         rcpts=[f"b@r{i}.test" for i in range(len(ROWS))], sni=["sni.test", "a.test", f"h{ROWS.index('encrypt servername=nexthop')}.test"],
         more={"tr": "".join(f"r{i}.test smtp:[h{i}.test]\n" for i in range(len(ROWS)))}),
    # the name for SNI
    case("servername nexthop", "relayhost = dom.test\nsmtp_tls_security_level = encrypt\nsmtp_tls_servername = nexthop\n"),
    case("servername hostname", "relayhost = dom.test\nsmtp_tls_security_level = encrypt\nsmtp_tls_servername = hostname\n"),
    case("servername is a name", HOP + "smtp_tls_security_level = encrypt\nsmtp_tls_servername = lit.test\n"),
    case("servername is none", HOP + MAY + "smtp_tls_servername = lit.test.\n"),
    case("servername of the row", HOP + "smtp_tls_servername = -bad-\n", "[relay.test] encrypt servername=p.test"),
    # protocols, ciphers, fingerprints: of a row, and of main.cf
    case("choices", MAY + "transport_maps = hash:{dir}/tr\n", "\n".join(f"[h{i}.test] {r}" for i, r in enumerate(CHOICES)),
         rcpts=[f"b@r{i}.test" for i in range(len(CHOICES))], sni=[],
         more={"tr": "".join(f"r{i}.test smtp:[h{i}.test]\n" for i in range(len(CHOICES)))}),
    *[case(f"main.cf {i}", main, sni=[]) for i, main in enumerate([
        ENCRYPT + V12, HOP + MAY + V12 + "smtp_tls_exclude_ciphers = AESGCM\n",
        ENCRYPT + V12 + "smtp_tls_exclude_ciphers = AESGCM, CHACHA20\n",
        ENCRYPT + V12 + "smtp_tls_mandatory_exclude_ciphers = AESGCM CHACHA20\n",
        HOP + MAY + V12 + "smtp_tls_mandatory_exclude_ciphers = AESGCM\n",
        ENCRYPT + V12 + "smtp_tls_mandatory_ciphers = high\ntls_high_cipherlist = ECDHE-RSA-AES128-SHA256\n",
        ENCRYPT + V12 + "smtp_tls_ciphers = high\ntls_high_cipherlist = ECDHE-RSA-AES128-SHA256\n",
        HOP + MAY + V12 + "tls_medium_cipherlist = ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA256\n",
        HOP + MAY + V12 + "smtp_tls_ciphers = high\ntls_high_cipherlist = ECDHE-RSA-AES128-SHA256\n",
        PRINT, PRINT + "smtp_tls_fingerprint_cert_match = 00:11, {print}\n", PRINT + "smtp_tls_fingerprint_cert_match = {key}\n",
        PRINT + "smtp_tls_fingerprint_cert_match = {sha1}\nsmtp_tls_fingerprint_digest = sha1\n",
        PRINT + "smtp_tls_fingerprint_cert_match = {sha1}\n", PRINT + "smtp_tls_fingerprint_cert_match = 00:11\n"])],
    # trust anchors instead of authorities: of a row, and of main.cf
    *[case(f"anchors in {kind}", MAY + "transport_maps = hash:{dir}/tr\nsmtp_tls_CAfile = {ca}\n",
           "\n".join(f"/^\\[c{i}\\.test\\]$/ {r}" if kind == "regexp" else f"[c{i}.test] {r}" for i, r in enumerate(rows)), kind,
           rcpts=[f"b@r{i}.test" for i in range(len(rows))], sni=[],
           more={"tr": "".join(f"r{i}.test smtp:[c{i}.test]\n" for i in range(len(rows)))})
      for kind, rows in (("hash", ANCHORS), ("regexp", ANCHORS[:4]))],
    *[case(f"anchor of main.cf, {i}", TRUST.format(level) + more, row, sni=[]) for i, (level, more, row) in enumerate([
        ("secure", "smtp_tls_trust_anchor_file = {other}, {capub}\n", None), ("secure", "smtp_tls_trust_anchor_file = {other}\n", None),
        ("verify", "smtp_tls_trust_anchor_file = {ca}\n", None), ("encrypt", "smtp_tls_trust_anchor_file = {other}\n", None),
        ("may", "smtp_tls_trust_anchor_file = {half}\n", None),
        ("secure", "smtp_tls_CAfile = {ca}\nsmtp_tls_trust_anchor_file = {other}\n", None),
        ("verify", "smtp_tls_trust_anchor_file = {half}\n", None),
        ("verify", "smtp_tls_trust_anchor_file = {other}\n", f"[{CHAIN}] verify tafile={{ca}}"),
        ("verify", "smtp_tls_trust_anchor_file = {ca}\n", f"[{CHAIN}] verify tafile={{other}}"),
        ("may", "smtp_tls_trust_anchor_file = {ca}\n", f"[{CHAIN}] secure match=chain.test"),
        ("secure", f"relayhost = [{PAST}]\nsmtp_tls_secure_cert_match = past.test\nsmtp_tls_trust_anchor_file = {{past}}\n", None)])],
    *[case(f"chain of four at {level}, depth {depth}", TRUST.format(level) + f"relayhost = [{DEEP}]\nsmtp_tls_CAfile = {{ca}}\n"
           f"smtp_tls_verify_cert_match = deep.test\nsmtp_tls_scert_verifydepth = {depth}\n", None, sni=[])
      for level, depth in (("verify", 0), ("verify", 1), ("verify", 2), ("encrypt", 0))],
    # the old name of a level, where none is set
    *[case(f"enforced, {i}", HOP + f"smtp_enforce_tls = yes\n{more}", sni=[]) for i, more in enumerate([
        "", "smtp_tls_enforce_peername = no\n", "smtp_tls_security_level = encrypt\n", "smtp_tls_enforce_peername = no\n" + MAY])],
    # a host that has no more than TLS 1.1
    case("old, at may", f"relayhost = [{OLD}]\n" + MAY),
    case("old, required and permitted",
        f"relayhost = [{OLD}]\nsmtp_tls_security_level = encrypt\nsmtp_tls_mandatory_protocols = >=TLSv1\n"),
    case("old, by a row", f"relayhost = [{OLD}]\n" + MAY, f"[{OLD}] encrypt protocols=TLSv1.1"),
    case("old, high", f"relayhost = [{OLD}]\n" + MAY, f"[{OLD}] encrypt protocols=TLSv1 ciphers=high"),
    # in clear
    case("refused, login may be in clear", f"relayhost = [{REFUSING}]\n" + MAY + LOGIN + "noanonymous\n"),
    case("refused, login may not be in clear", f"relayhost = [{REFUSING}]\n" + MAY + LOGIN + "noplaintext, noanonymous\n"),
]


RECORDS = [f"relay.test. 60 IN A {SECURE}", "dom.test. 60 IN MX 10 relay.test."]
RECORDS += [f"h{i}.test. 60 IN A {SECURE}" for i in range(max(len(ROWS), len(CHOICES)))]
RECORDS += [f"c{i}.test. 60 IN A {CHAIN}" for i in range(len(ANCHORS))]
RECORDS += [f"{n}plain.test. 60 IN A {PLAIN}" for n in ("", "sub.", "deep.sub.")]


class Chosen:
    """A context that keeps what its sessions have agreed on."""

    def __init__(self, context):
        self.context, self.seen = context, []

    def wrap_socket(self, *args, **kw):
        s = self.context.wrap_socket(*args, **kw)
        self.seen.append((s.version(), s.cipher()[0]))
        return s


def fingerprints(cert):
    """What stands for it in the cases."""
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    spki = subprocess.run(f"openssl x509 -in {cert} -pubkey -noout | openssl pkey -pubin -outform DER", shell=True,
        capture_output=True).stdout
    shown = lambda data, digest: ":".join(f"{b:02X}" for b in hashlib.new(digest, data).digest())
    return {"{print}": shown(der, "sha256"), "{lower}": shown(der, "sha256").lower(), "{key}": shown(spki, "sha256"),
        "{sha1}": shown(der, "sha1")}


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def signed(directory, name, by, ca=False, days=2):
    """A certificate that another one has signed, and its key."""
    cert, key, request, text = (directory / f"{name}.{end}" for end in ("pem", "key", "csr", "cnf"))
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    text.write_text(f"basicConstraints=CA:{'TRUE' if ca else 'FALSE'}\nsubjectAltName=DNS:{name}\n")
    openssl("x509", "-req", "-in", request, "-CA", by[0], "-CAkey", by[1], "-CAcreateserial", "-days", days, "-extfile", text, "-out", cert)
    return cert, key


def chain(d):
    """The files of ANCHORS, and the contexts of hosts with a chain of three, with one of four, and with a certificate that has expired."""
    ca, other = make_cert(d, "ca.test"), make_cert(d, "other.test")
    middle = signed(d, "middle.test", ca, True)
    leaf = signed(d, "chain.test", middle)
    low = signed(d, "low.test", middle, True)
    deep = signed(d, "deep.test", low)
    keys = {"capub": ca, "middlepub": middle, "leafpub": leaf}
    for name, (cert, _) in keys.items():
        openssl("x509", "-in", cert, "-pubkey", "-noout", "-out", d / name)
    texts = {"empty": "", "half": ca[0].read_text()[:400], "withkey": ca[1].read_text() + ca[0].read_text(),
             "both": "a remark\n" + other[0].read_text() + (d / "capub").read_text(), "shown": leaf[0].read_text() + middle[0].read_text(),
             "deep": deep[0].read_text() + low[0].read_text() + middle[0].read_text()}
    for name, text in texts.items():
        (d / name).write_text(text)
    openssl("x509", "-in", ca[0], "-signkey", ca[1], "-days", "-1", "-out", d / "expired")
    past = make_cert(d, "past.test")
    openssl("x509", "-in", past[0], "-signkey", past[1], "-days", "-1", "-out", d / "past")
    files = {n: d / n for n in ("expired", "past", *keys, *texts)}
    files |= {"ca": ca[0], "other": other[0], "middle": middle[0], "leaf": leaf[0]}
    return {f"{{{n}}}": str(path) for n, path in files.items()}, [
        server_tls(d / "shown", leaf[1]), server_tls(d / "past", past[1]), server_tls(d / "deep", deep[1])]


@pytest.fixture(scope="module")
def relays(tmp_path_factory):
    cert, key = make_cert(tmp_path_factory.mktemp("cert"), "relay.test")
    cert.parent.chmod(0o755)
    read_by_all = pathlib.Path(tempfile.mkdtemp(prefix="compat-anchors-"))  # Postfix's client reads trust anchors as its user
    read_by_all.chmod(0o755)
    words, (chained, past, deep) = chain(read_by_all)
    names = []
    tls, old = Chosen(server_tls(cert, key)), Chosen(server_tls(cert, key))
    tls.context.sni_callback = lambda sock, name, context: names.append(name)
    old.context.set_ciphers("ALL:@SECLEVEL=0")
    old.context.minimum_version, old.context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    all_ = {"plain": FakeRelay(PLAIN, 25), "secure": FakeRelay(SECURE, 25, tls=tls), "old": FakeRelay(OLD, 25, tls=old),
            "chain": FakeRelay(CHAIN, 25, tls=chained), "past": FakeRelay(PAST, 25, tls=past),
            "deep": FakeRelay(DEEP, 25, tls=deep),
            "refusing": FakeRelay(REFUSING, 25, tls=tls, auth=("PLAIN",), replies={"STARTTLS": "454 4.7.0 not now"})}
    yield all_, names, cert, fingerprints(cert) | words
    for r in all_.values():
        r.stop()
    shutil.rmtree(read_by_all)


def what_happens(mta, relays, c):
    """(status and detail code, how each relay was spoken to, names of SNI); texts differ on purpose: Posthouse's says what is wrong."""
    all_, names, cert, words = relays
    names.clear()
    chosen = [all_[n].tls for n in ("secure", "old")]
    for tls in chosen:
        tls.seen.clear()
    main, files = ("" if "smtp_tls_CAfile" in c["main"] else f"smtp_tls_CAfile = {cert}\n") + c["main"], dict(c["files"])
    for word, value in words.items():
        main, files = main.replace(word, value), {n: t.replace(word, value) for n, t in files.items()}
    replies, results, _ = pair.run(mta, all_, main, files, "", [("a@x.test", r) for r in c["rcpts"]])
    assert not replies
    spoken = {n: sorted((bool(s.tls), s.auth or (), m["rcpts"][0].split(" ORCPT")[0]) for s in r.sessions for m in s.mails)
              for n, r in all_.items()}
    first = {}
    for o in results:
        first.setdefault(o[0], (o[2], o[3]))
    return first, spoken, [n for n in names if c["sni"] is None or n in c["sni"]], [sorted(set(tls.seen)) for tls in chosen]


@pytest.mark.parametrize("c", CASES)
def test_tls_like_postfix(c, postfix, relays, name_server):
    theirs = what_happens(postfix, relays, c)
    assert theirs[0], "Postfix did nothing"
    assert what_happens(pair.Ours(name_server), relays, c) == theirs


# A field of the header, or several; from 3.10 on "no" has the mail go to the recipient's own exchangers at level may.
WISHES = ["TLS-Required: no", "TLS-Required:No \t", "tls-required:\r\n\tnO", "TLS-Required: yes", "TLS-Required: no doubt",
          "TLS-Required: no\r\n doubt", "TLS-Required: no\r\nTLS-Required: yes", "TLS-Required: yes\r\nTLS-Required: no",
          "TLS-Required : no", "TLS-Required: \"no\"", "TLS-Required: no (please)", "TLS-Required:", "X-TLS-Required: no"]


def wishes_granted(mta, relays):
    """Which recipients got mail, and whether inside TLS: all hosts have a certificate for another name."""
    secure = relays[0]["secure"]
    secure.sessions.clear()
    mta.case(f"smtp_tls_security_level = secure\nsmtp_tls_CAfile = {relays[2]}\n", {}, "")
    try:
        for i, wish in enumerate(WISHES):
            with pair.Client(mta.port) as c:
                assert c.mail("", [f"b@h{i}.test"], wish + "\r\nSubject: x\r\n\r\nx\r\n").startswith("250")
        pair.wait_for(lambda: len(pair.outcomes(mta.new_log())) >= len(WISHES))
        return sorted((m["rcpts"][0].split(" ")[1], bool(m["tls"])) for m in secure.mails)
    finally:
        mta.over()


def test_authors_who_take_less_tls_like_postfix(postfix, relays, name_server):
    ours = wishes_granted(pair.Ours(name_server), relays)
    assert ours and all(tls for _, tls in ours)
    if pair.VERSION >= (3, 10):
        theirs = wishes_granted(postfix, relays)
        assert ours == theirs, (set(ours) - set(theirs), set(theirs) - set(ours))
