//! What to change, as an ordered value that prints. Applying it makes no choices.

pub mod deprovision;
pub mod guard;
pub mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Device, Devices, Identity, NodeId};
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
    pub fn deleted_key(&self) -> Option<&AttributeKey> {
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

    /// The plan without the changes that rest on something unconfirmed.
    #[must_use]
    pub fn without(mut self, doubts: &Unconfirmed) -> Self {
        self.changes
            .retain(|change| !doubts.changes.contains(&change.node_id));
        self.departed.retain(|node| !doubts.departed.contains(node));
        self
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
            (MatchOutcome::Scored(evidence), _) => Some(DesiredAttribute::deserved(key, evidence)),
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
    fn deserved(key: &AttributeKey, evidence: &Evidence) -> Self {
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

/// What must be looked up directly before the plan is believed: hosts and scores move while they are paged through, so
/// one that a crawl lacks may still be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The nodes whose change rests on something that was not seen.
    pub changes: BTreeSet<NodeId>,
    /// Serials of devices that would lose their attribute for want of a host, as reported and in normal form.
    pub serials: BTreeSet<String>,
    /// Sensors to look up as hosts.
    pub hosts: BTreeSet<Aid>,
    /// Sensors to look up as assessments.
    pub scores: BTreeSet<Aid>,
    /// Nodes with a record that the listing lacks.
    pub departed: BTreeSet<NodeId>,
}

impl Unconfirmed {
    /// Whether all was seen.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.departed.is_empty()
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.changes.extend(other.changes);
        self.serials.extend(other.serials);
        self.hosts.extend(other.hosts);
        self.scores.extend(other.scores);
        self.departed.extend(other.departed);
        self
    }
}

/// What is doubtful in a plan. Asked a second time, with the hosts that were found, it names the scores to look up.
pub fn doubts(plan: &Plan, joined: &Matches, devices: &Devices) -> Unconfirmed {
    let mut doubts = Unconfirmed {
        departed: plan.departed.iter().cloned().collect(),
        ..Unconfirmed::default()
    };
    for change in &plan.changes {
        match joined.outcomes.get(&change.node_id) {
            Some(MatchOutcome::Unmatched { serials }) => {
                doubts
                    .serials
                    .extend(serials.iter().map(ToString::to_string));
                if let Some(Identity::Serials(texts)) =
                    devices.get(&change.node_id).map(|d| &d.identity)
                {
                    // Whether Falcon's filter folds case is not documented, so the text goes as reported, too.
                    doubts
                        .serials
                        .extend(texts.iter().map(|text| text.trim().to_owned()));
                }
                if let Some(old) = &change.old {
                    doubts.hosts.insert(old.aid.clone());
                    doubts.scores.insert(old.aid.clone());
                }
                doubts.changes.insert(change.node_id.clone());
            }
            Some(MatchOutcome::Unassessed { aids }) => {
                doubts.scores.extend(aids.iter().cloned());
                doubts.changes.insert(change.node_id.clone());
            }
            Some(MatchOutcome::Scored(evidence)) => {
                // Another host decides than before: if that one is only missing from the listing, its lower score counts.
                let former = change.old.as_ref().map(|old| &old.aid);
                let replaced = former.filter(|aid| **aid != evidence.aid);
                if replaced.is_some() || !evidence.unassessed.is_empty() {
                    doubts.changes.insert(change.node_id.clone());
                }
                doubts.hosts.extend(replaced.cloned());
                doubts
                    .scores
                    .extend(evidence.unassessed.iter().chain(replaced).cloned());
            }
            Some(
                MatchOutcome::Stale { .. }
                | MatchOutcome::NoSerial { .. }
                | MatchOutcome::NoIdentity { .. }
                | MatchOutcome::External,
            )
            | None => {}
        }
    }
    doubts
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
