//! A collector of traces: takes OTLP over HTTP or gRPC, decodes it and keeps the spans.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{PATIENCE, eventually_some};

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The span.
    pub(crate) span: Span,
    /// `service.name` of its resource.
    pub(crate) service: String,
}

impl Seen {
    /// A text or a number that it says of itself.
    pub(crate) fn says(&self, key: &str) -> Option<String> {
        let found = self.span.attributes.iter().find(|said| said.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            Value::IntValue(number) => Some(number.to_string()),
            other => panic!("{key} is {other:?}"),
        }
    }

    /// The text in hex digits, as it stands in `traceparent` and in the log.
    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Default)]
struct State {
    spans: Mutex<Vec<Seen>>,
    /// Field lines of every request.
    fields: Mutex<Vec<HeaderMap>>,
    /// Requests that are still to be answered as a server that is overloaded.
    busy: AtomicUsize,
}

/// A collector that listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    address: SocketAddr,
    is_grpc: bool,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// One that takes OTLP over HTTP/1.1.
    pub(crate) async fn http() -> Self {
        Self::start(false).await
    }

    /// One that takes it over gRPC.
    pub(crate) async fn grpc() -> Self {
        Self::start(true).await
    }

    async fn start(is_grpc: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    match is_grpc {
                        true => grpc(&state, stream).await,
                        false => http1(&state, stream).await.unwrap_or_default(),
                    }
                });
            }
        });
        Self {
            address,
            is_grpc,
            state,
            task,
        }
    }

    /// Its address as a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does it speak gRPC?
    pub(crate) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Answers so many requests as one that is overloaded.
    pub(crate) fn is_busy(&self, requests: usize) {
        self.state.busy.store(requests, Ordering::SeqCst);
    }

    /// What has arrived.
    pub(crate) fn spans(&self) -> Vec<Seen> {
        self.state.spans.lock().expect("no holder panics").clone()
    }

    /// How often a field with this value has come along.
    pub(crate) fn fields(&self, name: &str) -> Vec<String> {
        let fields = self.state.fields.lock().expect("no holder panics");
        let values = fields.iter().filter_map(|fields| fields.get(name));
        let text = |value: &http::HeaderValue| value.to_str().expect("ASCII").to_owned();
        values.map(text).collect()
    }

    /// Waits for a span of this name, and gives all of its trace that came with it.
    pub(crate) async fn trace_of(&self, name: &str) -> Vec<Seen> {
        let found = eventually_some(PATIENCE, async || {
            let spans = self.spans();
            let first = spans.iter().find(|seen| seen.span.name == name)?;
            let of_it = |seen: &&Seen| seen.span.trace_id == first.span.trace_id;
            Some(spans.iter().filter(of_it).cloned().collect())
        });
        let found = found.await;
        found.unwrap_or_else(|| panic!("no span {name:?} among {:#?}", self.names()))
    }

    /// The names of all spans.
    pub(crate) fn names(&self) -> Vec<String> {
        self.spans()
            .into_iter()
            .map(|seen| seen.span.name)
            .collect()
    }
}

impl State {
    /// False: not now.
    fn takes(&self, fields: HeaderMap, body: &[u8]) -> bool {
        let busy = self
            .busy
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if busy.is_ok() {
            return false;
        }
        let batch = ExportTraceServiceRequest::decode(body).expect("it is protobuf");
        let mut spans = self.spans.lock().expect("no holder panics");
        for of in batch.resource_spans {
            let resource = of.resource.expect("a resource");
            let service = Seen {
                span: Span {
                    attributes: resource.attributes,
                    ..Span::default()
                },
                service: String::new(),
            };
            let service = service.says("service.name").expect("a name");
            let found = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(found.map(|span| Seen {
                span,
                service: service.clone(),
            }));
        }
        self.fields.lock().expect("no holder panics").push(fields);
        true
    }
}

async fn http1(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    let mut read = BytesMut::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break read.split_to(end + 4);
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(head.to_vec()).expect("ASCII");
        let (first, lines) = head.split_once("\r\n").expect("a request line");
        assert_eq!(first, "POST /v1/traces HTTP/1.1");
        let mut fields = HeaderMap::new();
        for (name, value) in lines.lines().filter_map(|line| line.split_once(':')) {
            let name: http::HeaderName = name.parse().expect("a name");
            fields.append(name, value.trim().parse().expect("a value"));
        }
        assert_eq!(fields["content-type"], "application/x-protobuf");
        let length: usize = fields["content-length"]
            .to_str()
            .expect("ASCII")
            .parse()
            .expect("a number");
        while read.len() < length {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let body = read.split_to(length);
        let status = match state.takes(fields, &body) {
            true => "200 OK",
            false => "503 Service Unavailable",
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn grpc(state: &Arc<State>, stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            assert_eq!(
                head.uri.path(),
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            );
            assert_eq!(head.headers["content-type"], "application/grpc");
            assert_eq!(head.headers["te"], "trailers");
            let mut message = BytesMut::new();
            while let Some(piece) = body.data().await {
                let piece = piece.expect("a piece");
                let _ = body.flow_control().release_capacity(piece.len());
                message.extend_from_slice(&piece);
            }
            let length = u32::from_be_bytes(message[1..5].try_into().expect("four bytes"));
            assert_eq!((message[0], message.len() - 5), (0, length as usize));
            let code = match state.takes(head.headers, &message[5..]) {
                true => "0",
                false => "14",
            };
            answer(respond, code);
        });
    }
}

fn answer(mut respond: SendResponse<Bytes>, code: &str) {
    let head = http::Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).expect("it is sound");
    let mut body = respond.send_response(head, false).expect("it waits");
    if code == "0" {
        let message = ExportTraceServiceResponse::default().encode_to_vec();
        let mut bytes = vec![0, 0, 0, 0, message.len() as u8];
        bytes.extend(message);
        body.send_data(bytes.into(), false).expect("it waits");
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("a value"));
    body.send_trailers(trailers).expect("it waits");
}
