//! The journal in an integration's item: the writes that a run is about to make, until they are recorded.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};

use super::lease::send_with_lease;
use super::{Store, StoreError, build_error, encode, send_update, update_expression};
use crate::domain::audit::AuditContext;
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::Change;
use crate::domain::plan::journal::JournalEntry;
use crate::settings::IntegrationId;

/// Devices whose writes one transaction settles: each takes two of its items, and the journal takes one.
pub(crate) const MAX_SETTLED: usize = 49;

/// The outcomes of writes that an earlier run left in the journal.
#[derive(Debug, Default)]
pub struct Settlement {
    /// The changes that Tailscale had accepted: they are recorded.
    pub made: Vec<Change>,
    /// The changes whose outcome cannot be told: the audit trail says so.
    pub unknown: Vec<Change>,
    /// All devices to remove from the entry, with those whose write was not made.
    pub nodes: Vec<NodeId>,
}

impl Store {
    /// Stores the writes that a run is about to make, under one key of the journal, and removes entries that are recorded. The
    /// condition is that the run still holds the lease of this term. Without a term it is that the integration exists: a run
    /// that has lost the lease may have written after that.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if the condition does not hold: nothing may be written. Or [`StoreError::Call`].
    pub async fn put_journal(
        &self,
        id: &IntegrationId,
        term: Option<&str>,
        key: &str,
        entry: &JournalEntry,
        recorded: &[String],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the journal";
        let entry = encode(entry, OPERATION)?;
        let mut request = self
            .integration_update(id)
            .expression_attribute_names("#entry", key)
            .expression_attribute_values(":entry", entry);
        let mut remove = Vec::new();
        for (n, key) in recorded.iter().enumerate() {
            remove.push(format!("pending.#recorded{n}"));
            request = request.expression_attribute_names(format!("#recorded{n}"), key);
        }
        let expression = update_expression("SET pending.#entry = :entry", &remove);
        let request = request.update_expression(expression);
        let written = if let Some(term) = term {
            send_with_lease(request, term, None, OPERATION).await?
        } else {
            // A deleted integration has no journal.
            let request = request.condition_expression("attribute_exists(pending)");
            send_update(&request, OPERATION).await?.map(drop)
        };
        written.map_err(|_| StoreError::Overtaken(id.clone()))
    }

    /// Records what became of writes of an earlier run, and removes them from the journal, in one transaction. `context` names
    /// the earlier run; `is_whole` removes the entry with its last device.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if the lease is not of this term any more, or another run has settled one of the writes.
    pub async fn settle(
        &self,
        term: &str,
        context: &AuditContext,
        (key, entry): (&str, &JournalEntry),
        settlement: &Settlement,
        is_whole: bool,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "record the writes of an earlier run";
        let id = &context.integration;
        let items = || {
            let nodes = (!is_whole).then_some(&*settlement.nodes);
            let update = self.removal_from_journal(id, term, key, nodes, OPERATION)?;
            let mut items = vec![TransactWriteItem::builder().update(update).build()];
            for change in &settlement.made {
                items.extend(self.change_items(context, change, entry.sent_at, OPERATION)?);
            }
            for change in &settlement.unknown {
                let record = context.attribute_unknown(change, entry.sent_at);
                items.push(self.put_audit(&record, OPERATION)?);
            }
            Ok(items)
        };
        let settled = self.transact(OPERATION, items).await?;
        settled.map_err(|_| StoreError::Overtaken(id.clone()))
    }

    /// Builds the update that removes devices from an entry, or the whole entry. Its condition is that the lease is of this
    /// term, and that the journal still has them.
    fn removal_from_journal(
        &self,
        id: &IntegrationId,
        term: &str,
        key: &str,
        nodes: Option<&[NodeId]>,
        operation: &'static str,
    ) -> Result<Update, StoreError> {
        let mut names = HashMap::from([
            ("#lease".to_owned(), "lease".to_owned()),
            ("#term".to_owned(), "term".to_owned()),
            ("#entry".to_owned(), key.to_owned()),
        ]);
        let mut paths = Vec::new();
        for (n, node) in nodes.into_iter().flatten().enumerate() {
            paths.push(format!("pending.#entry.writes.#node{n}"));
            names.insert(format!("#node{n}"), node.to_string());
        }
        if nodes.is_none() {
            paths.push("pending.#entry".to_owned());
        }
        let exist = paths.iter().map(|path| format!("attribute_exists({path})"));
        let exist: Vec<String> = exist.collect();
        Update::builder()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression(format!("REMOVE {}", paths.join(", ")))
            .condition_expression(format!("#lease.#term = :term AND {}", exist.join(" AND ")))
            .set_expression_attribute_names(Some(names))
            .expression_attribute_values(":term", AttributeValue::S(term.to_owned()))
            .build()
            .map_err(build_error(operation))
    }
}
