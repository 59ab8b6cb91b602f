//! Write-ahead journal of a run.
//!
//! A run can die after Tailscale accepted a write and before it is recorded, so the intended writes are stored first. A
//! later run asks the devices what they hold and records what was accepted: the audit trail then tells every change once,
//! even if the scores have changed since.
//!
//! A write can also take effect after its caller has given up. So an entry is judged only when none of its requests can
//! take effect any more ([`LIFETIME`]), and until then its devices are left out of the plan.
//!
//! Several batches are written concurrently. Each has an entry of its own, which is removed when the batch is recorded, so
//! no batch waits for another.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::batch;
use crate::domain::inventory::attribute::HeldAttributes;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::inventory::record::{NodeRecord, NodeRecords};
use crate::domain::inventory::serial::Serial;
use crate::domain::plan::{Change, DesiredAttribute};
use crate::text::truncate_bytes;

/// Maximum bytes of a name: devices choose their names.
const MAX_NAME_BYTES: usize = 100;

/// Maximum bytes of a serial. A valid serial has no more, but a record may have been edited.
const MAX_SERIAL_BYTES: usize = 4 * Serial::MAX_CHARS;

/// Maximum bytes of the journal: an item holds 400 kB, and the rest of it takes less than the difference.
pub const MAX_JOURNAL_BYTES: usize = 280_000;

/// Bytes of an entry without its writes: key, run id, times, and what DynamoDB adds.
const ENTRY_BYTES: usize = 240;

/// How long after its entry was stored a batch may still be sent, retries included.
pub const SEND_TIME: SignedDuration = SignedDuration::from_mins(5);

/// How long after its entry was stored a write can still take effect: [`SEND_TIME`], and five minutes for a request that
/// was sent. That a request takes effect within five minutes or never is assumed of Tailscale.
pub const LIFETIME: SignedDuration = SignedDuration::from_mins(10);

/// The write that a run intends for one device.
///
/// It is stored as a line of `name`, `hostname` and, unless the attribute is removed, `key`, `score`, `aid` and `serial`,
/// separated by tabs, which none of them can hold. A list would take a fifth more room and several times the work, and a
/// run stores thousands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PendingWrite {
    name: SmolStr,
    hostname: SmolStr,
    /// The attribute to write; `None` removes it.
    new: Option<DesiredAttribute>,
}

/// A stored line that is not a pending write.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "must be `name`, `hostname` and, unless the attribute is removed, `key`, `score`, `aid` and `serial`, \
     separated by tabs"
)]
pub struct InvalidPendingWrite;

impl From<PendingWrite> for String {
    fn from(write: PendingWrite) -> Self {
        let (name, hostname) = (write.name, write.hostname);
        match write.new {
            None => format!("{name}\t{hostname}"),
            Some(new) => format!(
                "{name}\t{hostname}\t{}\t{}\t{}\t{}",
                new.key, new.score, new.aid, new.serial
            ),
        }
    }
}

impl TryFrom<String> for PendingWrite {
    type Error = InvalidPendingWrite;

    fn try_from(line: String) -> Result<Self, InvalidPendingWrite> {
        let fields: Vec<&str> = line.split('\t').collect();
        let (name, hostname, new) = match fields[..] {
            [name, hostname] => (name, hostname, None),
            [name, hostname, key, score, aid, serial] => {
                let score = score.parse().ok().and_then(Score::new);
                let new = DesiredAttribute {
                    key: key.to_owned().try_into().map_err(|_| InvalidPendingWrite)?,
                    score: score.ok_or(InvalidPendingWrite)?,
                    aid: Aid::from(aid),
                    serial: serial.into(),
                    falcon_hostname: None,
                    // It is that of the entry.
                    expiry: None,
                };
                (name, hostname, Some(new))
            }
            _ => return Err(InvalidPendingWrite),
        };
        Ok(Self {
            name: name.into(),
            hostname: hostname.into(),
            new,
        })
    }
}

/// The pending writes of one batch, and when they were sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// The run that writes.
    pub run_id: String,
    /// When the entry was stored, which is just before the first request. The audit records of its writes have this time,
    /// whichever run records them, so that each can be recorded only once.
    pub sent_at: Timestamp,
    /// When the attributes that it sets end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
    /// The pending writes, by node.
    pub writes: BTreeMap<String, PendingWrite>,
}

/// The entries of an integration, by key.
pub type Journal = BTreeMap<String, JournalEntry>;

/// Returns the key of the nth entry that was stored under a lease: the term of the lease, and the number.
pub fn journal_key(term: &str, n: usize) -> String {
    format!("{term}#{n}")
}

/// Returns the term of a key.
pub fn term_of(key: &str) -> &str {
    key.split_once('#').map_or(key, |(term, _)| term)
}

/// The outcome of a pending write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The device holds the result.
    Made,
    /// The device holds what it held before.
    NotMade,
    /// The device holds something else, or has left the tailnet: the write may have been made before.
    Unknown,
}

impl JournalEntry {
    /// Creates the entry of a batch.
    pub fn new(run_id: &str, batch: &[Change], sent_at: Timestamp) -> Self {
        let write = |change: &Change| PendingWrite {
            name: truncate_bytes(&change.name, MAX_NAME_BYTES).into(),
            hostname: truncate_bytes(&change.hostname, MAX_NAME_BYTES).into(),
            new: change.new.as_ref().map(|new| DesiredAttribute {
                serial: truncate_bytes(&new.serial, MAX_SERIAL_BYTES).into(),
                falcon_hostname: None,
                expiry: None,
                ..new.clone()
            }),
        };
        Self {
            run_id: run_id.to_owned(),
            sent_at,
            // A run sets one end only.
            expiry: batch.iter().find_map(|change| change.new.as_ref()?.expiry),
            writes: batch
                .iter()
                .map(|change| (change.node_id.to_string(), write(change)))
                .collect(),
        }
    }

    /// Returns the time after which no request of the entry can take effect.
    pub fn settles_at(&self) -> Timestamp {
        self.sent_at
            .saturating_add(LIFETIME)
            .unwrap_or(Timestamp::MAX)
    }

    /// Returns true if no request of the entry can take effect any more, so that the devices tell what became of it.
    pub fn is_settled(&self, now: Timestamp) -> bool {
        now > self.settles_at()
    }

    /// Returns the changes that the run may have made and that are not recorded.
    pub fn unrecorded(&self, records: &NodeRecords) -> Vec<Change> {
        let unrecorded = |(node, write): (&String, &PendingWrite)| {
            let node_id = NodeId(node.into());
            let record = records.get(&node_id);
            let (expired, old) = match record {
                Some(record) if record.has_expired(self.sent_at) => (Some(&record.run_id), None),
                record => (None, record),
            };
            let new = write.new.clone().map(|new| DesiredAttribute {
                expiry: self.expiry,
                ..new
            });
            let is_recorded = match (old, &new) {
                // There was nothing to remove.
                (None, None) => true,
                (Some(old), Some(new)) => {
                    old.key == new.key && old.score == new.score && old.expiry == new.expiry
                }
                _ => false,
            };
            (!is_recorded).then(|| Change {
                node_id,
                name: write.name.clone(),
                hostname: write.hostname.clone(),
                old: old.cloned(),
                expired: expired.cloned(),
                new,
                reason: format!(
                    "found in the tailnet: run {} wrote it and could not record it",
                    self.run_id
                ),
                is_approved: false,
                is_immediate: false,
                is_ephemeral: old.is_some_and(|old| old.is_ephemeral),
            })
        };
        self.writes.iter().filter_map(unrecorded).collect()
    }

    /// Returns the devices of the entry.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.writes.keys().map(|node| NodeId(node.into()))
    }

    /// Returns the size in the item, or a little more.
    pub fn stored_bytes(&self) -> usize {
        let writes = self.writes.iter();
        let bytes = writes.map(|(node, write)| node.len() + write.line_bytes() + 2);
        ENTRY_BYTES + bytes.sum::<usize>()
    }
}

impl PendingWrite {
    /// Returns the full name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the size of the stored line.
    fn line_bytes(&self) -> usize {
        let new = self.new.as_ref().map_or(0, |new| {
            new.key.as_str().len() + new.aid.to_string().len() + new.serial.len() + 3 + 4
        });
        self.name.len() + self.hostname.len() + 1 + new
    }
}

/// Splits the changes into batches of at most `max_changes`, whose entries take at most `max_bytes` each.
pub fn batches(
    changes: &[Change],
    max_changes: usize,
    max_bytes: usize,
) -> impl Iterator<Item = &[Change]> {
    let max_bytes = max_bytes.saturating_sub(ENTRY_BYTES);
    let bytes_of = |change: &Change| {
        let entry = JournalEntry::new("", std::slice::from_ref(change), Timestamp::UNIX_EPOCH);
        entry.stored_bytes() - ENTRY_BYTES
    };
    batch::batches(changes, max_changes, max_bytes, bytes_of)
}

/// Returns the device of each pending removal.
pub fn pending_removals(journal: &Journal) -> impl Iterator<Item = NodeId> {
    let writes = journal.values().flat_map(|entry| &entry.writes);
    let removals = writes.filter(|(_, write)| write.new.is_none());
    removals.map(|(node, _)| NodeId(node.into()))
}

/// Judges a write by what its device holds now: all of its attributes, or `None` if it has left the tailnet.
pub fn write_outcome(
    change: &Change,
    held: Option<&HeldAttributes>,
    now: Timestamp,
) -> WriteOutcome {
    let Some(held) = held else {
        return WriteOutcome::Unknown;
    };
    if let (true, Some(new)) = (change.is_renewal(), &change.new) {
        // The value is the same in both cases, so the end tells. If it is not the new one, the record stays right.
        let is_made = held.holds(&new.key, Some(new.score)) && held.expiry(&new.key) == new.expiry;
        return if is_made {
            WriteOutcome::Made
        } else {
            WriteOutcome::NotMade
        };
    }
    // An expiry looks like a removal that was made, and like a write that was not made.
    let last = match (&change.new, &change.old) {
        (Some(new), _) => Some((&new.key, new.expiry)),
        (None, Some(old)) => Some((&old.key, old.expiry)),
        (None, None) => None,
    };
    if let Some((key, Some(end))) = last
        && end <= now
        && held.holds(key, None)
    {
        return WriteOutcome::Unknown;
    }
    let is_made = match (&change.new, &change.old) {
        (Some(new), _) => held.holds(&new.key, Some(new.score)),
        (None, Some(old)) => held.holds(&old.key, None),
        (None, None) => false,
    };
    let holds_old = |old: &NodeRecord| {
        let score = (!old.has_expired(now)).then_some(old.score);
        held.holds(&old.key, score)
    };
    let is_as_before = match (&change.old, &change.new) {
        (Some(old), Some(new)) if old.key != new.key => {
            holds_old(old) && held.holds(&new.key, None)
        }
        (Some(old), _) => holds_old(old),
        (None, Some(new)) => held.holds(&new.key, None),
        (None, None) => true,
    };
    if is_made {
        WriteOutcome::Made
    } else if is_as_before {
        WriteOutcome::NotMade
    } else {
        WriteOutcome::Unknown
    }
}
