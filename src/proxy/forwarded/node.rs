//! The addresses that proxies write down, and the syntax of `Forwarded` (RFC 7239 section 4).
//!
//! What is no address is no hop: `unknown`, an obfuscated identifier such as `_hidden`, a name. And
//! what does not keep to the syntax says nothing at all, since quotes that a client leaves open would
//! swallow what a proxy appends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// Longest text of an address with brackets, zone and port.
const ADDRESS_MAX: usize = 80;

/// The address in `X-Forwarded-For`, or in `for` of `Forwarded`: with or without a port, IPv6 with or
/// without brackets. The zone of an IPv6 address means something on one machine only, and is left out.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    if text.len() > ADDRESS_MAX {
        return None;
    }
    let text = str::from_utf8(text).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let bare = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
            IpAddr::V6(if bare { ipv6(address)? } else { return None })
        }
        None => match text.split_once(':') {
            None => IpAddr::V4(text.parse().ok()?),
            Some((_, rest)) if rest.contains(':') => IpAddr::V6(ipv6(text)?),
            Some((address, port)) if is_port(port) => IpAddr::V4(address.parse::<Ipv4Addr>().ok()?),
            Some(_) => return None,
        },
    };
    let address = address.to_canonical();
    (!address.is_unspecified()).then_some(address)
}

fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let bare = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((address, _)) => address,
        None => text,
    };
    bare.parse().ok()
}

/// A port, or the obfuscated one of RFC 7239 section 6.
fn is_port(text: &str) -> bool {
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let hidden = |rest: &str| {
        rest.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    !text.is_empty() && (digits || text.strip_prefix('_').is_some_and(hidden))
}

/// What one proxy has written into `Forwarded`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// Who has asked it.
    pub(super) client: Option<&'a [u8]>,
    /// By which scheme.
    pub(super) proto: Option<&'a [u8]>,
    /// For which host.
    pub(super) host: Option<&'a [u8]>,
}

/// The elements of one line, from left to right.
pub(super) type Elements<'a> = SmallVec<[Element<'a>; 2]>;

/// Appends the elements of a line to `found`. `None`, and what was found means nothing, if it does not
/// keep to the syntax.
pub(super) fn elements<'a>(line: &'a [u8], found: &mut Elements<'a>) -> Option<()> {
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        // A recipient puts up with empty elements (RFC 9110 section 5.6.1.2).
        if let Some(next) = rest.strip_prefix(b",") {
            rest = next.trim_ascii_start();
            continue;
        }
        let mut element = Element::default();
        loop {
            rest = pair(rest, &mut element)?.trim_ascii_start();
            match rest.split_first() {
                Some((b';', next)) => rest = next.trim_ascii_start(),
                None | Some((b',', _)) => break,
                Some(_) => return None,
            }
        }
        found.push(element);
    }
    Some(())
}

/// One `name=value`; what stands behind it.
fn pair<'a>(text: &'a [u8], element: &mut Element<'a>) -> Option<&'a [u8]> {
    let (name, rest) = text.split_at(text.iter().position(|byte| *byte == b'=')?);
    let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return None;
    }
    let (value, rest) = match rest[1..].strip_prefix(b"\"") {
        Some(quoted) => {
            let end = quoted
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\'))?;
            // Nothing that is of use here needs an escape.
            if quoted[end] == b'\\' {
                return None;
            }
            (&quoted[..end], &quoted[end + 1..])
        }
        None => {
            // Many do not quote what ought to be, such as an address with a port.
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b",;\"".contains(byte);
            let end = rest[1..].iter().position(ends);
            rest[1..].split_at(end.unwrap_or(rest.len() - 1))
        }
    };
    let place = match name {
        name if name.eq_ignore_ascii_case(b"for") => &mut element.client,
        name if name.eq_ignore_ascii_case(b"proto") => &mut element.proto,
        name if name.eq_ignore_ascii_case(b"host") => &mut element.host,
        _ => return Some(rest),
    };
    // Each at most once (RFC 7239 section 4).
    place.replace(value).is_none().then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_found_in_every_form_that_proxies_write() {
        for (text, expected) in [
            ("192.0.2.43", "192.0.2.43"),
            ("192.0.2.43:47011", "192.0.2.43"),
            ("192.0.2.43:_obf", "192.0.2.43"),
            ("2001:db8:cafe::17", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]:4711", "2001:db8:cafe::17"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(address(text.as_bytes()), expected.parse().ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "unknown",
            "_hidden",
            "_SEVKISEK",
            "example.com",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:123456",
            "1.2.3.4 ",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:",
            "fe80::1%",
            "0.0.0.0",
            "::",
            "\"1.2.3.4\"",
            "1.2.3.4/8",
            "\u{e9}",
        ] {
            assert_eq!(address(text.as_bytes()), None, "{text}");
        }
        let long = format!("fe80::1%{}", "x".repeat(100));
        assert_eq!(address(long.as_bytes()), None);
    }

    fn read(line: &str) -> Option<Vec<[Option<&str>; 3]>> {
        let mut found = Elements::new();
        elements(line.as_bytes(), &mut found)?;
        let text =
            |part: Option<&'_ [u8]>| part.map(|part| str::from_utf8(part).unwrap().to_owned());
        let found = found
            .iter()
            .map(|one| [one.client, one.proto, one.host].map(text));
        let found: Vec<_> = found.collect();
        Some(
            found
                .into_iter()
                .map(|one| one.map(|part| part.map(|part| &*part.leak())))
                .collect(),
        )
    }

    #[test]
    fn elements_are_told_apart_as_rfc_7239_has_them() {
        assert_eq!(
            read("for=192.0.2.60;proto=http;by=203.0.113.43"),
            Some(vec![[Some("192.0.2.60"), Some("http"), None]])
        );
        assert_eq!(
            read("For=\"[2001:db8::1]:4711\" , , HOST=\"a.example:8080\";for=_x;"),
            None,
            "a pair is missing at the end"
        );
        assert_eq!(
            read("For=\"[2001:db8::1]:4711\" , , HOST=\"a.example:8080\" ; for=_x"),
            Some(vec![
                [Some("[2001:db8::1]:4711"), None, None],
                [Some("_x"), None, Some("a.example:8080")],
            ])
        );
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("for=1.2.3.4:80").unwrap()[0][0], Some("1.2.3.4:80"));
    }

    #[test]
    fn a_line_with_a_quote_left_open_says_nothing() {
        for line in [
            "for=\"x, for=192.0.2.1",
            "for=\"x, for=\"[2001:db8::1]\"",
            "for=a\\, for=\"b\\\"",
            "for=\"a\"b",
            "for=a for=b",
            "for=a;for=b",
            "for",
            "=a",
            "fo r=a",
            "for=a;",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_first_a_proxy_has_the_last_word(sent in "[ -~]{0,40}") {
            let line = format!("{sent}, for=\"[2001:db8::17]\";proto=https");
            let mut found = Elements::new();
            if elements(line.as_bytes(), &mut found).is_some() {
                let last = found.last().unwrap();
                prop_assert_eq!(last.client.and_then(address), "2001:db8::17".parse().ok());
                prop_assert_eq!(last.proto, Some(&b"https"[..]));
            }
        }

        #[test]
        fn an_address_is_read_as_it_is_written(bits: u128, port: u16, v4: bool) {
            let written = if v4 {
                IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical()
            };
            prop_assume!(!written.is_unspecified());
            let socket = std::net::SocketAddr::new(written, port);
            prop_assert_eq!(address(written.to_string().as_bytes()), Some(written));
            prop_assert_eq!(address(socket.to_string().as_bytes()), Some(written));
        }
    }
}
