//! One line in the operator's own words.
//!
//! Values are made safe as nginx makes them, so what reads the logs of nginx reads these. Times are in
//! seconds with milliseconds, and moments in UTC: a time zone is a file that may change under us.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use super::entry::Entry;
use super::line::{self, LINE_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::config::{Escape, Piece, TextFormat, Variable};

/// Names of a certificate, in full.
const DN_BYTES_MAX: usize = 512;
const HEX: &[u8; 16] = b"0123456789ABCDEF";
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Appends the line for `entry`, newline included. What is longer than [`LINE_BYTES_MAX`] is cut off.
pub(super) fn write(out: &mut Vec<u8>, format: &TextFormat, entry: &Entry<'_>) {
    let start = out.len();
    let mut text = Text {
        out,
        escape: format.escape,
    };
    for piece in &format.pieces {
        match piece {
            Piece::Literal(literal) => text.out.extend_from_slice(literal.as_bytes()),
            Piece::Value(variable) => text.value(*variable, entry),
            Piece::Header(at) => text.header(entry, *at, false),
            Piece::Address(at) => text.header(entry, *at, true),
        }
        if text.out.len() - start >= LINE_BYTES_MAX {
            text.out.truncate(start + LINE_BYTES_MAX - 1);
            break;
        }
    }
    out.push(b'\n');
}

struct Text<'a> {
    out: &'a mut Vec<u8>,
    escape: Escape,
}

impl Text<'_> {
    fn value(&mut self, variable: Variable, entry: &Entry<'_>) {
        let times = &entry.times;
        match variable {
            Variable::RemoteAddr => self.ip(entry.client),
            Variable::RemotePort => self.port(entry.client),
            Variable::RemoteUser => self.nothing(),
            Variable::ServerAddr => self.ip(entry.local),
            Variable::ServerPort => self.port(entry.local),
            Variable::TimeIso8601 => self.iso8601(entry),
            Variable::TimeLocal => self.common_time(entry),
            Variable::Msec => {
                self.seconds(entry.at.duration_since(UNIX_EPOCH).unwrap_or_default());
            }
            Variable::Request if entry.method.is_empty() => self.nothing(),
            Variable::Request => {
                self.part(entry.method, NAME_BYTES_MAX);
                self.out.push(b' ');
                self.part(path(entry), PATH_BYTES_MAX);
                self.out.push(b' ');
                self.out.extend_from_slice(protocol(entry).as_bytes());
            }
            Variable::RequestMethod => self.text(Some(entry.method), NAME_BYTES_MAX),
            Variable::Uri | Variable::RequestUri => self.text(Some(path(entry)), PATH_BYTES_MAX),
            Variable::ServerProtocol => self.known(protocol(entry)),
            Variable::Scheme => self.known(if entry.tls.is_some() { "https" } else { "http" }),
            Variable::Host => self.text(entry.host.map(without_port), NAME_BYTES_MAX),
            Variable::HttpHost => self.text(entry.host, NAME_BYTES_MAX),
            Variable::HttpUserAgent => self.bytes(entry.user_agent.unwrap_or_default()),
            Variable::SslProtocol => match entry.tls {
                Some(version) => {
                    self.out.extend_from_slice(b"TLSv");
                    self.out.extend_from_slice(version.as_bytes());
                }
                None => self.nothing(),
            },
            Variable::SslClientVerify => match entry.proved {
                Some(_) => self.known("SUCCESS"),
                None => self.known("NONE"),
            },
            Variable::SslClientSDn => {
                self.text(entry.proved.map(|proved| proved.subject), DN_BYTES_MAX);
            }
            Variable::SslClientIDn => {
                self.text(entry.proved.map(|proved| proved.issuer), DN_BYTES_MAX);
            }
            Variable::ClientName => {
                self.text(entry.proved.map(|proved| proved.name), NAME_BYTES_MAX);
            }
            Variable::ClientFingerprint => {
                self.text(
                    entry.proved.map(|proved| proved.fingerprint),
                    NAME_BYTES_MAX,
                );
            }
            Variable::Principal => match entry.proved {
                Some(proved) => line::tag(self.out, proved.tag),
                None => self.nothing(),
            },
            Variable::Status => line::digits(self.out, entry.status.into(), 3),
            Variable::BodyBytesSent => line::digits(self.out, entry.response_bytes, 1),
            Variable::RequestTime => self.seconds(times.duration),
            Variable::RequestId => self.text(Some(entry.request_id), NAME_BYTES_MAX),
            Variable::TraceId => self.text(entry.trace_id, NAME_BYTES_MAX),
            Variable::UpstreamAddr => self.address(entry.server_address),
            Variable::UpstreamConnectTime => self.maybe_seconds(times.connect),
            Variable::UpstreamHeaderTime => {
                let both = times.connect.zip(times.header);
                self.maybe_seconds(both.map(|(connect, header)| connect + header));
            }
            Variable::UpstreamResponseTime => {
                let asked = times.asked;
                self.maybe_seconds(asked.map(|asked| times.duration.saturating_sub(asked)));
            }
            Variable::McpMethod => self.text(entry.mcp_method, NAME_BYTES_MAX),
            Variable::McpTool => self.text(entry.tool_name, NAME_BYTES_MAX),
            Variable::McpSession => match entry.session {
                Some(session) => line::tag(self.out, session.bits()),
                None => self.nothing(),
            },
            Variable::McpEra => self.text(entry.era, NAME_BYTES_MAX),
            Variable::RpcCode => match entry.rpc_code {
                Some(code) => line::signed(self.out, code),
                None => self.nothing(),
            },
            Variable::Listener => self.text(Some(entry.listener), NAME_BYTES_MAX),
            Variable::Pool => self.text(entry.pool, NAME_BYTES_MAX),
            Variable::Endpoint => self.text(entry.server, NAME_BYTES_MAX),
            Variable::QueueTime => self.seconds(times.queue),
            Variable::FirstByteTime => self.maybe_seconds(times.first_byte),
            Variable::Retries => line::digits(self.out, entry.retries.into(), 1),
            Variable::RequestBytes => line::digits(self.out, entry.request_bytes, 1),
            Variable::Termination => self.out.extend_from_slice(&entry.termination),
            Variable::EndReason => self.known(entry.end_reason),
        }
    }

    fn header(&mut self, entry: &Entry<'_>, at: usize, is_address: bool) {
        let value = entry.headers.get(at).copied().flatten().unwrap_or_default();
        self.bytes(match is_address {
            true => bare_address(value),
            false => value,
        });
    }

    /// A word of our own, in which nothing has to be escaped.
    fn known(&mut self, word: &str) {
        self.out.extend_from_slice(word.as_bytes());
    }

    fn nothing(&mut self) {
        if self.escape == Escape::Default {
            self.out.push(b'-');
        }
    }

    fn text(&mut self, value: Option<&str>, bytes_max: usize) {
        match value {
            Some(value) if !value.is_empty() => self.part(value, bytes_max),
            _ => self.nothing(),
        }
    }

    /// A value, or nothing at all where it is empty.
    fn part(&mut self, value: &str, bytes_max: usize) {
        let value = line::cut(value, bytes_max);
        match self.escape {
            Escape::Default => self.hexed(value.as_bytes()),
            Escape::Json => line::escape(self.out, value),
        }
    }

    /// Bytes that may be no text.
    fn bytes(&mut self, value: &[u8]) {
        let value = &value[..value.len().min(NAME_BYTES_MAX)];
        match self.escape {
            _ if value.is_empty() => self.nothing(),
            Escape::Default => self.hexed(value),
            Escape::Json => line::escape_bytes(self.out, value),
        }
    }

    fn hexed(&mut self, value: &[u8]) {
        for &byte in value {
            match byte {
                b'"' | b'\\' | 0..=0x1F | 0x7F.. => {
                    let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                    self.out.extend_from_slice(b"\\x");
                    self.out.extend_from_slice(&digits);
                }
                plain => self.out.push(plain),
            }
        }
    }

    fn ip(&mut self, address: Option<SocketAddr>) {
        match address {
            Some(address) => line::ip(self.out, address.ip()),
            // nginx's word for a client of a unix socket.
            None => self.known("unix:"),
        }
    }

    fn port(&mut self, address: Option<SocketAddr>) {
        match address {
            Some(address) => line::digits(self.out, address.port().into(), 1),
            None => self.nothing(),
        }
    }

    fn address(&mut self, address: Option<SocketAddr>) {
        match address {
            Some(address) => line::address(self.out, address),
            None => self.nothing(),
        }
    }

    fn maybe_seconds(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.seconds(time),
            None => self.nothing(),
        }
    }

    fn seconds(&mut self, time: Duration) {
        line::digits(self.out, time.as_secs(), 1);
        self.out.push(b'.');
        line::digits(self.out, time.subsec_millis().into(), 3);
    }

    /// `2026-07-28T09:05:03+00:00`.
    fn iso8601(&mut self, entry: &Entry<'_>) {
        line::timestamp(self.out, entry.at);
        // Without the milliseconds and the Z.
        self.out.truncate(self.out.len() - ".000Z".len());
        self.known("+00:00");
    }

    /// `28/Jul/2026:09:05:03 +0000`.
    fn common_time(&mut self, entry: &Entry<'_>) {
        let since = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = line::civil(seconds / 86_400);
        line::digits(self.out, day, 2);
        self.out.push(b'/');
        self.known(MONTHS[(month as usize + 11) % 12]);
        self.out.push(b'/');
        line::digits(self.out, year, 4);
        for part in [seconds % 86_400 / 3600, seconds / 60 % 60, seconds % 60] {
            self.out.push(b':');
            line::digits(self.out, part, 2);
        }
        self.known(" +0000");
    }
}

/// The path, of which nothing but the query could hold a secret.
fn path<'a>(entry: &Entry<'a>) -> &'a str {
    let path = entry.path;
    path.split_once('?').map_or(path, |(path, _)| path)
}

fn protocol(entry: &Entry<'_>) -> &'static str {
    match entry.http_version {
        "1.0" => "HTTP/1.0",
        "2" => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// An address without its query and fragment, and without a user and a password.
fn bare_address(address: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', address).unwrap_or(address.len());
    let address = &address[..end];
    match memchr::memmem::find(address, b"://").map(|at| at + 3) {
        Some(start) => {
            let rest = &address[start..];
            let slash = memchr::memchr(b'/', rest);
            // Where the end is not here, for it was cut off, neither may the sign of a password be.
            let is_cut = slash.is_none() && address.len() >= NAME_BYTES_MAX;
            match memchr::memchr(b'@', &rest[..slash.unwrap_or(rest.len())]) {
                None if !is_cut => address,
                _ => b"",
            }
        }
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::entry;
    use super::*;
    use crate::config::LogFormat;

    /// The line for `entry` in a format that the configuration has read.
    fn line(format: &str, keys: &str, entry: &Entry<'_>) -> String {
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:1 }}]\nroutes: [{{ path: /, pool: a }}]\npools: {{ a: {{ endpoints: [127.0.0.1:2] }} }}\nlog: {{ access: {{ format: '{format}'{keys} }} }}\n"
        );
        let config = crate::config::parse("test", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let LogFormat::Text(format) = config.log.access.format else {
            panic!("a text");
        };
        let mut out = Vec::new();
        write(&mut out, &format, entry);
        String::from_utf8(out).expect("lines are ASCII")
    }

    #[test]
    fn every_variable_says_what_it_promises() {
        for (name, value) in [
            ("remote_addr", "192.0.2.7"),
            ("remote_port", "50000"),
            ("remote_user", "-"),
            ("server_addr", "192.0.2.1"),
            ("server_port", "443"),
            ("time_iso8601", "2026-07-28T09:05:03+00:00"),
            ("time_local", "28/Jul/2026:09:05:03 +0000"),
            ("msec", "1785229503.042"),
            ("request", "POST /mcp HTTP/1.1"),
            ("request_method", "POST"),
            ("uri", "/mcp"),
            ("request_uri", "/mcp"),
            ("server_protocol", "HTTP/1.1"),
            ("scheme", "https"),
            ("host", "tools.example.com"),
            ("http_host", "tools.example.com"),
            ("http_user_agent", "client/1.0"),
            ("ssl_protocol", "TLSv1.3"),
            ("ssl_client_verify", "SUCCESS"),
            ("ssl_client_s_dn", "CN=w1,O=Example"),
            ("ssl_client_i_dn", "CN=Authority"),
            ("client_name", "w1.example"),
            ("client_fingerprint", "0a1b"),
            ("principal", "00c0ffee"),
            ("status", "200"),
            ("body_bytes_sent", "4096"),
            ("request_time", "0.012"),
            ("request_id", "a1b2c3"),
            ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("upstream_addr", "10.0.0.1:9001"),
            ("upstream_connect_time", "0.000"),
            ("upstream_header_time", "0.007"),
            ("upstream_response_time", "0.009"),
            ("mcp_method", "tools/call"),
            ("mcp_tool", "get_tide"),
            ("mcp_session", "TAG"),
            ("mcp_era", "session"),
            ("rpc_code", "-32602"),
            ("listener", "edge"),
            ("pool", "weather"),
            ("endpoint", "w1"),
            ("queue_time", "0.002"),
            ("first_byte_time", "0.009"),
            ("retries", "1"),
            ("request_bytes", "120"),
            ("termination", "--"),
            ("end_reason", "complete"),
        ] {
            let tag = entry().session.map_or(0, |session| session.bits());
            let value = value.replace("TAG", &format!("{tag:08x}"));
            let line = line(&format!("${name}"), "", &entry());
            assert_eq!(line, format!("{value}\n"), "{name}");
        }
        assert_eq!(Variable::ALL.len(), 47, "all of them are above");
    }

    #[test]
    fn what_is_not_known_is_a_dash_or_empty() {
        let bare = Entry {
            tool_name: None,
            rpc_code: None,
            tls: None,
            proved: None,
            user_agent: None,
            server_address: None,
            headers: &[None],
            ..entry()
        };
        let format = "$mcp_tool,$rpc_code,$ssl_protocol,$http_user_agent,$upstream_addr,$http_x";
        assert_eq!(line(format, "", &bare), "-,-,-,-,-,-\n");
        assert_eq!(line(format, ", escape: json", &bare), ",,,,,\n");
        let format = "$ssl_client_verify,$ssl_client_s_dn,$ssl_client_i_dn,$client_name,$principal";
        assert_eq!(line(format, "", &bare), "NONE,-,-,-,-\n");
    }

    #[test]
    fn a_line_is_cut_at_its_bound() {
        let long = "\u{1}".repeat(600);
        let entry = Entry {
            path: &long,
            ..entry()
        };
        let line = line(&"$uri".repeat(30), "", &entry);
        assert_eq!(line.len(), LINE_BYTES_MAX);
        assert!(line.ends_with('\n'));
    }

    proptest! {
        #[test]
        fn no_value_leaves_its_line(
            path in any::<String>(),
            tool in any::<String>(),
            agent in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let headers = [Some(agent.as_slice())];
            let made = Entry {
                path: &path,
                tool_name: Some(&tool),
                user_agent: Some(&agent),
                headers: &headers,
                ..entry()
            };
            let text = "$uri $mcp_tool $http_user_agent $http_referer";
            let plain = line(text, "", &made);
            prop_assert_eq!(plain.find('\n'), Some(plain.len() - 1));
            prop_assert!(plain.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
            prop_assert!(!plain.contains('"'));
        }
    }

    #[test]
    fn an_address_loses_what_may_be_secret() {
        for (address, bare) in [
            ("https://h/p?token=x", "https://h/p"),
            ("https://h/p#x", "https://h/p"),
            ("https://u:p@h/p", ""),
            (&format!("https://u:{}", "p".repeat(118)), ""),
            ("/p/@x?y", "/p/@x"),
            ("https://h/@x", "https://h/@x"),
        ] {
            assert_eq!(
                bare_address(address.as_bytes()),
                bare.as_bytes(),
                "{address}"
            );
        }
    }

    #[test]
    fn a_host_is_shown_without_its_port() {
        for (host, name) in [
            ("h:80", "h"),
            ("h", "h"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
