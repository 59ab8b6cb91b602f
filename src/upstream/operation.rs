//! The kinds of calls, and the errors that each can end with.

use std::error::Error as StdError;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::domain::status::error_kind::Service;
use crate::json::{self, JsonError};
use crate::upstream::error::{Progress, UpstreamError, UpstreamErrorKind};

/// A kind of call. It creates the errors of that call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) service: Service,
    /// The name for readers, such as "the host listing".
    pub(crate) name: &'static str,
    /// The scope that the credential needs, as the service names it.
    pub(crate) scope: &'static str,
}

type Source = Box<dyn StdError + Send + Sync>;

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
        self.error(UpstreamErrorKind::Unauthorized { status, remedy })
    }

    pub(crate) fn missing_scope(self) -> UpstreamError {
        self.error(UpstreamErrorKind::MissingScope)
    }

    pub(crate) fn misconfigured(
        self,
        status: Option<u16>,
        problem: impl Into<String>,
        remedy: &'static str,
    ) -> UpstreamError {
        self.error(UpstreamErrorKind::Misconfigured {
            status,
            problem: problem.into(),
            remedy,
        })
    }

    pub(crate) fn rate_limited(self, until: Option<Timestamp>) -> UpstreamError {
        self.error(UpstreamErrorKind::RateLimited { until })
    }

    pub(crate) fn server_error(self, status: u16) -> UpstreamError {
        self.error(UpstreamErrorKind::Unavailable {
            status: Some(status),
        })
    }

    pub(crate) fn unreachable(self, source: impl Into<Source>) -> UpstreamError {
        UpstreamError {
            source: Some(source.into()),
            ..self.error(UpstreamErrorKind::Unavailable { status: None })
        }
    }

    pub(crate) fn incomplete(self, got: usize, total: usize) -> UpstreamError {
        self.error(UpstreamErrorKind::Incomplete(Progress { got, total }))
    }

    pub(crate) fn protocol(self, source: impl Into<Source>) -> UpstreamError {
        UpstreamError {
            source: Some(source.into()),
            ..self.error(UpstreamErrorKind::Protocol)
        }
    }

    pub(crate) fn rejected(self, status: u16, message: String) -> UpstreamError {
        self.error(UpstreamErrorKind::Rejected { status, message })
    }

    pub(crate) fn deadline_exceeded(self) -> UpstreamError {
        self.error(UpstreamErrorKind::Deadline { progress: None })
    }

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
}
