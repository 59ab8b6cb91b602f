//! The plan of a run: the attributes to change, as an ordered value that prints. Applying it makes no choices.

pub mod absence;
pub mod confirm;
pub mod deprovision;
pub mod guard;
pub mod journal;
pub mod lifetime;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::inventory::record::{Absence, ExpiredRecords, NodeRecord, NodeRecords};
use crate::domain::matching::{Evidence, MatchOutcome, Matches};
use crate::domain::plan::lifetime::Lifetime;
use crate::domain::status::finding::{Finding, FindingKind};
use crate::settings::{AttributeKey, OnMissing};

/// A change to the attribute of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The device to change.
    pub node_id: NodeId,
    /// The full name in the tailnet.
    pub name: SmolStr,
    /// The host name that the machine gives itself.
    pub hostname: SmolStr,
    /// The present record, if any.
    pub old: Option<NodeRecord>,
    /// The run of the record that the change replaces, if the attribute of that record has expired.
    pub expired: Option<SmolStr>,
    /// The attribute to write; `None` removes it.
    pub new: Option<DesiredAttribute>,
    /// The reason, as a sentence about the device.
    pub reason: String,
    /// True if a person let the change pass. It does not count towards the removals of 24 hours.
    pub is_approved: bool,
    /// True for a removal that waits for no second look.
    pub is_immediate: bool,
    /// True if the tailnet forgets the device as soon as it disconnects.
    pub is_ephemeral: bool,
}

/// An attribute to write, with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredAttribute {
    /// The key of the attribute.
    pub key: AttributeKey,
    /// The value of the attribute.
    pub score: Score,
    /// The host that decides the score.
    pub aid: Aid,
    /// The serial of the match, in normal form.
    pub serial: SmolStr,
    /// The name of the host, if it is known.
    pub falcon_hostname: Option<SmolStr>,
    /// When Tailscale removes the attribute, unless a run renews it before. A run always names an end; what a device is found
    /// to hold may have none.
    pub expiry: Option<Timestamp>,
}

impl Change {
    /// Returns when the device was first found absent; `now` if this run is the first.
    pub(crate) fn absent_since(&self, now: Timestamp) -> Timestamp {
        self.absence().map_or(now, |absence| absence.since)
    }

    /// Returns when the guard first held the removal, if it did.
    pub(crate) fn held_since(&self) -> Option<Timestamp> {
        self.absence()?.held_since
    }

    fn absence(&self) -> Option<Absence> {
        self.old.as_ref()?.absence
    }

    /// Returns true if the score rises, or is the first one.
    pub fn raises(&self) -> bool {
        let old = self.old.as_ref().map(|old| old.score);
        self.new.as_ref().is_some_and(|new| Some(new.score) > old)
    }

    /// Returns true if the attribute keeps its value and gets another end.
    pub fn is_renewal(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else {
            return false;
        };
        old.key == new.key && old.score == new.score
    }

    /// Returns true if the attribute is removed.
    pub fn is_removal(&self) -> bool {
        self.new.is_none()
    }

    /// Returns the key to delete: that of an attribute that is removed or moves to another key.
    pub fn key_to_delete(&self) -> Option<&AttributeKey> {
        let old = &self.old.as_ref()?.key;
        (self.new.as_ref().map(|new| &new.key) != Some(old)).then_some(old)
    }
}

/// All changes of a run, in the order of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Attributes to set, move or remove.
    pub changes: Vec<Change>,
    /// Attributes that keep their value and get another end.
    pub renewals: Vec<Change>,
    /// The number of devices whose attribute has the right value.
    pub unchanged: usize,
    /// Unchanged devices that keep a score although they have none any more (`onMissing: keep`).
    pub kept: Vec<NodeId>,
    /// Recorded devices that have left the tailnet. Their attributes left with them; their records are deleted.
    pub departed: Vec<NodeId>,
    /// Devices whose attribute has expired and which get no other one. Their records are deleted.
    pub expired: Vec<NodeId>,
    /// Devices that are present again after an absence, and whose attribute is up to date.
    pub returned: Vec<NodeId>,
}

impl Plan {
    /// Iterates over the changes that remove an attribute.
    pub fn removals(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_removal())
    }

    /// Returns the change of a device.
    pub(crate) fn change(&self, node_id: &NodeId) -> Option<&Change> {
        find(&self.changes, node_id)
    }

    /// Returns the change or the renewal of a device.
    pub(crate) fn write(&self, node_id: &NodeId) -> Option<&Change> {
        self.change(node_id)
            .or_else(|| find(&self.renewals, node_id))
    }

    /// Leaves out these devices: neither their attribute nor their record changes.
    #[must_use]
    pub fn without_devices<'a>(mut self, nodes: impl IntoIterator<Item = &'a NodeId>) -> Self {
        let nodes: BTreeSet<&NodeId> = nodes.into_iter().collect();
        self.changes
            .retain(|change| !nodes.contains(&change.node_id));
        self.renewals
            .retain(|renewal| !nodes.contains(&renewal.node_id));
        self.departed.retain(|node| !nodes.contains(node));
        self.expired.retain(|node| !nodes.contains(node));
        self.returned.retain(|node| !nodes.contains(node));
        self
    }

    /// Returns true if the plan changes nothing.
    pub fn is_empty(&self) -> bool {
        let Self {
            changes, renewals, ..
        } = self;
        changes.is_empty()
            && renewals.is_empty()
            && self.departed.is_empty()
            && self.expired.is_empty()
    }
}

/// The settings and the time that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct PlanRules<'a> {
    /// The attribute to write.
    pub key: &'a AttributeKey,
    /// The fate of a device's attribute when the device has no score any more.
    pub on_missing: OnMissing,
    /// How long the scores last that the run writes.
    pub lifetime: Lifetime,
}

/// Compares the outcome of each device with its record. The devices in `expired` count as without a record.
///
/// ```
/// use falcon_posture_sync::domain::inventory::device::{
///     Device, Devices, Identity, NodeId, Presence,
/// };
/// use falcon_posture_sync::domain::inventory::host::{
///     Aid, Assessment, FalconInventory, Host, Score,
/// };
/// use falcon_posture_sync::domain::inventory::platform::Platform;
/// use falcon_posture_sync::domain::inventory::serial::Serial;
/// use falcon_posture_sync::domain::matching::{MatchRules, join};
/// use falcon_posture_sync::domain::inventory::record::NodeRecords;
/// use falcon_posture_sync::domain::inventory::record::ExpiredRecords;
/// use falcon_posture_sync::domain::plan::lifetime::Lifetime;
/// use falcon_posture_sync::domain::plan::{PlanRules, plan};
/// use falcon_posture_sync::settings::OnMissing;
/// use jiff::Timestamp;
///
/// let now: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
/// let aid = Aid::from("4a027b0c95404062be4148c989dcf4c1");
/// let host = Host {
///     aid: aid.clone(),
///     serial: Serial::parse("C02D91CNPV4M").ok(),
///     hostname: None,
///     first_seen: None,
///     last_seen: Some(now),
///     platform: Platform::MacOs,
///     is_contained: false,
/// };
/// let score = Assessment::Score(Score::new(71).unwrap());
/// let mut falcon = FalconInventory::default();
/// falcon.extend([(aid.clone(), host)].into(), [(aid, score)].into());
///
/// let device = Device {
///     node_id: NodeId("nA".into()),
///     name: "laptop.tail1.ts.net".into(),
///     hostname: "laptop".into(),
///     user: "amelie@example.com".into(),
///     os: "macOS".into(),
///     is_external: false,
///     is_ephemeral: false,
///     presence: Presence::Connected,
///     has_multiple_connections: false,
///     identity: Identity::Serials([" c02d91cnpv4m".into()].into_iter().collect()),
/// };
/// let devices = Devices::from([(device.node_id.clone(), device)]);
///
/// let records = NodeRecords::new();
/// let matches = join(&falcon, &devices, &records, &MatchRules::with_defaults(now));
/// let rules = PlanRules {
///     key: &"custom:ztaScore".to_owned().try_into().unwrap(),
///     on_missing: OnMissing::Delete,
///     lifetime: Lifetime::from_hours(168, now),
/// };
/// let plan = plan(&matches, &devices, &records, &ExpiredRecords::new(), &rules);
/// assert_eq!(
///     plan.to_string(),
///     "+ nA laptop.tail1.ts.net: custom:ztaScore 71 (score 71 of host 4a027b0c95404062be4148c989dcf4c1)\n\
///      = 0 unchanged"
/// );
/// ```
pub fn plan(
    matches: &Matches,
    devices: &Devices,
    records: &NodeRecords,
    expired: &ExpiredRecords,
    rules: &PlanRules<'_>,
) -> Plan {
    let PlanRules {
        key,
        on_missing,
        lifetime,
    } = *rules;
    let mut plan = Plan::default();
    let mut recorded = records.iter().peekable();
    for (node_id, outcome) in &matches.outcomes {
        while let Some((departed, _)) = recorded.next_if(|(recorded, _)| *recorded < node_id) {
            plan.departed.push(departed.clone());
        }
        let old = recorded
            .next_if(|(recorded, _)| *recorded == node_id)
            .map(|(_, record)| record);
        let mut new = match (outcome, old) {
            (MatchOutcome::Scored(evidence), _) => {
                Some(DesiredAttribute::from_evidence(key, evidence, lifetime))
            }
            (_, None) => continue,
            (_, Some(_)) => None,
        };
        // An isolated host withholds the score at once, also from a device that would keep it.
        let is_immediate = matches!(outcome, MatchOutcome::Contained { .. });
        // A kept score stays under its key: the record alone is no evidence for a write under another one.
        let is_kept = new.is_none() && on_missing == OnMissing::Keep && !is_immediate;
        let is_written = |old: &NodeRecord| {
            let new = new.as_ref();
            new.is_some_and(|new| old.key == new.key && old.score == new.score)
        };
        if let Some(old) = old.filter(|old| is_kept || is_written(old)) {
            plan.unchanged += 1;
            plan.kept.extend(is_kept.then(|| node_id.clone()));
            let returned = old.absence.is_some().then(|| node_id.clone());
            plan.returned.extend(returned);
            // A record under another key alone is no evidence, so the score under that key expires.
            if old.key != *key || !lifetime.needs_renewal(old) {
                continue;
            }
            new = Some(DesiredAttribute::renewed(old, lifetime));
        }
        let device = devices.get(node_id);
        let text = |field: fn(&Device) -> &SmolStr| device.map(field).cloned().unwrap_or_default();
        let change = Change {
            node_id: node_id.clone(),
            name: text(|device| &device.name),
            hostname: text(|device| &device.hostname),
            old: old.cloned(),
            expired: expired.get(node_id).cloned(),
            new,
            reason: outcome.to_string(),
            is_approved: false,
            is_immediate,
            is_ephemeral: device.is_some_and(|device| device.is_ephemeral),
        };
        if change.is_renewal() {
            plan.renewals.push(change);
        } else {
            plan.changes.push(change);
        }
    }
    plan.departed
        .extend(recorded.map(|(departed, _)| departed.clone()));
    let is_replaced = |node: &&NodeId| plan.change(node).is_some();
    plan.expired = expired
        .keys()
        .filter(|node| !is_replaced(node))
        .cloned()
        .collect();
    plan
}

/// Fall of a score, in points, beyond which it is part of a mass fall.
const DEEP_FALL_POINTS: u8 = 20;

/// Returns the finding about a mass fall: more than a fifth of the recorded devices fall deeply in one run. The scores are
/// written in any case.
pub fn scores_fell(plan: &Plan, records: &NodeRecords) -> Option<Finding> {
    let falls: Vec<String> = plan
        .changes
        .iter()
        .filter_map(|change| {
            let (old, new) = (change.old.as_ref()?.score, change.new.as_ref()?.score);
            let fall = old.get().saturating_sub(new.get());
            let Change { name, node_id, .. } = change;
            (fall > DEEP_FALL_POINTS).then(|| format!("{name} ({node_id}): {old} -> {new}"))
        })
        .collect();
    let is_mass_fall = falls.len() * 5 > records.len();
    Finding::new(FindingKind::ScoresFell, falls).filter(|_| is_mass_fall)
}

/// Finds the change of a device. The changes are sorted by node id.
fn find<'a>(changes: &'a [Change], node_id: &NodeId) -> Option<&'a Change> {
    let index = changes.binary_search_by_key(&node_id, |change| &change.node_id);
    changes.get(index.ok()?)
}

impl DesiredAttribute {
    /// Returns the recorded attribute with another end.
    fn renewed(record: &NodeRecord, lifetime: Lifetime) -> Self {
        Self {
            key: record.key.clone(),
            score: record.score,
            aid: record.aid.clone(),
            serial: record.serial.clone(),
            falcon_hostname: None,
            expiry: Some(lifetime.end()),
        }
    }

    fn from_evidence(key: &AttributeKey, evidence: &Evidence, lifetime: Lifetime) -> Self {
        Self {
            key: key.clone(),
            score: evidence.score,
            aid: evidence.aid.clone(),
            serial: evidence.serial.as_str().into(),
            falcon_hostname: evidence.hostname.clone(),
            expiry: Some(lifetime.end()),
        }
    }
}

impl fmt::Display for Plan {
    /// Prints one line per change (`+` sets, `~` changes or moves, `-` removes), then the totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for node_id in &self.departed {
            writeln!(f, "x {node_id} has left the tailnet")?;
        }
        write!(f, "= {} unchanged", self.unchanged)?;
        if !self.renewals.is_empty() {
            write!(f, ", {} of them renewed", self.renewals.len())?;
        }
        if !self.kept.is_empty() {
            write!(f, ", {} of them kept without a score", self.kept.len())?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node_id, name, reason) = (&self.node_id, &self.name, &self.reason);
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
