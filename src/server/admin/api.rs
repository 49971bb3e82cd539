//! The API for operators: which resource a request means, whether it may, and what it gets.
//!
//! A path is parsed into a [`Resource`] and then met with a method, so that what is not allowed is told
//! from what is not there. Nothing here knows whether the request came over the socket or the address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::audit::{Audit, Peer};
use super::events::Listener;
use super::live::Live;
use super::look::{self, Missing};
use super::process::{self, Deed};
use super::{clear, csv, listing, refused, view};
use crate::config::{self, AdminLevel};
use crate::server::operator::{Action, DRAIN_MAX, Found, IN_FLIGHT_MAX, Operator, WEIGHT_MAX};
use crate::server::reload::Reloader;
use crate::session::Key;

/// Longest body of a request.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// One request, read as a whole.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Behind `/v1/`.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) body: &'a [u8],
    pub(super) peer: &'a Peer,
    pub(super) level: AdminLevel,
}

/// What is answered.
pub(super) enum Body {
    /// As nearly everything is.
    Json(Value),
    /// Rows of text.
    Csv(String),
    /// Events as they happen.
    Events(Listener),
}

/// Status and body.
pub(super) type Reply = Result<(u16, Value), Refusal>;

/// Why a request gets no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It cannot be understood; how it would be right.
    Bad(String),
    /// It may not.
    Forbidden(&'static str),
    /// There is no such thing.
    NotFound(String),
    /// The resource takes other methods: these.
    Method(&'static str),
    /// It fits to more than one.
    Conflict(String),
    /// It was tried, and everything goes on as it was.
    Failed(String),
    /// Its body is too long.
    TooLarge,
    /// Others have what it wants; it may come again.
    Busy(&'static str),
}

impl Refusal {
    /// The status, the word for programs, and the sentence.
    pub(super) fn parts(&self) -> (u16, &'static str, String) {
        match self {
            Self::Bad(why) => (400, "bad_request", why.clone()),
            Self::Forbidden(why) => (403, "forbidden", (*why).to_owned()),
            Self::NotFound(what) => (404, "not_found", format!("there is no {what}")),
            Self::Method(allow) => (
                405,
                "method_not_allowed",
                format!("this resource takes {allow}"),
            ),
            Self::Conflict(why) => (409, "conflict", why.clone()),
            Self::Failed(why) => (422, "failed", why.clone()),
            Self::Busy(why) => (503, "busy", (*why).to_owned()),
            Self::TooLarge => (
                413,
                "too_large",
                format!("a body has at most {BODY_MAX} bytes"),
            ),
        }
    }
}

/// What a path means.
enum Resource {
    Info,
    Status,
    Pools,
    Pool(String),
    Endpoint(String, String),
    Verb(String, String, String),
    Sessions,
    Session(String),
    Streams,
    Errors,
    Config,
    Tools,
    History,
    Reloads,
    Process(Deed),
}

impl Resource {
    fn of(path: &str) -> Result<Self, Refusal> {
        let segments: Option<Vec<String>> = path.split('/').map(unescape).collect();
        let segments = segments.ok_or_else(|| Refusal::Bad("malformed path".to_owned()))?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let unknown = || Refusal::NotFound(format!("resource /v1/{path}"));
        let own = |text: &&str| (*text).to_owned();
        Ok(match segments.as_slice() {
            ["info"] => Self::Info,
            ["status"] => Self::Status,
            ["pools"] => Self::Pools,
            ["pools", pool] => Self::Pool(own(pool)),
            ["pools", pool, "endpoints", endpoint] => Self::Endpoint(own(pool), own(endpoint)),
            ["pools", pool, "endpoints", endpoint, verb] => {
                Self::Verb(own(pool), own(endpoint), own(verb))
            }
            ["sessions"] => Self::Sessions,
            ["sessions", id] => Self::Session(own(id)),
            ["streams"] => Self::Streams,
            ["errors"] => Self::Errors,
            ["config"] => Self::Config,
            ["tools"] => Self::Tools,
            ["history"] => Self::History,
            ["reloads"] => Self::Reloads,
            [word] => return Deed::of(word).map(Self::Process).ok_or_else(unknown),
            _ => return Err(unknown()),
        })
    }
}

/// What is answered in rows of text, where a request asks for that.
///
/// # Errors
/// A format that there is not.
pub(super) fn csv(operator: &Operator, request: &Request<'_>) -> Result<Option<String>, Refusal> {
    let is_read = matches!(request.method, "GET" | "HEAD");
    if !is_read || !matches!(Resource::of(request.path), Ok(Resource::Pools)) {
        return Ok(None);
    }
    match request.query {
        None | Some("" | "format=json") => Ok(None),
        Some("format=csv") => Ok(Some(csv::pools(&look::pools(operator).pools))),
        Some(other) => Err(Refusal::Bad(format!(
            "format is json or csv, and there is no other parameter: {other}"
        ))),
    }
}

/// Answers a request.
pub(super) async fn answer(
    operator: &Arc<Operator>,
    reloader: &Arc<Reloader>,
    live: &Live,
    request: &Request<'_>,
) -> Reply {
    let resource = Resource::of(request.path)?;
    let level = request.level;
    match (request.method, resource) {
        ("GET" | "HEAD", resource) => match resource {
            Resource::Info => shown(&look::info(operator, level)),
            Resource::Status => shown(&look::status(operator, level)),
            Resource::Pools => shown(&look::pools(operator)),
            Resource::Pool(name) => shown(&one_pool(operator, &name)?),
            Resource::Endpoint(pool, endpoint) => {
                let found = find(operator, &pool, &endpoint)?;
                shown(&look::endpoint(operator, &found))
            }
            Resource::Verb(..) | Resource::Process(_) => Err(Refusal::Method("POST")),
            Resource::Sessions => listing::sessions(operator, request.query),
            Resource::Session(id) => one_session(operator, &id),
            Resource::Streams => listing::streams(operator, request.query),
            Resource::Tools => listing::tools(live, request.query),
            Resource::History => shown(&live.history()),
            Resource::Reloads => shown(&look::reloads(reloader)),
            Resource::Errors => shown(&refused::errors(operator)),
            Resource::Config => shown(&view::Config {
                config: operator.shared.snapshot.load().config.effective.clone(),
            }),
        },
        ("POST", Resource::Verb(pool, endpoint, verb)) => {
            act(operator, request, &pool, &endpoint, &verb).await
        }
        ("POST", Resource::Process(deed)) => process::act(reloader, request, deed).await,
        ("DELETE", Resource::Session(id)) => end_session(operator, request, &id),
        ("DELETE", Resource::Sessions) => clear::sessions(operator, request),
        (_, Resource::Verb(..) | Resource::Process(_)) => Err(Refusal::Method("POST")),
        (_, Resource::Sessions | Resource::Session(_)) => Err(Refusal::Method("GET, DELETE")),
        (_, _) => Err(Refusal::Method("GET")),
    }
}

pub(super) fn shown<T: serde::Serialize>(view: &T) -> Reply {
    let value = serde_json::to_value(view).map_err(|error| Refusal::Bad(error.to_string()))?;
    Ok((200, value))
}

fn one_pool(operator: &Operator, name: &str) -> Result<view::Pool, Refusal> {
    let snapshot = operator.shared.snapshot.load();
    let pool = snapshot.all_pools().find(|pool| pool.pool.name() == name);
    let pool = pool.ok_or_else(|| Refusal::NotFound(format!("pool {name}")))?;
    Ok(look::pool(operator, pool))
}

fn find(operator: &Operator, pool: &str, endpoint: &str) -> Result<Found, Refusal> {
    let found = operator.find(pool, endpoint);
    found.ok_or_else(|| Refusal::NotFound(format!("endpoint {pool}/{endpoint}")))
}

/// What may be asked of an endpoint. Each verb has the fields that it needs and no others.
async fn act(
    operator: &Arc<Operator>,
    request: &Request<'_>,
    pool: &str,
    endpoint: &str,
    verb: &str,
) -> Reply {
    let action = action(verb, request.body);
    let label = action.as_ref().map_or("unknown", |action| action.label());
    let audit = Audit::new(request.peer, label, format!("{pool}/{endpoint}"));
    let done = async {
        allow(request.level)?;
        let (action, found) = (action?, find(operator, pool, endpoint)?);
        if found.config().is_none() {
            let why = "the configuration has this endpoint no more, and it is leaving";
            return Err(Refusal::Conflict(why.to_owned()));
        }
        let warning = operator.act(&found, action).await.err();
        Ok((action, found, warning))
    };
    let (action, found, warning) = done.await.map_err(|refusal| audit.refused(refusal))?;
    audit.done(&details(action), warning.as_deref());
    let (_, done) = shown(&view::Done {
        pool: found.pool.pool.name().to_owned(),
        endpoint: look::endpoint(operator, &found),
        warning,
    })?;
    // A drain has only begun.
    let status = match action {
        Action::Drain(_) => 202,
        _ => 200,
    };
    Ok((status, done))
}

pub(super) fn allow(level: AdminLevel) -> Result<(), Refusal> {
    match level {
        AdminLevel::Operate => Ok(()),
        AdminLevel::Read => Err(Refusal::Forbidden(
            "this connection may only read; operate over the admin socket",
        )),
    }
}

fn action(verb: &str, body: &[u8]) -> Result<Action, Refusal> {
    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Drain {
        #[serde(default)]
        timeout: Option<String>,
    }
    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Weight {
        // Named so that it has to be there, if only as null.
        #[serde(deserialize_with = "Option::deserialize")]
        weight: Option<u16>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct MaxInFlight {
        #[serde(deserialize_with = "Option::deserialize")]
        max_in_flight: Option<u32>,
    }
    Ok(match verb {
        "drain" => {
            let Drain { timeout } = fields(body)?;
            Action::Drain(timeout.as_deref().map(drain_time).transpose()?)
        }
        "ready" => {
            let Nothing {} = fields(body)?;
            Action::Ready
        }
        "maint" => {
            let Nothing {} = fields(body)?;
            Action::Maint
        }
        "weight" => {
            let Weight { weight } = fields(body)?;
            within("weight", weight.map(u32::from), WEIGHT_MAX.into())?;
            Action::Weight(weight)
        }
        "max_in_flight" => {
            let MaxInFlight { max_in_flight } = fields(body)?;
            within("max_in_flight", max_in_flight, IN_FLIGHT_MAX)?;
            Action::MaxInFlight(max_in_flight)
        }
        _ => return Err(Refusal::NotFound(format!("operation {verb}"))),
    })
}

/// The body's fields; an empty body has none.
fn fields<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = match body.trim_ascii() {
        [] => b"{}",
        body => body,
    };
    serde_json::from_slice(body).map_err(|error| Refusal::Bad(error.to_string()))
}

fn drain_time(text: &str) -> Result<Duration, Refusal> {
    let time = config::duration(text).map_err(Refusal::Bad)?;
    match time <= DRAIN_MAX {
        true => Ok(time),
        false => Err(Refusal::Bad(format!("{text} is too long; the most is 30d"))),
    }
}

fn within(name: &str, value: Option<u32>, most: u32) -> Result<(), Refusal> {
    match value.is_none_or(|value| value <= most) {
        true => Ok(()),
        false => Err(Refusal::Bad(format!("{name} is at most {most}"))),
    }
}

/// What the audit says beside the name of the action.
fn details(action: Action) -> String {
    let number = |value: Option<u32>| match value {
        Some(value) => value.to_string(),
        None => "as configured".to_owned(),
    };
    match action {
        Action::Drain(Some(timeout)) => format!("within {timeout:?}"),
        Action::Drain(None) => "without a limit".to_owned(),
        Action::Ready | Action::Maint => String::new(),
        Action::Weight(weight) => number(weight.map(u32::from)),
        Action::MaxInFlight(max) => number(max),
    }
}

fn session_key(operator: &Operator, id: &str) -> Result<Key, Refusal> {
    look::find_session(&operator.shared.sessions, id).map_err(|missing| match missing {
        Missing::None => Refusal::NotFound(format!("session {id}")),
        Missing::Several => Refusal::Conflict(format!(
            "more than one session begins with {id}; give the whole id"
        )),
    })
}

fn one_session(operator: &Operator, id: &str) -> Reply {
    let key = session_key(operator, id)?;
    let now = Instant::now();
    let table = &operator.shared.sessions;
    let session = table.look(key, |live| look::session(live, now));
    shown(&session.ok_or_else(|| Refusal::NotFound(format!("session {id}")))?)
}

fn end_session(operator: &Operator, request: &Request<'_>, id: &str) -> Reply {
    let audit = Audit::new(request.peer, "end_session", id.to_owned());
    let end = || {
        allow(request.level)?;
        let key = session_key(operator, id)?;
        match operator.end_session(key) {
            true => Ok(()),
            false => Err(Refusal::NotFound(format!("session {id}"))),
        }
    };
    end().map_err(|refusal| audit.refused(refusal))?;
    audit.done("", None);
    shown(&view::Ended {
        ended: id.to_owned(),
    })
}

/// A segment of a path or a value of a query without its escapes (RFC 3986 section 2.1); `None` if one
/// is malformed, or it is not UTF-8.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_once_and_malformed_ones_not_at_all() {
        assert_eq!(unescape("10.0.0.1%3A80").as_deref(), Some("10.0.0.1:80"));
        assert_eq!(unescape("a%252Fb").as_deref(), Some("a%2Fb"));
        for wrong in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_operation_takes_its_own_fields_within_their_bounds() {
        let right = |verb, body: &str| action(verb, body.as_bytes()).unwrap();
        assert_eq!(right("drain", ""), Action::Drain(None));
        let minute = Action::Drain(Some(Duration::from_secs(60)));
        assert_eq!(right("drain", "{\"timeout\": \"1m\"}"), minute);
        assert_eq!(right("weight", "{\"weight\": 0}"), Action::Weight(Some(0)));
        assert_eq!(right("weight", "{\"weight\": null}"), Action::Weight(None));
        assert_eq!(
            right("max_in_flight", "{\"max_in_flight\": 5}"),
            Action::MaxInFlight(Some(5))
        );
        for (verb, body) in [
            ("drain", "{\"timeout\": 60}"),
            ("drain", "{\"timeout\": \"31d\"}"),
            ("drain", "{\"tiemout\": \"1m\"}"),
            ("ready", "{\"weight\": 1}"),
            ("weight", ""),
            ("weight", "{\"weight\": 257}"),
            ("weight", "{\"weight\": -1}"),
            ("max_in_flight", "{\"max_in_flight\": 1000001}"),
            ("maint", "no JSON"),
        ] {
            let refused = action(verb, body.as_bytes());
            assert!(matches!(refused, Err(Refusal::Bad(_))), "{verb} {body}");
        }
        assert!(matches!(action("stop", b""), Err(Refusal::NotFound(_))));
    }
}
