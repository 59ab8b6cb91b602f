//! HTTP: the only client, one way to send a request, limits on the size and the time of a response.
//!
//! No header and no body is logged or kept. The meaning of a status is in `falcon/errors.rs` and `tailscale/errors.rs`.

mod retry_after;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode, Url, redirect, retry, tls};
use serde::de::IgnoredAny;
use tracing::debug;

use crate::json::{JsonError, ListDecoder, ListEnvelope};
use crate::upstream::error::{Operation, UpstreamError};
use crate::upstream::retry::CallBudget;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time between two chunks of a response.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Factor of the request timeout for a streamed response, whose size is not limited. [`READ_TIMEOUT`] still applies.
const STREAM_TIMEOUT_FACTOR: u32 = 5;
/// Maximum bytes of an error's body, which is read for its message.
const MAX_ERROR_BYTES: usize = 1 << 20;
/// No call can be repeated in less time. The margin also covers a timer and a clock that disagree about the deadline.
const MIN_CALL_TIME: Duration = Duration::from_millis(100);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The HTTP client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct HttpClient(reqwest::Client);

impl HttpClient {
    /// Builds the client.
    ///
    /// # Errors
    /// If the system's TLS roots cannot be read.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn new() -> Result<Self, reqwest::Error> {
        reqwest::Client::builder()
            .user_agent(USER_AGENT)
            // A redirect would carry the secret of a form to any address that it names.
            .redirect(redirect::Policy::none())
            // Only `retry.rs` retries.
            .retry(retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tls_version_min(tls::Version::TLS_1_2)
            .gzip(true)
            .build()
            .map(Self)
    }
}

/// The HTTP client and the budget of the run that it calls for. Clones share both.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: HttpClient,
    pub(crate) budget: CallBudget,
}

pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The time of arrival, on our clock.
    pub(crate) received: Timestamp,
    /// The decompressed body.
    pub(crate) body: Vec<u8>,
}

/// Prints neither headers nor body: both may hold a token.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns whether the body is a page of something in between, such as a proxy or a login.
    pub(crate) fn is_web_page(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Returns whether the body is text that neither API sends with an error: both send JSON, or nothing.
    pub(crate) fn is_foreign_text(&self) -> bool {
        !self.body.is_empty() && serde_json::from_slice::<IgnoredAny>(&self.body).is_err()
    }
}

impl ApiClient {
    /// Creates a client that calls within this budget.
    pub fn new(http: HttpClient, budget: CallBudget) -> Self {
        Self { http, budget }
    }

    /// Returns a client for a part of the run, which sends nothing after `end`.
    pub(crate) fn within(&self, end: Timestamp) -> Self {
        Self {
            budget: self.budget.part(end),
            ..self.clone()
        }
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.0.request(method, url)
    }

    /// Sends a request and reads the response, whatever its status. Fails if no complete response arrived, it has more than
    /// `max_bytes`, or the run had no time left.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        operation: Operation,
        max_bytes: usize,
    ) -> Result<Response, UpstreamError> {
        let timeout = self.budget.policy.request_timeout;
        InFlight::send(request, operation, timeout, &self.budget)
            .await?
            .read(max_bytes)
            .await
    }

    /// Sends a request and decodes the list of a successful response while it arrives. The list is never held whole. Fails
    /// as [`ApiClient::send`], if the response does not decode, or as `classify` says of an unsuccessful response.
    pub(crate) async fn stream<E: ListEnvelope>(
        &self,
        request: RequestBuilder,
        operation: Operation,
        max_bytes: usize,
        classify: impl Fn(Operation, &Response) -> UpstreamError,
    ) -> Result<Vec<E::Item>, UpstreamError> {
        let timeout = self.budget.policy.request_timeout * STREAM_TIMEOUT_FACTOR;
        let mut sent = InFlight::send(request, operation, timeout, &self.budget).await?;
        if !sent.response.status().is_success() {
            return Err(classify(operation, &sent.read(MAX_ERROR_BYTES).await?));
        }
        let mut decoder = ListDecoder::<E>::new();
        let feed = |chunk: &[u8]| decoder.feed(chunk);
        sent.read_chunks(max_bytes, feed).await?;
        let list = decoder.finish();
        list.map_err(|error| operation.invalid_json(error))
    }
}

/// A request that was sent, with the head of its response.
struct InFlight<'a> {
    response: reqwest::Response,
    operation: Operation,
    budget: &'a CallBudget,
    started: Timestamp,
}

impl<'a> InFlight<'a> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    async fn send(
        request: RequestBuilder,
        operation: Operation,
        timeout: Duration,
        budget: &'a CallBudget,
    ) -> Result<Self, UpstreamError> {
        let remaining = budget.deadline.remaining();
        if remaining.is_zero() {
            return Err(operation.deadline_exceeded());
        }
        budget.count_request(operation.service);
        let started = budget.clock.now();
        let response = request
            .timeout(timeout.min(remaining))
            .send()
            .await
            .map_err(|error| transport_error(operation, budget, error))?;
        Ok(Self {
            response,
            operation,
            budget,
            started,
        })
    }

    async fn read(mut self, max_bytes: usize) -> Result<Response, UpstreamError> {
        let mut body = Vec::new();
        let append = |chunk: &[u8]| {
            body.extend_from_slice(chunk);
            Ok(())
        };
        self.read_chunks(max_bytes, append).await?;
        Ok(Response {
            status: self.response.status(),
            headers: self.response.headers().clone(),
            received: self.budget.clock.now(),
            body,
        })
    }

    /// Reads the body in chunks, and logs the call.
    async fn read_chunks(
        &mut self,
        max_bytes: usize,
        mut feed: impl FnMut(&[u8]) -> Result<(), JsonError>,
    ) -> Result<(), UpstreamError> {
        let (operation, budget) = (self.operation, self.budget);
        let mut response_bytes = 0;
        loop {
            let chunk = self.response.chunk().await;
            let chunk = chunk.map_err(|error| transport_error(operation, budget, error))?;
            let Some(chunk) = chunk else { break };
            response_bytes += chunk.len();
            if response_bytes > max_bytes {
                return Err(operation.protocol(format!("it is larger than {max_bytes} bytes")));
            }
            feed(&chunk).map_err(|error| operation.invalid_json(error))?;
        }
        let duration_ms = budget.clock.now().duration_since(self.started).as_millis();
        debug!(
            side = %operation.service,
            operation = operation.name,
            status = self.response.status().as_u16(),
            duration_ms = i64::try_from(duration_ms).unwrap_or(i64::MAX),
            response_bytes,
            "an API call was answered",
        );
        Ok(())
    }
}

/// Returns the error of a failed connection, or of the deadline if the deadline ended the connection.
fn transport_error(
    operation: Operation,
    budget: &CallBudget,
    error: reqwest::Error,
) -> UpstreamError {
    if budget.deadline.remaining() < MIN_CALL_TIME {
        operation.deadline_exceeded()
    } else {
        operation.unreachable(error.without_url())
    }
}

/// Appends segments to a base URL. Each segment is encoded, so that none can change the path before it.
pub(crate) fn endpoint<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    // Fails only for URLs like `mailto:`; the configuration accepts http(s).
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
