//! How far the process is on its way out, and when what is still open has to end.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use super::ctx::End;
use crate::pool::{Endpoint, Parting};

/// How far this process is on its way out. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running = 0,
    /// No new connections; exchanges in flight go on.
    Draining = 1,
    /// What is still open ends decently, each at a moment of its own.
    Closing = 2,
    /// The deadline has come: everything ends now.
    Ending = 3,
}

/// The phase of the process, read by every request and changed three times at most.
#[derive(Debug, Clone)]
pub struct Phases {
    now: Arc<AtomicU8>,
    /// Set before [`Phase::Closing`] is entered.
    closing: Arc<OnceLock<Parting>>,
    changes: watch::Receiver<Phase>,
    bell: Arc<watch::Sender<()>>,
    rung: watch::Receiver<()>,
}

/// Moves the process on.
#[derive(Debug)]
pub struct PhaseSender {
    now: Arc<AtomicU8>,
    closing: Arc<OnceLock<Parting>>,
    changes: watch::Sender<Phase>,
}

/// Both ends, in [`Phase::Running`].
pub fn phases() -> (PhaseSender, Phases) {
    let now = Arc::new(AtomicU8::new(Phase::Running as u8));
    let closing = Arc::new(OnceLock::new());
    let (sender, changes) = watch::channel(Phase::Running);
    let (bell, rung) = watch::channel(());
    let sender = PhaseSender {
        now: Arc::clone(&now),
        closing: Arc::clone(&closing),
        changes: sender,
    };
    let phases = Phases {
        now,
        closing,
        changes,
        bell: Arc::new(bell),
        rung,
    };
    (sender, phases)
}

impl PhaseSender {
    /// Enters a phase. There is no way back.
    pub fn enter(&self, phase: Phase) {
        self.now.fetch_max(phase as u8, Ordering::Release);
        self.changes.send_if_modified(|now| {
            let moves = phase > *now;
            *now = phase.max(*now);
            moves
        });
    }

    /// Enters [`Phase::Closing`], in which what is open ends within `window`.
    pub fn close_over(&self, window: Parting) {
        // A second window would be one more way back.
        let _ = self.closing.set(window);
        self.enter(Phase::Closing);
    }
}

impl Phases {
    /// The phase at this moment. Takes no lock.
    pub fn now(&self) -> Phase {
        match self.now.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            2 => Phase::Closing,
            _ => Phase::Ending,
        }
    }

    /// Resolves once the process is in `phase` or past it. May be dropped and called again.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the sender is gone: the process is being torn down.
        let _ = self.changes.wait_for(|now| *now >= phase).await;
    }

    /// Resolves when the phase has changed, or an endpoint began to close, since the last call.
    /// False once the process is being torn down.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.changes.changed() => changed.is_ok(),
            // The other end is ours as well, so this never fails.
            _ = self.rung.changed() => true,
        }
    }

    /// Has everything that waits look again at [`Self::leaves`].
    pub fn ring(&self) {
        self.bell.send_replace(());
    }

    /// When whoever has drawn `lot` has to end what it has open on `endpoint`, and on whose account;
    /// `None` while it may go on. Costs two loads then.
    pub fn leaves(&self, endpoint: &Endpoint, lot: u64) -> Option<(Instant, End)> {
        let own = self.leaves_process(lot).map(|at| (at, End::Drain));
        let moved = endpoint
            .closing()
            .map(|window| (window.at(lot), End::Withdrawn));
        match (own, moved) {
            (Some(own), Some(moved)) if moved.0 < own.0 => Some(moved),
            (None, moved) => moved,
            (own, _) => own,
        }
    }

    /// The same for a call, which will end by itself if it is given the time: it has the whole of the
    /// window in which an endpoint's streams end. In that of the process it draws its lot as they do,
    /// for that one is not begun before calls have had their time.
    pub fn leaves_call(&self, endpoint: &Endpoint, lot: u64) -> Option<(Instant, End)> {
        let own = self.leaves_process(lot).map(|at| (at, End::Drain));
        let moved = endpoint
            .closing()
            .map(|window| (window.end(), End::Withdrawn));
        own.into_iter().chain(moved).min_by_key(|(at, _)| *at)
    }

    /// Resolves when whoever has drawn `lot` has to end what it has open on `endpoint`; says on whose
    /// account. For tunnels, which have no alarm.
    pub async fn until_leaving(&mut self, endpoint: &Endpoint, lot: u64) -> End {
        loop {
            let leaves = self.leaves(endpoint, lot);
            let time = async {
                match leaves {
                    Some((at, end)) => {
                        tokio::time::sleep_until(at.into()).await;
                        end
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                end = time => return end,
                on = self.changed() => if !on {
                    return End::Drain;
                }
            }
        }
    }

    /// The same, with regard to the process alone.
    pub fn leaves_process(&self, lot: u64) -> Option<Instant> {
        match self.now() {
            Phase::Running | Phase::Draining => None,
            Phase::Closing => self.closing.get().map(|window| window.at(lot)),
            // Some moment that has passed.
            Phase::Ending => Some(self.closing.get().map_or_else(Instant::now, |w| w.from)),
        }
    }
}
