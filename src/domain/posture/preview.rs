//! Who would pass a posture, and who would lose access: told before it is enforced.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::explain::explanation::Verdict;
use crate::domain::explain::verdict;
use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::Score;
use crate::domain::matching::{MatchOutcome, Matches};
use crate::domain::plan::{Change, NodeRecords, Plan};
use crate::domain::posture::{ConditionProblem, Posture, Value, os_value};
use crate::settings::AttributeKey;

/// So many devices that would lose access are named, and so many users: an answer of Lambda's has 6 MB at most.
const NAMED: usize = 500;

/// A device, with what its attribute will be after the next sync.
#[derive(Clone, Copy, Debug)]
pub struct DeviceForecast<'a> {
    device: &'a Device,
    outcome: &'a MatchOutcome,
    score: Option<Score>,
}

/// All devices, with what their attributes will be when the plan is carried out. A score that is kept, or whose removal
/// waits, is one.
pub fn subjects<'a>(
    devices: &'a Devices,
    joined: &'a Matches,
    records: &NodeRecords,
    plan: &'a Plan,
) -> Vec<DeviceForecast<'a>> {
    let changes: BTreeMap<&NodeId, &Change> = plan
        .changes
        .iter()
        .map(|change| (&change.node_id, change))
        .collect();
    let subject = |(node, outcome): (&'a NodeId, &'a MatchOutcome)| {
        let score = match changes.get(node) {
            Some(change) => change.new.as_ref().map(|new| new.score),
            None => records.get(node).map(|written| written.score),
        };
        Some(DeviceForecast {
            device: devices.get(node)?,
            outcome,
            score,
        })
    };
    joined.outcomes.iter().filter_map(subject).collect()
}

/// What a posture would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The posture's name in the policy file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posture: Option<String>,
    /// Its conditions, as they are written; all must hold.
    pub conditions: Vec<String>,
    /// Where the policy file uses it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub used_in: Vec<String>,
    /// Conditions that are not judged here: the numbers speak of the others only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_evaluated: Vec<String>,
    /// Conditions that do not do what they seem to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ConditionProblem>,
    /// How many devices of each kind.
    pub counts: PreviewCounts,
    /// The devices that would lose access, in the order of their names.
    pub lose: Vec<DeniedDevice>,
    /// How many more there are.
    pub lose_omitted: usize,
    /// By owner, those with the most losses first.
    pub by_user: Vec<Group>,
    /// How many more there are.
    pub by_user_omitted: usize,
    /// By operating system, likewise.
    pub by_os: Vec<Group>,
    /// The scores of the devices.
    pub distribution: ScoreHistogram,
    /// How many would pass if the line were drawn elsewhere.
    pub thresholds: Vec<Threshold>,
}

/// How many devices of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewCounts {
    /// They pass.
    pub pass: usize,
    /// They have a score, and it is not good enough.
    pub below: usize,
    /// Their score is good enough, and their operating system is not asked for.
    pub other_os: usize,
    /// They have no score, which matches nothing.
    pub no_score: usize,
    /// Why they have none.
    pub no_score_because: BTreeMap<Verdict, usize>,
    /// They are shared in: postures do not restrict them.
    pub external: usize,
}

/// A device that would lose access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedDevice {
    /// The device.
    pub node_id: NodeId,
    /// Its full name in the tailnet.
    pub name: String,
    /// Its owner's login name.
    pub user: String,
    /// Its operating system.
    pub os: String,
    /// Its score, if it has one.
    pub score: Option<Score>,
    /// Why it would not pass.
    pub because: String,
}

/// How many of an owner's or an operating system's devices would pass, and how many lose access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Whose.
    pub name: String,
    /// They pass.
    pub pass: usize,
    /// They lose access.
    pub lose: usize,
}

/// A place to draw the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    /// The lowest score that passes.
    pub min_score: u8,
    /// They pass.
    pub pass: usize,
    /// They lose access.
    pub lose: usize,
}

/// What becomes of a device.
enum Access {
    Pass,
    Below,
    OtherOs,
    NoScore,
    External,
}

/// Judges all devices by a posture.
pub fn preview(subjects: &[DeviceForecast<'_>], posture: &Posture, key: &AttributeKey) -> Preview {
    let mut counts = PreviewCounts::default();
    let mut losers = Vec::new();
    let mut by_user = Groups::default();
    let mut by_os = Groups::default();
    for subject in subjects {
        let judgment = subject.judge(posture, key);
        match judgment {
            Access::Pass => counts.pass += 1,
            Access::Below => counts.below += 1,
            Access::OtherOs => counts.other_os += 1,
            Access::NoScore => {
                counts.no_score += 1;
                *counts
                    .no_score_because
                    .entry(verdict(subject.outcome))
                    .or_default() += 1;
            }
            Access::External => {
                counts.external += 1;
                continue;
            }
        }
        let passes = matches!(judgment, Access::Pass);
        by_user.count(&subject.device.user, passes);
        by_os.count(&subject.device.os, passes);
        if !passes {
            losers.push(subject.loser(&judgment));
        }
    }
    losers.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
    let own = || subjects.iter().filter(|subject| !subject.is_external());
    let (lose_omitted, mut by_user) = (losers.len().saturating_sub(NAMED), by_user.sorted());
    losers.truncate(NAMED);
    let by_user_omitted = by_user.len().saturating_sub(NAMED);
    by_user.truncate(NAMED);
    Preview {
        posture: posture.name.clone(),
        conditions: posture.written.clone(),
        used_in: posture.used_in.clone(),
        not_evaluated: posture.not_judged.clone(),
        problems: posture.problems.clone(),
        counts,
        lose: losers,
        lose_omitted,
        by_user,
        by_user_omitted,
        by_os: by_os.sorted(),
        distribution: own().filter_map(|subject| subject.score).collect(),
        thresholds: thresholds(posture.threshold(key))
            .map(|min_score| {
                let pass = own().filter(|subject| subject.would_pass(posture, key, min_score));
                let pass = pass.count();
                Threshold {
                    min_score,
                    pass,
                    lose: own().count() - pass,
                }
            })
            .collect(),
    }
}

/// Every ten points, and five around the posture's own line.
fn thresholds(own: Option<f64>) -> impl Iterator<Item = u8> {
    let near = move |score: u8| own.is_some_and(|own| (f64::from(score) - own).abs() <= 5.0);
    (0..=Score::MAX).filter(move |score| score.is_multiple_of(10) || near(*score))
}

impl DeviceForecast<'_> {
    fn is_external(&self) -> bool {
        self.device.is_external
    }

    fn judge(&self, posture: &Posture, key: &AttributeKey) -> Access {
        if self.is_external() {
            Access::External
        } else if !self.score_passes(posture, key) {
            match self.score {
                Some(_) => Access::Below,
                None => Access::NoScore,
            }
        } else if self.os_passes(posture, key) {
            Access::Pass
        } else {
            Access::OtherOs
        }
    }

    fn score_passes(&self, posture: &Posture, key: &AttributeKey) -> bool {
        let score = self.score.map(|score| Value::Number(score.get().into()));
        let ours = posture.judged.iter().filter(|one| one.is_about(key));
        ours.into_iter().all(|one| one.passes(score.as_ref()))
    }

    fn os_passes(&self, posture: &Posture, key: &AttributeKey) -> bool {
        let os = os_value(&self.device.os);
        let others = posture.judged.iter().filter(|one| !one.is_about(key));
        others.into_iter().all(|one| one.passes(os.as_ref()))
    }

    /// Whether it would if the posture asked for a score of at least so much.
    fn would_pass(&self, posture: &Posture, key: &AttributeKey, min_score: u8) -> bool {
        self.score.is_some_and(|score| score.get() >= min_score) && self.os_passes(posture, key)
    }

    fn loser(&self, judgment: &Access) -> DeniedDevice {
        let Device {
            node_id,
            name,
            user,
            os,
            ..
        } = self.device;
        let because = match (judgment, self.score) {
            (Access::Below, Some(score)) => format!("its score is {score}"),
            (Access::OtherOs, _) => format!("its operating system is {os}"),
            _ => self.outcome.to_string(),
        };
        DeniedDevice {
            node_id: node_id.clone(),
            name: name.to_string(),
            user: user.to_string(),
            os: os.to_string(),
            score: self.score,
            because,
        }
    }
}

#[derive(Default)]
struct Groups(BTreeMap<String, (usize, usize)>);

impl Groups {
    fn count(&mut self, name: &str, passes: bool) {
        let name = if name.is_empty() { "unknown" } else { name };
        let (pass, lose) = self.0.entry(name.to_owned()).or_default();
        *(if passes { pass } else { lose }) += 1;
    }

    /// Those with the most losses first.
    fn sorted(self) -> Vec<Group> {
        let groups = self.0.into_iter();
        let mut groups: Vec<Group> = groups
            .map(|(name, (pass, lose))| Group { name, pass, lose })
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.lose));
        groups
    }
}
