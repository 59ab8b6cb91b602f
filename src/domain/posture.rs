//! Postures of a tailnet's policy file: conditions on attributes, as far as they concern ours.
//!
//! A posture is a list of conditions, all of which must hold. An attribute that a device lacks matches no condition,
//! whatever its operator; the documentation does not spell out the one exception that the words suggest, `NOT SET`, which
//! is taken to match here.

mod condition;
pub mod preview;

use std::fmt;

use serde::Serialize;

use crate::settings::AttributeKey;

pub use condition::{Comparison, Condition, ConditionError, Predicate, Value, os_value};

/// A posture of the policy file that is about our attribute, or a threshold that somebody thinks of.
#[derive(Clone, Debug, PartialEq)]
pub struct Posture {
    /// Its name, such as `posture:trusted`.
    pub name: Option<String>,
    /// Its conditions, as they are written.
    pub written: Vec<String>,
    /// Those on our attribute and on the operating system.
    pub judged: Vec<Condition>,
    /// Those that cannot be judged from here.
    pub not_judged: Vec<String>,
    /// What is wrong with a condition on our attribute.
    pub problems: Vec<ConditionProblem>,
    /// Where it is used.
    pub used_in: Vec<String>,
}

/// A condition that does not do what it seems to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionProblem {
    /// The condition.
    pub condition: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Posture {
    /// The posture that asks for a score of at least so much.
    pub fn at_least(key: &AttributeKey, min_score: u8) -> Self {
        let written = format!("{key} >= {min_score}");
        Self {
            name: None,
            judged: vec![Condition {
                key: key.to_string(),
                test: Predicate::Compares(Comparison::AtLeast, Value::Number(min_score.into())),
            }],
            written: vec![written],
            not_judged: Vec::new(),
            problems: Vec::new(),
            used_in: Vec::new(),
        }
    }

    /// A posture of the policy file, if it is about our attribute.
    pub fn of_policy(
        key: &AttributeKey,
        name: &str,
        written: &[String],
        used_in: Vec<String>,
    ) -> Option<Self> {
        let mut posture = Self {
            name: Some(name.to_owned()),
            written: written.to_vec(),
            judged: Vec::new(),
            not_judged: Vec::new(),
            problems: Vec::new(),
            used_in,
        };
        let mut is_ours = false;
        for text in written {
            let mentions = mentions(text, key);
            is_ours |= mentions;
            let problem = |problem: &dyn fmt::Display| ConditionProblem {
                condition: text.clone(),
                problem: problem.to_string(),
            };
            match Condition::parse(text) {
                Ok(condition) if condition.is_about(key) => {
                    let objection = condition.objection();
                    posture.problems.extend(objection.map(|why| problem(&why)));
                    posture.judged.push(condition);
                }
                Ok(condition) if condition.is_about_os() => posture.judged.push(condition),
                Err(error) if mentions => posture.problems.push(problem(&error)),
                Ok(_) | Err(_) => posture.not_judged.push(text.clone()),
            }
        }
        is_ours.then_some(posture)
    }

    /// The score that it draws the line at.
    pub fn threshold(&self, key: &AttributeKey) -> Option<f64> {
        let ours = self
            .judged
            .iter()
            .filter(|condition| condition.is_about(key));
        ours.into_iter().find_map(Condition::threshold)
    }
}

/// Whether a condition begins with our key.
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
            Posture::of_policy(&key, "posture:x", &written, Vec::new())
        };
        assert_eq!(posture(&["node:os == 'macos'"]), None);
        assert_eq!(posture(&["custom:ztaScoreOld >= 7"]), None);
        let both = posture(&[
            "CUSTOM:ZTASCORE >= 70",
            "node:tsVersion >= '1.40'",
            "node:os == 'macos'",
        ])
        .unwrap();
        assert_eq!((both.judged.len(), both.not_judged.len()), (2, 1));
        assert_eq!(both.threshold(&key), Some(70.0));
        let odd = posture(&["custom:ztaScore => 70", "custom:ztaScore == 'high'"]).unwrap();
        assert_eq!((odd.judged.len(), odd.problems.len()), (1, 2));
    }
}
