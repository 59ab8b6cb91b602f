//! What was last written to each device, and the audit record of each change: always together.

use aws_sdk_dynamodb::types::builders::DeleteBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem};
use jiff::Timestamp;
use serde::Serialize;
use serde_dynamo::to_item;
use smol_str::SmolStr;

use super::{Store, StoreError, TransactionOutcome, call, decode, listed, refused};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::Aid;
use crate::domain::plan::{Change, DesiredAttribute};
use crate::settings::{AttributeKey, IntegrationId};

/// DynamoDB's limit of a transaction.
const MAX_ITEMS: usize = 100;

/// How many changes one transaction can hold: each is a node record and an audit record.
pub const MAX_CHANGES: usize = MAX_ITEMS / 2;

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
        integration: &IntegrationId,
        change: &Change,
        new: &DesiredAttribute,
        run_id: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            integration_id: integration.clone(),
            node_id: change.node_id.0.clone(),
            score: i64::from(new.score.get()),
            attribute_key: new.key.clone(),
            serial: new.serial.clone(),
            name: change.name.clone(),
            hostname: change.hostname.clone(),
            aid: new.aid.clone(),
            written_at: rfc3339(now),
            run_id: run_id.to_owned(),
        }
    }
}

impl Store {
    /// Some of the nodes that an integration has written, at most so many.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn some_nodes(
        &self,
        integration: &IntegrationId,
        limit: usize,
    ) -> Result<Vec<NodeId>, StoreError> {
        const OPERATION: &str = "read some node records";
        let answer = self
            .client
            .query()
            .table_name(&self.nodes)
            .key_condition_expression("integrationId = :id")
            .expression_attribute_values(":id", AttributeValue::S(integration.to_string()))
            .projection_expression("nodeId")
            .set_limit(i32::try_from(limit).ok())
            .send()
            .await
            .map_err(refused(OPERATION))?;
        Ok(listed(answer.items, OPERATION)?
            .into_iter()
            .filter_map(|mut item| match item.remove("nodeId") {
                Some(AttributeValue::S(id)) => Some(NodeId(id.into())),
                _ => None,
            })
            .collect())
    }

    /// Records changes that Tailscale has accepted: node records and audit records, all or none. At most
    /// [`MAX_CHANGES`] at once.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if a record is not the one that the plan was made from, or DynamoDB's.
    pub async fn record(
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
                items.push(self.put_audit(&context.node(change, now), OPERATION)?);
            }
            Ok(items)
        };
        match self.transact(OPERATION, items).await? {
            TransactionOutcome::Done => Ok(()),
            TransactionOutcome::Unmet => Err(StoreError::Overtaken {
                integration: context.integration.clone(),
            }),
        }
    }

    /// Drops the records of devices whose attributes went with them, or stay behind: nothing is changed in the tailnet,
    /// so there is nothing to audit.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn forget(
        &self,
        integration: &IntegrationId,
        nodes: &[NodeId],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "forget devices";
        for nodes in nodes.chunks(MAX_ITEMS) {
            let delete = |node| {
                let delete = self.node_delete(integration, node);
                let delete = delete.build().map_err(call(OPERATION))?;
                Ok(TransactWriteItem::builder().delete(delete).build())
            };
            // There is no condition that could be unmet.
            self.transact(OPERATION, || nodes.iter().map(delete).collect())
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

    /// The write of one node record, on the condition that it still is what the plan was made from: of two runs that
    /// both believe a change is theirs, one records it.
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
                .map_err(call(operation))?;
            return Ok(item.delete(delete).build());
        };
        let node = NodeItem::new(&context.integration, change, new, &context.run_id, now);
        let put = Put::builder()
            .table_name(&self.nodes)
            .set_item(Some(to_item(node).map_err(decode(operation))?))
            .condition_expression(condition)
            .set_expression_attribute_values(run)
            .build()
            .map_err(call(operation))?;
        Ok(item.put(put).build())
    }
}
