//! The thread that asks the process, so that one that does not answer leaves the screen alive.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::app::Deed;
use super::seen::Seen;
use crate::cli::client::{Client, Error, escape};
use crate::cli::verbs::line;
use crate::server::admin::view::{Done, Status};

/// Orders and news that may wait.
const WAITING_MAX: usize = 8;
/// Sessions that are looked at: a page of the API.
const SESSIONS_MAX: usize = 1000;

/// What is asked of the thread.
pub(super) enum Task {
    /// Look at sessions as well, or no more.
    Sessions(bool),
    /// Do this, and tell what came of it.
    Do(Deed),
}

/// What the thread has to tell.
pub(super) enum News {
    /// A look.
    Seen(Box<Seen>),
    /// A look that brought nothing, and why.
    Lost(String),
    /// What came of an operation.
    Said(String),
}

/// Looks once.
///
/// # Errors
/// As [`Client::get`].
pub(super) fn look(client: &Client, with_sessions: bool) -> Result<Seen, Error> {
    let status: Status = client.get("/v1/status")?;
    let sessions = match with_sessions {
        true => Some(client.get(&format!("/v1/sessions?limit={SESSIONS_MAX}"))?),
        false => None,
    };
    Ok(Seen {
        // The clock of rates, which are of the time between two answers.
        at: Instant::now(),
        status,
        sessions,
    })
}

/// Begins to look, at once and then again and again. The thread ends when either end of its channels does.
pub(super) fn begin(client: Client, interval: Duration) -> (SyncSender<Task>, Receiver<News>) {
    let (tasks, receiver) = sync_channel(WAITING_MAX);
    let (sender, news) = sync_channel(WAITING_MAX);
    thread::spawn(move || go_on(&client, interval, &receiver, &sender));
    (tasks, news)
}

fn go_on(client: &Client, interval: Duration, tasks: &Receiver<Task>, news: &SyncSender<News>) {
    let mut with_sessions = false;
    loop {
        let begun = Instant::now();
        let seen = match look(client, with_sessions) {
            Ok(seen) => News::Seen(Box::new(seen)),
            Err(error) => News::Lost(error.to_string()),
        };
        if news.send(seen).is_err() {
            return;
        }
        match tasks.recv_timeout(interval.saturating_sub(begun.elapsed())) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Task::Sessions(wanted)) => with_sessions = wanted,
            Ok(Task::Do(deed)) => {
                let said = act(client, &deed).unwrap_or_else(|error| error.to_string());
                if news.send(News::Said(said)).is_err() {
                    return;
                }
            }
        }
    }
}

/// Does something at an endpoint; how it is afterwards.
fn act(client: &Client, deed: &Deed) -> Result<String, Error> {
    let path = format!(
        "/v1/pools/{}/endpoints/{}/{}",
        escape(&deed.pool),
        escape(&deed.endpoint),
        deed.verb.word()
    );
    let answer = client.ask("POST", &path, Some(&json!({})))?;
    let done: Done = client.read(answer)?;
    let said = line(&done.pool, &done.endpoint);
    Ok(match done.warning {
        Some(warning) => format!("{said}; {warning}"),
        None => said,
    })
}
