//! The posture attributes that a device holds in the tailnet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::inventory::host::Score;
use crate::settings::AttributeKey;

/// An attribute as Tailscale reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAttribute {
    /// A text, a number or a boolean by the schema. It is not sanitized.
    pub value: Value,
    /// When Tailscale removes the attribute, if ever.
    pub expiry: Option<Timestamp>,
}

/// All attributes of a device by key, in all namespaces (`custom:`, `falcon:`, `node:`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldAttributes(pub BTreeMap<String, HeldAttribute>);

impl HeldAttributes {
    /// Returns the attribute of a key.
    pub fn get(&self, key: &AttributeKey) -> Option<&HeldAttribute> {
        self.0.get(key.as_str())
    }

    /// Returns true if the attribute of a key is this score, or if there is none and `score` is `None`.
    pub fn holds(&self, key: &AttributeKey, score: Option<Score>) -> bool {
        match (self.get(key), score) {
            (None, None) => true,
            (Some(held), Some(score)) => held.value.as_f64() == Some(score.get().into()),
            _ => false,
        }
    }

    /// Returns the end of the attribute of a key, if it has one.
    pub fn expiry(&self, key: &AttributeKey) -> Option<Timestamp> {
        self.get(key)?.expiry
    }
}
