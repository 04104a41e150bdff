#!/bin/sh
# Builds the Debian packages from the source archive: those of this system into build/deb or, as root, those of another
# release of Debian into build/deb-RELEASE, in a root that debootstrap makes once.
#   scripts/deb.sh [RELEASE]
# A root is kept in /var/tmp/posthouse-roots (scripts/root.sh); what is built there is written above it.
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

build_in_root() {
    sh scripts/root.sh "$roots/$release" "$release" || exit 1
    above=$(mktemp -d "$roots/build.XXXXXX")
    trap 'umount -l "$above/root/proc" "$above/root" 2>/dev/null; rm -rf --one-file-system "$above"' EXIT INT TERM
    mkdir "$above/up" "$above/work" "$above/root"
    mount -t overlay overlay -o "lowerdir=$roots/$release,upperdir=$above/up,workdir=$above/work" "$above/root"
    mount -t proc proc "$above/root/proc"
    mkdir "$above/root/build"
    unpack "$above/root/build"
    chroot "$above/root" sh -ec "cd /build/$name
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -y -q --no-install-recommends build-essential fakeroot lintian
        apt-get build-dep -y -q ./
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
