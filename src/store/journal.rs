//! What a run is about to write, in the integration's item, until it is recorded.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_dynamo::to_attribute_value;

use super::lease::unmet;
use super::{Store, StoreError, decode, settled};
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::journal::{JournalEntry, JournalKey};
use crate::settings::IntegrationId;

const STRIKE_OUT: &str = "strike out what was open";

/// Whose word it is that something is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// The run that has the lease.
    HoldsLease,
    /// A run that has lost it, and may have written too late.
    IntegrationExists,
}

impl Store {
    /// Stores what a run means to write next, in place of what stood in this note of it before.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if an owner's lease is another run's by now, so that nothing may be written; or
    /// DynamoDB's.
    pub async fn intend(
        &self,
        id: &IntegrationId,
        run_id: &str,
        note: &JournalKey,
        intents: &JournalEntry,
        claim: WriteCondition,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note what is to be written";
        let mut request = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET pending.#note = :intents")
            .expression_attribute_names("#note", note.as_str())
            .expression_attribute_values(
                ":intents",
                to_attribute_value(intents).map_err(decode(OPERATION))?,
            );
        request = match claim {
            WriteCondition::HoldsLease => request
                .condition_expression("#lease.#owner = :me")
                .expression_attribute_names("#lease", "lease")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":me", AttributeValue::S(run_id.to_owned())),
            // Where the integration is gone, nothing is open.
            WriteCondition::IntegrationExists => {
                request.condition_expression("attribute_exists(pending)")
            }
        };
        self.write_pending(id, request, OPERATION).await
    }

    /// Strikes some devices out of a note that an earlier run has left.
    ///
    /// # Errors
    /// As for [`Store::intend`].
    pub async fn strike_out(
        &self,
        id: &IntegrationId,
        owner: &str,
        note: &str,
        nodes: impl Iterator<Item = &NodeId>,
    ) -> Result<(), StoreError> {
        let nodes: Vec<&NodeId> = nodes.collect();
        let paths: Vec<String> = (0..nodes.len())
            .map(|n| format!("pending.#note.#node{n}"))
            .collect();
        let mut request = self.strike(id, owner, note, &paths.join(", "));
        for (n, node) in nodes.into_iter().enumerate() {
            request = request.expression_attribute_names(format!("#node{n}"), node.0.as_str());
        }
        self.write_pending(id, request, STRIKE_OUT).await
    }

    /// Strikes out what is left of such a note.
    ///
    /// # Errors
    /// As for [`Store::intend`].
    pub async fn strike_out_all(
        &self,
        id: &IntegrationId,
        owner: &str,
        note: &str,
    ) -> Result<(), StoreError> {
        let request = self.strike(id, owner, note, "pending.#note");
        self.write_pending(id, request, STRIKE_OUT).await
    }

    fn strike(
        &self,
        id: &IntegrationId,
        owner: &str,
        note: &str,
        paths: &str,
    ) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression(format!("REMOVE {paths}"))
            .condition_expression("#lease.#owner = :me")
            .expression_attribute_names("#note", note)
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", AttributeValue::S(owner.to_owned()))
    }

    async fn write_pending(
        &self,
        id: &IntegrationId,
        request: UpdateItemFluentBuilder,
        operation: &'static str,
    ) -> Result<(), StoreError> {
        match settled(|| request.clone().send()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                unmet(error, operation)?;
                Err(StoreError::Overtaken {
                    integration: id.clone(),
                })
            }
        }
    }
}
