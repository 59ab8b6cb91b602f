//! The report of a run: one constructor for each way in which a run ends.

use std::collections::BTreeSet;

use super::apply::Applied;
use super::decision::Decision;
use super::error::SyncError;
use crate::domain::inventory::device::NodeId;
use crate::domain::matching::MatchCounts;
use crate::domain::plan::absence;
use crate::domain::plan::confirm::UnreadableDevices;
use crate::domain::plan::guard::Held;
use crate::domain::plan::{Plan, scores_fell};
use crate::domain::status::error_kind::{ErrorKind, Service};
use crate::domain::status::finding::{Finding, FindingKind};
use crate::domain::status::lost_identity;
use crate::domain::status::pause::Pause;
use crate::domain::status::scores_end::ScoreEnds;
use crate::domain::status::{NativeIntegration, Problem, RunOutcome};
use crate::falcon::Falcon;
use crate::store::StoreError;

#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) outcome: RunOutcome,
    /// The reason why nothing was done, or why removals wait.
    pub(super) reason: Option<String>,
    pub(super) problem: Option<Problem>,
    pub(super) error_kind: Option<ErrorKind>,
    /// The service that rejected a credential, if one did.
    pub(super) unauthorized_by: Option<Service>,
    /// Set once the run has observed both sides and decided.
    pub(super) decision: Option<Box<Decision>>,
    pub(super) written: usize,
    pub(super) removed: usize,
    /// Attributes that got another end.
    pub(super) renewed: usize,
    pub(super) unchanged: usize,
    pub(super) failed: usize,
    /// The ends of the scores after the run, if it applied a plan.
    pub(super) score_ends: Option<ScoreEnds>,
    /// Attributes that wait for the second look.
    pub(super) waiting: usize,
    pub(super) findings: Vec<Finding>,
    /// True if a removal is complete, so that only the integration itself is left to delete.
    pub(super) is_removal_complete: bool,
    /// The failure of DynamoDB that ended the run, if one did. It makes the invocation fail.
    pub(super) store_error: Option<StoreError>,
}

impl Report {
    fn new(outcome: RunOutcome) -> Self {
        Self {
            outcome,
            ..Self::default()
        }
    }

    /// Creates the report of a run that failed before it wrote anything.
    pub(super) fn failed(error: SyncError) -> Self {
        Self::new(RunOutcome::Failed).with_error(error)
    }

    pub(super) fn skipped(reason: &str) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..Self::new(RunOutcome::Skipped)
        }
    }

    pub(super) fn paused(pause: &Pause) -> Self {
        Self {
            reason: Some(format!(
                "paused until {:.0}, since {:.0}: {}",
                pause.until, pause.since, pause.error
            )),
            ..Self::new(RunOutcome::Paused)
        }
    }

    /// Creates the report of a dry run.
    pub(super) fn planned(mut decision: Decision) -> Self {
        let mut report = Self::from_decision(RunOutcome::Planned, &decision);
        let plan = &decision.guarded.plan;
        report.removed = plan.removals().count();
        report.written = plan.changes.len() - report.removed;
        report.renewed = plan.renewals.len();
        report.apply_hold(decision.guarded.held.take());
        if let Some(error) = decision.confirmation.error.take() {
            report.problem = Some(SyncError::from(error).problem());
            report.append_unresolved(&decision.confirmation.unresolved);
        }
        report.decision = Some(Box::new(decision));
        report
    }

    /// Creates the report of a run that applied its plan, as far as it came.
    pub(super) fn applied(mut decision: Decision, applied: Applied) -> Self {
        let outcome = if applied.written + applied.removed > 0 || decision.has_open_questions() {
            RunOutcome::Synced
        } else {
            RunOutcome::Unchanged
        };
        let plan = &decision.guarded.plan;
        let mut report = Self::from_decision(outcome, &decision);
        report.score_ends = Some(score_ends(&decision, &applied));
        let failure = report.add_applied(plan, applied);
        if decision.guarded.held.is_some() && report.outcome != RunOutcome::Failed {
            report.outcome = RunOutcome::Held;
        }
        report.apply_hold(decision.guarded.held.take());
        if let Some(failure) = failure {
            report = report.stopped(plan, failure);
        } else if let Some(error) = decision.confirmation.error.take() {
            report = report.with_error(error.into());
            report.append_unresolved(&decision.confirmation.unresolved);
        }
        report.decision = Some(Box::new(decision));
        report
    }

    /// Creates the report of a removal that found no attribute to remove.
    pub(super) fn nothing_to_remove() -> Self {
        Self {
            is_removal_complete: true,
            ..Self::new(RunOutcome::Synced)
        }
    }

    /// Creates the report of a removal, as far as it came.
    pub(super) fn from_deprovisioning(plan: &Plan, applied: Applied) -> Self {
        let mut report = Self::nothing_to_remove();
        let failure = report.add_applied(plan, applied);
        report.is_removal_complete = report.failed == 0 && failure.is_none();
        if report.failed > 0 && report.problem.is_none() {
            report.fail_by_rejected_writes(format!(
                "Tailscale: could not remove the attribute of {} devices",
                report.failed
            ));
        }
        match failure {
            Some(failure) => report.stopped(plan, failure),
            None => report,
        }
    }

    /// Adds the devices that could not be asked, and those whose write may still take effect. A removal is not complete while
    /// one of them may hold an attribute.
    #[must_use]
    pub(super) fn with_open_devices(
        mut self,
        unreadable: &UnreadableDevices,
        unsettled: &UnreadableDevices,
    ) -> Self {
        let message = match (unreadable.values().next(), unsettled.values().next()) {
            (Some(first), _) => format!(
                "cannot read what an earlier run wrote to {} devices: {first}",
                unreadable.len()
            ),
            (None, Some(first)) => format!(
                "writes of an earlier run to {} devices may still take effect: {first}",
                unsettled.len()
            ),
            (None, None) => return self,
        };
        self.is_removal_complete = false;
        if self.problem.is_none() {
            self.outcome = RunOutcome::Failed;
            self.error_kind = Some(ErrorKind::Unavailable);
            self.problem = Some(Problem {
                message,
                remedy: "wait for the next run, or remove the integration with `\"attributes\":\"keep\"`"
                    .to_owned(),
            });
        }
        self.findings.extend(unreadable_devices(unreadable));
        self.findings.extend(unsettled_writes(unsettled));
        self
    }

    /// Adds the finding about parts of the integration's state that could not be read.
    #[must_use]
    pub(super) fn with_unreadable_state(mut self, unreadable: &[String]) -> Self {
        let unreadable = unreadable.iter().cloned();
        let finding = Finding::new(FindingKind::UnreadableState, unreadable);
        self.findings.extend(finding);
        self
    }

    /// Marks the report of a run whose lease another run took over: that one deletes the integration.
    #[must_use]
    pub(super) fn overtaken(mut self) -> Self {
        self.is_removal_complete = false;
        self
    }

    /// Says in the problem that the integration is being removed.
    #[must_use]
    pub(super) fn of_removal(mut self) -> Self {
        if let Some(Problem { message, .. }) = &mut self.problem {
            message.insert_str(0, "could not remove the integration: ");
        }
        self
    }

    fn from_decision(outcome: RunOutcome, decision: &Decision) -> Self {
        let Decision {
            observation,
            matches,
            lost_identities,
            guarded,
            confirmation,
            lifetime: _,
        } = decision;
        let records = &observation.records;
        let name = |node: &NodeId| {
            let name = records.get(node).map_or("", |record| record.name.as_str());
            format!("{name} ({node})")
        };
        let unconfirmed = Finding::new(
            FindingKind::UnconfirmedDevices,
            confirmation.unresolved.iter().map(name),
        )
        .filter(|_| confirmation.error.is_none());
        let findings = lost_identity::finding(lost_identities)
            .into_iter()
            .chain(absence::finding(&guarded.waiting))
            .chain(scores_fell(&guarded.plan, records))
            .chain(unreadable_devices(&observation.unreadable))
            .chain(unsettled_writes(&observation.unsettled))
            .chain(unconfirmed)
            .chain(short_listings(&observation.clients.falcon))
            .chain(matches.findings.iter().cloned())
            .chain(observation.native.and_then(NativeIntegration::finding));
        Self {
            unchanged: guarded.plan.unchanged,
            waiting: guarded.waiting.len(),
            findings: findings.collect(),
            ..Self::new(outcome)
        }
    }

    /// Adds the results of a plan. Returns the failure that stopped it, for the caller to report.
    fn add_applied(&mut self, plan: &Plan, applied: Applied) -> Option<SyncError> {
        self.written = applied.written;
        self.removed = applied.removed;
        self.renewed = applied.renewed;
        let failed = || applied.rejected.iter().chain(&applied.unknown);
        self.failed = failed().count();
        if let Some((node, message)) = failed().next()
            && applied.written + applied.removed + applied.renewed == 0
        {
            self.fail_by_rejected_writes(format!(
                "Tailscale: could not write the attribute of {} devices, such as {node}: {message}",
                self.failed
            ));
        }
        let examples = failed().map(|(node, message)| {
            let name = plan.write(node).map_or("", |change| &change.name);
            format!("{name} ({node}): {message}")
        });
        let finding = Finding::new(FindingKind::RefusedWrites, examples);
        self.findings.extend(finding);
        applied.failure
    }

    fn fail_by_rejected_writes(&mut self, message: String) {
        self.outcome = RunOutcome::Failed;
        self.error_kind = Some(ErrorKind::RefusedWrite);
        self.problem = Some(Problem {
            message,
            remedy: "see the finding refusedWrites".to_owned(),
        });
    }

    /// Adds the failure that stopped a plan.
    fn stopped(self, plan: &Plan, failure: SyncError) -> Self {
        let done = self.written + self.removed + self.renewed;
        let planned = plan.changes.len() + plan.renewals.len();
        let mut report = self.with_error(failure);
        report.append(&format!(
            "{done} of {planned} changes are written and recorded; the next run continues"
        ));
        report
    }

    fn with_error(mut self, error: SyncError) -> Self {
        self.unauthorized_by = error.unauthorized_by();
        self.outcome = match self.unauthorized_by {
            Some(_) => RunOutcome::Paused,
            None => RunOutcome::Failed,
        };
        self.problem = Some(error.problem());
        self.error_kind = Some(error.kind());
        if let SyncError::Store(error) = error {
            self.store_error = Some(error);
        }
        self
    }

    fn apply_hold(&mut self, held: Option<Held>) {
        if let Some(held) = held {
            self.reason = Some(held.why);
            self.findings.extend(held.findings);
        }
    }

    fn append_unresolved(&mut self, unresolved: &BTreeSet<NodeId>) {
        let waiting = unresolved.len();
        self.append(&format!(
            "{waiting} changes wait until their data can be looked up"
        ));
    }

    /// Appends half a sentence to the problem.
    fn append(&mut self, clause: &str) {
        if let Some(Problem { message, .. }) = &mut self.problem {
            message.push_str("; ");
            message.push_str(clause);
        }
    }

    /// Returns the counts of this run, if it observed both sides.
    pub(super) fn counts(&self) -> Option<MatchCounts> {
        let decision = self.decision.as_ref()?;
        Some(decision.matches.counts)
    }
}

fn unreadable_devices(unreadable: &UnreadableDevices) -> Option<Finding> {
    Finding::new(FindingKind::UnreadableDevices, unreadable.values().cloned())
}

fn unsettled_writes(unsettled: &UnreadableDevices) -> Option<Finding> {
    Finding::new(FindingKind::UnsettledWrites, unsettled.values().cloned())
}

fn short_listings(falcon: &Falcon) -> Option<Finding> {
    let listings = falcon.short_listings();
    let examples = listings
        .iter()
        .map(|(operation, progress)| format!("{operation}: {progress}"));
    Finding::new(FindingKind::ShortListing, examples)
}

/// Returns the ends of the scores after a run. If a failure stopped the run, none of its writes counts: a score that ends later
/// than the status says does no harm.
fn score_ends(decision: &Decision, applied: &Applied) -> ScoreEnds {
    let Decision {
        guarded,
        observation,
        lifetime,
        ..
    } = decision;
    let plan = &guarded.plan;
    let failed = applied.rejected.iter().chain(&applied.unknown);
    let mut failed: BTreeSet<NodeId> = failed.map(|(node, _)| node.clone()).collect();
    if applied.failure.is_some() {
        let writes = plan.changes.iter().chain(&plan.renewals);
        failed.extend(writes.map(|write| write.node_id.clone()));
    }
    let held = guarded.held.iter().flat_map(|held| &held.removals);
    let held = held.map(|change| &change.node_id).collect();
    ScoreEnds::after(plan, &observation.records, &failed, &held, *lifetime)
}
