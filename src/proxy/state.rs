//! What requests share: the compiled configuration they run under, and the few things that change.
//!
//! A [`Snapshot`] is immutable and swapped whole; a request keeps the one it began with. The
//! rest of [`Shared`] outlives a snapshot: the session table, the log, the known tool names.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, mpsc};

use crate::config::{Balance, Config, Eras, HashOn, PoolId};
use crate::limit;
use crate::pool::{self, Admin, Allowance, Budget, Endpoint, Fact, HealthState, Moment};
use crate::session::{Keyring, NameHash, Table};
use crate::telemetry::{AccessLog, Limit, SessionTag, ToolNames, Traces};
use crate::transport::dial::Target;
use crate::transport::proxy_protocol::{Header, Version};
use crate::transport::tls;

pub use super::phases::{Phase, PhaseSender, Phases, phases};

use super::clients::{ClientName, ClientNames};
use super::contexts::Contexts;
use super::flight::{Flight, own_shard};
use super::limits::{Having, Limits};
use super::links::Links;
use super::memo::SharedMemo;
use super::open::OpenList;
use super::origin::{Origin, Origins};
use super::resume::rings::Rings;

/// The configuration as requests use it.
pub struct Snapshot {
    /// As checked.
    pub config: Config,
    /// In the order of `config.pools`.
    pub pools: Vec<Arc<PoolState>>,
    /// Pools that are no longer configured and have something open.
    pub leaving: Vec<Arc<PoolState>>,
    /// What clients may have.
    pub limits: Arc<Limits>,
}

impl Snapshot {
    /// The state of a pool.
    pub fn pool(&self, id: PoolId) -> &Arc<PoolState> {
        &self.pools[id.0]
    }

    /// Every pool that has something open, or may have.
    pub fn all_pools(&self) -> impl Iterator<Item = &Arc<PoolState>> {
        self.pools.iter().chain(&self.leaving)
    }
}

/// A pool with what is known about its servers.
pub struct PoolState {
    /// As checked.
    pub config: crate::config::Pool,
    /// The endpoints and the balancer over them: first those in `config`, in that order, then those
    /// that are leaving.
    pub pool: pool::Pool,
    /// Stable name for sealed ids.
    pub hash: NameHash,
    /// The `result` of the last good `server/discover`, raw JSON, at most 64 KiB. Served when no
    /// endpoint answers, because a failed probe would demote clients to the session era.
    pub discover: ArcSwapOption<String>,
    /// What dialing needs beside the address, by endpoint id.
    pub dial: HashMap<u64, DialFacts>,
    /// How many calls may be tried again.
    pub budget: Budget,
    /// Tools that their servers call harmless to call twice, where that is believed.
    pub repeatable: ArcSwapOption<HashSet<Box<str>>>,
}

/// What dialing an endpoint needs beside its address at the moment.
#[derive(Debug, Clone)]
pub struct DialFacts {
    /// The authority to send: the address as configured, or `localhost` for a unix socket.
    pub authority: String,
    /// Keeps the connections of endpoints apart: a hash of the names of pool and endpoint.
    pub group: u64,
    /// HTTP/2: with prior knowledge, or under TLS if the endpoint agrees to it.
    pub http2: bool,
    /// How TLS is spoken, if it is.
    pub tls: Option<tls::Client>,
    /// The file of its unix socket, if that is where it is.
    pub unix: Option<Box<Path>>,
    /// Which header of the PROXY protocol connections begin with, if any.
    pub announces: Option<Announces>,
}

/// How an endpoint is told for whom a connection is made.
#[derive(Debug, Clone)]
pub struct Announces {
    /// The version of the header.
    pub version: Version,
    /// Keeps the connections of different clients apart, by a hash that no client can foresee.
    pub by_client: RandomState,
}

/// Bound on a remembered `server/discover` result.
pub const DISCOVER_MAX: usize = 64 * 1024;

impl PoolState {
    /// The endpoints that are in its configuration no more.
    pub fn leaving(&self) -> &[Arc<Endpoint>] {
        &self.pool.endpoints()[self.config.endpoints.len()..]
    }

    /// How an endpoint of this pool is dialed at `address` on behalf of `client`, and the authority to
    /// ask it by.
    pub fn target(
        &self,
        endpoint: u64,
        address: SocketAddr,
        client: Header,
    ) -> Option<(Target<'_>, &str)> {
        let facts = self.dial.get(&endpoint)?;
        // Kept for the client, whichever of its connections a request comes on.
        let of_client = facts.announces.as_ref().map_or(0, |announces| {
            let client = match client {
                Header::For { source, .. } => Some(source.ip()),
                Header::Itself => None,
            };
            announces.by_client.hash_one(client)
        });
        let target = Target {
            address,
            group: facts.group ^ of_client,
            http2: facts.http2,
            tls: facts.tls.as_ref(),
            unix: facts.unix.as_deref(),
            announce: facts
                .announces
                .as_ref()
                .map(|announces| (announces.version, client)),
            connect_timeout: self.config.timeouts.connect,
            write_timeout: Some(self.config.timeouts.write),
            idle: self.config.keep_alive,
            reuse: true,
        };
        Some((target, &facts.authority))
    }

    /// The authority to ask an endpoint by; empty if it is not of this pool.
    pub fn authority(&self, endpoint: u64) -> &str {
        self.dial
            .get(&endpoint)
            .map_or("", |facts| &facts.authority)
    }

    /// Where an endpoint is, as configured; empty if it is not of this pool.
    pub fn place(&self, endpoint: u64) -> String {
        match self.dial.get(&endpoint) {
            None => String::new(),
            Some(facts) => match &facts.unix {
                Some(path) => format!("unix:{}", path.display()),
                None => facts.authority.clone(),
            },
        }
    }

    /// Whether the pool's servers issue session ids: `Yes` if any does, `No` if all that are
    /// known do not, `Unknown` before anything was learned.
    pub fn issues_sessions(&self) -> Fact {
        let mut known = Fact::Unknown;
        for endpoint in self.pool.endpoints() {
            match endpoint.facts.issues_sessions.get() {
                Fact::Yes => return Fact::Yes,
                Fact::No => known = Fact::No,
                Fact::Unknown => {}
            }
        }
        known
    }

    /// Whether the first check of every endpoint has ended, however it did.
    pub fn is_settled(&self) -> bool {
        let endpoints = self.pool.endpoints();
        endpoints.iter().all(|endpoint| !endpoint.awaits_check())
    }

    /// Whether any endpoint can take new work now, or has not been checked yet.
    pub fn is_usable(&self) -> bool {
        self.pool.endpoints().iter().any(|endpoint| {
            matches!(endpoint.health(), HealthState::Up | HealthState::Unchecked)
                && endpoint.admin() == Admin::Up
                && endpoint.address().is_some()
        })
    }

    /// Whether any endpoint may speak the session era, by config or as far as learned.
    pub fn speaks_session_era(&self) -> bool {
        match self.config.eras {
            Eras::Session | Eras::Both => true,
            Eras::Stateless => false,
            Eras::Auto => self
                .pool
                .endpoints()
                .iter()
                .any(|e| e.facts.speaks_session_era.get() != Fact::No),
        }
    }

    /// Whether any endpoint may speak the stateless era, by config or as far as learned.
    pub fn speaks_stateless_era(&self) -> bool {
        match self.config.eras {
            Eras::Stateless | Eras::Both => true,
            Eras::Session => false,
            Eras::Auto => self
                .pool
                .endpoints()
                .iter()
                .any(|e| e.facts.speaks_stateless_era.get() != Fact::No),
        }
    }

    /// Keeps the result of a good `server/discover` answer. Anything else is passed over.
    pub fn remember_discover(&self, answer: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            result: Option<&'a serde_json::value::RawValue>,
        }
        if answer.len() > DISCOVER_MAX {
            return;
        }
        if let Ok(Answer {
            result: Some(result),
        }) = serde_json::from_slice(answer)
        {
            self.discover.store(Some(Arc::new(result.get().to_owned())));
        }
    }

    /// Counts a call of this thread, of which a share may be tried again.
    pub fn count_call(&self, now: Moment) {
        self.budget.call(own_shard(), now);
    }

    /// May one more call be tried again? Counted, if so.
    pub fn may_retry(&self, now: Moment) -> bool {
        let allowance = self.allowance();
        allowance.is_some_and(|allowance| self.budget.retry(own_shard(), allowance, now))
    }

    /// How many calls may be tried again at this moment.
    pub fn retries_left(&self, now: Moment) -> u64 {
        let allowance = self.allowance();
        allowance.map_or(0, |allowance| self.budget.left(allowance, now))
    }

    fn allowance(&self) -> Option<Allowance> {
        self.config.retries.as_ref().map(|retries| Allowance {
            ratio: retries.ratio,
            floor: retries.floor,
        })
    }

    /// The endpoints of its configuration, and how many of them get new calls at this moment: neither
    /// down nor unwell, wanted, found, with a weight, not ejected, and with a breaker that is not open.
    pub fn available(&self, now: Moment) -> (usize, usize) {
        let count = self.config.endpoints.len();
        let is_available = |one: &&Arc<Endpoint>| {
            matches!(one.health(), HealthState::Up | HealthState::Unchecked)
                && one.admin() == Admin::Up
                && one.weight() > 0
                && one.is_resolved()
                && !one.guard.is_ejected(now)
                && one.guard.breaker(now) != pool::breaker::State::Open
        };
        let configured = self.pool.endpoints().iter().take(count);
        (count, configured.filter(is_available).count())
    }

    /// May this tool be called twice, by what its server says and the operator believes?
    pub fn is_repeatable(&self, tool: &str) -> bool {
        let known = self.repeatable.load();
        known.as_ref().is_some_and(|known| known.contains(tool))
    }

    /// What the consistent hash looks at, if the pool balances so.
    pub fn hash_on(&self) -> Option<&HashOn> {
        match &self.config.balance {
            Balance::ConsistentHash(on) => Some(on),
            Balance::LeastLoad | Balance::PeakEwma | Balance::Random | Balance::RoundRobin => None,
        }
    }
}

/// What the table holds for a live session besides its own bookkeeping.
pub struct Held {
    /// Counts the session on its endpoint until the entry goes.
    pub guard: pool::SessionGuard,
    /// Where to send the DELETE when the session expires.
    pub endpoint: Arc<Endpoint>,
    /// The pool the endpoint belongs to.
    pub pool: Arc<PoolState>,
    /// The request path the session was opened on.
    pub path: Box<str>,
    /// What it takes to begin the session again elsewhere, where that is wanted and known.
    pub origin: Option<Arc<Origin>>,
    /// Counts the session as one of its client's and of its principal's, where that is limited.
    pub counted: Box<[limit::Counted]>,
    /// The session in the words of the log.
    pub tag: Option<SessionTag>,
    /// What its client calls itself, where that is known.
    pub client: Option<Arc<ClientName>>,
}

/// Sessions to delete that may wait; more are dropped and counted.
const ORPHANS_MAX: usize = 10_000;
/// Suspicions that may wait. Each endpoint has at most one at a time.
const SUSPECTS_MAX: usize = 1024;

/// Where requests leave work to the background.
pub struct Chores {
    orphans: mpsc::Sender<Orphan>,
    suspects: mpsc::Sender<Arc<Endpoint>>,
    reloads: Arc<Notify>,
}

/// The work that waits.
pub struct Waiting {
    /// Sessions on servers that no client knows, or that have expired.
    pub orphans: mpsc::Receiver<Orphan>,
    /// Endpoints that could not be connected to, to be checked now.
    pub suspects: mpsc::Receiver<Arc<Endpoint>>,
    /// There is another snapshot.
    pub reloads: Arc<Notify>,
}

impl Chores {
    /// Both ends of two bounded queues.
    pub fn new() -> (Self, Waiting) {
        let (orphans, waiting_orphans) = mpsc::channel(ORPHANS_MAX);
        let (suspects, waiting_suspects) = mpsc::channel(SUSPECTS_MAX);
        let waiting = Waiting {
            orphans: waiting_orphans,
            suspects: waiting_suspects,
            reloads: Arc::default(),
        };
        let chores = Self {
            orphans,
            suspects,
            reloads: Arc::clone(&waiting.reloads),
        };
        (chores, waiting)
    }

    /// Has a session deleted. A full queue drops it: the server's own expiry is the last resort.
    pub fn delete(&self, orphan: Orphan) {
        if self.orphans.try_send(orphan).is_err() {
            crate::telemetry::limit_hit(Limit::Chores);
        }
    }

    /// The same for one of many: waits for a place in the queue.
    pub async fn delete_in_turn(&self, orphan: Orphan) {
        // Without a reader the process is ending.
        let _ = self.orphans.send(orphan).await;
    }

    /// Has the endpoints of the snapshot watched that is in force now.
    pub fn reloaded(&self) {
        self.reloads.notify_one();
    }

    /// Has an endpoint checked now, unless that was asked for already.
    pub fn suspect(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.suspect() && self.suspects.try_send(Arc::clone(endpoint)).is_err() {
            crate::telemetry::limit_hit(Limit::Chores);
        }
    }
}

/// A session to delete on a server.
pub struct Orphan {
    /// The pool, for timeouts.
    pub pool: Arc<PoolState>,
    /// The server.
    pub endpoint: Arc<Endpoint>,
    /// The server's own session id.
    pub server_id: Arc<str>,
    /// The request path.
    pub path: Box<str>,
}

/// What all requests of the process share.
pub struct Shared {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Seals and opens session ids.
    pub keyring: ArcSwap<Keyring>,
    /// Live sessions, as far as this process has seen them.
    pub sessions: Arc<Table<Held>>,
    /// What their ids say, of those that were served lately.
    pub memo: Arc<SharedMemo>,
    /// What it takes to begin sessions again that are lost.
    pub origins: Arc<Origins>,
    /// Sessions that have a series of their own in the metrics.
    pub contexts: Contexts,
    /// Open HTTP+SSE streams.
    pub links: Arc<Links>,
    /// Streams that a client can come back to.
    pub rings: Arc<Rings>,
    /// The access log.
    pub log: AccessLog,
    /// Spans on their way to a collector.
    pub traces: Traces,
    /// Tool names that may be metric labels.
    pub tools: Arc<ToolNames>,
    /// Whether the process is on its way out.
    pub phases: Phases,
    /// Work for the background.
    pub chores: Chores,
    /// Exchanges in flight, over all threads.
    pub flight: Arc<Flight>,
    /// What is open and lasts.
    pub open: OpenList,
    /// What clients call themselves.
    pub clients: ClientNames,
    /// How much clients have of what is limited.
    pub having: Having,
    /// When the clock of the pools began to run.
    pub started: Instant,
}

impl Shared {
    /// `now` on the clock of the pools.
    pub fn moment(&self, now: Instant) -> Moment {
        Moment::of(self.started, now)
    }

    /// The phase at this moment.
    pub fn phase(&self) -> Phase {
        self.phases.now()
    }
}

/// How long a client's `server/discover` is held when nothing is known yet and no endpoint is up.
pub const DISCOVER_HOLD: Duration = Duration::from_secs(3);
