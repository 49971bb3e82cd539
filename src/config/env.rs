//! Variables of the process's environment in values: `${env:NAME}`, or `${env:NAME:-OTHERWISE}`.
//!
//! They are put in after the file was taken apart, so that no value can add a key or a line, and places
//! stay what they are. The prefix tells them from variables of requests, such as `${host}`. Keys have
//! none. What is put in is not looked through again.

use std::ffi::OsString;

use super::node::{Node, Span, Value};
use super::problem::{Report, quoted};

/// How one begins.
const BEGIN: &str = "${env:";
/// Stands before what is taken where the variable is unset or empty, as in a shell.
const OTHERWISE: &str = ":-";
/// Keys below which a value may hold variables of requests, and is made to be sent: a dollar that comes
/// from the environment, perhaps as a part of a password, is a plain one there.
const SENT: [&str; 3] = ["request_headers", "response_headers", "headers"];
/// What the names of variables hold whose values are nobody's business.
const SECRET: [&str; 9] = [
    "secret",
    "token",
    "passw",
    "passphrase",
    "authorization",
    "credential",
    "api_key",
    "private_key",
    "session_key",
];

/// Gives the value of a variable.
pub(super) type Lookup<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// The environment that the process was started with.
pub(super) fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Puts the values of variables into all values of a tree.
pub(super) fn expand(node: &mut Node, lookup: Lookup<'_>, report: &Report) {
    below(node, Dollar::Means, lookup, report);
}

/// What a dollar is that comes from the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dollar {
    /// As if it stood in the file.
    Means,
    /// A character.
    Plain,
}

fn below(node: &mut Node, dollar: Dollar, lookup: Lookup<'_>, report: &Report) {
    let span = node.span;
    match &mut node.value {
        Value::Empty => {}
        Value::Text(text) if text.contains(BEGIN) => {
            let expansion = Expansion {
                span,
                dollar,
                lookup,
                report,
            };
            let (expanded, wrong) = expansion.of(text);
            let is_secret = names_secret(text);
            *text = expanded;
            let is_wrong = !wrong.is_empty();
            for (span, message) in wrong {
                report.error(span, message);
            }
            if is_wrong {
                report.spoil(span);
            }
            if is_secret {
                report.conceal(span);
            }
        }
        Value::Text(_) => {}
        Value::List(items) => {
            for item in items {
                below(item, dollar, lookup, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let dollar = match SENT.contains(&entry.key.as_str()) {
                    true => Dollar::Plain,
                    false => dollar,
                };
                below(&mut entry.value, dollar, lookup, report);
            }
        }
    }
}

/// One value.
struct Expansion<'a> {
    span: Span,
    dollar: Dollar,
    lookup: Lookup<'a>,
    report: &'a Report,
}

impl Expansion<'_> {
    /// The text with its values, and what is wrong with them.
    fn of(&self, text: &str) -> (String, Vec<(Span, String)>) {
        let mut whole = String::with_capacity(text.len());
        let mut wrong = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            whole.push_str(&rest[..at]);
            rest = &rest[at..];
            let before = &text[..text.len() - rest.len()];
            let Some(inner) = rest.strip_prefix(BEGIN) else {
                // Two are a plain dollar to whoever reads variables, so none of ours begins with the second.
                let taken = if rest.starts_with("$$") { 2 } else { 1 };
                whole.push_str(&rest[..taken]);
                rest = &rest[taken..];
                continue;
            };
            let Some((inner, behind)) = inner.split_once('}') else {
                let message = "a `}` is missing at the end of this variable";
                wrong.push((self.place(before, rest), message.to_owned()));
                return (whole, wrong);
            };
            let written = &rest[..rest.len() - behind.len()];
            match self.value(inner) {
                Ok(value) if self.dollar == Dollar::Plain => {
                    whole.push_str(&value.replace('$', "$$"));
                }
                Ok(value) => whole.push_str(&value),
                Err(message) => wrong.push((self.place(before, written), message)),
            }
            rest = behind;
        }
        whole.push_str(rest);
        (whole, wrong)
    }

    /// What a variable stands for, by what is written in its braces.
    fn value(&self, inner: &str) -> Result<String, String> {
        let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, behind) = inner.split_at(end.unwrap_or(inner.len()));
        let otherwise = behind.strip_prefix(OTHERWISE);
        let is_name = name.starts_with(|c: char| !c.is_ascii_digit());
        if !is_name || (otherwise.is_none() && !behind.is_empty()) {
            return Err(format!(
                "{} is no variable of the environment; write ${{env:NAME}} or ${{env:NAME:-OTHERWISE}}",
                quoted(inner)
            ));
        }
        match ((self.lookup)(name), otherwise) {
            (None, None) => Err(format!(
                "the environment has no variable {}; set it before the start, or write \
                 ${{env:{name}:-OTHERWISE}}",
                quoted(name)
            )),
            (None, Some(otherwise)) => Ok(otherwise.to_owned()),
            (Some(value), Some(otherwise)) if value.is_empty() => Ok(otherwise.to_owned()),
            (Some(value), _) => value.into_string().map_err(|_| {
                let name = quoted(name);
                format!("the variable {name} of the environment is not UTF-8 text")
            }),
        }
    }

    /// Where this piece of the text stands, behind that one.
    fn place(&self, before: &str, piece: &str) -> Span {
        let nth = before.matches(BEGIN).count();
        let raw = self.report.piece(self.span);
        let found = raw.match_indices(BEGIN).nth(nth).map(|(at, _)| at);
        match found {
            // Unless it was written with an escape.
            Some(at) if raw[at..].starts_with(piece) => {
                let start = self.span.start + at;
                Span::new(start, start + piece.len())
            }
            _ => self.span,
        }
    }
}

/// Is there a variable in this text whose name says that it is a secret?
fn names_secret(text: &str) -> bool {
    let names = text.split(BEGIN).skip(1);
    names
        .filter_map(|rest| rest.split(['}', ':']).next())
        .any(|name| {
            let name = name.to_ascii_lowercase();
            SECRET.iter().any(|secret| name.contains(secret))
        })
}
