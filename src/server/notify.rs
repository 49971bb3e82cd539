//! What systemd is told (`sd_notify(3)`). Without systemd nothing is sent.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::interval;

use super::vigil::Vigil;

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

/// Shows that this thread and all workers run, for as long as they do and systemd asks for it.
pub(super) async fn watchdog(vigil: Arc<Vigil>) {
    let Some(every) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = interval((every / 3).max(Duration::from_millis(100)));
    let mut missed = 0;
    loop {
        tick.tick().await;
        match vigil.take() {
            Ok(()) => {
                missed = 0;
                send(&[NotifyState::Watchdog]);
            }
            Err(worker) => {
                missed += 1;
                // Once may be for lack of CPU; the third time is too late for words.
                if missed == 2 {
                    log::error!(
                        "worker-{worker} has not taken a turn for some {every:?}: systemd is no longer told that this process is well"
                    );
                }
            }
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd: {error}");
    }
}
