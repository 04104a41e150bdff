#!/bin/sh
# Makes build/posthouse-VERSION.tar.gz: the source with the built page, for machines without git, node or a network.
#   scripts/dist.sh
set -eu
version=$(sed -n "s/^project('posthouse', 'c', version: '\([^']*\)'.*/\1/p" meson.build)
name=posthouse-$version
rm -rf "build/$name"
mkdir -p "build/$name"
# Without git, in such an archive, everything but what was built belongs to it.
if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -co --exclude-standard | tar -cf - -T - | tar -xf - -C "build/$name"
else
    tar -cf - --exclude=./build --exclude='./build-*' --exclude=./web/node_modules . | tar -xf - -C "build/$name"
fi
tar -czf "build/$name.tar.gz" --owner=0 --group=0 --sort=name -C build "$name"
rm -rf "build/$name"
echo "build/$name.tar.gz"
