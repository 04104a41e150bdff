"""What other systems than Debian's are: a C library, builds that leave walls out, and files of functions of their own."""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from kit import BUILD, ROOT

pytestmark = pytest.mark.skipif("asan" in BUILD.name or "tsan" in BUILD.name, reason="once is enough")
USR = pathlib.Path("/usr/include")
# Headers of libraries; those of the C library are musl's.
LIBRARIES = ["uv", "uv.h", "crypt.h", "unbound.h", "gsasl*.h", "seccomp*.h", "lmdb.h", "cdb.h", "pcre2.h", "jansson*.h", "mariadb",
             "postgresql", "sqlite3.h", "ldap*.h", "ldif.h", "lber*.h", "sasl", "idn2.h", "microhttpd.h", "linux", "asm-generic",
             "unistring", "unictype.h", "uniname.h", "uninorm.h", "unistr.h", "unitypes.h", "unicase.h"]


def link_headers(to):
    """A folder with links to the headers of libraries and of the kernel, and none of glibc's."""
    multi = next(USR.glob("*-linux-gnu"))
    for pattern in LIBRARIES:
        for header in USR.glob(pattern):
            (to / header.name).symlink_to(header)
    (to / "asm").symlink_to(multi / "asm")
    (to / "openssl").mkdir()
    for header in [*(USR / "openssl").iterdir(), *(multi / "openssl").iterdir()]:
        (to / "openssl" / header.name).symlink_to(header)
    (to / "sys").mkdir()  # a header that musl lacks, and libxcrypt's asks for
    (to / "sys" / "cdefs.h").write_text("#ifdef __cplusplus\n#error\n#endif\n#define __BEGIN_DECLS\n#define __END_DECLS\n#define __THROW\n")


def product_sources():
    """Each source of the product with the definitions and warnings that it is compiled with."""
    commands = json.loads(subprocess.run(["ninja", "-C", BUILD, "-t", "compdb"], check=True, capture_output=True, text=True).stdout)
    files = {}
    for c in commands:
        path = (BUILD / c["file"]).resolve()
        if path.suffix == ".c" and (ROOT / "src") in path.parents:
            files[path] = [f for f in shlex.split(c["command"]) if re.match(r"-D(?!_FORTIFY)|-std=", f)]
    return files


def compile_musl(headers, path, flags):
    # Without -Wconversion: macros of musl's own headers are meant for builds without.
    dirs = [f"-I{ROOT}/src", "-idirafter", headers, "-idirafter", headers / "mariadb", "-idirafter", headers / "postgresql"]
    r = subprocess.run(["musl-gcc", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", *flags, *dirs, path],
                       capture_output=True, text=True)
    return r.returncode, r.stderr


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="musl-gcc is not installed")
def test_all_of_it_compiles_with_musls_headers(tmp_path):
    link_headers(tmp_path)
    files = product_sources()
    assert len(files) > 200
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda item: (item[0], *compile_musl(tmp_path, *item)), files.items())
    assert not [(str(path), said[:600]) for path, rc, said in done if rc != 0]


def test_systems_are_asked_in_one_place_only():
    """Headers and calls that one system has are in its own file."""
    alone = re.compile(r"sys/(prctl|signalfd|eventfd|syscall|procctl|sysctl|event)\.h|<linux/|SO_PEERCRED|struct ucred|\bgetpeereid\b|"
                       r"/proc/self|"
                       r"\b(signalfd|eventfd|memfd_create|prctl|posix_fallocate|getrandom|gettid|fchownat|pledge|unveil)\(|"
                       r"\bO_PATH\b|AT_EMPTY_PATH|__linux__|__FreeBSD__|__OpenBSD__")
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        if not path.name.startswith("os_") and path.name != "os.h":
            code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
            assert not alone.search(code), (path, alone.search(code).group())


def test_every_system_has_every_function():
    head = (ROOT / "src/util/os.h").read_text()
    functions = set(re.findall(r"\b(os_\w+)\(", head))
    assert len(functions) > 20
    for system in (["os_linux.c", "os_linux_calls.c"], ["os_freebsd.c", "os_bsd.h", "os_no_wall.h"], ["os_openbsd.c", "os_bsd.h"]):
        text = "".join((ROOT / "src/util" / f).read_text() for f in system)
        have = set(re.findall(r"^[\w ]+[ *](os_\w+)\([^;]*?\) \{", text, re.M | re.S))
        assert functions - have == set(), system


# What the other systems' headers have beyond those of this one, by their manual pages.
BOTH = """#include <sys/types.h>
#include <sys/socket.h>
int getpeereid(int, uid_t *, gid_t *); void setproctitle(const char *, ...); size_t strlcpy(char *, const char *, size_t);
"""
FREEBSD = """enum { PROC_TRACE_CTL = 7, PROC_PDEATHSIG_CTL = 11, PROC_NO_NEW_PRIVS_CTL = 19, PROC_TRACE_CTL_DISABLE = 2,
PROC_NO_NEW_PRIVS_ENABLE = 1, CTL_KERN = 1, KERN_PROC = 14, KERN_PROC_PATHNAME = 12 };
#include <sys/wait.h>
int procctl(idtype_t, id_t, int, void *); int sysctl(const int *, unsigned, void *, size_t *, const void *, size_t);
int pthread_getthreadid_np(void); int bindat(int, int, const struct sockaddr *, socklen_t);
int connectat(int, int, const struct sockaddr *, socklen_t);
"""
OPENBSD = """pid_t getthrid(void); int shm_mkstemp(char *); int shm_unlink(const char *);
int unveil(const char *, const char *); int pledge(const char *, const char *);
"""


@pytest.mark.parametrize("system,more", [("freebsd", FREEBSD), ("openbsd", OPENBSD)])
def test_files_of_other_systems_compile(system, more, tmp_path):
    """With declarations as their manuals have them: no such system is here, so this is all that is tried."""
    (tmp_path / "sys").mkdir()
    (tmp_path / "more.h").write_text(BOTH + more)
    for name in ("sys/procctl.h", "sys/sysctl.h", "pthread_np.h"):
        (tmp_path / name).write_text("")
    r = subprocess.run(["gcc", "-fsyntax-only", "-D_GNU_SOURCE", "-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror",
                        f"-I{tmp_path}", f"-I{ROOT}/src", "-include", tmp_path / "more.h", ROOT / f"src/util/os_{system}.c"],
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


def test_a_build_without_walls(tmp_path):
    """It says what it lacks, and does the rest."""
    build = ROOT / "build-walls"
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", build, "-Dseccomp=disabled", "-Dlandlock=disabled", "-Dbuildtype=debug", "-Doptimization=0"],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    summary = subprocess.run(["meson", "configure", build], capture_output=True, text=True, check=True).stdout
    assert re.search(r"seccomp\s+disabled", summary) and re.search(r"landlock\s+disabled", summary)
    units = [f"tests/unit_{f.stem}" for f in sorted((ROOT / "tests/unit").glob("*.c"))]
    programs = ["src/posthouse", "src/posthoused", "src/posthouse-web"]
    subprocess.run(["ninja", "-C", build, *programs, *units], check=True, stdout=subprocess.DEVNULL)
    libraries = subprocess.run(["ldd", build / "src/posthoused"], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"libseccomp|libdb-", libraries)
    for unit in units:
        r = subprocess.run([build / unit], capture_output=True, text=True, cwd=build)
        assert r.returncode == 0, (unit, r.stderr[-2000:])
    (tmp_path / "main.cf").write_text("relayhost = [127.0.0.1]:9\n")
    said = subprocess.run([build / "src/posthouse", "-c", tmp_path, "check"], capture_output=True, text=True).stdout
    assert "note: this build has no seccomp, Landlock" in said
    env = dict(os.environ, POSTHOUSE_BUILD=str(build))
    r = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/e2e/test_seed.py"], cwd=ROOT, env=env,
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:]
