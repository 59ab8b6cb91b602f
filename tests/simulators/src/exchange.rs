//! Steps of one request: log, hooks, fault or response, gzip, send.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use http_body::Frame;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::faults::{Fault, FaultKind};
use crate::hooks::{Hooks, SimulatorState};
use crate::lock;
use crate::matching::{RequestInfo, Side};
use crate::net::Connection;
use crate::reply::{Call, Reply};
use crate::request_log::{Pending, RequestLog};

/// Larger than any body of either API.
const MAX_BODY_BYTES: usize = 32 << 20;
/// Below this, gzip makes bodies larger.
const MIN_GZIP_BYTES: usize = 256;

/// Handles requests with the state that affects them. Clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct RequestHandler {
    pub(crate) state: SimulatorState,
    pub(crate) hooks: Hooks,
    pub(crate) log: RequestLog,
    pub(crate) latency: Arc<Mutex<BTreeMap<Side, Duration>>>,
    pub(crate) answer_times: Arc<Mutex<BTreeMap<Side, Duration>>>,
}

/// The server that received the request.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Falcon { region: Arc<str> },
    Tailscale,
}

impl Endpoint {
    fn side(&self) -> Side {
        match self {
            Self::Falcon { .. } => Side::Falcon,
            Self::Tailscale => Side::Tailscale,
        }
    }

    fn region(&self) -> Option<&str> {
        match self {
            Self::Falcon { region } => Some(region),
            Self::Tailscale => None,
        }
    }
}

impl RequestHandler {
    pub(crate) async fn handle(
        &self,
        endpoint: &Endpoint,
        connection: Connection,
        request: Request,
    ) -> Response {
        let arrived = Instant::now();
        let (parts, body) = request.into_parts();
        let seen = RequestInfo {
            side: endpoint.side(),
            region: endpoint.region().map(str::to_owned),
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
        };
        let pending = self.log.begin(&seen, self.state.clock.now());
        let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
            return send(
                pending,
                Reply::empty(StatusCode::PAYLOAD_TOO_LARGE.as_u16()),
            );
        };
        let call = Call {
            seen,
            headers: parts.headers,
            body,
        };

        let latency = lock(&self.latency).get(&call.seen.side).copied();
        if let Some(latency) = latency {
            tokio::time::sleep(latency).await;
        }
        self.hooks.before(&call.seen, &self.state);
        let fault = self.state.faults.take(&call.seen);
        let answer = if fault.as_ref().is_none_or(Fault::takes_effect) {
            self.state.late.answer(endpoint, &call)
        } else {
            Reply::empty(200)
        };
        if fault.as_ref().is_some_and(Fault::is_late) {
            self.state.late.push(endpoint.clone(), call.clone());
        }
        self.hooks.after(&call.seen, &self.state);

        match fault {
            None => {
                let reply = compress(&call, answer);
                let time = lock(&self.answer_times).get(&call.seen.side).copied();
                if let Some(time) = time {
                    tokio::time::sleep_until(arrived + time).await;
                }
                send(pending, reply)
            }
            Some(fault) => {
                pending.fault(fault.kind.name());
                damage(fault.kind, &call, answer, pending, connection).await
            }
        }
    }
}

async fn damage(
    kind: FaultKind,
    call: &Call,
    answer: Reply,
    pending: Pending,
    connection: Connection,
) -> Response {
    match kind {
        FaultKind::Status {
            code,
            headers,
            body,
        } => {
            let mut reply = match body {
                Some(body) => Reply::typed(code, "application/json", body),
                None => Reply::json(code, &api_error(call.seen.side, code)),
            };
            reply
                .headers
                .retain(|(name, _)| !headers.keys().any(|given| given.eq_ignore_ascii_case(name)));
            let mut response = send(pending, reply);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(name), HeaderValue::try_from(value))
                {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        FaultKind::Reset => {
            connection.reset();
            // no response ever comes: the connection's task ends at its next use of the stream
            std::future::pending().await
        }
        FaultKind::Stall { ms } => {
            if let Some(ms) = ms {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                connection.reset();
            }
            std::future::pending().await
        }
        FaultKind::ResetMidBody => {
            let reply = compress(call, answer);
            let half = reply.body.slice(..reply.body.len() / 2);
            trickle(
                pending,
                reply,
                vec![half],
                Duration::from_millis(20),
                Some(connection),
            )
        }
        FaultKind::SlowBody { ms } => {
            let reply = compress(call, answer);
            let size = reply.body.len().div_ceil(10).max(1);
            let pieces = reply
                .body
                .chunks(size)
                .map(|piece| reply.body.slice_ref(piece))
                .collect();
            trickle(pending, reply, pieces, Duration::from_millis(ms / 10), None)
        }
        FaultKind::TruncatedJson => {
            let half = answer.body.slice(..answer.body.len() / 2);
            send(
                pending,
                Reply {
                    body: half,
                    ..answer
                },
            )
        }
        FaultKind::EmptyBody => send(
            pending,
            Reply {
                body: Bytes::new(),
                ..answer
            },
        ),
        FaultKind::WrongJson { body } => {
            let body = body
                .unwrap_or_else(|| json!({"resources": "none", "devices": 7, "attributes": []}));
            send(pending, Reply::json(200, &body))
        }
        FaultKind::Html => {
            let page = "<html><head><title>503 Service Temporarily Unavailable</title></head>\
                        <body><h1>503 Service Temporarily Unavailable</h1></body></html>";
            send(pending, Reply::typed(503, "text/html", page))
        }
    }
}

/// Returns an error without details, in the form of the side's API.
fn api_error(side: Side, code: u16) -> serde_json::Value {
    let message = StatusCode::from_u16(code)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("error");
    match side {
        Side::Falcon => json!({
            "meta": {"query_time": 1.27e-7, "powered_by": "crowdstrike-api-gateway", "trace_id": "00000000-0000-4000-8000-000000000000"},
            "errors": [{"code": code, "message": message}],
        }),
        Side::Tailscale => json!({"message": message}),
    }
}

/// Falcon honours `Accept-Encoding: gzip` (recorded: 8,319 bytes came as 1,566). No compression is
/// known of Tailscale's API, so its responses stay plain.
fn compress(call: &Call, reply: Reply) -> Reply {
    let accepted = call
        .header("accept-encoding")
        .is_some_and(|accepted| accepted.contains("gzip"));
    if call.seen.side != Side::Falcon || !accepted || reply.body.len() < MIN_GZIP_BYTES {
        return reply;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // writing to memory does not fail; the plain body is a correct fallback
    match encoder
        .write_all(&reply.body)
        .and_then(|()| encoder.finish())
    {
        Ok(packed) => Reply {
            body: packed.into(),
            ..reply
        }
        .with("content-encoding", &"gzip"),
        Err(_) => reply,
    }
}

fn send(pending: Pending, reply: Reply) -> Response {
    pending.answered(reply.status, reply.body.len());
    drop(pending);
    let Reply {
        status,
        headers,
        body,
    } = reply;
    head(status, &headers, Body::from(body))
}

/// Sends the body in pieces with pauses between them. With a connection to reset, the body stops
/// after the last piece. The announced length is that of the whole body.
fn trickle(
    pending: Pending,
    reply: Reply,
    pieces: Vec<Bytes>,
    pause: Duration,
    reset: Option<Connection>,
) -> Response {
    pending.answered(reply.status, pieces.iter().map(Bytes::len).sum());
    let (pipe, pieces_out) = mpsc::channel(1);
    tokio::spawn(async move {
        for piece in pieces {
            if pipe.send(piece).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        if let Some(connection) = reset {
            connection.reset();
            pipe.closed().await;
        }
        drop(pending);
    });
    let length = reply.body.len();
    let Reply {
        status, headers, ..
    } = reply.with("content-length", &length);
    head(status, &headers, Body::new(Pieces(pieces_out)))
}

fn head(status: u16, headers: &[(&'static str, String)], body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

struct Pieces(mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
