//! Certificates that are ordered.

use std::time::Duration;

use tempfile::TempDir;

use super::{Case, In, check_table, good};
use crate::config::{Acme, Trust};

/// The file of an authority, which every section here needs where a system has none.
fn authority() -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, made.cert.pem()).unwrap();
    let path = path.display().to_string();
    (dir, path)
}

fn read(section: &str) -> Acme {
    let (_dir, ca) = authority();
    let section = section.replace("CA", &ca);
    let text = format!("bind: 0.0.0.0:443\ntls: {{ acme: {{ {section} }} }}");
    let config = good(In::Listener, &text);
    let tls = config.listeners[0].tls.clone().unwrap();
    assert_eq!(tls.certificates, []);
    tls.acme.unwrap()
}

#[test]
fn names_and_a_yes_are_enough() {
    let acme = read("names: [Gate.Example.com, b.example.com], agree_to_terms: true, ca: CA");
    assert_eq!(acme.names, ["gate.example.com", "b.example.com"]);
    assert_eq!(
        acme.directory,
        "https://acme-v02.api.letsencrypt.org/directory"
    );
    assert_eq!(acme.renew_before, Duration::from_secs(30 * 24 * 60 * 60));
    assert!(acme.contact.is_empty());
    assert!(matches!(acme.trust, Trust::File(..)));
}

#[test]
fn what_is_written_is_taken() {
    let acme = read(
        "names: [a.example], agree_to_terms: true, ca: CA, renew_before: 2h, \
         contact: [\"mailto:a@example.com\"], directory: \"https://[::1]:14000/dir\"",
    );
    assert_eq!(acme.directory, "https://[::1]:14000/dir");
    assert_eq!(acme.renew_before, Duration::from_secs(7200));
    assert_eq!(acme.contact, ["mailto:a@example.com"]);
}

#[test]
fn what_cannot_be_ordered_is_refused() {
    let (_dir, ca) = authority();
    let cases = [
        (
            "«acme»: { agree_to_terms: true }",
            "this acme section has no `names`",
        ),
        ("«acme»: { names: [a.example] }", "has no `agree_to_terms`"),
        (
            "acme: { names: [a.example], agree_to_terms: «false», ca: CA }",
            "read them, and write `agree_to_terms: true`",
        ),
        (
            "acme: { names: [«\"*.example.com\"»], agree_to_terms: true, ca: CA }",
            "a certificate for a wildcard cannot be had",
        ),
        (
            "acme: { names: [«192.0.2.1»], agree_to_terms: true, ca: CA }",
            "write a DNS name",
        ),
        (
            "acme: { names: [a.example, «A.example»], agree_to_terms: true, ca: CA }",
            "is here twice",
        ),
        (
            "acme: { names: [a.example], contact: [«ops@example.com»], agree_to_terms: true, ca: CA }",
            "as in mailto:ops@example.com",
        ),
        (
            "acme: { names: [a.example], directory: «\"http://ca.example/\"», agree_to_terms: true, ca: CA }",
            "a directory is an address such as https://",
        ),
        (
            "acme: { names: [a.example], directory: «\"https://u:p@ca.example/\"», agree_to_terms: true, ca: CA }",
            "a directory is an address such as https://",
        ),
        (
            "acme: { names: [a.example], renew_before: «30m», agree_to_terms: true, ca: CA }",
            "the least is 1h",
        ),
        (
            "acme: { names: [a.example], agree_to_terms: true, ca: «/nowhere/ca.pem» }",
            "No such file",
        ),
    ];
    let fill = |(text, message): (&str, &'static str)| -> Case {
        let text = format!("bind: 0.0.0.0:443\ntls: {{ {} }}", text.replace("CA", &ca));
        (In::Listener, text.leak(), message)
    };
    check_table(&cases.map(fill));
}
