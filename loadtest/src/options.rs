//! Options that `hold` and `calls` share, and the bounds of all of them.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::mcp::Speaker;
use crate::target::Target;

/// As many streams as one address has ports for, with room for calls and for ports still closing.
pub(crate) const STREAMS_MAX: u64 = 18_000;
pub(crate) const SECONDS_MAX: u64 = 600;
pub(crate) const CONNECTIONS_MAX: u64 = 1_000;
pub(crate) const RATE_MAX: u64 = 1_000_000;
const THREADS_MAX: u64 = 16;
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// What is loaded, and what is watched meanwhile.
#[derive(Args)]
pub(crate) struct Common {
    /// Where the MCP server or gateway is, as in http://127.0.0.1:8080/mcp
    #[arg(long)]
    pub(crate) url: Target,
    /// How long to measure
    #[arg(long, value_parser = bounded(1, SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// A process whose memory and CPU are measured; may be given several times
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// The tool to call; it must answer with the argument `text`
    #[arg(long, default_value = "echo", value_parser = tool_name)]
    tool: String,
    /// Length of that text
    #[arg(long, default_value_t = 16, value_parser = bounded(0, TEXT_BYTES_MAX))]
    text_bytes: u64,
    /// Seconds until a call has failed
    #[arg(long, default_value_t = 10, value_parser = bounded(1, 60))]
    timeout: u64,
    /// Threads of the tool itself
    #[arg(long, default_value_t = 1, value_parser = bounded(1, THREADS_MAX))]
    pub(crate) threads: u64,
}

impl Common {
    pub(crate) fn speaker(&self) -> Speaker {
        Speaker::new(
            self.url.clone(),
            self.tool.clone(),
            self.text_bytes as usize,
        )
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(crate) fn bounded(least: u64, most: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(least..=most)
}

/// Reads `250ms` or `2s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text}: not a duration such as 250ms or 2s");
    let (number, unit) = text.split_at(
        text.find(|char: char| !char.is_ascii_digit())
            .ok_or_else(wrong)?,
    );
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        _ => Err(wrong()),
    }
}

/// The name goes into a header and into JSON without escaping.
fn tool_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 128 letters, digits, '_', '-' and '.'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        for text in ["", "5", "s", "1.5s", "2m", "-1s", "99999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tool_names_need_no_escaping() {
        assert!(tool_name("a__echo").is_ok());
        for text in ["", "a b", "a\"", "a\r\n", "é"] {
            assert!(tool_name(text).is_err(), "{text}");
        }
    }
}
