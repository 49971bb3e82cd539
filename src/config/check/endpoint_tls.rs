//! The TLS of endpoints: what one says itself, over what its pool says for all.

use std::cell::OnceCell;

use rustls::pki_types::ServerName;

use super::pem;
use crate::config::address::Scheme;
use crate::config::fields::Fields;
use crate::config::host_port::HostPort;
use crate::config::keys::VERIFY;
use crate::config::node::Span;
use crate::config::secure::{Authorities, EndpointTls, Proof, Trust};

/// The authorities of the system, read when they are first needed.
#[derive(Default)]
pub(super) struct System(OnceCell<Result<Authorities, String>>);

impl System {
    /// They.
    ///
    /// # Errors
    /// That there are none, or why they cannot be read, as the end of a sentence.
    pub(super) fn authorities(&self) -> Result<Authorities, String> {
        let read = || match rustls_native_certs::load_native_certs() {
            Ok(found) if found.is_empty() => Err("it has none".to_owned()),
            Ok(found) => Ok(Authorities::new(found)),
            Err(error) => Err(error.to_string()),
        };
        self.0.get_or_init(read).clone()
    }
}

/// What was said in one `tls` section. What was not is left to the section above it.
#[derive(Clone, Default)]
pub(super) struct Said {
    trust: Option<Trust>,
    server_name: Option<String>,
    proof: Option<Proof>,
}

/// What a `tls` section says; `None` if there is no such section, or it is `off`.
pub(super) fn said(fields: &Fields<'_>) -> Option<Said> {
    fields.written("tls")?;
    let fields = fields.section_or_off("tls")?;
    let ca = pem::authorities(&fields, "ca");
    let verify = fields.choice("verify", &VERIFY);
    if let (Some(at), Some(false)) = (fields.written("ca"), verify) {
        fields.error(at, "`ca` has no meaning with `verify: off`");
    }
    if verify == Some(false) {
        let message = "without verification anybody on the way can pretend to be the endpoint, \
                       read what is sent and change it";
        fields.warning(fields.key_place("verify"), message);
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let Some(at) = fields
            .written(one)
            .filter(|_| fields.written(other).is_none())
        {
            fields.error(at, format!("`{one}` needs `{other}`"));
        }
    }
    let both = fields.written("cert").is_some() && fields.written("key").is_some();
    let pair = both.then(|| pem::pair(&fields)).flatten();
    let name = fields.text("server_name");
    Some(Said {
        trust: match verify {
            Some(false) => Some(Trust::Anybody),
            _ => ca.map(|(path, authorities)| Trust::File(path, authorities)),
        },
        server_name: name.and_then(|word| fields.parsed(word, server_name)),
        proof: pair.map(|(proof, _)| proof),
    })
}

/// A name that a certificate can be for.
fn server_name(text: &str) -> Result<String, String> {
    let bare = text.trim_matches(['[', ']']);
    match ServerName::try_from(bare) {
        Ok(_) => Ok(bare.to_ascii_lowercase()),
        Err(_) => Err("this is neither a DNS name nor an IP address".to_owned()),
    }
}

/// The TLS of an endpoint at this address, `at` which it was written. `own` is what it says itself, if
/// it is a map, and `pool` what the pool says.
pub(super) fn of_endpoint(
    fields: &Fields<'_>,
    (address, scheme, at): (&HostPort, Scheme, Span),
    own: Option<&Said>,
    pool: Option<&Said>,
    system: &System,
) -> Option<EndpointTls> {
    let wanted = own.or(pool).is_some();
    match scheme {
        Scheme::Http if own.is_some() => {
            fields.error(at, "`http://` is without TLS, and `tls` is written as well");
            return None;
        }
        Scheme::Http => return None,
        Scheme::Unsaid if !wanted => return None,
        Scheme::Unsaid | Scheme::Https => {}
    }
    let nothing = Said::default();
    let (own, pool) = (own.unwrap_or(&nothing), pool.unwrap_or(&nothing));
    let trust = match own.trust.clone().or_else(|| pool.trust.clone()) {
        Some(trust) => trust,
        None => match system.authorities() {
            Ok(authorities) => Trust::System(authorities),
            Err(why) => {
                let message = format!(
                    "the certificate of this endpoint cannot be verified by the authorities of the \
                     system, {why}; write `tls: {{ ca: /etc/tidegate/ca.pem }}`"
                );
                fields.error(at, message);
                return None;
            }
        },
    };
    let server_name = own.server_name.clone().or_else(|| pool.server_name.clone());
    Some(EndpointTls {
        trust,
        server_name: server_name.unwrap_or_else(|| address.host.clone()),
        proof: own.proof.clone().or_else(|| pool.proof.clone()),
    })
}
