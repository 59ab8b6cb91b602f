//! The values in the fields of commands.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use crate::domain::inventory::host::Score;
use crate::text::sanitize;

const ACTOR_CHARS: usize = 200;

/// Decodes the name of the person who sends a command.
pub(super) fn decode_actor<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let actor = Option::<String>::deserialize(deserializer)?;
    Ok(actor.map(|actor| sanitize(&actor, ACTOR_CHARS)))
}

pub(super) fn decode_changes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Object(changes) => Ok(changes),
        _ => Err(de::Error::custom(
            "must be an object with the settings to change, by name",
        )),
    }
}

/// Decodes how many held removals may go.
pub(super) fn decode_removals<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    const MESSAGE: &str =
        "must be a number: how many of the held removals may go, as the status says";
    let number =
        serde_json::Number::deserialize(deserializer).map_err(|_| de::Error::custom(MESSAGE))?;
    let number = number
        .as_u64()
        .and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| de::Error::custom(MESSAGE))
}

/// The least score that passes a posture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct MinScore(pub(super) Score);

impl TryFrom<Value> for MinScore {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let score = value.as_i64().and_then(Score::new).map(Self);
        score.ok_or("must be an integer from 0 to 100")
    }
}

/// The node id, the name or the serial number of a device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct DeviceRef(pub(crate) String);

impl TryFrom<String> for DeviceRef {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (1..=255).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err("must be a node id, a name or a serial number of 1 to 255 characters")
        }
    }
}

/// The end of a page of audit records: the id of its last event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Cursor(pub(super) String);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // An event id consists of a time, a target and a run.
        if (1..=400).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_digit()) {
            Ok(Self(text))
        } else {
            Err("must be the `next` of a response")
        }
    }
}

/// A point in time: RFC 3339, or a day, which begins at midnight in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeBound(pub(super) Timestamp);

impl<'de> Deserialize<'de> for TimeBound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let midnight = || {
            let date: Date = text.parse().ok()?;
            Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
        };
        let time = text.parse().ok().or_else(midnight);
        time.map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "must be a time such as \"2026-11-22T09:30:00Z\" or a day such as \"2026-11-22\", not {:?}",
                sanitize(&text, 60)
            ))
        })
    }
}

/// Maximum audit records in a response. Lambda limits a response to 6 MB, and a record has about 600 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Limit(pub(super) usize);

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<Value> for Limit {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value.as_u64().map(usize::try_from) {
            Some(Ok(limit @ 1..=1000)) => Ok(Self(limit)),
            _ => Err("must be an integer from 1 to 1000"),
        }
    }
}
