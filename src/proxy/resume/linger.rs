//! A stream that has lost its client is read on for a while, for the client to come back to.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use super::super::ctx::End;
use super::super::forward::Reply;
use super::super::limits::CallHolds;
use super::super::revival::Revival;
use super::super::state::{Held, Phase, Shared};
use super::super::stream::{Kind, Relay};
use super::super::streaming::Begun;
use crate::session::{Share, StreamGuard};
use crate::telemetry::{self, Limit};
use crate::transport::buffer::Piece;
use crate::transport::{Error, Upstream};

/// What a stream without a client costs beside its events, in bytes of the memory for all of them: its
/// connection to the server, for the most part.
const COST: usize = 16 * 1024;

/// A stream without a client.
pub struct Lingering {
    /// The bytes on their way.
    pub relay: Relay,
    /// The exchange with the endpoint.
    pub reply: Reply,
    /// Keeps the session from being idle.
    pub activity: Option<StreamGuard<Held>>,
    /// The stream answers a tool call.
    pub is_tool_call: bool,
    /// What the call holds. Its server works on it, whether or not a client listens: if a client that
    /// leaves gave back its place, one could have any number of calls running by leaving each.
    pub call: CallHolds,
    /// What it takes to ask for the stream again.
    pub revival: Option<Box<Revival>>,
    /// The last event that was sent to the client.
    pub sent: u64,
    _cost: Share,
}

impl Lingering {
    /// The stream that has lost its client, if a client can come back to it and there is room.
    ///
    /// # Errors
    /// The stream, if not.
    pub fn of(shared: &Shared, begun: Begun, end: End) -> Result<Box<Self>, Box<Begun>> {
        let Some(lent) = begun.relay.lent().filter(|lent| lent.is_resumable()) else {
            return Err(Box::new(begun));
        };
        if shared.phase() != Phase::Running || !begun.relay.is_awaited() {
            return Err(Box::new(begun));
        }
        if !shared.rings.room(lent.key) {
            telemetry::limit_hit(Limit::StreamsPerSession);
            return Err(Box::new(begun));
        }
        let Some(cost) = shared.rings.budget().share(COST) else {
            telemetry::limit_hit(Limit::ResumeMemory);
            return Err(Box::new(begun));
        };
        let sent = lent.last();
        if let Some(slot) = &lent.slot {
            slot.set_lingers(true);
        }
        begun.counted.end(end.of_stream());
        Ok(Box::new(Self {
            relay: begun.relay,
            reply: begun.reply,
            activity: begun.activity,
            is_tool_call: begun.is_tool_call,
            call: CallHolds::default(),
            revival: begun.revival,
            sent,
            _cost: cost,
        }))
    }

    /// Reads on, in a task of its own.
    pub fn begin(self: Box<Self>, shared: &Arc<Shared>) {
        tokio::spawn(linger(self, Arc::clone(shared)));
    }

    fn keep(&self) -> Duration {
        self.relay.lent().map_or(Duration::ZERO, |lent| lent.keep)
    }

    /// Takes in what the server has sent. How the stream has ended, if it has.
    fn take_in(&mut self, read: Result<Option<Piece>, Error>) -> Option<End> {
        match read {
            Ok(Some(piece)) => {
                let _ = self.relay.observe(&piece);
                self.relay.is_too_large().then_some(End::TooLarge)
            }
            Ok(None) => Some(self.relay.end_of_server()),
            Err(_) => Some(End::UpstreamLost),
        }
    }

    /// The server's stream is over: what its client is owed is kept for it.
    fn ended(mut self: Box<Self>, end: End) {
        // What the client is to be told goes into the ring with the events before it.
        let _ = self.relay.last_words(end);
        if self.relay.kind() == Kind::Post
            && let Some(lent) = self.relay.take_lent()
        {
            lent.keep();
        }
    }
}

/// What ends a wait.
enum Next {
    Wanted,
    Over,
    Changed,
    Read(Result<Option<Piece>, Error>),
}

async fn linger(mut stream: Box<Lingering>, shared: Arc<Shared>) {
    let mut phases = shared.phases.clone();
    let mut over = pin!(sleep(stream.keep()));
    loop {
        let next = {
            let mut changed = pin!(phases.changed());
            poll_fn(|context| {
                let wanted = stream.relay.lent().map(|lent| lent.poll_wanted(context));
                if wanted.is_some_and(|wanted| wanted.is_ready()) {
                    return Poll::Ready(Next::Wanted);
                }
                if over.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Next::Over);
                }
                if changed.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Next::Changed);
                }
                stream.reply.up.poll_body(context).map(Next::Read)
            })
            .await
        };
        match next {
            Next::Wanted => match hand_over(stream) {
                Ok(()) => return,
                // Whoever wanted it is gone as well.
                Err(back) => stream = back,
            },
            Next::Over => return telemetry::limit_hit(Limit::ResumeTime),
            Next::Changed => {
                let leaves = stream.reply.endpoint().closing().is_some();
                if leaves || shared.phase() != Phase::Running {
                    return;
                }
            }
            Next::Read(read) => {
                if let Some(end) = stream.take_in(read) {
                    return stream.ended(end);
                }
                // Ids of the server's own: it can be asked itself.
                if stream.relay.lent().is_none() {
                    return;
                }
                if !stream.relay.is_awaited() {
                    return stream.ended(End::Complete);
                }
            }
        }
    }
}

fn hand_over(stream: Box<Lingering>) -> Result<(), Box<Lingering>> {
    let Some(slot) = stream.relay.lent().and_then(|lent| lent.slot.clone()) else {
        return Err(stream);
    };
    let Some(wanted) = slot.take_wanted() else {
        return Err(stream);
    };
    slot.set_lingers(false);
    wanted.send(stream).inspect_err(|_| slot.set_lingers(true))
}
