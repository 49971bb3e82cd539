//! A table of small sets, each a cache line.

use std::mem;
use std::sync::Arc;

/// Places of a set.
const WAYS: usize = 4;
/// Sets that a table begins with.
const SETS_MIN: usize = 8;

/// The latest first, if nothing was forgotten in between.
#[repr(align(64))]
struct Set<T>([Option<(u64, Arc<T>)>; WAYS]);

const _: () = assert!(size_of::<Set<u8>>() == 64);

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self([const { None }; WAYS])
    }
}

/// What has a mark, a number as good as random, is in one of the places of its set; what has been there
/// for the longest goes when another needs its place. The table grows with what it holds.
pub(super) struct Sets<T> {
    /// None, or a power of two.
    all: Vec<Set<T>>,
    /// Places that are taken.
    filled: usize,
    /// Where the next sweep begins.
    next: usize,
    /// Sets that there may be, a power of two.
    max: usize,
}

impl<T> Sets<T> {
    /// An empty table that grows to `max` sets, a power of two.
    pub(super) const fn new(max: usize) -> Self {
        Self {
            all: Vec::new(),
            filled: 0,
            next: 0,
            max,
        }
    }

    /// What has this mark, if it is the one that is looked for.
    pub(super) fn find(&self, mark: u64, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let set = self.all.get(self.at(mark))?;
        let (_, found) = set.0.iter().flatten().find(|(at, _)| *at == mark)?;
        is_it(found).then(|| Arc::clone(found))
    }

    /// Puts it in. Returns what it takes the place of: what had the same mark, or something else.
    pub(super) fn keep(&mut self, mark: u64, new: Arc<T>) -> Option<Arc<T>> {
        // From here on, sets that have more than they can hold would be many.
        if self.filled * 8 >= self.all.len() * WAYS * 5 && self.all.len() < self.max {
            self.grow();
        }
        let at = self.at(mark);
        let set = &mut self.all[at].0;
        let same = |place: &Option<(u64, _)>| matches!(place, Some((at, _)) if *at == mark);
        let end = set.iter().position(same);
        let end = end.or_else(|| set.iter().position(Option::is_none));
        set[..=end.unwrap_or(WAYS - 1)].rotate_right(1);
        let old = set[0].replace((mark, new));
        self.filled += usize::from(old.is_none());
        old.map(|(_, old)| old)
    }

    /// Takes it out again, if it is there.
    pub(super) fn forget(&mut self, mark: u64, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let at = self.at(mark);
        let set = &mut self.all.get_mut(at)?.0;
        let same = |place: &&mut Option<(u64, Arc<T>)>| matches!(place, Some((at, one)) if *at == mark && is_it(one));
        let (_, old) = set.iter_mut().find(same)?.take()?;
        self.filled -= 1;
        Some(old)
    }

    fn grow(&mut self) {
        let len = (self.all.len() * 2).max(SETS_MIN);
        let mut all = Vec::with_capacity(len);
        all.resize_with(len, Set::default);
        (self.filled, self.next) = (0, 0);
        let sets = mem::replace(&mut self.all, all).into_iter();
        // The oldest first, so that the order stays.
        let places = sets.flat_map(|set| set.0.into_iter().rev().flatten());
        for (mark, one) in places {
            self.keep(mark, one);
        }
    }

    /// Forgets what is over in one of `parts` of the sets: as many calls have looked at all.
    pub(super) fn sweep(&mut self, parts: usize, is_over: impl Fn(&T) -> bool) {
        let len = self.all.len();
        let from = self.next.min(len);
        let end = (from + len.div_ceil(parts)).min(len);
        self.next = if end == len { 0 } else { end };
        for place in self.all[from..end].iter_mut().flat_map(|set| &mut set.0) {
            if place.as_ref().is_some_and(|(_, one)| is_over(one)) {
                *place = None;
                self.filled -= 1;
            }
        }
        if self.filled == 0 {
            self.all = Vec::new();
        }
    }

    /// The middle of a mark: its ends serve whoever divides the marks among tables.
    fn at(&self, mark: u64) -> usize {
        (mark >> 32) as usize & self.all.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(count: usize) -> Vec<u64> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..count).map(|_| rng.u64(..)).collect()
    }

    fn filled(max: usize, count: usize) -> (Sets<u64>, Vec<u64>) {
        let (mut sets, marks) = (Sets::new(max), marks(count));
        for mark in &marks {
            drop(sets.keep(*mark, Arc::new(*mark)));
        }
        (sets, marks)
    }

    fn held(sets: &Sets<u64>, marks: &[u64]) -> usize {
        let is_held = |mark: &&u64| sets.find(**mark, |found| found == *mark).is_some();
        marks.iter().filter(is_held).count()
    }

    #[test]
    fn most_is_found_in_up_to_four_times_as_many_places() {
        for count in [1, 10, 100, 2000, 9500, 10_000] {
            let (sets, marks) = filled(8192, count);
            let held = held(&sets, &marks);
            assert!(held * 100 >= count * 80, "{held} of {count}");
            assert!(
                sets.all.len() * WAYS <= (count * 4).max(SETS_MIN * WAYS),
                "room for {count}"
            );
        }
    }

    #[test]
    fn beyond_its_bound_the_oldest_goes() {
        let (mut sets, marks) = filled(64, 10_000);
        assert_eq!(sets.all.len(), 64);
        assert_eq!(sets.filled, 64 * WAYS);
        // Each of the sets has the last four that came to it.
        let set = |mark: &u64| (mark >> 32) & 63;
        let mut same = marks.iter().rev().filter(|mark| set(mark) == 5);
        let kept: Vec<u64> = same.by_ref().take(WAYS).copied().collect();
        assert_eq!(held(&sets, &kept), WAYS);
        assert!(sets.find(*same.next().unwrap(), |_| true).is_none());
        // One that comes again is the newest, and nothing goes for it.
        let again = kept[WAYS - 1];
        assert_eq!(sets.keep(again, Arc::new(again)).as_deref(), Some(&again));
        let other = marks
            .iter()
            .find(|mark| set(mark) == 5 && !kept.contains(mark))
            .unwrap();
        let gone = sets.keep(*other, Arc::new(*other));
        assert_eq!(gone.as_deref(), Some(&kept[WAYS - 2]));
    }

    #[test]
    fn the_mark_alone_finds_nothing() {
        let (sets, marks) = filled(64, 10);
        assert!(sets.find(marks[0], |_| false).is_none());
        assert!(Sets::<u64>::new(8).find(marks[0], |_| true).is_none());
    }

    #[test]
    fn what_is_over_is_forgotten_in_parts_and_the_last_takes_the_room_along() {
        let (mut sets, marks) = filled(1024, 1000);
        let is_over = |mark: &u64| mark.is_multiple_of(2);
        for _ in 0..16 {
            sets.sweep(16, is_over);
        }
        let over = marks.iter().filter(|mark| is_over(mark)).count();
        assert_eq!(sets.filled, held(&sets, &marks));
        assert!(sets.filled > (marks.len() - over) * 8 / 10);
        assert!(
            marks
                .iter()
                .all(|mark| !is_over(mark) || sets.find(*mark, |_| true).is_none())
        );
        // Holes are filled before anything has to go.
        let (before, mark) = (sets.filled, marks[0] | 1);
        assert!(
            sets.keep(mark, Arc::new(mark))
                .is_none_or(|old| *old == mark)
        );
        assert!(sets.filled >= before);
        sets.sweep(1, |_| true);
        assert_eq!((sets.filled, sets.all.len()), (0, 0));
        assert!(sets.keep(mark, Arc::new(mark)).is_none());
    }

    #[test]
    fn nothing_is_lost_or_held_twice_over_seeds() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut sets = Sets::new(16);
            for _ in 0..500 {
                // Few marks, so that many come again.
                let mark = rng.u64(..100).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                match rng.u8(..8) {
                    1 => {
                        let was = sets.find(mark, |_| true);
                        assert_eq!(sets.forget(mark, |_| true), was);
                        assert!(sets.forget(mark, |_| true).is_none());
                    }
                    0 => sets.sweep(rng.usize(1..5), |one: &u64| one.is_multiple_of(3)),
                    _ => drop(sets.keep(mark, Arc::new(mark))),
                }
                let places = sets.all.iter().flat_map(|set| set.0.iter().flatten());
                let mut there: Vec<u64> = places.map(|(mark, _)| *mark).collect();
                assert_eq!(there.len(), sets.filled);
                there.sort_unstable();
                there.dedup();
                assert_eq!(there.len(), sets.filled);
            }
        }
    }
}
