#!/bin/sh
# Installs the test peers into a cache folder: two Python environments, Node 22 and the npm
# packages of package.json. Run it again at will: when nothing changed it returns at once.
#
#   TIDEGATE_TEST_CACHE   where to install; default <repository>/.cache/sdk
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
cache=${TIDEGATE_TEST_CACHE:-$repo/.cache/sdk}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)

say() { printf 'sdk setup: %s\n' "$*"; }
die() { printf 'sdk setup: %s\n' "$*" >&2; exit 1; }

command -v python3 >/dev/null || die "python3 is missing (Debian: apt-get install python3 python3-venv)"
command -v npm >/dev/null || die "npm is missing (Debian: apt-get install npm)"

# The stamp is the hash of everything that decides what gets installed.
inputs="setup.sh package.json package-lock.json .npmrc requirements.txt requirements-1.x.txt"
want=$( (cd "$here" && cat $inputs && python3 --version && uname -sm) | sha256sum | cut -d' ' -f1)

# The browser of the console's tests, by its Debian package.
browser() {
    [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "chromium is missing; installing its package"
        apt-get update -q && apt-get install -y -q --no-install-recommends chromium
    else
        die "chromium is missing (Debian: apt-get install chromium; elsewhere: its path in CHROMIUM)"
    fi
}
browser

# Node resolves packages from the script's own folder upwards, hence this link.
link() {
    if [ "$(readlink "$here/node_modules" 2>/dev/null || true)" != "$cache/js/node_modules" ]; then
        rm -rf "$here/node_modules"
        ln -s "$cache/js/node_modules" "$here/node_modules"
    fi
}

if [ "$(cat "$cache/stamp" 2>/dev/null || true)" = "$want" ]; then
    link
    say "up to date in $cache"
    exit 0
fi

# Two runs at once must not install over one another.
exec 9>"$cache/lock"
flock 9
if [ "$(cat "$cache/stamp" 2>/dev/null || true)" = "$want" ]; then
    link
    say "up to date in $cache"
    exit 0
fi
rm -f "$cache/stamp"
echo '*' >"$cache/.gitignore"

venv() { # venv FOLDER REQUIREMENTS
    say "python: $(grep '^mcp==' "$here/$2") into $1"
    rm -rf "${cache:?}/$1"
    if ! python3 -m venv "$cache/$1" >"$cache/venv.log" 2>&1; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "python3 -m venv does not work here; installing the package python3-venv"
            apt-get update -q && apt-get install -y -q python3-venv
            rm -rf "${cache:?}/$1"
            python3 -m venv "$cache/$1"
        else
            cat "$cache/venv.log" >&2
            die "python3 -m venv does not work (Debian: apt-get install python3-venv)"
        fi
    fi
    "$cache/$1/bin/pip" install --quiet --disable-pip-version-check -r "$here/$2"
}

venv py requirements.txt
venv py1 requirements-1.x.txt

say "node 22 and npm packages into js"
rm -rf "$cache/js"
mkdir -p "$cache/js"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$cache/js/"
# The check of engines looks at the Node that runs npm, not at the Node 22 that will run the tests.
(cd "$cache/js" && npm ci --loglevel=error)

node=$cache/js/node_modules/.bin/node
case $("$node" --version) in
    v22.*) ;;
    *) die "expected Node 22 at $node" ;;
esac
link
printf '%s\n' "$want" >"$cache/stamp"
say "node $("$node" --version), conformance $("$node" "$cache/js/node_modules/.bin/conformance" --version), installed in $cache"
