//! The guard against mass removals: how many attributes may go in 24 hours, and what is implausible at any size.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::host::FalconInventory;
use crate::domain::inventory::record::Absence;
use crate::domain::inventory::record::NodeRecords;
use crate::domain::matching::{MatchOutcome, Matches};
use crate::domain::plan::absence::{AbsenceUpdates, WaitingRemoval};
use crate::domain::plan::{Change, Plan};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::settings::{IntegrationId, MaxRemovals, OnMissing};

/// A plan that may be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardedPlan {
    /// The plan without the removals that wait or are held.
    pub plan: Plan,
    /// The removals that wait for the second look.
    pub waiting: Vec<WaitingRemoval>,
    /// The held removals, if there are any.
    pub held: Option<Held>,
}

/// The removals that wait for a person, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// A sentence for the status: how many, since when, why, and the command that lets them pass.
    pub why: String,
    /// The implausible observation and the held devices.
    pub findings: Vec<Finding>,
    /// The held removals, the longest absent first.
    pub removals: Vec<Change>,
}

/// The facts that the guard judges a plan by.
#[derive(Clone, Copy, Debug)]
pub struct GuardInputs<'a> {
    /// The integration, for the command that lets removals pass.
    pub integration: &'a IntegrationId,
    /// The time of the run.
    pub now: Timestamp,
    /// The reason why the observation is implausible, if it is.
    pub suspicion: Option<&'a str>,
    /// The records before this run.
    pub records: &'a NodeRecords,
    /// The device of each removal in the last 24 hours that no person let pass.
    pub recent_removals: &'a [NodeId],
    /// The limit of the settings.
    pub max: MaxRemovals,
    /// How many held removals a person lets pass.
    pub allowed: usize,
}

/// Minimum recorded devices whose joint absence is implausible. A single device can leave for a reason of its own.
const MIN_RECORDS_TO_JUDGE: usize = 2;

/// Holds the removals of a plan that would make more than the limit of 24 hours, or that rests on an implausible
/// observation. What was held before stays held. Scores are written in any case: a score that fell must arrive.
///
/// ```
/// use falcon_posture_sync::domain::plan::guard::{GuardInputs, guard};
/// use falcon_posture_sync::domain::inventory::record::NodeRecords;
/// use falcon_posture_sync::domain::plan::Plan;
/// use falcon_posture_sync::settings::MaxRemovals;
/// use jiff::Timestamp;
///
/// let inputs = GuardInputs {
///     integration: &"corp".to_owned().try_into().unwrap(),
///     now: Timestamp::UNIX_EPOCH,
///     suspicion: Some("Falcon returned no host, but 3 devices have a score"),
///     records: &NodeRecords::new(),
///     recent_removals: &[],
///     max: MaxRemovals::default(),
///     allowed: 0,
/// };
/// let guarded = guard(Plan::default(), Vec::new(), inputs);
/// assert!(guarded.held.is_some());
/// ```
pub fn guard(plan: Plan, waiting: Vec<WaitingRemoval>, inputs: GuardInputs<'_>) -> GuardedPlan {
    let Plan {
        changes,
        departed,
        expired,
        ..
    } = plan;
    let (due, mut changes): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(Change::is_removal);
    let excess = inputs.excess(&due);
    let (mut held, passing): (Vec<Change>, Vec<Change>) = due.into_iter().partition(|change| {
        inputs.suspicion.is_some() || excess.is_some() || change.held_since().is_some()
    });
    // The record is the only way to find the attribute again. It must not be deleted because a wrong tailnet lacks the device.
    let (mut held_departed, mut departed, expired) = match inputs.suspicion {
        Some(_) => (departed, Vec::new(), Vec::new()),
        None => (Vec::new(), departed, expired),
    };
    held.sort_by_key(|change| (change.absent_since(inputs.now), change.node_id.clone()));
    let approved = held.drain(..inputs.allowed.min(held.len()));
    let approved: Vec<Change> = approved
        .map(|change| Change {
            is_approved: true,
            ..change
        })
        .collect();
    let still_allowed = inputs.allowed - approved.len();
    departed.extend(held_departed.drain(..still_allowed.min(held_departed.len())));
    changes.extend(passing);
    changes.extend(approved);
    changes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    let reason = inputs.suspicion.map(str::to_owned).or(excess);
    GuardedPlan {
        plan: Plan {
            changes,
            departed,
            expired,
            ..plan
        },
        waiting,
        held: inputs.held(held, held_departed.len(), reason),
    }
}

impl GuardInputs<'_> {
    /// Returns the reason why these removals are too many for 24 hours, if they are.
    fn excess(&self, due: &[Change]) -> Option<String> {
        let recent: BTreeSet<&NodeId> = self.recent_removals.iter().collect();
        let gone = recent
            .iter()
            .filter(|node| !self.records.contains_key(**node));
        let base = self.records.len() + gone.count();
        let going = due.iter().map(|change| &change.node_id);
        let is_one_device = recent
            .iter()
            .copied()
            .chain(going)
            .collect::<BTreeSet<_>>()
            .len()
            < 2;
        let removals = self.recent_removals.len() + due.len();
        if due.is_empty() {
            return None;
        }
        exceeded_limit(removals, base, is_one_device, self.max)
    }

    fn held(&self, removals: Vec<Change>, departed: usize, reason: Option<String>) -> Option<Held> {
        let count = removals.len() + departed;
        if count == 0 && (self.suspicion.is_none() || self.allowed > 0) {
            return None;
        }
        let reason = reason
            .unwrap_or_else(|| "they were held, and the devices are not present again".to_owned());
        let since = removals.iter().filter_map(Change::held_since).min();
        let why = if count == 0 {
            format!("no attribute is removed: {reason}.")
        } else {
            format!(
                "{} held since {:.0}: {reason}. If that is right, let them pass with \
                 {{\"command\":\"sync\",\"integration\":\"{}\",\"allowMassRemoval\":{count}}}.",
                match count {
                    1 => "1 removal is".to_owned(),
                    count => format!("{count} removals are"),
                },
                since.unwrap_or(self.now),
                self.integration,
            )
        };
        let implausible = self.suspicion.map(str::to_owned);
        let implausible = Finding::new(FindingKind::SuspiciousObservation, implausible);
        let names = removals.iter().map(|change| change.name.to_string());
        let held = Finding::new(FindingKind::HeldRemovals, names);
        Some(Held {
            why,
            findings: implausible.into_iter().chain(held).collect(),
            removals,
        })
    }
}

impl GuardedPlan {
    /// Lists what the records must say about absences after this run, as far as they do not say it already.
    pub fn absence_updates(&self, records: &NodeRecords, now: Timestamp) -> AbsenceUpdates {
        let waiting = self.waiting.iter().map(|waiting| {
            let absence = Absence {
                since: waiting.since,
                held_since: waiting.change.held_since(),
            };
            (&waiting.change.node_id, Some(absence))
        });
        let held = self
            .held
            .iter()
            .flat_map(|held| &held.removals)
            .map(|change| {
                let absence = Absence {
                    since: change.absent_since(now),
                    held_since: change.held_since().or(Some(now)),
                };
                (&change.node_id, Some(absence))
            });
        let present = self.plan.returned.iter().map(|node| (node, None));
        let is_new = |node: &NodeId, absence: Option<Absence>| {
            let record = records.get(node);
            record.is_some_and(|record| record.absence != absence)
        };
        waiting
            .chain(held)
            .chain(present)
            .filter(|(node, absence)| is_new(node, *absence))
            .map(|(node, absence)| (node.clone(), absence))
            .collect()
    }
}

/// Returns the reason why an observation is implausible, if it is. Judge the listings before any lookup adds to them.
///
/// The absence of a single recorded device is plausible. With `onMissing: keep`, devices may stay without a host.
pub fn find_suspicion(
    falcon: &FalconInventory,
    devices: &Devices,
    records: &NodeRecords,
    matches: &Matches,
    on_missing: OnMissing,
) -> Option<String> {
    let recorded = records.len();
    if recorded == 0 {
        return None;
    }
    let permanent = records.iter().filter(|(_, record)| !record.is_ephemeral);
    let permanent: Vec<&NodeId> = permanent.map(|(node, _)| node).collect();
    let is_listed = |node: &&&NodeId| devices.contains_key(**node);
    let listed = permanent.iter().filter(is_listed).count();
    let has_host = |node: &NodeId| {
        matches
            .outcomes
            .get(node)
            .is_some_and(MatchOutcome::has_host)
    };
    let mut assessments = falcon.scores.values();
    if falcon.visible == 0 {
        Some(format!(
            "Falcon returned no host, but {recorded} devices have a score"
        ))
    } else if falcon.scores.is_empty() {
        Some(format!(
            "Falcon returned no score, but {recorded} devices have one"
        ))
    } else if assessments.all(|assessment| assessment.score().is_none()) {
        Some(format!(
            "Falcon returned no valid score, but {recorded} devices have one"
        ))
    } else if permanent.len() >= MIN_RECORDS_TO_JUDGE && 2 * listed < permanent.len() {
        Some(format!(
            "the tailnet lists {listed} of the {} devices that have a score",
            permanent.len()
        ))
    } else if recorded >= MIN_RECORDS_TO_JUDGE
        && on_missing == OnMissing::Delete
        && !records.keys().any(has_host)
    {
        Some(format!(
            "no Falcon host matches any of the {recorded} devices that have a score"
        ))
    } else {
        None
    }
}

/// Returns the limit that this number of removals exceeds, if any: the greater of the settings' share and number, and half
/// of `base`. A single device may exceed the half.
fn exceeded_limit(
    removals: usize,
    base: usize,
    is_one_device: bool,
    max: MaxRemovals,
) -> Option<String> {
    let over_share = removals.saturating_mul(100) > base.saturating_mul(usize::from(max.percent));
    let over_number = u32::try_from(removals).unwrap_or(u32::MAX) > max.at_least;
    let limit = if over_share && over_number {
        format!("maxRemovals allows {} % or {}", max.percent, max.at_least)
    } else if !is_one_device && removals.saturating_mul(2) > base {
        "more than half are never removed without approval".to_owned()
    } else {
        return None;
    };
    Some(format!(
        "{removals} of {base} attributes would be removed within 24 hours; {limit}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_exceeded(removals: usize, base: usize, percent: u8, at_least: u32) -> bool {
        let max = MaxRemovals { percent, at_least };
        exceeded_limit(removals, base, removals == 1, max).is_some()
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
        for base in 0..60 {
            for removals in 0..=base {
                let waits = is_exceeded(removals, base, 100, 1_000_000);
                assert_eq!(
                    waits,
                    removals > 1 && 2 * removals > base,
                    "{removals} of {base}"
                );
            }
        }
    }

    #[test]
    fn by_default_a_small_company_loses_two_of_four_and_one_of_two() {
        let MaxRemovals { percent, at_least } = MaxRemovals::default();
        let most = |base: usize| {
            (0..=base)
                .rev()
                .find(|removals| !is_exceeded(*removals, base, percent, at_least))
        };
        let of = [1, 2, 3, 4, 9, 20, 29, 30, 100];
        assert_eq!(of.map(most), [1, 1, 1, 2, 2, 2, 2, 3, 10].map(Some));
    }
}
