//! The commands that talk to a running process.
//!
//! Exit status: 0 done; 1 the process refused, or what was waited for did not come; 2 the command line
//! is wrong; 3 the process could not be reached.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, Error, escape};
use super::sessions::Sessions;
use super::whom::{Place, To};
use super::{complain, errors, print, table, top};
use crate::server::admin::csv;
use crate::server::admin::view::{Done, Endpoint, Leaving, Reloaded, Reopened, Status, Upgraded};

/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What can be asked of a running process.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show pools and endpoints of a running Tidegate.
    Status {
        #[command(flatten)]
        to: To,
        /// Print a row of comma-separated values for each endpoint and for each pool.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// Show it anew every so many seconds, until interrupted.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// Show pools, endpoints and sessions live on a terminal; `?` there says what the keys do.
    Top {
        #[command(flatten)]
        place: Place,
        /// Look anew every so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 1,
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
    },
    /// Give an endpoint no new sessions, and take it out when those it has are over.
    Drain {
        #[command(flatten)]
        at: At,
        /// End what is left after this time, such as 30s or 5m; unless given, never.
        #[arg(long, value_name = "TIME")]
        timeout: Option<String>,
        /// Wait until it is out: exit status 0, or 1 if somebody takes it back.
        #[arg(long)]
        wait: bool,
    },
    /// Let an endpoint take what comes.
    Ready(At),
    /// Take an endpoint out now: what is open on it ends.
    Maint(At),
    /// Set an endpoint's share of the traffic.
    Weight {
        #[command(flatten)]
        at: At,
        /// 0 (nothing new) to 256, or `default` for what the configuration says.
        #[arg(value_name = "N")]
        weight: String,
    },
    /// Set how many calls an endpoint may have in flight.
    MaxInFlight {
        #[command(flatten)]
        at: At,
        /// 1 to 1000000, `off` for any number, or `default` for what the configuration says.
        #[arg(value_name = "N")]
        max: String,
    },
    /// List sessions, or end many.
    Sessions(Sessions),
    /// Show the last messages of clients and servers that were refused because they are no proper HTTP.
    Errors(To),
    /// Do something to one session.
    #[command(subcommand)]
    Session(SessionVerb),
    /// Have the configuration read again; exit status 1 if it is wrong, and then nothing has changed.
    Reload(To),
    /// Have another process take over, started from the program's file as it is now.
    Upgrade(To),
    /// Have the files of logs opened anew, after they were moved away.
    Reopen(To),
    /// Have the process drain and leave, as TERM does.
    Quit(To),
    /// Have the process leave at once, as INT does: what is open breaks off.
    Stop(To),
}

/// The verbs that ask something of the process as a whole, as nginx has them after `-s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Signal {
    /// As `tidegate reload`.
    Reload,
    /// As `tidegate stop`.
    Stop,
    /// As `tidegate quit`.
    Quit,
    /// As `tidegate reopen`.
    Reopen,
    /// As `tidegate upgrade`.
    Upgrade,
}

/// What can be done to a session.
#[derive(Debug, Subcommand)]
pub(super) enum SessionVerb {
    /// End it, here and on its server.
    End {
        /// Its hash, as `tidegate sessions` shows it; or `session` of the access log.
        hash: String,
        #[command(flatten)]
        to: To,
    },
}

/// Which endpoint of which process.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The endpoint, as `tidegate status` shows it.
    #[arg(value_name = "POOL/ENDPOINT", value_parser = name)]
    endpoint: (String, String),
    #[command(flatten)]
    to: To,
}

/// A pool and an endpoint. The name of a pool has no slash; that of an endpoint may.
fn name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((pool, endpoint)) if !pool.is_empty() && !endpoint.is_empty() => {
            Ok((pool.to_owned(), endpoint.to_owned()))
        }
        _ => Err("write the pool, a slash and the endpoint".to_owned()),
    }
}

/// Does what `-s` says, which is what the verb of that name says.
pub(super) fn signal(signal: Signal, config: Option<PathBuf>, socket: Option<PathBuf>) -> ExitCode {
    let to = To {
        place: Place { socket, config },
        json: false,
    };
    run(&match signal {
        Signal::Reload => Verb::Reload(to),
        Signal::Stop => Verb::Stop(to),
        Signal::Quit => Verb::Quit(to),
        Signal::Reopen => Verb::Reopen(to),
        Signal::Upgrade => Verb::Upgrade(to),
    })
}

/// Does what a command says.
pub(super) fn run(verb: &Verb) -> ExitCode {
    match verb {
        Verb::Status { to, csv, watch } => {
            let show = match (to.json, csv) {
                (true, _) => Show::Json,
                (_, true) => Show::Csv,
                _ => Show::Table,
            };
            to.with(|client| status(client, show, *watch))
        }
        Verb::Top { place, interval } => top::run(place, Duration::from_secs(*interval)),
        Verb::Drain { at, timeout, wait } => {
            let body = json!({ "timeout": timeout });
            at.to.with(|client| drain(client, at, &body, *wait))
        }
        Verb::Ready(at) => at.operate("ready", &json!({})),
        Verb::Maint(at) => at.operate("maint", &json!({})),
        Verb::Weight { at, weight } => match number(weight, false) {
            Ok(weight) => at.operate("weight", &json!({ "weight": weight })),
            Err(wrong) => misused(&wrong),
        },
        Verb::MaxInFlight { at, max } => match number(max, true) {
            Ok(max) => at.operate("max_in_flight", &json!({ "max_in_flight": max })),
            Err(wrong) => misused(&wrong),
        },
        Verb::Sessions(sessions) => sessions.run(),
        Verb::Errors(to) => errors::run(to),
        Verb::Reload(to) => to.with(|client| reload(client, to.json)),
        Verb::Upgrade(to) => to.with(|client| {
            let answer = client.ask("POST", "/v1/upgrade", Some(&json!({})))?;
            let upgraded: Upgraded = client.read(answer.clone())?;
            Ok(shown(to.json, &answer, || {
                format!("process {} serves from now on", upgraded.process)
            }))
        }),
        Verb::Reopen(to) => to.with(|client| {
            let answer = client.ask("POST", "/v1/reopen", Some(&json!({})))?;
            let Reopened { process } = client.read(answer.clone())?;
            Ok(shown(to.json, &answer, || {
                format!("process {process} has opened its logs anew")
            }))
        }),
        Verb::Quit(to) => to.with(|client| leave(client, to.json, "quit", "drains and leaves")),
        Verb::Stop(to) => to.with(|client| leave(client, to.json, "stop", "leaves")),
        Verb::Session(SessionVerb::End { hash, to }) => to.with(|client| {
            let path = format!("/v1/sessions/{}", escape(hash));
            let answer = client.ask("DELETE", &path, None)?;
            Ok(shown(to.json, &answer, || {
                format!("session {hash} is ended")
            }))
        }),
    }
}

/// A number, or `null` for what the configuration says; `off` is 0 where it may be.
fn number(text: &str, has_off: bool) -> Result<Value, String> {
    match text {
        "default" => Ok(Value::Null),
        "off" if has_off => Ok(json!(0)),
        number => match number.parse::<u32>() {
            Ok(number) => Ok(json!(number)),
            Err(_) => Err(format!("{text} is not a number")),
        },
    }
}

pub(super) fn misused(wrong: &str) -> ExitCode {
    complain(&format!("error: {wrong}"));
    ExitCode::from(2)
}

impl At {
    fn path(&self) -> String {
        let (pool, endpoint) = &self.endpoint;
        format!("/v1/pools/{}/endpoints/{}", escape(pool), escape(endpoint))
    }

    fn operate(&self, verb: &str, body: &Value) -> ExitCode {
        self.to.with(|client| {
            let done = self.ask(client, verb, body)?;
            self.tell(client, done)
        })
    }

    fn ask(&self, client: &Client, verb: &str, body: &Value) -> Result<Value, Error> {
        let path = format!("{}/{verb}", self.path());
        client.ask("POST", &path, Some(body))
    }

    /// Says how the endpoint is after an operation.
    fn tell(&self, client: &Client, answer: Value) -> Result<ExitCode, Error> {
        let done: Done = client.read(answer.clone())?;
        if let Some(warning) = &done.warning {
            complain(&format!("tidegate: warning: {warning}"));
        }
        Ok(shown(self.to.json, &answer, || {
            line(&done.pool, &done.endpoint)
        }))
    }
}

pub(super) fn shown(as_json: bool, answer: &Value, text: impl FnOnce() -> String) -> ExitCode {
    match as_json {
        true => print(&answer.to_string()),
        false => print(text().trim_end()),
    }
}

/// An endpoint in one line.
pub(super) fn line(pool: &str, endpoint: &Endpoint) -> String {
    let why = table::why(endpoint);
    let why = if why.is_empty() {
        why
    } else {
        format!(" ({why})")
    };
    let limit = endpoint
        .max_in_flight
        .map_or_else(|| "off".to_owned(), |max| max.to_string());
    format!(
        "{pool}/{}: {}{why}, weight {}, max in flight {limit}, {} sessions, {} in flight",
        endpoint.name, endpoint.state, endpoint.weight, endpoint.sessions, endpoint.in_flight
    )
}

/// How a status is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Table,
    Json,
    Csv,
}

fn status(client: &Client, how: Show, watch: Option<u64>) -> Result<ExitCode, Error> {
    let look = || client.ask("GET", "/v1/status", None);
    let show = |answer: Value| -> Result<String, Error> {
        if how == Show::Json {
            return Ok(answer.to_string());
        }
        let status: Status = client.read(answer)?;
        Ok(match how {
            Show::Csv => csv::pools(&status.pools),
            Show::Table | Show::Json => table::status(&status),
        })
    };
    let mut text = show(look()?)?;
    let Some(seconds) = watch else {
        return Ok(print(text.trim_end()));
    };
    let redraws = how == Show::Table && std::io::stdout().is_terminal();
    loop {
        let drawn = if redraws {
            // Over what stands there, each line to its end and then all below: nothing flickers.
            let lines = text.trim_end().replace('\n', "\x1b[K\n");
            print(&format!("\x1b[H{lines}\x1b[K\x1b[J"))
        } else {
            print(text.trim_end())
        };
        if drawn != ExitCode::SUCCESS {
            return Ok(drawn);
        }
        sleep(Duration::from_secs(seconds));
        // Whoever watches a restart wants to see the new process as well.
        text = match look().and_then(show) {
            Ok(text) => text,
            Err(error) if redraws => error.to_string(),
            Err(error) => return Err(error),
        };
    }
}

fn reload(client: &Client, as_json: bool) -> Result<ExitCode, Error> {
    let answer = client.ask("POST", "/v1/reload", Some(&json!({})))?;
    let reloaded: Reloaded = client.read(answer.clone())?;
    for warning in &reloaded.warnings {
        complain(warning);
    }
    if !reloaded.kept.is_empty() {
        let keys = reloaded.kept.join(", ");
        complain(&format!(
            "tidegate: warning: {keys}: what has changed here takes effect when the process is replaced"
        ));
    }
    Ok(shown(as_json, &answer, || {
        format!(
            "reloaded in {} ms: {} listeners opened, {} closed; {} pools new or changed; {} endpoints leave",
            reloaded.took_ms,
            reloaded.listeners_opened,
            reloaded.listeners_closed,
            reloaded.pools_changed,
            reloaded.endpoints_leaving
        )
    }))
}

fn leave(client: &Client, as_json: bool, verb: &str, does: &str) -> Result<ExitCode, Error> {
    let answer = client.ask("POST", &format!("/v1/{verb}"), Some(&json!({})))?;
    let Leaving { process } = client.read(answer.clone())?;
    Ok(shown(as_json, &answer, || {
        format!("process {process} {does}")
    }))
}

fn drain(client: &Client, at: &At, body: &Value, wait: bool) -> Result<ExitCode, Error> {
    let answer = at.ask(client, "drain", body)?;
    if !wait {
        return at.tell(client, answer);
    }
    loop {
        sleep(LOOK);
        let answer = client.ask("GET", &at.path(), None)?;
        let endpoint: Endpoint = client.read(answer.clone())?;
        let exit = match endpoint.admin.state.as_str() {
            "drain" => continue,
            "maint" => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
        shown(at.to.json, &answer, || line(&at.endpoint.0, &endpoint));
        return Ok(exit);
    }
}
