//! Applies a plan batch by batch: Tailscale first, then one transaction for the records. It makes no choices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::error::SyncError;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::journal::batches;
use crate::domain::plan::{Change, Plan};
use crate::store::MAX_CHANGES;
use crate::tailscale::{AttributeWrite, TailscaleWriter, WriteLimits};

/// Returns how many devices to write per call: as few as one transaction records, unless that makes more calls than may run
/// at once.
fn batch_size_for(limits: WriteLimits, changes: usize) -> usize {
    changes
        .div_ceil(limits.concurrency)
        .clamp(MAX_CHANGES, limits.batch_size.max(MAX_CHANGES))
}

/// Maximum transactions in flight. Batches wait for a permit each, so that a batch whose records are done sends its next
/// call while others still record.
const RECORD_CONCURRENCY: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Attributes that were set or changed, and recorded.
    pub(super) written: usize,
    /// Attributes that were removed, and recorded.
    pub(super) removed: usize,
    /// Devices whose change Tailscale rejected, with its message.
    pub(super) rejected: Vec<(NodeId, String)>,
    /// Devices whose change failed while others were accepted, with the message. It may have arrived.
    pub(super) unknown: Vec<(NodeId, String)>,
    /// The failure that stopped it early.
    pub(super) failure: Option<SyncError>,
}

/// Writes the changes of the plan and records the accepted ones. Stops at the first failure that is not one device's own.
pub(super) async fn apply(run: &Run<'_>, plan: &Plan, writer: &TailscaleWriter<'_>) -> Applied {
    let (limits, is_stopped) = (run.app.write_limits, &AtomicBool::new(false));
    let permits = &Semaphore::new(RECORD_CONCURRENCY);
    let batch_size = batch_size_for(limits, plan.changes.len());
    let batches = batches(&plan.changes, batch_size, limits.concurrency);
    let mut applied = stream::iter(batches.enumerate())
        .map(|(n, batch)| async move {
            if is_stopped.load(Ordering::Relaxed) {
                return Applied::default();
            }
            // Batches end in their order, so the batch that used this journal entry before has ended.
            let entry = n % limits.concurrency;
            let applied = apply_batch(run, writer, permits, entry, batch).await;
            let applied = keep_unknown(run, limits.concurrency + n, batch, applied).await;
            if applied.failure.is_some() {
                is_stopped.store(true, Ordering::Relaxed);
            }
            applied
        })
        .buffered(limits.concurrency)
        .fold(Applied::default(), |sum, batch| async { sum.merge(batch) })
        .await;
    if applied.failure.is_none() {
        let (store, id) = (&run.app.store, &run.integration.id);
        let deleted = store.delete_node_records(id, &plan.departed).await;
        applied.failure = deleted.err().map(SyncError::from);
    }
    applied
}

/// Stores the changes in the journal before they are written, so that the next run can record them if this one dies. Then
/// writes them, and records the accepted ones.
async fn apply_batch(
    run: &Run<'_>,
    writer: &TailscaleWriter<'_>,
    permits: &Semaphore,
    entry: usize,
    batch: &[Change],
) -> Applied {
    if let Err(error) = run.journal_batch(entry, batch).await {
        return Applied::failed(error);
    }
    let attributes: Vec<AttributeWrite> = batch.iter().map(attribute_write).collect();
    let comment = format!("falcon-posture-sync run {}", run.id());
    let result = writer.write(&attributes, &comment).await;
    let accepted: BTreeSet<&NodeId> = result.accepted.iter().collect();
    let is_accepted = |change: &&Change| accepted.contains(&change.node_id);
    let changes: Vec<Change> = batch.iter().filter(is_accepted).cloned().collect();
    let records = changes.chunks(MAX_CHANGES);
    let records = records.map(|changes| record(run, permits, changes));
    let rejected = Applied {
        rejected: result.rejected,
        unknown: result.unknown,
        failure: result.error.map(SyncError::from),
        ..Applied::default()
    };
    let parts = join_all(records).await.into_iter().chain([rejected]);
    let applied = parts.fold(Applied::default(), Applied::merge);
    if applied.failure.is_none() {
        run.mark_recorded(entry);
    }
    applied
}

/// Keeps the changes whose fate is unknown in a journal entry of their own, the run's nth: the next run asks the devices.
async fn keep_unknown(run: &Run<'_>, n: usize, batch: &[Change], applied: Applied) -> Applied {
    let nodes: BTreeSet<&NodeId> = applied.unknown.iter().map(|(node, _)| node).collect();
    let unknown = batch
        .iter()
        .filter(|change| nodes.contains(&change.node_id));
    let unknown: Vec<Change> = unknown.cloned().collect();
    // The entry of a batch that ended with a failure stays as a whole.
    if unknown.is_empty() || applied.failure.is_some() {
        return applied;
    }
    match run.journal_batch(n, &unknown).await {
        Ok(()) => applied,
        Err(error) => applied.merge(Applied::failed(error)),
    }
}

/// Records accepted changes. If that fails, the journal entry stays and the next run records them.
async fn record(run: &Run<'_>, permits: &Semaphore, changes: &[Change]) -> Applied {
    let _permit = permits.acquire().await;
    if let Err(error) = run.record(run.id(), changes).await {
        return Applied::failed(error);
    }
    let removed = changes.iter().filter(|change| change.is_removal()).count();
    Applied {
        written: changes.len() - removed,
        removed,
        ..Applied::default()
    }
}

fn attribute_write(change: &Change) -> AttributeWrite {
    let new = change.new.as_ref();
    AttributeWrite {
        node_id: change.node_id.clone(),
        set: new.map(|new| (new.key.clone(), new.score.get())),
        delete: change.key_to_delete().cloned(),
    }
}

impl Applied {
    fn failed(error: impl Into<SyncError>) -> Self {
        Self {
            failure: Some(error.into()),
            ..Self::default()
        }
    }

    /// Adds both results. The earlier failure wins.
    fn merge(mut self, other: Self) -> Self {
        self.written += other.written;
        self.removed += other.removed;
        self.rejected.extend(other.rejected);
        self.unknown.extend(other.unknown);
        self.failure = self.failure.or(other.failure);
        self
    }
}
