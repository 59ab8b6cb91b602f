//! The journal in an integration's item: the writes that a run is about to make, until they are recorded.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_dynamo::to_attribute_value;

use super::{Store, StoreError, decode_error, send_update};
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::journal::JournalEntry;
use crate::settings::IntegrationId;

/// The condition under which a journal entry is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// The run still holds the lease.
    HoldsLease,
    /// The integration exists. The run has lost the lease, and may have written after that.
    IntegrationExists,
}

impl Store {
    /// Stores the writes that a run is about to make, under one key of the journal.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if the condition does not hold, so that nothing may be written.
    pub(crate) async fn put_journal(
        &self,
        id: &IntegrationId,
        run_id: &str,
        key: &str,
        entry: &JournalEntry,
        condition: WriteCondition,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the journal";
        let entry = to_attribute_value(entry).map_err(decode_error(OPERATION))?;
        let request = self
            .integration_update(id)
            .update_expression("SET pending.#note = :intents")
            .expression_attribute_names("#note", key)
            .expression_attribute_values(":intents", entry);
        let request = match condition {
            WriteCondition::HoldsLease => if_lease_held(request, run_id),
            // A deleted integration has no journal.
            WriteCondition::IntegrationExists => {
                request.condition_expression("attribute_exists(pending)")
            }
        };
        write_journal(id, &request, OPERATION).await
    }

    /// Removes some devices from a journal entry that an earlier run has left.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if the lease is lost.
    pub(crate) async fn remove_from_journal(
        &self,
        id: &IntegrationId,
        run_id: &str,
        key: &str,
        nodes: impl Iterator<Item = &NodeId>,
    ) -> Result<(), StoreError> {
        let mut request = self.integration_update(id);
        let mut paths = Vec::new();
        for (n, node) in nodes.enumerate() {
            paths.push(format!("pending.#note.#node{n}"));
            request = request.expression_attribute_names(format!("#node{n}"), node.0.as_str());
        }
        remove_paths(id, run_id, key, request, &paths.join(", ")).await
    }

    /// Removes a whole journal entry that an earlier run has left.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if the lease is lost.
    pub(crate) async fn clear_journal(
        &self,
        id: &IntegrationId,
        run_id: &str,
        key: &str,
    ) -> Result<(), StoreError> {
        remove_paths(
            id,
            run_id,
            key,
            self.integration_update(id),
            "pending.#note",
        )
        .await
    }
}

async fn remove_paths(
    id: &IntegrationId,
    run_id: &str,
    key: &str,
    request: UpdateItemFluentBuilder,
    paths: &str,
) -> Result<(), StoreError> {
    let request = request
        .update_expression(format!("REMOVE {paths}"))
        .expression_attribute_names("#note", key);
    write_journal(id, &if_lease_held(request, run_id), "update the journal").await
}

fn if_lease_held(request: UpdateItemFluentBuilder, run_id: &str) -> UpdateItemFluentBuilder {
    request
        .condition_expression("#lease.#owner = :me")
        .expression_attribute_names("#lease", "lease")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_values(":me", AttributeValue::S(run_id.to_owned()))
}

async fn write_journal(
    id: &IntegrationId,
    request: &UpdateItemFluentBuilder,
    operation: &'static str,
) -> Result<(), StoreError> {
    let response = send_update(request, operation).await?;
    response.map(drop).map_err(|_| StoreError::Overtaken {
        integration: id.clone(),
    })
}
