//! The latest runs of an integration, as its item stores them in a few kilobytes.
//!
//! Consecutive runs with the same outcome and without a change are one entry: a week of unchanged runs, or a night of
//! failures.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::status::error_kind::ErrorKind;
use crate::domain::status::outcome::RunOutcome;

/// Maximum entries that are stored.
pub(crate) const MAX_ENTRIES: usize = 24;

/// One run, or consecutive runs with the same outcome and without a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunStreak {
    /// When the first run began.
    pub(crate) since: Timestamp,
    /// When the latest run began.
    pub(crate) until: Timestamp,
    pub(crate) runs: u32,
    pub(crate) outcome: RunOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_kind: Option<ErrorKind>,
    /// Attributes that were set or changed.
    pub(crate) written: usize,
    pub(crate) removed: usize,
    /// Devices whose attribute Tailscale rejected.
    pub(crate) failed: usize,
    /// The duration of the latest run.
    pub(crate) duration_ms: u64,
    /// The id of the latest run.
    pub(crate) run_id: String,
}

impl RunStreak {
    fn can_extend(&self, run: &Self) -> bool {
        let is_same = self.outcome == run.outcome && self.error_kind == run.error_kind;
        let is_quiet = |streak: &Self| streak.written + streak.removed + streak.failed == 0;
        is_same && is_quiet(self) && is_quiet(run)
    }
}

/// Returns the history with one more run; newest first.
pub(crate) fn push(history: &[RunStreak], run: RunStreak) -> Vec<RunStreak> {
    let (latest, earlier) = match history.split_first() {
        Some((latest, earlier)) if latest.can_extend(&run) => {
            let latest = RunStreak {
                since: latest.since,
                runs: latest.runs.saturating_add(run.runs),
                ..run
            };
            (latest, earlier)
        }
        _ => (run, history),
    };
    let stored = earlier.iter().take(MAX_ENTRIES - 1).cloned();
    std::iter::once(latest).chain(stored).collect()
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
    fn unchanged_runs_are_one_entry() {
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
            history = push(&history, run(minute, outcome, written));
        }
        let entries: Vec<(i64, i64, u32)> = history
            .iter()
            .map(|entry| {
                let minutes = |time: Timestamp| time.as_second() / 60;
                (minutes(entry.since), minutes(entry.until), entry.runs)
            })
            .collect();
        assert_eq!(
            entries,
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
    fn failures_of_different_kinds_are_two_entries() {
        let failed = |minute, error_kind| RunStreak {
            error_kind: Some(error_kind),
            ..run(minute, RunOutcome::Failed, 0)
        };
        let history = push(&[], failed(0, ErrorKind::Unavailable));
        let history = push(&history, failed(15, ErrorKind::Protocol));
        assert_eq!(history.len(), 2);
    }

    #[test]
    fn old_entries_are_dropped() {
        let mut history = Vec::new();
        for minute in 0..100 {
            history = push(&history, run(minute, RunOutcome::Synced, 1));
        }
        assert_eq!(history.len(), MAX_ENTRIES);
        assert_eq!(history[0].run_id, "run-99");
    }
}
