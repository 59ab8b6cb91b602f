//! Matches devices to Falcon hosts by serial number: one outcome per device, with the reason.

pub(crate) mod candidates;
mod causes;
mod hosts;
mod matcher;
pub(crate) mod reasons;
mod rules;
pub(crate) mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Devices, NodeId};
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::inventory::host::{Aid, FalconInventory, Hosts, Score};
use crate::domain::inventory::record::NodeRecords;
use crate::domain::inventory::serial::{InvalidSerial, Serial};
use crate::domain::matching::reasons::Verdict;
use crate::domain::status::finding::{Finding, FindingKind};
use crate::settings::IgnoredSerials;

pub use causes::UnmatchedCause;
pub(crate) use matcher::Matcher;
pub use rules::MatchRules;

/// The outcome of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// The device has a score.
    Scored(Evidence),
    /// A host has a score, and its sensor was not seen near the device: a first score waits until it is.
    Unwitnessed(Evidence),
    /// A host that speaks for the device is isolated from the network.
    Contained {
        /// Isolated hosts.
        aids: BTreeSet<Aid>,
    },
    /// Hosts match, but none has an assessment.
    Unassessed {
        /// Sensors without an assessment.
        aids: BTreeSet<Aid>,
    },
    /// Hosts match, but other machines share the serials, and the hosts speak for none or for another one.
    SharedSerial {
        /// The shared serials.
        serials: Serials,
    },
    /// Hosts match, but all are of another platform.
    OtherPlatform {
        /// Sensors of the other platform.
        aids: BTreeSet<Aid>,
    },
    /// The device is connected, and no sensor was seen within the integration's `maxSilenceHours`.
    Silent {
        /// Silent sensors.
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
        /// Why no host matches, if Falcon has the machine.
        cause: Option<UnmatchedCause>,
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
    /// The lowest score of the hosts that count; or the score that stands, if the host may not raise it.
    pub score: Score,
    /// The score of the host, if it may not raise the one that stands: its sensor was not seen near the device.
    pub unwitnessed: Option<Score>,
    /// The host that decides.
    pub aid: Aid,
    /// The serial that led to the host.
    pub serial: Serial,
    /// The name of the host, if it has one.
    pub hostname: Option<SmolStr>,
    /// When the host was last seen.
    pub last_seen: Option<Timestamp>,
    /// Hosts without an assessment that would count. Before the score is written, they are looked up: a lower assessment may
    /// be missing only because it moved during the listing.
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

/// Joins hosts and devices by serial number.
pub fn join(
    falcon: &FalconInventory,
    devices: &Devices,
    records: &NodeRecords,
    rules: &MatchRules,
) -> Matches {
    Matcher::new(falcon, devices, records, rules).matches()
}

impl Matches {
    /// Returns the devices that no host matches.
    pub(crate) fn unmatched(&self) -> Vec<&NodeId> {
        let outcomes = self.outcomes.iter();
        let unmatched =
            outcomes.filter(|(_, outcome)| matches!(outcome, MatchOutcome::Unmatched { .. }));
        unmatched.map(|(node, _)| node).collect()
    }

    /// Returns true if the score of a device is withheld for silence.
    pub(crate) fn has_silent_device(&self) -> bool {
        let mut outcomes = self.outcomes.values();
        outcomes.any(|outcome| matches!(outcome, MatchOutcome::Silent { .. }))
    }

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
            Self::Scored(_)
                | Self::Unwitnessed(_)
                | Self::Contained { .. }
                | Self::Unassessed { .. }
                | Self::SharedSerial { .. }
                | Self::OtherPlatform { .. }
                | Self::Silent { .. }
                | Self::Stale { .. }
        )
    }
}

/// Returns the serials of the tailnet's own devices for a lookup of hosts, in each of their [spellings](Serial::spellings).
pub fn serial_query_values(devices: &Devices, ignored: &IgnoredSerials) -> BTreeSet<String> {
    let own = devices.values().filter(|device| !device.is_external);
    let texts = own.flat_map(|device| device.identity.serials());
    texts
        .flat_map(|text| Serial::spellings(text, ignored))
        .collect()
}

/// Returns the hosts that have a serial of one of the devices, whatever the spelling.
pub fn matching_aids(hosts: &Hosts, devices: &Devices, ignored: &IgnoredSerials) -> BTreeSet<Aid> {
    let own = devices.values().filter(|device| !device.is_external);
    let wanted: BTreeSet<Option<Serial>> = own
        .flat_map(|device| device.serials(ignored))
        .map(Some)
        .collect();
    let matching = hosts.values().filter(|host| wanted.contains(&host.serial));
    matching.map(|host| host.aid.clone()).collect()
}

/// The serials of a device, sorted and without duplicates. Real devices have up to three.
pub type Serials = SmallVec<[Serial; 2]>;

/// Parses the reported texts. Returns the serials, and the invalid texts with the reason.
pub fn serials(
    texts: &[SmolStr],
    ignored: &IgnoredSerials,
) -> (Serials, Vec<(SmolStr, InvalidSerial)>) {
    let mut usable = Serials::new();
    let mut invalid = Vec::new();
    for text in texts {
        match Serial::identify(text, ignored) {
            Ok(serial) => usable.push(serial),
            Err(reason) => invalid.push((text.clone(), reason)),
        }
    }
    usable.sort_unstable();
    usable.dedup();
    (usable, invalid)
}

/// Returns the finding that a device without a score is a case of.
pub(crate) fn finding_kind(outcome: &MatchOutcome) -> Option<FindingKind> {
    match Verdict::from(outcome) {
        Verdict::NoIdentity => Some(FindingKind::NoIdentity),
        Verdict::Unmatched => Some(FindingKind::Unmatched),
        Verdict::Unassessed => Some(FindingKind::Unassessed),
        Verdict::Stale => Some(FindingKind::StaleHosts),
        Verdict::Silent => Some(FindingKind::SilentSensors),
        Verdict::OtherPlatform => Some(FindingKind::OtherPlatform),
        Verdict::SharedSerial => Some(FindingKind::SharedSerials),
        Verdict::Contained => Some(FindingKind::Contained),
        // Invalid serials are a finding with their texts.
        Verdict::NoSerial | Verdict::Scored | Verdict::Unwitnessed | Verdict::External => None,
    }
}
