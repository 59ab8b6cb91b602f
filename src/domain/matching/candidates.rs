//! Chooses which of several Falcon hosts with one serial number determines the score.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use smallvec::SmallVec;

use crate::domain::inventory::host::{Assessment, FalconInventory, Host, Score};
use crate::domain::inventory::serial::Serial;

/// Of several hosts with one serial, those seen within this time of the most recently seen one are live. The others are
/// old records that re-imaging left behind.
const LIVE_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// The hosts of each serial, in the order of their aids. They are ranked on request: most hosts of a large account are not
/// devices of the tailnet.
#[derive(Debug)]
pub(crate) struct HostsBySerial<'a> {
    falcon: &'a FalconInventory,
    min_last_seen: Option<Timestamp>,
    /// For lookups only: its order shows nowhere.
    hosts: HashMap<&'a Serial, SmallVec<[&'a Host; 1]>>,
    shared: BTreeSet<&'a Serial>,
}

/// A host that may be the machine with its serial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) host: &'a Host,
    pub(crate) status: CandidateStatus,
    pub(crate) assessment: Option<&'a Assessment>,
    /// When the most recently seen host with the serial was seen.
    pub(crate) newest_seen: Option<Timestamp>,
}

/// The candidates of one serial: nearly always a single one.
pub(crate) type Candidates<'a> = SmallVec<[Candidate<'a>; 1]>;

/// The status of a host among the hosts with its serial. The serialized names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CandidateStatus {
    /// Live, with the lowest score; ties go to the smallest aid.
    #[serde(rename = "lowest")]
    Deciding,
    /// Live, and another host is the deciding one.
    #[serde(rename = "behind")]
    HigherScore,
    /// Live, and Falcon's assessment has no valid score.
    #[serde(rename = "invalid")]
    InvalidScore,
    /// Live, without an assessment.
    Unassessed,
    /// Not superseded, but not seen since the age limit, or never at a known time.
    Stale,
    /// An old record: another host with the serial was seen more than [`LIVE_WINDOW`] later.
    Superseded,
}

impl CandidateStatus {
    /// Returns whether the host is live, assessed or not.
    pub(crate) fn is_live(self) -> bool {
        !matches!(self, Self::Stale | Self::Superseded)
    }

    /// Returns whether the host is live and has no valid score.
    pub(crate) fn lacks_score(self) -> bool {
        matches!(self, Self::Unassessed | Self::InvalidScore)
    }
}

impl<'a> Candidate<'a> {
    pub(crate) fn score(&self) -> Option<Score> {
        self.assessment.and_then(Assessment::score)
    }

    /// Returns the invalid score of a live host, as Falcon reports it.
    pub(crate) fn invalid_score(&self) -> Option<&'a str> {
        match (self.status, self.assessment) {
            (CandidateStatus::InvalidScore, Some(Assessment::Invalid(text))) => Some(text),
            _ => None,
        }
    }
}

impl<'a> HostsBySerial<'a> {
    /// Collects the hosts with a valid serial. `min_last_seen` is the age limit, if there is one.
    pub(crate) fn new(falcon: &'a FalconInventory, min_last_seen: Option<Timestamp>) -> Self {
        let mut hosts: HashMap<&Serial, SmallVec<[&Host; 1]>> =
            HashMap::with_capacity(falcon.hosts.len());
        let mut shared = BTreeSet::new();
        for host in falcon.hosts.values() {
            let Some(serial) = &host.serial else { continue };
            let same_serial = hosts.entry(serial).or_default();
            if !same_serial.is_empty() {
                shared.insert(serial);
            }
            same_serial.push(host);
        }
        Self {
            falcon,
            min_last_seen,
            hosts,
            shared,
        }
    }

    /// Returns the ranked hosts with a serial; empty if Falcon does not know it.
    pub(crate) fn candidates(&self, serial: &Serial) -> Candidates<'a> {
        let hosts = self.hosts.get(serial).map_or(&[][..], SmallVec::as_slice);
        let newest_seen = hosts.iter().filter_map(|host| host.last_seen).max();
        let candidate = |host: &&'a Host| {
            let assessment = self.falcon.scores.get(&host.aid);
            Candidate {
                host,
                status: initial_status(host, assessment, newest_seen, self.min_last_seen),
                assessment,
                newest_seen,
            }
        };
        let mut candidates: Candidates<'a> = hosts.iter().map(candidate).collect();
        let lowest = candidates
            .iter_mut()
            .filter(|candidate| candidate.status == CandidateStatus::HigherScore)
            .min_by_key(|candidate| (candidate.score(), &candidate.host.aid));
        if let Some(lowest) = lowest {
            lowest.status = CandidateStatus::Deciding;
        }
        candidates
    }

    /// Returns each serial that several hosts have, with its candidates.
    pub(crate) fn shared_serials(&self) -> impl Iterator<Item = (&'a Serial, Candidates<'a>)> {
        let shared = self.shared.iter();
        shared.map(|serial| (*serial, self.candidates(serial)))
    }
}

/// Returns the status of a host before scores are compared.
fn initial_status(
    host: &Host,
    assessment: Option<&Assessment>,
    newest_seen: Option<Timestamp>,
    min_last_seen: Option<Timestamp>,
) -> CandidateStatus {
    // A host without a time may still be in use, so it is not superseded.
    if let (Some(seen), Some(newest)) = (host.last_seen, newest_seen)
        && newest.duration_since(seen) > LIVE_WINDOW
    {
        return CandidateStatus::Superseded;
    }
    if min_last_seen.is_some_and(|limit| host.last_seen < Some(limit)) {
        return CandidateStatus::Stale;
    }
    match assessment {
        Some(Assessment::Score(_)) => CandidateStatus::HigherScore,
        Some(Assessment::Invalid(_)) => CandidateStatus::InvalidScore,
        None => CandidateStatus::Unassessed,
    }
}
