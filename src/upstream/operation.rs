//! The kinds of calls, and the errors that each can come to.

use std::error::Error as StdError;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::domain::status::error_kind::Service;
use crate::json::{self, JsonError};
use crate::upstream::error::UpstreamError;

/// A kind of call: whose it is, how people name it, and the scope that it needs. It makes the errors of that call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The service to call.
    pub side: Service,
    /// In people's words, such as "the host listing".
    pub name: &'static str,
    /// The scope that the credential needs for it, in the side's own words.
    pub scope: &'static str,
}

impl Operation {
    /// Decodes the body of a response.
    ///
    /// # Errors
    /// Names the path at which decoding stopped.
    pub(crate) fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, UpstreamError> {
        json::parse(body).map_err(|error| self.invalid_json(error))
    }

    /// Returns the error of a body that does not decode.
    pub(crate) fn invalid_json(self, error: JsonError) -> UpstreamError {
        match error {
            // A proxy or a server that shuts down truncates bodies; a retry helps.
            JsonError::Early => self.unreachable(error),
            JsonError::Malformed(_) | JsonError::TooLarge(_) | JsonError::TooMany(_) => {
                self.protocol(error)
            }
        }
    }

    pub(crate) fn refused(self, status: u16, advice: &'static str) -> UpstreamError {
        UpstreamError::Refused {
            side: self.side,
            operation: self.name,
            status,
            advice,
        }
    }

    pub(crate) fn missing_scope(self) -> UpstreamError {
        UpstreamError::MissingScope {
            side: self.side,
            operation: self.name,
            scope: self.scope,
        }
    }

    pub(crate) fn misconfigured(
        self,
        status: Option<u16>,
        problem: impl Into<String>,
        advice: &'static str,
    ) -> UpstreamError {
        UpstreamError::Misconfigured {
            side: self.side,
            operation: self.name,
            status,
            problem: problem.into(),
            advice,
        }
    }

    pub(crate) fn rate_limited(self, until: Option<Timestamp>) -> UpstreamError {
        UpstreamError::RateLimited {
            side: self.side,
            operation: self.name,
            until,
        }
    }

    pub(crate) fn failing(self, status: u16) -> UpstreamError {
        UpstreamError::Unavailable {
            side: self.side,
            operation: self.name,
            status: Some(status),
            source: None,
        }
    }

    pub(crate) fn unreachable(
        self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> UpstreamError {
        UpstreamError::Unavailable {
            side: self.side,
            operation: self.name,
            status: None,
            source: Some(source.into()),
        }
    }

    pub(crate) fn incomplete(self, got: usize, total: usize) -> UpstreamError {
        UpstreamError::Incomplete {
            side: self.side,
            operation: self.name,
            got,
            total,
        }
    }

    pub(crate) fn protocol(
        self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> UpstreamError {
        UpstreamError::Protocol {
            side: self.side,
            operation: self.name,
            source: source.into(),
        }
    }

    pub(crate) fn rejected(self, status: u16, message: String) -> UpstreamError {
        UpstreamError::Rejected {
            side: self.side,
            operation: self.name,
            status,
            message,
        }
    }

    pub(crate) fn no_time_left(self) -> UpstreamError {
        UpstreamError::Deadline {
            side: self.side,
            operation: self.name,
            progress: None,
        }
    }
}
