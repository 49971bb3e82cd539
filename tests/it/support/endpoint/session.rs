//! One session of the session era, and the messages waiting on its streams.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::sync::{oneshot, watch};

/// What one client shares with the server from `initialize` to DELETE.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) counter: AtomicU64,
    /// Set while a GET stream is open: there can be one at a time.
    get_taken: AtomicBool,
    /// What goes out on the GET stream.
    pub(super) pushes: Arc<EventLog>,
    /// Counts the times the server ended the GET stream by itself.
    get_ends: watch::Sender<u64>,
    ids: Option<Arc<AtomicU64>>,
    /// Streams that can be resumed.
    logs: Mutex<Vec<Arc<EventLog>>>,
    asks: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    last_ask: AtomicU64,
}

impl Session {
    /// With `ids` the events on its streams are numbered from there.
    pub(super) fn new(id: String, ids: Option<Arc<AtomicU64>>) -> Self {
        Self {
            id,
            counter: AtomicU64::new(0),
            get_taken: AtomicBool::new(false),
            pushes: Arc::new(EventLog::new(ids.clone())),
            get_ends: watch::Sender::new(0),
            ids,
            logs: Mutex::default(),
            asks: Mutex::default(),
            last_ask: AtomicU64::new(0),
        }
    }

    /// Takes the one place of a GET stream; nothing when it is taken.
    pub(super) fn take_get(self: &Arc<Self>) -> Option<GetPlace> {
        let taken = self.get_taken.swap(true, SeqCst);
        (!taken).then(|| GetPlace(self.clone()))
    }

    /// Adds a message for the GET stream; tells whether one is open.
    pub(super) fn push(&self, message: &Value) -> bool {
        self.pushes.add(message.to_string());
        self.get_taken.load(SeqCst)
    }

    /// Sees the server end the GET stream, from now on.
    pub(super) fn get_ends(&self) -> watch::Receiver<u64> {
        self.get_ends.subscribe()
    }

    /// Ends the GET stream that is open.
    pub(super) fn end_get(&self) {
        self.get_ends.send_modify(|count| *count += 1);
    }

    /// Begins a stream that can be resumed.
    pub(super) fn new_log(&self) -> Arc<EventLog> {
        let log = Arc::new(EventLog::new(self.ids.clone()));
        lock(&self.logs).push(log.clone());
        log
    }

    /// The stream with this event on it, and the place after the event.
    pub(super) fn resume(&self, event_id: u64) -> Option<(Arc<EventLog>, usize)> {
        let mut logs = lock(&self.logs).clone();
        logs.push(self.pushes.clone());
        logs.into_iter()
            .find_map(|log| log.after(event_id).map(|at| (log, at)))
    }

    /// Registers a request to the client: its id, from the server's own id space (which begins at 0,
    /// as clients' do), and the answer to come.
    pub(super) fn ask(&self) -> (u64, oneshot::Receiver<Value>) {
        let id = self.last_ask.fetch_add(1, SeqCst);
        let (answer, awaited) = oneshot::channel();
        lock(&self.asks).insert(id, answer);
        (id, awaited)
    }

    /// Hands over the client's answer; gives it back when nobody waits for it.
    pub(super) fn answered(&self, message: Value) -> Result<(), Value> {
        let id = message.get("id").and_then(Value::as_u64);
        match id.and_then(|id| lock(&self.asks).remove(&id)) {
            Some(waiting) => waiting.send(message),
            None => Err(message),
        }
    }
}

/// The one place of a GET stream, free again when dropped.
pub(super) struct GetPlace(Arc<Session>);

impl Drop for GetPlace {
    fn drop(&mut self) {
        self.0.get_taken.store(false, SeqCst);
    }
}

/// The events of one stream, kept so that it can be read from any place, by whoever is there.
#[derive(Debug)]
pub(super) struct EventLog {
    /// The last event id given out; events of a log without have none.
    ids: Option<Arc<AtomicU64>>,
    entries: Mutex<Vec<Entry>>,
    /// The count of entries and whether more can come.
    grown: watch::Sender<(usize, bool)>,
}

/// One event of a log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: Option<u64>,
    pub(super) data: String,
}

impl EventLog {
    fn new(ids: Option<Arc<AtomicU64>>) -> Self {
        Self {
            ids,
            entries: Mutex::default(),
            grown: watch::Sender::new((0, false)),
        }
    }

    pub(super) fn add(&self, data: String) {
        let mut entries = lock(&self.entries);
        let id = self.ids.as_ref().map(|last| last.fetch_add(1, SeqCst) + 1);
        entries.push(Entry { id, data });
        self.grown.send_modify(|(count, _)| *count = entries.len());
    }

    /// Says that nothing more will come.
    pub(super) fn finish(&self) {
        self.grown.send_modify(|(_, finished)| *finished = true);
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Waits for the entry at this place; nothing when the log ended before it.
    pub(super) async fn entry(&self, at: usize) -> Option<Entry> {
        let mut grown = self.grown.subscribe();
        // The sender is a field of this log, so it lives.
        let _ = grown
            .wait_for(|(count, finished)| *count > at || *finished)
            .await;
        lock(&self.entries).get(at).cloned()
    }

    fn after(&self, event_id: u64) -> Option<usize> {
        let entries = lock(&self.entries);
        let found = entries.iter().position(|entry| entry.id == Some(event_id));
        found.map(|at| at + 1)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
