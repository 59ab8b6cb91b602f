//! Recovers writes that an earlier run made in Tailscale, or may have made, and could not record in DynamoDB.

use futures::future::join_all;
use jiff::Timestamp;

use super::error::SyncError;
use super::run::Run;
use crate::domain::inventory::attribute::HeldAttributes;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::Change;
use crate::domain::plan::confirm::UnreadableDevices;
use crate::domain::plan::journal::{JournalEntry, WriteOutcome, term_of, write_outcome};
use crate::store::{Settlement, StoreError};
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

/// The devices that the recovery leaves open. The records of all other devices are right, so the plan can rest on them.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Devices that could not be asked.
    pub(super) unreadable: UnreadableDevices,
    /// Devices whose write may still take effect.
    pub(super) unsettled: UnreadableDevices,
    /// The failure that ended the recovery early, if it is not one device's own: a rejected credential, a rate limit, the
    /// deadline.
    pub(super) failure: Option<SyncError>,
}

impl Recovery {
    /// Returns the recovery if it came to its end.
    pub(super) fn complete(mut self) -> Result<Self, SyncError> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

/// Asks the devices in the journal of earlier runs what they hold, records the accepted writes in the name of the run that
/// made them, and removes them from the journal. Entries whose writes may still take effect are left alone.
///
/// An integration's last run asks these devices, too (`is_last_run`): what is found made is recorded at least.
pub(super) async fn unrecorded_writes(
    run: &Run<'_>,
    is_last_run: bool,
) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    let (mut client, mut cached_nodes) = (None, None);
    for (key, entry) in &run.integration.pending {
        let is_settled = entry.is_settled(run.app.clock.now());
        if !is_settled {
            recovery.add_unsettled(entry);
            if !is_last_run {
                continue;
            }
        }
        // The entries of one term are about different devices, so recording one does not change the records of the others.
        let nodes = match cached_nodes.take() {
            Some((term, nodes)) if term == term_of(key) => nodes,
            _ => run.app.store.nodes(&run.integration.id).await?,
        };
        let mut changes = entry.unrecorded(&nodes.records);
        changes.retain(|change| match nodes.unreadable.get(&change.node_id) {
            Some(problem) => {
                let node = change.node_id.clone();
                recovery.unreadable.insert(node, problem.clone());
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
            if recovery.unreadable.len() >= MAX_UNANSWERED {
                recovery.unreadable.extend(changes.iter().map(not_asked));
                continue;
            }
            let tailscale = match &client {
                Some(client) => client,
                None => match run.connect_tailscale().await {
                    Ok(connected) => client.insert(connected),
                    Err(error) => {
                        recovery.failure = Some(error);
                        return Ok(recovery);
                    }
                },
            };
            let now = run.app.clock.now();
            let lookups = look_up_attributes(tailscale, changes, now).await;
            let mut settlement = lookups.settlement;
            if !is_settled {
                // A write that the device does not show may still take effect.
                settlement.unknown.clear();
                let made = settlement.made.iter().map(|change| change.node_id.clone());
                settlement.nodes = made.collect();
            }
            if !settlement.nodes.is_empty() {
                tracing::warn!(
                    integration = %run.integration.id,
                    run_id = run.id(),
                    earlier_run_id = entry.run_id,
                    changes = settlement.made.len(),
                    unknown = settlement.unknown.len(),
                    "recording writes of an earlier run"
                );
                run.settle((key, entry), &settlement, false).await?;
            }
            recovery.unreadable.extend(lookups.unreadable);
            if let Some(error) = lookups.failure {
                recovery.failure = Some(error.into());
                return Ok(recovery);
            }
        }
        let is_complete = !entry
            .nodes()
            .any(|node| recovery.unreadable.contains_key(&node));
        if is_settled && is_complete {
            run.settle((key, entry), &Settlement::default(), true)
                .await?;
        }
        cached_nodes = Some((term_of(key), nodes));
    }
    if !recovery.unreadable.is_empty() {
        tracing::warn!(
            integration = %run.integration.id,
            run_id = run.id(),
            devices = recovery.unreadable.len(),
            "leaving out devices that Tailscale could not be asked about"
        );
    }
    Ok(recovery)
}

impl Recovery {
    fn add_unsettled(&mut self, entry: &JournalEntry) {
        let until = entry.settles_at();
        for (node, write) in &entry.writes {
            let problem = format!(
                "{} ({node}): run {} sent a write at {:.0}, which may take effect until {until:.0}",
                write.name(),
                entry.run_id,
                entry.sent_at
            );
            self.unsettled.insert(NodeId(node.into()), problem);
        }
    }
}

#[derive(Default)]
struct AttributeLookups {
    settlement: Settlement,
    /// Devices that did not answer for a reason that can be their own.
    unreadable: UnreadableDevices,
    /// The first failure that is not one device's own.
    failure: Option<UpstreamError>,
}

async fn look_up_attributes(
    tailscale: &Tailscale,
    changes: &[Change],
    now: Timestamp,
) -> AttributeLookups {
    let requests = changes
        .iter()
        .map(|change| tailscale.attributes(&change.node_id));
    let mut lookups = AttributeLookups::default();
    for (change, held) in changes.iter().zip(join_all(requests).await) {
        let node = change.node_id.clone();
        match held {
            Ok(held) => {
                let settlement = &mut lookups.settlement;
                match write_outcome(change, held.as_ref(), now) {
                    WriteOutcome::Made => settlement.made.push(as_held(change, held.as_ref())),
                    WriteOutcome::Unknown => settlement.unknown.push(change.clone()),
                    WriteOutcome::NotMade => {}
                }
                settlement.nodes.push(node);
            }
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

/// Returns a change that was made, with the end that the device has.
fn as_held(change: &Change, held: Option<&HeldAttributes>) -> Change {
    let mut change = change.clone();
    if let (Some(new), Some(held)) = (&mut change.new, held) {
        new.expiry = held.expiry(&new.key);
    }
    change
}

fn not_asked(change: &Change) -> (NodeId, String) {
    let Change { node_id, name, .. } = change;
    let example =
        format!("{name} ({node_id}): left out, since {MAX_UNANSWERED} others did not respond");
    (node_id.clone(), example)
}
