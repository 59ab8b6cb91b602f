//! The values of settings: newtypes that cannot hold a bad one, and numbers within bounds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use smol_str::SmolStr;

/// An accepted text of a kind, checked once.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $accepts:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(SmolStr);

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
                    Ok(Self(text.into()))
                } else {
                    Err(format!(
                        "{:?} is not accepted; accepted is {}",
                        crate::text::sanitize(&text, 60),
                        $accepts
                    ))
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.into()
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

/// The name of a secret in Secrets Manager, in the service's own character set and under a prefix, since that is all the
/// function's role may read. What is refused is not repeated: it may be a secret, put into the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

impl SecretName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SecretName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = (1..=512).contains(&text.len())
            && text.contains('/')
            && !text.starts_with("tskey-")
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b));
        if valid {
            Ok(Self(text))
        } else {
            Err(
                "accepted is the name of a secret under the deployment's prefix, such as \
                 \"falcon-posture-sync/corp/falcon\" (not an ARN, and never the secret itself)",
            )
        }
    }
}

impl From<SecretName> for String {
    fn from(value: SecretName) -> Self {
        value.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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

    /// Whether Tailscale takes both for one key: "checked for uniqueness in a case-insensitive manner".
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Tailnet {
    /// Whether it is named, rather than being the credential's own.
    pub fn is_named(&self) -> bool {
        self.0 != "-"
    }
}

impl Default for AttributeKey {
    fn default() -> Self {
        Self(SmolStr::new_static("custom:ztaScore"))
    }
}

impl Default for Tailnet {
    fn default() -> Self {
        Self(SmolStr::new_static("-"))
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

/// Maximum attributes that one run may remove: the greater of `percent` of the recorded devices and `at_least`. More
/// waits for a person. More than half of the recorded devices always waits (`domain::guard`).
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
            percent: 10,
            at_least: 2,
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

pub(super) fn yes() -> bool {
    true
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

pub(super) fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    struct Days(u16);
    impl<'de> Deserialize<'de> for Days {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            bounded(deserializer, 1, 3650).map(|n| Self(u16::try_from(n).unwrap_or(u16::MAX)))
        }
    }
    Ok(Option::<Days>::deserialize(deserializer)?.map(|days| days.0))
}
