//! The audit records: put once, never altered; found again by integration, by device and by time.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use jiff::Timestamp;
use serde_dynamo::{from_item, to_item};

use super::{Store, StoreError, call, decode, listed, refused};
use crate::clock::rfc3339;
use crate::domain::audit::AuditRecord;
use crate::domain::inventory::device::NodeId;
use crate::settings::IntegrationId;

/// The index on the target, for the history of one device.
const BY_TARGET: &str = "target";

/// Event ids begin with a year of four digits: these are less and greater than any.
const EARLIEST: &str = "!";
const LATEST: &str = "~";

/// Which records are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of this integration, or of any.
    pub integration: Option<IntegrationId>,
    /// About this device: a node id, a name, or a serial.
    pub device: Option<String>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// Older than the record with this event id: where the last page ended.
    pub next: Option<String>,
}

/// Some of the records, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// Where the next page begins, if there is more.
    pub next: Option<String>,
}

impl Store {
    /// Searches the audit trail, newest first.
    ///
    /// A device is looked for by its node id through the index; if there is nothing of that id, by its name or serial
    /// among the records of the integration, which reads all of them in that time.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn search_audit(&self, search: &AuditQuery) -> Result<AuditPage, StoreError> {
        let (integration, device) = (search.integration.as_ref(), search.device.as_ref());
        if let Some(device) = device {
            let page = self.by_target(search, device).await?;
            if !page.records.is_empty() || integration.is_none() {
                return Ok(page);
            }
        }
        let Some(integration) = integration else {
            return Ok(AuditPage {
                records: Vec::new(),
                next: None,
            });
        };
        let mut query = self
            .in_time(search, "integrationId")
            .consistent_read(true)
            .expression_attribute_values(":of", AttributeValue::S(integration.to_string()));
        if let Some(device) = device {
            // The serial is stored in its normal form, the name as the tailnet spells it: with the tailnet's own name.
            let name = device.trim().to_lowercase();
            query = query
                .filter_expression(
                    "#target.#name = :name OR begins_with(#target.#name, :host) OR #details.#serial = :serial",
                )
                .expression_attribute_names("#target", "target")
                .expression_attribute_names("#name", "name")
                .expression_attribute_names("#details", "details")
                .expression_attribute_names("#serial", "serial")
                .expression_attribute_values(":host", AttributeValue::S(format!("{name}.")))
                .expression_attribute_values(":name", AttributeValue::S(name))
                .expression_attribute_values(
                    ":serial",
                    AttributeValue::S(device.trim().to_uppercase()),
                );
        }
        self.page(query, search).await
    }

    /// The newest changes of one device.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn node_history(
        &self,
        integration: &IntegrationId,
        node_id: &NodeId,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let search = AuditQuery {
            integration: Some(integration.clone()),
            device: None,
            since: None,
            until: None,
            limit,
            next: None,
        };
        Ok(self.by_target(&search, &node_id.0).await?.records)
    }

    async fn by_target(&self, search: &AuditQuery, device: &str) -> Result<AuditPage, StoreError> {
        let mut query = self
            .in_time(search, "targetId")
            .index_name(BY_TARGET)
            .expression_attribute_values(":of", AttributeValue::S(device.to_owned()));
        if let Some(integration) = &search.integration {
            query = query
                .filter_expression("integrationId = :integration")
                .expression_attribute_values(
                    ":integration",
                    AttributeValue::S(integration.to_string()),
                );
        }
        self.page(query, search).await
    }

    /// A query by one key, whose value is `:of`, and the time, newest first.
    fn in_time(&self, search: &AuditQuery, key: &str) -> QueryFluentBuilder {
        let since = search.since.map_or_else(|| EARLIEST.to_owned(), rfc3339);
        // An id is its time and more, so it is greater than its time.
        let until = search.until.map_or_else(|| LATEST.to_owned(), rfc3339);
        let until = search.next.clone().unwrap_or(until);
        self.client
            .query()
            .table_name(&self.audit)
            .key_condition_expression(format!("{key} = :of AND eventId BETWEEN :since AND :until"))
            .expression_attribute_values(":since", AttributeValue::S(since))
            .expression_attribute_values(":until", AttributeValue::S(until))
            .scan_index_forward(false)
    }

    async fn page(
        &self,
        query: QueryFluentBuilder,
        search: &AuditQuery,
    ) -> Result<AuditPage, StoreError> {
        const OPERATION: &str = "search the audit records";
        let filtered = query.get_filter_expression().is_some();
        // Without a filter, what is read is what is wanted, the end of the range, and whether there is more.
        let size = i32::try_from(search.limit + 2).ok().filter(|_| !filtered);
        let mut pages = query.set_limit(size).into_paginator().send();
        let mut found = AuditPage {
            records: Vec::new(),
            next: None,
        };
        while let Some(page) = pages.next().await {
            let page = page.map_err(refused(OPERATION))?;
            for item in listed(page.items, OPERATION)? {
                let record: AuditRecord = from_item(item).map_err(decode(OPERATION))?;
                // The range includes its end.
                if search.next.as_ref() == Some(&record.event_id) {
                    continue;
                }
                if found.records.len() == search.limit {
                    found.next = found.records.last().map(|last| last.event_id.clone());
                    return Ok(found);
                }
                found.records.push(record);
            }
        }
        Ok(found)
    }

    /// The write of an audit record, which must be a new one.
    pub(super) fn put_audit(
        &self,
        record: &AuditRecord,
        operation: &'static str,
    ) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.audit)
            .set_item(Some(to_item(record).map_err(decode(operation))?))
            .condition_expression("attribute_not_exists(eventId)")
            .build()
            .map_err(call(operation))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}
