//! Pools and endpoints as rows of text, for spreadsheets and for scripts that read HAProxy's.
//!
//! The first row has the names of the columns. They stay in this order; later versions add theirs at
//! the end. A value is quoted where it has to be (RFC 4180), a line ends with a line feed alone, and
//! what is not known or does not apply is empty.

use super::view::{Endpoint, Pool};

/// A column: its name, what it says of an endpoint, and what it says of a pool.
type Column = (&'static str, fn(&Endpoint) -> String, fn(&Pool) -> String);

const COLUMNS: [Column; 22] = [
    ("endpoint", |e| e.name.clone(), |_| String::new()),
    ("address", |e| e.address.clone(), |_| String::new()),
    ("resolved", |e| text(e.resolved.as_ref()), |_| String::new()),
    ("state", |e| e.state.clone(), |p| usable(p).to_owned()),
    ("health", |e| e.health.state.clone(), |_| String::new()),
    (
        "reason",
        |e| text(e.health.reason.as_ref()),
        |_| String::new(),
    ),
    (
        "for_seconds",
        |e| text(e.health.for_seconds),
        |_| String::new(),
    ),
    ("admin", |e| e.admin.state.clone(), |_| String::new()),
    ("set_by", |e| e.admin.set_by.clone(), |_| String::new()),
    (
        "out_in_seconds",
        |e| text(e.admin.out_in_seconds),
        |_| String::new(),
    ),
    (
        "configured",
        |e| u8::from(e.configured).to_string(),
        |_| String::new(),
    ),
    (
        "backup",
        |e| u8::from(e.backup).to_string(),
        |_| String::new(),
    ),
    (
        "weight",
        |e| e.weight.to_string(),
        |p| sum(p, |e| e.weight.into()),
    ),
    (
        "sessions",
        |e| e.sessions.to_string(),
        |p| p.sessions.to_string(),
    ),
    (
        "in_flight",
        |e| e.in_flight.to_string(),
        |p| p.in_flight.to_string(),
    ),
    (
        "max_in_flight",
        |e| text(e.max_in_flight),
        |_| String::new(),
    ),
    ("waiting", |_| String::new(), |p| p.waiting.to_string()),
    (
        "ejections",
        |e| e.ejections.to_string(),
        |p| sum(p, |e| e.ejections),
    ),
    (
        "failures_in_row",
        |e| e.failures_in_row.to_string(),
        |_| String::new(),
    ),
    ("breaker", |e| e.breaker.state.clone(), |_| String::new()),
    (
        "openings",
        |e| e.breaker.openings.to_string(),
        |p| sum(p, |e| e.breaker.openings),
    ),
    (
        "endpoints_up",
        |e| u8::from(e.state == "up").to_string(),
        |p| up(p).to_string(),
    ),
];

/// A row for each endpoint, and one for its pool behind them.
pub fn pools(pools: &[Pool]) -> String {
    let mut lines = line("pool", COLUMNS.iter().map(|(name, ..)| (*name).to_owned()));
    for pool in pools {
        for endpoint in &pool.endpoints {
            lines += &line(&pool.name, COLUMNS.iter().map(|(_, of, _)| of(endpoint)));
        }
        lines += &line(&pool.name, COLUMNS.iter().map(|(_, _, of)| of(pool)));
    }
    lines
}

/// Endpoints of a pool that take what comes.
pub fn up(pool: &Pool) -> usize {
    let endpoints = pool.endpoints.iter();
    endpoints.filter(|endpoint| endpoint.state == "up").count()
}

/// The state of a pool in one word.
pub fn usable(pool: &Pool) -> &'static str {
    if pool.usable { "up" } else { "down" }
}

fn sum(pool: &Pool, of: fn(&Endpoint) -> u64) -> String {
    let each = pool.endpoints.iter().map(of);
    each.sum::<u64>().to_string()
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn line(first: &str, rest: impl Iterator<Item = String>) -> String {
    let mut line = cell(first);
    for value in rest {
        line.push(',');
        line += &cell(&value);
    }
    line.push('\n');
    line
}

fn cell(value: &str) -> String {
    match value.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        let endpoint = |name: &str, state: &str, reason: Option<&str>| {
            serde_json::json!({
                "name": name, "address": "10.0.0.1:9", "resolved": null, "configured": true,
                "backup": false, "state": state,
                "health": { "state": state, "reason": reason, "for_seconds": 7 },
                "admin": { "state": "up", "set_by": "config", "out_in_seconds": null },
                "weight": 3, "weight_configured": 3,
                "max_in_flight": null, "max_in_flight_configured": null,
                "sessions": 4, "in_flight": 5, "ejected": false, "ejections": 6,
                "failures_in_row": 0, "breaker": { "state": "closed", "openings": 1 },
                "facts": { "issues_sessions": null, "session_era": null, "stateless_era": null },
            })
        };
        let pool = serde_json::json!({
            "name": "weather", "kind": "mcp", "balance": "random", "usable": true,
            "sessions": 8, "in_flight": 10, "waiting": 2,
            "endpoints": [
                endpoint("a", "up", None),
                endpoint("b", "down", Some("it said \"no\", twice\nand left")),
            ],
        });
        serde_json::from_value(pool).expect("a pool")
    }

    #[test]
    fn every_endpoint_and_every_pool_has_a_row_with_all_columns() {
        let text = pools(&[pool()]);
        assert!(text.starts_with("pool,endpoint,address,resolved,state,"));
        let of_a = "weather,a,10.0.0.1:9,,up,up,,7,up,config,,1,0,3,4,5,,,6,0,closed,1,1\n";
        assert!(text.contains(of_a), "{text}");
        let of_all = "\nweather,,,,up,,,,,,,,,6,8,10,,2,12,,,2,1\n";
        assert!(text.ends_with(of_all), "{text}");
        let commas = |line: &str| line.matches(',').count();
        let rows: Vec<&str> = [text.lines().next(), text.lines().last()]
            .into_iter()
            .flatten()
            .collect();
        assert!(
            rows.iter().all(|row| commas(row) == COLUMNS.len()),
            "{text}"
        );
    }

    #[test]
    fn a_value_that_would_be_taken_for_more_than_one_is_quoted() {
        let text = pools(&[pool()]);
        assert!(
            text.contains(",\"it said \"\"no\"\", twice\nand left\","),
            "{text}"
        );
        assert_eq!(cell("plain text"), "plain text");
    }
}
