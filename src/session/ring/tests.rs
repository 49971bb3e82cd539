use super::*;

const NOTHING: fn() -> bool = || false;

fn ring(events: usize, bytes: usize, budget: &Arc<Budget>) -> Ring {
    Ring::new(RingBounds { events, bytes }, Arc::clone(budget))
}

fn push(ring: &mut Ring, event: &str) -> bool {
    let (one, two) = event.as_bytes().split_at(event.len() / 2);
    let all = ring.collect(one, &mut NOTHING.clone()) & ring.collect(two, &mut NOTHING.clone());
    ring.complete(&mut NOTHING.clone()) & all
}

fn missed(ring: &Ring, number: u64) -> Option<(bool, String)> {
    let missed = ring.after(number)?;
    Some((
        missed.gap,
        String::from_utf8(missed.events.concat()).unwrap(),
    ))
}

fn text(gap: bool, events: &str) -> Option<(bool, String)> {
    Some((gap, events.to_owned()))
}

#[test]
fn what_came_after_an_event_is_had_again() {
    let mut ring = ring(10, 100, &Budget::new(10_000));
    for event in ["a", "b", "c"] {
        assert!(push(&mut ring, event));
    }
    assert_eq!(missed(&ring, 0), text(false, "abc"));
    assert_eq!(missed(&ring, 1), text(false, "bc"));
    assert_eq!(missed(&ring, 3), text(false, ""));
    assert_eq!(missed(&ring, 4), None, "it never was");
    assert_eq!(missed(&ring, u64::MAX), None);
    assert!(ring.collect(b"begun", &mut NOTHING.clone()));
    assert_eq!(ring.open(), Some(&b"begun"[..]));
    assert_eq!(missed(&ring, 3), text(false, ""), "it is not complete");
    ring.drop_open();
    assert_eq!((ring.open(), ring.next()), (Some(&b""[..]), 4));
}

#[test]
fn the_oldest_events_go_at_the_bounds_and_are_known_to_be_missing() {
    let budget = Budget::new(10_000);
    let mut by_count = ring(2, 100, &budget);
    let mut by_bytes = ring(10, 8, &budget);
    for event in ["aaaa", "bbbb", "cccc"] {
        assert!(push(&mut by_count, event) && push(&mut by_bytes, event));
    }
    for ring in [&by_count, &by_bytes] {
        assert_eq!(missed(ring, 0), text(true, "bbbbcccc"));
        assert_eq!(missed(ring, 1), text(false, "bbbbcccc"));
    }
    assert_eq!(budget.used(), 4 * (4 + EVENT_COST));
    drop((by_count, by_bytes));
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_event_that_is_too_large_takes_those_before_it_along() {
    let budget = Budget::new(10_000);
    let mut ring = ring(10, 8, &budget);
    assert!(push(&mut ring, "a"));
    assert!(!push(&mut ring, "far too long"));
    assert_eq!(missed(&ring, 1), text(true, ""));
    assert_eq!(
        missed(&ring, 2),
        text(false, ""),
        "whoever has it misses nothing"
    );
    assert!(push(&mut ring, "c"));
    assert_eq!(missed(&ring, 1), text(true, "c"));
    assert_eq!(missed(&ring, 2), text(false, "c"));
    // In its middle it cannot be had from the beginning.
    ring.collect(b"123456789", &mut NOTHING.clone());
    assert_eq!(ring.open(), None);
    ring.drop_open();
    assert!(push(&mut ring, "d"));
}

#[test]
fn the_budget_is_for_all_rings_and_others_make_room_first() {
    let budget = Budget::new(2 * (EVENT_COST + 10));
    let mut old = Some(ring(10, 100, &budget));
    let mut new = ring(10, 100, &budget);
    assert!(push(old.as_mut().unwrap(), "0123456789"));
    assert!(push(&mut new, "aaaaaaaaaa"));
    let mut more = || old.take().is_some();
    assert!(new.collect(b"bbbbbbbbbb", &mut more));
    assert!(new.complete(&mut more));
    assert!(old.is_none());
    assert_eq!(missed(&new, 0), text(false, "aaaaaaaaaabbbbbbbbbb"));
    assert!(push(&mut new, "cccccccccc"), "its own oldest goes");
    assert_eq!(missed(&new, 0), text(true, "bbbbbbbbbbcccccccccc"));
    let share = budget.share(1);
    assert!(share.is_none(), "it is full");
    drop(new);
    assert!(budget.share(2 * (EVENT_COST + 10)).is_some());
    assert_eq!(budget.used(), 0, "a share is given back");
}
