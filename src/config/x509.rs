//! What stands in a certificate, as far as a check of the file has something to say about it.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is told about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The DNS names it is for, in lower case; `*.` stands for one label.
    pub(super) names: Vec<String>,
    /// Whether it is for any IP address.
    pub(super) has_address: bool,
    /// From when on it is valid, in seconds since 1970.
    not_before: i64,
    /// Until when.
    pub(super) not_after: i64,
    /// The same in words.
    period: (String, String),
}

impl Facts {
    /// Reads a certificate.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!("the first certificate in this file is not valid: {error}")
        };
        let (_, read) = X509Certificate::from_der(certificate).map_err(|error| wrong(&error))?;
        let alternatives = read
            .subject_alternative_name()
            .map_err(|error| wrong(&error))?;
        let general = alternatives.map_or(&[][..], |found| &found.value.general_names);
        let names = general.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let validity = read.validity();
        let has_address = |name: &GeneralName<'_>| matches!(name, GeneralName::IPAddress(_));
        Ok(Self {
            names: names.collect(),
            has_address: general.iter().any(has_address),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            period: (
                validity.not_before.to_string(),
                validity.not_after.to_string(),
            ),
        })
    }

    /// What is wrong with its time, if anything is.
    pub(super) fn untimely(&self, now: UnixTime) -> Option<String> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > self.not_after {
            return Some(format!("this certificate has expired on {}", self.period.1));
        }
        let early = now < self.not_before;
        early.then(|| format!("this certificate is not valid before {}", self.period.0))
    }
}
