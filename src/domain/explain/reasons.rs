//! The rules in words: why a device has its score or none, and why a host counts or does not.

use crate::domain::inventory::host::Host;
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::candidates::{Candidate, CandidateStatus, Candidates};
use crate::domain::matching::{Evidence, MatchOutcome};

use super::{ExplainContext, fit};

/// So many of a device's serials are named in a sentence.
const NAMED: usize = 3;

/// On whose account hosts are told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Perspective<'a> {
    /// A device that has a score.
    Scored(&'a Evidence),
    /// A device that has none.
    Scoreless,
    /// A device of another tailnet.
    External,
    /// No device of the tailnet.
    Nobody,
}

impl<'a> Perspective<'a> {
    pub(super) fn of(outcome: &'a MatchOutcome) -> Self {
        match outcome {
            MatchOutcome::Scored(evidence) => Self::Scored(evidence),
            MatchOutcome::External => Self::External,
            _ => Self::Scoreless,
        }
    }

    pub(super) fn decides(self, host: &Host) -> bool {
        matches!(self, Self::Scored(evidence) if evidence.aid == host.aid)
    }
}

impl ExplainContext<'_> {
    /// Why a device has the score that it has, or none.
    pub(super) fn because(&self, outcome: &MatchOutcome, claims: &[Candidate<'_>]) -> String {
        let living = claims.iter().filter(|claim| claim.standing.is_alive());
        let (alive, lacking) = living.fold((0, 0), |(alive, lacking), claim| {
            (
                alive + 1,
                lacking + usize::from(claim.standing.lacks_score()),
            )
        });
        match outcome {
            MatchOutcome::Scored(evidence) => scored(evidence, alive - lacking, lacking),
            MatchOutcome::Unassessed { .. } => unassessed(claims, alive),
            MatchOutcome::Stale { .. } => self.stale(claims),
            MatchOutcome::Unmatched { serials } => {
                let mut named: Vec<&str> =
                    serials.iter().map(Serial::as_str).take(NAMED).collect();
                if serials.len() > NAMED {
                    named.push("…");
                }
                match serials.len() {
                    1 => format!("no Falcon host has its serial number {}", named.join("")),
                    _ => format!(
                        "no Falcon host has one of its serial numbers {}",
                        named.join(", ")
                    ),
                }
            }
            MatchOutcome::NoSerial { invalid: refused } => match refused.as_slice() {
                [] => "it reports a posture identity without any serial number".to_owned(),
                [(text, why), others @ ..] => {
                    let more = match others.len() {
                        0 => String::new(),
                        others => format!(", and {others} more are none either"),
                    };
                    format!(
                        "it reports no usable serial number: {:?} is {why}{more}",
                        fit(text)
                    )
                }
            },
            MatchOutcome::NoIdentity { disabled: true } => {
                "posture reporting is switched off on the device".to_owned()
            }
            MatchOutcome::NoIdentity { disabled: false } => {
                "it reports no posture identity: Device Identity Collection is off in the tailnet, or the device has not \
                 reported yet"
                    .to_owned()
            }
            MatchOutcome::External => {
                "it is shared in from another tailnet, and such devices get no score here".to_owned()
            }
        }
    }

    fn stale(&self, claims: &[Candidate<'_>]) -> String {
        let hosts = claims
            .iter()
            .filter(|claim| claim.standing == CandidateStatus::Stale);
        let last = hosts.filter_map(|claim| claim.host.last_seen).max();
        let limit = self.limit();
        match last {
            Some(last) => {
                format!("its Falcon host was last seen at {last:.0}, and {limit}")
            }
            None => format!("Falcon does not say when its host was last seen, and {limit}"),
        }
    }

    /// The age limit, as the half of a sentence.
    fn limit(&self) -> String {
        let days = self.settings.max_host_age_days.unwrap_or_default();
        let since = self.seen_since.unwrap_or_default();
        format!("with maxHostAgeDays {days} only hosts seen since {since:.0} count")
    }

    /// Why a host counts or does not.
    pub(super) fn host_because(&self, claim: &Candidate<'_>, asking: Perspective<'_>) -> String {
        let rivals = claim.host.serial.as_ref();
        let rivals = rivals.map_or_else(Candidates::new, |serial| self.claims.with(serial));
        match claim.standing {
            CandidateStatus::Lowest(_) => lowest(claim, &rivals, asking),
            CandidateStatus::Behind(score) => {
                let first = rivals.iter().find_map(|rival| match rival.standing {
                    CandidateStatus::Lowest(lowest) => Some((rival.host, lowest)),
                    _ => None,
                });
                match first {
                    Some((host, lowest)) if lowest < score => {
                        format!(
                            "alive, but {} has a lower score, {lowest}",
                            other(host, claim.host)
                        )
                    }
                    Some((host, _)) => {
                        format!("alive, with the same score as {}", other(host, claim.host))
                    }
                    None => "alive".to_owned(),
                }
            }
            CandidateStatus::Unassessed => "alive, but Falcon has not assessed it".to_owned(),
            CandidateStatus::Invalid(text) => format!(
                "alive, but its score is {}, which is not a whole number from 0 to 100",
                fit(text)
            ),
            CandidateStatus::Superseded(newest) => format!(
                "an old record, such as re-imaging leaves behind: a host with this serial number was seen at \
                 {newest:.0}, more than 24 h later"
            ),
            CandidateStatus::Stale => match claim.host.last_seen {
                Some(_) => format!("not seen for too long: {}", self.limit()),
                None => format!("not known to have been seen: {}", self.limit()),
            },
        }
    }
}

fn scored(evidence: &Evidence, scored: usize, lacking: usize) -> String {
    let Evidence { score, serial, .. } = evidence;
    let decided = match scored {
        0 | 1 => {
            format!("the live Falcon host with its serial number {serial} has the score {score}")
        }
        scored => format!(
            "{score} is the lowest score of {scored} live Falcon hosts with its serial numbers"
        ),
    };
    match lacking {
        0 => decided,
        1 => format!("{decided}; one more without an assessment does not count"),
        lacking => format!("{decided}; {lacking} more without an assessment do not count"),
    }
}

fn unassessed(claims: &[Candidate<'_>], alive: usize) -> String {
    let invalid = claims.iter().find_map(|claim| match claim.standing {
        CandidateStatus::Invalid(text) => Some(text),
        _ => None,
    });
    match (alive, invalid) {
        (1, None) => "its Falcon host has no assessment, and a score is never guessed".to_owned(),
        (1, Some(text)) => format!(
            "the score of its Falcon host is {}, which is not a whole number from 0 to 100, and a score is never guessed",
            fit(text)
        ),
        (alive, None) => format!(
            "none of its {alive} live Falcon hosts has an assessment, and a score is never guessed"
        ),
        (alive, Some(text)) => format!(
            "none of its {alive} live Falcon hosts has a usable assessment ({} is not a whole number from 0 to 100), and a score \
             is never guessed",
            fit(text)
        ),
    }
}

/// What to call another host: by its name, where that tells the two apart.
fn other(other: &Host, host: &Host) -> String {
    match &other.hostname {
        Some(name) if host.hostname.as_ref() != Some(name) => fit(name),
        _ => format!("the one with the aid {}", other.aid),
    }
}

/// Of the host with the lowest score of its serial.
fn lowest(claim: &Candidate<'_>, rivals: &[Candidate<'_>], asking: Perspective<'_>) -> String {
    let behind = |rival: &Candidate<'_>| matches!(rival.standing, CandidateStatus::Behind(_));
    match asking {
        Perspective::Scored(evidence) if evidence.aid != claim.host.aid => format!(
            "alive, but {} with another of the device's serial numbers has the score {}",
            evidence.aid, evidence.score
        ),
        Perspective::Scored(_) | Perspective::Scoreless if rivals.iter().any(behind) => {
            "alive, with the lowest score".to_owned()
        }
        Perspective::Scored(_) | Perspective::Scoreless => "alive, and its score counts".to_owned(),
        Perspective::External => "alive, but the device is another tailnet's".to_owned(),
        Perspective::Nobody => {
            "alive; its score would count for a device that reports its serial number".to_owned()
        }
    }
}
