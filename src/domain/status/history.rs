//! The latest runs of an integration, as its item keeps them: enough to see what has been going on, and never more than
//! a few kilobytes.
//!
//! Runs of one kind that changed nothing are told as one: a quiet week is one line, and a night of failures is one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::status::error_kind::ErrorKind;
use crate::domain::status::outcome::RunOutcome;

/// Maximum entries that are stored.
const KEPT: usize = 24;

/// A run, or several in a row that had the same outcome and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStreak {
    /// When the first of them began.
    pub since: Timestamp,
    /// When the latest of them began.
    pub until: Timestamp,
    /// How many they are.
    pub runs: u32,
    /// The outcome of all of them.
    pub outcome: RunOutcome,
    /// The class of what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    /// Attributes that were set or changed.
    pub written: usize,
    /// Attributes that were taken away.
    pub removed: usize,
    /// Devices whose attribute Tailscale refused.
    pub failed: usize,
    /// How long the latest of them took.
    pub duration_ms: u64,
    /// The latest of them.
    pub run_id: String,
}

impl RunStreak {
    fn is_quiet(&self) -> bool {
        self.written + self.removed + self.failed == 0
    }

    fn goes_on_with(&self, run: &Self) -> bool {
        let same = self.outcome == run.outcome && self.error_kind == run.error_kind;
        same && self.is_quiet() && run.is_quiet()
    }
}

/// The history with one more run, latest first.
pub fn with(history: &[RunStreak], run: RunStreak) -> Vec<RunStreak> {
    let (latest, earlier) = match history.split_first() {
        Some((latest, earlier)) if latest.goes_on_with(&run) => {
            let latest = RunStreak {
                since: latest.since,
                runs: latest.runs.saturating_add(run.runs),
                ..run
            };
            (latest, earlier)
        }
        _ => (run, history),
    };
    let earlier = earlier.iter().take(KEPT - 1).cloned();
    std::iter::once(latest).chain(earlier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(minute: i64, outcome: RunOutcome, written: usize) -> RunStreak {
        let at = Timestamp::from_second(minute * 60).unwrap();
        RunStreak {
            since: at,
            until: at,
            runs: 1,
            outcome,
            error_kind: None,
            written,
            removed: 0,
            failed: 0,
            duration_ms: 900,
            run_id: format!("run-{minute}"),
        }
    }

    #[test]
    fn quiet_runs_of_a_kind_are_one_line() {
        let mut history = Vec::new();
        for (minute, outcome, written) in [
            (0, RunOutcome::Synced, 3),
            (15, RunOutcome::Unchanged, 0),
            (30, RunOutcome::Unchanged, 0),
            (45, RunOutcome::Failed, 0),
            (60, RunOutcome::Unchanged, 0),
            (75, RunOutcome::Synced, 1),
            (90, RunOutcome::Synced, 1),
        ] {
            history = with(&history, run(minute, outcome, written));
        }
        let told: Vec<(i64, i64, u32)> = history
            .iter()
            .map(|line| {
                let minutes = |time: Timestamp| time.as_second() / 60;
                (minutes(line.since), minutes(line.until), line.runs)
            })
            .collect();
        assert_eq!(
            told,
            [
                (90, 90, 1),
                (75, 75, 1),
                (60, 60, 1),
                (45, 45, 1),
                (15, 30, 2),
                (0, 0, 1)
            ]
        );
        assert_eq!(history[4].run_id, "run-30");
    }

    #[test]
    fn failures_of_different_kinds_are_two_lines() {
        let failed = |minute, error_kind| RunStreak {
            error_kind: Some(error_kind),
            ..run(minute, RunOutcome::Failed, 0)
        };
        let history = with(&[], failed(0, ErrorKind::Unavailable));
        let history = with(&history, failed(15, ErrorKind::Protocol));
        assert_eq!(history.len(), 2);
    }

    #[test]
    fn old_lines_go() {
        let mut history = Vec::new();
        for minute in 0..100 {
            history = with(&history, run(minute, RunOutcome::Synced, 1));
        }
        assert_eq!(history.len(), KEPT);
        assert_eq!(history[0].run_id, "run-99");
    }
}
