//! Access tokens: cached until they expire or are rejected, then replaced once.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::upstream::client::{ApiClient, Response};
use crate::upstream::error::{Operation, UpstreamError};

/// A token with less time left is replaced before a call, because the call and its retries take time.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(120);
/// A token response has a few hundred bytes at Tailscale, and some 1.2 kB at Falcon.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// An access token. Clones are the same token.
#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    secret: Arc<SecretString>,
    expires_at: Option<Timestamp>,
    /// The granted scopes, space-delimited, if the response had a text there. A response may leave them out (RFC 6749,
    /// section 5.1).
    pub(crate) scope: Option<Arc<str>>,
}

impl AccessToken {
    /// Returns `None` if the text cannot be a header value, for example because of a copied line feed.
    pub(crate) fn new(secret: SecretString, expires_at: Option<Timestamp>) -> Option<Self> {
        let text = secret.expose_secret();
        if text.is_empty() || HeaderValue::from_str(text).is_err() {
            return None;
        }
        Some(Self {
            secret: Arc::new(secret),
            expires_at,
            scope: None,
        })
    }

    pub(crate) fn from_response(
        operation: Operation,
        response: &Response,
    ) -> Result<Self, UpstreamError> {
        #[derive(Deserialize)]
        struct Wire {
            access_token: String,
            /// Seconds. Recorded: 1799 at Falcon, 3600 at Tailscale.
            expires_in: Option<u32>,
            /// Only diagnostics use the scope, so an invalid value does not invalidate the token.
            #[serde(default)]
            scope: Value,
        }
        let wire: Wire = operation.decode(&response.body)?;
        let expires_at = wire.expires_in.and_then(|seconds| {
            let lifetime = SignedDuration::from_secs(seconds.into());
            response.received.saturating_add(lifetime).ok()
        });
        let token = Self::new(SecretString::from(wire.access_token), expires_at)
            .ok_or_else(|| operation.protocol("the token is not a valid header value"))?;
        Ok(Self {
            scope: wire.scope.as_str().map(Arc::from),
            ..token
        })
    }

    /// Adds the token to a request, as a sensitive header.
    pub(crate) fn authorize(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.secret.expose_secret())
    }

    fn is_expiring(&self, now: Timestamp) -> bool {
        self.expires_at
            .is_some_and(|expiry| expiry.duration_since(now) < EXPIRY_MARGIN)
    }
}

/// Sends the form of a token call, with retries. `read` turns each response into a result.
pub(crate) async fn request_token<T>(
    client: &ApiClient,
    operation: Operation,
    url: &Url,
    form: &[(&str, &str)],
    read: impl Fn(Response) -> Result<T, UpstreamError>,
) -> Result<T, UpstreamError> {
    client
        .budget
        .retry(operation, || async {
            let request = client.request(Method::POST, url.clone()).form(form);
            read(client.send(request, operation, MAX_TOKEN_BYTES).await?)
        })
        .await
}

/// The token of a session; `None` after one was rejected and no other could be had.
#[derive(Debug)]
pub(crate) struct TokenCache(Mutex<Option<AccessToken>>);

impl TokenCache {
    pub(crate) fn new(token: AccessToken) -> Self {
        Self(Mutex::new(Some(token)))
    }

    /// Returns true if the token is known to be valid for the next calls. A token without an end is not.
    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        let ends_later =
            |token: &AccessToken| token.expires_at.is_some() && !token.is_expiring(now);
        let cached = self.0.try_lock();
        cached.is_ok_and(|cached| cached.as_ref().is_some_and(ends_later))
    }

    /// Makes a call, with retries. If the token is rejected, mints another one and repeats the call once. There is no
    /// third time: many requests with a bad token get an IP address blocked (elastic/beats#49453).
    pub(crate) async fn with_token<T, M, A>(
        &self,
        client: &ApiClient,
        operation: Operation,
        mint: impl Fn() -> M,
        attempt: impl Fn(AccessToken) -> A,
    ) -> Result<T, UpstreamError>
    where
        M: Future<Output = Result<AccessToken, UpstreamError>>,
        A: Future<Output = Result<T, UpstreamError>>,
    {
        let budget = &client.budget;
        let is_expiring = |cached: &AccessToken| cached.is_expiring(budget.clock.now());
        let token = self.get_or_refresh(is_expiring, &mint).await?;
        match budget.retry(operation, || attempt(token.clone())).await {
            Err(error) if error.is_token_rejected() => {
                let is_rejected = |cached: &AccessToken| Arc::ptr_eq(&cached.secret, &token.secret);
                let renewed = self.get_or_refresh(is_rejected, &mint).await?;
                budget.retry(operation, || attempt(renewed.clone())).await
            }
            result => result,
        }
    }

    /// Returns the cached token, replaced first if it is stale. The lock is held while minting: of several calls that
    /// find the token stale, one mints and the others use the new token.
    async fn get_or_refresh<M>(
        &self,
        is_stale: impl Fn(&AccessToken) -> bool,
        mint: impl Fn() -> M,
    ) -> Result<AccessToken, UpstreamError>
    where
        M: Future<Output = Result<AccessToken, UpstreamError>>,
    {
        let mut cached = self.0.lock().await;
        if let Some(token) = cached.take().filter(|token| !is_stale(token)) {
            *cached = Some(token.clone());
            return Ok(token);
        }
        let token = mint().await?;
        *cached = Some(token.clone());
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;
    use crate::domain::status::error_kind::Service;
    use crate::upstream::retry::tests::client;

    const PROBE: Operation = Operation::new(Service::Falcon, "a probe", "");

    fn token(text: &str, expires_at: Option<Timestamp>) -> AccessToken {
        AccessToken::new(SecretString::from(text), expires_at).unwrap()
    }

    #[tokio::test]
    async fn calls_with_a_rejected_token_share_one_new_token() {
        let client = client();
        let cache = TokenCache::new(token("old", None));
        let minted = Cell::new(0);
        let mint = || {
            minted.set(minted.get() + 1);
            async {
                tokio::task::yield_now().await;
                Ok(token("new", None))
            }
        };
        let attempt = |token: AccessToken| async move {
            tokio::task::yield_now().await;
            match token.secret.expose_secret() {
                "new" => Ok(()),
                _ => Err(PROBE.unauthorized(401, "")),
            }
        };
        let (a, b) = tokio::join!(
            cache.with_token(&client, PROBE, mint, attempt),
            cache.with_token(&client, PROBE, mint, attempt),
        );
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(minted.get(), 1);
    }

    #[tokio::test]
    async fn a_rejected_new_token_is_an_error() {
        let cache = TokenCache::new(token("old", None));
        let calls = Cell::new(0);
        let result: Result<(), _> = cache
            .with_token(
                &client(),
                PROBE,
                || ready(Ok(token("new", None))),
                |_| {
                    calls.set(calls.get() + 1);
                    ready(Err(PROBE.unauthorized(401, "")))
                },
            )
            .await;
        assert!(result.unwrap_err().error_kind().pauses());
        assert_eq!(calls.get(), 2);
    }

    #[tokio::test]
    async fn an_expiring_token_is_replaced_before_the_call() {
        let client = client();
        let expires_at = client.budget.clock.now() + SignedDuration::from_secs(119);
        let cache = TokenCache::new(token("old", Some(expires_at)));
        let used = cache
            .with_token(
                &client,
                PROBE,
                || ready(Ok(token("new", None))),
                |token| ready(Ok(token.secret.expose_secret().to_owned())),
            )
            .await;
        assert_eq!(used.unwrap(), "new");
    }

    #[tokio::test]
    async fn a_token_is_held_only_while_it_is_valid() {
        let client = client();
        let now = client.budget.clock.now();
        let ends_in = |seconds| Some(now + SignedDuration::from_secs(seconds));
        assert!(!TokenCache::new(token("old", None)).is_usable(now));
        assert!(!TokenCache::new(token("old", ends_in(119))).is_usable(now));
        let cache = TokenCache::new(token("old", ends_in(121)));
        assert!(cache.is_usable(now));
        let rejected = || ready(Err(PROBE.unauthorized(401, "")));
        let result: Result<(), _> = cache
            .with_token(&client, PROBE, rejected, |_| {
                ready(Err(PROBE.unauthorized(401, "")))
            })
            .await;
        assert!(result.is_err());
        assert!(!cache.is_usable(now), "a rejected token is dropped");
    }

    #[test]
    fn tokens_do_not_print() {
        assert!(!format!("{:?}", token("s3cret", None)).contains("s3cret"));
        assert!(AccessToken::new(SecretString::from("tskey\n"), None).is_none());
    }
}
