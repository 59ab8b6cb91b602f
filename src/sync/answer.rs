//! What a run says: to whoever asked, and to the status.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Decided;
use super::apply::Applied;
use super::failure::Failure;
use crate::command::SyncOne;
use crate::domain::device::NodeId;
use crate::domain::finding::{Finding, FindingKind};
use crate::domain::guard::Held;
use crate::domain::join::Counts;
use crate::domain::pause::Pause;
use crate::domain::plan::{Change, Doubts, Plan};
use crate::domain::status::RunOutcome;
use crate::error::{ErrorKind, Side, chain};
use crate::integration::IntegrationId;
use crate::store::StoreError;
use crate::world::Invocation;

/// The answer to a sync of one integration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The integration.
    pub integration: IntegrationId,
    /// The run.
    pub run_id: String,
    /// What it came to.
    pub outcome: RunOutcome,
    /// All visible hosts of the Falcon account.
    pub provider_host_count: usize,
    /// Own nodes with a usable serial.
    pub possible_matched_count: usize,
    /// Nodes with a Falcon host.
    pub matched_count: usize,
    /// Attributes set or changed; of a dry run, those that would be.
    pub written: usize,
    /// Attributes taken away; of a dry run, those that would be.
    pub removed: usize,
    /// Attributes that were right already.
    pub unchanged: usize,
    /// Devices whose attribute Tailscale refused.
    pub failed: usize,
    /// What went wrong, or why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a person should know about.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub duration_ms: u64,
    /// Of a dry run: what would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Vec<PlannedChange>>,
    /// Whether this was the integration's last run: it was to be removed, and is.
    #[serde(skip_serializing_if = "is_not")]
    pub integration_removed: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's `skip_serializing_if` passes a reference"
)]
fn is_not(flag: &bool) -> bool {
    !*flag
}

/// A change that a dry run would make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// The device.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// What is written now, by key.
    pub old: Option<BTreeMap<String, u8>>,
    /// What would be written, by key; nothing takes the attribute away.
    pub new: Option<BTreeMap<String, u8>>,
    /// Why.
    pub reason: String,
}

impl From<&Change> for PlannedChange {
    fn from(change: &Change) -> Self {
        let object = |key: &str, score: u8| BTreeMap::from([(key.to_owned(), score)]);
        Self {
            node_id: change.node_id.0.clone(),
            name: change.name.clone(),
            old: change
                .old
                .as_ref()
                .map(|old| object(old.key.as_str(), old.score.get())),
            new: change
                .new
                .as_ref()
                .map(|new| object(new.key.as_str(), new.score.get())),
            reason: change.reason.clone(),
        }
    }
}

impl Answer {
    /// The answer where nothing was done.
    pub fn skipped(wish: &SyncOne, invocation: &Invocation, reason: &str) -> Self {
        Self {
            integration: wish.integration.clone(),
            run_id: invocation.id.clone(),
            outcome: RunOutcome::Skipped,
            provider_host_count: 0,
            possible_matched_count: 0,
            matched_count: 0,
            written: 0,
            removed: 0,
            unchanged: 0,
            failed: 0,
            error: Some(reason.to_owned()),
            findings: Vec::new(),
            duration_ms: 0,
            plan: None,
            integration_removed: false,
        }
    }
}

/// What there is to say about a run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) outcome: RunOutcome,
    pub(super) error: Option<String>,
    pub(super) error_kind: Option<ErrorKind>,
    /// Who refused a credential, if that is what happened.
    pub(super) refused_by: Option<Side>,
    /// Of a run that came so far as to count.
    pub(super) counts: Option<Counts>,
    pub(super) written: usize,
    pub(super) removed: usize,
    pub(super) unchanged: usize,
    pub(super) failed: usize,
    pub(super) findings: Vec<Finding>,
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
            error: None,
            error_kind: None,
            refused_by: None,
            counts: None,
            written: 0,
            removed: 0,
            unchanged: 0,
            failed: 0,
            findings: Vec::new(),
            plan: None,
            ends: false,
            fault: None,
        }
    }

    /// Of a run that failed before it wrote anything.
    pub(super) fn failed(failure: Failure) -> Self {
        Self::new(RunOutcome::Failed).with_failure(failure)
    }

    /// Of an attempt that had nothing to do.
    pub(super) fn skipped(reason: &str) -> Self {
        Self {
            error: Some(reason.to_owned()),
            ..Self::new(RunOutcome::Skipped)
        }
    }

    /// Of an attempt that a pause kept from working.
    pub(super) fn paused(pause: &Pause) -> Self {
        Self {
            error: Some(format!("paused until {}: {}", pause.until, pause.error)),
            ..Self::new(RunOutcome::Paused)
        }
    }

    /// Of a dry run.
    pub(super) fn planned(decided: Decided) -> Self {
        let plan = &decided.guarded.plan;
        let removed = plan.removals().count();
        let mut report = Self {
            written: plan.changes.len() - removed,
            removed,
            plan: Some(plan.changes.iter().map(PlannedChange::from).collect()),
            ..Self::decided(RunOutcome::Planned, &decided)
        };
        report.hold(decided.guarded.held);
        if let Some(error) = decided.confirmed.error {
            report.error = Some(chain(&error));
            report.say_open(&decided.confirmed.open);
        }
        report
    }

    /// Of a run that carried its plan out, as far as it came.
    pub(super) fn applied(decided: Decided, applied: Applied) -> Self {
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
        if report.failed > 0 && report.error.is_none() {
            report.outcome = RunOutcome::Failed;
            report.error_kind = Some(ErrorKind::RefusedWrite);
            report.error = Some(format!(
                "Tailscale refused to delete the attribute of {} devices",
                report.failed
            ));
        }
        match failure {
            Some(failure) => report.stopped(plan, failure),
            None => report,
        }
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
        if let Some(error) = &mut self.error {
            error.insert_str(0, "the integration is to be removed, but: ");
        }
        self
    }

    /// Takes over what was done; what stopped it is the caller's to tell.
    fn count(&mut self, plan: &Plan, applied: Applied) -> Option<Failure> {
        self.written = applied.written;
        self.removed = applied.removed;
        self.refuse(plan, &applied);
        applied.failure
    }

    /// Of a run that was stopped on its way.
    fn stopped(self, plan: &Plan, failure: Failure) -> Self {
        let done = self.written + self.removed;
        let meant = plan.changes.len();
        let mut report = self.with_failure(failure);
        report.say(&format!(
            "{done} of {meant} changes are written and recorded; the next run goes on"
        ));
        report
    }

    fn decided(outcome: RunOutcome, decided: &Decided) -> Self {
        Self {
            counts: Some(decided.joined.counts),
            unchanged: decided.guarded.plan.unchanged,
            findings: decided.joined.findings.clone(),
            ..Self::new(outcome)
        }
    }

    fn refuse(&mut self, plan: &Plan, applied: &Applied) {
        self.failed = applied.refused.len();
        let name = |node: &NodeId| {
            plan.changes
                .iter()
                .find(|change| change.node_id == *node)
                .map_or_else(String::new, |change| change.name.clone())
        };
        self.findings.extend(Finding::of(
            FindingKind::RefusedWrites,
            applied
                .refused
                .iter()
                .map(|(node, message)| format!("{} ({node}): {message}", name(node))),
        ));
        if self.failed > 0 && applied.written + applied.removed == 0 {
            self.outcome = RunOutcome::Failed;
            self.error_kind = Some(ErrorKind::RefusedWrite);
            self.error = applied.refused.first().map(|(node, message)| {
                format!(
                    "Tailscale refused to write the attribute of {} devices, {node} among them: {message}",
                    self.failed
                )
            });
        }
    }

    fn with_failure(mut self, failure: Failure) -> Self {
        self.refused_by = failure.refused_by();
        self.outcome = match self.refused_by {
            Some(_) => RunOutcome::Paused,
            None => RunOutcome::Failed,
        };
        self.error = Some(chain(&failure));
        self.error_kind = Some(failure.kind());
        if let Failure::Store(fault) = failure {
            self.fault = Some(fault);
        }
        self
    }

    fn hold(&mut self, held: Option<Held>) {
        if let Some(held) = held {
            self.error = Some(held.why);
            self.findings.extend(held.finding);
        }
    }

    fn say_open(&mut self, open: &Doubts) {
        let waiting = open.changes.len();
        self.say(&format!(
            "{waiting} changes wait until what they rest on can be looked up"
        ));
    }

    /// Adds a half sentence to the error.
    fn say(&mut self, more: &str) {
        if let Some(error) = &mut self.error {
            error.push_str("; ");
            error.push_str(more);
        }
    }

    pub(super) fn into_answer(
        self,
        integration: &IntegrationId,
        run_id: &str,
        counts: Counts,
        duration_ms: u64,
    ) -> Result<Answer, StoreError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        Ok(Answer {
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
            error: self.error,
            findings: self.findings,
            duration_ms,
            plan: self.plan,
            integration_removed: self.ends,
        })
    }
}
