//! What was seen as rows: one table for each view, found by a filter and put in order.

use std::cmp::Ordering;

use super::seen::{Owned, Seen};
use super::text::{UNKNOWN, plain, short_time};
use crate::cli::table::{time, why};
use crate::server::admin::csv;
use crate::server::admin::view::{Endpoint, Pool};

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    /// Each endpoint of each pool.
    Endpoints,
    /// Each pool as a whole.
    Pools,
    /// Live sessions.
    Sessions,
}

impl Tab {
    /// All of them, in their order on the screen.
    pub(super) const ALL: [Self; 3] = [Self::Endpoints, Self::Pools, Self::Sessions];

    /// Its name on the screen.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Endpoints => "Endpoints",
            Self::Pools => "Pools",
            Self::Sessions => "Sessions",
        }
    }

    /// Its columns.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Endpoints => &ENDPOINTS,
            Self::Pools => &POOLS,
            Self::Sessions => &SESSIONS,
        }
    }
}

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    /// Its title.
    pub(super) title: &'static str,
    /// Where there is no room for all columns, those with the lowest rank go first.
    pub(super) rank: u8,
    /// Are its cells set flush right, as numbers are?
    pub(super) is_number: bool,
    /// How narrow it may be made for others to find room, in columns of the screen; none where what it
    /// shows means nothing unless all of it is there.
    pub(super) least: Option<usize>,
}

const fn text(title: &'static str, rank: u8) -> Column {
    Column {
        title,
        rank,
        is_number: false,
        least: None,
    }
}

const fn long(title: &'static str, rank: u8, least: usize) -> Column {
    Column {
        least: Some(least),
        ..text(title, rank)
    }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column {
        is_number: true,
        ..text(title, rank)
    }
}

const ENDPOINTS: [Column; 10] = [
    long("ENDPOINT", 10, 16),
    text("STATE", 9),
    number("FOR", 3),
    number("WEIGHT", 2),
    number("SESSIONS", 5),
    number("IN FLIGHT", 6),
    number("P50", 1),
    number("P99", 4),
    number("ERRORS", 7),
    long("WHY", 8, 12),
];

const POOLS: [Column; 8] = [
    long("POOL", 9, 16),
    text("STATE", 8),
    number("UP", 7),
    number("SESSIONS", 5),
    number("IN FLIGHT", 6),
    number("WAITING", 4),
    text("BALANCE", 2),
    text("KIND", 1),
];

const SESSIONS: [Column; 8] = [
    text("SESSION", 8),
    long("ENDPOINT", 7, 12),
    number("AGE", 5),
    number("IDLE", 4),
    number("STREAMS", 3),
    long("CLIENT", 6, 12),
    text("ERA", 2),
    text("REVISION", 1),
];

/// How much something wants to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    /// All is well.
    Well,
    /// Somebody wants it so, or nothing is known.
    Aside,
    /// It could be better.
    Watch,
    /// It is ill.
    Ill,
}

/// One cell: what it shows, and what it counts for in an order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// What is shown. Nothing in it moves the cursor.
    pub(super) text: String,
    /// Cells with a number come before those without, the largest first.
    weight: Option<f64>,
}

impl Cell {
    fn text(text: &str) -> Self {
        Self {
            text: plain(text),
            weight: None,
        }
    }

    fn count(count: impl Into<u64>) -> Self {
        let count = count.into();
        Self::weighed(count.to_string(), count as f64)
    }

    fn age(seconds: Option<u64>) -> Self {
        seconds.map_or_else(Self::unknown, |age| Self::weighed(time(age), age as f64))
    }

    fn short(seconds: Option<f64>) -> Self {
        seconds.map_or_else(Self::unknown, |taken| {
            Self::weighed(short_time(taken), taken)
        })
    }

    fn unknown() -> Self {
        Self::text(UNKNOWN)
    }

    fn weighed(text: String, weight: f64) -> Self {
        Self {
            text: plain(&text),
            weight: Some(weight),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.weight, other.weight) {
            (Some(own), Some(others)) => others.total_cmp(&own),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.text.cmp(&other.text),
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// What it is about: the same from one look to the next.
    pub(super) key: Key,
    /// As many as the table has columns.
    pub(super) cells: Vec<Cell>,
    /// How it is.
    pub(super) mood: Mood,
}

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// An endpoint of a pool.
    Endpoint(String, String),
    /// A pool.
    Pool(String),
    /// A session, by its hash.
    Session(String),
}

/// Which rows, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// What has to stand in one of its cells, whatever its case.
    pub(super) filter: String,
    /// The column by which they are ordered; none for the order of the configuration.
    pub(super) sort: Option<usize>,
    /// The other way round.
    pub(super) is_reversed: bool,
}

/// The rows of a view that are wished for, and how many there were to choose from.
pub(super) fn rows(seen: &Seen, tab: Tab, wish: &Wish) -> (Vec<Row>, usize) {
    let mut rows = all(seen, tab);
    let before = rows.len();
    let wanted = wish.filter.to_lowercase();
    rows.retain(|row| {
        let mut cells = row.cells.iter();
        cells.any(|cell| cell.text.to_lowercase().contains(&wanted))
    });
    if let Some(column) = wish.sort {
        rows.sort_by(|one, other| one.cells[column].compare(&other.cells[column]));
    }
    if wish.is_reversed {
        rows.reverse();
    }
    (rows, before)
}

fn all(seen: &Seen, tab: Tab) -> Vec<Row> {
    let pools = seen.status.pools.iter();
    match tab {
        Tab::Endpoints => pools
            .flat_map(|pool| pool.endpoints.iter().map(|one| endpoint(pool, one)))
            .collect(),
        Tab::Pools => pools.map(pool).collect(),
        Tab::Sessions => seen
            .sessions
            .iter()
            .flat_map(|page| &page.sessions)
            .map(session)
            .collect(),
    }
}

fn endpoint(pool: &Pool, endpoint: &Endpoint) -> Row {
    let mood = mood(&endpoint.state);
    let in_flight = match endpoint.max_in_flight {
        Some(max) => format!("{}/{max}", endpoint.in_flight),
        None => endpoint.in_flight.to_string(),
    };
    Row {
        key: Key::Endpoint(pool.name.clone(), endpoint.name.clone()),
        cells: vec![
            Cell::text(&format!("{}/{}", pool.name, endpoint.name)),
            Cell::weighed(endpoint.state.clone(), f64::from(mood as u8)),
            Cell::age(endpoint.health.for_seconds),
            Cell::count(endpoint.weight),
            Cell::count(endpoint.sessions),
            Cell::weighed(in_flight, endpoint.in_flight.into()),
            Cell::short(endpoint.first_byte_p50_seconds),
            Cell::short(endpoint.first_byte_p99_seconds),
            Cell::count(endpoint.failures),
            Cell::text(&why(endpoint)),
        ],
        mood,
    }
}

/// How an endpoint is whose state has this name. States that later versions add are to be looked at.
fn mood(state: &str) -> Mood {
    match state {
        "up" => Mood::Well,
        "maint" | "drain" | "unchecked" => Mood::Aside,
        "down" | "open" | "unresolved" => Mood::Ill,
        _ => Mood::Watch,
    }
}

fn pool(pool: &Pool) -> Row {
    let up = csv::up(pool);
    let mood = match (pool.usable, up == pool.endpoints.len()) {
        (false, _) => Mood::Ill,
        (true, false) => Mood::Watch,
        (true, true) => Mood::Well,
    };
    Row {
        key: Key::Pool(pool.name.clone()),
        cells: vec![
            Cell::text(&pool.name),
            Cell::weighed(csv::usable(pool).to_owned(), f64::from(mood as u8)),
            Cell::weighed(format!("{up}/{}", pool.endpoints.len()), up as f64),
            Cell::count(pool.sessions as u64),
            Cell::count(pool.in_flight),
            Cell::count(pool.waiting as u64),
            Cell::text(&pool.balance),
            Cell::text(&pool.kind),
        ],
        mood,
    }
}

fn session(owned: &Owned) -> Row {
    let session = &owned.session;
    let known = |text: &str| match text {
        "" => Cell::unknown(),
        text => Cell::text(text),
    };
    Row {
        key: Key::Session(session.id.clone()),
        cells: vec![
            Cell::text(&session.id),
            Cell::text(&format!("{}/{}", session.pool, session.endpoint)),
            Cell::age(Some(session.age_seconds)),
            Cell::age(Some(session.idle_seconds)),
            Cell::count(session.open_streams),
            known(&owned.client()),
            known(&owned.era),
            known(&session.revision),
        ],
        mood: Mood::Well,
    }
}
