//! What is on the screen after looks and keys, on a terminal that is a buffer.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

use super::app::{App, Deed, Mode, Order, Verb};
use super::draw::{Palette, draw};
use super::seen::Seen;

mod terminal;

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(name: &str, state: &str, changes: Value) -> Value {
    let mut endpoint = json!({
        "name": name, "address": "127.0.0.1:8001", "resolved": "127.0.0.1:8001", "configured": true,
        "backup": false, "state": state,
        "health": { "state": state, "reason": null, "for_seconds": 61 },
        "admin": { "state": "up", "set_by": "config", "out_in_seconds": null },
        "weight": 1, "weight_configured": 1, "max_in_flight": null, "max_in_flight_configured": null,
        "sessions": 0, "in_flight": 0, "ejected": false, "ejections": 0, "failures_in_row": 0,
        "breaker": { "state": "closed", "openings": 0 },
        "facts": { "issues_sessions": null, "session_era": null, "stateless_era": null },
    });
    for (field, value) in changes.as_object().expect("fields") {
        endpoint[field] = value.clone();
    }
    endpoint
}

fn pool(name: &str, usable: bool, endpoints: &[Value]) -> Value {
    json!({
        "name": name, "kind": "mcp", "balance": "least_load", "usable": usable, "sessions": 7,
        "in_flight": 2, "waiting": 3, "endpoints": endpoints,
    })
}

fn status(requests: u64, pools: &[Value]) -> Value {
    json!({
        "process": { "version": "0.1.0", "pid": 42, "uptime_seconds": 3700, "phase": "running",
                     "ready": "ready", "level": "operate" },
        "totals": { "sessions": 7, "streams": 5, "calls": 2, "requests": requests },
        "pools": pools,
    })
}

fn usual() -> Value {
    let refused = json!({ "state": "down", "reason": "connection refused", "for_seconds": 5 });
    status(
        100,
        &[
            pool(
                "weather",
                true,
                &[
                    endpoint(
                        "w1",
                        "up",
                        json!({ "sessions": 4, "in_flight": 2, "max_in_flight": 9,
                                "first_byte_p50_seconds": 0.012, "first_byte_p99_seconds": 0.25 }),
                    ),
                    endpoint("w2", "down", json!({ "health": refused, "failures": 8 })),
                ],
            ),
            pool(
                "files",
                false,
                &[endpoint("f1", "unwell", json!({ "sessions": 9 }))],
            ),
        ],
    )
}

fn session(id: &str, name: &str) -> Value {
    json!({
        "id": id, "pool": "weather", "endpoint": "w1", "revision": "2025-11-25", "age_seconds": 90,
        "idle_seconds": 3, "open_streams": 1, "era": "session", "client": { "name": name, "version": "1.2" },
    })
}

fn seen(at: Instant, status: Value, sessions: Option<Value>) -> Seen {
    let sessions = sessions.map(|list| json!({ "total": 5000, "sessions": list, "next": null }));
    Seen {
        at,
        status: serde_json::from_value(status).expect("a status"),
        sessions: sessions.map(|page| serde_json::from_value(page).expect("a page")),
    }
}

fn app(status: Value) -> App {
    App::new(seen(Instant::now(), status, None), SECOND)
}

fn cells(app: &App, palette: Palette, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    let drawn = terminal.draw(|frame| draw(frame, app, palette));
    drawn.expect("a buffer takes what is drawn");
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width.max(1));
    let rows = buffer.content.chunks(width);
    let line =
        |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    rows.map(|row| line(row).trim_end().to_owned()).collect()
}

fn screen(app: &App) -> Vec<String> {
    lines(&cells(app, Palette::Colours, 100, 30))
}

/// The only line with this text.
fn line_with(screen: &[String], text: &str) -> String {
    let found: Vec<&String> = screen.iter().filter(|line| line.contains(text)).collect();
    assert_eq!(found.len(), 1, "{text}: {screen:#?}");
    found[0].clone()
}

fn press(app: &mut App, code: KeyCode) -> Option<Order> {
    app.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn types(app: &mut App, text: &str) {
    for char in text.chars() {
        press(app, KeyCode::Char(char));
    }
}

#[test]
fn endpoints_are_shown_with_their_state_and_why() {
    let screen = screen(&app(usual()));
    let well = line_with(&screen, "weather/w1");
    for word in ["up", "1m01s", "2/9", "12ms", "250ms", ">"] {
        assert!(well.contains(word), "{word}: {well}");
    }
    let ill = line_with(&screen, "weather/w2");
    for word in ["down", "8", "connection refused", " - "] {
        assert!(ill.contains(word), "{word}: {ill}");
    }
    line_with(&screen, "pid 42  up 1h01m  running, ready");
    line_with(
        &screen,
        "- requests/s  7 sessions  5 streams  2 calls in flight  6 waiting",
    );
    line_with(&screen, "[1 Endpoints]");
}

#[test]
fn pools_are_shown_as_a_whole() {
    let mut app = app(usual());
    assert_eq!(press(&mut app, KeyCode::Char('2')), None);
    let screen = screen(&app);
    let files = line_with(&screen, "files");
    for word in ["down", "0/1", "7", "least_load", "mcp"] {
        assert!(files.contains(word), "{word}: {files}");
    }
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.rows().0.len(), 1, "the endpoints of that pool");
}

#[test]
fn without_colours_nothing_has_one_and_states_are_words_all_the_same() {
    let app = app(usual());
    let coloured = cells(&app, Palette::Colours, 100, 30);
    let plain = cells(&app, Palette::Plain, 100, 30);
    assert_eq!(
        lines(&coloured),
        lines(&plain),
        "colours add nothing that is said"
    );
    let is_coloured = |buffer: &Buffer| {
        let mut cells = buffer.content.iter();
        cells.any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(is_coloured(&coloured));
    assert!(!is_coloured(&plain));
    let bold = |buffer: &Buffer| {
        let cells = buffer.content.iter();
        cells
            .filter(|cell| cell.modifier.contains(Modifier::BOLD))
            .count()
    };
    assert!(bold(&plain) > 0, "what is ill stands out");
}

#[test]
fn any_size_of_a_terminal_is_drawn_on_and_shows_the_selected_row_first() {
    let mut app = app(usual());
    let deed = Deed {
        pool: "weather".to_owned(),
        endpoint: "w2".to_owned(),
        verb: Verb::Drain,
    };
    for tab in ['1', '2', '3'] {
        press(&mut app, KeyCode::Char(tab));
        let asked = Mode::Asked(deed.clone());
        for mode in [Mode::Typing, Mode::Helped, asked, Mode::Going] {
            app.mode = mode;
            for width in 0..90 {
                for height in [0, 1, 2, 3, 4, 5, 6, 7, 24] {
                    cells(&app, Palette::Colours, width, height);
                }
            }
        }
    }
    press(&mut app, KeyCode::Char('1'));
    press(&mut app, KeyCode::Down);
    for (width, height) in [(80, 24), (80, 8), (40, 4), (30, 2)] {
        let screen = lines(&cells(&app, Palette::Plain, width, height));
        let row = line_with(&screen, "weather/w2");
        assert!(row.starts_with("> weather/w2"), "{row}");
        assert!(row.contains("down"), "{width}x{height}: {row}");
    }
    let usual = lines(&cells(&app, Palette::Plain, 80, 24));
    let row = line_with(&usual, "weather/w2");
    assert!(row.contains("connection re"), "{row}");
}

#[test]
fn a_filter_keeps_rows_with_its_text_and_escape_brings_all_back() {
    let mut app = app(usual());
    types(&mut app, "/REFUSED");
    assert_eq!(app.mode, Mode::Typing);
    line_with(&screen(&app), "/REFUSED_");
    assert_eq!(app.rows().0.len(), 1);
    press(&mut app, KeyCode::Enter);
    line_with(&screen(&app), "1 of 3 with \"REFUSED\"");
    types(&mut app, "/q");
    press(&mut app, KeyCode::Enter);
    line_with(&screen(&app), "nothing has this text");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.rows().0.len(), 3);
}

#[test]
fn rows_are_sorted_by_each_column_in_turn_and_what_is_worst_or_most_comes_first() {
    let mut app = app(usual());
    let names = |app: &App| -> Vec<String> {
        let (rows, _, _) = app.rows();
        rows.iter().map(|row| row.cells[0].text.clone()).collect()
    };
    let configured = ["weather/w1", "weather/w2", "files/f1"];
    assert_eq!(names(&app), configured);
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(names(&app), ["files/f1", "weather/w1", "weather/w2"]);
    press(&mut app, KeyCode::Char('s'));
    line_with(&screen(&app), "by STATE");
    assert_eq!(names(&app), ["weather/w2", "files/f1", "weather/w1"]);
    types(&mut app, "sss");
    line_with(&screen(&app), "by SESSIONS");
    assert_eq!(names(&app), ["files/f1", "weather/w1", "weather/w2"]);
    press(&mut app, KeyCode::Char('S'));
    assert_eq!(names(&app), ["weather/w2", "weather/w1", "files/f1"]);
    press(&mut app, KeyCode::Char('S'));
    for _ in 0..app.tab.columns().len() - 4 {
        press(&mut app, KeyCode::Char('s'));
    }
    assert_eq!(names(&app), configured, "after the last column");
}

#[test]
fn the_selection_stays_with_what_it_is_about() {
    let mut app = app(usual());
    press(&mut app, KeyCode::Char('j'));
    let selected = |app: &App| {
        let (rows, _, selected) = app.rows();
        rows[selected].cells[0].text.clone()
    };
    assert_eq!(selected(&app), "weather/w2");
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(selected(&app), "weather/w2");
    for (key, name) in [
        ('G', "weather/w2"),
        ('k', "weather/w1"),
        ('g', "files/f1"),
        ('k', "files/f1"),
    ] {
        press(&mut app, KeyCode::Char(key));
        assert_eq!(selected(&app), name, "{key}");
    }
    let gone = status(
        101,
        &[pool("weather", true, &[endpoint("w1", "up", json!({}))])],
    );
    app.see(seen(Instant::now(), gone, None));
    assert_eq!(selected(&app), "weather/w1");
}

#[test]
fn nothing_is_done_before_the_question_is_answered_with_yes() {
    let mut app = app(usual());
    for (key, verb) in [('d', Verb::Drain), ('r', Verb::Ready), ('m', Verb::Maint)] {
        for no in [
            KeyCode::Char('n'),
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Char('q'),
        ] {
            assert_eq!(press(&mut app, KeyCode::Char(key)), None);
            line_with(&screen(&app), &format!("{} weather/w1?", verb.word()));
            assert_eq!(press(&mut app, no), None);
            line_with(&screen(&app), "nothing was done");
        }
        press(&mut app, KeyCode::Char(key));
        let deed = Deed {
            pool: "weather".to_owned(),
            endpoint: "w1".to_owned(),
            verb,
        };
        assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Order::Do(deed)));
    }
}

#[test]
fn who_may_only_read_is_told_so_and_not_asked() {
    let mut status = usual();
    status["process"]["level"] = json!("read");
    let mut app = app(status);
    line_with(&screen(&app), "read only");
    press(&mut app, KeyCode::Char('d'));
    line_with(&screen(&app), "may only read");
    assert_eq!(press(&mut app, KeyCode::Char('y')), None);
    press(&mut app, KeyCode::Char('2'));
    press(&mut app, KeyCode::Char('m'));
    line_with(&screen(&app), "select an endpoint first");
}

#[test]
fn requests_per_second_are_those_between_two_looks_at_one_process() {
    let begun = Instant::now();
    let mut app = App::new(seen(begun, usual(), None), SECOND);
    let look = |app: &mut App, at: u64, requests: u64, pid: u64| {
        let mut status = usual();
        status["totals"]["requests"] = json!(requests);
        status["process"]["pid"] = json!(pid);
        app.see(seen(begun + SECOND * at as u32, status, None));
    };
    look(&mut app, 2, 125, 42);
    line_with(&screen(&app), "12.5 requests/s");
    look(&mut app, 3, 2125, 42);
    line_with(&screen(&app), "2000 requests/s");
    look(&mut app, 4, 5, 43);
    line_with(&screen(&app), "- requests/s");
    look(&mut app, 5, 7, 43);
    line_with(&screen(&app), "2.0 requests/s");
}

#[test]
fn a_process_that_is_gone_or_silent_is_told_and_what_it_was_stays_to_be_seen() {
    let mut app = app(usual());
    let begun = app.seen.at;
    app.tick(begun + SECOND * 2);
    assert!(!screen(&app).iter().any(|line| line.contains("NO ANSWER")));
    app.tick(begun + SECOND * 9);
    line_with(&screen(&app), "NO ANSWER for 9s");
    app.lose("/run/admin.sock: nobody \x1b[31mlistens");
    let lost = line_with(
        &screen(&app),
        "CONNECTION LOST, as of 9s ago, trying again:",
    );
    assert!(lost.contains("nobody \\x1b[31mlistens"), "{lost}");
    line_with(&screen(&app), "weather/w1");
    app.see(seen(begun + SECOND * 10, usual(), None));
    app.tick(begun + SECOND * 10);
    assert!(!screen(&app).iter().any(|line| line.contains("LOST")));
}

#[test]
fn sessions_are_asked_for_while_they_are_looked_at() {
    let mut app = app(usual());
    assert_eq!(
        press(&mut app, KeyCode::BackTab),
        Some(Order::Sessions(true))
    );
    line_with(&screen(&app), "looking");
    let page = json!([
        session("aa-bb", "claude-code"),
        session("cc-dd", "inspector")
    ]);
    app.see(seen(Instant::now(), usual(), Some(page)));
    let row = line_with(&screen(&app), "cc-dd");
    for word in [
        "weather/w1",
        "1m30s",
        "3s",
        "inspector 1.2",
        "session",
        "2025-11-25",
    ] {
        assert!(row.contains(word), "{word}: {row}");
    }
    line_with(&screen(&app), "2 of 5000 looked at");
    assert_eq!(press(&mut app, KeyCode::Tab), Some(Order::Sessions(false)));
    press(&mut app, KeyCode::Char('3'));
    app.see(seen(Instant::now(), usual(), Some(json!([]))));
    line_with(&screen(&app), "no sessions");
}

#[test]
fn a_process_with_nothing_says_so() {
    let mut app = app(status(0, &[]));
    line_with(&screen(&app), "no endpoints");
    for key in [
        KeyCode::Down,
        KeyCode::Enter,
        KeyCode::Char('d'),
        KeyCode::Char('G'),
    ] {
        assert_eq!(press(&mut app, key), None, "{key:?}");
    }
    press(&mut app, KeyCode::Char('2'));
    line_with(&screen(&app), "no pools");
}

#[test]
fn what_a_client_calls_itself_cannot_reach_the_terminal_as_a_command() {
    let mut app = app(usual());
    press(&mut app, KeyCode::Char('3'));
    let page = json!([session(
        "aa-bb",
        "\x1b]0;owned\x07\x1b[2J\u{9b}1m\u{202e}evil"
    )]);
    app.see(seen(Instant::now(), usual(), Some(page)));
    let buffer = cells(&app, Palette::Colours, 200, 30);
    for cell in &buffer.content {
        assert!(
            !cell.symbol().contains(|char: char| char.is_control()),
            "{cell:?}"
        );
    }
    let row = line_with(&lines(&buffer), "aa-bb");
    assert!(
        row.contains("\\x1b]0;owned\\x07\\x1b[2J\\x9b1m\\u{202e}evil"),
        "{row}"
    );
}

#[test]
fn the_keys_are_told_and_leave_as_they_say() {
    let mut app = app(usual());
    press(&mut app, KeyCode::Char('?'));
    line_with(&screen(&app), "drain the selected endpoint");
    assert_eq!(
        press(&mut app, KeyCode::Char('q')),
        None,
        "back from the help"
    );
    assert_eq!(press(&mut app, KeyCode::Char('q')), Some(Order::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    types(&mut app, "/some");
    assert_eq!(app.press(interrupt), Some(Order::Quit));
}
