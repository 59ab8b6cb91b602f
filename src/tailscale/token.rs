//! Tailscale's token call. An API key is its own token.

use reqwest::{Method, Url};
use secrecy::ExposeSecret;

use crate::domain::status::error_kind::Service;
use crate::secrets::TailscaleCredentials;
use crate::tailscale::errors;
use crate::upstream::auth::AccessToken;
use crate::upstream::client::{HttpClient, endpoint};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::{CallBudget, retry};

const TOKEN: Operation = Operation {
    side: Service::Tailscale,
    name: "the token call",
    scope: "",
};

/// A token answer is a few hundred bytes.
const TOKEN_CAP: usize = 64 << 10;

const MALFORMED_KEY: &str = "the API key holds characters that no key has; store it again";

/// A token for these credentials. A refusal is final: one attempt.
pub(super) async fn mint(
    http: &HttpClient,
    base: &Url,
    credentials: &TailscaleCredentials,
    budget: &CallBudget,
) -> Result<AccessToken, UpstreamError> {
    let (client_id, client_secret) = match credentials {
        TailscaleCredentials::ApiKey(key) => {
            return AccessToken::new(key.clone(), None)
                .ok_or_else(|| TOKEN.refused(401, MALFORMED_KEY));
        }
        TailscaleCredentials::OAuth {
            client_id,
            client_secret,
        } => (client_id.as_str(), client_secret.expose_secret()),
    };
    let url = endpoint(base, ["api", "v2", "oauth", "token"]);
    // Without a grant_type, as in Tailscale's own documentation.
    let form = [("client_id", client_id), ("client_secret", client_secret)];
    retry(budget, TOKEN, || async {
        let request = http.request(Method::POST, url.clone()).form(&form);
        let reply = http.send(request, TOKEN, TOKEN_CAP, budget).await?;
        if reply.status.is_success() {
            AccessToken::from_reply(TOKEN, &reply, budget.now())
        } else {
            Err(errors::classify_token(TOKEN, &reply))
        }
    })
    .await
}
