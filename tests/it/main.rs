//! The integration tests: one binary, one file per behaviour.

mod support;
mod support_works;
