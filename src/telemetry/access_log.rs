//! The access log: one line per request, a JSON object or a text of the operator's.
//!
//! A request must not wait for a disk, and a log that is rotated, full or piped into a stalled
//! reader must not be felt by clients. So the caller's thread only formats the line, into a buffer
//! it keeps, and copies it into a bounded queue; one thread writes whole batches. When the queue is
//! full the line is dropped and counted, in `tidegate_log_lines_dropped_total` as well.
//!
//! Lines of one thread keep their order. Lines of different threads may be out of order by as much
//! as the writer lingers to fill a batch (50 ms); their timestamps say which came first.
//!
//! What a line holds is what shippers for MCP gateways look for (`timestamp`, `mcp_method`,
//! `tool_name`) and what an operator needs to follow one request, see [`Entry`]. Values are cut to
//! a length and escaped, so that no client can forge a line or reach a terminal that shows it.

mod entry;
mod line;
mod output;
mod queue;
#[cfg(test)]
mod tests;
mod text;

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

pub use self::entry::{Entry, Proved, SessionTag, Times, spread};
pub(super) use self::line::{escape, timestamp};
use self::queue::{Queue, Sink, Writer};
use crate::config::{LogFormat, LogTarget};

/// A handle on the log. Clones share one queue and one writer thread, which ends with the last.
///
/// The default is a log that is off.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Arc<Inner>);

/// What the clones of a log share. Dropping it lets the writer finish and leave.
#[derive(Debug, Default)]
struct Inner {
    queue: Arc<Queue>,
    /// Whether lines go anywhere. Written by whoever changes the target.
    is_on: AtomicBool,
    /// The thread that writes: begun for the first target that is somewhere.
    writer: OnceLock<Thread>,
    /// Held while the target is changed.
    changing: Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.stop();
        self.wake();
    }
}

impl Inner {
    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn push(&self, buffer: &mut Vec<u8>, format: &LogFormat, entry: &Entry<'_>) {
        buffer.clear();
        match format {
            LogFormat::Json => line::write(buffer, entry),
            LogFormat::Text(format) => text::write(buffer, format, entry),
        }
        if self.queue.push(buffer) {
            self.wake();
        }
    }
}

impl AccessLog {
    /// Opens the target and starts the writer thread. To be called after any fork, since threads do
    /// not survive one.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(target: &LogTarget) -> io::Result<Self> {
        let log = Self::default();
        log.change(target)?;
        Ok(log)
    }

    /// Goes on with another target. Lines queued before still go to the old one. Does not wait.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started; then the old target stays.
    pub fn change(&self, target: &LogTarget) -> io::Result<()> {
        let sink = output::open(target)?;
        match target {
            LogTarget::Off if self.0.writer.get().is_none() => Ok(()),
            target => self.onto(sink, *target != LogTarget::Off),
        }
    }

    fn onto(&self, sink: Box<dyn Sink>, is_on: bool) -> io::Result<()> {
        let inner = &*self.0;
        let changing = inner.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        if inner.writer.get().is_some() {
            inner.queue.hand_over(sink);
            inner.wake();
        } else {
            let writer = Writer::new(Arc::clone(&inner.queue), sink);
            let thread = thread::Builder::new()
                .name("access-log".into())
                .spawn(|| writer.run())?;
            inner.writer.get_or_init(|| thread.thread().clone());
        }
        inner.is_on.store(is_on, Ordering::Relaxed);
        Ok(())
    }

    /// Queues one line. Never waits: when the queue is full the line is dropped and counted.
    pub fn log(&self, format: &LogFormat, entry: &Entry<'_>) {
        if !self.is_on() {
            return;
        }
        let inner = &*self.0;
        let formatted = LINE.try_with(|line| inner.push(&mut line.borrow_mut(), format, entry));
        if formatted.is_err() {
            // The thread is ending and its buffer is gone already.
            inner.push(&mut Vec::new(), format, entry);
        }
    }

    /// Whether lines go anywhere, for callers that would have to prepare an [`Entry`].
    pub fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    /// Asks the writer to open the file again by its name, after it was rotated or deleted, or to make
    /// its socket anew.
    ///
    /// Does not wait. Lines queued before still go to the old file. When the file cannot be opened
    /// the old one stays in use and the reason is logged. Nothing happens for standard streams.
    pub fn reopen(&self) {
        self.0.queue.ask_reopen();
        self.0.wake();
    }

    /// Waits until everything queued so far is written, for at most `deadline`; says whether it is.
    ///
    /// Blocks the thread, so it belongs to the orderly exit of the process.
    pub fn flush(&self, deadline: Duration) -> bool {
        if self.0.writer.get().is_none() {
            return true;
        }
        let ticket = self.0.queue.ask_flush();
        self.0.wake();
        self.0.queue.wait_flushed(ticket, deadline)
    }

    /// Lines dropped by this log so far: the queue was full, or they could not be written.
    pub fn dropped(&self) -> u64 {
        self.0.queue.dropped()
    }
}

thread_local! {
    /// Where a thread formats its lines; grows to [`line::LINE_BYTES_MAX`] and a little at most.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
