//! The pages for operators: their configurations are good, their links lead somewhere, and what a log
//! line, a metric or an answer can say is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tidegate::telemetry::labels;

use super::root;

/// Where certificates stand in the examples.
const CERTIFICATES: &str = "/etc/tidegate/tls/";

/// The pages that operators read, with their names from the root of the tree.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs.filter(|name| name.ends_with(".md"));
    let mut names: Vec<String> = docs.map(|name| format!("docs/{name}")).collect();
    names.sort();
    names.push("README.md".to_owned());
    let read = |name: String| {
        let text = fs::read_to_string(root().join(&name)).unwrap();
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The YAML blocks of a page, with the line that each begins in.
fn blocks(page: &str) -> Vec<(usize, &str)> {
    let begins = page.match_indices("```yaml\n");
    let block = |(at, fence): (usize, &str)| {
        let line = page[..at].lines().count() + 2;
        let text = page[at + fence.len()..].split("```").next().unwrap();
        (line, text)
    };
    begins.map(block).collect()
}

/// Has it all that a file must have?
fn is_whole(block: &str) -> bool {
    let has = |key: &str| block.lines().any(|line| line.starts_with(key));
    has("listeners:") && has("routes:") && has("pools:")
}

/// Checks a file as an operator does, with certificates where it wants some. Returns what was said.
fn check(text: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["mcp.example.com".to_owned()]).unwrap();
    let below = |piece: &str| {
        let kept = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
        piece.chars().take_while(kept).collect::<String>()
    };
    for name in text.split(CERTIFICATES).skip(1).map(below) {
        let pem = match name.contains("key") {
            true => made.signing_key.serialize_pem(),
            false => made.cert.pem(),
        };
        fs::write(folder.path().join(name), pem).unwrap();
    }
    let here = format!("{}/", folder.path().display());
    let file = folder.path().join("tidegate.yaml");
    fs::write(&file, text.replace(CERTIFICATES, &here)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["-t", "-c"])
        .arg(file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

#[test]
fn every_whole_configuration_on_a_page_is_good() {
    let mut found = 0;
    for (name, page) in pages() {
        for (line, block) in blocks(&page) {
            if is_whole(block) {
                let (good, said) = check(block);
                assert!(good, "{name}:{line}: {said}");
                found += 1;
            }
        }
    }
    assert!(found > 0, "no page shows a whole configuration");
}

#[test]
fn no_piece_of_a_configuration_on_a_page_has_a_key_that_is_none() {
    for (name, page) in pages() {
        for (line, block) in blocks(&page) {
            if let Err(problems) = tidegate::config::parse(&name, block) {
                let unknown = problems
                    .as_slice()
                    .iter()
                    .find(|problem| problem.message.starts_with("unknown key"));
                if let Some(problem) = unknown {
                    panic!("{name}:{line}: {}", problem.message);
                }
            }
        }
    }
}

#[test]
fn every_example_is_good_and_nothing_about_it_is_odd() {
    let mut found = 0;
    for entry in fs::read_dir(root().join("docs/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let (good, said) = check(&fs::read_to_string(&path).unwrap());
            let quiet = !said.contains("warning");
            assert!(good && quiet, "{}: {said}", path.display());
            found += 1;
        }
    }
    assert!(found > 0, "there are no examples");
}

/// The links of a page that lead to a file of the tree or within the page.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
}

/// The names by which the headings of a page can be reached.
fn anchors(page: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let kept = |c: char| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        };
        let heading = line.trim_start_matches('#').trim();
        heading.chars().filter_map(kept).collect()
    };
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(name).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = pages();
    for name in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "benches/README.md",
        "loadtest/README.md",
    ] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        pages.push((name.to_owned(), text));
    }
    for (name, page) in &pages {
        let folder = Path::new(name).parent().unwrap();
        for link in links(page) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target: PathBuf = match file {
                "" => root().join(name),
                file => root().join(folder).join(file),
            };
            assert!(
                target.exists(),
                "{name} links to {file}, which is not there"
            );
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let is_there = anchors(&text).contains(anchor);
                assert!(is_there, "{name}: {link} leads to no heading");
            }
        }
    }
}

#[test]
fn every_page_is_in_the_index() {
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(
        readme.contains("(docs/README.md)"),
        "README.md has no index"
    );
    for (name, _) in pages() {
        if let Some(page) = name.strip_prefix("docs/") {
            let is_there = page == "README.md" || index.contains(&format!("({page})"));
            assert!(is_there, "docs/README.md does not link to {page}");
        }
    }
}

/// The words of an enum or a table in a source file: texts of small letters alone.
fn words(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("src").join(file)).unwrap();
    let text = super::code(&text);
    let texts = text.split('"').skip(1).step_by(2);
    let is_word =
        |text: &&str| text.len() > 3 && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    texts.filter(is_word).map(str::to_owned).collect()
}

#[test]
fn every_reason_that_a_log_line_can_have_is_explained() {
    let logs = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let trouble = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    // `allow` is the name of a field.
    let mut reasons = words("proxy/fault.rs");
    reasons.remove("allow");
    reasons.extend(words("proxy/ctx.rs"));
    assert!(reasons.contains("unknown_session") && reasons.contains("upstream_lost"));
    for reason in reasons {
        let word = format!("`{reason}`");
        assert!(logs.contains(&word), "docs/logs.md does not have {word}");
        assert!(
            trouble.contains(&word),
            "docs/troubleshooting.md does not say what to do about {word}"
        );
    }
}

#[test]
fn every_limit_and_every_refusal_is_explained() {
    let pages = ["operations.md", "limits.md", "troubleshooting.md"];
    let pages = pages.map(|page| fs::read_to_string(root().join("docs").join(page)).unwrap());
    let limits = labels::Limit::ALL.iter().map(|limit| limit.as_str());
    let refusals = labels::RefusedId::ALL
        .iter()
        .map(|refused| refused.as_str());
    for word in limits.chain(refusals) {
        let is_there = pages.iter().any(|page| page.contains(&format!("`{word}`")));
        assert!(is_there, "no page for operators says what `{word}` is");
    }
}
