//! The admin address and the admin socket: health, readiness, metrics and the API for operators, apart
//! from the traffic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Handler, Served};
use super::operator::Operator;
use super::reload::Reloader;
use super::vigil::Vigil;
use crate::config::AdminLevel;
use crate::proxy::ctx::Ctx;
use crate::proxy::fault::Fault;
use crate::proxy::intake::{self, Builtin};
use crate::proxy::local;
use crate::telemetry::{self, Observed};
use crate::transport::fields::Names;
use crate::transport::timer::TICK;
use crate::transport::{Downstream, Edits, Headers, Length, RequestHead};

mod api;
mod audit;
mod clear;
mod console;
pub mod csv;
mod events;
pub mod figures;
mod listing;
mod live;
mod look;
mod process;
mod refused;
mod scrape;
pub(super) mod service;
pub(super) mod socket;
pub mod view;

use api::{BODY_MAX, Body, Refusal, Request};
use audit::{Audit, Peer, REQUEST};
use events::{Listeners, Only};
use service::Around;

/// What every path of the API begins with.
const API: &str = "/v1/";

/// Serves the admin address, or one connection of the admin socket.
pub(super) struct Admin {
    operator: Arc<Operator>,
    reloader: Arc<Reloader>,
    listeners: Arc<Listeners>,
    /// Knows how late the workers are.
    vigil: Arc<Vigil>,
    /// What may be done here.
    level: AdminLevel,
    /// Who is at the other end, where that does not depend on the address.
    process: Option<Peer>,
}

impl Admin {
    /// A handler for the admin address.
    fn at_address(around: &Around, level: AdminLevel) -> Self {
        Self {
            operator: Arc::clone(&around.operator),
            reloader: Arc::clone(&around.reloader),
            listeners: Arc::clone(&around.listeners),
            vigil: Arc::clone(&around.vigil),
            level,
            process: None,
        }
    }

    /// The metrics, as Prometheus reads them.
    pub(super) fn metrics(&self) -> String {
        let shared = &self.operator.shared;
        let snapshot = shared.snapshot.load();
        telemetry::set_sessions(shared.sessions.len());
        let instant = Instant::now();
        let now = shared.moment(instant);
        let lags = self.vigil.take_lags(instant);
        telemetry::render(&Observed {
            endpoints: snapshot
                .all_pools()
                .flat_map(|pool| scrape::endpoints(pool, now))
                .collect(),
            pools: snapshot
                .pools
                .iter()
                .map(|state| scrape::pool(state, now))
                .collect(),
            contexts: (snapshot.config.sessions.context_sizes > 0)
                .then(|| shared.contexts.list(&shared.sessions).into_iter().collect()),
            worker_lags: lags.iter().map(Duration::as_secs_f64).collect(),
        })
    }
}

impl Handler for Admin {
    async fn exchange<D: Downstream>(&self, mut down: D) -> Served<D> {
        self.answer(&mut down).await;
        Served::Done(down)
    }
}

impl Admin {
    async fn answer<D: Downstream>(&self, down: &mut D) {
        let shared = &self.operator.shared;
        let mut ctx = Ctx::begin(
            shared.snapshot.load_full(),
            down.head(),
            down.info(),
            Instant::now(),
        );
        let path = down.head().path().to_owned();
        if let Some(path) = path.strip_prefix(API) {
            return self.operate(down, path).await;
        }
        match path.as_str() {
            path if console::is_its(path) => {
                if self.process.is_none()
                    && intake::check_operator(down.head(), down.info()).is_err()
                {
                    return local::refuse(down, &mut ctx, Fault::Host).await;
                }
                console::answer(down, &mut ctx, path).await;
            }
            "/health" => local::builtin(shared, down, &mut ctx, Builtin::Health).await,
            "/ready" => local::builtin(shared, down, &mut ctx, Builtin::Ready).await,
            "/metrics" if down.head().method() == "GET" => {
                // Threads that serve tell what they have counted once in a tick.
                tokio::time::sleep(TICK + TICK / 4).await;
                let text = self.metrics();
                respond(down, 200, telemetry::CONTENT_TYPE, None, text.as_bytes()).await;
            }
            "/metrics" => local::refuse(down, &mut ctx, Fault::Method("GET")).await,
            _ => local::refuse(down, &mut ctx, Fault::NoRoute).await,
        }
    }

    /// Answers a request of the API, in JSON unless something else was asked for and can be had.
    async fn operate<D: Downstream>(&self, down: &mut D, path: &str) {
        let reply = self.reply(down, path).await;
        let allow = match &reply {
            Err(Refusal::Method(allow)) => Some(*allow),
            _ => None,
        };
        let (status, body) = reply.unwrap_or_else(|refusal| {
            let (status, code, message) = refusal.parts();
            let error = serde_json::json!({ "error": { "code": code, "message": message } });
            (status, Body::Json(error))
        });
        if !down.body_ended() {
            down.close_after();
        }
        let (content_type, text) = match body {
            Body::Events(listener) => return listener.serve(&self.operator, down).await,
            Body::Json(value) => ("application/json", format!("{value}\n")),
            Body::Csv(text) => ("text/csv; charset=utf-8; header=present", text),
        };
        respond(down, status, content_type, allow, text.as_bytes()).await;
    }

    async fn reply<D: Downstream>(&self, down: &mut D, path: &str) -> Result<(u16, Body), Refusal> {
        let peer = self.process.unwrap_or(Peer::Address(down.info().client));
        let method = down.head().method().to_owned();
        if self.process.is_none() && !is_from_here(down) {
            let refusal = Refusal::Forbidden(NOT_FROM_HERE);
            return Err(match method.as_str() {
                "GET" | "HEAD" => refusal,
                _ => Audit::new(&peer, REQUEST, path.to_owned()).refused(refusal),
            });
        }
        let is_read = matches!(method.as_str(), "GET" | "HEAD");
        if self.process.is_none() && !is_read && down.head().get(ASKED).is_none() {
            let refusal = Refusal::Forbidden(NOT_ASKED);
            return Err(Audit::new(&peer, REQUEST, path.to_owned()).refused(refusal));
        }
        let query = down.head().query().map(str::to_owned);
        let body = read_body(down).await?;
        if path == "events" {
            return match method.as_str() {
                "GET" => Ok((
                    200,
                    Body::Events(self.listeners.enter(Only::of(query.as_deref())?)?),
                )),
                _ => Err(Refusal::Method("GET")),
            };
        }
        let request = Request {
            method: &method,
            path,
            query: query.as_deref(),
            body: &body,
            peer: &peer,
            level: self.level,
        };
        if let Some(text) = api::csv(&self.operator, &request)? {
            return Ok((200, Body::Csv(text)));
        }
        let answered = api::answer(
            &self.operator,
            &self.reloader,
            self.listeners.live(),
            &request,
        )
        .await;
        answered.map(|(status, value)| (status, Body::Json(value)))
    }
}

/// What a request that changes something has to have at the address. No page of another origin can send
/// it without asking first, and it would not be answered.
const ASKED: &str = "x-tidegate-request";
const NOT_ASKED: &str =
    "at the address, what changes something needs a field `X-Tidegate-Request: 1` in its head";

/// Is it over loopback, and from no page of another origin?
fn is_from_here<D: Downstream>(down: &D) -> bool {
    // Set by browsers, also where they leave out `Origin`, as with images.
    let site = down.head().get("sec-fetch-site");
    let is_own = site.is_none_or(|site| matches!(site, b"same-origin" | b"none"));
    is_own && intake::check_operator(down.head(), down.info()).is_ok()
}

const NOT_FROM_HERE: &str =
    "the API answers over loopback only, to a loopback Host, and to no page of another origin";

/// The whole body of a request, as far as it may be long.
async fn read_body<D: Downstream>(down: &mut D) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    loop {
        match down.read_body().await {
            Ok(Some(piece)) if body.len() + piece.len() > BODY_MAX => {
                return Err(Refusal::TooLarge);
            }
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Refusal::Bad(error.to_string())),
        }
    }
}

async fn respond<D: Downstream>(
    down: &mut D,
    status: u16,
    content_type: &str,
    allow: Option<&str>,
    body: &[u8],
) {
    let mut set: Vec<(&'static str, &[u8])> = vec![
        ("content-type", content_type.as_bytes()),
        ("cache-control", b"no-store"),
    ];
    if let Some(allow) = allow {
        set.push(("allow", allow.as_bytes()));
    }
    let edits = Edits {
        set: &set,
        drop: Names::NONE,
        ..Edits::default()
    };
    let length = Length::Exact(body.len() as u64);
    let has_body = down.head().method() != "HEAD";
    let sent = async {
        down.send_head(status, None, edits, length).await?;
        if has_body {
            down.send_body(body).await?;
        }
        down.finish().await
    };
    // Whoever asked and is gone needs no answer.
    let _ = sent.await;
}
