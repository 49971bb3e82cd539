//! Which process a command talks to: the one at a socket, which a configuration may name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Error};
use super::complain;
use crate::config::{self, Problems};
use crate::server;

/// The exit status where nobody could be asked.
const UNREACHED: u8 = 3;

/// Which process, and how it is to be shown.
#[derive(Debug, Args)]
pub(super) struct To {
    #[command(flatten)]
    pub(super) place: Place,
    /// Print the answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl To {
    /// Talks to the process, and makes an exit status of what came of it.
    pub(super) fn with(&self, talk: impl FnOnce(&Client) -> Result<ExitCode, Error>) -> ExitCode {
        self.place.with(talk)
    }
}

/// Which process.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The admin socket of the process.
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The configuration of the process, which says where its socket is.
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Place {
    /// Talks to the process, and makes an exit status of what came of it.
    pub(super) fn with(&self, talk: impl FnOnce(&Client) -> Result<ExitCode, Error>) -> ExitCode {
        let socket = match self.find() {
            Ok(socket) => socket,
            Err(wrong) => {
                complain(&wrong);
                return ExitCode::FAILURE;
            }
        };
        talk(&Client::new(&socket)).unwrap_or_else(|error| {
            complain(&format!("tidegate: {error}"));
            exit_of(&error)
        })
    }

    fn find(&self) -> Result<PathBuf, String> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let Some(file) = &self.config else {
            return Ok(server::usual_admin_socket());
        };
        let shown = file.display();
        match config::load(file) {
            Ok(config) => {
                let off = || {
                    format!("tidegate: {shown} says `socket: off`; --socket PATH names another one")
                };
                server::admin_socket(&config).ok_or_else(off)
            }
            // The process goes on with what it has read before, so it can be asked, and has the
            // file's problems to tell where that is what is asked of it.
            Err(problems) => Ok(self.guess(file, &problems)),
        }
    }

    /// Where the socket probably is of a process whose file is wrong by now.
    fn guess(&self, file: &Path, problems: &Problems) -> PathBuf {
        let (socket, whence) = match server::admin_socket_as_written(file) {
            Some(socket) => (socket, "which it names all the same"),
            None => (server::usual_admin_socket(), "the usual place"),
        };
        let count = problems.as_slice().len();
        complain(&format!(
            "tidegate: warning: {} is wrong ({count} {}); asking at {}, {whence}. `tidegate -t` shows \
             what is wrong, and --socket PATH names another socket",
            file.display(),
            if count == 1 { "problem" } else { "problems" },
            socket.display()
        ));
        socket
    }
}

fn exit_of(error: &Error) -> ExitCode {
    match error {
        Error::Refused(_) => ExitCode::FAILURE,
        Error::Unreached { .. } | Error::Broken { .. } => ExitCode::from(UNREACHED),
    }
}
