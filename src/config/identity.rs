//! A certificate with its key: what one side of a connection proves itself with.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// A chain of certificates and the key that belongs to the first of them.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// What is wrong with one, and in which of the two files.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error("{0}")]
    Chain(String),
    #[error("{0}")]
    Key(String),
}

impl Identity {
    /// Both from the text of their PEM files.
    pub(super) fn new(chain: &[u8], key: &[u8]) -> Result<Self, Wrong> {
        use rustls::{Error, InconsistentKeys};
        let chain = certificates(chain)?;
        let key = private_key(key)?;
        let certified = CertifiedKey::from_der(chain, key.clone_key(), &ring::default_provider());
        match certified {
            Ok(certified) => Ok(Self {
                certified: Arc::new(certified),
                key: Arc::new(key),
            }),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Wrong::Key(
                "this key does not belong to the certificate in `cert`".to_owned(),
            )),
            Err(Error::InvalidCertificate(error)) => Err(Wrong::Chain(format!(
                "the first certificate in this file is not valid: {error:?}"
            ))),
            Err(error) => Err(Wrong::Key(format!("this key cannot be used: {error}"))),
        }
    }

    /// What a TLS library signs with.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The key as it stood in its file.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.certified.cert.len())
    }
}

impl PartialEq for Identity {
    /// A certificate belongs to one key, so it decides.
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

impl Eq for Identity {}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err(Wrong::Chain(
            "this file holds no certificate: it has no line `-----BEGIN CERTIFICATE-----`"
                .to_owned(),
        )),
        Ok(chain) => Ok(chain),
        Err(error) => Err(Wrong::Chain(format!("this file is not PEM: {error}"))),
    }
}

/// The private key of a PEM file, the first one if there are several.
pub(super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Wrong> {
    const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        Wrong::Key(match error {
            pem::Error::NoItemsFound if memchr::memmem::find(text, ENCRYPTED).is_some() => {
                "the key in this file is encrypted; write it without a password".to_owned()
            }
            pem::Error::NoItemsFound => {
                "this file holds no private key: it has no line such as `-----BEGIN PRIVATE KEY-----`"
                    .to_owned()
            }
            error => format!("this file is not PEM: {error}"),
        })
    })
}
