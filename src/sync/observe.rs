//! Reads both sides and the records. It writes nothing.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select, try_join};
use tokio::time::timeout;

use super::error::SyncError;
use super::fetch;
use super::recover::SkippedDevices;
use super::run::{Clients, Run};
use crate::domain::fetch::FetchState;
use crate::domain::inventory::device::Devices;
use crate::domain::inventory::host::FalconInventory;
use crate::domain::matching::Matches;
use crate::domain::plan::NodeRecords;
use crate::domain::plan::guard::GuardInputs;
use crate::domain::status::NativeIntegration;
use crate::settings::Settings;
use crate::tailscale::Tailscale;
use crate::text::error_chain;

/// Time that an optional call gets after the required ones are done.
const OPTIONAL_GRACE: Duration = Duration::from_secs(1);

/// The scopes that let a credential list the tailnet's integrations.
const LISTING_SCOPES: [&str; 4] = [
    "feature_settings:read",
    "feature_settings",
    "all:read",
    "all",
];

/// A complete observation of both sides.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) falcon: FalconInventory,
    pub(super) devices: Devices,
    pub(super) records: NodeRecords,
    pub(super) clients: Clients,
    pub(super) fetch_state: FetchState,
    /// Tailscale's own integration, if it is known to exist or not.
    pub(super) native: Option<NativeIntegration>,
    /// Devices that recovery could not ask. The plan leaves them out.
    pub(super) skipped: SkippedDevices,
}

/// Observes Falcon, the tailnet and the records. An incomplete listing fails the whole observation.
///
/// Falcon listings that need no knowledge of the devices run while the devices are listed; the others follow.
pub(super) async fn both_sides(
    run: &Run<'_>,
    settings: &Settings,
    skipped: SkippedDevices,
) -> Result<Observation, SyncError> {
    let records = async { Ok::<_, SyncError>(run.app.store.node_records(&settings.id).await?) };
    let listings = async {
        let clients = run.connect(settings).await?;
        // Boxed: the future of the concurrent listings is large.
        let prefetch = Box::pin(fetch::prefetch(run, &clients.falcon));
        let required = try_join(prefetch, clients.tailscale.devices());
        let optional = native_integration(run, &clients.tailscale);
        let (required, native) = join_optional(required, optional).await;
        let (prefetched, devices) = required?;
        Ok((clients, prefetched, devices, native))
    };
    let (records, (clients, prefetched, devices, native)) = try_join(records, listings).await?;
    let (falcon, fetch_state) =
        fetch::complete(run, &clients.falcon, prefetched, &devices, &records).await?;
    Ok(Observation {
        falcon,
        devices,
        records,
        clients,
        fetch_state,
        native,
        skipped,
    })
}

/// Runs both futures. Once `required` is done, `optional` has one more second.
async fn join_optional<T, N>(
    required: impl Future<Output = T>,
    optional: impl Future<Output = Option<N>>,
) -> (T, Option<N>) {
    match select(pin!(required), pin!(optional)).await {
        Either::Left((required, optional)) => {
            let optional = timeout(OPTIONAL_GRACE, optional).await;
            (required, optional.ok().flatten())
        }
        Either::Right((optional, required)) => (required.await, optional),
    }
}

/// Returns whether Tailscale's own Falcon integration exists. The answer is kept for an hour, and requested only with a
/// credential whose scopes allow it. A failure is no reason to fail or to wait.
async fn native_integration(run: &Run<'_>, tailscale: &Tailscale) -> Option<NativeIntegration> {
    let known = run.previous.native_integration;
    if known.is_some_and(|native| native.is_fresh(run.started)) {
        return known;
    }
    let scopes = tailscale.scopes.as_ref()?;
    if !LISTING_SCOPES.iter().any(|scope| scopes.contains(*scope)) {
        return None;
    }
    match tailscale.has_falcon_integration().await {
        Ok(present) => Some(NativeIntegration {
            asked: run.started,
            present,
        }),
        Err(error) => {
            tracing::debug!(
                error = error_chain(&error),
                "could not check for Tailscale's own integration"
            );
            known.filter(|native| native.is_recent(run.started))
        }
    }
}

impl Observation {
    /// Returns the facts that the guard judges a plan by.
    pub(super) fn guard_inputs(&self, matches: &Matches) -> GuardInputs<'_> {
        let nodes = self.records.keys();
        let outcomes = nodes.filter_map(|node| matches.outcomes.get(node));
        GuardInputs {
            falcon: &self.falcon,
            records: self.records.len(),
            present: outcomes.clone().count(),
            matched: outcomes.filter(|outcome| outcome.has_host()).count(),
        }
    }
}
