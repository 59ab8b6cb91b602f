//! The listings and look-ups of the Falcon simulator.

mod access;

use std::collections::BTreeSet;
use std::time::Duration;

use posture_simulators::falcon::{CursorStyle, LastPage, UnknownIds, ZtaCursorName};
use posture_simulators::{Account, Host, Matcher, Side, Simulators};
use serde_json::{Value, json};

use crate::client::{Client, form};

const HOSTS: &str = "/devices/combined/devices/v1";
const SCORES: &str = "/zero-trust-assessment/queries/assessments/v1";
const ASSESSMENTS: &str = "/zero-trust-assessment/entities/assessments/v1";

fn aid(number: usize) -> String {
    format!("{number:032x}")
}

/// Returns hosts 0 to `count` with scores equal to their number.
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

    // removing a host before the cursor shifts nothing
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
async fn a_page_can_be_shorter_than_its_limit() {
    let (sims, client) = sims(5).await;
    sims.falcon()
        .configure(|settings| settings.longest_page = Some(2));
    for (path, id, cursor, next) in [
        (
            format!("{HOSTS}?limit=10000"),
            "device_id",
            "offset",
            "next",
        ),
        (
            format!("{SCORES}?filter=score:>=0&limit=1000"),
            "aid",
            "after",
            "after",
        ),
    ] {
        let (mut pages, mut url) = (Vec::new(), path.clone());
        loop {
            let page = client.get(&url).await.json();
            pages.push(ids(&page, id));
            let pagination = &page["meta"]["pagination"];
            assert_eq!(
                (&pagination["limit"], &pagination["total"]),
                (&json!(2), &json!(5))
            );
            match pagination[next].as_str() {
                None | Some("") => break,
                Some(place) => url = format!("{path}&{cursor}={place}"),
            }
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(pages.concat(), [0, 1, 2, 3, 4].map(aid));
    }
    // A limit may be below the maximum and not above it.
    let page = client.get(&format!("{HOSTS}?limit=1")).await.json();
    assert_eq!(ids(&page, "device_id").len(), 1);
    assert_eq!(
        client.get(&format!("{HOSTS}?limit=10001")).await.status,
        400
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
