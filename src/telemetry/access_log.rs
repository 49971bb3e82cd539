//! The access log: one JSON object per line, one line per request.
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
mod queue;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Duration;

pub use self::entry::{Entry, SessionTag, Times};
use self::queue::{Queue, Sink, Writer};

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere; a line then costs one branch.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, created with mode 0640 when missing, always appended to. Its directory must exist.
    File(PathBuf),
}

/// A handle on the log. Clones share one queue and one writer thread, which ends with the last.
///
/// The default is a log that is off.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Arc<Handle>>);

/// What the clones of a log share. Dropping it lets the writer finish and leave.
#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    writer: Thread,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.stop();
        self.writer.unpark();
    }
}

impl AccessLog {
    /// Opens the target and starts the writer thread. To be called after any fork, since threads do
    /// not survive one.
    ///
    /// Fails when the file cannot be opened or the thread cannot be started.
    pub fn start(target: Target) -> io::Result<Self> {
        match target {
            Target::Off => Ok(Self(None)),
            Target::Stdout => Self::onto(Output::Stdout),
            Target::Stderr => Self::onto(Output::Stderr),
            Target::File(path) => {
                let file = open(&path)?;
                Self::onto(Output::File { path, file })
            }
        }
    }

    fn onto(sink: impl Sink) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(Arc::clone(&queue), sink);
        let thread = thread::Builder::new()
            .name("access-log".into())
            .spawn(|| writer.run())?;
        Ok(Self(Some(Arc::new(Handle {
            queue,
            writer: thread.thread().clone(),
        }))))
    }

    /// Queues one line. Never waits: when the queue is full the line is dropped and counted.
    pub fn log(&self, entry: &Entry<'_>) {
        let Some(handle) = &self.0 else {
            return;
        };
        let formatted = LINE.try_with(|line| handle.push(&mut line.borrow_mut(), entry));
        if formatted.is_err() {
            // The thread is ending and its buffer is gone already.
            handle.push(&mut Vec::new(), entry);
        }
    }

    /// Whether lines go anywhere, for callers that would have to prepare an [`Entry`].
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Asks the writer to open the file again by its name, after it was rotated or deleted.
    ///
    /// Does not wait. Lines queued before still go to the old file. When the file cannot be opened
    /// the old one stays in use and the reason is logged. Nothing happens for other targets.
    pub fn reopen(&self) {
        if let Some(handle) = &self.0 {
            handle.queue.ask_reopen();
            handle.writer.unpark();
        }
    }

    /// Waits until everything queued so far is written, for at most `deadline`; says whether it is.
    ///
    /// Blocks the thread, so it belongs to the orderly exit of the process.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.0.as_ref().is_none_or(|handle| {
            let ticket = handle.queue.ask_flush();
            handle.writer.unpark();
            handle.queue.wait_flushed(ticket, deadline)
        })
    }

    /// Lines dropped by this log so far: the queue was full, or they could not be written.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |handle| handle.queue.dropped())
    }
}

thread_local! {
    /// Where a thread formats its lines; grows to [`line::LINE_BYTES_MAX`] at most.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Handle {
    fn push(&self, buffer: &mut Vec<u8>, entry: &Entry<'_>) {
        buffer.clear();
        line::write(buffer, entry);
        if self.queue.push(buffer) {
            self.writer.unpark();
        }
    }
}

/// The targets that can be written to.
enum Output {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
}

impl Sink for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write(bytes)?;
                stdout.flush()?;
                Ok(written)
            }
            Self::Stderr => io::stderr().write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file } = self {
            *file = open(path)?;
        }
        Ok(())
    }
}

/// Appending, so that the two processes of an upgrade can write to one file: the kernel places each
/// batch whole. Not readable by everyone, for the addresses of clients are personal data.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}
