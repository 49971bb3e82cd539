//! Request smuggling: whatever the client sends, a server sees requests that can be read in one way
//! only, and none that nobody is answerable for.
//!
//! The corpus goes through the real binary to a server that records every byte, and what it has
//! recorded is read by a reference of its own. A case is either refused, and the connection closed,
//! or arrives as exactly one request.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Tidegate;

mod corpus;
mod http2;
mod reader;
mod recorder;

use corpus::{Case, Class};
use reader::{Reading, Seen};
use recorder::Recorder;

/// Statuses that refuse a request for its form (RFC 9110 section 15.5, RFC 6585).
const REFUSALS: &[u16] = &[400, 413, 414, 431, 501, 505];

/// A gate before a recording server.
struct Lane {
    gate: Tidegate,
    recorder: Recorder,
    is_mcp: bool,
    /// Marks of the cases that were cut off, whose beginning may arrive late.
    cut: Vec<String>,
}

impl Lane {
    async fn mcp() -> Self {
        let recorder = Recorder::start().await;
        let gate = Tidegate::build(&[])
            .also_at("recorder", recorder.address())
            .config("limits: { head_timeout: 400ms }\nthreads: 1")
            .start()
            .await;
        Self {
            gate,
            recorder,
            is_mcp: true,
            cut: Vec::new(),
        }
    }

    /// The same by Pingora's proxy.
    async fn plain() -> Self {
        let recorder = Recorder::start().await;
        let gate = Tidegate::build(&[])
            .also_at("recorder", recorder.address())
            .routes("- path_prefix: /\n  pool: main")
            .pool("kind: http")
            .config("limits: { head_timeout: 400ms }\nthreads: 1")
            .start()
            .await;
        Self {
            gate,
            recorder,
            is_mcp: false,
            cut: Vec::new(),
        }
    }

    /// Is this no more than the beginning of a case before?
    fn is_late(&self, reading: &Reading) -> bool {
        let rest = String::from_utf8_lossy(&reading.rest);
        reading.requests.is_empty()
            && reading.fault.is_none()
            && self.cut.iter().any(|mark| rest.contains(mark.as_str()))
    }

    fn class(&self, case: &Case) -> Class {
        if self.is_mcp { case.mcp } else { case.plain }
    }

    /// What became of a case, and what is wrong with that.
    async fn run(&mut self, case: &Case) -> Result<(), String> {
        let class = self.class(case);
        let host = self.gate.address().to_string();
        let bytes = case.bytes(&host);
        let told = tell(&self.gate, &bytes, class).await;
        let mut seen = self.recorder.take();
        seen.retain(|reading| !self.is_late(reading));
        if class == Class::Cut {
            self.cut.push(case.mark());
        }
        judge(class, &bytes, &told, &seen).map_err(|why| {
            let lane = if self.is_mcp { "mcp" } else { "http" };
            format!("{lane}: {}: {why}: {told:?} {seen:?}", case.name)
        })
    }
}

/// What the client was told.
#[derive(Debug)]
struct Told {
    /// Final statuses, in order.
    statuses: Vec<u16>,
    /// The gate ended the connection before the client did.
    closed: bool,
}

/// Sends the bytes and reads to the end. Where the connection may go on, it is the client who ends
/// it, once it has all its answers.
async fn tell(gate: &Tidegate, bytes: &[u8], class: Class) -> Told {
    let stream = TcpStream::connect(gate.address()).await;
    let (mut reads, mut writes) = stream.expect("a connection").into_split();
    // Whoever is refused early cannot send the rest.
    let _ = writes.write_all(bytes).await;
    let expected = match class {
        Class::Whole | Class::Answered => 1,
        Class::Two => 2,
        Class::Refused | Class::Cut | Class::First => usize::MAX,
    };
    let mut all = Vec::new();
    let mut closed = true;
    let reading = async {
        let mut piece = [0; 16 * 1024];
        while let Ok(read) = reads.read(&mut piece).await {
            if read == 0 {
                break;
            }
            all.extend_from_slice(&piece[..read]);
            if closed && statuses(&all).len() >= expected {
                closed = false;
                let _ = writes.shutdown().await;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), reading).await;
    Told {
        statuses: statuses(&all),
        closed: closed && ended.is_ok(),
    }
}

/// The statuses of all answers that are there, without interim ones.
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok());
        let length = head.split("\r\n").find_map(|line| {
            let value = line.strip_prefix("content-length:")?;
            value.trim().parse::<usize>().ok()
        });
        let status: u16 = status.unwrap_or_default();
        let length = length.filter(|_| status != 304).unwrap_or_default();
        bytes = bytes.get(end + 4 + length..).unwrap_or_default();
        if status >= 200 {
            found.push(status);
        }
    }
    found
}

fn judge(class: Class, bytes: &[u8], told: &Told, seen: &[Reading]) -> Result<(), String> {
    if let Some(fault) = seen.iter().find_map(|reading| reading.fault.as_ref())
        && class != Class::Cut
    {
        return Err(format!("the server cannot read it: {fault}"));
    }
    let whole: Vec<&Seen> = seen.iter().flat_map(|reading| &reading.requests).collect();
    let begun = seen.iter().any(|reading| !reading.rest.is_empty());
    if whole.iter().any(|seen| seen.target.contains("smuggled")) {
        return Err("the server was given what was smuggled".into());
    }
    let refused = |statuses: &[u16]| matches!(statuses, [one] if REFUSALS.contains(one));
    let right = match class {
        Class::Refused => refused(&told.statuses) && told.closed && whole.is_empty() && !begun,
        Class::Answered => {
            matches!(told.statuses[..], [400 | 404 | 405 | 421 | 501]) && whole.is_empty() && !begun
        }
        Class::Cut => {
            let mild = matches!(told.statuses[..], [] | [408]) || refused(&told.statuses);
            mild && told.closed && whole.is_empty()
        }
        Class::Whole => told.statuses == [200] && whole.len() == 1 && !begun,
        Class::Two => told.statuses == [200, 200] && whole.len() == 2 && !begun,
        Class::First => {
            let right = matches!(told.statuses[..], [200, _]) && refused(&told.statuses[1..]);
            right && told.closed && whole.len() == 1 && !begun
        }
    };
    if !right {
        return Err(format!("not {class:?}"));
    }
    whole.iter().try_for_each(|seen| check(seen, bytes))
}

/// A request that has arrived is the one that was sent, and asks its connection for nothing.
fn check(seen: &Seen, sent: &[u8]) -> Result<(), String> {
    let body = corpus::body();
    let has_body = seen.method == "POST" || sent.windows(body.len()).any(|part| part == body);
    if seen.body != if has_body { body } else { b"" } {
        return Err("another body".into());
    }
    let asks = |name: &str| seen.all(name).next().is_some();
    let upgrade = seen.all("upgrade").any(|value| value != "websocket");
    if upgrade || asks("http2-settings") || asks("te") || asks("trailer") || asks("x-t") {
        return Err("a field that belongs to one connection, or a trailer".into());
    }
    if seen.all("host").any(|host| host.contains("evil")) {
        return Err("a host that nobody has checked".into());
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_smuggled_past_either_kind_of_route() {
    let mut wrong = Vec::new();
    for mut lane in [Lane::mcp().await, Lane::plain().await] {
        let (mut refused, mut forwarded) = (0, 0);
        for case in corpus::all() {
            match lane.class(case) {
                Class::Whole | Class::Two => forwarded += 1,
                _ => refused += 1,
            }
            wrong.extend(lane.run(case).await.err());
        }
        let mut late = lane.recorder.take();
        late.retain(|reading| !lane.is_late(reading));
        assert!(late.is_empty(), "behind the last case: {late:?}");
        let kind = if lane.is_mcp { "MCP" } else { "plain HTTP" };
        eprintln!("smuggling, route of {kind}: {refused} refused, {forwarded} forwarded as one");
    }
    let count = corpus::all().count();
    assert!(count >= 120, "{count} cases");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
