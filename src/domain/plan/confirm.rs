//! Changes that rest on missing data: hosts and scores move while they are paged through, so one that a listing lacks may
//! still exist.

use std::collections::BTreeSet;

use crate::domain::inventory::device::{Devices, Identity, NodeId};
use crate::domain::inventory::host::Aid;
use crate::domain::matching::{MatchOutcome, Matches};
use crate::domain::plan::Plan;

/// The changes of a plan that rest on missing data, and the lookups that would confirm them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Nodes whose change rests on a missing host or score.
    pub changes: BTreeSet<NodeId>,
    /// Serials to look up as hosts, as reported and in normal form.
    pub serials: BTreeSet<String>,
    /// Sensors to look up as hosts.
    pub hosts: BTreeSet<Aid>,
    /// Sensors to look up as assessments.
    pub scores: BTreeSet<Aid>,
    /// Nodes with a record that the device listing lacks.
    pub departed: BTreeSet<NodeId>,
}

impl Unconfirmed {
    /// Returns true if no change rests on missing data.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.departed.is_empty()
    }
}

impl Plan {
    /// Leaves out the changes that are unconfirmed.
    #[must_use]
    pub fn without_unconfirmed(mut self, unconfirmed: &Unconfirmed) -> Self {
        self.changes
            .retain(|change| !unconfirmed.changes.contains(&change.node_id));
        self.departed
            .retain(|node| !unconfirmed.departed.contains(node));
        self
    }
}

/// Lists the changes that rest on missing data and the lookups that would confirm them. Call it again after adding the
/// hosts found: it then lists the scores to look up.
pub fn find_unconfirmed(plan: &Plan, matches: &Matches, devices: &Devices) -> Unconfirmed {
    let mut unconfirmed = Unconfirmed {
        departed: plan.departed.iter().cloned().collect(),
        ..Unconfirmed::default()
    };
    for change in &plan.changes {
        let former = change.old.as_ref().map(|old| &old.aid);
        match matches.outcomes.get(&change.node_id) {
            Some(MatchOutcome::Unmatched { serials }) => {
                let normal = serials.iter().map(ToString::to_string);
                unconfirmed.serials.extend(normal);
                let device = devices.get(&change.node_id);
                if let Some(Identity::Serials(texts)) = device.map(|device| &device.identity) {
                    // Falcon does not document whether its filter folds case, so the text is also looked up as reported.
                    let reported = texts.iter().map(|text| text.trim().to_owned());
                    unconfirmed.serials.extend(reported);
                }
                unconfirmed.hosts.extend(former.cloned());
                unconfirmed.scores.extend(former.cloned());
                unconfirmed.changes.insert(change.node_id.clone());
            }
            Some(MatchOutcome::Unassessed { aids }) => {
                unconfirmed.scores.extend(aids.iter().cloned());
                unconfirmed.changes.insert(change.node_id.clone());
            }
            Some(MatchOutcome::Scored(evidence)) => {
                // Another host decides than before. If the former one is only missing from the listing, its lower score
                // counts.
                let replaced = former.filter(|aid| **aid != evidence.aid);
                if replaced.is_some() || !evidence.unassessed.is_empty() {
                    unconfirmed.changes.insert(change.node_id.clone());
                }
                unconfirmed.hosts.extend(replaced.cloned());
                unconfirmed
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
    unconfirmed
}
