//! `subscriptions/listen` (2026-07-28), asked for again at another server.
//!
//! Its client knows it by the id of the request, so the very same request is sent. The new server
//! acknowledges it as the first one did; the client has heard that and is spared it. Then everything
//! that the client listens for is announced as changed, for events may have been missed.

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

/// What a request asks to hear of.
#[derive(serde::Deserialize)]
struct Request {
    params: Params,
}

#[derive(serde::Deserialize)]
struct Params {
    #[serde(default)]
    notifications: Wanted,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: Vec<String>,
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

    /// Reads the new stream up to the end of its first event. What the client is to get of it: not
    /// the acknowledgement, but what is announced and whatever came behind. `None` if the stream
    /// does not begin as it should.
    pub async fn acknowledged<U: Upstream>(&self, up: &mut U) -> Option<Vec<u8>> {
        let mut scan = SseScan::new(Mode::Messages);
        let mut seen = Vec::new();
        let end = loop {
            let piece = up.read_body().await.ok()??;
            let before = seen.len();
            let mut first = None;
            scan.feed(&piece, &mut |event| {
                if first.is_none() && event.note != Note::Other && event.note != Note::Priming {
                    let good = matches!(event.note, Note::Notification { method } if method == ACKNOWLEDGED);
                    first = Some((good, before + event.end));
                }
            });
            seen.extend_from_slice(&piece);
            match first {
                Some((true, end)) => break end,
                Some((false, _)) => return None,
                None if seen.len() > ACKNOWLEDGEMENT_MAX => return None,
                None => {}
            }
        };
        let mut news = Vec::new();
        self.announce(&mut news);
        news.extend_from_slice(&seen[end..]);
        Some(news)
    }

    /// Appends events that tell of a change in everything that is listened for.
    fn announce(&self, out: &mut Vec<u8>) {
        let Ok(request) = serde_json::from_slice::<Request>(&self.body) else {
            return;
        };
        let wanted = request.params.notifications;
        let lists = [
            (wanted.tools_list_changed, "tools"),
            (wanted.prompts_list_changed, "prompts"),
            (wanted.resources_list_changed, "resources"),
        ];
        for (_, list) in lists.into_iter().filter(|(wanted, _)| *wanted) {
            self.tell(out, &format!("notifications/{list}/list_changed"), None);
        }
        for uri in &wanted.resource_subscriptions {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listened_for_is_announced() {
        let body = br#"{"jsonrpc":"2.0","id":"s\"1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["a:1"],"taskIds":["t"]}}}"#;
        let id = RawId::parse(r#""s\"1""#).unwrap();
        let listen = Listen::of("/mcp", &id, [&body[..]].into_iter()).unwrap();
        let mut out = Vec::new();
        listen.announce(&mut out);
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
    fn a_request_that_is_too_long_is_not_kept() {
        let id = RawId::parse("1").unwrap();
        let long = vec![b' '; REQUEST_MAX];
        assert!(Listen::of("/", &id, [&long[..]].into_iter()).is_some());
        assert!(Listen::of("/", &id, [&long[..], b" "].into_iter()).is_none());
    }
}
