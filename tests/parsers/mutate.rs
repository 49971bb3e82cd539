//! Small damage to bytes, of the kind on which parsers disagree.

use proptest::prelude::*;

/// What is put into a message.
const PIECES: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n ",
    b"\r\n\t",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\"",
    b"/",
    b"\\",
    b"@",
    b"#",
    b"?",
    b"\0",
    b"\x0b",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"0",
    b"1",
    b"f",
    b"+",
    b"-",
    b"0x",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Host: h\r\n",
    b"GET / HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
];

#[derive(Debug, Clone, Copy)]
enum Damage {
    Insert(usize),
    Replace(usize),
    Delete(usize),
    Repeat(usize),
}

fn damage() -> impl Strategy<Value = (usize, Damage)> {
    let what = prop_oneof![
        (0..PIECES.len()).prop_map(Damage::Insert),
        (0..PIECES.len()).prop_map(Damage::Replace),
        (1usize..6).prop_map(Damage::Delete),
        (1usize..40).prop_map(Damage::Repeat),
    ];
    (any::<usize>(), what)
}

fn apply(bytes: &mut Vec<u8>, place: usize, damage: Damage) {
    let at = place % (bytes.len() + 1);
    match damage {
        Damage::Insert(piece) => drop(bytes.splice(at..at, PIECES[piece].iter().copied())),
        Damage::Replace(piece) => {
            let end = (at + PIECES[piece].len()).min(bytes.len());
            drop(bytes.splice(at..end, PIECES[piece].iter().copied()));
        }
        Damage::Delete(count) => drop(bytes.drain(at..(at + count).min(bytes.len()))),
        Damage::Repeat(count) => {
            let again = bytes[at..(at + count).min(bytes.len())].to_vec();
            drop(bytes.splice(at..at, again));
        }
    }
}

/// The same bytes as often as not; else with some damage.
pub(crate) fn damaged(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let some = prop_oneof![
        1 => Just(Vec::new()),
        1 => proptest::collection::vec(damage(), 1..4),
    ];
    (bytes, some).prop_map(|(mut bytes, some)| {
        for (place, damage) in some {
            apply(&mut bytes, place, damage);
        }
        bytes
    })
}

/// Where a message is cut into pieces.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(any::<usize>(), 0..4)
}

/// One of these, the first as often as all the others together.
pub(crate) fn mostly_first<T: Copy + std::fmt::Debug + 'static>(
    of: &'static [T],
) -> impl Strategy<Value = T> {
    prop_oneof![Just(of[0]), proptest::sample::select(of)]
}

/// A body in chunks, now and then an odd one.
pub(crate) fn chunked() -> impl Strategy<Value = Vec<u8>> {
    const EXTENSIONS: &[&str] = &[
        "",
        ";a=b",
        ";a=\"b;c\"",
        ";",
        " ",
        "\t;x",
        ";\u{e9}",
        ";a\0",
        "\r",
    ];
    const TRAILERS: &[&str] = &[
        "",
        "A: b\r\n",
        "A: b\r\nC: d\r\n",
        "A\r\n",
        "A: b\n",
        " \r\n",
        "\n",
        "A: b\r",
    ];
    const SIZES: &[&str] = &["", "0", "00000000000000", "0x", "+", " "];
    let piece = (
        proptest::collection::vec(any::<u8>(), 1..20),
        mostly_first(EXTENSIONS),
        prop_oneof![8 => Just(SIZES[0]), 1 => proptest::sample::select(SIZES)],
    );
    let pieces = proptest::collection::vec(piece, 0..4);
    (pieces, mostly_first(EXTENSIONS), mostly_first(TRAILERS)).prop_map(
        |(pieces, extension, trailers)| {
            let mut bytes = Vec::new();
            for (data, extension, before) in &pieces {
                let line = format!("{before}{:x}{extension}\r\n", data.len());
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(data);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(format!("0{extension}\r\n{trailers}\r\n").as_bytes());
            bytes
        },
    )
}

/// Fields that say how a body is framed, and the body: most are right, some are not.
pub(crate) fn framed() -> impl Strategy<Value = Vec<u8>> {
    const LINES: &[&str] = &[
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 6\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: 00000000000000000005\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 18446744073709551615\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "content-length:5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        "Content_Length: 5\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "transfer-encoding:chunked \t\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: y\r\nTransfer-Encoding: chunked\r\n",
    ];
    let body = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..30),
            damaged(chunked()),
            Just(b"0\r\n\r\nGET /two HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        ]
    };
    let join = |lines: &[u8], body: &[u8]| [lines, b"\r\n", body].concat();
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(move |body| {
            join(format!("Content-Length: {}\r\n", body.len()).as_bytes(), &body)
        }),
        4 => chunked().prop_map(move |body| join(b"Transfer-Encoding: chunked\r\n", &body)),
        2 => damaged(chunked()).prop_map(move |body| join(b"Transfer-Encoding: chunked\r\n", &body)),
        1 => Just(b"\r\n".to_vec()),
        3 => (proptest::collection::vec(proptest::sample::select(LINES), 0..3), body())
            .prop_map(move |(lines, body)| join(lines.concat().as_bytes(), &body)),
    ]
}
