//! What came of the last reloads, for operators who ask.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::reload::{ReloadError, Reloaded};
use crate::telemetry::feed::{self, Topic, Weight};

/// Reloads that are remembered.
pub(super) const KEPT: usize = 20;
/// The longest text of an error that is remembered, in characters.
const ERROR_MAX: usize = 4000;

/// One reload.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// When it was over.
    pub(super) at: SystemTime,
    /// How long it took.
    pub(super) took: Duration,
    /// What it has done; or why everything goes on as it was.
    pub(super) result: Result<Reloaded, String>,
}

/// The last reloads, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Entry>>);

impl History {
    /// Remembers a reload that is over now, and tells who follows the events.
    pub(super) fn note(&self, result: &Result<Reloaded, ReloadError>, took: Duration) {
        match result {
            Ok(done) => {
                let text = format!(
                    "reloaded: {} pools new or changed, {} endpoints leave, {} listeners opened, {} closed",
                    done.pools, done.leaving, done.opened, done.closed
                );
                feed::tell(Topic::Reload, Weight::Good, "", "", text);
            }
            Err(error) => {
                let text = format!("not reloaded, all goes on as it was: {error}");
                feed::tell(Topic::Reload, Weight::Bad, "", "", text);
            }
        }
        let cut = |error: &ReloadError| error.to_string().chars().take(ERROR_MAX).collect();
        let entry = Entry {
            at: SystemTime::now(),
            took,
            result: result.as_ref().map_err(cut).cloned(),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    /// Those that are remembered, the newest first.
    pub(super) fn newest_first(&self) -> Vec<Entry> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_with_what_came_of_them() {
        let history = History::default();
        for n in 0..KEPT as u64 + 3 {
            let result = Err(ReloadError::Draining);
            history.note(&result, Duration::from_millis(n));
        }
        let entries = history.newest_first();
        assert_eq!(entries.len(), KEPT);
        assert_eq!(entries[0].took, Duration::from_millis(22));
        assert_eq!(entries[KEPT - 1].took, Duration::from_millis(3));
        let why = entries[0].result.as_ref().unwrap_err();
        assert_eq!(why, "this process is draining");
    }
}
