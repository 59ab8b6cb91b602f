//! An item of the integrations table, read: by this version, by another one, or after somebody edited it.

use std::collections::HashMap;
use std::error::Error as StdError;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_dynamo::from_item;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use smol_str::SmolStr;

use crate::domain::plan::deprovision::Removal;
use crate::domain::plan::journal::Journal;
use crate::domain::status::Status;
use crate::domain::status::pause::Pause;
use crate::settings::{IntegrationId, InvalidSettings, Settings};
use crate::text::{redact, sanitize_smol};

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
    pub pending: Journal,
    /// Parts that this version cannot read of attributes on which no decision rests, each with its path and the reason.
    /// They count as absent; the next run writes status and pause anew.
    pub unreadable: Vec<String>,
}

/// The right to work on an integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The run that has it.
    pub owner: String,
    /// When it ends by itself.
    pub until: Timestamp,
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

/// The attributes of the item that are no settings, and that decide what a run may do.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntegrationAttributes {
    id: IntegrationId,
    #[serde(default)]
    config_version: u64,
    lease: Option<Lease>,
    removal: Option<Removal>,
    #[serde(default)]
    pending: Journal,
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
        let id = id.map_or_else(SmolStr::default, |id| sanitize_smol(id, ID_CHARS));
        // Through JSON, so that the message for a hand-edited setting is the one that `connect` gives.
        let all: Map<String, Value> = from_item(item).map_err(|error| UnreadableItem {
            id: id.clone(),
            last_good: None,
            source: redact(&error.to_string(), REASON_CHARS).into(),
        })?;
        let (mut own, stored): (Map<String, Value>, Map<String, Value>) = all
            .into_iter()
            .partition(|(name, _)| OWN_ATTRIBUTES.contains(&name.as_str()));
        own.extend(stored.get("id").map(|id| ("id".to_owned(), id.clone())));
        let last_good = last_good(&own);

        let mut unreadable = Vec::new();
        let status = take_optional(&mut own, "status", &mut unreadable);
        let pause = take_optional(&mut own, "pause", &mut unreadable);
        let config_updated = take_optional(&mut own, "configUpdated", &mut unreadable);
        let config_updated_by = take_optional(&mut own, "configUpdatedBy", &mut unreadable);
        let kept: IntegrationAttributes = serde_path_to_error::deserialize(Value::Object(own))
            .map_err(|error| UnreadableItem {
                id: id.clone(),
                last_good,
                source: at_path("", &error).into(),
            })?;
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
    redact(&format!("{path}: {}", error.inner()), REASON_CHARS)
}
