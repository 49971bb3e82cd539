//! The table of keys, the code, the files in `conf/` and the schema say the same.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::super::keys::{Key, Kind, Need, Section};
use super::super::node::{Node, Value};
use super::super::problem::Report;
use super::super::{Balance, Check, HashOn, LogTarget, load, parse, schema, table, units};
use super::{FULL, MINIMAL, SCHEMA, good, problems};

/// Every key of the table with the path of sections that leads to it.
fn rows() -> Vec<(String, &'static Key)> {
    fn walk(section: &'static Section, path: &str, rows: &mut Vec<(String, &'static Key)>) {
        for key in section.keys {
            let path = format!("{path}/{}", key.name);
            if let Some(below) = key.kind.section() {
                walk(below, &path, rows);
            }
            rows.push((path, key));
        }
    }
    let mut rows = Vec::new();
    walk(&table::ROOT, "", &mut rows);
    rows
}

fn tree(text: &str) -> Node {
    let report = Report::default();
    report.add_source("conf", text);
    load::tree(text, 0, &mut load::Room::new(), &report).expect("the file is YAML")
}

/// Every value in a tree with its path, where the items of a list and the names of pools are left
/// out of the path.
fn values(node: &Node, path: &str, found: &mut Vec<(String, String)>) {
    match &node.value {
        Value::Empty => {}
        Value::Text(text) => found.push((path.to_owned(), text.clone())),
        Value::List(items) => items.iter().for_each(|item| values(item, path, found)),
        Value::Map(entries) if path == "/pools/*" => {
            entries
                .iter()
                .for_each(|pool| values(&pool.value, "/pools", found));
        }
        Value::Map(entries) => {
            for entry in entries {
                let below = match (path, entry.key.as_str()) {
                    ("", "pools") => "/pools/*".to_owned(),
                    (path, name) => format!("{path}/{name}"),
                };
                values(&entry.value, &below, found);
            }
        }
    }
}

#[test]
fn full_file_says_the_defaults_of_the_code() {
    let full = parse("full.yaml", FULL).expect("full.yaml is right");
    let minimal = parse("minimal.yaml", MINIMAL).expect("minimal.yaml is right");
    assert_eq!(full.listeners, minimal.listeners);
    assert_eq!(full.routes[0], minimal.routes[0]);
    assert_eq!(full.pools[0], minimal.pools[0]);
    assert_eq!(full.warnings, []);
    // What is left in full.yaml is a pool of kind http, so that its keys can be shown.
    let mut website = full.pools[1].clone();
    assert_eq!(website.balance, Balance::ConsistentHash(HashOn::ClientIp));
    assert_eq!(website.affinity_cookie.as_deref(), Some("TIDEGATE"));
    (website.balance, website.affinity_cookie) = (Balance::LeastLoad, None);
    let plain = good(
        super::In::File,
        &MINIMAL
            .replace("weather:", "website:\n    kind: http")
            .replace("pool: weather", "pool: website"),
    );
    website.endpoints = plain.pools[0].endpoints.clone();
    let check = std::mem::replace(&mut website.health.check, Check::Tcp);
    let usual = "health: { check: http }";
    assert_eq!(check, good(super::In::Http, usual).pools[1].health.check);
    assert_eq!(website, plain.pools[0]);
    let mut rest = full;
    rest.routes.truncate(1);
    rest.is_mcp_only = true;
    rest.pools.truncate(1);
    // Off unless it is written.
    let resume = good(super::In::Root, "streams: { resume: {} }")
        .streams
        .resume;
    assert!(resume.is_some());
    assert_eq!(std::mem::take(&mut rest.streams.resume), resume);
    // As it was understood, which is not the same file.
    rest.effective = minimal.effective.clone();
    rest.files = minimal.files.clone();
    assert_eq!(rest, minimal);
    assert_eq!(rest.log.access.to, LogTarget::Stdout);
}

#[test]
fn full_file_writes_every_default_as_the_table_has_it() {
    let mut found = Vec::new();
    values(&tree(FULL), "", &mut found);
    for (path, key) in rows() {
        let Need::Default(default) = key.need else {
            continue;
        };
        let written = |(at, value): &(String, String)| *at == path && value == default;
        assert!(
            found.iter().any(written),
            "full.yaml does not write {path}: {default}"
        );
    }
}

#[test]
fn full_file_and_schema_have_every_key_and_no_other() {
    let schema: Json = serde_json::from_str(SCHEMA).expect("schema.json is JSON");
    let mut in_schema = BTreeSet::new();
    schema_keys(&schema, "", &mut in_schema);
    let in_table: BTreeSet<String> = rows().into_iter().map(|(path, _)| path).collect();
    assert_eq!(in_schema, in_table);
    for (path, key) in rows() {
        let word = format!("{}:", key.name);
        let line = |line: &str| {
            let line = line.trim_start_matches([' ', '#', '-']);
            line.starts_with(&word)
        };
        assert!(FULL.lines().any(line), "full.yaml does not show {path}");
    }
}

/// The paths of all properties of a schema, in the form of [`rows`].
fn schema_keys(schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        schema_keys(below, &path, keys);
        keys.insert(path);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            schema_keys(&schema[below], path, keys);
        }
    }
    for below in schema["anyOf"].as_array().into_iter().flatten() {
        schema_keys(below, path, keys);
    }
}

#[test]
fn decoder_knows_exactly_the_keys_of_the_schema() {
    // An unknown key that is like no other is answered with the list of keys.
    let asked = |text: &str| {
        let problems = problems(text).to_string();
        let (_, keys) = problems
            .split_once("its keys are ")
            .expect("the keys are listed");
        let line = keys.lines().next().unwrap_or("");
        line.split(", ").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let under = |prefix: &str| {
        let direct = |path: &str| {
            let rest = path.strip_prefix(prefix)?.strip_prefix('/')?;
            (!rest.contains('/')).then(|| rest.to_owned())
        };
        rows()
            .iter()
            .filter_map(|(path, _)| direct(path))
            .collect::<BTreeSet<_>>()
    };
    for (text, path) in [
        ("qqqqqqqq: 1", ""),
        ("listeners: [{ qqqqqqqq: 1 }]", "/listeners"),
        ("routes: [{ qqqqqqqq: 1 }]", "/routes"),
        ("pools: { p: { qqqqqqqq: 1 } }", "/pools"),
        (
            "pools: { p: { endpoints: [{ qqqqqqqq: 1 }] } }",
            "/pools/endpoints",
        ),
        ("pools: { p: { health: { qqqqqqqq: 1 } } }", "/pools/health"),
        (
            "pools: { p: { timeouts: { qqqqqqqq: 1 } } }",
            "/pools/timeouts",
        ),
        (
            "pools: { p: { kind: http, affinity: { qqqqqqqq: 1 } } }",
            "/pools/affinity",
        ),
        (
            "pools: { p: { ejection: { qqqqqqqq: 1 } } }",
            "/pools/ejection",
        ),
        (
            "pools: { p: { breaker: { qqqqqqqq: 1 } } }",
            "/pools/breaker",
        ),
        ("routes: [{ rate: { qqqqqqqq: 1 } }]", "/routes/rate"),
        ("pools: { p: { tools: [{ qqqqqqqq: 1 }] } }", "/pools/tools"),
        ("sessions: { qqqqqqqq: 1 }", "/sessions"),
        ("streams: { qqqqqqqq: 1 }", "/streams"),
        ("streams: { resume: { qqqqqqqq: 1 } }", "/streams/resume"),
        ("limits: { qqqqqqqq: 1 }", "/limits"),
        ("admin: { qqqqqqqq: 1 }", "/admin"),
        ("log: { qqqqqqqq: 1 }", "/log"),
    ] {
        assert_eq!(asked(text), under(path), "{path}");
    }
}

#[test]
fn schema_file_is_up_to_date() {
    let written: Json = serde_json::from_str(SCHEMA).expect("schema.json is JSON");
    let made: Json = serde_json::from_str(&schema()).expect("the schema is JSON");
    assert!(
        written == made,
        "write it anew: tidegate --print-schema > conf/schema.json"
    );
}

#[test]
fn defaults_and_bounds_of_the_table_fit_their_kinds() {
    for (path, key) in rows() {
        let default = match key.need {
            Need::Default(text) => Some(text),
            Need::Required(example) => {
                assert!(example.starts_with(key.name), "{path}: {example}");
                None
            }
            Need::Optional => None,
        };
        let within = |low: u128, high: u128, value: Option<u128>| {
            assert!(low < high, "{path}");
            assert!(
                value.is_none_or(|value| (low..=high).contains(&value)),
                "{path}"
            );
        };
        let millis = |text: &str| units::duration(text).expect("a duration").as_millis();
        let bytes = |text: &str| u128::from(units::size(text).expect("a size"));
        match key.kind {
            Kind::Count(min, max) => {
                let count = |text: &str| text.parse().expect("a count");
                within(min.into(), max.into(), default.map(count));
            }
            Kind::Duration(min, max) => within(millis(min), millis(max), default.map(millis)),
            Kind::DurationOrOff(min, max) => {
                let default = default.filter(|text| *text != "off");
                within(millis(min), millis(max), default.map(millis));
            }
            Kind::Percent(min, max) => {
                let percent = |text: &str| units::percent(text).expect("percent").into();
                within(min.into(), max.into(), default.map(percent));
            }
            Kind::Size(min, max) => within(bytes(min), bytes(max), default.map(bytes)),
            Kind::Choice(words) => {
                assert!(default.is_none_or(|text| words.contains(&text)), "{path}")
            }
            Kind::Flag => match key.need {
                Need::Default(text) => assert!(matches!(text, "true" | "false"), "{path}"),
                Need::Required(_) => {}
                Need::Optional => assert!(key.about.contains("unless set"), "{path}"),
            },
            _ => {}
        }
        assert!(key.about.ends_with('.'), "{path}: {}", key.about);
    }
}
