//! The values of settings: newtypes that cannot hold an invalid value.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, de};
use smol_str::SmolStr;

use crate::text::sanitize;

/// Defines a text that is validated when it is created, with the message about an invalid text.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $is_valid:expr, $message:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(SmolStr);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let is_valid: fn(&str) -> bool = $is_valid;
                let message: fn(&str) -> String = $message;
                if is_valid(&text) {
                    Ok(Self(text.into()))
                } else {
                    Err(message(&text))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Returns the message about an invalid text, which it quotes.
pub(super) fn must_be(accepted: &str, text: &str) -> String {
    format!("must be {accepted}; got {:?}", sanitize(text, 60))
}

/// Returns whether a text has a length in `lengths` and consists of ASCII letters, digits and `others`.
fn consists_of(text: &str, lengths: RangeInclusive<usize>, others: &[u8]) -> bool {
    lengths.contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

fn has_upper_case(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

text_newtype!(
    /// The name of an integration. It is part of keys, events and log lines.
    IntegrationId,
    |text| consists_of(text, 1..=64, b"-") && !has_upper_case(text) && !text.starts_with('-'),
    |text| must_be("1 to 64 lower-case letters, digits and hyphens, not starting with a hyphen", text)
);

text_newtype!(
    /// The name of a CrowdStrike cloud. The deployment knows which clouds exist (`config.rs`).
    CloudId,
    |text| consists_of(text, 1..=64, b"-") && !has_upper_case(text),
    |text| must_be("a CrowdStrike cloud such as \"us-1\"", text)
);

text_newtype!(
    /// The name of a secret in Secrets Manager, in the service's character set. The function's role may read secrets under
    /// a prefix only, so the name has a slash. An invalid text is not quoted, since it may be a secret in the wrong field.
    SecretName,
    |text| consists_of(text, 1..=512, b"/_+=.@-")
        && text.contains('/')
        && !text.starts_with("tskey-"),
    |_| "must be the name of a secret under the deployment's prefix, such as \"falcon-posture-sync/corp/falcon\" (not \
         an ARN, and never the secret itself)".to_owned()
);

text_newtype!(
    /// A tailnet's id or name. It becomes part of a URL's path.
    Tailnet,
    |text| consists_of(text, 1..=255, b"._@-") && text != "." && text != "..",
    |text| must_be("\"-\" for the credential's own tailnet, or its id or name", text)
);

text_newtype!(
    /// A posture attribute's key, by the rules of Tailscale's API: at most 128 characters with the namespace; letters,
    /// digits, underscore and colon. API clients may write only `custom:`. The control plane decides whether `falcon:` is
    /// writable (`config.rs`).
    AttributeKey,
    |text| consists_of(text, 0..=128, b"_:")
        && ["custom:", "falcon:"]
            .iter()
            .any(|namespace| text.strip_prefix(namespace).is_some_and(|name| !name.is_empty())),
    |text| must_be("\"custom:\" and a name of letters, digits, underscores and colons, 128 characters in all", text)
);

impl AttributeKey {
    /// Returns whether clients may write the attribute through Tailscale's public API.
    pub(crate) fn is_custom(&self) -> bool {
        self.0.starts_with("custom:")
    }

    /// Returns whether both are one key to Tailscale: "checked for uniqueness in a case-insensitive manner".
    pub(crate) fn is_same_key(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// Returns whether both are one key to Tailscale in two spellings.
    pub(crate) fn differs_in_case_only(&self, other: &Self) -> bool {
        self != other && self.is_same_key(other)
    }
}

impl Tailnet {
    /// Returns whether this is an id or a name, rather than the `-` of the credential's own tailnet.
    pub(crate) fn is_named(&self) -> bool {
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

/// The source of the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    /// CrowdStrike Falcon Zero Trust Assessment.
    Falcon,
}

/// The fate of a device's attribute when the device has no score any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnMissing {
    /// The attribute is deleted. A rule that requires a score then denies the device.
    #[default]
    Delete,
    /// The attribute keeps its last value.
    Keep,
}

/// The effect of a serial number that several machines share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnSharedSerial {
    /// It serves the device that is known by it, and no other.
    #[default]
    Withhold,
    /// Each device gets the lowest score of the live hosts: for containers on one server, and pools of clones.
    Lowest,
}

/// The effect of a host that is isolated from the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnContained {
    /// Its devices have no score.
    #[default]
    Withhold,
    /// It counts like any other host.
    Ignore,
}

/// Maximum attributes that may be removed within 24 hours: the greater of `percent` of the devices and `at_least`. More
/// removals wait for a person. Removals of more than half of the devices always wait (`domain::plan::guard`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxRemovals {
    /// Share of the devices that had an attribute in these 24 hours, 0 to 100.
    #[serde(deserialize_with = "decode_integer::<_,_,0,100>")]
    pub percent: u8,
    /// Number of attributes, 0 to 1,000,000.
    #[serde(deserialize_with = "decode_integer::<_,_,0,1_000_000>")]
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

/// A setting that is not implemented yet. Only `null` is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotImplemented;

impl<'de> Deserialize<'de> for NotImplemented {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<de::IgnoredAny>::deserialize(deserializer)? {
            None => Ok(Self),
            Some(_) => Err(de::Error::custom(
                "not implemented yet: must be null or absent",
            )),
        }
    }
}

pub(crate) fn default_true() -> bool {
    true
}

/// Less than two intervals of the schedule, and more than one: the second run that finds a device absent removes its
/// attribute, unless a run between the two comes early.
pub(super) fn default_remove_after() -> u16 {
    25
}

/// A week: longer than a long weekend without a run.
pub(super) fn default_score_ttl() -> u16 {
    168
}

pub(super) fn decode_integer<
    'de,
    D: Deserializer<'de>,
    T: TryFrom<i64>,
    const MIN: i64,
    const MAX: i64,
>(
    deserializer: D,
) -> Result<T, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)
        .map_err(|_| de::Error::custom(format!("must be an integer from {MIN} to {MAX}")))?;
    number
        .as_i64()
        .filter(|n| (MIN..=MAX).contains(n))
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| {
            de::Error::custom(format!(
                "must be an integer from {MIN} to {MAX}, not {number}"
            ))
        })
}

/// Decodes an integer, or `null` for no limit.
pub(super) fn decode_limit<'de, D: Deserializer<'de>, const MIN: i64, const MAX: i64>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    struct Limit<const MIN: i64, const MAX: i64>(u16);

    impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Limit<MIN, MAX> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            decode_integer::<D, u16, MIN, MAX>(deserializer).map(Self)
        }
    }

    let limit = Option::<Limit<MIN, MAX>>::deserialize(deserializer)?;
    Ok(limit.map(|limit| limit.0))
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
pub(super) fn default_max_host_age() -> Option<u16> {
    Some(30)
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
pub(super) fn default_max_silence() -> Option<u16> {
    Some(168)
}
