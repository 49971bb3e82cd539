//! The file as it was understood, for people to look at: what was written, and the defaults of what was
//! not.
//!
//! Made from the table of keys, so that a new key is shown without a line here. Keys that have no
//! default and were not written are left out, and so are sections that are off unless they are
//! written.

use serde_json::{Map, Value as Json, json};

use super::keys::{Key, Kind, Need, Section};
use super::node::{Node, Span, Value};
use super::problem::HIDDEN;
use super::table::ROOT;

/// Sections that have their defaults when they are not written.
const ON: [&str; 10] = [
    "sessions", "streams", "limits", "admin", "log", "health", "ejection", "breaker", "retries",
    "timeouts",
];
/// What the names of keys hold whose values are nobody's business.
const SECRET: [&str; 6] = [
    "secret",
    "token",
    "password",
    "passphrase",
    "authorization",
    "api_key",
];

/// A tree with all its defaults, but for the values that are concealed. What is wrong in it is shown as it
/// was written.
pub(super) fn effective(root: &Node, concealed: &[Span]) -> Json {
    if concealed.is_empty() {
        return section(&ROOT, root);
    }
    let mut root = root.clone();
    conceal(&mut root, concealed);
    section(&ROOT, &root)
}

fn conceal(node: &mut Node, concealed: &[Span]) {
    let is_hidden = concealed.contains(&node.span);
    match &mut node.value {
        Value::Empty => {}
        Value::Text(text) if is_hidden => HIDDEN.clone_into(text),
        Value::Text(_) => {}
        Value::List(items) => items.iter_mut().for_each(|item| conceal(item, concealed)),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| conceal(&mut entry.value, concealed)),
    }
}

fn section(section: &Section, node: &Node) -> Json {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Empty => &[],
        Value::Text(_) | Value::List(_) => return raw(node),
    };
    let mut shown = Map::new();
    for key in section.keys {
        let written = entries.iter().find(|entry| entry.key == key.name);
        let value = match written {
            Some(entry) => Some(value(key, &entry.value)),
            None => default(key),
        };
        if let Some(value) = value {
            shown.insert(key.name.to_owned(), hide(key.name, value));
        }
    }
    Json::Object(shown)
}

fn default(key: &Key) -> Option<Json> {
    let empty = Node {
        span: Span::default(),
        value: Value::Empty,
    };
    match (&key.need, &key.kind) {
        (Need::Default(text), kind) => Some(single(kind, text)),
        (_, Kind::Section(below) | Kind::SectionOrOff(below)) if ON.contains(&key.name) => {
            Some(section(below, &empty))
        }
        _ => None,
    }
}

fn value(key: &Key, node: &Node) -> Json {
    match (&key.kind, &node.value) {
        (Kind::Named(below, _), Value::Map(entries)) => {
            let named = entries.iter();
            let named = named.map(|entry| (entry.key.clone(), section(below, &entry.value)));
            Json::Object(named.collect())
        }
        (kind, Value::List(items)) => {
            let item = |item: &Node| match (kind.section(), &item.value) {
                (Some(below), Value::Map(_)) => section(below, item),
                _ => raw(item),
            };
            Json::Array(items.iter().map(item).collect())
        }
        (kind, Value::Text(text)) => single(kind, text),
        (kind, _) => match kind.section() {
            Some(below) => section(below, node),
            None => raw(node),
        },
    }
}

/// A single value in the type that the key has.
fn single(kind: &Kind, text: &str) -> Json {
    match kind {
        Kind::Count(..) => text.parse::<u64>().map_or_else(|_| json!(text), Json::from),
        Kind::Flag => text
            .parse::<bool>()
            .map_or_else(|_| json!(text), Json::from),
        _ => json!(text),
    }
}

/// What no section is known for.
fn raw(node: &Node) -> Json {
    match &node.value {
        Value::Empty => Json::Null,
        Value::Text(text) => json!(text),
        Value::List(items) => Json::Array(items.iter().map(raw).collect()),
        Value::Map(entries) => {
            let entries = entries.iter();
            let shown = entries.map(|e| (e.key.clone(), hide(&e.key, raw(&e.value))));
            Json::Object(shown.collect())
        }
    }
}

fn hide(key: &str, value: Json) -> Json {
    let name = key.to_ascii_lowercase().replace('-', "_");
    match SECRET.iter().any(|secret| name.contains(secret)) {
        true => json!(HIDDEN),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_calls_a_secret_is_not_shown() {
        for name in [
            "bearer_token",
            "Authorization",
            "client-secret",
            "X-Api-Key",
        ] {
            assert_eq!(hide(name, json!("abc")), json!(HIDDEN), "{name}");
        }
        for name in ["key_files", "cookie", "key", "name"] {
            assert_eq!(hide(name, json!("abc")), json!("abc"), "{name}");
        }
    }
}
