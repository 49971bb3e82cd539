//! The breaker over calls that begin and end in any order: what it lets through, and that no permit
//! is ever lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate::pool::breaker::{Settings, State};
use tidegate::pool::window::{Totals, Window};
use tidegate::pool::{Balance, CallPermit, Endpoint, Moment, Outcome, Pool, Protection, Switched};

use crate::{endpoint, for_each_seed, one_of};

fn at(millis: u64) -> Moment {
    Moment::default().after(Duration::from_millis(millis))
}

/// The breaker as a list of rules.
enum Model {
    Closed,
    Open { until: u64 },
    HalfOpen { round: u32, good: u32 },
}

/// A call that is under way; of a trial, in which round of trials it began, and when.
struct Running {
    permit: CallPermit,
    trial: Option<(u32, u64)>,
}

struct Sim {
    settings: Settings,
    pool: Pool,
    endpoint: Arc<Endpoint>,
    model: Model,
    rounds: u32,
    running: Vec<Running>,
}

#[test]
fn breaker_lets_through_what_it_may_and_loses_no_permit() {
    for_each_seed(
        "breaker_lets_through_what_it_may_and_loses_no_permit",
        |rng| {
            let settings = Settings {
                failure_ratio: rng.u8(1..101),
                min_calls: rng.u32(1..12),
                window: Duration::from_secs(8),
                open_time: Duration::from_millis(rng.u64(1..3000)),
                trials: rng.u32(1..5),
            };
            let endpoint = endpoint("w", 1);
            let pool = Pool::new("p", Balance::LeastLoad, vec![Arc::clone(&endpoint)]);
            let mut sim = Sim {
                settings,
                pool: pool.expect("one name").with_protection(Protection {
                    breaker: Some(settings),
                    ..Protection::default()
                }),
                endpoint,
                model: Model::Closed,
                rounds: 0,
                running: Vec::new(),
            };
            let goodness = one_of(rng, &[0.2, 0.5, 0.9]);
            let mut now = 1;
            for _ in 0..500 {
                now += u64::from(rng.u8(..3) == 0) * rng.u64(1..1500);
                if rng.bool() {
                    sim.begin(now);
                } else if !sim.running.is_empty() {
                    let which = rng.usize(..sim.running.len());
                    let outcome = match rng.u8(..10) {
                        0 => None,
                        _ if rng.f64() < goodness => Some(Outcome::Good),
                        _ => Some(Outcome::Bad),
                    };
                    sim.end(which, outcome, now);
                }
                sim.check(now);
            }
            sim.running.clear();
            assert_eq!(sim.endpoint.in_flight(), 0);
            now += 10_000;
            assert!(
                sim.pool.enter(&sim.endpoint, at(now)).is_ok(),
                "a permit was lost"
            );
        },
    );
}

impl Sim {
    fn open_millis(&self) -> u64 {
        self.settings.open_time.as_millis() as u64
    }

    /// Trials of this round that hold a permit: those that have not lapsed.
    fn held(&self, round: u32, now: u64) -> usize {
        let fresh = |began: u64| began + self.open_millis() > now;
        let trials = self.running.iter().filter_map(|running| running.trial);
        trials
            .filter(|(of, began)| *of == round && fresh(*began))
            .count()
    }

    fn begin(&mut self, now: u64) {
        if matches!(self.model, Model::Open { until } if until <= now) {
            self.rounds += 1;
            self.model = Model::HalfOpen {
                round: self.rounds,
                good: 0,
            };
        }
        let expected = match self.model {
            Model::Closed => Ok(None),
            Model::Open { .. } => Err(()),
            Model::HalfOpen { round, .. } => {
                let room = self.held(round, now) < self.settings.trials as usize;
                room.then_some(Some((round, now))).ok_or(())
            }
        };
        match (self.pool.enter(&self.endpoint, at(now)), expected) {
            (Ok(permit), Ok(trial)) => self.running.push(Running { permit, trial }),
            (Err(_), Err(())) => {}
            (got, expected) => panic!("{got:?} where {expected:?} was expected"),
        }
    }

    fn end(&mut self, which: usize, outcome: Option<Outcome>, now: u64) {
        let Running { mut permit, trial } = self.running.swap_remove(which);
        let Some(outcome) = outcome else { return };
        let switched = self.pool.record(&mut permit, outcome, || at(now)).breaker;
        let (trials, open_time) = (self.settings.trials, self.open_millis());
        let expected = match (&mut self.model, trial, outcome) {
            (Model::HalfOpen { round, good }, Some((of, _)), Outcome::Good) if *round == of => {
                *good += 1;
                (*good == trials).then_some(Switched::Closed)
            }
            (Model::HalfOpen { round, .. }, Some((of, _)), Outcome::Bad) if *round == of => {
                Some(Switched::Reopened)
            }
            // When it opens, the window says; that is another simulation's business.
            (Model::Closed, None, Outcome::Bad) => {
                let opened = |switched: &Switched| match switched {
                    Switched::Opened(totals) => self.settings.trips(*totals),
                    Switched::Closed | Switched::Reopened => false,
                };
                switched.filter(opened)
            }
            _ => None,
        };
        assert_eq!(switched, expected);
        match switched {
            Some(Switched::Closed) => self.model = Model::Closed,
            Some(Switched::Opened(_) | Switched::Reopened) => {
                let until = now + open_time;
                self.model = Model::Open { until };
            }
            None => {}
        }
    }

    fn check(&self, now: u64) {
        let expected = match self.model {
            Model::Closed => State::Closed,
            Model::Open { until } if until > now => State::Open,
            Model::Open { .. } | Model::HalfOpen { .. } => State::HalfOpen,
        };
        assert_eq!(self.endpoint.guard.breaker(at(now)), expected);
        assert_eq!(self.endpoint.in_flight() as usize, self.running.len());
        let newest = self.held(self.rounds, now);
        assert!(
            newest <= self.settings.trials as usize,
            "{newest} trials at once"
        );
    }
}

#[test]
fn the_window_holds_what_was_recorded_lately() {
    for_each_seed("the_window_holds_what_was_recorded_lately", |rng| {
        let length = Duration::from_millis(8 * rng.u64(1..2000));
        let (window, mut list) = (Window::default(), VecDeque::new());
        let (slot, mut now) = (length.as_millis() as u64 / 8, 0);
        for _ in 0..400 {
            now += rng.u64(..slot * 2);
            let failed = rng.bool();
            window.record(failed, length, at(now));
            list.push_back((now, failed));
            // All of the slot that has just begun, and of the seven before it.
            let begin = (now / slot * slot).saturating_sub(7 * slot);
            list.retain(|(at, _)| *at >= begin);
            let expected = Totals {
                calls: list.len() as u64,
                failures: list.iter().filter(|(_, failed)| *failed).count() as u64,
            };
            assert_eq!(window.totals(length, at(now)), expected);
        }
    });
}
