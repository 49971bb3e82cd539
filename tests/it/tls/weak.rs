//! What is weak is not agreed on: handshakes written by hand, since no library of today offers them all;
//! and the tools that operators have at hand, where they are installed.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::build;
use crate::support::tls::Certificate;
use crate::support::{Endpoint, Tidegate, within};

/// What TLS 1.2 with an ECDSA certificate may use (RFC 5289 section 3.2, RFC 7905 section 2).
const GOOD: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];

/// The alerts of RFC 5246 section 7.2 that refuse a handshake.
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// What a server says to a first flight.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// It goes on, with this version and cipher.
    Hello(u16, u16),
    Alert(u8),
}

/// A client's first flight up to TLS 1.2, offering these ciphers.
fn hello(version: u16, ciphers: &[u16]) -> Vec<u8> {
    let block = |bytes: &[u8]| {
        let mut block = (bytes.len() as u16).to_be_bytes().to_vec();
        block.extend_from_slice(bytes);
        block
    };
    let words = |words: &[u16]| -> Vec<u8> { words.iter().flat_map(|w| w.to_be_bytes()).collect() };
    let extension = |number: u16, body: &[u8]| {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend(block(body));
        bytes
    };
    let mut extensions = extension(10, &block(&words(&[0x001d, 0x0017, 0x0018])));
    extensions.extend(extension(11, &[1, 0]));
    let signatures = [0x0403, 0x0503, 0x0804, 0x0401, 0x0203, 0x0201];
    extensions.extend(extension(13, &block(&words(&signatures))));
    extensions.extend(extension(23, &[]));
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(block(&words(ciphers)));
    body.extend([1, 0]);
    body.extend(block(&extensions));
    let mut message = vec![1, 0];
    message.extend(block(&body));
    let mut record = vec![22, 3, 1];
    record.extend(block(&message));
    record
}

async fn said(gate: &Tidegate, flight: &[u8]) -> Said {
    let mut stream = TcpStream::connect(gate.address())
        .await
        .expect("a listener");
    stream.write_all(flight).await.expect("sent");
    let mut record = [0; 5];
    within("an answer", stream.read_exact(&mut record))
        .await
        .expect("an answer");
    let mut body = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
    stream.read_exact(&mut body).await.expect("all of it");
    match record[0] {
        21 => Said::Alert(body[1]),
        22 => {
            let at = 39 + usize::from(body[38]);
            let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
            Said::Hello(word(4), word(at))
        }
        other => panic!("a record of kind {other}"),
    }
}

async fn listening() -> (Endpoint, Certificate, Tidegate) {
    let endpoint = Endpoint::start("a").await;
    let certificate = Certificate::new();
    let gate = build(&[&endpoint], &certificate).start().await;
    (endpoint, certificate, gate)
}

#[tokio::test]
async fn versions_below_1_2_are_refused() {
    let (_endpoint, _certificate, gate) = listening().await;
    for version in [0x0300, 0x0301, 0x0302] {
        let answer = said(&gate, &hello(version, &[0xc009, 0xc00a, 0x002f, 0xc02b])).await;
        assert_eq!(answer, Said::Alert(PROTOCOL_VERSION), "{version:#x}");
    }
    let answer = said(&gate, &hello(0x0303, &GOOD)).await;
    assert!(matches!(answer, Said::Hello(0x0303, _)), "{answer:?}");
}

#[tokio::test]
async fn of_all_ciphers_there_are_only_good_ones_are_agreed_on() {
    let (_endpoint, _certificate, gate) = listening().await;
    // 0x00ff and 0x5600 say something else than a cipher (RFC 5746, RFC 7507).
    let is_bad = |suite: &u16| !GOOD.contains(suite) && ![0x00ff, 0x5600].contains(suite);
    let bad: Vec<u16> = (0..=u16::MAX).filter(is_bad).collect();
    for some in bad.chunks(4096) {
        let answer = said(&gate, &hello(0x0303, some)).await;
        assert_eq!(
            answer,
            Said::Alert(HANDSHAKE_FAILURE),
            "from {:#x}",
            some[0]
        );
    }
    for suite in GOOD {
        let answer = said(&gate, &hello(0x0303, &[suite])).await;
        assert_eq!(answer, Said::Hello(0x0303, suite));
    }
    // AES-128 before others, whatever the client likes best.
    let answer = said(&gate, &hello(0x0303, &[0xcca9, 0xc02c, 0xc02b])).await;
    assert_eq!(answer, Said::Hello(0x0303, 0xc02b));
}

/// What a tool says on both its outputs; `None` if it is not installed.
async fn tool(name: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    let output = within(name, command.kill_on_drop(true).output())
        .await
        .ok()?;
    let both = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&both).into_owned())
}

#[tokio::test]
async fn openssl_and_curl_are_served_by_either_version_of_http() {
    let (_endpoint, certificate, gate) = listening().await;
    let ca = certificate.file();
    let address = gate.address().to_string();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for protocol in ["h2", "http/1.1"] {
            let arguments = [
                "s_client", "-connect", &address, "-CAfile", &ca, version, "-alpn", protocol,
            ];
            let Some(said) = tool("openssl", &arguments).await else {
                break;
            };
            assert!(
                said.contains(&format!("ALPN protocol: {protocol}")),
                "{said}"
            );
            assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
            assert!(said.contains(&format!("New, {name}")), "{said}");
        }
    }
    let url = format!("https://{address}/health");
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let shown = "%{http_code} %{http_version}";
        let arguments = [
            "-s",
            "-o",
            "/dev/null",
            "--cacert",
            &ca,
            flag,
            "-w",
            shown,
            &url,
        ];
        if let Some(said) = tool("curl", &arguments).await
            && !said.contains("does not support")
        {
            assert_eq!(said, format!("200 {version}"));
        }
    }
}
