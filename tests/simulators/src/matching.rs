//! Selection of the requests that a fault, a hook or a script affects.

use serde::{Deserialize, Serialize};

/// One of the two simulated services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The `CrowdStrike` Falcon API, in any region.
    Falcon,
    /// The Tailscale control API.
    Tailscale,
}

/// Facts of a request before its response, without body and credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The service of the request.
    pub side: Side,
    /// The Falcon region of the request; `None` for Tailscale.
    pub region: Option<String>,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query as sent; `""` without a query.
    pub query: String,
}

/// A selection of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// The service of the request.
    pub side: Side,
    /// Restricts the selection to this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Restricts the selection to paths with this prefix.
    #[serde(default)]
    pub path_prefix: Option<String>,
}

impl Matcher {
    /// Selects every request to this side.
    pub fn side(side: Side) -> Self {
        Self {
            side,
            method: None,
            path_prefix: None,
        }
    }

    /// Restricts the selection to this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Restricts the selection to paths with this prefix.
    #[must_use]
    pub fn path(mut self, prefix: &str) -> Self {
        self.path_prefix = Some(prefix.to_owned());
        self
    }

    /// Returns whether a request is selected.
    pub fn matches(&self, seen: &RequestInfo) -> bool {
        self.side == seen.side
            && self
                .method
                .as_deref()
                .is_none_or(|method| method.eq_ignore_ascii_case(&seen.method))
            && self
                .path_prefix
                .as_deref()
                .is_none_or(|prefix| seen.path.starts_with(prefix))
    }
}
