#!/usr/bin/env bash
# Boots a real systemd in a folder and has it run the units (inside.py): `run.sh [BINARY]`. It needs root and
# Debian, installs what it lacks, and keeps the folder of the first run in .cache/. Only loopback of its own
# network is used.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=${1:-target/debug/tidegate}
base=.cache/systemd-root
packages=systemd,systemd-sysv,dbus,curl,iproute2,logrotate,python3
patience=300

if [ "$(id -u)" != 0 ]; then
    echo "test-systemd: needs root, to boot a system in a folder" >&2
    exit 1
fi
missing=()
command -v debootstrap >/dev/null || missing+=(debootstrap)
command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
if [ ${#missing[@]} -gt 0 ]; then
    echo "test-systemd: installing ${missing[*]} (Debian packages)" >&2
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ "$(cat $base/complete 2>/dev/null)" != "$packages" ]; then
    echo "test-systemd: making a Debian system in $base" >&2
    mkdir -p .cache
    rm -rf $base
    debootstrap --variant=minbase --include=$packages bookworm $base >$base.log || { tail $base.log; exit 1; }
    chroot $base apt-get clean
    echo $packages >$base/complete
fi

# Each run has a system of its own.
root=$(mktemp -d "$PWD/.cache/systemd-run.XXXX")
tail_pid=
finish() {
    if [ -n "$tail_pid" ]; then kill "$tail_pid" 2>/dev/null || true; fi
    rm -rf --one-file-system "$root"
}
trap finish EXIT
cp -a $base/. "$root"
install -D -m 644 -t "$root/tests" tests/systemd/*.py
# Two packages that differ in nothing but their number.
install -D "$binary" "$root/tests/target/release/tidegate"
for number in 1 2; do
    CARGO_TARGET_DIR=$root/tests/target tools/deb.sh --no-build --fast --quiet \
        --deb-version "0.0.0-$number" --output "$root/tests/$number.deb" >/dev/null
done
install -m 644 tests/systemd/tests.service "$root/etc/systemd/system/tests.service"
: >"$root/tests/said"
tail -f "$root/tests/said" &
tail_pid=$!

mkdir -p /run/systemd/nspawn
if ! timeout --kill-after=10 $patience systemd-nspawn --quiet --boot --register=no --keep-unit \
    --private-network --link-journal=no --console=pipe --machine="tidegate-tests-$$" \
    --directory="$root" systemd.unit=tests.service </dev/null >"$root/tests/boot" 2>&1; then
    tail -n 20 "$root/tests/boot" >&2
    echo "test-systemd: FAILED" >&2
    exit 1
fi
sleep 0.2
echo "test-systemd: all passed"
