#!/usr/bin/env bash
# Counts instructions under Valgrind, and prints one line for each thing counted. Installs the runner
# that belongs to the library, once.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "please install valgrind" >&2
    exit 1
fi
version=$(sed -n '/^name = "gungraun"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
root=.cache/gungraun-$version
if [ ! -x "$root/bin/gungraun-runner" ]; then
    echo "installing gungraun-runner $version into $root" >&2
    cargo install gungraun-runner --version "$version" --root "$root" --quiet
fi
PATH=$PWD/$root/bin:$PATH cargo bench --bench instructions -- "$@" |
    awk '/^instructions::/ { name = $1 " " $2; sub(/^instructions::[a-z_]*::/, "", name); sub(/:\(.*/, "", name) }
         /Instructions:/ { split($2, count, "|"); printf "%-36s %12d\n", name, count[1] }'
