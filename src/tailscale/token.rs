//! Tailscale's token call. An API key is its own token.

use reqwest::{Method, Url};
use secrecy::ExposeSecret;

use crate::domain::status::error_kind::Service;
use crate::secrets::TailscaleCredentials;
use crate::tailscale::errors;
use crate::upstream::auth::Token;
use crate::upstream::client::{Http, endpoint};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::{Budget, retry};

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
    http: &Http,
    base: &Url,
    credentials: &TailscaleCredentials,
    budget: &Budget,
) -> Result<Token, UpstreamError> {
    let (client_id, client_secret) = match credentials {
        TailscaleCredentials::ApiKey(key) => {
            return Token::new(key.clone(), None).ok_or_else(|| TOKEN.refused(401, MALFORMED_KEY));
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
            Token::from_reply(TOKEN, &reply, budget.now())
        } else {
            Err(errors::classify_token(TOKEN, &reply))
        }
    })
    .await
}
