//! Tailscale's token call. An API key is its own token.

use reqwest::Url;
use secrecy::ExposeSecret;

use crate::secrets::TailscaleCredentials;
use crate::tailscale::{errors, operation};
use crate::upstream::auth::{AccessToken, request_token};
use crate::upstream::client::{ApiClient, endpoint};
use crate::upstream::error::{Operation, UpstreamError};

const TOKEN: Operation = operation("token request", "");

const MALFORMED_KEY: &str = "the API key has invalid characters; store it again";

/// Returns a token for these credentials. A rejected credential is not retried.
pub(super) async fn mint(
    client: &ApiClient,
    base: &Url,
    credentials: &TailscaleCredentials,
) -> Result<AccessToken, UpstreamError> {
    let (client_id, client_secret) = match credentials {
        TailscaleCredentials::ApiKey(key) => {
            return AccessToken::new(key.clone(), None)
                .ok_or_else(|| TOKEN.unauthorized(401, MALFORMED_KEY));
        }
        TailscaleCredentials::OAuth {
            client_id,
            client_secret,
        } => (client_id.as_str(), client_secret.expose_secret()),
    };
    let url = endpoint(base, ["api", "v2", "oauth", "token"]);
    // Tailscale's own documentation sends no grant_type.
    let form = [("client_id", client_id), ("client_secret", client_secret)];
    request_token(client, TOKEN, &url, &form, |response| {
        if response.status.is_success() {
            AccessToken::from_response(TOKEN, &response)
        } else {
            Err(errors::classify_token(TOKEN, &response))
        }
    })
    .await
}
