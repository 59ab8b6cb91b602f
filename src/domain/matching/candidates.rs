//! Judges which of the Falcon hosts with a device's serial numbers count for it, and which one decides.

use jiff::Timestamp;
use serde::Serialize;
use smallvec::SmallVec;

use crate::domain::inventory::device::Device;
use crate::domain::inventory::host::{Aid, Assessment, Assessments, Host, Score};
use crate::domain::matching::hosts::GroupTimes;
use crate::domain::matching::rules::MatchRules;
use crate::domain::matching::sharing::Sharing;
use crate::settings::OnContained;

/// A host that may be the machine with its serial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) host: &'a Host,
    pub(crate) status: CandidateStatus,
    pub(crate) assessment: Option<&'a Assessment>,
    /// True if the host speaks for the device, provided that it was seen within the limits: it is live, of the device's
    /// platform, and its serial is the device's own.
    pub(crate) is_speaker: bool,
    /// True if the host withholds the score of the device, since it speaks for it and is isolated from the network.
    pub(crate) is_withholding: bool,
    /// True if the host was seen recently enough to raise the device's score.
    pub(crate) is_witness: bool,
    /// When the most recently seen host with the serial was seen.
    pub(crate) newest_seen: Option<Timestamp>,
    /// When the host that superseded this one was first seen, if one did.
    pub(crate) superseded_at: Option<Timestamp>,
}

/// The candidates of one serial: nearly always a single one.
pub(crate) type Candidates<'a> = SmallVec<[Candidate<'a>; 1]>;

/// The status of a host among the hosts with its serial. The serialized names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CandidateStatus {
    /// It counts, with the lowest score; ties go to one that was seen recently, then to the smallest aid.
    #[serde(rename = "lowest")]
    Deciding,
    /// It counts, and another host is the deciding one.
    #[serde(rename = "behind")]
    HigherScore,
    /// It would count, but Falcon's assessment has no valid score.
    #[serde(rename = "invalid")]
    InvalidScore,
    /// It would count, but has no assessment.
    Unassessed,
    /// It is isolated from the network, so its devices have no score.
    Contained,
    /// Its serial is shared, and it speaks for another machine, or for none.
    #[serde(rename = "shared")]
    SharedSerial,
    /// The device is of another platform.
    OtherPlatform,
    /// The device is connected, and the sensor was not seen for longer than `maxSilenceHours`.
    Silent,
    /// Not seen since the age limit, or never at a known time.
    Stale,
    /// An old record: another host with the serial was first seen later, or was seen more than 24 h later.
    Superseded,
}

impl CandidateStatus {
    /// Returns whether the host counts, or would count if it had a score.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::Deciding | Self::HigherScore) || self.lacks_score()
    }

    /// Returns whether the host would count and has no valid score.
    pub(crate) fn lacks_score(self) -> bool {
        matches!(self, Self::Unassessed | Self::InvalidScore)
    }
}

impl<'a> Candidate<'a> {
    /// Returns the order in which hosts decide: the lowest score, then one that was seen recently, then the smallest aid.
    pub(crate) fn rank(&self) -> (Option<Score>, bool, &'a Aid) {
        (self.score(), !self.is_witness, &self.host.aid)
    }

    pub(crate) fn score(&self) -> Option<Score> {
        self.assessment.and_then(Assessment::score)
    }

    /// Returns the invalid score of a host that would count, as Falcon reports it.
    pub(crate) fn invalid_score(&self) -> Option<&'a str> {
        match (self.status, self.assessment) {
            (CandidateStatus::InvalidScore, Some(Assessment::Invalid(text))) => Some(text),
            _ => None,
        }
    }
}

/// The device and the rules by which hosts are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Perspective<'a> {
    pub(crate) rules: &'a MatchRules,
    /// The device; without one, the host is judged for any device that reports its serial.
    pub(crate) device: Option<&'a Device>,
    /// True if Falcon's clock is doubted, so that no sensor counts as silent.
    pub(crate) is_silence_doubted: bool,
}

impl Perspective<'_> {
    /// Judges the hosts with one serial. `sharing` tells whom the serial serves, if it is shared.
    pub(crate) fn judge<'a>(
        &self,
        hosts: &[&'a Host],
        scores: &'a Assessments,
        sharing: Option<&Sharing>,
    ) -> Candidates<'a> {
        let times = GroupTimes::new(hosts);
        let candidate = |host: &&'a Host| {
            let (device, assessment) = (self.device, scores.get(&host.aid));
            let is_live = times.is_live(host);
            let is_of_platform = device.is_none_or(|one| host.platform.may_be(one.platform()));
            let is_served = match (sharing, device) {
                (Some(sharing), Some(device)) => sharing.serves(device, host),
                _ => true,
            };
            let is_speaker = is_live && is_of_platform && is_served;
            let is_contained =
                host.is_contained && self.rules.on_contained == OnContained::Withhold;
            let status = if !is_live {
                CandidateStatus::Superseded
            } else if !self.rules.is_recent(host) {
                CandidateStatus::Stale
            } else if self.is_silent(host) {
                CandidateStatus::Silent
            } else if !is_of_platform {
                CandidateStatus::OtherPlatform
            } else if !is_served {
                CandidateStatus::SharedSerial
            } else if is_contained {
                CandidateStatus::Contained
            } else {
                match assessment {
                    Some(Assessment::Score(_)) => CandidateStatus::HigherScore,
                    Some(Assessment::Invalid(_)) => CandidateStatus::InvalidScore,
                    None => CandidateStatus::Unassessed,
                }
            };
            Candidate {
                host,
                status,
                assessment,
                is_speaker,
                is_withholding: is_speaker && is_contained,
                is_witness: device.is_none_or(|device| self.rules.is_witness(host, device)),
                newest_seen: times.newest_seen,
                superseded_at: times.superseded_at(host),
            }
        };
        let mut candidates: Candidates<'a> = hosts.iter().map(candidate).collect();
        let lowest = candidates
            .iter_mut()
            .filter(|candidate| candidate.status == CandidateStatus::HigherScore)
            .min_by_key(|candidate| candidate.rank());
        if let Some(lowest) = lowest {
            lowest.status = CandidateStatus::Deciding;
        }
        candidates
    }

    /// Returns whether the device is connected and the sensor was not seen for longer than the limit allows.
    fn is_silent(&self, host: &Host) -> bool {
        let is_connected = self.device.is_some_and(Device::is_connected);
        is_connected && !self.is_silence_doubted && self.rules.exceeds_silence(host.last_seen)
    }
}
