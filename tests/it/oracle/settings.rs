//! The settings of an integration, as the oracle needs them.

use jiff::SignedDuration;
use serde_json::Value;

/// The settings that decide about scores.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `maxHostAgeDays`.
    pub(crate) max_age: Option<SignedDuration>,
    /// `maxSilenceHours`.
    pub(crate) max_silence: Option<SignedDuration>,
    /// `onSharedSerial` is `lowest`.
    pub(crate) lowest_of_shared: bool,
    /// `onContained` is `ignore`.
    pub(crate) ignores_contained: bool,
    pub(crate) ignored_serials: Vec<String>,
    /// `onMissing` is `keep`.
    pub(crate) keeps: bool,
    /// `removeAfterMinutes`.
    pub(crate) remove_after: SignedDuration,
    /// `scoreTtlHours`.
    pub(crate) ttl: SignedDuration,
}

impl Default for Settings {
    fn default() -> Self {
        Self::from_json(&Value::Null)
    }
}

impl Settings {
    /// Returns the settings of an integration as `connect` takes it. A missing field has its default.
    pub(crate) fn from_json(integration: &Value) -> Self {
        let limit = |name: &str, default: i64| match integration.get(name) {
            None => Some(default),
            Some(value) => value.as_i64(),
        };
        let says = |name: &str, word: &str| integration[name] == word;
        let ignored = integration["ignoredSerials"].as_array();
        let ignored = ignored.into_iter().flatten().filter_map(Value::as_str);
        Self {
            max_age: limit("maxHostAgeDays", 30).map(|days| SignedDuration::from_hours(24 * days)),
            max_silence: limit("maxSilenceHours", 168).map(SignedDuration::from_hours),
            lowest_of_shared: says("onSharedSerial", "lowest"),
            ignores_contained: says("onContained", "ignore"),
            ignored_serials: ignored.map(str::to_owned).collect(),
            keeps: says("onMissing", "keep"),
            remove_after: SignedDuration::from_mins(limit("removeAfterMinutes", 25).unwrap()),
            ttl: SignedDuration::from_hours(limit("scoreTtlHours", 168).unwrap()),
        }
    }
}
