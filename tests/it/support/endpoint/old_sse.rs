//! HTTP+SSE of 2024-11-05: the stream is the session, and answers to POSTs come on it.

use std::sync::Arc;

use serde_json::Value;

use super::reply::{Flow, Reply, message_event};
use super::session::Session;
use super::state::{Request, State};
use super::tools::{Call, Sink};

pub(super) async fn serve(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    let path = request.path.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("GET", "/sse") => stream(state, reply).await,
        ("POST", "/messages") => post(state, request, reply).await,
        _ => {
            reply
                .fixed(405, "text/plain", &[], b"Method Not Allowed")
                .await
        }
    }
}

async fn stream(state: &Arc<State>, reply: &mut Reply) -> Flow {
    let session = EndsWithStream {
        session: state.open_session(),
        state: state.clone(),
    };
    let session = &session.session;
    let Some(_place) = session.take_get() else {
        return reply.fixed(409, "text/plain", &[], b"Conflict").await;
    };
    let mut ends = session.get_ends();
    reply.open_stream(&[]).await?;
    let uri = format!("/messages?session_id={}", session.id);
    reply
        .block(&format!("event: endpoint\ndata: {uri}\n\n"))
        .await?;
    for at in 0.. {
        let entry = tokio::select! {
            entry = session.pushes.entry(at) => entry,
            _ = ends.changed() => None,
        };
        let Some(entry) = entry else {
            break;
        };
        if !reply.drops(&serde_json::from_str(&entry.data).unwrap_or_default()) {
            reply.block(&message_event(None, &entry.data)).await?;
        }
    }
    reply.end().await
}

async fn post(state: &Arc<State>, request: &Request, reply: &mut Reply) -> Flow {
    let (_, query) = request.path.split_once('?').unwrap_or_default();
    let id = query.strip_prefix("session_id=").unwrap_or_default();
    let Some(session) = state.session(id) else {
        return reply
            .fixed(404, "text/plain", &[], b"Could not find session")
            .await;
    };
    let Some(message) = request.rpc.clone() else {
        return reply
            .fixed(400, "text/plain", &[], b"Could not parse message")
            .await;
    };
    match (message.get("method"), message.get("id")) {
        (Some(_), Some(_)) => run(state, session, message),
        (None, _) => {
            if let Err(stray) = session.answered(message) {
                state.stray_answer(stray);
            }
        }
        (Some(_), None) => {}
    }
    reply.fixed(202, "text/plain", &[], b"Accepted").await
}

/// Runs the call behind the POST's back; all it says goes on the stream.
fn run(state: &Arc<State>, session: Arc<Session>, message: Value) {
    let call = Call {
        state: state.clone(),
        session: Some(session.clone()),
        message,
    };
    tokio::spawn(async move {
        let log = session.pushes.clone();
        if let Ok(response) = call.respond(&mut Sink::Log(log)).await {
            session.push(&response);
        }
    });
}

struct EndsWithStream {
    session: Arc<Session>,
    state: Arc<State>,
}

impl Drop for EndsWithStream {
    fn drop(&mut self) {
        self.state.close_session(&self.session.id);
    }
}
