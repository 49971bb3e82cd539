//! What is asked of the process as a whole, and how the commands find it.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use super::said;
use crate::support::{Endpoint, Mcp, PATIENCE, Tidegate, eventually, text_of};

/// What leaving may take when nothing has to be waited for.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn logs_are_opened_anew() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let log = gate.places().access_log();
    gate.client().modern_call("whoami", json!({})).await;
    gate.logged(|line| line["tool_name"] == "whoami").await;
    std::fs::rename(&log, log.with_extension("1")).expect("a file of ours");
    let done = gate.ask(&["reopen"]).await;
    assert_eq!(done["process"], gate.pid());
    assert!(eventually(PATIENCE, || log.exists()).await);
    gate.client().modern_call("whoami", json!({})).await;
    gate.logged(|line| line["tool_name"] == "whoami").await;
    assert!(
        gate.stderr().contains("reopen \"\": done"),
        "{}",
        gate.stderr()
    );
}

#[tokio::test]
async fn quit_lets_calls_finish_and_stop_does_not() {
    let a = Endpoint::start("a").await;
    for (verb, finishes) in [("quit", true), ("stop", false)] {
        let mut gate = Tidegate::in_front_of(&[&a]).await;
        let client = gate.client();
        let session = client.initialize().await;
        let before = a.in_flight();
        let running = {
            let time = if finishes { 1000 } else { 60_000 };
            tokio::spawn(async move {
                let answer = client.call(&session, "slow", json!({ "ms": time }));
                tokio::time::timeout(SOON, answer).await
            })
        };
        assert!(eventually(PATIENCE, || a.in_flight() > before).await);
        let since = Instant::now();
        let done = gate.ask(&[verb]).await;
        assert_eq!(done["process"], gate.pid());
        let status = gate.wait_exit(SOON).await;
        assert!(status.success(), "{status}");
        assert!(gate.stderr().contains(&format!("{verb} \"\": done")));
        match finishes {
            true => assert_eq!(
                text_of(&running.await.expect("no panic").expect("in time")),
                "done"
            ),
            false => {
                running.abort();
                assert!(
                    since.elapsed() < Duration::from_secs(5),
                    "{:?}",
                    since.elapsed()
                );
            }
        }
    }
}

#[tokio::test]
async fn whoever_may_only_look_cannot_end_the_process() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::build(&[&a])
        .admin("socket_level: read")
        .start()
        .await;
    for verb in ["stop", "quit", "reopen", "reload", "upgrade"] {
        let refused = gate.verb(&[verb]).await;
        assert_eq!(refused.status.code(), Some(1), "{verb}");
        assert!(
            said(&refused).contains("may only read"),
            "{}",
            said(&refused)
        );
        assert!(gate.stderr().contains(&format!("{verb} \"\": refused")));
    }
    let looked = gate.admin().request("GET", "/v1/stop", &[], b"").await;
    assert_eq!((looked.status, looked.header("allow")), (405, Some("POST")));
    assert!(gate.is_running());
}

#[tokio::test]
async fn the_way_that_nginx_spells_it_does_the_same() {
    let a = Endpoint::start("a").await;
    let mut gate = Tidegate::in_front_of(&[&a]).await;
    let config = gate.places().config_file();
    let config = config.to_str().expect("UTF-8");
    let reloaded = Tidegate::command(&["-s", "reload", "-c", config]).await;
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    assert!(
        said(&reloaded).contains("reloaded in"),
        "{}",
        said(&reloaded)
    );
    let wrong = Tidegate::command(&["-s", "restart", "-c", config]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("reopen"), "{}", said(&wrong));
    let quit = Tidegate::command(&["-c", config, "-s", "quit"]).await;
    assert!(said(&quit).contains("drains and leaves"), "{}", said(&quit));
    assert!(gate.wait_exit(SOON).await.success());
    let gone = Tidegate::command(&["-c", config, "-s", "quit"]).await;
    assert_eq!(gone.status.code(), Some(3), "{}", said(&gone));
}

/// A command whose usual state directory is this one.
async fn at_home(state_dir: &Path, arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .env("STATE_DIRECTORY", state_dir)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, command).await;
    output.expect("in time").expect("the binary can be run")
}

#[tokio::test]
async fn the_process_is_found_though_the_file_is_wrong_by_now() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let good = gate.config();
    let path = gate.places().config_file();
    let config = path.to_str().expect("UTF-8");
    // It is YAML and says where the socket is.
    gate.write_config(&good.replace("pool: main", "pool: mian"));
    let reload = Tidegate::command(&["reload", "-c", config]).await;
    assert_eq!(reload.status.code(), Some(1), "{}", said(&reload));
    let told = said(&reload);
    assert!(told.contains("is wrong (1 problem)"), "{told}");
    assert!(told.contains("there is no pool `mian`"), "{told}");
    let status = Tidegate::command(&["status", "-c", config]).await;
    assert!(status.status.success(), "{}", said(&status));
    assert!(said(&status).contains("main/a"), "{}", said(&status));
    // It is not even YAML.
    gate.write_config(&format!("{good}\n  - x: [\n"));
    let state = gate.places().state_dir();
    let status = at_home(&state, &["status", "-c", config]).await;
    assert!(status.status.success(), "{}", said(&status));
    assert!(
        said(&status).contains("the usual place"),
        "{}",
        said(&status)
    );
    let nowhere = gate.places().dir().join("nowhere");
    let status = at_home(&nowhere, &["status", "-c", config]).await;
    assert_eq!(status.status.code(), Some(3), "{}", said(&status));
    let told = said(&status);
    assert!(
        told.contains("--socket PATH") && told.contains("nowhere"),
        "{told}"
    );
    assert!(gate.verb(&["status"]).await.status.success());
}
