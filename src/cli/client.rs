//! Asking a running process over its admin socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::server::admin::view::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longest answer that is read.
const ANSWER_MAX: u64 = 256 * 1024 * 1024;
/// Fields in the head of an answer.
const FIELDS_MAX: usize = 32;

/// A process, by its socket. Each question is a connection of its own.
#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody is there, or lets us in.
    #[error("{}: {}", path.display(), unreached(error))]
    Unreached {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What came is no answer.
    #[error("{}: {why}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The process does not do it.
    #[error("{0}")]
    Refused(String),
}

/// What an operator can do about it.
fn unreached(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such socket. Is Tidegate running, and is this its \
             admin.socket? Give -c FILE or --socket PATH"
            .to_owned(),
        ErrorKind::ConnectionRefused => {
            "nobody listens on this socket: the process that made it is gone".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "permission denied: run this as root or as the user that Tidegate runs as, or see \
             admin.socket_mode"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

impl Client {
    /// A client of the process that listens there.
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// What a resource is now.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(self.ask("GET", path, None)?)
    }

    /// Asks, and takes what is answered as it is.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let (status, answer) = self.exchange(method, path, body).map_err(|error| {
            let path = self.socket.clone();
            Error::Unreached { path, error }
        })?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|_| self.broken("what answers there is not Tidegate's API"))?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        match serde_json::from_value::<Failure>(value) {
            Ok(failure) => Err(Error::Refused(failure.error.message)),
            Err(_) => Err(self.broken(&format!("the answer has status {status}"))),
        }
    }

    /// An answer in its type.
    pub(super) fn read<T: DeserializeOwned>(&self, value: Value) -> Result<T, Error> {
        serde_json::from_value(value)
            .map_err(|error| self.broken(&format!("it is another version: {error}")))
    }

    fn broken(&self, why: &str) -> Error {
        Error::Broken {
            path: self.socket.clone(),
            why: why.to_owned(),
        }
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
        take_apart(answer)
    }
}

/// Status and body of a whole answer, whose end is the end of the connection.
fn take_apart(mut answer: Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    let malformed = |_| io::Error::new(ErrorKind::InvalidData, "the answer is no HTTP");
    let cut = || io::Error::new(ErrorKind::UnexpectedEof, "the answer breaks off");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(&answer).map_err(malformed)? else {
        return Err(cut());
    };
    let status = head.code.unwrap_or_default();
    let named = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
    let announced = head.headers.iter().find(named);
    let announced = announced.and_then(|field| std::str::from_utf8(field.value).ok());
    let announced: Option<usize> = announced.and_then(|text| text.parse().ok());
    let body = answer.split_off(length);
    match announced {
        Some(announced) if announced != body.len() => Err(cut()),
        _ => Ok((status, body)),
    }
}

/// A name as a segment of a path or a value of a query (RFC 3986 section 2.3).
pub(super) fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte.into());
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_one_that_breaks_off_is_none() {
        let whole = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        assert_eq!(take_apart(whole.clone()).unwrap(), (404, b"{}".to_vec()));
        for length in 0..whole.len() {
            assert!(take_apart(whole[..length].to_vec()).is_err(), "{length}");
        }
        assert!(take_apart(b"SSH-2.0-x\r\n\r\n".to_vec()).is_err());
    }

    #[test]
    fn a_name_keeps_to_its_segment() {
        assert_eq!(escape("w-1.a_b~"), "w-1.a_b~");
        assert_eq!(escape("[::1]:90/?é"), "%5B%3A%3A1%5D%3A90%2F%3F%C3%A9");
    }
}
