//! What can go wrong upstream, in classes.
//!
//! A status or a broken body becomes a variant once, where it is met; everything later (retry, pause, status, log) asks
//! the variant. The texts say what failed, on which side, and what to do; none holds a body, a token or a secret.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The party that a failure or a pause belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// CrowdStrike Falcon's API.
    Falcon,
    /// Tailscale's API.
    Tailscale,
    /// AWS Secrets Manager, or what a secret holds.
    Secrets,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Falcon => "Falcon",
            Self::Tailscale => "Tailscale",
            Self::Secrets => "Secrets Manager",
        })
    }
}

/// The class of a failure, stable for alarms: `errorKind` of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorKind {
    /// A credential was refused.
    Authentication,
    /// The credential is good, but lacks a scope.
    MissingScope,
    /// The side asked us to wait longer than this run can.
    RateLimited,
    /// Out of reach, or failing on its side.
    Unavailable,
    /// An observation came to an end before it was whole.
    Incomplete,
    /// An answer that does not decode.
    Protocol,
    /// A request that the side refuses as such.
    RefusedWrite,
    /// The integration's settings cannot work.
    Configuration,
    /// The run's time was up.
    Deadline,
    /// DynamoDB or another service of our own.
    Storage,
}

/// A failure met on one of the two APIs, or at the credentials for them.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The credential itself was refused (401, or 403 at the token call).
    #[error("{side} refused the credentials at {operation} (HTTP {status}): {advice}")]
    Refused {
        /// Who refused.
        side: Side,
        /// The call, as the fields' people name it: "the token call".
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// The credential works, but may not do this (403 with the side's words for it).
    #[error("{side} does not let this credential do {operation}: it needs the scope {scope}")]
    MissingScope {
        /// Who refused.
        side: Side,
        /// The call.
        operation: &'static str,
        /// The scope to add, in the side's own words.
        scope: &'static str,
    },
    /// 429, or an advertised wait that reaches past the run's deadline.
    #[error("{side} limits the rate of {operation}{}", until.map(|t| format!(" until {t}")).unwrap_or_default())]
    RateLimited {
        /// Who asks to wait.
        side: Side,
        /// The call.
        operation: &'static str,
        /// The advertised end, where there is one.
        until: Option<Timestamp>,
    },
    /// Connection refused or broken, timed out, or a 5xx.
    #[error("{side} is not reachable for {operation}{}", status.map(|s| format!(" (HTTP {s})")).unwrap_or_default())]
    Unavailable {
        /// Who failed.
        side: Side,
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
        side: Side,
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
        side: Side,
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
        side: Side,
        /// The call.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The side's own message, cleaned and shortened by [`plain`]; empty where it might echo a credential.
        message: String,
    },
    /// There was no time left to make the call.
    #[error("there was no time left for {operation} at {side}: give the function a longer timeout")]
    Deadline {
        /// Whose call.
        side: Side,
        /// The call.
        operation: &'static str,
    },
}

impl UpstreamError {
    /// Whose failure it is.
    pub fn side(&self) -> Side {
        match self {
            Self::Refused { side, .. }
            | Self::MissingScope { side, .. }
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
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Incomplete { .. } => ErrorKind::Incomplete,
            Self::Protocol { .. } => ErrorKind::Protocol,
            Self::Rejected { .. } => ErrorKind::RefusedWrite,
            Self::Deadline { .. } => ErrorKind::Deadline,
        }
    }

    /// Whether the same call, made again a little later, may well succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable { .. })
    }

    /// Whether the credential itself was refused.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether only a person can mend it, so that trying again every few minutes is a nuisance.
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::MissingScope { .. })
    }
}

/// An error and its causes on one line, outermost first.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// An AWS service's refusal by its own code and words; the SDK's text for it is its inner form. Anything else stays as
/// the SDK tells it.
pub(crate) fn of_aws<E>(error: SdkError<E>) -> Box<dyn StdError + Send + Sync>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    /// What the service said.
    #[derive(Debug, thiserror::Error)]
    #[error("{code}: {message}")]
    struct Refusal {
        code: String,
        message: String,
    }
    let Some(code) = error.code() else {
        return error.into();
    };
    Box::new(Refusal {
        code: code.to_owned(),
        message: plain(error.message().unwrap_or("no reason is given"), 400),
    })
}

/// Untrusted text made fit for a log line, a record or an answer: control characters become spaces, and what goes past
/// `max` characters is cut with an ellipsis.
pub fn plain(text: &str, max: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut plain: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_is_cleaned_and_cut() {
        assert_eq!(plain("a\nb\u{1b}[31mc", 80), "a b [31mc");
        assert_eq!(plain(&"x".repeat(10_000_000), 3), "xxx…");
    }
}
