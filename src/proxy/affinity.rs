//! The cookie that keeps a browser on its endpoint, on routes of plain HTTP.

use std::sync::Arc;

use super::state::PoolState;
use crate::pool::{Admin, Endpoint, HealthState};
use crate::transport::Headers;

/// The endpoint that the client's cookie names, if it may still be used.
pub(super) fn wanted(pool: &PoolState, head: &impl Headers) -> Option<Arc<Endpoint>> {
    let name = pool.config.affinity_cookie.as_deref()?;
    let id = cookie(head, name).and_then(|value| u64::from_str_radix(&value, 16).ok())?;
    let endpoint = pool.pool.find(id)?;
    let usable = endpoint.health() != HealthState::Down && endpoint.admin() != Admin::Maint;
    usable.then(|| Arc::clone(endpoint))
}

fn cookie(head: &(impl Headers + ?Sized), name: &str) -> Option<String> {
    with_cookie(head, name, str::to_owned)
}

/// What `make` makes of the value of the first cookie of this name.
pub(super) fn with_cookie<T>(
    head: &(impl Headers + ?Sized),
    name: &str,
    make: impl Fn(&str) -> T,
) -> Option<T> {
    let mut found = None;
    head.each(&mut |field, value| {
        if field.is("cookie")
            && let Ok(text) = std::str::from_utf8(value)
        {
            for pair in text.split(';') {
                if let Some((key, value)) = pair.trim().split_once('=')
                    && key == name
                {
                    found.get_or_insert_with(|| make(value));
                }
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::RequestHead;
    use crate::transport::h1::head::Head;

    #[test]
    fn a_cookie_is_found_among_others() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1; TIDEGATE=00ff; b=2\r\n\r\n";
        let head = Head::parse(text, 10).unwrap();
        assert_eq!(cookie(&head, "TIDEGATE").as_deref(), Some("00ff"));
        assert_eq!(cookie(&head, "TIDE"), None);
        assert_eq!(head.path(), "/");
    }
}
