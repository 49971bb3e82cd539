//! A WebSocket of the client side, subprotocol `mcp`: the connection is the session.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::conn::{Conn, Failure, Reply, read_with};
use crate::mcp::{self, Speaker};
use crate::websocket::{Frame, Kind, write};

/// A WebSocket, opened when it is first used and again after a failure.
pub(crate) struct Socket {
    address: SocketAddr,
    open: Option<Open>,
    /// How often it was opened.
    pub(crate) opened: u64,
}

struct Open {
    stream: TcpStream,
    /// Bytes of frames not yet complete.
    pending: Vec<u8>,
}

impl Socket {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: None,
            opened: 0,
        }
    }

    /// Opens it now, and the session on it, unless it is open.
    pub(crate) async fn connect(
        &mut self,
        speaker: &Speaker,
        patience: Duration,
    ) -> Result<(), Failure> {
        self.open = Some(self.take(speaker, patience).await?);
        Ok(())
    }

    /// Sends a message and waits for the next one, within `patience`.
    pub(crate) async fn exchange(
        &mut self,
        speaker: &Speaker,
        message: &str,
        patience: Duration,
    ) -> Result<Reply, Failure> {
        let mut open = self.take(speaker, patience).await?;
        let reply = timeout(patience, open.exchange(message))
            .await
            .unwrap_or(Err(Failure::Timeout))?;
        self.open = Some(open);
        Ok(reply)
    }

    /// Says goodbye. What fails here was measured already.
    pub(crate) async fn close(mut self) {
        if let Some(mut open) = self.open.take() {
            // Status 1000, as RFC 6455 section 7.4.1 has it for an end that was meant.
            let _ = open.send(Kind::Close, &1000_u16.to_be_bytes()).await;
        }
    }

    /// Takes the open one, or opens one. It is put back by whoever finds it still usable.
    async fn take(&mut self, speaker: &Speaker, patience: Duration) -> Result<Open, Failure> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let conn = Conn::new(self.address);
        let (head, pending, stream) = conn.open_stream(&speaker.upgrade(), patience).await?;
        if head.status != 101 {
            return Err(Failure::Status(head.status));
        }
        self.opened += 1;
        let mut open = Open { stream, pending };
        let begin = async {
            mcp::initialized(&open.exchange(&speaker.initialize_message()).await?)?;
            open.send(Kind::Text, mcp::INITIALIZED.as_bytes()).await?;
            Ok(open)
        };
        timeout(patience, begin)
            .await
            .unwrap_or(Err(Failure::Timeout))
    }
}

impl Open {
    async fn exchange(&mut self, message: &str) -> Result<Reply, Failure> {
        self.send(Kind::Text, message.as_bytes()).await?;
        loop {
            while let Some(frame) =
                Frame::read(&mut self.pending).map_err(|_| Failure::Malformed)?
            {
                let rest = self.pending.split_off(frame.payload.end);
                let payload = std::mem::replace(&mut self.pending, rest)
                    .drain(frame.payload)
                    .collect::<Vec<_>>();
                match frame.kind {
                    Kind::Text => return Ok(Reply::message(payload)),
                    Kind::Ping => self.send(Kind::Pong, &payload).await?,
                    Kind::Pong => (),
                    Kind::Close => return Err(Failure::Closed),
                }
            }
            let pending = &mut self.pending;
            let read = read_with(&mut self.stream, |bytes| {
                pending.extend_from_slice(bytes);
                bytes.len()
            });
            if read.await.map_err(|_| Failure::Closed)? == 0 {
                return Err(Failure::Closed);
            }
        }
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(payload.len() + 14);
        write(&mut out, kind, payload, true);
        self.stream
            .write_all(&out)
            .await
            .map_err(|_| Failure::Closed)
    }
}
