//! Applies a plan batch by batch: Tailscale first, then one transaction for the records. It makes no choices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::error::SyncError;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::confirm::UnreadableDevices;
use crate::domain::plan::journal::{SEND_TIME, batches};
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
    /// Devices whose change was accepted, and of which an unanswered attempt may still take effect.
    pub(super) unsettled: UnreadableDevices,
    /// The failure that stopped it early.
    pub(super) failure: Option<SyncError>,
}

/// Less room than this in the journal is too little for a run.
const MIN_JOURNAL_BYTES: usize = 40_000;

/// Writes the changes of the plan and records the accepted ones. Stops at the first failure that is not one device's own.
pub(super) async fn apply(run: &Run<'_>, plan: &Plan, writer: &TailscaleWriter<'_>) -> Applied {
    let (limits, is_stopped) = (run.app.write_limits, &AtomicBool::new(false));
    let room = run.journal_room();
    // A share of the journal is for the writes that the batches leave to a later run.
    let max_kept_bytes = room / 5;
    if room < MIN_JOURNAL_BYTES && !plan.changes.is_empty() {
        return Applied::failed(SyncError::JournalFull);
    }
    let permits = &Semaphore::new(RECORD_CONCURRENCY);
    let batch_size = batch_size_for(limits, plan.changes.len());
    let max_bytes = room - max_kept_bytes;
    let batches = batches(&plan.changes, batch_size, limits.concurrency, max_bytes);
    let mut applied = stream::iter(batches.enumerate())
        .map(|(n, changes)| async move {
            if is_stopped.load(Ordering::Relaxed) {
                return Applied::default();
            }
            let batch = Batch {
                changes,
                // Batches end in their order, so the batch that used this journal entry before has ended.
                entry: n % limits.concurrency,
                kept_entry: limits.concurrency + n,
                max_kept_bytes,
            };
            let applied = apply_batch(run, writer, permits, batch).await;
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

/// Changes that are written with one call, if nothing fails.
struct Batch<'a> {
    changes: &'a [Change],
    /// The number of its journal entry while it is in flight.
    entry: usize,
    /// The number of the entry for what it leaves to a later run.
    kept_entry: usize,
    /// Maximum bytes of all entries that the run leaves.
    max_kept_bytes: usize,
}

/// Stores the changes in the journal before they are written, so that a later run can record them if this one dies. Then
/// writes them, and records the accepted ones.
async fn apply_batch(
    run: &Run<'_>,
    writer: &TailscaleWriter<'_>,
    permits: &Semaphore,
    batch: Batch<'_>,
) -> Applied {
    let sent_at = match run.journal_batch(batch.entry, batch.changes).await {
        Ok(sent_at) => sent_at,
        Err(error) => return Applied::failed(error),
    };
    let attributes: Vec<AttributeWrite> = batch.changes.iter().map(attribute_write).collect();
    let comment = format!("falcon-posture-sync run {}", run.id());
    let end = sent_at.saturating_add(SEND_TIME).unwrap_or(sent_at);
    let result = writer.write(&attributes, &comment, end).await;
    let of_batch = |nodes: &BTreeSet<&NodeId>| -> Vec<Change> {
        let changes = batch.changes.iter();
        let changes = changes.filter(|change| nodes.contains(&change.node_id));
        changes.cloned().collect()
    };
    let accepted: BTreeSet<&NodeId> = result.accepted.iter().collect();
    let changes = of_batch(&accepted);
    let unknown: BTreeSet<&NodeId> = result.unknown.iter().map(|(node, _)| node).collect();
    let mut open = of_batch(&unknown);
    let mut unsettled = UnreadableDevices::new();
    if result.is_uncertain {
        // An earlier attempt may take effect after a later run has written something else.
        open.extend(changes.iter().cloned());
        unsettled.extend(changes.iter().map(may_repeat));
    }
    let records = changes.chunks(MAX_CHANGES);
    let records = records.map(|changes| record(run, permits, changes, sent_at));
    let recorded = join_all(records).await.into_iter();
    let recorded = recorded.fold(Applied::default(), Applied::merge);
    // A failed batch stays in the journal as a whole, unless each request had an answer: then only the accepted writes were
    // made.
    let is_left_open =
        recorded.failure.is_some() || (result.is_uncertain && result.error.is_some());
    let applied = recorded.merge(Applied {
        rejected: result.rejected,
        unknown: result.unknown,
        unsettled,
        failure: result.error.map(SyncError::from),
        ..Applied::default()
    });
    if is_left_open {
        // The whole entry is left to a later run.
        return applied;
    }
    if open.is_empty() {
        run.mark_recorded(batch.entry);
        return applied;
    }
    let entries = (batch.entry, batch.kept_entry);
    match run
        .keep_in_journal(entries, &open, sent_at, batch.max_kept_bytes)
        .await
    {
        Ok(()) => applied,
        Err(error) => applied.merge(Applied::failed(error)),
    }
}

/// Records accepted changes. If that fails, the journal entry stays and the next run records them.
async fn record(
    run: &Run<'_>,
    permits: &Semaphore,
    changes: &[Change],
    sent_at: Timestamp,
) -> Applied {
    let _permit = permits.acquire().await;
    if let Err(error) = run.record(changes, sent_at).await {
        return Applied::failed(error);
    }
    let removed = changes.iter().filter(|change| change.is_removal()).count();
    Applied {
        written: changes.len() - removed,
        removed,
        ..Applied::default()
    }
}

fn may_repeat(change: &Change) -> (NodeId, String) {
    let Change { node_id, name, .. } = change;
    let example = format!("{name} ({node_id}): an attempt to write it had no answer");
    (node_id.clone(), example)
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
        self.unsettled.extend(other.unsettled);
        self.failure = self.failure.or(other.failure);
        self
    }
}
