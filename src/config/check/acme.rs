//! Certificates that are ordered: from whom, and for which names.

use std::time::Duration;

use http::Uri;

use super::endpoint_tls::System;
use super::pem;
use crate::config::address;
use crate::config::fields::Fields;
use crate::config::model::HostRule;
use crate::config::problem::quoted;
use crate::config::secure::{Acme, Trust};

/// The directory of Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// How long before its end a certificate is ordered anew, unless something else is written.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What an `acme` section says. `None` when anything about it was reported.
pub(super) fn acme(fields: &Fields<'_>, system: &System) -> Option<Acme> {
    let names = names(fields);
    let mut contact = Vec::new();
    let mut whole = true;
    for word in fields.texts("contact") {
        let parsed = fields.parsed(word, mailto);
        whole &= parsed.is_some();
        contact.extend(parsed);
    }
    if !fields.flag("agree_to_terms") && fields.written("agree_to_terms").is_some() {
        let message = "an authority gives certificates only to those who agree to its terms: read them, \
                       and write `agree_to_terms: true`";
        fields.error(fields.place_of("agree_to_terms"), message);
        return None;
    }
    let renew_before = match fields.written("renew_before") {
        Some(_) => fields.duration("renew_before"),
        None => RENEW_BEFORE,
    };
    let directory = match fields.text("directory") {
        Some(word) => fields.parsed(word, url),
        None => Some(DIRECTORY.to_owned()),
    };
    let trust = trust(fields, system);
    fields.written("agree_to_terms")?;
    whole.then_some(Acme {
        directory: directory?,
        contact,
        names: names?,
        trust: trust?,
        renew_before,
    })
}

/// The names; `None` when anything about them was reported.
fn names(fields: &Fields<'_>) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut whole = true;
    for word in fields.texts("names") {
        match fields.parsed(word, dns_name) {
            Some(name) if names.contains(&name) => {
                let message = format!("the name {} is here twice", quoted(word.text));
                fields.error(word.span, message);
                whole = false;
            }
            Some(name) => names.push(name),
            None => whole = false,
        }
    }
    (whole && !names.is_empty()).then_some(names)
}

/// By whom the directory proves itself. `None` when anything about it was reported.
fn trust(fields: &Fields<'_>, system: &System) -> Option<Trust> {
    if fields.written("ca").is_some() {
        return pem::authorities(fields, "ca").map(|(path, found)| Trust::File(path, found));
    }
    let found = system.authorities().map_err(|why| {
        let message = format!(
            "the directory cannot be verified by the authorities of the system, {why}; write `ca: \
             /etc/tidegate/ca.pem`"
        );
        fields.error(fields.key_place("directory"), message);
    });
    found.ok().map(Trust::System)
}

/// A name that an authority can connect to.
fn dns_name(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    match address::host_rule(text)? {
        HostRule::Below(_) => Err(format!(
            "{shown}: a certificate for a wildcard cannot be had in this way, which connects to each name"
        )),
        HostRule::Exact(name) if name.parse::<std::net::IpAddr>().is_ok() => {
            Err(format!("{shown}: write a DNS name, not an address"))
        }
        HostRule::Exact(name) => Ok(name),
    }
}

/// Where a person can be written to.
fn mailto(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").filter(|address| {
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '<' | '>');
        let halves = address.split_once('@');
        address.chars().all(is_plain)
            && halves.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
    });
    match address {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "{}: write one address as in mailto:ops@example.com",
            quoted(text)
        )),
    }
}

/// The URL of a directory.
fn url(text: &str) -> Result<String, String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
    });
    let plain = uri.filter(|uri| {
        uri.authority()
            .is_some_and(|found| !found.as_str().contains('@'))
    });
    match plain {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "{}: a directory is an address such as {DIRECTORY}",
            quoted(text)
        )),
    }
}
