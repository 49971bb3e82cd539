//! The stream of events: each second how things stand, and what happens when it does.
//!
//! Whoever listens has no queue here. What has happened is read from the ring of the feed, and of how
//! things stand only the newest counts; a listener that takes nothing for [`WRITE_TIME`] is let go.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::api::Refusal;
use super::live::Live;
use crate::proxy::state::{Phase, Phases};
use crate::server::operator::Operator;
use crate::telemetry::feed::{self, Event, Feed};
use crate::telemetry::{self, Limit};
use crate::transport::fields::Names;
use crate::transport::{Downstream, Edits, Headers, Length};

/// Listeners at once, over the socket and the address together.
pub(super) const LISTENERS_MAX: usize = 32;
/// How long a listener may leave unread what is sent.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// After how much silence a comment is sent.
const COMMENT_AFTER: Duration = Duration::from_secs(15);
/// The least time between two frames.
const FRAMES_APART: Duration = Duration::from_millis(200);
/// After how many milliseconds a listener is to come back.
const RETRY_MS: u64 = 1000;

/// What a listener wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    /// How things stand, and what happens.
    All,
    /// What happens.
    Events,
    /// How things stand.
    Status,
}

impl Only {
    /// What a query asks for.
    ///
    /// # Errors
    /// Another parameter, or another value.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Refusal> {
        match query {
            None | Some("") => Ok(Self::All),
            Some("only=event") => Ok(Self::Events),
            Some("only=status") => Ok(Self::Status),
            Some(other) => Err(Refusal::Bad(format!(
                "only is event or status, and there is no other parameter: {other}"
            ))),
        }
    }
}

/// Who listens, and what they need.
pub(super) struct Listeners {
    live: Arc<Live>,
    places: Arc<Semaphore>,
    replaced: watch::Receiver<bool>,
}

/// One listener's place, and what it wants.
pub(super) struct Listener {
    only: Only,
    live: Arc<Live>,
    replaced: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Listeners {
    pub(super) fn new(live: Arc<Live>, replaced: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self {
            live,
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            replaced,
        })
    }

    /// What a page shows of the last minutes.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// A place for one more.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn enter(&self, only: Only) -> Result<Listener, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            telemetry::limit_hit(Limit::EventListeners);
            Refusal::Busy("as many listen to the events as may")
        })?;
        Ok(Listener {
            only,
            live: Arc::clone(&self.live),
            replaced: self.replaced.clone(),
            _place: place,
        })
    }
}

impl Listener {
    /// Sends what there is to be sent until the listener leaves, takes nothing, or is to ask the process
    /// that has taken over.
    pub(super) async fn serve<D: Downstream>(mut self, operator: &Operator, down: &mut D) {
        let feed = feed::feed();
        let mut sent = last_seen(feed, down);
        down.close_after();
        if !begin(down).await {
            return;
        }
        let mut phases = operator.shared.phases.clone();
        let mut newest = feed.follow();
        let (first, mut frames) = self.live.follow(operator);
        let mut text = format!("retry: {RETRY_MS}\n\n");
        let mut frame = Some(first);
        let mut last_frame = Instant::now();
        loop {
            if self.only != Only::Status {
                newest.mark_unchanged();
                for event in feed.after(sent) {
                    sent = event.number;
                    write_event(&mut text, feed, &event);
                    // What has happened is to be seen at once, but no faster than it can be.
                    if self.only == Only::All
                        && frame.is_none()
                        && last_frame.elapsed() >= FRAMES_APART
                    {
                        frame = Some(self.live.now(operator));
                    }
                }
            }
            if let Some(frame) = frame.take().filter(|_| self.only != Only::Events) {
                last_frame = Instant::now();
                let _ = write!(text, "event: status\ndata: {frame}\n\n");
            }
            if !send(down, &text).await {
                return;
            }
            text.clear();
            tokio::select! {
                biased;
                () = over(&mut phases, &mut self.replaced) => break,
                () = down.gone() => return,
                _ = newest.changed(), if self.only != Only::Status => {}
                _ = frames.changed(), if self.only != Only::Events => {
                    frame = Some(Arc::clone(&frames.borrow_and_update()));
                }
                () = sleep(COMMENT_AFTER) => text.push_str(":\n\n"),
            }
        }
        // Whoever is gone meanwhile needs no end.
        let _ = timeout(WRITE_TIME, down.finish()).await;
    }
}

/// The number of the last event that a listener has, by its `Last-Event-ID`.
fn last_seen<D: Downstream>(feed: &Feed, down: &D) -> u64 {
    let id = down.head().get("last-event-id");
    let id = id.and_then(|id| std::str::from_utf8(id).ok());
    id.map_or(0, |id| feed.number(id.trim()))
}

async fn begin<D: Downstream>(down: &mut D) -> bool {
    let set: [(&str, &[u8]); 3] = [
        ("content-type", b"text/event-stream"),
        ("cache-control", b"no-store"),
        ("x-content-type-options", b"nosniff"),
    ];
    let edits = Edits {
        set: &set,
        drop: Names::NONE,
        ..Edits::default()
    };
    down.send_head(200, None, edits, Length::Unknown)
        .await
        .is_ok()
}

/// Resolves when this process answers no more.
async fn over(phases: &mut Phases, replaced: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = phases.reached(Phase::Ending) => {}
        // An error means that nobody can replace this process any more.
        Ok(_) = replaced.wait_for(|replaced| *replaced) => {}
    }
}

/// False if the listener is gone, or is let go.
async fn send<D: Downstream>(down: &mut D, text: &str) -> bool {
    match timeout(WRITE_TIME, down.send_body(text.as_bytes())).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            telemetry::limit_hit(Limit::SlowListeners);
            down.abort().await;
            false
        }
    }
}

fn write_event(text: &mut String, feed: &Feed, event: &Event) {
    let id = feed.id(event);
    let data = json!({
        "id": id,
        "time": event.time(),
        "topic": event.topic.as_str(),
        "weight": event.weight.as_str(),
        "pool": event.pool,
        "endpoint": event.endpoint,
        "text": event.text,
    });
    let _ = write!(text, "id: {id}\nevent: event\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::telemetry::feed::{Topic, Weight};

    #[test]
    fn an_event_is_one_line_of_data_whatever_it_says() {
        let feed = Feed::new(UNIX_EPOCH);
        let text = "wrong:\nline 2\r\n\r\ndata: forged".to_owned();
        feed.add(UNIX_EPOCH, (Topic::Reload, Weight::Bad), ("p\n", ""), text);
        let mut written = String::new();
        write_event(&mut written, &feed, &feed.after(0)[0]);
        let lines: Vec<&str> = written.split(['\n', '\r']).collect();
        assert_eq!(lines.len(), 5, "{written}");
        assert_eq!((lines[0], lines[1]), ("id: 0-1", "event: event"));
        assert!(lines[2].starts_with("data: {") && lines[2].contains(r"\r\n\r\ndata: forged"));
    }

    #[test]
    fn a_query_says_what_a_listener_wants() {
        assert_eq!(Only::of(None).unwrap(), Only::All);
        assert_eq!(Only::of(Some("only=event")).unwrap(), Only::Events);
        assert_eq!(Only::of(Some("only=status")).unwrap(), Only::Status);
        for wrong in ["only=", "only=all", "x=1", "only=event&x=1"] {
            assert!(Only::of(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
