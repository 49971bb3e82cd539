//! What is said about a key: its name, kind, bounds, default and meaning.
//!
//! The rows themselves are in `table`. Everything that must agree about keys reads them there: the
//! decoder (`fields`) takes defaults and bounds from them and calls every other key unknown, the
//! JSON Schema is printed from them, and tests hold `conf/full.yaml` against them. Defaults and
//! bounds are kept as an operator would write them.

use super::admin::AdminLevel;
use super::edge::Scheme;
use super::health::{HttpMethod, McpQuestion, OnDown};
use super::limit::ToolRetry;
use super::log::{Level, MessageFormat};
use super::log_format::Escape;
use super::model::{Eras, OnEndpointLoss, PoolKind, State};
use super::proxies::{ClientHeaders, ProxyHeader, SendProxy};
use super::resolve::Resolve;
use super::tracing::TraceProtocol;

/// A map with fixed keys.
#[derive(Debug)]
pub(super) struct Section {
    /// What it describes, as a noun for messages: "listener", "pool".
    pub(super) noun: &'static str,
    /// What it is for, one sentence.
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
}

impl Section {
    /// The key with this name, if the section has it.
    pub(super) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
    /// What it means, one sentence.
    pub(super) about: &'static str,
}

/// What is taken when a key is not written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// It must be written; the text is an example.
    Required(&'static str),
    /// This value, as it would be written.
    Default(&'static str),
    /// Nothing, or what `about` says.
    Optional,
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// Any single value; `check` has more to say about it.
    Text,
    /// A text, or `off`.
    TextOrOff,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Count(u64, u64),
    /// A duration within bounds, both included.
    Duration(&'static str, &'static str),
    /// A duration within bounds, or `off`.
    DurationOrOff(&'static str, &'static str),
    /// A whole number of percent within bounds, both included.
    Percent(u64, u64),
    /// A number in a second, a minute or an hour.
    Rate,
    /// A part of all, above 0 and up to 1.
    Share,
    /// The same, or none: from 0 up to 1.
    ShareOrNone,
    /// A size within bounds, both included.
    Size(&'static str, &'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of at most so many single values.
    Texts(usize),
    /// A map of at most so many names of the operator's choice to single values.
    Pairs(usize),
    /// A section of its own.
    Section(&'static Section),
    /// A section, or `off`.
    SectionOrOff(&'static Section),
    /// A section, or a single value; `check` has more to say about that.
    SectionOrText(&'static Section),
    /// A list of one to so many sections.
    Sections(&'static Section, usize),
    /// The same, where an item may also be a single value.
    SectionsOrTexts(&'static Section, usize),
    /// A map from one to so many names of the operator's choice to sections.
    Named(&'static Section, usize),
}

impl Kind {
    /// The section that lies within, if there is one.
    pub(super) fn section(&self) -> Option<&'static Section> {
        match self {
            Self::Section(section)
            | Self::SectionOrOff(section)
            | Self::SectionOrText(section)
            | Self::Sections(section, _)
            | Self::SectionsOrTexts(section, _)
            | Self::Named(section, _) => Some(section),
            Self::Text
            | Self::TextOrOff
            | Self::Flag
            | Self::Count(..)
            | Self::Duration(..)
            | Self::DurationOrOff(..)
            | Self::Percent(..)
            | Self::Rate
            | Self::Share
            | Self::ShareOrNone
            | Self::Size(..)
            | Self::Choice(_)
            | Self::Texts(_)
            | Self::Pairs(_) => None,
        }
    }
}

/// Words that mean "not at all" where a key allows it. YAML 1.1 reads all of them as false.
pub(super) const OFF: [&str; 3] = ["off", "false", "no"];

/// How a route's transport was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransportChoice {
    Auto,
    Streamable,
    Sse,
}

/// The names of [`super::model::Balance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BalanceChoice {
    LeastLoad,
    PeakEwma,
    Random,
    RoundRobin,
    ConsistentHash,
}

/// The names of [`super::health::Check`], and what is taken when none is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckChoice {
    Mcp,
    Http,
    Tcp,
    None,
}

/// What `method` of a health check stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MethodChoice {
    Mcp(McpQuestion),
    Http(HttpMethod),
}

/// Who of the clients is asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    Required,
    Optional,
    Off,
}

/// The words of a choice, each with what it stands for.
pub(super) type Words<T, const N: usize> = [(&'static str, T); N];

pub(super) const TRANSPORTS: Words<TransportChoice, 3> = [
    ("auto", TransportChoice::Auto),
    ("streamable", TransportChoice::Streamable),
    ("sse", TransportChoice::Sse),
];
pub(super) const POOL_KINDS: Words<PoolKind, 2> =
    [("mcp", PoolKind::Mcp), ("http", PoolKind::Http)];
pub(super) const BALANCES: Words<BalanceChoice, 5> = [
    ("least_load", BalanceChoice::LeastLoad),
    ("peak_ewma", BalanceChoice::PeakEwma),
    ("random", BalanceChoice::Random),
    ("round_robin", BalanceChoice::RoundRobin),
    ("consistent_hash", BalanceChoice::ConsistentHash),
];
pub(super) const LOSSES: Words<OnEndpointLoss, 2> = [
    ("not_found", OnEndpointLoss::NotFound),
    ("reinitialize", OnEndpointLoss::Reinitialize),
];
pub(super) const STATES: Words<State, 3> = [
    ("up", State::Up),
    ("drain", State::Drain),
    ("maint", State::Maint),
];
pub(super) const RESOLVES: Words<Resolve, 2> = [("one", Resolve::One), ("all", Resolve::All)];
pub(super) const ERAS: Words<Eras, 4> = [
    ("auto", Eras::Auto),
    ("session", Eras::Session),
    ("stateless", Eras::Stateless),
    ("both", Eras::Both),
];
pub(super) const SCHEMES: Words<Scheme, 2> = [("http", Scheme::Http), ("https", Scheme::Https)];
pub(super) const CHECKS: Words<CheckChoice, 4> = [
    ("mcp", CheckChoice::Mcp),
    ("http", CheckChoice::Http),
    ("tcp", CheckChoice::Tcp),
    ("none", CheckChoice::None),
];
pub(super) const CHECK_METHODS: Words<MethodChoice, 8> = [
    ("auto", MethodChoice::Mcp(McpQuestion::Auto)),
    ("discover", MethodChoice::Mcp(McpQuestion::Discover)),
    ("ping", MethodChoice::Mcp(McpQuestion::Ping)),
    ("initialize", MethodChoice::Mcp(McpQuestion::Initialize)),
    ("GET", MethodChoice::Http(HttpMethod::Get)),
    ("HEAD", MethodChoice::Http(HttpMethod::Head)),
    ("OPTIONS", MethodChoice::Http(HttpMethod::Options)),
    ("POST", MethodChoice::Http(HttpMethod::Post)),
];
pub(super) const ON_DOWN: Words<OnDown, 2> = [("keep", OnDown::Keep), ("end", OnDown::End)];
pub(super) const TOOL_RETRIES: Words<ToolRetry, 3> = [
    ("never", ToolRetry::Never),
    ("safe", ToolRetry::Safe),
    ("always", ToolRetry::Always),
];
pub(super) const CLIENT_HEADERS: Words<ClientHeaders, 4> = [
    ("x_forwarded", ClientHeaders::XForwarded),
    ("forwarded", ClientHeaders::Forwarded),
    ("both", ClientHeaders::Both),
    ("off", ClientHeaders::Off),
];
pub(super) const SEND_PROXY: Words<Option<SendProxy>, 3> = [
    ("off", None),
    ("v1", Some(SendProxy::V1)),
    ("v2", Some(SendProxy::V2)),
];
pub(super) const PROXY_HEADERS: Words<ProxyHeader, 2> = [
    ("x_forwarded", ProxyHeader::XForwarded),
    ("forwarded", ProxyHeader::Forwarded),
];
pub(super) const ADMIN_LEVELS: Words<AdminLevel, 2> =
    [("read", AdminLevel::Read), ("operate", AdminLevel::Operate)];
pub(super) const CLIENT_AUTHS: Words<ClientAuth, 3> = [
    ("required", ClientAuth::Required),
    ("optional", ClientAuth::Optional),
    ("off", ClientAuth::Off),
];
pub(super) const VERIFY: Words<bool, 2> = [("on", true), ("off", false)];
pub(super) const LEVELS: Words<Level, 5> = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

pub(super) const MESSAGE_FORMATS: Words<MessageFormat, 2> =
    [("text", MessageFormat::Text), ("json", MessageFormat::Json)];
pub(super) const TRACE_PROTOCOLS: Words<TraceProtocol, 2> =
    [("http", TraceProtocol::Http), ("grpc", TraceProtocol::Grpc)];
pub(super) const ESCAPES: Words<Escape, 2> = [("default", Escape::Default), ("json", Escape::Json)];
/// Facilities of syslog with their numbers (RFC 5424, section 6.2.1).
pub(super) const FACILITIES: Words<u8, 20> = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// The words alone.
pub(super) const fn names<T, const N: usize>(words: &Words<T, N>) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = words[at].0;
        at += 1;
    }
    names
}

/// One row of the table.
pub(super) const fn key(name: &'static str, kind: Kind, need: Need, about: &'static str) -> Key {
    Key {
        name,
        kind,
        need,
        about,
    }
}
