//! Looking up names: the system's own way, or at name servers of the operator's.
//!
//! The system's way is that of every other program on the machine, `/etc/hosts` and all. It knows no
//! records of services (SRV), so those are asked for by a resolver of our own, at the servers that
//! `/etc/resolv.conf` names. A resolver lives for one look-up: how often names are looked up is the
//! operator's word, so nothing is cached.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::task::JoinSet;

use crate::config::HostPort;

/// How long one name server may take, and how often each is asked.
const PATIENCE: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 2;
/// Records of a service that are followed.
const RECORDS_MAX: usize = 64;

/// One server of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Server {
    /// Where it is.
    pub(super) address: SocketAddr,
    /// Others have a better priority.
    pub(super) backup: bool,
    /// Its share, at least 1.
    pub(super) weight: u16,
    /// What it is called, and asked for.
    pub(super) target: HostPort,
}

/// What a name stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// In no order, some perhaps twice. Empty, if the name could not be looked up.
    pub(super) servers: Vec<Server>,
    /// Targets of a service that could not be looked up, though the service still has them.
    pub(super) unresolved: Vec<HostPort>,
}

/// The addresses of a host, with a port.
///
/// # Errors
/// Why there are none, for the log.
pub(super) async fn addresses(
    servers: &[SocketAddr],
    name: &HostPort,
) -> Result<Vec<SocketAddr>, String> {
    if servers.is_empty() {
        let found = tokio::net::lookup_host((name.host.as_str(), name.port)).await;
        return found
            .map(Iterator::collect)
            .map_err(|error| error.to_string());
    }
    let found = resolver(servers).map_err(in_words)?;
    let found = found.lookup_ip(absolute(&name.host)).await;
    let ips: Vec<IpAddr> = found.map_err(in_words)?.iter().collect();
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, name.port))
        .collect())
}

/// The servers of a service (RFC 2782).
///
/// # Errors
/// Why there are none, for the log.
pub(super) async fn service(servers: &[SocketAddr], name: &str) -> Result<Answer, String> {
    let asked = resolver(servers).map_err(in_words)?;
    let found = asked.lookup(absolute(name), RecordType::SRV).await;
    let found = found.map_err(in_words)?;
    let records = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            // A target of nothing says that there is no such service.
            RData::SRV(srv) if !srv.target.is_root() && srv.port > 0 => Some(srv.clone()),
            _ => None,
        });
    let records: Vec<_> = records.take(RECORDS_MAX).collect();
    let best = records.iter().map(|record| record.priority).min();
    let mut looking = JoinSet::new();
    for record in records {
        let target = HostPort {
            host: record
                .target
                .to_ascii()
                .trim_end_matches('.')
                .to_ascii_lowercase(),
            port: record.port,
        };
        let servers = servers.to_vec();
        looking.spawn(async move {
            let found = addresses(&servers, &target).await;
            let server = |address| Server {
                address,
                target: target.clone(),
                weight: record.weight.max(1),
                backup: Some(record.priority) != best,
            };
            let found = found.map(|found| found.into_iter().map(server).collect::<Vec<_>>());
            found.map_err(|why| (target, why))
        });
    }
    let mut answer = Answer::default();
    for found in looking.join_all().await {
        match found {
            Ok(found) => answer.servers.extend(found),
            Err((target, why)) => {
                log::warn!("cannot resolve {target}, of {name}: {why}");
                answer.unresolved.push(target);
            }
        }
    }
    Ok(answer)
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        [] => TokioResolver::builder_tokio()?,
        servers => {
            let config =
                ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(at).collect());
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let options: &mut ResolverOpts = builder.options_mut();
            options.timeout = PATIENCE;
            options.attempts = ATTEMPTS;
            options.use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    builder.options_mut().cache_size = 0;
    builder.build()
}

fn at(server: &SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    let to = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    config.connections = config.connections.into_iter().map(to).collect();
    config
}

/// A name that is looked up as it stands, in no domain.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn in_words(error: NetError) -> String {
    error.to_string()
}
