//! The queue for places against a plain list of who waits, while endpoints go down and come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use fastrand::Rng;
use tidegate::pool::{
    Balance, Endpoint, HealthState, NoPlace, PickContext, Place, Pool, Priority, Waiting,
};

use crate::{endpoint, for_each_seed, one_of};

const QUEUE_MAX: usize = 12;
const BALANCES: [Balance; 3] = [
    Balance::LeastLoad,
    Balance::RoundRobin,
    Balance::ConsistentHash,
];

/// Whether a call was told to look.
#[derive(Default)]
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// One that waits, in the order of arrival.
struct Waiter {
    waiting: Waiting,
    told: Arc<Told>,
    /// The endpoint it waits for, or any.
    only: Option<u64>,
    priority: Priority,
}

struct World {
    pool: Pool,
    limits: HashMap<u64, u32>,
    held: Vec<Place>,
    waiters: Vec<Waiter>,
}

#[test]
fn queue_gives_every_place_to_the_first_that_wants_it() {
    for_each_seed(
        "queue_gives_every_place_to_the_first_that_wants_it",
        |rng| {
            let mut world = World::new(rng);
            for _ in 0..400 {
                match rng.u8(..10) {
                    0..=3 => world.arrive(rng),
                    4..=6 => world.finish(rng),
                    7 => world.leave(rng),
                    8 => world.disturb(rng),
                    _ => world.look_again(),
                }
                world.take_up(rng);
                world.check();
            }
            world.empty();
        },
    );
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let endpoints: Vec<Arc<Endpoint>> = (0..rng.usize(1..5))
            .map(|n| endpoint(&format!("w{n}"), rng.u32(1..4)))
            .collect();
        let limits: HashMap<u64, u32> = endpoints
            .iter()
            .map(|endpoint| (endpoint.id(), rng.u32(1..4)))
            .collect();
        for endpoint in &endpoints {
            endpoint.places.limit(Some(limits[&endpoint.id()]));
        }
        let pool = Pool::new("p", one_of(rng, &BALANCES), endpoints).expect("names differ");
        Self {
            pool: pool.with_queue(QUEUE_MAX),
            limits,
            held: Vec::new(),
            waiters: Vec::new(),
        }
    }

    fn any_endpoint(&self, rng: &mut Rng) -> Arc<Endpoint> {
        let endpoints = self.pool.endpoints();
        Arc::clone(&endpoints[rng.usize(..endpoints.len())])
    }

    /// Would `waiter` take a place at this endpoint?
    fn wants(waiter: &Waiter, endpoint: &Endpoint) -> bool {
        match waiter.only {
            Some(only) => only == endpoint.id(),
            None => Self::is_up(endpoint),
        }
    }

    fn is_up(endpoint: &Endpoint) -> bool {
        endpoint.health() == HealthState::Up
    }

    /// A call comes: it goes at once exactly if there is a place that nobody before it wants.
    fn arrive(&mut self, rng: &mut Rng) {
        let priority = one_of(
            rng,
            &[Priority::Urgent, Priority::Ordinary, Priority::Ordinary],
        );
        let only = rng.bool().then(|| self.any_endpoint(rng));
        let free = |endpoint: &Arc<Endpoint>| {
            let taken = self
                .held
                .iter()
                .filter(|held| held.endpoint().id() == endpoint.id());
            let ahead =
                |waiter: &&Waiter| waiter.priority <= priority && Self::wants(waiter, endpoint);
            (taken.count() as u32) < self.limits[&endpoint.id()]
                && !self.waiters.iter().any(|waiter| ahead(&waiter))
        };
        let context = PickContext::default();
        let placed = match &only {
            Some(endpoint) => {
                let placed = self.pool.place_at(endpoint.id(), priority);
                assert_eq!(placed.is_ok(), free(endpoint), "at {}", endpoint.name());
                placed.map(|place| place.expect("places are counted"))
            }
            None => {
                let up = self
                    .pool
                    .endpoints()
                    .iter()
                    .filter(|endpoint| Self::is_up(endpoint));
                let any = up.into_iter().any(free);
                let placed = self.pool.pick_place(&context, priority, rng);
                assert_eq!(placed.is_ok(), any, "anywhere");
                placed.map(|(_, place)| place.expect("places are counted"))
            }
        };
        match placed {
            Ok(place) => return self.held.push(place),
            Err(NoPlace::NoEndpoint(_)) => return,
            Err(NoPlace::Busy) => {}
        }
        let waiting = match &only {
            Some(endpoint) => self.pool.wait_for(endpoint.id(), priority),
            None => self.pool.wait(&context, priority),
        };
        let full = self.waiters.len() >= QUEUE_MAX;
        assert_eq!(waiting.is_err(), full, "{} wait", self.waiters.len());
        if let Ok(waiting) = waiting {
            let mut waiter = Waiter {
                waiting: waiting.expect("places are counted"),
                told: Arc::default(),
                only: only.map(|endpoint| endpoint.id()),
                priority,
            };
            // The first poll, as a task does it.
            match poll(&mut waiter) {
                Some(place) => self.held.push(place),
                None => self.waiters.push(waiter),
            }
        }
    }

    fn finish(&mut self, rng: &mut Rng) {
        if self.held.is_empty() {
            return;
        }
        let place = self.held.swap_remove(rng.usize(..self.held.len()));
        let endpoint = Arc::clone(place.endpoint());
        let up = endpoint.health() != HealthState::Down;
        let wanting = self.waiters.iter().enumerate();
        let wanting = wanting.filter(|(_, waiter)| up && Self::wants(waiter, &endpoint));
        let next = wanting.min_by_key(|(at, waiter)| (waiter.priority, *at));
        let next = next.map(|(at, _)| at);
        drop(place);
        for (at, waiter) in self.waiters.iter().enumerate() {
            let told = waiter.told.0.load(SeqCst);
            assert_eq!(told, Some(at) == next, "{at} was told, next was {next:?}");
        }
    }

    fn leave(&mut self, rng: &mut Rng) {
        if !self.waiters.is_empty() {
            drop(self.waiters.remove(rng.usize(..self.waiters.len())));
        }
    }

    fn disturb(&mut self, rng: &mut Rng) {
        let endpoint = self.any_endpoint(rng);
        endpoint.set_health(match Self::is_up(&endpoint) {
            true => HealthState::Down,
            false => HealthState::Up,
        });
        self.look_again();
    }

    /// What every call that waits does a few times a second.
    fn look_again(&mut self) {
        let context = PickContext::default();
        let mut gone = Vec::new();
        for (at, waiter) in self.waiters.iter_mut().enumerate() {
            match waiter.only {
                Some(_) => waiter.waiting.look_again(),
                None => {
                    let looked = self.pool.look_again(&mut waiter.waiting, &context);
                    gone.extend(looked.is_err().then_some(at));
                }
            }
        }
        for at in gone.into_iter().rev() {
            drop(self.waiters.remove(at));
        }
    }

    /// Those that were told take what is left for them.
    fn take_up(&mut self, rng: &mut Rng) {
        while let Some(at) = self.waiters.iter().position(|w| w.told.0.load(SeqCst)) {
            let mut waiter = self.waiters.remove(at);
            if rng.u8(..8) == 0 {
                // Its client left at this very moment. The next is told.
                continue;
            }
            let place = poll(&mut waiter).expect("nobody is told in vain");
            assert!(Self::wants(&waiter, place.endpoint()));
            self.held.push(place);
        }
    }

    fn check(&self) {
        let queue = self.pool.queue().expect("limited");
        assert_eq!(queue.waiting(), self.waiters.len());
        for endpoint in self.pool.endpoints() {
            let held = self.held.iter();
            let held = held.filter(|held| held.endpoint().id() == endpoint.id());
            let held = held.count() as u32;
            assert!(held <= self.limits[&endpoint.id()], "{}", endpoint.name());
            assert_eq!(endpoint.places.taken(), held, "{}", endpoint.name());
            let idle = held < self.limits[&endpoint.id()] && Self::is_up(endpoint);
            let wanted = self
                .waiters
                .iter()
                .any(|waiter| waiter.only == Some(endpoint.id()));
            assert!(
                !(idle && wanted),
                "a place at {} lies idle",
                endpoint.name()
            );
        }
        queue.check_invariants();
    }

    fn empty(mut self) {
        self.waiters.clear();
        self.held.clear();
        let taken = self.pool.endpoints().iter().map(|e| e.places.taken());
        assert_eq!(taken.sum::<u32>(), 0, "a place has leaked");
    }
}

fn poll(waiter: &mut Waiter) -> Option<Place> {
    let waker: Waker = Arc::clone(&waiter.told).into();
    match waiter.waiting.poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}
