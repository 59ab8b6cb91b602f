//! What can end a run, in its classes.

use crate::domain::status::Problem;
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::secrets::SecretError;
use crate::settings::InvalidSettings;
use crate::store::StoreError;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

/// What ended a run before its end.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Falcon or Tailscale.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A secret, or Secrets Manager.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The stored settings.
    #[error("the integration's settings cannot be used")]
    Settings(#[from] InvalidSettings),
    /// Our own tables.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncError {
    /// What happened and what to do, in people's words.
    pub fn trouble(&self) -> Problem {
        Problem {
            what: error_chain(self),
            remedy: self.remedy(),
        }
    }

    /// What to do, as half a sentence.
    fn remedy(&self) -> String {
        match self {
            Self::Upstream(error) => error.remedy(),
            Self::Secret(error) => error.remedy(),
            Self::Settings(_) => "correct it with `make update`".to_owned(),
            Self::Store(error) => error.remedy().to_owned(),
        }
    }

    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Upstream(error) => error.kind(),
            Self::Secret(error) => error.kind(),
            Self::Settings(_) => ErrorKind::Configuration,
            Self::Store(_) => ErrorKind::Storage,
        }
    }

    /// Whose refusal of a credential it is, if it is one.
    pub fn refused_by(&self) -> Option<Service> {
        match self {
            _ if !self.kind().pauses() => None,
            Self::Upstream(error) => Some(error.side()),
            Self::Secret(_) => Some(Service::Secrets),
            Self::Settings(_) | Self::Store(_) => None,
        }
    }
}
