#!/bin/sh
# The cases of tests/compat, given to the Postfix of Debian 13 (make compat-13).  Arguments are pytest's.
# The random dialogues are left out: what they may draw is known of 3.7 alone.
# Debian 13 is made by debootstrap in build-debian13/, once, from apt's mirror; it costs some 300 MB, and needs root.
set -eu
cd "$(dirname "$0")/.."
root=$PWD/build-debian13
packages=postfix,postfix-pcre,postfix-cdb,postfix-lmdb,postfix-sqlite,libsasl2-modules,perl,procps

if [ "$(id -u)" != 0 ]; then
    exec sudo -n -E sh "$0" "$@"
fi
# A Debian 13 that was made with other packages is made again.
if [ "$(cat "$root/packages" 2>/dev/null)" != "$packages" ]; then
    if ! command -v debootstrap >/dev/null && ! apt-get install -y -q --no-install-recommends debootstrap >/dev/null; then
        echo "compat-13: debootstrap is needed, and apt-get could not install it" >&2
        exit 2
    fi
    # The mirror that apt has this system's own Debian from.
    mirror=${MIRROR:-$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n 's/^Debian //p' | head -1)}
    if [ -z "$mirror" ]; then
        echo "compat-13: apt knows no mirror of Debian (apt-get update); MIRROR=… names one" >&2
        exit 2
    fi
    rm -rf "$root" "$root.part"
    echo "compat-13: making Debian 13 in $root"
    debootstrap --variant=minbase --include="$packages" trixie "$root.part" "$mirror" >"$root.log" 2>&1 || {
        tail -3 "$root.log" >&2
        echo "compat-13: Debian 13 could not be had from $mirror (all of it: $root.log); MIRROR=… names another" >&2
        exit 2
    }
    echo "$packages" >"$root.part/packages"
    mv "$root.part" "$root"
fi
chroot "$root" postconf mail_version
# The binds are in a namespace of their own, and go with it.
exec unshare -m sh -c 'for d in /tmp /dev /proc; do mount --rbind $d "$0$d" || exit 2; done
    POSTFIX_ROOT=$0 exec /usr/bin/python3 -m pytest -q --tb=short -p no:cacheprovider "$@"' "$root" "${@:-tests/compat}" --ignore=tests/compat/dialogues
