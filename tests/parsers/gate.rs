//! A worker of Tidegate in a thread of this process, between plain sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tidegate::server::inproc::Inproc;

/// Longer than anything takes here; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes of the chunks that stand at the front of `bytes`, and how many bytes they take.
fn dechunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at += line + 2;
        data.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if at > bytes.len() {
            return None;
        }
        if size == 0 {
            return Some((data, at));
        }
    }
}

/// One message off the front of `buffer`, its head and its body, if it is there.
fn message(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let head = text.to_lowercase();
    let (body, taken) = if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        dechunked(&buffer[end..])?
    } else {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |value| value.parse().unwrap());
        (buffer.get(end..end + length)?.to_vec(), length)
    };
    buffer.drain(..end + taken);
    Some(text + &String::from_utf8_lossy(&body))
}

/// What an endpoint sends for a request, and whether it closes the connection then.
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) closes: bool,
}

/// A request as an endpoint has got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) text: String,
}

/// A server that does as its script says.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Endpoint {
    /// `script` is asked with the number of the request, from 0, and the request.
    pub(crate) fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, noted) = (Arc::new(script), Arc::clone(&seen));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (script, noted) = (Arc::clone(&script), Arc::clone(&noted));
                let stream = stream.unwrap();
                thread::spawn(move || Self::serve(stream, connection, &*script, &noted));
            }
        });
        Self { address, seen }
    }

    fn serve(
        mut stream: TcpStream,
        connection: usize,
        script: &dyn Fn(usize, &str) -> Reply,
        noted: &Mutex<Vec<Seen>>,
    ) {
        let (mut buffer, mut scratch) = (Vec::new(), [0; 8192]);
        loop {
            while let Some(text) = message(&mut buffer) {
                let number = {
                    let mut noted = noted.lock().unwrap();
                    noted.push(Seen {
                        connection,
                        text: text.clone(),
                    });
                    noted.len() - 1
                };
                let reply = script(number, &text);
                if stream.write_all(&reply.bytes).is_err() || reply.closes {
                    return;
                }
            }
            match stream.read(&mut scratch) {
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.extend_from_slice(&scratch[..read]),
            }
        }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// The `id` of a call, as it is written.
pub(crate) fn id_of(text: &str) -> &str {
    let (_, rest) = text.split_once(r#""id":"#).unwrap();
    &rest[..rest.find([',', '}']).unwrap()]
}

/// The body of a good answer to this request.
pub(crate) fn good_body(request: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"content":[]}}}}"#,
        id_of(request)
    )
}

/// A good answer to this request.
pub(crate) fn good(request: &str) -> Reply {
    let body = good_body(request);
    let bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Reply {
        bytes: bytes.into_bytes(),
        closes: false,
    }
}

/// The message of a call that any endpoint may serve.
pub(crate) fn call_body(id: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

/// The head of such a call without its framing and its end.
pub(crate) const CALL_HEAD: &str = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n";

/// Such a call as it is sent.
pub(crate) fn call(id: u64) -> Vec<u8> {
    let body = call_body(id);
    format!("{CALL_HEAD}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A worker that serves every connection until the process ends.
pub(crate) struct Gate(SocketAddr);

impl Gate {
    pub(crate) fn before(endpoint: &Endpoint) -> Self {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let endpoint = endpoint.address;
        thread::spawn(move || {
            let state = tempfile::tempdir().unwrap();
            let text = format!(
                "listeners: [{{ bind: 127.0.0.1:0 }}]\nroutes: [{{ path: /mcp, pool: a }}]\npools: {{ a: {{ endpoints: [\"{endpoint}\"] }} }}\nlog: {{ access: off }}\nstate_dir: {}\n",
                state.path().display()
            );
            let config = tidegate::config::parse("test", &text).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let inproc = Arc::new(Inproc::new(config).unwrap());
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let worker = Arc::clone(&inproc);
                tokio::spawn(async move { worker.turn().await });
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let inproc = Arc::clone(&inproc);
                    tokio::spawn(async move { inproc.serve(stream).await });
                }
            });
        });
        Self(told.recv().unwrap())
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            buffer: Vec::new(),
        }
    }
}

/// A client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Sends bytes, whoever may have closed the connection meanwhile.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next response, which says its length; none if the connection has ended.
    pub(crate) fn response(&mut self) -> Option<String> {
        let mut scratch = [0; 8192];
        loop {
            if let Some(text) = message(&mut self.buffer) {
                return Some(text);
            }
            match self.stream.read(&mut scratch) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend_from_slice(&scratch[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no response: {error}"),
            }
        }
    }

    /// The status of a response.
    pub(crate) fn status(response: &str) -> &str {
        &response["HTTP/1.1 ".len()..][..3]
    }
}
