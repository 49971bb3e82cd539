//! Whose word is taken for who the client is.

use crate::config::fields::Fields;
use crate::config::keys::PROXY_HEADERS;
use crate::config::problem::Report;
use crate::config::proxies::{Net, Proxies, net};

/// The trusted proxies, and a warning for a network that is everybody.
pub(super) fn proxies(root: &Fields<'_>, report: &Report) -> Proxies {
    let mut proxies = Proxies {
        header: root
            .choice("trusted_header", &PROXY_HEADERS)
            .unwrap_or_default(),
        ..Proxies::default()
    };
    for word in root.texts("trusted_proxies") {
        if word.text == "unix" {
            proxies.unix = true;
        } else if let Some(net) = root.parsed(word, net) {
            if Net::is_everybody(net) {
                let message = "this is everybody: any client can then pass for any other";
                report.warning(word.span, message);
            }
            proxies.nets.push(net);
        }
    }
    proxies
}
