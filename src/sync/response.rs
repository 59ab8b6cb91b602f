//! The response to a sync.

use std::collections::BTreeMap;

use serde::Serialize;
use smol_str::SmolStr;

use super::report::Report;
use super::request::SyncRequest;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::Score;
use crate::domain::is_default;
use crate::domain::matching::MatchCounts;
use crate::domain::plan::Change;
use crate::domain::status::RunOutcome;
use crate::domain::status::finding::Finding;
use crate::settings::{AttributeKey, IntegrationId};

/// Maximum planned changes in a response: at 400 bytes each, 2 MB of Lambda's 6.
const MAX_PLANNED_CHANGES: usize = 5_000;

/// The response to a sync of one integration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncResponse {
    pub(crate) integration: IntegrationId,
    pub(crate) run_id: String,
    /// The outcome of the run.
    pub outcome: RunOutcome,
    #[serde(flatten)]
    pub(crate) counts: MatchCounts,
    /// Attributes set or changed; in a dry run, those that would be.
    pub(crate) written: usize,
    /// Attributes removed; in a dry run, those that would be.
    pub(crate) removed: usize,
    /// Attributes with the right value.
    pub(crate) unchanged: usize,
    /// Attributes with the right value that got another end.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) renewed: usize,
    /// Devices whose attribute Tailscale rejected.
    pub(crate) failed: usize,
    /// Attributes that wait for the second look.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) waiting: usize,
    /// The problem, or the reason why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) duration_ms: u64,
    /// The planned changes of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<Vec<PlannedChange>>,
    /// Planned changes that are left out.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) plan_omitted: usize,
    /// True if this run removed the integration.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) integration_removed: bool,
}

impl SyncResponse {
    /// Makes the response of a run, with the counts of this run alone.
    pub(super) fn new(report: Report, integration: &IntegrationId, run_id: &str) -> Self {
        let counts = report.counts().unwrap_or_default();
        let is_planned = report.outcome == RunOutcome::Planned;
        let decision = report.decision.filter(|_| is_planned);
        let planned = decision.map(|decision| decision.guarded.plan.changes);
        let omitted = |changes: &Vec<Change>| changes.len().saturating_sub(MAX_PLANNED_CHANGES);
        Self {
            integration: integration.clone(),
            run_id: run_id.to_owned(),
            outcome: report.outcome,
            counts,
            written: report.written,
            removed: report.removed,
            unchanged: report.unchanged,
            renewed: report.renewed,
            failed: report.failed,
            waiting: report.waiting,
            plan_omitted: planned.as_ref().map_or(0, omitted),
            plan: planned.map(|changes| {
                let shown = changes.into_iter().take(MAX_PLANNED_CHANGES);
                shown.map(PlannedChange::from).collect()
            }),
            error: report.reason,
            findings: report.findings,
            duration_ms: 0,
            integration_removed: report.is_removal_complete,
        }
    }

    /// Makes the response of a run that did nothing.
    pub(crate) fn skipped(request: &SyncRequest, run_id: &str, reason: &str) -> Self {
        Self::new(Report::skipped(reason), &request.integration, run_id)
    }
}

/// A change that a dry run plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    node_id: NodeId,
    name: SmolStr,
    /// The recorded score by attribute key.
    old: Option<BTreeMap<AttributeKey, Score>>,
    /// The score to write by attribute key; `None` removes the attribute.
    new: Option<BTreeMap<AttributeKey, Score>>,
    reason: String,
}

impl From<Change> for PlannedChange {
    fn from(change: Change) -> Self {
        Self {
            node_id: change.node_id,
            name: change.name,
            old: change.old.map(|old| BTreeMap::from([(old.key, old.score)])),
            new: change.new.map(|new| BTreeMap::from([(new.key, new.score)])),
            reason: change.reason,
        }
    }
}
