//! The tree holds to its own rules: imports go one way, files stay readable, the pure cores stay
//! pure, and the examples work.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/man.rs"]
mod man;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/reference.rs"]
mod reference;

/// Which top-level module may import which. This table is the architecture.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["server", "config"]),
    (
        "server",
        &[
            "demo",
            "proxy",
            "transport",
            "session",
            "limit",
            "pool",
            "telemetry",
            "config",
            "mcp",
        ],
    ),
    ("demo", &["transport", "mcp"]),
    (
        "proxy",
        &[
            "transport",
            "route",
            "session",
            "limit",
            "pool",
            "telemetry",
            "config",
            "mcp",
        ],
    ),
    ("transport", &[]),
    ("route", &["config"]),
    ("session", &[]),
    ("limit", &[]),
    ("pool", &[]),
    ("telemetry", &["config"]),
    ("config", &["mcp"]),
    ("mcp", &[]),
];

/// The files outside of `server` and `transport` that may name Pingora.
const PINGORA_TOO: &[&str] = &[
    "proxy/plain.rs",
    "proxy/plain/answers.rs",
    "proxy/plain/exchange.rs",
    "proxy/plain/failure.rs",
    "proxy/plain/heads.rs",
    "proxy/plain/retry.rs",
];

/// Modules that are arithmetic: no clock, no runtime, no sockets. `session/keys.rs` reads files.
const PURE: &[&str] = &["mcp", "pool", "limit", "session", "route", "config"];

const FILE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    rust_files(&src)
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&src)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// The code of a file without its comments and its tests, which may import what they like.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

#[test]
fn imports_go_one_way() {
    let modules: Vec<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if is_test_file(&file) || file == "lib.rs" {
            continue;
        }
        let module = module(&file);
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{file} is in a module that the table does not know"));
        let text = code(&text);
        for other in &modules {
            let imports = [format!("crate::{other}::"), format!("crate::{other};")];
            let grouped = text.contains("crate::{");
            assert!(
                !grouped,
                "{file}: write one `use crate::…` per module, so that this test can read it"
            );
            let found = imports.iter().any(|import| text.contains(import));
            if *other != module && found && !allowed.contains(other) {
                wrong.push(format!("{file} imports {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pingora_is_named_at_the_edge_only() {
    for (file, text) in sources() {
        let at_edge =
            matches!(module(&file), "server" | "transport") || PINGORA_TOO.contains(&file.as_str());
        assert!(
            at_edge || !code(&text).contains("pingora"),
            "{file} names Pingora"
        );
    }
}

#[test]
fn the_cores_are_pure() {
    for (file, text) in sources() {
        if !PURE.contains(&module(&file)) || is_test_file(&file) {
            continue;
        }
        for word in [
            "Instant::now",
            "SystemTime::now",
            "tokio::",
            "std::net::Tcp",
            "thread::sleep",
        ] {
            assert!(!code(&text).contains(word), "{file} uses {word}");
        }
    }
}

#[test]
fn files_stay_readable() {
    let mut long = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "loadtest/src"] {
        let folder = root().join(folder);
        if !folder.exists() {
            continue;
        }
        for path in rust_files(&folder) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > FILE_LINES_MAX {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(
        long.is_empty(),
        "look for the second idea in:\n{}",
        long.join("\n")
    );
}

#[test]
fn nothing_is_left_open() {
    for (file, text) in sources() {
        // Put together, so that this file passes its own rule.
        for word in [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("to", "do!("),
            concat!("unimpl", "emented!("),
        ] {
            assert!(!text.contains(word), "{file} holds {word}");
        }
    }
}

#[test]
fn every_example_configuration_loads() {
    for entry in fs::read_dir(root().join("conf")).unwrap() {
        let path = entry.unwrap().path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml");
        if is_yaml && let Err(problems) = tidegate::config::load(&path) {
            panic!("{problems}");
        }
    }
}

#[test]
fn every_metric_is_documented() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    for family in tidegate::telemetry::metrics::FAMILIES {
        assert!(
            page.contains(&format!("`{}`", family.name)),
            "docs/metrics.md does not say what {} is",
            family.name
        );
    }
}

#[test]
fn every_dependency_is_explained() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let section = section.split("[dev-dependencies]").next().unwrap();
    for line in section.lines().filter(|line| line.contains('=')) {
        let name = line.split(['=', ' ']).next().unwrap();
        assert!(
            page.contains(&format!("`{name}`")),
            "ARCHITECTURE.md does not say what {name} is for"
        );
    }
}
