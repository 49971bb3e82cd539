//! One coarse wheel per thread for everything that waits on a connection.
//!
//! A proxy sets time limits for each request and hardly any of them is ever reached. So setting one
//! has to be next to free, and being late by a tenth of a second matters to nobody: an [`Alarm`] has
//! a place in the wheel and keeps it when its time is moved back, which is what every new request
//! does. When the place comes up, the alarm is filed anew under its real time.
//!
//! The wheel also wakes everybody when the process changes its mind, as a drain does; so nothing
//! that waits needs a subscription of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How fine the wheel is. An alarm comes up to two of these late and never early.
pub const TICK: Duration = Duration::from_millis(50);
/// Places in the wheel; an alarm further away than 51 s comes by more than once.
const SLOTS: usize = 1024;
/// No place, no time.
const NONE: u32 = u32::MAX;
const NEVER: u64 = u64::MAX;

/// Whole ticks in a time, and whether another has begun.
fn ticks(time: Duration) -> (u64, bool) {
    const NANOS: u32 = TICK.subsec_nanos();
    const PER_SECOND: u64 = 1_000_000_000 / NANOS as u64;
    let whole = time.as_secs().saturating_mul(PER_SECOND);
    let part = time.subsec_nanos();
    (
        whole.saturating_add(u64::from(part / NANOS)),
        !part.is_multiple_of(NANOS),
    )
}

/// The wheel of one thread. Its lock is never contended: only that thread takes it.
#[derive(Debug)]
pub struct Wheel {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The tick that was last looked at.
    now: u64,
    /// Heads of doubly linked lists through `entries`.
    slots: Box<[u32]>,
    entries: Vec<Entry>,
    free: u32,
}

#[derive(Debug)]
struct Entry {
    /// When the alarm is due, in ticks.
    due: u64,
    /// The tick under which it is filed, at or before `due`; [`NEVER`] if it is in no slot.
    filed: u64,
    next: u32,
    previous: u32,
    waker: Option<Waker>,
}

/// One time limit, moved as often as its owner likes. Clones are the same alarm.
#[derive(Debug, Clone)]
pub struct Alarm(Arc<Place>);

#[derive(Debug)]
struct Place {
    wheel: Arc<Wheel>,
    key: u32,
}

impl Wheel {
    /// A wheel that stands at `now`.
    pub fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            started: now,
            state: Mutex::new(State {
                now: 0,
                slots: vec![NONE; SLOTS].into_boxed_slice(),
                entries: Vec::new(),
                free: NONE,
            }),
        })
    }

    /// An alarm that is off.
    pub fn alarm(self: &Arc<Self>) -> Alarm {
        let key = self.lock().insert();
        Alarm(Arc::new(Place {
            wheel: Arc::clone(self),
            key,
        }))
    }

    /// Brings the wheel to `now` and wakes whoever is due. To be called every [`TICK`].
    pub fn turn(&self, now: Instant) {
        let (target, _) = ticks(now.saturating_duration_since(self.started));
        let mut state = self.lock();
        // Once around is enough, however long nobody turned the wheel.
        let first = (state.now + 1).max(target.saturating_sub(SLOTS as u64 - 1));
        state.now = state.now.max(target);
        for tick in first..=target {
            state.come_up(tick);
        }
    }

    /// Wakes every task that waits on an alarm.
    pub fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .lock()
            .entries
            .iter_mut()
            .filter_map(|entry| entry.waker.take())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Alarms there are.
    pub fn len(&self) -> usize {
        let state = self.lock();
        let mut free = 0;
        let mut at = state.free;
        while at != NONE {
            free += 1;
            at = state.entries[at as usize].next;
        }
        state.entries.len() - free
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock but clones of wakers, which do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self) -> u32 {
        let entry = Entry {
            due: NEVER,
            filed: NEVER,
            next: NONE,
            previous: NONE,
            waker: None,
        };
        if self.free != NONE {
            let key = self.free;
            self.free = self.entries[key as usize].next;
            self.entries[key as usize] = entry;
            return key;
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).expect("a process has fewer connections than 2^32")
    }

    fn set(&mut self, key: u32, due: u64) {
        let entry = &mut self.entries[key as usize];
        entry.due = due;
        // Filed earlier it will come by and see; only one that must ring sooner moves.
        if due < entry.filed {
            self.unfile(key);
            self.file(key, due);
        }
    }

    fn file(&mut self, key: u32, due: u64) {
        // Nearer than the next tick there is nothing, and further than once around neither.
        let tick = due.clamp(self.now + 1, self.now + SLOTS as u64 - 1);
        let slot = tick as usize % SLOTS;
        let head = std::mem::replace(&mut self.slots[slot], key);
        if head != NONE {
            self.entries[head as usize].previous = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.filed = tick;
        entry.next = head;
        entry.previous = NONE;
    }

    fn unfile(&mut self, key: u32) {
        let Entry {
            filed,
            next,
            previous,
            ..
        } = self.entries[key as usize];
        if filed == NEVER {
            return;
        }
        match previous {
            NONE => self.slots[filed as usize % SLOTS] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.entries[key as usize].filed = NEVER;
    }

    fn come_up(&mut self, tick: u64) {
        let mut at = self.slots[tick as usize % SLOTS];
        while at != NONE {
            let key = at;
            at = self.entries[key as usize].next;
            if self.entries[key as usize].filed > tick {
                continue; // Filed into this slot for its next turn, during this one.
            }
            self.unfile(key);
            let entry = &mut self.entries[key as usize];
            if entry.due > self.now {
                let due = entry.due;
                if due != NEVER {
                    self.file(key, due);
                }
            } else if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    fn remove(&mut self, key: u32) -> Option<Waker> {
        self.unfile(key);
        let free = std::mem::replace(&mut self.free, key);
        let entry = &mut self.entries[key as usize];
        entry.next = free;
        entry.waker.take()
    }
}

impl Alarm {
    /// Due once `time` has passed.
    pub fn after(&self, time: Duration) {
        let (whole, begun) = ticks(time);
        let ticks = whole.saturating_add(u64::from(begun));
        let mut state = self.0.wheel.lock();
        // The present tick has begun some time ago, so one more is needed not to be early.
        let due = state.now.saturating_add(ticks).saturating_add(1);
        state.set(self.0.key, due);
    }

    /// Due at `time`.
    pub fn at(&self, time: Instant) {
        let since = time.saturating_duration_since(self.0.wheel.started);
        let (whole, begun) = ticks(since);
        let mut state = self.0.wheel.lock();
        state.set(self.0.key, whole.saturating_add(u64::from(begun)));
    }

    /// Never due.
    pub fn off(&self) {
        self.0.wheel.lock().set(self.0.key, NEVER);
    }

    /// Ready once the alarm is due. Until then the task is woken when it is, and now and then for
    /// nothing.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.wheel.lock();
        let now = state.now;
        let entry = &mut state.entries[self.0.key as usize];
        if entry.due <= now {
            return Poll::Ready(());
        }
        if !entry
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            let old = entry.waker.replace(context.waker().clone());
            // What a waker belongs to may own an alarm of this wheel.
            drop(state);
            drop(old);
        }
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waker = self.wheel.lock().remove(self.key);
        drop(waker); // Without the lock, as in `poll`.
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll(alarm: &Alarm, count: &Arc<Count>) -> bool {
        let waker = Waker::from(Arc::clone(count));
        alarm.poll(&Context::from_waker(&waker)).is_ready()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_alarm_is_never_early_and_at_most_two_ticks_late() {
        let start = Instant::now();
        for millis in [0, 1, 49, 50, 51, 999, 51_150, 51_200, 51_250, 200_000] {
            let wheel = Wheel::new(start);
            let alarm = wheel.alarm();
            let count = Arc::new(Count::default());
            let time = Duration::from_millis(millis);
            alarm.after(time);
            assert!(!poll(&alarm, &count));
            let mut now = start;
            while !poll(&alarm, &count) {
                now += Duration::from_millis(10);
                wheel.turn(now);
                assert!(now <= start + time + 2 * TICK, "{millis} ms is late");
            }
            assert!(now >= start + time, "{millis} ms is early");
            assert_eq!(count.get(), 1, "{millis} ms woke once");
        }
    }

    #[test]
    fn an_alarm_that_is_moved_back_rings_once_at_its_last_time() {
        let start = Instant::now();
        let wheel = Wheel::new(start);
        let alarm = wheel.alarm();
        let count = Arc::new(Count::default());
        for second in 0..100 {
            wheel.turn(start + second * SECOND);
            alarm.after(10 * SECOND);
            assert!(!poll(&alarm, &count));
        }
        assert_eq!(count.get(), 0);
        wheel.turn(start + 110 * SECOND);
        assert!(poll(&alarm, &count));
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn an_alarm_that_is_moved_forward_rings_early_enough() {
        let start = Instant::now();
        let wheel = Wheel::new(start);
        let alarm = wheel.alarm();
        let count = Arc::new(Count::default());
        alarm.after(40 * SECOND);
        alarm.at(start + SECOND);
        assert!(!poll(&alarm, &count));
        wheel.turn(start + SECOND);
        assert!(poll(&alarm, &count));
    }

    #[test]
    fn one_that_is_off_or_dropped_does_not_ring() {
        let start = Instant::now();
        let wheel = Wheel::new(start);
        let (off, dropped) = (wheel.alarm(), wheel.alarm());
        let count = Arc::new(Count::default());
        for alarm in [&off, &dropped] {
            alarm.after(SECOND);
            assert!(!poll(alarm, &count));
        }
        off.off();
        drop(dropped);
        assert_eq!(wheel.len(), 1);
        wheel.turn(start + 2 * SECOND);
        assert!(!poll(&off, &count));
        assert_eq!(count.get(), 0);
        wheel.wake_all();
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn random_histories_ring_as_a_plain_list_would() {
        for seed in 0..64 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let start = Instant::now();
            let wheel = Wheel::new(start);
            let count = Arc::new(Count::default());
            let mut alarms: Vec<(Alarm, Option<Instant>)> = Vec::new();
            let mut now = start;
            for _ in 0..500 {
                match rng.u8(0..5) {
                    0 => alarms.push((wheel.alarm(), None)),
                    1 if !alarms.is_empty() => {
                        alarms.swap_remove(rng.usize(..alarms.len()));
                    }
                    2 | 3 if !alarms.is_empty() => {
                        let at = rng.usize(..alarms.len());
                        let due = now + Duration::from_millis(rng.u64(0..120_000));
                        alarms[at].0.at(due);
                        alarms[at].1 = Some(due);
                    }
                    _ => {
                        now += Duration::from_millis(rng.u64(0..30_000));
                        wheel.turn(now);
                    }
                }
                for (alarm, due) in &alarms {
                    let is_due = poll(alarm, &count);
                    let late = due.is_some_and(|due| now >= due + 2 * TICK);
                    let early = due.is_none_or(|due| now < due);
                    assert!(!(is_due && early), "early, seed {seed}");
                    assert!(is_due || !late, "late, seed {seed}");
                }
            }
            assert_eq!(wheel.len(), alarms.len());
        }
    }
}
