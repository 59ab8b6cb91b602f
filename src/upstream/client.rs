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
use tracing::debug;

use crate::json::{ListDecoder, ListEnvelope};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::CallBudget;

/// A connection that takes longer is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silence in the middle of an answer.
const SILENCE: Duration = Duration::from_mins(1);
/// How many times as long as other answers a streamed one may take: its size has no bound, but [`SILENCE`] ends it.
const STREAM_FACTOR: u32 = 5;
/// An error's body is read for its message.
const ERROR_CAP: usize = 1 << 20;
/// A timer and the clock need not agree on when the time is up; and in so little, no call can be made again.
const TOO_LITTLE: Duration = Duration::from_millis(100);

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The HTTP client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

/// An answer, whole.
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// When it was here, on our clock.
    pub received: Timestamp,
    /// Its body, decompressed.
    pub body: Vec<u8>,
}

/// A header or body may hold a token, so neither is printed.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Response {
    /// A header's value, where it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A list that was decoded while it came in, or an answer that is no success.
#[derive(Debug)]
pub(crate) enum Streamed<R> {
    /// The records of a success.
    List(Vec<R>),
    /// Any other status, with its whole body.
    Other(Response),
}

impl HttpClient {
    /// Builds the client.
    ///
    /// # Errors
    /// When the system's TLS roots cannot be read.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            // A redirect would carry the secret of a form to wherever it says.
            .redirect(redirect::Policy::none())
            // Only `retry.rs` retries.
            .retry(retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .tls_version_min(tls::Version::TLS_1_2)
            .gzip(true)
            .build()?;
        Ok(Self { client })
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request and reads the answer, whatever its status, up to `cap` bytes.
    ///
    /// # Errors
    /// When no whole answer came, or none that fits, or there was no time left to ask.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        operation: Operation,
        cap: usize,
        budget: &CallBudget,
    ) -> Result<Response, UpstreamError> {
        let sent = InFlight::out(request, operation, budget.patience(), budget).await?;
        sent.read(cap).await
    }

    /// Sends a request and decodes the list of a successful answer while it comes in, so that it is never held whole.
    ///
    /// # Errors
    /// As [`HttpClient::send`]; also when the answer does not decode.
    pub(crate) async fn stream<F: ListEnvelope>(
        &self,
        request: RequestBuilder,
        operation: Operation,
        cap: usize,
        budget: &CallBudget,
    ) -> Result<Streamed<F::Record>, UpstreamError> {
        let sent = InFlight::out(
            request,
            operation,
            budget.patience() * STREAM_FACTOR,
            budget,
        )
        .await?;
        if sent.response.status().is_success() {
            sent.records::<F>(cap).await.map(Streamed::List)
        } else {
            sent.read(ERROR_CAP).await.map(Streamed::Other)
        }
    }
}

/// A request that was sent, and the beginning of its answer.
struct InFlight<'a> {
    response: reqwest::Response,
    operation: Operation,
    budget: &'a CallBudget,
    started: Timestamp,
}

impl<'a> InFlight<'a> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    async fn out(
        request: RequestBuilder,
        operation: Operation,
        patience: Duration,
        budget: &'a CallBudget,
    ) -> Result<Self, UpstreamError> {
        let left = budget.left();
        if left.is_zero() {
            return Err(operation.no_time_left());
        }
        budget.count(operation.side);
        let started = budget.now();
        let response = request
            .timeout(patience.min(left))
            .send()
            .await
            .map_err(|error| broken(operation, budget, error))?;
        Ok(Self {
            response,
            operation,
            budget,
            started,
        })
    }

    async fn read(mut self, cap: usize) -> Result<Response, UpstreamError> {
        let (mut body, mut bytes) = (Vec::new(), 0);
        while let Some(piece) = self.next_piece(cap, &mut bytes).await? {
            body.extend_from_slice(piece.as_ref());
        }
        self.log(bytes);
        Ok(Response {
            status: self.response.status(),
            headers: self.response.headers().clone(),
            received: self.budget.now(),
            body,
        })
    }

    async fn records<F: ListEnvelope>(
        mut self,
        cap: usize,
    ) -> Result<Vec<F::Record>, UpstreamError> {
        let operation = self.operation;
        let (mut partial, mut bytes) = (ListDecoder::<F>::new(), 0);
        while let Some(piece) = self.next_piece(cap, &mut bytes).await? {
            let taken = partial.take(piece.as_ref());
            taken.map_err(|error| operation.invalid_json(error))?;
        }
        self.log(bytes);
        partial
            .finish()
            .map_err(|error| operation.invalid_json(error))
    }

    async fn next_piece(
        &mut self,
        cap: usize,
        bytes: &mut usize,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, UpstreamError> {
        let piece = self.response.chunk().await;
        let piece = piece.map_err(|error| broken(self.operation, self.budget, error))?;
        if let Some(piece) = &piece {
            *bytes += piece.len();
        }
        if *bytes > cap {
            return Err(self.operation.protocol(TooLarge(cap)));
        }
        Ok(piece)
    }

    fn log(&self, response_bytes: usize) {
        let duration_ms = self.budget.now().duration_since(self.started).as_millis();
        debug!(
            side = %self.operation.side,
            operation = self.operation.name,
            status = self.response.status().as_u16(),
            duration_ms = i64::try_from(duration_ms).unwrap_or(i64::MAX),
            response_bytes,
            "an API call was answered",
        );
    }
}

/// A connection that failed. Where it was cut because the run's time was up, that is the reason to give.
fn broken(operation: Operation, budget: &CallBudget, error: reqwest::Error) -> UpstreamError {
    if budget.left() < TOO_LITTLE {
        operation.no_time_left()
    } else {
        operation.unreachable(error.without_url())
    }
}

/// A limit that a body went past.
#[derive(Debug, thiserror::Error)]
#[error("it is larger than {0} bytes")]
struct TooLarge(usize);

/// A URL under a base; each segment is encoded, so that none can leave its place in the path.
pub(crate) fn endpoint<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    // It fails for URLs like `mailto:` only, and the configuration takes http(s).
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
