//! Write-ahead journal of a run.
//!
//! A run can die after Tailscale accepted a write and before it is recorded, so the intended writes are stored first. The
//! next run asks the devices what they hold and records what was accepted: the audit trail then tells every change once,
//! even if the scores have changed since.
//!
//! Several batches are written concurrently. Each has an entry of its own, which is removed when the batch is recorded, so
//! no batch waits for another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;

use crate::batch;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::inventory::serial::Serial;
use crate::domain::plan::{Change, DesiredAttribute, NodeRecords};
use crate::settings::AttributeKey;
use crate::text::sanitize;

/// Maximum characters of a name: devices choose their names.
const MAX_NAME_CHARS: usize = 100;

/// Maximum bytes of all entries of a run: an item holds 400 kB, and the rest of it takes some 20.
const MAX_JOURNAL_BYTES: usize = 280_000;

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

/// The pending writes of one batch, by node.
pub type JournalEntry = BTreeMap<String, PendingWrite>;

/// The entries of an integration, by key.
pub type Journal = BTreeMap<String, JournalEntry>;

/// Returns the key of a run's nth entry: the run's id, with a number for all entries but the first (`…#1`).
pub fn journal_key(run_id: &str, n: usize) -> String {
    match n {
        0 => run_id.to_owned(),
        n => format!("{run_id}#{n}"),
    }
}

/// Returns the id of the run that stored an entry.
pub fn run_id_of(key: &str) -> &str {
    key.split_once('#').map_or(key, |(run_id, _)| run_id)
}

/// Creates the entry of a batch.
pub fn journal_entry(batch: &[Change]) -> JournalEntry {
    let write = |change: &Change| PendingWrite {
        name: sanitize(&change.name, MAX_NAME_CHARS).into(),
        hostname: sanitize(&change.hostname, MAX_NAME_CHARS).into(),
        new: change.new.as_ref().map(|new| DesiredAttribute {
            // A valid serial is no longer, but a record may have been edited.
            serial: sanitize(&new.serial, Serial::MAX_CHARS).into(),
            falcon_hostname: None,
            ..new.clone()
        }),
    };
    batch
        .iter()
        .map(|change| (change.node_id.to_string(), write(change)))
        .collect()
}

/// Splits the changes into batches of at most `max_changes`, such that `entries` entries fit into the integration's item
/// together.
pub fn batches(
    changes: &[Change],
    max_changes: usize,
    entries: usize,
) -> impl Iterator<Item = &[Change]> {
    let max_bytes = MAX_JOURNAL_BYTES / entries.max(1);
    batch::batches(changes, max_changes, max_bytes, stored_bytes)
}

/// Returns the size of a change in the item by DynamoDB's rules: the texts and one byte.
fn stored_bytes(change: &Change) -> usize {
    let name_bytes = |name: &str| sanitize(name, MAX_NAME_CHARS).len();
    let new = change.new.as_ref().map_or(0, |new| {
        new.key.as_str().len() + new.aid.to_string().len() + new.serial.len() + 8
    });
    change.node_id.0.len() + name_bytes(&change.name) + name_bytes(&change.hostname) + new + 2
}

/// Returns the changes of an entry that its run may have made and did not record.
pub fn unrecorded(run_id: &str, entry: &JournalEntry, records: &NodeRecords) -> Vec<Change> {
    let unrecorded = |(node, write): (&String, &PendingWrite)| {
        let node_id = NodeId(node.into());
        let old = records.get(&node_id);
        let is_recorded = match (old, &write.new) {
            // There was nothing to remove.
            (None, None) => true,
            (Some(old), Some(new)) => old.key == new.key && old.score == new.score,
            _ => false,
        };
        (!is_recorded).then(|| Change {
            node_id,
            name: write.name.clone(),
            hostname: write.hostname.clone(),
            old: old.cloned(),
            new: write.new.clone(),
            reason: format!("found in the tailnet: run {run_id} wrote it and could not record it"),
            is_approved: false,
            is_ephemeral: old.is_some_and(|old| old.is_ephemeral),
        })
    };
    entry.iter().filter_map(unrecorded).collect()
}

/// Returns the device of each pending removal.
pub fn pending_removals(journal: &Journal) -> impl Iterator<Item = NodeId> {
    let writes = journal.values().flatten();
    let removals = writes.filter(|(_, write)| write.new.is_none());
    removals.map(|(node, _)| NodeId(node.into()))
}

/// Returns true if a device holds the result of a change. `attributes` are all of the device's, by key.
pub fn is_applied(change: &Change, attributes: &BTreeMap<String, Value>) -> bool {
    let value_of = |key: &AttributeKey| attributes.get(key.as_str());
    match (&change.old, &change.new) {
        (_, Some(new)) => {
            value_of(&new.key).and_then(Value::as_f64) == Some(new.score.get().into())
        }
        (Some(old), None) => value_of(&old.key).is_none(),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: usize, name: &str) -> Change {
        Change {
            node_id: NodeId(format!("n{n:016}").into()),
            name: name.into(),
            hostname: name.into(),
            old: None,
            new: Some(DesiredAttribute {
                key: "custom:ztaScore".to_owned().try_into().unwrap(),
                score: Score::new(70).unwrap(),
                aid: Aid::from("4a027b0c95404062be4148c989dcf4c1"),
                serial: "C02D91CNPV4M".into(),
                falcon_hostname: None,
            }),
            reason: String::new(),
            is_approved: false,
            is_ephemeral: false,
        }
    }

    #[test]
    fn entries_fit_into_an_item_whatever_the_names() {
        for (name, at_least) in [
            ("laptop.tail1234.ts.net", 1_500),
            ("\u{1F980}".repeat(300).as_str(), 200),
        ] {
            let changes: Vec<Change> = (0..5_000).map(|n| change(n, name)).collect();
            for entries in [1, 4] {
                let batches: Vec<&[Change]> = batches(&changes, 2_000 / entries, entries).collect();
                assert_eq!(batches.concat(), changes);
                for batch in &batches {
                    let entry = serde_json::to_vec(&journal_entry(batch)).unwrap();
                    // JSON has quotes and commas, which DynamoDB does not count.
                    assert!(entry.len() < 340_000 / entries, "{}", entry.len());
                    assert!(batch.len() <= 2_000 / entries);
                }
                assert!(
                    batches[0].len() >= at_least / entries,
                    "{}",
                    batches[0].len()
                );
            }
        }
        assert_eq!(batches(&[], 10, 4).count(), 0);
    }

    #[test]
    fn a_key_tells_its_run() {
        for n in [0, 1, 12] {
            let key = journal_key("8476a536-e9f4-11e8-9739-2dfe598c3fcd", n);
            assert_eq!(run_id_of(&key), "8476a536-e9f4-11e8-9739-2dfe598c3fcd");
        }
        assert_eq!(journal_key("a", 0), "a");
        assert_ne!(journal_key("a", 1), journal_key("a", 2));
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let changes = [
            change(1, "a"),
            Change {
                new: None,
                ..change(2, "b")
            },
        ];
        let entry = journal_entry(&changes);
        let text = serde_json::to_string(&entry).unwrap();
        assert!(text.contains(r#":"b\tb""#), "{text}");
        let read: JournalEntry = serde_json::from_str(&text).unwrap();
        assert_eq!(read, entry);
        for line in [
            "a",
            "a\tb\tc",
            "a\tb\tcustom:a\t101\tc\td",
            "a\tb\tc\t1\tc\td",
        ] {
            let text = format!(r#"{{"n1":{}}}"#, serde_json::to_string(line).unwrap());
            assert!(
                serde_json::from_str::<JournalEntry>(&text).is_err(),
                "{line}"
            );
        }
    }
}
