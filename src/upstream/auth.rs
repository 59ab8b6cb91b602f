//! A bearer token that is used until it ends or is refused, and the one new one that is minted then.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::upstream::client::Response;
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::{CallBudget, retry};

/// A token with less time left than this is replaced before a call: the call and its repetitions take time.
const MARGIN: SignedDuration = SignedDuration::from_secs(120);

/// An access token. Clones are the same token.
#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    secret: Arc<SecretString>,
    ends: Option<Timestamp>,
    /// The scopes that were granted, as the `scope` of the token response.
    scope: Option<Arc<str>>,
}

impl AccessToken {
    /// Nothing where the text cannot be a header's value (a line feed copied along, for one).
    pub(crate) fn new(secret: SecretString, ends: Option<Timestamp>) -> Option<Self> {
        let text = secret.expose_secret();
        if text.is_empty() || HeaderValue::from_str(text).is_err() {
            return None;
        }
        Some(Self {
            secret: Arc::new(secret),
            ends,
            scope: None,
        })
    }

    /// Reads the answer of a token call.
    pub(crate) fn from_reply(
        operation: Operation,
        reply: &Response,
        now: Timestamp,
    ) -> Result<Self, UpstreamError> {
        #[derive(Deserialize)]
        struct Wire {
            access_token: String,
            /// Seconds. Recorded: 1799 of Falcon, 3600 of Tailscale.
            expires_in: Option<u32>,
            /// Nothing depends on it but a diagnosis, so no form of it costs the token.
            #[serde(default)]
            scope: Value,
        }
        let wire: Wire = operation.decode(&reply.body)?;
        let ends = wire
            .expires_in
            .map(|seconds| now.saturating_add(SignedDuration::from_secs(seconds.into())))
            .transpose()
            .ok()
            .flatten();
        let token = Self::new(SecretString::from(wire.access_token), ends)
            .ok_or_else(|| operation.protocol("the token is not fit for a header"))?;
        Ok(Self {
            scope: wire.scope.as_str().map(Arc::from),
            ..token
        })
    }

    /// The scopes granted with it, space-delimited, where the answer had a text there. An answer may leave them out
    /// (RFC 6749, section 5.1).
    pub(crate) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Puts the token on a request; the header is marked as sensitive.
    pub(crate) fn authorize(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.secret.expose_secret())
    }

    fn is_ending(&self, now: Timestamp) -> bool {
        self.ends
            .is_some_and(|ends| ends.duration_since(now) < MARGIN)
    }
}

/// The outcome of a call with a token.
#[derive(Debug)]
pub(crate) enum TokenOutcome<T> {
    /// The token was accepted.
    Good(T),
    /// The token is not accepted (any more). The error counts if a new token fares no better.
    BadBearer(UpstreamError),
}

/// The token that a client holds.
#[derive(Debug)]
pub(crate) struct TokenCache(Mutex<AccessToken>);

impl TokenCache {
    pub(crate) fn holding(token: AccessToken) -> Self {
        Self(Mutex::new(token))
    }

    /// Makes a call (with its retries); if the token turns out to be refused, mints another and makes it once more.
    /// Never a third time: many requests with a bad token get an IP address blocked (elastic/beats#49453).
    pub(crate) async fn call<T, M, A>(
        &self,
        budget: &CallBudget,
        operation: Operation,
        mint: impl Fn() -> M,
        attempt: impl Fn(AccessToken) -> A,
    ) -> Result<T, UpstreamError>
    where
        M: Future<Output = Result<AccessToken, UpstreamError>>,
        A: Future<Output = Result<TokenOutcome<T>, UpstreamError>>,
    {
        let token = self
            .unless(|held| held.is_ending(budget.now()), &mint)
            .await?;
        match retry(budget, operation, || attempt(token.clone())).await? {
            TokenOutcome::Good(value) => return Ok(value),
            TokenOutcome::BadBearer(_) => {}
        }
        let token = self
            .unless(|held| Arc::ptr_eq(&held.secret, &token.secret), &mint)
            .await?;
        match retry(budget, operation, || attempt(token.clone())).await? {
            TokenOutcome::Good(value) => Ok(value),
            TokenOutcome::BadBearer(error) => Err(error),
        }
    }

    /// The held token, replaced first where it is `stale`. The lock is held while minting: of several calls that find
    /// it stale, one mints and the others use the new one.
    async fn unless<M>(
        &self,
        stale: impl Fn(&AccessToken) -> bool,
        mint: impl Fn() -> M,
    ) -> Result<AccessToken, UpstreamError>
    where
        M: Future<Output = Result<AccessToken, UpstreamError>>,
    {
        let mut held = self.0.lock().await;
        if stale(&held) {
            *held = mint().await?;
        }
        Ok(held.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;
    use crate::domain::status::error_kind::Service;
    use crate::upstream::retry::tests::budget;

    const PROBE: Operation = Operation {
        side: Service::Falcon,
        name: "a probe",
        scope: "",
    };

    fn token(text: &str, ends: Option<Timestamp>) -> AccessToken {
        AccessToken::new(SecretString::from(text), ends).unwrap()
    }

    #[tokio::test]
    async fn calls_that_find_the_token_refused_share_one_new_one() {
        let budget = budget();
        let bearer = TokenCache::holding(token("old", None));
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
            Ok(match token.secret.expose_secret() {
                "new" => TokenOutcome::Good(()),
                _ => TokenOutcome::BadBearer(PROBE.refused(401, "")),
            })
        };
        let (a, b) = tokio::join!(
            bearer.call(&budget, PROBE, mint, attempt),
            bearer.call(&budget, PROBE, mint, attempt),
        );
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(minted.get(), 1);
    }

    #[tokio::test]
    async fn a_refused_new_token_ends_it() {
        let bearer = TokenCache::holding(token("old", None));
        let made = Cell::new(0);
        let result: Result<(), _> = bearer
            .call(
                &budget(),
                PROBE,
                || ready(Ok(token("new", None))),
                |_| {
                    made.set(made.get() + 1);
                    ready(Ok(TokenOutcome::BadBearer(PROBE.refused(401, ""))))
                },
            )
            .await;
        assert!(result.unwrap_err().kind().pauses());
        assert_eq!(made.get(), 2);
    }

    #[tokio::test]
    async fn a_token_about_to_end_is_replaced_before_the_call() {
        let budget = budget();
        let ends = budget.now() + SignedDuration::from_secs(119);
        let bearer = TokenCache::holding(token("old", Some(ends)));
        let used = bearer
            .call(
                &budget,
                PROBE,
                || ready(Ok(token("new", None))),
                |token| {
                    ready(Ok(TokenOutcome::Good(
                        token.secret.expose_secret().to_owned(),
                    )))
                },
            )
            .await;
        assert_eq!(used.unwrap(), "new");
    }

    #[test]
    fn tokens_do_not_print() {
        assert!(!format!("{:?}", token("s3cret", None)).contains("s3cret"));
        assert!(AccessToken::new(SecretString::from("tskey\n"), None).is_none());
    }
}
