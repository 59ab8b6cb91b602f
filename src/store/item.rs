//! Reads an item of the integrations table. Another version may have written it, or a person may have edited it.

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
use crate::settings::{FieldError, IntegrationId, Settings};
use crate::text::{redact, sanitize_smol};

/// A stored integration.
#[derive(Clone, Debug)]
pub struct Integration {
    pub(crate) id: IntegrationId,
    /// The settings, or what is wrong with them. A person may have edited the item, which must not stop other integrations.
    pub settings: Result<Settings, FieldError>,
    /// The settings as stored, valid or not.
    pub(crate) stored: Map<String, Value>,
    /// The number of changes, from 1.
    pub(crate) config_version: u64,
    pub(crate) config_updated: Option<Timestamp>,
    pub(crate) config_updated_by: Option<String>,
    /// The status after the latest run; `None` before the first.
    pub(crate) status: Option<Status>,
    /// The latest pause, active or expired.
    pub(crate) pause: Option<Pause>,
    /// The lease of the run in progress, or of a run that died.
    pub(crate) lease: Option<Lease>,
    /// The request to remove the integration, which the next run executes.
    pub(crate) removal: Option<Removal>,
    /// Writes that runs were about to make and have not recorded.
    pub pending: Journal,
    /// Parts of optional attributes that this version cannot read, each with its path and the reason. They count as absent;
    /// the next run overwrites status and pause.
    pub(crate) unreadable: Vec<String>,
}

/// The right to work on an integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub(crate) owner: String,
    pub(crate) until: Timestamp,
}

/// All integrations, sorted by name.
#[derive(Debug, Default)]
pub struct Integrations {
    pub(crate) readable: Vec<Integration>,
    /// Items that cannot be read. They are not synced until a person repairs them.
    pub(crate) unreadable: Vec<UnreadableItem>,
}

/// An item of the integrations table that this version cannot read: another version wrote it, or a person edited it.
#[derive(Debug, thiserror::Error)]
#[error("integration {id:?}: its item in the integrations table cannot be read")]
pub struct UnreadableItem {
    /// The item's key, sanitized. It may be an invalid name.
    pub(crate) id: SmolStr,
    /// The last success, or the last change of the settings if that was later, if the item has such a time.
    pub(crate) last_good: Option<Timestamp>,
    /// The path and the reason.
    #[source]
    source: Box<dyn StdError + Send + Sync>,
}

/// The attributes, other than settings, that decide what a run may do.
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

const ID_CHARS: usize = 64;
/// Maximum characters of the reason for an unreadable part.
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
    /// Returns whether the schedule runs the integration. A run also reports invalid settings.
    pub(crate) fn should_run(&self) -> bool {
        self.removal.is_some() || self.settings.as_ref().map_or(true, |s| s.enabled)
    }

    /// Reads an item. Optional attributes (status, pause, time and actor of the last change) are dropped if they cannot be
    /// read.
    pub(super) fn from_item(item: Item) -> Result<Self, UnreadableItem> {
        let id = item.get("id").and_then(|id| id.as_s().ok());
        let id = id.map_or_else(SmolStr::default, |id| sanitize_smol(id, ID_CHARS));
        // Decodes via JSON, so that an edited setting gets the same message as in `connect`.
        let unreadable_item = |last_good, reason: String| UnreadableItem {
            id: id.clone(),
            last_good,
            source: reason.into(),
        };
        let all: Map<String, Value> = from_item(item)
            .map_err(|error| unreadable_item(None, redact(&error.to_string(), REASON_CHARS)))?;
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
        let attributes: IntegrationAttributes =
            serde_path_to_error::deserialize(Value::Object(own))
                .map_err(|error| unreadable_item(last_good, at_path("", &error)))?;
        Ok(Self {
            settings: Settings::parse(stored.clone().into(), "integration"),
            stored,
            id: attributes.id,
            config_version: attributes.config_version,
            config_updated,
            config_updated_by,
            status,
            pause,
            lease: attributes.lease,
            removal: attributes.removal,
            pending: attributes.pending,
            unreadable,
        })
    }

    /// Returns the seconds since the last success or the last change of the settings, whichever was later. `status` is the
    /// latest status, which may not be stored yet.
    pub(crate) fn seconds_since_success(&self, status: Option<&Status>, now: Timestamp) -> u64 {
        let success = status.and_then(|status| status.last_success);
        seconds_since(success.max(self.config_updated).unwrap_or(now), now)
    }
}

impl UnreadableItem {
    /// Returns the seconds since the last success, if the item has a plausible time. Otherwise they count from 1970, so that
    /// the alarm is raised at once.
    pub(crate) fn seconds_since_success(&self, now: Timestamp) -> u64 {
        let last_good = self.last_good.filter(|time| *time <= now);
        seconds_since(last_good.unwrap_or(Timestamp::UNIX_EPOCH), now)
    }
}

fn seconds_since(time: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0)
}

/// Takes an optional attribute. A field that cannot be read is dropped and added to `unreadable`. If the rest cannot be read
/// without that field, the whole attribute is dropped.
fn take_optional<T: DeserializeOwned>(
    item: &mut Map<String, Value>,
    name: &str,
    unreadable: &mut Vec<String>,
) -> Option<T> {
    let mut value = item.remove(name).filter(|value| !value.is_null())?;
    loop {
        let error = match serde_path_to_error::deserialize(&value) {
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

/// Returns the latest success or change of the settings, from an item in any condition.
fn last_good(item: &Map<String, Value>) -> Option<Timestamp> {
    let success = item.get("status").map(|status| &status["lastSuccess"]);
    let times = success.into_iter().chain(item.get("configUpdated"));
    times.filter_map(|time| time.as_str()?.parse().ok()).max()
}

/// Formats an error with its path in the item. The error quotes stored values, so it is redacted.
fn at_path(attribute: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = match (attribute, error.path().to_string()) {
        ("", path) => path,
        (attribute, path) if path == "." => attribute.to_owned(),
        (attribute, path) => format!("{attribute}.{path}"),
    };
    redact(&format!("{path}: {}", error.inner()), REASON_CHARS)
}
