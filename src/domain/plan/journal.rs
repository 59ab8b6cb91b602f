//! What a run is about to write, kept until it is recorded.
//!
//! Between Tailscale's yes and the transaction that records it, a run can die. What it meant to write is stored before,
//! so that the next run can ask the devices what they hold, and record what was accepted: the audit trail then tells
//! every change once, even where the scores have moved on meanwhile.
//!
//! Several calls are under way at once. Each has a note of its own, which goes when the call's changes are recorded: so
//! no call waits for another one's.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;

use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::{Change, DesiredAttribute, NodeRecords};
use crate::settings::AttributeKey;
use crate::text::sanitize;

/// How much of a name is noted: names are the devices' own words.
const NAME_CHARS: usize = 100;

/// Serials have at most so many characters, and none that does not show; but a record may be anybody's.
const SERIAL_CHARS: usize = 128;

/// All notes of a run are no larger: an item holds 400 kB, and the rest of it takes some 20.
const NOTED_BYTES: usize = 280_000;

/// What a run means to do to one device.
///
/// It is stored as a line, `name`, `hostname` and, unless the attribute goes, `key`, `score`, `aid` and `serial`, with
/// tabs between them, which none of them can hold. A list of them takes a fifth more room and several times the work, and a
/// run writes thousands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PendingWrite {
    /// Its name in the tailnet.
    name: SmolStr,
    /// Its own host name.
    hostname: SmolStr,
    /// What it shall have; nothing takes the attribute away.
    new: Option<Intended>,
}

/// The attribute's key, the score, and the sensor and serial that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intended {
    key: AttributeKey,
    score: Score,
    aid: Aid,
    serial: SmolStr,
}

/// A line that is no intent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "accepted is `name`, `hostname` and, unless the attribute goes, `key`, `score`, `aid` and `serial`, with tabs \
     between them"
)]
pub struct InvalidPendingWrite;

impl From<PendingWrite> for String {
    fn from(intent: PendingWrite) -> Self {
        let PendingWrite {
            name,
            hostname,
            new,
        } = intent;
        match new {
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
        let new = match fields.get(2..) {
            Some([]) => None,
            Some([key, score, aid, serial]) => {
                let score = score.parse().ok().and_then(Score::new);
                Some(Intended {
                    key: (*key)
                        .to_owned()
                        .try_into()
                        .map_err(|_| InvalidPendingWrite)?,
                    score: score.ok_or(InvalidPendingWrite)?,
                    aid: Aid::from(*aid),
                    serial: (*serial).into(),
                })
            }
            _ => return Err(InvalidPendingWrite),
        };
        Ok(Self {
            name: fields[0].into(),
            hostname: fields[1].into(),
            new,
        })
    }
}

/// The intents of one run, by node.
pub type JournalEntry = BTreeMap<String, PendingWrite>;

/// What runs have left open, by the names of the notes.
pub type Journal = BTreeMap<String, JournalEntry>;

/// The name of one of a run's notes: the run's id, and a number for all but the first (`…#1`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalKey(String);

impl JournalKey {
    /// The name of a run's nth note, from 0.
    pub fn of(run_id: &str, n: usize) -> Self {
        match n {
            0 => Self(run_id.to_owned()),
            n => Self(format!("{run_id}#{n}")),
        }
    }

    /// The name as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The run that left a note.
pub fn run_of(note: &str) -> &str {
    note.split_once('#').map_or(note, |(run, _)| run)
}

impl fmt::Display for JournalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What these changes mean to do.
pub fn intents(changes: &[Change]) -> JournalEntry {
    let intent = |change: &Change| {
        let (name, hostname) = names(change);
        PendingWrite {
            name,
            hostname,
            new: change.new.as_ref().map(|new| Intended {
                key: new.key.clone(),
                score: new.score,
                aid: new.aid.clone(),
                serial: sanitize(&new.serial, SERIAL_CHARS).into(),
            }),
        }
    };
    changes
        .iter()
        .map(|change| (change.node_id.to_string(), intent(change)))
        .collect()
}

fn names(change: &Change) -> (SmolStr, SmolStr) {
    (
        sanitize(&change.name, NAME_CHARS).into(),
        sanitize(&change.hostname, NAME_CHARS).into(),
    )
}

/// The changes in parts of so many at most. Notes of so many of the parts fit into the integration's item together.
pub fn parts(changes: &[Change], most: usize, notes: usize) -> impl Iterator<Item = &[Change]> {
    let room = NOTED_BYTES / notes.max(1);
    let mut rest = changes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |change: &&Change| {
            bytes += noted_bytes(change);
            bytes <= room
        };
        let count = rest.iter().take(most).take_while(fits).count();
        let (part, others) = rest.split_at(count.max(1).min(rest.len()));
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// What the note of a change takes in the item, by DynamoDB's rules: the texts, and one byte.
fn noted_bytes(change: &Change) -> usize {
    let (name, hostname) = names(change);
    let new = change.new.as_ref().map_or(0, |new| {
        new.key.as_str().len() + new.aid.to_string().len() + new.serial.len() + 8
    });
    change.node_id.0.len() + name.len() + hostname.len() + new + 2
}

impl PendingWrite {
    /// The change, unless the record says that it is made and recorded, or that there is nothing to take away.
    fn change(&self, run_id: &str, node_id: &NodeId, records: &NodeRecords) -> Option<Change> {
        let old = records.get(node_id);
        let Self {
            name,
            hostname,
            new,
        } = self;
        let new = new.as_ref().map(|new| DesiredAttribute {
            key: new.key.clone(),
            score: new.score,
            aid: new.aid.clone(),
            serial: new.serial.clone(),
            falcon_hostname: None,
        });
        let recorded = match (old, &new) {
            (None, None) => true,
            (Some(old), Some(new)) => old.key == new.key && old.score == new.score,
            _ => false,
        };
        (!recorded).then(|| Change {
            node_id: node_id.clone(),
            name: name.clone(),
            hostname: hostname.clone(),
            old: old.cloned(),
            new,
            reason: format!("found in the tailnet: run {run_id} wrote it and could not record it"),
        })
    }
}

/// What one run may have changed without having recorded it.
pub fn unrecorded(run_id: &str, intents: &JournalEntry, records: &NodeRecords) -> Vec<Change> {
    intents
        .iter()
        .filter_map(|(node, intent)| intent.change(run_id, &NodeId(node.into()), records))
        .collect()
}

/// Whether a device holds what a change was to bring about. `attributes` are all that it has, by key.
pub fn is_made(change: &Change, attributes: &BTreeMap<String, Value>) -> bool {
    let holds = |key: &AttributeKey| attributes.get(key.as_str());
    match (&change.old, &change.new) {
        (_, Some(new)) => holds(&new.key).and_then(Value::as_f64) == Some(new.score.get().into()),
        (Some(old), None) => holds(&old.key).is_none(),
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
        }
    }

    #[test]
    fn notes_fit_into_an_item_whatever_the_names() {
        for (name, at_least) in [
            ("laptop.tail1234.ts.net", 1_500),
            ("\u{1F980}".repeat(300).as_str(), 200),
        ] {
            let changes: Vec<Change> = (0..5_000).map(|n| change(n, name)).collect();
            for notes in [1, 4] {
                let parts: Vec<&[Change]> = parts(&changes, 2_000 / notes, notes).collect();
                assert_eq!(parts.concat(), changes);
                for part in &parts {
                    let note = serde_json::to_vec(&intents(part)).unwrap();
                    // JSON has quotes and commas beside what DynamoDB counts.
                    assert!(note.len() < 340_000 / notes, "{}", note.len());
                    assert!(part.len() <= 2_000 / notes);
                }
                assert!(parts[0].len() >= at_least / notes, "{}", parts[0].len());
            }
        }
        assert_eq!(parts(&[], 10, 4).count(), 0);
    }

    #[test]
    fn a_note_tells_its_run() {
        for n in [0, 1, 12] {
            let name = JournalKey::of("8476a536-e9f4-11e8-9739-2dfe598c3fcd", n);
            assert_eq!(
                run_of(name.as_str()),
                "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
            );
        }
        assert_eq!(JournalKey::of("a", 0).as_str(), "a");
        assert_ne!(JournalKey::of("a", 1), JournalKey::of("a", 2));
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let changes = [
            change(1, "a"),
            Change {
                new: None,
                ..change(2, "b")
            },
        ];
        let noted = intents(&changes);
        let text = serde_json::to_string(&noted).unwrap();
        assert!(text.contains(r#":"b\tb""#), "{text}");
        let read: JournalEntry = serde_json::from_str(&text).unwrap();
        assert_eq!(read, noted);
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
