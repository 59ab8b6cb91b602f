//! Failures that end a run.

use crate::domain::status::Problem;
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::secrets::SecretError;
use crate::settings::FieldError;
use crate::store::StoreError;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

/// A failure that ends a run early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A call to Falcon or Tailscale failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A secret could not be read, or does not hold what it should.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The stored settings are invalid.
    #[error("invalid settings of the integration")]
    Settings(#[from] FieldError),
    /// Too many writes had no answer.
    #[error("Tailscale: too many writes had no answer, so the journal has no room for more")]
    JournalFull,
    /// DynamoDB failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncError {
    pub(crate) fn problem(&self) -> Problem {
        Problem {
            message: error_chain(self),
            remedy: match self {
                Self::Upstream(error) => error.remedy(),
                Self::Secret(error) => error.remedy(),
                Self::Settings(_) => "correct it with `make update`".to_owned(),
                Self::JournalFull => {
                    "wait for the next run: it reads what these devices hold, and goes on"
                        .to_owned()
                }
                Self::Store(error) => error.remedy().to_owned(),
            },
        }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Upstream(error) => error.error_kind(),
            Self::Secret(error) => error.kind(),
            Self::Settings(_) => ErrorKind::Configuration,
            Self::JournalFull => ErrorKind::Unavailable,
            Self::Store(_) => ErrorKind::Storage,
        }
    }

    /// Returns the service that rejected a credential, if the run failed for that.
    pub(crate) fn unauthorized_by(&self) -> Option<Service> {
        match self {
            _ if !self.kind().pauses() => None,
            Self::Upstream(error) => Some(error.operation.service),
            Self::Secret(_) => Some(Service::SecretsManager),
            Self::Settings(_) | Self::JournalFull | Self::Store(_) => None,
        }
    }
}
