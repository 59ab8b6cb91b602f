//! Parses and evaluates one condition on one attribute.

use std::cmp::Ordering::{self, Equal, Greater, Less};

use crate::settings::AttributeKey;

/// The device attribute that can be evaluated from the device listing, besides our own.
const OS: &str = "node:os";

/// A condition, such as `custom:ztaScore >= 70`.
///
/// ```text
/// condition  = key ( comparison | membership | presence )
/// key        = ( letter | digit | "_" | ":" )+, with at least one ":"
/// comparison = ( "==" | "!=" | "<=" | ">=" | "<" | ">" ) value
/// membership = [ "NOT" ] "IN" "[" value { "," value } "]"
/// presence   = ( "IS" | "NOT" ) "SET"
/// value      = number | "true" | "false" | "'" text "'" | '"' text '"'
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub(crate) key: String,
    pub(crate) predicate: Predicate,
}

/// The test of an attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Predicate {
    /// Also `==`, with a single value.
    In(Vec<Value>),
    /// Also `!=`, with a single value.
    NotIn(Vec<Value>),
    /// `<`, `<=`, `>` or `>=`: the attribute's value passes in these orders to the other one.
    Order(&'static [Ordering], Value),
    IsSet,
    NotSet,
}

/// A value in a condition, or of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number of any kind.
    Number(f64),
    /// A text; a condition has it in quotes.
    Text(String),
    /// `true` or `false`.
    Flag(bool),
}

/// An invalid condition, from the first character that does not fit the grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be parsed from {0:?} on")]
pub struct ConditionError(String);

type Operator = (&'static str, fn(Value) -> Predicate);

/// The operators; a longer one stands before its prefix.
const OPERATORS: [Operator; 6] = [
    ("==", |value| Predicate::In(vec![value])),
    ("!=", |value| Predicate::NotIn(vec![value])),
    ("<=", |value| Predicate::Order(&[Less, Equal], value)),
    (">=", |value| Predicate::Order(&[Equal, Greater], value)),
    ("<", |value| Predicate::Order(&[Less], value)),
    (">", |value| Predicate::Order(&[Greater], value)),
];

impl Condition {
    /// Parses a condition.
    ///
    /// ```
    /// use falcon_posture_sync::domain::posture::{Condition, Value};
    ///
    /// let condition = Condition::parse("custom:ztaScore >= 70")?;
    /// assert!(condition.passes(Some(&Value::Number(71.0))));
    /// assert!(!condition.passes(None), "a device without the attribute");
    ///
    /// let error = Condition::parse("custom:ztaScore => 70").unwrap_err();
    /// assert_eq!(error.to_string(), r#"it cannot be parsed from "=> 70" on"#);
    /// # Ok::<(), falcon_posture_sync::domain::posture::ConditionError>(())
    /// ```
    ///
    /// # Errors
    /// The text does not fit the grammar of [`Condition`].
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let text = text.trim();
        let end = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let rest = rest.trim_start();
        if !key.contains(':') {
            return Err(error_at(text));
        }
        let words: Vec<&str> = rest
            .split(|c: char| c.is_whitespace() || c == '[')
            .filter(|word| !word.is_empty())
            .collect();
        let predicate = match words.as_slice() {
            ["IS", "SET"] => Predicate::IsSet,
            ["NOT", "SET"] => Predicate::NotSet,
            ["NOT", "IN", ..] => Predicate::NotIn(parse_list(rest)?),
            ["IN", ..] => Predicate::In(parse_list(rest)?),
            _ => parse_comparison(rest)?,
        };
        Ok(Self {
            key: key.to_owned(),
            predicate,
        })
    }

    /// Returns whether the condition is about this attribute. Tailscale treats keys that differ only in case as equal.
    pub(crate) fn is_about(&self, key: &AttributeKey) -> bool {
        self.key.eq_ignore_ascii_case(key.as_str())
    }

    /// Returns whether the condition is about the device's operating system, and can be evaluated.
    pub(crate) fn is_about_os(&self) -> bool {
        self.key == OS && self.predicate != Predicate::NotSet
    }

    /// Returns whether a device passes that has this value; `None` stands for a device without the attribute.
    pub fn passes(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else {
            return self.predicate == Predicate::NotSet;
        };
        match &self.predicate {
            Predicate::IsSet => true,
            Predicate::NotSet => false,
            Predicate::In(values) => values.contains(value),
            Predicate::NotIn(values) => !values.contains(value),
            // Only numbers have an order; our attribute is no version.
            Predicate::Order(passing, other) => match (value, other) {
                (Value::Number(value), Value::Number(other)) => value
                    .partial_cmp(other)
                    .is_some_and(|order| passing.contains(&order)),
                _ => false,
            },
        }
    }

    /// Returns the number in an order comparison.
    pub(crate) fn threshold(&self) -> Option<f64> {
        match &self.predicate {
            Predicate::Order(_, Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Returns the problem of a condition on our attribute, which is a number, with a value of another type.
    pub(crate) fn type_mismatch(&self) -> Option<&'static str> {
        let values = match &self.predicate {
            Predicate::In(values) | Predicate::NotIn(values) => values.as_slice(),
            Predicate::Order(_, value) => std::slice::from_ref(value),
            Predicate::IsSet | Predicate::NotSet => &[],
        };
        values
            .iter()
            .any(|value| !matches!(value, Value::Number(_)))
            .then_some("it compares a number with something else")
    }
}

fn parse_comparison(text: &str) -> Result<Predicate, ConditionError> {
    let mut operators = OPERATORS.iter();
    let (operand, predicate) = operators
        .find_map(|(sign, predicate)| Some((text.strip_prefix(sign)?, predicate)))
        .ok_or_else(|| error_at(text))?;
    match parse_value(operand.trim_start())? {
        (value, rest) if rest.trim().is_empty() => Ok(predicate(value)),
        (_, rest) => Err(error_at(rest)),
    }
}

/// Parses the list after the word `IN`.
fn parse_list(text: &str) -> Result<Vec<Value>, ConditionError> {
    let list = text.split_once("IN").map_or("", |(_, list)| list.trim());
    let mut rest = list.strip_prefix('[').ok_or_else(|| error_at(list))?;
    let mut values = Vec::new();
    loop {
        let (value, end) = parse_value(rest.trim_start())?;
        values.push(value);
        let end = end.trim_start();
        let Some(more) = end.strip_prefix(',') else {
            return match end.strip_prefix(']') {
                Some(tail) if tail.trim().is_empty() => Ok(values),
                _ => Err(error_at(end)),
            };
        };
        rest = more;
    }
}

/// Parses the value at the start of a text. Returns the rest of the text, too.
fn parse_value(text: &str) -> Result<(Value, &str), ConditionError> {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote) {
            let (value, rest) = inner.split_once(quote).ok_or_else(|| error_at(text))?;
            return Ok((Value::Text(value.to_owned()), rest));
        }
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || ".+-".contains(c)))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let value = match word {
        "true" => Value::Flag(true),
        "false" => Value::Flag(false),
        _ => match word.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Number(number),
            _ => return Err(error_at(text)),
        },
    };
    Ok((value, rest))
}

fn error_at(rest: &str) -> ConditionError {
    ConditionError(crate::text::sanitize(rest, 40))
}

/// Returns the value of `node:os` on a device of this operating system.
pub(crate) fn os_value(os: &str) -> Option<Value> {
    (!os.is_empty()).then(|| Value::Text(os.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conditions_are_parsed_and_evaluated() {
        let passes = |text: &str, value: Option<Value>| {
            let condition =
                Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            condition.passes(value.as_ref())
        };
        for (text, yes, no) in [
            ("custom:ztaScore >= 70", 70.0, 69.0),
            ("custom:ztaScore>=70", 100.0, 0.0),
            ("custom:ztaScore > 70", 71.0, 70.0),
            (" custom:ztaScore  <=  9.5 ", 9.0, 10.0),
            ("custom:ztaScore < 0.5", 0.0, 1.0),
            ("custom:ztaScore == 70", 70.0, 71.0),
            ("custom:ztaScore != 70", 71.0, 70.0),
            ("custom:ztaScore IN [70, 80]", 80.0, 75.0),
            ("custom:ztaScore NOT IN [70,80]", 75.0, 70.0),
        ] {
            assert!(passes(text, Some(Value::Number(yes))), "{text} of {yes}");
            assert!(!passes(text, Some(Value::Number(no))), "{text} of {no}");
            assert!(!passes(text, None), "{text} of nothing");
        }
        assert!(passes("custom:ztaScore IS SET", Some(Value::Number(0.0))));
        assert!(!passes("custom:ztaScore IS SET", None));
        assert!(!passes("custom:ztaScore NOT SET", Some(Value::Number(0.0))));
        assert!(passes("custom:ztaScore NOT SET", None));
        assert!(passes(
            "node:os IN ['macos', \"windows\"]",
            os_value("macOS")
        ));
        assert!(!passes("node:os != 'macos'", os_value("macOS")));
        assert!(!passes(
            "custom:ztaScore >= 'high'",
            Some(Value::Number(99.0))
        ));
    }

    #[test]
    fn invalid_conditions_are_errors() {
        for text in [
            "",
            "ztaScore >= 70",
            "custom:ztaScore",
            "custom:ztaScore 70",
            "custom:ztaScore >= ",
            "custom:ztaScore >= 70 80",
            "custom:ztaScore >= NaN",
            "custom:ztaScore IN 70",
            "custom:ztaScore IN [70",
            "custom:ztaScore == 'x",
            "custom:ztaScore => 70",
        ] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in "\\PC{0,80}", tail in "\\PC{0,20}") {
            let _ = Condition::parse(&text);
            let _ = Condition::parse(&format!("custom:ztaScore {tail}"));
        }

        #[test]
        fn a_negated_comparison_is_the_opposite_on_devices_with_the_attribute(value in 0_u8..=100, other in 0_u8..=100) {
            let value = Value::Number(value.into());
            for (one, opposite) in [("==", "!="), ("<", ">="), ("<=", ">")] {
                let passes = |sign: &str| {
                    let condition = Condition::parse(&format!("custom:x {sign} {other}")).unwrap();
                    condition.passes(Some(&value))
                };
                prop_assert_ne!(passes(one), passes(opposite));
            }
        }
    }
}
