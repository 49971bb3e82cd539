//! The command line, as an operator meets it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Endpoint, Mcp, Tidegate, text_of};

const GOOD: &str = "\
listeners:
  - bind: 127.0.0.1:0
routes:
  - path: /mcp
    pool: weather
pools:
  weather:
    endpoints: [127.0.0.1:9001, 127.0.0.1:9002]
";

fn file(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("tidegate.yaml");
    std::fs::write(&path, text).expect("a directory of ours");
    path
}

async fn check(path: &Path) -> (Option<i32>, String) {
    let path = path.to_str().expect("UTF-8");
    let output = Tidegate::command(&["-t", "-c", path]).await;
    (output.status.code(), all_of(&output))
}

/// What a command says on either stream.
fn all_of(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[tokio::test]
async fn a_good_configuration_is_called_good() {
    let dir = TempDir::new().expect("a directory");
    let path = file(&dir, GOOD);
    let (code, said) = check(&path).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("good"), "{said}");
    let subcommand = Tidegate::command(&["run", "-t", "-c", path.to_str().expect("UTF-8")]).await;
    assert!(subcommand.status.success());
    // Nothing is made or opened by a check.
    let entries = std::fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(entries, 1);
}

#[tokio::test]
async fn the_examples_are_good() {
    for name in ["minimal.yaml", "full.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("conf")
            .join(name);
        let (code, said) = check(&path).await;
        assert_eq!(code, Some(0), "{name}: {said}");
    }
}

#[tokio::test]
async fn every_mistake_is_shown_at_once_and_where_it_is() {
    let dir = TempDir::new().expect("a directory");
    let text = "\
listeners:
  - bind: 127.0.0.1:99999
    max_conections: 5
routes:
  - path: mcp
    pool: wether
pools:
  weather:
    balance: least
    endpoints: [127.0.0.1:9001]
    timeouts: { connect: 5 }
";
    let path = file(&dir, text);
    let (code, said) = check(&path).await;
    assert_eq!(code, Some(1), "{said}");
    for (line, column, word) in [
        (2, 11, "127.0.0.1:99999"),
        (3, 5, "max_conections"),
        (5, 11, "mcp"),
        (6, 11, "wether"),
        (9, 14, "least"),
        (11, 26, "5"),
    ] {
        let place = format!("{}:{line}:{column}", path.display());
        assert!(said.contains(&place), "no {place} in\n{said}");
        assert!(said.contains(word), "no {word} in\n{said}");
    }
    assert!(
        said.matches('^').count() >= 6,
        "a caret under each:\n{said}"
    );
    for better in ["max_connections", "weather", "least_load"] {
        assert!(said.contains(better), "{better} is meant:\n{said}");
    }
    assert!(!said.contains("panicked"));
}

#[tokio::test]
async fn a_syntax_error_has_a_place_too() {
    let dir = TempDir::new().expect("a directory");
    for (text, line) in [
        ("listeners: [\nroutes: x\n", 1),
        ("listeners:\n  - bind: \"127.0.0.1:0\nroutes: x\n", 2),
        ("", 1),
    ] {
        let path = file(&dir, text);
        let (code, said) = check(&path).await;
        assert_eq!(code, Some(1), "{said}");
        let place = format!("{}:{line}", path.display());
        assert!(said.contains(&place), "no {place} in\n{said}");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_not_run() {
    let dir = TempDir::new().expect("a directory");
    let path = file(&dir, "listeners: []\n");
    let output = Tidegate::command(&["-c", path.to_str().expect("UTF-8")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(all_of(&output).contains("tidegate.yaml:1"));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    for arguments in [
        &["-c", "/no/such/file.yaml"][..],
        &["-t", "-c", "/no/such/file.yaml"],
    ] {
        let output = Tidegate::command(arguments).await;
        assert_eq!(output.status.code(), Some(1));
        let said = all_of(&output);
        assert!(said.contains("/no/such/file.yaml"), "{said}");
    }
}

#[tokio::test]
async fn without_arguments_it_says_what_to_do() {
    for arguments in [&[][..], &["run"], &["-t"]] {
        let output = Tidegate::command(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = all_of(&output);
        assert!(said.contains("-c FILE"), "{said}");
    }
    let odd = Tidegate::command(&["--no-such-option"]).await;
    assert_eq!(odd.status.code(), Some(2));
    let help = Tidegate::command(&["--help"]).await;
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--config"));
}

#[tokio::test]
async fn it_tells_its_version() {
    let output = Tidegate::command(&["--version"]).await;
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(said, format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
    let output = Tidegate::command(&["-V"]).await;
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.starts_with(&format!("tidegate {}\n", env!("CARGO_PKG_VERSION"))));
    for (name, value) in [
        ("rustc", "1."),
        ("target", std::env::consts::ARCH),
        ("with", "pingora 0."),
        ("commit", ""),
    ] {
        let lines = said.lines().filter_map(|line| line.split_once(": "));
        let found = lines.map(|(name, value)| (name, value.trim()));
        let found = found
            .filter(|(other, _)| *other == name)
            .collect::<Vec<_>>();
        assert!(
            matches!(found[..], [(_, found)] if found.starts_with(value)),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_configuration_is_shown_as_it_is_understood_with_all_of_its_files() {
    let dir = TempDir::new().expect("a directory");
    let path = file(&dir, &format!("include: [conf.d/*.yaml]\n{GOOD}"));
    let more = dir.path().join("conf.d/more.yaml");
    std::fs::create_dir(dir.path().join("conf.d")).expect("a directory of ours");
    let text = "routes:\n  - path: /more\n    pool: more\n    request_headers: { set: { Authorization: abc } }\n\
                pools:\n  more:\n    endpoints: [127.0.0.1:9003]\n";
    std::fs::write(&more, text).expect("a directory of ours");
    let output = Tidegate::command(&["-T", "-c", path.to_str().expect("UTF-8")]).await;
    assert!(output.status.success(), "{}", all_of(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the configuration is good"));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        format!("# configuration file {}", path.display()),
        format!("# configuration file {}", more.display()),
        "  - path: /more".to_owned(),
        "    endpoints: [127.0.0.1:9003]".to_owned(),
        "        Authorization: \"(hidden)\"".to_owned(),
        "drain_timeout: 30s".to_owned(),
    ] {
        assert!(
            shown.lines().any(|other| other == line),
            "no {line} in\n{shown}"
        );
    }
    std::fs::write(&more, "threads: 2\n").expect("a directory of ours");
    let output = Tidegate::command(&["-T", "-c", path.to_str().expect("UTF-8")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{}", all_of(&output));
}

#[tokio::test]
async fn the_schema_that_it_prints_is_the_one_that_editors_have() {
    let output = Tidegate::command(&["--print-schema"]).await;
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/schema.json");
    let committed = std::fs::read_to_string(path).expect("the schema");
    assert_eq!(printed.trim_end(), committed.trim_end());
    let schema: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert!(schema["properties"]["pools"].is_object());
}

#[tokio::test]
async fn run_is_the_same_as_a_file_alone() {
    let a = Endpoint::start("a").await;
    let gate = Tidegate::in_front_of(&[&a]).await;
    let config = gate.config();
    let path = gate.places().config_file();
    // The address is taken, so it fails where it would serve: it has understood the file.
    let output = Tidegate::command(&["run", "-c", path.to_str().expect("UTF-8")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        all_of(&output).contains("cannot listen"),
        "{}",
        all_of(&output)
    );
    assert_eq!(gate.config(), config);
    let answer = gate.client().modern_call("whoami", json!({})).await;
    assert_eq!(text_of(&answer), "a");
}

#[tokio::test]
async fn an_odd_but_right_file_is_warned_of() {
    let dir = TempDir::new().expect("a directory");
    let text = format!("{GOOD}  spare:\n    endpoints: [127.0.0.1:9009]\n");
    let (code, said) = check(&file(&dir, &text)).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("spare") && said.contains("warning"), "{said}");
}
