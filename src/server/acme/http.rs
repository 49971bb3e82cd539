//! Requests to an authority: each on a connection of its own, by the same HTTP and TLS as requests to
//! endpoints, bounded in time and length.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, Uri};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::config;
use crate::proxy::ask::{Question, send};
use crate::server::retry_after::pause;
use crate::telemetry::AcmeResult;
use crate::transport::Upstream as _;
use crate::transport::dial::{Dialer, Target, Up};
use crate::transport::tls::{Client, Rules, Trust};

/// How long one request may take, from looking up the name to the last byte of the answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How long one address may take to be reached.
const CONNECT_TIME: Duration = Duration::from_secs(8);
/// The longest answer: a chain of certificates takes some kilobytes.
const ANSWER_MAX: usize = 1024 * 1024;
/// Who we say we are (RFC 8555 section 6.1 wants it said).
const USER_AGENT: &[u8] = concat!("tidegate/", env!("CARGO_PKG_VERSION")).as_bytes();

/// The fields of answers that mean something to the library or to us.
const WANTED: [&str; 4] = ["content-type", "location", "replay-nonce", "retry-after"];

/// What goes wrong with a request, in words.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Wrong {
    pub(super) result: AcmeResult,
    why: String,
}

/// Requests of one order.
pub(super) struct Http {
    rules: Rules,
    dialer: Arc<Dialer>,
    asked: Asked,
}

/// How long the authority has asked us to wait, when it last refused something.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Option<Duration>>>);

impl Asked {
    /// What it was.
    pub(super) fn take(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, pause: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }
}

impl Http {
    /// Trusts those who vouch for the directory.
    ///
    /// # Errors
    /// If none of them can be used.
    pub(super) fn new(trust: &config::Trust, asked: Asked) -> Result<Self, rustls::Error> {
        let trust = match trust {
            config::Trust::File(_, authorities) => Trust::These(authorities.as_slice()),
            config::Trust::System(authorities) => Trust::System(authorities.as_slice()),
            config::Trust::Anybody => Trust::Anybody,
        };
        Ok(Self {
            rules: Rules::new(trust, None)?,
            dialer: Dialer::new(),
            asked,
        })
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (rules, dialer) = (self.rules.clone(), Arc::clone(&self.dialer));
        let asked = self.asked.clone();
        Box::pin(async move {
            let place = format!("{} {}", request.method(), request.uri());
            let told = |result, why: String| {
                let why = format!("{place}: {why}");
                Error::Other(Box::new(Wrong { result, why }))
            };
            let exchange = Box::pin(exchange(&rules, &dialer, request));
            let answer = match timeout(REQUEST_TIME, exchange).await {
                Err(_) => return Err(told(AcmeResult::Timeout, "it took too long".to_owned())),
                Ok(Err(why)) => return Err(told(AcmeResult::Unreachable, why)),
                Ok(Ok(answer)) => answer,
            };
            let status = answer.status();
            if !status.is_client_error() && !status.is_server_error() {
                return Ok(answer.into_bytes());
            }
            asked.note(pause_in(&answer));
            let kind = answer.headers().get(CONTENT_TYPE);
            let is_problem =
                |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/problem+json");
            match kind.is_some_and(is_problem) {
                true => Ok(answer.into_bytes()),
                false => Err(told(
                    AcmeResult::Refused,
                    format!("answered with status {}", status.as_u16()),
                )),
            }
        })
    }
}

/// What the library wants to have.
trait IntoBytes {
    fn into_bytes(self) -> BytesResponse;
}

impl IntoBytes for Response<Bytes> {
    fn into_bytes(self) -> BytesResponse {
        let (parts, body) = self.into_parts();
        BytesResponse {
            parts,
            body: Box::new(body),
        }
    }
}

/// One request and its answer. What goes wrong is told in words.
async fn exchange(
    rules: &Rules,
    dialer: &Arc<Dialer>,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Bytes>, String> {
    let (parts, body) = request.into_parts();
    // The library's body has no other way to be read than as that of an answer.
    let mut body = BytesResponse::from(Response::new(body)).body;
    let body = body.into_bytes().await.map_err(|error| error.to_string())?;
    let authority = parts.uri.authority().map_or("", |found| found.as_str());
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", |found| found.as_str());
    let mut fields: Vec<(&'static str, &[u8])> = vec![("user-agent", USER_AGENT)];
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        fields.push(("content-type", kind.as_bytes()));
    }
    let question = Question::own(parts.method.as_str(), path, &fields);
    let body = (!body.is_empty()).then_some(body);
    let question = question.with_body(body.as_deref());
    let mut up = connect(rules, dialer, &parts.uri).await?;
    let sent = send(&mut up, authority, question).await;
    sent.map_err(|error| error.to_string())?;
    let mut answer = Response::builder().status(up.head().status());
    for name in WANTED {
        if let Some(value) = up.head().get(name) {
            answer = answer.header(name, value);
        }
    }
    let mut bytes = Vec::new();
    while let Some(piece) = up.read_body().await.map_err(|error| error.to_string())? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_MAX {
            return Err("the answer is longer than 1 MiB".to_owned());
        }
    }
    let answer = answer.body(Bytes::from(bytes));
    answer.map_err(|error| error.to_string())
}

/// A connection to the first address of a URL's host that can be reached.
async fn connect(rules: &Rules, dialer: &Arc<Dialer>, uri: &Uri) -> Result<Up, String> {
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or("this is no https URL")?.trim_matches(['[', ']']);
    let client = Client::new(rules.clone(), host).map_err(|error| error.to_string())?;
    let found = lookup_host((host, uri.port_u16().unwrap_or(443))).await;
    let mut failed = format!("no address is known for {host}");
    for address in found.map_err(|error| format!("{failed}: {error}"))? {
        let target = Target {
            address,
            group: 0,
            http2: false,
            tls: Some(&client),
            unix: None,
            announce: None,
            connect_timeout: CONNECT_TIME,
            write_timeout: Some(CONNECT_TIME),
            idle: Duration::ZERO,
            reuse: false,
        };
        match dialer.open(target, None).await {
            Ok(up) => return Ok(up),
            Err(error) => failed = format!("{address}: {error}"),
        }
    }
    Err(failed)
}

/// How long an answer asks to wait.
fn pause_in(answer: &Response<Bytes>) -> Option<Duration> {
    pause(answer.headers().get(RETRY_AFTER)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let said = |value: &str| {
            let answer = Response::builder().header(RETRY_AFTER, value);
            pause_in(&answer.body(Bytes::new()).unwrap())
        };
        assert_eq!(said("120"), Some(Duration::from_secs(120)));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = SystemTime::now() + Duration::from_secs(3600);
        let later = said(&httpdate::fmt_http_date(later)).unwrap();
        assert!((3590..=3600).contains(&later.as_secs()), "{later:?}");
        assert_eq!(said("soon"), None);
        assert_eq!(said("-1"), None);
    }
}
