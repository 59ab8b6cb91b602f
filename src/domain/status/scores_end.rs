//! The end of scores that no run renews.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::plan::lifetime::Lifetime;
use crate::domain::plan::{Change, Plan};

/// The first end of some scores, and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoresEnd {
    /// When the first of them ends.
    pub first: Timestamp,
    /// How many they are.
    pub devices: usize,
}

/// The ends of the scores after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScoreEnds {
    /// Of all recorded scores.
    pub recorded: Option<ScoresEnd>,
    /// Of those that should have been renewed and were not.
    pub unrenewed: Option<ScoresEnd>,
}

impl ScoreEnds {
    /// Returns the ends after a run with this plan. The writes to the devices in `failed` were not made. The removals of the
    /// devices in `held` wait for a person.
    pub fn after(
        plan: &Plan,
        records: &NodeRecords,
        failed: &BTreeSet<NodeId>,
        held: &BTreeSet<&NodeId>,
        lifetime: Lifetime,
    ) -> Self {
        let mut ends = Self::default();
        let writes = plan.changes.iter().chain(&plan.renewals);
        let made = writes.filter(|change| !failed.contains(&change.node_id));
        for change in made.clone() {
            let new = change.new.as_ref();
            if let Some(end) = new.and_then(|new| new.expiry) {
                ScoresEnd::add(&mut ends.recorded, end);
            }
        }
        let changed: BTreeSet<&NodeId> = made
            .map(|change: &Change| &change.node_id)
            .chain(&plan.departed)
            .collect();
        for (node, record) in records.iter().filter(|(node, _)| !changed.contains(node)) {
            let Some(end) = record.expiry else { continue };
            ScoresEnd::add(&mut ends.recorded, end);
            if held.contains(node) || lifetime.needs_renewal(record) {
                ScoresEnd::add(&mut ends.unrenewed, end);
            }
        }
        ends
    }
}

impl ScoresEnd {
    fn add(sum: &mut Option<Self>, end: Timestamp) {
        let before = sum.unwrap_or(Self {
            first: end,
            devices: 0,
        });
        *sum = Some(Self {
            first: before.first.min(end),
            devices: before.devices + 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_counts() {
        let mut sum = None;
        for second in [30, 10, 20] {
            ScoresEnd::add(&mut sum, Timestamp::from_second(second).unwrap());
        }
        let first = Timestamp::from_second(10).unwrap();
        assert_eq!(sum, Some(ScoresEnd { first, devices: 3 }));
    }
}
