//! WebSockets. On MCP routes (subprotocol `mcp`) the connection is the session; on routes of plain HTTP
//! it is what the website makes of it. Either is with one endpoint for its life.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::time::timeout;

use super::Worker;
use super::affinity;
use super::ctx::{Ctx, End};
use super::edge;
use super::fault::Fault;
use super::finish;
use super::flight::own_shard;
use super::forwarded::{Set, Told, announced};
use super::hashing::hash_key;
use super::intake::{self, Admitted};
use super::limits;
use super::local;
use super::open::Open;
use super::outcome;
use super::retry::{self, Stage, Tries};
use super::shortage;
use super::state::{Orphan, Phase, PoolState};
use super::termination::Step;
use super::trace::Tells;
use super::watch::vanished;
use crate::config::PoolKind;
use crate::mcp::Retry;
use crate::pool::{CallPermit, Endpoint, Need, PickContext, SessionGuard};
use crate::telemetry::{OpenStream, StreamKind};
use crate::transport::dress::{Dress, More};
use crate::transport::fields::{COOKIE, LAST_EVENT_ID, MCP_SESSION_ID, Names, ORIGIN, TRACEPARENT};
use crate::transport::proxy_protocol::Header;
use crate::transport::tunnel::{Answer, Bounds, Changes, TunnelEnd, carry, connect};
use crate::transport::wire::Wire;
use crate::transport::{ConnInfo, Edits, Error, Length, Outgoing, RequestHead};

/// Serves an upgrade request on a connection of its own; the connection ends with it.
pub async fn serve<C>(worker: &Worker, mut client: C, head: &impl RequestHead, info: &ConnInfo)
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
{
    let snapshot = worker.shared.snapshot.load_full();
    let mut ctx = Ctx::begin(snapshot, head, info, Instant::now());
    let mut flight = worker.shared.flight.enter();
    let mut phases = worker.shared.phases.clone();
    let mut dress = Dress::default();
    let opened = tokio::select! {
        opened = open(worker, head, info, &mut ctx, &mut dress) => opened,
        () = phases.reached(Phase::Ending) => Err(Fault::Draining),
    };
    match opened {
        Ok(Opened {
            server,
            answer,
            session,
            permit,
            pool,
            path,
        }) => {
            ctx.answered(answer.status, Instant::now());
            if let Some(server_id) = &answer.session {
                let orphan = Orphan {
                    pool: Arc::clone(&pool),
                    endpoint: Arc::clone(session.endpoint()),
                    server_id: server_id.as_str().into(),
                    path,
                };
                worker.shared.chores.delete(orphan);
            }
            let sent = client.write_all(&answer.head).await.is_ok() && client.flush().await.is_ok();
            if !sent {
                ctx.end = End::ClientGone;
            } else if answer.status == 101 {
                flight.becomes_stream();
                let wires = (client, server);
                tunnel(worker, wires, &answer, &pool, session.endpoint(), &mut ctx).await;
            } else {
                pass_refusal(client, server, &answer).await;
            }
            drop((session, permit));
        }
        Err(fault) => {
            let pool = ctx.pool.map(|id| ctx.snapshot.pool(id));
            let is_rpc = pool.is_none_or(|pool| is_mcp(pool));
            refuse(client, &mut ctx, fault, is_rpc, dress.response(head, info)).await;
        }
    }
    finish::finish(&worker.shared, &ctx, info, head);
}

async fn tunnel<C>(
    worker: &Worker,
    (client, server): (C, Wire),
    answer: &Answer,
    pool: &PoolState,
    endpoint: &Arc<Endpoint>,
    ctx: &mut Ctx,
) where
    C: AsyncRead + AsyncWrite + Unpin + Send,
{
    let counted = OpenStream::enter(StreamKind::Websocket);
    let open = Open::of(ctx, endpoint, StreamKind::Websocket.as_str());
    let listed = open.map(|open| worker.shared.open.enter(open));
    let mut phases = worker.shared.phases.clone();
    let lot = ctx.request_id;
    let mut why = End::UpstreamLost;
    let told = async {
        tokio::select! {
            end = phases.until_leaving(endpoint, lot) => why = end,
            () = vanished(endpoint) => {}
        }
    };
    let timeouts = &pool.config.timeouts;
    let bounds = Bounds {
        idle: timeouts.stream_idle,
        total: timeouts.total,
        write: timeouts.write,
    };
    let carried = carry(client, server, &answer.rest, bounds, told).await;
    ctx.bytes_in = carried.up;
    ctx.bytes_out = carried.down;
    ctx.end = match carried.end {
        TunnelEnd::Client => End::ClientGone,
        TunnelEnd::Server => End::Complete,
        TunnelEnd::Told => why,
        TunnelEnd::TimedOut => End::Timeout,
        TunnelEnd::SlowClient => End::ClientWrite,
        TunnelEnd::SlowServer => End::UpstreamLost,
    };
    drop(listed);
    counted.end(ctx.end.of_stream());
}

/// An upgrade that an endpoint has answered.
struct Opened {
    server: Wire,
    answer: Answer,
    /// Counts the session on its endpoint.
    session: SessionGuard,
    /// Counts it as something that is open there.
    permit: CallPermit,
    pool: Arc<PoolState>,
    /// What the endpoint was asked for.
    path: Box<str>,
}

fn is_mcp(pool: &PoolState) -> bool {
    pool.config.kind == PoolKind::Mcp
}

async fn open(
    worker: &Worker,
    head: &impl RequestHead,
    info: &ConnInfo,
    ctx: &mut Ctx,
    dress: &mut Dress,
) -> Result<Opened, Fault> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let Admitted::Route(route) = intake::admit(&snapshot.config, head, info)? else {
        return Err(Fault::Method("GET, HEAD"));
    };
    let config = &snapshot.config;
    let id = config.routes[route.0].pool().ok_or(Fault::NoRoute)?;
    if let Some(wanted) = edge::dress(ctx, &config.routes[route.0], head, info) {
        *dress = wanted;
    }
    let target = edge::rewritten(&config.routes[route.0], head.target())?;
    let target = target.as_deref().unwrap_or_else(|| head.target());
    let pool = snapshot.pool(id);
    (ctx.route, ctx.pool) = (Some(route), Some(id));
    limits::admit(ctx, route, 1)?;
    if is_mcp(pool) {
        limits::admit_socket(&snapshot, id)?;
        limits::reserve_session(&worker.shared, ctx)?;
    }
    limits::reserve_stream(&worker.shared, ctx)?;
    let told = Told::of(&config.proxies, pool.config.client_headers, head, info);
    let client = announced(ctx.client, info);
    let cookie = affinity::Cookie::of(config, pool, head, info);
    let key = hash_key(pool, head, ctx.client);
    let mut tried = Vec::new();
    let mut attempts = 0;
    let mut last = None;
    loop {
        let now = worker.shared.moment(Instant::now());
        let context = PickContext {
            key,
            exclude: &tried,
            need: Need::Any,
            now,
        };
        let wanted = cookie.wanted.as_ref();
        let wanted = wanted.filter(|wanted| !tried.contains(&wanted.id()));
        let endpoint = match wanted {
            Some(wanted) => Arc::clone(wanted),
            None => pool
                .pool
                .pick(&context, &mut fastrand::Rng::new())
                .map_err(|reason| last.unwrap_or_else(|| reason.into()))?,
        };
        let mut permit = match pool.pool.enter(&endpoint, now) {
            Ok(permit) => permit,
            Err(tripped) => {
                last = last.or_else(|| Some(tripped.into()));
                tried.push(endpoint.id());
                continue;
            }
        };
        attempts += 1;
        ctx.asks(Instant::now());
        ctx.endpoint = Some(endpoint.id());
        let tells = ctx.tells();
        let session = endpoint.session();
        let error = match handshake(
            pool,
            (head, target),
            (&told, client),
            (info, dress),
            (&cookie, &endpoint),
            tells.as_deref(),
        )
        .await
        {
            Ok((server, answer)) => {
                ctx.timers.connect = Some(answer.connect.into());
                ctx.replied(Instant::now());
                endpoint.timings.connected(answer.connect);
                if let Some(took) = ctx.answer_time() {
                    endpoint.timings.answered(own_shard(), took);
                }
                let said = Some(outcome::of_status(answer.status));
                outcome::report(&worker.shared, pool, &mut permit, said);
                let pool = Arc::clone(pool);
                return Ok(Opened {
                    server,
                    answer,
                    session,
                    permit,
                    pool,
                    path: target.into(),
                });
            }
            Err(error) => error,
        };
        shortage::tell(&error);
        let (stage, fault) = match error {
            Error::Lacking(_) => (Stage::Connect, Fault::Exhausted),
            Error::Refused | Error::Connect(_) | Error::ConnectTimeout => {
                (Stage::Connect, Fault::Connect)
            }
            Error::Malformed(_) => (Stage::Answered, Fault::UpstreamMalformed),
            Error::ReadTimeout | Error::WriteTimeout => (Stage::Answered, Fault::UpstreamTimeout),
            Error::Closed | Error::Alert(_) => {
                (Stage::Sent { reused: false }, Fault::UpstreamClosed)
            }
        };
        if stage != Stage::Connect {
            ctx.step = Step::Header;
        }
        ctx.gives_up(fault.row().label);
        let said = outcome::of_fault(fault);
        outcome::report(&worker.shared, pool, &mut permit, said);
        if fault == Fault::Connect {
            worker.shared.chores.suspect(&endpoint);
        }
        // Nothing has been said on the connection, so opening it elsewhere repeats nothing.
        let tries = Tries { attempts, sent: 0 };
        if !retry::may(Retry::Always, stage, true, false, tries) {
            return Err(fault);
        }
        last = Some(fault);
        tried.push(endpoint.id());
    }
}

async fn handshake(
    pool: &PoolState,
    (head, path): (&impl RequestHead, &str),
    (told, client): (&Told<'_>, Header),
    (info, dress): (&ConnInfo, &Dress),
    (cookie, endpoint): (&affinity::Cookie, &Endpoint),
    tells: Option<&Tells>,
) -> Result<(Wire, Answer), Error> {
    let address = endpoint.address();
    let address = address.ok_or_else(|| Error::Connect("no address".to_owned()))?;
    let dialed = pool.target(endpoint.id(), address, client);
    let (target, authority) =
        dialed.ok_or_else(|| Error::Connect("unknown endpoint".to_owned()))?;
    let mut set = Set::new();
    told.set(&mut set);
    let mut drop = told.drop();
    if is_mcp(pool) {
        drop = drop.and(const { Names::of(&[ORIGIN, MCP_SESSION_ID, LAST_EVENT_ID]) });
    }
    if let Some(others) = &cookie.others {
        drop = drop.and(const { Names::of(&[COOKIE]) });
        if !others.is_empty() {
            set.push((COOKIE.as_str(), others.as_bytes()));
        }
    }
    if let Some(tells) = tells {
        set.push((TRACEPARENT.as_str(), &tells.parent));
        drop = drop.and(tells.left);
    }
    let out = Outgoing {
        head,
        method: "GET",
        target: path,
        authority,
        edits: Edits {
            set: &set,
            drop,
            more: dress.request(head, info),
        },
        length: Length::None,
    };
    let changes = Changes {
        more: dress.response(head, info),
        hides_session: is_mcp(pool),
        add: &cookie.told(endpoint.id(), dress),
    };
    connect(&target, pool.config.timeouts.header, &out, changes).await
}

/// Passes on what the endpoint said instead of upgrading, up to its end, within a few seconds.
async fn pass_refusal<C>(mut client: C, mut server: Wire, answer: &Answer)
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
{
    let passing = async {
        client.write_all(&answer.rest).await?;
        copy(&mut server, &mut client).await?;
        client.shutdown().await
    };
    let _: Result<io::Result<()>, _> = timeout(std::time::Duration::from_secs(2), passing).await;
}

/// Answers a fault on the bare connection, since no HTTP session stands on it.
async fn refuse<C>(mut client: C, ctx: &mut Ctx, fault: Fault, is_rpc: bool, more: Option<More<'_>>)
where
    C: AsyncWrite + Unpin + Send,
{
    let row = fault.row();
    fault.count();
    ctx.fault = Some(fault);
    ctx.rpc_code = is_rpc.then_some(row.code);
    ctx.answered(row.status, Instant::now());
    ctx.end = End::Local;
    let _ = client.write_all(&local::bare(fault, is_rpc, more)).await;
    let _ = client.shutdown().await;
}
