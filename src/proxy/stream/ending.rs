//! How a stream ends: never without an answer for whoever waits for one.

use std::task::Context;
use std::time::Instant;

use super::{Kind, Relay};
use crate::mcp::sse::write_message_event;
use crate::mcp::{RawId, answer};
use crate::proxy::ctx::{Ctx, End};
use crate::proxy::fault::Fault;
use crate::transport::{Downstream, Error};

impl Relay {
    /// What a proper end of the server's stream means.
    pub fn end_of_server(&self) -> End {
        match self.kind {
            Kind::Get => End::Complete,
            Kind::Sse => End::UpstreamLost,
            Kind::Post | Kind::Listen if self.owed.is_empty() => End::Complete,
            // A server that gave the client a point to resume from may close on purpose; the
            // client comes back with GET and Last-Event-ID.
            Kind::Post if self.scan.event_id_seen() && self.scan.at_boundary() => End::Resumable,
            Kind::Post | Kind::Listen => End::UpstreamLost,
        }
    }

    /// Ends the response: first whatever the client is still owed, then the proper end.
    pub(super) async fn close<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        end: End,
    ) -> Result<(), Error> {
        let tail = self.last_words(end);
        if !tail.is_empty() {
            self.send(down, ctx, &tail).await?;
        }
        down.finish().await
    }

    /// When an answer is due on the stream of which somebody is to be told if it does not come. Inside of an
    /// event nobody can be told.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let link = self.link.as_ref().filter(|_| self.scan.at_boundary())?;
        link.next_due()
    }

    /// Is one due that is owed since the stream began to wait? If not, it is woken once there is one.
    pub(super) fn is_due_sooner(&self, context: &mut Context<'_>) -> bool {
        let link = self.link.as_ref().filter(|_| self.scan.at_boundary());
        link.is_some_and(|link| link.poll_due(context).is_ready())
    }

    /// Answers in the server's place what it should have answered by now.
    pub(super) async fn tell_overdue<D: Downstream>(
        &mut self,
        down: &mut D,
        ctx: &mut Ctx,
        now: Instant,
    ) -> Result<(), Error> {
        let link = self.link.as_ref().filter(|_| self.scan.at_boundary());
        let overdue = link.map_or_else(Vec::new, |link| link.take_overdue(now));
        let mut events = Vec::new();
        for id in &overdue {
            write_message_event(&mut events, &failure(id, Fault::UpstreamTimeout));
        }
        self.send(down, ctx, &events).await
    }

    /// The events that tell the client what it would otherwise wait for.
    pub fn last_words(&mut self, end: End) -> Vec<u8> {
        let mut tail = Vec::new();
        if end == End::Complete || end == End::Resumable {
            return tail;
        }
        if !self.scan.at_boundary() {
            self.scan.poison_partial(&mut tail);
        }
        if let Some(lent) = &mut self.lent {
            lent.drop_open();
        }
        let mut owed = std::mem::take(&mut self.owed);
        if let Some(link) = &self.link {
            owed.extend(link.take());
        }
        for id in &owed {
            let fault = match end {
                End::Drain | End::Withdrawn => Fault::Draining,
                End::Timeout => Fault::UpstreamTimeout,
                End::TooLarge => Fault::UpstreamMalformed,
                _ => Fault::UpstreamClosed,
            };
            let message = match self.kind {
                // Clients take the result of a listen as the cue to open it again, an error not.
                Kind::Listen => listen_result(id),
                Kind::Post | Kind::Get | Kind::Sse => {
                    self.rpc_code = Some(fault.row().code);
                    failure(id, fault)
                }
            };
            let mut event = Vec::with_capacity(message.len() + 96);
            write_message_event(&mut event, &message);
            if let Some(lent) = &mut self.lent {
                lent.last_word(&mut event);
            }
            tail.append(&mut event);
        }
        tail
    }
}

fn failure(id: &RawId, fault: Fault) -> Vec<u8> {
    let row = fault.row();
    answer::error(Some(id), row.code, row.message, None)
}

/// The graceful end of `subscriptions/listen` (2026-07-28).
fn listen_result(id: &RawId) -> Vec<u8> {
    let result = format!(
        r#"{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{}}}}}"#,
        id.as_json()
    );
    answer::result(id, &result)
}
