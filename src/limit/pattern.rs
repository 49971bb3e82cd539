//! Names with a `*` in them.

/// A text in which each `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// A pattern as written.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Does the pattern take all of `name`? Each part is looked for from the left, which is right
    /// because the first place where it is found leaves most to the rest; time is linear in the
    /// length of the name for each part.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return *self.0 == *name;
        };
        let Some(mut left) = name.strip_prefix(first) else {
            return false;
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            let Some(at) = left.find(part) else {
                return false;
            };
            left = &left[at + part.len()..];
        }
        left.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, takes, leaves) in [
            ("echo", &["echo"][..], &["echo2", "ech", ""][..]),
            ("slow_*", &["slow_", "slow_query"], &["slow", "a_slow_x"]),
            ("*_admin", &["_admin", "x_admin"], &["admin", "x_admin_"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ac", "abcX", "acb"]),
            ("*", &["", "anything"], &[]),
            ("**", &["", "anything"], &[]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*ü*", &["für"], &["fur"]),
        ] {
            let pattern = Pattern::new(pattern);
            for name in takes {
                assert!(pattern.matches(name), "{pattern:?} takes {name}");
            }
            for name in leaves {
                assert!(!pattern.matches(name), "{pattern:?} leaves {name}");
            }
        }
    }
}
