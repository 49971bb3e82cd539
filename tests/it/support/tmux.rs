//! A terminal with somebody in front of it: tmux, with a server, a socket and a configuration of its own.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use super::{PATIENCE, eventually_some, within};

/// Colours and lines of its own would only be in the way; and what a program leaves stays to be looked at.
const CONFIG: &str = "set -g status off\nset -g remain-on-exit on\nset -g escape-time 0\n";

/// A terminal in which one command runs. Dropped, it is closed.
pub(crate) struct Terminal {
    dir: TempDir,
}

impl Terminal {
    /// One of so many columns and rows that runs this line of a shell.
    pub(crate) async fn run(columns: u16, rows: u16, line: &str) -> Self {
        let dir = TempDir::with_prefix("tidegate-tmux-").expect("a directory");
        std::fs::write(dir.path().join("conf"), CONFIG).expect("a file in our own directory");
        let terminal = Self { dir };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let conf = terminal.dir.path().join("conf");
        let conf = conf.to_str().expect("UTF-8");
        let begun = terminal
            .tmux(&[
                "-f",
                conf,
                "new-session",
                "-d",
                "-x",
                &columns,
                "-y",
                &rows,
                line,
            ])
            .await;
        assert!(begun.status.success(), "{begun:?}");
        terminal
    }

    /// A file of its own, for the command to write to.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Presses keys, in tmux's words.
    pub(crate) async fn press(&self, keys: &[&str]) {
        let pressed = self.tmux(&[&["send-keys"], keys].concat()).await;
        assert!(pressed.status.success(), "{pressed:?}");
    }

    /// What stands on the screen, and above it: a command that ends moves its last lines up.
    pub(crate) async fn screen(&self) -> String {
        let captured = self.tmux(&["capture-pane", "-p", "-S", "-200"]).await;
        String::from_utf8_lossy(&captured.stdout).into_owned()
    }

    /// Waits until what stands on the screen is as wanted; what stands there then.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = eventually_some(PATIENCE, async || {
            let screen = self.screen().await;
            wanted(&screen).then_some(screen)
        });
        match found.await {
            Some(screen) => screen,
            None => panic!("{what}: {}", self.screen().await),
        }
    }

    /// What tmux says of the terminal: `alternate_on`, `cursor_flag`, `pane_dead`, `pane_pid`.
    pub(crate) async fn says(&self, of: &str) -> String {
        let told = self
            .tmux(&["display-message", "-p", &format!("#{{{of}}}")])
            .await;
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }

    /// The process that the shell has started.
    pub(crate) async fn child(&self) -> String {
        let shell = self.says("pane_pid").await;
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        children.expect("the shell is there").trim().to_owned()
    }

    /// Waits until the command is over.
    pub(crate) async fn until_over(&self) {
        let over = eventually_some(PATIENCE, async || {
            (self.says("pane_dead").await == "1").then_some(())
        });
        if over.await.is_none() {
            panic!("still running: {}", self.screen().await);
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    async fn tmux(&self, arguments: &[&str]) -> Output {
        let output = command(&self.socket()).args(arguments).output();
        let output = within("tmux", output).await;
        output.expect("the Debian package `tmux`, which `make setup-tests` installs")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut end = std::process::Command::new("tmux");
        end.arg("-S").arg(self.socket()).arg("kill-server");
        // The server may have ended with its last command.
        let _ = end.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn command(socket: &Path) -> Command {
    let mut command = Command::new("tmux");
    command
        .arg("-S")
        .arg(socket)
        .env_remove("TMUX")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
