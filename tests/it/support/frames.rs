//! HTTP/2 frame by frame, written by hand: what no library would send.
//!
//! Field blocks are literals without a table and without Huffman's code, so that every byte of a name
//! and a value is the test's own. Of what comes back only the frames are read, and of field blocks
//! only the status.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// ENHANCE_YOUR_CALM (RFC 9113 section 7).
pub(crate) const CALM: u32 = 11;
/// CANCEL.
pub(crate) const CANCEL: u32 = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or RST_STREAM.
    pub(crate) fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4).map(<[u8; 4]>::try_from);
        bytes.and_then(Result::ok).map_or(0, u32::from_be_bytes)
    }

    /// The status, which stands first in a field block.
    pub(crate) fn status(&self) -> Option<u16> {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let block = (self.kind == HEADERS).then_some(&self.payload[..])?;
        match *block.first()? {
            // A change of the table's size may stand before.
            first if first & 0xe0 == 0x20 => Self {
                payload: block[1..].to_vec(),
                ..self.clone()
            }
            .status(),
            first @ 0x88..=0x8e => Some(INDEXED[usize::from(first - 0x88)]),
            0x48 | 0x08 | 0x18 => digits(&block[1..]),
            _ => None,
        }
    }
}

/// A string of digits, which may be in Huffman's code: 5 bits for 0 to 2, 6 for 3 to 9.
fn digits(string: &[u8]) -> Option<u16> {
    let length = usize::from(string.first()? & 0x7f);
    let bytes = string.get(1..=length)?;
    if string[0] & 0x80 == 0 {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let bits: Vec<u16> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let number = |bits: &[u16]| bits.iter().fold(0, |all, bit| all << 1 | bit);
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let short = number(bits.get(at..at + 5)?);
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            at += 6;
            number(bits.get(at - 6..at)?) - 0b01_1001 + 3
        };
        status = status * 10 + digit;
    }
    Some(status)
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field block.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for string in [name, value] {
            integer(&mut bytes, string.len());
            bytes.extend_from_slice(string);
        }
    }
    bytes
}

/// A length with a prefix of 7 bits (RFC 7541 section 5.1).
fn integer(bytes: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        bytes.push(value as u8);
        return;
    }
    bytes.push(127);
    value -= 127;
    while value >= 128 {
        bytes.push((value % 128) as u8 | 128);
        value /= 128;
    }
    bytes.push(value as u8);
}

/// A field block in frames: the first HEADERS, the others CONTINUATION.
pub(crate) fn head(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = block.len().div_ceil(16_384).max(1);
    for at in 0..count {
        let piece = &block[at * 16_384..block.len().min((at + 1) * 16_384)];
        let last = if at + 1 == count { END_HEADERS } else { 0 };
        let (kind, flags) = match at {
            0 => (HEADERS, flags | last),
            _ => (CONTINUATION, last),
        };
        bytes.extend(frame(kind, flags, stream, piece));
    }
    bytes
}

/// A connection on which everything is possible.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
}

impl Raw {
    /// Connects and sends the preface with these settings.
    pub(crate) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut raw = Self {
            stream,
            inbox: Vec::new(),
        };
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat();
        raw.send(&opening).await;
        raw
    }

    /// Sends bytes; whether that was possible.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let sending = self.stream.write_all(bytes);
        let sent = tokio::time::timeout(super::PATIENCE, sending).await;
        matches!(sent, Ok(Ok(())))
    }

    /// The next frame; `None` at the end of the connection, or when nothing comes for `patience`.
    pub(crate) async fn next(&mut self, patience: Duration) -> Option<Frame> {
        loop {
            if let Some(frame) = self.buffered() {
                return Some(frame);
            }
            let mut piece = [0; 16 * 1024];
            let reading = self.stream.read(&mut piece);
            match tokio::time::timeout(patience, reading).await {
                Ok(Ok(read)) if read > 0 => self.inbox.extend_from_slice(&piece[..read]),
                _ => return None,
            }
        }
    }

    /// Reads until a frame is as wanted; `None` when none was.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        while let Some(frame) = self.next(super::PATIENCE).await {
            if wanted(&frame) {
                return Some(frame);
            }
        }
        None
    }

    /// Has the other side ended the connection?
    pub(crate) async fn ended(&mut self) -> bool {
        let reading = async {
            let mut piece = [0; 16 * 1024];
            while matches!(self.stream.read(&mut piece).await, Ok(read) if read > 0) {}
        };
        tokio::time::timeout(super::PATIENCE, reading).await.is_ok()
    }

    fn buffered(&mut self) -> Option<Frame> {
        let head = self.inbox.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = self.inbox.get(9..9 + length)?.to_vec();
        let stream = u32::from_be_bytes(head[5..9].try_into().ok()?) & 0x7fff_ffff;
        let (kind, flags) = (head[3], head[4]);
        self.inbox.drain(..9 + length);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }
}
