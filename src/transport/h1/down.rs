//! The client's side of an exchange over HTTP/1.1.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::conn::Conn;
use super::framing::Framing;
use super::head::Head;
use super::write::{self, Ends, chunk_size};
use super::{content_length, has_token};
use crate::transport::buffer::Piece;
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

/// A client's exchange over our own HTTP/1.1.
pub struct H1Down {
    conn: Conn,
    alarm: Alarm,
    head: Head,
    info: Arc<ConnInfo>,
    /// The request's body.
    body: Framing,
    /// Bounds each wait for a piece of it.
    body_timeout: Duration,
    sending: Sending,
    method_is_head: bool,
    version: Http,
    keeps: bool,
    expects_continue: bool,
    /// The request body could not be read to its end, so nobody knows where the next request would
    /// begin.
    broken: bool,
}

impl H1Down {
    /// An exchange whose head has been read from `conn`.
    pub fn new(
        conn: Conn,
        alarm: Alarm,
        head: Head,
        info: Arc<ConnInfo>,
        body_timeout: Duration,
    ) -> Self {
        // What could be read in two ways was refused with the head.
        let body = if head.count("transfer-encoding") > 0 {
            Framing::chunked()
        } else {
            let length = head.get("content-length").and_then(content_length);
            Framing::exact(length.unwrap_or(0))
        };
        let version = head.version();
        let closes = head
            .get("connection")
            .is_some_and(|value| has_token(value, "close"));
        let expects_continue = version == Http::V11
            && head
                .get("expect")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        Self {
            method_is_head: head.method() == "HEAD",
            keeps: version == Http::V11 && !closes,
            conn,
            alarm,
            head,
            info,
            body,
            body_timeout,
            sending: Sending::Head,
            version,
            expects_continue,
            broken: false,
        }
    }

    /// The connection, if another request may follow on it.
    pub fn into_conn(mut self) -> (Conn, After) {
        let list = self.head.release();
        self.conn.keep_list(list);
        let after = match (self.sending, self.keeps, self.body.is_done()) {
            (Sending::Done, true, true) if !self.broken => After::Next,
            // What the client still sends would turn our closing into a reset.
            (Sending::Done, _, false) => After::Linger,
            _ => After::Close,
        };
        (self.conn, after)
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        if let Poll::Ready(piece) = self.conn.poll_piece(context, &mut self.body) {
            return Poll::Ready(piece);
        }
        self.alarm.poll(context).map(|()| Err(Error::ReadTimeout))
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
        &self.head
    }

    fn release_head(&mut self) {
        self.head.release();
    }

    fn info(&self) -> &Arc<ConnInfo> {
        &self.info
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn body_ended(&mut self) -> bool {
        !self.broken && self.body.is_done()
    }

    async fn read_body(&mut self) -> Result<Option<Piece>, Error> {
        if self.broken {
            return Err(Error::Closed);
        }
        if self.body.is_done() {
            return Ok(None);
        }
        self.send_continue().await?;
        self.alarm.after(self.body_timeout);
        let read = poll_fn(|context| self.poll_body(context)).await;
        self.broken = read.is_err();
        read
    }

    async fn send_head(
        &mut self,
        status: u16,
        from: Option<&(dyn ResponseHead + '_)>,
        edits: Edits<'_>,
        length: Length,
    ) -> Result<(), Error> {
        let chunks = self.version == Http::V11;
        if (length == Length::Unknown && !chunks) || self.broken {
            self.keeps = false;
        }
        let ends = Ends {
            length,
            chunks,
            closes: !self.keeps,
        };
        let from = from.map(|from| from as &dyn Headers);
        write::response(self.conn.out(), status, from, edits, ends);
        self.sending = match length {
            Length::Unknown if chunks && !self.method_is_head => Sending::Chunked,
            _ => Sending::Plain,
        };
        Ok(())
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        match self.sending {
            // An empty chunk would be the last one.
            Sending::Chunked if !data.is_empty() => {
                let mut room = [0; 18];
                let at = chunk_size(data.len(), &mut room);
                self.conn.send([&room[at..], data, b"\r\n"]).await
            }
            _ => self.conn.send([data, &[], &[]]).await,
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.conn.flush().await
    }

    async fn finish(&mut self) -> Result<(), Error> {
        if self.sending == Sending::Chunked {
            self.conn.send([b"0\r\n\r\n", &[], &[]]).await?;
        } else {
            self.conn.flush().await?;
        }
        self.sending = Sending::Done;
        Ok(())
    }

    async fn abort(&mut self) {
        self.keeps = false;
        self.conn.shutdown().await;
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.conn.poll_gone(context)
    }

    fn close_after(&mut self) {
        self.keeps = false;
    }
}
