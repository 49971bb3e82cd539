//! The bounded queue between the threads that serve and the one that writes.
//!
//! The queue has several shards, and a thread always uses the same one, so that with one serving
//! thread per core nobody waits for a lock that another holds. The writer swaps a shard's buffer
//! for an empty one and writes it outside of the lock.
//!
//! Waking the writer costs a system call, so it is woken only when it sleeps for lack of work.
//! After a batch it lingers before it looks again: under load there are some twenty wake-ups a
//! second however many lines there are, and without load there are none.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::telemetry::metrics;

/// Serving threads beyond this many share shards.
const SHARDS: usize = 8;
/// The most a shard holds: some two thousand lines. 8 MiB over all.
pub(super) const SHARD_BYTES_MAX: usize = 1024 * 1024;
/// At this fill the writer is woken from its linger.
const SHARD_BYTES_URGENT: usize = SHARD_BYTES_MAX / 4;
/// Buffers that a burst made larger than this are given back.
const SHARD_BYTES_KEPT: usize = 512 * 1024;
/// How long the writer waits for more after a batch; also the longest delay of a line.
const LINGER: Duration = Duration::from_millis(50);

/// Where batches go.
pub(super) trait Sink: fmt::Debug + Send + 'static {
    /// Writes some of the bytes; like `std::io::Write::write`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Whether nothing comes of what is written.
    fn discards(&self) -> bool {
        false
    }
    /// Opens the target again by its name, if it has one.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shared by the log's handles and its writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Whole lines, in the order in which they were pushed.
    shards: [Mutex<Vec<u8>>; SHARDS],
    /// Set by the writer before it looks at the shards a last time and parks. Whoever pushes after
    /// that look takes the shard's lock after the writer did, and therefore sees it set.
    asleep: AtomicBool,
    dropped: AtomicU64,
    requests: Mutex<Requests>,
    /// Where lines are to go from now on.
    next: Mutex<Option<Box<dyn Sink>>>,
    flushed: Condvar,
}

/// What the writer is asked to do besides writing.
#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    stop: bool,
    reopen: bool,
    /// Tickets given out by `ask_flush`.
    flush_asked: u64,
    /// The highest ticket up to which everything is written.
    flush_done: u64,
}

impl Queue {
    /// Queues a line, or drops and counts it when the shard is full. Returns whether the writer has
    /// to be unparked.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut shard = lock(&self.shards[own_shard()]);
        let before = shard.len();
        let after = before + line.len();
        if after > SHARD_BYTES_MAX {
            drop(shard);
            self.drop_lines(1);
            return false;
        }
        if shard.capacity() == 0 {
            // All that it will need unless the writer falls behind; untouched it costs no memory.
            shard.reserve(SHARD_BYTES_KEPT);
        }
        shard.extend_from_slice(line);
        drop(shard);
        let urgent = before < SHARD_BYTES_URGENT && after >= SHARD_BYTES_URGENT;
        let asleep = self.asleep.load(Ordering::Relaxed);
        urgent || (asleep && self.asleep.swap(false, Ordering::Relaxed))
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        lock(&self.requests).stop = true;
    }

    /// Has the writer go on with another sink, once all that was queued before is written.
    pub(super) fn hand_over(&self, sink: Box<dyn Sink>) {
        *lock(&self.next) = Some(sink);
    }

    pub(super) fn ask_reopen(&self) {
        lock(&self.requests).reopen = true;
    }

    /// Returns the ticket to wait for.
    pub(super) fn ask_flush(&self) -> u64 {
        let mut requests = lock(&self.requests);
        requests.flush_asked += 1;
        requests.flush_asked
    }

    pub(super) fn wait_flushed(&self, ticket: u64, deadline: Duration) -> bool {
        let waited = self
            .flushed
            .wait_timeout_while(lock(&self.requests), deadline, |requests| {
                requests.flush_done < ticket
            });
        let (requests, _) = waited.unwrap_or_else(PoisonError::into_inner);
        requests.flush_done >= ticket
    }

    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        metrics::log_lines_dropped(lines);
    }

    #[cfg(test)]
    pub(super) fn writer_is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).is_empty())
    }
}

/// The shard of this thread.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    if OWN.get() == usize::MAX {
        OWN.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    OWN.get()
}

/// A panic while one of these locks is held leaves nothing half done, so poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that writes.
pub(super) struct Writer {
    queue: Arc<Queue>,
    sink: Box<dyn Sink>,
    /// Each swapped with its own shard, so that a shard has a buffer to fill that has grown already.
    batches: [Vec<u8>; SHARDS],
    /// The last thing written is part of a line, whose rest was lost.
    torn: bool,
    /// The last write failed; the log said so already.
    failing: bool,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, sink: Box<dyn Sink>) -> Self {
        Self {
            queue,
            sink,
            batches: Default::default(),
            torn: false,
            failing: false,
        }
    }

    /// Writes until the last handle of the log is gone and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            // Taken before the shards are: what was queued when somebody asked is in this round.
            let asked = *lock(&self.queue.requests);
            let next = lock(&self.queue.next).take();
            // What waits is older than the change, but where nothing was logged before it.
            let (at_once, then) = match self.sink.discards() {
                true => (next, None),
                false => (None, next),
            };
            self.go_on_with(at_once);
            let wrote = self.write_pending();
            self.go_on_with(then);
            if asked.reopen {
                self.reopen();
            }
            self.answer(asked);
            if asked.stop {
                return;
            }
            if wrote {
                thread::park_timeout(LINGER);
                continue;
            }
            self.queue.asleep.store(true, Ordering::Relaxed);
            // Requests need no look: whoever makes one always unparks, and that is remembered.
            if self.queue.is_empty() {
                thread::park();
            }
            self.queue.asleep.store(false, Ordering::Relaxed);
        }
    }

    fn go_on_with(&mut self, sink: Option<Box<dyn Sink>>) {
        if let Some(sink) = sink {
            (self.sink, self.torn, self.failing) = (sink, false, false);
        }
    }

    fn answer(&self, asked: Requests) {
        if asked.flush_asked > asked.flush_done {
            lock(&self.queue.requests).flush_done = asked.flush_asked;
            self.queue.flushed.notify_all();
        }
    }

    fn reopen(&mut self) {
        // Lowered first: a request that comes while the file is being opened is a new one.
        lock(&self.queue.requests).reopen = false;
        if let Err(error) = self.sink.reopen() {
            log::error!("access log could not be opened again: {error}");
        }
        // `torn` stays as it is: the name may still lead to the same file, and in a new one an
        // empty line does less harm than a line glued to half of another.
    }

    /// Empties every shard; says whether there was anything.
    fn write_pending(&mut self) -> bool {
        let mut wrote = false;
        for shard in 0..SHARDS {
            let mut batch = mem::take(&mut self.batches[shard]);
            mem::swap(&mut *lock(&self.queue.shards[shard]), &mut batch);
            if !batch.is_empty() {
                wrote = true;
                self.write_batch(&batch);
                batch.clear();
                batch.shrink_to(SHARD_BYTES_KEPT);
            }
            self.batches[shard] = batch;
        }
        wrote
    }

    /// Writes the batch; what cannot be written is counted and forgotten, for the next batch waits.
    fn write_batch(&mut self, batch: &[u8]) {
        let closed = if self.torn {
            write_all(&mut *self.sink, b"\n")
        } else {
            Ok(())
        };
        let result = match closed {
            Ok(()) => {
                self.torn = false;
                write_all(&mut *self.sink, batch)
            }
            Err((_, error)) => Err((0, error)),
        };
        match result {
            Ok(()) => {
                if mem::take(&mut self.failing) {
                    log::info!("access log can be written again");
                }
            }
            Err((written, error)) => self.write_failed(batch, written, &error),
        }
    }

    fn write_failed(&mut self, batch: &[u8], written: usize, error: &io::Error) {
        let (done, lost) = batch.split_at(written);
        // Part of a line counts as lost. What was torn stays torn when not a byte went out.
        self.torn = done.last().map_or(self.torn, |last| *last != b'\n');
        self.queue
            .drop_lines(lost.iter().filter(|byte| **byte == b'\n').count() as u64);
        if !mem::replace(&mut self.failing, true) {
            log::error!("access log cannot be written, its lines are dropped and counted: {error}");
        }
    }
}

/// Writes everything, or tells how much was written before it failed.
fn write_all(sink: &mut dyn Sink, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}
