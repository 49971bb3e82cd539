#!/bin/sh
# Fuzzes the parsers for TIDEGATE_FUZZ_SECONDS each (an hour unless set): with libFuzzer where a nightly
# compiler and cargo-fuzz are there, else with the property tests.
set -eu
cd "$(dirname "$0")/../.."
: "${TIDEGATE_FUZZ_SECONDS:=3600}"
export TIDEGATE_FUZZ_SECONDS
if cargo +nightly fuzz --version >/dev/null 2>&1; then
    for target in head answer chunks; do
        cargo +nightly fuzz run "$target" --fuzz-dir tests/fuzz --target-dir .cache/fuzz -- \
            -max_total_time="$TIDEGATE_FUZZ_SECONDS" -max_len=65536
    done
else
    echo "no cargo-fuzz for a nightly compiler: the property tests, $TIDEGATE_FUZZ_SECONDS seconds each"
fi
cargo test --quiet --test parsers -- properties
cargo test --quiet --lib -- peek::tests::properties
