use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use posture_simulators::falcon::{
    CursorStyle, LastPage, RetryAfterUnit, UnknownIds, ZtaCursorName,
};
use posture_simulators::{Account, Host, Matcher, Side, Simulators};
use serde_json::{Value, json};

use crate::client::{Client, form, request};

const HOSTS: &str = "/devices/combined/devices/v1";
const SCORES: &str = "/zero-trust-assessment/queries/assessments/v1";
const ASSESSMENTS: &str = "/zero-trust-assessment/entities/assessments/v1";

fn aid(number: usize) -> String {
    format!("{number:032x}")
}

/// Hosts 0 to `count` with scores equal to their number.
async fn sims(count: usize) -> (Simulators, Client) {
    let sims = Simulators::builder()
        .regions(["us-1", "us-2"])
        .start()
        .await
        .unwrap();
    sims.falcon().put_account(Account::new("corp"));
    for number in 0..count {
        let host = Host::new(
            &aid(number),
            &format!("SN{number:03}"),
            &format!("host-{number}"),
            "2026-01-10T10:00:00Z",
        );
        sims.falcon().put_host("corp", host).unwrap();
        sims.falcon()
            .set_score("corp", &aid(number), number)
            .unwrap();
    }
    let client = client(&sims, "us-1", &Account::new("corp")).await;
    (sims, client)
}

async fn client(sims: &Simulators, region: &str, account: &Account) -> Client {
    let base = sims.falcon_url(region);
    let token = form(&base, "/oauth2/token", &credentials(account)).await;
    assert_eq!(token.status, 201, "{}", token.text());
    Client {
        base,
        token: token.json()["access_token"].as_str().unwrap().to_owned(),
    }
}

fn credentials(account: &Account) -> String {
    format!(
        "client_id={}&client_secret={}",
        account.client_id, account.client_secret
    )
}

fn ids(page: &Value, field: &str) -> Vec<String> {
    page["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record[field].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn tokens_are_refused_as_recorded() {
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
async fn without_a_valid_token_or_scope_nothing_is_told() {
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
async fn what_the_service_refuses_is_refused() {
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
async fn hosts_are_paged_by_cursor() {
    let (sims, client) = sims(5).await;
    let first = client
        .get(&format!("{HOSTS}?limit=2&fields=device_id,serial_number"))
        .await
        .json();
    assert_eq!(ids(&first, "device_id"), [aid(0), aid(1)]);
    assert_eq!(
        first["resources"][0],
        json!({"device_id": aid(0), "serial_number": "SN000"})
    );
    assert_eq!(first["meta"]["pagination"]["total"], 5);
    let next = first["meta"]["pagination"]["next"]
        .as_str()
        .unwrap()
        .to_owned();

    // a host removed behind the cursor shifts nothing
    sims.falcon().remove_host("corp", &aid(0)).unwrap();
    let second = client
        .get(&format!("{HOSTS}?limit=2&offset={next}"))
        .await
        .json();
    assert_eq!(ids(&second, "device_id"), [aid(2), aid(3)]);
    let next = second["meta"]["pagination"]["next"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        client
            .get(&format!(
                "{HOSTS}?limit=2&offset={next}&filter=hostname:'x'"
            ))
            .await
            .status,
        404,
        "the filter must be repeated"
    );
    let last = client
        .get(&format!("{HOSTS}?limit=2&offset={next}"))
        .await
        .json();
    assert_eq!(
        (
            ids(&last, "device_id"),
            last["meta"]["pagination"].get("next")
        ),
        (vec![aid(4)], None)
    );

    sims.clock().advance(Duration::from_secs(121));
    assert_eq!(
        client
            .get(&format!("{HOSTS}?limit=2&offset={next}"))
            .await
            .status,
        404
    );

    sims.falcon().configure(|settings| {
        settings.host_cursor = CursorStyle::Numeric;
        settings.last_page = LastPage::Empty;
    });
    let first = client.get(&format!("{HOSTS}?limit=3")).await.json();
    assert_eq!(first["meta"]["pagination"]["next"], 3);
    let last = client
        .get(&format!("{HOSTS}?limit=3&offset=3"))
        .await
        .json();
    assert_eq!(
        (ids(&last, "device_id"), &last["meta"]["pagination"]["next"]),
        (vec![aid(4)], &json!(""))
    );
}

#[tokio::test]
async fn hosts_are_filtered_and_sorted() {
    let (sims, client) = sims(4).await;
    let mut bare = Host::new(&aid(9), "", "bare", "2026-01-12T10:00:00Z");
    bare.serial_number = None;
    sims.falcon().put_host("corp", bare).unwrap();
    let list = async |query: &str| {
        ids(
            &client.get(&format!("{HOSTS}?{query}")).await.json(),
            "device_id",
        )
    };

    assert_eq!(
        list("filter=serial_number:['SN001','SN003','SN777']").await,
        [aid(1), aid(3)]
    );
    assert_eq!(
        list("filter=serial_number:'SN001',hostname:'bare'").await,
        [aid(1), aid(9)]
    );
    assert_eq!(
        list("filter=last_seen:>='2026-01-11T00:00:00Z'").await,
        [aid(9)]
    );
    assert_eq!(list("filter=serial_number:'sn001'").await, [""; 0]);
    sims.falcon()
        .configure(|settings| settings.fql_ignores_case = true);
    assert_eq!(list("filter=serial_number:'sn001'").await, [aid(1)]);
    assert_eq!(list("sort=device_id.desc&limit=2").await, [aid(9), aid(3)]);

    let record = client
        .get(&format!("{HOSTS}?filter=hostname:'bare'"))
        .await
        .json()["resources"][0]
        .clone();
    assert!(record.get("serial_number").is_none(), "absent, not null");
    assert!(record["cid"].is_string() && record["device_policies"].is_object());

    assert!(sims.falcon().hide_host("corp", &aid(0)).unwrap());
    assert_eq!(list("").await.len(), 4);
    assert_eq!(
        ids(
            &client
                .get("/devices/combined/devices-hidden/v1")
                .await
                .json(),
            "device_id"
        ),
        [aid(0)]
    );
    let details = client
        .send(
            "POST",
            "/devices/entities/devices/v2",
            &json!({"ids": [aid(0), aid(1), aid(77)]}),
        )
        .await
        .json();
    assert_eq!(
        (ids(&details, "device_id"), &details["errors"]),
        (vec![aid(0), aid(1)], &Value::Null)
    );
}

#[tokio::test]
async fn scores_are_listed_as_recorded() {
    let (sims, client) = sims(2).await;
    let page = client
        .get(&format!("{SCORES}?filter=score:>=1&limit=250"))
        .await
        .json();
    assert_eq!(page["resources"], json!([{"aid": aid(1), "score": 1}]));
    assert_eq!(
        page["meta"]["pagination"],
        json!({"limit": 250, "total": 1, "after": ""})
    );
    assert_eq!(page["errors"], Value::Null);
    assert!(page["meta"].get("powered_by").is_none());

    sims.falcon()
        .configure(|settings| settings.zta_cursor = ZtaCursorName::Next);
    let page = client
        .get(&format!("{SCORES}?filter=score:>=0&limit=1"))
        .await
        .json();
    let next = page["meta"]["pagination"]["next"].as_str().unwrap();
    let page = client
        .get(&format!("{SCORES}?filter=score:>=0&limit=1&after={next}"))
        .await
        .json();
    assert_eq!(ids(&page, "aid"), [aid(1)]);

    for (number, hostile) in [json!(-1), json!(101), json!(55.5), Value::Null, json!("80")]
        .into_iter()
        .enumerate()
    {
        sims.falcon()
            .set_score("corp", &aid(10 + number), hostile)
            .unwrap();
    }
    let page = client
        .get(&format!("{SCORES}?filter=score:>=0+score:<=100"))
        .await
        .json();
    assert_eq!(page["meta"]["pagination"]["total"], 7);
    assert_eq!(page["resources"][0], json!({"aid": aid(10), "score": -1}));
}

#[tokio::test]
async fn a_score_that_moves_while_paging_is_missed_or_seen_twice() {
    let (sims, client) = sims(4).await;
    let falcon = sims.falcon().clone();
    sims.on_request(Matcher::side(Side::Falcon).path(SCORES), move |seen| {
        if seen.query.contains("after") {
            falcon.set_score("corp", &aid(0), 100).unwrap();
        }
    });
    let first = client
        .get(&format!("{SCORES}?filter=score:>=0&limit=2"))
        .await
        .json();
    let after = first["meta"]["pagination"]["after"].as_str().unwrap();
    let second = client
        .get(&format!("{SCORES}?filter=score:>=0&limit=2&after={after}"))
        .await
        .json();
    let seen = [ids(&first, "aid"), ids(&second, "aid")].concat();
    assert_eq!(
        seen,
        [aid(0), aid(1), aid(3), aid(0)],
        "2 is missed, 0 is seen twice"
    );
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn assessments_of_unknown_ids_are_missing_or_404() {
    let (sims, client) = sims(2).await;
    let path = format!("{ASSESSMENTS}?ids={}&ids={}", aid(1), aid(9));
    let response = client.get(&path).await;
    assert_eq!(response.status, 200);
    let record = response.json()["resources"][0].clone();
    assert_eq!(
        (
            &record["system_serial_number"],
            &record["assessment"]["overall"]
        ),
        (&json!("SN001"), &json!(1))
    );
    assert_eq!(response.json()["resources"].as_array().unwrap().len(), 1);

    sims.falcon()
        .configure(|settings| settings.unknown_ids = UnknownIds::NotFound);
    let response = client.get(&path).await;
    assert_eq!(
        (response.status, response.message().as_str()),
        (404, "Assessment not found")
    );
    assert_eq!(response.json()["resources"].as_array().unwrap().len(), 1);

    let audit = client
        .get("/zero-trust-assessment/entities/audit/v1")
        .await
        .json();
    assert_eq!(
        (
            &audit["resources"][0]["num_aids"],
            &audit["resources"][0]["average_overall_score"]
        ),
        (&json!(2), &json!(0.5))
    );
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
async fn gzip_comes_when_it_is_accepted() {
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
