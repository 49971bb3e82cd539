//! A collector that takes OTLP, spoken to by the same HTTP and TLS as endpoints.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::grpc;
use crate::config::{self, TraceProtocol, Tracing};
use crate::proxy::kept::Kept;
use crate::server::retry_after::pause;
use crate::telemetry::SpanLoss;
use crate::transport::dial::{Dialer, Target, Up};
use crate::transport::tls::{self, Rules, Trust};
use crate::transport::{Edits, Error, Length, Outgoing, Upstream as _};

/// The longest answer that is read: one has nothing but a number and a sentence to say.
const ANSWER_MAX: usize = 64 * 1024;
/// How long a connection may lie idle; below what servers keep one for.
const IDLE: Duration = Duration::from_secs(4);
/// Who we say we are (OTLP wants it said).
const USER_AGENT: &[u8] = concat!("tidegate/", env!("CARGO_PKG_VERSION")).as_bytes();

/// A collector, and the connections to it.
pub(super) struct Client {
    pub(super) config: Tracing,
    tls: Option<tls::Client>,
    dialer: Arc<Dialer>,
}

/// What a collector has made of a batch that it took.
pub(super) struct Taken {
    /// Spans that it did not take all the same.
    pub(super) refused: usize,
    /// Why.
    pub(super) why: String,
}

/// A batch that was not taken.
#[derive(Debug)]
pub(super) struct Failure {
    /// In words.
    pub(super) why: String,
    /// As what its spans count, should it be given up.
    pub(super) loss: SpanLoss,
    /// Sending it again would not help.
    pub(super) is_final: bool,
    /// How long the collector wants to be left alone.
    pub(super) pause: Option<Duration>,
}

impl Failure {
    /// It may be sent again.
    pub(super) fn passing(why: impl ToString) -> Self {
        Self {
            why: why.to_string(),
            loss: SpanLoss::Unreachable,
            is_final: false,
            pause: None,
        }
    }

    /// The collector does not want it.
    pub(super) fn refused(why: impl ToString) -> Self {
        Self {
            loss: SpanLoss::Refused,
            is_final: true,
            ..Self::passing(why)
        }
    }
}

/// What was answered, as far as it was read.
pub(super) struct Answer {
    pub(super) up: Up,
    pub(super) body: Vec<u8>,
}

impl Client {
    /// By this configuration.
    ///
    /// # Errors
    /// If none of those can be used who are to vouch for it.
    pub(super) fn new(config: &Tracing) -> Result<Self, rustls::Error> {
        let trust = config.endpoint.trust.as_ref().map(|trust| match trust {
            config::Trust::File(_, authorities) => Trust::These(authorities.as_slice()),
            config::Trust::System(authorities) => Trust::System(authorities.as_slice()),
            config::Trust::Anybody => Trust::Anybody,
        });
        let tls = trust.map(|trust| {
            let rules = Rules::new(trust, None)?;
            tls::Client::new(rules, &config.endpoint.host)
                .map_err(|error| rustls::Error::General(error.to_string()))
        });
        Ok(Self {
            config: config.clone(),
            tls: tls.transpose()?,
            dialer: Dialer::new(),
        })
    }

    /// Sends a batch, within the time it may take.
    pub(super) async fn send(&self, batch: &[u8]) -> Result<Taken, Failure> {
        let sending = async {
            match self.config.protocol {
                TraceProtocol::Http => self.post(batch).await,
                TraceProtocol::Grpc => grpc::export(self, batch).await,
            }
        };
        let sent = timeout(self.config.timeout, sending).await;
        sent.unwrap_or_else(|_| {
            Err(Failure {
                loss: SpanLoss::Timeout,
                ..Failure::passing("it took too long")
            })
        })
    }

    async fn post(&self, batch: &[u8]) -> Result<Taken, Failure> {
        let fields: [(&str, &[u8]); 1] = [("content-type", b"application/x-protobuf")];
        let path = &self.config.endpoint.path;
        let length = Length::Exact(batch.len() as u64);
        let answer = self.ask(path, &fields, batch, length).await?;
        let status = answer.up.head().status();
        if (200..300).contains(&status) {
            let taken = taken(&answer.body);
            answer.up.release();
            return Ok(taken);
        }
        let why = format!("it answered with status {status}");
        // The ones that the protocol lets us try again.
        Err(match status {
            429 | 502..=504 => Failure {
                pause: answer.up.head().get("retry-after").and_then(pause),
                ..Failure::passing(why)
            },
            _ => Failure::refused(why),
        })
    }

    /// Asks on a connection that is there, or else on a new one.
    pub(super) async fn ask(
        &self,
        path: &str,
        fields: &[(&str, &[u8])],
        body: &[u8],
        length: Length,
    ) -> Result<Answer, Failure> {
        let mut set: Vec<(&str, &[u8])> = vec![("user-agent", USER_AGENT)];
        set.extend_from_slice(fields);
        let headers = self.config.headers.0.iter();
        set.extend(headers.map(|(name, value)| (name.as_str(), value.as_bytes())));
        let out = Outgoing {
            head: &Kept::default(),
            method: "POST",
            target: path,
            authority: &self.config.endpoint.authority,
            edits: Edits {
                set: &set,
                ..Edits::default()
            },
            length,
        };
        let up = self.connect(true).await?;
        let was_used = up.reused();
        match exchange(up, &out, body).await {
            // It was closed while it lay idle.
            Err(_) if was_used => exchange(self.connect(false).await?, &out, body).await,
            answered => answered,
        }
        .map_err(Failure::passing)
    }

    async fn connect(&self, reuse: bool) -> Result<Up, Failure> {
        let endpoint = &self.config.endpoint;
        let host = &endpoint.host;
        let found = lookup_host((host.as_str(), endpoint.port)).await;
        let mut failed = format!("no address is known for {host}");
        let found = found.map_err(|error| Failure::passing(format!("{failed}: {error}")))?;
        for address in found {
            let target = Target {
                address,
                group: 0,
                http2: self.config.protocol == TraceProtocol::Grpc,
                tls: self.tls.as_ref(),
                unix: None,
                announce: None,
                connect_timeout: self.config.timeout,
                write_timeout: Some(self.config.timeout),
                idle: IDLE,
                reuse,
            };
            match self.dialer.open(target, None).await {
                Ok(up) => return Ok(up),
                Err(error) => failed = format!("{address}: {error}"),
            }
        }
        Err(Failure::passing(failed))
    }
}

async fn exchange(mut up: Up, out: &Outgoing<'_>, body: &[u8]) -> Result<Answer, Error> {
    up.put_head(out)?;
    up.send_body(body).await?;
    up.finish().await?;
    up.read_head().await?;
    let mut body = Vec::new();
    while body.len() <= ANSWER_MAX
        && let Some(piece) = up.read_body().await?
    {
        body.extend_from_slice(&piece);
    }
    Ok(Answer { up, body })
}

/// What a collector says of a batch that it took. An answer that cannot be read says nothing.
pub(super) fn taken(answer: &[u8]) -> Taken {
    let read = ExportTraceServiceResponse::decode(answer).ok();
    let partial = read.and_then(|answer| answer.partial_success);
    partial.map_or_else(
        || Taken {
            refused: 0,
            why: String::new(),
        },
        |partial| Taken {
            refused: partial.rejected_spans.try_into().unwrap_or(0),
            why: partial.error_message,
        },
    )
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn what_a_collector_has_not_taken_is_read_from_its_answer() {
        assert_eq!(taken(b"").refused, 0);
        assert_eq!(taken(b"<html>").refused, 0);
        let answer = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 3,
                error_message: "too old".to_owned(),
            }),
        };
        let taken = taken(&answer.encode_to_vec());
        assert_eq!((taken.refused, taken.why.as_str()), (3, "too old"));
    }

    #[test]
    fn a_collector_may_ask_to_be_left_alone() {
        assert_eq!(pause(b"7"), Some(Duration::from_secs(7)));
        assert_eq!(
            pause(b"Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(pause(b"soon"), None);
    }
}
