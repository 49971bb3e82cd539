#![no_main]
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "of the tests' modules only the comparison is used"
)]

use libfuzzer_sys::fuzz_target;

#[path = "../../parsers/chunks.rs"]
mod chunks;
#[path = "../../parsers/mutate.rs"]
mod mutate;

fuzz_target!(|data: &[u8]| {
    if let Some((cuts, bytes)) = data.split_first_chunk::<3>() {
        chunks::compare(bytes, &cuts.map(usize::from));
    }
});
