//! The cookie that keeps a browser on its endpoint, on routes of plain HTTP.

use std::sync::Arc;

use super::edge;
use super::state::PoolState;
use crate::config::Config;
use crate::pool::{Admin, Endpoint, HealthState};
use crate::transport::dress::Dress;
use crate::transport::fields::Name;
use crate::transport::{ConnInfo, Headers, RequestHead};

/// The cookie of a pool, as it is with one request.
pub(super) struct Cookie {
    /// Its name, where the pool has one.
    name: Option<String>,
    /// The endpoint that the client's cookie names, if it may still be used.
    pub wanted: Option<Arc<Endpoint>>,
    /// What is left of the client's cookies without ours, if that was among them: the server has no
    /// use for it.
    pub others: Option<String>,
    is_secure: bool,
}

impl Cookie {
    /// Looks for the pool's cookie in a request.
    pub(super) fn of(
        config: &Config,
        pool: &PoolState,
        head: &impl RequestHead,
        info: &ConnInfo,
    ) -> Self {
        let Some(name) = &pool.config.affinity_cookie else {
            return Self::none();
        };
        let (value, others) = taken_out(head, name);
        let id = value.and_then(|value| u64::from_str_radix(&value, 16).ok());
        let endpoint = id.and_then(|id| pool.pool.find(id));
        // A cookie is a wish: where an endpoint says that it wants no more, its browsers lose nothing
        // by going elsewhere.
        let usable = |endpoint: &&Arc<Endpoint>| {
            let is_away = matches!(endpoint.health(), HealthState::Down | HealthState::Unwell);
            !is_away && endpoint.admin() != Admin::Maint
        };
        Self {
            name: Some(name.clone()),
            wanted: endpoint.filter(usable).cloned(),
            others,
            is_secure: edge::is_tls(config, head, info),
        }
    }

    /// Of a pool that has none.
    pub(super) fn none() -> Self {
        Self {
            name: None,
            wanted: None,
            others: None,
            is_secure: false,
        }
    }

    /// The fields that tell a client which endpoint it has come to, unless it knows. No cache may keep
    /// an answer with a cookie in it for others, unless the route says what caches may do.
    pub(super) fn told(&self, endpoint: u64, dress: &Dress) -> Vec<(&'static str, String)> {
        let knows = self.wanted.as_ref().map(|wanted| wanted.id()) == Some(endpoint);
        let Some(name) = self.name.as_ref().filter(|_| !knows) else {
            return Vec::new();
        };
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie = format!("{name}={endpoint:016x}; Path=/; HttpOnly; SameSite=Lax{secure}");
        let mut told = vec![("set-cookie", cookie)];
        let route = dress.response.as_ref();
        if route.is_none_or(|route| !route.leaves(Name::new(b"cache-control"))) {
            told.push(("cache-control", "private".to_owned()));
        }
        told
    }
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
            && let Ok(text) = str::from_utf8(value)
        {
            let pairs = text
                .split(';')
                .filter_map(|pair| pair.trim().split_once('='));
            for (_, value) in pairs.filter(|(key, _)| *key == name) {
                found.get_or_insert_with(|| make(value));
            }
        }
    });
    found
}

/// The value of the first cookie of this name, and the cookies without any of this name; nothing of
/// both if there is none.
fn taken_out(head: &impl Headers, name: &str) -> (Option<String>, Option<String>) {
    let mut found = None;
    let mut others = String::new();
    head.each(&mut |field, value| {
        let Some(text) = str::from_utf8(value).ok().filter(|_| field.is("cookie")) else {
            return;
        };
        for pair in text
            .split(';')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            match pair.split_once('=') {
                Some((key, value)) if key == name => {
                    found.get_or_insert_with(|| value.to_owned());
                }
                _ => {
                    let between = if others.is_empty() { "" } else { "; " };
                    others.push_str(between);
                    others.push_str(pair);
                }
            }
        }
    });
    let others = found.is_some().then_some(others);
    (found, others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::h1::head::Head;

    #[test]
    fn a_cookie_is_found_among_others() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1; TIDEGATE=00ff; b=2\r\n\r\n";
        let head = Head::parse(text, 10).unwrap();
        let (value, others) = taken_out(&head, "TIDEGATE");
        assert_eq!(value.as_deref(), Some("00ff"));
        assert_eq!(others.as_deref(), Some("a=1; b=2"));
        assert_eq!(taken_out(&head, "TIDE"), (None, None));
    }
}
