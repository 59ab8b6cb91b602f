//! The end of a run: status, pause, event, metrics, log line and response.

use std::time::Duration;

use jiff::Timestamp;

use super::observe::Observation;
use super::report::Report;
use super::response::SyncResponse;
use super::run::Run;
use crate::domain::inventory::device::NodeId;
use crate::domain::matching::{MatchCounts, MatchRules};
use crate::domain::plan::lifetime::Lifetime;
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::domain::status::history::{self, RunStreak};
use crate::domain::status::lost_identity;
use crate::domain::status::outcome::{SyncState, transition};
use crate::domain::status::pause::Pause;
use crate::domain::status::scores_end::ScoresEnd;
use crate::domain::status::{LastChange, MAX_ERROR_BYTES, Problem, RunOutcome, Status};
use crate::events::Event;
use crate::metrics::{self, MetricEvent};
use crate::store::{FinishOutcome, StoreError};
use crate::text::{error_chain, truncate_bytes};

/// Time that the event bus gets of the time kept back for recording.
const EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns a report if the run has nothing to do: the integration is disabled or paused.
pub(super) async fn skip_report(run: &mut Run<'_>) -> Option<Report> {
    if !run.integration.should_run() && !run.request.force {
        return Some(Report::skipped("it is disabled"));
    }
    let pause = run.active_pause().await?;
    tracing::info!(
        integration = %run.integration.id,
        run_id = run.id(),
        side = %pause.service,
        until = %pause.until,
        "{} is paused until {}",
        run.integration.id,
        pause.until,
    );
    // In each run, so that the alarm of a pause lasts as long as the pause.
    let (status, now) = (Some(&run.previous), run.app.clock.now());
    let since_success = run.integration.seconds_since_success(status, now);
    let event = metric_event(run, RunOutcome::Paused)
        .value(metrics::PAUSED, 1_u64)
        .value(metrics::SECONDS_SINCE_SUCCESS, since_success);
    run.app.metrics.emit(&event);
    Some(Report::paused(&pause))
}

/// Writes the status, gives the lease back, and emits the run's event, metrics and log line.
pub(super) async fn record(run: &Run<'_>, report: &Report) -> Result<FinishOutcome, StoreError> {
    let announced = announce(run, report).await;
    let status = status(run, report, announced);
    let pause = match report.unauthorized_by {
        Some(service) => {
            let version = run.rejected_secret_version(service).await;
            let problem = report.problem.as_ref();
            let error = problem.map_or_else(String::new, Problem::to_string);
            let error = truncate_bytes(&error, MAX_ERROR_BYTES);
            let previous = run.previous_pause.as_ref();
            let context = run.pause_context();
            Some(Pause::next(previous, service, error, version, context))
        }
        None if report.outcome == RunOutcome::Failed => run.previous_pause.clone(),
        None => None,
    };
    log(run, report, &status);
    emit_metrics(run, report, &status);
    let removal = run.integration.removal.as_ref();
    if let Some(removal) = removal.filter(|_| report.is_removal_complete) {
        return run.delete_integration(removal).await;
    }
    let (id, recorded) = (&run.integration.id, run.recorded_keys());
    let finished = run
        .app
        .store
        .finish(id, run.term(), &status, pause.as_ref(), &recorded);
    let outcome = finished.await?;
    if outcome == FinishOutcome::LeaseLost {
        tracing::warn!(
            integration = %run.integration.id,
            run_id = run.id(),
            "the lease expired before the run was recorded; another run has taken over"
        );
        run.restore_journal().await?;
    }
    Ok(outcome)
}

/// Makes the response. A failure of DynamoDB is returned as an error, so that Lambda retries the invocation.
pub(super) fn response(run: &Run<'_>, mut report: Report) -> Result<SyncResponse, StoreError> {
    if let Some(error) = report.store_error.take() {
        return Err(error);
    }
    Ok(SyncResponse {
        counts: counts(run, &report),
        error: message(run, &report),
        duration_ms: duration_ms(run),
        ..SyncResponse::new(report, &run.integration.id, run.id())
    })
}

/// Returns the start and the number of the consecutive failed runs, this run included.
fn failing_since(run: &Run<'_>) -> (Timestamp, u32) {
    let runs = run.previous.consecutive_failures;
    let since = run.previous.failing_since.filter(|_| runs > 0);
    (since.unwrap_or(run.started), runs.saturating_add(1))
}

/// Returns the text for status, log and response, cut to what the item has room for.
fn message(run: &Run<'_>, report: &Report) -> Option<String> {
    let message = whole_message(run, report)?;
    Some(truncate_bytes(&message, MAX_ERROR_BYTES))
}

fn whole_message(run: &Run<'_>, report: &Report) -> Option<String> {
    let (since, runs) = failing_since(run);
    let problem = report.problem.as_ref();
    let problem = problem.map(|problem| problem.since(since, runs));
    let message = match (problem, report.reason.clone()) {
        (Some(problem), Some(reason)) => format!("{problem} {reason}"),
        (problem, reason) => problem.or(reason)?,
    };
    if report.error_kind != Some(ErrorKind::Deadline) {
        return Some(message);
    }
    let time = run.invocation.deadline.duration_since(run.started);
    Some(format!("{message} This run had {} s.", time.as_secs()))
}

fn status(run: &Run<'_>, report: &Report, announced: Option<SyncState>) -> Status {
    let duration_ms = duration_ms(run);
    let streak = RunStreak {
        since: run.started,
        until: run.started,
        runs: 1,
        outcome: report.outcome,
        error_kind: report.error_kind,
        written: report.written,
        removed: report.removed,
        failed: report.failed,
        duration_ms,
        run_id: run.id().to_owned(),
    };
    let counts = counts(run, report);
    let mut status = Status {
        last_sync: run.started,
        outcome: report.outcome,
        error: message(run, report),
        error_kind: report.error_kind,
        provider_host_count: counts.provider_hosts,
        possible_matched_count: counts.possible_matched,
        matched_count: counts.matched,
        written: report.written,
        removed: report.removed,
        waiting: report.waiting,
        run_id: run.id().to_owned(),
        duration_ms,
        config_version: run.integration.config_version,
        findings: report.findings.clone(),
        announced,
        history: history::push(&run.previous.history, streak),
        ..run.previous.clone()
    };
    if report.outcome.is_success() {
        status.last_success = Some(run.started);
        (status.failing_since, status.consecutive_failures) = (None, 0);
    } else {
        let (since, runs) = failing_since(run);
        (status.failing_since, status.consecutive_failures) = (Some(since), runs);
    }
    if let Some(ends) = report.score_ends {
        (status.recorded_end, status.scores_end) = (ends.recorded, ends.unrenewed);
    }
    if !report.outcome.is_success() && report.outcome != RunOutcome::Held {
        status.scores_end = status.recorded_end;
    }
    let lifetime = run.settings().map(|one| Lifetime::new(one, run.started));
    let is_ending = |end: ScoresEnd| lifetime.is_ok_and(|life| life.is_nearly_over(end.first));
    status.ending_announced &= status.scores_end.is_some_and(is_ending);
    if report.written + report.removed > 0 {
        status.last_change = Some(LastChange {
            at: run.started,
            run_id: run.id().to_owned(),
            written: report.written,
            removed: report.removed,
        });
    }
    if let Some(decision) = &report.decision {
        let lost = &decision.lost_identities;
        status.lost_identity = lost_identity::truncate_for_storage(lost);
        status.score_counts = decision.matches.score_histogram();
        status.native_integration = decision.observation.native;
        let text = |node: &Option<NodeId>| node.as_ref().map(ToString::to_string);
        status.next_lookup = text(&decision.confirmation.next_lookup);
        status.next_rise = text(&decision.confirmation.next_rise);
        let Observation {
            falcon,
            fetch_state,
            ..
        } = &decision.observation;
        if let (true, Ok(settings)) = (fetch_state.strategy.lists_hosts(), run.settings()) {
            let rules = MatchRules::new(settings, run.started);
            status.hosts_without_serial = Some(rules.count_unusable(&falcon.hosts));
        }
        let (plan, unmatched) = (&decision.guarded.plan, decision.matches.unmatched());
        status.crawl = Some(fetch_state.clone().after(plan, &unmatched));
    }
    status
}

/// Publishes a change of state on the event bus, and returns the state that was last published.
///
/// The event is sent before the status is written. If the run dies between the two, or EventBridge rejects the event, the
/// next run sends it. A change is therefore published at least once, and nothing is published while nothing changes.
async fn announce(run: &Run<'_>, report: &Report) -> Option<SyncState> {
    let announced = run.previous.announced;
    let Some(transition) = transition(announced, report.outcome) else {
        return announced.or_else(|| SyncState::from_outcome(report.outcome));
    };
    if run.integration.removal.is_some() {
        return announced;
    }
    let event = [Event::StateChanged {
        integration: run.integration.id.clone(),
        transition,
        error: message(run, report),
    }];
    let put = run.app.events.put(&event);
    let error = match tokio::time::timeout(EVENT_TIMEOUT, put).await {
        Ok(Ok(())) => return Some(transition.to),
        Ok(Err(error)) => error_chain(&error),
        Err(_) => "the event bus did not respond in time".to_owned(),
    };
    tracing::warn!(
        integration = %run.integration.id,
        run_id = run.id(),
        state = %transition.to,
        error,
        "the change of state could not be published on the event bus; the next run publishes it"
    );
    announced
}

fn emit_metrics(run: &Run<'_>, report: &Report, status: &Status) {
    let is = |outcome: RunOutcome| u64::from(report.outcome == outcome);
    let budget = &run.budget;
    let (falcon, tailscale) = (Service::Falcon, Service::Tailscale);
    let now = run.app.clock.now();
    let since_success = run.integration.seconds_since_success(Some(status), now);
    let mut event = metric_event(run, report.outcome)
        .value(metrics::DURATION, status.duration_ms)
        .value(metrics::FALCON_REQUESTS, budget.requests(falcon))
        .value(metrics::TAILSCALE_REQUESTS, budget.requests(tailscale))
        .value(metrics::FALCON_RETRIES, budget.retries(falcon))
        .value(metrics::TAILSCALE_RETRIES, budget.retries(tailscale))
        .value(metrics::WRITTEN, report.written)
        .value(metrics::REMOVED, report.removed)
        .value(metrics::RENEWED, report.renewed)
        .value(metrics::REFUSED, report.failed)
        .value(metrics::FINDINGS, report.findings.len())
        .value(metrics::PAUSED, is(RunOutcome::Paused))
        .value(metrics::HELD, is(RunOutcome::Held))
        .value(metrics::FAILED, is(RunOutcome::Failed))
        .value(metrics::SUCCESS, u64::from(report.outcome.is_success()))
        .value(metrics::SECONDS_SINCE_SUCCESS, since_success);
    if let Some(counts) = report.counts() {
        event = event
            .value(metrics::FALCON_HOSTS, counts.provider_hosts)
            .value(metrics::POSSIBLE_MATCHED, counts.possible_matched)
            .value(metrics::MATCHED, counts.matched);
    }
    if let Some(remaining) = budget.quota_remaining() {
        event = event.value(metrics::FALCON_QUOTA_REMAINING, remaining);
    }
    if let Some(kind) = report.error_kind {
        event = event.property("errorKind", kind.to_string());
    }
    run.app.metrics.emit(&event);
}

fn metric_event(run: &Run<'_>, outcome: RunOutcome) -> MetricEvent {
    MetricEvent::new(run.app.clock.now(), Some(&run.integration.id))
        .property("runId", run.id())
        .property("outcome", outcome.to_string())
}

/// Returns the counts of this run, or of the latest one that observed both sides.
fn counts(run: &Run<'_>, report: &Report) -> MatchCounts {
    report.counts().unwrap_or(MatchCounts {
        provider_hosts: run.previous.provider_host_count,
        possible_matched: run.previous.possible_matched_count,
        matched: run.previous.matched_count,
    })
}

fn duration_ms(run: &Run<'_>) -> u64 {
    let duration = run.app.clock.now().duration_since(run.started);
    u64::try_from(duration.as_millis()).unwrap_or(0)
}

fn log(run: &Run<'_>, report: &Report, status: &Status) {
    let integration = &run.integration.id;
    let outcome = report.outcome.to_string();
    let error_kind = report.error_kind.map(|kind| kind.to_string());
    // A macro, since the level of a tracing call is a constant of the call site.
    macro_rules! log_at {
        ($level:ident) => {
            tracing::$level!(
                integration = %integration,
                run_id = run.id(),
                outcome,
                error = status.error,
                error_kind,
                provider_host_count = status.provider_host_count,
                possible_matched_count = status.possible_matched_count,
                matched_count = status.matched_count,
                written = report.written,
                removed = report.removed,
                renewed = report.renewed,
                unchanged = report.unchanged,
                failed = report.failed,
                waiting = report.waiting,
                findings = status.findings.len(),
                state = status.announced.map(|state| state.to_string()),
                consecutive_failures = status.consecutive_failures,
                config_version = status.config_version,
                falcon_requests = run.budget.requests(Service::Falcon),
                falcon_retries = run.budget.retries(Service::Falcon),
                falcon_quota_remaining = run.budget.quota_remaining(),
                crawl = status.crawl.as_ref().map(|crawl| crawl.strategy.to_string()),
                tailscale_requests = run.budget.requests(Service::Tailscale),
                tailscale_retries = run.budget.retries(Service::Tailscale),
                duration_ms = status.duration_ms,
                "{integration} is {outcome}: {} written, {} removed, {} unchanged",
                report.written,
                report.removed,
                report.unchanged,
            )
        };
    }
    match report.outcome {
        // The Lambda runtime logs a failure of DynamoDB as the invocation's error.
        _ if report.store_error.is_some() => log_at!(info),
        RunOutcome::Failed | RunOutcome::Paused => log_at!(error),
        RunOutcome::Held => log_at!(warn),
        _ => log_at!(info),
    }
}
