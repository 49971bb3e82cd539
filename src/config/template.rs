//! Texts with variables, as they stand in values of header fields and in redirects.
//!
//! `$name` or `${name}` is a variable and `$$` a dollar. The set is small and closed: what a variable
//! stands for was checked when the request was read, so that none can hold a line end.

use super::problem::quoted;
use super::suggest;

/// Longest text with variables in bytes.
const TEXT_MAX: usize = 4096;

/// What a variable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// The client's address.
    RemoteAddr,
    /// The host that was asked for, without its port.
    Host,
    /// The same with its port, as it was sent.
    HttpHost,
    /// `http` or `https`.
    Scheme,
    /// The request's id in the log: 16 hex digits.
    RequestId,
    /// The path as it was sent.
    Path,
    /// The query as it was sent, without the question mark.
    Query,
    /// Path and query as they were sent.
    RequestUri,
    /// `SUCCESS` for a client that has proved who it is by a certificate, else `NONE`.
    SslClientVerify,
    /// The subject of the client's certificate (RFC 2253); like the next four nothing, if it has proved
    /// nothing.
    SslClientSDn,
    /// The subject of who has signed it.
    SslClientIDn,
    /// The name that it is for.
    ClientName,
    /// SHA-256 of it in hex digits.
    ClientFingerprint,
    /// A short hash of who the client has proved to be: 8 hex digits, as in the log.
    Principal,
    /// The page's origin. Has no name: only CORS uses it, which has checked it.
    Origin,
}

/// The names, which are those of nginx where it has the same.
pub(super) const VARIABLES: [(&str, Variable); 14] = [
    ("remote_addr", Variable::RemoteAddr),
    ("host", Variable::Host),
    ("http_host", Variable::HttpHost),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("request_uri", Variable::RequestUri),
    ("ssl_client_verify", Variable::SslClientVerify),
    ("ssl_client_s_dn", Variable::SslClientSDn),
    ("ssl_client_i_dn", Variable::SslClientIDn),
    ("client_name", Variable::ClientName),
    ("client_fingerprint", Variable::ClientFingerprint),
    ("principal", Variable::Principal),
];

impl Variable {
    /// Does it tell who the client has proved to be?
    pub(super) const fn is_proof(self) -> bool {
        matches!(
            self,
            Self::SslClientVerify
                | Self::SslClientSDn
                | Self::SslClientIDn
                | Self::ClientName
                | Self::ClientFingerprint
                | Self::Principal
        )
    }
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// What it is for the request.
    Variable(Variable),
}

/// A text with variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// A text without variables.
    pub(super) fn fixed(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// This variable alone.
    pub(super) fn variable(variable: Variable) -> Self {
        Self(vec![Part::Variable(variable)])
    }

    /// Its pieces. No two texts stand side by side.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The text, if it has no variables.
    pub fn as_text(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Does this variable stand in it?
    pub fn has(&self, variable: Variable) -> bool {
        self.0.contains(&Part::Variable(variable))
    }
}

/// Reads a text whose every byte may stand in a field's value.
pub(super) fn template(text: &str) -> Result<Template, String> {
    let shown = quoted(text);
    if text.len() > TEXT_MAX {
        return Err(format!("{shown} is longer than {TEXT_MAX} bytes"));
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(format!(
            "{shown}: only visible ASCII and spaces may stand here"
        ));
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            plain.push('$');
            rest = behind;
            continue;
        }
        let (name, behind) = name(rest).ok_or_else(|| {
            format!("{shown}: no variable stands behind a `$`; write `$$` for the character")
        })?;
        let variable = VARIABLES.iter().find(|(other, _)| *other == name);
        let (_, variable) = variable.ok_or_else(|| unknown(name))?;
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Variable(*variable));
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(Template(parts))
}

/// The name at the front, in braces or not, and what stands behind it.
fn name(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('{') {
        return inner.split_once('}').filter(|(name, _)| !name.is_empty());
    }
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let end = text.find(|c| !in_name(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn unknown(name: &str) -> String {
    let names = || VARIABLES.iter().map(|(name, _)| *name);
    let shown = quoted(name);
    if let Some(near) = suggest::nearest(name, names()) {
        return format!("there is no variable {shown}; did you mean `${near}`?");
    }
    let all: Vec<String> = names().map(|name| format!("${name}")).collect();
    format!("there is no variable {shown}; there are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_from_text() {
        let read = template("a$$b-${host}x$path").unwrap();
        assert_eq!(
            read.parts(),
            [
                Part::Text("a$b-".into()),
                Part::Variable(Variable::Host),
                Part::Text("x".into()),
                Part::Variable(Variable::Path),
            ]
        );
        assert_eq!(template("plain").unwrap().as_text(), Some("plain"));
        assert_eq!(template("").unwrap().as_text(), Some(""));
        for (wrong, says) in [
            ("a$", "`$$`"),
            ("${}", "`$$`"),
            ("${host", "`$$`"),
            ("$hosts", "did you mean `$host`?"),
            ("$args_of_it", "there are $remote_addr"),
            ("a\r\nb", "visible ASCII"),
            ("gr\u{fc}n", "visible ASCII"),
        ] {
            let said = template(wrong).unwrap_err();
            assert!(said.contains(says), "{wrong}: {said}");
        }
    }
}
