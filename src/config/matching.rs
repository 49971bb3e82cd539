//! Which hosts, paths and pages a route takes.

/// Which hosts a route answers for. Names are lower case and hold no port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostRule {
    /// This host alone. An IPv6 address is written without brackets.
    Exact(String),
    /// Every name below this one, at any depth, and not the name itself: `*.example.com` is kept
    /// as `example.com`.
    Below(String),
}

impl HostRule {
    /// Does this rule take the host? `host` has no port, brackets or final dot.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(parent) => is_below(host, parent),
        }
    }
}

/// Is `host` a name below `parent`, whatever the case of its letters?
pub fn is_below(host: &str, parent: &str) -> bool {
    let Some(dot) = host.len().checked_sub(parent.len() + 1) else {
        return false;
    };
    let (label, rest) = host.as_bytes().split_at(dot);
    !label.is_empty() && rest[0] == b'.' && rest[1..].eq_ignore_ascii_case(parent.as_bytes())
}

/// Which paths a route answers for. Both begin with `/` and are compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathRule {
    /// This path alone.
    Exact(String),
    /// This path and everything below it, by whole segments: `/mcp` takes `/mcp` and `/mcp/x`, not
    /// `/mcpx`. Has no `/` at its end, except `/` itself, which takes everything.
    Prefix(String),
}

impl PathRule {
    /// The path as written, whichever kind of rule it is.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
        }
    }

    /// Does this rule take the path? `path` has no query.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) if prefix == "/" => true,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// Which values of the `Origin` header a route lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Nothing was said in the file; the safe default rule of the proxy holds.
    Unset,
    /// These values, each `scheme://host[:port]` in lower case and without the scheme's own port.
    List(Vec<String>),
    /// Any value.
    Any,
}

impl Origins {
    /// Is this value of `Origin` among them? Without a list none is.
    pub fn has(&self, origin: &[u8]) -> bool {
        match self {
            Self::Unset => false,
            Self::Any => true,
            Self::List(list) => {
                let mut list = list.iter();
                list.any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
            }
        }
    }
}
