//! A session whose endpoint is lost is begun again on another one, and its client need not know.
//!
//! In a pool with `on_endpoint_loss: reinitialize` the client's `initialize` is sent to a healthy
//! endpoint in its name, and the new server's session is bound to the id that the client has. The
//! log level and the subscriptions are told to the new server. What the old one remembered of the
//! session is gone: this is for servers whose sessions hold nothing worth keeping.
//!
//! It happens when the client next asks for something, or at once for a client that listens. One
//! request of a session begins it again, the others wait for that one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::time::timeout;

use super::Worker;
use super::ask::{Answer, Question, ask};
use super::decide::Bound;
use super::fault::Fault;
use super::kept::Kept;
use super::memo::Known;
use super::origin::Origin;
use super::outcome::{self, Said};
use super::state::{Held, Orphan, PoolState, Shared};
use super::waiting;
use crate::config::OnEndpointLoss;
use crate::mcp::headers::{MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use crate::pool::lateness::Failure;
use crate::pool::{Endpoint, FailureKind, Need, PickContext};
use crate::session::{Key, Live, NameHash};
use crate::telemetry;
use crate::transport::Headers;
use crate::transport::dial::Dialer;
use crate::transport::fields::{self, Names};

/// How long all of it may take; a client waits meanwhile.
const RECOVERY_TIME: Duration = Duration::from_secs(20);
/// How long one server may take to open a session.
const ANSWER_TIME: Duration = Duration::from_secs(8);
/// Endpoints that are tried.
const ATTEMPTS: usize = 3;

/// The revision is said anew.
const DROP: Names = Names::of(&[fields::MCP_PROTOCOL_VERSION]);

/// What was lost: a session, and on whose behalf it is begun again.
pub struct Lost {
    /// The session.
    pub key: Key,
    /// Where it was last known to be.
    pub endpoint: NameHash,
    /// What the server there called it.
    pub server_id: Arc<str>,
    /// Fields of the request that needs it.
    pub kept: Kept,
}

impl Lost {
    /// Has somebody else begun it again?
    fn is_found(&self, shared: &Shared) -> bool {
        let elsewhere =
            |live: &Live<Held>| live.endpoint != self.endpoint || live.server_id != self.server_id;
        shared
            .sessions
            .look(self.key, elsewhere)
            .unwrap_or_default()
    }
}

/// Whether sessions of this pool are begun again.
pub fn is_on(pool: &PoolState) -> bool {
    pool.config.on_endpoint_loss == OnEndpointLoss::Reinitialize
}

/// Can this session be begun again?
pub fn is_possible(shared: &Shared, pool: &PoolState, known: &Known) -> bool {
    is_on(pool)
        && shared
            .sessions
            .look(known.key, |live| live.guard.origin.is_some())
            .unwrap_or_default()
}

/// Where a session is bound now, if that is not where `known` says.
pub fn moved(shared: &Shared, known: &Known) -> Option<Known> {
    let found = shared.sessions.look(known.key, |live| {
        (!known.is_at(live)).then(|| (Arc::clone(&live.guard.endpoint), live.server_id.clone()))
    });
    let (endpoint, server_id) = found??;
    Some(Known {
        pool: Arc::clone(&known.pool),
        endpoint,
        kind: known.kind,
        principal: known.principal,
        server_id,
        key: known.key,
        sealed: known.sealed.clone(),
        tag: known.tag,
        pulse: ArcSwapOption::empty(),
        keys: known.keys,
    })
}

/// Follows a session that was begun again since this thread has served it. Costs nothing while the
/// session is where it was.
pub fn follow(worker: &Worker, pool: &PoolState, bound: &mut Bound, now: Instant) {
    let stays = |known: &Known| {
        let pulse = known.pulse.load();
        pulse.as_ref().is_some_and(|pulse| pulse.beat(now))
    };
    if !is_on(pool) || stays(&bound.known) {
        return;
    }
    if let Some(known) = moved(&worker.shared, &bound.known) {
        bound.known = Arc::new(known);
        worker.memo.keep(&bound.known);
    }
}

/// Does this say only that the session cannot be begun again at the moment?
pub fn is_for_now(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::NoEndpoint
            | Fault::UpstreamTimeout
            | Fault::QueueFull
            | Fault::QueueTimeout
            | Fault::InFlight
            | Fault::Draining
            | Fault::Exhausted
    )
}

/// Begins a lost session again, or waits for whoever is doing so. The table then says where it is.
///
/// # Errors
/// [`Fault::NoEndpoint`] if no endpoint can take it now, or another that [`is_for_now`], in which case
/// the session stays and may be asked for again; [`Fault::SessionUnknown`] if it is over.
pub async fn recover(
    shared: &Arc<Shared>,
    dialer: &Arc<Dialer>,
    pool: &Arc<PoolState>,
    lost: Lost,
) -> Result<(), Fault> {
    let origin = shared
        .sessions
        .look(lost.key, |live| live.guard.origin.clone());
    let origin = origin.flatten().ok_or(Fault::SessionUnknown)?;
    let (shared, dialer, pool) = (Arc::clone(shared), Arc::clone(dialer), Arc::clone(pool));
    // A task of its own, for a client that leaves must not leave half a session behind.
    let recovering = tokio::spawn(async move {
        let _turn = origin.turn.lock().await;
        // Whoever had the turn before may have done it.
        if lost.is_found(&shared) {
            return Ok(());
        }
        let begun = begin_again(&shared, &dialer, &pool, &lost, &origin).await;
        telemetry::session_recovered(pool.pool.name(), begun.is_ok());
        begun
    });
    match timeout(RECOVERY_TIME, recovering).await {
        Ok(Ok(recovered)) => recovered,
        Ok(Err(_)) => Err(Fault::UpstreamClosed),
        Err(_) => Err(Fault::UpstreamTimeout),
    }
}

/// The same for a request that waits.
///
/// # Errors
/// As [`recover`].
pub async fn recover_for(
    worker: &Worker,
    pool: &Arc<PoolState>,
    kept: Kept,
    bound: &mut Bound,
) -> Result<(), Fault> {
    let lost = Lost {
        key: bound.key,
        endpoint: NameHash::from_u64(bound.endpoint.id()),
        server_id: Arc::clone(&bound.server_id),
        kept,
    };
    recover(&worker.shared, &worker.dialer, pool, lost).await?;
    let known = moved(&worker.shared, &bound.known).ok_or(Fault::SessionUnknown)?;
    bound.known = Arc::new(known);
    bound.lost = false;
    worker.memo.keep(&bound.known);
    Ok(())
}

async fn begin_again(
    shared: &Shared,
    dialer: &Arc<Dialer>,
    pool: &Arc<PoolState>,
    lost: &Lost,
    origin: &Arc<Origin>,
) -> Result<(), Fault> {
    let path = shared
        .sessions
        .look(lost.key, |live| live.guard.path.clone());
    let path = path.ok_or(Fault::SessionUnknown)?;
    let mut tried = Vec::new();
    let mut last = Fault::NoEndpoint;
    while tried.len() < ATTEMPTS {
        let now = shared.moment(Instant::now());
        let context = PickContext {
            now,
            key: None,
            exclude: &tried,
            need: Need::SessionEra,
        };
        // `initialize` is a call like any other: no server is to get more at once than it may.
        let (endpoint, held) = match waiting::place_alone(shared, pool, &context).await {
            Ok(placed) => placed,
            // Nobody else is left; what those said that were asked counts for more.
            Err(Fault::NoEndpoint | Fault::Tripped(_)) => break,
            Err(fault) => return Err(fault),
        };
        tried.push(endpoint.id());
        let place = Place {
            dialer,
            pool,
            endpoint: &endpoint,
            path: &path,
            kept: &lost.kept,
        };
        let now = shared.moment(Instant::now());
        let Ok(mut permit) = pool.pool.enter(&endpoint, now) else {
            continue;
        };
        permit.hold(held);
        let opened = place.open(origin).await;
        let said = match &opened {
            Ok(_) => Some(Said::Good),
            Err(Refused::Unreachable(_)) => Some(Said::Bad(FailureKind::Connect)),
            Err(Refused::NotAsked(_) | Refused::Answered(..)) => None,
        };
        outcome::report(shared, pool, &mut permit, said);
        drop(permit);
        match opened {
            Ok(server_id) => {
                return bind(
                    shared,
                    pool,
                    lost,
                    origin,
                    &endpoint,
                    server_id.into(),
                    path,
                );
            }
            Err(Refused::Unreachable(why)) => {
                shared.chores.suspect(&endpoint);
                log::warn!(pool = pool.pool.name(), endpoint = endpoint.name(); "a session could not be begun again: {why}");
            }
            Err(Refused::NotAsked(why)) => {
                log::debug!(pool = pool.pool.name(), endpoint = endpoint.name(); "a session could not be begun again: {why}");
                last = Fault::Exhausted;
            }
            Err(Refused::Answered(why, stray)) => {
                log::warn!(pool = pool.pool.name(), endpoint = endpoint.name(); "a session was not begun again: {why}");
                if let Some(server_id) = stray {
                    give_back(shared, pool, &endpoint, server_id.into(), path.clone());
                }
                // The client is to begin anew by itself: it may have what is missing.
                last = Fault::SessionUnknown;
            }
        }
    }
    Err(last)
}

/// Binds the new server's session to the id that the client has.
fn bind(
    shared: &Shared,
    pool: &Arc<PoolState>,
    lost: &Lost,
    origin: &Arc<Origin>,
    endpoint: &Arc<Endpoint>,
    server_id: Arc<str>,
    path: Box<str>,
) -> Result<(), Fault> {
    let held = Held {
        guard: endpoint.session(),
        endpoint: Arc::clone(endpoint),
        pool: Arc::clone(pool),
        path: path.clone(),
        origin: Some(Arc::clone(origin)),
        counted: Box::default(),
        tag: None,
        client: None,
    };
    let name = NameHash::from_u64(endpoint.id());
    let now = Instant::now();
    let before = shared
        .sessions
        .rebind(lost.key, name, Arc::clone(&server_id), held, now);
    let Some(mut before) = before else {
        // Deleted by its client meanwhile.
        give_back(shared, pool, endpoint, server_id, path);
        return Err(Fault::SessionUnknown);
    };
    // It is the same client's.
    let counted = std::mem::take(&mut before.counted);
    shared.sessions.with(lost.key, |held| {
        held.counted = counted;
        held.tag = before.tag;
        held.client = before.client;
    });
    log::info!(
        pool = pool.pool.name(), endpoint = endpoint.name(), from = before.endpoint.name();
        "a session was begun again"
    );
    Ok(())
}

fn give_back(
    shared: &Shared,
    pool: &Arc<PoolState>,
    endpoint: &Arc<Endpoint>,
    server_id: Arc<str>,
    path: Box<str>,
) {
    shared.chores.delete(Orphan {
        pool: Arc::clone(pool),
        endpoint: Arc::clone(endpoint),
        server_id,
        path,
    });
}

/// Why a server did not open the session.
enum Refused {
    /// It could not be asked.
    Unreachable(String),
    /// Nor could any other have been: this host lacks what it takes.
    NotAsked(String),
    /// It answered otherwise, and perhaps opened a session all the same.
    Answered(String, Option<String>),
}

/// Where a session is begun again.
struct Place<'a> {
    dialer: &'a Arc<Dialer>,
    pool: &'a PoolState,
    endpoint: &'a Endpoint,
    path: &'a str,
    kept: &'a Kept,
}

impl Place<'_> {
    /// Opens a session and tells the server what it has to know. Its id.
    async fn open(&self, origin: &Origin) -> Result<String, Refused> {
        let answer = self.post(&origin.initialize, &[]).await?;
        let refused = |why: String, answer: Answer| Refused::Answered(why, answer.session);
        let Some(result) = answer.result().filter(|_| answer.status == 200) else {
            let why = format!("initialize was answered with status {}", answer.status);
            return Err(refused(why, answer));
        };
        let revision = result
            .get("protocolVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        origin.learn_announcements(result);
        let spoken = self.kept.known(fields::MCP_PROTOCOL_VERSION);
        if spoken.is_some_and(|spoken| spoken != revision.as_bytes()) {
            let why = format!("the server speaks revision {revision:?}, not that of the session");
            return Err(refused(why, answer));
        }
        let Some(id) = answer.session.clone() else {
            return Err(refused("the server issues no session".to_owned(), answer));
        };
        if !crate::mcp::headers::session_id_is_valid(id.as_bytes()) {
            return Err(Refused::Answered(
                "its session id is not valid".to_owned(),
                None,
            ));
        }
        let session: [(&'static str, &[u8]); 2] = [
            (MCP_SESSION_ID, id.as_bytes()),
            (MCP_PROTOCOL_VERSION, revision.as_bytes()),
        ];
        let initialized = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let told = self.post(initialized, &session).await;
        if let Err(Refused::Unreachable(why) | Refused::NotAsked(why)) = told {
            return Err(Refused::Answered(why, Some(id)));
        }
        for message in origin.said() {
            let failed = match self.post(&message, &session).await {
                Ok(answer) if answer.status == 200 => continue,
                Ok(answer) => format!("it was answered with status {}", answer.status),
                Err(
                    Refused::Unreachable(why) | Refused::NotAsked(why) | Refused::Answered(why, _),
                ) => why,
            };
            log::warn!(endpoint = self.endpoint.name(); "what a session had set could not be set again: {failed}");
        }
        Ok(id)
    }

    async fn post(
        &self,
        body: &[u8],
        session: &[(&'static str, &[u8])],
    ) -> Result<Answer, Refused> {
        let unreachable = |why: &str| Refused::Unreachable(why.to_owned());
        let address = self.endpoint.address();
        let address = address.ok_or_else(|| unreachable("its address is not known"))?;
        let question = Question {
            method: "POST",
            path: self.path,
            from: Some(self.kept),
            drop: DROP,
            fields: session,
            body: Some(body),
        };
        let asking = ask(self.pool, self.endpoint, self.dialer, address, question);
        match timeout(ANSWER_TIME, asking).await {
            Ok(answer) => answer.map_err(|wrong| match wrong.failure {
                Failure::Unasked => Refused::NotAsked(wrong.why),
                Failure::Told | Failure::Broken | Failure::Silent => {
                    Refused::Unreachable(wrong.why)
                }
            }),
            Err(_) => Err(unreachable("it did not answer in time")),
        }
    }
}
