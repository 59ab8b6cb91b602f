//! In which state the runs leave an integration: what people are told of when it changes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::status::RunOutcome;

/// The states between which an integration moves; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SyncState {
    /// Scores are carried over.
    Ok,
    /// They are not, and the next run tries again.
    Failing,
    /// They are not, since a credential is refused.
    Paused,
    /// Scores are carried over, removals wait for a person.
    Held,
}

impl SyncState {
    /// The state that a run with this outcome leaves; none where it did no work.
    pub fn after(outcome: RunOutcome) -> Option<Self> {
        match outcome {
            RunOutcome::Synced | RunOutcome::Unchanged => Some(Self::Ok),
            RunOutcome::Failed => Some(Self::Failing),
            RunOutcome::Paused => Some(Self::Paused),
            RunOutcome::Held => Some(Self::Held),
            RunOutcome::Planned | RunOutcome::Skipped => None,
        }
    }
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Paused => "paused",
            Self::Held => "held",
        })
    }
}
