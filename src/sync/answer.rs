//! What a sync answers to whoever asked.

use std::collections::BTreeMap;

use serde::Serialize;

use super::request::SyncRequest;
use crate::app::Invocation;
use crate::domain::plan::Change;
use crate::domain::status::RunOutcome;
use crate::domain::status::finding::Finding;
use crate::settings::IntegrationId;

/// The answer to a sync of one integration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncResponse {
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
    /// How many changes of it are left out: an answer of Lambda's has 6 MB at most.
    #[serde(skip_serializing_if = "is_none")]
    pub plan_omitted: usize,
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

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's `skip_serializing_if` passes a reference"
)]
fn is_none(number: &usize) -> bool {
    *number == 0
}

/// So many changes are told: at 400 bytes each, 2 MB.
pub(super) const PLANNED: usize = 5_000;

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
            node_id: change.node_id.to_string(),
            name: change.name.to_string(),
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

impl SyncResponse {
    /// The answer where nothing was done.
    pub fn skipped(request: &SyncRequest, invocation: &Invocation, reason: &str) -> Self {
        Self {
            integration: request.integration.clone(),
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
            plan_omitted: 0,
            integration_removed: false,
        }
    }
}
