//! Abuse of HTTP/2: what costs the client nothing and us something has a bound, the bound is counted,
//! and meanwhile everybody else is served.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::frames::{
    CANCEL, CONTINUATION, DATA, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, block, frame, head,
};
use crate::support::{Client, Endpoint, Mcp, Tidegate, eventually, text_of};

/// What an attack may cost us in memory, once it has been noticed.
const GROWTH_MAX: u64 = 48 << 20;

async fn gate(a: &Endpoint) -> Tidegate {
    let limits = "limits: { head_timeout: 1s, idle_timeout: 2s, write_timeout: 1s }\nthreads: 1";
    Tidegate::build(&[a]).config(limits).start().await
}

/// Resident memory of the program, in bytes.
fn resident(gate: &Tidegate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    digits.expect("a size") << 10
}

async fn hits(gate: &Tidegate) -> f64 {
    let metrics = gate.metrics().await;
    metrics.with("tidegate_limits_hit_total", &[("limit", "http2")])
}

/// Somebody else is served, soon.
async fn serves(client: &Client) {
    let started = Instant::now();
    let answer = client.modern_call("whoami", json!({})).await;
    assert_eq!(text_of(&answer), "a");
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}

fn fields(gate: &Tidegate, name: &str) -> Vec<u8> {
    let host = gate.address().to_string();
    block(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", host.as_bytes()),
        (b":path", b"/mcp"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", name.as_bytes()),
    ])
}

fn body(name: &str, arguments: &serde_json::Value) -> Vec<u8> {
    let params = json!({"name": name, "arguments": arguments, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        .to_string()
        .into_bytes()
}

/// A call of a tool on a stream.
fn call(gate: &Tidegate, stream: u32, name: &str, arguments: &serde_json::Value) -> Vec<u8> {
    let head = head(stream, 0, &fields(gate, name));
    [
        head,
        frame(DATA, END_STREAM, stream, &body(name, arguments)),
    ]
    .concat()
}

/// Sends the same, or what follows it, until the other side has had enough; how many pieces went.
/// Meanwhile others are served.
async fn flood(
    gate: &Tidegate,
    raw: &mut Raw,
    most: u32,
    mut piece: impl FnMut(u32) -> Vec<u8>,
) -> u32 {
    for count in 0..most {
        if count % 500 == 100 {
            serves(&gate.client()).await;
        }
        if !raw.send(&piece(count)).await {
            return count;
        }
    }
    most
}

/// After a flood: the connection has ended, it was counted, and memory is where it was.
async fn has_ended(gate: &Tidegate, mut raw: Raw, before: u64, counted: bool) {
    assert!(raw.ended().await, "the connection goes on");
    if counted {
        assert_eq!(hits(gate).await, 1.0);
    }
    let grown = resident(gate).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{} KiB more", grown >> 10);
    serves(&gate.client()).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    serves(&gate.client()).await;
    let before = resident(&gate);
    let mut raw = Raw::connect(gate.address(), &[]).await;
    let sent = flood(&gate, &mut raw, 50_000, |count| {
        let stream = 2 * count + 1;
        let slow = json!({"ms": 5000});
        [
            call(&gate, stream, "slow", &slow),
            frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
        ]
        .concat()
    })
    .await;
    eprintln!(
        "rapid reset: {sent} streams sent, {} calls arrived",
        a.requests().len()
    );
    has_ended(&gate, raw, before, true).await;
    // Nothing is left behind at the server.
    assert!(eventually(Duration::from_secs(5), || a.in_flight() == 0).await);
}

/// The same, but each call is on its way to the server when it is reset.
#[tokio::test]
async fn calls_that_are_reset_one_after_the_other_end_the_connection() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    serves(&gate.client()).await;
    let before = resident(&gate);
    let mut raw = Raw::connect(gate.address(), &[]).await;
    const LET_GO: u32 = 12_000;
    let mut sent = 0;
    // Faster than the budget comes back even on a machine that is busy with other things.
    while sent < LET_GO {
        let streams: Vec<u32> = (sent..sent + 240).map(|number| 2 * number + 1).collect();
        sent += 240;
        for stream in &streams {
            raw.send(&call(&gate, *stream, "slow", &json!({"ms": 5000})))
                .await;
        }
        let seen = a.calls("tools/call").len();
        let patience = Duration::from_millis(500);
        let _ = eventually(patience, || a.calls("tools/call").len() >= seen.max(1)).await;
        raw.send(&frame(PING, 0, 0, &[0; 8])).await;
        if raw.until(|frame| frame.kind == PING).await.is_none() {
            break;
        }
        for stream in &streams {
            raw.send(&frame(RST_STREAM, 0, *stream, &CANCEL.to_be_bytes()))
                .await;
        }
    }
    eprintln!(
        "slower reset: {sent} streams sent, {} calls arrived",
        a.requests().len()
    );
    assert!(sent < LET_GO, "it was let go on");
    has_ended(&gate, raw, before, true).await;
    assert!(eventually(Duration::from_secs(5), || a.in_flight() == 0).await);
}

#[tokio::test]
async fn frames_that_bring_nothing_end_the_connection() {
    let a = Endpoint::start("a").await;
    type Piece = fn(u32) -> Vec<u8>;
    let floods: [(&str, Piece); 5] = [
        ("PING", |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())),
        ("SETTINGS", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PRIORITY", |n| {
            frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 9])
        }),
        ("unknown", |_| frame(0xfa, 0, 0, b"x")),
        ("RST_STREAM of streams that have ended", |n| {
            frame(RST_STREAM, 0, 2 * (n % 3) + 1, &CANCEL.to_be_bytes())
        }),
    ];
    for (what, piece) in floods {
        let gate = gate(&a).await;
        serves(&gate.client()).await;
        let before = resident(&gate);
        let mut raw = Raw::connect(gate.address(), &[]).await;
        for stream in [1, 3, 5] {
            raw.send(&call(&gate, stream, "whoami", &json!({}))).await;
        }
        let sent = flood(&gate, &mut raw, 300_000, piece).await;
        eprintln!("{what}: {sent} frames sent");
        has_ended(&gate, raw, before, true).await;
    }
}

#[tokio::test]
async fn a_head_that_goes_on_and_on_ends_the_connection() {
    let a = Endpoint::start("a").await;
    for filler in [vec![], block(&[(b"x", &[b'y'; 15_000])])] {
        let gate = gate(&a).await;
        let before = resident(&gate);
        let mut raw = Raw::connect(gate.address(), &[]).await;
        raw.send(&frame(HEADERS, 0, 1, &fields(&gate, "whoami")))
            .await;
        let piece = frame(CONTINUATION, 0, 1, &filler);
        flood(&gate, &mut raw, 20_000, |_| piece.clone()).await;
        has_ended(&gate, raw, before, true).await;
    }
}

/// A field block that is small on the wire and large in the table: one long field, named again and
/// again (RFC 7541 section 6.1).
fn bomb(gate: &Tidegate, times: usize) -> Vec<u8> {
    let mut bytes = fields(gate, "whoami");
    // With incremental indexing, so that it is entry 62 of the table.
    let value = [b'v'; 4000];
    let field = block(&[(b"x-bomb", &value)]);
    bytes.push(0x40);
    bytes.extend_from_slice(&field[1..]);
    bytes.extend(std::iter::repeat_n(0x80 | 62, times));
    bytes
}

#[tokio::test]
async fn a_field_block_that_unfolds_is_refused() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    serves(&gate.client()).await;
    let (before, seen) = (resident(&gate), a.requests().len());
    for times in [20, 10_000] {
        let mut raw = Raw::connect(gate.address(), &[]).await;
        raw.send(&head(1, END_STREAM, &bomb(&gate, times))).await;
        let told = raw.until(|frame| {
            frame.kind == GOAWAY
                || (frame.stream == 1 && [HEADERS, RST_STREAM].contains(&frame.kind))
        });
        let told = told.await.expect("a refusal");
        let refused = told.kind != HEADERS || told.status() == Some(431);
        assert!(refused, "{times}: {told:?}");
    }
    assert_eq!(a.requests().len(), seen);
    assert!(resident(&gate).saturating_sub(before) < GROWTH_MAX);
    serves(&gate.client()).await;
}

#[tokio::test]
async fn a_window_that_never_opens_holds_an_answer_for_the_time_of_a_write() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    serves(&gate.client()).await;
    let before = resident(&gate);
    // SETTINGS_INITIAL_WINDOW_SIZE of nothing.
    let mut raw = Raw::connect(gate.address(), &[(4, 0)]).await;
    for number in 0..100 {
        let big = json!({"bytes": 2_000_000});
        raw.send(&call(&gate, 2 * number + 1, "big", &big)).await;
    }
    assert!(raw.until(|frame| frame.kind == HEADERS).await.is_some());
    let grown = resident(&gate).saturating_sub(before);
    eprintln!(
        "100 answers of 2 MB before a shut window: {} KiB more",
        grown >> 10
    );
    assert!(grown < GROWTH_MAX, "{} KiB more", grown >> 10);
    serves(&gate.client()).await;
    // Each is given up, and its server with it.
    let reset = raw.until(|frame| frame.kind == RST_STREAM);
    assert!(reset.await.is_some(), "the stream is reset");
    assert!(eventually(Duration::from_secs(5), || a.in_flight() == 0).await);
    gate.metrics_when(|metrics| {
        metrics.with("tidegate_limits_hit_total", &[("limit", "write_time")]) >= 100.0
    })
    .await;
}

#[tokio::test]
async fn bodies_that_trickle_hold_their_streams_and_nobody_elses() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    serves(&gate.client()).await;
    let (before, seen) = (resident(&gate), a.requests().len());
    let mut raw = Raw::connect(gate.address(), &[]).await;
    // More than may be open at once: the others are refused (RFC 9113 section 5.1.2).
    for number in 0..400 {
        let head = head(2 * number + 1, 0, &fields(&gate, "whoami"));
        raw.send(&[head, frame(DATA, 0, 2 * number + 1, b"{")].concat())
            .await;
    }
    serves(&gate.client()).await;
    let grown = resident(&gate).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{} KiB more", grown >> 10);
    // Those that are open are answered 408 when nothing more comes.
    let slow = raw.until(|frame| frame.kind == HEADERS).await;
    assert_eq!(slow.expect("an answer").status(), Some(408));
    assert_eq!(a.requests().len(), seen + 1, "the one of somebody else");
    gate.metrics_when(|metrics| {
        metrics.with("tidegate_limits_hit_total", &[("limit", "body_time")]) >= 200.0
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_only_pings_is_idle() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    let mut raw = Raw::connect(gate.address(), &[]).await;
    let started = Instant::now();
    let mut sent = 0_u64;
    while started.elapsed() < Duration::from_secs(8) {
        let alive = raw.send(&frame(PING, 0, 0, &sent.to_be_bytes())).await;
        sent += 1;
        while raw.next(Duration::from_millis(50)).await.is_some() {}
        if !alive {
            break;
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(hits(&gate).await, 0.0, "{sent} pings are no flood");
}

#[tokio::test]
async fn a_window_that_overflows_ends_its_stream_alone() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    let mut raw = Raw::connect(gate.address(), &[]).await;
    raw.send(&call(&gate, 1, "slow", &json!({"ms": 60_000})))
        .await;
    a.until("it runs", |e| e.in_flight() == 1).await;
    raw.send(&frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes()))
        .await;
    let reset = raw
        .until(|frame| frame.stream == 1 && frame.kind == RST_STREAM)
        .await;
    assert_eq!(reset.expect("a reset").reason(), 3, "FLOW_CONTROL_ERROR");
    raw.send(&call(&gate, 3, "whoami", &json!({}))).await;
    let answer = raw
        .until(|frame| frame.stream == 3 && frame.kind == HEADERS)
        .await;
    assert_eq!(answer.expect("an answer").status(), Some(200));
}

#[tokio::test]
async fn a_head_that_does_not_end_is_an_idle_connection() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    let started = Instant::now();
    let mut raw = Raw::connect(gate.address(), &[]).await;
    let head = fields(&gate, "whoami");
    raw.send(&frame(HEADERS, END_STREAM, 1, &head[..20])).await;
    assert!(raw.ended().await, "it is waited for");
    assert!(started.elapsed() < Duration::from_secs(6));
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn a_client_that_sends_nothing_but_nonsense_is_sent_away() {
    let a = Endpoint::start("a").await;
    let gate = gate(&a).await;
    let mut raw = Raw::connect(gate.address(), &[]).await;
    let mut head_block = fields(&gate, "whoami");
    head_block.extend(block(&[(b"content-length", b"+1")]));
    let sent = flood(&gate, &mut raw, 90, |count| {
        head(2 * count + 1, END_STREAM, &head_block)
    })
    .await;
    assert!(raw.ended().await, "after {sent} requests");
    assert!(a.requests().is_empty());
    serves(&gate.client()).await;
}

#[tokio::test]
async fn a_body_that_stops_on_a_route_of_plain_http_is_not_waited_for() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .config("limits: { head_timeout: 300ms }")
        .routes("- path_prefix: /\n  pool: main")
        .pool("kind: http\ntimeouts: { write: 200ms }")
        .start()
        .await;
    let mut raw = Raw::connect(gate.address(), &[]).await;
    let head = head(1, 0, &fields(&gate, "whoami"));
    raw.send(&[head, frame(DATA, 0, 1, b"{")].concat()).await;
    let answer = raw.until(|frame| frame.kind == HEADERS).await;
    assert_eq!(answer.expect("an answer").status(), Some(408));
    assert!(a.requests().is_empty());
    assert!(eventually(Duration::from_secs(5), || a.connections_open() == 0).await);
}
