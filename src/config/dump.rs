//! The configuration as it was understood, as YAML: keys in the order of the table, values as an operator
//! would write them.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::keys::{Kind, Section};
use super::table::ROOT;

/// How much further in stands what lies below a key.
const STEP: usize = 2;

/// Writes what [`super::effective`] has made.
pub(super) fn dump(effective: &Json) -> String {
    match effective {
        Json::Object(entries) => map(entries, Some(&ROOT), 0),
        other => inline(other) + "\n",
    }
}

/// The lines of a map.
fn map(entries: &Map<String, Json>, section: Option<&Section>, indent: usize) -> String {
    let mut lines = String::new();
    for (key, value, kind) in ordered(entries, section) {
        let _ = write!(lines, "{:indent$}{}:", "", scalar(key));
        let section = kind.and_then(Kind::section);
        lines += &match (kind, value) {
            (Some(Kind::Named(..)), Json::Object(named)) => {
                all_named(named, section, indent + STEP)
            }
            (_, value) => behind(value, section, indent),
        };
    }
    lines
}

/// What stands behind the colon of a map whose names the operator chose.
fn all_named(named: &Map<String, Json>, section: Option<&Section>, indent: usize) -> String {
    let mut lines = "\n".to_owned();
    for (name, value) in named {
        let value = behind(value, section, indent);
        let _ = write!(lines, "{:indent$}{}:{value}", "", scalar(name));
    }
    lines
}

/// What stands behind the colon of a key that stands so far in.
fn behind(value: &Json, section: Option<&Section>, indent: usize) -> String {
    let indent = indent + STEP;
    match value {
        Json::Object(entries) if !entries.is_empty() => {
            format!("\n{}", map(entries, section, indent))
        }
        Json::Array(items) if items.iter().any(|item| !is_single(item)) => {
            let mut lines = "\n".to_owned();
            for item in items {
                let item = match item {
                    Json::Object(entries) if !entries.is_empty() => {
                        map(entries, section, indent + STEP)
                    }
                    single => format!("{:indent$}  {}\n", "", inline(single)),
                };
                let _ = write!(lines, "{:indent$}- {}", "", &item[indent + STEP..]);
            }
            lines
        }
        single => format!(" {}\n", inline(single)),
    }
}

/// The entries in the order of the table; those that it does not know come last.
fn ordered<'e>(
    entries: &'e Map<String, Json>,
    section: Option<&'e Section>,
) -> Vec<(&'e str, &'e Json, Option<&'e Kind>)> {
    let keys = section.map_or(&[][..], |section| section.keys);
    let known = keys.iter().filter_map(|key| {
        let value = entries.get(key.name)?;
        Some((key.name, value, Some(&key.kind)))
    });
    let is_known = |name: &str| keys.iter().any(|key| key.name == name);
    let others = entries.iter().filter(|(name, _)| !is_known(name));
    let others = others.map(|(name, value)| (name.as_str(), value, None));
    known.chain(others).collect()
}

fn is_single(value: &Json) -> bool {
    !matches!(value, Json::Object(_) | Json::Array(_))
}

/// A value on one line.
fn inline(value: &Json) -> String {
    match value {
        Json::String(word) => scalar(word),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        // JSON is YAML.
        other => other.to_string(),
    }
}

/// A text, in quotes where YAML could take it for something else.
fn scalar(word: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+-".contains(&byte);
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || b"_/".contains(byte);
    let is_plain = word.as_bytes().first().is_some_and(begins)
        && word.bytes().all(fits)
        && !word.ends_with(':')
        && !word.eq_ignore_ascii_case("null");
    match is_plain {
        true => word.to_owned(),
        false => Json::from(word).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::effective::effective;
    use super::super::load::{Room, tree};
    use super::super::problem::Report;
    use super::*;

    fn understood(text: &str) -> Json {
        let report = Report::default();
        report.add_source("test", text);
        let root = tree(text, 0, &mut Room::new(), &report);
        let problems = report.finish();
        assert!(problems.is_ok(), "{}\n{text}", problems.unwrap_err());
        effective(&root.unwrap(), &[])
    }

    #[test]
    fn what_is_written_reads_as_what_it_was_made_from() {
        let odd = "routes: [{ return: { body: \"a: b # c\\n\\\"\", headers: { X-A: '', 'a b': ~ } } }]\n\
                   pools: { 'a: b': { endpoints: ['null', '[::1]:80', '#x', 'y:', { name: '-' }] } }\n";
        for text in [
            include_str!("../../conf/full.yaml"),
            include_str!("../../conf/minimal.yaml"),
            odd,
        ] {
            let shown = understood(text);
            let written = dump(&shown);
            assert_eq!(understood(&written), shown, "{written}");
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_the_table() {
        let shown = understood(include_str!("../../conf/minimal.yaml"));
        let written = dump(&shown);
        let begin = "listeners:\n  - bind: ";
        assert!(written.starts_with(begin), "{written}");
        let places = [
            "\nroutes:\n",
            "\npools:\n  weather:\n    kind: mcp\n",
            "\ndrain_jitter: 10s\n",
        ]
        .map(|line| {
            written
                .find(line)
                .unwrap_or_else(|| panic!("no {line} in\n{written}"))
        });
        assert!(places.is_sorted(), "{written}");
    }
}
