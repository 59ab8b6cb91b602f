//! Falcon's token call, and the cloud that it leads to.

use std::collections::BTreeMap;

use reqwest::header::LOCATION;
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret;

use crate::domain::status::error_kind::Service;
use crate::falcon::errors;
use crate::secrets::FalconCredentials;
use crate::settings::CloudId;
use crate::upstream::auth::{AccessToken, request_token};
use crate::upstream::client::{ApiClient, Response, endpoint};
use crate::upstream::error::{Operation, UpstreamError};

pub(super) const TOKEN: Operation = Operation::new(Service::Falcon, "token request", "");

/// Mints the first token, and returns it with its cloud. The wrong cloud responds with a 308 to the right one (recorded).
/// The redirect is followed once, and only to a cloud that the deployment knows, because the form holds the secret.
pub(super) async fn sign_in<'a>(
    client: &ApiClient,
    clouds: &'a BTreeMap<CloudId, Url>,
    cloud: &CloudId,
    credentials: &FalconCredentials,
) -> Result<(&'a CloudId, &'a Url, AccessToken), UpstreamError> {
    let (cloud, base) = clouds
        .get_key_value(cloud)
        .ok_or_else(|| errors::unknown_cloud(TOKEN, cloud))?;
    let response = request(client, base, credentials).await?;
    if response.status != StatusCode::PERMANENT_REDIRECT {
        return Ok((cloud, base, read_token(&response)?));
    }
    let (cloud, base) =
        redirect_target(clouds, &response).ok_or_else(|| errors::wrong_cloud(TOKEN, &response))?;
    Ok((cloud, base, mint(client, base, credentials).await?))
}

/// Mints another token at the cloud of the first one.
pub(super) async fn mint(
    client: &ApiClient,
    base: &Url,
    credentials: &FalconCredentials,
) -> Result<AccessToken, UpstreamError> {
    read_token(&request(client, base, credentials).await?)
}

/// Requests a token. A response is a success or a redirect.
async fn request(
    client: &ApiClient,
    base: &Url,
    credentials: &FalconCredentials,
) -> Result<Response, UpstreamError> {
    let member_cid = credentials.member_cid.as_deref().map(normalize_cid);
    let mut form = vec![
        ("client_id", credentials.client_id.as_str()),
        ("client_secret", credentials.client_secret.expose_secret()),
    ];
    form.extend(member_cid.as_deref().map(|cid| ("member_cid", cid)));
    request_token(client, TOKEN, &token_url(base), &form, |response| {
        // Falcon issues a token with 201, never with 200; both are accepted.
        if response.status.is_success() || response.status == StatusCode::PERMANENT_REDIRECT {
            Ok(response)
        } else {
            Err(errors::classify_token(TOKEN, &response))
        }
    })
    .await
}

fn read_token(response: &Response) -> Result<AccessToken, UpstreamError> {
    if response.status.is_success() {
        AccessToken::from_response(TOKEN, response)
    } else {
        Err(errors::classify_token(TOKEN, response))
    }
}

fn token_url(base: &Url) -> Url {
    endpoint(base, ["oauth2", "token"])
}

/// Returns the known cloud whose token URL is exactly the one in the response.
fn redirect_target<'a>(
    clouds: &'a BTreeMap<CloudId, Url>,
    response: &Response,
) -> Option<(&'a CloudId, &'a Url)> {
    let location: Url = response.header(LOCATION.as_str())?.parse().ok()?;
    clouds
        .iter()
        .find(|(_, cloud)| token_url(cloud) == location)
}

/// Normalizes an account id. The console shows it in upper case and with a checksum (`-XX`); the API takes neither.
fn normalize_cid(text: &str) -> String {
    let text = text.trim();
    let cid = text.split_once('-').map_or(text, |(cid, _)| cid);
    cid.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn an_account_id_is_accepted_as_the_console_shows_it() {
        let cid = "87428e31806e4c879014212b2579686f";
        assert_eq!(normalize_cid(" 87428E31806E4C879014212B2579686F-A1\n"), cid);
        assert_eq!(normalize_cid(cid), cid);
    }

    #[test]
    fn only_a_known_clouds_token_url_is_followed() {
        let clouds: BTreeMap<CloudId, Url> = [
            ("us-1", "https://api.crowdstrike.com"),
            ("us-2", "https://api.us-2.crowdstrike.com"),
        ]
        .map(|(id, url)| (id.to_owned().try_into().unwrap(), url.parse().unwrap()))
        .into();
        let to = |location: &'static str| {
            let response = Response {
                status: StatusCode::PERMANENT_REDIRECT,
                headers: HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]),
                received: Timestamp::UNIX_EPOCH,
                body: Vec::new(),
            };
            redirect_target(&clouds, &response).map(|(id, _)| id.to_string())
        };
        assert_eq!(
            to("https://api.us-2.crowdstrike.com/oauth2/token").as_deref(),
            Some("us-2")
        );
        for elsewhere in [
            "http://api.us-2.crowdstrike.com/oauth2/token",
            "https://api.us-2.crowdstrike.com.example.com/oauth2/token",
            "https://api.us-2.crowdstrike.com:8443/oauth2/token",
            "https://x@api.us-2.crowdstrike.com/oauth2/token",
            "https://api.us-2.crowdstrike.com/oauth2/token?to=x",
            "https://api.us-2.crowdstrike.com/oauth2/token/..",
            "https://api.us-3.crowdstrike.com/oauth2/token",
            "//example.com/oauth2/token",
            "/oauth2/token",
            "",
        ] {
            assert_eq!(to(elsewhere), None, "{elsewhere}");
        }
    }
}
