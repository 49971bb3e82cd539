//! Answers as tables for people.

use crate::server::admin::csv;
use crate::server::admin::view::{Endpoint, Pool, Session, Status};

/// Columns of texts under their titles, each as wide as it has to be.
fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([titles[at].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut text = line(&mut titles.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Everything about a process.
pub(super) fn status(status: &Status) -> String {
    let process = &status.process;
    let totals = &status.totals;
    let waiting: usize = status.pools.iter().map(|pool| pool.waiting).sum();
    let mut text = format!(
        "tidegate {}  pid {}  up {}  {}, {}\n{} sessions  {} streams  {} calls in flight  {waiting} waiting\n\n",
        process.version,
        process.pid,
        time(process.uptime_seconds),
        process.phase,
        process.ready,
        totals.sessions,
        totals.streams,
        totals.calls,
    );
    let titles = [
        "ENDPOINT",
        "ADDRESS",
        "STATE",
        "FOR",
        "WEIGHT",
        "SESSIONS",
        "IN FLIGHT",
        "BREAKER",
        "WHY",
    ];
    let rows: Vec<Vec<String>> = status.pools.iter().flat_map(rows_of).collect();
    text.push_str(&table(&titles, &rows));
    let titles = [
        "POOL",
        "BALANCE",
        "STATE",
        "UP",
        "SESSIONS",
        "IN FLIGHT",
        "WAITING",
    ];
    let rows: Vec<Vec<String>> = status.pools.iter().map(row_of).collect();
    text.push('\n');
    text.push_str(&table(&titles, &rows));
    text
}

/// A pool as a whole.
fn row_of(pool: &Pool) -> Vec<String> {
    vec![
        pool.name.clone(),
        pool.balance.clone(),
        csv::usable(pool).to_owned(),
        format!("{}/{}", csv::up(pool), pool.endpoints.len()),
        pool.sessions.to_string(),
        pool.in_flight.to_string(),
        pool.waiting.to_string(),
    ]
}

fn rows_of(pool: &Pool) -> impl Iterator<Item = Vec<String>> + use<'_> {
    pool.endpoints.iter().map(|endpoint| {
        let limit = endpoint.max_in_flight;
        vec![
            format!("{}/{}", pool.name, endpoint.name),
            endpoint.address.clone(),
            endpoint.state.clone(),
            endpoint.health.for_seconds.map_or_else(String::new, time),
            endpoint.weight.to_string(),
            endpoint.sessions.to_string(),
            limit.map_or_else(
                || endpoint.in_flight.to_string(),
                |limit| format!("{}/{limit}", endpoint.in_flight),
            ),
            endpoint.breaker.state.clone(),
            why(endpoint),
        ]
    })
}

/// What keeps calls from an endpoint, or is about to, in words.
pub(super) fn why(endpoint: &Endpoint) -> String {
    let mut reasons = Vec::new();
    if !endpoint.configured {
        reasons.push("no longer configured".to_owned());
    } else if endpoint.admin.state != "up" {
        reasons.push(format!("by {}", endpoint.admin.set_by));
    }
    if let Some(left) = endpoint.admin.out_in_seconds {
        reasons.push(format!("out in {}", time(left)));
    }
    if endpoint.ejected {
        reasons.push(format!("ejected, {} times so far", endpoint.ejections));
    }
    if endpoint.backup {
        reasons.push("backup".to_owned());
    }
    reasons.extend(endpoint.health.reason.clone());
    reasons.join("; ")
}

/// A list of sessions.
pub(super) fn sessions(sessions: &[Session]) -> String {
    let titles = ["SESSION", "ENDPOINT", "REVISION", "AGE", "IDLE", "STREAMS"];
    let row = |session: &Session| {
        vec![
            session.id.clone(),
            format!("{}/{}", session.pool, session.endpoint),
            session.revision.clone(),
            time(session.age_seconds),
            time(session.idle_seconds),
            session.open_streams.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    table(&titles, &rows)
}

/// A time in its two largest units.
pub(super) fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (3599, "59m59s"),
            (3660, "1h01m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_does() {
        let rows = [
            vec!["a".to_owned(), "long one".to_owned()],
            vec!["längere".to_owned(), String::new()],
        ];
        let expected = "ONE      TWO\na        long one\nlängere\n";
        assert_eq!(table(&["ONE", "TWO"], &rows), expected);
    }
}
