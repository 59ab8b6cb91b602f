//! Which score does each device deserve? One outcome for every node, with the reason.

pub mod candidates;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::domain::inventory::device::{Device, Devices, Identity, NodeId};
use crate::domain::inventory::host::{Aid, Assessment, FalconInventory, Host, Score};
use crate::domain::inventory::serial::{NoSerial, Serial};
use crate::domain::matching::candidates::{Candidate, CandidateStatus, Candidates, HostsBySerial};
use crate::domain::status::finding::{Finding, FindingKind};

/// What is known of one device's score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// It has one.
    Scored(Evidence),
    /// There are hosts for it, none with an assessment.
    Unassessed {
        /// The sensors without an assessment.
        aids: BTreeSet<Aid>,
    },
    /// There are hosts for it, all older than the integration's `maxHostAgeDays`.
    Stale {
        /// The sensors that have not been seen.
        aids: BTreeSet<Aid>,
    },
    /// Falcon knows none of its serials.
    Unmatched {
        /// Its usable serials.
        serials: Serials,
    },
    /// It reports serials, but none that identifies a machine.
    NoSerial {
        /// What it reports, and why that is no serial.
        refused: Vec<(SmolStr, NoSerial)>,
    },
    /// It reports no posture identity.
    NoIdentity {
        /// Switched off on the device itself, rather than absent.
        disabled: bool,
    },
    /// It is shared in from another tailnet.
    External,
}

/// Why a device has the score it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The score that counts.
    pub score: Score,
    /// The host it comes from.
    pub aid: Aid,
    /// The serial that led there.
    pub serial: Serial,
    /// The host's own name.
    pub hostname: Option<SmolStr>,
    /// Live hosts of the device's serials that have no assessment. They do not count; but before a score is written
    /// beside them, they are looked up, since theirs may be lower and only have moved while it was read.
    pub unassessed: BTreeSet<Aid>,
}

impl fmt::Display for MatchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scored(evidence) => {
                write!(f, "score {} of host {}", evidence.score, evidence.aid)
            }
            Self::Unassessed { .. } => f.write_str("its Falcon host has no assessment"),
            Self::Stale { .. } => f.write_str("its Falcon host was not seen for too long"),
            Self::Unmatched { .. } => f.write_str("no Falcon host has its serial number"),
            Self::NoSerial { .. } => f.write_str("it reports no usable serial number"),
            Self::NoIdentity { disabled: true } => {
                f.write_str("posture reporting is switched off on the device")
            }
            Self::NoIdentity { disabled: false } => f.write_str("it reports no posture identity"),
            Self::External => f.write_str("it is shared in from another tailnet"),
        }
    }
}

/// The outcome for every node of an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// One for each device of the listing.
    pub outcomes: BTreeMap<NodeId, MatchOutcome>,
    /// The counts, named as in Tailscale's own integration.
    pub counts: MatchCounts,
    /// What a person should know about.
    pub findings: Vec<Finding>,
}

/// How many of what, as Tailscale's own integration counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchCounts {
    /// All visible hosts of the Falcon account.
    pub provider_hosts: usize,
    /// Own nodes with a usable serial.
    pub possible_matched: usize,
    /// Nodes with a Falcon host.
    pub matched: usize,
}

/// Joins hosts and devices by serial number. `seen_since` is the age limit of hosts, if there is one; a host that was
/// never seen at a known time does not meet it.
pub fn join(falcon: &FalconInventory, devices: &Devices, seen_since: Option<Timestamp>) -> Matches {
    let claims = HostsBySerial::of(falcon, seen_since);
    let mut refused = Vec::new();
    let outcome = |(id, device): (&NodeId, &Device)| {
        let (outcome, odd) = outcome(device, &claims);
        refused.extend(odd.map(|(text, why)| format!("{}: {text:?} is {why}", device.name)));
        (id.clone(), outcome)
    };
    let outcomes: BTreeMap<NodeId, MatchOutcome> = devices.iter().map(outcome).collect();
    let counts = MatchCounts {
        provider_hosts: falcon.visible,
        possible_matched: count(&outcomes, |o| {
            o.has_host() || matches!(o, MatchOutcome::Unmatched { .. })
        }),
        matched: count(&outcomes, MatchOutcome::has_host),
    };
    let findings = findings(falcon, devices, &outcomes, refused, &claims);
    Matches {
        outcomes,
        counts,
        findings,
    }
}

impl MatchOutcome {
    /// Whether Falcon knows the device at all.
    pub fn has_host(&self) -> bool {
        matches!(
            self,
            Self::Scored(_) | Self::Unassessed { .. } | Self::Stale { .. }
        )
    }
}

fn count(
    outcomes: &BTreeMap<NodeId, MatchOutcome>,
    which: impl Fn(&MatchOutcome) -> bool,
) -> usize {
    outcomes.values().filter(|outcome| which(outcome)).count()
}

/// The serials of devices by which their hosts can be asked for, as reported and in normal form: whether Falcon's filter
/// minds case is not documented.
pub fn spellings<'a>(devices: impl IntoIterator<Item = &'a Device>) -> BTreeSet<String> {
    let of_device = |device: &'a Device| match &device.identity {
        Identity::Serials(texts) if !device.is_external => texts.as_slice(),
        _ => &[],
    };
    let texts = devices.into_iter().flat_map(of_device);
    let both = texts.filter_map(|text| {
        let serial = Serial::parse(text).ok()?;
        Some([text.trim().to_owned(), serial.to_string()])
    });
    both.flatten().collect()
}

/// The hosts with a serial of one of the devices, however either side spells it.
pub fn matching<'a>(hosts: impl IntoIterator<Item = &'a Host>, devices: &Devices) -> BTreeSet<Aid> {
    let own = devices.values().filter(|device| !device.is_external);
    let wanted: BTreeSet<Serial> = own
        .filter_map(|device| match &device.identity {
            Identity::Serials(texts) => Some(serials(texts).0),
            Identity::Missing | Identity::Disabled => None,
        })
        .flatten()
        .collect();
    let matching = hosts.into_iter().filter(|host| {
        host.serial
            .as_ref()
            .is_some_and(|serial| wanted.contains(serial))
    });
    matching.map(|host| host.aid.clone()).collect()
}

/// A device's serials, in order and each of them once: up to three of real ones.
pub type Serials = SmallVec<[Serial; 2]>;

/// The serials a device reports, and the texts that are none.
pub fn serials(texts: &[SmolStr]) -> (Serials, Vec<(SmolStr, NoSerial)>) {
    let mut usable = Serials::new();
    let mut refused = Vec::new();
    for text in texts {
        match Serial::parse(text) {
            Ok(serial) => usable.push(serial),
            Err(why) => refused.push((text.clone(), why)),
        }
    }
    usable.sort_unstable();
    usable.dedup();
    (usable, refused)
}

/// What is known of a device's score, and the first text it reports that is no serial.
fn outcome(
    device: &Device,
    claims: &HostsBySerial<'_>,
) -> (MatchOutcome, Option<(SmolStr, NoSerial)>) {
    if device.is_external {
        return (MatchOutcome::External, None);
    }
    let texts = match &device.identity {
        Identity::Missing => return (MatchOutcome::NoIdentity { disabled: false }, None),
        Identity::Disabled => return (MatchOutcome::NoIdentity { disabled: true }, None),
        Identity::Serials(texts) => texts,
    };
    let (serials, refused) = serials(texts);
    let odd = refused.first().cloned();
    if serials.is_empty() {
        return (MatchOutcome::NoSerial { refused }, odd);
    }
    (of_serials(serials, claims), odd)
}

fn of_serials(serials: Serials, claims: &HostsBySerial<'_>) -> MatchOutcome {
    let claims: Candidates<'_> = serials
        .iter()
        .flat_map(|serial| claims.with(serial))
        .collect();
    let unassessed = aids(&claims, CandidateStatus::lacks_score);
    let lowest = claims
        .iter()
        .filter_map(|claim| match claim.standing {
            CandidateStatus::Lowest(score) => {
                Some((score, claim.host, claim.host.serial.as_ref()?))
            }
            _ => None,
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
    if claims.is_empty() {
        return MatchOutcome::Unmatched { serials };
    }
    if unassessed.is_empty() {
        return MatchOutcome::Stale {
            aids: aids(&claims, |standing| standing == CandidateStatus::Stale),
        };
    }
    MatchOutcome::Unassessed { aids: unassessed }
}

fn aids<'a>(
    claims: &[Candidate<'a>],
    which: impl Fn(CandidateStatus<'a>) -> bool,
) -> BTreeSet<Aid> {
    let hosts = claims.iter().filter(|claim| which(claim.standing));
    hosts.map(|claim| claim.host.aid.clone()).collect()
}

fn findings(
    falcon: &FalconInventory,
    devices: &Devices,
    outcomes: &BTreeMap<NodeId, MatchOutcome>,
    refused: Vec<String>,
    claims: &HostsBySerial<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, which) in DEVICE_FINDINGS {
        let names = outcomes
            .iter()
            .filter(|(_, outcome)| which(outcome))
            .filter_map(|(id, _)| devices.get(id))
            .map(|device| device.name.to_string());
        findings.extend(Finding::of(kind, names));
    }
    findings.extend(Finding::of(FindingKind::PlaceholderSerials, refused));
    let shared = claims.shared().filter_map(|(serial, claims)| {
        let names: BTreeSet<String> = claims
            .iter()
            .filter(|claim| claim.standing.is_alive())
            .filter_map(|claim| claim.host.hostname.as_deref().map(str::to_lowercase))
            .collect();
        (names.len() > 1).then(|| {
            let names: Vec<String> = names.into_iter().take(3).collect();
            format!("{serial}: {}", names.join(", "))
        })
    });
    findings.extend(Finding::of(FindingKind::SharedSerials, shared));
    let invalid = falcon
        .scores
        .iter()
        .filter_map(|(aid, assessment)| match assessment {
            Assessment::Score(_) => None,
            Assessment::Invalid(text) => Some(format!("{aid}: {text}")),
        });
    findings.extend(Finding::of(FindingKind::InvalidScores, invalid));
    findings
}

/// Whether an outcome belongs to a finding.
type Belongs = fn(&MatchOutcome) -> bool;

/// The findings that are one outcome of a device each.
const DEVICE_FINDINGS: [(FindingKind, Belongs); 4] = [
    (FindingKind::NoIdentity, |o| match o {
        MatchOutcome::NoIdentity { .. } => true,
        // An empty list says no more than none.
        MatchOutcome::NoSerial { refused } => refused.is_empty(),
        _ => false,
    }),
    (FindingKind::Unmatched, |o| {
        matches!(o, MatchOutcome::Unmatched { .. })
    }),
    (FindingKind::Unassessed, |o| {
        matches!(o, MatchOutcome::Unassessed { .. })
    }),
    (FindingKind::StaleHosts, |o| {
        matches!(o, MatchOutcome::Stale { .. })
    }),
];
