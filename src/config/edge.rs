//! What a route does with heads, and the routes that answer by themselves, as the program sees it.

use std::sync::Arc;

use http::HeaderName;

use super::model::PoolId;
use super::template::Template;

/// What becomes of the requests of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// They go to this pool.
    Pool(PoolId),
    /// They get this answer.
    Return(Arc<Return>),
    /// They are sent elsewhere.
    Redirect(Arc<Redirect>),
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// 200 to 599, and none of those that redirect.
    pub status: u16,
    /// The body, at most 64 KiB; empty with 204, 205 and 304.
    pub body: String,
    /// Its fields, `content-type` among them unless the body is empty.
    pub headers: Vec<Field>,
}

/// Where clients are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The value of `Location`. Its scheme and host are written out or are those that the client asked
    /// for; no other part of a request can become a host.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Whether a request came over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// It did not.
    Http,
    /// It did.
    Https,
}

/// A header field with what its value is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case.
    pub name: HeaderName,
    /// Visible ASCII and spaces, whatever the request.
    pub value: Template,
}

/// Changes to the fields of a head. Names are unique within `set`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Take the place of all fields of that name.
    pub set: Vec<Field>,
    /// Stand beside what is there.
    pub add: Vec<Field>,
    /// Are left out.
    pub remove: Vec<HeaderName>,
    /// What a server is asked for as `Host`, in place of its own address. Requests only.
    pub host: Option<Template>,
}

impl HeaderEdits {
    /// Is there nothing to change?
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty() && self.host.is_none()
    }

    /// The names that do not pass.
    pub fn left_out(&self) -> impl Iterator<Item = &HeaderName> {
        let set = self.set.iter().map(|field| &field.name);
        set.chain(&self.remove)
    }

    /// The fields that come in, in order.
    pub fn brought_in(&self) -> impl Iterator<Item = &Field> {
        self.set.iter().chain(&self.add)
    }
}
