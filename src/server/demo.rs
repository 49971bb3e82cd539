//! `tidegate demo`: the gateway in front of three built-in MCP servers, without a file.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::connection::{Handler, Served};
use super::inherited::Inherited;
use super::listeners::{Bound, bind};
use super::{StartError, run_with};
use crate::config::{self, Config, Problems};
use crate::demo::DemoServer;
use crate::transport::Downstream;

/// Where the demo listens.
pub const ADDRESS: &str = "127.0.0.1:8080";
/// Where its admin address is.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:9090";
/// Copies of the demo server.
const COPIES: usize = 3;
/// Connections to one copy.
const CONNECTIONS_MAX: usize = 4096;

/// Why the demo could not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A port for a copy could not be had.
    #[error("cannot start a demo server: {0}")]
    Copy(io::Error),
    /// The demo's own configuration is wrong, which is a bug.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The gateway could not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Runs the demo until it is told to stop. `hello` is given the names and addresses of the copies
/// once everything is bound.
///
/// # Errors
/// Whatever keeps it from starting; most likely something else listens on its addresses.
pub fn run(hello: impl FnOnce(&[(String, SocketAddr)])) -> Result<(), DemoError> {
    let mut copies = Vec::with_capacity(COPIES);
    let mut places = Vec::with_capacity(COPIES);
    for number in 1..=COPIES {
        let name = format!("demo-{number}");
        let bound = copy(&name).map_err(DemoError::Copy)?;
        let address = bound.socket.local_addr().map_err(DemoError::Copy)?;
        copies.push((bound, DemoServer::new(&name)));
        places.push((name, address));
    }
    let state_dir = std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
    let config = configuration(&places, &state_dir)?;
    let result = run_with(config, None, copies, || hello(&places));
    // Its sessions end with its servers, so their key is of no more use.
    let _ = std::fs::remove_dir_all(&state_dir);
    Ok(result?)
}

fn copy(name: &str) -> io::Result<Bound> {
    let listener = config::Listener {
        name: name.to_owned(),
        bind: config::Bind::at(SocketAddr::from(([127, 0, 0, 1], 0))),
        max_connections: CONNECTIONS_MAX,
        max_connections_per_client: None,
        tls: None,
        proxy_protocol: false,
    };
    let (_, mut bound) = bind(&listener, 1, None, &mut Inherited::default())?;
    bound.pop().ok_or_else(|| io::Error::other("no socket"))
}

/// The configuration an operator would write, with the ports filled in.
fn configuration(places: &[(String, SocketAddr)], state_dir: &Path) -> Result<Config, Problems> {
    let endpoints: String = places
        .iter()
        .map(|(name, address)| format!("      - {{ name: {name}, address: {address} }}\n"))
        .collect();
    let text = format!(
        "listeners:\n  - bind: {ADDRESS}\nroutes:\n  - path: /mcp\n    pool: demo\npools:\n  demo:\n    endpoints:\n{endpoints}\
         admin: {{ bind: {ADMIN_ADDRESS} }}\nlog: {{ access: stdout, level: warn }}\nstate_dir: {}\ndrain_timeout: 2s\n",
        state_dir.display()
    );
    config::parse("demo", &text)
}

impl Handler for DemoServer {
    async fn exchange<D: Downstream>(&self, mut down: D) -> Served<D> {
        self.serve(&mut down).await;
        Served::Done(down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_configuration_is_a_good_one() {
        let places = [("demo-1".to_owned(), "127.0.0.1:1".parse().unwrap())];
        let config = configuration(&places, Path::new("/tmp")).unwrap();
        assert_eq!(config.pools[0].endpoints[0].name, "demo-1");
    }
}
