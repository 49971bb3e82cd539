//! Texts with a shape of their own: addresses, hosts, paths, origins, names.
//!
//! Each parser takes the text of one value and answers with the checked value or with a sentence
//! for the operator. None looks anything up.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use http::HeaderName;

use super::host_port::HostPort;
use super::model::{HashOn, HostRule, PathRule};
use super::problem::quoted;

/// Longest name of a pool, listener, endpoint or cookie. Names of endpoints travel inside of every
/// session id, and all of them are labels of metrics.
const NAME_MAX: usize = 64;

/// Longest path of a route or check in bytes.
const PATH_MAX: usize = 1024;

/// Longest path of a unix socket: Linux's own limit, without the final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Longest path of a file: Linux's own limit, without the final NUL.
const FILE_PATH_MAX: usize = 4095;

/// An IP address and port to accept on.
pub(super) fn bind(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown = quoted(text);
    let port = text.strip_prefix("*:").or_else(|| text.strip_prefix(':'));
    if let Some(port) = port
        .or(Some(text))
        .filter(|port| port.parse::<u16>().is_ok())
    {
        return Err(format!(
            "{shown} has no address; write 0.0.0.0:{port}, or \"[::]:{port}\" for IPv6 as well"
        ));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 8080);
        return Err(format!("{shown} has no port; write for example {example}"));
    }
    Err(format!(
        "{shown} is not an IP address and port; write for example 127.0.0.1:8080"
    ))
}

/// What an address says about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Nothing.
    Unsaid,
    /// There is none.
    Http,
    /// It is spoken.
    Https,
}

/// The address of an endpoint: `host:port`, `[v6]:port`, `http://host:port`, `https://host:port` or
/// `unix:/path`.
pub(super) fn endpoint(text: &str) -> Result<(HostPort, Scheme), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok((HostPort::socket(&socket_path(path)?), Scheme::Unsaid));
    }
    let shown = quoted(text);
    let (scheme, rest) = match text.split_once("://") {
        None => (Scheme::Unsaid, text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        Some(_) => {
            return Err(format!(
                "{shown}: an endpoint is host:port, http://host:port or https://host:port"
            ));
        }
    };
    if let Some(at) = rest.find(['/', '?', '#']) {
        let bare = quoted(&rest[..at]);
        return Err(format!(
            "{shown}: an endpoint has no path, requests keep their own; write {bare}"
        ));
    }
    if rest.contains('@') {
        return Err(format!("{shown}: an endpoint has no user or password"));
    }
    let in_ipv6 = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    if rest.matches(':').count() > 1 && rest.chars().all(in_ipv6) {
        return Err(format!(
            "{shown}: an IPv6 address stands in brackets and quotes, as in \"[::1]:9001\""
        ));
    }
    let Some((host, port)) = rest
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'))
    else {
        return Err(format!(
            "{shown} has no port; write for example {}:8080",
            quoted(rest).trim_matches('`')
        ));
    };
    let port = port.parse::<u16>().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| format!("{shown}: the port must be a number from 1 to 65535"))?;
    let host = host_name(host).map_err(|wrong| format!("{shown}: {wrong}"))?;
    Ok((HostPort { host, port }, scheme))
}

/// The name of a service (RFC 2782): `_mcp._tcp.example.org`.
pub(super) fn service(text: &str) -> Result<HostPort, String> {
    let is_label = |label: &str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let is_service = name.starts_with('_') && name.split('.').count() > 1;
    if !is_service || name.len() > 253 || !name.split('.').all(is_label) {
        let shown = quoted(text);
        return Err(format!(
            "{shown} is not the name of a service such as _mcp._tcp.example.org"
        ));
    }
    Ok(HostPort {
        host: name,
        port: 0,
    })
}

/// A name server: an address, with port 53 unless another is written.
pub(super) fn name_server(text: &str) -> Result<SocketAddr, String> {
    let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    let server = ip.or_else(|_| text.parse::<SocketAddr>());
    let server = server.ok().filter(|server| server.port() != 0);
    server.ok_or_else(|| {
        let shown = quoted(text);
        format!("{shown} is not an address such as 10.0.0.2, 10.0.0.2:5353 or \"[::1]:53\"")
    })
}

/// Which hosts a route takes.
pub(super) fn host_rule(text: &str) -> Result<HostRule, String> {
    let shown = quoted(text);
    if text == "*" {
        return Err("`*` is every host; leave `host` out instead".to_owned());
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!(
            "{shown}: write the host alone, without scheme and path"
        ));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if bare.unwrap_or(text).parse::<Ipv6Addr>().is_ok() {
        return host_name(text.trim_matches(['[', ']'])).map(HostRule::Exact);
    }
    if text.contains(':') {
        return Err(format!(
            "{shown}: write the host without a port; a route takes every port"
        ));
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(parent) => (true, parent),
        None => (false, text),
    };
    if name.contains('*') {
        return Err(format!(
            "{shown}: `*` may only stand for the first label, as in \"*.example.com\""
        ));
    }
    let name = host_name(name).map_err(|wrong| format!("{shown}: {wrong}"))?;
    Ok(if below {
        HostRule::Below(name)
    } else {
        HostRule::Exact(name)
    })
}

/// A DNS name in lower case without its final dot, or an IP address in its usual form.
fn host_name(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(bare) = bare {
        let ip: Ipv6Addr = bare
            .parse()
            .map_err(|_| "this is not an IPv6 address".to_owned())?;
        return Ok(ip.to_string());
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if !name.is_ascii() {
        return Err("write the host in ASCII; its international form begins with xn--".to_owned());
    }
    let label = |label: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=63).contains(&label.len()) && label.chars().all(allowed) && !label.starts_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("this is not a host name".to_owned());
    }
    // A name whose last label is a number can be nothing but a broken IPv4 address (WHATWG URL).
    let last = name.rsplit('.').next().unwrap_or("");
    if last.chars().all(|c| c.is_ascii_digit()) {
        return Err("this is not an IPv4 address".to_owned());
    }
    Ok(name)
}

/// A path that is taken exactly.
pub(super) fn exact_path(text: &str) -> Result<PathRule, String> {
    path(text).map(PathRule::Exact)
}

/// A path that is taken with everything below it.
pub(super) fn prefix_path(text: &str) -> Result<PathRule, String> {
    let path = path(text)?;
    let trimmed = path.trim_end_matches('/');
    let prefix = if trimmed.is_empty() { "/" } else { trimmed };
    Ok(PathRule::Prefix(prefix.to_owned()))
}

/// A path as it stands in a request line (RFC 3986, section 3.3), without query.
pub(super) fn path(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    if !text.starts_with('/') {
        let rest = quoted(text);
        return Err(format!(
            "{shown}: a path begins with `/`; write /{}",
            rest.trim_matches('`')
        ));
    }
    if text.len() > PATH_MAX {
        return Err(format!("{shown} is longer than {PATH_MAX} bytes"));
    }
    if text.contains(['?', '#']) {
        return Err(format!("{shown}: a path has no query or fragment"));
    }
    if text.contains('*') {
        return Err(format!(
            "{shown}: `*` has no meaning in a path; `path_prefix` takes everything below a path"
        ));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{shown}: write spaces and characters beyond ASCII percent-encoded, as in %20"
        ));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(format!("{shown}: a path has no `.` or `..` segments"));
    }
    Ok(text.to_owned())
}

/// An `Origin` value (RFC 6454, section 6.2) in lower case, without the scheme's own port.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    let wrong = |what: &str| format!("{shown}: {what}; write for example https://app.example.com");
    if text == "null" {
        return Err(format!(
            "{shown}: every sandboxed page sends this origin, so it can not be let in alone"
        ));
    }
    let lower = text.to_ascii_lowercase();
    let Some((scheme, rest)) = lower.split_once("://") else {
        return Err(wrong("an origin begins with a scheme"));
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme_ok {
        return Err(wrong("this is not a scheme"));
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Err(wrong("an origin is scheme://host[:port] and nothing more"));
    }
    if rest.contains('*') {
        return Err(wrong("an origin is matched whole, without `*` in it"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (rest, None),
    };
    let host = host_name(host).map_err(|what| wrong(&what))?;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err(wrong("the port must be a number from 1 to 65535")),
    };
    Ok(match port {
        Some(port) if !matches!((scheme, port), ("http", 80) | ("https", 443)) => {
            format!("{scheme}://{host}:{port}")
        }
        Some(_) | None => format!("{scheme}://{host}"),
    })
}

/// What consistent hashing looks at.
pub(super) fn hash_on(text: &str) -> Result<HashOn, String> {
    let shown = quoted(text);
    let wrong = || {
        format!(
            "`hash_on` takes client_ip, path, \"header:NAME\", \"cookie:NAME\" or \"query:NAME\", not \
             {shown}"
        )
    };
    match text.split_once(':').map(|(kind, name)| (kind, name.trim())) {
        None if text == "client_ip" => Ok(HashOn::ClientIp),
        None if text == "path" => Ok(HashOn::Path),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(HashOn::Header)
            .map_err(|_| format!("{shown}: this is not the name of a header")),
        Some(("cookie", name)) => cookie_name(name).map(HashOn::Cookie),
        Some(("query", name)) if is_parameter(name) => Ok(HashOn::Query(name.to_owned())),
        Some(("query", _)) => Err(format!("{shown}: this is not the name of a parameter")),
        None | Some(_) => Err(wrong()),
    }
}

/// Can it stand before the `=` in a query, as it is?
fn is_parameter(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'&' | b'=' | b'#');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// The name of a pool: also a label of metrics and part of status lines.
pub(super) fn pool_name(text: &str) -> Result<String, String> {
    name(text, "._-")
}

/// The name of a listener or an endpoint, which may look like an address.
pub(super) fn address_name(text: &str) -> Result<String, String> {
    name(text, "._-:[]")
}

fn name(text: &str, marks: &str) -> Result<String, String> {
    let shown = quoted(text);
    if text.is_empty() {
        return Err("a name must not be empty".to_owned());
    }
    if text.len() > NAME_MAX {
        return Err(format!(
            "{shown} is longer than {NAME_MAX} characters; write a shorter `name`"
        ));
    }
    let wrong = |c: &char| !(c.is_ascii_alphanumeric() || marks.contains(*c));
    match text.chars().find(wrong) {
        None => Ok(text.to_owned()),
        Some(c) => {
            let marks: Vec<String> = marks.chars().map(String::from).collect();
            let marks = marks.join(" ");
            let c = quoted(&c.to_string());
            Err(format!(
                "{shown}: a name has no {c}; it is made of a-z A-Z 0-9 {marks}"
            ))
        }
    }
}

/// The name of an endpoint that is a unix socket: that and its path.
pub(super) fn socket_name(text: &str) -> Result<String, String> {
    name(text, "._-:/")
}

/// The name of a cookie: a token (RFC 6265, section 4.1.1).
pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(token) {
        return Ok(text.to_owned());
    }
    let shown = quoted(text);
    Err(format!(
        "{shown} is not the name of a cookie: 1 to {NAME_MAX} letters, digits, `-` and `_`"
    ))
}

/// The path of a unix socket, which the system wants shorter than others (unix(7)).
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = file_path(text)?;
    if text.len() > SOCKET_PATH_MAX {
        let shown = quoted(text);
        return Err(format!(
            "{shown} is longer than {SOCKET_PATH_MAX} bytes, which is the most for a unix socket"
        ));
    }
    Ok(path)
}

/// The permissions of a file in octal, as `chmod` takes them.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| {
        let shown = quoted(text);
        format!("{shown} is not a mode; write three octal digits behind a 0, such as 0660")
    })
}

/// An absolute path in the file system.
pub(super) fn file_path(text: &str) -> Result<PathBuf, String> {
    let shown = quoted(text);
    if !text.starts_with('/') {
        return Err(format!(
            "{shown}: write an absolute path, which begins with `/`"
        ));
    }
    if text.len() > FILE_PATH_MAX || text.contains('\0') {
        return Err(format!("{shown} cannot be the path of a file"));
    }
    Ok(PathBuf::from(text))
}
