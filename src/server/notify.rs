//! What systemd is told (`sd_notify(3)`). Without systemd nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::interval;

/// This process serves.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    let states: Vec<_> = [Ok(NotifyState::Reloading), now]
        .into_iter()
        .flatten()
        .collect();
    send(&states);
}

/// This process is about to leave.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Another process serves in the place of this one.
pub(super) fn replaced_by(process: u32) {
    send(&[NotifyState::MainPid(process), NotifyState::Ready]);
}

/// Shows that this thread runs, for as long as it does and systemd asks for it.
pub(super) async fn watchdog() {
    let Some(every) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = interval((every / 3).max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd: {error}");
    }
}
