//! What a run would see and mean to do now, for those who explain it. It takes no lease, and what it returns holds
//! nothing that could call anybody: neither Tailscale's writer nor the sessions themselves.

use jiff::Timestamp;

use super::failure::SyncError;
use super::request::SyncRequest;
use super::run::Run;
use super::settle::SkippedDevices;
use super::{Decision, decide};
use crate::app::{App, Invocation};
use crate::domain::explain::ExplainContext;
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::host::FalconInventory;
use crate::domain::matching::Matches;
use crate::domain::matching::candidates::HostsBySerial;
use crate::domain::plan::guard::Held;
use crate::domain::plan::journal::Journal;
use crate::domain::plan::{NodeRecords, Plan, Unconfirmed};
use crate::domain::status::pause::Pause;
use crate::settings::{IntegrationId, Settings};
use crate::store::{Integration, StoreError};
use crate::tailscale::Policy;

/// An integration, and what is to be seen of it.
#[derive(Debug)]
pub struct Inspection {
    /// The integration as it is stored.
    pub integration: Integration,
    /// When it was looked at.
    pub at: Timestamp,
    /// What there is to see, or why there is nothing.
    pub sight: Result<Box<Snapshot>, Unavailable>,
}

/// A complete observation, and what the next run would make of it.
#[derive(Debug)]
pub struct Snapshot {
    /// The settings that it was made by.
    pub settings: Settings,
    /// What Falcon shows.
    pub falcon: FalconInventory,
    /// What the tailnet shows.
    pub devices: Devices,
    /// What was written before.
    pub records: NodeRecords,
    /// Since when a host must have been seen to count, if the integration says so.
    pub seen_since: Option<Timestamp>,
    /// One outcome for each device.
    pub joined: Matches,
    /// What the next run would do.
    pub plan: Plan,
    /// Why its removals would wait, if they would.
    pub held: Option<Held>,
    /// What would wait since it could not be looked up.
    pub open: Unconfirmed,
    /// The tailnet's postures, where they were asked for.
    pub policy: Option<Policy>,
}

impl Snapshot {
    /// The same for those who explain it. `pending` is the integration's.
    pub fn scene<'a>(&'a self, pending: &'a Journal) -> ExplainContext<'a> {
        ExplainContext {
            settings: &self.settings,
            falcon: &self.falcon,
            claims: HostsBySerial::of(&self.falcon, self.seen_since),
            devices: &self.devices,
            records: &self.records,
            seen_since: self.seen_since,
            joined: &self.joined,
            plan: &self.plan,
            held: self.held.as_ref(),
            open: &self.open,
            pending,
        }
    }
}

/// What is looked at beside what a run sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// The postures of the tailnet's policy file.
    Policy,
}

/// Why nothing is to be seen.
#[derive(Debug)]
pub enum Unavailable {
    /// It is paused, and nobody is called.
    Paused(Pause),
    /// It is being removed.
    Removed,
    /// Something failed.
    Failed(SyncError),
}

impl Unavailable {
    /// In words, for an integration of this name.
    pub fn told(&self, integration: &IntegrationId) -> String {
        match self {
            Self::Paused(pause) => format!(
                "Nothing was looked at: {integration} is paused until {:.0}, since {:.0}, and nobody is called meanwhile. {} A \
                 forced sync tries again at once.",
                pause.until, pause.since, pause.error
            ),
            Self::Removed => format!("Nothing was looked at: {integration} is being removed."),
            Self::Failed(failure) => format!("Nothing could be looked at. {}", failure.trouble()),
        }
    }
}

/// Looks at an integration as its next run would.
///
/// # Errors
/// Only for faults of our own, and for an integration that does not exist.
pub async fn look(
    world: &App,
    integration: &IntegrationId,
    beside: With,
    invocation: &Invocation,
) -> Result<Inspection, StoreError> {
    let request = SyncRequest {
        dry_run: true,
        ..SyncRequest::automatic(integration.clone())
    };
    let mut run = Run::look(world, &request, invocation).await?;
    let sight = if run.integration.removal.is_some() {
        Err(Unavailable::Removed)
    } else if let Some(pause) = run.paused().await {
        Err(Unavailable::Paused(pause))
    } else {
        see(&run, beside)
            .await
            .map(Box::new)
            .map_err(Unavailable::Failed)
    };
    Ok(Inspection {
        at: world.clock.now(),
        integration: run.integration,
        sight,
    })
}

async fn see(run: &Run<'_>, beside: With) -> Result<Snapshot, SyncError> {
    let settings = run.settings()?.clone();
    let Decision {
        seen,
        joined,
        confirmed,
        guarded,
        ..
    } = decide(run, SkippedDevices::new()).await?;
    let policy = match beside {
        With::Nothing => None,
        With::Policy => Some(seen.clients.tailscale.policy().await?),
    };
    Ok(Snapshot {
        policy,
        seen_since: run.seen_since(&settings),
        settings,
        falcon: seen.falcon,
        devices: seen.devices,
        records: seen.records,
        joined,
        plan: guarded.plan,
        held: guarded.held,
        open: confirmed.open,
    })
}
