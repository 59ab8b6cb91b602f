//! An integration's settings: newtypes that cannot hold a bad value, and errors that name the field.
//!
//! The field names are what users rely on, in payloads and in the `integrations` table alike; where Tailscale's own
//! posture integration has such a field, they are its names.

#[cfg(test)]
mod tests;
mod values;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::text::redact;

pub use values::{
    AttributeKey, CloudId, IntegrationId, MaxRemovals, OnMissing, Planned, Provider, SecretName,
    Tailnet,
};
use values::{age, yes};

/// What a user sets. See the README for what each setting does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The user's name for the integration; the key of all its records.
    pub id: IntegrationId,
    /// Where scores come from.
    pub provider: Provider,
    /// The CrowdStrike cloud of the account, such as `us-2`.
    pub cloud_id: CloudId,
    /// Name of the secret with the Falcon API client.
    pub falcon_secret: SecretName,
    /// The tailnet; `-` is the one that the credential belongs to.
    #[serde(default)]
    pub tailnet: Tailnet,
    /// Name of the secret with the Tailscale OAuth client or API key.
    pub tailscale_secret: SecretName,
    /// The posture attribute to write.
    #[serde(default)]
    pub attribute_key: AttributeKey,
    /// Whether the schedule and events run it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What becomes of a device's attribute when there is no score for it any more.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// Hosts not seen for longer than this do not count. 1 to 3650.
    #[serde(
        default,
        deserialize_with = "age",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_host_age_days: Option<u16>,
    /// How many attributes one run may remove.
    #[serde(default)]
    pub max_removals: MaxRemovals,
    /// Planned: refused until it works.
    #[serde(default, skip_serializing)]
    pub score_ttl_hours: Planned,
    /// Planned: refused until it works.
    #[serde(default, skip_serializing)]
    pub os_score_key: Planned,
    /// Planned: refused until it works.
    #[serde(default, skip_serializing)]
    pub sensor_score_key: Planned,
    /// Planned: refused until it works.
    #[serde(default, skip_serializing)]
    pub tailscale_identity: Planned,
}

/// The fields of [`Settings`] that work, by name.
const FIELDS: [&str; 11] = [
    "id",
    "provider",
    "cloudId",
    "falconSecret",
    "tailnet",
    "tailscaleSecret",
    "attributeKey",
    "enabled",
    "onMissing",
    "maxHostAgeDays",
    "maxRemovals",
];

/// How much of a setting's path is repeated, and of what is wrong with it: the longest list of what is accepted fits.
const PATH_CHARS: usize = 120;
const PROBLEM_CHARS: usize = 400;

/// Those that are refused until they do.
const PLANNED: [&str; 4] = [
    "scoreTtlHours",
    "osScoreKey",
    "sensorScoreKey",
    "tailscaleIdentity",
];

/// Settings that cannot be taken: where, and what is accepted instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct InvalidSettings {
    /// The field's path, as in `integration.maxRemovals.percent`.
    pub path: String,
    /// What is wrong and what is accepted.
    pub problem: String,
}

impl InvalidSettings {
    /// The same, where the settings came in another field of the payload.
    #[must_use]
    pub fn under(mut self, root: &str) -> Self {
        if let Some((_, field)) = self.path.split_once('.') {
            self.path = format!("{root}.{field}");
        }
        self
    }
}

impl Settings {
    /// Reads settings from a payload; `root` is the payload's field that holds them.
    ///
    /// # Errors
    /// Names the field and says what is accepted.
    pub fn parse(value: Value, root: &str) -> Result<Self, InvalidSettings> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let at = error.path().to_string();
            InvalidSettings {
                path: if at == "." {
                    root.to_owned()
                } else {
                    format!("{root}.{}", redact(&at, PATH_CHARS))
                },
                // It quotes what was sent.
                problem: redact(&error.into_inner().to_string(), PROBLEM_CHARS),
            }
        })
    }

    /// Settings as they are stored, with some of them changed (RFC 7396: what is named is replaced, `null` puts the
    /// default back), and checked as a whole.
    ///
    /// # Errors
    /// Names the field and says what is accepted.
    pub fn changed(
        stored: &Map<String, Value>,
        changes: &Map<String, Value>,
    ) -> Result<Self, InvalidSettings> {
        const ROOT: &str = "changes";
        for (name, change) in changes {
            let refuse = |problem: String| InvalidSettings {
                path: format!("{ROOT}.{}", redact(name, PATH_CHARS)),
                problem,
            };
            // A field that somebody added to the item by hand can be taken away again.
            let has = |fields: &[&str]| fields.contains(&name.as_str());
            let strays = change.is_null() && stored.contains_key(name);
            if !has(&FIELDS) && !has(&PLANNED) && !strays {
                return Err(refuse(format!(
                    "there is no such setting; accepted are {}",
                    FIELDS.join(", ")
                )));
            }
            if name == "id" && stored.get(name) != Some(change) {
                return Err(refuse(
                    "an integration keeps its name; remove it and connect another".to_owned(),
                ));
            }
        }
        let mut settings = Value::Object(stored.clone());
        merge(&mut settings, &Value::Object(changes.clone()));
        Self::parse(settings, ROOT)
    }

    /// The names of the settings in which these differ from stored ones, in order.
    pub fn differences(&self, stored: &Map<String, Value>) -> Vec<String> {
        let new = self.to_map();
        let mut names: Vec<String> = new
            .iter()
            .filter(|(name, value)| stored.get(*name) != Some(value))
            .map(|(name, _)| name.clone())
            .chain(
                stored
                    .keys()
                    .filter(|name| !new.contains_key(*name))
                    .cloned(),
            )
            .collect();
        names.sort();
        names
    }

    /// The settings by name.
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// Whether both surely write the same attribute of the same devices. Tailscale takes keys that differ only in case
    /// for the same one, and a credential belongs to one tailnet.
    pub fn collides_with(&self, other: &Self) -> bool {
        let tailnets = [&self.tailnet, &other.tailnet];
        let same_tailnet = if tailnets.iter().all(|tailnet| tailnet.is_named()) {
            self.tailnet == other.tailnet
        } else {
            self.tailscale_secret == other.tailscale_secret
        };
        self.id != other.id && same_tailnet && self.attribute_key.is_same_key(&other.attribute_key)
    }
}

/// JSON merge patch, RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}
