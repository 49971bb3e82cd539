//! `tidegate status --watch`, on a terminal and in a pipe.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};

use super::pair;
use crate::support::{PATIENCE, Tidegate};

/// What stands before each drawing on a terminal.
const HOME: &str = "\x1b[H";

/// Reads until what was read is as wanted, or the program ends.
async fn read_until(output: &mut ChildStdout, read: &mut String, wanted: impl Fn(&str) -> bool) {
    let reading = async {
        let mut piece = [0; 4096];
        while !wanted(read) {
            match output.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => read.push_str(&String::from_utf8_lossy(&piece[..length])),
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, reading).await;
    assert!(wanted(read), "{read:?}");
}

fn begin(command: &mut Command) -> (Child, ChildStdout) {
    let started = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = started.expect("it can be run");
    let output = child.stdout.take().expect("it is piped");
    (child, output)
}

#[tokio::test]
async fn on_a_terminal_the_table_is_drawn_over_the_one_before() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    let socket = gate.places().admin_socket();
    let line = format!(
        "{} status --watch 1 --socket {}",
        env!("CARGO_BIN_EXE_tidegate"),
        socket.display()
    );
    // Gives it a terminal.
    let mut terminal = Command::new("script");
    terminal.args(["-qefc", &line, "/dev/null"]);
    let (_child, mut output) = begin(&mut terminal);
    let mut drawn = String::new();
    let tables = |drawn: &str| drawn.split(HOME).map(str::to_owned).collect::<Vec<_>>();
    read_until(&mut output, &mut drawn, |drawn| tables(drawn).len() > 2).await;
    assert!(tables(&drawn)[1].contains("main/a"), "{drawn:?}");
    assert!(!drawn.contains("maint"), "{drawn:?}");
    for line in tables(&drawn)[1].trim_end().lines() {
        assert!(
            line.contains("\x1b[K"),
            "what stood there is wiped: {line:?}"
        );
    }
    gate.ask(&["maint", "main/a"]).await;
    read_until(&mut output, &mut drawn, |drawn| drawn.contains("maint")).await;
    // A restart is watched through.
    gate.kill().await;
    read_until(&mut output, &mut drawn, |drawn| {
        drawn.contains("nobody listens")
    })
    .await;
    let before = tables(&drawn).len();
    gate.start_again().await;
    read_until(&mut output, &mut drawn, |drawn| {
        tables(drawn)[before..]
            .iter()
            .any(|table| table.contains("main/b"))
    })
    .await;
}

#[tokio::test]
async fn in_a_pipe_one_table_follows_the_other_until_there_is_no_process() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let socket = gate.places().admin_socket();
    command.args(["status", "--watch", "--socket"]).arg(socket);
    let (mut child, mut output) = begin(&mut command);
    let mut printed = String::new();
    let is_twice = |printed: &str| printed.matches("main/b").count() >= 2;
    read_until(&mut output, &mut printed, is_twice).await;
    assert!(!printed.contains('\x1b'), "{printed:?}");
    gate.kill().await;
    let status = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    let status = status.expect("it ends").expect("it is ours");
    assert_eq!(status.code(), Some(3));
}
