//! The admin socket, the API and the commands on top of it, as an operator meets them.

mod access;
mod console;
mod drain;
mod errors;
mod events;
mod kept;
mod process;
mod rows;
mod sessions;
mod verbs;
mod watch;

use std::process::Output;

use serde_json::Value;

use crate::support::{Endpoint, Tidegate};

/// What a request that changes something has to have at the address.
const ASKED: (&str, &str) = ("x-tidegate-request", "1");

/// What a command says on either stream.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// An endpoint of the pool `main`, as `tidegate status` shows it.
async fn shown(gate: &Tidegate, name: &str) -> Value {
    let status = gate.ask(&["status"]).await;
    let endpoints = status["pools"][0]["endpoints"].as_array();
    let mut endpoints = endpoints.expect("endpoints").iter();
    let found = endpoints.find(|endpoint| endpoint["name"] == name);
    found.expect("one of this name").clone()
}

async fn pair() -> (Endpoint, Endpoint) {
    (Endpoint::start("a").await, Endpoint::start("b").await)
}
