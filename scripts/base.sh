#!/bin/sh
# Builds an older commit beside this tree, for comparing speed, and prints the path of its posthoused.
#   scripts/base.sh COMMIT
set -eu
commit=$(git rev-parse --short --verify "$1^{commit}")
top=build-base/$commit
if [ ! -x "$top/build/src/posthoused" ]; then
    mkdir -p "$top"
    git archive "$commit" | tar -x -C "$top"
    meson setup "$top/build" "$top" >&2
    ninja -C "$top/build" src/posthoused >&2
fi
echo "$PWD/$top/build/src/posthoused"
