//! Whoever sees to one certificate: waits until it is due, orders it, and waits again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::Certificates;
use super::files::Lock;
use super::order::{Failure, Had, Orderer, apart};
use super::slot::Slot;
use super::when::pause;
use crate::config;
use crate::proxy::state::{Phase, Shared};
use crate::telemetry::{AcmeResult, acme_ordered};

/// How long after its start a process orders first: until then one that it replaces may still be asked for
/// what is to be shown.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the clock is looked at while nothing is due: it may be set.
const LOOK: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether another process has done with ordering.
const LOCKED: Duration = Duration::from_secs(5);
/// Attempts one right after the other, where an authority has forgotten a number or an account.
const CHANCES: u32 = 3;
/// After so many failures in a row somebody should look.
const FAILURES_LOUD: u32 = 3;

/// Sees to one certificate.
pub(super) struct Keeper {
    config: config::Acme,
    slot: Arc<Slot>,
    all: Arc<Certificates>,
    shared: Arc<Shared>,
    /// In a row.
    failures: u32,
}

impl Keeper {
    /// Of this certificate.
    pub(super) fn new(
        config: config::Acme,
        slot: Arc<Slot>,
        all: &Arc<Certificates>,
        shared: &Arc<Shared>,
    ) -> Self {
        Self {
            config,
            slot,
            all: Arc::clone(all),
            shared: Arc::clone(shared),
            failures: 0,
        }
    }

    /// Until the process leaves: what orders then is whatever comes after it.
    pub(super) async fn run(mut self) {
        let mut phases = self.shared.phases.clone();
        tokio::select! {
            () = self.keep() => {}
            () = phases.reached(Phase::Draining) => {}
        }
    }

    async fn keep(&mut self) {
        if self.slot.validity().is_none() {
            let (names, directory) = (self.names(), &self.config.directory);
            log::info!(
                "there is no certificate for {names} yet, and who asks for it is refused or shown another: \
                 it is ordered from {directory}"
            );
        }
        sleep(SETTLE).await;
        loop {
            let due = self.due();
            let now = now();
            let wait = match now < due {
                true => LOOK.min(Duration::from_secs(due - now)),
                false => self.see_to().await,
            };
            sleep(wait).await;
        }
    }

    /// When the certificate is to be ordered; 0 if there is none.
    fn due(&self) -> u64 {
        let validity = self.slot.validity();
        validity.map_or(0, |validity| validity.due(self.config.renew_before))
    }

    /// Orders the certificate, unless another process does. How long to wait after that.
    async fn see_to(&mut self) -> Duration {
        let files = Arc::clone(&self.all.files);
        let _lock: Lock = match apart(move || files.lock()).await {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                log::debug!("another process orders certificates; what is due here waits for it");
                return LOCKED;
            }
            Err(failure) => return self.failed(&failure),
        };
        // It may be there by now.
        let (slot, files) = (Arc::clone(&self.slot), Arc::clone(&self.all.files));
        if let Err(failure) = apart(move || slot.load(&files)).await {
            log::warn!("a certificate that was kept is of no use: {}", failure.why);
        }
        if now() < self.due() {
            self.all.tell(&self.shared.snapshot.load().config);
            return Duration::ZERO;
        }
        let had = match self.order().await {
            Ok(had) => had,
            Err(failure) => return self.failed(&failure),
        };
        match self.take(had).await {
            Ok(()) => Duration::ZERO,
            Err(failure) => self.failed(&failure),
        }
    }

    async fn order(&self) -> Result<Had, Failure> {
        let orderer = Orderer {
            config: &self.config,
            files: &self.all.files,
            accounts: &self.all.accounts,
            proofs: &self.all.proofs,
        };
        let mut chances = CHANCES;
        loop {
            chances -= 1;
            match orderer.order().await {
                Err(failure) if failure.chance && chances > 0 => {
                    log::info!("ordering again at once: {}", failure.why);
                }
                ordered => return ordered,
            }
        }
    }

    /// Puts what was had in force, and keeps it.
    async fn take(&mut self, had: Had) -> Result<(), Failure> {
        let text = (had.key + &had.chain).into_bytes();
        let wrong = |why| Failure::own(format!("what the authority has given is of no use: {why}"));
        self.slot.take(&text).map_err(wrong)?;
        let (files, file) = (Arc::clone(&self.all.files), self.slot.file().to_owned());
        if let Err(failure) = apart(move || files.write(&file, &text)).await {
            let why = failure.why;
            log::error!("a certificate is in force and cannot be kept over a restart: {why}");
        }
        self.all.tell(&self.shared.snapshot.load().config);
        let now = now();
        let validity = self.slot.validity();
        let Some(validity) = validity.filter(|one| one.is_of_use(self.config.renew_before, now))
        else {
            let why = "the certificate is due to be ordered again as soon as it is there; is the clock of \
                       this machine right?";
            return Err(Failure::own(why.to_owned()));
        };
        self.failures = 0;
        acme_ordered(AcmeResult::Issued);
        let (until, due) = (date(validity.until), date(self.due()));
        let names = self.names();
        log::info!("a certificate for {names} is in force until {until}; ordered anew on {due}");
        Ok(())
    }

    /// Tells of a failure. How long to wait after it.
    fn failed(&mut self, failure: &Failure) -> Duration {
        acme_ordered(failure.result);
        self.failures = self.failures.saturating_add(1);
        let wait = pause(self.failures, fastrand::f64(), failure.asked);
        let level = match self.failures < FAILURES_LOUD {
            true => log::Level::Warn,
            false => log::Level::Error,
        };
        let names = self.names();
        let still = match self.slot.validity() {
            Some(validity) if validity.until > now() => {
                format!("the one in force is good until {}", date(validity.until))
            }
            Some(validity) => format!("the last one has expired on {}", date(validity.until)),
            None => "there has been none yet".to_owned(),
        };
        let (why, seconds) = (&failure.why, wait.as_secs());
        log::log!(
            level,
            "no new certificate for {names}: {why}; {still}; ordered again in {seconds} s"
        );
        wait
    }

    fn names(&self) -> String {
        self.config.names.join(", ")
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A moment for people.
fn date(seconds: u64) -> String {
    // What lies behind the year 9999 has no date there.
    let at = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    httpdate::fmt_http_date(at)
}
