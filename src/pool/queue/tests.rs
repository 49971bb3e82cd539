use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::task::Wake;
use std::thread;
use std::time::Duration;

use super::super::balance::testing::endpoints;
use super::super::{Balance, NoPlace, PickContext, Pool};
use super::Priority::{Ordinary, Urgent};
use super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn pool(limits: &[u32], max: usize) -> Pool {
    let endpoints = endpoints(&vec![1; limits.len()]);
    for (endpoint, limit) in endpoints.iter().zip(limits) {
        endpoint.places.limit(Some(*limit));
    }
    let pool = Pool::new("p", Balance::LeastLoad, endpoints).expect("names differ");
    pool.with_queue(max)
}

fn pick(pool: &Pool) -> Result<Place, NoPlace> {
    let mut rng = fastrand::Rng::with_seed(1);
    let picked = pool.pick_place(&PickContext::default(), Ordinary, &mut rng);
    picked.map(|(_, place)| place.expect("places are counted"))
}

fn wait(pool: &Pool, priority: Priority) -> Waiting {
    let waiting = pool.wait(&PickContext::default(), priority);
    waiting.expect("there is room").expect("places are counted")
}

fn poll(waiting: &mut Waiting) -> Option<Place> {
    match waiting.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}

#[test]
fn a_place_that_is_given_back_goes_to_whoever_waits_and_wakes_nobody_else() {
    let pool = pool(&[1, 1], 10);
    let mut held = vec![pick(&pool).unwrap(), pick(&pool).unwrap()];
    assert_eq!(pick(&pool).err(), Some(NoPlace::Busy));
    let woken: Vec<Arc<Woken>> = (0..3).map(|_| Arc::default()).collect();
    let mut waiting: Vec<Waiting> = (0..3).map(|_| wait(&pool, Ordinary)).collect();
    for (waiting, woken) in waiting.iter_mut().zip(&woken) {
        let waker = Arc::clone(woken).into();
        assert!(waiting.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held.pop());
    let counts = || woken.iter().map(|woken| woken.0.load(SeqCst));
    assert_eq!(counts().collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(pick(&pool).err(), Some(NoPlace::Busy), "it is not free");
    let place = poll(&mut waiting[0]).expect("its turn");
    assert!(poll(&mut waiting[1]).is_none());
    drop(place);
    assert!(poll(&mut waiting[1]).is_some());
}

#[test]
fn whoever_leaves_gives_up_its_turn_and_a_place_it_did_not_take() {
    let pool = pool(&[1], 2);
    let queue = pool.queue().expect("limited");
    let held = pick(&pool).unwrap();
    let (first, mut second) = (wait(&pool, Ordinary), wait(&pool, Ordinary));
    let full = pool.wait(&PickContext::default(), Urgent);
    assert_eq!(full.err(), Some(NoPlace::Busy));
    drop(held);
    assert_eq!(queue.waiting(), 1, "the first has a place by now");
    drop(first);
    assert_eq!(queue.waiting(), 0);
    drop(poll(&mut second).expect("passed on"));
    assert_eq!(pool.endpoints()[0].places.taken(), 0);
    assert!(pick(&pool).is_ok());
}

#[test]
fn a_newcomer_does_not_pass_those_that_wait_unless_it_is_urgent() {
    let pool = pool(&[1, 1], 10);
    let (a, b) = (pool.endpoints()[0].id(), pool.endpoints()[1].id());
    let held = pool.place_at(a, Ordinary).expect("free");
    let mut waiting = pool.wait_for(a, Ordinary).expect("room").expect("counted");
    assert!(poll(&mut waiting).is_none());
    // Nobody waits for the other endpoint.
    let other = pool.place_at(b, Ordinary).expect("free");
    drop(held);
    assert_eq!(pool.place_at(a, Ordinary).err(), Some(NoPlace::Busy));
    drop((other, poll(&mut waiting).expect("its turn")));
    assert!(pool.place_at(a, Ordinary).is_ok());

    let held = pool.place_at(a, Ordinary).expect("free");
    let mut ordinary = pool.wait_for(a, Ordinary).expect("room").expect("counted");
    let mut urgent = pool.wait_for(a, Urgent).expect("room").expect("counted");
    drop(held);
    assert!(poll(&mut ordinary).is_none());
    drop(poll(&mut urgent).expect("it goes first"));
    assert!(poll(&mut ordinary).is_some());
}

#[test]
fn nobody_gets_a_place_at_an_endpoint_that_is_down_until_it_is_back() {
    let pool = pool(&[1, 1], 10);
    let held = [pick(&pool).unwrap(), pick(&pool).unwrap()];
    let lost = Arc::clone(held[0].endpoint());
    let mut waiting = wait(&pool, Ordinary);
    lost.set_health(HealthState::Down);
    let [at_lost, at_other] = held;
    drop(at_lost);
    assert!(poll(&mut waiting).is_none());
    lost.set_health(HealthState::Up);
    let context = PickContext::default();
    assert_eq!(pool.look_again(&mut waiting, &context), Ok(()));
    let place = poll(&mut waiting).expect("it is back");
    assert_eq!(place.endpoint().id(), lost.id());
    drop(at_other);
    pool.endpoints()
        .iter()
        .for_each(|endpoint| endpoint.set_health(HealthState::Down));
    let gone = pool.look_again(&mut waiting, &context);
    assert_eq!(gone, Err(super::super::NoEndpoint::AllDown));
}

#[test]
fn a_backup_does_not_help_out_where_primaries_are_busy() {
    let pool = pool(&[1, 1], 10);
    pool.endpoints()[1].set_backup(true);
    let place = pick(&pool).unwrap();
    assert_eq!(pick(&pool).err(), Some(NoPlace::Busy));
    place.endpoint().set_health(HealthState::Down);
    assert!(pick(&pool).is_ok());
}

#[test]
fn no_wake_up_is_lost_between_threads() {
    let pool = Arc::new(pool(&[1, 2], 64));
    let in_flight: Arc<[AtomicU32; 2]> = Arc::default();
    let work = |seed| {
        let (pool, in_flight) = (Arc::clone(&pool), Arc::clone(&in_flight));
        move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..2000 {
                let place = one(&pool, &mut rng);
                let at = pool.position(place.endpoint().id()).expect("of the pool");
                let now = in_flight[at].fetch_add(1, SeqCst) + 1;
                assert!(now <= [1, 2][at], "{now} at {at}");
                if rng.bool() {
                    thread::yield_now();
                }
                in_flight[at].fetch_sub(1, SeqCst);
            }
        }
    };
    let threads: Vec<_> = (0..8).map(|seed| thread::spawn(work(seed))).collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("no place was lost"));
    pool.queue().expect("limited").check_invariants();
    assert!(
        pool.endpoints()
            .iter()
            .all(|endpoint| endpoint.places.taken() == 0)
    );
}

/// A place, waited for in this thread; gives up its turn now and then and begins anew.
fn one(pool: &Pool, rng: &mut fastrand::Rng) -> Place {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        let only = pool.endpoints()[rng.usize(..2)].id();
        let any = rng.bool();
        let taken = match any {
            true => pick(pool).ok(),
            false => pool.place_at(only, Ordinary).ok().flatten(),
        };
        if let Some(place) = taken {
            return place;
        }
        let mut waiting = match any {
            true => wait(pool, Ordinary),
            false => pool
                .wait_for(only, Ordinary)
                .expect("room")
                .expect("counted"),
        };
        if rng.u8(..8) == 0 {
            continue;
        }
        loop {
            if let Poll::Ready(place) = waiting.poll(&mut context) {
                return place;
            }
            let before = std::time::Instant::now();
            thread::park_timeout(Duration::from_secs(20));
            assert!(
                before.elapsed() < Duration::from_secs(20),
                "a wake-up was lost"
            );
        }
    }
}
