//! The endpoint's side of an exchange over HTTP/1.1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::answer::Answer;
use super::conn::Conn;
use super::framing::Framing;
use super::head::EndOfHead;
use super::write::{self, chunk_size};
use crate::transport::buffer::Piece;
use crate::transport::dial::{Dialer, IdleKey};
use crate::transport::{Error, Length, Outgoing, ResponseHead, Upstream};

/// Size of a response head, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// Informational responses that may come before the final one.
const INFORMATIONAL_MAX: u32 = 16;

/// An exchange with an endpoint over our own HTTP/1.1. Dropped unfinished, its connection closes.
pub struct H1Up {
    conn: Conn,
    dialer: Arc<Dialer>,
    key: IdleKey,
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

impl H1Up {
    /// An exchange on a connection that is new or has been idle.
    pub(in crate::transport) fn new(
        conn: Conn,
        reused: bool,
        key: IdleKey,
        dialer: Arc<Dialer>,
    ) -> Self {
        Self {
            conn,
            dialer,
            key,
            reused,
            chunked: false,
            begun: false,
            whole: false,
            head_request: false,
            seen: EndOfHead::default(),
            informational: 0,
            answer: Answer::default(),
            body: Framing::ToClose,
            length: Length::None,
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
            let answer = Answer::take(bytes, self.conn.take_list()).map_err(Error::Malformed)?;
            self.answer = answer;
            match self.answer.status() {
                101 => return Poll::Ready(Err(Error::Malformed("101 without an upgrade request"))),
                ..200 if self.informational < INFORMATIONAL_MAX => {
                    self.informational += 1;
                    let list = self.answer.release();
                    self.conn.keep_list(list);
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

impl Upstream for H1Up {
    async fn send_head(&mut self, out: &Outgoing<'_>) -> Result<(), Error> {
        self.begun = true;
        self.chunked = out.length == Length::Unknown;
        self.head_request = out.method == "HEAD";
        write::request(self.conn.out(), out);
        Ok(())
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
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

    async fn finish(&mut self) -> Result<(), Error> {
        if self.chunked {
            self.conn.send([b"0\r\n\r\n", &[], &[]]).await?;
        } else {
            self.conn.flush().await?;
        }
        self.whole = true;
        Ok(())
    }

    async fn read_head(&mut self) -> Result<(), Error> {
        if !self.begun {
            return Err(Error::Closed);
        }
        poll_fn(|context| self.poll_head(context)).await
    }

    fn head(&self) -> &dyn ResponseHead {
        &self.answer
    }

    fn release_head(&mut self) {
        self.answer.release();
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        self.conn.poll_piece(context, &mut self.body)
    }

    fn length(&self) -> Length {
        self.length
    }

    fn reused(&self) -> bool {
        self.reused
    }

    fn release(mut self) {
        let is_over =
            matches!(self.body, Framing::Exact(0) | Framing::Chunked(_)) && self.body.is_done();
        // Bytes behind the answer belong to nothing that was asked.
        if self.whole && is_over && self.answer.keeps() && self.conn.ahead().is_empty() {
            let list = self.answer.release();
            self.conn.keep_list(list);
            self.dialer.release(self.conn, self.key);
        }
    }
}
