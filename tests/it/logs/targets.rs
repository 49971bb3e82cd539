//! Where lines go: syslog, files that are rotated under load, and the messages beside them.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{call, named};
use crate::support::{Endpoint, Mcp, Tidegate, eventually};

const SOON: Duration = Duration::from_secs(10);

/// The header of a message of RFC 5424, word by word, and what it is about.
fn parsed(message: &str) -> (Vec<&str>, Value) {
    let mut words: Vec<&str> = message.splitn(8, ' ').collect();
    let line = words.pop().expect("a line");
    let read = serde_json::from_str(line);
    (words, read.unwrap_or_else(|e| panic!("{e}: {message}")))
}

fn check(message: &[u8], priority: &str, tag: &str, pid: u32) {
    let message = std::str::from_utf8(message).expect("a text");
    let (words, line) = parsed(message);
    let [first, time, _host, app, process, id, data] = words[..] else {
        panic!("{message}");
    };
    assert_eq!(first, format!("<{priority}>1"));
    assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    assert_eq!((app, id, data), (tag, "access", "-"));
    assert_eq!(process, pid.to_string());
    assert_eq!(line["mcp_method"], "tools/call");
    assert!(!message.ends_with('\n'));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_to_a_syslog_server_over_udp() {
    let a = Endpoint::start("a").await;
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    server.set_read_timeout(Some(SOON)).expect("an option");
    let address = server.local_addr().expect("its address");
    let gate = Tidegate::build(&[&a])
        .log(&format!(
            "{{ access: {{ to: syslog, syslog: {{ server: \"udp:{address}\", facility: local0, tag: edge }} }} }}"
        ))
        .start()
        .await;
    for _ in 0..3 {
        gate.client().send(call("whoami", json!({}))).await;
        let mut buffer = [0; 8192];
        let length = server.recv(&mut buffer).expect("a message");
        check(&buffer[..length], "134", "edge", gate.pid());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_to_a_syslog_socket_that_may_come_and_go() {
    let a = Endpoint::start("a").await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let gate = Tidegate::build(&[&a])
        .log(&format!(
            "{{ access: {{ to: syslog, syslog: {{ server: {} }} }} }}",
            path.display()
        ))
        .start()
        .await;
    // Nobody listens yet: requests are served, and the line is counted as lost.
    assert_eq!(
        gate.client().send(call("whoami", json!({}))).await.status,
        200
    );
    gate.metrics_when(|metrics| metrics.sum("tidegate_log_lines_dropped_total") == 1.0)
        .await;
    for _ in 0..2 {
        let server = UnixDatagram::bind(&path).expect("a socket of ours");
        server.set_read_timeout(Some(SOON)).expect("an option");
        gate.client().send(call("whoami", json!({}))).await;
        let mut buffer = [0; 8192];
        let length = server.recv(&mut buffer).expect("a message");
        check(&buffer[..length], "190", "tidegate", gate.pid());
        drop(server);
        std::fs::remove_file(&path).expect("a file of ours");
    }
}

#[tokio::test]
async fn no_line_is_lost_when_files_are_rotated_under_load() {
    const CLIENTS: usize = 4;
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let log = gate.places().access_log();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for client in 0..CLIENTS {
        let client = named(&gate, &format!("client-{client}"));
        let is_over = Arc::clone(&is_over);
        running.push(tokio::spawn(async move {
            let mut calls = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(client.send(call("whoami", json!({}))).await.status, 200);
                calls += 1;
            }
            calls
        }));
    }
    let mut rotated = Vec::new();
    for turn in 0..5 {
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
        assert!(eventually(SOON, || log.exists() && !read(&log).is_empty()).await);
        let old = log.with_extension(turn.to_string());
        std::fs::rename(&log, &old).expect("a file of ours");
        gate.signal("USR1");
        // Once the new file is there, the old one is as it will stay.
        assert!(eventually(SOON, || log.exists()).await);
        rotated.push((read(&old), old));
    }
    is_over.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for client in running {
        calls += client.await.expect("every call is answered");
    }
    named(&gate, "end")
        .request("GET", "/nowhere", &[], b"")
        .await;
    gate.logged(|line| line["user_agent"] == "end").await;
    let mut all = 0;
    for (before, path) in &rotated {
        let now = std::fs::read_to_string(path).expect("a file of ours");
        assert_eq!(*before, now, "the old file was written to");
        all += now.matches("\"client-").count();
    }
    let last = std::fs::read_to_string(&log).expect("the log");
    all += last.matches("\"client-").count();
    assert_eq!(all, calls);
    let dropped = gate.metrics().await.sum("tidegate_log_lines_dropped_total");
    assert_eq!(dropped, 0.0);
}

#[tokio::test]
async fn messages_are_one_json_object_each_where_that_is_wanted() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::build(&[&a])
        .log("{ access: off, level: info, format: json }")
        .start()
        .await;
    gate.signal("USR1");
    assert!(eventually(SOON, || gate.stderr().contains("USR1")).await);
    let stderr = gate.stderr();
    let mut levels = Vec::new();
    for line in stderr.lines() {
        let read: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(read[key].is_string(), "{key} in {line}");
        }
        levels.push(read["level"].as_str().unwrap_or_default().to_owned());
    }
    assert!(levels.iter().any(|level| level == "info"), "{stderr}");
    assert!(!levels.iter().any(|level| level == "debug"), "{stderr}");
}

#[tokio::test]
async fn a_reload_changes_where_lines_go_and_what_they_say() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let first = gate.places().access_log();
    let second = first.with_extension("2");
    let missing = gate.places().dir().join("missing/access.log");
    let client = gate.client();
    client.send(call("whoami", json!({}))).await;
    gate.logged(|line| line["tool_name"] == "whoami").await;
    let text = gate.config();
    let (before, log) = text.split_once("log: ").expect("it is configured");
    let (_, after) = log.split_once('\n').expect("more keys, or none");
    let turn = |log: &str| {
        gate.write_config(&format!("{before}log: {log}\n{after}"));
        gate.signal("HUP");
    };
    turn(&format!(
        "{{ access: {{ to: {}, format: \"$status $mcp_tool\" }}, level: info, format: json }}",
        second.display()
    ));
    let json = |line: &str| line.starts_with('{') && line.contains("reloaded in");
    assert!(eventually(SOON, || gate.stderr().lines().any(json)).await);
    client.send(call("counter", json!({}))).await;
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    assert!(eventually(SOON, || read(&second) == "200 counter\n").await);
    assert!(!read(&first).contains("counter"));

    turn(&format!("{{ access: {} }}", missing.display()));
    let refused = || gate.stderr().contains("not reloaded");
    assert!(eventually(SOON, refused).await);
    assert!(gate.stderr().contains("cannot open the access log"));
    client.send(call("whoami", json!({}))).await;
    assert!(eventually(SOON, || read(&second).ends_with("200 whoami\n")).await);
}
