//! The manual page is made from the command line, and from the words below that clap does not know.

use std::env;
use std::fs;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::root;

const SIGNALS: &[(&str, &str)] = &[
    (
        "TERM, QUIT",
        "Accept nothing new, let calls finish, end streams, and leave.",
    ),
    ("INT", "Leave now."),
    (
        "HUP",
        "Read the configuration again. If it is wrong, everything goes on as it was.",
    ),
    ("USR1", "Open the access log anew."),
    (
        "USR2",
        "Start the program's file, by now a newer one perhaps, and leave to that process once it serves.",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "/etc/tidegate/tidegate.yaml",
        "The configuration that the systemd unit uses.",
    ),
    (
        "/var/lib/tidegate/session.key",
        "The key that seals session ids, where the configuration names none. Whoever has it can make ids.",
    ),
    (
        "/var/lib/tidegate/acme",
        "Keys and certificates that were ordered, where the configuration has any ordered.",
    ),
    (
        "/usr/share/doc/tidegate",
        "Manuals, and an example configuration with every key.",
    ),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "STATE_DIRECTORY",
        "Where state is kept, unless the configuration says.",
    ),
    (
        "LISTEN_FDS, LISTEN_PID",
        "Sockets that were opened by systemd (sd_listen_fds(3)). Each serves the listener of its address.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Where and how often systemd is told of the process (sd_notify(3)).",
    ),
];

#[test]
fn the_man_page_says_what_the_command_line_does() {
    let path = root().join("docs/tidegate.8");
    let page = page();
    if env::var_os("TIDEGATE_WRITE_MAN").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "write docs/tidegate.8 anew: make man");
}

fn page() -> String {
    let mut command = tidegate::cli::command();
    command.build();
    let man = Man::new(command.clone()).section("8");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut rest = Roff::new();
    rest.control("SH", ["COMMANDS"]);
    for subcommand in command.get_subcommands_mut() {
        describe(&mut rest, subcommand);
    }
    for (title, rows) in [
        ("SIGNALS", SIGNALS),
        ("FILES", FILES),
        ("ENVIRONMENT", ENVIRONMENT),
    ] {
        rest.control("SH", [title]);
        for (name, meaning) in rows {
            row(&mut rest, vec![bold(*name)], meaning);
        }
    }
    rest.control("SH", ["SEE ALSO"]);
    rest.text([roman("systemd.service(5), systemd.socket(5), signal(7)")]);
    rest.to_writer(&mut page).unwrap();
    String::from_utf8(page).unwrap()
}

/// A subcommand, and those below it.
fn describe(page: &mut Roff, command: &mut Command) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    let usage = command.render_usage().to_string();
    page.control("SS", [usage.trim_start_matches("Usage: ")]);
    if let Some(about) = command.get_about() {
        page.text([roman(about.to_string())]);
    }
    for argument in command.get_arguments() {
        let is_everywhere = matches!(argument.get_id().as_str(), "help" | "version");
        if !argument.is_hide_set() && !is_everywhere {
            let help = argument.get_help().map(ToString::to_string);
            row(page, name(argument), &help.unwrap_or_default());
        }
    }
    for below in command.get_subcommands_mut() {
        describe(page, below);
    }
}

fn row(page: &mut Roff, name: Vec<Inline>, meaning: &str) {
    page.control("TP", []);
    page.text(name);
    page.text([roman(meaning)]);
}

/// `-c, --config FILE`.
fn name(argument: &Arg) -> Vec<Inline> {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let flags: Vec<String> = short.into_iter().chain(long).collect();
    let mut name = vec![bold(flags.join(", "))];
    let takes_value = argument.get_action().takes_values();
    if let (true, Some(values)) = (takes_value, argument.get_value_names()) {
        let values = values.iter().map(|value| value.as_str());
        let values = values.collect::<Vec<_>>().join(" ");
        let gap = if flags.is_empty() { "" } else { " " };
        name.extend([roman(gap), italic(values)]);
    }
    name
}
