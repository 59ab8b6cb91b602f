//! The error of a request that could not be served.

use lambda_runtime::Diagnostic;

use crate::check::{Check, describe_failures};
use crate::command::InvalidPayload;
use crate::events::EventError;
use crate::settings::{FieldError, IntegrationId};
use crate::store::StoreError;
use crate::text::error_chain;

/// The alias that dashboards invoke. Invocations through it may only render widgets.
pub(super) const CONSOLE_ALIAS: &str = "console";

/// The error of a request that could not be served. A failure of Falcon or Tailscale in a sync is a regular response.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The payload is not supported.
    #[error(transparent)]
    Payload(#[from] InvalidPayload),
    /// The settings cannot work in this deployment.
    #[error(transparent)]
    Settings(#[from] FieldError),
    /// A check of a new integration failed; nothing was stored.
    #[error(
        "the integration {integration} is not connected: {}",
        describe_failures(checks)
    )]
    Check {
        /// The rejected integration.
        integration: IntegrationId,
        /// The results of all checks, passed and failed.
        checks: Vec<Check>,
    },
    /// The dashboards' alias was invoked for something other than a widget.
    #[error(
        "the alias {CONSOLE_ALIAS} of the function serves dashboard widgets only; invoke the function itself"
    )]
    NotAllowed,
    /// DynamoDB failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// EventBridge failed.
    #[error(transparent)]
    Events(#[from] EventError),
    /// The response does not encode: a bug.
    #[error("cannot encode the response")]
    Encode(#[from] serde_json::Error),
}

impl From<HandlerError> for Diagnostic {
    /// Maps the error to a stable `errorType`; `errorMessage` holds the causes.
    fn from(error: HandlerError) -> Self {
        let error_type = match &error {
            HandlerError::Payload(_) | HandlerError::Settings(_) => "BadInput",
            HandlerError::Check { .. } => "CheckFailed",
            HandlerError::Store(StoreError::NoIntegration(_)) => "NoIntegration",
            HandlerError::Store(StoreError::IntegrationExists(_)) => "IntegrationExists",
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
