//! The program under test: the real binary, with a configuration, a state directory and logs of
//! its own, in a directory that goes away with it.
//!
//! ```ignore
//! let (a, b) = (Endpoint::start("a").await, Endpoint::start("b").await);
//! let gate = Tidegate::in_front_of(&[&a, &b]).await;
//! let session = gate.client().initialize().await;
//! ```
//!
//! Its ports are reserved by sockets that are bound and do not listen, so that no other test gets
//! them, not even over a restart.

use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{Client, Endpoint, PATIENCE, eventually_some, h2::H2Client, within};

mod config;
mod metrics;

pub(crate) use config::{Builder, Places};
pub(crate) use metrics::Metrics;

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Tidegate {
    builder: Builder,
    places: Places,
    child: Child,
    /// Processes that took over from the child; killed with it.
    adopted: Vec<u32>,
}

/// A program that ended instead of serving.
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Tidegate {
    /// The usual one: `/mcp` leads to one pool, `main`, of these endpoints, without health checks.
    pub(crate) async fn in_front_of(endpoints: &[&Endpoint]) -> Self {
        Self::build(endpoints).start().await
    }

    /// One with settings; see [`Builder`].
    pub(crate) fn build(endpoints: &[&Endpoint]) -> Builder {
        Builder::new(endpoints)
    }

    /// Runs the binary with these arguments to its end, as an operator at a prompt would.
    pub(crate) async fn command(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = within("the command", command.output()).await;
        output.expect("the binary can be run")
    }

    async fn launch(builder: Builder, places: Places) -> Result<Self, StartFailure> {
        let config = builder.render(&places);
        std::fs::write(places.config_file(), config).expect("a file in our own directory");
        let child = spawn(&builder, &places);
        let mut gate = Self {
            builder,
            places,
            child,
            adopted: Vec::new(),
        };
        gate.wait_ready().await?;
        Ok(gate)
    }

    /// Waits until the admin address says ready, or the child ends.
    async fn wait_ready(&mut self) -> Result<(), StartFailure> {
        let admin = Client::new(self.places.admin);
        let ready = eventually_some(PATIENCE, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(status));
            }
            let answer = admin.try_request("GET", "/ready", &[], b"").await;
            (answer.ok()?.status == 200).then_some(Ok(()))
        });
        let failure = |status| StartFailure {
            status,
            stderr: self.places.stderr(),
        };
        match ready.await {
            Some(ready) => ready.map_err(failure),
            None => panic!("not ready after {PATIENCE:?}: {}", self.places.stderr()),
        }
    }

    // Where it is.

    /// The address of its listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.places.listen
    }

    /// The admin address.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.places.admin
    }

    /// The URL of the MCP path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.places.listen)
    }

    /// The directory, files and ports that are its own.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// The process id of the child.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the child has not been waited for")
    }

    /// A client of its listener.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.places.listen)
    }

    /// A client of the admin address.
    pub(crate) fn admin(&self) -> Client {
        Client::new(self.places.admin)
    }

    /// An HTTP/2 client of its listener.
    pub(crate) async fn h2_client(&self) -> H2Client {
        let client = H2Client::connect(self.places.listen).await;
        client.expect("an HTTP/2 connection to the listener")
    }

    // Life and death.

    /// Kills the process and starts it again: same configuration file, same state, same ports.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// Starts it again after it has ended, from the configuration file as it stands.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.builder, &self.places);
        if let Err(e) = self.wait_ready().await {
            panic!("it did not start again: {e:?}");
        }
    }

    /// Kills the process (KILL) and waits for its end.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("the child is ours");
    }

    /// Sends a signal by name, to the process that serves: `HUP`, `TERM`, `USR1`.
    pub(crate) fn signal(&self, name: &str) {
        let serves = self.adopted.last().copied().unwrap_or_else(|| self.pid());
        let sent = send_signal(serves, name);
        assert!(sent, "kill -s {name} {serves}");
    }

    /// Waits for the process to end by itself; panics when it does not.
    pub(crate) async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => status.expect("the child is ours"),
            Err(_) => panic!("still running after {deadline:?}: {}", self.stderr()),
        }
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Has another process, to which the child handed over, killed on drop too.
    pub(crate) fn adopt(&mut self, pid: u32) {
        self.adopted.push(pid);
    }

    /// Runs a command against its admin socket: `verb(&["drain", "main/a"])`.
    pub(crate) async fn verb(&self, arguments: &[&str]) -> Output {
        let socket = self.places.admin_socket();
        let socket = socket.to_str().expect("UTF-8");
        Self::command(&[arguments, &["--socket", socket]].concat()).await
    }

    /// The same, for a command that succeeds: what it prints as JSON.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.verb(&[arguments, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    // Its configuration.

    /// The configuration file's text.
    pub(crate) fn config(&self) -> String {
        let text = std::fs::read_to_string(self.places.config_file());
        text.expect("written at the start")
    }

    /// Puts another text into the configuration file; nobody is told.
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.places.config_file(), text).expect("a file in our own directory");
    }

    // What it tells.

    /// Puts another file in the place of the old one, and waits until it is in force.
    pub(crate) async fn reload(&self, text: &str) {
        let told = || self.stderr().matches("reloaded in").count();
        let before = told();
        self.write_config(text);
        self.signal("HUP");
        let is_done = super::eventually(PATIENCE, || told() > before).await;
        assert!(is_done, "{}", self.stderr());
    }

    /// What it has written to its standard error.
    pub(crate) fn stderr(&self) -> String {
        self.places.stderr()
    }

    /// The metrics as they are now.
    pub(crate) async fn metrics(&self) -> Metrics {
        let mut response = self.admin().request("GET", "/metrics", &[], b"").await;
        assert_eq!(response.status, 200, "/metrics");
        Metrics::parse(&response.text().await)
    }

    /// Waits until the metrics are as wanted, and returns them.
    pub(crate) async fn metrics_when(&self, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let found = eventually_some(PATIENCE, async || {
            let metrics = self.metrics().await;
            wanted(&metrics).then_some(metrics)
        });
        match found.await {
            Some(metrics) => metrics,
            None => panic!("never as wanted: {:#?}", self.metrics().await),
        }
    }

    /// The access log, line by line; the last line only when it is whole.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.places.access_log()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(e) => panic!("an access log line is not JSON ({e}): {line}"),
        };
        whole.lines().map(parse).collect()
    }

    /// Waits for a line of the access log, which is written when the exchange is over.
    pub(crate) async fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async || self.access_log().into_iter().find(&wanted);
        match eventually_some(PATIENCE, look).await {
            Some(line) => line,
            None => panic!("no such line: {:#?}", self.access_log()),
        }
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        // The child itself is killed by its handle. One that was started and came too late to be
        // adopted is known from what was said.
        let stderr = self.places.stderr();
        let started = stderr.split(" as process ").skip(1);
        let started = started.filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
        for pid in self.adopted.iter().copied().chain(started) {
            // It may be gone already.
            let _ = send_signal(pid, "KILL");
        }
        if std::thread::panicking() {
            let tail: String = self.places.stderr().chars().rev().take(4000).collect();
            let tail: String = tail.chars().rev().collect();
            eprintln!("--- the program's standard error\n{tail}\n---");
        }
    }
}

fn spawn(builder: &Builder, places: &Places) -> Child {
    let stderr = match &builder.stderr {
        Some(to) => to.try_clone().expect("another handle").into(),
        None => std::fs::File::options()
            .create(true)
            .append(true)
            .open(places.stderr_file())
            .expect("a file in our own directory"),
    };
    let stdout = stderr.try_clone().expect("a second handle");
    let mut command = Command::new(&builder.program);
    command
        .arg("-c")
        .arg(places.config_file())
        .args(&builder.arguments)
        .envs(builder.variables.iter().cloned())
        .current_dir(places.dir())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(true);
    if !builder.handed.is_empty() {
        let count = builder.handed.len();
        command.env("LISTEN_FDS", count.to_string());
        let handed = builder.handed.iter().zip(3..).map(|(socket, child_fd)| {
            let socket = socket.try_clone().expect("another handle");
            let parent_fd = socket.into();
            FdMapping {
                parent_fd,
                child_fd,
            }
        });
        let mapped = command.as_std_mut().fd_mappings(handed.collect());
        mapped.expect("each file has a number of its own");
    }
    command.spawn().expect("the binary can be run")
}

/// Sends a signal through the command, for the call itself would be `unsafe` here.
fn send_signal(pid: u32, name: &str) -> bool {
    let status = std::process::Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
