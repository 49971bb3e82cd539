use std::time::{Duration, Instant};

use super::rates::{Short, seconds};
use super::*;
use crate::config;
use crate::limit::Client;

const HEAD: &str = "listeners: [{ bind: 127.0.0.1:0 }]\n";

fn limits(route: &str, pool: &str) -> Limits {
    let text = format!(
        "{HEAD}routes:\n  - {{ path: /mcp, pool: a{route} }}\npools:\n  a: {{ endpoints: [127.0.0.1:1]{pool} }}\n"
    );
    Limits::new(&config::parse("test", &text).unwrap(), None, Instant::now())
}

fn of(number: u8) -> Asker {
    Asker {
        address: Client::at([192, 0, 2, number].into()),
        principal: None,
    }
}

fn proved(number: u8, principal: u64) -> Asker {
    Asker {
        principal: Some(Client::proved(principal)),
        ..of(number)
    }
}

fn short(of: Of, seconds: u32) -> Result<(), Short> {
    Err(Short { of, seconds })
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
        assert_eq!(limits.take(rates, of(1), 1, begin), short(Of::All, 1));
    }
    let later = begin + Duration::from_secs(1);
    assert!(limits.take(rates, of(1), 1, later).is_ok());
    let last = later + Duration::from_secs(1);
    assert_eq!(limits.take(rates, of(1), 1, last), short(Of::Client, 28));
    assert!(limits.take(rates, of(2), 1, last).is_ok());
}

#[test]
fn a_principal_is_counted_wherever_it_is_and_apart_from_its_neighbours() {
    let limits = limits(", rate: { per_principal: 2/h, burst: 2 }", "");
    let rates = limits.routes[0].as_ref().unwrap();
    let now = limits.base;
    let take = |asker| limits.take(rates, asker, 1, now);
    assert!(take(proved(1, 7)).is_ok() && take(proved(2, 7)).is_ok());
    for number in 1..4 {
        assert_eq!(take(proved(number, 7)), short(Of::Principal, 1800));
        assert!(take(of(number)).is_ok(), "nobody in particular");
    }
    assert!(take(proved(1, 8)).is_ok());
}

#[test]
fn whoever_is_refused_pays_nothing_anywhere() {
    let rate = ", rate: { per_client: 3/h, per_principal: 1/h, burst: 3, total: 4/m }";
    let limits = limits(rate, "");
    let rates = limits.routes[0].as_ref().unwrap();
    let begin = limits.base + Duration::from_secs(60);
    let minute = |n: u64| begin + Duration::from_secs(60 * n);
    // The principal's three are spent from one address, and its next ones cost another nothing.
    for n in 0..3 {
        assert!(limits.take(rates, proved(1, 7), 1, minute(n)).is_ok());
    }
    for _ in 0..9 {
        let refused = limits.take(rates, proved(2, 7), 1, minute(3));
        assert!(matches!(
            refused,
            Err(Short {
                of: Of::Principal,
                ..
            })
        ));
    }
    for n in 3..6 {
        assert!(limits.take(rates, of(2), 1, minute(n)).is_ok());
    }
    // What all have used up costs neither.
    assert!(limits.take(rates, proved(3, 8), 1, minute(6)).is_ok());
    for _ in 0..9 {
        let refused = limits.take(rates, proved(3, 8), 1, minute(6));
        assert_eq!(refused, short(Of::All, 15));
    }
    for n in 7..9 {
        assert!(limits.take(rates, proved(3, 8), 1, minute(n)).is_ok());
    }
    let refused = limits.take(rates, proved(4, 8), 1, minute(9));
    assert!(matches!(
        refused,
        Err(Short {
            of: Of::Principal,
            ..
        })
    ));
}

#[test]
fn numbers_are_of_an_address_and_of_a_principal() {
    let counts = Counts::new();
    let enter = |asker| {
        enter(
            &counts,
            asker,
            (Some(3), Capped::SessionsPerClient),
            (Some(2), Capped::SessionsPerPrincipal),
        )
    };
    let over = |capped| Fault::Limited(capped, 0);
    let one = enter(proved(1, 7)).unwrap();
    let other = enter(proved(2, 7)).unwrap();
    assert_eq!((one.len(), other.len()), (2, 2));
    let refused = enter(proved(1, 7)).unwrap_err();
    assert_eq!(refused, over(Capped::SessionsPerPrincipal));
    // The refused one is not counted at its address.
    let held = [of(1), of(1)].map(|asker| enter(asker).unwrap());
    let refused = enter(proved(1, 8)).unwrap_err();
    assert_eq!(refused, over(Capped::SessionsPerClient));
    drop(one);
    assert!(enter(proved(1, 7)).is_ok());
    drop((other, held));
    assert!(counts.is_empty());
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

#[test]
fn what_was_used_counts_on_where_other_things_have_changed() {
    let config = |more: &str, rate: &str, concurrent: u32| {
        let text = format!(
            "{HEAD}routes:\n{more}  - {{ path: /mcp, pool: a, rate: {rate} }}\npools:\n  a:\n    endpoints: [127.0.0.1:1]\n    tools: [{{ name: report, concurrent: {concurrent}, total: 1/h }}]\n"
        );
        config::parse("test", &text).unwrap()
    };
    let first = config("", "{ per_client: 1/h, total: 2/s, burst: 1 }", 2);
    let old = Limits::new(&first, None, Instant::now());
    let at = old.base + Duration::from_secs(1);
    let rates = old.routes[0].as_ref().unwrap();
    assert!(old.take(rates, of(1), 1, at).is_ok());
    let running = old.tools[0][0].concurrent.as_ref().unwrap().enter();
    let tool = &old.tools[0][0].rates;
    assert!(old.take(tool, of(1), 1, at).is_ok());

    let more = "  - { path: /new, pool: a, rate: { per_client: 1/h, burst: 1 } }\n";
    let second = config(more, "{ per_client: 1/h, total: 2/s, burst: 1 }", 1);
    let new = Limits::new(&second, Some((&first, &old)), Instant::now());
    let (added, rates) = (new.routes[0].as_ref(), new.routes[1].as_ref().unwrap());
    let added = added.unwrap();
    assert_eq!(
        new.take(rates, of(1), 1, at).map_err(|short| short.of),
        Err(Of::Client)
    );
    assert!(new.take(rates, of(2), 1, at).is_ok());
    assert_eq!(
        new.take(rates, of(3), 1, at).map_err(|short| short.of),
        Err(Of::All)
    );
    assert!(new.take(added, of(1), 1, at).is_ok(), "another rule");
    let tool = &new.tools[0][0];
    let taken = new.take(&tool.rates, of(2), 1, at);
    assert_eq!(taken.map_err(|short| short.of), Err(Of::All));
    let cap = tool.concurrent.as_ref().unwrap();
    assert_eq!(cap.taken(), 1);
    drop(cap.enter().expect("nothing has changed yet"));
    new.settle();
    assert!(cap.enter().is_none());
    drop(running);
    assert!(cap.enter().is_some());
}
