//! What is asked of the process as a whole over the API, which is what signals ask of it as well.

use tokio::sync::oneshot;

/// Something to be done, and where to say that it is.
pub(super) enum Wish {
    /// Another process in the place of this one. The answer is its id, or why there is none.
    Upgrade(oneshot::Sender<Result<u32, String>>),
    /// The files of logs are to be opened anew. The answer is given when they are.
    Reopen(oneshot::Sender<()>),
    /// This process is to leave. The answer is given when it begins to.
    Leave(Haste, oneshot::Sender<()>),
}

/// How a process leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// When what is under way has come to its end, as with TERM.
    Drain,
    /// At once, as with INT.
    Now,
}
