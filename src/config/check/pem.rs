//! Files of certificates and keys: read, and held against one another.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::config::address;
use crate::config::fields::Fields;
use crate::config::identity::{self, Identity, Wrong};
use crate::config::problem::quoted;
use crate::config::secure::{Authorities, Proof};
use crate::config::x509::Facts;

/// Longest PEM file, in bytes. A chain is some kilobytes, the authorities of a system some hundred.
const PEM_MAX: u64 = 1024 * 1024;

/// What the files under `cert` and `key` hold. `None` when anything about them was reported, or neither
/// was written. One that is not valid at this time is warned of: it may stand beside others that are.
pub(super) fn pair(fields: &Fields<'_>) -> Option<(Proof, Facts)> {
    let cert = file(fields, "cert");
    let key = file(fields, "key");
    let (cert, chain) = cert?;
    let (key, private) = key?;
    let read = Identity::new(&chain, &private).and_then(|identity| {
        let facts = Facts::of(&identity.certified().cert[0]).map_err(Wrong::Chain)?;
        Ok((identity, facts))
    });
    match read {
        Ok((identity, facts)) => {
            if let Some(message) = facts.untimely(UnixTime::now()) {
                fields.warning(fields.place_of("cert"), message);
            }
            let proof = Proof {
                cert,
                key,
                identity,
            };
            Some((proof, facts))
        }
        Err(wrong) => {
            let at = match wrong {
                Wrong::Chain(_) => "cert",
                Wrong::Key(_) => "key",
            };
            fields.error(fields.place_of(at), wrong.to_string());
            None
        }
    }
}

/// The authorities in the file under a key. `None` when anything about it was reported, or it was not
/// written.
pub(super) fn authorities(fields: &Fields<'_>, name: &str) -> Option<(PathBuf, Authorities)> {
    let word = fields.text(name)?;
    let path = fields.parsed(word, address::file_path)?;
    let bytes = fields.parsed(word, |text| read(&path, text))?;
    let read = identity::certificates(&bytes).map_err(|wrong| wrong.to_string());
    let certificates = fields.parsed(word, |_| {
        let certificates = read?;
        let mut roots = RootCertStore::empty();
        let mut usable = |certificate: &CertificateDer<'static>| {
            Facts::of(certificate).is_ok() && roots.add(certificate.clone()).is_ok()
        };
        match certificates
            .iter()
            .position(|certificate| !usable(certificate))
        {
            Some(at) => Err(format!("certificate {} in this file is not valid", at + 1)),
            None => Ok(certificates),
        }
    })?;
    Some((path, Authorities::new(certificates)))
}

/// The path under a key, and what the file holds; everything that one file alone can have wrong is
/// reported here, so that both files are looked at in one run.
fn file(fields: &Fields<'_>, name: &str) -> Option<(PathBuf, Vec<u8>)> {
    let word = fields.text(name)?;
    let path = fields.parsed(word, address::file_path)?;
    let bytes = fields.parsed(word, |text| read(&path, text))?;
    let check = match name {
        "cert" => identity::certificates(&bytes).map(drop),
        _ => identity::private_key(&bytes).map(drop),
    };
    fields.parsed(word, |_| check.map_err(|wrong| wrong.to_string()))?;
    Some((path, bytes))
}

fn read(path: &Path, text: &str) -> Result<Vec<u8>, String> {
    let shown = quoted(text);
    let failed = |error: std::io::Error| format!("cannot read {shown}: {error}");
    let facts = std::fs::metadata(path).map_err(failed)?;
    if !facts.is_file() {
        // A pipe would be waited for.
        return Err(format!("{shown} is not a file"));
    }
    if facts.len() > PEM_MAX {
        return Err(format!("{shown} is longer than 1 MiB"));
    }
    std::fs::read(path).map_err(failed)
}
