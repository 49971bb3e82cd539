//! Certificates that are ordered from an authority, and ordered anew before they expire (RFC 8555).
//!
//! `when` is the arithmetic, without I/O. A `Slot` is one certificate: what is in force of it, which
//! listeners show. A `Keeper` sees to it that it is there and does not expire; `order` is the
//! conversation with the authority, over `http`, and `files` is what outlives the process. A reload
//! exchanges keepers and leaves slots alone, so that what is in force stays in force.

mod files;
mod http;
mod keeper;
mod order;
mod slot;
mod when;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use blake2::{Blake2s256, Digest as _};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;

use crate::config::{self, Config};
use crate::proxy::state::Shared;
use crate::telemetry::{CertificateView, set_certificates};
use crate::transport::tls::{Managed, Proofs};
use files::Files;
use keeper::Keeper;
use slot::{Slot, file_of};

/// All certificates that are ordered.
pub(super) struct Certificates {
    files: Arc<Files>,
    proofs: Arc<Proofs>,
    /// By their files.
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Held while an account is looked for.
    accounts: AsyncMutex<()>,
}

impl Certificates {
    /// Those of this state directory. Nothing is read before it is asked for.
    pub(super) fn new(state_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::new(Files::new(state_dir)),
            proofs: Proofs::new(),
            slots: Mutex::default(),
            accounts: AsyncMutex::default(),
        })
    }

    /// What a listener shows that is configured like this. When it is asked for the first time, what was
    /// kept is read.
    pub(super) fn managed(&self, config: &config::Acme) -> Arc<Managed> {
        Arc::clone(&self.slot(config).managed)
    }

    fn slot(&self, config: &config::Acme) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(file_of(config)).or_insert_with(|| {
            let slot = Slot::new(config, &self.proofs);
            if let Err(error) = slot.load(&self.files) {
                log::warn!(
                    "a certificate that was kept is of no use, and is ordered anew: {error}"
                );
            }
            Arc::new(slot)
        });
        Arc::clone(slot)
    }

    /// Forgets all that are none of these, unless somebody has them: a listener that is about to be opened
    /// must not show another one than is kept.
    fn retain(&self, files: &BTreeMap<String, config::Acme>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|file, slot| {
            let is_held = Arc::strong_count(slot) > 1 || Arc::strong_count(&slot.managed) > 1;
            is_held || files.contains_key(file)
        });
    }

    /// Tells the metrics until when the certificates of these listeners are valid.
    fn tell(&self, config: &Config) {
        let mut views = Vec::new();
        for listener in &config.listeners {
            let Some(tls) = &listener.tls else { continue };
            let mut view = |certificate: String, until: i64| {
                views.push(CertificateView {
                    listener: listener.name.clone(),
                    certificate,
                    until,
                });
            };
            for certificate in &tls.certificates {
                view(
                    certificate.proof.cert.display().to_string(),
                    certificate.not_after,
                );
            }
            if let Some(acme) = &tls.acme
                && let Some(validity) = self.slot(acme).validity()
            {
                let until = i64::try_from(validity.until).unwrap_or(i64::MAX);
                view(file_of(acme), until);
            }
        }
        set_certificates(views);
    }
}

/// Sees to all certificates of the configuration in force.
pub(super) struct Keepers {
    certificates: Arc<Certificates>,
    shared: Arc<Shared>,
    /// By the certificates' files, each with what it goes by.
    running: BTreeMap<String, (config::Acme, JoinHandle<()>)>,
}

impl Keepers {
    /// Nobody keeps anything yet.
    pub(super) fn new(certificates: Arc<Certificates>, shared: Arc<Shared>) -> Self {
        Self {
            certificates,
            shared,
            running: BTreeMap::new(),
        }
    }

    /// Goes by this configuration. A certificate about which nothing has changed does not notice.
    pub(super) fn turn_to(&mut self, config: &Config) {
        let tls = config.listeners.iter().filter_map(|one| one.tls.as_ref());
        let acme = tls.filter_map(|tls| tls.acme.as_ref());
        // Listeners may share one.
        let wanted: BTreeMap<String, config::Acme> =
            acme.map(|acme| (file_of(acme), acme.clone())).collect();
        self.running.retain(|file, (config, task)| {
            let stays = wanted.get(file) == Some(config);
            if !stays {
                task.abort();
            }
            stays
        });
        self.certificates.retain(&wanted);
        for (file, acme) in wanted {
            let running = self.running.entry(file);
            running.or_insert_with(|| {
                let slot = self.certificates.slot(&acme);
                let (certificates, shared) = (&self.certificates, &self.shared);
                let keeper = Keeper::new(acme.clone(), slot, certificates, shared);
                (acme, tokio::spawn(keeper.run()))
            });
        }
        self.certificates.tell(config);
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        self.running.values().for_each(|(_, task)| task.abort());
    }
}

/// A short text that stands for these, in names of files.
fn short(parts: &[&str]) -> String {
    let mut hash = Blake2s256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
