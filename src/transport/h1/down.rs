//! The client's side of an exchange over HTTP/1.1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::framing::Framing;
use super::head::{Head, Refusal};
use super::write::{self, Ends, chunk_size};
use crate::transport::buffer::Piece;
use crate::transport::dress::Dress;
use crate::transport::fields::EXPECT;
use crate::transport::patience::Patience;
use crate::transport::refused;
use crate::transport::timer::Alarm;
use crate::transport::{
    ConnInfo, Downstream, Edits, Error, Headers, Http, Length, RequestHead, ResponseHead,
};

/// How the response's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// The head is still to come.
    Head,
    /// As it is.
    Plain,
    /// In chunks.
    Chunked,
    /// It is over.
    Done,
}

/// A client's connection over our own HTTP/1.1, and the exchange on it.
///
/// It is handed from step to step with every request, so it is one pointer; what it points to is
/// made once for a connection.
pub struct H1Down(Box<Inner>);

struct Inner {
    conn: Conn,
    alarm: Alarm,
    info: Arc<ConnInfo>,
    /// Bounds the waits for a request's body.
    patience: Patience,
    head: Head,
    dress: Dress,
    /// The request's body.
    body: Framing,
    sending: Sending,
    method_is_head: bool,
    version: Http,
    keeps: bool,
    expects_continue: bool,
    /// The request body could not be read to its end, so nobody knows where the next request would
    /// begin.
    broken: bool,
}

// An allocator hands out sizes in steps, so a few bytes too many of what every connection holds cost a
// whole step: with 10,000 of them more than a megabyte.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Inner>() <= 448);

impl H1Down {
    /// A connection on which no request has come yet.
    pub fn new(conn: Conn, alarm: Alarm, info: Arc<ConnInfo>, body_timeout: Duration) -> Self {
        Self(Box::new(Inner {
            conn,
            alarm,
            info,
            patience: Patience::new(body_timeout),
            head: Head::default(),
            dress: Dress::default(),
            body: Framing::exact(0),
            sending: Sending::Head,
            method_is_head: false,
            version: Http::V11,
            keeps: true,
            expects_continue: false,
            broken: false,
        }))
    }

    /// The connection, between two exchanges.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.0.conn
    }

    /// The connection, for another protocol to go on with.
    pub fn into_conn(self) -> (Conn, Alarm, Arc<ConnInfo>) {
        let Inner {
            conn, alarm, info, ..
        } = *self.0;
        (conn, alarm, info)
    }

    /// Reads the request head of so many bytes at the front of what was read ahead; an exchange
    /// begins.
    ///
    /// # Errors
    /// As [`Head::parse`]. No exchange has begun then.
    pub fn begin(&mut self, length: usize, fields_max: usize) -> Result<(), Refusal> {
        let inner = &mut *self.0;
        let bytes = inner.conn.take_head(length);
        if let Err(refusal) = inner.head.fill(bytes, fields_max) {
            refused::by_client(&inner.info, &refusal.to_string(), inner.head.bytes());
            return Err(refusal);
        }
        inner.dress = Dress::default();
        let head = &inner.head;
        inner.body = head.framing();
        inner.patience.renew();
        inner.version = head.version();
        inner.keeps = inner.version == Http::V11 && !head.closes();
        inner.expects_continue = inner.version == Http::V11
            && head
                .known(EXPECT)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        inner.method_is_head = head.method() == "HEAD";
        inner.sending = Sending::Head;
        inner.broken = false;
        Ok(())
    }

    /// Takes the request head out of an exchange that goes on in another protocol.
    pub fn take_head(&mut self) -> Head {
        std::mem::take(&mut self.0.head)
    }

    /// Ends the exchange; what becomes of the connection.
    pub fn end(&mut self) -> After {
        let inner = &mut *self.0;
        inner.head.clear();
        if inner.sending != Sending::Done {
            inner.conn.cut();
        }
        match (inner.sending, inner.keeps, inner.body.is_done()) {
            (Sending::Done, true, true) if !inner.broken => After::Next,
            // What the client still sends would turn our closing into a reset.
            (Sending::Done, _, false) => After::Linger,
            _ => After::Close,
        }
    }
}

impl Inner {
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        self.conn.poll_piece(context, &mut self.body)
    }

    /// Waits for a piece that was not there yet.
    async fn await_body(&mut self) -> Result<Option<Piece>, Error> {
        let left = self.patience.left();
        if left.is_zero() {
            return Err(Error::ReadTimeout);
        }
        let begun = Instant::now();
        self.alarm.after(left);
        let read = poll_fn(|context| {
            if let Poll::Ready(piece) = self.poll_body(context) {
                return Poll::Ready(piece);
            }
            self.alarm.poll(context).map(|()| Err(Error::ReadTimeout))
        });
        let read = read.await;
        self.patience.waited(begun.elapsed());
        read
    }

    /// Tells a client that waits for it to send its body (RFC 9110 section 10.1.1).
    async fn send_continue(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.expects_continue) && self.conn.ahead().is_empty() {
            let line = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.conn.send([line, &[], &[]]).await?;
        }
        Ok(())
    }
}

/// What becomes of a connection when its exchange is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Another request may follow.
    Next,
    /// It is closed.
    Close,
    /// It is closed once the rest of the request has been read away.
    Linger,
}

impl Downstream for H1Down {
    type Head = Head;

    fn head(&self) -> &Head {
        &self.0.head
    }

    fn dress(&self) -> &Dress {
        &self.0.dress
    }

    fn dress_mut(&mut self) -> &mut Dress {
        &mut self.0.dress
    }

    fn send_onward(&mut self, target: Box<str>) {
        self.0.head.onward = Some(target);
    }

    fn release_head(&mut self) {
        self.0.head.release();
    }

    fn info(&self) -> &Arc<ConnInfo> {
        &self.0.info
    }

    fn alarm(&self) -> &Alarm {
        &self.0.alarm
    }

    fn body_ended(&mut self) -> bool {
        !self.0.broken && self.0.body.is_done()
    }

    async fn read_body(&mut self) -> Result<Option<Piece>, Error> {
        if self.0.broken {
            return Err(Error::Closed);
        }
        if self.0.body.is_done() {
            return Ok(None);
        }
        self.0.send_continue().await?;
        // Most bodies came with their heads, and need no time limit.
        let inner = &mut *self.0;
        let ready = poll_fn(|context| Poll::Ready(inner.poll_body(context))).await;
        let read = match ready {
            Poll::Ready(read) => read,
            Poll::Pending => inner.await_body().await,
        };
        match &read {
            Ok(Some(piece)) => inner.patience.read(piece.len()),
            Err(Error::Malformed(why)) => {
                refused::by_client(&inner.info, why, inner.head.bytes());
            }
            Ok(None) | Err(_) => {}
        }
        inner.broken = read.is_err();
        read
    }

    async fn send_head(
        &mut self,
        status: u16,
        from: Option<&(dyn ResponseHead + '_)>,
        edits: Edits<'_>,
        length: Length,
    ) -> Result<(), Error> {
        let chunks = self.0.version == Http::V11;
        if (length == Length::Unknown && !chunks) || self.0.broken {
            self.0.keeps = false;
        }
        let ends = Ends {
            length,
            chunks,
            closes: !self.0.keeps,
        };
        let from = from.map(|from| from as &dyn Headers);
        let inner = &mut *self.0;
        let edits = Edits {
            more: inner.dress.response(&inner.head, &inner.info),
            ..edits
        };
        write::response(inner.conn.out(), status, from, edits, ends);
        self.0.sending = match length {
            Length::Unknown if chunks && !self.0.method_is_head => Sending::Chunked,
            _ => Sending::Plain,
        };
        Ok(())
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        match self.0.sending {
            // An empty chunk would be the last one.
            Sending::Chunked if !data.is_empty() => {
                let mut room = [0; 18];
                let at = chunk_size(data.len(), &mut room);
                self.0.conn.send([&room[at..], data, b"\r\n"]).await
            }
            _ => self.0.conn.send([data, &[], &[]]).await,
        }
    }

    fn join_body(&mut self, data: &[u8]) -> bool {
        match self.0.sending {
            Sending::Chunked if !data.is_empty() => {
                let mut room = [0; 18];
                let at = chunk_size(data.len(), &mut room);
                self.0.conn.join([&room[at..], data, b"\r\n"])
            }
            _ => self.0.conn.join([data, &[], &[]]),
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.0.conn.flush().await
    }

    async fn finish(&mut self) -> Result<(), Error> {
        if self.0.sending == Sending::Chunked {
            self.0.conn.send([b"0\r\n\r\n", &[], &[]]).await?;
        } else {
            self.0.conn.flush().await?;
        }
        self.0.sending = Sending::Done;
        Ok(())
    }

    async fn abort(&mut self) {
        self.0.keeps = false;
        self.0.conn.cut();
        self.0.conn.shutdown().await;
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.conn.poll_gone(context)
    }

    fn close_after(&mut self) {
        self.0.keeps = false;
    }
}
