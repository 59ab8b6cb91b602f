//! Tailscale's API: devices and their posture attributes.
//!
//! Reading and writing are two types: only [`Tailscale::writer`] gives access to writes, and a dry run does not call it.

mod diagnostics;
mod errors;
mod policy;
#[cfg(test)]
mod tests;
mod token;
mod wire;
mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::status::error_kind::Service;
use crate::secrets::TailscaleCredentials;
use crate::settings::Tailnet;
use crate::upstream::auth::{AccessToken, TokenCache};
use crate::upstream::client::{ApiClient, Response, endpoint};
use crate::upstream::error::{Operation, UpstreamError};
use crate::upstream::sessions::Session;

pub use crate::tailscale::policy::Policy;
pub use crate::tailscale::writer::WriteLimits;
pub(crate) use crate::tailscale::writer::{AttributeWrite, SetAttribute, TailscaleWriter};

const DEVICE_LISTING: Operation = operation("device listing", "devices:core:read");
const DEVICE_LOOK_UP: Operation = operation("device lookup", "devices:core:read");

/// Maximum bytes of the device listing, which has no pages: some 145,000 devices of 1.8 kB.
const MAX_LISTING_BYTES: usize = 256 << 20;
/// Maximum bytes of any other response, such as one device.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

const fn operation(name: &'static str, scope: &'static str) -> Operation {
    Operation::new(Service::Tailscale, name, scope)
}

/// A session with the Tailscale API that only reads.
#[derive(Debug)]
pub struct Tailscale {
    client: ApiClient,
    base: Url,
    tailnet: Tailnet,
    credentials: TailscaleCredentials,
    token: Arc<TokenCache>,
    /// The scopes of the first token, such as `devices:posture_attributes`. A later token of the same credential has the same
    /// scopes. `None` if the token response had none, or for an API key, which has the rights of its user. A scope includes
    /// its own `:read`, and wider scopes exist (`all`): a missing name does not prove a missing right.
    pub(crate) scopes: Option<BTreeSet<String>>,
}

/// A token and its scopes. Clones share the token.
#[derive(Clone, Debug)]
pub(crate) struct TailscaleSession {
    token: Arc<TokenCache>,
    scopes: Option<BTreeSet<String>>,
}

impl Session for TailscaleSession {
    fn is_usable(&self, now: Timestamp) -> bool {
        self.token.is_usable(now)
    }
}

impl Tailscale {
    /// Signs in. With an API key this makes no call, and the first read tells whether the key is valid.
    ///
    /// # Errors
    /// If the credentials are rejected or no response arrived.
    pub async fn sign_in(
        client: ApiClient,
        base: &Url,
        tailnet: &Tailnet,
        credentials: TailscaleCredentials,
    ) -> Result<Self, UpstreamError> {
        let token = token::mint(&client, base, &credentials).await?;
        let session = TailscaleSession {
            scopes: token.scope.as_deref().and_then(diagnostics::parse_scopes),
            token: Arc::new(TokenCache::new(token)),
        };
        Ok(Self::resume(client, base, tailnet, session, credentials))
    }

    /// Goes on with a session that was signed in with the same credentials. Makes no call.
    pub(crate) fn resume(
        client: ApiClient,
        base: &Url,
        tailnet: &Tailnet,
        session: TailscaleSession,
        credentials: TailscaleCredentials,
    ) -> Self {
        let TailscaleSession { token, scopes } = session;
        Self {
            client,
            base: base.clone(),
            tailnet: tailnet.clone(),
            credentials,
            token,
            scopes,
        }
    }

    pub(crate) fn session(&self) -> TailscaleSession {
        TailscaleSession {
            token: Arc::clone(&self.token),
            scopes: self.scopes.clone(),
        }
    }

    /// Lists all devices of the tailnet with their posture identities.
    ///
    /// # Errors
    /// If the listing is incomplete or does not decode.
    pub async fn devices(&self) -> Result<Devices, UpstreamError> {
        let mut url = self.tailnet_url(["devices"]);
        // The default fields lack the posture identity.
        url.set_query(Some("fields=all"));
        let attempt = |token: AccessToken| {
            let request = token.authorize(self.client.request(Method::GET, url.clone()));
            let classify = |operation, response: &Response| {
                errors::classify(operation, response, self.scopes.as_ref())
            };
            self.client.stream::<wire::Listing>(
                request,
                DEVICE_LISTING,
                MAX_LISTING_BYTES,
                classify,
            )
        };
        self.authorized(&self.client, DEVICE_LISTING, attempt)
            .await
            .map(wire::devices)
            .map_err(|error| errors::no_tailnet(DEVICE_LISTING, error))
    }

    /// Gets one device; `None` if the tailnet does not have it (any more).
    pub(crate) async fn device(&self, id: &NodeId) -> Result<Option<Device>, UpstreamError> {
        if !wire::is_node_id(&id.0) {
            return Ok(None);
        }
        let mut url = self.url(["device", &id.0]);
        url.set_query(Some("fields=all"));
        let Some(device) = self.find::<wire::WireDevice>(DEVICE_LOOK_UP, &url).await? else {
            return Ok(None);
        };
        let unusable = || DEVICE_LOOK_UP.protocol("the device has no usable id");
        device.into_device().ok_or_else(unusable).map(Some)
    }

    /// Returns a URL of the API; the segments are encoded.
    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        endpoint(&self.base, ["api", "v2"].into_iter().chain(segments))
    }

    fn tailnet_url<'a>(&'a self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let tailnet = ["tailnet", self.tailnet.as_str()];
        self.url(tailnet.into_iter().chain(segments))
    }

    /// Makes a call with the cached token, or with a new one, within the budget of `client`.
    async fn authorized<T, A>(
        &self,
        client: &ApiClient,
        operation: Operation,
        attempt: impl Fn(AccessToken) -> A,
    ) -> Result<T, UpstreamError>
    where
        A: Future<Output = Result<T, UpstreamError>>,
    {
        let mint = || token::mint(&self.client, &self.base, &self.credentials);
        self.token
            .with_token(client, operation, mint, attempt)
            .await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        operation: Operation,
        url: &Url,
    ) -> Result<T, UpstreamError> {
        let request = || self.client.request(Method::GET, url.clone());
        let response = self.call(&self.client, operation, request, |_| false);
        let response = response.await?;
        operation.decode(&response.body)
    }

    /// Gets an item of the tailnet; `None` if it does not exist (any more).
    async fn find<T: DeserializeOwned>(
        &self,
        operation: Operation,
        url: &Url,
    ) -> Result<Option<T>, UpstreamError> {
        let request = || self.client.request(Method::GET, url.clone());
        let response = self.call(&self.client, operation, request, errors::is_not_found);
        let response = response.await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        operation.decode(&response.body).map(Some)
    }

    /// Makes a call within the budget of `client`. An unsuccessful response is an error, unless `is_expected` accepts it.
    async fn call(
        &self,
        client: &ApiClient,
        operation: Operation,
        request: impl Fn() -> RequestBuilder,
        is_expected: fn(&Response) -> bool,
    ) -> Result<Response, UpstreamError> {
        let attempt = |token: AccessToken| {
            let request = token.authorize(request());
            async move {
                let response = client.send(request, operation, MAX_RESPONSE_BYTES).await?;
                if response.status.is_success() || is_expected(&response) {
                    Ok(response)
                } else {
                    Err(errors::classify(operation, &response, self.scopes.as_ref()))
                }
            }
        };
        self.authorized(client, operation, attempt).await
    }
}
