//! `mock`: an MCP server that does next to nothing, fast.
//!
//! It speaks both eras on `/mcp`: sessions with one event stream each, on which it sends a numbered
//! and timed event at every interval, calls without sessions, and WebSockets. It checks what a proxy could get
//! wrong (the session, the headers of the stateless era) and nothing else. An open stream costs it a
//! few hundred bytes and the kernel's socket buffers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::conn::read_with;
use crate::options::{bounded, duration};
use crate::target::bind_address;
use crate::{resources, threads};

use answer::{Next, answer};
use feed::feed;
use request::{Parsed, Request};
use sessions::Sessions;
use talk::talk;

mod answer;
mod feed;
mod request;
mod sessions;
mod talk;

/// Length of the queue of connections not yet accepted; the kernel may allow less.
const BACKLOG: u32 = 4_096;
/// Pause after a failure to accept, which is nearly always the limit of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Where to listen; port 0 takes a free one, and the port is printed
    #[arg(long, default_value = "127.0.0.1:0", value_parser = bind_address)]
    bind: SocketAddr,
    /// What the tool `whoami` answers
    #[arg(long, default_value = "mock", value_parser = name)]
    name: String,
    /// Interval of the events on a stream, 10ms to 600s
    #[arg(long, default_value = "1s", value_parser = interval)]
    event_every: Duration,
    /// How calls are answered
    #[arg(long, value_enum, default_value = "json")]
    reply: Form,
    #[arg(long, default_value_t = 1, value_parser = bounded(1, 16))]
    threads: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    /// As an event stream of one event, as the official SDKs do
    Sse,
}

/// What all connections share.
struct State {
    name: String,
    event_every: Duration,
    form: Form,
    sessions: Sessions,
}

pub(crate) fn run(options: Options) -> Result<(), String> {
    resources::allow_all_files();
    let state = Arc::new(State {
        name: options.name,
        event_every: options.event_every,
        form: options.reply,
        sessions: Sessions::new(),
    });
    let listeners = listen(options.bind, options.threads)
        .map_err(|error| format!("{}: {error}", options.bind))?;
    let port = listeners[0]
        .local_addr()
        .map_err(|error| error.to_string())?
        .port();
    println!("listening {port}");
    let serve = |index: usize| serve(&listeners[index], state.clone());
    threads::run(listeners.len(), serve, async {}).map_err(|error| error.to_string())
}

/// One socket, once for every thread.
fn listen(address: SocketAddr, count: u64) -> std::io::Result<Vec<std::net::TcpListener>> {
    // Registered with a runtime for a moment only: this is how to choose the length of the queue.
    let first = threads::run(0, |_| async {}, async {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    })??;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listeners[0].try_clone()?);
    }
    Ok(listeners)
}

async fn serve(listener: &std::net::TcpListener, state: Arc<State>) {
    let listener = match listener.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("loadtest: listening: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Costs at most time if it fails.
                let _ = stream.set_nodelay(true);
                tokio::spawn(converse(stream, state.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, to its end.
async fn converse(mut stream: TcpStream, state: Arc<State>) {
    let mut pending = Vec::new();
    loop {
        let mut out = Vec::new();
        let next = read_with(&mut stream, |bytes| {
            pending.extend_from_slice(bytes);
            if bytes.is_empty() {
                Next::Close
            } else {
                respond(&state, &mut pending, &mut out)
            }
        });
        let Ok(next) = next.await else { return };
        if pending.is_empty() {
            // Thousands of connections wait; each keeps only what it must.
            pending = Vec::new();
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
        drop(out);
        match next {
            Next::Keep => (),
            Next::Close => return,
            Next::Talk => return talk(stream, pending, &state).await,
            Next::Feed(open) => {
                if feed(&mut stream, &state, open).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Answers every complete request in `pending`, and takes them off it.
fn respond(state: &State, pending: &mut Vec<u8>, out: &mut Vec<u8>) -> Next {
    let mut at = 0;
    let next = loop {
        match Request::parse(&pending[at..]) {
            Parsed::Partial => break Next::Keep,
            Parsed::Bad(status) => {
                answer::refuse(out, status);
                break Next::Close;
            }
            Parsed::Complete(request, length) => {
                let next = answer(state, &request, out);
                at += length;
                if !matches!(next, Next::Keep) {
                    break next;
                }
            }
        }
    };
    pending.drain(..at);
    next
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if (Duration::from_millis(10)..=Duration::from_secs(600)).contains(&span) {
        Ok(span)
    } else {
        Err("10ms to 600s".to_owned())
    }
}

/// The name goes into JSON without escaping.
fn name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 visible characters without quotes and backslashes".to_owned())
    }
}

#[cfg(test)]
mod tests;
