//! A certificate that comes, and is replaced, while its listener is open; and how a listener proves to an
//! authority that a name leads to it (TLS-ALPN-01, RFC 8737).
//!
//! What this module does not know: whence the certificate comes, and when.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};

/// The protocol that an authority names in its handshake (RFC 8737 section 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What authorities are to be shown, by the name that they ask for. Empty but for the moments in which
/// something is ordered. One for all listeners: an authority comes to port 443, whichever of them has
/// that.
#[derive(Debug, Default)]
pub struct Proofs(ArcSwap<HashMap<String, Arc<CertifiedKey>>>);

impl Proofs {
    /// None.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Shows this to whoever asks for `name` in order to verify it, in the place of what was shown so
    /// far.
    pub fn show(&self, name: &str, proof: Arc<CertifiedKey>) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(name.to_owned(), Arc::clone(&proof));
            all
        });
    }

    /// Shows nothing for these names any more.
    pub fn hide(&self, names: &[String]) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.retain(|name, _| !names.contains(name));
            all
        });
    }
}

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().get(hello.server_name()?).cloned()
    }
}

/// A certificate that listeners show as soon as there is one. All threads read it without a lock.
#[derive(Debug)]
pub struct Managed {
    names: Vec<String>,
    current: ArcSwapOption<CertifiedKey>,
    proofs: Arc<Proofs>,
}

impl Managed {
    /// One for these DNS names, in lower case, that is not there yet.
    pub fn new(names: Vec<String>, proofs: Arc<Proofs>) -> Arc<Self> {
        Arc::new(Self {
            names,
            current: ArcSwapOption::empty(),
            proofs,
        })
    }

    /// The names it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Shows this from the next handshake on.
    pub fn show(&self, certified: Arc<CertifiedKey>) {
        self.current.store(Some(certified));
    }

    /// What authorities are shown meanwhile.
    pub fn proofs(&self) -> &Arc<Proofs> {
        &self.proofs
    }

    /// What is shown, if it is there and the client takes signatures of its kind.
    pub(super) fn current(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load_full()?;
        current.key.choose_scheme(schemes).map(|_| current)
    }

    /// Is it for this name?
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|one| one == name)
    }

    /// The rules by which an authority is shown its proof, and nothing else: no HTTP is agreed on, nobody
    /// is asked for a certificate, nothing can be resumed.
    ///
    /// # Errors
    /// If TLS 1.2 and 1.3 are not known to the library.
    pub(super) fn proving(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.proofs) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

/// Is this an authority that verifies a name? It names this one protocol (RFC 8737 section 3).
pub(super) fn is_verifying(hello: &ClientHello<'_>) -> bool {
    let mut named = hello.alpn().into_iter().flatten();
    named.next() == Some(ACME_TLS) && named.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certified(name: &str) -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let chain = vec![made.cert.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap())
    }

    #[test]
    fn a_certificate_is_shown_from_the_moment_it_is_there() {
        let managed = Managed::new(vec!["a.example".to_owned()], Proofs::new());
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        assert!(managed.current(&schemes).is_none());
        let one = certified("a.example");
        managed.show(Arc::clone(&one));
        assert!(Arc::ptr_eq(&managed.current(&schemes).unwrap(), &one));
        assert!(managed.current(&[SignatureScheme::ED25519]).is_none());
        assert!(managed.is_for("a.example") && !managed.is_for("b.example"));
    }

    #[test]
    fn a_proof_is_shown_until_it_is_hidden() {
        let proofs = Proofs::default();
        let shown = |name: &str| proofs.0.load().contains_key(name);
        proofs.show("a.example", certified("a.example"));
        proofs.show("b.example", certified("b.example"));
        proofs.hide(&["a.example".to_owned()]);
        assert!(!shown("a.example") && shown("b.example"));
    }
}
