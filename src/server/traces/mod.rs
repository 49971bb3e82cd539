//! Spans on their way to the collector: in batches, beside the requests, again where the collector was not
//! ready, and never for ever.
//!
//! What comes of a batch is counted, and the log hears of it when a collector is lost and when it is
//! back. A reload takes effect with the next batch.

mod collector;
mod grpc;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{sleep, timeout};

use self::collector::{Client, Failure};
use super::at_first;
use crate::proxy::state::{Phase, Shared};
use crate::telemetry::traces::request;
use crate::telemetry::{Record, SpanLoss, spans_dropped, spans_exported};

/// How long spans wait for others to go with.
const LINGER: Duration = Duration::from_secs(1);
/// How long it is waited before a batch is sent again, each time.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// The most that a collector may ask for in its place.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a batch that is on its way may hold up the end of the process, and after it all the others.
const LAST_BATCH: Duration = Duration::from_secs(1);
const LAST_BATCHES: Duration = Duration::from_secs(2);

/// Sends what has been recorded.
pub(super) struct Exporter {
    shared: Arc<Shared>,
    client: Option<Client>,
    /// The last batch did not arrive.
    is_lost: bool,
}

/// What comes of a batch.
enum Outcome {
    /// Everything is counted that is to be counted.
    Settled,
    /// It is to be sent again.
    Again(Failure),
}

impl Exporter {
    /// Of this process.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            client: None,
            is_lost: false,
        }
    }

    /// Until the process ends. What is not sent by then is for [`flush`].
    pub(super) async fn run(mut self) {
        let traces = self.shared.traces.clone();
        let mut phases = self.shared.phases.clone();
        loop {
            tokio::select! {
                () = traces.enough() => {}
                () = sleep(LINGER) => {}
                () = phases.reached(Phase::Ending) => return,
            }
            while !traces.is_empty() {
                let batch = traces.take();
                let ending = async {
                    phases.reached(Phase::Ending).await;
                    sleep(LAST_BATCH).await;
                };
                tokio::select! {
                    () = self.deliver(&batch) => {}
                    () = ending => return traces.put_back(batch),
                }
            }
        }
    }

    /// Sends a batch until it is settled.
    async fn deliver(&mut self, batch: &[Box<Record>]) {
        for pause in PAUSES {
            match self.send(batch).await {
                Outcome::Settled => return,
                Outcome::Again(failure) => {
                    self.lost(&failure.why);
                    sleep(failure.pause.unwrap_or(pause).min(PAUSE_MAX)).await;
                }
            }
        }
        if let Outcome::Again(failure) = self.send(batch).await {
            spans_dropped(failure.loss, count(batch));
        }
    }

    /// Sends a batch once.
    async fn send(&mut self, batch: &[Box<Record>]) -> Outcome {
        let spans = count(batch);
        let refused = |why: String| Failure {
            why,
            loss: SpanLoss::Refused,
            is_final: true,
            pause: None,
        };
        let sent = match self.client() {
            Ok(client) => {
                let bytes = request(&client.config.service_name, batch).encode_to_vec();
                client.send(&bytes).await
            }
            Err(why) => Err(refused(why)),
        };
        match sent {
            Ok(taken) => {
                let left = taken.refused.min(spans);
                spans_exported(spans - left);
                spans_dropped(SpanLoss::Refused, left);
                if left > 0 {
                    log::debug!(
                        "the collector of traces has refused {left} spans: {}",
                        taken.why
                    );
                }
                if std::mem::take(&mut self.is_lost) {
                    log::info!("the collector of traces takes spans again");
                }
                Outcome::Settled
            }
            Err(failure) if failure.is_final => {
                self.lost(&failure.why);
                spans_dropped(failure.loss, spans);
                Outcome::Settled
            }
            Err(failure) => Outcome::Again(failure),
        }
    }

    /// Says once that spans do not arrive.
    fn lost(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_lost, true) {
            log::warn!("the collector of traces does not take spans: {why}");
        }
    }

    /// How the collector of the configuration in force is spoken to; where there is none any more, the one
    /// before, for what was recorded under it.
    fn client(&mut self) -> Result<&Client, String> {
        let snapshot = self.shared.snapshot.load();
        if let Some(config) = &snapshot.config.tracing
            && self
                .client
                .as_ref()
                .is_none_or(|client| client.config != *config)
        {
            self.client = Some(Client::new(config).map_err(|error| error.to_string())?);
        }
        let client = self.client.as_ref();
        client.ok_or_else(|| "there is no collector any more".to_owned())
    }
}

fn count(batch: &[Box<Record>]) -> usize {
    batch.iter().map(|record| record.spans()).sum()
}

/// Sends what is left when everything else has ended, within a short time. Blocks the thread, so it
/// belongs to the orderly exit of the process.
pub(super) fn flush(shared: &Arc<Shared>) {
    let traces = &shared.traces;
    if traces.is_empty() {
        return;
    }
    at_first(async {
        let mut exporter = Exporter::new(shared);
        let until = tokio::time::Instant::now() + LAST_BATCHES;
        while !traces.is_empty() {
            let batch = traces.take();
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            match timeout(left, exporter.send(&batch)).await {
                Ok(Outcome::Settled) => {}
                Ok(Outcome::Again(failure)) => {
                    exporter.lost(&failure.why);
                    return traces.put_back(batch);
                }
                Err(_) => return traces.put_back(batch),
            }
        }
    });
    let left = traces.len();
    if left > 0 {
        spans_dropped(SpanLoss::Shutdown, left);
        log::warn!("{left} spans could not be sent before the end");
    }
}
