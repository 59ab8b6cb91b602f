//! One condition on one attribute: read, and judged.

use crate::settings::AttributeKey;

/// The device attribute whose conditions can be judged from the listing.
const OS: &str = "node:os";

/// A condition, such as `custom:ztaScore >= 70`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The attribute that it is about.
    pub key: String,
    /// What it asks of it.
    pub test: Predicate,
}

/// What a condition asks of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// It compares in this way with the value.
    Compares(Comparison, Value),
    /// It is one of the values, or none of them.
    Among(bool, Vec<Value>),
    /// It is there, or it is not.
    IsSet(bool),
}

/// The ways to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// A value in a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A text, in quotes.
    Text(String),
    /// `true` or `false`.
    Flag(bool),
}

/// A text that is no condition, and where it stops being one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not understood from {0:?} on")]
pub struct ConditionError(String);

/// Longest first, where one begins with another.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// Says from where on it makes no sense.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let text = text.trim();
        let end = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let rest = rest.trim_start();
        if !key.contains(':') {
            return Err(stuck(text));
        }
        let asks = match words(rest).as_slice() {
            ["IS", "SET"] => Predicate::IsSet(true),
            ["NOT", "SET"] => Predicate::IsSet(false),
            ["NOT", "IN", ..] => Predicate::Among(false, list(after(rest, "IN"))?),
            ["IN", ..] => Predicate::Among(true, list(after(rest, "IN"))?),
            _ => compares(rest)?,
        };
        Ok(Self {
            key: key.to_owned(),
            test: asks,
        })
    }

    /// Whether it is about this attribute. Tailscale takes keys that differ only in case for the same one.
    pub fn is_about(&self, key: &AttributeKey) -> bool {
        self.key.eq_ignore_ascii_case(key.as_str())
    }

    /// Whether it is about the device's operating system.
    pub fn is_about_os(&self) -> bool {
        self.key == OS && !matches!(self.test, Predicate::IsSet(false))
    }

    /// Whether a device passes that has this value, or lacks the attribute.
    pub fn passes(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else {
            return self.test == Predicate::IsSet(false);
        };
        match &self.test {
            Predicate::IsSet(set) => *set,
            Predicate::Among(among, values) => values.contains(value) == *among,
            Predicate::Compares(comparison, other) => comparison.holds(value, other),
        }
    }

    /// The score that it draws the line at, if it is of that kind.
    pub fn threshold(&self) -> Option<f64> {
        match &self.test {
            Predicate::Compares(comparison, Value::Number(number)) if comparison.is_ordering() => {
                Some(*number)
            }
            _ => None,
        }
    }

    /// Why it can never do what it seems to, where that is so: our attribute is a number.
    pub fn objection(&self) -> Option<&'static str> {
        let values = match &self.test {
            Predicate::Compares(_, value) => std::slice::from_ref(value),
            Predicate::Among(_, values) => values.as_slice(),
            Predicate::IsSet(_) => &[],
        };
        values
            .iter()
            .any(|value| !matches!(value, Value::Number(_)))
            .then_some("it compares a number with something else")
    }
}

impl Comparison {
    fn is_ordering(self) -> bool {
        !matches!(self, Self::Equal | Self::Unequal)
    }

    /// Only numbers are ordered (versions are, too, and are nothing of ours).
    fn holds(self, value: &Value, other: &Value) -> bool {
        match self {
            Self::Equal => value == other,
            Self::Unequal => value != other,
            _ => match (value, other) {
                (Value::Number(value), Value::Number(other)) => match self {
                    Self::Less => value < other,
                    Self::AtMost => value <= other,
                    Self::Greater => value > other,
                    Self::AtLeast => value >= other,
                    Self::Equal | Self::Unequal => false,
                },
                _ => false,
            },
        }
    }
}

/// The first words, for the operators that are words.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c.is_whitespace() || c == '[')
        .filter(|word| !word.is_empty())
        .collect()
}

fn after<'a>(text: &'a str, word: &str) -> &'a str {
    text.split_once(word).map_or("", |(_, rest)| rest.trim())
}

fn compares(text: &str) -> Result<Predicate, ConditionError> {
    for (sign, comparison) in COMPARISONS {
        if let Some(rest) = text.strip_prefix(sign) {
            let (value, rest) = value(rest.trim_start())?;
            return if rest.trim().is_empty() {
                Ok(Predicate::Compares(comparison, value))
            } else {
                Err(stuck(rest))
            };
        }
    }
    Err(stuck(text))
}

fn list(text: &str) -> Result<Vec<Value>, ConditionError> {
    let mut rest = text
        .strip_prefix('[')
        .ok_or_else(|| stuck(text))?
        .trim_start();
    let mut values = Vec::new();
    loop {
        let (next, after) = value(rest)?;
        values.push(next);
        let after = after.trim_start();
        if let Some(more) = after.strip_prefix(',') {
            rest = more.trim_start();
            continue;
        }
        return match after.strip_prefix(']') {
            Some(end) if end.trim().is_empty() => Ok(values),
            _ => Err(stuck(after)),
        };
    }
}

/// The value that a text begins with, and the rest of the text.
fn value(text: &str) -> Result<(Value, &str), ConditionError> {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote) {
            let (value, rest) = inner.split_once(quote).ok_or_else(|| stuck(text))?;
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
        number => {
            let number: f64 = number.parse().map_err(|_| stuck(text))?;
            if !number.is_finite() {
                return Err(stuck(text));
            }
            Value::Number(number)
        }
    };
    Ok((value, rest))
}

fn stuck(at: &str) -> ConditionError {
    ConditionError(crate::text::sanitize(at, 40))
}

/// The value that `node:os` has on a device of this operating system.
pub fn os_value(os: &str) -> Option<Value> {
    (!os.is_empty()).then(|| Value::Text(os.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conditions_are_read_and_judged() {
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
    fn what_is_no_condition_is_told_where() {
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
        fn no_text_is_too_odd(text in "\\PC{0,80}", tail in "\\PC{0,20}") {
            let _ = Condition::parse(&text);
            let _ = Condition::parse(&format!("custom:ztaScore {tail}"));
        }

        #[test]
        fn the_negation_is_the_opposite_for_whoever_has_the_attribute(value in 0_u8..=100, other in 0_u8..=100) {
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
