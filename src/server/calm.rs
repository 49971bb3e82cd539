//! Counts the frames of an HTTP/2 connection that cost its client nothing, and ends it when there are
//! too many.
//!
//! The `h2` crate bounds what it holds: streams, heads, CONTINUATION frames, streams that were reset
//! before they were served. It does not bound how often a client may ask for work: streams that are
//! opened and reset at once each begin a call to a server, and PING, SETTINGS and PRIORITY can be
//! sent for ever. So the heads of the frames are read on their way in. On their way out only GOAWAY
//! is of interest, which tells that `h2` itself has had enough.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::PREFACE_LENGTH;
use crate::telemetry::{Limit, limit_hit};

/// Idle frames that a connection may send at once: room to cancel every stream some times over.
const BURST: u32 = 1000;
/// How many of them come back each second.
const PER_SECOND: u32 = 200;
/// One more comes back with so many requests: a proxy that carries the requests of many clients over
/// one connection passes on what they cancel.
const REQUESTS_FOR_ONE: u32 = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
/// ENHANCE_YOUR_CALM (RFC 9113 section 7).
const CALM: u32 = 11;

/// Reads the heads of frames in a stream of bytes, and keeps nothing else of them.
#[derive(Debug)]
struct Frames {
    /// Bytes to pass over before the next head.
    skip: u64,
    head: [u8; HEAD],
    filled: usize,
}

/// The head of a frame (RFC 9113 section 4.1).
const HEAD: usize = 9;

impl Frames {
    fn new(skip: u64) -> Self {
        Self {
            skip,
            head: [0; HEAD],
            filled: 0,
        }
    }

    /// Calls `each` with length, kind and flags of every frame whose head ends in `bytes`, and what of
    /// its payload is there.
    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(u32, u8, u8, &[u8])) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = usize::try_from(self.skip).unwrap_or(usize::MAX);
                let step = step.min(bytes.len());
                self.skip -= step as u64;
                bytes = &bytes[step..];
                continue;
            }
            let step = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + step].copy_from_slice(&bytes[..step]);
            self.filled += step;
            bytes = &bytes[step..];
            if self.filled == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                each(length, kind, flags, bytes);
                self.skip = u64::from(length);
                self.filled = 0;
            }
        }
    }
}

/// Does this frame ask for work, or bring none? WINDOW_UPDATE comes with what was read, and
/// CONTINUATION has a bound in `h2`.
fn is_idle(length: u32, kind: u8, flags: u8) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        HEADERS | WINDOW_UPDATE | CONTINUATION => false,
        _ => true,
    }
}

/// What a connection may still send of them.
#[derive(Debug)]
struct Budget {
    left: u32,
    filled: Instant,
    /// Requests that have not brought one yet.
    requests: u32,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
            requests: 0,
        }
    }

    /// So many requests have come.
    fn earn(&mut self, requests: u32) {
        let requests = self.requests.saturating_add(requests);
        self.add(requests / REQUESTS_FOR_ONE);
        self.requests = requests % REQUESTS_FOR_ONE;
    }

    fn add(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(BURST);
    }

    /// Takes so many; false when there are not as many left.
    fn take(&mut self, count: u32, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.add(more.saturating_mul(PER_SECOND));
            self.filled = now;
        }
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

/// A connection whose frames are counted.
#[derive(Debug)]
pub(super) struct Calm {
    inner: Stream,
    incoming: Frames,
    outgoing: Frames,
    budget: Budget,
    /// It has been counted as over the limit.
    over: bool,
}

impl Calm {
    /// Before a byte was read, the preface included.
    pub(super) fn new(inner: Stream) -> Self {
        Self {
            inner,
            incoming: Frames::new(PREFACE_LENGTH as u64),
            outgoing: Frames::new(0),
            budget: Budget::new(Instant::now()),
            over: false,
        }
    }

    /// Counts what has come; an error when it is too much.
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut idle, mut requests) = (0, 0);
        self.incoming.read(bytes, |length, kind, flags, _| {
            idle += u32::from(is_idle(length, kind, flags));
            requests += u32::from(kind == HEADERS);
        });
        self.budget.earn(requests);
        if idle > 0 && !self.budget.take(idle, Instant::now()) {
            self.hit();
            return Err(io::Error::other("too many frames that bring nothing"));
        }
        Ok(())
    }

    /// Looks for a GOAWAY in what went out. It is written in one piece.
    fn went(&mut self, bytes: &[u8]) {
        let mut calm = false;
        self.outgoing.read(bytes, |_, kind, _, payload| {
            let reason = payload.get(4..8).and_then(|bytes| bytes.try_into().ok());
            calm |= kind == GOAWAY && reason.map(u32::from_be_bytes) == Some(CALM);
        });
        if calm {
            self.hit();
        }
    }

    fn hit(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            limit_hit(Limit::Http2);
        }
    }
}

impl AsyncRead for Calm {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        Poll::Ready(this.came(&buffer.filled()[before..]))
    }
}

impl AsyncWrite for Calm {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(context, bytes))?;
        this.went(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(context, parts))?;
        let mut left = written;
        for part in parts {
            let step = part.len().min(left);
            this.went(&part[..step]);
            left -= step;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for Calm {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Calm {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Calm {
    fn get_ssl_digest(&self) -> Option<Arc<pingora::protocols::tls::SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<pingora::protocols::ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Calm {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Calm {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Calm {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Calm {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend_from_slice(payload);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_they_are_cut(
            frames in proptest::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..20),
            piece in 1usize..60,
        ) {
            let mut bytes = vec![b'x'; 24];
            for (kind, flags, length) in &frames {
                bytes.extend(frame(*kind, *flags, &vec![7; *length]));
            }
            let mut seen = Vec::new();
            let mut reader = Frames::new(24);
            for piece in bytes.chunks(piece) {
                reader.read(piece, |length, kind, flags, _| {
                    seen.push((kind, flags, length as usize));
                });
            }
            prop_assert_eq!(seen, frames);
        }
    }

    #[test]
    fn frames_that_carry_something_are_free() {
        assert!(!is_idle(5, DATA, 0));
        assert!(!is_idle(0, DATA, END_STREAM));
        assert!(is_idle(0, DATA, 0));
        for kind in [HEADERS, WINDOW_UPDATE, CONTINUATION] {
            assert!(!is_idle(4, kind, 0), "{kind}");
        }
        for kind in [2, 3, 4, 5, 6, 7, 10, 200] {
            assert!(is_idle(4, kind, 0), "{kind}");
        }
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(budget.take(BURST, start));
        assert!(!budget.take(1, start + Duration::from_millis(900)));
        let later = start + Duration::from_secs(2);
        assert!(budget.take(2 * PER_SECOND, later));
        assert!(!budget.take(1, later));
        assert!(!budget.take(BURST + 1, start + Duration::from_secs(9999)));
    }

    #[test]
    fn a_proxy_may_cancel_a_quarter_of_its_requests_and_an_attack_may_not_go_on() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..10_000 {
            budget.earn(4);
            assert!(budget.take(1, start));
        }
        let mut sent = 0;
        while budget.take(1, start) {
            budget.earn(1);
            sent += 1;
        }
        assert!((BURST..2 * BURST).contains(&sent), "{sent}");
    }
}
