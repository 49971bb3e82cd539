//! The terminal is put back when something panics on it.

use std::time::Instant;

use super::{Palette, SECOND, app, draw, usual};
use crate::cli::top::on_terminal;

#[test]
#[ignore = "panics on the terminal that it is given by the test below"]
fn something_panics_on_a_terminal() {
    let ended = on_terminal::<()>(|terminal| {
        terminal.draw(|frame| draw(frame, &app(usual()), Palette::Colours))?;
        panic!("on purpose");
    });
    panic!("nothing has: {ended:?}");
}

#[test]
fn a_panic_puts_the_terminal_back_before_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let tmux = |arguments: &[&str]| {
        let mut tmux = std::process::Command::new("tmux");
        let said = tmux.arg("-S").arg(&socket).args(arguments).output();
        let said = said.expect("the Debian package `tmux`, which `make setup-tests` installs");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    let conf = dir.path().join("conf");
    std::fs::write(&conf, "set -g status off\n").unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let line = format!(
        "stty -g > {before}; {program} --ignored --exact --nocapture \
         cli::top::tests::terminal::something_panics_on_a_terminal; stty -g > {after}; echo behind; read -r key",
        program = std::env::current_exe().unwrap().display(),
        before = file("before"),
        after = file("after"),
    );
    let conf = conf.display().to_string();
    tmux(&[
        "-f",
        &conf,
        "new-session",
        "-d",
        "-x",
        "100",
        "-y",
        "30",
        &line,
    ]);
    let until = Instant::now() + SECOND * 20;
    // The shell still waits for a key: tmux hides the cursor of a terminal whose command is over.
    let look = || tmux(&["capture-pane", "-p", "-S", "-200"]);
    let mut screen = look();
    while !screen.contains("behind") && Instant::now() < until {
        std::thread::yield_now();
        screen = look();
    }
    let state = tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
    tmux(&["kill-server"]);
    assert!(screen.contains("on purpose"), "{screen}");
    assert!(!screen.contains("weather/w1"), "{screen}");
    assert_eq!(state, "0 1");
    let settings = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    assert_eq!(settings("before"), settings("after"));
}
