//! Connections: accepting them, reading requests off them, and finding who answers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::net::TcpListener;

use super::super::wire::{BodyEnd, BodyReader, RequestHead, Wire};
use super::reply::{Cut, Flow, Out, Reply};
use super::state::{Open, Request, State};
use super::{http2, old_sse, session_era, stateless_era, websocket};

/// The largest request body that is taken.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// How long a connection may be idle when the script does not say.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Serves everyone who connects, until aborted.
pub(super) async fn accept(state: Arc<State>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let number = state.counts.connections_accepted.fetch_add(1, SeqCst) + 1;
        let open = state.count(|counts| &counts.connections_open);
        let wire = Wire::new(stream);
        let socket = wire.socket();
        let served = state.clone();
        let task = tokio::spawn(async move {
            connection(&served, &wire, number).await;
            wire.end();
            // The socket is closed before the count goes down.
            drop(wire);
            drop(open);
        });
        state.keep(Open { socket, task });
    }
}

async fn connection(state: &Arc<State>, wire: &Wire, number: usize) {
    if state.manners.http2 {
        if speaks_http2(wire).await {
            Box::pin(http2::connection(state, wire.clone(), number)).await;
        }
        return;
    }
    let mut idle_limit = IDLE_MAX;
    loop {
        let head = tokio::time::timeout(idle_limit, wire.request_head()).await;
        let Ok(Ok(head)) = head else {
            return;
        };
        let close = head.headers.has_token("connection", "close");
        let Some(request) = body(wire, head, number).await else {
            return;
        };
        state.saw(&request);
        if state.manners.websocket && websocket::wants(&request) {
            return Box::pin(websocket::serve(state, wire, &request)).await;
        }
        match Box::pin(exchange(state, wire, request)).await {
            Ok(limit) if !close => idle_limit = limit.unwrap_or(IDLE_MAX),
            Ok(_) | Err(Cut::Close | Cut::Gone) => return,
            Err(Cut::Reset) => return wire.reset_on_close(),
        }
    }
}

/// Answers one request, unless its client leaves first. Returns how long to wait for the next.
async fn exchange(state: &Arc<State>, wire: &Wire, request: Request) -> Flow<Option<Duration>> {
    let _in_flight = state.count(|counts| &counts.in_flight);
    let mut reply = Reply::new(state, &request, Out::H1(wire.clone()));
    let served = tokio::select! {
        biased;
        served = answer(state, &request, &mut reply) => served,
        () = wire.closed() => Err(Cut::Gone),
    };
    if served == Err(Cut::Gone) {
        state.client_left(request, reply.is_streaming());
    }
    served.map(|()| reply.idle_limit())
}

/// Sends the answer to `request`, whichever protocol it came by.
pub(super) async fn answer(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    if let Some((status, body)) = reply.before_handler().await? {
        return session_era::refuse(state, reply, status, &[], body.as_bytes()).await;
    }
    let manners = &state.manners;
    let path = request.path.split('?').next().unwrap_or_default();
    match path {
        "/sse" | "/messages" if manners.old_sse => {
            Box::pin(old_sse::serve(state, request, reply)).await
        }
        "/mcp" if !manners.old_sse => match stateless_era::claims(state, request) {
            true => Box::pin(stateless_era::serve(state, request, reply)).await,
            false => Box::pin(session_era::serve(state, request, reply)).await,
        },
        _ if path.starts_with("/plain") => plain(state, request, reply).await,
        _ => session_era::refuse(state, reply, 404, &[], b"{}").await,
    }
}

/// Tells what was received, for routes that are plain HTTP.
async fn plain(state: &State, request: &Request, reply: &mut Reply) -> Flow {
    let received = json!({
        "name": state.name,
        "method": request.method,
        "path": request.path,
        "headers": request.headers.0,
        "body_bytes": request.body.len(),
    });
    reply
        .json(200, &[("x-endpoint", &state.name)], &received)
        .await
}

/// Reads the body behind a head. Nothing when the client gives up inside it.
async fn body(wire: &Wire, head: RequestHead, connection: usize) -> Option<Request> {
    if head.headers.has_token("expect", "100-continue") {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let mut reader = BodyReader::of_request(&head.headers);
    let mut body = BytesMut::new();
    loop {
        match reader.next(wire).await {
            Ok(piece) if body.len() + piece.len() <= BODY_MAX => body.extend_from_slice(&piece),
            Err(BodyEnd::Complete) => return Some(request(head, body.freeze(), connection)),
            Ok(_) | Err(_) => return None,
        }
    }
}

/// Puts together what arrived.
pub(super) fn request(head: RequestHead, body: Bytes, connection: usize) -> Request {
    Request {
        at: Instant::now(),
        connection,
        method: head.method,
        path: head.path,
        headers: head.headers,
        rpc: serde_json::from_slice(&body).ok(),
        body,
    }
}

async fn speaks_http2(wire: &Wire) -> bool {
    loop {
        let waiting = wire.with_inbox(|inbox| inbox[..inbox.len().min(4)].to_vec());
        if waiting.len() == 4 {
            return waiting == *b"PRI ";
        }
        if matches!(wire.fill().await, Ok(0) | Err(_)) {
            return false;
        }
    }
}
