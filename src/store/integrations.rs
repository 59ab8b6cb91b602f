//! The integrations: reads them, and stores each change of settings together with its audit record.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem, Update};
use jiff::Timestamp;
use serde_dynamo::{to_attribute_value, to_item};

use super::item::{Integration, Integrations, Item};
use super::lease::version_condition;
use super::{
    Store, StoreError, build_error, call_error, decode_error, empty_response, require_items,
    send_update,
};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::plan::deprovision::Removal;
use crate::settings::{IntegrationId, Settings};
use crate::text::error_chain;

/// New settings of an integration.
pub(crate) struct SettingsUpdate<'a> {
    /// The integration as it was read.
    pub(crate) integration: &'a Integration,
    /// The new settings.
    pub(crate) settings: &'a Settings,
    pub(crate) actor: &'a str,
    pub(crate) now: Timestamp,
    /// The record of the change.
    pub(crate) audit: &'a audit::AuditRecord,
}

impl Store {
    /// Reads one integration.
    ///
    /// # Errors
    /// [`StoreError::NoIntegration`], [`StoreError::Unreadable`] or [`StoreError::Call`].
    pub async fn integration(&self, id: &IntegrationId) -> Result<Integration, StoreError> {
        const OPERATION: &str = "read the integration";
        let response = self
            .client
            .get_item()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(id.to_string()))
            .consistent_read(true)
            .send()
            .await
            .map_err(call_error(OPERATION))?;
        let item = response.item.ok_or_else(|| StoreError::NoIntegration {
            integration: id.to_string(),
        })?;
        Ok(Integration::from_item(item)?)
    }

    /// Reads all integrations, sorted by name. Items that cannot be read are logged and returned apart from the others.
    ///
    /// # Errors
    /// [`StoreError::Call`].
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
            let page = page.map_err(call_error(OPERATION))?;
            for item in require_items(page.items, OPERATION)? {
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

    /// Stores a new integration with version 1 and its audit record, or neither.
    ///
    /// # Errors
    /// [`StoreError::IntegrationExists`] or [`StoreError::Call`].
    pub(crate) async fn create(
        &self,
        settings: &Settings,
        actor: &str,
        now: Timestamp,
        audit: &audit::AuditRecord,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the integration";
        let mut item: Item = to_item(settings).map_err(decode_error(OPERATION))?;
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
            .map_err(build_error(OPERATION))?;
        let items = || {
            let put = TransactWriteItem::builder().put(put.clone()).build();
            Ok(vec![put, self.put_audit(audit, OPERATION)?])
        };
        let outcome = self.transact(OPERATION, items).await?;
        outcome.or_error(|| StoreError::IntegrationExists {
            integration: settings.id.clone(),
        })
    }

    /// Stores changed settings as the next version and their audit record, or neither.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the integration changed after it was read.
    pub(crate) async fn update_settings(
        &self,
        change: &SettingsUpdate<'_>,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the changed settings";
        let update = self.settings_update(change, OPERATION)?;
        let items = || {
            let update = TransactWriteItem::builder().update(update.clone()).build();
            Ok(vec![update, self.put_audit(change.audit, OPERATION)?])
        };
        let outcome = self.transact(OPERATION, items).await?;
        outcome.or_error(|| StoreError::Conflict {
            integration: change.settings.id.clone(),
            read: change.integration.config_version,
        })
    }

    /// Builds the write of the settings that differ. Its condition is that the stored version is the one that was read.
    fn settings_update(
        &self,
        change: &SettingsUpdate<'_>,
        operation: &'static str,
    ) -> Result<Update, StoreError> {
        let SettingsUpdate {
            integration,
            settings,
            ..
        } = change;
        let new = settings.to_map();
        let mut values = HashMap::from([
            (":next".to_owned(), number(integration.config_version + 1)),
            (":now".to_owned(), AttributeValue::S(rfc3339(change.now))),
            (
                ":actor".to_owned(),
                AttributeValue::S(change.actor.to_owned()),
            ),
        ]);
        let unchanged = version_condition(integration.config_version, &mut values);
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
            .changed_fields(&integration.stored)
            .into_iter()
            .enumerate()
        {
            match new.get(&name) {
                Some(value) => {
                    let value = to_attribute_value(value).map_err(decode_error(operation))?;
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
            .map_err(build_error(operation))
    }

    /// Stores the request to remove an integration as a new version of it, so that a run in progress notices it before it
    /// ends.
    ///
    /// # Errors
    /// [`StoreError::NoIntegration`] or [`StoreError::Call`].
    pub(crate) async fn mark_for_removal(
        &self,
        id: &IntegrationId,
        removal: &Removal,
    ) -> Result<Integration, StoreError> {
        const OPERATION: &str = "store the removal request";
        let request = self
            .integration_update(id)
            .update_expression(
                "SET removal = :removal, configUpdated = :now, configUpdatedBy = :actor ADD configVersion :one",
            )
            .condition_expression("attribute_exists(id)")
            .expression_attribute_values(
                ":removal",
                to_attribute_value(removal).map_err(decode_error(OPERATION))?,
            )
            .expression_attribute_values(":now", AttributeValue::S(rfc3339(removal.since)))
            .expression_attribute_values(":actor", AttributeValue::S(removal.actor.clone()))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllNew);
        let response = send_update(&request, OPERATION).await?;
        let response = response.map_err(|_| StoreError::NoIntegration {
            integration: id.to_string(),
        })?;
        let item = response
            .attributes
            .ok_or_else(|| empty_response(OPERATION))?;
        Ok(Integration::from_item(item)?)
    }
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
