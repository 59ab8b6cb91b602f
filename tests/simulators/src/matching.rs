//! Which requests a fault, a hook or a script is about.

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

/// What is known of a request before it is answered. Never its body or its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The service asked.
    pub side: Side,
    /// The Falcon region asked; `None` for Tailscale.
    pub region: Option<String>,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query as sent, `""` without one.
    pub query: String,
}

/// A selection of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// The service asked.
    pub side: Side,
    /// Only this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only paths that start like this.
    #[serde(default)]
    pub path_prefix: Option<String>,
}

impl Matcher {
    /// Every request to this side.
    pub fn side(side: Side) -> Self {
        Self {
            side,
            method: None,
            path_prefix: None,
        }
    }

    /// Only this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only paths that start like this.
    #[must_use]
    pub fn path(mut self, prefix: &str) -> Self {
        self.path_prefix = Some(prefix.to_owned());
        self
    }

    /// Whether a request is selected.
    pub fn matches(&self, seen: &Seen) -> bool {
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
