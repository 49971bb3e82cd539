//! `tidegate top` on a real terminal.

use std::time::{Duration, Instant};

use crate::support::tmux::Terminal;
use crate::support::{Endpoint, Mcp, PATIENCE, Tidegate, eventually, within};

/// How soon an endpoint that dies is to be seen.
const SOON: Duration = Duration::from_secs(2);

/// The line of the screen that is about this.
fn line(screen: &str, about: &str) -> String {
    let found = screen.lines().find(|line| line.contains(about));
    found.unwrap_or_default().to_owned()
}

/// `top` at this process, in a terminal that keeps what it was like before and after.
async fn top(gate: &Tidegate, columns: u16, rows: u16, environment: &str) -> Terminal {
    let socket = gate.places().admin_socket();
    let program = env!("CARGO_BIN_EXE_tidegate");
    let line = format!(
        "echo before; stty -g > {before}; {environment} {program} top --socket {}; \
         echo \"left with $?\"; stty -g > {after}; echo behind; read -r key",
        socket.display(),
        before = gate.places().dir().join("before").display(),
        after = gate.places().dir().join("after").display(),
    );
    Terminal::run(columns, rows, &line).await
}

/// The terminal is as it was, and the program has left with this status.
async fn is_put_back(gate: &Tidegate, terminal: &Terminal, status: u8) {
    // The shell still waits for a key: tmux hides the cursor of a terminal whose command is over.
    let screen = terminal
        .until("it has left", |screen| screen.contains("behind"))
        .await;
    assert!(screen.contains("before"), "{screen}");
    assert!(screen.contains(&format!("left with {status}")), "{screen}");
    assert!(!screen.contains("main/a"), "{screen}");
    assert_eq!(terminal.says("alternate_on").await, "0");
    assert_eq!(terminal.says("cursor_flag").await, "1");
    let settings = |name: &str| std::fs::read_to_string(gate.places().dir().join(name));
    let before = settings("before").expect("it was written");
    assert_eq!(before, settings("after").expect("it was written"));
}

async fn pair() -> (Endpoint, Endpoint) {
    (Endpoint::start("a").await, Endpoint::start("b").await)
}

#[tokio::test]
async fn pools_endpoints_and_sessions_are_shown_live_and_an_endpoint_that_dies_is_soon() {
    let (a, b) = pair().await;
    let gate = Tidegate::build(&[&a, &b])
        .health("{ interval: 200ms, rise: 1, fall: 2 }")
        .start()
        .await;
    let session = gate.client().initialize().await;
    let terminal = top(&gate, 100, 30, "").await;
    let is_up = |screen: &str| line(screen, "main/b").contains(" up ");
    let screen = terminal.until("both are up", is_up).await;
    assert!(line(&screen, "main/a").contains(" up "), "{screen}");
    assert!(screen.contains("1 sessions"), "{screen}");
    terminal.press(&["2"]).await;
    let pools = |screen: &str| line(screen, "main").contains("2/2");
    terminal.until("the pool", pools).await;
    terminal.press(&["3"]).await;
    let sessions = |screen: &str| line(screen, "> ").contains("main/");
    terminal.until("the session", sessions).await;
    terminal.press(&["1"]).await;
    for _ in 0..20 {
        gate.client().whoami(&session).await;
    }
    let counted = |screen: &str| {
        let rate = screen.split(" requests/s").next().unwrap_or_default();
        let rate = rate.split_whitespace().last().unwrap_or_default();
        rate.parse::<f64>().is_ok_and(|rate| rate > 0.0)
    };
    terminal.until("requests per second", counted).await;
    let died = Instant::now();
    b.kill().await;
    let is_down = |screen: &str| line(screen, "main/b").contains(" down ");
    let screen = terminal.until("it is down", is_down).await;
    let took = died.elapsed();
    eprintln!("an endpoint that died was shown after {took:?}");
    assert!(took < SOON, "{took:?}");
    assert!(line(&screen, "main/b").contains("refused"), "{screen}");
    terminal.press(&["q"]).await;
    is_put_back(&gate, &terminal, 0).await;
}

#[tokio::test]
async fn an_endpoint_is_drained_by_a_key_and_a_yes_alone() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    gate.client().initialize().await;
    let terminal = top(&gate, 80, 24, "NO_COLOR=1").await;
    terminal
        .until("it is shown", |screen| screen.contains("main/b"))
        .await;
    terminal.press(&["j", "d"]).await;
    terminal
        .until("a question", |screen| screen.contains("drain main/b?"))
        .await;
    terminal.press(&["n"]).await;
    terminal
        .until("no", |screen| screen.contains("nothing was done"))
        .await;
    let admin = async || gate.ask(&["status"]).await["pools"][0]["endpoints"][1]["admin"].clone();
    assert_eq!(admin().await["state"], "up");
    terminal.press(&["m"]).await;
    terminal
        .until("a question", |screen| screen.contains("maint main/b?"))
        .await;
    terminal.press(&["y"]).await;
    let is_out = |screen: &str| line(screen, "> main/b").contains(" maint ");
    terminal.until("it is out", is_out).await;
    assert_eq!(admin().await["set_by"], "operator");
    terminal.press(&["r", "y"]).await;
    let is_back = |screen: &str| line(screen, "> main/b").contains(" up ");
    terminal.until("it is back", is_back).await;
    terminal.press(&["k", "d", "y"]).await;
    let is_drained = |screen: &str| {
        let state = line(screen, "> main/a");
        state.contains(" drain ") || state.contains(" maint ")
    };
    terminal.until("it is drained", is_drained).await;
    terminal.press(&["C-c"]).await;
    is_put_back(&gate, &terminal, 0).await;
}

#[tokio::test]
async fn a_restart_is_watched_through_and_a_signal_puts_the_terminal_back() {
    let (a, b) = pair().await;
    let mut gate = Tidegate::in_front_of(&[&a, &b]).await;
    let terminal = top(&gate, 100, 30, "").await;
    terminal
        .until("it is shown", |screen| screen.contains("main/b"))
        .await;
    gate.kill().await;
    let is_lost = |screen: &str| screen.contains("CONNECTION LOST") && screen.contains("main/b");
    terminal.until("it is lost", is_lost).await;
    gate.start_again().await;
    terminal
        .until("it is found", |screen| !screen.contains("LOST"))
        .await;
    let child = terminal.child().await;
    let kill = tokio::process::Command::new("kill")
        .args(["-s", "TERM", &child])
        .status();
    assert!(
        within("kill", kill).await.expect("it can be run").success(),
        "{child}"
    );
    is_put_back(&gate, &terminal, 128 + 15).await;
}

#[tokio::test]
async fn it_leaves_when_its_terminal_is_closed() {
    let (a, b) = pair().await;
    let gate = Tidegate::in_front_of(&[&a, &b]).await;
    let terminal = top(&gate, 100, 30, "").await;
    terminal
        .until("it is shown", |screen| screen.contains("main/b"))
        .await;
    let child = terminal.child().await;
    let is_there = || std::path::Path::new("/proc").join(&child).exists();
    assert!(is_there(), "{child}");
    drop(terminal);
    assert!(eventually(PATIENCE, || !is_there()).await, "{child} stays");
}

#[tokio::test]
async fn without_a_terminal_or_a_process_it_says_so_and_leaves() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let piped = gate.verb(&["top"]).await;
    assert_eq!(piped.status.code(), Some(1));
    let said = String::from_utf8_lossy(&piped.stderr);
    assert!(said.contains("needs a terminal"), "{said}");
    assert!(piped.stdout.is_empty(), "{piped:?}");
    let program = env!("CARGO_BIN_EXE_tidegate");
    let line = format!("{program} top --socket /no/such.sock; echo left with $?");
    let terminal = Terminal::run(100, 30, &line).await;
    terminal.until_over().await;
    let screen = terminal.screen().await;
    assert!(screen.contains("there is no such socket"), "{screen}");
    assert!(screen.contains("left with 3"), "{screen}");
}
