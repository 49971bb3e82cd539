//! Messages that were refused because they are no proper HTTP, as the API shows them.

use serde::{Deserialize, Serialize};

use crate::server::operator::Operator;
use crate::telemetry::messages;
use crate::transport::refused::{self, Refused, Sender};

/// The last messages that were refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errors {
    /// How many there were since the start.
    pub total: u64,
    /// The last of them, the newest first; fewer, where many came at once.
    pub errors: Vec<Shown>,
}

/// A message that was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// Who has sent it: `client` or `server`.
    pub side: String,
    /// Where it came in; none for one of a server.
    pub listener: Option<String>,
    /// The server's pool; none for one of a client, and where the configuration has the endpoint no more.
    pub pool: Option<String>,
    /// The endpoint in it.
    pub endpoint: Option<String>,
    /// The address that it came from; none on a unix socket.
    pub peer: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// How many bytes into its head that stands, where it is known.
    pub position: Option<usize>,
    /// The byte there, such as `x` or `\x00`.
    pub byte: Option<String>,
    /// Lines of its head around that place. Values are shown of few fields, and only where they are what is
    /// wrong; of others the length.
    pub head: Vec<String>,
}

/// The last that were refused.
pub(super) fn errors(operator: &Operator) -> Errors {
    let (last, total) = refused::last();
    Errors {
        total,
        errors: last.into_iter().map(|one| shown(operator, one)).collect(),
    }
}

fn shown(operator: &Operator, refused: Refused) -> Shown {
    let (side, listener, names, address) = match refused.sender {
        Sender::Client { listener, address } => ("client", Some(listener), None, address),
        Sender::Server { group, address } => {
            let names = operator.dialed(group, address);
            ("server", None, names, address)
        }
    };
    let (pool, endpoint) = names.unzip();
    Shown {
        time: messages::moment(refused.at),
        side: side.to_owned(),
        listener: listener.map(|name| name.to_string()),
        pool,
        endpoint,
        peer: Some(address)
            .filter(|address| !address.ip().is_unspecified())
            .map(|address| address.to_string()),
        what: refused.why,
        position: refused.excerpt.position,
        byte: refused.excerpt.byte,
        head: refused.excerpt.lines,
    }
}
