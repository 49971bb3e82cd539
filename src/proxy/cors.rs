//! Preflights: what a browser asks before a page may send a request (the Fetch standard, section
//! 3.2.2), answered here in every server's place.

use std::sync::Arc;

use bytes::Bytes;

use super::ctx::Ctx;
use super::fault::Fault;
use super::local;
use crate::config::Cors;
use crate::mcp::headers::MCP_PARAM_PREFIX;
use crate::transport::dress::Fields;
use crate::transport::fields::ORIGIN;
use crate::transport::{Downstream, RequestHead};

/// Names of fields that one preflight may ask for beyond those that stand always.
const ASKED_MAX: usize = 64;

/// Is this a preflight of a page?
pub fn is_preflight(head: &dyn RequestHead) -> bool {
    head.method() == "OPTIONS"
        && head.known(ORIGIN).is_some()
        && head.get("access-control-request-method").is_some()
}

/// May the page of this request read the answer?
pub fn lets_in(cors: &Cors, head: &dyn RequestHead) -> bool {
    head.known(ORIGIN)
        .is_some_and(|origin| cors.lets_in(origin))
}

/// Answers a preflight.
///
/// # Errors
/// [`Fault::Origin`].
pub async fn answer<D: Downstream>(down: &mut D, ctx: &mut Ctx, cors: &Cors) -> Result<(), Fault> {
    if !lets_in(cors, down.head()) {
        return Err(Fault::Origin);
    }
    let names = allowed(cors, down.head());
    let dress = down.dress_mut();
    dress.response = Some(Arc::clone(&cors.preflight) as Arc<dyn Fields>);
    let set = [("access-control-allow-headers", names.as_bytes())];
    local::fixed(down, ctx, 204, &set, Bytes::new()).await;
    Ok(())
}

/// The names of fields that the page may send: those that stand always, and of those that it asks for
/// the ones that are allowed without being known beforehand.
pub fn allowed(cors: &Cors, head: &dyn RequestHead) -> String {
    let mut names = cors.headers.clone();
    let asked = head.get("access-control-request-headers");
    let asked = asked.and_then(|asked| str::from_utf8(asked).ok());
    let asked = asked.unwrap_or_default().split(',').map(str::trim);
    let is_good = |name: &&str| {
        let known = || {
            cors.headers
                .split(", ")
                .any(|other| other.eq_ignore_ascii_case(name))
        };
        let prefix = name.get(..MCP_PARAM_PREFIX.len());
        let is_param = prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(MCP_PARAM_PREFIX));
        (cors.any_header || cors.mcp && is_param)
            && http::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && !known()
    };
    for name in asked.filter(is_good).take(ASKED_MAX) {
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::h1::head::Head;

    fn asked(cors: &str, kind: &str, names: &str) -> String {
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /x, pool: p, cors: {{ origins: [\"https://a.example\"]{cors} }} }}]\npools: {{ p: {{ kind: {kind}, endpoints: [127.0.0.1:1] }} }}\n"
        );
        let config = crate::config::parse("test", &text).unwrap();
        let cors = config.routes[0].cors.clone().unwrap();
        let head = format!(
            "OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {names}\r\n\r\n"
        );
        let head = Head::parse(head.as_bytes(), 50).unwrap();
        assert!(is_preflight(&head) && lets_in(&cors, &head));
        allowed(&cors, &head)
    }

    #[test]
    fn parameters_of_tools_are_allowed_where_mcp_is_spoken() {
        let names = "content-type,mcp-param-region, Mcp-Param-X,x-other,mcp-param-a b";
        let mcp = asked("", "mcp", names);
        assert!(
            mcp.ends_with("mcp-name, mcp-param-region, Mcp-Param-X"),
            "{mcp}"
        );
        assert_eq!(asked("", "http", names), "content-type, authorization");
    }

    #[test]
    fn a_star_allows_what_is_asked_for_and_no_more() {
        let names = asked(", headers: [\"*\"]", "http", "x-a, content-type, b@b, x-b");
        assert_eq!(names, "content-type, authorization, x-a, x-b");
        let many = "x-a,".repeat(100);
        assert_eq!(
            asked(", headers: [\"*\"]", "http", &many)
                .matches("x-a")
                .count(),
            64
        );
    }
}
