use std::collections::HashSet;

use super::*;

fn id(number: u64) -> Purpose {
    Purpose::Answer(RawId::number(number))
}

#[test]
fn ids_are_random_uuids_that_never_repeat() {
    let (mut one, mut two) = (Sessions::new(500), Sessions::new(500));
    let now = Instant::now();
    let ids: HashSet<_> = (0..500)
        .flat_map(|_| [one.begin(now), two.begin(now)])
        .flatten()
        .collect();
    assert_eq!(ids.len(), 1000);
    for id in &ids {
        let parts: Vec<_> = id.as_str().split('-').collect();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id:?}");
        assert!(parts.concat().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']));
    }
}

#[test]
fn the_session_idle_longest_makes_room() {
    let mut sessions = Sessions::new(3);
    let now = Instant::now();
    let ids: Vec<_> = (0..3).filter_map(|_| sessions.begin(now)).collect();
    assert!(sessions.touch(ids[0].as_str(), now).is_some());
    assert!(sessions.begin(now).is_some());
    assert!(sessions.touch(ids[1].as_str(), now).is_none());
    assert!(sessions.touch(ids[0].as_str(), now).is_some());
    assert_eq!(sessions.len(), 3);
}

#[test]
fn a_session_with_a_stream_is_neither_evicted_nor_expired() {
    let mut sessions = Sessions::new(2);
    let now = Instant::now();
    let (busy, idle) = (
        sessions.begin(now).expect("room"),
        sessions.begin(now).expect("room"),
    );
    let lease = sessions
        .open_stream(busy.as_str(), Purpose::Standalone, now)
        .expect("open");
    let third = sessions.begin(now).expect("room");
    assert!(sessions.touch(idle.as_str(), now).is_none());
    let other = sessions
        .open_stream(third.as_str(), id(1), now)
        .expect("open");
    assert_eq!(sessions.begin(now), None);
    let later = now + 2 * SESSION_IDLE_TTL;
    sessions.close_stream(&other.session, other.number, later);
    assert!(sessions.begin(later).is_some());
    assert!(sessions.touch(busy.as_str(), later).is_some());
    // The hour begins when the last stream is over.
    sessions.close_stream(&busy, lease.number, later);
    let almost = later + SESSION_IDLE_TTL - Duration::from_millis(1);
    assert!(sessions.touch(busy.as_str(), almost).is_some());
    assert!(
        sessions
            .touch(busy.as_str(), almost + SESSION_IDLE_TTL)
            .is_none()
    );
}

#[test]
fn a_lease_that_outlives_its_session_does_no_harm() {
    let mut sessions = Sessions::new(2);
    let now = Instant::now();
    let session = sessions.begin(now).expect("room");
    let mut lease = sessions
        .open_stream(session.as_str(), id(1), now)
        .expect("open");
    assert!(sessions.end(session.as_str(), now));
    assert!(lease.stop.try_recv().is_err());
    sessions.close_stream(&session, lease.number, now);
    assert_eq!(sessions.len(), 0);
    let unknown = sessions.open_stream(session.as_str(), id(1), now);
    assert_eq!(unknown.map(|_| ()), Err(StreamRefused::UnknownSession));
}

#[test]
fn random_histories_keep_the_invariants() {
    for seed in 0..64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sessions = Sessions::new(5);
        let mut now = Instant::now();
        let (mut known, mut leases) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            now += Duration::from_secs(random.u64(0..600));
            let one: Option<SessionId> = random.choice(&known).cloned();
            match (random.u8(0..8), one) {
                (0 | 1, _) => known.extend(sessions.begin(now)),
                (2, Some(one)) => drop(sessions.end(one.as_str(), now)),
                (3 | 4, Some(one)) => leases.extend(sessions.open_stream(one.as_str(), id(1), now)),
                (5, Some(one)) => sessions.cancel(one.as_str(), &RawId::number(1)),
                (6, _) if !leases.is_empty() => {
                    let lease: Lease = leases.swap_remove(random.usize(..leases.len()));
                    sessions.close_stream(&lease.session, lease.number, now);
                }
                (_, Some(one)) => drop(sessions.touch(one.as_str(), now)),
                (_, None) => {}
            }
            let idle: HashSet<_> = sessions.idle.values().collect();
            let without: HashSet<_> = sessions
                .by_id
                .iter()
                .filter(|(_, session)| session.streams.is_empty())
                .map(|(id, _)| id)
                .collect();
            assert_eq!(idle, without, "seed {seed}");
            assert!(sessions.len() <= 5, "seed {seed}");
        }
    }
}
