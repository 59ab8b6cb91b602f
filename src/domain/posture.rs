//! Postures of a tailnet's policy file: conditions on attributes, as far as they concern ours.
//!
//! A posture is a list of conditions, all of which must be met. A device without an attribute meets no condition on it,
//! whatever the operator. Tailscale's documentation does not mention an exception; here `NOT SET` is one, as its words say.

mod condition;
pub(crate) mod preview;

use std::fmt;

use serde::Serialize;

use crate::settings::AttributeKey;

pub(crate) use condition::os_value;
pub use condition::{Condition, ConditionError, Value};

/// A posture of the policy file that is about our attribute, or a minimum score to try.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Posture {
    /// The name in the policy file, such as `posture:trusted`.
    #[serde(rename = "posture", skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// All conditions, as the policy file has them.
    pub(crate) conditions: Vec<String>,
    /// Places in the policy file, such as `grants[1]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) used_in: Vec<String>,
    /// The conditions on our attribute.
    #[serde(skip)]
    pub(crate) on_score: Vec<Condition>,
    /// The conditions on the operating system.
    #[serde(skip)]
    pub(crate) on_os: Vec<Condition>,
    /// The conditions that the device listing does not suffice for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_evaluated: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<ConditionProblem>,
}

/// A condition that does not do what it seems to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ConditionProblem {
    pub(crate) condition: String,
    pub(crate) problem: String,
}

impl Posture {
    pub(crate) fn from_min_score(key: &AttributeKey, min_score: u8) -> Self {
        let condition = format!("{key} >= {min_score}");
        Self {
            // Always valid: a key consists of what the grammar allows.
            on_score: Condition::parse(&condition).into_iter().collect(),
            conditions: vec![condition],
            ..Self::default()
        }
    }

    /// Reads a posture of the policy file; `None` unless it is about our attribute.
    pub(crate) fn from_policy(
        key: &AttributeKey,
        name: &str,
        conditions: &[String],
        used_in: Vec<String>,
    ) -> Option<Self> {
        let mut posture = Self {
            name: Some(name.to_owned()),
            conditions: conditions.to_vec(),
            used_in,
            ..Self::default()
        };
        let mut is_ours = false;
        for text in conditions {
            let mentions_key = mentions(text, key);
            is_ours |= mentions_key;
            let problem = |problem: &dyn fmt::Display| ConditionProblem {
                condition: text.clone(),
                problem: problem.to_string(),
            };
            match Condition::parse(text) {
                Ok(condition) if condition.is_about(key) => {
                    let mismatch = condition.type_mismatch();
                    posture.problems.extend(mismatch.map(|text| problem(&text)));
                    posture.on_score.push(condition);
                }
                Ok(condition) if condition.is_about_os() => posture.on_os.push(condition),
                Err(error) if mentions_key => posture.problems.push(problem(&error)),
                Ok(_) | Err(_) => posture.not_evaluated.push(text.clone()),
            }
        }
        is_ours.then_some(posture)
    }

    /// Returns the score that the posture draws the line at.
    pub(crate) fn threshold(&self) -> Option<f64> {
        self.on_score.iter().find_map(Condition::threshold)
    }
}

/// Returns whether a condition begins with our key.
fn mentions(text: &str, key: &AttributeKey) -> bool {
    let (text, key) = (text.trim_start(), key.as_str());
    text.get(..key.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(key))
        && !text[key.len()..]
            .starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_posture_is_ours_if_a_condition_is_about_our_attribute() {
        let key: AttributeKey = "custom:ztaScore".to_owned().try_into().unwrap();
        let posture = |written: &[&str]| {
            let written: Vec<String> = written.iter().map(|text| (*text).to_owned()).collect();
            Posture::from_policy(&key, "posture:x", &written, Vec::new())
        };
        assert_eq!(posture(&["node:os == 'macos'"]), None);
        assert_eq!(posture(&["custom:ztaScoreOld >= 7"]), None);
        let both = posture(&[
            "CUSTOM:ZTASCORE >= 70",
            "node:tsVersion >= '1.40'",
            "node:os == 'macos'",
        ])
        .unwrap();
        assert_eq!((both.on_score.len(), both.on_os.len()), (1, 1));
        assert_eq!(both.not_evaluated.len(), 1);
        assert_eq!(both.threshold(), Some(70.0));
        let odd = posture(&["custom:ztaScore => 70", "custom:ztaScore == 'high'"]).unwrap();
        assert_eq!((odd.on_score.len(), odd.problems.len()), (1, 2));
    }
}
