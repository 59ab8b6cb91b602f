//! What can go wrong upstream, in classes.
//!
//! A status or a broken body becomes a variant once, where it is met; everything later (retry, pause, status, log) asks
//! the variant. The texts say what failed, on which side, and what to do; none holds a body, a token or a secret.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

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
    /// An answer that does not decode, or the refusal of a request that the API promises to serve.
    Protocol,
    /// Tailscale refuses the attribute of a device.
    RefusedWrite,
    /// The integration, the account or the deployment is set up so that it cannot work.
    Configuration,
    /// The run's time was up.
    Deadline,
    /// DynamoDB or another service of our own.
    Storage,
}

impl fmt::Display for ErrorKind {
    /// The stable name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl ErrorKind {
    /// Whether the same call, made again a little later, may well succeed.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable)
    }

    /// Whether it pauses the integration: a credential is refused, and trying it every few minutes is a nuisance.
    pub fn pauses(self) -> bool {
        matches!(self, Self::Authentication | Self::MissingScope)
    }
}

/// A failure met on one of the two APIs, or at the credentials for them.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The credential itself was refused (401, or 403 at the token call).
    #[error("{side} refused the credentials at {operation} (HTTP {status})")]
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
    #[error("{side} does not let this credential do {operation}: it lacks the scope {scope}")]
    MissingScope {
        /// Who refused.
        side: Side,
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
        side: Side,
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
        side: Side,
        /// The call.
        operation: &'static str,
        /// The advertised end, where there is one.
        until: Option<Timestamp>,
    },
    /// Connection refused or broken, timed out, or a 5xx.
    #[error("{side} is not reachable for {operation}{}", with_status(*status))]
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
    #[error("there was no time left for {operation} at {side}{}", progress.map(|p| format!(", which had come to {p}")).unwrap_or_default())]
    Deadline {
        /// Whose call.
        side: Side,
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
    pub fn side(&self) -> Side {
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

/// An AWS service's refusal by its own code and words; the SDK's text for it is its inner form. What is not a refusal
/// stays as the SDK tells it, but for an answer that does not decode, which the SDK quotes.
pub(crate) fn of_aws<E>(error: &SdkError<E>) -> Box<dyn StdError + Send + Sync>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    /// What the service said, or what happened to the call.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Words(String);
    const MAX: usize = 400;
    Box::new(Words(match (error.code(), error) {
        (Some(code), _) => {
            let message = error.message().unwrap_or("no reason is given");
            format!("{}: {}", said(code, 80), said(message, MAX))
        }
        (None, SdkError::ResponseError(_) | SdkError::ServiceError(_)) => {
            "the answer does not decode".to_owned()
        }
        (None, _) => said(&chain(error), MAX),
    }))
}

/// Somebody else's words, made fit like [`plain`] and without anything that may be a credential: a careless or hostile
/// server can echo what it was sent.
pub(crate) fn said(text: &str, max: usize) -> String {
    let mut kept = String::new();
    for word in text.split_inclusive(|c: char| !is_credential_char(c)) {
        let (word, end) = match word.char_indices().next_back() {
            Some((at, last)) if !is_credential_char(last) => word.split_at(at),
            _ => (word, ""),
        };
        kept.push_str(if may_be_credential(word) {
            WITHHELD
        } else {
            word
        });
        kept.push_str(end);
        // What is cut off anyway need not be looked at: four bytes make a character at most.
        if kept.len() > 4 * max.saturating_add(1) {
            break;
        }
    }
    plain(&kept, max)
}

const WITHHELD: &str = "[withheld]";

/// The characters of tokens, keys and secrets, encoded or not.
fn is_credential_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~+/=%".contains(c)
}

/// Falcon's secrets have 40 characters and its tokens hundreds, both with digits; Tailscale's begin with a word. Node ids
/// have 17 characters, and stay.
fn may_be_credential(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
    word.contains("tskey-")
        || word.len() >= 40
        || (word.len() >= 20 && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic))
}

/// Untrusted text made fit for a log line, a record or an answer: characters that do not show become spaces, and what goes
/// past `max` characters is cut with an ellipsis.
pub fn plain(text: &str, max: usize) -> String {
    if is_plain(text, max) {
        return text.to_owned();
    }
    let mut chars = text.chars().map(|c| if is_invisible(c) { ' ' } else { c });
    let mut plain: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        plain.push('…');
    }
    plain
}

/// Likewise a name, of which a run keeps some hundred thousand.
pub(crate) fn name(text: &str, max: usize) -> SmolStr {
    if is_plain(text, max) {
        return text.into();
    }
    plain(text, max).into()
}

/// Nearly all texts are so.
fn is_plain(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Control characters, and those of Unicode that do not show or only direct how text is shown: two names that look the
/// same would differ, or one would make the rest of a line say something else.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_is_cleaned_and_cut() {
        assert_eq!(plain("a\nb\u{1b}[31mc", 80), "a b [31mc");
        assert_eq!(plain("a\u{202e}fdp.exe\u{2066}\u{85}", 80), "a fdp.exe  ");
        assert_eq!(plain(&"x".repeat(10_000_000), 3), "xxx…");
    }

    #[test]
    fn what_may_be_a_credential_is_not_repeated() {
        for (text, expect) in [
            (
                "nobody nPM2KNuedB21DEVEL, custom:ztaScore",
                "nobody nPM2KNuedB21DEVEL, custom:ztaScore",
            ),
            ("Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Bearer [withheld]"),
            ("key \"tskey-api-k1\"?", "key \"[withheld]\"?"),
            (
                "client_secret=aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG3hJ5kM7n&x",
                "[withheld]&x",
            ),
            ("ünïcödé tskey-x\n", "ünïcödé [withheld] "),
        ] {
            assert_eq!(said(text, 80), expect);
        }
        assert_eq!(
            said("tskey-client-secret", 8),
            "[withhel…",
            "not even a part of it"
        );
        assert_eq!(said(&"word ".repeat(10_000_000), 6), "word w…");
        assert_eq!(said(&"x".repeat(10_000_000), 80), "[withheld]");
    }
}
