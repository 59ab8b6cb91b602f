//! Failures of the two APIs.
//!
//! A status or an invalid body becomes a variant once, where it is met. Retry, pause, status and log use the variant. The
//! messages say what failed, at which service, and what to do; none holds a body, a token or a secret.

use std::error::Error as StdError;
use std::fmt;

use jiff::Timestamp;

use crate::domain::status::error_kind::{ErrorKind, Service};

/// A failure of one of the two APIs, or of the credentials for them.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The credential was rejected (401, or 403 at the token call).
    #[error("{side} refused the credentials at {operation} (HTTP {status})")]
    Refused {
        /// The service that rejected the call.
        side: Service,
        /// The name of the call, such as "the token call".
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The remedy.
        advice: &'static str,
    },
    /// The credential is valid, but lacks the scope of this call (403 with the service's message for it).
    #[error("{side} does not let this credential do {operation}: it lacks the scope {scope}")]
    MissingScope {
        /// The service that rejected the call.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The scope to add, as the service names it.
        scope: &'static str,
    },
    /// The configuration is wrong: another cloud, an address that is not on the allow-list, a tailnet that does not exist.
    /// The response looks like a rejected credential, but another credential would not help.
    #[error("{side} does not serve {operation}{}: {problem}", with_status(*status))]
    Misconfigured {
        /// The service that rejected the call.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The HTTP status, if there was a call.
        status: Option<u16>,
        /// The problem.
        problem: String,
        /// The remedy.
        advice: &'static str,
    },
    /// The rate limit is exceeded: 429, or an advertised wait that ends after the run's deadline.
    #[error("{side} limits the rate of {operation}{}", until.map(|t| format!(" until {t}")).unwrap_or_default())]
    RateLimited {
        /// The service that asks to wait.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The advertised end of the wait, if any.
        until: Option<Timestamp>,
    },
    /// The connection was refused, broke or timed out, or the status was 5xx.
    #[error("{side} is not reachable for {operation}{}", with_status(*status))]
    Unavailable {
        /// The service that failed.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The HTTP status, if there was a response.
        status: Option<u16>,
        /// The error of the connection, if it caused the failure.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// A listing ended with fewer records than its total, or did not end.
    #[error("{side} ended {operation} after {got} of {total} records")]
    Incomplete {
        /// The service that was listed.
        side: Service,
        /// The name of the listing.
        operation: &'static str,
        /// Records received.
        got: usize,
        /// Records announced.
        total: usize,
    },
    /// The response is not what the API promises. The source names the path, never the content.
    #[error("{side} answered {operation} with something that does not decode")]
    Protocol {
        /// The service that responded.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The path at which decoding stopped.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The request was rejected (400, 404, 409, 422 and the like). A retry cannot help.
    #[error("{side} refused {operation} (HTTP {status}): {message}")]
    Rejected {
        /// The service that rejected the call.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The service's message, made fit by [`sanitize`](crate::text::sanitize); empty if it might echo a credential.
        message: String,
    },
    /// The run had no time left for the call.
    #[error("there was no time left for {operation} at {side}{}", progress.map(|p| format!(", which had come to {p}")).unwrap_or_default())]
    Deadline {
        /// The service to call.
        side: Service,
        /// The name of the call.
        operation: &'static str,
        /// The progress of a listing.
        progress: Option<Progress>,
    },
}

/// The progress of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Records received.
    pub got: usize,
    /// Records announced.
    pub total: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} records", self.got, self.total)
    }
}

fn with_status(status: Option<u16>) -> String {
    status
        .map(|status| format!(" (HTTP {status})"))
        .unwrap_or_default()
}

impl UpstreamError {
    /// Returns the service that failed.
    pub fn side(&self) -> Service {
        match self {
            Self::Refused { side, .. }
            | Self::MissingScope { side, .. }
            | Self::Misconfigured { side, .. }
            | Self::RateLimited { side, .. }
            | Self::Unavailable { side, .. }
            | Self::Incomplete { side, .. }
            | Self::Protocol { side, .. }
            | Self::Rejected { side, .. }
            | Self::Deadline { side, .. } => *side,
        }
    }

    /// Returns the class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } => ErrorKind::Authentication,
            Self::MissingScope { .. } => ErrorKind::MissingScope,
            Self::Misconfigured { .. } => ErrorKind::Configuration,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Incomplete { .. } => ErrorKind::Incomplete,
            Self::Protocol { .. } | Self::Rejected { .. } => ErrorKind::Protocol,
            Self::Deadline { .. } => ErrorKind::Deadline,
        }
    }

    /// Returns whether a retry of the same call may succeed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// Returns whether the credential was rejected.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Returns the remedy, as half a sentence.
    pub fn remedy(&self) -> String {
        let side = self.side();
        match self {
            Self::Refused { advice, .. } | Self::Misconfigured { advice, .. } => {
                (*advice).to_owned()
            }
            Self::MissingScope { scope, .. } => {
                format!("add the scope {scope} to the API client in {side}'s console")
            }
            Self::RateLimited { .. } => format!(
                "try again later, as the next run does; if it stays, see which other tool uses up {side}'s quota"
            ),
            Self::Unavailable { .. } => format!(
                "try again in a few minutes, as the next run does; if it stays, see {side}'s status page, and whether the \
                 function can reach it"
            ),
            Self::Incomplete { .. } => {
                "the next run reads it anew; nothing is taken away on the strength of a part"
                    .to_owned()
            }
            Self::Protocol { .. } | Self::Rejected { .. } => format!(
                "the next run tries again; if it stays, see whether a proxy answers in {side}'s place, and report it"
            ),
            Self::Deadline { .. } => {
                "give the function a longer timeout (`timeout` in Cargo.toml, then `make deploy`; \
                                      at most 900 s)"
                    .to_owned()
            }
        }
    }
}
