//! Another program in the place of this one, while it serves.
//!
//! The program's file is run again, with the arguments that this process had, and is handed every
//! listening socket. Both share them, so no connection is refused at any moment. Once it says that it
//! serves, this process takes nothing new and drains. If it does not come so far, nothing has changed.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::inherited::READY_FD;
use super::socket::Accepting;

/// How long a new process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first file that is handed over (`SD_LISTEN_FDS_START`).
const FIRST_FD: i32 = 3;

/// Why this process was not replaced. It goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// Its own file is not known.
    #[error("this process does not know the file that it was started from")]
    NoProgram,
    /// The process is on its way out.
    #[error("this process is draining")]
    Draining,
    /// A socket's handle could not be had.
    #[error("cannot take another handle of a socket: {0}")]
    Sockets(io::Error),
    /// The new one could not be started.
    #[error("cannot start {0}: {1}")]
    Start(PathBuf, io::Error),
    /// The new one has ended.
    #[error("the new process has ended with {0}; its log says why")]
    Ended(ExitStatus),
    /// The new one does not come to serve.
    #[error("the new process did not serve within {PATIENCE:?} and was ended")]
    Late,
}

/// How this process was started.
pub(super) struct Program {
    path: Option<PathBuf>,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later the file may be another one, which is the point.
    pub(super) fn of_this_process() -> Self {
        Self {
            path: as_called().or_else(|| std::env::current_exe().ok()),
            arguments: std::env::args_os().skip(1).collect(),
        }
    }

    /// Starts it again with these sockets, and waits until it serves. Its process id.
    ///
    /// # Errors
    /// It does not serve, and runs no more.
    pub(super) async fn replace(&self, sockets: Vec<Accepting>) -> Result<u32, UpgradeError> {
        let path = self.path.clone().ok_or(UpgradeError::NoProgram)?;
        let failed = |error| UpgradeError::Start(path.clone(), error);
        let (mut word, said) = io::pipe().map_err(failed)?;
        let mut command = Command::new(&path);
        let ready = FIRST_FD + sockets.len() as i32;
        command
            .args(&self.arguments)
            .env("LISTEN_FDS", sockets.len().to_string())
            .env(READY_FD, ready.to_string())
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID");
        let files = sockets.into_iter().map(OwnedFd::from).chain([said.into()]);
        let mappings = files.zip(FIRST_FD..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .fd_mappings(mappings.collect())
            .map_err(|error| failed(io::Error::other(error)))?;
        let child = command.spawn().map_err(failed)?;
        // Holds our ends of what was handed over.
        drop(command);
        log::info!("started {} as process {}", path.display(), child.id());
        let reading = spawn_blocking(move || word.read_exact(&mut [0]));
        match timeout(PATIENCE, reading).await {
            Ok(Ok(Ok(()))) => Ok(child.id()),
            Ok(_) => Err(UpgradeError::Ended(ended(child).map_err(failed)?)),
            Err(_) => {
                let _ = ended(child);
                Err(UpgradeError::Late)
            }
        }
    }
}

/// The file of this process by the name that it was started by: behind a link of that name there may be
/// another program by the time of the upgrade. `None` if that name leads to another file even now.
fn as_called() -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    let path = match called.components().count() {
        1 => {
            let path = std::env::var_os("PATH")?;
            let places = std::env::split_paths(&path);
            places
                .map(|place| place.join(&called))
                .find(|p| p.is_file())?
        }
        _ => called,
    };
    let is_ours = path.canonicalize().ok()? == std::env::current_exe().ok()?;
    is_ours.then(|| std::path::absolute(path).ok()).flatten()
}

/// Ends a process, unless it has ended by itself; how it did.
fn ended(mut child: Child) -> io::Result<ExitStatus> {
    let _ = child.kill();
    child.wait()
}
