//! Computes the score of each device and its reason, slowly and simply, from the simulators' data. Shares no code with the
//! function: neither the judgement of serials, nor the list of placeholders, nor the order of the steps.
//!
//! The rules are those of "Which host speaks for a device". An [`Oracle`] remembers what it said, as the tailnet does.

mod claims;
mod hosts;
mod serials;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use posture_simulators::{Device, Host, PostureIdentity};
use serde_json::Value;

use claims::Claims;
pub(crate) use settings::Settings;

/// The data of both sides at one time.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) hosts: Vec<Host>,
    pub(crate) scores: BTreeMap<String, Value>,
    pub(crate) devices: Vec<Device>,
    pub(crate) now: Timestamp,
}

/// The score that a device holds, and the host that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) score: i64,
    /// The serial of the host, as compared.
    pub(crate) serial: String,
    /// The first complete run that found the score undeserved.
    pub(crate) absent_since: Option<Timestamp>,
    /// When the score expires.
    pub(crate) ends: Timestamp,
}

/// The reason why a device has its score or none, with the names of `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The verdict.
    pub(crate) verdict: &'static str,
    /// The lowest score of the hosts that count, whether or not the device may rise to it.
    pub(crate) score: Option<i64>,
    /// The host that determines the score.
    pub(crate) decides: Option<String>,
    /// The status of each host that has one of its serials.
    pub(crate) hosts: BTreeMap<String, &'static str>,
    /// The validity of each text that it reports as a serial.
    pub(crate) serials: Vec<bool>,
    /// True if a host that decides was seen so lately that the score may rise.
    pub(crate) may_rise: bool,
    /// The serial of the host that decides.
    serial: String,
}

/// The state after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The attributes in the tailnet.
    pub(crate) attributes: BTreeMap<String, i64>,
    pub(crate) reasons: BTreeMap<String, Reason>,
    /// The subjects of the findings that hosts and devices cause together: nodes, and serials where they are shared.
    pub(crate) findings: BTreeMap<&'static str, BTreeSet<String>>,
}

/// The function as it should be: settings, and what it wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    settings: Settings,
    records: BTreeMap<String, Record>,
}

impl Oracle {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            records: BTreeMap::new(),
        }
    }

    /// Goes on from these records, by node.
    pub(crate) fn with_records(settings: Settings, records: BTreeMap<String, Record>) -> Self {
        Self { settings, records }
    }

    /// Performs a complete run. Removals are never held.
    pub(crate) fn run(&mut self, world: &World) -> Expected {
        // Nobody loses access by a device that left: its attributes went with it, and its record is forgotten.
        let is_there = |node: &String| world.devices.iter().any(|device| device.node_id == *node);
        // An expired score has no record.
        self.records
            .retain(|node, record| is_there(node) && record.ends > world.now);
        let claims = Claims::new(&self.settings, &self.records, world);
        let reasons: BTreeMap<String, Reason> = world
            .devices
            .iter()
            .map(|device| (device.node_id.clone(), claims.reason(device)))
            .collect();
        let findings = claims.findings();
        for (node, reason) in &reasons {
            let before = self.records.remove(node);
            let after = self.next(before, reason, world.now);
            self.records
                .extend(after.map(|record| (node.clone(), record)));
        }
        Expected {
            attributes: self
                .records
                .iter()
                .map(|(node, record)| (node.clone(), record.score))
                .collect(),
            reasons,
            findings,
        }
    }

    /// Returns when a score ends whose value stays: a run renews what has less than three quarters of its life left.
    fn renewed(&self, ends: Timestamp, now: Timestamp) -> Timestamp {
        let ttl = self.settings.ttl;
        if ends.duration_since(now) * 4 < ttl * 3 {
            now + ttl
        } else {
            ends
        }
    }

    /// Returns what a device holds after a run.
    fn next(&self, before: Option<Record>, reason: &Reason, now: Timestamp) -> Option<Record> {
        let deserved = reason.score.map(|score| Record {
            score,
            serial: reason.serial.clone(),
            absent_since: None,
            ends: now + self.settings.ttl,
        });
        match (before, deserved) {
            // A contained host takes the score at once, whatever `onMissing` says.
            (_, None) if reason.verdict == "contained" => None,
            (None, None) => None,
            (None, Some(deserved)) => reason.may_rise.then_some(deserved),
            (Some(before), Some(deserved)) => {
                let rises = deserved.score > before.score;
                let is_left = rises && !reason.may_rise || deserved.score == before.score;
                let ends = self.renewed(before.ends, now);
                Some(if is_left && rises {
                    Record {
                        absent_since: None,
                        ends,
                        ..before
                    }
                } else if is_left {
                    Record { ends, ..deserved }
                } else {
                    deserved
                })
            }
            (Some(before), None) if self.settings.keeps => Some(Record {
                absent_since: None,
                ends: self.renewed(before.ends, now),
                ..before
            }),
            (Some(before), None) => {
                let since = before.absent_since.unwrap_or(now);
                let is_due = now.duration_since(since) >= self.settings.remove_after;
                (!is_due).then_some(Record {
                    absent_since: Some(since),
                    ..before
                })
            }
        }
    }
}

/// The score of every device that should have one, in an integration with these settings that has written nothing yet.
pub(crate) fn oracle(settings: &Settings, world: &World) -> BTreeMap<String, i64> {
    Oracle::new(settings.clone()).run(world).attributes
}

/// Returns whether a device reports nothing.
fn has_no_identity(device: &Device) -> bool {
    matches!(
        device.posture_identity,
        None | Some(PostureIdentity::Disabled { .. })
    ) || device.serials().is_empty()
}
