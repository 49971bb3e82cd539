//! Certificates and keys of listeners, right and wrong.

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
        assert_eq!(tls.cert, files.path().join(cert));
        assert_eq!(tls.identity.certified().cert.len(), length);
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
        ("tls: «on»", "must be a map such as `cert: "),
        (
            "tls: { cert: @/cert.pem, key: @/key.pem, «client_ca»: /x }",
            "unknown key `client_ca`",
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
