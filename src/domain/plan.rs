//! What to change, as an ordered value that prints. Applying it makes no choices.

pub mod confirm;
pub mod deprovision;
pub mod guard;
pub mod journal;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::matching::{Evidence, MatchOutcome, Matches};
use crate::settings::{AttributeKey, OnMissing};

/// What this integration last wrote to a device: the decisive part of its node record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// The attribute's key.
    #[serde(rename = "attributeKey")]
    pub key: AttributeKey,
    /// Its value.
    pub score: Score,
    /// The host it came from.
    pub aid: Aid,
    /// The serial that led there, in normal form.
    pub serial: SmolStr,
    /// The device's name at that time.
    pub name: SmolStr,
    /// When it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Timestamp>,
    /// The run that wrote it: the record is ours to replace only while it still names this run.
    pub run_id: SmolStr,
}

/// The records of an integration by node.
pub type NodeRecords = BTreeMap<NodeId, NodeRecord>;

/// One device's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The device.
    pub node_id: NodeId,
    /// Its name in the tailnet.
    pub name: SmolStr,
    /// Its own host name.
    pub hostname: SmolStr,
    /// What is written now.
    pub old: Option<NodeRecord>,
    /// What shall be written; none takes the attribute away.
    pub new: Option<DesiredAttribute>,
    /// Why, as a sentence about the device.
    pub reason: String,
}

/// An attribute to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredAttribute {
    /// Its key.
    pub key: AttributeKey,
    /// Its value.
    pub score: Score,
    /// The host it comes from.
    pub aid: Aid,
    /// The serial that led there, in normal form.
    pub serial: SmolStr,
    /// The name of that host, where it is known.
    pub falcon_hostname: Option<SmolStr>,
}

impl Change {
    /// Whether it takes the attribute away.
    pub fn is_removal(&self) -> bool {
        self.new.is_none()
    }

    /// The key that must be deleted: that of an attribute which goes, or which moves to another key.
    pub fn key_to_delete(&self) -> Option<&AttributeKey> {
        let old = &self.old.as_ref()?.key;
        (self.new.as_ref().map(|new| &new.key) != Some(old)).then_some(old)
    }
}

/// All that a run means to do, in the order of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Attributes to set, to move or to take away.
    pub changes: Vec<Change>,
    /// Devices whose attribute is right as it is.
    pub unchanged: usize,
    /// Of those, the devices that keep a score although there is none for them any more (`onMissing: keep`).
    pub kept: Vec<NodeId>,
    /// Records of devices that have left the tailnet, and their attributes with them.
    pub departed: Vec<NodeId>,
}

impl Plan {
    /// The removals in it.
    pub fn removals(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_removal())
    }

    /// The plan without these devices: neither is their attribute changed nor their record forgotten.
    #[must_use]
    pub fn without_devices<T>(mut self, nodes: &BTreeMap<NodeId, T>) -> Self {
        self.changes
            .retain(|change| !nodes.contains_key(&change.node_id));
        self.departed.retain(|node| !nodes.contains_key(node));
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.departed.is_empty()
    }
}

/// Compares what each device deserves with what is written.
pub fn plan(
    joined: &Matches,
    devices: &Devices,
    records: &NodeRecords,
    key: &AttributeKey,
    on_missing: OnMissing,
) -> Plan {
    let mut plan = Plan::default();
    let mut written = records.iter().peekable();
    for (node_id, outcome) in &joined.outcomes {
        while let Some((departed, _)) = written.next_if(|(written, _)| *written < node_id) {
            plan.departed.push(departed.clone());
        }
        let old = written.next_if(|(written, _)| *written == node_id);
        let old = old.map(|(_, old)| old);
        let score = match (outcome, old) {
            (MatchOutcome::Scored(evidence), _) => Some(evidence.score),
            (_, None) => continue,
            (_, Some(old)) if on_missing == OnMissing::Keep => Some(old.score),
            (_, Some(_)) => None,
        };
        if old.is_some_and(|old| old.key == *key && Some(old.score) == score) {
            plan.unchanged += 1;
            if !matches!(outcome, MatchOutcome::Scored(_)) {
                plan.kept.push(node_id.clone());
            }
            continue;
        }
        let new = match (outcome, old) {
            (MatchOutcome::Scored(evidence), _) => {
                Some(DesiredAttribute::from_evidence(key, evidence))
            }
            (_, Some(old)) if score.is_some() => Some(DesiredAttribute::kept(key, old)),
            _ => None,
        };
        let device = devices.get(node_id);
        let name = |of: fn(&Device) -> &SmolStr| device.map(of).cloned().unwrap_or_default();
        plan.changes.push(Change {
            node_id: node_id.clone(),
            name: name(|device| &device.name),
            hostname: name(|device| &device.hostname),
            old: old.cloned(),
            new,
            reason: outcome.to_string(),
        });
    }
    plan.departed
        .extend(written.map(|(departed, _)| departed.clone()));
    plan
}

impl DesiredAttribute {
    fn from_evidence(key: &AttributeKey, evidence: &Evidence) -> Self {
        Self {
            key: key.clone(),
            score: evidence.score,
            aid: evidence.aid.clone(),
            serial: evidence.serial.text().clone(),
            falcon_hostname: evidence.hostname.clone(),
        }
    }

    fn kept(key: &AttributeKey, old: &NodeRecord) -> Self {
        Self {
            key: key.clone(),
            score: old.score,
            aid: old.aid.clone(),
            serial: old.serial.clone(),
            falcon_hostname: None,
        }
    }
}

impl fmt::Display for Plan {
    /// One line for each change: `+` sets, `~` changes or moves, `-` takes away; then the rest in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for node_id in &self.departed {
            writeln!(f, "x {node_id} has left the tailnet")?;
        }
        write!(f, "= {} unchanged", self.unchanged)?;
        if !self.kept.is_empty() {
            write!(f, ", {} of them kept without a score", self.kept.len())?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node_id,
            name,
            reason,
            ..
        } = self;
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "+ {node_id} {name}: {} {}", new.key, new.score)?,
            (Some(old), Some(new)) if old.key == new.key => {
                write!(
                    f,
                    "~ {node_id} {name}: {} {} -> {}",
                    new.key, old.score, new.score
                )?;
            }
            (Some(old), Some(new)) => write!(
                f,
                "~ {node_id} {name}: {} {} -> {} {}",
                old.key, old.score, new.key, new.score
            )?,
            (Some(old), None) => write!(f, "- {node_id} {name}: {} {}", old.key, old.score)?,
            (None, None) => write!(f, "  {node_id} {name}")?,
        }
        write!(f, " ({reason})")
    }
}
