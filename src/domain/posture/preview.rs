//! Forecasts which devices pass a posture, and which lose access, before it is enforced.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::inventory::device::{Device, NodeId};
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::Score;
use crate::domain::matching::MatchOutcome;
use crate::domain::matching::reasons::Verdict;
use crate::domain::posture::{Posture, Value, os_value};
use crate::domain::snapshot::Snapshot;

/// Maximum denied devices, and maximum users, in a preview: a Lambda response has at most 6 MB.
const MAX_LISTED: usize = 500;

/// A device with its score after the next sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceForecast<'a> {
    device: &'a Device,
    outcome: &'a MatchOutcome,
    score: Option<Score>,
}

/// Forecasts the score of each device once the plan is carried out. A score that is kept, or whose removal is held, counts.
pub(crate) fn forecasts(snapshot: &Snapshot) -> Vec<DeviceForecast<'_>> {
    let key = &snapshot.settings.attribute_key;
    let outcomes = snapshot.matches.outcomes.iter();
    let forecasts = outcomes.filter_map(|(node, outcome)| {
        let record = snapshot.records.get(node);
        let record = record.filter(|record| record.key == *key);
        let score = match snapshot.plan.change(node) {
            Some(change) => change.new.as_ref().map(|new| new.score),
            None => record.map(|record| record.score),
        };
        Some(DeviceForecast {
            device: snapshot.devices.get(node)?,
            outcome,
            score,
        })
    });
    forecasts.collect()
}

/// The effect of a posture.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preview {
    #[serde(flatten)]
    pub(crate) posture: Posture,
    pub(crate) counts: PreviewCounts,
    /// The first devices that would lose access, by name.
    #[serde(rename = "lose")]
    pub(crate) denied: Vec<DeniedDevice>,
    #[serde(rename = "loseOmitted")]
    pub(crate) denied_omitted: usize,
    /// The devices of each owner; owners with the most denied devices first.
    pub(crate) by_user: Vec<Group>,
    pub(crate) by_user_omitted: usize,
    /// The devices of each operating system; those with the most denied devices first.
    pub(crate) by_os: Vec<Group>,
    pub(crate) distribution: ScoreHistogram,
    /// The effect of other minimum scores.
    pub(crate) thresholds: Vec<Threshold>,
}

/// The number of devices with each [`Access`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PreviewCounts {
    pub(crate) pass: usize,
    pub(crate) below: usize,
    pub(crate) other_os: usize,
    pub(crate) no_score: usize,
    #[serde(rename = "noScoreBecause")]
    pub(crate) no_score_verdicts: BTreeMap<Verdict, usize>,
    pub(crate) external: usize,
}

/// A device that would lose access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeniedDevice {
    pub(crate) node_id: NodeId,
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) os: String,
    pub(crate) score: Option<Score>,
    #[serde(rename = "because")]
    pub(crate) reason: String,
}

/// The devices of an owner or an operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) pass: usize,
    #[serde(rename = "lose")]
    pub(crate) denied: usize,
}

/// The effect of a minimum score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Threshold {
    pub(crate) min_score: u8,
    pub(crate) pass: usize,
    #[serde(rename = "lose")]
    pub(crate) denied: usize,
}

/// The result of evaluating a posture on a device.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    Pass,
    /// The score does not pass.
    Below,
    /// The score passes, the operating system does not.
    OtherOs,
    /// A device without a score meets no condition.
    NoScore,
    /// The device is shared in: postures do not restrict it.
    External,
}

/// Evaluates a posture on all devices.
pub(crate) fn preview_posture(forecasts: &[DeviceForecast<'_>], posture: Posture) -> Preview {
    let mut counts = PreviewCounts::default();
    let mut own = Vec::new();
    for forecast in forecasts {
        let access = forecast.access(&posture);
        match access {
            Access::Pass => counts.pass += 1,
            Access::Below => counts.below += 1,
            Access::OtherOs => counts.other_os += 1,
            Access::NoScore => {
                counts.no_score += 1;
                let verdict = forecast.outcome.into();
                *counts.no_score_verdicts.entry(verdict).or_default() += 1;
            }
            Access::External => {
                counts.external += 1;
                continue;
            }
        }
        own.push((forecast, access));
    }
    let denied = own.iter().filter(|(_, access)| *access != Access::Pass);
    let mut denied: Vec<DeniedDevice> = denied.map(|(one, access)| one.denied(*access)).collect();
    denied.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
    let (denied, denied_omitted) = limit(denied);
    let (by_user, by_user_omitted) = limit(groups(&own, |device| &device.user));
    let threshold = |min_score| {
        let scored = own
            .iter()
            .map(|(forecast, _)| forecast)
            .filter(|one| one.score.is_some_and(|score| score.get() >= min_score));
        let pass = scored.filter(|one| one.os_passes(&posture)).count();
        Threshold {
            min_score,
            pass,
            denied: own.len() - pass,
        }
    };
    let scores = own.iter().filter_map(|(one, _)| one.score);
    Preview {
        thresholds: min_scores(posture.threshold()).map(threshold).collect(),
        posture,
        counts,
        denied,
        denied_omitted,
        by_user,
        by_user_omitted,
        by_os: groups(&own, |device| &device.os),
        distribution: scores.map(|score| (score, 1)).collect(),
    }
}

/// Counts passing and denied devices by name. The groups with the most denied devices come first.
fn groups<'a>(
    devices: &[(&DeviceForecast<'a>, Access)],
    name: fn(&'a Device) -> &'a str,
) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (forecast, access) in devices {
        let name = match name(forecast.device) {
            "" => "unknown",
            name => name,
        };
        let group = groups.entry(name).or_insert_with(|| Group {
            name: name.to_owned(),
            pass: 0,
            denied: 0,
        });
        match access {
            Access::Pass => group.pass += 1,
            _ => group.denied += 1,
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.denied));
    groups
}

/// Truncates a list to [`MAX_LISTED`]. Returns how many are omitted, too.
fn limit<T>(mut items: Vec<T>) -> (Vec<T>, usize) {
    let omitted = items.len().saturating_sub(MAX_LISTED);
    items.truncate(MAX_LISTED);
    (items, omitted)
}

/// Returns each tenth score, and those within five points of the posture's own threshold.
fn min_scores(threshold: Option<f64>) -> impl Iterator<Item = u8> {
    let is_near =
        move |score: u8| threshold.is_some_and(|own| (f64::from(score) - own).abs() <= 5.0);
    (0..=Score::MAX).filter(move |score| score.is_multiple_of(10) || is_near(*score))
}

impl DeviceForecast<'_> {
    fn access(&self, posture: &Posture) -> Access {
        let score = self.score.map(|score| Value::Number(score.get().into()));
        let mut conditions = posture.on_score.iter();
        let score_passes = conditions.all(|condition| condition.passes(score.as_ref()));
        match score {
            _ if self.device.is_external => Access::External,
            Some(_) if !score_passes => Access::Below,
            None if !score_passes => Access::NoScore,
            _ if self.os_passes(posture) => Access::Pass,
            _ => Access::OtherOs,
        }
    }

    fn os_passes(&self, posture: &Posture) -> bool {
        let os = os_value(&self.device.os);
        let mut conditions = posture.on_os.iter();
        conditions.all(|condition| condition.passes(os.as_ref()))
    }

    fn denied(&self, access: Access) -> DeniedDevice {
        let device = self.device;
        let reason = match (access, self.score) {
            (Access::Below, Some(score)) => format!("its score is {score}"),
            (Access::OtherOs, _) => format!("its operating system is {}", device.os),
            _ => self.outcome.to_string(),
        };
        DeniedDevice {
            node_id: device.node_id.clone(),
            name: device.name.to_string(),
            user: device.user.to_string(),
            os: device.os.to_string(),
            score: self.score,
            reason,
        }
    }
}
