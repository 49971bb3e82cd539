//! The screen, drawn from a value onto cells.
//!
//! Nothing is told by a colour alone: a state is a word, the selected row has a sign before it, and what is
//! wrong is bold besides. Lines above and below the table go first where there is no room for all.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::app::{App, Mode};
use super::grid;
use super::rows::{Mood, Tab};
use super::text::{UNKNOWN, plain, rate};
use crate::cli::table::time;

/// With colours or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Palette {
    /// The terminal's own sixteen.
    Colours,
    /// Bold, dim and reversed alone (no-color.org).
    Plain,
}

impl Palette {
    /// How something in this mood looks.
    pub(super) fn mood(self, mood: Mood) -> Style {
        let (colour, modifier) = match mood {
            Mood::Well => (Color::Reset, Modifier::empty()),
            Mood::Aside => (Color::Cyan, Modifier::DIM),
            Mood::Watch => (Color::Yellow, Modifier::empty()),
            Mood::Ill => (Color::Red, Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        match self {
            Self::Colours => style.fg(colour),
            Self::Plain => style,
        }
    }
}

/// A line and how it looks.
type Line = (String, Style);

/// What the keys do.
const KEYS: [(&str, &str); 12] = [
    ("1 2 3, Tab, left, right", "endpoints, pools, sessions"),
    (
        "up, down, j, k",
        "select a row; page up, page down, g and G further",
    ),
    (
        "Enter",
        "from a pool to its endpoints, from an endpoint to its sessions",
    ),
    (
        "/",
        "show rows with this text alone; Enter keeps it, Esc shows all",
    ),
    (
        "s",
        "sort by the next column, and after the last as configured",
    ),
    ("S", "the other way round"),
    ("d", "drain the selected endpoint, after a question"),
    ("r", "ready: let it take what comes, after a question"),
    ("m", "maint: take it out now, after a question"),
    ("?", "this; any key leads back"),
    ("q", "leave"),
    (
        "",
        "ERRORS are failed calls since the start; P50 and P99 the time to the first byte",
    ),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, palette: Palette) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if app.mode == Mode::Helped {
        return help(buffer, area);
    }
    let (rows, all, selected) = app.rows();
    let (mut above, mut below) = (above(app, palette), below(app, palette));
    above.push(tabs(app, rows.len(), all));
    // Titles of columns and a row at least; what was asked or said goes last of all.
    while above.len() + below.len() + 2 > usize::from(area.height) {
        if below.len() > 1 {
            below.pop();
        } else if !above.is_empty() {
            above.remove(0);
        } else if below.pop().is_none() {
            break;
        }
    }
    let (top, bottom) = (above.len() as u16, below.len() as u16);
    lines(buffer, area, area.y, &above);
    lines(buffer, area, area.bottom().saturating_sub(bottom), &below);
    let middle = Rect {
        y: area.y + top.min(area.height),
        height: area.height.saturating_sub(top + bottom),
        ..area
    };
    if rows.is_empty() {
        let style = Style::new().add_modifier(Modifier::DIM);
        return lines(buffer, middle, middle.y, &[(nothing(app, all), style)]);
    }
    grid::draw(buffer, middle, app.tab.columns(), &rows, selected, palette);
    if app.is_stale() {
        // What stands there was so, and may be no more.
        buffer.set_style(middle, Style::new().add_modifier(Modifier::DIM));
    }
}

/// The process and its totals.
fn above(app: &App, palette: Palette) -> Vec<Line> {
    let process = &app.seen.status.process;
    let totals = &app.seen.status.totals;
    let waiting: usize = app.seen.status.pools.iter().map(|pool| pool.waiting).sum();
    let may = match process.level.as_str() {
        "operate" => "",
        _ => "  read only",
    };
    let mood = match (process.phase.as_str(), process.ready.as_str()) {
        ("running", "ready") => Mood::Well,
        _ => Mood::Watch,
    };
    let first = plain(&format!(
        "tidegate {}  pid {}  up {}  {}, {}{may}",
        process.version,
        process.pid,
        time(process.uptime_seconds),
        process.phase,
        process.ready,
    ));
    let second = format!(
        "{} requests/s  {} sessions  {} streams  {} calls in flight  {waiting} waiting",
        app.rate.map_or_else(|| UNKNOWN.to_owned(), rate),
        totals.sessions,
        totals.streams,
        totals.calls,
    );
    vec![(first, palette.mood(mood)), (second, Style::new())]
}

/// Which view this is, and which rows of it.
fn tabs(app: &App, shown: usize, all: usize) -> Line {
    let mut line = String::new();
    for (at, tab) in Tab::ALL.iter().enumerate() {
        let title = format!("{} {}", at + 1, tab.title());
        line.push_str(&match *tab == app.tab {
            true => format!("[{title}] "),
            false => format!(" {title}  "),
        });
    }
    let wish = &app.view().wish;
    let mut said = Vec::new();
    if !wish.filter.is_empty() {
        said.push(format!("{shown} of {all} with \"{}\"", plain(&wish.filter)));
    }
    if let Some(page) = app
        .seen
        .sessions
        .as_ref()
        .filter(|_| app.tab == Tab::Sessions)
        && page.total > all
    {
        said.push(format!("{all} of {} looked at", page.total));
    }
    let reversed = if wish.is_reversed { ", reversed" } else { "" };
    match wish.sort {
        Some(column) => {
            let title = app.tab.columns()[column].title;
            said.push(format!("by {title}{reversed}"));
        }
        None if wish.is_reversed => said.push("reversed".to_owned()),
        None => {}
    }
    line.push_str(&said.join("; "));
    (line, Style::new().add_modifier(Modifier::BOLD))
}

/// What is asked, typed, wrong or said, and what keys there are.
fn below(app: &App, palette: Palette) -> Vec<Line> {
    let loud = Style::new().add_modifier(Modifier::REVERSED);
    let ago = time(app.silent_for.as_secs());
    let mut below = Vec::new();
    match (&app.mode, &app.lost, &app.said) {
        (Mode::Asked(deed), _, _) => below.push((format!("{}. y/n ", deed.question()), loud)),
        (Mode::Typing, _, _) => {
            let filter = plain(&app.view().wish.filter);
            below.push((format!("/{filter}_"), loud));
        }
        (_, Some(why), _) => {
            let text = format!("CONNECTION LOST, as of {ago} ago, trying again: {why}");
            below.push((text, palette.mood(Mood::Ill)));
        }
        _ if app.is_stale() => {
            let text = format!("NO ANSWER for {ago}");
            below.push((text, palette.mood(Mood::Ill)));
        }
        (_, None, Some(said)) => below.push((said.clone(), loud)),
        (_, None, None) => {}
    }
    let keys = match app.tab {
        Tab::Endpoints => "q leave  tab view  / filter  s sort  d drain  r ready  m maint  ? help",
        Tab::Pools | Tab::Sessions => "q leave  tab view  / filter  s sort  ? help",
    };
    below.push((keys.to_owned(), Style::new().add_modifier(Modifier::DIM)));
    below
}

/// Why there is no row.
fn nothing(app: &App, all: usize) -> String {
    match (app.tab, all) {
        (_, 1..) => "nothing has this text; Esc shows all".to_owned(),
        (Tab::Sessions, _) if app.seen.sessions.is_none() => "looking".to_owned(),
        (Tab::Sessions, _) => "no sessions".to_owned(),
        (Tab::Endpoints, _) => "no endpoints".to_owned(),
        (Tab::Pools, _) => "no pools".to_owned(),
    }
}

fn help(buffer: &mut Buffer, area: Rect) {
    let wide = KEYS
        .iter()
        .map(|(keys, _)| keys.len())
        .max()
        .unwrap_or_default();
    let rows = KEYS.iter().map(|(keys, does)| {
        let line = format!("{keys:wide$}  {does}");
        (line, Style::new())
    });
    lines(buffer, area, area.y, &rows.collect::<Vec<_>>());
}

/// Lines from `y` on, as far as there is room.
fn lines(buffer: &mut Buffer, area: Rect, y: u16, lines: &[Line]) {
    for (row, (text, style)) in (y..area.bottom()).zip(lines) {
        let text = super::text::cut(text, area.width.into());
        buffer.set_string(area.x, row, text, *style);
    }
}
