"""postconf -M, -F and -P: what stands in master.cf, beside Debian's postconf in the same directory."""
import re
import shutil
import subprocess

import pytest

from kit import BUILD, ROOT

SETS = ["iredmail", "docker-mailserver", "mail-in-a-box", "mailcow", "satellite"]
OWN = """# head
smtp      inet  n       -       y       -       -       smtpd

smtp      unix  -       -       n       -       -       smtp
\t-o syslog_name=out/$service_name
# between
  -v   -o { smtp_helo_name = a  b }  -vo zz=y -o zz=x -o smtp_bind_address=${relayhost}
a-name-that-is-long inet n - n 100? 10 smtpd
  -o smtpd_x=permit_sasl_authenticated,reject_a_thing_that_is_long_so_that_it_folds,more
  -o b=c $relayhost
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}
long      unix  - n n - - pipe user=u
  {argv=/usr/bin/x  -d} -q aaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbb {ab} cccccccccccccccc dddddddd
127.0.0.1:9025 pass - - - ? 7 smtpd -- -o g=h
last      fifo n - - - - x/y p {q}r -o
"""
SHOWN = [
    "-M", "-Mf", "-Mx", "-Mfx", "-F", "-Ff", "-FH", "-Fx", "-P", "-Pf", "-Px", "-Ph", "-PH",
    "-M smtp", "-M smtp/*", "-M */unix", "-Mf */inet smtp", "-M *", "-M nope", "-M smtp/", "-M a//inet", "-M smtp/inet/x", "-M /inet",
    "-M smtp smtp",
    "-F smtp", "-F */*/chroot", "-F smtp/unix/command", "-Fh */unix/wakeup", "-F smtp/inet/nope", "-F a/b/c/d", "-F nope/unix/chroot",
    "-P smtp", "-P */*/zz", "-P smtp/unix/syslog_name", "-P smtp/inet", "-P smtp/unix/", "-Ph */inet/b", "-P nope/inet/zz", "-P a/b/c/d",
    "-Mh", "-MH", "-FhH",
]
WRONG = [
    b"smtp inet n - y - - smtpd\n\n -o a=b\n# x\n -v\nsmtp unix n n n\n", b"smtp ine n -\n  y - - smtpd   -o a=b  \n",
    b"smtp inet z - y - - smtpd\n", b"smtp inet n nn y - - smtpd\n", b"smtp inet n - x - - smtpd\n", b"smtp inet - - y 1a - smtpd\n",
    b"smtp inet - - y -? - smtpd", b"[::1]:26 unix-dgram n - - 1 - postlogd -o foo -o =bar -o { a } -o {b = c -o {d = e}f\n",
    b"smtp inet - - y - 9x smtpd\n", b"smtp inet - - y - -9 smtpd\n", b"", b"# no service\n\n",
    b"s\x1bm\xfftp inet - - y - 9 sm\xc3\xa4d -o a=\xffb\n", b"{a b} inet - - y - 9 smtpd x {x y\n", b"{a inet - - y - 9 smtpd\n",
    b"a} inet - - y - 9 smtpd {y}x\n",
    b"smtp\tinet\t-\t-\ty\t-\t9\tsmtpd\r\n", b"x unix - - - - - y \x0b -o\x0ca=b\n",
]


def show(command, where, words):
    r = subprocess.run(["postconf", "-c", where, *words.split()], executable=command, capture_output=True)
    remarks = [line for line in r.stderr.splitlines() if not re.search(rb"un(used|defined) parameter", line)]
    return r.returncode, r.stdout, remarks


@pytest.fixture(name="both")
def both_(tmp_path):
    face = tmp_path / "postconf"
    face.symlink_to(BUILD / "src" / "posthouse")
    theirs = shutil.which("postconf", path="/usr/sbin:/usr/bin")
    where = tmp_path / "etc"
    where.mkdir()
    (where / "main.cf").write_text("relayhost = [x]:25\n")

    def compare(text, cases):
        (where / "master.cf").write_bytes(text)
        differ = {}
        for words in cases:
            results = show(face, where, words), show(theirs, where, words)
            if results[0] != results[1]:
                differ[words] = results
        assert differ == {}
    return compare


@pytest.mark.parametrize("name", ["own", "debian", *SETS])
def test_master_cf_is_shown_as_postfix_shows_it(both, name):
    file = ROOT / "tests/e2e/data/debian-master.cf" if name == "debian" else ROOT / "tests/directories" / name / "master.cf"
    both(OWN.encode() if name == "own" else file.read_bytes(), SHOWN if name == "own" else ["-M", "-Mf", "-Ff", "-Pf", "-M smtp/*"])


def test_a_master_cf_with_mistakes_is_shown_as_postfix_shows_it(both):
    for text in WRONG:
        both(text, ["-M"])


def test_what_is_shown_of_a_service_can_be_read_again(tmp_path):
    """Braces stay with an argument that needs them, and a name that holds an o is not divided; Postfix loses the one,
    and cuts the other."""
    face = tmp_path / "postconf"
    face.symlink_to(BUILD / "src" / "posthouse")
    (tmp_path / "main.cf").write_text("")
    (tmp_path / "master.cf").write_text("out unix - n n - - pipe {a  b} {} {cd}\nsmtp inet n - y - - smtpd -vofoo_one=two\n"
                                        "in inet n - y - - smtpd -o { smtp_sasl_password_maps = static:me:secret }\n")
    status, shown, remarks = show(face, tmp_path, "-M")
    assert (status, remarks) == (0, []) and b"pipe {a  b} {} cd\n" in shown and b"smtpd -v -o foo_one=two\n" in shown
    assert b"secret" not in shown and b"secret" not in show(face, tmp_path, "-P")[1] + show(face, tmp_path, "-F")[1]
    assert show(face, tmp_path, "-Ph in/inet/smtp_sasl_password_maps")[1] == b"static:me:secret\n"
    assert show(face, tmp_path, "-Fh out/unix/command")[1] == b"pipe {a  b} {} cd\n"
    (tmp_path / "master.cf").write_bytes(b"smtp inet n - y - - smtpd\0 -v\n")
    assert show(face, tmp_path, "-M")[:2] == (1, b"")
