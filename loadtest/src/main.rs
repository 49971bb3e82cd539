//! A small load tool for MCP servers and gateways, and the mock server to stand behind them.
//!
//! It answers three questions: how many event streams can be held, with what delay and at what
//! price (`hold`); how fast calls are answered at a given rate (`calls`); and what the tool itself
//! can do at most, measured against its own server (`mock`). README.md beside it says how to read
//! the numbers.
//!
//! Two rules make them honest. A call is sent, or counted as late, at a time fixed beforehand,
//! whether or not earlier replies have come. And the tool reports its own use of CPU, so that a
//! reader sees when the tool was the limit.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod caller;
mod calls;
mod conn;
mod hist;
mod hold;
mod http;
mod line;
mod mcp;
mod mock;
mod options;
mod pacer;
mod report;
mod resources;
mod schedule;
mod socket;
mod sse;
mod stream;
mod target;
mod threads;
mod track;
mod websocket;

#[derive(Parser)]
#[command(
    name = "loadtest",
    version,
    about = "Open-loop load on MCP servers and gateways; loopback only"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a fast MCP server of both eras that sends events on every open stream
    Mock(mock::Options),
    /// Open sessions with their event streams, hold them, and measure what arrives
    Hold(hold::Options),
    /// Send calls at a fixed rate, or as fast as they are answered
    Calls(calls::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Mock(options) => mock::run(options),
        Command::Hold(options) => hold::run(options),
        Command::Calls(options) => calls::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("loadtest: {problem}");
            ExitCode::FAILURE
        }
    }
}
