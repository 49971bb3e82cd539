//! The TLS of listeners.

use super::endpoint_tls::System;
use super::{acme, pem};
use crate::config::fields::{Fields, Item};
use crate::config::keys::{CLIENT_AUTHS, ClientAuth};
use crate::config::secure::{Certificate, ClientProof, Tls};

/// The TLS of a listener. `None` when anything about it was reported.
pub(super) fn tls(fields: &Fields<'_>, system: &System) -> Option<Tls> {
    let written = |name: &str| fields.written(name).is_some();
    let mut certificates = Vec::new();
    let mut whole = true;
    if written("cert") || written("key") {
        for name in ["cert", "key"] {
            if !written(name) {
                fields.error(fields.key_place(name), format!("this tls has no `{name}`"));
            }
        }
        let found = certificate(fields, true);
        whole &= found.is_some();
        certificates.extend(found);
    } else {
        fields.missing_all(
            &["cert", "certificates", "acme"],
            "cert: /etc/tidegate/cert.pem",
        );
    }
    for item in fields.items("certificates") {
        let Item::Fields(item) = item else { continue };
        let found = certificate(&item, certificates.is_empty());
        whole &= found.is_some();
        certificates.extend(found);
    }
    let ordered = written("acme").then(|| acme::acme(&fields.section("acme"), system));
    whole &= !matches!(ordered, Some(None));
    let clients = clients(fields)?;
    let acme = ordered.flatten();
    (whole && (acme.is_some() || !certificates.is_empty())).then_some(Tls {
        certificates,
        acme,
        clients,
    })
}

/// One certificate. The `first` is shown to everybody for whose name there is no other; one behind it
/// has to be for a name, or nobody ever sees it.
fn certificate(fields: &Fields<'_>, first: bool) -> Option<Certificate> {
    let (proof, facts) = pem::pair(fields)?;
    let at = fields.place_of("cert");
    if facts.names.is_empty() && !first {
        let message = "this certificate is for no DNS name (subjectAltName), so no client can ask for it; \
                       only the first one may be so";
        fields.error(at, message);
        return None;
    }
    if facts.names.is_empty() && !facts.has_address {
        let message = "this certificate is for no name and no address (subjectAltName), and clients that \
                       verify it will refuse it";
        fields.warning(at, message);
    }
    Some(Certificate {
        proof,
        not_after: facts.not_after,
        names: facts.names,
    })
}

/// What is wanted of clients. `None` when anything was reported.
fn clients(fields: &Fields<'_>) -> Option<Option<ClientProof>> {
    let auth = fields.choice("client_auth", &CLIENT_AUTHS);
    let ca = pem::authorities(fields, "client_ca");
    if fields.written("client_ca").is_some() && ca.is_none() {
        return None;
    }
    let asks = auth.is_some_and(|auth| auth != ClientAuth::Off);
    let clients = match ca {
        None if asks => {
            let message = "`client_auth` needs `client_ca`, the authorities of the clients";
            fields.error(fields.key_place("client_auth"), message);
            return None;
        }
        None => None,
        Some(_) if auth == Some(ClientAuth::Off) => None,
        Some((ca, authorities)) => Some(ClientProof {
            ca,
            authorities,
            required: auth != Some(ClientAuth::Optional),
        }),
    };
    Some(clients)
}
