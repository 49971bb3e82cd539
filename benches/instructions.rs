//! How many instructions does it take? The same things as in the other benches, counted by
//! Valgrind: a number that does not depend on what else the machine does.
//!
//! Each runs once before it is counted, so that memory that is kept for the next time is there.

#![allow(
    missing_docs,
    unused_qualifications,
    reason = "the macros of gungraun make public functions, and name things in full"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use gungraun::prelude::*;
use tidegate::mcp::sse::Mode;
use tidegate::mcp::{Peek, SseScan, classify};
use tidegate::pool::{Balance, Endpoint, PickContext, Pool};
use tidegate::session::{Claims, IdKind, Keyring};
use tidegate::telemetry::{self, RequestRecord, ToolNames, ToolOutcome};
use tidegate::transport::buffer::Buffer;
use tidegate::transport::h1::answer::Answer;
use tidegate::transport::h1::head::Head;

use samples::{ANSWER, CALL, EVENT, HEAD};

mod samples;
#[path = "samples/worker.rs"]
mod worker;

/// What is used again and again lies behind a pointer, so that handing it over costs nothing here.
fn request_head() -> Box<Head> {
    let mut head = Box::new(Head::default());
    fill(&mut head);
    head
}

fn fill(head: &mut Head) {
    head.clear();
    let filled = head.fill(Buffer::of(black_box(HEAD)), 100);
    filled.expect("the head is right");
}

fn response_head() -> Box<Answer> {
    let mut answer = Box::new(Answer::default());
    fill_answer(&mut answer);
    answer
}

fn fill_answer(answer: &mut Answer) {
    answer.clear();
    let filled = answer.fill(Buffer::of(black_box(ANSWER)));
    filled.expect("the head is right");
    black_box(answer.framing("POST").expect("the framing is right"));
}

#[library_benchmark]
#[bench::again(request_head())]
fn parse_request_head(mut head: Box<Head>) -> Box<Head> {
    fill(&mut head);
    head
}

#[library_benchmark]
#[bench::again(response_head())]
fn parse_response_head(mut answer: Box<Answer>) -> Box<Answer> {
    fill_answer(&mut answer);
    answer
}

fn after_a_scan(body: Vec<u8>) -> Vec<u8> {
    drop(samples::scan(&body));
    body
}

#[library_benchmark]
#[bench::small_call(after_a_scan(CALL.to_vec()))]
#[bench::one_mib(after_a_scan(samples::large_call()))]
fn scan_body(body: Vec<u8>) -> (Vec<u8>, Peek) {
    let peek = samples::scan(black_box(&body));
    (body, peek)
}

fn call() -> Box<(Box<Head>, Peek)> {
    Box::new((request_head(), samples::scan(CALL)))
}

#[library_benchmark]
#[bench::stateless_call(call())]
fn classify_call(call: Box<(Box<Head>, Peek)>) -> Box<(Box<Head>, Peek)> {
    let (head, peek) = &*call;
    black_box(classify(black_box(&samples::seen(head, peek.message()))));
    call
}

fn after_an_event(mode: Mode) -> Box<SseScan> {
    let mut scan = Box::new(SseScan::new(mode));
    scan.feed(EVENT, &mut |_| {});
    scan
}

#[library_benchmark]
#[bench::messages(after_an_event(Mode::Messages))]
#[bench::borders(after_an_event(Mode::Borders))]
fn scan_event(mut scan: Box<SseScan>) -> Box<SseScan> {
    scan.feed(black_box(EVENT), &mut |note| {
        black_box(note);
    });
    scan
}

/// What ids are sealed with, one that is, and what is in it.
type Ids = Box<(Keyring, String, Claims)>;

fn ids() -> Ids {
    let (keyring, sealed, claims) = (samples::keyring(), samples::sealed(), samples::claims());
    drop(keyring.open(sealed.as_bytes(), IdKind::Session));
    Box::new((keyring, sealed, claims))
}

#[library_benchmark]
#[bench::session(ids())]
fn open_id(ids: Ids) -> Ids {
    let (keyring, sealed, _) = &*ids;
    drop(black_box(
        keyring.open(black_box(sealed.as_bytes()), IdKind::Session),
    ));
    ids
}

#[library_benchmark]
#[bench::session(ids())]
fn seal_id(ids: Ids) -> Ids {
    let (keyring, _, claims) = &*ids;
    drop(black_box(keyring.seal(black_box(claims), [9; 24])));
    ids
}

/// A pool and the dice.
type Picking = Box<(Pool, fastrand::Rng)>;

fn picking(balance: Balance, count: u64) -> Picking {
    let mut rng = fastrand::Rng::with_seed(1);
    let pool = samples::pool(balance, count);
    drop(pool.pick(&PickContext::default(), &mut rng));
    Box::new((pool, rng))
}

#[library_benchmark]
#[bench::least_load_3(picking(Balance::LeastLoad, 3))]
#[bench::least_load_30(picking(Balance::LeastLoad, 30))]
#[bench::least_load_300(picking(Balance::LeastLoad, 300))]
#[bench::peak_ewma_3(picking(Balance::PeakEwma, 3))]
#[bench::peak_ewma_30(picking(Balance::PeakEwma, 30))]
#[bench::peak_ewma_300(picking(Balance::PeakEwma, 300))]
#[bench::round_robin_3(picking(Balance::RoundRobin, 3))]
#[bench::round_robin_30(picking(Balance::RoundRobin, 30))]
#[bench::round_robin_300(picking(Balance::RoundRobin, 300))]
#[bench::consistent_hash_3(picking(Balance::ConsistentHash, 3))]
#[bench::consistent_hash_30(picking(Balance::ConsistentHash, 30))]
#[bench::consistent_hash_300(picking(Balance::ConsistentHash, 300))]
fn pick(mut picking: Picking) -> Picking {
    let (pool, rng) = &mut *picking;
    let context = PickContext {
        key: Some(black_box(7)),
        ..PickContext::default()
    };
    drop(black_box(pool.pick(&context, rng)));
    picking
}

/// The tools that are told apart, and the endpoint that has served a call.
type Served = Box<(ToolNames, Arc<Endpoint>)>;

/// On a thread that tells what it has counted a few times a second, as workers do.
fn served() -> Served {
    telemetry::gather();
    let names = ToolNames::new();
    names.learn("a", ["add"]);
    let endpoint = Arc::clone(&samples::pool(Balance::LeastLoad, 1).endpoints()[0]);
    let served = Box::new((names, endpoint));
    count(&served);
    served
}

/// Everything that is counted of a tool call that went well, on a connection that was there.
fn count((names, endpoint): &(ToolNames, Arc<Endpoint>)) {
    let took = Duration::from_micros(black_box(730));
    endpoint.timings.answered(black_box(1), took);
    telemetry::record_request(&RequestRecord {
        method: "tools/call",
        tool: names.label(black_box("add")),
        status: black_box(200),
        server: endpoint.name(),
        first_byte: None,
        duration: took,
        tool_outcome: Some(ToolOutcome::Success),
    });
}

#[library_benchmark]
#[bench::tool_call(served())]
fn count_call(served: Served) -> Served {
    count(&served);
    served
}

// The difference is what ten calls cost a worker, without what the kernel does for them.
#[library_benchmark]
#[bench::ten(Box::new(worker::Worker::warm()), 10)]
#[bench::twenty(Box::new(worker::Worker::warm()), 20)]
fn serve_calls(mut worker: Box<worker::Worker>, calls: usize) -> Box<worker::Worker> {
    worker.calls(black_box(calls));
    worker
}

library_benchmark_group!(
    name = heads,
    benchmarks = [parse_request_head, parse_response_head]
);
library_benchmark_group!(
    name = bodies,
    benchmarks = [scan_body, classify_call, scan_event]
);
library_benchmark_group!(name = sealed_ids, benchmarks = [open_id, seal_id]);
library_benchmark_group!(name = pools, benchmarks = [pick]);

library_benchmark_group!(name = metrics, benchmarks = [count_call, serve_calls]);

main!(library_benchmark_groups = [heads, bodies, sealed_ids, pools, metrics]);
