//! An integration's settings: newtypes that cannot hold an invalid value, and errors that name the field.
//!
//! Users rely on the field names, in payloads and in the `integrations` table alike. Where Tailscale's own posture
//! integration has such a field, the name is the same.

mod decode;
mod ignored_serials;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use decode::FieldError;
pub(crate) use decode::decode_with_path;
pub use ignored_serials::{IgnoredSerials, SerialRule};
pub(crate) use values::default_true;
pub use values::{
    AttributeKey, CloudId, IntegrationId, MaxRemovals, NotImplemented, OnContained, OnMissing,
    OnSharedSerial, Provider, SecretName, Tailnet,
};
use values::{
    decode_integer, decode_limit, default_max_host_age, default_max_silence, default_remove_after,
    default_score_ttl,
};

/// The settings of an integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The user's name for the integration; the key of all its records.
    pub id: IntegrationId,
    /// The source of the scores.
    pub provider: Provider,
    /// The CrowdStrike cloud of the account, such as `us-2`.
    pub cloud_id: CloudId,
    /// The secret with the Falcon API client.
    pub falcon_secret: SecretName,
    /// The tailnet. `-` is the tailnet of the credential.
    #[serde(default)]
    pub tailnet: Tailnet,
    /// The secret with the Tailscale OAuth client or API key.
    pub tailscale_secret: SecretName,
    /// The posture attribute to write.
    #[serde(default)]
    pub attribute_key: AttributeKey,
    /// The schedule and events start syncs.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// The fate of a device's attribute when the device has no score any more.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// Hosts last seen longer ago do not count. 1 to 3650, or `null` for no limit.
    #[serde(
        default = "default_max_host_age",
        deserialize_with = "decode_limit::<_,1,3650>"
    )]
    pub max_host_age_days: Option<u16>,
    /// While a device is connected, hosts last seen longer ago do not count for it. 25 to 8760, or `null` for no limit.
    #[serde(
        default = "default_max_silence",
        deserialize_with = "decode_limit::<_,25,8760>"
    )]
    pub max_silence_hours: Option<u16>,
    /// The effect of a serial number that several machines share.
    #[serde(default)]
    pub on_shared_serial: OnSharedSerial,
    /// The effect of a host that is isolated from the network.
    #[serde(default)]
    pub on_contained: OnContained,
    /// Texts that are no serial numbers in this fleet, and texts that are, whatever their form.
    #[serde(default)]
    pub ignored_serials: IgnoredSerials,
    /// An attribute goes only after two runs found its device absent, this far apart. 0 to 1440; 0: at once.
    #[serde(
        default = "default_remove_after",
        deserialize_with = "decode_integer::<_,_,0,1440>"
    )]
    pub remove_after_minutes: u16,
    /// Maximum attributes that may be removed within 24 hours.
    #[serde(default)]
    pub max_removals: MaxRemovals,
    /// Each score expires in Tailscale after this time, unless a run renews it. 1 to 8760.
    #[serde(
        default = "default_score_ttl",
        deserialize_with = "decode_integer::<_,_,1,8760>"
    )]
    pub score_ttl_hours: u16,
    #[serde(default, skip_serializing)]
    pub(crate) os_score_key: NotImplemented,
    #[serde(default, skip_serializing)]
    pub(crate) sensor_score_key: NotImplemented,
    #[serde(default, skip_serializing)]
    pub(crate) tailscale_identity: NotImplemented,
}

/// The implemented fields of [`Settings`], by serialized name.
const FIELDS: [&str; 17] = [
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
    "maxSilenceHours",
    "onSharedSerial",
    "onContained",
    "ignoredSerials",
    "removeAfterMinutes",
    "maxRemovals",
    "scoreTtlHours",
];

/// The fields of which `null` is a value: no limit.
const NULLABLE: [&str; 2] = ["maxHostAgeDays", "maxSilenceHours"];

const NOT_IMPLEMENTED: [&str; 3] = ["osScoreKey", "sensorScoreKey", "tailscaleIdentity"];

impl Settings {
    /// Decodes settings from the field `root` of a payload.
    ///
    /// # Errors
    /// Names the invalid field and the accepted values.
    pub fn parse(value: Value, root: &str) -> Result<Self, FieldError> {
        decode_with_path(value, Some(root))
    }

    /// Merges changes into stored settings (RFC 7396: a value replaces the stored one, `null` restores the default), and
    /// validates the result as a whole. In a limit that can be lifted, `null` lifts it.
    pub(crate) fn with_changes(
        stored: &Map<String, Value>,
        changes: &Map<String, Value>,
    ) -> Result<Self, FieldError> {
        const ROOT: &str = "changes";
        for (name, change) in changes {
            let mut known_names = FIELDS.iter().chain(&NOT_IMPLEMENTED);
            let is_known = known_names.any(|known| known == name);
            // An unknown field that was added to the item by hand can be removed.
            let is_stray = change.is_null() && stored.contains_key(name);
            if !is_known && !is_stray {
                let message = format!("unknown setting: must be one of {}", FIELDS.join(", "));
                return Err(FieldError::below(ROOT, name, message));
            }
            if name == "id" && stored.get(name) != Some(change) {
                let message = "the name of an integration cannot change; remove the integration and connect another";
                return Err(FieldError::below(ROOT, name, message));
            }
        }
        let mut settings = Value::Object(stored.clone());
        merge(&mut settings, &Value::Object(changes.clone()));
        for name in NULLABLE {
            if changes.get(name).is_some_and(Value::is_null) {
                settings[name] = Value::Null;
            }
        }
        let settings = Self::parse(settings, ROOT)?;
        let old_key = stored.get("attributeKey").and_then(Value::as_str);
        let old_key = old_key.and_then(|key| AttributeKey::try_from(key.to_owned()).ok());
        if old_key.is_some_and(|old| settings.attribute_key.differs_in_case_only(&old)) {
            let message = "differs from the present key in case only, which is one key to Tailscale: must be another key";
            return Err(FieldError::below(ROOT, "attributeKey", message));
        }
        Ok(settings)
    }

    /// Returns [`remove_after_minutes`](Self::remove_after_minutes) as a duration.
    pub(crate) fn remove_after(&self) -> SignedDuration {
        SignedDuration::from_mins(self.remove_after_minutes.into())
    }

    /// Returns the sorted names of the fields that differ from stored settings.
    pub(crate) fn changed_fields(&self, stored: &Map<String, Value>) -> Vec<String> {
        let new = self.to_map();
        let mut names: BTreeSet<&String> = new.keys().chain(stored.keys()).collect();
        names.retain(|name| new.get(*name) != stored.get(*name));
        names.into_iter().cloned().collect()
    }

    /// Returns the fields by serialized name.
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// Returns whether both certainly write the same attribute of the same devices. Keys that differ only in case are the
    /// same to Tailscale, and a credential belongs to one tailnet.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        let same_tailnet = if self.tailnet.is_named() && other.tailnet.is_named() {
            self.tailnet == other.tailnet
        } else {
            self.tailscale_secret == other.tailscale_secret
        };
        self.id != other.id && same_tailnet && self.attribute_key.is_same_key(&other.attribute_key)
    }
}

/// Applies a JSON merge patch (RFC 7396).
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
