//! The client against a scripted server, and decoding of bodies shaped like recorded ones.

mod count;
mod hostile;
mod listings;
mod lookups;

use serde_json::{Value, json};

use super::*;
use crate::domain::fetch::ranges::ranges;
use crate::domain::inventory::host::{Assessment, Score};
use crate::domain::inventory::platform::Platform;
use crate::domain::status::error_kind::ErrorKind;
use crate::testing::server::{Asked, Server, answer};
use crate::upstream::retry::tests::client;

const A: &str = "4a027b0c95404062be4148c989dcf4c1";
const B: &str = "4a027b0c95404062be4148c989dcf4c2";
const C: &str = "4a027b0c95404062be4148c989dcf4c3";

fn json(status: u16, body: &Value) -> Vec<u8> {
    answer(
        status,
        &["content-type: application/json"],
        body.to_string(),
    )
}

fn token() -> Vec<u8> {
    json(
        201,
        &json!({"access_token": "t0ken", "expires_in": 1799, "token_type": "bearer"}),
    )
}

fn page(pagination: &Value, resources: &Value) -> Vec<u8> {
    let meta = json!({"query_time": 0.01, "pagination": pagination, "trace_id": "61fdb7f7"});
    json(
        200,
        &json!({"meta": meta, "resources": resources, "errors": null}),
    )
}

fn scores(ids: &[&str], total: usize, after: &str) -> Vec<u8> {
    let resources: Vec<Value> = ids
        .iter()
        .map(|id| json!({"aid": id, "score": 19}))
        .collect();
    page(
        &json!({"limit": 1000, "total": total, "after": after}),
        &json!(resources),
    )
}

fn failure(status: u16, headers: &[&str], message: &str) -> Vec<u8> {
    let body = json!({"meta": {}, "errors": [{"code": status, "message": message}]});
    answer(status, headers, body.to_string())
}

/// Starts a server that issues tokens. A script gets the number of each other call (from 0) and returns the response.
fn server(script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static) -> Server {
    let calls = std::cell::Cell::new(0);
    Server::new(move |_, asked| {
        if asked.line == "POST /oauth2/token" {
            return token();
        }
        calls.set(calls.get() + 1);
        script(calls.get() - 1, asked)
    })
}

fn cloud(name: &str) -> CloudId {
    name.to_owned().try_into().unwrap()
}

fn credentials() -> FalconCredentials {
    FalconCredentials {
        client_id: "0123456789abcdef0123456789abcdef".to_owned(),
        client_secret: "s3cret".into(),
        member_cid: Some("87428E31806E4C879014212B2579686F-A1".to_owned()),
    }
}

async fn sign_in_to(servers: &[(&str, &Server)]) -> Result<Falcon, UpstreamError> {
    let clouds = servers
        .iter()
        .map(|(name, server)| (cloud(name), server.url.clone()))
        .collect();
    Falcon::sign_in(client(), &clouds, &cloud("us-1"), credentials()).await
}

async fn sign_in(server: &Server) -> Falcon {
    sign_in_to(&[("us-1", server)]).await.unwrap()
}

fn calls(server: &Server) -> Vec<String> {
    let mut lines = server.lines();
    lines.retain(|line| line.starts_with("GET"));
    lines
}

fn score(value: i64) -> Assessment {
    Assessment::Score(Score::new(value).unwrap())
}

/// Lists scores. Returns the number of calls, and the number of scores or the error.
async fn list_scores(
    script: impl Fn(usize, &Asked) -> Vec<u8> + Send + 'static,
) -> (usize, Result<usize, String>) {
    let server = server(script);
    let result = sign_in(&server).await.scores(&ranges(&[])).await;
    let result = result
        .map(|scores| scores.len())
        .map_err(|error| error_chain(&error));
    (calls(&server).len(), result)
}

#[tokio::test]
async fn the_token_form_holds_the_credentials_and_the_bare_account_id() {
    let server = server(|_, _| Vec::new());
    let falcon = sign_in(&server).await;
    assert_eq!(
        server.asked()[0].body,
        "client_id=0123456789abcdef0123456789abcdef&client_secret=s3cret\
         &member_cid=87428e31806e4c879014212b2579686f"
    );
    assert_eq!(falcon.cloud.as_str(), "us-1");
    let debug = format!("{falcon:?}");
    assert!(
        !debug.contains("s3cret") && !debug.contains("t0ken"),
        "{debug}"
    );
}

#[tokio::test]
async fn the_wrong_cloud_redirects_to_the_right_one() {
    let right = server(|_, _| scores(&[A], 1, ""));
    let location = format!("location: {}oauth2/token", right.url);
    let wrong = Server::new(move |_, _| answer(308, &[&location, "x-cs-region: us-2"], ""));
    let falcon = sign_in_to(&[("us-1", &wrong), ("us-2", &right)])
        .await
        .unwrap();
    assert_eq!(falcon.cloud.as_str(), "us-2");
    assert_eq!(falcon.scores(&ranges(&[])).await.unwrap().len(), 1);
    assert_eq!(wrong.asked().len(), 1);
    assert_eq!(right.asked().len(), 2);
}

#[tokio::test]
async fn the_secret_goes_to_no_unknown_cloud_and_no_second_redirect() {
    let elsewhere = server(|_, _| Vec::new());
    let location = format!("location: {}oauth2/token", elsewhere.url);
    let wrong = Server::new(move |_, _| answer(308, &[&location], ""));
    let error = sign_in_to(&[("us-1", &wrong)]).await.unwrap_err();
    assert!(error.remedy().contains("correct cloudId"), "{error}");
    assert!(elsewhere.asked().is_empty());

    let location = format!("location: {}oauth2/token", wrong.url);
    let first = Server::new(move |_, _| answer(308, &[&location], ""));
    let both = [("us-1", &first), ("us-2", &wrong), ("us-3", &elsewhere)];
    let error = sign_in_to(&both).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Configuration, "{error}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn an_unknown_cloud_is_named() {
    let server = server(|_, _| Vec::new());
    let error = sign_in_to(&[("eu-1", &server)]).await.unwrap_err();
    assert!(
        error_chain(&error).contains("this deployment has no CrowdStrike cloud us-1"),
        "{}",
        error_chain(&error)
    );
}

#[tokio::test]
async fn a_rejected_token_call_has_a_remedy_and_is_not_retried() {
    for (status, message, remedy) in [
        (
            400,
            "Failed to generate access token for clientID=0123456789abcdef0123456789abcdef.",
            "check clientId",
        ),
        (
            403,
            "Failed to issue access token - Not Authorized",
            "check clientId and clientSecret",
        ),
        (
            403,
            "Failed to generate access token for customer ID=\"x\"",
            "memberCid",
        ),
    ] {
        let server = Server::new(move |_, _| failure(status, &[], message));
        let error = sign_in_to(&[("us-1", &server)]).await.unwrap_err();
        let text = format!("{}; {}", error_chain(&error), error.remedy());
        assert!(
            error.error_kind().pauses() && text.contains(remedy),
            "{text}"
        );
        assert!(!text.contains("0123456789abcdef"), "{text}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn errors_that_resemble_a_rejected_credential_are_misconfigurations() {
    let not_on_list = |_, _: &Asked| failure(403, &[], "access denied, authorization failed");
    let elsewhere = |_, _: &Asked| answer(308, &["x-cs-region: us-9"], "");
    for (server, problem, remedy) in [
        (
            Server::new(not_on_list),
            "not on the account's API allow-list",
            "fixed one",
        ),
        (
            Server::new(elsewhere),
            "is in another CrowdStrike cloud, us-9",
            "correct cloudId",
        ),
    ] {
        let error = sign_in_to(&[("us-1", &server)]).await.unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Configuration);
        assert!(
            error_chain(&error).contains(problem),
            "{}",
            error_chain(&error)
        );
        assert!(error.remedy().contains(remedy), "{}", error.remedy());
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn the_token_call_is_retried_if_it_is_limited_or_fails() {
    let server = Server::new(|number, _| match number {
        0 => failure(429, &["x-ratelimit-limit: 300"], ""),
        1 => answer(503, &[], "<html>"),
        _ => token(),
    });
    sign_in(&server).await;
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let bad = |number, _: &Asked| match number {
        0 => failure(
            401,
            &["x-ratelimit-limit: 15"],
            "access denied, invalid bearer token",
        ),
        _ => scores(&[A], 1, ""),
    };
    assert_eq!(list_scores(bad).await, (2, Ok(1)));
    let limited = |number, _: &Asked| match number {
        0 => failure(429, &["x-ratelimit-limit: 15"], ""),
        _ => scores(&[A], 1, ""),
    };
    assert_eq!(list_scores(limited).await, (2, Ok(1)));
    // A 429 for bad tokens is not about the rate of calls.
    for refusal in [(401, "a: b"), (429, "x-ratelimit-limit: 15")] {
        let (calls, result) =
            list_scores(move |_, _| failure(refusal.0, &[refusal.1], "access denied")).await;
        assert_eq!(calls, 2);
        assert!(result.unwrap_err().contains("the credential was rejected"));
    }
}

#[tokio::test]
async fn each_rejected_call_has_a_message() {
    for (status, header, message, expect) in [
        (
            403,
            "a: b",
            "access denied, scope not permitted",
            "lacks the scope Zero Trust Assessment: Read",
        ),
        (
            403,
            "a: b",
            "access denied, authorization failed",
            "score listing failed (HTTP 403): the credential was rejected",
        ),
        (
            308,
            "x-cs-region: us-2",
            "",
            "the account is in another CrowdStrike cloud, us-2",
        ),
        (400, "a: b", "bad\nfilter", "(HTTP 400): bad filter"),
        (
            429,
            "x-ratelimit-retryafter: 1800000099",
            "",
            "until 2027-01-15T08:01:39Z",
        ),
        (
            429,
            "x-ratelimit-retryafter: 1800000099000",
            "",
            "until 2027-01-15T08:01:39Z",
        ),
    ] {
        let (calls, result) =
            list_scores(move |_, _| failure(status, &[header, "x-ratelimit-limit: 6000"], message))
                .await;
        let text = result.unwrap_err();
        assert!(text.contains(expect), "{text}");
        assert_eq!(calls, 1, "{text}");
    }
}

#[tokio::test]
async fn futures_are_send() {
    fn check(_: impl Send) {}
    let server = server(|_, _| Vec::new());
    let falcon = sign_in(&server).await;
    check(falcon.hosts());
    check(falcon.scores(&ranges(&[])));
    check(falcon.count_hosts());
    check(falcon.count_scores());
    check(falcon.hosts_matching(&BTreeSet::new(), &BTreeSet::new()));
    check(falcon.scores_of(&BTreeSet::new()));
}
