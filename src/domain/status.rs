//! How the latest run of an integration went, as it is stored and shown.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::finding::Finding;
use crate::error::ErrorKind;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunOutcome {
    /// Something was written.
    Synced,
    /// Everything was right already.
    Unchanged,
    /// A dry run: nothing was written, whatever there is to do.
    Planned,
    /// A credential is refused; the next tries are further apart.
    Paused,
    /// Another run of the integration was under way, or it is disabled.
    Skipped,
    /// Removals wait for a person.
    Held,
    /// Something went wrong; see the error.
    Failed,
}

/// The `status` of an integration: of the latest attempt, and what is known from the ones before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When the latest attempt began.
    pub last_sync: Timestamp,
    /// When the latest attempt that came through began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// What the latest attempt came to.
    pub outcome: RunOutcome,
    /// What went wrong in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The class of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    /// All visible hosts of the Falcon account, when they were last counted.
    pub provider_host_count: usize,
    /// Own nodes with a usable serial, when they were last counted.
    pub possible_matched_count: usize,
    /// Nodes with a Falcon host, when they were last counted.
    pub matched_count: usize,
    /// Attributes that the latest attempt set or changed.
    pub written: usize,
    /// Attributes that it took away.
    pub removed: usize,
    /// The latest attempt.
    pub run_id: String,
    /// How long it took.
    pub duration_ms: u64,
    /// The version of the settings that it worked by.
    pub config_version: u64,
    /// Attempts in a row that did not come through.
    pub consecutive_failures: u32,
    /// What it noticed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl RunOutcome {
    /// Whether the run did all that it should.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Synced | Self::Unchanged)
    }
}
