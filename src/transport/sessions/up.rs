//! Pingora's HTTP/2 client sessions as [`Upstream`].

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession as ClientSession;
use pingora::protocols::http::v2::client::Http2Session;

use super::{copy_fields, wire_error};
use crate::transport::buffer::Piece;
use crate::transport::fields::Name;
use crate::transport::{Error, Headers, Length, Outgoing, ResponseHead, Upstream};

/// An exchange with an endpoint over one of Pingora's HTTP/2 sessions.
///
/// Dropped unfinished, the h2 crate resets the stream with CANCEL by itself.
pub struct SessionUp {
    session: ClientSession,
    /// `https` under TLS, else `http`.
    scheme: &'static str,
    reused: bool,
    /// The request head, until it goes out.
    head: Option<Box<RequestHeader>>,
    /// There is a request head.
    begun: bool,
}

/// Stands where a response head is asked for before one was read.
static NO_HEAD: NoHead = NoHead;
struct NoHead;

impl Headers for NoHead {
    fn get(&self, _: &str) -> Option<&[u8]> {
        None
    }
    fn count(&self, _: &str) -> usize {
        0
    }
    fn each<'a>(&'a self, _: &mut dyn FnMut(Name<'a>, &'a [u8])) {}
}

impl ResponseHead for NoHead {
    fn status(&self) -> u16 {
        0
    }
}

impl Headers for ResponseHeader {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(&self.headers, name)
    }
    fn count(&self, name: &str) -> usize {
        self.headers.count(name)
    }
    fn each<'a>(&'a self, f: &mut dyn FnMut(Name<'a>, &'a [u8])) {
        self.headers.each(f);
    }
}

impl ResponseHead for ResponseHeader {
    fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

impl SessionUp {
    /// A new stream of a connection, which may have carried others before (`reused`).
    pub(in crate::transport) fn new(
        stream: Http2Session,
        reused: bool,
        secure: bool,
        write_timeout: Option<Duration>,
    ) -> Self {
        let mut session = ClientSession::H2(stream);
        session.set_write_timeout(write_timeout);
        Self {
            session,
            scheme: if secure { "https" } else { "http" },
            reused,
            head: None,
            begun: false,
        }
    }

    /// The fields behind the body, once that was read to its end.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, Error> {
        match &mut self.session {
            ClientSession::H2(session) => session.read_trailers().await.map_err(wire_error),
            _ => Ok(None),
        }
    }

    fn response(&self) -> Option<&ResponseHeader> {
        self.session.response_header()
    }

    async fn write_head(&mut self) -> Result<(), Error> {
        match self.head.take() {
            None => Ok(()),
            Some(head) => {
                let written = self.session.write_request_header(head).await;
                written.map_err(wire_error)
            }
        }
    }

    fn request(&self, out: &Outgoing<'_>) -> Result<RequestHeader, Error> {
        let malformed = Error::Malformed;
        let method = Method::from_bytes(out.method.as_bytes()).map_err(|_| malformed("method"))?;
        let mut head = RequestHeader::build_no_case(method, out.target.as_bytes(), Some(16))
            .map_err(wire_error)?;
        copy_fields(Some(out.head), out.edits, |name, value| {
            if name != http::header::HOST {
                let _ = head.append_header(name, value);
            }
        });
        let mut authority = Vec::new();
        out.with_authority(&mut |text| authority.extend_from_slice(text));
        let uri = http::Uri::builder()
            .scheme(self.scheme)
            .authority(authority.as_slice())
            .path_and_query(out.target)
            .build()
            .map_err(|_| malformed("target"))?;
        head.set_uri(uri);
        head.set_version(http::Version::HTTP_2);
        let bytes = match out.length {
            Length::None if out.method == "POST" => Some(0),
            Length::Exact(bytes) => Some(bytes),
            Length::None | Length::Unknown => None,
        };
        if let Some(bytes) = bytes {
            head.insert_header(http::header::CONTENT_LENGTH, bytes.to_string())
                .map_err(wire_error)?;
        }
        Ok(head)
    }
}

impl Upstream for SessionUp {
    fn put_head(&mut self, out: &Outgoing<'_>) -> Result<(), Error> {
        self.head = Some(Box::new(self.request(out)?));
        self.begun = true;
        Ok(())
    }

    async fn send_body(&mut self, data: &[u8]) -> Result<(), Error> {
        self.write_head().await?;
        // Pingora would write an empty piece as the last one.
        if data.is_empty() {
            return Ok(());
        }
        self.session
            .write_request_body(Bytes::copy_from_slice(data), false)
            .await
            .map_err(wire_error)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.write_head().await?;
        self.session.finish_request_body().await.map_err(wire_error)
    }

    async fn read_head(&mut self) -> Result<(), Error> {
        if !self.begun {
            return Err(Error::Closed);
        }
        loop {
            self.session
                .read_response_header()
                .await
                .map_err(wire_error)?;
            if self.head().status() >= 200 {
                return Ok(());
            }
            if self.head().status() == 101 {
                return Err(Error::Malformed("101 without an upgrade request"));
            }
        }
    }

    fn head(&self) -> &dyn ResponseHead {
        match self.response() {
            Some(head) => head,
            None => &NO_HEAD,
        }
    }

    fn release_head(&mut self) {}

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        let session = &mut self.session;
        // Pingora calls a response done when its framing says so and reports a cut one as an error.
        if session.response_done() {
            return Poll::Ready(Ok(None));
        }
        // What it waits for stays registered when the future is dropped.
        let reading = std::pin::pin!(session.read_response_body());
        reading
            .poll(context)
            .map(|read| Ok(read.map_err(wire_error)?.map(Piece::Bytes)))
    }

    fn length(&self) -> Length {
        let Some(head) = self.response() else {
            return Length::None;
        };
        if head.status == 204 || head.status == 304 {
            return Length::None;
        }
        let announced = Headers::get(&head.headers, "content-length")
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| value.trim().parse().ok());
        match announced {
            Some(0) => Length::None,
            Some(bytes) => Length::Exact(bytes),
            None => Length::Unknown,
        }
    }

    fn reused(&self) -> bool {
        self.reused
    }

    /// The connection is kept by whoever opened the stream.
    fn release(self) {}
}
