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
    /// The sentence for the status.
    pub why: String,
    /// What was suspicious, and some of the devices.
    pub findings: Vec<Finding>,
}

/// What a plan rests on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// What Falcon shows.
    pub falcon: &'a Account,
    /// The attributes that are written at present.
    pub records: usize,
    /// Those of them whose device is still in the tailnet.
    pub present: usize,
}

/// Holds back the removals of a plan that would remove too many attributes, or that rests on an observation that cannot
/// well be: an account without any host or score, a tailnet without any of the devices. Scores are written in any case:
/// a score that fell must arrive.
///
/// `allowed` lets the plan pass as it is.
pub fn guard(plan: Plan, ground: Ground<'_>, max: MaxRemovals, allowed: bool) -> Guarded {
    if allowed {
        return Guarded { plan, held: None };
    }
    let (removals, records) = (plan.removals().count(), ground.records);
    let suspicion = ground.suspicion(max);
    let reason = match &suspicion {
        Some(suspicion) => suspicion.clone(),
        None if exceeds(removals, records, max) => format!(
            "{removals} of {records} attributes would be removed; maxRemovals allows {} % or {}",
            max.percent, max.at_least
        ),
        None => return Guarded { plan, held: None },
    };
    let (waiting, changes): (Vec<Change>, Vec<Change>) =
        plan.changes.into_iter().partition(Change::is_removal);
    // A record is what an attribute can be found by later: it must not go because a strange tailnet lacks the device.
    let departed = if suspicion.is_some() {
        Vec::new()
    } else {
        plan.departed
    };
    let what_waits = match removals {
        0 => "nothing is taken away".to_owned(),
        removals => format!("{removals} removals wait"),
    };
    let suspicious = Finding::of(FindingKind::SuspiciousObservation, suspicion);
    let held = Finding::of(
        FindingKind::HeldRemovals,
        waiting.into_iter().map(|change| change.name.into()),
    );
    Guarded {
        plan: Plan {
            changes,
            departed,
            ..plan
        },
        held: Some(Held {
            why: format!(
                "{what_waits}: {reason}. If that is right, run a sync of the \
                 integration with \"allowMassRemoval\"."
            ),
            findings: suspicious.into_iter().chain(held).collect(),
        }),
    }
}

impl Ground<'_> {
    /// What cannot well be, where there were some.
    fn suspicion(&self, max: MaxRemovals) -> Option<String> {
        let records = self.records;
        if records == 0 {
            None
        } else if self.falcon.visible == 0 {
            Some(format!(
                "Falcon shows no host at all, although {records} devices have a score"
            ))
        } else if self.falcon.scores.is_empty() {
            Some(format!(
                "Falcon shows no score at all, although {records} devices have one"
            ))
        } else if self.present == 0 && exceeds(records, records, max) {
            Some(format!(
                "the tailnet has none of the {records} devices that have a score"
            ))
        } else {
            None
        }
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
