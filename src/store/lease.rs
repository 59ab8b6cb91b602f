//! The lease of an integration: one run at a time works on it, and what it leaves behind is written as it gives it back.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, Delete, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use jiff::Timestamp;
use serde_dynamo::to_attribute_value;

use super::item::{Integration, Item};
use super::{Store, StoreError, TransactionOutcome, call, decode, refused, settled, unread};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::plan::journal::JournalKey;
use crate::domain::status::Status;
use crate::domain::status::pause::Pause;
use crate::settings::IntegrationId;

/// What a run leaves behind.
#[derive(Clone, Debug)]
pub struct RunRecord<'a> {
    /// The integration.
    pub id: &'a IntegrationId,
    /// The run; the lease must be its own.
    pub owner: &'a str,
    /// The version of the settings it worked by.
    pub config_version: u64,
    /// How it went.
    pub status: &'a Status,
    /// The pause from now on, if there is one.
    pub pause: Option<&'a Pause>,
    /// Its notes of what it meant to write, as far as all of it is recorded.
    pub closed: &'a [JournalKey],
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishOutcome {
    /// Recorded, and the lease given back.
    Released,
    /// Recorded, but the settings were changed meanwhile: the lease is still this run's, which goes again.
    SettingsChanged,
    /// Not recorded: the lease had run out and is another run's, or the integration is gone.
    Overtaken,
}

impl Store {
    /// Takes the lease of an integration until `until`, unless somebody has it: then there is none.
    ///
    /// # Errors
    /// [`StoreError::NoIntegration`], or DynamoDB's.
    pub async fn acquire(
        &self,
        id: &IntegrationId,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Integration>, StoreError> {
        const OPERATION: &str = "take the lease";
        let lease = HashMap::from([
            ("owner".to_owned(), AttributeValue::S(owner.to_owned())),
            ("until".to_owned(), AttributeValue::S(rfc3339(until))),
        ]);
        let request = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET #lease = :lease, pending = if_not_exists(pending, :none)")
            .condition_expression(
                "attribute_exists(id) AND (attribute_not_exists(#lease) OR #lease.#until < :now OR #lease.#owner = :me)",
            )
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":lease", AttributeValue::M(lease))
            .expression_attribute_values(":none", AttributeValue::M(HashMap::new()))
            .expression_attribute_values(":now", AttributeValue::S(rfc3339(now)))
            .expression_attribute_values(":me", AttributeValue::S(owner.to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match settled(|| request.clone().send()).await {
            Ok(answer) => {
                let item = answer.attributes.ok_or_else(|| unread(OPERATION))?;
                let integration = Integration::from_item(item)?;
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
            Err(error) => match unmet(error, OPERATION)? {
                None => Err(StoreError::NoIntegration {
                    integration: id.to_string(),
                }),
                Some(item) => {
                    // A lease that cannot be read is nobody's, and does not end by itself.
                    Integration::from_item(item)?;
                    Ok(None)
                }
            },
        }
    }

    /// Records how a run went and gives the lease back, in one write.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn finish(&self, finish: &RunRecord<'_>) -> Result<FinishOutcome, StoreError> {
        let release = self.write_finish(finish, true).await?;
        let finished = outcome(release, finish.owner);
        if finished != FinishOutcome::SettingsChanged {
            return Ok(finished);
        }
        match self.write_finish(finish, false).await? {
            Ok(()) => Ok(FinishOutcome::SettingsChanged),
            Err(_) => Ok(FinishOutcome::Overtaken),
        }
    }

    /// The outer error is a fault; the inner one is the item as it is, where the condition did not hold.
    async fn write_finish(
        &self,
        finish: &RunRecord<'_>,
        release: bool,
    ) -> Result<Result<(), Option<Item>>, StoreError> {
        const OPERATION: &str = "record the run";
        let (set, mut remove) = match finish.pause {
            Some(_) => ("SET #status = :status, #pause = :pause", vec![]),
            None => ("SET #status = :status", vec!["#pause".to_owned()]),
        };
        let (mut condition, mut values) = ("#lease.#owner = :me".to_owned(), HashMap::new());
        remove.extend((0..finish.closed.len()).map(|n| format!("pending.#note{n}")));
        if release {
            remove.push("#lease".to_owned());
            condition.push_str(" AND ");
            condition.push_str(still_at(finish.config_version, &mut values));
        }
        let update = if remove.is_empty() {
            set.to_owned()
        } else {
            format!("{set} REMOVE {}", remove.join(", "))
        };
        values.insert(":me".to_owned(), AttributeValue::S(finish.owner.to_owned()));
        values.insert(
            ":status".to_owned(),
            to_attribute_value(finish.status).map_err(decode(OPERATION))?,
        );
        if let Some(pause) = finish.pause {
            values.insert(
                ":pause".to_owned(),
                to_attribute_value(pause).map_err(decode(OPERATION))?,
            );
        }
        let request = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(finish.id.to_string()))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names_of(finish.closed)))
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#pause", "pause")
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match settled(|| request.clone().send()).await {
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(unmet(error, OPERATION)?)),
        }
    }

    /// Gives a lease back where a run had nothing to do, unless the settings were changed meanwhile.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn release(
        &self,
        id: &IntegrationId,
        owner: &str,
        config_version: u64,
    ) -> Result<FinishOutcome, StoreError> {
        const OPERATION: &str = "give the lease back";
        let mut values = HashMap::from([(":me".to_owned(), AttributeValue::S(owner.to_owned()))]);
        let unchanged = still_at(config_version, &mut values);
        let request = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("REMOVE #lease")
            .condition_expression(format!("#lease.#owner = :me AND {unchanged}"))
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let released = match settled(|| request.clone().send()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(unmet(error, OPERATION)?),
        };
        Ok(outcome(released, owner))
    }

    /// Ends a removal: the integration goes, lease and all, with the record of it, or neither.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn end(
        &self,
        id: &IntegrationId,
        owner: &str,
        config_version: u64,
        audit: &audit::AuditRecord,
    ) -> Result<FinishOutcome, StoreError> {
        const OPERATION: &str = "remove the integration";
        let mut values = HashMap::from([(":me".to_owned(), AttributeValue::S(owner.to_owned()))]);
        let unchanged = still_at(config_version, &mut values);
        let delete = Delete::builder()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .condition_expression(format!(
                "#lease.#owner = :me AND {unchanged} AND attribute_exists(removal)"
            ))
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .set_expression_attribute_values(Some(values))
            .build()
            .map_err(call(OPERATION))?;
        let items = || {
            let delete = TransactWriteItem::builder().delete(delete.clone()).build();
            Ok(vec![delete, self.put_audit(audit, OPERATION)?])
        };
        match self.transact(OPERATION, items).await? {
            TransactionOutcome::Done => Ok(FinishOutcome::Released),
            TransactionOutcome::Unmet => self.still_ours(id, owner).await,
        }
    }

    /// Why the end did not come about.
    async fn still_ours(
        &self,
        id: &IntegrationId,
        owner: &str,
    ) -> Result<FinishOutcome, StoreError> {
        match self.integration(id).await {
            Ok(Integration {
                lease: Some(lease), ..
            }) if lease.owner == owner => Ok(FinishOutcome::SettingsChanged),
            Ok(_) | Err(StoreError::NoIntegration { .. }) => Ok(FinishOutcome::Overtaken),
            Err(error) => Err(error),
        }
    }
}

/// Names for notes in an expression.
fn names_of(notes: &[JournalKey]) -> HashMap<String, String> {
    let names = notes.iter().enumerate();
    names
        .map(|(n, note)| (format!("#note{n}"), note.to_string()))
        .collect()
}

/// The condition that the settings are still at this version. An item that was made by hand may have none.
pub(super) fn still_at(
    config_version: u64,
    values: &mut HashMap<String, AttributeValue>,
) -> &'static str {
    if config_version == 0 {
        return "attribute_not_exists(configVersion)";
    }
    values.insert(
        ":version".to_owned(),
        AttributeValue::N(config_version.to_string()),
    );
    "configVersion = :version"
}

/// What became of giving a lease back, by the item as it was where that did not come about.
fn outcome(released: Result<(), Option<Item>>, owner: &str) -> FinishOutcome {
    let Err(present) = released else {
        return FinishOutcome::Released;
    };
    let lease = present
        .and_then(|item| Integration::from_item(item).ok())
        .and_then(|integration| integration.lease);
    if lease.is_some_and(|lease| lease.owner == owner) {
        FinishOutcome::SettingsChanged
    } else {
        FinishOutcome::Overtaken
    }
}

/// Of a write whose condition did not hold: the item as it is, or none if there is no item. Any other error stays one.
pub(super) fn unmet(
    error: SdkError<UpdateItemError>,
    operation: &'static str,
) -> Result<Option<Item>, StoreError> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
            Ok(failed.item().cloned())
        }
        _ => Err(refused(operation)(error)),
    }
}
