//! The second look: an attribute goes only after two runs found it absent, `removeAfterMinutes` apart.
//!
//! The record of a device keeps when its absence began. A run that finds the device present clears it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::record::Absence;
use crate::domain::plan::{Change, Plan};
use crate::domain::status::finding::{Finding, FindingKind};

/// The changes of the records' absences, by node. `None` clears an absence.
pub type AbsenceUpdates = BTreeMap<NodeId, Option<Absence>>;

/// A removal that waits for the second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRemoval {
    /// The removal.
    pub change: Change,
    /// When the absence began.
    pub since: Timestamp,
    /// The earliest time at which the removal is due.
    pub until: Timestamp,
}

/// Takes the removals that are not due out of the plan. A removal is due if it waits for no second look, or if the absence
/// began at least `remove_after` before `now`.
pub fn take_waiting(
    plan: &mut Plan,
    now: Timestamp,
    remove_after: SignedDuration,
) -> Vec<WaitingRemoval> {
    let mut waiting = Vec::new();
    plan.changes.retain(|change| {
        if !change.is_removal() || change.is_immediate {
            return true;
        }
        let since = change.absent_since(now);
        let until = since.saturating_add(remove_after).unwrap_or(Timestamp::MAX);
        if until <= now {
            return true;
        }
        waiting.push(WaitingRemoval {
            change: change.clone(),
            since,
            until,
        });
        false
    });
    waiting
}

/// Returns the finding about the removals that wait.
pub fn finding(waiting: &[WaitingRemoval]) -> Option<Finding> {
    let examples = waiting.iter().map(|waiting| {
        let Change {
            node_id,
            name,
            reason,
            ..
        } = &waiting.change;
        let WaitingRemoval { since, until, .. } = waiting;
        format!("{name} ({node_id}): {reason} since {since:.0}; goes after {until:.0}")
    });
    Finding::new(FindingKind::WaitingRemovals, examples)
}

/// Says how many removals wait, and when the first of them is due; `None` if none waits.
pub(crate) fn summary(waiting: &[WaitingRemoval]) -> Option<String> {
    let first = waiting.iter().map(|waiting| waiting.until).min()?;
    Some(match waiting.len() {
        1 => format!("1 device was found absent and keeps its score until {first:.0}"),
        devices => format!(
            "{devices} devices were found absent and keep their scores, the first until {first:.0}"
        ),
    })
}
