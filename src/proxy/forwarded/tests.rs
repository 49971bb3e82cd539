//! Who the client is, by what is sent and by whom.

use proptest::prelude::*;

use super::*;
use crate::transport::h1::head::Head;

fn proxies(trusted: &str, header: &str) -> Proxies {
    let text = format!(
        "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: a }}]\n\
         pools: {{ a: {{ endpoints: [127.0.0.1:1] }} }}\n\
         trusted_proxies: [{trusted}]\ntrusted_header: {header}\n"
    );
    crate::config::parse("test", &text).unwrap().proxies
}

fn info(peer: &str, tls: bool) -> ConnInfo {
    ConnInfo {
        client: match peer {
            "unix" => SocketAddr::from(([0, 0, 0, 0], 0)),
            peer => SocketAddr::new(peer.parse().unwrap(), 4711),
        },
        local: "192.0.2.9:80".parse().unwrap(),
        listener: "t".into(),
        tls: tls.then_some("1.3"),
        place: None,
    }
}

fn head(fields: &str) -> Head {
    let text = format!("POST /mcp HTTP/1.1\r\nHost: asked.example\r\n{fields}\r\n");
    Head::parse(text.as_bytes(), 100).unwrap()
}

const NETS: &str = "10.0.0.0/8, \"2001:db8:1::/48\", unix";

fn client_of(header: &str, peer: &str, fields: &str) -> String {
    let proxies = proxies(NETS, header);
    let client = client(&proxies, &head(fields), &info(peer, false));
    client.map_or_else(|| "nobody".to_owned(), |client| client.to_string())
}

/// The fields that an endpoint is told, as lines.
fn told(proxies: &Proxies, how: ClientHeaders, peer: &str, tls: bool, fields: &str) -> String {
    let (head, info) = (head(fields), info(peer, tls));
    let told = Told::of(proxies, how, &head, &info);
    let mut set = Set::new();
    told.set(&mut set);
    let lines = set
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", str::from_utf8(value).unwrap()));
    lines.collect()
}

#[test]
fn the_client_is_the_first_that_is_no_trusted_proxy() {
    for (peer, list, expected) in [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (
            "10.0.0.1",
            "10.9.9.9, 203.0.113.9 ,, 10.0.0.2,",
            "203.0.113.9",
        ),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9:50000", "203.0.113.9"),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
        (
            "10.0.0.1",
            "[2001:db8::9]:443, [2001:db8:1::2%eth0]",
            "2001:db8::9",
        ),
        ("2001:db8:1::1", "203.0.113.9", "203.0.113.9"),
        ("unix", "203.0.113.9", "203.0.113.9"),
        ("unix", "", "nobody"),
        // What is no address ends what is known.
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, _hidden, 10.0.0.2", "10.0.0.2"),
        ("unix", "203.0.113.9, unknown", "nobody"),
    ] {
        let fields = format!("X-Forwarded-For: {list}\r\n");
        assert_eq!(
            client_of("x_forwarded", peer, &fields),
            expected,
            "{peer} {list}"
        );
    }
}

#[test]
fn several_lines_are_one_list() {
    let fields = "X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\nX-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n";
    assert_eq!(client_of("x_forwarded", "10.0.0.1", fields), "203.0.113.9");
    let fields = "Forwarded: for=1.1.1.1, for=203.0.113.9\r\nForwarded: for=10.0.0.2\r\n";
    assert_eq!(client_of("forwarded", "10.0.0.1", fields), "203.0.113.9");
}

#[test]
fn only_the_header_that_is_trusted_counts() {
    let both =
        "X-Forwarded-For: 203.0.113.1\r\nForwarded: for=203.0.113.2\r\nX-Real-IP: 203.0.113.3\r\n";
    assert_eq!(client_of("x_forwarded", "10.0.0.1", both), "203.0.113.1");
    assert_eq!(client_of("forwarded", "10.0.0.1", both), "203.0.113.2");
    let other = "X-Forwarded-For: 203.0.113.1\r\n";
    assert_eq!(client_of("forwarded", "10.0.0.1", other), "10.0.0.1");
}

#[test]
fn forwarded_is_followed_like_the_list() {
    for (list, expected) in [
        ("for=\"[2001:db8::9]:443\";proto=https", "2001:db8::9"),
        (
            "for=1.1.1.1, for=203.0.113.9, for=\"[2001:db8:1::2]\"",
            "203.0.113.9",
        ),
        ("for=203.0.113.9, for=_hidden", "10.0.0.1"),
        ("for=203.0.113.9, proto=http", "10.0.0.1"),
        // An open quote: nothing of it is believed.
        ("for=\"1.1.1.1, for=203.0.113.9", "10.0.0.1"),
    ] {
        let fields = format!("Forwarded: {list}\r\n");
        assert_eq!(
            client_of("forwarded", "10.0.0.1", &fields),
            expected,
            "{list}"
        );
    }
}

#[test]
fn an_endpoint_is_told_of_a_client_that_nobody_speaks_for() {
    let proxies = Proxies::default();
    let lies = "X-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: evil.example\r\n";
    assert_eq!(
        told(&proxies, ClientHeaders::Both, "192.0.2.1", false, lies),
        "x-forwarded-for: 192.0.2.1\nx-real-ip: 192.0.2.1\nx-forwarded-proto: http\n\
         x-forwarded-host: asked.example\nforwarded: for=192.0.2.1;host=\"asked.example\";proto=http\n"
    );
    assert_eq!(
        told(
            &proxies,
            ClientHeaders::Forwarded,
            "2001:db8::1",
            true,
            lies
        ),
        "forwarded: for=\"[2001:db8::1]\";host=\"asked.example\";proto=https\n"
    );
    assert_eq!(
        told(&proxies, ClientHeaders::Off, "192.0.2.1", false, lies),
        ""
    );
    assert_eq!(
        told(&proxies, ClientHeaders::Both, "unix", false, ""),
        "x-forwarded-proto: http\nx-forwarded-host: asked.example\n\
         forwarded: for=unknown;host=\"asked.example\";proto=http\n"
    );
}

#[test]
fn what_trusted_proxies_say_is_passed_on_from_the_client_on() {
    let said = "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: real.example:8443\r\n";
    let proxies = proxies(NETS, "x_forwarded");
    assert_eq!(
        told(&proxies, ClientHeaders::Both, "10.0.0.1", false, said),
        "x-forwarded-for: 203.0.113.9, 10.0.0.2, 10.0.0.1\nx-real-ip: 203.0.113.9\n\
         x-forwarded-proto: https\nx-forwarded-host: real.example:8443\n\
         forwarded: for=203.0.113.9;host=\"real.example:8443\";proto=https, for=10.0.0.2, for=10.0.0.1\n"
    );
}

#[test]
fn what_belongs_to_the_client_stands_where_the_client_does() {
    let proxies = proxies(NETS, "x_forwarded");
    let proto = |list: &str, proto: &str| {
        let fields = format!("X-Forwarded-For: {list}\r\nX-Forwarded-Proto: {proto}\r\n");
        let told = told(
            &proxies,
            ClientHeaders::XForwarded,
            "10.0.0.1",
            false,
            &fields,
        );
        told.contains("x-forwarded-proto: https\n")
    };
    assert!(
        !proto("203.0.113.9", "https, http"),
        "the client's own word"
    );
    assert!(proto("203.0.113.9, 10.0.0.2", "https, http"));
    assert!(proto("203.0.113.9, 10.0.0.2", "HTTPS"));
    assert!(!proto("203.0.113.9", "javascript"));
    let fields = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Host: a b\"\r\n";
    let told = told(&proxies, ClientHeaders::Both, "10.0.0.1", false, fields);
    assert!(told.contains("x-forwarded-host: asked.example\n"), "{told}");
}

#[test]
fn a_long_chain_ends_somewhere() {
    let list = vec!["10.0.0.2"; 1000].join(",");
    let fields = format!("X-Forwarded-For: 203.0.113.9,{list}\r\n");
    assert_eq!(client_of("x_forwarded", "10.0.0.1", &fields), "10.0.0.2");
}

proptest! {
    #[test]
    fn no_client_passes_for_another(sent in "[ -~]{0,60}", forwarded: bool) {
        let (header, line) = if forwarded {
            ("forwarded", format!("Forwarded: {sent}, for=203.0.113.9\r\n"))
        } else {
            ("x_forwarded", format!("X-Forwarded-For: {sent}, 203.0.113.9\r\n"))
        };
        let client = client_of(header, "10.0.0.1", &line);
        // Its own, or that of the proxy that could not be understood.
        prop_assert!(client == "203.0.113.9" || forwarded && client == "10.0.0.1", "{}", client);
        prop_assert_eq!(client_of(header, "192.0.2.1", &line), "192.0.2.1");
    }

    #[test]
    fn what_is_sent_is_one_line_that_is_read_as_it_was_meant(sent in "[ -~]{0,60}", v6: bool) {
        let peer = if v6 { "2001:db8:1::1" } else { "10.0.0.1" };
        let fields = format!("X-Forwarded-For: {sent}, 203.0.113.9\r\nX-Forwarded-Host: {sent}\r\n");
        let first = proxies(NETS, "x_forwarded");
        let lines = told(&first, ClientHeaders::Both, peer, false, &fields);
        let fields = lines.replace('\n', "\r\n");
        for header in ["x_forwarded", "forwarded"] {
            prop_assert_eq!(client_of(header, "10.0.0.7", &fields), "203.0.113.9");
        }
    }
}

proptest! {
    #[test]
    fn addresses_are_written_as_the_library_does(address: IpAddr) {
        let mut text = Text::<64>::default();
        text.put_address(address);
        prop_assert_eq!(str::from_utf8(&text.0).unwrap(), address.to_string());
    }
}
