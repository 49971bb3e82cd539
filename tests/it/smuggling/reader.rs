//! The reference: a reader of HTTP/1.1 requests that takes one form of each thing and no other.
//!
//! It shares no code with Tidegate, Pingora or `httparse`, and is slow on purpose: it begins anew at
//! the first byte whenever more has arrived. What it cannot read, an endpoint could read in two ways.

/// One request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    /// The values of a field.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let mine = self.fields.iter().filter(move |(have, _)| have == name);
        mine.map(|(_, value)| value.as_str())
    }
}

/// What a connection's bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) requests: Vec<Seen>,
    /// Bytes behind the last whole request: the beginning of another.
    pub(super) rest: Vec<u8>,
    /// Why `rest` can never become a request.
    pub(super) fault: Option<String>,
}

/// Reads all that has arrived.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut at = 0;
    loop {
        match one(&bytes[at..]) {
            Ok(Some((seen, length))) => {
                reading.requests.push(seen);
                at += length;
            }
            Ok(None) => break,
            Err(why) => {
                reading.fault = Some(why);
                break;
            }
        }
    }
    reading.rest = bytes[at..].to_vec();
    reading
}

type Partly<T> = Result<Option<T>, String>;

fn one(bytes: &[u8]) -> Partly<(Seen, usize)> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    // Latin-1: a byte over ASCII may stand in a value, and is itself.
    let head: String = bytes[..end].iter().map(|b| char::from(*b)).collect();
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = first[..] else {
        return Err(format!("a first line of {first:?}"));
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("a method of {method:?}"));
    }
    if (!target.starts_with('/') && (method, target) != ("OPTIONS", "*"))
        || !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
    {
        return Err(format!("a target of {target:?}"));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("a name of {name:?}"));
        }
        if value.chars().any(|c| (c < ' ' && c != '\t') || c == '\x7f') {
            return Err(format!("a control byte in {line:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        body: Vec::new(),
    };
    let [host] = seen.all("host").collect::<Vec<_>>()[..] else {
        return Err("not exactly one host".into());
    };
    if host.is_empty() || host.contains([' ', '/', ',', '@', '\t']) {
        return Err(format!("a host of {host:?}"));
    }
    let start = end + 4;
    let body = body(&seen, &bytes[start..])?;
    Ok(body.map(|(body, length)| {
        seen.body = body;
        (seen, start + length)
    }))
}

/// The body, and the bytes that it took.
fn body(seen: &Seen, bytes: &[u8]) -> Partly<(Vec<u8>, usize)> {
    let lengths: Vec<&str> = seen.all("content-length").collect();
    let codings: Vec<&str> = seen.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([length], []) => {
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            let length = length.parse::<usize>().ok().filter(|_| digits);
            let length = length.ok_or("a length that is no number")?;
            Ok(bytes.get(..length).map(|body| (body.to_vec(), length)))
        }
        ([], ["chunked"]) => chunks(bytes),
        _ => Err(format!("framed by {lengths:?} and {codings:?}")),
    }
}

fn chunks(bytes: &[u8]) -> Partly<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else {
            let begun = &bytes[at..];
            let good = begun.iter().all(|b| b.is_ascii_hexdigit() || *b == b'\r');
            return if good {
                Ok(None)
            } else {
                Err("a chunk's size".into())
            };
        };
        let size = &bytes[at..at + line];
        if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("a chunk's size of {size:?}"));
        }
        let digits = std::str::from_utf8(size).map_err(|e| e.to_string())?;
        let size = usize::from_str_radix(digits, 16).map_err(|e| e.to_string())?;
        at += line + 2;
        let Some(data) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if &data[size..] != b"\r\n" {
            // Behind the last chunk this is what refuses trailers as well.
            return Err("a chunk that does not end".into());
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[test]
fn the_reference_reads_what_is_plain_and_nothing_else() {
    let good = b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\
        POST / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGE";
    let reading = read(good);
    assert_eq!(reading.requests.len(), 2);
    assert!(reading.requests.iter().all(|seen| seen.body == b"hi"));
    assert_eq!((&reading.rest[..], reading.fault), (&b"GE"[..], None));
    for bad in [
        &b"GET / HTTP/1.0\r\nHost: h\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n x: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\nx: y\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nhi",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked, x\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n",
    ] {
        let reading = read(bad);
        assert!(reading.fault.is_some(), "{}", String::from_utf8_lossy(bad));
        assert!(reading.requests.is_empty());
    }
}
