//! Tokens, clouds, scopes, the budget, and the rules common to all calls.

use std::io::Read as _;
use std::time::Duration;

use posture_simulators::Account;
use posture_simulators::falcon::RetryAfterUnit;
use serde_json::{Value, json};

use super::{ASSESSMENTS, HOSTS, SCORES, client, credentials, sims};
use crate::client::{Client, form, request};

#[tokio::test]
async fn tokens_are_rejected_as_recorded() {
    let (sims, _) = sims(0).await;
    let base = sims.falcon_url("us-1");
    let account = Account::new("corp");
    let ask = async |body: String| form(&base, "/oauth2/token", &body).await;

    let malformed = ask("client_id=not-valid&client_secret=x".to_owned()).await;
    assert_eq!(
        (malformed.status, malformed.message().as_str()),
        (
            400,
            "Failed to generate access token for clientID=not-valid."
        )
    );
    let wrong = ask(format!("client_id={}&client_secret=x", account.client_id)).await;
    assert_eq!(wrong.status, 403);
    assert!(
        wrong
            .message()
            .starts_with("Failed to issue access token - Client authentication failed")
    );
    let member = ask(format!("{}&member_cid=ff", credentials(&account))).await;
    assert_eq!(
        (member.status, member.message().as_str()),
        (
            403,
            "Failed to generate access token for customer ID=\"ff\""
        )
    );
    sims.falcon().put_account(Account {
        ip_allowed: false,
        ..account.clone()
    });
    let address = ask(credentials(&account)).await;
    assert_eq!(
        (address.status, address.message().as_str()),
        (403, "access denied, authorization failed")
    );
    assert_eq!(address.header("x-ratelimit-limit"), "300");
}

#[tokio::test]
async fn the_wrong_cloud_answers_308_without_a_body() {
    let (sims, _) = sims(0).await;
    let account = Account::new("west").region("us-2");
    sims.falcon().put_account(account.clone());

    let moved = form(
        &sims.falcon_url("us-1"),
        "/oauth2/token",
        &credentials(&account),
    )
    .await;
    assert_eq!((moved.status, moved.body.len()), (308, 0));
    assert_eq!(
        moved.header("location"),
        format!("{}/oauth2/token", sims.falcon_url("us-2"))
    );
    assert_eq!(moved.header("x-cs-region"), "us-2");

    let west = client(&sims, "us-2", &account).await;
    let stray = Client {
        base: sims.falcon_url("us-1"),
        ..west.clone()
    }
    .get(HOSTS)
    .await;
    assert_eq!(
        (stray.status, stray.header("x-ratelimit-limit")),
        (308, "15")
    );
    assert_eq!(west.get(HOSTS).await.status, 200);

    let government = Account::new("gov").region("us-gov-1");
    sims.falcon().put_account(government.clone());
    assert_eq!(
        form(
            &sims.falcon_url("us-1"),
            "/oauth2/token",
            &credentials(&government)
        )
        .await
        .status,
        400
    );
}

#[tokio::test]
async fn requests_without_a_valid_token_or_scope_are_rejected() {
    let (sims, client) = sims(1).await;
    let stranger = Client {
        token: "x".to_owned(),
        ..client.clone()
    }
    .get(HOSTS)
    .await;
    assert_eq!(
        (stranger.status, stranger.message().as_str()),
        (401, "access denied, invalid bearer token")
    );
    assert_eq!(stranger.header("x-ratelimit-limit"), "15");
    assert_eq!(client.get(HOSTS).await.header("x-ratelimit-limit"), "6000");

    sims.falcon()
        .put_account(Account::new("corp").scopes(["zta:read"]));
    let scope = client.get(HOSTS).await;
    assert_eq!(
        (scope.status, scope.message().as_str()),
        (403, "access denied, scope not permitted")
    );
    assert_eq!(
        client
            .get(&format!("{SCORES}?filter=score:>=0"))
            .await
            .status,
        200
    );

    sims.clock().advance(Duration::from_mins(30));
    assert_eq!(client.get(SCORES).await.status, 401);
}

#[tokio::test]
async fn requests_that_the_service_rejects_are_rejected() {
    let (_sims, client) = sims(1).await;
    for (path, status) in [
        ("/devices/nothing/v1".to_owned(), 404),
        (format!("{HOSTS}?limit=0"), 400),
        (format!("{HOSTS}?limit=10001"), 400),
        (format!("{HOSTS}?limits=5"), 400),
        (format!("{HOSTS}?filter=serial_number:"), 400),
        (format!("{HOSTS}?filter=colour:'red'"), 400),
        (format!("{HOSTS}?sort=colour.asc"), 400),
        (format!("{HOSTS}?offset=stale"), 404),
        (SCORES.to_owned(), 400),
        (format!("{SCORES}?filter=aid:'x'"), 400),
        (format!("{SCORES}?filter=score:>=0&limit=1001"), 400),
        (ASSESSMENTS.to_owned(), 400),
    ] {
        let response = client.get(&path).await;
        assert_eq!(response.status, status, "{path}: {}", response.text());
        assert!(response.json()["errors"][0]["code"].is_number());
    }
    assert_eq!(client.send("POST", HOSTS, &json!({})).await.status, 405);
}

#[tokio::test]
async fn the_budget_is_shared_and_refills() {
    let (sims, client) = sims(1).await;
    sims.falcon()
        .configure(|settings| settings.requests_per_minute = 2);
    assert_eq!(client.get(HOSTS).await.header("x-ratelimit-remaining"), "1");
    assert_eq!(client.get(HOSTS).await.header("x-ratelimit-remaining"), "0");
    let refused = client.get(HOSTS).await;
    assert_eq!(refused.status, 429);
    let wait = refused
        .header("x-ratelimit-retryafter")
        .parse::<i64>()
        .unwrap()
        - sims.clock().now().as_second();
    assert!((58..=61).contains(&wait), "{wait}");
    sims.falcon()
        .configure(|settings| settings.retry_after = RetryAfterUnit::Milliseconds);
    assert!(
        client
            .get(HOSTS)
            .await
            .header("x-ratelimit-retryafter")
            .len()
            > 12
    );
    sims.clock().advance(Duration::from_mins(1));
    assert_eq!(client.get(HOSTS).await.status, 200);
}

#[tokio::test]
async fn responses_are_compressed_when_gzip_is_accepted() {
    let (_sims, client) = sims(50).await;
    let plain = client.get(HOSTS).await;
    let headers = format!(
        "Authorization: Bearer {}\r\nAccept-Encoding: gzip\r\n",
        client.token
    );
    let packed = request(&client.base, "GET", HOSTS, &headers, "")
        .await
        .unwrap();
    assert_eq!(
        (
            plain.header("content-encoding"),
            packed.header("content-encoding")
        ),
        ("", "gzip")
    );
    assert!(packed.body.len() * 3 < plain.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.body.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap()["resources"],
        plain.json()["resources"]
    );
}
