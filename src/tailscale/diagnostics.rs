//! What must be so in the tailnet before a sync can do anything: scopes and settings, and what a device's attributes
//! are. A run needs none of it; a diagnosis does.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::domain::inventory::device::NodeId;
use crate::tailscale::{Tailscale, errors, operation, wire};
use crate::text::sanitize;
use crate::upstream::client::Response;
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;

const SETTINGS: Operation = operation("the look-up of the settings", "feature_settings:read");
const INTEGRATIONS: Operation = operation(
    "the listing of posture integrations",
    "feature_settings:read",
);
const ATTRIBUTES: Operation = operation(
    "the look-up of attributes",
    "devices:posture_attributes:read",
);

/// No scope is a third as long.
const SCOPE_CHARS: usize = 100;

/// The provider of Tailscale's own CrowdStrike Falcon integration.
const FALCON: &str = "falcon";

impl Tailscale {
    /// The scopes that were granted at sign-in, such as `devices:posture_attributes`.
    ///
    /// Nothing where the token answer did not tell, or the credential is an API key, which has the rights of its user.
    /// A scope includes its own `:read`, and there are wider ones (`all`), so that a name is not in the list does not
    /// prove that the right is missing.
    pub fn scopes(&self) -> Option<BTreeSet<String>> {
        self.session.scopes.clone()
    }

    /// Whether Device Identity Collection is on in the tailnet (`postureIdentityCollectionOn`). While it is off, no
    /// device has a serial number.
    ///
    /// Nothing where the answer has no value for it. The schema lets it be null and does not say when; that this
    /// credential may not see it is likely, since other scopes each hide a setting of the same answer.
    ///
    /// # Errors
    /// [`UpstreamError::MissingScope`] without `feature_settings:read`; or as for any call.
    pub async fn identity_collection(&self) -> Result<Option<bool>, UpstreamError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            posture_identity_collection_on: Option<bool>,
        }
        let url = self.of_tailnet(&["settings"]);
        let reply = self.get(SETTINGS, &url, |_| false).await?;
        let wire: Wire = SETTINGS.decode(&reply.body)?;
        Ok(wire.posture_identity_collection_on)
    }

    /// Whether the tailnet has Tailscale's own CrowdStrike Falcon integration, which writes `falcon:ztaScore`, whatever
    /// state it is in.
    ///
    /// # Errors
    /// [`UpstreamError::MissingScope`] without `feature_settings:read`; or as for any call.
    pub async fn native_falcon(&self) -> Result<bool, UpstreamError> {
        #[derive(Deserialize)]
        struct Wire {
            /// Without a list, who knows what answered.
            #[serde(deserialize_with = "list")]
            integrations: Vec<ListedIntegration>,
        }
        #[derive(Deserialize)]
        struct ListedIntegration {
            provider: String,
        }
        fn list<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Vec<ListedIntegration>, D::Error> {
            // The API is known for `null` where the schema has something empty (tailscale#18253).
            Option::deserialize(deserializer).map(Option::unwrap_or_default)
        }
        let url = self.of_tailnet(&["posture", "integrations"]);
        let reply = self.get(INTEGRATIONS, &url, |_| false).await?;
        let wire: Wire = INTEGRATIONS.decode(&reply.body)?;
        Ok(wire
            .integrations
            .iter()
            .any(|integration| integration.provider == FALCON))
    }

    /// A device's posture attributes by key, those of all namespaces (`custom:`, `falcon:`, `node:`); nothing where the
    /// tailnet does not have the device (any more).
    ///
    /// The values are texts, numbers or booleans by the schema, as they came: untrusted until cleaned.
    ///
    /// # Errors
    /// [`UpstreamError::MissingScope`] without `devices:posture_attributes:read`; or as for any call.
    pub async fn attributes(
        &self,
        node: &NodeId,
    ) -> Result<Option<BTreeMap<String, Value>>, UpstreamError> {
        #[derive(Deserialize)]
        struct Wire {
            /// Never null or absent: a device has at least those of `node:`.
            attributes: BTreeMap<String, Value>,
        }
        if !wire::is_node_id(&node.0) {
            return Ok(None);
        }
        let url = self.session.url(["device", &node.0, "attributes"]);
        let reply = self.get(ATTRIBUTES, &url, errors::is_not_found).await?;
        if reply.status == StatusCode::NOT_FOUND {
            // That a device is gone must not be believed while it is there: what it holds would be taken for nothing.
            return match self.device(node).await? {
                Some(_) => Err(ATTRIBUTES.rejected(404, "the device is there".to_owned())),
                None => Ok(None),
            };
        }
        let wire: Wire = ATTRIBUTES.decode(&reply.body)?;
        Ok(Some(wire.attributes))
    }

    fn of_tailnet(&self, segments: &[&str]) -> Url {
        let tailnet = ["tailnet", self.session.tailnet.as_str()];
        self.session
            .url(tailnet.into_iter().chain(segments.iter().copied()))
    }

    async fn get(
        &self,
        operation: Operation,
        url: &Url,
        expects: fn(&Response) -> bool,
    ) -> Result<Response, UpstreamError> {
        let request = || self.session.http.request(Method::GET, url.clone());
        self.session.call(operation, request, expects).await
    }
}

/// The scopes of a token answer's space-delimited text; a text without any tells nothing.
pub(super) fn granted(scope: &str) -> Option<BTreeSet<String>> {
    let scopes: BTreeSet<String> = scope
        .split_whitespace()
        .map(|scope| sanitize(scope, SCOPE_CHARS))
        .collect();
    (!scopes.is_empty()).then_some(scopes)
}
