//! Decodes JSON from users, and names the field that is invalid.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::text::redact;

/// Maximum characters of a field's path in a message.
const MAX_PATH_CHARS: usize = 120;
/// Maximum characters of a problem in a message. The longest list of accepted values fits.
const MAX_MESSAGE_CHARS: usize = 400;

/// An invalid field of a payload or of stored settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field's path, such as `integration.maxRemovals.percent`.
    pub path: String,
    /// The problem and the accepted values.
    pub message: String,
}

impl FieldError {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }

    /// Creates the error of the field `name` below `root`. The name comes from outside.
    pub(super) fn below(root: &str, name: &str, message: impl Into<String>) -> Self {
        Self::new(format!("{root}.{}", redact(name, MAX_PATH_CHARS)), message)
    }
}

/// Decodes the field `root` of a payload, or the whole payload. The error names the path of the invalid field and the
/// accepted values.
pub(crate) fn decode_with_path<T: DeserializeOwned>(
    value: Value,
    root: Option<&str>,
) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        // The message quotes what was sent.
        let message = redact(&error.inner().to_string(), MAX_MESSAGE_CHARS);
        match root {
            _ if path == "." => FieldError::new(root.unwrap_or("payload"), message),
            Some(root) => FieldError::below(root, &path, message),
            None => FieldError::new(redact(&path, MAX_PATH_CHARS), message),
        }
    })
}
