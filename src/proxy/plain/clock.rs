//! How long a server may take on a route of plain HTTP, and when a stream of its has to end.
//!
//! Pingora has one limit for each read from a server: the same for the head of an answer, which has to
//! come soon, and for the next piece of a stream, which may take hours; and it runs while a large body
//! is still on its way to the server. So towards HTTP/1.1 it is given none. The time is kept here, in
//! the same task, and when it is up the connection to the server is shut down, which ends the exchange
//! as the loss of the server would.

use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use filedescriptor::FileDescriptor;
use socket2::SockRef;
use tokio::time::sleep_until;

use crate::pool::Endpoint;
use crate::proxy::ctx::End;
use crate::proxy::phases::Phases;

/// An alarm that is not set rings here at the earliest, and is set again then.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The time of one exchange. It is set from Pingora's hooks and kept by [`Clock::run`].
#[derive(Default)]
pub(super) struct Clock(Mutex<State>);

#[derive(Default)]
struct State {
    /// A second handle to the connection to the server: of its own Pingora tells the number alone, and
    /// that may be another's by now.
    connection: Option<FileDescriptor>,
    /// Until when something has to come from the server.
    deadline: Option<Instant>,
    /// When the exchange has to be over.
    end: Option<Instant>,
    /// Whose stream it has become, and its lot in a drain.
    stream: Option<(Arc<Endpoint>, u64)>,
    struck: Option<End>,
}

impl Clock {
    fn set<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The exchange may last for so long from now on, all of it.
    pub(super) fn begins(&self, total: Option<Duration>) {
        self.set(|state| state.end = total.map(|total| Instant::now() + total));
    }

    /// The exchange goes on over this connection, and nobody else's.
    pub(super) fn connected(&self, connection: RawFd) {
        let connection = FileDescriptor::dup(&connection).ok();
        self.set(|state| state.connection = connection);
    }

    /// From now on something has to come within this time, if within any.
    pub(super) fn expects(&self, within: Option<Duration>) {
        self.set(|state| state.deadline = within.map(|within| Instant::now() + within));
    }

    /// It is a stream, which ends when its endpoint or the process is taken out.
    pub(super) fn is_stream(&self, endpoint: Arc<Endpoint>, lot: u64) {
        self.set(|state| state.stream = Some((endpoint, lot)));
    }

    /// Nothing is expected of the server any more.
    pub(super) fn is_over(&self) {
        self.set(|state| {
            state.connection = None;
            state.deadline = None;
        });
    }

    /// Why the connection was shut down, if it was.
    pub(super) fn struck(&self) -> Option<End> {
        self.set(|state| state.struck)
    }

    fn strike(&self, end: End) {
        self.set(|state| {
            if let Some(connection) = state.connection.take() {
                // One that is gone already has come to the same end.
                let _ = SockRef::from(&connection).shutdown(Shutdown::Both);
                state.struck = Some(end);
            }
            (state.deadline, state.end) = (None, None);
        });
    }

    fn next(&self) -> Option<Instant> {
        self.set(|state| {
            let times = state.deadline.into_iter().chain(state.end);
            times.min().filter(|_| state.connection.is_some())
        })
    }

    /// Keeps the time, for ever. Has to be polled after each step of the exchange.
    pub(super) async fn run(&self, phases: &Phases) {
        let mut alarm = pin!(sleep_until((Instant::now() + FAR).into()));
        let mut leaving: Option<Pin<Box<dyn Future<Output = End> + Send>>> = None;
        poll_fn(|context| {
            if let Some((endpoint, lot)) = self.set(|state| state.stream.take()) {
                let mut phases = phases.clone();
                leaving = Some(Box::pin(async move {
                    phases.until_leaving(&endpoint, lot).await
                }));
            }
            let left = leaving.as_mut().map(|left| left.as_mut().poll(context));
            if let Some(Poll::Ready(end)) = left {
                leaving = None;
                self.strike(end);
            }
            while let Some(at) = self.next() {
                if alarm.deadline() != at.into() {
                    alarm.as_mut().reset(at.into());
                }
                if alarm.as_mut().poll(context).is_pending() {
                    break;
                }
                self.strike(End::Timeout);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::proxy::phases::phases;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        (near.unwrap(), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn the_connection_is_shut_down_when_the_time_is_up_and_not_before() {
        let (mut near, _far) = pair().await;
        let (_sender, phases) = phases();
        let clock = Clock::default();
        clock.connected(near.as_raw_fd());
        clock.expects(Some(Duration::from_millis(30)));
        let since = Instant::now();
        let mut byte = [0];
        tokio::select! {
            biased;
            read = near.read(&mut byte) => assert_eq!(read.unwrap(), 0),
            () = clock.run(&phases) => unreachable!(),
        }
        assert!(since.elapsed() >= Duration::from_millis(30));
        assert_eq!(clock.struck(), Some(End::Timeout));
    }

    #[tokio::test]
    async fn a_connection_that_was_given_back_is_left_alone() {
        let (mut near, _far) = pair().await;
        let (_sender, phases) = phases();
        let clock = Clock::default();
        clock.begins(Some(Duration::from_millis(10)));
        clock.connected(near.as_raw_fd());
        clock.expects(Some(Duration::from_millis(10)));
        clock.is_over();
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = near.read(&mut byte) => unreachable!("nobody has closed it"),
            () = clock.run(&phases) => unreachable!(),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        assert_eq!(clock.struck(), None);
    }
}
