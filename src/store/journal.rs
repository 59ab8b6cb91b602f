//! The journal in an integration's item: the writes that a run is about to make, until they are recorded.

use super::lease::send_with_lease;
use super::{Store, StoreError, encode, send_update};
use crate::domain::inventory::device::NodeId;
use crate::domain::plan::journal::JournalEntry;
use crate::settings::IntegrationId;

impl Store {
    /// Stores the writes that a run is about to make, under one key of the journal. The condition is that `owner` still holds
    /// the lease. Without an owner it is that the integration exists: a run that has lost the lease may have written after
    /// that. If the condition does not hold, the error is [`StoreError::Overtaken`], and nothing may be written.
    pub(crate) async fn put_journal(
        &self,
        id: &IntegrationId,
        owner: Option<&str>,
        key: &str,
        entry: &JournalEntry,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the journal";
        let entry = encode(entry, OPERATION)?;
        let request = self
            .integration_update(id)
            .update_expression("SET pending.#note = :intents")
            .expression_attribute_names("#note", key)
            .expression_attribute_values(":intents", entry);
        let written = if let Some(owner) = owner {
            send_with_lease(request, owner, None, OPERATION).await?
        } else {
            // A deleted integration has no journal.
            let request = request.condition_expression("attribute_exists(pending)");
            send_update(&request, OPERATION).await?.map(drop)
        };
        written.map_err(|_| StoreError::Overtaken(id.clone()))
    }

    /// Removes these devices from a journal entry that an earlier run has left, or the whole entry. If the lease is lost, the
    /// error is [`StoreError::Overtaken`].
    pub(crate) async fn remove_from_journal(
        &self,
        id: &IntegrationId,
        run_id: &str,
        key: &str,
        nodes: Option<&[NodeId]>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "update the journal";
        let mut request = self
            .integration_update(id)
            .expression_attribute_names("#note", key);
        let mut paths = Vec::new();
        for (n, node) in nodes.into_iter().flatten().enumerate() {
            paths.push(format!("pending.#note.#node{n}"));
            request = request.expression_attribute_names(format!("#node{n}"), node.0.as_str());
        }
        if nodes.is_none() {
            paths.push("pending.#note".to_owned());
        }
        let request = request.update_expression(format!("REMOVE {}", paths.join(", ")));
        let written = send_with_lease(request, run_id, None, OPERATION).await?;
        written.map_err(|_| StoreError::Overtaken(id.clone()))
    }
}
