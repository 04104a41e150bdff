#!/bin/sh
# Installs what is missing of Debian's packages, and says what.  Safe to run again.
#   scripts/setup.sh build|demo|test|deb
# No service is started: a package that brings a daemon (Postfix, unbound) is installed with its
# start suppressed, because tests start their own instances.
set -eu

build="gcc make meson ninja-build pkg-config libc6-dev libuv1-dev libssl-dev libunbound-dev libidn2-dev libunistring-dev \
libgsasl-dev libseccomp-dev liblmdb-dev libcdb-dev libpcre2-dev libjansson-dev libmariadb-dev \
libpq-dev libmicrohttpd-dev python3-minimal libsqlite3-dev libldap-dev libsasl2-dev libcrypt-dev ca-certificates"
deb="$build debhelper dpkg-dev fakeroot po-debconf"
demo="$build python3 python3-aiosmtpd openssl"
test="$demo python3-pytest libcmocka-dev libdb5.3-dev musl-tools postfix postfix-lmdb postfix-cdb postfix-pcre postfix-mysql \
postfix-pgsql postfix-sqlite postfix-ldap unbound mariadb-server mariadb-client postgresql slapd ldap-utils \
pflogsumm procps amavisd-new postgrey postfix-policyd-spf-python dovecot-core dovecot-lmtpd fail2ban clang llvm-14 libclang-rt-14-dev clang-format universal-ctags chromium nginx-light wrk python3-jsonschema \
prometheus python3-flufl.bounce golang-github-jhillyerd-enmime-dev golang-github-gatherstars-com-jwz-dev"

case "${1:-build}" in
build) want=$build ;;
demo) want=$demo ;;
test) want=$test ;;
deb) want=$deb ;;
*) echo "usage: $0 build|demo|test|deb" >&2; exit 2 ;;
esac

missing=
for p in $want; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $p"
done
# The tests make the page again, with Node.js and npm; others than Debian's are as good.
[ "${1:-build}" != test ] || command -v node >/dev/null 2>&1 || missing="$missing nodejs"
[ "${1:-build}" != test ] || command -v npm >/dev/null 2>&1 || missing="$missing npm"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then root=; else root=sudo; fi
case "$missing" in *" postfix"*)
    if dpkg-query -W -f='${Status} ${Package}\n' exim4-daemon-light exim4-daemon-heavy opensmtpd sendmail-bin 2>/dev/null |
        grep -q '^install ok installed'; then
        echo "setup: the tests need Debian's Postfix, but another mail server is installed and would be" >&2
        echo "setup: removed.  Run the tests on another machine, or remove it yourself first." >&2
        exit 1
    fi ;;
esac

echo "setup: installing with apt-get:$missing"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee $policy >/dev/null
    $root chmod 755 $policy
    trap '$root rm -f $policy' EXIT INT TERM
fi
# shellcheck disable=SC2086
install() { $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; }
log=$(mktemp)
install >"$log" 2>&1 || { $root apt-get update -q >>"$log" 2>&1 && install >>"$log" 2>&1; } || {
    cat "$log" >&2
    echo "setup: apt-get could not install:$missing" >&2
    exit 1
}
rm -f "$log"
