//! The seven outcomes in words: short, of several devices, and in full.

use std::fmt;

use serde::Serialize;

use crate::domain::inventory::serial::Serial;
use crate::domain::matching::candidates::{Candidate, CandidateStatus};
use crate::domain::matching::{Evidence, MatchOutcome};
use crate::text::sanitize;

/// Maximum serials that a reason names.
const MAX_NAMED_SERIALS: usize = 3;
/// Maximum characters of a text from outside in an explanation.
pub(crate) const MAX_TEXT_CHARS: usize = 255;

/// An outcome without its data. The names are stable; they are those of the findings, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Scored,
    Unassessed,
    Stale,
    Unmatched,
    NoSerial,
    /// It reports no posture identity, or one without any serial.
    NoIdentity,
    External,
}

impl From<&MatchOutcome> for Verdict {
    fn from(outcome: &MatchOutcome) -> Self {
        match outcome {
            MatchOutcome::Scored(_) => Self::Scored,
            MatchOutcome::Unassessed { .. } => Self::Unassessed,
            MatchOutcome::Stale { .. } => Self::Stale,
            MatchOutcome::Unmatched { .. } => Self::Unmatched,
            // An empty list says no more than none.
            MatchOutcome::NoSerial { invalid } if invalid.is_empty() => Self::NoIdentity,
            MatchOutcome::NoSerial { .. } => Self::NoSerial,
            MatchOutcome::NoIdentity { .. } => Self::NoIdentity,
            MatchOutcome::External => Self::External,
        }
    }
}

impl Verdict {
    /// Returns why several devices have no score: `they report no posture identity`.
    pub(crate) fn plural_reason(self) -> &'static str {
        match self {
            Self::Scored => "their change waits for confirmation",
            Self::Unassessed => "their Falcon host has no assessment",
            Self::Stale => "their Falcon host was not seen for too long",
            Self::Unmatched => "no Falcon host has their serial number",
            Self::NoSerial => "they report no usable serial number",
            Self::NoIdentity => "they report no posture identity",
            Self::External => "they are shared in",
        }
    }
}

/// Writes the reason in short: `its Falcon host has no assessment`.
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

impl MatchOutcome {
    /// Returns the reason in full, as half a sentence. `candidates` are those of the device; `age_limit` is the integration's
    /// limit as half a sentence.
    pub(crate) fn full_reason(&self, candidates: &[Candidate<'_>], age_limit: &str) -> String {
        match self {
            Self::Scored(evidence) => scored(evidence, candidates),
            Self::Unassessed { .. } => unassessed(candidates),
            Self::Stale { .. } => stale(candidates, age_limit),
            Self::Unmatched { serials } => {
                let named = serials.iter().map(Serial::as_str).take(MAX_NAMED_SERIALS);
                let more = (serials.len() > MAX_NAMED_SERIALS).then_some("…");
                let named = named.chain(more).collect::<Vec<_>>().join(", ");
                match serials.len() {
                    1 => format!("no Falcon host has its serial number {named}"),
                    _ => format!("no Falcon host has one of its serial numbers {named}"),
                }
            }
            Self::NoSerial { invalid } => match invalid.as_slice() {
                [] => "it reports a posture identity without any serial number".to_owned(),
                [(text, why), others @ ..] => {
                    let more = match others.len() {
                        0 => String::new(),
                        others => format!(", and {others} more are invalid, too"),
                    };
                    format!(
                        "it reports no usable serial number: {:?} is {why}{more}",
                        truncate(text)
                    )
                }
            },
            Self::NoIdentity { disabled: true } => self.to_string(),
            Self::NoIdentity { disabled: false } => {
                "it reports no posture identity: Device Identity Collection is off in the tailnet, or the device has not \
                 reported yet"
                    .to_owned()
            }
            Self::External => {
                "it is shared in from another tailnet, and such devices get no score".to_owned()
            }
        }
    }
}

fn scored(evidence: &Evidence, candidates: &[Candidate<'_>]) -> String {
    let Evidence { score, serial, .. } = evidence;
    let lacking = count(candidates, CandidateStatus::lacks_score);
    let decided = match count(candidates, CandidateStatus::is_live) - lacking {
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

fn unassessed(candidates: &[Candidate<'_>]) -> String {
    let invalid = candidates.iter().find_map(Candidate::invalid_score);
    match (count(candidates, CandidateStatus::is_live), invalid) {
        (1, None) => "its Falcon host has no assessment, and a score is never guessed".to_owned(),
        (1, Some(text)) => format!(
            "the score of its Falcon host is {}, which is not an integer from 0 to 100, and a score is never guessed",
            truncate(text)
        ),
        (alive, None) => format!(
            "none of its {alive} live Falcon hosts has an assessment, and a score is never guessed"
        ),
        (alive, Some(text)) => format!(
            "none of its {alive} live Falcon hosts has a valid assessment ({} is not an integer from 0 to 100), \
             and a score is never guessed",
            truncate(text)
        ),
    }
}

fn stale(candidates: &[Candidate<'_>], limit: &str) -> String {
    let hosts = candidates
        .iter()
        .filter(|candidate| candidate.status == CandidateStatus::Stale);
    match hosts.filter_map(|candidate| candidate.host.last_seen).max() {
        Some(last) => format!("its Falcon host was last seen at {last:.0}, and {limit}"),
        None => format!("Falcon does not say when its host was last seen, and {limit}"),
    }
}

fn count(candidates: &[Candidate<'_>], is_counted: fn(CandidateStatus) -> bool) -> usize {
    let counted = candidates.iter().filter(|one| is_counted(one.status));
    counted.count()
}

/// Sanitizes and truncates a text from outside for an explanation.
pub(crate) fn truncate(text: &str) -> String {
    sanitize(text, MAX_TEXT_CHARS)
}
