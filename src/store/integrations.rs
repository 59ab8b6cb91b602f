//! The integrations: settings, status, pause, and the lease that lets one run at a time work.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_dynamo::{from_item, to_attribute_value, to_item};
use serde_json::Value;

use super::{Store, StoreError, call, cancelled_for, decode, refused};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::pause::Pause;
use crate::domain::status::Status;
use crate::error::chain;
use crate::integration::{IntegrationId, InvalidSettings, Settings};

/// An integration as it is stored.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Its name.
    pub id: IntegrationId,
    /// Its settings, or what is wrong with them: somebody may have edited the item by hand, and that must not keep
    /// the others from running.
    pub settings: Result<Settings, InvalidSettings>,
    /// Counts its changes, from 1.
    pub config_version: u64,
    /// When it was last changed.
    pub config_updated: Option<Timestamp>,
    /// Who changed it.
    pub config_updated_by: Option<String>,
    /// How its latest run went; none before the first.
    pub status: Option<Status>,
    /// Its pause, in force or run out.
    pub pause: Option<Pause>,
    /// Who is at work on it, or was and did not come back.
    pub lease: Option<Lease>,
}

/// The right to work on an integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The run that has it.
    pub owner: String,
    /// When it ends by itself.
    pub until: Timestamp,
}

/// What a run leaves behind.
#[derive(Clone, Debug)]
pub struct Finish<'a> {
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
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Recorded, and the lease given back.
    Released,
    /// Recorded, but the settings were changed meanwhile: the lease is still this run's, which goes again.
    SettingsChanged,
    /// Not recorded: the lease had run out and is another run's, or the integration is gone.
    Overtaken,
}

/// The attributes of the item that are no settings.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    id: IntegrationId,
    #[serde(default)]
    config_version: u64,
    config_updated: Option<Timestamp>,
    config_updated_by: Option<String>,
    status: Option<Status>,
    pause: Option<Pause>,
    lease: Option<Lease>,
}

type Item = HashMap<String, AttributeValue>;

const OWN_ATTRIBUTES: [&str; 6] = [
    "configVersion",
    "configUpdated",
    "configUpdatedBy",
    "status",
    "pause",
    "lease",
];

impl Integration {
    fn from_item(item: Item, operation: &'static str) -> Result<Self, StoreError> {
        let kept: Kept = from_item(item.clone()).map_err(decode(operation))?;
        // Through JSON, so that the message for a hand-edited setting is the one that `connect` gives.
        let mut settings: BTreeMap<String, Value> = from_item(item).map_err(decode(operation))?;
        settings.retain(|name, _| !OWN_ATTRIBUTES.contains(&name.as_str()));
        Ok(Self {
            settings: Settings::parse(settings.into_iter().collect(), "integration"),
            id: kept.id,
            config_version: kept.config_version,
            config_updated: kept.config_updated,
            config_updated_by: kept.config_updated_by,
            status: kept.status,
            pause: kept.pause,
            lease: kept.lease,
        })
    }
}

impl Store {
    /// One integration.
    ///
    /// # Errors
    /// [`StoreError::NoIntegration`], or DynamoDB's.
    pub async fn integration(&self, id: &IntegrationId) -> Result<Integration, StoreError> {
        const OPERATION: &str = "read the integration";
        let answer = self
            .client
            .get_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .consistent_read(true)
            .send()
            .await
            .map_err(refused(OPERATION))?;
        let item = answer.item.ok_or_else(|| StoreError::NoIntegration {
            integration: id.to_string(),
        })?;
        Integration::from_item(item, OPERATION)
    }

    /// All integrations, by name. An item that somebody edited beyond recognition is reported in the log and left out:
    /// it must not keep the others from running.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn integrations(&self) -> Result<Vec<Integration>, StoreError> {
        const OPERATION: &str = "list the integrations";
        let mut items = self
            .client
            .scan()
            .table_name(&self.integrations)
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut all = Vec::new();
        while let Some(item) = items.next().await {
            match Integration::from_item(item.map_err(refused(OPERATION))?, OPERATION) {
                Ok(integration) => all.push(integration),
                Err(error) => {
                    tracing::error!(
                        error = chain(&error),
                        "an item of the integrations table is left out"
                    );
                }
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// Stores a new integration with version 1, and its audit record, or neither.
    ///
    /// # Errors
    /// [`StoreError::IntegrationExists`], or DynamoDB's.
    pub async fn create(
        &self,
        settings: &Settings,
        actor: &str,
        now: Timestamp,
        audit: &audit::Record,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the integration";
        let mut item: Item = to_item(settings).map_err(decode(OPERATION))?;
        item.insert(
            "configVersion".to_owned(),
            AttributeValue::N("1".to_owned()),
        );
        item.insert("configUpdated".to_owned(), AttributeValue::S(rfc3339(now)));
        item.insert(
            "configUpdatedBy".to_owned(),
            AttributeValue::S(actor.to_owned()),
        );
        let put = Put::builder()
            .table_name(&self.integrations)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(id)")
            .build()
            .map_err(call(OPERATION))?;
        let items = vec![
            TransactWriteItem::builder().put(put).build(),
            self.put_audit(audit, OPERATION)?,
        ];
        self.transact(items).await.map_err(|error| {
            if cancelled_for(&error, &["ConditionalCheckFailed"]) {
                StoreError::IntegrationExists {
                    integration: settings.id.clone(),
                }
            } else {
                refused(OPERATION)(error)
            }
        })
    }

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
        let answer = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("SET #lease = :lease")
            .condition_expression(
                "attribute_exists(id) AND (attribute_not_exists(#lease) OR #lease.#until < :now OR #lease.#owner = :me)",
            )
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":lease", AttributeValue::M(lease))
            .expression_attribute_values(":now", AttributeValue::S(rfc3339(now)))
            .expression_attribute_values(":me", AttributeValue::S(owner.to_owned()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let item = answer.attributes.unwrap_or_default();
                Integration::from_item(item, OPERATION).map(Some)
            }
            Err(error) => match unmet(error, OPERATION)? {
                None => Err(StoreError::NoIntegration {
                    integration: id.to_string(),
                }),
                Some(_) => Ok(None),
            },
        }
    }

    /// Records how a run went and gives the lease back, in one write.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn finish(&self, finish: &Finish<'_>) -> Result<Finished, StoreError> {
        const OPERATION: &str = "record the run";
        let Err(present) = self.write_finish(finish, true).await? else {
            return Ok(Finished::Released);
        };
        let still_ours = present
            .and_then(|item| Integration::from_item(item, OPERATION).ok())
            .and_then(|integration| integration.lease)
            .is_some_and(|lease| lease.owner == finish.owner);
        if !still_ours {
            return Ok(Finished::Overtaken);
        }
        match self.write_finish(finish, false).await? {
            Ok(()) => Ok(Finished::SettingsChanged),
            Err(_) => Ok(Finished::Overtaken),
        }
    }

    /// The outer error is a fault; the inner one is the item as it is, where the condition did not hold.
    async fn write_finish(
        &self,
        finish: &Finish<'_>,
        release: bool,
    ) -> Result<Result<(), Option<Item>>, StoreError> {
        const OPERATION: &str = "record the run";
        let (set, mut remove) = match finish.pause {
            Some(_) => ("SET #status = :status, #pause = :pause", vec![]),
            None => ("SET #status = :status", vec!["#pause"]),
        };
        let condition = if release {
            remove.push("#lease");
            "#lease.#owner = :me AND configVersion = :version"
        } else {
            "#lease.#owner = :me"
        };
        let update = if remove.is_empty() {
            set.to_owned()
        } else {
            format!("{set} REMOVE {}", remove.join(", "))
        };
        let mut request = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(finish.id.to_string()))
            .update_expression(update)
            .condition_expression(condition)
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#pause", "pause")
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", AttributeValue::S(finish.owner.to_owned()))
            .expression_attribute_values(
                ":status",
                to_attribute_value(finish.status).map_err(decode(OPERATION))?,
            )
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if release {
            request = request.expression_attribute_values(
                ":version",
                AttributeValue::N(finish.config_version.to_string()),
            );
        }
        if let Some(pause) = finish.pause {
            request = request.expression_attribute_values(
                ":pause",
                to_attribute_value(pause).map_err(decode(OPERATION))?,
            );
        }
        match request.send().await {
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(unmet(error, OPERATION)?)),
        }
    }

    /// Gives a lease back where a run had nothing to do or to say.
    ///
    /// # Errors
    /// DynamoDB's. A lease that is not ours any more is left alone, without an error.
    pub async fn release(&self, id: &IntegrationId, owner: &str) -> Result<(), StoreError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression("REMOVE #lease")
            .condition_expression("#lease.#owner = :me")
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", AttributeValue::S(owner.to_owned()))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => unmet(error, "give the lease back").map(|_| ()),
        }
    }
}

/// Of a write whose condition did not hold: the item as it is, or none if there is no item. Any other error stays one.
fn unmet(
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
