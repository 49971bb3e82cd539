//! Clients that break at random points and come back: each event arrives once and in order, unless
//! the ring says that some are missing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use tidegate::session::{Budget, Ring, RingBounds};

use super::for_each_seed;

/// A stream with its server, its ring, and the client at the other end.
struct Stream {
    ring: Ring,
    /// Bytes of the event that the server is sending.
    sending: VecDeque<u8>,
    /// Events that the server has begun.
    begun: u64,
    /// The rest of the open event is not for this client.
    skips: bool,
    client: Client,
}

/// What is on the wire, and what has been read from it.
#[derive(Default)]
struct Client {
    connected: bool,
    wire: VecDeque<u8>,
    partial: Vec<u8>,
    /// The last event that was seen.
    last: u64,
    /// Events that it was told are missing.
    missing: BTreeSet<u64>,
}

impl Client {
    /// Reads some of the wire; checks every event that is complete.
    fn read(&mut self, bytes: usize) {
        let bytes = bytes.min(self.wire.len());
        for byte in self.wire.drain(..bytes) {
            if byte != b'\n' {
                self.partial.push(byte);
                continue;
            }
            let event = String::from_utf8(std::mem::take(&mut self.partial)).expect("ASCII");
            let (number, _) = event.split_once(':').expect("an event from its beginning");
            let number: u64 = number.parse().expect("a number");
            assert!(number > self.last, "{number} after {}", self.last);
            for skipped in self.last + 1..number {
                assert!(self.missing.contains(&skipped), "{skipped} went missing");
            }
            self.last = number;
        }
    }

    /// The connection breaks, and takes along what was on the wire.
    fn breaks(&mut self) {
        self.connected = false;
        self.wire.clear();
        self.partial.clear();
    }
}

impl Stream {
    fn new(bounds: RingBounds, budget: &Arc<Budget>) -> Self {
        Self {
            ring: Ring::new(bounds, Arc::clone(budget)),
            sending: VecDeque::new(),
            begun: 0,
            skips: false,
            client: Client {
                connected: true,
                ..Client::default()
            },
        }
    }

    /// The server sends some bytes, perhaps to the end of an event.
    fn send(&mut self, rng: &mut Rng) {
        if self.sending.is_empty() {
            self.begun += 1;
            let filler = "x".repeat(rng.usize(..60));
            self.sending
                .extend(format!("{}:{filler}\n", self.begun).into_bytes());
        }
        let count = rng.usize(1..=self.sending.len());
        let piece: Vec<u8> = self.sending.drain(..count).collect();
        self.ring.collect(&piece, &mut || false);
        if self.client.connected && !self.skips {
            self.client.wire.extend(&piece);
        }
        if self.sending.is_empty() {
            assert_eq!(self.ring.next(), self.begun);
            self.ring.complete(&mut || false);
            if self.client.connected && self.skips {
                self.client.missing.insert(self.begun);
            }
            self.skips = false;
        }
    }

    fn comes_back(&mut self) {
        let client = &mut self.client;
        let missed = self
            .ring
            .after(client.last)
            .expect("it has seen that event");
        let first = self.ring.next() - missed.events.len() as u64;
        assert_eq!(missed.gap, first > client.last + 1);
        client.missing.extend(client.last + 1..first);
        client.connected = true;
        client.wire.extend(missed.events.concat());
        match self.ring.open() {
            Some(open) => client.wire.extend(open),
            None => self.skips = true,
        }
    }
}

#[test]
fn a_client_that_breaks_anywhere_sees_every_event_once_and_in_order() {
    for_each_seed("a_client_that_breaks_anywhere", |rng| {
        let budget = Budget::new(1 << 20);
        let bounds = RingBounds {
            events: 1000,
            bytes: 1 << 20,
        };
        let mut stream = Stream::new(bounds, &budget);
        for _ in 0..400 {
            step(&mut stream, rng);
            assert!(stream.client.missing.is_empty(), "there was room for all");
        }
        settle(&mut stream);
        assert_eq!(
            stream.client.last,
            stream.ring.next() - 1,
            "and all of them"
        );
    });
}

#[test]
fn what_is_missing_at_the_bounds_is_known_to_be() {
    for_each_seed("what_is_missing_at_the_bounds", |rng| {
        let budget = Budget::new(rng.usize(100..2000));
        let bounds = RingBounds {
            events: rng.usize(1..6),
            bytes: rng.usize(40..300),
        };
        let mut streams: Vec<Stream> = (0..3).map(|_| Stream::new(bounds, &budget)).collect();
        for _ in 0..400 {
            let at = rng.usize(..streams.len());
            if rng.u8(..) < 3 {
                streams[at] = Stream::new(bounds, &budget);
            }
            step(&mut streams[at], rng);
            streams
                .iter()
                .for_each(|stream| stream.ring.check_invariants());
        }
        streams.iter_mut().for_each(settle);
        drop(streams);
        assert_eq!(budget.used(), 0);
    });
}

fn step(stream: &mut Stream, rng: &mut Rng) {
    match rng.u8(..10) {
        0..5 => stream.send(rng),
        5..8 => stream.client.read(rng.usize(..100)),
        8 => stream.client.breaks(),
        _ if !stream.client.connected => stream.comes_back(),
        // It comes back on another connection while the first still seems to be there.
        _ => {
            stream.client.breaks();
            stream.comes_back();
        }
    }
}

/// The client comes back and reads to the end.
fn settle(stream: &mut Stream) {
    stream.client.breaks();
    stream.comes_back();
    stream.client.read(usize::MAX);
}
