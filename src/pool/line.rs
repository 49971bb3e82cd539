//! Who is next for a place: the order alone, without the places and without waking anybody.
//!
//! Some wait for any of several endpoints, some for the one that owns their session. Each has a turn:
//! by priority, then by when it came. A place at an endpoint goes to the first of all that want it, so
//! a call of a session is not passed by calls that came later and could go elsewhere, nor the other
//! way about.
//!
//! Those that wait for one endpoint stand in a line of its own, so that looking for the next costs
//! two look-ups, however many there are. Those that wait for any stand in one line together, and
//! usually its first will do.

use std::collections::BTreeMap;

use super::balance::Candidates;

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// What is answered at once, frees something, or decides what a client does next: it costs the
    /// others next to nothing, and them a place sooner.
    Urgent,
    /// Everything else.
    Ordinary,
}

/// A place in the order. No two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Priority,
    number: u64,
}

/// Which endpoints, by their places in the pool's list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Want {
    Any(Candidates),
    Only(usize),
}

/// Those that wait, `T` being how to reach them.
pub(super) struct Line<T> {
    max: usize,
    len: usize,
    next: u64,
    any: BTreeMap<Turn, (Candidates, T)>,
    /// One for each endpoint.
    only: Vec<BTreeMap<Turn, T>>,
}

impl<T> Line<T> {
    /// Nobody waits, and at most `max` ever will.
    pub(super) fn new(max: usize, endpoints: usize) -> Self {
        Self {
            max,
            len: 0,
            next: 0,
            any: BTreeMap::new(),
            only: (0..endpoints).map(|_| BTreeMap::new()).collect(),
        }
    }

    /// Goes to the end of its priority; `None` if too many wait.
    pub(super) fn join(&mut self, want: Want, priority: Priority, who: T) -> Option<Turn> {
        if self.len >= self.max {
            return None;
        }
        self.len += 1;
        let turn = Turn {
            priority,
            number: self.next,
        };
        self.next += 1;
        match want {
            Want::Any(among) => drop(self.any.insert(turn, (among, who))),
            Want::Only(at) => drop(self.only[at].insert(turn, who)),
        }
        Some(turn)
    }

    /// Goes away; false if it was not there any more.
    pub(super) fn leave(&mut self, want: Want, turn: Turn) -> bool {
        let was_here = match want {
            Want::Any(_) => self.any.remove(&turn).is_some(),
            Want::Only(at) => self.only[at].remove(&turn).is_some(),
        };
        self.len -= usize::from(was_here);
        was_here
    }

    /// Wants any of other endpoints from now on, and keeps its turn.
    pub(super) fn turn_to(&mut self, turn: Turn, among: Candidates) {
        if let Some((before, _)) = self.any.get_mut(&turn) {
            *before = among;
        }
    }

    /// Takes out whoever is next for a place at `at`.
    pub(super) fn next(&mut self, at: usize) -> Option<T> {
        let next = match (self.first_any(at), self.first_only(at)) {
            (Some(any), only) if only.is_none_or(|only| any < only) => {
                self.any.remove(&any).map(|(_, who)| who)
            }
            (_, Some(only)) => self.only[at].remove(&only),
            (_, None) => None,
        };
        self.len -= usize::from(next.is_some());
        next
    }

    /// Does anybody wait for a place at `at` who would go before a newcomer of this priority?
    pub(super) fn is_wanted(&self, at: usize, priority: Priority) -> bool {
        let first = self.first_any(at).into_iter().chain(self.first_only(at));
        first.min().is_some_and(|turn| turn.priority <= priority)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn first_any(&self, at: usize) -> Option<Turn> {
        let mut wanting = self.any.iter().filter(|(_, (among, _))| among.has(at));
        wanting.next().map(|(turn, _)| *turn)
    }

    fn first_only(&self, at: usize) -> Option<Turn> {
        self.only[at].keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Ordinary, Urgent};
    use super::*;

    fn among(places: &[usize]) -> Want {
        let mut candidates = Candidates::EMPTY;
        places.iter().for_each(|at| candidates.add(*at));
        Want::Any(candidates)
    }

    #[test]
    fn the_first_that_wants_the_endpoint_is_next() {
        let mut line = Line::new(10, 2);
        for (want, who) in [
            (Want::Only(1), 'a'),
            (among(&[0]), 'b'),
            (among(&[0, 1]), 'c'),
            (Want::Only(0), 'd'),
            (Want::Only(1), 'e'),
        ] {
            assert!(line.join(want, Ordinary, who).is_some());
        }
        assert_eq!(line.next(0), Some('b'));
        assert_eq!(line.next(1), Some('a'));
        assert_eq!(line.next(1), Some('c'));
        assert!(line.is_wanted(1, Ordinary) && !line.is_wanted(1, Urgent));
        assert_eq!(line.next(1), Some('e'));
        assert_eq!(line.next(1), None);
        assert_eq!(line.next(0), Some('d'));
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn what_is_urgent_goes_first_wherever_it_may_go() {
        let mut line = Line::new(10, 1);
        line.join(Want::Only(0), Ordinary, 'a');
        line.join(among(&[0]), Ordinary, 'b');
        line.join(among(&[0]), Urgent, 'c');
        line.join(Want::Only(0), Urgent, 'd');
        assert!(line.is_wanted(0, Urgent));
        let order: String = std::iter::from_fn(|| line.next(0)).collect();
        assert_eq!(order, "cdab");
    }

    #[test]
    fn whoever_leaves_makes_room_and_whoever_turns_keeps_its_turn() {
        let mut line = Line::new(2, 2);
        let first = line.join(among(&[0]), Ordinary, 'a').expect("room");
        let second = line.join(Want::Only(1), Ordinary, 'b').expect("room");
        assert!(line.join(among(&[0]), Urgent, 'c').is_none());
        assert!(line.leave(Want::Only(1), second));
        assert!(!line.leave(Want::Only(1), second));
        assert!(line.join(among(&[1]), Ordinary, 'c').is_some());
        let Want::Any(elsewhere) = among(&[1]) else {
            unreachable!()
        };
        line.turn_to(first, elsewhere);
        assert_eq!(line.next(0), None);
        assert_eq!((line.next(1), line.next(1)), (Some('a'), Some('c')));
    }
}
