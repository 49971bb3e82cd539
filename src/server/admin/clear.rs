//! Ending many sessions at once: those of a pool, of an endpoint, or all.

use super::api::{Refusal, Reply, Request, allow, shown, unescape};
use super::audit::Audit;
use super::view::Cleared;
use crate::server::operator::{Operator, Which};

/// Ends the sessions that a query means.
pub(super) fn sessions(operator: &Operator, request: &Request<'_>) -> Reply {
    let which = which(request.query.unwrap_or_default());
    let object = which.as_ref().map_or_else(|_| String::new(), named);
    let audit = Audit::new(request.peer, "end_sessions", object);
    let end = || {
        allow(request.level)?;
        let which = which?;
        is_there(operator, &which)?;
        Ok(operator.end_sessions(&which))
    };
    let ended = end().map_err(|refusal| audit.refused(refusal))?;
    audit.done(&format!("{ended} sessions"), None);
    shown(&Cleared { ended })
}

/// What a query means. One that says nothing means nothing: all are ended only where it says so.
fn which(query: &str) -> Result<Which, Refusal> {
    let (mut which, mut all) = (Which::default(), false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescape(value).ok_or_else(|| Refusal::Bad("malformed query".to_owned()))?;
        match (name, value.as_str()) {
            ("pool" | "endpoint", "") => return Err(Refusal::Bad(format!("{name} is a name"))),
            ("pool", _) => which.pool = Some(value),
            ("endpoint", _) => which.endpoint = Some(value),
            ("all", "true") => all = true,
            ("all", _) => return Err(Refusal::Bad("all is true, or not there".to_owned())),
            _ => return Err(Refusal::Bad(format!("unknown parameter {name}"))),
        }
    }
    let is_all = which == Which::default();
    match (is_all, all) {
        (true, false) => Err(Refusal::Bad(
            "say which: pool, endpoint or both; or all=true".to_owned(),
        )),
        (false, true) => Err(Refusal::Bad("all goes with no other".to_owned())),
        _ => Ok(which),
    }
}

fn named(which: &Which) -> String {
    match (&which.pool, &which.endpoint) {
        (None, None) => "all".to_owned(),
        (Some(pool), None) => pool.clone(),
        (pool, Some(endpoint)) => format!("{}/{endpoint}", pool.as_deref().unwrap_or("*")),
    }
}

/// A name that nothing has is a slip, and not the name of nothing.
fn is_there(operator: &Operator, which: &Which) -> Result<(), Refusal> {
    let snapshot = operator.shared.snapshot.load();
    let named =
        |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    let mut pools = snapshot.all_pools();
    let is_found = pools.any(|pool| {
        let mut endpoints = pool.pool.endpoints().iter();
        let has = endpoints.any(|endpoint| named(&which.endpoint, endpoint.name()));
        named(&which.pool, pool.pool.name()) && (has || which.endpoint.is_none())
    });
    match is_found || *which == Which::default() {
        true => Ok(()),
        false => Err(Refusal::NotFound(match &which.endpoint {
            Some(_) => format!("endpoint {}", self::named(which)),
            None => format!("pool {}", self::named(which)),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sessions_are_meant_only_where_that_is_said() {
        let right = |query| named(&which(query).expect(query));
        assert_eq!(right("pool=weather"), "weather");
        assert_eq!(right("pool=weather&endpoint=a%2Fb"), "weather/a/b");
        assert_eq!(right("endpoint=w1"), "*/w1");
        assert_eq!(right("all=true"), "all");
        for wrong in [
            "",
            "&",
            "all=false",
            "all",
            "all=1",
            "pool=",
            "pool=a&endpoint=",
            "pool=a&all=true",
            "poll=a",
            "pool=%zz",
        ] {
            assert!(matches!(which(wrong), Err(Refusal::Bad(_))), "{wrong}");
        }
    }
}
