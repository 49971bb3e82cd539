//! How a caller reaches the server: over a connection that is kept, over a new one for each short
//! session, or over a WebSocket.

use crate::caller::Plan;
use crate::conn::{Conn, Failure};
use crate::mcp::Session;
use crate::socket::Socket;

pub(crate) enum Line {
    /// Each call in a session that is open already, or in none.
    Kept(Conn),
    /// Each call is the only one of a session that begins and ends with a connection.
    Fresh(Conn),
    /// The connection is the session.
    Socket(Socket),
}

impl Line {
    /// Makes the call `id` and judges the answer.
    pub(crate) async fn call(
        &mut self,
        plan: &Plan,
        session: Option<&Session>,
        id: u64,
    ) -> Result<(), Failure> {
        let (speaker, patience) = (&plan.speaker, plan.timeout);
        match self {
            Self::Kept(conn) => {
                let reply = conn.exchange(&speaker.call(session, id), patience).await?;
                speaker.check(&reply, id)
            }
            Self::Fresh(conn) => {
                conn.hang_up();
                let session = plan.open_session(conn).await?;
                let call = speaker.call(Some(&session), id);
                let reply = conn.exchange(&call, patience).await?;
                speaker.check(&reply, id)?;
                plan.close_session(conn, &session).await
            }
            Self::Socket(socket) => {
                let call = speaker.call_message(id, "");
                let reply = socket.exchange(speaker, &call, patience).await?;
                speaker.check(&reply, id)
            }
        }
    }

    /// Connections opened so far beyond those that the way of calling asks for, at `calls` calls.
    pub(crate) fn reconnects(&self, calls: u64) -> u64 {
        match self {
            Self::Kept(conn) => conn.opened,
            Self::Fresh(conn) => conn.opened.saturating_sub(calls),
            Self::Socket(socket) => socket.opened,
        }
    }

    /// Ends the session that is open. What fails here was measured already.
    pub(crate) async fn end(self, plan: &Plan, session: Option<&Session>) {
        match (self, session) {
            (Self::Kept(mut conn), Some(session)) => {
                let _ = plan.close_session(&mut conn, session).await;
            }
            (Self::Kept(_) | Self::Fresh(_), _) => (),
            (Self::Socket(socket), _) => socket.close().await,
        }
    }
}
