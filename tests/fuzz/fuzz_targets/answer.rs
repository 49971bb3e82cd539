#![no_main]
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "of the tests' modules only the comparison is used"
)]

use libfuzzer_sys::fuzz_target;

#[path = "../../parsers/answers.rs"]
mod answers;
#[path = "../../parsers/mutate.rs"]
mod mutate;
#[path = "../../parsers/wire.rs"]
mod wire;

fuzz_target!(|data: &[u8]| {
    if let Some((cuts, bytes)) = data.split_first_chunk::<3>() {
        let method = ["POST", "GET", "HEAD"][usize::from(cuts[0]) % 3];
        answers::compare(bytes, &cuts.map(usize::from), method);
    }
});
