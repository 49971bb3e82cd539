//! What a path becomes on its way to a server.
//!
//! The query stays, and so does every percent-encoded character: nothing is decoded and nothing is
//! encoded anew.

use regex::bytes::{Regex, RegexBuilder};

use super::address;
use super::model::PathRule;
use super::problem::quoted;

/// Room that a compiled pattern may take, in bytes.
const PATTERN_MAX: usize = 256 * 1024;

/// How the path of a route's requests is rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// What the route matches by becomes this; `/` leaves it out. Has no `/` at its end but for `/`.
    Prefix(String),
    /// What the pattern finds first becomes its `to`.
    Pattern(Pattern),
}

/// A pattern and what stands in its place. Matching takes time in proportion to the path, whatever
/// both are.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    to: String,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.to == other.to
    }
}

impl Eq for Pattern {}

impl Rewrite {
    /// The path that a server is asked for. `rule` takes `path`.
    pub fn apply(&self, rule: &PathRule, path: &str) -> String {
        let to = match self {
            Self::Pattern(pattern) => {
                let to = pattern
                    .regex
                    .replace(path.as_bytes(), pattern.to.as_bytes());
                // Both are ASCII.
                return String::from_utf8_lossy(&to).into_owned();
            }
            Self::Prefix(to) => to.trim_end_matches('/'),
        };
        let rest = match rule {
            PathRule::Exact(_) => "",
            PathRule::Prefix(prefix) if prefix == "/" => path,
            PathRule::Prefix(prefix) => path.strip_prefix(prefix.as_str()).unwrap_or_default(),
        };
        match (to, rest) {
            ("", "") => "/".to_owned(),
            (to, rest) => format!("{to}{rest}"),
        }
    }
}

/// What takes the place of a prefix.
pub(super) fn prefix(text: &str) -> Result<Rewrite, String> {
    let path = address::path(text)?;
    let trimmed = path.trim_end_matches('/');
    let prefix = if trimmed.is_empty() { "/" } else { trimmed };
    Ok(Rewrite::Prefix(prefix.to_owned()))
}

/// A regular expression.
pub(super) fn regex(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(text);
    // Paths are ASCII.
    let built = builder.unicode(false).size_limit(PATTERN_MAX).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let why = last.trim_start_matches("error: ");
        format!("this is not a regular expression: {why}")
    })
}

/// What takes the place of what a pattern finds.
pub(super) fn pattern(regex: Regex, to: &str) -> Result<Rewrite, String> {
    let shown = quoted(to);
    if !to.starts_with('/') {
        return Err(format!("{shown}: a path begins with `/`"));
    }
    if to.contains(['?', '#']) || !to.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{shown}: a path has no query or fragment, and spaces only as %20"
        ));
    }
    let groups: Vec<&str> = regex.capture_names().flatten().collect();
    let mut rest = to;
    while let Some((_, behind)) = rest.split_once('$') {
        if let Some(behind) = behind.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let bare = behind.strip_prefix('{');
        let name = bare.unwrap_or(behind);
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        let name = &name[..end];
        let numbered = name.parse().is_ok_and(|n: usize| n < regex.captures_len());
        if !numbered && !groups.contains(&name) {
            let name = quoted(name);
            return Err(format!("{shown}: the pattern has no group {name}"));
        }
        rest = behind;
    }
    let to = to.to_owned();
    Ok(Rewrite::Pattern(Pattern { regex, to }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        let under = |rule: &str| match rule {
            "=" => PathRule::Exact("/api".into()),
            rule => PathRule::Prefix(rule.into()),
        };
        for (rule, to, path, seen) in [
            ("/api", "/v2", "/api", "/v2"),
            ("/api", "/v2", "/api/", "/v2/"),
            ("/api", "/v2/", "/api/a%2Fb//c", "/v2/a%2Fb//c"),
            ("/api", "/", "/api/x", "/x"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api/", "/"),
            ("/", "/v2", "/x", "/v2/x"),
            ("/", "/v2", "/", "/v2/"),
            ("=", "/v2", "/api", "/v2"),
        ] {
            let rewrite = prefix(to).unwrap();
            assert_eq!(
                rewrite.apply(&under(rule), path),
                seen,
                "{rule} {to} {path}"
            );
        }
    }

    #[test]
    fn a_pattern_puts_its_groups_where_they_belong() {
        let all = PathRule::Prefix("/".into());
        let apply = |text: &str, to: &str, path: &str| {
            pattern(regex(text).unwrap(), to).map(|rewrite| rewrite.apply(&all, path))
        };
        let seen = apply("^/v(\\d+)/(?P<rest>.*)$", "/${rest}/$1", "/v2/a%20b").unwrap();
        assert_eq!(seen, "/a%20b/2");
        assert_eq!(apply("^/no/", "/x", "/v2/a").unwrap(), "/v2/a");
        assert!(
            apply("^/(a)", "/$2", "/a")
                .unwrap_err()
                .contains("no group")
        );
        assert!(
            apply("^/(a)", "/$1x", "/a")
                .unwrap_err()
                .contains("no group")
        );
        assert!(
            apply("^/(a)", "$1", "/a")
                .unwrap_err()
                .contains("begins with")
        );
        assert!(
            regex("(a")
                .unwrap_err()
                .contains("not a regular expression")
        );
        assert!(regex("((a{100}){100}){100}").is_err(), "it has a bound");
    }
}
