//! An authority that signs certificates, and what it has signed, in files of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// Signs certificates; known by the file `ca.pem`.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    issued: AtomicUsize,
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key_der: PrivateKeyDer<'static>,
}

impl Clone for Issued {
    fn clone(&self) -> Self {
        Self {
            cert: self.cert.clone(),
            key: self.key.clone(),
            der: self.der.clone(),
            key_der: self.key_der.clone_key(),
        }
    }
}

impl Issued {
    /// The keys of a listener, or of an endpoint that wants to know who we are.
    pub(crate) fn keys(&self) -> String {
        format!("cert: {}, key: {}", self.cert.display(), self.key.display())
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Two of one name would be taken for one another.
        let name = format!("Authority {:016x}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        let dir = TempDir::with_prefix("tidegate-ca-").expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), made.pem()).expect("a file of ours");
        Self {
            dir,
            der: made.der().clone(),
            issuer: Issuer::new(params, key),
            issued: AtomicUsize::new(0),
        }
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// What a client needs that trusts it, offers these protocols, and may prove itself.
    pub(crate) fn trusted(&self, protocols: &[&str], proof: Option<&Issued>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider knows")
            .with_root_certificates(roots);
        let mut config = match proof {
            None => builder.with_no_client_auth(),
            Some(proof) => {
                let chain = vec![proof.der.clone()];
                let config = builder.with_client_auth_cert(chain, proof.key_der.clone_key());
                config.expect("a key that belongs to its certificate")
            }
        };
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Signs a certificate for these names, DNS names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.sign(names, |_| {})
    }

    /// Signs one that expired long ago.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Issued {
        self.sign(names, |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    /// Signs one of this common name, for a client.
    pub(crate) fn issue_client(&self, common_name: &str) -> Issued {
        self.sign(&[], |params| {
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
        })
    }

    /// Signs one with further words.
    pub(crate) fn sign(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = self.params(names);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer);
        self.keep(&made.expect("a certificate"), &key)
    }

    /// A certificate that nobody but itself has signed.
    pub(crate) fn self_signed(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = self.params(names);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key);
        self.keep(&made.expect("a certificate"), &key)
    }

    fn params(&self, names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).expect("names")
    }

    fn keep(&self, made: &rcgen::Certificate, key: &KeyPair) -> Issued {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let path = |kind: &str| self.dir.path().join(format!("{number}-{kind}.pem"));
        let issued = Issued {
            cert: path("cert"),
            key: path("key"),
            der: made.der().clone(),
            key_der: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        };
        std::fs::write(&issued.cert, made.pem()).expect("a file of ours");
        std::fs::write(&issued.key, key.serialize_pem()).expect("a file of ours");
        issued
    }
}
