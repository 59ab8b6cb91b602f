//! What is taken of outside JSON where one odd value must not cost the rest of the answer.
//!
//! What is of another kind than expected counts as absent, and is passed over without being kept: a list of ten million
//! zeros in the place of a name takes no memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use smol_str::SmolStr;

/// A value without parts, or the fact that it has some.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum LooseValue {
    #[default]
    Null,
    Flag(bool),
    Number(Number),
    LenientText(String),
    BoundedList,
    LenientObject,
}

impl LooseValue {
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::LenientText(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// As JSON, without the parts.
impl fmt::Display for LooseValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::LenientText(text) => write!(f, "{text:?}"),
            Self::BoundedList => f.write_str("[…]"),
            Self::LenientObject => f.write_str("{…}"),
        }
    }
}

impl<'de> Deserialize<'de> for LooseValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = LooseValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<LooseValue, E> {
        Ok(LooseValue::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<LooseValue, E> {
        Ok(LooseValue::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<LooseValue, E> {
        Ok(LooseValue::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<LooseValue, E> {
        Ok(LooseValue::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<LooseValue, E> {
        Ok(Number::from_f64(number).map_or(LooseValue::Null, LooseValue::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<LooseValue, E> {
        Ok(LooseValue::LenientText(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<LooseValue, E> {
        Ok(LooseValue::LenientText(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<LooseValue, A::Error> {
        pass_over(list)?;
        Ok(LooseValue::BoundedList)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<LooseValue, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(LooseValue::LenientObject)
    }
}

/// What stands where a list belongs: of a list the first `MAX` things, the rest of which is passed over.
#[derive(Debug)]
pub(crate) enum ListOrOther<T, const MAX: usize> {
    Null,
    /// A text, a number or a flag.
    LooseValue,
    /// An object, as if it were the list's only thing.
    One(T),
    Many {
        first: Vec<T>,
        /// Whether there was more.
        more: bool,
    },
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for ListOrOther<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlaceVisitor(PhantomData))
    }
}

struct PlaceVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for PlaceVisitor<T, MAX> {
    type Value = ListOrOther<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(ListOrOther::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(ListOrOther::LooseValue)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(ListOrOther::LooseValue)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(ListOrOther::LooseValue)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(ListOrOther::LooseValue)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(ListOrOther::LooseValue)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(ListOrOther::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < MAX {
            match list.next_element()? {
                Some(thing) => first.push(thing),
                None => return Ok(ListOrOther::Many { first, more: false }),
            }
        }
        let more = list.next_element::<IgnoredAny>()?.is_some();
        if more {
            pass_over(list)?;
        }
        Ok(ListOrOther::Many { first, more })
    }
}

/// An object of this form; nothing where there is no object.
#[derive(Debug)]
pub(crate) struct LenientObject<T>(pub(crate) Option<T>);

impl<T> Default for LenientObject<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ListOrOther::<T, 0>::deserialize(deserializer)? {
            ListOrOther::One(object) => Self(Some(object)),
            ListOrOther::Null | ListOrOther::LooseValue | ListOrOther::Many { .. } => Self(None),
        })
    }
}

/// A list of at most `MAX` things; a longer one is not accepted.
#[derive(Debug)]
pub(crate) struct BoundedList<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = BoundedList<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut things = Vec::new();
                while let Some(thing) = list.next_element()? {
                    if things.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    things.push(thing);
                }
                Ok(BoundedList(things))
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// Reads a list to its end.
fn pass_over<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// What can be made of a text. It is made where the text is read: a run reads some hundred thousand of them.
pub(crate) trait FromText: Sized {
    /// The thing; nothing where the text means none.
    fn of_text(text: &str) -> Option<Self>;
}

impl FromText for String {
    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl FromText for SmolStr {
    fn of_text(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

/// What is made of a text; anything else in its place counts as absent.
#[derive(Clone, Debug)]
pub(crate) struct LenientText<T>(pub(crate) Option<T>);

impl<T> Default for LenientText<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: FromText> Deserialize<'de> for LenientText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<'de, T: FromText> Visitor<'de> for TextVisitor<T> {
    type Value = LenientText<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<LenientText<T>, E> {
        Ok(LenientText(T::of_text(text)))
    }

    fn visit_unit<E>(self) -> Result<LenientText<T>, E> {
        Ok(LenientText(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<LenientText<T>, E> {
        Ok(LenientText(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<LenientText<T>, E> {
        Ok(LenientText(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<LenientText<T>, E> {
        Ok(LenientText(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<LenientText<T>, E> {
        Ok(LenientText(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<LenientText<T>, A::Error> {
        pass_over(list)?;
        Ok(LenientText(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<LenientText<T>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(LenientText(None))
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
            let scalar: LooseValue = serde_json::from_str(json).unwrap();
            assert_eq!(scalar.to_string(), expect);
        }
    }

    #[test]
    fn only_a_text_is_one() {
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
    fn what_is_no_object_is_none_and_what_is_one_must_fit() {
        type Flags = LenientObject<std::collections::BTreeMap<String, bool>>;
        for json in ["null", "true", "1", "-1", "0.5", "\"x\"", "[{\"a\":true}]"] {
            assert!(serde_json::from_str::<Flags>(json).unwrap().0.is_none());
        }
        let flags: Flags = serde_json::from_str(r#"{"a":true}"#).unwrap();
        assert!(flags.0.unwrap()["a"]);
        assert!(serde_json::from_str::<Flags>(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn a_list_ends_at_its_bound() {
        let list = |json| serde_json::from_str::<BoundedList<u8, 2>>(json).map(|list| list.0);
        assert_eq!(list("[1,2]").unwrap(), [1, 2]);
        assert!(list("[1,2,3]").is_err());
        assert!(list("{}").is_err());
    }
}
