#!/bin/sh
# Installs what the checks of monitoring need into a cache folder: Prometheus and promtool out of Debian's
# package, which is unpacked and not installed, so that no service of it starts; and a Python environment.
# Run it again at will: when nothing changed it returns at once.
#
#   TIDEGATE_MONITORING_CACHE   where to install; default <repository>/.cache/monitoring
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
cache=${TIDEGATE_MONITORING_CACHE:-$repo/.cache/monitoring}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)

say() { printf 'monitoring setup: %s\n' "$*"; }
die() { printf 'monitoring setup: %s\n' "$*" >&2; exit 1; }

command -v python3 >/dev/null || die "python3 is missing (Debian: apt-get install python3 python3-venv)"
want=$( (cd "$here" && cat setup.sh requirements.txt && python3 --version && uname -sm) | sha256sum | cut -d' ' -f1)

# Two runs at once must not install over one another.
exec 9>"$cache/lock"
flock 9
if [ "$(cat "$cache/stamp" 2>/dev/null || true)" = "$want" ]; then
    say "up to date in $cache"
    exit 0
fi
rm -f "$cache/stamp"
echo '*' >"$cache/.gitignore"

# One that is installed will do.
fetch() {
    command -v apt-get >/dev/null || die "please install prometheus and promtool"
    say "fetching Debian's package prometheus"
    rm -rf "$cache/deb" "$cache/prometheus"
    mkdir -p "$cache/deb"
    if ! (cd "$cache/deb" && apt-get download -qq prometheus) >"$cache/apt.log" 2>&1; then
        # The lists of packages may be missing or old.
        if [ "$(id -u)" = 0 ]; then apt-get update -qq >/dev/null; else sudo apt-get update -qq >/dev/null; fi
        (cd "$cache/deb" && apt-get download -qq prometheus) >"$cache/apt.log" 2>&1 || { cat "$cache/apt.log" >&2; die "cannot fetch prometheus"; }
    fi
    dpkg -x "$cache"/deb/prometheus_*.deb "$cache/prometheus"
    rm -rf "$cache/deb"
}

rm -rf "$cache/bin"
mkdir -p "$cache/bin"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    found=$(dirname "$(command -v prometheus)")
else
    fetch
    found=$cache/prometheus/usr/bin
fi
ln -s "$found/prometheus" "$found/promtool" "$cache/bin/"

say "python environment"
rm -rf "$cache/py"
python3 -m venv "$cache/py" || die "python3 -m venv does not work (Debian: apt-get install python3-venv)"
"$cache/py/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"

printf '%s\n' "$want" >"$cache/stamp"
say "$("$cache/bin/promtool" --version 2>&1 | head -n 1 | cut -d' ' -f1-3) in $cache"
