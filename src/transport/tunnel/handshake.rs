//! An upgrade request and its answer, as bytes.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::{Answer, Changes};
use crate::transport::fields::{HOST, Name, Names, Stays};
use crate::transport::h1::head::end_of_head;
use crate::transport::wire::Wire;
use crate::transport::{Error, Outgoing};

/// Bound on the endpoint's response head.
const HEAD_MAX: usize = 16 * 1024;

/// The bytes of an upgrade request.
pub(super) fn request(out: &Outgoing<'_>) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", out.method, out.target).into_bytes();
    out.with_authority(&mut |authority| {
        bytes.extend_from_slice(b"Host: ");
        bytes.extend_from_slice(authority);
        bytes.extend_from_slice(b"\r\n");
    });
    let mut put = |name: &[u8], value: &[u8]| {
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    };
    let stays = Stays::new(out.head, out.edits, Names::of(&[HOST]));
    out.head.each(&mut |name, value| {
        if !stays.has(name) {
            put(name.as_bytes(), value);
        }
    });
    out.edits
        .each(&mut |name, value| put(name.as_bytes(), value));
    put(b"Connection", b"Upgrade");
    put(b"Upgrade", b"websocket");
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Reads the head of the answer, and changes it.
pub(super) async fn read_answer(server: &mut Wire, changes: Changes<'_>) -> Result<Answer, Error> {
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        if let Some(length) = end_of_head(&bytes) {
            let head = bytes.split_to(length);
            return parse_answer(&head, bytes, changes);
        }
        if bytes.len() > HEAD_MAX {
            return Err(Error::Malformed("the response head is too long"));
        }
        match server.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Error::Closed),
            Ok(_) => {}
        }
    }
}

fn parse_answer(head: &[u8], rest: BytesMut, changes: Changes<'_>) -> Result<Answer, Error> {
    let more = changes.more;
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(Error::Malformed("the response head is not HTTP")),
    }
    let status = response.code.unwrap_or_default();
    let reason = response.reason.unwrap_or_default();
    let mut out = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    let mut put = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let mut session = None;
    for field in response.headers.iter() {
        if changes.hides_session && field.name.eq_ignore_ascii_case("mcp-session-id") {
            session = Some(String::from_utf8_lossy(field.value).into_owned());
            continue;
        }
        let framing = matches!(
            field.name.to_ascii_lowercase().as_str(),
            "content-length" | "transfer-encoding"
        );
        let name = Name::new(field.name.as_bytes());
        if more.is_some_and(|more| more.fields.leaves(name)) {
            continue;
        }
        if (framing && status != 101) || !name.is_hop_by_hop() {
            put(field.name, field.value);
        }
    }
    if let Some(more) = more {
        more.each(&mut put);
    }
    for (name, value) in changes.add {
        put(name, value.as_bytes());
    }
    if status == 101 {
        put("Connection", b"Upgrade");
        put("Upgrade", b"websocket");
    } else {
        put("Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Answer {
        status,
        connect: Duration::ZERO,
        head: out,
        session,
        rest,
    })
}
