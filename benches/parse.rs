//! What does understanding a request cost? The scan of a body, the head, and the events of a reply.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::mcp::sse::Mode;
use tidegate::mcp::{Peek, SseScan};
use tidegate::transport::h1::head::Head;

const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
const HEAD: &[u8] = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: add\r\nContent-Length: 273\r\nUser-Agent: bench\r\n\r\n";
const EVENT: &[u8] = b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":5}}\n\n";

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(CALL.len() as u64));
    group.bench_function("scan a tool call", |b| {
        b.iter(|| {
            let mut peek = Peek::new();
            let _ = peek.feed(black_box(CALL));
            peek.settled()
        });
    });
    let large = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"text":"{}"}}}}}}"#,
        "a".repeat(1 << 20)
    );
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("scan a call with 1 MiB of text", |b| {
        b.iter(|| {
            let mut peek = Peek::new();
            let _ = peek.feed(black_box(large.as_bytes()));
            peek.settled()
        });
    });
    group.finish();
}

fn heads(c: &mut Criterion) {
    c.bench_function("parse a request head", |b| {
        b.iter(|| Head::parse(black_box(HEAD), 100))
    });
}

fn events(c: &mut Criterion) {
    for (name, mode) in [
        ("watch an event", Mode::Messages),
        ("find the border of an event", Mode::Borders),
    ] {
        let mut scan = SseScan::new(mode);
        c.bench_function(name, |b| {
            b.iter(|| scan.feed(black_box(EVENT), &mut |_| {}))
        });
    }
}

criterion_group!(benches, bodies, heads, events);
criterion_main!(benches);
