//! The words an operator writes, and what they mean.
//!
//! A YAML file (JSON is YAML too) and those that it includes are read, checked as a whole and turned into
//! a [`Config`] in which nothing can be wrong any more. If anything is, nothing is used: [`Problems`] lists all of
//! it at once, each with file, line, column and a caret, in words that say what to write instead.
//!
//! The stages, each with a type of its own:
//!
//! 1. `load`: text to a tree of nodes that remember where they were written; `include` makes one tree
//!    of several files.
//!    `env` puts the environment's variables into its values.
//! 2. `fields`: a tree against `table`, the one list of all keys with their kinds, bounds and
//!    defaults. Unknown keys, wrong types and values out of bounds are found here.
//! 3. `check`: what single keys cannot know, such as a route to a pool that no one defined.
//!
//! The same table gives the JSON Schema ([`schema()`]) that editors complete keys from.
//!
//! This module opens the files of the configuration, the certificates and keys that it names, and the authorities of the
//! system where it relies on them, because what is wrong with those, and whether they are valid today,
//! an operator wants to hear before a restart. It reads the environment, and does no other I/O: it resolves no name,
//! binds no port and does not look whether files of session keys exist. It knows nothing of the rest
//! of the program.

use std::path::{Path, PathBuf};

mod address;
mod admin;
mod bind;
mod check;
mod cors;
mod dump;
mod edge;
mod effective;
mod env;
mod fields;
mod health;
mod host_port;
mod identity;
mod include;
mod keys;
mod limit;
mod load;
mod log;
mod log_format;
mod matching;
mod model;
mod node;
mod problem;
mod protect;
mod proxies;
mod resolve;
mod rewrite;
mod schema;
mod secure;
mod sources;
mod streams;
mod suggest;
mod table;
mod template;
mod tracing;
mod units;
mod wording;
mod x509;

#[cfg(test)]
mod tests;

pub use admin::{Admin, AdminLevel, AdminSocket};
pub use bind::Bind;
pub use cors::Cors;
pub use edge::{Action, Field, HeaderEdits, Redirect, Return, Scheme};
pub use health::{Check, Health, HttpCheck, HttpMethod, McpQuestion, OnDown};
pub use host_port::HostPort;
pub use identity::Identity;
pub use limit::{Queue, Rate, RouteRate, ToolLimit, ToolRetry};
pub use log::{AccessLog, Level, Log, LogTarget, MessageFormat, Share, Syslog, SyslogServer};
pub use log_format::{Escape, HEADERS_MAX, LogFormat, Piece, TextFormat, Variable};
pub use model::{
    Balance, Config, Endpoint, Eras, HashOn, HostRule, Limits, Listener, OnEndpointLoss, Origins,
    PathRule, Pool, PoolId, PoolKind, Route, Sessions, State, Timeouts, Transport, is_below,
};
pub use problem::{Problem, Problems, Severity};
pub use protect::{Breaker, Ejection, Retries};
pub use proxies::{ClientHeaders, Net, Proxies, ProxyHeader, SendProxy};
pub use resolve::Resolve;
pub use rewrite::Rewrite;
pub use schema::schema;
pub use secure::{Acme, Authorities, Certificate, ClientProof, EndpointTls, Proof, Tls, Trust};
pub use streams::{Resume, Streams};
pub use template::{Part, Template, Variable as TemplateVariable};
pub use tracing::{Collector, TraceHeaders, TraceProtocol, Tracing};
pub use units::duration;

use env::Lookup;
use include::{Files, Joined};
use problem::Report;

/// Reads and checks a file with those that it includes, or all files `*.yaml` of a directory. The file is
/// named in problems as given here.
///
/// # Errors
/// Everything that is wrong with it; or that it cannot be read, is longer than 4 MiB, or is not
/// UTF-8.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let report = Report::default();
    let mut files = Files::new(&report, &env::of_process);
    files.read(path);
    let joined = files.joined();
    checked(&path.display().to_string(), joined, report)
}

/// What a configuration says of the admin socket and of the state directory, even if something in it is
/// wrong: whoever wants to talk to the process that runs with it has to know that much. `None` if the socket
/// is off, or a file is not YAML or cannot be read.
pub fn socket_as_written(path: &Path) -> Option<(AdminSocket, Option<PathBuf>)> {
    let report = Report::default();
    let mut files = Files::new(&report, &env::of_process);
    files.read(path);
    let Joined { root, .. } = files.joined()?;
    let config = check::config(&root, &report);
    Some((config.admin.socket?, config.state_dir))
}

/// Checks a text. `name` stands for the file in problems. It cannot include others.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Config, Problems> {
    parse_in(name, text, &env::of_process)
}

/// The same in another environment.
fn parse_in(name: &str, text: &str, lookup: Lookup<'_>) -> Result<Config, Problems> {
    let report = Report::default();
    let mut files = Files::new(&report, lookup);
    files.take(name, text.strip_prefix(load::MARK).unwrap_or(text));
    let joined = files.joined();
    checked(name, joined, report)
}

fn checked(name: &str, joined: Option<Joined>, report: Report) -> Result<Config, Problems> {
    let config = joined.map(|Joined { root, files }| {
        // First, for it knows more of what is not to be shown.
        let config = check::config(&root, &report);
        Config {
            effective: effective::effective(&root, &report.concealed()),
            files,
            ..config
        }
    });
    let warnings = report.finish()?;
    let nothing = || Problem::with_file(name, "this file could not be understood".to_owned());
    let config = config.ok_or_else(nothing)?;
    Ok(Config { warnings, ..config })
}
