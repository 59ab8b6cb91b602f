//! Lookups of what a listing lacks and a plan rests on: hosts, scores, devices and identities move while they are listed,
//! so each is looked up before it is believed to be gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::host::{Aid, FalconInventory};
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::{MatchOutcome, Matches};
use crate::domain::plan::{Change, Plan};
use crate::settings::IgnoredSerials;

/// Devices that could not be asked, each with its name and the reason. A run leaves them out: what it planned for them would
/// rest on a record that may be wrong.
pub type UnreadableDevices = BTreeMap<NodeId, String>;

/// A set of lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Serials to look up as hosts, in each [spelling](Serial::spellings).
    pub serials: BTreeSet<String>,
    /// Sensors to look up as hosts.
    pub hosts: BTreeSet<Aid>,
    /// Sensors to look up as assessments.
    pub scores: BTreeSet<Aid>,
    /// Devices to look up in the tailnet.
    pub devices: BTreeSet<NodeId>,
}

impl Lookups {
    /// Returns true if there is nothing to look up.
    pub fn is_empty(&self) -> bool {
        let Self {
            serials,
            hosts,
            scores,
            devices,
        } = self;
        serials.is_empty() && hosts.is_empty() && scores.is_empty() && devices.is_empty()
    }

    /// Adds other lookups.
    pub fn extend(&mut self, other: Self) {
        self.serials.extend(other.serials);
        self.hosts.extend(other.hosts);
        self.scores.extend(other.scores);
        self.devices.extend(other.devices);
    }

    /// Removes the lookups that are done.
    fn without(mut self, done: &Self) -> Self {
        self.serials.retain(|serial| !done.serials.contains(serial));
        self.hosts.retain(|aid| !done.hosts.contains(aid));
        self.scores.retain(|aid| !done.scores.contains(aid));
        self.devices.retain(|node| !done.devices.contains(node));
        self
    }
}

/// The devices whose change rests on missing data, and the lookups that would confirm it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Devices whose change or departure is not confirmed.
    pub nodes: BTreeSet<NodeId>,
    /// The lookups that are not done.
    pub lookups: Lookups,
    /// The serials to look up besides, of the devices whose score rises after a short listing. They may be as many as the
    /// tailnet's devices, so the caller takes some at a time.
    pub rises: BTreeMap<NodeId, BTreeSet<String>>,
}

/// Finds the changes that rest on missing data which is not in `done`. What a lookup finds can raise new questions, so call
/// it again until nothing is open.
///
/// A change is confirmed when everything that it rests on has been looked up.
pub fn find_unconfirmed(
    plan: &Plan,
    matches: &Matches,
    falcon: &FalconInventory,
    devices: &Devices,
    ignored: &IgnoredSerials,
    done: &Lookups,
) -> Unconfirmed {
    let mut unconfirmed = Unconfirmed::default();
    let mut add = |node: &NodeId, needed: Lookups| {
        let open = needed.without(done);
        if !open.is_empty() {
            unconfirmed.nodes.insert(node.clone());
            unconfirmed.lookups.extend(open);
        }
    };
    for node in &plan.departed {
        let needed = Lookups {
            devices: [node.clone()].into(),
            ..Lookups::default()
        };
        add(node, needed);
    }
    for change in &plan.changes {
        if let Some(outcome) = matches.outcomes.get(&change.node_id) {
            add(
                &change.node_id,
                needed(change, outcome, falcon, devices, ignored),
            );
        }
    }
    let raising = plan.changes.iter().filter(|change| change.raises());
    for change in raising.filter(|_| falcon.is_short) {
        let node = &change.node_id;
        let mut open: BTreeSet<String> = spellings(node, devices, ignored).collect();
        open.retain(|serial| !done.serials.contains(serial));
        if matches.outcomes.contains_key(node) && !open.is_empty() {
            unconfirmed.nodes.insert(node.clone());
            unconfirmed.rises.insert(node.clone(), open);
        }
    }
    unconfirmed
}

/// Returns the lookups that the change of a device rests on.
fn needed(
    change: &Change,
    outcome: &MatchOutcome,
    falcon: &FalconInventory,
    devices: &Devices,
    ignored: &IgnoredSerials,
) -> Lookups {
    let (node, mut needed) = (&change.node_id, Lookups::default());
    // The host that decided before.
    let former = change.old.as_ref().map(|old| &old.aid);
    let unlisted = former.filter(|aid| !falcon.hosts.contains_key(*aid));
    match outcome {
        MatchOutcome::Unmatched { .. } => {
            needed.serials.extend(spellings(node, devices, ignored));
            needed.hosts.extend(former.cloned());
            needed.scores.extend(former.cloned());
        }
        MatchOutcome::Unassessed { aids } => {
            needed.hosts.extend(unlisted.cloned());
            needed.scores.extend(aids.iter().chain(unlisted).cloned());
        }
        // The hosts that were read do not count. If the former one is only missing from the listing, it may.
        MatchOutcome::SharedSerial { .. }
        | MatchOutcome::OtherPlatform { .. }
        | MatchOutcome::Silent { .. }
        | MatchOutcome::Stale { .. } => {
            needed.hosts.extend(unlisted.cloned());
            needed.scores.extend(unlisted.cloned());
        }
        MatchOutcome::Scored(evidence) => {
            // Another host decides than before. If the former one is only missing from the listing, its lower score counts.
            let replaced = former.filter(|aid| **aid != evidence.aid);
            needed.hosts.extend(replaced.cloned());
            needed
                .scores
                .extend(evidence.unassessed.iter().chain(replaced).cloned());
        }
        // A listing can lack a posture identity that the device itself reports.
        MatchOutcome::NoIdentity { .. } | MatchOutcome::NoSerial { .. } => {
            needed.devices.insert(node.clone());
        }
        MatchOutcome::Unwitnessed(_) | MatchOutcome::Contained { .. } | MatchOutcome::External => {}
    }
    needed
}

/// Returns the serials of a device in each spelling: Falcon's filter minds case.
fn spellings(
    node: &NodeId,
    devices: &Devices,
    ignored: &IgnoredSerials,
) -> impl Iterator<Item = String> {
    let device = devices.get(node).into_iter();
    let texts = device.flat_map(|device| device.identity.serials());
    texts.flat_map(|text| Serial::spellings(text, ignored))
}
