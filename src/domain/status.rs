//! The status of an integration: its latest run, and facts from earlier ones.

pub mod error_kind;
pub mod finding;
pub mod history;
pub mod lost_identity;
pub mod outcome;
pub mod pause;
pub mod scores_end;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::fetch::FetchState;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::is_default;
use crate::domain::status::error_kind::ErrorKind;
use crate::domain::status::finding::{Finding, FindingKind};
use crate::domain::status::lost_identity::LostIdentity;
use crate::domain::status::scores_end::ScoresEnd;
use history::RunStreak;
pub use outcome::RunOutcome;
use outcome::SyncState;

/// Maximum bytes of an error that is stored: an item holds 400 kB.
pub(crate) const MAX_ERROR_BYTES: usize = 2_000;

/// The status of an integration, as it is stored. Counts are those of the latest attempt that could count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When the latest attempt began.
    pub(crate) last_sync: Timestamp,
    /// When the latest successful attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) outcome: RunOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_kind: Option<ErrorKind>,
    /// All visible hosts of the Falcon account.
    pub(crate) provider_host_count: usize,
    /// Visible hosts without a serial that identifies a machine, as of the latest listing of all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hosts_without_serial: Option<usize>,
    /// Own nodes with a valid serial.
    pub(crate) possible_matched_count: usize,
    /// Nodes with a Falcon host.
    pub(crate) matched_count: usize,
    /// Attributes that the latest attempt set or changed.
    pub(crate) written: usize,
    /// Attributes that the latest attempt removed.
    pub(crate) removed: usize,
    /// Attributes that wait for the second look.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) waiting: usize,
    pub(crate) run_id: String,
    pub(crate) duration_ms: u64,
    /// The version of the settings that the latest attempt used.
    pub(crate) config_version: u64,
    pub(crate) consecutive_failures: u32,
    /// When the first of the consecutive failures began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failing_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<Finding>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lost_identity: Vec<LostIdentity>,
    #[serde(default)]
    pub(crate) score_counts: ScoreHistogram,
    /// The latest attempt that changed an attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_change: Option<LastChange>,
    /// The state of fetching hosts and scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) crawl: Option<FetchState>,
    /// The state that was last announced on the event bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) announced: Option<SyncState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) native_integration: Option<NativeIntegration>,
    /// The device at which the next run goes on to look up devices that a listing lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_lookup: Option<String>,
    /// The device at which the next run goes on to confirm rises after a short listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_rise: Option<String>,
    /// The end of the scores that the latest run did not renew: all of them after a failure or a pause, else those whose
    /// removal is held or whose renewal failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scores_end: Option<ScoresEnd>,
    /// The end of all scores after the latest run that applied a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recorded_end: Option<ScoresEnd>,
    /// True once it was announced on the event bus that the scores end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) ending_announced: bool,
    /// The latest attempts, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) history: Vec<RunStreak>,
}

/// The result of asking whether Tailscale's own Falcon integration runs in the same tailnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NativeIntegration {
    /// When Tailscale was asked.
    pub(crate) asked: Timestamp,
    pub(crate) present: bool,
}

impl NativeIntegration {
    /// How long the result is used without asking again.
    const MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

    /// Returns whether the result can be used without asking again.
    pub(crate) fn is_fresh(self, now: Timestamp) -> bool {
        now.duration_since(self.asked) < Self::MAX_AGE
    }

    /// Returns whether the result can be used if asking again fails.
    pub(crate) fn is_recent(self, now: Timestamp) -> bool {
        now.duration_since(self.asked) < Self::MAX_AGE * 24
    }

    pub(crate) fn finding(self) -> Option<Finding> {
        let example = self.present.then(|| "it writes falcon:ztaScore".to_owned());
        Finding::new(FindingKind::NativeIntegration, example)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastChange {
    /// When the run began.
    pub(crate) at: Timestamp,
    pub(crate) run_id: String,
    /// Attributes that were set or changed.
    pub(crate) written: usize,
    pub(crate) removed: usize,
}

/// A failure for people: the message and the remedy, each as half a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

impl Problem {
    /// Formats the problem, with when it started and how many runs failed in a row.
    pub(crate) fn since(&self, since: Timestamp, runs: u32) -> String {
        let row = match runs {
            0 | 1 => String::new(),
            runs => format!(", {runs} runs in a row"),
        };
        let (what, remedy) = (sentence(&self.message), sentence(&self.remedy));
        format!("{what} Since {since:.0}{row}. {remedy}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", sentence(&self.message), sentence(&self.remedy))
    }
}

/// Makes a sentence: a capital letter first, and one full stop at the end. A service's message may have one already.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches(['.', ' ']).chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_message_its_start_and_a_remedy() {
        let problem = Problem {
            message: "Falcon is not reachable: no route.".to_owned(),
            remedy: "the next run tries again".to_owned(),
        };
        let since = Timestamp::from_second(1_763_800_000).unwrap();
        assert_eq!(
            problem.since(since, 3),
            "Falcon is not reachable: no route. Since 2025-11-22T08:26:40Z, 3 runs in a row. The next run tries again."
        );
        assert_eq!(
            problem.since(since, 1),
            "Falcon is not reachable: no route. Since 2025-11-22T08:26:40Z. The next run tries again."
        );
        assert_eq!(
            problem.to_string(),
            "Falcon is not reachable: no route. The next run tries again."
        );
    }
}
