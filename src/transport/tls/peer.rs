//! Who a client has proved to be.

use std::fmt::Write;

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest text that is kept of a certificate, in bytes.
const TEXT_MAX: usize = 512;

/// What a client's certificate says of it, once its signature was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    subject: Box<str>,
    name: Box<str>,
    fingerprint: Box<str>,
    issuer: Box<str>,
}

impl Peer {
    /// Reads a certificate; `None` if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let subject = visible(&read.subject().to_string());
        let name = alternative(&read).or_else(|| common_name(&read));
        Some(Self {
            name: name.map_or_else(|| subject.clone(), |name| visible(&name)),
            subject,
            fingerprint: fingerprint(certificate),
            issuer: visible(&read.issuer().to_string()),
        })
    }

    /// Is this certificate valid today?
    pub(super) fn is_current(certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, read)| read.validity().is_valid())
    }

    /// Its subject, such as `CN=worker, O=Example`. Visible ASCII.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The name it goes by: its first URI, DNS name or mail address, else its common name, else its
    /// subject. Visible ASCII.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subject of who has signed it. Visible ASCII.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 of the certificate, 64 hex digits in lower case.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The first alternative name, URIs before others: they are what workload identities are made of.
fn alternative(read: &X509Certificate<'_>) -> Option<String> {
    let found = read.subject_alternative_name().ok()??;
    let names = &found.value.general_names;
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uri.or_else(|| {
        names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
            _ => None,
        })
    })
}

fn common_name(read: &X509Certificate<'_>) -> Option<String> {
    let mut names = read.subject().iter_common_name();
    Some(names.next()?.as_str().ok()?.to_owned())
}

/// The text as it can stand in a header field and in a log: of visible ASCII, and not longer than it
/// should be.
fn visible(text: &str) -> Box<str> {
    let shown = text.chars().map(|c| match c {
        ' '..='~' => c,
        _ => '?',
    });
    shown.take(TEXT_MAX).collect::<String>().into()
}

fn fingerprint(certificate: &[u8]) -> Box<str> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let mut hex = String::with_capacity(64);
    if let Some(suite) = suite {
        for byte in suite.common.hash_provider.hash(certificate).as_ref() {
            let _ = write!(hex, "{byte:02x}");
        }
    }
    hex.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Peer {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Peer::of(certificate.der()).unwrap()
    }

    #[test]
    fn a_peer_goes_by_its_uri_before_its_names_and_by_those_before_its_common_name() {
        let common = |params: &mut CertificateParams| {
            params
                .distinguished_name
                .push(DnType::CommonName, "w\u{e9}");
        };
        let dns = SanType::DnsName("w.example".try_into().unwrap());
        let uri = SanType::URI("spiffe://example/w".try_into().unwrap());
        assert_eq!(made(common).name(), "w?");
        let peer = made(|params| {
            common(params);
            params.subject_alt_names.push(dns.clone());
        });
        assert_eq!(peer.name(), "w.example");
        assert!(peer.subject().contains("CN=w?"), "{}", peer.subject());
        let peer = made(|params| params.subject_alt_names.extend([dns, uri]));
        assert_eq!(peer.name(), "spiffe://example/w");
        assert_eq!(peer.fingerprint().len(), 64);
    }

    #[test]
    fn the_fingerprint_is_sha_256() {
        assert_eq!(
            &*fingerprint(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        assert_eq!(Peer::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
