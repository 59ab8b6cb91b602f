//! Carries a plan out, chunk by chunk: Tailscale first, then one transaction for the records. It makes no choices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::failure::SyncError;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::journal::parts;
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

/// So many transactions are under way at once. They take turns, so that the next call goes out as soon as the records of
/// one are made, while those of the others are.
const RECORDS_AT_ONCE: usize = 8;

/// The result of applying a plan.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Attributes that were set or changed, and recorded.
    pub(super) written: usize,
    /// Attributes that were taken away, and recorded.
    pub(super) removed: usize,
    /// Devices whose change Tailscale refused, with its words.
    pub(super) refused: Vec<(NodeId, String)>,
    /// The failure that stopped it early.
    pub(super) failure: Option<SyncError>,
}

/// Writes what the plan says, records what was accepted, and stops at the first failure that is not one device's own.
pub(super) async fn apply(run: &Run<'_>, plan: &Plan, writer: &TailscaleWriter) -> Applied {
    let (limits, stopped) = (run.world.write_limits, &AtomicBool::new(false));
    let turns = &Semaphore::new(RECORDS_AT_ONCE);
    let chunks = parts(
        &plan.changes,
        batch_size_for(limits, plan.changes.len()),
        limits.concurrency,
    );
    let mut applied = stream::iter(chunks.enumerate())
        .map(|(n, chunk)| async move {
            if stopped.load(Ordering::Relaxed) {
                return Applied::default();
            }
            // The chunk that had this note before has come to its end: they end in their order.
            let note = n % limits.concurrency;
            let applied = apply_chunk(run, writer, turns, note, chunk).await;
            if applied.failure.is_some() {
                stopped.store(true, Ordering::Relaxed);
            }
            applied
        })
        .buffered(limits.concurrency)
        .fold(Applied::default(), |sum, chunk| async { sum.and(chunk) })
        .await;
    if applied.failure.is_none() {
        let store = &run.world.store;
        let forgotten = store.forget(&run.integration.id, &plan.departed).await;
        applied.failure = forgotten.err().map(SyncError::from);
    }
    applied
}

/// What is to be written is stored before it is, so that no death of the run can keep it from the records.
async fn apply_chunk(
    run: &Run<'_>,
    writer: &TailscaleWriter,
    turns: &Semaphore,
    note: usize,
    chunk: &[Change],
) -> Applied {
    if let Err(error) = run.intend(note, chunk).await {
        return Applied {
            failure: Some(error.into()),
            ..Applied::default()
        };
    }
    let applied = write_and_record(run, writer, turns, chunk).await;
    if applied.failure.is_none() {
        run.close(note);
    }
    applied
}

async fn write_and_record(
    run: &Run<'_>,
    writer: &TailscaleWriter,
    turns: &Semaphore,
    chunk: &[Change],
) -> Applied {
    let entries: Vec<AttributeWrite> = chunk.iter().map(attribute_write).collect();
    let comment = format!("falcon-posture-sync run {}", run.id());
    let written = writer.write(&entries, &comment).await;
    let accepted: BTreeSet<&NodeId> = written.accepted.iter().collect();
    let changes: Vec<Change> = chunk
        .iter()
        .filter(|change| accepted.contains(&change.node_id))
        .cloned()
        .collect();
    let mut applied = Applied {
        refused: written.refused,
        failure: written.error.map(SyncError::from),
        ..Applied::default()
    };
    let records = changes.chunks(MAX_CHANGES).map(async |changes| {
        let _turn = turns.acquire().await;
        record(run, changes).await
    });
    let recorded = join_all(records).await.into_iter();
    let recorded = recorded.fold(Applied::default(), Applied::and);
    applied.failure = recorded.failure.or(applied.failure);
    Applied {
        written: recorded.written,
        removed: recorded.removed,
        ..applied
    }
}

/// Records what was accepted. Where that fails, the note of what was to be written stays, and the next run records it.
async fn record(run: &Run<'_>, changes: &[Change]) -> Applied {
    let mut applied = Applied::default();
    match run.record(changes).await {
        Ok(()) => {
            applied.removed = changes.iter().filter(|change| change.is_removal()).count();
            applied.written = changes.len() - applied.removed;
        }
        Err(error) => applied.failure = Some(error.into()),
    }
    applied
}

fn attribute_write(change: &Change) -> AttributeWrite {
    AttributeWrite {
        node_id: change.node_id.clone(),
        set: change
            .new
            .as_ref()
            .map(|new| (new.key.clone(), new.score.get())),
        delete: change.deleted_key().cloned(),
    }
}

impl Applied {
    fn and(mut self, other: Self) -> Self {
        self.written += other.written;
        self.removed += other.removed;
        self.refused.extend(other.refused);
        self.failure = self.failure.or(other.failure);
        self
    }
}
