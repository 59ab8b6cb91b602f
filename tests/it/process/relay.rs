//! A relay between the process and a server. A test can change requests and responses in it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use futures::Stream;
use posture_simulators::net::{Bound, Connection, Server};
use tokio::sync::RwLock;

/// Maximum bytes of a body, more than any server sends.
const BODY_CAP: usize = 64 << 20;
/// Headers of a single connection, which are not passed on.
const OF_A_CONNECTION: [&str; 4] = ["connection", "content-length", "host", "transfer-encoding"];

/// A request that passes the relay.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The path and the query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// Returns the value of a header, or an empty text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the operation of an AWS service, such as `UpdateItem`.
    pub(crate) fn aws_operation(&self) -> Option<&str> {
        self.header("x-amz-target")
            .rsplit_once('.')
            .map(|(_, name)| name)
    }
}

/// A response that passes the relay.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answered {
    /// A response for a case in which no caller reads it.
    pub(crate) fn nothing() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The delivery of a response.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The response arrives.
    Whole(Answered),
    /// The head and half of the body arrive, then the connection breaks.
    Half(Answered),
    /// The connection is reset before the first byte.
    Reset,
    /// No byte arrives until the caller gives up.
    Never,
    /// The server goes down: open connections are reset, and new ones are refused.
    Down,
}

/// The hooks of a test.
pub(crate) trait Watch: Send + Sync + 'static {
    /// Responds in place of the server, which then never receives the request.
    fn before(&self, asked: &mut Asked) -> Option<Answered>;

    /// Observes the server's response before the process does.
    fn after(&self, asked: &Asked, answered: &Answered);

    /// Decides the delivery of a response, of the server or in its place.
    fn deliver(&self, _: &Asked, answered: Answered) -> Delivery {
        Delivery::Whole(answered)
    }
}

/// A relay to one server.
pub(crate) struct Relay {
    server: Arc<Server>,
    under_way: Arc<RwLock<()>>,
}

impl Relay {
    pub(crate) async fn to(base: &str, watch: Arc<dyn Watch>) -> Self {
        let under_way = Arc::new(RwLock::new(()));
        let bound = Bound::to(0).await.unwrap();
        let server = Arc::new_cyclic(|server| {
            let route = Route {
                base: base.to_owned(),
                client: client(),
                watch,
                under_way: Arc::clone(&under_way),
                server: Weak::clone(server),
            };
            Server::start(bound, route.into_router())
        });
        Self { server, under_way }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// Accepts connections again after the server went down.
    pub(crate) async fn up(&self) {
        self.server.resume().await.unwrap();
    }

    /// Returns when no request is in flight.
    pub(crate) async fn quiet(&self) {
        drop(self.under_way.write().await);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it stands for no call of the function's own"
)]
fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_gzip()
        // No connection here is encrypted, and loading the system's TLS roots takes time.
        .tls_certs_only([])
        .no_proxy()
        .build()
        .unwrap()
}

#[derive(Clone)]
struct Route {
    base: String,
    client: reqwest::Client,
    watch: Arc<dyn Watch>,
    under_way: Arc<RwLock<()>>,
    server: Weak<Server>,
}

impl Route {
    fn into_router(self) -> Router {
        Router::new().fallback(
            move |ConnectInfo(connection): ConnectInfo<Connection>, request: Request| {
                let route = self.clone();
                async move {
                    // A separate task: the request is completed even if the caller has died.
                    let delivery = tokio::spawn(route.pass(request)).await.unwrap();
                    deliver(delivery, &connection).await
                }
            },
        )
    }

    async fn pass(self, request: Request) -> Delivery {
        let _under_way = self.under_way.read().await;
        let (parts, body) = request.into_parts();
        // Reading fails if the caller died in the middle of the request. The server would not act on it.
        let Ok(body) = to_bytes(body, BODY_CAP).await else {
            return Delivery::Whole(Answered::nothing());
        };
        let mut asked = Asked {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            target: parts.uri.to_string(),
            headers: parts.headers,
            body,
        };
        let answered = if let Some(answer) = self.watch.before(&mut asked) {
            answer
        } else {
            // The server broke the connection. An empty response looks the same to the process.
            let answered = self
                .forward(&asked)
                .await
                .unwrap_or_else(|_| Answered::nothing());
            self.watch.after(&asked, &answered);
            answered
        };
        let delivery = self.watch.deliver(&asked, answered);
        if let (Delivery::Down, Some(server)) = (&delivery, self.server.upgrade()) {
            server.stop().await;
        }
        delivery
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it stands for no call of the function's own"
    )]
    async fn forward(&self, asked: &Asked) -> Result<Answered, reqwest::Error> {
        let response = self
            .client
            .request(
                asked.method.clone(),
                format!("{}{}", self.base, asked.target),
            )
            .headers(passed_on(&asked.headers))
            .body(asked.body.clone())
            .send()
            .await?;
        Ok(Answered {
            status: response.status(),
            headers: passed_on(response.headers()),
            body: response.bytes().await?,
        })
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for name in OF_A_CONNECTION {
        passed.remove(HeaderName::from_static(name));
    }
    passed
}

/// Waits until the caller hangs up if no response is delivered.
async fn deliver(delivery: Delivery, connection: &Connection) -> Response<Body> {
    match delivery {
        Delivery::Whole(answered) => return answered.into_response(),
        Delivery::Half(answered) => return half(answered, connection.clone()),
        Delivery::Reset | Delivery::Down => connection.reset(),
        Delivery::Never => {}
    }
    std::future::pending().await
}

fn half(mut answered: Answered, connection: Connection) -> Response<Body> {
    let whole = std::mem::take(&mut answered.body);
    answered
        .headers
        .insert(header::CONTENT_LENGTH, whole.len().into());
    let half = Half {
        bytes: Some(whole.slice(..whole.len() / 2)),
        sent: false,
        connection,
    };
    let mut response = answered.into_response();
    *response.body_mut() = Body::from_stream(half);
    response
}

/// Sends some bytes, then closes the connection.
struct Half {
    bytes: Option<Bytes>,
    sent: bool,
    connection: Connection,
}

impl Stream for Half {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        if self.sent {
            self.connection.reset();
        } else {
            // The server flushes its buffer whenever no more bytes are ready.
            self.sent = true;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
