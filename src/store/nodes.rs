//! The node records: the last value written to each device. A change of one is stored together with its audit record.

#[cfg(test)]
mod tests;

use aws_sdk_dynamodb::types::builders::DeleteBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use jiff::Timestamp;
use serde::Serialize;
use serde_dynamo::to_item;
use smol_str::SmolStr;

use super::item::Item;
use super::{Store, StoreError, build_error, call_error, decode_error, require_items};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::plan::{Change, DesiredAttribute, NodeRecord, NodeRecords};
use crate::settings::{AttributeKey, IntegrationId};

/// DynamoDB's limit of items in a transaction.
const MAX_TRANSACTION_ITEMS: usize = 100;

/// Maximum changes in one transaction: each is a node record and an audit record.
pub(crate) const MAX_CHANGES: usize = MAX_TRANSACTION_ITEMS / 2;

/// The attributes of an item that a run reads.
const PROJECTION: &str = "nodeId, score, attributeKey, serial, #name, aid, writtenAt, runId";

/// An item of the nodes table.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeItem {
    integration_id: IntegrationId,
    node_id: SmolStr,
    score: i64,
    attribute_key: AttributeKey,
    serial: SmolStr,
    name: SmolStr,
    hostname: SmolStr,
    aid: Aid,
    written_at: String,
    run_id: String,
}

impl NodeItem {
    fn new(
        context: &audit::AuditContext,
        change: &Change,
        new: &DesiredAttribute,
        now: Timestamp,
    ) -> Self {
        Self {
            integration_id: context.integration.clone(),
            node_id: change.node_id.0.clone(),
            score: i64::from(new.score.get()),
            attribute_key: new.key.clone(),
            serial: new.serial.clone(),
            name: change.name.clone(),
            hostname: change.hostname.clone(),
            aid: new.aid.clone(),
            written_at: rfc3339(now),
            run_id: context.run_id.clone(),
        }
    }
}

/// An item without a value that a decision rests on: a person edited it.
#[derive(Debug, thiserror::Error)]
#[error("the record of {node:?} has no usable `{attribute}`")]
struct InvalidNodeRecord {
    node: String,
    attribute: &'static str,
}

/// Reads an item. An attribute of an unexpected type counts as absent. The name and the time may be absent.
fn node_record(item: &Item) -> Result<(NodeId, NodeRecord), InvalidNodeRecord> {
    let text = |attribute: &str| item.get(attribute)?.as_s().ok().map(String::as_str);
    let node = text("nodeId").unwrap_or_default();
    let unusable = |attribute| InvalidNodeRecord {
        node: node.to_owned(),
        attribute,
    };
    let required = |attribute| text(attribute).ok_or_else(|| unusable(attribute));
    let number = item.get("score").and_then(|score| score.as_n().ok());
    let record = NodeRecord {
        key: AttributeKey::try_from(required("attributeKey")?.to_owned())
            .map_err(|_| unusable("attributeKey"))?,
        score: number
            .and_then(|number| Score::new(number.parse().ok()?))
            .ok_or_else(|| unusable("score"))?,
        aid: required("aid")?.into(),
        serial: required("serial")?.into(),
        name: text("name").unwrap_or_default().into(),
        written_at: text("writtenAt").and_then(|time| time.parse().ok()),
        run_id: required("runId")?.into(),
    };
    Ok((NodeId(node.into()), record))
}

impl Store {
    /// Reads all node records of an integration.
    ///
    /// # Errors
    /// [`StoreError::Decode`] names a record that was edited, and what it lacks.
    pub async fn node_records(
        &self,
        integration: &IntegrationId,
    ) -> Result<NodeRecords, StoreError> {
        const OPERATION: &str = "read the node records";
        let mut pages = self
            .client
            .query()
            .table_name(&self.nodes)
            .key_condition_expression("integrationId = :id")
            .expression_attribute_values(":id", AttributeValue::S(integration.to_string()))
            .projection_expression(PROJECTION)
            .expression_attribute_names("#name", "name")
            .consistent_read(true)
            .into_paginator()
            .send();
        let mut records = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(call_error(OPERATION))?;
            for item in require_items(page.items, OPERATION)? {
                records.push(node_record(&item).map_err(decode_error(OPERATION))?);
            }
        }
        // DynamoDB returns them in order, so building the map needs few comparisons.
        Ok(records.into_iter().collect())
    }

    /// Returns at most `limit` of the nodes that an integration has written.
    pub(crate) async fn sample_nodes(
        &self,
        integration: &IntegrationId,
        limit: usize,
    ) -> Result<Vec<NodeId>, StoreError> {
        const OPERATION: &str = "read some node records";
        let response = self
            .client
            .query()
            .table_name(&self.nodes)
            .key_condition_expression("integrationId = :id")
            .expression_attribute_values(":id", AttributeValue::S(integration.to_string()))
            .projection_expression("nodeId")
            .set_limit(i32::try_from(limit).ok())
            .send()
            .await
            .map_err(call_error(OPERATION))?;
        Ok(require_items(response.items, OPERATION)?
            .into_iter()
            .filter_map(|mut item| match item.remove("nodeId") {
                Some(AttributeValue::S(id)) => Some(NodeId(id.into())),
                _ => None,
            })
            .collect())
    }

    /// Records up to [`MAX_CHANGES`] changes that Tailscale has accepted. All node records and audit records are stored, or
    /// none.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if a record is not the one that the plan was made from.
    pub(crate) async fn record_changes(
        &self,
        context: &audit::AuditContext,
        changes: &[Change],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "record the changes";
        let items = || {
            let mut items = Vec::with_capacity(changes.len() * 2);
            for change in changes {
                items.push(self.node_write(context, change, now, OPERATION)?);
                items.push(self.put_audit(&context.attribute_changed(change, now), OPERATION)?);
            }
            Ok(items)
        };
        let outcome = self.transact(OPERATION, items).await?;
        outcome.or_error(|| StoreError::Overtaken {
            integration: context.integration.clone(),
        })
    }

    /// Deletes the records of devices whose attributes left the tailnet with them, or stay in it. Nothing changes in the
    /// tailnet, so there is no audit record.
    pub(crate) async fn delete_node_records(
        &self,
        integration: &IntegrationId,
        nodes: &[NodeId],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "delete node records";
        for batch in nodes.chunks(MAX_TRANSACTION_ITEMS) {
            let delete_item = |node| {
                let delete = self.node_delete(integration, node).build();
                let delete = delete.map_err(build_error(OPERATION))?;
                Ok(TransactWriteItem::builder().delete(delete).build())
            };
            // The deletes have no condition, so none can fail.
            self.transact(OPERATION, || batch.iter().map(delete_item).collect())
                .await?;
        }
        Ok(())
    }

    fn node_delete(&self, integration: &IntegrationId, node: &NodeId) -> DeleteBuilder {
        Delete::builder()
            .table_name(&self.nodes)
            .key("integrationId", AttributeValue::S(integration.to_string()))
            .key("nodeId", AttributeValue::S(node.to_string()))
    }

    /// Builds the write of one node record. Its condition is that the record is still the one that the plan was made from:
    /// if two runs believe that a change is theirs, only one of them records it.
    fn node_write(
        &self,
        context: &audit::AuditContext,
        change: &Change,
        now: Timestamp,
        operation: &'static str,
    ) -> Result<TransactWriteItem, StoreError> {
        let item = TransactWriteItem::builder();
        let condition = match change.old {
            Some(_) => "runId = :run",
            None => "attribute_not_exists(nodeId)",
        };
        let run = change
            .old
            .as_ref()
            .map(|old| [(":run".to_owned(), AttributeValue::S(old.run_id.to_string()))].into());
        let Some(new) = &change.new else {
            let delete = self
                .node_delete(&context.integration, &change.node_id)
                .condition_expression(condition)
                .set_expression_attribute_values(run)
                .build()
                .map_err(build_error(operation))?;
            return Ok(item.delete(delete).build());
        };
        let node = NodeItem::new(context, change, new, now);
        let put = Put::builder()
            .table_name(&self.nodes)
            .set_item(Some(to_item(node).map_err(decode_error(operation))?))
            .condition_expression(condition)
            .set_expression_attribute_values(run)
            .build()
            .map_err(build_error(operation))?;
        Ok(item.put(put).build())
    }
}
