//! Decoding JSON that others have written: errors say where, and never what.

pub(crate) mod lenient;
mod place;
mod stream;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Deserializer;

use crate::text::redact;

#[cfg(test)]
pub(crate) use stream::tests::TestList;
pub(crate) use stream::{ListDecoder, ListEnvelope, RecordIndex};

/// How much of the path to an undecodable value is kept.
const PATH_CHARS: usize = 120;

/// Why a body did not decode: the place, never the content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("the body ended early")]
    Early,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a record in it, or what is around the records, is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it lists more than {0} things")]
    TooMany(usize),
}

/// Where something else stands than is expected.
#[derive(Debug, Default, thiserror::Error)]
#[error(
    "not what is expected at {} (line {line}, column {column})",
    whole(path)
)]
pub(crate) struct Malformed {
    /// Empty where it is the whole text.
    path: String,
    line: usize,
    column: usize,
}

/// The path of a list's nth thing, or of something in it.
fn within(list: &str, n: usize, path: &str) -> String {
    let dot = if path.is_empty() || path.starts_with('[') {
        ""
    } else {
        "."
    };
    format!("{list}[{n}]{dot}{path}")
}

/// A path that leads nowhere is shown as the text itself.
fn whole(path: &str) -> &str {
    if path.is_empty() { "the top" } else { path }
}

impl JsonError {
    /// The error of a list's nth thing, as one of the list.
    fn within(self, list: &str, n: usize) -> Self {
        match self {
            Self::Malformed(Malformed { path, line, column }) => Self::Malformed(Malformed {
                path: redact(&within(list, n, &path), PATH_CHARS),
                line,
                column,
            }),
            other => other,
        }
    }

    /// Why a text did not decode.
    fn of(text: &[u8], error: &serde_json::Error) -> Self {
        if error.is_eof() {
            return Self::Early;
        }
        let (line, column) = (error.line(), error.column());
        // The error's own text quotes the content; and the keys are the sender's words, too.
        let path = redact(&place::path(text, line, column), PATH_CHARS);
        Self::Malformed(Malformed { path, line, column })
    }
}

/// Decodes a text.
///
/// # Errors
/// Says at which path decoding stopped.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError::of(text, &error))
}

/// An object or a list at the beginning of a text.
enum Prefix<T> {
    /// It goes so far; what it is.
    Here(usize, Result<T, JsonError>),
    /// Its end is not in the text.
    Prefetch,
}

/// Whether more of the text may mend it. Of a number that ends with it, such as `1.` or `1e-`, that is not said to be the
/// end.
fn is_cut(text: &[u8], error: &serde_json::Error) -> bool {
    error.is_eof() || place::offset(text, error.line(), error.column()) == text.len()
}

/// Decodes the object or list that a text begins with. What is JSON and is not a `T` has an end as well.
///
/// # Errors
/// When it is no JSON.
fn leading<T: DeserializeOwned>(text: &[u8]) -> Result<Prefix<T>, JsonError> {
    let mut things = Deserializer::from_slice(text).into_iter::<T>();
    let error = match things.next() {
        Some(Ok(thing)) => return Ok(Prefix::Here(things.byte_offset(), Ok(thing))),
        Some(Err(error)) if !error.is_eof() => error,
        Some(Err(_)) | None => return Ok(Prefix::Prefetch),
    };
    let mut things = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match things.next() {
        Some(Ok(IgnoredAny)) => Ok(Prefix::Here(
            things.byte_offset(),
            Err(JsonError::of(text, &error)),
        )),
        Some(Err(error)) if !is_cut(text, &error) => Err(JsonError::of(text, &error)),
        Some(Err(_)) | None => Ok(Prefix::Prefetch),
    }
}
