//! Certificates, keys and authorities, right and wrong.

use tempfile::TempDir;

use super::{Case, In, check_table, good};

/// PEM files: two pairs, and some that are none.
fn files() -> TempDir {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    let cert = one.cert.pem();
    let key = one.signing_key.serialize_pem();
    write("cert.pem", &cert);
    write("chain.pem", &(cert.clone() + &other.cert.pem()));
    write("key.pem", &key);
    write("both.pem", &(key.clone() + &cert));
    write("other-key.pem", &other.signing_key.serialize_pem());
    write("empty.pem", "");
    write("torn.pem", &cert[..cert.len() / 2]);
    write(
        "word.pem",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    write(
        "number.pem",
        "-----BEGIN CERTIFICATE-----\nAgEB\n-----END CERTIFICATE-----\n",
    );
    write(
        "bad-key.pem",
        "-----BEGIN PRIVATE KEY-----\nAgEB\n-----END PRIVATE KEY-----\n",
    );
    write("locked.pem", &key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    write("long.pem", &"x".repeat((1 << 20) + 1));
    dir
}

/// The cases with `@` for the folder of the files.
fn check(cases: &[(&'static str, &'static str)]) {
    let files = files();
    let folder = files.path().display().to_string();
    let fill = |(text, message): &(&'static str, &'static str)| -> Case {
        let text = format!("bind: 0.0.0.0:80\n{}", text.replace('@', &folder));
        (In::Listener, text.leak(), message)
    };
    check_table(&cases.iter().map(fill).collect::<Vec<_>>());
}

#[test]
fn a_certificate_with_its_key_is_taken() {
    let files = files();
    let folder = files.path().display();
    for (cert, key, length) in [
        ("cert.pem", "key.pem", 1),
        ("chain.pem", "key.pem", 2),
        ("both.pem", "both.pem", 1),
    ] {
        let text =
            format!("bind: 0.0.0.0:80\ntls: {{ cert: {folder}/{cert}, key: {folder}/{key} }}");
        let config = good(In::Listener, &text);
        let tls = config.listeners[0].tls.as_ref().unwrap();
        let proof = &tls.certificates[0].proof;
        assert_eq!(proof.cert, files.path().join(cert));
        assert_eq!(proof.identity.certified().cert.len(), length);
        assert_eq!(tls.certificates[0].names, ["localhost"]);
        assert_eq!(tls, &tls.clone());
        let shown = format!("{config:?}");
        assert!(shown.contains(&format!("Identity({length} certificates)")));
    }
}

#[test]
fn keys_of_tls_are_checked() {
    check(&[
        ("«tls»: { cert: @/cert.pem }", "this tls has no `key`"),
        ("«tls»: { key: @/key.pem }", "this tls has no `cert`"),
        (
            "«tls»: { client_auth: off }",
            "this tls has no `cert` and no `certificates`",
        ),
        (
            "tls: { certificates: [«{ cert: @/cert.pem }»] }",
            "this certificate has no `key`",
        ),
        ("tls: «on»", "must be a map such as `cert: "),
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, «client_cert»: /x }",
            "unknown key `client_cert`",
        ),
        (
            "tls: { «ssl_certificate»: /x, cert: @/cert.pem, key: @/key.pem }",
            "did you mean `cert`?",
        ),
        (
            "tls: { cert: «cert.pem», key: @/key.pem }",
            "write an absolute path",
        ),
    ]);
}

#[test]
fn files_of_tls_are_read_and_held_against_one_another() {
    check(&[
        (
            "tls: { cert: «@/none.pem», key: @/key.pem }",
            "No such file",
        ),
        (
            "tls: { cert: @/cert.pem, key: «@/none.pem» }",
            "No such file",
        ),
        ("tls: { cert: «@», key: @/key.pem }", "is not a file"),
        (
            "tls: { cert: «/dev/null», key: @/key.pem }",
            "is not a file",
        ),
        (
            "tls: { cert: «@/long.pem», key: @/key.pem }",
            "longer than 1 MiB",
        ),
        (
            "tls: { cert: «@/empty.pem», key: @/key.pem }",
            "holds no certificate",
        ),
        (
            "tls: { cert: «@/key.pem», key: @/key.pem }",
            "holds no certificate",
        ),
        ("tls: { cert: «@/torn.pem», key: @/key.pem }", "is not PEM"),
        ("tls: { cert: «@/word.pem», key: @/key.pem }", "is not PEM"),
        (
            "tls: { cert: «@/number.pem», key: @/key.pem }",
            "the first certificate in this file is not valid",
        ),
        (
            "tls: { cert: @/cert.pem, key: «@/empty.pem» }",
            "holds no private key",
        ),
        (
            "tls: { cert: @/cert.pem, key: «@/cert.pem» }",
            "holds no private key",
        ),
        (
            "tls: { cert: @/cert.pem, key: «@/locked.pem» }",
            "is encrypted",
        ),
        (
            "tls: { cert: @/cert.pem, key: «@/bad-key.pem» }",
            "cannot be used",
        ),
        (
            "tls: { cert: @/cert.pem, key: «@/other-key.pem» }",
            "does not belong to the certificate",
        ),
    ]);
}

#[test]
fn both_files_are_looked_at_in_one_run() {
    let text = super::file(
        In::Listener,
        "bind: 0.0.0.0:80\ntls: { cert: /nowhere/c.pem, key: /nowhere/k.pem }",
    );
    let problems = super::problems(&text);
    assert_eq!(problems.as_slice().len(), 2, "{problems}");
}

/// A certificate with these names, and its key; valid from `from` for `days`, counted from today.
fn certificate(names: &[&str], from: i64, days: i64) -> (String, String) {
    let mut params = rcgen::CertificateParams::default();
    let name = |name: &&str| rcgen::SanType::DnsName((*name).try_into().unwrap());
    params.subject_alt_names = names.iter().map(name).collect();
    let today = rcgen::date_time_ymd(2020, 1, 1) + days_since_2020() * DAY;
    let day = |days: i64| match u32::try_from(days) {
        Ok(days) => today + days * DAY,
        Err(_) => today - days.unsigned_abs() as u32 * DAY,
    };
    (params.not_before, params.not_after) = (day(from), day(from + days));
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    (made.pem(), key.serialize_pem())
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

fn days_since_2020() -> u32 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH + DAY * 18_262)
        .unwrap();
    u32::try_from(since.as_secs() / 86_400).unwrap()
}

/// The warnings of a listener with these certificates, each under the text it points at.
fn warnings(pairs: &[(String, String)]) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    let mut items = Vec::new();
    for (at, (cert, key)) in pairs.iter().enumerate() {
        let path = |kind: &str| dir.path().join(format!("{at}-{kind}.pem"));
        std::fs::write(path("cert"), cert).unwrap();
        std::fs::write(path("key"), key).unwrap();
        let (cert, key) = (path("cert"), path("key"));
        items.push(format!(
            "{{ cert: {}, key: {} }}",
            cert.display(),
            key.display()
        ));
    }
    let items = items.join(", ");
    let config = good(
        In::Listener,
        &format!("bind: 0.0.0.0:80\ntls: {{ certificates: [{items}] }}"),
    );
    config.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_certificate_that_is_not_valid_today_is_warned_of_with_its_place() {
    let good = certificate(&["a.example"], -1, 10);
    assert_eq!(warnings(std::slice::from_ref(&good)), Vec::<String>::new());
    let past = warnings(&[good.clone(), certificate(&["b.example"], -10, 5)]);
    assert_eq!(past.len(), 1, "{past:?}");
    assert!(past[0].contains("has expired on"), "{}", past[0]);
    assert!(
        past[0].contains("1-cert.pem") && past[0].contains("^^^"),
        "{}",
        past[0]
    );
    let early = warnings(&[good, certificate(&["b.example"], 5, 10)]);
    assert!(early[0].contains("is not valid before"), "{}", early[0]);
}

#[test]
fn a_certificate_that_nobody_can_ask_for_is_warned_of_where_it_is_the_first_and_else_refused() {
    let nameless = certificate(&[], -1, 10);
    let found = warnings(std::slice::from_ref(&nameless));
    assert!(
        found[0].contains("is for no name and no address"),
        "{}",
        found[0]
    );
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let named = certificate(&["a.example"], -1, 10);
    write("a.pem", &(named.0 + &named.1));
    write("b.pem", &(nameless.0 + &nameless.1));
    let at = dir.path().display();
    let text = format!(
        "bind: 0.0.0.0:80\ntls: {{ certificates: [{{ cert: {at}/a.pem, key: {at}/a.pem }}, \
         {{ cert: «{at}/b.pem», key: {at}/b.pem }}] }}"
    );
    check_table(&[(In::Listener, text.leak(), "is for no DNS name")]);
}

#[test]
fn several_certificates_are_read_in_the_order_of_the_file() {
    let files = files();
    let at = files.path().display();
    let config = good(
        In::Listener,
        &format!(
            "bind: 0.0.0.0:80\ntls: {{ cert: {at}/cert.pem, key: {at}/key.pem, certificates: \
             [{{ cert: {at}/both.pem, key: {at}/both.pem }}] }}"
        ),
    );
    let tls = config.listeners[0].tls.as_ref().unwrap();
    let paths: Vec<_> = tls.certificates.iter().map(|one| &one.proof.cert).collect();
    assert_eq!(
        paths,
        [
            &files.path().join("cert.pem"),
            &files.path().join("both.pem")
        ]
    );
}

#[test]
fn what_is_wanted_of_clients_is_checked() {
    check(&[
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, client_ca: «@/none.pem» }",
            "No such file",
        ),
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, client_ca: «@/key.pem» }",
            "holds no certificate",
        ),
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, client_ca: «@/number.pem» }",
            "certificate 1 in this file is not valid",
        ),
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, «client_auth»: optional }",
            "`client_auth` needs `client_ca`",
        ),
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, client_ca: @/cert.pem, client_auth: «maybe» }",
            "`client_auth` takes required | optional | off",
        ),
    ]);
}

#[test]
fn clients_prove_themselves_where_there_is_an_authority_unless_it_is_said_otherwise() {
    let files = files();
    let at = files.path().display();
    for (auth, required) in [
        ("", Some(true)),
        (", client_auth: required", Some(true)),
        (", client_auth: optional", Some(false)),
        (", client_auth: off", None),
    ] {
        let text = format!(
            "bind: 0.0.0.0:80\ntls: {{ cert: {at}/cert.pem, key: {at}/key.pem, client_ca: \
             {at}/chain.pem{auth} }}"
        );
        let config = good(In::Listener, &text);
        let tls = config.listeners[0].tls.as_ref().unwrap();
        let clients = tls.clients.as_ref();
        assert_eq!(clients.map(|proof| proof.required), required, "{auth}");
        assert!(clients.is_none_or(|proof| proof.authorities.as_slice().len() == 2));
    }
}
