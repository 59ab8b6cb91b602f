//! A relay between the process and one of the servers, where a test can step in.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use tokio::sync::RwLock;

use crate::aws::{self, Server};

/// Larger than any body of the servers behind it.
const BODY_CAP: usize = 64 << 20;
/// What concerns one connection only, and so is not passed on.
const OF_A_CONNECTION: [&str; 4] = ["connection", "content-length", "host", "transfer-encoding"];

/// A request on its way.
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
    /// A header's value, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The operation of an AWS service: `UpdateItem`.
    pub(crate) fn aws_operation(&self) -> Option<&str> {
        self.header("x-amz-target")
            .rsplit_once('.')
            .map(|(_, name)| name)
    }
}

/// An answer on its way back.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answered {
    /// What nobody hears, or minds.
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

/// What a test does with requests.
pub(crate) trait Watch: Send + Sync + 'static {
    /// Answers in place of the server, which then never sees the request.
    fn before(&self, asked: &mut Asked) -> Option<Answered>;

    /// Sees the server's answer before the process does.
    fn after(&self, asked: &Asked, answered: &Answered);
}

/// A relay to one server.
pub(crate) struct Relay {
    server: Server,
    under_way: Arc<RwLock<()>>,
}

impl Relay {
    pub(crate) async fn to(base: &str, watch: Arc<dyn Watch>) -> Self {
        let under_way = Arc::new(RwLock::new(()));
        let route = Route {
            base: base.to_owned(),
            client: client(),
            watch,
            under_way: Arc::clone(&under_way),
        };
        let server = aws::serve(Router::new().fallback(move |request: Request| {
            let route = route.clone();
            // A task of its own: the request goes its way even if the one who asked is dead by then.
            async move { tokio::spawn(route.pass(request)).await.unwrap() }
        }))
        .await;
        Self { server, under_way }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url.clone()
    }

    /// Comes back when no request is under way.
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
        // Nothing here is encrypted, and reading the system's roots takes its time.
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
}

impl Route {
    async fn pass(self, request: Request) -> Response<Body> {
        let _under_way = self.under_way.read().await;
        let (parts, body) = request.into_parts();
        // It fails where the one who asked died in the middle of the request, which the server would not act upon.
        let Ok(body) = to_bytes(body, BODY_CAP).await else {
            return Answered::nothing().into_response();
        };
        let mut asked = Asked {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            target: parts.uri.to_string(),
            headers: parts.headers,
            body,
        };
        if let Some(answer) = self.watch.before(&mut asked) {
            return answer.into_response();
        }
        // The server broke the connection: so does an answer of nothing, as far as the process can tell.
        let answered = self
            .forward(&asked)
            .await
            .unwrap_or_else(|_| Answered::nothing());
        self.watch.after(&asked, &answered);
        answered.into_response()
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
