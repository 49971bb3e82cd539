//! Names that are known, and what they are for.

use super::*;

#[test]
fn every_known_name_is_found_and_no_other() {
    const { assert!(KNOWN <= 64, "a name has a bit") };
    assert!(NAMES.iter().all(|name| (2..=24).contains(&name.len())));
    assert!(NAMES.windows(2).all(|two| two[0].len() <= two[1].len()));
    for (at, name) in NAMES.iter().enumerate() {
        assert_eq!(Known::find(name.as_bytes()), Some(Known(at as u8)));
        assert_eq!(find(name.as_bytes()), Some(Known(at as u8)));
        let upper = name.to_ascii_uppercase();
        assert_eq!(Known::find(upper.as_bytes()), Some(Known(at as u8)));
        assert_eq!(Known::find(&upper.as_bytes()[1..]), None, "{upper}");
    }
    for name in [
        "",
        "x",
        "hosts",
        "x-request-id",
        "mcp-param-region",
        "mcp-protocol-versions",
    ] {
        assert_eq!(Known::find(name.as_bytes()), None, "{name}");
    }
}

#[test]
fn a_name_with_underscores_is_left_out_like_the_one_with_hyphens() {
    let names = Names::of(&[X_FORWARDED_FOR, ORIGIN]);
    for name in [
        "x-forwarded-for",
        "X_Forwarded_For",
        "x_forwarded-for",
        "Origin",
    ] {
        assert!(names.has(Name::new(name.as_bytes())), "{name}");
    }
    for name in [
        "x_forwarded_host",
        "x_",
        "_",
        "x__forwarded_for",
        "user_agent",
    ] {
        assert!(!names.has(Name::new(name.as_bytes())), "{name}");
    }
    let long = "x_".repeat(100);
    assert!(!names.has(Name::new(long.as_bytes())));
}

#[test]
fn connection_nominates_what_it_names_itself() {
    for value in ["close", " Keep-Alive ", "upgrade", "TE", ""] {
        assert!(!tokens(value.as_bytes()).any(nominates), "{value}");
    }
    assert!(nominates(b"x-secret"));
}
