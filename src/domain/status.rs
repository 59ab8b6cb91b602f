//! How the latest run of an integration went, as it is stored and shown.

pub mod error_kind;
pub mod finding;
pub mod history;
pub mod lost_identity;
pub mod outcome;
pub mod pause;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::fetch::FetchState;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::status::error_kind::ErrorKind;
use crate::domain::status::finding::{Finding, FindingKind};
use crate::domain::status::lost_identity::LostIdentity;
use history::RunStreak;
pub use outcome::RunOutcome;
use outcome::SyncState;

/// The `status` of an integration: of the latest attempt, and what is known from the ones before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When the latest attempt began.
    pub last_sync: Timestamp,
    /// When the latest attempt that came through began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// What the latest attempt came to.
    pub outcome: RunOutcome,
    /// What went wrong in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The class of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    /// All visible hosts of the Falcon account, when they were last counted.
    pub provider_host_count: usize,
    /// Own nodes with a usable serial, when they were last counted.
    pub possible_matched_count: usize,
    /// Nodes with a Falcon host, when they were last counted.
    pub matched_count: usize,
    /// Attributes that the latest attempt set or changed.
    pub written: usize,
    /// Attributes that it took away.
    pub removed: usize,
    /// The latest attempt.
    pub run_id: String,
    /// How long it took.
    pub duration_ms: u64,
    /// The version of the settings that it worked by.
    pub config_version: u64,
    /// Attempts in a row that did not come through.
    pub consecutive_failures: u32,
    /// When the first of them began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// What it noticed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Devices that had a score and do not report any more which machine they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_identity: Vec<LostIdentity>,
    /// The scores of the devices, when they were last counted.
    #[serde(default)]
    pub score_counts: ScoreHistogram,
    /// The latest attempt that changed an attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<LastChange>,
    /// How hosts and scores were fetched, when they last were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crawl: Option<FetchState>,
    /// The state that was last told on the event bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<SyncState>,
    /// Whether Tailscale's own Falcon integration runs beside, as far as it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_integration: Option<NativeIntegration>,
    /// The latest attempts, this one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RunStreak>,
}

/// Whether Tailscale's own Falcon integration runs in the same tailnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeIntegration {
    /// When that was asked.
    pub asked: Timestamp,
    /// Whether there is one.
    pub present: bool,
}

impl NativeIntegration {
    /// How long an answer is taken to be true.
    const FRESH: SignedDuration = SignedDuration::from_hours(1);

    /// Whether it need not be asked again.
    pub fn is_fresh(self, now: Timestamp) -> bool {
        now.duration_since(self.asked) < Self::FRESH
    }

    /// Whether it may still be told where it cannot be asked again.
    pub fn is_worth_telling(self, now: Timestamp) -> bool {
        now.duration_since(self.asked) < Self::FRESH * 24
    }

    /// The finding that there is one.
    pub fn finding(self) -> Option<Finding> {
        let there = self.present.then(|| "it writes falcon:ztaScore".to_owned());
        Finding::of(FindingKind::NativeIntegration, there)
    }
}

/// What changed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastChange {
    /// When the run began that changed it.
    pub at: Timestamp,
    /// That run.
    pub run_id: String,
    /// Attributes that it set or changed.
    pub written: usize,
    /// Attributes that it took away.
    pub removed: usize,
}

/// What went wrong and what to do: two halves of what a colleague would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What, on which side: half a sentence.
    pub what: String,
    /// What to do: likewise.
    pub remedy: String,
}

impl Problem {
    /// All of it, with since when it has been so, and for how many runs.
    pub fn since(&self, since: Timestamp, runs: u32) -> String {
        let row = if runs > 1 {
            format!(", {runs} runs in a row")
        } else {
            String::new()
        };
        let (what, remedy) = (sentence(&self.what), sentence(&self.remedy));
        format!("{what} Since {since:.0}{row}. {remedy}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", sentence(&self.what), sentence(&self.remedy))
    }
}

/// With a capital letter and a full stop; somebody else's words may have one already.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches(['.', ' ']).chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_with_what_since_when_and_what_to_do() {
        let trouble = Problem {
            what: "Falcon is not reachable: no route.".to_owned(),
            remedy: "the next run tries again".to_owned(),
        };
        let since = Timestamp::from_second(1_763_800_000).unwrap();
        assert_eq!(
            trouble.since(since, 3),
            "Falcon is not reachable: no route. Since 2025-11-22T08:26:40Z, 3 runs in a row. The next run tries again."
        );
        assert_eq!(
            trouble.since(since, 1),
            "Falcon is not reachable: no route. Since 2025-11-22T08:26:40Z. The next run tries again."
        );
        assert_eq!(
            trouble.to_string(),
            "Falcon is not reachable: no route. The next run tries again."
        );
    }
}
