#!/bin/sh
# Builds the Debian packages from the source archive: those of this system into build/deb or, as root, those of another
# release of Debian into build/deb-RELEASE, in a root that debootstrap makes once.
#   scripts/deb.sh [RELEASE]
# A root is kept in /var/tmp/posthouse-roots and stays as debootstrap left it: what is built there is written above it.
set -eu
release=${1:-}
out=build/deb${release:+-$release}
roots=/var/tmp/posthouse-roots
archive=$(sh scripts/dist.sh)
name=$(basename "$archive" .tar.gz)

# Unpacks the archive below the folder $1 as a Debian source tree.
unpack() {
    tar -xzf "$archive" -C "$1"
    cp -r "$1/$name/packaging/debian" "$1/$name/debian"
}

base_root() {
    [ ! -x "$roots/$release/usr/bin/apt-get" ] || return 0
    command -v debootstrap >/dev/null || apt-get install -y -q --no-install-recommends debootstrap >/dev/null
    mkdir -p "$roots"
    rm -rf "$roots/$release.part"
    echo "deb: making a root of $release (some minutes)"
    debootstrap --include=systemd,systemd-sysv,dbus,ca-certificates "$release" "$roots/$release.part" >"$roots/$release.log" 2>&1 || {
        tail -3 "$roots/$release.log" >&2
        echo "deb: debootstrap could not make $release (all of it: $roots/$release.log)" >&2
        exit 1
    }
    mv "$roots/$release.part" "$roots/$release"
}

build_in_root() {
    base_root
    above=$(mktemp -d "$roots/build.XXXXXX")
    trap 'umount -l "$above/root/proc" "$above/root" 2>/dev/null; rm -rf --one-file-system "$above"' EXIT INT TERM
    mkdir "$above/up" "$above/work" "$above/root"
    mount -t overlay overlay -o "lowerdir=$roots/$release,upperdir=$above/up,workdir=$above/work" "$above/root"
    mount -t proc proc "$above/root/proc"
    mkdir "$above/root/build"
    unpack "$above/root/build"
    cp -r /etc/apt/apt.conf.d "$above/root/etc/apt/"
    cp /etc/resolv.conf "$above/root/etc/resolv.conf"
    chroot "$above/root" sh -ec "cd /build/$name
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        keep=-oDpkg::Options::=--force-confold  # apt.conf.d has files of this machine's packages
        apt-get install \$keep -y -q --no-install-recommends build-essential fakeroot lintian
        apt-get build-dep \$keep -y -q ./
        dpkg-buildpackage -us -uc -b -rfakeroot
        lintian --allow-root --fail-on error,warning ../*.changes" >"$out/build.log" 2>&1 || return 1
    cp "$above"/root/build/*.deb "$out/"
}

build_here() {
    unpack "$out"
    (cd "$out/$name" && dpkg-buildpackage -us -uc -b -rfakeroot) >"$out/build.log" 2>&1 || return 1
    rm -rf "${out:?}/$name"
}

rm -rf "$out"
mkdir -p "$out"
if [ -n "$release" ]; then build=build_in_root; else build=build_here; fi
$build || {
    tail -40 "$out/build.log" >&2
    exit 1
}
ls "$out"/*.deb
