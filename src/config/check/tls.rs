//! The certificates and keys of listeners: read, and held against one another.

use std::path::{Path, PathBuf};

use crate::config::address;
use crate::config::fields::Fields;
use crate::config::identity::{self, Identity, Wrong};
use crate::config::model::Tls;
use crate::config::problem::quoted;

/// Longest PEM file, in bytes. A chain is some kilobytes.
const PEM_MAX: u64 = 1024 * 1024;

/// The TLS of a listener. `None` when anything about it was reported.
pub(super) fn tls(fields: &Fields<'_>) -> Option<Tls> {
    let cert = file(fields, "cert");
    let key = file(fields, "key");
    let (cert, chain) = cert?;
    let (key, private) = key?;
    match Identity::new(&chain, &private) {
        Ok(identity) => Some(Tls {
            cert,
            key,
            identity,
        }),
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
