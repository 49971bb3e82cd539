//! One exchange of a plain route: its time, its place, its attempts.

use std::time::Instant;

use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::{ATTEMPTS_MAX, PlainCtx, heads};
use crate::pool::{CallPermit, Need, PickContext};
use crate::proxy::fault::Fault;
use crate::proxy::outcome::Said;
use crate::proxy::state::{PoolState, Shared};
use crate::proxy::{outcome, waiting};
use crate::transport::sessions::PingoraHead;

impl PlainCtx {
    /// The next piece of the request has to come, and to be taken by the server.
    pub(super) fn expects_body(&self) {
        let known = self.ctx.as_ref().zip(self.pool.as_ref());
        let unanswered = known.filter(|_| !self.is_answered);
        let within = unanswered.map(|(ctx, pool)| {
            ctx.snapshot.config.limits.head_timeout + pool.config.timeouts.write
        });
        self.clock.expects(within);
    }

    /// The request is with the server, whose answer has its time from now on.
    pub(super) fn expects_head(&mut self) {
        self.is_sent = true;
        let pool = self.pool.as_ref().filter(|_| !self.is_answered);
        let within = pool.map(|pool| pool.config.timeouts.header);
        self.clock.expects(within);
    }

    /// Something has come of the answer, and the rest has its own time.
    pub(super) fn expects_more(&mut self) {
        self.is_answered = true;
        let pool = self.pool.as_ref();
        let within = pool.and_then(|pool| pool.config.timeouts.stream_idle);
        self.clock.expects(within);
    }

    /// May the request be sent again, after a first time that reached a server?
    pub(super) fn may_retry(&self, shared: &Shared, reused: bool) -> bool {
        let now = shared.moment(Instant::now());
        let in_budget = || self.pool.as_ref().is_some_and(|pool| pool.may_retry(now));
        self.tried.len() + 1 < ATTEMPTS_MAX && (reused || in_budget())
    }

    /// Changes the head of a response as the route wants it.
    pub(super) fn dress(&self, session: &Session, response: &mut ResponseHeader) -> Result<()> {
        let (Some(_), Some(info)) = (&self.dress.response, &self.info) else {
            return Ok(());
        };
        let head = PingoraHead::new(session.req_header());
        match self.dress.response(&head, info) {
            Some(more) => heads::change_response(response, &more),
            None => Ok(()),
        }
    }

    /// The error for a request that gets no endpoint.
    pub(super) fn gives_up(&mut self, fault: Fault) -> Box<Error> {
        if fault == Fault::NoEndpoint && !self.tried.is_empty() {
            // All there is was tried, in vain.
            return Error::new(ErrorType::ConnectError);
        }
        self.unplaced = Some(fault);
        Error::new(ErrorType::HTTPStatus(503))
    }

    /// A permit for the endpoint that the client wants, or else for any other, and a place at it.
    pub(super) async fn enter(
        &mut self,
        shared: &Shared,
        pool: &PoolState,
        key: Option<u64>,
    ) -> Result<CallPermit, Fault> {
        let wanted = self.cookie.wanted.clone();
        if let Some(endpoint) = wanted.filter(|wanted| !self.tried.contains(&wanted.id())) {
            let place = waiting::place_plain_at(shared, pool, &endpoint).await?;
            let now = shared.moment(Instant::now());
            if let Ok(mut permit) = pool.pool.enter(&endpoint, now) {
                permit.hold(place);
                return Ok(permit);
            }
        }
        let mut passed_over = self.tried.clone();
        loop {
            let context = PickContext {
                key,
                exclude: &passed_over,
                need: Need::Any,
                now: shared.moment(Instant::now()),
            };
            let (picked, place) = waiting::place_alone(shared, pool, &context).await?;
            let now = shared.moment(Instant::now());
            if let Ok(mut permit) = pool.pool.enter(&picked, now) {
                permit.hold(place);
                return Ok(permit);
            }
            // Somebody else took the last trial.
            passed_over.push(picked.id());
        }
    }

    pub(super) fn report(&mut self, shared: &Shared, said: Option<Said>) {
        if let (Some(pool), Some(permit)) = (&self.pool, &mut self.permit) {
            outcome::report(shared, pool, permit, said);
        }
    }
}
