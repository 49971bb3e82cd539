//! What this program is, and how it was built.

/// The version alone.
pub(super) fn short() -> String {
    format!("tidegate {}", env!("CARGO_PKG_VERSION"))
}

/// The version, and what whoever looks into a report would ask next.
pub(super) fn long() -> String {
    let rows = [
        ("commit", option_env!("TIDEGATE_COMMIT").unwrap_or_default()),
        ("rustc", env!("TIDEGATE_RUSTC").trim_start_matches("rustc ")),
        ("target", env!("TIDEGATE_TARGET")),
        ("profile", env!("TIDEGATE_PROFILE")),
        ("with", env!("TIDEGATE_LIBRARIES")),
        ("features", FEATURES),
    ];
    let mut text = short();
    for (name, value) in rows {
        let value = if value.is_empty() { "unknown" } else { value };
        text.push_str(&format!("\n{:9} {value}", format!("{name}:")));
    }
    text
}

/// What it was built with. There is but one way.
const FEATURES: &str =
    "HTTP/1.1, HTTP/2, WebSocket, PROXY protocol, TLS 1.2 and 1.3 (rustls, ring), mimalloc";
