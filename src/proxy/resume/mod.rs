//! Resumability that is lent to servers whose streams carry no event ids (`streams.resume`).
//!
//! A client whose connection breaks in the middle of a stream comes back with GET and the id of the
//! last event it has seen. Where the server gives no ids there is nothing to come back with, and an
//! answer that was on its way is lost. So each event is given an id on its way ([`Lent`]), and the last
//! ones are kept. When the client is lost, the server's stream is read on for a while ([`linger`]); when
//! it comes back, it gets what it has missed and then the stream itself ([`back`]).
//!
//! An id stands at the end of its event, behind the bytes that have passed already. If the event turns
//! out to have an id of its server's, nothing is added to the stream from there on, and nothing kept: the
//! server can be asked itself. Which streams there are is known to [`rings`].

pub mod back;
pub mod linger;
pub mod rings;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::config::Resume;
use crate::session::{Key, Place, Ring, RingBounds, Stamp, StreamOf};
use crate::telemetry::{self, Limit};
use rings::{Rings, Slot};

/// The first revision in which an event may hold nothing but an id.
const PRIMES: &[u8] = b"2025-11-25";

/// Whether ids are lent on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No event has passed.
    Open,
    /// The server gives none.
    Ours,
    /// The server gives its own.
    Theirs,
}

/// Where an event ends within a piece of the stream, and what it was.
#[derive(Debug, Clone, Copy)]
pub struct Border {
    /// Where the empty line after it begins.
    pub blank: usize,
    /// Where that has ended.
    pub end: usize,
    /// It has an id of the server's.
    pub has_id: bool,
    /// It answers the last request that was owed an answer.
    pub answers: bool,
}

/// What is lent to one stream.
pub struct Lent {
    rings: Arc<Rings>,
    key: Key,
    stream: u64,
    kind: StreamOf,
    stamp: Stamp,
    keep: Duration,
    ring: Ring,
    verdict: Verdict,
    /// Where the stream is found by a client that comes back; there is none before it is one that
    /// lasts.
    slot: Option<Arc<Slot>>,
    /// The rest of the open event is not for this client, which cannot have its beginning any more.
    skips: bool,
    /// What the client is sent of the piece at hand, up to `at`.
    out: Vec<u8>,
    at: usize,
    /// What a client that has come back is sent first.
    missed: Vec<u8>,
    /// The client knows events that hold nothing but an id.
    primes: bool,
}

impl Lent {
    /// For a stream of the session `key` that replies to `request`, if to any.
    pub fn new(
        rings: &Arc<Rings>,
        config: &Resume,
        key: Key,
        kind: StreamOf,
        request: Option<&str>,
    ) -> Self {
        // It need not be secret: it is only looked for among the streams of its session.
        let stream = fastrand::u64(..);
        let bounds = RingBounds {
            events: config.events,
            bytes: config.bytes,
        };
        Self {
            rings: Arc::clone(rings),
            key,
            stream,
            kind,
            stamp: Stamp::new(kind, stream, request),
            keep: config.keep,
            ring: Ring::new(bounds, Arc::clone(rings.budget())),
            verdict: Verdict::Open,
            slot: None,
            skips: false,
            out: Vec::new(),
            at: 0,
            missed: Vec::new(),
            primes: false,
        }
    }

    /// Notes the revision that the client speaks: from 2025-11-25 on it knows events that hold nothing
    /// but an id. Older clients read their empty data as a broken message.
    pub fn spoken(mut self, revision: Option<&[u8]>) -> Self {
        self.primes = revision.is_some_and(|revision| revision >= PRIMES);
        self
    }

    /// An event that holds nothing but the id before the first one, for a stream on which the server
    /// has been silent so far: otherwise its client could not come back to it. `None` if it needs none.
    pub fn prime(&mut self) -> Option<Vec<u8>> {
        if !self.primes || self.verdict != Verdict::Open || self.slot.is_none() {
            return None;
        }
        self.verdict = Verdict::Ours;
        let mut event = Vec::with_capacity(64);
        self.stamp.write_line(&mut event, Place::Number(0));
        event.extend_from_slice(b"data: \n\n");
        Some(event)
    }

    /// The stream lasts: from now on a client can come back to it.
    pub fn enter(&mut self) {
        if self.verdict != Verdict::Theirs && self.slot.is_none() {
            self.slot = Some(self.rings.enter(self.key, self.stream, self.kind));
        }
    }

    /// An event of the piece ends; events come in order.
    pub fn border(&mut self, piece: &[u8], border: Border) {
        if border.has_id {
            self.verdict = Verdict::Theirs;
        }
        if self.verdict == Verdict::Theirs {
            return;
        }
        self.verdict = Verdict::Ours;
        let place = if border.answers {
            Place::Last
        } else {
            Place::Number(self.ring.next())
        };
        let mut line = Vec::with_capacity(64);
        self.stamp.write_line(&mut line, place);
        self.pass(&piece[self.at..border.blank]);
        self.pass(&line);
        self.pass(&piece[border.blank..border.end]);
        self.at = border.end;
        self.complete();
    }

    /// The piece has been looked at. What the client is sent in its place, if that is something else;
    /// `at_border` if no event is open behind it.
    pub fn passed(&mut self, piece: &[u8], at_border: bool) -> Option<Vec<u8>> {
        let (at, skips) = (std::mem::take(&mut self.at), self.skips);
        let rest = &piece[at..];
        if self.verdict != Verdict::Theirs {
            self.collect(rest);
            if at_border {
                self.drop_open();
            }
        }
        if at == 0 && !skips {
            return None;
        }
        let mut out = std::mem::take(&mut self.out);
        if !skips {
            out.extend_from_slice(rest);
        }
        Some(out)
    }

    /// An event of ours, the last of the stream: gives it its id, and keeps it.
    pub fn last_word(&mut self, event: &mut Vec<u8>) {
        if self.verdict != Verdict::Ours {
            return;
        }
        debug_assert!(event.ends_with(b"\n\n"), "it is complete");
        event.pop();
        self.stamp.write_line(event, Place::Last);
        event.push(b'\n');
        self.collect(event);
        self.complete();
    }

    /// What has come of the open event is no part of any.
    pub fn drop_open(&mut self) {
        self.ring.drop_open();
        self.skips = false;
    }

    /// Does the server give ids of its own?
    pub fn is_over(&self) -> bool {
        self.verdict == Verdict::Theirs
    }

    /// Can a client come back to it? Only one that has seen an id of ours.
    pub fn is_resumable(&self) -> bool {
        self.verdict == Verdict::Ours && self.slot.is_some()
    }

    /// Ready when a client has come back to the stream.
    pub fn poll_wanted(&self, context: &Context<'_>) -> Poll<()> {
        match &self.slot {
            Some(slot) => slot.poll_wanted(context),
            None => Poll::Pending,
        }
    }

    /// The number of the last complete event.
    pub fn last(&self) -> u64 {
        self.ring.next() - 1
    }

    /// A client has come back that has seen the events up to this one: readies what it has missed.
    pub fn catch_up(&mut self, number: u64) {
        let last = number.min(self.last());
        self.missed.clear();
        if let Some(missed) = self.ring.after(last) {
            if missed.gap {
                telemetry::limit_hit(Limit::ResumeEvents);
            }
            self.missed = missed.events.concat();
        }
        match self.ring.open() {
            Some(open) => self.missed.extend_from_slice(open),
            None => self.skips = true,
        }
    }

    /// What a client that has come back is sent first; empty the second time.
    pub fn take_missed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.missed)
    }

    /// The request is answered, and nobody knows whether the answer has arrived: it is kept for a
    /// while.
    pub fn keep(mut self: Box<Self>) {
        if self.verdict != Verdict::Ours {
            return;
        }
        let Some(slot) = self.slot.take() else {
            return;
        };
        self.ring.drop_open();
        let empty = Ring::new(
            RingBounds {
                events: 1,
                bytes: 0,
            },
            Arc::clone(self.rings.budget()),
        );
        let ring = std::mem::replace(&mut self.ring, empty);
        self.rings.keep(self.key, &slot, ring, self.keep);
    }

    fn pass(&mut self, bytes: &[u8]) {
        if !self.skips {
            self.out.extend_from_slice(bytes);
        }
        self.collect(bytes);
    }

    fn collect(&mut self, bytes: &[u8]) {
        if !self.ring.collect(bytes, &mut || self.rings.forget_oldest()) {
            telemetry::limit_hit(Limit::ResumeMemory);
        }
    }

    fn complete(&mut self) {
        self.ring.complete(&mut || self.rings.forget_oldest());
        self.skips = false;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            self.rings.leave(self.key, slot);
        }
    }
}

#[cfg(test)]
mod tests;
