//! The console: a web page inside the binary, and what it takes to keep other pages out of it.
//!
//! The files are sent as they are, so nothing has to be built. A browser may keep them, and asks each time
//! whether they are still the same: an upgrade shows at once.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::proxy::ctx::Ctx;
use crate::proxy::fault::Fault;
use crate::proxy::local;
use crate::transport::fields::Names;
use crate::transport::{Downstream, Edits, Headers, Length, RequestHead};

/// A file of the page.
struct Asset {
    /// Behind `/console/`; empty for the page itself.
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($kind:literal: $($name:literal)+;)+) => {
        &[$($(Asset {
            name: $name,
            content_type: $kind,
            text: include_str!(concat!("../console/", $name)),
        },)+)+]
    };
}

const HTML: &str = "text/html; charset=utf-8";

const PAGE: Asset = Asset {
    name: "",
    content_type: HTML,
    text: include_str!("../console/index.html"),
};

const ASSETS: &[Asset] = assets! {
    "text/css; charset=utf-8": "console.css";
    "text/javascript; charset=utf-8": "main.js" "api.js" "dom.js" "charts.js" "pools.js" "sessions.js"
        "panels.js" "actions.js" "theme.js";
    "image/svg+xml": "icon.svg";
};

/// What the page may do, which is to talk to where it came from.
const POLICY: &[u8] =
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Is this path the console's?
pub(super) fn is_its(path: &str) -> bool {
    matches!(path, "/" | "/console") || path.starts_with("/console/")
}

fn find(path: &str) -> Option<&'static Asset> {
    match path {
        "/" | "/console" | "/console/" => Some(&PAGE),
        path => {
            let name = path.strip_prefix("/console/")?;
            ASSETS.iter().find(|asset| asset.name == name)
        }
    }
}

impl Asset {
    /// The same for the same text, in this version of the program and in others.
    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

/// Answers a request for the page or one of its files.
pub(super) async fn answer<D: Downstream>(down: &mut D, ctx: &mut Ctx, path: &str) {
    let method = down.head().method();
    if !matches!(method, "GET" | "HEAD") {
        return local::refuse(down, ctx, Fault::Method("GET")).await;
    }
    let Some(asset) = find(path) else {
        return local::refuse(down, ctx, Fault::NoRoute).await;
    };
    let is_head = method == "HEAD";
    let etag = asset.etag();
    let known = down.head().get("if-none-match");
    let is_known = known.is_some_and(|known| has(known, &etag));
    let set: [(&str, &[u8]); 8] = [
        ("content-type", asset.content_type.as_bytes()),
        ("cache-control", b"no-cache"),
        ("etag", etag.as_bytes()),
        ("content-security-policy", POLICY),
        ("x-content-type-options", b"nosniff"),
        ("x-frame-options", b"DENY"),
        ("referrer-policy", b"no-referrer"),
        ("cross-origin-resource-policy", b"same-origin"),
    ];
    let edits = Edits {
        set: &set,
        drop: Names::NONE,
        ..Edits::default()
    };
    let (status, length) = match is_known {
        true => (304, Length::None),
        false => (200, Length::Exact(asset.text.len() as u64)),
    };
    let sent = async {
        down.send_head(status, None, edits, length).await?;
        if !is_known && !is_head {
            down.send_body(asset.text.as_bytes()).await?;
        }
        down.finish().await
    };
    // Whoever asked and is gone needs no answer.
    let _ = sent.await;
}

/// Is this tag one of those that a client knows (RFC 9110 section 13.1.2)?
fn has(known: &[u8], etag: &str) -> bool {
    let known = std::str::from_utf8(known).unwrap_or_default();
    let mut tags = known.split(',').map(str::trim);
    tags.any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_file_and_no_other() {
        let names = ["/", "/console", "/console/", "/console/main.js"];
        assert!(
            names
                .iter()
                .all(|path| is_its(path) && find(path).is_some())
        );
        for none in [
            "/console/index.html",
            "/console/../main.js",
            "/console/x",
            "/consolex",
            "/x",
        ] {
            assert!(find(none).is_none(), "{none}");
        }
        assert!(!is_its("/consolex") && !is_its("/metrics"));
    }

    #[test]
    fn the_page_names_nothing_that_is_not_here_and_nothing_inline() {
        let mut named = 0;
        for (at, _) in PAGE.text.match_indices("\"/console/") {
            let path = PAGE.text[at + 1..].split('"').next().unwrap();
            assert!(find(path).is_some(), "{path}");
            named += 1;
        }
        assert!(named > 3);
        for wrong in [
            "<style",
            " style=",
            " onclick=",
            "javascript:",
            "http://",
            "https://",
        ] {
            assert!(!PAGE.text.contains(wrong), "{wrong}");
        }
        for asset in ASSETS.iter().filter(|asset| asset.name.ends_with(".js")) {
            for wrong in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!asset.text.contains(wrong), "{} has {wrong}", asset.name);
            }
            assert!(asset.text.lines().count() <= 400, "{} is long", asset.name);
        }
    }

    #[test]
    fn a_tag_is_found_among_others() {
        let tag = PAGE.etag();
        assert!(has(tag.as_bytes(), &tag) && has(format!("\"x\", W/{tag}").as_bytes(), &tag));
        assert!(!has(b"\"x\"", &tag) && !has(b"", &tag) && !has(b"\xff", &tag));
    }
}
