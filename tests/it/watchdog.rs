//! systemd is told that the process is well (`WATCHDOG=1`) only while every worker thread takes its turns.
//!
//! A worker is made to stand still by a standard error that nobody reads: once that is full, whoever
//! writes another message waits in the system call.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, timeout_at};

use crate::support::{Endpoint, Fault, Mcp, NoAnswer, Outgoing, PATIENCE, Tidegate, within};

/// How long systemd would wait for a beat; there are three in this time.
const EVERY: Duration = Duration::from_millis(1500);

/// What systemd hears.
struct Heard(UnixDatagram);

impl Heard {
    async fn next(&self) -> String {
        let mut message = [0; 256];
        let length = self.0.recv(&mut message).await.expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    async fn beat(&self) {
        while !self.next().await.contains("WATCHDOG=1") {}
    }

    /// The beats within a time.
    async fn beats_in(&self, time: Duration) -> usize {
        let (mut beats, end) = (0, Instant::now() + time);
        while timeout_at(end, self.beat()).await.is_ok() {
            beats += 1;
        }
        beats
    }
}

#[tokio::test]
async fn the_watchdog_hears_nothing_while_a_worker_stands_still() {
    let a = Endpoint::start("a").await;
    let place = TempDir::new().expect("a directory");
    let socket = place.path().join("notify");
    let heard = Heard(UnixDatagram::bind(&socket).expect("a socket"));
    let (mut reads, writes) = UnixStream::pair().expect("two ends");
    for end in [&reads, &writes] {
        // The least that there is.
        let socket = SockRef::from(end);
        socket.set_send_buffer_size(1).expect("a buffer");
    }
    let gate = Tidegate::build(&[&a])
        .config("threads: 1")
        .pool(
            "breaker: off
ejection: off",
        )
        .log("{ access: off, level: warn }")
        .variable("NOTIFY_SOCKET", socket.to_str().expect("UTF-8"))
        .variable("WATCHDOG_USEC", &EVERY.as_micros().to_string())
        .stderr(writes)
        .start()
        .await;
    for _ in 0..3 {
        within("a beat", heard.beat()).await;
    }
    // Each of these calls has the worker write a warning, until one cannot be written.
    a.fault(Fault::GarbageHead);
    let client = gate.client().with_patience(Duration::from_secs(1));
    let call = || Outgoing::stateless(&1.into(), "tools/list", None, serde_json::json!({}));
    let mut calls = 0;
    while !matches!(client.try_send(call()).await, Err(NoAnswer::Silent)) {
        calls += 1;
        assert!(calls < 10_000, "standard error is never full");
    }
    let beats = heard.beats_in(EVERY * 2).await;
    assert!(beats <= 1, "{beats} beats of a process that answers nobody");
    // Somebody reads, and the worker goes on.
    let reader =
        std::thread::spawn(move || while reads.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
    for _ in 0..3 {
        within("a beat", heard.beat()).await;
    }
    a.heal();
    let answer = gate.client().with_patience(PATIENCE).send(call()).await;
    assert_eq!(answer.status, 200);
    drop(gate);
    reader.join().expect("it has ended with the program");
}
