//! Test client on the official Rust SDK, `rmcp`: many sessions, each of which checks that its calls
//! are answered by one server and counted there without a gap.
//!
//! ```sh
//! cargo run --example rmcp_client -- --url http://127.0.0.1:8080/mcp --sessions 50 --calls 3
//! ```
//!
//! Prints one line of JSON; the exit code is 0 when all was well. Arguments and report are those of
//! the clients in `tests/sdk/` for the other SDKs, so that one program can run them all. The server
//! must offer their tools: `whoami` names it, `counter` counts its calls within a session, `echo`
//! answers with its text.
//!
//! The SDK opens a new session by itself when the server says that the old one is gone (404). That
//! is left on, as applications have it: a session that was lost shows as a count that began anew.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{Peer, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};

/// Errors listed in the report; the rest is only counted.
const ERRORS_MAX: usize = 20;

#[derive(Parser)]
#[command(about = "Test client on the Rust SDK rmcp")]
struct Args {
    #[arg(long)]
    url: String,
    /// How many clients, one after another
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    sessions: u64,
    /// How many of them at a time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    concurrency: u64,
    /// How many times each client calls each tool
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    calls: u64,
    /// Of connecting, and of one call, in milliseconds
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    #[arg(long, value_enum, default_value = "legacy")]
    mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// The session era, the default of this SDK
    Legacy,
    /// Probe with `server/discover`, then whichever era the server has
    Auto,
    /// 2026-07-28 or nothing
    Modern,
}

impl Mode {
    fn lifecycle(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match self {
            Self::Legacy => ClientLifecycleMode::Initialize,
            Self::Auto => ClientLifecycleMode::Auto {
                preferred_versions,
                legacy_version: None,
            },
            Self::Modern => ClientLifecycleMode::Discover { preferred_versions },
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Arc::new(Args::parse());
    let report = Arc::new(Mutex::new(Report::default()));
    let next = Arc::new(AtomicU64::new(1));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..args.concurrency.min(args.sessions) {
        let (args, report, next) = (args.clone(), report.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let session = next.fetch_add(1, Ordering::Relaxed);
                if session > args.sessions {
                    return;
                }
                if let Err(failure) = one(&args, session, &report).await {
                    with(&report, |report| report.fail(session, failure));
                }
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            with(&report, |report| {
                report.fail(0, Failure::of("JoinError", error))
            });
        }
    }
    let (line, ok) = with(&report, |report| report.told(args.sessions));
    #[expect(
        clippy::print_stdout,
        reason = "the report is what this program is for"
    )]
    {
        println!("{line}");
    }
    ExitCode::from(u8::from(!ok))
}

/// One client, from connecting to closing.
async fn one(args: &Args, session: u64, report: &Mutex<Report>) -> Result<(), Failure> {
    let limit = Duration::from_millis(args.timeout);
    let transport = StreamableHttpClientTransport::from_uri(args.url.as_str());
    let connecting = ().serve_with_lifecycle(transport, args.mode.lifecycle());
    let client: RunningService<RoleClient, ()> = tokio::time::timeout(limit, connecting)
        .await
        .map_err(|late| Failure::of("Timeout", late))?
        .map_err(|error| Failure::of("ClientInitializeError", error))?;
    let version = client
        .peer_info()
        .map(|info| info.protocol_version.to_string())
        .unwrap_or_default();
    // Dates compare as text.
    let in_session = version.as_str() < "2026";
    with(report, |report| {
        *report.versions.entry(version).or_default() += 1
    });
    let called = calls(args, session, &client, in_session, report).await;
    // Also ends the session on the server.
    let closed = client.cancel().await;
    called?;
    closed.map_err(|error| Failure::of("JoinError", error))?;
    with(report, |report| report.sessions += 1);
    Ok(())
}

async fn calls(
    args: &Args,
    session: u64,
    client: &Peer<RoleClient>,
    in_session: bool,
    report: &Mutex<Report>,
) -> Result<(), Failure> {
    let limit = Duration::from_millis(args.timeout);
    let ask = async |params: CallToolRequestParams| {
        let text = tokio::time::timeout(limit, text(client, params)).await;
        let text = text.map_err(|late| Failure::of("Timeout", late))??;
        with(report, |report| report.calls += 1);
        Ok::<_, Failure>(text)
    };
    let mut names = BTreeSet::new();
    for call in 1..=args.calls {
        let word = format!("{session}/{call}/é");
        let (first, expected) = if in_session {
            (CallToolRequestParams::new("counter"), call.to_string())
        } else {
            let echo = json!({ "text": word })
                .as_object()
                .cloned()
                .unwrap_or_default();
            (
                CallToolRequestParams::new("echo").with_arguments(echo),
                word,
            )
        };
        // Two at once, so that replies can cross.
        let (counted, name) = tokio::join!(ask(first), ask(CallToolRequestParams::new("whoami")));
        let (counted, name) = (counted?, name?);
        with(report, |report| {
            *report.names.entry(name.clone()).or_default() += 1;
            if counted != expected {
                report.fail(
                    session,
                    Failure::of("Wrong", format!("expected {expected}, got {counted}")),
                );
            }
        });
        names.insert(name);
    }
    if in_session && names.len() > 1 {
        let names: Vec<_> = names.into_iter().collect();
        return Err(Failure::of(
            "Wrong",
            format!("answered by {}", names.join(", ")),
        ));
    }
    Ok(())
}

/// Calls a tool and returns the text it answers with.
async fn text(client: &Peer<RoleClient>, params: CallToolRequestParams) -> Result<String, Failure> {
    let result = client.call_tool(params).await?;
    let text = result
        .content
        .first()
        .and_then(|content| content.as_text())
        .map(|content| content.text.clone());
    match (text, result.is_error) {
        (Some(text), None | Some(false)) => Ok(text),
        (text, _) => Err(Failure::of("ToolError", text.unwrap_or_default())),
    }
}

/// What went wrong, as it is reported.
struct Failure {
    name: &'static str,
    /// Of a JSON-RPC error.
    code: Option<i32>,
    message: String,
}

impl Failure {
    fn of(name: &'static str, error: impl std::fmt::Display) -> Self {
        Self {
            name,
            code: None,
            message: error.to_string().chars().take(300).collect(),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let code = if let ServiceError::McpError(data) = &error {
            Some(data.code.0)
        } else {
            None
        };
        Self {
            code,
            ..Self::of("ServiceError", error)
        }
    }
}

#[derive(Default)]
struct Report {
    /// Ended well, that is: opened, every call answered, closed.
    sessions: u64,
    calls: u64,
    errors: Vec<Value>,
    error_count: u64,
    names: BTreeMap<String, u64>,
    versions: BTreeMap<String, u64>,
}

impl Report {
    fn fail(&mut self, session: u64, failure: Failure) {
        self.error_count += 1;
        if self.errors.len() < ERRORS_MAX {
            let Failure {
                name,
                code,
                message,
            } = failure;
            self.errors.push(
                json!({ "session": session, "name": name, "code": code, "message": message }),
            );
        }
    }

    /// The line to print, and whether all was well.
    fn told(&self, asked: u64) -> (Value, bool) {
        let ok = self.error_count == 0 && self.sessions == asked;
        let line = json!({
            "sessions": self.sessions, "calls": self.calls, "errors": self.errors,
            "errorCount": self.error_count, "names": self.names, "versions": self.versions, "ok": ok,
        });
        (line, ok)
    }
}

fn with<T>(report: &Mutex<Report>, then: impl FnOnce(&mut Report) -> T) -> T {
    then(&mut report.lock().unwrap_or_else(PoisonError::into_inner))
}
