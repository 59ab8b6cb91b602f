//! The account that a run gives of itself: the status, the line in the log, the answer.

use jiff::Timestamp;
use serde_json::Value;

use super::Run;
use crate::domain::history::{self, Stretch};
use crate::domain::join::Counts;
use crate::domain::lost;
use crate::domain::scores::Distribution;
use crate::domain::status::{LastChange, RunOutcome, Status};
use crate::error::{ErrorKind, Side};
use crate::store::StoreError;
use crate::sync::answer::Answer;
use crate::sync::report::Report;

impl Run<'_> {
    /// Since when, and for how many runs, it has not come through, this run included.
    fn failing(&self) -> (Timestamp, u32) {
        let before = self
            .integration
            .status
            .as_ref()
            .filter(|status| status.consecutive_failures > 0);
        let since = before.and_then(|status| status.failing_since);
        let runs = before.map_or(0, |status| status.consecutive_failures);
        (since.unwrap_or(self.started), runs.saturating_add(1))
    }

    fn told(&self, report: &Report) -> Option<String> {
        let (since, runs) = self.failing();
        let told = report.told(since, runs)?;
        Some(match report.error_kind {
            Some(ErrorKind::Deadline) => {
                let time = self.invocation.deadline.duration_since(self.started);
                format!("{told} This run had {} s.", time.as_secs())
            }
            _ => told,
        })
    }

    pub(super) fn status(&self, report: &Report) -> Status {
        let before = self.integration.status.as_ref();
        let success = report.outcome.is_success();
        let counts = self.counts(report);
        let (since, runs) = self.failing();
        Status {
            last_sync: self.started,
            last_success: if success {
                Some(self.started)
            } else {
                before.and_then(|status| status.last_success)
            },
            outcome: report.outcome,
            error: self.told(report),
            error_kind: report.error_kind,
            provider_host_count: counts.provider_hosts,
            possible_matched_count: counts.possible_matched,
            matched_count: counts.matched,
            written: report.written,
            removed: report.removed,
            run_id: self.invocation.id.clone(),
            duration_ms: self.duration_ms(),
            config_version: self.integration.config_version,
            consecutive_failures: if success { 0 } else { runs },
            failing_since: (!success).then_some(since),
            findings: report.findings.clone(),
            lost_identity: match &report.lost {
                Some(lost) => lost::remembered(lost),
                None => before.map_or_else(Vec::new, |status| status.lost_identity.clone()),
            },
            score_counts: report.scores.clone().unwrap_or_else(|| {
                before.map_or_else(Distribution::default, |status| status.score_counts.clone())
            }),
            last_change: if report.written + report.removed > 0 {
                Some(LastChange {
                    at: self.started,
                    run_id: self.id().to_owned(),
                    written: report.written,
                    removed: report.removed,
                })
            } else {
                before.and_then(|status| status.last_change.clone())
            },
            crawl: report
                .crawl
                .clone()
                .or_else(|| before.and_then(|status| status.crawl.clone())),
            history: self.history(report),
        }
    }

    fn history(&self, report: &Report) -> Vec<Stretch> {
        let before = self.integration.status.as_ref();
        let run = Stretch {
            since: self.started,
            until: self.started,
            runs: 1,
            outcome: report.outcome,
            error_kind: report.error_kind,
            written: report.written,
            removed: report.removed,
            failed: report.failed,
            duration_ms: self.duration_ms(),
            run_id: self.id().to_owned(),
        };
        history::with(before.map_or(&[], |status| &status.history), run)
    }

    /// The counts of this run, or of the last one that came so far.
    fn counts(&self, report: &Report) -> Counts {
        report.counts.unwrap_or_else(|| {
            self.integration
                .status
                .as_ref()
                .map_or_else(Counts::default, |status| Counts {
                    provider_hosts: status.provider_host_count,
                    possible_matched: status.possible_matched_count,
                    matched: status.matched_count,
                })
        })
    }

    fn duration_ms(&self) -> u64 {
        let duration = self.world.clock.now().duration_since(self.started);
        u64::try_from(duration.as_millis()).unwrap_or(0)
    }

    pub(super) fn log(&self, report: &Report, status: &Status) {
        let integration = &self.integration.id;
        let outcome = report.outcome.to_string();
        let error_kind = report
            .error_kind
            .and_then(|kind| serde_json::to_value(kind).ok());
        let error_kind = error_kind.as_ref().and_then(Value::as_str);
        macro_rules! record {
            ($level:ident) => {
                tracing::$level!(
                    integration = %integration,
                    run_id = self.id(),
                    outcome,
                    error = status.error,
                    error_kind,
                    provider_host_count = status.provider_host_count,
                    possible_matched_count = status.possible_matched_count,
                    matched_count = status.matched_count,
                    written = report.written,
                    removed = report.removed,
                    unchanged = report.unchanged,
                    failed = report.failed,
                    falcon_requests = self.budget.requests(Side::Falcon),
                    crawl = status.crawl.as_ref().map(|crawl| crawl.way.to_string()),
                    tailscale_requests = self.budget.requests(Side::Tailscale),
                    duration_ms = status.duration_ms,
                    "{integration} is {outcome}: {} written, {} removed, {} unchanged",
                    report.written,
                    report.removed,
                    report.unchanged,
                )
            };
        }
        match report.outcome {
            // The runtime logs a fault of our own, since it is the invocation's error.
            _ if report.fault.is_some() => record!(info),
            RunOutcome::Failed | RunOutcome::Paused => record!(error),
            RunOutcome::Held => record!(warn),
            RunOutcome::Synced
            | RunOutcome::Unchanged
            | RunOutcome::Planned
            | RunOutcome::Skipped => {
                record!(info);
            }
        }
    }

    /// The answer to whoever asked. A fault of our own is an error, so that Lambda tries again.
    pub(in crate::sync) fn answer(&self, report: Report) -> Result<Answer, StoreError> {
        let (counts, error) = (self.counts(&report), self.told(&report));
        report.into_answer(
            &self.integration.id,
            self.id(),
            counts,
            self.duration_ms(),
            error,
        )
    }
}
