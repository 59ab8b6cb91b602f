//! The one door for HTTP: one client, one way to send, limits on what comes back.
//!
//! What passes here is neither logged nor kept: no header, no body. What a status means is the side's own affair
//! (`falcon/refusal.rs`, `tailscale/refusal.rs`).

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
mod wait;

use std::fmt;
use std::io::{self, BufReader, Read};
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, redirect, retry, tls};
use serde::de::DeserializeOwned;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tracing::debug;

use crate::error::{UpstreamError, said};
use crate::retry::{Budget, Operation};

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
/// How much of the path to an undecodable value is kept.
const PATH_CHARS: usize = 120;
/// So many bytes of a stream are fetched from the runtime at a time.
const STREAM_BUFFER: usize = 64 << 10;

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The HTTP client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
}

/// An answer, whole.
pub struct Reply {
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
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// A header's value, where it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer that was decoded while it came in, or one that is no success.
#[derive(Debug)]
pub(crate) enum Streamed<T> {
    /// A success, decoded.
    Decoded(T),
    /// Any other status, with its whole body.
    Other(Reply),
}

impl Http {
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
            // One layer retries, and it is ours (`retry.rs`).
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
        budget: &Budget,
    ) -> Result<Reply, UpstreamError> {
        let sent = Sent::out(request, operation, budget.patience(), budget).await?;
        sent.read(cap).await
    }

    /// Sends a request and decodes a successful answer's JSON while it comes in, so that it is never held whole.
    ///
    /// # Errors
    /// As [`Http::send`]; also when the answer does not decode.
    pub(crate) async fn stream<T: DeserializeOwned + Send + 'static>(
        &self,
        request: RequestBuilder,
        operation: Operation,
        cap: usize,
        budget: &Budget,
    ) -> Result<Streamed<T>, UpstreamError> {
        let sent = Sent::out(
            request,
            operation,
            budget.patience() * STREAM_FACTOR,
            budget,
        )
        .await?;
        if sent.response.status().is_success() {
            sent.decode(cap).await.map(Streamed::Decoded)
        } else {
            sent.read(ERROR_CAP).await.map(Streamed::Other)
        }
    }
}

/// A request that was sent, and the beginning of its answer.
struct Sent<'a> {
    response: Response,
    operation: Operation,
    budget: &'a Budget,
    started: Timestamp,
}

impl<'a> Sent<'a> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    async fn out(
        request: RequestBuilder,
        operation: Operation,
        patience: Duration,
        budget: &'a Budget,
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
            .map_err(|error| broken(operation, budget, error.without_url()))?;
        Ok(Self {
            response,
            operation,
            budget,
            started,
        })
    }

    async fn read(mut self, cap: usize) -> Result<Reply, UpstreamError> {
        let mut body = Vec::new();
        while let Some(chunk) = self
            .response
            .chunk()
            .await
            .map_err(|error| broken(self.operation, self.budget, error.without_url()))?
        {
            if chunk.len() > cap - body.len() {
                return Err(self.operation.protocol(TooLarge(cap)));
            }
            body.extend_from_slice(&chunk);
        }
        let Self {
            response,
            operation,
            budget,
            started,
        } = self;
        log(operation, response.status(), started, budget, body.len());
        Ok(Reply {
            status: response.status(),
            headers: response.headers().clone(),
            received: budget.now(),
            body,
        })
    }

    async fn decode<T: DeserializeOwned + Send + 'static>(
        self,
        cap: usize,
    ) -> Result<T, UpstreamError> {
        let Self {
            response,
            operation,
            budget,
            started,
        } = self;
        let status = response.status();
        let stream = response
            .bytes_stream()
            .map_err(|error| io::Error::other(error.without_url()));
        let bytes = SyncIoBridge::new(StreamReader::new(Box::pin(stream)));
        // What is logged in another thread belongs to the run as well.
        let span = tracing::Span::current();
        let decoding = tokio::task::spawn_blocking(move || {
            let _entered = span.enter();
            let mut bytes = Capped {
                inner: bytes,
                cap,
                read: 0,
            };
            let reader = BufReader::with_capacity(STREAM_BUFFER, &mut bytes);
            let decoded = from_json(&mut serde_json::Deserializer::from_reader(reader));
            (decoded, bytes.read)
        });
        let (decoded, bytes) = decoding.await.map_err(|error| operation.protocol(error))?;
        log(operation, status, started, budget, bytes);
        decoded.map_err(|error| match error {
            Undecodable::Broken(error) if error.kind() != io::ErrorKind::FileTooLarge => {
                broken(operation, budget, error)
            }
            other => other.at(operation),
        })
    }
}

/// A connection that failed. Where it was cut because the run's time was up, that is the reason to give.
fn broken(
    operation: Operation,
    budget: &Budget,
    error: impl std::error::Error + Send + Sync + 'static,
) -> UpstreamError {
    if budget.left() < TOO_LITTLE {
        operation.no_time_left()
    } else {
        operation.unreachable(error)
    }
}

fn log(
    operation: Operation,
    status: StatusCode,
    started: Timestamp,
    budget: &Budget,
    response_bytes: usize,
) {
    let duration_ms = budget.now().duration_since(started).as_millis();
    debug!(
        side = %operation.side,
        operation = operation.name,
        status = status.as_u16(),
        duration_ms = i64::try_from(duration_ms).unwrap_or(i64::MAX),
        response_bytes,
        "an API call was answered",
    );
}

/// A limit that a body went past.
#[derive(Debug, thiserror::Error)]
#[error("it is larger than {0} bytes")]
struct TooLarge(usize);

/// A reader that counts what it gives, and fails past its cap instead of pretending that the body ended there.
struct Capped<R> {
    inner: R,
    cap: usize,
    read: usize,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read;
        if self.read > self.cap {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                TooLarge(self.cap),
            ));
        }
        Ok(read)
    }
}

/// Why a body did not decode: the place, never the content.
#[derive(Debug, thiserror::Error)]
enum Undecodable {
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the body ended early")]
    Early,
    #[error("not what is expected at {path} (line {line}, column {column})")]
    Malformed {
        path: String,
        line: usize,
        column: usize,
    },
}

impl Undecodable {
    fn at(self, operation: Operation) -> UpstreamError {
        match self {
            Self::Broken(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                operation.protocol(error)
            }
            Self::Broken(error) => operation.unreachable(error),
            // A proxy or a server that goes down cuts bodies; asking again helps.
            Self::Early => operation.unreachable(self),
            Self::Malformed { .. } => operation.protocol(self),
        }
    }
}

/// Decodes a body's JSON.
///
/// # Errors
/// Says at which path decoding stopped.
pub(crate) fn decode<T: DeserializeOwned>(
    operation: Operation,
    body: &[u8],
) -> Result<T, UpstreamError> {
    // Keeping track of the path takes half of the time, and is of use only where decoding fails.
    serde_json::from_slice(body).or_else(|_| {
        from_json(&mut serde_json::Deserializer::from_slice(body)).map_err(|e| e.at(operation))
    })
}

fn from_json<'de, R, T>(json: &mut serde_json::Deserializer<R>) -> Result<T, Undecodable>
where
    R: serde_json::de::Read<'de>,
    T: DeserializeOwned,
{
    let value = serde_path_to_error::deserialize(&mut *json).map_err(|error| {
        let path = error.path().to_string();
        undecodable(&path, error.into_inner())
    })?;
    json.end().map_err(|error| undecodable("the end", error))?;
    Ok(value)
}

fn undecodable(path: &str, error: serde_json::Error) -> Undecodable {
    use serde_json::error::Category;
    match error.classify() {
        Category::Io => Undecodable::Broken(error.into()),
        Category::Eof => Undecodable::Early,
        // Their own texts quote the content.
        Category::Syntax | Category::Data => Undecodable::Malformed {
            // The keys in it are the sender's words, too.
            path: said(path, PATH_CHARS),
            line: error.line(),
            column: error.column(),
        },
    }
}

/// A URL under a base; each segment is encoded, so that none can leave its place in the path.
pub(crate) fn endpoint<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    // It fails for URLs like `mailto:` only, and the configuration takes http(s).
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
