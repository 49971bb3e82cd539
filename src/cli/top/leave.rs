//! Signals that mean to leave: the terminal is put back first.

use std::future::pending;
use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread;

use ratatui::try_restore;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::SIGNALLED;

/// The signal that came; 0 for none so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<AtomicU8>);

impl Told {
    /// The signal that means to leave, if one has come.
    pub(super) fn signal(&self) -> Option<u8> {
        Some(self.0.load(Relaxed)).filter(|signal| *signal > 0)
    }
}

/// From now on the signals that would end the process are noted instead.
///
/// # Errors
/// The system lets nothing listen for them.
pub(super) fn listen() -> io::Result<Told> {
    let told = Told::default();
    let runtime = Builder::new_current_thread().enable_io().build()?;
    for kind in [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::terminate(),
    ] {
        let within = runtime.enter();
        let mut signals = signal(kind)?;
        drop(within);
        let told = told.clone();
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                let number = u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX);
                told.0.store(number, Relaxed);
                if kind == SignalKind::hangup() {
                    // The terminal is gone: whoever reads from it reads nothing for ever and never
                    // comes to look here.
                    let _ = try_restore();
                    exit(i32::from(SIGNALLED) + kind.as_raw_value());
                }
            }
        });
    }
    thread::spawn(move || runtime.block_on(pending::<()>()));
    Ok(told)
}
