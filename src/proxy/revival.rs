//! A client's stream whose server is lost is held open, and filled again from where its events can
//! be had now.
//!
//! Clients give a standing stream up after two failed attempts to open it again, and then hear
//! nothing for the rest of the session. So they are not told: comments of ours keep the stream alive
//! while it is asked for again, at the server that is back with its sessions, or where the session
//! was begun again, or, for `subscriptions/listen`, at any server of the pool. What may have been
//! missed is announced as changed.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::ask::{Question, send};
use super::ctx::{Ctx, End};
use super::forward::Reply;
use super::kept::Kept;
use super::listen::{Listen, Taken};
use super::origin::Origin;
use super::recovery::{self, Lost};
use super::relay::is_event_stream;
use super::shortage;
use super::state::{PoolState, Shared};
use super::stream::Relay;
use crate::mcp::headers::{LAST_EVENT_ID, MCP_SESSION_ID};
use crate::pool::{Endpoint, Need, PickContext};
use crate::session::{Key, NameHash};
use crate::telemetry::{self, SessionEnd};
use crate::transport::dial::Dialer;
use crate::transport::{Downstream, Error, Upstream};

/// Pause before the second attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long one server may take to acknowledge a `subscriptions/listen`, which is the first thing it
/// has to say.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// What it takes to ask for a stream again.
pub struct Revival {
    /// The thread's connections to endpoints.
    pub dialer: Arc<Dialer>,
    /// The pool that the stream comes from.
    pub pool: Arc<PoolState>,
    /// Fields of the request.
    pub kept: Kept,
    /// Which stream it is.
    pub what: What,
    /// How long the client's stream is held open without a server.
    pub patience: Duration,
}

/// A stream that can be asked for again.
pub enum What {
    /// The standing stream of a session.
    Session(Key),
    /// A `subscriptions/listen`.
    Listen(Box<Listen>),
}

/// What an attempt came to.
enum Attempt {
    /// Events come again; these go first.
    Open(Box<Reply>, Vec<u8>),
    /// Not now.
    Later,
    /// The server does not know the session any more.
    Forgotten,
    /// It is over.
    Over,
}

/// Why there is no going on: the client, or this process, has ended the stream.
type Ended = Result<End, Error>;

impl Revival {
    /// Holds the client's stream open until there are events again.
    ///
    /// # Errors
    /// How the stream has ended instead.
    pub async fn revive<D: Downstream>(
        &self,
        shared: &Arc<Shared>,
        down: &mut D,
        ctx: &mut Ctx,
        relay: &mut Relay,
    ) -> Result<Reply, End> {
        let revived = self.until_open(shared, down, ctx, relay).await;
        revived.map_err(|ended| match ended {
            Ok(end) => end,
            Err(error) => End::of_write(&error),
        })
    }

    async fn until_open<D: Downstream>(
        &self,
        shared: &Arc<Shared>,
        down: &mut D,
        ctx: &mut Ctx,
        relay: &mut Relay,
    ) -> Result<Reply, Ended> {
        relay.cut_off(down, ctx).await.map_err(Err)?;
        let deadline = Instant::now() + self.patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (mut pause, mut forgotten, mut tried) = (PAUSE, false, Vec::new());
        while !left().is_zero() {
            let last_event = relay.last_event_id().map(<[u8]>::to_vec);
            let attempt = self.attempt(shared, last_event.as_deref(), forgotten, &mut tried);
            let attempt = timeout(left().min(self.attempt_time()), attempt);
            let attempt = held(relay, down, ctx, shared, attempt).await?;
            match attempt.unwrap_or(Attempt::Later) {
                Attempt::Open(reply, news) => {
                    telemetry::stream_reestablished(relay.kind().label());
                    relay
                        .go_on(down, ctx, Arc::clone(reply.endpoint()), &news)
                        .await
                        .map_err(Err)?;
                    return Ok(*reply);
                }
                Attempt::Over => return Err(Ok(End::UpstreamLost)),
                Attempt::Forgotten if !forgotten => {
                    forgotten = true;
                    continue;
                }
                Attempt::Forgotten | Attempt::Later => forgotten = false,
            }
            held(relay, down, ctx, shared, sleep(pause.min(left()))).await?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(Ok(End::UpstreamLost))
    }

    /// How long one attempt may take.
    fn attempt_time(&self) -> Duration {
        match &self.what {
            // Some servers send no head before the first event, however late that is.
            What::Session(_) => Duration::MAX,
            What::Listen(_) => ACKNOWLEDGED_WITHIN,
        }
    }

    async fn attempt(
        &self,
        shared: &Arc<Shared>,
        last_event: Option<&[u8]>,
        forgotten: bool,
        tried: &mut Vec<u64>,
    ) -> Attempt {
        match &self.what {
            What::Session(key) => self.session(shared, *key, last_event, forgotten).await,
            What::Listen(listen) => self.listen(shared, listen, tried).await,
        }
    }

    /// The session's stream, from the endpoint that has the session by now.
    async fn session(
        &self,
        shared: &Arc<Shared>,
        key: Key,
        last_event: Option<&[u8]>,
        forgotten: bool,
    ) -> Attempt {
        let Some(mut home) = Home::of(shared, key) else {
            return Attempt::Over;
        };
        let lost = forgotten || home.endpoint.has_lost_sessions();
        let mut news = Vec::new();
        if lost {
            let Some(origin) = home.origin.take() else {
                return self.give_up(shared, key, forgotten);
            };
            let lost = Lost {
                key,
                endpoint: NameHash::from_u64(home.endpoint.id()),
                server_id: home.server_id.clone(),
                kept: self.kept.clone(),
            };
            match recovery::recover(shared, &self.dialer, &self.pool, lost).await {
                Ok(()) => origin.announce(&mut news),
                Err(fault) if recovery::is_for_now(fault) => return Attempt::Later,
                Err(_) => return self.give_up(shared, key, true),
            }
            let Some(now) = Home::of(shared, key) else {
                return Attempt::Over;
            };
            home = now;
        }
        let mut set: Vec<(&'static str, &[u8])> = vec![
            ("accept", b"text/event-stream"),
            (MCP_SESSION_ID, home.server_id.as_bytes()),
        ];
        // Of a session that was begun again nobody knows the events of before.
        set.extend(last_event.filter(|_| !lost).map(|id| (LAST_EVENT_ID, id)));
        let question = Question::own("GET", &home.path, &set);
        let asked = self.ask(shared, &home.endpoint, question).await;
        self.judge(asked, news)
    }

    /// The session is over: its client is told when it next asks.
    fn give_up(&self, shared: &Arc<Shared>, key: Key, forgotten: bool) -> Attempt {
        if forgotten && shared.sessions.close(key).is_some() {
            telemetry::session_ended(SessionEnd::Forgotten);
        }
        Attempt::Over
    }

    /// The same subscription, at any server of the pool: at those first that were not `tried` since
    /// all were.
    async fn listen(&self, shared: &Shared, listen: &Listen, tried: &mut Vec<u64>) -> Attempt {
        let pick = |exclude: &[u64]| {
            let context = PickContext {
                now: shared.moment(Instant::now()),
                key: None,
                exclude,
                need: Need::StatelessEra,
            };
            self.pool.pool.pick(&context, &mut fastrand::Rng::new())
        };
        let picked = pick(tried).or_else(|_| {
            tried.clear();
            pick(&[])
        });
        let Ok(endpoint) = picked else {
            return Attempt::Later;
        };
        tried.push(endpoint.id());
        let set: [(&'static str, &[u8]); 2] = [
            ("accept", b"application/json, text/event-stream"),
            ("content-type", b"application/json"),
        ];
        let question = Question::own("POST", listen.target(), &set);
        let question = question.with_body(Some(listen.body()));
        let asked = self.ask(shared, &endpoint, question).await;
        match self.judge(asked, Vec::new()) {
            Attempt::Open(mut reply, _) => match listen.acknowledged(&mut reply.up).await {
                Taken::Whole(first) => Attempt::Open(reply, first),
                Taken::InPart => Attempt::Over,
                Taken::Not => Attempt::Later,
            },
            other => other,
        }
    }

    /// Asks on behalf of the client; the reply, its head read. `None` if there was none.
    async fn ask(
        &self,
        shared: &Shared,
        endpoint: &Arc<Endpoint>,
        question: Question<'_>,
    ) -> Option<Reply> {
        let (target, authority) =
            self.pool
                .target(endpoint.id(), endpoint.address()?, self.kept.client())?;
        let now = shared.moment(Instant::now());
        let permit = self.pool.pool.enter(endpoint, now).ok()?;
        let dialed = self.dialer.open(target, None).await;
        let mut up = dialed.inspect_err(shortage::tell).ok()?;
        let question = Question {
            from: Some(&self.kept),
            ..question
        };
        send(&mut up, authority, question).await.ok()?;
        Some(Reply { up, permit })
    }

    fn judge(&self, asked: Option<Reply>, news: Vec<u8>) -> Attempt {
        let Some(mut reply) = asked else {
            return Attempt::Later;
        };
        match reply.up.head().status() {
            200 if is_event_stream(reply.up.head()) => {
                reply.up.release_head();
                Attempt::Open(Box::new(reply), news)
            }
            404 => Attempt::Forgotten,
            // The server still takes the stream that was lost for an open one, or is in trouble.
            409 | 425 | 429 | 500.. => Attempt::Later,
            _ => Attempt::Over,
        }
    }
}

/// Where a session is at home now.
struct Home {
    endpoint: Arc<Endpoint>,
    server_id: Arc<str>,
    path: Box<str>,
    origin: Option<Arc<Origin>>,
}

impl Home {
    fn of(shared: &Arc<Shared>, key: Key) -> Option<Self> {
        shared.sessions.look(key, |live| Self {
            endpoint: Arc::clone(&live.guard.endpoint),
            server_id: live.server_id.clone(),
            path: live.guard.path.clone(),
            origin: live.guard.origin.clone(),
        })
    }
}

/// Waits for `future` while the client's stream is kept going.
async fn held<D: Downstream, F: Future>(
    relay: &mut Relay,
    down: &mut D,
    ctx: &mut Ctx,
    shared: &Arc<Shared>,
    future: F,
) -> Result<F::Output, Ended> {
    let mut future = std::pin::pin!(future);
    let waited = relay.hold(down, ctx, &shared.phases, |context| {
        future.as_mut().poll(context)
    });
    waited.await.map_err(Err)?.map_err(Ok)
}
