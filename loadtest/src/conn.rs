//! One keep-alive connection of the client side, and the ways a call on it can fail.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{Decoder, Framing, HEAD_MAX, Head};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest reply body that is kept; a longer one fails the call.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// Bytes read at once; one such buffer per thread.
const READ_SIZE: usize = 64 * 1024;

/// Why a call, or the opening of a stream, did not succeed. The derived order is that of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    Connect,
    Timeout,
    /// The connection ended or was reset before the reply was complete.
    Closed,
    /// The reply is not HTTP/1.1, or has no bound.
    Malformed,
    /// Another HTTP status than the one expected.
    Status(u16),
    /// A JSON-RPC error, or a tool result marked as one.
    Error,
    /// A reply to something else, or with another text than the one sent.
    Wrong,
}

impl Failure {
    /// As it is named in reports.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Connect => "connect".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Malformed => "malformed".to_owned(),
            Self::Status(status) => format!("status_{status}"),
            Self::Error => "jsonrpc_error".to_owned(),
            Self::Wrong => "wrong_answer".to_owned(),
        }
    }

    /// Whether the connection is of no use any more.
    pub(crate) fn breaks(self) -> bool {
        match self {
            Self::Connect | Self::Timeout | Self::Closed | Self::Malformed => true,
            Self::Status(_) | Self::Error | Self::Wrong => false,
        }
    }
}

/// A reply, read to its end.
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A message that came without a head of its own.
    pub(crate) fn message(body: Vec<u8>) -> Self {
        let head = Head {
            status: 200,
            framing: Framing::Length(body.len() as u64),
            close: false,
            event_stream: false,
            session: None,
        };
        Self { head, body }
    }
}

/// A connection, opened when it is first used and again whenever the peer has closed it. A server
/// may close an idle connection at any time, and a client that looks first loses nothing by it.
pub(crate) struct Conn {
    address: SocketAddr,
    /// `None` before the first use, after a failure, and after a reply that announced the end.
    stream: Option<TcpStream>,
    /// How often it was opened.
    pub(crate) opened: u64,
}

impl Conn {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            opened: 0,
        }
    }

    /// Opens it now, unless it is open.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        self.stream = Some(self.take().await?);
        Ok(())
    }

    /// Closes it; the next use opens it again.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Sends a request and reads the reply to its end, within `patience`.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        patience: Duration,
    ) -> Result<Reply, Failure> {
        timeout(patience, async {
            let mut stream = self.take().await?;
            let (head, rest) = begin(&mut stream, request).await?;
            let body = finish(&mut stream, &head, &rest).await?;
            self.stream = Some(stream).filter(|_| !head.close);
            Ok(Reply { head, body })
        })
        .await
        .unwrap_or(Err(Failure::Timeout))
    }

    /// Sends a request and reads the head of the reply only. Also returns the bytes of the body
    /// that came with it.
    pub(crate) async fn open_stream(
        mut self,
        request: &[u8],
        patience: Duration,
    ) -> Result<(Head, Vec<u8>, TcpStream), Failure> {
        timeout(patience, async {
            let mut stream = self.take().await?;
            let (head, rest) = begin(&mut stream, request).await?;
            Ok((head, rest, stream))
        })
        .await
        .unwrap_or(Err(Failure::Timeout))
    }

    /// Takes the open stream, or opens one. It is put back by whoever finds it still usable.
    async fn take(&mut self) -> Result<TcpStream, Failure> {
        if let Some(stream) = self.stream.take().filter(is_idle) {
            return Ok(stream);
        }
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address))
            .await
            .map_err(|_| Failure::Connect)?
            .map_err(|_| Failure::Connect)?;
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        self.opened += 1;
        Ok(stream)
    }
}

/// False once the peer has closed it, or sent what nobody asked for.
fn is_idle(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Sends the request and reads the head of the reply, and whatever came with it.
async fn begin(stream: &mut TcpStream, request: &[u8]) -> Result<(Head, Vec<u8>), Failure> {
    stream
        .write_all(request)
        .await
        .map_err(|_| Failure::Closed)?;
    let mut kept = Vec::new();
    loop {
        let read = read_with(stream, |bytes| {
            if bytes.is_empty() {
                return Err(Failure::Closed);
            }
            kept.extend_from_slice(bytes);
            final_head(&mut kept)
        });
        if let Some(head) = read.await.map_err(|_| Failure::Closed)?? {
            return Ok((head, kept));
        }
    }
}

/// Reads the body, of which `rest` is the beginning.
async fn finish(stream: &mut TcpStream, head: &Head, rest: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut decoder = Decoder::new(head.framing);
    let mut body = Vec::new();
    take_body(&mut decoder, rest, &mut body)?;
    while !decoder.is_done() {
        let read = read_with(stream, |bytes| {
            if bytes.is_empty() {
                return if decoder.may_close() {
                    Ok(true)
                } else {
                    Err(Failure::Closed)
                };
            }
            take_body(&mut decoder, bytes, &mut body).map(|()| false)
        });
        if read.await.map_err(|_| Failure::Closed)?? {
            break;
        }
    }
    Ok(body)
}

/// Takes the head off `kept`, passing over interim replies.
fn final_head(kept: &mut Vec<u8>) -> Result<Option<Head>, Failure> {
    loop {
        let Some((head, length)) = Head::parse(kept).map_err(|_| Failure::Malformed)? else {
            return if kept.len() > HEAD_MAX {
                Err(Failure::Malformed)
            } else {
                Ok(None)
            };
        };
        kept.drain(..length);
        // After 101 the connection speaks another protocol.
        if head.status >= 200 || head.status == 101 {
            return Ok(Some(head));
        }
    }
}

fn take_body(decoder: &mut Decoder, bytes: &[u8], body: &mut Vec<u8>) -> Result<(), Failure> {
    decoder
        .feed(bytes, |payload| body.extend_from_slice(payload))
        .map_err(|_| Failure::Malformed)?;
    if body.len() > BODY_MAX {
        Err(Failure::Malformed)
    } else {
        Ok(())
    }
}

/// Waits until something can be read and hands it to `take`; nothing at all means the end.
///
/// The buffer belongs to the thread, not to the connection, and is lent for the moment of reading:
/// that is what keeps eighteen thousand waiting streams small.
pub(crate) async fn read_with<T>(
    stream: &mut TcpStream,
    mut take: impl FnMut(&[u8]) -> T,
) -> io::Result<T> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
    }
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            Ok(take(buffer.filled())).into()
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that reads one request, writes each piece, and closes.
    async fn scripted(pieces: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        address
    }

    async fn exchanged(pieces: &'static [&'static str]) -> Result<(u16, String), Failure> {
        let mut conn = Conn::new(scripted(pieces).await);
        let reply = conn
            .exchange(b"GET / HTTP/1.1\r\n\r\n", Duration::from_secs(5))
            .await?;
        Ok((reply.head.status, String::from_utf8(reply.body).unwrap()))
    }

    #[tokio::test]
    async fn replies_of_every_framing_are_read_to_their_end() {
        for pieces in [
            &["HTTP/1.1 200 OK\r\ncontent-le", "ngth: 5\r\n\r\nhe", "llo"][..],
            &[
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n",
                "3\r\nllo\r\n0\r\n\r\n",
            ],
            &["HTTP/1.1 200 OK\r\n\r\nhel", "lo"],
            &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"],
        ] {
            assert_eq!(
                exchanged(pieces).await,
                Ok((200, "hello".to_owned())),
                "{pieces:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_reply_cut_short_is_closed_not_short() {
        for pieces in [
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"][..],
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"],
            &["HTTP/1.1 200"],
            &[],
        ] {
            assert_eq!(exchanged(pieces).await, Err(Failure::Closed), "{pieces:?}");
        }
    }

    /// A server that answers `count` connections once each, and then no more.
    async fn one_reply_each(reply: &'static str, count: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for _ in 0..count {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_connection_the_server_closed_is_opened_again() {
        for reply in [
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ] {
            let mut conn = Conn::new(one_reply_each(reply, 3).await);
            for opened in 1..=3 {
                let request = b"GET / HTTP/1.1\r\n\r\n";
                conn.exchange(request, Duration::from_secs(5))
                    .await
                    .unwrap();
                assert_eq!(conn.opened, opened);
                // Where it was not announced, the end must have arrived before the next exchange.
                while conn.stream.as_ref().is_some_and(is_idle) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    #[tokio::test]
    async fn no_listener_is_a_connect_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut conn = Conn::new(listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(conn.connect().await, Err(Failure::Connect));
    }
}
