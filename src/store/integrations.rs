//! The integrations: reads them, and stores each change of settings together with its audit record.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, TransactWriteItem, Update};
use serde_json::json;

use super::item::{Integration, Integrations};
use super::lease::version_condition;
use super::{
    Store, StoreError, build_error, call_error, encode, number, put_item, require, send_update,
    update_expression,
};
use crate::clock::rfc3339;
use crate::domain::audit::AuditRecord;
use crate::domain::plan::deprovision::Removal;
use crate::settings::{IntegrationId, Settings};
use crate::text::error_chain;

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
        let missing = || StoreError::NoIntegration(id.to_string());
        Ok(Integration::from_item(response.item.ok_or_else(missing)?)?)
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
            for item in require(page.items, OPERATION)? {
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

    /// Stores a new integration with version 1 and its audit record, or neither. If the name is taken, the error is
    /// [`StoreError::IntegrationExists`].
    pub(crate) async fn create(
        &self,
        settings: &Settings,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the integration";
        let mut item = settings.to_map();
        item.insert("configVersion".to_owned(), 1.into());
        item.insert("configUpdated".to_owned(), json!(audit.event_time));
        item.insert("configUpdatedBy".to_owned(), json!(audit.actor));
        let condition = "attribute_not_exists(id)";
        let items = || {
            Ok(vec![
                put_item(&self.integrations, &item, condition, None, OPERATION)?,
                self.put_audit(audit, OPERATION)?,
            ])
        };
        let created = self.transact(OPERATION, items).await?;
        created.map_err(|_| StoreError::IntegrationExists(settings.id.clone()))
    }

    /// Stores that the end of the scores was announced. A run that ends at the same time may undo it; then it is announced once
    /// more.
    pub(crate) async fn mark_ending_announced(&self, id: &IntegrationId) -> Result<(), StoreError> {
        const OPERATION: &str = "store that the end of the scores was announced";
        let request = self
            .integration_update(id)
            .update_expression("SET #status.endingAnnounced = :true")
            .condition_expression("attribute_exists(#status)")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":true", AttributeValue::Bool(true));
        // Without a status there is nothing that ends.
        send_update(&request, OPERATION).await.map(drop)
    }

    /// Stores the settings that differ as the next version and their audit record, or neither. The error is
    /// [`StoreError::Conflict`] if the integration changed after it was read.
    pub(crate) async fn update_settings(
        &self,
        integration: &Integration,
        settings: &Settings,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store the changed settings";
        let new = settings.to_map();
        let mut values = HashMap::new();
        let unchanged = version_condition(integration.config_version, &mut values);
        let mut update = Update::builder()
            .table_name(&self.integrations)
            .key("id", AttributeValue::S(settings.id.to_string()))
            .set_expression_attribute_values(Some(values))
            .expression_attribute_values(":next", number(integration.config_version + 1))
            .expression_attribute_values(":now", AttributeValue::S(audit.event_time.clone()))
            .expression_attribute_values(":actor", AttributeValue::S(audit.actor.clone()));
        let mut set = vec![
            "configVersion = :next".to_owned(),
            "configUpdated = :now".to_owned(),
            "configUpdatedBy = :actor".to_owned(),
        ];
        let mut remove = Vec::new();
        let changed = settings.changed_fields(&integration.stored);
        for (n, name) in changed.into_iter().enumerate() {
            match new.get(&name) {
                Some(value) => {
                    set.push(format!("#s{n} = :s{n}"));
                    let value = encode(value, OPERATION)?;
                    update = update.expression_attribute_values(format!(":s{n}"), value);
                }
                None => remove.push(format!("#s{n}")),
            }
            update = update.expression_attribute_names(format!("#s{n}"), name);
        }
        let set = format!("SET {}", set.join(", "));
        let update = update
            .update_expression(update_expression(&set, &remove))
            .condition_expression(format!(
                "attribute_exists(id) AND {unchanged} AND attribute_not_exists(removal)"
            ))
            .build()
            .map_err(build_error(OPERATION))?;
        let items = || {
            let update = update.clone();
            Ok(vec![
                TransactWriteItem::builder().update(update).build(),
                self.put_audit(audit, OPERATION)?,
            ])
        };
        let updated = self.transact(OPERATION, items).await?;
        updated.map_err(|_| StoreError::Conflict {
            integration: settings.id.clone(),
            read: integration.config_version,
        })
    }

    /// Stores the request to remove an integration as a new version of it, so that a run in progress notices it before it
    /// ends. If there is none of this name, the error is [`StoreError::NoIntegration`].
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
            .expression_attribute_values(":removal", encode(removal, OPERATION)?)
            .expression_attribute_values(":now", AttributeValue::S(rfc3339(removal.since)))
            .expression_attribute_values(":actor", AttributeValue::S(removal.actor.clone()))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllNew);
        let response = send_update(&request, OPERATION).await?;
        let response = response.map_err(|_| StoreError::NoIntegration(id.to_string()))?;
        let item = require(response.attributes, OPERATION)?;
        Ok(Integration::from_item(item)?)
    }
}
