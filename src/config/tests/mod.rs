//! What the module as a whole promises. Wrong files are tables: a text in which the piece that the
//! carets must lie under stands between « and », and a part of the message.

use super::{Config, Problem, Problems, parse};

mod acme;
mod agree;
mod endpoint_tls;
mod env;
mod include;
mod limits;
mod logs;
mod mutated;
mod right;
mod several;
mod tracing;
mod wrong_edge;
mod wrong_file;
mod wrong_pools;
mod wrong_routes;
mod wrong_tls;

const FULL: &str = include_str!("../../../conf/full.yaml");
const MINIMAL: &str = include_str!("../../../conf/minimal.yaml");
const SCHEMA: &str = include_str!("../../../conf/schema.json");

/// Where in a file that is otherwise right the text of a case stands.
#[derive(Debug, Clone, Copy)]
enum In {
    /// The text is the file.
    File,
    /// Further keys at the top.
    Root,
    /// The keys of a listener, in place of a right one.
    Listener,
    /// The keys of a second route; the first is `path: /mcp`.
    Route,
    /// Further keys of the pool of kind mcp.
    Pool,
    /// Further keys of the pool of kind http.
    Http,
    /// The keys of the only endpoint.
    Endpoint,
}

/// A case: where, the text with its marks, and a part of the message.
type Case = (In, &'static str, &'static str);

fn file(place: In, text: &str) -> String {
    let indent = |columns: usize| {
        let mut lines = text.lines();
        let mut indented = lines.next().unwrap_or("").to_owned();
        for line in lines {
            // A further item of a list begins two columns before the keys of the first.
            let columns = if line.starts_with("- ") {
                columns - 2
            } else {
                columns
            };
            indented += &format!("\n{}{line}", " ".repeat(columns));
        }
        indented
    };
    let mut listener = "bind: 0.0.0.0:8080".to_owned();
    let mut endpoint = "address: 127.0.0.1:9001".to_owned();
    let (mut route, mut pool, mut http, mut root) = <(String, String, String, String)>::default();
    match place {
        In::File => return text.to_owned(),
        In::Root => root = text.to_owned(),
        In::Listener => listener = indent(4),
        In::Route => route = format!("\n  - {}", indent(4)),
        In::Pool => pool = format!("\n    {}", indent(4)),
        In::Http => http = format!("\n    {}", indent(4)),
        In::Endpoint => endpoint = indent(8),
    }
    format!(
        "listeners:\n  - {listener}\nroutes:\n  - path: /mcp\n    pool: p\n  \
         - {{ path: /w, pool: web }}{route}\npools:\n  p:\n    endpoints:\n      \
         - {endpoint}{pool}\n  web:\n    kind: http\n    endpoints: [127.0.0.1:8000]{http}\n{root}\n"
    )
}

fn good(place: In, text: &str) -> Config {
    let text = file(place, text);
    parse("good.yaml", &text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn problems(text: &str) -> Problems {
    parse("bad.yaml", text).expect_err(text)
}

/// Line, column and number of carets, each piece of the text between marks, in order; and the text
/// without marks.
fn marked(text: &str) -> (String, Vec<(usize, usize, usize)>) {
    let (mut plain, mut places) = (String::new(), Vec::new());
    let (mut line, mut column) = (1, 1);
    let mut open = None;
    for character in text.chars() {
        match character {
            '«' => open = Some((line, column)),
            '»' => {
                let (line, start) = open.take().expect("a mark is closed after it was opened");
                places.push((line, start, column - start));
            }
            other => {
                plain.push(other);
                column += 1;
                if other == '\n' {
                    (line, column) = (line + 1, 1);
                }
            }
        }
    }
    (plain, places)
}

fn place(problem: &Problem) -> (usize, usize, usize) {
    (problem.line, problem.column, problem.caret.1)
}

/// Each case must give exactly one problem, with its message, under the marked piece.
fn check_table(cases: &[Case]) {
    let mut failures = Vec::new();
    for (position, text, message) in cases {
        let (text, places) = marked(&file(*position, text));
        let shown = match parse("bad.yaml", &text) {
            Err(problems) => {
                let found: Vec<_> = problems.as_slice().iter().map(place).collect();
                if found == places && problems.as_slice()[0].message.contains(message) {
                    continue;
                }
                problems.to_string()
            }
            Ok(_) => "it was accepted".to_owned(),
        };
        failures.push(format!(
            "{text}\nexpected {message:?} at {places:?}:\n{shown}\n"
        ));
    }
    let count = failures.len();
    assert!(
        count == 0,
        "{}\n{count} cases failed",
        failures.join("\n----\n")
    );
}
