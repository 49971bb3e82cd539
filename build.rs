//! What `tidegate -V` tells of how it was built.
//!
//! The commit is not looked for here, or each one would build everything anew: `make release` gives it in
//! the variable TIDEGATE_COMMIT.

use std::env;
use std::fs;
use std::process::Command;

const LIBRARIES: [&str; 4] = ["pingora", "h2", "rustls", "tokio"];

fn main() {
    say("cargo::rerun-if-changed=build.rs");
    say("cargo::rerun-if-changed=Cargo.lock");
    for (name, value) in [
        ("RUSTC", compiler()),
        ("TARGET", env::var("TARGET").ok()),
        ("PROFILE", env::var("PROFILE").ok()),
        ("LIBRARIES", libraries()),
    ] {
        let value = value.unwrap_or_else(|| "unknown".to_owned());
        say(&format!("cargo::rustc-env=TIDEGATE_{name}={value}"));
    }
}

/// The compiler as it calls itself.
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?)
        .arg("--version")
        .output();
    let version = String::from_utf8(output.ok()?.stdout).ok()?;
    Some(version.trim().to_owned())
}

/// The libraries that a report is likely to be about, in the versions that are locked.
fn libraries() -> Option<String> {
    let lock = fs::read_to_string("Cargo.lock").ok()?;
    let version = |name: &str| {
        let (_, behind) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        let (version, _) = behind.split_once('"')?;
        Some(format!("{name} {version}"))
    };
    let found: Vec<String> = LIBRARIES.iter().filter_map(|name| version(name)).collect();
    Some(found.join(", "))
}

fn say(line: &str) {
    println!("{line}");
}
