#!/bin/sh
# Makes a root of a release of Debian, once: packages are built and tried above it.  It gets to packages as this machine
# does: by the settings of apt that belong to no package (those of packages ask for indexes that only they want).  As root.
#   scripts/root.sh FOLDER RELEASE [OPTION of debootstrap ...]     without: a system that systemd can start
set -eu
root=$1 release=$2
shift 2
[ $# -gt 0 ] || set -- --include=systemd,systemd-sysv,dbus,ca-certificates

ways() {
    for file in /etc/apt/apt.conf.d/*; do
        dpkg-query -S "$file" >/dev/null 2>&1 || cp "$file" "$root/etc/apt/apt.conf.d/"
    done
    cp /etc/resolv.conf "$root/etc/resolv.conf"
}

if [ -x "$root/usr/bin/apt-get" ]; then
    ways
    exit 0
fi
command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap >/dev/null
mkdir -p "$(dirname "$root")"
rm -rf "$root.part"
echo "root: making $release in $root (some minutes)"
debootstrap "$@" "$release" "$root.part" >"$root.log" 2>&1 || {
    tail -3 "$root.log" >&2
    echo "root: debootstrap could not make $release (all of it: $root.log)" >&2
    exit 1
}
mv "$root.part" "$root"
ways
