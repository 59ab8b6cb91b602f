//! Applies a plan batch by batch: Tailscale first, then one transaction for the records. It makes no choices.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::SyncError;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::confirm::UnreadableDevices;
use crate::domain::plan::journal::{JournalEntry, SEND_TIME, batches};
use crate::domain::plan::{Change, Plan};
use crate::store::{MAX_CHANGES, Store};
use crate::tailscale::{AttributeWrite, SetAttribute, TailscaleWriter, WriteLimits};

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
    /// Attributes that got another end, and were recorded.
    pub(super) renewed: usize,
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
    let (limits, room) = (run.app.write_limits, run.journal_room());
    let mut changes = Cow::from(&plan.changes);
    if !plan.renewals.is_empty() {
        changes.to_mut().extend(plan.renewals.iter().cloned());
    }
    if room < MIN_JOURNAL_BYTES && !changes.is_empty() {
        return Applied::failed(SyncError::JournalFull);
    }
    let max_batch_bytes = room / limits.concurrency.max(2);
    let batch_size = batch_size_for(limits, changes.len());
    let batches = batches(&changes, batch_size, max_batch_bytes);
    let batch_writer = &BatchWriter {
        run,
        writer,
        room: Semaphore::new(room),
        max_kept_bytes: room - max_batch_bytes,
        kept_bytes: AtomicUsize::new(0),
        transactions: Semaphore::new(RECORD_CONCURRENCY),
    };
    let mut applied = stream::iter(batches.enumerate())
        .map(|(n, changes)| batch_writer.apply_batch(n, changes))
        .buffered(limits.concurrency)
        .fold(Applied::default(), |sum, batch| async { sum.merge(batch) })
        .await;
    if applied.failure.is_none() {
        let (store, id) = (&run.app.store, &run.integration.id);
        let gone = [plan.departed.as_slice(), &plan.expired].concat();
        let deleted = store.delete_node_records(id, &gone).await;
        applied.failure = deleted.err().map(SyncError::from);
    }
    applied
}

/// Applies the batches of a run, which share the room of its journal.
struct BatchWriter<'a> {
    run: &'a Run<'a>,
    writer: &'a TailscaleWriter<'a>,
    /// The bytes of the journal that are free. A failure closes it, so that no further batch begins.
    room: Semaphore,
    /// Maximum bytes of the entries that the run leaves to a later one. The rest of the journal has room for one batch.
    max_kept_bytes: usize,
    kept_bytes: AtomicUsize,
    transactions: Semaphore,
}

impl BatchWriter<'_> {
    /// Applies the nth batch, unless an earlier one failed.
    async fn apply_batch(&self, n: usize, changes: &[Change]) -> Applied {
        let mut entry = JournalEntry::new(self.run.id(), changes, self.run.started);
        let Ok(mut permit) = self.room.acquire_many(permits(entry.stored_bytes())).await else {
            return Applied::default();
        };
        entry.sent_at = self.run.app.clock.now();
        let applied = self.write_batch(n, changes, entry, &mut permit).await;
        if applied.failure.is_some() {
            self.room.close();
        }
        applied
    }

    /// Stores the changes in the journal before they are written, so that a later run can record them if this one dies. Then
    /// writes them, and records the accepted ones.
    async fn write_batch(
        &self,
        n: usize,
        changes: &[Change],
        entry: JournalEntry,
        permit: &mut SemaphorePermit<'_>,
    ) -> Applied {
        let (run, sent_at) = (self.run, entry.sent_at);
        if let Err(error) = run.put_journal(n, entry).await {
            return Applied::failed(error);
        }
        let attributes: Vec<AttributeWrite> = changes.iter().map(attribute_write).collect();
        let comment = format!("falcon-posture-sync run {}", run.id());
        let end = sent_at.saturating_add(SEND_TIME).unwrap_or(sent_at);
        let result = self.writer.write(&attributes, &comment, end).await;
        let of_batch = |nodes: &BTreeSet<&NodeId>| -> Vec<Change> {
            let changes = changes.iter();
            let changes = changes.filter(|change| nodes.contains(&change.node_id));
            changes.cloned().collect()
        };
        let accepted = of_batch(&result.accepted.iter().collect());
        let mut open = of_batch(&result.unknown.iter().map(|(node, _)| node).collect());
        let mut unsettled = UnreadableDevices::new();
        if result.is_uncertain {
            // An earlier attempt may take effect after a later run has written something else.
            open.extend(accepted.iter().cloned());
            unsettled.extend(accepted.iter().map(may_repeat));
        }
        let records = Store::transactions(&accepted);
        let records = records.map(|changes| self.record(changes, sent_at));
        let recorded = join_all(records).await.into_iter();
        let recorded = recorded.fold(Applied::default(), Applied::merge);
        // A failed batch stays in the journal as a whole, unless each request had an answer: then only the accepted writes
        // were made.
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
            return applied;
        }
        if open.is_empty() {
            run.mark_recorded(n);
            return applied;
        }
        match self.keep(n, &open, sent_at, permit).await {
            Ok(()) => applied,
            Err(error) => applied.merge(Applied::failed(error)),
        }
    }

    /// Leaves changes of the nth batch to a later run: their writes may still take effect, or their outcome is unknown.
    async fn keep(
        &self,
        n: usize,
        changes: &[Change],
        sent_at: Timestamp,
        permit: &mut SemaphorePermit<'_>,
    ) -> Result<(), SyncError> {
        let entry = JournalEntry::new(self.run.id(), changes, sent_at);
        let bytes = entry.stored_bytes();
        self.run.put_journal(n, entry).await?;
        if let Some(kept) = permit.split(bytes) {
            kept.forget();
        }
        let kept_before = self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
        if kept_before + bytes > self.max_kept_bytes {
            return Err(SyncError::JournalFull);
        }
        Ok(())
    }

    /// Records accepted changes. If that fails, the journal entry stays and the next run records them.
    async fn record(&self, changes: &[Change], sent_at: Timestamp) -> Applied {
        let _permit = self.transactions.acquire().await;
        if let Err(error) = self.run.record(changes, sent_at).await {
            return Applied::failed(error);
        }
        let removed = changes.iter().filter(|change| change.is_removal()).count();
        let renewed = changes.iter().filter(|change| change.is_renewal()).count();
        Applied {
            written: changes.len() - removed - renewed,
            removed,
            renewed,
            ..Applied::default()
        }
    }
}

/// Returns the permits of an entry: one a byte.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
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
        set: new.map(|new| SetAttribute {
            key: new.key.clone(),
            score: new.score.get(),
            expiry: new.expiry,
        }),
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
        self.renewed += other.renewed;
        self.rejected.extend(other.rejected);
        self.unknown.extend(other.unknown);
        self.unsettled.extend(other.unsettled);
        self.failure = self.failure.or(other.failure);
        self
    }
}
