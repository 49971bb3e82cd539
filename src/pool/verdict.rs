//! Why an endpoint is up or down, in words for whoever looks.

use std::sync::{Mutex, PoisonError};

use super::moment::Moment;

/// What the checks had to say last. Written by whoever runs them, with every check; read by people.
#[derive(Debug, Default)]
pub struct Verdict(Mutex<Told>);

/// What they said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// When the endpoint last became up or down; `None` if it never did.
    pub since: Option<Moment>,
    /// What was wrong at the last check; `None` if it was good, or there was none.
    pub wrong: Option<Box<str>>,
}

impl Verdict {
    /// Notes what came of a check, and whether it has made the endpoint up or down.
    pub fn note(&self, wrong: Option<&str>, is_change: bool, now: Moment) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_change {
            told.since = Some(now);
        }
        if told.wrong.as_deref() != wrong {
            told.wrong = wrong.map(Into::into);
        }
    }

    /// What was said last.
    pub fn told(&self) -> Told {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_that_of_the_last_check_and_the_time_that_of_the_last_change() {
        let verdict = Verdict::default();
        assert_eq!(verdict.told(), Told::default());
        let (early, late) = (Moment::from_nanos(1), Moment::from_nanos(2));
        verdict.note(Some("refused"), true, early);
        verdict.note(Some("timed out"), false, late);
        let told = verdict.told();
        assert_eq!(told.wrong.as_deref(), Some("timed out"));
        assert_eq!(told.since, Some(early));
        verdict.note(None, true, late);
        assert_eq!(
            verdict.told(),
            Told {
                since: Some(late),
                wrong: None
            }
        );
    }
}
