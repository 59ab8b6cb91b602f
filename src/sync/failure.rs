//! What can end a run, in its classes.

use crate::error::{ErrorKind, Side, UpstreamError};
use crate::integration::InvalidSettings;
use crate::secrets::SecretError;
use crate::store::StoreError;

/// What ended a run before its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
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

impl Failure {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Upstream(error) => error.kind(),
            Self::Secret(error) if error.is_auth() => ErrorKind::Authentication,
            Self::Secret(_) => ErrorKind::Unavailable,
            Self::Settings(_) => ErrorKind::Configuration,
            Self::Store(_) => ErrorKind::Storage,
        }
    }

    /// Whose refusal of a credential it is, if it is one.
    pub fn refused_by(&self) -> Option<Side> {
        match self {
            Self::Upstream(error) => error.is_auth().then(|| error.side()),
            Self::Secret(error) => error.is_auth().then_some(Side::Secrets),
            Self::Settings(_) | Self::Store(_) => None,
        }
    }
}
