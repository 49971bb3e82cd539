//! Who a client has proved to be, as operators and servers are told.

use rcgen::{DistinguishedName, DnType, SanType};
use serde_json::Value;

use super::clients::Parties;
use super::principals::{HERE, Person, Servers, WAYS};
use crate::support::authority::Issued;
use crate::support::{Mcp, Request, eventually_some};

/// One with a name of its own beside its subject.
fn worker(parties: &Parties) -> Issued {
    parties.clients.sign(&[], |params| {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::CommonName, "w\u{f6}rker");
        params.distinguished_name = name;
        let uri = "spiffe://example/worker".try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::URI(uri)];
    })
}

#[tokio::test]
async fn the_log_says_who_has_asked_on_every_path() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let gate = servers.build(&parties, "").start().await;
    let one = worker(&parties);
    let other = parties.clients.issue_client("other");
    let proved = Person::at(HERE, &parties, &gate, Some(&one)).await;
    let other = Person::at(HERE, &parties, &gate, Some(&other)).await;
    let nobody = Person::at(HERE, &parties, &gate, None).await;
    let is = |line: &Value, way: &str, name: &str| {
        line["path"] == way && line["client_name"].as_str().unwrap_or("") == name
    };
    let mut principals = Vec::new();
    for way in WAYS {
        for (person, name) in [
            (&proved, "spiffe://example/worker"),
            (&other, "other"),
            (&nobody, ""),
        ] {
            person.ask(way).await;
            let line = gate.logged(|line| is(line, way, name)).await;
            assert_eq!(line["principal"].is_null(), name.is_empty(), "{line}");
            principals.extend(line["principal"].as_str().map(str::to_owned));
        }
    }
    // What never becomes a request.
    let malformed = proved.client().raw(b"GET / HTTP/1.1\r\nhost\r\n\r\n").await;
    assert_eq!(malformed.expect("an answer").status, 400);
    let refused = gate.logged(|line| line["path"].is_null()).await;
    assert_eq!(refused["client_name"], "spiffe://example/worker");
    principals.extend(refused["principal"].as_str().map(str::to_owned));
    assert_eq!(principals.len(), 2 * WAYS.len() + 1);
    assert!(principals.iter().all(|hash| hash.len() == 8));
    principals.sort_unstable();
    principals.dedup();
    assert_eq!(principals.len(), 2, "{principals:?}");
}

#[tokio::test]
async fn a_format_names_a_certificate_as_nginx_does() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let format = "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$client_name|$principal|\
                  $client_fingerprint|$status";
    let gate = servers
        .build(&parties, "")
        .config("threads: 1")
        .log(&format!(
            "{{ access: {{ to: @/access.log, format: \"{format}\" }} }}"
        ))
        .start()
        .await;
    let one = worker(&parties);
    let person = Person::at(HERE, &parties, &gate, Some(&one)).await;
    let nobody = Person::at(HERE, &parties, &gate, None).await;
    for person in [&person, &nobody] {
        person.client().request("GET", "/plain", &[], b"").await;
    }
    let look = async || {
        let text = std::fs::read_to_string(gate.places().access_log()).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() == 2).then_some(lines)
    };
    let lines = eventually_some(crate::support::PATIENCE, look).await;
    let lines = lines.expect("two lines");
    let values: Vec<&str> = lines[0].split('|').collect();
    // Backslashes are escaped once more, as nginx does it.
    assert_eq!(
        values[..2],
        ["SUCCESS", "CN=w\\x5CC3\\x5CB6rker,O=Example\\x5C, Inc."]
    );
    assert!(values[2].starts_with("CN=Authority "), "{values:?}");
    assert_eq!(values[3], "spiffe://example/worker");
    assert_eq!((values[4].len(), values[5].len()), (8, 64));
    assert_eq!(values[6], "200");
    assert_eq!(lines[1], "NONE|-|-|-|-|-|200");
}

/// The values of a field, by any name that a server may take for it.
fn told<'a>(request: &'a Request, name: &str) -> Vec<&'a str> {
    let fields = request.headers.0.iter();
    let fields = fields.filter(|(other, _)| other.replace('_', "-").eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn servers_are_told_who_asks_and_not_what_clients_say_of_themselves() {
    let servers = Servers::start().await;
    let parties = Parties::new();
    let fields = ", request_headers: { set: { X-Client: $client_name, X-Subject: $ssl_client_s_dn, \
                  X-Proof: $ssl_client_verify/$principal, X-Print: $client_fingerprint } }";
    let gate = servers.build(&parties, fields).start().await;
    let one = worker(&parties);
    for (proof, name, subject) in [
        (
            Some(&one),
            Some("spiffe://example/worker"),
            Some("CN=w\\C3\\B6rker,O=Example\\, Inc."),
        ),
        (None, None, None),
    ] {
        let person = Person::at(HERE, &parties, &gate, proof).await;
        let person = person
            .saying("x-client", "admin")
            .saying("x_client", "admin");
        let person = person
            .saying("x_subject", "CN=admin")
            .saying("x_print", "ff");
        let session = person.client().initialize().await;
        drop(person.client().get_stream(&session, None).await);
        let ways = WAYS.into_iter().filter(|way| *way != "/get");
        for (way, method) in ways.map(|way| (way, "")).chain([("/mcp", "GET")]) {
            if method.is_empty() {
                person.ask(way).await;
            }
            let mut requests = servers.today.requests();
            requests.extend(servers.old.requests());
            requests.retain(|request| request.path == way && request.method.contains(method));
            let request = requests.last().expect("it came");
            assert_eq!(told(request, "x-client"), Vec::from_iter(name), "{way}");
            assert_eq!(told(request, "x-subject"), Vec::from_iter(subject), "{way}");
            let prints: Vec<usize> = told(request, "x-print").iter().map(|p| p.len()).collect();
            assert_eq!(prints, Vec::from_iter(name.map(|_| 64)), "{way}");
            let proof = told(request, "x-proof").concat();
            let (word, principal) = proof.split_once('/').expect("two");
            let wanted = name.map_or(("NONE", 0), |_| ("SUCCESS", 8));
            assert_eq!((word, principal.len()), wanted, "{way}");
        }
    }
}
