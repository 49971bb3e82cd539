//! What is measured, the same for times and for instructions.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::sync::Arc;
use std::time::Duration;

use tidegate::mcp::{HttpMethod, Message, Peek, Seen};
use tidegate::pool::{
    Balance, Endpoint, EndpointSpec, HealthState, Pool, Protection, breaker, ejection,
};
use tidegate::session::{Claims, IdKind, Keyring, NameHash, PrincipalHash, SealingKey};
use tidegate::transport::Headers;
use tidegate::transport::h1::head::Head;

/// The body of a tool call as a client of the stateless era sends it.
pub(crate) const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
/// The head of that call.
pub(crate) const HEAD: &[u8] = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: add\r\nContent-Length: 273\r\nUser-Agent: bench\r\n\r\n";
/// The head of a server's answer.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 04:00:00 GMT\r\nServer: uvicorn\r\nContent-Type: application/json\r\nCache-Control: no-cache\r\nContent-Length: 96\r\n\r\n";
/// An event as a server streams it.
pub(crate) const EVENT: &[u8] = b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":5}}\n\n";

/// A call with 1 MiB of text.
pub(crate) fn large_call() -> Vec<u8> {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"text":"{}"}}}}}}"#,
        "a".repeat(1 << 20)
    )
    .into_bytes()
}

/// Reads a whole body.
pub(crate) fn scan(body: &[u8]) -> Peek {
    let mut peek = Peek::new();
    let _ = peek.feed(body);
    peek
}

/// The head of the small call, parsed.
pub(crate) fn head() -> Head {
    Head::parse(HEAD, 100).expect("the head is right")
}

/// What the classifier is asked about the small call.
pub(crate) fn seen<'a>(head: &'a Head, message: &'a Message) -> Seen<'a> {
    Seen {
        method: HttpMethod::Post,
        version: head.get("mcp-protocol-version"),
        session: head.get("mcp-session-id").is_some(),
        mcp_method: head.get("mcp-method"),
        mcp_name: head.get("mcp-name"),
        body: Some(message),
    }
}

/// What is in a session's id.
pub(crate) fn claims() -> Claims {
    Claims {
        kind: IdKind::Session,
        pool: NameHash::of("weather"),
        endpoint: NameHash::of("127.0.0.1:9001"),
        server_id: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".into(),
        minted_at: 1_790_000_000,
        principal: PrincipalHash::ANONYMOUS,
    }
}

/// One key to seal with.
pub(crate) fn keyring() -> Keyring {
    Keyring::new(vec![SealingKey::from_bytes([7; 32])]).expect("one key is a keyring")
}

/// A session's id as a client has it.
pub(crate) fn sealed() -> String {
    let sealed = keyring().seal(&claims(), [9; 24]);
    sealed.expect("a short id is sealed")
}

/// The ways of balancing.
pub(crate) const WAYS: [(&str, Balance); 4] = [
    ("least load", Balance::LeastLoad),
    ("peak ewma", Balance::PeakEwma),
    ("round robin", Balance::RoundRobin),
    ("consistent hash", Balance::ConsistentHash),
];

/// A pool of endpoints that are all up, protected as it is by default.
pub(crate) fn pool(balance: Balance, count: u64) -> Pool {
    let endpoints: Vec<Arc<Endpoint>> = (0..count)
        .map(|id| {
            Endpoint::new(EndpointSpec {
                name: format!("e{id}"),
                id,
                weight: 1,
                backup: false,
                address: "127.0.0.1:1".parse().ok(),
                health: HealthState::Up,
            })
        })
        .collect();
    let pool = Pool::new("bench", balance, endpoints).expect("the pool is small");
    pool.with_protection(Protection {
        ejection: Some(ejection::Settings {
            failures: 5,
            base_time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_share: 50,
        }),
        breaker: Some(breaker::Settings {
            failure_ratio: 50,
            min_calls: 20,
            window: Duration::from_secs(10),
            open_time: Duration::from_secs(5),
            trials: 3,
        }),
        slow_start: Duration::from_secs(10),
    })
}
