//! One certificate that is ordered: what is in force, and its file.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::Files;
use super::short;
use super::when::Validity;
use crate::config;
use crate::transport::tls::{Managed, Proofs};

/// A certificate for a set of names, of one authority.
pub(super) struct Slot {
    /// What listeners show.
    pub(super) managed: Arc<Managed>,
    file: String,
    validity: Mutex<Option<Validity>>,
}

/// Tells the certificates of different authorities and names apart; also its file's name. The order of the
/// names does not matter.
pub(super) fn file_of(config: &config::Acme) -> String {
    let mut names: Vec<&str> = config.names.iter().map(String::as_str).collect();
    names.sort_unstable();
    let mut all = vec![config.directory.as_str()];
    all.extend(&names);
    // A name is for people, the rest is for us.
    let first: String = names
        .first()
        .map_or("", |name| name)
        .chars()
        .take(100)
        .collect();
    format!("{first}-{}.pem", short(&all))
}

impl Slot {
    /// One whose certificate is not there.
    pub(super) fn new(config: &config::Acme, proofs: &Arc<Proofs>) -> Self {
        Self {
            managed: Managed::new(config.names.clone(), Arc::clone(proofs)),
            file: file_of(config),
            validity: Mutex::default(),
        }
    }

    /// Its file.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Of what is in force, if anything is.
    pub(super) fn validity(&self) -> Option<Validity> {
        *self.lock()
    }

    /// Puts what is in the file in force, if it was given later than what is.
    ///
    /// # Errors
    /// There is a file, and it is of no use.
    pub(super) fn load(&self, files: &Files) -> io::Result<()> {
        let Some(text) = files.read(&self.file)? else {
            return Ok(());
        };
        let wrong = |why: String| io::Error::other(format!("{}: {why}", self.file));
        self.put(&text, true).map_err(wrong)
    }

    /// Puts a key with its chain in force. What is wrong with them is told in words.
    pub(super) fn take(&self, text: &[u8]) -> Result<(), String> {
        self.put(text, false)
    }

    fn put(&self, text: &[u8], if_later: bool) -> Result<(), String> {
        let (certified, validity) = read(text)?;
        let mut current = self.lock();
        // Not by their ends: an authority may have come to give shorter lives.
        let is_later = current.is_none_or(|current| current.from < validity.from);
        if is_later || !if_later {
            *current = Some(validity);
            self.managed.show(Arc::new(certified));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Validity>> {
        self.validity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key and its chain, in one text so that they cannot be out of step.
fn read(text: &[u8]) -> Result<(CertifiedKey, Validity), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let first = chain.first().ok_or("it has no certificate")?;
    let validity = validity(first)?;
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| error.to_string())?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    Ok((certified.map_err(|error| error.to_string())?, validity))
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    let (_, read) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let seconds = |at: i64| u64::try_from(at).unwrap_or_default();
    Ok(Validity {
        from: seconds(read.validity().not_before.timestamp()),
        until: seconds(read.validity().not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Trust;

    fn config(names: &[&str]) -> config::Acme {
        config::Acme {
            directory: "https://ca.example/dir".to_owned(),
            contact: Vec::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            trust: Trust::Anybody,
            renew_before: Duration::from_secs(3600),
        }
    }

    /// A key and its certificate, from the beginning of one year to that of another.
    fn pem(from: i32, until: i32) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        key.serialize_pem() + &params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_certificate_is_the_same_in_whichever_order_its_names_are() {
        let one = file_of(&config(&["a.example", "b.example"]));
        let other = file_of(&config(&["b.example", "a.example"]));
        assert_eq!(one, other);
        assert_ne!(one, file_of(&config(&["a.example"])));
        let elsewhere = config::Acme {
            directory: "https://other.example/dir".to_owned(),
            ..config(&["a.example", "b.example"])
        };
        assert_ne!(one, file_of(&elsewhere));
        // Names that only run together to the same text are others.
        assert_ne!(short(&["ab", "c"]), short(&["a", "bc"]));
    }

    #[test]
    fn what_was_ordered_is_taken_and_what_was_kept_if_it_is_later() {
        let dir = tempfile::TempDir::new().unwrap();
        let files = Files::new(dir.path());
        let _lock = files.lock().unwrap();
        let slot = Slot::new(&config(&["a.example"]), &Proofs::new());
        let load = |text: &str| {
            files.write(slot.file(), text.as_bytes()).unwrap();
            slot.load(&files).unwrap();
            slot.validity().unwrap()
        };
        slot.load(&files).unwrap();
        assert_eq!(slot.validity(), None, "nothing was kept");
        let first = load(&pem(2020, 2030));
        assert_eq!(load(&pem(2019, 2040)), first, "an older one is left alone");
        let shorter = load(&pem(2021, 2025));
        assert!(shorter.from > first.from && shorter.until < first.until);
        slot.take(pem(2020, 2030).as_bytes()).unwrap();
        assert_eq!(slot.validity(), Some(first));
    }

    #[test]
    fn a_file_that_is_of_no_use_changes_nothing() {
        let slot = Slot::new(&config(&["a.example"]), &Proofs::new());
        let one = pem(2020, 2030);
        let certificate = &one[one.find("-----BEGIN CERT").unwrap()..];
        for text in ["", "nonsense", certificate, &one.replace(certificate, "")] {
            assert!(slot.take(text.as_bytes()).is_err(), "{text}");
        }
        let foreign = rcgen::KeyPair::generate().unwrap().serialize_pem() + certificate;
        assert!(slot.take(foreign.as_bytes()).is_err());
        assert_eq!(slot.validity(), None);
    }
}
