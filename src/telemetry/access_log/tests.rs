#![allow(clippy::disallowed_methods, reason = "tests read the clock")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Instant, UNIX_EPOCH};

use serde_json::Value;

use super::*;

mod lines;
mod targets;

const SOON: Duration = Duration::from_secs(20);

pub(super) fn entry<'a>() -> Entry<'a> {
    Entry {
        at: UNIX_EPOCH + Duration::from_millis(1_785_229_503_042),
        listener: "edge",
        client: Some(SocketAddr::from(([192, 0, 2, 7], 50_000))),
        local: Some(SocketAddr::from(([192, 0, 2, 1], 443))),
        tls: Some("1.3"),
        proved: Some(Proved {
            tag: 0x00c0_ffee,
            name: "w1.example",
            subject: "CN=w1,O=Example",
            issuer: "CN=Authority",
            fingerprint: "0a1b",
        }),
        host: Some("tools.example.com"),
        http_version: "HTTP/1.1",
        method: "POST",
        path: "/mcp?token=secret",
        mcp_method: Some("tools/call"),
        tool_name: Some("get_tide"),
        era: Some("session"),
        pool: Some("weather"),
        server: Some("w1"),
        server_address: Some(SocketAddr::from(([10, 0, 0, 1], 9001))),
        session: Some(SessionTag::of("3fa85f64-5717-4562-b3fc-2c963f66afa6")),
        status: 200,
        rpc_code: Some(-32602),
        times: Times {
            duration: Duration::from_micros(12_005),
            queue: Duration::from_millis(2),
            asked: Some(Duration::from_micros(2_100)),
            connect: Some(Duration::from_micros(400)),
            header: Some(Duration::from_micros(7_000)),
            first_byte: Some(Duration::from_micros(9_900)),
        },
        retries: 1,
        request_bytes: 120,
        response_bytes: 4096,
        request_id: "a1b2c3",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        termination: *b"--",
        end_reason: "complete",
        user_agent: Some(b"client/1.0"),
        headers: &[],
    }
}

fn line(entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    line::write(&mut out, entry);
    String::from_utf8(out).unwrap()
}

fn json(entry: &Entry<'_>) -> Value {
    let line = line(entry);
    assert_eq!(line.find('\n'), Some(line.len() - 1));
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A sink that hands every batch to the test and fails or stalls when told to.
#[derive(Debug)]
struct Scripted {
    out: Sender<Vec<u8>>,
    /// One answer per write; when there is none left, everything is taken.
    answers: Receiver<io::Result<usize>>,
    /// When set, a write first waits for a word of the test.
    gate: Option<Receiver<()>>,
}

impl Sink for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = &self.gate {
            // When the test has let go of its end, the gate stays open.
            let _ = gate.recv();
        }
        let taken = self
            .answers
            .try_recv()
            .unwrap_or(Ok(bytes.len()))?
            .min(bytes.len());
        let _ = self.out.send(bytes[..taken].to_vec());
        Ok(taken)
    }
}

fn scripted(
    gate: Option<Receiver<()>>,
    answers: Vec<io::Result<usize>>,
) -> (AccessLog, Receiver<Vec<u8>>) {
    let (out, written) = mpsc::channel();
    let (script, rest) = mpsc::channel();
    for answer in answers {
        script.send(answer).unwrap();
    }
    let log = AccessLog::default();
    let sink = Scripted {
        out,
        answers: rest,
        gate,
    };
    log.onto(Box::new(sink), true).unwrap();
    (log, written)
}

#[test]
fn a_log_that_is_off_takes_everything() {
    let log = AccessLog::start(&LogTarget::Off).unwrap();
    assert!(!log.is_on());
    log.log(&LogFormat::Json, &entry());
    log.reopen();
    assert!(log.flush(Duration::ZERO));
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/access.log");
    assert!(AccessLog::start(&LogTarget::File(missing)).is_err());
}

#[test]
fn lines_are_dropped_and_counted_when_the_writer_stalls() {
    let (open, gate) = mpsc::channel();
    let (log, written) = scripted(Some(gate), Vec::new());
    let line_bytes = line(&entry()).len();
    // The first shard's buffer may be in the stalled writer's hands, the next one fills up.
    let enough = 3 * queue::SHARD_BYTES_MAX / line_bytes;
    for _ in 0..enough {
        log.log(&LogFormat::Json, &entry());
    }
    let dropped = log.dropped();
    assert!(dropped > 0);
    assert!(
        !log.flush(Duration::from_millis(1)),
        "nothing is written yet"
    );
    drop(open);
    assert!(log.flush(SOON));
    assert_eq!(log.dropped(), dropped, "what was queued is not lost");
    let bytes: usize = written.try_iter().map(|batch| batch.len()).sum();
    assert_eq!(bytes, (enough - dropped as usize) * line_bytes);
    // And the log works again.
    log.log(&LogFormat::Json, &entry());
    assert!(log.flush(SOON));
    assert_eq!(
        written.try_iter().map(|batch| batch.len()).sum::<usize>(),
        line_bytes
    );
}

#[test]
fn a_torn_line_does_not_spoil_the_next() {
    let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
    let answers = vec![
        Ok(10),
        full(),
        full(),
        Err(io::ErrorKind::Interrupted.into()),
    ];
    let (log, written) = scripted(None, answers);
    for _ in 0..3 {
        log.log(&LogFormat::Json, &entry());
        assert!(log.flush(SOON));
    }
    // The first line broke off, the second could not be written, the third is whole.
    assert_eq!(log.dropped(), 2);
    let all: Vec<u8> = written.try_iter().flatten().collect();
    let all = String::from_utf8(all).unwrap();
    let whole = line(&entry());
    assert_eq!(all, format!("{}\n{whole}", &whole[..10]));
}

#[test]
fn lines_follow_the_file_name_after_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let rotated = directory.path().join("access.log.1");
    let log = AccessLog::start(&LogTarget::File(path.clone())).unwrap();
    log.log(
        &LogFormat::Json,
        &Entry {
            request_id: "before",
            ..entry()
        },
    );
    assert!(log.flush(SOON));
    fs::rename(&path, &rotated).unwrap();
    log.log(
        &LogFormat::Json,
        &Entry {
            request_id: "between",
            ..entry()
        },
    );
    log.reopen();
    assert!(log.flush(SOON));
    log.log(
        &LogFormat::Json,
        &Entry {
            request_id: "after",
            ..entry()
        },
    );
    assert!(log.flush(SOON));
    assert_eq!(request_ids(&rotated), ["before", "between"]);
    assert_eq!(request_ids(&path), ["after"]);

    fs::remove_file(&path).unwrap();
    log.reopen();
    log.log(
        &LogFormat::Json,
        &Entry {
            request_id: "again",
            ..entry()
        },
    );
    assert!(log.flush(SOON));
    log.log(
        &LogFormat::Json,
        &Entry {
            request_id: "and again",
            ..entry()
        },
    );
    assert!(log.flush(SOON));
    // The first of the two may have been queued before the file was opened again.
    assert_eq!(
        request_ids(&path).last().map(String::as_str),
        Some("and again")
    );
}

#[test]
fn a_file_that_cannot_be_reopened_leaves_the_old_one_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("logs");
    let moved = directory.path().join("moved");
    fs::create_dir(&inside).unwrap();
    let log = AccessLog::start(&LogTarget::File(inside.join("access.log"))).unwrap();
    fs::rename(&inside, &moved).unwrap();
    log.reopen();
    assert!(log.flush(SOON));
    log.log(
        &LogFormat::Json,
        &Entry {
            request_id: "still",
            ..entry()
        },
    );
    assert!(log.flush(SOON));
    assert_eq!(request_ids(&moved.join("access.log")), ["still"]);
}

fn request_ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    let id = |line: &str| {
        let json: Value = serde_json::from_str(line).unwrap();
        json["request_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

#[test]
fn lines_of_many_threads_stay_whole_and_in_order() {
    const THREADS: usize = 12;
    const LINES: usize = 400;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = AccessLog::start(&LogTarget::File(path.clone())).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..LINES {
                    let id = format!("{thread}/{n}");
                    log.log(
                        &LogFormat::Json,
                        &Entry {
                            request_id: &id,
                            ..entry()
                        },
                    );
                }
            });
        }
    });
    assert!(log.flush(SOON));
    let mut next = [0; THREADS];
    for id in request_ids(&path) {
        let (thread, n) = id.split_once('/').unwrap();
        let thread: usize = thread.parse().unwrap();
        assert_eq!(n.parse::<usize>().unwrap(), next[thread]);
        next[thread] += 1;
    }
    assert_eq!(next, [LINES; THREADS]);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn the_last_handle_leaves_nothing_unwritten() {
    let (log, written) = scripted(None, Vec::new());
    let clone = log.clone();
    log.log(&LogFormat::Json, &entry());
    drop(log);
    clone.log(&LogFormat::Json, &entry());
    drop(clone);
    // The channel ends when the writer has left.
    let mut bytes = 0;
    while let Ok(batch) = written.recv_timeout(SOON) {
        bytes += batch.len();
    }
    assert_eq!(bytes, 2 * line(&entry()).len());
    assert_eq!(written.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn a_sleeping_writer_is_woken_by_a_line() {
    let (log, written) = scripted(None, Vec::new());
    // Several rounds, since a lost wake-up would be rare; no flush, which would wake it as well.
    for _ in 0..10 {
        let deadline = Instant::now() + SOON;
        while !log.0.queue.writer_is_asleep() {
            assert!(Instant::now() < deadline, "the writer never rests");
            thread::yield_now();
        }
        log.log(&LogFormat::Json, &entry());
        assert!(written.recv_timeout(SOON).is_ok());
    }
}
