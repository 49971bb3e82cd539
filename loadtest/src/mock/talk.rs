//! A WebSocket of the mock: the connection is the session.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::State;
use super::answer::message;
use super::sessions::SessionId;
use crate::conn::read_with;
use crate::websocket::{Frame, Kind, write};

/// Answers messages until the peer says goodbye or has gone. `pending` came behind the request.
pub(super) async fn talk(mut stream: TcpStream, mut pending: Vec<u8>, state: &State) {
    let Some(session) = state.sessions.open() else {
        return;
    };
    // However it ends, the session ends with it.
    let _ = converse(&mut stream, &mut pending, state, session).await;
    state.sessions.close(session);
}

async fn converse(
    stream: &mut TcpStream,
    pending: &mut Vec<u8>,
    state: &State,
    session: SessionId,
) -> io::Result<()> {
    loop {
        let mut out = Vec::new();
        let more = respond(pending, &mut out, state, session);
        stream.write_all(&out).await?;
        if !more {
            return Ok(());
        }
        drop(out);
        let read = read_with(stream, |bytes| {
            pending.extend_from_slice(bytes);
            bytes.len()
        });
        if read.await? == 0 {
            return Ok(());
        }
    }
}

/// Answers every complete frame in `pending`, and takes them off it. False at the end.
fn respond(pending: &mut Vec<u8>, out: &mut Vec<u8>, state: &State, session: SessionId) -> bool {
    let mut at = 0;
    let more = loop {
        let Ok(frame) = Frame::read(&mut pending[at..]) else {
            break false;
        };
        let Some(Frame { kind, payload }) = frame else {
            break true;
        };
        let inside = &pending[at + payload.start..at + payload.end];
        match kind {
            Kind::Text => {
                if let Some(answer) = message(state, session, inside) {
                    write(out, Kind::Text, answer.as_bytes(), false);
                }
            }
            Kind::Ping => write(out, Kind::Pong, inside, false),
            Kind::Pong => (),
            Kind::Close => {
                write(out, Kind::Close, inside, false);
                break false;
            }
        }
        at += payload.end;
    };
    pending.drain(..at);
    more
}
