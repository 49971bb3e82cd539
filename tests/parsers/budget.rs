//! How long a property is tried.

use std::time::{Duration, Instant};

use proptest::prelude::ProptestConfig;

/// Seconds that each property is tried with ever new inputs. Without it, a fixed number of them.
const SECONDS: &str = "TIDEGATE_FUZZ_SECONDS";

/// Inputs between two looks at the clock.
const ROUND: u32 = 500;

/// Tries a property with so many inputs, or for as long as the environment says.
#[allow(
    clippy::disallowed_methods,
    reason = "a test may know what time it is, whatever it tests"
)]
pub(crate) fn spend(cases: u32, mut property: impl FnMut(ProptestConfig)) {
    let config = |cases| ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let Ok(seconds) = std::env::var(SECONDS) else {
        return property(config(cases));
    };
    let seconds = seconds.parse().expect("a number of seconds");
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        property(config(ROUND));
    }
}
