#!/usr/bin/env bash
# What systemd thinks of the units, as `make install` writes them. Nothing is started. Takes a second.
set -euo pipefail
cd "$(dirname "$0")/../.."

# In tenths. What is above 1.0 comes from having a network at all, and one capability for ports under 1024.
exposure_max=20

if ! command -v systemd-analyze >/dev/null; then
    echo "units: SKIPPED, systemd-analyze is not installed"
    exit 0
fi

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
# Any program will do; it only has to be there.
make --silent install BINARY=/bin/true PREFIX="$tree/usr" SYSCONFDIR="$tree/etc" DESTDIR=
units=$tree/usr/lib/systemd/system

# Unknown keys are told and no failure, and the man page is not where man looks.
said=$(systemd-analyze verify --man=no "$units/tidegate.service" "$units/tidegate.socket" 2>&1) || said+=" (failed)"
if [ -n "$said" ]; then
    echo "units: $said" >&2
    exit 1
fi
if ! report=$(systemd-analyze security --no-pager --offline=true --threshold=$exposure_max "$units/tidegate.service" 2>&1); then
    grep -v '^✓' <<<"$report" >&2
    exit 1
fi
systemd-sysusers --dry-run "$tree/usr/lib/sysusers.d/tidegate.conf" >/dev/null 2>&1
echo "units: ok, $(grep -o 'Overall exposure.*: [0-9.]*' <<<"$report")"
