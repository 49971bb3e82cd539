use std::time::Duration;

use super::*;

const HEAD: &str = "listeners: [{ bind: 127.0.0.1:0 }]\n";

fn limits(route: &str, pool: &str) -> Limits {
    let text = format!(
        "{HEAD}routes:\n  - {{ path: /mcp, pool: a{route} }}\npools:\n  a: {{ endpoints: [127.0.0.1:1]{pool} }}\n"
    );
    Limits::new(&config::parse("test", &text).unwrap(), Instant::now())
}

fn of(number: u8) -> Client {
    Client::at([192, 0, 2, number].into())
}

#[test]
fn nothing_is_kept_where_nothing_is_limited() {
    let limits = limits("", "");
    assert!(limits.routes[0].is_none() && limits.tools[0].is_empty());
    assert!(limits.buckets.is_none());
    let total = self::limits(", rate: { total: 1/s }", "");
    assert!(total.buckets.is_none(), "one bucket is no table");
}

#[test]
fn a_client_pays_nothing_for_what_all_have_used_up() {
    let limits = limits(", rate: { per_client: 2/m, burst: 2, total: 1/s }", "");
    let rates = limits.routes[0].as_ref().unwrap();
    let begin = limits.base + Duration::from_secs(1);
    assert!(limits.take(rates, of(1), 1, begin).is_ok());
    for _ in 0..10 {
        let short = limits.take(rates, of(1), 1, begin).err().unwrap();
        assert_eq!((short.of_all, short.seconds), (true, 1));
    }
    let later = begin + Duration::from_secs(1);
    assert!(limits.take(rates, of(1), 1, later).is_ok());
    let short = limits.take(rates, of(1), 1, later + Duration::from_secs(1));
    let short = short.err().unwrap();
    assert_eq!((short.of_all, short.seconds), (false, 28));
    assert!(
        limits
            .take(rates, of(2), 1, later + Duration::from_secs(1))
            .is_ok()
    );
}

#[test]
fn rules_do_not_share_buckets() {
    let rate = ", rate: { per_client: 1/h }";
    let tools = ", tools: [{ name: a, per_client: 1/h }, { name: b, per_client: 1/h }]";
    let limits = limits(rate, tools);
    let now = limits.base;
    let tools = &limits.tools[0];
    let all = [
        limits.routes[0].as_ref().unwrap(),
        &tools[0].rates,
        &tools[1].rates,
    ];
    assert!(
        all.iter()
            .all(|rates| limits.take(rates, of(1), 1, now).is_ok())
    );
    assert!(
        all.iter()
            .all(|rates| limits.take(rates, of(1), 1, now).is_err())
    );
}

#[test]
fn seconds_are_whole_and_never_too_few() {
    for (nanos, whole) in [(0, 1), (1, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
        assert_eq!(seconds(Duration::from_nanos(nanos)), whole);
    }
}
