//! The words an operator writes, and what they mean.
//!
//! One YAML file (JSON is YAML too) is read, checked as a whole and turned into a [`Config`] in
//! which nothing can be wrong any more. If anything is, nothing is used: [`Problems`] lists all of
//! it at once, each with file, line, column and a caret, in words that say what to write instead.
//!
//! The stages, each with a type of its own:
//!
//! 1. `load`: text to a tree of nodes that remember where they were written.
//! 2. `fields`: a tree against `table`, the one list of all keys with their kinds, bounds and
//!    defaults. Unknown keys, wrong types and values out of bounds are found here.
//! 3. `check`: what single keys cannot know, such as a route to a pool that no one defined.
//!
//! The same table gives the JSON Schema ([`schema()`]) that editors complete keys from.
//!
//! This module opens one file, the certificates and keys that it names, and the authorities of the
//! system where it relies on them, because what is wrong with those, and whether they are valid today,
//! an operator wants to hear before a restart. It does no other I/O: it resolves no name,
//! binds no port and does not look whether files of session keys exist. It knows nothing of the rest
//! of the program.

use std::path::Path;

mod address;
mod admin;
mod bind;
mod check;
mod cors;
mod edge;
mod effective;
mod fields;
mod health;
mod host_port;
mod identity;
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
mod streams;
mod suggest;
mod table;
mod template;
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
pub use limit::{Queue, Rate, RouteRate, ToolLimit};
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
pub use secure::{Authorities, Certificate, ClientProof, EndpointTls, Proof, Tls, Trust};
pub use streams::{Resume, Streams};
pub use template::{Part, Template, Variable as TemplateVariable};
pub use units::duration;

use problem::Report;

/// Reads and checks a file. The file is named in problems as given here.
///
/// # Errors
/// Everything that is wrong with it; or that it cannot be read, is longer than 4 MiB, or is not
/// UTF-8.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let text = load::read(path, &name)?;
    parse(&name, &text)
}

/// Checks a text. `name` stands for the file in problems.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Config, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let report = Report::new(name, text);
    let config = load::tree(text, &report).map(|root| Config {
        effective: effective::effective(&root),
        ..check::config(&root, &report)
    });
    let warnings = report.finish()?;
    let nothing = || Problem::with_file(name, "this file could not be understood".to_owned());
    let config = config.ok_or_else(nothing)?;
    Ok(Config { warnings, ..config })
}
