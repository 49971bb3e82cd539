//! An open event stream of the mock.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::State;
use super::sessions::SessionId;
use crate::conn::read_with;
use crate::stream::now_us;

/// The right to a session's stream; gives it back when dropped.
pub(super) struct Open {
    pub(super) session: SessionId,
    /// Notified when the session ends.
    pub(super) ended: Arc<Notify>,
}

/// Sends events until the session ends, which is `Ok`, or the peer has gone.
pub(super) async fn feed(stream: &mut TcpStream, state: &Arc<State>, open: Open) -> io::Result<()> {
    let Open { session, ended } = open;
    let _registered = Registered { state, session };
    let every = state.event_every;
    let mut next = Instant::now() + phase(session, every);
    let mut seq = 0;
    loop {
        tokio::select! {
            () = sleep_until(next) => (),
            () = ended.notified() => return stream.write_all(b"0\r\n\r\n").await,
            // Nothing is asked on this connection before the stream has ended: its end, or an error.
            _ = read_with(stream, |_| ()) => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        seq += 1;
        // A peer that does not read holds this up, and the event then arrives with its true delay.
        stream.write_all(&event(seq, now_us(), every)).await?;
        next += every;
    }
}

struct Registered<'a> {
    state: &'a State,
    session: SessionId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.state.sessions.close_stream(self.session);
    }
}

/// The time to the first event. Spread evenly over the interval, in whatever order sessions come:
/// thousands of events at one instant would measure the queue and not the proxy.
fn phase(session: SessionId, every: Duration) -> Duration {
    // Multiples of the golden ratio leave no large gap.
    let spread = (session as u32).wrapping_mul(2_654_435_769);
    every.mul_f64(f64::from(spread) / f64::from(u32::MAX))
}

/// One event, as one chunk.
fn event(seq: u64, sent_us: u64, every: Duration) -> Vec<u8> {
    let data = format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"logger\":\"mock\",\"data\":{{\"seq\":{seq},\"sent_us\":{sent_us},\"every_us\":{}}}}}}}\n\n",
        every.as_micros()
    );
    let mut chunk = Vec::with_capacity(data.len() + 16);
    // Writing to a vector cannot fail.
    let _ = write!(chunk, "{:x}\r\n{data}\r\n", data.len());
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Decoder, Framing};
    use crate::sse::Events;
    use crate::track::Mark;

    #[test]
    fn events_are_what_the_other_side_reads() {
        let mut payload = Vec::new();
        let bytes = event(7, 11, Duration::from_millis(250));
        Decoder::new(Framing::Chunked)
            .feed(&bytes, |piece| payload.extend_from_slice(piece))
            .unwrap();
        let mut marks = Vec::new();
        Events::default()
            .feed(&payload, |data| marks.push(Mark::read(data)))
            .unwrap();
        assert_eq!(
            marks,
            [Some(Mark {
                seq: 7,
                sent_us: 11,
                every_us: 250_000
            })]
        );
    }

    #[test]
    fn first_events_are_spread_over_the_interval() {
        let every = Duration::from_secs(1);
        let mut tenths = [0; 10];
        for session in 0..1_000 {
            tenths[((phase(session, every).as_millis() / 100) as usize).min(9)] += 1;
        }
        assert!(
            tenths.iter().all(|count| (95..=105).contains(count)),
            "{tenths:?}"
        );
    }
}
