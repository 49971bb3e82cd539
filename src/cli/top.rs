//! `tidegate top`: pools, endpoints and sessions, live on a terminal.
//!
//! What is shown is a value ([`app::App`]) that looks and keys change, and drawing is a function of it. Here
//! is what is left: the terminal, which is put back on every way out, and the loop.

use std::env;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};
use ratatui::{DefaultTerminal, try_init, try_restore};

use super::client::{Client, Error};
use super::complain;
use super::whom::Place;
use app::{App, Order};
use draw::{Palette, draw};
use leave::Told;
use look::{News, Task};

mod app;
mod draw;
mod grid;
mod leave;
mod look;
mod rows;
mod seen;
mod text;

#[cfg(test)]
mod tests;

/// Longest wait for a key before news and signals are looked for.
const TURN: Duration = Duration::from_millis(50);
/// The screen is drawn at least so often, for the times on it.
const REDRAW: Duration = Duration::from_secs(1);
/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;

/// Shows the process there until told to leave.
pub(super) fn run(place: &Place, interval: Duration) -> ExitCode {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        complain("tidegate: top needs a terminal; `tidegate status --watch` goes without one");
        return ExitCode::FAILURE;
    }
    place.with(|client| start(client, interval))
}

fn start(client: &Client, interval: Duration) -> Result<ExitCode, Error> {
    // Whoever has the wrong socket is told so at the prompt.
    let first = look::look(client, false)?;
    let (tasks, news) = look::begin(client.clone(), interval);
    let shown = leave::listen().and_then(|told| {
        let app = App::new(first, interval);
        on_terminal(|terminal| show(terminal, app, &tasks, &news, &told))
    });
    Ok(shown.unwrap_or_else(|error| {
        complain(&format!("tidegate: the terminal: {error}"));
        ExitCode::FAILURE
    }))
}

/// Runs with the terminal in hand, and puts it back: also when something panics, before that is told.
fn on_terminal<T>(run: impl FnOnce(&mut DefaultTerminal) -> io::Result<T>) -> io::Result<T> {
    let ended = try_init().and_then(|mut terminal| run(&mut terminal));
    // Where it cannot be put back it is gone, and with it whoever would read of that.
    let _ = try_restore();
    ended
}

fn show(
    terminal: &mut DefaultTerminal,
    mut app: App,
    tasks: &SyncSender<Task>,
    news: &Receiver<News>,
    told: &Told,
) -> io::Result<ExitCode> {
    let palette = match env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Palette::Plain,
        _ => Palette::Colours,
    };
    let mut drawn: Option<Instant> = None;
    loop {
        let mut is_new = take(&mut app, news)?;
        if let Some(signal) = told.signal() {
            return Ok(ExitCode::from(SIGNALLED.saturating_add(signal)));
        }
        if event::poll(TURN)? {
            is_new = true;
            if let Event::Key(key) = event::read()? {
                match app.press(key) {
                    Some(Order::Quit) => return Ok(ExitCode::SUCCESS),
                    Some(Order::Do(deed)) => pass(&mut app, tasks, Task::Do(deed)),
                    Some(Order::Sessions(wanted)) => pass(&mut app, tasks, Task::Sessions(wanted)),
                    None => {}
                }
            }
        }
        if is_new || drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            let now = Instant::now();
            app.tick(now);
            terminal.draw(|frame| draw(frame, &app, palette))?;
            drawn = Some(now);
        }
    }
}

/// Takes what there is of news. Was there any?
fn take(app: &mut App, news: &Receiver<News>) -> io::Result<bool> {
    let mut is_new = false;
    loop {
        match news.try_recv() {
            Ok(News::Seen(seen)) => app.see(*seen),
            Ok(News::Lost(why)) => app.lose(&why),
            Ok(News::Said(text)) => app.say(&text),
            Err(TryRecvError::Empty) => return Ok(is_new),
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("nobody looks any more"));
            }
        }
        is_new = true;
    }
}

fn pass(app: &mut App, tasks: &SyncSender<Task>, task: Task) {
    if tasks.try_send(task).is_err() {
        app.say("not done: the process does not answer");
    }
}
