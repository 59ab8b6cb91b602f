//! Decodes JSON from outside. An error says where decoding stopped, and never holds content.

pub(crate) mod lenient;
mod stream;

use serde::de::DeserializeOwned;
use serde_json::Deserializer;

use crate::text::redact;

#[cfg(test)]
pub(crate) use stream::tests::TestList;
pub(crate) use stream::{ListDecoder, ListEnvelope, RecordIndex};

/// Maximum characters of the path in an error.
const PATH_CHARS: usize = 120;

/// The reason why a body does not decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("the body ended early")]
    Truncated,
    /// The path is empty if the error is outside every field.
    #[error(
        "unexpected value at {} (line {line}, column {column})",
        if path.is_empty() { "the top" } else { path }
    )]
    Malformed {
        path: String,
        line: usize,
        column: usize,
    },
    #[error("a record, or the envelope of the records, is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it lists more than {0} items")]
    TooMany(usize),
}

impl JsonError {
    /// Makes the error of a text that does not decode as `T`. A second decode finds the path: tracking it in the first one
    /// would make every decode slower.
    fn locate<T: DeserializeOwned>(text: &[u8], error: &serde_json::Error) -> Self {
        if error.is_eof() {
            return Self::Truncated;
        }
        let mut decoder = Deserializer::from_slice(text);
        let path = match serde_path_to_error::deserialize::<_, T>(&mut decoder) {
            Err(error) if error.path().iter().len() > 0 => error.path().to_string(),
            Err(_) | Ok(_) => String::new(),
        };
        Self::Malformed {
            // The error's own text quotes the content, and so may the keys in the path.
            path: redact(&path, PATH_CHARS),
            line: error.line(),
            column: error.column(),
        }
    }

    /// Puts the path of a list's nth element before the path in that element.
    fn in_list(mut self, list: &str, n: usize) -> Self {
        if let Self::Malformed { path, .. } = &mut self {
            let is_field = !path.is_empty() && !path.starts_with('[');
            let dot = if is_field { "." } else { "" };
            *path = redact(&format!("{list}[{n}]{dot}{path}"), PATH_CHARS);
        }
        self
    }
}

pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError::locate::<T>(text, &error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Node {
        #[serde(rename = "n")]
        _n: u8,
        #[serde(rename = "more", default)]
        _more: Vec<Node>,
    }

    fn path_of<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        match parse::<T>(text.as_bytes()).unwrap_err() {
            JsonError::Malformed { path, .. } => path,
            error => error.to_string(),
        }
    }

    #[test]
    fn the_path_leads_to_the_unexpected_value() {
        for (text, expect) in [
            (r#"{"n":"s3cret"}"#, "n"),
            (r#"{"n":256}"#, "n"),
            (r#"{"x":{"y":[1,2]},"n":[]}"#, "n"),
            (r#"{"n":{"n":1}}"#, "n"),
            (
                "{\"n\":1,\n\"more\":[{\"n\":1},\n {\"n\": null}]}",
                "more[1].n",
            ),
            (r#"{"n":1,"more":[{"n":1},{}]}"#, "more[1]"),
            (r#"{"n":1,"more":[{"n":1},7]}"#, "more[1]"),
            (
                r#"{"a\"}]":[",{"],"n":1,"more":[{"n":1,nil}]}"#,
                "more[0].?",
            ),
            (r#"{"n":1,"more":{}}"#, "more"),
            ("{}", ""),
            (r#"{"n":1} x"#, ""),
            ("nil", ""),
            (r#"{"n":1"#, "the body ended early"),
        ] {
            assert_eq!(path_of::<Node>(text), expect, "{text}");
        }
        assert_eq!(path_of::<BTreeMap<String, u8>>("{\"\u{e9}\":-1}"), "\u{e9}");
    }

    #[test]
    fn the_path_of_a_deep_value_is_bounded() {
        let deep = "[".repeat(1_000_000);
        let path = path_of::<serde_json::Value>(&deep);
        assert!(path.starts_with("[0][0]"), "{path}");
        assert_eq!(path.chars().count(), PATH_CHARS + 1);
    }
}
