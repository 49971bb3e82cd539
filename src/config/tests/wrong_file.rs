//! Files that are wrong as YAML, at the top, or in the sections that hold for the whole process.

use super::{In, check_table, problems};

#[test]
fn broken_yaml_is_shown_where_it_broke() {
    check_table(&[
        (
            In::File,
            "«#» nothing but a comment\n",
            "this file is empty",
        ),
        (In::File, "«~»\n", "this file is empty"),
        (
            In::Root,
            "log:\n  access: «'»stdout\nstate_dir: /x",
            "quote is not closed",
        ),
        (
            In::Root,
            "log:\n  access: «\"»stdout",
            "quote is not closed",
        ),
        (In::Root, "log: «{» access: stdout", "bracket is not closed"),
        (
            In::Root,
            "sessions:\n  key_files: «[»/a, /b\nthreads: 2",
            "bracket is not closed",
        ),
        (In::Root, "log: «}»", "closes nothing"),
        (In::Root, "threads: 2«:» 3", "second `: ` on one line"),
        (
            In::Root,
            "log:\n  access«:»stdout\n  level: info",
            "space is missing after this colon",
        ),
        (
            In::Root,
            "log:\n  «access stdout»\n  level: info",
            "this line has no `: `",
        ),
        (
            In::Root,
            "log:\n  access: stdout\n    «level: info»",
            "indented deeper than the key",
        ),
        (
            In::Root,
            "log:\n  level: info\n «a»ccess: off",
            "indented differently",
        ),
        (
            In::Root,
            "log:\n  access: «@»x",
            "text that begins with `@` stands in quotes",
        ),
        (In::Root, "log:\n  access: «`»x`", "stands in quotes"),
        (In::Root, "log:\n  access: «\"»C:\\q\"", "use single quotes"),
        (
            In::Route,
            "host: «*.example.com»\npath: /a\npool: p",
            "in quotes: \"*.example.com\"",
        ),
        (
            In::Route,
            "path: /a\npool: p\norigins: «*»",
            "in quotes: \"*\"",
        ),
        (
            In::Listener,
            "bind: [::]«:»8080",
            "IPv6 address stands in quotes",
        ),
        (
            In::Pool,
            "health: {}\nkeep_alive: «!!str» 4s",
            "tags are not used",
        ),
    ]);
}

#[test]
fn tabs_are_shown_at_their_full_width() {
    let problems = problems("listeners:\n\t- bind: 0.0.0.0:1\n");
    let problem = &problems.as_slice()[0];
    assert!(problem.message.contains("with spaces, never with tabs"));
    assert_eq!((problem.line, problem.column), (2, 1));
    assert_eq!(problem.source, "    - bind: 0.0.0.0:1");
    assert_eq!(problem.caret, (0, 4));
}

#[test]
fn file_without_a_single_letter_is_called_empty() {
    for text in [
        "",
        "\n\n",
        "\u{feff}",
        "---\n",
        "---\n...\n",
        "  # c",
        "null",
    ] {
        let problems = problems(text);
        assert_eq!(problems.as_slice().len(), 1, "{text:?}: {problems}");
        assert!(
            problems.to_string().contains("this file is empty"),
            "{problems}"
        );
    }
}

#[test]
fn yaml_that_is_more_than_we_want_is_refused() {
    check_table(&[
        (
            In::Root,
            "threads: 2\n«---»\nthreads: 3",
            "a second YAML document",
        ),
        (
            In::Root,
            "threads: 2\n«threads»: 3",
            "twice; the first is on line 14",
        ),
        (
            In::Root,
            "log: { level: info, «level»: warn }",
            "twice; the first is on line 14",
        ),
        (
            In::Root,
            "? «[a]»\n: b",
            "a key must be a single word, not a list",
        ),
        (
            In::Root,
            "? «{a: b}»\n: b",
            "a key must be a single word, not a map",
        ),
        (In::Root, "log: &log { «<<»: 1 }", "merge keys are not used"),
        (
            In::Root,
            "log: &log { level: «*log» }",
            "inside of what it repeats",
        ),
    ]);
}

#[test]
fn keys_at_the_top_are_checked() {
    check_table(&[
        (In::File, "- «a»\n", "must be a map such as"),
        (In::File, "«listeners»\n", "must be a map such as"),
        (In::Root, "«listner»: 3", "did you mean `listeners`?"),
        (
            In::Root,
            "«dance»: 3",
            "its keys are listeners, routes, pools",
        ),
        (
            In::Root,
            "include: «x.yaml»",
            "takes a list; write [x.yaml]",
        ),
        (
            In::Root,
            "include: [«x.yaml»]",
            "only a file includes others",
        ),
        (In::Root, "«workers»: 3", "did you mean `threads`?"),
        (In::Root, "«idle_ttl»: 1h", "it belongs under `sessions`"),
        (In::Root, "«Threads»: 3", "did you mean `threads`?"),
        (In::Root, "threads: «0»", "too small; the least is 1"),
        (In::Root, "threads: «1025»", "too large; the most is 1024"),
        (In::Root, "threads: «two»", "not a whole number"),
        (In::Root, "threads: «1.5»", "not a whole number"),
        (In::Root, "threads: «-1»", "not a whole number"),
        (In::Root, "«threads»:", "`threads` has no value"),
        (In::Root, "threads: «~»", "`threads` has no value"),
        (
            In::Root,
            "threads: «[2]»",
            "takes a single value here, not a list",
        ),
        (
            In::Root,
            "threads: «{a: 2}»",
            "takes a single value here, not a map",
        ),
        (
            In::Root,
            "threads:\n  «a»: 2",
            "takes a single value here, not a map",
        ),
        (In::Root, "drain_timeout: «30»", "has no unit; write 30s"),
        (
            In::Root,
            "drain_timeout: «30sec»",
            "`sec` is not one of the units",
        ),
        (In::Root, "drain_timeout: «off»", "is not a duration"),
        (In::Root, "drain_timeout: «2d»", "too large; the most is 1d"),
        (In::Root, "state_dir: «state»", "write an absolute path"),
        (
            In::Root,
            "state_dir: «~/tidegate»",
            "write an absolute path",
        ),
    ]);
}

#[test]
fn sections_of_the_process_are_checked() {
    check_table(&[
        (
            In::Root,
            "sessions: «1h»",
            "this sessions section must be a map",
        ),
        (
            In::Root,
            "sessions:\n  «idle_ttl:1h»",
            "space is missing after the colon",
        ),
        (In::Root, "sessions: { «ttl»: 1h }", "unknown key `ttl`"),
        (
            In::Root,
            "sessions: { idle_ttl: «10ms» }",
            "too small; the least is 1s",
        ),
        (
            In::Root,
            "sessions: { idle_ttl: «1.5h» }",
            "not a whole number",
        ),
        (In::Root, "sessions: { max: «0» }", "too small"),
        (In::Root, "sessions: { max: «1e6» }", "not a whole number"),
        (
            In::Root,
            "drain_timeout: 2s\ndrain_jitter: «3s»",
            "more than `drain_timeout` (2s)",
        ),
        (
            In::Root,
            "sessions: { max: 10, max_per_pool: «11» }",
            "more than `max` (10)",
        ),
        (
            In::Root,
            "sessions: { key_files: «/etc/k» }",
            "takes a list; write [/etc/k]",
        ),
        (
            In::Root,
            "sessions: { key_files: [«k»] }",
            "write an absolute path",
        ),
        (
            In::Root,
            "sessions: { key_files: [/k, «/k»] }",
            "here twice",
        ),
        (
            In::Root,
            "sessions: { «key_files»: [] }",
            "`key_files` is empty",
        ),
        (
            In::Root,
            "sessions: { key_files: [«[/k]»] }",
            "a single value here, not a list",
        ),
        (In::Root, "streams: { keep_alive: «15» }", "write 15s"),
        (In::Root, "streams: { keep_alive: «1h» }", "the most is 10m"),
        (
            In::Root,
            "streams: { max_event: «16M» }",
            "`M` is not one of the units: B, KiB",
        ),
        (
            In::Root,
            "limits: { body: «4194304» }",
            "has no unit; write 4194304KiB",
        ),
        (In::Root, "limits: { body: «1B» }", "the least is 1KiB"),
        (In::Root, "limits: { peek: «5MiB» }", "is more than `body`"),
        (In::Root, "limits: { headers: «5» }", "the least is 8"),
        (
            In::Root,
            "limits: { «header_blok»: 1KiB }",
            "did you mean `header_block`?",
        ),
        (
            In::Root,
            "limits: { head_timeout: «10 sec» }",
            "`sec` is not one of the units",
        ),
        (
            In::Root,
            "limits: { idle_timeout: «1m30s» }",
            "more than one number",
        ),
        (
            In::Root,
            "limits: { header_block: «99999999999999999999GiB» }",
            "too large",
        ),
        (
            In::Root,
            "admin: «127.0.0.1:9090»",
            "must be a map such as `bind: 127.0.0.1:9090`",
        ),
        (In::Root, "admin: «on»", "must be a map"),
        (In::Root, "admin: { bind: «9090» }", "write 0.0.0.0:9090"),
        (
            In::Root,
            "admin: { bind: «localhost:9090» }",
            "not an IP address and port",
        ),
        (
            In::Root,
            "admin: { bind: «127.0.0.1:8080» }",
            "the listener on line 2 accepts on",
        ),
        (
            In::Root,
            "admin: { socket: «run/x» }",
            "write an absolute path",
        ),
        (In::Root, "admin: { socket_mode: «abc» }", "is no mode"),
        (In::Root, "admin: { socket_mode: «060» }", "6 or 7"),
        (In::Root, "admin: { socket_mode: «1777» }", "is no mode"),
        (
            In::Root,
            "admin: { level: «write» }",
            "takes read | operate",
        ),
        (
            In::Root,
            "admin: { bind: 0.0.0.0:9090, level: «operate» }",
            "needs a loopback address",
        ),
        (
            In::Root,
            "log: { access: «log/access.log» }",
            "log goes to stdout, stderr, journal",
        ),
        (
            In::Root,
            "log: { level: «warning» }",
            "did you mean `warn`?",
        ),
        (
            In::Root,
            "log: { level: «loud» }",
            "takes error | warn | info | debug | trace",
        ),
    ]);
}
