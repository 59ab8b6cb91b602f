//! The integrations: their settings, each change of which comes with its audit record, and what runs leave behind.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem, Update};
use jiff::Timestamp;
use serde::Deserialize;
use serde_dynamo::{from_item, to_attribute_value, to_item};
use serde_json::{Map, Value};

use super::lease::{Lease, still_at, unmet};
use super::{Store, StoreError, Transacted, call, decode, listed, refused, settled};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::pause::Pause;
use crate::domain::pending::Pending;
use crate::domain::removal::Removal;
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
    /// The settings as they are stored, good or not.
    pub stored: Map<String, Value>,
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
    /// The wish to remove it, which the next run carries out.
    pub removal: Option<Removal>,
    /// What runs were about to write and have not recorded.
    pub pending: Pending,
}

/// New settings of an integration.
#[derive(Clone, Debug)]
pub struct Rewrite<'a> {
    /// The integration as it was read.
    pub integration: &'a Integration,
    /// What it shall be.
    pub settings: &'a Settings,
    /// Who wants it.
    pub actor: &'a str,
    /// When.
    pub now: Timestamp,
    /// The record of it.
    pub audit: &'a audit::Record,
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
    removal: Option<Removal>,
    #[serde(default)]
    pending: Pending,
}

pub(super) type Item = HashMap<String, AttributeValue>;

const OWN_ATTRIBUTES: [&str; 8] = [
    "configVersion",
    "configUpdated",
    "configUpdatedBy",
    "status",
    "pause",
    "lease",
    "removal",
    "pending",
];

impl Integration {
    /// Whether the schedule runs it. Settings that cannot be used are the run's to report.
    pub fn wants_runs(&self) -> bool {
        self.removal.is_some() || self.settings.as_ref().map_or(true, |s| s.enabled)
    }

    pub(super) fn from_item(item: Item, operation: &'static str) -> Result<Self, StoreError> {
        let kept: Kept = from_item(item.clone()).map_err(decode(operation))?;
        // Through JSON, so that the message for a hand-edited setting is the one that `connect` gives.
        let mut stored: Map<String, Value> = from_item(item).map_err(decode(operation))?;
        stored.retain(|name, _| !OWN_ATTRIBUTES.contains(&name.as_str()));
        Ok(Self {
            settings: Settings::parse(stored.clone().into(), "integration"),
            stored,
            id: kept.id,
            config_version: kept.config_version,
            config_updated: kept.config_updated,
            config_updated_by: kept.config_updated_by,
            status: kept.status,
            pause: kept.pause,
            lease: kept.lease,
            removal: kept.removal,
            pending: kept.pending,
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
        let mut pages = self
            .client
            .scan()
            .table_name(&self.integrations)
            .consistent_read(true)
            .into_paginator()
            .send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(refused(OPERATION))?;
            for item in listed(page.items, OPERATION)? {
                match Integration::from_item(item, OPERATION) {
                    Ok(integration) => all.push(integration),
                    Err(error) => {
                        tracing::error!(
                            error = chain(&error),
                            "an item of the integrations table is left out"
                        );
                    }
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
        item.insert("configVersion".to_owned(), number(1));
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
        let items = || {
            let put = TransactWriteItem::builder().put(put.clone()).build();
            Ok(vec![put, self.put_audit(audit, OPERATION)?])
        };
        match self.transact(OPERATION, items).await? {
            Transacted::Done => Ok(()),
            Transacted::Unmet => Err(StoreError::IntegrationExists {
                integration: settings.id.clone(),
            }),
        }
    }

    /// Stores changed settings as the next version, and its audit record, or neither.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the integration is not as it was read any more, or DynamoDB's.
    pub async fn rewrite(&self, rewrite: &Rewrite<'_>) -> Result<(), StoreError> {
        const OPERATION: &str = "store the changed settings";
        let Rewrite {
            integration,
            settings,
            ..
        } = rewrite;
        let update = self.rewriting(rewrite, OPERATION)?;
        let items = || {
            let update = TransactWriteItem::builder().update(update.clone()).build();
            Ok(vec![update, self.put_audit(rewrite.audit, OPERATION)?])
        };
        match self.transact(OPERATION, items).await? {
            Transacted::Done => Ok(()),
            Transacted::Unmet => Err(StoreError::Conflict {
                integration: settings.id.clone(),
                read: integration.config_version,
            }),
        }
    }

    /// The write of the settings that differ, on the condition that the version is the one that was read.
    fn rewriting(
        &self,
        rewrite: &Rewrite<'_>,
        operation: &'static str,
    ) -> Result<Update, StoreError> {
        let Rewrite {
            integration,
            settings,
            ..
        } = rewrite;
        let new = settings.to_map();
        let mut values = HashMap::from([
            (":next".to_owned(), number(integration.config_version + 1)),
            (":now".to_owned(), AttributeValue::S(rfc3339(rewrite.now))),
            (
                ":actor".to_owned(),
                AttributeValue::S(rewrite.actor.to_owned()),
            ),
        ]);
        let unchanged = still_at(integration.config_version, &mut values);
        let mut update = Update::builder()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(settings.id.to_string()));
        let mut set = vec![
            "configVersion = :next".to_owned(),
            "configUpdated = :now".to_owned(),
            "configUpdatedBy = :actor".to_owned(),
        ];
        let mut remove = Vec::new();
        for (n, name) in settings
            .differences(&integration.stored)
            .into_iter()
            .enumerate()
        {
            match new.get(&name) {
                Some(value) => {
                    let value = to_attribute_value(value).map_err(decode(operation))?;
                    set.push(format!("#s{n} = :s{n}"));
                    values.insert(format!(":s{n}"), value);
                }
                None => remove.push(format!("#s{n}")),
            }
            update = update.expression_attribute_names(format!("#s{n}"), name);
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        update
            .update_expression(expression)
            .condition_expression(format!(
                "attribute_exists(id) AND {unchanged} AND attribute_not_exists(removal)"
            ))
            .set_expression_attribute_values(Some(values))
            .build()
            .map_err(call(operation))
    }

    /// Stores the wish to remove an integration. That is a new version of it, so that a run which is under way sees it
    /// before it ends.
    ///
    /// # Errors
    /// [`StoreError::NoIntegration`], or DynamoDB's.
    pub async fn mark_for_removal(
        &self,
        id: &IntegrationId,
        removal: &Removal,
    ) -> Result<Integration, StoreError> {
        const OPERATION: &str = "store the wish to remove the integration";
        let request = self
            .client
            .update_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .update_expression(
                "SET removal = :removal, configUpdated = :now, configUpdatedBy = :actor ADD configVersion :one",
            )
            .condition_expression("attribute_exists(id)")
            .expression_attribute_values(
                ":removal",
                to_attribute_value(removal).map_err(decode(OPERATION))?,
            )
            .expression_attribute_values(":now", AttributeValue::S(rfc3339(removal.since)))
            .expression_attribute_values(":actor", AttributeValue::S(removal.actor.clone()))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllNew);
        match settled(|| request.clone().send()).await {
            Ok(answer) => Integration::from_item(answer.attributes.unwrap_or_default(), OPERATION),
            Err(error) => {
                unmet(error, OPERATION)?;
                Err(StoreError::NoIntegration {
                    integration: id.to_string(),
                })
            }
        }
    }
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
