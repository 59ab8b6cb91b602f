//! Looks up what a plan would act upon only because the listings lack it.

use futures::future::{ready, try_join};
use futures::{StreamExt, TryStreamExt, stream};

use super::decision::{Confirmation, Proposal};
use super::observe::Observation;
use super::run::{Clients, Run};
use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::host::{Assessments, Hosts};
use crate::domain::plan::confirm::Unconfirmed;
use crate::settings::Settings;
use crate::tailscale::Tailscale;
use crate::upstream::error::UpstreamError;

/// Maximum departed devices that one run looks up; the next run looks up the rest.
const MAX_DEVICE_LOOKUPS: usize = 100;
const LOOKUP_CONCURRENCY: usize = 8;

/// Looks up the missing data, adds it to the observation, and makes the proposal anew if there was any.
pub(super) async fn missing_data(
    run: &Run<'_>,
    settings: &Settings,
    observation: &mut Observation,
    proposal: Proposal,
) -> (Proposal, Confirmation) {
    let unconfirmed = proposal.unconfirmed(observation);
    if unconfirmed.is_empty() {
        return (proposal, Confirmation::default());
    }
    tracing::info!(
        integration = %settings.id,
        run_id = run.id(),
        changes = unconfirmed.changes.len(),
        departed = unconfirmed.departed.len(),
        "looking up what the listings lack before it is believed to be gone"
    );
    let lookups = resolve_unconfirmed(run, settings, observation, &unconfirmed).await;
    let error = lookups.err();
    let proposal = Proposal::new(run, settings, observation);
    let mut unresolved = Unconfirmed::default();
    if error.is_some() {
        // The lookups that succeeded may have raised further questions: those are unresolved, too.
        unresolved = proposal.unconfirmed(observation);
        unresolved.changes.extend(unconfirmed.changes);
        unresolved.departed.extend(unconfirmed.departed);
    } else {
        let departed = unconfirmed.departed.into_iter();
        unresolved.departed = departed.skip(MAX_DEVICE_LOOKUPS).collect();
    }
    (proposal, Confirmation { unresolved, error })
}

async fn resolve_unconfirmed(
    run: &Run<'_>,
    settings: &Settings,
    observation: &mut Observation,
    unconfirmed: &Unconfirmed,
) -> Result<(), UpstreamError> {
    let Clients { falcon, tailscale } = &observation.clients;
    let departed = unconfirmed.departed.iter().take(MAX_DEVICE_LOOKUPS);
    let (hosts, devices) = try_join(
        falcon.hosts_matching(&unconfirmed.serials, &unconfirmed.hosts),
        get_devices(tailscale, departed),
    )
    .await?;
    observation
        .falcon
        .extend(run.clamp_last_seen(hosts), Assessments::new());
    observation.devices.extend(devices);
    // A host or device that was found adds sensors whose scores are needed.
    let found = Proposal::new(run, settings, observation).unconfirmed(observation);
    let aids = found.scores.union(&unconfirmed.scores).cloned().collect();
    let scores = falcon.scores_of(&aids).await?;
    observation.falcon.extend(Hosts::new(), scores);
    Ok(())
}

/// Asks Tailscale for devices by id and returns those that exist.
pub(super) async fn get_devices(
    tailscale: &Tailscale,
    nodes: impl Iterator<Item = &NodeId>,
) -> Result<Devices, UpstreamError> {
    let by_node = |device: Device| (device.node_id.clone(), device);
    stream::iter(nodes)
        .map(|node| tailscale.device(node))
        .buffer_unordered(LOOKUP_CONCURRENCY)
        .try_filter_map(|found| ready(Ok(found.map(by_node))))
        .try_collect()
        .await
}
