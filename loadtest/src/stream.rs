//! Follows one open event stream until it ends or the run does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::caller::locked;
use crate::conn::read_with;
use crate::hist::Histogram;
use crate::http::{Decoder, Framing};
use crate::sse::Events;
use crate::track::{Mark, Standing, Tally, Track};

/// What the streams of a thread share.
pub(crate) struct Delays {
    /// From an event's sending to its arrival here, in microseconds.
    pub(crate) histogram: Mutex<Histogram>,
    /// Set while delays count: not before all streams are open, nor once they are being closed.
    pub(crate) counting: AtomicBool,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// We ended it.
    Ours(Standing),
    /// It ended, or stopped making sense, before.
    Early,
}

/// Follows `stream`, whose reply head has been read; `rest` is what came together with the head.
/// Ends when the stream does, or when `stop` changes.
pub(crate) async fn follow(
    mut stream: TcpStream,
    framing: Framing,
    rest: Vec<u8>,
    delays: Arc<Delays>,
    mut stop: watch::Receiver<bool>,
) -> (Tally, Ending) {
    let mut reader = Reader {
        decoder: Decoder::new(framing),
        events: Events::default(),
        track: Track::default(),
        delays,
    };
    let mut open = rest.is_empty() || reader.take(&rest);
    drop(rest);
    while open {
        tokio::select! {
            // What has arrived counts before the end does.
            biased;
            read = read_with(&mut stream, |bytes| reader.take(bytes)) => open = read.unwrap_or(false),
            _ = stop.changed() => return (reader.track.tally, Ending::Ours(reader.track.standing(now_us()))),
        }
    }
    (reader.track.tally, Ending::Early)
}

/// From bytes to a record of events.
struct Reader {
    decoder: Decoder,
    events: Events,
    track: Track,
    delays: Arc<Delays>,
}

impl Reader {
    /// Takes what was read; false when the stream has ended or is broken.
    fn take(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return false;
        }
        let now = now_us();
        let Self {
            decoder,
            events,
            track,
            delays,
        } = self;
        let mut sound = true;
        let decoded = decoder.feed(bytes, |payload| {
            let fed = events.feed(payload, |event| {
                let delay = track.event(Mark::read(event), now);
                if let (Some(delay), true) = (delay, delays.counting.load(Ordering::Relaxed)) {
                    locked(&delays.histogram).record(delay);
                }
            });
            sound &= fed.is_ok();
        });
        sound && decoded.is_ok() && !decoder.is_done()
    }
}

/// Real time, because the sender is another process: microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn event(seq: u64) -> String {
        let mark = format!(r#"{{"seq":{seq},"sent_us":{},"every_us":1000}}"#, now_us());
        let data = format!("data: {{\"params\":{{\"data\":{mark}}}}}\n\n");
        format!("{:x}\r\n{data}\r\n", data.len())
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn delays() -> Arc<Delays> {
        Arc::new(Delays {
            histogram: Mutex::new(Histogram::new()),
            counting: true.into(),
        })
    }

    #[tokio::test]
    async fn a_stream_that_ends_by_itself_ended_early() {
        let (client, mut server) = pair().await;
        server
            .write_all((event(2) + &event(4) + "0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let (_stop, stopped) = watch::channel(false);
        let delays = delays();
        let (tally, ending) = follow(
            client,
            Framing::Chunked,
            event(1).into(),
            delays.clone(),
            stopped,
        )
        .await;
        assert_eq!((tally.events, tally.missing, ending), (3, 1, Ending::Early));
        assert_eq!(locked(&delays.histogram).summary().count, 3);
    }

    #[tokio::test]
    async fn a_stream_that_we_stop_keeps_what_had_arrived() {
        let (client, mut server) = pair().await;
        server.write_all(event(1).as_bytes()).await.unwrap();
        client.readable().await.unwrap();
        let (stop, stopped) = watch::channel(false);
        stop.send(true).unwrap();
        let (tally, ending) = follow(client, Framing::Chunked, Vec::new(), delays(), stopped).await;
        assert_eq!((tally.events, ending), (1, Ending::Ours(Standing::Alive)));
    }

    #[tokio::test]
    async fn a_broken_stream_ended_early() {
        let (client, mut server) = pair().await;
        server.write_all(b"not a chunk").await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        assert_eq!(
            follow(client, Framing::Chunked, Vec::new(), delays(), stopped)
                .await
                .1,
            Ending::Early
        );
    }
}
