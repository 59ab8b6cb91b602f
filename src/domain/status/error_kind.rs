//! The classes of failures, and the services that they belong to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The service that a failure, a pause or a check belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// CrowdStrike Falcon's API.
    Falcon,
    /// Tailscale's API.
    Tailscale,
    /// AWS Secrets Manager, or the content of a secret.
    #[serde(rename = "secrets")]
    SecretsManager,
    /// This deployment: only checks belong to it.
    Deployment,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Falcon => "Falcon",
            Self::Tailscale => "Tailscale",
            Self::SecretsManager => "Secrets Manager",
            Self::Deployment => "Deployment",
        })
    }
}

/// The class of a failure: `errorKind` of the status. The names are stable, because alarms use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorKind {
    /// A credential was rejected.
    Authentication,
    /// The credential is valid, but lacks a scope.
    MissingScope,
    /// The service asked for a wait that is longer than the rest of the run.
    RateLimited,
    /// The service is not reachable, or fails.
    Unavailable,
    /// A listing ended before it was complete.
    Incomplete,
    /// The response does not decode, or the API rejected a valid request.
    Protocol,
    /// Tailscale rejects the attribute of a device.
    RefusedWrite,
    /// The configuration of the integration, the account or the deployment cannot work.
    Configuration,
    /// The run had no time left.
    Deadline,
    /// DynamoDB, or another service of the deployment, failed.
    Storage,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl ErrorKind {
    /// Returns whether a retry of the same call may succeed.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable)
    }

    /// Returns whether the failure pauses the integration: the credential must be changed first.
    pub fn pauses(self) -> bool {
        matches!(self, Self::Authentication | Self::MissingScope)
    }
}
