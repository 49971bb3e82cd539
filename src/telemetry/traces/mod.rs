//! Traces: what was recorded of requests, on its way to a collector (OpenTelemetry).
//!
//! A request pays for a copy of what its log line would say, and for a place in a queue; what that
//! becomes in OTLP is worked out by whoever sends it, away from requests. When the queue is full the
//! record is dropped and counted, in `tidegate_spans_dropped_total` as well: a collector that is slow
//! or gone is never felt by clients.
//!
//! This module does not know how a collector is reached.

mod attributes;
mod record;
mod spans;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub use self::record::{Attempt, Record, Traced};
pub use self::spans::request;
use super::labels::SpanLoss;
use super::metrics::spans_dropped;

/// The most spans that go in one batch; a single record may have some more.
pub const BATCH_MAX: usize = 512;

/// The records that wait to be sent. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct Traces(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    /// Told when there is enough for a batch.
    full: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Box<Record>>,
    /// The spans that they are together.
    spans: usize,
}

impl Traces {
    /// Queues a record, of which at most `max` spans wait at once. Never waits: where there is no room
    /// it is dropped and counted.
    pub fn push(&self, record: Box<Record>, max: usize) {
        let spans = record.spans();
        let mut waiting = self.lock();
        if waiting.spans + spans > max {
            drop(waiting);
            return spans_dropped(SpanLoss::QueueFull, spans);
        }
        waiting.spans += spans;
        waiting.records.push_back(record);
        let is_enough = waiting.spans >= BATCH_MAX.min(max / 2);
        drop(waiting);
        if is_enough {
            self.0.full.notify_one();
        }
    }

    /// Takes the oldest records, at most a batch of them.
    pub fn take(&self) -> Vec<Box<Record>> {
        let mut waiting = self.lock();
        let (mut taken, mut spans) = (Vec::new(), 0);
        while spans < BATCH_MAX
            && let Some(record) = waiting.records.pop_front()
        {
            spans += record.spans();
            taken.push(record);
        }
        waiting.spans -= spans;
        taken
    }

    /// Puts back what was taken and could not be sent, in front of what has come since.
    pub fn put_back(&self, records: Vec<Box<Record>>) {
        let mut waiting = self.lock();
        for record in records.into_iter().rev() {
            waiting.spans += record.spans();
            waiting.records.push_front(record);
        }
    }

    /// Spans that wait.
    pub fn len(&self) -> usize {
        self.lock().spans
    }

    /// Is there nothing to send?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when there is enough for a batch.
    pub async fn enough(&self) {
        self.0.full.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}
