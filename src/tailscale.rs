//! Tailscale's API: devices and their posture attributes.
//!
//! Reading and writing are two types. A preview is given [`Tailscale`] and never asks it for its writer, so there is no
//! write that it could make by mistake.

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

use reqwest::{Method, RequestBuilder, StatusCode, Url};

use crate::domain::inventory::device::{Device, Devices, NodeId};
use crate::domain::status::error_kind::Service;
use crate::secrets::TailscaleCredentials;
use crate::settings::Tailnet;
use crate::upstream::auth::{AccessToken, TokenCache, TokenOutcome};
use crate::upstream::client::{HttpClient, Response, Streamed, endpoint};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::CallBudget;

pub use crate::tailscale::policy::Policy;
pub use crate::tailscale::writer::{AttributeWrite, TailscaleWriter, WriteLimits, WriteResult};

const DEVICE_LISTING: Operation = operation("the device listing", "devices:core:read");
const DEVICE_LOOK_UP: Operation = operation("the device look-up", "devices:core:read");

/// The listing has no pages; at 1.8 kB a device, this is some 145,000.
const LISTING_CAP: usize = 256 << 20;
/// One device, or the answer to a write.
const REPLY_CAP: usize = 1 << 20;

const fn operation(name: &'static str, scope: &'static str) -> Operation {
    Operation {
        side: Service::Tailscale,
        name,
        scope,
    }
}

/// A session with the Tailscale API that reads. Clones are the same session.
#[derive(Clone, Debug)]
pub struct Tailscale {
    session: Arc<Session>,
}

#[derive(Debug)]
struct Session {
    http: HttpClient,
    base: Url,
    tailnet: Tailnet,
    credentials: TailscaleCredentials,
    budget: CallBudget,
    bearer: TokenCache,
    /// Granted with the first token; a later one of the same credential has the same.
    scopes: Option<BTreeSet<String>>,
}

impl Tailscale {
    /// Signs in. With an API key this calls nobody, and the first read tells whether the key is good.
    ///
    /// # Errors
    /// When the credentials are refused or no answer came.
    pub async fn sign_in(
        http: HttpClient,
        base: &Url,
        tailnet: &Tailnet,
        credentials: TailscaleCredentials,
        budget: CallBudget,
    ) -> Result<Self, UpstreamError> {
        let token = token::mint(&http, base, &credentials, &budget).await?;
        let scopes = token.scope().and_then(diagnostics::granted);
        Ok(Self {
            session: Arc::new(Session {
                http,
                base: base.clone(),
                tailnet: tailnet.clone(),
                credentials,
                budget,
                bearer: TokenCache::holding(token),
                scopes,
            }),
        })
    }

    /// All devices of the tailnet with their posture identities.
    ///
    /// # Errors
    /// When the listing did not come whole, or does not decode.
    pub async fn devices(&self) -> Result<Devices, UpstreamError> {
        let session = &*self.session;
        let mut url = session.url(["tailnet", session.tailnet.as_str(), "devices"]);
        // The default fields lack the posture identity.
        url.set_query(Some("fields=all"));
        let attempt = |token: AccessToken| session.list(token, url.clone());
        let devices = session.authorized(DEVICE_LISTING, attempt).await;
        devices.map_err(|error| errors::no_tailnet(DEVICE_LISTING, error))
    }

    /// One device; nothing where the tailnet does not have it (any more).
    ///
    /// # Errors
    /// When the look-up failed.
    pub async fn device(&self, id: &NodeId) -> Result<Option<Device>, UpstreamError> {
        if !wire::is_node_id(&id.0) {
            return Ok(None);
        }
        let mut url = self.session.url(["device", &id.0]);
        url.set_query(Some("fields=all"));
        let request = || self.session.http.request(Method::GET, url.clone());
        let reply = self
            .session
            .call(DEVICE_LOOK_UP, request, errors::is_not_found)
            .await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let device: wire::WireDevice = DEVICE_LOOK_UP.decode(&reply.body)?;
        device
            .device()
            .map(Some)
            .ok_or_else(|| DEVICE_LOOK_UP.protocol("the device has no usable id"))
    }

    /// The right to write, for those who apply a plan.
    pub fn writer(&self) -> TailscaleWriter {
        TailscaleWriter::new(Arc::clone(&self.session))
    }
}

impl Session {
    /// A URL of the API; the segments are encoded.
    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        endpoint(&self.base, ["api", "v2"].into_iter().chain(segments))
    }

    /// Calls with a token, a new one if need be.
    async fn authorized<T, A>(
        &self,
        operation: Operation,
        attempt: impl Fn(AccessToken) -> A,
    ) -> Result<T, UpstreamError>
    where
        A: Future<Output = Result<TokenOutcome<T>, UpstreamError>>,
    {
        let mint = || token::mint(&self.http, &self.base, &self.credentials, &self.budget);
        self.bearer
            .call(&self.budget, operation, mint, attempt)
            .await
    }

    /// Makes a call. An unsuccessful answer is an error, unless the caller `expects` it.
    async fn call(
        &self,
        operation: Operation,
        request: impl Fn() -> RequestBuilder,
        expects: fn(&Response) -> bool,
    ) -> Result<Response, UpstreamError> {
        let attempt = |token: AccessToken| {
            let request = token.authorize(request());
            async move {
                let reply = self
                    .http
                    .send(request, operation, REPLY_CAP, &self.budget)
                    .await?;
                if reply.status.is_success() || expects(&reply) {
                    Ok(TokenOutcome::Good(reply))
                } else {
                    unsuccessful(operation, &reply)
                }
            }
        };
        self.authorized(operation, attempt).await
    }

    async fn list(
        &self,
        token: AccessToken,
        url: Url,
    ) -> Result<TokenOutcome<Devices>, UpstreamError> {
        let request = token.authorize(self.http.request(Method::GET, url));
        let answer = self
            .http
            .stream::<wire::Listing>(request, DEVICE_LISTING, LISTING_CAP, &self.budget)
            .await?;
        match answer {
            Streamed::List(kept) => Ok(TokenOutcome::Good(wire::devices(kept))),
            Streamed::Other(reply) => unsuccessful(DEVICE_LISTING, &reply),
        }
    }
}

/// Sorts a refused token from all other refusals.
fn unsuccessful<T>(
    operation: Operation,
    reply: &Response,
) -> Result<TokenOutcome<T>, UpstreamError> {
    let error = errors::classify(operation, reply);
    if reply.status == StatusCode::UNAUTHORIZED {
        Ok(TokenOutcome::BadBearer(error))
    } else {
        Err(error)
    }
}
