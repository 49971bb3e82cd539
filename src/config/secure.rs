//! How TLS is spoken, to clients and to endpoints, as far as an operator decides it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::identity::Identity;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificates in files, at least one unless there is `acme`. The first is for everybody for
    /// whose name there is none.
    pub certificates: Vec<Certificate>,
    /// The certificate that is had from an authority.
    pub acme: Option<Acme>,
    /// Who of the clients proves itself; `None`: nobody is asked.
    pub clients: Option<ClientProof>,
}

/// A certificate of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// With its key.
    pub proof: Proof,
    /// The DNS names it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
}

/// A certificate that is ordered from an authority, and ordered anew before it expires (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The URL of the authority's directory; `https`, with a host (default Let's Encrypt).
    pub directory: String,
    /// Where the authority may write to: `mailto:` addresses. May be empty.
    pub contact: Vec<String>,
    /// The DNS names that the certificate is for, in lower case, none twice: 1 to 100, no wildcards.
    pub names: Vec<String>,
    /// By whom the directory proves itself. Never [`Trust::Anybody`].
    pub trust: Trust,
    /// How long before its end the certificate is ordered anew (default 30d), unless a third of its life
    /// is less.
    pub renew_before: Duration,
}

/// What clients prove themselves by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientProof {
    /// The PEM file of the authorities whose certificates are good (absolute).
    pub ca: PathBuf,
    /// What was in it when it was checked.
    pub authorities: Authorities,
    /// Whether every client has to show one. One of another authority is refused either way.
    pub required: bool,
}

/// How TLS is spoken to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointTls {
    /// Whose certificates are good.
    pub trust: Trust,
    /// What the endpoint's certificate must be for, and what it is asked by: a DNS name or an IP
    /// address without brackets. The host of its address unless set.
    pub server_name: String,
    /// What the endpoint is shown when it wants to know who we are.
    pub proof: Option<Proof>,
}

/// Who vouches for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The authorities of this PEM file (absolute).
    File(PathBuf, Authorities),
    /// Those of the system, as they were when the file was checked.
    System(Authorities),
    /// Nobody; any certificate is taken.
    Anybody,
}

/// A certificate of ours, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The PEM file of the certificate and those that lead from it to a root (absolute).
    pub cert: PathBuf,
    /// The PEM file of the certificate's key (absolute).
    pub key: PathBuf,
    /// What was in both files when they were checked.
    pub identity: Identity,
}

/// Certificates of those who vouch for others. A clone is another handle to the same.
#[derive(Clone)]
pub struct Authorities(Arc<[CertificateDer<'static>]>);

impl Authorities {
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self(certificates.into())
    }

    /// The certificates; at least one.
    pub fn as_slice(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} certificates)", self.0.len())
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Authorities {}
