//! The messages of the process: everything that is no line per request, on standard error.
//!
//! They come through the `log` crate, ours and those of the crates below. Level and format can be
//! changed while the process runs, as a reload does. Where standard error is the journal's, a message
//! has its priority in front (sd-daemon(3)), so that `journalctl -p err` finds what a person should
//! look at, and no time, for the journal has its own.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

use super::access_log::{escape, timestamp};
use crate::config::{Level, MessageFormat};

static MESSAGES: Messages = Messages {
    is_json: AtomicBool::new(false),
    is_journal: AtomicBool::new(false),
    quiet: OnceLock::new(),
    level: AtomicUsize::new(LevelFilter::Info as usize),
};

struct Messages {
    is_json: AtomicBool,
    /// Standard error goes to the journal. Written once, at the start.
    is_journal: AtomicBool,
    /// Beginnings of the names of crates of which only errors are written.
    quiet: OnceLock<&'static [&'static str]>,
    /// A `LevelFilter`.
    level: AtomicUsize,
}

/// The target of what operators do, which is told whatever the level.
pub const AUDIT: &str = "audit";

/// Begins to write messages; only errors of the crates whose names begin with one of `quiet`. A second
/// call changes level and format.
pub fn start(level: Level, format: MessageFormat, quiet: &'static [&'static str]) {
    let _ = MESSAGES.quiet.set(quiet);
    MESSAGES.is_journal.store(is_journal(), Ordering::Relaxed);
    set_format(format);
    // It fails if there is a logger already, which is this one.
    let _ = log::set_logger(&MESSAGES);
    set_level(level);
}

/// Changes the least important level that is still written, from now on.
pub fn set_level(level: Level) {
    let level = match level {
        Level::Error => LevelFilter::Error,
        Level::Warn => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
        Level::Trace => LevelFilter::Trace,
    };
    MESSAGES.level.store(level as usize, Ordering::Relaxed);
    // What operators do is told at any level.
    log::set_max_level(level.max(LevelFilter::Info));
}

/// Changes how messages are written, from now on.
pub fn set_format(format: MessageFormat) {
    let is_json = format == MessageFormat::Json;
    MESSAGES.is_json.store(is_json, Ordering::Relaxed);
}

/// Whether standard error is connected to the journal: systemd names the stream in `JOURNAL_STREAM`.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let stderr = stderr.and_then(|file| file.metadata());
    stderr.is_ok_and(|stderr| named == format!("{}:{}", stderr.dev(), stderr.ino()))
}

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let mut quiet = self.quiet.get().into_iter().copied().flatten();
        let is_quiet = quiet.any(|name| metadata.target().starts_with(name));
        let is_told = metadata.level() as usize <= self.level.load(Ordering::Relaxed);
        if metadata.target() == AUDIT {
            return is_told || metadata.level() <= log::Level::Info;
        }
        is_told && (!is_quiet || metadata.level() == log::Level::Error)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Vec::with_capacity(256);
        let now = SystemTime::now();
        match self.is_json.load(Ordering::Relaxed) {
            true => json(&mut line, record, now),
            false => text(
                &mut line,
                record,
                now,
                self.is_journal.load(Ordering::Relaxed),
            ),
        }
        // One write, so that lines of several threads do not mix. Nobody can be told if it fails.
        let _ = io::stderr().write_all(&line);
    }

    fn flush(&self) {}
}

/// In front of every line of a message but the first.
const INDENT: &[u8] = b"    ";

/// The priority as syslog has it (RFC 5424, section 6.2.1).
fn priority(level: log::Level) -> u8 {
    match level {
        log::Level::Error => b'3',
        log::Level::Warn => b'4',
        log::Level::Info => b'6',
        log::Level::Debug | log::Level::Trace => b'7',
    }
}

fn text(line: &mut Vec<u8>, record: &Record<'_>, now: SystemTime, is_journal: bool) {
    let (level, target) = (record.level(), record.target());
    let mark = [b'<', priority(level), b'>'];
    let mark = if is_journal { &mark[..] } else { b"" };
    line.extend_from_slice(mark);
    if is_journal {
        let _ = write!(line, "{level} {target}: ");
    } else {
        line.push(b'[');
        timestamp(line, now);
        let _ = write!(line, " {level:<5} {target}] ");
    }
    let mut said = record.args().to_string().into_bytes();
    let _ = record.key_values().visit(&mut TextFields(&mut said));
    for byte in said {
        match byte {
            // A problem of the configuration is shown over several lines. None of them can be taken for
            // a message of its own.
            b'\n' => {
                line.push(b'\n');
                line.extend_from_slice(mark);
                line.extend_from_slice(INDENT);
            }
            byte if byte.is_ascii_control() => line.push(b' '),
            byte => line.push(byte),
        }
    }
    line.push(b'\n');
}

struct TextFields<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let _ = write!(self.0, " {key}={value}");
        Ok(())
    }
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, now: SystemTime) {
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(line, now);
    line.extend_from_slice(b"\",\"level\":\"");
    line.extend_from_slice(record.level().as_str().to_ascii_lowercase().as_bytes());
    for (key, value) in [
        ("target", record.target()),
        ("message", &record.args().to_string()),
    ] {
        let _ = write!(line, "\",\"{key}\":\"");
        escape(line, value);
    }
    line.push(b'"');
    let _ = record.key_values().visit(&mut JsonFields(line));
    line.extend_from_slice(b"}\n");
}

struct JsonFields<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let line = &mut *self.0;
        line.extend_from_slice(b",\"");
        escape(line, key.as_str());
        line.extend_from_slice(b"\":");
        if let Some(number) = value.to_i64() {
            let _ = write!(line, "{number}");
        } else if let Some(word) = value.to_bool() {
            let _ = write!(line, "{word}");
        } else {
            line.push(b'"');
            escape(line, &value.to_string());
            line.push(b'"');
        }
        Ok(())
    }
}

/// A moment as logs tell it: `2026-07-28T09:05:03.042Z`.
pub fn moment(at: SystemTime) -> String {
    let mut text = Vec::new();
    timestamp(&mut text, at);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_785_229_503_042)
    }

    fn written(write: impl Fn(&mut Vec<u8>, &Record<'_>)) -> String {
        let fields = [
            ("pool", Value::from("ma\"in")),
            ("failures", Value::from(5)),
            ("backup", Value::from(true)),
        ];
        let mut line = Vec::new();
        write(
            &mut line,
            &Record::builder()
                .level(log::Level::Warn)
                .target("tidegate::server")
                .args(format_args!("endpoint is ejected\nfor {}", "10s"))
                .key_values(&fields)
                .build(),
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn no_line_of_a_message_for_people_can_be_taken_for_another_one() {
        assert_eq!(
            written(|line, record| text(line, record, at(), false)),
            "[2026-07-28T09:05:03.042Z WARN  tidegate::server] endpoint is ejected\n    for 10s \
             pool=ma\"in failures=5 backup=true\n"
        );
    }

    #[test]
    fn the_journal_gets_the_priority_in_front_of_every_line() {
        let line = written(|line, record| text(line, record, at(), true));
        let mut lines = line.lines();
        assert_eq!(
            lines.next(),
            Some("<4>WARN tidegate::server: endpoint is ejected")
        );
        assert!(lines.all(|line| line.starts_with("<4>    ")), "{line}");
    }

    #[test]
    fn a_message_for_machines_is_one_object() {
        let line = written(|line, record| json(line, record, at()));
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "timestamp": "2026-07-28T09:05:03.042Z",
            "level": "warn",
            "target": "tidegate::server",
            "message": "endpoint is ejected\nfor 10s",
            "pool": "ma\"in",
            "failures": 5,
            "backup": true,
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn the_crates_below_are_heard_only_when_something_is_wrong() {
        let _ = MESSAGES.quiet.set(&["below"]);
        let enabled = |target: &'static str, level| {
            let metadata = Metadata::builder().target(target).level(level).build();
            set_level(Level::Debug);
            MESSAGES.enabled(&metadata)
        };
        assert!(enabled("tidegate::proxy", log::Level::Debug));
        assert!(!enabled("tidegate::proxy", log::Level::Trace));
        assert!(!enabled("below_core::server", log::Level::Warn));
        assert!(enabled("below_core::server", log::Level::Error));
    }
}
