//! What a run is about to write, kept until it is recorded.
//!
//! Between Tailscale's yes and the transaction that records it, a run can die. What it meant to write is stored before,
//! so that the next run can ask the devices what they hold, and record what was accepted: the audit trail then tells
//! every change once, even where the scores have moved on meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::device::NodeId;
use crate::domain::host::{Aid, Score};
use crate::domain::plan::{Change, Records, Target};
use crate::error::plain;
use crate::integration::AttributeKey;

/// How much of a name is noted: an item holds 400 kB, and names are the devices' own words.
const NAME_CHARS: usize = 100;

/// What a run means to do to one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// Its name in the tailnet.
    name: String,
    /// Its own host name.
    hostname: String,
    /// What it shall have; nothing takes the attribute away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<Intended>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intended {
    attribute_key: AttributeKey,
    score: i64,
    aid: String,
    serial: String,
}

/// The intents of one run, by node.
pub type Intents = BTreeMap<String, Intent>;

/// What runs have left open, by run.
pub type Pending = BTreeMap<String, Intents>;

/// What these changes mean to do.
pub fn intents(changes: &[Change]) -> Intents {
    let intent = |change: &Change| Intent {
        name: plain(&change.name, NAME_CHARS),
        hostname: plain(&change.hostname, NAME_CHARS),
        new: change.new.as_ref().map(|new| Intended {
            attribute_key: new.key.clone(),
            score: new.score.get().into(),
            aid: new.aid.0.clone(),
            serial: new.serial.clone(),
        }),
    };
    changes
        .iter()
        .map(|change| (change.node_id.0.clone(), intent(change)))
        .collect()
}

impl Intent {
    /// The change, unless the record says that it is made and recorded, or that there is nothing to take away.
    fn change(&self, run_id: &str, node_id: &NodeId, records: &Records) -> Option<Change> {
        let old = records.get(node_id);
        let new = match &self.new {
            None => None,
            Some(new) => Some(Target {
                key: new.attribute_key.clone(),
                score: Score::new(new.score)?,
                aid: Aid(new.aid.clone()),
                serial: new.serial.clone(),
                falcon_hostname: None,
            }),
        };
        let recorded = match (old, &new) {
            (None, None) => true,
            (Some(old), Some(new)) => old.key == new.key && old.score == new.score,
            _ => false,
        };
        (!recorded).then(|| Change {
            node_id: node_id.clone(),
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            old: old.cloned(),
            new,
            reason: format!("found in the tailnet: run {run_id} wrote it and could not record it"),
        })
    }
}

/// What one run may have changed without having recorded it.
pub fn unrecorded(run_id: &str, intents: &Intents, records: &Records) -> Vec<Change> {
    intents
        .iter()
        .filter_map(|(node, intent)| intent.change(run_id, &NodeId(node.clone()), records))
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
