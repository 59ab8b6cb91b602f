//! The guard against mass removals.

use crate::domain::inventory::host::FalconInventory;
use crate::domain::plan::{Change, Plan};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::settings::MaxRemovals;

/// A plan that may be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedPlan {
    /// The plan without the removals that wait.
    pub plan: Plan,
    /// The reason why removals wait, if they do.
    pub held: Option<Held>,
}

/// The reason why removals wait for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// A sentence for the status.
    pub why: String,
    /// The implausible observation and the waiting devices.
    pub findings: Vec<Finding>,
}

/// The facts that the guard judges a plan by.
#[derive(Clone, Copy, Debug)]
pub struct GuardInputs<'a> {
    /// Hosts and scores of the Falcon account.
    pub falcon: &'a FalconInventory,
    /// Recorded devices.
    pub records: usize,
    /// Recorded devices that are in the tailnet.
    pub present: usize,
    /// Recorded devices that a Falcon host matches.
    pub matched: usize,
}

/// Minimum recorded devices whose joint absence is implausible. A single device can leave for a reason of its own.
const MIN_RECORDS_TO_JUDGE: usize = 2;

/// Holds back the removals of a plan that would remove too many attributes, or that is based on an implausible
/// observation: an account without any host or valid score, a tailnet without any of the recorded devices, an account
/// whose hosts match none of them. Scores are written in any case: a score that fell must arrive.
///
/// `is_allowed` lets the plan pass unchanged.
///
/// ```
/// use falcon_posture_sync::domain::inventory::host::FalconInventory;
/// use falcon_posture_sync::domain::plan::Plan;
/// use falcon_posture_sync::domain::plan::guard::{GuardInputs, guard};
/// use falcon_posture_sync::settings::MaxRemovals;
///
/// let falcon = FalconInventory::default(); // without a host
/// let inputs = GuardInputs { falcon: &falcon, records: 3, present: 3, matched: 0 };
/// let guarded = guard(Plan::default(), inputs, MaxRemovals::default(), false);
/// assert!(guarded.held.is_some());
/// ```
pub fn guard(
    mut plan: Plan,
    inputs: GuardInputs<'_>,
    max: MaxRemovals,
    is_allowed: bool,
) -> GuardedPlan {
    let removals = plan.removals().count();
    let removes_something = removals > 0 || !plan.departed.is_empty();
    let implausibility = inputs.implausibility(removes_something);
    let exceeded = || exceeded_limit(removals, inputs.records, max);
    let reason = implausibility.clone().or_else(exceeded);
    let Some(reason) = reason.filter(|_| !is_allowed) else {
        return GuardedPlan { plan, held: None };
    };
    let (waiting, changes): (Vec<Change>, _) =
        plan.changes.into_iter().partition(Change::is_removal);
    plan.changes = changes;
    if implausibility.is_some() {
        // The record is the only way to find the attribute again. It must not be deleted because a wrong tailnet lacks the
        // device.
        plan.departed.clear();
    }
    let waiting_removals = match removals {
        0 => "no attribute is removed".to_owned(),
        removals => format!("{removals} removals wait"),
    };
    let implausible = Finding::new(FindingKind::SuspiciousObservation, implausibility);
    let names = waiting.into_iter().map(|change| change.name.into());
    let held = Finding::new(FindingKind::HeldRemovals, names);
    GuardedPlan {
        plan,
        held: Some(Held {
            why: format!(
                "{waiting_removals}: {reason}. If that is right, run a sync of the \
                 integration with \"allowMassRemoval\"."
            ),
            findings: implausible.into_iter().chain(held).collect(),
        }),
    }
}

impl GuardInputs<'_> {
    /// Returns why the observation is implausible. The absence of a single recorded device is plausible.
    ///
    /// A plan that removes nothing (`onMissing: keep`) may rest on devices that match no host.
    fn implausibility(&self, removes_something: bool) -> Option<String> {
        let records = self.records;
        let are_several = records >= MIN_RECORDS_TO_JUDGE;
        let mut assessments = self.falcon.scores.values();
        let reason = if records == 0 {
            return None;
        } else if self.falcon.visible == 0 {
            format!("Falcon returned no host, but {records} devices have a score")
        } else if self.falcon.scores.is_empty() {
            format!("Falcon returned no score, but {records} devices have one")
        } else if assessments.all(|assessment| assessment.score().is_none()) {
            format!("Falcon returned no valid score, but {records} devices have one")
        } else if self.present == 0 && are_several {
            format!("the tailnet has none of the {records} devices that have a score")
        } else if self.matched == 0 && are_several && removes_something {
            format!("no Falcon host matches any of the {records} devices that have a score")
        } else {
            return None;
        };
        Some(reason)
    }
}

/// Returns the limit that this number of removals exceeds, if any: the greater of the settings' share and number, and half
/// of the recorded devices. A single removal may exceed the half.
fn exceeded_limit(removals: usize, records: usize, max: MaxRemovals) -> Option<String> {
    let over_share =
        removals.saturating_mul(100) > records.saturating_mul(usize::from(max.percent));
    let over_number = u32::try_from(removals).unwrap_or(u32::MAX) > max.at_least;
    let limit = if over_share && over_number {
        format!("maxRemovals allows {} % or {}", max.percent, max.at_least)
    } else if removals > 1 && removals.saturating_mul(2) > records {
        "more than half are never removed without approval".to_owned()
    } else {
        return None;
    };
    Some(format!(
        "{removals} of {records} attributes would be removed; {limit}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_exceeded(removals: usize, records: usize, percent: u8, at_least: u32) -> bool {
        exceeded_limit(removals, records, MaxRemovals { percent, at_least }).is_some()
    }

    #[test]
    fn the_greater_of_share_and_number_may_go() {
        assert!(!is_exceeded(10, 20, 20, 10), "10 may go");
        assert!(!is_exceeded(20, 100, 20, 10), "20 % may go");
        assert!(is_exceeded(21, 100, 20, 10));
        assert!(is_exceeded(11, 30, 20, 10));
        assert!(is_exceeded(1, 1, 0, 0), "nothing may go");
        assert!(!is_exceeded(50, 100, 100, 0), "all may go, half at a time");
    }

    #[test]
    fn more_than_half_never_go_but_for_a_single_one() {
        for records in 0..60 {
            for removals in 0..=records {
                let waits = is_exceeded(removals, records, 100, 1_000_000);
                assert_eq!(
                    waits,
                    removals > 1 && 2 * removals > records,
                    "{removals} of {records}"
                );
            }
        }
    }

    #[test]
    fn by_default_a_small_company_loses_two_of_four_and_one_of_two() {
        let MaxRemovals { percent, at_least } = MaxRemovals::default();
        let most = |records: usize| {
            (0..=records)
                .rev()
                .find(|removals| !is_exceeded(*removals, records, percent, at_least))
        };
        let of = [1, 2, 3, 4, 9, 20, 29, 30, 100];
        assert_eq!(of.map(most), [1, 1, 1, 2, 2, 2, 2, 3, 10].map(Some));
    }
}
