//! Lenient parts of outside JSON: one odd value must not cost the rest of the response.
//!
//! A value of an unexpected kind counts as absent and is skipped without being kept. A list of ten million zeros in the
//! place of a name takes no memory. One visitor reads every kind of value, [`ListOrOther`]; all other types build on it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use smol_str::SmolStr;

use crate::text::sanitize_smol;

const MAX_NAME_CHARS: usize = 255;

/// A JSON value without the contents of lists and objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum LooseValue {
    #[default]
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List,
    Object,
}

impl LooseValue {
    pub(crate) fn number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// Formats as JSON, with `…` for the contents of a list or an object.
impl fmt::Display for LooseValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List => f.write_str("[…]"),
            Self::Object => f.write_str("{…}"),
        }
    }
}

impl<'de> Deserialize<'de> for LooseValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ListOrOther::<_, 0>::deserialize(deserializer)? {
            ListOrOther::Scalar(value) => value,
            ListOrOther::Text(text) => Self::Text(text.into_owned()),
            ListOrOther::One(IgnoredAny) => Self::Object,
            ListOrOther::Many { .. } => Self::List,
        })
    }
}

/// A value in the place of a list. Of a list, it keeps the first `MAX` elements.
#[derive(Debug)]
pub(crate) enum ListOrOther<'de, T, const MAX: usize> {
    /// Null, a flag or a number.
    Scalar(LooseValue),
    Text(Cow<'de, str>),
    /// An object, decoded as if it were the only element of a list.
    One(T),
    Many {
        first: Vec<T>,
        has_more: bool,
    },
}

impl<T, const MAX: usize> ListOrOther<'_, T, MAX> {
    /// Returns the first elements of a list. Any other value counts as an empty list.
    pub(crate) fn into_list(self) -> Vec<T> {
        match self {
            Self::Many { first, .. } => first,
            _ => Vec::new(),
        }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for ListOrOther<'de, T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for LooseVisitor<T, MAX> {
    type Value = ListOrOther<'de, T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(ListOrOther::Scalar(LooseValue::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(ListOrOther::Scalar(LooseValue::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(ListOrOther::Scalar(LooseValue::Number(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(ListOrOther::Scalar(LooseValue::Number(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        let number = Number::from_f64(number).map(LooseValue::Number);
        Ok(ListOrOther::Scalar(number.unwrap_or_default()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(ListOrOther::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(ListOrOther::Text(text.to_owned().into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(ListOrOther::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < MAX
            && let Some(element) = list.next_element()?
        {
            first.push(element);
        }
        let mut has_more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            has_more = true;
        }
        Ok(ListOrOther::Many { first, has_more })
    }
}

/// An object of type `T`; `None` in the place of any other value.
#[derive(Debug)]
pub(crate) struct LenientObject<T>(pub(crate) Option<T>);

impl<T> Default for LenientObject<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ListOrOther::<T, 0>::deserialize(deserializer)? {
            ListOrOther::One(object) => Ok(Self(Some(object))),
            _ => Ok(Self(None)),
        }
    }
}

/// A list of at most `MAX` elements. A longer list or any other value is an error.
#[derive(Debug, Default)]
pub(crate) struct BoundedList<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ListOrOther::<T, MAX>::deserialize(deserializer)? {
            ListOrOther::Many {
                first,
                has_more: false,
            } => Ok(Self(first)),
            _ => Err(D::Error::custom(format_args!("a list of at most {MAX}"))),
        }
    }
}

/// A value that a text is turned into while it is read: a run reads some hundred thousand texts.
pub(crate) trait FromText: Sized {
    /// Returns `None` if the text is not a value of this type.
    fn from_text(text: &str) -> Option<Self>;
}

impl FromText for String {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// A name of a machine or a person. It is sanitized, because it is printed.
impl FromText for SmolStr {
    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| sanitize_smol(text, MAX_NAME_CHARS))
    }
}

/// A value that is read from a text; `None` in the place of any other value.
#[derive(Clone, Debug)]
pub(crate) struct LenientText<T>(pub(crate) Option<T>);

impl<T> Default for LenientText<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl FromText for Timestamp {
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl<'de, T: FromText> Deserialize<'de> for LenientText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ListOrOther::<IgnoredAny, 0>::deserialize(deserializer)? {
            ListOrOther::Text(text) => Ok(Self(T::from_text(&text))),
            _ => Ok(Self(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value_is_told_apart() {
        for (json, expect) in [
            ("null", "null"),
            ("true", "true"),
            ("-7", "-7"),
            ("18446744073709551615", "18446744073709551615"),
            ("-0", "-0.0"),
            ("55.5", "55.5"),
            (r#""a\nb""#, r#""a\nb""#),
            ("[1,[2,{}],\"x\"]", "[…]"),
            (r#"{"a":{"b":[]},"a":1}"#, "{…}"),
        ] {
            let value: LooseValue = serde_json::from_str(json).unwrap();
            assert_eq!(value.to_string(), expect);
        }
    }

    #[test]
    fn any_value_but_a_text_counts_as_absent() {
        for (json, expect) in [
            (r#""a\nb""#, Some("a\nb")),
            ("null", None),
            ("true", None),
            ("-7", None),
            ("7", None),
            ("0.5", None),
            (r#"[["x"],1]"#, None),
            (r#"{"a":{"b":"x"}}"#, None),
        ] {
            let text: LenientText<String> = serde_json::from_str(json).unwrap();
            assert_eq!(text.0.as_deref(), expect, "{json}");
        }
        assert!(serde_json::from_str::<LenientText<String>>("[1").is_err());
    }

    #[test]
    fn any_value_but_an_object_counts_as_absent() {
        type Flags = LenientObject<std::collections::BTreeMap<String, bool>>;
        for json in ["null", "true", "1", "-1", "0.5", "\"x\"", "[{\"a\":true}]"] {
            assert!(serde_json::from_str::<Flags>(json).unwrap().0.is_none());
        }
        let flags: Flags = serde_json::from_str(r#"{"a":true}"#).unwrap();
        assert!(flags.0.unwrap()["a"]);
        assert!(serde_json::from_str::<Flags>(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn a_longer_list_is_an_error() {
        let list = |json| serde_json::from_str::<BoundedList<u8, 2>>(json).map(|list| list.0);
        assert_eq!(list("[1,2]").unwrap(), [1, 2]);
        assert!(list("[1,2,3]").is_err());
        assert!(list("{}").is_err());
    }
}
