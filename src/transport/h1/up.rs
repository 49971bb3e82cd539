//! The endpoint's side of an exchange over HTTP/1.1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::answer::Answer;
use super::conn::Conn;
use super::framing::Framing;
use super::head::EndOfHead;
use super::write::{self, chunk_size};
use crate::transport::buffer::Piece;
use crate::transport::dial::{Dialer, IdleKey};
use crate::transport::refused;
use crate::transport::timer::Alarm;
use crate::transport::{Error, Length, Outgoing, ResponseHead};

/// Size of a response head, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// Informational responses that may come before the final one.
const INFORMATIONAL_MAX: u32 = 16;

/// A connection to an endpoint over our own HTTP/1.1, and the exchange on it. Dropped unfinished, it
/// closes.
///
/// It is boxed once and kept so while it is idle, for an exchange is handed from step to step.
pub struct H1Up {
    conn: Conn,
    /// Where it goes when the exchange is over; none while it is there.
    home: Option<(Arc<Dialer>, IdleKey)>,
    reused: bool,
    /// The request is written in chunks.
    chunked: bool,
    /// The request head went out.
    begun: bool,
    /// The request went out to its end; a connection on which one did not serves no other.
    whole: bool,
    head_request: bool,
    seen: EndOfHead,
    informational: u32,
    answer: Answer,
    body: Framing,
    /// What the head announced.
    length: Length,
}

// As of a client's connection: the next step up costs every one that is held.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<H1Up>() <= 320);

impl H1Up {
    /// A connection that was just made.
    pub(in crate::transport) fn new(conn: Conn) -> Box<Self> {
        Box::new(Self {
            conn,
            home: None,
            reused: false,
            chunked: false,
            begun: false,
            whole: false,
            head_request: false,
            seen: EndOfHead::default(),
            informational: 0,
            answer: Answer::default(),
            body: Framing::ToClose,
            length: Length::None,
        })
    }

    /// An exchange begins.
    pub(in crate::transport) fn begin(
        &mut self,
        dialer: Arc<Dialer>,
        key: IdleKey,
        alarm: Option<&Alarm>,
        write_timeout: Option<Duration>,
    ) {
        self.conn.bound(alarm.cloned(), write_timeout);
        self.home = Some((dialer, key));
    }

    /// Is it still open, with nothing said on it since its last exchange?
    pub(in crate::transport) fn is_quiet(&mut self) -> bool {
        self.conn.is_quiet()
    }

    /// Gives a connection whose exchange is over back for reuse, if it is fit for it.
    pub(in crate::transport) fn release(mut self: Box<Self>) {
        let framed = matches!(self.body, Framing::Exact(_) | Framing::Chunked(_));
        let is_over = framed && self.body.is_done();
        // Bytes behind the answer belong to nothing that was asked.
        let fit = self.whole && is_over && self.answer.keeps() && self.conn.ahead().is_empty();
        if !fit {
            return;
        }
        self.answer.clear();
        self.conn.bound(None, None);
        self.reused = true;
        self.begun = false;
        self.whole = false;
        self.informational = 0;
        if let Some((dialer, key)) = self.home.take() {
            dialer.release(self, key);
        }
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let length = match self.conn.poll_head(context, &mut self.seen, HEAD_MAX) {
                Poll::Ready(length) => length?,
                Poll::Pending => return Poll::Pending,
            };
            self.seen = EndOfHead::default();
            let bytes = self.conn.take_head(length);
            self.answer.fill(bytes).map_err(Error::Malformed)?;
            match self.answer.status() {
                101 => return Poll::Ready(Err(Error::Malformed("101 without an upgrade request"))),
                ..200 if self.informational < INFORMATIONAL_MAX => {
                    self.informational += 1;
                    self.answer.clear();
                }
                ..200 => return Poll::Ready(Err(Error::Malformed("too many 1xx responses"))),
                _ => {
                    let method = if self.head_request { "HEAD" } else { "" };
                    self.body = self.answer.framing(method).map_err(Error::Malformed)?;
                    self.length = match self.body {
                        Framing::Exact(0) => Length::None,
                        Framing::Exact(bytes) => Length::Exact(bytes),
                        _ => Length::Unknown,
                    };
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// What [`Up`](crate::transport::dial::Up) asks of it, as [`crate::transport::Upstream`] has it.
impl H1Up {
    pub(in crate::transport) fn put_head(&mut self, out: &Outgoing<'_>) {
        self.begun = true;
        self.chunked = out.length == Length::Unknown;
        self.head_request = out.method == "HEAD";
        write::request(self.conn.out(), out);
    }

    pub(in crate::transport) async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        if !self.chunked {
            return self.conn.send([data, &[], &[]]).await;
        }
        // An empty chunk would be the last one.
        if data.is_empty() {
            return Ok(());
        }
        let mut room = [0; 18];
        let at = chunk_size(data.len(), &mut room);
        self.conn.send([&room[at..], data, b"\r\n"]).await
    }

    pub(in crate::transport) async fn finish(&mut self) -> Result<(), Error> {
        if self.chunked {
            self.conn.send([b"0\r\n\r\n", &[], &[]]).await?;
        } else {
            self.conn.flush().await?;
        }
        self.whole = true;
        Ok(())
    }

    pub(in crate::transport) async fn read_head(&mut self) -> Result<(), Error> {
        if !self.begun {
            return Err(Error::Closed);
        }
        let read = poll_fn(|context| self.poll_head(context)).await;
        if let Err(Error::Malformed(why)) = read {
            // A head that is too long was not taken.
            let head = match self.answer.bytes() {
                [] => self.conn.ahead(),
                head => head,
            };
            self.tell(why, head);
        }
        read
    }

    pub(in crate::transport) fn head(&self) -> &dyn ResponseHead {
        &self.answer
    }

    pub(in crate::transport) fn release_head(&mut self) {
        self.answer.release();
    }

    pub(in crate::transport) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, Error>> {
        let piece = self.conn.poll_piece(context, &mut self.body);
        if let Poll::Ready(Err(Error::Malformed(why))) = piece {
            self.tell(why, self.answer.bytes());
        }
        piece
    }

    /// Has an operator see what the server has sent that is refused.
    #[cold]
    fn tell(&self, why: &str, head: &[u8]) {
        if let Some((_, key)) = &self.home {
            let (group, address) = key.whose();
            refused::by_server(group, address, why, head);
        }
    }

    pub(in crate::transport) fn length(&self) -> Length {
        self.length
    }

    pub(in crate::transport) fn reused(&self) -> bool {
        self.reused
    }
}
