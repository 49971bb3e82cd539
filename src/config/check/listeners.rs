//! Listeners: where they accept, and that no two of them want the same.

use super::super::address;
use super::super::bind::Bind;
use super::super::fields::{Fields, Item};
use super::super::model::Listener;
use super::super::node::{Span, Word};
use super::super::problem::{Report, quoted};
use super::endpoint_tls::System;
use super::tls;

/// The permissions of a unix socket, unless others are written.
const MODE: u32 = 0o660;

/// The listeners, each with the place of its address.
pub(super) fn listeners(root: &Fields<'_>, report: &Report) -> Vec<(Span, Listener)> {
    let mut listeners: Vec<(Span, Listener)> = Vec::new();
    let system = System::default();
    for item in root.items("listeners") {
        let Item::Fields(fields) = item else { continue };
        let Some((at, listener)) = listener(&fields, &system) else {
            continue;
        };
        for (other_at, other) in &listeners {
            if listener.bind.overlaps(&other.bind) {
                let line = report.line(*other_at);
                let message = format!(
                    "{} is taken already: the listener on line {line} accepts on {}",
                    listener.bind, other.bind
                );
                report.error(at, message);
            } else if listener.name == other.name {
                let line = report.line(*other_at);
                let name = quoted(&listener.name);
                let message = format!("the listener on line {line} is named {name} as well");
                report.error(fields.place_of("name"), message);
            }
        }
        listeners.push((at, listener));
    }
    listeners
}

fn listener(fields: &Fields<'_>, system: &System) -> Option<(Span, Listener)> {
    let max_connections = fields.count("max_connections").unwrap_or_default();
    let max_connections_per_client = fields.count("max_connections_per_client");
    let tls = fields.written("tls").map(|_| fields.section("tls"));
    let tls = tls.map(|fields| tls::tls(&fields, system));
    let name = fields.text("name");
    let name = name.map(|word| fields.parsed(word, address::address_name));
    let word = fields.text("bind")?;
    let bind = bind(fields, word)?;
    let name = match name {
        Some(name) => name?,
        None => word.text.to_owned(),
    };
    let listener = Listener {
        name,
        bind,
        max_connections,
        max_connections_per_client,
        tls: tls.flatten(),
        proxy_protocol: fields.flag("proxy_protocol"),
    };
    Some((word.span, listener))
}

/// What `bind` says, with the keys that mean something for one kind of it alone.
fn bind(fields: &Fields<'_>, word: Word<'_>) -> Option<Bind> {
    let only_v6 = fields.flag("ipv6_only");
    let mode = fields.text("mode");
    let mode = mode.map(|word| fields.parsed(word, address::mode));
    let bind = match word.text.strip_prefix("unix:") {
        Some(path) => Bind::Unix {
            path: fields.parsed(word, |_| address::socket_path(path))?,
            mode: mode.unwrap_or(Some(MODE))?,
        },
        None => Bind::Ip {
            address: fields.parsed(word, address::bind)?,
            only_v6,
        },
    };
    let is_v6 = matches!(bind, Bind::Ip { address, .. } if address.is_ipv6());
    if only_v6 && !is_v6 {
        fields.error(
            fields.place_of("ipv6_only"),
            "`ipv6_only` needs an IPv6 address in `bind`",
        );
    }
    if let (Some(at), Bind::Ip { .. }) = (fields.written("mode"), &bind) {
        fields.error(at, "`mode` needs a unix socket in `bind`");
    }
    Some(bind)
}
