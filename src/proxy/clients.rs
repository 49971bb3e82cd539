//! What clients call themselves in their `initialize`, for operators who look at sessions.
//!
//! Nothing is decided by it, for a client may say what it likes. Sessions with the same words share them,
//! and there are at most [`CLIENTS_MAX`] of different words: a session that brings others is shown without.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

/// Clients that are told apart at once.
pub const CLIENTS_MAX: usize = 1024;
/// The longest name that is kept, in characters; a longer one is cut.
pub const NAME_MAX: usize = 64;
/// The longest version that is kept, in characters; a longer one is cut.
pub const VERSION_MAX: usize = 32;

/// What a client calls itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientName {
    /// Its name.
    pub name: Box<str>,
    /// Its version; empty if it has told none.
    pub version: Box<str>,
}

/// The names of clients that have sessions.
#[derive(Debug, Default)]
pub struct ClientNames(Mutex<HashSet<Arc<ClientName>>>);

impl ClientNames {
    /// What the client calls itself in an `initialize`, given as its pieces; `None` if it does not, or
    /// there is no room for another name.
    pub fn learn<'a>(&self, initialize: impl Iterator<Item = &'a [u8]>) -> Option<Arc<ClientName>> {
        let body: Vec<&[u8]> = initialize.collect();
        self.intern(read(&body.concat())?)
    }

    fn intern(&self, name: ClientName) -> Option<Arc<ClientName>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&name) {
            return Some(Arc::clone(known));
        }
        if known.len() >= CLIENTS_MAX {
            // Those that no session has any more.
            known.retain(|name| Arc::strong_count(name) > 1);
        }
        if known.len() >= CLIENTS_MAX {
            return None;
        }
        let name = Arc::new(name);
        known.insert(Arc::clone(&name));
        Some(name)
    }
}

fn read(initialize: &[u8]) -> Option<ClientName> {
    #[derive(Deserialize)]
    struct Message {
        params: Params,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        client_info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        name: String,
        #[serde(default)]
        version: String,
    }
    let message: Message = serde_json::from_slice(initialize).ok()?;
    let Info { name, version } = message.params.client_info;
    Some(ClientName {
        name: plain(&name, NAME_MAX),
        version: plain(&version, VERSION_MAX),
    })
}

/// The beginning of a text without what is no character to be seen.
fn plain(text: &str, max: usize) -> Box<str> {
    let seen = text.chars().filter(|c| !c.is_control()).take(max);
    seen.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialize(name: &str) -> Vec<u8> {
        let info = serde_json::json!({ "name": name, "version": "1.2" });
        let message =
            serde_json::json!({ "method": "initialize", "params": { "clientInfo": info } });
        message.to_string().into_bytes()
    }

    fn learn(names: &ClientNames, name: &str) -> Option<Arc<ClientName>> {
        let body = initialize(name);
        let (first, rest) = body.split_at(20);
        names.learn([first, rest].into_iter())
    }

    #[test]
    fn sessions_with_the_same_words_share_them() {
        let names = ClientNames::default();
        let one = learn(&names, "inspector").unwrap();
        assert_eq!((&*one.name, &*one.version), ("inspector", "1.2"));
        assert!(Arc::ptr_eq(&one, &learn(&names, "inspector").unwrap()));
        assert!(!Arc::ptr_eq(&one, &learn(&names, "other").unwrap()));
    }

    #[test]
    fn what_a_client_says_is_cut_and_has_nothing_unseen() {
        let names = ClientNames::default();
        let long = learn(&names, &format!("a\u{1b}[2J\n{}", "ä".repeat(200))).unwrap();
        assert!(long.name.starts_with("a[2Jää"));
        assert_eq!(long.name.chars().count(), NAME_MAX);
        for odd in [
            &b"{}"[..],
            b"[]",
            b"",
            br#"{"params":{"clientInfo":{"name":7}}}"#,
        ] {
            assert!(names.learn([odd].into_iter()).is_none());
        }
    }

    #[test]
    fn names_that_no_session_has_make_room_for_others() {
        let names = ClientNames::default();
        let held: Vec<_> = (0..CLIENTS_MAX)
            .map(|n| learn(&names, &n.to_string()).unwrap())
            .collect();
        assert!(learn(&names, "one too many").is_none());
        assert!(learn(&names, "7").is_some(), "one of those that are there");
        drop(held);
        assert!(learn(&names, "another").is_some());
        assert_eq!(names.0.lock().unwrap().len(), 1);
    }
}
