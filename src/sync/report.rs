//! What a run comes to, before it is told: each way that it can end.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Decision;
use super::answer::{PLANNED, PlannedChange, SyncResponse};
use super::apply::Applied;
use super::failure::SyncError;
use super::settle::SkippedDevices;
use crate::domain::fetch::FetchState;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::histogram::ScoreHistogram;
use crate::domain::matching::MatchCounts;
use crate::domain::plan::guard::Held;
use crate::domain::plan::{Plan, Unconfirmed};
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::domain::status::lost_identity::{self, LostIdentity};
use crate::domain::status::pause::Pause;
use crate::domain::status::{NativeIntegration, Problem, RunOutcome};
use crate::settings::IntegrationId;
use crate::store::StoreError;

/// What there is to say about a run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) outcome: RunOutcome,
    /// Why nothing was done, or why something waits.
    note: Option<String>,
    /// What went wrong.
    pub(super) trouble: Option<Problem>,
    pub(super) error_kind: Option<ErrorKind>,
    /// Who refused a credential, if that is what happened.
    pub(super) refused_by: Option<Service>,
    /// Of a run that came so far as to count.
    pub(super) counts: Option<MatchCounts>,
    pub(super) written: usize,
    pub(super) removed: usize,
    pub(super) unchanged: usize,
    pub(super) failed: usize,
    pub(super) findings: Vec<Finding>,
    /// Of a run that came so far as to know.
    pub(super) lost: Option<Vec<LostIdentity>>,
    /// Likewise.
    pub(super) scores: Option<ScoreHistogram>,
    /// Likewise.
    pub(super) crawl: Option<FetchState>,
    /// Of a run that asked.
    pub(super) native: Option<NativeIntegration>,
    plan: Option<Vec<PlannedChange>>,
    /// Whether nothing is left of an integration that is to be removed, but itself.
    pub(super) ends: bool,
    /// A fault of our own.
    pub(super) fault: Option<StoreError>,
}

impl Report {
    fn new(outcome: RunOutcome) -> Self {
        Self {
            outcome,
            note: None,
            trouble: None,
            error_kind: None,
            refused_by: None,
            counts: None,
            written: 0,
            removed: 0,
            unchanged: 0,
            failed: 0,
            findings: Vec::new(),
            lost: None,
            scores: None,
            crawl: None,
            native: None,
            plan: None,
            ends: false,
            fault: None,
        }
    }

    /// Of a run that failed before it wrote anything.
    pub(super) fn failed(failure: SyncError) -> Self {
        Self::new(RunOutcome::Failed).with_failure(failure)
    }

    /// Of an attempt that had nothing to do.
    pub(super) fn skipped(reason: &str) -> Self {
        Self {
            note: Some(reason.to_owned()),
            ..Self::new(RunOutcome::Skipped)
        }
    }

    /// Of an attempt that a pause kept from working.
    pub(super) fn paused(pause: &Pause) -> Self {
        Self {
            note: Some(format!(
                "paused until {:.0}, since {:.0}: {}",
                pause.until, pause.since, pause.error
            )),
            ..Self::new(RunOutcome::Paused)
        }
    }

    /// Of a dry run.
    pub(super) fn planned(decided: Decision) -> Self {
        let plan = &decided.guarded.plan;
        let removed = plan.removals().count();
        let mut report = Self {
            written: plan.changes.len() - removed,
            removed,
            plan: Some(
                plan.changes
                    .iter()
                    .take(PLANNED)
                    .map(PlannedChange::from)
                    .collect(),
            ),
            ..Self::decided(RunOutcome::Planned, &decided)
        };
        report.hold(decided.guarded.held);
        if let Some(error) = decided.confirmed.error {
            report.trouble = Some(SyncError::from(error).trouble());
            report.say_open(&decided.confirmed.open);
        }
        report
    }

    /// Of a run that carried its plan out, as far as it came.
    pub(super) fn applied(decided: Decision, applied: Applied) -> Self {
        let done = applied.written + applied.removed;
        let mut report = Self::decided(
            if done > 0 {
                RunOutcome::Synced
            } else {
                RunOutcome::Unchanged
            },
            &decided,
        );
        let failure = report.count(&decided.guarded.plan, applied);
        if decided.guarded.held.is_some() {
            report.outcome = RunOutcome::Held;
        }
        report.hold(decided.guarded.held);
        if let Some(failure) = failure {
            report = report.stopped(&decided.guarded.plan, failure);
        } else if let Some(error) = decided.confirmed.error {
            report = report.with_failure(error.into());
            report.say_open(&decided.confirmed.open);
        }
        report
    }

    /// Of a removal that has deleted so many attributes, and all there were.
    pub(super) fn taken_away(removed: usize) -> Self {
        Self {
            removed,
            ends: true,
            ..Self::new(RunOutcome::Synced)
        }
    }

    /// Of a removal, as far as it came.
    pub(super) fn after(plan: &Plan, applied: Applied) -> Self {
        let mut report = Self::taken_away(applied.removed);
        let failure = report.count(plan, applied);
        report.ends = report.failed == 0 && failure.is_none();
        if report.failed > 0 && report.trouble.is_none() {
            report.outcome = RunOutcome::Failed;
            report.error_kind = Some(ErrorKind::RefusedWrite);
            report.trouble = Some(refused_writes(format!(
                "Tailscale refused to delete the attribute of {} devices",
                report.failed
            )));
        }
        match failure {
            Some(failure) => report.stopped(plan, failure),
            None => report,
        }
    }

    /// Adds the devices that recovery skipped. A removal does not end while one of them may hold an attribute.
    #[must_use]
    pub(super) fn with_skipped_devices(mut self, skipped: &SkippedDevices) -> Self {
        let Some(first) = skipped.values().next() else {
            return self;
        };
        self.ends = false;
        if self.trouble.is_none() {
            self.outcome = RunOutcome::Failed;
            self.error_kind = Some(ErrorKind::Unavailable);
            self.trouble = Some(Problem {
                what: format!(
                    "what an earlier run wrote to {} devices cannot be found out: {first}",
                    skipped.len()
                ),
                remedy: "the next run asks again; `\"attributes\":\"keep\"` ends it without them"
                    .to_owned(),
            });
        }
        self.findings.extend(skipped_finding(skipped));
        self
    }

    /// Adds the finding about parts of the integration's state that could not be read.
    #[must_use]
    pub(super) fn with_unreadable_state(mut self, unreadable: &[String]) -> Self {
        let unreadable = unreadable.iter().cloned();
        let finding = Finding::of(FindingKind::UnreadableState, unreadable);
        self.findings.extend(finding);
        self
    }

    /// The same, where another run had the last word.
    #[must_use]
    pub(super) fn overtaken(mut self) -> Self {
        self.ends = false;
        self
    }

    /// The same, of a removal.
    #[must_use]
    pub(super) fn of_removal(mut self) -> Self {
        if let Some(trouble) = &mut self.trouble {
            trouble
                .what
                .insert_str(0, "the integration is to be removed, but: ");
        }
        self
    }

    /// Takes over what was done; what stopped it is the caller's to tell.
    fn count(&mut self, plan: &Plan, applied: Applied) -> Option<SyncError> {
        self.written = applied.written;
        self.removed = applied.removed;
        self.refuse(plan, &applied);
        applied.failure
    }

    /// Of a run that was stopped on its way.
    fn stopped(self, plan: &Plan, failure: SyncError) -> Self {
        let done = self.written + self.removed;
        let meant = plan.changes.len();
        let mut report = self.with_failure(failure);
        report.say(&format!(
            "{done} of {meant} changes are written and recorded; the next run goes on"
        ));
        report
    }

    fn decided(outcome: RunOutcome, decided: &Decision) -> Self {
        Self {
            counts: Some(decided.joined.counts),
            unchanged: decided.guarded.plan.unchanged,
            findings: lost_identity::finding(&decided.lost)
                .into_iter()
                .chain(skipped_finding(&decided.seen.skipped))
                .chain(decided.joined.findings.iter().cloned())
                .chain(decided.seen.native.and_then(NativeIntegration::finding))
                .collect(),
            lost: Some(decided.lost.clone()),
            scores: Some(ScoreHistogram::of(&decided.joined)),
            crawl: Some(decided.seen.crawl.clone().after(&decided.guarded.plan)),
            native: decided.seen.native,
            ..Self::new(outcome)
        }
    }

    fn refuse(&mut self, plan: &Plan, applied: &Applied) {
        let Some((first, said)) = applied.refused.first() else {
            return;
        };
        self.failed = applied.refused.len();
        let names: BTreeMap<&NodeId, &str> = plan
            .changes
            .iter()
            .map(|change| (&change.node_id, change.name.as_str()))
            .collect();
        self.findings.extend(Finding::of(
            FindingKind::RefusedWrites,
            applied.refused.iter().map(|(node, message)| {
                let name = names.get(node).copied().unwrap_or_default();
                format!("{name} ({node}): {message}")
            }),
        ));
        if applied.written + applied.removed == 0 {
            self.outcome = RunOutcome::Failed;
            self.error_kind = Some(ErrorKind::RefusedWrite);
            self.trouble = Some(refused_writes(format!(
                "Tailscale refused to write the attribute of {} devices, {first} among them: {said}",
                self.failed
            )));
        }
    }

    fn with_failure(mut self, failure: SyncError) -> Self {
        self.refused_by = failure.refused_by();
        self.outcome = match self.refused_by {
            Some(_) => RunOutcome::Paused,
            None => RunOutcome::Failed,
        };
        self.trouble = Some(failure.trouble());
        self.error_kind = Some(failure.kind());
        if let SyncError::Store(fault) = failure {
            self.fault = Some(fault);
        }
        self
    }

    fn hold(&mut self, held: Option<Held>) {
        if let Some(held) = held {
            self.note = Some(held.why);
            self.findings.extend(held.findings);
        }
    }

    fn say_open(&mut self, open: &Unconfirmed) {
        let waiting = open.changes.len();
        self.say(&format!(
            "{waiting} changes wait until what they rest on can be looked up"
        ));
    }

    /// Adds a half sentence to what went wrong.
    fn say(&mut self, more: &str) {
        if let Some(Problem { what, .. }) = &mut self.trouble {
            what.push_str("; ");
            what.push_str(more);
        }
    }

    /// What there is to say, as it is stored, logged and answered. What went wrong has been so since `since`, for so many
    /// `runs`.
    pub(super) fn told(&self, since: Timestamp, runs: u32) -> Option<String> {
        let trouble = self
            .trouble
            .as_ref()
            .map(|trouble| trouble.since(since, runs));
        match (trouble, &self.note) {
            (Some(trouble), Some(note)) => Some(format!("{trouble} {note}")),
            (trouble, note) => trouble.or_else(|| note.clone()),
        }
    }

    pub(super) fn into_answer(
        self,
        integration: &IntegrationId,
        run_id: &str,
        counts: MatchCounts,
        duration_ms: u64,
        error: Option<String>,
    ) -> Result<SyncResponse, StoreError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        Ok(SyncResponse {
            integration: integration.clone(),
            run_id: run_id.to_owned(),
            outcome: self.outcome,
            provider_host_count: counts.provider_hosts,
            possible_matched_count: counts.possible_matched,
            matched_count: counts.matched,
            written: self.written,
            removed: self.removed,
            unchanged: self.unchanged,
            failed: self.failed,
            error,
            findings: self.findings,
            duration_ms,
            plan_omitted: self.plan.as_ref().map_or(0, |plan| {
                (self.written + self.removed).saturating_sub(plan.len())
            }),
            plan: self.plan,
            integration_removed: self.ends,
        })
    }
}

/// The finding about devices that recovery could not ask.
fn skipped_finding(skipped: &SkippedDevices) -> Option<Finding> {
    Finding::of(FindingKind::SkippedDevices, skipped.values().cloned())
}

fn refused_writes(what: String) -> Problem {
    Problem {
        what,
        remedy: "see the finding refusedWrites".to_owned(),
    }
}
