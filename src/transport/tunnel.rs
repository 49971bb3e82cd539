//! Upgraded connections: the handshake with the endpoint, and two directions of bytes.
//!
//! The bytes are not interpreted, but the borders of WebSocket frames are followed (RFC 6455
//! section 5.2), so that a tunnel that has to end can say so with a close frame in a place where
//! one may stand.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::dial::{self, Target};
use super::dress::More;
use super::refused;
use super::wire::Wire;
use super::{Error, Outgoing};

mod frames;
mod handshake;

use frames::Frames;
use handshake::{read_answer, request};

/// Buffer of each direction.
const BUFFER: usize = 8 * 1024;
/// How long the second direction may go on after the first has ended.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(10);

/// The endpoint's answer to an upgrade request.
pub struct Answer {
    /// 101 if it agreed.
    pub status: u16,
    /// How long it took to connect.
    pub connect: Duration,
    /// The head to send to the client.
    pub head: Vec<u8>,
    /// A session id that a server showed that did not upgrade; it is not in `head`.
    pub session: Option<String>,
    /// Bytes that came behind the head.
    pub rest: BytesMut,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The client closed first.
    Client,
    /// The server closed first.
    Server,
    /// It was told to end.
    Told,
    /// Nothing has passed for too long, or it has lasted for as long as it may.
    TimedOut,
    /// The client did not read for too long.
    SlowClient,
    /// The server did not read for too long.
    SlowServer,
}

/// How long things may take in a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Silence, in both directions; `None` is no limit.
    pub idle: Option<Duration>,
    /// All of it; `None` is no limit.
    pub total: Option<Duration>,
    /// One write to either side.
    pub write: Duration,
}

/// How the head of an endpoint's answer is changed on its way to the client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes<'a> {
    /// What the route wants changed.
    pub more: Option<More<'a>>,
    /// A session id stays here.
    pub hides_session: bool,
    /// Fields to add.
    pub add: &'a [(&'a str, String)],
}

/// Bytes carried, and how it ended.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// From the client to the server.
    pub up: u64,
    /// From the server to the client.
    pub down: u64,
    /// Who ended it.
    pub end: TunnelEnd,
}

/// Connects to an endpoint and asks it to upgrade. `answer_timeout` bounds the wait for its answer.
///
/// # Errors
/// [`Error::Refused`], [`Error::Connect`], [`Error::Lacking`], [`Error::ConnectTimeout`];
/// [`Error::Closed`] or [`Error::Malformed`] for an answer that did not come or is not HTTP.
pub async fn connect(
    target: &Target<'_>,
    answer_timeout: Duration,
    out: &Outgoing<'_>,
    changes: Changes<'_>,
) -> Result<(Wire, Answer), Error> {
    let asked = Instant::now();
    // An upgrade is HTTP/1.1, whatever else the endpoint speaks.
    let mut server = dial::connect(target, false).await?;
    let connect = asked.elapsed();
    server
        .write_all(&request(out))
        .await
        .map_err(|_| Error::Closed)?;
    server.flush().await.map_err(|_| Error::Closed)?;
    let answer = timeout(answer_timeout, read_answer(&mut server, changes))
        .await
        .map_err(|_| Error::ReadTimeout)?
        .inspect_err(|error| tell(target, error))?;
    Ok((server, Answer { connect, ..answer }))
}

/// Has an operator see what the server has sent that is refused.
fn tell(target: &Target<'_>, error: &Error) {
    if let Error::Malformed(why) = error {
        refused::by_server(target.group, target.address, why, &[]);
    }
}

/// Carries bytes both ways until one side closes, a bound is reached, or `told` resolves. `told` and
/// the end of its time end the tunnel with a close frame 1001, "going away", to both sides where the
/// frames allow it.
pub async fn carry<C, S>(
    client: C,
    server: S,
    rest: &[u8],
    bounds: Bounds,
    told: impl Future<Output = ()>,
) -> Carried
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    let silence = Silence::new(bounds.idle);
    let mut up = Direction::new(bounds.write, &silence);
    let mut down = Direction::new(bounds.write, &silence);
    let first = down.send(rest, &mut client_write).await;
    let end = match first {
        Err(Stop::Closed) => TunnelEnd::Client,
        Err(Stop::Stuck) => TunnelEnd::SlowClient,
        Ok(()) => {
            let mut upward = pin!(up.pump(&mut client_read, &mut server_write));
            let mut downward = pin!(down.pump(&mut server_read, &mut client_write));
            tokio::select! {
                stop = &mut upward => {
                    let _ = timeout(HALF_CLOSED_MAX, downward).await;
                    stop.at(TunnelEnd::Client, TunnelEnd::SlowServer)
                }
                stop = &mut downward => {
                    let _ = timeout(HALF_CLOSED_MAX, upward).await;
                    stop.at(TunnelEnd::Server, TunnelEnd::SlowClient)
                }
                () = told => TunnelEnd::Told,
                () = silence.is_too_long() => TunnelEnd::TimedOut,
                () = after(bounds.total) => TunnelEnd::TimedOut,
            }
        }
    };
    if matches!(end, TunnelEnd::Told | TunnelEnd::TimedOut) {
        let (up, down) = (up.at_border(), down.at_border());
        let farewell = farewell(&mut client_write, down, &mut server_write, up);
        let _ = timeout(bounds.write, farewell).await;
    }
    Carried {
        up: up.bytes,
        down: down.bytes,
        end,
    }
}

/// Says 1001 in a close frame where one may stand; masked towards the server, as a client's must be.
async fn farewell<C, S>(client: &mut C, at_client: bool, server: &mut S, at_server: bool)
where
    C: AsyncWrite + Unpin,
    S: AsyncWrite + Unpin,
{
    if at_client {
        let _ = client.write_all(&[0x88, 2, 0x03, 0xe9]).await;
        let _ = client.flush().await;
    }
    if at_server {
        let frame = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];
        let _ = server.write_all(&frame).await;
    }
    let _ = client.shutdown().await;
    let _ = server.shutdown().await;
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// For how long nothing has passed, in either direction.
struct Silence {
    limit: Option<Duration>,
    since: Instant,
    /// Milliseconds from there to the last bytes.
    last: AtomicU64,
}

impl Silence {
    fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            since: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn is_broken(&self) {
        if self.limit.is_some() {
            let now = u64::try_from(self.since.elapsed().as_millis());
            self.last.store(now.unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    async fn is_too_long(&self) {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let left = (last + limit).saturating_sub(self.since.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// Why a direction ended.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// A side has closed.
    Closed,
    /// The side that is written to does not read.
    Stuck,
}

impl Stop {
    fn at(self, closed: TunnelEnd, stuck: TunnelEnd) -> TunnelEnd {
        match self {
            Self::Closed => closed,
            Self::Stuck => stuck,
        }
    }
}

/// One direction of a tunnel.
struct Direction<'a> {
    bytes: u64,
    frames: Frames,
    /// A piece is being written, and nobody knows how much of it has left.
    writing: bool,
    /// How long one write may take.
    limit: Duration,
    silence: &'a Silence,
}

impl<'a> Direction<'a> {
    fn new(limit: Duration, silence: &'a Silence) -> Self {
        Self {
            bytes: 0,
            frames: Frames::default(),
            writing: false,
            limit,
            silence,
        }
    }

    /// May a frame of ours follow what was sent?
    fn at_border(&self) -> bool {
        !self.writing && self.frames.at_border()
    }

    async fn send<W: AsyncWrite + Unpin>(&mut self, piece: &[u8], to: &mut W) -> Result<(), Stop> {
        if piece.is_empty() {
            return Ok(());
        }
        self.writing = true;
        let sending = async {
            to.write_all(piece).await?;
            to.flush().await
        };
        let sent = timeout(self.limit, sending).await;
        sent.map_err(|_| Stop::Stuck)?.map_err(|_| Stop::Closed)?;
        self.writing = false;
        self.bytes += piece.len() as u64;
        self.frames.feed(piece);
        self.silence.is_broken();
        Ok(())
    }

    async fn pump<R, W>(&mut self, from: &mut R, to: &mut W) -> Stop
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; BUFFER];
        let stop = loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break Stop::Closed,
                Ok(read) => read,
            };
            if let Err(stop) = self.send(&buffer[..read], to).await {
                break stop;
            }
        };
        let _ = timeout(self.limit, to.shutdown()).await;
        stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        idle: None,
        total: None,
        write: Duration::from_secs(30),
    };

    #[tokio::test]
    async fn a_tunnel_that_ends_in_a_frame_says_nothing_inside_of_it() {
        let (client, mut client_far) = tokio::io::duplex(64);
        let (server, mut server_far) = tokio::io::duplex(256);
        let frame = [&[0x82, 98][..], &[7; 98]].concat();
        server_far.write_all(&frame).await.unwrap();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let carrying = tokio::spawn(async move {
            carry(client, server, b"", BOUNDS, async {
                let _ = told.await;
            })
            .await
        });
        // Once some of the frame is there, the rest of it waits for room.
        let mut seen = vec![0; 1];
        client_far.read_exact(&mut seen).await.unwrap();
        tell.send(()).unwrap();
        client_far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(carrying.await.unwrap().end, TunnelEnd::Told);
        // Cut in the frame, or whole and then told: never told inside of it.
        let told = [frame.as_slice(), &[0x88, 2, 0x03, 0xe9]].concat();
        assert!(told.starts_with(&seen), "{seen:?}");
    }

    #[tokio::test]
    async fn a_tunnel_that_is_told_to_end_says_going_away() {
        let (client, mut client_far) = tokio::io::duplex(64);
        let (server, mut server_far) = tokio::io::duplex(64);
        let carried = carry(client, server, b"", BOUNDS, async {}).await;
        assert_eq!(carried.end, TunnelEnd::Told);
        let mut seen = Vec::new();
        client_far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [0x88, 2, 0x03, 0xe9]);
        seen.clear();
        server_far.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_in_silence_and_not_before() {
        let (client, mut client_far) = tokio::io::duplex(64);
        let (server, mut server_far) = tokio::io::duplex(64);
        let idle = Some(Duration::from_millis(300));
        let bounds = Bounds { idle, ..BOUNDS };
        let carrying = tokio::spawn(carry(client, server, b"", bounds, std::future::pending()));
        let mut seen = [0; 3];
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(200));
            client_far.write_all(&[0x81, 1, b'x']).await.unwrap();
            server_far.read_exact(&mut seen).await.unwrap();
        }
        assert!(!carrying.is_finished());
        std::thread::sleep(Duration::from_millis(300));
        let carried = carrying.await.unwrap();
        assert_eq!((carried.end, carried.up), (TunnelEnd::TimedOut, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_not_waited_for() {
        for (slow, end) in [
            (true, TunnelEnd::SlowClient),
            (false, TunnelEnd::SlowServer),
        ] {
            let (client, mut client_far) = tokio::io::duplex(64);
            let (server, mut server_far) = tokio::io::duplex(64);
            let carrying = tokio::spawn(carry(client, server, b"", BOUNDS, std::future::pending()));
            let far = if slow {
                &mut server_far
            } else {
                &mut client_far
            };
            let _ = timeout(Duration::from_secs(1), far.write_all(&[0x82; 4096])).await;
            assert_eq!(carrying.await.unwrap().end, end);
        }
    }
}
