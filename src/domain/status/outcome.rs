//! The outcome of a run, and the state in which it leaves its integration.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The outcome of a run, as status, response and metrics show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunOutcome {
    /// At least one attribute was written.
    Synced,
    /// Every attribute was right already.
    Unchanged,
    /// Dry run: nothing was written, whatever there is to do.
    Planned,
    /// A credential was rejected. The next attempts are further apart.
    Paused,
    /// Another run of the integration was in progress, or the integration is disabled.
    #[default]
    Skipped,
    /// Removals wait for a person.
    Held,
    /// The run failed; see the error.
    Failed,
}

impl RunOutcome {
    /// Returns whether the run completed without held removals.
    pub(crate) fn is_success(self) -> bool {
        matches!(self, Self::Synced | Self::Unchanged)
    }
}

impl fmt::Display for RunOutcome {
    /// Writes the stable name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The state of an integration after its runs; people are told when it changes. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SyncState {
    /// Scores are synced.
    Ok,
    /// Scores are not synced; the next run tries again.
    Failing,
    /// Scores are not synced, because a credential is rejected.
    Paused,
    /// Scores are synced; removals wait for a person.
    Held,
}

impl SyncState {
    /// Returns the state after a run with this outcome; `None` if the run did no work.
    pub(crate) fn from_outcome(outcome: RunOutcome) -> Option<Self> {
        match outcome {
            RunOutcome::Synced | RunOutcome::Unchanged => Some(Self::Ok),
            RunOutcome::Failed => Some(Self::Failing),
            RunOutcome::Paused => Some(Self::Paused),
            RunOutcome::Held => Some(Self::Held),
            RunOutcome::Planned | RunOutcome::Skipped => None,
        }
    }
}

/// A change of state to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// The state that was announced last, if any.
    pub(crate) from: Option<SyncState>,
    /// The present state.
    pub(crate) to: SyncState,
}

/// Returns the change to announce after a run with this outcome. Without an announcement so far, people assume
/// [`SyncState::Ok`].
pub(crate) fn transition(announced: Option<SyncState>, outcome: RunOutcome) -> Option<Transition> {
    let to = SyncState::from_outcome(outcome)?;
    (announced.unwrap_or(SyncState::Ok) != to).then_some(Transition {
        from: announced,
        to,
    })
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_announced_and_only_once() {
        use RunOutcome::{Failed, Held, Paused, Planned, Skipped, Synced, Unchanged};
        let mut announced = None;
        let mut transitions = Vec::new();
        for outcome in [
            Synced, Unchanged, Failed, Skipped, Failed, Paused, Planned, Paused, Held, Synced,
            Unchanged,
        ] {
            if let Some(transition) = transition(announced, outcome) {
                transitions.push((transition.from, transition.to));
                announced = Some(transition.to);
            }
        }
        let some = Some;
        assert_eq!(
            transitions,
            [
                (None, SyncState::Failing),
                (some(SyncState::Failing), SyncState::Paused),
                (some(SyncState::Paused), SyncState::Held),
                (some(SyncState::Held), SyncState::Ok),
            ]
        );
    }
}
