//! Finds the outcome of each device, with the reason, and what a person should know about them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Device, Devices, Identity, NodeId};
use crate::domain::inventory::host::{Aid, Assessment, FalconInventory, Host};
use crate::domain::inventory::record::{NodeRecord, NodeRecords};
use crate::domain::inventory::serial::{InvalidSerial, Serial};
use crate::domain::matching::candidates::{Candidate, CandidateStatus, Candidates, Perspective};
use crate::domain::matching::causes::{changed_serial, find_causes};
use crate::domain::matching::hosts::HostsBySerial;
use crate::domain::matching::sharing::{DevicesBySerial, SharedSerials, find_shared};
use crate::domain::matching::{
    Evidence, MatchCounts, MatchOutcome, MatchRules, Matches, Serials, finding_kind, serials,
};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::settings::OnSharedSerial;

/// Minimum connected devices whose silence together is implausible.
const MIN_SILENT_TO_DOUBT: usize = 3;

const SILENCE_REMEDY: &str = "Check in the Falcon console when these hosts were last seen. If the sensors are down \
                              indeed, maxHostAgeDays ends their scores.";

/// An observation, with its hosts judged for each device.
#[derive(Debug)]
pub(crate) struct Matcher<'a> {
    falcon: &'a FalconInventory,
    records: &'a NodeRecords,
    rules: &'a MatchRules,
    hosts: HostsBySerial<'a>,
    /// In the order of their ids.
    devices: Vec<Identified<'a>>,
    shared: SharedSerials,
    /// Why Falcon's clock is doubted, if it is. No sensor counts as silent then.
    silence_doubt: Option<String>,
}

/// A device with its serials.
#[derive(Debug)]
struct Identified<'a> {
    device: &'a Device,
    serials: Serials,
    invalid: Vec<(SmolStr, InvalidSerial)>,
    /// The hosts with one of the serials, judged for the device.
    candidates: Candidates<'a>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(
        falcon: &'a FalconInventory,
        devices: &'a Devices,
        records: &'a NodeRecords,
        rules: &'a MatchRules,
    ) -> Self {
        let hosts = HostsBySerial::new(falcon);
        let identified = devices.values().map(|device| {
            let (serials, invalid) = serials(device.identity.serials(), &rules.ignored_serials);
            Identified {
                device,
                serials,
                invalid,
                candidates: Candidates::new(),
            }
        });
        let identified: Vec<Identified<'_>> = identified.collect();
        let shared = {
            let own = identified.iter().filter(|one| !one.device.is_external);
            let by_serial = DevicesBySerial::new(own.map(|one| (one.device, &one.serials)));
            find_shared(&hosts, &by_serial, records, rules)
        };
        let mut matcher = Self {
            falcon,
            records,
            rules,
            hosts,
            devices: identified,
            shared,
            silence_doubt: None,
        };
        matcher.judge_hosts();
        matcher.silence_doubt = matcher.doubt_silence();
        if matcher.silence_doubt.is_some() {
            matcher.judge_hosts();
        }
        matcher
    }

    /// Judges the hosts of each device.
    fn judge_hosts(&mut self) {
        let judge = |one: &Identified<'_>| -> Candidates<'a> {
            let serials = one.serials.iter();
            serials
                .flat_map(|serial| self.rivals(serial, Some(one.device)))
                .collect()
        };
        let judged: Vec<Candidates<'a>> = self.devices.iter().map(judge).collect();
        for (device, candidates) in self.devices.iter_mut().zip(judged) {
            device.candidates = candidates;
        }
    }

    pub(crate) fn rules(&self) -> &'a MatchRules {
        self.rules
    }

    /// Returns the hosts with one of a device's serials, judged for it.
    pub(crate) fn candidates(&self, node_id: &NodeId) -> &[Candidate<'a>] {
        let found = self
            .devices
            .binary_search_by_key(&node_id, |one| &one.device.node_id);
        let device = found.ok().and_then(|index| self.devices.get(index));
        device.map_or(&[], |device| device.candidates.as_slice())
    }

    /// Returns the hosts with a serial, judged for a device that reports it, or for any.
    pub(crate) fn rivals(&self, serial: &Serial, device: Option<&Device>) -> Candidates<'a> {
        let perspective = Perspective {
            rules: self.rules,
            device,
            is_silence_doubted: self.silence_doubt.is_some(),
        };
        let withholds = self.rules.on_shared_serial == OnSharedSerial::Withhold;
        // An external device gets no score in any case, so its hosts are told as they are.
        let is_own = device.is_some_and(|device| !device.is_external);
        let sharing = self.shared.get(serial).filter(|_| withholds && is_own);
        perspective.judge(self.hosts.with_serial(serial), &self.falcon.scores, sharing)
    }

    /// Returns the names of the machines that share a serial.
    pub(crate) fn names_of(&self, serial: &Serial) -> impl Iterator<Item = &str> {
        let sharing = self.shared.get(serial).into_iter();
        sharing.flat_map(|sharing| sharing.names.iter().map(String::as_str))
    }

    /// Finds all outcomes.
    pub(crate) fn matches(&self) -> Matches {
        let outcome = |one| (Identified::id(one).clone(), self.outcome(one));
        let mut outcomes: BTreeMap<NodeId, MatchOutcome> =
            self.devices.iter().map(outcome).collect();
        let is_unmatched =
            |outcome: &MatchOutcome| matches!(outcome, MatchOutcome::Unmatched { .. });
        let unmatched = self.devices.iter().zip(outcomes.values());
        let unmatched = unmatched
            .filter(|(_, outcome)| is_unmatched(outcome))
            .map(|(one, _)| (one.device, self.records.get(one.id())));
        for (id, found) in find_causes(self.falcon, self.rules, unmatched) {
            if let Some(MatchOutcome::Unmatched { cause, .. }) = outcomes.get_mut(&id) {
                *cause = Some(found);
            }
        }
        let matched = outcomes
            .values()
            .filter(|outcome| outcome.has_host())
            .count();
        let unmatched = outcomes.values().filter(|outcome| is_unmatched(outcome));
        let counts = MatchCounts {
            provider_hosts: self.falcon.visible,
            possible_matched: matched + unmatched.count(),
            matched,
        };
        Matches {
            findings: self.findings(&outcomes),
            outcomes,
            counts,
        }
    }

    fn outcome(&self, identified: &Identified<'_>) -> MatchOutcome {
        let device = identified.device;
        match &device.identity {
            _ if device.is_external => MatchOutcome::External,
            Identity::Missing => MatchOutcome::NoIdentity { disabled: false },
            Identity::Disabled => MatchOutcome::NoIdentity { disabled: true },
            Identity::Serials(_) if identified.serials.is_empty() => MatchOutcome::NoSerial {
                invalid: identified.invalid.clone(),
            },
            Identity::Serials(_) => self.outcome_for_serials(identified),
        }
    }

    fn outcome_for_serials(&self, identified: &Identified<'_>) -> MatchOutcome {
        let candidates = &identified.candidates;
        let aids = |status: CandidateStatus| aids(candidates, |one| one == status);
        if candidates.is_empty() {
            return MatchOutcome::Unmatched {
                serials: identified.serials.clone(),
                cause: None,
            };
        }
        let withholding = candidates.iter().filter(|one| one.is_withholding);
        let contained: BTreeSet<Aid> = withholding.map(|one| one.host.aid.clone()).collect();
        if !contained.is_empty() {
            return MatchOutcome::Contained { aids: contained };
        }
        let record = self.records.get(identified.id());
        if let Some(outcome) = scored(candidates, record) {
            return outcome;
        }
        // Of several reasons, the one that is the last in the order of the rules is the nearest to a score.
        let reasons: BTreeSet<CandidateStatus> = candidates
            .iter()
            .map(|candidate| candidate.status)
            .collect();
        match reasons.first() {
            Some(CandidateStatus::SharedSerial) => {
                let shared = identified.serials.iter();
                MatchOutcome::SharedSerial {
                    serials: shared
                        .filter(|serial| self.shared.contains_key(serial))
                        .cloned()
                        .collect(),
                }
            }
            Some(status @ CandidateStatus::OtherPlatform) => MatchOutcome::OtherPlatform {
                aids: aids(*status),
            },
            Some(status @ CandidateStatus::Silent) => MatchOutcome::Silent {
                aids: aids(*status),
            },
            Some(CandidateStatus::Stale | CandidateStatus::Superseded) => MatchOutcome::Stale {
                aids: aids(CandidateStatus::Stale),
            },
            _ => MatchOutcome::Unassessed {
                aids: lacking_score(candidates),
            },
        }
    }

    /// Returns why Falcon's clock is doubted rather than the sensors, if it is: too many connected devices have a silent one.
    /// Hosts beyond the age limit have no say, since dead records must not end the rule.
    fn doubt_silence(&self) -> Option<String> {
        let limit = self.rules.max_silence_hours?;
        let (mut silent, mut all) = (0, 0);
        for device in &self.devices {
            let speakers = device.speakers();
            let recent = speakers.filter(|host| self.rules.is_recent(host));
            if let Some(seen) = recent.map(|host| host.last_seen).max() {
                all += 1;
                silent += usize::from(self.rules.exceeds_silence(seen));
            }
        }
        (silent >= MIN_SILENT_TO_DOUBT && silent * 5 > all).then(|| {
            format!(
                "Falcon has not seen the sensors of {silent} of {all} connected devices for {limit} h, so its times are \
                 doubted, and no score is withheld for silence"
            )
        })
    }

    fn findings(&self, outcomes: &BTreeMap<NodeId, MatchOutcome>) -> Vec<Finding> {
        let mut cases: BTreeMap<FindingKind, Vec<String>> = BTreeMap::new();
        let mut add = |kind, case| cases.entry(kind).or_default().push(case);
        for (identified, outcome) in self.devices.iter().zip(outcomes.values()) {
            let Identified {
                device, invalid, ..
            } = identified;
            if let Some((text, reason)) = invalid.first().filter(|_| !device.is_external) {
                let case = format!("{}: {text:?} is {reason}", device.name);
                add(FindingKind::PlaceholderSerials, case);
            }
            match (finding_kind(outcome), outcome) {
                (
                    Some(kind),
                    MatchOutcome::Unmatched {
                        cause: Some(cause), ..
                    },
                ) => add(kind, format!("{}: {cause}", device.name)),
                // These are told below, with names and times.
                (
                    None
                    | Some(
                        FindingKind::SharedSerials
                        | FindingKind::SilentSensors
                        | FindingKind::OtherPlatform,
                    ),
                    _,
                ) => {}
                (Some(kind), _) => add(kind, device.name.to_string()),
            }
            let candidates = &identified.candidates;
            let mut statuses = candidates.iter().map(|candidate| candidate.status);
            let has_score = outcome.score().is_some() || device.is_external;
            if !has_score && statuses.any(|status| status == CandidateStatus::OtherPlatform) {
                add(FindingKind::OtherPlatform, device.name.to_string());
            }
            let seen = identified.speakers().map(|host| host.last_seen).max();
            if let Some(seen) = seen.filter(|seen| self.rules.is_silent(*seen)) {
                let seen = seen.map_or_else(
                    || "at no known time".to_owned(),
                    |seen| format!("{seen:.0}, {} ago", age(self.rules.now, seen)),
                );
                let Device { name, node_id, .. } = device;
                let case = format!("{name} ({node_id}): sensor last seen {seen}");
                add(FindingKind::SilentSensors, case);
            }
        }
        for (serial, sharing) in &self.shared {
            let names: Vec<&str> = sharing.names.iter().map(String::as_str).collect();
            add(
                FindingKind::SharedSerials,
                format!("{serial}: {}", names.join(", ")),
            );
        }
        for record in self.records.values() {
            if let Some(now) = changed_serial(self.falcon, record) {
                let NodeRecord { aid, serial, .. } = record;
                add(
                    FindingKind::ChangedSerials,
                    format!("{aid} has changed its serial from {serial} to {now}"),
                );
            }
        }
        for (aid, assessment) in &self.falcon.scores {
            if let Assessment::Invalid(text) = assessment {
                add(FindingKind::InvalidScores, format!("{aid}: {text}"));
            }
        }
        let cases = cases.into_iter();
        let findings = cases.filter_map(|(kind, cases)| Finding::new(kind, cases));
        let doubt = self.silence_doubt.clone();
        let doubt = Finding::new(FindingKind::SuspiciousObservation, doubt);
        let doubt = doubt.map(|doubt| doubt.with_remedy(SILENCE_REMEDY));
        doubt.into_iter().chain(findings).collect()
    }
}

/// Returns the outcome of a device with a host that counts and has a score.
fn scored(candidates: &[Candidate<'_>], record: Option<&NodeRecord>) -> Option<MatchOutcome> {
    let deciding = candidates
        .iter()
        .filter(|candidate| candidate.status == CandidateStatus::Deciding)
        .min_by_key(|candidate| candidate.rank())?;
    let (score, host) = (deciding.score()?, deciding.host);
    let serial = host.serial.as_ref()?;
    let mut evidence = Evidence {
        score,
        unwitnessed: None,
        aid: host.aid.clone(),
        serial: serial.clone(),
        hostname: host.hostname.clone(),
        last_seen: host.last_seen,
        unassessed: lacking_score(candidates),
    };
    if deciding.is_witness {
        return Some(MatchOutcome::Scored(evidence));
    }
    match record {
        None => Some(MatchOutcome::Unwitnessed(evidence)),
        Some(record) => {
            if score > record.score {
                evidence.score = record.score;
                evidence.unwitnessed = Some(score);
            }
            Some(MatchOutcome::Scored(evidence))
        }
    }
}

impl<'a> Identified<'a> {
    fn id(&self) -> &'a NodeId {
        &self.device.node_id
    }

    /// Iterates over the hosts that speak for the device while it is connected, whenever they were seen.
    fn speakers(&self) -> impl Iterator<Item = &'a Host> {
        let is_judged = self.device.is_connected() && !self.device.is_external;
        let candidates = self.candidates.iter();
        let speakers = candidates.filter(move |candidate| is_judged && candidate.is_speaker);
        speakers.map(|candidate| candidate.host)
    }
}

fn aids(candidates: &[Candidate<'_>], includes: impl Fn(CandidateStatus) -> bool) -> BTreeSet<Aid> {
    let hosts = candidates.iter().filter(|one| includes(one.status));
    hosts.map(|candidate| candidate.host.aid.clone()).collect()
}

fn lacking_score(candidates: &[Candidate<'_>]) -> BTreeSet<Aid> {
    aids(candidates, CandidateStatus::lacks_score)
}

/// Returns the time between both in words: hours below two days, else days.
fn age(now: Timestamp, seen: Timestamp) -> String {
    let hours = now.duration_since(seen).as_hours();
    match hours {
        0..48 => format!("{hours} hours"),
        _ => format!("{} days", hours / 24),
    }
}
