//! Why a request could not be served.

use lambda_runtime::Diagnostic;

use crate::check::{Check, failures};
use crate::command::BadPayload;
use crate::events::EventError;
use crate::integration::{IntegrationId, InvalidSettings};
use crate::store::StoreError;
use crate::text::error_chain;

/// The alias that dashboards invoke. Invocations through it may only render widgets.
pub(super) const CONSOLE_ALIAS: &str = "console";

/// A request that could not be served. What an upstream refused in a sync is no such thing, but an answer.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The payload is none of ours.
    #[error(transparent)]
    Payload(#[from] BadPayload),
    /// The settings cannot work in this deployment.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// A new integration could not work yet; nothing was stored.
    #[error(
        "the integration {integration} is not connected, since {}",
        failures(checks)
    )]
    Check {
        /// The integration.
        integration: IntegrationId,
        /// What was found, good and bad.
        checks: Vec<Check>,
    },
    /// The way in for dashboards was used for something else.
    #[error(
        "the alias {CONSOLE_ALIAS} of the function serves dashboard widgets only; invoke the function itself"
    )]
    NotAllowed,
    /// Our own tables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event bus.
    #[error(transparent)]
    Events(#[from] EventError),
    /// An answer that does not encode: a bug.
    #[error("the answer does not encode")]
    Encode(#[from] serde_json::Error),
}

impl From<HandlerError> for Diagnostic {
    /// `errorType` is stable; `errorMessage` has the causes.
    fn from(error: HandlerError) -> Self {
        let error_type = match &error {
            HandlerError::Payload(_) | HandlerError::Settings(_) => "BadInput",
            HandlerError::Check { .. } => "CheckFailed",
            HandlerError::Store(StoreError::NoIntegration { .. }) => "NoIntegration",
            HandlerError::Store(StoreError::IntegrationExists { .. }) => "IntegrationExists",
            HandlerError::Store(StoreError::Conflict { .. }) => "Conflict",
            HandlerError::NotAllowed => "NotAllowed",
            HandlerError::Store(_) => "Storage",
            HandlerError::Events(_) => "Events",
            HandlerError::Encode(_) => "Bug",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error_chain(&error),
        }
    }
}
