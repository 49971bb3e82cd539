//! What an endpoint knows and counts, shared by all its connections.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

use super::super::Headers;
use super::super::script::Script;
use super::Manners;
use super::session::Session;
use super::websocket;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When it was complete.
    pub(crate) at: Instant,
    /// Which connection it came on, counted from 1.
    pub(crate) connection: usize,
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    /// The body, if it is JSON.
    pub(crate) rpc: Option<Value>,
}

impl Request {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The JSON-RPC method, if the body has one.
    pub(crate) fn rpc_method(&self) -> Option<&str> {
        self.rpc.as_ref()?.get("method")?.as_str()
    }

    /// The JSON-RPC id; null when there is none.
    pub(crate) fn rpc_id(&self) -> Value {
        let id = self.rpc.as_ref().and_then(|rpc| rpc.get("id"));
        id.cloned().unwrap_or_default()
    }

    /// The tool of a `tools/call`.
    pub(crate) fn tool(&self) -> Option<&str> {
        self.rpc.as_ref()?.pointer("/params/name")?.as_str()
    }
}

/// A client that left while its request was being answered.
#[derive(Clone, Debug)]
pub(crate) struct Disconnect {
    pub(crate) at: Instant,
    pub(crate) request: Request,
    /// Whether an event stream was open by then, rather than a head still awaited.
    pub(crate) streaming: bool,
}

/// Numbers that only grow, and numbers of what is open now.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections_accepted: AtomicUsize,
    pub(super) connections_open: AtomicUsize,
    pub(super) streams_open: AtomicUsize,
    pub(super) in_flight: AtomicUsize,
    pub(super) sessions_opened: AtomicUsize,
    pub(super) sessions_deleted: AtomicUsize,
}

/// A connection that may have to be cut.
pub(super) struct Open {
    pub(super) socket: Weak<TcpStream>,
    pub(super) task: JoinHandle<()>,
}

/// What a listening stream is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    ToolsChanged,
    Finish,
}

pub(super) struct State {
    pub(super) name: String,
    pub(super) manners: Manners,
    pub(super) script: Script,
    pub(super) counts: Counts,
    pub(super) requests: Mutex<Vec<Request>>,
    pub(super) disconnects: Mutex<Vec<Disconnect>>,
    pub(super) stray_answers: Mutex<Vec<Value>>,
    /// Live sessions in order of birth.
    pub(super) sessions: Mutex<Vec<Arc<Session>>>,
    /// What the stateless `counter` tool has counted.
    pub(super) counter: AtomicU64,
    /// The last event id given out. Small numbers, so that those of two endpoints collide.
    pub(super) last_event_id: Arc<AtomicU64>,
    /// Marks the `requestState` of this process; another one's is refused.
    pub(super) state_key: Mutex<String>,
    /// Woken by whatever changes in here.
    pub(super) changed: Notify,
    listeners: broadcast::Sender<Told>,
    websockets: broadcast::Sender<websocket::Told>,
    connections: Mutex<Vec<Open>>,
}

impl State {
    pub(super) fn new(name: String, manners: Manners) -> Self {
        Self {
            name,
            manners,
            script: Script::new(),
            counts: Counts::default(),
            requests: Mutex::default(),
            disconnects: Mutex::default(),
            stray_answers: Mutex::default(),
            sessions: Mutex::default(),
            counter: AtomicU64::new(0),
            last_event_id: Arc::default(),
            state_key: Mutex::new(random_id()),
            changed: Notify::new(),
            listeners: broadcast::Sender::new(64),
            websockets: broadcast::Sender::new(64),
            connections: Mutex::default(),
        }
    }

    /// Becomes what a new process of the same program would be.
    pub(super) fn forget(&self) {
        self.lock_sessions().clear();
        self.counter.store(0, SeqCst);
        self.last_event_id.store(0, SeqCst);
        *self.state_key.lock().expect("no holder panics") = random_id();
        self.touch();
    }

    /// Wakes those who wait in `Endpoint::until`.
    pub(super) fn touch(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn saw(&self, request: &Request) {
        let mut requests = self.requests.lock().expect("no holder panics");
        requests.push(request.clone());
        drop(requests);
        self.touch();
    }

    pub(super) fn client_left(&self, request: Request, streaming: bool) {
        let mut disconnects = self.disconnects.lock().expect("no holder panics");
        disconnects.push(Disconnect {
            at: Instant::now(),
            request,
            streaming,
        });
        drop(disconnects);
        self.touch();
    }

    pub(super) fn stray_answer(&self, message: Value) {
        let mut strays = self.stray_answers.lock().expect("no holder panics");
        strays.push(message);
        drop(strays);
        self.touch();
    }

    // Sessions.

    pub(super) fn open_session(&self) -> Arc<Session> {
        let numbered = self.manners.event_store;
        let ids = numbered.then(|| self.last_event_id.clone());
        let session = Arc::new(Session::new(random_id(), ids));
        self.lock_sessions().push(session.clone());
        self.counts.sessions_opened.fetch_add(1, SeqCst);
        self.touch();
        session
    }

    pub(super) fn session(&self, id: &str) -> Option<Arc<Session>> {
        let sessions = self.lock_sessions();
        sessions.iter().find(|session| session.id == id).cloned()
    }

    /// Ends a session and its streams; false when there was none.
    pub(super) fn close_session(&self, id: &str) -> bool {
        let Some(session) = self.session(id) else {
            return false;
        };
        self.lock_sessions().retain(|session| session.id != id);
        session.end_get();
        self.touch();
        true
    }

    fn lock_sessions(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().expect("no holder panics")
    }

    // Those who listen.

    pub(super) fn listen(&self) -> broadcast::Receiver<Told> {
        self.listeners.subscribe()
    }

    pub(super) fn tell_listeners(&self, told: Told) -> usize {
        self.listeners.send(told).unwrap_or_default()
    }

    pub(super) fn websocket(&self) -> broadcast::Receiver<websocket::Told> {
        self.websockets.subscribe()
    }

    pub(super) fn tell_websockets(&self, told: websocket::Told) -> usize {
        self.websockets.send(told).unwrap_or_default()
    }

    // Connections.

    pub(super) fn keep(&self, connection: Open) {
        let mut connections = self.connections.lock().expect("no holder panics");
        connections.retain(|open| !open.task.is_finished());
        connections.push(connection);
    }

    pub(super) fn take_connections(&self) -> Vec<Open> {
        std::mem::take(&mut *self.connections.lock().expect("no holder panics"))
    }

    /// Counts one more of something until the guard is dropped.
    pub(super) fn count(self: &Arc<Self>, which: fn(&Counts) -> &AtomicUsize) -> Counted {
        which(&self.counts).fetch_add(1, SeqCst);
        self.touch();
        Counted {
            state: self.clone(),
            which,
        }
    }
}

/// One of something that is open.
pub(super) struct Counted {
    state: Arc<State>,
    which: fn(&Counts) -> &AtomicUsize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.state.counts).fetch_sub(1, SeqCst);
        self.state.touch();
    }
}

/// An id in the form of a UUID, which is what most servers give out.
pub(super) fn random_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    let (a, b) = (word(), word());
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}
