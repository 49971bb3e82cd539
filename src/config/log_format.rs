//! Lines of the access log in the operator's own words: a text in which `$name` stands for what is
//! known of a request.
//!
//! The names are those of nginx where it has one for the thing, and beside them ours for what it does
//! not know. What a format asks for is found out when the configuration is read, so a line is a walk
//! over pieces.
//!
//! What may hold a secret has no name: queries, cookies, credentials, ids of sessions. Any other
//! request header is `$http_NAME`, unless its name says that it holds such a thing.

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object with everything that is known.
    Json,
    /// A text of the operator's.
    Text(TextFormat),
}

/// A text with values in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFormat {
    /// In order.
    pub pieces: Vec<Piece>,
    /// The request headers that the pieces ask for by their place in this list: lower case, each once,
    /// at most [`HEADERS_MAX`].
    pub headers: Vec<String>,
    /// How values are made safe.
    pub escape: Escape,
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Literal(String),
    /// What is known under this name.
    Value(Variable),
    /// The first value of the request header with this place in [`TextFormat::headers`].
    Header(usize),
    /// The same for a header that holds an address, of which the query is cut off.
    Address(usize),
}

/// How values are made safe: no byte that a client sends may end a line or obey a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Escape {
    /// As nginx does: `"`, `\` and every byte that is not visible ASCII as `\xXX`; nothing is `-`.
    Default,
    /// Fit for a JSON text; nothing is an empty text.
    Json,
}

/// Request headers that one format may ask for.
pub const HEADERS_MAX: usize = 16;
/// Pieces of one format, and bytes of its text.
const PIECES_MAX: usize = 128;
const BYTES_MAX: usize = 2048;

/// nginx's `combined`.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
                        $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";

macro_rules! variables {
    ($($variant:ident $name:literal $about:literal)+) => {
        /// Something that is known of a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Variable {
            $(#[doc = $about] $variant,)+
        }

        impl Variable {
            /// Every one with its name.
            pub const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant),)+];
        }
    };
}

variables! {
    RemoteAddr "remote_addr" "Address of the client."
    RemotePort "remote_port" "Port of the client."
    RemoteUser "remote_user" "Who the client says it is; not known yet."
    ServerAddr "server_addr" "Our own address on the connection."
    ServerPort "server_port" "Our own port."
    TimeIso8601 "time_iso8601" "When the exchange ended, in UTC, to the second."
    TimeLocal "time_local" "The same as web servers write it, in UTC."
    Msec "msec" "The same in seconds since 1970, with milliseconds."
    Request "request" "Method, path without its query, and version."
    RequestMethod "request_method" "HTTP method."
    Uri "uri" "Path without its query."
    RequestUri "request_uri" "The same: queries are not logged."
    ServerProtocol "server_protocol" "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`."
    Scheme "scheme" "`http` or `https`."
    Host "host" "The host that was asked for, without a port."
    HttpHost "http_host" "The host that was asked for, as it was asked."
    HttpUserAgent "http_user_agent" "The client's `User-Agent`."
    SslProtocol "ssl_protocol" "`TLSv1.2`, `TLSv1.3`, or nothing."
    SslClientVerify "ssl_client_verify" "`SUCCESS` for a client that has proved who it is, else `NONE`."
    SslClientSDn "ssl_client_s_dn" "The subject of the client's certificate (RFC 2253)."
    SslClientIDn "ssl_client_i_dn" "The subject of who has signed it."
    Status "status" "HTTP status."
    BodyBytesSent "body_bytes_sent" "Bytes of the reply's body."
    RequestTime "request_time" "Seconds to the end of the reply."
    RequestId "request_id" "A random id, 16 hex digits."
    TraceId "trace_id" "The trace that the request belongs to, 32 hex digits, or nothing."
    UpstreamAddr "upstream_addr" "Address of the endpoint."
    UpstreamConnectTime "upstream_connect_time" "Seconds until the connection to the endpoint stood."
    UpstreamHeaderTime "upstream_header_time" "Seconds from the attempt to the head of the answer."
    UpstreamResponseTime "upstream_response_time" "Seconds from the attempt to the end of the reply."
    McpMethod "mcp_method" "MCP method."
    McpTool "mcp_tool" "The tool that was called."
    McpSession "mcp_session" "A short hash of the session's id."
    McpEra "mcp_era" "`session` or `stateless`."
    RpcCode "rpc_code" "The code of the JSON-RPC error that was the answer."
    ClientName "client_name" "The name that the client's certificate is for."
    ClientFingerprint "client_fingerprint" "SHA-256 of the client's certificate."
    Principal "principal" "A short hash of who the client has proved to be."
    Listener "listener" "Name of the listener."
    Pool "pool" "Name of the pool."
    Endpoint "endpoint" "Name of the endpoint."
    QueueTime "queue_time" "Seconds that it waited for a place at an endpoint."
    FirstByteTime "first_byte_time" "Seconds to the first byte of the reply."
    Retries "retries" "Attempts after the first."
    RequestBytes "request_bytes" "Bytes of the request's body."
    Termination "termination" "Who ended the exchange, and in which step: two letters."
    EndReason "end_reason" "Why the exchange ended."
}

/// Names of nginx for what is not logged here, and why or what to write instead.
const OTHERS: &[(&str, &str)] = &[
    ("args", "queries may hold secrets and are not logged"),
    (
        "query_string",
        "queries may hold secrets and are not logged",
    ),
    ("bytes_sent", "write `$body_bytes_sent`"),
    (
        "request_length",
        "write `$request_bytes`, the length of the body",
    ),
    ("content_length", "write `$request_bytes`"),
    ("request_body", "what clients send is not logged"),
    (
        "server_name",
        "write `$listener`, or `$host` for what was asked for",
    ),
    (
        "ssl_client_fingerprint",
        "write `$client_fingerprint`, which is of SHA-256",
    ),
    ("upstream_status", "write `$status` and `$termination`"),
];

/// Parts of the names of headers that hold credentials, arguments or ids of sessions.
const SECRET: [&str; 14] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "session",
    "password",
    "passwd",
    "key",
    "credential",
    "signature",
    "jwt",
    "assertion",
    "mcp-param",
    "last-event",
];

/// Headers that hold an address, whose query may hold secrets.
const ADDRESSES: [&str; 6] = [
    "referer",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
];

/// What is wrong with a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The variable it is about: how many `$` stand before it, and its length with its own. `None`: the
    /// format as a whole.
    pub(super) at: Option<(usize, usize)>,
    /// One line.
    pub(super) message: String,
}

impl Wrong {
    fn whole(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at: None, message }
    }
}

/// Reads `json`, `combined`, or a text with variables.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn parse(text: &str, escape: Escape) -> Result<LogFormat, Vec<Wrong>> {
    match text {
        "json" => return Ok(LogFormat::Json),
        "combined" => return parse(COMBINED, escape),
        text if !text.contains('$') => {
            let message = "`format` takes json, combined, or a text with variables such as \
                           \"$remote_addr $status\"";
            return Err(vec![Wrong::whole(message)]);
        }
        text if text.len() > BYTES_MAX => {
            let message = format!("this format is longer than {BYTES_MAX} bytes");
            return Err(vec![Wrong::whole(message)]);
        }
        text if text.contains(char::is_control) => {
            let message = "a format is one line without control characters";
            return Err(vec![Wrong::whole(message)]);
        }
        _ => {}
    }
    let mut format = TextFormat {
        pieces: Vec::new(),
        headers: Vec::new(),
        escape,
    };
    let mut wrong = Vec::new();
    let mut parts = text.split('$');
    format.literal(parts.next().unwrap_or(""));
    for (at, part) in parts.enumerate() {
        let (name, length, rest) = name(part);
        match format.piece(name) {
            Ok(piece) => format.pieces.push(piece),
            Err(message) => wrong.push(Wrong {
                at: Some((at, length + 1)),
                message,
            }),
        }
        format.literal(rest);
    }
    if format.pieces.len() > PIECES_MAX {
        wrong.push(Wrong::whole(format!(
            "this format has more than {PIECES_MAX} pieces"
        )));
    }
    match wrong.is_empty() {
        true => Ok(LogFormat::Text(format)),
        false => Err(wrong),
    }
}

/// The name at the start of a text, how long it is with its braces, and what follows.
fn name(text: &str) -> (&str, usize, &str) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if let Some(inner) = text.strip_prefix('{')
        && let Some((name, rest)) = inner.split_once('}')
        && name.bytes().all(|byte| is_part(&byte))
    {
        return (name, name.len() + 2, rest);
    }
    let length = text.bytes().take_while(|byte| is_part(byte)).count();
    let (name, rest) = text.split_at(length);
    (name, length, rest)
}

impl TextFormat {
    fn literal(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(Piece::Literal(text.to_owned()));
        }
    }

    fn piece(&mut self, name: &str) -> Result<Piece, String> {
        if let Some((_, variable)) = Variable::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(Piece::Value(*variable));
        }
        match name.strip_prefix("http_") {
            Some(header) if !header.is_empty() => self.header(header),
            _ => Err(unknown(name)),
        }
    }

    fn header(&mut self, name: &str) -> Result<Piece, String> {
        let header = name.to_ascii_lowercase().replace('_', "-");
        if SECRET.iter().any(|part| header.contains(part)) {
            return Err(format!(
                "`$http_{name}` may hold a secret, and what clients send of these is not logged"
            ));
        }
        let is_address = ADDRESSES.contains(&header.as_str());
        let known = self.headers.iter().position(|other| *other == header);
        let at = match known {
            Some(at) => at,
            None if self.headers.len() == HEADERS_MAX => {
                return Err(format!("a format takes at most {HEADERS_MAX} headers"));
            }
            None => {
                self.headers.push(header);
                self.headers.len() - 1
            }
        };
        Ok(match is_address {
            true => Piece::Address(at),
            false => Piece::Header(at),
        })
    }
}

fn unknown(name: &str) -> String {
    if name.is_empty() {
        return "a `$` begins the name of a variable".to_owned();
    }
    if let Some((_, why)) = OTHERS.iter().find(|(other, _)| *other == name) {
        return format!("there is no variable `${name}`; {why}");
    }
    if name.starts_with("arg_") || name.starts_with("cookie_") {
        return format!("there is no variable `${name}`; it may hold a secret");
    }
    let names = Variable::ALL.iter().map(|(known, _)| *known);
    match super::suggest::nearest(name, names) {
        Some(near) => format!("there is no variable `${name}`; did you mean `${near}`?"),
        None => format!("there is no variable `${name}`; docs/logs.md lists all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        match parse(text, Escape::Default) {
            Ok(LogFormat::Text(format)) => format.pieces,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn message(text: &str) -> String {
        let wrong = parse(text, Escape::Default).expect_err(text);
        wrong[0].message.clone()
    }

    #[test]
    fn a_text_falls_into_literals_and_values() {
        let literal = |text: &str| Piece::Literal(text.to_owned());
        assert_eq!(
            pieces("a $status-${mcp_tool}x $status"),
            [
                literal("a "),
                Piece::Value(Variable::Status),
                literal("-"),
                Piece::Value(Variable::McpTool),
                literal("x "),
                Piece::Value(Variable::Status),
            ]
        );
    }

    #[test]
    fn headers_are_asked_for_once_and_addresses_lose_their_query() {
        let Ok(LogFormat::Text(format)) =
            parse("$http_x_a $http_referer $http_x_a", Escape::Default)
        else {
            panic!("it is good");
        };
        assert_eq!(format.headers, ["x-a", "referer"]);
        assert_eq!(format.pieces[0], Piece::Header(0));
        assert_eq!(format.pieces[2], Piece::Address(1));
        assert_eq!(format.pieces[4], Piece::Header(0));
    }

    #[test]
    fn what_may_hold_a_secret_has_no_variable() {
        for name in [
            "http_authorization",
            "http_cookie",
            "http_mcp_session_id",
            "http_x_api_key",
            "http_mcp_param_city",
            "http_last_event_id",
            "http_x_auth_request_user",
            "args",
            "arg_token",
            "cookie_a",
            "request_body",
        ] {
            let message = message(&format!("${name}"));
            assert!(
                message.contains("secret") || message.contains("not logged"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_slip_is_told_with_its_place_and_the_right_name() {
        let wrong = parse("$status $requst_time ${nope} $", Escape::Default).expect_err("wrong");
        assert_eq!(wrong[0].at, Some((1, "$requst_time".len())));
        assert!(wrong[0].message.contains("did you mean `$request_time`?"));
        assert_eq!(wrong[1].at, Some((2, "${nope}".len())));
        assert_eq!(wrong[2].at, Some((3, 1)));
    }

    #[test]
    fn a_format_is_bounded() {
        assert!(message(&"$status ".repeat(300)).contains("longer"));
        assert!(message(&"$status".repeat(200)).contains("pieces"));
        assert!(message("$status\n").contains("one line"));
        assert!(message("plain").contains("json, combined"));
        let many: String = (0..17).map(|n| format!("$http_x_{n}")).collect();
        assert!(message(&many).contains("at most 16 headers"));
    }

    #[test]
    fn names_are_sorted_out_by_no_rule_but_stand_once() {
        let mut names: Vec<&str> = Variable::ALL.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_format_of_web_servers_has_a_name() {
        assert!(pieces("combined").contains(&Piece::Value(Variable::TimeLocal)));
    }
}
