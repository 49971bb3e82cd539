//! Logs: where they go, and what a line says.

use super::super::address;
use super::super::fields::{Fields, Item, is_off};
use super::super::keys::{ESCAPES, FACILITIES, LEVELS, MESSAGE_FORMATS};
use super::super::log::{
    AccessLog, Level, Log, LogTarget, MessageFormat, Share, Syslog, SyslogServer,
};
use super::super::log_format::{self, Escape, LogFormat};
use super::super::node::Word;
use super::super::problem::quoted;

/// Longest tag that every syslog server takes (RFC 5424, section 6.2.5).
const TAG_MAX: usize = 48;

pub(super) fn log(fields: &Fields<'_>) -> Log {
    let access = match fields.text_or_section("access") {
        Item::Text(word) => AccessLog {
            to: target(fields, word).unwrap_or(LogTarget::Stdout),
            format: LogFormat::Json,
        },
        Item::Fields(access) => access_log(&access),
    };
    let format = fields.choice("format", &MESSAGE_FORMATS);
    Log {
        access,
        level: fields.choice("level", &LEVELS).unwrap_or(Level::Info),
        format: format.unwrap_or(MessageFormat::Text),
    }
}

fn access_log(fields: &Fields<'_>) -> AccessLog {
    let to = fields.text("to").and_then(|word| target(fields, word));
    let to = to.unwrap_or(LogTarget::Stdout);
    let syslog = syslog(&fields.section("syslog"));
    let to = match to {
        LogTarget::Syslog(_) => LogTarget::Syslog(syslog),
        to => {
            if let Some(at) = fields.written("syslog") {
                fields.error(at, "`syslog` is for `to: syslog`");
            }
            to
        }
    };
    let escape = fields.choice("escape", &ESCAPES).unwrap_or(Escape::Default);
    let format = fields
        .text("format")
        .map(|word| format(fields, word, escape));
    let format = format.unwrap_or(LogFormat::Json);
    if let (LogFormat::Json, Some(at)) = (&format, fields.written("escape")) {
        fields.error(at, "`escape` is for a `format` with variables");
    }
    AccessLog { to, format }
}

fn format(fields: &Fields<'_>, word: Word<'_>, escape: Escape) -> LogFormat {
    log_format::parse(word.text, escape).unwrap_or_else(|wrong| {
        for wrong in wrong {
            let place = wrong
                .at
                .map(|(nth, length)| fields.nth_in(word, '$', nth, length));
            fields.error(place.unwrap_or(word.span), wrong.message);
        }
        LogFormat::Json
    })
}

fn target(fields: &Fields<'_>, word: Word<'_>) -> Option<LogTarget> {
    Some(match word.text {
        "stdout" => LogTarget::Stdout,
        "stderr" => LogTarget::Stderr,
        "journal" => LogTarget::Journal,
        "syslog" => LogTarget::Syslog(Syslog::default()),
        off if is_off(off) => LogTarget::Off,
        path if path.starts_with('/') => LogTarget::File(fields.parsed(word, address::file_path)?),
        other => {
            let other = quoted(other);
            let message = format!(
                "the access log goes to stdout, stderr, journal, syslog, off, or the absolute path \
                 of a file, not {other}"
            );
            fields.error(word.span, message);
            return None;
        }
    })
}

fn syslog(fields: &Fields<'_>) -> Syslog {
    let default = Syslog::default();
    let server = fields.text("server");
    let server = server.and_then(|word| fields.parsed(word, server_of));
    let facility = fields.choice("facility", &FACILITIES);
    let tag = fields
        .text("tag")
        .and_then(|word| fields.parsed(word, tag_of));
    Syslog {
        server: server.unwrap_or(default.server),
        facility: facility.unwrap_or(default.facility),
        tag: tag.unwrap_or(default.tag),
    }
}

fn server_of(text: &str) -> Result<SyslogServer, String> {
    match text.strip_prefix("udp:") {
        Some(address) => address::bind(address).map(SyslogServer::Udp),
        None if text.starts_with('/') => address::file_path(text).map(SyslogServer::Unix),
        None => Err(format!(
            "{} is neither the absolute path of a socket nor \"udp:ADDRESS:PORT\"",
            quoted(text)
        )),
    }
}

fn tag_of(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match (1..=TAG_MAX).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{} is no tag; one has 1 to {TAG_MAX} letters, digits and `.`, `_`, `-`",
            quoted(text)
        )),
    }
}

/// Which requests of a route are logged.
pub(super) fn of_route(route: &Fields<'_>) -> Share {
    match route.section_or_off("access_log") {
        None => Share::NONE,
        Some(fields) => fields.share("sample"),
    }
}
