//! Failures that look like a rejected credential and are not, and the reverse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use posture_simulators::{Entry, Fault, FaultKind, GeneratorSpec, Matcher, Side};
use serde_json::{Value, json};

use crate::environment::{TestEnvironment, falcon_secret};

const TOKEN: &str = "POST /oauth2/token";
const HOSTS: &str = "/devices/combined/devices/v1";
const SCORES: &str = "/zero-trust-assessment/queries/assessments/v1";

/// Runs ticks that all fail. No credential is at fault, so none of them pauses the integration.
async fn fails_without_a_pause(env: &TestEnvironment, words: &[&str]) {
    let scores = env.scores();
    env.requests();
    for n in 1..=3 {
        let answer = env.sync().await;
        assert_eq!(answer["outcome"], "failed", "{answer:#}");
        let error = answer["error"].as_str().unwrap();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
        let corp = env.corp().await;
        assert_eq!(corp["pause"], Value::Null, "{error}");
        assert_eq!(corp["status"]["errorKind"], "configuration", "{error}");
        assert_eq!(corp["status"]["consecutiveFailures"], n);
        assert_eq!(env.requests()[TOKEN], 1);
    }
    assert_eq!(env.scores(), scores);
    env.assert_sound().await;
}

#[tokio::test]
async fn an_address_off_the_allow_list_is_no_refused_credential() {
    let env = TestEnvironment::synced().await;
    let account = env.sims.falcon().accounts().remove("corp").unwrap();
    let mut outside = account.clone();
    outside.ip_allowed = false;
    env.sims.falcon().put_account(outside);
    fails_without_a_pause(&env, &["allow-list"]).await;
    env.sims.falcon().put_account(account);
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn a_cloud_that_is_not_known_here_is_no_refused_credential() {
    let env = TestEnvironment::synced().await;
    env.update(json!({"cloudId": "us-2"})).await;
    assert_eq!(env.sync().await["outcome"], "unchanged", "it is redirected");
    env.sims.falcon().configure(|settings| {
        settings.redirect_location = Some("https://api.us-9.example.com/oauth2/token".to_owned());
    });
    fails_without_a_pause(&env, &["cloudId"]).await;
    env.update(json!({"cloudId": "us-1"})).await;
    assert_eq!(env.sync().await["outcome"], "unchanged");
}

#[tokio::test]
async fn an_unknown_client_id_pauses_and_both_of_its_causes_are_named() {
    let env = TestEnvironment::synced().await;
    let mut secret = falcon_secret("corp");
    secret["clientId"] = json!("0123456789abcdef".repeat(2));
    env.services.put_secret("corp/falcon", secret);
    env.requests();
    let answer = env.sync().await;
    assert_eq!(answer["outcome"], "paused", "{answer:#}");
    assert_eq!(env.requests()[TOKEN], 1);
    let corp = env.corp().await;
    assert_eq!(corp["pause"]["side"], "falcon");
    assert_eq!(corp["status"]["errorKind"], "authentication");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("HTTP 400"), "{error}");
    assert!(
        error.contains("clientId") && error.contains("cloudId"),
        "{error}"
    );
    assert!(!error.contains("0123456789abcdef"), "{error}");
}

/// Falcon's 429 for requests with a missing, malformed or expired token: above 15 a minute for each address.
fn bucket_of_bad_bearers(path: &str) -> Fault {
    let headers = [("x-ratelimit-limit", "15"), ("x-ratelimit-remaining", "0")];
    let kind = FaultKind::Status {
        code: 429,
        headers: headers
            .map(|(name, n)| (name.to_owned(), n.to_owned()))
            .into(),
        body: None,
    };
    Fault::new(Matcher::side(Side::Falcon).path(path), kind)
}

#[tokio::test]
async fn a_rate_limit_that_stems_from_a_bad_bearer_mints_one_token_and_goes_on() {
    let env = TestEnvironment::synced().await;
    env.lower_a_score().await;
    env.requests();
    env.sims.faults().add(bucket_of_bad_bearers(HOSTS));
    assert_eq!(env.sync().await["outcome"], "synced");
    let requests = env.requests();
    assert_eq!(requests[TOKEN], 2);
    assert_eq!(requests[&format!("GET {HOSTS}")], 2);
    assert_eq!(env.scores(), env.expected());
    env.assert_sound().await;
}

#[tokio::test]
async fn a_bad_bearer_is_not_shown_a_third_time() {
    let unauthorized = Fault::status(Matcher::side(Side::Falcon).path(HOSTS), 401);
    for (fault, status) in [(bucket_of_bad_bearers(HOSTS), 429), (unauthorized, 401)] {
        let env = TestEnvironment::synced().await;
        env.requests();
        env.sims.faults().add(fault.always());
        let answer = env.sync().await;
        // Falcon rejects a token that it has just issued: the API client is at fault.
        assert_eq!(answer["outcome"], "paused", "{answer:#}");
        let requests = env.requests();
        assert_eq!(requests[&format!("GET {HOSTS}")], 2, "{status}");
        assert_eq!(requests[TOKEN], 2, "{status}");
        let corp = env.corp().await;
        assert_eq!(corp["status"]["errorKind"], "authentication", "{status}");
        assert_eq!(corp["pause"]["side"], "falcon", "{status}");
        env.assert_sound().await;
    }
}

/// Lets all tokens expire during the request for the second page of scores.
fn expire_in_mid_crawl(env: &TestEnvironment) {
    let (falcon, pages) = (env.sims.falcon().clone(), AtomicUsize::new(0));
    let scores = Matcher::side(Side::Falcon).path(SCORES);
    env.sims.on_request(scores, move |_| {
        if pages.fetch_add(1, Ordering::SeqCst) == 1 {
            falcon.expire_tokens();
        }
    });
}

/// Returns the pages that were read, with repetitions.
fn pages(entries: &[Entry]) -> BTreeMap<(&str, &str), usize> {
    let mut pages = BTreeMap::new();
    for entry in entries {
        if entry.method == "GET" && entry.status == Some(200) {
            let page = (entry.path.as_str(), entry.query.as_str());
            *pages.entry(page).or_default() += 1;
        }
    }
    pages
}

#[tokio::test]
async fn a_token_that_ends_in_mid_crawl_costs_one_token_and_no_page() {
    // Falcon's two responses to an expired token: 401, or 429 above the limit.
    for (strangers, refused_with) in [(15, 401), (0, 429)] {
        let env = TestEnvironment::connected(&GeneratorSpec::plain(4_500, 20)).await;
        env.sims
            .falcon()
            .configure(|settings| settings.strangers_per_minute = strangers);
        expire_in_mid_crawl(&env);
        env.requests();
        assert_eq!(env.sync().await["outcome"], "synced");
        assert_eq!(env.scores(), env.expected());

        let entries = env.sims.requests().of(Side::Falcon);
        let with_status = |status: u16| {
            let with = entries.iter().filter(|entry| entry.status == Some(status));
            with.count()
        };
        assert_eq!(with_status(201), 2, "one token, and one anew");
        let bad = with_status(refused_with);
        assert!((1..=2).contains(&bad), "{bad} calls with a bad bearer");
        let pages = pages(&entries);
        assert_eq!(pages.len(), 6, "one of hosts, five of scores: {pages:?}");
        assert!(pages.values().all(|times| *times == 1), "{pages:?}");
        env.assert_sound().await;
    }
}
