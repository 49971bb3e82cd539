//! Headers as the specification has them, and against another implementation of it.

use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxyHeader};

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn between(source: &str, destination: &str) -> Header {
    Header::For {
        source: address(source),
        destination: address(destination),
    }
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn lines_are_read_as_they_are_specified() {
    for (line, expected) in [
        (
            "PROXY TCP4 192.0.2.1 203.0.113.9 56324 443\r\n",
            between("192.0.2.1:56324", "203.0.113.9:443"),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n",
            between("[2001:db8::1]:0", "[2001:db8::2]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", Header::Itself),
        ("PROXY UNKNOWN ff::1 anything 1 2\r\n", Header::Itself),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Header::Itself),
    ] {
        let with_more = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(
            read(with_more.as_bytes()),
            Ok(Some((expected, line.len()))),
            "{line}"
        );
        for end in 0..line.len() {
            assert_eq!(
                read(&line.as_bytes()[..end]),
                Ok(None),
                "{line} cut at {end}"
            );
        }
    }
}

#[test]
fn a_line_that_is_none_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 1\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 01 2\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 65536 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY TCP5 192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY UDP4 192.0.2.1 203.0.113.9 1 2\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.9 1 2\n",
        "PROXY unknown\r\n",
        "PROXY TCP4 192.0.2.1\u{e9} 203.0.113.9 1 2\r\n",
    ] {
        assert_eq!(read(line.as_bytes()), Err(Wrong::Malformed), "{line}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX));
    assert_eq!(read(long.as_bytes()), Err(Wrong::Malformed));
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 16));
    assert_eq!(
        read(longest.as_bytes()),
        Ok(Some((Header::Itself, LINE_MAX)))
    );
}

#[test]
fn what_does_not_begin_like_a_header_is_told_at_its_first_byte() {
    for bytes in [
        &b"G"[..],
        b"\x16\x03\x01",
        b"PROXI",
        b"\r\n\r\n\0\r\nQUIX",
        b"proxy ",
        b"\r\nP",
    ] {
        assert_eq!(read(bytes), Err(Wrong::Missing), "{bytes:?}");
    }
    assert_eq!(read(b""), Ok(None));
}

#[test]
fn binary_headers_are_read_as_they_are_specified() {
    let v4 = [192, 0, 2, 1, 203, 0, 113, 9, 0xdc, 0x04, 0x01, 0xbb];
    let expected = between("192.0.2.1:56324", "203.0.113.9:443");
    assert_eq!(read(&binary(0x21, 0x11, &v4)), Ok(Some((expected, 28))));
    // With additions, which are passed over.
    let with_tlv = [&v4[..], &[0x04, 0, 2, 7, 7]].concat();
    assert_eq!(
        read(&binary(0x21, 0x11, &with_tlv)),
        Ok(Some((expected, 33)))
    );
    for (command, family, rest) in [
        (0x20, 0x11, &v4[..]),
        (0x20, 0x00, &[]),
        (0x20, 0xff, &[1, 2, 3]),
        (0x21, 0x00, &[]),
        (0x21, 0x31, &[0; 216]),
        (0x21, 0x12, &v4),
        (0x21, 0x11, &[0; 12]),
    ] {
        let header = binary(command, family, rest);
        let length = header.len();
        assert_eq!(
            read(&header),
            Ok(Some((Header::Itself, length))),
            "{command} {family}"
        );
        for end in 0..length {
            assert_eq!(read(&header[..end]), Ok(None));
        }
    }
    for (command, family, rest) in [
        (0x11, 0x11, &v4[..]),
        (0x22, 0x11, &v4),
        (0x21, 0x41, &v4),
        (0x21, 0x13, &v4),
        (0x21, 0x11, &v4[..11]),
        (0x21, 0x21, &v4),
        (0x21, 0x11, &[0; HEADER_MAX]),
    ] {
        let header = binary(command, family, rest);
        assert_eq!(read(&header), Err(Wrong::Malformed), "{command} {family}");
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_here_and_elsewhere(
        source in any_address(),
        destination in any_address(),
        binary: bool,
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let version = if binary { Version::V2 } else { Version::V1 };
        let header = Header::between(source, destination);
        let mut bytes = Vec::new();
        header.write(version, &mut bytes);
        let length = bytes.len();
        bytes.extend(behind);
        for end in 0..length {
            prop_assert_eq!(read(&bytes[..end]), Ok(None));
        }
        let Ok(Some((again, read_length))) = read(&bytes) else {
            return Err(TestCaseError::fail("not read"));
        };
        prop_assert_eq!(read_length, length);
        let (theirs, their_length) =
            ProxyHeader::parse(&bytes, ParseConfig::default()).expect("theirs reads it");
        prop_assert_eq!(their_length, length);
        match (again, theirs.proxied_address()) {
            (Header::Itself, None) => prop_assert_eq!(header, Header::Itself),
            (Header::For { source: from, destination: to }, Some(theirs)) => {
                prop_assert_eq!(canonical(from), canonical(source));
                prop_assert_eq!(canonical(to), canonical(destination));
                prop_assert_eq!((from, to), (theirs.source, theirs.destination));
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    #[test]
    fn whatever_comes_is_read_in_one_way_however_it_is_cut(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
        beginning in 0..3,
    ) {
        let begin = [&b""[..], SIGNATURE, b"PROXY TCP4 "][beginning as usize];
        bytes.splice(0..0, begin.iter().copied());
        let whole = read(&bytes);
        if let Ok(Some((_, length))) = whole {
            prop_assert!(length <= bytes.len() && length <= HEADER_MAX);
        }
        let mut seen = Ok(None);
        for end in 0..=bytes.len() {
            seen = read(&bytes[..end]);
            if seen != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(seen, whole);
    }
}
