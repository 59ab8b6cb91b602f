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
    /// The credential itself was refused (401, or 403 at the token call).
    #[error("{side} refused the credentials at {operation} (HTTP {status})")]
    Refused {
        /// Who refused.
        side: Service,
        /// The call, as the fields' people name it: "the token call".
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// The credential works, but may not do this (403 with the side's words for it).
    #[error("{side} does not let this credential do {operation}: it lacks the scope {scope}")]
    MissingScope {
        /// Who refused.
        side: Service,
        /// The call.
        operation: &'static str,
        /// The scope to add, in the side's own words.
        scope: &'static str,
    },
    /// What looks like a refused credential and is none: another cloud, an address off the allow-list, a tailnet that is
    /// not there. No other credential would help.
    #[error("{side} does not serve {operation}{}: {problem}", with_status(*status))]
    Misconfigured {
        /// Who does not.
        side: Service,
        /// The call.
        operation: &'static str,
        /// The HTTP status, if there was a call.
        status: Option<u16>,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// 429, or an advertised wait that reaches past the run's deadline.
    #[error("{side} limits the rate of {operation}{}", until.map(|t| format!(" until {t}")).unwrap_or_default())]
    RateLimited {
        /// Who asks to wait.
        side: Service,
        /// The call.
        operation: &'static str,
        /// The advertised end, where there is one.
        until: Option<Timestamp>,
    },
    /// Connection refused or broken, timed out, or a 5xx.
    #[error("{side} is not reachable for {operation}{}", with_status(*status))]
    Unavailable {
        /// Who failed.
        side: Service,
        /// The call.
        operation: &'static str,
        /// The HTTP status, if there was an answer.
        status: Option<u16>,
        /// The broken connection, where that was it.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// A crawl ended with fewer records than its total, or never ended.
    #[error("{side} ended {operation} after {got} of {total} records")]
    Incomplete {
        /// Whose crawl.
        side: Service,
        /// The crawl.
        operation: &'static str,
        /// Records received.
        got: usize,
        /// Records announced.
        total: usize,
    },
    /// An answer that is not what the API promises. The source names the path, never the content.
    #[error("{side} answered {operation} with something that does not decode")]
    Protocol {
        /// Whose answer.
        side: Service,
        /// The call.
        operation: &'static str,
        /// Where decoding stopped.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The request itself was refused (400, 404, 409, 422 and the like): sending it again cannot help.
    #[error("{side} refused {operation} (HTTP {status}): {message}")]
    Rejected {
        /// Who refused.
        side: Service,
        /// The call.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The side's own message, cleaned and shortened by [`sanitize`](crate::text::sanitize); empty where it might echo a credential.
        message: String,
    },
    /// There was no time left to make the call.
    #[error("there was no time left for {operation} at {side}{}", progress.map(|p| format!(", which had come to {p}")).unwrap_or_default())]
    Deadline {
        /// Whose call.
        side: Service,
        /// The call.
        operation: &'static str,
        /// How far a crawl had come.
        progress: Option<Progress>,
    },
}

/// How far a crawl came.
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
    /// Whose failure it is.
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

    /// Its class.
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

    /// Whether the same call, made again a little later, may well succeed.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// Whether the credential itself was refused.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// What to do, as half a sentence.
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
