//! The stop before a mass removal.

use crate::domain::finding::{Finding, FindingKind};
use crate::domain::host::Account;
use crate::domain::plan::{Change, Plan};
use crate::integration::MaxRemovals;

/// A plan that may be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// What is left to do.
    pub plan: Plan,
    /// Why its removals wait, if they do.
    pub held: Option<Held>,
}

/// Why removals wait for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub removals: usize,
    /// The sentence for the status.
    pub why: String,
    /// The finding that names some of the devices.
    pub finding: Option<Finding>,
}

/// Holds back the removals of a plan that would remove too many attributes, or that rests on an account without any
/// host or score. Scores are written in any case: a score that fell must arrive.
///
/// `records` is the number of attributes that are written at present; `allowed` lets the plan pass as it is.
pub fn guard(
    plan: Plan,
    falcon: &Account,
    records: usize,
    max: MaxRemovals,
    allowed: bool,
) -> Guarded {
    let removals = plan.removals().count();
    let reason = if removals == 0 || allowed {
        None
    } else if falcon.hosts.is_empty() {
        Some("Falcon shows no host at all, although there were some".to_owned())
    } else if falcon.scores.is_empty() {
        Some("Falcon shows no score at all, although there were some".to_owned())
    } else if exceeds(removals, records, max) {
        Some(format!(
            "{removals} of {records} attributes would be removed; maxRemovals allows {} % or {}",
            max.percent, max.at_least
        ))
    } else {
        None
    };
    let Some(reason) = reason else {
        return Guarded { plan, held: None };
    };
    let (waiting, changes): (Vec<Change>, Vec<Change>) =
        plan.changes.into_iter().partition(Change::is_removal);
    Guarded {
        plan: Plan { changes, ..plan },
        held: Some(Held {
            removals,
            why: format!(
                "{removals} removals wait: {reason}. If that is right, run a sync of the \
                 integration with \"allowMassRemoval\"."
            ),
            finding: Finding::of(
                FindingKind::HeldRemovals,
                waiting.into_iter().map(|change| change.name),
            ),
        }),
    }
}

/// More than the share *and* more than the number.
fn exceeds(removals: usize, records: usize, max: MaxRemovals) -> bool {
    let over_share =
        removals.saturating_mul(100) > records.saturating_mul(usize::from(max.percent));
    let over_number = u32::try_from(removals).unwrap_or(u32::MAX) > max.at_least;
    over_share && over_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_must_be_passed() {
        let max = MaxRemovals {
            percent: 20,
            at_least: 10,
        };
        assert!(!exceeds(10, 10, max), "10 may go in any case");
        assert!(!exceeds(20, 100, max), "20 % may go");
        assert!(exceeds(21, 100, max));
        assert!(exceeds(11, 12, max));
        assert!(
            exceeds(
                1,
                1,
                MaxRemovals {
                    percent: 0,
                    at_least: 0
                }
            ),
            "nothing may go"
        );
        assert!(
            !exceeds(
                99,
                99,
                MaxRemovals {
                    percent: 100,
                    at_least: 0
                }
            ),
            "all may go"
        );
    }
}
