//! A bounded look at the request body while it is on its way.
//!
//! The body is read until the scan knows what routing and answering need, and no further: the
//! rest is streamed to the endpoint with the scan running along. Where the head alone routes, the
//! wait for the scan is bounded by `limits.peek`; elsewhere by `limits.body`, since a session-era
//! call cannot be told from a handshake without its method.

use smallvec::SmallVec;

use super::ctx::Ctx;
use super::fault::Fault;
use crate::config::Limits;
use crate::mcp::{Peek, PeekError};
use crate::transport::buffer::Piece;
use crate::transport::fields::CONTENT_LENGTH;
use crate::transport::{Downstream, Error, Headers, Length};

/// What has been read of a request body, and the scan over it.
pub struct Body {
    /// The pieces read so far, in order. They are kept until the endpoint's reply head is there,
    /// so that a request can be sent again.
    pub chunks: SmallVec<[Piece; 2]>,
    /// No more is to come.
    pub ended: bool,
    /// The scan, up to date with all that was read.
    pub peek: Peek,
    /// Bytes read so far, including those streamed on later.
    pub read: u64,
    /// The length the client announced.
    pub length: Length,
    limit: u64,
}

impl Body {
    /// A body of which nothing was read, nor is known to come.
    pub fn empty() -> Self {
        Self {
            chunks: SmallVec::new(),
            ended: true,
            peek: Peek::new(),
            read: 0,
            length: Length::None,
            limit: 0,
        }
    }

    /// Reads until the scan is settled, or the body ends, or `window` bytes were read. The id goes
    /// to `ctx` as far as it was seen, also when the rest is refused.
    ///
    /// # Errors
    /// [`Fault::BodyTooLarge`], [`Fault::SlowBody`], [`Fault::ClientGone`], [`Fault::Parse`] and
    /// [`Fault::Invalid`] for what the scan refuses.
    pub async fn peek<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        limits: &Limits,
        window: usize,
    ) -> Result<(), Fault> {
        self.limit = limits.body as u64;
        let announced = down
            .head()
            .known(CONTENT_LENGTH)
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| value.trim().parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.limit) {
            return Err(Fault::BodyTooLarge);
        }
        self.length = announced.map_or(Length::Unknown, Length::Exact);
        self.ended = false;
        let filled = self.fill(down, window).await;
        ctx.bytes_in = self.read;
        ctx.id.clone_from(&self.peek.message().id);
        filled
    }

    async fn fill<D: Downstream>(&mut self, down: &mut D, window: usize) -> Result<(), Fault> {
        while !self.ended {
            match self.next(down).await? {
                Some(chunk) => self.chunks.push(chunk),
                None => break,
            }
            if down.body_ended() {
                self.end()?;
            } else if self.peek.settled() || self.read >= window as u64 {
                break;
            }
        }
        Ok(())
    }

    /// The next piece, scanned and counted; `None` at the end. For streaming the rest.
    ///
    /// # Errors
    /// As [`Self::peek`].
    pub async fn next<D: Downstream>(&mut self, down: &mut D) -> Result<Option<Piece>, Fault> {
        match down.read_body().await {
            Ok(Some(chunk)) => {
                self.read += chunk.len() as u64;
                if self.read > self.limit {
                    return Err(Fault::BodyTooLarge);
                }
                self.peek.feed(&chunk).map_err(refusal)?;
                Ok(Some(chunk))
            }
            Ok(None) => {
                self.end()?;
                Ok(None)
            }
            Err(Error::ReadTimeout | Error::WriteTimeout) => Err(Fault::SlowBody),
            Err(Error::Malformed(_)) => Err(Fault::Invalid("the body's framing is not valid")),
            Err(_) => Err(Fault::ClientGone),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.ended = true;
        self.peek.finish().map_err(refusal)
    }

    /// Is all of it here, to be sent once more?
    pub fn is_whole(&self) -> bool {
        let held: u64 = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.ended && held == self.read
    }

    /// How the length is told to the endpoint: exactly, once all of it was read.
    pub fn outgoing_length(&self) -> Length {
        match (self.ended, self.read) {
            (true, 0) => Length::None,
            (true, read) => Length::Exact(read),
            (false, _) => self.length,
        }
    }
}

/// What the client is told of a body that the scan refused.
fn refusal(error: PeekError) -> Fault {
    match error {
        PeekError::Malformed { .. } => Fault::Parse,
        PeekError::TooDeep { .. } => Fault::TooMuch("the body is nested too deeply"),
        PeekError::DuplicateKey { .. } => Fault::Invalid("a key of the message stands twice"),
        PeekError::IdTooLong => Fault::TooMuch("the id is too long"),
        PeekError::MethodTooLong => Fault::TooMuch("the method is too long"),
        PeekError::BatchTooLong => Fault::TooMuch("the batch is too long"),
        PeekError::InvalidId { .. } => Fault::Invalid("the id must be a string or a number"),
    }
}
