//! The node records: the last value written to each device. A change of one is stored together with its audit record.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;

use super::item::Item;
use super::{Store, StoreError, build_error, call_error, put_item, require, send_update};
use crate::batch::batches;
use crate::clock::rfc3339;
use crate::domain::audit::AuditContext;
use crate::domain::inventory::device::NodeId;
use crate::domain::inventory::host::{Aid, Score};
use crate::domain::inventory::record::Absence;
use crate::domain::inventory::record::{NodeRecord, NodeRecords};
use crate::domain::is_default;
use crate::domain::plan::Change;
use crate::domain::plan::absence::AbsenceUpdates;
use crate::settings::{AttributeKey, IntegrationId};
use crate::text::sanitize;

/// DynamoDB's limit of items in a transaction.
const MAX_TRANSACTION_ITEMS: usize = 100;

/// Maximum changes in one transaction: each is a node record and an audit record. A renewal has no audit record.
pub(crate) const MAX_CHANGES: usize = MAX_TRANSACTION_ITEMS / 2;

/// Maximum absences that are recorded concurrently.
const ABSENCE_CONCURRENCY: usize = 16;

/// Maximum characters of the problem of a record.
const MAX_PROBLEM_CHARS: usize = 300;

/// The attributes of an item that a run reads.
const PROJECTION: &str = "nodeId, score, attributeKey, serial, #name, aid, writtenAt, expiry, runId, ephemeral, absentSince, heldSince";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeItem<'a> {
    integration_id: &'a IntegrationId,
    node_id: &'a str,
    score: u8,
    attribute_key: &'a AttributeKey,
    serial: &'a str,
    name: &'a str,
    hostname: &'a str,
    aid: &'a Aid,
    written_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry: Option<String>,
    run_id: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    ephemeral: bool,
}

/// The node records of an integration.
#[derive(Debug, Default)]
pub struct StoredNodes {
    /// The records that can be read.
    pub records: NodeRecords,
    /// The others, which somebody edited, each with its problem.
    pub unreadable: BTreeMap<NodeId, String>,
}

/// Reads an item. An attribute of an unexpected type counts as absent. The name and the times may be absent. An item without
/// a value that a decision rests on was edited by a person: the error names the device and the value.
fn node_record(item: &Item) -> Result<(NodeId, NodeRecord), (NodeId, String)> {
    let text = |attribute: &str| item.get(attribute)?.as_s().ok().map(String::as_str);
    let time = |attribute| text(attribute).and_then(|time| time.parse().ok());
    let node = text("nodeId").unwrap_or_default();
    let unusable = |attribute| {
        let problem = format!("the record of {node:?} has no usable `{attribute}`");
        (NodeId(node.into()), problem)
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
        written_at: time("writtenAt"),
        expiry: time("expiry"),
        run_id: required("runId")?.into(),
        is_ephemeral: item
            .get("ephemeral")
            .is_some_and(|flag| flag == &AttributeValue::Bool(true)),
        absence: time("absentSince").map(|since| Absence {
            since,
            held_since: time("heldSince"),
        }),
    };
    Ok((NodeId(node.into()), record))
}

impl Store {
    /// Reads all node records of an integration. One that was edited does not keep the others from being read.
    ///
    /// # Errors
    /// [`StoreError::Call`].
    pub async fn nodes(&self, integration: &IntegrationId) -> Result<StoredNodes, StoreError> {
        const OPERATION: &str = "read the node records";
        let mut pages = self
            .nodes_query(integration)
            .projection_expression(PROJECTION)
            .expression_attribute_names("#name", "name")
            .consistent_read(true)
            .into_paginator()
            .send();
        let mut records = Vec::new();
        let mut unreadable = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(call_error(OPERATION))?;
            for item in require(page.items, OPERATION)? {
                match node_record(&item) {
                    Ok(record) => records.push(record),
                    Err((node, problem)) => {
                        unreadable.insert(node, sanitize(&problem, MAX_PROBLEM_CHARS));
                    }
                }
            }
        }
        Ok(StoredNodes {
            // DynamoDB returns them in order, so building the map needs few comparisons.
            records: records.into_iter().collect(),
            unreadable,
        })
    }

    /// Stores in the records how long their devices have been absent. A record that another run has replaced meanwhile
    /// stays as it is.
    pub(crate) async fn update_absences(
        &self,
        integration: &IntegrationId,
        updates: &AbsenceUpdates,
        records: &NodeRecords,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "record the absences";
        let updates = updates.iter().filter_map(|(node, absence)| {
            let record = records.get(node)?;
            Some(self.absence_update(integration, node, record, *absence))
        });
        stream::iter(updates)
            .map(async |update| send_update(&update, OPERATION).await.map(drop))
            .buffer_unordered(ABSENCE_CONCURRENCY)
            .try_collect()
            .await
    }

    fn absence_update(
        &self,
        integration: &IntegrationId,
        node: &NodeId,
        record: &NodeRecord,
        absence: Option<Absence>,
    ) -> UpdateItemFluentBuilder {
        let time = |time| AttributeValue::S(rfc3339(time));
        let since = absence.map(|absence| time(absence.since));
        let held_since = absence.and_then(|absence| absence.held_since).map(time);
        let expression = match (&since, &held_since) {
            (Some(_), Some(_)) => "SET absentSince = :since, heldSince = :held",
            (Some(_), None) => "SET absentSince = :since REMOVE heldSince",
            (None, _) => "REMOVE absentSince, heldSince",
        };
        let mut update = self
            .client
            .update_item()
            .table_name(&self.nodes)
            .key("integrationId", AttributeValue::S(integration.to_string()))
            .key("nodeId", AttributeValue::S(node.to_string()))
            .update_expression(expression)
            .condition_expression("runId = :run")
            .expression_attribute_values(":run", AttributeValue::S(record.run_id.to_string()));
        for (name, value) in [(":since", since), (":held", held_since)] {
            if let Some(value) = value {
                update = update.expression_attribute_values(name, value);
            }
        }
        update
    }

    /// Returns at most `limit` of the nodes that an integration has written.
    pub(crate) async fn sample_nodes(
        &self,
        integration: &IntegrationId,
        limit: usize,
    ) -> Result<Vec<NodeId>, StoreError> {
        const OPERATION: &str = "read some node records";
        let response = self
            .nodes_query(integration)
            .projection_expression("nodeId")
            .set_limit(i32::try_from(limit).ok())
            .send()
            .await
            .map_err(call_error(OPERATION))?;
        Ok(require(response.items, OPERATION)?
            .into_iter()
            .filter_map(|mut item| match item.remove("nodeId") {
                Some(AttributeValue::S(id)) => Some(NodeId(id.into())),
                _ => None,
            })
            .collect())
    }

    fn nodes_query(&self, integration: &IntegrationId) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.nodes)
            .key_condition_expression("integrationId = :id")
            .expression_attribute_values(":id", AttributeValue::S(integration.to_string()))
    }

    /// Records changes that Tailscale has accepted, of a journal entry with this time: as many as
    /// [`transactions`](Self::transactions) puts together. All node records and audit records are stored, or none.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if a record is not the one that the plan was made from, or another run has recorded a change.
    pub async fn record_changes(
        &self,
        context: &AuditContext,
        changes: &[Change],
        sent_at: Timestamp,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "record the changes";
        let items = || {
            let mut items = Vec::with_capacity(changes.len() * 2);
            for change in changes {
                items.extend(self.change_items(context, change, sent_at, OPERATION)?);
            }
            Ok(items)
        };
        let recorded = self.transact(OPERATION, items).await?;
        recorded.map_err(|_| StoreError::Overtaken(context.integration.clone()))
    }

    /// Splits changes into those of one transaction each.
    pub(crate) fn transactions(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
        let items = |change: &Change| if change.is_renewal() { 1 } else { 2 };
        let max = MAX_TRANSACTION_ITEMS;
        batches(changes, max, max, items)
    }

    /// Builds the items that record a change. A renewal has no audit record: the value does not change.
    pub(super) fn change_items(
        &self,
        context: &AuditContext,
        change: &Change,
        sent_at: Timestamp,
        operation: &'static str,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let mut items = vec![self.node_write(context, change, sent_at, operation)?];
        if !change.is_renewal() {
            let record = context.attribute_changed(change, sent_at);
            items.push(self.put_audit(&record, operation)?);
        }
        Ok(items)
    }

    /// Deletes the records of devices whose attributes left the tailnet with them, expired, or stay in it. Nothing changes in the
    /// tailnet, so there is no audit record.
    pub(crate) async fn delete_node_records(
        &self,
        integration: &IntegrationId,
        nodes: &[NodeId],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "delete node records";
        for batch in nodes.chunks(MAX_TRANSACTION_ITEMS) {
            let items = || {
                batch
                    .iter()
                    .map(|node| self.delete_node(integration, node, None, None, OPERATION))
                    .collect()
            };
            // The deletes have no condition, so none can fail.
            let _ = self.transact(OPERATION, items).await?;
        }
        Ok(())
    }

    fn delete_node(
        &self,
        integration: &IntegrationId,
        node: &NodeId,
        condition: Option<&str>,
        values: Option<HashMap<String, AttributeValue>>,
        operation: &'static str,
    ) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(&self.nodes)
            .key("integrationId", AttributeValue::S(integration.to_string()))
            .key("nodeId", AttributeValue::S(node.to_string()))
            .set_condition_expression(condition.map(str::to_owned))
            .set_expression_attribute_values(values)
            .build()
            .map_err(build_error(operation))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Builds the write of one node record. Its condition is that the record is still the one that the plan was made from:
    /// if two runs believe that a change is theirs, only one of them records it.
    fn node_write(
        &self,
        context: &AuditContext,
        change: &Change,
        sent_at: Timestamp,
        operation: &'static str,
    ) -> Result<TransactWriteItem, StoreError> {
        let replaced = change.old.as_ref().map(|old| &old.run_id);
        let (condition, run) = match replaced.or(change.expired.as_ref()) {
            Some(run) => {
                let run = AttributeValue::S(run.to_string());
                ("runId = :run", Some([(":run".to_owned(), run)].into()))
            }
            None => ("attribute_not_exists(nodeId)", None),
        };
        let Some(new) = &change.new else {
            let (integration, node) = (&context.integration, &change.node_id);
            return self.delete_node(integration, node, Some(condition), run, operation);
        };
        let item = NodeItem {
            integration_id: &context.integration,
            node_id: &change.node_id.0,
            score: new.score.get(),
            attribute_key: &new.key,
            serial: &new.serial,
            name: &change.name,
            hostname: &change.hostname,
            aid: &new.aid,
            written_at: rfc3339(sent_at),
            expiry: new.expiry.map(rfc3339),
            run_id: &context.run_id,
            ephemeral: change.is_ephemeral,
        };
        put_item(&self.nodes, &item, condition, run, operation)
    }
}
