//! The audit records: written once and never changed; searched by integration, device and time.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use jiff::Timestamp;
use serde_dynamo::from_item;

use super::{Store, StoreError, call_error, decode_error, put_item, require};
use crate::clock::rfc3339;
use crate::domain::audit::AuditRecord;
use crate::domain::inventory::device::NodeId;
use crate::settings::IntegrationId;

/// The index on the target, for the history of one device.
const TARGET_INDEX: &str = "target";

/// The stored name of the action of a changed device.
const NODE_ACTION: &str = "Update node attribute";

/// Lower and upper bound of all event ids, which begin with a year of four digits.
const MIN_EVENT_ID: &str = "!";
const MAX_EVENT_ID: &str = "~";

/// A search of the audit records. Every part that is `None` matches all records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// The integration that the record belongs to.
    pub integration: Option<IntegrationId>,
    /// The device: a node id, a name, or a serial.
    pub device: Option<String>,
    /// Earliest time.
    pub since: Option<Timestamp>,
    /// Latest time, exclusive.
    pub until: Option<Timestamp>,
    /// Maximum records per page.
    pub limit: usize,
    /// The event id that the last page ended with; only older records match.
    pub next: Option<String>,
}

/// A page of records, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditPage {
    pub(crate) records: Vec<AuditRecord>,
    /// The start of the next page, if there are more records.
    pub(crate) next: Option<String>,
}

impl Store {
    /// Searches the audit records, newest first.
    ///
    /// A device is searched by its node id through the index. If no record has that id, its name and serial are searched
    /// among the records of the integration, which reads all records in that time.
    ///
    /// # Errors
    /// [`StoreError::Call`] or [`StoreError::Decode`].
    pub async fn search_audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        if let Some(device) = &query.device {
            let page = self.query_by_target(query, device).await?;
            if !page.records.is_empty() || query.integration.is_none() {
                return Ok(page);
            }
        }
        let Some(integration) = &query.integration else {
            return Ok(AuditPage::default());
        };
        let mut request = self
            .time_range_query(query, "integrationId", integration.as_str())
            .consistent_read(true);
        if let Some(device) = &query.device {
            // Serials are stored in normal form. Names are stored as in the tailnet, with the domain of the tailnet.
            let name = device.trim().to_lowercase();
            let serial = device.trim().to_uppercase();
            request = request
                .filter_expression(
                    "#target.#name = :name OR begins_with(#target.#name, :host) OR #details.#serial = :serial",
                )
                .expression_attribute_names("#target", "target")
                .expression_attribute_names("#name", "name")
                .expression_attribute_names("#details", "details")
                .expression_attribute_names("#serial", "serial")
                .expression_attribute_values(":host", AttributeValue::S(format!("{name}.")))
                .expression_attribute_values(":name", AttributeValue::S(name))
                .expression_attribute_values(":serial", AttributeValue::S(serial));
        }
        read_page(request, query).await
    }

    /// Returns the newest changes of one device.
    pub(crate) async fn node_history(
        &self,
        integration: &IntegrationId,
        node_id: &NodeId,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let query = AuditQuery {
            integration: Some(integration.clone()),
            limit,
            ..AuditQuery::default()
        };
        Ok(self.query_by_target(&query, &node_id.0).await?.records)
    }

    /// Returns the device of each removal since a time that no person let pass, newest first.
    ///
    /// # Errors
    /// [`StoreError::Call`].
    pub(crate) async fn removals_since(
        &self,
        integration: &IntegrationId,
        since: Timestamp,
    ) -> Result<Vec<NodeId>, StoreError> {
        const OPERATION: &str = "count the removals of the last 24 hours";
        let query = AuditQuery {
            since: Some(since),
            ..AuditQuery::default()
        };
        let mut pages = self
            .time_range_query(&query, "integrationId", integration.as_str())
            .consistent_read(true)
            .filter_expression(
                "#action = :action AND attribute_type(#new, :null) AND attribute_not_exists(#details.approved)",
            )
            .projection_expression("targetId")
            .expression_attribute_names("#action", "action")
            .expression_attribute_names("#new", "new")
            .expression_attribute_names("#details", "details")
            .expression_attribute_values(":action", AttributeValue::S(NODE_ACTION.to_owned()))
            .expression_attribute_values(":null", AttributeValue::S("NULL".to_owned()))
            .into_paginator()
            .send();
        let mut nodes = Vec::new();
        while let Some(page) = pages.next().await {
            for mut item in require(page.map_err(call_error(OPERATION))?.items, OPERATION)? {
                if let Some(AttributeValue::S(node)) = item.remove("targetId") {
                    nodes.push(NodeId(node.into()));
                }
            }
        }
        Ok(nodes)
    }

    async fn query_by_target(
        &self,
        query: &AuditQuery,
        device: &str,
    ) -> Result<AuditPage, StoreError> {
        let mut request = self
            .time_range_query(query, "targetId", device)
            .index_name(TARGET_INDEX);
        if let Some(integration) = &query.integration {
            let integration = AttributeValue::S(integration.to_string());
            request = request
                .filter_expression("integrationId = :integration")
                .expression_attribute_values(":integration", integration);
        }
        read_page(request, query).await
    }

    /// Builds a query by one key and by time, newest first.
    fn time_range_query(&self, query: &AuditQuery, key: &str, value: &str) -> QueryFluentBuilder {
        let since = query.since.map_or_else(|| MIN_EVENT_ID.to_owned(), rfc3339);
        // An event id begins with its time, so it is greater than the time alone.
        let until = query.until.map_or_else(|| MAX_EVENT_ID.to_owned(), rfc3339);
        let end = query.next.clone().unwrap_or(until);
        self.client
            .query()
            .table_name(&self.audit)
            .key_condition_expression(format!("{key} = :of AND eventId BETWEEN :since AND :until"))
            .expression_attribute_values(":of", AttributeValue::S(value.to_owned()))
            .expression_attribute_values(":since", AttributeValue::S(since))
            .expression_attribute_values(":until", AttributeValue::S(end))
            .scan_index_forward(false)
    }

    /// Builds the write of a new audit record.
    pub(super) fn put_audit(
        &self,
        record: &AuditRecord,
        operation: &'static str,
    ) -> Result<TransactWriteItem, StoreError> {
        let condition = "attribute_not_exists(eventId)";
        put_item(&self.audit, record, condition, None, operation)
    }
}

/// Reads records until the page is full, and one more to know whether there are more.
async fn read_page(
    request: QueryFluentBuilder,
    query: &AuditQuery,
) -> Result<AuditPage, StoreError> {
    const OPERATION: &str = "search the audit records";
    let has_filter = request.get_filter_expression().is_some();
    // Without a filter, the page, the end of the range and one more record are enough to read.
    let size = i32::try_from(query.limit + 2).ok().filter(|_| !has_filter);
    let mut responses = request.set_limit(size).into_paginator().send();
    let mut page = AuditPage::default();
    while let Some(response) = responses.next().await {
        let response = response.map_err(call_error(OPERATION))?;
        for item in require(response.items, OPERATION)? {
            let record: AuditRecord = from_item(item).map_err(decode_error(OPERATION))?;
            // The range includes its end.
            if query.next.as_ref() == Some(&record.event_id) {
                continue;
            }
            if page.records.len() == query.limit {
                page.next = page.records.last().map(|last| last.event_id.clone());
                return Ok(page);
            }
            page.records.push(record);
        }
    }
    Ok(page)
}
