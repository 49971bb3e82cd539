//! A server that keeps every byte it is sent, and answers each request that the reference reads.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::reader::{self, Reading};

/// What the server answers with: a message that fits any call of the corpus.
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[]}}"#;

/// The bytes of every connection, in order of their accept.
type Tape = Arc<Mutex<Vec<Vec<u8>>>>;

/// A recording server on a free port. Ends when dropped.
#[derive(Debug)]
pub(super) struct Recorder {
    address: SocketAddr,
    tape: Tape,
    /// How many bytes of each connection were taken already.
    taken: Vec<usize>,
    accepting: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let tape = Tape::default();
        let kept = Arc::clone(&tape);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut tape = lock(&kept);
                    tape.push(Vec::new());
                    tape.len() - 1
                };
                tokio::spawn(record(stream, Arc::clone(&kept), number));
            }
        });
        Self {
            address,
            tape,
            taken: Vec::new(),
            accepting,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What each connection has brought since the last look, those with nothing left out.
    pub(super) fn take(&mut self) -> Vec<Reading> {
        let tape = lock(&self.tape);
        self.taken.resize(tape.len(), 0);
        let mut found = Vec::new();
        for (bytes, taken) in tape.iter().zip(&mut self.taken) {
            if bytes.len() > *taken {
                found.push(reader::read(&bytes[*taken..]));
                *taken = bytes.len();
            }
        }
        found
    }
}

fn lock(tape: &Tape) -> MutexGuard<'_, Vec<Vec<u8>>> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn record(mut stream: TcpStream, tape: Tape, number: usize) {
    let mut answered = 0;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = match stream.read(&mut piece).await {
            Ok(read) if read > 0 => read,
            _ => return,
        };
        let reading = {
            let mut tape = lock(&tape);
            tape[number].extend_from_slice(&piece[..read]);
            reader::read(&tape[number])
        };
        while answered < reading.requests.len() {
            let bodiless = reading.requests[answered].method == "HEAD";
            answered += 1;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                ANSWER.len()
            );
            let body = if bodiless { "" } else { ANSWER };
            if stream.write_all((head + body).as_bytes()).await.is_err() {
                return;
            }
        }
        if reading.fault.is_some() {
            let refusal = b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(refusal).await;
            return;
        }
    }
}
