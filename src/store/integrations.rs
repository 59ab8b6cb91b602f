//! The integrations: their settings, each change of which comes with its audit record, and what runs leave behind.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem, Update};
use jiff::Timestamp;
use serde_dynamo::{to_attribute_value, to_item};

use super::item::{Integration, Integrations, Item};
use super::lease::{still_at, unmet};
use super::{
    Store, StoreError, TransactionOutcome, call, decode, listed, refused, settled, unread,
};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::plan::deprovision::Removal;
use crate::settings::{IntegrationId, Settings};
use crate::text::error_chain;

/// New settings of an integration.
#[derive(Clone, Debug)]
pub struct SettingsUpdate<'a> {
    /// The integration as it was read.
    pub integration: &'a Integration,
    /// What it shall be.
    pub settings: &'a Settings,
    /// Who wants it.
    pub actor: &'a str,
    /// When.
    pub now: Timestamp,
    /// The record of it.
    pub audit: &'a audit::AuditRecord,
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
        Ok(Integration::from_item(item)?)
    }

    /// All integrations. An item that cannot be read does not keep the others from running; it is told of in the log.
    ///
    /// # Errors
    /// DynamoDB's.
    pub async fn integrations(&self) -> Result<Integrations, StoreError> {
        const OPERATION: &str = "list the integrations";
        let mut pages = self
            .client
            .scan()
            .table_name(&self.integrations)
            .consistent_read(true)
            .into_paginator()
            .send();
        let mut all = Integrations::default();
        while let Some(page) = pages.next().await {
            let page = page.map_err(refused(OPERATION))?;
            for item in listed(page.items, OPERATION)? {
                match Integration::from_item(item) {
                    Ok(integration) => all.readable.push(integration),
                    Err(error) => {
                        tracing::error!(
                            integration = %error.id,
                            error = error_chain(&error),
                            "an item of the integrations table cannot be read"
                        );
                        all.unreadable.push(error);
                    }
                }
            }
        }
        all.readable.sort_by(|a, b| a.id.cmp(&b.id));
        all.unreadable.sort_by(|a, b| a.id.cmp(&b.id));
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
        audit: &audit::AuditRecord,
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
            TransactionOutcome::Done => Ok(()),
            TransactionOutcome::Unmet => Err(StoreError::IntegrationExists {
                integration: settings.id.clone(),
            }),
        }
    }

    /// Stores changed settings as the next version, and its audit record, or neither.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the integration is not as it was read any more, or DynamoDB's.
    pub async fn rewrite(&self, rewrite: &SettingsUpdate<'_>) -> Result<(), StoreError> {
        const OPERATION: &str = "store the changed settings";
        let SettingsUpdate {
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
            TransactionOutcome::Done => Ok(()),
            TransactionOutcome::Unmet => Err(StoreError::Conflict {
                integration: settings.id.clone(),
                read: integration.config_version,
            }),
        }
    }

    /// The write of the settings that differ, on the condition that the version is the one that was read.
    fn rewriting(
        &self,
        rewrite: &SettingsUpdate<'_>,
        operation: &'static str,
    ) -> Result<Update, StoreError> {
        let SettingsUpdate {
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
            Ok(answer) => {
                let item = answer.attributes.ok_or_else(|| unread(OPERATION))?;
                Ok(Integration::from_item(item)?)
            }
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
