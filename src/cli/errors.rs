//! Messages that were refused, one below the other.

use std::process::ExitCode;

use super::verbs::shown;
use super::whom::To;
use crate::server::admin::view::{Errors, Shown};

/// Shows the last messages that were refused.
pub(super) fn run(to: &To) -> ExitCode {
    to.with(|client| {
        let answer = client.ask("GET", "/v1/errors", None)?;
        let errors: Errors = client.read(answer.clone())?;
        Ok(shown(to.json, &answer, || text(&errors)))
    })
}

fn text(errors: &Errors) -> String {
    let mut text = match errors.errors.len() {
        0 if errors.total == 0 => "no message was refused".to_owned(),
        shown => format!(
            "{shown} of {} messages that were refused, the newest first",
            errors.total
        ),
    };
    text.push('\n');
    for one in &errors.errors {
        text.push_str(&paragraph(one));
    }
    text
}

/// Who and what in two lines, and the head below them.
fn paragraph(one: &Shown) -> String {
    let at = match (&one.listener, &one.pool, &one.endpoint) {
        (Some(listener), _, _) => format!("on listener {listener}"),
        (None, Some(pool), Some(endpoint)) => format!("endpoint {pool}/{endpoint}"),
        _ => "endpoint no longer configured".to_owned(),
    };
    let from = one.peer.as_deref().unwrap_or("a unix socket");
    let place = match (one.position, &one.byte) {
        (Some(position), Some(byte)) => format!(", at byte {position} ({byte})"),
        (Some(position), None) => format!(", at byte {position}"),
        (None, _) => String::new(),
    };
    let mut text = format!(
        "\n{}  {} {from}, {at}\n  {}{place}\n",
        one.time, one.side, one.what
    );
    for line in &one.head {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_with_who_has_sent_it_and_what_is_wrong_with_it_where() {
        let one = Shown {
            time: "2026-07-28T09:05:03.042Z".to_owned(),
            side: "client".to_owned(),
            listener: Some("edge".to_owned()),
            pool: None,
            endpoint: None,
            peer: Some("192.0.2.7:4711".to_owned()),
            what: "malformed request head: header name".to_owned(),
            position: Some(16),
            byte: Some("\\x00".to_owned()),
            head: vec!["GET / HTTP/1.1".to_owned(), "Host: [1 bytes]".to_owned()],
        };
        let errors = Errors {
            total: 70,
            errors: vec![one],
        };
        let expected = "1 of 70 messages that were refused, the newest first\n\n\
            2026-07-28T09:05:03.042Z  client 192.0.2.7:4711, on listener edge\n  \
            malformed request head: header name, at byte 16 (\\x00)\n    \
            GET / HTTP/1.1\n    Host: [1 bytes]\n";
        assert_eq!(text(&errors), expected);
    }
}
