//! One finished request, recorded without formatting, without a lock, and on threads that serve
//! without a word of memory that others write: a thread adds up for itself what it has counted, and
//! adds it to the families a few times a second.
//!
//! Finding a child of a family by its label values costs a hash over strings, a read lock on a
//! word that all threads share, and the formatting of the status. The combinations that one thread
//! sees in a row are few, so each thread keeps the handles of the recent ones in a small
//! direct-mapped table; a collision costs one slow look-up and nothing else.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};

use super::{METRICS, Metrics};
use crate::telemetry::labels::{ToolLabel, ToolOutcome, status_label};

/// What is known of a request when it is over.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// MCP method, from the closed set of methods the protocol module knows; its word for an
    /// unknown method when it is one; `""` when the request is not MCP.
    pub method: &'static str,
    /// The tool, or [`ToolLabel::NONE`] when this is not a tool call.
    pub tool: ToolLabel,
    /// HTTP status by which the request is judged: the one that was sent, except that a stream
    /// which its server broke midway is recorded as 502, and a client that left before the head as
    /// 499. A code that is not registered counts as the x00 of its class.
    pub status: u16,
    /// Name of the endpoint, or `""` when no endpoint was involved. From the configuration.
    pub server: &'a str,
    /// For a reply that is a stream, the time to its first byte: this is then what counts as the
    /// duration of the request, or else a stream open for an hour would be its slowest request.
    /// `None` for any other reply, where `duration` counts.
    pub first_byte: Option<Duration>,
    /// Time to the end of the reply, whatever its kind.
    pub duration: Duration,
    /// For a tool call, how it ended; its execution time is `duration`. `None` for anything else.
    pub tool_outcome: Option<ToolOutcome>,
}

/// Counts one finished request in every `mcp_` family it belongs to.
pub fn record_request(record: &RequestRecord<'_>) {
    let cached = CACHE.try_with(|cache| cache.borrow_mut().record(&METRICS, record));
    if cached.is_err() {
        // The thread is ending and its table is gone already; nothing may go uncounted for that.
        Cache::default().record(&METRICS, record);
    }
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache::default());
}

/// log2 of the places in each of the two tables of a thread, which then take about 16 kB.
const SLOT_BITS: u32 = 7;

/// The handles that one thread used lately. Belongs to one `Metrics`.
#[derive(Default)]
pub(super) struct Cache {
    requests: Slots<RequestSlot>,
    tool_calls: Slots<ToolSlot>,
    /// All requests of this thread that are not in the families yet.
    answered: u64,
    /// Somebody calls [`flush`] on this thread.
    gathers: bool,
    /// When the handles were got; see [`Metrics`].
    generation: u64,
}

/// From now on this thread adds up what it counts, until it calls [`flush`]. It should do so several
/// times a second: what it has not told yet is missing from a scrape.
pub fn gather() {
    let _ = CACHE.try_with(|cache| cache.borrow_mut().gather());
}

/// Adds what this thread has counted to the families.
pub fn flush() {
    let _ = CACHE.try_with(|cache| cache.borrow_mut().flush(&METRICS));
}

struct RequestSlot {
    method: &'static str,
    tool: ToolLabel,
    status: u16,
    count: LocalIntCounter,
    duration: LocalHistogram,
}

struct ToolSlot {
    tool: ToolLabel,
    server: Box<str>,
    outcome: ToolOutcome,
    count: LocalIntCounter,
    duration: LocalHistogram,
    /// It stands for others as well, and has a less exact label.
    is_other: bool,
}

impl RequestSlot {
    fn flush(&self) {
        self.count.flush();
        self.duration.flush();
    }
}

impl ToolSlot {
    fn flush(&self) {
        self.count.flush();
        self.duration.flush();
    }
}

// What a slot has counted is not lost when another takes its place, or when the thread ends.
impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Drop for ToolSlot {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Cache {
    /// Adds up from now on, until it is flushed.
    pub(super) fn gather(&mut self) {
        self.gathers = true;
    }

    pub(super) fn record(&mut self, metrics: &Metrics, record: &RequestRecord<'_>) {
        if !self.gathers {
            self.renew(metrics);
        }
        self.answered += 1;
        let slot = self.request(metrics, record);
        slot.count.inc();
        slot.duration
            .observe(record.first_byte.unwrap_or(record.duration).as_secs_f64());
        if let Some(outcome) = record.tool_outcome {
            let slot = self.tool_call(metrics, record, outcome);
            slot.count.inc();
            slot.duration.observe(record.duration.as_secs_f64());
            if slot.is_other {
                metrics.label_overflow.inc();
            }
        }
        if !self.gathers {
            self.flush(metrics);
        }
    }

    /// Lets go of the handles, should some be of series that were taken out.
    fn renew(&mut self, metrics: &Metrics) {
        let generation = metrics.generation.load(Ordering::Relaxed);
        if self.generation != generation {
            self.generation = generation;
            self.tool_calls = Slots::default();
        }
    }

    pub(super) fn flush(&mut self, metrics: &Metrics) {
        self.renew(metrics);
        if self.answered == 0 {
            return;
        }
        metrics
            .answered
            .fetch_add(std::mem::take(&mut self.answered), Ordering::Relaxed);
        self.requests.each(RequestSlot::flush);
        self.tool_calls.each(ToolSlot::flush);
    }

    fn request(&mut self, metrics: &Metrics, record: &RequestRecord<'_>) -> &RequestSlot {
        let (method, tool) = (record.method, record.tool);
        let status = status_label(record.status);
        self.requests.find(
            [address(method), address(tool.as_str()), usize::from(status)],
            // Methods are compared by address: the same text at another address is only found anew.
            |slot| std::ptr::eq(slot.method, method) && slot.tool == tool && slot.status == status,
            || {
                let (tool_name, code) = (tool.as_str(), status.to_string());
                RequestSlot {
                    method,
                    tool,
                    status,
                    count: metrics
                        .requests
                        .with_label_values(&[method, tool_name, &code])
                        .local(),
                    duration: metrics
                        .request_duration
                        .with_label_values(&[method, tool_name])
                        .local(),
                }
            },
        )
    }

    fn tool_call(
        &mut self,
        metrics: &Metrics,
        record: &RequestRecord<'_>,
        outcome: ToolOutcome,
    ) -> &ToolSlot {
        let (tool, server) = (record.tool, record.server);
        self.tool_calls.find(
            // An endpoint's name does not move while its endpoint lives, so its address will do to
            // choose a place; that it is the right one is decided by the text.
            [address(server), address(tool.as_str()), outcome as usize],
            |slot| slot.tool == tool && slot.outcome == outcome && *slot.server == *server,
            || {
                let (shown, place) = metrics.pairs.admit(tool, server);
                let tool_name = shown.as_str();
                ToolSlot {
                    tool,
                    server: Box::from(server),
                    outcome,
                    count: metrics
                        .tool_calls
                        .with_label_values(&[tool_name, place, outcome.as_str()])
                        .local(),
                    duration: metrics
                        .tool_duration
                        .with_label_values(&[tool_name, place])
                        .local(),
                    is_other: shown != tool,
                }
            },
        )
    }
}

impl Metrics {
    /// Takes out the series of tool calls at servers that are no longer there.
    pub(super) fn forget_servers(&self, there: &HashSet<&str>) {
        let gone = self.pairs.retain(there);
        for (tool, server) in &gone {
            let (tool, server) = (tool.as_str(), &**server);
            // What is not there was never counted.
            let _ = self.tool_duration.remove_label_values(&[tool, server]);
            for outcome in ToolOutcome::ALL {
                let labels = [tool, server, outcome.as_str()];
                let _ = self.tool_calls.remove_label_values(&labels);
            }
        }
        if !gone.is_empty() {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A direct-mapped table: a key has one place, and whoever needs it last has it.
struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    /// Allocates nothing, since most threads of a process never record a tool call.
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    fn each(&self, f: impl FnMut(&T)) {
        self.0.iter().flatten().for_each(f);
    }

    fn find(
        &mut self,
        key: [usize; 3],
        is_it: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> &T {
        if self.0.is_empty() {
            self.0.resize_with(1 << SLOT_BITS, || None);
        }
        let slot = &mut self.0[place(key)];
        if !slot.as_ref().is_some_and(is_it) {
            *slot = None;
        }
        slot.get_or_insert_with(make)
    }
}

/// Fibonacci hashing: the upper bits of a product with the golden ratio spread well.
fn place(key: [usize; 3]) -> usize {
    let mut hash = 0u64;
    for part in key {
        hash = (hash.rotate_left(23) ^ part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    (hash >> (u64::BITS - SLOT_BITS)) as usize
}

fn address(text: &str) -> usize {
    text.as_ptr().addr()
}
