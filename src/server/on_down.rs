//! What is open on an endpoint that its checks find down, where the operator wants it ended.
//!
//! Nothing is ended unless he does: connections may well outlive what a check complains of, and one on
//! which nothing more comes ends by itself after a while. Where a standby is to take over, that is too
//! late.

use std::sync::Arc;
use std::time::Instant;

use super::drain::{LAST_WORDS, spread};
use crate::pool::{Endpoint, Parting};
use crate::proxy::state::Shared;

/// Ends what is open on an endpoint, spread over as long as it takes, up to `drain_jitter`. `None` if that
/// is being done already, because the operator takes the endpoint out.
pub(super) fn end_open(shared: &Arc<Shared>, endpoint: &Arc<Endpoint>) -> Option<Parting> {
    if endpoint.closing().is_some() {
        return None;
    }
    let jitter = shared.snapshot.load().config.drain_jitter;
    let window = Parting {
        from: Instant::now(),
        length: spread(
            usize::try_from(endpoint.busy()).unwrap_or(usize::MAX),
            jitter,
        ),
    };
    endpoint.close_over(Some(window));
    shared.phases.ring();
    let (later, of) = (Arc::clone(shared), Arc::clone(endpoint));
    tokio::spawn(async move {
        tokio::time::sleep_until((window.end() + LAST_WORDS).into()).await;
        let_go_on(&later, &of, window);
    });
    Some(window)
}

/// Lets go on what has not ended yet, now that the endpoint is back or the window is over. One that was
/// opened by somebody else since is left alone.
pub(super) fn let_go_on(shared: &Shared, endpoint: &Endpoint, window: Parting) {
    if endpoint.closing() == Some(window) {
        endpoint.close_over(None);
        shared.phases.ring();
    }
}
