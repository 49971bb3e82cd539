//! Which process a command talks to: the one at a socket, which a configuration may name.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Error};
use super::complain;
use crate::config;
use crate::server;

/// The exit status where nobody could be asked.
const UNREACHED: u8 = 3;

/// Which process, and how it is to be shown.
#[derive(Debug, Args)]
pub(super) struct To {
    /// The admin socket of the process.
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The configuration of the process, which says where its socket is.
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl To {
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
        let config = config::load(file).map_err(|problems| problems.to_string())?;
        let off = || format!("tidegate: {} says `socket: off`", file.display());
        server::admin_socket(&config).ok_or_else(off)
    }
}

fn exit_of(error: &Error) -> ExitCode {
    match error {
        Error::Refused(_) => ExitCode::FAILURE,
        Error::Unreached { .. } | Error::Broken { .. } => ExitCode::from(UNREACHED),
    }
}
