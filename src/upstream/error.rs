//! The calls to the two APIs, and their failures.
//!
//! A status or an invalid body becomes a kind once, where it is met. Retry, pause, status and log use the kind. The
//! messages say what failed, at which service, and what to do; none holds a body, a token or a secret.

use std::error::Error as StdError;
use std::fmt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::json::{self, JsonError};
use UpstreamErrorKind as Kind;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) service: Service,
    /// The name for readers, such as "the host listing".
    pub(crate) name: &'static str,
    /// The scope that the credential needs, as the service names it.
    pub(crate) scope: &'static str,
}

/// A failure of one of the two APIs, or of the credentials for them.
#[derive(Debug)]
pub struct UpstreamError {
    pub(crate) operation: Operation,
    pub(crate) kind: UpstreamErrorKind,
    /// The error of the connection or of the decoder, if one caused the failure. It names a path, never the content.
    pub(crate) source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The reason of an [`UpstreamError`].
#[derive(Debug)]
pub(crate) enum UpstreamErrorKind {
    /// The credential was rejected (401, or 403 at the token call).
    Unauthorized { status: u16, remedy: &'static str },
    /// The credential is valid, but lacks the scope of this call (403).
    MissingScope {
        /// True if the token's own list of scopes says so. Otherwise only the service's message does, which a single device
        /// can cause, too.
        is_certain: bool,
        /// The service's message, [redacted](crate::text::redact); empty if it has none.
        message: String,
    },
    /// Something between the function and the service responded in its place: a proxy, a filter or a login page.
    Intercepted { status: u16 },
    /// The configuration is wrong: another cloud, an address that is not on the allow-list, a tailnet that does not exist.
    /// The response looks like a rejected credential, but another credential would not help.
    Misconfigured {
        /// `None` if there was no call.
        status: Option<u16>,
        problem: String,
        remedy: &'static str,
    },
    /// 429, or an advertised wait that ends after the run's deadline. `until` is the advertised end, if any.
    RateLimited { until: Option<Timestamp> },
    /// The connection was refused, broke or timed out (then there is no status), or the status was 5xx.
    Unavailable { status: Option<u16> },
    /// A listing ended with fewer records than its total, or did not end.
    Incomplete(Progress),
    /// The response is not what the API promises.
    Protocol,
    /// The request was rejected (400, 404, 409, 422 and the like). A retry cannot help. The service's message is
    /// [redacted](crate::text::redact); it is empty if it might echo a credential.
    Rejected { status: u16, message: String },
    /// The run had no time left for the call. Only a listing has a progress.
    Deadline { progress: Option<Progress> },
}

/// The progress of a listing, in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) got: usize,
    /// The announced total.
    pub(crate) total: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} records", self.got, self.total)
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, operation) = (self.operation.service, self.operation.name);
        write!(f, "{service}: {operation} failed")?;
        match &self.kind {
            Kind::Unauthorized { status, .. } => {
                write!(f, " (HTTP {status}): the credential was rejected")
            }
            Kind::MissingScope { message, .. } => {
                let scope = self.operation.scope;
                write!(f, " (HTTP 403): the credential lacks the scope {scope}")?;
                quote(f, message)
            }
            Kind::Intercepted { status } => {
                let service = self.operation.service;
                write!(
                    f,
                    " (HTTP {status}): the response is not {service}'s; something in between sent it"
                )
            }
            Kind::Misconfigured {
                status, problem, ..
            } => write!(f, "{}: {problem}", status_suffix(*status)),
            Kind::RateLimited { until: None } => f.write_str(": rate limit exceeded"),
            Kind::RateLimited { until: Some(until) } => {
                write!(f, ": rate limit exceeded until {until}")
            }
            Kind::Unavailable { status } => f.write_str(&status_suffix(*status)),
            Kind::Incomplete(progress) => write!(f, ": incomplete after {progress}"),
            Kind::Protocol => f.write_str(": invalid response"),
            Kind::Rejected { status, message } => write!(f, " (HTTP {status}): {message}"),
            Kind::Deadline { progress: None } => f.write_str(": no time left in the run"),
            Kind::Deadline {
                progress: Some(progress),
            } => write!(f, ": no time left in the run, after {progress}"),
        }
    }
}

impl StdError for UpstreamError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Adds the service's own words, if there are any.
fn quote(f: &mut fmt::Formatter<'_>, message: &str) -> fmt::Result {
    match message {
        "" => Ok(()),
        message => write!(f, " ({message:?})"),
    }
}

fn status_suffix(status: Option<u16>) -> String {
    status.map_or_else(String::new, |status| format!(" (HTTP {status})"))
}

impl UpstreamError {
    pub(crate) fn error_kind(&self) -> ErrorKind {
        match self.kind {
            Kind::Unauthorized { .. } => ErrorKind::Authentication,
            Kind::MissingScope { .. } => ErrorKind::MissingScope,
            Kind::Misconfigured { .. } => ErrorKind::Configuration,
            Kind::RateLimited { .. } => ErrorKind::RateLimited,
            Kind::Unavailable { .. } => ErrorKind::Unavailable,
            Kind::Incomplete(_) => ErrorKind::Incomplete,
            Kind::Protocol | Kind::Rejected { .. } | Kind::Intercepted { .. } => {
                ErrorKind::Protocol
            }
            Kind::Deadline { .. } => ErrorKind::Deadline,
        }
    }

    /// Returns whether another token may help. With 403, the credential itself is rejected.
    pub(crate) fn is_token_rejected(&self) -> bool {
        matches!(self.kind, Kind::Unauthorized { status, .. } if status != 403)
    }

    pub(crate) fn is_rejected_with(&self, expected: u16) -> bool {
        matches!(self.kind, Kind::Rejected { status, .. } if status == expected)
    }

    /// Returns the HTTP status, if there was a response that failed by its status.
    pub(crate) fn status(&self) -> Option<u16> {
        match self.kind {
            Kind::Unauthorized { status, .. }
            | Kind::Rejected { status, .. }
            | Kind::Intercepted { status } => Some(status),
            Kind::MissingScope { .. } => Some(403),
            Kind::Misconfigured { status, .. } | Kind::Unavailable { status } => status,
            Kind::RateLimited { .. } => Some(429),
            Kind::Incomplete(_) | Kind::Protocol | Kind::Deadline { .. } => None,
        }
    }

    /// Returns whether the request may have taken effect, or may still take it: no answer of the service itself came back.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self.kind {
            Kind::Unavailable { .. }
            | Kind::Intercepted { .. }
            | Kind::Protocol
            | Kind::Deadline { .. } => true,
            Kind::Unauthorized { .. }
            | Kind::MissingScope { .. }
            | Kind::Misconfigured { .. }
            | Kind::RateLimited { .. }
            | Kind::Incomplete(_)
            | Kind::Rejected { .. } => false,
        }
    }

    /// Returns whether the failure of a call about one device can be that device's own. An outage looks the same; then the
    /// device listing fails, too.
    pub(crate) fn can_be_one_devices(&self) -> bool {
        match self.kind {
            Kind::MissingScope { is_certain, .. } => !is_certain,
            Kind::Misconfigured { status, .. } => status == Some(403),
            Kind::Unavailable { .. }
            | Kind::Protocol
            | Kind::Rejected { .. }
            | Kind::Intercepted { .. } => true,
            Kind::Unauthorized { .. }
            | Kind::RateLimited { .. }
            | Kind::Incomplete(_)
            | Kind::Deadline { .. } => false,
        }
    }

    /// Returns the remedy, as half a sentence.
    pub(crate) fn remedy(&self) -> String {
        let (side, scope) = (self.operation.service, self.operation.scope);
        match &self.kind {
            Kind::Unauthorized { remedy, .. } | Kind::Misconfigured { remedy, .. } => {
                (*remedy).to_owned()
            }
            Kind::MissingScope { .. } => {
                format!("add the scope {scope} to the API client in {side}'s console")
            }
            Kind::RateLimited { .. } => format!(
                "wait for the next run; if it persists, check which other tool uses up {side}'s quota"
            ),
            Kind::Unavailable { .. } => format!(
                "wait for the next run; if it persists, check {side}'s status page and whether the function can \
                 reach it"
            ),
            Kind::Incomplete(_) => {
                "wait for the next run, which reads it again; a partial listing removes no attribute"
                    .to_owned()
            }
            Kind::Intercepted { .. } => format!(
                "let the function reach {side} without a login or a filter in between: a proxy, a firewall or a \
                 VPC endpoint responded"
            ),
            Kind::Protocol | Kind::Rejected { .. } => format!(
                "wait for the next run; if it persists, check whether a proxy responds in {side}'s place, and \
                 report it"
            ),
            Kind::Deadline { .. } => {
                "give the function a longer timeout (`timeout` in Cargo.toml, then `make deploy`; \
                                      at most 900 s)"
                    .to_owned()
            }
        }
    }
}

type Source = Box<dyn StdError + Send + Sync>;

/// The errors that a call can end with.
impl Operation {
    pub(crate) const fn new(service: Service, name: &'static str, scope: &'static str) -> Self {
        Self {
            service,
            name,
            scope,
        }
    }

    pub(crate) fn error(self, kind: UpstreamErrorKind) -> UpstreamError {
        UpstreamError {
            operation: self,
            kind,
            source: None,
        }
    }

    pub(crate) fn unauthorized(self, status: u16, remedy: &'static str) -> UpstreamError {
        self.error(Kind::Unauthorized { status, remedy })
    }

    pub(crate) fn missing_scope(self, is_certain: bool, message: String) -> UpstreamError {
        self.error(Kind::MissingScope {
            is_certain,
            message,
        })
    }

    pub(crate) fn intercepted(self, status: u16) -> UpstreamError {
        self.error(Kind::Intercepted { status })
    }

    pub(crate) fn misconfigured(
        self,
        status: Option<u16>,
        problem: impl Into<String>,
        remedy: &'static str,
    ) -> UpstreamError {
        self.error(Kind::Misconfigured {
            status,
            problem: problem.into(),
            remedy,
        })
    }

    pub(crate) fn rate_limited(self, until: Option<Timestamp>) -> UpstreamError {
        self.error(Kind::RateLimited { until })
    }

    pub(crate) fn server_error(self, status: u16) -> UpstreamError {
        self.error(Kind::Unavailable {
            status: Some(status),
        })
    }

    pub(crate) fn unreachable(self, source: impl Into<Source>) -> UpstreamError {
        UpstreamError {
            source: Some(source.into()),
            ..self.error(Kind::Unavailable { status: None })
        }
    }

    pub(crate) fn incomplete(self, got: usize, total: usize) -> UpstreamError {
        self.error(Kind::Incomplete(Progress { got, total }))
    }

    pub(crate) fn protocol(self, source: impl Into<Source>) -> UpstreamError {
        UpstreamError {
            source: Some(source.into()),
            ..self.error(Kind::Protocol)
        }
    }

    pub(crate) fn rejected(self, status: u16, message: String) -> UpstreamError {
        self.error(Kind::Rejected { status, message })
    }

    pub(crate) fn deadline_exceeded(self) -> UpstreamError {
        self.error(Kind::Deadline { progress: None })
    }

    pub(crate) fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, UpstreamError> {
        json::parse(body).map_err(|error| self.invalid_json(error))
    }

    pub(crate) fn invalid_json(self, error: JsonError) -> UpstreamError {
        match error {
            // A proxy or a server that shuts down truncates bodies; a retry helps.
            JsonError::Truncated => self.unreachable(error),
            JsonError::Malformed { .. } | JsonError::TooLarge(_) | JsonError::TooMany(_) => {
                self.protocol(error)
            }
        }
    }
}
