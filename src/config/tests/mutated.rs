//! No text makes the check panic, and whatever it refuses it can show.

use proptest::prelude::*;

use super::super::parse;
use super::{FULL, MINIMAL};

/// One change to a text.
#[derive(Debug, Clone)]
enum Change {
    /// A piece, by its place and length in characters, is cut out.
    Cut(usize, usize),
    /// Text is put in.
    Put(usize, String),
    /// A line is moved to another place.
    Move(usize, usize),
    /// The text ends here.
    End(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let any_place = any::<usize>;
    let piece = prop_oneof![
        "[ \\t\\n:{}\\[\\],&*!|>'\"%@`#~<-]{1,3}",
        "(off|null|~|- |---|\\.\\.\\.|<<: |\\? |&a |\\*a|!!x |\u{feff}|\u{85}|\u{2028}|天)",
        "[0-9]{1,21}(ms|s|B|GiB)?",
        "\\PC{0,4}",
    ];
    prop_oneof![
        (any_place(), 1..20usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (any_place(), piece).prop_map(|(at, text)| Change::Put(at, text)),
        (any_place(), any_place()).prop_map(|(from, to)| Change::Move(from, to)),
        any_place().prop_map(Change::End),
    ]
}

fn apply(text: &str, change: &Change) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let within = |at: usize, length: usize| at.checked_rem(length).unwrap_or(0);
    match change {
        Change::Cut(at, length) => {
            let at = within(*at, characters.len());
            let end = (at + length).min(characters.len());
            characters.drain(at..end);
        }
        Change::Put(at, piece) => {
            let at = within(*at, characters.len());
            characters.splice(at..at, piece.chars());
        }
        Change::Move(from, to) => {
            let mut lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                let line = lines.remove(within(*from, lines.len()));
                lines.insert(within(*to, lines.len() + 1), line);
            }
            return lines.join("\n");
        }
        Change::End(at) => characters.truncate(within(*at, characters.len())),
    }
    characters.into_iter().collect()
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let problems = match parse("mutated.yaml", text) {
        Ok(config) => {
            let uses = |route: &super::super::Route| {
                route.pool().is_none_or(|pool| pool.0 < config.pools.len())
            };
            prop_assert!(config.routes.iter().all(uses));
            prop_assert!(!config.listeners.is_empty());
            for pool in &config.pools {
                prop_assert!(pool.endpoints.iter().any(|endpoint| !endpoint.backup));
            }
            return Ok(());
        }
        Err(problems) => problems,
    };
    prop_assert!(!problems.as_slice().is_empty());
    let lines = text.split('\n').count();
    for problem in problems.as_slice() {
        prop_assert!((1..=lines).contains(&problem.line), "{}", problem);
        prop_assert!(problem.column >= 1 && problem.caret.1 >= 1, "{}", problem);
        prop_assert!(!problem.message.contains('\n'), "{}", problem);
    }
    prop_assert!(problems.to_string().contains("nothing was started"));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn changed_files_are_checked_without_panic(changes in prop::collection::vec(change(), 1..6)) {
        for start in [FULL, MINIMAL] {
            let text = changes.iter().fold(start.to_owned(), |text, change| apply(&text, change));
            check(&text)?;
        }
    }

    #[test]
    fn any_text_is_checked_without_panic(text in "(\\PC|[ \\n\\t:{}\\[\\],&*!|>'\"#-]){0,200}") {
        check(&text)?;
    }
}
