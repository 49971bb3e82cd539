//! `subscriptions/listen` (2026-07-28), asked for again at another server.
//!
//! Its client knows it by the id of the request, so the very same request is sent. The new server
//! acknowledges it as the first one did; the client has heard that and is spared it. Then everything
//! that the client listens for is announced as changed, for events may have been missed.
//!
//! A server that grants less than was asked for cannot stand in unseen, since the client would wait
//! for events that never come. Its stream then ends with its result, upon which the client asks anew
//! and hears what it is granted.

use serde_json::{Map, Value};

use crate::mcp::answer::write_string;
use crate::mcp::sse::{Mode, write_message_event};
use crate::mcp::{Note, RawId, SseScan};
use crate::transport::Upstream;

/// The longest request that is kept, in bytes; the stream of a longer one ends with its server.
const REQUEST_MAX: usize = 16 * 1024;
/// The longest acknowledgement that is waited for, in bytes.
const ACKNOWLEDGEMENT_MAX: usize = 64 * 1024;
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// A subscription that can be asked for again.
pub struct Listen {
    target: Box<str>,
    body: Box<[u8]>,
    id: RawId,
}

/// How a server takes the request.
pub enum Taken {
    /// As it should. What the client is to get of its stream: not the acknowledgement, but what is
    /// announced and whatever came behind.
    Whole(Vec<u8>),
    /// It grants less than was asked for.
    InPart,
    /// Its stream does not begin as it should.
    Not,
}

/// A request, or the acknowledgement: what is asked for, or granted.
#[derive(serde::Deserialize)]
struct Request {
    params: Params,
}

#[derive(serde::Deserialize)]
struct Params {
    #[serde(default)]
    notifications: Map<String, Value>,
}

impl Params {
    fn is_set(&self, key: &str) -> bool {
        self.notifications.get(key) == Some(&Value::Bool(true))
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &Value> {
        let list = self.notifications.get(key).and_then(Value::as_array);
        list.into_iter().flatten()
    }

    /// Is everything here that `asked` asks for? Also of kinds that are not known here.
    fn covers(&self, asked: &Self) -> bool {
        asked.notifications.iter().all(|(key, value)| match value {
            Value::Bool(false) | Value::Null => true,
            Value::Array(items) => items.iter().all(|item| self.list(key).any(|it| it == item)),
            _ => self.notifications.get(key) == Some(value),
        })
    }
}

impl Listen {
    /// Keeps a request, unless it is too long.
    pub fn of<'a>(target: &str, id: &RawId, body: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut text = Vec::new();
        for piece in body {
            text.extend_from_slice(piece);
            if text.len() > REQUEST_MAX {
                return None;
            }
        }
        Some(Self {
            target: target.into(),
            body: text.into_boxed_slice(),
            id: id.clone(),
        })
    }

    /// The request target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The request's body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads the new stream up to the end of its first event.
    pub async fn acknowledged<U: Upstream>(&self, up: &mut U) -> Taken {
        let Some((seen, end)) = first_event(up).await else {
            return Taken::Not;
        };
        let asked = serde_json::from_slice::<Request>(&self.body);
        let granted = serde_json::from_slice::<Request>(&data(&seen[..end]));
        let (Ok(asked), Ok(granted)) = (asked, granted) else {
            return Taken::Not;
        };
        if !granted.params.covers(&asked.params) {
            return Taken::InPart;
        }
        let mut news = Vec::new();
        self.announce(&asked.params, &mut news);
        news.extend_from_slice(&seen[end..]);
        Taken::Whole(news)
    }

    /// Appends events that tell of a change in everything that is listened for.
    fn announce(&self, wanted: &Params, out: &mut Vec<u8>) {
        let lists = ["tools", "prompts", "resources"];
        for list in lists
            .iter()
            .filter(|list| wanted.is_set(&format!("{list}ListChanged")))
        {
            self.tell(out, &format!("notifications/{list}/list_changed"), None);
        }
        for uri in wanted
            .list("resourceSubscriptions")
            .filter_map(Value::as_str)
        {
            self.tell(out, "notifications/resources/updated", Some(uri));
        }
    }

    fn tell(&self, out: &mut Vec<u8>, method: &str, uri: Option<&str>) {
        let mut message = Vec::with_capacity(160);
        message.extend_from_slice(br#"{"jsonrpc":"2.0","method":"#);
        write_string(&mut message, method);
        message.extend_from_slice(br#","params":{"#);
        if let Some(uri) = uri {
            message.extend_from_slice(br#""uri":"#);
            write_string(&mut message, uri);
            message.push(b',');
        }
        message.extend_from_slice(br#""_meta":{"io.modelcontextprotocol/subscriptionId":"#);
        message.extend_from_slice(self.id.as_json().as_bytes());
        message.extend_from_slice(b"}}}");
        write_message_event(out, &message);
    }
}

/// What there is of a stream up to its first event, which is an acknowledgement, and behind it; and
/// where that event ends. `None` if it is something else.
async fn first_event<U: Upstream>(up: &mut U) -> Option<(Vec<u8>, usize)> {
    let mut scan = SseScan::new(Mode::Messages);
    let mut seen = Vec::new();
    loop {
        let piece = up.read_body().await.ok()??;
        let before = seen.len();
        let mut first = None;
        scan.feed(&piece, &mut |event| {
            if first.is_none() && event.note != Note::Other && event.note != Note::Priming {
                let good =
                    matches!(event.note, Note::Notification { method } if method == ACKNOWLEDGED);
                first = Some((good, before + event.end));
            }
        });
        seen.extend_from_slice(&piece);
        match first {
            Some((true, end)) => return Some((seen, end)),
            Some((false, _)) => return None,
            None if seen.len() > ACKNOWLEDGEMENT_MAX => return None,
            None => {}
        }
    }
}

/// The data of the only message in these events (WHATWG HTML, section 9.2.6).
fn data(events: &[u8]) -> Vec<u8> {
    let lines = events.split(|byte| matches!(byte, b'\r' | b'\n'));
    let values = lines.filter_map(|line| line.strip_prefix(b"data:"));
    values.collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listened_for_is_announced() {
        let body = br#"{"jsonrpc":"2.0","id":"s\"1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["a:1"],"taskIds":["t"]}}}"#;
        let id = RawId::parse(r#""s\"1""#).unwrap();
        let listen = Listen::of("/mcp", &id, [&body[..]].into_iter()).unwrap();
        let mut out = Vec::new();
        let asked: Request = serde_json::from_slice(body).unwrap();
        listen.announce(&asked.params, &mut out);
        let meta = r#""_meta":{"io.modelcontextprotocol/subscriptionId":"s\"1"}"#;
        let tools = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{{meta}}}}}"#
        );
        let updated = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:1",{meta}}}}}"#
        );
        let expected =
            format!("event: message\ndata: {tools}\n\nevent: message\ndata: {updated}\n\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_is_granted_must_cover_what_was_asked_for() {
        let params = |notifications: &str| {
            let text = format!(r#"{{"params":{{"notifications":{notifications}}}}}"#);
            serde_json::from_str::<Request>(&text).unwrap().params
        };
        let asked = params(
            r#"{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["a:1","b:2"],"taskIds":[]}"#,
        );
        for (granted, covers) in [
            (
                r#"{"toolsListChanged":true,"resourceSubscriptions":["b:2","a:1"]}"#,
                true,
            ),
            (
                r#"{"toolsListChanged":true,"resourceSubscriptions":["a:1"]}"#,
                false,
            ),
            (r#"{"resourceSubscriptions":["a:1","b:2"]}"#, false),
            (
                r#"{"toolsListChanged":false,"resourceSubscriptions":["a:1","b:2"]}"#,
                false,
            ),
            ("{}", false),
        ] {
            assert_eq!(params(granted).covers(&asked), covers, "{granted}");
        }
    }

    #[test]
    fn the_data_of_a_message_is_put_together() {
        let events = b": hi\r\nid: 1\r\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n";
        assert_eq!(data(events), b" {\"a\":\n 1}");
    }

    #[test]
    fn a_request_that_is_too_long_is_not_kept() {
        let id = RawId::parse("1").unwrap();
        let long = vec![b' '; REQUEST_MAX];
        assert!(Listen::of("/", &id, [&long[..]].into_iter()).is_some());
        assert!(Listen::of("/", &id, [&long[..], b" "].into_iter()).is_none());
    }
}
