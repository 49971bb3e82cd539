//! TLS to endpoints, right and wrong.

use tempfile::TempDir;

use super::super::{EndpointTls, Trust};
use super::{Case, Config, In, check_table, good};

/// PEM files: a certificate that vouches for itself, and its key.
fn files() -> TempDir {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("ca.pem", &made.cert.pem());
    write("key.pem", &made.signing_key.serialize_pem());
    let other = rcgen::KeyPair::generate().unwrap();
    write("other.pem", &other.serialize_pem());
    dir
}

fn tls_of(config: &Config) -> Vec<Option<EndpointTls>> {
    let endpoints = config.pools[0].endpoints.iter();
    endpoints.map(|endpoint| endpoint.tls.clone()).collect()
}

fn endpoint(text: &str) -> Option<EndpointTls> {
    tls_of(&good(In::Endpoint, text)).remove(0)
}

#[test]
fn an_endpoint_speaks_tls_if_its_address_or_it_itself_says_so() {
    let files = files();
    let ca = files.path().join("ca.pem");
    assert_eq!(endpoint("address: w:1"), None);
    assert_eq!(endpoint("address: \"http://w:1\""), None);
    assert_eq!(endpoint("address: w:1\ntls: off"), None);
    let verified = format!("tls: {{ ca: {} }}", ca.display());
    for address in [
        "w.internal:1",
        "https://w.internal:1",
        "HTTPS://W.internal:1",
    ] {
        let tls = endpoint(&format!("address: \"{address}\"\n{verified}")).unwrap();
        assert_eq!(tls.server_name, "w.internal");
        assert!(matches!(&tls.trust, Trust::File(path, _) if *path == ca));
        assert_eq!(tls.proof, None);
    }
    let tls = endpoint("address: \"[::1]:1\"\ntls: { verify: off, server_name: W.example }");
    let tls = tls.unwrap();
    assert_eq!(
        (tls.trust, tls.server_name.as_str()),
        (Trust::Anybody, "w.example")
    );
}

#[test]
fn what_an_endpoint_does_not_say_its_pool_says_for_it() {
    let files = files();
    let at = files.path().display();
    let text = format!(
        "tls: {{ ca: {at}/ca.pem, server_name: all.example, cert: {at}/ca.pem, key: {at}/key.pem }}\n\
         endpoints:\n  - a:1\n  - https://b:1\n  - http://c:1\n  - {{ address: d:1, tls: off }}\n  \
         - {{ address: e:1, tls: {{ server_name: e.example }} }}\n  \
         - {{ address: f:1, tls: {{ verify: off }} }}"
    );
    let config = good(
        In::File,
        &format!(
            "listeners: [{{ bind: 0.0.0.0:80 }}]\nroutes: [{{ path: /mcp, pool: p }}]\npools:\n  p:\n    {}\n",
            text.replace('\n', "\n    ")
        ),
    );
    let said = tls_of(&config);
    let names: Vec<_> = said
        .iter()
        .map(|tls| tls.as_ref().map(|tls| tls.server_name.as_str()))
        .collect();
    let all = Some("all.example");
    assert_eq!(names, [all, all, None, None, Some("e.example"), all]);
    let with_proof = said.iter().flatten().filter(|tls| tls.proof.is_some());
    assert_eq!(with_proof.count(), 4);
    assert_eq!(said[5].as_ref().unwrap().trust, Trust::Anybody);
    assert_eq!(
        said[0].as_ref().unwrap().trust,
        said[4].as_ref().unwrap().trust
    );
    let warned: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("anybody on the way"), "{warned:?}");
}

#[test]
fn tls_of_endpoints_is_checked() {
    let files = files();
    let folder = files.path().display().to_string();
    let fill = |(text, message): &(&'static str, &'static str)| -> Case {
        (In::Endpoint, text.replace('@', &folder).leak(), message)
    };
    let cases = [
        (
            "address: «http://w:1»\ntls: { verify: off }",
            "`http://` is without TLS",
        ),
        ("address: «https://w:1»\ntls: off", "`https://` is TLS"),
        ("address: w:1\ntls: { ca: «@/none.pem» }", "No such file"),
        (
            "address: w:1\ntls: { ca: «@/key.pem» }",
            "holds no certificate",
        ),
        (
            "address: w:1\ntls: { «ca»: @/ca.pem, verify: off }",
            "`ca` has no meaning",
        ),
        (
            "address: w:1\ntls: { verify: «maybe» }",
            "`verify` takes on | off",
        ),
        (
            "address: w:1\ntls: { ca: @/ca.pem, server_name: «a b» }",
            "neither a DNS name nor an IP address",
        ),
        (
            "address: w:1\ntls: { ca: @/ca.pem, «cert»: @/ca.pem }",
            "`cert` needs `key`",
        ),
        (
            "address: w:1\ntls: { ca: @/ca.pem, «key»: @/key.pem }",
            "`key` needs `cert`",
        ),
        (
            "address: w:1\ntls: { ca: @/ca.pem, cert: @/ca.pem, key: «@/other.pem» }",
            "does not belong to the certificate",
        ),
    ];
    check_table(&cases.iter().map(fill).collect::<Vec<_>>());
}
