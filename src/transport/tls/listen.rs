//! TLS towards clients: the rules of a listener, and which certificate is shown to whom.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};
use tokio::net::TcpStream;

use super::hello::{Handshake, Manner};
use super::managed::Managed;
use super::{H2, HTTP_11};

/// What a listener shows, and what it wants to see.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The certificates, at least one unless one is managed. The first is for everybody for whose name
    /// there is none.
    pub certificates: Vec<Shown>,
    /// One that may not be there yet. While it is there it comes before the others for its names, and is
    /// for everybody if there are no others.
    pub managed: Option<Arc<Managed>>,
    /// Who of the clients has to prove itself.
    pub clients: Clients,
}

/// A certificate of a listener.
#[derive(Debug, Clone)]
pub struct Shown {
    /// With its key.
    pub certified: Arc<CertifiedKey>,
    /// The DNS names it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
}

/// Who of the clients has to prove itself, and by whose signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// Nobody is asked.
    Unasked,
    /// Whoever has a certificate of these authorities may show it; one of others is refused.
    Optional(Vec<CertificateDer<'static>>),
    /// Everybody has to show one.
    Required(Vec<CertificateDer<'static>>),
}

/// Accepts TLS connections of one listener. A clone is another handle to the same rules and ticket
/// keys, so that a client may resume on whichever thread its next connection comes to.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// What depends on what a client says first, where anything does.
    manner: Option<Arc<Manner>>,
    /// Whom the tickets stand for.
    clients: Clients,
}

impl Acceptor {
    /// Accepts on these terms.
    ///
    /// # Errors
    /// If the system gives no randomness, an authority for clients cannot be used, or there is no
    /// certificate.
    pub fn new(terms: &Terms) -> Result<Self, rustls::Error> {
        Self::with(terms, ring::Ticketer::new()?)
    }

    /// The same listener on other terms, from now on. Connections that stand, and handshakes that have
    /// begun, go on as they are. Who has visited before can resume, unless other clients are let in now:
    /// then everybody has to prove itself again.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renewed(&self, terms: &Terms) -> Result<Self, rustls::Error> {
        if self.clients == terms.clients {
            Self::with(terms, Arc::clone(&self.config.ticketer))
        } else {
            Self::new(terms)
        }
    }

    /// Begins a handshake.
    pub fn accept(&self, stream: TcpStream) -> Handshake {
        Handshake::begin(&self.config, self.manner.as_ref(), stream)
    }

    fn with(terms: &Terms, ticketer: Arc<dyn ProducesTickets>) -> Result<Self, rustls::Error> {
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_quick(*suite));
        let provider = Arc::new(provider);
        let nothing = || rustls::Error::General("no certificate".to_owned());
        let by_name = Arc::new(ByName::new(terms).ok_or_else(nothing)?);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(verifier(&terms.clients, &provider)?)
            .with_cert_resolver(Arc::clone(&by_name) as Arc<dyn ResolvesServerCert>);
        config.ignore_client_order = true;
        config.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
        // The keys of tickets change every six hours, and each is good for twice that. Nothing is
        // kept per client.
        config.ticketer = ticketer;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let manner = |managed: &Arc<Managed>| {
            Ok::<_, rustls::Error>(Arc::new(Manner {
                proving: managed.proving()?,
                shown: Arc::clone(&by_name),
            }))
        };
        Ok(Self {
            config: Arc::new(config),
            manner: terms.managed.as_ref().map(manner).transpose()?,
            clients: terms.clients.clone(),
        })
    }
}

fn verifier(
    clients: &Clients,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let (authorities, optional) = match clients {
        Clients::Unasked => return Ok(Arc::new(NoClientAuth)),
        Clients::Optional(authorities) => (authorities, true),
        Clients::Required(authorities) => (authorities, false),
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    let wrong =
        |error: rustls::server::VerifierBuilderError| rustls::Error::General(error.to_string());
    let verifier = builder.build().map_err(wrong)?;
    Ok(verifier)
}

/// AES-128 with SHA-256, which processors have instructions for. Most clients would have AES-256 with
/// SHA-384, whose key schedule alone is an eighth of a handshake.
fn is_quick(suite: SupportedCipherSuite) -> bool {
    use rustls::CipherSuite as Suite;
    matches!(
        suite.suite(),
        Suite::TLS13_AES_128_GCM_SHA256
            | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The certificate by the name that a client asks for.
#[derive(Debug)]
pub(super) struct ByName {
    /// Those for a name, in the order of the file: one name may have several, with keys of different
    /// kinds.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For everybody else. The first, and those for the same names.
    others: Vec<Arc<CertifiedKey>>,
    /// The one that comes before all of them, while it is there.
    managed: Option<Arc<Managed>>,
}

impl ByName {
    /// `None` if there is no certificate, and never will be.
    fn new(terms: &Terms) -> Option<Self> {
        let certificates = &terms.certificates;
        if certificates.is_empty() && terms.managed.is_none() {
            return None;
        }
        let first = certificates.first().map(|first| &first.names);
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for shown in certificates {
            for name in &shown.names {
                let of_name = by_name.entry(name.clone()).or_default();
                of_name.push(Arc::clone(&shown.certified));
            }
        }
        let alike = certificates
            .iter()
            .filter(|shown| Some(&shown.names) == first);
        Some(Self {
            by_name,
            others: alike.map(|shown| Arc::clone(&shown.certified)).collect(),
            managed: terms.managed.clone(),
        })
    }

    /// Those for this name, or for all names that differ from it in their first label.
    fn of(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.by_name.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ByName {
    /// What this client is shown; nothing if all there will be is not there yet.
    pub(super) fn find(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let name = hello.server_name();
        if let Some(managed) = &self.managed
            && (self.others.is_empty() || name.is_some_and(|name| managed.is_for(name)))
            && let Some(current) = managed.current(schemes)
        {
            return Some(current);
        }
        let named = name.and_then(|name| self.of(name));
        let found = named.unwrap_or(&self.others);
        let suits = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(schemes).is_some();
        found.iter().find(suits).or_else(|| found.first()).cloned()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(&hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &[&str]) -> Shown {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let key = made.signing_key.serialize_der();
        let certified = CertifiedKey::from_der(
            vec![made.cert.der().clone()],
            key.try_into().unwrap(),
            &ring::default_provider(),
        );
        Shown {
            certified: Arc::new(certified.unwrap()),
            names,
        }
    }

    #[test]
    fn a_name_has_its_own_certificate_before_one_for_all_below_its_parent() {
        let all = [
            shown(&["example.com"]),
            shown(&["*.example.com"]),
            shown(&["api.example.com"]),
        ];
        let terms = Terms {
            certificates: all.to_vec(),
            managed: None,
            clients: Clients::Unasked,
        };
        let by_name = ByName::new(&terms).unwrap();
        let found = |name: &str| {
            let found = by_name.of(name)?.first()?;
            all.iter()
                .position(|shown| Arc::ptr_eq(&shown.certified, found))
        };
        assert_eq!(found("example.com"), Some(0));
        assert_eq!(found("www.example.com"), Some(1));
        assert_eq!(found("api.example.com"), Some(2));
        assert_eq!(found("a.b.example.com"), None, "`*` stands for one label");
        assert_eq!(found("com"), None);
        assert_eq!(by_name.others.len(), 1);
    }

    #[test]
    fn without_a_certificate_nothing_is_accepted() {
        let terms = Terms {
            certificates: Vec::new(),
            managed: None,
            clients: Clients::Unasked,
        };
        assert!(Acceptor::new(&terms).is_err());
    }

    #[test]
    fn tickets_live_as_long_as_the_clients_that_are_let_in_are_the_same() {
        let mut terms = Terms {
            certificates: vec![shown(&["a.example"])],
            managed: None,
            clients: Clients::Unasked,
        };
        let first = Acceptor::new(&terms).unwrap();
        let same = |one: &Acceptor, other: &Acceptor| {
            Arc::ptr_eq(&one.config.ticketer, &other.config.ticketer)
        };
        terms.certificates = vec![shown(&["b.example"])];
        let second = first.renewed(&terms).unwrap();
        assert!(same(&first, &second));
        terms.clients = Clients::Required(vec![CertificateDer::from(vec![1, 2, 3])]);
        assert!(second.renewed(&terms).is_err());
        terms.clients = Clients::Optional(terms.certificates[0].certified.cert.clone());
        assert!(!same(&second, &second.renewed(&terms).unwrap()));
    }
}
