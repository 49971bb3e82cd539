//! Names that stand for several endpoints: which addresses they have, and the configuration with an
//! endpoint for each of those in the name's place.
//!
//! An endpoint is called by its name and its address, so that every process that looks up the same name
//! has the same endpoints, whatever the order of the answers, and sealed ids hold in all of them. To the
//! rest of the program an address that comes or goes is an endpoint that a reload adds or takes out.
//!
//! Nothing is looked up here: whoever does tells what was found, and when.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::dns::{Answer, Server};
use crate::config::{Config, Endpoint, HostPort, Pool, Resolve};

/// Addresses of one name that are used; the first in their order.
pub(super) const ADDRESSES_MAX: usize = 64;

/// A name in a pool. That of a service has port 0.
pub(super) type Key = (String, HostPort);

/// The names of a configuration, and what they stand for.
pub(super) struct Several {
    /// As it was written.
    written: Config,
    found: HashMap<Key, Found>,
}

/// In the order of their addresses, which are different, at most [`ADDRESSES_MAX`].
type Found = Vec<Known>;

#[derive(Clone)]
struct Known {
    server: Server,
    /// When it was found the last time.
    good: Instant,
}

impl Several {
    /// The names of a configuration, of which nothing is known.
    pub(super) fn new(written: Config) -> Self {
        Self {
            written,
            found: HashMap::new(),
        }
    }

    /// Another configuration. What is known of names that it has as well goes on.
    pub(super) fn with(&self, written: Config) -> Self {
        let mut next = Self::new(written);
        let known = |key: Key| Some((key.clone(), self.found.get(&key)?.clone()));
        next.found = next.names().into_iter().filter_map(known).collect();
        next
    }

    /// The names that stand for several endpoints.
    pub(super) fn names(&self) -> Vec<Key> {
        let of = |pool: &Pool| {
            let several = pool.endpoints.iter().filter(|e| e.stands_for_several());
            let key = |endpoint: &Endpoint| (pool.name.clone(), endpoint.address.clone());
            several.map(key).collect::<Vec<_>>()
        };
        self.written.pools.iter().flat_map(of).collect()
    }

    /// Those of which nothing is known.
    pub(super) fn unknown(&self) -> Vec<Key> {
        let mut names = self.names();
        names.retain(|key| !self.found.contains_key(key));
        names
    }

    /// These names, each with the name servers to ask about it.
    pub(super) fn questions(&self, names: Vec<Key>) -> Vec<(Key, Vec<SocketAddr>)> {
        let question = |key: Key| {
            let pool = self.written.pools.iter().find(|pool| pool.name == key.0);
            let servers = pool.map_or_else(Vec::new, |pool| pool.name_servers.clone());
            (key, servers)
        };
        names.into_iter().map(question).collect()
    }

    /// How often they are to be looked up; `None` if there are none.
    pub(super) fn every(&self) -> Option<Duration> {
        let names = self.names();
        let has = |pool: &&Pool| names.iter().any(|(name, _)| *name == pool.name);
        let pools = self.written.pools.iter().filter(has);
        pools.map(|pool| pool.resolve_every).min()
    }

    /// Takes in what was found under a name; nothing, if it could not be looked up. Servers that could
    /// not be looked for are kept for as long as the pool holds them. True if the name stands for other
    /// endpoints than before. Names that are no longer configured are passed over.
    pub(super) fn learn(&mut self, key: &Key, answer: &Answer, now: Instant) -> bool {
        let pool = self.written.pools.iter().find(|pool| pool.name == key.0);
        let is_known = |pool: &&Pool| {
            let mut endpoints = pool.endpoints.iter();
            endpoints.any(|e| e.stands_for_several() && e.address == key.1)
        };
        let Some(pool) = pool.filter(is_known) else {
            return false;
        };
        let before = self.found.remove(key).unwrap_or_default();
        let is_unknown = |known: &&Known| {
            let is_target = answer.unresolved.contains(&known.server.target);
            answer.servers.is_empty() && answer.unresolved.is_empty() || is_target
        };
        let is_kept = |known: &&Known| is_held(pool.resolve_hold, known.good, now);
        let kept = before.iter().filter(is_unknown).filter(is_kept).cloned();
        let new = answer.servers.iter().cloned();
        let new = new.map(|server| Known { server, good: now });
        let mut found: Found = new.chain(kept).collect();
        // Of one address what was found now comes before what is kept.
        found.sort_by_cached_key(|known| {
            let server = known.server.clone();
            (server.address, Reverse(known.good), server)
        });
        found.dedup_by_key(|known| known.server.address);
        found.truncate(ADDRESSES_MAX);
        let has_changed = !servers(&found).eq(servers(&before));
        if !found.is_empty() {
            self.found.insert(key.clone(), found);
        }
        has_changed
    }

    /// The configuration with the endpoints that names stand for. A name without any is left as it is,
    /// an endpoint without an address.
    pub(super) fn config(&self) -> Config {
        let mut config = self.written.clone();
        for pool in &mut config.pools {
            if pool.endpoints.iter().any(Endpoint::stands_for_several) {
                let written = std::mem::take(&mut pool.endpoints);
                let each = written.into_iter();
                pool.endpoints = each.flat_map(|one| self.each(&pool.name, one)).collect();
            }
        }
        config
    }

    fn each(&self, pool: &str, written: Endpoint) -> Vec<Endpoint> {
        if !written.stands_for_several() {
            return vec![written];
        }
        let key = (pool.to_owned(), written.address.clone());
        let Some(found) = self.found.get(&key) else {
            return vec![written];
        };
        found
            .iter()
            .map(|known| found_endpoint(&written, &known.server))
            .collect()
    }
}

/// One of the endpoints that `written` stands for.
fn found_endpoint(written: &Endpoint, server: &Server) -> Endpoint {
    let is_service = written.resolve == Resolve::Service;
    // Servers of a service may differ in their ports alone.
    let place = match is_service {
        true => server.address.to_string(),
        false => server.address.ip().to_string(),
    };
    let mut endpoint = Endpoint {
        name: format!("{}@{place}", written.name),
        address: HostPort {
            host: server.address.ip().to_string(),
            port: server.address.port(),
        },
        found_by: Some(server.target.clone()),
        ..written.clone()
    };
    if is_service {
        endpoint.weight = server.weight;
        endpoint.backup |= server.backup;
        if let Some(tls) = &mut endpoint.tls
            && tls.server_name == written.address.host
        {
            tls.server_name = server.target.host.clone();
        }
    }
    endpoint
}

fn servers(found: &[Known]) -> impl Iterator<Item = &Server> {
    found.iter().map(|known| &known.server)
}

/// Are addresses kept that a name had at `good`? Without a limit they are for ever.
pub(super) fn is_held(hold: Option<Duration>, good: Instant, now: Instant) -> bool {
    hold.is_none_or(|hold| now.saturating_duration_since(good) < hold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const FILE: &str = "listeners: [{ bind: 127.0.0.1:80 }]\n\
                        routes: [{ path: /mcp, pool: p }]\n\
                        pools:\n  p:\n    resolve_hold: 30s\n    resolve_every: 5s\n    endpoints:\n\
                        \x20     - 192.0.2.1:9\n\
                        \x20     - { name: api, address: \"api.test:9\", resolve: all, weight: 3 }\n\
                        \x20 q: { endpoints: [\"api.test:9\"] }\n";

    fn several() -> (Several, Key) {
        let several = Several::new(parse("f.yaml", FILE).expect("it is right"));
        let key = several.names().pop().expect("there is one");
        (several, key)
    }

    fn addresses(ends: &[u8]) -> Answer {
        let one = |end: &u8| Server {
            address: ([10, 0, 0, *end], 9).into(),
            target: HostPort {
                host: "api.test".to_owned(),
                port: 9,
            },
            weight: 1,
            backup: false,
        };
        Answer {
            servers: ends.iter().map(one).collect(),
            unresolved: Vec::new(),
        }
    }

    fn names(several: &Several) -> Vec<String> {
        let config = several.config();
        let endpoints = config.pools[0].endpoints.iter();
        endpoints.map(|endpoint| endpoint.name.clone()).collect()
    }

    #[test]
    fn a_name_is_as_many_endpoints_as_it_has_addresses() {
        let (mut several, key) = several();
        assert_eq!(several.names(), several.unknown());
        assert_eq!(several.every(), Some(Duration::from_secs(5)));
        assert_eq!(names(&several), ["192.0.2.1:9", "api"]);
        assert!(several.learn(&key, &addresses(&[2, 1, 2]), Instant::now()));
        assert_eq!(several.unknown(), []);
        assert_eq!(
            names(&several),
            ["192.0.2.1:9", "api@10.0.0.1", "api@10.0.0.2"]
        );
        let config = several.config();
        let one = &config.pools[0].endpoints[2];
        assert_eq!(one.weight, 3);
        assert_eq!(
            one.address.socket_addr(),
            Some(addresses(&[2]).servers[0].address)
        );
        assert_eq!(one.asked_for().authority(), "api.test:9");
        assert!(!one.stands_for_several());
        let other = &config.pools[1].endpoints[0];
        assert_eq!(
            other.name, "api.test:9",
            "the same name elsewhere is one endpoint"
        );
    }

    #[test]
    fn a_service_says_ports_weights_and_who_backs_up() {
        let file = FILE.replace(
            "{ name: api, address: \"api.test:9\", resolve: all, weight: 3 }",
            "{ srv: _mcp._tcp.test }",
        );
        let mut several = Several::new(parse("f.yaml", &file).expect("right"));
        let key = several.names().pop().expect("there is one");
        assert_eq!(key.1.to_string(), "_mcp._tcp.test");
        let server = |port, weight, backup| Server {
            backup,
            weight,
            ..of_service(1, port)
        };
        let answer = |first| Answer {
            servers: vec![first, server(1, 500, false)],
            unresolved: Vec::new(),
        };
        assert!(several.learn(&key, &answer(server(2, 40, true)), Instant::now()));
        let config = several.config();
        let [_, first, second] = config.pools[0].endpoints.as_slice() else {
            panic!("{:?}", config.pools[0].endpoints);
        };
        assert_eq!(first.name, "_mcp._tcp.test@10.0.0.1:1");
        assert_eq!((first.weight, first.backup), (500, false));
        assert_eq!((second.weight, second.backup), (40, true));
        assert_eq!(second.asked_for().authority(), "1.test:2");
        // Another weight is another endpoint to the configuration, of the same name.
        assert!(several.learn(&key, &answer(server(2, 41, true)), Instant::now()));
    }

    fn of_service(host: u8, port: u16) -> Server {
        Server {
            address: ([10, 0, 0, host], port).into(),
            target: HostPort {
                host: format!("{host}.test"),
                port,
            },
            weight: 1,
            backup: false,
        }
    }

    #[test]
    fn a_target_that_is_gone_keeps_its_servers_for_a_while() {
        let file = FILE.replace(
            "{ name: api, address: \"api.test:9\", resolve: all, weight: 3 }",
            "{ srv: _mcp._tcp.test, name: s }",
        );
        let mut several = Several::new(parse("f.yaml", &file).expect("right"));
        let key = several.names().pop().expect("there is one");
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (one, two) = (of_service(1, 1), of_service(2, 2));
        let answer = |servers: &[&Server], unresolved: &[&Server]| Answer {
            servers: servers.iter().map(|server| (*server).clone()).collect(),
            unresolved: unresolved.iter().map(|one| one.target.clone()).collect(),
        };
        let both = ["192.0.2.1:9", "s@10.0.0.1:1", "s@10.0.0.2:2"];
        assert!(several.learn(&key, &answer(&[&one, &two], &[]), at(0)));
        assert!(!several.learn(&key, &answer(&[&one], &[&two]), at(10)));
        assert_eq!(names(&several), both);
        // That none of them is found says as little of any.
        assert!(!several.learn(&key, &answer(&[], &[&one, &two]), at(29)));
        assert!(several.learn(&key, &answer(&[&one], &[&two]), at(30)));
        assert_eq!(names(&several), &both[..2]);
        assert!(several.learn(&key, &answer(&[&one, &two], &[]), at(31)));
        assert_eq!(names(&several), both);
        // One that the service has no more is not held.
        assert!(several.learn(&key, &answer(&[&two], &[]), at(32)));
        assert_eq!(names(&several), ["192.0.2.1:9", "s@10.0.0.2:2"]);
        // Nor is one that it never had.
        assert!(!several.learn(&key, &answer(&[&two], &[&one]), at(33)));
    }

    #[test]
    fn the_order_of_answers_says_nothing() {
        let (mut several, key) = several();
        let now = Instant::now();
        assert!(several.learn(&key, &addresses(&[1, 2, 3]), now));
        assert!(!several.learn(&key, &addresses(&[3, 1, 2]), now));
        assert!(several.learn(&key, &addresses(&[3, 1]), now));
        assert_eq!(names(&several).len(), 3);
    }

    #[test]
    fn a_name_that_is_gone_keeps_its_endpoints_for_a_while() {
        let (mut several, key) = several();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(
            !several.learn(&key, &addresses(&[]), at(0)),
            "it never had any"
        );
        assert!(several.learn(&key, &addresses(&[1]), at(0)));
        assert!(!several.learn(&key, &addresses(&[1]), at(10)));
        assert!(
            !several.learn(&key, &addresses(&[]), at(39)),
            "not held for so long yet"
        );
        assert!(several.learn(&key, &addresses(&[]), at(40)));
        assert_eq!(names(&several), ["192.0.2.1:9", "api"]);
        assert!(several.learn(&key, &addresses(&[1]), at(41)), "it is back");
    }

    #[test]
    fn more_addresses_than_are_used_are_left_out() {
        let (mut several, key) = several();
        let many: Vec<u8> = (0..=200).collect();
        several.learn(&key, &addresses(&many), Instant::now());
        assert_eq!(names(&several).len(), 1 + ADDRESSES_MAX);
    }

    #[test]
    fn what_is_known_outlives_a_reload_that_keeps_the_name() {
        let (mut several, key) = several();
        several.learn(&key, &addresses(&[1]), Instant::now());
        let same = several.with(parse("f.yaml", FILE).expect("right"));
        assert_eq!(names(&same), names(&several));
        let without = FILE.replace(", resolve: all", "");
        let mut other = several.with(parse("f.yaml", &without).expect("right"));
        assert!(other.names().is_empty() && other.every().is_none());
        assert!(!other.learn(&key, &addresses(&[2]), Instant::now()));
        assert_eq!(names(&other), ["192.0.2.1:9", "api"]);
    }
}
