#!/usr/bin/env bash
# Builds the release binary with a profile of its own load, into pgo/tidegate where Cargo builds: the
# compiler then knows which way of a branch is taken and what belongs side by side. A quarter
# less CPU for a call (docs/tuning.md).
#
#   1. an instrumented build
#   2. the load test runs it, alone, for two minutes
#   3. a build with what was counted
#
# The profile is only right for this source and this compiler, so it is made anew every time, in some
# twenty minutes on two cores. `tools/setup.sh --pgo` and loadtest/setup.sh must have run.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}/pgo
counts=$target/counts
host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
export CARGO_TARGET_DIR=$target
TIDEGATE_COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || true)
export TIDEGATE_COMMIT

say() { printf 'pgo: %s\n' "$*" >&2; }

# Only what is for the host is instrumented: not the build scripts, which run here.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --release --bin tidegate --target "$host"
}

built=$target/$host/release/tidegate

say "1 of 3: the instrumented build"
build "-Cprofile-generate=$counts"

say "2 of 3: two minutes of load"
rm -rf "$counts"
LLVM_PROFILE_FILE="$counts/%p-%m.profraw" loadtest/run.py --tidegate "$built" --proxies tidegate \
    --only stateless,session,streaming,churn,held-2000,bodies,websocket,tls,access-log \
    --rounds 1 --seconds 2 --results "$target/trained" >"$target/trained.log" ||
    { tail -n 20 "$target/trained.log" >&2; exit 1; }
"llvm-profdata-$llvm" merge -o "$target/counts.profdata" "$counts"/*.profraw
rm -rf "$counts"

say "3 of 3: the build with what was counted"
build "-Cprofile-use=$target/counts.profdata"
install -m 755 "$built" "$target/tidegate"
say "built $target/tidegate"
