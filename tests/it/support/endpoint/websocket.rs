//! The server's end of a WebSocket. The connection is the session.

use std::sync::Arc;

use serde_json::Value;

use super::super::wire::Wire;
use super::super::ws::{Frame, accept_key};
use super::session::Session;
use super::state::{Request, State, random_id};
use super::tools::{Call, Sink};

/// What the test wants said on every WebSocket.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Text(String),
    Close(u16),
}

/// Whether this request asks for a WebSocket.
pub(super) fn wants(request: &Request) -> bool {
    request.method == "GET" && request.headers.has_token("upgrade", "websocket")
}

/// Serves frames until either side closes. Writing fails only when the client is gone.
pub(super) async fn serve(state: &Arc<State>, wire: &Wire, request: &Request) {
    let _in_flight = state.count(|counts| &counts.in_flight);
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {}\r\n",
        accept_key(key)
    );
    if request.headers.has_token("sec-websocket-protocol", "mcp") {
        head.push_str("sec-websocket-protocol: mcp\r\n");
    }
    head.push_str("\r\n");
    let mut told = state.websocket();
    let session = Arc::new(Session::new(random_id(), None));
    if wire.write(head.as_bytes()).await.is_err() {
        return;
    }
    let _open = state.count(|counts| &counts.streams_open);
    let clean = loop {
        let out = tokio::select! {
            frame = Frame::read(wire) => match frame {
                Ok(Frame::Text(text)) => Frame::Text(answer(state, &session, text).await),
                Ok(Frame::Binary(bytes)) => Frame::Binary(bytes),
                Ok(Frame::Ping(bytes)) => Frame::Pong(bytes),
                Ok(Frame::Close(code)) => {
                    let _ = wire.write(&Frame::Close(code).encode(None)).await;
                    break true;
                }
                Ok(Frame::Pong(_) | Frame::Other(_)) => continue,
                Err(_) => break false,
            },
            Ok(told) = told.recv() => match told {
                Told::Text(text) => Frame::Text(text),
                Told::Close(code) => Frame::Close(Some(code)),
            },
        };
        if wire.write(&out.encode(None)).await.is_err() {
            break false;
        }
    };
    if !clean {
        state.client_left(request.clone(), true);
    }
}

/// The response to a JSON-RPC request; any other text comes back as it is.
async fn answer(state: &Arc<State>, session: &Arc<Session>, text: String) -> String {
    let message: Value = serde_json::from_str(&text).unwrap_or_default();
    if message.get("method").is_none() || message.get("id").is_none() {
        return text;
    }
    let call = Call {
        state: state.clone(),
        session: Some(session.clone()),
        message,
    };
    match call.respond(&mut Sink::Nobody).await {
        Ok(response) => response.to_string(),
        Err(_) => text,
    }
}
