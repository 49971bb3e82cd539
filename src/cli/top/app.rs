//! What is on the screen, and what a key does to it. Knows neither a terminal nor a socket.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{Key, Row, Tab, Wish, rows};
use super::seen::Seen;
use super::text::plain;

/// Longest filter, in characters.
const FILTER_MAX: usize = 64;
/// Rows that a page moves.
const PAGE: isize = 10;
/// What an operator does who may only look.
const READ_ONLY: &str = "this connection may only read (admin.socket_level)";

/// What is to be done at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deed {
    /// The pool's name.
    pub(super) pool: String,
    /// The endpoint's name.
    pub(super) endpoint: String,
    /// What.
    pub(super) verb: Verb,
}

/// What can be done at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Give it nothing new.
    Drain,
    /// Let it take what comes.
    Ready,
    /// Take it out now.
    Maint,
}

impl Verb {
    /// Its word in the API.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Ready => "ready",
            Self::Maint => "maint",
        }
    }
}

impl Deed {
    /// What is asked before it is done.
    pub(super) fn question(&self) -> String {
        let name = plain(&format!("{}/{}", self.pool, self.endpoint));
        match self.verb {
            Verb::Drain => {
                format!("drain {name}? It gets nothing new, and is out when all it has is over")
            }
            Verb::Ready => format!("ready {name}? It takes what comes"),
            Verb::Maint => {
                format!("maint {name}? It gets nothing, and what is open on it ends now")
            }
        }
    }
}

/// What a key asks of whoever runs this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Leave.
    Quit,
    /// Do this.
    Do(Deed),
    /// Sessions are looked at from now on, or no more.
    Sessions(bool),
}

/// What the operator does with the keyboard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Goes about.
    #[default]
    Going,
    /// Types a filter.
    Typing,
    /// Is asked whether this is to be done.
    Asked(Deed),
    /// Reads what the keys do.
    Helped,
}

/// One view: which rows of it, and where in them.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Which rows are shown.
    pub(super) wish: Wish,
    /// What the selected row is about; the first row, if there is none about it.
    selected: Option<Key>,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct App {
    /// The last look that brought something.
    pub(super) seen: Seen,
    /// Requests per second, as far as is known.
    pub(super) rate: Option<f64>,
    /// Why the process cannot be reached, if it cannot.
    pub(super) lost: Option<String>,
    /// What came of the last operation, until the next key.
    pub(super) said: Option<String>,
    /// How long ago the last look was.
    pub(super) silent_for: Duration,
    /// How often it is looked.
    pub(super) interval: Duration,
    /// What is looked at.
    pub(super) tab: Tab,
    /// What the keyboard does.
    pub(super) mode: Mode,
    views: [View; Tab::ALL.len()],
}

impl App {
    /// A screen that shows a first look.
    pub(super) fn new(seen: Seen, interval: Duration) -> Self {
        Self {
            seen,
            rate: None,
            lost: None,
            said: None,
            silent_for: Duration::ZERO,
            interval,
            tab: Tab::Endpoints,
            mode: Mode::Going,
            views: Default::default(),
        }
    }

    /// Takes the next look.
    pub(super) fn see(&mut self, seen: Seen) {
        self.rate = seen.rate_since(&self.seen);
        let before = self.seen.sessions.take();
        self.seen = seen;
        // A look that was under way when the view was changed brings none.
        self.seen.sessions = self.seen.sessions.take().or(before);
        self.lost = None;
        self.silent_for = Duration::ZERO;
    }

    /// Notes that a look has brought nothing.
    pub(super) fn lose(&mut self, why: &str) {
        self.lost = Some(plain(why));
        self.rate = None;
    }

    /// Notes what came of an operation.
    pub(super) fn say(&mut self, text: &str) {
        self.said = Some(plain(text));
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) {
        self.silent_for = now.saturating_duration_since(self.seen.at);
    }

    /// Is what is shown older than it should be?
    pub(super) fn is_stale(&self) -> bool {
        self.lost.is_some() || self.silent_for > self.interval * 2 + Duration::from_secs(1)
    }

    /// The view that is looked at.
    pub(super) fn view(&self) -> &View {
        &self.views[self.tab as usize]
    }

    fn view_mut(&mut self) -> &mut View {
        &mut self.views[self.tab as usize]
    }

    /// The rows that are looked at, how many there are without the filter, and which is selected.
    pub(super) fn rows(&self) -> (Vec<Row>, usize, usize) {
        let view = self.view();
        let (rows, all) = rows(&self.seen, self.tab, &view.wish);
        let is_it = |row: &Row| Some(&row.key) == view.selected.as_ref();
        let selected = rows.iter().position(is_it).unwrap_or_default();
        (rows, all, selected)
    }

    /// Does what a key says; what is left to do for whoever runs this.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Order> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.said = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c')).then_some(Order::Quit);
        }
        match std::mem::take(&mut self.mode) {
            Mode::Going => self.go(key.code),
            Mode::Typing => {
                self.type_on(key.code);
                None
            }
            Mode::Asked(deed) => self.answer(key.code, deed),
            // Any key leads back.
            Mode::Helped => None,
        }
    }

    fn go(&mut self, key: KeyCode) -> Option<Order> {
        match key {
            KeyCode::Char('q') => return Some(Order::Quit),
            KeyCode::Char('?') => self.mode = Mode::Helped,
            KeyCode::Char('/') => self.mode = Mode::Typing,
            KeyCode::Esc => self.view_mut().wish.filter.clear(),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => return self.turn(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => {
                return self.turn(Tab::ALL.len() - 1);
            }
            KeyCode::Char(digit @ '1'..='3') => {
                let at = (digit as usize) - ('1' as usize);
                return self.show(Tab::ALL[at]);
            }
            KeyCode::Enter => return self.enter(),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Char('s') => self.sort_on(),
            KeyCode::Char('S') => {
                let wish = &mut self.view_mut().wish;
                wish.is_reversed = !wish.is_reversed;
            }
            KeyCode::Char('d') => self.ask(Verb::Drain),
            KeyCode::Char('r') => self.ask(Verb::Ready),
            KeyCode::Char('m') => self.ask(Verb::Maint),
            _ => {}
        }
        None
    }

    fn turn(&mut self, by: usize) -> Option<Order> {
        self.show(Tab::ALL[(self.tab as usize + by) % Tab::ALL.len()])
    }

    fn show(&mut self, tab: Tab) -> Option<Order> {
        let had = self.tab == Tab::Sessions;
        self.tab = tab;
        let has = tab == Tab::Sessions;
        (had != has).then_some(Order::Sessions(has))
    }

    /// From a pool to its endpoints, from an endpoint to its sessions.
    fn enter(&mut self) -> Option<Order> {
        let (rows, _, selected) = self.rows();
        let (tab, filter) = match &rows.get(selected)?.key {
            Key::Pool(pool) => (Tab::Endpoints, format!("{pool}/")),
            Key::Endpoint(pool, endpoint) => (Tab::Sessions, format!("{pool}/{endpoint}")),
            Key::Session(_) => return None,
        };
        let order = self.show(tab);
        self.view_mut().wish.filter = filter;
        order
    }

    fn step(&mut self, by: isize) {
        let (rows, _, selected) = self.rows();
        let last = rows.len().saturating_sub(1);
        let at = selected.saturating_add_signed(by).min(last);
        self.view_mut().selected = rows.get(at).map(|row| row.key.clone());
    }

    /// The order of the configuration, then by each column.
    fn sort_on(&mut self) {
        let columns = self.tab.columns().len();
        let wish = &mut self.view_mut().wish;
        wish.sort = match wish.sort {
            None => Some(0),
            Some(column) => Some(column + 1).filter(|next| *next < columns),
        };
    }

    fn type_on(&mut self, key: KeyCode) {
        let filter = &mut self.view_mut().wish.filter;
        match key {
            KeyCode::Enter => return,
            KeyCode::Esc => return filter.clear(),
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(char) if !char.is_control() && filter.chars().count() < FILTER_MAX => {
                filter.push(char);
            }
            _ => {}
        }
        self.mode = Mode::Typing;
    }

    fn ask(&mut self, verb: Verb) {
        let (rows, _, selected) = self.rows();
        let Some(Key::Endpoint(pool, endpoint)) = rows.into_iter().nth(selected).map(|row| row.key)
        else {
            return self.say("select an endpoint first: key 1, then up and down");
        };
        if self.seen.status.process.level != "operate" {
            return self.say(READ_ONLY);
        }
        self.mode = Mode::Asked(Deed {
            pool,
            endpoint,
            verb,
        });
    }

    fn answer(&mut self, key: KeyCode, deed: Deed) -> Option<Order> {
        match key {
            KeyCode::Char('y' | 'Y') => Some(Order::Do(deed)),
            _ => {
                self.say("nothing was done");
                None
            }
        }
    }
}
