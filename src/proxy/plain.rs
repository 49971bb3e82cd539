//! Routes of plain HTTP, on Pingora's `HttpProxy`: so that one edge host can also serve what its
//! nginx served, from the same listeners and pools, under the same intake, log and metrics.

use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy};

use super::affinity::wanted;
use super::cors;
use super::ctx::{Ctx, End};
use super::edge;
use super::fault::Fault;
use super::finish;
use super::flight::InFlight;
use super::forwarded::{Set, Told, announced};
use super::hashing::hash_key;
use super::intake::{self, Admitted};
use super::limits;
use super::outcome;
use super::state::{PoolState, Shared};
use super::termination::Step;
use super::waiting;
use crate::pool::{CallPermit, Endpoint, Need, Outcome, PickContext};
use crate::transport::dial::peer;
use crate::transport::dress::Dress;
use crate::transport::fields::Names;
use crate::transport::proxy_protocol::Header;
use crate::transport::sessions::PingoraHead;
use crate::transport::{ConnInfo, RequestHead};

mod answers;
mod heads;
mod retry;
mod standing;

use standing::{EXCHANGE, Will};

pub use standing::serve;

/// Endpoints tried for one request when connections fail.
const ATTEMPTS_MAX: usize = 3;

/// The plain lane of one listener on one thread; [`serve`] has it serve an exchange.
pub struct Plain {
    shared: Arc<Shared>,
}

/// What is known about one plain exchange.
pub struct PlainCtx {
    ctx: Option<Ctx>,
    info: Option<Arc<ConnInfo>>,
    pool: Option<Arc<PoolState>>,
    /// What the endpoint is told of the client, and what of the client's own words stays behind.
    told: (Vec<(&'static str, HeaderValue)>, Names),
    permit: Option<CallPermit>,
    tried: Vec<u64>,
    /// The endpoint's id, when the client has no affinity cookie for it yet.
    set_cookie: Option<u64>,
    /// Why there is no endpoint for it.
    unplaced: Option<Fault>,
    flight: InFlight,
    /// What the route says of heads.
    dress: Dress,
    /// The target that a server is asked for, where it is another.
    onward: Option<Box<str>>,
    /// Some attempt was begun.
    counted: bool,
    /// Of an exchange that lasts: what is logged if it is given up.
    will: Option<Will>,
}

impl Plain {
    /// The proxy, with connections of its own.
    pub fn proxy(shared: Arc<Shared>) -> Arc<HttpProxy<Self>> {
        let conf = ServerConf {
            max_retries: ATTEMPTS_MAX,
            threads: 1,
            ..ServerConf::default()
        };
        Arc::new(http_proxy(&Arc::new(conf), Self { shared }))
    }
}

#[async_trait]
impl ProxyHttp for Plain {
    type CTX = PlainCtx;

    fn new_ctx(&self) -> PlainCtx {
        PlainCtx {
            ctx: None,
            info: None,
            pool: None,
            told: (Vec::new(), Names::NONE),
            permit: None,
            tried: Vec::new(),
            set_cookie: None,
            unplaced: None,
            flight: self.shared.flight.enter(),
            dress: Dress::default(),
            onward: None,
            counted: false,
            will: None,
        }
    }

    /// The default adds a compression module that costs a boxed call per hook even when disabled.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, plain: &mut PlainCtx) -> Result<bool> {
        let snapshot = self.shared.snapshot.load_full();
        let head = PingoraHead::new(session.req_header());
        let nobody = |_| Error::new(ErrorType::InternalError);
        let info = EXCHANGE.try_with(|exchange| Arc::clone(&exchange.info));
        let info = info.map_err(nobody)?;
        let mut ctx = Ctx::begin(Arc::clone(&snapshot), &head, &info, Instant::now());
        let admitted = intake::admit(&snapshot.config, &head, &info);
        let info = &*plain.info.insert(info);
        let id = match admitted {
            Ok(Admitted::Route(id)) => id,
            Ok(Admitted::Builtin(_)) | Err(_) => {
                plain.ctx = Some(ctx);
                let fault = admitted.err().unwrap_or(Fault::NoRoute);
                return answers::refuse(session, plain, fault).await;
            }
        };
        ctx.route = Some(id);
        let route = &snapshot.config.routes[id.0];
        if let Some(id) = route.pool() {
            let pool = snapshot.pool(id);
            ctx.pool = Some(id);
            let how = pool.config.client_headers;
            plain.told = told(&Told::of(&snapshot.config.proxies, how, &head, info));
            plain.pool = Some(Arc::clone(pool));
        }
        if let Some(dress) = edge::dress(&ctx, route, &head, info) {
            plain.dress = dress;
        }
        let (client, started) = (ctx.client, ctx.started);
        plain.ctx = Some(ctx);
        if let Some(cors) = &route.cors
            && cors::is_preflight(&head)
        {
            return answers::preflight(session, plain, cors, &head).await;
        }
        let limited = limits::admit(&snapshot, id, client, 1, started);
        match limited.and_then(|()| edge::rewritten(route, head.target())) {
            Ok(onward) => {
                plain.onward = onward;
                Ok(false)
            }
            Err(fault) => answers::refuse(session, plain, fault).await,
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        plain: &mut PlainCtx,
    ) -> Result<Box<HttpPeer>> {
        let unavailable = || Error::new(ErrorType::HTTPStatus(503));
        let pool = plain.pool.clone().ok_or_else(unavailable)?;
        let head = PingoraHead::new(session.req_header());
        if !std::mem::replace(&mut plain.counted, true) {
            pool.count_call(self.shared.moment(Instant::now()));
        }
        let client = plain.ctx.as_ref().and_then(|ctx| ctx.client);
        let key = hash_key(&pool, &head, client);
        let wanted = wanted(&pool, &head);
        let on_behalf = plain
            .info
            .as_ref()
            .map_or(Header::Itself, |info| announced(client, info));
        let since = Instant::now();
        if let Some(ctx) = &mut plain.ctx {
            ctx.step = Step::Queue;
        }
        let permit = plain.enter(&self.shared, &pool, wanted, key).await;
        if let Some(ctx) = &mut plain.ctx {
            ctx.queued(since);
        }
        let permit = permit.map_err(|fault| plain.gives_up(fault))?;
        let endpoint = permit.endpoint();
        let address = endpoint.address().ok_or_else(unavailable)?;
        let (target, _) = pool
            .target(endpoint.id(), address, on_behalf)
            .ok_or_else(unavailable)?;
        if let Some(ctx) = &mut plain.ctx {
            ctx.endpoint = Some(endpoint.id());
            ctx.asks(Instant::now());
        }
        let mut peer = peer(&target, session.is_upgrade_req());
        peer.options.read_timeout = Some(pool.config.timeouts.header);
        plain.permit = Some(permit);
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        plain: &mut PlainCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent, so any request may go elsewhere.
        plain.report(&self.shared, outcome::of_fault(Fault::Connect));
        if let Some(permit) = plain.permit.take() {
            let endpoint = permit.endpoint();
            plain.tried.push(endpoint.id());
            self.shared.chores.suspect(endpoint);
        }
        error.set_retry(plain.tried.len() < ATTEMPTS_MAX);
        error
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: RawFd,
        _: Option<&Digest>,
        plain: &mut PlainCtx,
    ) -> Result<()> {
        if let Some(ctx) = &mut plain.ctx {
            ctx.connected(reused, Instant::now);
            ctx.step = Step::Header;
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        plain: &mut PlainCtx,
        reused: bool,
    ) -> Box<Error> {
        let again = retry::may(session, &error, reused) && plain.may_retry(&self.shared, reused);
        if again {
            if !reused {
                plain.report(&self.shared, outcome::of_fault(Fault::UpstreamClosed));
            }
            // An idle connection that broke says nothing of its server.
            let failed = plain.permit.take().filter(|_| !reused);
            plain
                .tried
                .extend(failed.map(|permit| permit.endpoint().id()));
        }
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        plain: &mut PlainCtx,
    ) -> Result<()> {
        if let Some(target) = &plain.onward {
            request.set_raw_path(target.as_bytes())?;
        }
        heads::tell(request, &plain.told)?;
        if let (Some(_), Some(info)) = (&plain.dress.request, &plain.info) {
            let head = PingoraHead::new(session.req_header());
            if let Some(more) = plain.dress.request(&head, info) {
                heads::change_request(request, &more)?;
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        plain: &mut PlainCtx,
    ) -> Result<()> {
        heads::strip_hop_by_hop(response);
        plain.dress(session, response)?;
        let said = outcome::of_status(response.status.as_u16());
        plain.report(&self.shared, Some(said));
        let name = plain
            .pool
            .as_ref()
            .and_then(|pool| pool.config.affinity_cookie.clone());
        if let (Some(name), Some(id)) = (name, plain.set_cookie.take()) {
            let head = PingoraHead::new(session.req_header());
            let secure = if plain.is_tls(&head) { "; Secure" } else { "" };
            let value = format!("{name}={id:016x}; Path=/; HttpOnly; SameSite=Lax{secure}");
            response.append_header("set-cookie", value)?;
        }
        let content_type = response
            .headers
            .get("content-type")
            .map(|value| value.as_bytes());
        let is_events = content_type.is_some_and(|value| value.starts_with(b"text/event-stream"));
        if is_events || response.status == 101 {
            plain.flight.becomes_stream();
            plain.stands(&self.shared, PingoraHead::new(session.req_header()));
            // It may last for hours, and is no call in flight any more.
            if let Some(permit) = &mut plain.permit {
                drop(permit.take_place());
            }
        }
        if let Some(ctx) = &mut plain.ctx {
            let now = Instant::now();
            ctx.replied(now);
            ctx.answered(response.status.as_u16(), now);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        plain: &mut PlainCtx,
    ) -> Result<Option<Duration>> {
        if let (Some(ctx), Some(body)) = (&mut plain.ctx, body) {
            ctx.bytes_out += body.len() as u64;
        }
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        plain: &mut PlainCtx,
    ) -> FailToProxy {
        let downstream = *error.esource() == pingora::ErrorSource::Downstream;
        let fault = match error.etype() {
            ErrorType::HTTPStatus(503) => plain.unplaced.unwrap_or(Fault::NoEndpoint),
            ErrorType::ReadTimedout if downstream => Fault::SlowBody,
            ErrorType::WriteTimedout if downstream => {
                if let Some(ctx) = &mut plain.ctx {
                    ctx.end = End::ClientWrite;
                }
                return FailToProxy {
                    error_code: Fault::ClientGone.row().status,
                    can_reuse_downstream: false,
                };
            }
            _ if downstream && is_of(error, ErrorKind::InvalidData) => {
                Fault::Invalid("the body's framing is not valid")
            }
            _ if downstream && is_of(error, ErrorKind::TimedOut) => Fault::SlowBody,
            _ if downstream => Fault::ClientGone,
            ErrorType::ReadTimedout | ErrorType::ConnectTimedout => Fault::UpstreamTimeout,
            ErrorType::ConnectRefused | ErrorType::ConnectError | ErrorType::ConnectNoRoute => {
                Fault::Connect
            }
            _ => Fault::UpstreamClosed,
        };
        if fault != Fault::ClientGone && session.response_written().is_none() {
            // A connection that could not be made was reported as that.
            if !matches!(fault, Fault::Connect | Fault::NoEndpoint) {
                plain.report(&self.shared, outcome::of_fault(fault));
            }
            let _ = answers::refuse(session, plain, fault).await;
        } else if let Some(ctx) = &mut plain.ctx {
            ctx.end = if fault == Fault::ClientGone {
                End::ClientGone
            } else {
                End::Truncated
            };
        }
        FailToProxy {
            error_code: fault.row().status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, plain: &mut PlainCtx) {
        plain.will = None;
        if let (Some(ctx), Some(info)) = (&mut plain.ctx, &plain.info) {
            ctx.bytes_in = session.body_bytes_read() as u64;
            let head = PingoraHead::new(session.req_header());
            finish::finish(&self.shared, ctx, info, &head);
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &PlainCtx, _: &Error) -> bool {
        // Every exchange has its line in the access log, with the reason.
        true
    }
}

impl PlainCtx {
    /// Did it come over TLS?
    fn is_tls(&self, head: &PingoraHead) -> bool {
        let known = self.ctx.as_ref().zip(self.info.as_ref());
        known.is_some_and(|(ctx, info)| edge::is_tls(&ctx.snapshot.config, head, info))
    }

    /// May the request be sent again, after a first time that reached a server?
    fn may_retry(&self, shared: &Shared, reused: bool) -> bool {
        let now = shared.moment(Instant::now());
        let in_budget = || self.pool.as_ref().is_some_and(|pool| pool.may_retry(now));
        self.tried.len() + 1 < ATTEMPTS_MAX && (reused || in_budget())
    }

    /// Changes the head of a response as the route wants it.
    fn dress(&self, session: &Session, response: &mut ResponseHeader) -> Result<()> {
        let (Some(_), Some(info)) = (&self.dress.response, &self.info) else {
            return Ok(());
        };
        let head = PingoraHead::new(session.req_header());
        match self.dress.response(&head, info) {
            Some(more) => heads::change_response(response, &more),
            None => Ok(()),
        }
    }

    /// The error for a request that gets no endpoint.
    fn gives_up(&mut self, fault: Fault) -> Box<Error> {
        if fault == Fault::NoEndpoint && !self.tried.is_empty() {
            // All there is was tried, in vain.
            return Error::new(ErrorType::ConnectError);
        }
        self.unplaced = Some(fault);
        Error::new(ErrorType::HTTPStatus(503))
    }

    /// A permit for the endpoint that the client wants, or else for any other, and a place at it.
    async fn enter(
        &mut self,
        shared: &Shared,
        pool: &PoolState,
        wanted: Option<Arc<Endpoint>>,
        key: Option<u64>,
    ) -> Result<CallPermit, Fault> {
        if let Some(endpoint) = wanted.filter(|wanted| !self.tried.contains(&wanted.id())) {
            let place = waiting::place_plain_at(shared, pool, &endpoint).await?;
            let now = shared.moment(Instant::now());
            if let Ok(mut permit) = pool.pool.enter(&endpoint, now) {
                permit.hold(place);
                return Ok(permit);
            }
        }
        let mut passed_over = self.tried.clone();
        loop {
            let context = PickContext {
                key,
                exclude: &passed_over,
                need: Need::Any,
                now: shared.moment(Instant::now()),
            };
            let (picked, place) = waiting::place_plain(shared, pool, &context).await?;
            let now = shared.moment(Instant::now());
            if let Ok(mut permit) = pool.pool.enter(&picked, now) {
                self.set_cookie = pool.config.affinity_cookie.as_ref().map(|_| picked.id());
                permit.hold(place);
                return Ok(permit);
            }
            // Somebody else took the last trial.
            passed_over.push(picked.id());
        }
    }

    fn report(&mut self, shared: &Shared, said: Option<Outcome>) {
        if let (Some(pool), Some(permit)) = (&self.pool, &mut self.permit) {
            outcome::report(shared, pool, permit, said);
        }
    }
}

/// Why the transport refused to read on in a body: [`crate::transport::single`] tells it by the kind.
fn is_of(error: &Error, kind: ErrorKind) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == kind)
}

/// What an endpoint is told of the client, and what of the client's own words stays behind.
fn told(told: &Told<'_>) -> (Vec<(&'static str, HeaderValue)>, Names) {
    let mut set = Set::new();
    told.set(&mut set);
    let fields = set.iter().filter_map(|(name, text)| {
        let value = HeaderValue::from_bytes(text).ok()?;
        Some((*name, value))
    });
    (fields.collect(), told.drop())
}
