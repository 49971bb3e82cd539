//! Who a client has proved to be.

use std::fmt::Write;

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

/// Longest text that is kept of a certificate, in bytes. Of a longer one nothing is: what is cut off
/// could be taken for another.
const TEXT_MAX: usize = 512;
/// What has a meaning in the text of a subject (RFC 2253 section 2.4).
const SPECIAL: &[u8] = b",+\"<>;";

/// What a client's certificate says of it, once its signature was found good.
///
/// Texts are of visible ASCII: a backslash stands before another one, and before the two hex digits of
/// any other byte. None of them is longer than 512 bytes; a longer one is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    subject: Box<str>,
    name: Box<str>,
    fingerprint: Box<str>,
    issuer: Box<str>,
    principal: Box<[u8]>,
}

impl Peer {
    /// Reads a certificate; `None` if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let subject = bounded(distinguished(read.subject()));
        let name = alternative(&read).or_else(|| common_name(&read));
        let called = name.as_deref().unwrap_or_default();
        // The first two tell themselves where they end.
        let whole = [read.issuer().as_raw(), read.subject().as_raw(), called].concat();
        Some(Self {
            principal: sha256(&whole).into(),
            name: name.map_or_else(
                || subject.clone(),
                |name| {
                    let mut text = String::new();
                    show(&mut text, &name, b"");
                    bounded(text)
                },
            ),
            subject,
            fingerprint: hex(&sha256(certificate)),
            issuer: bounded(distinguished(read.issuer())),
        })
    }

    /// Is this certificate valid today?
    pub(super) fn is_current(certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, read)| read.validity().is_valid())
    }

    /// Its subject as RFC 2253 writes it, such as `CN=worker,O=Example`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The name it goes by: its first URI, DNS name or mail address, else its common name, else its
    /// subject.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subject of who has signed it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What tells the client from all others, and stays the same with another certificate for the same
    /// subject and name from the same authority.
    pub fn principal(&self) -> &[u8] {
        &self.principal
    }

    /// SHA-256 of the certificate, 64 hex digits in lower case.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The first alternative name, URIs before others: they are what workload identities are made of.
fn alternative(read: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let found = read.subject_alternative_name().ok()??;
    let names = &found.value.general_names;
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let name = uri.or_else(|| {
        names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some(*name),
            _ => None,
        })
    });
    name.map(|name| name.as_bytes().to_vec())
}

fn common_name(read: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let mut names = read.subject().iter_common_name();
    Some(names.next()?.as_slice().to_vec())
}

/// A name as RFC 2253 writes it, its last part first.
fn distinguished(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (at, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if at == 0 { ',' } else { '+' });
            }
            show_attribute(&mut text, attribute);
        }
    }
    text
}

fn show_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let kind = attribute.attr_type();
    match oid2abbrev(kind, oid_registry()) {
        // As OpenSSL writes it.
        Ok("Email") => text.push_str("emailAddress"),
        Ok(short) => text.push_str(short),
        Err(_) => text.push_str(&kind.to_id_string()),
    }
    text.push('=');
    show(text, attribute.as_slice(), SPECIAL);
}

/// Appends a value as it can stand in a header field and in a log, so that no two look the same.
fn show(text: &mut String, value: &[u8], special: &[u8]) {
    for (at, byte) in value.iter().enumerate() {
        let is_outer = at == 0 || at + 1 == value.len();
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' ' if is_outer => text.push_str("\\ "),
            b'#' if at == 0 && !special.is_empty() => text.push_str("\\#"),
            b' '..=b'~' => {
                if special.contains(byte) {
                    text.push('\\');
                }
                text.push(char::from(*byte));
            }
            // A String takes everything.
            _ => _ = write!(text, "\\{byte:02X}"),
        }
    }
}

fn bounded(text: String) -> Box<str> {
    match text.len() <= TEXT_MAX {
        true => text.into(),
        false => "".into(),
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    suite.map_or_else(Vec::new, |suite| {
        suite.common.hash_provider.hash(bytes).as_ref().to_vec()
    })
}

fn hex(bytes: &[u8]) -> Box<str> {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A String takes everything.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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

    fn called(parts: &[(DnType, &str)]) -> Peer {
        made(|params| {
            for (kind, value) in parts {
                params.distinguished_name.push(kind.clone(), *value);
            }
        })
    }

    #[test]
    fn a_peer_goes_by_its_uri_before_its_names_and_by_those_before_its_common_name() {
        let common = |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, "w");
        };
        let dns = SanType::DnsName("w.example".try_into().unwrap());
        let uri = SanType::URI("spiffe://example/w;a".try_into().unwrap());
        assert_eq!(made(common).name(), "w");
        let peer = made(|params| {
            common(params);
            params.subject_alt_names.push(dns.clone());
        });
        assert_eq!(peer.name(), "w.example");
        assert_eq!(peer.subject(), "CN=w");
        let peer = made(|params| params.subject_alt_names.extend([dns, uri]));
        assert_eq!(peer.name(), "spiffe://example/w;a");
        assert_eq!(peer.fingerprint().len(), 64);
    }

    #[test]
    fn a_subject_is_written_as_rfc_2253_has_it() {
        let peer = called(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "A, B + \"C\""),
            (DnType::CommonName, " w\u{e9}\\ "),
        ]);
        let subject = "CN=\\ w\\C3\\A9\\\\\\ ,O=A\\, B \\+ \\\"C\\\",C=DE";
        assert_eq!((peer.subject(), peer.issuer()), (subject, subject));
        assert_eq!(peer.name(), "\\ w\\C3\\A9\\\\\\ ");
    }

    #[test]
    fn no_two_clients_look_the_same_or_are_one() {
        let one = |name: &str| called(&[(DnType::CommonName, name)]);
        let names = [
            "w",
            " w",
            "w\u{e9}",
            "w\u{fc}",
            "w\\C3\\A9",
            "w?",
            "w,O=x",
            "w\n",
        ];
        let both = called(&[(DnType::OrganizationName, "x"), (DnType::CommonName, "w")]);
        let peers: Vec<_> = names.iter().map(|name| one(name)).chain([both]).collect();
        for (at, peer) in peers.iter().enumerate() {
            for other in &peers[..at] {
                assert_ne!(peer.subject(), other.subject());
                assert_ne!(peer.principal(), other.principal());
            }
        }
        let shown: BTreeSet<_> = names.iter().map(|name| one(name).name).collect();
        assert_eq!(shown.len(), names.len());
        assert_eq!(one("w").principal, one("w").principal, "with another key");
    }

    #[test]
    fn of_a_name_that_is_too_long_nothing_is_shown() {
        let long = "x".repeat(TEXT_MAX + 1);
        let peer = called(&[(DnType::CommonName, &long)]);
        assert_eq!((peer.name(), peer.subject()), ("", ""));
        let other = called(&[(DnType::CommonName, &long[1..])]);
        assert_ne!(peer.principal, other.principal);
    }

    #[test]
    fn the_fingerprint_is_sha_256() {
        assert_eq!(
            &*hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        assert_eq!(Peer::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
