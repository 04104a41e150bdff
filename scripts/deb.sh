#!/bin/sh
# Builds the Debian packages from the source archive, into build/deb.
#   scripts/deb.sh
set -eu
archive=$(sh scripts/dist.sh)
name=$(basename "$archive" .tar.gz)
rm -rf build/deb
mkdir -p build/deb
tar -xzf "$archive" -C build/deb
cp -r "build/deb/$name/packaging/debian" "build/deb/$name/debian"
(cd "build/deb/$name" && dpkg-buildpackage -us -uc -b -rfakeroot) >build/deb/build.log 2>&1 || {
    tail -40 build/deb/build.log >&2
    exit 1
}
rm -rf "build/deb/$name"
ls build/deb/*.deb
