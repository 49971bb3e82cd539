#!/usr/bin/env bash
# Makes the Debian package with cargo-deb, which is installed into .cache/ the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

deb=$PWD/.cache/cargo/bin/cargo-deb
if [ ! -x "$deb" ]; then
    echo "deb: installing cargo-deb into .cache/cargo" >&2
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --root .cache/cargo cargo-deb
fi
"$deb" "$@"
