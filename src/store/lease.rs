//! The lease of an integration: one run at a time works on it, and the run records its result as it releases the lease.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, Delete, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use jiff::Timestamp;

use super::item::{Integration, Lease};
use super::{
    ConditionFailed, Store, StoreError, build_error, encode, number, require, send_update,
    update_expression,
};
use crate::clock::rfc3339;
use crate::domain::audit::AuditRecord;
use crate::domain::status::Status;
use crate::domain::status::pause::Pause;
use crate::settings::IntegrationId;

/// The outcome of recording a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishOutcome {
    /// The run is recorded, and the lease is released.
    Released,
    /// The run is recorded, but the settings have changed. The run keeps the lease and repeats.
    SettingsChanged,
    /// Nothing is recorded: another run has the lease, or the integration is deleted.
    LeaseLost,
}

impl Store {
    /// Acquires the lease of an integration until `until`, or renews the one of this term. Returns `None` if another run holds
    /// it. A second invocation with the same id is another run.
    ///
    /// # Errors
    /// [`StoreError::NoIntegration`], [`StoreError::Unreadable`] or [`StoreError::Call`].
    pub async fn acquire(
        &self,
        id: &IntegrationId,
        owner: &str,
        term: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Integration>, StoreError> {
        const OPERATION: &str = "take the lease";
        let lease = HashMap::from([
            ("owner".to_owned(), AttributeValue::S(owner.to_owned())),
            ("until".to_owned(), AttributeValue::S(rfc3339(until))),
            ("term".to_owned(), AttributeValue::S(term.to_owned())),
        ]);
        let request = self
            .integration_update(id)
            .update_expression("SET #lease = :lease, pending = if_not_exists(pending, :none)")
            .condition_expression(
                "attribute_exists(id) AND (attribute_not_exists(#lease) OR #lease.#until < :now OR #lease.#term = :term)",
            )
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#term", "term")
            .expression_attribute_values(":lease", AttributeValue::M(lease))
            .expression_attribute_values(":none", AttributeValue::M(HashMap::new()))
            .expression_attribute_values(":now", AttributeValue::S(rfc3339(now)))
            .expression_attribute_values(":term", AttributeValue::S(term.to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let response = match send_update(&request, OPERATION).await? {
            Ok(response) => response,
            Err(ConditionFailed(None)) => return Err(StoreError::NoIntegration(id.to_string())),
            Err(ConditionFailed(Some(item))) => {
                // A lease that cannot be read has no owner and never expires: report it.
                Integration::from_item(item)?;
                return Ok(None);
            }
        };
        let integration = Integration::from_item(require(response.attributes, OPERATION)?)?;
        if !integration.unreadable.is_empty() {
            tracing::warn!(
                integration = %id,
                run_id = owner,
                unreadable = integration.unreadable.join("; "),
                "a part of the integration's state cannot be read and is dropped"
            );
        }
        Ok(Some(integration))
    }

    /// Records a run and releases the lease of this term, in one write. If the settings have changed, it records the run only.
    /// The status names the version of the settings that the run used. `recorded` are the run's journal entries whose writes
    /// are all recorded.
    pub(crate) async fn finish(
        &self,
        id: &IntegrationId,
        term: &str,
        status: &Status,
        pause: Option<&Pause>,
        recorded: &[String],
    ) -> Result<FinishOutcome, StoreError> {
        const OPERATION: &str = "record the run";
        let mut request = self
            .integration_update(id)
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#pause", "pause")
            .expression_attribute_values(":status", encode(status, OPERATION)?);
        let mut remove = Vec::new();
        for (n, key) in recorded.iter().enumerate() {
            remove.push(format!("pending.#note{n}"));
            request = request.expression_attribute_names(format!("#note{n}"), key.clone());
        }
        let set = if let Some(pause) = pause {
            request = request.expression_attribute_values(":pause", encode(pause, OPERATION)?);
            "SET #status = :status, #pause = :pause"
        } else {
            remove.push("#pause".to_owned());
            "SET #status = :status"
        };
        let keep = request
            .clone()
            .update_expression(update_expression(set, &remove));
        remove.push("#lease".to_owned());
        let release = request.update_expression(update_expression(set, &remove));
        let version = status.config_version;
        let outcome = send_release(release, term, version, OPERATION).await?;
        if outcome != FinishOutcome::SettingsChanged {
            return Ok(outcome);
        }
        match send_with_lease(keep, term, None, OPERATION).await? {
            Ok(()) => Ok(FinishOutcome::SettingsChanged),
            Err(_) => Ok(FinishOutcome::LeaseLost),
        }
    }

    /// Releases the lease of a run that had nothing to do, unless the settings have changed.
    ///
    /// # Errors
    /// [`StoreError::Call`].
    pub async fn release(
        &self,
        id: &IntegrationId,
        term: &str,
        config_version: u64,
    ) -> Result<FinishOutcome, StoreError> {
        const OPERATION: &str = "release the lease";
        let request = self.integration_update(id);
        let request = request.update_expression("REMOVE #lease");
        send_release(request, term, config_version, OPERATION).await
    }

    /// Deletes a removed integration with its lease and stores the audit record, which names the integration, or neither. The
    /// run must hold the lease of this term, and has settled the journal before.
    ///
    /// # Errors
    /// [`StoreError::Call`].
    pub async fn delete_integration(
        &self,
        term: &str,
        config_version: u64,
        audit: &AuditRecord,
    ) -> Result<FinishOutcome, StoreError> {
        const OPERATION: &str = "remove the integration";
        let id = &audit.integration_id;
        let mut values = HashMap::from([(":term".to_owned(), AttributeValue::S(term.to_owned()))]);
        let unchanged = version_condition(config_version, &mut values);
        let delete = Delete::builder()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .condition_expression(format!(
                "#lease.#term = :term AND {unchanged} AND attribute_exists(removal)"
            ))
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#term", "term")
            .set_expression_attribute_values(Some(values))
            .build()
            .map_err(build_error(OPERATION))?;
        let items = || {
            let delete = delete.clone();
            Ok(vec![
                TransactWriteItem::builder().delete(delete).build(),
                self.put_audit(audit, OPERATION)?,
            ])
        };
        if self.transact(OPERATION, items).await?.is_ok() {
            return Ok(FinishOutcome::Released);
        }
        match self.integration(id).await {
            Ok(integration) => Ok(outcome_of_failure(integration.lease, term)),
            Err(StoreError::NoIntegration { .. }) => Ok(FinishOutcome::LeaseLost),
            Err(error) => Err(error),
        }
    }
}

/// Sends an update that releases the lease, unless the settings have changed.
async fn send_release(
    request: UpdateItemFluentBuilder,
    term: &str,
    config_version: u64,
    operation: &'static str,
) -> Result<FinishOutcome, StoreError> {
    let request = request
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let sent = send_with_lease(request, term, Some(config_version), operation).await?;
    let Err(ConditionFailed(item)) = sent else {
        return Ok(FinishOutcome::Released);
    };
    let integration = item.and_then(|item| Integration::from_item(item).ok());
    let lease = integration.and_then(|integration| integration.lease);
    Ok(outcome_of_failure(lease, term))
}

/// Sends an update on the condition that the run holds the lease of this term and that the settings have the version, if one is given.
pub(super) async fn send_with_lease(
    request: UpdateItemFluentBuilder,
    term: &str,
    config_version: Option<u64>,
    operation: &'static str,
) -> Result<Result<(), ConditionFailed>, StoreError> {
    let values = request.get_expression_attribute_values().clone();
    let mut values = values.unwrap_or_default();
    let condition = match config_version {
        Some(version) => format!(
            "#lease.#term = :term AND {}",
            version_condition(version, &mut values)
        ),
        None => "#lease.#term = :term".to_owned(),
    };
    let request = request
        .condition_expression(condition)
        .expression_attribute_names("#lease", "lease")
        .expression_attribute_names("#term", "term")
        .set_expression_attribute_values(Some(values))
        .expression_attribute_values(":term", AttributeValue::S(term.to_owned()));
    Ok(send_update(&request, operation).await?.map(drop))
}

/// Adds the condition that the settings still have this version. An item that was made by hand may have no version.
pub(super) fn version_condition(
    config_version: u64,
    values: &mut HashMap<String, AttributeValue>,
) -> &'static str {
    if config_version == 0 {
        return "attribute_not_exists(configVersion)";
    }
    values.insert(":version".to_owned(), number(config_version));
    "configVersion = :version"
}

/// Returns the outcome of a release that failed, by the lease that the item has.
fn outcome_of_failure(lease: Option<Lease>, term: &str) -> FinishOutcome {
    if lease.is_some_and(|lease| lease.term == term) {
        FinishOutcome::SettingsChanged
    } else {
        FinishOutcome::LeaseLost
    }
}
