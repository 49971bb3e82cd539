//! Routes of plain HTTP, on Pingora's `HttpProxy`: so that one edge host can also serve what its
//! nginx served, from the same listeners and pools, under the same intake, log and metrics.

use std::future::Future;
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

use super::affinity::Cookie;
use super::cors;
use super::ctx::Ctx;
use super::edge;
use super::fault::Fault;
use super::finish;
use super::flight::{InFlight, own_shard};
use super::forwarded::{Set, Told, announced};
use super::hashing::hash_key;
use super::intake::{self, Admitted};
use super::limits;
use super::open::{Listed, Open};
use super::outcome;
use super::phases::Phases;
use super::shortage;
use super::state::{PoolState, Shared};
use super::termination::Step;
use crate::pool::CallPermit;
use crate::transport::dial::peer;
use crate::transport::dress::Dress;
use crate::transport::fields::Names;
use crate::transport::lack::Lack;
use crate::transport::proxy_protocol::Header;
use crate::transport::sessions::PingoraHead;
use crate::transport::{ConnInfo, RequestHead};

mod answers;
mod clock;
mod exchange;
mod failure;
mod heads;
mod retry;

use clock::Clock;

/// Endpoints tried for one request when connections fail.
const ATTEMPTS_MAX: usize = 3;

tokio::task_local! {
    /// The connection whose exchange is served. Pingora's session has no room for facts of ours.
    pub static CONNECTION: Arc<ConnInfo>;
    /// The time of that exchange.
    static CLOCK: Arc<Clock>;
}

/// Has an exchange served, and keeps its time.
pub async fn within<T>(
    info: &Arc<ConnInfo>,
    phases: &Phases,
    serving: impl Future<Output = T>,
) -> Option<T> {
    let clock = Arc::new(Clock::default());
    let serving = CLOCK.scope(Arc::clone(&clock), serving);
    let serving = CONNECTION.scope(Arc::clone(info), serving);
    tokio::select! {
        // The clock looks at what the exchange has come to.
        biased;
        served = serving => Some(served),
        () = clock.run(phases) => None,
    }
}

/// The plain lane of one listener on one thread. Whoever has it serve does so [`within`].
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
    /// The pool's cookie.
    cookie: Cookie,
    /// Its time.
    clock: Arc<Clock>,
    /// Why there is no endpoint for it.
    unplaced: Option<Fault>,
    flight: InFlight,
    /// What the route says of heads.
    dress: Dress,
    /// The target that a server is asked for, where it is another.
    onward: Option<Box<str>>,
    /// The request is with the server, to its end.
    is_sent: bool,
    /// Its answer has begun.
    is_answered: bool,
    /// Some attempt was begun.
    counted: bool,
    /// Shows a stream to operators.
    listed: Option<Listed>,
    /// The last attempt failed for want of something of this host's.
    exhausted: bool,
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
            cookie: Cookie::none(),
            clock: CLOCK.try_with(Arc::clone).unwrap_or_default(),
            unplaced: None,
            flight: self.shared.flight.enter(),
            dress: Dress::default(),
            onward: None,
            is_sent: false,
            is_answered: false,
            counted: false,
            listed: None,
            exhausted: false,
        }
    }

    /// The default adds a compression module that costs a boxed call per hook even when disabled.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, plain: &mut PlainCtx) -> Result<bool> {
        let snapshot = self.shared.snapshot.load_full();
        let head = PingoraHead::new(session.req_header());
        let nobody = |_| Error::new(ErrorType::InternalError);
        let info = CONNECTION.try_with(Arc::clone).map_err(nobody)?;
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
            plain.cookie = Cookie::of(&snapshot.config, pool, &head, info);
            plain.clock.begins(pool.config.timeouts.total);
            plain.pool = Some(Arc::clone(pool));
        }
        if let Some(dress) = edge::dress(&ctx, route, &head, info) {
            plain.dress = dress;
        }
        plain.ctx = Some(ctx);
        if let Some(cors) = &route.cors
            && cors::is_preflight(&head)
        {
            return answers::preflight(session, plain, cors, &head).await;
        }
        let admit = |ctx| limits::admit(ctx, id, 1);
        let limited = plain.ctx.as_ref().map_or(Ok(()), admit);
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
        let on_behalf = plain
            .info
            .as_ref()
            .map_or(Header::Itself, |info| announced(client, info));
        let since = Instant::now();
        if let Some(ctx) = &mut plain.ctx {
            ctx.step = Step::Queue;
        }
        let permit = plain.enter(&self.shared, &pool, key).await;
        if let Some(ctx) = &mut plain.ctx {
            ctx.queued(since.elapsed());
        }
        let permit = permit.map_err(|fault| plain.gives_up(fault))?;
        let endpoint = permit.endpoint();
        let address = endpoint.address().ok_or_else(unavailable)?;
        let (target, _) = pool
            .target(endpoint.id(), address, on_behalf)
            .ok_or_else(unavailable)?;
        if let Some(ctx) = &mut plain.ctx {
            ctx.asks(Instant::now());
            ctx.endpoint = Some(endpoint.id());
        }
        let mut peer = peer(&target, session.is_upgrade_req());
        if target.http2 {
            // Several exchanges share that connection, so it is not shut down for one.
            let timeouts = &pool.config.timeouts;
            peer.options.read_timeout = match heads::wants_events(&head) {
                true => timeouts.stream_idle,
                false => Some(
                    timeouts
                        .header
                        .max(timeouts.stream_idle.unwrap_or_default()),
                ),
            };
        }
        plain.permit = Some(permit);
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        peer: &HttpPeer,
        plain: &mut PlainCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let lack = Lack::behind(&error, peer._address.as_inet().copied());
        plain.exhausted = lack.is_some();
        match lack {
            Some(lack) => shortage::note(lack),
            None => plain.report(&self.shared, outcome::of_fault(Fault::Connect)),
        }
        if let Some(ctx) = &mut plain.ctx {
            ctx.gives_up(Fault::Connect.row().label);
        }
        // Nothing was sent, so any request may go elsewhere.
        if let Some(permit) = plain.permit.take() {
            let endpoint = permit.endpoint();
            plain.tried.push(endpoint.id());
            if lack.is_none() {
                self.shared.chores.suspect(endpoint);
            }
        }
        error.set_retry(plain.tried.len() < ATTEMPTS_MAX);
        error
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        connection: RawFd,
        _: Option<&Digest>,
        plain: &mut PlainCtx,
    ) -> Result<()> {
        plain.exhausted = false;
        if peer.options.alpn.get_max_http_version() == 1 {
            plain.clock.connected(connection);
        }
        match session.as_mut().is_body_done() {
            true => plain.expects_head(),
            false => plain.expects_body(),
        }
        if let (Some(ctx), Some(permit)) = (&mut plain.ctx, &plain.permit) {
            ctx.connected(permit.endpoint(), reused, Instant::now);
            ctx.step = Step::Header;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        is_end: bool,
        plain: &mut PlainCtx,
    ) -> Result<()> {
        match is_end {
            true => {
                plain.expects_head();
                if let Some(ctx) = &mut plain.ctx {
                    ctx.sent(Instant::now());
                }
            }
            false => plain.expects_body(),
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
        plain.clock.is_over();
        let again = plain.clock.struck().is_none()
            && retry::may(session, &error, reused)
            && plain.may_retry(&self.shared, reused);
        if again {
            if let Some(ctx) = &mut plain.ctx {
                ctx.gives_up(Fault::UpstreamClosed.row().label);
            }
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
        if let Some(tells) = plain.ctx.as_ref().and_then(Ctx::tells) {
            heads::trace(request, &tells)?;
        }
        if let Some(others) = &plain.cookie.others {
            heads::leave_cookies(request, others)?;
        }
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
        if let Some(permit) = &plain.permit {
            let told = plain.cookie.told(permit.endpoint().id(), &plain.dress);
            for (name, value) in told {
                let is_said = response
                    .headers
                    .get_all(name)
                    .iter()
                    .any(|said| said == value.as_str());
                if !is_said {
                    response.append_header(name, value)?;
                }
            }
        }
        let content_type = response
            .headers
            .get("content-type")
            .map(|value| value.as_bytes());
        let is_events = content_type.is_some_and(|value| value.starts_with(b"text/event-stream"));
        plain.expects_more();
        if is_events {
            if let (Some(permit), Some(ctx)) = (&plain.permit, &plain.ctx) {
                plain
                    .clock
                    .is_stream(Arc::clone(permit.endpoint()), ctx.request_id);
                plain.listed = Open::of(ctx, permit.endpoint(), "http")
                    .map(|open| self.shared.open.enter(open));
            }
            plain.flight.becomes_stream();
            // It may last for hours, and is no call in flight any more.
            if let Some(permit) = &mut plain.permit {
                drop(permit.take_place());
            }
        }
        if let Some(ctx) = &mut plain.ctx {
            let now = Instant::now();
            ctx.replied(now);
            if let (Some(permit), Some(took)) = (&plain.permit, ctx.answer_time()) {
                permit.endpoint().timings.answered(own_shard(), took);
            }
            ctx.answered(response.status.as_u16(), now);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        plain: &mut PlainCtx,
    ) -> Result<Option<Duration>> {
        match is_end {
            // A body without a length seems to be whole where its connection was shut down.
            true if plain.clock.struck().is_some() => {
                return Err(Error::new(ErrorType::ConnectionClosed));
            }
            true => plain.clock.is_over(),
            false => plain.expects_more(),
        }
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
        failure::told(&self.shared, session, error, plain).await
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, plain: &mut PlainCtx) {
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
