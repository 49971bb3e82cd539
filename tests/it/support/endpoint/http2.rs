//! The same server over HTTP/2 with prior knowledge. Faults that cut a reply reset its stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;

use super::super::Headers;
use super::super::wire::{RequestHead, Wire};
use super::reply::{Cut, Flow, Out, Reply};
use super::serve::{answer, request};
use super::state::{Request, State};

/// Serves one HTTP/2 connection to its end.
pub(super) async fn connection(state: &Arc<State>, wire: Wire, number: usize) {
    let Ok(mut connection) = h2::server::handshake(Io(wire)).await else {
        return;
    };
    // Dropped with the connection, which ends whatever is still being answered.
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        streams.spawn(stream(state.clone(), number, request, respond));
    }
}

async fn stream(
    state: Arc<State>,
    number: usize,
    incoming: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (head, body) = incoming.into_parts();
    let Some(body) = collect(body).await else {
        return;
    };
    let request = request(head_of(&head), body, number);
    state.saw(&request);
    let out = Stream(Arc::new(Mutex::new(Side::Head(respond))));
    if exchange(&state, request, out.clone()).await.is_err() {
        out.reset();
    }
}

async fn exchange(state: &Arc<State>, request: Request, out: Stream) -> Flow {
    let _in_flight = state.count(|counts| &counts.in_flight);
    let mut reply = Reply::new(state, &request, Out::H2(out.clone()));
    let served = tokio::select! {
        biased;
        served = answer(state, &request, &mut reply) => served,
        () = out.closed() => Err(Cut::Gone),
    };
    if served == Err(Cut::Gone) {
        state.client_left(request, reply.is_streaming());
    }
    served
}

async fn collect(mut body: RecvStream) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        whole.extend_from_slice(&piece);
    }
    Some(whole.freeze())
}

/// The head in HTTP/1.1 terms: `host` stands for `:authority`.
fn head_of(head: &http::request::Parts) -> RequestHead {
    let mut headers = Headers::default();
    if let Some(authority) = head.uri.authority() {
        headers.0.push(("host".into(), authority.to_string()));
    }
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.0.push((name.to_string(), value));
    }
    let path = head.uri.path_and_query();
    RequestHead {
        method: head.method.to_string(),
        path: path.map(ToString::to_string).unwrap_or_default(),
        headers,
    }
}

/// The sending half of an HTTP/2 stream, before or after its head.
enum Side {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

#[derive(Clone)]
pub(super) struct Stream(Arc<Mutex<Side>>);

impl Stream {
    pub(super) fn head(&self, status: u16, lines: &[(String, String)], ends: bool) -> Flow {
        let mut head = http::Response::builder().status(status);
        for (name, value) in lines {
            head = head.header(name, value);
        }
        let head = head.body(()).expect("the endpoint's own headers are valid");
        let mut side = self.0.lock().expect("no holder panics");
        let Side::Head(respond) = &mut *side else {
            return Err(Cut::Close);
        };
        let body = respond.send_response(head, ends).map_err(|_| Cut::Gone)?;
        *side = Side::Body(body);
        Ok(())
    }

    pub(super) fn data(&self, bytes: &[u8], ends: bool) -> Flow {
        match &mut *self.0.lock().expect("no holder panics") {
            Side::Head(_) => Err(Cut::Close),
            Side::Body(body) => body
                .send_data(Bytes::copy_from_slice(bytes), ends)
                .map_err(|_| Cut::Gone),
        }
    }

    /// Returns when the client has reset the stream or is gone.
    async fn closed(&self) {
        poll_fn(|cx| match &mut *self.0.lock().expect("no holder panics") {
            Side::Head(respond) => respond.poll_reset(cx).map(drop),
            Side::Body(body) => body.poll_reset(cx).map(drop),
        })
        .await;
    }

    fn reset(&self) {
        match &mut *self.0.lock().expect("no holder panics") {
            Side::Head(respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            Side::Body(body) => body.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// A [`Wire`] as the `h2` crate wants it.
struct Io(Wire);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let waiting = self.0.with_inbox(|inbox| {
                let count = inbox.len().min(buf.remaining());
                buf.put_slice(&inbox[..count]);
                inbox.advance(count);
                count
            });
            if waiting > 0 || ready!(self.0.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
