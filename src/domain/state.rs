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

/// A change of state that people are to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state that they know of; none where they were told nothing yet.
    pub from: Option<SyncState>,
    /// The state that it is.
    pub to: SyncState,
}

/// What a run with this outcome is to tell people who know of the state `announced`. Of an integration of which they were
/// told nothing yet, they expect that all is well.
pub fn transition(announced: Option<SyncState>, outcome: RunOutcome) -> Option<Transition> {
    let to = SyncState::after(outcome)?;
    (announced.unwrap_or(SyncState::Ok) != to).then_some(Transition {
        from: announced,
        to,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_told_and_only_once() {
        use RunOutcome::{Failed, Held, Paused, Planned, Skipped, Synced, Unchanged};
        let mut announced = None;
        let mut told = Vec::new();
        for outcome in [
            Synced, Unchanged, Failed, Skipped, Failed, Paused, Planned, Paused, Held, Synced,
            Unchanged,
        ] {
            if let Some(transition) = transition(announced, outcome) {
                told.push((transition.from, transition.to));
                announced = Some(transition.to);
            }
        }
        let some = Some;
        assert_eq!(
            told,
            [
                (None, SyncState::Failing),
                (some(SyncState::Failing), SyncState::Paused),
                (some(SyncState::Paused), SyncState::Held),
                (some(SyncState::Held), SyncState::Ok),
            ]
        );
    }
}
