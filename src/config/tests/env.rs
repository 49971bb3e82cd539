//! Variables of the environment in values.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::super::{Config, HeaderEdits, Part, Problems, parse_in};
use super::{In, file, marked, place};

/// What the environment has here.
fn variable(name: &str) -> Option<OsString> {
    let value = match name {
        "HOST" => "10.0.0.7",
        "PORT" => "9009",
        "EMPTY" => "",
        "THREADS" => "3",
        "NESTED" => "${env:HOST}",
        "LINE" => "a\nthreads: 2",
        "DOLLARS" => "a$host$$b",
        "API_TOKEN" => "s3cr3t$host",
        "BINARY" => return Some(OsString::from_vec(vec![0xff])),
        _ => return None,
    };
    Some(value.into())
}

fn read(place: In, text: &str) -> Result<Config, Problems> {
    parse_in("test.yaml", &file(place, text), &variable)
}

fn address(text: &str) -> String {
    let config = read(In::Endpoint, &format!("address: {text}")).unwrap();
    config.pools[0].endpoints[0].address.to_string()
}

#[test]
fn a_variable_stands_anywhere_in_a_value() {
    assert_eq!(address("${env:HOST}:${env:PORT}"), "10.0.0.7:9009");
    assert_eq!(address("'${env:HOST}:80'"), "10.0.0.7:80");
    assert_eq!(address("${env:NONE:-10.0.0.8}:80"), "10.0.0.8:80");
    assert_eq!(address("${env:EMPTY:-10.0.0.8}:80"), "10.0.0.8:80");
    assert_eq!(
        address("${env:HOST:-10.0.0.8}:80${env:EMPTY}"),
        "10.0.0.7:80"
    );
    let config = read(In::Root, "threads: ${env:THREADS}").unwrap();
    assert_eq!(config.threads.unwrap().get(), 3);
    assert_eq!(config.effective["threads"], 3);
}

#[test]
fn one_that_is_not_there_or_not_right_is_shown_where_it_stands() {
    for (text, says) in [
        ("address: \"«${env:NONE}»:80\"", "no variable `NONE`"),
        ("address: «${env:BINARY}»:80", "not UTF-8"),
        ("address: ${env:HOST}:«${env:NONE}»", "no variable `NONE`"),
        (
            "address: a:80\nname: «${env:NO_TOKEN}»",
            "no variable `NO_TOKEN`",
        ),
        ("address: a:80\nname: «${env:a-b}»", "write ${env:NAME}"),
        ("address: a:80\nname: «${env:}»", "write ${env:NAME}"),
        ("address: a:80\nname: «${env:1}»", "write ${env:NAME}"),
        ("address: a:80\nname: x«${env:HOST»", "`}` is missing"),
        (
            "address: a:80\nname: «\"\\x24{env:NONE}\"»",
            "no variable `NONE`",
        ),
    ] {
        let (text, places) = marked(&file(In::Endpoint, text));
        let problems = parse_in("test.yaml", &text, &variable).expect_err("it is wrong");
        let first = &problems.as_slice()[0];
        assert_eq!(place(first), places[0], "{problems}");
        assert!(first.message.contains(says), "{problems}");
    }
    let wrong = read(In::Root, "threads: ${env:HOST}").expect_err("it is no number");
    assert!(
        wrong
            .to_string()
            .contains("`10.0.0.7` is not a whole number"),
        "{wrong}"
    );
    let wrong = read(In::Endpoint, "address: a:80\n${env:HOST}: b").expect_err("keys have none");
    assert!(
        wrong.to_string().contains("unknown key `${env:HOST}`"),
        "{wrong}"
    );
}

#[test]
fn what_is_put_in_is_a_value_and_nothing_else() {
    let once = Part::Text("${env:HOST}".to_owned());
    assert_eq!(set("'${env:NESTED}'"), [once]);
    let wrong = read(In::Root, "state_dir: ${env:LINE}").expect_err("it is no path");
    assert_eq!(wrong.as_slice().len(), 1, "{wrong}");
    let wrong = read(In::Root, "trusted_proxies: [${env:HOST}]").expect_err("it is no YAML");
    assert!(
        wrong
            .to_string()
            .contains("stands in quotes between brackets"),
        "{wrong}"
    );
}

/// What the only route that changes requests does to them.
fn sent(config: &Config) -> &HeaderEdits {
    let mut routes = config.routes.iter();
    routes.find_map(|route| route.request.as_deref()).unwrap()
}

/// The value of the field that a route sets.
fn set(value: &str) -> Vec<Part> {
    let text = format!("path: /x\npool: p\nrequest_headers: {{ set: {{ X-A: {value} }} }}");
    let config = read(In::Route, &text).unwrap();
    sent(&config).set[0].value.parts().to_vec()
}

#[test]
fn variables_of_requests_are_left_to_requests() {
    let text = |text: &str| Part::Text(text.to_owned());
    let parts = set("'${host} ${env:HOST} $${env:HOST} $$'");
    assert!(matches!(parts[0], Part::Variable(_)));
    assert_eq!(parts[1..], [text(" 10.0.0.7 ${env:HOST} $")]);
    // A password may hold a dollar.
    assert_eq!(set("'${env:DOLLARS}'"), [text("a$host$$b")]);
}

#[test]
fn what_a_variable_calls_a_secret_is_not_repeated() {
    let text = "path: /x\npool: p\nrequest_headers: { set: { X-A: '${env:API_TOKEN}', X-B: '${env:HOST}' } }";
    let config = read(In::Route, text).unwrap();
    let routes = config.effective["routes"].as_array().unwrap();
    let mut sets = routes.iter().map(|route| &route["request_headers"]["set"]);
    let shown = sets.find(|set| set.is_object()).unwrap();
    assert_eq!(
        (&shown["X-A"], &shown["X-B"]),
        (&"(hidden)".into(), &"10.0.0.7".into())
    );
    assert_eq!(sent(&config).set[0].value.as_text(), Some("s3cr3t$host"));
    for text in [
        "threads: ${env:API_TOKEN}",
        "state_dir: ${env:API_TOKEN}",
        "trusted_header: ${env:API_TOKEN}",
    ] {
        let wrong = read(In::Root, text).expect_err("it is wrong").to_string();
        assert!(
            !wrong.contains("s3cr3t") && wrong.contains("is a secret"),
            "{wrong}"
        );
    }
}
