//! Matches devices to Falcon hosts by serial number: one outcome per device, with the reason.

pub(crate) mod candidates;
pub(crate) mod reasons;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Device, Devices, Identity, NodeId};
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::{Aid, Assessment, FalconInventory, Hosts, Score};
use crate::domain::inventory::serial::{InvalidSerial, Serial};
use crate::domain::matching::candidates::{Candidate, CandidateStatus, Candidates, HostsBySerial};
use crate::domain::matching::reasons::Verdict;
use crate::domain::status::finding::{Finding, FindingKind};

/// The outcome of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// The device has a score.
    Scored(Evidence),
    /// Hosts match, but none has an assessment.
    Unassessed {
        /// Sensors without an assessment.
        aids: BTreeSet<Aid>,
    },
    /// Hosts match, but all are older than the integration's `maxHostAgeDays`.
    Stale {
        /// Sensors that were not seen since.
        aids: BTreeSet<Aid>,
    },
    /// Falcon has none of its serials.
    Unmatched {
        /// The usable serials of the device.
        serials: Serials,
    },
    /// The device reports serials, but none that identifies a machine.
    NoSerial {
        /// The reported texts, each with the reason why it is invalid.
        invalid: Vec<(SmolStr, InvalidSerial)>,
    },
    /// The device reports no posture identity.
    NoIdentity {
        /// True if posture reporting is switched off on the device.
        disabled: bool,
    },
    /// The device is shared in from another tailnet.
    External,
}

/// The score of a device with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The lowest score of the live hosts.
    pub score: Score,
    /// The host that decides.
    pub aid: Aid,
    /// The serial that led to the host.
    pub serial: Serial,
    /// The name of the host, if it has one.
    pub hostname: Option<SmolStr>,
    /// Live hosts of the device's serials without an assessment. They do not count. Before the score is written, they are
    /// looked up: a lower assessment may be missing only because it moved during the listing.
    pub unassessed: BTreeSet<Aid>,
}

/// The outcomes of an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// One outcome for each listed device.
    pub outcomes: BTreeMap<NodeId, MatchOutcome>,
    /// Totals of the outcomes.
    pub counts: MatchCounts,
    /// Findings of the match, such as devices without a host.
    pub findings: Vec<Finding>,
}

/// Counts of hosts and devices, named as in Tailscale's own integration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MatchCounts {
    /// Visible hosts of the Falcon account.
    #[serde(rename = "providerHostCount")]
    pub provider_hosts: usize,
    /// Own nodes with a usable serial.
    #[serde(rename = "possibleMatchedCount")]
    pub possible_matched: usize,
    /// Nodes with a Falcon host.
    #[serde(rename = "matchedCount")]
    pub matched: usize,
}

/// Joins hosts and devices by serial number. Hosts last seen before `min_last_seen`, or never at a known time, do not count.
pub fn join(
    falcon: &FalconInventory,
    devices: &Devices,
    min_last_seen: Option<Timestamp>,
) -> Matches {
    let hosts = HostsBySerial::new(falcon, min_last_seen);
    let mut outcomes = BTreeMap::new();
    let (mut matched, mut unmatched) = (0, 0);
    let mut cases: BTreeMap<FindingKind, Vec<String>> = BTreeMap::new();
    for (id, device) in devices {
        let (outcome, first_invalid) = outcome(device, &hosts);
        if let Some((text, reason)) = first_invalid {
            let case = format!("{}: {text:?} is {reason}", device.name);
            let kind = FindingKind::PlaceholderSerials;
            cases.entry(kind).or_default().push(case);
        }
        if let Some(kind) = finding_kind(&outcome) {
            let case = device.name.to_string();
            cases.entry(kind).or_default().push(case);
        }
        matched += usize::from(outcome.has_host());
        unmatched += usize::from(matches!(outcome, MatchOutcome::Unmatched { .. }));
        outcomes.insert(id.clone(), outcome);
    }
    cases.insert(FindingKind::SharedSerials, shared_serials(&hosts).collect());
    cases.insert(FindingKind::InvalidScores, invalid_scores(falcon).collect());
    let findings = cases.into_iter();
    let findings = findings.filter_map(|(kind, cases)| Finding::new(kind, cases));
    Matches {
        outcomes,
        counts: MatchCounts {
            provider_hosts: falcon.visible,
            possible_matched: matched + unmatched,
            matched,
        },
        findings: findings.collect(),
    }
}

impl Matches {
    /// Counts the devices by score.
    pub(crate) fn score_histogram(&self) -> ScoreHistogram {
        let scores = self.outcomes.values().filter_map(MatchOutcome::score);
        scores.map(|score| (score, 1)).collect()
    }
}

impl MatchOutcome {
    pub(crate) fn score(&self) -> Option<Score> {
        match self {
            Self::Scored(evidence) => Some(evidence.score),
            _ => None,
        }
    }

    /// Returns true if a Falcon host matches, whether it counts or not.
    pub fn has_host(&self) -> bool {
        matches!(
            self,
            Self::Scored(_) | Self::Unassessed { .. } | Self::Stale { .. }
        )
    }
}

/// Returns the serials of the devices for a lookup of hosts, as reported and in normal form: Falcon does not document
/// whether its filter folds case.
pub fn serial_query_values(devices: &Devices) -> BTreeSet<String> {
    let spellings =
        own_serials(devices).map(|(text, serial)| [text.trim().to_owned(), serial.to_string()]);
    spellings.flatten().collect()
}

/// Returns the hosts that have a serial of one of the devices, whatever the spelling.
pub fn matching_aids(hosts: &Hosts, devices: &Devices) -> BTreeSet<Aid> {
    let serials = own_serials(devices).map(|(_, serial)| Some(serial));
    let wanted: BTreeSet<Option<Serial>> = serials.collect();
    let matching = hosts.values().filter(|host| wanted.contains(&host.serial));
    matching.map(|host| host.aid.clone()).collect()
}

/// Iterates over the valid serials of the tailnet's own devices, each with the reported text.
fn own_serials(devices: &Devices) -> impl Iterator<Item = (&SmolStr, Serial)> {
    let own = devices.values().filter(|device| !device.is_external);
    let texts = own.flat_map(|device| device.identity.serials());
    texts.filter_map(|text| Some((text, Serial::parse(text).ok()?)))
}

/// The serials of a device, sorted and without duplicates. Real devices have up to three.
pub type Serials = SmallVec<[Serial; 2]>;

/// Parses the reported texts. Returns the serials, and the invalid texts with the reason.
pub fn serials(texts: &[SmolStr]) -> (Serials, Vec<(SmolStr, InvalidSerial)>) {
    let mut usable = Serials::new();
    let mut invalid = Vec::new();
    for text in texts {
        match Serial::parse(text) {
            Ok(serial) => usable.push(serial),
            Err(reason) => invalid.push((text.clone(), reason)),
        }
    }
    usable.sort_unstable();
    usable.dedup();
    (usable, invalid)
}

/// Returns the outcome of a device, and the first invalid text that it reports as a serial.
fn outcome(
    device: &Device,
    hosts: &HostsBySerial<'_>,
) -> (MatchOutcome, Option<(SmolStr, InvalidSerial)>) {
    let texts = match &device.identity {
        _ if device.is_external => return (MatchOutcome::External, None),
        Identity::Missing => return (MatchOutcome::NoIdentity { disabled: false }, None),
        Identity::Disabled => return (MatchOutcome::NoIdentity { disabled: true }, None),
        Identity::Serials(texts) => texts,
    };
    let (serials, invalid) = serials(texts);
    let first_invalid = invalid.first().cloned();
    if serials.is_empty() {
        return (MatchOutcome::NoSerial { invalid }, first_invalid);
    }
    (outcome_for_serials(serials, hosts), first_invalid)
}

fn outcome_for_serials(serials: Serials, hosts: &HostsBySerial<'_>) -> MatchOutcome {
    let candidates: Candidates<'_> = serials
        .iter()
        .flat_map(|serial| hosts.candidates(serial))
        .collect();
    let unassessed = aids(&candidates, CandidateStatus::lacks_score);
    let lowest = candidates
        .iter()
        .filter(|candidate| candidate.status == CandidateStatus::Deciding)
        .filter_map(|candidate| {
            let host = candidate.host;
            Some((candidate.score()?, host, host.serial.as_ref()?))
        })
        .min_by_key(|(score, host, _)| (*score, &host.aid));
    if let Some((score, host, serial)) = lowest {
        return MatchOutcome::Scored(Evidence {
            score,
            aid: host.aid.clone(),
            serial: serial.clone(),
            hostname: host.hostname.clone(),
            unassessed,
        });
    }
    if candidates.is_empty() {
        return MatchOutcome::Unmatched { serials };
    }
    if unassessed.is_empty() {
        return MatchOutcome::Stale {
            aids: aids(&candidates, |status| status == CandidateStatus::Stale),
        };
    }
    MatchOutcome::Unassessed { aids: unassessed }
}

fn aids(candidates: &[Candidate<'_>], includes: impl Fn(CandidateStatus) -> bool) -> BTreeSet<Aid> {
    let hosts = candidates.iter().filter(|one| includes(one.status));
    hosts.map(|candidate| candidate.host.aid.clone()).collect()
}

/// Returns the finding that a device without a score is a case of.
pub(crate) fn finding_kind(outcome: &MatchOutcome) -> Option<FindingKind> {
    match Verdict::from(outcome) {
        Verdict::NoIdentity => Some(FindingKind::NoIdentity),
        Verdict::Unmatched => Some(FindingKind::Unmatched),
        Verdict::Unassessed => Some(FindingKind::Unassessed),
        Verdict::Stale => Some(FindingKind::StaleHosts),
        // Invalid serials are a finding with their texts.
        Verdict::NoSerial | Verdict::Scored | Verdict::External => None,
    }
}

/// Returns the serials that live hosts with different names share, each with up to three of the names.
fn shared_serials(hosts: &HostsBySerial<'_>) -> impl Iterator<Item = String> {
    hosts.shared_serials().filter_map(|(serial, candidates)| {
        let names: BTreeSet<String> = candidates
            .iter()
            .filter(|candidate| candidate.status.is_live())
            .filter_map(|candidate| candidate.host.hostname.as_deref().map(str::to_lowercase))
            .collect();
        (names.len() > 1).then(|| {
            let names: Vec<String> = names.into_iter().take(3).collect();
            format!("{serial}: {}", names.join(", "))
        })
    })
}

fn invalid_scores(falcon: &FalconInventory) -> impl Iterator<Item = String> {
    let assessments = falcon.scores.iter();
    assessments.filter_map(|(aid, assessment)| match assessment {
        Assessment::Score(_) => None,
        Assessment::Invalid(text) => Some(format!("{aid}: {text}")),
    })
}
