//! Reads both sides and the records. It writes nothing.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select, try_join};
use tokio::time::timeout;

use super::error::SyncError;
use super::fetch::{self, Needs};
use super::recover::Recovery;
use super::run::{Clients, Run};
use super::subject::{self, Subject};
use crate::domain::fetch::FetchState;
use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::host::FalconInventory;
use crate::domain::inventory::record::{ExpiredRecords, NodeRecords, take_expired};
use crate::domain::matching::Matches;
use crate::domain::plan::confirm::UnreadableDevices;
use crate::domain::plan::guard::{GuardInputs, find_suspicion};
use crate::domain::status::NativeIntegration;
use crate::settings::{IgnoredSerials, Settings};
use crate::store::{StoreError, StoredNodes};
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
    /// The devices whose attribute has expired. They have no score.
    pub(super) expired: ExpiredRecords,
    pub(super) clients: Clients,
    pub(super) fetch_state: FetchState,
    /// Tailscale's own integration, if it is known to exist or not.
    pub(super) native: Option<NativeIntegration>,
    /// Devices that could not be asked. The plan leaves them out.
    pub(super) unreadable: UnreadableDevices,
    /// Devices whose write by an earlier run may still take effect. The plan leaves them out.
    pub(super) unsettled: UnreadableDevices,
    /// The devices that Falcon was asked for, if it was not asked for all. The plan leaves out the others.
    pub(super) subject: Option<BTreeSet<NodeId>>,
}

/// Observes Falcon, the tailnet and the records. An incomplete listing fails the whole observation.
///
/// Falcon listings that need no knowledge of the devices run while the devices are listed; the others follow.
pub(super) async fn both_sides(
    run: &Run<'_>,
    settings: &Settings,
    recovery: Recovery,
) -> Result<Observation, SyncError> {
    let nodes = async { Ok::<_, SyncError>(run.app.store.nodes(&settings.id).await?) };
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
    let (nodes, (clients, prefetched, devices, native)) = try_join(nodes, listings).await?;
    let StoredNodes {
        mut records,
        unreadable: unreadable_records,
    } = nodes;
    let expired = take_expired(&mut records, run.started);
    let mut unreadable = recovery.unreadable;
    unreadable.extend(unreadable_records);
    let needs = Needs {
        devices: &devices,
        records: &records,
        ignored: &settings.ignored_serials,
    };
    let (mut falcon, fetch_state) =
        fetch::complete(run, &clients.falcon, prefetched, needs).await?;
    falcon.is_short = clients.falcon.lacks_hosts();
    Ok(Observation {
        falcon,
        devices,
        records,
        expired,
        clients,
        fetch_state,
        native,
        unreadable,
        unsettled: recovery.unsettled,
        subject: None,
    })
}

/// Observes the tailnet and the records, and what Falcon has of the devices that `find` names. Returns `None` if that does not
/// suffice, see [`subject`].
pub(super) async fn subject_only<F>(
    run: &Run<'_>,
    settings: &Settings,
    find: F,
) -> Result<Option<Observation>, SyncError>
where
    F: AsyncFnOnce(&Devices, &NodeRecords, &IgnoredSerials) -> Result<Subject, StoreError>,
{
    let nodes = async { Ok::<_, SyncError>(run.app.store.nodes(&settings.id).await?) };
    let tailnet = async {
        let clients = run.connect(settings).await?;
        let devices = clients.tailscale.devices().await?;
        Ok((clients, devices))
    };
    let (nodes, (clients, devices)) = try_join(nodes, tailnet).await?;
    let StoredNodes {
        mut records,
        unreadable,
    } = nodes;
    let expired = take_expired(&mut records, run.started);
    let subject = find(&devices, &records, &settings.ignored_serials).await?;
    let needs = Needs {
        devices: &devices,
        records: &records,
        ignored: &settings.ignored_serials,
    };
    let falcon = subject::look_up(run, &clients.falcon, needs, &subject);
    let Some(falcon) = falcon.await? else {
        return Ok(None);
    };
    Ok(Some(Observation {
        falcon,
        devices,
        records,
        expired,
        clients,
        fetch_state: FetchState::default(),
        native: None,
        unreadable,
        unsettled: UnreadableDevices::new(),
        subject: Some(subject.nodes),
    }))
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
    /// Returns true if the plan leaves a device out.
    pub(super) fn leaves_out(&self, node: &NodeId) -> bool {
        self.unreadable.contains_key(node) || self.unsettled.contains_key(node)
    }

    /// Returns true if the observation says nothing about a device.
    pub(super) fn is_beyond(&self, node: &NodeId) -> bool {
        self.subject
            .as_ref()
            .is_some_and(|subject| !subject.contains(node))
    }

    /// Returns the facts that the guard judges a plan by.
    pub(super) fn guard_inputs<'a>(
        &'a self,
        run: &Run<'_>,
        settings: &'a Settings,
        suspicion: Option<&'a str>,
        recent_removals: &'a [NodeId],
    ) -> GuardInputs<'a> {
        GuardInputs {
            integration: &settings.id,
            now: run.started,
            suspicion,
            records: &self.records,
            recent_removals,
            max: settings.max_removals,
            allowed: run.request.allow_mass_removal,
        }
    }

    /// Returns the reason why the listings are implausible, if they are. Call it before any lookup adds to them.
    pub(super) fn suspicion(&self, matches: &Matches, settings: &Settings) -> Option<String> {
        find_suspicion(
            &self.falcon,
            &self.devices,
            &self.records,
            matches,
            settings.on_missing,
        )
    }
}
