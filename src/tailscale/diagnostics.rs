//! Reads that only diagnostics need: the credential's scopes, settings of the tailnet, and a device's attributes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::domain::inventory::attribute::{HeldAttribute, HeldAttributes};
use crate::domain::inventory::device::NodeId;
use crate::tailscale::{Tailscale, operation, wire};
use crate::text::sanitize;
use crate::upstream::error::{Operation, UpstreamError};

const SETTINGS: Operation = operation("settings lookup", "feature_settings:read");
const INTEGRATIONS: Operation = operation("posture integration listing", "feature_settings:read");
const ATTRIBUTES: Operation = operation("attribute lookup", "devices:posture_attributes:read");

/// Maximum characters of a scope, three times as many as the longest known one.
const MAX_SCOPE_CHARS: usize = 100;

/// The provider of Tailscale's own CrowdStrike Falcon integration.
const FALCON_PROVIDER: &str = "falcon";

impl Tailscale {
    /// Returns whether Device Identity Collection is on in the tailnet (`postureIdentityCollectionOn`). While it is off,
    /// no device has a serial number.
    ///
    /// Returns `None` if the response has no value. The schema allows null without a reason. Probably the credential may
    /// not see the value, because other scopes each hide a setting of the same response.
    ///
    /// # Errors
    /// A missing scope without `feature_settings:read`; or as for any call.
    pub(crate) async fn identity_collection(&self) -> Result<Option<bool>, UpstreamError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            posture_identity_collection_on: Option<bool>,
        }
        let url = self.tailnet_url(["settings"]);
        let wire: Wire = self.get(SETTINGS, &url).await?;
        Ok(wire.posture_identity_collection_on)
    }

    /// Returns whether the tailnet has Tailscale's own CrowdStrike Falcon integration, in any state. It writes
    /// `falcon:ztaScore`.
    ///
    /// # Errors
    /// A missing scope without `feature_settings:read`; or as for any call.
    pub(crate) async fn has_falcon_integration(&self) -> Result<bool, UpstreamError> {
        #[derive(Deserialize)]
        struct Wire {
            /// Required: a response without a list is not from this API. But the API is known to send `null` for an empty
            /// value of the schema (tailscale#18253).
            #[serde(deserialize_with = "Option::deserialize")]
            integrations: Option<Vec<ListedIntegration>>,
        }
        #[derive(Deserialize)]
        struct ListedIntegration {
            provider: String,
        }
        let url = self.tailnet_url(["posture", "integrations"]);
        let wire: Wire = self.get(INTEGRATIONS, &url).await?;
        let mut integrations = wire.integrations.into_iter().flatten();
        Ok(integrations.any(|integration| integration.provider == FALCON_PROVIDER))
    }

    /// Gets a device's posture attributes; `None` if the tailnet does not have the device (any more).
    ///
    /// # Errors
    /// A missing scope without `devices:posture_attributes:read`; or as for any call.
    pub(crate) async fn attributes(
        &self,
        node: &NodeId,
    ) -> Result<Option<HeldAttributes>, UpstreamError> {
        #[derive(Deserialize)]
        struct Wire {
            /// Never null or absent: a device has at least the attributes of `node:`.
            attributes: BTreeMap<String, Value>,
            /// Of the attributes that have an end.
            #[serde(default)]
            expiries: Option<BTreeMap<String, Value>>,
        }
        if !wire::is_node_id(&node.0) {
            return Ok(None);
        }
        let url = self.url(["device", &node.0, "attributes"]);
        if let Some(wire) = self.find(ATTRIBUTES, &url).await? {
            let Wire {
                attributes,
                expiries,
            } = wire;
            let expiries = expiries.unwrap_or_default();
            let held = attributes.into_iter().map(|(key, value)| {
                let expiry = expiries.get(&key).and_then(Value::as_str);
                let expiry = expiry.and_then(|expiry| expiry.parse().ok());
                (key, HeldAttribute { value, expiry })
            });
            return Ok(Some(HeldAttributes(held.collect())));
        }
        // A wrong 404 would mean that an existing device has no attributes, so the device is looked up.
        match self.device(node).await? {
            Some(_) => Err(ATTRIBUTES.rejected(404, "the device exists".to_owned())),
            None => Ok(None),
        }
    }
}

/// Parses the space-delimited scopes of a token response; `None` if there is no scope.
pub(super) fn parse_scopes(scope: &str) -> Option<BTreeSet<String>> {
    let scopes: BTreeSet<String> = scope
        .split_whitespace()
        .map(|scope| sanitize(scope, MAX_SCOPE_CHARS))
        .collect();
    (!scopes.is_empty()).then_some(scopes)
}
