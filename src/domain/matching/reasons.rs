//! The outcomes in words: short, of several devices, and in full.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::inventory::host::Aid;
use crate::domain::inventory::serial::Serial;
use crate::domain::matching::candidates::{Candidate, CandidateStatus};
use crate::domain::matching::{Evidence, MatchOutcome, MatchRules, Matcher};
use crate::text::sanitize;

/// Maximum serials that a reason names.
const MAX_NAMED_SERIALS: usize = 3;
/// Maximum names and aids that a reason lists.
const MAX_NAMES: usize = 5;
/// Maximum characters of a text from outside in an explanation.
pub(crate) const MAX_TEXT_CHARS: usize = 255;

/// An outcome without its data. The names are stable; they are those of the findings, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Scored,
    /// A first score waits until the sensor is seen.
    Unwitnessed,
    Contained,
    Unassessed,
    SharedSerial,
    OtherPlatform,
    Silent,
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
            MatchOutcome::Unwitnessed(_) => Self::Unwitnessed,
            MatchOutcome::Contained { .. } => Self::Contained,
            MatchOutcome::Unassessed { .. } => Self::Unassessed,
            MatchOutcome::SharedSerial { .. } => Self::SharedSerial,
            MatchOutcome::OtherPlatform { .. } => Self::OtherPlatform,
            MatchOutcome::Silent { .. } => Self::Silent,
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
            Self::Unwitnessed => "their Falcon sensor was not seen when they were",
            Self::Contained => "their Falcon host is isolated from the network",
            Self::Unassessed => "their Falcon host has no assessment",
            Self::SharedSerial => "other machines share their serial number",
            Self::OtherPlatform => "their Falcon host has another operating system",
            Self::Silent => "they are connected and their Falcon sensor is silent",
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
            Self::Unwitnessed(_) => {
                f.write_str("its Falcon sensor was not seen when the device was")
            }
            Self::Contained { .. } => f.write_str("its Falcon host is isolated from the network"),
            Self::SharedSerial { .. } => f.write_str("other machines share its serial number"),
            Self::OtherPlatform { .. } => {
                f.write_str("its Falcon host has another operating system")
            }
            Self::Silent { .. } => f.write_str("it is connected and its Falcon sensor is silent"),
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
    /// Returns the reason in full, as half a sentence. `candidates` are those of the device.
    pub(crate) fn full_reason(
        &self,
        candidates: &[Candidate<'_>],
        matcher: &Matcher<'_>,
    ) -> String {
        let rules = matcher.rules();
        match self {
            Self::Scored(evidence) => scored(evidence, candidates),
            Self::Unwitnessed(evidence) => format!(
                "its Falcon host {} has the score {}, but its sensor was last seen {}, and a first score waits until it is \
                 seen within 24 h of the device",
                evidence.aid,
                evidence.score,
                seen(evidence.last_seen),
            ),
            Self::Contained { aids } => format!(
                "its Falcon host {} is isolated from the network, which withholds the score (onContained)",
                listed(aids)
            ),
            Self::Unassessed { .. } => unassessed(candidates),
            Self::SharedSerial { serials } => {
                let named = serials.iter().take(MAX_NAMED_SERIALS).map(|serial| {
                    let names: Vec<String> =
                        matcher.names_of(serial).take(MAX_NAMES).map(truncate).collect();
                    format!("{serial} ({})", names.join(", "))
                });
                format!(
                    "several machines share its serial number {}, and it serves only the one that is known by it",
                    named.collect::<Vec<_>>().join(", ")
                )
            }
            Self::OtherPlatform { aids } => format!(
                "its Falcon host {} has another operating system than the device",
                listed(aids)
            ),
            Self::Silent { .. } => format!(
                "it is connected, and its Falcon sensor was last seen {}: maxSilenceHours is {}",
                seen(last_seen(candidates, CandidateStatus::Silent)),
                rules.max_silence_hours.unwrap_or_default()
            ),
            Self::Stale { .. } => stale(candidates, &rules.age_limit()),
            Self::Unmatched {
                cause: Some(cause), ..
            } => format!("no Falcon host has its serial number, but {cause}"),
            Self::Unmatched { serials, .. } => {
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
    if let Some(unwitnessed) = evidence.unwitnessed {
        return format!(
            "the score stays {score}: its Falcon host {} has {unwitnessed}, but its sensor was last seen {}, and a score \
             rises only when it is seen within 24 h of the device",
            evidence.aid,
            seen(evidence.last_seen),
        );
    }
    let lacking = count(candidates, CandidateStatus::lacks_score);
    let decided = match count(candidates, CandidateStatus::counts) - lacking {
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
    match (count(candidates, CandidateStatus::counts), invalid) {
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
    match last_seen(candidates, CandidateStatus::Stale) {
        Some(last) => format!("its Falcon host was last seen at {last:.0}, and {limit}"),
        None => format!("Falcon does not say when its host was last seen, and {limit}"),
    }
}

fn last_seen(candidates: &[Candidate<'_>], status: CandidateStatus) -> Option<Timestamp> {
    let hosts = candidates.iter().filter(|one| one.status == status);
    hosts.filter_map(|candidate| candidate.host.last_seen).max()
}

fn seen(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "at no known time".to_owned(), |at| format!("at {at:.0}"))
}

/// Lists the first aids.
fn listed(aids: &BTreeSet<Aid>) -> String {
    let first = aids.iter().take(MAX_NAMES).map(ToString::to_string);
    first.collect::<Vec<_>>().join(", ")
}

impl MatchRules {
    /// Returns the age limit as half a sentence.
    pub(crate) fn age_limit(&self) -> String {
        let days = self.max_age_days.unwrap_or_default();
        let since = self.oldest().unwrap_or_default();
        format!("with maxHostAgeDays {days} only hosts seen since {since:.0} count")
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
