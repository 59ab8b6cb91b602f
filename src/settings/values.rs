//! The values of settings: newtypes that cannot hold an invalid value.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Bound, RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, de};
use smol_str::SmolStr;

use crate::text::{is_unprintable, letters_and_digits, sanitize};

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
fn must_be(accepted: &str, text: &str) -> String {
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

/// The texts that an integration's user judges otherwise than the rules by form (`domain::inventory::serial`).
///
/// Each entry is one of three:
/// - `text`: the text is no serial number.
/// - `text*`: no text that begins so is a serial number. At least four letters or digits stand before the `*`.
/// - `!text`: the text is a serial number, whatever its form and the other entries.
///
/// Only letters and digits are compared, in upper case, as the rules by form do: an entry need not repeat the spaces and
/// punctuation of the text, which inventories copy differently. An entry that repeats an earlier one in other dress is
/// dropped; the others keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<SmolStr>", try_from = "Vec<SerialEntry>")]
pub struct IgnoredSerials {
    /// The entries as they were sent.
    entries: Vec<SmolStr>,
    ignored: BTreeSet<SmolStr>,
    /// None of these begins with another one of them.
    ignored_beginnings: BTreeSet<SmolStr>,
    accepted: BTreeSet<SmolStr>,
}

/// The user's rule for a text that a host or device reports as its serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialRule {
    /// The text is no serial number.
    Ignore,
    /// The text is a serial number, whatever its form.
    Accept,
}

/// An entry of [`IgnoredSerials`].
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SerialEntry {
    text: SmolStr,
    kind: SerialEntryKind,
    letters_and_digits: SmolStr,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SerialEntryKind {
    Text,
    Beginning,
    Accepted,
}

impl IgnoredSerials {
    pub(crate) const MAX_ENTRIES: usize = 200;
    /// Maximum bytes of an entry without its mark; the maximum characters of a serial number. The entries are part of the
    /// integration's item, which holds 400 kB.
    pub(crate) const MAX_BYTES: usize = 128;
    /// A shorter beginning is that of many real serial numbers.
    const MIN_BEGINNING: usize = 4;

    /// Returns the entries.
    pub fn entries(&self) -> &[SmolStr] {
        &self.entries
    }

    /// Returns the rule for a text, given its letters and digits in upper case; none if no entry is about it.
    pub fn rule_for(&self, letters_and_digits: &str) -> Option<SerialRule> {
        if self.entries.is_empty() {
            return None;
        }
        if self.accepted.contains(letters_and_digits) {
            return Some(SerialRule::Accept);
        }
        let is_ignored = self.ignored.contains(letters_and_digits)
            || is_covered(&self.ignored_beginnings, letters_and_digits);
        is_ignored.then_some(SerialRule::Ignore)
    }

    fn add(&mut self, entry: SerialEntry) {
        self.entries.push(entry.text);
        let serial = entry.letters_and_digits;
        match entry.kind {
            SerialEntryKind::Text => {
                self.ignored.insert(serial);
            }
            SerialEntryKind::Accepted => {
                self.accepted.insert(serial);
            }
            SerialEntryKind::Beginning => {
                let beginnings = &mut self.ignored_beginnings;
                if !is_covered(beginnings, &serial) {
                    beginnings.retain(|longer| !longer.starts_with(serial.as_str()));
                    beginnings.insert(serial);
                }
            }
        }
    }
}

/// Returns whether a text begins with one of `beginnings`. As none of these begins with another one, only the last that sorts
/// before the text can be its beginning.
fn is_covered(beginnings: &BTreeSet<SmolStr>, text: &str) -> bool {
    let up_to_text = (Bound::Unbounded, Bound::Included(text));
    let last = beginnings.range::<str, _>(up_to_text).next_back();
    last.is_some_and(|beginning| text.starts_with(beginning.as_str()))
}

impl TryFrom<Vec<SerialEntry>> for IgnoredSerials {
    type Error = String;

    fn try_from(entries: Vec<SerialEntry>) -> Result<Self, Self::Error> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(format!(
                "must be at most {} texts; got {}. A \"*\" at the end of a text matches any ending",
                Self::MAX_ENTRIES,
                entries.len()
            ));
        }
        let mut serials = Self::default();
        let mut known = BTreeSet::new();
        for entry in entries {
            if known.insert((entry.kind, entry.letters_and_digits.clone())) {
                serials.add(entry);
            }
        }
        Ok(serials)
    }
}

impl From<IgnoredSerials> for Vec<SmolStr> {
    fn from(serials: IgnoredSerials) -> Self {
        serials.entries
    }
}

impl TryFrom<String> for SerialEntry {
    type Error = String;

    fn try_from(entry: String) -> Result<Self, Self::Error> {
        let (kind, text) = if let Some(text) = entry.strip_prefix('!') {
            (SerialEntryKind::Accepted, text)
        } else if let Some(text) = entry.strip_suffix('*') {
            (SerialEntryKind::Beginning, text)
        } else {
            (SerialEntryKind::Text, entry.as_str())
        };
        let letters_and_digits = letters_and_digits(text);
        let is_too_long = text.len() > IgnoredSerials::MAX_BYTES;
        let expect = if is_too_long || text.chars().any(is_unprintable) {
            "a printable serial number of up to 128 bytes"
        } else if text.contains('*') {
            if kind == SerialEntryKind::Accepted {
                "a whole serial number after \"!\", without \"*\""
            } else {
                "a text with \"*\" at its end only"
            }
        } else if letters_and_digits.is_empty() {
            "a text with a letter or digit: nothing else is compared"
        } else if kind == SerialEntryKind::Beginning
            && letters_and_digits.chars().count() < IgnoredSerials::MIN_BEGINNING
        {
            "a text with at least four letters or digits before \"*\""
        } else {
            return Ok(Self {
                kind,
                letters_and_digits: letters_and_digits.into(),
                text: entry.into(),
            });
        };
        Err(must_be(expect, &entry))
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
