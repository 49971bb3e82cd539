//! What a route has to say about the heads of its exchanges, beside the edits of the exchange itself.
//!
//! It is handed to the client's side of an exchange once, and stands on whatever is written there
//! from then on: replies of servers, answers of our own, heads of streams. What the changes are is
//! unknown here.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::fields::Name;
use super::{ConnInfo, RequestHead};

/// Changes to the fields of a head.
pub trait Fields: Send + Sync {
    /// Does a field of this name stay behind?
    fn leaves(&self, name: Name<'_>) -> bool;
    /// Calls `put` with every field that comes in, in order. No value has a line end in it.
    fn each(&self, facts: &Facts<'_>, put: &mut dyn FnMut(&str, &[u8]));
    /// Calls `put` with what a server is to be asked for as its host, unless that is its own address.
    fn host(&self, facts: &Facts<'_>, put: &mut dyn FnMut(&[u8]));
}

/// What the values of fields may depend on.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub head: &'a dyn RequestHead,
    /// Its connection.
    pub info: &'a ConnInfo,
    /// The request's id in the log.
    pub id: u64,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The client speaks TLS.
    pub is_tls: bool,
}

/// Changes, and what their values depend on.
#[derive(Clone, Copy)]
pub struct More<'a> {
    /// The changes.
    pub fields: &'a dyn Fields,
    /// The facts.
    pub facts: Facts<'a>,
}

impl More<'_> {
    /// Calls `put` with every field that comes in.
    pub fn each(&self, put: &mut dyn FnMut(&str, &[u8])) {
        self.fields.each(&self.facts, put);
    }

    /// Calls `put` with the host to ask for, if it is another than the server's address.
    pub fn host(&self, put: &mut dyn FnMut(&[u8])) {
        self.fields.host(&self.facts, put);
    }
}

impl fmt::Debug for More<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("More")
    }
}

/// What the route of an exchange says; nothing, of most routes.
#[derive(Default, Clone)]
pub struct Dress {
    /// The request's id in the log.
    pub id: u64,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The client speaks TLS.
    pub is_tls: bool,
    /// Changes to requests, towards servers.
    pub request: Option<Arc<dyn Fields>>,
    /// Changes to responses, towards the client.
    pub response: Option<Arc<dyn Fields>>,
}

impl Dress {
    /// The changes to the response to this request.
    pub fn response<'a>(
        &'a self,
        head: &'a dyn RequestHead,
        info: &'a ConnInfo,
    ) -> Option<More<'a>> {
        self.more(self.response.as_deref()?, head, info)
    }

    /// The changes to this request.
    pub fn request<'a>(
        &'a self,
        head: &'a dyn RequestHead,
        info: &'a ConnInfo,
    ) -> Option<More<'a>> {
        self.more(self.request.as_deref()?, head, info)
    }

    fn more<'a>(
        &self,
        fields: &'a dyn Fields,
        head: &'a dyn RequestHead,
        info: &'a ConnInfo,
    ) -> Option<More<'a>> {
        let facts = Facts {
            head,
            info,
            id: self.id,
            client: self.client,
            is_tls: self.is_tls,
        };
        Some(More { fields, facts })
    }
}
