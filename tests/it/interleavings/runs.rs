//! The steps of a run, in the order of `src/sync.rs`. Between two steps anything can happen.

use falcon_posture_sync::domain::inventory::attribute::{HeldAttribute, HeldAttributes};
use falcon_posture_sync::domain::plan::journal::{WriteOutcome, write_outcome};
use serde_json::Value;

use super::tables::{
    Entry, Key, Lease, NEVER, NODE, Record, RunId, Settled, Term, expiry, records, time,
};
use super::world::Held;
use crate::environment::KEY;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) term: Term,
    /// When it began.
    pub(super) epoch: u8,
    pub(super) step: Step,
    /// The entries of earlier runs that are left to judge.
    pub(super) pending: Vec<(Key, Entry)>,
    /// True if the device is left out, since a write of it may still take effect.
    pub(super) is_left_out: bool,
    /// The removal that it found: whether attributes are kept.
    pub(super) removal: Option<bool>,
    /// The number of its next journal entry.
    pub(super) entries: u8,
}

/// The next step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Acquire,
    /// Reads the record, to judge the next entry.
    ReadRecord,
    /// Asks the device what it holds, since the record does not say what the entry does.
    Ask(Option<Record>),
    /// Settles the first entry.
    Settle(Settled),
    /// Without the condition of one transaction: records what was settled, after the entry was removed.
    RecordSettled(Settled),
    /// Reads Falcon, the tailnet and the record.
    Observe,
    /// Stores the journal entry of a change.
    Journal(Option<Record>, Option<u8>),
    /// Sends the write.
    Send(Write),
    /// Waits for the answer.
    Wait(Write),
    Record(Write),
    /// Keeps the entry for a later run, since an attempt had no answer.
    Keep(Write),
    /// Records how it went, and releases the lease. `recorded` is the entry whose writes are recorded, and `open` is one that
    /// may have been made.
    Finish {
        recorded: Option<Key>,
        open: Option<(Key, Entry)>,
    },
    /// Restores the entry after the lease was lost.
    Restore((Key, Entry)),
    /// With `keep`: reads the record, to record the first entry that is left as unknown.
    ReadUnknown,
    RecordUnknown(Settled),
    /// Deletes the record of a score that has expired.
    ForgetExpired,
    DeleteRecord,
    Delete(Option<Key>),
}

/// A write in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) entry: Entry,
    pub(super) old: Option<Record>,
    /// The attempts so far.
    pub(super) attempts: u8,
    /// True if the latest attempt took effect.
    pub(super) is_made: bool,
}

impl Run {
    pub(super) fn lease(&self) -> Lease {
        Lease {
            run: self.id,
            term: self.term,
            epoch: self.epoch,
        }
    }

    /// Goes on with the next entry of earlier runs, or with what follows.
    pub(super) fn recover(&mut self, epoch: u8, has_times: bool) {
        while let Some((_, entry)) = self.pending.first() {
            let is_settled = !has_times || entry.to_code().is_settled(time(epoch));
            if is_settled || self.removal == Some(true) {
                self.step = Step::ReadRecord;
                return;
            }
            self.is_left_out = true;
            self.pending.remove(0);
        }
        self.step = match self.removal {
            Some(true) => Step::ReadUnknown,
            _ => Step::Observe,
        };
    }

    /// Returns whether the record leaves open what became of the first entry.
    pub(super) fn is_unrecorded(&self, record: Option<Record>) -> bool {
        let entry = self.pending[0].1.to_code();
        !entry.unrecorded(&records(record)).is_empty()
    }

    /// Judges the first entry by what the device holds.
    pub(super) fn judge(
        &self,
        old: Option<Record>,
        value: Option<Held>,
        (epoch, has_times): (u8, bool),
    ) -> Option<Settled> {
        let entry = self.pending[0].1;
        let held = value.map(|held| {
            let (value, expiry) = (Value::from(held.score), expiry(held.ends));
            (KEY.to_owned(), HeldAttribute { value, expiry })
        });
        let held = HeldAttributes(held.into_iter().collect());
        let changes = entry.to_code().unrecorded(&records(old));
        let [change] = &changes[..] else {
            panic!("one change of {NODE}: {changes:?}")
        };
        match write_outcome(change, Some(&held), time(epoch)) {
            WriteOutcome::Made => {
                let ends = value.map_or(NEVER, |held| held.ends);
                Some(Settled::Made(old, ends))
            }
            // The last run of an integration asks while writes may still take effect.
            _ if has_times && !entry.to_code().is_settled(time(epoch)) => None,
            WriteOutcome::NotMade => Some(Settled::NotMade),
            WriteOutcome::Unknown => Some(Settled::Unknown(old)),
        }
    }
}
