//! What does understanding a request cost? Its head and that of its answer, the scan of a body, the
//! rules to follow, and the events of a reply.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::mcp::sse::Mode;
use tidegate::mcp::{SseScan, classify};
use tidegate::transport::buffer::Buffer;
use tidegate::transport::h1::answer::Answer;
use tidegate::transport::h1::head::Head;

use samples::{ANSWER, CALL, EVENT, HEAD, scan};

mod samples;

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    group.bench_function("parse a request head", |b| {
        b.iter(|| Head::parse(black_box(HEAD), 100));
    });
    let mut head = Head::default();
    group.bench_function("parse a request head, with what the last one left", |b| {
        b.iter(|| {
            let filled = head.fill(Buffer::of(black_box(HEAD)), 100);
            head.clear();
            filled
        });
    });
    let mut answer = Answer::default();
    group.bench_function("parse a response head, with what the last one left", |b| {
        b.iter(|| {
            let filled = answer.fill(Buffer::of(black_box(ANSWER)));
            let framing = answer.framing("POST");
            answer.clear();
            (filled, framing)
        });
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(CALL.len() as u64));
    group.bench_function("scan a tool call", |b| {
        b.iter(|| scan(black_box(CALL)));
    });
    let large = samples::large_call();
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("scan a call with 1 MiB of text", |b| {
        b.iter(|| scan(black_box(&large)));
    });
    group.finish();
}

fn rules(c: &mut Criterion) {
    let head = samples::head();
    let peek = scan(CALL);
    c.bench_function("classify a tool call", |b| {
        b.iter(|| classify(black_box(&samples::seen(&head, peek.message()))));
    });
}

fn events(c: &mut Criterion) {
    for (name, mode) in [
        ("watch an event", Mode::Messages),
        ("find the border of an event", Mode::Borders),
    ] {
        let mut scan = SseScan::new(mode);
        c.bench_function(name, |b| {
            b.iter(|| scan.feed(black_box(EVENT), &mut |_| {}));
        });
    }
}

criterion_group!(benches, heads, bodies, rules, events);
criterion_main!(benches);
