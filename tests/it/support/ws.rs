//! WebSocket (RFC 6455): frames, the handshake's key, and a client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BytesMut};
use sha1::{Digest, Sha1};

use super::wire::{NoHead, ResponseHead, Wire};
use super::{Client, within};

/// RFC 6455, section 1.3.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The mask of every frame a [`WebSocket`] sends. It must be unforeseeable in earnest; here it helps
/// to read a dump.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame is (RFC 6455, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Close(Option<u16>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Any other opcode.
    Other(u8),
}

impl Frame {
    /// The bytes of this frame; those from a client are masked.
    pub(crate) fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let (opcode, payload) = match self {
            Self::Text(text) => (1, text.clone().into_bytes()),
            Self::Binary(bytes) => (2, bytes.clone()),
            Self::Close(None) => (8, Vec::new()),
            Self::Close(Some(code)) => (8, code.to_be_bytes().to_vec()),
            Self::Ping(bytes) => (9, bytes.clone()),
            Self::Pong(bytes) => (10, bytes.clone()),
            Self::Other(opcode) => (*opcode, Vec::new()),
        };
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(masked | length as u8),
            length @ 126..=0xffff => {
                frame.push(masked | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(masked | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let key = mask.unwrap_or_default();
        frame.extend_from_slice(mask.as_ref().map_or(&[], |key| &key[..]));
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
        frame
    }

    /// Takes the next whole frame off `inbox`. Fragments are not put together.
    pub(crate) fn take(inbox: &mut BytesMut) -> Option<Self> {
        let (&first, &second) = (inbox.first()?, inbox.get(1)?);
        let (length, mut head) = match second & 0x7f {
            126 => (
                u16::from_be_bytes(*inbox.get(2..)?.first_chunk()?) as usize,
                4,
            ),
            127 => (
                u64::from_be_bytes(*inbox.get(2..)?.first_chunk()?) as usize,
                10,
            ),
            length => (length as usize, 2),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            key = *inbox.get(head..)?.first_chunk()?;
            head += 4;
        }
        if inbox.len() < head + length {
            return None;
        }
        inbox.advance(head);
        let payload = inbox.split_to(length);
        let payload: Vec<u8> = payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(b, k)| b ^ k)
            .collect();
        Some(match first & 0x0f {
            1 => Self::Text(String::from_utf8_lossy(&payload).into_owned()),
            2 => Self::Binary(payload),
            8 => Self::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
            9 => Self::Ping(payload),
            10 => Self::Pong(payload),
            opcode => Self::Other(opcode),
        })
    }

    /// Reads the next frame, or tells how the connection ended.
    pub(crate) async fn read(wire: &Wire) -> Result<Self, NoHead> {
        loop {
            if let Some(frame) = wire.with_inbox(Self::take) {
                return Ok(frame);
            }
            match wire.fill().await {
                Ok(0) if wire.with_inbox(|inbox| inbox.is_empty()) => return Err(NoHead::Closed),
                Ok(0) => return Err(NoHead::Truncated),
                Ok(_) => {}
                Err(_) => return Err(NoHead::Reset),
            }
        }
    }
}

/// The `Sec-WebSocket-Accept` that answers this `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &str) -> String {
    BASE64.encode(Sha1::digest(format!("{key}{KEY_SUFFIX}")))
}

/// The client's end of a WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    wire: Wire,
    /// The 101 reply.
    pub(crate) head: ResponseHead,
}

impl WebSocket {
    /// Does the handshake with subprotocol `mcp`; the refusal's head when there is one.
    pub(crate) async fn connect(client: &Client) -> Result<Self, ResponseHead> {
        let key = BASE64.encode(b"sixteen bytes ok");
        let mut request = format!("GET {} HTTP/1.1\r\n", client.path());
        for (name, value) in [
            ("host", client.address().to_string().as_str()),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", &key),
            ("sec-websocket-protocol", "mcp"),
        ] {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in &client.headers().0 {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let connection = client.connect().await.expect("a connection");
        connection.raw(request.as_bytes()).await.expect("sent");
        let wire = connection.into_wire();
        let head = within("the handshake", wire.response_head()).await;
        let head = head.expect("a reply to the handshake");
        if head.status != 101 {
            return Err(head);
        }
        let accept = head.headers.get("sec-websocket-accept").map(str::to_owned);
        assert_eq!(accept, Some(accept_key(&key)), "{head:?}");
        Ok(Self { wire, head })
    }

    /// Sends a frame, masked.
    pub(crate) async fn send(&self, frame: &Frame) {
        let sent = self.wire.write(&frame.encode(Some(MASK))).await;
        sent.expect("the WebSocket takes a frame");
    }

    /// Sends a text frame.
    pub(crate) async fn send_text(&self, text: &str) {
        self.send(&Frame::Text(text.into())).await;
    }

    /// The next frame, or how the connection ended.
    pub(crate) async fn next(&self) -> Result<Frame, NoHead> {
        within("a frame", Frame::read(&self.wire)).await
    }

    /// The next frame's text; panics at anything else.
    pub(crate) async fn next_text(&self) -> String {
        match self.next().await {
            Ok(Frame::Text(text)) => text,
            other => panic!("{other:?} came, a text frame was expected"),
        }
    }

    /// Sends a close frame and reads up to the end of the connection. Returns the peer's close code.
    pub(crate) async fn close(self, code: u16) -> Option<u16> {
        self.send(&Frame::Close(Some(code))).await;
        let mut answered = None;
        while let Ok(frame) = self.next().await {
            if let Frame::Close(code) = frame {
                answered = code;
            }
        }
        answered
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.wire.reset_on_close();
    }
}
