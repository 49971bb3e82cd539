//! Upgraded connections: the handshake with the endpoint, and two directions of bytes.
//!
//! The bytes are not interpreted, but the borders of WebSocket frames are followed (RFC 6455
//! section 5.2), so that a tunnel that has to end can say so with a close frame in a place where
//! one may stand.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::dial::{self, Target};
use super::dress::More;
use super::fields::{HOST, Name, Names, Stays};
use super::wire::Wire;
use super::{Error, Outgoing};

/// Bound on the endpoint's response head.
const HEAD_MAX: usize = 16 * 1024;
/// Buffer of each direction.
const BUFFER: usize = 8 * 1024;
/// How long the second direction may go on after the first has ended.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(10);

/// The endpoint's answer to an upgrade request.
pub struct Answer {
    /// 101 if it agreed.
    pub status: u16,
    /// How long it took to connect.
    pub connect: Duration,
    /// The head to send to the client.
    pub head: Vec<u8>,
    /// A session id that a server showed that did not upgrade; it is not in `head`.
    pub session: Option<String>,
    /// Bytes that came behind the head.
    pub rest: BytesMut,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The client closed first.
    Client,
    /// The server closed first.
    Server,
    /// It was told to end.
    Told,
}

/// Bytes carried, and how it ended.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// From the client to the server.
    pub up: u64,
    /// From the server to the client.
    pub down: u64,
    /// Who ended it.
    pub end: TunnelEnd,
}

/// Connects to an endpoint and asks it to upgrade. `answer_timeout` bounds the wait for its answer, in
/// whose head `more` is changed.
///
/// # Errors
/// [`Error::Refused`], [`Error::Connect`], [`Error::Lacking`], [`Error::ConnectTimeout`];
/// [`Error::Closed`] or [`Error::Malformed`] for an answer that did not come or is not HTTP.
pub async fn connect(
    target: &Target<'_>,
    answer_timeout: Duration,
    out: &Outgoing<'_>,
    more: Option<More<'_>>,
) -> Result<(Wire, Answer), Error> {
    let asked = Instant::now();
    // An upgrade is HTTP/1.1, whatever else the endpoint speaks.
    let mut server = dial::connect(target, false).await?;
    let connect = asked.elapsed();
    server
        .write_all(&request(out))
        .await
        .map_err(|_| Error::Closed)?;
    server.flush().await.map_err(|_| Error::Closed)?;
    let answer = timeout(answer_timeout, read_answer(&mut server, more))
        .await
        .map_err(|_| Error::ReadTimeout)??;
    Ok((server, Answer { connect, ..answer }))
}

fn request(out: &Outgoing<'_>) -> Vec<u8> {
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

async fn read_answer(server: &mut Wire, more: Option<More<'_>>) -> Result<Answer, Error> {
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        if let Some(length) = super::h1::head::end_of_head(&bytes) {
            let head = bytes.split_to(length);
            return parse_answer(&head, bytes, more);
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

fn parse_answer(head: &[u8], rest: BytesMut, more: Option<More<'_>>) -> Result<Answer, Error> {
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
        if field.name.eq_ignore_ascii_case("mcp-session-id") {
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

/// Carries bytes both ways until one side closes or `told` resolves. `told` ends the tunnel with a
/// close frame 1001, "going away", to both sides where the frames allow it.
pub async fn carry<C, S>(
    client: C,
    server: S,
    rest: &[u8],
    told: impl Future<Output = ()>,
) -> Carried
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    let mut up = Direction::default();
    let mut down = Direction::default();
    if !rest.is_empty() {
        down.count(rest);
        if client_write.write_all(rest).await.is_err() || client_write.flush().await.is_err() {
            return Carried {
                up: 0,
                down: down.bytes,
                end: TunnelEnd::Client,
            };
        }
    }
    let end = {
        let mut upward = std::pin::pin!(up.pump(&mut client_read, &mut server_write));
        let mut downward = std::pin::pin!(down.pump(&mut server_read, &mut client_write));
        tokio::select! {
            () = &mut upward => {
                let _ = timeout(HALF_CLOSED_MAX, downward).await;
                TunnelEnd::Client
            }
            () = &mut downward => {
                let _ = timeout(HALF_CLOSED_MAX, upward).await;
                TunnelEnd::Server
            }
            () = told => TunnelEnd::Told,
        }
    };
    if end == TunnelEnd::Told {
        // 1001 in a close frame; masked towards the server, as a client's must be.
        if down.at_border() {
            let _ = client_write.write_all(&[0x88, 2, 0x03, 0xe9]).await;
            let _ = client_write.flush().await;
        }
        if up.at_border() {
            let _ = server_write
                .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9])
                .await;
        }
        let _ = client_write.shutdown().await;
        let _ = server_write.shutdown().await;
    }
    Carried {
        up: up.bytes,
        down: down.bytes,
        end,
    }
}

/// One direction of a tunnel.
#[derive(Default)]
struct Direction {
    bytes: u64,
    frames: Frames,
    /// A piece is being written, and nobody knows how much of it has left.
    writing: bool,
}

impl Direction {
    fn count(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.frames.feed(piece);
    }

    /// May a frame of ours follow what was sent?
    fn at_border(&self) -> bool {
        !self.writing && self.frames.at_border()
    }

    async fn pump<R, W>(&mut self, from: &mut R, to: &mut W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let piece = &buffer[..read];
            self.writing = true;
            if to.write_all(piece).await.is_err() || to.flush().await.is_err() {
                break;
            }
            self.writing = false;
            self.count(piece);
        }
        let _ = to.shutdown().await;
    }
}

/// Follows the borders of WebSocket frames in one direction.
#[derive(Default)]
struct Frames {
    head: [u8; 14],
    filled: usize,
    payload: u64,
}

impl Frames {
    fn at_border(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }

    fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.payload > 0 {
                let skip = self.payload.min(piece.len() as u64);
                self.payload -= skip;
                piece = &piece[usize::try_from(skip).unwrap_or(piece.len())..];
                continue;
            }
            self.head[self.filled] = piece[0];
            self.filled += 1;
            piece = &piece[1..];
            if self.filled == self.head_length() {
                self.payload = self.payload_length();
                self.filled = 0;
            }
        }
    }

    /// Length of the head that has begun: two bytes, more for long payloads, four for a mask.
    fn head_length(&self) -> usize {
        if self.filled < 2 {
            return 2;
        }
        let extended = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_length(&self) -> u64 {
        match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let mut long = [0; 8];
                long.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_borders_are_found_on_every_split() {
        let mut bytes = vec![0x81, 3, b'a', b'b', b'c'];
        bytes.extend([0x81, 0x80 | 2, 1, 2, 3, 4, b'x', b'y']);
        bytes.extend([0x82, 126, 0, 200]);
        bytes.extend([7; 200]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
        let borders = [0, 5, 13, 217, 228];
        for split in 0..=bytes.len() {
            let mut frames = Frames::default();
            frames.feed(&bytes[..split]);
            assert_eq!(frames.at_border(), borders.contains(&split), "at {split}");
            frames.feed(&bytes[split..]);
            assert!(frames.at_border());
        }
    }

    #[tokio::test]
    async fn a_tunnel_that_ends_in_a_frame_says_nothing_inside_of_it() {
        let (client, mut client_far) = tokio::io::duplex(64);
        let (server, mut server_far) = tokio::io::duplex(256);
        let frame = [&[0x82, 98][..], &[7; 98]].concat();
        server_far.write_all(&frame).await.unwrap();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let carrying = tokio::spawn(async move {
            carry(client, server, b"", async {
                let _ = told.await;
            })
            .await
        });
        // Once some of the frame is there, the rest of it waits for room.
        let mut seen = vec![0; 1];
        client_far.read_exact(&mut seen).await.unwrap();
        tell.send(()).unwrap();
        client_far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(carrying.await.unwrap().end, TunnelEnd::Told);
        // Cut in the frame, or whole and then told: never told inside of it.
        let told = [frame.as_slice(), &[0x88, 2, 0x03, 0xe9]].concat();
        assert!(told.starts_with(&seen), "{seen:?}");
    }

    #[tokio::test]
    async fn a_tunnel_that_is_told_to_end_says_going_away() {
        let (client, mut client_far) = tokio::io::duplex(64);
        let (server, mut server_far) = tokio::io::duplex(64);
        let carried = carry(client, server, b"", async {}).await;
        assert_eq!(carried.end, TunnelEnd::Told);
        let mut seen = Vec::new();
        client_far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [0x88, 2, 0x03, 0xe9]);
        seen.clear();
        server_far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
    }
}
