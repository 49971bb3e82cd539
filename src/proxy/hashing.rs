//! What the consistent hash of a pool goes by: one thing of the request, or nothing where it is missing.

use std::net::IpAddr;

use super::affinity::with_cookie;
use super::state::PoolState;
use crate::config::HashOn;
use crate::session::NameHash;
use crate::transport::RequestHead;

/// The key of a request, if its pool balances by one and the request has what it is made of.
pub fn hash_key(pool: &PoolState, head: &dyn RequestHead, client: Option<IpAddr>) -> Option<u64> {
    key(pool.hash_on()?, head, client)
}

fn key(on: &HashOn, head: &dyn RequestHead, client: Option<IpAddr>) -> Option<u64> {
    let of = |text: &str| NameHash::of(text).get();
    match on {
        HashOn::ClientIp => client.map(|client| of(&client.to_string())),
        HashOn::Header(name) => head
            .get(name.as_str())
            .map(|value| of(&String::from_utf8_lossy(value))),
        HashOn::Cookie(name) => with_cookie(head, name, of),
        HashOn::Query(name) => parameter(head.query()?, name).map(of),
        HashOn::Path => Some(of(head.path())),
    }
}

/// The value of the first parameter of this name, as it was sent.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::h1::head::Head;

    fn of(on: &HashOn, target: &str, cookie: &str) -> Option<u64> {
        let text = format!(
            "GET {target} HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\nX-T: {cookie}\r\n\r\n"
        );
        let head = Head::parse(text.as_bytes(), 10).unwrap();
        key(on, &head, "192.0.2.1".parse().ok())
    }

    #[test]
    fn a_key_is_made_of_one_thing_of_the_request_and_of_nothing_else() {
        let name = || "t".to_owned();
        let cases = [
            (
                HashOn::Cookie(name()),
                ("/a?t=9", "x=1; t=5"),
                ("/b", "t=5"),
                ("/a?t=9", "x=1; t=6"),
            ),
            (
                HashOn::Query(name()),
                ("/a?t=5&u=1", "a"),
                ("/b?x&t=5", "b"),
                ("/a?t=6&u=1", "a"),
            ),
            (HashOn::Path, ("/a?t=1", "a"), ("/a", "b"), ("/b?t=1", "a")),
            (
                HashOn::Header("x-t".parse().unwrap()),
                ("/a", "5"),
                ("/b", "5"),
                ("/a", "6"),
            ),
        ];
        for (on, one, same, other) in cases {
            let of = |(target, cookie)| of(&on, target, cookie);
            assert!(of(one).is_some(), "{on:?}");
            assert_eq!(of(one), of(same), "{on:?}");
            assert_ne!(of(one), of(other), "{on:?}");
        }
        let client = HashOn::ClientIp;
        assert_eq!(of(&client, "/a", "1"), of(&client, "/b", "2"));
    }

    #[test]
    fn what_is_not_there_is_no_key() {
        assert_eq!(of(&HashOn::Cookie("t".to_owned()), "/?t=1", "tt=1"), None);
        assert_eq!(of(&HashOn::Query("t".to_owned()), "/", "t=1"), None);
        assert_eq!(of(&HashOn::Query("t".to_owned()), "/?tt=1", "t=1"), None);
        assert_eq!(parameter("a&t&b", "t"), Some(""));
        assert_eq!(parameter("t=1&t=2", "t"), Some("1"), "the first");
    }
}
