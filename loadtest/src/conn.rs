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

use crate::http::{Decoder, HEAD_MAX, Head};

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

/// A connection between exchanges.
pub(crate) struct Conn {
    stream: TcpStream,
    closing: bool,
}

impl Conn {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let stream = connecting
            .await
            .map_err(|_| Failure::Connect)?
            .map_err(|_| Failure::Connect)?;
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        Ok(Self {
            stream,
            closing: false,
        })
    }

    /// False once the peer has closed it, or sent what nobody asked for. A server may close an idle
    /// connection at any time, and a client that looks first does not count that as an error.
    pub(crate) fn is_usable(&self) -> bool {
        !self.closing
            && matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the reply to its end, within `patience`.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        patience: Duration,
    ) -> Result<Reply, Failure> {
        timeout(patience, async {
            let (head, rest) = self.begin(request).await?;
            let body = self.body(&head, &rest).await?;
            self.closing = head.close;
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
        let begun = timeout(patience, self.begin(request)).await;
        let (head, rest) = begun.unwrap_or(Err(Failure::Timeout))?;
        Ok((head, rest, self.stream))
    }

    async fn begin(&mut self, request: &[u8]) -> Result<(Head, Vec<u8>), Failure> {
        self.stream
            .write_all(request)
            .await
            .map_err(|_| Failure::Closed)?;
        let mut kept = Vec::new();
        loop {
            let read = read_with(&mut self.stream, |bytes| {
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

    async fn body(&mut self, head: &Head, rest: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut decoder = Decoder::new(head.framing);
        let mut body = Vec::new();
        take_body(&mut decoder, rest, &mut body)?;
        while !decoder.is_done() {
            let read = read_with(&mut self.stream, |bytes| {
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
        if head.status >= 200 {
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
        let mut conn = Conn::open(scripted(pieces).await).await?;
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

    #[tokio::test]
    async fn a_connection_the_server_closed_is_not_usable() {
        let address = scripted(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
        let mut conn = Conn::open(address).await.unwrap();
        assert!(conn.is_usable());
        conn.exchange(b"GET / HTTP/1.1\r\n\r\n", Duration::from_secs(5))
            .await
            .unwrap();
        conn.stream.readable().await.unwrap();
        assert!(!conn.is_usable());
    }

    #[tokio::test]
    async fn no_listener_is_a_connect_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(Conn::open(address).await, Err(Failure::Connect)));
    }
}
