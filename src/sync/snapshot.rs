//! Takes the snapshot for `explain` and `preview`.

use super::decision::Decision;
use super::error::SyncError;
use super::run::Run;
use crate::domain::matching::MatchRules;
use crate::domain::posture::Posture;
use crate::domain::snapshot::Snapshot;
use crate::domain::status::pause::Pause;
use crate::settings::IntegrationId;

/// Takes the snapshot, which outlives the run and its clients.
pub(super) async fn take(
    run: Run<'_>,
    decision: Decision,
    include_policy: bool,
) -> Result<Snapshot, SyncError> {
    let settings = run.settings()?.clone();
    let observation = decision.observation;
    let mut postures = Vec::new();
    if include_policy {
        let policy = observation.clients.tailscale.policy().await?;
        for (name, conditions) in &policy.postures {
            let used_in = policy.used_in.get(name).cloned().unwrap_or_default();
            let key = &settings.attribute_key;
            postures.extend(Posture::from_policy(key, name, conditions, used_in));
        }
    }
    Ok(Snapshot {
        falcon: observation.falcon,
        devices: observation.devices,
        records: observation.records,
        rules: MatchRules::new(&settings, run.started),
        settings,
        matches: decision.matches,
        plan: decision.guarded.plan,
        waiting: decision.guarded.waiting,
        held: decision.guarded.held,
        unresolved: decision.confirmation.unresolved,
        journal: run.integration.pending,
        postures,
    })
}

/// The reason why there is no snapshot.
#[derive(Debug)]
pub enum Unavailable {
    /// The integration is paused, so no service is called.
    Paused(Pause),
    /// The integration is being removed.
    Removing,
    /// A call failed.
    Failed(SyncError),
}

impl Unavailable {
    /// Returns the reason in words, for an integration of this name.
    pub fn message(&self, integration: &IntegrationId) -> String {
        match self {
            Self::Paused(pause) => format!(
                "No data: {integration} is paused until {:.0} (since {:.0}). {} Run a sync with \"force\" to retry \
                 now.",
                pause.until, pause.since, pause.error
            ),
            Self::Removing => format!("No data: {integration} is being removed."),
            Self::Failed(error) => format!("No data: the snapshot failed. {}", error.problem()),
        }
    }
}
