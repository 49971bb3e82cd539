//! A real MCP server with a script, one per test.
//!
//! By default it behaves well and speaks both eras on `/mcp`, as servers in the wild do: sessions
//! with ids for clients that say `initialize`, self-contained requests for those of 2026-07-28. Paths
//! under `/plain` answer any method with what was received, for routes that are plain HTTP.
//!
//! Tools: `whoami`, `echo`, `counter` (per session; per endpoint in the stateless era), `big {bytes}`,
//! `slow {ms}`, `fail`, `ticks {n, every_ms, close_after}` and `ask`. The last two answer with a stream.
//!
//! The endpoint counts and keeps everything it sees; a test waits for that with
//! [`Endpoint::until`]. Faults are switched on and off at run time; see [`super::script`].

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::{Fault, PATIENCE, POLL, within};

mod http2;
mod old_sse;
mod reply;
mod serve;
mod session;
mod session_era;
mod state;
mod stateless_era;
mod tools;
mod websocket;

pub(crate) use state::{Disconnect, Request};

use state::State;

/// How the server is made; see [`Builder`].
#[derive(Clone, Debug)]
struct Manners {
    session_era: bool,
    stateless_era: bool,
    session_ids: bool,
    leaky: bool,
    event_store: bool,
    streams_everything: bool,
    old_sse: bool,
    websocket: bool,
    http2: bool,
    cache_ttl_ms: u64,
    cache_scope: &'static str,
}

/// Makes an [`Endpoint`] that is not the default one.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    name: String,
    manners: Manners,
}

impl Builder {
    /// Speaks 2026-07-28 alone: `initialize` is refused with the versions it knows.
    pub(crate) fn stateless_only(mut self) -> Self {
        self.manners.session_era = false;
        self
    }

    /// Speaks the session era alone: a request of 2026-07-28 is one without a session id to it.
    pub(crate) fn session_only(mut self) -> Self {
        self.manners.stateless_era = false;
        self
    }

    /// Session era without session ids; ids that clients send are ignored.
    pub(crate) fn sessionless(mut self) -> Self {
        self.manners.session_ids = false;
        self
    }

    /// Opens a session, and sends its id, with every error reply too, as the Python SDK does.
    pub(crate) fn leaky(mut self) -> Self {
        self.manners.leaky = true;
        self
    }

    /// Numbers the events of session-era streams with small integers, starts each with a priming
    /// event, goes on with a tool when its client is gone, and replays after `Last-Event-ID`. The
    /// `ticks` tool ends its stream on purpose after `close_after` messages.
    pub(crate) fn event_store(mut self) -> Self {
        self.manners.event_store = true;
        self
    }

    /// Answers every tool call with a stream, not only those that have something to say before.
    pub(crate) fn streams_everything(mut self) -> Self {
        self.manners.streams_everything = true;
        self
    }

    /// Speaks HTTP+SSE of 2024-11-05 instead, on `/sse` and `/messages`.
    pub(crate) fn legacy_sse(mut self) -> Self {
        self.manners.old_sse = true;
        self.manners.session_era = false;
        self.manners.stateless_era = false;
        self
    }

    /// Accepts WebSockets on any path, subprotocol `mcp`. A JSON-RPC request is answered, any other
    /// text is echoed.
    pub(crate) fn websocket(mut self) -> Self {
        self.manners.websocket = true;
        self
    }

    /// Speaks HTTP/2 with prior knowledge, and closes on whoever speaks anything else.
    pub(crate) fn http2(mut self) -> Self {
        self.manners.http2 = true;
        self
    }

    /// The cache hints of stateless results; 0 and `private` unless set.
    pub(crate) fn cache(mut self, ttl_ms: u64, scope: &'static str) -> Self {
        self.manners.cache_ttl_ms = ttl_ms;
        self.manners.cache_scope = scope;
        self
    }

    /// Takes a free port of 127.0.0.1 and serves on it.
    pub(crate) async fn start(self) -> Endpoint {
        let (reservation, address) = reserve_port();
        let endpoint = Endpoint {
            state: Arc::new(State::new(self.name, self.manners)),
            address,
            acceptor: Mutex::default(),
            _reservation: reservation,
        };
        endpoint.listen();
        endpoint
    }
}

/// A running server; it ends, with its connections, when dropped.
pub(crate) struct Endpoint {
    state: Arc<State>,
    address: SocketAddr,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    /// Bound but not listening, so that the port stays ours while nobody listens on it.
    _reservation: Socket,
}

impl Endpoint {
    /// A well-behaved server of both eras.
    pub(crate) async fn start(name: &str) -> Self {
        Self::named(name).start().await
    }

    /// A server with manners of its own.
    pub(crate) fn named(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            manners: Manners {
                session_era: true,
                stateless_era: true,
                session_ids: true,
                leaky: false,
                event_store: false,
                streams_everything: false,
                old_sse: false,
                websocket: false,
                http2: false,
                cache_ttl_ms: 0,
                cache_scope: "private",
            },
        }
    }

    /// What `whoami` answers.
    pub(crate) fn name(&self) -> &str {
        &self.state.name
    }

    /// Where it listens; the same over restarts.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    // Life and death.

    /// Stops listening: connects are refused, connections live on. [`Endpoint::restart`] undoes it.
    pub(crate) async fn refuse_connections(&self) {
        let acceptor = self.acceptor.lock().expect("no holder panics").take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
            // The listener is closed once the task is gone.
            let _ = acceptor.await;
        }
    }

    /// Dies as by `kill -9`: refuses connects and resets every connection, at once.
    pub(crate) async fn kill(&self) {
        self.refuse_connections().await;
        self.reset_connections().await;
    }

    /// Resets every connection and keeps listening.
    pub(crate) async fn reset_connections(&self) {
        for connection in self.state.take_connections() {
            if let Some(socket) = connection.socket.upgrade() {
                super::wire::reset_on_close(&socket);
            }
            connection.task.abort();
            let _ = connection.task.await;
        }
        self.state.touch();
    }

    /// Listens again on the same port, with the sessions it had.
    pub(crate) async fn restart(&self) {
        self.refuse_connections().await;
        self.listen();
    }

    /// Listens again on the same port as a new process would: no session, no count, no state key.
    pub(crate) async fn restart_forgetting(&self) {
        self.kill().await;
        self.state.forget();
        self.listen();
    }

    fn listen(&self) {
        let listener = listen_on(self.address);
        let task = tokio::spawn(serve::accept(self.state.clone(), listener));
        *self.acceptor.lock().expect("no holder panics") = Some(task);
    }

    // Faults.

    /// Shows this fault to every request until [`Endpoint::heal`].
    pub(crate) fn fault(&self, fault: Fault) {
        self.fault_when(fault, |_| true);
    }

    /// Shows this fault to the next `count` requests; called twice, one after the other.
    pub(crate) fn fault_next(&self, count: usize, fault: Fault) {
        self.state
            .script
            .add(fault, Some(count), Box::new(|_| true));
    }

    /// Shows this fault to every request that `when` picks.
    pub(crate) fn fault_when(
        &self,
        fault: Fault,
        when: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) {
        self.state.script.add(fault, None, Box::new(when));
    }

    /// Shows this fault to the next `count` requests that `when` picks.
    pub(crate) fn fault_next_when(
        &self,
        count: usize,
        fault: Fault,
        when: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) {
        self.state.script.add(fault, Some(count), Box::new(when));
    }

    /// Takes every fault back; stalled replies go on.
    pub(crate) fn heal(&self) {
        self.state.script.heal();
    }

    /// How many requests met a fault.
    pub(crate) fn faults_fired(&self) -> usize {
        self.state.script.fired()
    }

    // What it has seen.

    /// Every complete request, in order of arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state
            .requests
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// The requests with this JSON-RPC method.
    pub(crate) fn calls(&self, rpc_method: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.rpc_method() == Some(rpc_method));
        requests
    }

    /// Waits for a request that `picks` likes; one already there counts.
    pub(crate) async fn request(&self, picks: impl Fn(&Request) -> bool) -> Request {
        self.until("the request", |e| e.requests().iter().any(&picks))
            .await;
        let found = self.requests().into_iter().find(picks);
        found.expect("until saw it, and requests are never forgotten")
    }

    /// Times a client left while its request was being answered.
    pub(crate) fn disconnects(&self) -> Vec<Disconnect> {
        self.state
            .disconnects
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// Connections accepted since the start.
    pub(crate) fn connections_accepted(&self) -> usize {
        self.state.counts.connections_accepted.load(SeqCst)
    }

    /// Connections open now.
    pub(crate) fn connections_open(&self) -> usize {
        self.state.counts.connections_open.load(SeqCst)
    }

    /// Event streams open now.
    pub(crate) fn streams_open(&self) -> usize {
        self.state.counts.streams_open.load(SeqCst)
    }

    /// Requests being answered now, streams included.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.counts.in_flight.load(SeqCst)
    }

    /// Sessions opened since the start, wanted or leaked.
    pub(crate) fn sessions_opened(&self) -> usize {
        self.state.counts.sessions_opened.load(SeqCst)
    }

    /// Sessions ended by DELETE.
    pub(crate) fn sessions_deleted(&self) -> usize {
        self.state.counts.sessions_deleted.load(SeqCst)
    }

    /// The ids of the live sessions, oldest first.
    pub(crate) fn sessions(&self) -> Vec<String> {
        let sessions = self.state.sessions.lock().expect("no holder panics");
        sessions.iter().map(|session| session.id.clone()).collect()
    }

    /// The answers to server requests that no tool was waiting for.
    pub(crate) fn stray_answers(&self) -> Vec<Value> {
        self.state
            .stray_answers
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// Waits until `holds`; panics with `what` when it never does. Woken by every change.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        within(&format!("{what} at {}", self.state.name), async {
            loop {
                let mut changed = std::pin::pin!(self.state.changed.notified());
                changed.as_mut().enable();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    // What it does by itself.

    /// Forgets a session, as a server's own idle limit would. Its streams end.
    pub(crate) fn expire(&self, session: &str) {
        self.state.close_session(session);
    }

    /// Sends a message on the session's GET stream (or HTTP+SSE stream); false when none is open
    /// (and then, with an event store, it is kept for a resume).
    pub(crate) fn push(&self, session: &str, message: &Value) -> bool {
        let Some(session) = self.state.session(session) else {
            panic!("{} has no session {session}", self.state.name);
        };
        session.push(message)
    }

    /// Ends the session's GET stream in good order; the session lives on.
    pub(crate) fn close_get_stream(&self, session: &str) {
        if let Some(session) = self.state.session(session) {
            session.end_get();
        }
    }

    /// Sends `notifications/tools/list_changed` to every `subscriptions/listen`; tells how many.
    pub(crate) fn notify_listeners(&self) -> usize {
        self.state.tell_listeners(state::Told::ToolsChanged)
    }

    /// Ends every `subscriptions/listen` with its result.
    pub(crate) fn finish_listeners(&self) -> usize {
        self.state.tell_listeners(state::Told::Finish)
    }

    /// Sends a text frame to every WebSocket; tells how many.
    pub(crate) fn push_websockets(&self, text: &str) -> usize {
        self.state
            .tell_websockets(websocket::Told::Text(text.into()))
    }

    /// Sends a close frame with this code to every WebSocket; tells how many.
    pub(crate) fn close_websockets(&self, code: u16) -> usize {
        self.state.tell_websockets(websocket::Told::Close(code))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor.lock().ok().and_then(|mut slot| slot.take()) {
            acceptor.abort();
        }
        for connection in self.state.take_connections() {
            connection.task.abort();
        }
    }
}

/// Takes a free port of 127.0.0.1 and keeps it from everyone who does not name it: the socket is
/// bound and does not listen, so a connect is refused, and a listener that sets SO_REUSEADDR or
/// SO_REUSEPORT can still bind the same port.
pub(crate) fn reserve_port() -> (Socket, SocketAddr) {
    let reserve = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?;
        Ok::<_, std::io::Error>((socket, address))
    };
    let (socket, address) = reserve().expect("a free port on 127.0.0.1");
    (socket, address.as_socket().expect("an IPv4 socket has one"))
}

/// Listens on a port that was reserved for it. The listener that was there before may live on for a
/// moment in a process that another test is starting, so this tries again for a while.
fn listen_on(address: SocketAddr) -> TcpListener {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listen() {
            Ok(listener) => return listener,
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(POLL);
            }
            Err(e) => panic!("the port is reserved for this endpoint: {e}"),
        }
    }
}
