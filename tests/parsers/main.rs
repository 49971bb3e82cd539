//! Our HTTP/1.1 against Pingora's: the same bytes, in the same pieces, must mean the same to both.
//!
//! What we accept, Pingora accepts, and reads the same out of it. The other way round we may refuse,
//! for a reason that can be seen in the bytes. What follows from that for a whole exchange is looked
//! at over loopback, with the worker in this process.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod answers;
mod budget;
mod chunks;
mod corpus;
mod doubtful;
mod gate;
mod mutate;
mod requests;
mod smuggling;
mod wire;
