//! Read-only snapshot of what the next run would observe and plan, for `explain` and `preview`.

use jiff::Timestamp;

use super::decision::Decision;
use super::error::SyncError;
use super::run::Run;
use crate::domain::explain::ExplainContext;
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::host::FalconInventory;
use crate::domain::matching::Matches;
use crate::domain::matching::candidates::HostsBySerial;
use crate::domain::plan::confirm::Unconfirmed;
use crate::domain::plan::guard::Held;
use crate::domain::plan::journal::Journal;
use crate::domain::plan::{NodeRecords, Plan};
use crate::domain::status::pause::Pause;
use crate::settings::{IntegrationId, Settings};
use crate::store::Integration;
use crate::tailscale::Policy;

/// An integration with a snapshot of its next run.
#[derive(Debug)]
pub struct Inspection {
    /// The integration as it is stored.
    pub integration: Integration,
    /// The time of the snapshot.
    pub at: Timestamp,
    /// The snapshot, or the reason why there is none.
    pub snapshot: Result<Box<Snapshot>, Unavailable>,
}

/// A complete observation and the plan that the next run would make of it. It holds no client.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) settings: Settings,
    pub(crate) falcon: FalconInventory,
    pub(crate) devices: Devices,
    pub(crate) records: NodeRecords,
    /// The age limit: hosts last seen before it do not count.
    pub(crate) min_last_seen: Option<Timestamp>,
    pub(crate) matches: Matches,
    pub(crate) plan: Plan,
    /// The reason why the guard would hold the plan's removals, if it would.
    pub(crate) held: Option<Held>,
    /// Changes that would wait because a lookup failed.
    pub(crate) unresolved: Unconfirmed,
    /// The tailnet's policy, if it was asked for.
    pub(crate) policy: Option<Policy>,
}

impl Snapshot {
    pub(super) async fn new(
        run: &Run<'_>,
        decision: Decision,
        include_policy: bool,
    ) -> Result<Self, SyncError> {
        let settings = run.settings()?;
        let observation = decision.observation;
        let policy = if include_policy {
            Some(observation.clients.tailscale.policy().await?)
        } else {
            None
        };
        Ok(Self {
            settings: settings.clone(),
            falcon: observation.falcon,
            devices: observation.devices,
            records: observation.records,
            min_last_seen: run.min_last_seen(settings),
            matches: decision.matches,
            plan: decision.guarded.plan,
            held: decision.guarded.held,
            unresolved: decision.confirmation.unresolved,
            policy,
        })
    }

    /// Borrows the snapshot for explanations. `journal` is the integration's.
    pub fn explain_context<'a>(&'a self, journal: &'a Journal) -> ExplainContext<'a> {
        ExplainContext {
            settings: &self.settings,
            host_count: self.falcon.hosts.len(),
            hosts_by_serial: HostsBySerial::new(&self.falcon, self.min_last_seen),
            devices: &self.devices,
            records: &self.records,
            min_last_seen: self.min_last_seen,
            matches: &self.matches,
            plan: &self.plan,
            held: self.held.as_ref(),
            unconfirmed: &self.unresolved,
            journal,
        }
    }
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
