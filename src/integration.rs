//! An integration's settings: newtypes that cannot hold a bad value, and errors that name the field.
//!
//! The field names are what users rely on, in payloads and in the `integrations` table alike; where Tailscale's own
//! posture integration has such a field, they are its names.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

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

fn yes() -> bool {
    true
}

/// Settings that cannot be taken: where, and what is accepted instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct InvalidSettings {
    /// The field's path, as in `integration.maxRemovals.percent`.
    pub path: String,
    /// What is wrong and what is accepted.
    pub problem: String,
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
                    format!("{root}.{at}")
                },
                problem: error.into_inner().to_string(),
            }
        })
    }
}

/// An accepted text of a kind, checked once.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $accepts:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(format!(
                        "{:?} is not accepted; accepted is {}",
                        crate::error::plain(&text, 60),
                        $accepts
                    ))
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype!(
    /// The name of an integration: it is part of keys, events and log lines.
    IntegrationId,
    |text| (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
    "1 to 64 lower-case letters, digits and hyphens, not starting with a hyphen"
);

text_newtype!(
    /// The name of a CrowdStrike cloud. Whether it exists is known to the deployment (`config.rs`).
    CloudId,
    |text| (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
    "a CrowdStrike cloud such as \"us-1\""
);

text_newtype!(
    /// The name of a secret in Secrets Manager, in the service's own character set.
    SecretName,
    |text| (1..=512).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b)),
    "a secret's name: 1 to 512 letters, digits and /_+=.@- (a name, not an ARN)"
);

text_newtype!(
    /// A tailnet's id or name. It becomes part of a URL's path.
    Tailnet,
    |text| (1..=255).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b)),
    "\"-\" for the credential's own tailnet, or its id or name"
);

text_newtype!(
    /// A posture attribute's key, by the rules of Tailscale's API: at most 128 characters with the namespace; letters,
    /// digits, underscore and colon. API clients may write only `custom:`; whether `falcon:` is writable depends on the
    /// control plane (`config.rs`).
    AttributeKey,
    |text| text.len() <= 128
        && ["custom:", "falcon:"]
            .iter()
            .any(|namespace| text.strip_prefix(namespace).is_some_and(|name| !name.is_empty()))
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'),
    "\"custom:\" and a name of letters, digits, underscores and colons, 128 characters in all"
);

impl AttributeKey {
    /// Whether Tailscale's public API lets clients write it.
    pub fn is_custom(&self) -> bool {
        self.0.starts_with("custom:")
    }
}

impl Default for AttributeKey {
    fn default() -> Self {
        Self("custom:ztaScore".to_owned())
    }
}

impl Default for Tailnet {
    fn default() -> Self {
        Self("-".to_owned())
    }
}

/// Where scores come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    /// CrowdStrike Falcon Zero Trust Assessment.
    Falcon,
}

/// What becomes of a device's attribute when there is no score for it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnMissing {
    /// It is deleted: a rule that asks for the score does not let the device pass.
    #[default]
    Delete,
    /// It stays as it was last written.
    Keep,
}

/// The most attributes that one run may remove: a removal of more than `percent` of the written ones *and* of more than
/// `at_least` waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxRemovals {
    /// Share of the attributes that are written, 0 to 100.
    #[serde(deserialize_with = "percent")]
    pub percent: u8,
    /// So many may go in any case, 0 to 1,000,000.
    #[serde(deserialize_with = "at_least")]
    pub at_least: u32,
}

impl Default for MaxRemovals {
    fn default() -> Self {
        Self {
            percent: 20,
            at_least: 10,
        }
    }
}

/// A setting that is announced but does not work yet: only `null` is accepted, so that nobody relies on it in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planned;

impl<'de> Deserialize<'de> for Planned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<de::IgnoredAny>::deserialize(deserializer)? {
            None => Ok(Self),
            Some(_) => Err(de::Error::custom(
                "this setting is planned and does not work yet; leave it out",
            )),
        }
    }
}

/// A whole number within bounds; the message says them.
fn bounded<'de, D: Deserializer<'de>>(
    deserializer: D,
    min: i64,
    max: i64,
) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer).map_err(|_| {
        de::Error::custom(format!("accepted is a whole number from {min} to {max}"))
    })?;
    number
        .as_i64()
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| {
            de::Error::custom(format!(
                "{number} is not accepted; accepted is a whole number from {min} to {max}"
            ))
        })
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    bounded(deserializer, 0, 100).map(|n| u8::try_from(n).unwrap_or(u8::MAX))
}

fn at_least<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    bounded(deserializer, 0, 1_000_000).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    struct Days(u16);
    impl<'de> Deserialize<'de> for Days {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            bounded(deserializer, 1, 3650).map(|n| Self(u16::try_from(n).unwrap_or(u16::MAX)))
        }
    }
    Ok(Option::<Days>::deserialize(deserializer)?.map(|days| days.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn corp() -> Value {
        json!({
            "id": "corp", "provider": "falcon", "cloudId": "us-2",
            "falconSecret": "falcon-posture-sync/corp/falcon",
            "tailscaleSecret": "falcon-posture-sync/corp/tailscale"
        })
    }

    /// `corp` with one field set to a value.
    fn with(field: &str, value: Value) -> Result<Settings, String> {
        let mut settings = corp();
        settings[field] = value;
        Settings::parse(settings, "integration").map_err(|e| e.to_string())
    }

    fn refused(field: &str, value: Value, expect: &str) {
        let error = with(field, value).expect_err(field);
        assert!(error.contains(expect), "{error}");
        assert!(error.starts_with("integration"), "{error}");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = Settings::parse(corp(), "integration").unwrap();
        assert_eq!(settings.attribute_key.as_str(), "custom:ztaScore");
        assert_eq!(settings.tailnet.as_str(), "-");
        assert!(settings.enabled);
        assert_eq!(settings.on_missing, OnMissing::Delete);
        assert_eq!(
            settings.max_removals,
            MaxRemovals {
                percent: 20,
                at_least: 10
            }
        );
    }

    #[test]
    fn settings_survive_their_own_json() {
        let settings = with("maxHostAgeDays", json!(30)).unwrap();
        let again = serde_json::to_value(&settings).unwrap();
        assert_eq!(Settings::parse(again, "integration").unwrap(), settings);
    }

    #[test]
    fn each_bad_value_is_refused_by_the_name_of_its_field() {
        refused(
            "id",
            json!("Corp!"),
            "integration.id: \"Corp!\" is not accepted; accepted is 1 to 64",
        );
        refused("id", json!(7), "integration.id");
        refused(
            "provider",
            json!("intune"),
            "unknown variant `intune`, expected `falcon`",
        );
        refused(
            "attributeKey",
            json!("ztaScore"),
            "integration.attributeKey",
        );
        refused(
            "attributeKey",
            json!("custom:zta-score"),
            "integration.attributeKey",
        );
        refused(
            "attributeKey",
            json!(format!("custom:{}", "x".repeat(122))),
            "128 characters",
        );
        refused("attributeKey", json!("node:os"), "\"custom:\" and a name");
        refused(
            "maxHostAgeDays",
            json!(-1),
            "-1 is not accepted; accepted is a whole number from 1 to 3650",
        );
        refused(
            "maxHostAgeDays",
            json!("30"),
            "accepted is a whole number from 1 to 3650",
        );
        refused(
            "maxRemovals",
            json!({"percent": -5}),
            "integration.maxRemovals.percent: -5 is not accepted",
        );
        refused(
            "maxRemovals",
            json!({"percent": 20.5}),
            "whole number from 0 to 100",
        );
        refused(
            "maxRemovals",
            json!({"atMost": 5}),
            "unknown field `atMost`",
        );
        refused("colour", json!("red"), "unknown field `colour`");
        refused("tailnet", json!("a/b"), "integration.tailnet");
        refused(
            "falconSecret",
            json!("arn:aws:secretsmanager:x"),
            "not an ARN",
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut settings = corp();
        settings.as_object_mut().unwrap().remove("falconSecret");
        let error = Settings::parse(settings, "integration").unwrap_err();
        assert_eq!(
            error.to_string(),
            "integration: missing field `falconSecret`"
        );
    }

    #[test]
    fn planned_settings_are_refused_by_name_and_accepted_as_null() {
        for field in [
            "scoreTtlHours",
            "osScoreKey",
            "sensorScoreKey",
            "tailscaleIdentity",
        ] {
            refused(field, json!(24), "planned and does not work yet");
            assert!(with(field, Value::Null).is_ok());
        }
    }
}
