//! Falcon's token call, and the cloud that it leads to.

use std::collections::BTreeMap;

use reqwest::header::LOCATION;
use reqwest::{Method, StatusCode, Url};
use secrecy::ExposeSecret;

use crate::domain::status::error_kind::Service;
use crate::falcon::errors;
use crate::secrets::FalconCredentials;
use crate::settings::CloudId;
use crate::upstream::auth::AccessToken;
use crate::upstream::client::{HttpClient, Response, endpoint};
use crate::upstream::error::UpstreamError;
use crate::upstream::operation::Operation;
use crate::upstream::retry::{CallBudget, retry};

pub(super) const TOKEN: Operation = Operation {
    side: Service::Falcon,
    name: "the token call",
    scope: "",
};

/// A token answer is some 1.2 kB.
const TOKEN_CAP: usize = 64 << 10;

/// A cloud, and the token minted there.
pub(super) struct SignedIn {
    pub(super) cloud: CloudId,
    pub(super) base: Url,
    pub(super) token: AccessToken,
}

/// Mints the first token. The wrong cloud answers with a 308 to the right one (recorded): it is followed once, and only
/// to a cloud that the deployment knows, since the form that goes there holds the secret.
pub(super) async fn sign_in(
    http: &HttpClient,
    clouds: &BTreeMap<CloudId, Url>,
    cloud: &CloudId,
    credentials: &FalconCredentials,
    budget: &CallBudget,
) -> Result<SignedIn, UpstreamError> {
    let base = clouds
        .get(cloud)
        .ok_or_else(|| errors::unknown_cloud(TOKEN, cloud))?;
    let reply = ask(http, base, credentials, budget).await?;
    let (cloud, base, reply) = if reply.status == StatusCode::PERMANENT_REDIRECT {
        let (cloud, base) =
            redirected(clouds, &reply).ok_or_else(|| errors::wrong_cloud(TOKEN, &reply))?;
        (cloud, base, ask(http, base, credentials, budget).await?)
    } else {
        (cloud, base, reply)
    };
    Ok(SignedIn {
        cloud: cloud.clone(),
        base: base.clone(),
        token: read(&reply, budget)?,
    })
}

/// Mints another token where the first one came from.
pub(super) async fn mint(
    http: &HttpClient,
    base: &Url,
    credentials: &FalconCredentials,
    budget: &CallBudget,
) -> Result<AccessToken, UpstreamError> {
    read(&ask(http, base, credentials, budget).await?, budget)
}

/// Asks for a token; an answer is a token or a redirect.
async fn ask(
    http: &HttpClient,
    base: &Url,
    credentials: &FalconCredentials,
    budget: &CallBudget,
) -> Result<Response, UpstreamError> {
    let url = url(base);
    let member = credentials.member_cid.as_deref().map(member_cid);
    let mut form = vec![
        ("client_id", credentials.client_id.as_str()),
        ("client_secret", credentials.client_secret.expose_secret()),
    ];
    form.extend(member.as_deref().map(|cid| ("member_cid", cid)));
    retry(budget, TOKEN, || async {
        let request = http.request(Method::POST, url.clone()).form(&form);
        let reply = http.send(request, TOKEN, TOKEN_CAP, budget).await?;
        // A token comes with 201, never with 200; either is taken.
        if reply.status.is_success() || reply.status == StatusCode::PERMANENT_REDIRECT {
            Ok(reply)
        } else {
            Err(errors::classify_token(TOKEN, &reply))
        }
    })
    .await
}

fn read(reply: &Response, budget: &CallBudget) -> Result<AccessToken, UpstreamError> {
    if reply.status.is_success() {
        AccessToken::from_reply(TOKEN, reply, budget.now())
    } else {
        Err(errors::classify_token(TOKEN, reply))
    }
}

fn url(base: &Url) -> Url {
    endpoint(base, ["oauth2", "token"])
}

/// The known cloud whose token URL is exactly the one that the answer names.
fn redirected<'a>(
    clouds: &'a BTreeMap<CloudId, Url>,
    reply: &Response,
) -> Option<(&'a CloudId, &'a Url)> {
    let location: Url = reply.headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
    clouds.iter().find(|(_, cloud)| url(cloud) == location)
}

/// The console shows account ids in upper case and with a checksum (`-XX`); the API takes neither.
fn member_cid(text: &str) -> String {
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
    fn an_account_id_is_taken_as_the_console_shows_it() {
        let cid = "87428e31806e4c879014212b2579686f";
        assert_eq!(member_cid(" 87428E31806E4C879014212B2579686F-A1\n"), cid);
        assert_eq!(member_cid(cid), cid);
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
            let reply = Response {
                status: StatusCode::PERMANENT_REDIRECT,
                headers: HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]),
                received: Timestamp::UNIX_EPOCH,
                body: Vec::new(),
            };
            redirected(&clouds, &reply).map(|(id, _)| id.to_string())
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
