use super::*;
use crate::mcp::SseScan;
use crate::mcp::sse::Mode;
use crate::session::{EventId, NameHash};

fn key() -> Key {
    Key::of(NameHash::of("p"), NameHash::of("e"), "s")
}

fn config(events: usize, bytes: usize) -> Resume {
    Resume {
        events,
        bytes,
        keep: Duration::from_secs(60),
        memory: 1 << 20,
    }
}

/// A stream on its way, as the relay takes it.
struct Stream {
    scan: SseScan,
    lent: Lent,
    sent: Vec<u8>,
}

impl Stream {
    fn new(rings: &Arc<Rings>, config: &Resume) -> Self {
        let mut lent = Lent::new(rings, config, key(), StreamOf::Request, Some("7"));
        lent.enter();
        Self {
            scan: SseScan::new(Mode::Messages),
            lent,
            sent: Vec::new(),
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        let Self { scan, lent, sent } = self;
        scan.feed(piece, &mut |event| {
            let border = Border {
                blank: event.blank,
                end: event.end,
                has_id: event.has_id,
                answers: false,
            };
            lent.border(piece, border);
        });
        match lent.passed(piece, scan.at_boundary()) {
            Some(passed) => sent.extend_from_slice(&passed),
            None => sent.extend_from_slice(piece),
        }
    }
}

/// The data and the number of every event.
fn read(stream: &[u8]) -> Vec<(String, u64)> {
    let text = String::from_utf8(stream.to_vec())
        .unwrap()
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let mut events = Vec::new();
    for block in text.split("\n\n") {
        let field = |name: &str| {
            let mut lines = block.lines().filter_map(|line| line.strip_prefix(name));
            lines.next_back().map(|value| value.trim_start().to_owned())
        };
        if let (Some(data), Some(id)) = (field("data:"), field("id:")) {
            let id = EventId::parse(id.as_bytes()).unwrap();
            let Place::Number(number) = id.place else {
                panic!("{id:?}");
            };
            events.push((data, number));
        }
    }
    events
}

#[test]
fn every_event_gets_an_id_at_its_end_however_it_is_cut() {
    for text in [
        "data: a\n\nevent: message\ndata: b\n\n: c\n\ndata: d\n\n",
        "data: a\r\n\r\nevent: message\r\ndata: b\r\n\r\n: c\r\n\r\ndata: d\r\n\r\n",
        "data: a\r\revent: message\rdata: b\r\r: c\r\rdata: d\r\r",
    ] {
        for step in 1..=text.len() {
            let rings = Rings::new(1 << 20);
            let mut stream = Stream::new(&rings, &config(10, 1000));
            text.as_bytes()
                .chunks(step)
                .for_each(|piece| stream.feed(piece));
            let events = ["a", "b", "d"].map(str::to_owned).into_iter().zip(1..);
            assert_eq!(
                read(&stream.sent),
                events.collect::<Vec<_>>(),
                "{text:?} by {step}"
            );
            stream.lent.catch_up(1);
            let missed = read(&stream.lent.take_missed());
            assert_eq!(missed, [("b".to_owned(), 2), ("d".to_owned(), 3)]);
            stream.lent.catch_up(99);
            assert!(stream.lent.take_missed().is_empty(), "it never was");
        }
    }
}

#[test]
fn a_server_that_gives_ids_is_left_alone() {
    let text = "id: 1\ndata:\n\ndata: a\nid: 2\n\ndata: b\n\n";
    for step in 1..=text.len() {
        let rings = Rings::new(1 << 20);
        let mut stream = Stream::new(&rings, &config(10, 1000));
        text.as_bytes()
            .chunks(step)
            .for_each(|piece| stream.feed(piece));
        assert_eq!(stream.sent, text.as_bytes());
        assert!(stream.lent.is_over() && !stream.lent.is_resumable());
    }
}

#[test]
fn a_server_that_begins_to_give_ids_is_left_alone_from_there_on() {
    let rings = Rings::new(1 << 20);
    let mut stream = Stream::new(&rings, &config(10, 1000));
    stream.feed(b"data: a\n\ndata: b\nid: 5\n\ndata: c\n\n");
    let sent = String::from_utf8(stream.sent).unwrap();
    assert_eq!(sent.matches("id: tg.").count(), 1);
    assert!(sent.ends_with("data: b\nid: 5\n\ndata: c\n\n"), "{sent}");
    assert!(stream.lent.is_over());
}

#[test]
fn a_client_that_comes_back_in_the_middle_of_an_event_gets_it_from_the_beginning() {
    let rings = Rings::new(1 << 20);
    let mut stream = Stream::new(&rings, &config(10, 1000));
    stream.feed(b"data: a\n\ndata: b\n\ndata: be");
    stream.lent.catch_up(1);
    let mut sent = stream.lent.take_missed();
    stream.sent.clear();
    stream.feed(b"gun\n\ndata: d\n\n");
    sent.extend_from_slice(&stream.sent);
    let expected = [("b", 2), ("begun", 3), ("d", 4)].map(|(data, n)| (data.to_owned(), n));
    assert_eq!(read(&sent), expected);
}

#[test]
fn an_event_whose_beginning_is_lost_is_left_out_as_a_whole() {
    let rings = Rings::new(1 << 20);
    let mut stream = Stream::new(&rings, &config(10, 200));
    stream.feed(b"data: a\n\n");
    stream.feed(&[b"data: ".as_slice(), &[b'x'; 300]].concat());
    stream.lent.catch_up(1);
    let mut sent = stream.lent.take_missed();
    stream.sent.clear();
    stream.feed(b"xxx\n\ndata: c\n\n");
    sent.extend_from_slice(&stream.sent);
    assert_eq!(read(&sent), [("c".to_owned(), 3)]);
}

#[test]
fn an_event_of_ours_at_the_end_has_an_id_and_is_kept() {
    let rings = Rings::new(1 << 20);
    let mut stream = Stream::new(&rings, &config(10, 1000));
    stream.feed(b"data: a\n\n");
    let mut event = b"data: told\n\n".to_vec();
    stream.lent.last_word(&mut event);
    let text = String::from_utf8(event.clone()).unwrap();
    assert!(
        text.starts_with("data: told\nid: tg.p") && text.ends_with("\n\n"),
        "{text}"
    );
    let slot = rings.find(key(), stream.lent.stream).unwrap();
    assert!(slot.replay(1).is_none(), "it has not ended");
    Box::new(stream.lent).keep();
    assert_eq!(slot.replay(1), Some((event, false)));
    assert_eq!(slot.replay(2), Some((Vec::new(), false)));
    assert_eq!(slot.replay(3), None);
    rings.sweep(std::time::Instant::now());
    assert_eq!(rings.len(), 1);
    rings.sweep(std::time::Instant::now() + Duration::from_secs(61));
    assert!(rings.is_empty());
    drop(slot);
    assert_eq!(rings.budget().used(), 0);
}

#[test]
fn streams_that_have_ended_make_room_for_those_that_go_on() {
    let rings = Rings::new(1000);
    let mut old = Stream::new(&rings, &config(10, 1000));
    old.feed(format!("data: {}\n\n", "o".repeat(500)).as_bytes());
    Box::new(old.lent).keep();
    let mut new = Stream::new(&rings, &config(10, 1000));
    new.feed(format!("data: {}\n\n", "n".repeat(500)).as_bytes());
    assert_eq!(rings.len(), 1, "the old one has gone");
    new.lent.catch_up(0);
    assert_eq!(read(&new.lent.take_missed()).len(), 1);
    let stream = new.lent.stream;
    drop(new);
    assert!(rings.find(key(), stream).is_none());
    assert_eq!((rings.len(), rings.budget().used()), (0, 0));
}

#[test]
fn a_stream_without_events_takes_no_memory_and_cannot_be_come_back_to() {
    let rings = Rings::new(1000);
    let mut stream = Stream::new(&rings, &config(10, 1000));
    stream.feed(b": keep-alive\n\n: and again\n\n");
    assert_eq!(stream.sent, b": keep-alive\n\n: and again\n\n");
    assert_eq!(rings.budget().used(), 0);
    assert!(!stream.lent.is_resumable());
}

#[test]
fn a_silent_stream_is_primed_once_for_clients_that_know_it() {
    let rings = Rings::new(1 << 20);
    for (revision, is_primed) in [
        (None, false),
        (Some(&b"2025-06-18"[..]), false),
        (Some(b"2025-11-25"), true),
    ] {
        let mut stream = Stream::new(&rings, &config(10, 1000));
        stream.lent = stream.lent.spoken(revision);
        let primer = stream.lent.prime();
        assert_eq!(primer.is_some(), is_primed, "{revision:?}");
        assert_eq!(stream.lent.is_resumable(), is_primed);
        assert!(stream.lent.prime().is_none(), "once is enough");
        if let Some(primer) = primer {
            assert_eq!(read(&primer), [(String::new(), 0)]);
            let mut scan = SseScan::default();
            scan.feed(&primer, &mut |event| {
                assert_eq!(event.note, crate::mcp::Note::Priming)
            });
        }
        stream.feed(b"data: a\n\n");
        assert!(stream.lent.prime().is_none(), "it is no longer silent");
        stream.lent.catch_up(0);
        assert_eq!(read(&stream.lent.take_missed()), [("a".to_owned(), 1)]);
    }
}
