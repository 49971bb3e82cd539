//! What it takes to begin a session again on another endpoint: the client's `initialize`, and what
//! it has told the server since that a new one would have to be told too.
//!
//! It is kept for sessions of pools with `on_endpoint_loss: reinitialize` alone, within a bound on
//! the memory of all of them. A session for which there is no room is served all the same, and is
//! lost with its endpoint as in any other pool.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::mcp::sse::write_message_event;

/// The longest `initialize` that is kept, in bytes; a longer one is no ordinary one.
pub const INITIALIZE_MAX: usize = 64 * 1024;
/// The longest message that is told again, in bytes.
const MESSAGE_MAX: usize = 8 * 1024;
/// Resources of one session whose subscription is told again.
const SUBSCRIPTIONS_MAX: usize = 128;
/// What an entry takes beside its texts, as an estimate.
const OVERHEAD: usize = 256;

/// Where origins are kept, as far as there is room.
#[derive(Debug)]
pub struct Origins {
    used: AtomicUsize,
    max: AtomicUsize,
}

/// How one session began, and what was said in it that lasts.
pub struct Origin {
    /// The body of the client's `initialize`.
    pub initialize: Box<[u8]>,
    /// Held by whoever is beginning the session again.
    pub turn: tokio::sync::Mutex<()>,
    said: Mutex<Said>,
    /// Which of [`LISTS`] the present server announces changes of, one bit each.
    announced: AtomicU8,
    room: Arc<Origins>,
}

/// What a server may announce changes of.
const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// Messages to be sent again, as the client sent them.
#[derive(Default)]
struct Said {
    log_level: Option<Box<[u8]>>,
    /// By resource.
    subscriptions: Vec<(Box<str>, Box<[u8]>)>,
    /// Bytes counted for this session.
    size: usize,
}

impl Origins {
    /// Room for `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        })
    }

    /// Sets the bound, as a reload does. What is kept stays.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Keeps an `initialize`; `None` if it is too long or there is no room.
    pub fn keep<'a>(
        self: &Arc<Self>,
        initialize: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<Arc<Origin>> {
        let length: usize = initialize.clone().map(<[u8]>::len).sum();
        let size = length + OVERHEAD;
        if length > INITIALIZE_MAX || !self.take(size) {
            return None;
        }
        let mut text = Vec::with_capacity(length);
        initialize.for_each(|piece| text.extend_from_slice(piece));
        Some(Arc::new(Origin {
            initialize: text.into_boxed_slice(),
            turn: tokio::sync::Mutex::new(()),
            said: Mutex::new(Said {
                size,
                ..Said::default()
            }),
            announced: AtomicU8::new(0),
            room: Arc::clone(self),
        }))
    }

    /// Bytes kept now.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let max = self.max.load(Relaxed);
        let taken = self.used.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= max)
        });
        taken.is_ok()
    }
}

impl Origin {
    /// Notes a message that a new server would have to be told as well. False if there was no room
    /// for it.
    pub fn note(&self, method: &str, message: &[u8]) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match method {
            "logging/setLevel" => self.put(&mut said, message, |said, text| {
                said.log_level.replace(text).map_or(0, |old| old.len())
            }),
            "resources/subscribe" => {
                let Some(uri) = resource(message) else {
                    return true; // No server subscribes to it either.
                };
                let known = said.subscriptions.iter().any(|(other, _)| *other == uri);
                if !known && said.subscriptions.len() >= SUBSCRIPTIONS_MAX {
                    return false;
                }
                self.put(&mut said, message, |said, text| {
                    let old = said.unsubscribe(&uri);
                    said.subscriptions.push((uri, text));
                    old
                })
            }
            "resources/unsubscribe" => {
                let freed = resource(message).map_or(0, |uri| said.unsubscribe(&uri));
                said.size -= freed;
                self.room.used.fetch_sub(freed, Relaxed);
                true
            }
            _ => true,
        }
    }

    /// The messages to send again, in an order that works.
    pub fn said(&self) -> Vec<Box<[u8]>> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let subscriptions = said.subscriptions.iter().map(|(_, message)| message);
        said.log_level
            .iter()
            .chain(subscriptions)
            .cloned()
            .collect()
    }

    /// Learns from the result of `initialize` what the server announces changes of.
    pub fn learn_announcements(&self, result: &Value) {
        let announced = |list: &str| {
            let changes = result.pointer(&format!("/capabilities/{list}/listChanged"));
            changes.and_then(Value::as_bool).unwrap_or_default()
        };
        let bits = LISTS
            .iter()
            .zip(0..)
            .map(|(list, bit)| u8::from(announced(list)) << bit);
        self.announced.store(bits.sum(), Relaxed);
    }

    /// Appends events that tell of a change in all that the server announces changes of: it is
    /// another one.
    pub fn announce(&self, out: &mut Vec<u8>) {
        let announced = self.announced.load(Relaxed);
        for (list, bit) in LISTS.iter().zip(0..) {
            if announced >> bit & 1 == 1 {
                let message =
                    format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
                write_message_event(out, message.as_bytes());
            }
        }
    }

    /// Does a message of this method last?
    pub fn lasts(method: &str) -> bool {
        matches!(
            method,
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe"
        )
    }

    /// Puts a message in with `place`, which returns how much it has replaced.
    fn put(
        &self,
        said: &mut Said,
        message: &[u8],
        place: impl FnOnce(&mut Said, Box<[u8]>) -> usize,
    ) -> bool {
        if message.len() > MESSAGE_MAX || !self.room.take(message.len()) {
            return false;
        }
        let freed = place(said, message.into());
        said.size = said.size + message.len() - freed;
        self.room.used.fetch_sub(freed, Relaxed);
        true
    }
}

impl Said {
    /// Forgets a subscription; how many bytes that frees.
    fn unsubscribe(&mut self, uri: &str) -> usize {
        let at = self
            .subscriptions
            .iter()
            .position(|(other, _)| &**other == uri);
        at.map_or(0, |at| self.subscriptions.swap_remove(at).1.len())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let said = self.said.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.room.used.fetch_sub(said.size, Relaxed);
    }
}

/// The resource that a message subscribes to.
fn resource(message: &[u8]) -> Option<Box<str>> {
    #[derive(serde::Deserialize)]
    struct Message {
        params: Params,
    }
    #[derive(serde::Deserialize)]
    struct Params {
        uri: Box<str>,
    }
    let message: Message = serde_json::from_slice(message).ok()?;
    Some(message.params.uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#;

    fn keep(origins: &Arc<Origins>) -> Option<Arc<Origin>> {
        let (first, second) = INITIALIZE.split_at(10);
        origins.keep([first, second].into_iter())
    }

    fn about(method: &str, uri: &str) -> Vec<u8> {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{"uri":"{uri}"}}}}"#)
            .into_bytes()
    }

    #[test]
    fn what_was_said_last_is_what_is_said_again() {
        let origins = Origins::new(1 << 20);
        let origin = keep(&origins).unwrap();
        assert_eq!(&*origin.initialize, INITIALIZE);
        assert!(origin.said().is_empty());
        let level = |word: &str| format!(r#"{{"params":{{"level":"{word}"}}}}"#).into_bytes();
        assert!(origin.note("logging/setLevel", &level("info")));
        assert!(origin.note("logging/setLevel", &level("debug")));
        for uri in ["a:1", "a:2", "a:1", "a:3"] {
            assert!(origin.note("resources/subscribe", &about("resources/subscribe", uri)));
        }
        assert!(origin.note(
            "resources/unsubscribe",
            &about("resources/unsubscribe", "a:2")
        ));
        let said: Vec<_> = origin.said().iter().map(|text| text.to_vec()).collect();
        let subscribe = |uri| about("resources/subscribe", uri);
        assert_eq!(said.len(), 3);
        assert_eq!(said[0], level("debug"));
        assert!(said.contains(&subscribe("a:1")) && said.contains(&subscribe("a:3")));
    }

    #[test]
    fn every_byte_that_is_kept_is_counted_and_given_back() {
        let origins = Origins::new(1 << 20);
        let one = keep(&origins).unwrap();
        let empty = origins.used();
        assert_eq!(empty, INITIALIZE.len() + OVERHEAD);
        for _ in 0..3 {
            one.note("resources/subscribe", &about("resources/subscribe", "a:1"));
            one.note("logging/setLevel", b"{}");
        }
        assert_eq!(
            origins.used(),
            empty + about("resources/subscribe", "a:1").len() + 2
        );
        one.note(
            "resources/unsubscribe",
            &about("resources/unsubscribe", "a:1"),
        );
        assert_eq!(origins.used(), empty + 2);
        drop(one);
        assert_eq!(origins.used(), 0);
    }

    #[test]
    fn what_finds_no_room_is_not_kept() {
        let origins = Origins::new(INITIALIZE.len() + OVERHEAD + 10);
        let one = keep(&origins).unwrap();
        assert!(keep(&origins).is_none(), "the room is taken");
        assert!(!one.note("logging/setLevel", &[b' '; 11]));
        assert!(one.said().is_empty());
        drop(one);
        assert!(keep(&origins).is_some());
        let long = vec![b' '; INITIALIZE_MAX + 1];
        let wide = Origins::new(usize::MAX);
        assert!(wide.keep([&long[..]].into_iter()).is_none());
    }

    #[test]
    fn subscriptions_of_one_session_are_bounded() {
        let origin = keep(&Origins::new(1 << 30)).unwrap();
        let subscribe = |n: usize| {
            let message = about("resources/subscribe", &format!("a:{n}"));
            origin.note("resources/subscribe", &message)
        };
        assert!((0..SUBSCRIPTIONS_MAX).all(subscribe));
        assert!(!subscribe(SUBSCRIPTIONS_MAX), "one too many");
        assert!(subscribe(0), "one that is there already");
    }
}
