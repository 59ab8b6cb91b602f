//! The integrations: their settings, each change of which comes with its audit record, and what runs leave behind.

use std::collections::HashMap;
use std::error::Error as StdError;

use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem, Update};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_dynamo::{from_item, to_attribute_value, to_item};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use smol_str::SmolStr;

use super::lease::{Lease, still_at, unmet};
use super::{Store, StoreError, Transacted, call, decode, listed, refused, settled, unread};
use crate::clock::rfc3339;
use crate::domain::audit;
use crate::domain::pause::Pause;
use crate::domain::pending::Pending;
use crate::domain::removal::Removal;
use crate::domain::status::Status;
use crate::error::{chain, name, said};
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
    /// Parts that this version cannot read of attributes on which no decision rests, each with its path and the reason.
    /// They count as absent; the next run writes status and pause anew.
    pub unreadable: Vec<String>,
}

/// All integrations.
#[derive(Debug, Default)]
pub struct Integrations {
    /// Those that can be read, by name.
    pub readable: Vec<Integration>,
    /// The others. Nothing syncs them until a person mends them.
    pub unreadable: Vec<UnreadableItem>,
}

/// An item of the integrations table that this version cannot read: another version wrote it, or a person edited it.
#[derive(Debug, thiserror::Error)]
#[error("integration {id:?}: its item in the integrations table cannot be read")]
pub struct UnreadableItem {
    /// The item's key, cleaned for display. It may be no valid name.
    pub id: SmolStr,
    /// The last success, or the last change of the settings if that was later, as far as the item tells.
    pub last_good: Option<Timestamp>,
    /// The path and the reason.
    #[source]
    source: Box<dyn StdError + Send + Sync>,
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

/// The attributes of the item that are no settings, and that decide what a run may do.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    id: IntegrationId,
    #[serde(default)]
    config_version: u64,
    lease: Option<Lease>,
    removal: Option<Removal>,
    #[serde(default)]
    pending: Pending,
}

/// Maximum characters of an item's key that are shown.
const ID_CHARS: usize = 64;
/// Maximum characters of the reason why something cannot be read.
const REASON_CHARS: usize = 400;

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

    /// Reads an item. Attributes on which no decision rests (status, pause, who changed the settings and when) are dropped
    /// where they cannot be read.
    pub(super) fn from_item(item: Item) -> Result<Self, UnreadableItem> {
        let id = item.get("id").and_then(|id| id.as_s().ok());
        let id = id.map_or_else(SmolStr::default, |id| name(id, ID_CHARS));
        // Through JSON, so that the message for a hand-edited setting is the one that `connect` gives.
        let mut stored: Map<String, Value> = from_item(item).map_err(|error| UnreadableItem {
            id: id.clone(),
            last_good: None,
            source: said(&error.to_string(), REASON_CHARS).into(),
        })?;
        let own = stored
            .iter()
            .filter(|(name, _)| *name == "id" || OWN_ATTRIBUTES.contains(&name.as_str()));
        let mut own: Map<String, Value> =
            own.map(|(n, value)| (n.clone(), value.clone())).collect();
        stored.retain(|name, _| !OWN_ATTRIBUTES.contains(&name.as_str()));
        let last_good = last_good(&own);

        let mut unreadable = Vec::new();
        let status = take_optional(&mut own, "status", &mut unreadable);
        let pause = take_optional(&mut own, "pause", &mut unreadable);
        let config_updated = take_optional(&mut own, "configUpdated", &mut unreadable);
        let config_updated_by = take_optional(&mut own, "configUpdatedBy", &mut unreadable);
        let kept: Kept = serde_path_to_error::deserialize(Value::Object(own)).map_err(|error| {
            UnreadableItem {
                id: id.clone(),
                last_good,
                source: at_path("", &error).into(),
            }
        })?;
        if !unreadable.is_empty() {
            tracing::warn!(
                integration = %kept.id,
                unreadable = unreadable.join("; "),
                "a part of the integration's state cannot be read and is dropped"
            );
        }
        Ok(Self {
            settings: Settings::parse(stored.clone().into(), "integration"),
            stored,
            id: kept.id,
            config_version: kept.config_version,
            config_updated,
            config_updated_by,
            status,
            pause,
            lease: kept.lease,
            removal: kept.removal,
            pending: kept.pending,
            unreadable,
        })
    }

    /// Seconds without a success: since the last one, or since the settings were changed, if that was later. `status` is
    /// the latest, which need not be stored yet.
    pub fn seconds_since_success(&self, status: Option<&Status>, now: Timestamp) -> u64 {
        let success = status.and_then(|status| status.last_success);
        seconds_since(success.max(self.config_updated).unwrap_or(now), now)
    }
}

impl UnreadableItem {
    /// Seconds without a success, as far as the item tells. Without a time that can be true they count from 1970, so that
    /// the alarm is raised at once.
    pub fn seconds_since_success(&self, now: Timestamp) -> u64 {
        let last_good = self.last_good.filter(|time| *time <= now);
        seconds_since(last_good.unwrap_or(Timestamp::UNIX_EPOCH), now)
    }
}

fn seconds_since(time: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0)
}

/// Takes an attribute that a run can do without. A field of it that cannot be read is dropped and told. If the rest cannot
/// be read without that field, the whole attribute is dropped.
fn take_optional<T: DeserializeOwned>(
    item: &mut Map<String, Value>,
    name: &str,
    unreadable: &mut Vec<String>,
) -> Option<T> {
    let mut value = item.remove(name).filter(|value| !value.is_null())?;
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        unreadable.push(at_path(name, &error));
        let Some(Segment::Map { key: field }) = error.path().iter().next() else {
            return None;
        };
        value.as_object_mut()?.remove(field)?;
    }
}

/// The latest success or change of the settings, read from an item in any condition.
fn last_good(item: &Map<String, Value>) -> Option<Timestamp> {
    let success = item
        .get("status")
        .and_then(|status| status.get("lastSuccess"));
    let times = success.into_iter().chain(item.get("configUpdated"));
    times.filter_map(|time| time.as_str()?.parse().ok()).max()
}

/// An error with its path in the item. It quotes what is stored.
fn at_path(attribute: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = match (attribute, error.path().to_string()) {
        ("", path) => path,
        (attribute, path) if path == "." => attribute.to_owned(),
        (attribute, path) => format!("{attribute}.{path}"),
    };
    said(&format!("{path}: {}", error.inner()), REASON_CHARS)
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
                            error = chain(&error),
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
