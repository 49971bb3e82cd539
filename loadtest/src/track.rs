//! What one stream has delivered: in order, complete, how late.
//!
//! The mock numbers the events of a stream 1, 2, 3, … and puts into each when it was sent and how
//! long until the next. Numbers tell what was lost between two events; the interval tells whether
//! the stream went quiet at its end, which no number can.

use serde::Deserialize;

/// What the mock puts into an event's `params.data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    /// Real time in microseconds since 1970, taken just before the event was written.
    pub(crate) sent_us: u64,
    pub(crate) every_us: u64,
}

impl Mark {
    /// Finds the mark in an event; `None` for events that are not the mock's.
    pub(crate) fn read(event: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Params {
            data: Mark,
        }
        #[derive(Deserialize)]
        struct Notification {
            params: Params,
        }
        serde_json::from_slice::<Notification>(event)
            .ok()
            .map(|notification| notification.params.data)
    }
}

/// One stream's record.
#[derive(Default)]
pub(crate) struct Track {
    last_seq: u64,
    last_received_us: u64,
    every_us: u64,
    pub(crate) tally: Tally,
}

/// Counts that add up over streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    /// Numbers that were passed over.
    pub(crate) missing: u64,
    /// Numbers that came again, or out of order.
    pub(crate) repeated: u64,
    /// Times the numbers began anew: a gateway opened the stream again behind ours.
    pub(crate) restarts: u64,
    /// Events of another sender than the mock; counted nowhere else.
    pub(crate) foreign: u64,
    /// Events that seem to have come before they were sent: the clock was set during the run.
    pub(crate) clock_steps: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.missing += other.missing;
        self.repeated += other.repeated;
        self.restarts += other.restarts;
        self.foreign += other.foreign;
        self.clock_steps += other.clock_steps;
    }
}

impl Track {
    /// Takes an event received at `now_us`, and returns its delay in microseconds if it has one.
    pub(crate) fn event(&mut self, mark: Option<Mark>, now_us: u64) -> Option<u64> {
        let Some(mark) = mark else {
            self.tally.foreign += 1;
            return None;
        };
        self.tally.events += 1;
        self.last_received_us = now_us;
        self.every_us = mark.every_us;
        if mark.seq > self.last_seq {
            self.tally.missing += mark.seq - self.last_seq - 1;
            self.last_seq = mark.seq;
        } else if mark.seq == 1 {
            self.tally.restarts += 1;
            self.last_seq = 1;
        } else {
            self.tally.repeated += 1;
        }
        let delay = now_us.checked_sub(mark.sent_us);
        self.tally.clock_steps += u64::from(delay.is_none());
        delay
    }

    /// How the stream stands at `now_us`.
    pub(crate) fn standing(&self, now_us: u64) -> Standing {
        // Twice the interval and a second: less would take a busy machine for a broken stream.
        let patience = 2 * self.every_us + 1_000_000;
        if self.tally.events == 0 {
            Standing::Silent
        } else if now_us.saturating_sub(self.last_received_us) > patience {
            Standing::Stalled
        } else {
            Standing::Alive
        }
    }
}

/// Whether events still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Alive,
    /// Never one of the mock's events. Normal for any other server.
    Silent,
    /// There were events, and then none for more than two intervals and a second.
    Stalled,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(numbers: &[u64]) -> Tally {
        let mut track = Track::default();
        for &seq in numbers {
            track.event(
                Some(Mark {
                    seq,
                    sent_us: 10,
                    every_us: 1_000,
                }),
                12,
            );
        }
        track.tally
    }

    #[test]
    fn gaps_repeats_and_restarts_are_told_apart() {
        for (numbers, missing, repeated, restarts) in [
            (&[1, 2, 3][..], 0, 0, 0),
            (&[1, 2, 5], 2, 0, 0),
            (&[3, 4], 2, 0, 0),
            (&[1, 2, 2, 3], 0, 1, 0),
            (&[1, 2, 1, 2, 3], 0, 0, 1),
        ] {
            let tally = tracked(numbers);
            assert_eq!(
                (tally.missing, tally.repeated, tally.restarts),
                (missing, repeated, restarts),
                "{numbers:?}"
            );
            assert_eq!(tally.events, numbers.len() as u64);
        }
    }

    #[test]
    fn the_delay_is_from_sending_to_receiving() {
        let mut track = Track::default();
        let mark = |seq, sent_us| {
            Some(Mark {
                seq,
                sent_us,
                every_us: 1_000,
            })
        };
        assert_eq!(track.event(mark(1, 100), 350), Some(250));
        assert_eq!(track.event(mark(2, 400), 350), None);
        assert_eq!(track.event(None, 350), None);
        assert_eq!((track.tally.clock_steps, track.tally.foreign), (1, 1));
    }

    #[test]
    fn a_stream_that_goes_quiet_is_stalled() {
        let mut track = Track::default();
        assert_eq!(track.standing(9_000_000), Standing::Silent);
        track.event(
            Some(Mark {
                seq: 1,
                sent_us: 0,
                every_us: 500_000,
            }),
            1_000_000,
        );
        assert_eq!(track.standing(3_000_000), Standing::Alive);
        assert_eq!(track.standing(3_000_001), Standing::Stalled);
    }

    #[test]
    fn only_events_of_the_mock_have_a_mark() {
        let event = br#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":{"seq":3,"sent_us":5,"every_us":7}}}"#;
        assert_eq!(
            Mark::read(event),
            Some(Mark {
                seq: 3,
                sent_us: 5,
                every_us: 7
            })
        );
        assert_eq!(
            Mark::read(br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#),
            None
        );
        assert_eq!(Mark::read(b"not json"), None);
    }
}
