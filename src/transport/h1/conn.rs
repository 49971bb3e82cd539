//! One HTTP/1.1 connection, whichever side of it we are: what was read ahead, what is about to be
//! written, and the time limits of both.
//!
//! Between messages, and while a stream is silent, it owns no buffer. A reader that is too slow is
//! waited for with at most one buffer's worth of bytes in hand, and nothing is read for it meanwhile.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::framing::Framing;
use super::head::EndOfHead;
use crate::transport::Error;
use crate::transport::buffer::{BUFFER_BYTES, Buffer, Piece};
use crate::transport::nanos::Nanos;
use crate::transport::timer::Alarm;
use crate::transport::tls;
use crate::transport::wire::Wire;

/// A connection between two messages, or in one.
pub struct Conn {
    wire: Wire,
    /// Read and not yet used. Never empty: an empty buffer goes back.
    input: Option<Buffer>,
    /// To be written with the next bytes that are.
    out: Option<Buffer>,
    /// In the middle of a long body: the next read is a large one.
    bulk: bool,
    alarm: Option<Alarm>,
    /// Bounds a write that makes no progress.
    write_timeout: Option<Nanos>,
}

impl Conn {
    /// A connection on which nothing was read yet. Without an alarm nothing bounds its writes.
    pub fn new(wire: Wire, alarm: Option<Alarm>, write_timeout: Option<Duration>) -> Self {
        Self {
            wire,
            input: None,
            out: None,
            bulk: false,
            alarm,
            write_timeout: write_timeout.map(Nanos::from),
        }
    }

    /// The alarm that bounds what this connection does.
    pub fn alarm(&self) -> Option<&Alarm> {
        self.alarm.as_ref()
    }

    /// Bounds the writes that follow.
    pub fn bound(&mut self, alarm: Option<Alarm>, write_timeout: Option<Duration>) {
        self.alarm = alarm;
        self.write_timeout = write_timeout.map(Nanos::from);
    }

    /// What was read and not yet used.
    pub fn ahead(&self) -> &[u8] {
        self.input.as_ref().map_or(&[], Buffer::filled)
    }

    /// Takes what was read and not yet used.
    pub fn take_ahead(&mut self) -> Option<Buffer> {
        self.input.take()
    }

    /// Puts back what was read and belongs to what comes next.
    pub fn put_back(&mut self, rest: Option<Buffer>) {
        debug_assert!(self.input.is_none());
        self.input = rest.filter(|rest| !rest.is_empty());
    }

    /// Drops bytes that were read ahead.
    pub fn skip(&mut self, bytes: usize) {
        if let Some(input) = &mut self.input {
            input.consume(bytes);
            if input.is_empty() {
                self.input = None;
            }
        }
    }

    /// The wire and what was read ahead, for another protocol to go on with.
    pub fn into_parts(self) -> (Wire, BytesMut) {
        (
            self.wire,
            BytesMut::from(self.input.as_ref().map_or(&[][..], Buffer::filled)),
        )
    }

    /// Reads more behind what was read ahead, of which there may be `most` bytes. How much was read,
    /// 0 at the end of the connection.
    pub fn poll_fill(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut input = match self.input.take() {
            Some(input) => input,
            None if self.bulk => Buffer::take_large(),
            None => Buffer::take(),
        };
        let filled = if input.room() == 0 && !input.make_room(most) {
            Poll::Ready(Err(io::ErrorKind::StorageFull.into()))
        } else {
            self.wire.poll_fill(context, &mut input)
        };
        // What fills its buffer has more behind it.
        self.bulk = input.room() == 0 || (self.bulk && filled.is_pending());
        self.input = Some(input).filter(|input| !input.is_empty());
        filled
    }

    /// Reads until a head stands at the front of what was read ahead, of at most `most` bytes; its
    /// length. `seen` is kept between calls.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Alert`], and [`Error::Malformed`] for a head that is too long.
    pub fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        seen: &mut EndOfHead,
        most: usize,
    ) -> Poll<Result<usize, Error>> {
        loop {
            if let Some(length) = seen.find(self.ahead()) {
                return Poll::Ready(if length <= most {
                    Ok(length)
                } else {
                    Err(Error::Malformed("the head is too long"))
                });
            }
            if self.ahead().len() > most {
                return Poll::Ready(Err(Error::Malformed("the head is too long")));
            }
            match ready!(self.poll_fill(context, most + BUFFER_BYTES)) {
                Ok(read) if read > 0 => {}
                Ok(_) => return Poll::Ready(Err(Error::Closed)),
                Err(error) => {
                    let said = tls::alert(&error).map(Error::Alert);
                    return Poll::Ready(Err(said.unwrap_or(Error::Closed)));
                }
            }
        }
    }

    /// Takes the head of so many bytes from what was read ahead.
    pub fn take_head(&mut self, length: usize) -> Buffer {
        let mut head = self.input.take().unwrap_or_default();
        self.input = head.split_off(length);
        head
    }

    /// The next piece of a body; `None` at its end.
    ///
    /// # Errors
    /// [`Error::Malformed`] for framing that is not valid, [`Error::Closed`] if the connection ended
    /// before the body did.
    pub fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        framing: &mut Framing,
    ) -> Poll<Result<Option<Piece>, Error>> {
        loop {
            if framing.is_done() {
                return Poll::Ready(Ok(None));
            }
            if let Some(mut input) = self.input.take() {
                let taken = framing
                    .take(input.filled_mut())
                    .map_err(|error| Error::Malformed(error.0))?;
                self.input = input.split_off(taken.consumed);
                if taken.payload > 0 {
                    input.truncate(taken.payload);
                    return Poll::Ready(Ok(Some(Piece::Buffer(input))));
                }
                continue;
            }
            match ready!(self.poll_fill(context, BUFFER_BYTES)) {
                Ok(0) if *framing == Framing::ToClose => *framing = Framing::Closed,
                Ok(0) | Err(_) => return Poll::Ready(Err(Error::Closed)),
                Ok(_) => {}
            }
        }
    }

    /// Ready when the other side has closed or broken the connection. What it sends meanwhile is
    /// read ahead, as far as there is room; beyond that its end goes unnoticed.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.ahead().len() < BUFFER_BYTES {
            match ready!(self.poll_fill(context, BUFFER_BYTES)) {
                Ok(read) if read > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Where a head is written to; it goes out with the next bytes.
    pub fn out(&mut self) -> &mut Buffer {
        self.out.get_or_insert_with(Buffer::take)
    }

    /// Puts `parts` behind what waits to go out; false, and nothing was taken, where nothing waits or
    /// they would not fit.
    pub fn join(&mut self, parts: [&[u8]; 3]) -> bool {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        match &mut self.out {
            Some(out) if size <= out.room() => {
                parts.iter().for_each(|part| out.put(part));
                true
            }
            _ => false,
        }
    }

    /// Writes what waits to go out, and `parts` behind it.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::WriteTimeout`] if the other side takes nothing for too long.
    pub async fn send(&mut self, parts: [&[u8]; 3]) -> Result<(), Error> {
        // Copied it goes out in one plain write, which costs less than a vectored one.
        let parts = if self.join(parts) {
            [&[][..]; 3]
        } else {
            parts
        };
        let waiting = self.out.take();
        let first = waiting.as_ref().map_or(&[][..], Buffer::filled);
        let mut left = Parts([first, parts[0], parts[1], parts[2]]);
        let mut stalled_at = None;
        poll_fn(|context| {
            while !left.is_empty() {
                match left.poll_write(&mut self.wire, context) {
                    Poll::Ready(Ok(written)) if written > 0 => {
                        left.advance(written);
                        stalled_at = None;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Error::Closed)),
                    Poll::Pending => return self.poll_stalled(context, &mut stalled_at),
                }
            }
            match Pin::new(&mut self.wire).poll_flush(context) {
                Poll::Ready(flushed) => Poll::Ready(flushed.map_err(|_| Error::Closed)),
                Poll::Pending => self.poll_stalled(context, &mut stalled_at),
            }
        })
        .await
    }

    /// Bounds a write that waits. `stalled_at` is how far the wire was when the bound was set.
    fn poll_stalled(
        &self,
        context: &Context<'_>,
        stalled_at: &mut Option<u64>,
    ) -> Poll<Result<(), Error>> {
        let (Some(alarm), Some(timeout)) = (&self.alarm, self.write_timeout) else {
            return Poll::Pending;
        };
        let sent = self.wire.sent();
        if stalled_at.replace(sent) != Some(sent) {
            alarm.after(timeout.get());
        }
        alarm.poll(context).map(|()| Err(Error::WriteTimeout))
    }

    /// Writes what waits to go out.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        if self.out.is_none() {
            return Ok(());
        }
        self.send([&[]; 3]).await
    }

    /// What was sent is not all there should be; the end of the connection is to show that, where it
    /// can.
    pub fn cut(&mut self) {
        self.wire.cut();
    }

    /// Closes our side.
    pub async fn shutdown(&mut self) {
        let _ = self.flush().await;
        let _ = poll_fn(|context| Pin::new(&mut self.wire).poll_shutdown(context)).await;
    }

    /// Is the connection idle and whole, as far as can be told without asking the other side?
    ///
    /// Costs no system call: whatever the other side did has made the socket readable.
    pub fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.input.is_none()
            && self.out.is_none()
            && self.poll_gone(&mut context).is_pending()
            && self.input.is_none()
    }
}

/// What is left to be written, in order.
struct Parts<'a>([&'a [u8]; 4]);

impl Parts<'_> {
    fn is_empty(&self) -> bool {
        self.0.iter().all(|part| part.is_empty())
    }

    fn poll_write(&self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut left = self.0.iter().filter(|part| !part.is_empty());
        let first = left.next().copied().unwrap_or_default();
        if left.next().is_none() {
            return Pin::new(wire).poll_write(context, first);
        }
        let slices = self.0.map(IoSlice::new);
        Pin::new(wire).poll_write_vectored(context, &slices)
    }

    fn advance(&mut self, written: usize) {
        let mut written = written;
        for part in &mut self.0 {
            let step = written.min(part.len());
            *part = &part[step..];
            written -= step;
        }
    }
}
