//! Endpoints that are given by name: their addresses follow it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::dns::{self, Answer, Server};
use super::several::{Key, is_held};
use crate::config::HostPort;
use crate::pool::Endpoint;

/// A name, and the name servers to ask about it; none for the system's own way.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) name: HostPort,
    pub(super) servers: Vec<SocketAddr>,
}

/// Keeps an endpoint's address up with its name. An answer that still holds the address in use
/// changes nothing; failed look-ups keep the last address for as long as `hold` says, or for ever.
pub(super) async fn resolve(
    endpoint: Arc<Endpoint>,
    name: Followed,
    every: Duration,
    hold: Option<Duration>,
) {
    let mut good = Instant::now();
    loop {
        tokio::time::sleep(pause(every)).await;
        let found = resolve_once(&endpoint, &name).await;
        let now = Instant::now();
        if found {
            good = now;
        } else if !is_held(hold, good, now) && endpoint.set_address(None) {
            log::warn!(endpoint = endpoint.name(); "{} has had no address for {:?}; its last one is given up", name.name.host, now - good);
        }
    }
}

/// A pause between two look-ups, a tenth more or less, so that names are not looked up together.
pub(super) fn pause(every: Duration) -> Duration {
    every.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// One look-up; false if it found nothing. An answer that still holds the address in use changes nothing.
pub(super) async fn resolve_once(endpoint: &Endpoint, name: &Followed) -> bool {
    let found = look_up(endpoint.name(), name).await;
    let current = endpoint.address();
    if !current.is_some_and(|address| found.contains(&address)) {
        move_to(endpoint, &name.name, found.first());
    }
    !found.is_empty()
}

/// Looks up names that stand for several endpoints, all at once, for as long as that may take. Those
/// without an answer by then are left out.
pub(super) async fn find(
    questions: Vec<(Key, Vec<SocketAddr>)>,
    limit: Duration,
) -> Vec<(Key, Answer)> {
    let mut looking = JoinSet::new();
    for (key, servers) in questions {
        looking.spawn(async move {
            let found = servers_of(&key, servers).await;
            (key, found)
        });
    }
    let mut answers = Vec::new();
    let all = async {
        while let Some(answer) = looking.join_next().await {
            answers.extend(answer);
        }
    };
    if tokio::time::timeout(limit, all).await.is_err() {
        log::warn!("names of endpoints are still being resolved");
    }
    answers
}

/// What a name stands for: a service, if it has no port.
async fn servers_of((pool, name): &Key, servers: Vec<SocketAddr>) -> Answer {
    if name.port == 0 {
        return dns::service(&servers, &name.host)
            .await
            .unwrap_or_else(|why| {
                log::warn!(pool = pool; "cannot resolve {name}: {why}");
                Answer::default()
            });
    }
    let followed = Followed {
        name: name.clone(),
        servers,
    };
    let one = |address| Server {
        address,
        target: name.clone(),
        weight: 1,
        backup: false,
    };
    let found = look_up(pool, &followed).await;
    Answer {
        servers: found.into_iter().map(one).collect(),
        unresolved: Vec::new(),
    }
}

/// Goes on to the name's next address, for an endpoint that does not answer at the present one: a
/// name often stands for an IPv6 and an IPv4 address of which the server has only one.
pub(super) async fn next_address(endpoint: &Endpoint, name: &Followed) {
    let found = look_up(endpoint.name(), name).await;
    let current = endpoint.address();
    let at = found.iter().position(|address| Some(*address) == current);
    let next = at.map_or(0, |at| (at + 1) % found.len());
    move_to(endpoint, &name.name, found.get(next));
}

async fn look_up(whose: &str, Followed { name, servers }: &Followed) -> Vec<SocketAddr> {
    dns::addresses(servers, name).await.unwrap_or_else(|why| {
        log::warn!(endpoint = whose; "cannot resolve {}: {why}", name.host);
        Vec::new()
    })
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

    fn followed(host: &str) -> Followed {
        Followed {
            name: HostPort {
                host: host.to_owned(),
                port: 9,
            },
            servers: Vec::new(),
        }
    }

    async fn resolved(name: &str, current: Option<&str>) -> Option<SocketAddr> {
        let endpoint = Endpoint::new(EndpointSpec {
            name: "e".to_owned(),
            id: 1,
            weight: 1,
            backup: false,
            address: current.map(|address| address.parse().unwrap()),
            health: HealthState::Up,
        });
        let name = followed(name);
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
    async fn an_address_is_given_up_when_its_name_is_gone_for_too_long() {
        let endpoint = Endpoint::new(EndpointSpec {
            name: "e".to_owned(),
            id: 1,
            weight: 1,
            backup: false,
            address: "192.0.2.1:9".parse().ok(),
            health: HealthState::Up,
        });
        let name = followed("no-such-name.invalid");
        let (often, hold) = (Duration::from_millis(5), Duration::from_millis(20));
        let following = tokio::spawn(resolve(Arc::clone(&endpoint), name, often, Some(hold)));
        let given_up = async {
            while endpoint.address().is_some() {
                tokio::time::sleep(often).await;
            }
        };
        let limit = Duration::from_secs(60);
        assert!(tokio::time::timeout(limit, given_up).await.is_ok());
        following.abort();
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
        let name = followed("localhost");
        let found = look_up(endpoint.name(), &name).await;
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
