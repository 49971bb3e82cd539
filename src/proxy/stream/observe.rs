//! What is seen of a stream as it passes: which requests are answered, where events end.

use super::{Kind, Relay};
use crate::mcp::{Note, RawId, answer};
use crate::pool::FailureKind;
use crate::proxy::call::Owed;
use crate::proxy::links::Link;
use crate::proxy::outcome::Said;
use crate::proxy::resume::{Border, Lent};
use std::time::Instant;

impl Relay {
    /// Watches a piece pass: which requests it answers, and where events end. What the client is to be
    /// sent in its place, if that is something else.
    pub fn observe(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        let Self {
            scan,
            owed,
            link,
            lent,
            tool_failed,
            rpc_code,
            said,
            too_large,
            kind,
            ..
        } = self;
        scan.feed(piece, &mut |event| {
            let was_owed = !owed.is_empty();
            match &event.note {
                Note::Response {
                    id,
                    is_error,
                    is_tool_error,
                    error_code,
                } => {
                    *tool_failed = Some(*is_error || *is_tool_error);
                    *rpc_code = error_code.map(i64::from).or(*rpc_code);
                    match error_code.is_some_and(answer::is_server_fault) {
                        true => *said = Some(Said::Bad(FailureKind::Error)),
                        false => *said = said.or(Some(Said::Good)),
                    }
                    if let Some(id) = id {
                        settle(owed, link.as_deref(), id);
                    }
                }
                Note::Batch(items) => {
                    for id in items
                        .iter()
                        .filter(|item| item.is_response)
                        .filter_map(|item| item.id.as_ref())
                    {
                        settle(owed, link.as_deref(), id);
                    }
                }
                Note::EventTooLarge => {
                    *too_large = true;
                    return;
                }
                _ => {}
            }
            if let Some(lent) = lent {
                let border = Border {
                    blank: event.blank,
                    end: event.end,
                    has_id: event.has_id,
                    answers: was_owed && owed.is_empty(),
                };
                lent.border(piece, border);
            }
        });
        if *kind == Kind::Post && self.owed.is_empty() && self.answered_at.is_none() {
            self.answered_at = Some(Instant::now());
        }
        let passed = self.lent.as_mut()?.passed(piece, self.scan.at_boundary());
        if self.lent.as_ref().is_some_and(|lent| lent.is_over()) {
            self.lent = None;
        }
        passed
    }

    /// Lends ids to the events of the stream, of which none has passed.
    pub fn lend(&mut self, lent: Lent) {
        self.lent = Some(Box::new(lent));
    }

    /// What is lent to the stream.
    pub fn lent(&self) -> Option<&Lent> {
        self.lent.as_deref()
    }

    /// Takes back what is lent to the stream.
    pub fn take_lent(&mut self) -> Option<Box<Lent>> {
        self.lent.take()
    }

    /// The stream turns out to last.
    pub fn lasts(&mut self) {
        if let Some(lent) = &mut self.lent {
            lent.enter();
        }
    }

    /// A client has come back that has seen the events up to this one.
    pub fn catch_up(&mut self, number: u64) {
        let now = Instant::now();
        self.last_to_client = now;
        if let Some(lent) = &mut self.lent {
            lent.catch_up(number);
        }
    }

    /// Is there an event over the limit?
    pub fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// Is there still something to come that a client waits for?
    pub fn is_awaited(&self) -> bool {
        self.kind == Kind::Get || !self.owed.is_empty()
    }
}

fn settle(owed: &mut Owed, link: Option<&Link>, id: &RawId) {
    owed.retain(|other| other != id);
    if let Some(link) = link {
        link.settle(id);
    }
}
