//! One request of a connection, for a reader that is less strict than we are.
//!
//! Pingora's proxy takes chunks whose lines two readers could take apart differently, and loses what
//! stands behind a request. So it is shown one request and no more: the head as it was understood,
//! the body taken out of its framing by [`Framing`] and put into the plainest there is, and then
//! silence. What the client sends behind it stays here for the next request.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::RequestHead;
use super::h1::framing::Framing;
use super::h1::head::Head;
use super::patience::Patience;

/// Read at once from the connection.
const PIECE_BYTES: usize = 16 * 1024;
/// Read away behind a body that nobody can understand, so that the answer is not lost to a reset.
const AWAY_BYTES: usize = 64 * 1024;

/// A connection that shows one request.
#[derive(Debug)]
pub struct Single {
    inner: Stream,
    rest: Rest,
    /// Came from the connection, and not looked at yet.
    raw: Vec<u8>,
    /// To be shown next.
    shown: Vec<u8>,
    /// For a body that trickles. One that stops altogether is the reader's business.
    patience: Patience,
    /// Since when a piece of the body is waited for.
    waits: Option<Instant>,
}

/// What follows the head.
#[derive(Debug)]
enum Rest {
    /// A body.
    Body(Framing),
    /// Nothing that could be understood.
    Broken,
}

impl Single {
    /// Shows the request of this head, behind which `ahead` was read. The reader waits for each piece
    /// of its body for at most `body_timeout`.
    pub fn new(inner: Stream, head: &Head, ahead: &[u8], body_timeout: Duration) -> Self {
        Self {
            inner,
            rest: Rest::Body(head.framing()),
            raw: ahead.to_vec(),
            shown: origin_form(head),
            patience: Patience::new(body_timeout),
            waits: None,
        }
    }

    /// The connection, and what was read behind the request; nothing when it cannot be used again.
    pub fn into_parts(stream: Stream) -> Option<(Stream, Vec<u8>)> {
        let single = stream.into_any().downcast::<Self>().ok()?;
        match &single.rest {
            Rest::Body(framing) if framing.is_done() && single.shown.is_empty() => {
                Some((single.inner, single.raw))
            }
            _ => None,
        }
    }

    /// Reads from the connection; false at its end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [const { MaybeUninit::uninit() }; PIECE_BYTES];
        let mut room = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut room))?;
        self.raw.extend_from_slice(room.filled());
        Poll::Ready(Ok(!room.filled().is_empty()))
    }

    /// The same for the body, which has its time.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Poll::Ready(filled) = self.poll_fill(context) else {
            self.waits.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        self.patience.read(self.raw.len());
        if let Some(since) = self.waits.take() {
            self.patience.waited(since.elapsed());
        }
        if self.patience.left().is_zero() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(filled)
    }

    /// Moves what has come of the body to what is shown.
    fn take_body(&mut self) -> io::Result<()> {
        let Rest::Body(framing) = &mut self.rest else {
            return Ok(());
        };
        let Ok(taken) = framing.take(&mut self.raw) else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        let payload = &self.raw[..taken.payload];
        if matches!(framing, Framing::Chunked(_)) {
            if !payload.is_empty() {
                let size = format!("{:x}\r\n", payload.len());
                self.shown.extend_from_slice(size.as_bytes());
                self.shown.extend_from_slice(payload);
                self.shown.extend_from_slice(b"\r\n");
            }
            if framing.is_done() {
                self.shown.extend_from_slice(b"0\r\n\r\n");
            }
        } else {
            self.shown.extend_from_slice(payload);
        }
        self.raw.drain(..taken.consumed);
        Ok(())
    }

    /// Reads away what has come, as far as that is little.
    fn discard(&mut self, context: &mut Context<'_>) {
        for _ in 0..AWAY_BYTES / PIECE_BYTES {
            self.raw.clear();
            if !matches!(self.poll_fill(context), Poll::Ready(Ok(true))) {
                break;
            }
        }
        self.raw = Vec::new();
    }
}

/// The head with its target in origin form, which is the only one that every server takes.
fn origin_form(head: &Head) -> Vec<u8> {
    let bytes = head.bytes();
    let line = memchr::memchr(b'\r', bytes).unwrap_or(0);
    let version = memchr::memrchr(b' ', &bytes[..line]).unwrap_or(0);
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(head.method().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target().as_bytes());
    out.extend_from_slice(&bytes[version..]);
    out
}

impl AsyncRead for Single {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.shown.is_empty() {
                let count = this.shown.len().min(buffer.remaining());
                buffer.put_slice(&this.shown[..count]);
                this.shown.drain(..count);
                return Poll::Ready(Ok(()));
            }
            match &this.rest {
                Rest::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Rest::Body(framing) if framing.is_done() => {
                    // Only the end of the connection is of interest now.
                    if !this.raw.is_empty() || ready!(this.poll_fill(context))? {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(()));
                }
                Rest::Body(_) => {
                    if this.raw.is_empty() && !ready!(this.poll_body(context))? {
                        return Poll::Ready(Ok(()));
                    }
                    if let Err(error) = this.take_body() {
                        this.rest = Rest::Broken;
                        this.discard(context);
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Single {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
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
impl Shutdown for Single {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Single {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Single {}

impl GetTimingDigest for Single {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Single {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Single {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl Peek for Single {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What is shown of `bytes`, which arrive behind a head in pieces of this size; what is left for
    /// the next request, unless the connection cannot be used again.
    fn show(head: &str, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Vec<u8>>, bool) {
        let head = Head::parse(head.as_bytes(), 50).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = duplex(1 << 16);
            let ahead = bytes.len().min(piece);
            let time = Duration::from_secs(60);
            let mut single = Single::new(Box::new(server), &head, &bytes[..ahead], time);
            for piece in bytes[ahead..].chunks(piece) {
                client.write_all(piece).await.unwrap();
            }
            drop(client);
            let mut shown = vec![0; 1 << 16];
            let mut at = 0;
            let broken = loop {
                // A request that is over is silent as long as something is left behind it.
                let read = single.read(&mut shown[at..]);
                let read = tokio::select! {
                    biased;
                    read = read => read,
                    () = tokio::task::yield_now() => break false,
                };
                match read {
                    Ok(0) => break false,
                    Ok(read) => at += read,
                    Err(_) => break true,
                }
            };
            shown.truncate(at);
            let left = Single::into_parts(Box::new(single)).map(|(_, left)| left);
            (shown, left, broken)
        })
    }

    const CHUNKED: &str =
        "POST http://h/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    const LENGTH: &str = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";

    #[test]
    fn a_request_is_shown_in_its_plainest_form() {
        let body = b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n";
        let (shown, left, broken) = show(CHUNKED, body, 100);
        let text = String::from_utf8(shown).unwrap();
        assert!(text.starts_with("POST /x HTTP/1.1\r\nHost: h\r\n"));
        assert!(text.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{text}");
        assert_eq!((left, broken), (Some(Vec::new()), false));
    }

    #[test]
    fn what_stands_behind_is_left_for_the_next_request() {
        let (shown, left, _) = show(LENGTH, b"abcGET /", 100);
        assert!(shown.ends_with(b"\r\n\r\nabc"));
        assert_eq!(left.as_deref(), Some(&b"GET /"[..]));
        let (_, left, _) = show(CHUNKED, b"0\r\n\r\nGET /", 100);
        assert_eq!(left.as_deref(), Some(&b"GET /"[..]));
    }

    #[test]
    fn a_body_that_is_not_whole_leaves_no_connection() {
        for (head, body, is_broken) in [
            (LENGTH, &b"ab"[..], false),
            (CHUNKED, b"3\r\nab", false),
            (CHUNKED, b"3;\n\r\nabc\r\n0\r\n\r\n", true),
        ] {
            let (shown, left, broken) = show(head, body, 100);
            assert!(!shown.ends_with(b"0\r\n\r\n"));
            assert_eq!((left, broken), (None, is_broken));
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_body_is_the_same(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            chunk in 1usize..50,
            piece in 1usize..50,
        ) {
            let mut bytes = Vec::new();
            for part in body.chunks(chunk) {
                bytes.extend_from_slice(format!("0{:X};x\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\nGET");
            let (shown, left, broken) = show(CHUNKED, &bytes, piece);
            prop_assert!(!broken);
            let head = shown.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let mut shown = shown[head..].to_vec();
            let mut framing = Framing::chunked();
            let taken = framing.take(&mut shown).unwrap();
            prop_assert_eq!(&shown[..taken.payload], &body[..]);
            prop_assert!(framing.is_done() && taken.consumed == shown.len());
            let mut left = left.unwrap();
            left.truncate(3);
            prop_assert!(b"GET".starts_with(&left));
        }
    }
}
