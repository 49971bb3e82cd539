//! Several problems at once, and what the list looks like.

use super::{In, file, marked, place, problems};

#[test]
fn list_of_problems_looks_like_this() {
    let text = "listeners:\n  - bind: localhost:80\nroutes:\n  - path: mcp\n    pool: wether\n\
                pools:\n  weather:\n    endpoints: [127.0.0.1:9001]\n    health: { interval: 2 }\n";
    let expected = "\
error: `localhost:80` is not an IP address and port; write for example 127.0.0.1:8080
 --> bad.yaml:2:11
  |
2 |   - bind: localhost:80
  |           ^^^^^^^^^^^^

error: `mcp`: a path begins with `/`; write /mcp
 --> bad.yaml:4:11
  |
4 |   - path: mcp
  |           ^^^

error: there is no pool `wether`; did you mean `weather`?
 --> bad.yaml:5:11
  |
5 |     pool: wether
  |           ^^^^^^

error: `2` has no unit; write 2s, or another of: ms, s, m, h, d
 --> bad.yaml:9:25
  |
9 |     health: { interval: 2 }
  |                         ^

4 problems in bad.yaml; nothing was started";
    assert_eq!(problems(text).to_string(), expected);
}

#[test]
fn every_kind_of_problem_is_found_in_one_run() {
    let (text, expected) = marked(
        "\
«listner»: 3
listeners:
  - bind: «8080»
    «tsl»: {}
    max_connections: «many»
  - «name»: b
routes:
  - path: /mcp
    pool: «wether»
    host: «a.com:80»
    origins: [«a.com», https://ok.example.com, «b.com»]
  - «pool»: weather
pools:
  weather:
    kind: «mcpp»
    endpoints:
      - «127.0.0.1»
      - { address: 127.0.0.1:1, weight: «0», backup: «maybe», «nam»: x }
      - 127.0.0.1:2
      - «127.0.0.1:2»
    resolve_every: «30»
    health:
      check: «ping»
      path: «mcp»
      interval: «1ms»
    timeouts: { connect: «1», header: «1x», total: «never» }
  «empty»:
  list: «[]»
sessions: { idle_ttl: «1», key_files: [«k»] }
limits: «4MiB»
log: { level: «loud», access: «x» }
threads: «0»
",
    );
    let problems = problems(&text);
    let found: Vec<_> = problems.as_slice().iter().map(place).collect();
    assert_eq!(found, expected, "{problems}");
    let last = format!(
        "{} problems in bad.yaml; nothing was started",
        expected.len()
    );
    assert!(problems.to_string().ends_with(&last), "{problems}");
}

#[test]
fn characters_of_many_bytes_do_not_shift_the_column() {
    let text = file(In::Listener, "bind: 0.0.0.0:80 # ä天\nname: «'天気 é'»");
    let (text, expected) = marked(&text);
    let problems = problems(&text);
    let problem = &problems.as_slice()[0];
    assert_eq!(
        (problem.line, problem.column),
        (expected[0].0, expected[0].1)
    );
    // Two of the six characters are two columns wide.
    assert_eq!(problem.caret, (10, 8), "{problems}");
}

#[test]
fn what_a_terminal_would_obey_is_not_repeated() {
    let text = file(In::Listener, "bind: \"\\e[31m\\a\"\nname: a");
    let shown = problems(&text).to_string();
    let bad = |c: char| c.is_control() && c != '\n';
    assert!(!shown.contains(bad), "{shown:?}");
}

#[test]
fn list_of_problems_is_bounded() {
    let text: String = (0..5000).map(|n| format!("key{n}: {n}\n")).collect();
    let problems = problems(&text);
    assert_eq!(problems.as_slice().len(), 100);
    assert!(
        problems
            .to_string()
            .ends_with("100 or more problems in bad.yaml; nothing was started")
    );
}

#[test]
fn one_problem_is_counted_as_one() {
    let text = file(In::Root, "threads: 0");
    assert!(
        problems(&text)
            .to_string()
            .ends_with("\n1 problem in bad.yaml; nothing was started")
    );
}
