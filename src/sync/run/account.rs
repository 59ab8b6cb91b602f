//! The account that a run gives of itself: the status, the line in the log, the answer.

use std::time::Duration;

use jiff::Timestamp;

use super::Run;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::matching::MatchCounts;
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::domain::status::history::{self, RunStreak};
use crate::domain::status::lost_identity;
use crate::domain::status::outcome::{SyncState, transition};
use crate::domain::status::{LastChange, RunOutcome, Status};
use crate::events::Event;
use crate::metrics;
use crate::store::StoreError;
use crate::sync::answer::SyncResponse;
use crate::sync::report::Report;
use crate::text::error_chain;

/// Of the time that is reserved for recording how a run went, the bus gets this much.
const BUS_PATIENCE: Duration = Duration::from_secs(2);

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

    /// The status, where people were told of the state `announced`.
    pub(super) fn status(&self, report: &Report, announced: Option<SyncState>) -> Status {
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
                Some(lost) => lost_identity::remembered(lost),
                None => before.map_or_else(Vec::new, |status| status.lost_identity.clone()),
            },
            score_counts: report.scores.clone().unwrap_or_else(|| {
                before.map_or_else(ScoreHistogram::default, |status| {
                    status.score_counts.clone()
                })
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
            announced,
            native_integration: if report.counts.is_some() {
                report.native
            } else {
                before.and_then(|status| status.native_integration)
            },
            history: self.history(report),
        }
    }

    /// Tells people if the integration has come into another state, and answers the state that they know of then.
    ///
    /// It comes before the status is written: where the run dies between the two, or the bus takes nothing, the next one
    /// tells it. So a change is told at least once, and while nothing changes, nothing is told.
    pub(super) async fn announce(&self, report: &Report) -> Option<SyncState> {
        let before = self.integration.status.as_ref();
        let announced = before.and_then(|status| status.announced);
        let Some(transition) = transition(announced, report.outcome) else {
            return announced.or_else(|| SyncState::after(report.outcome));
        };
        if self.integration.removal.is_some() {
            return announced;
        }
        let event = [Event::StateChanged {
            integration: self.integration.id.clone(),
            transition,
            error: self.told(report),
        }];
        let put = self.world.events.put(&event);
        let error = match tokio::time::timeout(BUS_PATIENCE, put).await {
            Ok(Ok(())) => return Some(transition.to),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "the event bus did not answer in time".to_owned(),
        };
        tracing::warn!(
            integration = %self.integration.id,
            run_id = self.id(),
            state = %transition.to,
            error,
            "the change of state could not be told on the bus; the next run tells it"
        );
        announced
    }

    /// The run as metrics.
    pub(super) fn measure(&self, report: &Report, status: &Status) {
        let is = |outcome: RunOutcome| u64::from(report.outcome == outcome);
        let mut line = self
            .measured(report.outcome)
            .with(metrics::DURATION, status.duration_ms)
            .with(
                metrics::FALCON_REQUESTS,
                self.budget.requests(Service::Falcon),
            )
            .with(
                metrics::TAILSCALE_REQUESTS,
                self.budget.requests(Service::Tailscale),
            )
            .with(
                metrics::FALCON_RETRIES,
                self.budget.retries(Service::Falcon),
            )
            .with(
                metrics::TAILSCALE_RETRIES,
                self.budget.retries(Service::Tailscale),
            )
            .with(metrics::WRITTEN, report.written)
            .with(metrics::REMOVED, report.removed)
            .with(metrics::REFUSED, report.failed)
            .with(metrics::FINDINGS, report.findings.len())
            .with(metrics::PAUSED, is(RunOutcome::Paused))
            .with(metrics::HELD, is(RunOutcome::Held))
            .with(metrics::FAILED, is(RunOutcome::Failed))
            .with(metrics::SUCCESS, u64::from(report.outcome.is_success()))
            .with(
                metrics::SECONDS_SINCE_SUCCESS,
                self.integration
                    .seconds_since_success(Some(status), self.world.clock.now()),
            );
        if let Some(counts) = report.counts {
            line = line
                .with(metrics::FALCON_HOSTS, counts.provider_hosts)
                .with(metrics::POSSIBLE_MATCHED, counts.possible_matched)
                .with(metrics::MATCHED, counts.matched);
        }
        if let Some(remaining) = self.budget.quota_remaining() {
            line = line.with(metrics::FALCON_QUOTA_REMAINING, remaining);
        }
        self.world.metrics.put(&match report.error_kind {
            Some(kind) => line.note("errorKind", kind.to_string()),
            None => line,
        });
    }

    /// A pause that was found in force, as metrics: so that an alarm lasts as long as it does.
    pub(super) fn measure_pause(&self) {
        let status = self.integration.status.as_ref();
        let now = self.world.clock.now();
        let since = self.integration.seconds_since_success(status, now);
        let line = self.measured(RunOutcome::Paused);
        self.world.metrics.put(
            &line
                .with(metrics::PAUSED, 1_u64)
                .with(metrics::SECONDS_SINCE_SUCCESS, since),
        );
    }

    fn measured(&self, outcome: RunOutcome) -> metrics::MetricEvent {
        metrics::MetricEvent::of_integration(self.world.clock.now(), &self.integration.id)
            .note("runId", self.id())
            .note("outcome", outcome.to_string())
    }

    fn history(&self, report: &Report) -> Vec<RunStreak> {
        let before = self.integration.status.as_ref();
        let run = RunStreak {
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
    fn counts(&self, report: &Report) -> MatchCounts {
        report.counts.unwrap_or_else(|| {
            self.integration
                .status
                .as_ref()
                .map_or_else(MatchCounts::default, |status| MatchCounts {
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
        let error_kind = report.error_kind.map(|kind| kind.to_string());
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
                    findings = status.findings.len(),
                    state = status.announced.map(|state| state.to_string()),
                    consecutive_failures = status.consecutive_failures,
                    config_version = status.config_version,
                    falcon_requests = self.budget.requests(Service::Falcon),
                    falcon_retries = self.budget.retries(Service::Falcon),
                    falcon_quota_remaining = self.budget.quota_remaining(),
                    crawl = status.crawl.as_ref().map(|crawl| crawl.way.to_string()),
                    tailscale_requests = self.budget.requests(Service::Tailscale),
                    tailscale_retries = self.budget.retries(Service::Tailscale),
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
    pub(in crate::sync) fn answer(&self, report: Report) -> Result<SyncResponse, StoreError> {
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
