//! Recovers writes that an earlier run made in Tailscale, or may have made, and could not record in DynamoDB.

use futures::future::join_all;

use super::error::SyncError;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::Change;
use crate::domain::plan::confirm::UnreadableDevices;
use crate::domain::plan::journal::{is_applied, run_id_of, unrecorded};
use crate::tailscale::Tailscale;
use crate::text::error_chain;
use crate::upstream::error::UpstreamError;

/// Devices that are asked concurrently. Their answers are recorded before the next ones are asked, so that each run makes
/// progress even in a short time.
const LOOKUP_CONCURRENCY: usize = 16;

/// After this many devices without an answer no more are asked. Otherwise an outage of Tailscale would use up the run's
/// time and retries here, and the run would end before the device listing tells that it is one.
const MAX_UNANSWERED: usize = 16;

/// The usual time between two runs.
const SECONDS_PER_TICK: i64 = 900;

/// Asks the devices in the journal of earlier runs what they hold, and records the accepted writes in the name of the run
/// that made them. Afterwards the plan can rest on the records again, except for the devices that are returned.
///
/// # Errors
/// A failure that is not one device's own: a rejected credential, a rate limit, the deadline, DynamoDB.
pub(super) async fn unrecorded_writes(run: &Run<'_>) -> Result<UnreadableDevices, SyncError> {
    let (store, id) = (&run.app.store, &run.integration.id);
    let (mut client, mut cached_nodes) = (None, None);
    let mut unreadable = UnreadableDevices::new();
    for (key, entry) in &run.integration.pending {
        let earlier_run = run_id_of(key);
        // The entries of one run are about different devices, so recording one does not change the records of the others.
        let nodes = match cached_nodes.take() {
            Some((run_id, nodes)) if run_id == earlier_run => nodes,
            _ => store.nodes(id).await?,
        };
        let mut changes = unrecorded(earlier_run, entry, &nodes.records);
        changes.retain(|change| match nodes.unreadable.get(&change.node_id) {
            Some(problem) => {
                unreadable.insert(change.node_id.clone(), problem.clone());
                false
            }
            None => true,
        });
        // Each run begins with others, so that some that never respond do not keep the rest waiting.
        let ticks = usize::try_from(run.started.as_second() / SECONDS_PER_TICK).unwrap_or(0);
        let start = ticks.wrapping_mul(LOOKUP_CONCURRENCY);
        let start = start.checked_rem(changes.len()).unwrap_or(0);
        changes.rotate_left(start);
        for changes in changes.chunks(LOOKUP_CONCURRENCY) {
            if unreadable.len() >= MAX_UNANSWERED {
                unreadable.extend(changes.iter().map(not_asked));
                continue;
            }
            let tailscale = match &client {
                Some(client) => client,
                None => client.insert(run.connect_tailscale().await?),
            };
            let lookups = look_up_attributes(tailscale, changes).await;
            if !lookups.applied.is_empty() {
                tracing::warn!(
                    integration = %id,
                    run_id = run.id(),
                    earlier_run_id = earlier_run,
                    changes = lookups.applied.len(),
                    "recording writes of an earlier run"
                );
                run.record(earlier_run, &lookups.applied).await?;
            }
            if !lookups.settled.is_empty() {
                let nodes = Some(&*lookups.settled);
                store.remove_from_journal(id, run.id(), key, nodes).await?;
            }
            unreadable.extend(lookups.unreadable);
            if let Some(error) = lookups.failure {
                return Err(error.into());
            }
        }
        let is_complete = !entry
            .keys()
            .any(|node| unreadable.contains_key(&NodeId(node.into())));
        if is_complete {
            store.remove_from_journal(id, run.id(), key, None).await?;
        }
        cached_nodes = Some((earlier_run, nodes));
    }
    if !unreadable.is_empty() {
        tracing::warn!(
            integration = %id,
            run_id = run.id(),
            devices = unreadable.len(),
            "leaving out devices that Tailscale could not be asked about"
        );
    }
    Ok(unreadable)
}

#[derive(Default)]
struct AttributeLookups {
    /// The changes that Tailscale had accepted.
    applied: Vec<Change>,
    /// Devices that answered, or have left the tailnet.
    settled: Vec<NodeId>,
    /// Devices that did not answer for a reason that can be their own.
    unreadable: UnreadableDevices,
    /// The first failure that is not one device's own.
    failure: Option<UpstreamError>,
}

async fn look_up_attributes(tailscale: &Tailscale, changes: &[Change]) -> AttributeLookups {
    let requests = changes
        .iter()
        .map(|change| tailscale.attributes(&change.node_id));
    let mut lookups = AttributeLookups::default();
    for (change, attributes) in changes.iter().zip(join_all(requests).await) {
        let node = change.node_id.clone();
        match attributes {
            Ok(Some(attributes)) => {
                if is_applied(change, &attributes) {
                    lookups.applied.push(change.clone());
                }
                lookups.settled.push(node);
            }
            // The attribute left with the device, and needs no record.
            Ok(None) => lookups.settled.push(node),
            // Devices that may not be written to may be here for good. If it is the credential, the next write tells.
            Err(error) if error.can_be_one_devices() => {
                let example = format!("{} ({node}): {}", change.name, error_chain(&error));
                lookups.unreadable.insert(node, example);
            }
            Err(error) => {
                lookups.failure.get_or_insert(error);
            }
        }
    }
    lookups
}

fn not_asked(change: &Change) -> (NodeId, String) {
    let Change { node_id, name, .. } = change;
    let example =
        format!("{name} ({node_id}): left out, since {MAX_UNANSWERED} others did not respond");
    (node_id.clone(), example)
}
