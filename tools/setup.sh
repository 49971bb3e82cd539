#!/usr/bin/env bash
# Installs what the build needs and this machine lacks, and says so; with --tests what the tests need as
# well, with --pgo what a build with a profile does. Does nothing the second time.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        say "cannot install without root: please run as root: $*"
        exit 1
    fi
}

install() {
    if ! command -v apt-get >/dev/null; then
        say "please install: $*"
        exit 1
    fi
    say "installing $* (Debian packages)"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! command -v cargo >/dev/null; then
    say "Rust is missing: install it with rustup, then run this again"
    exit 1
fi

missing=()
# Pingora compresses with zlib-ng, whose build wants cmake and a C compiler.
command -v cmake >/dev/null || missing+=(cmake)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
# The authority that the tests of ordered certificates order from.
[ "${1:-}" != --tests ] || command -v pebble >/dev/null || missing+=(pebble)
# The terminal that the tests of `tidegate top` sit before.
[ "${1:-}" != --tests ] || command -v tmux >/dev/null || missing+=(tmux)
# A profile is in the format of the compiler's own LLVM: that of another version may be another one.
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
[ "${1:-}" != --pgo ] || command -v "llvm-profdata-$llvm" >/dev/null || missing+=("llvm-$llvm")
if [ ${#missing[@]} -gt 0 ]; then install "${missing[@]}"; fi

for component in rustfmt clippy; do
    if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
        say "installing the Rust component $component"
        rustup component add "$component"
    fi
done
