//! How much of something one client may have, or all of them together.
//!
//! Rates are token buckets ([`Rate`], [`Bucket`], [`Buckets`]), numbers at once are counts
//! ([`Counts`], [`Cap`]) that a guard gives back. All of it is arithmetic: time comes in as
//! nanoseconds since some moment of the caller's choice, and what a limit is for is not known here.
//!
//! Everything is bounded. A count is kept for as long as there is something to count, so there are
//! never more counts than things; a bucket that is full again is as good as none, and is forgotten.

pub mod bucket;
pub mod buckets;
pub mod cap;
pub mod client;
pub mod counts;
pub mod pattern;

pub use bucket::{Bucket, Rate};
pub use buckets::{Buckets, Taken};
pub use cap::{Cap, CapGuard};
pub use client::Client;
pub use counts::{Counted, Counts};
pub use pattern::Pattern;
