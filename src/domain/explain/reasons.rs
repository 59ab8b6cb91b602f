//! The reasons why a host counts or does not.

use crate::domain::inventory::device::Device;
use crate::domain::inventory::host::Host;
use crate::domain::matching::MatchOutcome;
use crate::domain::matching::candidates::{Candidate, CandidateStatus, Candidates};
use crate::domain::matching::reasons::truncate;

use super::ExplainContext;

/// Returns whether a device with this outcome gets the score of this host.
pub(super) fn is_deciding(outcome: Option<&MatchOutcome>, host: &Host) -> bool {
    matches!(outcome, Some(MatchOutcome::Scored(evidence)) if evidence.aid == host.aid)
}

impl ExplainContext<'_> {
    /// Returns why a host counts or does not, as half a sentence about it. `device` is the device with its outcome; `None` if
    /// no device reports the serial.
    pub(super) fn host_reason(
        &self,
        candidate: &Candidate<'_>,
        device: Option<(&Device, &MatchOutcome)>,
    ) -> String {
        let host = candidate.host;
        let (device, outcome) = device.unzip();
        let rivals = match &host.serial {
            Some(serial) => self.matcher.rivals(serial, device),
            None => Candidates::new(),
        };
        let rules = self.matcher.rules();
        match candidate.status {
            CandidateStatus::Deciding => deciding(host, &rivals, outcome),
            CandidateStatus::HigherScore => higher_score(candidate, &rivals),
            CandidateStatus::Unassessed => "live, but Falcon has not assessed it".to_owned(),
            CandidateStatus::InvalidScore => format!(
                "live, but its score is {}, which is not an integer from 0 to 100",
                truncate(candidate.invalid_score().unwrap_or_default())
            ),
            CandidateStatus::Contained => {
                "isolated from the network, so its devices have no score".to_owned()
            }
            CandidateStatus::SharedSerial => {
                "live, but several machines share its serial number, and it does not speak for this one".to_owned()
            }
            CandidateStatus::OtherPlatform => {
                "live, but it has another operating system than the device".to_owned()
            }
            CandidateStatus::Silent => format!(
                "silent while the device is connected: maxSilenceHours is {}",
                rules.max_silence_hours.unwrap_or_default()
            ),
            CandidateStatus::Superseded if candidate.superseded_at.is_some() => {
                let since = candidate.superseded_at.unwrap_or_default();
                format!(
                    "superseded, as after re-imaging: another host with this serial number was first seen at {since:.0}"
                )
            }
            CandidateStatus::Superseded => {
                let newest = candidate.newest_seen.unwrap_or_default();
                format!(
                    "superseded, as after re-imaging: a host with this serial number was seen at {newest:.0}, more \
                     than 24 h later"
                )
            }
            CandidateStatus::Stale => match host.last_seen {
                Some(_) => format!("not seen for too long: {}", rules.age_limit()),
                None => format!("never seen at a known time: {}", rules.age_limit()),
            },
        }
    }
}

fn deciding(host: &Host, rivals: &[Candidate<'_>], outcome: Option<&MatchOutcome>) -> String {
    let has_rival = rivals
        .iter()
        .any(|rival| rival.status == CandidateStatus::HigherScore);
    match outcome {
        None => {
            "live; its score would count for a device that reports its serial number".to_owned()
        }
        Some(MatchOutcome::External) => {
            "live, but the device belongs to another tailnet".to_owned()
        }
        Some(MatchOutcome::Scored(evidence)) if evidence.aid != host.aid => format!(
            "live, but {} with another of the device's serial numbers has the score {}",
            evidence.aid, evidence.score
        ),
        Some(_) if has_rival => "live, with the lowest score".to_owned(),
        Some(_) => "live, and its score counts".to_owned(),
    }
}

fn higher_score(candidate: &Candidate<'_>, rivals: &[Candidate<'_>]) -> String {
    let deciding = rivals
        .iter()
        .find(|rival| rival.status == CandidateStatus::Deciding);
    let Some((deciding, lowest)) = deciding.and_then(|rival| Some((rival.host, rival.score()?)))
    else {
        return "alive".to_owned();
    };
    let name = distinct_name(deciding, candidate.host);
    if Some(lowest) < candidate.score() {
        format!("live, but {name} has a lower score, {lowest}")
    } else {
        format!("live, with the same score as {name}")
    }
}

/// Returns the name of another host, or its aid if the names are the same.
fn distinct_name(other: &Host, host: &Host) -> String {
    match &other.hostname {
        Some(name) if host.hostname.as_ref() != Some(name) => truncate(name),
        _ => format!("the one with the aid {}", other.aid),
    }
}
