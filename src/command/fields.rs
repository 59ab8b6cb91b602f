//! The fields of each command, as they are sent. An unknown one is refused by name.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{AuditFormat, Format};
use crate::domain::inventory::host::Score;
use crate::domain::plan::deprovision::Attributes;
use crate::settings::IntegrationId;
use crate::text::sanitize;

/// Of a `sync`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SyncFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: Option<IntegrationId>,
    #[serde(default)]
    pub(super) force: bool,
    #[serde(default)]
    pub(super) dry_run: bool,
    #[serde(default)]
    pub(super) allow_mass_removal: bool,
}

/// Of a `connect`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConnectFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: Value,
    pub(super) actor: Option<String>,
    #[serde(default = "yes")]
    pub(super) check: bool,
}

/// Of an `update`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UpdateFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: IntegrationId,
    pub(super) changes: Value,
    pub(super) actor: Option<String>,
    pub(super) config_version: Option<u64>,
}

/// Of a `remove`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RemoveFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: IntegrationId,
    #[serde(default)]
    pub(super) attributes: Attributes,
    pub(super) actor: Option<String>,
}

/// Of a `check`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CheckFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: IntegrationId,
}

/// Of a `status`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StatusFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: Option<IntegrationId>,
    #[serde(default)]
    pub(super) format: Format,
}

/// Of an `explain`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExplainFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: IntegrationId,
    pub(super) device: DeviceRef,
    #[serde(default)]
    pub(super) format: Format,
}

/// Of a `preview`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PreviewFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: IntegrationId,
    pub(super) min_score: Option<MinScore>,
    #[serde(default)]
    pub(super) policy: bool,
    #[serde(default)]
    pub(super) format: Format,
}

/// A score to draw the line at.
pub(super) struct MinScore(pub(super) Score);

impl<'de> Deserialize<'de> for MinScore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Number::deserialize(deserializer)
            .ok()
            .and_then(|number| Score::new(number.as_i64()?))
            .map(Self)
            .ok_or_else(|| de::Error::custom("accepted is a whole number from 0 to 100"))
    }
}

/// Of an `audit`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AuditFields {
    #[serde(rename = "command")]
    _command: String,
    pub(super) integration: Option<IntegrationId>,
    pub(super) device: Option<DeviceRef>,
    pub(super) since: Option<Time>,
    pub(super) until: Option<Time>,
    #[serde(default)]
    pub(super) limit: Limit,
    pub(super) next: Option<Next>,
    #[serde(default)]
    pub(super) format: AuditFormat,
}

/// A device as a person names it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct DeviceRef(pub(super) String);

impl TryFrom<String> for DeviceRef {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (1..=255).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err("accepted is a node id, a name or a serial of 1 to 255 characters")
        }
    }
}

/// Where a page of audit records ended: the id of an event.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Next(pub(super) String);

impl TryFrom<String> for Next {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // A time, a target and a run.
        if (1..=400).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_digit()) {
            Ok(Self(text))
        } else {
            Err("accepted is the `next` of an answer")
        }
    }
}

/// A point in time: RFC 3339, or a day, which begins at midnight in UTC.
pub(super) struct Time(pub(super) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok();
        text.parse::<Timestamp>()
            .ok()
            .or_else(|| day().map(|day| day.timestamp()))
            .map(Self)
            .ok_or_else(|| {
                de::Error::custom(format!(
                    "{:?} is not accepted; accepted is a time such as \"2026-11-22T09:30:00Z\" or a day such as \
                     \"2026-11-22\"",
                    sanitize(&text, 60)
                ))
            })
    }
}

/// How many records are wanted. The answer of a function may have 6 MB, and a record has some 600 bytes.
pub(super) struct Limit(pub(super) usize);

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Number::deserialize(deserializer)
            .ok()
            .and_then(|number| usize::try_from(number.as_u64()?).ok())
            .filter(|limit| (1..=1000).contains(limit))
            .map(Self)
            .ok_or_else(|| de::Error::custom("accepted is a whole number from 1 to 1000"))
    }
}

fn yes() -> bool {
    true
}
