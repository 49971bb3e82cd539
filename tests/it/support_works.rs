//! The test support holds what it promises, with nothing between its client and its server. When
//! one of these fails, no other integration test can be believed.

mod faults;
mod life;
mod session_era;
mod stateless_era;
mod wires;
