//! From fields to a [`Config`]: the rules that single keys cannot know.
//!
//! Each part of the file is read in full even when another part is wrong, so that one run shows
//! everything. A part that could not be read is left out of the result, or has some value of its
//! type, which is safe because a result with any problem is thrown away by the caller.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

mod acme;
mod admin;
mod cors;
mod edge;
mod endpoint_tls;
mod health;
mod limits;
mod listeners;
mod log;
mod pem;
mod pools;
mod proxies;
mod routes;
mod tls;
mod tracing;

use super::address;
use super::fields::Fields;
use super::model::{Config, Limits, PoolKind, Route, Sessions};
use super::node::Node;
use super::problem::{Report, quoted};
use super::streams::{Resume, Streams};
use super::table;

/// Reads the tree of a file. What is wrong goes into the report, and then the answer means nothing.
pub(super) fn config(root: &Node, report: &Report) -> Config {
    let fields = Fields::open(&table::ROOT, root, root.span, report);
    // What it names has been read by now; here its shape is looked at.
    fields.texts("include");
    let listeners = listeners::listeners(&fields, report);
    let heads = pools::heads(&fields);
    let routes = routes::routes(&fields, &heads, report);
    let pools = pools::pools(&heads, &routes, report);
    let is_mcp = |route: &Route| {
        route
            .pool()
            .is_some_and(|id| heads[id.0].kind == PoolKind::Mcp)
    };
    let is_mcp_only = routes.iter().all(is_mcp);
    let admin = admin::admin(&fields, &listeners, report);
    let state_dir = fields.text("state_dir");
    let pid_file = fields.text("pid_file");
    let drain_timeout = fields.duration("drain_timeout");
    Config {
        listeners: listeners
            .into_iter()
            .map(|(_, listener)| listener)
            .collect(),
        routes,
        is_mcp_only,
        pools,
        sessions: sessions(&fields.section("sessions")),
        streams: streams(&fields.section("streams")),
        limits: limits(&fields.section("limits")),
        proxies: proxies::proxies(&fields, report),
        admin,
        log: log::log(&fields.section("log")),
        tracing: tracing::tracing(&fields, report),
        state_dir: state_dir.and_then(|word| fields.parsed(word, address::file_path)),
        pid_file: pid_file.and_then(|word| fields.parsed(word, address::file_path)),
        watch: fields.duration_or_off("watch"),
        threads: fields.count("threads").and_then(NonZeroUsize::new),
        drain_timeout,
        drain_jitter: drain_jitter(&fields, drain_timeout),
        effective: serde_json::Value::Null,
        files: Vec::new(),
        warnings: Vec::new(),
    }
}

fn sessions(fields: &Fields<'_>) -> Sessions {
    let mut key_files: Vec<PathBuf> = Vec::new();
    for word in fields.texts("key_files") {
        let Some(path) = fields.parsed(word, address::file_path) else {
            continue;
        };
        if key_files.contains(&path) {
            let message = format!("the key file {} is here twice", quoted(word.text));
            fields.error(word.span, message);
        }
        key_files.push(path);
    }
    let max: usize = fields.count("max").unwrap_or_default();
    let max_per_pool: usize = fields.count("max_per_pool").unwrap_or_default();
    if fields.written("max_per_pool").is_some() && max_per_pool > max {
        let message = format!("`max_per_pool` ({max_per_pool}) is more than `max` ({max})");
        fields.error(fields.place_of("max_per_pool"), message);
    }
    Sessions {
        key_files,
        idle_ttl: fields.duration("idle_ttl"),
        max,
        max_per_pool: max_per_pool.min(max),
        max_per_client: fields.count("max_per_client"),
        max_per_principal: fields.count("max_per_principal"),
        recovery_memory: fields.size("recovery_memory"),
        context_sizes: fields.count("context_sizes").unwrap_or_default(),
    }
}

fn drain_jitter(root: &Fields<'_>, timeout: Duration) -> Duration {
    let jitter = root.duration("drain_jitter");
    if root.written("drain_jitter").is_none() {
        return jitter.min(timeout / 3);
    }
    if jitter > timeout {
        let message =
            format!("`drain_jitter` ({jitter:?}) is more than `drain_timeout` ({timeout:?})");
        root.error(root.place_of("drain_jitter"), message);
    }
    jitter.min(timeout)
}

fn streams(fields: &Fields<'_>) -> Streams {
    Streams {
        keep_alive: fields.duration("keep_alive"),
        reconnect: fields.duration_or_off("reconnect"),
        max_event: fields.size("max_event"),
        max_per_session: fields.count("max_per_session").unwrap_or_default(),
        max_per_client: fields.count("max_per_client"),
        max_per_principal: fields.count("max_per_principal"),
        resume: fields
            .written("resume")
            .and_then(|_| fields.section_or_off("resume"))
            .map(|fields| resume(&fields)),
    }
}

fn resume(fields: &Fields<'_>) -> Resume {
    Resume {
        events: fields.count("events").unwrap_or_default(),
        bytes: fields.size("bytes"),
        keep: fields.duration("keep"),
        memory: fields.size("memory"),
    }
}

fn limits(fields: &Fields<'_>) -> Limits {
    let body = fields.size("body");
    let peek = fields.size("peek");
    if fields.written("peek").is_some() && peek > body {
        let message = format!("`peek` ({peek} bytes) is more than `body` ({body} bytes)");
        fields.error(fields.place_of("peek"), message);
    }
    Limits {
        body,
        header_block: fields.size("header_block"),
        headers: fields.count("headers").unwrap_or_default(),
        head_timeout: fields.duration("head_timeout"),
        idle_timeout: fields.duration("idle_timeout"),
        write_timeout: fields.duration("write_timeout"),
        peek: peek.min(body),
    }
}
