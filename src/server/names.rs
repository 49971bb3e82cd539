//! Endpoints that are given by name: their addresses follow it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::HostPort;
use crate::pool::Endpoint;

/// Keeps an endpoint's address up with its name. An answer that still holds the address in use
/// changes nothing; a failed look-up keeps the last address.
pub(super) async fn resolve(endpoint: Arc<Endpoint>, name: HostPort, every: Duration) {
    loop {
        tokio::time::sleep(every.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        resolve_once(&endpoint, &name).await;
    }
}

/// One look-up. An answer that still holds the address in use changes nothing.
pub(super) async fn resolve_once(endpoint: &Endpoint, name: &HostPort) {
    let found = look_up(endpoint, name).await;
    let current = endpoint.address();
    if !current.is_some_and(|address| found.contains(&address)) {
        move_to(endpoint, name, found.first());
    }
}

/// Goes on to the name's next address, for an endpoint that does not answer at the present one: a
/// name often stands for an IPv6 and an IPv4 address of which the server has only one.
pub(super) async fn next_address(endpoint: &Endpoint, name: &HostPort) {
    let found = look_up(endpoint, name).await;
    let current = endpoint.address();
    let at = found.iter().position(|address| Some(*address) == current);
    let next = at.map_or(0, |at| (at + 1) % found.len());
    move_to(endpoint, name, found.get(next));
}

async fn look_up(endpoint: &Endpoint, name: &HostPort) -> Vec<SocketAddr> {
    match tokio::net::lookup_host((name.host.as_str(), name.port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            log::warn!(endpoint = endpoint.name(); "cannot resolve {}: {error}", name.host);
            Vec::new()
        }
    }
}

fn move_to(endpoint: &Endpoint, name: &HostPort, address: Option<&SocketAddr>) {
    if let Some(address) = address
        && endpoint.address() != Some(*address)
    {
        endpoint.set_address(Some(*address));
        log::info!(endpoint = endpoint.name(); "{} is at {address}", name.host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{EndpointSpec, HealthState};

    async fn resolved(name: &str, current: Option<&str>) -> Option<SocketAddr> {
        let endpoint = Endpoint::new(EndpointSpec {
            name: "e".to_owned(),
            id: 1,
            weight: 1,
            backup: false,
            address: current.map(|address| address.parse().unwrap()),
            health: HealthState::Up,
        });
        let name = HostPort {
            host: name.to_owned(),
            port: 9,
        };
        resolve_once(&endpoint, &name).await;
        endpoint.address()
    }

    #[tokio::test]
    async fn an_address_follows_its_name() {
        let found = resolved("localhost", None).await.unwrap();
        assert!(found.ip().is_loopback() && found.port() == 9);
        let moved = resolved("localhost", Some("192.0.2.1:9")).await.unwrap();
        assert!(
            moved.ip().is_loopback(),
            "the old address is not among the answers"
        );
    }

    #[tokio::test]
    async fn another_address_is_tried_where_one_does_not_answer() {
        let endpoint = Endpoint::new(EndpointSpec {
            name: "e".to_owned(),
            id: 1,
            weight: 1,
            backup: false,
            address: "192.0.2.1:9".parse().ok(),
            health: HealthState::Unchecked,
        });
        let name = HostPort {
            host: "localhost".to_owned(),
            port: 9,
        };
        let found = look_up(&endpoint, &name).await;
        let mut tried = Vec::new();
        for _ in &found {
            next_address(&endpoint, &name).await;
            tried.extend(endpoint.address());
        }
        assert_eq!(tried, found, "each in turn");
    }

    #[tokio::test]
    async fn an_address_stays_while_its_name_still_has_it_or_cannot_be_looked_up() {
        assert_eq!(
            resolved("localhost", Some("127.0.0.1:9")).await,
            "127.0.0.1:9".parse().ok()
        );
        let lost = resolved("no-such-name.invalid", Some("192.0.2.1:9")).await;
        assert_eq!(lost, "192.0.2.1:9".parse().ok());
    }
}
