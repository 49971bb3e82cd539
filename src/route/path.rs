//! Two ways to write one path.
//!
//! Routes decide what a client may reach, so a path must not pass one route in a spelling that its
//! server reads as a path of another. Percent-encoded letters and doubled slashes are compared as
//! what they stand for (RFC 3986, section 6.2.2.2); a path with dot segments, which no client sends
//! that means well (section 5.2.4), is not routed at all. What is sent on is what was sent.

use std::borrow::Cow;

/// The path with encoded unreserved characters decoded and doubled slashes as one. Nearly always the
/// path itself.
pub fn canonical(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    // Paths are short: looking at pairs costs less than making ready a search for them.
    let is_doubled = bytes.windows(2).any(|pair| pair == b"//");
    if memchr::memchr(b'%', bytes).is_none() && !is_doubled {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let decoded = escape(rest.as_bytes()).filter(|byte| is_unreserved(*byte));
        let (next, taken) = match decoded {
            Some(byte) => (char::from(byte), 3),
            None => (first, first.len_utf8()),
        };
        if !(next == '/' && plain.ends_with('/')) {
            plain.push(next);
        }
        rest = &rest[taken..];
    }
    Cow::Owned(plain)
}

/// Has the path a segment that is `.` or `..` to any server, however it is written? Backslashes and
/// encoded slashes count as slashes, as to some they do; what stands behind a `;` in a segment does
/// not count, as to some it does not.
pub fn has_dot_segment(path: &str) -> bool {
    let bytes = path.as_bytes();
    if memchr::memchr2(b'.', b'%', bytes).is_none() {
        return false;
    }
    let (mut dots, mut other, mut parameters) = (0, false, false);
    let mut rest = bytes;
    let mut found = false;
    while let Some(&first) = rest.first() {
        let (byte, taken) = escape(rest).map_or((first, 1), |byte| (byte, 3));
        match byte {
            b'/' | b'\\' => {
                found |= matches!(dots, 1 | 2) && !other;
                (dots, other, parameters) = (0, false, false);
            }
            b';' => parameters = true,
            b'.' if !parameters => dots += 1,
            _ if !parameters => other = true,
            _ => {}
        }
        rest = &rest[taken..];
    }
    found || (matches!(dots, 1 | 2) && !other)
}

/// The byte that an escape at the front stands for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_a_path_are_one() {
        for (path, plain) in [
            ("/admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%61%44min/x", "/aDmin/x"),
            ("//admin///x", "/admin/x"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%", "/a%"),
            ("/a%2", "/a%2"),
            ("/a%zz", "/a%zz"),
            ("/%2541", "/%2541"),
            ("/a%C3%BC", "/a%C3%BC"),
        ] {
            assert_eq!(canonical(path), plain, "{path}");
        }
        assert!(matches!(canonical("/mcp"), Cow::Borrowed(_)));
    }

    #[test]
    fn dot_segments_are_found_however_they_are_written() {
        for path in [
            "/..",
            "/a/../b",
            "/a/./b",
            "/.",
            "/a/..",
            "/%2e%2E/b",
            "/.%2e/b",
            "/a\\..\\b",
            "/a%2f..%2fb",
            "/a%5C..",
            "/..;/b",
            "/..;x=1/b",
            "/.;/b",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "/",
            "/mcp",
            "/.well-known/x",
            "/a..b/c",
            "/...",
            "/a.b/c.d",
            "/;..",
            "/a;../b",
            "/%2ex",
            "/..x",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
