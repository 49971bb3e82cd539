//! One line, written straight into bytes.
//!
//! No tree of values and no formatting machinery for what occurs in every line: the keys are known,
//! so a line is a row of copies. The reader of a field is a log shipper, which makes the escaping
//! the part that matters.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Entry;

/// The longest line there can be. The bounds below, all of it escaped to six bytes for one, plus
/// keys and numbers.
pub(super) const LINE_BYTES_MAX: usize = 12 * 1024;

pub(super) const PATH_BYTES_MAX: usize = 512;
const REQUEST_ID_BYTES_MAX: usize = 64;
const METHOD_BYTES_MAX: usize = 32;
/// Names: of tools, methods, user agents, and of what the configuration names.
pub(super) const NAME_BYTES_MAX: usize = 128;

/// A key as it stands in a line: copied in one piece, of a length that the compiler knows.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// Appends the line for `entry`, newline included.
pub(super) fn write(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let mut line = Line { out };
    line.out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(line.out, entry.at);
    line.out.push(b'"');
    line.text(key!("listener"), entry.listener, NAME_BYTES_MAX);
    if let Some(client) = entry.client {
        line.key(key!("client"));
        line.out.push(b'"');
        ip(line.out, client.ip());
        line.out.push(b'"');
    }
    line.maybe(key!("tls"), entry.tls);
    if let Some(proved) = &entry.proved {
        line.tag(key!("principal"), proved.tag);
        line.maybe(key!("client_name"), Some(proved.name));
    }
    line.text(key!("http_version"), entry.http_version, NAME_BYTES_MAX);
    line.maybe(key!("host"), entry.host);
    line.text(key!("method"), entry.method, METHOD_BYTES_MAX);
    let path = entry
        .path
        .split_once('?')
        .map_or(entry.path, |(path, _)| path);
    line.text(key!("path"), path, PATH_BYTES_MAX);
    line.maybe(key!("mcp_method"), entry.mcp_method);
    line.maybe(key!("tool_name"), entry.tool_name);
    line.maybe(key!("era"), entry.era);
    line.maybe(key!("pool"), entry.pool);
    line.maybe(key!("server"), entry.server);
    if let Some(address) = entry.server_address {
        line.key(key!("server_address"));
        line.out.push(b'"');
        self::address(line.out, address);
        line.out.push(b'"');
    }
    if let Some(session) = entry.session {
        line.tag(key!("session"), session.bits());
    }
    line.number(key!("status"), u64::from(entry.status));
    if let Some(code) = entry.rpc_code {
        line.key(key!("rpc_code"));
        signed(line.out, code);
    }
    let times = &entry.times;
    line.millis(key!("duration_ms"), Some(times.duration));
    line.millis(key!("queue_ms"), Some(times.queue));
    line.millis(key!("connect_ms"), times.connect);
    line.millis(key!("header_ms"), times.header);
    line.millis(key!("first_byte_ms"), times.first_byte);
    line.number(key!("retries"), u64::from(entry.retries));
    line.number(key!("request_bytes"), entry.request_bytes);
    line.number(key!("response_bytes"), entry.response_bytes);
    line.text(key!("request_id"), entry.request_id, REQUEST_ID_BYTES_MAX);
    line.maybe(key!("trace_id"), entry.trace_id);
    line.key(key!("termination"));
    line.out.push(b'"');
    line.out.extend_from_slice(&entry.termination);
    line.out.push(b'"');
    line.text(key!("end_reason"), entry.end_reason, NAME_BYTES_MAX);
    if let Some(user_agent) = entry.user_agent {
        line.bytes(key!("user_agent"), user_agent);
    }
    line.out.extend_from_slice(b"}\n");
    debug_assert!(out.len() <= LINE_BYTES_MAX);
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    #[inline]
    fn key(&mut self, key: &[u8]) {
        self.out.extend_from_slice(key);
    }

    fn maybe(&mut self, key: &[u8], value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value, NAME_BYTES_MAX);
        }
    }

    fn text(&mut self, key: &[u8], value: &str, bytes_max: usize) {
        if value.is_empty() {
            return;
        }
        self.key(key);
        self.out.push(b'"');
        escape(self.out, cut(value, bytes_max));
        self.out.push(b'"');
    }

    fn bytes(&mut self, key: &[u8], value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.key(key);
        self.out.push(b'"');
        escape_bytes(self.out, &value[..value.len().min(NAME_BYTES_MAX)]);
        self.out.push(b'"');
    }

    fn number(&mut self, key: &[u8], value: u64) {
        self.key(key);
        digits(self.out, value, 1);
    }

    /// Milliseconds with three decimals.
    fn millis(&mut self, key: &[u8], value: Option<Duration>) {
        let Some(value) = value else { return };
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.key(key);
        digits(self.out, micros / 1000, 1);
        self.out.push(b'.');
        digits(self.out, micros % 1000, 3);
    }

    fn tag(&mut self, key: &[u8], bits: u32) {
        self.key(key);
        self.out.push(b'"');
        tag(self.out, bits);
        self.out.push(b'"');
    }
}

/// The eight digits of a tag.
pub(super) fn tag(out: &mut Vec<u8>, bits: u32) {
    for shift in (0..8).rev() {
        let nibble = (bits >> (4 * shift)) & 0xF;
        out.push(HEX[nibble as usize]);
    }
}

/// A number that may be negative.
pub(super) fn signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    digits(out, number.unsigned_abs(), 1);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The longest start of `text` that has at most `bytes_max` bytes and ends between two characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The inside of a JSON string (RFC 8259 section 7).
///
/// Escaped beyond what JSON asks for: DEL and the C1 controls, which some terminals obey, and
/// U+2028/U+2029, at which some readers break lines.
pub(in crate::telemetry) fn escape(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(plain) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let code = character as usize;
                out.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(HEX[(code >> shift) & 0xF]);
                }
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// The same for bytes that should be UTF-8 but come from a header; what is not becomes U+FFFD.
pub(super) fn escape_bytes(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// A number in decimal, filled up with zeros to `width`.
pub(super) fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    // u64::MAX has 20 digits.
    let mut buffer = [b'0'; 20];
    let mut start = buffer.len();
    while number > 0 {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&buffer[start.min(buffer.len() - width)..]);
}

/// An address, in which nothing has to be escaped.
pub(super) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                digits(out, octet.into(), 1);
            }
        }
        // A Vec takes everything.
        IpAddr::V6(ip) => _ = write!(out, "{ip}"),
    }
}

/// An address and its port.
pub(super) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            ip(out, IpAddr::V4(*address.ip()));
            out.push(b':');
            digits(out, address.port().into(), 1);
        }
        SocketAddr::V6(address) => _ = write!(out, "{address}"),
    }
}

/// `2026-07-28T09:05:03.042Z`. A clock that stands before 1970 is shown as 1970.
pub(in crate::telemetry) fn timestamp(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let second_of_day = seconds % 86_400;
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second_of_day / 3600, 2, b':'),
        (second_of_day / 60 % 60, 2, b':'),
        (second_of_day % 60, 2, b'.'),
        (u64::from(since.subsec_millis()), 3, b'Z'),
    ];
    for (number, width, after) in parts {
        digits(out, number, width);
        out.push(after);
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01.
///
/// Counts in eras of 400 years, which all have the same length, and in years that begin in March,
/// which puts the leap day at the end (Hinnant's `civil_from_days`).
pub(super) fn civil(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: u64, millis: u64) -> String {
        let mut out = Vec::new();
        timestamp(
            &mut out,
            UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis),
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_moments_have_their_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_000_000_000, "2001-09-09T01:46:40.007Z"),
            (1_709_164_800, "2024-02-29T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_785_229_503, "2026-07-28T09:05:03.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.007Z"),
        ] {
            assert_eq!(stamp(seconds, 7), expected);
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil(days), (year, month, day));
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn a_clock_before_the_epoch_is_no_reason_to_fail() {
        let mut out = Vec::new();
        timestamp(&mut out, UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn numbers_are_decimal() {
        for (number, width, expected) in [
            (0, 1, "0"),
            (7, 3, "007"),
            (1234, 3, "1234"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut out = Vec::new();
            digits(&mut out, number, width);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn addresses_look_as_they_do_elsewhere() {
        for text in [
            "0.0.0.0:0",
            "192.0.2.7:65535",
            "255.255.255.255:80",
            "[::1]:443",
            "[fe80::1%3]:9",
        ] {
            let shown: SocketAddr = text.parse().unwrap();
            let mut out = Vec::new();
            address(&mut out, shown);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            let mut out = Vec::new();
            ip(&mut out, shown.ip());
            assert_eq!(String::from_utf8(out).unwrap(), shown.ip().to_string());
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("short", 8), "short");
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 4), "grü");
        assert_eq!(cut("🌊", 3), "");
    }
}
